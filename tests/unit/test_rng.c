#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The known-answer vectors that the authors of Philox publish with their library (Random123,
 * kat_vectors, philox 4x32 10). */
static void philox_published_vectors(void **state)
{
    (void)state;
    static const uint32_t v[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        lh_rng_philox4x32(v[i], v[i] + 4, out);
        assert_memory_equal(out, v[i] + 6, sizeof out);
    }
}

static void fills_agree_with_single_draws_and_prefixes(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 7, .purpose = lh_rng_purpose("x"), .part = 3, .step = 1u << 20};
    float a[1000], b[77], u[1000];
    lh_rng_normal(&at, a, 1000);
    lh_rng_normal(&at, b, 77);
    lh_rng_uniform(&at, u, 1000);
    assert_memory_equal(a, b, sizeof b);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true((float)lh_rng_normal1(&at, i) == a[i]);
        assert_true((float)(lh_rng_u32(&at, i) >> 8) * 0x1p-24f == u[i]);
    }
}

static void normal_has_the_moments_and_tails_of_a_normal(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct lh_rng_at at = {.seed = 1, .purpose = 5};
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    lh_rng_normal(&at, x, N);
    double m[5] = {0};
    size_t beyond = 0;
    for (size_t i = 0; i < N; i++) {
        for (int p = 1; p < 5; p++)
            m[p] += pow(x[i], p);
        beyond += fabsf(x[i]) > 1.959964f;
    }
    free(x);
    for (int p = 1; p < 5; p++)
        m[p] /= N;
    kit_assert_close(m[1], 0, 5e-3, "mean");
    kit_assert_close(m[2], 1, 7e-3, "variance");
    kit_assert_close(m[3], 0, 2e-2, "skewness");
    kit_assert_close(m[4], 3, 2e-2, "kurtosis");
    kit_assert_close((double)beyond / N, 0.05, 1e-3, "share beyond 1.96");
}

/* Against the C library's functions, over the whole range of the two uniforms. */
static void normal_is_box_muller(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 99, .purpose = 1};
    for (uint64_t i = 0; i < 200000; i += 2) {
        double u = ((lh_rng_u32(&at, i) >> 8) + 1) * 0x1p-24;
        double t = (lh_rng_u32(&at, i + 1) >> 8) * 0x1p-24;
        double r = sqrt(-2 * log(u));
        kit_assert_close(lh_rng_normal1(&at, i), r * cos(2 * M_PI * t), 3e-6, "cosine branch");
        kit_assert_close(lh_rng_normal1(&at, i + 1), r * sin(2 * M_PI * t), 3e-6, "sine branch");
    }
}

static void streams_differ_by_seed_purpose_part_step(void **state)
{
    (void)state;
    struct lh_rng_at base = {.seed = 1, .purpose = 2, .part = 3, .step = 4},
                     o[4] = {base, base, base, base};
    o[0].seed++;
    o[1].purpose++;
    o[2].part++;
    o[3].step++;
    for (int i = 0; i < 4; i++)
        assert_true(lh_rng_u64(&base, 0) != lh_rng_u64(&o[i], 0));
}

static void below_is_even(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 3};
    int count[7] = {0};
    for (uint64_t i = 0; i < 70000; i++)
        count[lh_rng_below(&at, i, 7)]++;
    for (int i = 0; i < 7; i++)
        assert_in_range(count[i], 9600, 10400);
}

static void permute_is_a_permutation(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 16, 17, 1000, 4097};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t n = sizes[s];
        struct lh_rng_at at = {.seed = 11, .step = s};
        unsigned char *seen = calloc(n, 1);
        assert_non_null(seen);
        uint64_t fixed = 0;
        for (uint64_t k = 0; k < n; k++) {
            uint64_t p = lh_rng_permute(&at, k, n);
            assert_true(p < n && !seen[p]);
            seen[p] = 1;
            fixed += p == k;
        }
        free(seen);
        if (n >= 1000)
            assert_true(fixed < 12); /* Poisson(1) */
    }
}

static void permute_run_is_the_permutation_element_by_element(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 17, 1000, 4097, UINT64_C(5000000000), UINT64_MAX};
    static const size_t counts[] = {0, 1, 2, 63, 64, 65, 700};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const uint64_t n = sizes[s], first = n / 3;
            const size_t count = counts[c] < n - first ? counts[c] : (size_t)(n - first);
            const struct lh_rng_at at = {.seed = 12, .step = s << 40, .part = 3, .purpose = 4};
            uint64_t out[701];
            out[count] = 42;
            lh_rng_permute_run(&at, first, count, n, out);
            for (size_t i = 0; i < count; i++)
                assert_int_equal(out[i], lh_rng_permute(&at, first + i, n));
            assert_int_equal(out[count], 42);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(philox_published_vectors),
        kit_test(fills_agree_with_single_draws_and_prefixes),
        kit_test(normal_has_the_moments_and_tails_of_a_normal),
        kit_test(normal_is_box_muller),
        kit_test(streams_differ_by_seed_purpose_part_step),
        kit_test(below_is_even),
        kit_test(permute_is_a_permutation),
        kit_test(permute_run_is_the_permutation_element_by_element),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
