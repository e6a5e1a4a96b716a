/* The store as it is read: which versions there are, and the blocks of one, into a shard or into
 * flat arrays. Nothing of a block is used before its checksum holds, nor a version whose blocks are
 * not all there. */
#include "ps/store.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/store_block.h"
#include "ps/store_internal.h"

#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>

struct listing {
    struct lh_store_version *versions;
    size_t n, cap;
};

static int list(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    struct listing *l = ctx;
    MDB_cursor *c = NULL;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, st->dbi, &c);
    if (rc != 0)
        return rc;
    struct lh_store_key from = lh_store_block_meta_key(0);
    k = lh_store_key_val(&from);
    for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0;
         rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE)) {
        if (k.mv_size < 8) { /* the identity lies somewhere among them */
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
            if (rc != 0)
                break;
        }
        const uint64_t version = lh_store_block_key_version(k.mv_data);
        struct lh_store_meta meta;
        if (k.mv_size == 8) {
            struct lh_store_key key = lh_store_block_meta_key(version);
            rc = lh_store_block_read_meta(&meta, &key, v.mv_data, v.mv_size);
            if (rc < 0) {
                rc = lh_err_prefix(rc, "%s: version %" PRIu64, st->dir, version);
                break;
            }
            if ((rc = LH_GROW(&l->versions, &l->cap, l->n + 1, "versions of a store")) < 0)
                break;
            l->versions[l->n++] = (struct lh_store_version){
                .version = version,
                .committed = meta.state == LH_STORE_COMMITTED,
                .shards = meta.shards,
                .bytes = meta.bytes,
                .wall_time_us = meta.wall_time_us,
            };
        }
        if (version == UINT64_MAX) {
            rc = MDB_NOTFOUND;
            break;
        }
        from = lh_store_block_meta_key(version + 1);
        k = lh_store_key_val(&from);
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int lh_store_versions(struct lh_store *st, struct lh_store_version **out, size_t *n)
{
    struct listing l = {0};
    pthread_mutex_lock(&st->mutex);
    int rc = lh_store_txn_read(st, list, &l, "cannot be read");
    pthread_mutex_unlock(&st->mutex);
    if (rc < 0) {
        lh_mem_free(l.versions);
        return rc;
    }
    *out = l.versions;
    *n = l.n;
    return 0;
}

/* What to do with a version's record, and with each of its blocks. */
struct scan {
    uint64_t version;
    int (*begin)(struct lh_store *st, const struct lh_store_meta *meta, void *ctx); /* or NULL */
    int (*rows)(const struct lh_rows *rows, void *ctx);                             /* or NULL */
    void *ctx;
};

static int scan_blocks(struct lh_store *st, MDB_cursor *c, const struct scan *x,
                       const struct lh_store_meta *meta)
{
    MDB_val k, v;
    uint64_t blocks = 0, bytes = 0;
    struct lh_store_key from = lh_store_block_meta_key(x->version);
    k = lh_store_key_val(&from);
    int rc = mdb_cursor_get(c, &k, &v, MDB_SET);
    while (rc == 0 && (rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        struct lh_rows rows;
        if (k.mv_size < 8)
            continue;
        if (lh_store_block_key_version(k.mv_data) != x->version)
            break;
        rc = lh_store_block_read(&rows, k.mv_data, k.mv_size, v.mv_data, v.mv_size);
        if (rc == 0 && x->rows)
            rc = x->rows(&rows, x->ctx);
        if (rc < 0)
            return lh_err_prefix(rc, "%s: version %" PRIu64, st->dir, x->version);
        blocks++;
        bytes += v.mv_size;
    }
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    if (blocks != meta->blocks || bytes != meta->bytes)
        return lh_err_set(LH_ECORRUPT,
                          "%s: version %" PRIu64 ": has %" PRIu64 " row blocks, its record says "
                          "%" PRIu64 "; the file is damaged",
                          st->dir, x->version, blocks, meta->blocks);
    return 0;
}

static int scan(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    const struct scan *x = ctx;
    struct lh_store_meta meta;
    MDB_cursor *c = NULL;
    int rc = lh_store_get_meta(st, txn, x->version, &meta);
    if (rc == MDB_NOTFOUND)
        return lh_store_no_version(st, x->version);
    if (rc != 0)
        return rc;
    if (x->begin && (rc = x->begin(st, &meta, x->ctx)) < 0)
        return rc;
    if ((rc = mdb_cursor_open(txn, st->dbi, &c)) != 0)
        return rc;
    rc = scan_blocks(st, c, x, &meta);
    mdb_cursor_close(c);
    return rc;
}

static int run_scan(struct lh_store *st, struct scan *x)
{
    pthread_mutex_lock(&st->mutex);
    int rc = lh_store_txn_read(st, scan, x, "cannot be read");
    pthread_mutex_unlock(&st->mutex);
    return rc;
}

int lh_store_verify(struct lh_store *st, uint64_t version)
{
    return run_scan(st, &(struct scan){.version = version});
}

static int check_layout(const struct lh_store *st, const struct lh_store_meta *meta,
                        uint64_t digest)
{
    if (meta->layout_digest == digest)
        return 0;
    return lh_err_set(LH_EMISMATCH,
                      "%s: holds a model of another shape (layout %016" PRIx64 ", expected "
                      "%016" PRIx64 "); use the config it was made with",
                      st->dir, meta->layout_digest, digest);
}

struct loading {
    struct lh_shard *shard;
    uint64_t *taken;
    uint32_t place, of; /* of a restore: which part of the cut this must be; of == 0: any */
};

static int begin_load(struct lh_store *st, const struct lh_store_meta *meta, void *ctx)
{
    const struct loading *x = ctx;
    if (x->of > 0 && (meta->shard != x->place || meta->shards != x->of))
        return lh_err_set(LH_EMISMATCH, "%s: is part %u of %u of its cut, expected part %u of %u",
                          st->dir, meta->shard, meta->shards, x->place, x->of);
    return check_layout(st, meta, lh_shard_range_of(x->shard)->digest);
}

static int load_rows(const struct lh_rows *rows, void *ctx)
{
    const struct loading *x = ctx;
    return lh_shard_load(x->shard, rows, x->taken);
}

int lh_store_load(struct lh_store *st, uint64_t version, struct lh_shard *into, uint64_t *taken)
{
    struct loading x = {.shard = into, .taken = taken};
    return run_scan(st, &(struct scan){version, begin_load, load_rows, &x});
}

struct reading {
    const struct lh_layout *layout;
    float *weights, *targets;
    uint64_t *taken;
};

static int begin_read(struct lh_store *st, const struct lh_store_meta *meta, void *ctx)
{
    const struct reading *x = ctx;
    return check_layout(st, meta, x->layout->digest);
}

static int read_rows(const struct lh_rows *rows, void *ctx)
{
    const struct reading *x = ctx;
    for (size_t i = 0; i < x->layout->n_params; i++) {
        const struct lh_param *p = &x->layout->params[i];
        if (strcmp(p->name, rows->name) != 0)
            continue;
        if (rows->cols != p->cols || rows->row + rows->rows > p->rows)
            return lh_err_set(LH_EMISMATCH, "tensor '%s' has another shape", p->name);
        const size_t at = p->offset + (size_t)(rows->row * rows->cols);
        const size_t n = (size_t)(rows->rows * rows->cols);
        if (x->weights)
            memcpy(x->weights + at, rows->w, n * sizeof(float));
        if (x->targets && rows->target)
            memcpy(x->targets + at, rows->target, n * sizeof(float));
        *x->taken += n;
        return 0;
    }
    return lh_err_set(LH_EMISMATCH, "tensor '%s' is not in the model", rows->name);
}

int lh_store_read(struct lh_store *st, uint64_t version, const struct lh_layout *layout,
                  float *weights, float *targets, uint64_t *taken)
{
    struct reading x = {layout, weights, targets, taken};
    return run_scan(st, &(struct scan){version, begin_read, read_rows, &x});
}

int lh_store_restore(struct lh_shard *into, uint64_t version, const char *const *dirs,
                     size_t n_dirs, uint64_t job_digest)
{
    uint64_t taken = 0;
    for (size_t i = 0; i < n_dirs; i++) {
        struct lh_store *st = NULL;
        struct loading x = {into, &taken, (uint32_t)i, (uint32_t)n_dirs};
        LH_TRY(lh_store_open(&st, dirs[i],
                             &(struct lh_store_id){job_digest, (uint32_t)i, (uint32_t)n_dirs}, 1));
        int rc = run_scan(st, &(struct scan){version, begin_load, load_rows, &x});
        lh_store_close(&st);
        LH_TRY(rc);
    }
    return lh_shard_set_version(into, version, taken);
}
