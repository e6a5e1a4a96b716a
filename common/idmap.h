/* Dense numbers for 64-bit ids: the k-th distinct id added is number k. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LH_IDMAP_NONE UINT32_MAX

struct lh_idmap {
    uint64_t *id; /* [n] by number */
    uint32_t *slot;
    size_t n, cap, n_slots; /* slots: a power of two, at most half full */
};

/* Number of `id`, a new one if it has none. A zeroed map is empty. Errors: LH_ENOMEM; LH_ERANGE
 * beyond 2^32 - 2 ids. */
int lh_idmap_add(struct lh_idmap *m, uint64_t id, uint32_t *number);

/* Number of `id` or LH_IDMAP_NONE. Any thread while nobody adds. */
uint32_t lh_idmap_find(const struct lh_idmap *m, uint64_t id);

void lh_idmap_fini(struct lh_idmap *m); /* idempotent; the map is empty again */
