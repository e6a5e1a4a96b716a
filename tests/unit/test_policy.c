#include "worker/policy.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { H = 5, L = 4, A = 3, N = 6, STATES = 70 };

struct fixture {
    struct lh_job *job;
    struct lh_norm norm;
    struct lh_graph *train;
    float *params;
    float high[STATES * H], low[STATES * L];
};

static struct fixture fixture_new(const char *config)
{
    struct fixture f = {0};
    char text[512];
    snprintf(text, sizeof text,
             "network: {hidden: [16, 16], z_high: 4, z_low: 4}\nobjective: {estimators: %d}\n%s\n",
             N, config);
    struct lh_dims dims = {.high = H, .low = L, .action = A, .classes = 3};
    assert_ok(lh_job_load_text(&f.job, text, strlen(text), "test", NULL));
    assert_ok(lh_job_resolve(f.job, &dims, 1));
    assert_ok(lh_norm_init(&f.norm, &dims));
    for (int j = 0; j < H; j++)
        f.norm.high_shift[j] = (float)j;
    for (int j = 0; j < A; j++) {
        f.norm.action_shift[j] = 10;
        f.norm.action_scale[j] = 0.5f;
    }
    assert_ok(lh_graph_create(&f.train, &(struct lh_graph_spec){.rows = 8, .dims = dims}));
    assert_ok(lh_algo_find(f.job->algorithm)->declare_train(f.train, f.job));
    assert_ok(lh_graph_compile(f.train));
    size_t n = lh_graph_flat_size(f.train);
    assert_ok(lh_mem_alloc_aligned((void **)&f.params, n, sizeof(float), "test"));
    lh_graph_init_params(f.train, 4, f.params);
    for (size_t i = 0; i < n; i++)
        f.params[i] *= 3;
    lh_rng_normal(&(struct lh_rng_at){.seed = 1}, f.high, STATES * H);
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, f.low, STATES * L);
    return f;
}

static void fixture_free(struct fixture *f)
{
    lh_mem_free(f->params);
    lh_graph_destroy(&f->train);
    lh_norm_fini(&f->norm);
    lh_job_destroy(&f->job);
}

static int policy_of(struct fixture *f, struct lh_policy **out)
{
    size_t n;
    const struct lh_param *layout = lh_graph_params(f->train, &n);
    return lh_policy_create(out, f->job, &f->norm, layout, n, f->params);
}

static void act_stream_cut_anywhere_gives_the_same_bits(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    float whole[STATES * A], cut[STATES * A];
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 9, 1000, whole, NULL));
    static const size_t pieces[] = {1, 1, 5, 16, 33, 14};
    size_t first = 0;
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
        assert_ok(lh_policy_act(p, f.high + first * H, f.low + first * L, pieces[k], 9,
                                1000 + first, cut + first * A, NULL));
        first += pieces[k];
    }
    assert_int_equal(first, STATES);
    assert_memory_equal(whole, cut, sizeof whole);
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 10, 1000, cut, NULL));
    assert_memory_not_equal(whole, cut, sizeof whole);
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void act_explained_takes_the_candidate_of_the_largest_q(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    assert_int_equal(lh_policy_estimators(p), N);
    static float action[STATES * A], rec[STATES * N * A], res[STATES * N * A], cand[STATES * N * A],
        q[STATES * N];
    struct lh_explain ex = {rec, res, cand, q};
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 9, 3, action, &ex));
    size_t differing = 0;
    for (size_t i = 0; i < STATES; i++) {
        size_t best = 0;
        for (size_t k = 1; k < N; k++) {
            best = q[i * N + k] > q[i * N + best] ? k : best;
            differing += rec[(i * N + k) * A] != rec[i * N * A];
        }
        assert_memory_equal(action + i * A, cand + (i * N + best) * A, A * sizeof(float));
    }
    assert_true(differing > STATES * (N - 1) * 9 / 10);
    for (size_t k = 0; k < STATES * N * A; k++) {
        float scaled = fmaxf(-1, fminf(1, (rec[k] - 10 + res[k]) * 0.5f)); /* phi tanh, then clip */
        kit_assert_close((double)(cand[k] - 10) * 0.5, (double)scaled, 1e-5, "candidate");
        assert_true(fabsf(res[k]) * 0.5f <= 0.1f + 1e-6f);
        assert_true(fabsf(rec[k] - 10) <= 2 + 1e-5f);
    }
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void set_estimators_fewer_keeps_the_first_candidates(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL, *clone = NULL;
    assert_ok(policy_of(&f, &p));
    assert_ok(lh_policy_clone(&clone, p));
    static float action[STATES * A], cand[STATES * N * A], few[STATES * 2 * A];
    struct lh_explain ex = {.candidates = cand}, ex2 = {.candidates = few};
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 9, 0, action, &ex));
    assert_ok(lh_policy_set_estimators(p, 2));
    assert_int_equal(lh_policy_estimators(p), 2);
    assert_int_equal(lh_policy_estimators(clone), N);
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 9, 0, action, &ex2));
    for (size_t i = 0; i < STATES; i++)
        for (size_t k = 0; k < 2 * A; k++)
            kit_assert_close((double)few[i * 2 * A + k], (double)cand[i * N * A + k], 1e-6,
                             "candidate");
    assert_err(lh_policy_set_estimators(p, 0), LH_EUSAGE, "between 1 and");
    lh_policy_destroy(&p);
    lh_policy_destroy(&clone);
    fixture_free(&f);
}

static void set_estimators_nothing_to_choose_is_refused(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: il");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    assert_int_equal(lh_policy_estimators(p), 1);
    assert_ok(lh_policy_set_estimators(p, 1));
    assert_err(lh_policy_set_estimators(p, 5), LH_EUSAGE, "nothing to choose");
    lh_policy_destroy(&p);
    fixture_free(&f);
}

/* IL by hand: one state through the weights in double. */
static void act_il_is_the_network_on_normalised_states(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: il");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    float action[STATES * A];
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 0, 0, action, NULL));
    size_t n;
    const struct lh_param *layout = lh_graph_params(f.train, &n);
    assert_int_equal(n, 6); /* cvae.decoder.0.bias, .0.weight, .1.bias, … */
    for (size_t i = 0; i < STATES; i += 13) {
        double x[16], y[16];
        for (size_t j = 0; j < H; j++)
            x[j] = (double)f.high[i * H + j] - (double)j;
        for (size_t j = 0; j < L; j++)
            x[H + j] = (double)f.low[i * L + j];
        for (size_t k = 0; k < 3; k++) {
            const struct lh_param *b = &layout[2 * k], *w = &layout[2 * k + 1];
            for (size_t o = 0; o < w->rows; o++) {
                y[o] = (double)f.params[b->offset + o];
                for (size_t j = 0; j < w->cols; j++)
                    y[o] += (double)f.params[w->offset + o * w->cols + j] * x[j];
                y[o] = k < 2 ? fmax(y[o], 0) : tanh(y[o]);
            }
            memcpy(x, y, sizeof x);
        }
        for (size_t j = 0; j < A; j++)
            kit_assert_close((double)action[i * A + j], 10 + 2 * x[j], 1e-5, "action");
    }
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void act_il_cvae_draws_one_latent_a_state(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: il_cvae");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    float a[STATES * A], b[STATES * A];
    for (size_t i = 1; i < STATES; i++) { /* equal states act differently, by their number */
        memcpy(f.high + i * H, f.high, H * sizeof(float));
        memcpy(f.low + i * L, f.low, L * sizeof(float));
    }
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 9, 0, a, NULL));
    assert_true(a[0] != a[A] && a[A] != a[2 * A]);
    assert_ok(lh_policy_act(p, f.high, f.low, 1, 9, 2, b, NULL));
    assert_memory_equal(b, a + 2 * A, A * sizeof(float));
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void act_state_not_finite_names_state_and_column(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: il");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    float action[STATES * A];
    f.low[40 * L + 2] = NAN;
    assert_err(lh_policy_act(p, f.high, f.low, STATES, 0, 100, action, NULL), LH_ERANGE,
               "state 140: column 2 of the request-level state");
    f.low[40 * L + 2] = 0;
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 0, 100, action, NULL));
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void act_allocates_nothing(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL;
    assert_ok(policy_of(&f, &p));
    float action[STATES * A];
    uint64_t before = lh_mem_count();
    assert_ok(lh_policy_act(p, f.high, f.low, STATES, 0, 0, action, NULL));
    assert_int_equal(lh_mem_count(), before);
    lh_policy_destroy(&p);
    fixture_free(&f);
}

static void create_tensor_missing_or_misshapen_is_named(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: il"), g = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL;
    size_t n;
    const struct lh_param *layout = lh_graph_params(f.train, &n);
    assert_err(lh_policy_create(&p, g.job, &f.norm, layout, n, f.params), LH_EMISMATCH,
               "tensor 'actor.high.0.bias' is missing");
    f.job->hidden[0] = 17;
    assert_err(policy_of(&f, &p), LH_EMISMATCH, "tensor 'cvae.decoder.0.bias' is [1, 16]");
    assert_null(p);
    fixture_free(&f);
    fixture_free(&g);
}

static void create_and_set_estimators_out_of_memory_leak_nothing(void **state)
{
    (void)state;
    struct fixture f = fixture_new("algorithm: resact");
    struct lh_policy *p = NULL;
    uint64_t live = lh_mem_live();
    int rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc != 0; nth++) {
        lh_mem_fail_at(nth);
        rc = policy_of(&f, &p);
        lh_mem_fail_at(0);
        assert_true(rc == 0 || (rc == LH_ENOMEM && !p && lh_mem_live() == live));
    }
    rc = LH_ENOMEM;
    live = lh_mem_live();
    for (uint64_t nth = 1; rc != 0; nth++) {
        lh_mem_fail_at(nth);
        rc = lh_policy_set_estimators(p, 3);
        lh_mem_fail_at(0);
        assert_true(rc == 0 || (rc == LH_ENOMEM && lh_mem_live() == live));
        assert_int_equal(lh_policy_estimators(p), rc ? N : 3);
    }
    lh_policy_destroy(&p);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(act_stream_cut_anywhere_gives_the_same_bits),
        kit_test(act_explained_takes_the_candidate_of_the_largest_q),
        kit_test(set_estimators_fewer_keeps_the_first_candidates),
        kit_test(set_estimators_nothing_to_choose_is_refused),
        kit_test(act_il_is_the_network_on_normalised_states),
        kit_test(act_il_cvae_draws_one_latent_a_state),
        kit_test(act_state_not_finite_names_state_and_column),
        kit_test(act_allocates_nothing),
        kit_test(create_tensor_missing_or_misshapen_is_named),
        kit_test(create_and_set_estimators_out_of_memory_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
