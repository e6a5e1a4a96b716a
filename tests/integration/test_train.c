/* lh_train as its callers see it: what it writes, how it fails, what it costs. */
#include "cluster/train.h"

#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "cluster/export.h"
#include "cluster/run_record.h"
#include "common/err.h"
#include "common/net.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static uint64_t allocations_of(unsigned steps, const char *dir)
{
    struct lh_job *job = trainkit_job(steps, 1000, NULL);
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    job->heartbeat_seconds = 60;
    job->deadline_seconds = 120;
    opt.workers = 2;
    opt.servers = 2;
    uint64_t before = lh_mem_count();
    assert_ok(lh_train(job, &opt, &result));
    uint64_t count = lh_mem_count() - before;
    assert_int_equal(result.steps, steps);
    lh_job_destroy(&job);
    return count;
}

static void train_step_allocates_nothing(void **state)
{
    (void)state;
    trainkit_dataset();
    uint64_t few = allocations_of(20, kit_path("few"));
    uint64_t many = allocations_of(220, kit_path("many"));
    /* How many of its few buffers a worker comes to need is a matter of timing. */
    if (many > few + 100)
        fail_msg("20 steps: %llu allocations, 220 steps: %llu", (unsigned long long)few,
                 (unsigned long long)many);
}

/* On whichever thread it strikes: the run fails with that sentence or, where the failure is
 * harmless, does not; it never hangs, and nothing is lost (the tear-down looks). */
static void train_out_of_memory_anywhere_ends_in_order(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 1, NULL);
    uint64_t total = lh_mem_count();
    struct lh_train_options opt = trainkit_options(kit_path("run-0"));
    struct lh_train_result result;
    assert_ok(lh_train(job, &opt, &result));
    total = lh_mem_count() - total;
    unsigned failed = 0, runs = 0;
    for (uint64_t nth = 1; nth <= total; nth += 1 + total / 60) {
        char name[32];
        snprintf(name, sizeof name, "run-%u", ++runs);
        opt.dir = kit_path(name);
        lh_mem_fail_at(nth);
        int rc = lh_train(job, &opt, &result);
        lh_mem_fail_at(0);
        if (rc < 0 && rc != LH_ENOMEM)
            fail_msg("allocation %llu of %llu: %s", (unsigned long long)nth,
                     (unsigned long long)total, lh_err_text());
        failed += rc < 0;
    }
    assert_true(failed > runs / 2);
    lh_job_destroy(&job);
}

/* More cuts between two heartbeats than orders may wait to be acknowledged: the last, to stop, is
 * heard all the same. */
static void train_that_cuts_at_every_step_ends(void **state)
{
    (void)state;
    enum { STEPS = 400 };
    trainkit_dataset();
    struct lh_job *job = trainkit_job(STEPS, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    job->heartbeat_seconds = 600;
    job->deadline_seconds = 1200;
    assert_ok(lh_train(job, &opt, &result));
    assert_int_equal(result.version, STEPS);
    lh_job_destroy(&job);
}

static void train_that_diverges_says_where_and_keeps_the_last_cut(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(50, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    struct lh_run_record record = {0};
    struct lh_run *run = NULL;
    job->lr_critic = job->lr_actor = job->lr_cvae = 10;
    job->bound = LH_BOUND_NONE;
    job->n_hidden = LH_MLP_HIDDEN_MAX;
    for (size_t i = 0; i < job->n_hidden; i++)
        job->hidden[i] = 8;
    opt.workers = 2;
    assert_err(lh_train(job, &opt, &result), LH_EDIVERGED, "gradient");
    assert_ok(lh_run_record_load(&record, opt.dir));
    assert_int_equal(record.state, LH_RUN_FAILED);
    kit_assert_contains(record.error, "gradient");
    assert_true(record.has_last && record.last >= 1);
    assert_ok(lh_run_open(&run, opt.dir, LH_CUT_LAST));
    lh_run_close(&run);
    lh_run_record_fini(&record);
    lh_job_destroy(&job);
}

static void train_whose_roles_never_come_names_who_is_missing(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    opt.launcher = LH_LAUNCH_HAND;
    opt.patience = 0.2;
    opt.servers = 2;
    assert_err(lh_train(job, &opt, &result), LH_ETIMEDOUT, "0 of 2 servers and 0 of 1 workers");
    kit_assert_contains(lh_err_text(), "longhaul server");
    lh_job_destroy(&job);
}

static void train_where_another_works_is_refused(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    assert_ok(lh_train(job, &opt, &result));
    int other = open(kit_path("run/.lock"), O_RDWR);
    assert_int_equal(flock(other, LOCK_EX), 0);
    opt.resume = true;
    assert_err(lh_train(job, &opt, &result), LH_EBUSY, "another scheduler");
    close(other);
    lh_job_destroy(&job);
}

static void train_on_a_port_in_use_says_so(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    void *zmq = zmq_ctx_new();
    struct lh_net_socket *taken = NULL;
    assert_ok(lh_net_router(&taken, zmq, "tcp://127.0.0.1:*", 10, NULL));
    opt.launcher = LH_LAUNCH_HAND;
    opt.bind = lh_net_endpoint(taken);
    assert_err(lh_train(job, &opt, &result), LH_EBUSY, "in use");
    lh_net_close(&taken);
    zmq_ctx_term(zmq);
    lh_job_destroy(&job);
}

/* --- evaluation ---------------------------------------------------------------------------------
 */
static void train_evaluates_its_cuts_and_the_best_does_not_depend_on_interruptions(void **state)
{
    (void)state;
    trainkit_dataset();
    char more[600];
    snprintf(more, sizeof more, "evaluation: {every: 4, ess_floor: 0, behaviour: %s}",
             kit_path("imitator"));
    trainkit_imitator(kit_path("imitator"));
    struct lh_job *job = trainkit_job(14, 6, more);
    struct lh_train_options opt = trainkit_options(kit_path("whole"));
    struct lh_train_result whole, parts = {0};
    opt.no_evaluation = false;
    opt.servers = 2;
    assert_ok(lh_train(job, &opt, &whole));
    assert_true(whole.has_evaluation);
    /* Evaluated at 4, 8, 12 and the end; 6 is a checkpoint only. */
    assert_true(whole.best_version == 14 || whole.best_version % 4 == 0);
    assert_true(whole.best_version > 0);
    opt.dir = kit_path("parts");
    for (uint64_t stop = 5; stop <= 15; stop += 5) {
        opt.stop_after = stop;
        assert_ok(lh_train(job, &opt, &parts));
        assert_true(parts.has_test == (stop == 15));
        opt.resume = true;
    }
    assert_int_equal(parts.best_version, whole.best_version);
    assert_memory_equal(&parts.best_value, &whole.best_value, sizeof whole.best_value);
    /* The end is valued on test, once it has come. */
    assert_true(whole.has_test && parts.has_test);
    assert_true(whole.test_lo < whole.test_value && whole.test_value < whole.test_hi);
    assert_memory_equal(&parts.test_value, &whole.test_value, sizeof whole.test_value);
    char *test = kit_read(kit_path("whole/test.json"), NULL);
    kit_assert_contains(test, "\"split\":\"test\"");
    free(test);
    /* Each evaluation is on record, also where its cut is not kept. */
    char *once = kit_read(kit_path("whole/evaluations.jsonl"), NULL);
    char *parted = kit_read(kit_path("parts/evaluations.jsonl"), NULL);
    assert_string_equal(parted, once);
    const char *line = once;
    for (unsigned step = 4; step <= 16; step += 4) {
        char head[60];
        snprintf(head, sizeof head, "{\"step\": %u, \"evaluation\": {", step < 14 ? step : 14);
        assert_memory_equal(line, head, strlen(head));
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(*line, 0);
    free(once);
    free(parted);
    struct lh_run *run = NULL;
    assert_ok(lh_run_open(&run, opt.dir, LH_CUT_BEST));
    assert_int_equal(run->version, whole.best_version);
    assert_non_null(run->evaluation_json);
    lh_run_close(&run);
    lh_job_destroy(&job);
}

/* Standard output of the command, which must succeed; free(). */
static char *command_says(const char *options)
{
    char *out = NULL;
    int status = kit_run(&out,
                         "cd '%s' && OPENBLAS_NUM_THREADS=1 " LH_BINARY_DIR
                         "/longhaul train job.yaml --quiet --no-evaluation %s",
                         kit_dir(), options);
    if (status != 0)
        fail_msg("train %s: status %d: %s", options, status, out);
    return out;
}

static double number(const cJSON *doc, const char *name)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(doc, name));
}

static void command_tells_its_result_in_every_form(void **state)
{
    (void)state;
    static const char *const rows[] = {"workers", "servers",   "gather",      "forward",
                                       "push",    "optimiser", "freeze cuts", "wait"};
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), 6, 3, NULL);
    char *out = command_says("--dir text --verbose");
    kit_assert_contains(out, "text: at step 6, 6 steps in ");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        kit_assert_contains(out, rows[i]);
    free(out);
    out = command_says("--dir json --workers 2 --servers 1 --stop-after 4 --json");
    cJSON *doc = cJSON_Parse(out);
    assert_non_null(doc);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(doc, "dir")), "json");
    assert_true(number(doc, "version") == 4 && number(doc, "steps") == 4);
    assert_true(number(doc, "transitions") == 4 * 52);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(doc, "validation")));
    const cJSON *workers = cJSON_GetObjectItem(doc, "workers");
    assert_true(number(workers, "roles") == 2);
    assert_true(number(workers, "compute") >= number(workers, "backward"));
    assert_true(number(workers, "dropped") == 0);
    assert_true(number(cJSON_GetObjectItem(doc, "servers"), "roles") == 1);
    cJSON_Delete(doc);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(train_step_allocates_nothing),
        kit_test(train_out_of_memory_anywhere_ends_in_order),
        kit_test(train_that_cuts_at_every_step_ends),
        kit_test(train_that_diverges_says_where_and_keeps_the_last_cut),
        kit_test(train_whose_roles_never_come_names_who_is_missing),
        kit_test(train_where_another_works_is_refused),
        kit_test(train_on_a_port_in_use_says_so),
        kit_test(command_tells_its_result_in_every_form),
        kit_test(train_evaluates_its_cuts_and_the_best_does_not_depend_on_interruptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
