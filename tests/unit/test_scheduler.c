/* The scheduler's loop, whole, with roles that this test plays: an interrupt, and who comes and
 * goes while servers catch up. */
#include "cluster/scheduler.h"

#include "cluster/run_record.h"
#include "common/err.h"
#include "common/job.h"
#include "common/outbox.h"
#include "tests/unit/net_rig.h"
#include "worker/model.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { SERVERS = 2, WORKER = SERVERS, OTHER, PEERS };

static atomic_bool interrupt;

struct peer {
    struct lh_net_socket *socket;
    struct lh_envelope env; /* what its messages begin with */
    struct lh_inbox in;
    uint64_t until; /* of its plan */
};

struct rig {
    void *zmq;
    struct lh_job *job;
    struct lh_model model;
    struct lh_run_record record;
    struct lh_scheduler_options opt;
    struct lh_scheduler_result result;
    char endpoint[300];
    struct peer peer[PEERS];
    pthread_t thread;
    atomic_bool ended;
    struct lh_err err;
};

static bool is_interrupted(void)
{
    return atomic_load(&interrupt);
}

static void *schedule(void *arg)
{
    struct rig *x = arg;
    int rc = lh_scheduler_run(x->zmq, &x->opt, &x->result);
    lh_err_save(&x->err, rc < 0 ? rc : 0);
    atomic_store(&x->ended, true);
    return NULL;
}

static void rig_open(struct rig *x)
{
    static const char text[] = "algorithm: il\nnetwork: {hidden: [8]}\n"
                               "cluster: {heartbeat_seconds: 0.1, deadline_seconds: 1}\n";
    *x = (struct rig){.zmq = zmq_ctx_new()};
    atomic_store(&interrupt, false);
    assert_ok(lh_job_load_text(&x->job, text, strlen(text), "job", NULL));
    assert_ok(lh_job_resolve(x->job, &(struct lh_dims){.high = 3, .low = 3, .action = 2}, 5));
    assert_ok(lh_model_init(&x->model, x->job, SERVERS));
    snprintf(x->endpoint, sizeof x->endpoint, "ipc://%s", kit_path("s"));
    x->opt = (struct lh_scheduler_options){
        .bind = x->endpoint,
        .dir = kit_dir(),
        .job = x->job,
        .model = &x->model,
        .record = &x->record,
        .clock = {.until = 100, .total = 100, .checkpoint_every = 100},
        .transitions = 1000,
        .servers = SERVERS,
        .workers = 1,
        .patience = 30,
        .quiet = true,
        .interrupted = is_interrupted};
    for (int i = 0; i < PEERS; i++)
        assert_ok(rig_dial(&x->peer[i].socket, x->zmq, x->endpoint, 1 << 16));
    assert_int_equal(pthread_create(&x->thread, NULL, schedule, x), 0);
}

static void say(struct rig *x, int peer, uint32_t kind, uint64_t step)
{
    struct lh_envelope env = x->peer[peer].env;
    Lh__Phases phases = LH__PHASES__INIT;
    env.kind = kind;
    env.step = step;
    env.first = x->peer[peer].in.last;
    assert_ok(lh_net_send_body(x->peer[peer].socket, NULL, &env, &phases.base));
}

/* Everybody is there; servers stand at the steps that they said last. */
static void beat(struct rig *x)
{
    for (int i = 0; i < PEERS; i++)
        if (x->peer[i].env.node)
            say(x, i, LH__KIND__KIND_BEAT, x->peer[i].env.step);
}

/* The next message but beats. */
static void expect(struct rig *x, int peer, struct lh_net_message *m, uint32_t kind)
{
    const double until = lh_now() + 20;
    do {
        struct lh_net_poll poll = {.socket = x->peer[peer].socket};
        beat(x);
        assert_ok(lh_net_poll(&poll, 1, 0.1));
        int rc = lh_net_recv(x->peer[peer].socket, m);
        const bool takes = rc == 0 && lh_inbox_takes(&x->peer[peer].in, m->env.request);
        if (takes && m->env.kind == kind)
            return;
        if (takes && m->env.kind != LH__KIND__KIND_BEAT)
            fail_msg("a %s where a %s was expected", lh_wire_kind_name(m->env.kind),
                     lh_wire_kind_name(kind));
        if (rc == 0)
            lh_net_message_fini(m);
    } while (lh_now() < until);
    fail_msg("no %s came", lh_wire_kind_name(kind));
}

static void hear(struct rig *x, int peer, uint32_t kind)
{
    struct lh_net_message m;
    expect(x, peer, &m, kind);
    lh_net_message_fini(&m);
}

static void join(struct rig *x, int peer)
{
    static char program[] = LH_VERSION, blas[] = "fma", host[] = "here", at[] = "tcp://h:1";
    struct lh_envelope env = {.kind = LH__KIND__KIND_HELLO};
    struct lh_net_message m;
    Lh__Hello h = LH__HELLO__INIT;
    Lh__Plan *plan = NULL;
    h.role = peer < SERVERS ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_WORKER;
    h.program = program;
    h.blas = blas;
    h.host = host;
    h.pid = 4711 + (uint64_t)peer;
    h.endpoint = peer < SERVERS ? at : h.endpoint;
    h.wanted = peer < SERVERS ? (uint32_t)peer + 1 : 0;
    assert_ok(lh_net_send_body(x->peer[peer].socket, NULL, &env, &h.base));
    expect(x, peer, &m, LH__KIND__KIND_PLAN);
    assert_ok(lh_net_body(&m, &lh__plan__descriptor, (ProtobufCMessage **)&plan));
    lh_net_message_fini(&m);
    x->peer[peer].env = (struct lh_envelope){
        .job = plan->job_digest, .node = plan->node, .epoch = plan->generation};
    x->peer[peer].until = plan->until;
    lh_wire_free((ProtobufCMessage **)&plan);
    say(x, peer, LH__KIND__KIND_READY, 0);
}

/* A run, interrupted: server 0 stands at step 5 and server 1 at 6, up to which it is to go on. */
static void rig_interrupted(struct rig *x)
{
    struct lh_net_message m;
    rig_open(x);
    for (int i = 0; i < SERVERS; i++)
        join(x, i);
    join(x, WORKER);
    hear(x, WORKER, LH__KIND__KIND_ASSIGN);
    atomic_store(&interrupt, true);
    for (int i = 0; i < SERVERS; i++) {
        hear(x, i, LH__KIND__KIND_PAUSE);
        x->peer[i].env.step = 5 + (uint64_t)i;
        say(x, i, LH__KIND__KIND_PAUSED, x->peer[i].env.step);
    }
    for (int i = 0; i < SERVERS; i++) {
        expect(x, i, &m, LH__KIND__KIND_UNTIL);
        assert_int_equal(m.env.step, 6);
        lh_net_message_fini(&m);
    }
}

static void leave(struct rig *x, int peer)
{
    say(x, peer, LH__KIND__KIND_GOODBYE, 0);
    x->peer[peer].env.node = 0;
}

static void await_end(struct rig *x, double seconds)
{
    const double until = lh_now() + seconds;
    while (!atomic_load(&x->ended) && lh_now() < until) {
        beat(x);
        zmq_poll(NULL, 0, 50);
    }
}

static void rig_close(struct rig *x)
{
    for (int i = 0; i < PEERS; i++)
        if (x->peer[i].env.node)
            leave(x, i);
    pthread_join(x->thread, NULL);
    for (int i = 0; i < PEERS; i++)
        lh_net_close(&x->peer[i].socket);
    lh_run_record_fini(&x->record);
    lh_model_fini(&x->model);
    lh_job_destroy(&x->job);
    zmq_ctx_term(x->zmq);
}

static void finish(struct rig *x)
{
    for (int i = 0; i < SERVERS; i++) {
        x->peer[i].env.step = 6;
        say(x, i, LH__KIND__KIND_PREPARED, 6);
    }
    for (int i = 0; i < SERVERS; i++) {
        hear(x, i, LH__KIND__KIND_COMMIT);
        hear(x, i, LH__KIND__KIND_STOP);
    }
}

/* A server lacks what a worker had that is gone: another computes it. */
static void worker_that_comes_while_servers_catch_up_has_a_share(void **state)
{
    (void)state;
    struct rig x;
    struct lh_net_message m;
    rig_interrupted(&x);
    leave(&x, WORKER);
    expect(&x, 0, &m, LH__KIND__KIND_LOST);
    assert_int_equal(m.env.index, 3);
    lh_net_message_fini(&m);
    join(&x, OTHER);
    assert_int_equal(x.peer[OTHER].until, 6);
    hear(&x, OTHER, LH__KIND__KIND_ASSIGN);
    hear(&x, 1, LH__KIND__KIND_LOST);
    finish(&x);
    hear(&x, OTHER, LH__KIND__KIND_STOP);
    rig_close(&x);
    assert_int_equal(x.err.code, 0);
    assert_true(x.result.interrupted);
    assert_int_equal(x.result.version, 6);
}

static void run_that_lacks_a_step_and_has_no_worker_left_ends(void **state)
{
    (void)state;
    struct rig x;
    rig_interrupted(&x);
    leave(&x, WORKER);
    await_end(&x, 20);
    assert_true(atomic_load(&x.ended));
    rig_close(&x);
    assert_int_equal(x.err.code, LH_EPEER);
    kit_assert_contains(x.err.text, "no worker has been left for");
}

static void run_that_lacks_no_step_needs_no_worker_while_it_writes(void **state)
{
    (void)state;
    struct rig x;
    rig_interrupted(&x);
    x.peer[0].env.step = 6;
    beat(&x);
    leave(&x, WORKER);
    await_end(&x, 3); /* some deadlines */
    assert_false(atomic_load(&x.ended));
    for (int i = 0; i < SERVERS; i++)
        hear(&x, i, LH__KIND__KIND_LOST);
    finish(&x);
    rig_close(&x);
    assert_int_equal(x.err.code, 0);
    assert_int_equal(x.result.version, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(worker_that_comes_while_servers_catch_up_has_a_share),
        kit_test(run_that_lacks_a_step_and_has_no_worker_left_ends),
        kit_test(run_that_lacks_no_step_needs_no_worker_while_it_writes),
    };
    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
