/* Waiting for two. */
#include "common/companion.h"

#include "common/err.h"

#include <string.h>

int lh_companion_poll(const struct lh_companion *c, struct lh_net_poll *own, size_t n,
                      double seconds)
{
    struct lh_net_poll all[LH_NET_POLL_MAX];
    if (!c || n > LH_NET_POLL_MAX)
        return lh_net_poll(own, n, seconds);
    double patience = c->patience(c->ctx);
    memcpy(all, own, n * sizeof *own);
    size_t others = c->sockets(c->ctx, all + n, LH_NET_POLL_MAX - n);
    LH_TRY(lh_net_poll(all, n + others, others && patience < seconds ? patience : seconds));
    memcpy(own, all, n * sizeof *own);
    return 0;
}
