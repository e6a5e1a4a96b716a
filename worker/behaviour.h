/* The behaviour model pi_beta of off-policy evaluation: a policy that imitates the log, and how far
 * off it is. Training it is cluster/behaviour.c's. */
#pragma once

#include "common/dataset.h"
#include "worker/policy.h"

struct lh_behaviour;

/* Opens a snapshot as the behaviour model of `ds` and measures sigma on the validation split (on
 * the training split if there is no validation row), over at most LH_BEHAVIOUR_ROWS rows evenly
 * spread. Errors: those of lh_policy_open; LH_EMISMATCH if the snapshot's widths are not the
 * dataset's. */
int lh_behaviour_open(struct lh_behaviour **out, const struct lh_dataset *ds, const char *snapshot);
/* The same from a policy, which it takes over on success. */
int lh_behaviour_adopt(struct lh_behaviour **out, const struct lh_dataset *ds,
                       struct lh_policy **policy);
void lh_behaviour_close(struct lh_behaviour **b);

/* [A], scaled units: per dimension the RMS of logged action minus the model's, at least
 * LH_BEHAVIOUR_SIGMA_MIN (a dimension that never varies says nothing about weights). */
const float *lh_behaviour_sigma(const struct lh_behaviour *b);
struct lh_policy *lh_behaviour_policy(const struct lh_behaviour *b);
/* Mean over dimensions of sigma^2: what early stopping of the behaviour model looks at. */
double lh_behaviour_mse(const struct lh_behaviour *b);

#define LH_BEHAVIOUR_ROWS      262144
#define LH_BEHAVIOUR_SIGMA_MIN 1e-3
