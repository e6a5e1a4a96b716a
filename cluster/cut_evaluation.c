/* From the weights of a cut to a verdict. */
#include "cluster/cut_evaluation.h"

#include "cluster/behaviour_train.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "worker/behaviour.h"
#include "worker/policy.h"

int lh_cut_evaluation_open(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model,
                           const char *behaviour_path)
{
    *e = (struct lh_cut_evaluation){.dataset = ds, .job = job, .model = model};
    int rc = lh_mem_strdup(&e->behaviour_path, behaviour_path);
    if (rc >= 0)
        rc = lh_behaviour_open(&e->behaviour, ds, behaviour_path);
    if (rc < 0)
        lh_cut_evaluation_fini(e);
    return rc;
}

int lh_cut_evaluation_init(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model, unsigned workers,
                           bool quiet)
{
    char *path = NULL;
    *e = (struct lh_cut_evaluation){0};
    if (lh_dataset_info(ds)->split[LH_VALIDATION].rows == 0)
        return 0;
    if (job->unit == LH_UNIT_SESSION) { /* whether it goes with the log: before a step is made */
        struct lh_evaluate_spec spec = {
            .ds = ds, .split = LH_VALIDATION, .cap = job->ncis_cap, .unit = job->unit};
        struct lh_evaluation ev;
        LH_TRY(lh_evaluate(&spec, job->ess_floor, 1, &ev, NULL));
    }
    LH_TRY(lh_behaviour_train_ensure(&path, ds, job->behaviour, workers, quiet));
    int rc = lh_cut_evaluation_open(e, ds, job, model, path);
    lh_mem_free(path);
    return rc;
}

void lh_cut_evaluation_fini(struct lh_cut_evaluation *e)
{
    lh_behaviour_close(&e->behaviour);
    lh_mem_free(e->behaviour_path);
    *e = (struct lh_cut_evaluation){0};
}

static struct lh_evaluate_spec spec_of(const struct lh_cut_evaluation *e, enum lh_split split)
{
    return (struct lh_evaluate_spec){.ds = e->dataset,
                                     .split = split,
                                     .behaviour = e->behaviour,
                                     .cap = e->job->ncis_cap,
                                     .unit = e->job->unit,
                                     .seed = e->job->seed};
}

int lh_cut_evaluation_walk(const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                           uint64_t first, uint64_t n, struct lh_evaluate_pieces *out)
{
    struct lh_evaluate_spec spec = spec_of(e, w->split);
    spec.interrupted = w->interrupted;
    LH_TRY(lh_policy_create(&spec.policy, e->job, lh_dataset_norm(e->dataset),
                            e->model->layout.params, e->model->layout.n_params, w->weights));
    const struct lh_dataset_info *info = lh_dataset_info(e->dataset);
    int rc = lh_policy_attach(spec.policy, &w->rows, info->id_names, info->dims.ids);
    if (rc == 0)
        rc = lh_evaluate_part(&spec, first, n, w->threads, out);
    lh_policy_destroy(&spec.policy);
    return rc;
}

static int evaluate(const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                    struct lh_verdict *out)
{
    const struct lh_evaluate_spec spec = spec_of(e, w->split);
    struct lh_evaluate_pieces pieces = {0};
    struct lh_evaluation ev;
    int rc = e->helpers ? e->helpers->walk(e->helpers->ctx, e, w, &pieces)
                        : lh_cut_evaluation_walk(e, w, 0, lh_evaluate_blocks(e->dataset, w->split),
                                                 &pieces);
    if (rc >= 0)
        rc = lh_evaluate_join(&spec, &pieces, e->job->ess_floor, &ev, NULL);
    lh_mem_free(pieces.items);
    LH_TRY(rc);
    out->value = ev.policy.value;
    out->lo = ev.policy.lo;
    out->hi = ev.policy.hi;
    out->ess_share = ev.policy.ess_share;
    out->eligible = !ev.policy.collapsed;
    return lh_evaluate_json(&ev, w->split, &out->json);
}

int lh_cut_evaluation_run(void *ctx, const struct lh_evaluator_version *v, struct lh_verdict *out)
{
    /* training needs the other processors, and what is best must not depend on interruptions; a
     * policy acts by its live weights */
    return evaluate(
        ctx,
        &(struct lh_cut_walk){
            .split = LH_VALIDATION, .threads = 1, .weights = v->weights, .rows = v->rows},
        out);
}

int lh_cut_evaluation_each(const struct lh_cut_evaluation *e, enum lh_split split, uint64_t first,
                           uint64_t n, lh_cut_ids say, void *to)
{
    const struct lh_dataset_info *info = lh_dataset_info(e->dataset);
    const uint64_t all = info->split[split].rows;
    size_t at[LH_GRAPH_TABLES_MAX][LH_JOB_TABLE_IDS_MAX];
    uint64_t *rows = NULL, *ids = NULL;
    int rc;
    if (e->job->n_tables == 0)
        return 0;
    for (size_t t = 0; t < e->job->n_tables; t++)
        LH_TRY(lh_job_tables_find(&e->job->tables[t], info->id_names, info->dims.ids, at[t]));
    LH_TRY_TO(done, LH_NEW_ARRAY(&rows, LH_EVALUATE_BLOCK, "ids of a split"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&ids, LH_EVALUATE_BLOCK * info->dims.ids, "ids of a split"));
    struct lh_batch batch = {.ids = ids};
    for (uint64_t block = first; block < first + n; block++) {
        const uint64_t from = block * LH_EVALUATE_BLOCK;
        const size_t k =
            all - from < LH_EVALUATE_BLOCK ? (size_t)(all - from) : (size_t)LH_EVALUATE_BLOCK;
        for (size_t i = 0; i < k; i++)
            rows[i] = from + i;
        LH_TRY_TO(done, lh_dataset_gather(e->dataset, split, rows, k, NULL, &batch));
        for (size_t t = 0; t < e->job->n_tables; t++)
            for (size_t c = 0; c < e->job->tables[t].n_ids; c++)
                LH_TRY_TO(done, say(to, t, ids + at[t][c], k, info->dims.ids));
    }
done:
    lh_mem_free(rows);
    lh_mem_free(ids);
    return rc;
}

static int add_to_pull(void *to, size_t t, const uint64_t *ids, size_t n, size_t stride)
{
    return lh_rowpull_add(to, t, ids, n, stride);
}

int lh_cut_evaluation_ids(void *ctx, struct lh_rowpull *to)
{
    const struct lh_cut_evaluation *e = ctx;
    return lh_cut_evaluation_each(e, LH_VALIDATION, 0,
                                  lh_evaluate_blocks(e->dataset, LH_VALIDATION), add_to_pull, to);
}

int lh_cut_evaluation_test(const struct lh_cut_evaluation *e, const float *weights,
                           const struct lh_row_source *rows, bool (*interrupted)(void),
                           struct lh_verdict *out)
{
    if (!e->behaviour || lh_dataset_info(e->dataset)->split[LH_TEST].rows == 0)
        return LH_NOTFOUND;
    return evaluate(e,
                    &(struct lh_cut_walk){.split = LH_TEST,
                                          .threads = lh_pool_cpus(),
                                          .weights = weights,
                                          .rows = *rows,
                                          .interrupted = interrupted},
                    out);
}
