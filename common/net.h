/* Sockets: ZeroMQ DEALER and ROUTER whose messages are an envelope (common/wire.h) and up to
 * LH_NET_FRAMES_MAX raw frames. Nothing here blocks but lh_net_poll, which has a time limit; no
 * queue is unbounded and nothing is dropped in silence: a full queue is LH_AGAIN, a peer that is
 * gone is LH_NOTFOUND, a malformed or foreign message, or one that its sender has no right to send
 * (common/security.h), is counted, noted once a peer and dropped. A DEALER whose connection has
 * broken connects again by itself, also where ZeroMQ would give up: after a refused key and after
 * bytes that were no message.
 *
 * A socket belongs to one thread. After zmq_ctx_shutdown every call returns LH_ECANCELED. */
#pragma once

#include "common/security.h"
#include "common/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#define LH_NET_FRAMES_MAX   3
#define LH_NET_POLL_MAX     64
#define LH_NET_PEER_MAX     32
#define LH_NET_ENDPOINT_MAX 256
#define LH_NET_INBOX        128
/* Who connects must have shown its key within this time. */
#define LH_NET_HANDSHAKE_SECONDS 10

/* A context for sockets: as many as the machine gives descriptors for, whose bytes `io_threads`
 * threads of ZeroMQ move, connection by connection. End it with zmq_ctx_term. Errors: LH_ENOMEM. */
int lh_net_context(void **out, uint32_t io_threads);

struct lh_net_socket;

/* Who a ROUTER's message came from, and goes to. */
struct lh_net_peer {
    size_t size;
    unsigned char id[LH_NET_PEER_MAX];
    int fd; /* of its connection, when it sent the message; -1: none (inproc) */
};

/* A peer's connection, to end it should that be needed: what waits for the peer is then released.
 * The kernel's cookie tells it from a later one with the same descriptor. */
struct lh_net_connection {
    int fd;
    uint64_t cookie;
};
struct lh_net_connection lh_net_connection_of(const struct lh_net_peer *peer); /* a system call */
void lh_net_cut_off(const struct lh_net_connection *connection);

/* A frame to send. With `release` the bytes are lent: they must stay unchanged until it is called,
 * once, from any thread; without, they are copied. */
struct lh_net_part {
    const void *data;
    size_t size;
    void (*release)(void *data, void *hint);
    void *hint;
};

struct lh_net_message {
    struct lh_net_peer peer; /* size 0 from a DEALER */
    /* Who sent it, proven by its key; ROLE_NONE and "" in the clear. On a DEALER the role is known
     * in any case: that of the other end. */
    Lh__Role role;
    char key[LH_KEY_SIZE];
    struct lh_envelope env;
    size_t n; /* frames behind the envelope; they are NOT aligned */
    zmq_msg_t frame[LH_NET_FRAMES_MAX];
};

/* The other end of a DEALER. */
struct lh_net_address {
    const char *endpoint;
    Lh__Role role;   /* who listens there */
    const char *key; /* its public key: nobody else is spoken to; NULL or "" in the clear */
};

/* queue: messages that may wait to be sent; as many, but on a ROUTER at most LH_NET_INBOX a peer,
 * to be received: what more there is waits with its sender. `security` (NULL: none) must outlive
 * the socket. Errors: LH_ECONFIG for an endpoint that is none, or that leaves this host in the
 * clear without leave; LH_EBUSY for an address in use, LH_EACCES, LH_EIO. */
int lh_net_dealer(struct lh_net_socket **out, void *zmq, const struct lh_net_address *to, int queue,
                  const struct lh_security *security);
int lh_net_router(struct lh_net_socket **out, void *zmq, const char *endpoint, int queue,
                  const struct lh_security *security);
void lh_net_close(struct lh_net_socket **s); /* drops what could not be sent within 1 s */
/* Where it is bound or connected to; a wildcard port is resolved. */
const char *lh_net_endpoint(const struct lh_net_socket *s);
/* Whether an endpoint is between threads of one process. */
bool lh_net_is_inproc(const char *endpoint);
/* Of a DEALER: whether the other end refused this role's key when it was last shown. */
bool lh_net_refused(const struct lh_net_socket *s);
/* Of a DEALER: how often its connection has broken, as far as was noticed. What was under way then
 * is lost. */
uint64_t lh_net_breaks(const struct lh_net_socket *s);
/* From now on messages of another job are foreign. */
void lh_net_expect(struct lh_net_socket *s, uint64_t job);

struct lh_net_counts {
    uint64_t dropped, bytes_in, bytes_out, messages_in, messages_out;
};
struct lh_net_counts lh_net_counts(const struct lh_net_socket *s);
void lh_net_counts_add(struct lh_net_counts *sum, const struct lh_net_socket *s);

/* Sends, or returns LH_AGAIN (queue full: nothing happened, lent parts are still the caller's) or
 * LH_NOTFOUND (the peer is gone: lent parts are released, as after an error). `to` is NULL on a
 * DEALER. */
int lh_net_send(struct lh_net_socket *s, const struct lh_net_peer *to,
                const struct lh_envelope *env, const struct lh_net_part *parts, size_t n);
/* An envelope and a packed body. */
int lh_net_send_body(struct lh_net_socket *s, const struct lh_net_peer *to,
                     const struct lh_envelope *env, const ProtobufCMessage *body);

/* The next message, or LH_AGAIN: none, or none when last polled. Free it: lh_net_message_fini. */
int lh_net_recv(struct lh_net_socket *s, struct lh_net_message *m);
void lh_net_message_fini(struct lh_net_message *m);
/* Bytes and size of frame i; NULL and 0 beyond n. */
const void *lh_net_frame(const struct lh_net_message *m, size_t i, size_t *size);
/* The body in frame 0. */
int lh_net_body(const struct lh_net_message *m, const ProtobufCMessageDescriptor *type,
                ProtobufCMessage **out);
/* Drops m as malformed: counted, noted once a peer with the current sentence. */
void lh_net_reject(struct lh_net_socket *s, const struct lh_net_message *m);

struct lh_net_poll {
    struct lh_net_socket *socket;
    bool want_out;
    bool in, out; /* results */
};

/* Waits until one of at most LH_NET_POLL_MAX sockets is ready or `seconds` have passed (0: only
 * looks). */
int lh_net_poll(struct lh_net_poll *items, size_t n, double seconds);
