/* Two roles on one thread: where the first would wait, the second gets a turn. So a thread that
 * carries a worker and a shard is never idle while either has something to do, no message between
 * threads has to wake anybody for that, and there are no more busy threads than cores. The first
 * role knows nothing of the second but this. */
#pragma once

#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>

struct lh_companion {
    void *ctx;
    /* Takes in what has come and waits for nothing. Tells whether there was anything. How it fails
     * is its own business. */
    bool (*turn)(void *ctx);
    /* Its sockets, to be waited for beside one's own; at most `max`. Returns how many; 0 once it
     * has ended. */
    size_t (*sockets)(void *ctx, struct lh_net_poll *out, size_t max);
    double (*patience)(void *ctx); /* seconds until it wants a turn though nothing came */
    double spin; /* seconds to look again and again before blocking; 0 where cores are short */
};

/* lh_net_poll over one's own sockets and the companion's (NULL: none). May return before `seconds`
 * without any of one's own. Gives no turn. */
int lh_companion_poll(const struct lh_companion *c, struct lh_net_poll *own, size_t n,
                      double seconds);
