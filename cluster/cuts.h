/* Which cuts of a run exist, which are kept, which is best: the scheduler's judgement on top of
 * run.json (cluster/run_record.h). */
#pragma once

#include "cluster/evaluator.h"
#include "cluster/run_record.h"
#include "common/job.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct lh_cuts {
    struct lh_run_record *record; /* a loan */
    const char *dir;
    size_t keep; /* newest cuts beside the best */
    enum lh_choose choose;
    bool quiet;
    bool has_best;
    double best_value;
    bool has_verdict; /* of a version whose cut is not complete yet */
    uint64_t verdict_version;
    struct lh_verdict verdict;     /* the last one; its numbers stay */
    uint64_t evaluated, completed; /* how many since init */
    double completed_at;           /* the last; lh_now() */
    char *evaluations_path;
    FILE *evaluations;
};

/* Opens DIR/evaluations.jsonl behind the last cut of the record: a line a verdict, {"step": N,
 * "evaluation": {…}}, also of cuts that are no longer kept. `again`: that cut will be evaluated.
 * Errors: LH_ENOMEM, those of files. */
int lh_cuts_init(struct lh_cuts *c, struct lh_run_record *record, const char *dir,
                 const struct lh_job *job, bool again, bool quiet);
void lh_cuts_fini(struct lh_cuts *c);

/* All servers have prepared `version`: it enters the record, and older ones leave it, but for the
 * best and those that may still turn out best. The record is durable when this returns; what it
 * then lists is what stores must keep. `evaluator` may be NULL. */
int lh_cuts_complete(struct lh_cuts *c, uint64_t version, uint32_t servers,
                     const struct lh_evaluator *evaluator);

/* Takes a verdict of the evaluator (may be NULL), if there is one, and enters it into the record
 * once its cut is there. The best is, as the job chooses, the last eligible cut or that of the
 * highest value, the earlier of equals.
 * Errors: the evaluation's. */
int lh_cuts_judge(struct lh_cuts *c, struct lh_evaluator *evaluator);
