/* Operators: the list of them, and what a kernel is given. Shared by the graph's modules only.
 *
 * An operator is one line of LH_OPS, one kernel in common/op_*.c, one constructor in operators.c
 * (unless only gradients use it) and one case in grad.c. */
#pragma once

#include "common/gemm.h"
#include "common/graph.h"

#define LH_OP_INPUTS 8 /* most inputs of an operator; a wider concat nests */

#define LH_OP_IN(k) (1u << (k))
#define LH_OP_ANY   (LH_OP_IN(0) | LH_OP_IN(1) | LH_OP_IN(2) | LH_OP_IN(3))

/* X(id, name, kernel is, inputs whose memory the result may take over if they die here) */
#define LH_OPS(X)                                                                                  \
    /* values that come from outside, or are only names of others */                               \
    X(INPUT, input, 0, 0)                                                                          \
    X(CONSTANT, constant, 0, 0)                                                                    \
    X(STOP, stop, 0, 0)                                                                            \
    X(NOISE, noise, 1, 0)                                                                          \
    /* forward */                                                                                  \
    X(LINEAR, linear, 1, LH_OP_IN(1)) /* x [, product with the columns before] */                  \
    X(CONCAT, concat, 1, 0)                                                                        \
    X(SLICE, slice, 1, 0)                                                                          \
    X(LOOKUP, lookup, 1, 0) /* x, index */                                                         \
    X(REPEAT, repeat, 1, 0)                                                                        \
    X(RESHAPE, reshape, 1, LH_OP_ANY)                                                              \
    X(SELECT_BEST, select_best, 1, 0)                                                              \
    X(ADD, add, 1, LH_OP_ANY)                                                                      \
    X(SUB, sub, 1, LH_OP_ANY)                                                                      \
    X(MUL, mul, 1, LH_OP_ANY)                                                                      \
    X(DIV, div, 1, LH_OP_ANY)                                                                      \
    X(MIN, min, 1, LH_OP_ANY)                                                                      \
    X(MAX, max, 1, LH_OP_ANY)                                                                      \
    X(AFFINE, affine, 1, LH_OP_ANY)                                                                \
    X(RELU, relu, 1, LH_OP_ANY)                                                                    \
    X(TANH, tanh, 1, LH_OP_ANY)                                                                    \
    X(SIGMOID, sigmoid, 1, LH_OP_ANY)                                                              \
    X(EXP, exp, 1, LH_OP_ANY)                                                                      \
    X(LOG, log, 1, LH_OP_ANY)                                                                      \
    X(SQUARE, square, 1, LH_OP_ANY)                                                                \
    X(ABS, abs, 1, LH_OP_ANY)                                                                      \
    X(CLAMP, clamp, 1, LH_OP_ANY)                                                                  \
    X(ROW_SUM, row_sum, 1, 0)                                                                      \
    X(ROW_NORM, row_norm, 1, 0)                                                                    \
    X(SQDIST, sqdist, 1, 0)                                                                        \
    X(MEAN, mean, 1, 0)                                                                            \
    X(CROSS_ENTROPY, cross_entropy, 1, 0)                                                          \
    X(GAUSS_NLL, gauss_nll, 1, 0)                                                                  \
    X(GAUSS_SAMPLE, gauss_sample, 1, LH_OP_ANY)                                                    \
    X(GAUSS_KL, gauss_kl, 1, 0)                                                                    \
    /* backward; g is the adjoint of a per-row value [R, 1], dy one of a matrix */                 \
    X(LINEAR_DX, linear_dx, 1, LH_OP_IN(1))     /* dz [, sum so far] */                            \
    X(LINEAR_DW, linear_dw, 1, 0)               /* dz, x; into the gradient of a weight */         \
    X(BIAS_GRAD, bias_grad, 1, 0)               /* dz; into the gradient of a bias */              \
    X(ACT_GRAD, act_grad, 1, LH_OP_ANY)         /* dy, y; and into the gradient of a bias */       \
    X(SIGMOID_GRAD, sigmoid_grad, 1, LH_OP_ANY) /* dy, y */                                        \
    X(SQUARE_GRAD, square_grad, 1, LH_OP_ANY)   /* dy, x */                                        \
    X(ABS_GRAD, abs_grad, 1, LH_OP_ANY)         /* dy, x */                                        \
    X(CLAMP_GRAD, clamp_grad, 1, LH_OP_ANY)     /* dy, x */                                        \
    X(DIV_GRAD, div_grad, 1, LH_OP_ANY)         /* dy, y, b: -dy y / b */                          \
    X(PICK_LE, pick_le, 1, LH_OP_ANY)           /* dy, a, b: dy where a <= b, else 0 */            \
    X(PICK_GT, pick_gt, 1, LH_OP_ANY)           /* dy, a, b: dy where a > b, else 0 */             \
    X(PAD, pad, 1, 0)                           /* x in zeros at column i */                       \
    X(GROUP_SUM, group_sum, 1, 0)               /* [R n, c] -> [R, c] */                           \
    X(LOOKUP_GRAD, lookup_grad, 1, 0)           /* dy, index; to all rows of x */                  \
    X(SPREAD, spread, 1, 0)                     /* g -> [R, c] */                                  \
    X(MUL_ROWS, mul_rows, 1, LH_OP_IN(1))       /* g, x: g_i x_ij */                               \
    X(NORM_GRAD, norm_grad, 1, LH_OP_IN(1))     /* g, x, |x| */                                    \
    X(SQDIST_GRAD, sqdist_grad, 1, LH_OP_IN(1) | LH_OP_IN(2)) /* g, a, b: to a */                  \
    X(MEAN_GRAD, mean_grad, 1, 0)                             /* g [1, 1], row weights */          \
    X(CROSS_ENTROPY_GRAD, cross_entropy_grad, 1, LH_OP_IN(1)) /* g, logits, class, value */        \
    X(GAUSS_NLL_GRAD_MEAN, gauss_nll_grad_mean, 1,                                                 \
      LH_OP_IN(1) | LH_OP_IN(2) | LH_OP_IN(3)) /* g, x, mean, log_std */                           \
    X(GAUSS_NLL_GRAD_STD, gauss_nll_grad_std, 1,                                                   \
      LH_OP_IN(1) | LH_OP_IN(2) | LH_OP_IN(3))              /* g, x, mean, log_std */              \
    X(GAUSS_SAMPLE_GRAD, gauss_sample_grad, 1, LH_OP_ANY)   /* dy, log_std, noise */               \
    X(GAUSS_KL_GRAD_STD, gauss_kl_grad_std, 1, LH_OP_IN(1)) /* g, log_std */

enum lh_op {
#define LH_OP_ENUM(id, name, kernel, in_place) LH_OP_##id,
    LH_OPS(LH_OP_ENUM)
#undef LH_OP_ENUM
        LH_OP_COUNT
};

/* A node as declared or derived. Attributes an operator does not use are 0 (or -1 for parameters),
 * so that equal computations are equal bytes apart from padding. */
struct lh_def {
    enum lh_op op;
    size_t rows, cols;
    int32_t in[LH_OP_INPUTS];
    uint32_t n_in;
    int32_t weight, bias;   /* parameters; -1: none */
    enum lh_use use;        /* LINEAR, LINEAR_DX */
    enum lh_activation act; /* LINEAR, ACT_GRAD */
    size_t i, j;            /* first column and columns of the whole (of a weight: LINEAR…);
                               repetitions; number of the input or noise */
    double a, b;            /* scale, shift; lo, hi; value */
};

/* What one run was given. */
struct lh_run {
    const lh_real *params, *targets; /* flat; where NULL, tensor by tensor: */
    const lh_real *const *param_at, *const *target_at;
    lh_real *grads;
    bool adds; /* to what is in grads */
    bool reuse;
    struct lh_rng_at at;
    const struct lh_gemm *gemm;
    struct lh_gemm_ahead *ahead; /* NULL: steps do not follow each other */
};

/* Columns of weights in the order in which products read them (lh_exec_reuse). */
struct lh_packed {
    lh_real *at;
    bool ready;
};

/* One step of an exec: a node with its memory. */
struct lh_call {
    void (*kernel)(const struct lh_call *c, const struct lh_run *run);
    const struct lh_def *def;
    lh_real *out;
    const lh_real *in[LH_OP_INPUTS];
    uint32_t in_cols[LH_OP_INPUTS];
    size_t in_rows;              /* of in[0] */
    size_t weight, bias;         /* offsets into a flat array */
    bool weight_adds, bias_adds; /* to what is there already, instead of overwriting it */
    bool backward;
    uint32_t ready, n_ready;    /* parameters whose gradients are final after this step */
    uint32_t purpose;           /* NOISE */
    struct lh_packed *packed;   /* LINEAR */
    const struct lh_call *next; /* LINEAR, LINEAR_DX, LINEAR_DW: the next of these; NULL: none */
    const lh_real **given;      /* NOISE: values instead of drawn ones, or NULL */
};

typedef void (*lh_op_kernel)(const struct lh_call *c, const struct lh_run *run);

/* Kernels. Those that may work in place accept out == in[k] exactly; nothing else overlaps. */
#define LH_OP_DECLARE(id, name, kernel, in_place)                                                  \
    void lh_op_##name(const struct lh_call *c, const struct lh_run *run);
LH_OPS(LH_OP_DECLARE)
#undef LH_OP_DECLARE

#define LH_OP_UNUSED(run) ((void)(run))

/* result = sum of `expression` over j = 0 .. n - 1, in double: terms are computed a strip at a
 * time, so that this vectorises, and added into eight sums, over j = 0, 8, 16, …, j = 1, 9, 17, …
 */
#define LH_OP_STRIP 64
#define LH_OP_SUM(n, result, expression)                                                           \
    do {                                                                                           \
        double sum_[8] = {0};                                                                      \
        for (size_t at_ = 0; at_ < (n); at_ += LH_OP_STRIP) {                                      \
            lh_real term_[LH_OP_STRIP];                                                            \
            const size_t strip_ = (n)-at_ < LH_OP_STRIP ? (n)-at_ : LH_OP_STRIP;                   \
            for (size_t l_ = 0; l_ < strip_; l_++) {                                               \
                const size_t j = at_ + l_;                                                         \
                term_[l_] = (expression);                                                          \
            }                                                                                      \
            for (size_t l_ = strip_; l_ % 8 != 0; l_++)                                            \
                term_[l_] = 0;                                                                     \
            for (size_t l_ = 0; l_ < strip_; l_ += 8)                                              \
                for (size_t q_ = 0; q_ < 8; q_++)                                                  \
                    sum_[q_] += (double)term_[l_ + q_];                                            \
        }                                                                                          \
        (result) = ((sum_[0] + sum_[4]) + (sum_[2] + sum_[6])) +                                   \
                   ((sum_[1] + sum_[5]) + (sum_[3] + sum_[7]));                                    \
    } while (0)
