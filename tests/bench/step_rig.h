/* The training step that benchmarks are about: ResAct, hidden N x N (256 unless said), s_h 32,
 * s_l 64, action 32, latent 64. Its graph with memory to run it, and its bare products. */
#pragma once

#include "common/graph.h"
#include "common/job.h"

#include <stddef.h>

struct step_rig {
    struct lh_graph *g;
    struct lh_exec *e;
    float *params, *targets, *grads;
    float *pool;               /* operands of the bare products */
    size_t pool_size, largest; /* elements; of the largest product's operands */
    double flops;              /* of a run */
};

int step_rig_init(struct step_rig *r, size_t rows, size_t hidden);
void step_rig_fini(struct step_rig *r);
/* One run of the graph, forward and backward. */
void step_rig_run(struct step_rig *r);
/* The products of a run by cblas_sgemm, nothing else, on operands that move through the first
 * `pool` elements of the pool; at least `largest`. */
void step_rig_products(struct step_rig *r, size_t pool);
