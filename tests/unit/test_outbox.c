/* Control messages over a connection that loses and repeats them. */
#include "common/outbox.h"

#include "tests/testkit.h"

#include "common/term.h"

#include <string.h>

struct rig {
    void *zmq;
    struct lh_net_socket *here, *there; /* DEALER, ROUTER */
    struct lh_net_peer peer;            /* of here, once it was heard */
    struct lh_outbox out;
    struct lh_inbox in;
};

static void rig_open_for(struct rig *x, int queue)
{
    *x = (struct rig){.zmq = zmq_ctx_new()};
    assert_ok(lh_net_router(&x->there, x->zmq, "inproc://there", queue, NULL));
    assert_ok(lh_net_dealer(
        &x->here, x->zmq,
        &(struct lh_net_address){.endpoint = "inproc://there", .role = LH__ROLE__ROLE_NONE}, queue,
        NULL));
}

static void rig_open(struct rig *x)
{
    rig_open_for(x, 1000);
}

static void rig_close(struct rig *x)
{
    lh_outbox_fini(&x->out);
    lh_outbox_fini(&x->out);
    lh_net_close(&x->here);
    lh_net_close(&x->there);
    zmq_ctx_term(x->zmq);
}

static int send_step(struct rig *x, uint64_t step)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_METRICS, .step = step};
    const uint64_t twice[] = {step, ~step};
    const struct lh_net_part parts[] = {{.data = &twice[0], .size = sizeof twice[0]},
                                        {.data = &twice[1], .size = sizeof twice[1]}};
    return lh_outbox_send(&x->out, x->here, NULL, &env, parts, 2);
}

/* Everything that has come; of each only what the inbox takes, in `steps`. Returns how many came.
 */
static size_t take_all(struct rig *x, uint64_t *steps, size_t *n)
{
    struct lh_net_message msg;
    size_t came = 0, size;
    *n = 0;
    for (;;) {
        struct lh_net_poll poll = {.socket = x->there};
        assert_ok(lh_net_poll(&poll, 1, 0.05));
        if (lh_net_recv(x->there, &msg) != 0)
            return came;
        came++;
        uint64_t first, second;
        memcpy(&first, lh_net_frame(&msg, 0, &size), sizeof first);
        memcpy(&second, lh_net_frame(&msg, 1, &size), sizeof second);
        assert_true(first == msg.env.step && second == ~msg.env.step);
        if (lh_inbox_takes(&x->in, msg.env.request))
            steps[(*n)++] = msg.env.step;
        lh_net_message_fini(&msg);
    }
}

static void inbox_takes_each_number_once_and_in_order(void **state)
{
    (void)state;
    struct lh_inbox in = {0};
    assert_true(lh_inbox_takes(&in, 0)); /* outside of the order */
    assert_false(lh_inbox_takes(&in, 2));
    assert_true(lh_inbox_takes(&in, 1));
    assert_false(lh_inbox_takes(&in, 1));
    assert_true(lh_inbox_takes(&in, 2));
    assert_false(lh_inbox_takes(&in, UINT64_MAX));
    assert_true(lh_inbox_takes(&in, 0));
    assert_true(in.last == 2 && in.taken == 2);
}

static void what_is_not_acknowledged_comes_again_and_is_taken_once(void **state)
{
    (void)state;
    struct rig x;
    uint64_t steps[64];
    size_t n;
    rig_open(&x);
    for (uint64_t s = 1; s <= 5; s++)
        assert_ok(send_step(&x, s * 10));
    assert_int_equal(take_all(&x, steps, &n), 5);
    assert_true(n == 5 && steps[0] == 10 && steps[4] == 50);
    /* two are acknowledged; the others come again, and are known */
    assert_ok(lh_outbox_acknowledged(&x.out, 2, x.here, NULL, 1000));
    assert_int_equal(take_all(&x, steps, &n), 0); /* not yet */
    assert_int_equal(x.out.n, 3);
    assert_ok(lh_outbox_acknowledged(&x.out, 2, x.here, NULL, 0));
    assert_int_equal(take_all(&x, steps, &n), 3);
    assert_int_equal(n, 0);
    assert_ok(lh_outbox_acknowledged(&x.out, 5, x.here, NULL, 0));
    assert_ok(lh_outbox_acknowledged(&x.out, 3, x.here, NULL, 0)); /* an old one */
    assert_int_equal(take_all(&x, steps, &n), 0);
    assert_int_equal(x.out.n, 0);
    rig_close(&x);
}

/* The inbox behind a connection that has lost some: the order is kept. */
static void what_was_lost_holds_back_what_came_after_it(void **state)
{
    (void)state;
    struct rig x;
    uint64_t steps[64];
    size_t n;
    rig_open(&x);
    for (uint64_t s = 1; s <= 3; s++)
        assert_ok(send_step(&x, s));
    take_all(&x, steps, &n);
    x.in = (struct lh_inbox){.last = 1}; /* as if 2 had been lost, and 3 come */
    assert_false(lh_inbox_takes(&x.in, 3));
    assert_ok(lh_outbox_acknowledged(&x.out, 1, x.here, NULL, 0));
    assert_ok(send_step(&x, 4));
    take_all(&x, steps, &n);
    assert_true(n == 3 && steps[0] == 2 && steps[1] == 3 && steps[2] == 4);
    rig_close(&x);
}

static void full_outbox_says_so_and_goes_round(void **state)
{
    (void)state;
    struct rig x;
    static uint64_t steps[2 * LH_OUTBOX_MAX];
    size_t n;
    rig_open_for(&x, 2 * LH_OUTBOX_MAX);
    for (uint64_t s = 0; s < LH_OUTBOX_MAX - 3; s++) { /* the ring grows where it has gone round */
        assert_ok(send_step(&x, s));
        if (s == 19)
            assert_ok(lh_outbox_acknowledged(&x.out, 10, x.here, NULL, 1000));
    }
    assert_int_equal(x.out.n, LH_OUTBOX_MAX - 13);
    for (uint64_t s = 0; s < 13; s++)
        assert_ok(send_step(&x, LH_OUTBOX_MAX - 3 + s));
    assert_int_equal(send_step(&x, 1), LH_AGAIN);
    assert_ok(lh_outbox_acknowledged(&x.out, LH_OUTBOX_MAX, x.here, NULL, 1000));
    for (uint64_t s = 10; s < LH_OUTBOX_MAX; s++)
        assert_ok(send_step(&x, LH_OUTBOX_MAX + s));
    assert_int_equal(send_step(&x, 1), LH_AGAIN);
    take_all(&x, steps, &n);
    assert_int_equal(n, 2 * LH_OUTBOX_MAX);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(steps[i], i);
    /* warm, it allocates nothing */
    assert_ok(lh_outbox_acknowledged(&x.out, x.out.last, x.here, NULL, 1000));
    uint64_t before = lh_mem_count();
    for (uint64_t s = 0; s < LH_OUTBOX_MAX; s++)
        assert_ok(send_step(&x, s));
    assert_int_equal(lh_mem_count(), before);
    rig_close(&x);
}

static void without_memory_nothing_is_sent_and_no_number_is_lost(void **state)
{
    (void)state;
    struct rig x;
    uint64_t steps[64];
    size_t n;
    rig_open(&x);
    for (uint64_t at = 1; at <= 2; at++) {
        lh_mem_fail_at(at);
        int rc = send_step(&x, 1);
        lh_mem_fail_at(0);
        assert_int_equal(rc, LH_ENOMEM);
    }
    assert_ok(send_step(&x, 7));
    take_all(&x, steps, &n);
    assert_true(n == 1 && steps[0] == 7);
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(inbox_takes_each_number_once_and_in_order),
        kit_test(what_is_not_acknowledged_comes_again_and_is_taken_once),
        kit_test(what_was_lost_holds_back_what_came_after_it),
        kit_test(full_outbox_says_so_and_goes_round),
        kit_test(without_memory_nothing_is_sent_and_no_number_is_lost),
    };
    return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
