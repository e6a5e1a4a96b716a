/* run.json: what a run is and which of its cuts are complete. The scheduler's durable record: a cut
 * exists when it is listed here, which is after every server has prepared it and before any is told
 * to commit; so a version that a server holds as PREPARED counts if and only if it is listed.
 *
 *   {"format": 1, "state": "running" | "stopped" | "finished" | "failed",
 *    "job_digest": "16 hex digits", "dataset_digest": "16 hex digits", "servers": S,
 *    "steps_total": N, "cuts": [{"version": v, "servers": S, "evaluation": {...} | null}, ...],
 *    "best": v | null, "last": v | null, "behaviour": "path" | null, "blas": "version kernel" |
 * null, "error": "sentence" | null}
 *
 * Cuts ascend by version. `servers` of a cut is how many stores (store-0 …) it is spread over. */
#pragma once

#include "common/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_run_state { LH_RUN_RUNNING, LH_RUN_STOPPED, LH_RUN_FINISHED, LH_RUN_FAILED, LH_RUN_STATES };
extern const char *const lh_run_state_names[LH_RUN_STATES];

struct lh_run_cut {
    uint64_t version;
    uint32_t servers;
    char *evaluation_json; /* an object; NULL if none */
};

struct lh_run_record {
    enum lh_run_state state;
    uint64_t job_digest, dataset_digest;
    uint32_t servers;
    uint64_t steps_total;
    struct lh_run_cut *cuts; /* ascending by version */
    size_t n_cuts, cap_cuts;
    bool has_best, has_last;
    uint64_t best, last; /* versions of cuts in the list */
    char *behaviour;     /* snapshot of the behaviour model; NULL if none */
    char *blas;          /* what its workers compute with; NULL before the first came */
    char *error;         /* of a failed run; NULL if none */
};

/* An all-zero record is an empty one. */
void lh_run_record_fini(struct lh_run_record *r); /* idempotent */

/* A copy of its own. Errors: LH_ENOMEM. */
int lh_run_record_copy(struct lh_run_record *out, const struct lh_run_record *r);

/* Reads DIR/run.json into *out (which holds nothing before). Errors: LH_ENOENT; LH_EFORMAT naming
 * file and member. */
int lh_run_record_load(struct lh_run_record *out, const char *dir);
/* The same from text; `name` stands for the file in complaints. */
int lh_run_record_parse(struct lh_run_record *out, const char *text, size_t n, const char *name);
/* Writes DIR/run.json: aside, fsync, rename, fsync of the directory. Either the old or the new one
 * is there after a crash. Errors: LH_ENOSPC, LH_EACCES, LH_EIO; the old one then stays. */
int lh_run_record_save(const struct lh_run_record *r, const char *dir);

/* Adds a complete cut (it becomes `last`), or renews the servers of one that is there. */
int lh_run_record_add_cut(struct lh_run_record *r, uint64_t version, uint32_t servers);
/* Sets what the evaluation of a cut said (JSON text of an object, copied; NULL removes it).
 * Errors: LH_ENOENT if there is no such cut, LH_EFORMAT. */
int lh_run_record_set_evaluation(struct lh_run_record *r, uint64_t version, const char *json);
/* Forgets cuts: keeps the newest `keep` and the best. Returns how many are left; their versions
 * are what the stores must keep. */
size_t lh_run_record_retain(struct lh_run_record *r, size_t keep);
/* NULL if there is no such cut. */
const struct lh_run_cut *lh_run_record_cut(const struct lh_run_record *r, uint64_t version);
/* Lets a clock, whose total and periods are set, start from the last cut, or from the beginning. */
void lh_run_record_start(const struct lh_run_record *r, struct lh_clock *clock);
int lh_run_record_set_blas(struct lh_run_record *r, const char *blas);
int lh_run_record_set_behaviour(struct lh_run_record *r, const char *path);
int lh_run_record_set_error(struct lh_run_record *r, const char *sentence);
