/* Opens a cut of a run from its record, its config and its stores. */
#include "cluster/run.h"

#include "cluster/run_record.h"
#include "common/err.h"
#include "common/mem.h"
#include "ps/store.h"
#include "worker/model.h"

#include <string.h>

static int choose(const struct lh_run_record *r, const char *dir, enum lh_which_cut which,
                  const struct lh_run_cut **out)
{
    if (!r->has_last)
        return lh_err_set(LH_ENOENT, "%s: the run has no complete checkpoint yet", dir);
    *out = lh_run_record_cut(r, which == LH_CUT_BEST && r->has_best ? r->best : r->last);
    return *out ? 0 : lh_err_set(LH_EFORMAT, "%s/run.json: the last cut is not listed", dir);
}

static int read_stores(struct lh_run *run, const char *dir, const struct lh_model *model,
                       const struct lh_run_cut *cut)
{
    uint64_t taken = 0;
    for (uint32_t i = 0; i < cut->servers; i++) {
        struct lh_store *store = NULL;
        char *path = NULL;
        LH_TRY(lh_mem_printf(&path, "%s/store-%u", dir, i));
        int rc = lh_store_open(&store, path, NULL, 1);
        if (rc >= 0)
            rc = lh_store_read(store, cut->version, &model->layout, run->weights, run->targets,
                               &taken);
        lh_store_close(&store);
        lh_mem_free(path);
        LH_TRY(rc);
    }
    if (taken != model->layout.elements)
        return lh_err_set(LH_EMISMATCH, "%s: version %llu has %llu of %llu weights", dir,
                          (unsigned long long)cut->version, (unsigned long long)taken,
                          (unsigned long long)model->layout.elements);
    return 0;
}

static int load(struct lh_run *run, const char *dir, const struct lh_run_record *record,
                enum lh_which_cut which)
{
    const struct lh_run_cut *cut = NULL;
    struct lh_model model = {0};
    char *config = NULL;
    int rc;
    LH_TRY(choose(record, dir, which, &cut));
    LH_TRY(lh_mem_printf(&config, "%s/config.yaml", dir));
    rc = lh_job_load(&run->job, config, NULL, 0);
    lh_mem_free(config);
    LH_TRY(rc);
    LH_TRY(lh_model_init(&model, run->job, 1));
    size_t flat = model.layout.flat_size;
    LH_TRY_TO(done, lh_mem_alloc_aligned((void **)&run->weights, flat, sizeof(float), "weights"));
    LH_TRY_TO(done, lh_mem_alloc_aligned((void **)&run->targets, flat, sizeof(float), "targets"));
    memset(run->weights, 0, flat * sizeof(float));
    memset(run->targets, 0, flat * sizeof(float));
    LH_TRY_TO(done, read_stores(run, dir, &model, cut));
    run->version = cut->version;
    if (cut->evaluation_json)
        LH_TRY_TO(done, lh_mem_strdup(&run->evaluation_json, cut->evaluation_json));
    run->graph = model.graph;
    model.graph = NULL;
done:
    lh_model_fini(&model);
    return rc;
}

int lh_run_open(struct lh_run **out, const char *dir, enum lh_which_cut which)
{
    struct lh_run_record record = {0};
    struct lh_run *run = NULL;
    int rc;
    LH_TRY_TO(done, lh_run_record_load(&record, dir));
    LH_TRY_TO(done, LH_NEW(&run, "run"));
    LH_TRY_TO(done, load(run, dir, &record, which));
    *out = run;
    run = NULL;
done:
    lh_run_close(&run);
    lh_run_record_fini(&record);
    return rc;
}

void lh_run_close(struct lh_run **out)
{
    struct lh_run *run = *out;
    if (!run)
        return;
    lh_job_destroy(&run->job);
    lh_graph_destroy(&run->graph);
    lh_mem_free(run->weights);
    lh_mem_free(run->targets);
    lh_mem_free(run->evaluation_json);
    lh_mem_free(run);
    *out = NULL;
}
