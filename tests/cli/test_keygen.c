/* `longhaul keygen`, and a job over tcp whose roles are started by hand with its files. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/keys.h"
#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

static void keygen_makes_files_that_only_their_owner_reads(void **state)
{
    (void)state;
    char *out = NULL;
    struct lh_keys scheduler, worker;
    struct stat st;
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -s 2 -w 3", kit_dir()), 0);
    kit_assert_contains(out, "6 key files made, 0 kept; 5 keys");
    free(out);
    assert_int_equal(stat(kit_path("keys"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(kit_path("keys/server-1.keys"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(lh_keys_load(&scheduler, kit_path("keys/scheduler.keys"), LH__ROLE__ROLE_SCHEDULER));
    assert_ok(lh_keys_load(&worker, kit_path("keys/worker-2.keys"), LH__ROLE__ROLE_WORKER));
    assert_int_equal(scheduler.n_allowed, 5);
    assert_string_equal(scheduler.allowed[4].key, worker.own.key);
    assert_string_equal(worker.scheduler.key, scheduler.own.key);
    lh_keys_fini(&scheduler);
    lh_keys_fini(&worker);
}

static void keygen_again_keeps_what_is_there_and_adds(void **state)
{
    (void)state;
    char *out = NULL;
    struct lh_keys before, after;
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys", kit_dir()), 0);
    free(out);
    assert_ok(lh_keys_load(&before, kit_path("keys/worker-0.keys"), LH__ROLE__ROLE_WORKER));
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -w 2", kit_dir()), 0);
    kit_assert_contains(out, "1 key files made, 3 kept; 3 keys");
    free(out);
    assert_ok(lh_keys_load(&after, kit_path("keys/worker-0.keys"), LH__ROLE__ROLE_WORKER));
    assert_string_equal(before.own.key, after.own.key);
    lh_keys_fini(&before);
    lh_keys_fini(&after);
}

/* A role that was shut out is not let in again by a call that adds others. */
static void keygen_again_lets_nobody_in_who_was_shut_out(void **state)
{
    (void)state;
    char *out = NULL;
    struct lh_keys worker, scheduler;
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -w 2", kit_dir()), 0);
    free(out);
    assert_int_equal(kit_run(&out, "sed -i '/ worker-1 /d' %s/keys/scheduler.keys", kit_dir()), 0);
    free(out);
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -w 3", kit_dir()), 0);
    kit_assert_contains(out, "1 key files made, 4 kept; 3 keys on the scheduler's list; "
                             "1 kept that are not on it");
    free(out);
    assert_ok(lh_keys_load(&worker, kit_path("keys/worker-1.keys"), LH__ROLE__ROLE_WORKER));
    assert_ok(lh_keys_load(&scheduler, kit_path("keys/scheduler.keys"), LH__ROLE__ROLE_SCHEDULER));
    for (size_t i = 0; i < scheduler.n_allowed; i++)
        assert_string_not_equal(scheduler.allowed[i].key, worker.own.key);
    assert_string_equal(scheduler.allowed[2].name, "worker-2");
    lh_keys_fini(&worker);
    lh_keys_fini(&scheduler);
    /* another in its place */
    unlink(kit_path("keys/worker-1.keys"));
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -w 3", kit_dir()), 0);
    kit_assert_contains(out, "1 key files made, 4 kept; 4 keys on the scheduler's list\n");
    free(out);
}

static void keygen_beside_files_of_another_scheduler_is_refused(void **state)
{
    (void)state;
    char *out = NULL;
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys", kit_dir()), 0);
    free(out);
    unlink(kit_path("keys/scheduler.keys"));
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys", kit_dir()),
                     lh_err_exit_status(LH_EMISMATCH));
    kit_assert_contains(out, "made for another scheduler");
    free(out);
    assert_int_equal(kit_run(&out, PROGRAM " keygen"), lh_err_exit_status(LH_EUSAGE));
    kit_assert_contains(out, "--out DIR");
    free(out);
}

/* --- by hand -----------------------------------------------------------------------------------
 */
static void job_by_hand_with_key_files_gives_the_same_bits(void **state)
{
    (void)state;
    char *out = NULL, endpoint[300];
    trainkit_dataset();
    struct lh_job *job = trainkit_job(12, 6, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("alone"));
    struct lh_train_result result;
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("alone"));
    trainkit_job_file(kit_path("job.yaml"), 12, 6, NULL);
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys", kit_dir()), 0);
    free(out);
    const char *scheduler[] = {PROGRAM,
                               "scheduler",
                               kit_path("job.yaml"),
                               "--dir",
                               kit_path("run"),
                               "--bind",
                               "tcp://127.0.0.1:*",
                               "--keys",
                               kit_path("keys/scheduler.keys"),
                               "--no-evaluation",
                               "-q",
                               NULL};
    pid_t pid[3] = {trainkit_spawn(kit_path("scheduler.log"), scheduler)};
    trainkit_await_endpoint(kit_path("scheduler.log"), endpoint, sizeof endpoint);
    const char *server[] = {
        PROGRAM, "server", "--scheduler", endpoint, "--keys", kit_path("keys/server-0.keys"), NULL};
    const char *worker[] = {
        PROGRAM, "worker", "--scheduler", endpoint, "--keys", kit_path("keys/worker-0.keys"), NULL};
    pid[1] = trainkit_spawn(kit_path("log"), server);
    pid[2] = trainkit_spawn(kit_path("log"), worker);
    for (int i = 0; i < 3; i++)
        assert_int_equal(trainkit_wait_exit(pid[i]), 0);
    trainkit_assert_same(&want, kit_path("run"), "by hand with keys");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(keygen_makes_files_that_only_their_owner_reads),
        kit_test(keygen_again_keeps_what_is_there_and_adds),
        kit_test(keygen_again_lets_nobody_in_who_was_shut_out),
        kit_test(keygen_beside_files_of_another_scheduler_is_refused),
        kit_test(job_by_hand_with_key_files_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
