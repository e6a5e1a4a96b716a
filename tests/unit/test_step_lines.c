#include "cluster/step_lines.h"
#include "tests/testkit.h"

#include "common/err.h"

#include <stdlib.h>

#define LINES "{\"step\": 2, \"x\": 1}\n{\"step\": 4, \"x\": 2}\n{\"step\": 9, \"x\": 3}\n"

static void expect(const char *before, uint64_t last, const char *after)
{
    const char *path = kit_path("lines.jsonl");
    FILE *f = NULL;
    kit_write(path, before);
    assert_ok(lh_step_lines_open(&f, path, last));
    fputs("{\"step\": 10}\n", f);
    fclose(f);
    char *text = kit_read(path, NULL);
    assert_string_equal(text, after);
    free(text);
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
    FILE *f = NULL;
    assert_err(lh_step_lines_open(&f, kit_path("missing/lines.jsonl"), 1), LH_ENOENT,
               "missing/lines.jsonl");
    assert_null(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_behind_a_step_drops_later_lines),
        kit_test(open_after_a_crash_drops_the_line_cut_off_and_what_is_no_line),
        kit_test(open_where_nothing_can_be_written_names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
