/* Diagonal Gaussians: sampling, divergence from N(0, 1), likelihood, and their gradients. s is the
 * logarithm of the standard deviation. */
#include "common/op_internal.h"
#include "common/vecmath.h"

#define HALF_LOG_2_PI 0.91893853320467274178

void lh_op_gauss_sample(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->rows * c->def->cols;
    const lh_real *m = c->in[0], *s = c->in[1], *e = c->in[2];
    lh_real *out = c->out;
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        out[i] = m[i] + lh_vecmath_exp(s[i]) * e[i];
}

void lh_op_gauss_sample_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->rows * c->def->cols;
    const lh_real *dy = c->in[0], *s = c->in[1], *e = c->in[2];
    lh_real *out = c->out;
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        out[i] = dy[i] * (lh_vecmath_exp(s[i]) * e[i]);
}

/* KL = sum_j (m^2 + exp(2 s) - 1) / 2 - s. */
void lh_op_gauss_kl(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *m = c->in[0] + i * n, *s = c->in[1] + i * n;
        double sum;
        LH_OP_SUM(n, sum, (m[j] * m[j] + lh_vecmath_exp(2 * s[j]) - 1) / 2 - s[j]);
        c->out[i] = (lh_real)sum;
    }
}

void lh_op_gauss_kl_grad_std(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = c->in[0][i], *s = c->in[1] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * (lh_vecmath_exp(2 * s[j]) - 1);
    }
}

static inline lh_real half_square(lh_real z)
{
    return z * z / 2;
}

/* NLL = sum_j ((x - m) exp(-s))^2 / 2 + s + log(2 pi) / 2. */
void lh_op_gauss_nll(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *x = c->in[0] + i * n, *m = c->in[1] + i * n, *s = c->in[2] + i * n;
        double sum;
        LH_OP_SUM(n, sum, half_square((x[j] - m[j]) * lh_vecmath_exp(-s[j])) + s[j]);
        c->out[i] = (lh_real)(sum + (double)n * HALF_LOG_2_PI);
    }
}

void lh_op_gauss_nll_grad_mean(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = c->in[0][i];
        const lh_real *x = c->in[1] + i * n, *m = c->in[2] + i * n, *s = c->in[3] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * ((m[j] - x[j]) * lh_vecmath_exp(-2 * s[j]));
    }
}

void lh_op_gauss_nll_grad_std(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = c->in[0][i];
        const lh_real *x = c->in[1] + i * n, *m = c->in[2] + i * n, *s = c->in[3] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++) {
            lh_real z = (x[j] - m[j]) * lh_vecmath_exp(-s[j]);
            out[j] = g * (1 - z * z);
        }
    }
}
