/* Evaluation beside training: a thread of the scheduler that fetches the weights of each version
 * that the clock says is evaluated, asking in advance so that it gets exactly that one, and hands
 * them to a callback. Training waits at such a version until it has been fetched whole, which it
 * says, not until it has been evaluated. */
#pragma once

#include "common/clock.h"
#include "common/err.h"
#include "common/layout.h"
#include "common/rowpull.h"
#include "common/rowsource.h"
#include "common/security.h"

#include <stdbool.h>
#include <stdint.h>

/* What the evaluation of a cut says. */
struct lh_verdict {
    double value, lo, hi, ess_share;
    bool eligible; /* may be chosen as best: its effective sample size is above the floor */
    char *json;    /* an object, for run.json; lh_mem_free */
};

/* Evaluates weights and targets (flat) of a version, and rows of tables, those that `ids` (below)
 * named. Runs in the evaluator's thread. */
struct lh_evaluator_version {
    uint64_t number;
    const float *weights, *targets;
    struct lh_row_source rows;
};
typedef int (*lh_evaluate_cut)(void *ctx, const struct lh_evaluator_version *v,
                               struct lh_verdict *out);

struct lh_evaluator_spec {
    void *zmq;
    const struct lh_layout *layout;
    char *const *endpoints;             /* of the servers, by shard; copied */
    char *const *keys;                  /* their public keys, by shard; copied; NULL: none */
    const struct lh_security *security; /* NULL: none */
    uint64_t job;
    uint32_t generation; /* of the servers' plans */
    struct lh_clock clock;
    double deadline; /* seconds a shard may take to send what it has begun */
    lh_evaluate_cut evaluate;
    /* The job's tables, and what of them an evaluation looks up; n_tables 0: none. */
    const struct lh_graph_table *tables;
    size_t n_tables;
    int (*ids)(void *ctx, struct lh_rowpull *to);
    void *ctx;
};

struct lh_evaluator;

int lh_evaluator_start(struct lh_evaluator **out, const struct lh_evaluator_spec *spec);
/* Waits for an evaluation under way. NULL content allowed. */
void lh_evaluator_stop(struct lh_evaluator **e);

/* The next finished evaluation; false if there is none. The caller owns verdict.json. An error
 * (err->code) ends the evaluator. */
bool lh_evaluator_poll(struct lh_evaluator *e, uint64_t *version, struct lh_verdict *out,
                       struct lh_err *err);
/* The version it works on or waits for, results not yet polled included; UINT64_MAX: none. */
uint64_t lh_evaluator_next(const struct lh_evaluator *e);
