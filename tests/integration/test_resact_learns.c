/* ResAct on a problem whose best policy is known: one-step users with an ideal action a*(s); the
 * log misses it by a fixed bias and noise; the reward is 1 - |a - a*|^2. Training graphs, shard
 * and policies are the product's own, in one thread. */
#include "common/job.h"
#include "ps/shard.h"
#include "worker/model.h"
#include "worker/policy.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 2, L = 2, A = 2, B = 128, STEPS = 1500, USERS = 400 };

static double normal(uint64_t user, uint64_t i)
{
    return lh_rng_normal1(&(struct lh_rng_at){.seed = 77, .step = user}, i);
}

static void state_of(uint64_t user, float *high, float *low)
{
    for (uint64_t j = 0; j < H + L; j++)
        (j < H ? high : low)[j < H ? j : j - H] = (float)normal(user, j);
}

static void ideal(const float *high, const float *low, double *a)
{
    a[0] = 0.5 * tanh((double)high[0] + (double)low[0]);
    a[1] = 0.5 * tanh((double)high[1] - (double)low[1]);
}

static double reward_of(const float *high, const float *low, const float *action)
{
    double best[A], r = 1;
    ideal(high, low, best);
    for (int j = 0; j < A; j++)
        r -= pow((double)action[j] - best[j], 2);
    return r;
}

/* What the log did: 0.2 off in each direction, with noise. */
static void behave(uint64_t user, const float *high, const float *low, float *action)
{
    double best[A];
    ideal(high, low, best);
    action[0] = (float)(best[0] + 0.2 + 0.15 * normal(user, 10));
    action[1] = (float)(best[1] - 0.2 + 0.15 * normal(user, 11));
}

/* --- training ------------------------------------------------------------------------------------
 */
static void fill(struct lh_exec *e, uint64_t step)
{
    float *high = lh_exec_input(e, LH_STATE_HIGH), *low = lh_exec_input(e, LH_STATE_LOW);
    float *action = lh_exec_input(e, LH_ACTION), *reward = lh_exec_input(e, LH_REWARD);
    float *weight = lh_exec_input(e, LH_ROW_WEIGHT);
    for (uint64_t i = 0; i < B; i++) {
        uint64_t user = 1000 + step * B + i;
        state_of(user, high + i * H, low + i * L);
        behave(user, high + i * H, low + i * L, action + i * A);
        if (reward)
            reward[i] = (float)reward_of(high + i * H, low + i * L, action + i * A);
        weight[i] = 1.0f / B;
    }
    for (int kind = LH_NOT_DONE; kind <= LH_NEXT_STATE_LOW; kind++) { /* every user ends here */
        float *x = lh_exec_input(e, (enum lh_input_kind)kind);
        size_t cols = kind == LH_NEXT_STATE_HIGH ? H : kind == LH_NEXT_STATE_LOW ? L : 1;
        if (x)
            memset(x, 0, B * cols * sizeof *x);
    }
}

static void train(const struct lh_job *job, struct lh_policy **out)
{
    struct lh_model m;
    struct lh_exec *e = NULL;
    struct lh_shard *s = NULL;
    struct lh_norm norm;
    assert_ok(lh_model_init(&m, job, 1));
    assert_ok(lh_exec_create(&e, m.graph));
    size_t flat = lh_graph_flat_size(m.graph), n;
    const struct lh_param *params = lh_graph_params(m.graph, &n);
    float *weights = NULL, *targets = NULL, *grads = NULL, *metrics = NULL;
    assert_ok(lh_mem_alloc_aligned((void **)&weights, flat, sizeof(float), "test"));
    assert_ok(lh_mem_alloc_aligned((void **)&targets, flat, sizeof(float), "test"));
    assert_ok(lh_mem_alloc_aligned((void **)&grads, flat, sizeof(float), "test"));
    assert_ok(LH_NEW_ARRAY(&metrics, m.n_metrics, "test"));
    lh_graph_init_params(m.graph, job->seed, weights);
    assert_ok(lh_shard_create(&s, &(struct lh_shard_spec){.range = m.layout.shards,
                                                          .leaves = 1,
                                                          .beta1 = job->beta1,
                                                          .beta2 = job->beta2,
                                                          .epsilon = job->epsilon,
                                                          .n_metrics = m.n_metrics}));
    lh_shard_init(s, weights);
    for (uint64_t step = 0; step < STEPS; step++) {
        int applied = 0;
        memcpy(weights, lh_shard_weights(s), flat * sizeof *weights);
        if (lh_shard_targets(s))
            memcpy(targets, lh_shard_targets(s), flat * sizeof *targets);
        fill(e, step);
        lh_exec_run(e, weights, targets, grads, metrics,
                    &(struct lh_rng_at){.seed = job->seed, .step = step}, NULL, NULL);
        assert_ok(lh_shard_push(s, step, (struct lh_tree_node){0, 0}, 0, grads, flat, metrics));
        assert_ok(lh_shard_advance(s, &applied, metrics));
        assert_true(applied);
    }
    memcpy(weights, lh_shard_weights(s), flat * sizeof *weights);
    assert_ok(lh_norm_init(&norm, &job->dims));
    assert_ok(lh_policy_create(out, job, &norm, params, n, weights));
    lh_norm_fini(&norm);
    lh_mem_free(weights);
    lh_mem_free(targets);
    lh_mem_free(grads);
    lh_mem_free(metrics);
    lh_shard_destroy(&s);
    lh_exec_destroy(&e);
    lh_model_fini(&m);
}

/* --- the true value: mean reward over users that training did not see --------------------------
 */
static double value_of(struct lh_policy *p)
{
    static float high[USERS * H], low[USERS * L], action[USERS * A];
    double sum = 0;
    for (uint64_t i = 0; i < USERS; i++) {
        state_of(i, high + i * H, low + i * L);
        if (!p)
            behave(i, high + i * H, low + i * L, action + i * A);
    }
    if (p)
        assert_ok(lh_policy_act(p, high, low, USERS, 1, 0, action, NULL));
    for (size_t i = 0; i < USERS; i++)
        sum += reward_of(high + i * H, low + i * L, action + i * A) / USERS;
    return sum;
}

static double trained_value(const char *algorithm)
{
    char text[1024];
    struct lh_job *job = NULL;
    struct lh_policy *p = NULL;
    struct lh_dims dims = {.high = H, .low = L, .action = A};
    snprintf(text, sizeof text,
             "network: {hidden: [32, 32], z_high: 8, z_low: 8}\n"
             "optimiser: {lr_actor: 0.0005, lr_critic: 0.003, lr_cvae: 0.0005, lr_reward: 0.001}\n"
             "train: {batch: %d, micro_batch: %d, normalise: false}\nalgorithm: %s\n",
             B, B, algorithm);
    assert_ok(lh_job_load_text(&job, text, strlen(text), "test", NULL));
    assert_ok(lh_job_resolve(job, &dims, 1));
    train(job, &p);
    double v = value_of(p);
    lh_policy_destroy(&p);
    lh_job_destroy(&job);
    return v;
}

static void resact_beats_the_log_and_imitation_of_it(void **state)
{
    (void)state;
    double log_value = value_of(NULL), il = trained_value("il");
    double il_cvae = trained_value("il_cvae"), resact = trained_value("resact");
    print_message("log %.3f, il %.3f, il_cvae %.3f, resact %.3f, best 1\n", log_value, il, il_cvae,
                  resact);
    assert_true(fabs(log_value - 0.875) < 0.01); /* 1 - 2 (0.2^2 + 0.15^2) */
    assert_true(fabs(il - 0.92) < 0.01);         /* imitation keeps the bias: 1 - 2 0.2^2 */
    assert_true(fabs(il_cvae - 0.92) < 0.01);
    assert_true(resact > 0.98);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(resact_beats_the_log_and_imitation_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
