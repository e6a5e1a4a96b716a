/* The connections behind a socket: what ZeroMQ tells of a DEALER's, which is made anew where ZeroMQ
 * gives up, and the ends of a ROUTER's peers. */
#include "common/net_internal.h"

#include "common/err.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define RECONNECT_AFTER 1.0  /* seconds: a connection that broke for good */
#define MONITOR_EVERY   0.02 /* seconds */

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

/* ZeroMQ ends a connection for good when the other end refuses the key or the bytes make no sense;
 * to us both may pass: the list grows, the network heals. */
int lh_net_mend(struct lh_net_socket *s)
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
    return zmq_connect(s->zmq, s->endpoint) == 0 ? 0 : lh_net_failed("connecting", s->endpoint);
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
