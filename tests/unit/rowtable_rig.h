/* What tests of a table of rows share: the table that most of them are of, a step of it, and
 * numbers drawn one after the other. */
#pragma once

#include "common/rng.h"
#include "ps/rowtable.h"
#include "tests/testkit.h"

#define JOB 0xabcdef0123456789u

enum { DIM = 5, LEAVES = 4 };

/* One shard of one, whose steps name at most `most` ids; as small a cache as there is. */
#define PLAIN_TABLE(most)                                                                          \
    {                                                                                              \
        .name = "item", .dim = DIM, .seed = 7, .init_scale = 0.25, .learning_rate = 0.05,          \
        .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .shards = 1, .leaves = LEAVES,               \
        .max_ids = (most), .cache_bytes = 1, .job_digest = JOB                                     \
    }

static inline uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n);
}

/* A step whose sum is `values` [n, DIM]. */
static inline void push_all(struct lh_rowtable *t, const uint64_t *ids, size_t n,
                            const float *values)
{
    const uint64_t step = lh_rowtable_version(t);
    int applied = 0;
    assert_ok(lh_rowtable_push(t, step, (struct lh_tree_node){2, 0},
                               &(struct lh_rowtable_piece){0, n, n, ids, values}));
    assert_ok(lh_rowtable_advance(t, &applied));
    assert_true(applied);
}
