#include "worker/choice.h"

#include "tests/testkit.h"

#include <math.h>

/* Three candidates of two columns by hand; the second column is in units twice as wide. */
static void add_three_candidates_gives_the_hand_computed_means(void **state)
{
    (void)state;
    const float candidates[] = {0, 0, 1, 0.5f, 2, 1}, scale[] = {1, 2}, q[] = {1, 4, 1};
    const float residual[] = {9, 9, 3, 2, 9, 9};
    struct lh_choice_sum sum = {0};
    lh_choice_add(&sum, candidates, residual, q, scale, 3, 2);
    struct lh_choice c = lh_choice_mean(&sum);
    assert_int_equal(c.states, 1);
    kit_assert_close(c.q, 4, 1e-12, "q");
    kit_assert_close(c.gain, 2, 1e-12, "gain");
    /* scaled deviations -1, 0, 1 in both columns */
    kit_assert_close(c.spread, sqrt(4.0 / 6), 1e-7, "spread");
    kit_assert_close(c.residual, 5, 1e-7, "residual"); /* (3, 2 * 2) */
}

static void add_two_equal_bests_takes_the_first(void **state)
{
    (void)state;
    const float candidates[] = {0, 1, 2}, residual[] = {5, 3, 4}, scale[] = {1}, q[] = {0, 6, 6};
    struct lh_choice_sum sum = {0};
    lh_choice_add(&sum, candidates, residual, q, scale, 3, 1);
    kit_assert_close(lh_choice_mean(&sum).residual, 3, 1e-12, "residual");
}

static void add_equal_candidates_leaves_nothing_to_choose(void **state)
{
    (void)state;
    const float candidates[] = {3, 3, 3, 3}, residual[4] = {0}, scale[] = {1},
                q[] = {-2, -2, -2, -2};
    struct lh_choice_sum sum = {0};
    lh_choice_add(&sum, candidates, residual, q, scale, 4, 1);
    struct lh_choice c = lh_choice_mean(&sum);
    kit_assert_close(c.q, -2, 1e-12, "q");
    kit_assert_close(c.gain, 0, 1e-12, "gain");
    kit_assert_close(c.spread, 0, 1e-12, "spread");
}

static void merge_two_halves_equals_the_whole(void **state)
{
    (void)state;
    const float candidates[] = {0, 1, 2, 5}, residual[] = {1, -1, 2, -2}, scale[] = {1};
    const float q[] = {0, 1, 3, 2};
    struct lh_choice_sum a = {0}, b = {0};
    lh_choice_add(&a, candidates, residual, q, scale, 2, 1);
    lh_choice_add(&b, candidates + 2, residual + 2, q + 2, scale, 2, 1);
    lh_choice_merge(&a, &b);
    struct lh_choice c = lh_choice_mean(&a);
    assert_int_equal(c.states, 2);
    kit_assert_close(c.q, 2, 1e-12, "q");
    kit_assert_close(c.gain, 0.5, 1e-12, "gain");
    kit_assert_close(c.spread, 1, 1e-12, "spread"); /* 0.5 and 1.5 */
    kit_assert_close(c.residual, 1.5, 1e-12, "residual");
}

static void mean_of_nothing_is_zero_states(void **state)
{
    (void)state;
    struct lh_choice c = lh_choice_mean(&(struct lh_choice_sum){0});
    assert_int_equal(c.states, 0);
    assert_true(c.q == 0 && c.gain == 0 && c.spread == 0 && c.residual == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(add_three_candidates_gives_the_hand_computed_means),
        kit_test(add_two_equal_bests_takes_the_first),
        kit_test(add_equal_candidates_leaves_nothing_to_choose),
        kit_test(merge_two_halves_equals_the_whole),
        kit_test(mean_of_nothing_is_zero_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
