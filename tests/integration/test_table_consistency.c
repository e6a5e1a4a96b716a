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
#define SSP(s)  "consistency: {model: ssp, bound: " #s "}"
#define ASYNC   "consistency: {model: async}"
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
    assert_int_equal(trainkit_train(job, dir, workers, servers, PROGRAM, page), STEPS);
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

/* --- where the bits of sync are promised ------------------------------------------------------ */

static void ssp_of_bound_0_gives_the_bits_of_sync(void **state)
{
    (void)state;
    struct trainkit_state want = train_alone(STEPS, EVERY);
    train(kit_path("local"), SSP(0), 3, 2, NULL);
    trainkit_assert_same(&want, kit_path("local"), "3 workers, 2 servers, local");
    train(kit_path("tcp"), SSP(0), 2, -2, NULL);
    trainkit_assert_same(&want, kit_path("tcp"), "2 workers, 2 servers, tcp");
    lh_mem_free(want.values);
}

static void one_worker_gives_the_bits_of_sync_in_every_model(void **state)
{
    (void)state;
    struct trainkit_state want = train_alone(STEPS, EVERY);
    train(kit_path("ssp"), SSP(3), 1, 2, NULL);
    trainkit_assert_same(&want, kit_path("ssp"), "ssp, local");
    train(kit_path("async"), ASYNC, 1, 1, NULL);
    trainkit_assert_same(&want, kit_path("async"), "async, local");
    train(kit_path("tcp"), ASYNC, 1, -2, NULL);
    trainkit_assert_same(&want, kit_path("tcp"), "async, processes");
    lh_mem_free(want.values);
}

/* A cut holds the rows of exactly the steps before it: another number of roles goes on from it. */
static void run_stopped_and_resumed_by_others_gives_the_bits_of_sync(void **state)
{
    (void)state;
    static const unsigned stop[] = {5, 14}, workers[] = {3, 1, 2}, servers[] = {2, 3, 1};
    struct trainkit_state want = train_alone(STEPS, EVERY);
    struct lh_job *job = job_of(STEPS, EVERY, SSP(0));
    assert_int_equal(trainkit_train_parts(job, kit_path("parts"), stop, workers, servers), STEPS);
    trainkit_assert_same(&want, kit_path("parts"), "stopped at 5 and 14");
    lh_job_destroy(&job);
    lh_mem_free(want.values);
}

/* Bound 0 gives bits, which rows of a step that is lost or applied twice would change, or of one
 * that a server has and another has not, since its worker died before it had sent it to both. */
static void run_whose_workers_are_killed_applies_each_step_once(void **state)
{
    (void)state;
    enum { LONG = 150, CUT = 10 };
    struct trainkit_state want = train_alone(LONG, CUT);
    pid_t run = spawn(LONG, CUT, SSP(0), NULL);
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(trainkit_wait_cut(kit_path("run"), 3 * i * CUT));
        pid_t worker = trainkit_find_role(run, "worker");
        assert_true(worker > 0);
        assert_int_equal(kill(worker, SIGKILL), 0);
    }
    assert_int_equal(trainkit_wait_exit(run), 0);
    trainkit_assert_same(&want, kit_path("run"), "ssp of bound 0, three workers killed");
    lh_mem_free(want.values);
}

/* --- where they are not ------------------------------------------------------------------------
 */
/* Each step once, on every server, at weights that lacked at most so many of those before. */
static void assert_each_once(const char *page, unsigned servers, const char *most)
{
    for (unsigned shard = 0; shard < servers; shard++) {
        assert_true(scrapekit_lacking(page, shard, "+Inf") == STEPS);
        assert_true(scrapekit_lacking(page, shard, most) == STEPS);
    }
}

static void staleness_of_ssp_never_exceeds_its_bound(void **state)
{
    (void)state;
    trainkit_dataset_of_items(60, 300);
    char *page = NULL;
    setenv(SLOW, "0:20", 1);
    train(kit_path("run"), SSP(2), 3, 2, &page);
    unsetenv(SLOW);
    assert_each_once(page, 2, "2");
    lh_mem_free(page);
}

/* The others come no further than the bound, and then take the late step over, rows and all. */
static void ssp_takes_the_step_of_a_worker_that_never_ends_over(void **state)
{
    (void)state;
    trainkit_dataset_of_items(60, 300);
    char *page = NULL;
    setenv(SLOW, "0:1e9", 1);
    train(kit_path("run"), SSP(4), 3, 2, &page);
    unsetenv(SLOW);
    assert_true(scrapekit_taken_over(page) >= 1);
    assert_each_once(page, 2, "4");
    lh_mem_free(page);
}

/* Only the item's id tells the action: uniform in [-1, 1], scaled, so 2 / 3 is the error of who
 * learns nothing of the rows. */
static void rows_are_learnt_in_every_model(void **state)
{
    (void)state;
    static const char *const models[] = {SSP(4), ASYNC};
    trainkit_dataset_of_items(200, 40);
    for (int i = 0; i < 2; i++) {
        char text[1024], name[16];
        snprintf(text, sizeof text,
                 "dataset: %s\nalgorithm: il\nnetwork: {hidden: [16]}\n"
                 "optimiser: {lr_cvae: 0.003}\n"
                 "train: {batch: 512, micro_batch: 256, steps: 140}\ncheckpoint: {every: 70}\n"
                 "tables: {item: {ids: item, dim: 8, learning_rate: 0.02}}\n%s\n",
                 kit_path("data"), models[i]);
        snprintf(name, sizeof name, "run-%d", i);
        kit_write(kit_path("job.yaml"), text);
        assert_int_equal(kit_run(NULL,
                                 PROGRAM " train %s --dir %s -q --no-evaluation --workers 3 "
                                         "--servers 2",
                                 kit_path("job.yaml"), kit_path(name)),
                         0);
        trainkit_assert_lines(kit_path(name), 140);
        assert_true(trainkit_last_metric(kit_path(name), "rec") < 0.2);
    }
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
    double taken_over = 0; /* on a machine that is busy, not from each */
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        char *page = NULL, name[16];
        snprintf(name, sizeof name, "run-%zu", i);
        setenv(SLOW, slow[i], 1);
        train(kit_path(name), "", 2, (int)i + 1, &page);
        unsetenv(SLOW);
        trainkit_assert_same(&want, kit_path(name), slow[i]);
        taken_over += scrapekit_taken_over(page);
        lh_mem_free(page);
    }
    assert_true(taken_over >= 1);
    lh_mem_free(want.values);
}

/* Not dead, since its deadline is far, and not there either. */
static void sync_goes_on_without_a_stopped_worker_to_the_same_bits(void **state)
{
    (void)state;
    enum { LONG = 120, CUT = 10 };
    struct trainkit_state want = train_alone(LONG, CUT);
    pid_t run = spawn(LONG, CUT, "", "cluster.deadline_seconds=600");
    trainkit_stop_worker(run, CUT);
    trainkit_assert_same(&want, kit_path("run"), "one of three workers was stopped");
    lh_mem_free(want.values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(ssp_of_bound_0_gives_the_bits_of_sync),
        kit_test(one_worker_gives_the_bits_of_sync_in_every_model),
        kit_test(run_stopped_and_resumed_by_others_gives_the_bits_of_sync),
        kit_test(run_whose_workers_are_killed_applies_each_step_once),
        kit_test(staleness_of_ssp_never_exceeds_its_bound),
        kit_test(ssp_takes_the_step_of_a_worker_that_never_ends_over),
        kit_test(rows_are_learnt_in_every_model),
        kit_test(sync_goes_on_without_a_worker_that_never_ends_to_the_same_bits),
        kit_test(sync_with_a_slow_worker_gives_the_same_bits),
        kit_test(sync_goes_on_without_a_stopped_worker_to_the_same_bits),
    };
    return cmocka_run_group_tests_name("table_consistency", tests, NULL, NULL);
}
