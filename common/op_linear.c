/* Linear layers: the products, which take bias and activation along (forward), and one pass for
 * mask and bias gradient (backward). */
#include "common/op_internal.h"
#include "common/vecmath.h"

#include <string.h>

/* A parameter that begins at `offset` of the flat array; NULL if there is none. */
static const lh_real *values(const struct lh_call *c, const struct lh_run *run, int32_t param,
                             size_t offset)
{
    if (param < 0)
        return NULL;
    const bool target = c->def->use == LH_TARGET;
    const lh_real *flat = target ? run->targets : run->params;
    return flat ? flat + offset : (target ? run->target_at : run->param_at)[param];
}

/* in[0] with columns [i, i + cols of x) of W, the product with the others in in[1] if there is one.
 */
static struct lh_gemm_args with_weight(const struct lh_call *c, const struct lh_run *run)
{
    const size_t n = c->def->cols, k = c->in_cols[0];
    return (struct lh_gemm_args){.m = c->def->rows,
                                 .n = n,
                                 .k = k,
                                 .a = c->in[0],
                                 .lda = k,
                                 .b = values(c, run, c->def->weight, c->weight) + c->def->i,
                                 .ldb = c->def->j,
                                 .c = c->out,
                                 .ldc = n,
                                 .from = c->def->n_in > 1 ? c->in[1] : NULL,
                                 .ld_from = n};
}

/* x W^T + b. */
static struct lh_gemm_args linear(const struct lh_call *c, const struct lh_run *run)
{
    const struct lh_packed *packed = run->reuse ? c->packed : NULL;
    struct lh_gemm_args x = with_weight(c, run);
    x.bias = values(c, run, c->def->bias, c->bias);
    x.relu = c->def->act == LH_RELU;
    x.packed = packed ? packed->at : NULL;
    x.ready = packed && packed->ready;
    return x;
}

/* dW = dZ^T X, columns [i, i + cols). */
static struct lh_gemm_args linear_dw(const struct lh_call *c, const struct lh_run *run)
{
    const size_t m = c->def->rows, n = c->def->cols;
    return (struct lh_gemm_args){.m = m,
                                 .n = n,
                                 .k = c->in_rows,
                                 .a = c->in[0],
                                 .lda = m,
                                 .b = c->in[1],
                                 .ldb = n,
                                 .c = run->grads + c->weight + c->def->i,
                                 .ldc = c->def->j,
                                 .add = c->weight_adds || run->adds};
}

static enum lh_gemm_kind product_of(const struct lh_call *c, const struct lh_run *run,
                                    struct lh_gemm_args *x)
{
    switch (c->def->op) {
    case LH_OP_LINEAR:
        *x = linear(c, run);
        return LH_GEMM_NT;
    case LH_OP_LINEAR_DX:
        *x = with_weight(c, run); /* dX = dZ W */
        return LH_GEMM_NN;
    default:
        *x = linear_dw(c, run);
        return LH_GEMM_TN;
    }
}

static void multiply(const struct lh_call *c, const struct lh_run *run)
{
    struct lh_gemm_args x, next;
    const enum lh_gemm_kind kind = product_of(c, run, &x);
    x.ahead = run->ahead;
    if (run->ahead && c->next && (run->grads || !c->next->backward)) {
        x.next_kind = product_of(c->next, run, &next);
        x.next = &next;
    }
    lh_gemm_run(run->gemm, kind, &x);
}

void lh_op_linear(const struct lh_call *c, const struct lh_run *run)
{
    multiply(c, run);
    if (run->reuse)
        c->packed->ready = true;
    if (c->def->act == LH_TANH) {
        lh_real *restrict y = c->out;
        for (size_t i = 0; i < c->def->rows * c->def->cols; i++)
            y[i] = lh_vecmath_tanh(y[i]);
    }
}

void lh_op_linear_dx(const struct lh_call *c, const struct lh_run *run)
{
    multiply(c, run);
}

void lh_op_linear_dw(const struct lh_call *c, const struct lh_run *run)
{
    multiply(c, run);
}

/* Adds rows of dz to db, four at a time. */
static void sum_rows(size_t m, size_t n, const lh_real *restrict dz, lh_real *restrict db)
{
    size_t i = 0;
    for (; i + 4 <= m; i += 4) {
        const lh_real *r = dz + i * n;
        for (size_t j = 0; j < n; j++)
            db[j] += (r[j] + r[n + j]) + (r[2 * n + j] + r[3 * n + j]);
    }
    for (; i < m; i++)
        for (size_t j = 0; j < n; j++)
            db[j] += dz[i * n + j];
}

void lh_op_bias_grad(const struct lh_call *c, const struct lh_run *run)
{
    size_t n = c->def->cols;
    lh_real *db = run->grads + c->bias;
    if (!c->bias_adds && !run->adds)
        memset(db, 0, n * sizeof *db);
    sum_rows(c->in_rows, n, c->in[0], db);
}

/* dz = dy act'(z), from the output y of the activation. The result may lie where dy or y lies. */
static void act_grad(size_t n, enum lh_activation act, const lh_real *dy, const lh_real *y,
                     lh_real *dz)
{
    if (act == LH_RELU) {
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            dz[j] = y[j] > 0 ? dy[j] : 0;
    } else {
#pragma GCC ivdep
        for (size_t j = 0; j < n; j++)
            dz[j] = dy[j] * (1 - y[j] * y[j]);
    }
}

void lh_op_act_grad(const struct lh_call *c, const struct lh_run *run)
{
    size_t m = c->def->rows, n = c->def->cols;
    bool bias = c->def->bias >= 0;
    if (bias && !c->bias_adds && !run->adds)
        memset(run->grads + c->bias, 0, n * sizeof *c->out);
    for (size_t i = 0; i < m; i += 4) { /* rows are summed while they are in the cache */
        size_t rows = m - i < 4 ? m - i : 4;
        act_grad(rows * n, c->def->act, c->in[0] + i * n, c->in[1] + i * n, c->out + i * n);
        if (bias)
            sum_rows(rows, n, c->out + i * n, run->grads + c->bias);
    }
}
