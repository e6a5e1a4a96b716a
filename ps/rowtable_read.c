/* Cuts of tables, for readers. See rowtable_read.h. */
#include "ps/rowtable_read.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/rowlist.h"
#include "ps/rowtable_internal.h"
#include "ps/rowtable_scan.h"

#include <inttypes.h>
#include <string.h>

/* The runs of one shard, oldest first. */
struct part {
    size_t first, n;
};

struct lh_rowtable_reader {
    struct lh_rowtable_info info;
    uint64_t version;
    struct lh_rng_at initial;
    struct lh_rowtable_run **runs;
    size_t n_runs, cap_runs;
    struct part *parts; /* [n_parts] */
    size_t n_parts;
    struct lh_rowtable_scan *scan; /* NULL until something is read in order */
    float *row;                    /* [3, dim] */
};

/* --- opening --------------------------------------------------------------------------------- */

static struct lh_rowtable_info info_of(const struct lh_rowtable_version *v)
{
    return (struct lh_rowtable_info){
        v->dim, v->seed, v->init_scale, v->admit_after, v->evict_after, v->job_digest, 0};
}

int lh_rowtable_check_part(const struct lh_rowtable_version *v, const char *dir, const char *name,
                           size_t shard, size_t shards)
{
    if (v->shard != shard || v->shards != shards)
        return lh_err_set(LH_EMISMATCH,
                          "%s: version %" PRIu64
                          " is part %u of %u of its cut, expected part %zu of %zu",
                          dir, v->version, v->shard, v->shards, shard, shards);
    if (v->name_hash != lh_rowlist_stream(name, 0).purpose)
        return lh_err_set(LH_EMISMATCH, "%s: is not table %s; was the directory renamed?", dir,
                          name);
    return 0;
}

static int check(const struct lh_rowtable_reader *r, const struct lh_rowtable_version *v,
                 const char *name, const char *dir, size_t shard)
{
    const struct lh_rowtable_info a = info_of(v), *b = &r->info;
    LH_TRY(lh_rowtable_check_part(v, dir, name, shard, r->n_parts));
    if (b->dim > 0 && (a.dim != b->dim || a.seed != b->seed || a.init_scale != b->init_scale ||
                       a.admit_after != b->admit_after || a.evict_after != b->evict_after ||
                       a.job_digest != b->job_digest))
        return lh_err_set(LH_EMISMATCH, "%s: belongs to another table than the other parts", dir);
    return 0;
}

static int open_runs(struct lh_rowtable_reader *r, const struct lh_rowtable_version *v,
                     const char *dir)
{
    for (uint32_t i = 0; i < v->n_runs; i++) {
        LH_TRY(LH_GROW(&r->runs, &r->cap_runs, r->n_runs + 1, "reader of a table"));
        LH_TRY(lh_rowtable_run_open(&r->runs[r->n_runs], dir, &v->runs[i], v->dim, true, NULL));
        r->n_runs++;
        r->info.records += v->runs[i].records;
    }
    return 0;
}

static int open_part(struct lh_rowtable_reader *r, const char *name, const char *store,
                     size_t shard)
{
    struct lh_rowtable_version v = {0};
    char *dir = NULL;
    LH_TRY(lh_rowtable_files_dir(&dir, store, name));
    int rc = lh_rowtable_files_read(dir, r->version, &v);
    if (rc >= 0) {
        r->initial = lh_rowlist_stream(name, v.seed);
        rc = check(r, &v, name, dir, shard);
        if (rc >= 0 && r->info.dim == 0)
            r->info = info_of(&v);
        r->parts[shard].first = r->n_runs;
        if (rc >= 0)
            rc = open_runs(r, &v, dir);
        r->parts[shard].n = r->n_runs - r->parts[shard].first;
    }
    lh_mem_free(v.runs);
    lh_mem_free(dir);
    return rc;
}

int lh_rowtable_reader_open(struct lh_rowtable_reader **out, const char *name, uint64_t version,
                            const char *const *dirs, size_t n_dirs)
{
    int rc;
    struct lh_rowtable_reader *r = NULL;
    LH_TRY(LH_NEW(&r, "reader of a table"));
    r->version = version;
    r->n_parts = n_dirs;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->parts, n_dirs, "reader of a table"));
    for (size_t i = 0; i < n_dirs; i++)
        LH_TRY_TO(fail, open_part(r, name, dirs[i], i));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->row, (size_t)3 * r->info.dim, "reader of a table"));
    *out = r;
    return 0;
fail:
    lh_rowtable_reader_close(&r);
    return rc;
}

void lh_rowtable_reader_close(struct lh_rowtable_reader **out)
{
    struct lh_rowtable_reader *r = *out;
    if (!r)
        return;
    lh_rowtable_scan_destroy(&r->scan);
    for (size_t i = 0; i < r->n_runs; i++)
        lh_rowtable_run_close(&r->runs[i]);
    lh_mem_free(r->runs);
    lh_mem_free(r->parts);
    lh_mem_free(r->row);
    lh_mem_free(r);
    *out = NULL;
}

const struct lh_rowtable_info *lh_rowtable_reader_info(const struct lh_rowtable_reader *r)
{
    return &r->info;
}

/* --- reading --------------------------------------------------------------------------------- */

static bool is_old(const struct lh_rowtable_reader *r, const struct lh_rowtable_record *row)
{
    return lh_rowtable_is_old(r->info.evict_after, row->seen, row->last, r->version);
}

int lh_rowtable_reader_seek(struct lh_rowtable_reader *r, uint64_t id)
{
    if (!r->scan)
        LH_TRY(lh_rowtable_scan_create(&r->scan, r->runs, r->n_runs));
    return lh_rowtable_scan_seek(r->scan, id);
}

int lh_rowtable_reader_next(struct lh_rowtable_reader *r, struct lh_rowtable_row *out)
{
    struct lh_rowtable_record row;
    const size_t dim = r->info.dim;
    int rc;
    if (!r->scan)
        LH_TRY(lh_rowtable_scan_create(&r->scan, r->runs, r->n_runs));
    do
        rc = lh_rowtable_scan_next(r->scan, &row);
    while (rc == 0 && is_old(r, &row));
    if (rc != 0)
        return rc;
    *out = (struct lh_rowtable_row){row.id, row.last, row.seen, row.updates, NULL, NULL, NULL};
    if (row.updates > 0) { /* in a file it may lie anywhere */
        memcpy(r->row, row.arrays, 3 * dim * sizeof *r->row);
        out->w = r->row;
        out->m = r->row + dim;
        out->v = r->row + 2 * dim;
    }
    return 0;
}

int lh_rowtable_reader_pull(struct lh_rowtable_reader *r, const uint64_t *ids, size_t n,
                            float *rows)
{
    const size_t dim = r->info.dim;
    for (size_t i = 0; i < n; i++) {
        const struct part *p = &r->parts[lh_rowlist_shard(ids[i], (uint32_t)r->n_parts)];
        struct lh_rowtable_record row = {0};
        int rc = LH_NOTFOUND;
        for (size_t k = p->n; rc == LH_NOTFOUND && k > 0; k--)
            LH_TRY(rc = lh_rowtable_run_get(r->runs[p->first + k - 1], ids[i], &row));
        if (rc == 0 && row.updates > 0 && !is_old(r, &row))
            memcpy(rows + i * dim, row.arrays, dim * sizeof *rows);
        else
            lh_rowlist_initial(&r->initial, r->info.init_scale, ids[i], rows + i * dim,
                               (uint32_t)dim);
    }
    return 0;
}
