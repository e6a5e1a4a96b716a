/* The rows of a job's tables that some blocks of a split name: who evaluates them elsewhere, from
 * the same dataset, has the same list and needs only the rows. */
#pragma once

#include "cluster/cut_evaluation.h"

struct lh_cut_rows {
    struct {
        uint64_t *ids; /* [n] ascending */
        float *rows;   /* [n, dim]; NULL until they are wanted */
        size_t n, dim;
    } tables[LH_GRAPH_TABLES_MAX];
    size_t n; /* of tables */
};

/* Lists the ids of blocks [first, first + n). Errors: LH_EMISMATCH for a dataset without a table's
 * ids; LH_ENOMEM. All zero after one. */
int lh_cut_rows_init(struct lh_cut_rows *r, const struct lh_cut_evaluation *e, enum lh_split split,
                     uint64_t first, uint64_t n);
void lh_cut_rows_fini(struct lh_cut_rows *r);

/* Makes place for the rows, unwritten. Errors: LH_ENOMEM. */
int lh_cut_rows_make(struct lh_cut_rows *r);
/* They are there: looks up what is listed. Lives as long as `r`. */
struct lh_row_source lh_cut_rows_source(struct lh_cut_rows *r);
