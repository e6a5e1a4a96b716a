/* A role and a scheduler that this test plays. */
#include "common/member.h"

#include "tests/unit/net_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { JOB = 77 };

/* Answers the first hello, and then nothing. */
struct scheduler {
    struct lh_net_socket *socket;
    struct lh_net_peer peer;
    pthread_t thread;
    uint32_t kind, protocol;
    const ProtobufCMessage *body;
    char program[32], blas[160];
    uint64_t pid;
};

static void *answer(void *arg)
{
    struct scheduler *s = arg;
    struct lh_net_message m;
    struct lh_envelope env = {.kind = s->kind, .protocol = s->protocol, .job = JOB};
    Lh__Hello *h = NULL;
    rig_receive(s->socket, &m);
    assert_ok(lh_net_body(&m, &lh__hello__descriptor, (ProtobufCMessage **)&h));
    snprintf(s->program, sizeof s->program, "%s", h->program);
    snprintf(s->blas, sizeof s->blas, "%s", h->blas);
    s->pid = h->pid;
    lh_wire_free((ProtobufCMessage **)&h);
    s->peer = m.peer;
    /* a beat first: it is no answer */
    assert_ok(lh_net_send(s->socket, &m.peer, &(struct lh_envelope){.kind = LH__KIND__KIND_BEAT},
                          NULL, 0));
    assert_ok(lh_net_send_body(s->socket, &m.peer, &env, s->body));
    lh_net_message_fini(&m);
    return NULL;
}

static int join_as(struct lh_member *m, void *zmq, const char *scheduler, const char *role,
                   Lh__Hello *hello, double patience, bool (*interrupted)(void))
{
    return lh_member_join(m,
                          &(struct lh_member_spec){.zmq = zmq,
                                                   .scheduler = scheduler,
                                                   .role = role,
                                                   .patience = patience,
                                                   .interrupted = interrupted},
                          hello);
}

static int join(struct scheduler *s, void *zmq, struct lh_member *m)
{
    Lh__Hello hello = LH__HELLO__INIT;
    hello.role = LH__ROLE__ROLE_WORKER;
    assert_int_equal(pthread_create(&s->thread, NULL, answer, s), 0);
    int rc = join_as(m, zmq, lh_net_endpoint(s->socket), "worker", &hello, 20, NULL);
    pthread_join(s->thread, NULL);
    return rc;
}

/* Joined, with a plan for node 5. */
static void open_joined_at(const char *endpoint, struct scheduler *s, void **zmq,
                           struct lh_member *m)
{
    static Lh__Plan plan;
    plan = (Lh__Plan)LH__PLAN__INIT;
    plan.node = 5;
    plan.job_digest = JOB;
    *zmq = zmq_ctx_new();
    *s = (struct scheduler){.kind = LH__KIND__KIND_PLAN, .body = &plan.base};
    assert_ok(lh_net_router(&s->socket, *zmq, endpoint, 64, NULL));
    assert_ok(join(s, *zmq, m));
}

static void open_joined(struct scheduler *s, void **zmq, struct lh_member *m)
{
    char endpoint[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s", kit_path("scheduler"));
    open_joined_at(endpoint, s, zmq, m);
}

static void join_says_who_it_is_and_takes_the_plan(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    void *zmq;
    char blas[160];
    open_joined(&s, &zmq, &m);
    assert_int_equal(m.node, 5);
    assert_int_equal(m.job, JOB);
    assert_non_null(m.plan);
    assert_string_equal(s.program, LH_VERSION);
    lh_member_blas(blas, sizeof blas);
    assert_string_equal(s.blas, blas);
    assert_int_equal(s.pid, getpid());
    assert_int_equal(lh_member_leave(&m, 0, false), 0);
    struct lh_net_message msg;
    rig_expect(s.socket, &msg, LH__KIND__KIND_GOODBYE);
    assert_int_equal(msg.env.node, 5);
    lh_net_message_fini(&msg);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

static void join_that_is_refused_tells_why_and_leaves_nothing_open(void **state)
{
    (void)state;
    static char reason[] = "shard 1 is taken";
    Lh__Failure because = LH__FAILURE__INIT, nothing = LH__FAILURE__INIT;
    because.code = LH_EBUSY;
    because.text = reason;
    const struct {
        uint32_t kind, protocol;
        const Lh__Failure *body;
        int code;
        const char *says;
    } refusal[] = {
        {LH__KIND__KIND_REFUSED, 0, &because, LH_EBUSY, "shard 1 is taken"},
        {LH__KIND__KIND_STOP, 0, &because, LH_EBUSY, "shard 1 is taken"},
        {LH__KIND__KIND_REFUSED, 0, &nothing, LH_EPROTO, "refused without a reason"},
        {LH__KIND__KIND_REFUSED, 99, &nothing, LH_EMISMATCH, "the scheduler speaks protocol 99"},
    };
    for (size_t i = 0; i < sizeof refusal / sizeof *refusal; i++) {
        void *zmq = zmq_ctx_new();
        struct scheduler s = {.kind = refusal[i].kind,
                              .protocol = refusal[i].protocol,
                              .body = &refusal[i].body->base};
        struct lh_member m;
        assert_ok(lh_net_router(&s.socket, zmq, "inproc://scheduler", 64, NULL));
        assert_err(join(&s, zmq, &m), refusal[i].code, refusal[i].says);
        assert_null(m.socket);
        assert_null(m.plan);
        lh_net_close(&s.socket);
        zmq_ctx_term(zmq);
    }
}

static bool yes(void)
{
    return true;
}

static void join_ends_when_nobody_answers_or_somebody_interrupts(void **state)
{
    (void)state;
    void *zmq = zmq_ctx_new();
    Lh__Hello hello = LH__HELLO__INIT;
    struct lh_net_socket *deaf = NULL;
    struct lh_member m;
    assert_ok(lh_net_router(&deaf, zmq, "inproc://scheduler", 64, NULL));
    assert_err(join_as(&m, zmq, "inproc://scheduler", "worker", &hello, 0.3, NULL), LH_ETIMEDOUT,
               "worker: no scheduler at inproc://scheduler within 0.3 s");
    assert_err(join_as(&m, zmq, "inproc://scheduler", "server", &hello, 60, yes), LH_ECANCELED,
               "server: interrupted while waiting");
    assert_err(join_as(&m, zmq, "no endpoint", "server", &hello, 60, yes), LH_ECONFIG,
               "no endpoint");
    lh_net_close(&deaf);
    zmq_ctx_term(zmq);
}

static void agree_refuses_a_job_that_is_read_otherwise(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    void *zmq;
    open_joined(&s, &zmq, &m);
    assert_ok(lh_member_agree(&m, JOB, 0.1, 5));
    assert_err(lh_member_agree(&m, JOB + 1, 0.1, 5), LH_EMISMATCH,
               "has digest 000000000000004d, this program reads it as 000000000000004e");
    lh_member_leave(&m, 0, true);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

static void tick_beats_and_gives_a_silent_scheduler_up(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    struct lh_net_message msg;
    void *zmq;
    open_joined(&s, &zmq, &m);
    assert_ok(lh_member_agree(&m, JOB, 3600, 5));
    assert_ok(lh_member_tick(&m)); /* not due */
    assert_int_equal(lh_net_recv(s.socket, &msg), LH_AGAIN);
    m.heartbeat = 0;
    m.version = 12;
    m.phases.rows = 34;
    assert_ok(lh_member_tick(&m));
    rig_expect(s.socket, &msg, LH__KIND__KIND_BEAT);
    assert_int_equal(msg.env.step, 12);
    Lh__Phases *p = NULL;
    assert_ok(lh_net_body(&msg, &lh__phases__descriptor, (ProtobufCMessage **)&p));
    assert_int_equal(p->rows, 34);
    lh_wire_free((ProtobufCMessage **)&p);
    lh_net_message_fini(&msg);
    /* a beat of the scheduler is taken in, not handed on, and counts as a word */
    m.last_heard -= 100;
    assert_ok(lh_net_send(s.socket, &s.peer,
                          &(struct lh_envelope){.kind = LH__KIND__KIND_BEAT, .job = JOB}, NULL, 0));
    assert_ok(lh_net_send(s.socket, &s.peer,
                          &(struct lh_envelope){.kind = LH__KIND__KIND_PAUSE, .job = JOB}, NULL,
                          0));
    double began = lh_now();
    int rc;
    while ((rc = lh_member_recv(&m, &msg)) == LH_AGAIN && lh_now() - began < 10)
        ;
    assert_ok(rc);
    assert_int_equal(msg.env.kind, LH__KIND__KIND_PAUSE);
    lh_net_message_fini(&msg);
    assert_ok(lh_member_tick(&m));
    m.last_heard -= 100;
    assert_err(lh_member_tick(&m), LH_EPEER, "went away (silent for 100 s); resume the run");
    lh_member_leave(&m, 0, true);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

/* The scheduler keeps what is not acknowledged: a cut a millisecond would be many until the beat.
 */
static void many_orders_are_acknowledged_before_the_beat_is_due(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    struct lh_net_message msg;
    void *zmq;
    struct lh_envelope order = {.kind = LH__KIND__KIND_COMMIT, .job = JOB};
    open_joined(&s, &zmq, &m);
    assert_ok(lh_member_agree(&m, JOB, 3600, 7200));
    for (order.request = 1; order.request <= LH_OUTBOX_SAY; order.request++) {
        assert_ok(lh_member_tick(&m));
        assert_int_equal(lh_net_recv(s.socket, &msg), LH_AGAIN);
        assert_ok(lh_net_send(s.socket, &s.peer, &order, NULL, 0));
        double began = lh_now();
        int rc;
        while ((rc = lh_member_recv(&m, &msg)) == LH_AGAIN && lh_now() - began < 10)
            ;
        assert_ok(rc);
        lh_net_message_fini(&msg);
    }
    assert_ok(lh_member_tick(&m));
    rig_expect(s.socket, &msg, LH__KIND__KIND_BEAT);
    assert_int_equal(msg.env.first, LH_OUTBOX_SAY);
    lh_net_message_fini(&msg);
    assert_ok(lh_member_tick(&m)); /* it is said */
    assert_int_equal(lh_net_recv(s.socket, &msg), LH_AGAIN);
    lh_member_leave(&m, 0, true);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

/* A thread of this process cannot be gone, but it may get no processor for long. */
static void scheduler_of_this_process_is_not_given_up(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    void *zmq;
    open_joined_at("inproc://scheduler", &s, &zmq, &m);
    m.heartbeat = 1000;
    m.deadline = 10;
    m.last_heard -= 100;
    assert_ok(lh_member_tick(&m));
    lh_member_leave(&m, 0, true);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

static void silence_while_it_had_no_turn_does_not_count(void **state)
{
    (void)state;
    struct scheduler s;
    struct lh_member m;
    void *zmq;
    open_joined(&s, &zmq, &m);
    m.heartbeat = 1000;
    m.deadline = 10;
    assert_ok(lh_member_tick(&m));
    m.last_heard -= 100; /* as if both had stood still for so long */
    m.awake.last -= 100;
    assert_ok(lh_member_tick(&m));
    m.last_heard -= 11;
    assert_err(lh_member_tick(&m), LH_EPEER, "went away (silent for 11 s)");
    m.last_heard = lh_now(); /* turns are no suspension: silence adds up over them */
    for (int i = 0; i < 9; i++) {
        m.last_heard -= 1;
        m.awake.last -= 1;
        assert_ok(lh_member_tick(&m));
    }
    m.last_heard -= 2;
    m.awake.last -= 2;
    assert_err(lh_member_tick(&m), LH_EPEER, "went away (silent for 11 s)");
    m.last_heard = lh_now(); /* heard at once when it went on, after an hour */
    m.awake.last -= 3600;
    assert_ok(lh_member_tick(&m));
    m.last_heard -= 11;
    assert_err(lh_member_tick(&m), LH_EPEER, "went away (silent for 11 s)");
    lh_member_leave(&m, 0, true);
    lh_net_close(&s.socket);
    zmq_ctx_term(zmq);
}

static void leave_tells_the_failure_and_keeps_its_sentence(void **state)
{
    (void)state;
    for (int from_scheduler = 0; from_scheduler < 2; from_scheduler++) {
        struct scheduler s;
        struct lh_member m;
        struct lh_net_message msg;
        void *zmq;
        open_joined(&s, &zmq, &m);
        int rc = lh_err_set(LH_ENOSPC, "store-0: no room");
        assert_err(lh_member_leave(&m, rc, from_scheduler), LH_ENOSPC, "store-0: no room");
        assert_null(m.socket);
        rig_expect(s.socket, &msg, from_scheduler ? LH__KIND__KIND_GOODBYE : LH__KIND__KIND_FAILED);
        if (!from_scheduler)
            assert_err(lh_member_stop_reason(&msg), LH_ENOSPC, "store-0: no room");
        lh_net_message_fini(&msg);
        lh_net_close(&s.socket);
        zmq_ctx_term(zmq);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(join_says_who_it_is_and_takes_the_plan),
        kit_test(join_that_is_refused_tells_why_and_leaves_nothing_open),
        kit_test(join_ends_when_nobody_answers_or_somebody_interrupts),
        kit_test(agree_refuses_a_job_that_is_read_otherwise),
        kit_test(tick_beats_and_gives_a_silent_scheduler_up),
        kit_test(many_orders_are_acknowledged_before_the_beat_is_due),
        kit_test(scheduler_of_this_process_is_not_given_up),
        kit_test(silence_while_it_had_no_turn_does_not_count),
        kit_test(leave_tells_the_failure_and_keeps_its_sentence),
    };
    return cmocka_run_group_tests_name("member", tests, NULL, NULL);
}
