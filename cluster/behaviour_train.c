/* Training the behaviour model in legs: each leg resumes the run, then the validation error is
 * measured. It has converged when PATIENCE legs in a row brought no improvement worth the name; the
 * best leg's weights become the snapshot. */
#include "cluster/behaviour_train.h"

#include "cluster/export.h"
#include "cluster/train.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/term.h"
#include "worker/behaviour.h"

#include <string.h>
#include <unistd.h>

#define LEGS_MAX 60
#define PATIENCE 3
#define ENOUGH   1e-3 /* a smaller relative fall of the error is none */

/* Linear output: what it says beyond the log's range costs nothing here, and tanh would bend it. */
static const char recipe[] = "name: behaviour\n"
                             "algorithm: il\n"
                             "objective: {bound: none}\n"
                             "optimiser: {lr_cvae: 0.001}\n"
                             "checkpoint: {keep: 1}\n";

struct training {
    const struct lh_dataset *ds;
    struct lh_job *job; /* its dataset is a loan */
    char *dir;          /* of the run */
    unsigned workers;
    uint64_t leg_steps;
};

#define BATCH_MIN 64
#define BATCH_MAX 1024

/* The batch is what an epoch has at least 64 of, where it can. */
static int job_for(struct lh_job **out, const struct lh_dataset *ds)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    LH_TRY(lh_job_load_text(out, recipe, sizeof recipe - 1, "behaviour model", NULL));
    struct lh_job *job = *out;
    job->batch = BATCH_MIN;
    while (job->batch < BATCH_MAX && 64 * 2 * job->batch <= info->split[LH_TRAIN].transitions)
        job->batch *= 2;
    if (job->micro_batch > job->batch)
        job->micro_batch = job->batch;
    return lh_job_resolve(job, &info->dims, info->digest);
}

/* Half an epoch, but no fewer steps than make a difference and no more than one wants to wait. */
static uint64_t steps_of_leg(const struct lh_dataset *ds, const struct lh_job *job)
{
    uint64_t half = lh_dataset_info(ds)->split[LH_TRAIN].transitions / (2 * (uint64_t)job->batch);
    return half < 50 ? 50 : half > 400 ? 400 : half;
}

static int train_leg(const struct training *t, unsigned leg)
{
    struct lh_job job = *t->job;
    struct lh_train_result result;
    job.dataset = lh_dataset_dir(t->ds);
    job.steps = LEGS_MAX * t->leg_steps;
    job.checkpoint_every = t->leg_steps;
    return lh_train(&job,
                    &(struct lh_train_options){.dir = t->dir,
                                               .workers = t->workers,
                                               .servers = 1,
                                               .launcher = LH_LAUNCH_LOCAL,
                                               .transport = LH_TRANSPORT_INPROC,
                                               .resume = leg > 0,
                                               .quiet = true,
                                               .no_evaluation = true,
                                               .stop_after = (leg + 1) * t->leg_steps},
                    &result);
}

static int validation_error(double *out, const struct training *t, const struct lh_run *run)
{
    struct lh_policy *policy = NULL;
    struct lh_behaviour *b = NULL;
    size_t n;
    const struct lh_param *params = lh_graph_params(run->graph, &n);
    int rc = lh_policy_create(&policy, run->job, lh_dataset_norm(t->ds), params, n, run->weights);
    if (rc == 0)
        rc = lh_behaviour_adopt(&b, t->ds, &policy);
    if (rc == 0)
        *out = lh_behaviour_mse(b);
    lh_behaviour_close(&b);
    lh_policy_destroy(&policy);
    return rc;
}

/* Trains until convergence; *best is the run opened at its best leg. */
static int train(const struct training *t, struct lh_run **best, double *error)
{
    struct lh_run *run = NULL;
    unsigned worse = 0;
    int rc = 0;
    for (unsigned leg = 0; leg < LEGS_MAX && worse < PATIENCE; leg++) {
        double e = 0;
        LH_TRY_TO(fail, train_leg(t, leg));
        LH_TRY_TO(fail, lh_run_open(&run, t->dir, LH_CUT_LAST));
        LH_TRY_TO(fail, validation_error(&e, t, run));
        worse = *best && e > *error * (1 - ENOUGH) ? worse + 1 : 0;
        if (!*best || e < *error) {
            lh_run_close(best);
            *best = run;
            run = NULL;
            *error = e;
        }
        lh_run_close(&run);
    }
fail:
    lh_run_close(&run);
    return rc;
}

static int train_and_export(const struct lh_dataset *ds, struct lh_job *job, const char *snapshot,
                            unsigned workers, bool quiet)
{
    struct training t = {.ds = ds, .job = job, .workers = workers ? workers : 1};
    struct lh_run *best = NULL;
    double error = 0, started = lh_now();
    int rc;
    t.leg_steps = steps_of_leg(ds, job);
    LH_TRY(lh_mem_printf(&t.dir, "%s.run-%ld", snapshot, (long)getpid()));
    LH_TRY_TO(fail, lh_fs_remove_tree(t.dir));
    LH_TRY_TO(fail, lh_fs_mkdirs(t.dir));
    if (!quiet)
        lh_note("training the behaviour model of %s (once)", lh_dataset_dir(ds));
    LH_TRY_TO(fail, train(&t, &best, &error));
    rc = lh_export_run(snapshot, best, ds, "best", false);
    if (rc == LH_EEXIST) /* another process was first; the recipe is the same */
        rc = 0;
    if (rc == 0 && !quiet)
        lh_note("behaviour model: %llu steps, validation error %.4g a dimension, %.1f s",
                (unsigned long long)best->version, error, lh_now() - started);
fail:
    lh_run_close(&best);
    if (rc < 0) { /* the first failure's sentence stays */
        struct lh_err saved;
        lh_err_save(&saved, rc);
        lh_fs_remove_tree(t.dir);
        lh_err_load(&saved);
    } else {
        rc = lh_fs_remove_tree(t.dir);
    }
    lh_mem_free(t.dir);
    return rc;
}

int lh_behaviour_train_ensure(char **out, const struct lh_dataset *ds, const char *choice,
                              unsigned workers, bool quiet)
{
    struct lh_job *job = NULL;
    char *snapshot = NULL;
    int rc;
    if (strcmp(choice, "auto") != 0)
        return lh_mem_strdup(out, choice);
    LH_TRY(job_for(&job, ds));
    LH_TRY_TO(fail, lh_mem_printf(&snapshot, "%s/.behaviour/%016llx", lh_dataset_dir(ds),
                                  (unsigned long long)lh_job_digest(job)));
    if (!lh_fs_exists(snapshot))
        LH_TRY_TO(fail, train_and_export(ds, job, snapshot, workers, quiet));
    *out = snapshot;
    snapshot = NULL;
fail:
    if (rc == LH_EACCES)
        lh_err_prefix(rc, "the behaviour model is kept beside the dataset (or name one by "
                          "evaluation.behaviour)");
    lh_mem_free(snapshot);
    lh_job_destroy(&job);
    return rc;
}
