/* What the two halves of the dataset's writer share: dataset_write.c takes trajectories in,
 * dataset_commit.c turns what the spool holds into partitions. */
#pragma once

#include "common/dataset.h"

#include "common/fs.h"
#include "common/manifest.h"
#include "common/spool.h"

#include <pthread.h>
#include <stdatomic.h>

/* The distinct rewards seen, ascending; one more than may be classes is too many. */
struct lh_dataset_rewards {
    float value[LH_CLASSES_MAX + 1];
    size_t n;
};

struct lh_dataset_writer {
    struct lh_fs_partial partial;
    struct lh_manifest manifest; /* under construction */
    struct lh_dims dims;
    uint32_t hashes; /* partitions a split and day */
    uint32_t fine;   /* buckets of the spool a split: a multiple of hashes */
    bool by_day;
    unsigned threads;
    uint64_t memory_limit;
    struct lh_spool *spool;
    pthread_mutex_t lock; /* of rewards and of steps */
    struct lh_dataset_rewards rewards;
    _Atomic bool many_rewards; /* more than may be classes: nobody need look any more */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
    uint64_t steps_done, steps; /* of commit: groups, partitions, statistics */
};

/* A trajectory as it lies in the spool: this, then n times, n sessions, n rewards, the matrices. */
struct lh_dataset_record {
    uint64_t bytes; /* of all, a multiple of 8 */
    uint64_t user, id, n;
    int64_t first_time;
    uint64_t ends;
};

/* Where the arrays of a record of n rows begin. */
struct lh_dataset_offsets {
    size_t session, reward, high, low, action, end;
};

struct lh_dataset_offsets lh_dataset_record_offsets(const struct lh_dims *d, size_t n);

/* Writes and seals all partitions of what the spool holds, and fills the manifest's splits and
 * days. The spool is empty afterwards. */
int lh_dataset_commit_partitions(struct lh_dataset_writer *w);
/* One more of commit's steps; any thread. */
void lh_dataset_commit_step(struct lh_dataset_writer *w);
