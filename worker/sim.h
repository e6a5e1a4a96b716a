/* The simulator: a world of users with sessions and requests in which the value of a policy is
 * known. worker/SIMULATOR.md has the equations; sim.c is the world, sim_optimum.c its best policy,
 * sim_log.h writes logs, sim_play.h plays policies.
 *
 * The world is Markov in what policies see: a state of H + L numbers decides, with the action, the
 * distribution of everything that follows. All randomness is keyed by (seed, user, session,
 * request, purpose), so two policies meet the same users on the same days with the same luck. No
 * function of the C library whose bits differ between processors reaches a log. */
#pragma once

#include "common/dataset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_SIM_HIGH   16 /* H: columns of s_h */
#define LH_SIM_LOW    8  /* L: columns of s_l */
#define LH_SIM_TASTE  5  /* action columns that are to fit the user */
#define LH_SIM_ACTION 6  /* A: taste, then lure */

#define LH_SIM_SEED_MAX ((UINT64_C(1) << 53) - 1) /* what JSON's numbers hold */

#define LH_SIM_USERS_MAX    (UINT64_C(1) << 32)
#define LH_SIM_SESSIONS_MAX (UINT64_C(1) << 20) /* of one user */

/* What makes a world. The same config is the same world, for any seed of a log or a play. */
struct lh_sim_config {
    uint64_t world_seed;   /* <= LH_SIM_SEED_MAX; draws the networks of ideal action and habits */
    double bias;           /* distance of the behaviour policy's mean from the ideal action */
    double noise;          /* mean standard deviation of the behaviour policy, per column */
    double width;          /* w: how far an action may miss before the fit drops */
    double lure;           /* the behaviour policy's mean lure, 0 .. 1 */
    double gamma;          /* discount of the return and of the optimum */
    double weight_return;  /* of the reward of a return, ResAct Eq. 21 */
    double weight_length;  /* of the reward of a session's length, Eq. 22 */
    double memory;         /* share of satisfaction that one request replaces */
    double return_by_long; /* how satisfaction, ... */
    double return_by_fit;  /* ... the fit of the last item ... */
    double return_by_lure; /* ... and its lure shorten the return time (log per unit) */
    double stay_by_long;   /* how satisfaction and ... */
    double stay_by_lure;   /* ... lure lengthen a session (log hazard per unit) */
    double erosion;        /* share of the fit that a lure of 1 takes from satisfaction */
};

void lh_sim_config_default(struct lh_sim_config *out);

/* Sets a member from text, "bias=0.3". Errors: LH_EUSAGE naming the nearest member, or what is no
 * number; the range is create's to check. */
int lh_sim_config_set(struct lh_sim_config *config, const char *assignment);

struct lh_sim;

/* Errors: LH_ERANGE naming the member that is out of range; LH_ENOMEM. */
int lh_sim_create(struct lh_sim **out, const struct lh_sim_config *config);
/* The world of a dataset that `longhaul simulate` wrote or that was imported under a schema with a
 * `simulation` section. Returns LH_NOTFOUND if the dataset is no simulation. */
int lh_sim_from_dataset(struct lh_sim **out, const struct lh_dataset *ds);
/* Reads what lh_sim_json wrote: an object with a member "simulation". LH_NOTFOUND without it. */
int lh_sim_from_json(struct lh_sim **out, const char *json);
void lh_sim_destroy(struct lh_sim **sim);

const struct lh_sim_config *lh_sim_config_of(const struct lh_sim *sim);
/* {"simulation": {"version": 1, "world_seed": …, …}}; the caller frees. */
int lh_sim_json(const struct lh_sim *sim, char **out);
/* As lh_sim_from_json from a file. Errors: also LH_ENOENT, LH_EFORMAT if it holds no world. */
int lh_sim_load(struct lh_sim **out, const char *path);
/* The same members as lines of YAML, each with `indent` in front; the caller frees. */
int lh_sim_yaml(const struct lh_sim *sim, const char *indent, char **out);

void lh_sim_dims(struct lh_dims *out); /* classes 0 */
/* group 0 high, 1 low, 2 action */
const char *const *lh_sim_names(int group);

/* --- the policies the world knows ------------------------------------------------------------- */
enum lh_sim_policy {
    LH_SIM_BEHAVIOUR, /* what logs are drawn from */
    LH_SIM_MEAN,      /* its mean: what perfect imitation would do */
    LH_SIM_GREEDY,    /* the best for gamma = 0 */
    LH_SIM_OPTIMUM,   /* the best for the world's gamma */
    LH_SIM_RANDOM,    /* uniform in [-1, 1] */
    LH_SIM_POLICIES
};
extern const char *const lh_sim_policy_names[LH_SIM_POLICIES];

/* The best policy by dynamic programming, for one gamma. Depends on the world only. */
struct lh_sim_plan;
int lh_sim_optimum_create(struct lh_sim_plan **out, const struct lh_sim *sim, double gamma);
void lh_sim_optimum_destroy(struct lh_sim_plan **plan);
/* The value of a fresh user under the plan, mean over the population: what the discounted return of
 * a long play of the optimum converges to. */
double lh_sim_optimum_value(const struct lh_sim_plan *plan);
/* Lowest fit that the plan asks for anywhere on its grid (1: the ideal taste is best everywhere),
 * and the least and greatest lure. */
void lh_sim_optimum_range(const struct lh_sim_plan *plan, double *fit_min, double *lure_min,
                          double *lure_max);
