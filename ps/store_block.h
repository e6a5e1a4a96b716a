/* What a store's keys and values look like, byte by byte (all numbers little-endian, but the
 * version and row of a key big-endian, so that keys sort by them):
 *
 *   key of a version's meta record   version u64
 *   key of a row block               version u64, tensor's name, 0 byte, first row u64
 *   key of the store's identity      "id"
 *
 *   meta record   magic "LHCP", format u32, state u32, shard u32, shards u32, 0 u32, then u64:
 *                 job digest, layout digest, flat size, lo, hi, blocks, bytes, wall time in
 *                 microseconds, checksum
 *   row block     magic "LHBK", element type u32 (1: float32), then u64: row, rows, cols, updates;
 *                 arrays u32 (1: w, 2: m, 4: v, 8: target), 0 u32, 0 u64, checksum u64;
 *                 then the arrays in that order, rows * cols elements each
 *   identity      magic "LHID", format u32, job digest u64, shard u32, 0 u32, checksum u64
 *
 * A checksum is XXH3-64 over the key, the value before the checksum and, of a block, the arrays. */
#pragma once

#include "ps/shard.h"

#include <stddef.h>
#include <stdint.h>

#define LH_STORE_BLOCK_KEY_MAX 511 /* LMDB's limit */
#define LH_STORE_BLOCK_HEADER  64
#define LH_STORE_BLOCK_META    96
#define LH_STORE_BLOCK_ID      32

enum {
    LH_STORE_BLOCK_W = 1,
    LH_STORE_BLOCK_M = 2,
    LH_STORE_BLOCK_V = 4,
    LH_STORE_BLOCK_TARGET = 8
};

enum lh_store_state { LH_STORE_PREPARED = 1, LH_STORE_COMMITTED = 2 };

struct lh_store_meta {
    enum lh_store_state state;
    uint32_t shard, shards;
    uint64_t job_digest, layout_digest, flat_size, lo, hi, blocks, bytes;
    int64_t wall_time_us;
};

struct lh_store_key {
    size_t n;
    unsigned char bytes[LH_STORE_BLOCK_KEY_MAX];
};

struct lh_store_key lh_store_block_meta_key(uint64_t version);
/* Errors: LH_ERANGE if the name is too long for a key. */
int lh_store_block_key(struct lh_store_key *out, uint64_t version, const char *name, uint64_t row);
uint64_t lh_store_block_key_version(const void *key); /* of a key of at least 8 bytes */

/* Bytes of a block of that shape. */
size_t lh_store_block_size(uint64_t rows, uint64_t cols, unsigned arrays);
/* Writes a block's value; NULL arrays are left out. `rows->name` is not used: it is in the key. */
void lh_store_block_write(void *value, const struct lh_store_key *key, const struct lh_rows *rows);
/* Reads and checks a block; out->name and the arrays point into key and value. Returns 0, or
 * LH_ECORRUPT with a sentence that begins with the tensor and rows, as far as they are known. */
int lh_store_block_read(struct lh_rows *out, const void *key, size_t n_key, const void *value,
                        size_t n);

void lh_store_block_write_meta(unsigned char out[LH_STORE_BLOCK_META],
                               const struct lh_store_key *key, const struct lh_store_meta *meta);
int lh_store_block_read_meta(struct lh_store_meta *out, const struct lh_store_key *key,
                             const void *value, size_t n);
void lh_store_block_write_id(unsigned char out[LH_STORE_BLOCK_ID], uint64_t job_digest,
                             uint32_t shard);
int lh_store_block_read_id(uint64_t *job_digest, uint32_t *shard, const void *value, size_t n);
