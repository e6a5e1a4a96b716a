#include "tests/trainkit.h"

#include "cluster/export.h"
#include "cluster/run.h"
#include "cluster/run_record.h"
#include "common/dataset.h"
#include "common/metrics.h"
#include "common/rng.h"
#include "common/term.h"
#include "ps/rowtable_read.h"
#include "ps/store.h"
#include "tests/testkit.h"
#include "worker/model.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum { H = 3, L = 2, A = 2, I = TRAINKIT_IDS, ROWS_MAX = 12, USERS = 46 };

/* --- logs --------------------------------------------------------------------------------------
 */
void trainkit_meaning(uint64_t item, float out[2])
{
    struct lh_rng_at at = {.seed = 5, .purpose = 9, .step = item};
    for (size_t j = 0; j < A; j++)
        out[j] = (float)(2 * lh_rng_uniform1(&at, j) - 1);
}

uint64_t trainkit_item(uint64_t user, size_t row, uint64_t items)
{
    struct lh_rng_at at = {.seed = 6, .purpose = 9, .step = user};
    const uint64_t item = lh_rng_below(&at, row, items);
    return item % 2 ? item : UINT64_MAX / 2 + item * 0x123456789abu;
}

/* What a trajectory looks at and does. With items, what is done is what the item of the row means.
 */
struct log_rows {
    float high[ROWS_MAX * H], low[ROWS_MAX * L], action[ROWS_MAX * A], reward[ROWS_MAX];
    int64_t time_us[ROWS_MAX];
    uint32_t session[ROWS_MAX];
    uint64_t ids[ROWS_MAX * I];
};

static void name_items(struct log_rows *r, uint64_t user, size_t n, uint64_t items)
{
    for (size_t i = 0; i < n; i++) {
        r->ids[i * I] = user;
        r->ids[i * I + 1] = trainkit_item(user, i, items);
        r->ids[i * I + 2] = i ? trainkit_item(user, i - 1, items) : LH_ID_NONE;
        trainkit_meaning(r->ids[i * I + 1], r->action + i * A);
    }
}

static void add_trajectory(struct lh_dataset_writer *w, uint64_t id, uint64_t items)
{
    struct lh_rng_at at = {.seed = 77, .purpose = 1, .step = id};
    const size_t n = 3 + lh_rng_below(&at, 1000, ROWS_MAX - 2);
    const bool held_out = items > 0 ? id % 10 < 2 : id >= 40;
    struct log_rows r;
    at.part = 1;
    lh_rng_normal(&at, r.high, n * H);
    at.part = 2;
    lh_rng_normal(&at, r.low, n * L);
    at.part = 3;
    lh_rng_normal(&at, r.action, n * A);
    for (size_t i = 0; i < n; i++) {
        r.reward[i] = (float)lh_rng_below(&at, 5000 + i, 3);
        r.time_us[i] = (int64_t)(id * 1000 + i) * 1000000;
        r.session[i] = (uint32_t)(i / 4);
    }
    if (items > 0)
        name_items(&r, id, n, items);
    assert_ok(lh_dataset_writer_add(w, &(struct lh_trajectory){.split = !held_out ? LH_TRAIN
                                                                        : id % 2  ? LH_TEST
                                                                                  : LH_VALIDATION,
                                                               .user = id,
                                                               .id = id,
                                                               .ends = id % 3 == 0,
                                                               .n = n,
                                                               .high = r.high,
                                                               .low = r.low,
                                                               .action = r.action,
                                                               .reward = r.reward,
                                                               .time_us = r.time_us,
                                                               .session = r.session,
                                                               .ids = items > 0 ? r.ids : NULL}));
}

static void write_dataset(uint64_t users, uint64_t items)
{
    static const char *const high[] = {"h0", "h1", "h2"}, *const low[] = {"l0", "l1"},
                             *const action[] = {"a0", "a1"},
                             *const ids[] = {"user", "item", "before"};
    struct lh_dataset_writer *w = NULL;
    const struct lh_dims dims = {.high = H, .low = L, .action = A, .ids = items > 0 ? I : 0};
    assert_ok(lh_dataset_writer_open(&w, kit_path("data"),
                                     &(struct lh_dataset_spec){.dims = dims,
                                                               .high_names = high,
                                                               .low_names = low,
                                                               .action_names = action,
                                                               .id_names = ids,
                                                               .hash_partitions = 2,
                                                               .kind = "import",
                                                               .memory_limit = 1 << 20}));
    for (uint64_t user = 0; user < users; user++)
        add_trajectory(w, user, items);
    assert_ok(lh_dataset_writer_commit(&w));
}

void trainkit_dataset(void)
{
    write_dataset(USERS, 0);
}

void trainkit_dataset_of_items(uint64_t users, uint64_t items)
{
    write_dataset(users, items);
}

/* --- jobs --------------------------------------------------------------------------------------
 */
static void job_text(char *out, size_t size, unsigned steps, unsigned cut_every, const char *more)
{
    snprintf(out, size,
             "dataset: %s\nalgorithm: resact\nseed: 3\n"
             "network: {hidden: [8, 8], z_high: 4, z_low: 4}\n"
             "objective: {estimators: 2}\n"
             "optimiser: {lr_actor: 0.001, lr_critic: 0.001, lr_cvae: 0.001, target_period: 2}\n"
             "train: {batch: 52, micro_batch: 8, steps: %u}\n"
             "checkpoint: {every: %u}\n"
             "cluster: {heartbeat_seconds: 0.2, deadline_seconds: 5}\n%s\n",
             kit_path("data"), steps, cut_every, more ? more : "");
}

struct lh_job *trainkit_job(unsigned steps, unsigned cut_every, const char *more)
{
    char text[2048];
    struct lh_job *job = NULL;
    job_text(text, sizeof text, steps, cut_every, more);
    assert_ok(lh_job_load_text(&job, text, strlen(text), "test", "/"));
    return job;
}

void trainkit_job_file(const char *path, unsigned steps, unsigned cut_every, const char *more)
{
    char text[2048];
    job_text(text, sizeof text, steps, cut_every, more);
    kit_write(path, text);
}

struct lh_train_options trainkit_options(const char *dir)
{
    return (struct lh_train_options){.dir = dir,
                                     .workers = 1,
                                     .servers = 1,
                                     .launcher = LH_LAUNCH_LOCAL,
                                     .quiet = true,
                                     .no_evaluation = true};
}

uint64_t trainkit_train(const struct lh_job *job, const char *dir, unsigned workers, int servers,
                        const char *program, char **page)
{
    struct lh_train_options opt = trainkit_options(dir);
    struct lh_train_result result;
    struct lh_metrics *metrics = NULL;
    size_t n;
    assert_ok(lh_metrics_open(&metrics, NULL));
    opt.workers = workers;
    opt.servers = (unsigned)abs(servers);
    opt.launcher = servers > 0 ? LH_LAUNCH_LOCAL : LH_LAUNCH_PROCESSES;
    opt.transport = servers > 0 ? LH_TRANSPORT_INPROC : LH_TRANSPORT_TCP;
    opt.program = program;
    opt.metrics = metrics;
    assert_ok(lh_train(job, &opt, &result));
    if (page)
        assert_ok(lh_metrics_render(metrics, page, &n));
    lh_metrics_close(&metrics);
    return result.version;
}

uint64_t trainkit_train_parts(const struct lh_job *job, const char *dir, const unsigned stop[2],
                              const unsigned workers[3], const unsigned servers[3])
{
    struct lh_train_result result;
    for (int i = 0; i < 3; i++) {
        struct lh_train_options opt = trainkit_options(dir);
        opt.workers = workers[i];
        opt.servers = servers[i];
        opt.stop_after = i < 2 ? stop[i] : 0;
        opt.resume = i > 0;
        assert_ok(lh_train(job, &opt, &result));
        if (i < 2)
            assert_int_equal(result.version, stop[i]);
    }
    return result.version;
}

void trainkit_imitator(const char *snapshot)
{
    struct lh_job *job = trainkit_job(30, 30, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("imitation"));
    struct lh_train_result result;
    struct lh_run *run = NULL;
    struct lh_dataset *ds = NULL;
    lh_mem_free((void *)(uintptr_t)job->algorithm);
    assert_ok(lh_mem_strdup((char **)(uintptr_t)&job->algorithm, "il"));
    assert_ok(lh_train(job, &opt, &result));
    assert_ok(lh_run_open(&run, opt.dir, LH_CUT_LAST));
    assert_ok(lh_dataset_open(&ds, job->dataset));
    assert_ok(lh_export_run(snapshot, run, ds, "last", false));
    lh_dataset_close(&ds);
    lh_run_close(&run);
    lh_job_destroy(&job);
}

/* --- what a cut holds ---------------------------------------------------------------------------
 */
/* All that a table holds, into a digest. */
static void read_table(struct trainkit_state *out, const struct lh_job_table *table,
                       const char *const *dirs, size_t n_dirs)
{
    struct lh_rowtable_reader *reader = NULL;
    const size_t bytes = table->dim * sizeof(float);
    struct lh_rowtable_row row;
    int rc;
    assert_ok(lh_rowtable_reader_open(&reader, table->name, out->version, dirs, n_dirs));
    while ((rc = lh_rowtable_reader_next(reader, &row)) == 0) {
        const uint64_t head[] = {row.id, row.last, row.seen, row.updates};
        out->digest = XXH3_64bits_withSeed(head, sizeof head, out->digest);
        out->rows++;
        if (!row.w)
            continue;
        out->digest = XXH3_64bits_withSeed(row.w, bytes, out->digest);
        out->digest = XXH3_64bits_withSeed(row.m, bytes, out->digest);
        out->digest = XXH3_64bits_withSeed(row.v, bytes, out->digest);
    }
    assert_int_equal(rc, LH_NOTFOUND);
    lh_rowtable_reader_close(&reader);
}

struct trainkit_state trainkit_read(const char *dir)
{
    struct trainkit_state out = {0};
    struct lh_run_record record = {0};
    struct lh_job *job = NULL;
    struct lh_model model = {0};
    struct lh_shard *shard = NULL;
    const struct lh_frozen *frozen = NULL;
    char config[512], paths[8][512];
    const char *dirs[8];
    assert_ok(lh_run_record_load(&record, dir));
    assert_true(record.has_last);
    const struct lh_run_cut *cut = lh_run_record_cut(&record, record.last);
    assert_non_null(cut);
    snprintf(config, sizeof config, "%s/config.yaml", dir);
    assert_ok(lh_job_load(&job, config, NULL, 0));
    assert_ok(lh_model_init(&model, job, 1));
    assert_ok(lh_shard_create(&shard, &(struct lh_shard_spec){.range = &model.layout.shards[0],
                                                              .leaves = model.leaves,
                                                              .beta1 = 0.9,
                                                              .beta2 = 0.999,
                                                              .epsilon = 1e-8}));
    assert_true(cut->servers <= 8);
    for (uint32_t i = 0; i < cut->servers; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/store-%u", dir, i);
        dirs[i] = paths[i];
    }
    assert_ok(lh_store_restore(shard, cut->version, dirs, cut->servers, record.job_digest));
    assert_ok(lh_shard_freeze(shard, &frozen));
    size_t n = lh_shard_size(shard);
    out.version = cut->version;
    out.n = 4 * n;
    assert_ok(LH_NEW_ARRAY(&out.values, out.n, "test"));
    memcpy(out.values, frozen->w, n * sizeof(float));
    memcpy(out.values + n, frozen->m, n * sizeof(float));
    memcpy(out.values + 2 * n, frozen->v, n * sizeof(float));
    if (frozen->target) /* zeros where nothing has one */
        memcpy(out.values + 3 * n, frozen->target, n * sizeof(float));
    for (size_t i = 0; i < job->n_tables; i++)
        read_table(&out, &job->tables[i], dirs, cut->servers);
    for (size_t i = 0; i < frozen->range->n_segments; i++)
        out.updates += frozen->updates[i];
    lh_shard_thaw(shard, frozen);
    lh_shard_destroy(&shard);
    lh_model_fini(&model);
    lh_job_destroy(&job);
    lh_run_record_fini(&record);
    return out;
}

void trainkit_assert_same(const struct trainkit_state *want, const char *dir, const char *what)
{
    struct trainkit_state got = trainkit_read(dir);
    if (got.version != want->version || got.n != want->n)
        fail_msg("%s: version %llu of %zu values, expected %llu of %zu", what,
                 (unsigned long long)got.version, got.n, (unsigned long long)want->version,
                 want->n);
    if (got.updates != want->updates)
        fail_msg("%s: %llu updates, expected %llu", what, (unsigned long long)got.updates,
                 (unsigned long long)want->updates);
    size_t differ = 0, first = 0;
    for (size_t i = 0; i < want->n; i++)
        if (memcmp(&got.values[i], &want->values[i], sizeof(float)) != 0 && differ++ == 0)
            first = i;
    if (differ)
        fail_msg("%s: %zu of %zu values differ, first the %zu-th: %.9g for %.9g", what, differ,
                 want->n, first, (double)got.values[first], (double)want->values[first]);
    if (got.rows != want->rows || got.digest != want->digest)
        fail_msg("%s: %llu rows of tables, expected %llu; or their bits differ", what,
                 (unsigned long long)got.rows, (unsigned long long)want->rows);
    lh_mem_free(got.values);
}

struct trainkit_undisturbed trainkit_undisturbed(unsigned steps, unsigned cut_every,
                                                 const char *more)
{
    struct trainkit_undisturbed u = {0};
    struct lh_train_result result;
    trainkit_dataset();
    u.job = trainkit_job(steps, cut_every, more);
    trainkit_job_file(kit_path("job.yaml"), steps, cut_every, more);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(u.job, &opt, &result));
    u.want = trainkit_read(kit_path("undisturbed"));
    return u;
}

void trainkit_undisturbed_free(struct trainkit_undisturbed *u)
{
    lh_mem_free(u->want.values);
    lh_job_destroy(&u->job);
}

double trainkit_last_metric(const char *dir, const char *name)
{
    char path[600], field[64];
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    snprintf(field, sizeof field, "\"%s\": ", name);
    char *text = kit_read(path, NULL), *last = NULL;
    for (char *at = text; (at = strstr(at, field)); at += strlen(field))
        last = at + strlen(field);
    assert_non_null(last);
    const double value = strtod(last, NULL);
    free(text);
    return value;
}

void trainkit_assert_lines(const char *dir, unsigned steps)
{
    char path[600], head[32];
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    char *text = kit_read(path, NULL), *line = text;
    for (unsigned step = 1; step <= steps; step++) {
        snprintf(head, sizeof head, "{\"step\": %u, ", step);
        if (strncmp(line, head, strlen(head)) != 0)
            fail_msg("%s: the line of step %u is missing", path, step);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    if (*line)
        fail_msg("%s: goes on behind step %u: %.80s", path, steps, line);
    free(text);
}

/* --- processes ----------------------------------------------------------------------------------
 */
uint64_t trainkit_last_cut(const char *dir)
{
    struct lh_run_record record = {0};
    uint64_t last = 0;
    if (lh_run_record_load(&record, dir) == 0 && record.has_last)
        last = record.last;
    lh_run_record_fini(&record);
    return last;
}

bool trainkit_wait_cut(const char *dir, uint64_t version)
{
    double began = lh_now();
    while (lh_now() - began < 30) {
        if (trainkit_last_cut(dir) >= version)
            return true;
        usleep(2000);
    }
    return false;
}

pid_t trainkit_spawn(const char *log, const char *const *argv)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        setpgid(pid, pid);
        return pid;
    }
    setpgid(0, 0);
    int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0666);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

pid_t trainkit_spawn_train(const char *program, const char *workers, const char *servers,
                           const char *set)
{
    const char *argv[] = {program,
                          "train",
                          kit_path("job.yaml"),
                          "--dir",
                          kit_path("run"),
                          "--launcher",
                          "processes",
                          "--workers",
                          workers,
                          "--servers",
                          servers,
                          "--no-evaluation",
                          "--quiet",
                          set ? "--set" : NULL,
                          set,
                          NULL};
    return trainkit_spawn(kit_path("log"), argv);
}

pid_t trainkit_spawn_here(const char *program, const char *more)
{
    const char *argv[] = {program,
                          "train",
                          kit_path("job.yaml"),
                          "--dir",
                          kit_path("run"),
                          "--no-evaluation",
                          "--quiet",
                          more,
                          NULL};
    kit_run(NULL, "rm -f '%s'", kit_path("log"));
    return trainkit_spawn(kit_path("log"), argv);
}

int trainkit_wait_exit(pid_t pid)
{
    int status = -1;
    for (double began = lh_now(); lh_now() - began < 60; usleep(2000))
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

size_t trainkit_said(const char *words)
{
    size_t n = 0;
    if (access(kit_path("log"), R_OK) != 0)
        return 0; /* whoever writes it has not begun */
    char *text = kit_read(kit_path("log"), NULL);
    for (const char *at = text; (at = strstr(at, words)); at += strlen(words))
        n++;
    free(text);
    return n;
}

/* cmocka's own messages are short. */
static void show_log(void)
{
    char *text = kit_read(kit_path("log"), NULL);
    printf("%s", text);
    free(text);
}

void trainkit_await_said(const char *words)
{
    for (double began = lh_now(); !trainkit_said(words); usleep(2000)) {
        if (lh_now() - began > 60) {
            show_log();
            fail_msg("'%s' was not said", words);
        }
    }
}

void trainkit_assert_exits(pid_t pid, int code)
{
    int got = trainkit_wait_exit(pid);
    if (got == code)
        return;
    show_log();
    fail_msg("exit status %d, expected %d", got, code);
}

void trainkit_await_endpoint(const char *log, char *out, size_t size)
{
    for (double began = lh_now(); lh_now() - began < 30; usleep(2000)) {
        if (access(log, R_OK) != 0)
            continue;
        size_t bytes;
        char *text = kit_read(log, &bytes), *at = strstr(text, "scheduler at tcp://");
        int n = at ? (int)strcspn(at + strlen("scheduler at "), " ") - 1 : 0;
        if (n > 0)
            snprintf(out, size, "%.*s", n, at + strlen("scheduler at "));
        free(text);
        if (n > 0)
            return;
    }
    fail_msg("%s: the scheduler says no endpoint", log);
}

static pid_t parent_of(const char *pid)
{
    char path[300], text[512] = "";
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *behind = strrchr(text, ')');
    int parent = 0;
    return behind && sscanf(behind, ") %*c %d", &parent) == 1 ? parent : 0;
}

/* The command line is "longhaul", "ROLE", … with NUL between. */
static bool runs_role(const char *pid, const char *role)
{
    char path[300], text[256] = "";
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    const char *second = memchr(text, 0, n);
    return second && strcmp(second + 1, role) == 0;
}

pid_t trainkit_find_role(pid_t parent, const char *role)
{
    DIR *d = opendir("/proc");
    pid_t found = 0;
    struct dirent *e;
    assert_non_null(d);
    while (!found && (e = readdir(d)))
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && parent_of(e->d_name) == parent &&
            runs_role(e->d_name, role))
            found = (pid_t)atoi(e->d_name);
    closedir(d);
    return found;
}

void trainkit_stop_worker(pid_t run, uint64_t cut)
{
    assert_true(trainkit_wait_cut(kit_path("run"), 2 * cut));
    pid_t worker = trainkit_find_role(run, "worker");
    assert_true(worker > 0);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    uint64_t at = trainkit_last_cut(kit_path("run"));
    assert_true(trainkit_wait_cut(kit_path("run"), at + 3 * cut));
    assert_int_equal(kill(worker, SIGCONT), 0);
    assert_int_equal(trainkit_wait_exit(run), 0);
}
