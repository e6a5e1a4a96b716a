/* What the parts of the dataset's writer share: dataset_write.c takes trajectories in,
 * dataset_commit.c finds what the spool holds its place in partitions, dataset_columns.c writes it
 * there. */
#pragma once

#include "common/dataset.h"

#include "common/fs.h"
#include "common/manifest.h"
#include "common/partition.h"
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

/* A trajectory as it lies in the spool: this, then n times, the ids, n sessions, n rewards, the
 * matrices. */
struct lh_dataset_record {
    uint64_t bytes; /* of all, a multiple of 8 */
    uint64_t user, id, n;
    int64_t first_time;
    uint64_t ends;
};

/* Where the arrays of a record of n rows begin. */
struct lh_dataset_offsets {
    size_t ids, session, reward, high, low, action, end;
};

struct lh_dataset_offsets lh_dataset_record_offsets(const struct lh_dims *d, size_t n);

/* The part of a trajectory that lies in one day: rows lo .. hi-1 of the record. */
struct lh_dataset_piece {
    uint64_t hash; /* of the user */
    const struct lh_dataset_record *r;
    uint32_t lo, hi;
    int32_t day;
};

/* Its last row is the trajectory's, which was cut off there. */
static inline bool lh_dataset_piece_is_cut(const struct lh_dataset_piece *p)
{
    return p->hi == p->r->n && !p->r->ends;
}

/* The trajectory goes on in another day: the row behind the piece is stored once more. */
static inline bool lh_dataset_piece_has_halo(const struct lh_dataset_piece *p)
{
    return p->hi < p->r->n;
}

/* Pieces of one day in the order of their rows, and where these begin in their partition. */
struct lh_dataset_batch {
    const struct lh_manifest *manifest;
    const struct lh_dataset_piece *pieces;
    size_t n;
    uint64_t part_rows; /* of the whole partition */
    uint64_t first_row, first_halo, first_cut;
    void (*read)(void *ctx); /* called behind each piece that was read, once a column */
    void *ctx;
};

/* Writes all columns of the batch. Errors: those of the segment. */
int lh_dataset_columns_put(struct lh_partition_segment *out, const struct lh_dataset_batch *b);

/* Writes and seals all partitions of what the spool holds, and fills the manifest's splits and
 * days. The spool is empty afterwards. */
int lh_dataset_commit_partitions(struct lh_dataset_writer *w);
/* One more of commit's steps; any thread. */
void lh_dataset_commit_step(struct lh_dataset_writer *w);
