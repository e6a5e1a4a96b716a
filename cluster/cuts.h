/* Which cuts of a run exist, which are kept, which is best: the scheduler's judgement on top of
 * run.json (cluster/run_record.h). */
#pragma once

#include "cluster/evaluator.h"
#include "cluster/run_record.h"
#include "cluster/step_lines.h"
#include "common/job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_cuts {
    struct lh_run_record *record; /* a loan */
    const char *dir;
    size_t keep; /* newest cuts beside the best */
    enum lh_choose choose;
    bool quiet;
    bool has_best;
    double best_value;
    bool has_verdict; /* of a version whose cut is not complete yet */
    bool has_line;    /* that verdict is in evaluations.jsonl already */
    uint64_t verdict_version;
    struct lh_verdict verdict;     /* the last one; its numbers stay */
    uint64_t evaluated, completed; /* how many since init */
    double completed_at;           /* the last; lh_now() */
    struct lh_step_lines *evaluations;
    uint64_t decided; /* the newest version that is complete or void; 0: none */
    /* Of a version that is not in the record, since that could not be saved, but that may stand in
     * the file: its rename was done, and could not be made durable. 0: none. */
    uint64_t unsure;
    bool unsaved;           /* the record holds an evaluation that run.json does not */
    uint64_t failed;        /* cuts that did not come about, since init */
    uint64_t failed_in_row; /* of these, since the last that did */
    struct lh_err trouble;  /* why; code 0: the last one came about */
    uint64_t troubled;      /* the version that this was of */
};

/* Opens DIR/evaluations.jsonl behind the last cut of the record: a line a verdict, {"step": N,
 * "evaluation": {…}}, also of cuts that are no longer kept. `again`: that cut will be evaluated.
 * Errors: LH_ENOMEM, those of files. */
int lh_cuts_init(struct lh_cuts *c, struct lh_run_record *record, const char *dir,
                 const struct lh_job *job, bool again, bool quiet);
/* The run goes back to the last cut of the record: what was said of later versions is forgotten,
 * and comes again. `again` as above. */
int lh_cuts_back(struct lh_cuts *c, bool again);
void lh_cuts_fini(struct lh_cuts *c);

/* All servers have prepared `version`: it enters the record, and older ones leave it, but for the
 * best and those that may still turn out best. The record is durable when this returns 0; what it
 * then lists is what stores must keep (lh_cuts_kept). `evaluator` may be NULL.
 * Errors: those of files: the record is as before, and this may be called again; LH_ENOMEM. */
int lh_cuts_complete(struct lh_cuts *c, uint64_t version, uint32_t servers,
                     const struct lh_evaluator *evaluator);
/* `version` will not be a cut, for the reason `why`: this is said, unless the last thing said was
 * of the same code. */
void lh_cuts_trouble(struct lh_cuts *c, uint64_t version, const struct lh_err *why);
/* It is decided that `version` is no cut: this is counted, and a verdict on it chooses nothing. */
void lh_cuts_void(struct lh_cuts *c, uint64_t version);
bool lh_cuts_is_void(const struct lh_cuts *c, uint64_t version);

/* The versions that stores must keep; *out is an array, caller frees. Errors: LH_ENOMEM. */
int lh_cuts_kept(const struct lh_cuts *c, uint64_t **out, size_t *n);

/* Takes a verdict of the evaluator (may be NULL), if there is one, and enters it into the record
 * once its cut is there. The best is, as the job chooses, the last eligible cut or that of the
 * highest value, the earlier of equals. A record that cannot be saved is saved with the next cut.
 * Errors: the evaluation's; LH_ENOMEM. */
int lh_cuts_judge(struct lh_cuts *c, struct lh_evaluator *evaluator);
