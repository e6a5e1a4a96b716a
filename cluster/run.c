/* Reading a run back: run.json says which cuts are complete, config.yaml what the model is, the
 * stores hold the rows. */
#include "cluster/run.h"

#include "cluster/run_record.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "ps/rowtable_read.h"
#include "ps/store.h"
#include "worker/model.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

enum { CONFIG_MAX = 1 << 20, TRIES = 3 };

/* What a caller sees comes first, so that one pointer is both. */
struct opened {
    struct lh_run run;
    struct lh_model model; /* owns run.graph */
    pthread_mutex_t lock;  /* of the readers of tables */
};

int lh_run_job(struct lh_job **out, const char *dir)
{
    int rc;
    char *path = NULL, *text = NULL;
    size_t n;
    LH_TRY(lh_mem_printf(&path, "%s/config.yaml", dir));
    LH_TRY_TO(done, lh_fs_read_file(&text, &n, path, CONFIG_MAX));
    LH_TRY_TO(done, lh_job_load_text(out, text, n, path, NULL));
done:
    lh_mem_free(text);
    lh_mem_free(path);
    return rc;
}

static int choose(const struct lh_run_record *r, const char *dir, enum lh_which_cut which,
                  const struct lh_run_cut **out)
{
    if (!r->has_last)
        return lh_err_set(LH_ENOENT, "%s: no checkpoint of this run is complete yet", dir);
    *out = lh_run_record_cut(r, which == LH_CUT_BEST && r->has_best ? r->best : r->last);
    assert(*out); /* the record was checked when it was read */
    return 0;
}

static int allocate(float **out, size_t n)
{
    void *p = NULL;
    LH_TRY(lh_mem_alloc_aligned(&p, n, sizeof(float), "weights of a run"));
    memset(p, 0, n * sizeof(float));
    *out = p;
    return 0;
}

static int read_store(struct opened *o, const char *dir, const struct lh_run_cut *cut, uint32_t i,
                      uint64_t *taken)
{
    int rc;
    char *path = NULL;
    struct lh_store *st = NULL;
    const struct lh_store_id id = {lh_job_digest(o->run.job), i, cut->servers};
    LH_TRY(lh_mem_printf(&path, "%s/store-%u", dir, i));
    LH_TRY_TO(done, lh_store_open(&st, path, &id, 1));
    LH_TRY_TO(done, lh_store_read(st, cut->version, &o->model.layout, o->run.weights,
                                  o->run.targets, taken));
done:
    lh_store_close(&st);
    lh_mem_free(path);
    return rc;
}

static int pull_rows(void *ctx, size_t t, const uint64_t *ids, size_t n, float *rows)
{
    struct opened *o = ctx;
    pthread_mutex_lock(&o->lock);
    int rc = lh_rowtable_reader_pull(o->run.tables[t], ids, n, rows);
    pthread_mutex_unlock(&o->lock);
    return rc;
}

static int open_tables(struct opened *o, const char *dir, const struct lh_run_cut *cut)
{
    const struct lh_job *job = o->run.job;
    char **stores = NULL;
    int rc = 0;
    if (job->n_tables == 0)
        return 0;
    LH_TRY(LH_NEW_ARRAY(&stores, cut->servers, "stores of a run"));
    for (uint32_t i = 0; i < cut->servers; i++)
        LH_TRY_TO(done, lh_mem_printf(&stores[i], "%s/store-%u", dir, i));
    for (size_t t = 0; t < job->n_tables; t++)
        LH_TRY_TO(done,
                  lh_rowtable_reader_open(&o->run.tables[t], job->tables[t].name, cut->version,
                                          (const char *const *)stores, cut->servers));
    o->run.rows = (struct lh_row_source){.ctx = o, .pull = pull_rows};
done:
    for (uint32_t i = 0; i < cut->servers; i++)
        lh_mem_free(stores[i]);
    lh_mem_free(stores);
    return rc;
}

static int read_cut(struct opened *o, const char *dir, const struct lh_run_record *r,
                    const struct lh_run_cut *cut)
{
    uint64_t taken = 0;
    LH_TRY(lh_run_job(&o->run.job, dir));
    if (lh_job_digest(o->run.job) != r->job_digest)
        return lh_err_set(LH_EMISMATCH,
                          "%s: config.yaml describes job %016" PRIx64 ", run.json job %016" PRIx64
                          "; one of them was changed after the run",
                          dir, lh_job_digest(o->run.job), r->job_digest);
    LH_TRY(lh_model_init(&o->model, o->run.job, 1));
    o->run.graph = o->model.graph;
    LH_TRY(allocate(&o->run.weights, o->model.layout.flat_size));
    LH_TRY(allocate(&o->run.targets, o->model.layout.flat_size));
    for (uint32_t i = 0; i < cut->servers; i++)
        LH_TRY(read_store(o, dir, cut, i, &taken));
    if (taken != o->model.layout.elements)
        return lh_err_set(LH_EMISMATCH,
                          "%s: the stores of version %" PRIu64 " hold %" PRIu64 " of %" PRIu64
                          " elements; they do not belong together",
                          dir, cut->version, taken, o->model.layout.elements);
    o->run.version = cut->version;
    LH_TRY(open_tables(o, dir, cut));
    return cut->evaluation_json ? lh_mem_strdup(&o->run.evaluation_json, cut->evaluation_json) : 0;
}

static int open_once(struct lh_run **out, const char *dir, enum lh_which_cut which)
{
    int rc;
    struct lh_run_record r = {0};
    const struct lh_run_cut *cut = NULL;
    struct opened *o = NULL;
    struct lh_run *run = NULL;
    LH_TRY_TO(fail, lh_run_record_load(&r, dir));
    LH_TRY_TO(fail, choose(&r, dir, which, &cut));
    LH_TRY_TO(fail, LH_NEW(&o, "run"));
    run = &o->run;
    pthread_mutex_init(&o->lock, NULL);
    run->cut = r.has_best ? which : LH_CUT_LAST;
    LH_TRY_TO(fail, read_cut(o, dir, &r, cut));
    *out = run;
    run = NULL;
fail:
    lh_run_close(&run);
    lh_run_record_fini(&r);
    return rc;
}

int lh_run_open(struct lh_run **out, const char *dir, enum lh_which_cut which)
{
    int rc = LH_ENOENT;
    /* A run that goes on may prune a cut between our look at run.json and at the stores. */
    for (int i = 0; i < TRIES && rc == LH_ENOENT; i++)
        rc = open_once(out, dir, which);
    return rc;
}

void lh_run_close(struct lh_run **run)
{
    struct opened *o = (struct opened *)*run;
    if (!o)
        return;
    for (size_t t = 0; t < LH_GRAPH_TABLES_MAX; t++)
        lh_rowtable_reader_close(&o->run.tables[t]);
    pthread_mutex_destroy(&o->lock);
    lh_mem_free(o->run.evaluation_json);
    lh_mem_free(o->run.weights);
    lh_mem_free(o->run.targets);
    lh_model_fini(&o->model);
    lh_job_destroy(&o->run.job);
    lh_mem_free(o);
    *run = NULL;
}
