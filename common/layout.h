/* How the flat parameter array of a graph is cut into shards, and how each part is updated. A shard
 * is one contiguous range [lo, hi) of the flat array, cut at row boundaries so that shards are
 * equal within one row; rows of one tensor may lie on two shards. So a push or a pull is a slice of
 * an array that exists anyway, never a copy into another order. */
#pragma once

#include "common/graph.h"

#include <stddef.h>
#include <stdint.h>

/* One run of elements that is updated in one way: (part of) one tensor. */
struct lh_segment {
    const char *name;   /* of the tensor; lives as long as the parameters it was made from */
    uint32_t param;     /* index into the graph's parameters */
    uint64_t lo, hi;    /* flat elements; hi - lo == rows * cols */
    uint64_t row, rows; /* first row of the tensor, and how many, in [lo, hi) */
    uint64_t cols;      /* of the tensor */
    int trained;        /* else: never changes, and has no optimiser state */
    int has_target;     /* has a target copy */
    double learning_rate;
    uint32_t period; /* optimiser steps every `period` steps; >= 1 */
    double tau;
    uint32_t target_period; /* steps between soft updates; >= 1 */
};

struct lh_shard_range {
    uint64_t lo, hi;             /* flat elements; ranges of a layout cover [0, flat_size) */
    uint32_t shard, shards;      /* this is shard `shard` of `shards` */
    uint64_t flat_size;          /* of the whole layout */
    uint64_t digest;             /* of the whole layout, see lh_layout */
    struct lh_segment *segments; /* in flat order, covering all tensors' elements in [lo, hi);
                                    what lies between them is padding */
    size_t n_segments;
};

struct lh_layout {
    uint64_t flat_size;
    uint64_t elements; /* of all tensors, without padding */
    uint64_t digest;   /* of names, shapes, offsets, trained, has_target: equal digests mean that
                          flat arrays can be exchanged. Does not depend on the number of shards. */
    const struct lh_param *params; /* lives with the graph */
    size_t n_params;
    struct lh_shard_range *shards;
    size_t n_shards;
};

/* How one family of parameters is updated; see lh_algo_group. First match wins. */
struct lh_update_rule {
    const char *pattern; /* one or several, see lh_layout_match */
    double learning_rate;
    uint32_t period;
    double tau;
    uint32_t target_period;
};

/* What a layout is made from: the parameters of a compiled graph, ascending in offset. */
struct lh_layout_params {
    const struct lh_param *params; /* not copied */
    size_t n_params;
    uint64_t flat_size;
};

/* Errors: LH_ECONFIG if a trained parameter matches no rule; LH_ERANGE if n_shards is 0 or more
 * than there are rows; LH_ENOMEM. */
int lh_layout_init_params(struct lh_layout *out, const struct lh_layout_params *from,
                          const struct lh_update_rule *rules, size_t n_rules, size_t n_shards);

static inline int lh_layout_init(struct lh_layout *out, const struct lh_graph *g,
                                 const struct lh_update_rule *rules, size_t n_rules,
                                 size_t n_shards)
{
    struct lh_layout_params from = {0};
    from.params = lh_graph_params(g, &from.n_params);
    from.flat_size = lh_graph_flat_size(g);
    return lh_layout_init_params(out, &from, rules, n_rules, n_shards);
}

void lh_layout_fini(struct lh_layout *l); /* idempotent */

/* Tells whether `name` matches space-separated `patterns` (name, or prefix ending in '*'). */
int lh_layout_match(const char *patterns, const char *name);

/* --- the gradient tree ------------------------------------------------------------------------
 * Leaves are the K micro-batches of a step, padded to a power of two with absent ones. Node
 * (level, index) is the sum over leaves [index << level, (index + 1) << level), always
 * left + right; where the right child is absent the node is the left child itself. */
struct lh_tree_node {
    uint32_t level, index;
};

uint32_t lh_tree_height(uint32_t leaves); /* level of the root; leaves >= 1 */

/* Tells whether the node has a leaf of `leaves` at all and is not above the root. */
int lh_tree_has(uint32_t leaves, struct lh_tree_node node);

/* The subtrees that worker w of n sums by itself: maximal aligned blocks of its contiguous share
 * [w K / n, (w + 1) K / n) of the leaves, ascending. Returns how many (at most 2 * height + 1; 0
 * for an empty share). A block whose leaves beyond K are absent is maximal too: the last worker of
 * K = 3, n = 1 has the root alone. Pure function of its arguments. */
size_t lh_tree_share(uint32_t leaves, uint32_t w, uint32_t n, struct lh_tree_node out[64]);
