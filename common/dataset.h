/* A dataset: immutable partitions of transitions and a manifest. `longhaul import` and `simulate`
 * write one; everything else maps it and reads. Memory of a reader does not grow with the log.
 *
 * Rows of one trajectory are contiguous and in time order, so that the next state of a row is the
 * state of the next row. Within a split, rows are numbered 0 .. rows-1 over its partitions in
 * manifest order (day, then hash). A *transition* is a row that has a next state or truly ends its
 * trajectory; the last row of a trajectory that was cut off is none (its next state is unknown).
 *
 * Where a trajectory goes on in a later day's partition, the partition carries one extra row for
 * the piece, behind all counted rows: the state that follows (a halo row). Halo rows are not
 * counted in `rows`. How a partition file looks is in common/PARTITIONS.md. */
#pragma once

#include "common/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ids are 64-bit numbers (common/userlog.h); this one says that a state has none: the first row of
 * a user has no id of the row before. */
#define LH_ID_NONE UINT64_MAX
#define LH_IDS_MAX 64 /* of a state */

enum lh_split { LH_TRAIN, LH_VALIDATION, LH_TEST, LH_SPLITS };
extern const char *const lh_split_names[LH_SPLITS]; /* "train", "validation", "test" */

/* How raw features become what networks see: x' = (x - shift) * scale per column, computed over
 * the training split. States: mean and 1 / standard deviation (1 where a column is constant).
 * Actions: the middle and 1 / half-width between the 0.1% and 99.9% quantiles, so that the log
 * lies in [-1, 1]. Travels inside snapshots. */
struct lh_norm {
    struct lh_dims dims;
    float *high_shift, *high_scale, *low_shift, *low_scale, *action_shift, *action_scale;
    float *action_lo, *action_hi; /* the raw quantiles */
};

struct lh_column_stats {
    double mean, std, min, max, q001, q25, q50, q75, q999; /* over training rows; q: quantiles */
};

struct lh_split_info {
    uint64_t rows, transitions, trajectories, users, partitions;
};

struct lh_dataset_info {
    struct lh_dims dims;
    const char *const *high_names; /* [H] */
    const char *const *low_names;  /* [L] */
    const char *const *action_names;
    const char *const *id_names; /* [I] */
    /* [dims.classes] the distinct rewards of the training split, ascending. A reward of another
     * split that does not occur in training has the class of the nearest value (of the lower one
     * where two are equally near). */
    const float *reward_values;
    const struct lh_column_stats *high_stats, *low_stats, *action_stats, *reward_stats;
    struct lh_split_info split[LH_SPLITS];
    int32_t first_day, last_day; /* days since 1970-01-01 UTC */
    uint64_t digest;             /* of the manifest; identifies the dataset in checkpoints */
    const char *kind;            /* "import", or "simulate": then manifest carries the world */
};

struct lh_dataset;

/* Maps a dataset. Block checksums are verified on first touch (a flipped bit gives LH_ECORRUPT
 * naming file and block, from the call that touched it). Errors: LH_ENOENT, LH_EFORMAT (newer
 * version, truncated), LH_ECORRUPT. May be shared by threads. */
int lh_dataset_open(struct lh_dataset **out, const char *dir);
void lh_dataset_close(struct lh_dataset **ds);
const struct lh_dataset_info *lh_dataset_info(const struct lh_dataset *ds);
const struct lh_norm *lh_dataset_norm(const struct lh_dataset *ds);
const char *lh_dataset_dir(const struct lh_dataset *ds);
/* The manifest as cJSON text (for what this header does not name). */
const char *lh_dataset_manifest(const struct lh_dataset *ds);

/* The i-th partition of a split (common/partition.h); NULL if i is none. *file is its name inside
 * the dataset, *first_row the number of its first row; both may be NULL. */
struct lh_partition;
const struct lh_partition *lh_dataset_partition(const struct lh_dataset *ds, enum lh_split split,
                                                size_t i, const char **file, uint64_t *first_row);

/* Row number of the k-th transition of a split; k < split.transitions. O(log). */
uint64_t lh_dataset_transition_row(const struct lh_dataset *ds, enum lh_split split, uint64_t k);

/* Destinations of a gather, each [n, width] or [n]; NULL members are skipped. */
struct lh_batch {
    float *high, *low, *action, *reward, *not_done, *reward_class, *next_high, *next_low;
    uint64_t *ids, *next_ids; /* [n, I] */
};

/* Gathers n rows of a split by row number. `norm` NULL gives raw values. next_* of a row without
 * next state are zeros, its next ids LH_ID_NONE. Where dims.classes is 0, reward_class is 0.
 * Allocates nothing; any thread. Errors: LH_ECORRUPT; LH_ERANGE for a row number that is none. */
int lh_dataset_gather(const struct lh_dataset *ds, enum lh_split split, const uint64_t *rows,
                      size_t n, const struct lh_norm *norm, struct lh_batch *out);

/* What a row is, for readers that walk trajectories. */
struct lh_row_info {
    uint64_t user;       /* 64-bit hash of the user id */
    uint64_t trajectory; /* unique within the dataset; pieces of one trajectory share it */
    uint64_t session;    /* number of the session within the user, from 0 */
    int64_t time_us;     /* microseconds since 1970-01-01 UTC */
    bool first, last;    /* of its trajectory (not merely of this day's piece) */
    bool ends;           /* last, and the trajectory truly ended here (not cut off) */
    bool has_next;       /* next state is known */
};
int lh_dataset_row_info(const struct lh_dataset *ds, enum lh_split split, uint64_t row,
                        struct lh_row_info *out);

void lh_norm_fini(struct lh_norm *n);
int lh_norm_init(struct lh_norm *n, const struct lh_dims *dims); /* identity: shift 0, scale 1 */
int lh_norm_copy(struct lh_norm *out, const struct lh_norm *in);

/* --- writing ------------------------------------------------------------------------------- */
/* A dataset is written aside (DIR.partial-PID, or resumes nothing) and renamed when complete, so
 * that one that dies leaves no half dataset. Threads may add trajectories at the same time. */
struct lh_dataset_writer;

struct lh_dataset_spec {
    struct lh_dims dims; /* classes is ignored: counted by the writer */
    const char *const *high_names, *const *low_names, *const *action_names, *const *id_names;
    uint32_t hash_partitions; /* per (split, day), >= 1 */
    bool by_day;              /* false: one day 0 partition set per split, no halo rows */
    const char *kind;         /* "import" or "simulate" */
    const char *origin_json; /* schema or world, embedded in the manifest under "origin"; NULL ok */
    uint64_t memory_limit;   /* bytes of buffers the writer may hold before it writes */
    unsigned threads;        /* of commit; 0 counts as 1 */
    bool replace;            /* a dataset of that name is replaced by commit, in one step */
    /* Called during commit, by any thread but not by two at once; NULL allowed. */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

/* One whole trajectory in time order. Arrays are [n, width], row-major, raw values. */
struct lh_trajectory {
    enum lh_split split;
    uint64_t user, id;
    bool ends; /* the end is true, not cut off */
    size_t n;
    const float *high, *low, *action, *reward;
    const int64_t *time_us;
    const uint32_t *session; /* number within the user */
    const uint64_t *ids;     /* [n, I] */
};

/* `spec` and what it points to are copied. Errors: LH_EEXIST (without `replace`, or if what is
 * there is no dataset), LH_EACCES, LH_ERANGE for dimensions beyond 2^20. */
int lh_dataset_writer_open(struct lh_dataset_writer **out, const char *dir,
                           const struct lh_dataset_spec *spec);
/* Errors: LH_ERANGE if a value is not finite or times run backwards (names column); I/O. Order of
 * calls does not matter: the bytes of the finished dataset are the same for any order and number of
 * threads, provided that (user, first time, id) differ. A trajectory of 0 rows is nothing. */
int lh_dataset_writer_add(struct lh_dataset_writer *w, const struct lh_trajectory *t);
/* Where the dataset is made: for files that are to be part of it. */
const char *lh_dataset_writer_path(const struct lh_dataset_writer *w);
/* Replaces spec.origin_json. */
int lh_dataset_writer_set_origin(struct lh_dataset_writer *w, const char *origin_json);
/* Sorts, writes partitions, statistics and the manifest, fsyncs, renames into place. Frees the
 * writer, also on failure; then nothing is left at `dir`. */
int lh_dataset_writer_commit(struct lh_dataset_writer **w);
void lh_dataset_writer_abort(struct lh_dataset_writer **w); /* NULL content allowed */
