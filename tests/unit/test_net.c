/* One battery that every transport must pass, and what a hostile peer may do. */
#include "common/net.h"

#include "tests/unit/net_rig.h"

#include "common/term.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    void *zmq;
    struct lh_net_socket *router, *dealer;
};

static struct pair pair_open(const char *endpoint)
{
    struct pair p = {.zmq = zmq_ctx_new()};
    assert_ok(lh_net_router(&p.router, p.zmq, endpoint, 16, NULL));
    assert_ok(rig_dial(&p.dealer, p.zmq, lh_net_endpoint(p.router), 16));
    return p;
}

static void pair_close(struct pair *p)
{
    lh_net_close(&p->dealer);
    lh_net_close(&p->router);
    zmq_ctx_term(p->zmq);
}

static const char *transport(int i)
{
    static char ipc[300];
    snprintf(ipc, sizeof ipc, "ipc://%s/s", kit_dir());
    return (const char *[]){"inproc://test", ipc, "tcp://127.0.0.1:*"}[i];
}

static void count_release(void *data, void *hint)
{
    (void)data;
    atomic_fetch_add((atomic_int *)hint, 1);
}

static void message_goes_there_and_back_on_every_transport(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++) {
        struct pair p = pair_open(transport(t));
        static float big[100000];
        atomic_int released = 0;
        struct lh_envelope env = {.kind = LH__KIND__KIND_PUSH, .step = 5, .count = 100000};
        struct lh_net_part parts[] = {
            {.data = big, .size = sizeof big, .release = count_release, .hint = &released},
            {.data = "abc", .size = 3}};
        struct lh_net_message m;
        size_t n;
        for (int i = 0; i < 100000; i++)
            big[i] = (float)i;
        assert_ok(lh_net_send(p.dealer, NULL, &env, parts, 2));
        rig_receive(p.router, &m);
        assert_int_equal(m.env.step, 5);
        assert_int_equal(m.n, 2);
        assert_memory_equal(lh_net_frame(&m, 0, &n), big, sizeof big);
        assert_int_equal(n, sizeof big);
        assert_memory_equal(lh_net_frame(&m, 1, &n), "abc", 3);
        assert_null(lh_net_frame(&m, 2, &n));
        struct lh_net_peer peer = m.peer;
        lh_net_message_fini(&m);
        env.kind = LH__KIND__KIND_WEIGHTS;
        assert_ok(lh_net_send(p.router, &peer, &env, NULL, 0));
        rig_receive(p.dealer, &m);
        assert_int_equal(m.env.kind, LH__KIND__KIND_WEIGHTS);
        assert_int_equal(m.n, 0);
        lh_net_message_fini(&m);
        pair_close(&p);
        assert_int_equal(atomic_load(&released), 1);
    }
}

static int usual_room(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), room = 0;
    socklen_t n = sizeof room;
    assert_true(fd >= 0);
    getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &n);
    close(fd);
    return room;
}

/* Unix sockets of this process with more room than they have by themselves. */
static int count_roomy(void)
{
    const int usual = usual_room();
    int found = 0;
    for (int fd = 0; fd < 1024; fd++) {
        int domain = 0, room = 0;
        socklen_t n = sizeof domain;
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) != 0 || domain != AF_UNIX)
            continue;
        n = sizeof room;
        getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &n);
        found += room > usual;
    }
    return found;
}

static void connection_within_a_host_gets_room_at_both_ends_and_again_when_it_is_new(void **state)
{
    (void)state;
    struct pair p = pair_open(transport(1));
    struct lh_envelope env = {.kind = LH__KIND__KIND_BEAT};
    struct lh_net_message m;
    for (int life = 0; life < 3; life++) { /* descriptors are those of the life before */
        const double until = lh_now() + 20;
        assert_ok(lh_net_send(p.dealer, NULL, &env, NULL, 0));
        rig_receive(p.router, &m);
        lh_net_message_fini(&m);
        while (count_roomy() != 2 && lh_now() < until) {
            struct lh_net_poll item = {.socket = p.dealer};
            assert_ok(lh_net_poll(&item, 1, 0.01));
            assert_int_equal(lh_net_recv(p.dealer, &m), LH_AGAIN);
        }
        assert_int_equal(count_roomy(), 2);
        lh_net_close(&p.dealer);
        while (count_roomy() != 0 && lh_now() < until)
            zmq_poll(NULL, 0, 10);
        assert_int_equal(count_roomy(), 0);
        assert_ok(rig_dial(&p.dealer, p.zmq, lh_net_endpoint(p.router), 16));
    }
    pair_close(&p);
}

static void dealer_may_connect_before_the_router_binds(void **state)
{
    (void)state;
    void *zmq = NULL;
    assert_ok(lh_net_context(&zmq, 3));
    assert_int_equal(zmq_ctx_get(zmq, ZMQ_IO_THREADS), 3);
    assert_true(zmq_ctx_get(zmq, ZMQ_MAX_SOCKETS) > 1023); /* what ZeroMQ takes by itself */
    struct lh_net_socket *router = NULL, *dealer = NULL;
    struct lh_envelope env = {.kind = LH__KIND__KIND_BEAT};
    struct lh_net_message m;
    const char *ipc = transport(1);
    assert_ok(rig_dial(&dealer, zmq, ipc, 16));
    assert_ok(lh_net_send(dealer, NULL, &env, NULL, 0));
    assert_ok(lh_net_router(&router, zmq, ipc, 16, NULL));
    rig_receive(router, &m);
    lh_net_message_fini(&m);
    lh_net_close(&dealer);
    lh_net_close(&router);
    zmq_ctx_term(zmq);
}

static void full_queue_and_gone_peer_are_told_not_dropped(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    struct lh_envelope env = {.kind = LH__KIND__KIND_BEAT};
    struct lh_net_message m;
    atomic_int released = 0;
    struct lh_net_part part = {.data = "x", .size = 1, .release = count_release, .hint = &released};
    int sent = 0, rc;
    while ((rc = lh_net_send(p.dealer, NULL, &env, &part, 1)) == 0 && sent < 1000)
        sent++;
    assert_int_equal(rc, LH_AGAIN);
    assert_true(sent >= 16 && sent < 1000);
    assert_int_equal(atomic_load(&released), 0);
    rig_receive(p.router, &m);
    struct lh_net_peer nobody = {.size = 5, .id = "\0none"};
    assert_int_equal(lh_net_send(p.router, &nobody, &env, &part, 1), LH_NOTFOUND);
    assert_int_equal(atomic_load(&released), 1); /* the part of the message that had no way */
    lh_net_message_fini(&m);
    pair_close(&p);
    assert_int_equal(atomic_load(&released), sent + 1);
}

/* ZeroMQ looks only now and then whether the other end has made room. */
static void queue_that_is_emptied_is_never_full(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    for (int i = 0; i < 20000; i++) {
        struct lh_net_message m;
        assert_int_equal(lh_net_send(p.dealer, NULL,
                                     &(struct lh_envelope){.kind = LH__KIND__KIND_PULL}, NULL, 0),
                         0);
        rig_receive(p.router, &m);
        lh_net_message_fini(&m);
    }
    pair_close(&p);
}

static void raw_send(void *socket, const char *const *frames, const size_t *sizes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_true(zmq_send(socket, frames[i], sizes[i], i + 1 < n ? ZMQ_SNDMORE : 0) >= 0);
}

static void malformed_messages_are_counted_and_the_next_good_one_comes(void **state)
{
    (void)state;
    struct pair p = pair_open("tcp://127.0.0.1:*");
    void *raw = zmq_socket(p.zmq, ZMQ_DEALER);
    unsigned char good[LH_WIRE_ENVELOPE_MAX];
    size_t n = lh_wire_encode(&(struct lh_envelope){.kind = LH__KIND__KIND_PUSH, .job = 1}, good);
    int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, lh_net_endpoint(p.router)), 0);
    lh_net_expect(p.router, 1);
    const char *env = (const char *)good;
    raw_send(raw, (const char *[]){""}, (size_t[]){0}, 1);
    raw_send(raw, (const char *[]){"not an envelope"}, (size_t[]){15}, 1);
    raw_send(raw, (const char *[]){env, "", "", "", "", ""}, (size_t[]){n, 0, 0, 0, 0, 0}, 6);
    raw_send(raw, (const char *[]){"junk", env, "x"}, (size_t[]){4, n, 1}, 3);
    unsigned char foreign[LH_WIRE_ENVELOPE_MAX];
    size_t m =
        lh_wire_encode(&(struct lh_envelope){.kind = LH__KIND__KIND_PUSH, .job = 2}, foreign);
    raw_send(raw, (const char *[]){(const char *)foreign}, &m, 1);
    raw_send(raw, (const char *[]){env, "data"}, (size_t[]){n, 4}, 2);
    struct lh_net_message msg;
    rig_receive(p.router, &msg);
    assert_int_equal(msg.n, 1);
    assert_int_equal(msg.env.job, 1);
    lh_net_message_fini(&msg);
    assert_int_equal(lh_net_counts(p.router).dropped, 5);
    zmq_close(raw);
    pair_close(&p);
}

static void endpoints_that_cannot_be_are_refused_with_a_sentence(void **state)
{
    (void)state;
    struct pair p = pair_open("tcp://127.0.0.1:*");
    struct lh_net_socket *s = NULL;
    struct lh_security clear = {.insecure = true};
    char longer[400];
    memset(longer, 'x', sizeof longer);
    memcpy(longer, "ipc:///", 7);
    longer[sizeof longer - 1] = 0;
    assert_err(lh_net_router(&s, p.zmq, lh_net_endpoint(p.router), 4, &clear), LH_EBUSY, "in use");
    assert_err(rig_dial(&s, p.zmq, "nonsense", 4), LH_ECONFIG, "tcp://HOST:PORT");
    assert_err(rig_dial(&s, p.zmq, "smtp://x:1", 4), LH_ECONFIG, "smtp://x:1");
    assert_err(lh_net_router(&s, p.zmq, "tcp://192.0.2.1:5555", 4, &clear), LH_ECONFIG,
               "no such address");
    assert_err(lh_net_router(&s, p.zmq, longer, 4, &clear), LH_ECONFIG, "limited");
    longer[200] = 0;
    assert_err(lh_net_router(&s, p.zmq, longer, 4, &clear), LH_ECONFIG, "107 bytes");
    assert_null(s);
    pair_close(&p);
}

static void shut_down_context_cancels_every_call(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    struct lh_net_message m;
    struct lh_net_poll poll = {.socket = p.router};
    zmq_ctx_shutdown(p.zmq);
    assert_err(lh_net_poll(&poll, 1, 5), LH_ECANCELED, "stopped");
    assert_err(lh_net_recv(p.router, &m), LH_ECANCELED, "stopped");
    assert_err(lh_net_send(p.dealer, NULL, &(struct lh_envelope){.kind = 1}, NULL, 0), LH_ECANCELED,
               "stopped");
    pair_close(&p);
}

static void poll_returns_at_its_time_limit(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    struct lh_net_poll poll = {.socket = p.router};
    double began = lh_now();
    assert_ok(lh_net_poll(&poll, 1, 0.05));
    assert_true(lh_now() - began >= 0.04);
    assert_false(poll.in);
    pair_close(&p);
}

/* A poll of the dealer, which waits for nothing: there is a message. */
static void expect_at_once(struct pair *p, uint32_t kind)
{
    struct lh_net_poll poll = {.socket = p->dealer};
    struct lh_net_message m;
    const double began = lh_now();
    assert_ok(lh_net_poll(&poll, 1, 5));
    assert_true(lh_now() - began < 2);
    assert_true(poll.in);
    assert_ok(lh_net_recv(p->dealer, &m));
    assert_int_equal(m.env.kind, kind);
    lh_net_message_fini(&m);
}

/* ZeroMQ looks for what has come in while it sends, if it has not for a millisecond, and its
 * descriptor tells no more of it then. */
static void poll_finds_what_a_send_took_in(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    struct lh_envelope env = {.kind = LH__KIND__KIND_PULL};
    struct lh_net_message hello, m;
    assert_ok(lh_net_send(p.dealer, NULL, &env, NULL, 0));
    rig_expect(p.router, &hello, LH__KIND__KIND_PULL);
    assert_int_equal(lh_net_recv(p.dealer, &m), LH_AGAIN);
    env.kind = LH__KIND__KIND_MOVED;
    assert_ok(lh_net_send(p.router, &hello.peer, &env, NULL, 0));
    assert_ok(lh_net_poll(NULL, 0, 0.005));
    env.kind = LH__KIND__KIND_PULL;
    assert_ok(lh_net_send(p.dealer, NULL, &env, NULL, 0));
    expect_at_once(&p, LH__KIND__KIND_MOVED);
    lh_net_message_fini(&hello);
    pair_close(&p);
}

/* What was seen to be empty is taken for empty once, and that for a moment only. */
static void message_behind_a_poll_that_found_nothing_is_not_lost(void **state)
{
    (void)state;
    struct pair p = pair_open("inproc://test");
    struct lh_envelope env = {.kind = LH__KIND__KIND_PULL};
    struct lh_net_poll polls[] = {{.socket = p.dealer}, {.socket = p.router}};
    struct lh_net_message hello, m;
    assert_ok(lh_net_send(p.dealer, NULL, &env, NULL, 0));
    rig_expect(p.router, &hello, LH__KIND__KIND_PULL);
    env.kind = LH__KIND__KIND_MOVED;
    for (int i = 0; i < 3; i++) {
        assert_ok(lh_net_poll(polls, 2, 0.005));
        assert_false(polls[0].in || polls[1].in);
        assert_ok(lh_net_send(p.router, &hello.peer, &env, NULL, 0));
        if (i == 0 || (i == 1 && lh_net_recv(p.dealer, &m) == LH_AGAIN)) {
            expect_at_once(&p, LH__KIND__KIND_MOVED);
            continue;
        }
        if (i == 2) { /* without a poll, but a moment later */
            assert_ok(lh_net_poll(NULL, 0, 0.001));
            assert_ok(lh_net_recv(p.dealer, &m));
        }
        lh_net_message_fini(&m);
    }
    lh_net_message_fini(&hello);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(message_goes_there_and_back_on_every_transport),
        kit_test(connection_within_a_host_gets_room_at_both_ends_and_again_when_it_is_new),
        kit_test(dealer_may_connect_before_the_router_binds),
        kit_test(full_queue_and_gone_peer_are_told_not_dropped),
        kit_test(queue_that_is_emptied_is_never_full),
        kit_test(malformed_messages_are_counted_and_the_next_good_one_comes),
        kit_test(endpoints_that_cannot_be_are_refused_with_a_sentence),
        kit_test(shut_down_context_cancels_every_call),
        kit_test(poll_returns_at_its_time_limit),
        kit_test(poll_finds_what_a_send_took_in),
        kit_test(message_behind_a_poll_that_found_nothing_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
