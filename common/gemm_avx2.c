/* The product kernel with AVX2 and FMA: tiles of 6 rows by 16 columns in 12 of 16 registers. */
#include "common/gemm_internal.h"

#if LH_GEMM_OWN

/* As in gemm_avx512.c. */
#pragma GCC target("avx2,fma,tune=haswell")

#include <immintrin.h>

#define WIDTH             8
#define VECTOR            __m256
#define ROWS              6
#define LOAD              _mm256_loadu_ps
#define STORE             _mm256_storeu_ps
#define ZERO              _mm256_setzero_ps
#define SPREAD            _mm256_set1_ps
#define FMA               _mm256_fmadd_ps
#define MAX               _mm256_max_ps
#define PARTS             4
#define TRANSPOSE         transpose
#define KERNEL            lh_gemm_avx2_run
#define PAIRS(x, y, mask) _mm256_shuffle_ps(x, y, mask)

/* Elements within each half of four rows, in parts 0 and 1; then halves. */
static inline void transpose(size_t part, const float *from, size_t ld, float *half, float *to)
{
    __m256 r[4], t[4];
    if (part < 2) {
        for (size_t i = 0; i < 4; i++)
            r[i] = LOAD(from + (4 * part + i) * ld);
        t[0] = _mm256_unpacklo_ps(r[0], r[1]);
        t[1] = _mm256_unpackhi_ps(r[0], r[1]);
        t[2] = _mm256_unpacklo_ps(r[2], r[3]);
        t[3] = _mm256_unpackhi_ps(r[2], r[3]);
        half += 32 * part;
        STORE(half, PAIRS(t[0], t[2], 0x44));
        STORE(half + 8, PAIRS(t[0], t[2], 0xee));
        STORE(half + 16, PAIRS(t[1], t[3], 0x44));
        STORE(half + 24, PAIRS(t[1], t[3], 0xee));
    } else {
        for (size_t i = 2 * (part - 2); i < 2 * (part - 1); i++) {
            r[0] = LOAD(half + 8 * i);
            r[1] = LOAD(half + 8 * i + 32);
            STORE(to + i * 16, _mm256_permute2f128_ps(r[0], r[1], 0x20));
            STORE(to + (i + 4) * 16, _mm256_permute2f128_ps(r[0], r[1], 0x31));
        }
    }
}

#include "common/gemm_tile.inc"

#endif
