/* Subtree sums. The value of a node is always left + right, element by element, so a sum may be
 * finished piece by piece, in any order of pieces, with the same bits (DESIGN.md, invariant 1). */
#include "worker/gradient.h"

#include "common/bf16.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"
#include "common/wire.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

struct lh_gradient_buffer {
    atomic_uint lent; /* references: one of the worker while in use, one a message under way */
    bool used;        /* by the worker */
    float *data, *metrics;
    uint16_t *packed; /* [flat_size] what travels as bfloat16; else NULL */
};

static void unref(struct lh_gradient_buffer *b)
{
    if (atomic_fetch_sub_explicit(&b->lent, 1, memory_order_acq_rel) != 1)
        return;
    lh_mem_free(b->data);
    lh_mem_free(b->metrics);
    lh_mem_free(b->packed);
    lh_mem_free(b);
}

static int cut_pieces(struct lh_gradient *g)
{
    size_t cap = 0;
    for (size_t i = 0; i < g->layout->n_shards; i++) {
        const struct lh_shard_range *r = &g->layout->shards[i];
        for (uint64_t lo = r->lo; lo < r->hi; lo += LH_WIRE_PIECE) {
            uint64_t hi = r->hi - lo < LH_WIRE_PIECE ? r->hi : lo + LH_WIRE_PIECE;
            LH_TRY(LH_GROW(&g->pieces, &cap, g->n_pieces + 1, "pieces of a push"));
            g->pieces[g->n_pieces++] = (struct lh_gradient_piece){
                .shard = (uint32_t)i, .lo = lo, .hi = hi, .first = lo - r->lo};
        }
    }
    return 0;
}

static void place_params(struct lh_gradient *g)
{
    uint32_t at = 0;
    for (size_t i = 0; i < g->layout->n_params; i++) {
        const struct lh_param *p = &g->layout->params[i];
        uint64_t lo = p->offset, hi = lo + (uint64_t)p->rows * p->cols;
        while (g->pieces[at].hi <= lo)
            at++;
        g->param_first[i] = at;
        while (g->pieces[at].hi < hi)
            at++;
        g->param_last[i] = at;
        for (uint32_t k = g->param_first[i]; p->trained && k <= at; k++)
            g->pieces[k].params++;
    }
}

int lh_gradient_init(struct lh_gradient *g, const struct lh_layout *layout, size_t n_metrics,
                     uint32_t leaves)
{
    int rc;
    *g = (struct lh_gradient){.layout = layout, .n_metrics = n_metrics};
    /* A left sibling a level, the leaf at hand, and two sums that the network still holds. */
    g->limit = lh_tree_height(leaves) + 3;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&g->buffers, g->limit, "gradient buffers"));
    LH_TRY_TO(fail, cut_pieces(g));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&g->param_first, layout->n_params, "pieces of a push"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&g->param_last, layout->n_params, "pieces of a push"));
    place_params(g);
    return 0;
fail:
    lh_gradient_fini(g);
    return rc;
}

void lh_gradient_fini(struct lh_gradient *g)
{
    for (size_t i = 0; g->buffers && i < g->limit; i++)
        if (g->buffers[i])
            unref(g->buffers[i]);
    lh_mem_free(g->buffers);
    lh_mem_free(g->pieces);
    lh_mem_free(g->param_first);
    lh_mem_free(g->param_last);
    *g = (struct lh_gradient){0};
}

void lh_gradient_round(struct lh_gradient *g)
{
    g->bf16 = true;
}

static int make_buffer(struct lh_gradient *g, struct lh_gradient_buffer **out)
{
    struct lh_gradient_buffer *b = NULL;
    int rc;
    LH_TRY(LH_NEW(&b, "gradient buffer"));
    atomic_init(&b->lent, 1);
    LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&b->data, g->layout->flat_size, sizeof(float),
                                         "gradient buffer"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&b->metrics, g->n_metrics, "metrics"));
    if (g->bf16)
        LH_TRY_TO(fail, LH_NEW_ARRAY(&b->packed, g->layout->flat_size, "gradient buffer"));
    *out = b;
    return 0;
fail:
    unref(b);
    return rc;
}

int lh_gradient_acquire(struct lh_gradient *g)
{
    assert(!g->current);
    for (size_t i = 0; i < g->limit; i++) {
        struct lh_gradient_buffer *b = g->buffers[i];
        if (!b) {
            LH_TRY(make_buffer(g, &g->buffers[i]));
            b = g->buffers[i];
        }
        if (!b->used && atomic_load_explicit(&b->lent, memory_order_acquire) == 1) {
            b->used = true;
            g->current = b;
            return 0;
        }
    }
    return LH_AGAIN;
}

float *lh_gradient_data(struct lh_gradient *g)
{
    return g->current->data;
}

float *lh_gradient_metrics(struct lh_gradient *g)
{
    return g->current->metrics;
}

static void add(float *restrict left, const float *restrict right, size_t n)
{
    for (size_t i = 0; i < n; i++)
        left[i] += right[i];
}

static void add_nodes(const struct lh_gradient *g, float *restrict left,
                      const float *restrict right, size_t n)
{
    if (g->bf16)
        lh_bf16_add(left, right, n);
    else
        add(left, right, n);
}

void lh_gradient_join(struct lh_gradient *g, uint32_t leaf)
{
    double began = lh_now();
    struct lh_tree_node node = {.level = 0, .index = leaf};
    if (g->bf16)
        lh_bf16_round(g->current->data, g->layout->flat_size);
    while (g->depth > 0 && node.index % 2 == 1 && g->stack[g->depth - 1].node.level == node.level &&
           g->stack[g->depth - 1].node.index == node.index - 1) {
        struct lh_gradient_buffer *left = g->stack[--g->depth].buffer;
        add_nodes(g, left->data, g->current->data, g->layout->flat_size);
        add(left->metrics, g->current->metrics, g->n_metrics);
        g->current->used = false;
        g->current = left;
        node = (struct lh_tree_node){.level = node.level + 1, .index = node.index / 2};
    }
    assert(g->depth < LH_GRADIENT_DEPTH);
    g->stack[g->depth].node = node;
    g->stack[g->depth++].buffer = g->current;
    g->current = NULL;
    g->reducing += lh_now() - began;
}

void lh_gradient_last_begin(struct lh_gradient *g)
{
    for (size_t i = 0; i < g->n_pieces; i++) {
        g->pieces[i].missing = g->pieces[i].params;
        g->pieces[i].sent = false;
    }
}

/* right = left + right, innermost left first. */
static void sum_up(struct lh_gradient *g, const struct lh_gradient_piece *p)
{
    struct lh_gradient_buffer *b = g->current;
    const size_t n = p->hi - p->lo;
    if (g->bf16)
        lh_bf16_round(b->data + p->lo, n);
    for (size_t d = g->depth; d-- > 0;)
        add_nodes(g, b->data + p->lo, g->stack[d].buffer->data + p->lo, n);
    if (g->bf16)
        lh_bf16_pack(b->packed + p->lo, b->data + p->lo, n);
}

static void finish_piece(struct lh_gradient *g, struct lh_gradient_piece *p,
                         lh_gradient_ready piece, void *ctx)
{
    double began = lh_now();
    sum_up(g, p);
    g->reducing += lh_now() - began;
    p->sent = true;
    piece(ctx, p);
}

/* The first piece takes the metrics along, which are final last. */
void lh_gradient_last_param(struct lh_gradient *g, size_t param, lh_gradient_ready piece, void *ctx)
{
    for (uint32_t k = g->param_first[param]; k <= g->param_last[param]; k++)
        if (--g->pieces[k].missing == 0 && k != 0)
            finish_piece(g, &g->pieces[k], piece, ctx);
}

void lh_gradient_last_end(struct lh_gradient *g, lh_gradient_ready piece, void *ctx)
{
    for (size_t d = g->depth; d-- > 0;)
        add(g->current->metrics, g->stack[d].buffer->metrics, g->n_metrics);
    for (size_t i = 0; i < g->n_pieces; i++)
        if (!g->pieces[i].sent)
            finish_piece(g, &g->pieces[i], piece, ctx);
}

const void *lh_gradient_wire(const struct lh_gradient *g, const struct lh_gradient_piece *p,
                             size_t *bytes)
{
    *bytes = (p->hi - p->lo) * (g->bf16 ? sizeof(uint16_t) : sizeof(float));
    return g->bf16 ? (const void *)(g->current->packed + p->lo)
                   : (const void *)(g->current->data + p->lo);
}

static void drop_stack(struct lh_gradient *g)
{
    while (g->depth > 0)
        g->stack[--g->depth].buffer->used = false;
}

void lh_gradient_done(struct lh_gradient *g)
{
    drop_stack(g);
    g->current->used = false;
    g->current = NULL;
}

bool lh_gradient_part(struct lh_gradient *g, struct lh_tree_node *node)
{
    if (g->current)
        g->current->used = false;
    g->current = NULL;
    if (g->depth == 0)
        return false;
    g->current = g->stack[--g->depth].buffer;
    *node = g->stack[g->depth].node;
    return true;
}

void lh_gradient_pieces(struct lh_gradient *g, lh_gradient_ready piece, void *ctx)
{
    for (size_t i = 0; i < g->n_pieces; i++) {
        struct lh_gradient_piece *p = &g->pieces[i];
        if (g->bf16) /* it is rounded: it was joined */
            lh_bf16_pack(g->current->packed + p->lo, g->current->data + p->lo, p->hi - p->lo);
        piece(ctx, p);
    }
}

void lh_gradient_abandon(struct lh_gradient *g)
{
    drop_stack(g);
    if (g->current)
        g->current->used = false;
    g->current = NULL;
}

void *lh_gradient_lend(struct lh_gradient *g)
{
    atomic_fetch_add_explicit(&g->current->lent, 1, memory_order_relaxed);
    return g->current;
}

void lh_gradient_release(void *data, void *token)
{
    (void)data;
    unref(token);
}
