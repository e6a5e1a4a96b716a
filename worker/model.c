/* From a job to graph and layout. */
#include "worker/model.h"

#include "common/err.h"
#include "worker/algo.h"

static int make_layout(struct lh_model *m, const struct lh_algo *algo, const struct lh_job *job,
                       size_t shards)
{
    struct lh_algo_group groups[LH_ALGO_GROUPS_MAX];
    struct lh_update_rule rules[LH_ALGO_GROUPS_MAX];
    size_t n = algo->groups(job, groups);
    for (size_t i = 0; i < n; i++)
        rules[i] = (struct lh_update_rule){.pattern = groups[i].pattern,
                                           .learning_rate = groups[i].learning_rate,
                                           .period = groups[i].period,
                                           .tau = groups[i].tau,
                                           .target_period = groups[i].target_period};
    return lh_layout_init(&m->layout, m->graph, rules, n, shards);
}

int lh_model_init(struct lh_model *out, const struct lh_job *job, size_t shards)
{
    const struct lh_algo *algo = lh_algo_find(job->algorithm);
    int rc;
    if (!algo)
        return lh_err_set(LH_ECONFIG, "algorithm '%s' is unknown", job->algorithm);
    if (job->dims.action == 0)
        return lh_err_set(LH_EINTERNAL, "job %s was not resolved against its dataset", job->name);
    *out = (struct lh_model){.block = job->micro_batch < LH_MODEL_BLOCK ? job->micro_batch
                                                                        : LH_MODEL_BLOCK};
    struct lh_graph_spec spec = {.rows = out->block, .dims = job->dims};
    lh_job_tables_declare(job, &spec);
    LH_TRY(lh_graph_create(&out->graph, &spec));
    LH_TRY_TO(fail, algo->declare_train(out->graph, job));
    LH_TRY_TO(fail, lh_graph_compile(out->graph));
    LH_TRY_TO(fail, make_layout(out, algo, job, shards));
    out->n_metrics = lh_graph_metrics(out->graph);
    out->leaves = (uint32_t)((job->batch + job->micro_batch - 1) / job->micro_batch);
    return 0;
fail:
    lh_model_fini(out);
    return rc;
}

void lh_model_fini(struct lh_model *m)
{
    lh_layout_fini(&m->layout);
    lh_graph_destroy(&m->graph);
}
