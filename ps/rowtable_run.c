/* A run of rows: LMDB under one file, without its locks and without its waiting for the disk. A
 * crash leaves an unsealed run in any state, which is why nobody ever opens one again. See
 * rowtable_run.h. */
#include "ps/rowtable_run.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/store_internal.h"
#include "ps/store_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_FIRST   ((size_t)16 << 20) /* bytes of address space; doubled when it is full */
#define BATCH_BYTES ((size_t)8 << 20)  /* of a transaction: what it holds in memory */

enum { PAGE = 4096, MAIN = 1 /* LMDB's number of the database without a name */ };

struct lh_rowtable_run {
    struct lh_rowtable_run_ref ref;
    char *path;
    uint32_t dim;
    bool sealed;
    MDB_env *env;
    MDB_txn *reading;          /* NULL until something is read */
    bool begun;                /* it shows what was put last */
    MDB_cursor *found, *going; /* of get; of seek and next */
    size_t map_size;
    uint64_t largest; /* id put; of any */
    bool any;
    struct lh_rowtable_filter *filter; /* of all ids in it; NULL: none */
};

static const char cannot_read[] = "rows cannot be read";
static const char cannot_write[] = "rows cannot be written";

/* --- files ----------------------------------------------------------------------------------- */

static int path_of(char **out, const char *dir, uint64_t number)
{
    return lh_mem_printf(out, "%s/r%" PRIu64 ".mdb", dir, number);
}

bool lh_rowtable_run_is_name(const char *name, uint64_t *number)
{
    char again[32];
    if (sscanf(name, "r%20" SCNu64 ".mdb", number) != 1)
        return false;
    snprintf(again, sizeof again, "r%" PRIu64 ".mdb", *number);
    return strcmp(name, again) == 0;
}

int lh_rowtable_run_sync(const char *dir, uint64_t number)
{
    char *path = NULL;
    LH_TRY(path_of(&path, dir, number));
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        rc = lh_err_errno(errno, "%s: cannot be opened", path);
    else if (fsync(fd) != 0)
        rc = lh_store_txn_fail_write(path, errno, cannot_write);
    if (fd >= 0)
        close(fd);
    lh_mem_free(path);
    return rc;
}

int lh_rowtable_run_remove(const char *dir, uint64_t number)
{
    char *path = NULL;
    LH_TRY(path_of(&path, dir, number));
    int rc = unlink(path) == 0 || errno == ENOENT
                 ? 0
                 : lh_err_errno(errno, "%s: cannot be removed", path);
    lh_mem_free(path);
    return rc;
}

/* --- LMDB's life ----------------------------------------------------------------------------- */

static void close_env(struct lh_rowtable_run *run)
{
    if (run->going)
        mdb_cursor_close(run->going);
    if (run->found)
        mdb_cursor_close(run->found);
    if (run->reading)
        mdb_txn_abort(run->reading);
    if (run->env)
        mdb_env_close(run->env);
    run->going = run->found = NULL;
    run->reading = NULL;
    run->begun = false;
    run->env = NULL;
}

static int open_env(struct lh_rowtable_run *run, unsigned flags)
{
    int rc;
    /* Rows are asked for at random: reading ahead would fetch, and push out, what nobody wants. */
    flags |= MDB_NOSUBDIR | MDB_NOLOCK | MDB_NORDAHEAD;
    if ((rc = mdb_env_create(&run->env)) != 0 ||
        (rc = mdb_env_set_mapsize(run->env, run->map_size)) != 0 ||
        (rc = mdb_env_open(run->env, run->path, flags, 0666)) != 0) {
        close_env(run);
        return lh_store_txn_fail_write(run->path, rc, "cannot be opened");
    }
    return 0;
}

static int begin_anew(struct lh_rowtable_run *run)
{
    MDB_dbi dbi;
    int rc;
    if ((rc = mdb_txn_begin(run->env, NULL, MDB_RDONLY, &run->reading)) == 0 &&
        (rc = mdb_dbi_open(run->reading, NULL, 0, &dbi)) == 0 &&
        (rc = mdb_cursor_open(run->reading, MAIN, &run->found)) == 0)
        rc = mdb_cursor_open(run->reading, MAIN, &run->going);
    return rc;
}

static int begin_again(struct lh_rowtable_run *run)
{
    int rc;
    if ((rc = mdb_txn_renew(run->reading)) == 0 &&
        (rc = mdb_cursor_renew(run->reading, run->found)) == 0)
        rc = mdb_cursor_renew(run->reading, run->going);
    return rc;
}

/* Makes what is there readable. */
static int begin(struct lh_rowtable_run *run)
{
    if (run->begun)
        return 0;
    if (!run->env) /* a failed write could not open it again */
        LH_TRY(open_env(run, MDB_NOSYNC));
    int rc = run->reading ? begin_again(run) : begin_anew(run);
    if (rc != 0) {
        close_env(run);
        return lh_store_txn_fail(run->path, rc, cannot_read);
    }
    run->begun = true;
    return 0;
}

static int make(struct lh_rowtable_run **out, const char *dir, uint64_t number, uint32_t dim)
{
    struct lh_rowtable_run *run = NULL;
    LH_TRY(LH_NEW(&run, "rows of a table"));
    run->ref.number = number;
    run->dim = dim;
    run->map_size = MAP_FIRST;
    int rc = path_of(&run->path, dir, number);
    if (rc < 0)
        lh_rowtable_run_close(&run);
    *out = run;
    return rc;
}

int lh_rowtable_run_create(struct lh_rowtable_run **out, const char *dir, uint64_t number,
                           uint32_t dim, struct lh_rowtable_filter_room *room, size_t n)
{
    struct lh_rowtable_run *run = NULL;
    LH_TRY(lh_rowtable_run_remove(dir, number));
    LH_TRY(make(&run, dir, number, dim));
    run->filter = room ? lh_rowtable_filter_create(room, n) : NULL;
    int rc = open_env(run, MDB_NOSYNC);
    if (rc < 0)
        lh_rowtable_run_close(&run);
    else
        *out = run;
    return rc;
}

void lh_rowtable_run_close(struct lh_rowtable_run **out)
{
    struct lh_rowtable_run *run = *out;
    if (!run)
        return;
    close_env(run);
    lh_rowtable_filter_destroy(&run->filter);
    lh_mem_free(run->path);
    lh_mem_free(run);
    *out = NULL;
}

const struct lh_rowtable_run_ref *lh_rowtable_run_ref(const struct lh_rowtable_run *run)
{
    return &run->ref;
}

/* --- writing --------------------------------------------------------------------------------- */

static int put_row(struct lh_rowtable_run *run, MDB_txn *txn, const struct lh_rowtable_record *row)
{
    unsigned char key[LH_ROWTABLE_BLOCK_KEY];
    MDB_val k = {sizeof key, key}, v = {lh_rowtable_block_size(row, run->dim), NULL};
    const bool last = !run->any || row->id > run->largest;
    lh_rowtable_block_key(key, row->id);
    int rc = mdb_put(txn, MAIN, &k, &v, MDB_RESERVE | (last ? MDB_APPEND : 0));
    if (rc != 0)
        return rc;
    lh_rowtable_block_write(v.mv_data, row, run->dim);
    lh_rowtable_filter_add(&run->filter, row->id);
    run->largest = last ? row->id : run->largest;
    run->any = true;
    return 0;
}

static int put_batch(struct lh_rowtable_run *run, const struct lh_rowtable_record *rows, size_t n)
{
    MDB_txn *txn = NULL;
    MDB_stat there = {0};
    MDB_dbi dbi;
    const uint64_t largest = run->largest;
    const bool any = run->any;
    int rc = mdb_txn_begin(run->env, NULL, 0, &txn);
    if (rc == 0)
        rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = put_row(run, txn, &rows[i]);
    if (rc == 0)
        rc = mdb_stat(txn, MAIN, &there);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else if (txn)
        mdb_txn_abort(txn);
    if (rc == 0) {
        run->ref.records = there.ms_entries;
    } else {
        run->largest = largest;
        run->any = any;
    }
    return rc;
}

/* LMDB wants a handle whose commit failed to be opened anew; the file is as it was before. */
static int recover(struct lh_rowtable_run *run, int rc)
{
    struct lh_err why;
    lh_err_save(&why, rc);
    close_env(run);
    LH_TRY(open_env(run, MDB_NOSYNC));
    return lh_err_load(&why);
}

int lh_rowtable_run_put(struct lh_rowtable_run *run, const struct lh_rowtable_record *rows,
                        size_t n)
{
    const size_t each = LH_ROWTABLE_BLOCK_HEADER + (size_t)3 * run->dim * sizeof(float);
    const size_t most = BATCH_BYTES / (each > PAGE ? each : PAGE) + 1;
    int rc = 0;
    if (!run->env)
        LH_TRY(open_env(run, MDB_NOSYNC));
    if (run->begun)
        mdb_txn_reset(run->reading);
    run->begun = false;
    for (size_t at = 0, m; at < n && rc == 0; at += m) {
        m = n - at < most ? n - at : most;
        while ((rc = put_batch(run, rows + at, m)) == MDB_MAP_FULL) {
            run->map_size *= 2;
            if ((rc = mdb_env_set_mapsize(run->env, run->map_size)) != 0)
                break;
        }
    }
    return rc == 0 ? 0 : recover(run, lh_store_txn_fail_write(run->path, rc, cannot_write));
}

/* --- reading --------------------------------------------------------------------------------- */

static int read_at(struct lh_rowtable_run *run, MDB_cursor *c, MDB_val k, MDB_cursor_op op,
                   struct lh_rowtable_record *out)
{
    MDB_val v;
    int rc = mdb_cursor_get(c, &k, &v, op);
    if (rc == MDB_NOTFOUND)
        return LH_NOTFOUND;
    if (rc != 0)
        return lh_store_txn_fail(run->path, rc, cannot_read);
    if (k.mv_size != LH_ROWTABLE_BLOCK_KEY)
        return lh_err_set(LH_ECORRUPT,
                          "%s: has a key of %zu bytes; the file is damaged: restore it from a "
                          "copy, or start the run anew",
                          run->path, k.mv_size);
    rc = lh_rowtable_block_read(out, lh_rowtable_block_id(k.mv_data), v.mv_data, v.mv_size,
                                run->dim);
    return rc < 0 ? lh_err_prefix(rc, "%s", run->path) : 0;
}

int lh_rowtable_run_get(struct lh_rowtable_run *run, uint64_t id, struct lh_rowtable_record *out)
{
    unsigned char key[LH_ROWTABLE_BLOCK_KEY];
    if (run->filter && !lh_rowtable_filter_may_have(run->filter, id))
        return LH_NOTFOUND;
    lh_rowtable_block_key(key, id);
    LH_TRY(begin(run));
    return read_at(run, run->found, (MDB_val){sizeof key, key}, MDB_SET, out);
}

int lh_rowtable_run_seek(struct lh_rowtable_run *run, uint64_t id, struct lh_rowtable_record *out)
{
    unsigned char key[LH_ROWTABLE_BLOCK_KEY];
    lh_rowtable_block_key(key, id);
    LH_TRY(begin(run));
    return read_at(run, run->going, (MDB_val){sizeof key, key}, MDB_SET_RANGE, out);
}

int lh_rowtable_run_next(struct lh_rowtable_run *run, struct lh_rowtable_record *out)
{
    LH_TRY(begin(run));
    return read_at(run, run->going, (MDB_val){0, NULL}, MDB_NEXT, out);
}

/* --- sealed runs ----------------------------------------------------------------------------- */

/* Every row can be read, in order: else a lookup would take a damaged key for one that is not
 * there. */
static int check_rows(struct lh_rowtable_run *run)
{
    struct lh_rowtable_record row;
    uint64_t n = 0;
    int rc = lh_rowtable_run_seek(run, 0, &row);
    for (; rc == 0; rc = lh_rowtable_run_next(run, &row)) {
        lh_rowtable_filter_add(&run->filter, row.id);
        n++;
    }
    LH_TRY(rc);
    return n == run->ref.records ? 0
                                 : lh_err_set(LH_ECORRUPT,
                                              "%s: has %" PRIu64 " rows, its version says %" PRIu64
                                              "; the file is damaged: restore it from a copy, or "
                                              "start the run anew",
                                              run->path, n, run->ref.records);
}

/* Opens what is sealed, or was found. `ref` says what it must be. */
static int open_sealed(struct lh_rowtable_run *run, const struct lh_rowtable_run_ref *ref,
                       bool check)
{
    struct stat st;
    if (stat(run->path, &st) != 0)
        return lh_err_errno(errno, "%s: cannot be opened", run->path);
    if ((uint64_t)st.st_size != ref->bytes)
        return lh_err_set(LH_ECORRUPT,
                          "%s: has %lld bytes, its version says %" PRIu64 "; the file is damaged: "
                          "restore it from a copy, or start the run anew",
                          run->path, (long long)st.st_size, ref->bytes);
    if (check)
        LH_TRY(lh_store_pages_check(run->path));
    while (run->map_size < ref->bytes)
        run->map_size *= 2;
    LH_TRY(open_env(run, MDB_RDONLY));
    run->ref = *ref;
    run->sealed = true;
    LH_TRY(begin(run));
    return check ? check_rows(run) : 0;
}

int lh_rowtable_run_open(struct lh_rowtable_run **out, const char *dir,
                         const struct lh_rowtable_run_ref *ref, uint32_t dim, bool check,
                         struct lh_rowtable_filter_room *room)
{
    struct lh_rowtable_run *run = NULL;
    LH_TRY(make(&run, dir, ref->number, dim));
    run->filter = check && room ? lh_rowtable_filter_create(room, ref->records) : NULL;
    int rc = open_sealed(run, ref, check);
    if (rc < 0)
        lh_rowtable_run_close(&run);
    else
        *out = run;
    return rc;
}

int lh_rowtable_run_seal(struct lh_rowtable_run *run)
{
    struct stat st;
    struct lh_rowtable_run_ref ref = run->ref;
    if (run->sealed)
        return 0;
    close_env(run);
    if (stat(run->path, &st) != 0)
        return lh_err_errno(errno, "%s: cannot be opened", run->path);
    ref.bytes = (uint64_t)st.st_size;
    return open_sealed(run, &ref, false);
}
