/* The N-th allocation fails, N over the whole range of a command's allocations: the first ones
 * each, then in strides, until the command no longer needs that many. Each time the program ends
 * with exit status 5 and one line, or did without; nothing is left of what it was to write, what
 * was there stays, and (under ASan) nothing leaks. LONGHAUL_TEST_EVERY=1 in the environment tries
 * every N. */
#include "tests/faultkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STRIDE = 17, TABLES_STRIDE = 71 }; /* primes, which keep step with no loop of the program */

struct command {
    const char *text;     /* writes "new", if anything */
    const char *expected; /* a command that says whether "new" is whole */
    bool prints;          /* "new" is its standard output */
};

static bool succeeded(const struct command *c, unsigned long nth)
{
    char *before = faultkit_listing();
    struct faultkit_end end =
        faultkit_run("export LONGHAUL_TEST_FAIL_ALLOCATION=%lu; %s", nth, c->text);
    const bool ok = end.status == 0;
    if (!ok) {
        if (c->prints)
            unlink(kit_path("new"));
        const char *newline = strchr(end.said, '\n');
        if (end.status != lh_err_exit_status(LH_ENOMEM) || strncmp(end.said, "longhaul: ", 10) ||
            !strstr(end.said, "memory") || !newline || newline[1])
            fail_msg("allocation %lu of '%s': status %d: %s", nth, c->text, end.status, end.said);
        if (strstr(end.said, "new is complete")) /* and it must be true */
            faultkit_passes("%s && rm -r new", c->expected);
        char *after = faultkit_listing();
        if (strcmp(before, after) != 0)
            fail_msg("allocation %lu of '%s' left something: %s", nth, c->text, after);
        free(after);
    } else {
        faultkit_passes("%s && rm -rf new", c->expected);
    }
    free(before);
    free(end.said);
    return ok;
}

static unsigned long after(unsigned long nth, unsigned long stride)
{
    return nth + (nth <= 32 || getenv("LONGHAUL_TEST_EVERY") ? 1 : stride);
}

static void walk(const struct command *c)
{
    unsigned failed = 0, runs = 0, in_a_row = 0;
    for (unsigned long nth = 1; in_a_row < 5; nth = after(nth, STRIDE)) {
        if (nth > 1000000)
            fail_msg("'%s' does not succeed", c->text);
        runs++;
        if (succeeded(c, nth)) {
            in_a_row++;
        } else {
            in_a_row = 0;
            failed++;
        }
    }
    print_message("%u of %u runs failed: %s\n", failed, runs, c->text);
    if (failed < runs / 2)
        fail_msg("'%s': only %u of %u runs failed", c->text, failed, runs);
}

static void import_without_memory_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    walk(&(struct command){.text = "longhaul import schema.yaml --out new --quiet --threads 1",
                           .expected = "cmp new/manifest.json data/manifest.json"});
}

static void export_without_memory_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    walk(&(struct command){.text = "longhaul export --dir run --out new",
                           .expected = "cmp new/weights.safetensors snap/weights.safetensors"});
}

static void act_without_memory_says_so(void **state)
{
    (void)state;
    walk(&(struct command){.text = "longhaul act --snapshot snap states.csv >new",
                           .expected = "longhaul act --snapshot snap states.csv | cmp - new",
                           .prints = true});
}

static void evaluate_without_memory_says_so(void **state)
{
    (void)state;
    walk(&(struct command){.text = "longhaul evaluate --run run --json --threads 1 >new",
                           .expected = "longhaul evaluate --run run --json | cmp - new",
                           .prints = true});
}

static void inspect_without_memory_says_so(void **state)
{
    (void)state;
    walk(&(struct command){.text = "longhaul inspect data --features --verify --json >new",
                           .expected =
                               "longhaul inspect data --features --verify --json | cmp - new",
                           .prints = true});
}

static void init_without_memory_says_so_and_leaves_nothing(void **state)
{
    (void)state;
    faultkit_passes("longhaul init log.csv --out ref");
    walk(&(struct command){.text = "longhaul init log.csv --out new",
                           .expected = "diff -r ref new"});
}

static void simulate_without_memory_says_so_and_leaves_nothing(void **state)
{
    (void)state;
#define SIMULATE(format, out)                                                                      \
    "longhaul simulate --users 20 --sessions 2 --quiet --threads 1 --format " format " --out " out
    faultkit_passes(SIMULATE("csv", "ref") " && " SIMULATE("dataset", "ref2"));
    walk(&(struct command){.text = SIMULATE("csv", "new"), .expected = "diff -r ref new"});
    walk(&(struct command){.text = SIMULATE("dataset", "new"),
                           .expected = "cmp ref2/manifest.json new/manifest.json"});
}

/* Whatever was cut is there, and the run ends as `reference`, which was trained without trouble. */
static void ends_as(const char *train, const char *reference)
{
    faultkit_passes("%s $(test -e new/run.json && echo --resume) && "
                    "longhaul export --dir new --out out --cut last && "
                    "longhaul export --dir %s --out want --cut last && "
                    "cd out && for f in *.safetensors rows*; do "
                    "test ! -e ../want/$f || cmp $f ../want/$f || exit 1; done",
                    train, reference);
}

static void walk_train(const char *job, const char *reference, unsigned long first,
                       unsigned long stride)
{
    char train[128];
    unsigned failed = 0, runs = 0, in_a_row = 0;
    snprintf(train, sizeof train, "longhaul train %s --dir new --no-evaluation --quiet", job);
    for (unsigned long nth = first; in_a_row < 5; nth = after(nth, stride)) {
        assert_true(nth < 1000000);
        struct faultkit_end end =
            faultkit_run("export LONGHAUL_TEST_FAIL_ALLOCATION=%lu; %s", nth, train);
        const char *newline = strchr(end.said, '\n');
        if (end.status != 0 && (end.status != lh_err_exit_status(LH_ENOMEM) || !newline ||
                                newline[1] || !strstr(end.said, "memory")))
            fail_msg("allocation %lu: status %d: %s", nth, end.status, end.said);
        runs++;
        failed += end.status != 0;
        in_a_row = end.status == 0 ? in_a_row + 1 : 0;
        free(end.said);
        if (nth % 4 == 1 || end.status == 0)
            ends_as(train, reference);
        faultkit_passes("rm -rf new out want");
    }
    print_message("%u of %u runs failed: %s\n", failed, runs, train);
    assert_true(failed >= runs / 2);
}

static void train_without_memory_says_so_and_can_be_begun_or_resumed(void **state)
{
    (void)state;
    walk_train("job.yaml", "run", 1, STRIDE);
}

static void train_with_tables_without_memory_likewise(void **state)
{
    (void)state;
    faultkit_passes("(cat schema.yaml; echo 'ids: [u]') >ids.yaml && "
                    "longhaul import ids.yaml --out ids --quiet && "
                    "(sed 's/^dataset: .*/dataset: ids/' job.yaml; "
                    " echo 'tables: {user: {ids: u, into: state_high, dim: 3, cache: 1}}') "
                    ">tables.yaml && "
                    "longhaul train tables.yaml --dir learnt --no-evaluation --quiet");
    /* the first are those of any training */
    walk_train("tables.yaml", "learnt", getenv("LONGHAUL_TEST_EVERY") ? 1 : 33, TABLES_STRIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(import_without_memory_says_so_and_leaves_nothing),
        faultkit_test(export_without_memory_says_so_and_leaves_nothing),
        faultkit_test(act_without_memory_says_so),
        faultkit_test(evaluate_without_memory_says_so),
        faultkit_test(inspect_without_memory_says_so),
        faultkit_test(init_without_memory_says_so_and_leaves_nothing),
        faultkit_test(simulate_without_memory_says_so_and_leaves_nothing),
        faultkit_test(train_without_memory_says_so_and_can_be_begun_or_resumed),
        faultkit_test(train_with_tables_without_memory_likewise),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
