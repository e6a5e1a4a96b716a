/* Logs of the simulated world. Users are independent of one another, so threads take blocks of
 * them; a CSV file's blocks are written in order of their numbers, each by the thread that made it
 * when its turn comes. So the bytes are those of one thread. */
#include "worker/sim_log.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/rng.h"
#include "worker/sim_csv.h"
#include "worker/sim_log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 64 /* users */

struct worker { /* one thread's memory */
    struct sim_life life;
    struct sim_csv text;
};

struct run {
    const struct lh_sim *sim;
    const struct lh_sim_log *log;
    struct worker *workers;    /* [threads] */
    struct sim_summary *users; /* [users] */
    _Atomic uint64_t done;
    /* a dataset */
    struct lh_dataset_writer *writer;
    /* a CSV log */
    const char *dir;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    size_t next;       /* the block whose turn it is */
    bool failed;       /* a block before it failed */
    int fd;            /* of the file being written; -1: none */
    uint64_t fd_index; /* which */
};

static unsigned threads_of(const struct lh_sim_log *log)
{
    return log->threads < 1 ? 1 : log->threads;
}

static int begin(struct run *r, const struct lh_sim *sim, const struct lh_sim_log *log)
{
    *r = (struct run){.sim = sim, .log = log, .fd = -1};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->turn, NULL);
    LH_TRY(LH_NEW_ARRAY(&r->workers, threads_of(log), "simulating threads"));
    return LH_NEW_ARRAY(&r->users, log->users, "users of a log");
}

static void finish(struct run *r)
{
    for (unsigned i = 0; r->workers && i < threads_of(r->log); i++) {
        lh_sim_life_fini(&r->workers[i].life);
        lh_sim_csv_fini(&r->workers[i].text);
    }
    if (r->fd >= 0)
        close(r->fd);
    lh_mem_free(r->workers);
    lh_mem_free(r->users);
    pthread_cond_destroy(&r->turn);
    pthread_mutex_destroy(&r->lock);
}

static int live(struct run *r, struct worker *w, uint64_t user)
{
    uint64_t sessions = lh_sim_user_sessions(r->sim, r->log->seed, user, r->log->sessions);
    LH_TRY(lh_sim_life_live(&w->life, r->sim, r->log->seed, user, sessions));
    r->users[user] = lh_sim_life_summary(&w->life);
    return 0;
}

/* --- datasets --------------------------------------------------------------------------------- */

/* A user's place in a seeded permutation decides its split. */
static enum lh_split split_of(const struct lh_sim_log *log, uint64_t user)
{
    struct lh_rng_at at = {.seed = log->seed, .purpose = lh_rng_purpose("sim.split")};
    uint64_t place = lh_rng_permute(&at, user, log->users);
    uint64_t test = (uint64_t)(log->test * (double)log->users + 0.5);
    uint64_t validation = (uint64_t)(log->validation * (double)log->users + 0.5);
    return place < test ? LH_TEST : place < test + validation ? LH_VALIDATION : LH_TRAIN;
}

/* The finaliser of splitmix64: users spread over partitions as hashes of ids do. */
static uint64_t hash_of(uint64_t user)
{
    uint64_t z = (user + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int add_block(void *ctx, size_t index, unsigned thread)
{
    struct run *r = ctx;
    struct worker *w = &r->workers[thread];
    uint64_t first = (uint64_t)index * BLOCK, last = first + BLOCK;
    last = last < r->log->users ? last : r->log->users;
    for (uint64_t user = first; user < last; user++) {
        LH_TRY(live(r, w, user));
        struct lh_trajectory t = {.split = split_of(r->log, user),
                                  .user = hash_of(user),
                                  .id = user,
                                  .ends = false,
                                  .n = w->life.n,
                                  .high = w->life.high,
                                  .low = w->life.low,
                                  .action = w->life.action,
                                  .reward = w->life.reward,
                                  .time_us = w->life.time_us,
                                  .session = w->life.session};
        LH_TRY(lh_dataset_writer_add(r->writer, &t));
    }
    return lh_sim_log_tell(r->log, &r->done, last - first);
}

int lh_sim_log_dataset(const struct lh_sim *sim, const struct lh_sim_log *log, const char *dir,
                       struct lh_sim_log_info *info)
{
    LH_TRY(lh_sim_log_check(log));
    struct lh_dataset_spec spec = {.high_names = lh_sim_names(0),
                                   .low_names = lh_sim_names(1),
                                   .action_names = lh_sim_names(2),
                                   .hash_partitions = log->hash_partitions,
                                   .by_day = log->by_day,
                                   .kind = "simulate",
                                   .memory_limit = UINT64_C(256) << 20,
                                   .threads = threads_of(log),
                                   .replace = log->replace};
    struct run r;
    char *origin = NULL;
    int rc = begin(&r, sim, log);
    if (rc < 0)
        goto done;
    LH_TRY_TO(done, lh_sim_json(sim, &origin));
    lh_sim_dims(&spec.dims);
    spec.origin_json = origin;
    LH_TRY_TO(done, lh_dataset_writer_open(&r.writer, dir, &spec));
    LH_TRY_TO(done, lh_pool_run(threads_of(log), (size_t)((log->users + BLOCK - 1) / BLOCK),
                                add_block, &r));
    LH_TRY_TO(done, lh_dataset_writer_commit(&r.writer));
    if (info)
        lh_sim_life_info(r.users, (size_t)log->users, info);
done:
    lh_dataset_writer_abort(&r.writer);
    lh_mem_free(origin);
    finish(&r);
    return rc;
}

/* --- CSV -------------------------------------------------------------------------------------- */

/* Blocks of file f are users [f U / F, (f + 1) U / F) by 64; a file has blocks_per_file of them,
 * the last of which may be short or empty. */
static uint64_t file_begin(const struct lh_sim_log *log, uint64_t file)
{
    return (uint64_t)((unsigned __int128)file * log->users / log->files);
}

static uint64_t blocks_per_file(const struct lh_sim_log *log)
{
    uint64_t most = (log->users + log->files - 1) / log->files;
    return (most + BLOCK - 1) / BLOCK;
}

static int open_file(struct run *r, uint64_t file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/log-%05" PRIu64 ".csv%s", r->dir, file,
             r->log->gzip ? ".gz" : "");
    r->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (r->fd < 0)
        return lh_err_errno(errno, "%s: cannot be created", path);
    r->fd_index = file;
    return 0;
}

static int close_file(struct run *r)
{
    if (r->fd < 0)
        return 0;
    int failed = fsync(r->fd), error = errno;
    if (close(r->fd) != 0 && !failed) {
        failed = -1;
        error = errno;
    }
    r->fd = -1;
    return failed
               ? lh_err_errno(error, "%s: log %" PRIu64 " cannot be written", r->dir, r->fd_index)
               : 0;
}

/* With the lock held and the turn ours. */
static int put(struct run *r, uint64_t file, bool last, const void *data, size_t n)
{
    if (r->fd < 0)
        LH_TRY(open_file(r, file));
    LH_TRY(lh_fs_write(r->fd, data, n, r->dir));
    return last ? close_file(r) : 0;
}

static int print_block(struct run *r, struct worker *w, uint64_t first, uint64_t last, bool header)
{
    lh_sim_csv_reset(&w->text);
    if (header)
        LH_TRY(lh_sim_csv_header(&w->text));
    for (uint64_t user = first; user < last; user++) {
        LH_TRY(live(r, w, user));
        LH_TRY(lh_sim_csv_life(&w->text, user, &w->life));
    }
    return r->log->gzip ? lh_sim_csv_gzip(&w->text) : 0;
}

static int write_block(void *ctx, size_t index, unsigned thread)
{
    struct run *r = ctx;
    struct worker *w = &r->workers[thread];
    uint64_t per_file = blocks_per_file(r->log), file = index / per_file, block = index % per_file;
    uint64_t end = file_begin(r->log, file + 1), first = file_begin(r->log, file) + block * BLOCK;
    first = first < end ? first : end;
    uint64_t last = first + BLOCK < end ? first + BLOCK : end;
    int rc = print_block(r, w, first, last, block == 0);

    pthread_mutex_lock(&r->lock);
    while (r->next != index) /* also after a failure: the lowest block's is the one reported */
        pthread_cond_wait(&r->turn, &r->lock);
    if (r->failed) /* below; the pool reports that one */
        rc = LH_ECANCELED;
    else if (rc == 0)
        rc = put(r, file, block == per_file - 1, w->text.text, w->text.n);
    r->failed = rc < 0;
    r->next++;
    pthread_cond_broadcast(&r->turn);
    pthread_mutex_unlock(&r->lock);
    LH_TRY(rc);
    return lh_sim_log_tell(r->log, &r->done, last - first);
}

static int write_beside(const struct run *r, const char *dir)
{
    char path[4096], *text = NULL;
    LH_TRY(lh_sim_csv_schema(r->sim, r->log, &text));
    snprintf(path, sizeof path, "%s/schema.yaml", dir);
    int rc = lh_fs_write_file(path, text, strlen(text));
    lh_mem_free(text);
    LH_TRY(rc);
    LH_TRY(lh_sim_json(r->sim, &text));
    snprintf(path, sizeof path, "%s/world.json", dir);
    rc = lh_fs_write_file(path, text, strlen(text));
    lh_mem_free(text);
    return rc;
}

int lh_sim_log_csv(const struct lh_sim *sim, const struct lh_sim_log *log, const char *dir,
                   struct lh_sim_log_info *info)
{
    LH_TRY(lh_sim_log_check(log));
    struct run r;
    struct lh_fs_partial partial = {0};
    int rc = begin(&r, sim, log);
    if (rc < 0)
        goto done;
    LH_TRY_TO(done, lh_fs_partial_begin(&partial, dir, log->replace, "world.json"));
    r.dir = partial.path;
    LH_TRY_TO(done, lh_pool_run(threads_of(log), (size_t)(blocks_per_file(log) * log->files),
                                write_block, &r));
    LH_TRY_TO(done, write_beside(&r, partial.path));
    LH_TRY_TO(done, lh_fs_partial_commit(&partial));
    if (info)
        lh_sim_life_info(r.users, (size_t)log->users, info);
done:
    finish(&r);
    lh_fs_partial_abort(&partial);
    return rc;
}
