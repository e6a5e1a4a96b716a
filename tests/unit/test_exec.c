#include "tests/unit/graph_rig.h"

#include <math.h>
#include <pthread.h>

/* --- running -----------------------------------------------------------------------------------
 */
static void run_warm_allocates_nothing(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    struct rig r;
    rig_init(&r, g);
    run(&r);
    uint64_t before = lh_mem_count();
    for (int i = 0; i < 10; i++)
        run(&r);
    assert_int_equal(lh_mem_count(), before);
    rig_fini(&r);
}

static void run_again_or_in_another_exec_gives_the_same_bits(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    struct rig r;
    rig_init(&r, g);
    run(&r);
    float *first = floats(r.flat), metrics[8];
    memcpy(first, r.grads, r.flat * sizeof *first);
    memcpy(metrics, r.metrics, sizeof metrics);
    memset(r.grads, 0x55, r.flat * sizeof *first);
    run(&r);
    assert_memory_equal(first, r.grads, r.flat * sizeof *first);
    struct lh_exec *e = NULL;
    assert_ok(lh_exec_create(&e, g));
    for (int k = 0; k < LH_INPUTS; k++) {
        float *from = lh_exec_input(r.e, (enum lh_input_kind)k),
              *to = lh_exec_input(e, (enum lh_input_kind)k);
        size_t cols = k == LH_STATE_HIGH ? 3 : k == LH_STATE_LOW ? 4 : k == LH_ACTION ? 2 : 1;
        assert_true(!from == !to);
        if (from)
            memcpy(to, from, B * cols * sizeof *to);
    }
    lh_exec_destroy(&r.e);
    r.e = e;
    memset(r.grads, 0x55, r.flat * sizeof *first);
    run(&r);
    assert_memory_equal(first, r.grads, r.flat * sizeof *first);
    /* forward alone: the same values */
    memset(r.metrics, 0x55, sizeof r.metrics);
    lh_exec_run(e, r.params, r.targets, NULL, r.metrics,
                &(struct lh_rng_at){.seed = 4, .step = 7, .part = 2}, NULL, NULL);
    assert_memory_equal(metrics, r.metrics, lh_graph_metrics(g) * sizeof *metrics);
    free(first);
    rig_fini(&r);
}

static void run_writes_every_element_of_the_gradient(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    struct rig r;
    rig_init(&r, g);
    run(&r);
    size_t n, at = 0;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++) {
        for (; at < p[i].offset; at++)
            assert_true(r.grads[at] == 0);
        for (; at < p[i].offset + p[i].rows * p[i].cols; at++)
            assert_true(fabsf(r.grads[at]) < 100);
    }
    for (; at < r.flat; at++)
        assert_true(r.grads[at] == 0);
    rig_fini(&r);
}

static void run_with_weights_that_stay_gives_the_same_bits_until_told_of_others(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    struct rig r;
    rig_init(&r, g);
    run(&r);
    float *want = floats(r.flat);
    memcpy(want, r.grads, r.flat * sizeof *want);
    lh_exec_reuse(r.e, true);
    for (int i = 0; i < 3; i++) {
        memset(r.grads, 0x55, r.flat * sizeof *want);
        run(&r);
        assert_memory_equal(r.grads, want, r.flat * sizeof *want);
    }
    for (size_t i = 0; i < r.flat; i++)
        r.params[i] *= 0.5f;
    lh_exec_reuse(r.e, false);
    run(&r);
    memcpy(want, r.grads, r.flat * sizeof *want);
    lh_exec_reuse(r.e, true);
    run(&r);
    assert_memory_equal(r.grads, want, r.flat * sizeof *want);
    free(want);
    rig_fini(&r);
}

static void run_with_parameters_placed_apart_gives_the_same_bits(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    struct rig r;
    size_t n;
    rig_init(&r, g);
    run(&r);
    float *want = floats(r.flat);
    memcpy(want, r.grads, r.flat * sizeof *want);
    const struct lh_param *p = lh_graph_params(g, &n);
    const float *at[2][32];
    assert_true(n <= 32);
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            size_t size = p[i].rows * p[i].cols;
            float *x = NULL;
            assert_ok(lh_mem_alloc_aligned((void **)&x, size, sizeof *x, "test"));
            memcpy(x, (k ? r.targets : r.params) + p[i].offset, size * sizeof *x);
            at[k][i] = x;
        }
    lh_exec_place(r.e, at[0], at[1]);
    memset(r.grads, 0x55, r.flat * sizeof *want);
    lh_exec_run(r.e, NULL, NULL, r.grads, r.metrics,
                &(struct lh_rng_at){.seed = 4, .step = 7, .part = 2}, NULL, NULL);
    assert_memory_equal(r.grads, want, r.flat * sizeof *want);
    for (size_t i = 0; i < 2 * n; i++)
        lh_mem_free((void *)(uintptr_t)at[i / n][i % n]);
    free(want);
    rig_fini(&r);
}

/* Half the batch with the weights of the whole, twice, is the whole: summed here, or by the runs.
 */
static void run_over_micro_batches_adds_up_to_the_batch(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_actor(g);
    struct rig r;
    rig_init(&r, g);
    run(&r);
    float *whole = floats(r.flat), *w = lh_exec_input(r.e, LH_ROW_WEIGHT), loss = r.metrics[0];
    memcpy(whole, r.grads, r.flat * sizeof *whole);
    double sum = 0;
    for (int half = 0; half < 2; half++) {
        for (size_t i = 0; i < B; i++)
            w[i] = (i < B / 2) == (half == 0) ? 1.0f / B : 0;
        run(&r);
        sum += (double)r.metrics[0];
        for (size_t i = 0; i < r.flat; i++)
            whole[i] -= r.grads[i];
    }
    kit_assert_close(sum, (double)loss, 1e-6, "loss");
    for (size_t i = 0; i < r.flat; i++)
        kit_assert_close((double)whole[i], 0, 1e-6, "gradient");
    lh_exec_accumulate(r.e, true); /* to the second half, the first */
    for (size_t i = 0; i < B; i++)
        w[i] = i < B / 2 ? 1.0f / B : 0;
    run(&r);
    kit_assert_close((double)r.metrics[0], (double)loss, 1e-6, "loss of both");
    lh_exec_accumulate(r.e, false);
    float *both = floats(r.flat);
    memcpy(both, r.grads, r.flat * sizeof *both);
    for (size_t i = 0; i < B; i++)
        w[i] = 1.0f / B;
    run(&r);
    for (size_t i = 0; i < r.flat; i++)
        kit_assert_close((double)both[i], (double)r.grads[i], 1e-6, "gradient of both");
    free(both);
    free(whole);
    rig_fini(&r);
}

static void noise_is_keyed_by_its_name_and_can_be_given(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_output(g, "x", lh_noise(g, "x", 3));
    lh_output(g, "y", lh_noise(g, "y", 3));
    struct rig r;
    rig_init(&r, g);
    run(&r);
    float expected[B * 3];
    struct lh_rng_at at = {.seed = 4, .step = 7, .part = 2, .purpose = lh_rng_purpose("x")};
    lh_rng_normal(&at, expected, B * 3);
    size_t rows, cols;
    const float *x = lh_exec_output(r.e, "x", &rows, &cols),
                *y = lh_exec_output(r.e, "y", NULL, NULL);
    assert_int_equal(rows * 10 + cols, B * 10 + 3);
    assert_memory_equal(x, expected, sizeof expected);
    assert_memory_not_equal(y, expected, sizeof expected);
    for (int i = 0; i < B * 3; i++)
        expected[i] = (float)i;
    assert_ok(lh_exec_set_noise(r.e, "x", expected));
    run(&r);
    assert_memory_equal(lh_exec_output(r.e, "x", NULL, NULL), expected, sizeof expected);
    assert_ok(lh_exec_set_noise(r.e, "x", NULL));
    run(&r);
    assert_memory_not_equal(lh_exec_output(r.e, "x", NULL, NULL), expected, sizeof expected);
    assert_err(lh_exec_set_noise(r.e, "z", NULL), LH_ENOENT, "noise 'z'");
    assert_null(lh_exec_output(r.e, "z", NULL, NULL));
    assert_null(lh_exec_input(r.e, LH_ACTION));
    rig_fini(&r);
}

static void value_that_is_no_number_is_seen_in_the_loss(void **state_)
{
    (void)state_;
    static const float poison[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        struct lh_graph *g = graph();
        lh_node a = lh_relu(g, lh_clamp(g, mlp(g, LH_LIVE, "net", state(g), 2), -100, 100));
        lh_node b = lh_min(g, lh_input(g, LH_ACTION), lh_max(g, a, lh_input(g, LH_ACTION)));
        lh_loss(g, "l", 1, lh_mean(g, lh_row_norm(g, lh_tanh(g, lh_add(g, a, b)))), "net.*");
        struct rig r;
        rig_init(&r, g);
        run(&r);
        assert_true(isfinite(r.metrics[0]));
        lh_exec_input(r.e, i ? LH_STATE_LOW : LH_ACTION)[0] = i ? NAN : poison[0];
        run(&r);
        assert_true(isnan(r.metrics[0]));
        rig_fini(&r);
    }
    struct lh_graph *g = graph(); /* a class that does not exist */
    lh_loss(g, "l", 1,
            lh_mean(g, lh_softmax_cross_entropy(g, mlp(g, LH_LIVE, "net", state(g), 5),
                                                lh_input(g, LH_REWARD_CLASS))),
            "net.*");
    struct rig r;
    rig_init(&r, g);
    static const float classes[] = {-1, 5, NAN, INFINITY, 1e20f};
    for (size_t k = 0; k < sizeof classes / sizeof *classes; k++) {
        float *c = lh_exec_input(r.e, LH_REWARD_CLASS);
        for (size_t i = 0; i < B; i++)
            c[i] = (float)(i % 5);
        run(&r);
        assert_true(isfinite(r.metrics[0]));
        c[3] = classes[k];
        run(&r);
        assert_true(isnan(r.metrics[0]));
    }
    rig_fini(&r);
}

/* A compiled graph does not change: execs of several threads run it side by side. */
static void *run_many(void *ctx)
{
    struct rig *r = ctx;
    for (int i = 0; i < 20; i++)
        run(r);
    return NULL;
}

static void run_by_threads_over_one_graph_gives_the_same_bits(void **state_)
{
    (void)state_;
    enum { N = 3 };
    struct lh_graph *g = graph();
    declare_pair(g);
    assert_ok(lh_graph_compile(g));
    struct rig r[N];
    pthread_t thread[N];
    for (int i = 0; i < N; i++) {
        rig_fill(&r[i], g);
        assert_int_equal(pthread_create(&thread[i], NULL, run_many, &r[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_memory_equal(r[i].grads, r[0].grads, r[0].flat * sizeof(float));
    }
    for (int i = 0; i < N; i++) {
        r[i].g = NULL; /* one graph, destroyed once */
        rig_fini(&r[i]);
    }
    lh_graph_destroy(&g);
}

/* --- ready -------------------------------------------------------------------------------------
 */
struct watch {
    struct rig *r;
    size_t order[32], n;
    float *seen; /* gradients as they were when they were said to be final */
};

static void on_ready(void *ctx, size_t i)
{
    struct watch *w = ctx;
    size_t n;
    const struct lh_param *p = lh_graph_params(w->r->g, &n);
    assert_true(i < n && w->n < 32);
    w->order[w->n++] = i;
    memcpy(w->seen + p[i].offset, w->r->grads + p[i].offset, p[i].rows * p[i].cols * sizeof(float));
}

/* A network used twice adds up two products; only the second makes its gradient final. */
static void ready_comes_once_for_each_trained_parameter_when_it_is_final(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_pair(g);
    lh_node twice = mlp(g, LH_LIVE, "actor", lh_tanh(g, state(g)), 2);
    lh_loss(g, "again", 1, lh_mean(g, lh_row_norm(g, twice)), "actor.*");
    lh_loss(g, "off", 0, lh_mean(g, mlp(g, LH_LIVE, "idle", twice, 1)), "idle.*");
    struct rig r;
    rig_init(&r, g);
    struct watch w = {.r = &r, .seen = floats(r.flat)};
    lh_exec_run(r.e, r.params, r.targets, r.grads, r.metrics, NULL, on_ready, &w);
    assert_int_equal(w.n, 12);
    size_t n, first = 0;
    const struct lh_param *p = lh_graph_params(g, &n);
    assert_int_equal(n, 18);
    for (size_t i = 0; i < w.n; i++) {
        const struct lh_param *q = &p[w.order[i]];
        assert_true(q->trained);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(w.order[k], w.order[i]);
        assert_memory_equal(w.seen + q->offset, r.grads + q->offset,
                            q->rows * q->cols * sizeof(float));
        first += i < 6 && q->name[0] == 'c';
    }
    assert_true(first == 0 || first == 6); /* a network is finished before the next begins */
    free(w.seen);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_warm_allocates_nothing),
        kit_test(run_again_or_in_another_exec_gives_the_same_bits),
        kit_test(run_writes_every_element_of_the_gradient),
        kit_test(run_with_weights_that_stay_gives_the_same_bits_until_told_of_others),
        kit_test(run_with_parameters_placed_apart_gives_the_same_bits),
        kit_test(run_over_micro_batches_adds_up_to_the_batch),
        kit_test(noise_is_keyed_by_its_name_and_can_be_given),
        kit_test(value_that_is_no_number_is_seen_in_the_loss),
        kit_test(run_by_threads_over_one_graph_gives_the_same_bits),
        kit_test(ready_comes_once_for_each_trained_parameter_when_it_is_final),
    };
    return cmocka_run_group_tests_name("exec", tests, NULL, NULL);
}
