/* The scheduler role: membership, the clock plan, cuts in two phases, evaluation, the end. Nothing
 * of a step goes through it but its metrics. cluster/README.md tells the protocol. */
#pragma once

#include "cluster/evaluator.h"
#include "cluster/run_record.h"
#include "common/clock.h"
#include "common/job.h"
#include "common/wire.h"
#include "worker/model.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_metrics;

/* A role's process, as launcher and scheduler speak of it. */
struct lh_scheduler_process {
    uint64_t pid;
    char host[64];
    bool server;
    uint32_t shard; /* of a server */
    bool replaced;  /* of one that ended: another has been started already */
    bool exited;    /* likewise: by itself, and its last word may be under way */
};

struct lh_scheduler_options {
    const char *bind;             /* endpoint; a wildcard takes a free port */
    const char *dir;              /* run directory; exists */
    const struct lh_job *job;     /* resolved */
    const struct lh_model *model; /* of as many shards as servers */
    struct lh_run_record *record; /* state running; renewed and saved as the run goes */
    struct lh_clock clock;
    uint64_t transitions;               /* of the training split */
    uint32_t workers, servers;          /* to begin with */
    double patience;                    /* seconds to wait for them */
    const struct lh_security *security; /* with a guard where it has keys; NULL: none */
    /* Called once it listens, with the endpoint: the launcher places the roles. */
    int (*bound)(void *ctx, const char *endpoint);
    /* Gives pid, host, `replaced` and `exited` of a role's process that has ended, or pid 0. An
     * error is a role that could not start. NULL: nobody watches. */
    int (*watch)(void *ctx, struct lh_scheduler_process *ended);
    /* Has the role of a process started anew: of one that watch gave, or of one that is silent and
     * is to be ended first. *replaced: somebody will come; else the run cannot do without a server.
     * NULL: never. */
    int (*replace)(void *ctx, const struct lh_scheduler_process *p, bool *replaced);
    void *launcher;
    lh_evaluate_cut evaluate;                                /* NULL: none */
    int (*evaluation_ids)(void *ctx, struct lh_rowpull *to); /* as of lh_evaluator_spec */
    void *evaluation;
    bool quiet;
    bool (*interrupted)(void);  /* NULL: never */
    struct lh_metrics *metrics; /* where it counts (common/metrics.h); NULL: nowhere */
    const char *(*interrupt_note)(void *ctx); /* said at once when interrupted; NULL: nothing */
};

struct lh_scheduler_result {
    uint64_t version;            /* of the last complete cut */
    uint64_t steps;              /* of this run */
    double seconds;              /* from the first assignment to the last step */
    Lh__Phases workers, servers; /* sums over roles */
    uint32_t workers_seen, servers_seen;
    bool interrupted;
};

/* Runs a job to its end. When a server dies and is replaced, everybody goes back to the last cut
 * and on from there, to the same bits. Errors: LH_EPEER naming who died, LH_ETIMEDOUT naming who
 * never came, or what a role reported; the record then says failed and holds the last complete cut.
 */
int lh_scheduler_run(void *zmq, const struct lh_scheduler_options *opt,
                     struct lh_scheduler_result *out);
