/* What each model of consistency promises (ps/CONSISTENCY.md) of a job with embedding tables: as
 * test_consistency.c, of rows too. */
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/metrics.h"
#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define SLOW    "LONGHAUL_TEST_SLOW"
#define TABLES                                                                                     \
    "tables:\n"                                                                                    \
    "  item: {ids: [item, before], into: state_low, dim: 5, learning_rate: 0.01, cache: 1}\n"      \
    "  user: {ids: user, into: state_high, dim: 3, learning_rate: 0.01, cache: 1,\n"               \
    "         admit_after: 2, evict_after: 6}\n"

enum { STEPS = 24, EVERY = 7, MICRO = 2 }; /* 26 micro-batches: subtrees that are given in part */

static struct lh_job *job_of(unsigned steps, unsigned every, const char *model)
{
    char more[1024];
    snprintf(more, sizeof more, "%s%s\n", TABLES, model);
    struct lh_job *job = trainkit_job(steps, every, more);
    job->micro_batch = MICRO;
    return job;
}

/* What sync with one worker ends at. */
static struct trainkit_state train_alone(unsigned steps, unsigned every)
{
    struct lh_train_result result;
    trainkit_dataset_of_items(60, 300);
    struct lh_job *job = job_of(steps, every, "");
    struct lh_train_options opt = trainkit_options(kit_path("sync"));
    assert_ok(lh_train(job, &opt, &result));
    lh_job_destroy(&job);
    struct trainkit_state want = trainkit_read(kit_path("sync"));
    assert_true(want.rows > 100);
    return want;
}

/* Local where `servers` is positive, else as many processes. *page (may be NULL): its metrics. */
static void train(const char *dir, const char *model, unsigned workers, int servers, char **page)
{
    struct lh_job *job = job_of(STEPS, EVERY, model);
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    struct lh_metrics *metrics = NULL;
    size_t n;
    assert_ok(lh_metrics_open(&metrics, NULL));
    opt.workers = workers;
    opt.servers = (unsigned)abs(servers);
    opt.launcher = servers > 0 ? LH_LAUNCH_LOCAL : LH_LAUNCH_PROCESSES;
    opt.transport = servers > 0 ? LH_TRANSPORT_INPROC : LH_TRANSPORT_TCP;
    opt.program = PROGRAM;
    opt.metrics = metrics;
    assert_ok(lh_train(job, &opt, &result));
    assert_int_equal(result.version, STEPS);
    if (page)
        assert_ok(lh_metrics_render(metrics, page, &n));
    lh_metrics_close(&metrics);
    lh_job_destroy(&job);
}

/* By processes: 3 workers, 2 servers. */
static pid_t spawn(unsigned steps, unsigned every, const char *model, const char *set)
{
    struct lh_job *job = job_of(steps, every, model);
    char *text = NULL;
    assert_ok(lh_job_print(job, &text));
    kit_write(kit_path("job.yaml"), text);
    lh_mem_free(text);
    lh_job_destroy(&job);
    return trainkit_spawn_train(PROGRAM, "3", "2", set);
}

/* --- takeover in sync ---------------------------------------------------------------------------
 */
/* The slow worker never ends its first step: whatever it has is taken over, step by step. */
static void sync_goes_on_without_a_worker_that_never_ends_to_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_state want = train_alone(STEPS, EVERY);
    char *page = NULL;
    setenv(SLOW, "1:1e9", 1);
    train(kit_path("two"), "", 2, 1, &page);
    assert_true(scrapekit_taken_over(page) >= 1);
    lh_mem_free(page);
    train(kit_path("three"), "", 3, 2, &page);
    assert_true(scrapekit_taken_over(page) >= 1);
    lh_mem_free(page);
    unsetenv(SLOW);
    trainkit_assert_same(&want, kit_path("two"), "2 workers, one stands, 1 server");
    trainkit_assert_same(&want, kit_path("three"), "3 workers, one stands, 2 servers");
    lh_mem_free(want.values);
}

/* It gives away what it has not begun, and sends what it has, rows and all. */
static void sync_with_a_slow_worker_gives_the_same_bits(void **state)
{
    (void)state;
    struct trainkit_state want = train_alone(STEPS, EVERY);
    static const char *const slow[] = {"0:3", "0:6", "1:20"};
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        char *page = NULL, name[16];
        snprintf(name, sizeof name, "run-%zu", i);
        setenv(SLOW, slow[i], 1);
        train(kit_path(name), "", 2, (int)i + 1, &page);
        unsetenv(SLOW);
        trainkit_assert_same(&want, kit_path(name), slow[i]);
        assert_true(scrapekit_taken_over(page) >= 1);
        lh_mem_free(page);
    }
    lh_mem_free(want.values);
}

/* Not dead, since its deadline is far, and not there either. */
static void sync_goes_on_without_a_stopped_worker_to_the_same_bits(void **state)
{
    (void)state;
    enum { LONG = 120, CUT = 10 };
    struct trainkit_state want = train_alone(LONG, CUT);
    pid_t run = spawn(LONG, CUT, "", "cluster.deadline_seconds=600");
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * CUT));
    pid_t worker = trainkit_find_role(run, "worker");
    assert_true(worker > 0);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    uint64_t at = trainkit_last_cut(kit_path("run"));
    assert_true(trainkit_wait_cut(kit_path("run"), at + 3 * CUT));
    assert_int_equal(kill(worker, SIGCONT), 0);
    assert_int_equal(trainkit_wait_exit(run), 0);
    trainkit_assert_same(&want, kit_path("run"), "one of three workers was stopped");
    lh_mem_free(want.values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(sync_goes_on_without_a_worker_that_never_ends_to_the_same_bits),
        kit_test(sync_with_a_slow_worker_gives_the_same_bits),
        kit_test(sync_goes_on_without_a_stopped_worker_to_the_same_bits),
    };
    return cmocka_run_group_tests_name("table_consistency", tests, NULL, NULL);
}
