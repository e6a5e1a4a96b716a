/* Standard input, output and error that are closed, full, or whose reader went away; and what comes
 * out before a failure: nothing that looks like an answer. */
#include "tests/faultkit.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The reader is gone before the first byte is written. */
static void reader_that_went_away_ends_a_command_quietly(void **state)
{
    (void)state;
    static const char *const commands[] = {"inspect data",
                                           "inspect data --json",
                                           "help",
                                           "help job",
                                           "train --help",
                                           "evaluate --run run --json",
                                           "act --snapshot snap states.csv",
                                           "import schema.yaml --out new --quiet",
                                           "train job.yaml --dir made --no-evaluation --quiet",
                                           "export --dir run --out out"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct faultkit_end end = faultkit_run(
            "rm -f gone code; { until test -e gone; do :; done; longhaul %s; echo $? >code; } | "
            "{ exec <&-; : >gone; }; exit $(cat code)",
            commands[i]);
        if (end.status != 128 + 13 || *end.said)
            fail_msg("%s: status %d: %s", commands[i], end.status, end.said);
        free(end.said);
    }
    faultkit_passes("longhaul inspect new --verify && "
                    "longhaul export --dir made --out a --cut last && "
                    "longhaul export --dir run --out b --cut last && "
                    "cmp a/weights.safetensors b/weights.safetensors && "
                    "cmp out/weights.safetensors snap/weights.safetensors");
}

/* Else the first file that is opened would be standard output, and be printed into. */
static void closed_standard_files_are_taken_by_no_file_of_ours(void **state)
{
    (void)state;
    static const struct {
        const char *how;
        bool output; /* is closed: the result could not be told */
    } closed[] = {
        {"<&-", false}, {">&-", true}, {"2>&-", false}, {"<&- >&-", true}, {"<&- >&- 2>&-", true}};
    static const char *const commands[] = {
        "train job.yaml --dir new --no-evaluation --workers 2 --servers 2",
        "import schema.yaml --out made --quiet", "export --dir new --out a --cut last"};
    faultkit_passes("longhaul export --dir run --out b --cut last");
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
            struct faultkit_end end = faultkit_run("longhaul %s %s", commands[c], closed[i].how);
            if (end.status != (closed[i].output ? lh_err_exit_status(LH_EIO) : 0))
                fail_msg("%s %s: status %d: %s", commands[c], closed[i].how, end.status, end.said);
            free(end.said);
        }
        faultkit_passes("test ! -s new/.lock && cmp a/weights.safetensors b/weights.safetensors && "
                        "longhaul inspect made --verify && "
                        "cmp made/manifest.json data/manifest.json && rm -r new made a");
    }
    faultkit_refuses(LH_EIO, "standard output: Bad file descriptor",
                     "longhaul act --snapshot snap states.csv >&-");
    faultkit_refuses(LH_EIO, "standard output: Bad file descriptor", "longhaul help >&-");
    faultkit_refuses(LH_EIO, "standard input: cannot read: Bad file descriptor",
                     "longhaul act --snapshot snap <&-");
}

/* Runs a command whose standard output must stay empty. */
#define SILENT "{ longhaul %s; } >out; s=$?; test -s out && exit 99; rm out; exit $s"

static void failure_prints_no_json(void **state)
{
    (void)state;
    faultkit_refuses(LH_ENOENT, "none: not a dataset", SILENT, "inspect none --json");
    faultkit_refuses(LH_ENOENT, "none: no snapshot", SILENT, "evaluate --snapshot none --json");
    faultkit_refuses(LH_ENOENT, "none: no run", SILENT, "evaluate --run none --json");
    faultkit_refuses(LH_ENOENT, "none.csv: No such file", SILENT, "init none.csv --json");
    faultkit_refuses(LH_EEXIST, "data: already exists", SILENT,
                     "import schema.yaml --out data --json");
    faultkit_refuses(LH_EEXIST, "run: there is a run already", SILENT,
                     "train job.yaml --dir run --json");
    faultkit_refuses(LH_ECONFIG, "--set train.bacth: unknown key", SILENT,
                     "train job.yaml --dir new --json --set train.bacth=1");
    faultkit_refuses(LH_ENOENT, "none", SILENT, "simulate --play none --json");
}

/* Not even a header: a consumer would take it for an answer. */
static void act_answers_nothing_before_its_input_is_known_to_be_good(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *states, *says;
    } cases[] = {
        {LH_EFORMAT, "g=F,g=M,x\\n1,0,zz\\n", "states.csv:2: column 'x': 'zz'"},
        {LH_EFORMAT, "g=F,g=M,x\\n1,0,nan\\n", "states.csv:2: column 'x': 'nan'"},
        {LH_EFORMAT, "g=F,g=M,x\\n1,0,1e39\\n", "states.csv:2: column 'x': '1e39'"},
        {LH_EFORMAT, "g=F,g=M,x\\n1,0\\n", "states.csv:2: 2 columns instead of 3"},
        {LH_EFORMAT, "g=F,g=M,x\\n1,0,1\\0\\n", "states.csv:2: a NUL byte"},
        {LH_EMISMATCH, "1,0\\n", "states.csv:1: 2 columns without a header"},
        {LH_EMISMATCH, "g=F,x\\n", "states.csv:1: the header has no column 'g=M'"},
        {LH_EFORMAT, "{\"high\":[1,0],\"low\":[1e39]}\\n", "states.csv:1: column 'x': '1e+39'"},
        {LH_EFORMAT, "{\"high\":[1,0],\"low\":[[]]}\\n", "column 'x': 'a list or object'"},
        {LH_EFORMAT, "{\"high\":[1,0]\\n", "states.csv:1: not a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("printf '%s' >states.csv", cases[i].states);
        faultkit_refuses(cases[i].code, cases[i].says, SILENT, "act --snapshot snap states.csv");
    }
    faultkit_refuses(LH_EIO, ".: cannot read: Is a directory", SILENT, "act --snapshot snap .");
    faultkit_refuses(LH_ENOENT, "none.csv: No such file", SILENT, "act --snapshot snap none.csv");
    faultkit_passes("printf 'g=F,g=M,x\\n' >states.csv && "
                    "test \"$(longhaul act --snapshot snap states.csv)\" = y");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(reader_that_went_away_ends_a_command_quietly),
        faultkit_test(closed_standard_files_are_taken_by_no_file_of_ours),
        faultkit_test(failure_prints_no_json),
        faultkit_test(act_answers_nothing_before_its_input_is_known_to_be_good),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
