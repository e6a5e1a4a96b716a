/* What `longhaul server` and `longhaul worker` share: a role that is a process of its own, with its
 * keys, its metrics, and a scheduler that it looks for. */
#pragma once

#include "cluster/cli.h"
#include "common/security.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_metrics;

#define LH_ROLE_COMMAND_OPTS 6

struct lh_role_command {
    /* by its options */
    const char *scheduler, *metrics_at, *keys_path;
    double patience;
    bool insecure, launched;
    /* while it is open */
    struct lh_keys keys;
    struct lh_security security;
    struct lh_metrics *metrics; /* NULL: served nowhere */
    void *zmq;
};

/* Its options, into the first LH_ROLE_COMMAND_OPTS of a table; sets their defaults. */
void lh_role_command_options(struct lh_role_command *p, Lh__Role role,
                             struct lh_opt out[LH_ROLE_COMMAND_OPTS]);
/* Opens metrics, network and keys. Errors: LH_EUSAGE where no scheduler is named; those of keys.h
 * and metrics.h; nothing is left open then. */
int lh_role_command_open(struct lh_role_command *p, Lh__Role role, uint32_t io_threads);
/* Once the role's sockets are closed. */
void lh_role_command_close(struct lh_role_command *p);
/* What interrupts the role; NULL: its launcher's business. */
bool (*lh_role_command_interrupted(const struct lh_role_command *p))(void);
