/* ZeroMQ sockets that carry envelopes and frames, which go without a copy. What the frames mean is
 * left to the roles, but not who may send them. */
#include "common/net_internal.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

/* Seconds for which nobody asks again of a socket that a poll has found empty. Who polls, then
 * computes, then looks again is to find what has come meanwhile. */
#define SEEN_HOLDS 20e-6

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

const char *lh_net_endpoint(const struct lh_net_socket *s)
{
    return s->endpoint;
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
        return lh_net_failed("sending", s->endpoint);
    }
}

int lh_net_send(struct lh_net_socket *s, const struct lh_net_peer *to,
                const struct lh_envelope *env, const struct lh_net_part *parts, size_t n)
{
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    size_t size = lh_wire_encode(env, bytes);
    s->seen = 0;
    s->quiet = false; /* ZeroMQ may take in on the way what it would have told */
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
            int failed = zmq_errno() == ETERM ? lh_net_failed("sending", s->endpoint) : LH_NOTFOUND;
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

/* --- receiving ---------------------------------------------------------------------------------
 */
static bool first_note(struct lh_net_socket *s, const struct lh_net_peer *peer)
{
    uint64_t h = XXH3_64bits(peer->id, peer->size);
    for (size_t i = 0; i < s->n_noted; i++)
        if (s->noted[i] == h)
            return false;
    if (s->n_noted == LH_NET_NOTED)
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
        s->quiet = e == EAGAIN;
        return e == EAGAIN || e == EINTR ? LH_AGAIN : lh_net_failed("receiving", s->endpoint);
    }
    s->quiet = false;
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
    if (s->router) {
        m->peer.fd = zmq_msg_get(&frame, ZMQ_SRCFD);
        lh_net_meet(s, &m->peer);
    }
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
    const double seen = s->seen;
    s->seen = 0;
    if (seen > 0 && lh_now() - seen < SEEN_HOLDS) {
        LH_TRY(lh_net_mend(s));
        return LH_AGAIN;
    }
    /* A flood of bad messages must not keep a role from its other work. */
    for (int tries = 0; tries < 100; tries++) {
        rc = recv_one(s, m);
        if (s->guard && rc != LH_AGAIN)
            lh_guard_heard(s->guard, m->peer.fd);
        else if (s->guard)
            lh_guard_emptied(s->guard);
        if (rc == LH_AGAIN)
            LH_TRY(lh_net_mend(s));
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

/* Now, not when it is used: the guard counts on what is empty then. */
static void see_nothing(struct lh_net_socket *s)
{
    s->seen = lh_now();
    if (s->guard)
        lh_guard_emptied(s->guard);
}

/* What a socket has for us ZeroMQ says only when it is asked, which costs three system calls; its
 * descriptor tells when to ask again. */
static int ask(struct lh_net_poll *item)
{
    struct lh_net_socket *s = item->socket;
    int events;
    size_t size = sizeof events;
    if (zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size) != 0)
        return lh_net_failed("waiting", s->endpoint);
    item->in = (events & ZMQ_POLLIN) != 0;
    item->out = item->want_out && (events & ZMQ_POLLOUT);
    s->quiet = !item->in;
    s->seen = 0;
    if (!item->in)
        see_nothing(s);
    return 0;
}

static int look(struct lh_net_poll *items, size_t n, bool waits, bool *any)
{
    *any = false;
    for (size_t i = 0; i < n; i++) {
        items[i].in = items[i].out = false;
        if (!waits || items[i].want_out || !items[i].socket->quiet)
            LH_TRY(ask(&items[i]));
        *any = *any || items[i].in || items[i].out;
    }
    return 0;
}

/* After a wait: only those that have something to tell. */
static int look_again(struct lh_net_poll *items, const struct pollfd *fds, size_t n, bool *any)
{
    for (size_t i = 0; i < n; i++) {
        if (fds[i].revents)
            LH_TRY(ask(&items[i]));
        else
            see_nothing(items[i].socket);
        *any = *any || items[i].in || items[i].out;
    }
    return 0;
}

/* zmq_poll does the same, but looks at everything twice before it waits, and again behind it. */
int lh_net_poll(struct lh_net_poll *items, size_t n, double seconds)
{
    struct pollfd fds[LH_NET_POLL_MAX];
    const double until = lh_now() + seconds;
    double left = seconds;
    bool any;
    if (n > LH_NET_POLL_MAX)
        return lh_err_set(LH_ERANGE, "polling %zu sockets: the limit is %d", n, LH_NET_POLL_MAX);
    LH_TRY(look(items, n, left > 0, &any));
    for (size_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = items[i].socket->fd, .events = POLLIN};
    while (!any && left > 0) {
        const struct timespec wait = {.tv_sec = (time_t)left,
                                      .tv_nsec = (long)(1e9 * (left - (double)(time_t)left))};
        int ready = ppoll(fds, n, &wait, NULL);
        if (ready < 0 && errno != EINTR)
            return lh_err_errno(errno, "waiting for messages");
        if (ready < 0)
            break; /* a signal: somebody may want to know */
        LH_TRY(look_again(items, fds, n, &any));
        left = until - lh_now();
    }
    return 0;
}
