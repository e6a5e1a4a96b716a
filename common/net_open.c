/* Opening sockets: bounded queues (high-water marks), no silent drop (ROUTER_MANDATORY), patience
 * with peers over tcp; CURVE where there are keys. */
#include "common/net_internal.h"

#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A frame above this is not from us: pieces are 1 MB, bodies at most 4 MB. */
#define FRAME_MAX (8 << 20)
#define LINGER_MS 1000
/* tcp: a peer that has taken nothing for so long is cut off, and what waits for it released. */
#define STUCK_MS 30000
/* tcp: an idle connection is probed by the kernel; one that answers no probe is gone, after half a
 * minute. Not ZeroMQ's own heartbeat: in 4.3.4 its timer ends the process (an assertion) when a
 * connection breaks whose messages wait for a full inbox to be read. */
#define PROBE_AFTER      5 /* seconds */
#define PROBES           5
#define RECONNECT_MAX_MS 2000

int lh_net_failed(const char *what, const char *endpoint)
{
    int e = zmq_errno();
    switch (e) {
    case ETERM:
        return lh_err_set(LH_ECANCELED, "%s: the run was stopped", endpoint);
    case EADDRINUSE:
        return lh_err_set(LH_EBUSY,
                          "%s: the address is in use; choose another port, or * for a free one",
                          endpoint);
    case EADDRNOTAVAIL:
    case ENODEV:
        return lh_err_set(LH_ECONFIG, "%s: this machine has no such address", endpoint);
    case EINVAL:
    case EPROTONOSUPPORT:
        return lh_err_set(LH_ECONFIG,
                          "%s: not an endpoint; expected tcp://HOST:PORT, ipc://PATH or "
                          "inproc://NAME",
                          endpoint);
    case ENAMETOOLONG:
        return lh_err_set(LH_ECONFIG, "%s: the path of a local socket is limited to 107 bytes",
                          endpoint);
    case EMFILE:
        return lh_err_set(LH_EIO, "%s: %s: too many open files; raise ulimit -n", endpoint, what);
    default:
        if (e < ZMQ_HAUSNUMERO)
            return lh_err_errno(e, "%s: %s", endpoint, what);
        return lh_err_set(LH_EIO, "%s: %s: %s", endpoint, what, zmq_strerror(e));
    }
}

int lh_net_context(void **out, uint32_t io_threads)
{
    *out = zmq_ctx_new();
    if (!*out)
        return lh_err_set(LH_ENOMEM, "no memory for the network");
    zmq_ctx_set(*out, ZMQ_IO_THREADS, (int)io_threads);
    zmq_ctx_set(*out, ZMQ_MAX_SOCKETS, zmq_ctx_get(*out, ZMQ_SOCKET_LIMIT));
    return 0;
}

static int set_int(struct lh_net_socket *s, int option, int value)
{
    return zmq_setsockopt(s->zmq, option, &value, sizeof value) == 0
               ? 0
               : lh_net_failed("setting up a socket", s->endpoint);
}

static int set_bytes(struct lh_net_socket *s, int option, const void *value, size_t n)
{
    return zmq_setsockopt(s->zmq, option, value, n) == 0
               ? 0
               : lh_net_failed("setting up a socket", s->endpoint);
}

/* What is between hosts goes in the clear only where somebody says so. */
static int check_clear(const char *endpoint, const struct lh_security *security)
{
    if (lh_security_is_local(endpoint) || (security && security->insecure))
        return 0;
    return lh_err_set(LH_ECONFIG,
                      "%s: between hosts longhaul speaks with keys: make them with 'longhaul "
                      "keygen' and give every role its file by --keys, or go in the clear by "
                      "--insecure",
                      endpoint);
}

static int set_curve(struct lh_net_socket *s, const struct lh_net_address *to,
                     const struct lh_security *security)
{
    s->curve = true;
    LH_TRY(set_bytes(s, ZMQ_CURVE_SECRETKEY, security->keys->secret, LH_KEY_SIZE));
    LH_TRY(set_int(s, ZMQ_HANDSHAKE_IVL, LH_NET_HANDSHAKE_SECONDS * 1000));
    if (s->router) {
        LH_TRY(set_int(s, ZMQ_CURVE_SERVER, 1));
        /* Without a domain ZeroMQ asks nobody and lets everyone in. */
        LH_TRY(set_bytes(s, ZMQ_ZAP_DOMAIN, "longhaul", 8));
        s->guard = security->guard;
        return lh_guard_watch(security->guard, s->zmq);
    }
    if (!to->key || !*to->key)
        return lh_err_set(LH_ECONFIG,
                          "%s: the public key of the %s there is not known; does it have keys?",
                          s->endpoint, lh_keys_role_name(to->role));
    LH_TRY(set_bytes(s, ZMQ_CURVE_PUBLICKEY, security->keys->own.key, LH_KEY_SIZE));
    return set_bytes(s, ZMQ_CURVE_SERVERKEY, to->key, LH_KEY_SIZE);
}

static int set_tcp(struct lh_net_socket *s)
{
    LH_TRY(set_int(s, ZMQ_TCP_MAXRT, STUCK_MS));
    LH_TRY(set_int(s, ZMQ_TCP_KEEPALIVE, 1));
    LH_TRY(set_int(s, ZMQ_TCP_KEEPALIVE_IDLE, PROBE_AFTER));
    LH_TRY(set_int(s, ZMQ_TCP_KEEPALIVE_INTVL, PROBE_AFTER));
    LH_TRY(set_int(s, ZMQ_TCP_KEEPALIVE_CNT, PROBES));
    return set_int(s, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
}

bool lh_net_is_inproc(const char *endpoint)
{
    return strncmp(endpoint, "inproc:", 7) == 0;
}

static int set_up(struct lh_net_socket *s, void *zmq, const struct lh_net_address *to, int queue,
                  const struct lh_security *security)
{
    const int64_t frame_max = FRAME_MAX;
    const bool inproc = lh_net_is_inproc(s->endpoint);
    LH_TRY(set_bytes(s, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max));
    LH_TRY(set_int(s, ZMQ_SNDHWM, queue));
    LH_TRY(set_int(s, ZMQ_RCVHWM, s->router && queue > LH_NET_INBOX ? LH_NET_INBOX : queue));
    LH_TRY(set_int(s, ZMQ_LINGER, LINGER_MS));
    LH_TRY(set_int(s, ZMQ_IPV6, strchr(s->endpoint, '[') != NULL));
    if (s->router)
        LH_TRY(set_int(s, ZMQ_ROUTER_MANDATORY, 1));
    if (strncmp(s->endpoint, "tcp:", 4) == 0)
        LH_TRY(set_tcp(s));
    if (!s->router && !inproc)
        LH_TRY(lh_net_monitor(s, zmq));
    if (security && security->keys && !inproc)
        return set_curve(s, to, security);
    return check_clear(s->endpoint, security);
}

/* `to` has an endpoint only on a ROUTER. */
static int open_socket(struct lh_net_socket **out, void *zmq, int type,
                       const struct lh_net_address *to, int queue,
                       const struct lh_security *security)
{
    struct lh_net_socket *s = NULL;
    const char *endpoint = to->endpoint;
    int rc = 0;
    LH_TRY(LH_NEW(&s, "socket"));
    s->router = type == ZMQ_ROUTER;
    s->other = to->role;
    snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
    if (strlen(endpoint) >= sizeof s->endpoint) {
        rc = lh_err_set(LH_ECONFIG, "%.60s…: an endpoint is limited to %d bytes", endpoint,
                        LH_NET_ENDPOINT_MAX - 1);
        goto fail;
    }
    s->zmq = zmq_socket(zmq, type);
    if (!s->zmq) {
        rc = lh_net_failed("opening a socket", endpoint);
        goto fail;
    }
    LH_TRY_TO(fail, set_up(s, zmq, to, queue, security));
    if ((s->router ? zmq_bind(s->zmq, endpoint) : zmq_connect(s->zmq, endpoint)) != 0) {
        rc = lh_net_failed(s->router ? "listening" : "connecting", endpoint);
        goto fail;
    }
    size_t n = sizeof s->endpoint;
    if (s->router && zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, s->endpoint, &n) != 0) {
        rc = lh_net_failed("listening", endpoint);
        goto fail;
    }
    n = sizeof s->fd;
    if (zmq_getsockopt(s->zmq, ZMQ_FD, &s->fd, &n) != 0) {
        rc = lh_net_failed("opening a socket", endpoint);
        goto fail;
    }
    *out = s;
    return 0;
fail:
    lh_net_close(&s);
    return rc;
}

int lh_net_dealer(struct lh_net_socket **out, void *zmq, const struct lh_net_address *to, int queue,
                  const struct lh_security *security)
{
    return open_socket(out, zmq, ZMQ_DEALER, to, queue, security);
}

int lh_net_router(struct lh_net_socket **out, void *zmq, const char *endpoint, int queue,
                  const struct lh_security *security)
{
    return open_socket(out, zmq, ZMQ_ROUTER, &(struct lh_net_address){.endpoint = endpoint}, queue,
                       security);
}

void lh_net_close(struct lh_net_socket **s)
{
    if (!*s)
        return;
    lh_net_monitor_close(*s);
    if ((*s)->zmq)
        zmq_close((*s)->zmq);
    lh_mem_free((*s)->met);
    lh_mem_free(*s);
    *s = NULL;
}
