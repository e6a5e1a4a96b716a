/* What the parts of a socket share: net_open.c makes it, net_link.c looks after its connections,
 * net.c sends, receives and waits. */
#pragma once

#include "common/net.h"

#define LH_NET_NOTED 64 /* peers of whom a malformed message is noted */

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
    bool quiet;    /* nothing was there, and the socket was not used since: what comes is told */
    double seen;   /* seconds, when lh_net_poll found that nothing is there; 0: used since */
    uint64_t breaks;
    uint64_t job; /* 0: any */
    struct lh_net_counts counts;
    char endpoint[LH_NET_ENDPOINT_MAX];
    uint64_t noted[LH_NET_NOTED]; /* hashes of peers whose malformed message was noted */
    size_t n_noted;
    uint64_t *met; /* [cap_met] ROUTER: by descriptor, hash of the peer whose connection has room */
    size_t cap_met;
};

/* The sentence for ZeroMQ's last error on this thread. */
int lh_net_failed(const char *what, const char *endpoint);

/* Has ZeroMQ tell of the connection of a DEALER that is about to connect. */
int lh_net_monitor(struct lh_net_socket *s, void *zmq);
/* Ends that, before the socket is closed. */
void lh_net_monitor_close(struct lh_net_socket *s);
/* To be called where nothing comes: takes in what has happened to the connection, and makes it anew
 * where ZeroMQ has given up. */
int lh_net_mend(struct lh_net_socket *s);
/* To be called when a peer of a ROUTER has spoken: gives a new connection room. */
void lh_net_meet(struct lh_net_socket *s, const struct lh_net_peer *peer);
