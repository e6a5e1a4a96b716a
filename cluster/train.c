/* lh_train: prepares or reopens the run directory, derives the clock plan, runs the scheduler with
 * a launcher, reports. Order of what is written: config first, run.json last, so that a directory
 * without run.json is no run and may be begun in. */
#include "cluster/train.h"

#include "cluster/cli.h"
#include "cluster/cut_evaluation.h"
#include "cluster/launch.h"
#include "cluster/run.h"
#include "cluster/run_dir.h"
#include "cluster/run_record.h"
#include "cluster/scheduler.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/net.h"
#include "common/pool.h"
#include "common/security.h"
#include "common/term.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE 60.0 /* seconds */

struct train {
    const struct lh_train_options *opt;
    struct lh_job *job; /* a copy, resolved */
    struct lh_dataset *dataset;
    struct lh_model model;
    struct lh_run_record record;
    struct lh_cut_evaluation evaluation;
    struct lh_clock clock;
    struct lh_run_dir dir;
    void *zmq;
    struct lh_keys keys; /* the scheduler's; none: zeroed */
    struct lh_security security;
    char *sockets; /* directory of ipc sockets; NULL: none */
    struct lh_launch_local *threads;
    struct lh_launch_processes *processes;
    uint64_t transitions;
};

/* --- the run directory -------------------------------------------------------------------------
 */
static int write_config(const struct train *t)
{
    char *text = NULL;
    LH_TRY(lh_job_print(t->job, &text));
    int rc = lh_run_dir_write(&t->dir, "config.yaml", text);
    lh_mem_free(text);
    return rc;
}

static int begin_run(struct train *t)
{
    char *path = NULL;
    LH_TRY(lh_run_dir_in(&t->dir, "run.json", &path));
    bool exists = lh_fs_exists(path);
    lh_mem_free(path);
    if (exists)
        return lh_err_set(LH_EEXIST,
                          "%s: there is a run already; go on with it with --resume, or choose "
                          "another --dir",
                          t->opt->dir);
    t->record.job_digest = lh_job_digest(t->job);
    t->record.dataset_digest = t->job->dataset_digest;
    return 0;
}

/* What it said of the last scheduler here. */
static int remove_old_status(const struct train *t)
{
    char *path = NULL;
    LH_TRY(lh_run_dir_in(&t->dir, "status.json", &path));
    int rc = lh_fs_remove_tree(path);
    lh_mem_free(path);
    return rc;
}

static int reopen_run(struct train *t)
{
    int rc = lh_run_record_load(&t->record, t->opt->dir);
    if (rc == LH_ENOENT)
        return lh_err_set(LH_ENOENT, "%s: no run to resume; leave out --resume to begin one",
                          t->opt->dir);
    LH_TRY(rc);
    if (t->record.job_digest == lh_job_digest(t->job))
        return 0;
    char how[300] = "";
    struct lh_job *was = NULL;
    if (lh_run_job(&was, t->opt->dir) == 0)
        lh_job_difference(t->job, was, how, sizeof how);
    lh_job_destroy(&was);
    return lh_err_set(LH_EMISMATCH,
                      "%s: the run was begun with another job or dataset%s%s%s; resume it with its "
                      "own config.yaml, or choose another --dir",
                      t->opt->dir, how[0] ? " (" : "", how, how[0] ? ")" : "");
}

/* Stores of servers that this run does not have, once no cut needs them any more. */
static int remove_old_stores(const struct train *t)
{
    uint32_t needed = t->opt->servers;
    for (size_t i = 0; i < t->record.n_cuts; i++)
        needed = t->record.cuts[i].servers > needed ? t->record.cuts[i].servers : needed;
    for (uint32_t i = needed;; i++) {
        char *path = NULL;
        LH_TRY(lh_mem_printf(&path, "%s/store-%u", t->opt->dir, i));
        bool there = lh_fs_exists(path);
        int rc = there ? lh_fs_remove_tree(path) : 0;
        lh_mem_free(path);
        LH_TRY(rc);
        if (!there)
            return 0;
    }
}

/* --- preparing ---------------------------------------------------------------------------------
 */
static int copy_job(struct train *t, const struct lh_job *job)
{
    char *text = NULL;
    LH_TRY(lh_job_print(job, &text));
    int rc = lh_job_load_text(&t->job, text, strlen(text), job->name, NULL);
    lh_mem_free(text);
    LH_TRY(rc);
    if (t->opt->given) {
        t->transitions = t->opt->given->batches->steps * t->job->batch;
        return 0;
    }
    if (!t->job->dataset)
        return lh_err_set(LH_ECONFIG, "%s: dataset is missing", job->name);
    LH_TRY(lh_dataset_open(&t->dataset, t->job->dataset));
    const struct lh_dataset_info *info = lh_dataset_info(t->dataset);
    t->transitions = info->split[LH_TRAIN].transitions;
    if (t->transitions == 0)
        return lh_err_set(LH_ECONFIG, "%s: the training split has no transitions", t->job->dataset);
    for (size_t k = 0; k < t->job->n_tables; k++) {
        size_t at[LH_JOB_TABLE_IDS_MAX];
        LH_TRY(lh_job_tables_find(&t->job->tables[k], info->id_names, info->dims.ids, at));
    }
    return lh_job_resolve(t->job, &info->dims, info->digest);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void plan_clock(struct train *t)
{
    struct lh_clock *c = &t->clock;
    c->total = lh_job_total_steps(t->job, t->transitions);
    c->until = t->opt->stop_after ? least(t->opt->stop_after, c->total) : c->total;
    c->checkpoint_every = t->job->checkpoint_every ? t->job->checkpoint_every
                          : c->total >= 10         ? c->total / 10
                                                   : 1;
    if (t->evaluation.behaviour)
        c->evaluate_every = t->job->evaluate_every ? t->job->evaluate_every : c->checkpoint_every;
    lh_run_record_start(&t->record, c);
    t->record.steps_total = c->total;
}

static int prepare(struct train *t, const struct lh_job *job)
{
    const struct lh_train_options *o = t->opt;
    if (o->servers == 0 || o->workers == 0)
        return lh_err_set(LH_EUSAGE, "a run needs at least one worker and one server");
    if (o->given && o->launcher != LH_LAUNCH_LOCAL)
        return lh_err_set(LH_EINTERNAL, "given batches are for roles of this process");
    LH_TRY(copy_job(t, job));
    LH_TRY(lh_model_init(&t->model, t->job, o->servers));
    LH_TRY(lh_run_dir_open(&t->dir, t->opt->dir));
    LH_TRY(o->resume ? reopen_run(t) : begin_run(t));
    LH_TRY(remove_old_status(t));
    if (!o->no_evaluation)
        LH_TRY(lh_cut_evaluation_init(&t->evaluation, t->dataset, t->job, &t->model,
                                      o->launcher == LH_LAUNCH_MPI ? lh_pool_cpus() : o->workers,
                                      o->quiet));
    if (o->launcher == LH_LAUNCH_MPI)
        t->evaluation.helpers = lh_launch_mpi_helpers(o->mpi);
    plan_clock(t);
    LH_TRY(write_config(t));
    if (t->evaluation.behaviour_path)
        LH_TRY(lh_run_record_set_behaviour(&t->record, t->evaluation.behaviour_path));
    LH_TRY(lh_run_record_set_error(&t->record, NULL));
    t->record.state = LH_RUN_RUNNING;
    t->record.servers = o->servers;
    return lh_run_record_save(&t->record, o->dir);
}

/* --- placing the roles -------------------------------------------------------------------------
 */
/* Nobody else may reach what lies in the directory: that is the security of local sockets. Their
 * path is limited to 107 bytes: in the run directory where that is short enough (what a killed run
 * left there is removed by the next), else in a temporary one. */
static int make_socket_dir(struct train *t)
{
    LH_TRY(lh_run_dir_in(&t->dir, "sockets", &t->sockets));
    if (strlen(t->sockets) + sizeof "/server-4095" <= 107) {
        LH_TRY(lh_fs_remove_tree(t->sockets));
        return mkdir(t->sockets, 0700) == 0 ? 0 : lh_err_errno(errno, "%s", t->sockets);
    }
    lh_mem_free(t->sockets);
    t->sockets = NULL;
    const char *tmp = getenv("TMPDIR");
    if (!tmp || strlen(tmp) > 60)
        tmp = "/tmp";
    LH_TRY(lh_mem_printf(&t->sockets, "%s/longhaul-XXXXXX", tmp));
    if (!mkdtemp(t->sockets)) {
        int rc = lh_err_errno(errno, "%s", t->sockets);
        lh_mem_free(t->sockets);
        t->sockets = NULL;
        return rc;
    }
    return 0;
}

static double patience(const struct train *t)
{
    return t->opt->patience > 0 ? t->opt->patience : PATIENCE;
}

static int place_roles(void *ctx, const char *endpoint)
{
    struct train *t = ctx;
    struct lh_launch_spec spec = {.zmq = t->zmq,
                                  .apart = t->job->consistency != LH_SYNC,
                                  .endpoint = endpoint,
                                  .workers = t->opt->workers,
                                  .servers = t->opt->servers,
                                  .io_threads = t->job->io_threads,
                                  .transport = t->opt->transport,
                                  .sockets = t->sockets,
                                  .program = t->opt->program,
                                  .patience = patience(t),
                                  .given = t->opt->given,
                                  .metrics = t->opt->metrics,
                                  .security = &t->security};
    switch (t->opt->launcher) {
    case LH_LAUNCH_LOCAL:
        return lh_launch_local_start(&t->threads, &spec);
    case LH_LAUNCH_PROCESSES:
        return lh_launch_processes_start(&t->processes, &spec);
    case LH_LAUNCH_HAND:
        lh_log_tell(
            LH_LOG_INFO, "listen",
            LH_FIELDS(LH_F("endpoint", endpoint), LH_F("servers", t->opt->servers),
                      LH_F("workers", t->opt->workers)),
            "scheduler at %s: start %u × 'longhaul server --scheduler %s' and %u × 'longhaul "
            "worker --scheduler %s'%s",
            endpoint, t->opt->servers, endpoint, t->opt->workers, endpoint,
            t->security.keys ? ", each with its key file: --keys FILE" : "");
        return 0;
    case LH_LAUNCH_MPI:
        return lh_launch_mpi_start(t->opt->mpi);
    }
    return lh_err_set(LH_EINTERNAL, "unknown launcher %d", (int)t->opt->launcher);
}

static int watch_roles(void *ctx, struct lh_scheduler_process *ended)
{
    struct train *t = ctx;
    *ended = (struct lh_scheduler_process){0};
    if (t->opt->launcher == LH_LAUNCH_MPI)
        return lh_launch_mpi_watch(t->opt->mpi, ended);
    gethostname(ended->host, sizeof ended->host - 1);
    if (t->threads)
        return lh_launch_local_watch(t->threads, &ended->pid);
    return t->processes ? lh_launch_processes_watch(t->processes, ended) : 0;
}

static int replace_role(void *ctx, const struct lh_scheduler_process *p, bool *replaced)
{
    struct train *t = ctx;
    *replaced = t->opt->launcher == LH_LAUNCH_HAND; /* by a person, in time or not */
    if (t->opt->launcher == LH_LAUNCH_MPI)
        return lh_launch_mpi_replace(t->opt->mpi, p, replaced);
    return t->processes ? lh_launch_processes_replace(t->processes, p->pid, replaced) : 0;
}

static int endpoint(struct train *t, char *out, size_t size)
{
    if (t->opt->launcher == LH_LAUNCH_HAND) {
        snprintf(out, size, "%s", t->opt->bind ? t->opt->bind : "tcp://127.0.0.1:*");
    } else if (t->opt->launcher == LH_LAUNCH_MPI) {
        snprintf(out, size, "%s", lh_launch_mpi_bind(t->opt->mpi));
    } else if (t->opt->launcher == LH_LAUNCH_LOCAL) {
        snprintf(out, size, "inproc://scheduler");
    } else if (t->opt->transport == LH_TRANSPORT_TCP) {
        snprintf(out, size, "tcp://127.0.0.1:*");
    } else {
        LH_TRY(make_socket_dir(t));
        snprintf(out, size, "ipc://%s/scheduler", t->sockets);
    }
    return 0;
}

static bool (*interrupted(const struct train *t))(void)
{
    return t->opt->uninterruptible ? NULL : lh_cli_interrupted;
}

/* mpirun interrupts rank 0 when it ends a job, because another rank died or it was told to, and
 * kills it a second later: it may not come to say how far it got. */
static const char *interrupt_note(void *ctx)
{
    const struct train *t = ctx;
    return t->opt->launcher == LH_LAUNCH_MPI && lh_cli_ending()
               ? "mpirun ends the job, since a rank died or it was interrupted; go on with --resume"
               : NULL;
}

/* Keys of a run by hand come from a file; processes over tcp and ranks get keys of this run alone.
 */
static int open_security(struct train *t)
{
    const struct lh_train_options *o = t->opt;
    bool insecure = o->insecure || t->job->security == LH_JOB_CLEAR;
    bool made = !insecure && o->launcher == LH_LAUNCH_PROCESSES && o->transport == LH_TRANSPORT_TCP;
    if (o->keys)
        LH_TRY(lh_keys_load(&t->keys, o->keys, LH__ROLE__ROLE_SCHEDULER));
    else if (made)
        LH_TRY(lh_keys_make(&t->keys, LH__ROLE__ROLE_SCHEDULER, "scheduler", NULL));
    const struct lh_keys *keys = o->keys || made ? &t->keys : NULL;
    if (o->launcher == LH_LAUNCH_MPI)
        keys = lh_launch_mpi_keys(o->mpi);
    return lh_security_open(&t->security, t->zmq, keys, insecure);
}

static int schedule(struct train *t, struct lh_scheduler_result *result)
{
    char bind[LH_NET_ENDPOINT_MAX];
    LH_TRY(endpoint(t, bind, sizeof bind));
    LH_TRY(lh_net_context(&t->zmq, t->job->io_threads));
    int rc = open_security(t);
    if (rc >= 0)
        rc =
            lh_scheduler_run(t->zmq,
                             &(struct lh_scheduler_options){
                                 .bind = bind,
                                 .dir = t->opt->dir,
                                 .job = t->job,
                                 .model = &t->model,
                                 .record = &t->record,
                                 .clock = t->clock,
                                 .transitions = t->transitions,
                                 .workers = t->opt->workers,
                                 .servers = t->opt->servers,
                                 .patience = patience(t),
                                 .security = &t->security,
                                 .bound = place_roles,
                                 .watch = watch_roles,
                                 .replace = replace_role,
                                 .launcher = t,
                                 .evaluate = t->evaluation.behaviour ? lh_cut_evaluation_run : NULL,
                                 .evaluation_ids = lh_cut_evaluation_ids,
                                 .evaluation = &t->evaluation,
                                 .quiet = t->opt->quiet,
                                 .interrupted = interrupted(t),
                                 .metrics = t->opt->metrics,
                                 .interrupt_note = interrupt_note},
                             result);
    struct lh_err err;
    lh_err_save(&err, rc);
    if (rc < 0)
        zmq_ctx_shutdown(t->zmq); /* wakes whoever did not hear the end */
    lh_launch_local_stop(&t->threads);
    lh_launch_processes_stop(&t->processes);
    lh_security_close(&t->security);
    lh_keys_fini(&t->keys);
    zmq_ctx_term(t->zmq);
    return err.code < 0 ? lh_err_load(&err) : 0;
}

/* --- reporting ---------------------------------------------------------------------------------
 */
static struct lh_role_times times_of(const Lh__Phases *p, uint32_t roles)
{
    return (struct lh_role_times){.roles = roles,
                                  .gather = p->gather,
                                  .compute = p->compute,
                                  .backward = p->backward,
                                  .reduce = p->reduce,
                                  .push = p->push,
                                  .wait = p->wait,
                                  .optimise = p->optimise,
                                  .reply = p->reply,
                                  .cut = p->cut,
                                  .dropped = p->dropped,
                                  .bytes_in = p->bytes_in,
                                  .bytes_out = p->bytes_out};
}

static int report_best(const struct train *t, struct lh_train_result *out)
{
    const struct lh_run_record *r = &t->record;
    out->best_version = r->has_best ? r->best : r->has_last ? r->last : 0;
    const struct lh_run_cut *cut = r->has_best ? lh_run_record_cut(r, r->best) : NULL;
    cJSON *json = cut && cut->evaluation_json ? cJSON_Parse(cut->evaluation_json) : NULL;
    const cJSON *policy = cJSON_GetObjectItemCaseSensitive(json, "policy");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(policy, "value");
    out->has_evaluation = cJSON_IsNumber(value);
    if (out->has_evaluation) {
        out->best_value = value->valuedouble;
        out->best_lo = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(policy, "lo"));
        out->best_hi = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(policy, "hi"));
        out->best_ess_share =
            cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(policy, "ess_share"));
    }
    cJSON_Delete(json);
    return 0;
}

static int write_times(const struct train *t, const struct lh_train_result *r)
{
    char *text = NULL;
    const struct lh_role_times *w = &r->workers, *s = &r->servers;
    LH_TRY(lh_mem_printf(
        &text,
        "{\"steps\": %llu, \"seconds\": %.6f, \"transitions\": %llu,\n"
        " \"workers\": {\"roles\": %u, \"gather\": %.6f, \"compute\": %.6f, \"backward\": %.6f, "
        "\"reduce\": %.6f, "
        "\"push\": %.6f, \"take\": %.6f, \"wait\": %.6f, \"bytes_in\": %llu, \"bytes_out\": %llu, "
        "\"dropped\": %llu},\n"
        " \"servers\": {\"roles\": %u, \"reduce\": %.6f, \"optimise\": %.6f, \"reply\": %.6f, "
        "\"cut\": %.6f, \"wait\": %.6f, \"bytes_in\": %llu, \"bytes_out\": %llu, \"dropped\": "
        "%llu}}\n",
        (unsigned long long)r->steps, r->seconds, (unsigned long long)r->transitions, w->roles,
        w->gather, w->compute, w->backward, w->reduce, w->push, w->reply, w->wait,
        (unsigned long long)w->bytes_in, (unsigned long long)w->bytes_out,
        (unsigned long long)w->dropped, s->roles, s->reduce, s->optimise, s->reply, s->cut, s->wait,
        (unsigned long long)s->bytes_in, (unsigned long long)s->bytes_out,
        (unsigned long long)s->dropped));
    int rc = lh_run_dir_write(&t->dir, "times.json", text);
    lh_mem_free(text);
    return rc;
}

static int run(struct train *t, struct lh_train_result *out)
{
    struct lh_scheduler_result result = {0};
    int rc = schedule(t, &result);
    out->version = result.version;
    out->steps = result.steps;
    out->seconds = result.seconds;
    out->transitions = result.steps * t->job->batch;
    out->workers = times_of(&result.workers, result.workers_seen);
    out->servers = times_of(&result.servers, result.servers_seen);
    LH_TRY(rc);
    LH_TRY(remove_old_stores(t));
    LH_TRY(write_times(t, out));
    if (result.interrupted)
        return lh_err_set(LH_ECANCELED, "%s: interrupted at step %llu of %llu; go on with --resume",
                          t->opt->dir, (unsigned long long)result.version,
                          (unsigned long long)t->clock.total);
    return 0;
}

/* The best cut on the test split, which nothing was chosen by. */
static int evaluate_test(struct train *t, struct lh_train_result *out)
{
    struct lh_run *best = NULL;
    struct lh_verdict v = {0};
    int rc;
    LH_TRY(lh_run_open(&best, t->opt->dir, LH_CUT_BEST));
    if (!t->opt->quiet && t->evaluation.behaviour)
        lh_note("evaluating step %llu on the test split", (unsigned long long)best->version);
    LH_TRY_TO(done, lh_cut_evaluation_test(&t->evaluation, best->weights, &best->rows,
                                           interrupted(t), &v));
    if (rc == LH_NOTFOUND)
        goto done;
    LH_TRY_TO(done, lh_run_dir_write(&t->dir, "test.json", v.json));
    out->has_test = true;
    out->test_value = v.value;
    out->test_lo = v.lo;
    out->test_hi = v.hi;
    out->test_ess_share = v.ess_share;
done:
    lh_run_close(&best);
    lh_mem_free(v.json);
    if (rc == LH_ECANCELED)
        return lh_err_set(rc,
                          "%s: trained, but interrupted while it was evaluated on test; go on with "
                          "--resume",
                          t->opt->dir);
    return rc < 0 ? lh_err_prefix(rc, "%s is trained, but not evaluated on test", t->opt->dir) : 0;
}

int lh_train(const struct lh_job *job, const struct lh_train_options *opt,
             struct lh_train_result *out)
{
    struct train t = {.opt = opt, .dir.lock = -1};
    *out = (struct lh_train_result){0};
    int rc = prepare(&t, job);
    if (rc >= 0 && (t.clock.start < t.clock.until || t.clock.evaluate_start)) {
        rc = run(&t, out);
    } else if (rc >= 0) { /* a run that had ended is resumed: nothing is left to do */
        out->version = t.clock.start;
        t.record.state = t.clock.start >= t.clock.total ? LH_RUN_FINISHED : LH_RUN_STOPPED;
        rc = lh_run_record_save(&t.record, opt->dir);
    }
    if (rc >= 0 && t.evaluation.behaviour && out->version == t.clock.total)
        rc = evaluate_test(&t, out);
    struct lh_err err;
    lh_err_save(&err, rc);
    report_best(&t, out);
    if (t.sockets)
        lh_fs_remove_tree(t.sockets);
    lh_mem_free(t.sockets);
    lh_run_dir_close(&t.dir, err.code < 0 && err.code != LH_ECANCELED && out->steps == 0 &&
                                 !t.record.has_last);
    lh_cut_evaluation_fini(&t.evaluation);
    lh_run_record_fini(&t.record);
    lh_model_fini(&t.model);
    lh_dataset_close(&t.dataset);
    lh_job_destroy(&t.job);
    return err.code < 0 ? lh_err_load(&err) : 0;
}
