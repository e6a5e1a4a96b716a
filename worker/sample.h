/* Which transitions a step trains on: a pure function of (seed, step, position), so that any worker
 * can compute any micro-batch, and nothing need be stored (DESIGN.md, invariant 1).
 *
 *   epoch    every transition once an epoch, in an order of its own each epoch; a batch crosses the
 *            border of two epochs exactly
 *   uniform  with replacement */
#pragma once

#include "common/job.h"

#include <stddef.h>
#include <stdint.h>

struct lh_sampler {
    enum lh_sampling mode;
    uint64_t seed, transitions; /* transitions > 0 */
    size_t batch, block;        /* rows */
};

/* Transition (0 .. transitions-1) at `position` (0 .. batch-1) of `step`. */
uint64_t lh_sample_transition(const struct lh_sampler *s, uint64_t step, size_t position);

/* Those of one block, in order: out [block]. Returns how many there are: `block`, or fewer for the
 * last one of a batch that is no multiple of it; 0 beyond. */
size_t lh_sample_block(const struct lh_sampler *s, uint64_t step, uint32_t block, uint64_t *out);
