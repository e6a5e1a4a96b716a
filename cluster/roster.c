/* Membership as the scheduler sees it. A role's side is common/member.c. */
#include "cluster/roster.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>

/* A role that reads its dataset or checkpoint may be long at it. */
#define READY_PATIENCE 300.0
/* Roles of a run in all, those that are gone included: who may say hello may not fill memory. */
#define NODES_MAX    65536
#define NODES_A_KEY  16384 /* of one key: who has it does not take all the numbers there are */
#define RESEND_AFTER 1.0   /* seconds beyond a heartbeat: then what is not acknowledged was lost */
#define HELLOS       3     /* of one that is gone: then they are no late ones */

void lh_roster_fini(struct lh_roster *r)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        lh_outbox_fini(&r->nodes[i].out);
    lh_mem_free(r->nodes);
    r->nodes = NULL;
    r->n_nodes = r->cap_nodes = 0;
}

size_t lh_roster_count(const struct lh_roster *r, Lh__Role role, enum lh_standing at_least)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_nodes; i++)
        n += r->nodes[i].role == role && r->nodes[i].standing >= at_least &&
             r->nodes[i].standing != LH_STANDING_GONE;
    return n;
}

struct lh_role_node *lh_roster_server(struct lh_roster *r, uint32_t shard)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i].role == LH__ROLE__ROLE_SERVER && r->nodes[i].shard == shard &&
            r->nodes[i].standing != LH_STANDING_GONE)
            return &r->nodes[i];
    return NULL;
}

struct lh_role_node *lh_roster_by_pid(struct lh_roster *r, uint64_t pid, const char *host)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i].pid == pid && strcmp(r->nodes[i].host, host) == 0 &&
            r->nodes[i].standing != LH_STANDING_GONE)
            return &r->nodes[i];
    return NULL;
}

const char *lh_roster_describe(const struct lh_role_node *node, char *out, size_t size)
{
    if (node->role == LH__ROLE__ROLE_SERVER)
        snprintf(out, size, "server %u (process %llu on %s, %s)", node->shard,
                 (unsigned long long)node->pid, node->host, node->endpoint);
    else
        snprintf(out, size, "worker %u (process %llu on %s)", node->number,
                 (unsigned long long)node->pid, node->host);
    return out;
}

/* --- hello -------------------------------------------------------------------------------------
 */
static int refuse(struct lh_roster *r, const struct lh_net_message *msg, int code)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_REFUSED, .job = r->job};
    Lh__Failure f = LH__FAILURE__INIT;
    char text[LH_ERR_MAX];
    snprintf(text, sizeof text, "%s", lh_err_text());
    f.code = code;
    f.text = text;
    lh_net_reject(r->socket, msg);
    int rc = lh_net_send_body(r->socket, &msg->peer, &env, &f.base);
    return rc < 0 ? rc : 0;
}

/* Copies what will be shown to people. */
static void copy_shown(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
    lh_err_plain(out);
}

static int take_server(struct lh_roster *r, const Lh__Hello *h, struct lh_role_node *node)
{
    if (!*h->endpoint || strlen(h->endpoint) >= sizeof node->endpoint)
        return lh_err_set(LH_EPROTO, "a server that says no endpoint");
    uint32_t shard = h->wanted - 1;
    if (h->wanted == 0)
        for (shard = 0; lh_roster_server(r, shard); shard++)
            ;
    if (shard >= r->servers || lh_roster_server(r, shard))
        return lh_err_set(LH_EBUSY,
                          "the job has %u server%s and shard %u is taken or beyond; start the "
                          "scheduler with more --servers",
                          r->servers, r->servers == 1 ? "" : "s", shard);
    node->shard = shard;
    copy_shown(node->endpoint, sizeof node->endpoint, h->endpoint);
    return 0;
}

static int take_worker(struct lh_roster *r, const Lh__Hello *h)
{
    if (!r->blas[0])
        copy_shown(r->blas, sizeof r->blas, h->blas);
    if (strncmp(r->blas, h->blas, sizeof r->blas - 1) != 0)
        return lh_err_set(LH_EMISMATCH,
                          "this worker computes with %s, the run with %s: results would differ in "
                          "their last bits; use the same OpenBLAS, and the kernel of the run by "
                          "OPENBLAS_CORETYPE and LONGHAUL_GEMM",
                          h->blas, r->blas);
    return 0;
}

static size_t came_with(const struct lh_roster *r, const char *key)
{
    size_t n = 0;
    for (size_t i = 0; *key && i < r->n_nodes; i++)
        n += strcmp(r->nodes[i].key, key) == 0;
    return n;
}

static int admit(struct lh_roster *r, const struct lh_net_message *msg, const Lh__Hello *h,
                 struct lh_role_node *node)
{
    if (msg->env.protocol != LH_WIRE_PROTOCOL || strcmp(h->program, LH_VERSION) != 0)
        return lh_err_set(LH_EMISMATCH,
                          "this role is longhaul %.20s (protocol %u), the scheduler is %s "
                          "(protocol %d): run the same release everywhere",
                          h->program, msg->env.protocol, LH_VERSION, LH_WIRE_PROTOCOL);
    if (msg->role != LH__ROLE__ROLE_NONE && msg->role != h->role)
        return lh_err_set(LH_EACCES, "the key of a %s cannot act as a %s",
                          lh_keys_role_name(msg->role), lh_keys_role_name(h->role));
    if (r->n_nodes == NODES_MAX)
        return lh_err_set(LH_EBUSY, "%d roles have come to this run; no more are taken", NODES_MAX);
    if (came_with(r, msg->key) >= NODES_A_KEY)
        return lh_err_set(LH_EBUSY,
                          "%d roles have come to this run with this key; no more are taken: make "
                          "others with 'longhaul keygen'",
                          NODES_A_KEY);
    if (h->role == LH__ROLE__ROLE_SERVER)
        return take_server(r, h, node);
    if (h->role == LH__ROLE__ROLE_WORKER)
        return take_worker(r, h);
    return lh_err_set(LH_EPROTO, "a role of unknown kind %d", (int)h->role);
}

static bool same_peer(const struct lh_net_peer *a, const struct lh_net_peer *b)
{
    return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

/* Somebody who has said hello already, over this connection or over one that broke. */
static struct lh_role_node *known(struct lh_roster *r, const struct lh_net_message *msg,
                                  const Lh__Hello *h)
{
    for (size_t i = r->n_nodes; i-- > 0;) {
        struct lh_role_node *n = &r->nodes[i];
        if (same_peer(&n->peer, &msg->peer) ||
            (h->instance != 0 && n->instance == h->instance && n->role == h->role &&
             strcmp(n->key, msg->key) == 0))
            return n;
    }
    return NULL;
}

/* It says so again until it has its plan; one that was sent over a connection that broke is sent
 * again. */
static struct lh_role_node *hello_again(struct lh_role_node *node, const struct lh_net_message *msg)
{
    bool moved = !same_peer(&node->peer, &msg->peer);
    node->heard = lh_now();
    if (!moved || node->standing > LH_STANDING_PLANNED)
        return NULL;
    node->peer = msg->peer;
    node->standing = LH_STANDING_HELLO;
    return node;
}

static int enter(struct lh_roster *r, const struct lh_net_message *msg, const Lh__Hello *h,
                 struct lh_role_node **out)
{
    struct lh_role_node node = {.number = (uint32_t)r->n_nodes + 1,
                                .role = h->role,
                                .peer = msg->peer,
                                .pid = h->pid,
                                .instance = h->instance,
                                .heard = lh_now(),
                                .phases = LH__PHASES__INIT};
    snprintf(node.key, sizeof node.key, "%s", msg->key);
    copy_shown(node.host, sizeof node.host, h->host);
    copy_shown(node.metrics, sizeof node.metrics, h->metrics);
    int rc = admit(r, msg, h, &node);
    if (rc < 0)
        return refuse(r, msg, rc);
    LH_TRY(LH_GROW(&r->nodes, &r->cap_nodes, r->n_nodes + 1, "roles of the run"));
    r->nodes[r->n_nodes] = node;
    *out = &r->nodes[r->n_nodes++];
    return 0;
}

int lh_roster_hello(struct lh_roster *r, const struct lh_net_message *msg,
                    struct lh_role_node **out)
{
    Lh__Hello *h = NULL;
    *out = NULL;
    LH_TRY(lh_net_body(msg, &lh__hello__descriptor, (ProtobufCMessage **)&h));
    struct lh_role_node *node = known(r, msg, h);
    int rc = 0;
    /* one that is gone, and goes on saying so, lost its plan when the run went back */
    if (node && (node->standing != LH_STANDING_GONE || ++node->hellos < HELLOS))
        *out = hello_again(node, msg);
    else
        rc = enter(r, msg, h, out);
    lh_wire_free((ProtobufCMessage **)&h);
    return rc;
}

void lh_roster_gone(struct lh_role_node *node)
{
    node->standing = LH_STANDING_GONE;
    if (node->said_goodbye || node->deaf || node->role == LH__ROLE__ROLE_SERVER)
        lh_outbox_fini(&node->out);
}

int lh_roster_dismiss(struct lh_roster *r)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_AGAIN};
    for (size_t i = 0; i < r->n_nodes; i++) {
        struct lh_role_node *n = &r->nodes[i];
        if (n->standing == LH_STANDING_HELLO || n->said_goodbye)
            continue; /* it waits for its plan, and the next one will do; or it left */
        /* also to one that was given up: it may only have been slow */
        LH_TRY(lh_roster_tell(r, n, &env, NULL));
        n->said_goodbye = true; /* its process comes back behind another socket */
        lh_roster_gone(n);
    }
    r->generation++;
    r->returned++;
    return 0;
}

/* --- who is there ------------------------------------------------------------------------------
 */
static void take_phases(struct lh_role_node *node, const struct lh_net_message *msg)
{
    Lh__Phases *p = NULL;
    if (lh_net_body(msg, &lh__phases__descriptor, (ProtobufCMessage **)&p) < 0)
        return; /* statistics only */
    node->phases = *p;
    node->phases.base.n_unknown_fields = 0;
    node->phases.base.unknown_fields = NULL;
    lh_wire_free((ProtobufCMessage **)&p);
}

/* Outside of the order. */
static void send_again(struct lh_roster *r, const struct lh_net_message *msg)
{
    const struct lh_envelope env = {.kind = LH__KIND__KIND_AGAIN, .job = r->job};
    lh_net_send(r->socket, &msg->peer, &env, NULL, 0);
}

/* One that does not know that the run went back: what told it so was lost. */
static void tell_again(struct lh_roster *r, const struct lh_net_message *msg)
{
    if (msg->env.kind == LH__KIND__KIND_BEAT && r->generation - msg->env.epoch <= r->returned)
        send_again(r, msg);
}

/* What a beat acknowledges; and an acknowledgement, where many messages came since the last. */
static int keep_order(struct lh_roster *r, struct lh_role_node *node,
                      const struct lh_net_message *msg, bool *take)
{
    struct lh_envelope beat = {.kind = LH__KIND__KIND_BEAT};
    *take = lh_inbox_takes(&node->in, msg->env.request);
    if (msg->env.kind == LH__KIND__KIND_BEAT)
        return lh_outbox_acknowledged(&node->out, msg->env.first, r->socket, &node->peer,
                                      r->heartbeat + RESEND_AFTER);
    return node->in.taken >= LH_OUTBOX_SAY ? lh_roster_tell(r, node, &beat, NULL) : 0;
}

/* A worker that was given up for its silence. One that was deaf says hello anew, and gets another
 * number: what it was told is forgotten. */
static bool comes_back(struct lh_roster *r, const struct lh_role_node *node,
                       const struct lh_net_message *msg)
{
    if (node->said_goodbye || node->role != LH__ROLE__ROLE_WORKER ||
        msg->env.kind != LH__KIND__KIND_BEAT)
        return false;
    if (node->deaf)
        send_again(r, msg);
    return !node->deaf;
}

struct lh_role_node *lh_roster_sender(struct lh_roster *r, const struct lh_net_message *msg,
                                      bool *returned)
{
    uint32_t number = msg->env.node;
    bool take;
    if (number != 0 && msg->env.epoch != r->generation)
        tell_again(r, msg);
    if (number == 0 || number > r->n_nodes || msg->env.epoch != r->generation)
        return NULL;
    struct lh_role_node *node = &r->nodes[number - 1];
    if (strcmp(node->key, msg->key) != 0) { /* numbers are claimed, keys are proven */
        lh_err_set(LH_EPROTO, "a %s that says it is of node %u, which has another key",
                   lh_wire_kind_name(msg->env.kind), number);
        lh_net_reject(r->socket, msg);
        return NULL;
    }
    const bool gone = node->standing == LH_STANDING_GONE, back = gone && comes_back(r, node, msg);
    if (gone && !back)
        return NULL;
    if (back)
        node->standing = LH_STANDING_READY;
    if (returned)
        *returned = back;
    node->peer = msg->peer; /* a connection made anew has another id */
    node->heard = lh_now();
    if (msg->env.kind != LH__KIND__KIND_PAUSED && msg->env.step > node->version)
        node->version = msg->env.step;
    if (msg->env.kind == LH__KIND__KIND_BEAT || msg->env.kind == LH__KIND__KIND_GOODBYE)
        take_phases(node, msg);
    return keep_order(r, node, msg, &take) >= 0 && take ? node : NULL;
}

struct lh_role_node *lh_roster_silent(struct lh_roster *r)
{
    const double now = lh_now(), gap = lh_awake_gap(&r->awake, now, r->deadline);
    for (size_t i = 0; i < r->n_nodes; i++) {
        struct lh_role_node *n = &r->nodes[i];
        n->heard = n->heard + gap < now ? n->heard + gap : now;
        double patience =
            n->standing == LH_STANDING_READY && !r->in_process ? r->deadline : READY_PATIENCE;
        if (n->standing != LH_STANDING_GONE && (n->deaf || now - n->heard > patience))
            return n;
    }
    return NULL;
}

/* --- telling -----------------------------------------------------------------------------------
 */
static int tell_in_order(struct lh_roster *r, struct lh_role_node *node,
                         const struct lh_envelope *env, const ProtobufCMessage *body)
{
    struct lh_net_part part = {0};
    void *bytes = NULL;
    /* of a worker's only the newest counts, and there may be many workers that take none */
    if (node->role == LH__ROLE__ROLE_WORKER && node->out.n >= LH_OUTBOX_ROOM)
        return LH_AGAIN;
    if (body)
        LH_TRY(lh_wire_pack(body, &bytes, &part.size));
    part.data = bytes;
    int rc = lh_outbox_send(&node->out, r->socket, &node->peer, env, &part, body ? 1 : 0);
    lh_mem_free(bytes);
    return rc;
}

int lh_roster_tell(struct lh_roster *r, struct lh_role_node *node, const struct lh_envelope *env,
                   const ProtobufCMessage *body)
{
    struct lh_envelope e = *env;
    int rc;
    e.job = r->job;
    if (e.kind == LH__KIND__KIND_BEAT) {
        e.first = node->in.last;
        node->in.taken = 0;
        rc = lh_net_send(r->socket, &node->peer, &e, NULL, 0);
    } else if (e.kind == LH__KIND__KIND_PLAN) { /* asked for, by hello, until it comes */
        rc = lh_net_send_body(r->socket, &node->peer, &e, body);
    } else {
        rc = tell_in_order(r, node, &e, body);
        node->deaf = node->deaf || rc == LH_AGAIN; /* what is not told to it is not forgotten */
    }
    return rc < 0 ? rc : 0;
}

int lh_roster_tell_all(struct lh_roster *r, Lh__Role role, const struct lh_envelope *env,
                       const ProtobufCMessage *body)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i].standing != LH_STANDING_GONE &&
            (role == LH__ROLE__ROLE_NONE || r->nodes[i].role == role))
            LH_TRY(lh_roster_tell(r, &r->nodes[i], env, body));
    return 0;
}

bool lh_roster_has_room(const struct lh_roster *r, Lh__Role role)
{
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i].role == role && r->nodes[i].standing != LH_STANDING_GONE &&
            r->nodes[i].out.n >= LH_OUTBOX_ROOM)
            return false;
    return true;
}

int lh_roster_beat(struct lh_roster *r)
{
    double now = lh_now();
    if (now - r->beaten < r->heartbeat)
        return 0;
    r->beaten = now;
    struct lh_envelope env = {.kind = LH__KIND__KIND_BEAT};
    return lh_roster_tell_all(r, LH__ROLE__ROLE_NONE, &env, NULL);
}

int lh_roster_assign(struct lh_roster *r)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_ASSIGN,
                              .count =
                                  lh_roster_count(r, LH__ROLE__ROLE_WORKER, LH_STANDING_READY)};
    env.epoch = ++r->epoch;
    lh_log_event(LH_LOG_INFO, "epoch",
                 LH_FIELDS(LH_F("epoch", r->epoch), LH_F("workers", env.count)));
    for (size_t i = 0; i < r->n_nodes; i++) {
        struct lh_role_node *n = &r->nodes[i];
        if (n->role != LH__ROLE__ROLE_WORKER || n->standing != LH_STANDING_READY)
            continue;
        n->epoch = r->epoch;
        LH_TRY(lh_roster_tell(r, n, &env, NULL));
        env.index++;
    }
    return 0;
}
