#include "common/rng.h"
#include "ps/rowtable_reduce.h"
#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>

enum { LEAVES_MAX = 20, IDS = 24, DIM_MAX = 4 };

/* The list of a node by the definition: id by id, left + right where both have it. Where nothing
 * is, `has` is 0. */
struct dense {
    int has[IDS];
    float values[IDS * DIM_MAX];
};

static void node_sum(const struct dense *leaf, uint32_t leaves, uint32_t dim, struct lh_tree_node x,
                     struct dense *out)
{
    struct dense right;
    if (x.level == 0) {
        *out = leaf[x.index];
        return;
    }
    node_sum(leaf, leaves, dim, (struct lh_tree_node){x.level - 1, 2 * x.index}, out);
    if (!lh_tree_has(leaves, (struct lh_tree_node){x.level - 1, 2 * x.index + 1}))
        return;
    node_sum(leaf, leaves, dim, (struct lh_tree_node){x.level - 1, 2 * x.index + 1}, &right);
    for (int i = 0; i < IDS; i++) {
        for (uint32_t c = 0; right.has[i] && c < dim; c++) {
            float *at = &out->values[i * DIM_MAX + (int)c];
            *at = out->has[i] ? *at + right.values[i * DIM_MAX + (int)c]
                              : right.values[i * DIM_MAX + (int)c];
        }
        out->has[i] |= right.has[i];
    }
}

static uint64_t id_of(int i)
{
    return (uint64_t)i * 0x9E3779B97F4A7Cu + 3;
}

struct list {
    uint64_t ids[IDS];
    float values[IDS * DIM_MAX];
    size_t n;
};

static struct list to_list(const struct dense *d, uint32_t dim)
{
    struct list l = {.n = 0};
    for (int i = 0; i < IDS; i++) {
        if (!d->has[i])
            continue;
        l.ids[l.n] = id_of(i);
        memcpy(l.values + l.n++ * dim, d->values + i * DIM_MAX, dim * sizeof(float));
    }
    return l;
}

static uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n);
}

struct tree {
    struct dense leaf[LEAVES_MAX];
    uint32_t leaves, dim;
    struct lh_rowtable_reduce *r;
};

static void tree_init(struct tree *t, struct lh_rng_at *at)
{
    t->leaves = (uint32_t)below(at, LEAVES_MAX) + 1;
    t->dim = (uint32_t)below(at, DIM_MAX) + 1;
    const uint64_t dense = below(at, 4); /* of 3: how many of the ids a leaf has */
    memset(t->leaf, 0, sizeof t->leaf);
    for (uint32_t i = 0; i < t->leaves; i++) {
        lh_rng_normal(&(struct lh_rng_at){.seed = at->part, .part = i}, t->leaf[i].values,
                      IDS * DIM_MAX);
        for (int k = 0; k < IDS; k++)
            t->leaf[i].has[k] = below(at, 3) < dense;
    }
    const struct lh_rowtable_reduce_spec spec = {t->leaves, t->dim, IDS};
    assert_ok(lh_rowtable_reduce_create(&t->r, &spec));
}

/* Sends rows [first, first + n) of a node's list from odd addresses. */
static int send_piece(const struct tree *t, struct lh_tree_node x, size_t first, size_t n)
{
    struct dense sum;
    unsigned char ids[IDS * 8 + 1], values[IDS * DIM_MAX * 4 + 1];
    node_sum(t->leaf, t->leaves, t->dim, x, &sum);
    const struct list l = to_list(&sum, t->dim);
    assert_true(first + n <= l.n);
    memcpy(ids + 1, l.ids + first, n * 8);
    memcpy(values + 1, l.values + first * t->dim, n * t->dim * 4);
    return lh_rowtable_reduce_add(t->r, x,
                                  &(struct lh_rowtable_piece){first, l.n, n, ids + 1, values + 1});
}

static size_t length_of(const struct tree *t, struct lh_tree_node x)
{
    struct dense sum;
    node_sum(t->leaf, t->leaves, t->dim, x, &sum);
    return to_list(&sum, t->dim).n;
}

static void check_root(const struct tree *t)
{
    struct dense sum;
    node_sum(t->leaf, t->leaves, t->dim, (struct lh_tree_node){lh_tree_height(t->leaves), 0}, &sum);
    const struct list want = to_list(&sum, t->dim);
    const struct lh_rowlist *got = lh_rowtable_reduce_root(t->r);
    assert_non_null(got);
    assert_int_equal(got->n, want.n);
    assert_memory_equal(got->ids, want.ids, want.n * 8);
    assert_memory_equal(got->values, want.values, want.n * t->dim * 4);
}

static struct lh_tree_node any_node(const struct tree *t, struct lh_rng_at *at)
{
    struct lh_tree_node x;
    do {
        x.level = (uint32_t)below(at, lh_tree_height(t->leaves) + 1);
        x.index = (uint32_t)below(at, t->leaves);
    } while (!lh_tree_has(t->leaves, x));
    return x;
}

struct sent {
    struct lh_tree_node x;
    size_t first, n;
};

/* One whole assignment, cut anyhow, in random order. */
static void send_all(const struct tree *t, struct lh_rng_at *at)
{
    static struct sent piece[LEAVES_MAX * IDS];
    size_t n_pieces = 0;
    const uint32_t workers = (uint32_t)below(at, 5) + 1;
    for (uint32_t w = 0; w < workers; w++) {
        struct lh_tree_node share[64];
        size_t n = lh_tree_share(t->leaves, w, workers, share);
        for (size_t i = 0; i < n; i++) {
            const size_t length = length_of(t, share[i]);
            size_t first = 0;
            do {
                const size_t m = first < length ? below(at, length - first) + 1 : 0;
                piece[n_pieces++] = (struct sent){share[i], first, m};
                first += m;
            } while (first < length);
        }
    }
    for (size_t i = n_pieces; i > 0; i--) {
        size_t k = below(at, i);
        int rc = send_piece(t, piece[k].x, piece[k].first, piece[k].n);
        assert_true(rc == 0 || rc == LH_AGAIN);
        piece[k] = piece[i - 1];
    }
}

static void add_any_order_cuts_and_repeats_give_the_same_bits(void **state)
{
    (void)state;
    static struct tree t;
    for (uint32_t round = 0; round < 1500; round++) {
        struct lh_rng_at at = {.seed = 17, .part = round};
        tree_init(&t, &at);
        for (int step = 0; step < 2; step++) { /* the second with warm memory */
            /* Noise: any pieces of any nodes, as from assignments that died. */
            for (uint64_t k = below(&at, 20); k > 0; k--) {
                const struct lh_tree_node x = any_node(&t, &at);
                const size_t length = length_of(&t, x), first = below(&at, length + 1);
                size_t n = below(&at, length - first + 1);
                if (n == 0 && length > 0)
                    continue;
                int rc = send_piece(&t, x, first, n);
                assert_true(rc == 0 || rc == LH_AGAIN);
                assert_int_equal(send_piece(&t, x, first, n), LH_AGAIN);
            }
            send_all(&t, &at);
            check_root(&t);
            lh_rowtable_reduce_reset(t.r);
            assert_null(lh_rowtable_reduce_root(t.r));
        }
        lh_rowtable_reduce_destroy(&t.r);
    }
}

static void add_warm_allocates_nothing(void **state)
{
    (void)state;
    static struct tree t;
    for (uint32_t round = 0; round < 20; round++) {
        struct lh_rng_at at = {.seed = 18, .part = round};
        tree_init(&t, &at);
        for (int step = 0; step < 5; step++) {
            struct lh_rng_at same = at; /* the same order of arrival */
            const uint64_t before = lh_mem_count();
            const size_t bytes = lh_rowtable_reduce_bytes(t.r);
            send_all(&t, &same);
            assert_true(step == 0 || lh_mem_count() == before);
            assert_true(step == 0 || lh_rowtable_reduce_bytes(t.r) == bytes);
            check_root(&t);
            lh_rowtable_reduce_reset(t.r);
        }
        lh_rowtable_reduce_destroy(&t.r);
    }
}

static void add_survives_every_failed_allocation(void **state)
{
    (void)state;
    static struct tree t;
    for (uint64_t nth = 1; nth < 400; nth++) {
        struct lh_rng_at at = {.seed = 19, .part = (uint32_t)nth % 7};
        tree_init(&t, &at);
        lh_mem_fail_at(nth % 40 + 1);
        for (uint32_t i = 0; i < t.leaves; i++) {
            const struct lh_tree_node x = {0, i};
            int rc;
            while ((rc = send_piece(&t, x, 0, length_of(&t, x))) == LH_ENOMEM) {
                kit_assert_contains(lh_err_text(), "out of memory");
            }
            assert_true(rc == 0 || rc == LH_AGAIN);
        }
        lh_mem_fail_at(0);
        check_root(&t);
        lh_rowtable_reduce_destroy(&t.r);
    }
    const struct lh_rowtable_reduce_spec spec = {8, 4, 10};
    uint64_t nth = 0;
    int rc;
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_reduce_create(&t.r, &spec);
    } while (rc == LH_ENOMEM);
    lh_mem_fail_at(0);
    assert_ok(rc);
    assert_true(nth > 5);
    lh_rowtable_reduce_destroy(&t.r);
}

static void add_refuses_what_cannot_be(void **state)
{
    (void)state;
    struct lh_rowtable_reduce *r = NULL;
    const uint64_t ids[] = {1, 2, 3, 4}, down[] = {4, 3, 5, 6};
    const float v[8] = {0};
    const struct lh_tree_node x = {0, 1};
    assert_err(lh_rowtable_reduce_create(&r, &(struct lh_rowtable_reduce_spec){0, 2, 4}), LH_ERANGE,
               "empty");
    assert_ok(lh_rowtable_reduce_create(&r, &(struct lh_rowtable_reduce_spec){3, 2, 4}));
#define ADD(node, ...) lh_rowtable_reduce_add(r, node, &(struct lh_rowtable_piece){__VA_ARGS__})
    assert_err(ADD(((struct lh_tree_node){0, 3}), 0, 4, 4, ids, v), LH_EPROTO, "3 micro-batches");
    assert_err(ADD(((struct lh_tree_node){9, 0}), 0, 4, 4, ids, v), LH_EPROTO, "node (9, 0)");
    assert_err(ADD(x, 0, 5, 4, ids, v), LH_EPROTO, "4 ids at most");
    assert_err(ADD(x, 5, 4, 0, ids, v), LH_EPROTO, "from row 5 on, of 4");
    assert_err(ADD(x, 2, 4, 3, ids, v), LH_EPROTO, "3 rows from row 2 on, of 4");
    assert_err(ADD(x, UINT64_MAX, 4, 2, ids, v), LH_EPROTO, "of 4");
    assert_err(ADD(x, 0, UINT64_MAX, 4, ids, v), LH_EPROTO, "at most");
    assert_err(ADD(x, 0, 4, 0, ids, v), LH_EPROTO, "0 rows");
    assert_err(ADD(x, 0, 4, 4, down, v), LH_EPROTO, "do not ascend");
    assert_ok(ADD(x, 0, 4, 1, ids, v));
    assert_err(ADD(x, 1, 3, 1, ids, v), LH_EPROTO, "of a list of 3, which had 4 before");
    assert_ok(ADD(x, 2, 4, 2, ids + 2, v));
    assert_err(ADD(x, 1, 4, 1, ids + 3, v), LH_EPROTO, "from piece to piece");
    assert_ok(ADD(x, 0, 4, 4, ids, v)); /* what was wrong is forgotten */
    assert_int_equal(ADD(x, 0, 4, 4, ids, v), LH_AGAIN);
#undef ADD
    lh_rowtable_reduce_destroy(&r);
}

static void leaf_is_there_when_a_sum_that_has_it_is(void **state)
{
    (void)state;
    struct lh_rowtable_reduce *r = NULL;
    const uint64_t ids[] = {1, 2};
    const float v[2] = {0};
    assert_ok(lh_rowtable_reduce_create(&r, &(struct lh_rowtable_reduce_spec){5, 1, 4}));
#define ADD(node, ...) lh_rowtable_reduce_add(r, node, &(struct lh_rowtable_piece){__VA_ARGS__})
    static const struct lh_tree_node third = {0, 3}, first_two = {1, 0}, last = {2, 1};
    assert_ok(ADD(third, 0, 2, 2, ids, v));
    assert_ok(ADD(first_two, 0, 2, 1, ids, v));
    assert_ok(ADD(last, 0, 0, 0, NULL, NULL)); /* of leaf 4 alone */
    static const enum lh_reduce_leaf want[] = {LH_REDUCE_PARTLY, LH_REDUCE_PARTLY,
                                               LH_REDUCE_MISSING, LH_REDUCE_THERE, LH_REDUCE_THERE};
    for (uint32_t leaf = 0; leaf < 5; leaf++)
        assert_int_equal(lh_rowtable_reduce_leaf(r, leaf), want[leaf]);
    assert_ok(ADD(first_two, 1, 2, 1, ids + 1, v));
    assert_int_equal(lh_rowtable_reduce_leaf(r, 1), LH_REDUCE_THERE);
    lh_rowtable_reduce_reset(r);
    assert_int_equal(lh_rowtable_reduce_leaf(r, 1), LH_REDUCE_MISSING);
#undef ADD
    lh_rowtable_reduce_destroy(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(add_any_order_cuts_and_repeats_give_the_same_bits),
        kit_test(add_warm_allocates_nothing),
        kit_test(add_survives_every_failed_allocation),
        kit_test(add_refuses_what_cannot_be),
        kit_test(leaf_is_there_when_a_sum_that_has_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
