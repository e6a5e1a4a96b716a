/* Rewards by declared rule: a column, a rating map, return time (ResAct Eq. 21), session length
 * (Eq. 22), their weighted mix. User averages and percentiles come from the training part. */
#pragma once

#include "common/userlog.h"
#include "common/yaml.h"

/* The rules as pure functions. */
/*   r = clip(floor(min(user_avg, p75) / gap), 0, 5)                        ResAct Eq. 21 */
float lh_reward_return_time(double gap, double user_avg, double p75);
/*   r = clip(floor(length / (user_avg * 0.8)), 0, 5)                       ResAct Eq. 22 */
float lh_reward_session_length(double length, double user_avg);

struct lh_reward_plan;

/* `node` is the schema's `reward`. */
int lh_reward_plan_create(struct lh_reward_plan **out, const struct lh_yaml_node *node,
                          const struct lh_column *columns, size_t n_columns);
void lh_reward_plan_destroy(struct lh_reward_plan **p);
int lh_reward_plan_needs_pass(const struct lh_reward_plan *p);
int lh_reward_plan_observe(struct lh_reward_plan *p, const struct lh_user_log *log);
int lh_reward_plan_finish(struct lh_reward_plan *p); /* percentiles */
/* out [n]. Session rewards stand on the last row of a session, 0 elsewhere. Any thread. */
int lh_reward_plan_apply(const struct lh_reward_plan *p, const struct lh_user_log *log, float *out);
