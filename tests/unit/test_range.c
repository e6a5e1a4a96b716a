#include "common/range.h"
#include "tests/testkit.h"

static void parse_names_every_member(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *first, *last;
    } good[] = {
        {"state_0..state_90", 91, "state_0", "state_90"},
        {"w_8..11", 4, "w_8", "w_11"},
        {"1..28", 28, "1", "28"},
        {"x_00..x_11", 12, "x_00", "x_11"},
        {"v7..v7", 1, "v7", "v7"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct lh_range r;
        char *name = NULL;
        assert_true(lh_range_parse(good[i].text, &r));
        assert_int_equal(lh_range_count(&r), good[i].n);
        assert_ok(lh_range_name(&r, 0, &name));
        assert_string_equal(name, good[i].first);
        lh_mem_free(name);
        assert_ok(lh_range_name(&r, good[i].n - 1, &name));
        assert_string_equal(name, good[i].last);
        lh_mem_free(name);
    }
}

static void parse_refuses_what_is_no_range(void **state)
{
    (void)state;
    static const char *const bad[] = {"state",    "state_0", "a..b",          "a_1..b_2",
                                      "a_2..a_1", "..",      "1..",           "a_1..a_1x",
                                      "0..65536", "a_1..a_", "1..9999999999", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_range r;
        if (lh_range_parse(bad[i], &r))
            fail_msg("'%s' was taken for a range", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(parse_names_every_member),
        kit_test(parse_refuses_what_is_no_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
