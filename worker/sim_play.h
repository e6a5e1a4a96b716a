/* Playing a policy in the simulated world: its true value. */
#pragma once

#include "worker/sim.h"

/* Actions for n raw states, as lh_policy_act: the noise of state i depends on (seed, first + i).
 * Called from several threads at once, each with its own `thread` < threads.
 *   high [n, H], low [n, L], action out [n, A] raw units; n <= LH_SIM_PLAY_BATCH
 * Returns 0 or an error, which ends the play. */
typedef int (*lh_policy_fn)(void *ctx, unsigned thread, const float *high, const float *low,
                            size_t n, uint64_t seed, uint64_t first, float *action);

#define LH_SIM_PLAY_BATCH 256 /* users in lockstep */

struct lh_sim_mean {
    double mean, se; /* over users */
};

struct lh_sim_value {
    uint64_t users, requests;
    struct lh_sim_mean reward;     /* per request, mean over users: what NCIS estimates, Eq. 15 */
    struct lh_sim_mean discounted; /* return from a user's first request, the world's gamma */
    struct lh_sim_mean session_length; /* requests */
    struct lh_sim_mean return_hours;
    struct lh_sim_mean fit, lure;
    /* If not NULL: [users], filled with each user's reward and return, for paired differences. The
     * caller sets them before the play. */
    double *reward_of_user, *discounted_of_user;
};

/* Plays `users` fresh users for `sessions` sessions each: none of them is in any log, whatever its
 * seed. Other seeds are other users; policies played with one seed meet the same users with the
 * same luck. The result does not depend on
 * `threads`. Errors: what fn returns; LH_ERANGE if an action is not finite or users or sessions is
 * 0. */
int lh_sim_play(const struct lh_sim *sim, lh_policy_fn fn, void *ctx, uint64_t users,
                uint64_t sessions, uint64_t seed, unsigned threads, struct lh_sim_value *out);
/* A built-in policy. `plan` for GREEDY (made with gamma 0) and OPTIMUM, else NULL. */
int lh_sim_play_builtin(const struct lh_sim *sim, enum lh_sim_policy policy,
                        const struct lh_sim_plan *plan, uint64_t users, uint64_t sessions,
                        uint64_t seed, unsigned threads, struct lh_sim_value *out);

/* A trained policy as an lh_policy_fn: one clone a thread. `act` is the function, the players its
 * ctx. Errors: LH_EMISMATCH if the policy's widths are not the world's. */
struct lh_policy;
struct lh_sim_players;
int lh_sim_players_create(struct lh_sim_players **out, const struct lh_policy *policy,
                          unsigned threads);
void lh_sim_players_destroy(struct lh_sim_players **players);
int lh_sim_players_act(void *players, unsigned thread, const float *high, const float *low,
                       size_t n, uint64_t seed, uint64_t first, float *action);
/* All of that in one call. */
int lh_sim_play_policy(const struct lh_sim *sim, const struct lh_policy *policy, uint64_t users,
                       uint64_t sessions, uint64_t seed, unsigned threads,
                       struct lh_sim_value *out);

/* Mean of a[i] - b[i] with its 95% interval (normal approximation). n >= 1. */
struct lh_sim_difference {
    double mean, lo, hi;
};
struct lh_sim_difference lh_sim_play_difference(const double *a, const double *b, uint64_t n);
