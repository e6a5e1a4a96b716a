/* Operators that sum over columns, the mean over rows, and their gradients. */
#include "common/op_internal.h"
#include "common/vecmath.h"

#include <math.h>

void lh_op_row_sum(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *x = c->in[0] + i * n;
        double s;
        LH_OP_SUM(n, s, x[j]);
        c->out[i] = (lh_real)s;
    }
}

void lh_op_row_norm(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *x = c->in[0] + i * n;
        double s;
        LH_OP_SUM(n, s, x[j] * x[j]);
        c->out[i] = (lh_real)sqrt(s);
    }
}

void lh_op_sqdist(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *x = c->in[0] + i * n, *y = c->in[1] + i * n;
        double s;
        LH_OP_SUM(n, s, (x[j] - y[j]) * (x[j] - y[j]));
        c->out[i] = (lh_real)s;
    }
}

void lh_op_mean(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t copies = c->def->i;
    double s[4] = {0}; /* the value of a loss: products in double as well */
    for (size_t i = 0; i < c->in_rows; i++)
        s[i % 4] += (double)c->in[0][i] * (double)c->in[1][i / copies];
    *c->out = (lh_real)(((s[0] + s[1]) + (s[2] + s[3])) / (double)copies);
}

void lh_op_cross_entropy(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real *x = c->in[0] + i * n, class = c->in[1][i];
        if (!(class >= 0 && class < (lh_real)n)) { /* no class: the loss says so */
            c->out[i] = (lh_real)NAN;
            continue;
        }
        lh_real top = x[0];
        for (size_t j = 1; j < n; j++)
            top = x[j] > top ? x[j] : top;
        double s;
        LH_OP_SUM(n, s, lh_vecmath_exp(x[j] - top));
        c->out[i] = lh_vecmath_log((lh_real)s) + (top - x[(size_t) class]);
    }
}

/* --- gradients ---------------------------------------------------------------------------------
 */
void lh_op_spread(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++)
        for (size_t j = 0; j < n; j++)
            c->out[i * n + j] = c->in[0][i];
}

void lh_op_mul_rows(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = c->in[0][i], *x = c->in[1] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * x[j];
    }
}

void lh_op_norm_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real norm = c->in[2][i], g = norm == 0 ? 0 : c->in[0][i] / norm;
        const lh_real *x = c->in[1] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * x[j];
    }
}

void lh_op_sqdist_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = 2 * c->in[0][i], *x = c->in[1] + i * n, *y = c->in[2] + i * n;
        lh_real *out = c->out + i * n;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * (x[j] - y[j]);
    }
}

void lh_op_mean_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t copies = c->def->i;
    const lh_real g = *c->in[0] / (lh_real)copies;
    for (size_t i = 0; i < c->def->rows; i++)
        c->out[i] = g * c->in[1][i / copies];
}

/* softmax_j = exp(x_j - log sum), and the value is log sum - x_class. */
void lh_op_cross_entropy_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        const lh_real g = c->in[0][i], class = c->in[2][i], *x = c->in[1] + i * n;
        lh_real *out = c->out + i * n;
        bool valid = class >= 0 && class < (lh_real)n;
        size_t at = valid ? (size_t) class : 0;
        const lh_real log_sum = valid ? c->in[3][i] + x[at] : (lh_real)NAN;
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            out[j] = g * lh_vecmath_exp(x[j] - log_sum);
        out[at] -= g;
    }
}
