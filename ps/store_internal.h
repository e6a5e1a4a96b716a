/* What store.c, store_read.c and store_txn.c share: the handle, records, and transactions.
 *
 * LMDB runs without its own lock file: that one lives in shared memory, outlives killed processes
 * and must not be opened twice in one process, where all servers of a local run live. Instead
 *   DIR/lock       is locked by the one server of the store, for as long as it has it open;
 *   DIR/data.mdb   is locked shared by a reader while it has the store open, and exclusively by
 *                  the server around each write transaction.
 * So no reader ever sees a page that a writer takes back. Several threads of the server's process
 * share its handle under a mutex. */
#pragma once

#include "ps/store.h"
#include "ps/store_block.h"

#include <lmdb.h>
#include <pthread.h>
#include <stddef.h>

struct lh_store {
    char *dir, *data; /* data: DIR/data.mdb */
    struct lh_store_id id;
    int read_only, broken; /* broken: a commit failed, LMDB wants to be opened anew */
    int serving, data_fd;  /* descriptors that hold the locks; -1 */
    MDB_env *env;
    MDB_dbi dbi;
    size_t map_size;
    pthread_mutex_t mutex; /* held by the public calls */
};

static inline MDB_val lh_store_key_val(struct lh_store_key *key)
{
    return (MDB_val){.mv_size = key->n, .mv_data = key->bytes};
}

/* The meta record of a version. 0, MDB_NOTFOUND, or an error. */
int lh_store_get_meta(const struct lh_store *st, MDB_txn *txn, uint64_t version,
                      struct lh_store_meta *out);
/* LH_ENOENT with its sentence. */
int lh_store_no_version(const struct lh_store *st, uint64_t version);

/* What a transaction does. Returns 0, one of LMDB's codes (positive, or below -30000), or one of
 * ours with its sentence. May run more than once, on a larger map each time, so it must not leave
 * anything half done outside. */
typedef int (*lh_store_body)(struct lh_store *st, MDB_txn *txn, void *ctx);

/* Runs `run` in a durable write transaction, or a read one. `doing` reads behind the store's name
 * in sentences: "a checkpoint cannot be written". */
int lh_store_txn_write(struct lh_store *st, lh_store_body run, void *ctx, const char *doing);
int lh_store_txn_read(struct lh_store *st, lh_store_body run, void *ctx, const char *doing);

/* A sentence for what LMDB returned about the file or directory `where`, and its code. `doing`
 * reads behind the name: "cannot be opened". The second also knows how a full disk shows. */
int lh_store_txn_fail(const char *where, int rc, const char *doing);
int lh_store_txn_fail_write(const char *where, int rc, const char *doing);

/* Opens LMDB, after a look over its pages; the caller holds the lock that this needs. */
int lh_store_txn_open(struct lh_store *st);
void lh_store_txn_close(struct lh_store *st);

/* flock of fd (on data.mdb), LOCK_SH or LOCK_EX; gives up with LH_EBUSY after half a minute. */
int lh_store_txn_lock(const struct lh_store *st, int fd, int how);
/* Takes DIR/lock, or LH_EBUSY naming the process that has it. */
int lh_store_txn_serve(struct lh_store *st);
