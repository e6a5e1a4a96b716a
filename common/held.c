/* Frames of a version, kept in order of their place. */
#include "common/held.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pull.h"

#include <string.h>

#define ALIGN 64 /* of parameters, and of offsets in a layout */

static int count_frames(const struct lh_layout *layout, size_t *out)
{
    *out = 0;
    for (size_t i = 0; i < layout->n_shards; i++) {
        struct lh_pull_piece *pieces = NULL;
        size_t n;
        LH_TRY(lh_pull_pieces(&pieces, &n, &layout->shards[i]));
        lh_mem_free(pieces);
        *out += n;
    }
    return 0;
}

int lh_held_init(struct lh_held *h, const struct lh_layout *layout)
{
    int rc;
    *h = (struct lh_held){.layout = layout};
    LH_TRY_TO(fail, count_frames(layout, &h->cap));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&h->frames, h->cap, "frames of a version"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&h->order, h->cap, "frames of a version"));
    for (int k = 0; k < 2; k++) {
        LH_TRY_TO(fail, LH_NEW_ARRAY(&h->at[k], layout->n_params, "parameters"));
        /* Not cleared: where frames are kept this memory is never touched. */
        LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&h->flat[k], layout->flat_size, sizeof(float),
                                             "parameters"));
    }
    return 0;
fail:
    lh_held_fini(h);
    return rc;
}

void lh_held_fini(struct lh_held *h)
{
    lh_held_drop(h);
    for (int k = 0; k < 2; k++) {
        lh_mem_free(h->flat[k]);
        lh_mem_free(h->at[k]);
    }
    lh_mem_free(h->frames);
    lh_mem_free(h->order);
    *h = (struct lh_held){0};
}

void lh_held_drop(struct lh_held *h)
{
    for (size_t i = 0; i < h->n; i++)
        zmq_msg_close(&h->frames[i].msg);
    h->n = 0;
}

static const float *data_of(const struct lh_held_frame *f)
{
    return zmq_msg_data((zmq_msg_t *)(uintptr_t)&f->msg);
}

static bool is_before(const struct lh_held_frame *a, const struct lh_held_frame *b)
{
    return a->targets != b->targets ? b->targets : a->lo < b->lo;
}

void lh_held_take(struct lh_held *h, bool targets, uint64_t lo, zmq_msg_t *frame)
{
    const char *data = zmq_msg_data(frame);
    const size_t bytes = zmq_msg_size(frame);
    if (h->n == h->cap || ((uintptr_t)data - lo * sizeof(float)) % ALIGN != 0) {
        memcpy(h->flat[targets] + lo, data, bytes);
        return;
    }
    struct lh_held_frame *f = &h->frames[h->n];
    zmq_msg_init(&f->msg);
    zmq_msg_move(&f->msg, frame);
    f->lo = lo;
    f->hi = lo + bytes / sizeof(float);
    f->targets = targets;
    size_t i = h->n++;
    for (; i > 0 && is_before(f, &h->frames[h->order[i - 1]]); i--)
        h->order[i] = h->order[i - 1];
    h->order[i] = (uint32_t)(f - h->frames);
}

/* Where elements [lo, hi) lie in one piece, from the k-th frame on; NULL if they do not. */
static const float *in_one_piece(const struct lh_held *h, size_t k, bool targets, uint64_t lo,
                                 uint64_t hi)
{
    const float *base = NULL;
    uint64_t at = lo;
    for (; k < h->n && at < hi; k++) {
        const struct lh_held_frame *f = &h->frames[h->order[k]];
        if (f->targets != targets || f->lo > at || f->hi <= at)
            return NULL;
        const float *here = data_of(f) + (at - f->lo);
        if (base && here != base + (at - lo))
            return NULL;
        base = base ? base : here;
        at = f->hi;
    }
    return at >= hi ? base : NULL;
}

static void copy_parts(struct lh_held *h, size_t k, bool targets, uint64_t lo, uint64_t hi)
{
    for (; k < h->n; k++) {
        const struct lh_held_frame *f = &h->frames[h->order[k]];
        if (f->targets != targets || f->lo >= hi)
            return;
        const uint64_t a = f->lo > lo ? f->lo : lo, b = f->hi < hi ? f->hi : hi;
        memcpy(h->flat[targets] + a, data_of(f) + (a - f->lo), (b - a) * sizeof(float));
    }
}

void lh_held_settle(struct lh_held *h)
{
    for (int kind = 0; kind < 2; kind++) {
        const bool targets = kind == 1;
        size_t k = 0; /* there may be none of the weights', and then some of the targets' */
        while (k < h->n && h->frames[h->order[k]].targets != targets)
            k++;
        for (size_t i = 0; i < h->layout->n_params; i++) {
            const struct lh_param *p = &h->layout->params[i];
            const uint64_t lo = p->offset, hi = lo + (uint64_t)p->rows * p->cols;
            h->at[kind][i] = NULL;
            if (targets && !p->has_target)
                continue;
            while (k < h->n && h->frames[h->order[k]].targets == targets &&
                   h->frames[h->order[k]].hi <= lo)
                k++;
            h->at[kind][i] = in_one_piece(h, k, targets, lo, hi);
            if (h->at[kind][i])
                continue;
            copy_parts(h, k, targets, lo, hi);
            h->at[kind][i] = h->flat[kind] + lo;
        }
    }
}
