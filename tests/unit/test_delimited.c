#include "common/delimited.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All records as "a|b;c|d;" with the line of each in front. */
static void expect(const char *text, const char *separator, const char *want)
{
    struct lh_delimited d;
    char got[512] = "";
    kit_write(kit_path("t.csv"), text);
    assert_ok(lh_delimited_open(&d, kit_dir(), "t.csv", separator));
    int rc;
    while ((rc = lh_delimited_next(&d)) == 0) {
        sprintf(got + strlen(got), "%zu:", d.line);
        for (size_t k = 0; k < d.n_fields; k++)
            sprintf(got + strlen(got), "%s%s", k ? "|" : "", d.field[k]);
        strcat(got, ";");
    }
    assert_int_equal(rc, LH_NOTFOUND);
    assert_string_equal(got, want);
    lh_delimited_close(&d);
}

static void next_cuts_records_at_separators(void **state)
{
    (void)state;
    expect("a,b\n1,2\n", ",", "1:a|b;2:1|2;");
    expect("1::\"F\"::x,y\n2::::\n", "::", "1:1|\"F\"|x,y;2:2||;");
    expect("a\tb", "\t", "1:a|b;"); /* no line end */
    expect("", ",", "");
    expect("\n\n", ",", "");
    expect("\xef\xbb\xbf"
           "a,b\r\n\r\n1,\r\n",
           ",", "1:a|b;3:1|;");
}

static void next_unfolds_quotes(void **state)
{
    (void)state;
    expect("1,\"a, \"\"b\"\"\",2\n", ",", "1:1|a, \"b\"|2;");
    expect("\"\",\"x\ny\"\r\nz\n", ",", "1:|x\ny;3:z;");
    expect("a\"b,c\n", ",", "1:a\"b|c;");
}

static void next_bad_record_names_file_and_line(void **state)
{
    (void)state;
    struct lh_delimited d;
    kit_write(kit_path("t.csv"), "ok\n\"open\n");
    assert_ok(lh_delimited_open(&d, kit_dir(), "t.csv", ","));
    assert_ok(lh_delimited_next(&d));
    assert_err(lh_delimited_next(&d), LH_EFORMAT, "t.csv:2: a quoted field does not end");
    lh_delimited_close(&d);
    kit_write(kit_path("t.csv"), "\"a\"b,c\n");
    assert_ok(lh_delimited_open(&d, kit_dir(), "t.csv", ","));
    assert_err(lh_delimited_next(&d), LH_EFORMAT, "t.csv:1: there is text behind a closing quote");
    lh_delimited_close(&d);
    kit_write_bytes(kit_path("t.csv"), "a\0b\n", 4);
    assert_ok(lh_delimited_open(&d, kit_dir(), "t.csv", ","));
    assert_err(lh_delimited_next(&d), LH_EFORMAT, "zero byte");
    lh_delimited_close(&d);
}

static void open_reads_compressed_and_names_missing(void **state)
{
    (void)state;
    struct lh_delimited d;
    char *out = NULL;
    kit_write(kit_path("z.csv"), "a,b\n");
    assert_int_equal(kit_run(&out, "gzip %s", kit_path("z.csv")), 0);
    free(out);
    assert_ok(lh_delimited_open(&d, kit_dir(), "z.csv", ","));
    assert_ok(lh_delimited_next(&d));
    assert_string_equal(d.field[1], "b");
    lh_delimited_close(&d);
    assert_err(lh_delimited_open(&d, kit_dir(), "none.csv", ","), LH_ENOENT,
               "none.csv: no such file");
    lh_delimited_close(&d);
    kit_write_bytes(kit_path("cut.csv.gz"), "\x1f\x8b\x08\0\0\0\0\0\0\3\x4b", 11);
    assert_ok(lh_delimited_open(&d, kit_dir(), "cut.csv", ","));
    assert_err(lh_delimited_next(&d), LH_EFORMAT, "cut.csv.gz");
    lh_delimited_close(&d);
    assert_err(lh_delimited_open(&d, kit_dir(), "cut.csv", "123456789"), LH_ECONFIG, "1 to 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(next_cuts_records_at_separators),
        kit_test(next_unfolds_quotes),
        kit_test(next_bad_record_names_file_and_line),
        kit_test(open_reads_compressed_and_names_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
