/* From a job to what its servers hold. */
#include "cluster/role_model.h"

#include "common/err.h"
#include "common/mem.h"
#include "worker/model.h"

struct owner {
    struct lh_model model;
    float *weights;
};

static void destroy(struct owner *o)
{
    lh_model_fini(&o->model);
    lh_mem_free(o->weights);
    lh_mem_free(o);
}

int lh_role_model(void *ctx, const struct lh_job *job, size_t shards, bool initial,
                  struct lh_server_model *out)
{
    const struct lh_role_initial *given = ctx;
    struct owner *o = NULL;
    int rc;
    LH_TRY(LH_NEW(&o, "model"));
    LH_TRY_TO(fail, lh_model_init(&o->model, job, shards));
    if (initial && !given) {
        LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&o->weights, o->model.layout.flat_size,
                                             sizeof(float), "initial weights"));
        lh_graph_init_params(o->model.graph, job->seed, o->weights);
    }
    *out = (struct lh_server_model){.layout = &o->model.layout,
                                    .n_metrics = o->model.n_metrics,
                                    .leaves = o->model.leaves,
                                    .weights = given && initial ? given->weights : o->weights,
                                    .targets = given && initial ? given->targets : NULL,
                                    .owner = o};
    return 0;
fail:
    destroy(o);
    return rc;
}

void lh_role_model_fini(void *ctx, struct lh_server_model *model)
{
    (void)ctx;
    destroy(model->owner);
    *model = (struct lh_server_model){0};
}
