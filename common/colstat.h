/* Exact statistics of the columns of row-major matrices, in memory that does not depend on their
 * length. */
#pragma once

#include "common/dataset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_colstat_part {
    const float *data; /* [rows, width] */
    uint64_t rows;
    bool mapped; /* from a file: pages that were read are given back, so as not to count as ours */
};

/* A matrix in parts: its rows are those of part 0, then those of part 1, … */
struct lh_colstat_matrix {
    const struct lh_colstat_part *parts;
    size_t n_parts, width;
    struct lh_column_stats *out; /* [width] */
};

/* Mean and standard deviation (of the population) in double, summed in row order; minimum, maximum;
 * quantiles by rank: the smallest value that at least q of the values do not exceed. Columns are
 * shared out over threads; the result does not depend on how many. Values must be finite. A matrix
 * without rows gives zeros. `on_step` (NULL allowed) is called now and then, by
 * any thread. Errors: LH_ENOMEM. */
int lh_colstat_compute(const struct lh_colstat_matrix *m, size_t n, unsigned threads,
                       void (*on_step)(void *ctx), void *ctx);
/* How often on_step is called for a matrix of that width that has rows. */
size_t lh_colstat_steps(size_t width);
