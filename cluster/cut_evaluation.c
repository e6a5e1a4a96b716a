/* From the weights of a cut to a verdict. */
#include "cluster/cut_evaluation.h"

#include "cluster/behaviour_train.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "worker/behaviour.h"
#include "worker/evaluate.h"
#include "worker/policy.h"

int lh_cut_evaluation_init(struct lh_cut_evaluation *e, const struct lh_dataset *ds,
                           const struct lh_job *job, const struct lh_model *model, unsigned workers,
                           bool quiet)
{
    int rc;
    *e = (struct lh_cut_evaluation){0};
    if (lh_dataset_info(ds)->split[LH_VALIDATION].rows == 0)
        return 0;
    if (job->unit == LH_UNIT_SESSION) { /* whether it goes with the log: before a step is made */
        struct lh_evaluate_spec spec = {
            .ds = ds, .split = LH_VALIDATION, .cap = job->ncis_cap, .unit = job->unit};
        struct lh_evaluation ev;
        LH_TRY(lh_evaluate(&spec, job->ess_floor, 1, &ev, NULL));
    }
    LH_TRY(lh_behaviour_train_ensure(&e->behaviour_path, ds, job->behaviour, workers, quiet));
    LH_TRY_TO(fail, lh_behaviour_open(&e->behaviour, ds, e->behaviour_path));
    e->dataset = ds;
    e->job = job;
    e->model = model;
    return 0;
fail:
    lh_cut_evaluation_fini(e);
    return rc;
}

void lh_cut_evaluation_fini(struct lh_cut_evaluation *e)
{
    lh_behaviour_close(&e->behaviour);
    lh_mem_free(e->behaviour_path);
    *e = (struct lh_cut_evaluation){0};
}

static int evaluate(const struct lh_cut_evaluation *e, enum lh_split split, unsigned threads,
                    bool (*interrupted)(void), const float *weights, struct lh_verdict *out)
{
    struct lh_policy *policy = NULL;
    struct lh_evaluation ev;
    LH_TRY(lh_policy_create(&policy, e->job, lh_dataset_norm(e->dataset), e->model->layout.params,
                            e->model->layout.n_params, weights));
    struct lh_evaluate_spec spec = {.ds = e->dataset,
                                    .split = split,
                                    .policy = policy,
                                    .behaviour = e->behaviour,
                                    .cap = e->job->ncis_cap,
                                    .unit = e->job->unit,
                                    .seed = e->job->seed,
                                    .interrupted = interrupted};
    int rc = lh_evaluate(&spec, e->job->ess_floor, threads, &ev, NULL);
    lh_policy_destroy(&policy);
    LH_TRY(rc);
    out->value = ev.policy.value;
    out->lo = ev.policy.lo;
    out->hi = ev.policy.hi;
    out->ess_share = ev.policy.ess_share;
    out->eligible = !ev.policy.collapsed;
    return lh_evaluate_json(&ev, split, &out->json);
}

int lh_cut_evaluation_run(void *ctx, uint64_t version, const float *weights, const float *targets,
                          struct lh_verdict *out)
{
    (void)version, (void)targets; /* a policy acts by its live weights */
    /* training needs the other processors, and what is best must not depend on interruptions */
    return evaluate(ctx, LH_VALIDATION, 1, NULL, weights, out);
}

int lh_cut_evaluation_test(const struct lh_cut_evaluation *e, const float *weights,
                           bool (*interrupted)(void), struct lh_verdict *out)
{
    if (!e->behaviour || lh_dataset_info(e->dataset)->split[LH_TEST].rows == 0)
        return LH_NOTFOUND;
    return evaluate(e, LH_TEST, lh_pool_cpus(), interrupted, weights, out);
}
