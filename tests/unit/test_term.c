#include "common/term.h"
#include "tests/testkit.h"

#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char *printed(const struct lh_table *t)
{
    FILE *f = fopen(kit_path("table"), "w");
    assert_non_null(f);
    lh_table_print(t, f);
    fclose(f);
    return kit_read(kit_path("table"), NULL);
}

static void table_aligns_numbers_right_and_text_left(void **state)
{
    (void)state;
    struct lh_table *t = NULL;
    assert_ok(lh_table_create(&t, (const char *const[]){"policy", "value", "note"}, 3));
    assert_ok(lh_table_cell(t, "il"));
    assert_ok(lh_table_cell(t, "%.2f", 1.5));
    assert_ok(lh_table_cell(t, "%s", ""));
    assert_ok(lh_table_cell(t, "r\303\251sact"));
    assert_ok(lh_table_cell(t, "%.2f \302\261 %.2f", 12.25, 0.5));
    assert_ok(lh_table_cell(t, "best"));
    char *text = printed(t);
    assert_string_equal(text, "policy         value  note\n"
                              "------  ------------  ----\n"
                              "il              1.50\n"
                              "r\303\251sact  12.25 \302\261 0.50  best\n");
    free(text);
    lh_table_destroy(&t);
    assert_null(t);
}

static void table_column_of_nothing_leaves_no_blanks(void **state)
{
    (void)state;
    struct lh_table *t = NULL;
    assert_ok(lh_table_create(&t, (const char *const[]){"a", ""}, 2));
    assert_ok(lh_table_cell(t, "1"));
    assert_ok(lh_table_cell(t, "%s", ""));
    char *text = printed(t);
    assert_string_equal(text, "a\n-\n1\n");
    free(text);
    lh_table_destroy(&t);
}

static void table_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct lh_table *t = NULL;
        lh_mem_fail_at(n);
        int rc = lh_table_create(&t, (const char *const[]){"a", "b"}, 2);
        if (rc == 0)
            rc = lh_table_cell(t, "%d", 1);
        lh_mem_fail_at(0);
        lh_table_destroy(&t);
        if (rc == 0) {
            assert_true(n > 4);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

/* What `show` writes on stderr while it is a file, no terminal. */
static char *captured(void (*show)(void))
{
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_non_null(freopen(kit_path("stderr"), "w", stderr));
    show();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    return kit_read(kit_path("stderr"), NULL);
}

static void run_to_the_end(void)
{
    struct lh_progress p;
    lh_progress_start(&p, "train", "rows", 2000000, false);
    p.started -= 10; /* as if ten seconds had passed */
    p.shown -= 10;
    lh_progress_update(&p, 500000);
    lh_progress_update(&p, 600000); /* too soon for another line */
    snprintf(p.extra, sizeof p.extra, "loss 0.5");
    lh_progress_update(&p, 9000000);
    lh_progress_finish(&p);
}

static void quiet_run(void)
{
    struct lh_progress p;
    lh_progress_start(&p, "train", "rows", 10, true);
    p.shown -= 10;
    lh_progress_update(&p, 5);
    lh_progress_finish(&p);
}

static void progress_writes_plain_lines_to_a_file(void **state)
{
    (void)state;
    char *text = captured(run_to_the_end);
    assert_string_equal(text, "train:  25%  50.0k rows/s  ETA 0:30\n"
                              "train: 100%  2.0M rows  200k rows/s  in 0:10  loss 0.5\n");
    free(text);
}

static void progress_quiet_writes_nothing(void **state)
{
    (void)state;
    char *text = captured(quiet_run);
    assert_string_equal(text, "");
    free(text);
}

/* What `show` writes on a terminal of so many columns, up to `end`. */
static void on_terminal(void (*show)(void), unsigned short columns, const char *end, char *out,
                        size_t size)
{
    struct winsize w = {.ws_row = 24, .ws_col = columns};
    struct pollfd p = {.events = POLLIN};
    int slave;
    assert_int_equal(openpty(&p.fd, &slave, NULL, NULL, &w), 0);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    dup2(slave, STDERR_FILENO);
    show();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    size_t n = 0;
    for (out[0] = '\0'; !strstr(out, end); out[n] = '\0') {
        ssize_t got = poll(&p, 1, 10000) == 1 ? read(p.fd, out + n, size - 1 - n) : 0;
        if (got <= 0)
            fail_msg("'%s' did not come, but '%s'", end, out);
        n += (size_t)got;
    }
    close(slave);
    close(p.fd);
}

static void half_an_hour(void)
{
    struct lh_progress p;
    lh_progress_start(&p, "train", "rows", 100, false);
    p.started -= 1800;
    p.shown -= 1;
    lh_progress_update(&p, 20);
    lh_note("by the way");
    p.shown -= 1;
    lh_progress_update(&p, 100);
    lh_progress_finish(&p);
}

static void of_unknown_length(void)
{
    struct lh_progress p;
    lh_progress_start(&p, "read", "rows", 0, false);
    p.started -= 2;
    p.shown -= 1;
    lh_progress_update(&p, 5000);
    lh_progress_finish(&p);
}

static void progress_redraws_one_line_of_a_terminal(void **state)
{
    (void)state;
    char text[2048];
    on_terminal(half_an_hour, 60, "in 30:00\r\n", text, sizeof text);
    kit_assert_contains(text,
                        "\rtrain  [####................]  20%  0.0 rows/s  ETA 2:00:00\033[K");
    kit_assert_contains(text, "\r\033[Klonghaul: by the way\r\n");
    kit_assert_contains(text, "\r\033[Ktrain: 100%  100 rows  0.1 rows/s  in 30:00\r\n");
    /* no room for a bar, and a line is cut before it would wrap */
    on_terminal(half_an_hour, 30, "in 30:00\r\n", text, sizeof text);
    kit_assert_contains(text, "\rtrain   20%  0.0 rows/s  ETA \033[K");
    assert_null(strchr(text, '#'));
    on_terminal(of_unknown_length, 80, "in 0:02\r\n", text, sizeof text);
    kit_assert_contains(text, "\rread  5000 rows  2500 rows/s\033[K");
}

static void a_note(void)
{
    lh_note("%s %d", "seven", 7);
}

static void note_is_one_line_with_the_name(void **state)
{
    (void)state;
    char *text = captured(a_note);
    assert_string_equal(text, "longhaul: seven 7\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(table_aligns_numbers_right_and_text_left),
        kit_test(table_column_of_nothing_leaves_no_blanks),
        kit_test(table_survives_every_failed_allocation),
        kit_test(progress_writes_plain_lines_to_a_file),
        kit_test(progress_quiet_writes_nothing),
        kit_test(progress_redraws_one_line_of_a_terminal),
        kit_test(note_is_one_line_with_the_name),
    };
    return cmocka_run_group_tests_name("term", tests, NULL, NULL);
}
