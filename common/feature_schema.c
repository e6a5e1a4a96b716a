/* Reading the feature part of a schema into items (feature_internal.h). What an item may name, and
 * what a state must not see, is decided here; feature_apply.c only computes. */
#include "common/feature_internal.h"

#include "common/embedding.h"
#include "common/err.h"
#include "common/join.h"
#include "common/mem.h"
#include "common/range.h"
#include "common/reward.h"

#include <stdio.h>
#include <string.h>

#define NAME_MAX_ 256
#define WIDTH_MAX (1 << 14)
#define HOUR      3600.0

/* What a feature item may be, and which options go with it. */
enum {
    OPT_MISSING = 1,
    OPT_LOG = 2,
    OPT_AT = 4,
    OPT_LAST = 8,
    OPT_WEIGHT = 16,
    OPT_EMPTY = 32,
    OPT_ABOVE = 64,
    OPT_VALUE = 128,
    OPT_UNIT = 256,
    OPT_UTC = 512
};

enum shape { NUMBERS, CATEGORIES, TABLES, EMBEDDINGS, ANY, SCALARS, WORDS };

struct kind {
    const char *key;
    enum lh_feature_op op;
    enum shape takes;
    unsigned options;
    const char *const *words;
    size_t n_words;
};

static const char *const count_words[] = {"rows", "sessions", "session_rows"};
static const char *const since_words[] = {"row", "session", "first"};
static const char *const session_words[] = {"length", "return_time"};
static const char *const clock_words[] = {"hour", "weekday"};

static const struct kind kinds[] = {
    {"column", LH_FEATURE_PRESENT, NUMBERS, OPT_MISSING | OPT_LOG | OPT_AT, NULL, 0},
    {"one_hot", LH_FEATURE_PRESENT, CATEGORIES, OPT_AT, NULL, 0},
    {"table", LH_FEATURE_PRESENT, TABLES, OPT_MISSING | OPT_LOG | OPT_AT, NULL, 0},
    {"embedding", LH_FEATURE_PRESENT, EMBEDDINGS, OPT_AT, NULL, 0},
    {"mean", LH_FEATURE_MEAN, ANY, OPT_LOG | OPT_AT | OPT_LAST | OPT_WEIGHT | OPT_EMPTY, NULL, 0},
    {"sum", LH_FEATURE_SUM, ANY, OPT_LOG | OPT_AT | OPT_LAST | OPT_WEIGHT | OPT_EMPTY, NULL, 0},
    {"share", LH_FEATURE_MEAN, CATEGORIES, OPT_AT | OPT_LAST | OPT_EMPTY | OPT_VALUE, NULL, 0},
    {"rate", LH_FEATURE_RATE, SCALARS, OPT_AT | OPT_LAST | OPT_EMPTY | OPT_ABOVE, NULL, 0},
    {"count", LH_FEATURE_COUNT, WORDS, OPT_LOG | OPT_AT, count_words, 3},
    {"since", LH_FEATURE_SINCE, WORDS, OPT_LOG | OPT_AT | OPT_EMPTY | OPT_UNIT, since_words, 3},
    {"session_mean", LH_FEATURE_SESSION_MEAN, WORDS, OPT_LOG | OPT_EMPTY | OPT_UNIT, session_words,
     2},
    {"clock", LH_FEATURE_CLOCK, WORDS, OPT_AT | OPT_UTC, clock_words, 2},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static const struct {
    const char *key;
    unsigned option;
} options[] = {
    {"missing", OPT_MISSING}, {"log1p", OPT_LOG},      {"at", OPT_AT},       {"last", OPT_LAST},
    {"weight", OPT_WEIGHT},   {"empty", OPT_EMPTY},    {"above", OPT_ABOVE}, {"value", OPT_VALUE},
    {"unit", OPT_UNIT},       {"utc_offset", OPT_UTC},
};
#define N_OPTIONS (sizeof options / sizeof *options)

static const char *const group_keys[LH_FEATURE_GROUPS] = {"state_high", "state_low", "action"};

struct reader {
    struct lh_feature_plan *p;
    const struct lh_column *columns;
    size_t n_columns;
    struct lh_reward_plan *reward; /* NULL where the schema has none */
    bool *in_action;               /* [n_columns] the action is made of it */
    int group;
};

/* --- names of features ---------------------------------------------------------------------- */

static int add_name(struct lh_feature_group *g, const struct lh_yaml_node *where, char **name)
{
    for (size_t k = 0; k < g->width; k++) {
        if (strcmp(g->name[k], *name) == 0)
            return lh_yaml_fail(where,
                                "the feature '%s' is in the list already; give one of them "
                                "a name:",
                                *name);
    }
    LH_TRY(LH_GROW(&g->name, &g->cap_names, g->width + 1, "feature names"));
    g->name[g->width++] = *name;
    *name = NULL;
    return 0;
}

/* Names the columns of `it`: its own name, and for a vector what each element is. */
static int name_columns(struct reader *rd, const struct lh_yaml_node *where,
                        const struct lh_feature_item *it)
{
    struct lh_feature_group *g = &rd->p->group[rd->group];
    const struct lh_source *s = &it->source;
    bool words = it->op >= LH_FEATURE_COUNT;
    for (size_t k = 0; k < it->width; k++) {
        char *name = NULL;
        if (it->op == LH_FEATURE_CLOCK)
            LH_TRY(lh_mem_printf(&name, "%s.%s", it->name, k ? "cos" : "sin"));
        else if (!words && s->kind == LH_SOURCE_CATEGORY)
            LH_TRY(lh_mem_printf(&name, "%s=%s", it->name,
                                 rd->columns[s->column].values[s->offset + k]));
        else if (!words && s->kind == LH_SOURCE_KEYED && rd->p->keyed[s->keyed].join)
            LH_TRY(lh_mem_printf(&name, "%s.%s", it->name,
                                 lh_join_names(rd->p->keyed[s->keyed].join)[s->offset + k]));
        else if (it->width > 1)
            LH_TRY(lh_mem_printf(&name, "%s.%zu", it->name, k));
        else
            LH_TRY(lh_mem_strdup(&name, it->name));
        int rc = add_name(g, where, &name);
        lh_mem_free(name);
        LH_TRY(rc);
    }
    return 0;
}

/* The item's own name: name: if given, else what it is, over what, with its options. */
static int name_item(const struct kind *kind, const struct lh_yaml_node *item, const char *of,
                     const struct lh_feature_item *it, char **out)
{
    const char *given = NULL;
    LH_TRY(lh_yaml_string(lh_yaml_get(item, "name"), &given));
    if (given)
        return lh_mem_strdup(out, given);
    char last[32] = "", weight[NAME_MAX_] = "", above[32] = "";
    if (it->last)
        snprintf(last, sizeof last, ".last%zu", it->last);
    if (it->weighted)
        snprintf(weight, sizeof weight, ".by.%s", lh_yaml_get(item, "weight")->text);
    if (it->op == LH_FEATURE_RATE)
        snprintf(above, sizeof above, ".above%g", it->above);
    bool bare = it->op == LH_FEATURE_PRESENT;
    /* of a table the name is added element by element, after the table's own */
    size_t n = strcspn(of, ".");
    bool table = it->op < LH_FEATURE_COUNT && it->source.kind == LH_SOURCE_KEYED;
    return lh_mem_printf(out, "%s%s%.*s%s%s%s%s", bare ? "" : kind->key, bare ? "" : ".",
                         table ? (int)n : (int)strlen(of), of, last, weight, above,
                         it->at_session_start ? "@session_start" : "");
}

/* --- sources ---------------------------------------------------------------------------------- */

static int find_keyed(const struct lh_feature_plan *p, const char *name, size_t n)
{
    for (size_t k = 0; k < p->n_keyed; k++) {
        if (strlen(p->keyed[k].name) == n && strncmp(p->keyed[k].name, name, n) == 0)
            return (int)k;
    }
    return -1;
}

/* `name` is a column, reward, a table, one of its columns (table.column), or an embedding. */
static int read_source(struct reader *rd, const struct lh_yaml_node *where, const char *name,
                       struct lh_source *out)
{
    struct lh_feature_plan *p = rd->p;
    *out = (struct lh_source){.width = 1};
    size_t n = strcspn(name, ".");
    int k = find_keyed(p, name, n);
    if (k >= 0) {
        struct lh_feature_keyed *key = &p->keyed[k];
        out->kind = LH_SOURCE_KEYED;
        out->keyed = (size_t)k;
        key->used = true;
        if (key->join) {
            int rc =
                lh_join_column(key->join, name[n] ? name + n + 1 : NULL, &out->offset, &out->width);
            if (rc == LH_NOTFOUND)
                return lh_yaml_fail(where, "table '%s' has no column '%s'", key->name,
                                    name + n + 1);
            return rc;
        }
        out->width = lh_embedding_dim(key->embedding);
        if (name[n])
            return lh_yaml_fail(where, "'%s': an embedding has no columns", name);
        return 0;
    }
    if (strcmp(name, "reward") == 0) {
        out->kind = LH_SOURCE_REWARD;
        if (!rd->reward)
            return lh_yaml_fail(where, "the schema declares no reward:");
        if (lh_reward_plan_looks_ahead(rd->reward))
            return lh_yaml_fail(where, "this reward averages over the user's whole log, so its "
                                       "past values know the future; use session_mean: instead");
        p->needs_reward = true;
        return 0;
    }
    LH_TRY(lh_userlog_find_column(rd->columns, rd->n_columns, where, name, &out->column));
    const struct lh_column *c = &rd->columns[out->column];
    if (c->type == LH_COLUMN_ID)
        return lh_yaml_fail(where,
                            "column '%s' is an id, which has no value; give it an "
                            "embedding or a table",
                            name);
    if (c->type == LH_COLUMN_CATEGORY) {
        out->kind = LH_SOURCE_CATEGORY;
        out->width = c->n_values;
    }
    return 0;
}

/* Whether the source is of the shape that this kind of item takes. */
static int check_shape(const struct reader *rd, const struct kind *kind,
                       const struct lh_yaml_node *where, const char *name,
                       const struct lh_source *s)
{
    const struct lh_feature_keyed *key =
        s->kind == LH_SOURCE_KEYED ? &rd->p->keyed[s->keyed] : NULL;
    switch (kind->takes) {
    case NUMBERS:
        if (s->kind == LH_SOURCE_NUMBER)
            return 0;
        if (s->kind == LH_SOURCE_CATEGORY)
            return lh_yaml_fail(where, "column '%s' is a category; write one_hot: %s", name, name);
        if (s->kind == LH_SOURCE_KEYED)
            return lh_yaml_fail(where, "'%s' is no column; write %s: %s", name,
                                key->join ? "table" : "embedding", name);
        return lh_yaml_fail(where, "the present reward cannot be a feature; use mean:, sum: or "
                                   "rate: over past rows");
    case CATEGORIES:
        if (s->kind == LH_SOURCE_CATEGORY || (key && key->join && kind->op != LH_FEATURE_PRESENT))
            return 0;
        return lh_yaml_fail(where, "'%s' is no category; declare the column so, with its values",
                            name);
    case TABLES:
        if (key && key->join)
            return 0;
        return lh_yaml_fail(where, "there is no table '%s'; declare it under tables:", name);
    case EMBEDDINGS:
        if (key && key->embedding)
            return 0;
        return lh_yaml_fail(where,
                            "there is no embedding '%s'; declare it under embeddings:", name);
    case SCALARS:
        if (s->width == 1 && s->kind != LH_SOURCE_CATEGORY)
            return 0;
        return lh_yaml_fail(where, "'%s' is not one number a row; for categories use share:", name);
    case ANY:
    case WORDS:
        break;
    }
    return 0;
}

/* The state must not see the present row's action or outcome. */
static int check_present(struct reader *rd, const struct lh_yaml_node *where, const char *name,
                         const struct lh_source *s)
{
    size_t column = s->kind == LH_SOURCE_KEYED ? rd->p->keyed[s->keyed].column : s->column;
    if (rd->group == LH_FEATURE_ACTION) {
        rd->in_action[column] = true;
        return 0;
    }
    if (rd->in_action[column])
        return lh_yaml_fail(where,
                            "'%s' is what the action is made of; the state may see it in "
                            "past rows only (mean:, sum:, share:, rate:)",
                            name);
    if (s->kind != LH_SOURCE_KEYED && rd->reward && lh_reward_plan_uses(rd->reward, column))
        return lh_yaml_fail(where,
                            "'%s' is what the reward is made of; the state may see it in "
                            "past rows only (mean:, sum:, share:, rate:)",
                            name);
    return 0;
}

/* --- items ------------------------------------------------------------------------------------ */

static int read_missing(const struct lh_yaml_node *node, struct lh_feature_item *it)
{
    if (!node)
        return 0;
    double x = 0;
    if (node->kind == LH_YAML_SCALAR && strcmp(node->text, "drop") == 0) {
        it->missing = LH_MISSING_DROPS;
        return 0;
    }
    LH_TRY(lh_yaml_double(node, -1e30, 1e30, &x));
    it->missing = LH_MISSING_IS;
    it->missing_value = (float)x;
    return 0;
}

/* share: of one value only. */
static int read_value(struct reader *rd, const struct lh_yaml_node *node, struct lh_source *s)
{
    if (!node)
        return 0;
    const char *text = NULL;
    LH_TRY(lh_yaml_string(node, &text));
    if (s->kind != LH_SOURCE_CATEGORY)
        return lh_yaml_fail(node, "value: goes with a category column");
    const struct lh_column *c = &rd->columns[s->column];
    for (size_t k = 0; k < c->n_values; k++) {
        if (strcmp(c->values[k], text) == 0) {
            s->offset = k;
            s->width = 1;
            return 0;
        }
    }
    return lh_yaml_fail(node, "'%s' is not among the values of column '%s'", text, c->name);
}

static int read_weight(struct reader *rd, const struct lh_yaml_node *node,
                       struct lh_feature_item *it)
{
    if (!node)
        return 0;
    const char *name = NULL;
    LH_TRY(lh_yaml_string(node, &name));
    LH_TRY(read_source(rd, node, name, &it->weight));
    if (it->weight.kind == LH_SOURCE_CATEGORY || it->weight.width != 1)
        return lh_yaml_fail(node, "'%s' is not one number a row", name);
    it->weighted = true;
    return 0;
}

static int read_options(struct reader *rd, const struct kind *kind, const struct lh_yaml_node *item,
                        struct lh_feature_item *it)
{
    static const char *const ats[] = {"request", "session_start"};
    static const char *const units[] = {"seconds", "minutes", "hours", "days"};
    static const double seconds[] = {1, 60, HOUR, 24 * HOUR};
    for (size_t k = 0; k < N_OPTIONS; k++) {
        const struct lh_yaml_node *o = lh_yaml_get(item, options[k].key);
        if (o && !(kind->options & options[k].option))
            return lh_yaml_fail(o, "does not go with %s:", kind->key);
    }
    int at = 0, unit = 2;
    int64_t last = 0;
    double empty = 0, utc = 0;
    LH_TRY(lh_yaml_enum(lh_yaml_get(item, "at"), ats, 2, &at));
    LH_TRY(lh_yaml_enum(lh_yaml_get(item, "unit"), units, 4, &unit));
    LH_TRY(lh_yaml_int(lh_yaml_get(item, "last"), 1, 100000, &last));
    LH_TRY(lh_yaml_bool(lh_yaml_get(item, "log1p"), &it->log1p));
    LH_TRY(lh_yaml_double(lh_yaml_get(item, "empty"), -1e30, 1e30, &empty));
    LH_TRY(lh_yaml_double(lh_yaml_get(item, "above"), -1e30, 1e30, &it->above));
    LH_TRY(lh_yaml_double(lh_yaml_get(item, "utc_offset"), -24, 24, &utc));
    LH_TRY(read_missing(lh_yaml_get(item, "missing"), it));
    LH_TRY(read_weight(rd, lh_yaml_get(item, "weight"), it));
    it->at_session_start = at == 1;
    it->last = (size_t)last;
    it->empty = (float)empty;
    it->unit = seconds[unit];
    it->utc_offset = utc * HOUR;
    return 0;
}

/* Appends one item: `kind` of `name`, with the options of the mapping `item`. */
static int add_item(struct reader *rd, const struct kind *kind, const struct lh_yaml_node *item,
                    const struct lh_yaml_node *where, const char *name)
{
    struct lh_feature_plan *p = rd->p;
    struct lh_feature_group *g = &p->group[rd->group];
    struct lh_feature_item it = {.op = kind->op, .width = 1, .offset = g->width};
    if (kind->takes == WORDS) {
        while ((size_t)it.what < kind->n_words && strcmp(kind->words[it.what], name) != 0)
            it.what++;
        if ((size_t)it.what == kind->n_words) {
            const char *near = lh_yaml_nearest(name, kind->words, kind->n_words);
            return lh_yaml_fail(where, "'%s' is nothing that can be had here; did you mean '%s'?",
                                name, near ? near : kind->words[0]);
        }
        it.width = kind->op == LH_FEATURE_CLOCK ? 2 : 1;
    } else {
        LH_TRY(read_source(rd, where, name, &it.source));
        LH_TRY(check_shape(rd, kind, where, name, &it.source));
        if (kind->op == LH_FEATURE_PRESENT)
            LH_TRY(check_present(rd, where, name, &it.source));
        LH_TRY(read_value(rd, lh_yaml_get(item, "value"), &it.source));
        it.width = it.source.width;
    }
    if (kind->op == LH_FEATURE_PRESENT && it.source.kind == LH_SOURCE_KEYED) {
        const struct lh_embedding *e = p->keyed[it.source.keyed].embedding;
        it.missing = e && lh_embedding_drops_unseen(e) ? LH_MISSING_DROPS : LH_MISSING_IS;
    }
    LH_TRY(read_options(rd, kind, item, &it));
    if (g->width + it.width > WIDTH_MAX)
        return lh_yaml_fail(where, "more than %d columns in %s", WIDTH_MAX, group_keys[rd->group]);
    char *own = NULL;
    LH_TRY(name_item(kind, item, name, &it, &own));
    it.name = own;
    int rc = LH_GROW(&g->item, &g->cap, g->n + 1, "features");
    if (rc < 0) {
        lh_mem_free(own);
        return rc;
    }
    g->item[g->n++] = it;
    if (it.width > p->widest)
        p->widest = it.width;
    return name_columns(rd, where, &it);
}

/* A name, or a range of columns "state_0..state_90". */
static int add_names(struct reader *rd, const struct kind *kind, const struct lh_yaml_node *item,
                     const struct lh_yaml_node *node)
{
    const char *text = NULL;
    LH_TRY(lh_yaml_string(node, &text));
    struct lh_range range;
    if (kind->takes == WORDS || !strstr(text, ".."))
        return add_item(rd, kind, item, node, text);
    if (!lh_range_parse(text, &range))
        return lh_yaml_fail(node, "'%s' is no range; write it as state_0..state_90", text);
    for (size_t k = 0; k < lh_range_count(&range); k++) {
        char *name = NULL;
        LH_TRY(lh_range_name(&range, k, &name));
        int rc = add_item(rd, kind, item, node, name);
        lh_mem_free(name);
        LH_TRY(rc);
    }
    return 0;
}

static int read_item(struct reader *rd, const struct lh_yaml_node *item)
{
    LH_TRY(lh_yaml_expect(item, LH_YAML_MAPPING));
    const char *keys[N_KINDS + N_OPTIONS + 1];
    size_t n = 0;
    const struct kind *kind = NULL;
    const struct lh_yaml_node *value = NULL;
    for (size_t k = 0; k < N_KINDS; k++) {
        keys[n++] = kinds[k].key;
        const struct lh_yaml_node *v = lh_yaml_get(item, kinds[k].key);
        if (v && kind)
            return lh_yaml_fail(v, "an item is one feature; put '%s' on a line of its own", v->key);
        if (v) {
            kind = &kinds[k];
            value = v;
        }
    }
    for (size_t k = 0; k < N_OPTIONS; k++)
        keys[n++] = options[k].key;
    keys[n++] = "name";
    LH_TRY(lh_yaml_check_keys(item, keys, n));
    if (!kind)
        return lh_yaml_fail(item, "says no feature; begin with column:, one_hot:, table:, "
                                  "embedding:, mean:, sum:, share:, rate:, count:, since:, "
                                  "session_mean: or clock:");
    if (rd->group == LH_FEATURE_ACTION && kind->op != LH_FEATURE_PRESENT)
        return lh_yaml_fail(item,
                            "%s: tells of the past; an action is made of column:, one_hot:, "
                            "table: or embedding:",
                            kind->key);
    if (value->kind == LH_YAML_SEQUENCE) {
        for (const struct lh_yaml_node *v = value->child; v; v = v->next)
            LH_TRY(add_names(rd, kind, item, v));
        return 0;
    }
    return add_names(rd, kind, item, value);
}

static int read_group(struct reader *rd, const struct lh_yaml_node *schema, int group)
{
    rd->group = group;
    const struct lh_yaml_node *list = lh_yaml_get(schema, group_keys[group]);
    if (!list)
        return lh_yaml_fail(schema, "%s: is missing; list its features", group_keys[group]);
    LH_TRY(lh_yaml_expect(list, LH_YAML_SEQUENCE));
    for (const struct lh_yaml_node *item = list->child; item; item = item->next)
        LH_TRY(read_item(rd, item));
    if (rd->p->group[group].width == 0)
        return lh_yaml_fail(list, "lists no feature");
    return 0;
}

/* --- tables and embeddings ----------------------------------------------------------------------
 */

static int take_keyed(struct reader *rd, const struct lh_yaml_node *node,
                      struct lh_feature_keyed **out)
{
    struct lh_feature_plan *p = rd->p;
    if (strcmp(node->key, "reward") == 0 || strchr(node->key, '.'))
        return lh_yaml_fail(node, "the name 'reward', or one with a dot, means something else");
    if (find_keyed(p, node->key, strlen(node->key)) >= 0)
        return lh_yaml_fail(node, "a table and an embedding share this name; rename one");
    for (size_t c = 0; c < rd->n_columns; c++) {
        if (strcmp(rd->columns[c].name, node->key) == 0)
            return lh_yaml_fail(node, "a column has this name already; choose another");
    }
    char *name = NULL;
    LH_TRY(lh_mem_strdup(&name, node->key));
    *out = &p->keyed[p->n_keyed++];
    (*out)->name = name;
    return 0;
}

static int read_keyed(struct reader *rd, const struct lh_yaml_node *schema, const char *data_dir,
                      uint64_t seed, unsigned threads)
{
    const struct lh_yaml_node *tables = lh_yaml_get(schema, "tables");
    const struct lh_yaml_node *embeddings = lh_yaml_get(schema, "embeddings");
    if (tables)
        LH_TRY(lh_yaml_expect(tables, LH_YAML_MAPPING));
    if (embeddings)
        LH_TRY(lh_yaml_expect(embeddings, LH_YAML_MAPPING));
    size_t n = (tables ? tables->n : 0) + (embeddings ? embeddings->n : 0);
    LH_TRY(LH_NEW_ARRAY(&rd->p->keyed, n, "tables and embeddings"));
    struct lh_feature_keyed *k = NULL;
    for (const struct lh_yaml_node *t = tables ? tables->child : NULL; t; t = t->next) {
        LH_TRY(take_keyed(rd, t, &k));
        LH_TRY(lh_join_create(&k->join, t, rd->columns, rd->n_columns, data_dir));
        k->column = lh_join_key(k->join);
    }
    for (const struct lh_yaml_node *e = embeddings ? embeddings->child : NULL; e; e = e->next) {
        LH_TRY(take_keyed(rd, e, &k));
        LH_TRY(lh_embedding_create(&k->embedding, e, rd->columns, rd->n_columns, data_dir, seed,
                                   threads));
        k->column = lh_embedding_key(k->embedding);
    }
    return 0;
}

int lh_feature_schema_read(struct lh_feature_plan *p, const struct lh_yaml_node *schema,
                           const struct lh_column *columns, size_t n_columns, const char *data_dir,
                           uint64_t seed, unsigned threads)
{
    struct reader rd = {.p = p, .columns = columns, .n_columns = n_columns};
    int rc = 0;
    LH_TRY_TO(done, LH_NEW_ARRAY(&rd.in_action, n_columns, "columns of the action"));
    const struct lh_yaml_node *reward = lh_yaml_get(schema, "reward");
    if (reward)
        LH_TRY_TO(done, lh_reward_plan_create(&rd.reward, reward, columns, n_columns));
    LH_TRY_TO(done, read_keyed(&rd, schema, data_dir, seed, threads));
    /* the action first: it says what the states must not see */
    LH_TRY_TO(done, read_group(&rd, schema, LH_FEATURE_ACTION));
    LH_TRY_TO(done, read_group(&rd, schema, LH_FEATURE_HIGH));
    LH_TRY_TO(done, read_group(&rd, schema, LH_FEATURE_LOW));
    LH_TRY_TO(done, lh_feature_ids_read(p, schema, columns, n_columns, rd.in_action));
done:
    lh_reward_plan_destroy(&rd.reward);
    lh_mem_free(rd.in_action);
    return rc;
}
