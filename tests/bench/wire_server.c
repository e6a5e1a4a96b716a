/* The server of wire_ours.c, and the one who plays its scheduler. Nothing is trained, so that a new
 * version costs no arithmetic, but for rows, which Adam takes a step with once a step: a table has
 * no other way to take rows in. */
#include "tests/bench/wire_ours.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"
#include "ps/server.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

uint32_t wire_leaves(const struct wire_case *c)
{
    return (UINT32_C(1) << lh_tree_height(c->clients * c->flight)) << (WIRE_CHAIN - 1);
}

static size_t dense_floats(const struct wire_case *c)
{
    return c->rows > 0 ? WIRE_ROW : c->floats;
}

int wire_layout(struct lh_layout *out, struct lh_param *p, const struct wire_case *c)
{
    const size_t n = dense_floats(c);
    *p = (struct lh_param){.name = "w", .rows = n / WIRE_ROW, .cols = WIRE_ROW};
    return lh_layout_init_params(out, &(struct lh_layout_params){p, 1, n}, NULL, 0, 1);
}

/* Nobody beats here: roles have patience. All rows stay in memory: they, their moments and what
 * finds them. */
int wire_job_text(char **out, const struct wire_case *c)
{
    const char *roles = "algorithm: il\n"
                        "cluster: {heartbeat_seconds: 3600, deadline_seconds: 86400}\n";
    if (c->rows == 0)
        return lh_mem_strdup(out, roles);
    return lh_mem_printf(out,
                         "%strain: {batch: %zu}\n"
                         "tables: {item: {ids: item, dim: %d, cache: %zu}}\n",
                         roles, c->rows, WIRE_DIM, (c->rows * 800 >> 20) + 1);
}

int wire_job(struct lh_job **out, const struct wire_case *c)
{
    char *text = NULL;
    LH_TRY(wire_job_text(&text, c));
    int rc = lh_job_load_text(out, text, strlen(text), "bench", NULL);
    lh_mem_free(text);
    return rc;
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
    LH_TRY_TO(fail, wire_layout(&m->layout, &m->param, c));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&m->weights, m->layout.flat_size, "weights"));
    for (size_t i = 0; i < m->layout.flat_size; i++)
        m->weights[i] = 1e-3f;
    *out = (struct lh_server_model){
        .layout = &m->layout, .leaves = wire_leaves(c), .weights = m->weights, .owner = m};
    return 0;
fail:
    lh_layout_fini(&m->layout);
    lh_mem_free(m);
    return rc;
}

struct lh_server_options wire_server_options(const struct wire_case *c,
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

int wire_serve(void *zmq, const struct wire_case *c, void (*bound)(void *, const char *), void *ctx)
{
    struct lh_security security;
    (void)bound, (void)ctx;
    lh_mem_keep();
    LH_TRY(lh_security_open(&security, zmq, c->keys ? &c->keys->server : NULL, false));
    const struct lh_server_options opt = wire_server_options(c, &security);
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

/* The key of the clients' worker: a server takes pushes from no other. */
static int send_members(struct lh_net_socket *s, const struct lh_net_peer *to,
                        const struct wire_case *c, uint64_t job)
{
    uint32_t node = WIRE_NODE;
    char *key = (char *)(uintptr_t)c->keys->worker.own.key;
    Lh__Members m = LH__MEMBERS__INIT;
    struct lh_envelope env = {.kind = LH__KIND__KIND_MEMBERS, .job = job};
    m.nodes = &node;
    m.keys = &key;
    m.n_nodes = m.n_keys = 1;
    return lh_net_send_body(s, to, &env, &m.base);
}

static int send_plan(struct lh_net_socket *s, const struct lh_net_peer *to,
                     const struct wire_case *c)
{
    struct lh_job *job = NULL;
    Lh__Plan plan = LH__PLAN__INIT;
    Lh__KeyOwner worker = LH__KEY_OWNER__INIT, *allowed[] = {&worker};
    LH_TRY(wire_job(&job, c));
    LH_TRY(wire_job_text(&plan.job, c));
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
    int rc = lh_net_send_body(s, to, &env, &plan.base);
    lh_mem_free(plan.job);
    return rc == 0 && c->keys ? send_members(s, to, c, plan.job_digest) : rc;
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
