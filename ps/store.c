/* The store: versions, row blocks and the two phases. See store.h for what a version is,
 * store_block.h for the bytes, store_internal.h for locks and transactions. */
#include "ps/store.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "ps/store_block.h"
#include "ps/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES ((size_t)1 << 20)  /* of a row block, about */
#define BATCH_BYTES ((size_t)64 << 20) /* of a transaction: what it holds in memory */

/* --- records --------------------------------------------------------------------------------- */

static MDB_val key_val(struct lh_store_key *key)
{
    return (MDB_val){.mv_size = key->n, .mv_data = key->bytes};
}

/* 0, MDB_NOTFOUND, or an error. */
static int get_meta(const struct lh_store *st, MDB_txn *txn, uint64_t version,
                    struct lh_store_meta *out)
{
    struct lh_store_key key = lh_store_block_meta_key(version);
    MDB_val k = key_val(&key), v;
    int rc = mdb_get(txn, st->dbi, &k, &v);
    if (rc != 0)
        return rc;
    rc = lh_store_block_read_meta(out, &key, v.mv_data, v.mv_size);
    return rc < 0 ? lh_err_prefix(rc, "%s: version %" PRIu64, st->dir, version) : 0;
}

static int put_meta(const struct lh_store *st, MDB_txn *txn, uint64_t version,
                    const struct lh_store_meta *meta)
{
    unsigned char bytes[LH_STORE_BLOCK_META];
    struct lh_store_key key = lh_store_block_meta_key(version);
    lh_store_block_write_meta(bytes, &key, meta);
    MDB_val k = key_val(&key), v = {sizeof bytes, bytes};
    return mdb_put(txn, st->dbi, &k, &v, 0);
}

static int no_version(const struct lh_store *st, uint64_t version)
{
    return lh_err_set(LH_ENOENT,
                      "%s: has no version %" PRIu64 "; restore it, or begin the run anew", st->dir,
                      version);
}

/* --- opening --------------------------------------------------------------------------------- */

struct identity {
    const struct lh_store_id *expected; /* NULL: whoever's */
    int found;
};

static int check_id(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    struct identity *x = ctx;
    MDB_val k = {2, (char[]){'i', 'd'}}, v;
    int rc = mdb_get(txn, st->dbi, &k, &v);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    x->found = 1;
    rc = lh_store_block_read_id(&st->id.job_digest, &st->id.shard, v.mv_data, v.mv_size);
    if (rc < 0)
        return lh_err_prefix(rc, "%s", st->dir);
    if (x->expected && st->id.job_digest != x->expected->job_digest)
        return lh_err_set(LH_EMISMATCH,
                          "%s: belongs to job %016" PRIx64 ", this is job %016" PRIx64
                          "; use another run directory, or the config it was made with",
                          st->dir, st->id.job_digest, x->expected->job_digest);
    if (x->expected && st->id.shard != x->expected->shard)
        return lh_err_set(LH_EMISMATCH,
                          "%s: belongs to shard %u, this is shard %u; was the directory renamed?",
                          st->dir, st->id.shard, x->expected->shard);
    return 0;
}

static int put_id(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    unsigned char bytes[LH_STORE_BLOCK_ID];
    const struct identity *x = ctx;
    lh_store_block_write_id(bytes, x->expected->job_digest, x->expected->shard);
    MDB_val k = {2, (char[]){'i', 'd'}}, v = {sizeof bytes, bytes};
    return mdb_put(txn, st->dbi, &k, &v, 0);
}

static int open_to_read(struct lh_store *st, const struct lh_store_id *id)
{
    struct identity x = {.expected = id};
    st->data_fd = open(st->data, O_RDONLY | O_CLOEXEC);
    if (st->data_fd < 0)
        return lh_err_errno(errno, "%s: there is no store to read", st->data);
    LH_TRY(lh_store_txn_lock(st, st->data_fd, LOCK_SH));
    LH_TRY(lh_store_txn_open(st));
    LH_TRY(lh_store_txn_read(st, check_id, &x, "cannot be read"));
    return x.found ? 0 : lh_err_set(LH_ENOENT, "%s: is an empty store", st->dir);
}

static int open_to_serve(struct lh_store *st, const struct lh_store_id *id)
{
    struct identity x = {.expected = id};
    char *parent = NULL;
    LH_TRY(lh_fs_mkdirs(st->dir));
    LH_TRY(lh_store_txn_serve(st));
    LH_TRY(lh_store_txn_open(st));
    st->data_fd = open(st->data, O_RDWR | O_CLOEXEC);
    if (st->data_fd < 0)
        return lh_err_errno(errno, "%s: cannot be opened", st->data);
    LH_TRY(lh_store_txn_read(st, check_id, &x, "cannot be read"));
    st->id = *id;
    if (x.found)
        return 0;
    LH_TRY(lh_mem_printf(&parent, "%s/..", st->dir));
    int rc = lh_fs_sync_dir(st->dir);
    if (rc == 0)
        rc = lh_fs_sync_dir(parent);
    lh_mem_free(parent);
    LH_TRY(rc);
    return lh_store_txn_write(st, put_id, &x, "cannot be created");
}

int lh_store_open(struct lh_store **out, const char *dir, const struct lh_store_id *id,
                  int read_only)
{
    int rc;
    struct lh_store *st = NULL;
    LH_TRY(LH_NEW(&st, "store"));
    st->serving = st->data_fd = -1;
    st->read_only = read_only;
    pthread_mutex_init(&st->mutex, NULL);
    LH_TRY_TO(fail, lh_mem_strdup(&st->dir, dir));
    LH_TRY_TO(fail, lh_mem_printf(&st->data, "%s/data.mdb", dir));
    LH_TRY_TO(fail, read_only ? open_to_read(st, id) : open_to_serve(st, id));
    *out = st;
    return 0;
fail:
    lh_store_close(&st);
    return rc;
}

void lh_store_close(struct lh_store **s)
{
    struct lh_store *st = *s;
    if (!st)
        return;
    lh_store_txn_close(st);
    if (st->data_fd >= 0)
        close(st->data_fd);
    if (st->serving >= 0)
        close(st->serving);
    pthread_mutex_destroy(&st->mutex);
    lh_mem_free(st->data);
    lh_mem_free(st->dir);
    lh_mem_free(st);
    *s = NULL;
}

/* --- deleting -------------------------------------------------------------------------------- */

struct sweep {
    const uint64_t *keep;
    size_t n;
    int orphans_only; /* delete what has no meta record, and nothing else */
};

static int kept(const struct sweep *x, uint64_t version, int has_meta)
{
    if (!has_meta || x->orphans_only)
        return has_meta;
    for (size_t i = 0; i < x->n; i++) {
        if (x->keep[i] == version)
            return 1;
    }
    return 0;
}

static int sweep(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    MDB_cursor *c = NULL;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, st->dbi, &c);
    if (rc != 0)
        return rc;
    uint64_t version = 0;
    int keep = 1, any = 0;
    for (rc = mdb_cursor_get(c, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        if (k.mv_size < 8)
            continue; /* the identity */
        /* A version's meta record has the shortest of its keys, and so comes first. */
        if (!any || lh_store_block_key_version(k.mv_data) != version) {
            version = lh_store_block_key_version(k.mv_data);
            keep = kept(ctx, version, k.mv_size == 8);
            any = 1;
        }
        if (!keep && (rc = mdb_cursor_del(c, 0)) != 0)
            break;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int lh_store_prune(struct lh_store *st, const uint64_t *keep, size_t n)
{
    struct sweep x = {keep, n, 0};
    pthread_mutex_lock(&st->mutex);
    int rc = lh_store_txn_write(st, sweep, &x, "old versions cannot be deleted");
    pthread_mutex_unlock(&st->mutex);
    return rc;
}

/* --- writing --------------------------------------------------------------------------------- */

/* Where a prepare stands: the next row of the next segment. */
struct place {
    size_t segment;
    uint64_t row; /* within the segment */
    uint64_t blocks, bytes;
};

struct prepare {
    const struct lh_frozen *frozen;
    struct place at, next; /* before and after the transaction that is tried */
};

/* The rows of the next block, and moves on. */
static struct lh_rows next_rows(const struct lh_frozen *f, struct place *at)
{
    const struct lh_segment *s = &f->range->segments[at->segment];
    const unsigned arrays = 1 + 2 * !!s->trained + !!s->has_target;
    const uint64_t fit = BLOCK_BYTES / (s->cols * sizeof(float) * arrays);
    const uint64_t left = s->rows - at->row, n = fit == 0 ? 1 : fit < left ? fit : left;
    const size_t first = (size_t)(s->lo - f->range->lo + at->row * s->cols);
    const struct lh_rows rows = {
        .name = s->name,
        .row = s->row + at->row,
        .rows = n,
        .cols = s->cols,
        .updates = f->updates[at->segment],
        .w = f->w + first,
        .m = s->trained ? f->m + first : NULL,
        .v = s->trained ? f->v + first : NULL,
        .target = s->has_target ? f->target + first : NULL,
    };
    at->row += n;
    if (at->row == s->rows) {
        at->segment++;
        at->row = 0;
    }
    return rows;
}

static int put_rows(const struct lh_store *st, MDB_txn *txn, uint64_t version,
                    const struct lh_rows *rows, struct place *at)
{
    struct lh_store_key key;
    LH_TRY(lh_store_block_key(&key, version, rows->name, rows->row));
    const unsigned arrays = LH_STORE_BLOCK_W | (rows->m ? LH_STORE_BLOCK_M : 0) |
                            (rows->v ? LH_STORE_BLOCK_V : 0) |
                            (rows->target ? LH_STORE_BLOCK_TARGET : 0);
    const size_t size = lh_store_block_size(rows->rows, rows->cols, arrays);
    if (size > UINT32_MAX)
        return lh_err_set(LH_ERANGE, "%s: a row of %s has %zu bytes, a store takes 4 GiB", st->dir,
                          rows->name, size);
    MDB_val k = key_val(&key), v = {size, NULL};
    int rc = mdb_put(txn, st->dbi, &k, &v, MDB_RESERVE);
    if (rc == 0)
        lh_store_block_write(v.mv_data, &key, rows);
    at->blocks++;
    at->bytes += size;
    return rc;
}

/* One transaction's worth of blocks. */
static int put_batch(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    struct prepare *p = ctx;
    p->next = p->at;
    while (p->next.segment < p->frozen->range->n_segments &&
           p->next.bytes - p->at.bytes < BATCH_BYTES) {
        const struct lh_rows rows = next_rows(p->frozen, &p->next);
        int rc = put_rows(st, txn, p->frozen->version, &rows, &p->next);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int put_prepared(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    const struct prepare *p = ctx;
    const struct lh_shard_range *r = p->frozen->range;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const struct lh_store_meta meta = {
        .state = LH_STORE_PREPARED,
        .shard = r->shard,
        .shards = r->shards,
        .job_digest = st->id.job_digest,
        .layout_digest = r->digest,
        .flat_size = r->flat_size,
        .lo = r->lo,
        .hi = r->hi,
        .blocks = p->at.blocks,
        .bytes = p->at.bytes,
        .wall_time_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000,
    };
    return put_meta(st, txn, p->frozen->version, &meta);
}

struct lookup {
    uint64_t version;
    int found;
    struct lh_store_meta meta;
};

static int look_up(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    struct lookup *x = ctx;
    int rc = get_meta(st, txn, x->version, &x->meta);
    x->found = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int prepare(struct lh_store *st, const struct lh_frozen *frozen)
{
    static const char doing[] = "a checkpoint cannot be written";
    struct prepare p = {.frozen = frozen};
    struct lookup x = {.version = frozen->version};
    struct sweep orphans = {.orphans_only = 1};
    if (st->read_only)
        return lh_err_set(LH_EINTERNAL, "%s: %s: it is open for reading only", st->dir, doing);
    LH_TRY(lh_store_txn_read(st, look_up, &x, "cannot be read"));
    if (x.found)
        return 0;
    LH_TRY(lh_store_txn_write(st, sweep, &orphans, doing));
    while (p.at.segment < frozen->range->n_segments) {
        LH_TRY(lh_store_txn_write(st, put_batch, &p, doing));
        p.at = p.next;
    }
    return lh_store_txn_write(st, put_prepared, &p, doing);
}

int lh_store_prepare(struct lh_store *st, const struct lh_frozen *frozen)
{
    pthread_mutex_lock(&st->mutex);
    int rc = prepare(st, frozen);
    pthread_mutex_unlock(&st->mutex);
    return rc;
}

static int put_committed(struct lh_store *st, MDB_txn *txn, void *ctx)
{
    struct lookup *x = ctx;
    int rc = get_meta(st, txn, x->version, &x->meta);
    if (rc == MDB_NOTFOUND)
        return no_version(st, x->version);
    if (rc != 0)
        return rc;
    x->meta.state = LH_STORE_COMMITTED;
    return put_meta(st, txn, x->version, &x->meta);
}

int lh_store_commit(struct lh_store *st, uint64_t version)
{
    struct lookup x = {.version = version};
    pthread_mutex_lock(&st->mutex);
    int rc = lh_store_txn_write(st, put_committed, &x, "a checkpoint cannot be committed");
    pthread_mutex_unlock(&st->mutex);
    return rc;
}

/* --- reading --------------------------------------------------------------------------------- */

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
    k = key_val(&from);
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
        k = key_val(&from);
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
    k = key_val(&from);
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
    int rc = get_meta(st, txn, x->version, &meta);
    if (rc == MDB_NOTFOUND)
        return no_version(st, x->version);
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
