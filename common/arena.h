/* Arena: one block, carved front to back, released whole. A plan measures first (an arena without
 * a block only counts), then allocates once, then carves the same sequence again. */
#pragma once

#include <stddef.h>

#define LH_ARENA_ALIGN 64 /* bytes: a cache line, and the widest vector register */

struct lh_arena {
    unsigned char *base; /* NULL while measuring */
    size_t size, used;   /* bytes */
};

/* An arena that only measures: every lh_arena_alloc succeeds, returns NULL in *out and adds up. */
void lh_arena_init_measure(struct lh_arena *a);

/* Takes one block of `size` bytes (zeroed, 64-byte aligned). Errors: LH_ENOMEM. */
int lh_arena_init(struct lh_arena *a, size_t size, const char *what);

/* Carves n * size bytes, 64-byte aligned; valid until fini. Under AddressSanitizer the
 * space between two pieces is poisoned. Errors: LH_ENOMEM when the arena is spent (a bug of the
 * measuring pass), LH_ERANGE on overflow. Not thread-safe. */
int lh_arena_alloc(struct lh_arena *a, void **out, size_t n, size_t size);

void lh_arena_fini(struct lh_arena *a); /* idempotent; all pieces die */
