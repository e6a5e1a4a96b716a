/* Transactions on a store: locks, LMDB's life, and what its failures mean. See store_internal.h. */
#include "common/err.h"
#include "common/mem.h"
#include "ps/store_internal.h"
#include "ps/store_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAP_FIRST  ((size_t)64 << 20) /* bytes of address space; doubled when it is full */
#define FULL_BELOW ((size_t)64 << 20) /* free bytes of a disk that count as none */
#define LOCK_WAIT  30.0               /* seconds for a reader or writer to let go */

/* --- failures -------------------------------------------------------------------------------- */

int lh_store_txn_fail(const char *where, int rc, const char *doing)
{
    if (rc > 0)
        return lh_err_errno(rc, "%s: %s", where, doing);
    if (rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID || rc == MDB_PANIC)
        return lh_err_set(LH_ECORRUPT,
                          "%s: %s: the file is damaged (%s); restore it from a copy, or start the "
                          "run anew",
                          where, doing, mdb_strerror(rc));
    return lh_err_set(LH_EINTERNAL, "%s: %s: %s", where, doing, mdb_strerror(rc));
}

/* LMDB reports a full disk as ENOSPC or, after a short write, as EIO. */
int lh_store_txn_fail_write(const char *where, int rc, const char *doing)
{
    struct statvfs fs;
    if (rc == ENOSPC || rc == EDQUOT ||
        (rc == EIO && statvfs(where, &fs) == 0 && fs.f_bavail < FULL_BELOW / fs.f_frsize))
        return lh_err_set(LH_ENOSPC,
                          "%s: %s: the disk is full; what was written before is intact: free some "
                          "space and try again",
                          where, doing);
    if (rc == EIO)
        return lh_err_set(LH_EIO,
                          "%s: %s: the system refused to write (input/output error, or a limit on "
                          "the size of files); what was written before is intact",
                          where, doing);
    return lh_store_txn_fail(where, rc, doing);
}

/* LMDB's codes are positive or below -30000, ours negative above: one int carries both. */
static int is_ours(int rc)
{
    return rc < 0 && rc > -1000;
}

/* --- locks ----------------------------------------------------------------------------------- */

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* flock that gives up. */
int lh_store_txn_lock(const struct lh_store *st, int fd, int how)
{
    const double until = now_seconds() + LOCK_WAIT;
    while (flock(fd, how | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return lh_err_errno(errno, "%s: cannot be locked", st->data);
        if (now_seconds() > until)
            return lh_err_set(LH_EBUSY,
                              "%s: somebody has been %s it for %.0f seconds; find and stop that "
                              "process (fuser names it)",
                              st->data, how == LOCK_EX ? "reading" : "writing", LOCK_WAIT);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return 0;
}

/* Takes DIR/lock and leaves our process id in it, for the sentence of the next who tries: where the
 * last one is, which a full disk has room for. One that cannot be written is no reason to stop. */
int lh_store_txn_serve(struct lh_store *st)
{
    int rc = 0;
    char *path = NULL, pid[32] = "";
    LH_TRY(lh_mem_printf(&path, "%s/lock", st->dir));
    st->serving = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (st->serving < 0) {
        rc = lh_err_errno(errno, "%s: cannot be opened", path);
    } else if (flock(st->serving, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            rc = lh_err_errno(errno, "%s: cannot be locked", path);
        } else {
            ssize_t n = pread(st->serving, pid, sizeof pid - 1, 0);
            pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
            rc = lh_err_set(LH_EBUSY,
                            "%s: is served by another server already (process %s); stop it, or use "
                            "another run directory",
                            st->dir, *pid ? pid : "unknown");
        }
    } else {
        int n = snprintf(pid, sizeof pid, "%-20ld\n", (long)getpid());
        if (pwrite(st->serving, pid, (size_t)n, 0) != n && ftruncate(st->serving, 0) != 0) {
            /* then another's stays, and is named */
        }
    }
    lh_mem_free(path);
    return rc;
}

/* --- the environment ------------------------------------------------------------------------- */

int lh_store_txn_open(struct lh_store *st)
{
    int rc;
    MDB_txn *txn = NULL;
    struct stat file;
    const unsigned flags = MDB_NOLOCK | (st->read_only ? MDB_RDONLY : 0);
    const size_t size = stat(st->data, &file) == 0 ? (size_t)file.st_size : 0;
    st->broken = 1; /* until it is open */
    if (size > 0 || st->read_only)
        LH_TRY(lh_store_pages_check(st->data));
    while (st->map_size < MAP_FIRST || st->map_size / 2 < size)
        st->map_size = st->map_size < MAP_FIRST ? MAP_FIRST : st->map_size * 2;
    if ((rc = mdb_env_create(&st->env)) == 0 &&
        (rc = mdb_env_set_mapsize(st->env, st->map_size)) == 0 &&
        (rc = mdb_env_open(st->env, st->dir, flags, 0666)) == 0 &&
        (rc = mdb_txn_begin(st->env, NULL, MDB_RDONLY, &txn)) == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &st->dbi);
        mdb_txn_abort(txn);
    }
    st->broken = rc != 0;
    return rc == 0 ? 0 : lh_store_txn_fail(st->dir, rc, "cannot be opened");
}

void lh_store_txn_close(struct lh_store *st)
{
    if (st->env)
        mdb_env_close(st->env);
    st->env = NULL;
}

/* A file that was deleted, or moved, can be written as long as it is open, and nobody finds it. */
static int still_there(const struct lh_store *st, const char *doing)
{
    struct stat ours, found;
    if (fstat(st->data_fd, &ours) == 0 && stat(st->data, &found) == 0 &&
        ours.st_dev == found.st_dev && ours.st_ino == found.st_ino)
        return 0;
    return lh_err_set(
        LH_EIO,
        "%s: %s: it was deleted, moved or replaced while a server has it open; put it "
        "back, or begin the run anew",
        st->data, doing);
}

static int reopen(struct lh_store *st, const char *doing)
{
    LH_TRY(still_there(st, doing));
    lh_store_txn_close(st);
    return lh_store_txn_open(st);
}

static int write_once(struct lh_store *st, lh_store_body run, void *ctx)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(st->env, NULL, 0, &txn);
    if (rc == 0 && (rc = run(st, txn, ctx)) != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    st->broken = rc != 0;
    return rc;
}

/* Runs `run` in a durable write transaction. */
int lh_store_txn_write(struct lh_store *st, lh_store_body run, void *ctx, const char *doing)
{
    if (st->read_only)
        return lh_err_set(LH_EINTERNAL, "%s: %s: it is open for reading only", st->dir, doing);
    LH_TRY(lh_store_txn_lock(st, st->data_fd, LOCK_EX));
    int rc = st->broken ? reopen(st, doing) : still_there(st, doing);
    while (rc == 0) {
        rc = write_once(st, run, ctx);
        if (rc != MDB_MAP_FULL)
            break;
        st->map_size *= 2;
        rc = mdb_env_set_mapsize(st->env, st->map_size);
    }
    flock(st->data_fd, LOCK_UN);
    return rc == 0 || is_ours(rc) ? rc : lh_store_txn_fail_write(st->dir, rc, doing);
}

int lh_store_txn_read(struct lh_store *st, lh_store_body run, void *ctx, const char *doing)
{
    MDB_txn *txn = NULL;
    if (st->broken)
        LH_TRY(reopen(st, doing));
    int rc = mdb_txn_begin(st->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0)
        rc = run(st, txn, ctx);
    if (txn)
        mdb_txn_abort(txn);
    return rc == 0 || is_ours(rc) ? rc : lh_store_txn_fail(st->dir, rc, doing);
}
