/* A job made concrete: its training graph, and how the parameters are laid out over shards and
 * updated. Every role derives the same from the same job. */
#pragma once

#include "common/graph.h"
#include "common/job.h"
#include "common/layout.h"

#include <stddef.h>
#include <stdint.h>

/* A micro-batch of more rows than this goes through the graph in blocks of so many, one after the
 * other into the same gradient: what lies between forward and backward then stays in the caches,
 * and there is less to sum than with as many micro-batches. */
#define LH_MODEL_BLOCK 256

struct lh_model {
    struct lh_graph *graph; /* of `block` rows */
    size_t block;           /* micro_batch, or LH_MODEL_BLOCK if that is less */
    struct lh_layout layout;
    size_t n_metrics;
    uint32_t leaves; /* K: micro-batches of a step */
};

/* The job must be resolved. Errors: LH_ECONFIG (algorithm, shapes, more shards than rows). */
int lh_model_init(struct lh_model *out, const struct lh_job *job, size_t shards);
void lh_model_fini(struct lh_model *m); /* idempotent */
