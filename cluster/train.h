/* Training as one call, used by `longhaul train` and by whoever needs a trained model (the
 * behaviour model of the evaluation). Places the roles by a launcher, follows the run, evaluates at
 * cuts, keeps the best. The run directory:
 *
 *   config.yaml       the resolved job              metrics.jsonl   a line a step
 *   run.json          state, best and last cut, evaluations, digest (cluster/run_record.h)
 *   store-I/          shard I's LMDB environment    times.json      where the time went
 *   test.json         the best cut on the test split, once the run has ended
 *   .lock             held while a scheduler works here
 */
#pragma once

#include "cluster/launch_mpi.h"
#include "cluster/role_model.h"
#include "cluster/run.h"
#include "common/dataset.h"
#include "common/job.h"
#include "ps/server.h"
#include "worker/feed.h"

enum lh_launcher {
    LH_LAUNCH_LOCAL,     /* threads of this process */
    LH_LAUNCH_PROCESSES, /* processes of this host */
    LH_LAUNCH_HAND,      /* whoever starts 'longhaul server' and 'longhaul worker' */
    LH_LAUNCH_MPI        /* ranks of mpirun, which have met (launch_mpi.h) */
};
enum lh_transport { LH_TRANSPORT_INPROC, LH_TRANSPORT_IPC, LH_TRANSPORT_TCP };

/* What a run computes with instead of a dataset's rows and the seed's initial weights, and who
 * looks at it (cmd_step.c). Roles are then threads of this process, and the job is resolved. */
struct lh_train_given {
    const struct lh_feed_given *batches; /* as many steps as the job has */
    struct lh_role_initial initial;
    void (*look)(void *onlooker, const struct lh_server_sum *sum); /* each shard from its thread */
    void *onlooker;
};

struct lh_metrics;

struct lh_train_options {
    const char *dir; /* run directory */
    unsigned workers, servers;
    enum lh_launcher launcher;
    enum lh_transport transport; /* of processes: ipc or tcp */
    bool resume;                 /* go on from the last complete cut in dir */
    bool quiet;
    uint64_t stop_after;       /* version to stop at; 0 = the end (a stopped run can be resumed) */
    bool no_evaluation;        /* cuts are not evaluated and no behaviour model is asked for (the
                                  behaviour model itself is trained so) */
    const char *bind;          /* of LH_LAUNCH_HAND: where the scheduler listens */
    const char *keys;          /* of LH_LAUNCH_HAND: the scheduler's key file; NULL: none */
    bool insecure;             /* as the job's cluster.security: none */
    struct lh_launch_mpi *mpi; /* of LH_LAUNCH_MPI, which also says how many workers and servers */
    const char *program;       /* of processes: what to run as roles; NULL: this program */
    double patience;           /* seconds to wait for roles at the start; 0: 60 */
    bool uninterruptible;      /* SIGINT and SIGTERM are somebody else's business */
    const struct lh_train_given *given; /* NULL: none */
    struct lh_metrics *metrics;         /* where roles of this process count, and where those of
                                           others serve theirs (cluster/launch.h); NULL: nowhere */
};

/* Where the time of all roles of a kind went, summed, seconds. */
struct lh_role_times {
    uint32_t roles;
    double gather, compute, reduce, push, wait, optimise, reply, cut;
    double backward;                       /* part of compute */
    uint64_t dropped, bytes_in, bytes_out; /* messages; bytes */
};

struct lh_train_result {
    uint64_t version; /* of the last complete cut */
    uint64_t steps;   /* of this run, without those of the runs it resumed */
    uint64_t best_version;
    double seconds;
    uint64_t transitions;
    bool has_evaluation;
    double best_value, best_lo, best_hi, best_ess_share; /* on validation */
    bool has_test; /* the run has ended, and its best cut was evaluated on test */
    double test_value, test_lo, test_hi, test_ess_share;
    struct lh_role_times workers, servers;
};

/* Errors: those of job, dataset, roles (by value, with their sentence); LH_EDIVERGED; LH_EEXIST if
 * dir holds a run and `resume` is not set; LH_EBUSY if another scheduler works there; LH_ECANCELED
 * after SIGINT or SIGTERM, when the run has been cut at a step and can be resumed. Whatever
 * happens, the run directory holds the last complete cut. */
int lh_train(const struct lh_job *job, const struct lh_train_options *opt,
             struct lh_train_result *out);
