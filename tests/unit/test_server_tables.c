/* What strangers may send to a server's tables: refused before a table sees it. What tables make of
 * well-formed messages is integration/test_tables.c's. */
#include "ps/server_tables.h"

#include "tests/unit/net_rig.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATIENCE 0.2 /* seconds */

enum { DIM = 3, LEAVES = 2 };

struct rig {
    struct lh_job *job;
    struct lh_shard *shard;
    struct lh_loans *loans;
    struct lh_server_tables tables;
};

/* Who asks for a version up to the table's has it, if there is one before. */
static enum lh_server_rows rows_for(const void *ctx, uint32_t node, uint64_t version)
{
    const struct lh_server_tables *t = ctx;
    (void)node;
    return version > lh_rowtable_version(t->at[0]) ? LH_SERVER_ROWS_LATER : LH_SERVER_ROWS_NOW;
}

/* Of one parameter: the book of loans wants one. */
static struct lh_shard *shard_new(void)
{
    static const char name[] = "w";
    struct lh_segment segment = {
        .lo = 0, .hi = 1, .name = name, .rows = 1, .cols = 1, .period = 1, .target_period = 1};
    const struct lh_shard_range range = {
        .hi = 1, .flat_size = 1, .n_segments = 1, .segments = &segment};
    struct lh_shard *s = NULL;
    assert_ok(lh_shard_create(
        &s, &(struct lh_shard_spec){
                .range = &range, .leaves = 1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}));
    lh_shard_init(s, (float[]){0});
    return s;
}

static void rig_open(struct rig *r)
{
    static const char *const text =
        "train: {batch: 8, micro_batch: 4}\ntables: {a: {ids: x, dim: 3}, b: {ids: x, dim: 3}}\n";
    r->job = NULL;
    assert_ok(lh_job_load_text(&r->job, text, strlen(text), "job", NULL));
    r->shard = shard_new();
    assert_ok(lh_loans_create(&r->loans, r->shard, PATIENCE));
    assert_ok(
        lh_server_tables_open(&r->tables, &(struct lh_server_tables_spec){.job = r->job,
                                                                          .digest = 5,
                                                                          .store = kit_dir(),
                                                                          .shards = 1,
                                                                          .leaves = LEAVES,
                                                                          .loans = r->loans,
                                                                          .rows_for = rows_for,
                                                                          .ctx = &r->tables,
                                                                          .node = 1}));
    assert_ok(lh_server_tables_restore(&r->tables, 0, NULL, 0));
}

static void rig_close(struct rig *r)
{
    lh_server_tables_close(&r->tables);
    lh_server_tables_close(&r->tables);
    lh_loans_destroy(&r->loans);
    lh_shard_destroy(&r->shard);
    lh_job_destroy(&r->job);
}

/* A message of n frames: pairs of bytes, size. */
static void make(struct lh_net_message *m, const struct lh_envelope *env, size_t n, ...)
{
    va_list ap;
    *m = (struct lh_net_message){.env = *env, .n = n};
    va_start(ap, n);
    for (size_t i = 0; i < n; i++) {
        const void *bytes = va_arg(ap, const void *);
        const size_t size = va_arg(ap, size_t);
        assert_int_equal(zmq_msg_init_size(&m->frame[i], size), 0);
        memcpy(zmq_msg_data(&m->frame[i]), bytes, size);
    }
    va_end(ap);
}

static int push(struct rig *r, const struct lh_envelope *env, uint64_t table, uint64_t total,
                const uint64_t *ids, const float *rows, size_t cut)
{
    const uint64_t head[] = {table, total};
    struct lh_net_message m;
    make(&m, env, 3, head, sizeof head, ids, env->count * sizeof *ids - cut, rows,
         env->count * DIM * sizeof *rows);
    int rc = lh_server_tables_push(&r->tables, &m);
    lh_net_message_fini(&m);
    return rc;
}

static void push_of_a_malformed_message_is_refused(void **state)
{
    (void)state;
    static const uint64_t ids[] = {3, 9}, same[] = {3, 3};
    static const float rows[2 * DIM] = {1, 2, 3, 4, 5, 6};
    const struct lh_envelope good = {.kind = LH__KIND__KIND_TABLE_PUSH, .count = 2};
    struct lh_envelope env;
    struct lh_net_message m;
    struct rig r;
    rig_open(&r);
    assert_err(push(&r, &good, 2, 2, ids, rows, 0), LH_EPROTO, "table 2 of 2");
    assert_err(push(&r, &good, UINT64_MAX, 2, ids, rows, 0), LH_EPROTO, "of 2");
    assert_err(push(&r, &good, 0, 2, ids, rows, 1), LH_EPROTO, "15 and 24 bytes");
    assert_err(push(&r, &good, 0, 1, ids, rows, 0), LH_EPROTO, "");
    assert_err(push(&r, &good, 0, UINT64_MAX, ids, rows, 0), LH_EPROTO, "");
    assert_err(push(&r, &good, 0, 2, same, rows, 0), LH_EPROTO, "");
    env = good;
    env.step = 1; /* ahead */
    assert_err(push(&r, &env, 0, 2, ids, rows, 0), LH_EPROTO, "");
    env = good;
    env.level = 40;
    assert_err(push(&r, &env, 0, 2, ids, rows, 0), LH_EPROTO, "");
    env = good;
    env.count = UINT64_MAX;
    make(&m, &env, 3, (const uint64_t[]){0, 2}, (size_t)16, ids, (size_t)16, rows, (size_t)24);
    assert_err(lh_server_tables_push(&r.tables, &m), LH_EPROTO, "a push of");
    lh_net_message_fini(&m);
    make(&m, &good, 3, ids, (size_t)8, ids, (size_t)16, rows, (size_t)24);
    assert_err(lh_server_tables_push(&r.tables, &m), LH_EPROTO, "a head of 8 bytes");
    lh_net_message_fini(&m);
    make(&m, &good, 0);
    assert_err(lh_server_tables_push(&r.tables, &m), LH_EPROTO, "a push of");
    lh_net_message_fini(&m);
    assert_false(lh_server_tables_whole(&r.tables));
    rig_close(&r);
}

static void step_is_whole_when_all_tables_are(void **state)
{
    (void)state;
    static const uint64_t ids[] = {3, 9};
    static const float rows[2 * DIM] = {1, 2, 3, 4, 5, 6};
    struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PUSH, .level = 1, .count = 2};
    struct rig r;
    rig_open(&r);
    assert_int_equal(push(&r, &env, 0, 2, ids, rows, 0), 0);
    assert_int_equal(push(&r, &env, 0, 2, ids, rows, 0), LH_AGAIN);
    assert_false(lh_server_tables_whole(&r.tables));
    env.count = 0; /* the other table: no id of the step */
    assert_int_equal(push(&r, &env, 1, 0, ids, rows, 0), 0);
    assert_true(lh_server_tables_whole(&r.tables));
    assert_ok(lh_server_tables_check(&r.tables, NULL));
    assert_ok(lh_server_tables_advance(&r.tables, lh_rowtable_version(r.tables.at[0]), NULL));
    assert_false(lh_server_tables_whole(&r.tables));
    assert_int_equal(push(&r, &env, 1, 0, ids, rows, 0), LH_AGAIN); /* of an earlier step */
    rig_close(&r);
}

static void pull_of_a_malformed_message_is_refused(void **state)
{
    (void)state;
    static uint64_t ids[1 << 17] = {3, 9};
    struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL, .step = 4, .count = 2};
    struct lh_net_message m;
    struct rig r;
    rig_open(&r);
    static const struct {
        uint64_t first, count;
        size_t bytes;
    } wrong[] = {{2, 2, 16},        {UINT64_MAX, 2, 16},
                 {0, 0, 0},         {0, 2, 15},
                 {0, 3, 16},        {0, UINT64_MAX, 16},
                 {0, 1u << 20, 16}, {0, (1u << 18) / 3 + 1, 8 * ((1u << 18) / 3 + 1)}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        env.first = wrong[i].first;
        env.count = wrong[i].count;
        make(&m, &env, 1, ids, wrong[i].bytes);
        assert_err(lh_server_tables_pull(&r.tables, NULL, &m), LH_EPROTO, "a pull of");
        lh_net_message_fini(&m);
    }
    /* of a version to come: it waits, once however often it is asked for */
    env.first = 0;
    env.count = 2;
    for (int i = 0; i < 3; i++) {
        make(&m, &env, 1, ids, (size_t)16);
        assert_ok(lh_server_tables_pull(&r.tables, NULL, &m));
        lh_net_message_fini(&m);
    }
    assert_int_equal(r.tables.n_asks, 1);
    rig_close(&r);
}

static int pull(struct rig *r, struct lh_net_socket *socket, const struct lh_net_peer *peer,
                const struct lh_envelope *env)
{
    static uint64_t ids[1 << 18];
    struct lh_net_message m;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        ids[i] = i;
    make(&m, env, 1, ids, env->count * sizeof *ids);
    m.peer = *peer;
    int rc = lh_server_tables_pull(&r->tables, socket, &m);
    lh_net_message_fini(&m);
    return rc;
}

static void worker_waits_for_no_more_than_its_steps_have(void **state)
{
    (void)state;
    struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL, .step = 9, .node = 2, .count = 16};
    struct lh_net_peer a = {.size = 1, .id = {1}, .fd = -1}, b = {.size = 1, .id = {2}, .fd = -1};
    struct rig r;
    rig_open(&r);
    /* 4 steps of 8 rows with 2 states of one id each */
    for (env.request = 0; env.request < 4; env.request++)
        assert_ok(pull(&r, NULL, &a, &env));
    assert_err(pull(&r, NULL, &a, &env), LH_EPROTO, "worker 2 waits for 80 ids by 5 pulls");
    /* not over another connection either; but what it asked for already it may ask for again */
    assert_err(pull(&r, NULL, &b, &env), LH_EPROTO, "waits for");
    env.request = 3;
    assert_ok(pull(&r, NULL, &b, &env));
    assert_int_equal(r.tables.n_asks, 4);
    env.first = 1; /* the other table */
    env.request = 10;
    assert_ok(pull(&r, NULL, &a, &env));
    env.node = 3; /* another worker */
    assert_ok(pull(&r, NULL, &b, &env));
    env.node = 0; /* the evaluation */
    for (; env.request < 30; env.request++)
        assert_ok(pull(&r, NULL, &b, &env));
    env.count = LH_WIRE_PIECE / DIM + 1;
    assert_err(pull(&r, NULL, &b, &env), LH_EPROTO, "a pull of 87382 rows");
    rig_close(&r);
}

/* Asks again and again, and takes nothing of what it is sent. */
static void reader_of_rows_that_never_drains_holds_little_and_is_cut_off(void **state)
{
    (void)state;
    struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL, .count = LH_WIRE_PIECE / DIM};
    struct lh_net_message m;
    struct lh_net_socket *router = NULL;
    struct rig r;
    unsigned char ask[LH_WIRE_ENVELOPE_MAX];
    void *zmq = zmq_ctx_new(), *peer = zmq_socket(zmq, ZMQ_DEALER);
    int one = 1, none = 0, small = 4096;
    rig_open(&r);
    assert_ok(lh_net_router(&router, zmq, "tcp://127.0.0.1:*", 1 << 16, NULL));
    zmq_setsockopt(peer, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(peer, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(peer, ZMQ_RCVBUF, &small, sizeof small);
    assert_int_equal(zmq_connect(peer, lh_net_endpoint(router)), 0);
    assert_true(zmq_send(peer, ask, lh_wire_encode(&env, ask), 0) > 0);
    rig_receive(router, &m);
    for (env.request = 0; env.request < 64; env.request++)
        assert_ok(pull(&r, router, &m.peer, &env));
    assert_in_range(lh_loans_count(r.loans), 1, LH_LOANS_ROWS_A_PEER);
    assert_true(r.tables.withheld);
    size_t cut = 0;
    for (double began = lh_now(); cut == 0 && lh_now() - began < 20; zmq_poll(NULL, 0, 5))
        cut = lh_loans_call_in(r.loans);
    assert_true(cut > 0);
    for (double began = lh_now(); lh_loans_count(r.loans) > 0 && lh_now() - began < 20;) {
        struct lh_net_poll poll = {.socket = router};
        assert_ok(lh_net_poll(&poll, 1, 0.01));
    }
    assert_int_equal(lh_loans_count(r.loans), 0);
    assert_ok(lh_server_tables_answer(&r.tables, router)); /* it is gone: nothing is kept */
    assert_int_equal(r.tables.n_asks, 0);
    lh_net_message_fini(&m);
    zmq_close(peer);
    lh_net_close(&router);
    rig_close(&r);
    zmq_ctx_term(zmq);
}

/* --- a full disk -------------------------------------------------------------------------------
 */
enum { WIDE = 256, MANY = 1500 };

static void limit_files(rlim_t bytes)
{
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY});
}

static int open_wide(struct rig *r)
{
    static const char *const text = "train: {batch: 1024, micro_batch: 1024}\n"
                                    "tables: {a: {ids: x, dim: 256, cache: 1}}\n";
    *r = (struct rig){.job = NULL};
    LH_TRY(lh_job_load_text(&r->job, text, strlen(text), "job", NULL));
    LH_TRY(lh_server_tables_open(&r->tables, &(struct lh_server_tables_spec){.job = r->job,
                                                                             .store = kit_dir(),
                                                                             .shards = 1,
                                                                             .leaves = 1,
                                                                             .node = 1,
                                                                             .rows_for = rows_for,
                                                                             .ctx = &r->tables}));
    return lh_server_tables_restore(&r->tables, 0, NULL, 0);
}

/* A step whose rows do not fit in memory, and files that may not grow. Returns 0 if all is well. */
static int step_without_room(const char *dir)
{
    static uint64_t ids[MANY];
    static float g[MANY * WIDE], want[MANY * WIDE], got[MANY * WIDE];
    (void)dir;
    const struct lh_rowtable_piece piece = {0, MANY, MANY, ids, g};
    const struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL, .count = 1};
    struct lh_net_message m;
    struct rig r;
    signal(SIGXFSZ, SIG_IGN);
    if (open_wide(&r) < 0)
        return 1;
    for (uint64_t i = 0; i < MANY; i++)
        ids[i] = i;
    for (size_t i = 0; i < MANY * WIDE; i++)
        g[i] = 1;
    if (lh_rowtable_pull(r.tables.at[0], ids, MANY, want) < 0 ||
        lh_rowtable_push(r.tables.at[0], 0, (struct lh_tree_node){0, 0}, &piece) < 0)
        return 2;
    limit_files(100000);
    if (lh_server_tables_advance(&r.tables, lh_rowtable_version(r.tables.at[0]), NULL) !=
            LH_AGAIN ||
        !r.tables.behind)
        return 3;
    if (!lh_server_tables_whole(&r.tables) || lh_rowtable_version(r.tables.at[0]) != 0)
        return 4;                        /* the step is still to be done */
    make(&m, &env, 1, ids, sizeof *ids); /* its rows are of neither version: nobody gets them */
    if (lh_server_tables_pull(&r.tables, NULL, &m) != 0 || r.tables.n_asks != 1)
        return 5;
    lh_net_message_fini(&m);
    limit_files(RLIM_INFINITY);
    if (lh_server_tables_advance(&r.tables, lh_rowtable_version(r.tables.at[0]), NULL) != LH_AGAIN)
        return 6; /* it is not tried in every turn */
    r.tables.pause = 0;
    usleep(1000);
    if (lh_server_tables_advance(&r.tables, lh_rowtable_version(r.tables.at[0]), NULL) != 0 ||
        r.tables.behind || r.tables.refused > 0)
        return 7;
    if (lh_rowtable_version(r.tables.at[0]) != 1 ||
        lh_rowtable_pull(r.tables.at[0], ids, MANY, got) < 0)
        return 8;
    for (size_t i = 0; i < MANY * WIDE; i++)
        if (fabsf(got[i] - want[i] + 0.001f) > 1e-6f) /* updated once */
            return 9;
    r.tables.patience = 0;
    limit_files(100000);
    if (lh_rowtable_push(r.tables.at[0], 1, (struct lh_tree_node){0, 0}, &piece) < 0 ||
        lh_server_tables_advance(&r.tables, lh_rowtable_version(r.tables.at[0]), NULL) != LH_EIO ||
        !strstr(lh_err_text(), "tables/a/r"))
        return 10;
    rig_close(&r);
    return 0;
}

static void step_waits_for_room_and_is_done_once(void **state)
{
    (void)state;
    assert_int_equal(kit_in_a_child(step_without_room, kit_dir()), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(push_of_a_malformed_message_is_refused),
        kit_test(step_is_whole_when_all_tables_are),
        kit_test(pull_of_a_malformed_message_is_refused),
        kit_test(worker_waits_for_no_more_than_its_steps_have),
        kit_test(reader_of_rows_that_never_drains_holds_little_and_is_cut_off),
        kit_test(step_waits_for_room_and_is_done_once),
    };
    return cmocka_run_group_tests_name("server_tables", tests, NULL, NULL);
}
