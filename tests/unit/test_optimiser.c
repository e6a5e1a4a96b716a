#include "common/rng.h"
#include "ps/optimiser.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

enum { N = 1003 };

/* Adam as the paper has it, Algorithm 1, in double and with the powers multiplied out. */
struct reference {
    double w, m, v, power1, power2;
};

static void reference_step(struct reference *r, double g, double lr, double b1, double b2,
                           double eps)
{
    r->power1 *= b1;
    r->power2 *= b2;
    r->m = b1 * r->m + (1 - b1) * g;
    r->v = b2 * r->v + (1 - b2) * g * g;
    r->w -= lr * (r->m / (1 - r->power1)) / (sqrt(r->v / (1 - r->power2)) + eps);
}

static void adam_hundreds_of_updates_follow_the_reference(void **state)
{
    (void)state;
    static float w[2][N], m[N], v[N], t[2][N], g[N];
    static struct reference r[N];
    static double target[N];
    lh_rng_normal(&(struct lh_rng_at){.seed = 1}, w[0], N);
    for (size_t i = 0; i < N; i++) {
        r[i] = (struct reference){w[0][i], 0, 0, 1, 1};
        target[i] = t[0][i] = w[0][i];
    }
    for (uint64_t step = 1; step <= 300; step++) {
        lh_rng_normal(&(struct lh_rng_at){.seed = 2, .step = step}, g, N);
        const unsigned now = (step - 1) & 1, next = step & 1;
        struct lh_optimiser_adam a = lh_optimiser_adam_at(1e-2, 0.9, 0.999, 1e-8, step);
        struct lh_optimiser_arrays arrays = {g, w[now], m, v, w[next], t[now], t[next]};
        lh_optimiser_adam_step(&a, &arrays, 0.05f, N);
        for (size_t i = 0; i < N; i++) {
            reference_step(&r[i], g[i], 1e-2, 0.9, 0.999, 1e-8);
            target[i] = 0.05 * r[i].w + 0.95 * target[i];
            kit_assert_close(w[next][i], r[i].w, 3e-6, "weight");
            kit_assert_close(t[next][i], target[i], 3e-6, "target");
        }
    }
}

static void adam_known_values(void **state)
{
    (void)state;
    /* By hand: at the first update m^ = g and v^ = g^2, so the step is -lr g / (|g| + eps);
     * with g = 2 then -1: m = .9 .2 - .1 = .08, m^ = .08 / .19; v = .999 .004 + .001 = .004996,
     * v^ = .004996 / .001999. */
    float w = 1, m = 0, v = 0, w1, w2, g = 2;
    struct lh_optimiser_adam a = lh_optimiser_adam_at(0.1, 0.9, 0.999, 1e-8, 1);
    lh_optimiser_adam_step(&a, &(struct lh_optimiser_arrays){&g, &w, &m, &v, &w1, NULL, NULL}, 0,
                           1);
    kit_assert_close(w1, 0.9, 1e-7, "first");
    kit_assert_close(m, 0.2, 1e-7, "m");
    kit_assert_close(v, 0.004, 1e-7, "v");
    g = -1;
    a = lh_optimiser_adam_at(0.1, 0.9, 0.999, 1e-8, 2);
    lh_optimiser_adam_step(&a, &(struct lh_optimiser_arrays){&g, &w1, &m, &v, &w2, NULL, NULL}, 0,
                           1);
    kit_assert_close(w2, 0.9 - 0.1 * (0.08 / 0.19) / sqrt(0.004996 / 0.001999), 1e-6, "second");
    /* Long after the start the corrections vanish; without momentum they never were. */
    a = lh_optimiser_adam_at(0.1, 0.9, 0.999, 1e-8, 1000000);
    assert_true(a.step == 0.1f && a.root == 1.0f);
    a = lh_optimiser_adam_at(0.1, 0, 0, 1e-8, 1);
    assert_true(a.step == 0.1f && a.root == 1.0f);
}

static void adam_and_soft_update_in_parts_give_the_same_bits(void **state)
{
    (void)state;
    static float g[N], w[N], t[N], m[2][N], v[2][N], w_out[2][N], t_out[3][N];
    lh_rng_normal(&(struct lh_rng_at){.seed = 1}, g, N);
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, w, N);
    lh_rng_normal(&(struct lh_rng_at){.seed = 3}, t, N);
    lh_rng_uniform(&(struct lh_rng_at){.seed = 4}, v[0], N);
    memcpy(v[1], v[0], sizeof v[0]);
    struct lh_optimiser_adam a = lh_optimiser_adam_at(1e-3, 0.9, 0.99, 1e-8, 7);
    lh_optimiser_adam_step(
        &a, &(struct lh_optimiser_arrays){g, w, m[0], v[0], w_out[0], t, t_out[0]}, 0.1f, N);
    for (size_t at = 0, n; at < N; at += n) {
        n = at % 37 + 1 < N - at ? at % 37 + 1 : N - at;
        lh_optimiser_adam_step(&a,
                               &(struct lh_optimiser_arrays){g + at, w + at, m[1] + at, v[1] + at,
                                                             w_out[1] + at, t + at, t_out[1] + at},
                               0.1f, n);
    }
    assert_memory_equal(m[0], m[1], sizeof m[0]);
    assert_memory_equal(v[0], v[1], sizeof v[0]);
    assert_memory_equal(w_out[0], w_out[1], sizeof w_out[0]);
    assert_memory_equal(t_out[0], t_out[1], sizeof t_out[0]);
    /* And in two passes as in one. */
    lh_optimiser_soft_update(w_out[0], t, t_out[2], 0.1f, N);
    assert_memory_equal(t_out[0], t_out[2], sizeof t_out[0]);
}

static void adam_bits_are_those_of_every_build(void **state)
{
    (void)state;
    /* Inputs are exact, and every operation is rounded once: the hash was taken from a scalar build
     * and must come out of any vector width. */
    static float g[N], w[2][N], m[N], v[N], t[2][N];
    for (size_t i = 0; i < N; i++)
        w[0][i] = t[0][i] = (float)((int)(i * 7919 % 2001) - 1000) / 512.0f;
    for (uint64_t step = 1; step <= 20; step++) {
        for (size_t i = 0; i < N; i++)
            g[i] = (float)((int)((i * 104729 + step * 1299709) % 4001) - 2000) / 1024.0f;
        const unsigned now = (step - 1) & 1, next = step & 1;
        struct lh_optimiser_adam a = lh_optimiser_adam_at(1e-2, 0.9, 0.999, 1e-8, step);
        struct lh_optimiser_arrays arrays = {g, w[now], m, v, w[next], t[now], t[next]};
        lh_optimiser_adam_step(&a, &arrays, 0.01f, N);
    }
    uint64_t hash = XXH3_64bits_withSeed(w[0], sizeof w[0], XXH3_64bits(t[0], sizeof t[0]));
    assert_int_equal(hash, 0xd86233199b8e8d97);
}

static void adam_zero_gradient_from_zero_moments_moves_nothing(void **state)
{
    (void)state;
    float g[4] = {0}, w[4] = {1, -2, 0, 3}, m[4] = {0}, v[4] = {0}, w_out[4];
    struct lh_optimiser_adam a = lh_optimiser_adam_at(1, 0.9, 0.999, 1e-8, 1);
    lh_optimiser_adam_step(&a, &(struct lh_optimiser_arrays){g, w, m, v, w_out, NULL, NULL}, 0, 4);
    assert_memory_equal(w, w_out, sizeof w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(adam_hundreds_of_updates_follow_the_reference),
        kit_test(adam_known_values),
        kit_test(adam_and_soft_update_in_parts_give_the_same_bits),
        kit_test(adam_bits_are_those_of_every_build),
        kit_test(adam_zero_gradient_from_zero_moments_moves_nothing),
    };
    return cmocka_run_group_tests_name("optimiser", tests, NULL, NULL);
}
