/* What a scheduler's evaluator asks about each cut: the policy's NCIS value on the validation
 * split, held against the behaviour model; and at the end of a run, of its best cut, on test. */
#pragma once

#include "cluster/evaluator.h"
#include "common/dataset.h"
#include "common/job.h"
#include "worker/evaluate.h"
#include "worker/model.h"

struct lh_cut_evaluation;

/* A walk over the rows of a split with some weights. */
struct lh_cut_walk {
    enum lh_split split;
    unsigned threads;
    const float *weights;
    struct lh_row_source rows; /* of the job's tables */
    bool (*interrupted)(void); /* then LH_ECANCELED; NULL: never */
};

/* Who shares the walk over a split with others (cluster/rank_evaluation.h). */
struct lh_evaluate_helpers {
    void *ctx;
    /* Appends the pieces of all blocks, in ascending order; as lh_cut_evaluation_walk. */
    int (*walk)(void *ctx, const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                struct lh_evaluate_pieces *out);
};

struct lh_cut_evaluation {
    const struct lh_dataset *dataset;
    const struct lh_job *job;
    const struct lh_model *model;
    struct lh_behaviour *behaviour;
    char *behaviour_path;
    const struct lh_evaluate_helpers *helpers; /* NULL: none */
};

/* Opens the behaviour model (trains it first where job->behaviour is "auto" and it is not there).
 * All zero afterwards if the dataset has no validation split: then nothing is evaluated. */
int lh_cut_evaluation_init(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model, unsigned workers,
                           bool quiet);
/* The same with a behaviour model that is there already, for who helps. */
int lh_cut_evaluation_open(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model,
                           const char *behaviour_path);
void lh_cut_evaluation_fini(struct lh_cut_evaluation *e);

/* An lh_evaluate_cut; ctx is the struct. */
int lh_cut_evaluation_run(void *ctx, const struct lh_evaluator_version *v, struct lh_verdict *out);
/* Ids that rows of a split name, `n` of table t, every `stride`-th. */
typedef int (*lh_cut_ids)(void *to, size_t t, const uint64_t *ids, size_t n, size_t stride);
/* Says those of the blocks [first, first + n), repetitions among them. */
int lh_cut_evaluation_each(const struct lh_cut_evaluation *e, enum lh_split split, uint64_t first,
                           uint64_t n, lh_cut_ids say, void *to);
/* The ids of tables that it looks up; ctx likewise. */
int lh_cut_evaluation_ids(void *ctx, struct lh_rowpull *to);

/* Walks the blocks [first, first + n) of the split and appends their pieces. */
int lh_cut_evaluation_walk(const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                           uint64_t first, uint64_t n, struct lh_evaluate_pieces *out);

/* The verdict on weights on the test split, by as many threads as there are processors, until
 * `interrupted` (NULL: never) says LH_ECANCELED. LH_NOTFOUND (without a sentence) if the dataset
 * has no test split, or nothing is evaluated. */
int lh_cut_evaluation_test(const struct lh_cut_evaluation *e, const float *weights,
                           const struct lh_row_source *rows, bool (*interrupted)(void),
                           struct lh_verdict *out);
