/* `longhaul server`: the server role as a process. */
#include "cluster/cli.h"
#include "cluster/cmd_train.h"
#include "cluster/role_model.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/security.h"
#include "ps/server.h"

#include <zmq.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_server = {
    .name = "server",
    .summary = "serve a part of the parameters of a job",
    .usage = "--scheduler ENDPOINT [options]",
    .description =
        "A parameter server: says hello to the scheduler, learns which part of the weights it "
        "holds, takes gradients, steps the optimiser, hands out weights, and writes checkpoints. "
        "It ends with the run. When a server dies and is started again, the run goes back to its "
        "last checkpoint and on from there; when the scheduler does, servers and workers wait for "
        "it, at most --patience.",
    .examples = "longhaul server --scheduler tcp://10.0.0.1:5555 --bind 'tcp://10.0.0.2:*' \\\n"
                "    --keys server-0.keys",
    .run = run,
};

struct options {
    const char *scheduler, *bind, *advertise, *store;
    int64_t shard, io_threads;
    const char *metrics;
    const char *keys;
    double patience;
    bool insecure, launched;
};

static int serve(const struct options *o)
{
    if (!o->scheduler)
        return lh_err_set(LH_EUSAGE, "server: whose? name the scheduler with --scheduler ENDPOINT");
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
    int rc = lh_net_context(&zmq, (uint32_t)o->io_threads);
    if (rc < 0) {
        lh_metrics_close(&metrics);
        return rc;
    }
    rc = o->keys ? lh_keys_load(&keys, o->keys, LH__ROLE__ROLE_SERVER) : 0;
    if (rc >= 0)
        rc = lh_security_open(&security, zmq, o->keys ? &keys : NULL, o->insecure);
    if (rc >= 0)
        rc = lh_server_run(
            zmq, &(struct lh_server_options){.scheduler = o->scheduler,
                                             .bind = o->bind,
                                             .advertise = o->advertise,
                                             .store = o->store,
                                             .wanted = (uint32_t)(o->shard + 1),
                                             .patience = o->patience,
                                             .rejoin = !o->launched,
                                             .security = &security,
                                             .model = lh_role_model,
                                             .model_fini = lh_role_model_fini,
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
    struct options o = {
        .bind = "tcp://127.0.0.1:*", .shard = -1, .io_threads = 1, .patience = 300, .metrics = ""};
    const struct lh_opt opts[] = {
        {.name = "scheduler",
         .kind = LH_OPT_STRING,
         .value = &o.scheduler,
         .metavar = "ENDPOINT",
         .help = "Where the scheduler listens."},
        {.name = "bind",
         .kind = LH_OPT_STRING,
         .value = &o.bind,
         .metavar = "ENDPOINT",
         .help = "Where workers reach this server; with several hosts an address that they can "
                 "reach. Port * takes a free one."},
        {.name = "advertise",
         .kind = LH_OPT_STRING,
         .value = &o.advertise,
         .metavar = "ENDPOINT",
         .help =
             "The address that workers are told, where they do not reach this server at that of "
             "--bind: behind a port that is forwarded, a translated address, a relay."},
        {.name = "store",
         .kind = LH_OPT_STRING,
         .value = &o.store,
         .metavar = "DIR",
         .help = "Where checkpoints go, if not to the run directory."},
        {.name = "shard",
         .kind = LH_OPT_INT,
         .value = &o.shard,
         .metavar = "I",
         .min = -1,
         .max = 4095,
         .help = "Which part it would like to hold, from 0; -1: any."},
        {.name = "io-threads",
         .kind = LH_OPT_INT,
         .value = &o.io_threads,
         .metavar = "N",
         .min = 1,
         .max = 64,
         .help = "Threads that move its bytes ('longhaul help job': cluster.io_threads)."},
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
         .help = "This server's key file, of the same 'longhaul keygen' as the scheduler's. Needed "
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
    int rc = lh_cli_parse(&lh_cmd_server, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = serve(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
