/* NCIS: normalised capped importance sampling over trajectories.                ResAct Eq. 15
 *
 *   J = mean over trajectories of  sum rho r / sum rho,   rho = min(c, phi_pi(a) / phi_beta(a))
 *
 * The sums run over units: rows, or sessions, whose rho is the mean over their rows and whose r is
 * the sum. Where a reward belongs to a session as a whole, on which row it stands is a convention;
 * by sessions the value does not depend on it, and with sessions of one row it is that of rows.
 *
 * Pure functions over log weights; nothing here knows what a policy is. Sums are kept relative to
 * the largest weight seen, so a trajectory whose weights all underflow still has a value. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_estimate {
    double value;     /* mean over trajectories */
    double lo, hi;    /* 95% interval over trajectories (normal approximation); NAN for one alone */
    double ess;       /* effective sample size, in units: (sum w)^2 / sum w^2 */
    double ess_share; /* ess / units */
    uint64_t trajectories, units;
    bool collapsed; /* ess_share below the floor: flagged, not ranked */
    double difference, difference_lo, difference_hi; /* to the behaviour's own value, paired */
    double mean_distance; /* mean over rows of the RMS over dimensions of (pi(s) - a) / sigma: how
                             far it left the data; about 1 for the behaviour model itself */
};

/* Sums over units of one trajectory, over all units, or over the rows of one session. w, wr are
 * multiplied by exp(-peak), w2 by exp(-2 peak). All zero is empty. */
struct lh_ncis_sum {
    double peak; /* largest capped log weight */
    double w, wr, w2;
    double reward; /* unweighted */
    uint64_t units;
};

/* Adds a unit. `log_weight` finite; `log_cap` = log c. */
void lh_ncis_add(struct lh_ncis_sum *sum, double log_weight, double log_cap, double reward);
/* Adds what `more` holds, as if its units came after those of `sum`. */
void lh_ncis_merge(struct lh_ncis_sum *sum, const struct lh_ncis_sum *more);
/* Adds the rows that `session` holds as one unit; nothing if it is empty. */
void lh_ncis_add_session(struct lh_ncis_sum *sum, const struct lh_ncis_sum *session);

double lh_ncis_value(const struct lh_ncis_sum *sum); /* sum w r / sum w; 0 if empty */
double lh_ncis_plain(const struct lh_ncis_sum *sum); /* mean reward, all weights 1; 0 if empty */
double lh_ncis_ess(const struct lh_ncis_sum *sum);   /* (sum w)^2 / sum w^2; 0 if empty */

/* Mean and 95% interval of n values: mean -+ 1.96 s / sqrt(n), s the sample deviation. The interval
 * is NAN for n = 1, all are NAN for n = 0. */
void lh_ncis_interval(const double *values, size_t n, double *mean, double *lo, double *hi);

/* The estimate over n trajectories.
 *   values  [n]  receives each trajectory's value (of `weighted`), for paired comparisons
 *   weighted     Eq. 15; false: all weights 1, the log's own value
 * mean_distance is left 0. */
void lh_ncis_estimate(const struct lh_ncis_sum *trajectory, size_t n, bool weighted,
                      double ess_floor, double *values, struct lh_estimate *out);

/* What a minus b is over the same n trajectories, mean and 95% interval into a's difference.
 * scratch [n] is overwritten. */
void lh_ncis_pair(struct lh_estimate *a, const double *values_a, const double *values_b, size_t n,
                  double *scratch);
