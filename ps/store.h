/* A shard's store: one LMDB environment. Keys (version, tensor name, first row) -> header, checksum
 * and bytes of one row block; a meta record per version. ps/README.md has the format byte by byte.
 *
 * A version is PREPARED when it is durable here, and COMMITTED when the scheduler has told that
 * all shards prepared it (two phases). The scheduler's record (run.json) decides which cuts are
 * complete: a version listed there may still be only PREPARED here if the server died in between,
 * and is restored all the same. Older ones are pruned by policy. Blocks are written in transactions
 * of bounded size, the meta record in the last: a version without one does not exist. No WRITEMAP
 * (a full disk would be SIGBUS).
 *
 * Locking is by flock, which dies with its process: one server per directory (LH_EBUSY), and
 * readers, in this or another process, exclude a write transaction for as long as they read. A
 * store may be used by several threads; calls wait for each other. */
#pragma once

#include "ps/shard.h"

#include <stdint.h>

struct lh_store;

struct lh_store_id {     /* whose store this is */
    uint64_t job_digest; /* refused if another job's */
    uint32_t shard;      /* refused if another shard's */
    uint32_t shards;     /* may change between versions */
};

/* Opens or creates DIR (a directory; its parent must exist) to serve it; or, read_only, opens what
 * is there (id NULL: whoever's). Errors: LH_EBUSY if another process or server serves it,
 * LH_EMISMATCH for another job's store (both digests named), LH_ENOENT, LH_ENOSPC, LH_EACCES,
 * LH_ECORRUPT. */
int lh_store_open(struct lh_store **out, const char *dir, const struct lh_store_id *id,
                  int read_only);
void lh_store_close(struct lh_store **s);

/* Phase one: writes the frozen version; durable when it returns. Any thread. Idempotent: a version
 * already prepared stays as it is. Needs memory for some 64 MiB of dirty pages, however large the
 * shard. Errors: LH_ENOSPC, LH_EIO (earlier versions are intact; may be called again), LH_EBUSY
 * if a reader does not let go. */
int lh_store_prepare(struct lh_store *st, const struct lh_frozen *frozen);
/* Phase two. Idempotent. LH_ENOENT if that version was never prepared here. */
int lh_store_commit(struct lh_store *st, uint64_t version);
/* Deletes every version but those listed; what an interrupted prepare left, too. */
int lh_store_prune(struct lh_store *st, const uint64_t *keep, size_t n);

/* Versions here, ascending, with their state; *out is an array, caller frees. */
struct lh_store_version {
    uint64_t version;
    int committed;
    uint32_t shards;      /* of how many this was one */
    uint64_t bytes;       /* of all blocks */
    int64_t wall_time_us; /* when it was prepared, microseconds since 1970-01-01 UTC */
};
int lh_store_versions(struct lh_store *st, struct lh_store_version **out, size_t *n);

/* Reads every block of a version and compares checksums and number. Errors: LH_ENOENT, LH_ECORRUPT
 * naming store, version, tensor and row block. */
int lh_store_verify(struct lh_store *st, uint64_t version);

/* Calls lh_shard_load for each block of `version`, checksums verified; adds to *taken. Errors: as
 * verify, and LH_EMISMATCH for another layout. */
int lh_store_load(struct lh_store *st, uint64_t version, struct lh_shard *into, uint64_t *taken);
/* Reads weights and targets (NULL: skip; a tensor without target is left alone) of `version` into
 * flat arrays by tensor name; adds the elements of weights read to *taken (compare with
 * layout->elements when all stores are read). Errors: as load. */
int lh_store_read(struct lh_store *st, uint64_t version, const struct lh_layout *layout,
                  float *weights, float *targets, uint64_t *taken);

/* Restores a shard from the stores of a cut, of any number of shards: opens each of dirs read-only,
 * loads, checks that nothing is missing, sets the version. The shard's own store may be open. */
int lh_store_restore(struct lh_shard *into, uint64_t version, const char *const *dirs,
                     size_t n_dirs, uint64_t job_digest);
