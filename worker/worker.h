/* The worker role: computes its share of every step's micro-batches and sends subtree sums.
 * worker/README.md tells the life of a step. Stateless: what a worker knows it can be told again,
 * so one may die at any instant, and another join (DESIGN.md, invariant 2). */
#pragma once

#include "common/companion.h"
#include "common/security.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_feed_given;
struct lh_metrics;

struct lh_worker_options {
    const char *scheduler;             /* endpoint */
    const char *dataset;               /* directory, where it is not what the job says; NULL else */
    const struct lh_feed_given *given; /* batches to compute instead of a dataset's (worker/feed.h);
                                          NULL: none */
    double patience;                   /* seconds to wait for the scheduler, each time */
    bool rejoin;                       /* wait for a scheduler that went away; else end */
    const struct lh_security *security;   /* NULL: none */
    bool (*interrupted)(void);            /* NULL: never */
    const struct lh_companion *companion; /* what shares the thread; NULL: nothing */
    struct lh_metrics *metrics;           /* where it counts (common/metrics.h); NULL: nowhere */
    bool *told; /* set: the scheduler knows how it ended; NULL: nobody asks */
};

/* Works on one job to its end. When a server died, or, with `rejoin`, when the scheduler went away,
 * it says hello again and works from the last cut on. Returns 0 when the scheduler said so or when
 * interrupted (it says goodbye, and the others take its share), else the failure: its own (told to
 * the scheduler), the job's, or LH_EPEER or LH_ETIMEDOUT when the scheduler went away. */
int lh_worker_run(void *zmq, const struct lh_worker_options *opt);
