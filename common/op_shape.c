/* Operators that move values: constants and noise, columns side by side and apart, rows repeated
 * and chosen. */
#include "common/op_internal.h"

#include <string.h>

void lh_op_noise(const struct lh_call *c, const struct lh_run *run)
{
    size_t n = c->def->rows * c->def->cols;
    if (*c->given) {
        memcpy(c->out, *c->given, n * sizeof *c->out);
        return;
    }
    struct lh_rng_at at = run->at;
    at.purpose = c->purpose;
#ifdef LH_REAL_IS_DOUBLE
    for (size_t i = 0; i < n; i++)
        c->out[i] = lh_rng_normal1(&at, i);
#else
    lh_rng_normal(&at, c->out, n);
#endif
}

void lh_op_concat(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t first = 0, cols = c->def->cols;
    for (uint32_t k = 0; k < c->def->n_in; k++) {
        size_t n = c->in_cols[k];
        for (size_t i = 0; i < c->def->rows; i++)
            memcpy(c->out + i * cols + first, c->in[k] + i * n, n * sizeof *c->out);
        first += n;
    }
}

void lh_op_slice(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t cols = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++)
        memcpy(c->out + i * cols, c->in[0] + i * c->in_cols[0] + c->def->i, cols * sizeof *c->out);
}

void lh_op_pad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0], cols = c->def->cols;
    memset(c->out, 0, c->def->rows * cols * sizeof *c->out);
    for (size_t i = 0; i < c->def->rows; i++)
        memcpy(c->out + i * cols + c->def->i, c->in[0] + i * n, n * sizeof *c->out);
}

void lh_op_lookup(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->in_cols[0];
    lh_real *out = c->out;
    for (size_t i = 0; i < c->def->rows * c->in_cols[1]; i++, out += n) {
        if (c->in[1][i] < 0)
            memset(out, 0, n * sizeof *out);
        else
            memcpy(out, c->in[0] + (size_t)c->in[1][i] * n, n * sizeof *out);
    }
}

void lh_op_lookup_grad(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->cols;
    const lh_real *dy = c->in[0];
    memset(c->out, 0, c->def->rows * n * sizeof *c->out);
    for (size_t i = 0; i < c->in_rows * c->in_cols[1]; i++, dy += n) {
        if (c->in[1][i] < 0)
            continue;
        lh_real *out = c->out + (size_t)c->in[1][i] * n;
        for (size_t j = 0; j < n; j++)
            out[j] += dy[j];
    }
}

void lh_op_repeat(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t cols = c->def->cols;
    lh_real *out = c->out;
    for (size_t i = 0; i < c->in_rows; i++)
        for (size_t k = 0; k < c->def->i; k++, out += cols)
            memcpy(out, c->in[0] + i * cols, cols * sizeof *out);
}

void lh_op_reshape(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    if (c->out != c->in[0])
        memcpy(c->out, c->in[0], c->def->rows * c->def->cols * sizeof *c->out);
}

void lh_op_group_sum(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t cols = c->def->cols;
    const lh_real *restrict x = c->in[0];
    for (size_t i = 0; i < c->def->rows; i++) {
        lh_real *restrict out = c->out + i * cols;
        memcpy(out, x, cols * sizeof *out);
        x += cols;
        for (size_t k = 1; k < c->def->i; k++, x += cols)
            for (size_t j = 0; j < cols; j++)
                out[j] += x[j];
    }
}

void lh_op_select_best(const struct lh_call *c, const struct lh_run *run)
{
    LH_OP_UNUSED(run);
    size_t n = c->def->i, cols = c->def->cols;
    for (size_t i = 0; i < c->def->rows; i++) {
        size_t best = i * n;
        for (size_t k = i * n + 1; k < (i + 1) * n; k++)
            if (c->in[1][k] > c->in[1][best])
                best = k;
        memcpy(c->out + i * cols, c->in[0] + best * cols, cols * sizeof *c->out);
    }
}
