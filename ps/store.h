/* A shard's store: one LMDB environment. Keys (version, tensor name, first row) -> header, checksum
 * and bytes of one row block; a meta record per version. Written in one transaction per version by
 * a thread of its own from a frozen copy, so that training does not wait.
 *
 * A version is PREPARED when it is durable here, and COMMITTED when the scheduler has told that
 * all shards prepared it (two phases). Only committed versions are resumed from; older ones are
 * pruned by policy. No WRITEMAP (a full disk would be SIGBUS). */
#pragma once

#include "ps/shard.h"

#include <stdint.h>

struct lh_store;

struct lh_store_id { /* whose store this is; refused if another job's */
    uint64_t job_digest;
    uint32_t shard, shards;
};

/* Opens or creates DIR (a directory). Errors: LH_EBUSY if another process serves it, LH_EMISMATCH
 * for another job's store, LH_ENOSPC, LH_EACCES, LH_ECORRUPT. */
int lh_store_open(struct lh_store **out, const char *dir, const struct lh_store_id *id,
                  int read_only);
void lh_store_close(struct lh_store **s);

/* Phase one: writes `version` from the shard as it is; durable when it returns. Idempotent. */
int lh_store_prepare(struct lh_store *st, uint64_t version, const struct lh_shard *s);
/* Phase two. LH_ENOENT if that version was never prepared here. */
int lh_store_commit(struct lh_store *st, uint64_t version);
/* Deletes every version but those listed. */
int lh_store_prune(struct lh_store *st, const uint64_t *keep, size_t n);
/* Versions here, ascending, with their state; *out is an array, caller frees. */
struct lh_store_version {
    uint64_t version;
    int committed;
};
int lh_store_versions(struct lh_store *st, struct lh_store_version **out, size_t *n);
/* Calls lh_shard_load for each block of `version`, checksums verified. */
int lh_store_load(struct lh_store *st, uint64_t version, struct lh_shard *into);
/* Reads weights and targets (NULL: skip) of `version` into flat arrays by tensor name. */
int lh_store_read(struct lh_store *st, uint64_t version, const struct lh_layout *layout,
                  float *weights, float *targets);
