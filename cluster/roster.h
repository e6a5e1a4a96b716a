/* Who takes part in a run, as the scheduler knows it: roles that said hello, what they were told,
 * and when they were last heard. Hands out shards and shares; decides who is dead. */
#pragma once

#include "common/awake.h"
#include "common/http.h"
#include "common/net.h"
#include "common/outbox.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_standing {
    LH_STANDING_HELLO,   /* waits for its plan */
    LH_STANDING_PLANNED, /* has it, gets ready */
    LH_STANDING_READY,
    LH_STANDING_GONE /* left, or was given up */
};

struct lh_role_node {
    uint32_t number; /* 1, 2, …; 0 is the scheduler */
    Lh__Role role;
    enum lh_standing standing;
    struct lh_net_peer peer;
    char endpoint[LH_NET_ENDPOINT_MAX]; /* of a server */
    char key[LH_KEY_SIZE];              /* public; "" in the clear */
    char host[64];
    char metrics[LH_HTTP_ENDPOINT_MAX]; /* where its process serves them; "" if nowhere */
    uint64_t pid, instance;
    struct lh_outbox out; /* orders to it */
    struct lh_inbox in;   /* what it says */
    uint32_t shard;       /* of a server */
    uint32_t epoch;       /* of the assignment it was sent last */
    double heard;         /* seconds */
    uint64_t version;     /* where it stands */
    bool paused;
    uint64_t paused_at; /* the step up to which it will have gone then: some may be under way */
    bool deaf;          /* it could not be told something: so much waits for its acknowledgement */
    unsigned hellos;    /* that came after it was gone */
    Lh__Phases phases;  /* its last report */
    bool said_goodbye;
};

struct lh_roster {
    struct lh_net_socket *socket; /* ROUTER */
    uint64_t job;
    uint32_t generation;       /* of the plans it sends; messages of another one are nobody's */
    uint32_t returned;         /* how many generations it has ended */
    uint32_t servers, workers; /* wanted at the start */
    struct lh_role_node *nodes;
    size_t n_nodes, cap_nodes;
    char blas[160]; /* of the run, or of the first worker; "" before */
    uint32_t epoch; /* of the assignment */
    double heartbeat, deadline, beaten;
    bool in_process; /* roles are threads: none dies alone, but one may get no processor for long */
    struct lh_awake awake;
};

void lh_roster_fini(struct lh_roster *r);

/* Enters who says hello. Returns the node, also of one that lost its connection before it had a
 * plan; NULL if it was refused (and told why) or is known and waits. */
int lh_roster_hello(struct lh_roster *r, const struct lh_net_message *msg,
                    struct lh_role_node **out);
/* The run goes back: everybody who has a plan is told to say hello again, and gone; generation is
 * the next. */
int lh_roster_dismiss(struct lh_roster *r);
/* Marks a node as one that left or was given up. What it was told is kept only where it may be
 * heard again as who it was: of a worker that went silent. */
void lh_roster_gone(struct lh_role_node *node);
/* The node that sent a message, marked as heard; NULL if it is nobody's, or came before or after
 * its turn (common/outbox.h). A node that was given up and is heard again is back: *returned (may
 * be NULL). One of a generation that has ended is told so once more. */
struct lh_role_node *lh_roster_sender(struct lh_roster *r, const struct lh_net_message *msg,
                                      bool *returned);

size_t lh_roster_count(const struct lh_roster *r, Lh__Role role, enum lh_standing at_least);
struct lh_role_node *lh_roster_server(struct lh_roster *r, uint32_t shard); /* NULL if none */
/* "server 1 (pid 4711 on host, tcp://…)" into a buffer. */
const char *lh_roster_describe(const struct lh_role_node *node, char *out, size_t size);

/* A new assignment of shares to all workers that are ready, in order of their numbers. */
int lh_roster_assign(struct lh_roster *r);
/* Sends to one node, again and again until it has come. One that has not taken LH_OUTBOX_MAX of
 * them, a worker LH_OUTBOX_ROOM, is told nothing more: it is deaf, and lh_roster_silent gives it
 * up. */
int lh_roster_tell(struct lh_roster *r, struct lh_role_node *node, const struct lh_envelope *env,
                   const ProtobufCMessage *body);
int lh_roster_tell_all(struct lh_roster *r, Lh__Role role, const struct lh_envelope *env,
                       const ProtobufCMessage *body); /* ROLE_NONE: everybody */
/* Whether everybody of a role has taken most of what it was told: what can wait waits for that. */
bool lh_roster_has_room(const struct lh_roster *r, Lh__Role role);
/* Beats to everybody if due. */
int lh_roster_beat(struct lh_roster *r);
/* Somebody who is silent beyond the deadline, or deaf; NULL if none. Called each turn: silence
 * while this process was suspended does not count. */
struct lh_role_node *lh_roster_silent(struct lh_roster *r);
/* Of a process that is there; NULL if none. */
struct lh_role_node *lh_roster_by_pid(struct lh_roster *r, uint64_t pid, const char *host);
