/* Invariant 1: weights, moments and targets are the same bits however a job is placed. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct placement {
    unsigned workers, servers;
    enum lh_launcher launcher;
    enum lh_transport transport;
    const char *what;
};

static void train(struct lh_job *job, const struct placement *p, const char *dir)
{
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    opt.workers = p->workers;
    opt.servers = p->servers;
    opt.launcher = p->launcher;
    opt.transport = p->transport;
    opt.program = LH_BINARY_DIR "/longhaul";
    assert_ok(lh_train(job, &opt, &result));
    assert_int_equal(result.version, job->steps);
}

static void train_placed_in_any_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const struct placement placements[] = {
        {2, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "2 workers, 1 server, local"},
        {3, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "3 workers, 1 server, local"},
        {4, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "4 workers, 1 server, local"},
        {1, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "1 worker, 2 servers, local"},
        {4, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "4 workers, 2 servers, local"},
        {9, 3, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "more workers than micro-batches"},
        {1, 1, LH_LAUNCH_PROCESSES, LH_TRANSPORT_IPC, "1 worker, 1 server, ipc"},
        {3, 2, LH_LAUNCH_PROCESSES, LH_TRANSPORT_IPC, "3 workers, 2 servers, ipc"},
        {2, 2, LH_LAUNCH_PROCESSES, LH_TRANSPORT_TCP, "2 workers, 2 servers, tcp with CURVE"},
    };
    static const struct placement alone = {1, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "alone"};
    trainkit_dataset();
    struct lh_job *job = trainkit_job(14, 5, NULL);
    train(job, &alone, kit_path("alone"));
    struct trainkit_state want = trainkit_read(kit_path("alone"));
    for (size_t i = 0; i < sizeof placements / sizeof *placements; i++) {
        char name[160]; /* some too long for sockets in the run directory */
        snprintf(name, sizeof name, "run-%0*zu", placements[i].workers == 3 ? 100 : 1, i);
        train(job, &placements[i], kit_path(name));
        trainkit_assert_same(&want, kit_path(name), placements[i].what);
    }
    job->security = LH_JOB_CLEAR;
    train(job, &placements[8], kit_path("clear"));
    trainkit_assert_same(&want, kit_path("clear"), "2 workers, 2 servers, tcp in the clear");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* A micro-batch of more rows than a graph takes goes through it in blocks; the last one here has
 * 100 rows, less than a block. */
static void train_in_blocks_gives_the_same_bits_in_any_placement(void **state)
{
    (void)state;
    static const struct placement placements[] = {
        {1, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "alone"},
        {2, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "2 workers, 2 servers, local"},
        {3, 1, LH_LAUNCH_PROCESSES, LH_TRANSPORT_IPC, "3 workers, 1 server, ipc"},
    };
    trainkit_dataset();
    struct lh_job *job = trainkit_job(3, 3, NULL);
    job->batch = 1124;
    job->micro_batch = 512;
    train(job, &placements[0], kit_path("blocks-0"));
    struct trainkit_state want = trainkit_read(kit_path("blocks-0"));
    for (int i = 1; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "blocks-%d", i);
        train(job, &placements[i], kit_path(name));
        trainkit_assert_same(&want, kit_path(name), placements[i].what);
    }
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* Where sums are rounded is for the job to say: whoever adds them up, on whichever side of the
 * network, the bits are the same; and others than without rounding. */
static void train_with_bf16_gradients_gives_the_same_bits_in_any_placement(void **state)
{
    (void)state;
    static const struct placement placements[] = {
        {1, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "alone"},
        {2, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "2 workers, 1 server, local"},
        {3, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "3 workers, 2 servers, local"},
        {4, 3, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "4 workers, 3 servers, local"},
        {2, 2, LH_LAUNCH_PROCESSES, LH_TRANSPORT_IPC, "2 workers, 2 servers, ipc"},
    };
    trainkit_dataset();
    struct lh_job *job = trainkit_job(8, 4, NULL);
    train(job, &placements[0], kit_path("float32"));
    job->gradient = LH_GRADIENT_BF16;
    train(job, &placements[0], kit_path("bf16-0"));
    struct trainkit_state other = trainkit_read(kit_path("float32"));
    struct trainkit_state want = trainkit_read(kit_path("bf16-0"));
    assert_int_equal(want.n, other.n);
    assert_memory_not_equal(want.values, other.values, want.n);
    for (int i = 1; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "bf16-%d", i);
        train(job, &placements[i], kit_path(name));
        trainkit_assert_same(&want, kit_path(name), placements[i].what);
    }
    lh_mem_free(want.values);
    lh_mem_free(other.values);
    lh_job_destroy(&job);
}

static void train_with_another_seed_gives_other_bits(void **state)
{
    (void)state;
    static const struct placement alone = {1, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "alone"};
    trainkit_dataset();
    struct lh_job *job = trainkit_job(3, 5, NULL);
    train(job, &alone, kit_path("a"));
    job->seed++;
    train(job, &alone, kit_path("b"));
    struct trainkit_state a = trainkit_read(kit_path("a")), b = trainkit_read(kit_path("b"));
    assert_int_equal(a.n, b.n);
    assert_memory_not_equal(a.values, b.values, a.n * sizeof(float));
    lh_mem_free(a.values);
    lh_mem_free(b.values);
    lh_job_destroy(&job);
}

/* Stopped and resumed twice, each time with another number of roles. */
static void train_stopped_and_resumed_gives_the_same_bits(void **state)
{
    (void)state;
    static const struct placement alone = {1, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "alone"};
    static const unsigned stop[] = {4, 9}, workers[] = {2, 1, 3}, servers[] = {2, 1, 3};
    trainkit_dataset();
    struct lh_job *job = trainkit_job(14, 5, NULL);
    train(job, &alone, kit_path("whole"));
    struct trainkit_state want = trainkit_read(kit_path("whole"));
    assert_int_equal(trainkit_train_parts(job, kit_path("parts"), stop, workers, servers), 14);
    trainkit_assert_same(&want, kit_path("parts"), "stopped at 4 and 9");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

static void train_writes_a_line_of_metrics_a_step_once(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(7, 3, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    opt.stop_after = 5;
    assert_ok(lh_train(job, &opt, &result));
    opt.stop_after = 0;
    opt.resume = true;
    assert_ok(lh_train(job, &opt, &result));
    size_t n;
    char *text = kit_read(kit_path("run/metrics.jsonl"), &n), *at = text;
    for (unsigned step = 1; step <= 7; step++) {
        unsigned got = 0;
        assert_int_equal(sscanf(at, "{\"step\": %u, \"epoch\": ", &got), 1);
        assert_int_equal(got, step);
        at = strchr(at, '\n') + 1;
    }
    assert_int_equal(*at, 0);
    free(text);
    lh_job_destroy(&job);
}

static void train_where_a_run_is_already_is_refused_with_the_cure(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 2, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    opt.resume = true;
    assert_err(lh_train(job, &opt, &result), LH_ENOENT, "leave out --resume");
    opt.resume = false;
    assert_ok(lh_train(job, &opt, &result));
    assert_err(lh_train(job, &opt, &result), LH_EEXIST, "--resume");
    opt.resume = true;
    assert_ok(lh_train(job, &opt, &result)); /* nothing is left to do */
    assert_int_equal(result.steps, 0);
    job->seed++;
    assert_err(lh_train(job, &opt, &result), LH_EMISMATCH, "another job");
    lh_job_destroy(&job);
}

static void run_open_gives_what_was_trained(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(4, 2, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    struct lh_run *run = NULL;
    opt.servers = 2;
    assert_err(lh_run_open(&run, kit_path("run"), LH_CUT_LAST), LH_ENOENT, "run");
    assert_ok(lh_train(job, &opt, &result));
    assert_ok(lh_run_open(&run, kit_path("run"), LH_CUT_BEST)); /* none evaluated: the last */
    struct trainkit_state want = trainkit_read(kit_path("run"));
    assert_int_equal(run->version, 4);
    assert_int_equal(lh_graph_flat_size(run->graph) * 4, want.n);
    assert_memory_equal(run->weights, want.values, want.n);
    lh_run_close(&run);
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

static void run_resumed_with_another_kernel_is_refused(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(4, 2, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    char *out = NULL;
    opt.stop_after = 2;
    assert_ok(lh_train(job, &opt, &result));
    int status = kit_run(&out,
                         "LONGHAUL_GEMM=openblas OPENBLAS_CORETYPE=Sandybridge " LH_BINARY_DIR
                         "/longhaul train %s/config.yaml --dir %s --resume --no-evaluation -q",
                         opt.dir, opt.dir);
    assert_int_equal(status, lh_err_exit_status(LH_EMISMATCH));
    kit_assert_contains(out, "Sandybridge");
    free(out);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(train_placed_in_any_way_gives_the_same_bits),
        kit_test(train_in_blocks_gives_the_same_bits_in_any_placement),
        kit_test(train_with_bf16_gradients_gives_the_same_bits_in_any_placement),
        kit_test(train_with_another_seed_gives_other_bits),
        kit_test(train_stopped_and_resumed_gives_the_same_bits),
        kit_test(train_writes_a_line_of_metrics_a_step_once),
        kit_test(train_where_a_run_is_already_is_refused_with_the_cure),
        kit_test(run_open_gives_what_was_trained),
        kit_test(run_resumed_with_another_kernel_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
