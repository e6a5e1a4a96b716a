/* Steps under way on a shard where each step is a worker's own (ssp, async): who computes which,
 * which are in, and the sums that are arriving. Steps come in any order; each is taken exactly once
 * (DESIGN.md, invariant 2).
 *
 * Each time that a worker is given weights for a step it has a new *claim* on it, and what it sends
 * says of which claim it is. A step may have several, since the first was late or lost. Their sums
 * arrive side by side, and the first that is whole is the step's: no sum is made of two
 * computations. A worker has one claim at a time: who is given another step has sent what it had,
 * or never will.
 *
 *   give(5, worker 2) → add(5, worker 2, pieces…) → next() is 5 → done(5)
 *
 * One thread, no socket. Times are seconds of one clock, the caller's. */
#pragma once

#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_FLIGHT_NONE  UINT64_MAX /* no step */
#define LH_FLIGHT_AHEAD 65536      /* steps beyond those that are known that a message may name */

struct lh_flight;
struct lh_reduce;
struct lh_rowtable_piece;
struct lh_rowtable_reduce;

struct lh_flight_claim {
    uint32_t worker;
    uint64_t request; /* each time that it asks for a step it is another */
    struct lh_net_peer peer;
};

/* For gradients of `size` elements. Errors: LH_ENOMEM. */
int lh_flight_create(struct lh_flight **out, size_t size);
void lh_flight_destroy(struct lh_flight **f); /* NULL content allowed */
/* As lh_reduce_round, of every step's gradient. While none is under way. */
void lh_flight_round(struct lh_flight *f, size_t n);
/* From now on a step's sum has the rows of n tables beside it, each of at most `max_ids`. `dim`,
 * `max_ids` [n] are copied. Before the first is given. */
void lh_flight_tables(struct lh_flight *f, const uint32_t *dim, const size_t *max_ids, size_t n);
/* All steps before `version` are in, and no other is known of. */
void lh_flight_reset(struct lh_flight *f, uint64_t version);

uint64_t lh_flight_low(const struct lh_flight *f);  /* all steps before it are in */
uint64_t lh_flight_high(const struct lh_flight *f); /* it and those behind are not known of */
/* Steps before `step` that are not in. */
uint64_t lh_flight_lacking(const struct lh_flight *f, uint64_t step);

/* Which step a worker that asks for one is to have: that which it has a claim on (its answer was
 * lost, or what it sent), else the lowest that was lost, else the next, if that is below `limit`.
 * LH_FLIGHT_NONE if there is none. Nothing changes. */
uint64_t lh_flight_choose(const struct lh_flight *f, uint32_t worker, uint64_t limit);
/* Notes that a worker computes `step` from now on, at the weights at hand; it, or who is behind the
 * same peer, computes nothing else any more. Returns LH_AGAIN if the step is in. Errors: LH_EPROTO
 * for one too far ahead; LH_ENOMEM: nothing has changed. */
int lh_flight_give(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *to,
                   double now);
/* Whether what a worker sent of a step before `step` was lost: it has a claim on it yet. */
bool lh_flight_owes(const struct lh_flight *f, uint32_t worker, uint64_t step);
/* A worker is gone: what it had is lost, unless another has it too. */
void lh_flight_lose(struct lh_flight *f, uint32_t worker);
/* A step for a worker that has nothing else to do: the lowest that is not whole and is its own of
 * an earlier request (so that what it sent was lost; what it waits for now is under way to it), or
 * was lost, or was given more than `late` seconds ago. LH_FLIGHT_NONE if there is none. The step's
 * time begins anew. */
uint64_t lh_flight_late(struct lh_flight *f, const struct lh_flight_claim *who, double late,
                        double now);

/* Elements [first, first + n) of a step's sum, of a worker's claim; they lie within `size`
 * (asserted). Returns 0, or LH_AGAIN if all of it was known, or the claim has ended: the step is
 * in, or the worker was given another. Errors: LH_EPROTO for a step that nobody was given;
 * LH_ENOMEM. Allocates nothing when warm. */
int lh_flight_add(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *of,
                  size_t first, size_t n, const void *data);
/* The same of a piece of the rows of a table (ps/rowtable_reduce.h, for what is refused). A sum is
 * whole when the rows of all tables are. */
int lh_flight_add_rows(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *of,
                       size_t table, const struct lh_rowtable_piece *piece);

struct lh_flight_sum { /* of a step, whole */
    uint64_t step;
    uint32_t worker;              /* whose it is */
    uint64_t lacked;              /* steps before it that its weights lacked when they were given */
    unsigned given;               /* how often the step was */
    const struct lh_reduce *tree; /* of one leaf; until the step is done */
    struct lh_rowtable_reduce *const *rows; /* of each table, likewise */
};
/* That of the lowest step that has one, or of which has begun; false if none has. */
bool lh_flight_next(const struct lh_flight *f, struct lh_flight_sum *out);
/* Who else has a claim on its step: the i-th; NULL behind the last. */
const struct lh_net_peer *lh_flight_rival(const struct lh_flight *f,
                                          const struct lh_flight_sum *sum, size_t i);
/* It is being applied, which may take several tries: until it is done, no other is the next. */
void lh_flight_begin(struct lh_flight *f, const struct lh_flight_sum *sum);
/* It is applied, and in from now on. */
void lh_flight_done(struct lh_flight *f, uint64_t step);
