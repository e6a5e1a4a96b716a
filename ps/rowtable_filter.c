/* Blocks of eight words of 32 bits, one bit of each for an id. See rowtable_filter.h. */
#include "ps/rowtable_filter.h"

#include "common/mem.h"

enum {
    WORDS = 8,
    ID_BITS = 10,     /* of a filter, an id */
    FIRST_IDS = 4096, /* of the first part, where nobody knows how many will come */
    PARTS = 32
};

struct block {
    uint32_t words[WORDS];
};

struct part {
    struct block *blocks;
    size_t n_blocks, ids, most; /* ids it has, and should have */
};

struct lh_rowtable_filter {
    struct lh_rowtable_filter_room *room;
    struct part parts[PARTS];
    size_t n_parts;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9u;
    return x ^ (x >> 32);
}

static struct block *block_of(const struct part *p, uint64_t hash)
{
    return &p->blocks[(size_t)(((unsigned __int128)hash * p->n_blocks) >> 64)];
}

/* The bit of word k. */
static uint32_t bit_of(uint64_t hash, unsigned k)
{
    static const uint32_t odd[WORDS] = {0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d,
                                        0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
    return UINT32_C(1) << ((uint32_t)hash * odd[k] >> 27);
}

static bool part_has(const struct part *p, uint64_t hash)
{
    const struct block *b = block_of(p, hash);
    uint32_t missing = 0;
    for (unsigned k = 0; k < WORDS; k++)
        missing |= ~b->words[k] & bit_of(hash, k);
    return missing == 0;
}

static bool take_room(struct lh_rowtable_filter_room *room, size_t bytes)
{
    size_t left = atomic_load(&room->left);
    while (left >= bytes)
        if (atomic_compare_exchange_weak(&room->left, &left, left - bytes))
            return true;
    return false;
}

static bool grow(struct lh_rowtable_filter *f, size_t ids)
{
    struct part *p = &f->parts[f->n_parts];
    const size_t n = ids / (8 * sizeof(struct block) / ID_BITS) + 1;
    if (f->n_parts == PARTS || !take_room(f->room, n * sizeof(struct block)))
        return false;
    if (LH_NEW_ARRAY(&p->blocks, n, "filter of a table's file") < 0) {
        atomic_fetch_add(&f->room->left, n * sizeof(struct block));
        return false;
    }
    p->n_blocks = n;
    p->ids = 0;
    p->most = ids;
    f->n_parts++;
    return true;
}

struct lh_rowtable_filter *lh_rowtable_filter_create(struct lh_rowtable_filter_room *room, size_t n)
{
    struct lh_rowtable_filter *f = NULL;
    if (LH_NEW(&f, "filter of a table's file") < 0)
        return NULL;
    f->room = room;
    if (!grow(f, n > 0 ? n : FIRST_IDS))
        lh_rowtable_filter_destroy(&f);
    return f;
}

void lh_rowtable_filter_destroy(struct lh_rowtable_filter **out)
{
    struct lh_rowtable_filter *f = *out;
    if (!f)
        return;
    for (size_t i = 0; i < f->n_parts; i++) {
        atomic_fetch_add(&f->room->left, f->parts[i].n_blocks * sizeof(struct block));
        lh_mem_free(f->parts[i].blocks);
    }
    lh_mem_free(f);
    *out = NULL;
}

void lh_rowtable_filter_add(struct lh_rowtable_filter **out, uint64_t id)
{
    struct lh_rowtable_filter *f = *out;
    if (!f || lh_rowtable_filter_may_have(f, id))
        return;
    if (f->parts[f->n_parts - 1].ids == f->parts[f->n_parts - 1].most) {
        size_t ids = 0;
        for (size_t i = 0; i < f->n_parts; i++)
            ids += 3 * f->parts[i].most;
        if (!grow(f, ids)) {
            lh_rowtable_filter_destroy(out);
            return;
        }
    }
    const uint64_t hash = mix(id);
    struct part *p = &f->parts[f->n_parts - 1];
    struct block *b = block_of(p, hash);
    for (unsigned k = 0; k < WORDS; k++)
        b->words[k] |= bit_of(hash, k);
    p->ids++;
}

bool lh_rowtable_filter_may_have(const struct lh_rowtable_filter *f, uint64_t id)
{
    const uint64_t hash = mix(id);
    for (size_t i = f->n_parts; i > 0; i--)
        if (part_has(&f->parts[i - 1], hash))
            return true;
    return false;
}
