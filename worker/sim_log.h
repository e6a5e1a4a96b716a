/* Generating logs: the behaviour policy serves users of the simulated world, and what happened is
 * written down, as raw CSV for `longhaul import` or straight as a dataset. */
#pragma once

#include "worker/sim.h"

struct lh_sim_log {
    uint64_t users;
    double sessions; /* mean per user; a few users have many, most have few (ResAct Table 1) */
    uint64_t seed;
    unsigned threads;         /* the bytes do not depend on it */
    double validation, test;  /* shares of users; of a dataset */
    uint32_t hash_partitions; /* per split (and day); of a dataset */
    bool by_day;              /* of a dataset */
    unsigned files;           /* of a CSV log: users in order, an equal share each */
    bool gzip;                /* of a CSV log */
    bool replace;             /* what is at the target may be replaced if it is of the same kind */
    /* NULL, or called from any thread with users done so far; true ends the work: LH_ECANCELED. */
    bool (*progress)(void *ctx, uint64_t users_done);
    void *ctx;
};

void lh_sim_log_default(struct lh_sim_log *out);

/* What a log contains, as ResAct Table 1 has it. Percentiles are over users. */
struct lh_sim_log_info {
    uint64_t users, sessions, requests;
    double length_mean, length_p25, length_p75; /* average session length */
    double hours_p25, hours_p75;                /* average return time */
    double visits_mean, visits_p25, visits_p75; /* sessions */
    double reward;                              /* per request, mean over users */
};

/* Writes DIR/log-00000.csv …, DIR/schema.yaml (ready for `longhaul import`) and DIR/world.json.
 * Columns: user_id, session_id, time (seconds since 1970), request (from 1), the state's, the
 * action's, then on the last row of a session reward, session_length, return_hours (elsewhere 0 and
 * empty). DIR appears when it is complete. Errors: LH_EEXIST, LH_EACCES, LH_ENOSPC, LH_EIO;
 * LH_ERANGE for a member out of range. `info` may be NULL. */
int lh_sim_log_csv(const struct lh_sim *sim, const struct lh_sim_log *log, const char *dir,
                   struct lh_sim_log_info *info);
/* Writes a dataset of kind "simulate" whose manifest carries the world. A user is a trajectory; it
 * is cut off, not ended: its user would have gone on. */
int lh_sim_log_dataset(const struct lh_sim *sim, const struct lh_sim_log *log, const char *dir,
                       struct lh_sim_log_info *info);
