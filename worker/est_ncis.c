/* NCIS over log weights: sums relative to the largest weight, in the order of their units. */
#include "worker/est_ncis.h"

#include <math.h>
#include <string.h>

#define Z95 1.959963984540054 /* the normal's 97.5% quantile */

/* Brings sum to another peak, at least its own. */
static void raise_peak(struct lh_ncis_sum *sum, double peak)
{
    double f = exp(sum->peak - peak);
    sum->w *= f;
    sum->wr *= f;
    sum->w2 *= f * f;
    sum->peak = peak;
}

void lh_ncis_add(struct lh_ncis_sum *sum, double log_weight, double log_cap, double reward)
{
    double l = fmin(log_weight, log_cap);
    if (sum->units == 0)
        sum->peak = l;
    else if (l > sum->peak)
        raise_peak(sum, l);
    double w = exp(l - sum->peak);
    sum->w += w;
    sum->wr += w * reward;
    sum->w2 += w * w;
    sum->reward += reward;
    sum->units++;
}

void lh_ncis_merge(struct lh_ncis_sum *sum, const struct lh_ncis_sum *more)
{
    if (more->units == 0)
        return;
    if (sum->units == 0) {
        *sum = *more;
        return;
    }
    struct lh_ncis_sum m = *more;
    if (m.peak > sum->peak)
        raise_peak(sum, m.peak);
    else
        raise_peak(&m, sum->peak);
    sum->w += m.w;
    sum->wr += m.wr;
    sum->w2 += m.w2;
    sum->reward += m.reward;
    sum->units += m.units;
}

void lh_ncis_add_session(struct lh_ncis_sum *sum, const struct lh_ncis_sum *session)
{
    if (session->units == 0)
        return;
    double mean = session->peak + log(session->w / (double)session->units);
    lh_ncis_add(sum, mean, INFINITY, session->reward); /* its rows were capped */
}

double lh_ncis_value(const struct lh_ncis_sum *sum)
{
    return sum->units ? sum->wr / sum->w : 0; /* w >= 1: the peak's own unit */
}

double lh_ncis_plain(const struct lh_ncis_sum *sum)
{
    return sum->units ? sum->reward / (double)sum->units : 0;
}

double lh_ncis_ess(const struct lh_ncis_sum *sum)
{
    return sum->units ? sum->w * sum->w / sum->w2 : 0;
}

void lh_ncis_interval(const double *values, size_t n, double *mean, double *lo, double *hi)
{
    *mean = *lo = *hi = NAN;
    if (n == 0)
        return;
    double total = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        total += values[i];
    *mean = total / (double)n;
    if (n == 1)
        return;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - *mean) * (values[i] - *mean);
    double half = Z95 * sqrt(squares / (double)(n - 1) / (double)n);
    *lo = *mean - half;
    *hi = *mean + half;
}

void lh_ncis_estimate(const struct lh_ncis_sum *trajectory, size_t n, bool weighted,
                      double ess_floor, double *values, struct lh_estimate *out)
{
    struct lh_ncis_sum all = {0};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        values[i] = weighted ? lh_ncis_value(&trajectory[i]) : lh_ncis_plain(&trajectory[i]);
        lh_ncis_merge(&all, &trajectory[i]);
    }
    lh_ncis_interval(values, n, &out->value, &out->lo, &out->hi);
    out->trajectories = n;
    out->units = all.units;
    out->ess = weighted ? lh_ncis_ess(&all) : (double)all.units;
    out->ess_share = all.units ? out->ess / (double)all.units : 0;
    out->collapsed = out->ess_share < ess_floor;
}

void lh_ncis_pair(struct lh_estimate *a, const double *values_a, const double *values_b, size_t n,
                  double *scratch)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = values_a[i] - values_b[i];
    lh_ncis_interval(scratch, n, &a->difference, &a->difference_lo, &a->difference_hi);
}
