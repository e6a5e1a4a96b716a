#include "common/idmap.h"
#include "tests/testkit.h"

static void add_numbers_ids_in_order_and_finds_them(void **state)
{
    (void)state;
    struct lh_idmap m = {0};
    uint32_t k = 9;
    assert_int_equal(lh_idmap_find(&m, 5), LH_IDMAP_NONE);
    for (uint64_t i = 0; i < 10000; i++) {
        assert_ok(lh_idmap_add(&m, i * UINT64_C(0x9e3779b97f4a7c15), &k));
        assert_int_equal(k, i);
    }
    assert_ok(lh_idmap_add(&m, 0, &k));
    assert_int_equal(k, 0);
    assert_int_equal(m.n, 10000);
    for (uint64_t i = 0; i < 10000; i++)
        assert_int_equal(lh_idmap_find(&m, i * UINT64_C(0x9e3779b97f4a7c15)), i);
    assert_int_equal(lh_idmap_find(&m, 12345), LH_IDMAP_NONE);
    lh_idmap_fini(&m);
    assert_int_equal(lh_idmap_find(&m, 0), LH_IDMAP_NONE);
}

static void add_survives_failed_allocations(void **state)
{
    (void)state;
    struct lh_idmap m = {0};
    uint32_t k;
    int refused = 0;
    for (uint64_t i = 0; i < 500; i++) {
        lh_mem_fail_at(1);
        if (lh_idmap_add(&m, i, &k) == LH_ENOMEM) {
            refused++;
            lh_mem_fail_at(0);
            assert_ok(lh_idmap_add(&m, i, &k));
        }
        lh_mem_fail_at(0);
        assert_int_equal(k, i);
    }
    assert_true(refused > 3);
    lh_idmap_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(add_numbers_ids_in_order_and_finds_them),
        kit_test(add_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
