/* Pulling rows of embedding tables at a version: ids are gathered, sorted and dealt out to the
 * servers that have them (common/rowlist.h), asked for in pieces of about 1 MB over the sockets of
 * a pull, and answered when that version exists. */
#pragma once

#include "common/graph.h"
#include "common/pull.h"

#include <stdbool.h>
#include <stdint.h>

enum { LH_ROWPULL_SLOTS = 3 }; /* pulls over the same sockets */

struct lh_rowpull_table {
    uint32_t dim;
    uint64_t *ids;   /* [n] ascending, unique once asked for */
    size_t n, cap;   /* ids */
    size_t distinct; /* of them, sorted already: the first */
    float *rows;     /* [n, dim] */
    size_t cap_rows; /* elements */
    uint32_t *place; /* [n] ids by shard: those of shard s at place[first[s]] … */
    uint64_t *dealt; /* [n] ids in that order */
    size_t cap_place, cap_dealt;
    size_t *first; /* [shards + 1] */
};

struct lh_rowpull_piece {
    uint32_t table, shard;
    size_t lo, hi; /* into place */
    bool sent, got;
    uint64_t breaks; /* of its connection, when it was sent */
};

struct lh_rowpull {
    struct lh_rowpull_table tables[LH_GRAPH_TABLES_MAX];
    size_t n_tables;
    uint32_t shards;
    uint64_t version;
    uint64_t serial; /* of the asking: tells its answers from those of earlier ones */
    struct lh_rowpull_piece *pieces;
    size_t n_pieces, cap_pieces;
    size_t unsent, missing; /* pieces */
    uint64_t breaks;        /* of all connections, when pieces were last looked over */
    bool asked;
    bool gone;    /* a server has passed that version */
    double since; /* when it was asked for, or when the last piece came; seconds */
};

/* `slot` tells pulls over the same sockets apart. Errors: LH_ENOMEM. */
int lh_rowpull_init(struct lh_rowpull *p, const struct lh_graph_table *tables, size_t n,
                    size_t shards, uint32_t slot);
void lh_rowpull_fini(struct lh_rowpull *p); /* idempotent */

/* Forgets everything; what is added next is for `version`. */
void lh_rowpull_begin(struct lh_rowpull *p, uint64_t version);
/* n ids of table t, one in `stride` of an array, in any order, repetitions and LH_ID_NONE among
 * them. */
int lh_rowpull_add(struct lh_rowpull *p, size_t t, const uint64_t *ids, size_t n, size_t stride);
/* No more ids: makes the requests. */
int lh_rowpull_ask(struct lh_rowpull *p);
/* Sends those that were not sent, and once more those without an answer whose connection has broken
 * since: to be called again and again while they are waited for. LH_AGAIN while a queue is full:
 * let the network work. */
int lh_rowpull_send(struct lh_rowpull *p, struct lh_pull *over);
/* What has not come is sent again by the next send, though no break was noticed. */
void lh_rowpull_repeat(struct lh_rowpull *p);
/* Takes in one message from shard i. LH_NOTFOUND: it is not an answer to this pull. Errors:
 * LH_EPROTO for one that does not fit. */
int lh_rowpull_take(struct lh_rowpull *p, size_t i, const struct lh_net_message *msg);

/* All rows are there. */
static inline bool lh_rowpull_complete(const struct lh_rowpull *p)
{
    return p->asked && p->missing == 0;
}

/* Row of `id` in table t, complete; NULL if it was not asked for. */
const float *lh_rowpull_find(const struct lh_rowpull *p, size_t t, uint64_t id);
