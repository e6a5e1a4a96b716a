/* Row lists: rows of a table by id, ids ascending and unique. What a worker pushes and a server
 * adds up, and how ids are dealt out to servers. Pure functions; any thread; nothing is allocated.
 *
 * The sum of two lists has every id of either; where both have it, left + right by element; where
 * one has it, that row's bits as they are. So a missing row is no row of zeros: -0.0 stays -0.0.
 * Over the gradient tree (common/layout.h) this gives each id the sum, in the tree's order, of the
 * leaves that have it, whoever computed which node. */
#pragma once

#include "common/rng.h"

#include <stddef.h>
#include <stdint.h>

struct lh_rowlist {
    size_t n;
    const uint64_t *ids; /* [n] ascending, unique */
    const float *values; /* [n, dim] */
};

/* The sum a + b (see above) of lists of rows of `dim` elements, to ids [a->n + b->n] and values
 * [a->n + b->n, dim], which overlap neither. Returns how many rows it has. */
size_t lh_rowlist_add(const struct lh_rowlist *a, const struct lh_rowlist *b, uint32_t dim,
                      uint64_t *ids, float *values);

/* Tells whether n ids, unaligned allowed, ascend without a repetition. */
int lh_rowlist_ascends(const void *ids, size_t n);

/* Which of `shards` servers has this id: a fixed hash, so that neighbouring ids, which are often
 * hot together, spread. Part of the on-disk format: it must not change. shards > 0. */
uint32_t lh_rowlist_shard(uint64_t id, uint32_t shards);

/* Deals n ids out: shard s has those at ids[place[i]], i in [first[s], first[s + 1]), in the order
 * of ids, so that ascending stays ascending. place [n], first [shards + 1], n < 2^32. */
void lh_rowlist_split(const uint64_t *ids, size_t n, uint32_t shards, uint32_t *place,
                      size_t *first);

/* --- initial values ----------------------------------------------------------------------------
 * A row nobody has updated is not stored: w[c] = scale (2 u - 1), u in [0, 1) the c-th number of
 * the stream (seed, "table.NAME", step = id). So rows may appear in any order, anywhere. */

/* The stream of a table, but for the id. */
struct lh_rng_at lh_rowlist_stream(const char *name, uint64_t seed);
/* The initial value of a row, to w [dim]. */
void lh_rowlist_initial(const struct lh_rng_at *stream, double scale, uint64_t id, float *w,
                        uint32_t dim);
