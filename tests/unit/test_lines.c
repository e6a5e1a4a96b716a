/* Lines as they arrive: whole, counted, and known to be there before one waits for them. */
#include "cluster/lines.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void next_ends_with_or_without_a_line_end(void **state)
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

static void next_longer_than_the_buffer_come_whole(void **state)
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

static void next_refuses_nul_bytes_and_directories(void **state)
{
    (void)state;
    struct lh_lines *l = NULL;
    char *line;
    size_t n;
    kit_write_bytes(kit_path("t"), "one\ntw\0o\n", 9);
    assert_ok(lh_lines_open(&l, kit_path("t")));
    assert_ok(lh_lines_next(l, &line, &n));
    assert_err(lh_lines_next(l, &line, &n), LH_EFORMAT, "t:2: ");
    lh_lines_close(&l);
    int rc = lh_lines_open(&l, kit_dir());
    if (rc == 0)
        rc = lh_lines_next(l, &line, &n);
    assert_err(rc, LH_EIO, kit_dir());
    lh_lines_close(&l);
}

/* Of a pipe: a line that is there is ready, half a line is not, and the end is. */
static void ready_tells_what_a_pipe_holds(void **state)
{
    (void)state;
    struct lh_lines *l = NULL;
    char *line, name[32];
    size_t n;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    assert_int_equal(write(ends[1], "a\nb\nc", 5), 5);
    assert_ok(lh_lines_open(&l, name));
    for (int i = 0; i < 2; i++) {
        assert_true(lh_lines_ready(l));
        assert_ok(lh_lines_next(l, &line, &n));
        assert_string_equal(line, i ? "b" : "a");
    }
    assert_false(lh_lines_ready(l));
    close(ends[1]);
    assert_true(lh_lines_ready(l));
    assert_ok(lh_lines_next(l, &line, &n));
    assert_string_equal(line, "c");
    assert_int_equal(lh_lines_next(l, &line, &n), LH_NOTFOUND);
    lh_lines_close(&l);
    close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(next_ends_with_or_without_a_line_end),
        kit_test(next_longer_than_the_buffer_come_whole),
        kit_test(next_refuses_nul_bytes_and_directories),
        kit_test(ready_tells_what_a_pipe_holds),
    };
    return cmocka_run_group_tests_name("lines", tests, NULL, NULL);
}
