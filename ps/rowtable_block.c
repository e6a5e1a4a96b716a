/* The bytes of rows and versions of a table. See rowtable_block.h. */
#include "ps/rowtable_block.h"

#include "common/err.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "numbers are stored as they are in memory, which the format says is little-endian");

enum { FORMAT = 1, FIXED = 72, RUN_BYTES = 24 };

#define MAGIC 0x5654484Cu /* "LHTV" */

static uint32_t get32(const unsigned char *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint64_t get64(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void put64(unsigned char *p, uint64_t x)
{
    memcpy(p, &x, sizeof x);
}

/* --- rows ------------------------------------------------------------------------------------ */

void lh_rowtable_block_key(unsigned char key[LH_ROWTABLE_BLOCK_KEY], uint64_t id)
{
    put64(key, __builtin_bswap64(id));
}

uint64_t lh_rowtable_block_id(const void *key)
{
    return __builtin_bswap64(get64(key));
}

static size_t arrays_size(uint32_t updates, uint32_t dim)
{
    return updates > 0 ? (size_t)3 * dim * sizeof(float) : 0;
}

size_t lh_rowtable_block_size(const struct lh_rowtable_record *row, uint32_t dim)
{
    return LH_ROWTABLE_BLOCK_HEADER + arrays_size(row->updates, dim);
}

static uint64_t row_sum(uint64_t id, const unsigned char *value, size_t n)
{
    return XXH3_64bits_withSeed(value + 8, n - 8, id);
}

void lh_rowtable_block_write(void *value, const struct lh_rowtable_record *row, uint32_t dim)
{
    unsigned char *p = value;
    put64(p + 8, row->last);
    memcpy(p + 16, &row->seen, 4);
    memcpy(p + 20, &row->updates, 4);
    if (row->updates > 0)
        memcpy(p + LH_ROWTABLE_BLOCK_HEADER, row->arrays, arrays_size(row->updates, dim));
    put64(p, row_sum(row->id, p, lh_rowtable_block_size(row, dim)));
}

int lh_rowtable_block_read(struct lh_rowtable_record *out, uint64_t id, const void *value, size_t n,
                           uint32_t dim)
{
    const unsigned char *p = value;
    if (n < LH_ROWTABLE_BLOCK_HEADER || get64(p) != row_sum(id, p, n))
        return lh_err_set(LH_ECORRUPT,
                          "id %" PRIu64 ": checksum does not match; the file is damaged: restore "
                          "it from a copy, or start the run anew",
                          id);
    *out = (struct lh_rowtable_record){id, get64(p + 8), get32(p + 16), get32(p + 20),
                                       p + LH_ROWTABLE_BLOCK_HEADER};
    if (out->updates == 0)
        out->arrays = NULL;
    if (n != lh_rowtable_block_size(out, dim))
        return lh_err_set(LH_ECORRUPT,
                          "id %" PRIu64 ": has %zu bytes, a row of %u elements has %zu", id, n, dim,
                          lh_rowtable_block_size(out, dim));
    return 0;
}

/* --- versions -------------------------------------------------------------------------------- */

size_t lh_rowtable_block_version_size(uint32_t n_runs)
{
    return FIXED + (size_t)n_runs * RUN_BYTES + 8;
}

void lh_rowtable_block_write_version(void *out, const struct lh_rowtable_version *v)
{
    unsigned char *p = out;
    uint64_t scale;
    memcpy(&scale, &v->init_scale, 8);
    const uint32_t numbers[] = {v->shard,       v->shards,    v->dim,
                                v->admit_after, v->name_hash, v->n_runs};
    const uint64_t rest[] = {v->evict_after, v->seed, scale};
    memcpy(p, &(uint32_t[]){MAGIC, FORMAT}, 8);
    put64(p + 8, v->job_digest);
    put64(p + 16, v->version);
    memcpy(p + 24, numbers, sizeof numbers);
    memcpy(p + 48, rest, sizeof rest);
    unsigned char *at = p + FIXED;
    for (uint32_t i = 0; i < v->n_runs; i++, at += RUN_BYTES) {
        put64(at, v->runs[i].number);
        put64(at + 8, v->runs[i].records);
        put64(at + 16, v->runs[i].bytes);
    }
    put64(at, XXH3_64bits(p, (size_t)(at - p)));
}

int lh_rowtable_block_read_version(struct lh_rowtable_version *out, const void *data, size_t n)
{
    const unsigned char *p = data;
    if (n < FIXED + 8 || get32(p) != MAGIC || get64(p + n - 8) != XXH3_64bits(p, n - 8))
        return lh_err_set(LH_ECORRUPT, "checksum does not match; the file is damaged: restore it "
                                       "from a copy, or start the run anew");
    if (get32(p + 4) != FORMAT)
        return lh_err_set(LH_EFORMAT,
                          "has format %u, this longhaul reads %d; use the version that wrote it",
                          get32(p + 4), FORMAT);
    struct lh_rowtable_version v = {
        .job_digest = get64(p + 8),
        .version = get64(p + 16),
        .shard = get32(p + 24),
        .shards = get32(p + 28),
        .dim = get32(p + 32),
        .admit_after = get32(p + 36),
        .name_hash = get32(p + 40),
        .n_runs = get32(p + 44),
        .evict_after = get64(p + 48),
        .seed = get64(p + 56),
    };
    memcpy(&v.init_scale, p + 64, 8);
    if (v.n_runs > LH_ROWTABLE_BLOCK_RUNS || n != lh_rowtable_block_version_size(v.n_runs) ||
        v.dim == 0 || v.shard >= v.shards)
        return lh_err_set(LH_ECORRUPT, "does not describe a version of a table");
    LH_TRY(LH_NEW_ARRAY(&v.runs, v.n_runs, "version of a table"));
    for (uint32_t i = 0; i < v.n_runs; i++) {
        const unsigned char *at = p + FIXED + (size_t)i * RUN_BYTES;
        v.runs[i] = (struct lh_rowtable_run_ref){get64(at), get64(at + 8), get64(at + 16)};
    }
    *out = v;
    return 0;
}
