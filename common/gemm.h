/* Matrix products. C is [m, n], k is what is summed over; ld* are distances between rows, in
 * elements. Three kernels lie behind one call:
 *
 *   fma       our own, for processors with AVX-512 or AVX2 and FMA. An element of C is one chain of
 *             fused multiply-adds in the order of k, started from 0, the bias, C or `from`: so its
 *             bits depend on nothing but its operands, neither on the shape of the call nor on
 *             which of the two instruction sets does it; and a product that goes on from one over
 *             the first part of k gives the bits of the whole.
 *   OpenBLAS  elsewhere, in the double build, or when LONGHAUL_GEMM=openblas is in the environment
 *             (avx512 and avx2 may be asked for as well, where the processor has them).
 *             The same shape and data on the same OpenBLAS kernel give the same bits, as long as it
 *             uses one thread: OPENBLAS_NUM_THREADS=1 in the environment before the program starts
 *             (setting it later leaves the threads of its pool behind).
 *   vectors   whichever of the two is chosen: products with m, n or k of 1, sixteen sums side by
 *             side and a tree, without FMA.
 *
 * All allocate nothing and may be called by any thread. */
#pragma once

#include "common/tensor.h"

#include <stdbool.h>

enum lh_gemm_kind {
    LH_GEMM_NT, /* C = A B^T; A [m, k], B [n, k] */
    LH_GEMM_NN, /* C = A B;   A [m, k], B [k, n] */
    LH_GEMM_TN  /* C = A^T B; A [k, m], B [k, n] */
};

struct lh_gemm_args {
    size_t m, n, k;
    const lh_real *a, *b;
    size_t lda, ldb;
    lh_real *c; /* overlaps neither a nor b */
    size_t ldc;
    bool add;            /* to what is in C, instead of overwriting it */
    const lh_real *from; /* [m, n] what is added to, or NULL; c itself or not overlapping it; not
                            with add or bias */
    size_t ld_from;
    const lh_real *bias; /* [n] added to every row, or NULL; not with add */
    bool relu;           /* max(0, .) at the end; NaN stays */
    lh_real *packed;     /* NT: [lh_gemm_packed_size] where B is kept in the order in which it is
                            read; NULL: nowhere */
    bool ready;          /* it is there already, from a call with the same B, n and k */
    struct lh_gemm_ahead *ahead;     /* the same for products one after the other; NULL: none */
    const struct lh_gemm_args *next; /* with ahead: the product that comes after this one; that of
                                        an NT does not change before; NULL: not known */
    enum lh_gemm_kind next_kind;
};

/* What a product leaves for the next one: B's first panel, made while it ran itself. It would have
 * to be waited for otherwise, alone of all panels. At first all 0. */
enum { LH_GEMM_PANEL = 32 * 256 };
struct lh_gemm_ahead {
    _Alignas(64) lh_real panel[2][LH_GEMM_PANEL];
    size_t at;           /* which of the two is the next product's */
    const lh_real *made; /* its B; NULL: nothing is made */
};

/* Elements that `packed` needs. */
static inline size_t lh_gemm_packed_size(size_t n, size_t k)
{
    return (n + 31) / 32 * 32 * k;
}

struct lh_gemm {
    const char *name;         /* what decides the bits: "fma", "openblas" */
    const char *instructions; /* how: "avx512", "avx2", "openblas" */
    void (*run)(enum lh_gemm_kind kind, const struct lh_gemm_args *x);
};

/* What this machine and environment say. The answer is the same throughout a process unless it
 * changes its environment. */
const struct lh_gemm *lh_gemm_choose(void);

/* Every kernel that runs here, the chosen one among them; NULL-terminated. For tests. */
const struct lh_gemm *const *lh_gemm_all(void);

/* One product by `gemm`; vectors as said above. k >= 1. */
void lh_gemm_run(const struct lh_gemm *gemm, enum lh_gemm_kind kind, const struct lh_gemm_args *x);

/* Errors: LH_ECONFIG if OpenBLAS would use more than one thread. */
int lh_gemm_check(void);

/* Name of what computes: "fma", or OpenBLAS' kernel ("SkylakeX", …); lives as long as the process.
 * Roles with different names must not work on one job (with OpenBLAS its version counts as well:
 * see lh_member_blas). */
const char *lh_gemm_kernel_name(void);
