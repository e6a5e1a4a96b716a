/* One version of the parameters as a pull brought it. A frame that lies well in memory is kept and
 * read where it is: within a process that is the server's own array, so weights are not copied at
 * all. Other frames are copied into flat arrays and let go. */
#pragma once

#include "common/layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

struct lh_held_frame {
    zmq_msg_t msg;
    uint64_t lo, hi; /* flat elements */
    bool targets;
};

struct lh_held {
    const struct lh_layout *layout;
    float *flat[2];      /* weights, targets: [flat_size], parts that were copied */
    const float **at[2]; /* [n_params] where each parameter lies, 64-byte aligned, once settled */
    struct lh_held_frame *frames;
    uint32_t *order; /* [n] frames by kind, then place */
    size_t n, cap;
};

/* `layout` stays the caller's. Errors: LH_ENOMEM. */
int lh_held_init(struct lh_held *h, const struct lh_layout *layout);
void lh_held_fini(struct lh_held *h); /* idempotent */

/* Lets all frames go, on the thread that took them: what `at` said is void. */
void lh_held_drop(struct lh_held *h);
/* Elements [lo, lo + bytes / 4) arrive; the frame is taken or copied. The caller has checked that
 * they lie within the layout. Allocates nothing. */
void lh_held_take(struct lh_held *h, bool targets, uint64_t lo, zmq_msg_t *frame);
/* All of the version is there: fills in `at`. A parameter whose frames do not adjoin is copied. */
void lh_held_settle(struct lh_held *h);
