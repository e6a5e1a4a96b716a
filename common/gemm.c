/* Matrix products. A product with a vector does not go to BLAS: its kernels for n = 1 read the
 * matrix no faster, differ between shapes and are called for the output of every critic. Here the
 * order of the sums is fixed: LANES partial sums, then a tree. */
#include "common/gemm.h"

#include "common/err.h"

#include <cblas.h>

#include <string.h>

#define LANES 16

#ifdef LH_REAL_IS_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

static inline lh_real tree(lh_real *s)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            s[j] += s[j + width];
    return s[0];
}

static inline lh_real dot(size_t k, const lh_real *restrict x, const lh_real *restrict y)
{
    lh_real s[LANES] = {0};
    size_t p = 0;
    for (; p + LANES <= k; p += LANES)
        for (int j = 0; j < LANES; j++)
            s[j] += x[p + j] * y[p + j];
    for (int j = 0; p + (size_t)j < k; j++)
        s[j] += x[p + j] * y[p + j];
    return tree(s);
}

/* c = A b, one dot product a row. */
static void matrix_vector(size_t m, size_t k, const lh_real *restrict a, size_t lda,
                          const lh_real *restrict b, bool add, lh_real *restrict c, size_t ldc)
{
    for (size_t i = 0; i < m; i++) {
        lh_real s = dot(k, a + i * lda, b);
        c[i * ldc] = add ? c[i * ldc] + s : s;
    }
}

/* c = a^T B: the rows of B, each times its a, added four at a time. */
static void vector_matrix(size_t n, size_t k, const lh_real *restrict a, size_t lda,
                          const lh_real *restrict b, size_t ldb, bool add, lh_real *restrict c)
{
    if (!add)
        memset(c, 0, n * sizeof *c);
    size_t p = 0;
    for (; p + 4 <= k; p += 4) {
        const lh_real *r = b + p * ldb;
        lh_real w = a[p * lda], x = a[(p + 1) * lda], y = a[(p + 2) * lda], z = a[(p + 3) * lda];
        for (size_t j = 0; j < n; j++)
            c[j] += (w * r[j] + x * r[ldb + j]) + (y * r[2 * ldb + j] + z * r[3 * ldb + j]);
    }
    for (; p < k; p++)
        for (size_t j = 0; j < n; j++)
            c[j] += a[p * lda] * b[p * ldb + j];
}

/* C = a b^T. */
static void outer(size_t m, size_t n, const lh_real *restrict a, size_t lda,
                  const lh_real *restrict b, bool add, lh_real *restrict c, size_t ldc)
{
    for (size_t i = 0; i < m; i++) {
        lh_real s = a[i * lda], *row = c + i * ldc;
        if (add)
            for (size_t j = 0; j < n; j++)
                row[j] += s * b[j];
        else
            for (size_t j = 0; j < n; j++)
                row[j] = s * b[j];
    }
}

void lh_gemm_nt(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc)
{
    if (n == 1)
        matrix_vector(m, k, a, lda, b, add, c, ldc);
    else if (m == 1)
        matrix_vector(n, k, b, ldb, a, add, c, 1);
    else
        GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, 1, a,
             (blasint)lda, b, (blasint)ldb, add, c, (blasint)ldc);
}

void lh_gemm_nn(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc)
{
    if (k == 1)
        outer(m, n, a, lda, b, add, c, ldc);
    else if (m == 1)
        vector_matrix(n, k, a, 1, b, ldb, add, c);
    else
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1, a,
             (blasint)lda, b, (blasint)ldb, add, c, (blasint)ldc);
}

void lh_gemm_tn(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc)
{
    if (m == 1)
        vector_matrix(n, k, a, lda, b, ldb, add, c);
    else if (k == 1)
        outer(m, n, a, 1, b, add, c, ldc);
    else
        GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1, a,
             (blasint)lda, b, (blasint)ldb, add, c, (blasint)ldc);
}

int lh_gemm_check(void)
{
    int threads = openblas_get_num_threads();
    if (threads > 1)
        return lh_err_set(LH_ECONFIG,
                          "OpenBLAS would use %d threads, and results would depend on that; start "
                          "with OPENBLAS_NUM_THREADS=1 in the environment",
                          threads);
    return 0;
}

const char *lh_gemm_kernel_name(void)
{
    return openblas_get_corename();
}

const char *lh_gemm_library(void)
{
    return openblas_get_config();
}
