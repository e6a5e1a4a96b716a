/* Keys and values of a store. See store_block.h for the bytes. */
#include "ps/store_block.h"

#include "common/err.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "arrays are stored as they are in memory, which the format says is little-endian");

enum { FORMAT = 1, FLOAT32 = 1 };

#define MAGIC_META  0x5043484Cu /* "LHCP" */
#define MAGIC_BLOCK 0x4B42484Cu /* "LHBK" */
#define MAGIC_ID    0x4449484Cu /* "LHID" */

static void put32(unsigned char *p, uint32_t x)
{
    memcpy(p, &x, sizeof x);
}

static void put64(unsigned char *p, uint64_t x)
{
    memcpy(p, &x, sizeof x);
}

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

static uint64_t checksum(const void *key, size_t n_key, const void *value, size_t n)
{
    return XXH3_64bits_withSeed(value, n, XXH3_64bits(key, n_key));
}

/* --- keys ------------------------------------------------------------------------------------ */

static void put64_big(unsigned char *p, uint64_t x)
{
    put64(p, __builtin_bswap64(x));
}

uint64_t lh_store_block_key_version(const void *key)
{
    return __builtin_bswap64(get64(key));
}

struct lh_store_key lh_store_block_meta_key(uint64_t version)
{
    struct lh_store_key key = {.n = 8};
    put64_big(key.bytes, version);
    return key;
}

int lh_store_block_key(struct lh_store_key *out, uint64_t version, const char *name, uint64_t row)
{
    const size_t n = strlen(name);
    if (n > LH_STORE_BLOCK_KEY_MAX - 17)
        return lh_err_set(LH_ERANGE, "%s: a tensor's name may have at most %d bytes", name,
                          LH_STORE_BLOCK_KEY_MAX - 17);
    put64_big(out->bytes, version);
    memcpy(out->bytes + 8, name, n + 1);
    put64_big(out->bytes + 9 + n, row);
    out->n = n + 17;
    return 0;
}

/* --- blocks ---------------------------------------------------------------------------------- */

size_t lh_store_block_size(uint64_t rows, uint64_t cols, unsigned arrays)
{
    return LH_STORE_BLOCK_HEADER +
           (size_t)(rows * cols) * sizeof(float) * (size_t)__builtin_popcount(arrays);
}

void lh_store_block_write(void *value, const struct lh_store_key *key, const struct lh_rows *rows)
{
    unsigned char *p = value;
    const void *const array[4] = {rows->w, rows->m, rows->v, rows->target};
    const size_t bytes = (size_t)(rows->rows * rows->cols) * sizeof(float);
    uint32_t arrays = 0;
    size_t at = LH_STORE_BLOCK_HEADER;
    for (unsigned i = 0; i < 4; i++) {
        if (array[i]) {
            memcpy(p + at, array[i], bytes);
            at += bytes;
            arrays |= 1u << i;
        }
    }
    put32(p, MAGIC_BLOCK);
    put32(p + 4, FLOAT32);
    put64(p + 8, rows->row);
    put64(p + 16, rows->rows);
    put64(p + 24, rows->cols);
    put64(p + 32, rows->updates);
    put32(p + 40, arrays);
    put32(p + 44, 0);
    put64(p + 48, 0);
    uint64_t sum = checksum(key->bytes, key->n, p, LH_STORE_BLOCK_HEADER - 8);
    put64(p + 56, XXH3_64bits_withSeed(p + LH_STORE_BLOCK_HEADER, at - LH_STORE_BLOCK_HEADER, sum));
}

/* Arrays of `arrays` exactly fill n - header bytes with rows * cols elements each. */
static int fits(size_t n, uint64_t rows, uint64_t cols, uint32_t arrays)
{
    uint64_t elements, bytes;
    const uint64_t each = sizeof(float) * (uint64_t)__builtin_popcount(arrays);
    return arrays & LH_STORE_BLOCK_W && arrays < 16 &&
           !__builtin_mul_overflow(rows, cols, &elements) &&
           !__builtin_mul_overflow(elements, each, &bytes) && bytes == n - LH_STORE_BLOCK_HEADER;
}

int lh_store_block_read(struct lh_rows *out, const void *key, size_t n_key, const void *value,
                        size_t n)
{
    const unsigned char *k = key, *p = value;
    if (n_key < 17 || n_key > LH_STORE_BLOCK_KEY_MAX || k[n_key - 9] != 0 ||
        memchr(k + 8, 0, n_key - 17) || n < LH_STORE_BLOCK_HEADER)
        return lh_err_set(LH_ECORRUPT, "a row block's key is damaged");
    *out = (struct lh_rows){
        .name = (const char *)k + 8,
        .row = lh_store_block_key_version(k + n_key - 8),
        .rows = get64(p + 16),
        .cols = get64(p + 24),
        .updates = get64(p + 32),
    };
    const uint32_t arrays = get32(p + 40);
    uint64_t sum = checksum(key, n_key, p, LH_STORE_BLOCK_HEADER - 8);
    sum = XXH3_64bits_withSeed(p + LH_STORE_BLOCK_HEADER, n - LH_STORE_BLOCK_HEADER, sum);
    if (sum != get64(p + 56))
        return lh_err_set(LH_ECORRUPT,
                          "tensor '%s', row block %" PRIu64 ": checksum does not match", out->name,
                          out->row);
    if (get32(p) != MAGIC_BLOCK || get32(p + 4) != FLOAT32 || get64(p + 8) != out->row ||
        !fits(n, out->rows, out->cols, arrays) || out->rows > UINT64_MAX - out->row)
        return lh_err_set(LH_ECORRUPT,
                          "tensor '%s', row block %" PRIu64 ": its header is not one this longhaul "
                          "understands",
                          out->name, out->row);
    const size_t bytes = (size_t)(out->rows * out->cols) * sizeof(float);
    const void **const array[4] = {&out->w, &out->m, &out->v, &out->target};
    const unsigned char *at = p + LH_STORE_BLOCK_HEADER;
    for (unsigned i = 0; i < 4; i++) {
        if (arrays & 1u << i) {
            *array[i] = at;
            at += bytes;
        }
    }
    return 0;
}

/* --- records --------------------------------------------------------------------------------- */

void lh_store_block_write_meta(unsigned char p[LH_STORE_BLOCK_META], const struct lh_store_key *key,
                               const struct lh_store_meta *m)
{
    put32(p, MAGIC_META);
    put32(p + 4, FORMAT);
    put32(p + 8, m->state);
    put32(p + 12, m->shard);
    put32(p + 16, m->shards);
    put32(p + 20, 0);
    const uint64_t rest[] = {
        m->job_digest, m->layout_digest, m->flat_size, m->lo,
        m->hi,         m->blocks,        m->bytes,     (uint64_t)m->wall_time_us};
    for (size_t i = 0; i < 8; i++)
        put64(p + 24 + 8 * i, rest[i]);
    put64(p + 88, checksum(key->bytes, key->n, p, 88));
}

int lh_store_block_read_meta(struct lh_store_meta *out, const struct lh_store_key *key,
                             const void *value, size_t n)
{
    const unsigned char *p = value;
    if (n != LH_STORE_BLOCK_META || get32(p) != MAGIC_META ||
        get64(p + 88) != checksum(key->bytes, key->n, p, 88))
        return lh_err_set(LH_ECORRUPT, "the record of the version: checksum does not match");
    if (get32(p + 4) != FORMAT)
        return lh_err_set(LH_EFORMAT,
                          "has format %u, this longhaul reads %d; use the version that "
                          "wrote it",
                          get32(p + 4), FORMAT);
    *out = (struct lh_store_meta){
        .state = (enum lh_store_state)get32(p + 8),
        .shard = get32(p + 12),
        .shards = get32(p + 16),
        .job_digest = get64(p + 24),
        .layout_digest = get64(p + 32),
        .flat_size = get64(p + 40),
        .lo = get64(p + 48),
        .hi = get64(p + 56),
        .blocks = get64(p + 64),
        .bytes = get64(p + 72),
        .wall_time_us = (int64_t)get64(p + 80),
    };
    return 0;
}

void lh_store_block_write_id(unsigned char p[LH_STORE_BLOCK_ID], uint64_t job_digest,
                             uint32_t shard)
{
    put32(p, MAGIC_ID);
    put32(p + 4, FORMAT);
    put64(p + 8, job_digest);
    put32(p + 16, shard);
    put32(p + 20, 0);
    put64(p + 24, checksum("id", 2, p, 24));
}

int lh_store_block_read_id(uint64_t *job_digest, uint32_t *shard, const void *value, size_t n)
{
    const unsigned char *p = value;
    if (n != LH_STORE_BLOCK_ID || get32(p) != MAGIC_ID || get64(p + 24) != checksum("id", 2, p, 24))
        return lh_err_set(LH_ECORRUPT, "its identity: checksum does not match");
    if (get32(p + 4) != FORMAT)
        return lh_err_set(LH_EFORMAT,
                          "has format %u, this longhaul reads %d; use the version that "
                          "wrote it",
                          get32(p + 4), FORMAT);
    *job_digest = get64(p + 8);
    *shard = get32(p + 16);
    return 0;
}
