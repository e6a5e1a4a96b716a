/* Which worker a server's message is from. Messages claim a number; keys are proven; the scheduler
 * says which belong together. Where there are keys, a worker is heard under its own number only. */
#pragma once

#include "common/net.h"

#include <stddef.h>
#include <stdint.h>

/* All-zero is an empty one. */
struct lh_members {
    char (*keys)[LH_KEY_SIZE]; /* [n] by number; "" of who is no worker */
    size_t n, cap;
};

void lh_members_fini(struct lh_members *m); /* idempotent */

/* Takes what a MEMBERS message says. Errors: LH_EPROTO, LH_ENOMEM. */
int lh_members_take(struct lh_members *m, const struct lh_net_message *msg);
/* Whether who sent a message may send it as the node that it names: a worker as itself, the
 * evaluation as node 0. In the clear nobody can tell, and all may. Errors: LH_EPROTO. */
int lh_members_check(const struct lh_members *m, const struct lh_net_message *msg);
