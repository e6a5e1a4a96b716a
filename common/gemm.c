/* Matrix products: choice of the kernel, OpenBLAS, and products with a vector. Those have a kernel
 * of their own since a tile would be mostly empty, and the output of every critic is one; the order
 * of its sums is fixed: LANES partial sums, then a tree. */
#include "common/gemm.h"

#include "common/err.h"
#include "common/gemm_internal.h"

#include <cblas.h>

#include <stdlib.h>
#include <string.h>

#define LANES 16

#ifdef LH_REAL_IS_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

/* --- OpenBLAS ----------------------------------------------------------------------------------
 */
static void finish_row(size_t n, const lh_real *restrict bias, bool relu, lh_real *restrict c)
{
    if (bias)
        for (size_t j = 0; j < n; j++)
            c[j] += bias[j];
    if (relu)
        for (size_t j = 0; j < n; j++)
            c[j] = c[j] <= 0 ? 0 : c[j];
}

/* For kernels that can only add to C: puts there what is added to. */
static struct lh_gemm_args begin(const struct lh_gemm_args *x)
{
    struct lh_gemm_args y = *x;
    if (x->from) {
        for (size_t i = 0; x->from != x->c && i < x->m; i++)
            memcpy(x->c + i * x->ldc, x->from + i * x->ld_from, x->n * sizeof *x->c);
        y.from = NULL;
        y.add = true;
    }
    return y;
}

static void openblas(enum lh_gemm_kind kind, const struct lh_gemm_args *given)
{
    const struct lh_gemm_args begun = begin(given), *x = &begun;
    GEMM(CblasRowMajor, kind == LH_GEMM_TN ? CblasTrans : CblasNoTrans,
         kind == LH_GEMM_NT ? CblasTrans : CblasNoTrans, (blasint)x->m, (blasint)x->n,
         (blasint)x->k, 1, x->a, (blasint)x->lda, x->b, (blasint)x->ldb, x->add, x->c,
         (blasint)x->ldc);
    if (x->bias || x->relu)
        for (size_t i = 0; i < x->m; i++)
            finish_row(x->n, x->bias, x->relu, x->c + i * x->ldc);
}

/* --- vectors -----------------------------------------------------------------------------------
 */
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
            s[j] += x[p + (size_t)j] * y[p + (size_t)j];
    for (size_t j = 0; p + j < k; j++)
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

/* Whether one side is a vector that lies together. */
static bool has_vector(enum lh_gemm_kind kind, const struct lh_gemm_args *x)
{
    return x->m == 1 || (kind == LH_GEMM_NT ? x->n == 1 : x->k == 1);
}

static void with_vector(enum lh_gemm_kind kind, const struct lh_gemm_args *given)
{
    const struct lh_gemm_args begun = begin(given), *x = &begun;
    if (kind == LH_GEMM_NT && x->n == 1)
        matrix_vector(x->m, x->k, x->a, x->lda, x->b, x->add, x->c, x->ldc);
    else if (kind == LH_GEMM_NT && x->m == 1)
        matrix_vector(x->n, x->k, x->b, x->ldb, x->a, x->add, x->c, 1);
    else if (kind == LH_GEMM_NN && x->k == 1)
        outer(x->m, x->n, x->a, x->lda, x->b, x->add, x->c, x->ldc);
    else if (kind == LH_GEMM_NN && x->m == 1)
        vector_matrix(x->n, x->k, x->a, 1, x->b, x->ldb, x->add, x->c);
    else if (kind == LH_GEMM_TN && x->m == 1)
        vector_matrix(x->n, x->k, x->a, x->lda, x->b, x->ldb, x->add, x->c);
    else
        outer(x->m, x->n, x->a, 1, x->b, x->add, x->c, x->ldc);
    for (size_t i = 0; (x->bias || x->relu) && i < x->m; i++)
        finish_row(x->n, x->bias, x->relu, x->c + i * x->ldc);
}

void lh_gemm_run(const struct lh_gemm *gemm, enum lh_gemm_kind kind, const struct lh_gemm_args *x)
{
    if (has_vector(kind, x)) {
        with_vector(kind, x);
    } else if (x->next && has_vector(x->next_kind, x->next)) { /* it has no panels */
        struct lh_gemm_args alone = *x;
        alone.next = NULL;
        gemm->run(kind, &alone);
    } else {
        gemm->run(kind, x);
    }
}

/* --- choice ------------------------------------------------------------------------------------
 */
static const struct lh_gemm by_openblas = {"openblas", "openblas", openblas};

#if LH_GEMM_OWN
static const struct lh_gemm by_avx512 = {"fma", "avx512", lh_gemm_avx512_run};
static const struct lh_gemm by_avx2 = {"fma", "avx2", lh_gemm_avx2_run};
static const struct lh_gemm *const all[] = {&by_avx512, &by_avx2, &by_openblas, NULL};
#else
static const struct lh_gemm *const all[] = {&by_openblas, NULL};
#endif

const struct lh_gemm *const *lh_gemm_all(void)
{
#if LH_GEMM_OWN
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return all + (__builtin_cpu_supports("avx512f") ? 0 : avx2 ? 1 : 2);
#else
    return all;
#endif
}

const struct lh_gemm *lh_gemm_choose(void)
{
    const char *wish = getenv("LONGHAUL_GEMM");
    const struct lh_gemm *const *k = lh_gemm_all();
    for (; wish && k[1] && strcmp(k[0]->instructions, wish) != 0; k++)
        ;
    return wish && strcmp(k[0]->instructions, wish) != 0 ? *lh_gemm_all() : k[0];
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
    const struct lh_gemm *k = lh_gemm_choose();
    return k == &by_openblas ? openblas_get_corename() : k->name;
}
