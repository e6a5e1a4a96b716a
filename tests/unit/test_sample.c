#include "worker/sample.h"

#include "tests/testkit.h"

#include <string.h>

static void epoch_visits_each_transition_once(void **state)
{
    (void)state;
    /* Batches of 7 cross the borders of epochs of 30. */
    struct lh_sampler s = {
        .mode = LH_SAMPLING_EPOCH, .seed = 5, .transitions = 30, .batch = 7, .block = 4};
    uint64_t order[90];
    for (size_t i = 0; i < 90; i++)
        order[i] = lh_sample_transition(&s, i / 7, i % 7);
    for (size_t epoch = 0; epoch < 3; epoch++) {
        unsigned seen[30] = {0};
        for (size_t i = 0; i < 30; i++) {
            assert_true(order[epoch * 30 + i] < 30);
            assert_int_equal(seen[order[epoch * 30 + i]]++, 0);
        }
    }
    assert_memory_not_equal(order, order + 30, 30 * sizeof *order); /* each in its own order */
}

static void uniform_stays_in_range_and_reaches_all(void **state)
{
    (void)state;
    struct lh_sampler s = {
        .mode = LH_SAMPLING_UNIFORM, .seed = 5, .transitions = 11, .batch = 100, .block = 64};
    unsigned seen[11] = {0};
    for (uint64_t step = 0; step < 11; step++)
        for (size_t i = 0; i < 100; i++) {
            uint64_t k = lh_sample_transition(&s, step, i);
            assert_true(k < 11);
            seen[k]++;
        }
    for (int k = 0; k < 11; k++)
        assert_true(seen[k] > 50 && seen[k] < 150); /* 100 expected, deviation 9.5 */
}

static void leaf_is_the_slice_of_the_batch_and_the_last_is_short(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        struct lh_sampler s = {.mode = mode ? LH_SAMPLING_UNIFORM : LH_SAMPLING_EPOCH,
                               .seed = 9,
                               .transitions = 1000,
                               .batch = 10,
                               .block = 4};
        uint64_t rows[4];
        for (uint32_t leaf = 0; leaf < 4; leaf++) {
            size_t n = lh_sample_block(&s, 3, leaf, rows);
            assert_int_equal(n, leaf < 2 ? 4 : leaf == 2 ? 2 : 0);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(rows[i], lh_sample_transition(&s, 3, leaf * 4 + i));
        }
    }
}

static void sample_depends_on_the_seed(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        struct lh_sampler a = {.mode = mode ? LH_SAMPLING_UNIFORM : LH_SAMPLING_EPOCH,
                               .seed = 1,
                               .transitions = 1u << 30,
                               .batch = 8,
                               .block = 8},
                          b = a;
        uint64_t x[8], y[8];
        b.seed = 2;
        lh_sample_block(&a, 0, 0, x);
        lh_sample_block(&b, 0, 0, y);
        assert_memory_not_equal(x, y, sizeof x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(epoch_visits_each_transition_once),
        kit_test(uniform_stays_in_range_and_reaches_all),
        kit_test(leaf_is_the_slice_of_the_batch_and_the_last_is_short),
        kit_test(sample_depends_on_the_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
