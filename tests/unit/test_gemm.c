#include "common/gemm.h"
#include "tests/testkit.h"

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

enum { MAX = 70 * 70, LD = 5 };

/* C = op(A) op(B) [+ C] with rows further apart than they are long, against three loops. */
static void check(int kind, size_t m, size_t n, size_t k, bool add)
{
    static lh_real a[MAX], b[MAX], c[MAX], was[MAX];
    size_t lda = (kind == 2 ? m : k) + LD, ldb = (kind == 0 ? k : n) + LD, ldc = n + LD;
    fill(a, MAX);
    fill(b, MAX);
    fill(c, MAX);
    memcpy(was, c, sizeof c);
    if (kind == 0)
        lh_gemm_nt(m, n, k, a, lda, b, ldb, add, c, ldc);
    else if (kind == 1)
        lh_gemm_nn(m, n, k, a, lda, b, ldb, add, c, ldc);
    else
        lh_gemm_tn(m, n, k, a, lda, b, ldb, add, c, ldc);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldc; j++) {
            if (j >= n) { /* between rows nothing is touched */
                assert_true(c[i * ldc + j] == was[i * ldc + j]);
                continue;
            }
            double s = add ? (double)was[i * ldc + j] : 0;
            for (size_t p = 0; p < k; p++)
                s += (double)(kind == 2 ? a[p * lda + i] : a[i * lda + p]) *
                     (double)(kind == 0 ? b[j * ldb + p] : b[p * ldb + j]);
            kit_assert_close((double)c[i * ldc + j], s, 1e-5, "element");
        }
}

static void products_of_any_shape_agree_with_three_loops(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 15, 16, 17, 33, 47};
    enum { N = sizeof sizes / sizeof *sizes };
    for (int kind = 0; kind < 3; kind++)
        for (int at = 0; at < N * N * N; at++)
            check(kind, sizes[at % N], sizes[at / N % N], sizes[at / N / N], at % 2);
}

static void kernel_and_library_have_names(void **state)
{
    (void)state;
    assert_true(strlen(lh_gemm_kernel_name()) > 2);
    kit_assert_contains(lh_gemm_library(), "OpenBLAS");
    assert_ok(lh_gemm_check()); /* tests run with OPENBLAS_NUM_THREADS=1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(products_of_any_shape_agree_with_three_loops),
        kit_test(kernel_and_library_have_names),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
