/* Items: which columns are whose, and which items are best. */
#include "cluster/items.h"
#include "tests/testkit.h"

static void rank_is_by_score_then_by_order(void **state)
{
    (void)state;
    struct lh_items *items = NULL;
    struct lh_item_score best[8];
    const float action[3] = {1, 2, -1};
    kit_write(kit_path("i.csv"), "a,1,0,0\nb,0,1,0\nc,0,0,-1\nd,1,1,0\ne,3,0,0\n");
    assert_ok(lh_items_load(&items, kit_path("i.csv"), NULL, 3));
    assert_int_equal(lh_items_rank(items, action, 3, best), 3);
    assert_string_equal(best[0].id, "d"); /* 3, before e, which has 3 too */
    assert_string_equal(best[1].id, "e");
    assert_string_equal(best[2].id, "b");
    assert_true(best[0].score == 3 && best[2].score == 2);
    assert_int_equal(lh_items_rank(items, action, 8, best), 5);
    assert_string_equal(best[3].id, "a");
    assert_string_equal(best[4].id, "c");
    lh_items_destroy(&items);
}

static void load_finds_columns_by_name_or_takes_them_in_order(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "y"};
    static const struct {
        const char *text;
        float x, y;
    } good[] = {{"id,y,more,x\na,1,9,2\n", 2, 1}, {"id,e_0,e_1\na,1,2\n", 1, 2}, {"a,1,2\n", 1, 2}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct lh_items *items = NULL;
        struct lh_item_score best;
        kit_write(kit_path("i.csv"), good[i].text);
        assert_ok(lh_items_load(&items, kit_path("i.csv"), names, 2));
        assert_int_equal(lh_items_rank(items, (float[]){1, 0}, 1, &best), 1);
        assert_true(best.score == good[i].x);
        assert_int_equal(lh_items_rank(items, (float[]){0, 1}, 1, &best), 1);
        assert_true(best.score == good[i].y);
        lh_items_destroy(&items);
    }
}

static void load_names_the_line_it_cannot_read(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "y"};
    static const struct {
        const char *text;
        int code;
        const char *says;
    } bad[] = {
        {"id,e_0,e_1\n", LH_EFORMAT, "no items"},
        {"", LH_EFORMAT, "no items"},
        {"id,x,z\na,1,2\n", LH_EMISMATCH, "i.csv:1: 1 of the 2 action columns"},
        {"a,1,2\n\nb,1\n", LH_EMISMATCH, "i.csv:3: 2 columns; an id and 2 numbers"},
        {"a,1,2\n,1,2\n", LH_EFORMAT, "i.csv:2: the id is empty"},
        {"a,1,2\nb,1,nan\n", LH_EFORMAT, "i.csv:2: column 3: 'nan' is not a finite number"},
        {"id,more,y,x\na,1,2\n", LH_EFORMAT, "i.csv:2: column 4: '' is not a finite number"},
        {"a,1,\"2\n", LH_EFORMAT, "i.csv:1: field 3: the quote is not closed"},
    };
    struct lh_items *items = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kit_write(kit_path("i.csv"), bad[i].text);
        assert_err(lh_items_load(&items, kit_path("i.csv"), names, 2), bad[i].code, bad[i].says);
        assert_null(items);
    }
    assert_err(lh_items_load(&items, kit_path("none.csv"), names, 2), LH_ENOENT, "none.csv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(rank_is_by_score_then_by_order),
        kit_test(load_finds_columns_by_name_or_takes_them_in_order),
        kit_test(load_names_the_line_it_cannot_read),
    };
    return cmocka_run_group_tests_name("items", tests, NULL, NULL);
}
