/* The columns of a schema: types, their options, the values of a category, ranges of names. */
#include "common/schema_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/range.h"

#include <xxhash.h>

#include <math.h>
#include <string.h>

#define N(array) (sizeof(array) / sizeof *(array))
#define NONE     SIZE_MAX

typedef const struct lh_yaml_node node;

/* --- categories ------------------------------------------------------------------------------ */

struct lh_schema_values {
    uint32_t *slot; /* index + 1; 0: free */
    size_t mask;
};

static int make_lookup(struct lh_schema_column *c, node *where)
{
    size_t size = 4;
    while (size < 2 * c->n_values)
        size *= 2;
    LH_TRY(LH_NEW(&c->lookup, "category values"));
    LH_TRY(LH_NEW_ARRAY(&c->lookup->slot, size, "category values"));
    c->lookup->mask = size - 1;
    for (size_t i = 0; i < c->n_values; i++) {
        size_t n = strlen(c->values[i]);
        if (lh_schema_value(c, c->values[i], n) != NONE)
            return lh_yaml_fail(where, "the value '%s' is listed twice", c->values[i]);
        size_t at = XXH3_64bits(c->values[i], n) & c->lookup->mask;
        while (c->lookup->slot[at])
            at = (at + 1) & c->lookup->mask;
        c->lookup->slot[at] = (uint32_t)i + 1;
    }
    return 0;
}

size_t lh_schema_value(const struct lh_schema_column *c, const char *text, size_t n)
{
    const struct lh_schema_values *l = c->lookup;
    for (size_t at = XXH3_64bits(text, n) & l->mask; l->slot[at]; at = (at + 1) & l->mask) {
        const char *v = c->values[l->slot[at] - 1];
        if (strlen(v) == n && memcmp(v, text, n) == 0)
            return l->slot[at] - 1;
    }
    return NONE;
}

/* Keeps *text, which the schema then owns. Frees it on failure. */
static int own(struct lh_schema *s, char *text)
{
    int rc = LH_GROW(&s->owned, &s->cap_owned, s->n_owned + 1, "schema");
    if (rc < 0)
        lh_mem_free(text);
    else
        s->owned[s->n_owned++] = text;
    return rc;
}

static int range_member(struct lh_schema *s, const struct lh_range *r, size_t i, const char **out)
{
    char *name;
    LH_TRY(lh_range_name(r, i, &name));
    *out = name;
    return own(s, name);
}

const char *const lh_schema_type_names[LH_SCHEMA_TYPES] = {"id", "time", "number", "category"};

/* Which options go with which type. */
struct option {
    const char *key;
    unsigned types; /* bits */
};

static const struct option options[] = {
    {"type", 15}, {"from", 15}, {"range", 15}, {"missing", 15}, {"unit", 2},    {"scale", 4},
    {"shift", 4}, {"log1p", 4}, {"clip", 4},   {"values", 8},   {"unknown", 8},
};

static int check_options(node *n, enum lh_schema_type type)
{
    const char *keys[N(options)];
    size_t k = 0;
    for (size_t i = 0; i < N(options); i++) {
        if (options[i].types >> type & 1)
            keys[k++] = options[i].key;
        else if (lh_yaml_get(n, options[i].key))
            return lh_yaml_fail(lh_yaml_get(n, options[i].key), "does not go with type: %s",
                                lh_schema_type_names[type]);
    }
    return lh_yaml_check_keys(n, keys, k);
}

static int read_missing(struct lh_schema_column *c, node *n)
{
    static const char *const words[] = {"error", "drop", "keep", "other"};
    static const enum lh_schema_missing meaning[] = {LH_MISSING_ERROR, LH_MISSING_DROP,
                                                     LH_MISSING_KEEP, LH_MISSING_OTHER};
    if (!n)
        return 0;
    LH_TRY(lh_yaml_expect(n, LH_YAML_SCALAR));
    int word = 0;
    bool number = lh_parse_double(n->text, strlen(n->text), &c->missing_value) == LH_PARSED;
    if (number && c->type == LH_SCHEMA_NUMBER) {
        c->missing = LH_MISSING_VALUE;
        return 0;
    }
    LH_TRY(lh_yaml_enum(n, words, N(words), &word));
    c->missing = meaning[word];
    if ((c->missing == LH_MISSING_KEEP && c->type != LH_SCHEMA_NUMBER) ||
        (c->missing == LH_MISSING_OTHER && c->type != LH_SCHEMA_CATEGORY))
        return lh_yaml_fail(n, "'%s' does not go with type: %s", n->text,
                            lh_schema_type_names[c->type]);
    return 0;
}

static int read_clip(struct lh_schema_column *c, node *n)
{
    if (!n)
        return 0;
    LH_TRY(lh_yaml_expect(n, LH_YAML_SEQUENCE));
    if (n->n != 2)
        return lh_yaml_fail(n, "expected [lowest, highest]");
    LH_TRY(lh_yaml_double(n->child, -HUGE_VAL, HUGE_VAL, &c->lo));
    LH_TRY(lh_yaml_double(n->child->next, -HUGE_VAL, HUGE_VAL, &c->hi));
    c->clip = true;
    return c->lo <= c->hi ? 0 : lh_yaml_fail(n, "the lowest is above the highest");
}

static int read_values(struct lh_schema *s, struct lh_schema_column *c, node *n, node *where)
{
    struct lh_range r;
    const char **values = NULL;
    size_t n_values = 0;
    int rc;
    if (!n)
        return lh_yaml_fail(where, "a category needs values: [...]");
    if (n->kind == LH_YAML_SCALAR && lh_range_parse(n->text, &r)) {
        LH_TRY(LH_NEW_ARRAY(&values, lh_range_count(&r), "category values"));
        for (size_t i = 0; i < lh_range_count(&r); i++)
            LH_TRY_TO(fail, range_member(s, &r, i, &values[n_values++]));
    } else {
        LH_TRY_TO(fail, lh_schema_read_words(n, &values, &n_values));
    }
    if (n_values == 0) {
        rc = lh_yaml_fail(n, "a category needs at least one value");
        goto fail;
    }
    c->values = values;
    c->n_values = n_values;
    return make_lookup(c, n);
fail:
    lh_mem_free(values);
    return rc;
}

/* The options of one column, its names apart. A scalar node is the type alone. */
static int read_column(struct lh_schema *s, struct lh_schema_column *c, node *n)
{
    static const char *const unknown[] = {"error", "drop", "other"};
    static const enum lh_schema_missing meaning[] = {LH_MISSING_ERROR, LH_MISSING_DROP,
                                                     LH_MISSING_OTHER};
    int type = -1, what = 2, unit = LH_TIME_S;
    node *type_node = n->kind == LH_YAML_SCALAR ? n : lh_yaml_get(n, "type");
    LH_TRY(lh_yaml_enum(type_node, lh_schema_type_names, LH_SCHEMA_TYPES, &type));
    if (type < 0)
        return lh_yaml_fail(n, "a column needs a type: id, time, number or category");
    c->type = (enum lh_schema_type)type;
    c->scale = 1;
    if (n->kind == LH_YAML_MAPPING)
        LH_TRY(check_options(n, c->type));
    LH_TRY(read_missing(c, lh_yaml_get(n, "missing")));
    LH_TRY(lh_yaml_double(lh_yaml_get(n, "scale"), -HUGE_VAL, HUGE_VAL, &c->scale));
    LH_TRY(lh_yaml_double(lh_yaml_get(n, "shift"), -HUGE_VAL, HUGE_VAL, &c->shift));
    LH_TRY(lh_yaml_bool(lh_yaml_get(n, "log1p"), &c->log1p));
    LH_TRY(read_clip(c, lh_yaml_get(n, "clip")));
    LH_TRY(lh_yaml_enum(lh_yaml_get(n, "unit"), lh_time_unit_names, LH_TIME_UNITS, &unit));
    c->unit = (enum lh_time_unit)unit;
    if (type == LH_SCHEMA_TIME && !lh_yaml_get(n, "unit"))
        return lh_yaml_fail(n,
                            "a time needs its unit: s, ms, us, ns, minute, hour, day or iso8601");
    LH_TRY(lh_yaml_enum(lh_yaml_get(n, "unknown"), unknown, 3, &what));
    c->unknown = meaning[what];
    if (type == LH_SCHEMA_CATEGORY)
        LH_TRY(read_values(s, c, lh_yaml_get(n, "values"), n));
    return 0;
}

static int add_column(struct lh_schema *s, size_t *cap, node *n, const char *name,
                      const char *source)
{
    if (lh_schema_find(s, name) != NONE)
        return lh_yaml_fail(n, "a column '%s' is declared already", name);
    if (strcmp(name, "reward") == 0)
        return lh_yaml_fail(n, "'reward' means the computed reward; call the column something "
                               "else: {from: reward}");
    LH_TRY(LH_GROW(&s->columns, cap, s->n_columns + 1, "schema columns"));
    struct lh_schema_column *c = &s->columns[s->n_columns];
    memset(c, 0, sizeof *c);
    c->name = name;
    c->source = source;
    s->n_columns++; /* destroy sees what read_column allocated */
    return read_column(s, c, n);
}

int lh_schema_read_columns(struct lh_schema *s, node *n)
{
    size_t cap = 0;
    if (!n)
        return lh_yaml_fail(s->root, "a schema needs columns:");
    LH_TRY(lh_yaml_expect(n, LH_YAML_MAPPING));
    for (node *c = n->child; c; c = c->next) {
        const char *range = NULL, *from = c->key;
        struct lh_range r;
        if (c->kind == LH_YAML_SEQUENCE)
            return lh_yaml_fail(c, "expected a type, or {type: …, …}");
        LH_TRY(lh_yaml_string(lh_yaml_get(c, "range"), &range));
        LH_TRY(lh_yaml_string(lh_yaml_get(c, "from"), &from));
        if (!range && lh_range_parse(c->key, &r))
            range = c->key;
        if (!range) {
            LH_TRY(add_column(s, &cap, c, c->key, from));
            continue;
        }
        if (!lh_range_parse(range, &r))
            return lh_yaml_fail(c, "'%s' is no range; write it as state_0..state_90", range);
        if (from != c->key)
            return lh_yaml_fail(c, "from: does not go with a range");
        for (size_t i = 0; i < lh_range_count(&r); i++) {
            const char *name;
            LH_TRY(range_member(s, &r, i, &name));
            LH_TRY(add_column(s, &cap, c, name, name));
        }
    }
    return 0;
}

void lh_schema_column_fini(struct lh_schema_column *c)
{
    if (c->lookup)
        lh_mem_free(c->lookup->slot);
    lh_mem_free(c->lookup);
    lh_mem_free((void *)(uintptr_t)c->values);
}
