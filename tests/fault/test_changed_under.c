/* A run whose surroundings change while it trains: another scheduler wants its directory, its
 * dataset is replaced or cut short, its job is another when it is resumed. What it has cut stays,
 * and it goes on to the same bits. */
#include "tests/faultkit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOB "job.yaml --no-evaluation --quiet --set train.steps=1000000"
#define START                                                                                      \
    "trap 'kill -9 $p; wait $p' EXIT; longhaul train " JOB " --dir new 2>said & p=$!; " CUT(0)
/* Waits for a cut beyond version N. */
#define CUT(n)                                                                                     \
    "n=0; until v=$(sed -n 's/.*\"last\":[^0-9]*\\([0-9][0-9]*\\).*/\\1/p' new/run.json "          \
    "2>/dev/null); test ${v:-0} -gt " #n "; do kill -0 $p && n=$((n + 1)) && test $n -lt 3000 || " \
    "exit 99; sleep 0.01; done; "
#define STOP "kill -INT $p; wait $p; s=$?; trap - EXIT; cat said >&2; rm said; exit $s"

static void fails_with(int code, const char *says, const char *command)
{
    struct faultkit_end end = faultkit_run("%s", command);
    const char *newline = strchr(end.said, '\n');
    if (end.status != lh_err_exit_status(code) || !newline || newline[1] || !strstr(end.said, says))
        fail_msg("%s: status %d: %s", command, end.status, end.said);
    free(end.said);
}

/* The run goes on by some steps, to the weights of one that nothing befell. */
static void assert_goes_on(void)
{
    faultkit_passes("v=$(sed -n 's/.*\"last\":[^0-9]*\\([0-9][0-9]*\\).*/\\1/p' new/run.json) && "
                    "longhaul train " JOB " --dir new --resume --stop-after $((v + 15)) && "
                    "longhaul train " JOB " --dir whole --stop-after $((v + 15)) && "
                    "longhaul export --dir new --out a --cut last && "
                    "longhaul export --dir whole --out b --cut last && "
                    "cmp a/weights.safetensors b/weights.safetensors");
}

static void second_scheduler_is_refused_and_the_first_goes_on(void **state)
{
    (void)state;
    fails_with(LH_ECANCELED, "new: interrupted at step",
               START "for more in '' --resume; do longhaul train " JOB " --dir new $more 2>second; "
                     "test $? = 4 && grep -q 'longhaul: new: another scheduler works on this run' "
                     "second && test $(wc -l <second) = 1 || exit 98; done; " STOP);
    assert_goes_on();
}

static void dataset_replaced_under_a_run_is_noticed_when_it_is_resumed(void **state)
{
    (void)state;
    faultkit_passes("cp -a data kept && sed 's/train: 60%%/train: 70%%/' schema.yaml >other.yaml");
    fails_with(LH_ECANCELED, "new: interrupted at step",
               START "longhaul import other.yaml --out data --force --quiet >/dev/null || exit 98; "
                     "old=$v; " CUT($((old + 30))) STOP);
    faultkit_refuses(LH_EMISMATCH, "new: the run was begun with another job or dataset",
                     "longhaul train " JOB " --dir new --resume");
    faultkit_passes("rm -r data && mv kept data");
    assert_goes_on();
}

/* A mapped file that gets shorter is SIGBUS at the next touch. */
static void dataset_cut_short_under_a_run_is_one_line(void **state)
{
    (void)state;
    faultkit_passes("cp -a data kept");
    fails_with(LH_EIO, "data/train/day-0/part-00",
               START ": >data/train/day-0/part-000.lhp; : >data/train/day-0/part-001.lhp; "
                     "wait $p; s=$?; trap - EXIT; cat said >&2; rm said; exit $s");
    faultkit_refuses(LH_EFORMAT, "part-000.lhp", "longhaul train " JOB " --dir new --resume");
    faultkit_passes("rm -r data && mv kept data");
    assert_goes_on();
}

static void changed_job_is_refused_and_the_run_stays(void **state)
{
    (void)state;
    static const char *const changes[] = {"seed=4", "optimiser.lr_critic=0.1", "train.batch=64",
                                          "network.hidden='[8, 9]'", "algorithm=il"};
    faultkit_passes("longhaul train " JOB " --dir new --stop-after 10");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        faultkit_refuses(LH_EMISMATCH, "new: the run was begun with another job|config.yaml",
                         "longhaul train " JOB " --dir new --resume --set %s", changes[i]);
    assert_goes_on();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(second_scheduler_is_refused_and_the_first_goes_on),
        faultkit_test(dataset_replaced_under_a_run_is_noticed_when_it_is_resumed),
        faultkit_test(dataset_cut_short_under_a_run_is_one_line),
        faultkit_test(changed_job_is_refused_and_the_run_stays),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
