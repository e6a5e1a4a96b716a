/* The rows of a table that are in memory: a fixed number of slots, found by id through an open-
 * addressing hash, taken again in the order of a clock: the hand passes over a slot that was used
 * since it came by last. A row enters unused, so what is asked for once goes before what is asked
 * for again. Knows nothing of files: who takes a slot looks whether its row is changed.
 *
 * All rows that are changed at one moment can be set aside: from then on they are told apart from
 * what changes later, by the epoch in which they did, without a look at any of them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_ROWTABLE_CACHE_NONE UINT32_MAX

enum { LH_ROWTABLE_CACHE_GOING = 2048 }; /* rows that make room together */

struct lh_rowtable_slot {
    uint64_t id, last; /* as struct lh_rowtable_record (rowtable_block.h) has them */
    uint32_t seen, updates;
    uint32_t changed; /* in which epoch it was last; 0: it is as it was written */
    bool taken;       /* holds a row */
    bool used;        /* since the hand came by */
};

struct lh_rowtable_entry {
    uint64_t id;
    uint32_t slot;
};

struct lh_rowtable_cache {
    uint32_t n_slots, n_taken, hand, dim;
    unsigned hash_shift;
    uint32_t epoch, aside;     /* now; that in which the changes set aside end, 0: none are */
    size_t n_changed, n_aside; /* rows; those set aside are among both */
    size_t bytes;
    struct lh_rowtable_slot *slots;  /* [n_slots] */
    float *arrays;                   /* [n_slots, 3, dim]: w, m, v */
    uint32_t *buckets;               /* [2^(64 - hash_shift)] slots; NONE: empty */
    struct lh_rowtable_entry *going; /* what has to make room next */
    struct lh_rowtable_entry *all;   /* [n_slots] room for rowtable_aside.h */
};

/* As many slots as fit in `bytes` with all that belongs to them; at least 64. Errors: LH_ENOMEM. */
int lh_rowtable_cache_create(struct lh_rowtable_cache **out, size_t bytes, uint32_t dim);
void lh_rowtable_cache_destroy(struct lh_rowtable_cache **c);
void lh_rowtable_cache_clear(struct lh_rowtable_cache *c);

/* Where the search for an id begins. */
static inline size_t lh_rowtable_cache_home(const struct lh_rowtable_cache *c, uint64_t id)
{
    id = (id ^ (id >> 32)) * 0xD6E8FEB86659FD93u;
    return (size_t)((id ^ (id >> 29)) * 0x9E3779B97F4A7C15u >> c->hash_shift);
}

/* For a loop over n ids that is at i and uses the first `bytes` of each row: fetches what finds a
 * row some turns before the row, since each step of the way is a miss of the processor's caches. */
static inline void lh_rowtable_cache_ahead(const struct lh_rowtable_cache *c, const uint64_t *ids,
                                           size_t i, size_t n, size_t bytes)
{
    enum { FAR = 24, NEAR = 12, LINE = 64, MOST = 12 * LINE };
    if (i + FAR < n)
        __builtin_prefetch(&c->buckets[lh_rowtable_cache_home(c, ids[i + FAR])]);
    if (i + NEAR >= n)
        return;
    const uint32_t slot = c->buckets[lh_rowtable_cache_home(c, ids[i + NEAR])];
    if (slot == LH_ROWTABLE_CACHE_NONE)
        return;
    const char *arrays = (const char *)(c->arrays + (size_t)slot * 3 * c->dim);
    __builtin_prefetch(&c->slots[slot], 1);
    for (size_t at = 0; at < bytes && at < MOST; at += LINE)
        __builtin_prefetch(arrays + at);
}

/* The slot of a row, marked as used, or NONE. */
uint32_t lh_rowtable_cache_find(struct lh_rowtable_cache *c, uint64_t id);
static inline float *lh_rowtable_cache_arrays(const struct lh_rowtable_cache *c, uint32_t slot)
{
    return c->arrays + (size_t)slot * 3 * c->dim;
}
void lh_rowtable_cache_change(struct lh_rowtable_cache *c, uint32_t slot); /* marks it as changed */
/* Its row, which is changed, is written, or copied. */
void lh_rowtable_cache_written(struct lh_rowtable_cache *c, uint32_t slot);

/* The slot that is to be taken next; stays the same until it is taken. */
uint32_t lh_rowtable_cache_victim(struct lh_rowtable_cache *c);
/* Puts another row there, unused and unchanged; what was there, unchanged too, is forgotten. */
void lh_rowtable_cache_take(struct lh_rowtable_cache *c, uint32_t slot, uint64_t id);
/* Forgets an unchanged row. */
void lh_rowtable_cache_forget(struct lh_rowtable_cache *c, uint32_t slot);

/* Changed rows that the hand comes to next, the victim first, by id, in c->going until the next
 * call. Returns how many: LH_ROWTABLE_CACHE_GOING at most. */
size_t lh_rowtable_cache_changed(struct lh_rowtable_cache *c);

/* Sets all changed rows aside; none is yet. */
void lh_rowtable_cache_set_aside(struct lh_rowtable_cache *c);
/* Those that were and are not written yet are changed like others again. */
void lh_rowtable_cache_rejoin(struct lh_rowtable_cache *c);
static inline bool lh_rowtable_cache_is_aside(const struct lh_rowtable_cache *c, uint32_t slot)
{
    return c->slots[slot].changed != 0 && c->slots[slot].changed <= c->aside;
}

void lh_rowtable_cache_sort(struct lh_rowtable_entry *e, size_t n); /* by id */
