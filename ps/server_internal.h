/* What the files of the server role share: its insides, and what each file does for the others. All
 * of it runs in the server's thread, between two polls.
 *
 *   server.c        its life, its loop, and the scheduler's orders
 *   server_pulls.c  who waits for which version, or for the weights of which step; the answers
 *   server_steps.c  pushes, and the step that they make when they are whole
 *   server_cuts.c   versions that are written
 *   server_late.c   what is late, for workers that have nothing to do
 *
 * What takes a message returns 0, also where it did nothing since that came too late or twice;
 * LH_EPROTO for one that nobody may send, which is dropped and counted; or the server's own
 * failure, which ends it. */
#pragma once

#include "common/clock.h"
#include "common/member.h"
#include "common/metrics.h"
#include "common/pull.h"
#include "ps/flight.h"
#include "ps/loan.h"
#include "ps/members.h"
#include "ps/server.h"
#include "ps/server_tables.h"
#include "ps/takeover.h"
#include "ps/writer.h"

enum { LH_SERVER_METRICS = 64 }; /* steps in one report of metrics at most */

struct lh_server_wait { /* a pull that is not answered yet; one a peer */
    struct lh_net_peer peer;
    uint64_t version, request;
    uint32_t node;
    bool evaluation;
    bool each; /* the version is a step, whose weights are wanted; LATEST: one that is given here */
};

struct lh_server {
    const struct lh_server_options *opt;
    struct lh_member member;
    struct lh_metrics_role *counts; /* NULL: off */
    struct lh_net_socket *socket;
    struct lh_members members; /* whom it hears */
    struct lh_job *job;
    struct lh_server_model model;
    struct lh_shard *shard;
    struct lh_flight *flight; /* of the shard, where each step is a worker's own; else NULL */
    struct lh_server_tables tables;
    struct lh_store *store;
    struct lh_writer *writer;
    struct lh_clock clock;
    uint64_t limit;        /* no version beyond this */
    double began, stepped; /* when it began to serve; when the version at hand was made */
    bool stopped;          /* the scheduler said stop; with */
    int reason;
    bool again; /* the scheduler said: go back and say hello again */
    /* answers */
    struct lh_pull_piece *pieces; /* [n_pieces] of one */
    size_t n_pieces;
    struct lh_server_wait *waiting;
    size_t n_waiting, cap_waiting;
    struct lh_loans *loans;
    bool withheld;      /* an answer waits until its peer has taken earlier ones */
    uint64_t evaluated; /* last version that the evaluation said it has; UINT64_MAX: none */
    /* steps */
    float *metrics; /* [LH_SERVER_METRICS][n_metrics] of steps from metrics_first on */
    double metrics_at[LH_SERVER_METRICS];
    size_t n_metrics, metrics_rows;
    uint64_t metrics_first;
    uint64_t last; /* where each is a worker's own, the last that came in; UINT64_MAX: none yet */
    /* cuts */
    uint64_t cut;                   /* last version set aside for the writer */
    const struct lh_frozen *frozen; /* it, until its tables are settled; else NULL */
    uint64_t failed;                /* last version that it could not write; 0: none */
    double failed_at;
    /* what is late */
    struct lh_takeover *takeover; /* in sync, if the job wants it; else NULL */
    double pushed;                /* when a piece came last */
};

/* --- server_pulls.c ----------------------------------------------------------------------------
 */
/* A PULL, of a version, or a TAKE, of a step: answered now, or when it may be. */
int lh_server_pulls_take(struct lh_server *s, const struct lh_net_message *msg);
/* A TABLE_PULL, likewise. */
int lh_server_pulls_take_table(struct lh_server *s, const struct lh_net_message *msg);
/* A FETCHED: the evaluation has all of a version. */
int lh_server_pulls_take_fetched(struct lh_server *s, const struct lh_net_message *msg);
/* Which rows of tables who asks is to have (ps/server_tables.h); ctx: the server. */
enum lh_server_rows lh_server_pulls_rows_for(const void *ctx, uint32_t node, uint64_t version);
/* Answers those that wait and may have what they wait for, rows too. `withheld`, here or of the
 * tables, says whether a peer has still to take earlier answers: then it is to be called again
 * soon. */
int lh_server_pulls_answer(struct lh_server *s);
/* The version that must be in before a step begins: all steps but the last few, those before the
 * last cut or evaluation in any case (ps/CONSISTENCY.md). */
uint64_t lh_server_pulls_needed(const struct lh_server *s, uint64_t step);

/* --- server_steps.c ----------------------------------------------------------------------------
 */
/* A PUSH, a TABLE_PUSH: what it brings enters the sum of its step. */
int lh_server_steps_take(struct lh_server *s, const struct lh_net_message *msg);
int lh_server_steps_take_table(struct lh_server *s, const struct lh_net_message *msg);
/* Applies what is whole, as far as the versions on the way are not held for a cut or an evaluation;
 * answers who waited for them. */
int lh_server_steps_advance(struct lh_server *s);
/* Sends the steps' metrics to the scheduler; the second leaves them for the next time where much
 * else is under way to it. */
int lh_server_steps_send(struct lh_server *s);
int lh_server_steps_flush(struct lh_server *s);

/* --- server_cuts.c -----------------------------------------------------------------------------
 */
/* Whether the version at hand is to be written, and is not under way. */
bool lh_server_cuts_due(const struct lh_server *s);
/* Sets it aside for the writer; not yet, if that has still the last one. */
int lh_server_cuts_start(struct lh_server *s);
/* Goes on with what is set aside, for a moment; when nothing of it changes any more, the writer has
 * it. */
int lh_server_cuts_settle(struct lh_server *s);
/* Tells the scheduler what the writer has done. */
int lh_server_cuts_report(struct lh_server *s);

/* --- server_late.c -----------------------------------------------------------------------------
 */
/* An IDLE: a worker waits, and may have what another is late with. */
int lh_server_late_take(struct lh_server *s, const struct lh_net_message *msg);
