#include "tests/unit/graph_cases.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *aligned(size_t n)
{
    size_t bytes = (n * sizeof(lh_real) + 63) / 64 * 64;
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    assert_non_null(p);
    memset(p, 0, bytes);
    return p;
}

static void copy_out(double *to, const lh_real *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (double)from[i];
}

static const struct lh_param *find_param(const struct lh_graph *g, const char *name)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].name, name) == 0)
            return &p[i];
    return NULL;
}

/* Runs a case with its arguments as outputs and compares its value with the reference. */
static void check(const struct graph_case *c)
{
    static const char *const names[] = {"0", "1", "2"};
    struct lh_graph *g = NULL;
    struct lh_exec *e = NULL;
    assert_ok(lh_graph_create(&g, &case_spec));
    lh_node x[3];
    case_arguments(g, c, x);
    for (size_t k = 0; k < c->n_args; k++)
        lh_output(g, names[k], x[k]);
    lh_output(g, "y", c->build(g, x));
    assert_ok(lh_graph_compile(g));
    assert_ok(lh_exec_create(&e, g));

    size_t flat = lh_graph_flat_size(g);
    lh_real *params = aligned(flat), *targets = aligned(flat);
    for (size_t i = 0; i < flat; i++) {
        params[i] = case_value(1, i);
        targets[i] = case_value(2, i);
    }
    lh_real *s = lh_exec_input(e, LH_STATE_HIGH), *class = lh_exec_input(e, LH_REWARD_CLASS);
    for (size_t i = 0; i < CASE_ROWS * CASE_HIGH; i++)
        s[i] = case_value(3, i);
    for (size_t i = 0; class && i < CASE_ROWS; i++)
        class[i] = (lh_real)(i % c->cols[0]);
    lh_exec_run(e, params, targets, NULL, NULL, NULL, NULL, NULL);

    double values[3][256], w[256], b[16], expected[512];
    struct case_args args = {.cols = c->cols, .rows = CASE_ROWS, .weight = w, .bias = b};
    for (size_t k = 0; k < c->n_args; k++) {
        copy_out(values[k], lh_exec_output(e, names[k], NULL, NULL), CASE_ROWS * c->cols[k]);
        args.x[k] = values[k];
    }
    for (int live = 0; live < 2; live++) {
        const struct lh_param *pw = find_param(g, live ? "x.net.weight" : "f.net.weight"),
                              *pb = find_param(g, live ? "x.net.bias" : "f.net.bias");
        const lh_real *from = strcmp(c->name, "target") == 0 ? targets : params;
        if (pw) {
            copy_out(w, from + pw->offset, pw->rows * pw->cols);
            copy_out(b, from + pb->offset, pb->cols);
        }
    }
    c->reference(&args, expected);
    size_t rows, cols;
    const lh_real *y = lh_exec_output(e, "y", &rows, &cols);
    for (size_t i = 0; i < rows * cols; i++)
        kit_assert_close((double)y[i], expected[i], 4e-6, c->name);
    free(params);
    free(targets);
    lh_exec_destroy(&e);
    lh_graph_destroy(&g);
}

static void operators_against_naive_reference_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        check(&CASES[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(operators_against_naive_reference_agree),
    };
    return cmocka_run_group_tests_name("operators", tests, NULL, NULL);
}
