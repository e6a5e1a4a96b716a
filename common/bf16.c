/* bfloat16 by integer arithmetic on the bits: plain loops without branches, which the compiler
 * turns into vector code, the same on every processor. */
#include "common/bf16.h"

#include <string.h>

/* What comes off the wire begins at any byte. */
typedef float loose_float __attribute__((aligned(1)));
typedef uint16_t loose_half __attribute__((aligned(1)));

static inline float rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
    const uint32_t quiet = bits | 0x00400000; /* a NaN's upper half alone could be infinity's */
    bits = ((bits & 0x7fffffff) > 0x7f800000 ? quiet : nearest) & 0xffff0000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void lh_bf16_round(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = rounded(x[i]);
}

void lh_bf16_add(float *restrict into, const void *restrict from, size_t n)
{
    const loose_float *x = from;
    for (size_t i = 0; i < n; i++)
        into[i] = rounded(into[i] + x[i]);
}

void lh_bf16_sum(float *restrict out, const void *restrict a, const float *restrict b, size_t n)
{
    const loose_float *x = a;
    for (size_t i = 0; i < n; i++)
        out[i] = rounded(x[i] + b[i]);
}

void lh_bf16_pack(uint16_t *restrict out, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        out[i] = (uint16_t)(bits >> 16);
    }
}

void lh_bf16_unpack(float *restrict out, const void *restrict packed, size_t n)
{
    const loose_half *x = packed;
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}
