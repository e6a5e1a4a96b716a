/* The launcher of mpirun: every rank is one process of the same command and takes one role. They
 * agree by MPI collectives on who is what, at which addresses and by which keys, prove that they
 * reach each other there, and then train over tcp:// as roles of any launcher do
 * (cluster/README.md). Rank 0 runs the scheduler itself; each other starts its role as a process
 * and looks after it.
 *
 * Rank 0: meet, train with it (train.h), end. The others: meet, serve, end. */
#pragma once

#include "cluster/cut_evaluation.h"
#include "cluster/scheduler.h"
#include "common/job.h"
#include "common/keys.h"

#include <stdbool.h>

struct lh_launch_mpi;

struct lh_launch_mpi_spec {
    const struct lh_job *job; /* rank 0's, for its section cluster; NULL where it cannot be read */
    int failed;               /* rank 0: why, with the current sentence; ends the job */
    double patience;          /* seconds to wait for ranks, and for them to be reached */
    bool (*interrupted)(void);
};

/* All ranks return the same: 0, or the failure of the lowest rank that has one, which is for rank 0
 * to say (lh_launch_mpi_speaks). Errors: of lh_mpi_open, lh_placement, lh_address_choose;
 * LH_EMISMATCH of releases; LH_ETIMEDOUT naming who cannot reach whom at which address. */
int lh_launch_mpi_meet(struct lh_launch_mpi **out, const struct lh_launch_mpi_spec *spec);
bool lh_launch_mpi_leads(const struct lh_launch_mpi *l); /* rank 0 */
/* Whether this rank is to say what went wrong, so that it is said once: rank 0, and for what rank 0
 * cannot say itself another. */
bool lh_launch_mpi_speaks(const struct lh_launch_mpi *l);
unsigned lh_launch_mpi_workers(const struct lh_launch_mpi *l);
unsigned lh_launch_mpi_servers(const struct lh_launch_mpi *l);

/* --- rank 0 ------------------------------------------------------------------------------------
 */
/* Where the scheduler is to listen, now: from this call on the address is free for it. */
const char *lh_launch_mpi_bind(struct lh_launch_mpi *l);
/* The scheduler's, with all other ranks' on its allow-list; NULL where the job goes in the clear.
 */
const struct lh_keys *lh_launch_mpi_keys(const struct lh_launch_mpi *l);
/* The scheduler listens: all begin their roles. */
int lh_launch_mpi_start(struct lh_launch_mpi *l);
/* As lh_scheduler_options.watch and replace; for the scheduler's thread. A rank starts the role of
 * a process that a signal ended again by itself; one that does not answer within 5 s has died. */
int lh_launch_mpi_watch(struct lh_launch_mpi *l, struct lh_scheduler_process *ended);
int lh_launch_mpi_replace(struct lh_launch_mpi *l, const struct lh_scheduler_process *p,
                          bool *replaced);
/* Evaluations are shared with the workers' ranks. */
const struct lh_evaluate_helpers *lh_launch_mpi_helpers(struct lh_launch_mpi *l);

/* --- the others --------------------------------------------------------------------------------
 */
/* Waits for the scheduler, runs this rank's role, helps with evaluations, until rank 0 says how the
 * job ended: returns that code, whose sentence rank 0 says; or LH_EPEER when rank 0 is gone. */
int lh_launch_mpi_serve(struct lh_launch_mpi *l);

/* Ends the job with `rc` on all ranks, which exit with the same status; mpirun ends those that do
 * not. Keeps the current sentence, returns rc. NULL content allowed. */
int lh_launch_mpi_end(struct lh_launch_mpi **l, int rc);
