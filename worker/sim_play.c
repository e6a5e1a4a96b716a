/* Plays policies: blocks of 256 users go through life in lockstep, so that a policy acts on
 * batches. A block's course is a function of its number alone (which user sits in which row, the
 * number of a state for the policy's noise), so threads only change who computes a block. */
#include "worker/sim_play.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "worker/policy.h"
#include "worker/sim_internal.h"

#include <math.h>
#include <string.h>

#define BATCH LH_SIM_PLAY_BATCH
#define FRESH UINT64_C(0x9D39247E33776D41) /* seeds of plays are not those of logs */

/* What is kept of one user. */
struct tally {
    double reward, discounted, hours, fit, lure;
    uint64_t requests;
};

struct play {
    const struct lh_sim *sim;
    lh_policy_fn fn; /* NULL: the built-in policy */
    void *ctx;
    enum lh_sim_policy policy;
    const struct lh_sim_plan *plan;
    uint64_t users, sessions, seed;
    struct tally *tally; /* [users] */
};

/* The users of one block that are still to be played, compacted to the front. */
struct block {
    struct sim_user user[BATCH];
    double discount[BATCH];
    float high[BATCH * LH_SIM_HIGH], low[BATCH * LH_SIM_LOW], action[BATCH * LH_SIM_ACTION];
};

static int act(const struct play *p, struct block *b, size_t n, unsigned thread, uint64_t first)
{
    if (!p->fn) {
        for (size_t i = 0; i < n; i++)
            lh_sim_user_act(p->sim, &b->user[i], p->policy, p->plan, b->action + i * LH_SIM_ACTION);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(b->high + i * LH_SIM_HIGH, b->user[i].high, sizeof b->user[i].high);
        memcpy(b->low + i * LH_SIM_LOW, b->user[i].low, sizeof b->user[i].low);
    }
    LH_TRY(p->fn(p->ctx, thread, b->high, b->low, n, p->seed, first, b->action));
    for (size_t i = 0; i < n * LH_SIM_ACTION; i++)
        if (!isfinite(b->action[i]))
            return lh_err_set(
                LH_ERANGE,
                "simulation: the policy's action for user %llu is not finite (%s); it "
                "cannot be played",
                (unsigned long long)b->user[i / LH_SIM_ACTION].id,
                lh_sim_names(2)[i % LH_SIM_ACTION]);
    return 0;
}

/* One request of user i. Returns whether the user's life goes on. */
static bool live(const struct play *p, struct block *b, size_t i)
{
    struct sim_outcome o;
    struct sim_user *u = &b->user[i];
    struct tally *t = &p->tally[u->id];
    lh_sim_user_step(p->sim, u, b->action + i * LH_SIM_ACTION, &o);
    t->reward += o.reward;
    t->discounted += b->discount[i] * o.reward;
    b->discount[i] *= p->sim->c.gamma;
    t->hours += o.gap;
    t->fit += o.fit;
    t->lure += o.lure;
    t->requests++;
    return u->session < p->sessions;
}

static int play_block(void *ctx, size_t index, unsigned thread)
{
    const struct play *p = ctx;
    uint64_t first_user = (uint64_t)index * BATCH, first = (uint64_t)index << 32;
    size_t n = p->users - first_user < BATCH ? (size_t)(p->users - first_user) : BATCH;
    struct block *b = NULL;
    LH_TRY(lh_mem_alloc_aligned((void **)&b, 1, sizeof *b, "users of a play"));
    for (size_t i = 0; i < n; i++) {
        lh_sim_user_init(p->sim, p->seed ^ FRESH, first_user + i, &b->user[i]);
        b->discount[i] = 1.0;
    }
    int rc = 0;
    while (n > 0) {
        LH_TRY_TO(done, act(p, b, n, thread, first));
        first += BATCH; /* not n: a policy's rows stay aligned with its own batches */
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (live(p, b, i)) {
                if (kept != i) {
                    b->user[kept] = b->user[i];
                    b->discount[kept] = b->discount[i];
                }
                kept++;
            }
        n = kept;
    }
done:
    lh_mem_free(b);
    return rc;
}

/* Welford over users in order: the same bits for any number of threads. */
struct moments {
    double mean, m2;
};

static void observe(struct moments *m, double x, uint64_t k)
{
    double d = x - m->mean;
    m->mean += d / (double)(k + 1);
    m->m2 += d * (x - m->mean);
}

static struct lh_sim_mean mean_of(const struct moments *m, uint64_t n)
{
    double var = n > 1 ? m->m2 / (double)(n - 1) : 0.0;
    return (struct lh_sim_mean){m->mean, sqrt(var / (double)n)};
}

static void summarise(const struct play *p, struct lh_sim_value *out)
{
    struct moments reward = {0}, discounted = {0}, length = {0}, hours = {0}, fit = {0}, lure = {0};
    out->users = p->users;
    out->requests = 0;
    for (uint64_t i = 0; i < p->users; i++) {
        const struct tally *t = &p->tally[i];
        double n = (double)t->requests, sessions = (double)p->sessions;
        observe(&reward, t->reward / n, i);
        observe(&discounted, t->discounted, i);
        observe(&length, n / sessions, i);
        observe(&hours, t->hours / sessions, i);
        observe(&fit, t->fit / n, i);
        observe(&lure, t->lure / n, i);
        out->requests += t->requests;
        if (out->reward_of_user)
            out->reward_of_user[i] = t->reward / n;
        if (out->discounted_of_user)
            out->discounted_of_user[i] = t->discounted;
    }
    out->reward = mean_of(&reward, p->users);
    out->discounted = mean_of(&discounted, p->users);
    out->session_length = mean_of(&length, p->users);
    out->return_hours = mean_of(&hours, p->users);
    out->fit = mean_of(&fit, p->users);
    out->lure = mean_of(&lure, p->users);
}

static int run(struct play *p, unsigned threads, struct lh_sim_value *out)
{
    if (p->users == 0 || p->users > LH_SIM_USERS_MAX || p->sessions == 0 ||
        p->sessions > LH_SIM_SESSIONS_MAX)
        return lh_err_set(
            LH_ERANGE,
            "simulation: %llu users with %llu sessions; expected 1 to 2^32 users and 1 "
            "to 2^20 sessions",
            (unsigned long long)p->users, (unsigned long long)p->sessions);
    LH_TRY(LH_NEW_ARRAY(&p->tally, p->users, "values of users"));
    int rc = lh_pool_run(threads, (size_t)((p->users + BATCH - 1) / BATCH), play_block, p);
    if (rc == 0)
        summarise(p, out);
    lh_mem_free(p->tally);
    return rc;
}

int lh_sim_play(const struct lh_sim *sim, lh_policy_fn fn, void *ctx, uint64_t users,
                uint64_t sessions, uint64_t seed, unsigned threads, struct lh_sim_value *out)
{
    struct play p = {
        .sim = sim, .fn = fn, .ctx = ctx, .users = users, .sessions = sessions, .seed = seed};
    return run(&p, threads, out);
}

int lh_sim_play_builtin(const struct lh_sim *sim, enum lh_sim_policy policy,
                        const struct lh_sim_plan *plan, uint64_t users, uint64_t sessions,
                        uint64_t seed, unsigned threads, struct lh_sim_value *out)
{
    struct play p = {.sim = sim,
                     .policy = policy,
                     .plan = plan,
                     .users = users,
                     .sessions = sessions,
                     .seed = seed};
    return run(&p, threads, out);
}

/* --- trained policies ------------------------------------------------------------------------- */

struct lh_sim_players {
    unsigned n;
    struct lh_policy *policy[];
};

int lh_sim_players_create(struct lh_sim_players **out, const struct lh_policy *policy,
                          unsigned threads)
{
    const struct lh_dims *d = &lh_policy_job(policy)->dims;
    if (d->high != LH_SIM_HIGH || d->low != LH_SIM_LOW || d->action != LH_SIM_ACTION)
        return lh_err_set(
            LH_EMISMATCH,
            "simulation: the policy takes states of %u + %u columns and gives actions "
            "of %u, the world has %d + %d and %d; train it on a log of the world",
            d->high, d->low, d->action, LH_SIM_HIGH, LH_SIM_LOW, LH_SIM_ACTION);
    struct lh_sim_players *p = NULL;
    int rc = 0;
    threads = threads < 1 ? 1 : threads;
    LH_TRY(lh_mem_alloc((void **)&p, 1, sizeof *p + threads * sizeof *p->policy, "players"));
    p->n = threads;
    for (unsigned i = 0; i < threads; i++)
        LH_TRY_TO(fail, lh_policy_clone(&p->policy[i], policy));
    *out = p;
    return 0;
fail:
    lh_sim_players_destroy(&p);
    return rc;
}

void lh_sim_players_destroy(struct lh_sim_players **players)
{
    struct lh_sim_players *p = *players;
    if (!p)
        return;
    for (unsigned i = 0; i < p->n; i++)
        lh_policy_destroy(&p->policy[i]);
    lh_mem_free(p);
    *players = NULL;
}

int lh_sim_players_act(void *players, unsigned thread, const float *high, const float *low,
                       size_t n, uint64_t seed, uint64_t first, float *action)
{
    struct lh_sim_players *p = players;
    return lh_policy_act(p->policy[thread], high, low, n, seed, first, action, NULL);
}

int lh_sim_play_policy(const struct lh_sim *sim, const struct lh_policy *policy, uint64_t users,
                       uint64_t sessions, uint64_t seed, unsigned threads, struct lh_sim_value *out)
{
    struct lh_sim_players *p = NULL;
    LH_TRY(lh_sim_players_create(&p, policy, threads));
    int rc = lh_sim_play(sim, lh_sim_players_act, p, users, sessions, seed, threads, out);
    lh_sim_players_destroy(&p);
    return rc;
}

struct lh_sim_difference lh_sim_play_difference(const double *a, const double *b, uint64_t n)
{
    struct moments m = {0};
    for (uint64_t i = 0; i < n; i++)
        observe(&m, a[i] - b[i], i);
    struct lh_sim_mean d = mean_of(&m, n);
    return (struct lh_sim_difference){d.mean, d.mean - 1.959964 * d.se, d.mean + 1.959964 * d.se};
}
