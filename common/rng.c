/* Philox4x32-10 and what is drawn from it. The transcendental functions of Box-Muller are our own
 * polynomials: the C library's differ between processors, and the compiler can vectorise these.
 * Blocks are computed in structure-of-arrays strips so that it does. */
#include "common/rng.h"

#include <string.h>

#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define W0 0x9E3779B9u
#define W1 0xBB67AE85u

#define STRIP 64 /* 4-word blocks computed together */

static inline void rounds(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t k0,
                          uint32_t k1)
{
    uint32_t a = *c0, b = *c1, c = *c2, d = *c3;
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)M0 * a, p1 = (uint64_t)M1 * c;
        uint32_t na = (uint32_t)(p1 >> 32) ^ b ^ k0;
        uint32_t nc = (uint32_t)(p0 >> 32) ^ d ^ k1;
        b = (uint32_t)p1;
        d = (uint32_t)p0;
        a = na;
        c = nc;
        k0 += W0;
        k1 += W1;
    }
    *c0 = a;
    *c1 = b;
    *c2 = c;
    *c3 = d;
}

void lh_rng_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    memcpy(out, counter, 4 * sizeof *out);
    rounds(&out[0], &out[1], &out[2], &out[3], key[0], key[1]);
}

uint32_t lh_rng_purpose(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

/* The finaliser of splitmix64: neighbouring seeds and purposes give unrelated keys. */
static uint64_t key_of(const struct lh_rng_at *at)
{
    uint64_t z = at->seed + 0x9E3779B97F4A7C15u * ((uint64_t)at->purpose + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The four words of block `block`. A block number has 32 bits; the two bits of index / 4 above
 * them go nowhere, so one (purpose, step, part) holds 2^34 words. */
static void block_of(const struct lh_rng_at *at, uint64_t block, uint32_t out[4])
{
    uint64_t key = key_of(at);
    out[0] = (uint32_t)block;
    out[1] = at->part ^ (uint32_t)(block >> 32);
    out[2] = (uint32_t)at->step;
    out[3] = (uint32_t)(at->step >> 32);
    rounds(&out[0], &out[1], &out[2], &out[3], (uint32_t)key, (uint32_t)(key >> 32));
}

uint32_t lh_rng_u32(const struct lh_rng_at *at, uint64_t index)
{
    uint32_t w[4];
    block_of(at, index / 4, w);
    return w[index % 4];
}

uint64_t lh_rng_u64(const struct lh_rng_at *at, uint64_t index)
{
    uint32_t w[4];
    block_of(at, index / 2, w);
    return index % 2 ? (uint64_t)w[3] << 32 | w[2] : (uint64_t)w[1] << 32 | w[0];
}

uint64_t lh_rng_below(const struct lh_rng_at *at, uint64_t index, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)lh_rng_u64(at, index) * n) >> 64);
}

double lh_rng_uniform1(const struct lh_rng_at *at, uint64_t index)
{
    return (double)(lh_rng_u64(at, index) >> 11) * 0x1p-53;
}

static void strip(const struct lh_rng_at *at, uint64_t first_block, uint32_t w[4][STRIP])
{
    uint64_t key = key_of(at);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t lo = (uint32_t)at->step, hi = (uint32_t)(at->step >> 32);
    for (int i = 0; i < STRIP; i++) {
        uint64_t block = first_block + (uint64_t)i;
        uint32_t a = (uint32_t)block, b = at->part ^ (uint32_t)(block >> 32), c = lo, d = hi;
        rounds(&a, &b, &c, &d, k0, k1);
        w[0][i] = a;
        w[1][i] = b;
        w[2][i] = c;
        w[3][i] = d;
    }
}

void lh_rng_uniform(const struct lh_rng_at *at, float *out, size_t n)
{
    uint32_t w[4][STRIP];
    for (size_t i = 0; i < n; i += 4 * STRIP) {
        strip(at, i / 4, w);
        size_t m = n - i < 4 * STRIP ? n - i : 4 * STRIP;
        for (size_t j = 0; j < m; j++)
            out[i + j] = (float)(w[j % 4][j / 4] >> 8) * 0x1p-24f;
    }
}

/* ln x for x in [2^-24, 1]; relative error below 3e-7. */
static inline float ln(float x)
{
    union {
        float f;
        int32_t i;
    } u = {.f = x};
    int32_t e = (u.i - 0x3f3504f3) >> 23; /* mantissa into [sqrt(1/2), sqrt(2)) */
    u.i -= e * (1 << 23);
    float s = (u.f - 1.0f) / (u.f + 1.0f), z = s * s;
    float p =
        2.0f * s * (1.0f + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * 0.11111111f))));
    return p + (float)e * 0.69314718f;
}

/* sin and cos of 2 pi t, t in [0, 1); absolute error below 2e-7. */
static inline void sincos_turn(float t, float *sin_out, float *cos_out)
{
    int32_t q = (int32_t)(t * 4.0f + 0.5f);
    float r = (t * 4.0f - (float)q) * 1.57079633f, z = r * r;
    float s = r * (1.0f + z * (-0.16666667f +
                               z * (8.3333310e-3f + z * (-1.9840874e-4f + z * 2.7525562e-6f))));
    float c = 1.0f + z * (-0.5f + z * (4.1666668e-2f + z * (-1.3888397e-3f + z * 2.4760495e-5f)));
    float a = q & 1 ? c : s, b = q & 1 ? s : c;
    *sin_out = q & 2 ? -a : a;
    *cos_out = (q + 1) & 2 ? -b : b;
}

/* The four numbers of a block lie together. */
static void side_by_side(float y[4][STRIP], float *restrict out)
{
    for (size_t j = 0; j < STRIP; j++)
        for (size_t p = 0; p < 4; p++)
            out[4 * j + p] = y[p][j];
}

void lh_rng_normal(const struct lh_rng_at *at, float *out, size_t n)
{
    uint32_t w[4][STRIP];
    float y[4][STRIP];
    for (size_t i = 0; i < n; i += 4 * STRIP) {
        strip(at, i / 4, w);
        for (int p = 0; p < 4; p += 2) {
            for (int j = 0; j < STRIP; j++) {
                float u = (float)((w[p][j] >> 8) + 1) * 0x1p-24f; /* (0, 1] */
                float t = (float)(w[p + 1][j] >> 8) * 0x1p-24f;   /* [0, 1) */
                float radius = __builtin_sqrtf(-2.0f * ln(u)), s, c;
                sincos_turn(t, &s, &c);
                y[p][j] = radius * c;
                y[p + 1][j] = radius * s;
            }
        }
        if (n - i >= 4 * STRIP) {
            side_by_side(y, out + i);
        } else {
            float rest[4 * STRIP];
            side_by_side(y, rest);
            memcpy(out + i, rest, (n - i) * sizeof *out);
        }
    }
}

double lh_rng_normal1(const struct lh_rng_at *at, uint64_t index)
{
    uint32_t w[4];
    block_of(at, index / 4, w);
    int p = (int)(index % 4) & 2;
    float u = (float)((w[p] >> 8) + 1) * 0x1p-24f, t = (float)(w[p + 1] >> 8) * 0x1p-24f, s, c;
    sincos_turn(t, &s, &c);
    return __builtin_sqrtf(-2.0f * ln(u)) * (index % 2 ? s : c);
}

/* Half the bits of the next even power of two. */
static unsigned half_bits(uint64_t n)
{
    unsigned bits = 1;
    while (bits < 32 && (UINT64_C(1) << (2 * bits)) < n)
        bits++;
    return bits;
}

#define FEISTEL_ROUNDS 6

uint64_t lh_rng_permute(const struct lh_rng_at *at, uint64_t k, uint64_t n)
{
    const unsigned bits = half_bits(n);
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    do {
        uint64_t left = k >> bits, right = k & mask;
        for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t f = lh_rng_u64(at, (round << 32 | right) * 2) & mask;
            uint64_t next = left ^ f;
            left = right;
            right = next;
        }
        k = left << bits | right;
    } while (k >= n);
    return k;
}

/* All rounds of a strip of numbers once, side by side. */
static void feistel(const struct lh_rng_at *at, unsigned bits, uint64_t k[STRIP])
{
    const uint64_t key = key_of(at);
    const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    const uint32_t lo = (uint32_t)at->step, hi = (uint32_t)(at->step >> 32);
    const uint32_t mask = (uint32_t)((UINT64_C(1) << bits) - 1);
    uint32_t left[STRIP], right[STRIP];
    for (int i = 0; i < STRIP; i++) {
        left[i] = (uint32_t)(k[i] >> bits);
        right[i] = (uint32_t)k[i] & mask;
    }
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++)
        for (int i = 0; i < STRIP; i++) {
            uint32_t a = right[i], b = at->part ^ round, c = lo, d = hi;
            rounds(&a, &b, &c, &d, k0, k1);
            const uint32_t next = left[i] ^ (a & mask);
            left[i] = right[i];
            right[i] = next;
        }
    for (int i = 0; i < STRIP; i++)
        k[i] = (uint64_t)left[i] << bits | right[i];
}

void lh_rng_permute_run(const struct lh_rng_at *at, uint64_t first, size_t count, uint64_t n,
                        uint64_t *out)
{
    const unsigned bits = half_bits(n);
    uint64_t k[STRIP] = {0};
    size_t place[STRIP], walking = 0, begun = 0;
    do {
        for (; walking < STRIP && begun < count; walking++, begun++) {
            k[walking] = first + begun;
            place[walking] = begun;
        }
        feistel(at, bits, k);
        size_t left = 0;
        for (size_t i = 0; i < walking; i++) {
            out[place[i]] = k[i];
            k[left] = k[i];
            place[left] = place[i];
            left += k[i] >= n; /* goes on walking */
        }
        walking = left;
    } while (walking > 0 || begun < count);
}
