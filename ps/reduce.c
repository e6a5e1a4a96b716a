/* The gradient tree of one step. See reduce.h for slots and runs. The invariants:
 *   - where a slot holds a node, it holds the highest known node that begins at its leaf;
 *   - over a run where an ancestor is known, nothing below it is read or taken any more;
 *   - siblings are never both known over one run: they have become their parent. */
#include "ps/reduce.h"

#include "common/bf16.h"
#include "common/err.h"
#include "common/mem.h"

#include <assert.h>
#include <string.h>

enum {
    CHUNK = 4096,       /* elements summed, then checked, while they are in the first-level cache */
    RUNS_AT_FIRST = 64, /* a slot's capacity of runs when made */
    BUFFERS_AT_FIRST = 8 /* made beforehand if they are small, so that a warm step makes none */
};

#define SMALL_BUFFER ((size_t)8 << 20) /* bytes */

/* Frames of the wire begin at any byte. */
typedef float loose_float __attribute__((aligned(1)));

/* From element `at` on, the slot holds level have - 1; 0: nothing. Up to the next run. */
struct run {
    size_t at;
    uint32_t have;
};

struct slot {
    struct run *runs; /* ascending, the first at 0, neighbours differ */
    size_t n, cap;
    float *buffer; /* NULL until something must be stored */
    size_t held;   /* elements in the buffer that may still be read */
};

struct lh_reduce {
    uint32_t leaves, height;
    size_t size;
    size_t rounded;     /* elements before this are bfloat16 */
    struct slot *slots; /* [leaves] */
    float **pool;       /* [leaves] buffers not in use */
    size_t n_pool, n_buffers;
    size_t root_known; /* elements */
    int sound;
};

/* --- runs ------------------------------------------------------------------------------------ */

static size_t find_run(const struct slot *s, size_t at)
{
    size_t lo = 0, hi = s->n;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->runs[mid].at <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* What is held at `at`; *end is where that run ends. */
static uint32_t have_at(const struct lh_reduce *r, const struct slot *s, size_t at, size_t *end)
{
    size_t i = find_run(s, at);
    *end = i + 1 < s->n ? s->runs[i + 1].at : r->size;
    return s->runs[i].have;
}

/* From now on the slot holds `have` over [lo, hi). Capacity for two more runs is reserved. */
static void cover(const struct lh_reduce *r, struct slot *s, size_t lo, size_t hi, uint32_t have)
{
    const size_t i = find_run(s, lo), j = find_run(s, hi - 1);
    const size_t end = j + 1 < s->n ? s->runs[j + 1].at : r->size;
    for (size_t k = i; k <= j; k++) {
        size_t a = s->runs[k].at > lo ? s->runs[k].at : lo;
        size_t b = k < j ? s->runs[k + 1].at : hi;
        if (s->runs[k].have == 0)
            s->held += b - a;
    }
    struct run put[3];
    size_t n_put = 0;
    uint32_t before = i > 0 ? s->runs[i - 1].have : UINT32_MAX;
    const uint32_t after = s->runs[j].have;
    if (s->runs[i].at < lo) {
        put[n_put++] = s->runs[i];
        before = s->runs[i].have;
    }
    if (before != have)
        put[n_put++] = (struct run){lo, have};
    size_t tail = j + 1; /* first run that stays */
    if (hi < end) {
        if (after != have)
            put[n_put++] = (struct run){hi, after};
    } else if (tail < s->n && s->runs[tail].have == have) {
        tail++;
    }
    assert(i + n_put + (s->n - tail) <= s->cap);
    memmove(s->runs + i + n_put, s->runs + tail, (s->n - tail) * sizeof *s->runs);
    memcpy(s->runs + i, put, n_put * sizeof *put);
    s->n = i + n_put + (s->n - tail);
}

/* --- arithmetic ------------------------------------------------------------------------------ */

static void add_into(float *restrict into, const loose_float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        into[i] += from[i];
}

static void add_two(float *restrict out, const loose_float *restrict a, const float *restrict b,
                    size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

/* into += from, of elements that are rounded or not. */
static void add_to(const struct lh_reduce *r, size_t at, float *into, const loose_float *from,
                   size_t n)
{
    if (at < r->rounded)
        lh_bf16_add(into, from, n);
    else
        add_into(into, from, n);
}

static int all_sound(const float *x, size_t n)
{
    uint32_t largest = 0; /* of the magnitudes' bits, which order as the magnitudes do */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x5f800000; /* 2^64 */
}

/* --- the tree -------------------------------------------------------------------------------- */

static int absent(const struct lh_reduce *r, uint32_t level, uint32_t index)
{
    return (uint64_t)index << level >= r->leaves;
}

/* The sum of a node over [lo, hi) is src[0 ..]: goes where it belongs, and as far up as siblings
 * are known. */
static void settle(struct lh_reduce *r, struct lh_tree_node node, size_t lo, size_t hi,
                   const loose_float *src)
{
    struct slot *own = &r->slots[(size_t)node.index << node.level];
    while (node.level < r->height && node.index % 2 == 0 && absent(r, node.level, node.index + 1)) {
        node.level++;
        node.index /= 2;
    }
    const uint32_t have = node.level + 1;
    if (node.level == r->height) {
        if (src != own->buffer + lo) /* else: summed in place */
            memcpy(own->buffer + lo, src, (hi - lo) * sizeof *src);
        r->sound &= all_sound(own->buffer + lo, hi - lo);
        r->root_known += hi - lo;
        cover(r, own, lo, hi, have);
        return;
    }
    struct slot *sibling = &r->slots[(size_t)(node.index ^ 1) << node.level];
    struct slot *left = node.index % 2 ? sibling : own, *right = node.index % 2 ? own : sibling;
    for (size_t at = lo, end; at < hi; at = end) {
        const uint32_t there = have_at(r, sibling, at, &end);
        const loose_float *from = src + (at - lo);
        const int in_place = own->buffer && from == own->buffer + at;
        end = end < hi ? end : hi;
        if (there != have) {
            if (!in_place)
                memcpy(own->buffer + at, from, (end - at) * sizeof *from);
            cover(r, own, at, end, have);
            continue;
        }
        const int stored = right == sibling || in_place; /* in the right one's buffer */
        if (left == sibling)
            add_to(r, at, left->buffer + at, from, end - at);
        else if (in_place)
            add_to(r, at, left->buffer + at, right->buffer + at, end - at);
        else if (at < r->rounded)
            lh_bf16_sum(left->buffer + at, from, right->buffer + at, end - at);
        else
            add_two(left->buffer + at, from, right->buffer + at, end - at);
        if (stored)
            right->held -= end - at;
        cover(r, left, at, end, have + 1);
        settle(r, (struct lh_tree_node){node.level + 1, node.index / 2}, at, end,
               left->buffer + at);
    }
}

/* Whether a node's elements from `at` on are known already, in it or in an ancestor; *end is up to
 * where that answer holds. The ancestors of a slot's nodes lie in it, then in the slots that have
 * its lowest bits cleared one after the other. */
static int known(const struct lh_reduce *r, struct lh_tree_node node, size_t at, size_t *end)
{
    uint32_t slot = node.index << node.level, need = node.level + 1;
    size_t nearest = r->size;
    for (;;) {
        size_t stop = r->size;
        const struct slot *s = &r->slots[slot];
        if (have_at(r, s, at, &stop) >= need) {
            *end = stop;
            return 1;
        }
        nearest = stop < nearest ? stop : nearest;
        if (slot == 0)
            break;
        need = (uint32_t)__builtin_ctz(slot) + 2;
        slot &= slot - 1;
    }
    *end = nearest;
    return 0;
}

/* Whether a piece that is not known would be added to a left sibling right away, and so needs no
 * buffer of its own. */
static int goes_into_sibling(const struct lh_reduce *r, struct lh_tree_node node, size_t first,
                             size_t end)
{
    while (node.level < r->height && node.index % 2 == 0 && absent(r, node.level, node.index + 1)) {
        node.level++;
        node.index /= 2;
    }
    if (node.index % 2 == 0)
        return 0;
    const struct slot *left = &r->slots[(size_t)(node.index ^ 1) << node.level];
    for (size_t at = first, stop; at < end; at = stop) {
        if (have_at(r, left, at, &stop) < node.level + 1)
            return 0;
    }
    return 1;
}

/* Takes what lh_reduce_add may need, so that it cannot fail half-way: the node's buffer, and runs.
 * Every boundary a slot can get is one that some slot of the path has, or an end of the piece. */
static int reserve(struct lh_reduce *r, struct lh_tree_node node, int buffer)
{
    size_t need = 4; /* the piece's ends, and one where it is cut into chunks */
    for (struct lh_tree_node x = node; x.level <= r->height; x.level++, x.index /= 2) {
        need += r->slots[(size_t)x.index << x.level].n;
        if (x.level < r->height && !absent(r, x.level, x.index ^ 1))
            need += r->slots[(size_t)(x.index ^ 1) << x.level].n;
    }
    for (struct lh_tree_node x = node; x.level <= r->height; x.level++, x.index /= 2) {
        struct slot *s = &r->slots[(size_t)x.index << x.level];
        LH_TRY(LH_GROW(&s->runs, &s->cap, need, "gradient tree"));
    }
    struct slot *own = &r->slots[(size_t)node.index << node.level];
    if (!buffer || own->buffer)
        return 0;
    if (r->n_pool == 0) {
        void *fresh = NULL;
        LH_TRY(lh_mem_alloc_aligned(&fresh, r->size, sizeof(float), "gradient tree"));
        r->n_buffers++;
        r->pool[r->n_pool++] = fresh;
    }
    own->buffer = r->pool[--r->n_pool];
    own->held = 0;
    return 0;
}

/* Gives back the buffers of the path that nothing will read again. */
static void tidy(struct lh_reduce *r, struct lh_tree_node node)
{
    for (; node.level < r->height; node.level++, node.index /= 2) {
        for (int side = 0; side < 2; side++) {
            uint32_t index = node.index ^ (uint32_t)side;
            if (index == 0 || absent(r, node.level, index))
                continue;
            struct slot *s = &r->slots[(size_t)index << node.level];
            if (s->buffer && s->held == 0) {
                r->pool[r->n_pool++] = s->buffer;
                s->buffer = NULL;
            }
        }
    }
}

/* A chunk of what arrived, as floats; `wide` is room for those that are bfloat16. */
static const loose_float *floats_of(const struct lh_reduce *r, size_t at, const void *data,
                                    size_t skip, size_t n, float wide[CHUNK])
{
    if (at >= r->rounded)
        return (const loose_float *)data + skip;
    lh_bf16_unpack(wide, (const unsigned char *)data + skip * sizeof(uint16_t), n);
    return wide;
}

int lh_reduce_add(struct lh_reduce *r, struct lh_tree_node node, size_t first, size_t n,
                  const void *data)
{
    assert(lh_tree_has(r->leaves, node) && n > 0 && first < r->size && n <= r->size - first);
    assert(first >= r->rounded || first + n <= r->rounded);
    const size_t hi = first + n;
    float wide[CHUNK];
    size_t end = first, from = first;
    while (from < hi && known(r, node, from, &end))
        from = end;
    if (from >= hi)
        return LH_AGAIN;
    LH_TRY(reserve(r, node, !goes_into_sibling(r, node, first, hi)));
    for (size_t at = from; at < hi; at = end) {
        int old = known(r, node, at, &end);
        end = end < hi ? end : hi;
        for (size_t a = at, b; !old && a < end; a = b) {
            b = end - a > CHUNK ? a + CHUNK : end;
            settle(r, node, a, b, floats_of(r, a, data, a - first, b - a, wide));
        }
    }
    tidy(r, node);
    return 0;
}

const float *lh_reduce_root(const struct lh_reduce *r)
{
    return r->root_known == r->size ? r->slots[0].buffer : NULL;
}

int lh_reduce_sound(const struct lh_reduce *r)
{
    return r->sound;
}

enum lh_reduce_leaf lh_reduce_leaf(const struct lh_reduce *r, uint32_t leaf)
{
    int some = 0, all = 1;
    for (size_t at = 0, end; at < r->size; at = end) {
        int here = known(r, (struct lh_tree_node){0, leaf}, at, &end);
        some |= here;
        all &= here;
    }
    return all ? LH_REDUCE_THERE : some ? LH_REDUCE_PARTLY : LH_REDUCE_MISSING;
}

void lh_reduce_reset(struct lh_reduce *r)
{
    for (uint32_t i = 0; i < r->leaves; i++) {
        struct slot *s = &r->slots[i];
        s->runs[0] = (struct run){0, 0};
        s->n = 1;
        s->held = 0;
        if (s->buffer)
            r->pool[r->n_pool++] = s->buffer;
        s->buffer = NULL;
    }
    r->root_known = 0;
    r->sound = 1;
}

size_t lh_reduce_bytes(const struct lh_reduce *r)
{
    return r->n_buffers * r->size * sizeof(float);
}

void lh_reduce_round(struct lh_reduce *r, size_t n)
{
    assert(n <= r->size);
    r->rounded = n;
}

int lh_reduce_create(struct lh_reduce **out, uint32_t leaves, size_t size)
{
    int rc;
    struct lh_reduce *r = NULL;
    assert(leaves > 0 && size > 0);
    LH_TRY(LH_NEW(&r, "gradient tree"));
    *r = (struct lh_reduce){.leaves = leaves, .height = lh_tree_height(leaves), .size = size};
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->slots, leaves, "gradient tree"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->pool, leaves, "gradient tree"));
    for (uint32_t i = 0; i < leaves; i++)
        LH_TRY_TO(fail,
                  LH_GROW(&r->slots[i].runs, &r->slots[i].cap, RUNS_AT_FIRST, "gradient tree"));
    const size_t at_first = size <= SMALL_BUFFER / sizeof(float) ? BUFFERS_AT_FIRST : 1;
    while (r->n_buffers < at_first && r->n_buffers < leaves) {
        void *fresh = NULL;
        LH_TRY_TO(fail, lh_mem_alloc_aligned(&fresh, size, sizeof(float), "gradient tree"));
        r->pool[r->n_pool++] = fresh;
        r->n_buffers++;
    }
    lh_reduce_reset(r);
    *out = r;
    return 0;
fail:
    lh_reduce_destroy(&r);
    return rc;
}

void lh_reduce_destroy(struct lh_reduce **r)
{
    if (!*r)
        return;
    for (uint32_t i = 0; (*r)->slots && i < (*r)->leaves; i++) {
        lh_mem_free((*r)->slots[i].runs);
        lh_mem_free((*r)->slots[i].buffer);
    }
    for (size_t i = 0; i < (*r)->n_pool; i++)
        lh_mem_free((*r)->pool[i]);
    lh_mem_free((*r)->pool);
    lh_mem_free((*r)->slots);
    lh_mem_free(*r);
    *r = NULL;
}
