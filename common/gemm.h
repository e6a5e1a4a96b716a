/* Matrix products, by OpenBLAS or, where one side is a vector, by kernels of our own. C is
 * [m, n], k is what is summed over; ld* are distances between rows, in elements; `add` adds to C
 * instead of overwriting it. All are deterministic: the same shape and data on the same BLAS kernel
 * give the same bits, as long as BLAS uses one thread (OPENBLAS_NUM_THREADS=1 in the environment
 * before the program starts; setting it later leaves the pool's threads behind). Allocate nothing.
 */
#pragma once

#include "common/tensor.h"

#include <stdbool.h>

void lh_gemm_nt(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc); /* C = A B^T; A [m, k], B [n, k] */
void lh_gemm_nn(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc); /* C = A B; A [m, k], B [k, n] */
void lh_gemm_tn(size_t m, size_t n, size_t k, const lh_real *a, size_t lda, const lh_real *b,
                size_t ldb, bool add, lh_real *c, size_t ldc); /* C = A^T B; A [k, m], B [k, n] */

/* Errors: LH_ECONFIG if BLAS would use more than one thread. */
int lh_gemm_check(void);

/* What computes: "SkylakeX", "Haswell", …, as OpenBLAS calls its kernel. Roles compare it. */
const char *lh_gemm_kernel_name(void);
/* Version and build of the library, "OpenBLAS 0.3.21 …". Roles compare it. */
const char *lh_gemm_library(void);
