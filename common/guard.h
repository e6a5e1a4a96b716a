/* The guard of a ZeroMQ context: a thread that lets peers in. It answers for every CURVE socket
 * that listens in the context (ZAP, RFC 27): a key on its list gets in, and each message is marked
 * with the role the key stands for; any other is refused, counted, and noted once.
 *
 * It also bounds what strangers can make the process hold: while many connections have not yet
 * shown a key, or nearly all file descriptors are taken, the kernel is told to drop attempts to
 * connect; they are made again by whoever means it. Connections that stand are not touched.
 *
 * Start it before the first socket listens, stop it when all are closed. The list may grow at any
 * time, so that a launcher may bind first and collect keys afterwards: a peer that was refused
 * tries again (net.h). */
#pragma once

#include "common/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_guard;

/* One a context. Errors: LH_EBUSY if there is one, LH_ENOMEM, LH_EIO. */
int lh_guard_start(struct lh_guard **out, void *zmq);
void lh_guard_stop(struct lh_guard **g); /* NULL content allowed */

/* From now on this key may connect, as `who->role`. Any thread. A key that is known keeps its
 * role: LH_EMISMATCH if that is another. */
int lh_guard_allow(struct lh_guard *g, const struct lh_key_owner *who);
/* From now on nobody but the n of `list` may connect as `role`: who else may is forgotten. Those
 * that are connected stay until lh_guard_knows is asked of them. Any thread. */
int lh_guard_restrict(struct lh_guard *g, Lh__Role role, const struct lh_key_owner *list, size_t n);
bool lh_guard_knows(struct lh_guard *g, const char *key); /* any thread */
/* Copies the list, only `role` (ROLE_NONE: all). Caller frees *out with lh_mem_free. Any thread. */
int lh_guard_allowed(struct lh_guard *g, Lh__Role role, struct lh_key_owner **out, size_t *n);

/* Watches over a socket that is about to listen; call it before the bind. net_open.c does. */
int lh_guard_watch(struct lh_guard *g, void *socket);
/* A whole message came from the connection with this descriptor. One that sends on and on without
 * ever ending a message is cut off: ZeroMQ bounds messages, not their number of frames. Any thread,
 * no lock. */
void lh_guard_heard(struct lh_guard *g, int fd);
/* A role found that its socket has no message: what came before and is none yet is late. Any
 * thread, no lock. */
void lh_guard_emptied(struct lh_guard *g);

struct lh_guard_counts {
    uint64_t let_in, refused; /* keys shown */
    uint64_t shut;            /* times that attempts to connect were dropped for a while */
    uint64_t connections;     /* now */
};
struct lh_guard_counts lh_guard_counts(struct lh_guard *g); /* any thread */

/* How a let-in peer's messages are marked ("User-Id"): the role as a digit, then the key. */
#define LH_GUARD_MARK_SIZE (1 + LH_KEY_SIZE)
