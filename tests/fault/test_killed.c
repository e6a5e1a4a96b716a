/* Invariant 2: any process may be killed at any instant; the run goes on, or is resumed, to the
 * same bits. */
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/term.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 150, EVERY = 10 };

static pid_t start_train(const char *workers, const char *servers)
{
    return trainkit_spawn_train(PROGRAM, workers, servers, NULL);
}

static void resume_here(const struct trainkit_undisturbed *f, unsigned workers, unsigned servers)
{
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    opt.workers = workers;
    opt.servers = servers;
    opt.resume = true;
    assert_ok(lh_train(f->job, &opt, &result));
}

static void run_whose_worker_is_killed_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("2", "2");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * EVERY));
    pid_t worker = trainkit_find_role(train, "worker");
    assert_true(worker > 0);
    assert_int_equal(kill(worker, SIGKILL), 0);
    trainkit_assert_exits(train, 0);
    assert_true(trainkit_said("the others take its share"));
    trainkit_assert_same(&f.want, kit_path("run"), "a worker was killed");
    trainkit_undisturbed_free(&f);
}

static void run_whose_only_worker_is_killed_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("1", "1");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * EVERY));
    pid_t worker = trainkit_find_role(train, "worker");
    assert_true(worker > 0);
    assert_int_equal(kill(worker, SIGKILL), 0);
    trainkit_assert_exits(train, 0);
    assert_true(trainkit_said("started another worker"));
    trainkit_assert_same(&f.want, kit_path("run"), "the only worker was killed");
    trainkit_undisturbed_free(&f);
}

/* The whole group at several moments, one after the other, each time resumed as something else. */
static void run_killed_whole_and_resumed_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("2", "2");
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kill(-train, SIGKILL);
    trainkit_assert_exits(train, 1000 + SIGKILL);
    for (unsigned i = 1; i <= 2; i++) {
        const char *argv[] = {PROGRAM,
                              "train",
                              kit_path("job.yaml"),
                              "--dir",
                              kit_path("run"),
                              "--launcher",
                              "processes",
                              "--transport",
                              "tcp",
                              "--servers",
                              i == 1 ? "1" : "3",
                              "--resume",
                              "--quiet",
                              "--no-evaluation",
                              NULL};
        train = trainkit_spawn(kit_path("log"), argv);
        assert_true(trainkit_wait_cut(kit_path("run"), (1 + 4 * i) * EVERY));
        usleep(1000 * i);
        kill(-train, SIGKILL);
        trainkit_assert_exits(train, 1000 + SIGKILL);
    }
    resume_here(&f, 2, 2);
    trainkit_assert_same(&f.want, kit_path("run"), "killed three times");
    trainkit_undisturbed_free(&f);
}

static void run_whose_server_is_killed_goes_back_and_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("2", "2");
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(trainkit_wait_cut(kit_path("run"), 2 * i * EVERY));
        pid_t server = trainkit_find_role(train, "server");
        assert_true(server > 0);
        assert_int_equal(kill(server, SIGKILL), 0);
    }
    trainkit_assert_exits(train, 0);
    assert_true(trainkit_said("server "));
    assert_true(trainkit_said("died; the run goes back to step "));
    assert_true(trainkit_said("started another server"));
    trainkit_assert_same(&f.want, kit_path("run"), "servers were killed");
    trainkit_assert_lines(kit_path("run"), STEPS);
    trainkit_undisturbed_free(&f);
}

/* One that is not dead but does not answer either: it is ended, and another one started. */
static void run_whose_server_hangs_goes_back_and_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("2", "1");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * EVERY));
    pid_t server = trainkit_find_role(train, "server");
    assert_true(server > 0);
    assert_int_equal(kill(server, SIGSTOP), 0);
    trainkit_assert_exits(train, 0);
    assert_true(trainkit_said("went silent; the run goes back to step "));
    assert_int_equal(kill(server, 0), -1); /* nothing is left of it */
    trainkit_assert_same(&f.want, kit_path("run"), "a server hung");
    trainkit_undisturbed_free(&f);
}

/* By a scheduler of batch jobs, say: for longer than the deadline nobody hears anybody. */
static void run_that_is_suspended_as_a_whole_goes_on(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = trainkit_spawn_train(PROGRAM, "2", "2", "cluster.deadline_seconds=1");
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    assert_int_equal(kill(-train, SIGSTOP), 0);
    usleep(2500000);
    assert_int_equal(kill(-train, SIGCONT), 0);
    trainkit_assert_exits(train, 0);
    assert_int_equal(trainkit_said("silent"), 0);
    trainkit_assert_same(&f.want, kit_path("run"), "it was suspended");
    trainkit_undisturbed_free(&f);
}

/* Whoever kills servers again and again is not outlasted for ever; the run can still be resumed. */
static void run_whose_servers_are_killed_at_once_ends_and_can_be_resumed(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("1", "1"), server;
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    int status = 0;
    double began = lh_now();
    while (waitpid(train, &status, WNOHANG) == 0 && lh_now() - began < 40) {
        if ((server = trainkit_find_role(train, "server")) > 0)
            kill(server, SIGKILL);
        usleep(1000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), lh_err_exit_status(LH_EPEER));
    assert_true(trainkit_said("--resume"));
    resume_here(&f, 1, 2);
    trainkit_assert_same(&f.want, kit_path("run"), "servers were killed at once");
    trainkit_undisturbed_free(&f);
}

static void run_interrupted_cuts_where_it_is_and_can_be_resumed(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    pid_t train = start_train("2", "2");
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kill(-train, SIGINT); /* as a terminal does: to the whole group */
    trainkit_assert_exits(train, lh_err_exit_status(LH_ECANCELED));
    assert_true(trainkit_said("go on with --resume"));
    resume_here(&f, 2, 1);
    trainkit_assert_same(&f.want, kit_path("run"), "interrupted");
    trainkit_undisturbed_free(&f);
}

/* --- who is gone is named -----------------------------------------------------------------------
 */
/* The line of the log that names this process also says so. */
static bool is_named(pid_t pid, const char *words)
{
    char name[32];
    snprintf(name, sizeof name, "(process %d on ", (int)pid);
    char *text = kit_read(kit_path("log"), NULL), *at = text, *end = text;
    bool named = false;
    while (!named && (at = strstr(end, name))) {
        end = at + strcspn(at, "\n");
        char *found = strstr(at, words);
        named = found && found < end;
    }
    free(text);
    return named;
}

/* While the others go on with its work: by takeover where it is a worker. The run is as long as it
 * has to be, and is held against one that is stopped where it was. */
static void who_is_gone_is_named_within_seconds(void **state)
{
    (void)state;
    enum { ENDLESS = 10000000, LONG = 100 };
    static const struct {
        const char *role, *says;
        int signal;
    } cases[] = {{"worker", "died; the others take its share", SIGKILL},
                 {"worker", "went silent; the others take its share", SIGSTOP},
                 {"server", "died; the run goes back to step ", SIGKILL},
                 {"server", "went silent; the run goes back to step ", SIGSTOP}};
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), ENDLESS, LONG, NULL);
    pid_t train = trainkit_spawn_train(PROGRAM, "3", "2", "cluster.deadline_seconds=1");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint64_t at = trainkit_last_cut(kit_path("run"));
        assert_true(trainkit_wait_cut(kit_path("run"), at + LONG));
        pid_t gone = trainkit_find_role(train, cases[i].role);
        assert_true(gone > 0);
        const double began = lh_now();
        assert_int_equal(kill(gone, cases[i].signal), 0);
        while (!is_named(gone, cases[i].says) && lh_now() - began < 10)
            usleep(5000);
        if (lh_now() - began > 6) /* the deadline, and what a loaded machine takes */
            fail_msg("%s: %.1f s", cases[i].says, lh_now() - began);
    }
    assert_true(trainkit_wait_cut(kit_path("run"), trainkit_last_cut(kit_path("run")) + LONG));
    kill(train, SIGINT);
    trainkit_assert_exits(train, lh_err_exit_status(LH_ECANCELED));
    struct lh_job *job = trainkit_job(ENDLESS, LONG, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    struct lh_train_result result;
    opt.stop_after = trainkit_last_cut(kit_path("run"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    trainkit_assert_same(&want, kit_path("run"), "roles were gone");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* --- roles started by hand ----------------------------------------------------------------------
 */
struct hand {
    pid_t scheduler, server, worker;
};

static pid_t start_scheduler(const char *endpoint, const char *resume)
{
    const char *scheduler[] = {
        PROGRAM,  "scheduler", kit_path("job.yaml"), "--dir",   kit_path("run"),
        "--bind", endpoint,    "--no-evaluation",    "--quiet", resume,
        NULL};
    return trainkit_spawn(kit_path("log"), scheduler);
}

/* In the worst order: worker, server, scheduler. */
static struct hand start_by_hand(const char *endpoint, const char *bind, const char *resume,
                                 const char *patience)
{
    const char *worker[] = {PROGRAM,  "worker",    "--scheduler", endpoint, "--patience",
                            patience, "--metrics", "0",           NULL};
    const char *server[] = {PROGRAM,      "server", "--scheduler", endpoint, "--bind", bind,
                            "--patience", patience, "--metrics",   "0",      NULL};
    struct hand h;
    h.worker = trainkit_spawn(kit_path("log"), worker);
    h.server = trainkit_spawn(kit_path("log"), server);
    h.scheduler = start_scheduler(endpoint, resume);
    return h;
}

/* While the scheduler is gone: a role that has said hello more than once shows its last life, not
 * all of them. */
static void check_pages(void)
{
    static const char where[] = "metrics at http://", steps[] = "\nlonghaul_steps_total{";
    size_t bytes, pages = 0;
    char *log = kit_read(kit_path("log"), &bytes), endpoint[64];
    for (const char *at = log; (at = strstr(at, where)); pages++) {
        at += sizeof where - 1;
        snprintf(endpoint, sizeof endpoint, "%.*s", (int)strcspn(at, "/"), at);
        char *page = scrapekit_get(endpoint, "/metrics"), *first = strstr(page, steps);
        scrapekit_check(page, NULL);
        assert_non_null(first);
        assert_null(strstr(first + 1, steps));
        free(page);
    }
    assert_int_equal(pages, 2);
    free(log);
}

static void scheduler_killed_and_started_again_finds_its_roles_waiting(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    char endpoint[300], bind[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", kit_dir());
    snprintf(bind, sizeof bind, "ipc://%s/p", kit_dir());
    struct hand h = start_by_hand(endpoint, bind, NULL, "60");
    for (unsigned i = 1; i <= 2; i++) {
        assert_true(trainkit_wait_cut(kit_path("run"), 2 * i * EVERY));
        kill(h.scheduler, SIGKILL);
        trainkit_assert_exits(h.scheduler, 1000 + SIGKILL);
        check_pages();
        h.scheduler = start_scheduler(endpoint, "--resume");
    }
    trainkit_assert_exits(h.scheduler, 0);
    trainkit_assert_exits(h.worker, 0);
    trainkit_assert_exits(h.server, 0);
    assert_true(trainkit_said("waiting for it to come back"));
    trainkit_assert_same(&f.want, kit_path("run"), "the scheduler was killed");
    trainkit_assert_lines(kit_path("run"), STEPS);
    trainkit_undisturbed_free(&f);
}

static void scheduler_killed_for_good_is_not_waited_for_longer_than_patience(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    char endpoint[300], bind[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", kit_dir());
    snprintf(bind, sizeof bind, "ipc://%s/p", kit_dir());
    struct hand h = start_by_hand(endpoint, bind, NULL, "3");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * EVERY));
    kill(h.scheduler, SIGKILL);
    trainkit_assert_exits(h.scheduler, 1000 + SIGKILL);
    trainkit_assert_exits(h.worker, lh_err_exit_status(LH_ETIMEDOUT));
    trainkit_assert_exits(h.server, lh_err_exit_status(LH_ETIMEDOUT));
    assert_true(trainkit_said("the scheduler at ipc://"));
    h = start_by_hand(endpoint, bind, "--resume", "60");
    trainkit_assert_exits(h.scheduler, 0);
    trainkit_assert_exits(h.worker, 0);
    trainkit_assert_exits(h.server, 0);
    trainkit_assert_same(&f.want, kit_path("run"), "the scheduler was killed");
    trainkit_undisturbed_free(&f);
}

static void server_by_hand_killed_and_started_again_takes_the_run_up(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    char endpoint[300], bind[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", kit_dir());
    snprintf(bind, sizeof bind, "ipc://%s/p", kit_dir());
    const char *server[] = {PROGRAM, "server", "--scheduler", endpoint, "--bind", bind, NULL};
    struct hand h = start_by_hand(endpoint, bind, NULL, "60");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * EVERY));
    kill(h.server, SIGKILL);
    trainkit_assert_exits(h.server, 1000 + SIGKILL);
    h.server = trainkit_spawn(kit_path("log"), server);
    trainkit_assert_exits(h.scheduler, 0);
    trainkit_assert_exits(h.worker, 0);
    trainkit_assert_exits(h.server, 0);
    assert_true(trainkit_said("the run goes back to step "));
    trainkit_assert_same(&f.want, kit_path("run"), "a server by hand was killed");
    trainkit_undisturbed_free(&f);
}

static void worker_joins_and_another_leaves_without_a_bit_changed(void **state)
{
    (void)state;
    struct trainkit_undisturbed f = trainkit_undisturbed(STEPS, EVERY, NULL);
    char endpoint[300], bind[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", kit_dir());
    snprintf(bind, sizeof bind, "ipc://%s/p", kit_dir());
    const char *worker[] = {PROGRAM, "worker", "--scheduler", endpoint, NULL};
    struct hand h = start_by_hand(endpoint, bind, NULL, "60");
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    pid_t second = trainkit_spawn(kit_path("log"), worker);
    assert_true(trainkit_wait_cut(kit_path("run"), 5 * EVERY));
    kill(h.worker, SIGINT);
    trainkit_assert_exits(h.worker, 0);
    trainkit_assert_exits(h.scheduler, 0);
    trainkit_assert_exits(second, 0);
    trainkit_assert_exits(h.server, 0);
    assert_true(trainkit_said("a worker joined"));
    trainkit_assert_same(&f.want, kit_path("run"), "one joined, one left");
    trainkit_undisturbed_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_whose_worker_is_killed_gives_the_same_bits),
        kit_test(run_whose_only_worker_is_killed_gives_the_same_bits),
        kit_test(run_killed_whole_and_resumed_gives_the_same_bits),
        kit_test(run_whose_server_is_killed_goes_back_and_gives_the_same_bits),
        kit_test(run_whose_server_hangs_goes_back_and_gives_the_same_bits),
        kit_test(run_that_is_suspended_as_a_whole_goes_on),
        kit_test(run_whose_servers_are_killed_at_once_ends_and_can_be_resumed),
        kit_test(who_is_gone_is_named_within_seconds),
        kit_test(run_interrupted_cuts_where_it_is_and_can_be_resumed),
        kit_test(scheduler_killed_and_started_again_finds_its_roles_waiting),
        kit_test(scheduler_killed_for_good_is_not_waited_for_longer_than_patience),
        kit_test(server_by_hand_killed_and_started_again_takes_the_run_up),
        kit_test(worker_joins_and_another_leaves_without_a_bit_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
