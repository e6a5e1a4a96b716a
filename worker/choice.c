/* Sums over states in the order in which they come, in double. */
#include "worker/choice.h"

#include <math.h>

static size_t best_of(const float *q, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (q[i] > q[best])
            best = i;
    return best;
}

/* Mean square over candidates and dimensions of the distance from the mean candidate. */
static double spread2(const float *candidates, const float *scale, size_t n, size_t width)
{
    double total = 0;
    for (size_t j = 0; j < width; j++) {
        double mean = 0, squares = 0;
        for (size_t i = 0; i < n; i++)
            mean += (double)candidates[i * width + j] / (double)n;
        for (size_t i = 0; i < n; i++) {
            double d = ((double)candidates[i * width + j] - mean) * (double)scale[j];
            squares += d * d;
        }
        total += squares;
    }
    return total / (double)n / (double)width;
}

void lh_choice_add(struct lh_choice_sum *sum, const float *candidates, const float *residual,
                   const float *q, const float *scale, size_t n, size_t width)
{
    size_t best = best_of(q, n);
    double mean_q = 0, norm2 = 0;
    for (size_t i = 0; i < n; i++)
        mean_q += (double)q[i] / (double)n;
    for (size_t j = 0; j < width; j++) {
        double d = (double)residual[best * width + j] * (double)scale[j];
        norm2 += d * d;
    }
    sum->states++;
    sum->q += (double)q[best];
    sum->gain += (double)q[best] - mean_q;
    sum->spread += sqrt(spread2(candidates, scale, n, width));
    sum->residual += sqrt(norm2);
}

void lh_choice_merge(struct lh_choice_sum *sum, const struct lh_choice_sum *more)
{
    sum->states += more->states;
    sum->q += more->q;
    sum->gain += more->gain;
    sum->spread += more->spread;
    sum->residual += more->residual;
}

struct lh_choice lh_choice_mean(const struct lh_choice_sum *sum)
{
    double n = sum->states ? (double)sum->states : 1;
    return (struct lh_choice){.states = sum->states,
                              .q = sum->q / n,
                              .gain = sum->gain / n,
                              .spread = sum->spread / n,
                              .residual = sum->residual / n};
}
