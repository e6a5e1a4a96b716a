#include "tests/unit/graph_rig.h"

#include <math.h>

/* --- what is computed --------------------------------------------------------------------------
 */
static struct lh_graph_stats stats_of(struct lh_graph *g)
{
    assert_ok(lh_graph_compile(g));
    struct lh_graph_stats s = lh_graph_stats(g);
    lh_graph_destroy(&g);
    return s;
}

#define MAC 2ull * B /* flops of one multiply-add a row */

/* Multiply-adds a row of a network's layers: forward, its weights, and its inputs but the first. */
static uint64_t layers(size_t in, size_t out)
{
    return in * HIDDEN + HIDDEN * HIDDEN + HIDDEN * out;
}

static uint64_t inner(size_t out)
{
    return HIDDEN * HIDDEN + HIDDEN * out;
}

static void gradients_of_a_leaf_are_those_of_its_weights(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_actor(g);
    struct lh_graph_stats s = stats_of(g);
    assert_int_equal(s.flops_forward, MAC * layers(7, 2));
    assert_int_equal(s.flops_backward, MAC * (layers(7, 2) + inner(2)));
}

/* Through the frozen critic: no weights, and of the first layer the two columns of the action. */
static void gradients_through_a_frozen_network_are_those_of_its_input(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_node s = state(g), a = mlp(g, LH_LIVE, "actor", s, 2);
    lh_loss(g, "j", 1, lh_mean(g, mlp(g, LH_FROZEN, "critic", lh_concat(g, s, a), 1)), "actor.*");
    struct lh_graph_stats st = stats_of(g);
    assert_int_equal(st.flops_forward, MAC * (layers(7, 2) + layers(9, 1)));
    assert_int_equal(st.flops_backward, MAC * (layers(7, 2) + inner(2) + inner(1) + 2 * HIDDEN));
}

static void gradients_of_one_layer_stop_there(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_node a = mlp(g, LH_LIVE, "actor", state(g), 2);
    lh_loss(g, "l", 1, lh_mean(g, lh_row_sum(g, a)), "actor.2.*");
    assert_int_equal(stats_of(g).flops_backward, MAC * 2 * HIDDEN);
    g = graph();
    a = mlp(g, LH_LIVE, "actor", state(g), 2);
    lh_loss(g, "l", 1, lh_mean(g, lh_row_sum(g, a)), "actor.1.bias");
    assert_int_equal(stats_of(g).flops_backward, MAC * 2 * HIDDEN);
}

/* A loss over the first layer only goes down beside a loss over all of them, and joins it where the
 * first layer is all that is left to reach. */
static void gradients_of_losses_join_where_their_sets_are_equal(void **state_)
{
    (void)state_;
    uint64_t flops[2];
    for (int same = 0; same < 2; same++) {
        struct lh_graph *g = graph();
        lh_node a = mlp(g, LH_LIVE, "actor", state(g), 2);
        lh_loss(g, "x", 1, lh_mean(g, lh_row_sum(g, a)), "actor.*");
        lh_loss(g, "y", 1, lh_mean(g, lh_row_norm(g, a)), same ? "actor.*" : "actor.0.*");
        flops[same] = stats_of(g).flops_backward;
    }
    assert_int_equal(flops[1], MAC * (layers(7, 2) + inner(2)));
    assert_int_equal(flops[0], flops[1] + MAC * inner(2));
}

static void loss_of_weight_zero_is_reported_and_costs_no_gradient(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_node a = mlp(g, LH_LIVE, "actor", state(g), 2);
    lh_loss(g, "off", 0, lh_mean(g, lh_sqdist(g, a, lh_input(g, LH_ACTION))), "actor.*");
    struct rig r;
    rig_init(&r, g);
    assert_int_equal(lh_graph_stats(g).flops_backward, 0);
    assert_false(param(g, "actor.0.weight")->trained);
    run(&r);
    assert_true(r.metrics[0] > 0);
    for (size_t i = 0; i < r.flat; i++)
        assert_true(r.grads[i] == 0);
    rig_fini(&r);
}

static void value_that_nobody_uses_is_not_computed(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_actor(g);
    struct lh_graph_stats lean = stats_of(g);
    g = graph();
    declare_actor(g);
    lh_exp(g, mlp(g, LH_LIVE, "actor", lh_tanh(g, state(g)), 2));
    struct lh_graph_stats with = stats_of(g);
    assert_int_equal(with.flops_forward, lean.flops_forward);
    assert_int_equal(with.nodes, lean.nodes);
}

/* Live and frozen uses of a network on the same input have the same value: it is computed once. */
static void frozen_use_beside_a_live_one_costs_nothing(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_actor(g);
    lh_metric(g, "sum",
              lh_mean(g, lh_row_sum(g, mlp(g, LH_FROZEN, "actor", lh_stop(g, state(g)), 2))));
    assert_int_equal(stats_of(g).flops_forward, MAC * layers(7, 2));
}

static void memory_of_values_that_died_is_used_again(void **state_)
{
    (void)state_;
    size_t bytes[2];
    for (int deep = 0; deep < 2; deep++) {
        struct lh_graph *g = graph();
        lh_node x = lh_input(g, LH_ACTION);
        for (int i = 0; i < (deep ? 100 : 10); i++)
            x = lh_tanh(g, lh_slice(g, lh_concat(g, x, lh_input(g, LH_ACTION)), 1, 2));
        lh_output(g, "x", x);
        bytes[deep] = stats_of(g).arena_bytes;
    }
    assert_int_equal(bytes[0], bytes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(gradients_of_a_leaf_are_those_of_its_weights),
        kit_test(gradients_through_a_frozen_network_are_those_of_its_input),
        kit_test(gradients_of_one_layer_stop_there),
        kit_test(gradients_of_losses_join_where_their_sets_are_equal),
        kit_test(loss_of_weight_zero_is_reported_and_costs_no_gradient),
        kit_test(value_that_nobody_uses_is_not_computed),
        kit_test(frozen_use_beside_a_live_one_costs_nothing),
        kit_test(memory_of_values_that_died_is_used_again),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
