/* From a run to a snapshot. The probe is answered by the very policy that readers will open. */
#include "cluster/export.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/snapshot.h"
#include "ps/rowtable_read.h"
#include "worker/policy.h"

#include <string.h>

/* Actions [LH_PROBE_ROWS, A] of the cut on the probe's states; caller frees. */
static int answer_probe(float **out, const struct lh_snapshot *s)
{
    const struct lh_dims *d = &s->job->dims;
    size_t h = LH_PROBE_ROWS * (size_t)d->high, l = LH_PROBE_ROWS * (size_t)d->low;
    struct lh_policy *policy = NULL;
    float *states = NULL, *action = NULL;
    int rc;
    LH_TRY(lh_policy_create(&policy, s->job, &s->norm, s->params, s->n_params, s->weights));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&states, h + l, "probe"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&action, LH_PROBE_ROWS * (size_t)d->action, "probe"));
    lh_snapshot_probe_states(&s->norm, states, states + h);
    LH_TRY_TO(fail, lh_policy_act(policy, states, states + h, LH_PROBE_ROWS, 0, 0, action, NULL));
    *out = action;
    action = NULL;
fail:
    lh_mem_free(action);
    lh_mem_free(states);
    lh_policy_destroy(&policy);
    return rc;
}

/* The ids that some table is looked up by: names [LH_IDS_MAX]. */
static size_t ids_of(const struct lh_job *job, const char **names)
{
    size_t n = 0;
    for (size_t t = 0; t < job->n_tables; t++)
        for (size_t i = 0; i < job->tables[t].n_ids; i++) {
            size_t k = 0;
            while (k < n && strcmp(names[k], job->tables[t].ids[i]) != 0)
                k++;
            if (k == n && n < LH_IDS_MAX)
                names[n++] = job->tables[t].ids[i];
        }
    return n;
}

/* Rows that were learnt; all others have their initial values, which whoever acts knows. */
static int each_row(struct lh_rowtable_reader *r, uint64_t *count, struct lh_rowfile_writer *to)
{
    struct lh_rowtable_row row;
    int rc;
    LH_TRY(lh_rowtable_reader_seek(r, 0));
    while ((rc = lh_rowtable_reader_next(r, &row)) == 0) {
        if (!row.w)
            continue;
        ++*count;
        if (to)
            LH_TRY(lh_rowfile_put(to, row.id, row.w));
    }
    return rc == LH_NOTFOUND ? 0 : rc;
}

/* Walked twice, since the file says first how many there are: so it need not fit in memory. */
static int write_table(void *ctx, size_t t, const char *path)
{
    const struct lh_run *run = ctx;
    struct lh_rowfile_writer *w = NULL;
    uint64_t n = 0, again = 0;
    LH_TRY(each_row(run->tables[t], &n, NULL));
    LH_TRY(lh_rowfile_create(&w, path, n, run->job->tables[t].dim));
    int rc = each_row(run->tables[t], &again, w);
    if (rc == 0)
        return lh_rowfile_close(&w);
    lh_rowfile_abort(&w);
    return rc;
}

int lh_export_run(const char *dir, const struct lh_run *run, const struct lh_dataset *ds,
                  const char *cut, bool replace)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    const char *ids[LH_IDS_MAX];
    struct lh_snapshot s = {.job = run->job,
                            .high_names = info->high_names,
                            .low_names = info->low_names,
                            .action_names = info->action_names,
                            .version = run->version,
                            .cut = cut,
                            .weights = run->weights,
                            .targets = run->targets,
                            .evaluation_json = run->evaluation_json,
                            .id_names = ids,
                            .n_ids = ids_of(run->job, ids),
                            .write_table = write_table,
                            .ctx = (void *)(uintptr_t)run};
    float *probe = NULL;
    int rc;
    if (run->job->dataset_digest != info->digest)
        return lh_err_set(LH_EMISMATCH,
                          "%s: the run was trained on a dataset with digest %016llx, this one has "
                          "%016llx; name the dataset it was trained on",
                          lh_dataset_dir(ds), (unsigned long long)run->job->dataset_digest,
                          (unsigned long long)info->digest);
    s.params = lh_graph_params(run->graph, &s.n_params);
    LH_TRY(lh_norm_copy(&s.norm, lh_dataset_norm(ds)));
    LH_TRY_TO(fail, answer_probe(&probe, &s));
    s.probe = probe;
    LH_TRY_TO(fail, lh_snapshot_write(dir, &s, replace));
fail:
    lh_mem_free(probe);
    lh_norm_fini(&s.norm);
    return rc;
}
