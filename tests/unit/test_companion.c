/* Waiting for two: whoever's message comes first ends the wait, and one's own results are one's
 * own. */
#include "common/companion.h"

#include "tests/unit/net_rig.h"

#include <string.h>

struct second {
    struct lh_net_socket *socket[LH_NET_POLL_MAX];
    size_t n, asked_for;
    double patience;
};

static size_t sockets(void *ctx, struct lh_net_poll *out, size_t max)
{
    struct second *s = ctx;
    size_t n = s->n < max ? s->n : max;
    s->asked_for = max;
    for (size_t i = 0; i < n; i++)
        out[i] = (struct lh_net_poll){.socket = s->socket[i]};
    return n;
}

static double patience(void *ctx)
{
    return ((struct second *)ctx)->patience;
}

struct rig {
    void *zmq;
    struct lh_net_socket *router[2], *dealer[2];
    struct second second;
    struct lh_companion companion;
};

static void rig_open(struct rig *x)
{
    static const char *const at[] = {"inproc://one", "inproc://two"};
    *x = (struct rig){.zmq = zmq_ctx_new()};
    for (int i = 0; i < 2; i++) {
        assert_ok(lh_net_router(&x->router[i], x->zmq, at[i], 8, NULL));
        assert_ok(rig_dial(&x->dealer[i], x->zmq, at[i], 8));
    }
    x->second = (struct second){.socket = {x->router[1]}, .n = 1, .patience = 60};
    x->companion =
        (struct lh_companion){.ctx = &x->second, .sockets = sockets, .patience = patience};
}

static void rig_close(struct rig *x)
{
    for (int i = 0; i < 2; i++) {
        lh_net_close(&x->dealer[i]);
        lh_net_close(&x->router[i]);
    }
    zmq_ctx_term(x->zmq);
}

static void send_to(struct rig *x, int i)
{
    assert_ok(lh_net_send(x->dealer[i], NULL, &(struct lh_envelope){.kind = LH__KIND__KIND_BEAT},
                          NULL, 0));
}

static void poll_ends_with_a_message_of_either(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rig x;
        rig_open(&x);
        struct lh_net_poll own = {.socket = x.router[0]};
        double began = lh_now();
        send_to(&x, i);
        assert_ok(lh_companion_poll(&x.companion, &own, 1, 30));
        assert_true(lh_now() - began < 10);
        assert_int_equal(own.in, i == 0); /* the second's message is not the first's */
        assert_int_equal(x.second.asked_for, LH_NET_POLL_MAX - 1);
        rig_close(&x);
    }
}

static void poll_waits_no_longer_than_the_second_has_patience(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    struct lh_net_poll own = {.socket = x.router[0]};
    double began = lh_now();
    x.second.patience = 0.01;
    assert_ok(lh_companion_poll(&x.companion, &own, 1, 30));
    assert_false(own.in);
    assert_true(lh_now() - began < 10);
    /* once it has ended, its patience is nobody's */
    x.second.n = 0;
    began = lh_now();
    assert_ok(lh_companion_poll(&x.companion, &own, 1, 0.05));
    assert_true(lh_now() - began >= 0.04);
    rig_close(&x);
}

static void poll_without_a_second_is_a_poll(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    struct lh_net_poll own = {.socket = x.router[0]};
    assert_ok(lh_companion_poll(NULL, &own, 1, 0));
    assert_false(own.in);
    send_to(&x, 0);
    assert_ok(lh_companion_poll(NULL, &own, 1, 10));
    assert_true(own.in);
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(poll_ends_with_a_message_of_either),
        kit_test(poll_waits_no_longer_than_the_second_has_patience),
        kit_test(poll_without_a_second_is_a_poll),
    };
    return cmocka_run_group_tests_name("companion", tests, NULL, NULL);
}
