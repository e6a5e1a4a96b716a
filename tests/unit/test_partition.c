#include "common/partition.h"
#include "common/partition_internal.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <xxhash.h>

#include <stdlib.h>
#include <string.h>

/* 5 rows, one halo: trajectories 0-2 (goes on in a later day), 3 (cut off), 4 (ends). */
enum { ROWS = 5, H = 3, L = 2, A = 1 };

static const struct lh_partition_head head = {.dims = {H, L, A, 2},
                                              .split = LH_TEST,
                                              .day = -3,
                                              .hash = 2,
                                              .rows = ROWS,
                                              .halos = 1,
                                              .cuts = 1,
                                              .pieces = 3};

static void write_partition(const char *path)
{
    float states[(ROWS + 1) * H];
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        states[i] = (float)i;
    static const uint8_t flags[ROWS] = {
        LH_PART_FIRST | LH_PART_HAS_NEXT, LH_PART_HAS_NEXT, LH_PART_HAS_NEXT | LH_PART_NEXT_IS_HALO,
        LH_PART_FIRST | LH_PART_LAST, LH_PART_FIRST | LH_PART_LAST | LH_PART_ENDS};
    static const uint8_t classes[ROWS] = {0, 1, 0, 1, 0};
    static const int64_t times[ROWS] = {1, 2, 3, 4, 5};
    static const uint64_t ids[ROWS] = {7, 7, 7, 8, 9};
    static const uint32_t sessions[ROWS] = {0}, cut[1] = {3}, halo[1] = {2};
    const struct {
        enum lh_part_column c;
        const void *data;
        size_t bytes;
    } columns[] = {
        {LH_PART_HIGH, states, sizeof states},    {LH_PART_LOW, states, (ROWS + 1) * L * 4},
        {LH_PART_ACTION, states, ROWS * A * 4},   {LH_PART_REWARD, states, ROWS * 4},
        {LH_PART_CLASS, classes, sizeof classes}, {LH_PART_FLAGS, flags, sizeof flags},
        {LH_PART_TIME, times, sizeof times},      {LH_PART_USER, ids, sizeof ids},
        {LH_PART_TRAJECTORY, ids, sizeof ids},    {LH_PART_SESSION, sessions, sizeof sessions},
        {LH_PART_CUT, cut, sizeof cut},           {LH_PART_HALO, halo, sizeof halo},
    };
    struct lh_partition_segment *out = NULL;
    uint64_t checksum, bytes;
    assert_ok(lh_partition_create(path, &head));
    /* two segments, the later columns first, a byte at a time: order and pieces do not matter */
    for (size_t half = 2; half-- > 0;) {
        assert_ok(lh_partition_segment_open(&out, path, &head));
        for (size_t i = half * 6; i < half * 6 + 6; i++) {
            assert_ok(lh_partition_segment_begin(out, columns[i].c, 0));
            for (size_t b = 0; b < columns[i].bytes; b++)
                assert_ok(lh_partition_segment_put(out, (const char *)columns[i].data + b, 1));
        }
        assert_ok(lh_partition_segment_close(&out));
    }
    assert_ok(lh_partition_seal(path, &head, &checksum, &bytes));
}

static void open_reads_what_was_written(void **state)
{
    (void)state;
    write_partition(kit_path("p.lhp"));
    struct lh_partition *p = NULL;
    assert_ok(lh_partition_open(&p, kit_path("p.lhp")));
    assert_memory_equal(lh_partition_head(p), &head, sizeof head);
    const float *high = lh_partition_row(p, LH_PART_HIGH, 5); /* the halo */
    assert_true(high[0] == 15 && high[2] == 17);
    assert_int_equal((uintptr_t)lh_partition_row(p, LH_PART_LOW, 0) % 64, 0);
    uint64_t next;
    const uint8_t *flags = lh_partition_column(p, LH_PART_FLAGS);
    assert_ok(lh_partition_next(p, 0, flags[0], &next));
    assert_int_equal(next, 1);
    assert_ok(lh_partition_next(p, 2, flags[2], &next));
    assert_int_equal(next, 5);
    assert_err(lh_partition_next(p, 1, flags[2], &next), LH_ECORRUPT, "row 1 says");
    static const uint64_t transitions[] = {0, 1, 2, 4};
    for (uint64_t k = 0; k < 4; k++)
        assert_int_equal(lh_partition_transition(p, k), transitions[k]);
    assert_ok(lh_partition_verify(p));
    struct lh_partition_column_info info;
    lh_partition_column_info(p, LH_PART_ACTION, &info);
    assert_string_equal(info.name, "action");
    assert_string_equal(info.type, "f32");
    assert_int_equal(info.bytes, 20);
    lh_partition_close(&p);
}

static unsigned char *load(size_t *n)
{
    write_partition(kit_path("p.lhp"));
    char *bytes = kit_read(kit_path("p.lhp"), n);
    unsigned char *aligned = aligned_alloc(64, (*n + 63) / 64 * 64);
    memcpy(aligned, bytes, *n);
    free(bytes);
    return aligned;
}

static void any_flipped_bit_is_found(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = load(&n);
    for (size_t i = 0; i < n; i++) {
        struct lh_partition *p = NULL;
        bytes[i] ^= (unsigned char)(1u << i % 8);
        int rc = lh_partition_open_memory(&p, bytes, n, "p");
        if (rc == 0) {
            rc = lh_partition_verify(p);
            /* between columns there is nothing to damage */
            bool gap = true;
            for (int c = 0; c < LH_PART_COLUMNS; c++) {
                struct lh_partition_column_info info;
                lh_partition_column_info(p, (enum lh_part_column)c, &info);
                gap &= i < info.offset || i >= info.offset + info.bytes;
            }
            assert_true(rc == LH_ECORRUPT || (rc == 0 && gap));
        }
        lh_partition_close(&p);
        bytes[i] ^= (unsigned char)(1u << i % 8);
    }
    for (size_t cut = 0; cut < n; cut += 7) {
        struct lh_partition *p = NULL;
        assert_true(lh_partition_open_memory(&p, bytes, cut, "p") < 0);
    }
    free(bytes);
}

/* A header that lies and has a checksum to prove it. */
static void seal(unsigned char *bytes)
{
    struct lh_part_fixed f;
    memcpy(&f, bytes, sizeof f);
    f.checksum = 0;
    uint64_t sum = XXH3_64bits(&f, sizeof f);
    if (f.header_bytes >= sizeof f)
        sum = XXH3_64bits_withSeed(bytes + sizeof f, f.header_bytes - sizeof f, sum);
    memcpy(bytes + offsetof(struct lh_part_fixed, checksum), &sum, 8);
}

static void lying_headers_are_refused_or_harmless(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 3, 64, 4096, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 63};
    size_t n;
    unsigned char *bytes = load(&n);
    uint32_t header;
    memcpy(&header, bytes + 12, 4);
    for (size_t at = 32; at < sizeof(struct lh_part_fixed) + (LH_PART_COLUMNS - 1) * 64; at += 4) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            unsigned char saved[8];
            memcpy(saved, bytes + at, 8);
            memcpy(bytes + at, &values[v], v % 2 ? 8 : 4);
            seal(bytes);
            struct lh_partition *p = NULL;
            if (lh_partition_open_memory(&p, bytes, n, "p") == 0) {
                const struct lh_partition_head *h = lh_partition_head(p);
                lh_partition_verify(p); /* must not read beyond the bytes */
                for (uint64_t k = 0; k < h->rows - h->cuts; k++)
                    assert_true(lh_partition_transition(p, k) < h->rows);
            }
            lh_partition_close(&p);
            memcpy(bytes + at, saved, 8);
        }
    }
    free(bytes);
}

static void newer_version_is_named(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = load(&n);
    struct lh_partition *p = NULL;
    bytes[8] = 9;
    assert_err(lh_partition_open_memory(&p, bytes, n, "p"), LH_EFORMAT, "version 9");
    free(bytes);
    kit_write(kit_path("short"), "x");
    assert_err(lh_partition_open(&p, kit_path("short")), LH_EFORMAT, "not a partition file");
    assert_err(lh_partition_open(&p, kit_path("none")), LH_ENOENT, "none");
    assert_true(lh_partition_open(&p, kit_dir()) < 0);
}

static void users_spread_over_hash_partitions(void **state)
{
    (void)state;
    unsigned count[7] = {0};
    for (uint64_t user = 0; user < 7000; user++) {
        uint32_t h = lh_partition_of_user(user, 7);
        assert_true(h < 7);
        count[h]++;
    }
    for (size_t i = 0; i < 7; i++)
        assert_true(count[i] > 850 && count[i] < 1150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_reads_what_was_written),           kit_test(any_flipped_bit_is_found),
        kit_test(lying_headers_are_refused_or_harmless), kit_test(newer_version_is_named),
        kit_test(users_spread_over_hash_partitions),
    };
    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
