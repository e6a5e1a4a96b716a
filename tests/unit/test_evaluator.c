/* Evaluation beside training, against a server that this test plays. */
#include "cluster/evaluator.h"

#include "tests/unit/net_rig.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const struct lh_param model[] = {{"a", 4, 8, 0, 0, true, true}};
enum { FLAT = 32, JOB = 77 };
static const struct lh_layout_params from = {model, 1, FLAT};
static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0.25, 1}};

struct rig {
    void *zmq;
    struct lh_layout layout;
    struct lh_net_socket *server;
    struct lh_evaluator *e;
    uint64_t fails_at; /* version */
};

static int evaluate(void *ctx, const struct lh_evaluator_version *v, struct lh_verdict *out)
{
    const struct rig *x = ctx;
    if (v->number == x->fails_at)
        return lh_err_set(LH_EDIVERGED, "no value");
    out->value = (double)(v->weights[0] + v->weights[FLAT - 1]);
    out->lo = (double)v->targets[0];
    return lh_mem_strdup(&out->json, "{}");
}

static void rig_open(struct rig *x, struct lh_clock clock, double deadline)
{
    static char endpoint[] = "inproc://server";
    static char *const endpoints[] = {endpoint};
    *x = (struct rig){.zmq = zmq_ctx_new(), .fails_at = x->fails_at};
    assert_ok(lh_layout_init_params(&x->layout, &from, rules, 1, 1));
    assert_ok(lh_net_router(&x->server, x->zmq, endpoint, 64, NULL));
    assert_ok(lh_evaluator_start(&x->e, &(struct lh_evaluator_spec){.zmq = x->zmq,
                                                                    .layout = &x->layout,
                                                                    .endpoints = endpoints,
                                                                    .job = JOB,
                                                                    .clock = clock,
                                                                    .deadline = deadline,
                                                                    .evaluate = evaluate,
                                                                    .ctx = x}));
}

static void rig_close(struct rig *x)
{
    lh_evaluator_stop(&x->e);
    lh_evaluator_stop(&x->e);
    lh_net_close(&x->server);
    lh_layout_fini(&x->layout);
    zmq_ctx_term(x->zmq);
}

static void send_part(struct rig *x, const struct lh_net_message *to, uint32_t kind, uint64_t count,
                      uint64_t version, float value)
{
    float data[FLAT];
    for (size_t i = 0; i < FLAT; i++)
        data[i] = value;
    const struct lh_envelope env = {
        .kind = kind, .job = JOB, .step = version, .request = to->env.request, .count = count};
    assert_ok(lh_net_send(x->server, &to->peer, &env,
                          &(struct lh_net_part){.data = data, .size = sizeof data}, 1));
}

/* Waits for a pull of version `asked`, and answers it with `version`. */
static void answer(struct rig *x, uint64_t asked, uint64_t version)
{
    struct lh_net_message m;
    rig_expect(x->server, &m, LH__KIND__KIND_PULL);
    assert_int_equal(m.env.step, asked);
    send_part(x, &m, LH__KIND__KIND_WEIGHTS, FLAT, version, (float)version);
    send_part(x, &m, LH__KIND__KIND_TARGETS, FLAT, version, (float)version + 0.5f);
    lh_net_message_fini(&m);
}

/* The same, and is told that it came. */
static void serve(struct rig *x, uint64_t version)
{
    struct lh_net_message m;
    answer(x, version, version);
    rig_expect(x->server, &m, LH__KIND__KIND_FETCHED);
    assert_int_equal(m.env.step, version);
    lh_net_message_fini(&m);
}

static int poll_next(struct rig *x, uint64_t *version, struct lh_verdict *v)
{
    struct lh_err err;
    double began = lh_now();
    while (!lh_evaluator_poll(x->e, version, v, &err)) {
        if (lh_now() - began > 10)
            fail_msg("no verdict within 10 s");
        lh_net_poll(NULL, 0, 0.005);
    }
    return err.code < 0 ? lh_err_load(&err) : 0;
}

static void evaluator_asks_for_each_version_in_advance_and_hands_over_in_order(void **state)
{
    (void)state;
    struct rig x = {0};
    static const uint64_t versions[] = {4, 10, 20, 25};
    rig_open(&x,
             (struct lh_clock){.start = 4,
                               .until = 25,
                               .total = 25,
                               .checkpoint_every = 5,
                               .evaluate_every = 10,
                               .evaluate_start = true},
             60);
    for (size_t i = 0; i < 4; i++) {
        struct lh_verdict v;
        uint64_t version;
        assert_int_equal(lh_evaluator_next(x.e), versions[i]);
        serve(&x, versions[i]);
        assert_ok(poll_next(&x, &version, &v));
        assert_int_equal(version, versions[i]);
        assert_true(v.value == 2.0 * (double)version && v.lo == (double)version + 0.5);
        lh_mem_free(v.json);
    }
    double began = lh_now();
    while (lh_evaluator_next(x.e) != UINT64_MAX && lh_now() - began < 10)
        lh_net_poll(NULL, 0, 0.005);
    assert_true(lh_evaluator_next(x.e) == UINT64_MAX);
    rig_close(&x);
}

static const struct lh_clock every_10 = {
    .until = 100, .total = 100, .checkpoint_every = 10, .evaluate_every = 10};

/* A slow reader holds it at one verdict: the next version is fetched, its verdict waits. */
static void verdicts_do_not_pile_up(void **state)
{
    (void)state;
    struct rig x = {0};
    struct lh_net_message m;
    uint64_t version;
    struct lh_verdict v;
    rig_open(&x, every_10, 60);
    serve(&x, 10);
    serve(&x, 20);
    lh_net_poll(NULL, 0, 0.05);
    assert_int_equal(lh_net_recv(x.server, &m), LH_AGAIN);
    assert_int_equal(lh_evaluator_next(x.e), 10); /* what must not be forgotten yet */
    assert_ok(poll_next(&x, &version, &v));
    assert_int_equal(version, 10);
    lh_mem_free(v.json);
    rig_expect(x.server, &m, LH__KIND__KIND_PULL);
    assert_int_equal(m.env.step, 30);
    lh_net_message_fini(&m);
    rig_close(&x); /* with a verdict that nobody took */
}

static void failed_evaluation_ends_it_with_its_sentence(void **state)
{
    (void)state;
    struct rig x = {.fails_at = 20};
    uint64_t version;
    struct lh_verdict v;
    rig_open(&x, every_10, 60);
    serve(&x, 10);
    assert_ok(poll_next(&x, &version, &v));
    lh_mem_free(v.json);
    serve(&x, 20);
    assert_err(poll_next(&x, &version, &v), LH_EDIVERGED, "no value");
    assert_int_equal(version, 20);
    rig_close(&x);
}

static void version_that_was_passed_is_an_error(void **state)
{
    (void)state;
    struct rig x = {0};
    struct lh_net_message m;
    uint64_t version;
    struct lh_verdict v;
    rig_open(&x, every_10, 60);
    rig_expect(x.server, &m, LH__KIND__KIND_PULL);
    const struct lh_envelope moved = {
        .kind = LH__KIND__KIND_MOVED, .job = JOB, .step = 12, .request = m.env.request};
    assert_ok(lh_net_send(x.server, &m.peer, &moved, NULL, 0));
    lh_net_message_fini(&m);
    answer(&x, LH_WIRE_LATEST, 12);
    assert_err(poll_next(&x, &version, &v), LH_EINTERNAL, "version 10 was passed before it");
    rig_close(&x);
}

/* A broken piece is dropped, and the version asked for again when the rest does not come. */
static void broken_answer_is_dropped_and_asked_for_again(void **state)
{
    (void)state;
    struct rig x = {0};
    struct lh_net_message m;
    uint64_t version;
    struct lh_verdict v;
    rig_open(&x, every_10, 0.1);
    rig_expect(x.server, &m, LH__KIND__KIND_PULL);
    send_part(&x, &m, LH__KIND__KIND_WEIGHTS, FLAT + 1, 10, 1);
    lh_net_message_fini(&m);
    serve(&x, 10);
    assert_ok(poll_next(&x, &version, &v));
    assert_true(version == 10 && v.value == 20);
    lh_mem_free(v.json);
    rig_close(&x);
}

static void stop_does_not_wait_for_an_answer(void **state)
{
    (void)state;
    struct rig x = {0};
    rig_open(&x, every_10, 3600);
    double began = lh_now();
    rig_close(&x);
    assert_true(lh_now() - began < 10);
}

static void start_survives_every_failed_allocation(void **state)
{
    (void)state;
    static char endpoint[] = "inproc://server";
    static char *const endpoints[] = {endpoint};
    struct lh_layout layout;
    void *zmq = zmq_ctx_new();
    assert_ok(lh_layout_init_params(&layout, &from, rules, 1, 1));
    for (uint64_t at = 1; at <= 5; at++) {
        struct lh_evaluator *e = NULL;
        lh_mem_fail_at(at);
        int rc = lh_evaluator_start(&e, &(struct lh_evaluator_spec){.zmq = zmq,
                                                                    .layout = &layout,
                                                                    .endpoints = endpoints,
                                                                    .clock = every_10,
                                                                    .deadline = 60,
                                                                    .evaluate = evaluate});
        lh_mem_fail_at(0);
        assert_int_equal(rc, LH_ENOMEM);
        assert_null(e);
    }
    lh_layout_fini(&layout);
    zmq_ctx_term(zmq);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(evaluator_asks_for_each_version_in_advance_and_hands_over_in_order),
        kit_test(verdicts_do_not_pile_up),
        kit_test(failed_evaluation_ends_it_with_its_sentence),
        kit_test(version_that_was_passed_is_an_error),
        kit_test(broken_answer_is_dropped_and_asked_for_again),
        kit_test(stop_does_not_wait_for_an_answer),
        kit_test(start_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("evaluator", tests, NULL, NULL);
}
