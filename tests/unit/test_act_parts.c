/* What `longhaul act` is made of, part by part: fields, lines, items, states. The command as a
 * whole is tested from outside in tests/cli. */
#include "cluster/fields.h"
#include "cluster/items.h"
#include "cluster/lines.h"
#include "cluster/state_read.h"
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

static void fields_understand_quotes(void **state)
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

static void fields_number_is_finite_or_nothing(void **state)
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

static void lines_end_with_or_without_a_line_end(void **state)
{
    (void)state;
    struct lh_lines *l = NULL;
    char *line;
    size_t n;
    kit_write(kit_path("t"), "\xef\xbb\xbfone\r\n\nthree");
    assert_ok(lh_lines_open(&l, kit_path("t")));
    static const char *const expected[] = {"one", "", "three"};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(lh_lines_next(l, &line, &n));
        assert_string_equal(line, expected[i]);
        assert_int_equal(n, strlen(expected[i]));
        assert_int_equal(lh_lines_number(l), i + 1);
    }
    assert_int_equal(lh_lines_next(l, &line, &n), LH_NOTFOUND);
    lh_lines_close(&l);
    assert_err(lh_lines_open(&l, kit_path("none")), LH_ENOENT, "none");
}

static void lines_longer_than_the_buffer_come_whole(void **state)
{
    (void)state;
    struct lh_lines *l = NULL;
    char *line;
    size_t n;
    FILE *f = fopen(kit_path("t"), "w");
    for (int i = 0; i < 40000; i++)
        fprintf(f, "%d,", i);
    fputs("\nshort\n", f);
    fclose(f);
    assert_ok(lh_lines_open(&l, kit_path("t")));
    assert_ok(lh_lines_next(l, &line, &n));
    assert_int_equal(n, 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5 + 30000 * 6);
    assert_string_equal(line + n - 6, "39999,");
    assert_ok(lh_lines_next(l, &line, &n));
    assert_string_equal(line, "short");
    lh_lines_close(&l);
}

static void rank_is_by_score_then_by_order(void **state)
{
    (void)state;
    struct lh_items *items = NULL;
    struct lh_item_score best[8];
    const float action[3] = {1, 2, -1};
    kit_write(kit_path("i.csv"), "a,1,0,0\nb,0,1,0\nc,0,0,-1\nd,1,1,0\ne,3,0,0\n");
    assert_ok(lh_items_load(&items, kit_path("i.csv"), NULL, 3));
    assert_int_equal(lh_items_count(items), 5);
    assert_int_equal(lh_items_rank(items, action, 3, best), 3);
    assert_string_equal(best[0].id, "d"); /* 3, before e, which has 3 too */
    assert_string_equal(best[1].id, "e");
    assert_string_equal(best[2].id, "b");
    assert_true(best[0].score == 3 && best[2].score == 2);
    assert_int_equal(lh_items_rank(items, action, 8, best), 5);
    assert_string_equal(best[3].id, "a");
    assert_string_equal(best[4].id, "c");
    lh_items_destroy(&items);
    kit_write(kit_path("i.csv"), "id,e_0,e_1,e_2\n");
    assert_err(lh_items_load(&items, kit_path("i.csv"), NULL, 3), LH_EFORMAT, "no items");
}

static void load_survives_every_failed_allocation(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "y"};
    static const char *const keep[] = {"k"};
    const struct lh_state_spec spec = {.dims = {.high = 1, .low = 1, .action = 1},
                                       .high_names = names,
                                       .low_names = names + 1,
                                       .separator = ',',
                                       .keep = keep,
                                       .n_keep = 1};
    kit_write(kit_path("i.csv"), "id,e_0\na,1\nb,2\n");
    kit_write(kit_path("s.csv"), "y,k,x\n1,q,2\n");
    for (uint64_t at = 1;; at++) {
        struct lh_items *items = NULL;
        struct lh_lines *l = NULL;
        struct lh_state_reader *r = NULL;
        const char *kept[1];
        char *line;
        size_t n;
        float high = 0, low = 0;
        bool json;
        lh_mem_fail_at(at);
        int rc = lh_items_load(&items, kit_path("i.csv"), NULL, 1);
        if (rc == 0)
            rc = lh_lines_open(&l, kit_path("s.csv"));
        if (rc == 0)
            rc = lh_state_reader_create(&r, &spec);
        for (int i = 0; i < 2 && rc >= 0; i++) {
            rc = lh_lines_next(l, &line, &n);
            if (rc == 0)
                rc = lh_state_reader_line(r, l, line, n, &high, &low, kept, &json);
        }
        lh_mem_fail_at(0);
        if (rc == 0) {
            assert_true(high == 2 && low == 1);
            assert_string_equal(kept[0], "q");
        }
        lh_state_reader_destroy(&r);
        lh_lines_close(&l);
        lh_items_destroy(&items);
        if (rc == 0) {
            assert_true(at > 10);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(fields_understand_quotes),
        kit_test(fields_number_is_finite_or_nothing),
        kit_test(lines_end_with_or_without_a_line_end),
        kit_test(lines_longer_than_the_buffer_come_whole),
        kit_test(rank_is_by_score_then_by_order),
        kit_test(load_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("act_parts", tests, NULL, NULL);
}
