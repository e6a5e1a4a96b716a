/* Lines of steps: which stay, and that a disk that is full costs none. */
#include "cluster/step_lines.h"
#include "tests/testkit.h"

#include "common/err.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES "{\"step\": 2, \"x\": 1}\n{\"step\": 4, \"x\": 2}\n{\"step\": 9, \"x\": 3}\n"

static void assert_file(const char *expected)
{
    char *text = kit_read(kit_path("lines.jsonl"), NULL);
    assert_string_equal(text, expected);
    free(text);
}

static void expect(const char *before, uint64_t last, const char *after)
{
    const char *path = kit_path("lines.jsonl");
    struct lh_step_lines *l = NULL;
    kit_write(path, before);
    assert_ok(lh_step_lines_open(&l, path, last));
    assert_ok(lh_step_lines_print(l, "{\"step\": %d}\n", 10));
    assert_ok(lh_step_lines_close(&l));
    assert_ok(lh_step_lines_close(&l));
    assert_file(after);
}

static void open_behind_a_step_drops_later_lines(void **state)
{
    (void)state;
    expect(LINES, 9, LINES "{\"step\": 10}\n");
    expect(LINES, 8, "{\"step\": 2, \"x\": 1}\n{\"step\": 4, \"x\": 2}\n{\"step\": 10}\n");
    expect(LINES, 4, "{\"step\": 2, \"x\": 1}\n{\"step\": 4, \"x\": 2}\n{\"step\": 10}\n");
    expect(LINES, 0, "{\"step\": 10}\n");
}

static void open_after_a_crash_drops_the_line_cut_off_and_what_is_no_line(void **state)
{
    (void)state;
    expect("{\"step\": 2}\n{\"step\": 3, \"x\"", 9, "{\"step\": 2}\n{\"step\": 10}\n");
    expect("{\"step\": 2}\nnonsense\n{\"step\": 3}\n", 9, "{\"step\": 2}\n{\"step\": 10}\n");
    expect("", 9, "{\"step\": 10}\n");
}

static void open_where_nothing_can_be_written_names_the_file(void **state)
{
    (void)state;
    struct lh_step_lines *l = NULL;
    assert_err(lh_step_lines_open(&l, kit_path("missing/lines.jsonl"), 1), LH_ENOENT,
               "missing/lines.jsonl");
    assert_null(l);
}

static void flush_writes_whole_lines_however_they_were_printed(void **state)
{
    (void)state;
    struct lh_step_lines *l = NULL;
    char expected[9000] = "", long_text[4000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_ok(lh_step_lines_open(&l, kit_path("lines.jsonl"), 0));
    for (int step = 1; step <= 2; step++) {
        assert_ok(lh_step_lines_print(l, "{\"step\": %d", step));
        assert_ok(lh_step_lines_print(l, ", \"x\": \"%s\"", long_text));
        assert_ok(lh_step_lines_print(l, "}\n"));
        assert_ok(lh_step_lines_flush(l));
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected),
                 "{\"step\": %d, \"x\": \"%s\"}\n", step, long_text);
        assert_file(expected);
    }
    assert_ok(lh_step_lines_close(&l));
}

static void back_drops_later_lines_written_or_not(void **state)
{
    (void)state;
    struct lh_step_lines *l = NULL;
    assert_ok(lh_step_lines_open(&l, kit_path("lines.jsonl"), 0));
    for (int step = 1; step <= 6; step++) {
        assert_ok(lh_step_lines_print(l, "{\"step\": %d}\n", step));
        if (step == 3)
            assert_ok(lh_step_lines_flush(l));
    }
    assert_ok(lh_step_lines_back(l, 5));
    assert_ok(lh_step_lines_flush(l));
    assert_file("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"step\": 4}\n{\"step\": 5}\n");
    assert_ok(lh_step_lines_print(l, "{\"step\": 6}\n"));
    assert_ok(lh_step_lines_back(l, 2));
    assert_ok(lh_step_lines_print(l, "{\"step\": 3, \"again\": true}\n"));
    assert_ok(lh_step_lines_close(&l));
    assert_file("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3, \"again\": true}\n");
}

/* The descriptor of the file, among those of this process. */
static int descriptor(void)
{
    char name[64], path[512];
    for (int fd = 3; fd < 64; fd++) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, path, sizeof path - 1);
        path[n > 0 ? n : 0] = '\0';
        if (strstr(path, "/lines.jsonl"))
            return fd;
    }
    fail_msg("the file is not open");
    return -1;
}

static void what_a_full_disk_does_not_take_is_written_when_it_does(void **state)
{
    (void)state;
    struct lh_step_lines *l = NULL;
    assert_ok(lh_step_lines_open(&l, kit_path("lines.jsonl"), 0));
    assert_ok(lh_step_lines_print(l, "{\"step\": 1}\n"));
    assert_ok(lh_step_lines_flush(l));
    int fd = descriptor(), there = dup(fd), full = open("/dev/full", O_WRONLY);
    assert_true(there >= 0 && full >= 0);
    assert_int_equal(dup2(full, fd), fd); /* the disk fills up behind its back */
    assert_ok(lh_step_lines_print(l, "{\"step\": 2}\n"));
    assert_ok(lh_step_lines_flush(l));
    assert_ok(lh_step_lines_print(l, "{\"step\": 3}\n"));
    assert_ok(lh_step_lines_flush(l));
    assert_int_equal(dup2(there, fd), fd);
    assert_file("{\"step\": 1}\n");
    assert_ok(lh_step_lines_flush(l));
    assert_file("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n");
    /* who closes it is told what is lost */
    assert_int_equal(dup2(full, fd), fd);
    assert_ok(lh_step_lines_print(l, "{\"step\": 4}\n"));
    assert_ok(lh_step_lines_flush(l));
    assert_err(lh_step_lines_close(&l), LH_ENOSPC, "lines.jsonl");
    assert_null(l);
    close(full);
    close(there);
}

static void what_waits_for_a_disk_is_bounded(void **state)
{
    (void)state;
    struct lh_step_lines *l = NULL;
    char *text = NULL;
    assert_ok(lh_step_lines_open(&l, kit_path("lines.jsonl"), 0));
    int fd = descriptor(), full = open("/dev/full", O_WRONLY);
    assert_int_equal(dup2(full, fd), fd);
    assert_ok(LH_NEW_ARRAY(&text, LH_STEP_LINES_MAX / 4, "test"));
    memset(text, 'x', LH_STEP_LINES_MAX / 4 - 1);
    for (int i = 0; i < 4; i++) {
        assert_ok(lh_step_lines_flush(l));
        assert_ok(lh_step_lines_print(l, "{\"step\": 1, \"x\": \"%s\"}\n", text));
    }
    assert_err(lh_step_lines_flush(l), LH_ENOSPC, "lines.jsonl");
    assert_err(lh_step_lines_close(&l), LH_ENOSPC, "lines.jsonl");
    lh_mem_free(text);
    close(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_behind_a_step_drops_later_lines),
        kit_test(open_after_a_crash_drops_the_line_cut_off_and_what_is_no_line),
        kit_test(open_where_nothing_can_be_written_names_the_file),
        kit_test(flush_writes_whole_lines_however_they_were_printed),
        kit_test(back_drops_later_lines_written_or_not),
        kit_test(what_a_full_disk_does_not_take_is_written_when_it_does),
        kit_test(what_waits_for_a_disk_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
