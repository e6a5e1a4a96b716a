/* Kernels of gemm.c that are compiled for other processors than the rest: call one only where the
 * processor has the instructions. Absent in the double build and outside x86-64. */
#pragma once

#include "common/gemm.h"

#if defined(__x86_64__) && !defined(LH_REAL_IS_DOUBLE)
#define LH_GEMM_OWN 1
void lh_gemm_avx512_run(enum lh_gemm_kind kind, const struct lh_gemm_args *x);
void lh_gemm_avx2_run(enum lh_gemm_kind kind, const struct lh_gemm_args *x);
#else
#define LH_GEMM_OWN 0
#endif
