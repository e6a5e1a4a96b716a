/* Algorithms: one file each (algo_resact.c, algo_il.c, …), which declares two graphs over the same
 * parameters: the training step and the execution of the policy. */
#pragma once

#include "common/graph.h"
#include "common/job.h"

/* How the server updates one family of parameters. */
struct lh_algo_group {
    const char *pattern; /* "actor.*" as in lh_loss */
    double learning_rate;
    uint32_t period;        /* optimiser steps every `period` steps (delayed updates) */
    double tau;             /* soft update of the target copy, for tensors that have one */
    uint32_t target_period; /* steps between soft updates */
};

#define LH_ALGO_GROUPS_MAX 8

struct lh_algo {
    const char *name, *summary;
    /* Declares the training step over batches of spec.rows rows. */
    int (*declare_train)(struct lh_graph *g, const struct lh_job *job);
    /* Declares execution over spec.rows STATES: inputs LH_STATE_HIGH/LOW; outputs "action" [B, A]
     * (scaled), and for --explain where they exist "candidates" [B N, A], "reconstructed" [B N, A],
     * "residual" [B N, A], "q" [B N, 1]. */
    int (*declare_act)(struct lh_graph *g, const struct lh_job *job);
    size_t (*groups)(const struct lh_job *job, struct lh_algo_group out[LH_ALGO_GROUPS_MAX]);
};

/* NULL if unknown. lh_algo_all: NULL-terminated. */
const struct lh_algo *lh_algo_find(const char *name);
const struct lh_algo *const *lh_algo_all(void);
