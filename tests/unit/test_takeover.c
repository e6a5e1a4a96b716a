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

static enum lh_reduce_leaf has(const void *tree, uint32_t leaf)
{
    return lh_reduce_leaf(tree, leaf);
}

/* Worker 1 asks, to whom a leaf is a second and its share eight. */
static struct rig rig_of(uint32_t leaves)
{
    struct rig x = {0};
    assert_ok(lh_reduce_create(&x.tree, leaves, SIZE));
    assert_ok(lh_takeover_create(&x.takeover, leaves));
    x.ask = (struct lh_takeover_ask){.step = 3,
                                     .has = has,
                                     .of = x.tree,
                                     .worker = 1,
                                     .pace = 1,
                                     .usual = 8,
                                     .now = 100,
                                     .passed = 8};
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

/* Of the step before the one at hand. */
static void came(struct rig *x, uint32_t level, uint32_t index, uint32_t worker, double pace)
{
    lh_takeover_came(x->takeover, x->ask.step - 1, (struct lh_tree_node){level, index}, worker,
                     pace);
}

static void assert_given_at(struct rig *x, double passed, uint32_t level, uint32_t index)
{
    struct lh_tree_node node;
    x->ask.now += passed - x->ask.passed;
    x->ask.passed = passed;
    assert_true(lh_takeover_give(x->takeover, &x->ask, &node));
    assert_int_equal(node.level, level);
    assert_int_equal(node.index, index);
}

static void assert_nothing_at(struct rig *x, double passed)
{
    struct lh_tree_node node;
    x->ask.now += passed - x->ask.passed;
    x->ask.passed = passed;
    assert_false(lh_takeover_give(x->takeover, &x->ask, &node));
}

static void give_takes_from_the_end_what_both_do_in_the_same_time(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    came(&x, 3, 0, 1, 1);
    came(&x, 3, 1, 2, 2);
    push(&x, 3, 0);
    assert_given_at(&x, 8, 1, 7);   /* it has leaf 12 to 15 before it: 8 s, or 3 with help */
    assert_given_at(&x, 10, 0, 13); /* it has begun that one: in a second it is done all the same */
    push(&x, 0, 13);
    assert_nothing_at(&x, 11); /* it is in the last */
    rig_free(&x);
}

static void give_has_nothing_while_all_are_as_fast_as_they_were(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    came(&x, 3, 0, 1, 1);
    came(&x, 3, 1, 2, 1);
    push(&x, 3, 0);
    assert_nothing_at(&x, 8);
    assert_nothing_at(&x, 11.9);
    rig_free(&x);
}

static void give_takes_half_of_who_is_slower_than_it_was_and_more_in_the_next_step(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    came(&x, 3, 0, 1, 1);
    came(&x, 3, 1, 2, 1);
    push(&x, 3, 0);
    assert_given_at(&x, 12.1, 1, 7); /* as if half through: 4 leaves of 3 s, to one of 1 s: 3 */
    push(&x, 1, 7);
    x.ask.step++;
    lh_reduce_reset(x.tree);
    push(&x, 3, 0);
    assert_given_at(&x, 8, 2, 3);
    rig_free(&x);
}

static void give_waits_for_those_whose_pace_is_not_known(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    push(&x, 3, 0);
    assert_nothing_at(&x, 8);
    assert_nothing_at(&x, 12);
    assert_given_at(&x, 12.1, 1, 7);
    x.ask.pace = 0; /* too short to be told in microseconds */
    assert_given_at(&x, 12.2, 0, 13);
    rig_free(&x);
}

static void give_helps_the_latest_first(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    came(&x, 3, 0, 1, 1);
    came(&x, 2, 2, 2, 9);
    came(&x, 2, 3, 3, 4);
    push(&x, 3, 0);
    assert_given_at(&x, 8, 1, 5);
    assert_given_at(&x, 8, 0, 9);
    assert_given_at(&x, 8, 0, 15);
    rig_free(&x);
}

static void came_of_what_a_helper_was_given_makes_it_not_its_own(void **state)
{
    (void)state;
    struct rig x = rig_of(16);
    came(&x, 3, 1, 2, 2);
    push(&x, 3, 0);
    assert_given_at(&x, 8, 1, 7);
    lh_takeover_came(x.takeover, x.ask.step, (struct lh_tree_node){1, 7}, 1, 1);
    x.ask.step++;
    assert_given_at(&x, 8, 1, 7); /* leaves 14 and 15 are still those of a slow one */
    rig_free(&x);
}

static void give_takes_nothing_that_has_come_in_any_form(void **state)
{
    (void)state;
    struct rig x = rig_of(7);
    push(&x, 0, 6);
    push(&x, 2, 0);
    push(&x, 0, 5);
    assert_given_at(&x, 20, 0, 4);
    push(&x, 0, 4);
    assert_non_null(lh_reduce_root(x.tree));
    assert_nothing_at(&x, 40);
    rig_free(&x);
}

static void give_crosses_no_border_of_leaves_that_are_no_power_of_two(void **state)
{
    (void)state;
    struct rig x = rig_of(7);
    came(&x, 3, 0, 2, 1000);
    assert_given_at(&x, 8, 2, 1); /* leaves 4, 5, 6 */
    assert_given_at(&x, 8, 1, 1);
    assert_given_at(&x, 8, 0, 1);
    rig_free(&x);
    x = rig_of(1);
    came(&x, 0, 0, 2, 1e18);
    assert_given_at(&x, 8, 0, 0);
    assert_nothing_at(&x, 8);
    rig_free(&x);
}

static void give_gives_again_what_does_not_come_and_forgets_with_the_step(void **state)
{
    (void)state;
    struct rig x = rig_of(2);
    came(&x, 1, 0, 2, 1000);
    assert_given_at(&x, 8, 0, 1);
    assert_given_at(&x, 8, 0, 0);
    assert_nothing_at(&x, 23.9);
    assert_given_at(&x, 24.1, 0, 1);
    x.ask.step++;
    assert_given_at(&x, 8, 0, 1);
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
    assert_nothing_at(&x, 40);
    x.ask.partly = true;
    assert_given_at(&x, 40, 0, 3);
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
        kit_test(give_takes_from_the_end_what_both_do_in_the_same_time),
        kit_test(give_has_nothing_while_all_are_as_fast_as_they_were),
        kit_test(give_takes_half_of_who_is_slower_than_it_was_and_more_in_the_next_step),
        kit_test(give_waits_for_those_whose_pace_is_not_known),
        kit_test(give_helps_the_latest_first),
        kit_test(came_of_what_a_helper_was_given_makes_it_not_its_own),
        kit_test(give_takes_nothing_that_has_come_in_any_form),
        kit_test(give_crosses_no_border_of_leaves_that_are_no_power_of_two),
        kit_test(give_gives_again_what_does_not_come_and_forgets_with_the_step),
        kit_test(give_leaves_what_comes_in_pieces_to_its_sender_until_that_stops),
        kit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
