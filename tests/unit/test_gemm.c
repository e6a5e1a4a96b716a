#include "common/gemm.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static unsigned next = 1;

static void fill(lh_real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        next = next * 1664525u + 1013904223u;
        x[i] = (lh_real)(next >> 8) * 0x1p-23f - 1;
    }
}

enum { MAX = 60 * 60, LD = 5 };

/* C = op(A) op(B) [+ C, bias or sums elsewhere] with rows further apart than they are long, against
 * three loops. */
static void check(const struct lh_gemm *g, enum lh_gemm_kind kind, size_t m, size_t n, size_t k,
                  int variant)
{
    static lh_real a[MAX], b[MAX], c[MAX], was[MAX], bias[64], from[MAX];
    if (a[0] == 0) {
        fill(a, MAX);
        fill(b, MAX);
        fill(from, MAX);
    }
    size_t lda = (kind == LH_GEMM_TN ? m : k) + LD, ldb = (kind == LH_GEMM_NT ? k : n) + LD;
    size_t ldc = n + LD, ld_from = n + 2;
    const bool in_place = variant == 5;
    fill(bias, 64); /* the rest is the same throughout */
    fill(c, m * ldc + 64);
    memcpy(was, c, (m * ldc + 64) * sizeof *c);
    struct lh_gemm_args x = {.m = m,
                             .n = n,
                             .k = k,
                             .a = a,
                             .lda = lda,
                             .b = b,
                             .ldb = ldb,
                             .c = c,
                             .ldc = ldc,
                             .add = variant == 1,
                             .bias = variant == 2 || variant == 3 ? bias : NULL,
                             .from = in_place       ? c
                                     : variant == 4 ? from
                                                    : NULL,
                             .ld_from = in_place ? ldc : ld_from,
                             .relu = variant >= 3};
    lh_gemm_run(g, kind, &x);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldc; j++) {
            if (j >= n) { /* between rows nothing is touched */
                assert_true(c[i * ldc + j] == was[i * ldc + j]);
                continue;
            }
            double s = variant == 0               ? 0
                       : variant == 1 || in_place ? (double)was[i * ldc + j]
                       : variant == 4             ? (double)from[i * ld_from + j]
                                                  : (double)bias[j];
            for (size_t p = 0; p < k; p++)
                s += (double)(kind == LH_GEMM_TN ? a[p * lda + i] : a[i * lda + p]) *
                     (double)(kind == LH_GEMM_NT ? b[j * ldb + p] : b[p * ldb + j]);
            kit_assert_close((double)c[i * ldc + j], variant >= 3 && s < 0 ? 0 : s, 1e-5,
                             g->instructions);
        }
    assert_memory_equal(c + m * ldc, was + m * ldc, 64 * sizeof *c); /* nor behind the last */
}

static void products_of_any_shape_agree_with_three_loops(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 5, 8, 15, 16, 33, 47};
    enum { N = sizeof sizes / sizeof *sizes };
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++)
        for (int at = 0; at < N * N * N; at++)
            for (int kind = 0; kind < 3; kind++)
                check(*g, (enum lh_gemm_kind)kind, sizes[at % N], sizes[at / N % N],
                      sizes[at / N / N], (at + kind) % 6);
}

/* Depths at which a product is done in parts. */
static void products_deeper_than_a_panel_agree(void **state)
{
    (void)state;
    static const size_t depths[] = {256, 257, 600, 1025};
    static lh_real a[7 * 1025], b[7 * 1025], c[49];
    fill(a, 7 * 1025);
    fill(b, 7 * 1025);
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++)
        for (size_t d = 0; d < 4; d++) {
            size_t k = depths[d];
            lh_gemm_run(*g, LH_GEMM_NT,
                        &(struct lh_gemm_args){.m = 7,
                                               .n = 7,
                                               .k = k,
                                               .a = a,
                                               .lda = k,
                                               .b = b,
                                               .ldb = k,
                                               .c = c,
                                               .ldc = 7,
                                               .relu = true});
            for (size_t i = 0; i < 49; i++) {
                double s = 0;
                for (size_t p = 0; p < k; p++)
                    s += (double)a[i / 7 * k + p] * (double)b[i % 7 * k + p];
                kit_assert_close((double)c[i], s < 0 ? 0 : s, 1e-5, (*g)->instructions);
            }
        }
}

/* What "fma" promises: the bits do not depend on the instruction set, and those of a row not on how
 * many rows there are. */
static void products_by_fma_have_the_same_bits_on_any_set_and_shape(void **state)
{
    (void)state;
    enum { M = 37, N = 45, K = 300 };
    static lh_real a[M * K], b[N * K], c[4][M * N];
    fill(a, M * K);
    fill(b, N * K);
    size_t n = 0;
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++) {
        if (strcmp((*g)->name, "fma") != 0)
            continue;
        struct lh_gemm_args x = {
            .m = M, .n = N, .k = K, .a = a, .lda = K, .b = b, .ldb = K, .c = c[n++], .ldc = N};
        lh_gemm_run(*g, LH_GEMM_NT, &x);
        x.c = c[3];
        for (x.m = 2; x.m < M; x.m += 7) {
            lh_gemm_run(*g, LH_GEMM_NT, &x);
            assert_memory_equal(c[3], c[n - 1], x.m * N * sizeof(lh_real));
        }
        for (size_t i = 0; i < M; i++) /* one chain in the order of k */
            for (size_t j = 0; j < N; j++) {
                lh_real s = 0;
                for (size_t p = 0; p < K; p++)
                    s = __builtin_fmaf(a[i * K + p], b[j * K + p], s);
                assert_true(s == c[n - 1][i * N + j]);
            }
        for (size_t k = 1; k < K; k += 97) { /* also where one product goes on from another */
            struct lh_gemm_args part = x;
            part.m = M;
            part.k = k;
            lh_gemm_run(*g, LH_GEMM_NT, &part);
            part.a += k;
            part.b += k;
            part.k = K - k;
            part.from = c[3];
            part.ld_from = N;
            part.c = c[2];
            lh_gemm_run(*g, LH_GEMM_NT, &part);
            assert_memory_equal(c[2], c[n - 1], sizeof c[2]);
        }
    }
    if (n > 1)
        assert_memory_equal(c[0], c[1], sizeof c[0]);
}

/* B kept in packed form, then taken from there: even when B itself is gone. */
static void products_with_a_packed_operand_have_the_same_bits(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {
        {9, 33, 20}, {16, 64, 300}, {1, 7, 40}, {20, 1, 9}, {12, 96, 513}};
    static lh_real a[20 * 513], b[96 * 513], none[96 * 513], packed[96 * 513], c[2][20 * 96];
    fill(a, 20 * 513);
    fill(b, 96 * 513);
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
            struct lh_gemm_args x = {.m = m,
                                     .n = n,
                                     .k = k,
                                     .a = a,
                                     .lda = k,
                                     .b = b,
                                     .ldb = k,
                                     .c = c[0],
                                     .ldc = n,
                                     .bias = a};
            assert_true(lh_gemm_packed_size(n, k) <= sizeof packed / sizeof *packed);
            bool keeps = strcmp((*g)->name, "fma") == 0 && m > 1 && n > 1;
            lh_gemm_run(*g, LH_GEMM_NT, &x);
            x.c = c[1];
            x.packed = packed;
            lh_gemm_run(*g, LH_GEMM_NT, &x);
            assert_memory_equal(c[1], c[0], m * n * sizeof(lh_real));
            memset(c[1], 0x55, m * n * sizeof(lh_real));
            x.ready = true;
            x.b = keeps ? none : b; /* others do not use it */
            lh_gemm_run(*g, LH_GEMM_NT, &x);
            assert_memory_equal(c[1], c[0], m * n * sizeof(lh_real));
        }
}

/* Such a product has no panels. */
static bool has_vector(enum lh_gemm_kind kind, const struct lh_gemm_args *x)
{
    return x->m == 1 || (kind == LH_GEMM_NT ? x->n : x->k) == 1;
}

enum { CHAIN = 14, CHAIN_MAX = 70 * 600 };

/* Products of all kinds and shapes that leave their first panels to each other have the bits that
 * each has alone. That of an NT is made before it comes, so it is not read from B any more. */
static void products_one_after_the_other_have_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        enum lh_gemm_kind kind;
        size_t m, n, k;
        bool packed;
    } of[CHAIN] = {{LH_GEMM_NT, 9, 33, 20, false},  {LH_GEMM_NT, 16, 70, 300, false},
                   {LH_GEMM_NN, 20, 64, 33, false}, {LH_GEMM_NT, 40, 16, 64, true},
                   {LH_GEMM_NT, 12, 5, 7, false},   {LH_GEMM_TN, 33, 40, 20, false},
                   {LH_GEMM_NT, 30, 1, 50, false},  {LH_GEMM_NT, 64, 64, 64, true},
                   {LH_GEMM_NT, 64, 64, 64, true},  {LH_GEMM_TN, 7, 31, 257, false},
                   {LH_GEMM_NT, 1, 48, 32, false},  {LH_GEMM_NT, 25, 48, 600, false},
                   {LH_GEMM_NN, 9, 1, 16, false},   {LH_GEMM_NT, 8, 32, 16, false}};
    static lh_real a[CHAIN_MAX], b[CHAIN][CHAIN_MAX], was[CHAIN_MAX], alone[CHAIN][70 * 70],
        c[70 * 70], packed[96 * 600];
    static struct lh_gemm_ahead ahead;
    fill(a, CHAIN_MAX);
    for (size_t i = 0; i < CHAIN; i++)
        fill(b[i], CHAIN_MAX);
    memcpy(b[8], b[7], sizeof b[8]); /* the same weights once more */
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++) {
        struct lh_gemm_args x[CHAIN];
        for (size_t i = 0; i < CHAIN; i++) {
            const enum lh_gemm_kind kind = of[i].kind;
            x[i] = (struct lh_gemm_args){.m = of[i].m,
                                         .n = of[i].n,
                                         .k = of[i].k,
                                         .a = a,
                                         .lda = kind == LH_GEMM_TN ? of[i].m : of[i].k,
                                         .b = b[i],
                                         .ldb = kind == LH_GEMM_NT ? of[i].k : of[i].n,
                                         .c = alone[i],
                                         .ldc = of[i].n};
            lh_gemm_run(*g, kind, &x[i]);
            x[i].c = c;
            x[i].ahead = &ahead;
            x[i].packed = of[i].packed ? packed : NULL;
            x[i].ready = i == 8;
            if (i + 1 < CHAIN)
                x[i].next = &x[i + 1];
            x[i].next_kind = of[(i + 1) % CHAIN].kind;
        }
        bool made = false;
        memset(&ahead, 0, sizeof ahead);
        for (size_t i = 0; i < CHAIN; i++) {
            memcpy(was, b[i], sizeof was);
            for (size_t j = 0; made && j < x[i].n && j < 16; j++)
                for (size_t p = 0; p < x[i].k && p < 100; p++)
                    b[i][j * x[i].ldb + p] = (lh_real)NAN;
            memset(c, 0x55, sizeof c);
            lh_gemm_run(*g, of[i].kind, &x[i]);
            assert_memory_equal(c, alone[i], x[i].m * x[i].n * sizeof *c);
            memcpy(b[i], was, sizeof was);
            made = strcmp((*g)->name, "fma") == 0 && i + 1 < CHAIN &&
                   !has_vector(of[i].kind, &x[i]) && of[i + 1].kind == LH_GEMM_NT &&
                   !x[i + 1].ready && !has_vector(LH_GEMM_NT, &x[i + 1]);
            assert_ptr_equal(ahead.made, made ? x[i + 1].b : NULL);
        }
    }
}

static void product_with_what_is_no_number_keeps_it(void **state)
{
    (void)state;
    lh_real a[4] = {1, (lh_real)NAN, 1, 1}, b[4] = {1, 1, 1, 1}, c[4];
    for (const struct lh_gemm *const *g = lh_gemm_all(); *g; g++) {
        lh_gemm_run(*g, LH_GEMM_NT,
                    &(struct lh_gemm_args){.m = 2,
                                           .n = 2,
                                           .k = 2,
                                           .a = a,
                                           .lda = 2,
                                           .b = b,
                                           .ldb = 2,
                                           .c = c,
                                           .ldc = 2,
                                           .relu = true});
        assert_true(isnan(c[0]) && isnan(c[1]) && c[2] == 2 && c[3] == 2);
    }
}

static void choice_follows_the_environment(void **state)
{
    (void)state;
    const char *was = getenv("LONGHAUL_GEMM");
    char *copy = was ? strdup(was) : NULL;
    assert_int_equal(setenv("LONGHAUL_GEMM", "openblas", 1), 0);
    assert_string_equal(lh_gemm_choose()->instructions, "openblas");
    assert_true(strlen(lh_gemm_kernel_name()) > 2 && strcmp(lh_gemm_kernel_name(), "fma") != 0);
    assert_int_equal(setenv("LONGHAUL_GEMM", "abacus", 1), 0);
    assert_ptr_equal(lh_gemm_choose(), *lh_gemm_all());
    assert_int_equal(unsetenv("LONGHAUL_GEMM"), 0);
    assert_ptr_equal(lh_gemm_choose(), *lh_gemm_all());
    if (copy)
        assert_int_equal(setenv("LONGHAUL_GEMM", copy, 1), 0);
    free(copy);
    assert_ok(lh_gemm_check()); /* tests run with OPENBLAS_NUM_THREADS=1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(products_of_any_shape_agree_with_three_loops),
        kit_test(products_deeper_than_a_panel_agree),
        kit_test(products_by_fma_have_the_same_bits_on_any_set_and_shape),
        kit_test(products_with_a_packed_operand_have_the_same_bits),
        kit_test(products_one_after_the_other_have_the_same_bits),
        kit_test(product_with_what_is_no_number_keeps_it),
        kit_test(choice_follows_the_environment),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
