/* `longhaul worker`: the worker role as a process. */
#include "cluster/cli.h"
#include "cluster/cmd_train.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/security.h"
#include "worker/worker.h"

#include <zmq.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_worker = {
    .name = "worker",
    .summary = "compute gradients for a job",
    .usage = "--scheduler ENDPOINT [options]",
    .description =
        "A worker: says hello to the scheduler, learns the job, reads the log, computes its share "
        "of each step's gradients. It may join a running job, and leave it (an interrupt) or die "
        "at any time: the others take its share, and the weights do not change by a bit.",
    .examples = "longhaul worker --scheduler tcp://10.0.0.1:5555 --keys worker-0.keys\n"
                "longhaul worker --scheduler tcp://10.0.0.1:5555 --keys worker-1.keys \\\n"
                "    --dataset /mnt/log",
    .run = run,
};

struct options {
    const char *scheduler, *dataset;
    const char *metrics;
    const char *keys;
    double patience;
    bool insecure, launched;
};

static int work(const struct options *o)
{
    if (!o->scheduler)
        return lh_err_set(LH_EUSAGE, "worker: whose? name the scheduler with --scheduler ENDPOINT");
    struct lh_keys keys = {0};
    struct lh_security security = {0};
    struct lh_metrics *metrics = NULL;
    if (*o->metrics) {
        LH_TRY(lh_metrics_open(&metrics, o->metrics));
        if (!o->launched) /* else the scheduler tells where */
            lh_cmd_tell_metrics(metrics);
    }
    lh_mem_keep();
    void *zmq = NULL;
    int rc = lh_net_context(&zmq, 1);
    if (rc < 0) {
        lh_metrics_close(&metrics);
        return rc;
    }
    rc = o->keys ? lh_keys_load(&keys, o->keys, LH__ROLE__ROLE_WORKER) : 0;
    if (rc >= 0)
        rc = lh_security_open(&security, zmq, o->keys ? &keys : NULL, o->insecure);
    if (rc >= 0)
        rc = lh_worker_run(
            zmq, &(struct lh_worker_options){.scheduler = o->scheduler,
                                             .dataset = o->dataset,
                                             .patience = o->patience,
                                             .rejoin = !o->launched,
                                             .security = &security,
                                             .interrupted = o->launched ? NULL : lh_cli_interrupted,
                                             .metrics = metrics});
    lh_security_close(&security);
    lh_keys_fini(&keys);
    zmq_ctx_term(zmq);
    lh_metrics_close(&metrics);
    return lh_cmd_role_ended(rc, o->launched);
}

static int run(int argc, char **argv)
{
    struct options o = {.patience = 300, .metrics = ""};
    const struct lh_opt opts[] = {
        {.name = "scheduler",
         .kind = LH_OPT_STRING,
         .value = &o.scheduler,
         .metavar = "ENDPOINT",
         .help = "Where the scheduler listens."},
        {.name = "dataset",
         .kind = LH_OPT_STRING,
         .value = &o.dataset,
         .metavar = "DIR",
         .help = "Where the log is here, if not where the job says; it must be the same log."},
        {.name = "patience",
         .kind = LH_OPT_DOUBLE,
         .value = &o.patience,
         .metavar = "SECONDS",
         .help = "How long to wait for the scheduler."},
        {.name = "metrics",
         .kind = LH_OPT_STRING,
         .value = &o.metrics,
         .metavar = "[ADDRESS:]PORT",
         .help =
             "Serve this role's metrics over HTTP there, in the Prometheus text format; without "
             "an address on 127.0.0.1; port 0 takes a free one. None where it is not given."},
        {.name = "keys",
         .kind = LH_OPT_STRING,
         .value = &o.keys,
         .metavar = "FILE",
         .help = "This worker's key file, of the same 'longhaul keygen' as the scheduler's. Needed "
                 "over tcp between hosts."},
        {.name = "insecure",
         .kind = LH_OPT_FLAG,
         .value = &o.insecure,
         .help = "Go over tcp between hosts without keys, in the clear."},
        {.name = "launched",
         .kind = LH_OPT_FLAG,
         .value = &o.launched,
         .help = "Leave interrupts to the scheduler that started this process."},
    };
    size_t n_opts = sizeof opts / sizeof *opts;
    int rc = lh_cli_parse(&lh_cmd_worker, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = work(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
