/* A server's tables (rowtable.h) behind its socket: one for each table of the job, driven in step
 * with the shard. The server (server.h) says when. */
#pragma once

#include "common/job.h"
#include "common/net.h"
#include "ps/flight.h"
#include "ps/loan.h"
#include "ps/rowtable.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_server_ask { /* a pull of rows that is not answered yet */
    struct lh_net_peer peer;
    uint64_t version, request;
    uint32_t node, table;
    size_t n, cap;
    uint64_t *ids; /* [cap] of which n are asked for */
};

enum lh_server_rows { /* which rows who asks is to have */
                      LH_SERVER_ROWS_LATER,
                      LH_SERVER_ROWS_NOW,
                      LH_SERVER_ROWS_BEFORE, /* of the version before */
                      LH_SERVER_ROWS_GONE,   /* they cannot be had any more */
};
/* Decides of the rows at `version`, or, where each step is a worker's own and `node` is not the
 * evaluation, for the step `version`. */
typedef enum lh_server_rows (*lh_server_rows_for)(const void *ctx, uint32_t node, uint64_t version);

struct lh_server_tables {
    struct lh_rowtable *at[LH_GRAPH_TABLES_MAX];
    const struct lh_job_table *jobs; /* the job's */
    size_t n;
    uint64_t job;             /* of answers */
    uint32_t node;            /* likewise */
    struct lh_loans *loans;   /* of answers */
    struct lh_flight *flight; /* where each step is a worker's own; else NULL */
    lh_server_rows_for rows_for;
    const void *ctx;                  /* of it */
    size_t most[LH_GRAPH_TABLES_MAX]; /* ids that a worker may wait for */
    struct lh_server_ask *asks;       /* [n_asks]; some behind them keep memory for ids */
    size_t n_asks, cap_asks;
    bool withheld; /* an answer waits: for its peer to take earlier ones, or for the disk */
    /* Rows that have to make room are written; a disk that is full is waited for. */
    bool behind;            /* a step is applied to some of its rows, and to no others yet */
    double refused, tried;  /* since when it takes nothing, 0: it does; when it was tried last */
    uint64_t written;       /* rows, before that */
    double patience, pause; /* seconds: how long it is tried again, and how often */
};

struct lh_server_tables_spec {
    const struct lh_job *job; /* outlives the tables */
    uint64_t digest;          /* lh_job_digest */
    const char *store;        /* directory of the server's store, which is open */
    uint32_t shard, shards, leaves, node;
    struct lh_loans *loans;      /* outlive the tables */
    struct lh_flight *flight;    /* likewise; NULL: all workers share each step */
    lh_server_rows_for rows_for; /* who is given which rows, and when */
    const void *ctx;             /* handed to it */
    const uint64_t *keep;        /* versions that are cuts: others are leftovers */
    size_t n_keep;
};

/* Opens all tables of the job; n 0 where it has none. */
int lh_server_tables_open(struct lh_server_tables *t, const struct lh_server_tables_spec *spec);
void lh_server_tables_close(struct lh_server_tables *t); /* idempotent */
/* Version `version` of a cut, from the stores of its servers; without any: initial rows. */
int lh_server_tables_restore(struct lh_server_tables *t, uint64_t version, const char *const *dirs,
                             size_t n_dirs);

/* A TABLE_PUSH. Returns as lh_rowtable_push; LH_EPROTO for what is malformed. */
int lh_server_tables_push(struct lh_server_tables *t, const struct lh_net_message *msg);
/* A TABLE_PULL, of a plan of this generation: answered now, or when the rows are there. */
int lh_server_tables_pull(struct lh_server_tables *t, struct lh_net_socket *socket,
                          const struct lh_net_message *msg);
/* Answers those that wait and whose rows are there. */
int lh_server_tables_answer(struct lh_server_tables *t, struct lh_net_socket *socket);

/* How much of a leaf of the step has come to them all. There is at least one. */
enum lh_reduce_leaf lh_server_tables_leaf(const struct lh_server_tables *t, uint32_t leaf);

/* Whether the gradients of the step are whole, of all tables, or were when it was begun; true where
 * there is none. Of a step that all share. */
bool lh_server_tables_whole(const struct lh_server_tables *t);
/* `own`: the sum of a step that was a worker's own, which is applied next; NULL: all share it. */
/* Errors: LH_EDIVERGED; nothing is applied then, to none of them. */
int lh_server_tables_check(const struct lh_server_tables *t, const struct lh_flight_sum *own);
/* Makes version + 1 of all, which `version` says they have. LH_AGAIN: the disk is full; it is tried
 * again by the next call, with the same sum; no rows are given away until then. Errors: LH_ENOSPC,
 * LH_EIO if it is so for a minute. */
int lh_server_tables_advance(struct lh_server_tables *t, uint64_t version,
                             const struct lh_flight_sum *own);

/* Sums over all: rows_cached, hits, misses, disk_bytes. */
void lh_server_tables_stats(const struct lh_server_tables *t, struct lh_rowtable_stats *out);

/* Freezes all for a cut, or none: LH_AGAIN while the last cut is being written. */
int lh_server_tables_freeze(struct lh_server_tables *t);
/* Writes a slice of what is frozen: LH_AGAIN until all of it can be prepared. After an error it is
 * for the caller to abandon it. */
int lh_server_tables_settle(struct lh_server_tables *t);
void lh_server_tables_abandon(struct lh_server_tables *t); /* what nobody prepares */
