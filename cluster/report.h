/* What the scheduler tells of the run while it goes on: its metrics, and status.json (status.h).
 * Looks only: nothing of a run depends on it, and where it cannot be written the run goes on. */
#pragma once

#include "cluster/cuts.h"
#include "cluster/roster.h"
#include "cluster/status.h"
#include "common/clock.h"
#include "common/graph.h"

#include <stdint.h>

#define LH_REPORT_SAMPLES 11

struct lh_report {
    char *path;                     /* of status.json */
    struct lh_metrics_role *counts; /* NULL: off */
    struct lh_status status;        /* what does not change, and the losses */
    double written;                 /* lh_now() */
    bool failed;                    /* to write it, which was said once */
    double stepped;                 /* when the newest step was made, by shard 0's clock */
    uint64_t cut;                   /* the last that was told of */
    /* one a second, the oldest first: what the rate is made of */
    double at[LH_REPORT_SAMPLES];
    uint64_t version[LH_REPORT_SAMPLES];
    size_t samples;
};

struct lh_report_spec {
    const char *dir, *job, *algorithm;
    const char *endpoint;         /* of the scheduler */
    const struct lh_graph *graph; /* names of losses */
    struct lh_metrics *metrics;   /* NULL: off */
    uint32_t workers, servers;    /* wanted */
    uint64_t batch;
};

/* Errors: LH_ENOMEM. */
int lh_report_init(struct lh_report *r, const struct lh_report_spec *spec);
void lh_report_fini(struct lh_report *r); /* idempotent */

/* A step's losses came. `seconds` is shard 0's clock. */
void lh_report_step(struct lh_report *r, const float *losses, double seconds);
/* A role was taken in; or left, died or went silent before the end. */
void lh_report_joined(struct lh_report *r, const struct lh_role_node *node);
void lh_report_lost(struct lh_report *r, const struct lh_role_node *node);

struct lh_report_facts {
    const char *stage;
    const struct lh_roster *roster;
    const struct lh_cuts *cuts;
    const struct lh_clock *clock;
    uint64_t version; /* newest of which losses came */
};
/* To be called often: renews the metrics, and status.json when the last is a second old, or `now`.
 */
void lh_report_update(struct lh_report *r, const struct lh_report_facts *f, bool now);
