/* The product kernel with AVX-512: tiles of 8 rows by 32 columns in 16 of 32 registers. */
#include "common/gemm_internal.h"

#if LH_GEMM_OWN

/* Tuned as for these processors whichever they are, since other tunings keep addresses in vector
 * registers (gemm_tile.inc). */
#pragma GCC target("avx512f,tune=skylake-avx512")

#include <immintrin.h>

#define WIDTH                16
#define VECTOR               __m512
#define ROWS                 8
#define LOAD                 _mm512_loadu_ps
#define STORE                _mm512_storeu_ps
#define ZERO                 _mm512_setzero_ps
#define SPREAD               _mm512_set1_ps
#define FMA                  _mm512_fmadd_ps
#define MAX                  _mm512_max_ps
#define PARTS                8
#define TRANSPOSE            transpose
#define KERNEL               lh_gemm_avx512_run
#define PAIRS(x, y, mask)    _mm512_shuffle_ps(x, y, mask)
#define QUARTERS(x, y, mask) _mm512_shuffle_f32x4(x, y, mask)

/* Elements within each quarter of four rows, in parts 0 to 3; then quarters. */
static inline void transpose(size_t part, const float *from, size_t ld, float *half, float *to)
{
    __m512 r[4], t[4];
    const float *first = part < 4 ? from + 4 * part * ld : half + (part - 4) * 16;
    const size_t apart = part < 4 ? ld : 64;
    for (size_t i = 0; i < 4; i++)
        r[i] = LOAD(first + i * apart);
    if (part < 4) {
        t[0] = _mm512_unpacklo_ps(r[0], r[1]);
        t[1] = _mm512_unpackhi_ps(r[0], r[1]);
        t[2] = _mm512_unpacklo_ps(r[2], r[3]);
        t[3] = _mm512_unpackhi_ps(r[2], r[3]);
        half += 64 * part;
        STORE(half, PAIRS(t[0], t[2], 0x44));
        STORE(half + 16, PAIRS(t[0], t[2], 0xee));
        STORE(half + 32, PAIRS(t[1], t[3], 0x44));
        STORE(half + 48, PAIRS(t[1], t[3], 0xee));
    } else {
        t[0] = QUARTERS(r[0], r[1], 0x88);
        t[1] = QUARTERS(r[0], r[1], 0xdd);
        t[2] = QUARTERS(r[2], r[3], 0x88);
        t[3] = QUARTERS(r[2], r[3], 0xdd);
        to += (part - 4) * 32;
        STORE(to, QUARTERS(t[0], t[2], 0x88));
        STORE(to + 4 * 32, QUARTERS(t[1], t[3], 0x88));
        STORE(to + 8 * 32, QUARTERS(t[0], t[2], 0xdd));
        STORE(to + 12 * 32, QUARTERS(t[1], t[3], 0xdd));
    }
}

#include "common/gemm_tile.inc"

#endif
