/* From (step, block) to the inputs of the training graph. */
#include "worker/feed.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

int lh_feed_init(struct lh_feed *f, const struct lh_dataset *ds, const struct lh_job *job,
                 size_t block, struct lh_exec *exec)
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
                                      .block = block}};
    if (f->sampler.transitions == 0)
        return lh_err_set(LH_ECONFIG, "%s: the training split has no transitions",
                          lh_dataset_dir(ds));
    return LH_NEW_ARRAY(&f->rows, block, "rows of a block");
}

int lh_feed_init_given(struct lh_feed *f, const struct lh_feed_given *given,
                       const struct lh_job *job, size_t block, struct lh_exec *exec)
{
    *f = (struct lh_feed){.given = given,
                          .exec = exec,
                          .dims = job->dims,
                          .sampler = {.batch = job->batch, .block = block}};
    for (size_t k = 0; k < given->n_noise; k++) {
        size_t n;
        LH_TRY(lh_mem_mul(&n, block, given->noise[k].cols));
        LH_TRY(LH_NEW_ARRAY(&f->noise[k], n, "noise of a block"));
        LH_TRY(lh_exec_set_noise(exec, given->noise[k].name, f->noise[k]));
    }
    return 0;
}

int lh_feed_look_up(struct lh_feed *f, struct lh_lookup *lookup)
{
    LH_TRY(LH_NEW_ARRAY(&f->ids, f->sampler.block * f->dims.ids, "ids of a block"));
    LH_TRY(LH_NEW_ARRAY(&f->next_ids, f->sampler.block * f->dims.ids, "ids of a block"));
    f->lookup = lookup;
    return 0;
}

void lh_feed_fini(struct lh_feed *f)
{
    lh_mem_free(f->ids);
    lh_mem_free(f->next_ids);
    f->ids = f->next_ids = NULL;
    for (size_t k = 0; k < LH_FEED_NOISES_MAX; k++) {
        lh_mem_free(f->noise[k]);
        f->noise[k] = NULL;
    }
    lh_mem_free(f->rows);
    f->rows = NULL;
}

static size_t width(const struct lh_feed *f, enum lh_input_kind kind)
{
    switch (kind) {
    case LH_STATE_HIGH:
    case LH_NEXT_STATE_HIGH:
        return f->dims.high;
    case LH_STATE_LOW:
    case LH_NEXT_STATE_LOW:
        return f->dims.low;
    case LH_ACTION:
        return f->dims.action;
    default:
        return 1;
    }
}

static void zero_rows(const struct lh_feed *f, float *x, size_t cols, size_t from)
{
    memset(x + from * cols, 0, (f->sampler.block - from) * cols * sizeof *x);
}

static size_t take_given(struct lh_feed *f, uint64_t step, uint32_t block)
{
    const struct lh_feed_given *g = f->given;
    const size_t first = block * f->sampler.block, left = f->sampler.batch - first;
    const size_t n = left < f->sampler.block ? left : f->sampler.block;
    const size_t row = (size_t)step * f->sampler.batch + first;
    for (int kind = 0; kind < LH_ROW_WEIGHT; kind++) {
        float *to = lh_exec_input(f->exec, (enum lh_input_kind)kind);
        const size_t cols = width(f, (enum lh_input_kind)kind);
        if (to)
            memcpy(to, g->inputs[kind] + row * cols, n * cols * sizeof *to);
    }
    for (size_t k = 0; k < g->n_noise; k++) {
        const size_t cols = g->noise[k].cols;
        memcpy(f->noise[k], g->noise[k].values + row * cols, n * cols * sizeof(float));
        zero_rows(f, f->noise[k], cols, n);
    }
    return n;
}

/* The rows of a block, to f->rows. */
static size_t sample(struct lh_feed *f, uint64_t step, uint32_t block)
{
    const size_t n = lh_sample_block(&f->sampler, step, block, f->rows);
    for (size_t i = 0; i < n; i++)
        f->rows[i] = lh_dataset_transition_row(f->dataset, LH_TRAIN, f->rows[i]);
    return n;
}

int lh_feed_ids(struct lh_feed *f, uint64_t step, uint32_t block, size_t *n)
{
    struct lh_batch to = {.ids = f->ids, .next_ids = f->next_ids};
    *n = sample(f, step, block);
    return lh_dataset_gather(f->dataset, LH_TRAIN, f->rows, *n, NULL, &to);
}

static int gather(struct lh_feed *f, uint64_t step, uint32_t block, size_t *n)
{
    *n = sample(f, step, block);
    struct lh_batch to = {.high = lh_exec_input(f->exec, LH_STATE_HIGH),
                          .low = lh_exec_input(f->exec, LH_STATE_LOW),
                          .action = lh_exec_input(f->exec, LH_ACTION),
                          .reward = lh_exec_input(f->exec, LH_REWARD),
                          .not_done = lh_exec_input(f->exec, LH_NOT_DONE),
                          .reward_class = lh_exec_input(f->exec, LH_REWARD_CLASS),
                          .next_high = lh_exec_input(f->exec, LH_NEXT_STATE_HIGH),
                          .next_low = lh_exec_input(f->exec, LH_NEXT_STATE_LOW),
                          .ids = f->ids,
                          .next_ids = f->next_ids};
    LH_TRY(lh_dataset_gather(f->dataset, LH_TRAIN, f->rows, *n, f->norm, &to));
    if (f->lookup)
        lh_lookup_take(f->lookup, f->ids, f->next_ids, *n);
    return 0;
}

static void pad(struct lh_feed *f, size_t from)
{
    for (int kind = 0; kind < LH_INPUTS; kind++) {
        float *x = lh_exec_input(f->exec, (enum lh_input_kind)kind);
        if (x)
            zero_rows(f, x, width(f, (enum lh_input_kind)kind), from);
    }
}

int lh_feed_fill(struct lh_feed *f, uint64_t step, uint32_t block)
{
    size_t n;
    if (f->filled && f->step == step && f->block == block)
        return 0;
    f->filled = false;
    if (f->given)
        n = take_given(f, step, block);
    else
        LH_TRY(gather(f, step, block, &n));
    float *weight = lh_exec_input(f->exec, LH_ROW_WEIGHT);
    for (size_t i = 0; weight && i < n; i++)
        weight[i] = (float)(1.0 / (double)f->sampler.batch);
    pad(f, n);
    f->filled = true;
    f->step = step;
    f->block = block;
    return 0;
}
