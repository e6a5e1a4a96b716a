/* What is going on in a run directory, for whoever has no part in it: from run.json, status.json
 * and whether anybody holds the directory's lock. Changes nothing. */
#pragma once

#include "cluster/run_record.h"
#include "cluster/status.h"

#include <stdbool.h>
#include <stdio.h>

enum lh_run_going {
    LH_GOING_PREPARING, /* somebody works there, but no scheduler listens yet */
    LH_GOING_GATHERING, /* it waits for its roles */
    LH_GOING_TRAINING,
    LH_GOING_ENDING,  /* it pauses, or waits for its last checkpoint, evaluation, roles */
    LH_GOING_SILENT,  /* somebody works there, but has not said how it stands for a while */
    LH_GOING_STOPPED, /* interrupted or stopped; can be resumed */
    LH_GOING_FINISHED,
    LH_GOING_FAILED,
    LH_GOING_DIED, /* run.json says that it runs, but nobody does: it was killed */
    LH_GOING_N
};
extern const char *const lh_run_going_names[LH_GOING_N]; /* "preparing", … */

struct lh_run_watch {
    enum lh_run_going going;
    bool lives;       /* a process works there */
    char detail[640]; /* a phrase to the state, with the cure where it needs one; "": none */
    bool has_record, has_status; /* which of them there are */
    struct lh_run_record record;
    struct lh_status status; /* of the last scheduler that worked there */
    double age;              /* seconds since it was written */
};

/* Looks once. *out holds nothing before. Errors: LH_ENOENT if there is no run in dir; LH_EFORMAT
 * for a run.json or status.json that is none; those of files. */
int lh_run_watch_look(struct lh_run_watch *out, const char *dir);
void lh_run_watch_fini(struct lh_run_watch *w); /* idempotent */

/* For people: some lines on `to`. `before` (NULL: none) is an earlier look at the same run: where
 * roles' time went is then shown since, else since they began. */
int lh_run_watch_print(const struct lh_run_watch *w, const struct lh_run_watch *before,
                       const char *dir, FILE *to);

/* {"dir", "state", "lives", "detail", "age", "run": {…}, "status": {…}} with all of status.json,
 * and null where there is none; the caller frees with lh_mem_free. Errors: LH_ENOMEM. */
int lh_run_watch_json(const struct lh_run_watch *w, const char *dir, char **out);
