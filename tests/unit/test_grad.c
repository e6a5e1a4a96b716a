/* Gradients in double against central differences: the sources of the graph compiled with
 * LH_REAL_IS_DOUBLE. */
#include "tests/unit/graph_cases.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(lh_real) == sizeof(double), "gradients are checked in double");

static lh_real *fresh(size_t n, size_t seed)
{
    lh_real *p = aligned_alloc(128, (n * sizeof *p + 127) / 128 * 128 + 128);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = case_value(seed, i);
    return p;
}

/* A compiled graph, ready to run. */
struct rig {
    struct lh_graph *g;
    struct lh_exec *e;
    size_t flat, n_metrics;
    lh_real *params, *targets, *grads, *metrics;
};

static void rig_init(struct rig *r, struct lh_graph *g)
{
    assert_ok(lh_graph_compile(g));
    r->g = g;
    assert_ok(lh_exec_create(&r->e, g));
    r->flat = lh_graph_flat_size(g);
    r->n_metrics = lh_graph_metrics(g);
    r->params = fresh(r->flat, 1);
    r->targets = fresh(r->flat, 2);
    r->grads = fresh(r->flat, 9); /* garbage, to be overwritten */
    r->metrics = fresh(r->n_metrics, 9);
    for (int kind = 0; kind < LH_INPUTS; kind++) {
        lh_real *x = lh_exec_input(r->e, (enum lh_input_kind)kind);
        size_t cols = kind == LH_STATE_HIGH || kind == LH_NEXT_STATE_HIGH ? CASE_HIGH
                      : kind <= LH_ACTION || kind == LH_NEXT_STATE_LOW    ? 2
                                                                          : 1;
        for (size_t i = 0; x && i < CASE_ROWS * cols; i++)
            x[i] = kind == LH_REWARD_CLASS ? (lh_real)(i % 4)
                   : kind == LH_ROW_WEIGHT ? (i == 4 ? 0 : 0.2) /* one row is padding */
                                           : case_value(10 + (size_t)kind, i);
    }
}

static void rig_fini(struct rig *r)
{
    free(r->params);
    free(r->targets);
    free(r->grads);
    free(r->metrics);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

static void run(struct rig *r, bool backward)
{
    lh_exec_run(r->e, r->params, r->targets, backward ? r->grads : NULL, r->metrics,
                &(struct lh_rng_at){.seed = 5}, NULL, NULL);
}

/* Weighted sum of the losses, as the parameters see it. */
static double objective(struct rig *r, const double *weights, size_t n)
{
    run(r, false);
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += weights[i] * r->metrics[i];
    return s;
}

/* Every element of parameter p. */
static void check_param(struct rig *r, const struct lh_param *p, const double *weights, size_t n,
                        const char *what)
{
    const double h = 1e-4; /* four points: the error of the method is of order h^4 */
    char text[128];
    for (size_t k = p->offset; k < p->offset + p->rows * p->cols; k++) {
        lh_real was = r->params[k];
        double f[5];
        for (int i = 0; i < 5; i++) {
            r->params[k] = was + (i - 2) * h;
            f[i] = objective(r, weights, n);
        }
        r->params[k] = was;
        double slope = (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * h);
        snprintf(text, sizeof text, "%s: %s[%zu]", what, p->name, k - p->offset);
        kit_assert_close(r->grads[k], slope, 1e-9, text);
    }
}

static void check_all(struct rig *r, const char *what)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(r->g, &n);
    const double one = 1;
    run(r, true);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(p[i].trained, p[i].name[0] == 'x');
        if (p[i].trained)
            check_param(r, &p[i], &one, 1, what);
        else
            for (size_t k = 0; k < p[i].rows * p[i].cols; k++)
                assert_true(r->grads[p[i].offset + k] == 0);
    }
}

/* The mean over rows of the elements of y, each times a fixed random number. */
static lh_node weigh(struct lh_graph *g, lh_node y, size_t rows, size_t cols)
{
    lh_node w = lh_repeat(g, lh_noise(g, "weights", cols), rows / CASE_ROWS);
    return lh_mean(g, lh_row_sum(g, lh_mul(g, y, w)));
}

static void shape(const struct graph_case *c, size_t *rows, size_t *cols)
{
    struct lh_graph *g = NULL;
    struct lh_exec *e = NULL;
    assert_ok(lh_graph_create(&g, &case_spec));
    lh_node x[3];
    case_arguments(g, c, x);
    lh_output(g, "y", c->build(g, x));
    assert_ok(lh_graph_compile(g));
    assert_ok(lh_exec_create(&e, g));
    assert_non_null(lh_exec_output(e, "y", rows, cols));
    lh_exec_destroy(&e);
    lh_graph_destroy(&g);
}

static void operators_every_argument_agrees_with_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct graph_case *c = &CASES[i];
        size_t rows, cols;
        shape(c, &rows, &cols);
        for (int twice = 0; twice < 2 && !c->no_gradient; twice++) {
            struct lh_graph *g = NULL;
            assert_ok(lh_graph_create(&g, &case_spec));
            lh_node x[3], z[3];
            case_arguments(g, c, x);
            for (size_t k = 0; k < c->n_args; k++)
                z[k] = lh_affine(g, x[k], 0.75, 0.125);
            lh_node y = c->build(g, x);
            if (twice) /* arguments and layer used again, and the value itself too */
                y = lh_add(g, lh_mul(g, y, c->build(g, z)), y);
            lh_loss(g, "loss", 1, weigh(g, y, rows, cols), "x*");
            struct rig r;
            rig_init(&r, g);
            check_all(&r, c->name);
            rig_fini(&r);
        }
    }
}

static const struct lh_mlp_spec small = {
    .hidden = {5, 4}, .n_hidden = 2, .out = 3, .last = LH_LINEAR};

/* An actor-critic in small: two losses with different parameters over shared networks. */
static void declare_two(struct lh_graph *g, double w_td, double w_j, double w_kl)
{
    struct lh_mlp_spec actor = small, critic = small;
    actor.out = 4;
    critic.out = 1;
    lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
    lh_gauss q = lh_gauss_split(g, lh_mlp(g, LH_LIVE, "actor", s, &actor), -4, 1);
    lh_node a = lh_gauss_sample(g, q, lh_noise(g, "e", 2));
    lh_node live = lh_mlp(g, LH_LIVE, "critic", lh_concat(g, s, lh_input(g, LH_ACTION)), &critic);
    lh_node target = lh_mlp(g, LH_TARGET, "critic", lh_concat(g, s, a), &critic);
    lh_node y = lh_stop(g, lh_add(g, lh_input(g, LH_REWARD), lh_affine(g, target, 0.9, 0)));
    lh_node pi = lh_mlp(g, LH_FROZEN, "critic", lh_concat(g, s, a), &critic);
    lh_loss(g, "td", w_td, lh_mean(g, lh_square(g, lh_sub(g, live, y))), "critic.*");
    lh_loss(g, "j", w_j, lh_neg(g, lh_mean(g, pi)), "actor.*");
    lh_loss(g, "kl", w_kl, lh_mean(g, lh_gauss_kl(g, q)), "actor.2.weight actor.0.*");
}

/* A frozen critic, a target inside a stopped value, a loss on a part of a network. */
static void losses_of_an_actor_critic_reach_their_parameters_only(void **state)
{
    (void)state;
    struct lh_graph *g = NULL;
    assert_ok(lh_graph_create(&g, &case_spec));
    declare_two(g, 1, 0.5, 0.25);
    struct rig r;
    rig_init(&r, g);
    run(&r, true);
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    assert_int_equal(n, 12);
    for (size_t i = 0; i < n; i++) {
        bool critic = p[i].name[0] == 'c';
        bool kl = strncmp(p[i].name, "actor.0.", 8) == 0 || !strcmp(p[i].name, "actor.2.weight");
        assert_int_equal(p[i].has_target, critic);
        if (!critic) {
            /* td holds actor parameters only behind a stop */
            check_param(&r, &p[i], (double[]){0, 0.5, kl ? 0.25 : 0}, 3, "actor");
        }
    }
    rig_fini(&r);
}

/* The critic's gradient is that of td with a constant y: so compare with a graph that holds
 * nothing else, with y computed there from the same numbers. */
static void losses_together_are_the_sum_of_losses_alone(void **state)
{
    (void)state;
    const double w[3] = {1, 0.5, 0.25};
    struct rig r[4];
    for (int i = 0; i < 4; i++) {
        struct lh_graph *g = NULL;
        assert_ok(lh_graph_create(&g, &case_spec));
        declare_two(g, i == 0 || i == 3 ? w[0] : 0, i == 1 || i == 3 ? w[1] : 0,
                    i == 2 || i == 3 ? w[2] : 0);
        rig_init(&r[i], g);
        run(&r[i], true);
    }
    size_t n;
    const struct lh_param *p = lh_graph_params(r[3].g, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = p[i].offset; k < p[i].offset + p[i].rows * p[i].cols; k++) {
            kit_assert_close(r[3].grads[k], r[0].grads[k] + r[1].grads[k] + r[2].grads[k], 1e-14,
                             p[i].name);
            if (p[i].name[0] == 'c') {
                assert_true(r[1].grads[k] == 0 && r[2].grads[k] == 0);
                assert_true(r[3].grads[k] == r[0].grads[k]); /* to the bit */
            } else {
                assert_true(r[0].grads[k] == 0);
            }
        }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) /* the values are reported whatever their weight */
            assert_true(r[i].metrics[k] == r[3].metrics[k]);
    for (int i = 0; i < 4; i++)
        rig_fini(&r[i]);
}

/* Two losses over one trunk, one of which must not touch it. */
static void loss_on_a_head_leaves_the_trunk_alone(void **state)
{
    (void)state;
    double heads[2][4];
    for (int both = 0; both < 2; both++) {
        struct lh_graph *g = NULL;
        assert_ok(lh_graph_create(&g, &case_spec));
        lh_node t = lh_linear(g, LH_LIVE, "trunk", lh_input(g, LH_STATE_HIGH), 4, LH_TANH);
        lh_node x = lh_linear(g, LH_LIVE, "head.x", t, 2, LH_LINEAR),
                y = lh_linear(g, LH_LIVE, "head.y", t, 2, LH_LINEAR), a = lh_input(g, LH_ACTION);
        lh_loss(g, "x", 1, lh_mean(g, lh_sqdist(g, x, a)), "head.x.* trunk.*");
        lh_loss(g, "y", both, lh_mean(g, lh_sqdist(g, y, a)), "head.y.*");
        struct rig r;
        rig_init(&r, g);
        run(&r, true);
        size_t n;
        const struct lh_param *p = lh_graph_params(g, &n);
        for (size_t i = 0; i < n; i++) {
            double s = 0;
            for (size_t k = 0; k < p[i].rows * p[i].cols; k++)
                s += r.grads[p[i].offset + k] * (double)(k + 1);
            if (strcmp(p[i].name, "trunk.weight") == 0)
                heads[both][0] = s;
            if (strcmp(p[i].name, "head.x.weight") == 0)
                heads[both][1] = s;
            if (strcmp(p[i].name, "head.y.weight") == 0)
                heads[both][2] = s;
        }
        rig_fini(&r);
    }
    assert_true(heads[0][0] == heads[1][0] && heads[0][0] != 0);
    assert_true(heads[0][1] == heads[1][1] && heads[0][1] != 0);
    assert_true(heads[0][2] == 0 && heads[1][2] != 0);
}

/* Where both sides are equal the first gets the gradient. */
static void gradient_of_equal_sides_goes_to_the_first(void **state)
{
    (void)state;
    for (int max = 0; max < 2; max++) {
        struct lh_graph *g = NULL;
        assert_ok(lh_graph_create(&g, &case_spec));
        lh_node s = lh_input(g, LH_STATE_HIGH), a = lh_linear(g, LH_LIVE, "a", s, 2, LH_LINEAR),
                b = lh_linear(g, LH_LIVE, "b", s, 2, LH_LINEAR);
        lh_node m = max ? lh_max(g, a, b) : lh_min(g, a, b);
        lh_loss(g, "loss", 1, lh_mean(g, lh_row_sum(g, m)), "*");
        struct rig r;
        rig_init(&r, g);
        for (size_t i = 0; i < r.flat; i++)
            r.params[i] = 0.5; /* a and b alike */
        run(&r, true);
        size_t n;
        const struct lh_param *p = lh_graph_params(g, &n);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < p[i].rows * p[i].cols; k++)
                assert_int_equal(r.grads[p[i].offset + k] != 0, p[i].name[0] == 'a');
        rig_fini(&r);
    }
}

static struct lh_graph *graph_with_table(size_t *rows)
{
    struct lh_graph *g = NULL;
    struct lh_graph_spec with = case_spec;
    with.tables[0] = (struct lh_graph_table){.name = "item", .dim = 3, .ids = 2};
    with.n_tables = 1;
    assert_ok(lh_graph_create(&g, &with));
    *rows = lh_graph_table_rows(g, 0);
    return g;
}

/* States name rows 0 to 4, some twice in a row, some not at all; next states rows 5 and 6. */
static void fill_table(struct rig *r, size_t rows)
{
    lh_real *x = lh_exec_table_rows(r->e, 0);
    lh_real *index[] = {lh_exec_table_index(r->e, 0, false), lh_exec_table_index(r->e, 0, true)};
    for (size_t i = 0; i < rows * 3; i++)
        x[i] = case_value(6, i);
    for (size_t i = 0; i < CASE_ROWS * 2; i++) {
        index[0][i] = i == 5 ? -1 : (lh_real)(i * i % 5);
        if (index[1])
            index[1][i] = (lh_real)(5 + i % 2);
    }
}

static void tables_learn_from_every_loss_that_reads_the_state(void **state)
{
    (void)state;
    size_t rows;
    struct lh_graph *g = graph_with_table(&rows);
    lh_node high = lh_input(g, LH_STATE_HIGH), low = lh_input(g, LH_STATE_LOW);
    lh_node s = lh_concat(g, high, low), s2 = lh_concat(g, lh_next(g, high), lh_next(g, low));
    lh_node q = lh_linear(g, LH_LIVE, "x.q", s, 1, LH_TANH);
    lh_node y = lh_stop(g, lh_linear(g, LH_TARGET, "x.q", s2, 1, LH_TANH));
    lh_node a = lh_linear(g, LH_LIVE, "x.pi", low, 2, LH_TANH);
    lh_loss(g, "td", 0.5, lh_mean(g, lh_sqdist(g, q, y)), "x.q.*");
    lh_loss(g, "pi", 2, lh_mean(g, lh_sqdist(g, a, lh_input(g, LH_ACTION))), "x.pi.*");
    struct rig r;
    rig_init(&r, g);
    fill_table(&r, rows);
    const double weights[] = {0.5, 2}, h = 1e-4;
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    run(&r, true);
    for (size_t i = 0; i < n; i++)
        check_param(&r, &p[i], weights, 2, "beside a table");
    run(&r, true);
    lh_real *x = lh_exec_table_rows(r.e, 0), grad[64] = {0};
    assert_true(rows * 3 >= 7 * 3 && rows * 3 <= 1000);
    memcpy(grad, lh_exec_table_grad(r.e, 0), 21 * sizeof *grad);
    for (size_t k = 0; k < 21; k++) {
        const lh_real was = x[k];
        double f[5];
        for (int i = 0; i < 5; i++) {
            x[k] = was + (i - 2) * h;
            f[i] = objective(&r, weights, 2);
        }
        x[k] = was;
        /* what next states read stands behind the stop */
        const double slope = k < 15 ? (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * h) : 0;
        kit_assert_close(grad[k], slope, 1e-9, "a row");
    }
    assert_true(grad[0] != 0 && grad[6] == 0 && grad[9] == 0); /* squares mod 5: 0, 1, 4 */
    rig_fini(&r);
}

/* An actor that climbs a frozen critic: that the critic reads the state is no reason to move it. */
static void tables_do_not_learn_through_frozen_uses(void **state)
{
    (void)state;
    for (int reads = 0; reads < 2; reads++) {
        size_t rows;
        struct lh_graph *g = graph_with_table(&rows);
        lh_node high = lh_input(g, LH_STATE_HIGH), low = lh_input(g, LH_STATE_LOW);
        lh_node a = lh_linear(g, LH_LIVE, "x.pi", reads ? low : high, 2, LH_TANH);
        lh_node q = lh_linear(g, LH_FROZEN, "f.q", lh_concat(g, low, a), 1, LH_TANH);
        lh_loss(g, "j", 1, lh_mean(g, q), "x.pi.*");
        struct rig r;
        rig_init(&r, g);
        fill_table(&r, rows);
        run(&r, true);
        assert_int_equal(lh_exec_table_grad(r.e, 0) != NULL, reads);
        rig_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(operators_every_argument_agrees_with_differences),
        kit_test(losses_of_an_actor_critic_reach_their_parameters_only),
        kit_test(losses_together_are_the_sum_of_losses_alone),
        kit_test(gradient_of_equal_sides_goes_to_the_first),
        kit_test(loss_on_a_head_leaves_the_trunk_alone),
        kit_test(tables_learn_from_every_loss_that_reads_the_state),
        kit_test(tables_do_not_learn_through_frozen_uses),
    };
    return cmocka_run_group_tests_name("grad", tests, NULL, NULL);
}
