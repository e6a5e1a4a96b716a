#include "common/rng.h"
#include "ps/rowtable_run.h"
#include "ps/rowtable_scan.h"
#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>

enum { DIM = 4, ROWS = 4000 };

static float arrays_of[ROWS][3 * DIM];

/* Row i of some generation: all of it follows from both. */
static struct lh_rowtable_record record(uint64_t i, uint64_t generation)
{
    for (uint32_t c = 0; c < 3 * DIM; c++)
        arrays_of[i][c] = (float)(i * 100 + c) + (float)generation * 0x1p-3f;
    return (struct lh_rowtable_record){
        .id = i * i * 977,
        .last = generation,
        .seen = (uint32_t)i,
        .updates = i % 5 == 0 ? 0 : (uint32_t)generation,
        .arrays = arrays_of[i],
    };
}

static void check(const struct lh_rowtable_record *got, uint64_t i, uint64_t generation)
{
    const struct lh_rowtable_record want = record(i, generation);
    assert_true(got->id == want.id && got->last == want.last && got->seen == want.seen &&
                got->updates == want.updates);
    if (want.updates > 0)
        assert_memory_equal(got->arrays, want.arrays, sizeof *arrays_of);
}

static void put_one(struct lh_rowtable_run *run, uint64_t i, uint64_t generation)
{
    const struct lh_rowtable_record r = record(i, generation);
    assert_ok(lh_rowtable_run_put(run, &r, 1));
}

static void rows_are_read_back_while_they_are_written_and_sealed(void **state)
{
    (void)state;
    struct lh_rowtable_run *run = NULL, *again = NULL;
    struct lh_rowtable_record r, *all = calloc(ROWS, sizeof *all);
    assert_ok(lh_rowtable_run_create(&run, kit_dir(), 3, DIM, NULL, 0));
    assert_int_equal(lh_rowtable_run_get(run, 5, &r), LH_NOTFOUND);
    for (uint64_t i = 0; i < ROWS; i++)
        all[i] = record(i, 1);
    assert_ok(lh_rowtable_run_put(run, all + ROWS / 2, ROWS / 2)); /* several transactions */
    assert_ok(lh_rowtable_run_put(run, all, ROWS / 2));
    for (uint64_t i = 0; i < ROWS; i += 3) {
        put_one(run, i, 2);
        assert_ok(lh_rowtable_run_get(run, all[i].id, &r));
        check(&r, i, 2);
    }
    assert_int_equal(lh_rowtable_run_get(run, 976, &r), LH_NOTFOUND);
    for (int sealed = 0; sealed < 2; sealed++) {
        assert_int_equal(lh_rowtable_run_ref(run)->number, 3);
        assert_int_equal(lh_rowtable_run_ref(run)->records, ROWS);
        int rc = lh_rowtable_run_seek(run, 1, &r);
        for (uint64_t i = 1; i < ROWS; i++) {
            assert_ok(rc);
            check(&r, i, i % 3 == 0 ? 2 : 1);
            rc = lh_rowtable_run_next(run, &r);
        }
        assert_int_equal(rc, LH_NOTFOUND);
        assert_int_equal(lh_rowtable_run_seek(run, UINT64_MAX, &r), LH_NOTFOUND);
        assert_ok(lh_rowtable_run_seal(run));
    }
    const struct lh_rowtable_run_ref ref = *lh_rowtable_run_ref(run);
    assert_ok(lh_rowtable_run_sync(kit_dir(), 3));
    assert_ok(lh_rowtable_run_open(&again, kit_dir(), &ref, DIM, true, NULL)); /* both at once */
    assert_ok(lh_rowtable_run_get(again, all[7].id, &r));
    check(&r, 7, 1);
    lh_rowtable_run_close(&again);
    struct lh_rowtable_run_ref wrong = ref;
    wrong.bytes++;
    assert_err(lh_rowtable_run_open(&again, kit_dir(), &wrong, DIM, true, NULL), LH_ECORRUPT,
               "r3.mdb: has ");
    wrong = ref;
    wrong.records++;
    assert_err(lh_rowtable_run_open(&again, kit_dir(), &wrong, DIM, true, NULL), LH_ECORRUPT,
               "its version says 4001");
    assert_err(lh_rowtable_run_open(&again, kit_dir(), &ref, DIM + 1, true, NULL), LH_ECORRUPT,
               "id ");
    lh_rowtable_run_close(&run);
    assert_ok(lh_rowtable_run_remove(kit_dir(), 3));
    assert_ok(lh_rowtable_run_remove(kit_dir(), 3));
    assert_err(lh_rowtable_run_open(&again, kit_dir(), &ref, DIM, true, NULL), LH_ENOENT, "r3.mdb");
    assert_err(lh_rowtable_run_sync(kit_dir(), 3), LH_ENOENT, "r3.mdb");
    free(all);
}

static void run_grows_beyond_its_first_map(void **state)
{
    (void)state;
    enum { WIDE = 2000, MANY = 900 }; /* 22 MB, in large values */
    struct lh_rowtable_run *run = NULL;
    float *arrays = calloc(3 * WIDE, sizeof *arrays);
    struct lh_rowtable_record r;
    assert_ok(lh_rowtable_run_create(&run, kit_dir(), 0, WIDE, NULL, 0));
    for (uint64_t i = 0; i < MANY; i++) {
        const struct lh_rowtable_record put = {i * 7, i, 1, 1, arrays};
        arrays[0] = (float)i;
        assert_ok(lh_rowtable_run_put(run, &put, 1));
        assert_ok(lh_rowtable_run_get(run, i / 2 * 7, &r)); /* over the change of the map */
        float x;
        memcpy(&x, r.arrays, sizeof x);
        assert_true(x == (float)(i / 2));
    }
    lh_rowtable_run_close(&run);
    free(arrays);
}

static void names_are_told_apart(void **state)
{
    (void)state;
    uint64_t n = 0;
    assert_true(lh_rowtable_run_is_name("r0.mdb", &n) && n == 0);
    assert_true(lh_rowtable_run_is_name("r18446744073709551615.mdb", &n) && n == UINT64_MAX);
    assert_false(lh_rowtable_run_is_name("r01.mdb", &n));
    assert_false(lh_rowtable_run_is_name("r1.mdb.partial", &n));
    assert_false(lh_rowtable_run_is_name("r1", &n));
    assert_false(lh_rowtable_run_is_name("r-1.mdb", &n));
    assert_false(lh_rowtable_run_is_name("v1", &n));
}

static void scan_gives_the_newest_of_each_id_in_order(void **state)
{
    (void)state;
    enum { RUNS = 5, N = 300 };
    struct lh_rng_at at = {.seed = 9};
    struct lh_rowtable_run *run[RUNS];
    struct lh_rowtable_scan *scan = NULL;
    struct lh_rowtable_record r;
    uint64_t newest[N] = {0};
    for (uint64_t k = 0; k < RUNS; k++) {
        assert_ok(lh_rowtable_run_create(&run[k], kit_dir(), k, DIM, NULL, 0));
        for (uint64_t i = 0; i < N; i++) {
            if (k == 2 || lh_rng_below(&at, at.step++, 3) > 0) /* one stays empty */
                continue;
            put_one(run[k], i, k + 1);
            newest[i] = k + 1;
        }
        assert_ok(lh_rowtable_run_seal(run[k]));
    }
    assert_ok(lh_rowtable_scan_create(&scan, run, RUNS));
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = pass ? N / 2 : 0; i < N; i++) {
            if (newest[i] == 0)
                continue;
            assert_ok(lh_rowtable_scan_next(scan, &r));
            check(&r, i, newest[i]);
        }
        assert_int_equal(lh_rowtable_scan_next(scan, &r), LH_NOTFOUND);
        assert_ok(lh_rowtable_scan_seek(scan, (uint64_t)(N / 2) * (N / 2) * 977));
    }
    lh_rowtable_scan_destroy(&scan);
    assert_ok(lh_rowtable_scan_create(&scan, NULL, 0));
    assert_int_equal(lh_rowtable_scan_next(scan, &r), LH_NOTFOUND);
    lh_rowtable_scan_destroy(&scan);
    for (int k = 0; k < RUNS; k++)
        lh_rowtable_run_close(&run[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(rows_are_read_back_while_they_are_written_and_sealed),
        kit_test(run_grows_beyond_its_first_map),
        kit_test(names_are_told_apart),
        kit_test(scan_gives_the_newest_of_each_id_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
