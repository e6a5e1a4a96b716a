/* A case: the arrays of consecutive training steps, from a directory of .npy files.
 *
 *   config.yaml                 a job; objective.bound is none unless the file says otherwise
 *   batch/NAME.npy              s_h s_l a r s_h_next s_l_next done r_class, as networks see them
 *   noise/NAME.npy              c_enc c_pi h_pi c_next h_next
 *   param/NAME.npy              weights before the first step
 *   target/NAME.npy             target copies before the first step
 *
 * Of these the files that the job's training graph reads. tests/reference/README.md tells shapes.
 */
#pragma once

#include "common/job.h"
#include "worker/feed.h"
#include "worker/model.h"

struct lh_step_case {
    struct lh_job *job; /* resolved; batch, micro_batch and steps are those of the arrays */
    struct lh_model model;
    struct lh_feed_given batches;
    float *weights, *targets; /* [flat_size]; 0 where a tensor has no target */
    float *inputs[LH_INPUTS]; /* what `batches` points to */
    float *noise[LH_FEED_NOISES_MAX];
};

/* Arrays in batch/ and noise/ hold `steps` (>= 1) batches, one after the other. Errors: LH_ENOENT,
 * LH_EFORMAT, LH_EMISMATCH for a shape, LH_ERANGE for a value, each naming the file; those of
 * the config. */
int lh_step_case_open(struct lh_step_case **out, const char *dir, uint64_t steps);
void lh_step_case_close(struct lh_step_case **c); /* NULL content allowed */

/* Shape of a parameter as files have it: [out, in] of a weight, [out] of a bias. Returns the rank.
 */
size_t lh_step_case_shape(const struct lh_param *p, size_t shape[2]);
