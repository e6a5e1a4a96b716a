/* Who gets its plan when: servers at once, workers when all servers have read theirs, and know whom
 * to let in. */
#include "cluster/scheduler_internal.h"

#include "common/err.h"
#include "tests/unit/net_rig.h"

#include <stdio.h>
#include <string.h>
#include <zmq.h>

enum { SERVERS = 2, WORKER = SERVERS, PEERS = SERVERS + 1 };

static char job_text[] = "algorithm: il\n";

struct rig {
    void *zmq;
    struct lh_job *job;
    struct lh_run_record record;
    struct lh_scheduler_options opt;
    struct lh_scheduler s;
    struct lh_net_socket *peer[PEERS];
};

static void rig_open(struct rig *x)
{
    *x = (struct rig){.zmq = zmq_ctx_new()};
    assert_ok(lh_job_load_text(&x->job, job_text, strlen(job_text), "job", NULL));
    x->opt = (struct lh_scheduler_options){
        .dir = kit_dir(), .job = x->job, .record = &x->record, .servers = SERVERS, .workers = 1};
    x->s = (struct lh_scheduler){
        .opt = &x->opt,
        .zmq = x->zmq,
        .job_text = job_text,
        .clock = {.until = 10, .total = 10, .checkpoint_every = 10},
        .cuts = {.record = &x->record},
        .roster = {.job = lh_job_digest(x->job), .servers = SERVERS, .workers = 1, .deadline = 60}};
    assert_ok(lh_net_router(&x->s.roster.socket, x->zmq, "inproc://scheduler", 64, NULL));
    for (int i = 0; i < PEERS; i++)
        assert_ok(rig_dial(&x->peer[i], x->zmq, "inproc://scheduler", 64));
}

static void rig_close(struct rig *x)
{
    for (int i = 0; i < PEERS; i++)
        lh_net_close(&x->peer[i]);
    lh_net_close(&x->s.roster.socket);
    lh_roster_fini(&x->s.roster);
    lh_job_destroy(&x->job);
    zmq_ctx_term(x->zmq);
}

static void hello(struct rig *x, int peer)
{
    static char program[] = LH_VERSION, blas[] = "fma", host[] = "here";
    char endpoint[32];
    struct lh_envelope env = {.kind = LH__KIND__KIND_HELLO};
    struct lh_net_message m;
    struct lh_role_node *node = NULL;
    Lh__Hello h = LH__HELLO__INIT;
    snprintf(endpoint, sizeof endpoint, "tcp://h:%d", peer + 1);
    h.role = peer == WORKER ? LH__ROLE__ROLE_WORKER : LH__ROLE__ROLE_SERVER;
    h.program = program;
    h.blas = blas;
    h.host = host;
    h.pid = 4711;
    h.endpoint = peer == WORKER ? h.endpoint : endpoint;
    assert_ok(lh_net_send_body(x->peer[peer], NULL, &env, &h.base));
    rig_receive(x->s.roster.socket, &m);
    assert_ok(lh_roster_hello(&x->s.roster, &m, &node));
    assert_non_null(node);
    lh_net_message_fini(&m);
}

static struct lh_role_node *node_of(struct rig *x, int peer)
{
    for (size_t i = 0; i < x->s.roster.n_nodes; i++) {
        struct lh_role_node *n = &x->s.roster.nodes[i];
        if (peer == WORKER ? n->role == LH__ROLE__ROLE_WORKER
                           : n->role == LH__ROLE__ROLE_SERVER && n->shard == (uint32_t)peer)
            return n;
    }
    fail_msg("no node of peer %d", peer);
    return NULL;
}

/* What is sent to a peer now comes behind whatever was sent before. */
static void expect_nothing(struct rig *x, int peer)
{
    const struct lh_envelope beat = {.kind = LH__KIND__KIND_BEAT};
    struct lh_net_message m;
    assert_ok(lh_roster_tell(&x->s.roster, node_of(x, peer), &beat, NULL));
    rig_expect(x->peer[peer], &m, LH__KIND__KIND_BEAT);
    lh_net_message_fini(&m);
}

static void expect_plan(struct rig *x, int peer, Lh__Plan **out)
{
    struct lh_net_message m;
    rig_expect(x->peer[peer], &m, LH__KIND__KIND_PLAN);
    assert_ok(lh_net_body(&m, &lh__plan__descriptor, (ProtobufCMessage **)out));
    lh_net_message_fini(&m);
}

static void expect_servers_plan(struct rig *x, int peer)
{
    Lh__Plan *plan = NULL;
    expect_plan(x, peer, &plan);
    assert_int_equal(plan->shard, peer);
    assert_int_equal(plan->n_servers, 0);
    lh_wire_free((ProtobufCMessage **)&plan);
}

static void worker_gets_its_plan_when_all_servers_have_read_theirs(void **state)
{
    (void)state;
    struct rig x;
    Lh__Plan *plan = NULL;
    rig_open(&x);
    hello(&x, WORKER);
    assert_ok(lh_scheduler_plan(&x.s));
    expect_nothing(&x, WORKER);
    for (int i = 0; i < SERVERS; i++) {
        hello(&x, i);
        assert_ok(lh_scheduler_plan(&x.s));
        expect_servers_plan(&x, i);
        expect_nothing(&x, WORKER);
    }
    for (int i = 0; i < SERVERS; i++) {
        assert_ok(lh_scheduler_plan(&x.s));
        expect_nothing(&x, WORKER);
        node_of(&x, i)->standing = LH_STANDING_READY;
    }
    assert_ok(lh_scheduler_plan(&x.s));
    expect_plan(&x, WORKER, &plan);
    assert_int_equal(plan->n_servers, SERVERS);
    assert_string_equal(plan->servers[0], "tcp://h:1");
    assert_string_equal(plan->servers[1], "tcp://h:2");
    lh_wire_free((ProtobufCMessage **)&plan);
    assert_ok(lh_scheduler_plan(&x.s)); /* once */
    expect_nothing(&x, WORKER);
    expect_nothing(&x, 0);
    rig_close(&x);
}

/* The run goes back: a worker that is there first waits again. */
static void worker_waits_for_servers_of_the_next_generation_too(void **state)
{
    (void)state;
    struct rig x;
    rig_open(&x);
    for (int i = 0; i < SERVERS; i++) {
        hello(&x, i);
        node_of(&x, i)->standing = LH_STANDING_READY;
    }
    assert_ok(lh_roster_dismiss(&x.s.roster));
    hello(&x, WORKER);
    assert_ok(lh_scheduler_plan(&x.s));
    expect_nothing(&x, WORKER);
    assert_int_equal(node_of(&x, WORKER)->standing, LH_STANDING_HELLO);
    rig_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(worker_gets_its_plan_when_all_servers_have_read_theirs),
        kit_test(worker_waits_for_servers_of_the_next_generation_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
