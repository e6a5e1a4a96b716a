/* Reading a run directory: the weights of a finished, interrupted or still running training (a
 * checkpoint that falls due then waits for the reading). run.json says which cuts are complete. */
#pragma once

#include "common/graph.h"
#include "common/job.h"
#include "worker/policy.h"

#include <stdint.h>

struct lh_rowtable_reader;

enum lh_which_cut { LH_CUT_BEST, LH_CUT_LAST };
struct lh_run {
    struct lh_job *job;
    struct lh_graph *graph; /* the training graph: layout of `weights` */
    uint64_t version;
    enum lh_which_cut cut;     /* LAST also where BEST was asked for and there is none */
    float *weights, *targets;  /* flat, 64-byte aligned; a tensor without a target copy is 0 in
                                  targets */
    char *evaluation_json;     /* of that cut; NULL if none */
    struct lh_row_source rows; /* of the job's tables; read from disk as they are asked for */
    struct lh_rowtable_reader *tables[LH_GRAPH_TABLES_MAX]; /* the same, to be walked */
};
/* BEST is the last cut where none was evaluated, or none could be ranked. Errors: LH_ENOENT if DIR
 * is no run or has no complete cut yet; LH_EMISMATCH if config.yaml, run.json and the stores do not
 * belong together; LH_ECORRUPT naming store, version, tensor and row block; those of the record and
 * the config. */
int lh_run_open(struct lh_run **out, const char *dir, enum lh_which_cut which);
void lh_run_close(struct lh_run **run);

/* The run's job alone, as its config.yaml says; caller destroys it. Errors: those of reading it. */
int lh_run_job(struct lh_job **out, const char *dir);
