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

/* The one noise an execution graph may draw: act_noise(job) standard normals a state, of which
 * estimator i has the i-th part. Whoever runs the graph gives them (policy.c). */
#define LH_ALGO_ACT_NOISE "c_act"

struct lh_algo {
    const char *name, *summary;
    /* Declares the training step over batches of spec.rows rows. */
    int (*declare_train)(struct lh_graph *g, const struct lh_job *job);
    /* Declares execution over spec.rows STATES: inputs LH_STATE_HIGH/LOW, noise LH_ALGO_ACT_NOISE
     * [B, act_noise]; outputs "action" [B, A] (scaled), and for --explain where they exist
     * "candidates" [B N, A], "reconstructed" [B N, A], "residual" [B N, A], "q" [B N, 1]. */
    int (*declare_act)(struct lh_graph *g, const struct lh_job *job);
    size_t (*act_noise)(const struct lh_job *job); /* NULL: execution draws nothing */
    bool chooses; /* execution chooses among job->estimators candidates (1 if !job->cvae) */
    size_t (*groups)(const struct lh_job *job, struct lh_algo_group out[LH_ALGO_GROUPS_MAX]);
};

/* NULL if unknown. lh_algo_all: NULL-terminated. */
const struct lh_algo *lh_algo_find(const char *name);
const struct lh_algo *const *lh_algo_all(void);

/* One line here, one in algo.c and one file for an algorithm. */
extern const struct lh_algo lh_algo_il, lh_algo_il_cvae, lh_algo_resact;
