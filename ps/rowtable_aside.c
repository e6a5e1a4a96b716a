/* Sorted blocks, and a heap of their heads and of copies. See rowtable_aside.h. */
#include "ps/rowtable_aside.h"

#include "common/err.h"
#include "common/mem.h"

#include <assert.h>
#include <string.h>

enum {
    BLOCK = 16384,   /* rows sorted together: half a millisecond */
    LOOK = 4,        /* slots looked at a call, in blocks: where few are changed, few are listed */
    SLICE_ROWS = 512 /* given at a time; */
};

#define SLICE_BYTES ((size_t)1 << 20) /* or fewer, if they are that much */

struct head {
    uint64_t id;
    size_t at, end; /* of its block: where it is in `all`, and where that ends; or the copy, 0 */
};

struct lh_rowtable_aside {
    struct lh_rowtable_cache *cache;
    size_t looked;     /* slots */
    size_t n;          /* listed in cache->all; from */
    size_t begun;      /* on, the block that is not sorted yet */
    struct head *heap; /* [n_heap] the smallest first */
    size_t n_heap;
    /* copies */
    struct lh_rowtable_record *copies; /* [room] */
    float *arrays;                     /* [room, 3, dim] */
    uint32_t *free;                    /* [n_free] of them */
    size_t room, n_free;
    /* what was given last */
    struct lh_rowtable_record *rows; /* [n_rows], [most] */
    struct head *from;               /* [n_rows]: slot and 1, or copy and 0 */
    size_t n_rows, most;
};

static size_t row_size(const struct lh_rowtable_aside *a)
{
    return (size_t)3 * a->cache->dim * sizeof *a->arrays;
}

static int make(struct lh_rowtable_aside *a, size_t bytes)
{
    static const char what[] = "rows of a cut";
    const size_t fit = SLICE_BYTES / row_size(a);
    void *p;
    a->most = fit < 1 ? 1 : fit > SLICE_ROWS ? SLICE_ROWS : fit;
    a->room = bytes / (row_size(a) + sizeof *a->copies + sizeof *a->heap + sizeof *a->free);
    a->room = a->room < 1 ? 1 : a->room > UINT32_MAX ? UINT32_MAX : a->room;
    LH_TRY(LH_NEW_ARRAY(&a->rows, a->most, what));
    LH_TRY(LH_NEW_ARRAY(&a->from, a->most, what));
    LH_TRY(LH_NEW_ARRAY(&a->copies, a->room, what));
    LH_TRY(LH_NEW_ARRAY(&a->free, a->room, what));
    LH_TRY(LH_NEW_ARRAY(&a->heap, a->room + a->cache->n_slots / BLOCK + 1, what));
    LH_TRY(lh_mem_alloc_aligned(&p, a->room, row_size(a), what));
    a->arrays = p;
    return 0;
}

int lh_rowtable_aside_create(struct lh_rowtable_aside **out, struct lh_rowtable_cache *cache,
                             size_t bytes)
{
    struct lh_rowtable_aside *a = NULL;
    LH_TRY(LH_NEW(&a, "rows of a cut"));
    a->cache = cache;
    int rc = make(a, bytes);
    if (rc < 0)
        lh_rowtable_aside_destroy(&a);
    *out = a;
    return rc;
}

void lh_rowtable_aside_destroy(struct lh_rowtable_aside **out)
{
    struct lh_rowtable_aside *a = *out;
    if (!a)
        return;
    lh_mem_free(a->arrays);
    lh_mem_free(a->heap);
    lh_mem_free(a->free);
    lh_mem_free(a->copies);
    lh_mem_free(a->from);
    lh_mem_free(a->rows);
    lh_mem_free(a);
    *out = NULL;
}

size_t lh_rowtable_aside_bytes(const struct lh_rowtable_aside *a)
{
    return a->room * (row_size(a) + sizeof *a->copies + sizeof *a->heap + sizeof *a->free);
}

void lh_rowtable_aside_begin(struct lh_rowtable_aside *a)
{
    a->looked = a->n = a->begun = a->n_heap = a->n_rows = 0;
    for (a->n_free = 0; a->n_free < a->room; a->n_free++)
        a->free[a->n_free] = (uint32_t)a->n_free;
}

/* --- the heap -------------------------------------------------------------------------------- */

/* Lets `h` down from the top, whose place is free. */
static void sink(struct lh_rowtable_aside *a, struct head h)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < a->n_heap; at = child) {
        child += child + 1 < a->n_heap && a->heap[child + 1].id < a->heap[child].id;
        if (h.id <= a->heap[child].id)
            break;
        a->heap[at] = a->heap[child];
    }
    a->heap[at] = h;
}

static void rise(struct lh_rowtable_aside *a, struct head h)
{
    size_t at = a->n_heap++;
    for (; at > 0 && a->heap[(at - 1) / 2].id > h.id; at = (at - 1) / 2)
        a->heap[at] = a->heap[(at - 1) / 2];
    a->heap[at] = h;
}

/* The smallest, gone from the heap; of a block, the next one is in its place. */
static struct head take(struct lh_rowtable_aside *a)
{
    const struct head first = a->heap[0];
    if (first.at + 1 < first.end)
        sink(a, (struct head){a->cache->all[first.at + 1].id, first.at + 1, first.end});
    else if (--a->n_heap > 0)
        sink(a, a->heap[a->n_heap]);
    return first;
}

/* --- rows ------------------------------------------------------------------------------------ */

static struct lh_rowtable_record row_of(const struct lh_rowtable_aside *a, uint32_t slot)
{
    const struct lh_rowtable_slot *s = &a->cache->slots[slot];
    return (struct lh_rowtable_record){s->id, s->last, s->seen, s->updates,
                                       lh_rowtable_cache_arrays(a->cache, slot)};
}

bool lh_rowtable_aside_keep(struct lh_rowtable_aside *a, uint32_t slot)
{
    if (a->n_free == 0)
        return false;
    const uint32_t at = a->free[--a->n_free];
    struct lh_rowtable_record row = row_of(a, slot);
    row.arrays = memcpy(a->arrays + (size_t)at * 3 * a->cache->dim, row.arrays, row_size(a));
    a->copies[at] = row;
    rise(a, (struct head){row.id, at, 0});
    lh_rowtable_cache_written(a->cache, slot);
    return true;
}

static void end_block(struct lh_rowtable_aside *a)
{
    struct lh_rowtable_entry *first = a->cache->all + a->begun;
    if (a->n == a->begun)
        return;
    lh_rowtable_cache_sort(first, a->n - a->begun);
    rise(a, (struct head){first->id, a->begun, a->n});
    a->begun = a->n;
}

bool lh_rowtable_aside_look(struct lh_rowtable_aside *a)
{
    const struct lh_rowtable_cache *c = a->cache;
    const size_t left = c->n_slots - a->looked, most = (size_t)LOOK * BLOCK;
    const size_t end = a->looked + (left < most ? left : most);
    for (; a->looked < end && a->n - a->begun < BLOCK; a->looked++) {
        const uint32_t slot = (uint32_t)a->looked;
        if (lh_rowtable_cache_is_aside(c, slot))
            c->all[a->n++] = (struct lh_rowtable_entry){c->slots[slot].id, slot};
    }
    if (a->n - a->begun == BLOCK || a->looked == c->n_slots)
        end_block(a);
    return a->looked < c->n_slots;
}

size_t lh_rowtable_aside_next(struct lh_rowtable_aside *a, const struct lh_rowtable_record **out)
{
    assert(a->looked == a->cache->n_slots);
    for (a->n_rows = 0; a->n_rows < a->most && a->n_heap > 0;) {
        struct head h = take(a);
        if (h.end == 0) {
            a->rows[a->n_rows] = a->copies[h.at];
        } else {
            /* what is not aside never comes to be so: a slot that is has the row it was listed for
             */
            const uint32_t slot = a->cache->all[h.at].slot;
            if (!lh_rowtable_cache_is_aside(a->cache, slot))
                continue;
            a->rows[a->n_rows] = row_of(a, slot);
            h.at = slot;
        }
        a->from[a->n_rows++] = h;
    }
    *out = a->rows;
    return a->n_rows;
}

void lh_rowtable_aside_written(struct lh_rowtable_aside *a)
{
    for (size_t i = 0; i < a->n_rows; i++) {
        if (a->from[i].end == 0)
            a->free[a->n_free++] = (uint32_t)a->from[i].at;
        else
            lh_rowtable_cache_written(a->cache, (uint32_t)a->from[i].at);
    }
    a->n_rows = 0;
}
