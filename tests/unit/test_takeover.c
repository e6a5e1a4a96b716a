/* What an idle worker is given of a step that others are late with. */
#include "ps/takeover.h"

#include "ps/reduce.h"
#include "tests/testkit.h"

enum { SIZE = 6 };

static const float ones[SIZE] = {1, 1, 1, 1, 1, 1};

struct rig {
    struct lh_reduce *tree;
    struct lh_takeover *takeover;
    struct lh_takeover_ask ask;
};

static struct rig rig_of(uint32_t leaves)
{
    struct rig x = {0};
    assert_ok(lh_reduce_create(&x.tree, leaves, SIZE));
    assert_ok(lh_takeover_create(&x.takeover, leaves));
    x.ask = (struct lh_takeover_ask){.step = 3, .tree = x.tree, .now = 100, .late = 10};
    return x;
}

static void rig_free(struct rig *x)
{
    lh_reduce_destroy(&x->tree);
    lh_takeover_destroy(&x->takeover);
    lh_takeover_destroy(&x->takeover);
}

static void push(struct rig *x, uint32_t level, uint32_t index)
{
    assert_ok(lh_reduce_add(x->tree, (struct lh_tree_node){level, index}, 0, SIZE, ones));
}

static void assert_given(struct rig *x, uint32_t level, uint32_t index)
{
    struct lh_tree_node node;
    assert_true(lh_takeover_give(x->takeover, &x->ask, &node));
    assert_int_equal(node.level, level);
    assert_int_equal(node.index, index);
}

static void assert_nothing(struct rig *x)
{
    struct lh_tree_node node;
    assert_false(lh_takeover_give(x->takeover, &x->ask, &node));
}

static void give_halves_what_is_missing_from_its_end(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    push(&x, 3, 1); /* who has leaves 8 to 15 is done, who has 0 to 7 is late */
    assert_given(&x, 2, 1);
    assert_given(&x, 1, 1);
    assert_given(&x, 0, 1);
    assert_given(&x, 0, 0);
    assert_nothing(&x);
    rig_free(&x);
}

static void give_takes_nothing_that_has_come_in_any_form(void **state)
{
    (void)state;
    struct rig x = rig_of(7);
    push(&x, 0, 6);
    push(&x, 2, 0);
    push(&x, 0, 5);
    assert_given(&x, 0, 4);
    push(&x, 0, 4);
    assert_non_null(lh_reduce_root(x.tree));
    assert_nothing(&x);
    rig_free(&x);
}

static void give_crosses_no_border_of_leaves_that_are_no_power_of_two(void **state)
{
    (void)state;
    struct rig x = rig_of(7);
    assert_given(&x, 2, 1); /* leaves 4, 5, 6: three of seven */
    assert_given(&x, 1, 1);
    assert_given(&x, 0, 1);
    rig_free(&x);
    x = rig_of(1);
    assert_given(&x, 0, 0);
    assert_nothing(&x);
    rig_free(&x);
}

static void give_gives_again_what_does_not_come_and_forgets_with_the_step(void **state)
{
    (void)state;
    struct rig x = rig_of(2);
    assert_given(&x, 0, 1);
    assert_given(&x, 0, 0);
    x.ask.now = 109;
    assert_nothing(&x);
    x.ask.now = 111;
    assert_given(&x, 0, 1);
    x.ask.step++;
    assert_given(&x, 0, 1);
    rig_free(&x);
}

static void give_leaves_what_comes_in_pieces_to_its_sender_until_that_stops(void **state)
{
    (void)state;
    struct rig x = rig_of(4);
    push(&x, 1, 0);
    push(&x, 0, 2);
    assert_ok(lh_reduce_add(x.tree, (struct lh_tree_node){0, 3}, 0, 2, ones));
    assert_int_equal(lh_reduce_leaf(x.tree, 0), LH_REDUCE_THERE);
    assert_int_equal(lh_reduce_leaf(x.tree, 3), LH_REDUCE_PARTLY);
    assert_nothing(&x);
    x.ask.partly = true;
    assert_given(&x, 0, 3);
    rig_free(&x);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct lh_takeover *t = NULL;
        lh_mem_fail_at(nth);
        int rc = lh_takeover_create(&t, 8);
        lh_mem_fail_at(0);
        lh_takeover_destroy(&t);
        if (rc == 0)
            return;
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(give_halves_what_is_missing_from_its_end),
        kit_test(give_takes_nothing_that_has_come_in_any_form),
        kit_test(give_crosses_no_border_of_leaves_that_are_no_power_of_two),
        kit_test(give_gives_again_what_does_not_come_and_forgets_with_the_step),
        kit_test(give_leaves_what_comes_in_pieces_to_its_sender_until_that_stops),
        kit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
