/* Off-policy evaluation: walks the trajectories of a split, asks the policy and the behaviour model
 * for their actions, hands both to the estimators. */
#pragma once

#include "common/dataset.h"
#include "worker/policy.h"

struct lh_estimate {
    double value;     /* mean over trajectories */
    double lo, hi;    /* 95% interval over trajectories (normal approximation) */
    double ess;       /* effective sample size, in rows: (sum w)^2 / sum w^2 */
    double ess_share; /* ess / rows */
    uint64_t trajectories, rows;
    bool collapsed; /* ess_share below the floor: flagged, not ranked */
    double difference, difference_lo, difference_hi; /* to the behaviour's own value, paired */
    double mean_distance; /* mean over rows of |pi(s) - a| in units of sigma: how far it left */
};

struct lh_evaluation {
    struct lh_estimate policy;    /* NCIS, ResAct Eq. 15 */
    struct lh_estimate behaviour; /* the log's own: all weights 1 */
    double cap;
};

/* `behaviour` and `sigma` [A] (scaled units; residual RMS of the behaviour model on validation):
 * see lh_behaviour. Deterministic for any number of threads. `per_trajectory`, if not NULL,
 * receives the values for paired comparisons: *out is an array in trajectory order, caller frees.
 */
struct lh_behaviour;
int lh_evaluate(const struct lh_dataset *ds, enum lh_split split, struct lh_policy *policy,
                const struct lh_behaviour *behaviour, double cap, double ess_floor, uint64_t seed,
                unsigned threads, struct lh_evaluation *out, double **per_trajectory);

/* The behaviour model: IL trained on the training split to convergence (early stop on validation),
 * and its sigma. */
int lh_behaviour_open(struct lh_behaviour **out, const struct lh_dataset *ds, const char *snapshot);
void lh_behaviour_close(struct lh_behaviour **b);
const float *lh_behaviour_sigma(const struct lh_behaviour *b);
struct lh_policy *lh_behaviour_policy(const struct lh_behaviour *b);
