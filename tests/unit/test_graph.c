#include "tests/unit/graph_rig.h"

#include <math.h>

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

static void params_of_a_large_tensor_do_not_repeat(void **state_)
{
    (void)state_;
    struct lh_graph *g = graph();
    lh_output(g, "y", lh_linear(g, LH_LIVE, "net", state(g), 100, LH_LINEAR));
    assert_ok(lh_graph_compile(g));
    float *x = floats(lh_graph_flat_size(g)), *w = x + param(g, "net.weight")->offset;
    lh_graph_init_params(g, 1, x);
    for (size_t lag = 1; lag < 350; lag++)
        assert_memory_not_equal(w, w + lag, 16 * sizeof *w);
    free(x);
    lh_graph_destroy(&g);
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
        kit_test(params_of_a_large_tensor_do_not_repeat),
        kit_test(params_are_sorted_aligned_and_start_from_their_names),
    };
    return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
