/* A disk that fails under the files of embedding tables (diskkit.h): at any one call, or for a
 * while; when they are written, synced and read. Training goes on or waits, the old cut stays
 * valid, and in the end there are the bits of the undisturbed run; or it ends with one line that
 * names the file. */
#include "tests/diskkit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define TABLES  "/run/store-0/tables/"

enum { STEPS = 400, EVERY = 10 };

static const char *const item_and_user =
    "tables:\n"
    "  item: {ids: [item, before], into: state_low, dim: 5, learning_rate: 0.01, cache: 1}\n"
    "  user: {ids: user, into: state_high, dim: 3, learning_rate: 0.01, cache: 1}\n";

/* Four times as many bytes as may be in memory: rows are read and written at each step. */
static const char *const wide = "tables:\n"
                                "  item: {ids: [item, before], into: state_low, dim: 128,\n"
                                "         learning_rate: 0.01, cache: 1}\n";

struct fixture {
    struct trainkit_state want; /* of the undisturbed run */
    struct diskkit *disk;
    pid_t train;
};

static struct fixture fixture_new(uint64_t items, unsigned steps, const char *tables)
{
    struct fixture f = {0};
    struct lh_train_result result;
    trainkit_dataset_of_items(items / 5, items);
    struct lh_job *job = trainkit_job(steps, EVERY, tables);
    trainkit_job_file(kit_path("job.yaml"), steps, EVERY, tables);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(job, &opt, &result));
    f.want = trainkit_read(kit_path("undisturbed"));
    lh_job_destroy(&job);
    f.disk = diskkit_start();
    return f;
}

static void fixture_free(struct fixture *f)
{
    diskkit_stop(&f->disk);
    lh_mem_free(f->want.values);
}

static void start(struct fixture *f)
{
    kit_run(NULL, "rm -rf '%s' '%s'", kit_path("run"), kit_path("log"));
    f->train = trainkit_spawn_train(PROGRAM, "2", "2", NULL);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kill(-f->train, SIGSTOP);
}

/* One process; its exit status. */
static int train_here(const char *more)
{
    return trainkit_wait_exit(trainkit_spawn_here(PROGRAM, more));
}

/* --- for a while --------------------------------------------------------------------------------
 */
struct hard_time {
    struct diskkit_order order;
    const char *says, *again;
};

static void pass(struct fixture *f, const struct hard_time *h)
{
    start(f);
    diskkit_fail(f->disk, &h->order);
    kill(-f->train, SIGCONT);
    trainkit_await_said(h->says);
    assert_true(diskkit_failed(f->disk) > 0);
    assert_true(trainkit_said("/tables/") >= 1);
    diskkit_heal(f->disk);
    trainkit_await_said(h->again);
    trainkit_assert_exits(f->train, 0);
    assert_int_equal(trainkit_said(h->says), 1);
    trainkit_assert_same(&f->want, kit_path("run"), h->says);
}

/* With all rows in memory a disk is needed for cuts only. */
static void cuts_of_tables_that_fail_for_a_while_are_shown_and_cost_no_bit(void **state)
{
    (void)state;
    static const char no_cut[] = "no checkpoint at step ", again[] = "they succeed again, after ";
    static const struct hard_time times[] = {
        {{TABLES "item/r", DISKKIT_WRITES, EIO, 0, -1}, no_cut, again},
        {{"/run/store-1/tables/", DISKKIT_SYNCS, EIO, 0, -1}, no_cut, again},
        {{TABLES "item/v", DISKKIT_WRITES, ENOSPC, 0, -1}, no_cut, again},
        {{TABLES "user/r", DISKKIT_WRITES, ENOSPC, 3, -1}, no_cut, again},
    };
    struct fixture f = fixture_new(300, STEPS, item_and_user);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        pass(&f, &times[i]);
    fixture_free(&f);
}

/* Where rows have to make room, a step waits for the disk. */
static void steps_whose_rows_have_no_room_wait_for_the_disk(void **state)
{
    (void)state;
    static const char waits[] = "training waits, for ", again[] = "training goes on";
    static const struct hard_time times[] = {
        {{TABLES "item/r", DISKKIT_WRITES, EIO, 0, -1}, waits, again},
        {{"/run/store-1/tables/", DISKKIT_WRITES, ENOSPC, 5, -1}, waits, again},
    };
    struct fixture f = fixture_new(3000, 100, wide);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        pass(&f, &times[i]);
    fixture_free(&f);
}

/* --- one call -----------------------------------------------------------------------------------
 */
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 7 }; /* a start takes its time there */
#else
enum { STRIDE = 2 };
#endif

static void any_one_call_of_a_table_may_fail(void **state)
{
    (void)state;
    struct fixture f = fixture_new(300, 2 * EVERY, item_and_user);
    const struct diskkit_calls_failed n =
        diskkit_fail_each(f.disk, TABLES, "/tables/", STRIDE, &f.want);
    assert_true(n.lasted >= 14 / STRIDE);
    fixture_free(&f);
}

/* A restart reads the version, and the head of each of its files; which cannot be read is one line,
 * and nothing of the cut is lost. */
static void any_one_read_of_a_restart_may_fail(void **state)
{
    (void)state;
    struct fixture f = fixture_new(300, 3 * EVERY, item_and_user);
    long at = 0;
    for (;; at++) {
        kit_run(NULL, "rm -rf '%s'", kit_path("run"));
        diskkit_heal(f.disk);
        trainkit_job_file(kit_path("job.yaml"), 3 * EVERY, EVERY, item_and_user);
        const char *argv[] = {
            PROGRAM,        "train", kit_path("job.yaml"), "--dir", kit_path("run"),
            "--stop-after", "15",    "--no-evaluation",    "-q",    NULL};
        assert_int_equal(trainkit_wait_exit(trainkit_spawn(kit_path("log"), argv)), 0);
        diskkit_fail(f.disk, &(struct diskkit_order){TABLES, DISKKIT_READS, EIO, at, 1});
        int status = train_here("--resume");
        if (diskkit_failed(f.disk) == 0)
            break;
        if (status != 0) {
            assert_int_equal(status, lh_err_exit_status(LH_EIO));
            assert_int_equal(trainkit_said("\n"), 1);
            assert_int_equal(trainkit_said("/tables/"), 1);
            assert_int_equal(train_here("--resume"), 0);
        }
        trainkit_assert_same(&f.want, kit_path("run"), "one read failed");
    }
    print_message("%ld reads\n", at);
    assert_true(at >= 4);
    fixture_free(&f);
}

/* Rows are read through a mapping: what the disk does not give there, or a file that gets shorter,
 * is a signal, as of a dataset. */
static void file_of_rows_that_goes_while_it_is_read_is_one_line(void **state)
{
    (void)state;
    struct fixture f = fixture_new(3000, 100, wide);
    char first[600];
    snprintf(first, sizeof first, "%s/run/store-0/tables/item/r0.mdb", kit_dir());
    kit_run(NULL, "rm -rf '%s'", kit_path("run"));
    f.train = trainkit_spawn_here(PROGRAM, NULL);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kill(-f.train, SIGSTOP);
    assert_int_equal(kit_run(NULL, "cp '%s' '%s.copy' && : > '%s'", first, first, first), 0);
    kill(-f.train, SIGCONT);
    trainkit_assert_exits(f.train, lh_err_exit_status(LH_EIO));
    assert_int_equal(trainkit_said("\n"), 1);
    assert_int_equal(trainkit_said("r0.mdb: was cut short, or its disk failed"), 1);
    assert_int_not_equal(train_here("--resume"), 0);
    assert_int_equal(trainkit_said("\n"), 1);
    assert_int_equal(trainkit_said("r0.mdb: has 0 bytes, its version says"), 1);
    assert_int_equal(kit_run(NULL, "mv '%s.copy' '%s'", first, first), 0);
    assert_int_equal(train_here("--resume"), 0);
    trainkit_assert_same(&f.want, kit_path("run"), "a file of rows was away");
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        diskkit_test(cuts_of_tables_that_fail_for_a_while_are_shown_and_cost_no_bit),
        diskkit_test(steps_whose_rows_have_no_room_wait_for_the_disk),
        diskkit_test(any_one_call_of_a_table_may_fail),
        diskkit_test(any_one_read_of_a_restart_may_fail),
        diskkit_test(file_of_rows_that_goes_while_it_is_read_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
