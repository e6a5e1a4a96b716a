#include "ps/rowtable_block.h"
#include "tests/testkit.h"

#include <string.h>
#include <xxhash.h>

enum { DIM = 2 };

static void key_sorts_by_id(void **state)
{
    (void)state;
    static const uint64_t ids[] = {0, 1, 255, 256, (uint64_t)1 << 40, UINT64_MAX};
    unsigned char key[2][LH_ROWTABLE_BLOCK_KEY];
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        lh_rowtable_block_key(key[i % 2], ids[i]);
        assert_true(lh_rowtable_block_id(key[i % 2]) == ids[i]);
        assert_true(i == 0 || memcmp(key[(i - 1) % 2], key[i % 2], sizeof *key) < 0);
    }
}

static void row_has_the_bytes_of_the_page(void **state)
{
    (void)state;
    const float arrays[3 * DIM] = {1, -2, 3, -4, 5, -6};
    struct lh_rowtable_record row = {0x0102030405060708u, 9, 4, 3, arrays}, got;
    unsigned char value[24 + sizeof arrays], moved[sizeof value + 1];
    assert_int_equal(lh_rowtable_block_size(&row, DIM), sizeof value);
    lh_rowtable_block_write(value, &row, DIM);
    static const unsigned char head[] = {9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0};
    assert_memory_equal(value + 8, head, sizeof head);
    assert_memory_equal(value + 24, arrays, sizeof arrays);
    const uint64_t sum = XXH3_64bits_withSeed(value + 8, sizeof value - 8, row.id);
    assert_memory_equal(value, &sum, sizeof sum);
    memcpy(moved + 1, value, sizeof value); /* files have rows at any address */
    assert_ok(lh_rowtable_block_read(&got, row.id, moved + 1, sizeof value, DIM));
    assert_true(got.id == row.id && got.last == 9 && got.seen == 4 && got.updates == 3);
    assert_memory_equal(got.arrays, arrays, sizeof arrays);
    row.updates = 0; /* not admitted: no arrays */
    assert_int_equal(lh_rowtable_block_size(&row, DIM), 24);
    lh_rowtable_block_write(value, &row, DIM);
    assert_ok(lh_rowtable_block_read(&got, row.id, value, 24, DIM));
    assert_null(got.arrays);
}

static void row_that_is_not_as_written_is_refused(void **state)
{
    (void)state;
    const float arrays[3 * DIM] = {1, -2, 3, -4, 5, -6};
    const struct lh_rowtable_record row = {77, 9, 4, 3, arrays};
    struct lh_rowtable_record got;
    unsigned char value[24 + sizeof arrays];
    lh_rowtable_block_write(value, &row, DIM);
    for (size_t bit = 0; bit < 8 * sizeof value; bit++) {
        value[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_err(lh_rowtable_block_read(&got, 77, value, sizeof value, DIM), LH_ECORRUPT,
                   "id 77: ");
        value[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_err(lh_rowtable_block_read(&got, 78, value, sizeof value, DIM), LH_ECORRUPT, "id 78: ");
    for (size_t n = 0; n < sizeof value; n++)
        assert_err(lh_rowtable_block_read(&got, 77, value, n, DIM), LH_ECORRUPT, "id 77: ");
    assert_err(lh_rowtable_block_read(&got, 77, value, sizeof value, DIM + 1), LH_ECORRUPT,
               "a row of 3 elements has 60");
}

static void version_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct lh_rowtable_run_ref runs[] = {{4, 1000, 8192}, {7, 3, 4096}};
    const struct lh_rowtable_version v = {.job_digest = 1,
                                          .version = 2,
                                          .shard = 3,
                                          .shards = 4,
                                          .dim = 5,
                                          .admit_after = 6,
                                          .name_hash = 7,
                                          .n_runs = 2,
                                          .evict_after = 8,
                                          .seed = 9,
                                          .init_scale = 0.1,
                                          .runs = runs};
    struct lh_rowtable_version got;
    unsigned char bytes[128 + 1];
    assert_int_equal(lh_rowtable_block_version_size(2), 128);
    lh_rowtable_block_write_version(bytes, &v);
    assert_memory_equal(bytes, "LHTV\1\0\0\0\1\0\0\0\0\0\0\0\2", 17);
    assert_ok(lh_rowtable_block_read_version(&got, bytes, 128));
    assert_memory_equal(got.runs, runs, sizeof runs);
    lh_mem_free(got.runs);
    got.runs = runs;
    assert_memory_equal(&got, &v, sizeof v);
    for (size_t bit = 0; bit < 8 * 128; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_err(lh_rowtable_block_read_version(&got, bytes, 128), LH_ECORRUPT, "checksum");
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t n = 0; n < 128; n++)
        assert_err(lh_rowtable_block_read_version(&got, bytes, n), LH_ECORRUPT, "checksum");
    bytes[4] = 2; /* a later format */
    const uint64_t sum = XXH3_64bits(bytes, 120);
    memcpy(bytes + 120, &sum, 8);
    assert_err(lh_rowtable_block_read_version(&got, bytes, 128), LH_EFORMAT, "has format 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(key_sorts_by_id),
        kit_test(row_has_the_bytes_of_the_page),
        kit_test(row_that_is_not_as_written_is_refused),
        kit_test(version_is_read_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
