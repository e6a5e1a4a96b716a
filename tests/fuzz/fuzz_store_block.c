/* ps/store_block: byte 0 says whether the rest is a row block, a version's record or a store's
 * identity, byte 1 how long its key is. Read as it is, and once more with a checksum that matches,
 * since nobody guesses one and what lies behind it must be checked all the same. */
#include "ps/store_block.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>
#include <xxhash.h>

static uint64_t checksum(const void *key, size_t n_key, const void *value, size_t n)
{
    return XXH3_64bits_withSeed(value, n, XXH3_64bits(key, n_key));
}

static void put(unsigned char *at, uint64_t x)
{
    memcpy(at, &x, sizeof x); /* this runs on little-endian machines */
}

static void as_block(const uint8_t *key, size_t n_key, const unsigned char *value, size_t n)
{
    struct lh_rows r;
    if (!fuzzkit_passed(lh_store_block_read(&r, key, n_key, value, n)))
        return;
    const void *const arrays[] = {r.w, r.m, r.v, r.target};
    for (size_t i = 0; i < 4; i++)
        if (arrays[i])
            fuzzkit_touch(arrays[i], (size_t)(r.rows * r.cols) * sizeof(float));
    fuzzkit_touch(r.name, strlen(r.name));
}

static void block(const uint8_t *key, size_t n_key, unsigned char *value, size_t n)
{
    as_block(key, n_key, value, n);
    if (n < LH_STORE_BLOCK_HEADER)
        return;
    uint64_t sum = checksum(key, n_key, value, LH_STORE_BLOCK_HEADER - 8);
    put(value + LH_STORE_BLOCK_HEADER - 8,
        XXH3_64bits_withSeed(value + LH_STORE_BLOCK_HEADER, n - LH_STORE_BLOCK_HEADER, sum));
    as_block(key, n_key, value, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || (size_t)2 + data[1] > size)
        return 0;
    const uint8_t *key = data + 2;
    const size_t n_key = data[1], n = size - 2 - n_key;
    struct lh_store_key k = {.n = n_key};
    struct lh_store_meta meta;
    uint64_t digest;
    uint32_t shard;
    unsigned char *value = malloc(n + 1); /* aligned as LMDB's values are */
    if (!value)
        return 0;
    memcpy(value, key + n_key, n);
    memcpy(k.bytes, key, n_key);
    lh_err_clear();
    switch (data[0] % 3) {
    case 0:
        block(key, n_key, value, n);
        break;
    case 1:
        fuzzkit_passed(lh_store_block_read_meta(&meta, &k, value, n));
        if (n == LH_STORE_BLOCK_META)
            put(value + 88, checksum(key, n_key, value, 88));
        fuzzkit_passed(lh_store_block_read_meta(&meta, &k, value, n));
        break;
    default:
        fuzzkit_passed(lh_store_block_read_id(&digest, &shard, value, n));
        if (n == LH_STORE_BLOCK_ID)
            put(value + 24, checksum("id", 2, value, 24));
        fuzzkit_passed(lh_store_block_read_id(&digest, &shard, value, n));
    }
    free(value);
    return 0;
}
