/* Leaves that were given to idle workers, and when. Where the late worker stands in its share is
 * not known: it works from the front, so it is helped from the end. */
#include "ps/takeover.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/reduce.h"

#define NEVER (-1.0)

struct lh_takeover {
    uint64_t step;
    uint32_t leaves;
    double *given; /* [leaves] when; NEVER */
};

static void forget(struct lh_takeover *t, uint64_t step)
{
    t->step = step;
    for (uint32_t i = 0; i < t->leaves; i++)
        t->given[i] = NEVER;
}

int lh_takeover_create(struct lh_takeover **out, uint32_t leaves)
{
    struct lh_takeover *t = NULL;
    LH_TRY(LH_NEW(&t, "takeover"));
    t->leaves = leaves;
    int rc = LH_NEW_ARRAY(&t->given, leaves, "takeover");
    if (rc < 0) {
        lh_takeover_destroy(&t);
        return rc;
    }
    forget(t, UINT64_MAX);
    *out = t;
    return 0;
}

void lh_takeover_destroy(struct lh_takeover **t)
{
    if (!*t)
        return;
    lh_mem_free((*t)->given);
    lh_mem_free(*t);
    *t = NULL;
}

static bool is_free(const struct lh_takeover *t, const struct lh_takeover_ask *ask, bool again,
                    uint32_t leaf)
{
    if (t->given[leaf] != NEVER && !(again && ask->now - t->given[leaf] > ask->late))
        return false;
    enum lh_reduce_leaf has = lh_reduce_leaf(ask->tree, leaf);
    return has == LH_REDUCE_MISSING || (has == LH_REDUCE_PARTLY && ask->partly);
}

/* Leaves of a node: [first, end). */
static void span(const struct lh_takeover *t, struct lh_tree_node node, uint32_t *first,
                 uint32_t *end)
{
    uint64_t behind = (uint64_t)(node.index + 1) << node.level;
    *first = node.index << node.level;
    *end = behind < t->leaves ? (uint32_t)behind : t->leaves;
}

/* The largest node that ends before leaf `end` and has at most `most` leaves. */
static struct lh_tree_node last_node(const struct lh_takeover *t, uint32_t end, uint32_t most)
{
    struct lh_tree_node node = {.index = end - 1};
    for (;;) {
        struct lh_tree_node up = {.level = node.level + 1, .index = node.index / 2};
        uint32_t from, to;
        if (up.level > lh_tree_height(t->leaves))
            return node;
        span(t, up, &from, &to);
        if (to != end || to - from > most)
            return node;
        node = up;
    }
}

static bool give(struct lh_takeover *t, const struct lh_takeover_ask *ask, bool again,
                 struct lh_tree_node *out)
{
    uint32_t end = t->leaves, first, behind;
    while (end > 0 && !is_free(t, ask, again, end - 1))
        end--;
    if (end == 0)
        return false;
    first = end;
    while (first > 0 && is_free(t, ask, again, first - 1))
        first--;
    *out = last_node(t, end, (end - first + 1) / 2);
    span(t, *out, &first, &behind);
    for (; first < behind; first++)
        t->given[first] = ask->now;
    return true;
}

bool lh_takeover_give(struct lh_takeover *t, const struct lh_takeover_ask *ask,
                      struct lh_tree_node *out)
{
    if (t->step != ask->step)
        forget(t, ask->step);
    return give(t, ask, false, out) || give(t, ask, true, out);
}
