/* What secures the sockets of a role, and who may send what.
 *
 * With keys, every socket but inproc:// speaks CURVE: both ends prove who they are, messages are
 * encrypted and authenticated. Without, messages go in the clear: that is for one host only
 * (inproc, ipc, tcp on loopback), and over tcp to others refused unless `insecure` asks for it.
 * cluster/SECURITY.md is the threat model. */
#pragma once

#include "common/guard.h"
#include "common/keys.h"

#include <stdbool.h>
#include <stdint.h>

/* A plain value; keys and guard stay the caller's and outlive the role's sockets. Where roles share
 * a context, each has keys of its own and all have the one guard. */
struct lh_security {
    const struct lh_keys *keys; /* NULL: none */
    struct lh_guard *guard;     /* of the context; needed where a socket with keys listens */
    bool insecure;              /* without keys, tcp may leave the host */
};

/* Starts a guard that lets in whom the keys allow. `keys` NULL: no guard. */
int lh_security_open(struct lh_security *out, void *zmq, const struct lh_keys *keys, bool insecure);
void lh_security_close(struct lh_security *s); /* idempotent */

/* The one table of authority: whether `sender` may send a message of this kind at all. Nobody may
 * send what the table does not name. */
bool lh_security_may_send(Lh__Role sender, uint32_t kind);

/* Whether an endpoint stays within this host: anything but tcp, and tcp by a loopback address. */
bool lh_security_is_local(const char *endpoint);
