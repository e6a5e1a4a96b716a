/* The asking side of a pull, against servers that this test plays: they answer late, twice, with
 * the wrong version, beyond the shard. */
#include "common/pull.h"

#include "common/held.h"
#include "tests/unit/net_rig.h"

#include <stdio.h>
#include <string.h>

/* a and c have targets, b has none; two shards. */
static const struct lh_param model[] = {
    {"a", 2, 8, 0, 0, true, true},
    {"b", 1, 16, 16, 0, true, false},
    {"c", 2, 16, 32, 0, true, true},
};
enum { FLAT = 64, JOB = 77 };
static const struct lh_layout_params from = {model, 3, FLAT};
static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0.25, 1}};

struct rig {
    void *zmq;
    struct lh_layout layout;
    struct lh_net_socket *server[2];
    struct lh_pull pull;
    float weights[FLAT], targets[FLAT];
};

static char first[] = "inproc://server-0", second[] = "inproc://server-1";
static char *const endpoints[] = {first, second};

static struct lh_pull_spec pull_spec(const struct rig *x)
{
    return (struct lh_pull_spec){.zmq = x->zmq,
                                 .layout = &x->layout,
                                 .endpoints = endpoints,
                                 .job = JOB,
                                 .node = 3,
                                 .queue = 64};
}

static void rig_open(struct rig *x)
{
    *x = (struct rig){.zmq = zmq_ctx_new()};
    assert_ok(lh_layout_init_params(&x->layout, &from, rules, 1, 2));
    for (int i = 0; i < 2; i++)
        assert_ok(lh_net_router(&x->server[i], x->zmq, endpoints[i], 64, NULL));
    const struct lh_pull_spec spec = pull_spec(x);
    assert_ok(lh_pull_open(&x->pull, &spec));
    x->pull.weights = x->weights;
    x->pull.targets = x->targets;
}

static void rig_close(struct rig *x)
{
    lh_pull_close(&x->pull);
    lh_pull_close(&x->pull);
    lh_net_close(&x->server[0]);
    lh_net_close(&x->server[1]);
    lh_layout_fini(&x->layout);
    zmq_ctx_term(x->zmq);
}

/* The request that server i has got, whose version must be `version`. */
static uint64_t requested(struct rig *x, int i, uint64_t version)
{
    struct lh_net_message m;
    rig_expect(x->server[i], &m, LH__KIND__KIND_PULL);
    assert_int_equal(m.env.step, version);
    assert_int_equal(m.env.node, 3);
    uint64_t request = m.env.request;
    lh_net_message_fini(&m);
    return request;
}

/* Hands pull a message of server i: `count` elements in `bytes`, all of value `x`. */
static int give(struct rig *x, size_t i, struct lh_envelope env, size_t bytes, float value)
{
    struct lh_net_message m = {.env = env, .n = 1};
    assert_int_equal(zmq_msg_init_size(&m.frame[0], bytes), 0);
    for (size_t k = 0; k < bytes / sizeof value; k++)
        memcpy((char *)zmq_msg_data(&m.frame[0]) + k * sizeof value, &value, sizeof value);
    int rc = lh_pull_take(&x->pull, i, &m);
    lh_net_message_fini(&m);
    return rc;
}

/* All pieces of server i for a version. */
static void give_all(struct rig *x, size_t i, uint64_t version, uint64_t request)
{
    struct lh_pull_piece *pieces = NULL;
    size_t n;
    assert_ok(lh_pull_pieces(&pieces, &n, &x->layout.shards[i]));
    for (size_t k = 0; k < n; k++)
        assert_ok(give(x, i,
                       (struct lh_envelope){.kind = pieces[k].targets ? LH__KIND__KIND_TARGETS
                                                                      : LH__KIND__KIND_WEIGHTS,
                                            .step = version,
                                            .request = request,
                                            .first = pieces[k].first,
                                            .count = pieces[k].count},
                       pieces[k].count * sizeof(float),
                       (float)version + (pieces[k].targets ? 0.5f : 0)));
    lh_mem_free(pieces);
}

static void pieces_cover_each_shard_once_and_only_targets_that_are(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    unsigned weights[FLAT] = {0}, targets[FLAT] = {0};
    for (size_t i = 0; i < 2; i++) {
        struct lh_pull_piece *pieces = NULL;
        size_t n;
        assert_ok(lh_pull_pieces(&pieces, &n, &x.layout.shards[i]));
        for (size_t k = 0; k < n; k++)
            for (uint64_t e = 0; e < pieces[k].count; e++)
                (pieces[k].targets ? targets
                                   : weights)[x.layout.shards[i].lo + pieces[k].first + e]++;
        lh_mem_free(pieces);
    }
    for (size_t e = 0; e < FLAT; e++) {
        assert_int_equal(weights[e], 1);
        assert_int_equal(targets[e], e < 16 || e >= 32);
    }
    rig_close(&x);
}

static void version_is_complete_when_every_piece_of_it_has_come(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_pull_begin(&x.pull, 5));
    uint64_t request = requested(&x, 0, 5);
    assert_int_equal(requested(&x, 1, 5), request);
    give_all(&x, 1, 5, request);
    assert_false(x.pull.complete);
    give_all(&x, 0, 5, request - 1); /* of what was asked before: ignored */
    assert_false(x.pull.complete);
    give_all(&x, 0, 5, request);
    assert_true(x.pull.complete);
    for (size_t e = 0; e < FLAT; e++) {
        assert_true(x.weights[e] == 5);
        assert_true(x.targets[e] == (e < 16 || e >= 32 ? 5.5f : 0));
    }
    rig_close(&x);
}

static void latest_is_what_all_shards_have(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_pull_begin(&x.pull, LH_WIRE_LATEST));
    uint64_t request = requested(&x, 0, LH_WIRE_LATEST);
    assert_int_equal(requested(&x, 1, LH_WIRE_LATEST), request);
    give_all(&x, 0, 8, request);
    assert_false(x.pull.complete);
    give_all(&x, 1, 8, request);
    assert_true(x.pull.complete);
    assert_int_equal(x.pull.version, 8);
    rig_close(&x);
}

/* One that lacks what somebody who is gone had of step 7 waits for a worker at version 7. */
static void latest_where_one_shard_is_behind_is_what_that_one_has(void **state)
{
    (void)state;
    struct rig x;
    for (size_t ahead = 0; ahead < 2; ahead++) {
        rig_open(&x);
        assert_ok(lh_pull_begin(&x.pull, LH_WIRE_LATEST));
        uint64_t request = requested(&x, 0, LH_WIRE_LATEST);
        requested(&x, 1, LH_WIRE_LATEST);
        give_all(&x, ahead, 8, request);
        give_all(&x, !ahead, 7, request);
        assert_false(x.pull.complete);
        uint64_t again = requested(&x, 0, 7);
        assert_int_not_equal(again, request);
        assert_int_equal(requested(&x, 1, 7), again);
        give_all(&x, 0, 7, again);
        give_all(&x, 1, 7, again);
        assert_true(x.pull.complete);
        assert_int_equal(x.pull.version, 7);
        assert_true(x.weights[0] == 7 && x.weights[FLAT - 1] == 7);
        rig_close(&x);
    }
}

/* A shard's latest is of one version. */
static void latest_in_pieces_of_two_versions_is_refused(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_pull_begin(&x.pull, LH_WIRE_LATEST));
    struct lh_envelope e = {.kind = LH__KIND__KIND_WEIGHTS,
                            .step = 8,
                            .request = requested(&x, 0, LH_WIRE_LATEST),
                            .count = 4};
    assert_ok(give(&x, 0, e, 4 * sizeof(float), 8));
    e.first = 4;
    e.step = 9;
    assert_err(give(&x, 0, e, 4 * sizeof(float), 9), LH_EPROTO, "version 9 where 8 was expected");
    rig_close(&x);
}

/* Where each step is a worker's own: shard 0 says which, and each gives the version it has. */
static void step_is_what_the_first_shard_gives_at_whatever_version(void **state)
{
    (void)state;
    struct rig x;
    struct lh_net_message m;
    rig_open(&x);
    assert_ok(lh_pull_begin_step(&x.pull, LH_WIRE_LATEST));
    rig_expect(x.server[0], &m, LH__KIND__KIND_TAKE);
    struct lh_envelope given = {.kind = LH__KIND__KIND_STEP, .step = 21, .request = m.env.request};
    lh_net_message_fini(&m);
    assert_int_equal(lh_net_recv(x.server[1], &m), LH_AGAIN);
    const struct lh_envelope early = {
        .kind = LH__KIND__KIND_WEIGHTS, .request = given.request, .count = 1};
    assert_err(give(&x, 0, early, sizeof(float), 0), LH_EPROTO, "before it gave a step");
    assert_err(give(&x, 1, given, 0, 0), LH_EPROTO, "sent a STEP");
    assert_ok(give(&x, 0, given, 0, 0));
    rig_expect(x.server[1], &m, LH__KIND__KIND_TAKE);
    assert_int_equal(m.env.step, 21);
    lh_net_message_fini(&m);
    give_all(&x, 0, 8, given.request);
    give_all(&x, 1, 9, given.request);
    assert_true(x.pull.complete);
    assert_int_equal(x.pull.version, 21);
    assert_true(x.weights[0] == 8 && x.weights[FLAT - 1] == 9);
    assert_ok(lh_pull_begin(&x.pull, 5)); /* a version again */
    requested(&x, 0, 5);
    rig_close(&x);
}

static void moved_begins_anew_with_what_there_is(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_pull_begin(&x.pull, 5));
    uint64_t request = requested(&x, 0, 5);
    requested(&x, 1, 5);
    give_all(&x, 1, 5, request);
    assert_ok(give(
        &x, 0, (struct lh_envelope){.kind = LH__KIND__KIND_MOVED, .step = 7, .request = request}, 0,
        0));
    uint64_t again = requested(&x, 0, LH_WIRE_LATEST);
    assert_int_not_equal(again, request);
    requested(&x, 1, LH_WIRE_LATEST);
    give_all(&x, 0, 7, again);
    assert_false(x.pull.complete); /* shard 1's answer was of version 5 */
    give_all(&x, 1, 7, again);
    assert_true(x.pull.complete);
    assert_true(x.weights[FLAT - 1] == 7);
    rig_close(&x);
}

static void piece_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    assert_ok(lh_pull_begin(&x.pull, 5));
    uint64_t request = requested(&x, 0, 5), size = x.pull.shards[0].size;
    const struct lh_envelope ok = {
        .kind = LH__KIND__KIND_WEIGHTS, .step = 5, .request = request, .count = size};
    struct lh_envelope e;
    memset(x.weights, 0, sizeof x.weights);
    struct {
        uint64_t first, count, bytes;
    } bad[] = {
        {0, 0, 0},
        {0, size + 1, (size + 1) * 4},
        {1, size, size * 4},
        {UINT64_MAX, 1, 4},
        {0, size, size * 4 - 1},
        {0, UINT64_MAX / 4 + 2, 4}, /* times 4 is 4 again */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e = ok;
        e.first = bad[i].first;
        e.count = bad[i].count;
        assert_err(give(&x, 0, e, bad[i].bytes, 9), LH_EPROTO, "server 0 sent elements");
    }
    for (size_t i = 0; i < FLAT; i++)
        assert_true(x.weights[i] == 0);
    e = ok;
    e.kind = LH__KIND__KIND_PUSH;
    assert_err(give(&x, 0, e, size * 4, 9), LH_EPROTO, "a PUSH where weights were expected");
    e = ok;
    e.step = 6;
    assert_err(give(&x, 0, e, size * 4, 9), LH_EPROTO, "version 6 where 5 was expected");
    assert_ok(give(&x, 0, ok, size * 4, 9));
    assert_err(give(&x, 0, ok, size * 4, 9), LH_EPROTO, "a piece of version 5 twice");
    rig_close(&x);
}

/* A server that takes nothing in is a failure with its address, not a wait for ever. */
static void begin_that_nobody_takes_is_an_error(void **state)
{
    (void)state;
    struct rig x;
    int rc = 0, n = 0;
    rig_open(&x);
    while (rc == 0 && n++ < 1000)
        rc = lh_pull_begin(&x.pull, 5);
    assert_true(n > 2);
    assert_err(rc, LH_EPEER, "at inproc://server-0 takes no requests any more");
    rig_close(&x);
}

/* With `held`, what came before is let go when the next is asked for. */
static void held_version_is_read_where_it_lies(void **state)
{
    (void)state;
    struct rig x;
    struct lh_held held;
    rig_open(&x);
    assert_ok(lh_held_init(&held, &x.layout));
    x.pull.held = &held;
    for (uint64_t v = 1; v <= 2; v++) {
        assert_ok(lh_pull_begin(&x.pull, v));
        uint64_t request = requested(&x, 0, v);
        requested(&x, 1, v);
        give_all(&x, 0, v, request);
        give_all(&x, 1, v, request);
        assert_true(x.pull.complete);
        for (size_t p = 0; p < 3; p++) {
            assert_true(held.at[0][p][0] == (float)v);
            assert_true(held.at[0][p][model[p].rows * model[p].cols - 1] == (float)v);
        }
        assert_true(held.at[1][2][0] == (float)v + 0.5f);
    }
    assert_true(x.weights[0] == 0); /* not copied here */
    lh_held_fini(&held);
    rig_close(&x);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    const struct lh_pull_spec spec = pull_spec(&x);
    for (uint64_t at = 1;; at++) {
        struct lh_pull p;
        lh_mem_fail_at(at);
        int rc = lh_pull_open(&p, &spec);
        lh_mem_fail_at(0);
        lh_pull_close(&p);
        if (rc == 0) {
            assert_true(at > 4);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(pieces_cover_each_shard_once_and_only_targets_that_are),
        kit_test(version_is_complete_when_every_piece_of_it_has_come),
        kit_test(latest_is_what_all_shards_have),
        kit_test(latest_where_one_shard_is_behind_is_what_that_one_has),
        kit_test(latest_in_pieces_of_two_versions_is_refused),
        kit_test(step_is_what_the_first_shard_gives_at_whatever_version),
        kit_test(moved_begins_anew_with_what_there_is),
        kit_test(piece_that_does_not_fit_is_refused),
        kit_test(begin_that_nobody_takes_is_an_error),
        kit_test(held_version_is_read_where_it_lies),
        kit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("pull", tests, NULL, NULL);
}
