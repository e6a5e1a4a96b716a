/* Reading a schema; its columns are read by schema_columns.c. Each key is checked where it is read,
 * so that a complaint names its line; what only makes sense together (a trajectory's columns, the
 * split) is checked at the end. */
#include "common/schema_internal.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX (16u << 20)
#define N(array) (sizeof(array) / sizeof *(array))
#define NONE     SIZE_MAX

typedef const struct lh_yaml_node node;

bool lh_schema_is_missing(const struct lh_schema *s, const char *text, size_t n)
{
    for (size_t i = 0; i < s->n_missing; i++) {
        if (strlen(s->missing[i]) == n && memcmp(s->missing[i], text, n) == 0)
            return true;
    }
    return false;
}

size_t lh_schema_find(const struct lh_schema *s, const char *name)
{
    for (size_t i = 0; i < s->n_columns; i++) {
        if (strcmp(s->columns[i].name, name) == 0)
            return i;
    }
    return NONE;
}

int lh_schema_read_words(node *n, const char ***out, size_t *n_out)
{
    if (!n)
        return 0;
    lh_mem_free(*out); /* a default */
    *out = NULL;
    *n_out = 0;
    if (n->kind == LH_YAML_SCALAR) {
        LH_TRY(LH_NEW_ARRAY(out, 1, "schema"));
        (*out)[(*n_out)++] = n->text;
        return 0;
    }
    LH_TRY(lh_yaml_expect(n, LH_YAML_SEQUENCE));
    LH_TRY(LH_NEW_ARRAY(out, n->n, "schema"));
    for (node *c = n->child; c; c = c->next) {
        LH_TRY(lh_yaml_expect(c, LH_YAML_SCALAR));
        (*out)[(*n_out)++] = c->text;
    }
    return 0;
}

/* --- input ----------------------------------------------------------------------------------- */

static int read_separator(struct lh_schema *s, node *n)
{
    const char *text = s->csv.separator;
    LH_TRY(lh_yaml_string(n, &text));
    if (strcmp(text, "tab") == 0 || strcmp(text, "\\t") == 0)
        text = "\t";
    size_t bytes = strlen(text);
    if (bytes < 1 || bytes > sizeof s->csv.separator || strchr(text, '\n'))
        return lh_yaml_fail(n, "a separator has 1 to %zu characters and no line end; 'tab' is one",
                            sizeof s->csv.separator);
    if (text != s->csv.separator)
        memcpy(s->csv.separator, text, bytes);
    s->csv.separator_bytes = bytes;
    return 0;
}

static int read_quote(struct lh_schema *s, node *n)
{
    s->csv.quote = s->csv.separator_bytes == 1 ? '"' : -1;
    if (!n)
        return 0;
    const char *text = "";
    LH_TRY(lh_yaml_string(n, &text));
    if (!*text || strcmp(text, "none") == 0 || strcmp(text, "false") == 0)
        s->csv.quote = -1;
    else if (text[1] || *text == s->csv.separator[0] || *text == '\n')
        return lh_yaml_fail(n, "a quote is one character that is no separator, or 'none'");
    else
        s->csv.quote = (unsigned char)*text;
    return 0;
}

static int read_input(struct lh_schema *s, node *n)
{
    static const char *const keys[] = {"files",  "format",  "separator", "quote",
                                       "header", "columns", "missing",   "skip"};
    static const char *const formats[] = {"csv", "jsonl"};
    LH_TRY(lh_yaml_check_keys(n, keys, N(keys)));
    int format = LH_SCHEMA_CSV;
    int64_t skip = 0;
    node *columns = lh_yaml_get(n, "columns");
    LH_TRY(lh_schema_read_words(lh_yaml_get(n, "files"), &s->files, &s->n_files));
    LH_TRY(lh_yaml_enum(lh_yaml_get(n, "format"), formats, 2, &format));
    s->format = (enum lh_schema_format)format;
    s->csv = (struct lh_csv){.separator = ",", .separator_bytes = 1};
    LH_TRY(read_separator(s, lh_yaml_get(n, "separator")));
    LH_TRY(read_quote(s, lh_yaml_get(n, "quote")));
    LH_TRY(lh_schema_read_words(columns, &s->field_names, &s->n_field_names));
    s->header = format == LH_SCHEMA_CSV && !columns;
    LH_TRY(lh_yaml_bool(lh_yaml_get(n, "header"), &s->header));
    if (format == LH_SCHEMA_JSONL && (s->header || columns))
        return lh_yaml_fail(columns ? columns : lh_yaml_get(n, "header"),
                            "JSON lines carry their names; remove this");
    if (format == LH_SCHEMA_CSV && !s->header && !columns)
        return lh_yaml_fail(lh_yaml_get(n, "header"),
                            "without a header the fields need names: input.columns");
    LH_TRY(lh_schema_read_words(lh_yaml_get(n, "missing"), &s->missing, &s->n_missing));
    if (!s->missing) {
        LH_TRY(LH_NEW_ARRAY(&s->missing, 1, "schema"));
        s->missing[s->n_missing++] = "";
    }
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "skip"), 0, 1000000, &skip));
    s->skip = (size_t)skip;
    return 0;
}

/* --- trajectories, splits, the rest ------------------------------------------------------------
 */

static int find_column(const struct lh_schema *s, node *n, enum lh_schema_type type, size_t *out)
{
    const char *name = NULL;
    if (!n)
        return 0;
    LH_TRY(lh_yaml_string(n, &name));
    *out = lh_schema_find(s, name);
    if (*out == NONE) {
        const char **names;
        LH_TRY(LH_NEW_ARRAY(&names, s->n_columns, "schema columns"));
        for (size_t i = 0; i < s->n_columns; i++)
            names[i] = s->columns[i].name;
        const char *near = lh_yaml_nearest(name, names, s->n_columns);
        lh_mem_free(names);
        return near ? lh_yaml_fail(n, "there is no column '%s'; did you mean '%s'?", name, near)
                    : lh_yaml_fail(n, "there is no column '%s'; declare it under columns:", name);
    }
    if (s->columns[*out].type != type)
        return lh_yaml_fail(n, "column '%s' is of type %s; a column of type %s is needed here",
                            name, lh_schema_type_names[s->columns[*out].type],
                            lh_schema_type_names[type]);
    return 0;
}

static int read_end(struct lh_schema *s, node *n)
{
    s->end = s->by_session ? LH_END_TRUE : LH_END_CUT_OFF;
    if (!n)
        return 0;
    const char *text = "";
    LH_TRY(lh_yaml_string(n, &text));
    if (strcmp(text, "true") == 0)
        s->end = LH_END_TRUE;
    else if (strcmp(text, "cut_off") == 0)
        s->end = LH_END_CUT_OFF;
    else {
        s->end = LH_END_COLUMN;
        return find_column(s, n, LH_SCHEMA_NUMBER, &s->end_column);
    }
    return 0;
}

static int read_trajectory(struct lh_schema *s, node *n)
{
    static const char *const keys[] = {"user", "by",  "session",    "gap_minutes",
                                       "time", "end", "max_length", "min_length"};
    static const char *const by_names[] = {"user", "session"};
    if (!n)
        return lh_yaml_fail(s->root, "a schema needs trajectory: with at least user: and time:");
    LH_TRY(lh_yaml_check_keys(n, keys, N(keys)));
    node *time = lh_yaml_get(n, "time"), *gap = lh_yaml_get(n, "gap_minutes");
    if (!lh_yaml_get(n, "user") || !time)
        return lh_yaml_fail(n, "needs %s",
                            time ? "user: the id column that tells users apart"
                                 : "time: the time column, or 'order' for the order of the log");
    LH_TRY(find_column(s, lh_yaml_get(n, "user"), LH_SCHEMA_ID, &s->user));
    LH_TRY(lh_yaml_expect(time, LH_YAML_SCALAR));
    if (strcmp(time->text, "order") != 0 || lh_schema_find(s, "order") != NONE)
        LH_TRY(find_column(s, time, LH_SCHEMA_TIME, &s->time));
    LH_TRY(find_column(s, lh_yaml_get(n, "session"), LH_SCHEMA_ID, &s->session));
    if (gap) {
        double minutes = 0;
        LH_TRY(lh_yaml_double(gap, 1e-6, 1e9, &minutes));
        s->gap_us = (int64_t)(minutes * 60e6);
        if (s->session != NONE || s->time == NONE)
            return lh_yaml_fail(gap, s->session != NONE
                                         ? "sessions come from a column already; keep one"
                                         : "needs times; the order of the log has none");
    }
    int by = 0;
    LH_TRY(lh_yaml_enum(lh_yaml_get(n, "by"), by_names, 2, &by));
    s->by_session = by == 1;
    if (s->by_session && s->session == NONE && !gap)
        return lh_yaml_fail(lh_yaml_get(n, "by"), "needs session: or gap_minutes: beside it");
    LH_TRY(read_end(s, lh_yaml_get(n, "end")));
    int64_t max = 0, min = 1;
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "max_length"), 1, UINT32_MAX - 1, &max));
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "min_length"), 1, UINT32_MAX - 1, &min));
    s->max_length = (uint64_t)max;
    s->min_length = (uint64_t)min;
    for (size_t i = 0; i < s->n_columns; i++) {
        if (s->columns[i].type == LH_SCHEMA_TIME && i != s->time)
            return lh_yaml_fail(
                lh_yaml_get(lh_yaml_get(s->root, "columns"), s->columns[i].name)
                    ? lh_yaml_get(lh_yaml_get(s->root, "columns"), s->columns[i].name)
                    : n,
                "only trajectory.time is a time; declare this one a number");
    }
    return 0;
}

static int read_amount(node *n, struct lh_schema_split *out)
{
    if (!n)
        return 0;
    LH_TRY(lh_yaml_expect(n, LH_YAML_SCALAR));
    size_t bytes = strlen(n->text);
    bool percent = bytes > 1 && n->text[bytes - 1] == '%';
    double v;
    if (strcmp(n->text, "rest") == 0) {
        *out = (struct lh_schema_split){.amount = LH_AMOUNT_REST};
        return 0;
    }
    if (lh_parse_double(n->text, bytes - percent, &v) != LH_PARSED || v < 0 || v > 1e15)
        return lh_yaml_fail(n, "'%s' is no number of users, no share (0.8, 80%%) and not 'rest'",
                            n->text);
    if (percent || strpbrk(n->text, ".eE")) {
        v = percent ? v / 100 : v;
        *out = (struct lh_schema_split){.amount = LH_AMOUNT_SHARE, .share = v};
        return v <= 1 ? 0 : lh_yaml_fail(n, "a share lies between 0 and 1");
    }
    *out = (struct lh_schema_split){.amount = LH_AMOUNT_COUNT, .count = (uint64_t)v};
    return 0;
}

static int read_split(struct lh_schema *s, node *n)
{
    static const char *const keys[] = {"train", "validation", "test", "seed"};
    LH_TRY(lh_yaml_check_keys(n, keys, N(keys)));
    s->split[LH_TRAIN] = (struct lh_schema_split){.amount = LH_AMOUNT_SHARE, .share = 0.8};
    s->split[LH_VALIDATION] = (struct lh_schema_split){.amount = LH_AMOUNT_SHARE, .share = 0.1};
    s->split[LH_TEST] = (struct lh_schema_split){.amount = LH_AMOUNT_REST};
    if (n)
        memset(s->split, 0, sizeof s->split); /* what is not named takes nobody */
    double shares = 0;
    int rests = 0;
    for (int i = 0; i < LH_SPLITS; i++) {
        LH_TRY(read_amount(lh_yaml_get(n, keys[i]), &s->split[i]));
        shares += s->split[i].amount == LH_AMOUNT_SHARE ? s->split[i].share : 0;
        rests += s->split[i].amount == LH_AMOUNT_REST;
    }
    if (rests > 1)
        return lh_yaml_fail(n, "only one split can take the rest");
    if (shares > 1 + 1e-9)
        return lh_yaml_fail(n, "the shares add up to more than 1");
    if (s->split[LH_TRAIN].amount == LH_AMOUNT_COUNT && s->split[LH_TRAIN].count == 0)
        return lh_yaml_fail(n, "needs train: a number of users, a share, or 'rest'");
    int64_t seed = (int64_t)s->seed;
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "seed"), 0, INT64_MAX, &seed));
    s->split_seed = (uint64_t)seed;
    return 0;
}

static int read_partition(struct lh_schema *s, node *n)
{
    static const char *const keys[] = {"by_day", "hash"};
    int64_t hash = 4;
    LH_TRY(lh_yaml_check_keys(n, keys, N(keys)));
    s->by_day = s->time != NONE;
    LH_TRY(lh_yaml_bool(lh_yaml_get(n, "by_day"), &s->by_day));
    if (s->by_day && s->time == NONE)
        return lh_yaml_fail(lh_yaml_get(n, "by_day"), "needs times; the order of the log has none");
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "hash"), 1, 4096, &hash));
    s->hash = (uint32_t)hash;
    return 0;
}

static int read_bad_rows(struct lh_schema *s, node *n)
{
    static const char *const keys[] = {"max", "share"};
    int64_t max = 100;
    LH_TRY(lh_yaml_check_keys(n, keys, N(keys)));
    s->bad_share = n ? 0 : 0.001;
    LH_TRY(lh_yaml_int(lh_yaml_get(n, "max"), 0, INT64_MAX, &max));
    if (n && !lh_yaml_get(n, "max"))
        max = 0;
    s->bad_max = (uint64_t)max;
    return lh_yaml_double(lh_yaml_get(n, "share"), 0, 1, &s->bad_share);
}

/* Offsets in a binary row: 8-byte values, then 4-byte ones. */
static int lay_out(struct lh_schema *s)
{
    size_t at = sizeof(struct lh_row);
    for (int wide = 1; wide >= 0; wide--) {
        for (size_t i = 0; i < s->n_columns; i++) {
            struct lh_schema_column *c = &s->columns[i];
            if (i == s->user || i == s->time) {
                c->offset =
                    i == s->user ? offsetof(struct lh_row, user) : offsetof(struct lh_row, time);
            } else if ((c->type == LH_SCHEMA_ID) == (wide == 1)) {
                c->offset = at;
                at += wide ? 8 : 4;
            }
        }
    }
    s->row_bytes = (at + 7) / 8 * 8;
    LH_TRY(LH_NEW_ARRAY(&s->visible, s->n_columns, "schema columns"));
    LH_TRY(LH_NEW_ARRAY(&s->visible_column, s->n_columns, "schema columns"));
    for (size_t i = 0; i < s->n_columns; i++) {
        const struct lh_schema_column *c = &s->columns[i];
        if (c->type == LH_SCHEMA_TIME)
            continue;
        s->visible[s->n_visible] = (struct lh_column){
            .name = c->name,
            .type = c->type == LH_SCHEMA_NUMBER     ? LH_COLUMN_NUMBER
                    : c->type == LH_SCHEMA_CATEGORY ? LH_COLUMN_CATEGORY
                                                    : LH_COLUMN_ID,
            .values = c->values,
            .n_values = c->n_values,
        };
        s->visible_column[s->n_visible++] = i;
    }
    return 0;
}

static int read_schema(struct lh_schema *s)
{
    static const char *const keys[] = {"name",      "seed",       "input",      "columns",
                                       "split",     "trajectory", "partition",  "bad_rows",
                                       "reward",    "tables",     "embeddings", "state_high",
                                       "state_low", "action",     "ids",        "simulation"};
    int64_t seed = 1;
    LH_TRY(lh_yaml_check_keys(s->root, keys, N(keys))); /* simulation: whose log it is; kept */
    s->name = "log";
    LH_TRY(lh_yaml_string(lh_yaml_get(s->root, "name"), &s->name));
    LH_TRY(lh_yaml_int(lh_yaml_get(s->root, "seed"), 0, INT64_MAX, &seed));
    s->seed = (uint64_t)seed;
    LH_TRY(read_input(s, lh_yaml_get(s->root, "input")));
    LH_TRY(lh_schema_read_columns(s, lh_yaml_get(s->root, "columns")));
    LH_TRY(read_trajectory(s, lh_yaml_get(s->root, "trajectory")));
    LH_TRY(read_split(s, lh_yaml_get(s->root, "split")));
    LH_TRY(read_partition(s, lh_yaml_get(s->root, "partition")));
    LH_TRY(read_bad_rows(s, lh_yaml_get(s->root, "bad_rows")));
    if (!lh_yaml_get(s->root, "reward"))
        return lh_yaml_fail(s->root, "a schema needs reward:");
    return lay_out(s);
}

int lh_schema_load_text(struct lh_schema **out, const char *text, size_t n, const char *name,
                        const char *const *sets, size_t n_sets)
{
    struct lh_schema *s = NULL;
    int rc;
    LH_TRY(LH_NEW(&s, "schema"));
    s->user = s->time = s->session = s->end_column = NONE;
    LH_TRY_TO(fail, lh_yaml_load_text(&s->doc, text, n, name));
    for (size_t i = 0; i < n_sets; i++)
        LH_TRY_TO(fail, lh_yaml_set(s->doc, sets[i]));
    s->root = lh_yaml_root(s->doc);
    LH_TRY_TO(fail, lh_mem_printf(&s->text, "%.*s", (int)n, text));
    LH_TRY_TO(fail, read_schema(s));
    *out = s;
    return 0;
fail:
    lh_schema_destroy(&s);
    return rc;
}

int lh_schema_load(struct lh_schema **out, const char *path, const char *const *sets, size_t n_sets)
{
    char *text = NULL;
    size_t n;
    LH_TRY(lh_fs_read_file(&text, &n, path, FILE_MAX));
    int rc = lh_schema_load_text(out, text, n, path, sets, n_sets);
    lh_mem_free(text);
    return rc;
}

void lh_schema_destroy(struct lh_schema **p)
{
    struct lh_schema *s = *p;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_columns; i++)
        lh_schema_column_fini(&s->columns[i]);
    for (size_t i = 0; i < s->n_owned; i++)
        lh_mem_free(s->owned[i]);
    lh_mem_free(s->owned);
    lh_mem_free(s->columns);
    lh_mem_free(s->visible);
    lh_mem_free(s->visible_column);
    lh_mem_free(s->files);
    lh_mem_free(s->field_names);
    lh_mem_free(s->missing);
    lh_mem_free(s->text);
    lh_yaml_destroy(&s->doc);
    lh_mem_free(s);
    *p = NULL;
}
