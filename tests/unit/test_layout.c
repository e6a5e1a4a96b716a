#include "common/layout.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <string.h>

/* A small model whose tensors do not fill the 16-element grid. */
static const struct lh_param model[] = {
    {"actor.0.bias", 1, 10, 0, 3, true, true},
    {"actor.0.weight", 10, 3, 16, 3, true, true},
    {"critic.0.weight", 7, 5, 48, 5, true, false},
    {"frozen.table", 4, 4, 96, 4, false, false},
};
static const struct lh_layout_params from = {model, 4, 112};
static const struct lh_update_rule rules[] = {
    {"actor.*", 1e-3, 2, 0.01, 3},
    {"critic.0.weight", 1e-2, 1, 0, 1},
};

static void match_takes_names_and_prefixes(void **state)
{
    (void)state;
    assert_true(lh_layout_match("actor.*", "actor.high.0.weight"));
    assert_true(lh_layout_match("x  critic.1 ", "critic.1"));
    assert_false(lh_layout_match("critic.1", "critic.10"));
    assert_false(lh_layout_match("critic.10", "critic.1"));
    assert_false(lh_layout_match("", "a"));
    assert_false(lh_layout_match("  ", "a"));
    assert_true(lh_layout_match("b *", "a"));
}

static void init_any_number_of_shards_covers_every_element_once(void **state)
{
    (void)state;
    uint64_t digest = 0;
    for (size_t n = 1; n <= 22; n++) { /* 22 rows */
        struct lh_layout l;
        assert_ok(lh_layout_init_params(&l, &from, rules, 2, n));
        assert_int_equal(l.elements, 10 + 30 + 35 + 16);
        assert_true(digest == 0 || digest == l.digest);
        digest = l.digest;
        uint64_t at = 0, elements = 0;
        for (size_t i = 0; i < n; i++) {
            const struct lh_shard_range *r = &l.shards[i];
            assert_int_equal(r->lo, at);
            assert_true(r->hi > r->lo && r->n_segments > 0);
            assert_int_equal(r->shard, i);
            uint64_t before = r->lo;
            for (size_t k = 0; k < r->n_segments; k++) {
                const struct lh_segment *s = &r->segments[k];
                const struct lh_param *p = &model[s->param];
                assert_true(s->lo >= before && s->hi <= r->hi);
                assert_string_equal(s->name, p->name);
                assert_int_equal(s->lo, p->offset + s->row * p->cols);
                assert_int_equal(s->hi - s->lo, s->rows * p->cols);
                assert_int_equal(s->trained, p->trained);
                elements += s->hi - s->lo;
                before = s->hi;
            }
            at = r->hi;
        }
        assert_int_equal(at, 112);
        assert_int_equal(elements, l.elements);
        lh_layout_fini(&l);
        lh_layout_fini(&l);
    }
}

static void init_two_shards_differ_by_less_than_a_row(void **state)
{
    (void)state;
    static const struct lh_param wide[] = {{"a", 300, 96, 0, 1, true, false},
                                           {"b", 1, 96, 28800, 1, true, false},
                                           {"c", 501, 64, 28896, 1, true, false}};
    const struct lh_layout_params p = {wide, 3, 28896 + 501 * 64};
    struct lh_layout l;
    for (size_t n = 2; n < 9; n++) {
        assert_ok(lh_layout_init_params(&l, &p, &(struct lh_update_rule){"*", 1, 1, 0, 1}, 1, n));
        for (size_t i = 0; i < n; i++) {
            double size = (double)(l.shards[i].hi - l.shards[i].lo);
            kit_assert_close(size, (double)p.flat_size / (double)n, 97.0 / size, "size of shard");
        }
        lh_layout_fini(&l);
    }
}

static void init_rules_first_match_wins(void **state)
{
    (void)state;
    static const struct lh_update_rule both[] = {{"actor.0.bias", 5, 7, 0.5, 9},
                                                 {"*", 1, 1, 0.1, 1}};
    struct lh_layout l;
    assert_ok(lh_layout_init_params(&l, &from, both, 2, 1));
    const struct lh_segment *s = l.shards[0].segments;
    assert_true(s[0].learning_rate == 5 && s[0].period == 7);
    assert_true(s[0].tau == 0.5 && s[0].target_period == 9);
    assert_true(s[1].learning_rate == 1 && s[1].period == 1);
    lh_layout_fini(&l);
}

static void init_bad_input_is_refused(void **state)
{
    (void)state;
    struct lh_layout l;
    assert_err(lh_layout_init_params(&l, &from, rules, 1, 1), LH_ECONFIG,
               "critic.0.weight: is trained, but no update rule");
    assert_err(lh_layout_init_params(&l, &from, rules, 2, 0), LH_ERANGE, "between 1 and 22");
    assert_err(lh_layout_init_params(&l, &from, rules, 2, 23), LH_ERANGE, "between 1 and 22");
    assert_err(lh_layout_init_params(&l, &from, &(struct lh_update_rule){"*", 1, 0, 0, 1}, 1, 1),
               LH_ECONFIG, "period of 0");
}

static void init_digest_tells_models_apart(void **state)
{
    (void)state;
    struct lh_layout a, b;
    struct lh_param other[4];
    assert_ok(lh_layout_init_params(&a, &from, rules, 2, 1));
    for (int change = 0; change < 3; change++) {
        memcpy(other, model, sizeof other);
        if (change == 0)
            other[1].name = "actor.0.weighT";
        else if (change == 1)
            other[1].rows = 3, other[1].cols = 10;
        else
            other[2].has_target = true;
        assert_ok(
            lh_layout_init_params(&b, &(struct lh_layout_params){other, 4, 112}, rules, 2, 1));
        assert_true(a.digest != b.digest);
        lh_layout_fini(&b);
    }
    lh_layout_fini(&a);
}

static void init_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct lh_layout l;
        lh_mem_fail_at(n);
        int rc = lh_layout_init_params(&l, &from, rules, 2, 3);
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_layout_fini(&l);
            assert_int_equal(n, 5);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

/* The definition, as a recursion: the sum of a node over its leaves. */
static float reference(const float *leaf, uint32_t leaves, uint32_t level, uint32_t index)
{
    if (level == 0)
        return leaf[index];
    float left = reference(leaf, leaves, level - 1, 2 * index);
    if (((uint64_t)2 * index + 1) << (level - 1) >= leaves)
        return left;
    return left + reference(leaf, leaves, level - 1, 2 * index + 1);
}

/* Finishes the tree from the nodes that are known. */
static int known(const struct lh_tree_node *nodes, const float *sums, size_t n, uint32_t leaves,
                 uint32_t level, uint32_t index, float *out)
{
    for (size_t i = 0; i < n; i++) {
        if (nodes[i].level == level && nodes[i].index == index) {
            *out = sums[i];
            return 1;
        }
    }
    if (level == 0 || !known(nodes, sums, n, leaves, level - 1, 2 * index, out))
        return 0;
    if (((uint64_t)2 * index + 1) << (level - 1) >= leaves)
        return 1;
    float right;
    if (!known(nodes, sums, n, leaves, level - 1, 2 * index + 1, &right))
        return 0;
    *out += right;
    return 1;
}

static void tree_share_any_assignment_gives_the_same_root(void **state)
{
    (void)state;
    float leaf[70];
    lh_rng_normal(&(struct lh_rng_at){.seed = 3}, leaf, 70);
    for (uint32_t leaves = 1; leaves <= 70; leaves++) {
        const uint32_t height = lh_tree_height(leaves);
        const float root = reference(leaf, leaves, height, 0);
        for (uint32_t n = 1; n <= 9; n++) {
            struct lh_tree_node nodes[9 * 64];
            float sums[9 * 64];
            unsigned char covered[70] = {0};
            size_t count = 0;
            for (uint32_t w = 0; w < n; w++) {
                size_t k = lh_tree_share(leaves, w, n, nodes + count);
                assert_true(k <= 2 * height + 1);
                for (size_t i = count; i < count + k; i++) {
                    struct lh_tree_node x = nodes[i];
                    assert_true(lh_tree_has(leaves, x));
                    for (uint64_t j = (uint64_t)x.index << x.level;
                         j < (uint64_t)(x.index + 1) << x.level && j < leaves; j++) {
                        assert_int_equal(covered[j]++, 0);
                        assert_true(j >= (uint64_t)w * leaves / n &&
                                    j < (uint64_t)(w + 1) * leaves / n);
                    }
                    sums[i] = reference(leaf, leaves, x.level, x.index);
                }
                count += k;
            }
            for (uint32_t j = 0; j < leaves; j++)
                assert_int_equal(covered[j], 1);
            float got;
            assert_true(known(nodes, sums, count, leaves, height, 0, &got));
            assert_memory_equal(&got, &root, sizeof got);
        }
    }
}

static void tree_share_one_worker_sums_the_root(void **state)
{
    (void)state;
    for (uint32_t leaves = 1; leaves <= 70; leaves++) {
        struct lh_tree_node out[64];
        assert_int_equal(lh_tree_share(leaves, 0, 1, out), 1);
        assert_int_equal(out[0].level, lh_tree_height(leaves));
        assert_int_equal(out[0].index, 0);
    }
}

static void tree_has_knows_the_absent(void **state)
{
    (void)state;
    assert_true(lh_tree_has(5, (struct lh_tree_node){3, 0}));
    assert_false(lh_tree_has(5, (struct lh_tree_node){4, 0}));
    assert_true(lh_tree_has(5, (struct lh_tree_node){0, 4}));
    assert_false(lh_tree_has(5, (struct lh_tree_node){0, 5}));
    assert_true(lh_tree_has(5, (struct lh_tree_node){2, 1}));
    assert_false(lh_tree_has(5, (struct lh_tree_node){2, 2}));
    assert_false(lh_tree_has(5, (struct lh_tree_node){40, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(match_takes_names_and_prefixes),
        kit_test(init_any_number_of_shards_covers_every_element_once),
        kit_test(init_two_shards_differ_by_less_than_a_row),
        kit_test(init_rules_first_match_wins),
        kit_test(init_bad_input_is_refused),
        kit_test(init_digest_tells_models_apart),
        kit_test(init_survives_every_failed_allocation),
        kit_test(tree_share_any_assignment_gives_the_same_root),
        kit_test(tree_share_one_worker_sums_the_root),
        kit_test(tree_has_knows_the_absent),
    };
    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
