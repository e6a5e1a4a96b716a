/* What each model of consistency promises (ps/CONSISTENCY.md): sync's bits where a model must give
 * them, the bound of ssp, no waiting in async, every step exactly once whoever dies. */
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

enum { STEPS = 24, EVERY = 7 };

struct fixture {
    struct trainkit_state want; /* of sync, one worker */
};

static struct fixture fixture_new(void)
{
    struct fixture f;
    struct lh_train_result result;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(STEPS, EVERY, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("sync"));
    assert_ok(lh_train(job, &opt, &result));
    f.want = trainkit_read(kit_path("sync"));
    lh_job_destroy(&job);
    return f;
}

static void fixture_free(struct fixture *f)
{
    lh_mem_free(f->want.values);
}

/* Local where `servers` is positive, else as many processes. */
static void train(const char *dir, const char *model, unsigned workers, int servers, char **page)
{
    struct lh_job *job = trainkit_job(STEPS, EVERY, model);
    assert_int_equal(trainkit_train(job, dir, workers, servers, PROGRAM, page), STEPS);
    lh_job_destroy(&job);
}

/* --- where the bits of sync are promised ------------------------------------------------------ */

static void ssp_of_bound_0_gives_the_bits_of_sync(void **state)
{
    (void)state;
    struct fixture f = fixture_new();
    train(kit_path("local"), SSP(0), 3, 2, NULL);
    trainkit_assert_same(&f.want, kit_path("local"), "3 workers, 2 servers, local");
    train(kit_path("tcp"), SSP(0), 2, -2, NULL);
    trainkit_assert_same(&f.want, kit_path("tcp"), "2 workers, 2 servers, tcp");
    fixture_free(&f);
}

static void one_worker_gives_the_bits_of_sync_in_every_model(void **state)
{
    (void)state;
    struct fixture f = fixture_new();
    train(kit_path("ssp"), SSP(3), 1, 2, NULL);
    trainkit_assert_same(&f.want, kit_path("ssp"), "ssp, local");
    train(kit_path("async"), ASYNC, 1, 1, NULL);
    trainkit_assert_same(&f.want, kit_path("async"), "async, local");
    train(kit_path("ipc"), ASYNC, 1, -2, NULL);
    trainkit_assert_same(&f.want, kit_path("ipc"), "async, processes");
    fixture_free(&f);
}

/* A cut holds exactly the steps before it: so another number of roles, and another model, where
 * that has one worker, go on to the same bits. */
static void run_stopped_and_resumed_by_others_gives_the_bits_of_sync(void **state)
{
    (void)state;
    static const unsigned stop[] = {5, 14, 0}, workers[] = {3, 1, 2}, servers[] = {2, 3, 1};
    struct fixture f = fixture_new();
    struct lh_job *job = trainkit_job(STEPS, EVERY, SSP(0));
    for (int i = 0; i < 3; i++) {
        struct lh_train_options opt = trainkit_options(kit_path("parts"));
        struct lh_train_result result;
        opt.workers = workers[i];
        opt.servers = servers[i];
        opt.stop_after = stop[i];
        opt.resume = i > 0;
        assert_ok(lh_train(job, &opt, &result));
    }
    trainkit_assert_same(&f.want, kit_path("parts"), "stopped at 5 and 14");
    lh_job_destroy(&job);
    fixture_free(&f);
}

static void model_is_part_of_the_job_and_sync_leaves_its_digest_alone(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *plain = trainkit_job(STEPS, EVERY, NULL),
                  *sync = trainkit_job(STEPS, EVERY, "consistency: {model: sync, takeover: false}"),
                  *ssp = trainkit_job(STEPS, EVERY, SSP(4)),
                  *async = trainkit_job(STEPS, EVERY, ASYNC);
    assert_int_equal(lh_job_digest(plain), lh_job_digest(sync));
    assert_int_not_equal(lh_job_digest(plain), lh_job_digest(ssp));
    assert_int_not_equal(lh_job_digest(ssp), lh_job_digest(async));
    lh_job_destroy(&plain);
    lh_job_destroy(&sync);
    lh_job_destroy(&ssp);
    lh_job_destroy(&async);
}

/* --- one worker is slow ------------------------------------------------------------------------
 */
static void staleness_of_ssp_never_exceeds_its_bound(void **state)
{
    (void)state;
    trainkit_dataset();
    setenv(SLOW, "0:20", 1);
    char *page = NULL;
    train(kit_path("run"), SSP(2), 3, 2, &page);
    unsetenv(SLOW);
    for (unsigned shard = 0; shard < 2; shard++) {
        assert_true(scrapekit_lacking(page, shard, "+Inf") == STEPS); /* each step once */
        assert_true(scrapekit_lacking(page, shard, "2") == STEPS);
    }
    lh_mem_free(page);
}

/* Lines of metrics.jsonl, one a step that is applied; waits until there are `n`, at most 60 s. */
static bool await_steps(const char *path, unsigned n)
{
    for (double began = lh_now(); lh_now() - began < 60; usleep(10000)) {
        size_t bytes;
        unsigned lines = 0;
        if (access(path, F_OK) != 0)
            continue;
        char *text = kit_read(path, &bytes);
        for (const char *at = text; (at = strchr(at, '\n')); at++)
            lines++;
        free(text);
        if (lines >= n)
            return true;
    }
    return false;
}

/* The slow worker never ends its first step, and nobody may take it over: the other makes all that
 * there are beside it. */
static void async_does_not_wait_for_a_slow_worker(void **state)
{
    (void)state;
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), STEPS, STEPS,
                      "consistency: {model: async, takeover: false}");
    const char *argv[] = {PROGRAM,     "train", kit_path("job.yaml"), "--dir",   kit_path("run"),
                          "--workers", "2",     "--no-evaluation",    "--quiet", NULL};
    setenv(SLOW, "0:1e9", 1);
    pid_t run = trainkit_spawn(kit_path("log"), argv);
    unsetenv(SLOW);
    assert_true(await_steps(kit_path("run/metrics.jsonl"), STEPS - 1));
    assert_int_equal(kill(-run, SIGKILL), 0);
    assert_int_equal(trainkit_wait_exit(run), 1000 + SIGKILL);
}

/* With a bound the other comes no further than that, and then takes the late step over. */
static void ssp_takes_the_step_of_a_worker_that_never_ends_over(void **state)
{
    (void)state;
    trainkit_dataset();
    setenv(SLOW, "0:1e9", 1);
    char *page = NULL;
    train(kit_path("run"), SSP(3), 2, 1, &page);
    unsetenv(SLOW);
    assert_true(scrapekit_taken_over(page) >= 1);
    assert_true(scrapekit_lacking(page, 0, "+Inf") == STEPS);
    assert_true(scrapekit_lacking(page, 0, "4") == STEPS);
    lh_mem_free(page);
}

/* --- takeover in sync ---------------------------------------------------------------------------
 */
/* The slow worker never ends its first step: whatever it has is taken over, step by step. */
static void sync_goes_on_without_a_worker_that_never_ends_to_the_same_bits(void **state)
{
    (void)state;
    struct fixture f = fixture_new();
    char *page = NULL;
    setenv(SLOW, "1:1e9", 1);
    train(kit_path("two"), NULL, 2, 1, &page);
    assert_true(scrapekit_taken_over(page) >= 1);
    lh_mem_free(page);
    train(kit_path("three"), NULL, 3, 2, &page);
    assert_true(scrapekit_taken_over(page) >= 1);
    lh_mem_free(page);
    unsetenv(SLOW);
    trainkit_assert_same(&f.want, kit_path("two"), "2 workers, one stands, 1 server");
    trainkit_assert_same(&f.want, kit_path("three"), "3 workers, one stands, 2 servers");
    fixture_free(&f);
}

/* It gives away what it has not begun, and sends what it has. */
static void sync_with_a_slow_worker_gives_the_same_bits(void **state)
{
    (void)state;
    struct fixture f = fixture_new();
    char *page = NULL;
    setenv(SLOW, "0:6", 1);
    train(kit_path("run"), NULL, 2, 1, &page);
    unsetenv(SLOW);
    trainkit_assert_same(&f.want, kit_path("run"), "2 workers, one slow");
    assert_true(scrapekit_taken_over(page) >= 1);
    lh_mem_free(page);
    fixture_free(&f);
}

/* Not dead, since its deadline is far, and not there either. */
static void sync_goes_on_without_a_stopped_worker_to_the_same_bits(void **state)
{
    (void)state;
    enum { LONG = 120, CUT = 10 };
    struct lh_train_result result;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(LONG, CUT, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("sync"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("sync"));
    trainkit_job_file(kit_path("job.yaml"), LONG, CUT, NULL);
    pid_t run = trainkit_spawn_train(PROGRAM, "3", "2", "cluster.deadline_seconds=600");
    trainkit_stop_worker(run, CUT);
    trainkit_assert_same(&want, kit_path("run"), "one of three workers was stopped");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* --- workers die -------------------------------------------------------------------------------
 */
/* Bound 0 gives bits, which a step that is lost or applied twice would change, or one that a server
 * has and another has not, since its worker died before it had sent it to both. */
static void run_whose_workers_are_killed_applies_each_step_once(void **state)
{
    (void)state;
    enum { LONG = 150, CUT = 10 };
    struct lh_train_result result;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(LONG, CUT, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("sync"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("sync"));
    trainkit_job_file(kit_path("job.yaml"), LONG, CUT, SSP(0));
    pid_t run = trainkit_spawn_train(PROGRAM, "3", "2", NULL);
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(trainkit_wait_cut(kit_path("run"), 3 * i * CUT));
        pid_t worker = trainkit_find_role(run, "worker");
        assert_true(worker > 0);
        assert_int_equal(kill(worker, SIGKILL), 0);
    }
    assert_int_equal(trainkit_wait_exit(run), 0);
    trainkit_assert_same(&want, kit_path("run"), "ssp of bound 0, three workers killed");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(ssp_of_bound_0_gives_the_bits_of_sync),
        kit_test(one_worker_gives_the_bits_of_sync_in_every_model),
        kit_test(run_stopped_and_resumed_by_others_gives_the_bits_of_sync),
        kit_test(model_is_part_of_the_job_and_sync_leaves_its_digest_alone),
        kit_test(staleness_of_ssp_never_exceeds_its_bound),
        kit_test(async_does_not_wait_for_a_slow_worker),
        kit_test(ssp_takes_the_step_of_a_worker_that_never_ends_over),
        kit_test(sync_goes_on_without_a_worker_that_never_ends_to_the_same_bits),
        kit_test(sync_with_a_slow_worker_gives_the_same_bits),
        kit_test(sync_goes_on_without_a_stopped_worker_to_the_same_bits),
        kit_test(run_whose_workers_are_killed_applies_each_step_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
