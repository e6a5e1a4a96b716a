/* Operators that work element by element. The result may lie exactly where an input lies, hence no
 * `restrict`; `ivdep` tells the compiler that this is the only overlap there is. */
#include "common/op_internal.h"
#include "common/vecmath.h"

/* Defines a kernel: x, y, z are the elements of the inputs, a and b the operator's attributes. */
#define KERNEL1(name, expression)                                                                  \
    void lh_op_##name(const struct lh_call *c, const struct lh_run *run)                           \
    {                                                                                              \
        LH_OP_UNUSED(run);                                                                         \
        const size_t n = c->def->rows * c->def->cols;                                              \
        const lh_real a = (lh_real)c->def->a, b = (lh_real)c->def->b;                              \
        const lh_real *p = c->in[0];                                                               \
        lh_real *out = c->out;                                                                     \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            const lh_real x = p[i];                                                                \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }

#define KERNEL2(name, expression)                                                                  \
    void lh_op_##name(const struct lh_call *c, const struct lh_run *run)                           \
    {                                                                                              \
        LH_OP_UNUSED(run);                                                                         \
        const size_t n = c->def->rows * c->def->cols;                                              \
        const lh_real a = (lh_real)c->def->a, b = (lh_real)c->def->b;                              \
        const lh_real *p = c->in[0], *q = c->in[1];                                                \
        lh_real *out = c->out;                                                                     \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            const lh_real x = p[i], y = q[i];                                                      \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }

#define KERNEL3(name, expression)                                                                  \
    void lh_op_##name(const struct lh_call *c, const struct lh_run *run)                           \
    {                                                                                              \
        LH_OP_UNUSED(run);                                                                         \
        const size_t n = c->def->rows * c->def->cols;                                              \
        const lh_real *p = c->in[0], *q = c->in[1], *r = c->in[2];                                 \
        lh_real *out = c->out;                                                                     \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            const lh_real x = p[i], y = q[i], z = r[i];                                            \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }

KERNEL2(add, x + y)
KERNEL2(sub, x - y)
KERNEL2(mul, x *y)
KERNEL2(div, x / y)
/* A NaN on either side stays: a training that diverges has to be seen. */
KERNEL2(min, x <= y ? x : (y == y ? (x == x ? y : x) : y))
KERNEL2(max, x >= y ? x : (y == y ? (x == x ? y : x) : y))

KERNEL1(affine, a *x + b)
KERNEL1(relu, x <= 0 ? 0 : x)
KERNEL1(tanh, lh_vecmath_tanh(x))
KERNEL1(sigmoid, lh_vecmath_sigmoid(x))
KERNEL1(exp, lh_vecmath_exp(x))
KERNEL1(log, lh_vecmath_log(x))
KERNEL1(square, x *x)
KERNEL1(abs, lh_vecmath_abs(x))
KERNEL1(clamp, x < a ? a : (x > b ? b : x))

/* x is the adjoint of the result. */
KERNEL2(sigmoid_grad, x *(y *(1 - y)))
KERNEL2(square_grad, 2 * x * y)
KERNEL2(abs_grad, y > 0 ? x : (y < 0 ? -x : 0))
KERNEL2(clamp_grad, y<a || y> b ? 0 : x)
KERNEL3(div_grad, -x *y / z)
KERNEL3(pick_le, y <= z ? x : 0)
KERNEL3(pick_gt, y <= z ? 0 : x)
