/* Roles as processes of this program on this host (role_process.h), over ipc:// or tcp://. */
#include "cluster/launch.h"

#include "cluster/role_process.h"
#include "common/err.h"
#include "common/http.h"
#include "common/mem.h"
#include "common/metrics.h"

#include <stdio.h>
#include <sys/wait.h>

struct lh_launch_processes {
    struct lh_launch_spec spec;
    char endpoint[LH_NET_ENDPOINT_MAX];
    char metrics[LH_HTTP_ENDPOINT_MAX];
    struct lh_role_process *roles;
    size_t n;
    struct lh_role_process_restarts restarts;
};

/* Where the run has keys each role has a pair of its own, which the guard is told. */
static int make_keys(const struct lh_security *security, Lh__Role role, uint32_t index,
                     struct lh_keys *out)
{
    char name[LH_KEY_NAME_MAX];
    snprintf(name, sizeof name, "%s-%u", lh_keys_role_name(role), index);
    LH_TRY(lh_keys_make(out, role, name, &security->keys->own));
    return lh_guard_allow(security->guard, &out->own);
}

static int make_role(const struct lh_launch_processes *l, size_t i, struct lh_role_process *out)
{
    const struct lh_launch_spec *spec = &l->spec;
    struct lh_keys keys = {0};
    char bind[LH_NET_ENDPOINT_MAX];
    bool server = i < spec->servers, secure = spec->security && spec->security->keys;
    Lh__Role role = server ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_WORKER;
    uint32_t index = (uint32_t)(server ? i : i - spec->servers);
    if (spec->transport == LH_TRANSPORT_IPC)
        snprintf(bind, sizeof bind, "ipc://%s/server-%u", spec->sockets, index);
    else
        snprintf(bind, sizeof bind, "tcp://127.0.0.1:*");
    int rc = secure ? make_keys(spec->security, role, index, &keys) : 0;
    if (rc >= 0)
        rc = lh_role_process_init(out,
                                  &(struct lh_role_process_spec){.role = role,
                                                                 .shard = index,
                                                                 .program = spec->program,
                                                                 .scheduler = l->endpoint,
                                                                 .bind = bind,
                                                                 .io_threads = spec->io_threads,
                                                                 .patience = spec->patience,
                                                                 .metrics = l->metrics,
                                                                 .keys = secure ? &keys : NULL});
    lh_keys_fini(&keys);
    return rc;
}

int lh_launch_processes_start(struct lh_launch_processes **out, const struct lh_launch_spec *spec)
{
    struct lh_launch_processes *l = NULL;
    LH_TRY(LH_NEW(&l, "launcher"));
    l->spec = *spec;
    snprintf(l->endpoint, sizeof l->endpoint, "%s", spec->endpoint);
    lh_role_process_port_beside(lh_metrics_endpoint(spec->metrics), l->metrics, sizeof l->metrics);
    *out = l; /* the caller stops it, also after a failure */
    LH_TRY(LH_NEW_ARRAY(&l->roles, spec->servers + spec->workers, "role processes"));
    while (l->n < spec->servers + spec->workers) {
        LH_TRY(make_role(l, l->n, &l->roles[l->n]));
        LH_TRY(lh_role_process_start(&l->roles[l->n++]));
    }
    return 0;
}

int lh_launch_processes_watch(struct lh_launch_processes *l, struct lh_scheduler_process *ended)
{
    bool any = false;
    for (size_t i = 0; i < l->n && !any; i++) {
        const struct lh_role_process *p = &l->roles[i];
        LH_TRY(lh_role_process_ended(&l->roles[i], &any));
        ended->pid = any ? (uint64_t)p->was : 0;
        ended->exited = any && WIFEXITED(p->status);
    }
    return 0;
}

int lh_launch_processes_replace(struct lh_launch_processes *l, uint64_t pid, bool *replaced)
{
    *replaced = false;
    for (size_t i = 0; i < l->n; i++) {
        struct lh_role_process *p = &l->roles[i];
        if ((uint64_t)p->pid != pid && (uint64_t)p->was != pid)
            continue;
        lh_role_process_kill(p);
        return lh_role_process_replace(p, &l->restarts, replaced);
    }
    return 0;
}

void lh_launch_processes_stop(struct lh_launch_processes **out)
{
    struct lh_launch_processes *l = *out;
    if (!l)
        return;
    lh_role_process_stop(l->roles, l->n);
    for (size_t i = 0; i < l->n; i++)
        lh_role_process_fini(&l->roles[i]);
    lh_mem_free(l->roles);
    lh_mem_free(l);
    *out = NULL;
}
