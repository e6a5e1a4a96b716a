#include "common/fs.h"
#include "common/spool.h"
#include "tests/testkit.h"

#include <pthread.h>
#include <string.h>

enum { BUCKETS = 5 };

static void fill(void *ctx, void *record)
{
    const uint64_t *r = ctx; /* {bytes, value} */
    uint64_t *out = record;
    for (size_t i = 0; i < r[0] / 8; i++)
        out[i] = i == 0 ? r[0] : r[1];
}

/* Record k: 8 to 800 bytes, to bucket k % BUCKETS. */
static int put(struct lh_spool *s, uint64_t k)
{
    uint64_t r[2] = {16 + k * 37 % 100 * 8, k};
    return lh_spool_put(s, k % BUCKETS, r[0], fill, r);
}

static void check(struct lh_spool *s, uint64_t records)
{
    uint64_t seen = 0;
    for (size_t b = 0; b < BUCKETS; b++) {
        struct lh_spool_view v;
        uint64_t n = 0, bytes = 0;
        assert_ok(lh_spool_view_open(&v, s, b, b % 2 ? 0 : UINT64_MAX));
        for (size_t i = 0; i < v.n; i++) {
            const uint64_t *p = v.spans[i].data, *end = p + v.spans[i].bytes / 8;
            for (; p < end; p += p[0] / 8, n++) {
                uint64_t k = p[1];
                assert_int_equal(k % BUCKETS, b);
                assert_int_equal(p[0], 16 + k * 37 % 100 * 8);
                for (size_t j = 1; j < p[0] / 8; j++)
                    assert_int_equal(p[j], k);
                seen += k;
                bytes += p[0];
            }
        }
        lh_spool_view_release(&v);
        lh_spool_view_close(&v);
        assert_int_equal(n, lh_spool_records(s, b));
        assert_int_equal(bytes, lh_spool_bytes(s, b));
    }
    assert_int_equal(seen, records * (records - 1) / 2);
}

static void records_come_back_from_memory_and_files(void **state)
{
    (void)state;
    static const uint64_t limits[] = {UINT64_MAX, 100000, 0};
    for (size_t i = 0; i < 3; i++) {
        struct lh_spool *s = NULL;
        assert_ok(lh_spool_create(&s, kit_dir(), "x", BUCKETS, limits[i]));
        for (uint64_t k = 0; k < 2000; k++)
            assert_ok(put(s, k));
        assert_int_equal(lh_spool_spilled(s) > 0, i > 0);
        check(s, 2000);
        lh_spool_drop(s, 1);
        assert_int_equal(lh_spool_records(s, 1), 0);
        lh_spool_destroy(&s);
        assert_int_equal(kit_run(NULL, "ls %s | grep x", kit_dir()), 1);
    }
}

struct putter {
    struct lh_spool *s;
    uint64_t first;
};

static void *put_some(void *arg)
{
    const struct putter *p = arg;
    for (uint64_t k = p->first; k < 3000; k += 3)
        if (put(p->s, k) < 0)
            return arg;
    return NULL;
}

static void threads_may_put_while_one_spills(void **state)
{
    (void)state;
    struct lh_spool *s = NULL;
    pthread_t id[3];
    struct putter p[3];
    assert_ok(lh_spool_create(&s, kit_dir(), "x", BUCKETS, 120000));
    for (size_t i = 0; i < 3; i++) {
        p[i] = (struct putter){s, i};
        assert_int_equal(pthread_create(&id[i], NULL, put_some, &p[i]), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        void *failed;
        pthread_join(id[i], &failed);
        assert_null(failed);
    }
    check(s, 3000);
    lh_spool_destroy(&s);
}

static void failures_are_reported(void **state)
{
    (void)state;
    struct lh_spool *s = NULL;
    assert_ok(lh_spool_create(&s, kit_path("nowhere"), "x", BUCKETS, 0));
    assert_err(put(s, 1), LH_ENOENT, "nowhere/x-00001.spool");
    lh_spool_destroy(&s);
    assert_ok(lh_spool_create(&s, kit_dir(), "x", BUCKETS, 0));
    assert_ok(put(s, 1));
    struct lh_spool_view v;
    assert_int_equal(kit_run(NULL, "truncate -s 8 %s", kit_path("x-00001.spool")), 0);
    assert_err(lh_spool_view_open(&v, s, 1, 0), LH_EIO, "8 bytes long");
    lh_spool_destroy(&s);
}

static void put_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct lh_spool *s = NULL;
        lh_mem_fail_at(n);
        int rc = lh_spool_create(&s, kit_dir(), "x", BUCKETS, 0);
        for (uint64_t k = 0; k < 8 && rc == 0; k++)
            rc = put(s, k);
        lh_mem_fail_at(0);
        lh_spool_destroy(&s);
        if (rc == 0) {
            assert_true(n > 8);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(records_come_back_from_memory_and_files),
        kit_test(threads_may_put_while_one_spills),
        kit_test(failures_are_reported),
        kit_test(put_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
