#include "cluster/cli.h"
#include "cluster/commands.h"
#include "tests/testkit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct lh_cmd cmd = {.name = "bake",
                                  .summary = "bake a cake",
                                  .usage = "CAKE [options]\n--dry",
                                  .description = "Bakes.\n\n  kept as it is\n\nThe end.",
                                  .examples = "longhaul bake apple"};

struct values {
    bool dry, warm;
    const char *out;
    int64_t n;
    double heat;
    int kind;
    struct lh_opt_list set;
};

static const char *const kinds[] = {"apple", "plum", NULL};

#define N_OPTS 7

static void make_opts(struct lh_opt opts[N_OPTS], struct values *v)
{
    *v = (struct values){.warm = true, .out = "cake", .n = 3, .heat = 1.5, .kind = 1};
    const struct lh_opt all[N_OPTS] = {
        {.name = "dry", .kind = LH_OPT_FLAG, .value = &v->dry, .help = "Dry."},
        {.name = "warm", .kind = LH_OPT_FLAG, .value = &v->warm, .help = "Warm."},
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &v->out,
         .metavar = "DIR",
         .help = "Where."},
        {.name = "number",
         .letter = 'n',
         .kind = LH_OPT_INT,
         .value = &v->n,
         .metavar = "N",
         .help = "How many.",
         .min = 1,
         .max = 9},
        {.name = "heat",
         .kind = LH_OPT_DOUBLE,
         .value = &v->heat,
         .metavar = "K",
         .min = -9,
         .max = INT64_MAX,
         .help = "Heat."},
        {.name = "kind",
         .kind = LH_OPT_CHOICE,
         .value = &v->kind,
         .choices = kinds,
         .help = "Kind."},
        {.name = "set", .kind = LH_OPT_LIST, .value = &v->set, .metavar = "K=V", .help = "Set."},
    };
    memcpy(opts, all, sizeof all);
}

#define PARSE(...)                                                                                 \
    lh_cli_parse(&cmd, opts, N_OPTS,                                                               \
                 (int)(sizeof((char *[]){"bake", __VA_ARGS__}) / sizeof(char *)),                  \
                 (char *[]){"bake", __VA_ARGS__}, pos, 1, 2, &n_pos)

static void parse_takes_every_form(void **state)
{
    (void)state;
    struct lh_opt opts[N_OPTS];
    struct values v;
    const char *pos[2];
    size_t n_pos;
    make_opts(opts, &v);
    assert_ok(PARSE("a", "--dry", "--no-warm", "--out=x=y", "-n4", "--heat", "-2", "--kind",
                    "apple", "--set", "a=1", "--set=b=2", "--", "-b"));
    assert_true(v.dry);
    assert_false(v.warm);
    assert_string_equal(v.out, "x=y");
    assert_int_equal(v.n, 4);
    assert_true(v.heat == -2);
    assert_int_equal(v.kind, 0);
    assert_int_equal(v.set.n, 2);
    assert_string_equal(v.set.items[1], "b=2");
    assert_int_equal(n_pos, 2);
    assert_string_equal(pos[0], "a");
    assert_string_equal(pos[1], "-b");
    lh_cli_fini(opts, N_OPTS);
    assert_null(v.set.items);
    make_opts(opts, &v);
    assert_ok(PARSE("-", "-o", "d"));
    assert_string_equal(pos[0], "-");
    assert_string_equal(v.out, "d");
    assert_int_equal(v.n, 3);
}

static void parse_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    struct lh_opt opts[N_OPTS];
    struct values v;
    const char *pos[2];
    size_t n_pos;
    make_opts(opts, &v);
    assert_err(PARSE("a", "--nmber", "3"), LH_EUSAGE,
               "bake: unknown option '--nmber'; did you mean '--number'?");
    assert_err(PARSE("a", "--zzzzzz"), LH_EUSAGE, "'longhaul bake --help' lists them");
    assert_err(PARSE("a", "-z"), LH_EUSAGE, "unknown option '-z'");
    assert_err(PARSE("a", "--no-out"), LH_EUSAGE, "unknown option '--no-out'");
    assert_err(PARSE("a", "--dry=yes"), LH_EUSAGE, "takes no value");
    assert_err(PARSE("a", "--out"), LH_EUSAGE, "--out needs a value: --out DIR");
    assert_err(PARSE("a", "--out", "--dry"), LH_EUSAGE, "--out needs a value");
    assert_err(PARSE("a", "--out", ""), LH_EUSAGE, "bake: --out is empty; give it a value");
    assert_err(PARSE("a", "--out="), LH_EUSAGE, "--out is empty");
    assert_err(PARSE("", "--dry"), LH_EUSAGE, "an argument is empty; usage: longhaul bake CAKE");
    assert_err(PARSE("a", "--heat", "-9.5"), LH_EUSAGE, "--heat -9.5: expected -9 or more");
    assert_err(PARSE("a", "-n", "10"), LH_EUSAGE, "--number 10: expected 1 to 9");
    assert_err(PARSE("a", "-n", "3x"), LH_EUSAGE, "a whole number");
    assert_err(PARSE("a", "--heat", "nan"), LH_EUSAGE, "a number");
    assert_err(PARSE("a", "--kind", "pear"), LH_EUSAGE, "apple or plum");
    assert_err(PARSE("--dry"), LH_EUSAGE, "an argument is missing; usage: longhaul bake CAKE");
    assert_err(PARSE("a", "b", "c"), LH_EUSAGE, "one argument too many: 'c'");
    /* lists taken before the failure are released: the teardown counts */
    assert_err(PARSE("a", "--set", "x=1", "--bogus"), LH_EUSAGE, "--bogus");
}

static void parse_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct lh_opt opts[N_OPTS];
    struct values v;
    const char *pos[2];
    size_t n_pos;
    for (uint64_t n = 1;; n++) {
        make_opts(opts, &v);
        lh_mem_fail_at(n);
        int rc = PARSE("a", "--set", "a=1", "--set", "b=1", "--set", "c=1");
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_cli_fini(opts, N_OPTS);
            assert_int_equal(n, 4);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

/* What a call prints on stdout, in a static buffer. */
static const char *page(const char *flag)
{
    static char text[8192];
    struct lh_opt opts[N_OPTS];
    struct values v;
    const char *pos[2];
    size_t n_pos;
    char given[32];
    snprintf(given, sizeof given, "%s", flag);
    make_opts(opts, &v);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_non_null(freopen(kit_path("page"), "w", stdout));
    int rc = PARSE("--nonsense", given);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_int_equal(rc, LH_AGAIN);
    char *read = kit_read(kit_path("page"), NULL);
    snprintf(text, sizeof text, "%s", read);
    free(read);
    return text;
}

static void help_is_a_manual_page_with_defaults(void **state)
{
    (void)state;
    const char *text = page("--help");
    static const char *const parts[] = {
        "NAME\n    longhaul bake - bake a cake\n",
        "SYNOPSIS\n    longhaul bake CAKE [options]\n    longhaul bake --dry\n",
        "DESCRIPTION\n    Bakes.\n\n      kept as it is\n\n    The end.\n",
        "    -o, --out DIR\n        Where. Default: cake.\n",
        "-n, --number N\n        How many. Default: 3.",
        "--heat K\n        Heat. Default: 1.5.",
        "--kind apple|plum\n        Kind. Default: plum.",
        "--warm\n        Warm. On by default; --no-warm turns it off.",
        "Set. May be given several times.",
        "-h, --help",
        "EXAMPLES\n    longhaul bake apple\n",
        "EXIT STATUS\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        kit_assert_contains(text, parts[i]);
    text = page("--help=man");
    kit_assert_contains(text, ".TH LONGHAUL-bake 1");
    kit_assert_contains(text, ".B \\-o, \\-\\-out DIR\n");
}

static void exit_statuses_of_the_page_are_those_of_the_codes(void **state)
{
    (void)state;
    const char *text = strstr(page("--help"), "EXIT STATUS");
    char line[32];
#define CHECK(code, number, name, status, words)                                                   \
    snprintf(line, sizeof line, "\n    %-4d ", status);                                            \
    kit_assert_contains(text, line);
    LH_ERRORS(CHECK)
#undef CHECK
}

static void signal_sets_the_flag_once(void **state)
{
    (void)state;
    lh_cli_catch_signals();
    assert_false(lh_cli_interrupted());
    raise(SIGPIPE); /* ignored */
    raise(SIGTERM);
    assert_true(lh_cli_interrupted());
    raise(SIGTERM); /* batch systems send it to a script and to what it started */
    assert_true(lh_cli_interrupted());
}

static void every_command_is_found_and_described(void **state)
{
    (void)state;
    const struct lh_cmd *const *all = lh_commands_all();
    for (size_t i = 0; all[i]; i++) {
        assert_ptr_equal(lh_commands_find(all[i]->name), all[i]);
        assert_non_null(all[i]->run);
        assert_true(strlen(all[i]->description) > 60);
        assert_true(all[i]->examples && strstr(all[i]->examples, "longhaul"));
        assert_true(all[i]->summary[strlen(all[i]->summary) - 1] != '.');
        assert_true(strlen(all[i]->summary) <= 66);
    }
    assert_null(lh_commands_find("cook"));
    assert_err(lh_commands_unknown("halp"), LH_EUSAGE, "did you mean 'help'?");
    assert_err(lh_commands_unknown("xylophone"), LH_EUSAGE, "'longhaul help' lists them");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(parse_takes_every_form),
        kit_test(parse_refuses_what_it_does_not_know),
        kit_test(parse_survives_every_failed_allocation),
        kit_test(help_is_a_manual_page_with_defaults),
        kit_test(exit_statuses_of_the_page_are_those_of_the_codes),
        kit_test(signal_sets_the_flag_once),
        kit_test(every_command_is_found_and_described),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
