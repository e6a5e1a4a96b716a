#include "cluster/step_case.h"
#include "common/npy.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { ROWS = 6, H = 2, L = 3, A = 2, W = 4 };

static void put(const char *name, size_t rank, size_t rows, size_t cols, float first)
{
    float x[64];
    char file[64];
    size_t shape[2] = {rows, cols}, n = rank == 2 ? rows * cols : rows;
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        x[i] = first + (float)i;
    snprintf(file, sizeof file, "case/%s.npy", name);
    assert_ok(lh_npy_write(kit_path(file), x, shape, rank));
}

/* An imitation job: the smallest case there is. */
static void write_case(const char *config)
{
    static const char *const folders[] = {"case", "case/batch", "case/noise", "case/param",
                                          "case/target"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(kit_path(folders[i]), 0777), 0);
    kit_write(kit_path("case/config.yaml"), config);
    put("batch/s_h", 2, ROWS, H, 100);
    put("batch/s_l", 2, ROWS, L, 200);
    put("batch/a", 2, ROWS, A, 300);
    put("param/cvae.decoder.0.weight", 2, W, H + L, 0);
    put("param/cvae.decoder.0.bias", 1, W, 0, 50);
    put("param/cvae.decoder.1.weight", 2, A, W, 60);
    put("param/cvae.decoder.1.bias", 1, A, 0, 70);
}

static float *weight(const struct lh_step_case *c, const char *name)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(c->model.graph, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].name, name) == 0)
            return c->weights + p[i].offset;
    fail_msg("no parameter %s", name);
    return NULL;
}

static void open_takes_sizes_from_arrays(void **state)
{
    (void)state;
    struct lh_step_case *c = NULL;
    write_case("algorithm: il\nnetwork: {hidden: [4]}\ntrain: {batch: 999, micro_batch: 4}\n");
    assert_ok(lh_step_case_open(&c, kit_path("case"), 2));
    assert_int_equal(c->job->steps, 2);
    assert_int_equal(c->job->batch, 3);
    assert_int_equal(c->job->micro_batch, 2); /* a power of two within the batch */
    assert_int_equal(c->job->dims.high, H);
    assert_int_equal(c->job->dims.classes, 0);
    assert_int_equal(c->job->bound, LH_BOUND_NONE);
    assert_false(c->job->normalise);
    assert_true(c->inputs[LH_STATE_LOW][L * ROWS - 1] == 200 + L * ROWS - 1);
    assert_null(c->inputs[LH_REWARD]);
    assert_true(weight(c, "cvae.decoder.0.weight")[H + L] == H + L);
    assert_true(weight(c, "cvae.decoder.1.bias")[1] == 71);
    lh_step_case_close(&c);
    lh_step_case_close(&c);
}

static void open_lets_the_config_bound(void **state)
{
    (void)state;
    struct lh_step_case *c = NULL;
    write_case("algorithm: il\nnetwork: {hidden: [4]}\nobjective: {bound: clip}\n");
    assert_ok(lh_step_case_open(&c, kit_path("case"), 1));
    assert_int_equal(c->job->bound, LH_BOUND_CLIP);
    assert_int_equal(c->job->micro_batch, 4);
    lh_step_case_close(&c);
}

static void open_of_a_broken_config_says_where(void **state)
{
    (void)state;
    struct lh_step_case *c = NULL;
    write_case("algorithm: il\nobjective: 3\n");
    assert_err(lh_step_case_open(&c, kit_path("case"), 1), LH_ECONFIG, "config.yaml:2: objective");
    kit_write(kit_path("case/config.yaml"), "- il\n");
    assert_err(lh_step_case_open(&c, kit_path("case"), 1), LH_ECONFIG, "config.yaml:1");
    assert_null(c);
}

static void open_takes_columns_for_rows(void **state)
{
    (void)state;
    struct lh_step_case *c = NULL;
    write_case("algorithm: il\nnetwork: {hidden: [4]}\n");
    put("param/cvae.decoder.0.bias", 2, 1, W, 50);
    assert_ok(lh_step_case_open(&c, kit_path("case"), 1));
    assert_true(weight(c, "cvae.decoder.0.bias")[3] == 53);
    lh_step_case_close(&c);
    put("param/cvae.decoder.0.bias", 2, 2, W / 2, 50);
    assert_err(lh_step_case_open(&c, kit_path("case"), 1), LH_EMISMATCH,
               "cvae.decoder.0.bias.npy: shape (2, 2), expected (4,)");
}

static void open_survives_no_memory(void **state)
{
    (void)state;
    struct lh_step_case *c = NULL;
    write_case("algorithm: il\nnetwork: {hidden: [4]}\n");
    int rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc == LH_ENOMEM; nth++) {
        lh_mem_fail_at(nth);
        rc = lh_step_case_open(&c, kit_path("case"), 1);
        assert_true((rc == 0) == (c != NULL));
    }
    lh_mem_fail_at(0);
    assert_ok(rc);
    lh_step_case_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_takes_sizes_from_arrays),
        kit_test(open_lets_the_config_bound),
        kit_test(open_of_a_broken_config_says_where),
        kit_test(open_takes_columns_for_rows),
        kit_test(open_survives_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
