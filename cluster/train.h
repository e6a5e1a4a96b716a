/* Training as one call, used by `longhaul train` and by whoever needs a trained model (the
 * behaviour model of the evaluation). Places the roles by a launcher, follows the run, evaluates at
 * cuts, keeps the best. The run directory:
 *
 *   config.yaml       the resolved job              metrics.jsonl   a line per reported step
 *   run.json          state, best and last cut, evaluations, digest, versions
 *   store-I/          shard I's LMDB environment    behaviour -> used behaviour snapshot (in
 * run.json)
 */
#pragma once

#include "common/dataset.h"
#include "common/job.h"

enum lh_launcher { LH_LAUNCH_LOCAL, LH_LAUNCH_PROCESSES };
enum lh_transport { LH_TRANSPORT_INPROC, LH_TRANSPORT_IPC, LH_TRANSPORT_TCP };

struct lh_train_options {
    const char *dir; /* run directory */
    unsigned workers, servers;
    enum lh_launcher launcher;
    enum lh_transport transport; /* of processes: ipc or tcp */
    bool resume;                 /* go on from the last complete cut in dir */
    bool quiet;
    uint64_t stop_after; /* steps; 0 = to the end (then the run can be resumed) */
    bool no_evaluation;  /* cuts are not evaluated and no behaviour model is asked for (the
                            behaviour model itself is trained so) */
};

struct lh_train_result {
    uint64_t steps, best_version;
    double seconds;
    uint64_t transitions;
    bool has_evaluation;
    double best_value, best_lo, best_hi, best_ess_share;
};

/* Errors: those of job, dataset, roles (by value, with their sentence); LH_EDIVERGED. The run
 * directory then still holds the last complete cut. */
int lh_train(const struct lh_job *job, const struct lh_train_options *opt,
             struct lh_train_result *out);

/* Reads a finished (or interrupted) run. */
enum lh_which_cut { LH_CUT_BEST, LH_CUT_LAST };
struct lh_run {
    struct lh_job *job;
    struct lh_graph *graph; /* the training graph at rows = micro_batch: layout of `weights` */
    uint64_t version;
    float *weights, *targets; /* flat */
    char *evaluation_json;    /* of that cut; NULL if none */
};
int lh_run_open(struct lh_run **out, const char *dir, enum lh_which_cut which);
void lh_run_close(struct lh_run **run);
