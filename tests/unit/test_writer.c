/* The thread that writes checkpoints: order, pruning, failures by value. */
#include "ps/writer.h"

#include "common/term.h"
#include "ps/rowtable_read.h"
#include "tests/testkit.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct lh_param model[] = {{"a", 4, 8, 0, 8, true, true}};
static const struct lh_layout_params from = {model, 1, 32};
static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0.25, 1}};

struct rig {
    struct lh_layout layout;
    struct lh_shard *shard;
    struct lh_store *store;
    struct lh_rowtable *table;
    struct lh_writer *writer;
};

static void rig_open(struct rig *x)
{
    float w[32];
    for (int i = 0; i < 32; i++)
        w[i] = (float)i;
    *x = (struct rig){0};
    assert_ok(lh_layout_init_params(&x->layout, &from, rules, 1, 1));
    assert_ok(lh_shard_create(&x->shard, &(struct lh_shard_spec){.range = &x->layout.shards[0],
                                                                 .leaves = 1,
                                                                 .beta1 = 0.9,
                                                                 .beta2 = 0.999,
                                                                 .epsilon = 1e-8}));
    lh_shard_init(x->shard, w);
    assert_ok(lh_store_open(&x->store, kit_path("store"), &(struct lh_store_id){7, 0, 1}, 0));
    const struct lh_rowtable_spec spec = {.name = "item",
                                          .dim = 3,
                                          .learning_rate = 0.1,
                                          .beta1 = 0.9,
                                          .beta2 = 0.999,
                                          .epsilon = 1e-8,
                                          .shards = 1,
                                          .leaves = 1,
                                          .max_ids = 1};
    assert_ok(lh_rowtable_create(&x->table, &spec, kit_path("store")));
    assert_ok(lh_rowtable_init(x->table));
    assert_ok(lh_writer_start(&x->writer, x->store, &x->table, 1, NULL, 0));
}

static void rig_close(struct rig *x)
{
    lh_writer_stop(&x->writer);
    lh_writer_stop(&x->writer);
    lh_rowtable_destroy(&x->table);
    lh_store_close(&x->store);
    lh_shard_destroy(&x->shard);
    lh_layout_fini(&x->layout);
}

/* The table's next version, set aside; the writer may still be merging files. */
static void freeze_table(struct rig *x)
{
    const float g[3] = {1};
    const uint64_t id = 5;
    const struct lh_rowtable_piece piece = {0, 1, 1, &id, g};
    const double began = lh_now();
    int applied = 0, rc;
    assert_ok(lh_rowtable_push(x->table, lh_rowtable_version(x->table), (struct lh_tree_node){0, 0},
                               &piece));
    assert_ok(lh_rowtable_advance(x->table, &applied));
    while ((rc = lh_rowtable_freeze(x->table)) == LH_AGAIN && lh_now() - began < 30)
        usleep(1000);
    assert_ok(rc);
    while ((rc = lh_rowtable_settle(x->table)) == LH_AGAIN)
        ;
    assert_ok(rc);
}

/* Makes the next version, set aside. */
static const struct lh_frozen *next_version(struct rig *x)
{
    float g[32] = {0};
    int applied = 0;
    freeze_table(x);
    const struct lh_frozen *frozen = NULL;
    assert_ok(lh_shard_push(x->shard, lh_shard_version(x->shard), (struct lh_tree_node){0, 0}, 0, g,
                            32, NULL));
    assert_ok(lh_shard_advance(x->shard, &applied, NULL));
    assert_true(applied);
    assert_ok(lh_shard_freeze(x->shard, &frozen));
    return frozen;
}

static int prepare_next(struct rig *x)
{
    const struct lh_frozen *frozen = next_version(x);
    int rc = lh_writer_prepare(x->writer, x->shard, frozen);
    if (rc < 0) {
        lh_shard_thaw(x->shard, frozen);
        lh_rowtable_thaw(x->table);
    }
    return rc;
}

static struct lh_writer_done await_done(struct rig *x)
{
    struct lh_writer_done d;
    double began = lh_now();
    while (!lh_writer_poll(x->writer, &d)) {
        if (lh_now() - began > 10)
            fail_msg("nothing was done within 10 s");
        usleep(1000);
    }
    return d;
}

static void assert_versions(struct lh_store *st, size_t n, const uint64_t *expected)
{
    struct lh_store_version *v = NULL;
    size_t there;
    assert_ok(lh_store_versions(st, &v, &there));
    assert_int_equal(there, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(v[i].version, expected[i]);
    lh_mem_free(v);
}

/* Whether the table has that version, and no more. */
static int table_has(uint64_t version)
{
    struct lh_rowtable_reader *r = NULL;
    const char *dir = kit_path("store");
    int rc = lh_rowtable_reader_open(&r, "item", version, &dir, 1);
    lh_rowtable_reader_close(&r);
    assert_true(rc == 0 || rc == LH_ENOENT);
    return rc == 0;
}

static void commands_are_done_in_order_and_each_is_told(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_false(lh_writer_busy(x.writer));
    for (uint64_t v = 1; v <= 3; v++) {
        assert_ok(prepare_next(&x));
        struct lh_writer_done d = await_done(&x); /* one version is frozen at a time */
        assert_true(d.kind == LH_WRITER_PREPARE && d.version == v && d.err.code == 0);
    }
    /* 2 is a cut now, 1 is forgotten; 3, prepared since, may become one */
    assert_ok(lh_writer_commit(x.writer, 2, (const uint64_t[]){2}, 1));
    struct lh_writer_done d = await_done(&x);
    assert_true(d.kind == LH_WRITER_COMMIT && d.version == 2 && d.err.code == 0);
    assert_versions(x.store, 2, (const uint64_t[]){2, 3});
    assert_true(!table_has(1) && table_has(2) && table_has(3) && !table_has(4));
    assert_false(lh_writer_busy(x.writer));
    assert_false(lh_writer_poll(x.writer, &d));
    rig_close(&x);
}

static void drop_deletes_one_version_and_no_other(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    for (uint64_t v = 1; v <= 3; v++) {
        assert_ok(prepare_next(&x));
        await_done(&x);
    }
    for (int twice = 0; twice < 2; twice++) {
        assert_ok(lh_writer_drop(x.writer, 2));
        struct lh_writer_done d = await_done(&x);
        assert_true(d.kind == LH_WRITER_DROP && d.version == 2 && d.err.code == 0);
        assert_versions(x.store, 2, (const uint64_t[]){1, 3});
    }
    rig_close(&x);
}

static void failure_is_told_by_value_and_the_next_command_is_done(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_writer_commit(x.writer, 9, NULL, 0));
    assert_ok(prepare_next(&x));
    struct lh_writer_done d = await_done(&x);
    assert_int_equal(d.kind, LH_WRITER_COMMIT);
    assert_err(lh_err_load(&d.err), LH_ENOENT, "has no version 9");
    d = await_done(&x);
    assert_true(d.kind == LH_WRITER_PREPARE && d.err.code == 0);
    rig_close(&x);
}

/* No page of a file can be written, but for its first. */
static void limit_files(rlim_t bytes)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY}), 0);
}

/* A version that was prepared before and is no cut must never be taken for a later one of its
 * number. */
static void start_on_a_disk_that_refuses_prunes_before_the_first_version(void **state)
{
    (void)state;
    const uint64_t keep = 1;
    struct rig x;
    rig_open(&x);
    for (int v = 1; v <= 2; v++) {
        assert_ok(prepare_next(&x));
        assert_int_equal(await_done(&x).err.code, 0);
    }
    lh_writer_stop(&x.writer);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    limit_files(4096);
    int started = lh_writer_start(&x.writer, x.store, &x.table, 1, &keep, 1);
    limit_files(RLIM_INFINITY);
    assert_ok(started);
    assert_versions(x.store, 2, (const uint64_t[]){1, 2});
    const struct lh_frozen *frozen = next_version(&x);
    limit_files(4096);
    int queued = lh_writer_prepare(x.writer, x.shard, frozen);
    struct lh_writer_done d = await_done(&x);
    limit_files(RLIM_INFINITY);
    assert_ok(queued);
    assert_err(lh_err_load(&d.err), LH_EIO, "old versions cannot be deleted");
    assert_ok(prepare_next(&x));
    assert_int_equal(await_done(&x).err.code, 0);
    assert_versions(x.store, 2, (const uint64_t[]){1, 4});
    signal(SIGXFSZ, before);
    rig_close(&x);
}

static void finish_does_what_is_queued_and_it_can_still_be_polled(void **state)
{
    (void)state;
    struct rig x;
    struct lh_writer_done d;
    rig_open(&x);
    assert_ok(prepare_next(&x));
    assert_ok(lh_writer_commit(x.writer, 1, (const uint64_t[]){1}, 1));
    lh_writer_finish(x.writer);
    assert_false(lh_writer_busy(x.writer));
    assert_true(lh_writer_poll(x.writer, &d));
    assert_int_equal(d.kind, LH_WRITER_PREPARE);
    assert_true(lh_writer_poll(x.writer, &d));
    assert_true(d.kind == LH_WRITER_COMMIT && d.err.code == 0);
    assert_ok(lh_store_verify(x.store, 1));
    lh_writer_finish(NULL);
    rig_close(&x);
    /* what nobody polled is freed too */
    rig_open(&x);
    assert_ok(lh_writer_commit(x.writer, 1, (const uint64_t[]){1}, 1));
    rig_close(&x);
}

static void command_without_memory_is_refused_and_nothing_is_queued(void **state)
{
    (void)state;
    struct rig x;
    struct lh_writer *none = NULL;
    rig_open(&x);
    for (uint64_t at = 1; at <= 2; at++) {
        lh_mem_fail_at(at);
        int rc = lh_writer_commit(x.writer, 1, (const uint64_t[]){1}, 1);
        lh_mem_fail_at(0);
        assert_int_equal(rc, LH_ENOMEM);
    }
    assert_false(lh_writer_busy(x.writer));
    for (uint64_t at = 1; at <= 3; at++) {
        lh_mem_fail_at(at);
        int rc = lh_writer_start(&none, x.store, &x.table, 1, NULL, 0);
        lh_mem_fail_at(0);
        assert_int_equal(rc, LH_ENOMEM);
        assert_null(none);
    }
    assert_ok(prepare_next(&x)); /* it goes on */
    assert_int_equal(await_done(&x).err.code, 0);
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(commands_are_done_in_order_and_each_is_told),
        kit_test(drop_deletes_one_version_and_no_other),
        kit_test(failure_is_told_by_value_and_the_next_command_is_done),
        kit_test(start_on_a_disk_that_refuses_prunes_before_the_first_version),
        kit_test(finish_does_what_is_queued_and_it_can_still_be_polled),
        kit_test(command_without_memory_is_refused_and_nothing_is_queued),
    };
    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
