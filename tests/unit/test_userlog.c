#include "common/userlog.h"
#include "tests/testkit.h"

#include <string.h>

static uint64_t id(const char *text)
{
    return lh_userlog_id(text, strlen(text));
}

static void id_of_integer_is_itself_and_of_text_its_hash(void **state)
{
    (void)state;
    assert_int_equal(id("0"), 0);
    assert_int_equal(id("157541"), 157541);
    assert_int_equal(id("18446744073709551615"), UINT64_MAX);
    assert_int_not_equal(id("18446744073709551616"), 0);
    assert_int_not_equal(id("007"), 7);
    assert_int_not_equal(id("-1"), 1);
    assert_int_not_equal(id("u7"), id("u8"));
    assert_int_equal(id(""), UINT64_C(0x2d06800538d394c2)); /* the published hash of no bytes */
}

static void find_column_missing_names_the_nearest(void **state)
{
    (void)state;
    static const struct lh_column columns[] = {{.name = "rating", .type = LH_COLUMN_NUMBER},
                                               {.name = "movie", .type = LH_COLUMN_ID}};
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, "a: ratin\nb: movie\nc: zzzzzzzz\n", 29, "s.yaml"));
    const struct lh_yaml_node *root = lh_yaml_root(doc);
    size_t c = 9;
    assert_err(lh_userlog_read_column(columns, 2, lh_yaml_get(root, "a"), LH_COLUMN_NUMBER, &c),
               LH_ECONFIG, "s.yaml:1: a: there is no column 'ratin'; did you mean 'rating'?");
    assert_err(lh_userlog_read_column(columns, 2, lh_yaml_get(root, "b"), LH_COLUMN_NUMBER, &c),
               LH_ECONFIG, "column 'movie' is of type id; a number is needed here");
    assert_err(lh_userlog_read_column(columns, 2, lh_yaml_get(root, "c"), LH_COLUMN_ID, &c),
               LH_ECONFIG, "declare it under columns:");
    assert_ok(lh_userlog_read_column(columns, 2, lh_yaml_get(root, "b"), LH_COLUMN_ID, &c));
    assert_int_equal(c, 1);
    lh_yaml_destroy(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(id_of_integer_is_itself_and_of_text_its_hash),
        kit_test(find_column_missing_names_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
