/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A number is a pure function
 * of (seed, purpose, step, part, index); nothing has state, so any worker can draw any number
 * (DESIGN.md, invariant 1).
 *
 * Counter: {index of the 4-word block, part, low 32 bits of step, high 32 bits of step}
 * Key:     {low word, high word} of a 64-bit mix of seed and purpose. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void lh_rng_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Where in the space of random numbers one stands. */
struct lh_rng_at {
    uint64_t seed;
    uint32_t purpose; /* lh_rng_purpose("c_pi") */
    uint32_t part;    /* micro-batch, user, worker-independent thing */
    uint64_t step;
};

/* A 32-bit FNV-1a hash of the name. Two purposes of one job must not collide: checked by callers
 * that register names (the graph). */
uint32_t lh_rng_purpose(const char *name);

uint32_t lh_rng_u32(const struct lh_rng_at *at, uint64_t index);
uint64_t lh_rng_u64(const struct lh_rng_at *at, uint64_t index);
/* Uniform in [0, n), n > 0, without bias worth measuring (64-bit multiply-shift; < n / 2^64). */
uint64_t lh_rng_below(const struct lh_rng_at *at, uint64_t index, uint64_t n);
double lh_rng_uniform1(const struct lh_rng_at *at, uint64_t index); /* [0, 1), 53 bits */
double lh_rng_normal1(const struct lh_rng_at *at, uint64_t index);  /* N(0, 1) */

/* out[i], i = 0 .. n-1, as index i; independent of n (a prefix of a longer fill is the same). */
void lh_rng_uniform(const struct lh_rng_at *at, float *out, size_t n); /* [0, 1), 24 bits */
void lh_rng_normal(const struct lh_rng_at *at, float *out, size_t n);  /* N(0, 1), Box-Muller */

/* The k-th element of a pseudo-random permutation of 0 .. n-1 that needs no memory: a Feistel
 * network over the next even power of two with cycle walking. k < n. */
uint64_t lh_rng_permute(const struct lh_rng_at *at, uint64_t k, uint64_t n);
/* Its elements k = first .. first + count - 1, in less time. first + count <= n. */
void lh_rng_permute_run(const struct lh_rng_at *at, uint64_t first, size_t count, uint64_t n,
                        uint64_t *out);
