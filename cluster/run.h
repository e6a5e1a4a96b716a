/* Reading a run directory: the weights of a finished (or interrupted, or still running) training.
 */
#pragma once

#include "common/graph.h"
#include "common/job.h"

#include <stdint.h>

enum lh_which_cut { LH_CUT_BEST, LH_CUT_LAST };
struct lh_run {
    struct lh_job *job;
    struct lh_graph *graph; /* the training graph at rows = micro_batch: layout of `weights` */
    uint64_t version;
    float *weights, *targets; /* flat; a tensor without a target copy is 0 in targets */
    char *evaluation_json;    /* of that cut; NULL if none */
};
/* BEST is the last cut where none was evaluated, or none could be ranked. Errors: LH_ENOENT if DIR
 * is no run or has no complete cut yet; those of the record, the config and the stores. */
int lh_run_open(struct lh_run **out, const char *dir, enum lh_which_cut which);
void lh_run_close(struct lh_run **run);
