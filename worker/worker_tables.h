/* What a worker does for a job's tables: pulls the rows that its share of a step names, hands them
 * to the graph block by block, adds up their gradients along the tree and pushes them.
 * worker_compute.c says when. Where all workers share a step, rows of the next are asked for before
 * this one is computed, since what it trains on is known ahead; those for a step of its own as soon
 * as it is given. */
#pragma once

#include "common/job.h"
#include "common/pull.h"
#include "common/rowpull.h"
#include "worker/feed.h"
#include "worker/lookup.h"
#include "worker/model.h"
#include "worker/table_sum.h"

#include <stdbool.h>
#include <stdint.h>

/* Whose rows: of this worker's share of an even version (or of its own step), of an odd one, of
 * what it takes over. */
enum { LH_WORKER_ROWS_LATE = 2, LH_WORKER_ROWS = 3 };
_Static_assert((int)LH_WORKER_ROWS <= (int)LH_ROWPULL_SLOTS, "each pull has a slot of its own");

struct lh_worker_push { /* a piece of a list, for one server */
    uint32_t table, shard;
    uint64_t first, total; /* entries of the server's part of the list */
    size_t at, n;          /* in the dealt list of the table */
};

struct lh_worker_tables {
    struct lh_lookup lookup;
    struct lh_exec *exec;
    size_t shards;
    struct lh_rowpull at[LH_WORKER_ROWS];
    struct {
        uint32_t index, count; /* the share they are for; count 0: of none */
    } share[LH_WORKER_ROWS];
    const struct lh_rowpull *used; /* blocks read their rows here */
    struct lh_table_list learnt;   /* of a block: rows that a gradient passes to */
    struct lh_table_sum sum[LH_GRAPH_TABLES_MAX];
    struct lh_table_list dealt[LH_GRAPH_TABLES_MAX]; /* a subtree's sum, by server */
    uint32_t *place;
    size_t *first; /* [shards + 1] */
    size_t cap_place;
    struct lh_worker_push *push;
    size_t n_push, cap_push, pushed;
};

/* NULL in *out where the job has no tables. Errors: LH_EMISMATCH if the dataset lacks an id;
 * LH_ENOMEM. */
int lh_worker_tables_create(struct lh_worker_tables **out, const struct lh_job *job,
                            const struct lh_model *model, struct lh_exec *exec,
                            const struct lh_dataset *ds);
void lh_worker_tables_destroy(struct lh_worker_tables **t); /* NULL content allowed */

/* A share of a step, in blocks of the batch. */
struct lh_worker_share {
    uint64_t version;
    uint32_t index, count; /* of the assignment, or the claim on a step of its own and 1; count 0:
                              it is another's, which is taken over */
    uint32_t slot;         /* LH_WORKER_ROWS */
    uint32_t (*blocks)[2]; /* [n] from, to */
    size_t n;
};
/* Has the rows of a share asked for, if they are not; *pull (may be NULL) is where they come. */
int lh_worker_tables_want(struct lh_worker_tables *t, struct lh_feed *feed,
                          const struct lh_worker_share *share, struct lh_rowpull **pull);
/* As lh_rowpull_send, of all that is asked for. */
int lh_worker_tables_send(struct lh_worker_tables *t, struct lh_pull *over);
/* As lh_rowpull_take. */
int lh_worker_tables_take(struct lh_worker_tables *t, size_t i, const struct lh_net_message *msg);

/* Blocks that run from now on have their rows there. */
void lh_worker_tables_use(struct lh_worker_tables *t, const struct lh_rowpull *rows);
/* Before a block runs: its rows into the graph. */
int lh_worker_tables_fill(struct lh_worker_tables *t);
/* Around the blocks of a leaf, and behind one that is not the last of its subtree. */
void lh_worker_tables_leaf(struct lh_worker_tables *t);
int lh_worker_tables_block(struct lh_worker_tables *t);
int lh_worker_tables_join(struct lh_worker_tables *t, uint32_t leaf);
void lh_worker_tables_abandon(struct lh_worker_tables *t); /* a subtree that others have done */
/* Behind the last: makes the pushes, to be sent by _push until that is not LH_AGAIN. `env` has job,
 * node, step, level, index and epoch. */
int lh_worker_tables_end(struct lh_worker_tables *t);
/* The same of the next complete subtree, as lh_table_sum_part; there must be one. */
int lh_worker_tables_part(struct lh_worker_tables *t);
int lh_worker_tables_push(struct lh_worker_tables *t, struct lh_pull *over,
                          const struct lh_envelope *env);
