/* exp, expm1, log, tanh and the logistic function of lh_real, without branches or calls, so that a
 * loop over them vectorises, and without the C library, whose results differ between processors. In
 * float they are within about 2 units in the last place; NaN stays NaN. In the double build they
 * are the C library's. */
#pragma once

#include "common/tensor.h"

#include <math.h>
#include <string.h>

#ifdef LH_REAL_IS_DOUBLE

static inline double lh_vecmath_exp(double x)
{
    return exp(x);
}

static inline double lh_vecmath_log(double x)
{
    return log(x);
}

static inline double lh_vecmath_tanh(double x)
{
    return tanh(x);
}

static inline double lh_vecmath_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static inline double lh_vecmath_abs(double x)
{
    return fabs(x);
}

#else

static inline float lh_vecmath_from_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int32_t lh_vecmath_to_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* x = n ln 2 + r with |r| <= ln 2 / 2 + a little. Adding 1.5 * 2^23 rounds to an integer and leaves
 * it in the low bits, for NaN as well, where a conversion would be undefined. */
static inline int32_t lh_vecmath_reduce(float x, float *r)
{
    const float magic = 12582912.0f;
    float t = x * 1.44269504f + magic, n = t - magic;
    *r = (x - n * 0.693359375f) - n * -2.12194440e-4f; /* ln 2 in two parts, the first exact */
    return lh_vecmath_to_bits(t) - lh_vecmath_to_bits(magic);
}

/* e^r - 1 by its Taylor series; |r| <= 0.35, truncated below 1e-9 of the result. */
static inline float lh_vecmath_expm1_small(float r)
{
    float p = 1.0f / 720 + r * (1.0f / 5040);
    p = 1.0f / 24 + r * (1.0f / 120 + r * p);
    p = 0.5f + r * (1.0f / 6 + r * p);
    return r + r * r * p;
}

static inline float lh_vecmath_exp(float x)
{
    x = x > 89.0f ? 89.0f : x; /* beyond, inf; NaN fails both comparisons */
    x = x < -104.0f ? -104.0f : x;
    float r;
    int32_t n = lh_vecmath_reduce(x, &r), half = n >> 1;
    float e = 1.0f + lh_vecmath_expm1_small(r);
    /* 2^n in two factors, since n may lie outside the exponents of one */
    int32_t s = (int32_t)((uint32_t)(half + 127) << 23),
            t = (int32_t)((uint32_t)(n - half + 127) << 23);
    return e * lh_vecmath_from_bits(s) * lh_vecmath_from_bits(t);
}

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m by the series of artanh. */
static inline float lh_vecmath_log(float x)
{
    int32_t tiny = x < 1.17549435e-38f, bits = lh_vecmath_to_bits(tiny ? x * 8388608.0f : x);
    int32_t e = (bits - 0x3f3504f3) >> 23;
    float m = lh_vecmath_from_bits((int32_t)((uint32_t)bits - ((uint32_t)e << 23)));
    float f = m - 1.0f, s = f / (m + 1.0f), z = s * s;
    float p = z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f)));
    float n = (float)(tiny ? e - 23 : e);
    /* ln m = f - s (f - p): f is exact, so that the result is good beside m = 1 */
    float y = n * 0.693359375f + (f + (n * -2.12194440e-4f - s * (f - p)));
    y = x > 3.40282347e38f ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x < 0.0f ? NAN : (x != x ? x : y);
}

/* With u = e^(2|x|) - 1, tanh |x| = u / (u + 2). */
static inline float lh_vecmath_tanh(float x)
{
    float y = x < 0.0f ? -x : x, r;
    y = y > 9.5f ? 9.5f : y;
    int32_t n = lh_vecmath_reduce(2.0f * y, &r);
    float scale = lh_vecmath_from_bits((int32_t)((uint32_t)(n + 127) << 23));
    float u = scale * lh_vecmath_expm1_small(r) + (scale - 1.0f), t = u / (u + 2.0f);
    return x < 0.0f ? -t : t;
}

static inline float lh_vecmath_sigmoid(float x)
{
    return 1.0f / (1.0f + lh_vecmath_exp(-x));
}

static inline float lh_vecmath_abs(float x)
{
    return __builtin_fabsf(x);
}

#endif
