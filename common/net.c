/* ZeroMQ sockets that carry envelopes and frames. Bounded queues (high-water marks), no silent drop
 * (ROUTER_MANDATORY), zero-copy frames; CURVE where there are keys. What the frames mean is left to
 * the roles, but not who may send them. */
#include "common/net.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <xxhash.h>

/* A frame above this is not from us: pieces are 1 MB, bodies at most 4 MB. */
#define FRAME_MAX   (8 << 20)
#define LINGER_MS   1000
#define NOTED_PEERS 64
/* tcp: a peer that has taken nothing for so long is cut off, and what waits for it released. */
#define STUCK_MS 30000
/* tcp: an idle connection is probed by the kernel; one that answers no probe is gone, after half a
 * minute. Not ZeroMQ's own heartbeat: in 4.3.4 its timer ends the process (an assertion) when a
 * connection breaks whose messages wait for a full inbox to be read. */
#define PROBE_AFTER      5 /* seconds */
#define PROBES           5
#define RECONNECT_MAX_MS 2000
#define RECONNECT_AFTER  1.0  /* seconds: a connection that broke for good */
#define MONITOR_EVERY    0.02 /* seconds */

/* ThreadSanitizer does not see into libzmq: what is sent happens before what is received. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
static const char order;
#define ORDER_SENT()     __tsan_release((void *)(uintptr_t)&order)
#define ORDER_RECEIVED() __tsan_acquire((void *)(uintptr_t)&order)
#else
#define ORDER_SENT()     ((void)0)
#define ORDER_RECEIVED() ((void)0)
#endif

struct lh_net_socket {
    void *zmq;
    bool router, curve;
    struct lh_guard *guard; /* ROUTER with keys */
    Lh__Role other;         /* DEALER: who listens at the other end */
    void *monitor;          /* DEALER, not inproc: events of the connection */
    double broken;          /* seconds, when it broke and ZeroMQ did not try again; 0: it stands */
    bool refused;
    double looked; /* seconds, when the monitor was last asked */
    int fd;        /* readable when ZeroMQ has something to tell */
    uint64_t breaks;
    uint64_t job; /* 0: any */
    struct lh_net_counts counts;
    char endpoint[LH_NET_ENDPOINT_MAX];
    uint64_t noted[NOTED_PEERS]; /* hashes of peers whose malformed message was noted */
    size_t n_noted;
};

static int zmq_failed(const char *what, const char *endpoint)
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
               : zmq_failed("setting up a socket", s->endpoint);
}

static int set_bytes(struct lh_net_socket *s, int option, const void *value, size_t n)
{
    return zmq_setsockopt(s->zmq, option, value, n) == 0
               ? 0
               : zmq_failed("setting up a socket", s->endpoint);
}

/* --- opening -----------------------------------------------------------------------------------
 */
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

/* ZeroMQ tells of a connection's end on a socket of its own. */
static int open_monitor(struct lh_net_socket *s, void *zmq)
{
    char endpoint[64];
    int unbounded = 0, linger = 0;
    snprintf(endpoint, sizeof endpoint, "inproc://longhaul-dealer-%p", s->zmq);
    if (zmq_socket_monitor(s->zmq, endpoint,
                           ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED |
                               ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) !=
        0)
        return zmq_failed("setting up a socket", s->endpoint);
    s->monitor = zmq_socket(zmq, ZMQ_PAIR);
    /* A full queue would stop the network's own thread. */
    if (!s->monitor || zmq_setsockopt(s->monitor, ZMQ_RCVHWM, &unbounded, sizeof unbounded) != 0 ||
        zmq_setsockopt(s->monitor, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_connect(s->monitor, endpoint) != 0)
        return zmq_failed("setting up a socket", s->endpoint);
    return 0;
}

static int set_up(struct lh_net_socket *s, void *zmq, const struct lh_net_address *to, int queue,
                  const struct lh_security *security)
{
    const int64_t frame_max = FRAME_MAX;
    const bool inproc = strncmp(s->endpoint, "inproc:", 7) == 0;
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
        LH_TRY(open_monitor(s, zmq));
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
        rc = zmq_failed("opening a socket", endpoint);
        goto fail;
    }
    LH_TRY_TO(fail, set_up(s, zmq, to, queue, security));
    if ((s->router ? zmq_bind(s->zmq, endpoint) : zmq_connect(s->zmq, endpoint)) != 0) {
        rc = zmq_failed(s->router ? "listening" : "connecting", endpoint);
        goto fail;
    }
    size_t n = sizeof s->endpoint;
    if (s->router && zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, s->endpoint, &n) != 0) {
        rc = zmq_failed("listening", endpoint);
        goto fail;
    }
    n = sizeof s->fd;
    if (zmq_getsockopt(s->zmq, ZMQ_FD, &s->fd, &n) != 0) {
        rc = zmq_failed("opening a socket", endpoint);
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
    /* ZeroMQ's own thread writes events to the monitor, and would wait for ever for a reader that
     * has gone: first there are no more events, then no reader. */
    if ((*s)->monitor) {
        zmq_socket_monitor((*s)->zmq, NULL, 0);
        zmq_close((*s)->monitor);
    }
    if ((*s)->zmq)
        zmq_close((*s)->zmq);
    lh_mem_free(*s);
    *s = NULL;
}

const char *lh_net_endpoint(const struct lh_net_socket *s)
{
    return s->endpoint;
}

bool lh_net_refused(const struct lh_net_socket *s)
{
    return s->refused;
}

uint64_t lh_net_breaks(const struct lh_net_socket *s)
{
    return s->breaks;
}

void lh_net_expect(struct lh_net_socket *s, uint64_t job)
{
    s->job = job;
}

struct lh_net_counts lh_net_counts(const struct lh_net_socket *s)
{
    return s->counts;
}

void lh_net_counts_add(struct lh_net_counts *sum, const struct lh_net_socket *s)
{
    sum->dropped += s->counts.dropped;
    sum->bytes_in += s->counts.bytes_in;
    sum->bytes_out += s->counts.bytes_out;
    sum->messages_in += s->counts.messages_in;
    sum->messages_out += s->counts.messages_out;
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t n = sizeof cookie;
    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n) == 0 ? cookie : 0;
}

struct lh_net_connection lh_net_connection_of(const struct lh_net_peer *peer)
{
    return (struct lh_net_connection){.fd = peer->fd, .cookie = cookie_of(peer->fd)};
}

void lh_net_cut_off(const struct lh_net_connection *connection)
{
    if (connection->cookie && cookie_of(connection->fd) == connection->cookie)
        shutdown(connection->fd, SHUT_RDWR); /* ZeroMQ finds it ended, and closes it */
}

/* --- sending -----------------------------------------------------------------------------------
 */
static void release_parts(const struct lh_net_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (parts[i].release)
            parts[i].release((void *)(uintptr_t)parts[i].data, parts[i].hint);
}

/* That the other end has taken messages ZeroMQ learns from a command, and it looks for commands now
 * and then only: a fast sender can meet a queue that is full no more. Asking for events looks. */
static int send_frame(struct lh_net_socket *s, const void *data, size_t n, int flags)
{
    int events;
    size_t size = sizeof events;
    int sent = zmq_send(s->zmq, data, n, flags | ZMQ_DONTWAIT);
    if (sent < 0 && zmq_errno() == EAGAIN &&
        zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size) == 0)
        sent = zmq_send(s->zmq, data, n, flags | ZMQ_DONTWAIT);
    return sent;
}

/* First frame of a message: the only one that can meet a full queue. */
static int send_first(struct lh_net_socket *s, const void *data, size_t n, int flags)
{
    if (send_frame(s, data, n, flags) >= 0)
        return 0;
    switch (zmq_errno()) {
    case EAGAIN:
    case EINTR:
        return LH_AGAIN;
    case EHOSTUNREACH:
        return LH_NOTFOUND;
    default:
        return zmq_failed("sending", s->endpoint);
    }
}

int lh_net_send(struct lh_net_socket *s, const struct lh_net_peer *to,
                const struct lh_envelope *env, const struct lh_net_part *parts, size_t n)
{
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    size_t size = lh_wire_encode(env, bytes);
    ORDER_SENT();
    int rc = to ? send_first(s, to->id, to->size, ZMQ_SNDMORE) : 0;
    if (rc == 0)
        rc = send_first(s, bytes, size, n ? ZMQ_SNDMORE : 0);
    if (rc != 0) {
        if (rc != LH_AGAIN)
            release_parts(parts, n);
        return rc;
    }
    s->counts.messages_out++;
    s->counts.bytes_out += size;
    /* The queue took the first frame, so it takes the rest; a failure here means that the peer went
     * away in between, and ZeroMQ drops the whole message. */
    for (size_t i = 0; i < n; i++) {
        zmq_msg_t m;
        int made = parts[i].release
                       ? zmq_msg_init_data(&m, (void *)(uintptr_t)parts[i].data, parts[i].size,
                                           parts[i].release, parts[i].hint)
                       : zmq_msg_init_size(&m, parts[i].size);
        if (made != 0) {
            release_parts(parts + i, n - i);
            return lh_err_set(LH_ENOMEM, "%s: no memory for a frame of %zu bytes", s->endpoint,
                              parts[i].size);
        }
        if (!parts[i].release && parts[i].size)
            memcpy(zmq_msg_data(&m), parts[i].data, parts[i].size);
        s->counts.bytes_out += parts[i].size;
        ORDER_SENT();
        if (zmq_msg_send(&m, s->zmq, ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)) < 0) {
            int failed = zmq_errno() == ETERM ? zmq_failed("sending", s->endpoint) : LH_NOTFOUND;
            zmq_msg_close(&m); /* releases this part */
            release_parts(parts + i + 1, n - i - 1);
            return failed;
        }
    }
    return 0;
}

int lh_net_send_body(struct lh_net_socket *s, const struct lh_net_peer *to,
                     const struct lh_envelope *env, const ProtobufCMessage *body)
{
    unsigned char small[1024]; /* a beat, which is sent while steps run, must not allocate */
    void *bytes = small;
    size_t n = protobuf_c_message_get_packed_size(body);
    if (n <= sizeof small)
        protobuf_c_message_pack(body, small);
    else
        LH_TRY(lh_wire_pack(body, &bytes, &n));
    struct lh_net_part part = {.data = bytes, .size = n};
    int rc = lh_net_send(s, to, env, &part, 1);
    if (bytes != small)
        lh_mem_free(bytes);
    return rc;
}

/* --- a connection that broke ---------------------------------------------------------------------
 */
static void take_event(struct lh_net_socket *s, uint16_t event)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        s->refused = true;
        break;
    case ZMQ_EVENT_DISCONNECTED: /* what follows tells whether ZeroMQ tries again */
        s->broken = lh_now();
        s->breaks++;
        break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        s->refused = false;
        s->broken = 0;
        break;
    default:
        s->broken = 0;
    }
}

/* Called where nothing comes. ZeroMQ ends a connection for good when the other end refuses the key
 * or the bytes make no sense; to us both may pass: the list grows, the network heals. */
static int mend(struct lh_net_socket *s)
{
    unsigned char head[6];
    uint16_t event;
    char endpoint[LH_NET_ENDPOINT_MAX];
    const double now = s->monitor ? lh_now() : 0;
    if (!s->monitor || now - s->looked < MONITOR_EVERY)
        return 0;
    s->looked = now;
    while (zmq_recv(s->monitor, head, sizeof head, ZMQ_DONTWAIT) == (int)sizeof head) {
        zmq_recv(s->monitor, endpoint, sizeof endpoint, 0);
        memcpy(&event, head, sizeof event);
        take_event(s, event);
    }
    if (s->broken == 0 || lh_now() - s->broken < RECONNECT_AFTER)
        return 0;
    s->broken = 0;
    zmq_disconnect(s->zmq, s->endpoint); /* in case it is not quite gone */
    return zmq_connect(s->zmq, s->endpoint) == 0 ? 0 : zmq_failed("connecting", s->endpoint);
}

/* --- receiving ---------------------------------------------------------------------------------
 */
static bool first_note(struct lh_net_socket *s, const struct lh_net_peer *peer)
{
    uint64_t h = XXH3_64bits(peer->id, peer->size);
    for (size_t i = 0; i < s->n_noted; i++)
        if (s->noted[i] == h)
            return false;
    if (s->n_noted == NOTED_PEERS)
        return false; /* enough lines about bad peers; the counter goes on */
    s->noted[s->n_noted++] = h;
    return true;
}

static void drop(struct lh_net_socket *s, const struct lh_net_peer *peer)
{
    s->counts.dropped++;
    if (first_note(s, peer))
        lh_log_tell(LH_LOG_WARN, "reject",
                    LH_FIELDS(LH_F("endpoint", s->endpoint), LH_F("reason", lh_err_text())),
                    "%s: dropped a message: %s (later ones of this peer are only counted)",
                    s->endpoint, lh_err_text());
}

void lh_net_reject(struct lh_net_socket *s, const struct lh_net_message *m)
{
    drop(s, &m->peer);
}

/* Receives one frame. `more` tells whether the message goes on. */
static int recv_frame(struct lh_net_socket *s, zmq_msg_t *m, bool *more)
{
    zmq_msg_init(m);
    if (zmq_msg_recv(m, s->zmq, ZMQ_DONTWAIT) < 0) {
        int e = zmq_errno();
        zmq_msg_close(m);
        return e == EAGAIN || e == EINTR ? LH_AGAIN : zmq_failed("receiving", s->endpoint);
    }
    ORDER_RECEIVED();
    s->counts.bytes_in += zmq_msg_size(m);
    *more = zmq_msg_more(m) != 0;
    return 0;
}

static int drain(struct lh_net_socket *s, bool more)
{
    while (more) {
        zmq_msg_t m;
        LH_TRY(recv_frame(s, &m, &more));
        zmq_msg_close(&m);
    }
    return 0;
}

/* A version mismatch is let through where it has an answer: at the hello, and in the refusal. */
static int decode(struct lh_net_socket *s, zmq_msg_t *frame, struct lh_envelope *env)
{
    int rc = lh_wire_decode(zmq_msg_data(frame), zmq_msg_size(frame), env);
    if (rc == LH_EMISMATCH &&
        (env->kind == LH__KIND__KIND_HELLO || env->kind == LH__KIND__KIND_REFUSED))
        return 0;
    LH_TRY(rc);
    if (s->job && env->job != s->job && env->kind != LH__KIND__KIND_HELLO)
        return lh_err_set(LH_EPROTO, "a %s of another job", lh_wire_kind_name(env->kind));
    return 0;
}

/* Who sent it, and whether it may. */
static int identify(struct lh_net_socket *s, zmq_msg_t *frame, struct lh_net_message *m)
{
    m->role = s->other;
    m->key[0] = '\0';
    if (s->router && s->curve) {
        const char *mark = zmq_msg_gets(frame, "User-Id");
        if (!mark || strlen(mark) != LH_GUARD_MARK_SIZE - 1)
            return lh_err_set(LH_EPROTO, "a message of a peer that nobody let in");
        m->role = (Lh__Role)(mark[0] - '0');
        memcpy(m->key, mark + 1, LH_KEY_SIZE);
    }
    if (m->role != LH__ROLE__ROLE_NONE && !lh_security_may_send(m->role, m->env.kind))
        return lh_err_set(LH_EPROTO, "a %s from a %s, which has no right to send it",
                          lh_wire_kind_name(m->env.kind), lh_keys_role_name(m->role));
    return 0;
}

/* 0; LH_AGAIN: nothing there; LH_NOTFOUND: one message came and was dropped. */
static int recv_one(struct lh_net_socket *s, struct lh_net_message *m)
{
    zmq_msg_t frame;
    bool more = false;
    m->n = 0;
    m->peer.size = 0;
    m->peer.fd = -1;
    int rc = recv_frame(s, &frame, &more);
    if (rc != 0)
        return rc;
    if (s->router) {
        size_t n = zmq_msg_size(&frame);
        m->peer.size = n < LH_NET_PEER_MAX ? n : LH_NET_PEER_MAX;
        memcpy(m->peer.id, zmq_msg_data(&frame), m->peer.size);
        zmq_msg_close(&frame);
        if (!more)
            return LH_NOTFOUND;
        if ((rc = recv_frame(s, &frame, &more)) != 0)
            return rc;
    }
    m->peer.fd = s->router ? zmq_msg_get(&frame, ZMQ_SRCFD) : -1;
    s->counts.messages_in++;
    rc = decode(s, &frame, &m->env);
    if (rc >= 0)
        rc = identify(s, &frame, m);
    zmq_msg_close(&frame);
    if (rc < 0) {
        drop(s, &m->peer);
        LH_TRY(drain(s, more));
        return LH_NOTFOUND;
    }
    while (more) {
        if (m->n == LH_NET_FRAMES_MAX) {
            lh_err_set(LH_EPROTO, "a %s with more than %d frames", lh_wire_kind_name(m->env.kind),
                       LH_NET_FRAMES_MAX);
            drop(s, &m->peer);
            lh_net_message_fini(m);
            LH_TRY(drain(s, more));
            return LH_NOTFOUND;
        }
        if ((rc = recv_frame(s, &m->frame[m->n], &more)) != 0) {
            lh_net_message_fini(m);
            return rc;
        }
        m->n++;
    }
    return 0;
}

int lh_net_recv(struct lh_net_socket *s, struct lh_net_message *m)
{
    int rc;
    /* A flood of bad messages must not keep a role from its other work. */
    for (int tries = 0; tries < 100; tries++) {
        rc = recv_one(s, m);
        if (s->guard && rc != LH_AGAIN)
            lh_guard_heard(s->guard, m->peer.fd);
        if (rc == LH_AGAIN)
            LH_TRY(mend(s));
        if (rc != LH_NOTFOUND)
            return rc;
    }
    return LH_AGAIN;
}

void lh_net_message_fini(struct lh_net_message *m)
{
    for (size_t i = 0; i < m->n; i++)
        zmq_msg_close(&m->frame[i]);
    m->n = 0;
}

const void *lh_net_frame(const struct lh_net_message *m, size_t i, size_t *size)
{
    *size = i < m->n ? zmq_msg_size(&m->frame[i]) : 0;
    return i < m->n ? zmq_msg_data((zmq_msg_t *)(uintptr_t)&m->frame[i]) : NULL;
}

int lh_net_body(const struct lh_net_message *m, const ProtobufCMessageDescriptor *type,
                ProtobufCMessage **out)
{
    size_t n;
    const void *bytes = lh_net_frame(m, 0, &n);
    if (!bytes)
        return lh_err_set(LH_EPROTO, "a %s without a body", lh_wire_kind_name(m->env.kind));
    return lh_wire_unpack(out, type, bytes, n);
}

/* What a socket has for us ZeroMQ says only when it is asked; its descriptor tells when to ask
 * again. */
static int look(struct lh_net_poll *items, size_t n, bool *any)
{
    *any = false;
    for (size_t i = 0; i < n; i++) {
        const struct lh_net_socket *s = items[i].socket;
        int events;
        size_t size = sizeof events;
        if (zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size) != 0)
            return zmq_failed("waiting", s->endpoint);
        items[i].in = (events & ZMQ_POLLIN) != 0;
        items[i].out = items[i].want_out && (events & ZMQ_POLLOUT);
        *any = *any || items[i].in || items[i].out;
    }
    return 0;
}

/* zmq_poll does the same, but looks at everything twice before it waits. */
int lh_net_poll(struct lh_net_poll *items, size_t n, double seconds)
{
    struct pollfd fds[LH_NET_POLL_MAX];
    const double until = lh_now() + seconds;
    double left = seconds;
    bool any;
    if (n > LH_NET_POLL_MAX)
        return lh_err_set(LH_ERANGE, "polling %zu sockets: the limit is %d", n, LH_NET_POLL_MAX);
    LH_TRY(look(items, n, &any));
    for (size_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = items[i].socket->fd, .events = POLLIN};
    while (!any && left > 0) {
        const struct timespec wait = {.tv_sec = (time_t)left,
                                      .tv_nsec = (long)(1e9 * (left - (double)(time_t)left))};
        int ready = ppoll(fds, n, &wait, NULL);
        if (ready < 0 && errno != EINTR)
            return lh_err_errno(errno, "waiting for messages");
        LH_TRY(look(items, n, &any));
        left = ready < 0 ? 0 : until - lh_now(); /* a signal: somebody may want to know */
    }
    return 0;
}
