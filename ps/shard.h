/* A shard: the state machine behind a server, without a socket. Holds its range of master weights,
 * Adam moments and target copies; gathers the gradient tree of the current step; when the root is
 * whole it applies optimiser and soft update to every segment and becomes the next version.
 *
 * Version v is the state after v steps. All of it is a pure function of initial weights and
 * gradients: nothing depends on arrival order (DESIGN.md, invariant 1). Pushes are idempotent:
 * what is already there, or belongs to an earlier step, is ignored (invariant 2).
 *
 * One thread drives a shard. Only lh_shard_release and lh_shard_thaw may be called from others. */
#pragma once

#include "common/layout.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_flight;
struct lh_flight_claim;
struct lh_reduce;
struct lh_shard;

struct lh_shard_spec {
    const struct lh_shard_range *range; /* copied, names too */
    uint32_t leaves;                    /* K */
    double beta1, beta2, epsilon;       /* Adam (Kingma & Ba), with bias correction by the number of
                                           updates this segment has had */
    size_t n_metrics;                   /* > 0 on shard 0: metrics are summed in the same tree */
    bool bf16;                          /* gradients arrive as bfloat16 (common/bf16.h) */
    bool each;                          /* each step is one worker's own, and is applied when it is
                                           whole, in whatever order (ps/CONSISTENCY.md) */
};

/* Errors: LH_ERANGE for a spec that makes no sense (no elements, no leaves, a period of 0),
 * LH_ENOMEM. */
int lh_shard_create(struct lh_shard **out, const struct lh_shard_spec *spec);
void lh_shard_destroy(struct lh_shard **s); /* what is still lent lives until it is released */

/* Version 0: initial weights [hi - lo] of the range; targets are copies; moments 0. Not while
 * anything is lent or frozen. */
void lh_shard_init(struct lh_shard *s, const float *weights);

/* Then, where they are to differ from the weights: target copies [hi - lo]. */
void lh_shard_init_targets(struct lh_shard *s, const float *targets);

uint64_t lh_shard_version(const struct lh_shard *s);
size_t lh_shard_size(const struct lh_shard *s); /* elements, hi - lo */
const struct lh_shard_range *lh_shard_range_of(const struct lh_shard *s);
/* The gradient tree of the current step, where all workers share it; else NULL. The shard's. */
const struct lh_reduce *lh_shard_reduce(const struct lh_shard *s);
/* Where each step is a worker's own: the steps under way (ps/flight.h); else NULL. The shard's. */
struct lh_flight *lh_shard_flight(struct lh_shard *s);

/* Current weights and targets [hi - lo] (targets: NULL if no tensor here has one; a tensor without
 * a target is 0 there). They stay valid and unchanged until the step after the next is applied (two
 * generations are kept); a generation that is lent is never overwritten: the shard takes another
 * buffer instead. */
const float *lh_shard_weights(const struct lh_shard *s);
const float *lh_shard_targets(const struct lh_shard *s);

/* Lends the current weights (or targets) for as long as the borrower likes, so that a reply needs
 * no copy: the array stays valid and unchanged until the token is released, even if the shard is
 * destroyed before. Allocates nothing. Returns NULL (and *token = NULL) only for targets that do
 * not exist. Each lend needs one release. */
const float *lh_shard_lend(struct lh_shard *s, int targets, void **token);
/* The same of the version before, whose memory is kept until the next step is applied: NULL if
 * there is none, since the shard was initialised or restored since. */
const float *lh_shard_weights_before(const struct lh_shard *s);
const float *lh_shard_targets_before(const struct lh_shard *s);
const float *lh_shard_lend_before(struct lh_shard *s, void **token); /* both; returns the weights */
/* Any thread, no lock. Has the form of ZeroMQ's zmq_free_fn: zmq_msg_init_data(&msg, (void *)data,
 * size, lh_shard_release, token). `data` is not used. */
void lh_shard_release(void *data, void *token);

/* A piece of a node's sum arrives: elements [first, first + n) of the range, unaligned allowed.
 * `data`: n floats, or with `bf16` n halves of 2 bytes, rounded already.
 * `metrics` [n_metrics], unaligned allowed, with a piece that has first == 0, else NULL.
 * A node may be cut into pieces in any way, may arrive again cut otherwise, may arrive as its
 * descendants before or after: the bits of the sum are the same.
 * Returns 0: something was taken; LH_AGAIN: nothing new (already known, or an earlier step).
 * Errors: LH_EPROTO for a step ahead of the version, a node outside the tree, a piece outside the
 * range or empty, missing metrics; LH_ENOMEM. After an error nothing has changed.
 * When warm, allocates nothing. */
int lh_shard_push(struct lh_shard *s, uint64_t step, struct lh_tree_node node, size_t first,
                  const void *data, size_t n, const void *metrics);
/* With `each`, where it takes the place of lh_shard_push: a piece of the sum of a step that is not
 * in, of one of the claims on it. LH_AGAIN also where the claim has ended. */
int lh_shard_push_own(struct lh_shard *s, uint64_t step, const struct lh_flight_claim *of,
                      size_t first, const void *data, size_t n, const void *metrics);

/* The summed gradient [hi - lo] of the step that is applied next once its root is whole, else NULL;
 * valid until lh_shard_advance. */
const float *lh_shard_gradient(const struct lh_shard *s);
/* Its metrics [n_metrics]; NULL also where there are none. */
const float *lh_shard_metrics(const struct lh_shard *s);

/* Whether it can be applied: 0, also where it is not whole, or LH_EDIVERGED naming tensor, row and
 * step if a gradient of a trained tensor is not below 2^64 in magnitude. lh_shard_advance asks
 * itself, too. */
int lh_shard_check(const struct lh_shard *s);

/* If the root of the current step (with `each`, of any: of the lowest) is whole: applies it,
 * version becomes + 1, *applied = 1 and metrics_out [n_metrics] (may be NULL) receives the step's
 * metrics. Else *applied = 0. Adam runs on a segment when (step + 1) % period == 0; the gradients
 * of the steps between are dropped (delayed updates skip, they do not accumulate). The soft update
 * target' = tau * weight' + (1 - tau) * target runs when (step + 1) % target_period == 0, on the
 * weights after this step's Adam. Errors: LH_EDIVERGED; LH_ENOMEM if every generation is lent and
 * no other can be had, call again: nothing is applied, the shard keeps its version. */
int lh_shard_advance(struct lh_shard *s, int *applied, float *metrics_out);

/* A version held still, so that another thread can write it to a store while training goes on. */
struct lh_frozen {
    const struct lh_shard_range *range;
    uint64_t version;
    const uint64_t *updates;         /* [n_segments] Adam steps each segment has had */
    const float *w, *m, *v, *target; /* [hi - lo]; m, v: 0 where untrained; target as in
                                       lh_shard_targets */
};

/* Freezes the current version: moments are copied, weights and targets lent. A shard has one frozen
 * version at a time: LH_AGAIN while the last is not thawed. The first call allocates.
 * Errors: LH_ENOMEM. */
int lh_shard_freeze(struct lh_shard *s, const struct lh_frozen **out);
/* Any thread; before lh_shard_destroy. NULL allowed. */
void lh_shard_thaw(struct lh_shard *s, const struct lh_frozen *frozen);

/* Rows of one tensor as a store keeps them. */
struct lh_rows {
    const char *name;
    uint64_t row, rows, cols;
    uint64_t updates;
    const void *w, *m, *v, *target; /* [rows, cols] floats, unaligned allowed; m and v NULL: 0;
                                       target NULL: as w */
};

/* Restores those of the rows that lie in this shard (parts may come from stores of another number
 * of shards) and adds their number of elements to *taken. Not while anything is lent or frozen.
 * Errors: LH_EMISMATCH if the tensor has another width here; *taken unchanged. */
int lh_shard_load(struct lh_shard *s, const struct lh_rows *rows, uint64_t *taken);
/* Ends a restore: this is version `version`. Errors: LH_EMISMATCH if `taken` is not all the
 * elements of the range. */
int lh_shard_set_version(struct lh_shard *s, uint64_t version, uint64_t taken);
