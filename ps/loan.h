/* Loans: answers to pulls, until the network has sent them. Their frames are a version's own
 * memory, which is not overwritten meanwhile, or rows of tables that were copied for the answer.
 * Who asks and never takes would make a server hold ever more of both. Here stands who holds what,
 * since when, and how much one may.
 *
 *   lh_loans_begin → send `pieces` frames, each released by lh_loan_release
 *   lh_loans_begin_rows → fill what it gave, send one frame, released by lh_loan_release
 *
 * One thread (the server's) but for lh_loan_release. */
#pragma once

#include "common/net.h"
#include "ps/shard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_LOANS_A_PEER      3  /* answers that one peer may have under way */
#define LH_LOANS_ROWS_A_PEER 32 /* answers of rows, 1 MB each at most, likewise */
#define LH_LOANS_VERSIONS                                                                          \
    8 /* versions that are on loan at once, before the oldest is called in                         \
       */

struct lh_loans;
struct lh_loan;

/* `shard` outlives the last lh_loans_begin; `patience`: seconds that a loan may last. */
int lh_loans_create(struct lh_loans **out, struct lh_shard *shard, double patience);
void lh_loans_destroy(struct lh_loans **l); /* what is on loan lives until it is released */

/* The current version, on loan to a peer in `pieces` frames (> 0). Returns LH_AGAIN if the peer
 * holds too much already. Allocates nothing. */
int lh_loans_begin(struct lh_loans *l, const struct lh_net_peer *to, uint32_t pieces,
                   struct lh_loan **out);
/* The same of the version before (lh_shard_lend_before), which must be there. */
int lh_loans_begin_before(struct lh_loans *l, const struct lh_net_peer *to, uint32_t pieces,
                          struct lh_loan **out);
/* Likewise for one frame of rows: *rows is memory of `bytes` for them until it is released.
 * Allocates nothing when warm. Errors: LH_ENOMEM. */
int lh_loans_begin_rows(struct lh_loans *l, const struct lh_net_peer *to, size_t bytes, void **rows,
                        struct lh_loan **out);
/* One frame of it was sent, or will not be. Any thread, no lock; has the form of zmq_free_fn. */
void lh_loan_release(void *data, void *loan);

/* Cuts off peers that have held a loan for longer than patience, or hold the oldest of too many
 * versions; what they hold is released thereby. Not those of this process, who hold what they work
 * with. Returns how many. To be called now and then. */
size_t lh_loans_call_in(struct lh_loans *l);
size_t lh_loans_count(struct lh_loans *l); /* that are under way */
