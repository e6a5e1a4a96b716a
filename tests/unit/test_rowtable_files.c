#include "common/fs.h"
#include "ps/rowtable_files.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

static const char *dir_of_table(void)
{
    return kit_path("t");
}

/* Stands for a run: nobody here reads one. */
static uint64_t make_run(struct lh_rowtable_files *f)
{
    uint64_t number;
    char name[64];
    assert_ok(lh_rowtable_files_take(f, &number));
    snprintf(name, sizeof name, "t/r%llu.mdb", (unsigned long long)number);
    kit_write(kit_path(name), "rows");
    return number;
}

static int there(const char *prefix, uint64_t number, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "t/%s%llu%s", prefix, (unsigned long long)number, suffix);
    return lh_fs_exists(kit_path(name));
}

static void add(struct lh_rowtable_files *f, uint64_t version, const uint64_t *runs, uint32_t n)
{
    struct lh_rowtable_run_ref refs[4] = {0};
    for (uint32_t i = 0; i < n; i++)
        refs[i].number = runs[i];
    const struct lh_rowtable_version v = {
        .version = version, .shards = 1, .dim = 1, .n_runs = n, .runs = refs};
    assert_ok(lh_rowtable_files_add(f, &v));
}

static void run_lives_as_long_as_somebody_needs_it(void **state)
{
    (void)state;
    struct lh_rowtable_files *f = NULL;
    assert_ok(lh_rowtable_files_open(&f, dir_of_table()));
    const uint64_t a = make_run(f), b = make_run(f), c = make_run(f);
    assert_true(a != b && b != c && a != c);
    add(f, 10, (const uint64_t[]){a, b}, 2);
    add(f, 20, (const uint64_t[]){b, c}, 2);
    assert_ok(lh_rowtable_files_drop(f, a));
    assert_ok(lh_rowtable_files_drop(f, b));
    assert_true(there("r", a, ".mdb") && there("r", b, ".mdb"));
    assert_ok(lh_rowtable_files_prune(f, (const uint64_t[]){20, 99}, 2));
    assert_true(!there("v", 10, "") && there("v", 20, ""));
    assert_true(!there("r", a, ".mdb") && there("r", b, ".mdb"));
    assert_ok(lh_rowtable_files_prune(f, NULL, 0));
    assert_true(!there("r", b, ".mdb") && there("r", c, ".mdb")); /* c is held */
    assert_ok(lh_rowtable_files_drop(f, c));
    assert_true(!there("r", c, ".mdb"));
    lh_rowtable_files_close(&f);
}

static void open_removes_what_a_killed_server_left(void **state)
{
    (void)state;
    struct lh_rowtable_files *f = NULL;
    struct lh_rowtable_version v;
    assert_ok(lh_rowtable_files_open(&f, dir_of_table()));
    const uint64_t a = make_run(f), b = make_run(f);
    add(f, 10, &a, 1);
    add(f, 10, &a, 1);           /* again: the same */
    lh_rowtable_files_close(&f); /* killed: b was being written */
    assert_ok(lh_rowtable_files_open(&f, dir_of_table()));
    assert_true(there("r", a, ".mdb") && !there("r", b, ".mdb"));
    assert_true(make_run(f) != a);
    assert_ok(lh_rowtable_files_hold(f, a));
    assert_ok(lh_rowtable_files_prune(f, NULL, 0));
    assert_true(there("r", a, ".mdb")); /* restored from, needed for the next version */
    assert_err(lh_rowtable_files_read(dir_of_table(), 10, &v), LH_ENOENT, "t/v10");
    add(f, 11, &a, 1);
    assert_int_equal(kit_run(NULL, "mv '%s/v11' '%s/v12'", dir_of_table(), dir_of_table()), 0);
    assert_err(lh_rowtable_files_read(dir_of_table(), 12, &v), LH_ECORRUPT, "is version 11");
    lh_rowtable_files_close(&f);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct lh_rowtable_files *f = NULL;
    uint64_t nth = 0, number = 0;
    int rc;
    assert_ok(lh_rowtable_files_open(&f, dir_of_table()));
    const uint64_t a = make_run(f);
    add(f, 1, &a, 1);
    lh_rowtable_files_close(&f);
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_files_open(&f, dir_of_table());
    } while (rc == LH_ENOMEM);
    lh_mem_fail_at(0);
    assert_ok(rc);
    assert_true(nth > 5 && there("r", a, ".mdb") && there("v", 1, ""));
    lh_mem_fail_at(0);
    for (int i = 0; i < 40; i++) {
        do {
            lh_mem_fail_at(1);
            rc = lh_rowtable_files_take(f, &number);
            lh_mem_fail_at(0);
            if (rc == LH_ENOMEM)
                rc = lh_rowtable_files_take(f, &number);
        } while (rc == LH_ENOMEM);
        assert_ok(rc);
    }
    nth = 0;
    struct lh_rowtable_run_ref ref = {.number = a};
    const struct lh_rowtable_version v = {
        .version = 2, .shards = 1, .dim = 1, .n_runs = 1, .runs = &ref};
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_files_add(f, &v);
    } while (rc == LH_ENOMEM);
    lh_mem_fail_at(0);
    assert_ok(rc);
    nth = 0;
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_files_prune(f, &v.version, 1);
    } while (rc == LH_ENOMEM);
    lh_mem_fail_at(0);
    assert_ok(rc);
    assert_true(!there("v", 1, "") && there("v", 2, "") && there("r", a, ".mdb"));
    lh_rowtable_files_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_lives_as_long_as_somebody_needs_it),
        kit_test(open_removes_what_a_killed_server_left),
        kit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
