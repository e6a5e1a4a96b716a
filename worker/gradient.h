/* A worker's half of the gradient tree: it sums the micro-batches of a whole subtree in tree order
 * (common/layout.h) and hands out the sum in pieces, each as soon as it is final. Buffers are lent
 * to the network and taken again when it has let go. */
#pragma once

#include "common/layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_GRADIENT_DEPTH 33 /* leaves fit in 32 bits */

struct lh_gradient_buffer;

/* A slice of one shard, at most LH_WIRE_PIECE elements. */
struct lh_gradient_piece {
    uint32_t shard;
    uint64_t lo, hi;  /* flat elements */
    uint64_t first;   /* lo relative to the shard */
    uint32_t params;  /* trained parameters that touch it */
    uint32_t missing; /* of them, not final yet */
    bool sent;
};

struct lh_gradient {
    const struct lh_layout *layout;
    size_t n_metrics;
    struct lh_gradient_piece *pieces; /* ascending in flat order */
    size_t n_pieces;
    uint32_t *param_first, *param_last;  /* [n_params] pieces that a parameter touches */
    struct lh_gradient_buffer **buffers; /* [limit] made when first needed */
    size_t limit;
    /* left siblings that wait for their right ones, outermost first */
    struct {
        struct lh_tree_node node;
        struct lh_gradient_buffer *buffer;
    } stack[LH_GRADIENT_DEPTH];
    size_t depth;
    bool bf16;                          /* nodes are rounded, and travel as bfloat16 */
    struct lh_gradient_buffer *current; /* of the leaf at hand */
    double reducing;                    /* seconds spent on sums */
};

int lh_gradient_init(struct lh_gradient *g, const struct lh_layout *layout, size_t n_metrics,
                     uint32_t leaves);
/* From now on every node is rounded to bfloat16, and travels as such (common/bf16.h). Before the
 * first buffer is acquired. */
void lh_gradient_round(struct lh_gradient *g);
/* Waits for nothing: buffers that are still lent are freed by the last release. */
void lh_gradient_fini(struct lh_gradient *g);

/* Takes a free buffer for the next leaf. LH_AGAIN while all are lent: let the network work. Errors:
 * LH_ENOMEM. */
int lh_gradient_acquire(struct lh_gradient *g);
float *lh_gradient_data(struct lh_gradient *g);    /* [flat_size] of the leaf at hand */
float *lh_gradient_metrics(struct lh_gradient *g); /* [n_metrics] */

/* The leaf at hand is computed, and is not the last of its subtree: it joins the tree. */
void lh_gradient_join(struct lh_gradient *g, uint32_t leaf);

/* For the last leaf of a subtree: begin before it runs; then, as parameters become final, `param`
 * calls `piece` for each piece that thereby is; end does so for all that are left, once metrics are
 * final. In `piece`, and until the buffer is done with, lh_gradient_wire has the sum of the whole
 * subtree. */
typedef void (*lh_gradient_ready)(void *ctx, struct lh_gradient_piece *piece);
void lh_gradient_last_begin(struct lh_gradient *g);
void lh_gradient_last_param(struct lh_gradient *g, size_t param, lh_gradient_ready piece,
                            void *ctx);
void lh_gradient_last_end(struct lh_gradient *g, lh_gradient_ready piece, void *ctx);
/* What is to be sent of a piece that was handed out, and how many bytes. */
const void *lh_gradient_wire(const struct lh_gradient *g, const struct lh_gradient_piece *p,
                             size_t *bytes);
/* The last leaf of the subtree under way will not come: the sums of its complete subtrees, one
 * after the other. Each becomes the buffer at hand, the one before it is done. False when there is
 * none left. Then `pieces` hands out all of it. */
bool lh_gradient_part(struct lh_gradient *g, struct lh_tree_node *node);
void lh_gradient_pieces(struct lh_gradient *g, lh_gradient_ready piece, void *ctx);
/* The subtree under way is not wanted any more. */
void lh_gradient_abandon(struct lh_gradient *g);
/* All pieces are handed over: the buffer is free when the network has let go of it. */
void lh_gradient_done(struct lh_gradient *g);

/* Lends the current buffer once more; lh_gradient_release (any thread) gives it back. */
void *lh_gradient_lend(struct lh_gradient *g);
void lh_gradient_release(void *data, void *token);
