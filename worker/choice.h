/* What stands behind a policy's choices: how much the candidates of a state differ, what choosing
 * among them gains, how far the residual goes, and what the critic thinks of the result.
 *
 * Pure functions over what lh_policy_act explains. A choice is only as good as its candidates are
 * different: where the auto-encoder's latent is unused, spread and gain are near 0. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sums over states; all zero is empty. Add those of two halves member by member. */
struct lh_choice_sum {
    uint64_t states;
    double q, gain, spread, residual;
};

/* Means over states. */
struct lh_choice {
    uint64_t states; /* 0: the policy has no candidates and nothing below is meant */
    double q;        /* Q1 of the chosen action */
    double gain;     /* Q1 of the chosen action less the mean Q1 of the state's candidates */
    double spread;   /* RMS distance of a state's candidates from their mean, a dimension, scaled */
    double residual; /* Euclidean norm of the chosen action's residual, scaled */
};

/* Adds one state.
 *   candidates, residual  [n, width] raw units; the residual is a difference
 *   q                     [n] finite; the first of the greatest is the choice (Eq. 10)
 *   scale                 [width] raw to scaled units
 *   n >= 1. Allocates nothing. */
void lh_choice_add(struct lh_choice_sum *sum, const float *candidates, const float *residual,
                   const float *q, const float *scale, size_t n, size_t width);
void lh_choice_merge(struct lh_choice_sum *sum, const struct lh_choice_sum *more);
struct lh_choice lh_choice_mean(const struct lh_choice_sum *sum);
