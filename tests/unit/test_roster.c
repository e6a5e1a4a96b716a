/* Who is let in, who is taken for dead, who has which share. */
#include "cluster/roster.h"

#include "common/mem.h"
#include "common/member.h"
#include "tests/unit/net_rig.h"

#include <string.h>
#include <unistd.h>

enum { PEERS = 4, JOB = 77 };

struct rig {
    void *zmq;
    struct lh_roster r;
    struct lh_net_socket *peer[PEERS];
};

static void rig_open(struct rig *x, uint32_t servers)
{
    *x = (struct rig){.zmq = zmq_ctx_new(),
                      .r = {.job = JOB, .servers = servers, .workers = 1, .deadline = 5}};
    assert_ok(lh_net_router(&x->r.socket, x->zmq, "inproc://roster", 64, NULL));
    for (int i = 0; i < PEERS; i++)
        assert_ok(rig_dial(&x->peer[i], x->zmq, "inproc://roster", 64));
}

static void rig_close(struct rig *x)
{
    for (int i = 0; i < PEERS; i++)
        lh_net_close(&x->peer[i]);
    lh_roster_fini(&x->r);
    lh_net_close(&x->r.socket);
    zmq_ctx_term(x->zmq);
}

static Lh__Hello hello_of(Lh__Role role)
{
    static char program[] = LH_VERSION, blas[] = "fma", host[] = "here", endpoint[] = "tcp://h:1";
    Lh__Hello h = LH__HELLO__INIT;
    h.role = role;
    h.program = program;
    h.blas = blas;
    h.host = host;
    h.pid = 4711;
    if (role == LH__ROLE__ROLE_SERVER)
        h.endpoint = endpoint;
    return h;
}

static struct lh_role_node *say(struct rig *x, int peer, Lh__Hello *h, uint32_t protocol)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_HELLO, .protocol = protocol};
    struct lh_net_message m;
    struct lh_role_node *node = NULL;
    assert_ok(lh_net_send_body(x->peer[peer], NULL, &env, &h->base));
    rig_receive(x->r.socket, &m);
    assert_ok(lh_roster_hello(&x->r, &m, &node));
    lh_net_message_fini(&m);
    return node;
}

static struct lh_role_node *join(struct rig *x, int peer, Lh__Role role)
{
    Lh__Hello h = hello_of(role);
    struct lh_role_node *node = say(x, peer, &h, 0);
    assert_non_null(node);
    node->standing = LH_STANDING_READY;
    return node;
}

/* A node speaks; who the roster takes it for. */
static struct lh_role_node *speak(struct rig *x, int peer, uint32_t number, uint32_t kind,
                                  uint64_t version, bool *returned)
{
    struct lh_envelope env = {.kind = kind, .job = JOB, .node = number, .step = version};
    Lh__Phases phases = LH__PHASES__INIT;
    struct lh_net_message m;
    phases.rows = version;
    assert_ok(lh_net_send_body(x->peer[peer], NULL, &env, &phases.base));
    rig_receive(x->r.socket, &m);
    struct lh_role_node *node = lh_roster_sender(&x->r, &m, returned);
    lh_net_message_fini(&m);
    return node;
}

static void hello_gives_numbers_and_the_shard_that_is_wanted_or_free(void **state)
{
    (void)state;
    struct rig x;
    char text[256];
    rig_open(&x, 2);
    Lh__Hello h = hello_of(LH__ROLE__ROLE_SERVER);
    h.wanted = 2;
    struct lh_role_node *node = say(&x, 0, &h, 0);
    assert_int_equal(node->number, 1);
    assert_int_equal(node->shard, 1);
    kit_assert_contains(lh_roster_describe(node, text, sizeof text),
                        "server 1 (process 4711 on here, tcp://h:1)");
    h.wanted = 0;
    assert_int_equal(say(&x, 1, &h, 0)->shard, 0);
    node = join(&x, 2, LH__ROLE__ROLE_WORKER);
    assert_int_equal(node->number, 3);
    kit_assert_contains(lh_roster_describe(node, text, sizeof text),
                        "worker 3 (process 4711 on here)");
    assert_string_equal(x.r.blas, "fma");
    /* said again, it is not another */
    h = hello_of(LH__ROLE__ROLE_WORKER);
    assert_null(say(&x, 2, &h, 0));
    assert_int_equal(x.r.n_nodes, 3);
    assert_int_equal(lh_roster_count(&x.r, LH__ROLE__ROLE_SERVER, LH_STANDING_HELLO), 2);
    assert_int_equal(lh_roster_count(&x.r, LH__ROLE__ROLE_SERVER, LH_STANDING_READY), 0);
    assert_int_equal(lh_roster_server(&x.r, 1)->number, 1);
    assert_null(lh_roster_server(&x.r, 2));
    rig_close(&x);
}

static void hello_that_does_not_fit_is_refused_with_its_reason(void **state)
{
    (void)state;
    static char old[] = "0.0.1", other[] = "OpenBLAS 0.3.21 Haswell", none[] = "";
    struct rig x;
    struct lh_net_message m;
    rig_open(&x, 1);
    join(&x, 0, LH__ROLE__ROLE_SERVER);
    join(&x, 1, LH__ROLE__ROLE_WORKER);
    Lh__Hello release = hello_of(LH__ROLE__ROLE_WORKER), kernel = release, full, taken, nowhere;
    Lh__Hello unknown = hello_of(LH__ROLE__ROLE_NONE);
    full = taken = nowhere = hello_of(LH__ROLE__ROLE_SERVER);
    release.program = old;
    kernel.blas = other;
    taken.wanted = 1;
    nowhere.endpoint = none;
    struct {
        Lh__Hello *h;
        uint32_t protocol;
        int code;
        const char *says;
    } refused[] = {
        {&release, 0, LH_EMISMATCH, "this role is longhaul 0.0.1"},
        {&full, 99, LH_EMISMATCH, "(protocol 99), the scheduler is"},
        {&kernel, 0, LH_EMISMATCH, "computes with OpenBLAS 0.3.21 Haswell, the run with fma"},
        {&full, 0, LH_EBUSY, "the job has 1 server and shard 1 is taken or beyond"},
        {&taken, 0, LH_EBUSY, "shard 0 is taken or beyond"},
        {&nowhere, 0, LH_EPROTO, "a server that says no endpoint"},
        {&unknown, 0, LH_EPROTO, "a role of unknown kind 0"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_null(say(&x, 2, refused[i].h, refused[i].protocol));
        rig_expect(x.peer[2], &m, LH__KIND__KIND_REFUSED);
        assert_err(lh_member_stop_reason(&m), refused[i].code, refused[i].says);
        lh_net_message_fini(&m);
        assert_int_equal(x.r.n_nodes, 2);
    }
    /* a shard whose server is gone is free again */
    lh_roster_server(&x.r, 0)->standing = LH_STANDING_GONE;
    assert_int_equal(say(&x, 2, &taken, 0)->number, 3);
    rig_close(&x);
}

/* A key is worth so many numbers, and others have theirs. */
static void one_key_does_not_take_all_numbers(void **state)
{
    (void)state;
    enum { MOST = 16384 };
    static const char one[] = "0123456789012345678901234567890123456789",
                      two[] = "9876543210987654321098765432109876543210";
    struct rig x;
    struct lh_role_node *node = NULL;
    struct lh_net_message m = {.env = {.kind = LH__KIND__KIND_HELLO, .protocol = LH_WIRE_PROTOCOL},
                               .role = LH__ROLE__ROLE_WORKER,
                               .peer = {.size = 1, .id = {7}, .fd = -1},
                               .n = 1};
    Lh__Hello h = hello_of(LH__ROLE__ROLE_WORKER);
    rig_open(&x, 1);
    assert_ok(LH_GROW(&x.r.nodes, &x.r.cap_nodes, MOST, "nodes"));
    for (; x.r.n_nodes < MOST - 1; x.r.n_nodes++) {
        struct lh_role_node *n = &x.r.nodes[x.r.n_nodes];
        *n = (struct lh_role_node){.standing = LH_STANDING_GONE};
        memcpy(n->key, one, sizeof one);
    }
    zmq_msg_init_size(&m.frame[0], lh__hello__get_packed_size(&h));
    lh__hello__pack(&h, zmq_msg_data(&m.frame[0]));
    for (unsigned char i = 0; i < 3; i++) {
        m.peer.id[0] = i;
        memcpy(m.key, i < 2 ? one : two, sizeof one);
        assert_ok(lh_roster_hello(&x.r, &m, &node));
        assert_true(i == 1 ? !node : node && node->number == x.r.n_nodes);
    }
    kit_assert_contains(lh_err_text(), "16384 roles have come to this run with this key");
    lh_net_message_fini(&m);
    rig_close(&x);
}

static void what_a_role_says_of_itself_steers_no_terminal(void **state)
{
    (void)state;
    static char host[] = "a\nlonghaul: \x1b[2J\x7f\xc2\x9b\x9b"
                         "b\xc3\xa9",
                endpoint[] = "tcp://h:1\r", blas[] = "fma\t";
    struct rig x;
    char text[256];
    rig_open(&x, 1);
    Lh__Hello h = hello_of(LH__ROLE__ROLE_SERVER);
    h.host = h.metrics = host;
    h.endpoint = endpoint;
    struct lh_role_node *node = say(&x, 0, &h, 0);
    kit_assert_contains(lh_roster_describe(node, text, sizeof text),
                        "on a?longhaul: ?[2J????b\xc3\xa9, tcp://h:1?)");
    assert_string_equal(node->metrics, node->host);
    h = hello_of(LH__ROLE__ROLE_WORKER);
    h.blas = blas;
    assert_null(say(&x, 1, &h, 0)); /* no kernel has such a name */
    assert_string_equal(x.r.blas, "fma?");
    struct lh_net_message m;
    rig_expect(x.peer[1], &m, LH__KIND__KIND_REFUSED);
    lh_net_message_fini(&m);
    rig_close(&x);
}

static void sender_given_up_is_back_unless_it_said_goodbye(void **state)
{
    (void)state;
    struct rig x;
    bool returned = true;
    rig_open(&x, 1);
    join(&x, 0, LH__ROLE__ROLE_SERVER);
    join(&x, 1, LH__ROLE__ROLE_WORKER);
    struct lh_role_node *worker = speak(&x, 1, 2, LH__KIND__KIND_BEAT, 9, &returned);
    assert_int_equal(worker->number, 2);
    assert_false(returned);
    assert_true(worker->version == 9 && worker->phases.rows == 9);
    assert_non_null(speak(&x, 1, 2, LH__KIND__KIND_READY, 3, NULL));
    assert_int_equal(worker->version, 9); /* a late message does not set it back */
    assert_null(speak(&x, 1, 0, LH__KIND__KIND_BEAT, 1, NULL));
    assert_null(speak(&x, 1, 3, LH__KIND__KIND_BEAT, 1, NULL));

    worker->standing = LH_STANDING_GONE;
    assert_null(speak(&x, 1, 2, LH__KIND__KIND_READY, 3, NULL));
    /* heard over another connection: answers go there from now on */
    assert_ptr_equal(speak(&x, 3, 2, LH__KIND__KIND_BEAT, 10, &returned), worker);
    assert_true(returned && worker->standing == LH_STANDING_READY);
    struct lh_net_message m;
    assert_ok(
        lh_roster_tell(&x.r, worker, &(struct lh_envelope){.kind = LH__KIND__KIND_BEAT}, NULL));
    rig_expect(x.peer[3], &m, LH__KIND__KIND_BEAT);
    assert_int_equal(m.env.job, JOB);
    lh_net_message_fini(&m);

    worker->standing = LH_STANDING_GONE;
    worker->said_goodbye = true;
    assert_null(speak(&x, 1, 2, LH__KIND__KIND_BEAT, 11, NULL));
    /* a server that was given up cannot come back: its shard may be another's */
    lh_roster_server(&x.r, 0)->standing = LH_STANDING_GONE;
    assert_null(speak(&x, 0, 1, LH__KIND__KIND_BEAT, 11, NULL));
    rig_close(&x);
}

static void assign_gives_one_share_to_each_ready_worker(void **state)
{
    (void)state;
    struct rig x;
    struct lh_net_message m;
    rig_open(&x, 1);
    join(&x, 0, LH__ROLE__ROLE_SERVER);
    join(&x, 1, LH__ROLE__ROLE_WORKER);
    join(&x, 2, LH__ROLE__ROLE_WORKER)->standing = LH_STANDING_PLANNED;
    join(&x, 3, LH__ROLE__ROLE_WORKER);
    for (uint32_t epoch = 1; epoch <= 2; epoch++) {
        assert_ok(lh_roster_assign(&x.r));
        for (int i = 1; i < PEERS; i += 2) {
            rig_expect(x.peer[i], &m, LH__KIND__KIND_ASSIGN);
            assert_int_equal(m.env.index, i / 2);
            assert_int_equal(m.env.count, 2);
            assert_int_equal(m.env.epoch, epoch);
            lh_net_message_fini(&m);
        }
        assert_int_equal(x.r.nodes[3].epoch, epoch);
    }
    /* beats go to all, and not before they are due again */
    x.r.heartbeat = 3600;
    assert_ok(lh_roster_beat(&x.r));
    for (int i = 0; i < PEERS; i++) {
        rig_expect(x.peer[i], &m, LH__KIND__KIND_BEAT);
        lh_net_message_fini(&m);
    }
    assert_ok(lh_roster_beat(&x.r));
    assert_ok(lh_roster_tell_all(&x.r, LH__ROLE__ROLE_SERVER,
                                 &(struct lh_envelope){.kind = LH__KIND__KIND_PAUSE}, NULL));
    rig_expect(x.peer[0], &m, LH__KIND__KIND_PAUSE);
    lh_net_message_fini(&m);
    for (int i = 1; i < PEERS; i++)
        assert_int_equal(lh_net_recv(x.peer[i], &m), LH_AGAIN);
    rig_close(&x);
}

static void silent_is_who_was_not_heard_within_its_patience(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x, 1);
    join(&x, 0, LH__ROLE__ROLE_SERVER);
    struct lh_role_node *worker = join(&x, 1, LH__ROLE__ROLE_WORKER);
    assert_null(lh_roster_silent(&x.r));
    worker->heard -= 6;
    assert_ptr_equal(lh_roster_silent(&x.r), worker);
    worker->standing = LH_STANDING_PLANNED; /* who reads a dataset may be long at it */
    assert_null(lh_roster_silent(&x.r));
    worker->heard -= 300;
    assert_ptr_equal(lh_roster_silent(&x.r), worker);
    worker->standing = LH_STANDING_GONE;
    assert_null(lh_roster_silent(&x.r));

    /* the process 4711 of another host is another */
    assert_null(lh_roster_by_pid(&x.r, 4711, "there"));
    assert_ptr_equal(lh_roster_by_pid(&x.r, 4711, "here"), &x.r.nodes[0]);
    assert_null(lh_roster_by_pid(&x.r, 4712, "here"));
    rig_close(&x);
}

/* Time passes for the roster, in turns of so many seconds each; what it says then. */
static struct lh_role_node *after(struct rig *x, struct lh_role_node *node, int turns, double each)
{
    struct lh_role_node *silent = NULL;
    for (int i = 0; i < turns; i++) {
        node->heard -= each;
        x->r.awake.last -= each;
        silent = lh_roster_silent(&x->r);
    }
    return silent;
}

/* The deadline is 5 s. */
static void silence_while_the_scheduler_had_no_turn_does_not_count(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x, 1);
    struct lh_role_node *worker = join(&x, 0, LH__ROLE__ROLE_WORKER);
    assert_null(lh_roster_silent(&x.r));
    assert_null(after(&x, worker, 1, 100)); /* as if both had stood still for so long */
    assert_null(after(&x, worker, 4, 1));
    assert_ptr_equal(after(&x, worker, 2, 1), worker); /* but turns are no suspension */
    worker->heard = lh_now(); /* heard at once when it went on, after an hour */
    x.r.awake.last -= 3600;
    assert_null(lh_roster_silent(&x.r));
    assert_ptr_equal(after(&x, worker, 6, 1), worker);
    x.r.in_process = true; /* a thread cannot be gone, but it may get no processor for long */
    assert_null(lh_roster_silent(&x.r));
    assert_null(after(&x, worker, 200, 1));
    assert_ptr_equal(after(&x, worker, 100, 1), worker);
    rig_close(&x);
}

/* --- orders ------------------------------------------------------------------------------------
 */
static void lose(struct rig *x, struct lh_role_node *node, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        assert_ok(lh_roster_tell(
            &x->r, node, &(struct lh_envelope){.kind = LH__KIND__KIND_LOST, .index = i}, NULL));
}

/* A peer beats, with the last order that it has. */
static struct lh_role_node *acknowledge(struct rig *x, int peer, uint64_t last, bool *returned)
{
    const struct lh_envelope env = {
        .kind = LH__KIND__KIND_BEAT, .job = JOB, .node = (uint32_t)peer + 1, .first = last};
    struct lh_net_message m;
    assert_ok(lh_net_send(x->peer[peer], NULL, &env, NULL, 0));
    rig_receive(x->r.socket, &m);
    struct lh_role_node *node = lh_roster_sender(&x->r, &m, returned);
    lh_net_message_fini(&m);
    return node;
}

/* Many workers that are lost at once, between two beats of a server. */
static void orders_are_as_many_as_it_takes_and_none_is_forgotten(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    struct rig x;
    struct lh_inbox in = {0};
    struct lh_net_message m;
    rig_open(&x, 1);
    struct lh_role_node *server = join(&x, 0, LH__ROLE__ROLE_SERVER);
    x.r.heartbeat = -1; /* what is not acknowledged is sent again at once */
    assert_true(lh_roster_has_room(&x.r, LH__ROLE__ROLE_SERVER));
    lose(&x, server, 0, MANY);
    assert_false(lh_roster_has_room(&x.r, LH__ROLE__ROLE_SERVER));
    double began = lh_now();
    while (in.last < MANY && lh_now() - began < 20) {
        while (lh_net_recv(x.peer[0], &m) == 0) {
            if (lh_inbox_takes(&in, m.env.request))
                assert_int_equal(m.env.index, in.last - 1);
            lh_net_message_fini(&m);
        }
        assert_non_null(acknowledge(&x, 0, in.last, NULL));
    }
    assert_int_equal(in.last, MANY);
    assert_true(lh_roster_has_room(&x.r, LH__ROLE__ROLE_SERVER));
    assert_null(lh_roster_silent(&x.r));
    rig_close(&x);
}

/* One that beats but takes nothing, and what it is told would fill the memory: of servers there are
 * few, of workers as many as whoever has a key brings. */
static void who_takes_no_orders_is_given_up_and_says_hello_anew(void **state)
{
    (void)state;
    static const struct {
        Lh__Role role;
        uint32_t most;
    } cases[] = {{LH__ROLE__ROLE_SERVER, LH_OUTBOX_MAX}, {LH__ROLE__ROLE_WORKER, LH_OUTBOX_ROOM}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig x;
        struct lh_net_message m;
        bool returned = false;
        rig_open(&x, 1);
        const uint64_t before = lh_mem_live();
        struct lh_role_node *node = join(&x, 0, cases[i].role);
        const uint64_t joined = lh_mem_live();
        lose(&x, node, 0, cases[i].most);
        assert_null(lh_roster_silent(&x.r));
        lose(&x, node, cases[i].most, cases[i].most + 200);
        assert_int_equal(node->out.n, cases[i].most);
        assert_non_null(acknowledge(&x, 0, 0, NULL));
        assert_ptr_equal(lh_roster_silent(&x.r), node);
        lh_roster_gone(node);
        assert_null(lh_roster_silent(&x.r));
        assert_true(lh_mem_live() == joined && joined > before);
        while (lh_net_recv(x.peer[0], &m) == 0)
            lh_net_message_fini(&m);
        assert_null(acknowledge(&x, 0, 7, &returned));
        assert_false(returned);
        if (cases[i].role == LH__ROLE__ROLE_WORKER) {
            rig_expect(x.peer[0], &m, LH__KIND__KIND_AGAIN);
            assert_int_equal(m.env.request, 0);
            lh_net_message_fini(&m);
        }
        rig_close(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(hello_gives_numbers_and_the_shard_that_is_wanted_or_free),
        kit_test(hello_that_does_not_fit_is_refused_with_its_reason),
        kit_test(one_key_does_not_take_all_numbers),
        kit_test(what_a_role_says_of_itself_steers_no_terminal),
        kit_test(sender_given_up_is_back_unless_it_said_goodbye),
        kit_test(assign_gives_one_share_to_each_ready_worker),
        kit_test(silence_while_the_scheduler_had_no_turn_does_not_count),
        kit_test(orders_are_as_many_as_it_takes_and_none_is_forgotten),
        kit_test(who_takes_no_orders_is_given_up_and_says_hello_anew),
        kit_test(silent_is_who_was_not_heard_within_its_patience),
    };
    return cmocka_run_group_tests_name("roster", tests, NULL, NULL);
}
