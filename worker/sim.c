/* The simulated world: who its users are, what suits them, how they respond, what the logged
 * ("behaviour") policy does. Invariant: a step is a pure function of state, action and the random
 * numbers of (seed, user, session, request). worker/SIMULATOR.md has the equations by the numbers
 * cited here. Logs, plays and the optimum are left to sim_log.c, sim_play.c, sim_optimum.c. */
#include "worker/sim.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/reward.h"
#include "common/rng.h"
#include "worker/sim_internal.h"
#include "worker/sim_math.h"

#include <math.h>
#include <string.h>

/* ResAct Table 1: quartiles of the users' average session length and return time. A log-normal is
 * fixed by two quartiles. */
#define LENGTH_P25 2.1358
#define LENGTH_P75 4.8792
#define GAP_P25    4.3264
#define GAP_P75    11.2794
#define VISITS_P25 30.0
#define VISITS_P75 85.0
#define VISITS_AVG 61.3277

#define TOPIC_KEEP   0.8 /* AR(1) of the topic within a session; the rest is new */
#define LURE_HABIT   0.2 /* how far the behaviour's lure moves with the state */
#define LURE_SPREAD  1.5 /* its standard deviation over that of a taste column */
#define SPREAD_RANGE 0.3 /* ln of the behaviour's spread over users */
#define SHRINK       0.4 /* how much of the behaviour's bias pulls towards the middle */
#define HABIT_RATE   0.3 /* of the running averages in s_h */
#define START_US     INT64_C(1704067200000000) /* 2024-01-01 UTC: the first day of every log */
#define DAY_US       INT64_C(86400000000)

const char *const lh_sim_policy_names[LH_SIM_POLICIES] = {"behaviour", "mean", "greedy", "optimum",
                                                          "random"};

const char *const *lh_sim_names(int group)
{
    static const char *const high[LH_SIM_HIGH] = {
        "gender_0",     "gender_1",      "age_0",        "age_1",
        "age_2",        "age_3",         "preference_0", "preference_1",
        "preference_2", "preference_3",  "usual_length", "usual_gap",
        "satisfaction", "recent_length", "recent_gap",   "visits"};
    static const char *const low[LH_SIM_LOW] = {"topic_0",  "topic_1",  "topic_2",  "topic_3",
                                                "position", "last_fit", "mean_fit", "mean_lure"};
    static const char *const action[LH_SIM_ACTION] = {"taste_0", "taste_1", "taste_2",
                                                      "taste_3", "taste_4", "lure"};
    return group == 0 ? high : group == 1 ? low : action;
}

void lh_sim_dims(struct lh_dims *out)
{
    *out = (struct lh_dims){.high = LH_SIM_HIGH, .low = LH_SIM_LOW, .action = LH_SIM_ACTION};
}

/* --- the world -------------------------------------------------------------------------------- */

static double drawn(uint64_t seed, const char *purpose, uint64_t index)
{
    struct lh_rng_at at = {.seed = seed, .purpose = lh_rng_purpose(purpose)};
    return lh_rng_normal1(&at, index);
}

static void draw_array(uint64_t seed, const char *purpose, double scale, double *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = scale * drawn(seed, purpose, i);
}

/* Mean fit under the behaviour policy: the bias has a fixed length, so that the mean over its
 * Gaussian noise has a closed form; averaged over the users' spreads. */
static double behaviour_fit(const struct lh_sim_config *c)
{
    double sum = 0, w2 = c->width * c->width;
    for (int i = -2; i <= 2; i++) {
        double spread = c->noise * lh_sim_math_exp(SPREAD_RANGE * 0.35 * i), s2 = spread * spread;
        sum += lh_sim_math_exp(-0.5 * LH_SIM_TASTE * lh_sim_math_ln(1.0 + s2 / w2) -
                               0.5 * c->bias * c->bias / (w2 + s2));
    }
    return sum / 5.0;
}

/* Weights over a one-hot group add up to a constant on average: taken out, so that a habit is 0 for
 * the mean user. */
static void centre(double *weight, size_t n)
{
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += weight[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        weight[i] -= mean;
}

static void draw_world(struct lh_sim *s)
{
    const struct lh_sim_config *c = &s->c;
    uint64_t seed = c->world_seed;
    draw_array(seed, "sim.in_static", 0.25, &s->in_static[0][0], SIM_HIDDEN * SIM_STATIC);
    draw_array(seed, "sim.in_topic", 0.25, &s->in_topic[0][0], SIM_HIDDEN * SIM_TOPICS);
    draw_array(seed, "sim.in_bias", 0.3, s->in_bias, SIM_HIDDEN);
    draw_array(seed, "sim.out", 0.5, &s->out[0][0], LH_SIM_TASTE * SIM_HIDDEN);
    draw_array(seed, "sim.tilt", 1.0, s->tilt, LH_SIM_TASTE);
    draw_array(seed, "sim.lure_static", 0.4, s->lure_static, SIM_STATIC);
    draw_array(seed, "sim.lure_topic", 0.4, s->lure_topic, SIM_TOPICS);
    draw_array(seed, "sim.spread_static", 0.4, s->spread_static, SIM_STATIC);
    centre(s->lure_static, 2);
    centre(s->lure_static + 2, 4);
    centre(s->spread_static, 2);
    centre(s->spread_static + 2, 4);
    double norm = 0;
    for (int k = 0; k < LH_SIM_TASTE; k++)
        norm += s->tilt[k] * s->tilt[k];
    for (int k = 0; k < LH_SIM_TASTE; k++)
        s->tilt[k] /= sqrt(norm);

    double quartile = lh_sim_math_quantile(0.75);
    double length_mid = 0.5 * lh_sim_math_ln(LENGTH_P25 * LENGTH_P75);
    double length_dev = lh_sim_math_ln(LENGTH_P75 / LENGTH_P25) / (2.0 * quartile);
    double gap_mid = 0.5 * lh_sim_math_ln(GAP_P25 * GAP_P75);
    double gap_dev = lh_sim_math_ln(GAP_P75 / GAP_P25) / (2.0 * quartile);
    for (int i = 0; i < SIM_LEVELS; i++) {
        double z = lh_sim_math_quantile((i + 0.5) / SIM_LEVELS);
        double length = lh_sim_math_exp(length_mid + length_dev * z);
        s->length[i] = length < 1.05 ? 1.05 : length;
        s->gap[i] = lh_sim_math_exp(gap_mid + gap_dev * z);
    }
    s->gap_p75 = GAP_P75;

    s->fit0 = behaviour_fit(c);
    s->lure0 = c->lure;
    double lure_var =
        0.5 * LURE_HABIT * LURE_HABIT + 0.25 * LURE_SPREAD * LURE_SPREAD * c->noise * c->noise;
    s->sat0 = s->fit0 * (1.0 - c->erosion * (c->lure * c->lure + lure_var));
    /* E[gap] = usual gap: the mean of a log-normal, and of what moves its median. */
    double fit_var = 0.04 * c->return_by_fit * c->return_by_fit +
                     lure_var * c->return_by_lure * c->return_by_lure +
                     0.005 * c->return_by_long * c->return_by_long;
    s->log_gap0 = -0.5 * (SIM_GAP_SIGMA * SIM_GAP_SIGMA + fit_var);
}

/* --- a user ----------------------------------------------------------------------------------- */

static struct lh_rng_at at_request(const struct sim_user *u, const char *purpose)
{
    return (struct lh_rng_at){.seed = u->seed,
                              .purpose = lh_rng_purpose(purpose),
                              .part = u->request,
                              .step = u->id << 20 | (u->session & 0xFFFFF)};
}

static double clip(double x, double lo, double hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* What attributes alone put into the hidden layer: once per user. */
static void begin_hidden(const struct lh_sim *s, struct sim_user *u)
{
    for (int j = 0; j < SIM_HIDDEN; j++) {
        u->hidden[j] = s->in_bias[j];
        for (int i = 0; i < SIM_STATIC; i++)
            u->hidden[j] += s->in_static[j][i] * u->attribute[i];
    }
}

/* The ideal action, Eq. S2, of the present request. */
static void aim(const struct lh_sim *s, struct sim_user *u)
{
    double h[SIM_HIDDEN];
    for (int j = 0; j < SIM_HIDDEN; j++) {
        double x = u->hidden[j];
        for (int i = 0; i < SIM_TOPICS; i++)
            x += s->in_topic[j][i] * u->topic[i];
        h[j] = lh_sim_math_tanh(x);
    }
    for (int k = 0; k < LH_SIM_TASTE; k++) {
        double x = 0;
        for (int j = 0; j < SIM_HIDDEN; j++)
            x += s->out[k][j] * h[j];
        u->ideal[k] = lh_sim_math_tanh(x);
    }
}

/* Writes what policies see of the user now. */
static void show(const struct lh_sim *s, struct sim_user *u)
{
    for (int i = 0; i < SIM_STATIC; i++)
        u->high[i] = (float)u->attribute[i];
    float *h = u->high + SIM_STATIC;
    h[0] = (float)lh_sim_math_ln(s->length[u->length_level]);
    h[1] = (float)lh_sim_math_ln(s->gap[u->gap_level]);
    h[2] = (float)u->satisfaction;
    h[3] = (float)u->recent_length;
    h[4] = (float)u->recent_gap;
    h[5] = (float)lh_sim_math_ln(1.0 + (double)u->session);
    for (int i = 0; i < SIM_TOPICS; i++)
        u->low[i] = (float)u->topic[i];
    float *l = u->low + SIM_TOPICS;
    l[0] = (float)lh_sim_math_ln((double)u->request);
    l[1] = (float)u->last_fit;
    l[2] = (float)u->mean_fit;
    l[3] = (float)u->mean_lure;
}

static void new_topic(struct sim_user *u, double keep)
{
    struct lh_rng_at at = at_request(u, "sim.topic");
    double fresh = sqrt(1.0 - keep * keep);
    for (int i = 0; i < SIM_TOPICS; i++)
        u->topic[i] = keep * u->topic[i] + fresh * lh_rng_normal1(&at, (uint64_t)i);
}

void lh_sim_user_init(const struct lh_sim *s, uint64_t seed, uint64_t id, struct sim_user *u)
{
    memset(u, 0, sizeof *u);
    u->seed = seed;
    u->id = id;
    u->request = 1;
    struct lh_rng_at kind = {.seed = seed, .purpose = lh_rng_purpose("sim.user"), .step = id};
    u->attribute[lh_rng_below(&kind, 0, 2)] = 1.0;
    u->attribute[2 + lh_rng_below(&kind, 1, 4)] = 1.0;
    u->length_level = (uint8_t)lh_rng_below(&kind, 2, SIM_LEVELS);
    u->gap_level = (uint8_t)lh_rng_below(&kind, 3, SIM_LEVELS);
    u->now_us = START_US + (int64_t)lh_rng_below(&kind, 4, 86400) * 1000000;
    struct lh_rng_at taste = {.seed = seed, .purpose = lh_rng_purpose("sim.taste"), .step = id};
    for (uint64_t i = 0; i < SIM_PREFS; i++)
        u->attribute[6 + i] = clip(lh_rng_normal1(&taste, i), -2.5, 2.5);
    u->satisfaction = lh_sim_start_satisfaction(s, lh_rng_normal1(&taste, SIM_PREFS));

    double spread = 0;
    for (int i = 0; i < SIM_STATIC; i++) {
        spread += s->spread_static[i] * u->attribute[i];
        u->lure_bias += s->lure_static[i] * u->attribute[i];
    }
    u->spread = s->c.noise * lh_sim_math_exp(SPREAD_RANGE * lh_sim_math_tanh(spread));
    begin_hidden(s, u);
    u->last_fit = u->mean_fit = s->fit0;
    u->mean_lure = s->lure0;
    new_topic(u, 0.0);
    aim(s, u);
    show(s, u);
}

static uint8_t nearest_level(const double *levels, double ln)
{
    uint8_t best = 0;
    for (uint8_t i = 1; i < SIM_LEVELS; i++)
        if (fabs(lh_sim_math_ln(levels[i]) - ln) < fabs(lh_sim_math_ln(levels[best]) - ln))
            best = i;
    return best;
}

void lh_sim_user_recall(const struct lh_sim *s, const float *high, const float *low,
                        struct sim_user *u)
{
    memset(u, 0, sizeof *u);
    for (int i = 0; i < SIM_STATIC; i++)
        u->attribute[i] = (double)high[i];
    for (int i = 0; i < SIM_TOPICS; i++)
        u->topic[i] = (double)low[i];
    const float *h = high + SIM_STATIC;
    u->length_level = nearest_level(s->length, (double)h[0]);
    u->gap_level = nearest_level(s->gap, (double)h[1]);
    u->satisfaction = (double)h[2];
    u->request = (uint32_t)(lh_sim_math_exp((double)low[SIM_TOPICS]) + 0.5);
    begin_hidden(s, u);
    aim(s, u);
}

uint64_t lh_sim_user_sessions(const struct lh_sim *s, uint64_t seed, uint64_t id, double mean)
{
    (void)s;
    struct lh_rng_at at = {.seed = seed, .purpose = lh_rng_purpose("sim.visits"), .step = id};
    double quartile = lh_sim_math_quantile(0.75);
    double mid = 0.5 * lh_sim_math_ln(VISITS_P25 * VISITS_P75 / (VISITS_AVG * VISITS_AVG));
    double dev = lh_sim_math_ln(VISITS_P75 / VISITS_P25) / (2.0 * quartile);
    double z = clip(lh_rng_normal1(&at, 0), -3.0, 2.5);
    double n = mean * lh_sim_math_exp(mid + dev * z);
    return n < 1.0 ? 1 : (uint64_t)(n + 0.5);
}

/* --- responses -------------------------------------------------------------------------------- */

double lh_sim_start_satisfaction(const struct lh_sim *s, double z)
{
    return clip(s->sat0 + 0.08 * clip(z, -2.5, 2.5), 0.0, 1.0);
}

double lh_sim_satisfy(const struct lh_sim *s, double satisfaction, double fit, double lure)
{
    double target = fit * (1.0 - s->c.erosion * lure * lure);
    return satisfaction + s->c.memory * (target - satisfaction); /* Eq. S4 */
}

double lh_sim_hazard(const struct lh_sim *s, unsigned length_level, double satisfaction,
                     double lure)
{
    double stay =
        s->c.stay_by_long * (satisfaction - s->sat0) + s->c.stay_by_lure * (lure - s->lure0);
    return clip(lh_sim_math_exp(-stay) / s->length[length_level], 0.01, 0.98); /* Eq. S5 */
}

double lh_sim_sooner(const struct lh_sim *s, double satisfaction, double fit, double lure)
{
    return s->c.return_by_long * (satisfaction - s->sat0) + s->c.return_by_fit * (fit - s->fit0) +
           s->c.return_by_lure * (lure - s->lure0) - s->log_gap0; /* Eq. S6 */
}

double lh_sim_reward_length(const struct lh_sim *s, unsigned length_level, double length)
{
    return lh_reward_session_length(length, s->length[length_level]);
}

static double lure_of(double a)
{
    return clip(0.5 * (a + 1.0), 0.0, 1.0);
}

static void end_session(const struct lh_sim *s, struct sim_user *u, struct sim_outcome *o)
{
    struct lh_rng_at at = at_request(u, "sim.return");
    at.part = 0; /* the luck of a return belongs to the session, however long that was */
    double usual = s->gap[u->gap_level];
    double hours = usual * lh_sim_math_exp(-lh_sim_sooner(s, u->satisfaction, o->fit, o->lure) +
                                           SIM_GAP_SIGMA * lh_rng_normal1(&at, 0));
    /* Whole seconds, so that a log's timestamps give the very gap that was rewarded. */
    int64_t seconds = (int64_t)clip(hours * 3600.0 + 0.5, 60.0, 3600.0 * 24 * 365);
    o->gap = (double)seconds / 3600.0;
    o->length = u->request;
    o->reward = s->c.weight_return * (double)lh_reward_return_time(o->gap, usual, s->gap_p75) +
                s->c.weight_length *
                    lh_sim_reward_length(s, u->length_level, (double)u->request); /* Eq. S7 */
    double length_ratio = lh_sim_math_ln((double)u->request / s->length[u->length_level]);
    double gap_ratio = lh_sim_math_ln(o->gap / usual);
    u->recent_length += HABIT_RATE * (length_ratio - u->recent_length);
    u->recent_gap += HABIT_RATE * (gap_ratio - u->recent_gap);
    u->now_us += seconds * 1000000;
    u->session++;
    u->request = 1;
}

void lh_sim_user_step(const struct lh_sim *s, struct sim_user *u, const float *action,
                      struct sim_outcome *o)
{
    memset(o, 0, sizeof *o);
    double miss = 0;
    for (int k = 0; k < LH_SIM_TASTE; k++) {
        double d = (double)action[k] - u->ideal[k];
        miss += d * d;
    }
    o->fit = lh_sim_math_exp(-0.5 * miss / (s->c.width * s->c.width)); /* Eq. S3 */
    o->lure = lure_of(action[LH_SIM_TASTE]);
    u->satisfaction = lh_sim_satisfy(s, u->satisfaction, o->fit, o->lure);

    u->last_fit = o->fit;
    double share = u->request == 1 ? 1.0 : 0.4; /* a running mean that starts anew by session */
    u->mean_fit += share * (o->fit - u->mean_fit);
    u->mean_lure += share * (o->lure - u->mean_lure);
    struct lh_rng_at quit = at_request(u, "sim.quit");
    o->ended =
        lh_rng_uniform1(&quit, 0) < lh_sim_hazard(s, u->length_level, u->satisfaction, o->lure);
    if (o->ended) {
        end_session(s, u, o);
        new_topic(u, 0.0);
    } else {
        struct lh_rng_at pace = at_request(u, "sim.pace");
        u->now_us += (int64_t)(5.0 + 40.0 * o->fit + 20.0 * lh_rng_uniform1(&pace, 0)) * 1000000;
        u->request++;
        new_topic(u, TOPIC_KEEP);
    }
    aim(s, u);
    show(s, u);
}

/* --- policies --------------------------------------------------------------------------------- */

/* Eq. S8: the ideal taste, moved by a bias of fixed length that pulls to the middle and to one
 * side; and a lure by habit. */
static void behave(const struct lh_sim *s, const struct sim_user *u, double noise, float *action)
{
    double pull[LH_SIM_TASTE], norm = 1e-12;
    for (int k = 0; k < LH_SIM_TASTE; k++) {
        pull[k] = s->tilt[k] - SHRINK * u->ideal[k];
        norm += pull[k] * pull[k];
    }
    struct lh_rng_at at = at_request(u, "sim.behaviour");
    double scale = s->c.bias / sqrt(norm), sigma = noise * u->spread;
    for (int k = 0; k < LH_SIM_TASTE; k++)
        action[k] =
            (float)(u->ideal[k] + scale * pull[k] + sigma * lh_rng_normal1(&at, (uint64_t)k));
    double habit = u->lure_bias;
    for (int i = 0; i < SIM_TOPICS; i++)
        habit += s->lure_topic[i] * u->topic[i];
    double lure = s->c.lure + LURE_HABIT * lh_sim_math_tanh(habit);
    action[LH_SIM_TASTE] =
        (float)(2.0 * lure - 1.0 + LURE_SPREAD * sigma * lh_rng_normal1(&at, LH_SIM_TASTE));
}

void lh_sim_user_act(const struct lh_sim *s, const struct sim_user *u, enum lh_sim_policy policy,
                     const struct lh_sim_plan *plan, float *action)
{
    switch (policy) {
    case LH_SIM_BEHAVIOUR:
        behave(s, u, 1.0, action);
        return;
    case LH_SIM_MEAN:
        behave(s, u, 0.0, action);
        return;
    case LH_SIM_RANDOM: {
        struct lh_rng_at at = at_request(u, "sim.random");
        for (int k = 0; k < LH_SIM_ACTION; k++)
            action[k] = (float)(2.0 * lh_rng_uniform1(&at, (uint64_t)k) - 1.0);
        return;
    }
    default: {
        double fit, lure;
        lh_sim_plan_decide(plan, u->length_level, u->gap_level, u->request, u->satisfaction, &fit,
                           &lure);
        for (int k = 0; k < LH_SIM_TASTE; k++)
            action[k] = (float)u->ideal[k];
        if (fit < 1.0) /* a miss of the length that gives this fit */
            action[0] += (float)(s->c.width * sqrt(-2.0 * lh_sim_math_ln(fit < 1e-6 ? 1e-6 : fit)));
        action[LH_SIM_TASTE] = (float)(2.0 * lure - 1.0);
        return;
    }
    }
}

/* --- life cycle and config -------------------------------------------------------------------- */

void lh_sim_config_default(struct lh_sim_config *c)
{
    *c = (struct lh_sim_config){.world_seed = 1,
                                .bias = 0.4,
                                .noise = 0.2,
                                .width = 0.4,
                                .lure = 0.6,
                                .gamma = 0.9,
                                .weight_return = 0.7,
                                .weight_length = 0.3,
                                .memory = 0.2,
                                .return_by_long = 2.2,
                                .return_by_fit = 1.2,
                                .return_by_lure = 0.8,
                                .stay_by_long = 0.4,
                                .stay_by_lure = 0.15,
                                .erosion = 0.9};
}

const struct sim_member sim_members[SIM_MEMBERS] = {
    {"bias", offsetof(struct lh_sim_config, bias), 0, 2},
    {"noise", offsetof(struct lh_sim_config, noise), 1e-3, 1},
    {"width", offsetof(struct lh_sim_config, width), 1e-2, 10},
    {"lure", offsetof(struct lh_sim_config, lure), 0, 1},
    {"gamma", offsetof(struct lh_sim_config, gamma), 0, 0.999},
    {"weight_return", offsetof(struct lh_sim_config, weight_return), 0, 10},
    {"weight_length", offsetof(struct lh_sim_config, weight_length), 0, 10},
    {"memory", offsetof(struct lh_sim_config, memory), 0, 1},
    {"return_by_long", offsetof(struct lh_sim_config, return_by_long), 0, 5},
    {"return_by_fit", offsetof(struct lh_sim_config, return_by_fit), 0, 5},
    {"return_by_lure", offsetof(struct lh_sim_config, return_by_lure), 0, 5},
    {"stay_by_long", offsetof(struct lh_sim_config, stay_by_long), 0, 5},
    {"stay_by_lure", offsetof(struct lh_sim_config, stay_by_lure), 0, 5},
    {"erosion", offsetof(struct lh_sim_config, erosion), 0, 1},
};

int lh_sim_create(struct lh_sim **out, const struct lh_sim_config *config)
{
    for (size_t i = 0; i < SIM_MEMBERS; i++) {
        const struct sim_member *m = &sim_members[i];
        double v;
        memcpy(&v, (const char *)config + m->offset, sizeof v);
        if (!(v >= m->min && v <= m->max))
            return lh_err_set(LH_ERANGE, "simulation: %s is %g; it must be from %g to %g", m->name,
                              v, m->min, m->max);
    }
    if (config->world_seed > LH_SIM_SEED_MAX)
        return lh_err_set(LH_ERANGE, "simulation: the world's seed is above 2^53 - 1");
    struct lh_sim *s = NULL;
    LH_TRY(LH_NEW(&s, "simulated world"));
    s->c = *config;
    draw_world(s);
    *out = s;
    return 0;
}

void lh_sim_destroy(struct lh_sim **sim)
{
    lh_mem_free(*sim);
    *sim = NULL;
}

const struct lh_sim_config *lh_sim_config_of(const struct lh_sim *sim)
{
    return &sim->c;
}
