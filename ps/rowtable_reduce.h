/* The gradient tree of one step of one table, as it fills: as reduce.h, over row lists. Sums of
 * nodes arrive as sorted lists of unique ids with their rows, cut into pieces, from several
 * senders, in any order, cut in any way, some of them twice or as their descendants; the root is
 * always left + right of the one fixed tree, in the sense of common/rowlist.h: where an id is
 * missing in one child, the other child's row is taken as it is.
 *
 * A node's list is a pure function of job, seed and step, so whoever sends it sends the same one;
 * a piece says where in it it lies and how long the whole is. A node whose list is empty is sent
 * too, as one piece of nothing: else nobody would know that it is whole. */
#pragma once

#include "common/layout.h"
#include "common/rowlist.h"
#include "ps/reduce.h"

#include <stddef.h>
#include <stdint.h>

struct lh_rowtable_reduce;

struct lh_rowtable_reduce_spec {
    uint32_t leaves; /* K, micro-batches of a step */
    uint32_t dim;    /* elements of a row */
    size_t max_ids;  /* no node's list can be longer; what claims to be is refused */
};

/* A piece of a node's list: its rows [first, first + n) of `total`. */
struct lh_rowtable_piece {
    uint64_t first, total;
    size_t n;           /* 0 only where total is 0 */
    const void *ids;    /* [n] u64, ascending and unique; unaligned allowed */
    const void *values; /* [n, dim] float; unaligned allowed */
};

/* Errors: LH_ERANGE for no leaves, elements or ids; LH_ENOMEM. */
int lh_rowtable_reduce_create(struct lh_rowtable_reduce **out,
                              const struct lh_rowtable_reduce_spec *spec);
void lh_rowtable_reduce_destroy(struct lh_rowtable_reduce **r);

/* Takes a piece. Returns 0, or LH_AGAIN if nothing of it is new. Errors: LH_EPROTO for a node
 * outside the tree, a piece outside its list, ids that do not ascend (within the piece, or against
 * the node's other pieces, which are then all forgotten), another `total` than before;
 * LH_ENOMEM: the piece may be sent again. Allocates nothing when warm. */
int lh_rowtable_reduce_add(struct lh_rowtable_reduce *r, struct lh_tree_node node,
                           const struct lh_rowtable_piece *piece);

/* The root if it is whole (it may be empty), else NULL; valid until the next reset. */
const struct lh_rowlist *lh_rowtable_reduce_root(const struct lh_rowtable_reduce *r);

/* How much of a leaf is known, if only as part of a larger sum. */
enum lh_reduce_leaf lh_rowtable_reduce_leaf(const struct lh_rowtable_reduce *r, uint32_t leaf);

/* Empties the tree for the next step; keeps the memory. */
void lh_rowtable_reduce_reset(struct lh_rowtable_reduce *r);

size_t lh_rowtable_reduce_bytes(const struct lh_rowtable_reduce *r); /* of buffers held */
