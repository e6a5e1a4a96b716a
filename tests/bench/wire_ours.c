/* Push and pull as training does them: the server is ps/server.c (wire_server.c), the client sends
 * the pieces of worker/gradient.c and pulls with common/pull.c into common/held.c; of rows, it
 * sends the pieces of worker/worker_tables.c and pulls with common/rowpull.c.
 *
 * A step of the server ends when the sums of all leaves of its tree are there, and pushes must be
 * new. So every slot owns a subtree of 2^(WIRE_CHAIN - 1) leaves and pushes its first leaf, that
 * leaf's sibling, the sibling of the two, and so on: WIRE_CHAIN pushes a step, each but the first
 * added to one sum, as raw ZeroMQ's server does. Behind each goes a request for version 0, which is
 * gone: the answer says that the push before it was taken in, and where the server stands. A step
 * of rows has a small dense part as well: each slot sends its subtree's before the first rows. */
#include "tests/bench/wire_ours.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pull.h"
#include "common/term.h"
#include "ps/server.h"
#include "worker/gradient.h"
#include "worker/worker_tables.h"

#include <sched.h>

enum { FIRST_VERSION = 2 };

/* --- the client ----------------------------------------------------------------------------------
 */
struct slot {
    struct lh_pull pull;
    struct lh_rowpull rows;
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
    struct lh_worker_tables
        *tables;   /* NULL: no rows; its pushes are made once, sent again and again */
    uint64_t *ids; /* [rows] that are pushed and pulled */
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
        lh_rowpull_fini(&k->slots[i].rows);
        lh_pull_close(&k->slots[i].pull);
    }
    if (k->server)
        lh_server_close(&k->server, LH_ECANCELED);
    lh_worker_tables_destroy(&k->tables);
    lh_mem_free(k->ids);
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
                              .node = WIRE_NODE,
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

static int push_rows(struct client *k, struct slot *s, struct lh_tree_node node)
{
    const struct lh_envelope env = {.job = k->job,
                                    .node = WIRE_NODE,
                                    .step = s->step,
                                    .level = node.level,
                                    .index = node.index};
    k->tables->pushed = 0;
    int rc = lh_worker_tables_push(k->tables, &s->pull, &env);
    return rc <= 0 ? rc : lh_err_set(LH_EPEER, "a push was not taken");
}

static int send_fence(struct client *k, struct slot *s)
{
    struct lh_envelope env = {
        .kind = LH__KIND__KIND_PULL, .job = k->job, .node = WIRE_NODE, .request = ++s->fence};
    int rc = lh_net_send(s->socket, NULL, &env, NULL, 0);
    return rc <= 0 ? rc : lh_err_set(LH_EPEER, "a request was not taken");
}

static int push_next(struct client *k, struct slot *s)
{
    const uint32_t t = s->pushed++, top = WIRE_CHAIN - 1;
    struct lh_tree_node node = {.level = 0, .index = s->index << top};
    if (t > 0)
        node = (struct lh_tree_node){.level = t - 1, .index = (s->index << (WIRE_CHAIN - t)) + 1};
    if (k->tables && t == 0)
        LH_TRY(push(k, s, (struct lh_tree_node){.level = top, .index = s->index}));
    LH_TRY(k->tables ? push_rows(k, s, node) : push(k, s, node));
    return send_fence(k, s);
}

static int pull_rows(struct client *k, struct slot *s)
{
    lh_rowpull_begin(&s->rows, s->step);
    LH_TRY(lh_rowpull_add(&s->rows, 0, k->ids, k->c->rows, 1));
    LH_TRY(lh_rowpull_ask(&s->rows));
    int rc = lh_rowpull_send(&s->rows, &s->pull);
    return rc <= 0 ? rc : lh_err_set(LH_EPEER, "a request was not taken");
}

static int begin(void *client, uint32_t slot, enum wire_op op)
{
    struct client *k = client;
    struct slot *s = &k->slots[slot];
    s->op = op;
    s->busy = true;
    s->blocked = (op == WIRE_PUSH || op == WIRE_ROWS_PUSH) && s->pushed == WIRE_CHAIN;
    switch (op) {
    case WIRE_ROWS_PULL:
        return pull_rows(k, s);
    case WIRE_PUSH:
    case WIRE_ROWS_PUSH:
        return s->blocked ? send_fence(k, s) : push_next(k, s);
    case WIRE_PULL:
        return lh_pull_begin(&s->pull, LH_WIRE_LATEST);
    default:
        if (s->pushed < WIRE_CHAIN)
            LH_TRY(push(k, s, (struct lh_tree_node){.level = WIRE_CHAIN - 1, .index = s->index}));
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

static int take_rows(struct client *k, struct slot *s, const struct lh_net_message *m)
{
    int rc = lh_rowpull_take(&s->rows, 0, m);
    LH_TRY(rc);
    if (rc == 0 && s->rows.gone) { /* others have pushed before */
        stands_at(s, m->env.step);
        return pull_rows(k, s);
    }
    s->busy = !lh_rowpull_complete(&s->rows);
    return 0;
}

static int take(struct client *k, struct slot *s, struct lh_net_message *m)
{
    if (s->op == WIRE_ROWS_PULL)
        return take_rows(k, s, m);
    if (s->op != WIRE_PUSH && s->op != WIRE_ROWS_PUSH) {
        LH_TRY(lh_pull_take(&s->pull, 0, m));
        s->busy = !s->pull.complete;
        if (s->pull.complete)
            stands_at(s, s->pull.version);
        return 0;
    }
    if (m->env.kind != LH__KIND__KIND_MOVED || m->env.request != s->fence)
        return 0;
    stands_at(s, m->env.step);
    if (!s->blocked || s->pushed == WIRE_CHAIN) {
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
    return s->blocked || (s->op == WIRE_STEP && k->c->clients * k->c->flight > 1);
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

/* Rows to push, each with the same gradient: a worker's sum, dealt out and cut into pieces. */
static int open_tables(struct client *k)
{
    const size_t n = k->c->rows;
    struct lh_rowlist rows = {.n = n};
    float *values = NULL;
    int rc = 0;
    LH_TRY(LH_NEW(&k->tables, "tables"));
    k->tables->shards = k->tables->lookup.n_tables = 1;
    lh_table_sum_init(&k->tables->sum[0], WIRE_DIM);
    LH_TRY(LH_NEW_ARRAY(&k->tables->first, 2, "tables"));
    LH_TRY(LH_NEW_ARRAY(&k->ids, n, "ids"));
    LH_TRY(LH_NEW_ARRAY(&values, n * WIRE_DIM, "rows"));
    for (size_t i = 0; i < n * WIRE_DIM; i++)
        values[i] = 1e-6f;
    for (size_t i = 0; i < n; i++)
        k->ids[i] = wire_row_id(i);
    rows.ids = k->ids;
    rows.values = values;
    lh_table_sum_leaf(&k->tables->sum[0]);
    LH_TRY_TO(done, lh_table_sum_block(&k->tables->sum[0], &rows));
    rc = lh_worker_tables_end(k->tables);
done:
    lh_mem_free(values);
    return rc;
}

static int open_slot(struct client *k, struct slot *s, void *zmq, const char *server)
{
    const struct lh_graph_table table = {.dim = WIRE_DIM};
    const size_t pieces = k->c->floats / LH_WIRE_PIECE + 1;
    char *endpoints[] = {(char *)(uintptr_t)server};
    char *keys[] = {k->c->keys ? (char *)(uintptr_t)k->c->keys->server.own.key : NULL};
    LH_TRY(lh_held_init(&s->held, &k->layout));
    if (k->tables)
        LH_TRY(lh_rowpull_init(&s->rows, &table, 1, 1, 0));
    LH_TRY(lh_pull_open(&s->pull, &(struct lh_pull_spec){.zmq = zmq,
                                                         .layout = &k->layout,
                                                         .endpoints = endpoints,
                                                         .keys = k->c->keys ? keys : NULL,
                                                         .security = &k->security,
                                                         .job = k->job,
                                                         .node = WIRE_NODE,
                                                         .queue = (int)(4 * pieces) + 64}));
    s->pull.held = &s->held;
    s->socket = s->pull.shards[0].socket;
    return 0;
}

static int await_version(struct client *k, struct slot *s, uint64_t version)
{
    uint32_t slot;
    s->op = WIRE_STEP;
    s->busy = true;
    LH_TRY(lh_pull_begin(&s->pull, version));
    return await(k, lh_now() + 60, &slot);
}

/* The first client takes the server past version 0 and the one that is still given beside it, the
 * others come to it as it is. */
static int first_version(struct client *k, struct slot *s, uint32_t index)
{
    const struct lh_tree_node root = {.level = lh_tree_height(wire_leaves(k->c))};
    for (uint64_t v = 0; index == 0 && s == k->slots && v < FIRST_VERSION; v++) {
        LH_TRY(push(k, s, root));
        if (k->tables)
            LH_TRY(push_rows(k, s, root));
        LH_TRY(await_version(k, s, v + 1));
    }
    return await_version(k, s, FIRST_VERSION);
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
    LH_TRY_TO(fail, wire_layout(&k->layout, &k->param, c));
    LH_TRY_TO(fail, lh_gradient_init(&k->gradient, &k->layout, 0, wire_leaves(c)));
    k->security.keys = c->keys ? &c->keys->worker : NULL;
    LH_TRY_TO(fail, wire_job(&job, c));
    k->job = lh_job_digest(job);
    lh_job_destroy(&job);
    if (c->rows > 0)
        LH_TRY_TO(fail, open_tables(k));
    if (c->local) {
        k->options = wire_server_options(c, NULL);
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
    .serve = wire_serve,
    .open = client_open,
    .begin = begin,
    .wait = await,
    .close = client_close,
};
