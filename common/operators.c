/* Constructors of the operators: they check shapes and record a node. Linear layers, inputs and
 * noise are in graph.c. */
#include "common/graph.h"

#include "common/err.h"
#include "common/graph_internal.h"

#include <string.h>

static const lh_node none = {-1};

static void add_input(struct lh_def *d, lh_node x)
{
    d->in[d->n_in++] = x.id;
}

/* --- moving data ----------------------------------------------------------------------------- */
/* Appends x, or the parts of x if it is itself a concat and they fit. Parts without columns are
 * left out. */
static void append_parts(struct lh_graph *g, struct lh_def *d, lh_node x, size_t others)
{
    const struct lh_def *part = &g->node[x.id];
    if (part->op == LH_OP_CONCAT && d->n_in + part->n_in + others <= LH_OP_INPUTS) {
        memcpy(d->in + d->n_in, part->in, part->n_in * sizeof *d->in);
        d->n_in += part->n_in;
    } else if (part->cols > 0) {
        add_input(d, x);
    }
}

lh_node lh_concat(struct lh_graph *g, lh_node a, lh_node b)
{
    const struct lh_def *x = lh_graph_get(g, a, "lh_concat"), *y = lh_graph_get(g, b, "lh_concat");
    if (!x || !y)
        return none;
    if (x->rows != y->rows) {
        lh_graph_fail(g, LH_ECONFIG, "concat: %zu rows beside %zu", x->rows, y->rows);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_CONCAT, x->rows, x->cols + y->cols);
    append_parts(g, &d, a, 1);
    append_parts(g, &d, b, 0);
    if (d.n_in < 2) /* the other had no columns */
        return d.n_in ? (lh_node){d.in[0]} : a;
    return lh_graph_add(g, &d);
}

lh_node lh_concat3(struct lh_graph *g, lh_node a, lh_node b, lh_node c)
{
    return lh_concat(g, lh_concat(g, a, b), c);
}

lh_node lh_slice(struct lh_graph *g, lh_node x, size_t first, size_t cols)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_slice");
    if (!in)
        return none;
    if (cols == 0 || first > in->cols || cols > in->cols - first) {
        lh_graph_fail(g, LH_ECONFIG, "slice: columns %zu to %zu of a matrix that has %zu", first,
                      first + cols, in->cols);
        return none;
    }
    if (cols == in->cols)
        return x;
    if (in->op == LH_OP_CONCAT) { /* of one part: that part */
        size_t at = 0;
        for (uint32_t k = 0; k < in->n_in; k++) {
            if (at == first && g->node[in->in[k]].cols == cols)
                return (lh_node){in->in[k]};
            at += g->node[in->in[k]].cols;
        }
    }
    struct lh_def d = lh_graph_def(LH_OP_SLICE, in->rows, cols);
    add_input(&d, x);
    d.i = first;
    return lh_graph_add(g, &d);
}

lh_node lh_lookup(struct lh_graph *g, lh_node x, lh_node index)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_lookup"),
                        *at = lh_graph_get(g, index, "lh_lookup");
    if (!in || !at)
        return none;
    if (in->rows > 1u << 24) { /* beyond, a float is no whole number */
        lh_graph_fail(g, LH_ECONFIG, "lookup: %zu rows to choose from; at most 2^24", in->rows);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_LOOKUP, at->rows, at->cols * in->cols);
    add_input(&d, x);
    add_input(&d, index);
    return lh_graph_add(g, &d);
}

lh_node lh_repeat(struct lh_graph *g, lh_node x, size_t n)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_repeat");
    if (!in)
        return none;
    if (n == 0 || n > INT32_MAX) {
        lh_graph_fail(g, LH_ECONFIG, "repeat: %zu times", n);
        return none;
    }
    if (n == 1)
        return x;
    struct lh_def d = lh_graph_def(LH_OP_REPEAT, in->rows * n, in->cols);
    add_input(&d, x);
    d.i = n;
    return lh_graph_add(g, &d);
}

lh_node lh_reshape(struct lh_graph *g, lh_node x, size_t cols)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_reshape");
    if (!in)
        return none;
    if (cols == in->cols)
        return x;
    if (cols == 0 || in->rows * in->cols % cols != 0) {
        lh_graph_fail(g, LH_ECONFIG, "reshape: %zu x %zu elements do not make rows of %zu",
                      in->rows, in->cols, cols);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_RESHAPE, in->rows * in->cols / cols, cols);
    add_input(&d, x);
    return lh_graph_add(g, &d);
}

lh_node lh_select_best(struct lh_graph *g, lh_node x, lh_node score, size_t n)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_select_best"),
                        *s = lh_graph_get(g, score, "lh_select_best");
    if (!in || !s)
        return none;
    if (n == 0 || in->rows % n != 0 || s->rows != in->rows || s->cols != 1) {
        lh_graph_fail(g, LH_ECONFIG,
                      "select_best: groups of %zu from %zu rows with scores [%zu, %zu]", n,
                      in->rows, s->rows, s->cols);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_SELECT_BEST, in->rows / n, in->cols);
    add_input(&d, x);
    add_input(&d, score);
    d.i = n;
    return lh_graph_add(g, &d);
}

lh_node lh_stop(struct lh_graph *g, lh_node x)
{
    const struct lh_def *in = lh_graph_get(g, x, "lh_stop");
    if (!in)
        return none;
    if (in->op == LH_OP_STOP)
        return x;
    struct lh_def d = lh_graph_def(LH_OP_STOP, in->rows, in->cols);
    add_input(&d, x);
    return lh_graph_add(g, &d);
}

/* --- element by element ---------------------------------------------------------------------- */
static lh_node unary(struct lh_graph *g, enum lh_op op, lh_node x, double a, double b)
{
    const struct lh_def *in = lh_graph_get(g, x, lh_graph_op_names[op]);
    if (!in)
        return none;
    struct lh_def d = lh_graph_def(op, in->rows, in->cols);
    add_input(&d, x);
    d.a = a;
    d.b = b;
    return lh_graph_add(g, &d);
}

static bool same_shape(struct lh_graph *g, enum lh_op op, lh_node a, lh_node b)
{
    const char *name = lh_graph_op_names[op];
    const struct lh_def *x = lh_graph_get(g, a, name), *y = lh_graph_get(g, b, name);
    if (!x || !y)
        return false;
    if (x->rows == y->rows && x->cols == y->cols)
        return true;
    lh_graph_fail(g, LH_ECONFIG, "%s: a matrix of %zu x %zu with one of %zu x %zu", name, x->rows,
                  x->cols, y->rows, y->cols);
    return false;
}

static lh_node binary(struct lh_graph *g, enum lh_op op, lh_node a, lh_node b)
{
    if (!same_shape(g, op, a, b))
        return none;
    struct lh_def d = lh_graph_def(op, g->node[a.id].rows, g->node[a.id].cols);
    add_input(&d, a);
    add_input(&d, b);
    return lh_graph_add(g, &d);
}

lh_node lh_add(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_ADD, a, b);
}

lh_node lh_sub(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_SUB, a, b);
}

lh_node lh_mul(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_MUL, a, b);
}

lh_node lh_div(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_DIV, a, b);
}

lh_node lh_min(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_MIN, a, b);
}

lh_node lh_max(struct lh_graph *g, lh_node a, lh_node b)
{
    return binary(g, LH_OP_MAX, a, b);
}

lh_node lh_affine(struct lh_graph *g, lh_node x, double scale, double shift)
{
    if (scale == 1 && shift == 0)
        return x;
    return unary(g, LH_OP_AFFINE, x, scale, shift);
}

lh_node lh_neg(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_AFFINE, x, -1, 0);
}

lh_node lh_relu(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_RELU, x, 0, 0);
}

lh_node lh_tanh(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_TANH, x, 0, 0);
}

lh_node lh_sigmoid(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_SIGMOID, x, 0, 0);
}

lh_node lh_exp(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_EXP, x, 0, 0);
}

lh_node lh_log(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_LOG, x, 0, 0);
}

lh_node lh_square(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_SQUARE, x, 0, 0);
}

lh_node lh_abs(struct lh_graph *g, lh_node x)
{
    return unary(g, LH_OP_ABS, x, 0, 0);
}

lh_node lh_clamp(struct lh_graph *g, lh_node x, double lo, double hi)
{
    if (!(lo <= hi)) {
        if (!lh_graph_stuck(g))
            lh_graph_fail(g, LH_ECONFIG, "clamp: the lower bound %g is above the upper %g", lo, hi);
        return none;
    }
    return unary(g, LH_OP_CLAMP, x, lo, hi);
}

/* --- reductions ------------------------------------------------------------------------------ */
static lh_node per_row(struct lh_graph *g, enum lh_op op, size_t n, const lh_node *in)
{
    for (size_t k = 1; k < n; k++)
        if (!same_shape(g, op, in[0], in[k]))
            return none;
    const struct lh_def *x = lh_graph_get(g, in[0], lh_graph_op_names[op]);
    if (!x)
        return none;
    struct lh_def d = lh_graph_def(op, x->rows, 1);
    for (size_t k = 0; k < n; k++)
        add_input(&d, in[k]);
    return lh_graph_add(g, &d);
}

lh_node lh_row_sum(struct lh_graph *g, lh_node x)
{
    return per_row(g, LH_OP_ROW_SUM, 1, &x);
}

lh_node lh_row_norm(struct lh_graph *g, lh_node x)
{
    return per_row(g, LH_OP_ROW_NORM, 1, &x);
}

lh_node lh_sqdist(struct lh_graph *g, lh_node a, lh_node b)
{
    return per_row(g, LH_OP_SQDIST, 2, (lh_node[]){a, b});
}

lh_node lh_softmax_cross_entropy(struct lh_graph *g, lh_node logits, lh_node class_index)
{
    const struct lh_def *x = lh_graph_get(g, logits, "cross_entropy"),
                        *c = lh_graph_get(g, class_index, "cross_entropy");
    if (!x || !c)
        return none;
    if (c->rows != x->rows || c->cols != 1) {
        lh_graph_fail(g, LH_ECONFIG, "cross_entropy: logits [%zu, %zu] with classes [%zu, %zu]",
                      x->rows, x->cols, c->rows, c->cols);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_CROSS_ENTROPY, x->rows, 1);
    add_input(&d, logits);
    add_input(&d, class_index);
    return lh_graph_add(g, &d);
}

lh_node lh_mean(struct lh_graph *g, lh_node x)
{
    const struct lh_def *in = lh_graph_get(g, x, "mean");
    if (!in)
        return none;
    if (in->rows == 0 || in->rows % g->spec.rows != 0 || in->cols != 1) {
        lh_graph_fail(g, LH_ECONFIG,
                      "mean: a matrix of %zu x %zu; expected one column of %zu rows or a multiple",
                      in->rows, in->cols, g->spec.rows);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_MEAN, 1, 1);
    d.i = in->rows / g->spec.rows;
    add_input(&d, x);
    add_input(&d, lh_input(g, LH_ROW_WEIGHT));
    return lh_graph_add(g, &d);
}

/* --- Gaussians ------------------------------------------------------------------------------- */
lh_gauss lh_gauss_split(struct lh_graph *g, lh_node x, double lo, double hi)
{
    const lh_gauss bad = {none, none};
    const struct lh_def *in = lh_graph_get(g, x, "gauss_split");
    if (!in)
        return bad;
    size_t c = in->cols / 2;
    if (c == 0 || in->cols % 2 != 0) {
        lh_graph_fail(g, LH_ECONFIG, "gauss_split: %zu columns; expected an even number", in->cols);
        return bad;
    }
    lh_gauss q = {lh_slice(g, x, 0, c), lh_clamp(g, lh_slice(g, x, c, c), lo, hi)};
    return q.log_std.id < 0 ? bad : q;
}

lh_node lh_gauss_sample(struct lh_graph *g, lh_gauss q, lh_node noise)
{
    if (!same_shape(g, LH_OP_GAUSS_SAMPLE, q.mean, q.log_std) ||
        !same_shape(g, LH_OP_GAUSS_SAMPLE, q.mean, noise))
        return none;
    const struct lh_def *m = &g->node[q.mean.id];
    struct lh_def d = lh_graph_def(LH_OP_GAUSS_SAMPLE, m->rows, m->cols);
    add_input(&d, q.mean);
    add_input(&d, q.log_std);
    add_input(&d, noise);
    return lh_graph_add(g, &d);
}

lh_node lh_gauss_kl(struct lh_graph *g, lh_gauss q)
{
    return per_row(g, LH_OP_GAUSS_KL, 2, (lh_node[]){q.mean, q.log_std});
}

lh_node lh_gaussian_nll(struct lh_graph *g, lh_node x, lh_node mean, lh_node log_std)
{
    return per_row(g, LH_OP_GAUSS_NLL, 3, (lh_node[]){x, mean, log_std});
}
