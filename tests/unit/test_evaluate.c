#include "worker/evaluate.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 1, L = 1, A = 2, TRAJECTORIES = 40, ROWS = 60 };

#define HOUR INT64_C(3600000000)

/* Trajectory k, row i: a state x in [1, 2); the logged action is (x, -x) plus an error. Every
 * trajectory runs over several days. */
static float state_at(size_t k, size_t i)
{
    return 1 + (float)lh_rng_uniform1(&(struct lh_rng_at){.seed = k}, i);
}

static float error_at(size_t k, size_t i, size_t j)
{
    return 0.1f * (float)lh_rng_normal1(&(struct lh_rng_at){.seed = k, .purpose = 1}, i * A + j);
}

static float reward_at(size_t k, size_t i)
{
    return (float)((k + i * i) % 5) - 1 + error_at(k, i, 0) * 10; /* prefers a larger action */
}

static void add_trajectory(struct lh_dataset_writer *w, size_t k, enum lh_split split,
                           size_t session_rows)
{
    float high[ROWS], low[ROWS], action[ROWS * A], reward[ROWS];
    int64_t time_us[ROWS];
    uint32_t session[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        low[i] = state_at(k, i);
        high[i] = 1;
        action[i * A] = low[i] + error_at(k, i, 0);
        action[i * A + 1] = -low[i] + error_at(k, i, 1);
        reward[i] = reward_at(k, i);
        time_us[i] = (int64_t)i * HOUR;
        session[i] = (uint32_t)(i / session_rows);
    }
    assert_ok(lh_dataset_writer_add(w, &(struct lh_trajectory){.split = split,
                                                               .user = k,
                                                               .id = k,
                                                               .n = ROWS,
                                                               .high = high,
                                                               .low = low,
                                                               .action = action,
                                                               .reward = reward,
                                                               .time_us = time_us,
                                                               .session = session}));
}

/* A session is session_rows rows. */
static struct lh_dataset *dataset_of(const char *name, bool by_day, size_t session_rows)
{
    static const char *const high[] = {"one"}, *const low[] = {"x"}, *const action[] = {"u", "v"};
    struct lh_dataset_writer *w = NULL;
    struct lh_dataset *ds = NULL;
    struct lh_dataset_spec spec = {.dims = {.high = H, .low = L, .action = A},
                                   .high_names = high,
                                   .low_names = low,
                                   .action_names = action,
                                   .hash_partitions = 2,
                                   .by_day = by_day,
                                   .kind = "import",
                                   .memory_limit = 1 << 20};
    assert_ok(lh_dataset_writer_open(&w, kit_path(name), &spec));
    for (size_t k = 0; k < TRAJECTORIES; k++)
        add_trajectory(w, k, LH_TEST, session_rows);
    for (size_t k = TRAJECTORIES; k < TRAJECTORIES + 3; k++) {
        add_trajectory(w, k, LH_VALIDATION, session_rows);
        add_trajectory(w, k + 3, LH_TRAIN, session_rows);
    }
    assert_ok(lh_dataset_writer_commit(&w));
    assert_ok(lh_dataset_open(&ds, kit_path(name)));
    return ds;
}

/* Days begin, and blocks end, within sessions. */
#define SESSION_ROWS 7

static struct lh_dataset *dataset_new(const char *name, bool by_day)
{
    return dataset_of(name, by_day, SESSION_ROWS);
}

/* IL with pi(x) = (x + shift, -x), by hand-made weights. */
static struct lh_policy *policy_new(float shift)
{
    static const char text[] = "algorithm: il\nnetwork: {hidden: [2]}\nobjective: {bound: none}\n"
                               "train: {normalise: false}\n";
    struct lh_job *job = NULL;
    struct lh_policy *p = NULL;
    struct lh_norm norm = {0};
    struct lh_dims dims = {.high = H, .low = L, .action = A};
    assert_ok(lh_job_load_text(&job, text, sizeof text - 1, "test", NULL));
    assert_ok(lh_job_resolve(job, &dims, 1));
    assert_ok(lh_norm_init(&norm, &dims));
    float params[16] = {0, 0, 0, 0, 0, 1, 0, 0, shift, 0, 1, 0, -1, 0};
    const struct lh_param layout[] = {
        {.name = "cvae.decoder.0.bias", .rows = 1, .cols = 2, .offset = 0},
        {.name = "cvae.decoder.0.weight", .rows = 2, .cols = 2, .offset = 4},
        {.name = "cvae.decoder.1.bias", .rows = 1, .cols = 2, .offset = 8},
        {.name = "cvae.decoder.1.weight", .rows = 2, .cols = 2, .offset = 10}};
    assert_ok(lh_policy_create(&p, job, &norm, layout, 4, params));
    lh_norm_fini(&norm);
    lh_job_destroy(&job);
    return p;
}

static struct lh_behaviour *behaviour_new(const struct lh_dataset *ds)
{
    struct lh_behaviour *b = NULL;
    struct lh_policy *p = policy_new(0);
    assert_ok(lh_behaviour_adopt(&b, ds, &p));
    assert_null(p);
    return b;
}

static void close_all(struct lh_dataset *ds, struct lh_behaviour *b, struct lh_policy *p)
{
    lh_policy_destroy(&p);
    lh_behaviour_close(&b);
    lh_dataset_close(&ds);
}

static int evaluate(const struct lh_dataset *ds, struct lh_policy *p, const struct lh_behaviour *b,
                    double cap, enum lh_unit unit, unsigned threads, struct lh_evaluation *e,
                    double **per)
{
    struct lh_evaluate_spec spec = {
        .ds = ds, .split = LH_TEST, .policy = p, .behaviour = b, .cap = cap, .unit = unit};
    return lh_evaluate(&spec, 0.1, threads, e, per);
}

static void behaviour_adopt_measures_the_residual_rms_on_validation(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    const struct lh_norm *norm = lh_dataset_norm(ds);
    double mse = 0;
    for (size_t j = 0; j < A; j++) {
        double ss = 0;
        for (size_t k = TRAJECTORIES; k < TRAJECTORIES + 3; k++)
            for (size_t i = 0; i < ROWS; i++)
                ss += pow((double)error_at(k, i, j) * (double)norm->action_scale[j], 2);
        mse += ss / (3 * ROWS) / A;
        kit_assert_close((double)lh_behaviour_sigma(b)[j], sqrt(ss / (3 * ROWS)), 1e-5, "sigma");
    }
    kit_assert_close(lh_behaviour_mse(b), mse, 1e-5, "mse");
    close_all(ds, b, NULL);
}

/* Eq. 15 by brute force over the formula's own terms, for pi shifted by 0.05. */
static void evaluate_shifted_policy_equals_brute_force(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0.05f);
    double scale = (double)lh_dataset_norm(ds)->action_scale[0];
    double sigma = (double)lh_behaviour_sigma(b)[0] / scale;
    double want = 0, own = 0, sw = 0, sw2 = 0, values[TRAJECTORIES];
    for (size_t k = 0; k < TRAJECTORIES; k++) {
        double w = 0, wr = 0;
        for (size_t i = 0; i < ROWS; i++) {
            double e = (double)error_at(k, i, 0) / sigma;
            double z = ((double)error_at(k, i, 0) - 0.05) / sigma;
            double rho = fmin(2, exp(-z * z / 2) / exp(-e * e / 2));
            w += rho;
            wr += rho * (double)reward_at(k, i);
            sw2 += rho * rho;
            own += (double)reward_at(k, i) / ROWS / TRAJECTORIES;
        }
        values[k] = wr / w;
        want += wr / w / TRAJECTORIES;
        sw += w;
    }
    struct lh_evaluation e;
    double *per = NULL;
    assert_ok(evaluate(ds, p, b, 2, LH_UNIT_ROW, 2, &e, &per));
    kit_assert_close(e.policy.value, want, 1e-5, "value");
    kit_assert_close(e.behaviour.value, own, 1e-5, "own value");
    kit_assert_close(e.policy.ess, sw * sw / sw2, 1e-4, "ess");
    kit_assert_close(e.policy.difference, want - own, 1e-4, "difference");
    assert_true(e.policy.difference_lo > 0); /* larger actions have larger rewards here */
    assert_true(e.policy.value > e.policy.lo && e.policy.hi > e.policy.value);
    assert_int_equal(e.policy.trajectories, TRAJECTORIES);
    assert_int_equal(e.policy.units, TRAJECTORIES * ROWS);
    assert_true(e.policy.mean_distance > 0.8 && e.policy.mean_distance < 1.5);
    for (size_t k = 0; k < TRAJECTORIES; k++) { /* the order is that of partitions */
        size_t found = 0;
        for (size_t t = 0; t < TRAJECTORIES; t++)
            found += fabs(per[t] - values[k]) < 1e-4;
        assert_true(found >= 1);
    }
    lh_mem_free(per);
    close_all(ds, b, p);
}

static void evaluate_by_sessions_equals_brute_force(void **state)
{
    (void)state;
    for (int days = 0; days < 2; days++) {
        struct lh_dataset *ds = dataset_new(days ? "days" : "whole", days);
        struct lh_behaviour *b = behaviour_new(ds);
        struct lh_policy *p = policy_new(0.05f);
        double sigma =
            (double)lh_behaviour_sigma(b)[0] / (double)lh_dataset_norm(ds)->action_scale[0];
        double want = 0, own = 0, sw = 0, sw2 = 0;
        size_t sessions = (ROWS + SESSION_ROWS - 1) / SESSION_ROWS;
        for (size_t k = 0; k < TRAJECTORIES; k++) {
            double w = 0, wr = 0, total = 0;
            for (size_t s = 0; s < sessions; s++) {
                double rho = 0, reward = 0;
                size_t i = s * SESSION_ROWS, n = ROWS - i < SESSION_ROWS ? ROWS - i : SESSION_ROWS;
                for (size_t end = i + n; i < end; i++) {
                    double e = (double)error_at(k, i, 0) / sigma;
                    double z = ((double)error_at(k, i, 0) - 0.05) / sigma;
                    rho += fmin(2, exp(-z * z / 2) / exp(-e * e / 2)) / (double)n;
                    reward += (double)reward_at(k, i);
                }
                w += rho;
                wr += rho * reward;
                total += reward;
                sw2 += rho * rho;
            }
            want += wr / w / TRAJECTORIES;
            own += total / (double)sessions / TRAJECTORIES;
            sw += w;
        }
        struct lh_evaluation e;
        assert_ok(evaluate(ds, p, b, 2, LH_UNIT_SESSION, 2, &e, NULL));
        kit_assert_close(e.policy.value, want, 1e-5, "value");
        kit_assert_close(e.behaviour.value, own, 1e-5, "own value");
        kit_assert_close(e.policy.ess, sw * sw / sw2, 1e-4, "ess");
        assert_int_equal(e.policy.units, TRAJECTORIES * sessions);
        char *json = NULL;
        assert_ok(lh_evaluate_json(&e, LH_TEST, &json));
        kit_assert_contains(json, "\"unit\":\"session\"");
        kit_assert_contains(json, "\"sessions\":360");
        lh_mem_free(json);
        close_all(ds, b, p);
    }
}

static void evaluate_by_sessions_of_one_row_equals_by_rows(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_of("d", true, 1);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0.05f);
    struct lh_evaluation rows, sessions;
    assert_ok(evaluate(ds, p, b, 2, LH_UNIT_ROW, 1, &rows, NULL));
    assert_ok(evaluate(ds, p, b, 2, LH_UNIT_SESSION, 1, &sessions, NULL));
    assert_int_equal(sessions.unit, LH_UNIT_SESSION);
    sessions.unit = rows.unit;
    kit_assert_close(sessions.policy.value, rows.policy.value, 1e-12, "value");
    kit_assert_close(sessions.policy.ess, rows.policy.ess, 1e-9, "ess");
    kit_assert_close(sessions.policy.lo, rows.policy.lo, 1e-9, "lo");
    close_all(ds, b, p);
}

static void evaluate_by_sessions_where_no_trajectory_has_two_is_refused(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_of("d", true, ROWS);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0.05f);
    struct lh_evaluation e;
    assert_err(evaluate(ds, p, b, 2, LH_UNIT_SESSION, 1, &e, NULL), LH_EMISMATCH,
               "no trajectory has two sessions");
    assert_ok(evaluate(ds, p, b, 2, LH_UNIT_ROW, 1, &e, NULL));
    close_all(ds, b, p);
}

static void evaluate_behaviour_model_itself_gives_the_log_s_own_value(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0);
    struct lh_evaluation e, own;
    assert_ok(evaluate(ds, p, b, 10, LH_UNIT_ROW, 1, &e, NULL));
    kit_assert_close(e.policy.value, e.behaviour.value, 1e-12, "value");
    kit_assert_close(e.policy.difference, 0, 1e-12, "difference");
    kit_assert_close(e.policy.ess_share, 1, 1e-12, "share");
    assert_ok(evaluate(ds, NULL, NULL, 10, LH_UNIT_ROW, 1, &own, NULL));
    assert_memory_equal(&own.behaviour, &e.behaviour, sizeof own.behaviour);
    assert_int_equal(own.policy.units, 0);
    close_all(ds, b, p);
}

static void evaluate_days_and_threads_change_no_bit_that_matters(void **state)
{
    (void)state;
    struct lh_evaluation e[3];
    for (int k = 0; k < 3; k++) {
        struct lh_dataset *ds = dataset_new(k == 2 ? "whole" : k ? "b" : "a", k < 2);
        struct lh_behaviour *b = behaviour_new(ds);
        struct lh_policy *p = policy_new(0.05f);
        assert_ok(evaluate(ds, p, b, 2, LH_UNIT_ROW, k == 1 ? 3 : 1, &e[k], NULL));
        if (k < 2)
            assert_true(lh_dataset_info(ds)->split[LH_TEST].partitions >= 3);
        close_all(ds, b, p);
    }
    assert_memory_equal(&e[0], &e[1], sizeof e[0]);
    assert_int_equal(e[2].policy.trajectories, TRAJECTORIES);
    kit_assert_close(e[2].policy.value, e[0].policy.value, 1e-9, "value");
    kit_assert_close(e[2].policy.lo, e[0].policy.lo, 1e-9, "lo");
}

static void evaluate_in_parts_gives_the_same_bits(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", false);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0.05f);
    struct lh_evaluate_spec spec = {
        .ds = ds, .split = LH_TEST, .policy = p, .behaviour = b, .cap = 2, .unit = LH_UNIT_SESSION};
    struct lh_evaluation whole, parts;
    assert_ok(evaluate(ds, p, b, 2, LH_UNIT_SESSION, 1, &whole, NULL));
    assert_int_equal(lh_evaluate_blocks(ds, LH_TEST), 3);
    for (uint64_t cut = 0; cut <= 3; cut++) {
        struct lh_evaluate_pieces pieces = {0};
        assert_ok(lh_evaluate_part(&spec, 0, cut, 1, &pieces));
        assert_ok(lh_evaluate_part(&spec, cut, 3 - cut, 2, &pieces));
        assert_ok(lh_evaluate_join(&spec, &pieces, 0.1, &parts, NULL));
        assert_memory_equal(&whole, &parts, sizeof whole);
        lh_mem_free(pieces.items);
    }
    close_all(ds, b, p);
}

static void evaluate_policy_far_away_is_flagged_and_still_has_a_value(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(50);
    struct lh_evaluation e;
    assert_ok(evaluate(ds, p, b, 10, LH_UNIT_ROW, 1, &e, NULL));
    assert_true(e.policy.collapsed);
    assert_true(isfinite(e.policy.value) && e.policy.value >= -3 && e.policy.value <= 6);
    assert_true(e.policy.ess_share < 0.01 && e.policy.ess >= 1);
    char *json = NULL;
    assert_ok(lh_evaluate_json(&e, LH_TEST, &json));
    kit_assert_contains(json, "\"split\":\"test\"");
    kit_assert_contains(json, "\"collapsed\":true");
    lh_mem_free(json);
    close_all(ds, b, p);
}

static atomic_uint times_asked;

static bool after_one_block(void)
{
    return atomic_fetch_add(&times_asked, 1) > 0;
}

static void evaluate_interrupted_within_a_pass_stops_there(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = policy_new(0.05f);
    struct lh_evaluation e;
    double *per = NULL;
    const struct lh_evaluate_spec spec = {.ds = ds,
                                          .split = LH_TEST,
                                          .policy = p,
                                          .behaviour = b,
                                          .cap = 2,
                                          .interrupted = after_one_block};
    for (unsigned threads = 1; threads <= 3; threads++) {
        times_asked = 0;
        assert_err(lh_evaluate(&spec, 0.1, threads, &e, &per), LH_ECANCELED, "interrupted while");
        assert_null(per);
        assert_true(times_asked >= 2 && times_asked <= 1 + threads);
    }
    close_all(ds, b, p);
}

static void evaluate_other_widths_are_refused(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", false);
    static const char text[] = "algorithm: il\n";
    struct lh_job *job = NULL;
    struct lh_policy *p = NULL;
    struct lh_norm norm = {0};
    struct lh_behaviour *b = NULL;
    struct lh_graph *g = NULL;
    float *flat = NULL;
    struct lh_dims dims = {.high = 2, .low = L, .action = A};
    assert_ok(lh_job_load_text(&job, text, sizeof text - 1, "test", NULL));
    assert_ok(lh_job_resolve(job, &dims, 1));
    assert_ok(lh_norm_init(&norm, &dims));
    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 1, .dims = dims}));
    assert_ok(lh_algo_il.declare_train(g, job));
    assert_ok(lh_graph_compile(g));
    assert_ok(LH_NEW_ARRAY(&flat, lh_graph_flat_size(g), "test"));
    size_t n;
    const struct lh_param *layout = lh_graph_params(g, &n);
    assert_ok(lh_policy_create(&p, job, &norm, layout, n, flat));
    struct lh_evaluation e;
    assert_err(evaluate(ds, p, NULL, 10, LH_UNIT_ROW, 1, &e, NULL), LH_EMISMATCH,
               "states of 2 + 1");
    assert_err(lh_behaviour_adopt(&b, ds, &p), LH_EMISMATCH, "has 1 + 1 and 2");
    assert_non_null(p);
    lh_mem_free(flat);
    lh_graph_destroy(&g);
    lh_norm_fini(&norm);
    lh_job_destroy(&job);
    close_all(ds, NULL, p);
}

/* ResAct with random weights, which chooses among n candidates. */
static struct lh_policy *chooser_new(size_t n)
{
    char text[160];
    struct lh_job *job = NULL;
    struct lh_policy *p = NULL;
    struct lh_graph *train = NULL;
    struct lh_norm norm = {0};
    struct lh_dims dims = {.high = H, .low = L, .action = A};
    float *params = NULL;
    size_t n_params,
        length = (size_t)snprintf(text, sizeof text,
                                  "algorithm: resact\nnetwork: {hidden: [8], z_high: 2, z_low: 2}\n"
                                  "objective: {estimators: %zu}\ntrain: {normalise: false}\n",
                                  n);
    assert_ok(lh_job_load_text(&job, text, length, "test", NULL));
    assert_ok(lh_job_resolve(job, &dims, 1));
    assert_ok(lh_norm_init(&norm, &dims));
    assert_ok(lh_graph_create(&train, &(struct lh_graph_spec){.rows = 8, .dims = dims}));
    assert_ok(lh_algo_find("resact")->declare_train(train, job));
    assert_ok(lh_graph_compile(train));
    assert_ok(
        lh_mem_alloc_aligned((void **)&params, lh_graph_flat_size(train), sizeof *params, "test"));
    lh_graph_init_params(train, 4, params);
    const struct lh_param *layout = lh_graph_params(train, &n_params);
    assert_ok(lh_policy_create(&p, job, &norm, layout, n_params, params));
    lh_mem_free(params);
    lh_graph_destroy(&train);
    lh_norm_fini(&norm);
    lh_job_destroy(&job);
    return p;
}

/* What stands behind the choices, asked row by row: also where the candidates of a block are more
 * than are held at a time. */
static void evaluate_policy_that_chooses_tells_how(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", true);
    struct lh_behaviour *b = behaviour_new(ds);
    static const size_t counts[] = {1, 4, 300};
    for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
        size_t n = counts[t];
        struct lh_policy *p = chooser_new(n);
        struct lh_choice_sum sum = {0};
        struct lh_evaluation e;
        float *candidates = malloc(n * A * sizeof *candidates);
        float *residual = malloc(n * A * sizeof *residual), *q = malloc(n * sizeof *q);
        for (uint64_t row = 0; row < (uint64_t)TRAJECTORIES * ROWS; row++) {
            float high[H], low[L], action[A];
            struct lh_batch batch = {.high = high, .low = low};
            assert_ok(lh_dataset_gather(ds, LH_TEST, &row, 1, NULL, &batch));
            assert_ok(lh_policy_act(
                p, high, low, 1, 5, row, action,
                &(struct lh_explain){.candidates = candidates, .residual = residual, .q = q}));
            lh_choice_add(&sum, candidates, residual, q, lh_dataset_norm(ds)->action_scale, n, A);
        }
        struct lh_choice want = lh_choice_mean(&sum);
        struct lh_evaluate_spec spec = {
            .ds = ds, .split = LH_TEST, .policy = p, .behaviour = b, .cap = 10, .seed = 5};
        assert_ok(lh_evaluate(&spec, 0.1, 2, &e, NULL));
        assert_int_equal(e.choice.states, TRAJECTORIES * ROWS);
        kit_assert_close(e.choice.q, want.q, 1e-9, "q");
        kit_assert_close(e.choice.gain, want.gain, 1e-9, "gain");
        kit_assert_close(e.choice.spread, want.spread, 1e-9, "spread");
        kit_assert_close(e.choice.residual, want.residual, 1e-9, "residual");
        assert_true(n == 1 ? e.choice.spread == 0 : e.choice.spread > 0 && e.choice.gain > 0);
        free(candidates);
        free(residual);
        free(q);
        lh_policy_destroy(&p);
    }
    struct lh_policy *il = policy_new(0);
    struct lh_evaluation e;
    assert_ok(evaluate(ds, il, b, 10, LH_UNIT_ROW, 2, &e, NULL));
    assert_int_equal(e.choice.states, 0);
    close_all(ds, b, il);
}

static void evaluate_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    struct lh_dataset *ds = dataset_new("d", false);
    struct lh_behaviour *b = behaviour_new(ds);
    struct lh_policy *p = chooser_new(4);
    struct lh_evaluation e;
    uint64_t live = lh_mem_live();
    int rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc != 0; nth++) {
        lh_mem_fail_at(nth);
        rc = evaluate(ds, p, b, 10, LH_UNIT_ROW, 1, &e, NULL);
        lh_mem_fail_at(0);
        assert_true(rc == 0 || rc == LH_ENOMEM);
        assert_int_equal(lh_mem_live(), live);
    }
    close_all(ds, b, p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(behaviour_adopt_measures_the_residual_rms_on_validation),
        kit_test(evaluate_shifted_policy_equals_brute_force),
        kit_test(evaluate_by_sessions_equals_brute_force),
        kit_test(evaluate_by_sessions_of_one_row_equals_by_rows),
        kit_test(evaluate_by_sessions_where_no_trajectory_has_two_is_refused),
        kit_test(evaluate_behaviour_model_itself_gives_the_log_s_own_value),
        kit_test(evaluate_days_and_threads_change_no_bit_that_matters),
        kit_test(evaluate_in_parts_gives_the_same_bits),
        kit_test(evaluate_policy_far_away_is_flagged_and_still_has_a_value),
        kit_test(evaluate_interrupted_within_a_pass_stops_there),
        kit_test(evaluate_other_widths_are_refused),
        kit_test(evaluate_policy_that_chooses_tells_how),
        kit_test(evaluate_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
