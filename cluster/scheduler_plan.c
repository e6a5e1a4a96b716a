/* The scheduler's plans: what it tells a role that said hello, and when it can. */
#include "cluster/scheduler_internal.h"

#include "common/err.h"
#include "common/mem.h"

static int store_path(const struct lh_scheduler *s, uint32_t shard, char **out)
{
    return lh_mem_printf(out, "%s/store-%u", s->opt->dir, shard);
}

static void free_strings(char **strings, size_t n)
{
    for (size_t i = 0; strings && i < n; i++)
        lh_mem_free(strings[i]);
    lh_mem_free(strings);
}

/* Stores of the cut the run starts from. */
static int restore_paths(const struct lh_scheduler *s, char ***out, size_t *n)
{
    const struct lh_run_cut *cut = lh_run_record_cut(s->opt->record, s->clock.start);
    *n = 0;
    *out = NULL;
    if (s->clock.start == 0)
        return 0;
    if (!cut)
        return lh_err_set(LH_EINTERNAL, "the record does not list version %llu",
                          (unsigned long long)s->clock.start);
    LH_TRY(LH_NEW_ARRAY(out, cut->servers, "stores of a cut"));
    for (; *n < cut->servers; ++*n)
        LH_TRY(store_path(s, (uint32_t)*n, &(*out)[*n]));
    return 0;
}

/* The workers of our list and the evaluation, which a server lets in then. */
struct allowed {
    struct lh_key_owner *owners;
    Lh__KeyOwner *bodies, **at; /* of the owners, and pointers to them */
};

static int who_may_connect(struct lh_scheduler *s, struct allowed *a, Lh__Plan *p)
{
    size_t n = 0;
    if (!s->opt->security || !s->opt->security->guard)
        return 0;
    LH_TRY(lh_guard_allowed(s->opt->security->guard, LH__ROLE__ROLE_WORKER, &a->owners, &n));
    LH_TRY(LH_NEW_ARRAY(&a->bodies, n + 1, "allow-list"));
    LH_TRY(LH_NEW_ARRAY(&a->at, n + 1, "allow-list"));
    for (size_t i = 0; i <= n; i++) {
        struct lh_key_owner *owner = i < n ? &a->owners[i] : &s->evaluation.own;
        a->bodies[i] = (Lh__KeyOwner)LH__KEY_OWNER__INIT;
        a->bodies[i].key = owner->key;
        a->bodies[i].name = owner->name;
        a->bodies[i].role = owner->role;
        a->at[i] = &a->bodies[i];
    }
    p->allowed = a->at;
    p->n_allowed = n + 1;
    return 0;
}

static int server_addresses(struct lh_scheduler *s, Lh__Plan *p)
{
    LH_TRY(LH_NEW_ARRAY(&p->servers, s->opt->servers, "endpoints"));
    LH_TRY(LH_NEW_ARRAY(&p->server_keys, s->opt->servers, "keys"));
    for (uint32_t i = 0; i < s->opt->servers; i++) {
        struct lh_role_node *server = lh_roster_server(&s->roster, i);
        p->servers[p->n_servers++] = server->endpoint;
        p->server_keys[p->n_server_keys++] = server->key;
    }
    return 0;
}

static int send_plan(struct lh_scheduler *s, struct lh_role_node *node)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_PLAN};
    Lh__Plan p = LH__PLAN__INIT;
    struct allowed allowed = {0};
    char *store = NULL;
    int rc = 0;
    p.job = s->job_text;
    p.job_digest = s->roster.job;
    p.generation = s->roster.generation;
    p.node = node->number;
    p.shards = s->opt->servers;
    p.start = s->clock.start;
    p.until = s->clock.until;
    p.total = s->clock.total;
    p.checkpoint_every = s->clock.checkpoint_every;
    p.evaluate_every = s->clock.evaluate_every;
    p.evaluate_start = s->clock.evaluate_start;
    if (node->role == LH__ROLE__ROLE_SERVER) {
        p.shard = node->shard;
        LH_TRY_TO(done, store_path(s, node->shard, &store));
        p.store = store;
        LH_TRY_TO(done, restore_paths(s, &p.restore, &p.n_restore));
        LH_TRY_TO(done, lh_cuts_kept(&s->cuts, &p.keep, &p.n_keep));
        LH_TRY_TO(done, who_may_connect(s, &allowed, &p));
    } else {
        LH_TRY_TO(done, server_addresses(s, &p));
    }
    node->standing = LH_STANDING_PLANNED;
    rc = lh_roster_tell(&s->roster, node, &env, &p.base);
done:
    free_strings(p.restore, p.n_restore);
    lh_mem_free(allowed.owners);
    lh_mem_free(allowed.bodies);
    lh_mem_free(allowed.at);
    lh_mem_free(p.servers);
    lh_mem_free(p.server_keys);
    lh_mem_free(p.keep);
    lh_mem_free(store);
    return rc;
}

static int start_evaluator(struct lh_scheduler *s)
{
    Lh__Plan servers = LH__PLAN__INIT;
    if (!s->opt->evaluate || s->clock.evaluate_every == 0 || s->evaluator)
        return 0;
    struct lh_graph_spec graph = {0};
    lh_job_tables_declare(s->opt->job, &graph);
    int rc = server_addresses(s, &servers);
    if (rc >= 0)
        rc = lh_evaluator_start(&s->evaluator,
                                &(struct lh_evaluator_spec){.zmq = s->zmq,
                                                            .layout = &s->opt->model->layout,
                                                            .endpoints = servers.servers,
                                                            .keys = servers.server_keys,
                                                            .security = &s->evaluation_security,
                                                            .job = s->roster.job,
                                                            .generation = s->roster.generation,
                                                            .clock = s->clock,
                                                            .deadline = s->roster.deadline,
                                                            .evaluate = s->opt->evaluate,
                                                            .tables = graph.tables,
                                                            .n_tables = graph.n_tables,
                                                            .ids = s->opt->evaluation_ids,
                                                            .ctx = s->opt->evaluation});
    lh_mem_free(servers.servers);
    lh_mem_free(servers.server_keys);
    return rc;
}

static bool awaits_plan(const struct lh_role_node *n, Lh__Role role)
{
    return n->standing == LH_STANDING_HELLO && n->role == role;
}

/* Which key each worker has that is about to get its plan: servers take its number from no other.
 */
static int tell_members(struct lh_scheduler *s)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_MEMBERS};
    Lh__Members m = LH__MEMBERS__INIT;
    const size_t most = s->roster.n_nodes;
    int rc;
    LH_TRY_TO(done, LH_NEW_ARRAY(&m.nodes, most, "keys of workers"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&m.keys, most, "keys of workers"));
    for (size_t i = 0; i < most; i++) {
        struct lh_role_node *n = &s->roster.nodes[i];
        if (!awaits_plan(n, LH__ROLE__ROLE_WORKER) || !n->key[0])
            continue;
        m.nodes[m.n_nodes++] = n->number;
        m.keys[m.n_keys++] = n->key;
    }
    rc = m.n_nodes == 0 ? 0 : lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, &m.base);
done:
    lh_mem_free(m.nodes);
    lh_mem_free(m.keys);
    return rc;
}

static int plan_all(struct lh_scheduler *s, Lh__Role role)
{
    for (size_t i = 0; i < s->roster.n_nodes; i++)
        if (awaits_plan(&s->roster.nodes[i], role))
            LH_TRY(send_plan(s, &s->roster.nodes[i]));
    return 0;
}

static bool some_await(const struct lh_scheduler *s, Lh__Role role)
{
    for (size_t i = 0; i < s->roster.n_nodes; i++)
        if (awaits_plan(&s->roster.nodes[i], role))
            return true;
    return false;
}

/* Workers and the evaluation need the endpoints of all servers, which must have read their plans:
 * until then they know no worker's key, and would refuse it. */
int lh_scheduler_plan(struct lh_scheduler *s)
{
    LH_TRY(plan_all(s, LH__ROLE__ROLE_SERVER));
    if (lh_roster_count(&s->roster, LH__ROLE__ROLE_SERVER, LH_STANDING_READY) < s->opt->servers)
        return 0;
    if (some_await(s, LH__ROLE__ROLE_WORKER) &&
        lh_roster_has_room(&s->roster, LH__ROLE__ROLE_SERVER)) {
        LH_TRY(tell_members(s));
        LH_TRY(plan_all(s, LH__ROLE__ROLE_WORKER));
    }
    return start_evaluator(s);
}
