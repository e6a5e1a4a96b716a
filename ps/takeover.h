/* Which micro-batches of a step that all workers share are late, and who has nothing to do is to
 * take over. The gradient tree takes them from anybody, in any order, so that the bits stay the
 * same. */
#pragma once

#include "common/layout.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_reduce;
struct lh_takeover;

/* For steps of so many leaves. Errors: LH_ENOMEM. */
int lh_takeover_create(struct lh_takeover **out, uint32_t leaves);
void lh_takeover_destroy(struct lh_takeover **t); /* NULL content allowed */

struct lh_takeover_ask {
    uint64_t step;
    const struct lh_reduce *tree; /* what has come of it */
    bool partly;                  /* leaves that have come in part are late as well */
    double now, late;             /* seconds; after `late` a leaf may be given once more */
};

/* A node for an idle worker: at the end of the last run of leaves that are missing, at most half of
 * them, so that the late worker and others have the rest. Leaves are given once, before one is
 * given again. False if nothing is late. Allocates nothing. */
bool lh_takeover_give(struct lh_takeover *t, const struct lh_takeover_ask *ask,
                      struct lh_tree_node *out);
