/* A shard: the state machine behind a server, without a socket. Holds its range of master weights,
 * Adam moments and target copies; gathers the gradient tree of the current step; when the root is
 * whole it applies optimiser and soft update to every segment and becomes the next version.
 *
 * Version v is the state after v steps. All of it is a pure function of initial weights and
 * gradients: nothing depends on arrival order (DESIGN.md, invariant 1). Pushes are idempotent:
 * what is already there, or belongs to an earlier step, is ignored (invariant 2). */
#pragma once

#include "common/layout.h"

#include <stdint.h>

struct lh_shard;

struct lh_shard_spec {
    const struct lh_shard_range *range; /* copied */
    uint32_t leaves;                    /* K */
    double beta1, beta2, epsilon;       /* Adam (Kingma & Ba), with bias correction by the number of
                                           updates this segment has had */
    size_t n_metrics;                   /* > 0 on shard 0: metrics are summed in the same tree */
};

int lh_shard_create(struct lh_shard **out, const struct lh_shard_spec *spec);
void lh_shard_destroy(struct lh_shard **s);

/* Version 0: initial weights of the range; targets are copies; moments 0. */
void lh_shard_init(struct lh_shard *s, const float *weights);

uint64_t lh_shard_version(const struct lh_shard *s);
size_t lh_shard_size(const struct lh_shard *s); /* elements, hi - lo */

/* Current weights and targets [hi - lo]. They stay valid and unchanged until the step after the
 * next is applied (two generations are kept), so that a reply in flight needs no copy; a version
 * still lent (lh_shard_lend) is never overwritten: the shard takes another buffer instead. */
const float *lh_shard_weights(const struct lh_shard *s);
const float *lh_shard_targets(const struct lh_shard *s);

/* A piece of a node's sum arrives: elements [first, first + n) of the range, unaligned allowed.
 * `metrics` [n_metrics] with the piece that has first == 0, else NULL.
 * Returns 0: taken; LH_AGAIN: ignored, already known or an earlier step; 1 = LH_NOTFOUND is never
 * returned. Errors: LH_EPROTO for a step ahead of the version, a node outside the tree, a piece
 * outside the range. */
int lh_shard_push(struct lh_shard *s, uint64_t step, struct lh_tree_node node, size_t first,
                  const void *data, size_t n, const float *metrics);

/* If the root of the current step is whole: applies it, version becomes + 1, *applied = 1 and
 * metrics_out [n_metrics] receives the step's metrics. Errors: LH_EDIVERGED naming tensor and step
 * if a gradient is not finite; the shard keeps its last version. */
int lh_shard_advance(struct lh_shard *s, int *applied, float *metrics_out);

/* Everything a checkpoint needs: calls `put` for each segment with weights, first and second
 * moments, target (NULL if none) and the segment's update count; and the reverse. */
typedef int (*lh_shard_put)(void *ctx, const struct lh_segment *seg, uint64_t updates,
                            const float *w, const float *m, const float *v, const float *target);
int lh_shard_save(const struct lh_shard *s, lh_shard_put put, void *ctx);
/* Restores one segment's (or part of one) arrays, for elements [lo, hi) of the flat array that
 * lie in this shard; parts may come from a store with another number of shards. */
int lh_shard_load(struct lh_shard *s, uint64_t lo, uint64_t hi, uint64_t updates, const float *w,
                  const float *m, const float *v, const float *target);
void lh_shard_set_version(struct lh_shard *s, uint64_t version);
