/* All rows of one user in time order: what import hands to rewards and features, between the parsed
 * log and the dataset writer. Columns are what the schema declared, typed. */
#pragma once

#include "common/dataset.h"
#include "common/yaml.h"

#include <stdint.h>

enum lh_column_type {
    LH_COLUMN_NUMBER,   /* float, after the declared scaling; NAN where missing was kept */
    LH_COLUMN_CATEGORY, /* uint32: index into the declared values; LH_CATEGORY_OTHER if none */
    LH_COLUMN_ID        /* uint64: the integer itself, or the 64-bit hash of a text */
};

#define LH_CATEGORY_OTHER UINT32_MAX

struct lh_column {
    const char *name;
    enum lh_column_type type;
    const char *const *values; /* CATEGORY: declared values */
    size_t n_values;
};

union lh_column_data {
    const float *number;
    const uint32_t *category;
    const uint64_t *id;
};

struct lh_user_log {
    uint64_t user; /* hash of the user id */
    enum lh_split split;
    size_t n;                           /* rows */
    const int64_t *time_us;             /* non-decreasing */
    const uint32_t *session;            /* number within the user, from 0, non-decreasing */
    const union lh_column_data *column; /* one per declared column, [n] values each */
};

/* "number", "category", "id" */
const char *lh_userlog_type_name(enum lh_column_type type);

/* Index of the column called `name`. Errors: LH_ECONFIG at `where`, naming the nearest column. */
int lh_userlog_find_column(const struct lh_column *columns, size_t n_columns,
                           const struct lh_yaml_node *where, const char *name, size_t *out);

/* As above for the scalar `node`, of one type. */
int lh_userlog_read_column(const struct lh_column *columns, size_t n_columns,
                           const struct lh_yaml_node *node, enum lh_column_type type, size_t *out);

/* The value of an id column for a text of n bytes: a decimal integer in its shortest form (no sign,
 * no leading zero) that fits 64 bits is itself, any other text its XXH3 hash. The log, joined
 * tables and item files must agree on it, so all of them call this. */
uint64_t lh_userlog_id(const char *text, size_t n);
