/* What the two kinds of logs share: one user's life as arrays. */
#pragma once

#include "worker/sim_internal.h"
#include "worker/sim_log.h"

/* Rows of one user in time order. Arrays grow and are used again for the next user. */
struct sim_life {
    size_t n, cap;
    float *high, *low, *action, *reward;
    int64_t *time_us;
    uint32_t *session, *position;
    uint32_t *length; /* of the session on its last row, else 0 */
    double *gap;      /* hours to the next session on the last row of one */
    uint64_t sessions;
    double hours, rewards;
};

int lh_sim_life_live(struct sim_life *life, const struct lh_sim *sim, uint64_t seed, uint64_t user,
                     uint64_t sessions);
void lh_sim_life_fini(struct sim_life *life);

/* One user's share of lh_sim_log_info. */
struct sim_summary {
    float length, hours, reward;
    uint32_t sessions, requests;
};
struct sim_summary lh_sim_life_summary(const struct sim_life *life);
/* Reorders `users`. */
void lh_sim_life_info(struct sim_summary *users, size_t n, struct lh_sim_log_info *out);

int lh_sim_log_check(const struct lh_sim_log *log);
/* Counts `users` as done and tells the caller; LH_ECANCELED if it wants to end. */
int lh_sim_log_tell(const struct lh_sim_log *log, _Atomic uint64_t *done, uint64_t users);
