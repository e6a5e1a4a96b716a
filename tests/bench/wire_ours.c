/* Push and pull as training does them: the server is ps/server.c with its shard, the client sends
 * the pieces of worker/gradient.c and pulls with common/pull.c into common/held.c. Nothing is
 * trained, so that a new version costs no arithmetic.
 *
 * A step of the server ends when the sums of all leaves of its tree are there, and pushes must be
 * new. So every slot owns a subtree of 2^(CHAIN - 1) leaves and pushes its first leaf, that leaf's
 * sibling, the sibling of the two, and so on: CHAIN pushes a step, each but the first added to one
 * sum, as raw ZeroMQ's server does. Behind each goes a request for version 0, which is gone: the
 * answer says that the push before it was taken in, and where the server stands. */
#include "common/err.h"
#include "common/mem.h"
#include "common/pull.h"
#include "common/term.h"
#include "ps/server.h"
#include "tests/bench/wire_rig.h"
#include "worker/gradient.h"

#include <sched.h>
#include <stdio.h>

enum { CHAIN = 8, NODE = 3 };

/* Nobody beats here: roles have patience. */
static const char job_text[] = "algorithm: il\n"
                               "cluster: {heartbeat_seconds: 3600, deadline_seconds: 86400}\n";

static uint32_t slots_of(const struct wire_case *c)
{
    return c->clients * c->flight;
}

static uint32_t leaves_of(const struct wire_case *c)
{
    return (UINT32_C(1) << lh_tree_height(slots_of(c))) << (CHAIN - 1);
}

static int make_layout(struct lh_layout *out, struct lh_param *p, const struct wire_case *c)
{
    *p = (struct lh_param){.name = "w", .rows = c->floats / WIRE_ROW, .cols = WIRE_ROW};
    return lh_layout_init_params(out, &(struct lh_layout_params){p, 1, c->floats}, NULL, 0, 1);
}

/* --- the server ----------------------------------------------------------------------------------
 */
struct held_model {
    struct lh_param param;
    struct lh_layout layout;
    float *weights;
};

static void model_fini(void *ctx, struct lh_server_model *model)
{
    struct held_model *m = model->owner;
    (void)ctx;
    lh_layout_fini(&m->layout);
    lh_mem_free(m->weights);
    lh_mem_free(m);
    *model = (struct lh_server_model){0};
}

static int model(void *ctx, const struct lh_job *job, size_t shards, bool initial,
                 struct lh_server_model *out)
{
    const struct wire_case *c = ctx;
    struct held_model *m = NULL;
    int rc;
    (void)job, (void)shards, (void)initial;
    LH_TRY(LH_NEW(&m, "model"));
    LH_TRY_TO(fail, make_layout(&m->layout, &m->param, c));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&m->weights, c->floats, "weights"));
    for (size_t i = 0; i < c->floats; i++)
        m->weights[i] = 1e-3f;
    *out = (struct lh_server_model){
        .layout = &m->layout, .leaves = leaves_of(c), .weights = m->weights, .owner = m};
    return 0;
fail:
    lh_layout_fini(&m->layout);
    lh_mem_free(m);
    return rc;
}

static struct lh_server_options options_of(const struct wire_case *c,
                                           const struct lh_security *security)
{
    return (struct lh_server_options){.scheduler = c->scheduler,
                                      .bind = c->bind,
                                      .store = c->store,
                                      .wanted = 1,
                                      .patience = 60,
                                      .security = security,
                                      .model = model,
                                      .model_fini = model_fini,
                                      .ctx = (void *)(uintptr_t)c};
}

/* As a thread of the launcher with no worker on it. */
static int serve_spinning(void *zmq, const struct wire_case *c, const struct lh_server_options *opt)
{
    struct lh_server *s = NULL;
    double idle_since = lh_now();
    int rc = lh_server_open(&s, zmq, opt);
    while (rc == 0) {
        struct lh_net_poll poll[LH_SERVER_SOCKETS];
        bool busy = false;
        rc = lh_server_turn(s, &busy);
        idle_since = busy ? lh_now() : idle_since;
        if (rc < 0)
            break;
        if (lh_now() - idle_since < c->spin) {
            sched_yield();
            continue;
        }
        lh_server_sockets(s, poll);
        rc = lh_net_poll(poll, LH_SERVER_SOCKETS, lh_server_patience(s));
    }
    return lh_server_close(&s, rc);
}

static int serve(void *zmq, const struct wire_case *c, void (*bound)(void *, const char *),
                 void *ctx)
{
    struct lh_security security;
    (void)bound, (void)ctx;
    lh_mem_keep();
    LH_TRY(lh_security_open(&security, zmq, c->keys ? &c->keys->server : NULL, false));
    const struct lh_server_options opt = options_of(c, &security);
    int rc = c->spin > 0 ? serve_spinning(zmq, c, &opt) : lh_server_run(zmq, &opt);
    lh_security_close(&security);
    return rc;
}

/* --- its scheduler -------------------------------------------------------------------------------
 */
static int next_of_kind(struct lh_net_socket *s, struct lh_net_message *m, uint32_t kind)
{
    for (;;) {
        struct lh_net_poll poll = {.socket = s};
        LH_TRY(lh_net_poll(&poll, 1, 60));
        int rc = lh_net_recv(s, m);
        LH_TRY(rc < 0 ? rc : 0);
        if (rc != 0 && !poll.in)
            return lh_err_set(LH_ETIMEDOUT, "the server says nothing");
        if (rc == 0 && m->env.kind == kind)
            return 0;
        if (rc == 0)
            lh_net_message_fini(m);
    }
}

static int send_plan(struct lh_net_socket *s, const struct lh_net_peer *to,
                     const struct wire_case *c)
{
    struct lh_job *job = NULL;
    Lh__Plan plan = LH__PLAN__INIT;
    Lh__KeyOwner worker = LH__KEY_OWNER__INIT, *allowed[] = {&worker};
    LH_TRY(lh_job_load_text(&job, job_text, sizeof job_text - 1, "bench", NULL));
    plan.job = (char *)(uintptr_t)job_text;
    plan.job_digest = lh_job_digest(job);
    lh_job_destroy(&job);
    plan.node = 1;
    plan.shards = 1;
    plan.until = plan.total = plan.checkpoint_every = UINT64_MAX / 2;
    if (c->keys) {
        worker.key = (char *)(uintptr_t)c->keys->worker.own.key;
        worker.name = (char *)(uintptr_t)c->keys->worker.own.name;
        worker.role = LH__ROLE__ROLE_WORKER;
        plan.allowed = allowed;
        plan.n_allowed = 1;
    }
    struct lh_envelope env = {.kind = LH__KIND__KIND_PLAN, .job = plan.job_digest};
    return lh_net_send_body(s, to, &env, &plan.base);
}

int wire_schedule(struct lh_net_socket **out, void *zmq, const struct wire_case *c,
                  const struct lh_security *security, char *at)
{
    struct lh_net_message m;
    Lh__Hello *hello = NULL;
    LH_TRY(lh_net_router(out, zmq, c->scheduler, 1000, security));
    LH_TRY(next_of_kind(*out, &m, LH__KIND__KIND_HELLO));
    int rc = lh_net_body(&m, &lh__hello__descriptor, (ProtobufCMessage **)&hello);
    if (rc == 0) {
        snprintf(at, LH_NET_ENDPOINT_MAX, "%s", hello->endpoint);
        lh_wire_free((ProtobufCMessage **)&hello);
        rc = send_plan(*out, &m.peer, c);
    }
    lh_net_message_fini(&m);
    LH_TRY(rc);
    LH_TRY(next_of_kind(*out, &m, LH__KIND__KIND_READY));
    lh_net_message_fini(&m);
    return 0;
}

/* --- the client ----------------------------------------------------------------------------------
 */
struct slot {
    struct lh_pull pull;
    struct lh_held held;
    struct lh_net_socket *socket;
    uint32_t index;  /* of its subtree */
    uint64_t step;   /* that it pushes for */
    uint32_t pushed; /* nodes of that step */
    uint64_t fence;  /* the last request behind a push */
    enum wire_op op;
    bool busy, blocked; /* blocked: all of its subtree is pushed, others' are not */
};

struct client {
    const struct wire_case *c;
    struct lh_security security;
    struct lh_param param;
    struct lh_layout layout;
    struct lh_gradient gradient;
    uint64_t job;
    struct slot slots[WIRE_FLIGHT_MAX];
    struct lh_net_poll polls[WIRE_FLIGHT_MAX + LH_SERVER_SOCKETS];
    uint32_t next;
    struct lh_server_options options;
    struct lh_server *server; /* on this thread; NULL: elsewhere */
    /* while pieces are sent */
    struct slot *pushing;
    struct lh_tree_node node;
    int push_rc;
};

static void client_close(void **client)
{
    struct client *k = *client;
    if (!k)
        return;
    for (uint32_t i = 0; i < k->c->flight; i++) {
        lh_held_fini(&k->slots[i].held);
        lh_pull_close(&k->slots[i].pull);
    }
    if (k->server)
        lh_server_close(&k->server, LH_ECANCELED);
    lh_gradient_fini(&k->gradient);
    lh_layout_fini(&k->layout);
    lh_mem_free(k);
    *client = NULL;
}

/* As a worker does it. */
static void send_piece(void *ctx, struct lh_gradient_piece *p)
{
    struct client *k = ctx;
    struct slot *s = k->pushing;
    struct lh_envelope env = {.kind = LH__KIND__KIND_PUSH,
                              .job = k->job,
                              .node = NODE,
                              .step = s->step,
                              .level = k->node.level,
                              .index = k->node.index,
                              .first = p->first,
                              .count = p->hi - p->lo};
    void *token = lh_gradient_lend(&k->gradient);
    size_t bytes;
    const void *sum = lh_gradient_wire(&k->gradient, p, &bytes);
    struct lh_net_part part = {
        .data = sum, .size = bytes, .release = lh_gradient_release, .hint = token};
    int rc = lh_net_send(s->socket, NULL, &env, &part, 1);
    if (rc != 0 && k->push_rc == 0)
        k->push_rc = rc < 0 ? rc : lh_err_set(LH_EPEER, "a push was not taken");
}

static int turn(struct client *k, bool *any)
{
    return k->server ? lh_server_turn(k->server, any) : 0;
}

static int push(struct client *k, struct slot *s, struct lh_tree_node node)
{
    int rc;
    bool any;
    while ((rc = lh_gradient_acquire(&k->gradient)) == LH_AGAIN) {
        LH_TRY(turn(k, &any));
        LH_TRY(lh_net_poll(NULL, 0, 1e-4));
    }
    LH_TRY(rc);
    k->pushing = s;
    k->node = node;
    k->push_rc = 0;
    lh_gradient_last_begin(&k->gradient);
    lh_gradient_last_end(&k->gradient, send_piece, k);
    lh_gradient_done(&k->gradient);
    return k->push_rc;
}

static int send_fence(struct client *k, struct slot *s)
{
    struct lh_envelope env = {
        .kind = LH__KIND__KIND_PULL, .job = k->job, .node = NODE, .request = ++s->fence};
    int rc = lh_net_send(s->socket, NULL, &env, NULL, 0);
    return rc <= 0 ? rc : lh_err_set(LH_EPEER, "a request was not taken");
}

static int push_next(struct client *k, struct slot *s)
{
    const uint32_t t = s->pushed++, top = CHAIN - 1;
    struct lh_tree_node node = {.level = 0, .index = s->index << top};
    if (t > 0)
        node = (struct lh_tree_node){.level = t - 1, .index = (s->index << (CHAIN - t)) + 1};
    LH_TRY(push(k, s, node));
    return send_fence(k, s);
}

static int begin(void *client, uint32_t slot, enum wire_op op)
{
    struct client *k = client;
    struct slot *s = &k->slots[slot];
    s->op = op;
    s->busy = true;
    s->blocked = op == WIRE_PUSH && s->pushed == CHAIN;
    switch (op) {
    case WIRE_PUSH:
        return s->blocked ? send_fence(k, s) : push_next(k, s);
    case WIRE_PULL:
        return lh_pull_begin(&s->pull, LH_WIRE_LATEST);
    default:
        if (s->pushed < CHAIN)
            LH_TRY(push(k, s, (struct lh_tree_node){.level = CHAIN - 1, .index = s->index}));
        return lh_pull_begin(&s->pull, s->step + 1);
    }
}

static void stands_at(struct slot *s, uint64_t version)
{
    if (version > s->step) {
        s->step = version;
        s->pushed = 0;
    }
}

static int take(struct client *k, struct slot *s, struct lh_net_message *m)
{
    if (s->op != WIRE_PUSH) {
        LH_TRY(lh_pull_take(&s->pull, 0, m));
        s->busy = !s->pull.complete;
        if (s->pull.complete)
            stands_at(s, s->pull.version);
        return 0;
    }
    if (m->env.kind != LH__KIND__KIND_MOVED || m->env.request != s->fence)
        return 0;
    stands_at(s, m->env.step);
    if (!s->blocked || s->pushed == CHAIN) {
        s->busy = s->blocked;
        return s->blocked ? send_fence(k, s) : 0;
    }
    s->blocked = false;
    return push_next(k, s);
}

/* Takes in what came for a slot, until its operation is done; of an idle one, what it gave up. */
static int drain(struct client *k, struct slot *s, bool *any)
{
    const bool was_busy = s->busy;
    while (s->busy == was_busy) {
        struct lh_net_message m;
        int rc = lh_net_recv(s->socket, &m);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        *any = true;
        rc = s->busy ? take(k, s, &m) : 0;
        lh_net_message_fini(&m);
        LH_TRY(rc);
    }
    return 0;
}

/* Whether an operation ends only when other slots have had theirs. */
static bool is_coupled(const struct client *k, const struct slot *s)
{
    return s->blocked || (s->op == WIRE_STEP && slots_of(k->c) > 1);
}

static int poll_slots(struct client *k, double until)
{
    double left = until - lh_now();
    left = left > 0.001 ? left : 0.001;
    return lh_net_poll(k->polls, k->c->flight, left < 1 ? left : 1);
}

static int await(void *client, double until, uint32_t *slot)
{
    struct client *k = client;
    const double began = lh_now();
    for (;;) {
        bool any = false;
        LH_TRY(turn(k, &any));
        for (uint32_t tried = 0; tried < k->c->flight; tried++) {
            struct slot *s = &k->slots[k->next];
            *slot = k->next;
            k->next = (k->next + 1) % k->c->flight;
            const bool was_busy = s->busy;
            LH_TRY(drain(k, s, &any));
            if (was_busy && !s->busy)
                return 0;
            if (is_coupled(k, s) && lh_now() >= until) {
                s->busy = false;
                return LH_AGAIN;
            }
        }
        if (any || k->server)
            continue;
        if (lh_now() - began < k->c->spin)
            sched_yield();
        else
            LH_TRY(poll_slots(k, until));
    }
}

static int open_slot(struct client *k, struct slot *s, void *zmq, const char *server)
{
    char *endpoints[] = {(char *)(uintptr_t)server};
    char *keys[] = {k->c->keys ? (char *)(uintptr_t)k->c->keys->server.own.key : NULL};
    LH_TRY(lh_held_init(&s->held, &k->layout));
    LH_TRY(lh_pull_open(&s->pull,
                        &(struct lh_pull_spec){.zmq = zmq,
                                               .layout = &k->layout,
                                               .endpoints = endpoints,
                                               .keys = k->c->keys ? keys : NULL,
                                               .security = &k->security,
                                               .job = k->job,
                                               .node = NODE,
                                               .queue = (int)(4 * k->gradient.n_pieces) + 64}));
    s->pull.held = &s->held;
    s->socket = s->pull.shards[0].socket;
    return 0;
}

/* The first client takes the server past version 0, the others come to it as it is. */
static int first_version(struct client *k, struct slot *s, uint32_t index)
{
    uint32_t slot;
    if (index == 0 && s == k->slots)
        LH_TRY(push(k, s, (struct lh_tree_node){.level = lh_tree_height(leaves_of(k->c))}));
    s->op = WIRE_STEP;
    s->busy = true;
    LH_TRY(lh_pull_begin(&s->pull, 1));
    return await(k, lh_now() + 60, &slot);
}

static int client_open(void **client, void *zmq, const struct wire_case *c, const char *server,
                       uint32_t index)
{
    struct client *k = NULL;
    struct lh_job *job = NULL;
    int rc;
    lh_mem_keep();
    LH_TRY(LH_NEW(&k, "client"));
    k->c = c;
    LH_TRY_TO(fail, make_layout(&k->layout, &k->param, c));
    LH_TRY_TO(fail, lh_gradient_init(&k->gradient, &k->layout, 0, leaves_of(c)));
    k->security.keys = c->keys ? &c->keys->worker : NULL;
    LH_TRY_TO(fail, lh_job_load_text(&job, job_text, sizeof job_text - 1, "bench", NULL));
    k->job = lh_job_digest(job);
    lh_job_destroy(&job);
    if (c->local) {
        k->options = options_of(c, NULL);
        LH_TRY_TO(fail, lh_server_open(&k->server, zmq, &k->options));
    }
    for (uint32_t i = 0; i < c->flight; i++)
        LH_TRY_TO(fail, open_slot(k, &k->slots[i], zmq, server));
    for (uint32_t i = 0; i < c->flight; i++) {
        k->slots[i].index = index * c->flight + i;
        k->polls[i].socket = k->slots[i].socket;
    }
    for (uint32_t i = 0; i < c->flight; i++)
        LH_TRY_TO(fail, first_version(k, &k->slots[i], index));
    *client = k;
    return 0;
fail:
    client_close((void **)&k);
    return rc;
}

const struct wire_system wire_ours = {
    .name = "ours",
    .serve = serve,
    .open = client_open,
    .begin = begin,
    .wait = await,
    .close = client_close,
};
