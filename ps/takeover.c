/* Leaves, whose they are, and which of them were given to idle workers. */
#include "ps/takeover.h"

#include "common/err.h"
#include "common/mem.h"

#define NEVER (-1.0)
#define OVERDUE                                                                                    \
    0.5 /* times what its share takes who asks: then a worker is no more as fast as it was */
#define AGAIN 2.0  /* likewise: then what was given is given again */
#define GAIN  0.75 /* of what is left to do: less than that is worth doing twice */

struct leaf {
    uint32_t owner; /* whose share it was in last; 0: not known */
    double pace;    /* the owner's, seconds a leaf; 0: not known */
    uint32_t helper;
    double given; /* to the helper, when; NEVER */
};

struct lh_takeover {
    uint64_t step;
    uint32_t leaves;
    struct leaf *leaf; /* [leaves] */
};

/* Leaves that nobody has, of one worker. */
struct run {
    uint32_t first, end, before; /* before: leaves of its share in front of them */
    double left;                 /* seconds until it has computed them all */
};

static void begin_step(struct lh_takeover *t, uint64_t step)
{
    if (t->step == step)
        return;
    t->step = step;
    for (uint32_t i = 0; i < t->leaves; i++)
        t->leaf[i].given = NEVER;
}

int lh_takeover_create(struct lh_takeover **out, uint32_t leaves)
{
    struct lh_takeover *t = NULL;
    LH_TRY(LH_NEW(&t, "takeover"));
    t->leaves = leaves;
    int rc = LH_NEW_ARRAY(&t->leaf, leaves, "takeover");
    if (rc < 0) {
        lh_takeover_destroy(&t);
        return rc;
    }
    begin_step(t, UINT64_MAX);
    *out = t;
    return 0;
}

void lh_takeover_destroy(struct lh_takeover **t)
{
    if (!*t)
        return;
    lh_mem_free((*t)->leaf);
    lh_mem_free(*t);
    *t = NULL;
}

/* Leaves of a node: [first, end). */
static void span(const struct lh_takeover *t, struct lh_tree_node node, uint32_t *first,
                 uint32_t *end)
{
    uint64_t behind = (uint64_t)(node.index + 1) << node.level;
    *first = node.index << node.level;
    *end = behind < t->leaves ? (uint32_t)behind : t->leaves;
}

void lh_takeover_came(struct lh_takeover *t, uint64_t step, struct lh_tree_node node,
                      uint32_t worker, double pace)
{
    uint32_t i, end;
    begin_step(t, step);
    for (span(t, node, &i, &end); i < end; i++) {
        struct leaf *l = &t->leaf[i];
        if (l->given != NEVER && l->helper == worker)
            continue;
        l->owner = worker;
        l->pace = pace;
    }
}

static bool is_free(const struct lh_takeover *t, const struct lh_takeover_ask *ask, bool again,
                    uint32_t leaf)
{
    const double given = t->leaf[leaf].given;
    if (given != NEVER && !(again && ask->now - given > AGAIN * ask->usual))
        return false;
    enum lh_reduce_leaf has = ask->has(ask->of, leaf);
    return has == LH_REDUCE_MISSING || (has == LH_REDUCE_PARTLY && ask->partly);
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

/* How long the owner of a run needs yet. If it should be done, it is slower than it was: as slow as
 * if it were half through. */
static double left_of(struct lh_takeover *t, const struct lh_takeover_ask *ask, struct run *r)
{
    const uint32_t owner = t->leaf[r->first].owner, all = r->before + r->end - r->first;
    double pace = t->leaf[r->first].pace;
    const double over = ask->passed - pace * all;
    if (over > OVERDUE * ask->usual && (pace > 0 || ask->passed > (1 + OVERDUE) * ask->usual)) {
        pace = 2 * ask->passed / all;
        for (uint32_t i = 0; i < t->leaves; i++)
            if (t->leaf[i].owner == owner)
                t->leaf[i].pace = pace;
    }
    return pace * all - ask->passed;
}

/* The run of which most is left to do; false if there is none. */
static bool latest_run(struct lh_takeover *t, const struct lh_takeover_ask *ask, bool again,
                       struct run *out)
{
    bool any = false;
    for (uint32_t i = 0, end; i < t->leaves; i = end) {
        const uint32_t owner = t->leaf[i].owner;
        end = i + 1;
        if (!is_free(t, ask, again, i))
            continue;
        while (end < t->leaves && t->leaf[end].owner == owner && is_free(t, ask, again, end))
            end++;
        struct run r = {.first = i, .end = end};
        for (uint32_t k = 0; k < i; k++)
            r.before += owner != 0 && t->leaf[k].owner == owner;
        r.left = left_of(t, ask, &r);
        if (r.left > 0 && (!any || r.left > out->left))
            *out = r;
        any = any || r.left > 0;
    }
    return any;
}

/* How many leaves of a run are to be given, so that who is late and who helps are done at once. */
static uint32_t leaves_to_give(const struct lh_takeover *t, const struct lh_takeover_ask *ask,
                               const struct run *r)
{
    const double both = t->leaf[r->first].pace + ask->pace;
    const uint32_t n = r->end - r->first;
    if (r->left >= n * both)
        return n;
    const uint32_t most = (uint32_t)(r->left / both);
    return most > 0 ? most : ask->pace < GAIN * r->left;
}

static bool give(struct lh_takeover *t, const struct lh_takeover_ask *ask, bool again,
                 struct lh_tree_node *out)
{
    struct run r;
    uint32_t most, i, end;
    if (!latest_run(t, ask, again, &r) || (most = leaves_to_give(t, ask, &r)) == 0)
        return false;
    *out = last_node(t, r.end, most);
    for (span(t, *out, &i, &end); i < end; i++) {
        t->leaf[i].given = ask->now;
        t->leaf[i].helper = ask->worker;
    }
    return true;
}

bool lh_takeover_give(struct lh_takeover *t, const struct lh_takeover_ask *ask,
                      struct lh_tree_node *out)
{
    begin_step(t, ask->step);
    return give(t, ask, false, out) || give(t, ask, true, out);
}
