/* Arena allocator. Pieces are separated by one poisoned line under AddressSanitizer, in the
 * measuring pass as well, so that the sizes agree in every build. */
#include "common/arena.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define RED_ZONE       LH_ARENA_ALIGN
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define RED_ZONE       0
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

void lh_arena_init_measure(struct lh_arena *a)
{
    memset(a, 0, sizeof *a);
}

int lh_arena_init(struct lh_arena *a, size_t size, const char *what)
{
    memset(a, 0, sizeof *a);
    void *p;
    LH_TRY(lh_mem_alloc_aligned(&p, size, 1, what));
    memset(p, 0, size);
    a->base = p;
    a->size = size;
    POISON(a->base, a->size);
    return 0;
}

int lh_arena_alloc(struct lh_arena *a, void **out, size_t n, size_t size)
{
    size_t bytes, end;
    LH_TRY(lh_mem_mul(&bytes, n, size));
    LH_TRY(lh_mem_add(&end, bytes, LH_ARENA_ALIGN - 1 + RED_ZONE));
    end = end / LH_ARENA_ALIGN * LH_ARENA_ALIGN;
    LH_TRY(lh_mem_add(&end, a->used, end));
    if (!a->base) {
        a->used = end;
        *out = NULL;
        return 0;
    }
    if (end > a->size)
        return lh_err_set(LH_ENOMEM, "arena of %zu bytes is spent: %zu more asked for", a->size,
                          bytes);
    *out = a->base + a->used;
    UNPOISON(*out, bytes);
    a->used = end;
    return 0;
}

void lh_arena_fini(struct lh_arena *a)
{
    if (a->base)
        UNPOISON(a->base, a->size);
    lh_mem_free(a->base);
    memset(a, 0, sizeof *a);
}
