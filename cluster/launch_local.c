/* Roles as threads, over inproc:// in one ZeroMQ context: as many threads as the more numerous of
 * workers and servers, each carrying one of both as far as they go. While a worker computes its
 * shard answers nobody; in a step that all workers share, that is no loss. Where each has steps of
 * its own, others would wait for it: there each role has a thread of its own. */
#include "cluster/launch.h"

#include "cluster/role_model.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/net.h"
#include "common/term.h"
#include "worker/worker.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#define SPIN 300e-6 /* seconds: some times what it takes to be woken */

struct role_thread {
    const struct lh_launch_spec *spec;
    bool server, worker;
    double spin;
    uint32_t index;
    pthread_t thread;
    struct lh_server *shard; /* NULL once it has ended */
    atomic_bool failed;
    struct lh_err err; /* of what failed first; valid once it has */
};

struct lh_launch_local {
    struct lh_launch_spec spec;
    char endpoint[LH_NET_ENDPOINT_MAX];
    struct role_thread *roles;
    size_t n; /* started */
};

/* --- a worker and a shard on one thread ----------------------------------------------------------
 */
static void note_failure(struct role_thread *r, int rc)
{
    if (rc >= 0 || atomic_load(&r->failed))
        return;
    lh_err_save(&r->err, rc);
    atomic_store(&r->failed, true);
}

static bool turn_shard(void *ctx)
{
    struct role_thread *r = ctx;
    bool busy = false;
    if (!r->shard)
        return false;
    int rc = lh_server_turn(r->shard, &busy);
    if (rc < 0 || lh_server_stopped(r->shard))
        note_failure(r, lh_server_close(&r->shard, rc));
    return busy;
}

static size_t shard_sockets(void *ctx, struct lh_net_poll *out, size_t max)
{
    const struct role_thread *r = ctx;
    if (!r->shard || max < LH_SERVER_SOCKETS)
        return 0;
    lh_server_sockets(r->shard, out);
    return LH_SERVER_SOCKETS;
}

static double shard_patience(void *ctx)
{
    const struct role_thread *r = ctx;
    return r->shard ? lh_server_patience(r->shard) : 1;
}

/* The worker has ended, or there is none. As a worker does, it looks for a while before it sleeps.
 */
static void serve_alone(struct role_thread *r)
{
    double idle_since = lh_now();
    while (r->shard) {
        struct lh_net_poll poll[LH_SERVER_SOCKETS];
        if (turn_shard(r))
            idle_since = lh_now();
        if (!r->shard)
            return;
        if (lh_now() - idle_since < r->spin) {
            sched_yield(); /* who is waited for may have been put on this core */
            continue;
        }
        lh_server_sockets(r->shard, poll);
        int rc = lh_net_poll(poll, LH_SERVER_SOCKETS, lh_server_patience(r->shard));
        if (rc < 0)
            note_failure(r, lh_server_close(&r->shard, rc));
    }
}

static void *run_roles(void *arg)
{
    struct role_thread *r = arg;
    char bind[64];
    snprintf(bind, sizeof bind, "inproc://server-%u", r->index);
    const struct lh_train_given *given = r->spec->given;
    struct lh_role_initial initial;
    struct lh_server_options server = {.scheduler = r->spec->endpoint,
                                       .bind = bind,
                                       .wanted = r->index + 1,
                                       .patience = r->spec->patience,
                                       .model = lh_role_model,
                                       .model_fini = lh_role_model_fini,
                                       .metrics = r->spec->metrics};
    struct lh_companion companion = {.ctx = r,
                                     .turn = turn_shard,
                                     .sockets = shard_sockets,
                                     .patience = shard_patience,
                                     .spin = r->spin};
    struct lh_worker_options worker = {.scheduler = r->spec->endpoint,
                                       .given = given ? given->batches : NULL,
                                       .patience = r->spec->patience,
                                       .companion = &companion,
                                       .metrics = r->spec->metrics};
    if (given) {
        initial = given->initial;
        server.ctx = &initial;
        server.look = given->look;
        server.onlooker = given->onlooker;
    }
    if (r->server)
        note_failure(r, lh_server_open(&r->shard, r->spec->zmq, &server));
    if (r->worker && !atomic_load(&r->failed))
        note_failure(r, lh_worker_run(r->spec->zmq, &worker));
    serve_alone(r);
    return NULL;
}

/* Whether every thread has a core, so that one that waits for another may look again and again. */
static bool cores_suffice(size_t threads)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 && threads <= (size_t)CPU_COUNT(&set);
}

int lh_launch_local_start(struct lh_launch_local **out, const struct lh_launch_spec *spec)
{
    struct lh_launch_local *l = NULL;
    int rc;
    LH_TRY(LH_NEW(&l, "launcher"));
    l->spec = *spec;
    snprintf(l->endpoint, sizeof l->endpoint, "%s", spec->endpoint);
    l->spec.endpoint = l->endpoint;
    *out = l; /* the caller stops it, also after a failure */
    const bool apart = spec->apart;
    size_t threads = apart                           ? spec->servers + spec->workers
                     : spec->servers > spec->workers ? spec->servers
                                                     : spec->workers;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&l->roles, threads, "role threads"));
    for (; l->n < threads; l->n++) {
        struct role_thread *r = &l->roles[l->n];
        r->spec = &l->spec;
        r->server = l->n < spec->servers;
        r->worker = apart ? !r->server : l->n < spec->workers;
        r->spin = cores_suffice(threads) ? SPIN : 0;
        r->index = (uint32_t)l->n;
        int e = pthread_create(&r->thread, NULL, run_roles, r);
        if (e != 0) {
            rc = lh_err_errno(e, "starting the thread of a role");
            goto fail;
        }
    }
    return 0;
fail:
    return rc;
}

int lh_launch_local_watch(struct lh_launch_local *l, uint64_t *pid)
{
    *pid = 0;
    for (size_t i = 0; i < l->n; i++)
        if (atomic_load(&l->roles[i].failed))
            return lh_err_load(&l->roles[i].err);
    return 0;
}

void lh_launch_local_stop(struct lh_launch_local **out)
{
    struct lh_launch_local *l = *out;
    if (!l)
        return;
    for (size_t i = 0; i < l->n; i++)
        pthread_join(l->roles[i].thread, NULL);
    lh_mem_free(l->roles);
    lh_mem_free(l);
    *out = NULL;
}
