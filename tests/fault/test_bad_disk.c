/* A disk that fails (diskkit.h): at any one call of a checkpoint, or for a while; stores, run.json
 * and metrics.jsonl. Training goes on, the old cut stays valid, the error is shown once, and when
 * the disk is well again checkpoints succeed, to the bits of the undisturbed run. A store that
 * cannot be made is one line. */
#include "tests/diskkit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "cluster/run.h"
#include "common/err.h"
#include "common/term.h"
#include "ps/store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define SAVED   "they succeed again, after "

enum { STEPS = 400, EVERY = 10 };

struct fixture {
    struct trainkit_undisturbed undisturbed;
    struct diskkit *disk;
    pid_t train;
};

static struct fixture fixture_new(unsigned steps)
{
    struct fixture f = {.undisturbed = trainkit_undisturbed(steps, EVERY, NULL)};
    f.disk = diskkit_start();
    return f;
}

static void fixture_free(struct fixture *f)
{
    diskkit_stop(&f->disk);
    trainkit_undisturbed_free(&f->undisturbed);
}

/* Two of each, until the first checkpoint: then all of it is stopped, so that it does not outrun
 * the test. */
static void start(struct fixture *f, const char *set)
{
    kit_run(NULL, "rm -rf '%s' '%s'", kit_path("run"), kit_path("log"));
    f->train = trainkit_spawn_train(PROGRAM, "2", "2", set);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kill(-f->train, SIGSTOP);
}

static void go_on(const struct fixture *f)
{
    kill(-f->train, SIGCONT);
}

/* A run that goes on may forget the one that was the last when run.json was read. */
static void assert_last_cut_is_whole(void)
{
    struct lh_run *run = NULL;
    int rc, tries = 0;
    while ((rc = lh_run_open(&run, kit_path("run"), LH_CUT_LAST)) == LH_ENOENT && ++tries < 5)
        usleep(20000);
    assert_ok(rc);
    lh_run_close(&run);
}

/* --- for a while --------------------------------------------------------------------------------
 */
static void disk_that_fails_for_a_while_is_shown_and_costs_no_bit(void **state)
{
    (void)state;
    static const char no_cut[] = "no checkpoint at step ";
    static const struct {
        struct diskkit_order order;
        const char *says, *names, *again;
    } cases[] = {
        {{"/run/store-0/", DISKKIT_WRITES, EIO, 0, -1}, no_cut, "run/store-0", SAVED},
        {{"/run/store-1/", DISKKIT_SYNCS, EIO, 0, -1}, no_cut, "run/store-1", SAVED},
        {{"/run/store-0/", DISKKIT_WRITES, ENOSPC, 3, -1}, no_cut, "run/store-0", SAVED},
        {{"/run/store-", DISKKIT_SYNCS, EIO, 5, -1}, no_cut, "run/store-", SAVED},
        {{"/run/run.json", DISKKIT_SYNCS, EIO, 0, -1}, no_cut, "run/run.json", SAVED},
        {{"/run/run.json", DISKKIT_WRITES, ENOSPC, 0, -1}, no_cut, "run/run.json", SAVED},
        {{"/run/metrics.jsonl", DISKKIT_WRITES, EIO, 0, -1},
         "lines are kept in memory",
         "run/metrics.jsonl",
         "nothing of it was lost"},
        {{"/run/metrics.jsonl", DISKKIT_SYNCS, EIO, 0, -1},
         "may be lost if this machine stops",
         "run/metrics.jsonl",
         "can be synced again"},
    };
    struct fixture f = fixture_new(STEPS);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(&f, NULL);
        diskkit_fail(f.disk, &cases[i].order);
        go_on(&f);
        trainkit_await_said(cases[i].says);
        assert_true(diskkit_failed(f.disk) > 0);
        assert_last_cut_is_whole();
        diskkit_heal(f.disk);
        trainkit_await_said(cases[i].again);
        trainkit_assert_exits(f.train, 0);
        assert_int_equal(trainkit_said(cases[i].says), 1);
        assert_true(trainkit_said(cases[i].names) >= 1);
        trainkit_assert_same(&f.undisturbed.want, kit_path("run"), cases[i].names);
    }
    fixture_free(&f);
}

/* --- one call -----------------------------------------------------------------------------------
 */
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 4 }; /* a start takes its time there */
#else
enum { STRIDE = 1 };
#endif

static void any_one_call_of_a_store_may_fail(void **state)
{
    (void)state;
    struct fixture f = fixture_new(2 * EVERY);
    const struct diskkit_calls_failed n =
        diskkit_fail_each(f.disk, "/run/store-0/", "run/store-0", STRIDE, &f.undisturbed.want);
    assert_true(n.lasted >= 8 / STRIDE && n.ended >= 1);
    fixture_free(&f);
}

/* --- at a start ---------------------------------------------------------------------------------
 */
/* Whether a store that a server serves has a version beyond `version`. */
static bool has_newer(const char *store, uint64_t version)
{
    struct lh_store *st = NULL;
    struct lh_store_version *v = NULL;
    size_t n = 0;
    assert_ok(lh_store_open(&st, store, NULL, 1));
    assert_ok(lh_store_versions(st, &v, &n));
    bool newer = n > 0 && v[n - 1].version > version;
    lh_mem_free(v);
    lh_store_close(&st);
    return newer;
}

/* With the scheduler stopped a server prepares the next version, and is killed before it hears that
 * it is a cut, and which older one may go. So the next server begins with deleting. */
static void server_that_starts_on_a_full_disk_serves_and_cuts_when_it_can(void **state)
{
    (void)state;
    struct fixture f = fixture_new(STEPS);
    start(&f, "checkpoint.keep=1");
    pid_t server = trainkit_find_role(f.train, "server");
    assert_true(server > 0);
    char *cmdline = NULL, store[300];
    kit_run(&cmdline, "tr '\\0' ' ' < /proc/%d/cmdline", (int)server);
    snprintf(store, sizeof store, "%s/run/store-%d", kit_dir(), !strstr(cmdline, "--shard 0"));
    free(cmdline);
    const uint64_t last = trainkit_last_cut(kit_path("run"));
    kit_run(NULL, "for p in $(pgrep -g %d); do [ $p = %d ] || kill -CONT $p; done", (int)f.train,
            (int)f.train);
    for (double began = lh_now(); !has_newer(store, last); usleep(5000))
        assert_true(lh_now() - began < 30);
    kill(server, SIGKILL);
    diskkit_fail(f.disk, &(struct diskkit_order){store, DISKKIT_WRITES, ENOSPC, 0, -1});
    go_on(&f);
    trainkit_await_said("started another server");
    trainkit_await_said("no checkpoint at step ");
    assert_true(trainkit_said("old versions cannot be deleted") > 0);
    assert_last_cut_is_whole();
    diskkit_heal(f.disk);
    trainkit_await_said(SAVED);
    trainkit_assert_exits(f.train, 0);
    trainkit_assert_same(&f.undisturbed.want, kit_path("run"), "a server started on a full disk");
    fixture_free(&f);
}

/* --- a store that goes --------------------------------------------------------------------------
 */
static void store_that_is_moved_away_is_shown_until_it_is_back(void **state)
{
    (void)state;
    struct fixture f = fixture_new(STEPS);
    start(&f, NULL);
    assert_int_equal(kit_run(NULL, "cd '%s' && mv store-0 gone", kit_path("run")), 0);
    go_on(&f);
    trainkit_await_said("no checkpoint at step ");
    assert_int_equal(trainkit_said("store-0/data.mdb: a checkpoint cannot be written: it was "
                                   "deleted, moved or replaced"),
                     1);
    assert_int_equal(kit_run(NULL, "cd '%s' && mv gone store-0", kit_path("run")), 0);
    trainkit_await_said(SAVED);
    trainkit_assert_exits(f.train, 0);
    trainkit_assert_same(&f.undisturbed.want, kit_path("run"), "a store was away");
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        diskkit_test(disk_that_fails_for_a_while_is_shown_and_costs_no_bit),
        diskkit_test(any_one_call_of_a_store_may_fail),
        diskkit_test(server_that_starts_on_a_full_disk_serves_and_cuts_when_it_can),
        diskkit_test(store_that_is_moved_away_is_shown_until_it_is_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
