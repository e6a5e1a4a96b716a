/* One thread, one list of commands in order. The lock is held to take or leave a list node only,
 * and touched by the server at cuts, never in a step (DESIGN.md, invariant 3). */
#include "ps/writer.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct command {
    struct command *next;
    struct lh_shard *shard;
    const struct lh_frozen *frozen; /* of a prepare */
    struct lh_writer_done done;
    uint64_t *keep;
    size_t n_keep;
};

struct list {
    struct command *first, **last;
};

struct lh_writer {
    struct lh_store *store;
    struct lh_rowtable **tables;
    size_t n_tables;
    uint64_t *keep; /* what the store still has to be pruned to; NULL: nothing */
    size_t n_keep;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list queued, finished;
    bool stop;
    atomic_uint pending; /* commands not done */
    atomic_uint ready;   /* commands done and not asked for */
};

static void append(struct list *l, struct command *c)
{
    c->next = NULL;
    *l->last = c;
    l->last = &c->next;
}

static struct command *take(struct list *l)
{
    struct command *c = l->first;
    if (c) {
        l->first = c->next;
        if (!l->first)
            l->last = &l->first;
    }
    return c;
}

static void free_command(struct command *c)
{
    lh_mem_free(c->keep);
    lh_mem_free(c);
}

/* Whether a commit or a drop of `done` leaves a version alone that it was not told to keep: what
 * has been prepared since may become a cut, and a drop is of one version. */
static bool stays(const struct lh_writer_done *done, uint64_t version)
{
    return done->kind == LH_WRITER_COMMIT ? version > done->version : version != done->version;
}

static int prune(struct lh_writer *w, struct command *c)
{
    struct lh_store_version *there = NULL;
    size_t n = 0, cap = c->n_keep;
    int rc;
    LH_TRY(lh_store_versions(w->store, &there, &n));
    for (size_t i = 0; i < n; i++) {
        if (!stays(&c->done, there[i].version))
            continue;
        LH_TRY_TO(done, LH_GROW(&c->keep, &cap, c->n_keep + 1, "versions to keep"));
        c->keep[c->n_keep++] = there[i].version;
    }
    rc = lh_store_prune(w->store, c->keep, c->n_keep);
    for (size_t i = 0; rc >= 0 && i < w->n_tables; i++)
        rc = lh_rowtable_prune(w->tables[i], c->keep, c->n_keep);
done:
    lh_mem_free(there);
    return rc;
}

/* What was there before this writer: once. */
static int prune_first(struct lh_writer *w)
{
    if (!w->keep)
        return 0;
    LH_TRY(lh_store_prune(w->store, w->keep, w->n_keep));
    lh_mem_free(w->keep);
    w->keep = NULL;
    return 0;
}

static int prepare(struct lh_writer *w, const struct command *c)
{
    LH_TRY(prune_first(w));
    for (size_t i = 0; i < w->n_tables; i++)
        LH_TRY(lh_rowtable_prepare(w->tables[i]));
    return lh_store_prepare(w->store, c->frozen);
}

/* What nobody waits for. */
static void tidy(struct lh_writer *w)
{
    for (size_t i = 0; i < w->n_tables; i++) {
        lh_rowtable_tidy(w->tables[i]);
        lh_rowtable_thaw(w->tables[i]);
    }
}

static void execute(struct lh_writer *w, struct command *c)
{
    int rc;
    double began = lh_now();
    if (c->done.kind == LH_WRITER_PREPARE) {
        rc = prepare(w, c);
        lh_shard_thaw(c->shard, c->frozen);
    } else {
        rc = c->done.kind == LH_WRITER_COMMIT ? lh_store_commit(w->store, c->done.version) : 0;
        if (rc >= 0)
            rc = prune(w, c);
    }
    lh_err_save(&c->done.err, rc < 0 ? rc : 0);
    c->done.seconds = lh_now() - began;
}

static void *run(void *arg)
{
    struct lh_writer *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        struct command *c = take(&w->queued);
        if (!c) {
            if (w->stop)
                break;
            pthread_cond_wait(&w->work, &w->mutex);
            continue;
        }
        pthread_mutex_unlock(&w->mutex);
        execute(w, c);
        const bool prepared = c->done.kind == LH_WRITER_PREPARE; /* c is the server's then */
        pthread_mutex_lock(&w->mutex);
        append(&w->finished, c);
        atomic_fetch_add(&w->ready, 1);
        if (prepared) {
            pthread_mutex_unlock(&w->mutex);
            tidy(w);
            pthread_mutex_lock(&w->mutex);
        }
        atomic_fetch_sub(&w->pending, 1);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static int set_up(struct lh_writer *w, struct lh_rowtable *const *tables, size_t n_tables,
                  const uint64_t *keep, size_t n_keep)
{
    LH_TRY(LH_NEW_ARRAY(&w->tables, n_tables, "checkpoint writer"));
    for (size_t i = 0; i < n_tables; i++)
        w->tables[i] = tables[i];
    w->n_tables = n_tables;
    LH_TRY(LH_NEW_ARRAY(&w->keep, n_keep + 1, "checkpoint writer"));
    for (size_t i = 0; i < n_keep; i++)
        w->keep[i] = keep[i];
    w->n_keep = n_keep;
    int rc = prune_first(w);
    if (rc == LH_ENOSPC || rc == LH_EIO) {
        lh_log_event(LH_LOG_WARN, "disk_error",
                     LH_FIELDS(LH_F("code", lh_err_name(rc)), LH_F("reason", lh_err_text())));
        rc = 0;
    }
    LH_TRY(rc);
    int e = pthread_create(&w->thread, NULL, run, w);
    w->started = e == 0;
    return e == 0 ? 0 : lh_err_errno(e, "starting the thread that writes checkpoints");
}

int lh_writer_start(struct lh_writer **out, struct lh_store *store,
                    struct lh_rowtable *const *tables, size_t n_tables, const uint64_t *keep,
                    size_t n_keep)
{
    struct lh_writer *w = NULL;
    LH_TRY(LH_NEW(&w, "checkpoint writer"));
    w->store = store;
    w->queued.last = &w->queued.first;
    w->finished.last = &w->finished.first;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->work, NULL);
    int rc = set_up(w, tables, n_tables, keep, n_keep);
    if (rc < 0) {
        lh_writer_stop(&w);
        return rc;
    }
    *out = w;
    return 0;
}

void lh_writer_finish(struct lh_writer *w)
{
    if (!w || !w->started)
        return;
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    w->started = false;
}

void lh_writer_stop(struct lh_writer **out)
{
    struct lh_writer *w = *out;
    if (!w)
        return;
    lh_writer_finish(w);
    struct command *c;
    while ((c = take(&w->finished)))
        free_command(c);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->mutex);
    lh_mem_free(w->keep);
    lh_mem_free(w->tables);
    lh_mem_free(w);
    *out = NULL;
}

static void enqueue(struct lh_writer *w, struct command *c)
{
    atomic_fetch_add(&w->pending, 1);
    pthread_mutex_lock(&w->mutex);
    append(&w->queued, c);
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->mutex);
}

int lh_writer_prepare(struct lh_writer *w, struct lh_shard *shard, const struct lh_frozen *frozen)
{
    struct command *c = NULL;
    LH_TRY(LH_NEW(&c, "checkpoint command"));
    c->done.kind = LH_WRITER_PREPARE;
    c->done.version = frozen->version;
    c->shard = shard;
    c->frozen = frozen;
    enqueue(w, c);
    return 0;
}

int lh_writer_commit(struct lh_writer *w, uint64_t version, const uint64_t *keep, size_t n)
{
    struct command *c = NULL;
    int rc;
    LH_TRY(LH_NEW(&c, "checkpoint command"));
    c->done.kind = LH_WRITER_COMMIT;
    c->done.version = version;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&c->keep, n, "versions to keep"));
    c->n_keep = n;
    if (n)
        memcpy(c->keep, keep, n * sizeof *keep);
    enqueue(w, c);
    return 0;
fail:
    free_command(c);
    return rc;
}

int lh_writer_drop(struct lh_writer *w, uint64_t version)
{
    struct command *c = NULL;
    LH_TRY(LH_NEW(&c, "checkpoint command"));
    c->done.kind = LH_WRITER_DROP;
    c->done.version = version;
    enqueue(w, c);
    return 0;
}

bool lh_writer_poll(struct lh_writer *w, struct lh_writer_done *out)
{
    if (atomic_load(&w->ready) == 0)
        return false;
    pthread_mutex_lock(&w->mutex);
    struct command *c = take(&w->finished);
    pthread_mutex_unlock(&w->mutex);
    atomic_fetch_sub(&w->ready, 1);
    *out = c->done;
    free_command(c);
    return true;
}

bool lh_writer_busy(const struct lh_writer *w)
{
    return lh_writer_pending(w) > 0;
}

size_t lh_writer_pending(const struct lh_writer *w)
{
    return atomic_load(&w->pending);
}
