/* Sets of 64-bit ids as ascending arrays. Pure functions; any thread; nothing is allocated. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sorts n ids and drops repetitions; `scratch` [n]. Returns how many are left. Time grows with n
 * and with the number of bytes in which ids differ. */
size_t lh_idset_make(uint64_t *ids, size_t n, uint64_t *scratch);
/* Where `id` is among n ascending ids; SIZE_MAX: nowhere. */
size_t lh_idset_find(const uint64_t *ids, size_t n, uint64_t id);
