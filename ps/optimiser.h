/* Optimisers: element-wise passes over flat arrays, one read and one write of each. Bits do not
 * depend on how an array is cut into calls, nor on the width of the processor's vectors. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Adam (Kingma & Ba, 2015, Algorithm 1) at the t-th update of some elements, all its scalars
 * worked out in double and then rounded once. */
struct lh_optimiser_adam {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float step; /* alpha / (1 - beta1^t) */
    float root; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
};

/* t counts from 1. */
struct lh_optimiser_adam lh_optimiser_adam_at(double learning_rate, double beta1, double beta2,
                                              double epsilon, uint64_t t);

/* Arrays of n elements; none overlaps another. w_out and target_out may not be w and target: the
 * old version stays readable while the new one is made. */
struct lh_optimiser_arrays {
    const float *g, *w;
    float *m, *v; /* in place */
    float *w_out;
    const float *target; /* NULL: no soft update here */
    float *target_out;
};

/* m' = beta1 m + (1 - beta1) g;  v' = beta2 v + (1 - beta2) g^2
 * w' = w - alpha m^ / (sqrt(v^) + epsilon), m^ = m' / (1 - beta1^t), v^ = v' / (1 - beta2^t)
 * and, where target is given, target' = tau w' + (1 - tau) target, in the same pass.
 * Allocates nothing; any thread. */
void lh_optimiser_adam_step(const struct lh_optimiser_adam *adam,
                            const struct lh_optimiser_arrays *a, float tau, size_t n);

/* target_out = tau w + (1 - tau) target. No overlap. */
void lh_optimiser_soft_update(const float *restrict w, const float *restrict target,
                              float *restrict target_out, float tau, size_t n);
