/* bfloat16: the upper half of a float32. A gradient may travel as such (job key train.gradient):
 * half the bytes, 8 bits of significance instead of 24, the same range.
 *
 * So that the bits of a step do not depend on who sent which node of the gradient tree, every
 * node's value is rounded, wherever it is computed: node = round(left + right), the sum in float32.
 * Then what travels is exact. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* x[i] to the nearest bfloat16, ties to even, as float32. Infinities stay, NaN stays a NaN, what is
 * beyond the largest becomes infinite. Any thread, as all of these; none allocates. */
void lh_bf16_round(float *x, size_t n);
/* into[i] = round(into[i] + from[i]). No overlap; `from` may be unaligned. */
void lh_bf16_add(float *restrict into, const void *restrict from, size_t n);
/* out[i] = round(a[i] + b[i]); out overlaps neither. `a` may be unaligned. */
void lh_bf16_sum(float *restrict out, const void *restrict a, const float *restrict b, size_t n);
/* The upper halves of values that are rounded already. No overlap. */
void lh_bf16_pack(uint16_t *restrict out, const float *restrict x, size_t n);
/* Back, from bytes that may be unaligned. No overlap. */
void lh_bf16_unpack(float *restrict out, const void *restrict packed, size_t n);
