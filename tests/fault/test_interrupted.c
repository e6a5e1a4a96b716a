/* Ctrl-C and SIGTERM in the middle of long work: it stops within a moment, not at the end of its
 * pass, with one line and the exit status of an interrupt; nothing is half written, and what can
 * be gone on with can be. (Training itself: test_killed.) */
#include "tests/faultkit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A dataset whose test split takes seconds to evaluate, and the job to do so. */
static void make_large_test_split(void)
{
    faultkit_passes(
        "awk 'BEGIN { print \"u,t,x,y,g,r\"; for (u = 0; u < 1000; u++) for (t = 0; t < 100; t++) "
        "printf \"%%d,%%d,%%.3f,%%.3f,%%s,%%d\\n\", u, t, (u * 7 + t * 5) %% 23 / 11.5 - 1, "
        "(u * 5 + t * 11) %% 19 / 9.5 - 1, (u + t) %% 2 ? \"F\" : \"M\", (u + t * t) %% 3 }' "
        ">log.csv && sed -i 's/split: .*/split: {train: 12, validation: 4, test: rest}/' "
        "schema.yaml && rm -r data && longhaul import schema.yaml --out data --quiet && "
        "sed -i 's/estimators: 2/estimators: 100/' job.yaml");
}

/* Runs a command until it says `when`, interrupts it, and wants the exit status of an interrupt
 * and `says` in its last line. */
static void interrupt(const char *when, const char *says, const char *command)
{
    struct faultkit_end end =
        faultkit_run("%s 2>said & p=$!; n=0; until grep -q '%s' said; do kill -0 $p && "
                     "n=$((n + 1)) && test $n -lt 6000 || exit 99; sleep 0.01; done; "
                     "kill -INT $p; wait $p; s=$?; tail -n 1 said >&2; rm said; exit $s",
                     command, when);
    if (end.status != lh_err_exit_status(LH_ECANCELED))
        fail_msg("%s: status %d: %s", command, end.status, end.said);
    kit_assert_contains(end.said, says);
    free(end.said);
}

static void evaluation_interrupted_within_a_pass_stops_there_and_its_run_can_be_resumed(
    void **state)
{
    (void)state;
    make_large_test_split();
    interrupt("on the test split", "new: trained, but interrupted while it was evaluated on test",
              "longhaul train job.yaml --dir new");
    assert_int_not_equal(access(kit_path("new/test.json"), F_OK), 0);
    interrupt("evaluating new", "interrupted while evaluating on",
              "longhaul evaluate --run new --seeds 3");
    faultkit_passes("longhaul train job.yaml --dir new --resume --quiet && "
                    "grep -q 'trajectories.:984' new/test.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(evaluation_interrupted_within_a_pass_stops_there_and_its_run_can_be_resumed),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
