/* The server role: one shard of the parameters behind a socket. ps/README.md tells the life of a
 * push. It knows neither the algorithm nor who started it: what to hold comes from the scheduler's
 * plan, by way of a callback that turns a job into a layout. */
#pragma once

#include "common/job.h"
#include "common/layout.h"
#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_metrics;

/* What a server holds parts of. */
struct lh_server_model {
    const struct lh_layout *layout;
    size_t n_metrics;
    uint32_t leaves;      /* K, micro-batches of a step */
    const float *weights; /* [flat_size] initial; NULL when `initial` was false */
    const float *targets; /* [flat_size] initial target copies; NULL: as the weights */
    void *owner;          /* for model_fini */
};

/* A step's gradient as a shard has summed it, before it is applied. */
struct lh_server_sum {
    uint64_t step;
    const struct lh_shard_range *range;
    const float *gradient; /* [hi - lo] */
    const float *metrics;  /* [n_metrics]; NULL but on shard 0 */
};

struct lh_server_options {
    const char *scheduler;              /* endpoint */
    const char *bind;                   /* where to listen; "tcp://127.0.0.1:*" takes a free port */
    const char *advertise;              /* where others reach it; NULL: where it is bound */
    const char *store;                  /* directory; NULL: as the plan says */
    uint32_t wanted;                    /* shard it would like to be, + 1; 0: any */
    double patience;                    /* seconds to wait for the scheduler, each time */
    bool rejoin;                        /* wait for a scheduler that went away; else end */
    const struct lh_security *security; /* with a guard where it has keys; NULL: none */
    int (*model)(void *ctx, const struct lh_job *job, size_t shards, bool initial,
                 struct lh_server_model *out);
    void (*model_fini)(void *ctx, struct lh_server_model *model);
    void *ctx;
    /* Is shown every step's sum, from the server's thread; NULL: nobody looks. */
    void (*look)(void *onlooker, const struct lh_server_sum *sum);
    void *onlooker;
    bool (*interrupted)(void);  /* NULL: never */
    struct lh_metrics *metrics; /* where it counts (common/metrics.h); NULL: nowhere */
    bool *told;                 /* set: the scheduler knows how it ended; NULL: nobody asks */
};

/* Serves one job to its end. `zmq` is the process' context. When another server died, or, with
 * `rejoin`, when the scheduler went away, it says hello again, behind the same socket, and serves
 * from the last cut on. Returns 0 when the scheduler said so, else the failure: its own (told to
 * the scheduler), the job's, or LH_EPEER or LH_ETIMEDOUT when the scheduler went away. */
int lh_server_run(void *zmq, const struct lh_server_options *opt);

/* The same in turns, for a thread that has something else to do as well. Open returns when the
 * server is ready to serve; `opt` must outlive it. After a failure of a turn, or once it has
 * stopped, close it with what the last call returned; close returns what lh_server_run would. */
struct lh_server;
int lh_server_open(struct lh_server **out, void *zmq, const struct lh_server_options *opt);
/* Takes in what has come; waits for nothing. *busy (may be NULL): whether there was anything. */
int lh_server_turn(struct lh_server *s, bool *busy);
bool lh_server_stopped(const struct lh_server *s);
/* What to wait for before the next turn, and at most how many seconds. */
enum { LH_SERVER_SOCKETS = 2 };
void lh_server_sockets(const struct lh_server *s, struct lh_net_poll out[LH_SERVER_SOCKETS]);
double lh_server_patience(const struct lh_server *s);
int lh_server_close(struct lh_server **s, int rc); /* NULL content allowed: returns rc */
