/* Work that comes late: a worker is stopped in the middle of a block of rows, the others take over
 * what it had and go on, and when it is continued it pushes gradients of a step that is long in.
 * They are ignored, and counted, and change no bit; whether the worker was only late, or was given
 * up meanwhile. */
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 300, EVERY = 10, WORKERS = 2 };

struct fixture {
    struct trainkit_state want; /* of the undisturbed run */
    char scheduler_at[300], server_at[300], metrics_at[64];
    pid_t scheduler, server, worker[WORKERS];
};

/* Two micro-batches a step, so that each worker has one, and is in the middle of it nearly always.
 */
static void write_job(const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "dataset: %s\nalgorithm: resact\nseed: 3\n"
             "network: {hidden: [64, 64], z_high: 4, z_low: 4}\nobjective: {estimators: 2}\n"
             "train: {batch: 512, micro_batch: 256, steps: %d}\ncheckpoint: {every: %d}\n"
             "%s\n",
             kit_path("data"), STEPS, EVERY, more);
    kit_write(kit_path("job.yaml"), text);
}

static pid_t start_worker(const struct fixture *f)
{
    const char *worker[] = {PROGRAM, "worker", "--scheduler", f->scheduler_at, NULL};
    return trainkit_spawn(kit_path("log"), worker);
}

/* "metrics at http://127.0.0.1:PORT/metrics", which the server says. */
static void await_metrics(struct fixture *f)
{
    trainkit_await_said("metrics at http://");
    char *text = kit_read(kit_path("log"), NULL);
    const char *at = strstr(text, "metrics at http://") + strlen("metrics at http://");
    snprintf(f->metrics_at, sizeof f->metrics_at, "%.*s", (int)strcspn(at, "/"), at);
    free(text);
}

static void start(struct fixture *f, const char *more)
{
    *f = (struct fixture){0};
    trainkit_dataset();
    write_job(more);
    if (kit_run(NULL, PROGRAM " train '%s' --dir '%s' --no-evaluation --quiet",
                kit_path("job.yaml"), kit_path("undisturbed")) != 0)
        fail_msg("the undisturbed run failed");
    f->want = trainkit_read(kit_path("undisturbed"));
    snprintf(f->scheduler_at, sizeof f->scheduler_at, "ipc://%s/s", kit_dir());
    snprintf(f->server_at, sizeof f->server_at, "ipc://%s/p", kit_dir());
    const char *scheduler[] = {PROGRAM,           "scheduler",     kit_path("job.yaml"),
                               "--dir",           kit_path("run"), "--bind",
                               f->scheduler_at,   "--workers",     "2",
                               "--no-evaluation", "--quiet",       NULL};
    const char *server[] = {PROGRAM,         "server",      "--scheduler",
                            f->scheduler_at, "--bind",      f->server_at,
                            "--metrics",     "127.0.0.1:0", NULL};
    f->scheduler = trainkit_spawn(kit_path("log"), scheduler);
    f->server = trainkit_spawn(kit_path("log"), server);
    for (int i = 0; i < WORKERS; i++)
        f->worker[i] = start_worker(f);
    await_metrics(f);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
}

static double ignored(const struct fixture *f)
{
    char *page = scrapekit_get(f->metrics_at, "/metrics");
    const char *at = strstr(page, "\nlonghaul_pushes_ignored_total{");
    assert_non_null(at);
    double n = strtod(strstr(at, "} ") + 2, NULL);
    free(page);
    return n;
}

/* Continues the late worker alone, so that whatever is ignored is its own. */
static bool comes_late(const struct fixture *f)
{
    kill(f->worker[1], SIGSTOP);
    usleep(20000); /* what it has sent is taken in */
    const double before = ignored(f);
    kill(f->worker[0], SIGCONT);
    bool late = false;
    for (double began = lh_now(); !late && lh_now() - began < 0.5; usleep(5000))
        late = ignored(f) > before;
    kill(f->worker[1], SIGCONT);
    return late;
}

/* Stops a worker until others are two checkpoints further, again and again until it was in the
 * middle of a block. */
static void assert_late_work_changes_no_bit(struct fixture *f, const char *meanwhile)
{
    bool late = false;
    for (int tries = 0; tries < 12 && !late; tries++) {
        const uint64_t at = trainkit_last_cut(kit_path("run"));
        kill(f->worker[0], SIGSTOP);
        if (meanwhile)
            trainkit_await_said(meanwhile);
        assert_true(trainkit_wait_cut(kit_path("run"), at + 3 * EVERY));
        late = comes_late(f);
    }
    assert_true(late);
    trainkit_assert_exits(f->scheduler, 0);
    trainkit_assert_exits(f->server, 0);
    for (int i = 0; i < WORKERS; i++)
        trainkit_assert_exits(f->worker[i], 0);
    trainkit_assert_same(&f->want, kit_path("run"), "a worker's work came late");
    lh_mem_free(f->want.values);
}

static void work_of_a_worker_that_was_late_is_ignored_and_counted(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, "cluster: {heartbeat_seconds: 0.2, deadline_seconds: 600}");
    assert_late_work_changes_no_bit(&f, NULL);
    assert_int_equal(trainkit_said("went silent"), 0);
}

static void work_of_a_worker_that_was_given_up_is_ignored_and_counted(void **state)
{
    (void)state;
    struct fixture f;
    /* without takeover the run waits until it is given up */
    start(&f, "cluster: {heartbeat_seconds: 0.2, deadline_seconds: 1}\n"
              "consistency: {takeover: false}");
    assert_late_work_changes_no_bit(&f, "went silent; the others take its share");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(work_of_a_worker_that_was_late_is_ignored_and_counted),
        kit_test(work_of_a_worker_that_was_given_up_is_ignored_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
