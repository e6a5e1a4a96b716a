/* Where whoever acts finds rows of a job's embedding tables: a run's stores, a snapshot's files,
 * what was pulled from servers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lh_row_source {
    void *ctx;
    /* Rows [n, dim] of table t for n ids, in any order, repetitions among them; an id that the
     * table has no row of has its initial value. Any thread. NULL: there is nothing to look up. */
    int (*pull)(void *ctx, size_t t, const uint64_t *ids, size_t n, float *rows);
};
