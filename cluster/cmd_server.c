/* `longhaul server`: the server role as a process. */
#include "cluster/cmd_train.h"
#include "cluster/role_command.h"
#include "cluster/role_model.h"
#include "common/err.h"
#include "ps/server.h"

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
    struct lh_role_command command;
    const char *bind, *advertise, *store;
    int64_t shard, io_threads;
};

static int serve(struct options *o)
{
    struct lh_role_command *p = &o->command;
    bool told = false;
    LH_TRY(lh_role_command_open(p, LH__ROLE__ROLE_SERVER, (uint32_t)o->io_threads));
    int rc = lh_server_run(
        p->zmq, &(struct lh_server_options){.scheduler = p->scheduler,
                                            .bind = o->bind,
                                            .advertise = o->advertise,
                                            .store = o->store,
                                            .wanted = (uint32_t)(o->shard + 1),
                                            .patience = p->patience,
                                            .rejoin = !p->launched,
                                            .security = &p->security,
                                            .model = lh_role_model,
                                            .model_fini = lh_role_model_fini,
                                            .interrupted = lh_role_command_interrupted(p),
                                            .metrics = p->metrics,
                                            .told = &told});
    lh_role_command_close(p);
    return lh_cmd_role_ended(rc, p->launched && told);
}

static int run(int argc, char **argv)
{
    struct options o = {.bind = "tcp://127.0.0.1:*", .shard = -1, .io_threads = 1};
    struct lh_opt opts[LH_ROLE_COMMAND_OPTS + 5] = {
        [LH_ROLE_COMMAND_OPTS] =
            {.name = "bind",
             .kind = LH_OPT_STRING,
             .value = &o.bind,
             .metavar = "ENDPOINT",
             .help = "Where workers reach this server; with several hosts an address that they "
                     "can reach. Port * takes a free one."},
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
    };
    const size_t n_opts = sizeof opts / sizeof *opts;
    lh_role_command_options(&o.command, LH__ROLE__ROLE_SERVER, opts);
    int rc = lh_cli_parse(&lh_cmd_server, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = serve(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
