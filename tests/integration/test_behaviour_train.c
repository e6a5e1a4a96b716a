#include "cluster/behaviour_train.h"

#include "common/fs.h"
#include "worker/behaviour.h"
#include "worker/sim_log.h"

#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A log of the simulated world. */
static void simulate(const char *name, uint64_t users)
{
    struct lh_sim_config config;
    struct lh_sim *sim = NULL;
    struct lh_sim_log log;
    lh_sim_config_default(&config);
    assert_ok(lh_sim_create(&sim, &config));
    lh_sim_log_default(&log);
    log.users = users;
    log.threads = 1;
    assert_ok(lh_sim_log_dataset(sim, &log, kit_path(name), NULL));
    lh_sim_destroy(&sim);
}

static void ensure_auto_trains_once_and_predicts_the_log_s_mean(void **state)
{
    (void)state;
    struct lh_dataset *ds = NULL;
    struct lh_behaviour *b = NULL;
    char *path = NULL, *again = NULL, *out = NULL;
    struct stat before, after;
    simulate("log", 60);
    assert_ok(lh_dataset_open(&ds, kit_path("log")));
    assert_ok(lh_behaviour_train_ensure(&path, ds, "auto", 2, true));
    kit_assert_contains(path, "log/.behaviour/");
    assert_int_equal(stat(path, &before), 0);
    assert_ok(lh_behaviour_train_ensure(&again, ds, "auto", 1, true));
    assert_string_equal(path, again);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);

    /* Nothing but the snapshot is left. What it misses of an action is the world's noise (a
     * standard deviation of about 0.12 in raw units) and something for so few users, not the whole
     * action. */
    assert_int_equal(kit_run(&out, "ls '%s/.behaviour' | wc -l", kit_path("log")), 0);
    assert_int_equal(atoi(out), 1);
    free(out);
    assert_ok(lh_behaviour_open(&b, ds, path));
    const struct lh_norm *norm = lh_dataset_norm(ds);
    for (size_t j = 0; j < norm->dims.action; j++) {
        double raw = (double)lh_behaviour_sigma(b)[j] / (double)norm->action_scale[j];
        assert_true(raw > 0.1 && raw < 0.8 * lh_dataset_info(ds)->action_stats[j].std);
    }
    lh_behaviour_close(&b);
    lh_mem_free(path);
    lh_mem_free(again);
    lh_dataset_close(&ds);
}

static void ensure_named_snapshot_is_returned_as_it_is(void **state)
{
    (void)state;
    struct lh_dataset *ds = NULL;
    char *path = NULL;
    simulate("log", 20);
    assert_ok(lh_dataset_open(&ds, kit_path("log")));
    assert_ok(lh_behaviour_train_ensure(&path, ds, "some/where", 1, true));
    assert_string_equal(path, "some/where");
    assert_false(lh_fs_exists(kit_path("log/.behaviour")));
    lh_mem_free(path);
    lh_dataset_close(&ds);
}

static char *command(int status, const char *arguments)
{
    char *out = NULL;
    int rc = kit_run(&out, "cd '%s' && " LH_BINARY_DIR "/longhaul %s", kit_dir(), arguments);
    if (rc != status)
        fail_msg("longhaul %s: exit status %d: %s", arguments, rc, out);
    return out;
}

/* The command, on a run of a few steps: estimates and true values, as a table and as JSON. */
static void evaluate_command_shows_estimates_and_true_values(void **state)
{
    (void)state;
    simulate("log", 60);
    kit_write(kit_path("job.yaml"), "dataset: log\nalgorithm: resact\n"
                                    "network: {hidden: [16, 16]}\nobjective: {estimators: 3}\n"
                                    "train: {batch: 64, micro_batch: 64, steps: 5}\n");
    free(command(0, "train job.yaml --dir run -q --no-evaluation"));
    char *out = command(0, "evaluate --run run --users 40 --sessions 2 --seeds 2");
    static const char *const parts[] = {"over the log", "the log", "sd of seeds", "true return"};
    for (size_t i = 0; i < 4; i++)
        kit_assert_contains(out, parts[i]);
    free(out);
    out = command(0, "evaluate --run run --users 40 --sessions 2 --json");
    kit_assert_contains(out, "\"policies\":[{\"value\":");
    kit_assert_contains(out, "\"algorithm\":\"resact\"");
    kit_assert_contains(out, "\"true\":{\"users\":40");
    free(out);
    out = command(2, "evaluate");
    kit_assert_contains(out, "evaluate what?");
    free(out);
    out = command(2, "evaluate --policy behaviour");
    kit_assert_contains(out, "which log?");
    free(out);
    out = command(0, "evaluate --policy behaviour -d log --users 0");
    kit_assert_contains(out, "the log");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(ensure_auto_trains_once_and_predicts_the_log_s_mean),
        kit_test(ensure_named_snapshot_is_returned_as_it_is),
        kit_test(evaluate_command_shows_estimates_and_true_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
