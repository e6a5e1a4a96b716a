/* What a scheduler's evaluator asks about each cut: the policy's NCIS value on the validation
 * split, held against the behaviour model; and at the end of a run, of its best cut, on test. */
#pragma once

#include "cluster/evaluator.h"
#include "common/dataset.h"
#include "common/job.h"
#include "worker/model.h"

struct lh_cut_evaluation {
    const struct lh_dataset *dataset;
    const struct lh_job *job;
    const struct lh_model *model;
    struct lh_behaviour *behaviour;
    char *behaviour_path;
};

/* Opens the behaviour model (trains it first where job->behaviour is "auto" and it is not there).
 * All zero afterwards if the dataset has no validation split: then nothing is evaluated. */
int lh_cut_evaluation_init(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model, unsigned workers,
                           bool quiet);
void lh_cut_evaluation_fini(struct lh_cut_evaluation *e);

/* An lh_evaluate_cut; ctx is the struct. */
int lh_cut_evaluation_run(void *ctx, uint64_t version, const float *weights, const float *targets,
                          struct lh_verdict *out);

/* The same of weights on the test split, by as many threads as there are processors, until
 * `interrupted` (NULL: never) says LH_ECANCELED. LH_NOTFOUND (without a sentence) if the dataset
 * has no test split, or nothing is evaluated. */
int lh_cut_evaluation_test(const struct lh_cut_evaluation *e, const float *weights,
                           bool (*interrupted)(void), struct lh_verdict *out);
