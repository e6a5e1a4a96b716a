/* `longhaul worker`: the worker role as a process. */
#include "cluster/cmd_train.h"
#include "cluster/role_command.h"
#include "common/err.h"
#include "worker/worker.h"

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
    struct lh_role_command command;
    const char *dataset;
};

static int work(struct options *o)
{
    struct lh_role_command *p = &o->command;
    bool told = false;
    LH_TRY(lh_role_command_open(p, LH__ROLE__ROLE_WORKER, 1));
    int rc = lh_worker_run(
        p->zmq, &(struct lh_worker_options){.scheduler = p->scheduler,
                                            .dataset = o->dataset,
                                            .patience = p->patience,
                                            .rejoin = !p->launched,
                                            .security = &p->security,
                                            .interrupted = lh_role_command_interrupted(p),
                                            .metrics = p->metrics,
                                            .told = &told});
    lh_role_command_close(p);
    return lh_cmd_role_ended(rc, p->launched && told);
}

static int run(int argc, char **argv)
{
    struct options o = {.dataset = NULL};
    struct lh_opt opts[LH_ROLE_COMMAND_OPTS + 1] = {
        [LH_ROLE_COMMAND_OPTS] = {
            .name = "dataset",
            .kind = LH_OPT_STRING,
            .value = &o.dataset,
            .metavar = "DIR",
            .help = "Where the log is here, if not where the job says; it must be the same log."}};
    const size_t n_opts = sizeof opts / sizeof *opts;
    lh_role_command_options(&o.command, LH__ROLE__ROLE_WORKER, opts);
    int rc = lh_cli_parse(&lh_cmd_worker, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = work(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}
