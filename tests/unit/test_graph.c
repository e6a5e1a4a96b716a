#include "common/graph.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define B      8
#define HIDDEN 12

static const struct lh_graph_spec spec = {.rows = B,
                                          .dims = {.high = 3, .low = 4, .action = 2, .classes = 5}};

static struct lh_graph *graph(void)
{
    struct lh_graph *g = NULL;
    assert_ok(lh_graph_create(&g, &spec));
    return g;
}

static lh_node mlp(struct lh_graph *g, enum lh_use use, const char *name, lh_node x, size_t out)
{
    return lh_mlp(g, use, name, x,
                  &(struct lh_mlp_spec){.hidden = {HIDDEN, HIDDEN}, .n_hidden = 2, .out = out});
}

static lh_node state(struct lh_graph *g)
{
    return lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
}

/* Regression of the action by "actor": the smallest graph with a gradient. */
static void declare_actor(struct lh_graph *g)
{
    lh_node a = mlp(g, LH_LIVE, "actor", state(g), 2);
    lh_loss(g, "mse", 1, lh_mean(g, lh_sqdist(g, a, lh_input(g, LH_ACTION))), "actor.*");
}

/* An actor that climbs a critic which learns beside it. */
static void declare_pair(struct lh_graph *g)
{
    lh_node s = state(g), a = mlp(g, LH_LIVE, "actor", s, 2);
    lh_node e = lh_affine(g, lh_noise(g, "explore", 2), 0.1, 0);
    lh_node q = mlp(g, LH_LIVE, "critic", lh_concat(g, s, lh_input(g, LH_ACTION)), 1);
    lh_node t = mlp(g, LH_TARGET, "critic", lh_concat(g, s, lh_add(g, a, e)), 1);
    lh_node pi = mlp(g, LH_FROZEN, "critic", lh_concat(g, s, a), 1);
    lh_loss(g, "td", 1, lh_mean(g, lh_sqdist(g, q, lh_stop(g, t))), "critic.*");
    lh_loss(g, "j", 1, lh_neg(g, lh_mean(g, pi)), "actor.*");
    lh_metric(g, "q", lh_mean(g, q));
    lh_output(g, "action", a);
}

/* --- running a graph ---------------------------------------------------------------------------
 */
struct rig {
    struct lh_graph *g;
    struct lh_exec *e;
    size_t flat;
    float *params, *targets, *grads;
    float metrics[8];
};

static float *floats(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64 + 64);
    assert_non_null(p);
    memset(p, 0x7f, n * sizeof *p);
    return p;
}

static void rig_init(struct rig *r, struct lh_graph *g)
{
    assert_ok(lh_graph_compile(g));
    r->g = g;
    assert_ok(lh_exec_create(&r->e, g));
    r->flat = lh_graph_flat_size(g);
    r->params = floats(r->flat);
    r->targets = floats(r->flat);
    r->grads = floats(r->flat);
    lh_graph_init_params(g, 1, r->params);
    lh_graph_init_params(g, 2, r->targets);
    for (int k = 0; k < LH_INPUTS; k++) {
        float *x = lh_exec_input(r->e, (enum lh_input_kind)k);
        size_t cols = k == LH_STATE_HIGH ? 3 : k == LH_STATE_LOW ? 4 : k == LH_ACTION ? 2 : 1;
        struct lh_rng_at at = {.seed = 3, .purpose = (uint32_t)k};
        if (x && k == LH_ROW_WEIGHT)
            for (size_t i = 0; i < B; i++)
                x[i] = 1.0f / B;
        else if (x)
            lh_rng_normal(&at, x, B * cols);
    }
}

static void rig_fini(struct rig *r)
{
    free(r->params);
    free(r->targets);
    free(r->grads);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

static void run(struct rig *r)
{
    lh_exec_run(r->e, r->params, r->targets, r->grads, r->metrics,
                &(struct lh_rng_at){.seed = 4, .step = 7, .part = 2}, NULL, NULL);
}

static const struct lh_param *param(const struct lh_graph *g, const char *name)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].name, name) == 0)
            return &p[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

/* --- declaring ---------------------------------------------------------------------------------
 */
static void create_without_rows_fails(void **state_)
{
    (void)state_;
    struct lh_graph *g = NULL;
    assert_err(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 0}), LH_ECONFIG, "0 rows");
    assert_null(g);
    lh_graph_destroy(&g);
}

static void declaring_the_same_twice_is_one_node(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_node s = state(g);
    assert_int_equal(lh_input(g, LH_ACTION).id, lh_input(g, LH_ACTION).id);
    assert_int_equal(s.id, state(g).id);
    lh_node x = mlp(g, LH_LIVE, "net", s, 2);
    assert_int_equal(x.id, mlp(g, LH_LIVE, "net", s, 2).id);
    assert_int_not_equal(x.id, mlp(g, LH_FROZEN, "net", s, 2).id);
    assert_int_not_equal(lh_affine(g, x, 2, 0).id, lh_affine(g, x, 2, 1).id);
    assert_int_not_equal(lh_sub(g, x, lh_exp(g, x)).id, lh_sub(g, lh_exp(g, x), x).id);
    /* a concat of a concat is one of the parts; its slices along parts are the parts */
    lh_node all = lh_concat3(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW), x);
    assert_int_equal(all.id, lh_concat(g, s, x).id);
    assert_int_equal(lh_slice(g, all, 7, 2).id, x.id);
    assert_int_equal(lh_slice(g, all, 0, 9).id, all.id);
    assert_ok(lh_graph_status(g));
    lh_graph_destroy(&g);
}

static void declaring_after_an_error_does_nothing_and_keeps_the_first(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_node s = state(g);
    lh_node bad = lh_add(g, s, lh_input(g, LH_ACTION));
    assert_true(bad.id < 0);
    assert_true(mlp(g, LH_LIVE, "net", bad, 2).id < 0);
    assert_true(lh_noise(g, "n", 0).id < 0);
    lh_loss(g, "l", 1, bad, "net.*");
    assert_int_equal(lh_graph_fail(g, LH_ERANGE, "another"), LH_ECONFIG);
    assert_err(lh_graph_status(g), LH_ECONFIG, "add: a matrix of 8 x 7 with one of 8 x 2");
    assert_err(lh_graph_compile(g), LH_ECONFIG, "add: a matrix");
    struct lh_exec *e = NULL;
    assert_err(lh_exec_create(&e, g), LH_EINTERNAL, "not compiled");
    lh_graph_destroy(&g);
}

#define BAD(code, text, statement)                                                                 \
    do {                                                                                           \
        struct lh_graph *g = graph();                                                              \
        lh_node a = lh_input(g, LH_ACTION), s = state(g);                                          \
        (void)a;                                                                                   \
        (void)s;                                                                                   \
        statement;                                                                                 \
        assert_err(lh_graph_status(g), code, text);                                                \
        lh_graph_destroy(&g);                                                                      \
    } while (0)

static void declaring_what_does_not_fit_fails_with_a_sentence(void **state_)
{
    (void)state_;
    BAD(LH_ECONFIG, "slice: columns 5 to 8 of a matrix that has 7", lh_slice(g, s, 5, 3));
    BAD(LH_ECONFIG, "slice", lh_slice(g, s, SIZE_MAX, 2));
    BAD(LH_ECONFIG, "16 rows beside 8", lh_concat(g, lh_repeat(g, a, 2), a));
    BAD(LH_ECONFIG, "repeat: 0 times", lh_repeat(g, a, 0));
    BAD(LH_ECONFIG, "at most 2^31", lh_repeat(g, a, INT32_MAX));
    BAD(LH_ECONFIG, "reshape: 8 x 2 elements", lh_reshape(g, a, 3));
    BAD(LH_ECONFIG, "mean: a matrix of 8 x 2", lh_mean(g, a));
    BAD(LH_ECONFIG, "groups of 3 from 8 rows", lh_select_best(g, a, lh_row_sum(g, a), 3));
    BAD(LH_ECONFIG, "gauss_split: 7 columns", lh_gauss_split(g, s, -1, 1));
    BAD(LH_ECONFIG, "clamp: the lower bound 1", lh_clamp(g, a, 1, -1));
    BAD(LH_ECONFIG, "logits [8, 2]", lh_softmax_cross_entropy(g, a, a));
    BAD(LH_ECONFIG, "layer 'net': 2 inputs and 0 outputs",
        lh_linear(g, LH_LIVE, "net", a, 0, LH_LINEAR));
    BAD(LH_ECONFIG, "'net.weight': used as [2, 7], but before as [2, 2]",
        lh_linear(g, LH_LIVE, "net", a, 2, LH_LINEAR);
        lh_linear(g, LH_LIVE, "net", s, 2, LH_LINEAR));
    BAD(LH_ECONFIG, "there already is noise 'n'", lh_noise(g, "n", 1); lh_noise(g, "n", 2));
    BAD(LH_ECONFIG, "expected one number", lh_loss(g, "l", 1, a, "*"));
    BAD(LH_ECONFIG, "loss 'l': its weight is not finite",
        lh_loss(g, "l", NAN, lh_mean(g, lh_row_sum(g, a)), "*"));
    BAD(LH_ECONFIG, "metric 'm': the name is taken",
        lh_metric(g, "m", lh_mean(g, lh_row_sum(g, a)));
        lh_metric(g, "m", lh_mean(g, lh_row_sum(g, a))));
    BAD(LH_ECONFIG, "output 'o'", lh_output(g, "o", a); lh_output(g, "o", s));
    BAD(LH_EINTERNAL, "no state input", lh_next(g, a));
    BAD(LH_EINTERNAL, "no node of this graph", lh_tanh(g, (lh_node){1000}));
}

static void concat_with_an_input_without_columns_is_the_other(void **state_)
{
    (void)state_;
    struct lh_graph *g = NULL;
    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 4, .dims = {.low = 3}}));
    lh_node low = lh_input(g, LH_STATE_LOW);
    assert_int_equal(lh_concat(g, lh_input(g, LH_STATE_HIGH), low).id, low.id);
    assert_ok(lh_graph_status(g));
    lh_graph_destroy(&g);
}

/* --- compiling ---------------------------------------------------------------------------------
 */
#define BAD_COMPILE(text, statement)                                                               \
    do {                                                                                           \
        struct lh_graph *g = graph();                                                              \
        lh_node x = mlp(g, LH_LIVE, "net", state(g), 1), m = lh_mean(g, x);                        \
        (void)m;                                                                                   \
        statement;                                                                                 \
        assert_err(lh_graph_compile(g), LH_ECONFIG, text);                                         \
        assert_err(lh_graph_status(g), LH_ECONFIG, text);                                          \
        lh_graph_destroy(&g);                                                                      \
    } while (0)

static void compile_what_cannot_train_fails_with_a_sentence(void **state_)
{
    (void)state_;
    BAD_COMPILE("no loss, metric or output", );
    BAD_COMPILE("loss 'l': no parameter matches 'nut.*'", lh_loss(g, "l", 1, m, "net.* nut.*"));
    BAD_COMPILE("loss 'l': no parameter matches 'net'", lh_loss(g, "l", 0, m, "net"));
    BAD_COMPILE("loss 'l': names no parameters", lh_loss(g, "l", 1, m, " "));
    BAD_COMPILE("does not depend on any of 'net.*'",
                lh_loss(g, "l", 1, lh_mean(g, lh_stop(g, x)), "net.*"));
    BAD_COMPILE("does not depend on any of 'net.*'",
                lh_loss(g, "l", 1, lh_mean(g, lh_input(g, LH_REWARD)), "net.*"));
    BAD_COMPILE("parameter 'idle.0.bias': no loss, metric or output uses it",
                mlp(g, LH_LIVE, "idle", x, 2);
                lh_loss(g, "l", 1, m, "net.*"));
}

static void compile_twice_or_declaring_after_it_fails(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    declare_actor(g);
    assert_ok(lh_graph_compile(g));
    assert_err(lh_graph_compile(g), LH_EINTERNAL, "after it was compiled");
    assert_true(lh_input(g, LH_REWARD).id < 0);
    assert_ok(lh_graph_status(g)); /* the graph itself is still good */
    lh_graph_destroy(&g);
}

static void compile_with_failing_allocations_leaves_nothing(void **state_)
{
    (void)state_;
    for (uint64_t nth = 1;; nth++) {
        struct lh_graph *g = NULL;
        struct lh_exec *e = NULL;
        lh_mem_fail_at(nth);
        int rc = lh_graph_create(&g, &spec);
        if (rc == 0) {
            declare_pair(g);
            rc = lh_graph_compile(g);
        }
        if (rc == 0)
            rc = lh_exec_create(&e, g);
        lh_mem_fail_at(0);
        lh_exec_destroy(&e);
        lh_graph_destroy(&g);
        if (rc == 0) {
            assert_true(nth > 40);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

/* --- parameters --------------------------------------------------------------------------------
 */
static void params_are_sorted_aligned_and_start_from_their_names(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph(), *other = graph();
    declare_pair(g);
    declare_actor(other);
    assert_ok(lh_graph_compile(g));
    assert_ok(lh_graph_compile(other));
    size_t n, flat = lh_graph_flat_size(g);
    const struct lh_param *p = lh_graph_params(g, &n);
    assert_int_equal(n, 12);
    float *x = floats(flat), *y = floats(lh_graph_flat_size(other));
    lh_graph_init_params(g, 7, x);
    lh_graph_init_params(other, 7, y);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || strcmp(p[i - 1].name, p[i].name) < 0);
        assert_true(p[i].trained);
        assert_int_equal(p[i].has_target, p[i].name[0] == 'c');
        assert_int_equal(p[i].offset % 16, 0);
        for (; at < p[i].offset; at++)
            assert_true(x[at] == 0);
        double bound = 1 / sqrt((double)p[i].fan_in), low = 0, high = 0;
        for (; at < p[i].offset + p[i].rows * p[i].cols; at++) {
            low = fmin(low, x[at]);
            high = fmax(high, x[at]);
        }
        assert_true(low >= -bound && high <= bound && (p[i].rows * p[i].cols < 12 || low < 0));
    }
    for (; at < flat; at++)
        assert_true(x[at] == 0);
    const struct lh_param *w = param(g, "actor.1.weight"), *v = param(other, "actor.1.weight");
    assert_memory_equal(x + w->offset, y + v->offset, HIDDEN * HIDDEN * sizeof *x);
    assert_int_equal(w->rows * 1000 + w->cols, HIDDEN * 1000 + HIDDEN);
    assert_true(x[w->offset] != x[param(g, "critic.1.weight")->offset]);
    lh_graph_init_params(g, 8, y = realloc(y, flat * sizeof *y));
    assert_true(x[w->offset] != y[w->offset]);
    free(x);
    free(y);
    lh_graph_destroy(&g);
    lh_graph_destroy(&other);
}

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

/* Half the batch with the weights of the whole, twice, is the whole. */
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
        kit_test(create_without_rows_fails),
        kit_test(declaring_the_same_twice_is_one_node),
        kit_test(declaring_after_an_error_does_nothing_and_keeps_the_first),
        kit_test(declaring_what_does_not_fit_fails_with_a_sentence),
        kit_test(concat_with_an_input_without_columns_is_the_other),
        kit_test(compile_what_cannot_train_fails_with_a_sentence),
        kit_test(compile_twice_or_declaring_after_it_fails),
        kit_test(compile_with_failing_allocations_leaves_nothing),
        kit_test(params_are_sorted_aligned_and_start_from_their_names),
        kit_test(gradients_of_a_leaf_are_those_of_its_weights),
        kit_test(gradients_through_a_frozen_network_are_those_of_its_input),
        kit_test(gradients_of_one_layer_stop_there),
        kit_test(gradients_of_losses_join_where_their_sets_are_equal),
        kit_test(loss_of_weight_zero_is_reported_and_costs_no_gradient),
        kit_test(value_that_nobody_uses_is_not_computed),
        kit_test(frozen_use_beside_a_live_one_costs_nothing),
        kit_test(memory_of_values_that_died_is_used_again),
        kit_test(run_warm_allocates_nothing),
        kit_test(run_again_or_in_another_exec_gives_the_same_bits),
        kit_test(run_writes_every_element_of_the_gradient),
        kit_test(run_over_micro_batches_adds_up_to_the_batch),
        kit_test(noise_is_keyed_by_its_name_and_can_be_given),
        kit_test(value_that_is_no_number_is_seen_in_the_loss),
        kit_test(ready_comes_once_for_each_trained_parameter_when_it_is_final),
    };
    return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
