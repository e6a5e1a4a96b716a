/* The connections behind a socket: what ZeroMQ tells of a DEALER's, which is made anew where ZeroMQ
 * gives up; how a ROUTER's are ended; room for what is on its way between processes. */
#include "common/net_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <xxhash.h>

#define RECONNECT_AFTER 1.0  /* seconds: a connection that broke for good */
#define MONITOR_EVERY   0.02 /* seconds */
/* Bytes that may wait in the kernel between processes of a host: two pieces. A unix socket has room
 * for 200 KB by itself, so that sender and receiver of a piece would put each other to sleep and
 * wake each other five times. TCP's room grows by itself, and would not any more if it were set. */
#define ROOM (2 * (int)(LH_WIRE_PIECE * sizeof(float)))

/* ZeroMQ tells of a connection's end on a socket of its own. */
int lh_net_monitor(struct lh_net_socket *s, void *zmq)
{
    char endpoint[64];
    int unbounded = 0, linger = 0;
    snprintf(endpoint, sizeof endpoint, "inproc://longhaul-dealer-%p", s->zmq);
    if (zmq_socket_monitor(s->zmq, endpoint,
                           ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED |
                               ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) !=
        0)
        return lh_net_failed("setting up a socket", s->endpoint);
    s->monitor = zmq_socket(zmq, ZMQ_PAIR);
    /* A full queue would stop the network's own thread. */
    if (!s->monitor || zmq_setsockopt(s->monitor, ZMQ_RCVHWM, &unbounded, sizeof unbounded) != 0 ||
        zmq_setsockopt(s->monitor, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_connect(s->monitor, endpoint) != 0)
        return lh_net_failed("setting up a socket", s->endpoint);
    return 0;
}

/* ZeroMQ's own thread writes events to the monitor, and would wait for ever for a reader that has
 * gone: first there are no more events, then no reader. */
void lh_net_monitor_close(struct lh_net_socket *s)
{
    if (!s->monitor)
        return;
    zmq_socket_monitor(s->zmq, NULL, 0);
    zmq_close(s->monitor);
}

/* The kernel gives at most net.core.wmem_max. */
static void give_room(int fd)
{
    const int room = ROOM;
    int domain = 0;
    socklen_t n = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
}

static void take_event(struct lh_net_socket *s, uint16_t event, int32_t value)
{
    switch (event) {
    case ZMQ_EVENT_CONNECTED:
        s->broken = 0;
        give_room(value);
        break;
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

/* ZeroMQ ends a connection for good when the other end refuses the key or the bytes make no sense;
 * to us both may pass: the list grows, the network heals. */
int lh_net_mend(struct lh_net_socket *s)
{
    unsigned char head[6];
    uint16_t event;
    int32_t value;
    char endpoint[LH_NET_ENDPOINT_MAX];
    const double now = s->monitor ? lh_now() : 0;
    if (!s->monitor || now - s->looked < MONITOR_EVERY)
        return 0;
    s->looked = now;
    while (zmq_recv(s->monitor, head, sizeof head, ZMQ_DONTWAIT) == (int)sizeof head) {
        zmq_recv(s->monitor, endpoint, sizeof endpoint, 0);
        memcpy(&event, head, sizeof event);
        memcpy(&value, head + sizeof event, sizeof value);
        take_event(s, event, value);
    }
    if (s->broken == 0 || lh_now() - s->broken < RECONNECT_AFTER)
        return 0;
    s->broken = 0;
    s->quiet = false;                    /* as of a message that is sent */
    zmq_disconnect(s->zmq, s->endpoint); /* in case it is not quite gone */
    return zmq_connect(s->zmq, s->endpoint) == 0 ? 0 : lh_net_failed("connecting", s->endpoint);
}

void lh_net_meet(struct lh_net_socket *s, const struct lh_net_peer *peer)
{
    const size_t fd = (size_t)peer->fd, cap = s->cap_met;
    if (peer->fd < 0)
        return;
    /* ZeroMQ gives each connection a name of its own, the kernel gives descriptors again. */
    const uint64_t who = XXH3_64bits(peer->id, peer->size);
    if (fd < cap && s->met[fd] == who)
        return;
    if (LH_GROW(&s->met, &s->cap_met, fd + 1, "connections") < 0)
        return; /* it is slower so */
    memset(s->met + cap, 0, (s->cap_met - cap) * sizeof *s->met);
    s->met[fd] = who;
    give_room(peer->fd);
}

bool lh_net_refused(const struct lh_net_socket *s)
{
    return s->refused;
}

uint64_t lh_net_breaks(const struct lh_net_socket *s)
{
    return s->breaks;
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
