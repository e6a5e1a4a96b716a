/* Roles as threads, over inproc:// in one ZeroMQ context. */
#include "cluster/launch.h"

#include "cluster/role_model.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/net.h"
#include "worker/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct role_thread {
    const struct lh_launch_spec *spec;
    bool server;
    uint32_t index;
    pthread_t thread;
    atomic_bool ended;
    struct lh_err err; /* valid once it has ended */
};

struct lh_launch_local {
    struct lh_launch_spec spec;
    char endpoint[LH_NET_ENDPOINT_MAX];
    struct role_thread *roles;
    size_t n; /* started */
};

static int run_server(const struct role_thread *r)
{
    char bind[64];
    struct lh_server_options opt = {.scheduler = r->spec->endpoint,
                                    .bind = bind,
                                    .wanted = r->index + 1,
                                    .patience = r->spec->patience,
                                    .model = lh_role_model,
                                    .model_fini = lh_role_model_fini};
    const struct lh_train_given *given = r->spec->given;
    struct lh_role_initial initial;
    snprintf(bind, sizeof bind, "inproc://server-%u", r->index);
    if (given) {
        initial = given->initial;
        opt.ctx = &initial;
        opt.look = given->look;
        opt.onlooker = given->onlooker;
    }
    return lh_server_run(r->spec->zmq, &opt);
}

static int run_worker(const struct role_thread *r)
{
    const struct lh_train_given *given = r->spec->given;
    return lh_worker_run(r->spec->zmq,
                         &(struct lh_worker_options){.scheduler = r->spec->endpoint,
                                                     .patience = r->spec->patience,
                                                     .given = given ? given->batches : NULL});
}

static void *run_role(void *arg)
{
    struct role_thread *r = arg;
    int rc = r->server ? run_server(r) : run_worker(r);
    lh_err_save(&r->err, rc);
    atomic_store(&r->ended, true);
    return NULL;
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
    LH_TRY_TO(fail, LH_NEW_ARRAY(&l->roles, spec->servers + spec->workers, "role threads"));
    for (; l->n < spec->servers + spec->workers; l->n++) {
        struct role_thread *r = &l->roles[l->n];
        r->spec = &l->spec;
        r->server = l->n < spec->servers;
        r->index = (uint32_t)(r->server ? l->n : l->n - spec->servers);
        int e = pthread_create(&r->thread, NULL, run_role, r);
        if (e != 0) {
            rc = lh_err_errno(e, "starting the thread of a %s", r->server ? "server" : "worker");
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
        if (atomic_load(&l->roles[i].ended) && l->roles[i].err.code < 0)
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
