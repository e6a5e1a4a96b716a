/* Membership as the scheduler sees it. A role's side is common/member.c. */
#include "cluster/roster.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A role that reads its dataset or checkpoint may be long at it. */
#define READY_PATIENCE 300.0
/* Roles of a run in all, those that are gone included: who may say hello may not fill memory. */
#define NODES_MAX 65536

void lh_roster_fini(struct lh_roster *r)
{
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

struct lh_role_node *lh_roster_by_pid(struct lh_roster *r, uint64_t pid)
{
    char host[sizeof r->nodes->host] = "";
    gethostname(host, sizeof host - 1);
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
    snprintf(node->endpoint, sizeof node->endpoint, "%s", h->endpoint);
    return 0;
}

static int take_worker(struct lh_roster *r, const Lh__Hello *h)
{
    if (!r->blas[0])
        snprintf(r->blas, sizeof r->blas, "%s", h->blas);
    if (strncmp(r->blas, h->blas, sizeof r->blas - 1) != 0)
        return lh_err_set(LH_EMISMATCH,
                          "this worker computes with %s, the run with %s: results would differ in "
                          "their last bits; use the same OpenBLAS, and the kernel of the run by "
                          "OPENBLAS_CORETYPE and LONGHAUL_GEMM",
                          h->blas, r->blas);
    return 0;
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
    if (h->role == LH__ROLE__ROLE_SERVER)
        return take_server(r, h, node);
    if (h->role == LH__ROLE__ROLE_WORKER)
        return take_worker(r, h);
    return lh_err_set(LH_EPROTO, "a role of unknown kind %d", (int)h->role);
}

int lh_roster_hello(struct lh_roster *r, const struct lh_net_message *msg,
                    struct lh_role_node **out)
{
    *out = NULL;
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i].peer.size == msg->peer.size &&
            memcmp(r->nodes[i].peer.id, msg->peer.id, msg->peer.size) == 0) {
            r->nodes[i].heard = lh_now();
            return 0; /* it says so again until it has its plan */
        }
    Lh__Hello *h = NULL;
    LH_TRY(lh_net_body(msg, &lh__hello__descriptor, (ProtobufCMessage **)&h));
    struct lh_role_node node = {.number = (uint32_t)r->n_nodes + 1,
                                .role = h->role,
                                .peer = msg->peer,
                                .pid = h->pid,
                                .heard = lh_now(),
                                .phases = LH__PHASES__INIT};
    snprintf(node.key, sizeof node.key, "%s", msg->key);
    snprintf(node.host, sizeof node.host, "%s", h->host);
    snprintf(node.metrics, sizeof node.metrics, "%s", h->metrics);
    int rc = admit(r, msg, h, &node);
    lh_wire_free((ProtobufCMessage **)&h);
    if (rc < 0)
        return refuse(r, msg, rc);
    LH_TRY(LH_GROW(&r->nodes, &r->cap_nodes, r->n_nodes + 1, "roles of the run"));
    r->nodes[r->n_nodes] = node;
    *out = &r->nodes[r->n_nodes++];
    return 0;
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
        n->standing = LH_STANDING_GONE;
        n->said_goodbye = true; /* its process comes back behind another socket */
    }
    r->generation++;
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

struct lh_role_node *lh_roster_sender(struct lh_roster *r, const struct lh_net_message *msg,
                                      bool *returned)
{
    uint32_t number = msg->env.node;
    if (number == 0 || number > r->n_nodes || msg->env.epoch != r->generation)
        return NULL;
    struct lh_role_node *node = &r->nodes[number - 1];
    if (strcmp(node->key, msg->key) != 0) { /* numbers are claimed, keys are proven */
        lh_err_set(LH_EPROTO, "a %s that says it is of node %u, which has another key",
                   lh_wire_kind_name(msg->env.kind), number);
        lh_net_reject(r->socket, msg);
        return NULL;
    }
    bool back = node->standing == LH_STANDING_GONE && !node->said_goodbye &&
                node->role == LH__ROLE__ROLE_WORKER && msg->env.kind == LH__KIND__KIND_BEAT;
    if (node->standing == LH_STANDING_GONE && !back)
        return NULL;
    if (back)
        node->standing = LH_STANDING_READY;
    if (returned)
        *returned = back;
    node->peer = msg->peer; /* a connection made anew has another id */
    node->heard = lh_now();
    node->version = msg->env.step > node->version ? msg->env.step : node->version;
    if (msg->env.kind == LH__KIND__KIND_BEAT || msg->env.kind == LH__KIND__KIND_GOODBYE)
        take_phases(node, msg);
    return node;
}

struct lh_role_node *lh_roster_silent(struct lh_roster *r)
{
    double now = lh_now();
    for (size_t i = 0; i < r->n_nodes; i++) {
        struct lh_role_node *n = &r->nodes[i];
        double patience = n->standing == LH_STANDING_READY ? r->deadline : READY_PATIENCE;
        if (n->standing != LH_STANDING_GONE && now - n->heard > patience)
            return n;
    }
    return NULL;
}

/* --- telling -----------------------------------------------------------------------------------
 */
int lh_roster_tell(struct lh_roster *r, const struct lh_role_node *node,
                   const struct lh_envelope *env, const ProtobufCMessage *body)
{
    struct lh_envelope e = *env;
    e.job = r->job;
    int rc = body ? lh_net_send_body(r->socket, &node->peer, &e, body)
                  : lh_net_send(r->socket, &node->peer, &e, NULL, 0);
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
