/* Spool: records gathered in buckets from several threads under one memory limit. While all fits it
 * stays in memory; beyond that buckets are appended to files and memory starts anew. Reading a
 * bucket back sees both, in no particular order: records carry their own sort keys. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lh_spool;

/* The least buffer of a bucket that holds anything. */
#define LH_SPOOL_BUFFER (UINT64_C(16) << 10)

/* `dir` must exist for as long as the spool; files are made in it when the limit is reached and
 * removed by destroy. `memory_limit` bounds the bytes of buffers, apart from LH_SPOOL_BUFFER a
 * bucket and from single records that are larger. */
int lh_spool_create(struct lh_spool **out, const char *dir, const char *name, size_t buckets,
                    uint64_t memory_limit);
void lh_spool_destroy(struct lh_spool **s); /* NULL content allowed */

/* Appends one record of `bytes` bytes (a multiple of 8), encoded by `fill` into 8-byte aligned
 * memory; fill must not call the spool. Any thread. Errors: LH_ENOMEM, I/O. */
typedef void (*lh_spool_fill)(void *ctx, void *record);
int lh_spool_put(struct lh_spool *s, size_t bucket, size_t bytes, lh_spool_fill fill, void *ctx);

uint64_t lh_spool_records(const struct lh_spool *s, size_t bucket);
uint64_t lh_spool_bytes(const struct lh_spool *s, size_t bucket);
uint64_t lh_spool_spilled(const struct lh_spool *s); /* bytes written to files so far */

/* A bucket for reading: spans of whole records, 8-byte aligned. What was spilled of it is read into
 * memory if it takes at most `load` bytes, else mapped: for going through in any order the one is
 * far faster, since pages of a file come and go at a price. No put to the bucket between open and
 * close. */
struct lh_spool_span {
    const void *data;
    size_t bytes;
};

struct lh_spool_view {
    struct lh_spool_span *spans;
    size_t n;
    void *map, *copy;
    size_t map_bytes;
};

int lh_spool_view_open(struct lh_spool_view *v, struct lh_spool *s, size_t bucket, uint64_t load);
/* Lets the system take back pages of a mapped bucket that were read; they can be read again. */
void lh_spool_view_release(const struct lh_spool_view *v);
void lh_spool_view_close(struct lh_spool_view *v); /* idempotent */

/* Frees what a bucket holds, in memory and on disk. */
void lh_spool_drop(struct lh_spool *s, size_t bucket);
