/* Adam and the soft update, written so that the compiler makes vector code of them: one plain loop
 * each over restrict pointers, no branch inside, no order between elements. Products and sums are
 * not contracted (-ffp-contract=off), so scalar and vector builds agree to the last bit. */
#include "ps/optimiser.h"

#include <math.h>

struct lh_optimiser_adam lh_optimiser_adam_at(double learning_rate, double beta1, double beta2,
                                              double epsilon, uint64_t t)
{
    /* -expm1(t log beta) is 1 - beta^t without its cancellation. */
    const double bias1 = beta1 > 0 ? -expm1((double)t * log(beta1)) : 1;
    const double bias2 = beta2 > 0 ? -expm1((double)t * log(beta2)) : 1;
    return (struct lh_optimiser_adam){
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .one_minus_beta1 = (float)(1 - beta1),
        .one_minus_beta2 = (float)(1 - beta2),
        .step = (float)(learning_rate / bias1),
        .root = (float)(1 / sqrt(bias2)),
        .epsilon = (float)epsilon,
    };
}

static void adam(const struct lh_optimiser_adam c, const float *restrict g, const float *restrict w,
                 float *restrict m, float *restrict v, float *restrict w_out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float mi = c.beta1 * m[i] + c.one_minus_beta1 * g[i];
        const float vi = c.beta2 * v[i] + c.one_minus_beta2 * (g[i] * g[i]);
        m[i] = mi;
        v[i] = vi;
        w_out[i] = w[i] - c.step * mi / (sqrtf(vi) * c.root + c.epsilon);
    }
}

static void adam_and_target(const struct lh_optimiser_adam c, const float *restrict g,
                            const float *restrict w, float *restrict m, float *restrict v,
                            float *restrict w_out, const float *restrict target,
                            float *restrict target_out, float tau, size_t n)
{
    const float keep = 1.0f - tau;
    for (size_t i = 0; i < n; i++) {
        const float mi = c.beta1 * m[i] + c.one_minus_beta1 * g[i];
        const float vi = c.beta2 * v[i] + c.one_minus_beta2 * (g[i] * g[i]);
        const float wi = w[i] - c.step * mi / (sqrtf(vi) * c.root + c.epsilon);
        m[i] = mi;
        v[i] = vi;
        w_out[i] = wi;
        target_out[i] = tau * wi + keep * target[i];
    }
}

void lh_optimiser_adam_step(const struct lh_optimiser_adam *c, const struct lh_optimiser_arrays *a,
                            float tau, size_t n)
{
    if (a->target)
        adam_and_target(*c, a->g, a->w, a->m, a->v, a->w_out, a->target, a->target_out, tau, n);
    else
        adam(*c, a->g, a->w, a->m, a->v, a->w_out, n);
}

void lh_optimiser_soft_update(const float *restrict w, const float *restrict target,
                              float *restrict target_out, float tau, size_t n)
{
    const float keep = 1.0f - tau;
    for (size_t i = 0; i < n; i++)
        target_out[i] = tau * w[i] + keep * target[i];
}
