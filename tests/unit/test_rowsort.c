#include "common/rng.h"
#include "common/rowsort.h"
#include "tests/testkit.h"

#include <string.h>

enum { WIDTH = sizeof(struct lh_row) + 8 };

static void fill(void *ctx, void *record)
{
    memcpy(record, ctx, WIDTH);
}

static void put(struct lh_spool *s, const struct lh_row *row)
{
    char bytes[WIDTH];
    memcpy(bytes, row, sizeof *row);
    memcpy(bytes + sizeof *row, &row->order, 8); /* travels with its row */
    assert_ok(lh_spool_put(s, 1, WIDTH, fill, bytes));
}

static void check_sorted(size_t n, unsigned users, int shuffled, uint64_t limit)
{
    struct lh_spool *from = NULL, *to = NULL;
    struct lh_rng_at at = {.seed = n, .part = users};
    assert_ok(lh_spool_create(&from, kit_dir(), "from", 2, limit));
    assert_ok(lh_spool_create(&to, kit_dir(), "to", 2, limit));
    for (size_t i = 0; i < n; i++) {
        uint64_t user = lh_rng_below(&at, 2 * i, users);
        struct lh_rng_at hash = {.seed = 9, .step = user};
        struct lh_row row = {lh_rng_u64(&hash, 0) >> 4 | UINT64_C(7) << 60, user,
                             shuffled ? (int64_t)lh_rng_below(&at, 2 * i + 1, 50) - 20 : 5, i};
        put(from, &row);
    }
    uint64_t counted = 0, seen = 0, sum = 0;
    assert_ok(lh_rowsort_bucket(from, to, 1, WIDTH, 4, &counted));
    struct lh_spool_view v;
    assert_ok(lh_spool_view_open(&v, to, 1, 0));
    assert_int_equal(v.n, n > 0);
    assert_int_equal(lh_spool_bytes(from, 1), 0);
    struct lh_row last = {0};
    for (size_t i = 0; i < n; i++) {
        struct lh_row row;
        uint64_t order;
        const char *p = (const char *)v.spans[0].data + i * WIDTH;
        memcpy(&row, p, sizeof row);
        memcpy(&order, p + sizeof row, 8);
        assert_int_equal(order, row.order);
        sum += order;
        if (i == 0 || row.user != last.user) {
            assert_true(i == 0 || row.hash > last.hash);
            seen++;
        } else {
            assert_true(row.time > last.time || (row.time == last.time && row.order > last.order));
        }
        last = row;
    }
    assert_int_equal(seen, counted);
    assert_int_equal(sum, n * (n - 1) / 2);
    lh_spool_view_close(&v);
    lh_spool_destroy(&from);
    lh_spool_destroy(&to);
}

static void bucket_is_sorted_by_user_time_and_order(void **state)
{
    (void)state;
    check_sorted(0, 1, 0, UINT64_MAX);
    check_sorted(1, 1, 0, UINT64_MAX);
    check_sorted(500, 1, 1, UINT64_MAX); /* one user: one cell beyond insertion */
    check_sorted(3000, 40, 1, UINT64_MAX);
    check_sorted(3000, 2000, 1, 20000);
    check_sorted(2000, 70, 0, 0);
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct lh_spool *from = NULL, *to = NULL;
        struct lh_row row = {1, 2, 3, 4};
        uint64_t users;
        assert_ok(lh_spool_create(&from, kit_dir(), "from", 2, UINT64_MAX));
        assert_ok(lh_spool_create(&to, kit_dir(), "to", 2, UINT64_MAX));
        put(from, &row);
        lh_mem_fail_at(n);
        int rc = lh_rowsort_bucket(from, to, 1, WIDTH, 4, &users);
        lh_mem_fail_at(0);
        lh_spool_destroy(&from);
        lh_spool_destroy(&to);
        if (rc == 0)
            return;
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(bucket_is_sorted_by_user_time_and_order),
        kit_test(failed_allocations_leave_nothing),
    };
    return cmocka_run_group_tests_name("rowsort", tests, NULL, NULL);
}
