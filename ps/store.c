/* The store as its server writes it: row blocks, the two phases, pruning. Reading is store_read.c;
 * see store.h for what a version is, store_block.h for the bytes, store_internal.h for locks and
 * transactions. */
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

int lh_store_get_meta(const struct lh_store *st, MDB_txn *txn, uint64_t version,
                      struct lh_store_meta *out)
{
    struct lh_store_key key = lh_store_block_meta_key(version);
    MDB_val k = lh_store_key_val(&key), v;
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
    MDB_val k = lh_store_key_val(&key), v = {sizeof bytes, bytes};
    return mdb_put(txn, st->dbi, &k, &v, 0);
}

int lh_store_no_version(const struct lh_store *st, uint64_t version)
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
    MDB_val k = lh_store_key_val(&key), v = {size, NULL};
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
    int rc = lh_store_get_meta(st, txn, x->version, &x->meta);
    x->found = rc == 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static const char writing[] = "a checkpoint cannot be written";

/* Deletes blocks of versions that do not exist. */
static int sweep_orphans(struct lh_store *st)
{
    struct sweep orphans = {.orphans_only = 1};
    return lh_store_txn_write(st, sweep, &orphans, writing);
}

static int put_version(struct lh_store *st, struct prepare *p)
{
    while (p->at.segment < p->frozen->range->n_segments) {
        LH_TRY(lh_store_txn_write(st, put_batch, p, writing));
        p->at = p->next;
    }
    return lh_store_txn_write(st, put_prepared, p, writing);
}

static int prepare(struct lh_store *st, const struct lh_frozen *frozen)
{
    struct prepare p = {.frozen = frozen};
    struct lookup x = {.version = frozen->version};
    if (st->read_only)
        return lh_err_set(LH_EINTERNAL, "%s: %s: it is open for reading only", st->dir, writing);
    LH_TRY(lh_store_txn_read(st, look_up, &x, "cannot be read"));
    if (x.found)
        return 0;
    LH_TRY(sweep_orphans(st));
    int rc = put_version(st, &p);
    if (rc < 0) { /* what got there goes again; where not even that can be written, the next time */
        struct lh_err err;
        lh_err_save(&err, rc);
        sweep_orphans(st);
        rc = lh_err_load(&err);
    }
    return rc;
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
    int rc = lh_store_get_meta(st, txn, x->version, &x->meta);
    if (rc == MDB_NOTFOUND)
        return lh_store_no_version(st, x->version);
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
