/* What feature.c (the plan), feature_schema.c (reading it), feature_apply.c (computing rows) and
 * feature_ids.c (ids) share. */
#pragma once

#include "common/feature.h"

#include <stdbool.h>

enum { LH_FEATURE_HIGH, LH_FEATURE_LOW, LH_FEATURE_ACTION, LH_FEATURE_GROUPS };

struct lh_join;
struct lh_embedding;

/* A table or an embedding: values by the id in a column of the log. */
struct lh_feature_keyed {
    const char *name;
    size_t column; /* of the key, in the log */
    struct lh_join *join;
    struct lh_embedding *embedding; /* one of the two */
    bool used;                      /* some feature reads it */
};

/* A vector that each row has, or lacks (a missing number, an id that is not known). */
enum lh_source_kind { LH_SOURCE_NUMBER, LH_SOURCE_CATEGORY, LH_SOURCE_REWARD, LH_SOURCE_KEYED };

struct lh_source {
    enum lh_source_kind kind;
    size_t column;        /* NUMBER, CATEGORY */
    size_t keyed;         /* KEYED */
    size_t offset, width; /* columns of it: [offset, offset + width) */
};

enum lh_feature_op {
    LH_FEATURE_PRESENT,      /* the source at the reference row */
    LH_FEATURE_MEAN,         /* over past rows that have it, weighted or not */
    LH_FEATURE_SUM,          /* the same, not divided */
    LH_FEATURE_RATE,         /* share of past rows with a value above a bound */
    LH_FEATURE_COUNT,        /* what: rows, sessions, session_rows */
    LH_FEATURE_SINCE,        /* what: row, session, first */
    LH_FEATURE_SESSION_MEAN, /* what: length, return_time */
    LH_FEATURE_CLOCK         /* what: hour, weekday; two columns, sine and cosine */
};

enum { LH_COUNT_ROWS, LH_COUNT_SESSIONS, LH_COUNT_SESSION_ROWS };
enum { LH_SINCE_ROW, LH_SINCE_SESSION, LH_SINCE_FIRST };
enum { LH_SESSION_LENGTH, LH_SESSION_RETURN_TIME };
enum { LH_CLOCK_HOUR, LH_CLOCK_WEEKDAY };

enum lh_feature_missing { LH_MISSING_FAILS, LH_MISSING_DROPS, LH_MISSING_IS };

struct lh_feature_item {
    enum lh_feature_op op;
    const char *name; /* of the item, for sentences */
    int what;
    struct lh_source source, weight;
    bool weighted;
    bool at_session_start; /* the reference row is the first of the session, not the row itself */
    bool log1p;            /* x becomes sign(x) log(1 + |x|) */
    size_t last;           /* past rows looked at; 0: all */
    double above;          /* RATE */
    float empty;           /* where there is no past */
    double unit;           /* seconds: SINCE, SESSION_MEAN of return times */
    double utc_offset;     /* seconds: CLOCK */
    enum lh_feature_missing missing;
    float missing_value;
    size_t offset, width; /* columns of the group */
};

struct lh_feature_group {
    struct lh_feature_item *item;
    size_t n, cap;
    char **name; /* [width] */
    size_t width, cap_names;
};

/* An id that the state carries: the one in a column of the log, so many rows before. */
struct lh_feature_id {
    size_t column, back;
};

struct lh_feature_plan {
    struct lh_feature_group group[LH_FEATURE_GROUPS];
    struct lh_feature_keyed *keyed;
    size_t n_keyed;
    struct lh_feature_id *id;
    char **id_name; /* [n_ids] */
    size_t n_ids;
    size_t widest; /* source */
    bool needs_reward;
};

/* Reads tables, embeddings and the three groups into a zeroed plan; on failure it is destroyed by
 * the caller. */
int lh_feature_schema_read(struct lh_feature_plan *p, const struct lh_yaml_node *schema,
                           const struct lh_column *columns, size_t n_columns, const char *data_dir,
                           uint64_t seed, unsigned threads);

/* feature_ids.c: reads `ids:`. in_action [n_columns]: whether the action is made of a column. */
int lh_feature_ids_read(struct lh_feature_plan *p, const struct lh_yaml_node *schema,
                        const struct lh_column *columns, size_t n_columns, const bool *in_action);
