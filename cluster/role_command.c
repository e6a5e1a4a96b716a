/* The process around a server or a worker that was started by hand, or by a launcher. */
#include "cluster/role_command.h"

#include "cluster/cmd_train.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/net.h"

#include <string.h>
#include <zmq.h>

void lh_role_command_options(struct lh_role_command *p, Lh__Role role,
                             struct lh_opt out[LH_ROLE_COMMAND_OPTS])
{
    const struct lh_opt opts[LH_ROLE_COMMAND_OPTS] = {
        {.name = "scheduler",
         .kind = LH_OPT_STRING,
         .value = &p->scheduler,
         .metavar = "ENDPOINT",
         .help = "Where the scheduler listens."},
        {.name = "patience",
         .kind = LH_OPT_DOUBLE,
         .value = &p->patience,
         .metavar = "SECONDS",
         .min = 0,
         .max = INT64_MAX,
         .help = "How long to wait for the scheduler."},
        {.name = "metrics",
         .kind = LH_OPT_STRING,
         .value = &p->metrics_at,
         .metavar = "[ADDRESS:]PORT",
         .help =
             "Serve this role's metrics over HTTP there, in the Prometheus text format; without "
             "an address on 127.0.0.1; port 0 takes a free one. None where it is not given."},
        {.name = "keys",
         .kind = LH_OPT_STRING,
         .value = &p->keys_path,
         .metavar = "FILE",
         .help = role == LH__ROLE__ROLE_SERVER
                     ? "This server's key file, of the same 'longhaul keygen' as the scheduler's. "
                       "Needed over tcp between hosts."
                     : "This worker's key file, of the same 'longhaul keygen' as the scheduler's. "
                       "Needed over tcp between hosts."},
        {.name = "insecure",
         .kind = LH_OPT_FLAG,
         .value = &p->insecure,
         .help = "Go over tcp between hosts without keys, in the clear."},
        {.name = "launched",
         .kind = LH_OPT_FLAG,
         .value = &p->launched,
         .help = "Leave interrupts to the scheduler that started this process."},
    };
    *p = (struct lh_role_command){.patience = 300, .metrics_at = ""};
    memcpy(out, opts, sizeof opts);
}

int lh_role_command_open(struct lh_role_command *p, Lh__Role role, uint32_t io_threads)
{
    int rc;
    if (!p->scheduler)
        return lh_err_set(LH_EUSAGE, "%s: whose? name the scheduler with --scheduler ENDPOINT",
                          lh_keys_role_name(role));
    if (*p->metrics_at) {
        LH_TRY(lh_metrics_open(&p->metrics, p->metrics_at));
        if (!p->launched) /* else the scheduler tells where */
            lh_cmd_tell_metrics(p->metrics);
    }
    lh_mem_keep();
    LH_TRY_TO(fail, lh_net_context(&p->zmq, io_threads));
    if (p->keys_path)
        LH_TRY_TO(fail, lh_keys_load(&p->keys, p->keys_path, role));
    LH_TRY_TO(fail,
              lh_security_open(&p->security, p->zmq, p->keys_path ? &p->keys : NULL, p->insecure));
    return 0;
fail:
    lh_role_command_close(p);
    return rc;
}

void lh_role_command_close(struct lh_role_command *p)
{
    lh_security_close(&p->security);
    lh_keys_fini(&p->keys);
    if (p->zmq)
        zmq_ctx_term(p->zmq);
    p->zmq = NULL;
    lh_metrics_close(&p->metrics);
}

bool (*lh_role_command_interrupted(const struct lh_role_command *p))(void)
{
    return p->launched ? NULL : lh_cli_interrupted;
}
