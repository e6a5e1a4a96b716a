/* A schema: the YAML that says how the lines of a log become rows of users. Its grammar is told in
 * common/README.md, section "Logs"; what it says of rewards and features is read by reward.h and
 * feature.h from the same tree. */
#pragma once

#include "common/csv.h"
#include "common/parse.h"
#include "common/userlog.h"
#include "common/yaml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_schema_type { LH_SCHEMA_ID, LH_SCHEMA_TIME, LH_SCHEMA_NUMBER, LH_SCHEMA_CATEGORY };
enum lh_schema_format { LH_SCHEMA_CSV, LH_SCHEMA_JSONL };

/* What becomes of a row whose value is missing (of a category: is not declared). */
enum lh_schema_missing {
    LH_MISSING_ERROR, /* a bad row */
    LH_MISSING_DROP,  /* left out, and counted */
    LH_MISSING_KEEP,  /* number: NAN, which features and rewards see to */
    LH_MISSING_VALUE, /* number: taken for `missing_value` */
    LH_MISSING_OTHER  /* category: LH_CATEGORY_OTHER */
};

/* Every binary row of a log (ingest.h) begins with this; the schema's columns follow at their
 * offsets: 8 bytes an id, 4 a number or a category. */
struct lh_row {
    uint64_t hash; /* of the user, keyed by the split's seed: the order of users */
    uint64_t user;
    int64_t time;   /* microseconds; 0 where the schema has no time */
    uint64_t order; /* of the row in the log */
};

struct lh_schema_values; /* of a category: text -> index */

struct lh_schema_column {
    const char *name, *source; /* in the schema; in the log */
    enum lh_schema_type type;
    enum lh_schema_missing missing, unknown;
    double missing_value; /* as if the log said so: before shift and scale */
    bool log1p, clip;
    double shift, scale, lo, hi; /* (clip(log1p(x)) - shift) * scale, each where declared */
    enum lh_time_unit unit;
    const char *const *values;
    size_t n_values;
    struct lh_schema_values *lookup;
    size_t offset; /* in a binary row (ingest.h) */
};

enum lh_schema_end { LH_END_CUT_OFF, LH_END_TRUE, LH_END_COLUMN };

/* How many users a split takes. */
enum lh_schema_amount { LH_AMOUNT_COUNT, LH_AMOUNT_SHARE, LH_AMOUNT_REST };
struct lh_schema_split {
    enum lh_schema_amount amount;
    uint64_t count;
    double share;
};

struct lh_schema {
    struct lh_yaml *doc;
    const struct lh_yaml_node *root;
    char *text; /* the file, for the manifest */
    const char *name;
    uint64_t seed;

    /* input */
    const char **files; /* as written; patterns not expanded */
    size_t n_files;
    enum lh_schema_format format;
    struct lh_csv csv;
    size_t skip;
    bool header;
    const char **field_names; /* `columns:`, where there is no header */
    size_t n_field_names;
    const char **missing; /* texts that mean a value is missing */
    size_t n_missing;

    /* columns */
    struct lh_schema_column *columns;
    size_t n_columns;
    struct lh_column *visible; /* what rewards and features may name: all but times */
    size_t *visible_column;    /* index into columns */
    size_t n_visible;
    size_t row_bytes; /* of a binary row */

    /* trajectories; SIZE_MAX: none */
    size_t user, time, session, end_column;
    bool by_session;
    int64_t gap_us; /* 0: sessions are not cut by gaps */
    enum lh_schema_end end;
    uint64_t max_length, min_length;

    struct lh_schema_split split[LH_SPLITS];
    uint64_t split_seed;
    bool by_day;
    uint32_t hash;
    uint64_t bad_max;
    double bad_share;

    char **owned; /* names made by ranges */
    size_t n_owned, cap_owned;
};

/* `sets` are overlaid (lh_yaml_set; NULL and 0: none). Errors: LH_ENOENT; LH_ECONFIG with file,
 * line and key; LH_EUSAGE for a bad assignment. */
int lh_schema_load(struct lh_schema **out, const char *path, const char *const *sets,
                   size_t n_sets);
int lh_schema_load_text(struct lh_schema **out, const char *text, size_t n, const char *name,
                        const char *const *sets, size_t n_sets);
void lh_schema_destroy(struct lh_schema **s); /* NULL content allowed */

/* Index of a category's value, or SIZE_MAX. */
size_t lh_schema_value(const struct lh_schema_column *c, const char *text, size_t n);
/* Whether a text means that the value is missing. */
bool lh_schema_is_missing(const struct lh_schema *s, const char *text, size_t n);

/* Index of the column declared as `name`, or SIZE_MAX. */
size_t lh_schema_find(const struct lh_schema *s, const char *name);
