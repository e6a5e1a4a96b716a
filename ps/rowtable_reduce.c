/* The gradient tree of one step of a table. See rowtable_reduce.h. A node fills with pieces, is
 * whole, and, when its sibling is whole too, is merged with it into their parent. The invariants:
 *   - where a node is whole or merged, nothing below it holds memory, or is taken any more;
 *   - siblings are both whole only while memory for their parent cannot be had. */
#include "ps/rowtable_reduce.h"

#include "common/err.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>

enum { SPANS_AT_FIRST = 8, ROWS_AT_FIRST = 64 };

struct buffer {
    uint64_t *ids;
    float *values;
    size_t cap; /* rows */
};

enum state { EMPTY, FILLING, WHOLE, MERGED };

struct span {
    uint64_t lo, hi;
};

struct node {
    enum state state;
    uint64_t total;     /* rows, from FILLING on */
    struct span *spans; /* of a filling one: what is there; ascending, not touching */
    size_t n_spans, cap_spans;
    struct buffer rows; /* of a filling or whole one */
};

struct lh_rowtable_reduce {
    uint32_t leaves, height, dim;
    size_t max_ids, bytes;
    struct node *nodes;  /* [2 << height], by number() */
    struct buffer *pool; /* [2 << height] not in use */
    size_t n_pool;
    int unsettled;              /* memory ran out when this node was to be merged: */
    struct lh_tree_node settle; /* it is tried again */
    struct lh_rowlist root;     /* once node 1 is whole */
};

/* --- nodes ----------------------------------------------------------------------------------- */

/* The root is 1, the children of x are 2 x and 2 x + 1. */
static size_t number(const struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    return ((size_t)1 << (r->height - x.level)) + x.index;
}

static struct node *node_at(const struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    return &r->nodes[number(r, x)];
}

static int absent(const struct lh_rowtable_reduce *r, uint32_t level, uint32_t index)
{
    return (uint64_t)index << level >= r->leaves;
}

/* A node without a sibling is its parent. */
static struct lh_tree_node promoted(const struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    while (x.level < r->height && x.index % 2 == 0 && absent(r, x.level, x.index + 1)) {
        x.level++;
        x.index /= 2;
    }
    return x;
}

static int known(const struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    for (size_t i = number(r, x); i > 0; i /= 2) {
        if (r->nodes[i].state >= WHOLE)
            return 1;
    }
    return 0;
}

/* --- buffers --------------------------------------------------------------------------------- */

static void give_back(struct lh_rowtable_reduce *r, struct buffer *b)
{
    if (b->cap > 0)
        r->pool[r->n_pool++] = *b;
    *b = (struct buffer){0};
}

/* Capacities are powers of two: then few sizes are asked for, and the pool soon has them all. */
static int grow(struct lh_rowtable_reduce *r, struct buffer *b, size_t rows)
{
    static const char what[] = "gradient tree of a table";
    size_t cap = b->cap > 0 ? b->cap : ROWS_AT_FIRST;
    if (rows <= b->cap)
        return 0;
    while (cap < rows)
        cap *= 2;
    LH_TRY(lh_mem_realloc((void **)&b->ids, cap, sizeof *b->ids, what));
    LH_TRY(lh_mem_realloc((void **)&b->values, cap * r->dim, sizeof *b->values, what));
    r->bytes += (cap - b->cap) * (sizeof *b->ids + r->dim * sizeof *b->values);
    b->cap = cap;
    return 0;
}

/* The smallest that is large enough; else the largest, grown. */
static int take(struct lh_rowtable_reduce *r, size_t rows, struct buffer *out)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < r->n_pool; i++) {
        const size_t cap = r->pool[i].cap, have = best == SIZE_MAX ? 0 : r->pool[best].cap;
        if (best == SIZE_MAX || (cap >= rows ? have < rows || cap < have : cap > have))
            best = i;
    }
    struct buffer fresh = {0}, *b = best == SIZE_MAX ? &fresh : &r->pool[best];
    int rc = grow(r, b, rows);
    if (rc < 0) {
        if (b == &fresh) {
            lh_mem_free(fresh.ids);
            lh_mem_free(fresh.values);
        }
        return rc;
    }
    *out = *b;
    if (b != &fresh)
        *b = r->pool[--r->n_pool];
    return 0;
}

static void forget(struct lh_rowtable_reduce *r, struct node *x, enum state state)
{
    give_back(r, &x->rows);
    x->n_spans = 0;
    x->state = state;
}

/* --- the tree -------------------------------------------------------------------------------- */

/* Nothing below a whole node is needed. */
static void forget_below(struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    size_t lo = number(r, x), n = 1;
    while (x.level-- > 0) {
        lo *= 2;
        n *= 2;
        for (size_t i = lo; i < lo + n; i++)
            forget(r, &r->nodes[i], EMPTY);
    }
}

static struct lh_rowlist list_of(const struct node *x)
{
    return (struct lh_rowlist){(size_t)x->total, x->rows.ids, x->rows.values};
}

/* A whole node, promoted, becomes part of its parent, as far up as siblings are whole. */
static int settle(struct lh_rowtable_reduce *r, struct lh_tree_node x)
{
    while (x.level < r->height) {
        struct node *left = node_at(r, (struct lh_tree_node){x.level, x.index & ~1u});
        struct node *right = node_at(r, (struct lh_tree_node){x.level, x.index | 1u});
        const struct lh_tree_node up = promoted(r, (struct lh_tree_node){x.level + 1, x.index / 2});
        struct node *parent = node_at(r, up);
        if (left->state != WHOLE || right->state != WHOLE)
            return 0;
        const struct lh_rowlist a = list_of(left), b = list_of(right);
        struct buffer rows;
        r->unsettled = 1;
        r->settle = x;
        LH_TRY(take(r, a.n + b.n, &rows));
        r->unsettled = 0;
        forget(r, parent, WHOLE);
        parent->rows = rows;
        parent->total = lh_rowlist_add(&a, &b, r->dim, rows.ids, rows.values);
        forget(r, left, MERGED);
        forget(r, right, MERGED);
        x = up;
    }
    r->root = list_of(&r->nodes[1]);
    return 0;
}

/* Whether all of [lo, hi) is there. */
static int covered(const struct node *x, uint64_t lo, uint64_t hi)
{
    for (size_t i = 0; i < x->n_spans; i++) {
        if (x->spans[i].lo <= lo && hi <= x->spans[i].hi)
            return 1;
    }
    return 0;
}

/* Room for one more span is there. */
static void cover(struct node *x, struct span add)
{
    size_t i = 0, j;
    while (i < x->n_spans && x->spans[i].hi < add.lo)
        i++;
    for (j = i; j < x->n_spans && x->spans[j].lo <= add.hi; j++) {
        add.lo = x->spans[j].lo < add.lo ? x->spans[j].lo : add.lo;
        add.hi = x->spans[j].hi > add.hi ? x->spans[j].hi : add.hi;
    }
    memmove(x->spans + i + 1, x->spans + j, (x->n_spans - j) * sizeof *x->spans);
    x->spans[i] = add;
    x->n_spans = x->n_spans - (j - i) + 1;
}

static int check(const struct lh_rowtable_reduce *r, struct lh_tree_node at,
                 const struct lh_rowtable_piece *p)
{
    if (!lh_tree_has(r->leaves, at))
        return lh_err_set(LH_EPROTO, "rows of node (%u, %u), but a step has %u micro-batches",
                          at.level, at.index, r->leaves);
    if (p->total > r->max_ids || p->first > p->total || p->n > p->total - p->first ||
        (p->n == 0 && p->total > 0))
        return lh_err_set(LH_EPROTO,
                          "%zu rows from row %" PRIu64 " on, of %" PRIu64
                          "; a step has %zu ids at most",
                          p->n, p->first, p->total, r->max_ids);
    if (!lh_rowlist_ascends(p->ids, p->n))
        return lh_err_set(LH_EPROTO, "rows whose ids do not ascend");
    return 0;
}

/* Copies a piece to its place. */
static int fill(struct lh_rowtable_reduce *r, struct node *x, const struct lh_rowtable_piece *p)
{
    if (x->state == FILLING && x->total != p->total)
        return lh_err_set(LH_EPROTO, "rows of a list of %" PRIu64 ", which had %" PRIu64 " before",
                          p->total, x->total);
    LH_TRY(LH_GROW(&x->spans, &x->cap_spans, x->n_spans + 1, "gradient tree of a table"));
    if (x->state == EMPTY)
        LH_TRY(take(r, (size_t)p->total, &x->rows));
    x->state = FILLING;
    x->total = p->total;
    if (p->n == 0)
        return 0;
    memcpy(x->rows.ids + p->first, p->ids, p->n * sizeof *x->rows.ids);
    memcpy(x->rows.values + p->first * r->dim, p->values, p->n * r->dim * sizeof *x->rows.values);
    cover(x, (struct span){p->first, p->first + p->n});
    return 0;
}

int lh_rowtable_reduce_add(struct lh_rowtable_reduce *r, struct lh_tree_node node,
                           const struct lh_rowtable_piece *p)
{
    LH_TRY(check(r, node, p));
    if (r->unsettled)
        LH_TRY(settle(r, r->settle));
    node = promoted(r, node);
    struct node *x = node_at(r, node);
    if (known(r, node) ||
        (x->state == FILLING && x->total == p->total && covered(x, p->first, p->first + p->n)))
        return LH_AGAIN;
    LH_TRY(fill(r, x, p));
    if (x->total > 0 && !covered(x, 0, x->total))
        return 0;
    if (!lh_rowlist_ascends(x->rows.ids, (size_t)x->total)) {
        forget(r, x, EMPTY);
        return lh_err_set(LH_EPROTO, "rows whose ids do not ascend from piece to piece");
    }
    x->state = WHOLE;
    forget_below(r, node);
    return settle(r, node);
}

const struct lh_rowlist *lh_rowtable_reduce_root(const struct lh_rowtable_reduce *r)
{
    return r->nodes[1].state == WHOLE ? &r->root : NULL;
}

enum lh_reduce_leaf lh_rowtable_reduce_leaf(const struct lh_rowtable_reduce *r, uint32_t leaf)
{
    const struct lh_tree_node x = {0, leaf};
    if (known(r, x))
        return LH_REDUCE_THERE;
    for (size_t i = number(r, x); i > 0; i /= 2) {
        if (r->nodes[i].state == FILLING)
            return LH_REDUCE_PARTLY;
    }
    return LH_REDUCE_MISSING;
}

void lh_rowtable_reduce_reset(struct lh_rowtable_reduce *r)
{
    for (size_t i = 1; i < (size_t)2 << r->height; i++)
        forget(r, &r->nodes[i], EMPTY);
    r->unsettled = 0;
}

size_t lh_rowtable_reduce_bytes(const struct lh_rowtable_reduce *r)
{
    return r->bytes;
}

int lh_rowtable_reduce_create(struct lh_rowtable_reduce **out,
                              const struct lh_rowtable_reduce_spec *spec)
{
    int rc;
    struct lh_rowtable_reduce *r = NULL;
    const size_t nodes = (size_t)2 << lh_tree_height(spec->leaves > 0 ? spec->leaves : 1);
    if (spec->leaves == 0 || spec->dim == 0 || spec->max_ids == 0)
        return lh_err_set(LH_ERANGE, "%u micro-batches, rows of %u elements, %zu ids: empty",
                          spec->leaves, spec->dim, spec->max_ids);
    LH_TRY(LH_NEW(&r, "gradient tree of a table"));
    r->leaves = spec->leaves;
    r->height = lh_tree_height(spec->leaves);
    r->dim = spec->dim;
    r->max_ids = spec->max_ids;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->nodes, nodes, "gradient tree of a table"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->pool, nodes, "gradient tree of a table"));
    for (size_t i = 1; i < nodes; i++)
        LH_TRY_TO(fail, LH_GROW(&r->nodes[i].spans, &r->nodes[i].cap_spans, SPANS_AT_FIRST,
                                "gradient tree of a table"));
    *out = r;
    return 0;
fail:
    lh_rowtable_reduce_destroy(&r);
    return rc;
}

void lh_rowtable_reduce_destroy(struct lh_rowtable_reduce **out)
{
    struct lh_rowtable_reduce *r = *out;
    if (!r)
        return;
    for (size_t i = 1; r->nodes && i < (size_t)2 << r->height; i++) {
        lh_mem_free(r->nodes[i].spans);
        lh_mem_free(r->nodes[i].rows.ids);
        lh_mem_free(r->nodes[i].rows.values);
    }
    for (size_t i = 0; i < r->n_pool; i++) {
        lh_mem_free(r->pool[i].ids);
        lh_mem_free(r->pool[i].values);
    }
    lh_mem_free(r->pool);
    lh_mem_free(r->nodes);
    lh_mem_free(r);
    *out = NULL;
}
