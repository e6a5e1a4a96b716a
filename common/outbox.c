/* Control messages, kept until they have arrived. Allocates while the ring warms up only. */
#include "common/outbox.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <string.h>

#define SLOTS 32 /* of a ring that is new */

struct lh_outbox_slot {
    struct lh_envelope env;
    size_t size[LH_NET_FRAMES_MAX], n;
    char *bytes; /* of all frames */
    size_t cap;
};

void lh_outbox_fini(struct lh_outbox *o)
{
    for (size_t i = 0; i < o->cap; i++)
        lh_mem_free(o->slots[i].bytes);
    lh_mem_free(o->slots);
    *o = (struct lh_outbox){0};
}

/* Room for one more: twice as many, in order, with the buffers they have. */
static int grow(struct lh_outbox *o)
{
    struct lh_outbox_slot *more = NULL;
    const size_t cap = o->cap ? 2 * o->cap : SLOTS;
    LH_TRY(LH_NEW_ARRAY(&more, cap, "messages under way"));
    for (size_t i = 0; i < o->cap; i++)
        more[i] = o->slots[(o->first + i) % o->cap];
    lh_mem_free(o->slots);
    o->slots = more;
    o->first = 0;
    o->cap = cap;
    return 0;
}

static int keep(struct lh_outbox_slot *slot, const struct lh_envelope *env,
                const struct lh_net_part *parts, size_t n)
{
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += parts[i].size;
    LH_TRY(LH_GROW(&slot->bytes, &slot->cap, all, "messages under way"));
    slot->env = *env;
    slot->n = n;
    all = 0;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].size)
            memcpy(slot->bytes + all, parts[i].data, parts[i].size);
        slot->size[i] = parts[i].size;
        all += parts[i].size;
    }
    return 0;
}

/* A queue that is full, or a peer that is gone, is no failure: it will be sent again. */
static int send_slot(const struct lh_outbox_slot *slot, struct lh_net_socket *s,
                     const struct lh_net_peer *to)
{
    struct lh_net_part parts[LH_NET_FRAMES_MAX];
    const char *at = slot->bytes;
    for (size_t i = 0; i < slot->n; at += slot->size[i++])
        parts[i] = (struct lh_net_part){.data = at, .size = slot->size[i]};
    int rc = lh_net_send(s, to, &slot->env, parts, slot->n);
    return rc < 0 ? rc : 0;
}

int lh_outbox_send(struct lh_outbox *o, struct lh_net_socket *s, const struct lh_net_peer *to,
                   const struct lh_envelope *env, const struct lh_net_part *parts, size_t n)
{
    struct lh_envelope numbered = *env;
    if (o->n == LH_OUTBOX_MAX)
        return LH_AGAIN;
    if (o->n == o->cap)
        LH_TRY(grow(o));
    struct lh_outbox_slot *slot = &o->slots[(o->first + o->n) % o->cap];
    numbered.request = o->last + 1;
    LH_TRY(keep(slot, &numbered, parts, n));
    if (o->n++ == 0)
        o->sent_at = lh_now();
    o->last++;
    return send_slot(slot, s, to);
}

int lh_outbox_acknowledged(struct lh_outbox *o, uint64_t number, struct lh_net_socket *s,
                           const struct lh_net_peer *to, double patience)
{
    double now = lh_now();
    bool any = false;
    for (; o->n > 0 && o->slots[o->first].env.request <= number; o->n--) {
        o->first = (o->first + 1) % o->cap;
        any = true;
    }
    if (any) /* things move: what is left was sent later */
        o->sent_at = now;
    if (o->n == 0 || now - o->sent_at < patience)
        return 0;
    o->sent_at = now;
    for (size_t i = 0; i < o->n; i++)
        LH_TRY(send_slot(&o->slots[(o->first + i) % o->cap], s, to));
    return 0;
}

bool lh_inbox_takes(struct lh_inbox *in, uint64_t number)
{
    if (number == 0)
        return true;
    if (number != in->last + 1)
        return false;
    in->last = number;
    in->taken++;
    return true;
}
