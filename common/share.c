/* Products that several uses of a layer have in common. Where all uses of a weight see the same
 * columns first (a decoder the state, before one latent or another; a critic the state, before one
 * action or another), x W^T over those columns is the same for all: it becomes a node of its own,
 * linear and with the bias, and what is left of each use goes on from it. The bits of a value stay
 * what they were (gemm.h). Its adjoint is the sum of theirs, so that the gradient of those columns
 * is one product as well. */
#include "common/graph_internal.h"
#include "common/mem.h"

#include <string.h>

#define COLUMNS_MIN 16 /* below, reading the shared product costs more than it saves */

/* The parts of a layer's input. */
static size_t parts_of(const struct lh_graph *g, const struct lh_def *d, const int32_t **out)
{
    const struct lh_def *x = &g->node[d->in[0]];
    *out = x->op == LH_OP_CONCAT ? x->in : d->in;
    return x->op == LH_OP_CONCAT ? x->n_in : 1;
}

static bool same_weights(const struct lh_def *x, const struct lh_def *y)
{
    return y->op == LH_OP_LINEAR && x->weight == y->weight && x->rows == y->rows &&
           (x->use == LH_TARGET) == (y->use == LH_TARGET);
}

/* How many parts of layer d's input come first in every use of its weights; 0 if that is too
 * little, or all. */
static size_t shared_parts(const struct lh_graph *g, const struct lh_def *d)
{
    const int32_t *mine, *other;
    const size_t n_mine = parts_of(g, d, &mine);
    size_t shared = n_mine, columns = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (!same_weights(d, &g->node[i]))
            continue;
        const size_t n = parts_of(g, &g->node[i], &other);
        size_t k = 0;
        while (k < shared && k < n && mine[k] == other[k])
            k++;
        shared = k;
    }
    for (size_t k = 0; k < shared; k++)
        columns += g->node[mine[k]].cols;
    return shared < n_mine && columns >= COLUMNS_MIN ? shared : 0;
}

static lh_node beside(struct lh_graph *g, const int32_t *parts, size_t n)
{
    if (n == 1)
        return (lh_node){parts[0]};
    struct lh_def d = lh_graph_def(LH_OP_CONCAT, g->node[parts[0]].rows, 0);
    for (size_t k = 0; k < n; k++) {
        d.in[d.n_in++] = parts[k];
        d.cols += g->node[parts[k]].cols;
    }
    return lh_graph_add(g, &d);
}

/* Adds layer `d`, whose inputs are nodes of g already, as two: of the first `shared` parts of its
 * input, and of the rest. */
static lh_node add_split(struct lh_graph *g, const struct lh_def *d, size_t shared)
{
    const struct lh_def x = g->node[d->in[0]]; /* a concat, since there is a rest */
    struct lh_def first = *d, rest = *d;
    lh_node a = beside(g, x.in, shared), b = beside(g, x.in + shared, x.n_in - shared);
    if (a.id < 0 || b.id < 0)
        return (lh_node){-1};
    first.in[0] = a.id;
    first.act = LH_LINEAR;
    a = lh_graph_add(g, &first);
    rest.in[0] = b.id;
    rest.in[rest.n_in++] = a.id;
    rest.bias = -1;
    rest.i = rest.j - g->node[b.id].cols;
    return a.id < 0 ? a : lh_graph_add(g, &rest);
}

/* Adds the n nodes of `old` to the empty g, layers split as `shared` says; now[i] becomes the node
 * of g that old[i] is. */
static int rebuild(struct lh_graph *g, const struct lh_def *old, size_t n, const uint32_t *shared,
                   int32_t *now)
{
    for (size_t i = 0; i < n; i++) {
        struct lh_def d = old[i];
        for (uint32_t k = 0; k < d.n_in; k++)
            d.in[k] = now[d.in[k]];
        lh_node x = shared[i] ? add_split(g, &d, shared[i]) : lh_graph_add(g, &d);
        if (x.id < 0)
            return lh_graph_status(g);
        now[i] = x.id;
    }
    for (size_t i = 0; i < g->n_noise; i++)
        g->noise[i].node = now[g->noise[i].node];
    for (size_t i = 0; i < g->n_losses; i++)
        g->loss[i].value = now[g->loss[i].value];
    for (size_t i = 0; i < g->n_metrics; i++)
        g->metric[i].node = now[g->metric[i].node];
    for (size_t i = 0; i < g->n_outputs; i++)
        g->output[i].node = now[g->output[i].node];
    return 0;
}

int lh_share_products(struct lh_graph *g)
{
    int rc;
    uint32_t *shared = NULL;
    int32_t *now = NULL;
    struct lh_def *old = NULL;
    const size_t n = g->n_nodes;
    bool any = false;
    LH_TRY_TO(done, LH_NEW_ARRAY(&shared, n, "shared products"));
    for (size_t i = 0; i < n; i++)
        if (g->node[i].op == LH_OP_LINEAR) {
            shared[i] = (uint32_t)shared_parts(g, &g->node[i]);
            any = any || shared[i];
        }
    if (!any) {
        lh_mem_free(shared);
        return 0;
    }
    LH_TRY_TO(done, LH_NEW_ARRAY(&now, n, "shared products"));
    old = g->node;
    g->node = NULL;
    g->n_nodes = g->cap_nodes = 0;
    memset(g->slot, 0xff, g->n_slots * sizeof *g->slot);
    rc = rebuild(g, old, n, shared, now);
done:
    lh_mem_free(shared);
    lh_mem_free(now);
    lh_mem_free(old);
    return rc;
}
