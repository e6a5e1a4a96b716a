/* The judge: plays a trained policy in the simulated world, which knows its true value. */
#pragma once

#include "worker/policy.h"
#include "worker/sim_play.h"

/* lh_sim_play with `policy`, which is cloned for each thread. Errors: LH_EMISMATCH if the policy
 * was not trained on a log of the simulator; those of lh_sim_play. */
int lh_judge_play(const struct lh_sim *sim, const struct lh_policy *policy, uint64_t users,
                  uint64_t sessions, uint64_t seed, unsigned threads, struct lh_sim_value *out);
