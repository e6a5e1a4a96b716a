#include "worker/sim_play.h"

#include "tests/testkit.h"
#include "worker/policy.h"
#include "worker/sim_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct lh_sim *world(void)
{
    struct lh_sim_config c;
    struct lh_sim *s = NULL;
    lh_sim_config_default(&c);
    assert_ok(lh_sim_create(&s, &c));
    return s;
}

/* A policy with noise of its own that depends on what a policy may depend on. */
static int noisy(void *ctx, unsigned thread, const float *high, const float *low, size_t n,
                 uint64_t seed, uint64_t first, float *action)
{
    (void)ctx;
    (void)thread;
    (void)high;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < LH_SIM_ACTION; k++)
            action[i * LH_SIM_ACTION + k] =
                0.3f * low[i * LH_SIM_LOW + k % 4] +
                (float)((seed + (first + i) * 2654435761u + (unsigned)k) % 1000) * 1e-3f;
    return 0;
}

static void play_any_threads_same_bits(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_value one = {0}, three = {0};
    double per_user[2][600];
    one.reward_of_user = per_user[0];
    three.reward_of_user = per_user[1];
    assert_ok(lh_sim_play(s, noisy, NULL, 600, 4, 11, 1, &one));
    assert_ok(lh_sim_play(s, noisy, NULL, 600, 4, 11, 3, &three));
    one.reward_of_user = three.reward_of_user = NULL;
    assert_memory_equal(&one, &three, sizeof one);
    assert_memory_equal(per_user[0], per_user[1], sizeof per_user[0]);
    assert_true(one.requests > 2400 && one.reward.mean > 0);
    lh_sim_destroy(&s);
}

static int not_finite(void *ctx, unsigned thread, const float *high, const float *low, size_t n,
                      uint64_t seed, uint64_t first, float *action)
{
    LH_TRY(noisy(ctx, thread, high, low, n, seed, first, action));
    action[3] = NAN;
    return 0;
}

static void play_refuses_an_action_that_is_not_finite(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_value v = {0};
    assert_err(lh_sim_play(s, not_finite, NULL, 10, 4, 1, 1, &v), LH_ERANGE, "taste_3");
    assert_err(lh_sim_play(s, noisy, NULL, 0, 4, 1, 1, &v), LH_ERANGE, "0 users");
    lh_sim_destroy(&s);
}

/* The optimum with its decisions shifted: what a test of optimality compares with. */
struct shifted {
    const struct lh_sim *sim;
    const struct lh_sim_plan *plan;
    double lure, taste;
};

static int act_shifted(void *ctx, unsigned thread, const float *high, const float *low, size_t n,
                       uint64_t seed, uint64_t first, float *action)
{
    (void)thread;
    (void)seed;
    (void)first;
    const struct shifted *p = ctx;
    for (size_t i = 0; i < n; i++) { /* from the visible state alone */
        struct sim_user u;
        memset(&u, 0, sizeof u);
        lh_sim_user_recall(p->sim, high + i * LH_SIM_HIGH, low + i * LH_SIM_LOW, &u);
        lh_sim_user_act(p->sim, &u, LH_SIM_OPTIMUM, p->plan, action + i * LH_SIM_ACTION);
        action[i * LH_SIM_ACTION] += (float)p->taste;
        action[i * LH_SIM_ACTION + LH_SIM_TASTE] += (float)(2.0 * p->lure);
    }
    return 0;
}

#define USERS    400
#define SESSIONS 25

static void play_optimum_beats_all_others_and_keeps_the_promise(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_plan *plan = NULL, *greedy = NULL;
    assert_ok(lh_sim_optimum_create(&plan, s, 0.9));
    assert_ok(lh_sim_optimum_create(&greedy, s, 0.0));
    double *best = malloc(USERS * sizeof *best), *other = malloc(USERS * sizeof *other);
    assert_true(best && other);
    struct lh_sim_value v = {.discounted_of_user = best}, w = {.discounted_of_user = other};
    assert_ok(lh_sim_play_builtin(s, LH_SIM_OPTIMUM, plan, USERS, SESSIONS, 4, 2, &v));
    double reward = v.reward.mean;
    /* 3 standard errors, and what the cut after SESSIONS loses. */
    double promise = lh_sim_optimum_value(plan);
    assert_true(fabs(v.discounted.mean - promise) < 3 * v.discounted.se + 0.02 * promise);

    for (int p = 0; p < LH_SIM_POLICIES; p++) {
        if (p == LH_SIM_OPTIMUM)
            continue;
        assert_ok(lh_sim_play_builtin(s, (enum lh_sim_policy)p, greedy, USERS, SESSIONS, 4, 2, &w));
        struct lh_sim_difference d = lh_sim_play_difference(best, other, USERS);
        assert_true(d.lo > 0.5 && d.lo < d.mean && d.mean < d.hi);
        assert_true(reward > w.reward.mean);
    }
    static const struct {
        double lure, taste, least;
    } shift[] = {{0.15, 0, 0.01}, {-0.15, 0, 0.01}, {0, 0.1, 0.03}, {0, -0.1, 0.03}};
    for (size_t i = 0; i < sizeof shift / sizeof *shift; i++) {
        struct shifted ctx = {s, plan, shift[i].lure, shift[i].taste};
        assert_ok(lh_sim_play(s, act_shifted, &ctx, USERS, SESSIONS, 4, 2, &w));
        struct lh_sim_difference d = lh_sim_play_difference(best, other, USERS);
        assert_true(d.mean > shift[i].least);
    }
    /* Unshifted it is the optimum: what policies see is enough to act as well as can be. */
    struct shifted same = {s, plan, 0, 0};
    assert_ok(lh_sim_play(s, act_shifted, &same, USERS, SESSIONS, 4, 2, &w));
    kit_assert_close(w.reward.mean, reward, 1e-3, "optimum from the visible state");
    free(best);
    free(other);
    lh_sim_optimum_destroy(&plan);
    lh_sim_optimum_destroy(&greedy);
    lh_sim_destroy(&s);
}

/* A ResAct policy with initial weights over states of these widths. */
static struct lh_policy *policy_of(uint32_t high)
{
    static const char text[] = "algorithm: resact\nnetwork: {hidden: [8], z_high: 4, z_low: 4}\n"
                               "objective: {estimators: 3}\n";
    struct lh_dims dims = {.high = high, .low = LH_SIM_LOW, .action = LH_SIM_ACTION};
    struct lh_job *job = NULL;
    struct lh_graph *g = NULL;
    struct lh_norm norm;
    struct lh_policy *policy = NULL;
    float *params = NULL;
    size_t n;
    assert_ok(lh_job_load_text(&job, text, strlen(text), "test", NULL));
    assert_ok(lh_job_resolve(job, &dims, 1));
    assert_ok(lh_norm_init(&norm, &dims));
    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 8, .dims = dims}));
    assert_ok(lh_algo_find("resact")->declare_train(g, job));
    assert_ok(lh_graph_compile(g));
    const struct lh_param *layout = lh_graph_params(g, &n);
    assert_ok(lh_mem_alloc_aligned((void **)&params, lh_graph_flat_size(g), sizeof *params, "w"));
    lh_graph_init_params(g, 1, params);
    assert_ok(lh_policy_create(&policy, job, &norm, layout, n, params));
    lh_mem_free(params);
    lh_graph_destroy(&g);
    lh_norm_fini(&norm);
    lh_job_destroy(&job);
    return policy;
}

static void play_policy_any_threads_same_bits(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_policy *policy = policy_of(LH_SIM_HIGH), *other = policy_of(LH_SIM_HIGH + 1);
    struct lh_sim_value one = {0}, three = {0};
    assert_ok(lh_sim_play_policy(s, policy, 520, 2, 1, 1, &one));
    assert_ok(lh_sim_play_policy(s, policy, 520, 2, 1, 3, &three));
    assert_memory_equal(&one, &three, sizeof one);
    assert_true(one.requests >= 1040 && one.fit.mean > 0);
    assert_err(lh_sim_play_policy(s, other, 520, 2, 1, 1, &one), LH_EMISMATCH, "17 + 8");
    lh_policy_destroy(&policy);
    lh_policy_destroy(&other);
    lh_sim_destroy(&s);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ResAct Table 1: mean session length 4.04; quartiles over users of average session length 2.14 and
 * 4.88, of average return time 4.33 and 11.28 hours. */
static void behaviour_has_the_statistics_of_table_1(void **state)
{
    (void)state;
    enum { N = 800, S = 40 };
    struct lh_sim *s = world();
    static double length[N], gap[N];
    double mean = 0;
    for (uint64_t id = 0; id < N; id++) {
        struct sim_user u;
        length[id] = gap[id] = 0;
        lh_sim_user_init(s, 1, id, &u);
        while (u.session < S) {
            float action[LH_SIM_ACTION];
            struct sim_outcome o;
            lh_sim_user_act(s, &u, LH_SIM_BEHAVIOUR, NULL, action);
            lh_sim_user_step(s, &u, action, &o);
            length[id] += 1.0 / S;
            gap[id] += o.gap / S;
        }
        mean += length[id] / N;
    }
    qsort(length, N, sizeof *length, by_value);
    qsort(gap, N, sizeof *gap, by_value);
    kit_assert_close(mean / 4.0449, 1, 0.1, "mean session length");
    kit_assert_close(length[N / 4] / 2.1358, 1, 0.15, "session length, 25%");
    kit_assert_close(length[3 * N / 4] / 4.8792, 1, 0.15, "session length, 75%");
    kit_assert_close(gap[N / 4] / 4.3264, 1, 0.15, "return time, 25%");
    kit_assert_close(gap[3 * N / 4] / 11.2794, 1, 0.15, "return time, 75%");
    lh_sim_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(play_any_threads_same_bits),
        kit_test(play_refuses_an_action_that_is_not_finite),
        kit_test(play_optimum_beats_all_others_and_keeps_the_promise),
        kit_test(play_policy_any_threads_same_bits),
        kit_test(behaviour_has_the_statistics_of_table_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
