/* What tests of roles share: sockets in one process, and messages awaited with a deadline. */
#pragma once

#include "common/net.h"
#include "common/term.h"
#include "tests/testkit.h"

/* A DEALER in the clear. */
static inline int rig_dial(struct lh_net_socket **out, void *zmq, const char *endpoint, int queue)
{
    return lh_net_dealer(out, zmq, &(struct lh_net_address){.endpoint = endpoint}, queue, NULL);
}

/* The next message, within 10 s. */
static inline void rig_receive(struct lh_net_socket *s, struct lh_net_message *m)
{
    double began = lh_now();
    int rc;
    while ((rc = lh_net_recv(s, m)) == LH_AGAIN && lh_now() - began < 10) {
        struct lh_net_poll poll = {.socket = s};
        assert_ok(lh_net_poll(&poll, 1, 0.1));
    }
    assert_ok(rc);
}

/* The next message is of this kind. */
static inline void rig_expect(struct lh_net_socket *s, struct lh_net_message *m, uint32_t kind)
{
    rig_receive(s, m);
    if (m->env.kind != kind)
        fail_msg("a %s where a %s was expected", lh_wire_kind_name(m->env.kind),
                 lh_wire_kind_name(kind));
}
