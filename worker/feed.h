/* Fills a graph's inputs with a micro-batch: samples, gathers, pads. */
#pragma once

#include "common/dataset.h"
#include "common/graph.h"
#include "common/job.h"
#include "worker/sample.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_feed {
    const struct lh_dataset *dataset;
    const struct lh_norm *norm; /* NULL: raw */
    struct lh_exec *exec;
    struct lh_sampler sampler;
    struct lh_dims dims;
    uint64_t *rows; /* [micro_batch] */
    bool filled;    /* with what: */
    uint64_t step;
    uint32_t leaf;
};

int lh_feed_init(struct lh_feed *f, const struct lh_dataset *ds, const struct lh_job *job,
                 struct lh_exec *exec);
void lh_feed_fini(struct lh_feed *f);
/* Puts the micro-batch into the inputs of `exec`, if it is not there already: so it may be called
 * ahead, while weights are on their way. A padding row has zeros and weight 0. Errors: those of
 * lh_dataset_gather. Allocates nothing. */
int lh_feed_fill(struct lh_feed *f, uint64_t step, uint32_t leaf);
