/* What the parts of the scheduler share: its state, and what they ask of each other. */
#pragma once

#include "cluster/cuts.h"
#include "cluster/metrics_log.h"
#include "cluster/report.h"
#include "cluster/roster.h"
#include "cluster/scheduler.h"
#include "cluster/votes.h"
#include "common/term.h"

enum lh_scheduler_stage { GATHERING, RUNNING, PAUSING, FINISHING, STOPPING };

struct lh_scheduler {
    const struct lh_scheduler_options *opt;
    struct lh_scheduler_result *result;
    void *zmq;
    struct lh_roster roster;
    struct lh_clock clock;
    struct lh_metrics_log *metrics;
    struct lh_report report;
    struct lh_cuts cuts;
    struct lh_votes votes;
    uint64_t unlisted;     /* the last cut, prepared, whose record could not be saved; 0: none */
    double tried, failing; /* when that was tried; since when the last cut fails; 0: it does not */
    struct lh_evaluator *evaluator;
    struct lh_keys evaluation; /* its own pair, of this run alone; zeroed: none */
    struct lh_security evaluation_security;
    struct lh_progress progress;
    char *job_text;
    enum lh_scheduler_stage stage;
    bool reassign;     /* workers came or went: their shares are others */
    uint64_t first;    /* version this call started from */
    unsigned returned; /* how often it went back since the last new cut */
    double assigned;   /* when they were told their shares last */
    double began, noted, ready_at, started_at, trained_at, stopping_at, flushed;
    uint64_t version; /* newest of which metrics came */
};

/* --- scheduler.c: the loop ---------------------------------------------------------------------
 */
int lh_scheduler_hear(struct lh_scheduler *s); /* waits a moment for what is said, and takes it */

/* Whether steps are computed: also when it was interrupted, until all servers stand at one. */
static inline bool lh_scheduler_computes(const struct lh_scheduler *s)
{
    return s->stage > GATHERING && s->stage < STOPPING;
}

/* --- scheduler_roles.c: who takes part ---------------------------------------------------------
 */
int lh_scheduler_ready(struct lh_scheduler *s, struct lh_role_node *node);
/* A role left, died, or was given up: `how`. The others take a worker's share; with a server
 * everybody goes back to the last cut, if another comes. */
int lh_scheduler_gone(struct lh_scheduler *s, struct lh_role_node *node, const char *how);
/* A role says that it cannot go on. */
int lh_scheduler_failed(struct lh_scheduler *s, struct lh_role_node *node,
                        const struct lh_net_message *msg);
/* What the launcher knows of ended processes; and, each turn, who is silent, and beats. */
int lh_scheduler_take_deaths(struct lh_scheduler *s);
int lh_scheduler_look_after(struct lh_scheduler *s);
/* Each turn: shares, where workers came or went. */
int lh_scheduler_reassign(struct lh_scheduler *s);
/* While it computes: LH_EPEER when no worker has been left for long, and one is needed. */
int lh_scheduler_watch_workers(struct lh_scheduler *s);

/* --- scheduler_plan.c: who is told what the run is ---------------------------------------------
 */
/* Plans for those who wait for one and can be given one; the evaluation begins with the last server
 * that is ready. Called each turn, so that all who came meanwhile are told of together. */
int lh_scheduler_plan(struct lh_scheduler *s);

/* --- scheduler_cuts.c: which versions are checkpoints ------------------------------------------
 */
/* A server's word that it has a version, or that it could not write it. */
int lh_scheduler_prepared(struct lh_scheduler *s, struct lh_role_node *node, uint64_t version);
int lh_scheduler_unprepared(struct lh_scheduler *s, struct lh_role_node *node,
                            const struct lh_net_message *msg);
/* Tries again, from time to time, to save the record of a last cut that could not be saved. */
int lh_scheduler_list_last(struct lh_scheduler *s);
