/* The product kernel with AVX-512: tiles of 8 rows by 32 columns in 16 of 32 registers. */
#include "common/gemm_internal.h"

#if LH_GEMM_OWN

#pragma GCC target("avx512f")

#include <immintrin.h>

#define WIDTH                   16
#define VECTOR                  __m512
#define ROWS                    8
#define LOAD                    _mm512_loadu_ps
#define STORE                   _mm512_storeu_ps
#define ZERO                    _mm512_setzero_ps
#define SPREAD                  _mm512_set1_ps
#define FMA                     _mm512_fmadd_ps
#define MAX                     _mm512_max_ps
#define TRANSPOSE(from, ld, to) transpose(from, ld, to)
#define KERNEL                  lh_gemm_avx512_run
#define PAIRS(x, y, mask)       _mm512_shuffle_ps(x, y, mask)
#define QUARTERS(x, y, mask)    _mm512_shuffle_f32x4(x, y, mask)

/* Elements within each quarter of four rows, then quarters. */
static inline void transpose(const float *from, size_t ld, float *to)
{
    __m512 r[16], t[16];
    for (size_t i = 0; i < 16; i++)
        r[i] = LOAD(from + i * ld);
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 16; i += 4) {
        r[i] = PAIRS(t[i], t[i + 2], 0x44);
        r[i + 1] = PAIRS(t[i], t[i + 2], 0xee);
        r[i + 2] = PAIRS(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = PAIRS(t[i + 1], t[i + 3], 0xee);
    }
    for (size_t i = 0; i < 4; i++) {
        t[i] = QUARTERS(r[i], r[i + 4], 0x88);
        t[i + 4] = QUARTERS(r[i], r[i + 4], 0xdd);
        t[i + 8] = QUARTERS(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = QUARTERS(r[i + 8], r[i + 12], 0xdd);
    }
    for (size_t i = 0; i < 8; i++) {
        STORE(to + i * 32, QUARTERS(t[i], t[i + 8], 0x88));
        STORE(to + (i + 8) * 32, QUARTERS(t[i], t[i + 8], 0xdd));
    }
}

#include "common/gemm_tile.inc"

#endif
