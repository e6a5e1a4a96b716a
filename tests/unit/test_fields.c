/* CSV lines cut in place. */
#include "cluster/fields.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

static void assert_fields(const char *line, char separator, const char *expected)
{
    struct lh_fields f = {0};
    char text[128], joined[128] = "";
    snprintf(text, sizeof text, "%s", line);
    assert_ok(lh_fields_split(&f, text, separator));
    for (size_t i = 0; i < f.n; i++) {
        strcat(joined, i ? "|" : "");
        strcat(joined, f.field[i]);
    }
    assert_string_equal(joined, expected);
    lh_fields_fini(&f);
}

static void split_understands_quotes(void **state)
{
    (void)state;
    assert_fields("a,b,c", ',', "a|b|c");
    assert_fields("", ',', "");
    assert_fields(",", ',', "|");
    assert_fields("a,,c,", ',', "a||c|");
    assert_fields("\"a,b\",c", ',', "a,b|c");
    assert_fields("\"a \"\"b\"\"\",\"\"", ',', "a \"b\"|");
    assert_fields("a\"b,c", ',', "a\"b|c");
    assert_fields("a;\"b;c\"", ';', "a|b;c");
    struct lh_fields f = {0};
    char open[] = "a,\"b", behind[] = "\"a\"b,c";
    assert_err(lh_fields_split(&f, open, ','), LH_EFORMAT, "field 2: the quote is not closed");
    assert_err(lh_fields_split(&f, behind, ','), LH_EFORMAT, "field 1: 'b' behind the closing");
    lh_fields_fini(&f);
}

static void number_is_finite_or_nothing(void **state)
{
    (void)state;
    float x = 0;
    assert_int_equal(lh_fields_number(" 1.5 ", &x), 0);
    assert_true(x == 1.5f);
    static const char *const bad[] = {"", " ", "x", "1x", "nan", "inf", "1e39", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (lh_fields_number(bad[i], &x) == 0)
            fail_msg("'%s' was taken for a number", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(split_understands_quotes),
        kit_test(number_is_finite_or_nothing),
    };
    return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
