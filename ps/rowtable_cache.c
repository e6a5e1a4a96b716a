/* Slots, the hash that finds them, and the clock. See rowtable_cache.h. */
#include "ps/rowtable_cache.h"

#include "common/err.h"
#include "common/mem.h"

#include <assert.h>
#include <string.h>

enum { SLOTS_MIN = 64, LOOK_AHEAD = 4, FEW = 24 };

#define SLOTS_MAX ((size_t)1 << 30)

/* --- the hash: linear probing, at most half full ---------------------------------------------- */

static size_t mask_of(const struct lh_rowtable_cache *c)
{
    return (SIZE_MAX >> c->hash_shift);
}

static size_t bucket_of(const struct lh_rowtable_cache *c, uint64_t id)
{
    size_t at = lh_rowtable_cache_home(c, id);
    while (c->buckets[at] != LH_ROWTABLE_CACHE_NONE && c->slots[c->buckets[at]].id != id)
        at = (at + 1) & mask_of(c);
    return at;
}

/* Moves back what a row behind the gap had to go around, so that no gap is left in a chain. */
static void unlink_bucket(struct lh_rowtable_cache *c, size_t gap)
{
    const size_t mask = mask_of(c);
    for (size_t at = (gap + 1) & mask; c->buckets[at] != LH_ROWTABLE_CACHE_NONE;
         at = (at + 1) & mask) {
        const size_t home = lh_rowtable_cache_home(c, c->slots[c->buckets[at]].id);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            c->buckets[gap] = c->buckets[at];
            gap = at;
        }
    }
    c->buckets[gap] = LH_ROWTABLE_CACHE_NONE;
}

/* --- life ------------------------------------------------------------------------------------ */

int lh_rowtable_cache_create(struct lh_rowtable_cache **out, size_t bytes, uint32_t dim)
{
    static const char what[] = "cache of a table";
    int rc;
    void *p;
    struct lh_rowtable_cache *c = NULL;
    /* buckets are a power of two, so up to four a slot */
    const size_t each = (size_t)3 * dim * sizeof *c->arrays + sizeof *c->slots + sizeof *c->all +
                        4 * sizeof *c->buckets;
    size_t n = bytes / each, n_buckets = 2 * SLOTS_MIN;
    n = n < SLOTS_MIN ? SLOTS_MIN : n > SLOTS_MAX ? SLOTS_MAX : n;
    LH_TRY(LH_NEW(&c, what));
    c->dim = dim;
    c->n_slots = (uint32_t)n;
    for (c->hash_shift = 64 - 7; n_buckets < 2 * n; c->hash_shift--)
        n_buckets *= 2;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&c->slots, n, what));
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&p, n * 3 * dim, sizeof *c->arrays, what));
    c->arrays = p;
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&p, n_buckets, sizeof *c->buckets, what));
    c->buckets = p;
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&p, n, sizeof *c->all, what));
    c->all = p;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&c->going, LH_ROWTABLE_CACHE_GOING, what));
    c->bytes = n * (each - 4 * sizeof *c->buckets) + n_buckets * sizeof *c->buckets;
    lh_rowtable_cache_clear(c);
    *out = c;
    return 0;
fail:
    lh_rowtable_cache_destroy(&c);
    return rc;
}

void lh_rowtable_cache_destroy(struct lh_rowtable_cache **c)
{
    if (!*c)
        return;
    lh_mem_free((*c)->all);
    lh_mem_free((*c)->going);
    lh_mem_free((*c)->buckets);
    lh_mem_free((*c)->arrays);
    lh_mem_free((*c)->slots);
    lh_mem_free(*c);
    *c = NULL;
}

void lh_rowtable_cache_clear(struct lh_rowtable_cache *c)
{
    if (c->n_taken > 0)
        memset(c->slots, 0, c->n_slots * sizeof *c->slots);
    memset(c->buckets, 0xff, (mask_of(c) + 1) * sizeof *c->buckets);
    c->n_taken = c->hand = 0;
    c->n_changed = c->n_aside = 0;
    c->epoch = 1;
    c->aside = 0;
}

/* --- rows ------------------------------------------------------------------------------------ */

uint32_t lh_rowtable_cache_find(struct lh_rowtable_cache *c, uint64_t id)
{
    const uint32_t slot = c->buckets[bucket_of(c, id)];
    if (slot != LH_ROWTABLE_CACHE_NONE)
        c->slots[slot].used = true;
    return slot;
}

void lh_rowtable_cache_change(struct lh_rowtable_cache *c, uint32_t slot)
{
    assert(!lh_rowtable_cache_is_aside(c, slot));
    c->n_changed += c->slots[slot].changed == 0;
    c->slots[slot].changed = c->epoch;
}

void lh_rowtable_cache_written(struct lh_rowtable_cache *c, uint32_t slot)
{
    c->n_aside -= lh_rowtable_cache_is_aside(c, slot);
    c->n_changed--;
    c->slots[slot].changed = 0;
}

void lh_rowtable_cache_set_aside(struct lh_rowtable_cache *c)
{
    assert(c->n_aside == 0);
    c->aside = c->epoch++;
    c->n_aside = c->n_changed;
}

void lh_rowtable_cache_rejoin(struct lh_rowtable_cache *c)
{
    c->aside = 0;
    c->n_aside = 0;
}

uint32_t lh_rowtable_cache_victim(struct lh_rowtable_cache *c)
{
    while (c->slots[c->hand].taken && c->slots[c->hand].used) {
        c->slots[c->hand].used = false;
        c->hand = c->hand + 1 < c->n_slots ? c->hand + 1 : 0;
    }
    return c->hand;
}

void lh_rowtable_cache_forget(struct lh_rowtable_cache *c, uint32_t slot)
{
    struct lh_rowtable_slot *s = &c->slots[slot];
    assert(s->changed == 0);
    if (!s->taken)
        return;
    unlink_bucket(c, bucket_of(c, s->id));
    s->taken = false;
    c->n_taken--;
}

void lh_rowtable_cache_take(struct lh_rowtable_cache *c, uint32_t slot, uint64_t id)
{
    lh_rowtable_cache_forget(c, slot);
    c->slots[slot] = (struct lh_rowtable_slot){.id = id, .taken = true};
    c->buckets[bucket_of(c, id)] = slot;
    c->n_taken++;
    if (slot == c->hand)
        c->hand = c->hand + 1 < c->n_slots ? c->hand + 1 : 0;
}

/* --- changed rows, in order ------------------------------------------------------------------- */

static void sort_few(struct lh_rowtable_entry *e, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const struct lh_rowtable_entry x = e[i];
        size_t k = i;
        for (; k > 0 && e[k - 1].id > x.id; k--)
            e[k] = e[k - 1];
        e[k] = x;
    }
}

/* By the byte at `shift`, in place, then each part by the next byte: no second array as large as
 * the first, and no bad case. */
static void sort(struct lh_rowtable_entry *e, size_t n, unsigned shift)
{
    size_t begin[257] = {0}, at[256];
    if (n <= FEW) {
        sort_few(e, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        begin[(e[i].id >> shift & 255) + 1]++;
    for (int b = 0; b < 256; b++) {
        begin[b + 1] += begin[b];
        at[b] = begin[b];
    }
    for (int b = 0; b < 256; b++) {
        while (at[b] < begin[b + 1]) {
            const struct lh_rowtable_entry x = e[at[b]];
            const size_t to = x.id >> shift & 255;
            if (to == (size_t)b) {
                at[b]++;
            } else { /* to its place, and what was there comes here */
                e[at[b]] = e[at[to]];
                e[at[to]++] = x;
            }
        }
    }
    for (int b = 0; b < 256 && shift > 0; b++)
        sort(e + begin[b], begin[b + 1] - begin[b], shift - 8);
}

void lh_rowtable_cache_sort(struct lh_rowtable_entry *e, size_t n)
{
    sort(e, n, 56);
}

size_t lh_rowtable_cache_changed(struct lh_rowtable_cache *c)
{
    const size_t most = LH_ROWTABLE_CACHE_GOING;
    const size_t look = most * LOOK_AHEAD < c->n_slots ? most * LOOK_AHEAD : c->n_slots;
    size_t n = 0;
    for (size_t i = 0, at = c->hand; i < look && n < most && n < c->n_changed; i++) {
        const struct lh_rowtable_slot *s = &c->slots[at];
        if (s->changed != 0 && !s->used)
            c->going[n++] = (struct lh_rowtable_entry){s->id, (uint32_t)at};
        at = at + 1 < c->n_slots ? at + 1 : 0;
    }
    sort(c->going, n, 56);
    return n;
}
