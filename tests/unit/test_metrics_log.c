/* metrics.jsonl: a line a step, and none twice. */
#include "cluster/metrics_log.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct lh_graph *graph(void)
{
    struct lh_graph *g = NULL;
    assert_ok(lh_graph_create(
        &g, &(struct lh_graph_spec){.rows = 4, .dims = {.high = 1, .low = 1, .action = 1}}));
    lh_node a = lh_input(g, LH_ACTION);
    lh_loss(g, "rec", 1, lh_mean(g, lh_square(g, lh_linear(g, LH_LIVE, "net", a, 1, LH_LINEAR))),
            "net*");
    assert_ok(lh_graph_compile(g));
    assert_int_equal(lh_graph_metrics(g), 1);
    return g;
}

static void add_writes_one_line_a_step_and_null_for_what_is_no_number(void **state)
{
    (void)state;
    struct lh_graph *g = graph();
    struct lh_metrics_log *m = NULL;
    const struct lh_metrics_log_spec spec = {
        .dir = kit_dir(), .graph = g, .batch = 50, .transitions = 100};
    assert_ok(lh_metrics_log_open(&m, &spec));
    assert_ok(lh_metrics_log_add(m, 1, (const float[]){0.25f}, 0.5));
    assert_ok(lh_metrics_log_add(m, 2, (const float[]){NAN}, 1.0));
    assert_ok(lh_metrics_log_add(m, 3, (const float[]){INFINITY}, 1.0)); /* in no time */
    assert_ok(lh_metrics_log_flush(m));
    char *text = kit_read(kit_path("metrics.jsonl"), NULL);
    assert_string_equal(text, "{\"step\": 1, \"epoch\": 0.5, \"rec\": 0.25, \"seconds\": 0.5, "
                              "\"transitions_per_s\": 100}\n"
                              "{\"step\": 2, \"epoch\": 1, \"rec\": null, \"seconds\": 1, "
                              "\"transitions_per_s\": 100}\n"
                              "{\"step\": 3, \"epoch\": 1.5, \"rec\": null, \"seconds\": 1, "
                              "\"transitions_per_s\": null}\n");
    free(text);
    assert_ok(lh_metrics_log_close(&m));
    assert_ok(lh_metrics_log_close(&m));
    lh_graph_destroy(&g);
}

static void open_drops_the_lines_that_will_come_again(void **state)
{
    (void)state;
    struct lh_graph *g = graph();
    struct lh_metrics_log *m = NULL;
    const struct lh_metrics_log_spec spec = {
        .dir = kit_dir(), .graph = g, .start = 2, .batch = 50, .transitions = 100};
    kit_write(kit_path("metrics.jsonl"), "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"st");
    assert_ok(lh_metrics_log_open(&m, &spec));
    assert_ok(lh_metrics_log_add(m, 3, (const float[]){1}, 1));
    assert_ok(lh_metrics_log_close(&m));
    char *text = kit_read(kit_path("metrics.jsonl"), NULL);
    kit_assert_contains(text, "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3, \"epoch\": 1.5, ");
    assert_null(strstr(text, "{\"step\": 3}"));
    free(text);
    lh_graph_destroy(&g);
}

static void what_cannot_be_written_is_an_error_with_the_path(void **state)
{
    (void)state;
    struct lh_graph *g = graph();
    struct lh_metrics_log *m = NULL;
    struct lh_metrics_log_spec spec = {.graph = g, .batch = 50, .transitions = 100};
    spec.dir = kit_path("none");
    assert_err(lh_metrics_log_open(&m, &spec), LH_ENOENT, "none/metrics.jsonl");
    assert_null(m);
    spec.dir = kit_dir();
    for (uint64_t at = 1;; at++) {
        lh_mem_fail_at(at);
        int rc = lh_metrics_log_open(&m, &spec);
        lh_mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
    assert_ok(lh_metrics_log_close(&m));
    lh_graph_destroy(&g);
}

static void back_drops_lines_and_the_clock_begins_anew(void **state)
{
    (void)state;
    struct lh_graph *g = graph();
    struct lh_metrics_log *m = NULL;
    const struct lh_metrics_log_spec spec = {
        .dir = kit_dir(), .graph = g, .batch = 50, .transitions = 100};
    assert_ok(lh_metrics_log_open(&m, &spec));
    for (uint64_t v = 1; v <= 3; v++)
        assert_ok(lh_metrics_log_add(m, v, (const float[]){1}, (double)v));
    assert_ok(lh_metrics_log_back(m, 1));
    assert_ok(lh_metrics_log_add(m, 2, (const float[]){2}, 0.5));
    assert_ok(lh_metrics_log_close(&m));
    char *text = kit_read(kit_path("metrics.jsonl"), NULL);
    assert_string_equal(text, "{\"step\": 1, \"epoch\": 0.5, \"rec\": 1, \"seconds\": 1, "
                              "\"transitions_per_s\": 50}\n"
                              "{\"step\": 2, \"epoch\": 1, \"rec\": 2, \"seconds\": 0.5, "
                              "\"transitions_per_s\": 100}\n");
    free(text);
    lh_graph_destroy(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(add_writes_one_line_a_step_and_null_for_what_is_no_number),
        kit_test(open_drops_the_lines_that_will_come_again),
        kit_test(what_cannot_be_written_is_an_error_with_the_path),
        kit_test(back_drops_lines_and_the_clock_begins_anew),
    };
    return cmocka_run_group_tests_name("metrics_log", tests, NULL, NULL);
}
