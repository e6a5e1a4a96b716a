/* common/partition: a whole file. Read as it is, and once more with checksums that match, since
 * nobody guesses one and what lies behind it must be checked all the same. */
#include "common/partition.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>
#include <xxhash.h>

enum { FIXED = 128, ENTRY = 64, ROWS_MAX = 64 };

static uint64_t get(const unsigned char *p, size_t bytes)
{
    uint64_t x = 0;
    memcpy(&x, p, bytes);
    return x;
}

static void put(unsigned char *p, uint64_t x)
{
    memcpy(p, &x, sizeof x);
}

/* As PARTITIONS.md says. */
static void seal(unsigned char *file, size_t n)
{
    if (n < FIXED)
        return;
    const uint64_t header = get(file + 12, 4), columns = get(file + 92, 4);
    if (header > n || header < FIXED)
        return;
    for (uint64_t i = 0; i < columns && FIXED + (i + 1) * ENTRY <= header; i++) {
        const unsigned char *e = file + FIXED + i * ENTRY;
        const uint64_t offset = get(e + 32, 8), bytes = get(e + 40, 8), sums = get(e + 48, 8);
        if (offset > n || bytes > n - offset)
            continue;
        for (uint64_t at = 0, k = sums; at < bytes && k < header && 8 <= header - k;
             at += LH_PART_BLOCK, k += 8)
            put(file + k, XXH3_64bits(file + offset + at,
                                      bytes - at < LH_PART_BLOCK ? bytes - at : LH_PART_BLOCK));
    }
    put(file + 24, 0);
    put(file + 24, XXH3_64bits_withSeed(file + FIXED, header - FIXED, XXH3_64bits(file, FIXED)));
}

static void follow(const struct lh_partition *p, const struct lh_partition_head *h)
{
    for (uint64_t row = 0; row < h->rows && row < ROWS_MAX; row++) {
        const uint8_t *flags = lh_partition_row(p, LH_PART_FLAGS, row);
        uint64_t next;
        if (flags && *flags & LH_PART_HAS_NEXT &&
            fuzzkit_passed(lh_partition_next(p, row, *flags, &next))) {
            fuzzkit_require(next < h->rows + h->halos, "a next state is one");
            lh_partition_row(p, LH_PART_HIGH, next);
        }
    }
    fuzzkit_require(h->cuts <= h->rows, "cuts are rows");
    for (uint64_t k = 0; k < h->rows - h->cuts && k < ROWS_MAX; k++)
        fuzzkit_require(lh_partition_transition(p, k) < h->rows, "a transition is a row");
}

static void read_all(const unsigned char *file, size_t n)
{
    struct lh_partition *p = NULL;
    lh_err_clear();
    if (!fuzzkit_passed(lh_partition_open_memory(&p, file, n, "fuzz.lhp")))
        return;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        struct lh_partition_column_info info;
        lh_partition_column_info(p, (enum lh_part_column)c, &info);
        const void *column = lh_partition_column(p, (enum lh_part_column)c);
        fuzzkit_require(column || *lh_err_text(), "a damaged column has a sentence");
        if (column)
            fuzzkit_touch(column, info.bytes);
    }
    fuzzkit_passed(lh_partition_verify(p));
    follow(p, lh_partition_head(p));
    lh_partition_close(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *file = aligned_alloc(64, (size + 64) / 64 * 64);
    if (!file)
        return 0;
    memcpy(file, data, size);
    read_all(file, size);
    seal(file, size);
    read_all(file, size);
    free(file);
    return 0;
}
