/* Checkpoints that cannot be written: training goes on, what was cut before stays whole, the reason
 * is said once, and when there is room again checkpoints succeed. Only the last one must be there
 * in the end. A server's writes are made to fail by a limit on the size of its files (RLIMIT_FSIZE
 * of another process, which the kernel answers with EFBIG and short writes), or by a full disk. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "cluster/run_watch.h"
#include "common/err.h"
#include "common/term.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 400, EVERY = 10 };

struct fixture {
    struct lh_job *job;
    struct trainkit_state want; /* of the undisturbed run */
    char run[300];
    pid_t train;
};

/* `dir`: where the run is. Evaluations too, so that versions that are no cut are evaluated. */
static struct fixture fixture_new(const char *dir)
{
    struct fixture f = {0};
    struct lh_train_result result;
    char more[400];
    snprintf(f.run, sizeof f.run, "%s/run", dir);
    trainkit_dataset();
    trainkit_imitator(kit_path("imitator"));
    snprintf(more, sizeof more, "evaluation: {every: 20, ess_floor: 0, behaviour: %s}",
             kit_path("imitator"));
    f.job = trainkit_job(STEPS, EVERY, more);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, more);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    opt.no_evaluation = false;
    assert_ok(lh_train(f.job, &opt, &result));
    f.want = trainkit_read(kit_path("undisturbed"));
    return f;
}

static void fixture_free(struct fixture *f)
{
    lh_mem_free(f->want.values);
    lh_job_destroy(&f->job);
}

/* Until its first checkpoint: then all of it is stopped, so that it does not outrun the test. */
static void start(struct fixture *f)
{
    const char *argv[] = {PROGRAM,   "train",      kit_path("job.yaml"),
                          "--dir",   f->run,       "--workers",
                          "2",       "--servers",  "2",
                          "--quiet", "--launcher", "processes",
                          NULL};
    f->train = trainkit_spawn(kit_path("log"), argv);
    assert_true(trainkit_wait_cut(f->run, EVERY));
    kill(-f->train, SIGSTOP);
}

static void go_on(const struct fixture *f)
{
    kill(-f->train, SIGCONT);
}

static void limit_files(pid_t pid, rlim_t bytes)
{
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY}, NULL), 0);
}

/* From now on one of the servers can write no page of its store. */
static pid_t break_a_server(const struct fixture *f)
{
    pid_t server = trainkit_find_role(f->train, "server");
    assert_true(server > 0);
    limit_files(server, 4096);
    go_on(f);
    return server;
}

static void assert_same_evaluations(const struct fixture *f)
{
    char path[320];
    snprintf(path, sizeof path, "%s/evaluations.jsonl", f->run);
    char *want = kit_read(kit_path("undisturbed/evaluations.jsonl"), NULL);
    char *got = kit_read(path, NULL);
    assert_string_equal(got, want);
    free(want);
    free(got);
}

static void run_whose_server_cannot_write_goes_on_and_cuts_when_it_can(void **state)
{
    (void)state;
    struct fixture f = fixture_new(kit_dir());
    start(&f);
    pid_t server = break_a_server(&f);
    trainkit_await_said("no checkpoint at step ");
    uint64_t last = trainkit_last_cut(f.run); /* still there, and the last */
    assert_true(last >= EVERY);
    limit_files(server, RLIM_INFINITY);
    trainkit_await_said("they succeed again, after ");
    trainkit_assert_exits(f.train, 0);
    assert_int_equal(trainkit_said("no checkpoint at step "), 1);
    assert_int_equal(trainkit_said("training goes on"), 1);
    assert_true(trainkit_said("run/store-") >= 1); /* which one */
    trainkit_assert_same(&f.want, f.run, "a server could not write");
    assert_same_evaluations(&f);
    trainkit_assert_lines(f.run, STEPS);
    fixture_free(&f);
}

/* How the run stands says so, as long as it fails. */
static bool status_shows_trouble(const struct fixture *f)
{
    struct lh_run_watch w = {0};
    bool shown = lh_run_watch_look(&w, f->run) == 0 && w.has_status &&
                 strstr(w.status.trouble, "store-") && w.status.failed_cuts > 0;
    lh_run_watch_fini(&w);
    return shown;
}

static void run_whose_last_checkpoint_fails_ends_with_it_and_can_be_resumed(void **state)
{
    (void)state;
    struct fixture f = fixture_new(kit_dir());
    start(&f);
    break_a_server(&f);
    int status = 0;
    bool shown = false;
    double began = lh_now();
    while (waitpid(f.train, &status, WNOHANG) == 0 && lh_now() - began < 60) {
        shown = shown || status_shows_trouble(&f);
        usleep(5000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), lh_err_exit_status(LH_EIO));
    assert_true(shown);
    assert_true(trainkit_said("step 400, the last, cannot be saved: ") > 0 &&
                trainkit_said("with --resume") > 0);
    assert_true(trainkit_last_cut(f.run) < STEPS);
    struct lh_train_options opt = trainkit_options(f.run);
    struct lh_train_result result;
    opt.no_evaluation = false;
    opt.resume = true;
    opt.servers = 3;
    assert_ok(lh_train(f.job, &opt, &result));
    trainkit_assert_same(&f.want, f.run, "resumed after its last checkpoint failed");
    assert_same_evaluations(&f);
    fixture_free(&f);
}

/* The version that the servers are paused at may be one that was dropped. */
static void run_interrupted_while_a_server_cannot_write_cuts_when_it_can(void **state)
{
    (void)state;
    struct fixture f = fixture_new(kit_dir());
    start(&f);
    pid_t server = break_a_server(&f);
    trainkit_await_said("no checkpoint at step ");
    kill(f.train, SIGINT);
    limit_files(server, RLIM_INFINITY);
    trainkit_assert_exits(f.train, lh_err_exit_status(LH_ECANCELED));
    struct lh_train_options opt = trainkit_options(f.run);
    struct lh_train_result result;
    opt.no_evaluation = false;
    opt.resume = true;
    assert_ok(lh_train(f.job, &opt, &result));
    trainkit_assert_same(&f.want, f.run, "interrupted while a server could not write");
    fixture_free(&f);
}

/* Takes all that is left of the disk. */
static void fill_disk(void)
{
    char zeros[4096] = {0};
    int fd = open(kit_path("disk/ballast"), O_WRONLY | O_CREAT, 0666);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    close(fd);
}

/* Stores, run.json, metrics.jsonl and evaluations.jsonl are all on it. */
static void run_on_a_disk_that_is_full_for_a_while_loses_nothing(void **state)
{
    (void)state;
    kit_small_disk("16m");
    struct fixture f = fixture_new(kit_path("disk"));
    start(&f);
    fill_disk();
    go_on(&f);
    trainkit_await_said("no checkpoint at step ");
    assert_int_equal(unlink(kit_path("disk/ballast")), 0);
    trainkit_await_said("they succeed again, after ");
    trainkit_assert_exits(f.train, 0);
    trainkit_assert_same(&f.want, f.run, "the disk was full");
    assert_same_evaluations(&f);
    trainkit_assert_lines(f.run, STEPS);
    fixture_free(&f);
}

/* Rows that have to make room are written at once, and no step can do without. */
static void training_waits_for_a_disk_that_takes_no_rows(void **state)
{
    (void)state;
    static const char wide[] = "tables: {item: {ids: item, dim: 256, cache: 1}}";
    kit_small_disk("64m");
    struct fixture f = {.job = NULL};
    trainkit_dataset_of_items(600, 3000);
    f.job = trainkit_job(STEPS, EVERY, wide);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, wide);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    struct lh_train_result result;
    assert_ok(lh_train(f.job, &opt, &result));
    f.want = trainkit_read(kit_path("undisturbed"));
    snprintf(f.run, sizeof f.run, "%s/run", kit_path("disk"));
    start(&f);
    fill_disk();
    go_on(&f);
    trainkit_await_said("training waits, for 60 s at most");
    const uint64_t cut = trainkit_last_cut(f.run);
    assert_true(cut >= EVERY && cut < STEPS);
    assert_int_equal(unlink(kit_path("disk/ballast")), 0);
    trainkit_assert_exits(f.train, 0);
    assert_true(trainkit_said("can be written again; training goes on") >= 1);
    trainkit_assert_same(&f.want, f.run, "the disk had no room for rows");
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_whose_server_cannot_write_goes_on_and_cuts_when_it_can),
        kit_test(run_whose_last_checkpoint_fails_ends_with_it_and_can_be_resumed),
        kit_test(run_interrupted_while_a_server_cannot_write_cuts_when_it_can),
        cmocka_unit_test_setup_teardown(run_on_a_disk_that_is_full_for_a_while_loses_nothing,
                                        kit_setup, kit_disk_teardown),
        cmocka_unit_test_setup_teardown(training_waits_for_a_disk_that_takes_no_rows, kit_setup,
                                        kit_disk_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
