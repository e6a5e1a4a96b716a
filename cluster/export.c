/* From a run to a snapshot. The probe is answered by the very policy that readers will open. */
#include "cluster/export.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/snapshot.h"
#include "worker/policy.h"

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

int lh_export_run(const char *dir, const struct lh_run *run, const struct lh_dataset *ds,
                  const char *cut, bool replace)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    struct lh_snapshot s = {.job = run->job,
                            .high_names = info->high_names,
                            .low_names = info->low_names,
                            .action_names = info->action_names,
                            .version = run->version,
                            .cut = cut,
                            .weights = run->weights,
                            .targets = run->targets,
                            .evaluation_json = run->evaluation_json};
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
