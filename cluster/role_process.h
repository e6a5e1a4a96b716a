/* A role as a process of this program on this host. The processes launcher has one for each role of
 * a run, a rank of mpirun one for its own. It dies with the process that started it, so that nobody
 * is left behind; its keys are in memory that it inherits: no other user sees them, no file keeps
 * them. One thread starts it and lives as long. */
#pragma once

#include "common/keys.h"
#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct lh_role_process_spec {
    Lh__Role role;              /* server or worker */
    uint32_t shard;             /* of a server */
    const char *program;        /* NULL: this one */
    const char *scheduler;      /* its endpoint */
    const char *bind;           /* of a server, copied; what else is text is to outlive the role */
    uint32_t io_threads;        /* of a server */
    double patience;            /* seconds it waits for the scheduler */
    const char *metrics;        /* where it serves them; "": nowhere */
    const struct lh_keys *keys; /* its own, and whom it lets in; copied; NULL: none */
    bool insecure;              /* as the job's cluster.security: none */
};

struct lh_role_process {
    struct lh_role_process_spec spec;
    char bind[LH_NET_ENDPOINT_MAX];
    pid_t pid;  /* 0: has ended, or not begun */
    pid_t was;  /* its number, once it has ended */
    int status; /* of the end, as waitpid has it */
    int keys;   /* descriptor; -1: none */
};

/* Starts allowed in a while, of whatever shares it. */
struct lh_role_process_restarts {
    unsigned n;
    double since; /* seconds */
};

int lh_role_process_init(struct lh_role_process *p, const struct lh_role_process_spec *spec);
void lh_role_process_fini(struct lh_role_process *p); /* of one that does not run */
int lh_role_process_start(struct lh_role_process *p);
/* Whether it has ended since it was last asked. Errors: LH_EIO if it could not be executed. */
int lh_role_process_ended(struct lh_role_process *p, bool *ended);
void lh_role_process_kill(struct lh_role_process *p);
/* Starts another for one that a signal ended, as long as that does not happen too often (8 times
 * within 60 s); *again: it did. */
int lh_role_process_replace(struct lh_role_process *p, struct lh_role_process_restarts *restarts,
                            bool *again);
/* Gives [n] some seconds to end, then kills those that have not. */
void lh_role_process_stop(struct lh_role_process *p, size_t n);

/* "127.0.0.1:9464" -> "127.0.0.1:0": for a role beside one that serves its metrics there. "" stays.
 */
void lh_role_process_port_beside(const char *endpoint, char *out, size_t size);
