#include "worker/table_sum.h"

#include "common/rng.h"
#include "tests/testkit.h"

#include <string.h>

enum { DIM = 3, IDS = 40, LEAVES = 13, BLOCKS = 3 };

struct dense { /* a list as an array over all ids; has: which are in it */
    float value[IDS][DIM];
    int has[IDS];
};

/* Some ids of the block, with numbers whose sums depend on their order. */
static struct lh_rowlist make(uint32_t leaf, uint32_t block, uint64_t *ids, float *values)
{
    struct lh_rng_at at = {.seed = 4, .part = block, .step = leaf};
    size_t n = 0;
    for (uint64_t id = 0; id < IDS; id++)
        if (lh_rng_below(&at, 1000 + id, 3) == 0) {
            for (size_t k = 0; k < DIM; k++)
                values[n * DIM + k] = (float)lh_rng_normal1(&at, id * DIM + k);
            ids[n++] = id;
        }
    return (struct lh_rowlist){.n = n, .ids = ids, .values = values};
}

static void add(struct dense *left, const struct dense *right)
{
    for (size_t i = 0; i < IDS; i++) {
        if (!right->has[i])
            continue;
        for (size_t k = 0; k < DIM; k++)
            left->value[i][k] =
                left->has[i] ? left->value[i][k] + right->value[i][k] : right->value[i][k];
        left->has[i] = 1;
    }
}

/* The node (level, index) by its definition. */
static struct dense node(uint32_t level, uint32_t index)
{
    struct dense out = {0};
    if ((uint64_t)index << level >= LEAVES)
        return out;
    if (level > 0) {
        struct dense right = node(level - 1, 2 * index + 1);
        out = node(level - 1, 2 * index);
        add(&out, &right);
        return out;
    }
    for (uint32_t b = 0; b < BLOCKS; b++) {
        uint64_t ids[IDS];
        float values[IDS * DIM];
        struct lh_rowlist rows = make(index, b, ids, values);
        struct dense block = {0};
        for (size_t i = 0; i < rows.n; i++) {
            block.has[ids[i]] = 1;
            memcpy(block.value[ids[i]], values + i * DIM, sizeof block.value[0]);
        }
        add(&out, &block);
    }
    return out;
}

static void add_leaf(struct lh_table_sum *s, uint32_t leaf)
{
    lh_table_sum_leaf(s);
    for (uint32_t b = 0; b < BLOCKS; b++) {
        uint64_t ids[IDS];
        float values[IDS * DIM];
        struct lh_rowlist rows = make(leaf, b, ids, values);
        assert_ok(lh_table_sum_block(s, &rows));
    }
}

static void assert_is_node(const struct lh_rowlist *got, uint32_t level, uint32_t index)
{
    const struct dense want = node(level, index);
    size_t at = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        if (!want.has[id])
            continue;
        assert_true(at < got->n && got->ids[at] == id);
        assert_memory_equal(got->values + at * DIM, want.value[id], sizeof want.value[id]);
        at++;
    }
    assert_int_equal(at, got->n);
}

static void sum_of_every_subtree_is_that_of_the_tree(void **state)
{
    (void)state;
    struct lh_table_sum s;
    lh_table_sum_init(&s, DIM);
    for (uint32_t level = 0; level <= lh_tree_height(LEAVES); level++)
        for (uint32_t index = 0; (uint64_t)index << level < LEAVES; index++) {
            const uint32_t first = index << level;
            add_leaf(&s, 7); /* of a subtree that is given up */
            assert_ok(lh_table_sum_join(&s, 7));
            add_leaf(&s, 8);
            lh_table_sum_abandon(&s);
            uint32_t end = (index + 1) << level;
            end = end < LEAVES ? end : LEAVES;
            struct lh_rowlist got;
            for (uint32_t leaf = first; leaf < end; leaf++) {
                add_leaf(&s, leaf);
                if (leaf + 1 < end)
                    assert_ok(lh_table_sum_join(&s, leaf));
            }
            assert_ok(lh_table_sum_end(&s, &got));
            assert_is_node(&got, level, index);
        }
    lh_table_sum_fini(&s);
    lh_table_sum_fini(&s);
}

/* Of leaves 4 to 10 of a subtree whose leaf 11 another has: the sums of 10, of 8 and 9, of 4 to 7.
 */
static void parts_of_a_subtree_are_its_complete_ones(void **state)
{
    (void)state;
    struct lh_table_sum s;
    struct lh_rowlist got;
    lh_table_sum_init(&s, DIM);
    for (uint32_t leaf = 4; leaf < 11; leaf++) {
        add_leaf(&s, leaf);
        assert_ok(lh_table_sum_join(&s, leaf));
    }
    static const struct lh_tree_node parts[] = {{0, 10}, {1, 4}, {2, 1}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        assert_true(lh_table_sum_part(&s, &got));
        assert_is_node(&got, parts[i].level, parts[i].index);
    }
    assert_false(lh_table_sum_part(&s, &got));
    add_leaf(&s, 12); /* nothing is left of it */
    assert_ok(lh_table_sum_end(&s, &got));
    assert_is_node(&got, 0, 12);
    lh_table_sum_fini(&s);
}

static void leaf_of_nothing_is_an_empty_list(void **state)
{
    (void)state;
    struct lh_table_sum s;
    struct lh_rowlist got;
    lh_table_sum_init(&s, DIM);
    lh_table_sum_leaf(&s);
    assert_ok(lh_table_sum_block(&s, &(struct lh_rowlist){.n = 0}));
    assert_ok(lh_table_sum_end(&s, &got));
    assert_int_equal(got.n, 0);
    lh_table_sum_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(sum_of_every_subtree_is_that_of_the_tree),
        kit_test(parts_of_a_subtree_are_its_complete_ones),
        kit_test(leaf_of_nothing_is_an_empty_list),
    };
    return cmocka_run_group_tests_name("table_sum", tests, NULL, NULL);
}
