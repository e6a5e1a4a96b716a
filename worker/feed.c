/* From (step, micro-batch) to the inputs of the training graph. */
#include "worker/feed.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

int lh_feed_init(struct lh_feed *f, const struct lh_dataset *ds, const struct lh_job *job,
                 struct lh_exec *exec)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    *f = (struct lh_feed){.dataset = ds,
                          .norm = job->normalise ? lh_dataset_norm(ds) : NULL,
                          .exec = exec,
                          .dims = info->dims,
                          .sampler = {.mode = job->sampling,
                                      .seed = job->seed,
                                      .transitions = info->split[LH_TRAIN].transitions,
                                      .batch = job->batch,
                                      .micro_batch = job->micro_batch}};
    if (f->sampler.transitions == 0)
        return lh_err_set(LH_ECONFIG, "%s: the training split has no transitions",
                          lh_dataset_dir(ds));
    return LH_NEW_ARRAY(&f->rows, job->micro_batch, "rows of a micro-batch");
}

void lh_feed_fini(struct lh_feed *f)
{
    lh_mem_free(f->rows);
    f->rows = NULL;
}

static void zero_rows(struct lh_feed *f, enum lh_input_kind kind, size_t cols, size_t from)
{
    float *x = lh_exec_input(f->exec, kind);
    if (x)
        memset(x + from * cols, 0, (f->sampler.micro_batch - from) * cols * sizeof *x);
}

static void pad(struct lh_feed *f, size_t from)
{
    zero_rows(f, LH_STATE_HIGH, f->dims.high, from);
    zero_rows(f, LH_STATE_LOW, f->dims.low, from);
    zero_rows(f, LH_ACTION, f->dims.action, from);
    zero_rows(f, LH_REWARD, 1, from);
    zero_rows(f, LH_NOT_DONE, 1, from);
    zero_rows(f, LH_REWARD_CLASS, 1, from);
    zero_rows(f, LH_NEXT_STATE_HIGH, f->dims.high, from);
    zero_rows(f, LH_NEXT_STATE_LOW, f->dims.low, from);
    zero_rows(f, LH_ROW_WEIGHT, 1, from);
}

int lh_feed_fill(struct lh_feed *f, uint64_t step, uint32_t leaf)
{
    if (f->filled && f->step == step && f->leaf == leaf)
        return 0;
    f->filled = false;
    size_t n = lh_sample_leaf(&f->sampler, step, leaf, f->rows);
    for (size_t i = 0; i < n; i++)
        f->rows[i] = lh_dataset_transition_row(f->dataset, LH_TRAIN, f->rows[i]);
    struct lh_batch to = {.high = lh_exec_input(f->exec, LH_STATE_HIGH),
                          .low = lh_exec_input(f->exec, LH_STATE_LOW),
                          .action = lh_exec_input(f->exec, LH_ACTION),
                          .reward = lh_exec_input(f->exec, LH_REWARD),
                          .not_done = lh_exec_input(f->exec, LH_NOT_DONE),
                          .reward_class = lh_exec_input(f->exec, LH_REWARD_CLASS),
                          .next_high = lh_exec_input(f->exec, LH_NEXT_STATE_HIGH),
                          .next_low = lh_exec_input(f->exec, LH_NEXT_STATE_LOW)};
    LH_TRY(lh_dataset_gather(f->dataset, LH_TRAIN, f->rows, n, f->norm, &to));
    float *weight = lh_exec_input(f->exec, LH_ROW_WEIGHT);
    for (size_t i = 0; weight && i < n; i++)
        weight[i] = (float)(1.0 / (double)f->sampler.batch);
    pad(f, n);
    f->filled = true;
    f->step = step;
    f->leaf = leaf;
    return 0;
}
