/* A table's cuts once all of them is in files (rowtable_settle.c). To prepare is to make the newest
 * run durable and to write down which runs the version is made of. Runs pile up: they are merged
 * after a prepare, and the next freeze takes the merged one over. TABLES.md has a picture. */
#include "ps/rowtable.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/log.h"
#include "common/mem.h"
#include "ps/rowtable_internal.h"
#include "ps/rowtable_read.h"
#include "ps/rowtable_scan.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MERGE_AT = 8,  /* runs from which on some are merged */
    RECORDS = 1024 /* of a merge, put together */
};

void lh_rowtable_thaw(struct lh_rowtable *t)
{
    atomic_store_explicit(&t->frozen.taken, 0, memory_order_release);
}

/* --- merging --------------------------------------------------------------------------------- */

/* Records on their way into a new run. */
struct copy {
    struct lh_rowtable_run *into;
    struct lh_rowtable_record rows[RECORDS];
    size_t n;
};

static int flush(struct copy *c)
{
    LH_TRY(lh_rowtable_run_put(c->into, c->rows, c->n));
    c->n = 0;
    return 0;
}

static int copy_rows(struct copy *c, struct lh_rowtable_scan *scan,
                     const struct lh_rowtable_version *v)
{
    int rc;
    struct lh_rowtable_record row;
    while ((rc = lh_rowtable_scan_next(scan, &row)) == 0) {
        /* What is too old now is so for every later version, and so is what it stands for in older
         * runs: it need not be kept. */
        if (lh_rowtable_is_old(v->evict_after, row.seen, row.last, v->version))
            continue;
        c->rows[c->n++] = row;
        if (c->n == RECORDS)
            LH_TRY(flush(c));
    }
    LH_TRY(rc);
    return flush(c);
}

/* Where to begin: from the newest back, while the next older is not larger than what is taken
 * already. So a row is copied a number of times that grows with the logarithm of the table. */
static size_t choose(const struct lh_rowtable_version *v, uint64_t *rows)
{
    size_t from = v->n_runs - 1;
    *rows = v->runs[from].records;
    while (from > 0 && v->runs[from - 1].records <= *rows)
        *rows += v->runs[--from].records;
    return from;
}

/* Merges runs [from, n) of a durable version, of so many rows, into a new, durable one. All handles
 * are its own: the table's thread goes on reading the same files. */
static int merge(struct lh_rowtable *t, size_t from, uint64_t rows)
{
    struct lh_rowtable_frozen *f = &t->frozen;
    const struct lh_rowtable_version *v = &f->version;
    const size_t n = v->n_runs - from;
    struct lh_rowtable_run **runs = NULL;
    struct lh_rowtable_scan *scan = NULL;
    struct copy *copy = NULL;
    uint64_t number;
    int rc;
    LH_TRY(lh_rowtable_files_take(t->files, &number));
    LH_TRY_TO(done, LH_NEW(&copy, "merge of a table"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&runs, n, "merge of a table"));
    for (size_t i = 0; i < n; i++)
        LH_TRY_TO(done,
                  lh_rowtable_run_open(&runs[i], t->dir, &v->runs[from + i], v->dim, false, NULL));
    LH_TRY_TO(done, lh_rowtable_scan_create(&scan, runs, n));
    LH_TRY_TO(done, lh_rowtable_run_create(&copy->into, t->dir, number, v->dim,
                                           from > 0 ? &t->filters : NULL, rows));
    LH_TRY_TO(done, copy_rows(copy, scan, v));
    LH_TRY_TO(done, lh_rowtable_run_seal(copy->into));
    LH_TRY_TO(done, lh_rowtable_run_sync(t->dir, number));
    LH_TRY_TO(done, lh_fs_sync_dir(t->dir));
    f->merged = copy->into;
    copy->into = NULL;
    f->merge_from = from;
    f->merge_n = n;
done:
    lh_rowtable_scan_destroy(&scan);
    for (size_t i = 0; runs && i < n; i++)
        lh_rowtable_run_close(&runs[i]);
    if (copy)
        lh_rowtable_run_close(&copy->into);
    lh_mem_free(runs);
    lh_mem_free(copy);
    if (rc < 0)
        lh_rowtable_files_drop(t->files, number);
    return rc;
}

/* --- prepare and prune ----------------------------------------------------------------------- */

int lh_rowtable_prepare(struct lh_rowtable *t)
{
    struct lh_rowtable_frozen *f = &t->frozen;
    bool synced = false;
    assert(atomic_load(&f->taken));
    if (f->prepared)
        return 0;
    for (uint32_t i = 0; i < f->version.n_runs; i++) {
        if (f->durable[i])
            continue;
        LH_TRY(lh_rowtable_run_sync(t->dir, f->version.runs[i].number));
        synced = f->durable[i] = true;
    }
    if (synced)
        LH_TRY(lh_fs_sync_dir(t->dir));
    LH_TRY(lh_rowtable_files_add(t->files, &f->version));
    f->prepared = true;
    return 0;
}

void lh_rowtable_tidy(struct lh_rowtable *t)
{
    const struct lh_rowtable_version *v = &t->frozen.version;
    assert(atomic_load(&t->frozen.taken));
    if (!t->frozen.prepared || t->frozen.merge_n > 0 || v->n_runs < MERGE_AT)
        return;
    uint64_t rows;
    const size_t from = choose(v, &rows);
    if (from + 1 < v->n_runs && merge(t, from, rows) < 0)
        lh_log_tell(LH_LOG_WARN, "merge", LH_FIELDS(LH_F("table", t->name)),
                    "table %s: files could not be merged, finding rows gets slower: %s", t->name,
                    lh_err_text());
}

int lh_rowtable_prune(struct lh_rowtable *t, const uint64_t *keep, size_t n)
{
    return lh_rowtable_files_prune(t->files, keep, n);
}

/* --- restore --------------------------------------------------------------------------------- */

static int check_version(const struct lh_rowtable *t, const struct lh_rowtable_info *found)
{
    const struct lh_rowtable_spec *s = &t->spec;
    if (found->job_digest != s->job_digest)
        return lh_err_set(LH_EMISMATCH,
                          "table %s: belongs to job %016" PRIx64 ", this is job %016" PRIx64
                          "; use another run directory, or the config it was made with",
                          s->name, found->job_digest, s->job_digest);
    if (found->dim != s->dim || found->seed != s->seed || found->init_scale != s->init_scale ||
        found->admit_after != s->admit_after || found->evict_after != s->evict_after)
        return lh_err_set(LH_EMISMATCH,
                          "table %s: was made with rows of %u elements, expected %u, or with "
                          "another seed, scale, admission or eviction; use the config it was made "
                          "with",
                          s->name, found->dim, s->dim);
    return 0;
}

/* The runs of a version of ours as they are, read once. */
static int adopt(struct lh_rowtable *t, uint64_t version)
{
    struct lh_rowtable_version v;
    LH_TRY(lh_rowtable_files_read(t->dir, version, &v));
    int rc = lh_rowtable_check_part(&v, t->dir, t->name, t->spec.shard, t->spec.shards);
    if (rc >= 0)
        rc = check_version(t, &(struct lh_rowtable_info){v.dim, v.seed, v.init_scale, v.admit_after,
                                                         v.evict_after, v.job_digest, 0});
    for (uint32_t i = 0; rc >= 0 && i < v.n_runs; i++) {
        rc = LH_GROW(&t->live, &t->cap_live, t->n_live + 1, "table");
        if (rc >= 0)
            rc = lh_rowtable_files_hold(t->files, v.runs[i].number);
        if (rc >= 0)
            rc = lh_rowtable_run_open(&t->live[t->n_live].run, t->dir, &v.runs[i], v.dim, true,
                                      i > 0 ? &t->filters : NULL);
        if (rc >= 0)
            t->live[t->n_live++].durable = true;
        else
            lh_rowtable_files_drop(t->files, v.runs[i].number);
    }
    lh_mem_free(v.runs);
    return rc;
}

/* Those rows of a whole table that are ours, into the open run: the next cut is made of it alone.
 */
static int pick(struct lh_rowtable *t, struct lh_rowtable_reader *from)
{
    struct lh_rowtable_row row;
    int rc;
    while ((rc = lh_rowtable_reader_next(from, &row)) == 0) {
        if (lh_rowlist_shard(row.id, t->spec.shards) != t->spec.shard)
            continue;
        const struct lh_rowtable_record record = {row.id, row.last, row.seen, row.updates, row.w};
        const uint32_t slot = lh_rowtable_cache_victim(t->cache);
        if (t->cache->slots[slot].changed != 0)
            LH_TRY(lh_rowtable_make_room(t));
        lh_rowtable_cache_take(t->cache, slot, row.id);
        lh_rowtable_fill(t, slot, &record);
        lh_rowtable_cache_change(t->cache, slot);
    }
    return rc < 0 ? rc : 0;
}

/* Our rows of a version of any shape. */
static int gather(struct lh_rowtable *t, uint64_t version, const char *const *dirs, size_t n_dirs)
{
    struct lh_rowtable_reader *reader = NULL;
    LH_TRY(lh_rowtable_reader_open(&reader, t->name, version, dirs, n_dirs));
    int rc = check_version(t, lh_rowtable_reader_info(reader));
    if (rc >= 0)
        rc = pick(t, reader);
    lh_rowtable_reader_close(&reader);
    return rc;
}

/* Whether our part of a cut of our shape has its files where ours are. */
static int is_ours(const struct lh_rowtable *t, const char *const *dirs, size_t n, bool *ours)
{
    char *dir = NULL;
    struct stat a, b;
    *ours = false;
    if (n != t->spec.shards)
        return 0;
    LH_TRY(lh_rowtable_files_dir(&dir, dirs[t->spec.shard], t->name));
    *ours =
        stat(dir, &a) == 0 && stat(t->dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    lh_mem_free(dir);
    return 0;
}

int lh_rowtable_restore(struct lh_rowtable *t, uint64_t version, const char *const *dirs,
                        size_t n_dirs)
{
    bool ours;
    LH_TRY(is_ours(t, dirs, n_dirs, &ours));
    lh_rowtable_empty(t);
    int rc = ours ? adopt(t, version) : gather(t, version, dirs, n_dirs);
    if (rc < 0)
        lh_rowtable_empty(t);
    t->version = version;
    return rc;
}
