/* From nodes to a program: which nodes are needed, in which order they run, where their values lie.
 *
 * Order: gradients of parameters are wanted early, so that they can travel while the rest of
 * backward runs. The parameter whose gradient needs the least work that is not scheduled yet comes
 * next, with all that it needs. Forward and backward thus interleave network by network, which also
 * keeps the values that are alive at one time few.
 *
 * Memory: a value lives from the step that makes it to the last that reads it. Values that never
 * live at the same time share memory (largest first, each at the lowest place that is free); an
 * element-wise operator writes over an input that dies in it. */
#include "common/graph_internal.h"
#include "common/mem.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN_ELEMENTS 16
#define NO_MEMORY      SIZE_MAX

struct life { /* of a piece of memory, shared by the values that take it over in turn */
    size_t elements, offset;
    size_t from, to; /* steps, inclusive */
};

struct planner {
    struct lh_graph *g;
    struct lh_plan *p;
    unsigned char *done; /* [nodes] */
    uint32_t *mark;      /* [nodes] of the latest walk */
    uint32_t walk;
    int32_t *stack; /* [2 nodes] */
    size_t *last;   /* [nodes] last step that reads the value */
    int32_t *piece; /* [nodes] of memory; -1: none */
    struct life *life;
    size_t n_lives;
};

static bool runs(const struct lh_def *d)
{
    return d->op != LH_OP_INPUT && d->op != LH_OP_CONSTANT && d->op != LH_OP_STOP;
}

static bool has_value(const struct lh_def *d)
{
    return d->op != LH_OP_LINEAR_DW && d->op != LH_OP_BIAS_GRAD;
}

static const unsigned in_place[LH_OP_COUNT] = {
#define OP_IN_PLACE(id, name, kernel, mask) [LH_OP_##id] = mask,
    LH_OPS(OP_IN_PLACE)
#undef OP_IN_PLACE
};

static uint64_t flops(const struct lh_graph *g, const struct lh_def *d)
{
    switch (d->op) {
    case LH_OP_LINEAR:
        return 2 * (uint64_t)d->rows * d->cols * g->node[d->in[0]].cols;
    case LH_OP_LINEAR_DX:
        return 2 * (uint64_t)d->rows * d->cols * g->node[d->in[0]].cols;
    case LH_OP_LINEAR_DW:
        return 2 * (uint64_t)d->rows * d->cols * g->node[d->in[0]].rows;
    default:
        return 0;
    }
}

/* --- which nodes are the same ------------------------------------------------------------------
 */
/* Value numbering: nodes that compute the same become one (a frozen use beside a live one of the
 * same network on the same input; what became equal by that), stop-gradients vanish. Rewrites the
 * inputs of all nodes. */
static int unify(struct lh_graph *g, int32_t *same)
{
    size_t n_slots = 64;
    while (n_slots < 2 * g->n_nodes)
        n_slots *= 2;
    int32_t *slot;
    LH_TRY(LH_NEW_ARRAY(&slot, n_slots, "an index of values"));
    memset(slot, 0xff, n_slots * sizeof *slot);
    for (size_t n = 0; n < g->n_nodes; n++) {
        struct lh_def *d = &g->node[n];
        for (uint32_t k = 0; k < d->n_in; k++)
            d->in[k] = same[d->in[k]];
        same[n] = (int32_t)n;
        if (d->op == LH_OP_STOP)
            same[n] = d->in[0];
        if (d->op == LH_OP_STOP || lh_graph_has_effect(d))
            continue;
        size_t at = lh_graph_hash(d, true) & (n_slots - 1);
        while (slot[at] >= 0 && !lh_graph_equal(&g->node[slot[at]], d, true))
            at = (at + 1) & (n_slots - 1);
        if (slot[at] >= 0)
            same[n] = slot[at];
        else
            slot[at] = (int32_t)n;
    }
    lh_mem_free(slot);
    return 0;
}

/* --- order -------------------------------------------------------------------------------------
 */
/* Schedules what node n needs and then n itself. */
static void schedule(struct planner *w, int32_t root)
{
    struct lh_graph *g = w->g;
    size_t depth = 0;
    w->stack[depth++] = root;
    while (depth) {
        int32_t n = w->stack[depth - 1];
        const struct lh_def *d = &g->node[n];
        bool waits = false;
        if (!w->done[n])
            for (uint32_t k = d->n_in; k-- > 0;)
                if (!w->done[d->in[k]]) {
                    /* the first input ends up on top; a node may be pushed again by a later user,
                     * then it is found done */
                    w->stack[depth++] = d->in[k];
                    waits = true;
                }
        if (waits)
            continue;
        depth--;
        if (w->done[n])
            continue;
        w->done[n] = 1;
        if (runs(d))
            w->p->step[w->p->n_steps++] =
                (struct lh_step){.node = n, .backward = (size_t)n >= g->n_forward};
    }
}

/* Work that is not scheduled yet below node n. */
static uint64_t work(struct planner *w, int32_t root)
{
    struct lh_graph *g = w->g;
    uint64_t total = 0;
    size_t depth = 0;
    if (w->done[root] || w->mark[root] == w->walk)
        return 0;
    w->stack[depth++] = root;
    w->mark[root] = w->walk;
    while (depth) {
        const struct lh_def *d = &g->node[w->stack[--depth]];
        total += flops(g, d) + d->rows * d->cols;
        for (uint32_t k = 0; k < d->n_in; k++) {
            int32_t in = d->in[k];
            if (!w->done[in] && w->mark[in] != w->walk) {
                w->mark[in] = w->walk;
                w->stack[depth++] = in;
            }
        }
    }
    return total;
}

static bool feeds(const struct lh_graph *g, size_t node, size_t param)
{
    const struct lh_def *d = &g->node[node];
    if (node < g->n_forward || !lh_graph_has_effect(d))
        return false;
    return (d->op == LH_OP_LINEAR_DW ? d->weight : d->bias) == (int32_t)param;
}

static int order_gradients(struct planner *w)
{
    struct lh_graph *g = w->g;
    unsigned char *finished;
    LH_TRY(LH_NEW_ARRAY(&finished, g->n_params + 1, "an order of gradients"));
    for (;;) {
        size_t best = g->n_params;
        uint64_t least = UINT64_MAX;
        for (size_t i = 0; i < g->n_params; i++) {
            if (finished[i] || !g->param[i].trained)
                continue;
            uint64_t cost = 0;
            w->walk++;
            for (size_t n = g->n_forward; n < g->n_nodes; n++)
                if (feeds(g, n, i))
                    cost += work(w, (int32_t)n);
            if (cost < least) {
                least = cost;
                best = i;
            }
        }
        if (best == g->n_params)
            break;
        for (size_t n = g->n_forward; n < g->n_nodes; n++)
            if (feeds(g, n, best))
                schedule(w, (int32_t)n);
        finished[best] = 1;
    }
    lh_mem_free(finished);
    return 0;
}

static int order(struct planner *w)
{
    struct lh_graph *g = w->g;
    LH_TRY(order_gradients(w));
    for (size_t i = 0; i < g->n_losses; i++)
        schedule(w, g->loss[i].value);
    for (size_t i = 0; i < g->n_metrics; i++)
        schedule(w, g->metric[i].node);
    for (size_t i = 0; i < g->n_outputs; i++)
        schedule(w, g->output[i].node);
    for (size_t t = 0; t < g->spec.n_tables; t++)
        if (g->table_grad[t] >= 0)
            schedule(w, g->table_grad[t]);
    return 0;
}

/* --- gradients into the flat array -------------------------------------------------------------
 */
static bool is_part_of_weight(const struct lh_def *d)
{
    return d->op == LH_OP_LINEAR_DW && d->cols < d->j;
}

/* The first product that goes into a gradient overwrites, the others add; where products go into
 * some columns of it, it is cleared beforehand and all add. After the last it is final. */
static int finish_gradients(struct planner *w)
{
    struct lh_graph *g = w->g;
    struct lh_plan *p = w->p;
    size_t *final;
    unsigned char *cleared;
    LH_TRY(LH_NEW_ARRAY(&final, g->n_params + 1, "steps of gradients"));
    int rc = LH_NEW_ARRAY(&cleared, g->n_params + 1, "parts of gradients");
    if (rc < 0) {
        lh_mem_free(final);
        return rc;
    }
    for (size_t t = 0; t < p->n_steps; t++)
        if (is_part_of_weight(&g->node[p->step[t].node]))
            cleared[g->node[p->step[t].node].weight] = 1;
    for (size_t t = 0; t < p->n_steps; t++) {
        struct lh_step *s = &p->step[t];
        const struct lh_def *d = &g->node[s->node];
        if (!s->backward || !lh_graph_has_effect(d))
            continue;
        if (d->op == LH_OP_LINEAR_DW) {
            s->weight_adds = final[d->weight] != 0 || cleared[d->weight];
            final[d->weight] = t + 1;
        } else {
            s->bias_adds = final[d->bias] != 0;
            final[d->bias] = t + 1;
        }
    }
    for (size_t t = 0; t < p->n_steps; t++) {
        p->step[t].ready = (uint32_t)p->n_ready;
        for (size_t i = 0; i < g->n_params; i++)
            if (final[i] == t + 1)
                p->ready[p->n_ready++] = (uint32_t)i;
        p->step[t].n_ready = (uint32_t)p->n_ready - p->step[t].ready;
    }
    lh_mem_free(final);
    size_t at = 0;
    for (size_t i = 0; i < g->n_params; i++) {
        const struct lh_param *q = &g->param[i];
        if (!q->trained || cleared[i])
            continue;
        if (q->offset > at)
            p->zero[p->n_zero++] = (struct lh_range){at, q->offset - at};
        at = q->offset + q->rows * q->cols;
    }
    if (g->flat_size > at)
        p->zero[p->n_zero++] = (struct lh_range){at, g->flat_size - at};
    lh_mem_free(cleared);
    return 0;
}

/* --- memory ------------------------------------------------------------------------------------
 */
static int32_t new_piece(struct planner *w, const struct lh_def *d, size_t from, size_t to)
{
    size_t n = (d->rows * d->cols + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    w->life[w->n_lives] = (struct life){.elements = n, .from = from, .to = to};
    return (int32_t)w->n_lives++;
}

/* The piece of memory of an input that the result of step t may take over; -1: none. */
static int32_t taken_over(const struct planner *w, const struct lh_def *d, size_t t)
{
    const struct lh_graph *g = w->g;
    for (uint32_t k = 0; k < d->n_in; k++) {
        int32_t in = d->in[k];
        const struct lh_def *x = &g->node[in];
        bool ok = (in_place[d->op] & LH_OP_IN(k)) && w->last[in] == t && runs(x) &&
                  x->rows * x->cols == d->rows * d->cols;
        for (uint32_t j = 0; j < d->n_in; j++) /* never under an input that is read across */
            ok = ok && (d->in[j] != in || (in_place[d->op] & LH_OP_IN(j)));
        if (ok)
            return w->piece[in];
    }
    return -1;
}

static void find_lives(struct planner *w)
{
    struct lh_graph *g = w->g;
    struct lh_plan *p = w->p;
    for (size_t t = 0; t < p->n_steps; t++) {
        const struct lh_def *d = &g->node[p->step[t].node];
        w->last[p->step[t].node] = t;
        for (uint32_t k = 0; k < d->n_in; k++)
            w->last[d->in[k]] = t;
    }
    /* what the caller reads lives to the end and is never written over */
    for (size_t i = 0; i < g->n_losses; i++)
        w->last[g->loss[i].value] = p->n_steps;
    for (size_t i = 0; i < g->n_metrics; i++)
        w->last[g->metric[i].node] = p->n_steps;
    for (size_t i = 0; i < g->n_outputs; i++)
        w->last[g->output[i].node] = p->n_steps;
    for (size_t t = 0; t < g->spec.n_tables; t++)
        if (g->table_grad[t] >= 0)
            w->last[g->table_grad[t]] = p->n_steps;

    for (size_t n = 0; n < g->n_nodes; n++) {
        w->piece[n] = -1;
        const struct lh_def *d = &g->node[n];
        /* inputs and constants keep their contents between runs */
        if (w->done[n] && !runs(d) && d->op != LH_OP_STOP)
            w->piece[n] = new_piece(w, d, 0, p->n_steps);
    }
    for (size_t t = 0; t < p->n_steps; t++) {
        int32_t n = p->step[t].node;
        const struct lh_def *d = &g->node[n];
        if (!has_value(d))
            continue;
        w->piece[n] = taken_over(w, d, t);
        if (w->piece[n] < 0)
            w->piece[n] = new_piece(w, d, t, w->last[n]);
        else
            w->life[w->piece[n]].to = w->last[n];
    }
}

static int larger_first(const void *a, const void *b)
{
    const struct life *x = *(struct life *const *)a, *y = *(struct life *const *)b;
    if (x->elements != y->elements)
        return x->elements > y->elements ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* First fit: the lowest offset at which no piece that lives at the same time lies. */
static int place(struct planner *w)
{
    struct life **by_size, **placed;
    LH_TRY(LH_NEW_ARRAY(&by_size, 2 * w->n_lives + 1, "a memory plan"));
    placed = by_size + w->n_lives; /* ordered by offset */
    for (size_t i = 0; i < w->n_lives; i++)
        by_size[i] = &w->life[i];
    qsort(by_size, w->n_lives, sizeof(struct life *), larger_first);
    size_t top = 0;
    for (size_t i = 0; i < w->n_lives; i++) {
        struct life *x = by_size[i];
        size_t at = 0;
        for (size_t k = 0; k < i; k++) {
            const struct life *y = placed[k];
            if (y->from > x->to || x->from > y->to)
                continue;
            if (y->offset >= at + x->elements)
                break;
            at = y->offset + y->elements > at ? y->offset + y->elements : at;
        }
        x->offset = at;
        top = at + x->elements > top ? at + x->elements : top;
        size_t k = i;
        for (; k > 0 && placed[k - 1]->offset > at; k--)
            placed[k] = placed[k - 1];
        placed[k] = x;
    }
    w->p->arena = top;
    lh_mem_free(by_size);
    return 0;
}

/* --- whole ---------------------------------------------------------------------------------------
 */
static int check_params(struct planner *w)
{
    struct lh_graph *g = w->g;
    for (size_t i = 0; i < g->n_params; i++) {
        bool used = false;
        for (size_t n = 0; n < g->n_forward && !used; n++)
            used = w->done[n] && g->node[n].op == LH_OP_LINEAR &&
                   (g->node[n].weight == (int32_t)i || g->node[n].bias == (int32_t)i);
        if (!used)
            return lh_err_set(LH_ECONFIG,
                              "parameter '%s': no loss, metric or output uses it; remove it",
                              g->param[i].name);
    }
    return 0;
}

static void count(struct planner *w)
{
    struct lh_plan *p = w->p;
    for (size_t t = 0; t < p->n_steps; t++) {
        uint64_t f = flops(w->g, &w->g->node[p->step[t].node]);
        if (p->step[t].backward)
            p->stats.flops_backward += f;
        else
            p->stats.flops_forward += f;
    }
    p->stats.nodes = p->n_steps;
    p->stats.arena_bytes = p->arena * sizeof(lh_real);
}

static int alloc(struct planner *w)
{
    size_t n = w->g->n_nodes, n_params = w->g->n_params;
    struct lh_plan *p = w->p;
    LH_TRY(LH_NEW_ARRAY(&p->same, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&p->offset, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&p->step, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&p->ready, n_params, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&p->zero, n_params + 1, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&w->done, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&w->mark, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&w->stack, (LH_OP_INPUTS + 1) * n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&w->last, n, "a plan"));
    LH_TRY(LH_NEW_ARRAY(&w->piece, n, "a plan"));
    return LH_NEW_ARRAY(&w->life, n, "a plan");
}

static int fill(struct planner *w)
{
    struct lh_graph *g = w->g;
    struct lh_plan *p = w->p;
    LH_TRY(unify(g, p->same));
    for (size_t i = 0; i < g->n_losses; i++)
        g->loss[i].value = p->same[g->loss[i].value];
    for (size_t i = 0; i < g->n_metrics; i++)
        g->metric[i].node = p->same[g->metric[i].node];
    for (size_t i = 0; i < g->n_outputs; i++)
        g->output[i].node = p->same[g->output[i].node];
    for (size_t t = 0; t < g->spec.n_tables; t++)
        if (g->table_grad[t] >= 0)
            g->table_grad[t] = p->same[g->table_grad[t]];
    LH_TRY(order(w));
    LH_TRY(check_params(w));
    LH_TRY(finish_gradients(w));
    find_lives(w);
    LH_TRY(place(w));
    for (size_t n = 0; n < g->n_nodes; n++)
        p->offset[n] = w->piece[n] < 0 ? NO_MEMORY : w->life[w->piece[n]].offset;
    count(w);
    return 0;
}

int lh_plan_make(struct lh_graph *g)
{
    struct planner w = {.g = g, .p = &g->plan};
    int rc = alloc(&w);
    if (rc == 0)
        rc = fill(&w);
    lh_mem_free(w.done);
    lh_mem_free(w.mark);
    lh_mem_free(w.stack);
    lh_mem_free(w.last);
    lh_mem_free(w.piece);
    lh_mem_free(w.life);
    return rc;
}

void lh_plan_fini(struct lh_plan *p)
{
    lh_mem_free(p->same);
    lh_mem_free(p->offset);
    lh_mem_free(p->step);
    lh_mem_free(p->ready);
    lh_mem_free(p->zero);
    memset(p, 0, sizeof *p);
}
