/* A policy ready to act: an execution graph (algo's declare_act), its weights and the
 * normalisation, behind a batched call on raw states. Evaluation, `longhaul act`, the simulator's
 * judge and later the serving library all act through this. */
#pragma once

#include "common/dataset.h"
#include "common/job.h"
#include "common/rowsource.h"
#include "worker/algo.h"

struct lh_policy;

/* From live weights: `params` is a flat array of the algorithm's TRAINING graph layout (the names
 * decide what goes where); copied. job and norm are copied; job->normalise false means that states
 * and actions are taken as they are. Errors: LH_ECONFIG for an unknown algorithm, LH_EMISMATCH for
 * a tensor that is missing or of another shape. */
int lh_policy_create(struct lh_policy **out, const struct lh_job *job, const struct lh_norm *norm,
                     const struct lh_param *layout, size_t n_params, const float *params);
/* From a snapshot directory; checks checksums, shapes and the recorded probe outputs. */
int lh_policy_open(struct lh_policy **out, const char *snapshot_dir);
/* The same from an open snapshot, which is a loan; asks its probe. */
struct lh_snapshot;
int lh_policy_from_snapshot(struct lh_policy **out, const struct lh_snapshot *s);
void lh_policy_destroy(struct lh_policy **p);

const struct lh_job *lh_policy_job(const struct lh_policy *p);
size_t lh_policy_estimators(
    const struct lh_policy *p); /* N the graph uses; 1 if it has no choice */
/* Another number of candidates: compiles another graph over the same weights. The first
 * min(n, m) candidates of a state are the same for n and m. Errors: LH_EUSAGE for n = 0, for more
 * than LH_POLICY_ESTIMATORS_MAX, or n > 1 where the algorithm does not choose. */
#define LH_POLICY_ESTIMATORS_MAX 4096
int lh_policy_set_estimators(struct lh_policy *p, size_t n);

/* Where the policy, and those cloned from it from now on, look rows up; `source` and its context
 * must outlive them. `names` [n]: the ids that states come with. Errors: LH_EMISMATCH if the policy
 * asks for others; LH_ENOMEM. Nothing to do for a job without tables. */
int lh_policy_attach(struct lh_policy *p, const struct lh_row_source *source,
                     const char *const *names, size_t n);

/* What stands behind n choices; each may be NULL. Actions in raw units (a residual is a difference
 * of raw actions), [n N, A] and q [n N]; the N candidates of a state lie together. Algorithms
 * without candidates leave them untouched. */
struct lh_explain {
    float *reconstructed, *residual, *candidates, *q;
};

/* Actions for n raw states. Action i is a function of weights, state i, seed and first + i only, to
 * the bit, so that a stream gives the same actions however it is cut into calls: its noise is
 * keyed by first + i, and it sits in row (first + i) mod R of a graph of R rows (BLAS' bits may
 * depend on the row).
 *   high [n, H], low [n, L], action out [n, A] raw units
 *   ids    [n, I] of the states, by the names of lh_policy_attach; NULL: no state has any
 * Not thread-safe per policy; clone for threads. Allocates nothing. Errors: LH_ERANGE if a state
 * is not finite (names state and column); those of the source of rows. */
struct lh_states {
    const float *high, *low;
    const uint64_t *ids;
};
int lh_policy_act_on(struct lh_policy *p, const struct lh_states *states, size_t n, uint64_t seed,
                     uint64_t first, float *action, struct lh_explain *explain);
/* The same on states without ids. */
int lh_policy_act(struct lh_policy *p, const float *high, const float *low, size_t n, uint64_t seed,
                  uint64_t first, float *action, struct lh_explain *explain);
int lh_policy_clone(struct lh_policy **out, const struct lh_policy *p); /* shares the weights */
