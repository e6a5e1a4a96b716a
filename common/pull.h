/* Pulling a version: one request to every shard, answered in pieces of about 1 MB that are put into
 * flat arrays, or kept where they lie (common/held.h). The worker pulls the next version of its
 * step, the evaluation pulls the version of a cut; both ask in advance, and the servers answer when
 * that version exists. */
#pragma once

#include "common/held.h"
#include "common/layout.h"
#include "common/net.h"

#include <stdbool.h>
#include <stdint.h>

/* One message of an answer: part of a shard's weights, or of its targets. */
struct lh_pull_piece {
    uint64_t first, count; /* elements, relative to the shard */
    bool targets;
};

/* The pieces of a shard's answer, in order; *out is an array, caller frees with lh_mem_free.
 * Weights whole; of the targets only tensors that have one. */
int lh_pull_pieces(struct lh_pull_piece **out, size_t *n, const struct lh_shard_range *range);

struct lh_pull_shard {
    struct lh_net_socket *socket;
    uint64_t lo, size, target_elements;
    uint64_t got_weights, got_targets;
    uint64_t version; /* that its pieces are of */
    bool done;
};

struct lh_pull {
    struct lh_pull_shard *shards;
    size_t n_shards;
    float *weights, *targets; /* flat; targets may be NULL: not wanted */
    struct lh_held *held;     /* instead of them, if not NULL */
    uint64_t job;
    uint32_t node, generation;
    uint64_t version; /* asked for, then what came */
    uint64_t request;
    uint64_t breaks; /* of connections, when it was asked */
    bool complete;
    bool each;    /* what was asked for is a step's weights: */
    double asked; /* when, or when the last piece came; seconds */
};

struct lh_pull_spec {
    void *zmq;
    const struct lh_layout *layout;
    char *const *endpoints;             /* of the servers, by shard */
    char *const *keys;                  /* their public keys, by shard; NULL: none */
    const struct lh_security *security; /* outlives the pull; NULL: none */
    uint64_t job;
    uint32_t node;       /* of the caller; 0: the evaluation */
    uint32_t generation; /* of the plan */
    int queue;           /* messages that may wait, each way, for a server */
};

/* Connects to every shard's endpoint. `weights` and `targets` [flat_size] stay the caller's. */
int lh_pull_open(struct lh_pull *p, const struct lh_pull_spec *spec);
void lh_pull_close(struct lh_pull *p); /* idempotent */

/* Asks all shards for `version`, forgetting what was asked before and what `held` holds.
 * LH_WIRE_LATEST: the newest that all can give. One may be a version ahead of another that lacks
 * what somebody who is gone had of a step: it gives the one before, too. Errors: LH_EPEER if a
 * shard takes no requests. */
int lh_pull_begin(struct lh_pull *p, uint64_t version);
/* The same for the weights that step `step` may be computed at, where each step is a worker's own:
 * each shard gives the version that it has once it may. LH_WIRE_LATEST: of a step that shard 0
 * gives; `version` becomes it. */
int lh_pull_begin_step(struct lh_pull *p, uint64_t step);
/* How often connections to shards have broken, as far as was noticed. */
uint64_t lh_pull_breaks(const struct lh_pull *p);
/* Whether one has since it was asked: then it is time to ask again. */
bool lh_pull_broke(const struct lh_pull *p);
/* Takes in one message from shard i, whose frame `held` may keep. Sets `complete` when the version
 * is whole; begins anew where a shard says that the version is gone. Messages of other requests are
 * ignored. Errors: LH_EPROTO for a piece that does not fit (nothing is written outside the arrays).
 */
int lh_pull_take(struct lh_pull *p, size_t i, struct lh_net_message *msg);
