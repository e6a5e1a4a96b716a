/* The asking side of a pull of rows, against servers that this test plays, over connections that
 * break. */
#include "common/rowpull.h"

#include "common/rowlist.h"
#include "tests/unit/net_rig.h"

#include <string.h>

enum { SHARDS = 2, DIM = 3, IDS = 40, JOB = 77, VERSION = 9 };

static const struct lh_param model[] = {{"a", 2, 8, 0, 0, true, false},
                                        {"b", 2, 8, 16, 0, true, false}};
static const struct lh_layout_params from = {model, 2, 32};
static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0, 1}};
static const struct lh_graph_table table = {.name = "t", .dim = DIM};

struct rig {
    void *zmq;
    struct lh_layout layout;
    struct lh_net_socket *server[SHARDS];
    struct lh_pull pull;
    struct lh_rowpull rows;
};

static void rig_open(struct rig *x)
{
    char *endpoints[SHARDS];
    *x = (struct rig){.zmq = zmq_ctx_new()};
    assert_ok(lh_layout_init_params(&x->layout, &from, rules, 1, SHARDS));
    for (int i = 0; i < SHARDS; i++) {
        assert_ok(lh_net_router(&x->server[i], x->zmq, "tcp://127.0.0.1:*", 64, NULL));
        endpoints[i] = (char *)(uintptr_t)lh_net_endpoint(x->server[i]);
    }
    assert_ok(lh_pull_open(&x->pull, &(struct lh_pull_spec){.zmq = x->zmq,
                                                            .layout = &x->layout,
                                                            .endpoints = endpoints,
                                                            .job = JOB,
                                                            .node = 3,
                                                            .queue = 64}));
    assert_ok(lh_rowpull_init(&x->rows, &table, 1, SHARDS, 0));
}

static void rig_close(struct rig *x)
{
    lh_rowpull_fini(&x->rows);
    lh_rowpull_fini(&x->rows);
    lh_pull_close(&x->pull);
    for (int i = 0; i < SHARDS; i++)
        lh_net_close(&x->server[i]);
    lh_layout_fini(&x->layout);
    zmq_ctx_term(x->zmq);
}

static void ask(struct rig *x)
{
    lh_rowpull_begin(&x->rows, VERSION);
    for (uint64_t id = 0; id < IDS; id++) /* each twice, in no order */
        for (int i = 0; i < 2; i++)
            assert_ok(lh_rowpull_add(&x->rows, 0, &(uint64_t){id * 7 % IDS}, 1, 1));
    assert_ok(lh_rowpull_ask(&x->rows));
}

/* What the asking side does while it waits. */
static void wait_a_moment(struct rig *x)
{
    struct lh_net_poll polls[SHARDS];
    struct lh_net_message m;
    for (int i = 0; i < SHARDS; i++)
        polls[i] = (struct lh_net_poll){.socket = x->pull.shards[i].socket};
    assert_ok(lh_net_poll(polls, SHARDS, 0.01));
    for (int i = 0; i < SHARDS; i++)
        assert_int_equal(lh_net_recv(polls[i].socket, &m), LH_AGAIN);
    assert_ok(lh_rowpull_send(&x->rows, &x->pull));
}

/* The next request that server i gets, at most 10 s from now. */
static struct lh_net_message requested(struct rig *x, int i)
{
    struct lh_net_message m;
    int rc = LH_AGAIN;
    for (double began = lh_now(); rc == LH_AGAIN && lh_now() - began < 10;) {
        struct lh_net_poll poll = {.socket = x->server[i]};
        wait_a_moment(x);
        assert_ok(lh_net_poll(&poll, 1, 0));
        rc = lh_net_recv(x->server[i], &m);
    }
    assert_ok(rc);
    assert_int_equal(m.env.kind, LH__KIND__KIND_TABLE_PULL);
    assert_int_equal(m.env.step, VERSION);
    return m;
}

/* Nothing comes to server i for a moment. */
static void assert_not_asked(struct rig *x, int i)
{
    struct lh_net_message m;
    for (double began = lh_now(); lh_now() - began < 0.5;) {
        wait_a_moment(x);
        assert_int_equal(lh_net_recv(x->server[i], &m), LH_AGAIN);
    }
}

/* Server i answers: a row is its id, three times. */
static void answer(struct rig *x, size_t i, const struct lh_net_message *request)
{
    const size_t n = request->env.count;
    struct lh_net_message m = {.env = {.kind = LH__KIND__KIND_TABLE_ROWS,
                                       .step = VERSION,
                                       .request = request->env.request,
                                       .count = n},
                               .n = 1};
    size_t bytes;
    const char *ids = lh_net_frame(request, 0, &bytes);
    assert_int_equal(bytes, n * sizeof(uint64_t));
    assert_int_equal(zmq_msg_init_size(&m.frame[0], n * DIM * sizeof(float)), 0);
    for (size_t k = 0; k < n; k++) {
        uint64_t id;
        memcpy(&id, ids + k * sizeof id, sizeof id);
        assert_int_equal(lh_rowlist_shard(id, SHARDS), i);
        const float row[DIM] = {(float)id, (float)id, (float)id};
        memcpy((char *)zmq_msg_data(&m.frame[0]) + k * sizeof row, row, sizeof row);
    }
    assert_ok(lh_rowpull_take(&x->rows, i, &m));
    lh_net_message_fini(&m);
}

static void cut_off(const struct lh_net_message *m)
{
    const struct lh_net_connection connection = lh_net_connection_of(&m->peer);
    assert_true(connection.cookie != 0);
    lh_net_cut_off(&connection);
}

static void assert_has_all(const struct rig *x)
{
    assert_true(lh_rowpull_complete(&x->rows));
    for (uint64_t id = 0; id < IDS; id++) {
        const float *row = lh_rowpull_find(&x->rows, 0, id);
        assert_non_null(row);
        for (int c = 0; c < DIM; c++)
            assert_true(row[c] == (float)id);
    }
    assert_null(lh_rowpull_find(&x->rows, 0, IDS));
}

static void rows_are_asked_for_once_and_found_by_id(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    ask(&x);
    for (int i = 0; i < SHARDS; i++) {
        struct lh_net_message m = requested(&x, i);
        assert_not_asked(&x, i);
        assert_false(lh_rowpull_complete(&x.rows));
        answer(&x, (size_t)i, &m);
        answer(&x, (size_t)i, &m); /* once more: ignored */
        lh_net_message_fini(&m);
    }
    assert_has_all(&x);
    rig_close(&x);
}

/* One of the connections breaks with a request under way: that is sent again as soon as the other
 * end is there, and nothing else. */
static void connection_that_breaks_is_asked_over_again_at_once(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    ask(&x);
    struct lh_net_message other = requested(&x, 1), m = requested(&x, 0);
    for (int i = 0; i < 3; i++) {
        const uint64_t request = m.env.request;
        cut_off(&m);
        lh_net_message_fini(&m);
        m = requested(&x, 0);
        assert_int_equal(m.env.request, request);
    }
    assert_not_asked(&x, 1);
    answer(&x, 0, &m);
    cut_off(&m); /* what has come is not asked for again */
    assert_not_asked(&x, 0);
    answer(&x, 1, &other);
    assert_has_all(&x);
    lh_net_message_fini(&m);
    lh_net_message_fini(&other);
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(rows_are_asked_for_once_and_found_by_id),
        kit_test(connection_that_breaks_is_asked_over_again_at_once),
    };
    return cmocka_run_group_tests_name("rowpull", tests, NULL, NULL);
}
