/* `longhaul train`: a whole run by one command. */
#include "cluster/cmd_train.h"

#include "cluster/cli.h"
#include "cluster/launch_mpi.h"
#include "cluster/mpi.h"
#include "common/err.h"
#include "common/job.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/term.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVERS_MAX 60

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_train = {
    .name = "train",
    .summary = "train a policy on a log",
    .usage = "JOB.yaml --dir RUN [options]",
    .description =
        "Trains as the job file says ('longhaul help job' lists its keys), on parameter servers "
        "and "
        "workers that this command places: as threads of one process, as processes of this host, "
        "or, started by mpirun, as its ranks on any hosts. The weights are a function of log, job "
        "and seed alone: bit for bit the same for any "
        "number of workers and servers, by each launcher, and with or without crashes.\n\n"
        "The run directory gets config.yaml, metrics.jsonl (a line a step), "
        "evaluations.jsonl (a line an evaluation), run.json (state, cuts), times.json, and a "
        "store-N a server with the checkpoints. At each cut the "
        "policy is evaluated on the validation split, if there is one; the best is kept, and at "
        "the "
        "end it is evaluated on the test split.\n\n"
        "A run that was interrupted, stopped or killed goes on from its last complete checkpoint "
        "with --resume, to the same weights; launcher and number of workers and servers may "
        "change.\n\n"
        "Under mpirun every rank runs this command. Rank 0 is the scheduler, the others are "
        "servers and workers as the job's section 'cluster' says ('longhaul help job'): "
        "servers_per_host, workers_per_host, placement, and interface for the network between "
        "hosts, which must share the run directory. A rank starts its role as a process, and "
        "another "
        "when that one dies. Where a rank itself dies mpirun ends the job, and --resume goes on "
        "with "
        "it; with mpirun --enable-recovery the others make up for a worker's rank. SIGUSR1 to "
        "mpirun cuts a checkpoint and ends the run.",
    .examples = "longhaul train job.yaml --dir run --workers 2\n"
                "longhaul train job.yaml --dir run --set train.batch=1024 --set seed=7\n"
                "longhaul train job.yaml --dir run --launcher processes --servers 2 --workers 4\n"
                "longhaul train job.yaml --dir run --resume\n"
                "mpirun --hostfile hosts -n 12 --enable-recovery longhaul train job.yaml --dir run",
    .run = run,
};

struct options {
    const char *dir;
    int64_t workers, servers, stop_after;
    int launcher, transport;
    double patience;
    bool resume, json, quiet, verbose, evaluation;
    struct lh_opt_list sets;
};

static void add(cJSON *o, const char *name, double x)
{
    cJSON_AddNumberToObject(o, name, x);
}

static void add_times(cJSON *o, const char *name, const struct lh_role_times *t)
{
    cJSON *x = cJSON_AddObjectToObject(o, name);
    add(x, "roles", t->roles);
    add(x, "gather", t->gather);
    add(x, "compute", t->compute);
    add(x, "backward", t->backward);
    add(x, "reduce", t->reduce);
    add(x, "push", t->push);
    add(x, "wait", t->wait);
    add(x, "optimise", t->optimise);
    add(x, "reply", t->reply);
    add(x, "cut", t->cut);
    add(x, "bytes_in", (double)t->bytes_in);
    add(x, "bytes_out", (double)t->bytes_out);
    add(x, "dropped", (double)t->dropped);
}

static void add_value(cJSON *o, const char *name, bool known, double value, double lo, double hi,
                      double ess_share)
{
    cJSON *v = known ? cJSON_AddObjectToObject(o, name) : cJSON_AddNullToObject(o, name);
    if (!known)
        return;
    add(v, "value", value);
    add(v, "lo", lo);
    add(v, "hi", hi);
    add(v, "ess_share", ess_share);
}

static int print_json(const char *dir, const struct lh_train_result *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "dir", dir);
    add(o, "version", (double)r->version);
    add(o, "steps", (double)r->steps);
    add(o, "transitions", (double)r->transitions);
    add(o, "seconds", r->seconds);
    add(o, "transitions_per_s", r->seconds > 0 ? (double)r->transitions / r->seconds : 0);
    add(o, "best_version", (double)r->best_version);
    add_value(o, "validation", r->has_evaluation, r->best_value, r->best_lo, r->best_hi,
              r->best_ess_share);
    add_value(o, "test", r->has_test, r->test_value, r->test_lo, r->test_hi, r->test_ess_share);
    add_times(o, "workers", &r->workers);
    add_times(o, "servers", &r->servers);
    char *text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "train: out of memory for the result");
    puts(text);
    cJSON_free(text);
    return 0;
}

static int row(struct lh_table *t, const char *what, double workers, double servers)
{
    LH_TRY(lh_table_cell(t, "%s", what));
    LH_TRY(lh_table_cell(t, "%.3f", workers));
    return lh_table_cell(t, "%.3f", servers);
}

static int print_times(const struct lh_train_result *r)
{
    static const char *const headers[] = {"seconds", "workers", "servers"};
    const struct lh_role_times *w = &r->workers, *s = &r->servers;
    struct lh_table *t = NULL;
    int rc;
    LH_TRY(lh_table_create(&t, headers, 3));
    LH_TRY_TO(done, row(t, "gather", w->gather, s->gather));
    LH_TRY_TO(done, row(t, "forward", w->compute - w->backward, s->compute));
    LH_TRY_TO(done, row(t, "backward", w->backward, s->backward));
    LH_TRY_TO(done, row(t, "sum of gradients", w->reduce, s->reduce));
    LH_TRY_TO(done, row(t, "push", w->push, s->push));
    LH_TRY_TO(done, row(t, "optimiser", w->optimise, s->optimise));
    LH_TRY_TO(done, row(t, "reply, take in", w->reply, s->reply));
    LH_TRY_TO(done, row(t, "freeze cuts", w->cut, s->cut));
    LH_TRY_TO(done, row(t, "wait", w->wait, s->wait));
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int print_result(const char *dir, const struct lh_train_result *r, bool verbose)
{
    printf("%s: at step %" PRIu64 ", %" PRIu64 " steps in %.1f s (%.0f transitions/s)\n", dir,
           r->version, r->steps, r->seconds,
           r->seconds > 0 ? (double)r->transitions / r->seconds : 0);
    if (r->has_evaluation)
        printf("best on validation: step %" PRIu64
               ", NCIS %.4f [%.4f, %.4f], effective sample size %.1f%%\n",
               r->best_version, r->best_value, r->best_lo, r->best_hi, 100 * r->best_ess_share);
    if (r->has_test)
        printf("on test: NCIS %.4f [%.4f, %.4f], effective sample size %.1f%%\n", r->test_value,
               r->test_lo, r->test_hi, 100 * r->test_ess_share);
    return verbose ? print_times(r) : 0;
}

void lh_cmd_tell_metrics(const struct lh_metrics *m)
{
    lh_log_tell(LH_LOG_INFO, "metrics", LH_FIELDS(LH_F("endpoint", lh_metrics_endpoint(m))),
                "metrics at http://%s/metrics", lh_metrics_endpoint(m));
}

int lh_cmd_role_ended(int rc, bool others)
{
    if (rc < 0 && others)
        exit(lh_err_exit_status(rc));
    return rc;
}

/* With the metrics that the job asks for. */
static int train_observed(const struct lh_job *job, const struct lh_train_options *opt,
                          struct lh_train_result *result)
{
    struct lh_train_options observed = *opt;
    if (!*job->metrics_listen)
        return lh_train(job, opt, result);
    int rc = lh_metrics_open(&observed.metrics, job->metrics_listen);
    if (rc < 0)
        return lh_err_prefix(rc, "metrics.listen");
    lh_cmd_tell_metrics(observed.metrics);
    rc = lh_train(job, &observed, result);
    lh_metrics_close(&observed.metrics);
    return rc;
}

static int train_and_print(const struct lh_job *job, const struct lh_train_options *opt, bool json,
                           bool verbose)
{
    struct lh_train_result result;
    LH_TRY(train_observed(job, opt, &result));
    return json ? print_json(opt->dir, &result) : print_result(opt->dir, &result, verbose);
}

int lh_cmd_train_run(const char *job_path, const char *const *sets, size_t n_sets,
                     const struct lh_train_options *opt, bool json, bool verbose)
{
    struct lh_job *job = NULL;
    LH_TRY(lh_job_load(&job, job_path, sets, n_sets));
    lh_log_adopt(job->log_format, job->log_level);
    int rc = train_and_print(job, opt, json, verbose);
    lh_job_destroy(&job);
    return rc;
}

static unsigned workers_for(const struct options *o)
{
    return o->workers ? (unsigned)o->workers : 1;
}

/* As threads, servers cost nothing while workers compute, and share the work between two steps. */
static unsigned servers_for(const struct options *o, enum lh_launcher launcher)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t n = launcher == LH_LAUNCH_LOCAL ? workers_for(o) : 1;
    if (o->servers)
        return (unsigned)o->servers;
    n = cores > 0 && n > cores ? cores : n;
    return (unsigned)(n < SERVERS_MAX ? n : SERVERS_MAX);
}

/* --- under mpirun ------------------------------------------------------------------------------
 */
static int lead(struct lh_launch_mpi *l, const struct lh_job *job, struct lh_train_options *opt,
                const struct options *o)
{
    opt->mpi = l;
    opt->workers = lh_launch_mpi_workers(l);
    opt->servers = lh_launch_mpi_servers(l);
    return train_and_print(job, opt, o->json, o->verbose);
}

/* Every rank runs this. Rank 0 reads the job, trains and prints; a rank whose failure is said by
 * another leaves without a word. */
static int train_mpi(const char *job_path, const struct options *o, struct lh_train_options *opt)
{
    struct lh_launch_mpi *l = NULL;
    struct lh_job *job = NULL;
    const char *rank = getenv("PMIX_RANK");
    struct lh_launch_mpi_spec spec = {.patience = o->patience, .interrupted = lh_cli_interrupted};
    if (o->workers || o->servers)
        spec.failed = lh_err_set(LH_EUSAGE,
                                 "train: under mpirun ranks are the workers and servers: leave out "
                                 "--workers and --servers, or see cluster.placement in 'longhaul "
                                 "help job'");
    else if (!rank || strcmp(rank, "0") == 0)
        spec.failed = lh_job_load(&job, job_path, o->sets.items, o->sets.n);
    spec.job = job;
    int rc = lh_launch_mpi_meet(&l, &spec);
    if (rc >= 0)
        rc = lh_launch_mpi_leads(l) ? lead(l, job, opt, o) : lh_launch_mpi_serve(l);
    bool speaks = !l || lh_launch_mpi_speaks(l);
    rc = lh_launch_mpi_end(&l, rc);
    lh_job_destroy(&job);
    if (rc < 0 && !speaks)
        exit(lh_err_exit_status(rc));
    return rc;
}

static int launcher_of(const struct options *o, enum lh_launcher *out)
{
    static const enum lh_launcher launchers[] = {LH_LAUNCH_LOCAL, LH_LAUNCH_LOCAL,
                                                 LH_LAUNCH_PROCESSES, LH_LAUNCH_MPI};
    *out = o->launcher == 0 && lh_mpi_launched() ? LH_LAUNCH_MPI : launchers[o->launcher];
    if (*out == LH_LAUNCH_MPI && !lh_mpi_launched())
        return lh_err_set(LH_EUSAGE, "train: --launcher mpi is for ranks that mpirun started: "
                                     "mpirun -n N longhaul train …");
    return 0;
}

static int train(const char *job_path, const struct options *o)
{
    static const enum lh_transport transports[] = {LH_TRANSPORT_IPC, LH_TRANSPORT_TCP};
    enum lh_launcher launcher;
    if (!o->dir)
        return lh_err_set(LH_EUSAGE, "train: where to? name a run directory with --dir RUN");
    LH_TRY(launcher_of(o, &launcher));
    struct lh_train_options opt = {
        .dir = o->dir,
        .workers = workers_for(o),
        .servers = servers_for(o, launcher),
        .launcher = launcher,
        .transport = launcher == LH_LAUNCH_LOCAL ? LH_TRANSPORT_INPROC : transports[o->transport],
        .resume = o->resume,
        .quiet = o->quiet,
        .stop_after = (uint64_t)o->stop_after,
        .no_evaluation = !o->evaluation,
        .patience = o->patience};
    if (launcher == LH_LAUNCH_MPI)
        return train_mpi(job_path, o, &opt);
    return lh_cmd_train_run(job_path, o->sets.items, o->sets.n, &opt, o->json, o->verbose);
}

static int run(int argc, char **argv)
{
    static const char *const launchers[] = {"auto", "local", "processes", "mpi", NULL};
    static const char *const transports[] = {"ipc", "tcp", NULL};
    struct options o = {.patience = 60, .evaluation = true};
    const struct lh_opt opts[] = {
        {.name = "dir",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o.dir,
         .metavar = "RUN",
         .help = "The run directory; made if it is not there."},
        {.name = "workers",
         .letter = 'w',
         .kind = LH_OPT_INT,
         .value = &o.workers,
         .metavar = "N",
         .min = 0,
         .max = 4096,
         .help =
             "Workers; one a core is best. 0: one, under mpirun as many as there are ranks for."},
        {.name = "servers",
         .letter = 's',
         .kind = LH_OPT_INT,
         .value = &o.servers,
         .metavar = "M",
         .min = 0,
         .max = SERVERS_MAX,
         .help = "Parameter servers; each holds an equal part of the weights. 0: one beside each "
                 "worker that has a core, of processes one."},
        {.name = "launcher",
         .kind = LH_OPT_CHOICE,
         .value = &o.launcher,
         .metavar = "HOW",
         .choices = launchers,
         .help = "Roles as threads of this process (local), as processes of this host, or as the "
                 "ranks of mpirun; auto: mpi under mpirun, else local."},
        {.name = "patience",
         .kind = LH_OPT_DOUBLE,
         .value = &o.patience,
         .metavar = "SECONDS",
         .min = 0,
         .max = INT64_MAX,
         .help = "How long to wait for roles at the start."},
        {.name = "transport",
         .kind = LH_OPT_CHOICE,
         .value = &o.transport,
         .metavar = "HOW",
         .choices = transports,
         .help = "Of processes: local sockets, or TCP over the loopback."},
        {.name = "resume",
         .kind = LH_OPT_FLAG,
         .value = &o.resume,
         .help = "Go on from the last complete checkpoint of the run."},
        {.name = "stop-after",
         .kind = LH_OPT_INT,
         .value = &o.stop_after,
         .metavar = "STEPS",
         .min = 0,
         .max = INT64_MAX,
         .help = "Stop when the run has made this many steps in all, with a checkpoint there; 0: "
                 "at the end."},
        {.name = "evaluation",
         .kind = LH_OPT_FLAG,
         .value = &o.evaluation,
         .help = "Evaluate checkpoints on the validation split, and the best on test at the end."},
        {.name = "set",
         .kind = LH_OPT_LIST,
         .value = &o.sets,
         .metavar = "KEY=VALUE",
         .help = "Override a key of the job, as in --set train.batch=1024."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Print the result as one JSON object."},
        {.name = "quiet",
         .letter = 'q',
         .kind = LH_OPT_FLAG,
         .value = &o.quiet,
         .help = "No progress on standard error."},
        {.name = "verbose",
         .letter = 'v',
         .kind = LH_OPT_FLAG,
         .value = &o.verbose,
         .help = "Also tell where the time of workers and servers went."},
    };
    const char *job_path = NULL;
    size_t n_opts = sizeof opts / sizeof *opts;
    int rc = lh_cli_parse(&lh_cmd_train, opts, n_opts, argc, argv, &job_path, 1, 1, NULL);
    if (rc != 0)
        return rc;
    rc = train(job_path, &o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
