/* Embedding tables, from a log with ids to what was learnt: the same bits however a job is placed,
 * stopped, killed and resumed; a table of ten times the memory it may use; what only ids can tell
 * is learnt, evaluated, exported and acted on. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/mem.h"
#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const item_and_user =
    "tables:\n"
    "  item: {ids: [item, before], into: state_low, dim: 5, learning_rate: 0.01, cache: 1}\n"
    "  user: {ids: user, into: state_high, dim: 3, learning_rate: 0.01, cache: 1,\n"
    "         admit_after: 2, evict_after: 6}\n";

/* --- the same bits ------------------------------------------------------------------------------
 */
static struct trainkit_state train_alone(struct lh_job *job, const char *dir)
{
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(dir);
    assert_true(want.rows > 100);
    return want;
}

static void train_placed_in_any_way_gives_the_same_rows(void **state)
{
    (void)state;
    static const struct {
        unsigned workers, servers;
        enum lh_launcher launcher;
        enum lh_transport transport;
        const char *what;
    } placements[] = {
        {2, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "2 workers, 1 server"},
        {3, 1, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "3 workers, 1 server"},
        {4, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "4 workers, 2 servers"},
        {1, 2, LH_LAUNCH_LOCAL, LH_TRANSPORT_INPROC, "1 worker, 2 servers"},
        {3, 2, LH_LAUNCH_PROCESSES, LH_TRANSPORT_IPC, "3 workers, 2 servers, ipc"},
        {2, 2, LH_LAUNCH_PROCESSES, LH_TRANSPORT_TCP, "2 workers, 2 servers, tcp with CURVE"},
    };
    trainkit_dataset_of_items(60, 300);
    struct lh_job *job = trainkit_job(14, 5, item_and_user);
    struct trainkit_state want = train_alone(job, kit_path("alone"));
    for (size_t i = 0; i < sizeof placements / sizeof *placements; i++) {
        char name[16];
        snprintf(name, sizeof name, "run-%zu", i);
        struct lh_train_options opt = trainkit_options(kit_path(name));
        struct lh_train_result result;
        opt.workers = placements[i].workers;
        opt.servers = placements[i].servers;
        opt.launcher = placements[i].launcher;
        opt.transport = placements[i].transport;
        opt.program = LH_BINARY_DIR "/longhaul";
        assert_ok(lh_train(job, &opt, &result));
        trainkit_assert_same(&want, kit_path(name), placements[i].what);
    }
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

static uint64_t allocations_of(unsigned steps, const char *dir)
{
    struct lh_job *job = trainkit_job(steps, 1000, item_and_user);
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    job->heartbeat_seconds = 60;
    job->deadline_seconds = 120;
    opt.workers = 2;
    opt.servers = 2;
    const uint64_t before = lh_mem_count();
    assert_ok(lh_train(job, &opt, &result));
    const uint64_t count = lh_mem_count() - before;
    lh_job_destroy(&job);
    return count;
}

static void train_step_allocates_nothing(void **state)
{
    (void)state;
    trainkit_dataset_of_items(60, 300);
    const uint64_t few = allocations_of(40, kit_path("few"));
    const uint64_t many = allocations_of(240, kit_path("many"));
    /* How many of its few buffers a role comes to need is a matter of timing; of 200 steps two
     * workers pull rows of two tables from two servers, 1600 times. */
    if (many > few + 150)
        fail_msg("40 steps: %llu allocations, 240 steps: %llu", (unsigned long long)few,
                 (unsigned long long)many);
}

/* Stopped and resumed twice, each time with another number of roles. */
static void train_stopped_and_resumed_gives_the_same_rows(void **state)
{
    (void)state;
    static const unsigned stop[] = {4, 9}, workers[] = {2, 1, 3}, servers[] = {2, 1, 3};
    trainkit_dataset_of_items(60, 300);
    struct lh_job *job = trainkit_job(14, 5, item_and_user);
    struct trainkit_state want = train_alone(job, kit_path("whole"));
    assert_int_equal(trainkit_train_parts(job, kit_path("parts"), stop, workers, servers), 14);
    trainkit_assert_same(&want, kit_path("parts"), "stopped at 4 and 9");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* Processes that die in the middle: a worker, then a server. */
static void train_whose_roles_are_killed_gives_the_same_rows(void **state)
{
    (void)state;
    static const char *const victims[] = {"worker", "server"};
    trainkit_dataset_of_items(60, 300);
    struct lh_job *job = trainkit_job(200, 20, item_and_user);
    struct trainkit_state want = train_alone(job, kit_path("whole"));
    trainkit_job_file(kit_path("job.yaml"), 200, 20, item_and_user);
    const char *const argv[] = {LH_BINARY_DIR "/longhaul",
                                "train",
                                kit_path("job.yaml"),
                                "--dir",
                                kit_path("killed"),
                                "--workers",
                                "2",
                                "--servers",
                                "2",
                                "--launcher",
                                "processes",
                                "--no-evaluation",
                                NULL};
    pid_t pid = trainkit_spawn(kit_path("log"), argv);
    for (int i = 0; i < 2; i++) {
        assert_true(trainkit_wait_cut(kit_path("killed"), 20 * (unsigned)(i + 1)));
        pid_t victim = trainkit_find_role(pid, victims[i]);
        if (victim > 0)
            kill(victim, SIGKILL);
    }
    assert_int_equal(trainkit_wait_exit(pid), 0);
    trainkit_assert_same(&want, kit_path("killed"), "a worker and a server killed");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

/* --- what is learnt, in bounded memory -----------------------------------------------------------
 */
enum {
    ITEMS = 4000,
    WIDE = 256
}; /* 4000 rows of 3 * 256 floats: 12 MB, of which 1 may be cached */

static void write_job(const char *name, unsigned cache)
{
    char text[1024];
    snprintf(text, sizeof text,
             "dataset: %s\nalgorithm: il\nnetwork: {hidden: [16]}\noptimiser: {lr_cvae: 0.002}\n"
             "train: {batch: 1024, micro_batch: 256, steps: 140}\ncheckpoint: {every: 70}\n"
             "tables: {item: {ids: item, dim: %d, learning_rate: 0.02, cache: %u}}\n",
             kit_path("data"), WIDE, cache);
    kit_write(kit_path(name), text);
}

/* Trains with at most so many bytes of private memory (0: without a bound); *peak is what it had.
 * Returns the exit status. */
static int train_bounded(const char *job, const char *dir, rlim_t bound, uint64_t *peak)
{
    const char *const argv[] = {LH_BINARY_DIR "/longhaul", "train", job, "--dir", dir, "-q",
                                "--no-evaluation",         NULL};
    int status = 0;
    *peak = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit limit = {bound, bound};
        if (bound > 0)
            setrlimit(RLIMIT_DATA, &limit);
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(126);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    for (double began = lh_now(); waitpid(pid, &status, WNOHANG) == 0; usleep(2000)) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
        FILE *f = fopen(path, "r");
        unsigned long long kb;
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "VmData: %llu kB", &kb) == 1 && kb << 10 > *peak)
                *peak = kb << 10;
        if (f)
            fclose(f);
        if (lh_now() - began > 200)
            kill(pid, SIGKILL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void table_of_ten_times_its_cache_is_learnt_within_the_memory(void **state)
{
    (void)state;
    uint64_t peak;
    trainkit_dataset_of_items(4000, ITEMS);
    write_job("small.yaml", 1);
    assert_int_equal(train_bounded(kit_path("small.yaml"), kit_path("small"), 0, &peak), 0);
    struct trainkit_state want = trainkit_read(kit_path("small"));
    assert_true(want.rows * WIDE * 3 * sizeof(float) > 10 << 20);
    /* actions are uniform in [-1, 1], scaled: 2 / 3 is the error of who knows nothing */
    assert_true(trainkit_last_metric(kit_path("small"), "rec") < 0.2);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    uint64_t ignored;
    /* What it had is enough once more; and would not be if the table lay in memory. */
    const rlim_t bound = peak + (128 << 20); /* it was sampled; a larger cache takes 370 MB */
    assert_int_equal(train_bounded(kit_path("small.yaml"), kit_path("again"), bound, &ignored), 0);
    trainkit_assert_same(&want, kit_path("again"), "within the memory it had");
    write_job("large.yaml", 400);
    assert_true(train_bounded(kit_path("large.yaml"), kit_path("large"), bound, &ignored) != 0);
    /* how much is cached is no part of the result */
    assert_int_equal(train_bounded(kit_path("large.yaml"), kit_path("whole"), 0, &ignored), 0);
    trainkit_assert_same(&want, kit_path("whole"), "all rows cached");
#endif
    lh_mem_free(want.values);
}

/* --- from the run to an answer ------------------------------------------------------------------
 */
/* What `evaluate` says of a policy. */
static double value_of(const char *option, const char *dir)
{
    char *out = NULL, *at, *last = NULL;
    assert_int_equal(kit_run(&out, LH_BINARY_DIR "/longhaul evaluate %s %s --json", option, dir),
                     0);
    for (at = out; (at = strstr(at, "\"value\":")); at++)
        last = at;
    assert_non_null(last);
    const double value = strtod(last + strlen("\"value\":"), NULL);
    free(out);
    return value;
}

static void snapshot_acts_by_the_rows_of_the_ids_it_is_given(void **state)
{
    (void)state;
    char *out = NULL;
    trainkit_dataset_of_items(200, 40);
    char text[1024];
    snprintf(text, sizeof text,
             "dataset: %s\nalgorithm: il\nnetwork: {hidden: [16]}\noptimiser: {lr_cvae: 0.003}\n"
             "train: {batch: 512, micro_batch: 256, steps: 140}\ncheckpoint: {every: 70}\n"
             "evaluation: {ess_floor: 0}\n"
             "tables: {item: {ids: item, dim: 8, learning_rate: 0.02}}\n",
             kit_path("data"));
    kit_write(kit_path("job.yaml"), text);
    assert_int_equal(kit_run(&out,
                             LH_BINARY_DIR "/longhaul train %s --dir %s -q && " LH_BINARY_DIR
                                           "/longhaul export --dir %s --out %s",
                             kit_path("job.yaml"), kit_path("run"), kit_path("run"),
                             kit_path("policy")),
                     0);
    free(out);
    const uint64_t item = trainkit_item(2, 3, 40);
    float want[2], got[3][2];
    trainkit_meaning(item, want);
    snprintf(text, sizeof text,
             "h0,h1,h2,l0,l1,item\n0,0,0,0,0,%llu\n0,0,0,0,0,\n0,0,0,0,0,nobody-knows-this\n",
             (unsigned long long)item);
    kit_write(kit_path("states.csv"), text);
    assert_int_equal(kit_run(&out, LH_BINARY_DIR "/longhaul act --snapshot %s < %s",
                             kit_path("policy"), kit_path("states.csv")),
                     0);
    assert_int_equal(sscanf(out, "a0,a1\n%f,%f\n%f,%f\n%f,%f\n", &got[0][0], &got[0][1], &got[1][0],
                            &got[1][1], &got[2][0], &got[2][1]),
                     6);
    free(out);
    for (size_t j = 0; j < 2; j++)
        kit_assert_close((double)got[0][j], (double)want[j], 0.25, "the action of an item");
    assert_memory_not_equal(got[0], got[1], sizeof got[0]);
    assert_memory_not_equal(got[1], got[2], sizeof got[0]); /* an unknown id has its initial row */
    assert_true(value_of("--run", kit_path("run")) == value_of("--snapshot", kit_path("policy")));
    kit_write(kit_path("states.csv"), "h0,h1,h2,l0,l1\n0,0,0,0,0\n");
    assert_int_not_equal(kit_run(&out, LH_BINARY_DIR "/longhaul act --snapshot %s < %s",
                                 kit_path("policy"), kit_path("states.csv")),
                         0);
    kit_assert_contains(out, "no column 'item', an id");
    free(out);
}

/* The right action is what the item means, which nothing but its id tells: the optimum is known, 0
 * off, and so is the best that can be done without ids, the variance of the meanings. How far off a
 * policy is, squared, an element, over all items. */
static double squared_miss(unsigned seed, bool table, double *variance)
{
    enum { KINDS = 40 };
    char text[1024], *out = NULL;
    snprintf(text, sizeof text,
             "dataset: %s\nseed: %u\nalgorithm: il\nnetwork: {hidden: [16]}\n"
             "optimiser: {lr_cvae: 0.003}\ntrain: {batch: 512, micro_batch: 256, steps: 280}\n"
             "checkpoint: {every: 280}\n%s\n",
             kit_path("data"), seed,
             table ? "tables: {item: {ids: item, dim: 8, learning_rate: 0.02}}" : "");
    kit_write(kit_path("job.yaml"), text);
    FILE *f = fopen(kit_path("states.csv"), "w");
    assert_non_null(f);
    fprintf(f, "h0,h1,h2,l0,l1%s\n", table ? ",item" : "");
    for (uint64_t k = 0; k < KINDS; k++) {
        fprintf(f, "0,0,0,0,0");
        if (table)
            fprintf(f, ",%llu", (unsigned long long)trainkit_item(k, 0, KINDS));
        fprintf(f, "\n");
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(kit_run(&out,
                             "cd '%s' && rm -rf run policy && p=" LH_BINARY_DIR "/longhaul && "
                             "$p train job.yaml --dir run -q --no-evaluation >/dev/null && "
                             "$p export --dir run --out policy --cut last >/dev/null && "
                             "$p act --snapshot policy < states.csv | tail -n +2",
                             kit_dir()),
                     0);
    double sum = 0, squares = 0, mean[2] = {0};
    const char *at = out;
    for (uint64_t k = 0; k < KINDS; k++) {
        float means[2], got[2];
        trainkit_meaning(trainkit_item(k, 0, KINDS), means);
        assert_int_equal(sscanf(at, "%f,%f", &got[0], &got[1]), 2);
        for (int j = 0; j < 2; j++) {
            const double miss = (double)(got[j] - means[j]);
            sum += miss * miss;
            squares += (double)means[j] * (double)means[j];
            mean[j] += (double)means[j] / KINDS;
        }
        at = strchr(at, '\n') + 1;
    }
    free(out);
    *variance = squares / (2 * KINDS) - (mean[0] * mean[0] + mean[1] * mean[1]) / 2;
    return sum / (2 * KINDS);
}

static void optimum_is_near_with_a_table_and_out_of_reach_without(void **state)
{
    (void)state;
    trainkit_dataset_of_items(200, 40);
    for (unsigned seed = 1; seed <= 3; seed++) {
        double variance;
        const double with = squared_miss(seed, true, &variance);
        const double without = squared_miss(seed, false, &variance);
        print_message("seed %u: %.4f with, %.4f without; variance %.4f\n", seed, with, without,
                      variance);
        assert_true(with < 0.1 * variance);
        assert_true(without > 0.9 * variance);
    }
}

static void ids_that_a_dataset_lacks_are_named(void **state)
{
    (void)state;
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result result;
    trainkit_dataset_of_items(20, 10);
    struct lh_job *job = trainkit_job(4, 2, "tables: {item: {ids: itm}}\n");
    assert_err(lh_train(job, &opt, &result), LH_EMISMATCH, "did you mean 'item'?");
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(train_placed_in_any_way_gives_the_same_rows),
        kit_test(train_step_allocates_nothing),
        kit_test(train_stopped_and_resumed_gives_the_same_rows),
        kit_test(train_whose_roles_are_killed_gives_the_same_rows),
        kit_test(table_of_ten_times_its_cache_is_learnt_within_the_memory),
        kit_test(snapshot_acts_by_the_rows_of_the_ids_it_is_given),
        kit_test(optimum_is_near_with_a_table_and_out_of_reach_without),
        kit_test(ids_that_a_dataset_lacks_are_named),
    };
    return cmocka_run_group_tests_name("tables", tests, NULL, NULL);
}
