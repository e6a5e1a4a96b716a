/* Control messages that must arrive, once and in order, over connections that may break: when one
 * does, ZeroMQ makes another, but what was under way is lost. The sender numbers its messages (the
 * envelope's `request`, from 1 on) and keeps them until the other end says, in its beats, up to
 * which number it has them; what it has not after a while is sent again. The receiver takes the
 * next number only: what it has already, and what comes before something that was lost, it drops.
 * Number 0 is a message outside of this order, which may be lost: a beat, a hello, a goodbye. */
#pragma once

#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_OUTBOX_MAX  16384 /* messages that may wait to be acknowledged */
#define LH_OUTBOX_ROOM 128   /* up to so many there is room for what can itself wait */
#define LH_OUTBOX_SAY  16    /* messages taken: then it is said without waiting for the next beat */

struct lh_outbox_slot;

/* All-zero is an empty one. */
struct lh_outbox {
    struct lh_outbox_slot *slots; /* ring; grows when it must, its buffers are used again */
    size_t first, n, cap;
    uint64_t last;  /* number of the newest */
    double sent_at; /* when the oldest was sent last; lh_now() */
};

void lh_outbox_fini(struct lh_outbox *o); /* idempotent */

/* Sends a message, which is copied, and keeps it. What the network does not take now, or loses, it
 * is given again. Errors: LH_ENOMEM; those of lh_net_send. LH_AGAIN: LH_OUTBOX_MAX wait already,
 * nothing happened. */
int lh_outbox_send(struct lh_outbox *o, struct lh_net_socket *s, const struct lh_net_peer *to,
                   const struct lh_envelope *env, const struct lh_net_part *parts, size_t n);
/* The other end has all up to `number`. What it has not, and was sent more than `patience` seconds
 * ago, is sent again. */
int lh_outbox_acknowledged(struct lh_outbox *o, uint64_t number, struct lh_net_socket *s,
                           const struct lh_net_peer *to, double patience);

struct lh_inbox {
    uint64_t last;  /* has all up to here: to be said in beats */
    unsigned taken; /* since that was said last */
};

/* Whether to take a message of this number. */
bool lh_inbox_takes(struct lh_inbox *in, uint64_t number);
