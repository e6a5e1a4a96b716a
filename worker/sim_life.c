/* One user's life under the behaviour policy, recorded; and what many lives are on average. */
#include "common/err.h"
#include "common/mem.h"
#include "worker/sim_log_internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Capacities follow `cap` together; an array that could not grow is still of the old size. */
static int grow(struct sim_life *life)
{
    size_t cap = life->cap ? 2 * life->cap : 256;
    LH_TRY(lh_mem_realloc((void **)&life->high, cap, sizeof(float) * LH_SIM_HIGH, "states"));
    LH_TRY(lh_mem_realloc((void **)&life->low, cap, sizeof(float) * LH_SIM_LOW, "states"));
    LH_TRY(lh_mem_realloc((void **)&life->action, cap, sizeof(float) * LH_SIM_ACTION, "actions"));
    LH_TRY(lh_mem_realloc((void **)&life->reward, cap, sizeof(float), "rewards"));
    LH_TRY(lh_mem_realloc((void **)&life->time_us, cap, sizeof(int64_t), "times"));
    LH_TRY(lh_mem_realloc((void **)&life->session, cap, sizeof(uint32_t), "sessions"));
    LH_TRY(lh_mem_realloc((void **)&life->position, cap, sizeof(uint32_t), "positions"));
    LH_TRY(lh_mem_realloc((void **)&life->length, cap, sizeof(uint32_t), "session lengths"));
    LH_TRY(lh_mem_realloc((void **)&life->gap, cap, sizeof(double), "return times"));
    life->cap = cap;
    return 0;
}

int lh_sim_life_live(struct sim_life *life, const struct lh_sim *sim, uint64_t seed, uint64_t user,
                     uint64_t sessions)
{
    struct sim_user u;
    lh_sim_user_init(sim, seed, user, &u);
    life->n = 0;
    life->sessions = sessions;
    life->hours = life->rewards = 0;
    while (u.session < sessions) {
        if (life->n == life->cap)
            LH_TRY(grow(life));
        size_t i = life->n++;
        float *action = life->action + i * LH_SIM_ACTION;
        memcpy(life->high + i * LH_SIM_HIGH, u.high, sizeof u.high);
        memcpy(life->low + i * LH_SIM_LOW, u.low, sizeof u.low);
        life->time_us[i] = u.now_us;
        life->session[i] = (uint32_t)u.session;
        life->position[i] = u.request;
        struct sim_outcome o;
        lh_sim_user_act(sim, &u, LH_SIM_BEHAVIOUR, NULL, action);
        lh_sim_user_step(sim, &u, action, &o);
        life->reward[i] = (float)o.reward;
        life->length[i] = o.length;
        life->gap[i] = o.gap;
        life->hours += o.gap;
        life->rewards += o.reward;
    }
    return 0;
}

void lh_sim_life_fini(struct sim_life *life)
{
    lh_mem_free(life->high);
    lh_mem_free(life->low);
    lh_mem_free(life->action);
    lh_mem_free(life->reward);
    lh_mem_free(life->time_us);
    lh_mem_free(life->session);
    lh_mem_free(life->position);
    lh_mem_free(life->length);
    lh_mem_free(life->gap);
    memset(life, 0, sizeof *life);
}

struct sim_summary lh_sim_life_summary(const struct sim_life *life)
{
    double sessions = (double)life->sessions, requests = (double)life->n;
    return (struct sim_summary){(float)(requests / sessions), (float)(life->hours / sessions),
                                (float)(life->rewards / requests), (uint32_t)life->sessions,
                                (uint32_t)life->n};
}

static int by_length(const void *a, const void *b)
{
    float x = ((const struct sim_summary *)a)->length, y = ((const struct sim_summary *)b)->length;
    return (x > y) - (x < y);
}

static int by_hours(const void *a, const void *b)
{
    float x = ((const struct sim_summary *)a)->hours, y = ((const struct sim_summary *)b)->hours;
    return (x > y) - (x < y);
}

static int by_sessions(const void *a, const void *b)
{
    uint32_t x = ((const struct sim_summary *)a)->sessions;
    uint32_t y = ((const struct sim_summary *)b)->sessions;
    return (x > y) - (x < y);
}

void lh_sim_life_info(struct sim_summary *users, size_t n, struct lh_sim_log_info *out)
{
    *out = (struct lh_sim_log_info){.users = n};
    for (size_t i = 0; i < n; i++) {
        out->sessions += users[i].sessions;
        out->requests += users[i].requests;
        out->length_mean += (double)users[i].length / (double)n;
        out->reward += (double)users[i].reward / (double)n;
    }
    out->visits_mean = (double)out->sessions / (double)n;
    size_t low = n / 4, high = 3 * n / 4;
    qsort(users, n, sizeof *users, by_length);
    out->length_p25 = (double)users[low].length;
    out->length_p75 = (double)users[high].length;
    qsort(users, n, sizeof *users, by_hours);
    out->hours_p25 = (double)users[low].hours;
    out->hours_p75 = (double)users[high].hours;
    qsort(users, n, sizeof *users, by_sessions);
    out->visits_p25 = (double)users[low].sessions;
    out->visits_p75 = (double)users[high].sessions;
}

void lh_sim_log_default(struct lh_sim_log *out)
{
    *out = (struct lh_sim_log){.users = 10000,
                               .sessions = 20,
                               .seed = 1,
                               .threads = 1,
                               .validation = 0.05,
                               .test = 0.15,
                               .hash_partitions = 1,
                               .files = 1};
}

int lh_sim_log_check(const struct lh_sim_log *log)
{
    if (log->users < 1 || log->users > LH_SIM_USERS_MAX)
        return lh_err_set(LH_ERANGE, "simulate: %llu users; expected 1 to 2^32",
                          (unsigned long long)log->users);
    if (!(log->sessions >= 1 && log->sessions <= 10000))
        return lh_err_set(LH_ERANGE, "simulate: %g sessions a user; expected 1 to 10000",
                          log->sessions);
    if (!(log->validation >= 0 && log->test >= 0 && log->validation + log->test < 1))
        return lh_err_set(LH_ERANGE,
                          "simulate: %g of the users for validation and %g for test leave none for "
                          "training",
                          log->validation, log->test);
    if (log->files < 1 || log->files > log->users || log->files > 99999)
        return lh_err_set(LH_ERANGE, "simulate: %u files for %llu users; expected 1 to %llu",
                          log->files, (unsigned long long)log->users,
                          (unsigned long long)(log->users < 99999 ? log->users : 99999));
    return 0;
}

int lh_sim_log_tell(const struct lh_sim_log *log, _Atomic uint64_t *done, uint64_t users)
{
    uint64_t now = atomic_fetch_add(done, users) + users;
    if (log->progress && log->progress(log->ctx, now))
        return lh_err_set(LH_ECANCELED, "simulate: interrupted; nothing was written");
    return 0;
}
