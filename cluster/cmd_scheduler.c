/* `longhaul scheduler`: a run whose servers and workers are started by hand, on any hosts. */
#include "cluster/cmd_train.h"

#include "cluster/cli.h"
#include "common/err.h"

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_scheduler = {
    .name = "scheduler",
    .summary = "run a job on servers and workers started by hand",
    .usage = "JOB.yaml --dir RUN [options]",
    .description =
        "Does what 'longhaul train' does, but starts no roles: it listens, waits for --servers "
        "'longhaul server' and --workers 'longhaul worker', tells them the job, follows the run "
        "and records its checkpoints. Order of starting does not matter. Workers may join a "
        "running job, leave it, or die; the result is the same, bit by bit. When a server "
        "dies, the others wait for one to be started in its place, and the run goes back to its "
        "last checkpoint and on from there. When the scheduler dies, start it again at the same "
        "--bind with --resume: the other roles wait for it.\n\n"
        "Workers must see the dataset under the path that the job names, or be given --dataset; "
        "servers write their checkpoints to RUN/store-N, or where --store says.\n\n"
        "Over tcp between hosts every role proves who it is by a key, and all is encrypted: "
        "'longhaul keygen' writes a file for each.",
    .examples = "longhaul keygen --out keys --servers 2 --workers 8\n"
                "longhaul scheduler job.yaml --dir run --bind tcp://10.0.0.1:5555 -s 2 -w 8 \\\n"
                "    --keys keys/scheduler.keys\n"
                "longhaul server --scheduler tcp://10.0.0.1:5555 --bind 'tcp://10.0.0.2:*' \\\n"
                "    --keys server-0.keys\n"
                "longhaul worker --scheduler tcp://10.0.0.1:5555 --keys worker-0.keys",
    .run = run,
};

struct options {
    const char *dir, *bind, *keys;
    int64_t workers, servers, stop_after;
    double patience;
    bool resume, json, quiet, verbose, evaluation, insecure;
    struct lh_opt_list sets;
};

static int schedule(const char *job_path, const struct options *o)
{
    if (!o->dir)
        return lh_err_set(LH_EUSAGE, "scheduler: where to? name a run directory with --dir RUN");
    struct lh_train_options opt = {.dir = o->dir,
                                   .workers = (unsigned)o->workers,
                                   .servers = (unsigned)o->servers,
                                   .launcher = LH_LAUNCH_HAND,
                                   .transport = LH_TRANSPORT_TCP,
                                   .resume = o->resume,
                                   .quiet = o->quiet,
                                   .stop_after = (uint64_t)o->stop_after,
                                   .no_evaluation = !o->evaluation,
                                   .bind = o->bind,
                                   .keys = o->keys,
                                   .insecure = o->insecure,
                                   .patience = o->patience};
    return lh_cmd_train_run(job_path, o->sets.items, o->sets.n, &opt, o->json, o->verbose);
}

static int run(int argc, char **argv)
{
    struct options o = {.workers = 1,
                        .servers = 1,
                        .bind = "tcp://127.0.0.1:*",
                        .patience = 300,
                        .evaluation = true};
    const struct lh_opt opts[] = {
        {.name = "dir",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o.dir,
         .metavar = "RUN",
         .help = "The run directory; made if it is not there."},
        {.name = "bind",
         .kind = LH_OPT_STRING,
         .value = &o.bind,
         .metavar = "ENDPOINT",
         .help = "Where to listen: tcp://ADDRESS:PORT, or ipc://PATH on one host; port * takes a "
                 "free one and says which."},
        {.name = "keys",
         .kind = LH_OPT_STRING,
         .value = &o.keys,
         .metavar = "FILE",
         .help = "The scheduler's key file, which also lists whom it lets in. Needed over tcp "
                 "between hosts."},
        {.name = "insecure",
         .kind = LH_OPT_FLAG,
         .value = &o.insecure,
         .help = "Go over tcp between hosts without keys, in the clear, as cluster.security: none "
                 "does."},
        {.name = "workers",
         .letter = 'w',
         .kind = LH_OPT_INT,
         .value = &o.workers,
         .metavar = "N",
         .min = 1,
         .max = 4096,
         .help = "Workers to begin with; more may join."},
        {.name = "servers",
         .letter = 's',
         .kind = LH_OPT_INT,
         .value = &o.servers,
         .metavar = "M",
         .min = 1,
         .max = 60,
         .help = "Parameter servers."},
        {.name = "patience",
         .kind = LH_OPT_DOUBLE,
         .value = &o.patience,
         .metavar = "SECONDS",
         .min = 0,
         .max = INT64_MAX,
         .help = "How long to wait for them."},
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
         .help = "Stop when the run has made this many steps in all; 0: at the end."},
        {.name = "evaluation",
         .kind = LH_OPT_FLAG,
         .value = &o.evaluation,
         .help = "Evaluate checkpoints on the validation split."},
        {.name = "set",
         .kind = LH_OPT_LIST,
         .value = &o.sets,
         .metavar = "KEY=VALUE",
         .help = "Override a key of the job."},
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
    int rc = lh_cli_parse(&lh_cmd_scheduler, opts, n_opts, argc, argv, &job_path, 1, 1, NULL);
    if (rc != 0)
        return rc;
    rc = schedule(job_path, &o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
