/* What a table keeps on disk, byte by byte. All numbers are little-endian, but the id of a key is
 * big-endian, so that keys sort by it. TABLES.md tells which files there are.
 *
 *   key of a row     id u64
 *   row              checksum u64, last u64, seen u32, updates u32; then, unless updates is 0: w,
 *                    m, v, dim floats each
 *   version file     magic "LHTV", format u32, then u64: job digest, version; u32: shard, shards,
 *                    dim, admit_after, hash of the name, number of runs; u64: evict_after,
 *                    seed, bits of the double init_scale; then for each run, oldest first,
 *                    u64: number, records, bytes; then checksum u64
 *
 * A checksum is XXH3-64, of a row over key and value behind the checksum, of a version over what
 * lies before it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    LH_ROWTABLE_BLOCK_KEY = 8,
    LH_ROWTABLE_BLOCK_HEADER = 24, /* bytes of a row before its arrays */
    LH_ROWTABLE_BLOCK_RUNS = 4096  /* runs of a version at most */
};

/* A row as it is stored. `arrays` are w, m, v, [3, dim]; not there where updates is 0. */
struct lh_rowtable_record {
    uint64_t id, last;
    uint32_t seen, updates;
    const void *arrays; /* unaligned where it comes from a file */
};

void lh_rowtable_block_key(unsigned char key[LH_ROWTABLE_BLOCK_KEY], uint64_t id);
uint64_t lh_rowtable_block_id(const void *key);

size_t lh_rowtable_block_size(const struct lh_rowtable_record *row, uint32_t dim);
void lh_rowtable_block_write(void *value, const struct lh_rowtable_record *row, uint32_t dim);
/* Reads and checks a row; out->arrays points into value. Returns 0, or LH_ECORRUPT with a sentence
 * that begins with the id. */
int lh_rowtable_block_read(struct lh_rowtable_record *out, uint64_t id, const void *value, size_t n,
                           uint32_t dim);

struct lh_rowtable_run_ref {
    uint64_t number, records, bytes;
};

/* What a version is made of. Of several rows of one id, that of the newest run counts. */
struct lh_rowtable_version {
    uint64_t job_digest, version;
    uint32_t shard, shards, dim, admit_after, name_hash, n_runs;
    uint64_t evict_after, seed;
    double init_scale;
    struct lh_rowtable_run_ref *runs; /* [n_runs], oldest first */
};

size_t lh_rowtable_block_version_size(uint32_t n_runs);
void lh_rowtable_block_write_version(void *out, const struct lh_rowtable_version *v);
/* Allocates out->runs, which the caller frees. Errors: LH_ECORRUPT, LH_EFORMAT, LH_ENOMEM, with
 * sentences that read behind the file's name. */
int lh_rowtable_block_read_version(struct lh_rowtable_version *out, const void *data, size_t n);
