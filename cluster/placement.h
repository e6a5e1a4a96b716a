/* Which rank of an MPI job takes which role. Rank 0 is the scheduler; each of the others is a
 * server or a worker. A pure function of the job's wishes and of the hosts on which mpirun put the
 * ranks. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum lh_placement_role { LH_PLACE_SCHEDULER, LH_PLACE_SERVER, LH_PLACE_WORKER };

#define LH_PLACE_SERVERS_MAX 60

struct lh_placement_wish {
    const char *list;          /* "lh1:1+2 lh2:0+4": servers and workers of every host, blanks or
                                  commas between; or "auto" */
    uint32_t servers_per_host; /* 0: one where two ranks or more are free, at least one in all */
    uint32_t workers_per_host; /* 0: all other ranks */
};

/*   hosts [n]  name of each rank's host; ranks of one name are on one host
 *   out   [n]  of a host's ranks but rank 0, the first are servers, the next workers
 * Every rank must have a role; a host that has only rank 0 needs no other. Names in a list are
 * whole or up to their first dot. Errors: LH_ECONFIG saying which host has too few or too many
 * ranks for what is asked of it, and the cure. */
int lh_placement(const struct lh_placement_wish *wish, const char *const *hosts, size_t n,
                 enum lh_placement_role *out);
size_t lh_placement_count(const enum lh_placement_role *roles, size_t n,
                          enum lh_placement_role role);
