/* A partition file (.lhp): the rows of one split, day and hash of users, in fixed-width columns.
 * The exact layout is in common/PARTITIONS.md.
 *
 * Rows 0 .. rows-1 are counted rows, sorted by (hash of the user, user, first time of the
 * trajectory, trajectory). The state columns hold `halos` more rows behind them: next states that
 * lie in the next day's partition. */
#pragma once

#include "common/dataset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_part_column {
    LH_PART_HIGH,       /* f32 [rows + halos, H] */
    LH_PART_LOW,        /* f32 [rows + halos, L] */
    LH_PART_ACTION,     /* f32 [rows, A] */
    LH_PART_REWARD,     /* f32 [rows] */
    LH_PART_CLASS,      /* u8 [rows]: index of the nearest reward value; 0 if there are none */
    LH_PART_FLAGS,      /* u8 [rows]: LH_PART_FIRST … */
    LH_PART_TIME,       /* i64 [rows]: microseconds since 1970-01-01 UTC */
    LH_PART_USER,       /* u64 [rows] */
    LH_PART_TRAJECTORY, /* u64 [rows] */
    LH_PART_SESSION,    /* u32 [rows] */
    LH_PART_IDS,        /* u64 [rows + halos, I]; LH_ID_NONE where there is none */
    LH_PART_CUT,        /* u32 [cuts]: rows without a next state that are no true end, ascending */
    LH_PART_HALO,       /* u32 [halos]: rows whose next state is halo row k, ascending */
    LH_PART_COLUMNS
};

enum {
    LH_PART_FIRST = 1,        /* first row of its trajectory */
    LH_PART_LAST = 2,         /* last row of its trajectory */
    LH_PART_ENDS = 4,         /* last, and truly ended */
    LH_PART_HAS_NEXT = 8,     /* the next state is known */
    LH_PART_NEXT_IS_HALO = 16 /* … and is a halo row, not the next row */
};

#define LH_PART_BLOCK (64u << 10) /* bytes under one checksum */

struct lh_partition_head {
    struct lh_dims dims;
    enum lh_split split;
    int32_t day;
    uint32_t hash;         /* number of the hash partition */
    uint64_t rows, halos;  /* rows + halos < 2^32 */
    uint64_t cuts, pieces; /* pieces: trajectories, or the parts of them that lie in this day */
};

/* --- reading --------------------------------------------------------------------------------- */
struct lh_partition;

/* Maps a file and checks its header, the list of cuts and that of halos; column blocks are checked
 * on first touch. Errors: LH_ENOENT, LH_EFORMAT, LH_ECORRUPT. */
int lh_partition_open(struct lh_partition **out, const char *path);
/* The same over bytes in memory, which must outlive it; 64-byte aligned. */
int lh_partition_open_memory(struct lh_partition **out, const void *bytes, size_t n,
                             const char *name);
void lh_partition_close(struct lh_partition **p);
const struct lh_partition_head *lh_partition_head(const struct lh_partition *p);
uint64_t lh_partition_checksum(const struct lh_partition *p); /* of the header, so of everything */
uint64_t lh_partition_bytes(const struct lh_partition *p);

/* Lets the system take back the pages of a mapped file that were touched; they can be touched
 * again. */
void lh_partition_release(const struct lh_partition *p);

/* Row `row` of a column; NULL, with a sentence (LH_ECORRUPT), if a block it lies in is damaged.
 * row < the column's rows (an assertion). Any thread. */
const void *lh_partition_row(const struct lh_partition *p, enum lh_part_column c, uint64_t row);

/* Asks for what a transition reads, `row` and the row after it, without waiting for it. */
void lh_partition_ahead(const struct lh_partition *p, uint64_t row);

/* All of a column, every block checked; NULL with a sentence. An empty column is not NULL. */
const void *lh_partition_column(const struct lh_partition *p, enum lh_part_column c);

/* Where a row's next state lies in the state columns: row + 1 or a halo row. `flags` of the row
 * must have LH_PART_HAS_NEXT. Errors: LH_ECORRUPT. */
int lh_partition_next(const struct lh_partition *p, uint64_t row, uint8_t flags, uint64_t *next);

/* The k-th row that is a transition; k < rows - cuts. O(log cuts). */
uint64_t lh_partition_transition(const struct lh_partition *p, uint64_t k);

/* Checks every block. */
int lh_partition_verify(const struct lh_partition *p);

struct lh_partition_column_info {
    const char *name, *type; /* "state_high", "f32" */
    uint32_t width;
    uint64_t rows, offset, bytes, blocks; /* offset in the file */
};
void lh_partition_column_info(const struct lh_partition *p, enum lh_part_column c,
                              struct lh_partition_column_info *out);

/* --- writing ---------------------------------------------------------------------------------
 * A file is created with its final size, then filled by segments: rows of its columns, in any order
 * and by any number of threads (each its own segment); then sealed. */

/* Errors: LH_ERANGE for 2^32 rows and more; I/O. */
int lh_partition_create(const char *path, const struct lh_partition_head *head);

struct lh_partition_segment;
int lh_partition_segment_open(struct lh_partition_segment **out, const char *path,
                              const struct lh_partition_head *head);
/* Following puts go to rows `row` and on of column `c`. */
int lh_partition_segment_begin(struct lh_partition_segment *s, enum lh_part_column c, uint64_t row);
int lh_partition_segment_put(struct lh_partition_segment *s, const void *data, size_t bytes);
/* Frees the segment, also on failure. NULL content allowed. */
int lh_partition_segment_close(struct lh_partition_segment **s);

/* Reads the columns back for their checksums and writes the header. Not durable until synced. */
int lh_partition_seal(const char *path, const struct lh_partition_head *head, uint64_t *checksum,
                      uint64_t *bytes);

/* Which hash partition a user belongs to. */
uint32_t lh_partition_of_user(uint64_t user, uint32_t partitions);
