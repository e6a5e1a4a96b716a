/* Holds losses, metrics and gradients of the training graphs against tests/reference/resact.py, an
 * implementation of its own in double. Needs numpy; skipped without it. */
#include "common/job.h"
#include "worker/algo.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { B = 24, H = 5, L = 7, A = 3, C = 6, ZH = 4, CLASSES = 5 };

static bool numpy_is_there(void)
{
    char *out = NULL;
    int rc = kit_run(&out, "%s -c 'import numpy'", LH_PYTHON);
    free(out);
    return rc == 0;
}

/* --- arrays on disk: .npy version 1, C order -------------------------------------------------- */
static void npy_write(const char *dir, const char *name, const float *x, size_t rows, size_t cols)
{
    char path[512], header[128];
    snprintf(path, sizeof path, "%s/%s.npy", kit_path(dir), name);
    int n = snprintf(header + 10, sizeof header - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, cols);
    memset(header + 10 + n, ' ', sizeof header - 10 - (size_t)n);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    header[127] = '\n';
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, 128, f), 128);
    assert_int_equal(fwrite(x, sizeof *x, rows * cols, f), rows * cols);
    fclose(f);
}

/* Doubles, as the reference writes them; false if there is no such file. */
static bool npy_read(const char *dir, const char *name, double *x, size_t n)
{
    char path[512];
    unsigned char head[10];
    snprintf(path, sizeof path, "%s/%s.npy", kit_path(dir), name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    assert_int_equal(fread(head, 1, 10, f), 10);
    assert_int_equal(fseek(f, 10 + head[8] + 256 * head[9], SEEK_SET), 0);
    assert_int_equal(fread(x, sizeof *x, n, f), n);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return true;
}

/* --- a case ----------------------------------------------------------------------------------- */
static const struct {
    enum lh_input_kind kind;
    const char *name;
    size_t cols;
} inputs[] = {{LH_STATE_HIGH, "s_h", H},
              {LH_STATE_LOW, "s_l", L},
              {LH_ACTION, "a", A},
              {LH_REWARD, "r", 1},
              {LH_NOT_DONE, "done", 1},
              {LH_REWARD_CLASS, "r_class", 1},
              {LH_NEXT_STATE_HIGH, "s_h_next", H},
              {LH_NEXT_STATE_LOW, "s_l_next", L}};

static const struct {
    const char *name;
    size_t cols;
} noises[] = {{"c_enc", C}, {"c_pi", C}, {"h_pi", ZH}, {"c_next", C}, {"h_next", ZH}};

/* Values of an input as they arise: normal states, actions within [-1, 1] under clip, classes. */
static void draw(float *x, size_t n, enum lh_input_kind kind)
{
    struct lh_rng_at at = {.seed = 11, .purpose = (uint32_t)kind};
    lh_rng_normal(&at, x, n);
    for (size_t i = 0; i < n; i++) {
        float u = (float)lh_rng_uniform1(&at, i);
        if (kind == LH_ACTION)
            x[i] = 2 * u - 1;
        else if (kind == LH_NOT_DONE)
            x[i] = u < 0.8f;
        else if (kind == LH_REWARD_CLASS)
            x[i] = floorf(u * CLASSES);
    }
}

static void fill_batch(struct lh_exec *e, const struct lh_job *job)
{
    float x[B * L], flipped[B];
    for (size_t k = 0; k < sizeof inputs / sizeof *inputs; k++) {
        draw(x, B * inputs[k].cols, inputs[k].kind);
        float *to = lh_exec_input(e, inputs[k].kind);
        if (to)
            memcpy(to, x, B * inputs[k].cols * sizeof *x);
        for (size_t i = 0; i < B; i++)
            flipped[i] = 1 - x[i];
        if (inputs[k].kind == LH_REWARD_CLASS && !job->dims.classes)
            continue;
        npy_write("case/batch", inputs[k].name, inputs[k].kind == LH_NOT_DONE ? flipped : x, B,
                  inputs[k].cols);
    }
    float *weight = lh_exec_input(e, LH_ROW_WEIGHT);
    for (size_t i = 0; i < B; i++)
        weight[i] = 1.0f / B;
}

static void write_params(const char *dir, const struct lh_graph *g, const float *flat, bool targets)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        if (!targets || p[i].has_target)
            npy_write(dir, p[i].name, flat + p[i].offset, p[i].rows, p[i].cols);
}

static float *flat_new(const struct lh_graph *g, uint64_t seed, float scale)
{
    size_t n = lh_graph_flat_size(g);
    float *flat = NULL;
    assert_ok(lh_mem_alloc_aligned((void **)&flat, n, sizeof *flat, "test"));
    lh_graph_init_params(g, seed, flat);
    for (size_t i = 0; i < n; i++)
        flat[i] *= scale;
    return flat;
}

static void compare_scalars(const struct lh_graph *g, const float *metrics)
{
    for (size_t i = 0; i < lh_graph_metrics(g); i++) {
        const char *name = lh_graph_metric_name(g, i);
        double x;
        if (!npy_read("out/loss", name, &x, 1) && !npy_read("out/metric", name, &x, 1)) {
            assert_string_equal(name, "action"); /* which the reference does not report for IL */
            continue;
        }
        kit_assert_close((double)metrics[i], x, 2e-5, name);
    }
}

static void compare_gradients(const struct lh_graph *g, const float *grads)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++) {
        size_t size = p[i].rows * p[i].cols;
        double *x = calloc(size, sizeof *x), diff = 0, norm = 0;
        assert_non_null(x);
        assert_true(npy_read("out/grad", p[i].name, x, size));
        for (size_t k = 0; k < size; k++) {
            double d = (double)grads[p[i].offset + k] - x[k];
            diff += d * d;
            norm += x[k] * x[k];
        }
        free(x);
        assert_true(norm > 0);
        if (!(sqrt(diff) < 1e-4 * sqrt(norm)))
            fail_msg("%s: gradient off by %g of its norm", p[i].name, sqrt(diff / norm));
    }
}

static void run_case(const char *config, uint32_t classes)
{
    if (!numpy_is_there())
        skip();
    char text[1024], *out = NULL;
    snprintf(text, sizeof text,
             "network: {hidden: [16, 12], latent: %d, z_high: %d, z_low: 3}\n%s\n", C, ZH, config);
    struct lh_job *job = NULL;
    struct lh_graph *g = NULL;
    struct lh_exec *e = NULL;
    assert_ok(lh_job_load_text(&job, text, strlen(text), "test", NULL));
    struct lh_dims dims = {.high = H, .low = L, .action = A, .classes = classes};
    assert_ok(lh_job_resolve(job, &dims, 1));
    for (size_t i = 0; i < 6; i++) {
        static const char *const dirs[] = {"case",       "case/batch",  "case/noise",
                                           "case/param", "case/target", "out"};
        assert_int_equal(mkdir(kit_path(dirs[i]), 0777), 0);
    }
    assert_ok(lh_job_print(job, &out));
    kit_write(kit_path("case/config.yaml"), out);
    lh_mem_free(out);

    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = B, .dims = dims}));
    assert_ok(lh_algo_find(job->algorithm)->declare_train(g, job));
    assert_ok(lh_graph_compile(g));
    assert_ok(lh_exec_create(&e, g));
    fill_batch(e, job);
    float noise[sizeof noises / sizeof *noises][B * C];
    for (size_t k = 0; k < sizeof noises / sizeof *noises; k++) {
        lh_rng_normal(&(struct lh_rng_at){.seed = 3, .purpose = (uint32_t)k}, noise[k], B * C);
        npy_write("case/noise", noises[k].name, noise[k], B, noises[k].cols);
        int rc = lh_exec_set_noise(e, noises[k].name, noise[k]);
        assert_true(rc == 0 || rc == LH_ENOENT);
    }
    float *params = flat_new(g, 5, 2), *targets = flat_new(g, 6, 2), *grads = flat_new(g, 0, 0);
    float metrics[32];
    assert_true(lh_graph_metrics(g) <= 32);
    write_params("case/param", g, params, false);
    write_params("case/target", g, targets, true);
    lh_exec_run(e, params, targets, grads, metrics, &(struct lh_rng_at){.seed = 1}, NULL, NULL);

    int rc = kit_run(&out, "%s '%s/tests/reference/resact.py' '%s' '%s'", LH_PYTHON, LH_SOURCE_DIR,
                     kit_path("case"), kit_path("out"));
    if (rc != 0)
        fail_msg("reference: %s", out);
    free(out);
    compare_scalars(g, metrics);
    compare_gradients(g, grads);

    lh_mem_free(params);
    lh_mem_free(targets);
    lh_mem_free(grads);
    lh_exec_destroy(&e);
    lh_graph_destroy(&g);
    lh_job_destroy(&job);
}

static void resact_step_agrees(void **state)
{
    (void)state;
    run_case("algorithm: resact", CLASSES);
}

static void resact_step_literal_paper_agrees(void **state)
{
    (void)state;
    run_case("algorithm: resact\nobjective: {bound: none, gamma: 0.7, weight_kl: 0.3, weight_j: 0.4}", CLASSES);
}

static void resact_step_gaussian_rewards_agrees(void **state)
{
    (void)state;
    run_case("algorithm: resact\nobjective: {log_std_lo: -0.1, log_std_hi: 0.2}", 0);
}

static void resact_step_without_cvae_agrees(void **state)
{
    (void)state;
    run_case("algorithm: resact\nobjective: {cvae: false}", CLASSES);
}

static void il_step_agrees(void **state)
{
    (void)state;
    run_case("algorithm: il", CLASSES);
}

static void il_cvae_step_agrees(void **state)
{
    (void)state;
    run_case("algorithm: il_cvae\nobjective: {bound: none}", CLASSES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(resact_step_agrees),
        kit_test(resact_step_literal_paper_agrees),
        kit_test(resact_step_gaussian_rewards_agrees),
        kit_test(resact_step_without_cvae_agrees),
        kit_test(il_step_agrees),
        kit_test(il_cvae_step_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
