#include "common/arena.h"
#include "tests/testkit.h"

#include <string.h>

static void measure_then_carve_needs_exactly_the_measured_size(void **state)
{
    (void)state;
    size_t sizes[] = {1, 64, 65, 1000, 0, 7};
    struct lh_arena m, a;
    void *p;
    lh_arena_init_measure(&m);
    for (size_t i = 0; i < 6; i++)
        assert_ok(lh_arena_alloc(&m, &p, sizes[i], 4));
    assert_ok(lh_arena_init(&a, m.used, "t"));
    for (size_t i = 0; i < 6; i++) {
        assert_ok(lh_arena_alloc(&a, &p, sizes[i], 4));
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 0xab, sizes[i] * 4);
    }
    assert_int_equal(a.used, a.size);
    assert_err(lh_arena_alloc(&a, &p, 64, 1), LH_ENOMEM, "spent");
    lh_arena_fini(&a);
    lh_arena_fini(&a);
}

static void overflow_is_an_error(void **state)
{
    (void)state;
    struct lh_arena m;
    void *p;
    lh_arena_init_measure(&m);
    assert_err(lh_arena_alloc(&m, &p, SIZE_MAX, 8), LH_ERANGE, "does not fit");
    assert_err(lh_arena_alloc(&m, &p, SIZE_MAX - 8, 1), LH_ERANGE, "does not fit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(measure_then_carve_needs_exactly_the_measured_size),
        kit_test(overflow_is_an_error),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
