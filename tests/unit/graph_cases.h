/* One table of operators for two tests: test_operators.c holds values in float against the naive
 * references here, test_grad.c holds gradients in double against central differences. To add an
 * operator: a builder, a reference, a line in CASES. */
#pragma once

#include "common/graph.h"

#include <math.h>

#define CASE_ROWS 6
#define CASE_HIGH 3

struct case_args {
    const double *x[3]; /* values of the arguments, [rows, cols[k]] */
    const size_t *cols;
    size_t rows;
    const double *weight, *bias; /* of the layer a case makes; else NULL */
};

struct graph_case {
    const char *name;
    size_t n_args, cols[3];
    lh_node (*build)(struct lh_graph *g, const lh_node *x);
    void (*reference)(const struct case_args *a, double *out);
    double lo, hi; /* of the arguments; both 0: unbounded */
    bool no_gradient;
};

/* --- element by element ------------------------------------------------------------------------
 */
#define EACH(name, call, expression)                                                               \
    static lh_node build_##name(struct lh_graph *g, const lh_node *x)                              \
    {                                                                                              \
        return call;                                                                               \
    }                                                                                              \
    static void reference_##name(const struct case_args *c, double *out)                           \
    {                                                                                              \
        for (size_t i = 0; i < c->rows * c->cols[0]; i++) {                                        \
            double a = c->x[0][i], b = c->cols[1] ? c->x[1][i] : 0,                                \
                   d = c->cols[2] ? c->x[2][i] : 0;                                                \
            (void)b;                                                                               \
            (void)d;                                                                               \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }

EACH(add, lh_add(g, x[0], x[1]), a + b)
EACH(sub, lh_sub(g, x[0], x[1]), a - b)
EACH(mul, lh_mul(g, x[0], x[1]), a *b)
EACH(mul_self, lh_mul(g, x[0], x[0]), a *a)
EACH(div, lh_div(g, x[0], x[1]), a / b)
EACH(min, lh_min(g, x[0], x[1]), fmin(a, b))
EACH(max, lh_max(g, x[0], x[1]), fmax(a, b))
EACH(affine, lh_affine(g, x[0], -1.5, 0.25), -1.5 * a + 0.25)
EACH(neg, lh_neg(g, x[0]), -a)
EACH(relu, lh_relu(g, x[0]), fmax(a, 0))
EACH(tanh, lh_tanh(g, x[0]), tanh(a))
EACH(sigmoid, lh_sigmoid(g, x[0]), 1 / (1 + exp(-a)))
EACH(exp, lh_exp(g, x[0]), exp(a))
EACH(log, lh_log(g, x[0]), log(a))
EACH(square, lh_square(g, x[0]), a *a)
EACH(abs, lh_abs(g, x[0]), fabs(a))
EACH(clamp, lh_clamp(g, x[0], -0.3, 0.4), fmin(fmax(a, -0.3), 0.4))
EACH(sample, lh_gauss_sample(g, (lh_gauss){x[0], x[1]}, x[2]), a + exp(b) * d)
EACH(chain, lh_exp(g, lh_tanh(g, lh_square(g, lh_neg(g, x[0])))), exp(tanh(a *a)))
EACH(scaled_sum, lh_add(g, lh_mul(g, x[0], x[1]), lh_sub(g, x[0], x[1])), a *b + a - b)

/* --- row by row --------------------------------------------------------------------------------
 */
#define ROWS(name, call, start, term, finish)                                                      \
    static lh_node build_##name(struct lh_graph *g, const lh_node *x)                              \
    {                                                                                              \
        return call;                                                                               \
    }                                                                                              \
    static void reference_##name(const struct case_args *c, double *out)                           \
    {                                                                                              \
        for (size_t i = 0; i < c->rows; i++) {                                                     \
            double s = start;                                                                      \
            for (size_t j = 0; j < c->cols[0]; j++) {                                              \
                double a = c->x[0][i * c->cols[0] + j];                                            \
                double b = c->cols[1] ? c->x[1][i * c->cols[0] + j] : 0;                           \
                double d = c->cols[2] ? c->x[2][i * c->cols[0] + j] : 0;                           \
                (void)b;                                                                           \
                (void)d;                                                                           \
                s += (term);                                                                       \
            }                                                                                      \
            out[i] = (finish);                                                                     \
        }                                                                                          \
    }

ROWS(row_sum, lh_row_sum(g, x[0]), 0, a, s)
ROWS(row_norm, lh_row_norm(g, x[0]), 0, a *a, sqrt(s))
ROWS(sqdist, lh_sqdist(g, x[0], x[1]), 0, (a - b) * (a - b), s)
ROWS(kl, lh_gauss_kl(g, (lh_gauss){x[0], x[1]}), 0, 0.5 * (a * a + exp(2 * b) - 1) - b, s)
ROWS(nll, lh_gaussian_nll(g, x[0], x[1], x[2]), 0,
     0.5 * (a - b) * (a - b) / exp(2 * d) + d + 0.5 * log(2 * M_PI), s)

/* The class of row i is i mod 4; a constant row's class comes from the cases' own input. */
static lh_node build_cross_entropy(struct lh_graph *g, const lh_node *x)
{
    return lh_softmax_cross_entropy(g, x[0], lh_input(g, LH_REWARD_CLASS));
}

static void reference_cross_entropy(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++) {
        double s = 0;
        for (size_t j = 0; j < c->cols[0]; j++)
            s += exp(c->x[0][i * c->cols[0] + j]);
        out[i] = log(s) - c->x[0][i * c->cols[0] + i % c->cols[0]];
    }
}

/* --- columns and rows --------------------------------------------------------------------------
 */
static lh_node build_concat(struct lh_graph *g, const lh_node *x)
{
    return lh_concat(g, x[0], x[1]);
}

static void reference_concat(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++)
        for (size_t k = 0; k < 3; k++)
            for (size_t j = 0; j < c->cols[k]; j++)
                *out++ = c->x[k][i * c->cols[k] + j];
}

static lh_node build_concat3(struct lh_graph *g, const lh_node *x)
{
    return lh_concat3(g, x[0], x[1], x[2]);
}

static lh_node build_slice(struct lh_graph *g, const lh_node *x)
{
    return lh_slice(g, x[0], 1, 2);
}

static void reference_slice(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++)
        for (size_t j = 1; j < 3; j++)
            *out++ = c->x[0][i * c->cols[0] + j];
}

/* Overlapping, touching and missing columns of one matrix. */
static lh_node build_slices(struct lh_graph *g, const lh_node *x)
{
    return lh_mul(g, lh_slice(g, x[0], 0, 2),
                  lh_add(g, lh_slice(g, x[0], 1, 2), lh_slice(g, x[0], 3, 2)));
}

static void reference_slices(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++)
        for (size_t j = 0; j < 2; j++) {
            const double *r = c->x[0] + i * c->cols[0];
            *out++ = r[j] * (r[1 + j] + r[3 + j]);
        }
}

/* A slice across the border of two parts of a concat, one of which nobody trains. */
static lh_node build_across(struct lh_graph *g, const lh_node *x)
{
    lh_node c = lh_concat3(g, x[0], x[1], lh_constant(g, CASE_ROWS, 2, 0.5));
    return lh_mul(g, lh_slice(g, c, 1, 3),
                  lh_slice(g, c, 2, 3)); /* the last cuts an untrained part */
}

static void reference_across(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++) {
        double r[6] = {
            c->x[0][2 * i], c->x[0][2 * i + 1], c->x[1][2 * i], c->x[1][2 * i + 1], 0.5, 0.5};
        for (size_t j = 0; j < 3; j++)
            *out++ = r[1 + j] * r[2 + j];
    }
}

/* Row i of the result is rows i mod 4, none, and 4 - i mod 4 of x, whose row 5 nobody names. */
static lh_node build_lookup(struct lh_graph *g, const lh_node *x)
{
    lh_node index = lh_input(g, LH_REWARD_CLASS); /* i mod 4 */
    lh_node none = lh_constant(g, CASE_ROWS, 1, -1);
    return lh_lookup(g, x[0], lh_concat3(g, index, none, lh_affine(g, index, -1, 4)));
}

static void reference_lookup(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++)
        for (size_t k = 0; k < 3; k++)
            for (size_t j = 0; j < c->cols[0]; j++)
                *out++ = k == 1 ? 0 : c->x[0][(k ? 4 - i % 4 : i % 4) * c->cols[0] + j];
}

static lh_node build_repeat(struct lh_graph *g, const lh_node *x)
{
    return lh_repeat(g, x[0], 3);
}

static void reference_repeat(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++)
        for (size_t k = 0; k < 3; k++)
            for (size_t j = 0; j < c->cols[0]; j++)
                *out++ = c->x[0][i * c->cols[0] + j];
}

static lh_node build_reshape(struct lh_graph *g, const lh_node *x)
{
    return lh_tanh(g, lh_reshape(g, lh_square(g, x[0]), 2));
}

static void reference_reshape(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows * c->cols[0]; i++)
        out[i] = tanh(c->x[0][i] * c->x[0][i]);
}

static lh_node build_select_best(struct lh_graph *g, const lh_node *x)
{
    return lh_repeat(g, lh_select_best(g, x[0], x[1], 3), 3);
}

static void reference_select_best(const struct case_args *c, double *out)
{
    for (size_t i = 0; i < c->rows; i++) {
        size_t best = i / 3 * 3;
        for (size_t k = best + 1; k < i / 3 * 3 + 3; k++)
            best = c->x[1][k] > c->x[1][best] ? k : best;
        for (size_t j = 0; j < c->cols[0]; j++)
            *out++ = c->x[0][best * c->cols[0] + j];
    }
}

/* --- layers ------------------------------------------------------------------------------------
 */
#define LAYER_OUT 4

#define LAYER(name, use, prefix, out, act, f)                                                      \
    static lh_node build_##name(struct lh_graph *g, const lh_node *x)                              \
    {                                                                                              \
        return lh_linear(g, use, prefix, x[0], out, act);                                          \
    }                                                                                              \
    static void reference_##name(const struct case_args *c, double *y)                             \
    {                                                                                              \
        for (size_t i = 0; i < c->rows; i++)                                                       \
            for (size_t o = 0; o < out; o++) {                                                     \
                double z = c->bias[o];                                                             \
                for (size_t j = 0; j < c->cols[0]; j++)                                            \
                    z += c->weight[o * c->cols[0] + j] * c->x[0][i * c->cols[0] + j];              \
                *y++ = f;                                                                          \
            }                                                                                      \
    }

LAYER(linear, LH_LIVE, "x.net", LAYER_OUT, LH_LINEAR, z)
LAYER(linear_relu, LH_LIVE, "x.net", LAYER_OUT, LH_RELU, fmax(z, 0))
LAYER(linear_tanh, LH_LIVE, "x.net", LAYER_OUT, LH_TANH, tanh(z))
LAYER(linear_one, LH_LIVE, "x.net", 1, LH_LINEAR, z)
LAYER(linear_one_tanh, LH_LIVE, "x.net", 1, LH_TANH, tanh(z))
LAYER(frozen, LH_FROZEN, "f.net", LAYER_OUT, LH_RELU, fmax(z, 0))
LAYER(frozen_one, LH_FROZEN, "f.net", 1, LH_LINEAR, z)
LAYER(target, LH_TARGET, "f.net", LAYER_OUT, LH_TANH, tanh(z))

#define CASE(name, ...)                                                                            \
    {                                                                                              \
#name, __VA_ARGS__, build_##name, reference_##name, 0, 0, false                            \
    }
#define CASE_IN(name, lo, hi, ...)                                                                 \
    {                                                                                              \
#name, __VA_ARGS__, build_##name, reference_##name, lo, hi, false                          \
    }

static const struct graph_case CASES[] = {
    CASE(add, 2, {5, 5}),
    CASE(sub, 2, {5, 5}),
    CASE(mul, 2, {5, 5}),
    CASE(mul_self, 1, {5}),
    CASE_IN(div, 0.5, 2, 2, {5, 5}),
    CASE(min, 2, {5, 5}),
    CASE(max, 2, {5, 5}),
    CASE(affine, 1, {5}),
    CASE(neg, 1, {5}),
    CASE(relu, 1, {5}),
    CASE(tanh, 1, {5}),
    CASE(sigmoid, 1, {5}),
    CASE(exp, 1, {5}),
    CASE_IN(log, 0.1, 5, 1, {5}),
    CASE(square, 1, {5}),
    CASE(abs, 1, {5}),
    CASE(clamp, 1, {5}),
    CASE(sample, 3, {5, 5, 5}),
    CASE(chain, 1, {5}),
    CASE(scaled_sum, 2, {5, 5}),
    CASE(row_sum, 1, {7}),
    CASE(row_norm, 1, {7}),
    CASE(sqdist, 2, {7, 7}),
    CASE_IN(kl, -1.2, 1.2, 2, {7, 7}),
    CASE_IN(nll, -1.2, 1.2, 3, {7, 7, 7}),
    CASE(cross_entropy, 1, {4}),
    CASE(concat, 2, {2, 3}),
    {"concat3", 3, {2, 1, 3}, build_concat3, reference_concat, 0, 0, false},
    CASE(slice, 1, {5}),
    CASE(slices, 1, {6}),
    CASE(across, 2, {2, 2}),
    CASE(lookup, 1, {4}),
    CASE(repeat, 1, {3}),
    CASE(reshape, 1, {6}),
    CASE(linear, 1, {19}),
    CASE(linear_relu, 1, {5}),
    CASE(linear_tanh, 1, {5}),
    CASE(linear_one, 1, {19}),
    CASE(linear_one_tanh, 1, {1}),
    CASE(frozen, 1, {5}),
    CASE(frozen_one, 1, {5}),
    CASE(target, 1, {5}),
    {"select_best", 2, {3, 1}, build_select_best, reference_select_best, 0, 0, true},
};

#define N_CASES (sizeof CASES / sizeof *CASES)

/* The arguments: layers x0, x1, x2 over the state, squeezed between lo and hi where a case asks. */
static void case_arguments(struct lh_graph *g, const struct graph_case *c, lh_node x[3])
{
    static const char *const names[] = {"x0", "x1", "x2"};
    lh_node s = lh_input(g, LH_STATE_HIGH);
    for (size_t k = 0; k < c->n_args; k++) {
        x[k] = lh_linear(g, LH_LIVE, names[k], s, c->cols[k], LH_LINEAR);
        if (c->lo != c->hi)
            x[k] = lh_affine(g, lh_sigmoid(g, x[k]), c->hi - c->lo, c->lo);
    }
}

static const struct lh_graph_spec case_spec = {.rows = CASE_ROWS,
                                               .dims = {.high = CASE_HIGH, .low = 2, .action = 2}};

/* Values in about [-1.5, 1.5], away from each other and from 0. */
static lh_real case_value(size_t seed, size_t i)
{
    struct lh_rng_at at = {.seed = seed, .purpose = 77};
    return (lh_real)(3 * lh_rng_uniform1(&at, i) - 1.5);
}
