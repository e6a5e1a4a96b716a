/* Launchers only place roles: threads of this process, or processes of this host. A role is the
 * same function in each and does not know (DESIGN.md, section 3). */
#pragma once

#include "cluster/scheduler.h"
#include "cluster/train.h"
#include "common/security.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_launch_spec {
    void *zmq;            /* local: the context that the scheduler uses too */
    const char *endpoint; /* of the scheduler */
    uint32_t workers, servers;
    uint32_t io_threads; /* of processes: of each server */
    bool apart;          /* local: no worker shares its thread with a server */
    enum lh_transport transport;
    const char *sockets;                /* directory for ipc */
    const char *program;                /* of processes */
    double patience;                    /* seconds a role waits for the scheduler */
    const struct lh_train_given *given; /* local only */
    struct lh_metrics *metrics;         /* of this process; processes serve theirs at the same
                                           address, each at a free port; NULL: none */
    /* The scheduler's; with keys, each process is given a pair of its own, by a descriptor, and the
     * guard its public key. NULL or without keys: in the clear. */
    const struct lh_security *security;
};

struct lh_launch_local;
int lh_launch_local_start(struct lh_launch_local **out, const struct lh_launch_spec *spec);
/* As lh_scheduler_options.watch, of this host; threads have no process, so *pid is 0, but one that
 * failed before it reached the scheduler is an error. */
int lh_launch_local_watch(struct lh_launch_local *l, uint64_t *pid);
/* Waits for the roles to end: the scheduler has told them, or the context was shut down. */
void lh_launch_local_stop(struct lh_launch_local **l);

struct lh_launch_processes;
int lh_launch_processes_start(struct lh_launch_processes **out, const struct lh_launch_spec *spec);
int lh_launch_processes_watch(struct lh_launch_processes *l, struct lh_scheduler_process *ended);
/* As lh_scheduler_options.replace: one that was ended by a signal, or is ended here because it does
 * not answer, is started again, as long as that does not happen too often. */
int lh_launch_processes_replace(struct lh_launch_processes *l, uint64_t pid, bool *replaced);
/* Gives the roles some seconds to end, then kills those that have not. */
void lh_launch_processes_stop(struct lh_launch_processes **l);
