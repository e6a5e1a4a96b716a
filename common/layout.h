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
    uint32_t param;     /* index into the graph's parameters */
    uint64_t lo, hi;    /* flat elements */
    uint64_t row, rows; /* first row of the tensor, and how many, in [lo, hi) */
    int trained, has_target;
    double learning_rate;
    uint32_t period; /* optimiser steps every `period` steps */
    double tau;
    uint32_t target_period;
};

struct lh_shard_range {
    uint64_t lo, hi;
    struct lh_segment *segments; /* in flat order, covering all tensors' elements in [lo, hi) */
    size_t n_segments;
};

struct lh_layout {
    uint64_t flat_size;
    const struct lh_param *params; /* lives with the graph */
    size_t n_params;
    struct lh_shard_range *shards;
    size_t n_shards;
};

/* How one family of parameters is updated; see lh_algo_group. First match wins. */
struct lh_update_rule {
    const char *pattern; /* name, or prefix ending in '*' */
    double learning_rate;
    uint32_t period;
    double tau;
    uint32_t target_period;
};

/* Errors: LH_ECONFIG if a trained parameter matches no rule; LH_ERANGE if n_shards is 0 or more
 * than there are rows. */
int lh_layout_init(struct lh_layout *out, const struct lh_graph *g,
                   const struct lh_update_rule *rules, size_t n_rules, size_t n_shards);
void lh_layout_fini(struct lh_layout *l);

/* Tells whether `name` matches space-separated `patterns` (name, or prefix ending in '*'). */
int lh_layout_match(const char *patterns, const char *name);

/* --- the gradient tree ------------------------------------------------------------------------
 * Leaves are the K micro-batches of a step, padded to a power of two with absent ones. Node
 * (level, index) is the sum over leaves [index << level, (index + 1) << level), always
 * left + right; where the right child is absent the node is the left child itself. */
struct lh_tree_node {
    uint32_t level, index;
};

uint32_t lh_tree_height(uint32_t leaves); /* level of the root */

/* The subtrees that worker w of n sums by itself: maximal aligned blocks of its contiguous share of
 * the leaves, ascending. Returns how many (at most 2 * height). Pure function of its arguments. */
size_t lh_tree_share(uint32_t leaves, uint32_t w, uint32_t n, struct lh_tree_node out[64]);
