/* A table: one server's rows of an embedding table, without a socket. As a shard (shard.h) it is a
 * state machine: it gathers the gradient tree of the current step, here of row lists, and when the
 * root is whole it updates those rows and becomes the next version. TABLES.md tells how rows lie in
 * memory and on disk.
 *
 * Version v is the state after v steps: a pure function of seed and gradients. It depends neither
 * on the order of arrival, nor on how many servers share the table, nor on what is cached or when
 * something was written (DESIGN.md, invariant 1).
 *
 * A row nobody has updated is not stored: it has its initial value (common/rowlist.h), which is a
 * function of seed, name and id. So rows may appear in any order.
 *
 * Adam is lazy: only rows that the root names are touched; the moments of others do not decay. A
 * row counts its own updates for the bias correction, so that its first update has the length of
 * the learning rate whenever it comes; with the table's count, as PyTorch's SparseAdam does it, a
 * row that appears late would begin with steps sqrt(1 - beta2) / (1 - beta1) times as long.
 *
 * A row is *seen* in a step whose root has its id, whatever the gradient.
 *   admit_after N   a row is updated from the N-th step on in which it is seen; before, its
 *                   gradients are dropped and it has its initial value. Counted exactly.
 *   evict_after A   a row not seen in the last A steps is as if it had never been seen: initial
 *                   value, no moments, no count.
 *
 * One thread drives a table. Only lh_rowtable_prepare, lh_rowtable_thaw and lh_rowtable_prune may
 * be called from others, from one at a time. */
#pragma once

#include "ps/rowtable_reduce.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_rowtable;

struct lh_rowtable_spec {
    const char *name; /* letters, digits, '_', '-', '.', not first a '.'; at most 100; copied */
    uint32_t dim;     /* elements of a row; 1 to 65536 */
    uint64_t seed;    /* the job's */
    double init_scale;
    double learning_rate, beta1, beta2, epsilon; /* Adam */
    uint32_t admit_after;                        /* steps; 0 or 1: at once */
    uint64_t evict_after;                        /* steps; 0: never */
    uint32_t shard, shards;                      /* this is shard `shard` of `shards` */
    uint32_t leaves;                             /* K, micro-batches of a step */
    bool each;           /* a step is one worker's own: its sum is gathered by ps/flight.h, none is
                            pushed here */
    size_t max_ids;      /* different ids a step can name at most, on all shards */
    size_t cache_bytes;  /* of rows held in memory, with what finds them; at least 64 rows are */
    uint64_t job_digest; /* another job's files are refused */
};

/* DIR is the server's store directory (store.h), whose lock the caller holds: the table's files lie
 * in DIR/tables/NAME, which is made. What a killed server left there and no version needs is
 * removed. The table has no version until it is initialised or restored. Allocates the cache.
 * Errors: LH_ERANGE for a spec that makes no sense; LH_ENOMEM; LH_EIO, LH_EACCES, LH_ENOSPC. */
int lh_rowtable_create(struct lh_rowtable **out, const struct lh_rowtable_spec *spec,
                       const char *dir);
/* What was not prepared is lost. */
void lh_rowtable_destroy(struct lh_rowtable **t);

/* Version 0: every row has its initial value. */
int lh_rowtable_init(struct lh_rowtable *t);
/* Version `version` of a cut, from the store directories of all its shards, of any number, in their
 * order; this table's own may be among them. With the same number of shards, nothing is copied.
 * Errors: LH_ENOENT, LH_ECORRUPT, LH_EMISMATCH naming the file; LH_ENOSPC, LH_EIO. */
int lh_rowtable_restore(struct lh_rowtable *t, uint64_t version, const char *const *dirs,
                        size_t n_dirs);

uint64_t lh_rowtable_version(const struct lh_rowtable *t);

/* The rows of n ascending, unique ids at the current version, to rows [n, dim]. ids [n] u64 and
 * rows may be unaligned.
 * Errors: LH_EPROTO for ids that do not ascend or belong to another shard; LH_EIO, LH_ECORRUPT,
 * LH_ENOSPC (a changed row had to make room). Allocates nothing when warm. */
int lh_rowtable_pull(struct lh_rowtable *t, const void *ids, size_t n, void *rows);
/* The same of the version before, for who has to compute its step once more since another server
 * has lost it. LH_NOTFOUND where there is none: no step was made here yet. */
int lh_rowtable_pull_before(struct lh_rowtable *t, const void *ids, size_t n, void *rows);

/* A piece of a node's sum arrives. Returns 0: something was taken; LH_AGAIN: nothing new (known
 * already, or of an earlier step). Errors: LH_EPROTO for a step ahead of the version, ids of
 * another shard, and as lh_rowtable_reduce_add. */
int lh_rowtable_push(struct lh_rowtable *t, uint64_t step, struct lh_tree_node node,
                     const struct lh_rowtable_piece *piece);

/* Whether the ids of a piece may be pushed here: 0, or LH_EPROTO. */
int lh_rowtable_check_ids(const struct lh_rowtable *t, const struct lh_rowtable_piece *piece);

/* How much of a leaf of the current step has come. */
enum lh_reduce_leaf lh_rowtable_leaf(const struct lh_rowtable *t, uint32_t leaf);

/* The summed gradient of the current step once its root is whole, else NULL; until advance. */
const struct lh_rowlist *lh_rowtable_gradient(const struct lh_rowtable *t);

/* Whether the root, which must be whole, can be applied: 0, or LH_EDIVERGED naming table, id and
 * step if an element is not below 2^64 in magnitude. For a server that has to know this of all its
 * tables and its shard before it lets any of them advance; lh_rowtable_advance asks itself, too. */
int lh_rowtable_check(const struct lh_rowtable *t);

/* If the root of the current step is whole: applies it, version becomes + 1, *applied = 1. Else
 * *applied = 0. The rows of a step need not fit in the cache.
 * Errors: LH_EDIVERGED: nothing is applied. LH_EIO, LH_ECORRUPT, LH_ENOSPC: the version stays, but
 * some rows have changed already; the next call goes on with the others, nothing else may be
 * called. */
int lh_rowtable_advance(struct lh_rowtable *t, int *applied);

/* The same for a sum that was gathered elsewhere, of step `step`. */
int lh_rowtable_check_sum(const struct lh_rowtable *t, uint64_t step, const struct lh_rowlist *sum);
int lh_rowtable_apply(struct lh_rowtable *t, uint64_t step, const struct lh_rowlist *sum);

/* --- cuts --------------------------------------------------------------------------------------
 * As a shard's and a store's: freeze at a version, settle it in between other things, prepare in
 * another thread, thaw, go on meanwhile. A version is complete or not there; run.json decides which
 * ones are cuts, as for the store, so there is no commit. A server prepares its tables before its
 * store: a version that the store has, its tables have.
 * The cost is that of the rows changed since the last freeze, not of the table; no call takes
 * longer the more rows that are. */

/* Sets the current version aside. Its changed rows may still be in memory only: those that change
 * again are copied, or written, before they do. LH_AGAIN while the last is not thawed, or not
 * settled. Errors: LH_ENOSPC, LH_EIO, LH_ENOMEM: the version is not frozen, the table unchanged. */
int lh_rowtable_freeze(struct lh_rowtable *t);
/* Writes a slice of the version that was frozen, a megabyte at most, without waiting for the disk.
 * LH_AGAIN: there is more; 0: it can be prepared. Errors: LH_ENOSPC, LH_EIO, LH_ENOMEM, also of
 * what was written in between: the version is given up, as if it had not been frozen; the table is
 * what it is. */
int lh_rowtable_settle(struct lh_rowtable *t);
/* Gives up a version that was frozen and is with nobody who prepares it. None is fine. */
void lh_rowtable_abandon(struct lh_rowtable *t);
/* Makes the frozen version durable. Any thread. Idempotent. Errors: LH_ENOSPC, LH_EIO; earlier
 * versions are intact; may be called again. */
int lh_rowtable_prepare(struct lh_rowtable *t);
/* Then, before the thaw: where so many files have piled up that finding a row would become slow,
 * merges some of them, for the next freeze to take over. Any thread. Failure is told (common/log.h)
 * and harmless. */
void lh_rowtable_tidy(struct lh_rowtable *t);
void lh_rowtable_thaw(struct lh_rowtable *t); /* any thread; nothing frozen is fine */
/* Deletes every prepared version but those listed. Any thread. */
int lh_rowtable_prune(struct lh_rowtable *t, const uint64_t *keep, size_t n);

/* --- how it is doing -------------------------------------------------------------------------- */

struct lh_rowtable_stats {
    uint64_t rows_cached, rows_changed; /* in memory; of these, not written yet */
    uint64_t rows_stored; /* on disk; one that changed between cuts counts once a file, until the
                             files are merged */
    uint64_t cache_bytes, disk_bytes, files; /* disk: of the current version */
    uint64_t hits, misses;                   /* rows asked for by pulls and steps */
    uint64_t written;                        /* rows written to disk */
    uint64_t admitted, evicted; /* rows updated for the first time; found too old when seen again */
};

/* Since the table was created; the table's thread. */
void lh_rowtable_stats(const struct lh_rowtable *t, struct lh_rowtable_stats *out);
