/* The gradient tree of one step, as it fills. Sums of nodes arrive in pieces, from several senders,
 * in any order, cut in any way, some of them twice or as their descendants; whatever happens, the
 * root has the bits that the one fixed binary tree over the leaves gives (common/layout.h).
 *
 * The nodes that begin at the same leaf share one buffer, a *slot*: where a node is known, its
 * left descendants are no longer needed. A slot knows for each run of elements up to which level it
 * holds the sum. Two siblings that are both known over some run become their parent over that run
 * at once, while the piece is still in the cache. */
#pragma once

#include "common/layout.h"

#include <stddef.h>

struct lh_reduce;

/* For `size` elements and `leaves` leaves. Errors: LH_ENOMEM. */
int lh_reduce_create(struct lh_reduce **out, uint32_t leaves, size_t size);
void lh_reduce_destroy(struct lh_reduce **r);
/* From now on the elements before `n` arrive as bfloat16, and those of every node are rounded to it
 * (common/bf16.h). While the tree is empty. */
void lh_reduce_round(struct lh_reduce *r, size_t n);

/* Elements [first, first + n) of a node's sum, n > 0, all within `size`, all rounded or none; node
 * in the tree (asserted; the caller has checked). `data` may be unaligned. Returns 0, or LH_AGAIN
 * if all of it was known. Errors: LH_ENOMEM; nothing has changed then. Allocates nothing when warm.
 */
int lh_reduce_add(struct lh_reduce *r, struct lh_tree_node node, size_t first, size_t n,
                  const void *data);

/* The root [size] if it is whole, else NULL; valid until lh_reduce_reset. */
const float *lh_reduce_root(const struct lh_reduce *r);
/* Tells whether every element of the root so far is below 2^64 in magnitude: finite, and so is its
 * square. */
int lh_reduce_sound(const struct lh_reduce *r);

/* How much is known of a leaf's part of the root, in it or in an ancestor. */
enum lh_reduce_leaf { LH_REDUCE_MISSING, LH_REDUCE_PARTLY, LH_REDUCE_THERE };
enum lh_reduce_leaf lh_reduce_leaf(const struct lh_reduce *r, uint32_t leaf);
/* Of a leaf whose sum has two parts. */
static inline enum lh_reduce_leaf lh_reduce_leaf_both(enum lh_reduce_leaf a, enum lh_reduce_leaf b)
{
    return a == b ? a : LH_REDUCE_PARTLY;
}

/* Empties the tree for the next step; keeps the memory. */
void lh_reduce_reset(struct lh_reduce *r);

/* Bytes of buffers held (for tests and statistics). */
size_t lh_reduce_bytes(const struct lh_reduce *r);
