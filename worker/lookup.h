/* From the ids of rows to the inputs of a graph's tables: which rows of each table a block names,
 * each once and in order, and where in them every id's row is. */
#pragma once

#include "common/graph.h"
#include "common/job.h"
#include "common/rowpull.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_lookup_table {
    size_t at[LH_JOB_TABLE_IDS_MAX], n_ids; /* which of a state's ids */
    uint32_t dim;
    uint64_t *scratch;
    uint64_t *ids; /* [n] of the block at hand, ascending and unique */
    bool *learnt;  /* [n] whether a gradient passes to the row: targets only read theirs */
    size_t n;
    bool learns[2];  /* whether one passes to those of states, of next states */
    float *index[2]; /* the graph's inputs: of states, of next states; NULL: not read */
    float *rows;     /* [n, dim] the graph's input; NULL: the graph reads no row */
};

struct lh_lookup {
    struct lh_lookup_table tables[LH_GRAPH_TABLES_MAX];
    size_t n_tables;
    size_t width; /* I, ids of a state */
    size_t block; /* rows of the graph */
};

/* `names` [n]: the ids that states will come with. Errors: LH_EMISMATCH if the job asks for others;
 * LH_ENOMEM. */
int lh_lookup_init(struct lh_lookup *l, const struct lh_job *job, const struct lh_graph *g,
                   struct lh_exec *exec, size_t block, const char *const *names, size_t n);
void lh_lookup_fini(struct lh_lookup *l); /* idempotent */

/* Takes in a block of n rows, ids and next_ids [n, I]; the rest of the graph's rows have none. */
void lh_lookup_take(struct lh_lookup *l, const uint64_t *ids, const uint64_t *next_ids, size_t n);
/* The ids that such a block will name, to `to`. */
int lh_lookup_add(const struct lh_lookup *l, const uint64_t *ids, const uint64_t *next_ids,
                  size_t n, struct lh_rowpull *to);
/* Puts the rows of the block at hand into the graph. Errors: LH_EINTERNAL if `from` lacks one. */
int lh_lookup_fill(struct lh_lookup *l, const struct lh_rowpull *from);
