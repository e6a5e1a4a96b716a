/* Steps under way where each is one worker's own (consistency ssp and async, ps/CONSISTENCY.md):
 * which are in, who has which of the others, and the sums that are arriving. Steps come in any
 * order and from whoever computes them; each is taken exactly once (DESIGN.md, invariant 2).
 *
 *   give(5, worker 2) → add(5, pieces…) → next() is 5 → done(5)
 *
 * One thread, no socket. Times are seconds of one clock, the caller's. */
#pragma once

#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_FLIGHT_NONE  UINT64_MAX /* no step */
#define LH_FLIGHT_AHEAD 65536      /* steps beyond those that are known that a message may name */
#define LH_FLIGHT_BEGUN 8 /* steps that one worker may have begun to push, none of them whole */

struct lh_flight;

/* A step that is known of and not in. */
struct lh_flight_step {
    uint64_t step;
    uint32_t holder;  /* worker that was given it last; 0: none here */
    uint64_t request; /* of the holder's, which it was given for */
    bool lost;        /* the holder is gone */
    double since;     /* when it was given last, or seen to be missing; negative: never yet */
    uint64_t lacked;  /* steps before it that its weights lacked when they were last given */
    unsigned given;   /* how often */
    struct lh_net_peer first; /* whom it was given first; size 0: nobody */
    struct lh_reduce *tree;   /* what has come of its sum; NULL: nothing */
    uint32_t begun_by;        /* worker that pushed the first of it */
};

/* For gradients of `size` elements. Errors: LH_ENOMEM. */
int lh_flight_create(struct lh_flight **out, size_t size);
void lh_flight_destroy(struct lh_flight **f); /* NULL content allowed */
/* As lh_reduce_round, of every step's gradient. While none is under way. */
void lh_flight_round(struct lh_flight *f, size_t n);
/* All steps before `version` are in, and no other is known of. */
void lh_flight_reset(struct lh_flight *f, uint64_t version);

uint64_t lh_flight_low(const struct lh_flight *f);  /* all steps before it are in */
uint64_t lh_flight_high(const struct lh_flight *f); /* it and those behind are not known of */
/* Steps before `step` that are not in. */
uint64_t lh_flight_lacking(const struct lh_flight *f, uint64_t step);
/* NULL if it is in, or not known of. */
const struct lh_flight_step *lh_flight_find(const struct lh_flight *f, uint64_t step);

/* Which step a worker that asks for one is to have: that which it holds already (its answer was
 * lost, or what it sent), else the lowest that was lost, else the next, if that is below `limit`.
 * LH_FLIGHT_NONE if there is none. Nothing changes. */
uint64_t lh_flight_choose(const struct lh_flight *f, uint32_t worker, uint64_t limit);
struct lh_flight_asker {
    uint32_t worker;
    uint64_t request; /* each time that it asks for a step it is another */
    struct lh_net_peer peer;
};

/* Notes that a worker computes `step` from now on, at the weights at hand. Returns LH_AGAIN if the
 * step is in. Errors: LH_EPROTO for one too far ahead; LH_ENOMEM. */
int lh_flight_give(struct lh_flight *f, uint64_t step, const struct lh_flight_asker *to,
                   double now);
/* A worker is gone: what it held is lost. */
void lh_flight_lose(struct lh_flight *f, uint32_t worker);
/* A step for a worker that has nothing else to do: the lowest that is not whole and is its own of
 * an earlier request (so that what it sent was lost; what it waits for now is under way to it), or
 * was lost, or was given more than `late` seconds ago. LH_FLIGHT_NONE if there is none. The step's
 * time begins anew. */
uint64_t lh_flight_late(struct lh_flight *f, const struct lh_flight_asker *who, double late,
                        double now);

/* A worker is about to add to `step`. Each that is begun takes memory for the whole of it, which
 * few bytes could ask for: it has begun a few at most. Errors: LH_EPROTO for one more; as give. */
int lh_flight_begin(struct lh_flight *f, uint64_t step, uint32_t worker);
/* Elements [first, first + n) of a step's sum; they lie within `size` (asserted). Returns 0, or
 * LH_AGAIN if all of it was known. Errors: as give. Allocates nothing when warm. */
int lh_flight_add(struct lh_flight *f, uint64_t step, size_t first, size_t n, const void *data);
/* The lowest step whose sum is whole; NULL if none. */
const struct lh_flight_step *lh_flight_next(const struct lh_flight *f);
/* It is applied, and in from now on. */
void lh_flight_done(struct lh_flight *f, uint64_t step);
