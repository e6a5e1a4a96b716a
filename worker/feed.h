/* Fills a graph's inputs with a block of rows (worker/model.h): samples and gathers, or takes what
 * is given; pads. */
#pragma once

#include "common/dataset.h"
#include "common/graph.h"
#include "common/job.h"
#include "worker/lookup.h"
#include "worker/sample.h"

#include <stdbool.h>
#include <stdint.h>

enum { LH_FEED_NOISES_MAX = 16 };

/* Batches of consecutive steps that are there already, with the noise that goes with them. Row
 * step * batch + i of each array is for position i of the batch of `step`. */
struct lh_feed_given {
    uint64_t steps;
    const float *inputs[LH_INPUTS]; /* [steps * batch, width]; those that the graph reads, but for
                                       LH_ROW_WEIGHT */
    struct {
        const char *name; /* of a noise of the graph */
        size_t cols;
        const float *values; /* [steps * batch, cols] */
    } noise[LH_FEED_NOISES_MAX];
    size_t n_noise;
};

struct lh_feed {
    const struct lh_dataset *dataset; /* NULL: */
    const struct lh_feed_given *given;
    float *noise[LH_FEED_NOISES_MAX]; /* [block, cols] of the given */
    const struct lh_norm *norm;       /* NULL: raw */
    struct lh_exec *exec;
    struct lh_sampler sampler;
    struct lh_dims dims;
    uint64_t *rows;           /* [block] */
    struct lh_lookup *lookup; /* NULL: no tables */
    uint64_t *ids, *next_ids; /* [block, I], with tables */
    bool filled;              /* with what: */
    uint64_t step;
    uint32_t block;
};

/* block: rows of the graph of `exec`. */
int lh_feed_init(struct lh_feed *f, const struct lh_dataset *ds, const struct lh_job *job,
                 size_t block, struct lh_exec *exec);
/* Without a dataset: `given` lives as long as f. Errors: LH_ENOENT for noise that is not the
 * graph's. */
int lh_feed_init_given(struct lh_feed *f, const struct lh_feed_given *given,
                       const struct lh_job *job, size_t block, struct lh_exec *exec);
/* From now on, what is filled is looked up, too (a feed from a dataset). `lookup` stays the
 * caller's. */
int lh_feed_look_up(struct lh_feed *f, struct lh_lookup *lookup);
void lh_feed_fini(struct lh_feed *f);
/* Puts a block of the batch into the inputs of `exec`, if it is not there already: so it may be
 * called ahead, while weights are on their way. A padding row has zeros and weight 0. Errors: those
 * of lh_dataset_gather. Allocates nothing. */
int lh_feed_fill(struct lh_feed *f, uint64_t step, uint32_t block);
/* With tables: the ids of a block, to f->ids and f->next_ids; *n rows of them. What is filled
 * stays.
 */
int lh_feed_ids(struct lh_feed *f, uint64_t step, uint32_t block, size_t *n);
