#include "worker/gradient.h"

#include "tests/testkit.h"

#include "common/bf16.h"
#include "common/rng.h"
#include "common/wire.h"

#include <stdio.h>
#include <string.h>

enum { N_METRICS = 2 };

struct fixture {
    struct lh_param params[3];
    struct lh_layout layout;
    struct lh_gradient g;
};

/* Three tensors, the last large enough for several pieces; two shards. */
static void fixture_init(struct fixture *f, uint32_t leaves)
{
    memset(f, 0, sizeof *f);
    f->params[0] =
        (struct lh_param){.name = "a", .rows = 3, .cols = 5, .offset = 0, .trained = true};
    f->params[1] = (struct lh_param){.name = "b", .rows = 4, .cols = 4, .offset = 16};
    f->params[2] =
        (struct lh_param){.name = "c", .rows = 700, .cols = 512, .offset = 32, .trained = true};
    struct lh_update_rule rule = {.pattern = "*", .period = 1, .target_period = 1};
    assert_ok(lh_layout_init_params(
        &f->layout,
        &(struct lh_layout_params){.params = f->params, .n_params = 3, .flat_size = 32 + 700 * 512},
        &rule, 1, 2));
    assert_ok(lh_gradient_init(&f->g, &f->layout, N_METRICS, leaves));
}

static void fixture_fini(struct fixture *f)
{
    lh_gradient_fini(&f->g);
    lh_layout_fini(&f->layout);
}

/* What leaf k puts at element i; only some elements are looked at. */
static float value(uint32_t leaf, size_t i)
{
    return (float)lh_rng_normal1(&(struct lh_rng_at){.seed = 8, .part = leaf}, i);
}

static size_t probe(size_t k)
{
    return k < 32 ? k : k * 1543 % (700 * 512) + 32;
}

static void fill(struct lh_gradient *g, uint32_t leaf)
{
    for (size_t k = 0; k < 200; k++)
        lh_gradient_data(g)[probe(k)] = value(leaf, probe(k));
    for (size_t k = 0; k < N_METRICS; k++)
        lh_gradient_metrics(g)[k] = value(leaf, 1000000 + k);
}

/* The definition: left + right, recursively; NULL-like `absent` beyond the leaves. With `bf16` each
 * node is rounded. */
static float tree_sum(bool bf16, uint32_t leaves, uint32_t level, uint32_t index, size_t i)
{
    float sum;
    if (level == 0) {
        sum = value(index, i);
    } else {
        sum = tree_sum(bf16, leaves, level - 1, 2 * index, i);
        if ((uint64_t)(2 * index + 1) << (level - 1) < leaves)
            sum += tree_sum(bf16, leaves, level - 1, 2 * index + 1, i);
    }
    if (bf16)
        lh_bf16_round(&sum, 1);
    return sum;
}

struct heard {
    struct lh_gradient *g;
    uint64_t elements;
    unsigned pieces;
    bool first_came; /* the piece with the metrics */
    float *sent;     /* [flat_size] as bfloat16; NULL: as it is */
};

static void hear(void *ctx, struct lh_gradient_piece *p)
{
    struct heard *h = ctx;
    assert_true(p->hi > p->lo && p->hi - p->lo <= LH_WIRE_PIECE);
    size_t bytes;
    const char *wire = lh_gradient_wire(h->g, p, &bytes);
    assert_int_equal(bytes, (p->hi - p->lo) * (h->sent ? 2 : 4));
    if (h->sent) /* what will be read at the other end */
        lh_bf16_unpack(h->sent + p->lo, wire, p->hi - p->lo);
    else
        assert_ptr_equal(wire, lh_gradient_data(h->g) + p->lo);
    h->elements += p->hi - p->lo;
    h->pieces++;
    h->first_came = h->first_came || (p->shard == 0 && p->first == 0);
}

static void check_subtrees(bool bf16)
{
    static float sent[32 + 700 * 512];
    for (uint32_t leaves = 1; leaves <= 7; leaves++) {
        struct fixture f;
        fixture_init(&f, leaves);
        if (bf16)
            lh_gradient_round(&f.g);
        for (uint32_t level = 0; level <= lh_tree_height(leaves); level++) {
            for (uint32_t index = 0; (uint64_t)index << level < leaves; index++) {
                uint32_t end = (index + 1) << level;
                struct heard h = {.g = &f.g, .sent = bf16 ? sent : NULL};
                end = end < leaves ? end : leaves;
                for (uint32_t leaf = index << level; leaf < end; leaf++) {
                    assert_ok(lh_gradient_acquire(&f.g));
                    fill(&f.g, leaf);
                    if (leaf + 1 < end)
                        lh_gradient_join(&f.g, leaf);
                }
                lh_gradient_last_begin(&f.g);
                lh_gradient_last_param(&f.g, 2, hear, &h);
                assert_true(h.pieces >= 1 && !h.first_came);
                lh_gradient_last_param(&f.g, 0, hear, &h);
                assert_false(h.first_came); /* metrics are not final yet */
                lh_gradient_last_end(&f.g, hear, &h);
                assert_true(h.first_came);
                assert_int_equal(h.elements, f.layout.flat_size);
                for (size_t k = 0; k < 200; k++) {
                    const float *got = bf16 ? sent : lh_gradient_data(&f.g);
                    float want = tree_sum(bf16, leaves, level, index, probe(k));
                    assert_memory_equal(&got[probe(k)], &want, sizeof want);
                }
                float want = tree_sum(false, leaves, level, index, 1000001); /* never rounded */
                assert_memory_equal(&lh_gradient_metrics(&f.g)[1], &want, sizeof want);
                lh_gradient_done(&f.g);
            }
        }
        fixture_fini(&f);
    }
}

static void sum_of_any_subtree_is_the_tree_sum(void **state)
{
    (void)state;
    check_subtrees(false);
}

static void sum_of_any_subtree_is_rounded_at_every_node(void **state)
{
    (void)state;
    check_subtrees(true);
}

static void buffer_that_is_lent_is_not_taken_again(void **state)
{
    (void)state;
    struct fixture f;
    void *tokens[16];
    size_t lent = 0;
    fixture_init(&f, 4);
    while (lh_gradient_acquire(&f.g) == 0) {
        assert_true(lent < 16);
        tokens[lent++] = lh_gradient_lend(&f.g);
        lh_gradient_done(&f.g);
    }
    assert_int_equal(lent, lh_tree_height(4) + 3);
    lh_gradient_release(NULL, tokens[1]);
    assert_ok(lh_gradient_acquire(&f.g));
    lh_gradient_done(&f.g);
    fixture_fini(&f); /* before the others come back */
    for (size_t i = 0; i < lent; i++)
        if (i != 1)
            lh_gradient_release(NULL, tokens[i]);
}

static void gradient_without_memory_leaks_nothing(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 4);
    lh_gradient_fini(&f.g);
    int rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc == LH_ENOMEM && nth < 20; nth++) {
        lh_mem_fail_at(nth);
        rc = lh_gradient_init(&f.g, &f.layout, N_METRICS, 4);
        if (rc == 0)
            lh_gradient_round(&f.g);
        if (rc == 0)
            rc = lh_gradient_acquire(&f.g);
        lh_mem_fail_at(0);
        if (rc != 0)
            lh_gradient_fini(&f.g);
    }
    assert_ok(rc);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(sum_of_any_subtree_is_the_tree_sum),
        kit_test(sum_of_any_subtree_is_rounded_at_every_node),
        kit_test(buffer_that_is_lent_is_not_taken_again),
        kit_test(gradient_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
