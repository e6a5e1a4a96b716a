/* Rewards by declared rule: a column, a rating map, return time (ResAct Eq. 21), session length
 * (Eq. 22), a weighted sum of feedback (BatchRL-MTF Eq. 2), a weighted mix of rules.
 *
 *     reward: {column: watch_ratio, scale: 0.1, clip: [0, 5]}
 *     reward: {map: {column: rating, values: {1: -1, 2: 0, 3: 1, 4: 2, 5: 3}}}
 *     reward: {return_time: {}}
 *     reward: {session_length: {measure: rows}}            # or seconds, or {column: NAME}
 *     reward: {weighted_sum: {is_click: 1, is_like: 2, is_hate: -2}}
 *     reward: {mix: [{weight: 0.7, rule: {return_time: {}}},
 *                    {weight: 0.3, rule: {session_length: {}}}]}
 *
 * A user's averages are over all its own sessions, in whatever split the user is; the percentile is
 * over training users only. The grammar is told in full in common/README.md. */
#pragma once

#include "common/userlog.h"
#include "common/yaml.h"

#include <stdbool.h>

/* The rules as pure functions. gap, user_avg, p75: one unit of time, gap > 0. */
/*   r = clip(floor(min(user_avg, p75) / gap), 0, 5)                        ResAct Eq. 21 */
float lh_reward_return_time(double gap, double user_avg, double p75);
/*   r = clip(floor(length / (user_avg * 0.8)), 0, 5); 0 where user_avg is 0   ResAct Eq. 22 */
float lh_reward_session_length(double length, double user_avg);

/* Seconds from the end of a session (its last row) to the start of the next (its first row), at
 * least 1: sessions of a log may overlap or touch. */
double lh_reward_gap_seconds(int64_t end_us, int64_t next_start_us);

struct lh_reward_plan;

/* `node` is the schema's `reward`; it is read, not kept. Errors: LH_ECONFIG, LH_ENOMEM. */
int lh_reward_plan_create(struct lh_reward_plan **out, const struct lh_yaml_node *node,
                          const struct lh_column *columns, size_t n_columns);
void lh_reward_plan_destroy(struct lh_reward_plan **p);

/* Whether a rule reads the column, so that it must not be a feature of its own row. */
bool lh_reward_plan_uses(const struct lh_reward_plan *p, size_t column);
/* Whether a row's reward depends on the user's whole log (averages over all sessions), so that even
 * past rewards must not be a feature. */
bool lh_reward_plan_looks_ahead(const struct lh_reward_plan *p);

/* If true: observe every user, then finish, before apply. Observing takes any thread and any order;
 * it keeps 4 bytes a training user with two sessions or more (its average return time, as float),
 * and nothing of others. Finish: the percentile as numpy's default has it (linear between ranks).
 * Errors: LH_ERANGE if no training user has two sessions. */
int lh_reward_plan_needs_pass(const struct lh_reward_plan *p);
int lh_reward_plan_observe(struct lh_reward_plan *p, const struct lh_user_log *log);
int lh_reward_plan_finish(struct lh_reward_plan *p);
double lh_reward_plan_p75(const struct lh_reward_plan *p); /* seconds; 0 where no rule needs it */

/* out [n]. Session rewards stand on the last row of a session, 0 elsewhere; the last session of a
 * user has no return time, its part is 0. Any thread; allocates nothing. Errors: LH_ERANGE if a
 * value is missing or is not in a map. */
int lh_reward_plan_apply(const struct lh_reward_plan *p, const struct lh_user_log *log, float *out);
