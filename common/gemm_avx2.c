/* The product kernel with AVX2 and FMA: tiles of 6 rows by 16 columns in 12 of 16 registers. */
#include "common/gemm_internal.h"

#if LH_GEMM_OWN

#pragma GCC target("avx2,fma")

#include <immintrin.h>

#define WIDTH                   8
#define VECTOR                  __m256
#define ROWS                    6
#define LOAD                    _mm256_loadu_ps
#define STORE                   _mm256_storeu_ps
#define ZERO                    _mm256_setzero_ps
#define SPREAD                  _mm256_set1_ps
#define FMA                     _mm256_fmadd_ps
#define MAX                     _mm256_max_ps
#define TRANSPOSE(from, ld, to) transpose(from, ld, to)
#define KERNEL                  lh_gemm_avx2_run
#define PAIRS(x, y, mask)       _mm256_shuffle_ps(x, y, mask)

/* Elements within each half of four rows, then halves. */
static inline void transpose(const float *from, size_t ld, float *to)
{
    __m256 r[8], t[8];
    for (size_t i = 0; i < 8; i++)
        r[i] = LOAD(from + i * ld);
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        r[i] = PAIRS(t[i], t[i + 2], 0x44);
        r[i + 1] = PAIRS(t[i], t[i + 2], 0xee);
        r[i + 2] = PAIRS(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = PAIRS(t[i + 1], t[i + 3], 0xee);
    }
    for (size_t i = 0; i < 4; i++) {
        STORE(to + i * 16, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        STORE(to + (i + 4) * 16, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

#include "common/gemm_tile.inc"

#endif
