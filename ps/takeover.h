/* Which micro-batches of a step that all workers share are late, and who has nothing to do is to
 * take over. The gradient tree takes them from anybody, in any order, so that the bits stay the
 * same.
 *
 * Where a late worker stands in its share is not known, but how fast it was in the steps before: it
 * works from the front, and is helped from the end, with as much as lets both be done at once. One
 * that takes longer than that has become slower, or stands still.
 *
 *   came(node, worker, pace) … → give(ask) → LATE to who asked, GIVEN to the others */
#pragma once

#include "common/layout.h"
#include "ps/reduce.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_takeover;

/* For steps of so many leaves. Errors: LH_ENOMEM. */
int lh_takeover_create(struct lh_takeover **out, uint32_t leaves);
void lh_takeover_destroy(struct lh_takeover **t); /* NULL content allowed */

/* The sum of a node has come from a worker (> 0) that takes `pace` seconds a leaf: its leaves are
 * that worker's share, but for those that it was given. */
void lh_takeover_came(struct lh_takeover *t, uint64_t step, struct lh_tree_node node,
                      uint32_t worker, double pace);

struct lh_takeover_ask {
    uint64_t step;
    enum lh_reduce_leaf (*has)(const void *of, uint32_t leaf); /* how much has come of a leaf */
    const void *of;                                            /* handed to it */
    uint32_t worker;                                           /* who asks */
    double pace, usual; /* seconds that it takes for a leaf, for its share; > 0 */
    double now, passed; /* now; since the step began */
    bool partly;        /* leaves that have come in part are late as well */
};

/* A node for an idle worker, at the end of what the latest of the others has still to do. Leaves
 * are given once, before one is given again that has not come for long. False if nothing is late.
 * Allocates nothing. */
bool lh_takeover_give(struct lh_takeover *t, const struct lh_takeover_ask *ask,
                      struct lh_tree_node *out);
