/* What every command owes its user, asked of the program from outside. */
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

/* Calls `check` with each command's name. */
static void each_command(void (*check)(const char *name))
{
    char *list = NULL;
    size_t n = 0;
    assert_int_equal(kit_run(&list, PROGRAM " help --list"), 0);
    for (char *name = strtok(list, "\n"); name; name = strtok(NULL, "\n"), n++)
        check(name);
    free(list);
    assert_true(n >= 12);
}

static void page_is_whole(const char *name)
{
    static const char *const parts[] = {"NAME\n",     "SYNOPSIS\n",    "DESCRIPTION\n", "OPTIONS\n",
                                        "EXAMPLES\n", "EXIT STATUS\n", "-h, --help\n"};
    char *page = NULL, *same = NULL;
    assert_int_equal(kit_run(&page, PROGRAM " %s --help", name), 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        kit_assert_contains(page, parts[i]);
    assert_int_equal(kit_run(&same, PROGRAM " help %s", name), 0);
    assert_string_equal(page, same);
    free(same);
    /* nothing but long words runs over the width of a terminal */
    for (const char *line = page; *line;) {
        size_t k = strcspn(line, "\n");
        if (k > 100)
            fail_msg("%s --help: a line of %zu characters: %.*s", name, k, (int)k, line);
        line += k + (line[k] == '\n');
    }
    free(page);
}

static void every_command_has_a_whole_page(void **state)
{
    (void)state;
    each_command(page_is_whole);
}

static void roff_is_clean(const char *name)
{
    char *page = NULL;
    assert_int_equal(kit_run(&page, PROGRAM " help --man %s", name), 0);
    if (strncmp(page, ".TH LONGHAUL", 12) != 0)
        fail_msg("help --man %s begins with %.40s", name, page);
    for (const char *line = page; *line;) {
        size_t k = strcspn(line, "\n");
        if (*line == '.' && strncmp(line, ".TH ", 4) != 0 && strncmp(line, ".SH ", 4) != 0 &&
            strncmp(line, ".TP", 3) != 0 && strncmp(line, ".B ", 3) != 0 &&
            strncmp(line, ".BR ", 4) != 0 && strncmp(line, ".PP", 3) != 0 &&
            strncmp(line, ".nf", 3) != 0 && strncmp(line, ".fi", 3) != 0)
            fail_msg("help --man %s: text taken for a request: %.*s", name, (int)k, line);
        line += k + (line[k] == '\n');
    }
    free(page);
}

static void every_page_is_clean_roff(void **state)
{
    (void)state;
    each_command(roff_is_clean);
    roff_is_clean("job");
    roff_is_clean("");
}

static void unknown_option_is_refused(const char *name)
{
    char *out = NULL, expected[128];
    int status = kit_run(&out, PROGRAM " %s --xyzzy </dev/null", name);
    snprintf(expected, sizeof expected, "longhaul: %s: unknown option '--xyzzy'", name);
    if (status != 2 || strncmp(out, expected, strlen(expected)) != 0)
        fail_msg("%s --xyzzy: status %d: %s", name, status, out);
    if (strchr(out, '\n') != out + strlen(out) - 1)
        fail_msg("%s --xyzzy: more than one line: %s", name, out);
    free(out);
}

static void every_command_refuses_an_unknown_option_in_one_line(void **state)
{
    (void)state;
    each_command(unknown_option_is_refused);
}

static void expect(int status, const char *text, const char *command)
{
    char *out = NULL;
    int got = kit_run(&out, "%s", command);
    if (got != status || !strstr(out, text))
        fail_msg("%s: status %d instead of %d, said: %s", command, got, status, out);
    free(out);
}

static void program_says_what_it_is(void **state)
{
    (void)state;
    expect(0, "longhaul " LH_VERSION "\n", PROGRAM " --version");
    expect(0, "usage: longhaul COMMAND", PROGRAM " --help");
    expect(0, "usage: longhaul COMMAND", PROGRAM " help");
    expect(2, "a command is needed", PROGRAM);
    expect(2, "unknown command 'trian'; did you mean 'train'?", PROGRAM " trian");
    expect(2, "unknown command 'trian'; did you mean 'train'?", PROGRAM " help trian");
    expect(0, "batch: 4096\n", PROGRAM " help job");
}

static void output_that_cannot_be_written_is_a_failure(void **state)
{
    (void)state;
    expect(4, "longhaul: standard output: No space left on device", PROGRAM " help > /dev/full");
    expect(4, "longhaul: standard output: No space left on device",
           PROGRAM " --version > /dev/full");
}

/* The program starts itself over with one BLAS thread; arguments and input must survive that. */
static void restart_keeps_arguments_and_environment(void **state)
{
    (void)state;
    expect(0, "longhaul " LH_VERSION "\n", "OPENBLAS_NUM_THREADS=7 " PROGRAM " --version");
    expect(0, "longhaul " LH_VERSION "\n", "env -u OPENBLAS_NUM_THREADS " PROGRAM " --version");
    expect(2, "unknown command 'a b'", "env -u OPENBLAS_NUM_THREADS " PROGRAM " 'a b'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(every_command_has_a_whole_page),
        kit_test(every_page_is_clean_roff),
        kit_test(every_command_refuses_an_unknown_option_in_one_line),
        kit_test(program_says_what_it_is),
        kit_test(output_that_cannot_be_written_is_a_failure),
        kit_test(restart_keeps_arguments_and_environment),
    };
    return cmocka_run_group_tests_name("help", tests, NULL, NULL);
}
