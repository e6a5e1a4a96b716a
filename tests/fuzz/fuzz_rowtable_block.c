/* ps/rowtable_block: byte 0 says whether the rest is a row or a version file, byte 1 how many
 * elements a row has. Read as it is, and once more with a checksum that matches, since nobody
 * guesses one and what lies behind it must be checked all the same. */
#include "ps/rowtable_block.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>
#include <xxhash.h>

enum { ID = 77 };

static void put(unsigned char *at, uint64_t x)
{
    memcpy(at, &x, sizeof x); /* this runs on little-endian machines */
}

static void as_row(const unsigned char *value, size_t n, uint32_t dim)
{
    struct lh_rowtable_record row;
    if (fuzzkit_passed(lh_rowtable_block_read(&row, ID, value, n, dim)) && row.updates > 0)
        fuzzkit_touch(row.arrays, (size_t)3 * dim * sizeof(float));
}

static void as_version(const unsigned char *value, size_t n)
{
    struct lh_rowtable_version v;
    if (!fuzzkit_passed(lh_rowtable_block_read_version(&v, value, n)))
        return;
    fuzzkit_touch(v.runs, v.n_runs * sizeof *v.runs);
    unsigned char *again = malloc(lh_rowtable_block_version_size(v.n_runs));
    if (again) {
        lh_rowtable_block_write_version(again, &v);
        fuzzkit_require(lh_rowtable_block_version_size(v.n_runs) == n &&
                            memcmp(again, value, n) == 0,
                        "a version that was read is written as it was");
    }
    free(again);
    lh_mem_free(v.runs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const size_t n = size - 2;
    const uint32_t dim = data[1];
    unsigned char *value = malloc(n + 1);
    if (!value)
        return 0;
    memcpy(value, data + 2, n);
    lh_err_clear();
    if (data[0] % 2) {
        as_version(value, n);
        if (n >= 8)
            put(value + n - 8, XXH3_64bits(value, n - 8));
        as_version(value, n);
    } else {
        as_row(value, n, dim);
        if (n >= 8)
            put(value, XXH3_64bits_withSeed(value + 8, n - 8, ID));
        as_row(value, n, dim);
    }
    free(value);
    return 0;
}
