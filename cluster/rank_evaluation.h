/* The evaluation of a cut shared out over ranks: each walks some blocks of rows, rank 0 joins the
 * pieces in the order of the blocks, so that a verdict has the same bits for any number of ranks.
 * Of a job with tables a rank is sent the rows that its blocks name. One that cannot help (no
 * dataset there, or it died) is left out; rank 0 then does its part. */
#pragma once

#include "cluster/cut_evaluation.h"
#include "cluster/mpi.h"

/* Kinds of messages between ranks (cluster/launch_mpi.c uses those below). */
enum {
    LH_RANK_EVALUATION_SETUP = 16, /* job and behaviour model, once */
    LH_RANK_EVALUATION_TASK,       /* blocks to walk; the weights follow, then ... */
    LH_RANK_EVALUATION_WEIGHTS,
    LH_RANK_EVALUATION_ROWS, /* ... the rows of tables that the blocks name, by id */
    LH_RANK_EVALUATION_DONE, /* how it went; the pieces follow */
    LH_RANK_EVALUATION_PIECES
};

/* --- rank 0 ------------------------------------------------------------------------------------
 */
struct lh_rank_lead;
/* ranks [n]: who helps; copied. `m` must outlive it. `patience`: seconds for what is sent to a
 * helper to go, and at least so many for its part, before it is given up. */
int lh_rank_lead_create(struct lh_rank_lead **out, struct lh_mpi *m, const int *ranks, size_t n,
                        double patience);
void lh_rank_lead_destroy(struct lh_rank_lead **l);
/* An lh_evaluate_helpers' walk; ctx is the lead. For one thread at a time, which receives the
 * messages of the kinds above. */
int lh_rank_lead_walk(void *ctx, const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                      struct lh_evaluate_pieces *out);

/* --- a rank that helps -------------------------------------------------------------------------
 */
struct lh_rank_help;
/* threads: at most so many; each walk uses as many as rank 0 asks for, up to that. */
int lh_rank_help_create(struct lh_rank_help **out, struct lh_mpi *m, unsigned threads);
void lh_rank_help_destroy(struct lh_rank_help **h);
/* Takes a message of one of the kinds above, which lh_mpi_next has announced. What goes wrong with
 * an evaluation is told to rank 0; an error here is one of the job. */
int lh_rank_help_take(struct lh_rank_help *h, int kind, size_t bytes);
