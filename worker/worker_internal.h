/* What the files of the worker role share: its insides, and what each file does for the others. All
 * of it runs in the worker's thread.
 *
 *   worker.c          its life, the scheduler's orders, and the two ways to work: all together on
 *                     every step, or each on steps of its own
 *   worker_hear.c     what servers say: versions, what is late; waiting for it
 *   worker_compute.c  a share, a subtree, a leaf; pushing the sums while backward still runs
 *
 * Functions return 0 or the failure that ends the worker. They return early, with 0, where what
 * they do is not wanted any more: it is over, or, of a subtree, others have done it. */
#pragma once

#include "common/dataset.h"
#include "common/held.h"
#include "common/job.h"
#include "common/member.h"
#include "common/metrics.h"
#include "common/pull.h"
#include "worker/feed.h"
#include "worker/gradient.h"
#include "worker/model.h"
#include "worker/worker.h"
#include "worker/worker_tables.h"

enum { LH_WORKER_NODES = 64 }; /* subtrees of a share at most */

/* For tests: LONGHAUL_TEST_SLOW=INDEX:FACTOR slows the worker with that index of the assignment, as
 * if its processor were so many times slower. */
struct lh_worker_slow {
    uint32_t index;
    double factor; /* 0: nobody */
    double owed;   /* seconds that it is to wait, of blocks that are computed */
};

struct lh_worker {
    const struct lh_worker_options *opt;
    void *zmq;
    struct lh_member member;
    struct lh_metrics_role *metrics; /* NULL: off */
    struct lh_job *job;
    struct lh_dataset *dataset;
    struct lh_model model;
    struct lh_exec *exec;
    struct lh_feed feed;
    struct lh_gradient gradient;
    struct lh_pull pull;
    struct lh_worker_tables *tables; /* NULL: the job has none */
    struct lh_net_poll *polls;       /* [n_shards + 1], the last is the scheduler's */
    /* Version `version` is in [at]; the next one arrives in the other, since the share of this one
     * may have to be computed again when another worker dies. */
    struct lh_held held[2];
    int at;
    uint64_t version, until;
    uint64_t claim; /* on a step of its own: the request by which it was given */
    /* the assignment */
    uint32_t epoch, index, count; /* count 0: none yet */
    /* subtrees of this version that were pushed */
    struct lh_tree_node pushed[LH_WORKER_NODES];
    size_t n_pushed;
    /* the subtree under way */
    struct lh_tree_node node;
    struct lh_gradient_piece **unsent; /* [n_pieces] that met a full queue */
    size_t n_unsent;
    int push_rc;
    bool reassigned; /* the assignment changed since the share was last looked at */
    double turns;    /* seconds that the companion worked */
    double patience; /* seconds until what was asked is asked again, though no connection broke */
    double stepped;  /* when the version at hand was taken */
    /* waiting: what its own work on a step takes, from weights to pushed; since when it waits, or
     * has said so last; the step that it was given because it does */
    double usual, idle_since;
    double pace;     /* what a leaf takes it */
    double idle_gap; /* seconds until it says so once more; doubles */
    uint64_t late;   /* LH_WIRE_LATEST: none; in sync its node, and */
    struct lh_tree_node late_node;
    bool shares; /* it had a share of the last step */
    bool tried;  /* it has begun its share of this version before */
    bool helps;  /* it has computed such a node of this version */
    bool eager;  /* it had of the one before */
    /* subtrees of this version that idle workers have taken over */
    struct lh_tree_node given[LH_WORKER_NODES];
    size_t n_given;
    bool dropped; /* the step at hand is in, by another's hand */
    struct lh_worker_slow slow;
    bool stopped, left, again; /* again: the run goes back, say hello again */
    int reason;
};

static inline bool lh_worker_is_over(const struct lh_worker *w)
{
    return w->stopped || w->left;
}

/* Whether what is left of the step at hand need not be computed. */
static inline bool lh_worker_is_off(const struct lh_worker *w)
{
    return lh_worker_is_over(w) || w->dropped;
}

static inline bool lh_worker_has_own_steps(const struct lh_worker *w)
{
    return w->job->consistency != LH_SYNC;
}

/* --- worker.c ----------------------------------------------------------------------------------
 */
/* A turn for the companion; whether it had anything to do. */
bool lh_worker_turn(struct lh_worker *w);
/* What must not wait for the end of a share: orders, the beat, an interrupt, the companion. */
int lh_worker_look_up(struct lh_worker *w);

/* --- worker_hear.c -----------------------------------------------------------------------------
 */
/* Asks for a version, or for the weights of a step of its own (LATEST: of any). */
int lh_worker_hear_ask(struct lh_worker *w, uint64_t version);
/* Seconds until it asks again for the first time, where no connection broke. */
double lh_worker_hear_patience(const struct lh_worker *w);
/* Takes in what has come from the servers; sets *any if there was anything. */
int lh_worker_hear_drain(struct lh_worker *w, bool *any);
/* Between two blocks: looks up, and takes in what servers say, since another may have done what
 * this one does. */
int lh_worker_hear_between(struct lh_worker *w);
/* Waits until the version asked for is whole, the share has changed, something late is to be taken
 * over, or it is over. Says meanwhile that it has nothing to do, and asks again where a connection
 * broke. */
int lh_worker_hear_version(struct lh_worker *w);
/* Blocks until something comes from anybody, for `most` seconds. */
int lh_worker_hear_block(const struct lh_worker *w, double quiet_since, double most);

/* --- worker_compute.c --------------------------------------------------------------------------
 */
/* Computes and pushes the share of the version at hand that the assignment gives, as far as it was
 * not pushed yet; once more where that changes meanwhile. */
int lh_worker_compute_share(struct lh_worker *w);
/* The same for one subtree, but for leaves of it that others have taken over. */
int lh_worker_compute_node(struct lh_worker *w, struct lh_tree_node node);
/* Likewise for one that is another's share, which is late. */
int lh_worker_compute_late(struct lh_worker *w, struct lh_tree_node node);
/* The whole of a step, which no other worker shares. */
int lh_worker_compute_step(struct lh_worker *w);
/* Asks for the rows of the step of its own whose weights are on their way, if it is known which
 * that is; once more where a connection broke. To be called again and again. */
int lh_worker_compute_ask_rows(struct lh_worker *w);
/* How long its own work on a step takes: `took` enters the mean of the last few. */
void lh_worker_compute_note(struct lh_worker *w, double took);
