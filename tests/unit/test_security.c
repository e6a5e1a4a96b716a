/* Who may send what, and what may go in the clear. */
#include "common/security.h"

#include "tests/testkit.h"

#include "common/net.h"

#include <zmq.h>

static const Lh__Role roles[] = {LH__ROLE__ROLE_SCHEDULER, LH__ROLE__ROLE_SERVER,
                                 LH__ROLE__ROLE_WORKER, LH__ROLE__ROLE_EVALUATION};

static void every_kind_has_a_sender(void **state)
{
    (void)state;
    for (unsigned i = 0; i < lh__kind__descriptor.n_values; i++) {
        uint32_t kind = (uint32_t)lh__kind__descriptor.values[i].value;
        int senders = 0;
        for (int r = 0; r < 4; r++)
            senders += lh_security_may_send(roles[r], kind);
        if (kind != LH__KIND__KIND_NONE && senders == 0)
            fail_msg("nobody may send a %s: give it a line in common/security.c",
                     lh_wire_kind_name(kind));
        assert_false(lh_security_may_send(LH__ROLE__ROLE_NONE, kind));
    }
    assert_false(lh_security_may_send(LH__ROLE__ROLE_SCHEDULER, LH__KIND__KIND_NONE));
    assert_false(lh_security_may_send(LH__ROLE__ROLE_SCHEDULER, UINT32_MAX));
    assert_false(lh_security_may_send((Lh__Role)77, LH__KIND__KIND_STOP));
    assert_false(lh_security_may_send((Lh__Role)-1, LH__KIND__KIND_STOP));
}

static void orders_come_from_the_scheduler_alone(void **state)
{
    (void)state;
    static const uint32_t orders[] = {LH__KIND__KIND_PLAN,   LH__KIND__KIND_REFUSED,
                                      LH__KIND__KIND_ASSIGN, LH__KIND__KIND_STOP,
                                      LH__KIND__KIND_PAUSE,  LH__KIND__KIND_UNTIL,
                                      LH__KIND__KIND_COMMIT, LH__KIND__KIND_MEMBERS};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        assert_true(lh_security_may_send(LH__ROLE__ROLE_SCHEDULER, orders[i]));
        assert_false(lh_security_may_send(LH__ROLE__ROLE_SERVER, orders[i]));
        assert_false(lh_security_may_send(LH__ROLE__ROLE_WORKER, orders[i]));
    }
    for (unsigned i = 0; i < lh__kind__descriptor.n_values; i++) {
        uint32_t kind = (uint32_t)lh__kind__descriptor.values[i].value;
        assert_int_equal(lh_security_may_send(LH__ROLE__ROLE_EVALUATION, kind),
                         kind == LH__KIND__KIND_PULL || kind == LH__KIND__KIND_TABLE_PULL ||
                             kind == LH__KIND__KIND_FETCHED);
    }
    assert_false(lh_security_may_send(LH__ROLE__ROLE_SCHEDULER, LH__KIND__KIND_PULL));
    assert_false(lh_security_may_send(LH__ROLE__ROLE_WORKER, LH__KIND__KIND_FETCHED));
    assert_false(lh_security_may_send(LH__ROLE__ROLE_WORKER, LH__KIND__KIND_PREPARED));
    assert_false(lh_security_may_send(LH__ROLE__ROLE_WORKER, LH__KIND__KIND_WEIGHTS));
    assert_false(lh_security_may_send(LH__ROLE__ROLE_SERVER, LH__KIND__KIND_PUSH));
}

static void loopback_is_local_and_nothing_that_looks_like_it(void **state)
{
    (void)state;
    static const char *const local[] = {
        "inproc://a",        "ipc:///tmp/x",  "tcp://127.0.0.1:5555",           "tcp://127.1.2.3:*",
        "tcp://localhost:1", "tcp://[::1]:5", "tcp://10.0.0.1:0;127.0.0.1:5555"};
    static const char *const other[] = {"tcp://10.0.0.1:5",
                                        "tcp://*:5",
                                        "tcp://0.0.0.0:5",
                                        "tcp://127.evil.example:5",
                                        "tcp://localhost.evil.org:5",
                                        "tcp://eth0:*",
                                        "tcp://[::]:5",
                                        "tcp://127.0.0.1",
                                        "tcp://127.0.0.1:0;10.0.0.1:5555"};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        assert_true(lh_security_is_local(local[i]));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_false(lh_security_is_local(other[i]));
}

static void tcp_beyond_the_host_in_the_clear_needs_leave(void **state)
{
    (void)state;
    void *zmq = zmq_ctx_new();
    struct lh_net_socket *s = NULL;
    struct lh_security leave = {.insecure = true};
    assert_err(lh_net_router(&s, zmq, "tcp://*:*", 4, NULL), LH_ECONFIG, "longhaul keygen");
    assert_err(lh_net_router(&s, zmq, "tcp://*:*", 4, &(struct lh_security){0}), LH_ECONFIG,
               "longhaul keygen");
    assert_err(
        lh_net_dealer(&s, zmq, &(struct lh_net_address){.endpoint = "tcp://192.0.2.1:5"}, 4, NULL),
        LH_ECONFIG, "--insecure");
    assert_ok(lh_net_router(&s, zmq, "tcp://*:*", 4, &leave));
    lh_net_close(&s);
    zmq_ctx_term(zmq);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(every_kind_has_a_sender),
        kit_test(orders_come_from_the_scheduler_alone),
        kit_test(loopback_is_local_and_nothing_that_looks_like_it),
        kit_test(tcp_beyond_the_host_in_the_clear_needs_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
