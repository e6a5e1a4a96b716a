/* How the ranks of a job meet: each tells its release, host and addresses; rank 0 decides on roles
 * and addresses and tells all; each makes keys for this job; servers and the scheduler open a port;
 * everybody tries to reach those it will talk to. All ranks make the same calls. */
#pragma once

#include "cluster/address.h"
#include "cluster/mpi.h"
#include "cluster/placement.h"
#include "common/http.h"
#include "common/job.h"
#include "common/keys.h"
#include "common/net.h"

#define LH_RANK_ADDRESSES_MAX 16

struct lh_rank_card {
    char host[64];
    uint64_t where; /* the same for ranks that share a host and its network */
    uint64_t n;
    struct lh_address addresses[LH_RANK_ADDRESSES_MAX];
};

/* What rank 0 has decided for a rank. */
struct lh_rank_seat {
    uint32_t role;  /* lh_placement_role */
    uint32_t shard; /* of a server */
    struct lh_address address;
};

/* And for all of them. */
struct lh_rank_plan {
    double deadline; /* cluster.deadline_seconds */
    uint64_t workers, servers;
    uint64_t clear; /* cluster.security: none */
    uint64_t io_threads;
    char metrics[LH_HTTP_ENDPOINT_MAX]; /* metrics.listen */
};

struct lh_rank_meeting {
    struct lh_mpi *mpi; /* set before, as the following two */
    int rank, size;
    double patience;
    struct lh_rank_card *cards; /* by rank, as the following */
    struct lh_rank_seat *seats;
    uint16_t *ports; /* 0: listens nowhere */
    struct lh_rank_plan plan;
    struct lh_keys keys; /* of this rank's role, and everybody else's public ones */
    int door;            /* listens at this rank's port until its role does; -1: closed */
};

/* `job` and `failed` are rank 0's; `failed`, with the current sentence, ends the meeting. All
 * return the same: 0, or the failure of the lowest rank that has one. Errors: of lh_placement,
 * lh_address_choose; LH_EMISMATCH of releases; LH_ETIMEDOUT naming who cannot reach whom. */
int lh_rank_meeting_hold(struct lh_rank_meeting *m, const struct lh_job *job, int failed);
/* The same result on all ranks: 0, or the failure of the lowest rank that has one. */
int lh_rank_meeting_agree(struct lh_rank_meeting *m, int rc);
/* From this call on the port is free for the role. */
void lh_rank_meeting_leave_door(struct lh_rank_meeting *m);
/* "tcp://10.1.0.2:4711", of a rank that listens; returns `out`. */
const char *lh_rank_meeting_endpoint(const struct lh_rank_meeting *m, int rank, char *out,
                                     size_t size);
/* Where this rank's role serves its metrics, at a free port: at the address that the job names, on
 * other hosts than rank 0's at their own; "" if nowhere. */
void lh_rank_meeting_metrics(const struct lh_rank_meeting *m, char *out, size_t size);
/* How many ranks are on this one's host. */
size_t lh_rank_meeting_here(const struct lh_rank_meeting *m);
void lh_rank_meeting_fini(struct lh_rank_meeting *m);
