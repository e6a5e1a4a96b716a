/* Gradients, derived in one reverse sweep over the declared nodes.
 *
 * An adjoint of a node is kept per set of parameters that it still has to reach. A loss starts with
 * those of its parameters that its value depends on; on the way from a node to an input the set
 * shrinks to what that input can still reach, and where nothing is left the edge is not taken. So a
 * loss never leaks outside its patterns, losses that go the same way with the same set are added
 * before they go on, a frozen use costs only the gradient to its input and a leaf only that of its
 * weights.
 *
 * Of a concatenation only the columns are derived that some parameter lies behind. Derived nodes
 * that turn out to be of no use are dropped by plan.c. */
#include "common/graph_internal.h"
#include "common/mem.h"

#include <string.h>

#define EMPTY 0 /* the set with no parameters has this number */

struct part { /* one contribution to an adjoint, columns [first, first + cols) of the node */
    lh_node node;
    size_t first, cols;
    int32_t next;
};

struct adjoint {
    int32_t set;
    size_t first, cols; /* the columns of the node that are wanted */
    int32_t head, tail; /* parts */
    int32_t next;       /* of the same node */
};

struct sweep {
    struct lh_graph *g;
    size_t words;   /* of a set */
    uint64_t *bits; /* [n_sets, words], each set once */
    size_t n_sets, cap_sets;
    int32_t *reach; /* [n_forward] set of the parameters behind a node */
    int32_t *head;  /* [n_forward] adjoints of a node; -1: none */
    struct adjoint *adjoint;
    size_t n_adjoints, cap_adjoints;
    struct part *part;
    size_t n_parts, cap_parts;
};

/* --- sets of parameters ------------------------------------------------------------------------
 */
/* Space for one set behind the others: fill it, then intern it. */
static int scratch(struct sweep *s, uint64_t **out)
{
    LH_TRY(lh_mem_grow((void **)&s->bits, &s->cap_sets, s->n_sets + 1, s->words * sizeof *s->bits,
                       "sets of parameters"));
    *out = s->bits + s->n_sets * s->words;
    memset(*out, 0, s->words * sizeof **out);
    return 0;
}

static int32_t intern(struct sweep *s)
{
    const uint64_t *x = s->bits + s->n_sets * s->words;
    for (size_t k = 0; k < s->n_sets; k++)
        if (memcmp(s->bits + k * s->words, x, s->words * sizeof *x) == 0)
            return (int32_t)k;
    return (int32_t)s->n_sets++;
}

static bool has(const struct sweep *s, int32_t set, int32_t param)
{
    return param >= 0 && (s->bits[(size_t)set * s->words + (size_t)param / 64] >> (param % 64) & 1);
}

static void put(uint64_t *set, int32_t param)
{
    set[param / 64] |= UINT64_C(1) << (param % 64);
}

static int both(struct sweep *s, int32_t x, int32_t y, int32_t *out)
{
    uint64_t *z;
    LH_TRY(scratch(s, &z));
    for (size_t w = 0; w < s->words; w++)
        z[w] = s->bits[(size_t)x * s->words + w] & s->bits[(size_t)y * s->words + w];
    *out = intern(s);
    return 0;
}

/* Whether a gradient may pass from the result of an operator to its k-th input. */
static bool differentiable(const struct lh_def *d, uint32_t k)
{
    switch (d->op) {
    case LH_OP_STOP:
    case LH_OP_SELECT_BEST:
        return false;
    case LH_OP_CROSS_ENTROPY:
    case LH_OP_MEAN:
    case LH_OP_LOOKUP:
        return k == 0;
    default:
        return true;
    }
}

/* Rows of tables stand behind the parameters, as two more members a table: in a set that a node
 * reaches, DIRECT is a way to the rows without any layer, LEARNT one whose layer next to the rows
 * is live. A loss starts with LEARNT, and passing that layer it becomes DIRECT: so a table learns
 * through live uses only (graph.h, lh_graph_table), also those behind a frozen network. */
enum way { DIRECT, LEARNT, WAYS };

static int32_t table(const struct sweep *s, size_t t, enum way way)
{
    return (int32_t)(s->g->n_params + WAYS * t + (size_t)way);
}

static void remove_from(uint64_t *set, int32_t member)
{
    set[member / 64] &= ~(UINT64_C(1) << (member % 64));
}

/* What lies directly behind a layer is behind it by way of the layer. */
static void pass_layer(const struct sweep *s, const struct lh_def *layer, uint64_t *set)
{
    for (size_t t = 0; t < s->g->spec.n_tables; t++) {
        const int32_t direct = table(s, t, DIRECT);
        if (layer->use == LH_LIVE && (set[direct / 64] >> (direct % 64) & 1))
            put(set, table(s, t, LEARNT));
        remove_from(set, direct);
    }
}

static int find_reach(struct sweep *s)
{
    struct lh_graph *g = s->g;
    for (size_t n = 0; n < g->n_forward; n++) {
        const struct lh_def *d = &g->node[n];
        uint64_t *z;
        LH_TRY(scratch(s, &z));
        for (uint32_t k = 0; k < d->n_in; k++)
            if (differentiable(d, k))
                for (size_t w = 0; w < s->words; w++)
                    z[w] |= s->bits[(size_t)s->reach[d->in[k]] * s->words + w];
        if (d->op == LH_OP_LINEAR && d->use == LH_LIVE) {
            put(z, d->weight);
            if (d->bias >= 0)
                put(z, d->bias);
        }
        if (d->op == LH_OP_LINEAR)
            pass_layer(s, d, z);
        if (lh_graph_table_of(d) >= 0)
            put(z, table(s, (size_t)lh_graph_table_of(d), DIRECT));
        s->reach[n] = intern(s);
    }
    return 0;
}

/* --- adjoints ----------------------------------------------------------------------------------
 */
/* The columns of node n that lie before parameters of `set`: of a concat the span of such parts. */
static int wanted(struct sweep *s, int32_t n, int32_t set, size_t *first, size_t *cols)
{
    const struct lh_def *d = &s->g->node[n];
    *first = 0;
    *cols = d->cols;
    if (d->op != LH_OP_CONCAT)
        return 0;
    size_t at = 0, lo = d->cols, hi = 0;
    for (uint32_t k = 0; k < d->n_in; k++) {
        int32_t rest;
        LH_TRY(both(s, set, s->reach[d->in[k]], &rest));
        size_t c = s->g->node[d->in[k]].cols;
        if (rest != EMPTY) {
            lo = at < lo ? at : lo;
            hi = at + c;
        }
        at += c;
    }
    *first = lo;
    *cols = hi - lo;
    return 0;
}

/* The adjoint of node n that has to reach `set` (not empty), made at first mention. */
static int find_adjoint(struct sweep *s, int32_t n, int32_t set, int32_t *out)
{
    int32_t *link = &s->head[n];
    while (*link >= 0) {
        if (s->adjoint[*link].set == set) {
            *out = *link;
            return 0;
        }
        link = &s->adjoint[*link].next;
    }
    struct adjoint a = {.set = set, .head = -1, .tail = -1, .next = -1};
    LH_TRY(wanted(s, n, set, &a.first, &a.cols));
    *link = (int32_t)s->n_adjoints; /* before the array may move */
    LH_TRY(LH_GROW(&s->adjoint, &s->cap_adjoints, s->n_adjoints + 1, "adjoints"));
    s->adjoint[s->n_adjoints] = a;
    *out = (int32_t)s->n_adjoints++;
    return 0;
}

static lh_node make(struct lh_graph *g, enum lh_op op, size_t rows, size_t cols, size_t n,
                    const lh_node *in)
{
    struct lh_def d = lh_graph_def(op, rows, cols);
    for (size_t k = 0; k < n; k++)
        d.in[d.n_in++] = in[k].id;
    return lh_graph_add(g, &d);
}

/* As the shape of the first input. */
#define MAKE(op, ...)                                                                              \
    make_like(g, op, sizeof((lh_node[]){__VA_ARGS__}) / sizeof(lh_node), (lh_node[]){__VA_ARGS__})

static lh_node make_like(struct lh_graph *g, enum lh_op op, size_t n, const lh_node *in)
{
    if (in[0].id < 0)
        return in[0];
    return make(g, op, g->node[in[0].id].rows, g->node[in[0].id].cols, n, in);
}

static lh_node columns(struct lh_graph *g, lh_node x, size_t first, size_t cols)
{
    if (x.id < 0 || (first == 0 && cols == g->node[x.id].cols))
        return x;
    struct lh_def d = lh_graph_def(LH_OP_SLICE, g->node[x.id].rows, cols);
    d.in[d.n_in++] = x.id;
    d.i = first;
    return lh_graph_add(g, &d);
}

/* Adds `node`, which holds columns [first, first + cols) of a contribution, to an adjoint. */
static int add_part(struct sweep *s, int32_t adjoint, lh_node node, size_t first, size_t cols)
{
    struct adjoint *a = &s->adjoint[adjoint];
    size_t lo = first > a->first ? first : a->first, end = first + cols, a_end = a->first + a->cols;
    size_t hi = end < a_end ? end : a_end;
    if (lo >= hi)
        return 0;
    LH_TRY(LH_GROW(&s->part, &s->cap_parts, s->n_parts + 1, "parts of adjoints"));
    s->part[s->n_parts] = (struct part){
        .node = columns(s->g, node, lo - first, hi - lo), .first = lo, .cols = hi - lo, .next = -1};
    if (a->tail >= 0)
        s->part[a->tail].next = (int32_t)s->n_parts;
    else
        a->head = (int32_t)s->n_parts;
    a->tail = (int32_t)s->n_parts++;
    return 0;
}

/* Sum of two contributions. A product that is used nowhere else adds itself to the other. */
static lh_node sum(struct lh_graph *g, lh_node x, lh_node y)
{
    if (x.id < 0 || y.id < 0)
        return x.id < 0 ? x : y;
    for (int swap = 0; swap < 2; swap++) {
        lh_node product = swap ? x : y, other = swap ? y : x;
        struct lh_def d = g->node[product.id];
        if (d.op == LH_OP_LINEAR_DX && d.n_in == 1) {
            d.in[d.n_in++] = other.id;
            return lh_graph_add(g, &d);
        }
    }
    return MAKE(LH_OP_ADD, x, y);
}

/* Adds up the parts of an adjoint, in the order in which they came; parts of the same columns
 * first, then parts side by side. The result has the adjoint's columns. */
static lh_node total(struct sweep *s, const struct adjoint *a)
{
    struct lh_graph *g = s->g;
    lh_node whole = {-1};
    lh_node tile[LH_OP_INPUTS];
    size_t n_tiles = 0, covered = 0;
    bool tiles = true;
    /* parts of equal columns, joined into the first of them */
    for (int32_t p = a->head; p >= 0; p = s->part[p].next)
        for (int32_t q = p; s->part[p].node.id >= 0 && s->part[q].next >= 0;) {
            int32_t r = s->part[q].next;
            if (s->part[r].first == s->part[p].first && s->part[r].cols == s->part[p].cols) {
                s->part[p].node = sum(g, s->part[p].node, s->part[r].node);
                s->part[q].next = s->part[r].next;
            } else {
                q = r;
            }
        }
    if (a->head >= 0 && s->part[a->head].cols == a->cols && s->part[a->head].next < 0)
        return s->part[a->head].node;
    /* side by side without gap or overlap: one concat */
    while (tiles && covered < a->cols) {
        tiles = false;
        for (int32_t p = a->head; p >= 0 && !tiles; p = s->part[p].next)
            if (s->part[p].first == a->first + covered && n_tiles < LH_OP_INPUTS) {
                tile[n_tiles++] = s->part[p].node;
                covered += s->part[p].cols;
                tiles = true;
            }
    }
    size_t n_parts = 0;
    for (int32_t p = a->head; p >= 0; p = s->part[p].next)
        n_parts++;
    if (covered == a->cols && n_tiles == n_parts && tile[0].id >= 0)
        return make(g, LH_OP_CONCAT, g->node[tile[0].id].rows, a->cols, n_tiles, tile);
    for (int32_t p = a->head; p >= 0; p = s->part[p].next) {
        lh_node x = s->part[p].node;
        if (x.id < 0)
            return x;
        if (s->part[p].cols != a->cols) {
            struct lh_def d = lh_graph_def(LH_OP_PAD, g->node[x.id].rows, a->cols);
            d.in[d.n_in++] = x.id;
            d.i = s->part[p].first - a->first;
            x = lh_graph_add(g, &d);
        }
        whole = p == a->head ? x : sum(g, whole, x);
    }
    return whole;
}

/* --- the chain rule, operator by operator ------------------------------------------------------
 */
struct at { /* where the sweep stands */
    struct sweep *s;
    int32_t set;
    struct lh_def d;
    lh_node y, dy; /* the node and its adjoint */
};

/* `set` and, of each table, the member `to` if `from` is in it already (WAYS: in any case). */
static int add_tables(struct sweep *s, int32_t set, enum way from, enum way to, int32_t *out)
{
    uint64_t *z;
    LH_TRY(scratch(s, &z));
    memcpy(z, s->bits + (size_t)set * s->words, s->words * sizeof *z);
    for (size_t t = 0; t < s->g->spec.n_tables; t++)
        if (from == WAYS || has(s, set, table(s, t, from)))
            put(z, table(s, t, to));
    *out = intern(s);
    return 0;
}

/* What of the set lies behind the k-th input; EMPTY: nothing to do. */
static int behind(const struct at *at, uint32_t k, int32_t *set)
{
    if (!differentiable(&at->d, k)) {
        *set = EMPTY;
        return 0;
    }
    int32_t sought = at->set;
    if (at->d.op == LH_OP_LINEAR && at->d.use == LH_LIVE)
        LH_TRY(add_tables(at->s, sought, LEARNT, DIRECT, &sought));
    return both(at->s, sought, at->s->reach[at->d.in[k]], set);
}

/* Contributes to the adjoint of the k-th input, columns from `first`. */
static int give_columns(const struct at *at, uint32_t k, lh_node dx, size_t first)
{
    int32_t set, adjoint;
    LH_TRY(behind(at, k, &set));
    if (set == EMPTY || dx.id < 0)
        return lh_graph_status(at->s->g);
    LH_TRY(find_adjoint(at->s, at->d.in[k], set, &adjoint));
    return add_part(at->s, adjoint, dx, first, at->s->g->node[dx.id].cols);
}

static int give(const struct at *at, uint32_t k, lh_node dx)
{
    return give_columns(at, k, dx, 0);
}

static lh_node in(const struct at *at, uint32_t k)
{
    return (lh_node){at->d.in[k]};
}

static lh_node scaled(struct lh_graph *g, lh_node x, double scale)
{
    return lh_affine(g, x, scale, 0);
}

/* g_i x_ij, or g_i spread over columns if x is no node. */
static lh_node rows_times(struct lh_graph *g, lh_node row, lh_node x)
{
    if (row.id < 0 || x.id < 0)
        return row.id < 0 ? row : x;
    return make(g, LH_OP_MUL_ROWS, g->node[x.id].rows, g->node[x.id].cols, 2, (lh_node[]){row, x});
}

/* A gradient operator whose first input is a per-row adjoint; shape of the second. */
static lh_node rows_op(struct lh_graph *g, enum lh_op op, size_t n, const lh_node *x)
{
    for (size_t k = 0; k < n; k++)
        if (x[k].id < 0)
            return x[k];
    return make(g, op, g->node[x[1].id].rows, g->node[x[1].id].cols, n, x);
}

/* Like `d`, an operator with the attributes of the forward node. */
static lh_node with_bounds(struct lh_graph *g, enum lh_op op, const struct lh_def *forward,
                           lh_node dy, lh_node x)
{
    struct lh_def d = lh_graph_def(op, forward->rows, forward->cols);
    d.in[d.n_in++] = dy.id;
    d.in[d.n_in++] = x.id;
    d.a = forward->a;
    d.b = forward->b;
    return lh_graph_add(g, &d);
}

static lh_node act_grad(struct lh_graph *g, lh_node dy, lh_node y, enum lh_activation act,
                        int32_t bias)
{
    struct lh_def d = lh_graph_def(LH_OP_ACT_GRAD, g->node[y.id].rows, g->node[y.id].cols);
    d.in[d.n_in++] = dy.id;
    d.in[d.n_in++] = y.id;
    d.act = act;
    d.bias = bias;
    return lh_graph_add(g, &d);
}

static int linear(const struct at *at)
{
    struct lh_graph *g = at->s->g;
    const struct lh_def *d = &at->d;
    bool live = d->use == LH_LIVE, bias = live && has(at->s, at->set, d->bias);
    lh_node dz = at->dy;
    if (d->act != LH_LINEAR) {
        dz = act_grad(g, dz, at->y, d->act, bias ? d->bias : -1);
    } else if (bias) {
        struct lh_def b = lh_graph_def(LH_OP_BIAS_GRAD, 1, d->cols);
        b.in[b.n_in++] = dz.id;
        b.bias = d->bias;
        lh_graph_add(g, &b);
    }
    if (dz.id < 0)
        return lh_graph_status(g);
    if (live && has(at->s, at->set, d->weight)) {
        struct lh_def w = lh_graph_def(LH_OP_LINEAR_DW, d->cols, g->node[d->in[0]].cols);
        w.in[w.n_in++] = dz.id;
        w.in[w.n_in++] = d->in[0];
        w.weight = d->weight;
        w.i = d->i;
        w.j = d->j;
        lh_graph_add(g, &w);
    }
    if (d->n_in > 1)
        LH_TRY(give(at, 1, dz));
    int32_t set, adjoint;
    LH_TRY(behind(at, 0, &set));
    if (set == EMPTY)
        return lh_graph_status(g);
    LH_TRY(find_adjoint(at->s, d->in[0], set, &adjoint));
    const struct adjoint *a = &at->s->adjoint[adjoint];
    struct lh_def x = lh_graph_def(LH_OP_LINEAR_DX, d->rows, a->cols);
    x.in[x.n_in++] = dz.id;
    x.weight = d->weight;
    x.use = d->use;
    x.i = d->i + a->first;
    x.j = d->j;
    lh_node dx = lh_graph_add(g, &x);
    return dx.id < 0 ? lh_graph_status(g) : add_part(at->s, adjoint, dx, x.i - d->i, x.cols);
}

static int concat(const struct at *at, const struct adjoint *a)
{
    size_t first = 0;
    for (uint32_t k = 0; k < at->d.n_in; k++) {
        size_t cols = at->s->g->node[at->d.in[k]].cols;
        int32_t set;
        LH_TRY(behind(at, k, &set));
        if (set != EMPTY)
            LH_TRY(give(at, k, columns(at->s->g, at->dy, first - a->first, cols)));
        first += cols;
    }
    return 0;
}

static int propagate(const struct at *at, const struct adjoint *a)
{
    struct lh_graph *g = at->s->g;
    const struct lh_def *d = &at->d;
    lh_node y = at->y, dy = at->dy;
    if (dy.id < 0)
        return lh_graph_status(g);
    lh_node p = d->n_in > 0 ? in(at, 0) : y, q = d->n_in > 1 ? in(at, 1) : y,
            r = d->n_in > 2 ? in(at, 2) : y;
    switch (d->op) {
    case LH_OP_LINEAR:
        return linear(at);
    case LH_OP_CONCAT:
        return concat(at, a);
    case LH_OP_SLICE:
        return give_columns(at, 0, dy, d->i);
    case LH_OP_REPEAT: {
        struct lh_def s = lh_graph_def(LH_OP_GROUP_SUM, d->rows / d->i, d->cols);
        s.in[s.n_in++] = dy.id;
        s.i = d->i;
        return give(at, 0, lh_graph_add(g, &s));
    }
    case LH_OP_RESHAPE:
        return give(at, 0, lh_reshape(g, dy, g->node[p.id].cols));
    case LH_OP_ADD:
        LH_TRY(give(at, 0, dy));
        return give(at, 1, dy);
    case LH_OP_SUB:
        LH_TRY(give(at, 0, dy));
        return give(at, 1, scaled(g, dy, -1));
    case LH_OP_MUL:
        LH_TRY(give(at, 0, MAKE(LH_OP_MUL, dy, q)));
        return give(at, 1, MAKE(LH_OP_MUL, dy, p));
    case LH_OP_DIV:
        LH_TRY(give(at, 0, MAKE(LH_OP_DIV, dy, q)));
        return give(at, 1, MAKE(LH_OP_DIV_GRAD, dy, y, q));
    case LH_OP_MIN: /* where a <= b the gradient goes to a */
        LH_TRY(give(at, 0, MAKE(LH_OP_PICK_LE, dy, p, q)));
        return give(at, 1, MAKE(LH_OP_PICK_GT, dy, p, q));
    case LH_OP_MAX: /* where a >= b the gradient goes to a */
        LH_TRY(give(at, 0, MAKE(LH_OP_PICK_LE, dy, q, p)));
        return give(at, 1, MAKE(LH_OP_PICK_GT, dy, q, p));
    case LH_OP_AFFINE:
        return give(at, 0, scaled(g, dy, d->a));
    case LH_OP_RELU:
        return give(at, 0, act_grad(g, dy, y, LH_RELU, -1));
    case LH_OP_TANH:
        return give(at, 0, act_grad(g, dy, y, LH_TANH, -1));
    case LH_OP_SIGMOID:
        return give(at, 0, MAKE(LH_OP_SIGMOID_GRAD, dy, y));
    case LH_OP_EXP:
        return give(at, 0, MAKE(LH_OP_MUL, dy, y));
    case LH_OP_LOG:
        return give(at, 0, MAKE(LH_OP_DIV, dy, p));
    case LH_OP_SQUARE:
        return give(at, 0, MAKE(LH_OP_SQUARE_GRAD, dy, p));
    case LH_OP_ABS:
        return give(at, 0, MAKE(LH_OP_ABS_GRAD, dy, p));
    case LH_OP_CLAMP:
        return give(at, 0, with_bounds(g, LH_OP_CLAMP_GRAD, d, dy, p));
    case LH_OP_ROW_SUM:
        return give(at, 0, make(g, LH_OP_SPREAD, d->rows, g->node[p.id].cols, 1, &dy));
    case LH_OP_ROW_NORM:
        return give(at, 0, rows_op(g, LH_OP_NORM_GRAD, 3, (lh_node[]){dy, p, y}));
    case LH_OP_SQDIST: {
        lh_node da = rows_op(g, LH_OP_SQDIST_GRAD, 3, (lh_node[]){dy, p, q});
        LH_TRY(give(at, 0, da));
        return give(at, 1, scaled(g, da, -1));
    }
    case LH_OP_MEAN: {
        struct lh_def m = lh_graph_def(LH_OP_MEAN_GRAD, g->spec.rows * d->i, 1);
        m.in[m.n_in++] = dy.id;
        m.in[m.n_in++] = q.id;
        m.i = d->i;
        return give(at, 0, lh_graph_add(g, &m));
    }
    case LH_OP_CROSS_ENTROPY:
        return give(at, 0, rows_op(g, LH_OP_CROSS_ENTROPY_GRAD, 4, (lh_node[]){dy, p, q, y}));
    case LH_OP_GAUSS_NLL: {
        lh_node dm = rows_op(g, LH_OP_GAUSS_NLL_GRAD_MEAN, 4, (lh_node[]){dy, p, q, r});
        LH_TRY(give(at, 0, scaled(g, dm, -1)));
        LH_TRY(give(at, 1, dm));
        return give(at, 2, rows_op(g, LH_OP_GAUSS_NLL_GRAD_STD, 4, (lh_node[]){dy, p, q, r}));
    }
    case LH_OP_GAUSS_SAMPLE:
        LH_TRY(give(at, 0, dy));
        LH_TRY(give(at, 1, MAKE(LH_OP_GAUSS_SAMPLE_GRAD, dy, q, r)));
        return give(at, 2, MAKE(LH_OP_MUL, dy, lh_exp(g, q)));
    case LH_OP_GAUSS_KL:
        LH_TRY(give(at, 0, rows_times(g, dy, p)));
        return give(at, 1, rows_op(g, LH_OP_GAUSS_KL_GRAD_STD, 2, (lh_node[]){dy, q}));
    case LH_OP_LOOKUP:
        return give(at, 0,
                    make(g, LH_OP_LOOKUP_GRAD, g->node[p.id].rows, g->node[p.id].cols, 2,
                         (lh_node[]){dy, q}));
    case LH_OP_INPUT:
        if (lh_graph_table_of(d) >= 0)
            g->table_grad[lh_graph_table_of(d)] = dy.id;
        return 0;
    default: /* noise, constants, and what no gradient passes */
        return 0;
    }
}

/* --- losses --------------------------------------------------------------------------------------
 */
static bool matches(const char *pattern, size_t n, const char *name)
{
    if (n > 0 && pattern[n - 1] == '*')
        return strncmp(pattern, name, n - 1) == 0;
    return strlen(name) == n && memcmp(pattern, name, n) == 0;
}

static int parameters_of(struct sweep *s, const struct lh_graph_loss *l, int32_t *out)
{
    struct lh_graph *g = s->g;
    uint64_t *z;
    LH_TRY(scratch(s, &z));
    const char *p = l->patterns;
    size_t n_patterns = 0;
    for (;;) {
        p += strspn(p, " ");
        size_t n = strcspn(p, " ");
        if (n == 0)
            break;
        bool any = false;
        for (size_t i = 0; i < g->n_params; i++)
            if (matches(p, n, g->param[i].name)) {
                put(z, (int32_t)i);
                any = true;
            }
        if (!any)
            return lh_err_set(LH_ECONFIG, "loss '%s': no parameter matches '%.*s'", l->name, (int)n,
                              p);
        p += n;
        n_patterns++;
    }
    if (n_patterns == 0)
        return lh_err_set(LH_ECONFIG, "loss '%s': names no parameters", l->name);
    *out = intern(s);
    return 0;
}

static int start(struct sweep *s, const struct lh_graph_loss *l)
{
    int32_t set, adjoint;
    LH_TRY(parameters_of(s, l, &set));
    LH_TRY(both(s, set, s->reach[l->value], &set));
    if (set == EMPTY)
        return lh_err_set(LH_ECONFIG, "loss '%s': does not depend on any of '%s'", l->name,
                          l->patterns);
    if (l->weight == 0)
        return 0;
    LH_TRY(add_tables(s, set, WAYS, LEARNT, &set));
    LH_TRY(both(s, set, s->reach[l->value], &set));
    struct lh_def one = lh_graph_def(LH_OP_CONSTANT, 1, 1);
    one.a = l->weight;
    lh_node dy = lh_graph_add(s->g, &one);
    if (dy.id < 0)
        return lh_graph_status(s->g);
    LH_TRY(find_adjoint(s, l->value, set, &adjoint));
    return add_part(s, adjoint, dy, 0, 1);
}

int lh_grad_derive(struct lh_graph *g)
{
    int rc = 0;
    struct sweep s = {.g = g, .words = (g->n_params + WAYS * g->spec.n_tables + 63) / 64};
    s.words += s.words == 0;
    uint64_t *none;
    LH_TRY_TO(done, scratch(&s, &none));
    intern(&s); /* the empty set is number 0 */
    LH_TRY_TO(done, LH_NEW_ARRAY(&s.reach, g->n_forward, "reach of nodes"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&s.head, g->n_forward, "adjoints of nodes"));
    memset(s.head, 0xff, g->n_forward * sizeof *s.head);
    LH_TRY_TO(done, find_reach(&s));
    for (size_t i = 0; i < g->n_losses; i++)
        LH_TRY_TO(done, start(&s, &g->loss[i]));
    for (int32_t n = (int32_t)g->n_forward - 1; n >= 0; n--)
        for (int32_t k = s.head[n]; k >= 0; k = s.adjoint[k].next) {
            struct adjoint a = s.adjoint[k];
            struct at at = {.s = &s, .set = a.set, .d = g->node[n], .y = {n}, .dy = total(&s, &a)};
            LH_TRY_TO(done, propagate(&at, &a));
        }
    for (size_t i = g->n_forward; i < g->n_nodes; i++)
        if (lh_graph_has_effect(&g->node[i])) {
            const struct lh_def *d = &g->node[i];
            g->param[d->op == LH_OP_LINEAR_DW ? d->weight : d->bias].trained = true;
        }
    rc = lh_graph_status(g);
done:
    lh_mem_free(s.bits);
    lh_mem_free(s.reach);
    lh_mem_free(s.head);
    lh_mem_free(s.adjoint);
    lh_mem_free(s.part);
    return rc;
}
