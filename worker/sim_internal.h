/* What the simulator's files share: the world's inside, a user's state, one step. */
#pragma once

#include "worker/sim.h"

#define SIM_HIDDEN 16
#define SIM_PREFS  4
#define SIM_TOPICS 4
#define SIM_STATIC 10 /* gender 2, age 4, preferences 4 */
#define SIM_LEVELS 8  /* of usual session length, and of usual return time */

struct lh_sim {
    struct lh_sim_config c;
    /* The network of the ideal action: tanh hidden layer, tanh output. */
    double in_static[SIM_HIDDEN][SIM_STATIC], in_topic[SIM_HIDDEN][SIM_TOPICS], in_bias[SIM_HIDDEN];
    double out[LH_SIM_TASTE][SIM_HIDDEN];
    /* The behaviour's habits. */
    double tilt[LH_SIM_TASTE]; /* unit vector: where its bias points, whoever the user is */
    double lure_static[SIM_STATIC], lure_topic[SIM_TOPICS], spread_static[SIM_STATIC];
    /* Population. */
    double length[SIM_LEVELS], gap[SIM_LEVELS]; /* usual session length; usual return time, hours */
    double gap_p75;                             /* 75th percentile of the usual return time */
    /* Where the behaviour policy's users are on average: responses are measured from here, so that
     * a user's usual length and return time are those under the behaviour policy. */
    double fit0, sat0, lure0, log_gap0;
};

/* The members of a config that are numbers, with their bounds: one table checks, prints, reads. */
struct sim_member {
    const char *name;
    size_t offset;
    double min, max;
};
#define SIM_MEMBERS 14
extern const struct sim_member sim_members[SIM_MEMBERS];

/* One user in the middle of life. */
struct sim_user {
    uint64_t seed, id;
    uint64_t session; /* from 0 */
    uint32_t request; /* n, position in the session, from 1 */
    uint8_t length_level, gap_level;
    double attribute[SIM_STATIC], topic[SIM_TOPICS];
    double hidden[SIM_HIDDEN]; /* the static part of the hidden layer */
    double spread;             /* the behaviour's standard deviation for this user */
    double lure_bias;
    double satisfaction, recent_length, recent_gap;
    double last_fit, mean_fit, mean_lure;
    int64_t now_us;
    double ideal[LH_SIM_TASTE]; /* a*(s) of the present request */
    float high[LH_SIM_HIGH], low[LH_SIM_LOW];
};

struct sim_outcome {
    double fit, lure;
    bool ended;      /* the session, after this request */
    double reward;   /* 0 unless ended */
    uint32_t length; /* of the session, if ended */
    double gap;      /* hours until the next session, if ended; whole seconds */
};

/* User `id` of the population drawn from `seed`, before the first request of the first session. */
void lh_sim_user_init(const struct lh_sim *sim, uint64_t seed, uint64_t id, struct sim_user *out);
/* As much of a user as the visible state tells: all that the built-in OPTIMUM and GREEDY look at.
 */
void lh_sim_user_recall(const struct lh_sim *sim, const float *high, const float *low,
                        struct sim_user *out);
/* The user meets `action` [A]; the user's state is then that of the next request. */
void lh_sim_user_step(const struct lh_sim *sim, struct sim_user *u, const float *action,
                      struct sim_outcome *out);
/* What a built-in policy does here. `plan` for GREEDY and OPTIMUM. */
void lh_sim_user_act(const struct lh_sim *sim, const struct sim_user *u, enum lh_sim_policy policy,
                     const struct lh_sim_plan *plan, float *action);
/* Sessions of this user in a log whose users have `mean` on average (ResAct Table 1: skewed). */
uint64_t lh_sim_user_sessions(const struct lh_sim *sim, uint64_t seed, uint64_t id, double mean);

/* The pieces of the dynamics, shared with the dynamic programme. All pure. */
double lh_sim_satisfy(const struct lh_sim *sim, double satisfaction, double fit, double lure);
double lh_sim_hazard(const struct lh_sim *sim, unsigned length_level, double satisfaction,
                     double lure);
/* ln of (usual gap / median gap): how much sooner than usual. */
double lh_sim_sooner(const struct lh_sim *sim, double satisfaction, double fit, double lure);
#define SIM_GAP_SIGMA 0.6 /* of ln gap */
double lh_sim_reward_length(const struct lh_sim *sim, unsigned length_level, double length);
double lh_sim_start_satisfaction(const struct lh_sim *sim, double z);

/* The plan's decision: fit to aim for and lure, interpolated between grid points. */
void lh_sim_plan_decide(const struct lh_sim_plan *plan, unsigned length_level, unsigned gap_level,
                        uint32_t request, double satisfaction, double *fit, double *lure);
