#include "common/gemm.h"
#include "tests/unit/graph_rig.h"

#define MAC   2ull * B /* flops of one multiply-add a row */
#define STATE 20
#define REST  6

static lh_node critic(struct lh_graph *g, enum lh_use how, lh_node s, lh_node rest)
{
    return mlp(g, how, "critic", lh_concat(g, s, rest), 1);
}

/* A critic of the same state beside "x" (which 1), "y" (2) or each of them (3). */
static struct lh_graph *learning(int which, lh_node *s)
{
    static const char *const rest[] = {"x", "y"}, *const names[] = {"of x", "of y"};
    struct lh_graph *g = graph();
    *s = lh_noise(g, "state", STATE);
    for (int k = 0; k < 2; k++) {
        if (!(which & (1 << k)))
            continue;
        lh_node q = critic(g, LH_LIVE, *s, lh_noise(g, rest[k], REST));
        lh_loss(g, names[k], 1, lh_mean(g, lh_square(g, q)), "critic.*");
        lh_output(g, names[k], q);
    }
    return g;
}

static void columns_that_uses_share_are_multiplied_once(void **state_)
{
    (void)state_;
    lh_node state;
    struct lh_graph *g = learning(3, &state);
    assert_ok(lh_graph_compile(g));
    struct lh_graph_stats s = lh_graph_stats(g);
    const uint64_t first = (STATE + 2 * REST) * HIDDEN, inner = HIDDEN * HIDDEN + HIDDEN;
    assert_int_equal(s.flops_forward, MAC * (first + 2 * inner));
    assert_int_equal(s.flops_backward, MAC * (first + 2 * inner + 2 * inner));
    lh_graph_destroy(&g);
}

static void same_bits(const struct rig *x, const struct rig *y, const char *name)
{
    const float *a = lh_exec_output(x->e, name, NULL, NULL),
                *b = lh_exec_output(y->e, name, NULL, NULL);
    if (strcmp(lh_gemm_choose()->name, "fma") == 0)
        assert_memory_equal(a, b, B * sizeof *a);
    else
        for (size_t i = 0; i < B; i++)
            kit_assert_close((double)a[i], (double)b[i], 1e-5, name);
}

/* Twice, the second time with packed weights; then the sums of both. */
static void values_and_gradients_are_those_of_the_uses_alone(void **state_)
{
    (void)state_;
    struct rig x, y, both;
    lh_node state;
    rig_init(&x, learning(1, &state));
    rig_init(&y, learning(2, &state));
    rig_init(&both, learning(3, &state));
    run(&x);
    run(&y);
    lh_exec_reuse(both.e, true);
    for (int again = 0; again < 3; again++) {
        lh_exec_accumulate(both.e, again == 2);
        run(&both);
        same_bits(&both, &x, "of x");
        same_bits(&both, &y, "of y");
        for (size_t i = 0; i < both.flat; i++)
            kit_assert_close((double)both.grads[i],
                             (again == 2 ? 2 : 1) * ((double)x.grads[i] + (double)y.grads[i]), 1e-5,
                             "gradient");
    }
    rig_fini(&x);
    rig_fini(&y);
    rig_fini(&both);
}

/* An actor that climbs the critic: the product of the state is the learning critic's, and the
 * gradient is that of the action's columns alone. */
static void frozen_use_shares_with_a_live_one(void **state_)
{
    (void)state_;
    struct lh_graph_stats stats[2];
    struct rig r[2];
    for (int climbs = 0; climbs < 2; climbs++) {
        lh_node s;
        struct lh_graph *g = learning(1, &s);
        if (climbs) {
            lh_node a = mlp(g, LH_LIVE, "actor", lh_input(g, LH_ACTION), REST);
            lh_loss(g, "j", 1, lh_neg(g, lh_mean(g, critic(g, LH_FROZEN, s, a))), "actor.*");
        }
        rig_init(&r[climbs], g);
        stats[climbs] = lh_graph_stats(g);
        run(&r[climbs]);
    }
    const uint64_t square = HIDDEN * HIDDEN, actor = 2 * HIDDEN + square + HIDDEN * REST,
                   inner = square + HIDDEN;
    assert_int_equal(stats[1].flops_forward - stats[0].flops_forward,
                     MAC * (actor + REST * HIDDEN + inner));
    assert_int_equal(stats[1].flops_backward - stats[0].flops_backward,
                     MAC * (inner + REST * HIDDEN + square + HIDDEN * REST + actor));
    same_bits(&r[1], &r[0], "of x");
    const struct lh_param *w0 = param(r[0].g, "critic.0.weight"),
                          *w1 = param(r[1].g, "critic.0.weight");
    for (size_t i = 0; i < w0->rows * w0->cols; i++)
        kit_assert_close((double)r[1].grads[w1->offset + i], (double)r[0].grads[w0->offset + i],
                         1e-5, "gradient of the critic");
    rig_fini(&r[0]);
    rig_fini(&r[1]);
}

/* Target weights are others, and few columns are not worth it. */
static void what_differs_or_is_small_is_not_shared(void **state_)
{
    (void)state_;
    const uint64_t inner = HIDDEN * HIDDEN + HIDDEN;
    for (int small = 0; small < 2; small++) {
        const size_t cols = small ? 15 : STATE;
        struct lh_graph *g = graph();
        lh_node s = lh_noise(g, "state", cols);
        for (int k = 0; k < 2; k++)
            lh_output(g, k ? "y" : "x",
                      critic(g, k && !small ? LH_TARGET : LH_LIVE, s,
                             lh_noise(g, k ? "noise y" : "noise x", REST)));
        assert_ok(lh_graph_compile(g));
        assert_int_equal(lh_graph_stats(g).flops_forward,
                         MAC * 2 * ((cols + REST) * HIDDEN + inner));
        lh_graph_destroy(&g);
    }
}

static void compile_with_failing_allocations_leaves_nothing(void **state_)
{
    (void)state_;
    for (uint64_t nth = 1;; nth++) {
        lh_node s;
        struct lh_graph *g = learning(3, &s);
        lh_mem_fail_at(nth);
        int rc = lh_graph_compile(g);
        lh_mem_fail_at(0);
        lh_graph_destroy(&g);
        if (rc == 0) {
            assert_true(nth > 20);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(columns_that_uses_share_are_multiplied_once),
        kit_test(values_and_gradients_are_those_of_the_uses_alone),
        kit_test(frozen_use_shares_with_a_live_one),
        kit_test(what_differs_or_is_small_is_not_shared),
        kit_test(compile_with_failing_allocations_leaves_nothing),
    };
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
