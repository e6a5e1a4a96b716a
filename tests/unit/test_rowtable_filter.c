#include "ps/rowtable_filter.h"
#include "tests/testkit.h"

#include "common/mem.h"

#include <pthread.h>

static uint64_t id_of(uint64_t i)
{
    return i < 3 ? (uint64_t[]){0, 1, UINT64_MAX}[i] : i % 2 ? i : i * 0x9E3779B97F4A7C15u;
}

/* Of ids that were not added, so many in a thousand pass. */
static double passes(const struct lh_rowtable_filter *f, uint64_t from, uint64_t n)
{
    uint64_t passed = 0;
    for (uint64_t i = from; i < from + n; i++)
        passed += lh_rowtable_filter_may_have(f, id_of(i));
    return 1000 * (double)passed / (double)n;
}

static void filter_has_all_that_was_added_and_little_else(void **state)
{
    (void)state;
    enum { MANY = 200000 };
    static const size_t planned[] = {0, 1000, MANY};
    for (size_t k = 0; k < 3; k++) {
        struct lh_rowtable_filter_room room;
        atomic_init(&room.left, 10 << 20);
        struct lh_rowtable_filter *f = lh_rowtable_filter_create(&room, planned[k]);
        assert_non_null(f);
        for (uint64_t i = 0; i < MANY; i++)
            lh_rowtable_filter_add(&f, id_of(i));
        assert_non_null(f);
        for (uint64_t i = 0; i < MANY; i++)
            assert_true(lh_rowtable_filter_may_have(f, id_of(i)));
        const double passed = passes(f, MANY, 100000);
        if (passed > (planned[k] == MANY ? 15 : 60)) /* its parts add up */
            fail_msg("planned for %zu: %.1f in a thousand pass", planned[k], passed);
        const uint64_t before = lh_mem_count();
        for (uint64_t i = 0; i < MANY; i++)
            lh_rowtable_filter_add(&f, id_of(i)); /* once more: nothing new */
        assert_int_equal(lh_mem_count(), before);
        assert_true(10 << 20 > atomic_load(&room.left));
        assert_true((10 << 20) - atomic_load(&room.left) < 4 * MANY * 10 / 8 + 8192);
        lh_rowtable_filter_destroy(&f);
        lh_rowtable_filter_destroy(&f);
        assert_int_equal(atomic_load(&room.left), 10 << 20);
    }
}

static void filter_without_room_is_none(void **state)
{
    (void)state;
    struct lh_rowtable_filter_room room;
    struct lh_rowtable_filter *f;
    atomic_init(&room.left, 1000);
    assert_null(lh_rowtable_filter_create(&room, 0));
    assert_null(lh_rowtable_filter_create(&room, 1000));
    assert_int_equal(atomic_load(&room.left), 1000);
    f = lh_rowtable_filter_create(&room, 400);
    assert_non_null(f);
    for (uint64_t i = 0; f && i < 2000; i++) /* it cannot grow, and gives up */
        lh_rowtable_filter_add(&f, id_of(i));
    assert_null(f);
    lh_rowtable_filter_add(&f, 1);
    assert_int_equal(atomic_load(&room.left), 1000);
    atomic_store(&room.left, 1 << 20);
    for (uint64_t nth = 1; nth < 3; nth++) {
        lh_mem_fail_at(nth);
        assert_null(lh_rowtable_filter_create(&room, 0));
        lh_mem_fail_at(0);
    }
    assert_int_equal(atomic_load(&room.left), 1 << 20);
}

static void *come_and_go(void *arg)
{
    for (int i = 0; i < 300; i++) {
        struct lh_rowtable_filter *f = lh_rowtable_filter_create(arg, 100);
        for (uint64_t id = 0; id < 300; id++)
            lh_rowtable_filter_add(&f, id);
        lh_rowtable_filter_destroy(&f);
    }
    for (int i = 0; i < 20000; i++) { /* hardly anything else, so that threads do meet */
        struct lh_rowtable_filter *f = lh_rowtable_filter_create(arg, 1);
        lh_rowtable_filter_destroy(&f);
    }
    return NULL;
}

static void room_is_shared_by_threads(void **state)
{
    (void)state;
    struct lh_rowtable_filter_room room;
    pthread_t other;
    atomic_init(&room.left, 1500);
    assert_int_equal(pthread_create(&other, NULL, come_and_go, &room), 0);
    come_and_go(&room);
    pthread_join(other, NULL);
    assert_int_equal(atomic_load(&room.left), 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(filter_has_all_that_was_added_and_little_else),
        kit_test(filter_without_room_is_none),
        kit_test(room_is_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
