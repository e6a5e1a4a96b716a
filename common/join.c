/* A joined table: each declared column of the file becomes one or more floats. */
#include "common/join.h"

#include "common/delimited.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/mem.h"
#include "common/range.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX (1 << 14)

enum type { NUMBER, CATEGORY, SET };

struct column {
    char *name;
    enum type type;
    char **value; /* CATEGORY, SET */
    size_t n_values;
    char *separator; /* SET: between the values of one field */
    bool has_missing, log1p;
    double missing, scale;
    size_t field;         /* of the file */
    size_t offset, width; /* features */
};

struct lh_join {
    size_t key; /* column of the log */
    struct column *column;
    size_t n_columns;
    char **name; /* [width] */
    size_t width;
    struct lh_idmap rows;
    float *value; /* [rows.n, width] */
    size_t cap;
};

/* --- reading the schema --------------------------------------------------------------------- */

static int add_value(struct column *c, const struct lh_yaml_node *where, const char *text)
{
    for (size_t k = 0; k < c->n_values; k++) {
        if (strcmp(c->value[k], text) == 0)
            return lh_yaml_fail(where, "'%s' is listed twice", text);
    }
    LH_TRY(lh_mem_strdup(&c->value[c->n_values], text));
    c->n_values++;
    return 0;
}

/* A list, or a range: 0..20. */
static int read_values(struct column *c, const struct lh_yaml_node *node,
                       const struct lh_yaml_node *values)
{
    if (!values)
        return lh_yaml_fail(node, "needs values: [...], the ones that become columns");
    struct lh_range range;
    bool is_range = values->kind == LH_YAML_SCALAR && lh_range_parse(values->text, &range);
    if (!is_range)
        LH_TRY(lh_yaml_expect(values, LH_YAML_SEQUENCE));
    size_t n = is_range ? lh_range_count(&range) : values->n;
    if (n == 0 || n > VALUES_MAX)
        return lh_yaml_fail(values, "expected 1 to %d values", VALUES_MAX);
    LH_TRY(LH_NEW_ARRAY(&c->value, n, "table values"));
    for (size_t k = 0; is_range && k < n; k++) {
        LH_TRY(lh_range_name(&range, k, &c->value[k]));
        c->n_values++;
    }
    for (const struct lh_yaml_node *v = values->child; v; v = v->next) {
        const char *text = NULL;
        LH_TRY(lh_yaml_string(v, &text));
        LH_TRY(add_value(c, v, text));
    }
    return 0;
}

static int read_column(struct lh_join *j, const struct lh_yaml_node *node)
{
    static const char *const keys[] = {"type", "values", "separator", "scale", "log1p", "missing"};
    static const char *const types[] = {"number", "category", "set"};
    struct column *c = &j->column[j->n_columns];
    LH_TRY(lh_mem_strdup(&c->name, node->key));
    j->n_columns++;
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, sizeof keys / sizeof *keys));
    int type = NUMBER;
    LH_TRY(lh_yaml_enum(lh_yaml_get(node, "type"), types, 3, &type));
    c->type = (enum type)type;
    c->scale = 1;
    c->offset = j->width;
    if (c->type == NUMBER) {
        const struct lh_yaml_node *missing = lh_yaml_get(node, "missing");
        c->has_missing = missing != NULL;
        LH_TRY(lh_yaml_double(missing, -1e30, 1e30, &c->missing));
        LH_TRY(lh_yaml_double(lh_yaml_get(node, "scale"), -1e30, 1e30, &c->scale));
        LH_TRY(lh_yaml_bool(lh_yaml_get(node, "log1p"), &c->log1p));
        c->width = 1;
    } else {
        LH_TRY(read_values(c, node, lh_yaml_get(node, "values")));
        c->width = c->n_values;
    }
    if (c->type == SET) {
        const char *separator = "|";
        LH_TRY(lh_yaml_string(lh_yaml_get(node, "separator"), &separator));
        if (!*separator)
            return lh_yaml_fail(node, "separator: is empty");
        LH_TRY(lh_mem_strdup(&c->separator, separator));
    }
    j->width += c->width;
    return j->width <= VALUES_MAX ? 0 : lh_yaml_fail(node, "more than %d features", VALUES_MAX);
}

static int name_features(struct lh_join *j)
{
    LH_TRY(LH_NEW_ARRAY(&j->name, j->width, "table feature names"));
    for (size_t k = 0; k < j->n_columns; k++) {
        const struct column *c = &j->column[k];
        for (size_t v = 0; v < c->width; v++) {
            if (c->type == NUMBER)
                LH_TRY(lh_mem_strdup(&j->name[c->offset + v], c->name));
            else
                LH_TRY(lh_mem_printf(&j->name[c->offset + v], "%s=%s", c->name, c->value[v]));
        }
    }
    return 0;
}

/* --- reading the file ----------------------------------------------------------------------- */

static int read_number(const struct lh_delimited *d, const struct column *c, const char *text,
                       float *out)
{
    char *end = NULL;
    double x = strtod(text, &end);
    while (*end == ' ')
        end++;
    if (end == text || *end || !isfinite(x)) {
        if (!c->has_missing)
            return lh_delimited_fail(d,
                                     "column '%s': '%.40s' is not a number; mend it, or say "
                                     "missing: VALUE for the column",
                                     c->name, text);
        x = c->missing;
    }
    x *= c->scale;
    *out = (float)(c->log1p ? copysign(log1p(fabs(x)), x) : x);
    return isfinite(*out) ? 0 : lh_delimited_fail(d, "column '%s': %s is too large", c->name, text);
}

static void mark_value(const struct column *c, const char *text, size_t n, float *out)
{
    for (size_t k = 0; k < c->n_values; k++) {
        if (strlen(c->value[k]) == n && memcmp(c->value[k], text, n) == 0)
            out[k] = 1.0f;
    }
}

static int read_field(const struct lh_delimited *d, const struct column *c, const char *text,
                      float *out)
{
    if (c->type == NUMBER)
        return read_number(d, c, text, out);
    if (c->type == CATEGORY) {
        mark_value(c, text, strlen(text), out);
        return 0;
    }
    for (;;) {
        const char *end = strstr(text, c->separator);
        mark_value(c, text, end ? (size_t)(end - text) : strlen(text), out);
        if (!end)
            return 0;
        text = end + strlen(c->separator);
    }
}

/* Where the key and each column stand in a record: by the header line, or by fields: of the schema.
 */
static int find_fields(struct lh_join *j, const struct lh_yaml_node *node, struct lh_delimited *d,
                       const char *key, size_t *key_field)
{
    bool header = true;
    const struct lh_yaml_node *fields = lh_yaml_get(node, "fields");
    LH_TRY(lh_yaml_bool(lh_yaml_get(node, "header"), &header));
    if (header == (fields != NULL))
        return lh_yaml_fail(node, header ? "fields: goes with header: false"
                                         : "header: false needs fields: [names, in order]");
    const char **names = NULL;
    size_t n = 0;
    int rc = 0;
    if (header) {
        rc = lh_delimited_next(d);
        if (rc != 0)
            return rc;
        n = d->n_fields;
    } else {
        LH_TRY(lh_yaml_expect(fields, LH_YAML_SEQUENCE));
        n = fields->n;
    }
    LH_TRY(LH_NEW_ARRAY(&names, n, "field names"));
    const struct lh_yaml_node *f = fields ? fields->child : NULL;
    for (size_t k = 0; k < n; k++, f = f ? f->next : NULL) {
        if (header)
            names[k] = d->field[k];
        else
            LH_TRY_TO(done, lh_yaml_string(f, &names[k]));
    }
    for (size_t c = 0; c <= j->n_columns; c++) {
        const char *want = c < j->n_columns ? j->column[c].name : key;
        size_t k = 0;
        while (k < n && strcmp(names[k], want) != 0)
            k++;
        if (k == n) {
            const char *near = lh_yaml_nearest(want, names, n);
            rc = lh_yaml_fail(node, "%s has no field '%s'%s%s%s", d->path, want,
                              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
            goto done;
        }
        *(c < j->n_columns ? &j->column[c].field : key_field) = k;
    }
done:
    lh_mem_free(names);
    return rc;
}

static int read_rows(struct lh_join *j, struct lh_delimited *d, size_t key_field, size_t n_fields)
{
    int rc;
    while ((rc = lh_delimited_next(d)) == 0) {
        if (n_fields == 0)
            n_fields = d->n_fields;
        if (d->n_fields != n_fields || d->n_fields <= key_field)
            return lh_delimited_fail(d, "%zu fields where %zu are expected", d->n_fields, n_fields);
        const char *key = d->field[key_field];
        uint32_t row;
        size_t before = j->rows.n;
        LH_TRY(lh_idmap_add(&j->rows, lh_userlog_id(key, strlen(key)), &row));
        if (j->rows.n == before)
            return lh_delimited_fail(d, "the key '%.60s' came before; keys must differ", key);
        size_t need;
        LH_TRY(lh_mem_mul(&need, j->rows.n, j->width));
        LH_TRY(LH_GROW(&j->value, &j->cap, need, "table"));
        float *out = j->value + (size_t)row * j->width;
        memset(out, 0, j->width * sizeof *out);
        for (size_t k = 0; k < j->n_columns; k++) {
            const struct column *c = &j->column[k];
            LH_TRY(read_field(d, c, d->field[c->field], out + c->offset));
        }
    }
    if (rc == LH_NOTFOUND && j->rows.n == 0)
        return lh_delimited_fail(d, "the table has no row");
    return rc == LH_NOTFOUND ? 0 : rc;
}

static int read_file(struct lh_join *j, const struct lh_yaml_node *node, const char *data_dir,
                     const char *key)
{
    const char *file = NULL, *separator = ",";
    LH_TRY(lh_yaml_string(lh_yaml_get(node, "file"), &file));
    LH_TRY(lh_yaml_string(lh_yaml_get(node, "separator"), &separator));
    if (strcmp(separator, "tab") == 0)
        separator = "\t";
    if (!file || !*separator)
        return lh_yaml_fail(node, file ? "separator: is empty" : "needs file:");
    struct lh_delimited d;
    LH_TRY(lh_delimited_open(&d, data_dir, file, separator));
    size_t key_field = 0;
    int rc = find_fields(j, node, &d, key, &key_field);
    if (rc == LH_NOTFOUND)
        rc = lh_delimited_fail(&d, "the file is empty");
    const struct lh_yaml_node *fields = lh_yaml_get(node, "fields");
    if (rc == 0)
        rc = read_rows(j, &d, key_field, fields ? fields->n : d.n_fields);
    lh_delimited_close(&d);
    return rc;
}

/* --- the table ------------------------------------------------------------------------------ */

int lh_join_create(struct lh_join **out, const struct lh_yaml_node *node,
                   const struct lh_column *columns, size_t n_columns, const char *data_dir)
{
    static const char *const keys[] = {"file", "separator", "header", "fields",
                                       "key",  "file_key",  "columns"};
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, sizeof keys / sizeof *keys));
    const struct lh_yaml_node *key = lh_yaml_get(node, "key");
    const struct lh_yaml_node *list = lh_yaml_get(node, "columns");
    if (!key || !list)
        return lh_yaml_fail(node, "a table needs file:, key: and columns:");
    struct lh_join *j = NULL;
    LH_TRY(LH_NEW(&j, "table"));
    int rc = 0;
    LH_TRY_TO(fail, lh_userlog_read_column(columns, n_columns, key, LH_COLUMN_ID, &j->key));
    LH_TRY_TO(fail, lh_yaml_expect(list, LH_YAML_MAPPING));
    LH_TRY_TO(fail, list->n ? 0 : lh_yaml_fail(list, "lists no column"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&j->column, list->n, "table columns"));
    for (const struct lh_yaml_node *c = list->child; c; c = c->next)
        LH_TRY_TO(fail, read_column(j, c));
    LH_TRY_TO(fail, name_features(j));
    const char *file_key = key->text;
    LH_TRY_TO(fail, lh_yaml_string(lh_yaml_get(node, "file_key"), &file_key));
    LH_TRY_TO(fail, read_file(j, node, data_dir, file_key));
    *out = j;
    return 0;
fail:
    lh_join_destroy(&j);
    return rc;
}

void lh_join_destroy(struct lh_join **join)
{
    struct lh_join *j = *join;
    if (!j)
        return;
    for (size_t k = 0; k < j->n_columns; k++) {
        struct column *c = &j->column[k];
        for (size_t v = 0; v < c->n_values; v++)
            lh_mem_free(c->value[v]);
        lh_mem_free(c->value);
        lh_mem_free(c->separator);
        lh_mem_free(c->name);
    }
    for (size_t k = 0; j->name && k < j->width; k++)
        lh_mem_free(j->name[k]);
    lh_mem_free(j->name);
    lh_mem_free(j->column);
    lh_idmap_fini(&j->rows);
    lh_mem_free(j->value);
    lh_mem_free(j);
    *join = NULL;
}

size_t lh_join_key(const struct lh_join *j)
{
    return j->key;
}

size_t lh_join_width(const struct lh_join *j)
{
    return j->width;
}

int lh_join_column(const struct lh_join *j, const char *name, size_t *offset, size_t *width)
{
    *offset = 0;
    *width = j->width;
    for (size_t k = 0; name && k < j->n_columns; k++) {
        if (strcmp(j->column[k].name, name) == 0) {
            *offset = j->column[k].offset;
            *width = j->column[k].width;
            return 0;
        }
    }
    return name ? LH_NOTFOUND : 0;
}

const char *const *lh_join_names(const struct lh_join *j)
{
    return (const char *const *)j->name;
}

uint32_t lh_join_find(const struct lh_join *j, uint64_t id)
{
    return lh_idmap_find(&j->rows, id);
}

const float *lh_join_values(const struct lh_join *j)
{
    return j->value;
}
