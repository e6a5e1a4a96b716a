/* The scheduler's loop. A run goes through: gathering (servers first, then workers), running,
 * perhaps pausing (an interrupt: all servers stop at one version and cut there), finishing (the
 * last cut is complete, the last evaluation is in), stopping (everybody says goodbye).
 *
 * Durability (DESIGN.md, invariant 2): a cut is complete when every server has prepared it and the
 * record lists it; only then are servers told to commit and to drop older ones. One that a server
 * could not write is void, and training goes on; only the last one must be there in the end. */
#include "cluster/scheduler.h"

#include "cluster/cuts.h"
#include "cluster/metrics_log.h"
#include "cluster/report.h"
#include "cluster/roster.h"
#include "cluster/votes.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/member.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONTROL_QUEUE 10000
#define NOTE_EVERY    5.0  /* seconds */
#define POLL_TIME     0.02 /* seconds */
#define LATE_WORKERS  5.0  /* seconds the first ready workers wait for the others */
#define RETURNS       20   /* to one and the same cut */
#define LAST_PATIENCE 5.0  /* seconds for which the last cut is tried again */
#define LAST_PAUSE    0.5  /* seconds between tries to save its record */

enum stage { GATHERING, RUNNING, PAUSING, FINISHING, STOPPING };

struct scheduler {
    const struct lh_scheduler_options *opt;
    struct lh_scheduler_result *result;
    void *zmq;
    struct lh_roster roster;
    struct lh_clock clock;
    struct lh_metrics_log *metrics;
    struct lh_report report;
    struct lh_cuts cuts;
    struct lh_votes votes;
    uint64_t unlisted;     /* the last cut, prepared, whose record could not be saved; 0: none */
    double tried, failing; /* when that was tried; since when the last cut fails; 0: it does not */
    struct lh_evaluator *evaluator;
    struct lh_progress progress;
    char *job_text;
    enum stage stage;
    uint64_t first;    /* version this call started from */
    unsigned returned; /* how often it went back since the last new cut */
    double began, noted, ready_at, started_at, trained_at, stopping_at, flushed;
    uint64_t version; /* newest of which metrics came */
};

/* --- plans -------------------------------------------------------------------------------------
 */
static int store_path(const struct scheduler *s, uint32_t shard, char **out)
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
static int restore_paths(const struct scheduler *s, char ***out, size_t *n)
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

/* The workers of our list, which a server lets in then. */
struct allowed {
    struct lh_key_owner *owners;
    Lh__KeyOwner *bodies, **at; /* of the owners, and pointers to them */
};

static int allowed_workers(const struct scheduler *s, struct allowed *a, Lh__Plan *p)
{
    size_t n = 0;
    if (!s->opt->security || !s->opt->security->guard)
        return 0;
    LH_TRY(lh_guard_allowed(s->opt->security->guard, LH__ROLE__ROLE_WORKER, &a->owners, &n));
    LH_TRY(LH_NEW_ARRAY(&a->bodies, n, "allow-list"));
    LH_TRY(LH_NEW_ARRAY(&a->at, n, "allow-list"));
    for (size_t i = 0; i < n; i++) {
        a->bodies[i] = (Lh__KeyOwner)LH__KEY_OWNER__INIT;
        a->bodies[i].key = a->owners[i].key;
        a->bodies[i].name = a->owners[i].name;
        a->bodies[i].role = a->owners[i].role;
        a->at[i] = &a->bodies[i];
    }
    p->allowed = a->at;
    p->n_allowed = n;
    return 0;
}

static int server_addresses(struct scheduler *s, Lh__Plan *p)
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

static int send_plan(struct scheduler *s, struct lh_role_node *node)
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
        LH_TRY_TO(done, allowed_workers(s, &allowed, &p));
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

static int start_evaluator(struct scheduler *s)
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
                                                            .security = s->opt->security,
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

/* Workers and the evaluation need the endpoints of all servers, which must have read their plans:
 * until then they know no worker's key, and would refuse it. */
static int plan_who_can_be(struct scheduler *s)
{
    bool servers =
        lh_roster_count(&s->roster, LH__ROLE__ROLE_SERVER, LH_STANDING_READY) == s->opt->servers;
    for (size_t i = 0; i < s->roster.n_nodes; i++) {
        struct lh_role_node *n = &s->roster.nodes[i];
        if (n->standing == LH_STANDING_HELLO && (servers || n->role == LH__ROLE__ROLE_SERVER))
            LH_TRY(send_plan(s, n));
    }
    return servers ? start_evaluator(s) : 0;
}

/* --- cuts --------------------------------------------------------------------------------------
 */
/* The run does not end without its last cut. */
static int last_failed(struct scheduler *s, int rc)
{
    char from[64] = "begin the run anew";
    const struct lh_run_record *r = s->opt->record;
    double now = lh_now();
    if (s->failing == 0)
        s->failing = now;
    lh_log_event(LH_LOG_WARN, "checkpoint_failed",
                 LH_FIELDS(LH_F("step", s->clock.until), LH_F("code", lh_err_name(rc)),
                           LH_F("reason", lh_err_text())));
    if (now - s->failing < LAST_PATIENCE)
        return 0;
    if (r->has_last)
        snprintf(from, sizeof from, "go on from step %llu with --resume",
                 (unsigned long long)r->last);
    return lh_err_set(rc, "step %llu, the last, cannot be saved: %s; then %s",
                      (unsigned long long)s->clock.until, lh_err_text(), from);
}

static int tell_commit(struct scheduler *s, uint64_t version)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_COMMIT, .step = version};
    Lh__Commit c = LH__COMMIT__INIT;
    LH_TRY(lh_cuts_kept(&s->cuts, &c.keep, &c.n_keep));
    int rc = lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, &c.base);
    lh_mem_free(c.keep);
    return rc;
}

/* Phase two: the record first, then the servers. Where the record cannot be saved they are told
 * nothing: the file may list the version all the same, and what they hold beyond it does no harm.
 */
static int complete_cut(struct scheduler *s, uint64_t version)
{
    struct lh_err err;
    LH_TRY(lh_metrics_log_flush(s->metrics)); /* lines up to here will not come again */
    int rc = lh_cuts_complete(&s->cuts, version, s->opt->servers, s->evaluator);
    if (rc == LH_ENOMEM || rc == LH_EINTERNAL)
        return rc;
    if (rc < 0 && version == s->clock.until) {
        s->unlisted = version;
        s->tried = lh_now();
        return last_failed(s, rc);
    }
    if (rc < 0) {
        lh_err_save(&err, rc);
        lh_cuts_trouble(&s->cuts, version, &err);
        lh_cuts_void(&s->cuts, version);
        return 0;
    }
    s->unlisted = 0;
    s->returned = 0;
    s->result->version = version;
    return tell_commit(s, version);
}

static int decide_cuts(struct scheduler *s)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_VOID};
    bool complete;
    while (lh_votes_decide(&s->votes, &env.step, &complete)) {
        if (complete) {
            LH_TRY(complete_cut(s, env.step));
            continue;
        }
        lh_cuts_void(&s->cuts, env.step);
        LH_TRY(lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL));
    }
    return 0;
}

static int note_prepared(struct scheduler *s, struct lh_role_node *node, uint64_t version)
{
    lh_log_event(LH_LOG_DEBUG, "prepared",
                 LH_FIELDS(LH_F("number", node->number), LH_F("step", version)));
    LH_TRY(lh_votes_cast(&s->votes, node->shard, version, true));
    return decide_cuts(s);
}

/* A server that has not room for the last cut tries again by itself. */
static int note_unprepared(struct scheduler *s, struct lh_role_node *node,
                           const struct lh_net_message *msg)
{
    char who[512];
    struct lh_err err;
    int rc = lh_member_stop_reason(msg);
    if (rc >= 0)
        return lh_err_set(LH_EPROTO, "a checkpoint failed without a reason");
    if (msg->env.step == s->clock.until)
        return last_failed(s, rc);
    lh_err_prefix(rc, "%s", lh_roster_describe(node, who, sizeof who));
    lh_err_save(&err, rc);
    lh_cuts_trouble(&s->cuts, msg->env.step, &err);
    LH_TRY(lh_votes_cast(&s->votes, node->shard, msg->env.step, false));
    return decide_cuts(s);
}

/* --- messages ----------------------------------------------------------------------------------
 */
static int take_metrics(struct scheduler *s, const struct lh_net_message *msg)
{
    size_t n = s->opt->model->n_metrics, bytes, at_bytes;
    const char *values = lh_net_frame(msg, 0, &bytes);
    const char *at = lh_net_frame(msg, 1, &at_bytes);
    uint64_t count = msg->env.count;
    float row[256];
    if (n > 256 || count > 4096 || bytes != count * n * sizeof(float) ||
        at_bytes != count * sizeof(double))
        return lh_err_set(LH_EPROTO, "metrics of %llu steps in %zu and %zu bytes",
                          (unsigned long long)count, bytes, at_bytes);
    for (uint64_t i = 0; i < count; i++) {
        double seconds;
        memcpy(row, values + i * n * sizeof(float), n * sizeof(float));
        memcpy(&seconds, at + i * sizeof seconds, sizeof seconds);
        s->version = msg->env.step + i + 1;
        lh_report_step(&s->report, row, seconds);
        LH_TRY(lh_metrics_log_add(s->metrics, s->version, row, seconds));
    }
    if (n > 0 && count > 0)
        snprintf(s->progress.extra, sizeof s->progress.extra, "%s %.4g",
                 lh_graph_metric_name(s->opt->model->graph, 0), (double)row[0]);
    s->trained_at = lh_now();
    lh_progress_update(&s->progress, (s->version - s->first) * s->opt->job->batch);
    return 0;
}

static int role_failed(const struct lh_role_node *node, const struct lh_net_message *msg)
{
    int rc = lh_member_stop_reason(msg);
    char who[512];
    if (rc >= 0)
        rc = lh_err_set(LH_EPEER, "%s failed without a reason",
                        lh_roster_describe(node, who, sizeof who));
    return rc;
}

static int pause_is_over(struct scheduler *s)
{
    uint64_t newest = 0;
    for (uint32_t i = 0; i < s->opt->servers; i++) {
        const struct lh_role_node *n = lh_roster_server(&s->roster, i);
        if (!n || !n->paused)
            return 0;
        newest = n->version > newest ? n->version : newest;
    }
    /* what some have failed to write, and others have dropped, is not tried once more */
    while (newest < s->clock.total &&
           (lh_cuts_is_void(&s->cuts, newest) || lh_votes_failed(&s->votes, newest)))
        newest++;
    struct lh_envelope env = {.kind = LH__KIND__KIND_UNTIL, .step = newest};
    s->clock.until = newest;
    s->stage = FINISHING;
    return lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL);
}

static int take_ready(struct scheduler *s, struct lh_role_node *node)
{
    if (node->standing != LH_STANDING_PLANNED)
        return 0;
    node->standing = LH_STANDING_READY;
    if (node->role == LH__ROLE__ROLE_SERVER)
        return plan_who_can_be(s);
    if (s->ready_at == 0)
        s->ready_at = lh_now();
    if (s->stage == RUNNING) {
        lh_log_tell(LH_LOG_INFO, "ready",
                    LH_FIELDS(LH_F("number", node->number), LH_F("process", node->pid),
                              LH_F("host", node->host)),
                    "a worker joined: process %llu on %s", (unsigned long long)node->pid,
                    node->host);
        return lh_roster_assign(&s->roster);
    }
    return 0;
}

static int worker_is_gone(struct scheduler *s, struct lh_role_node *node, const char *how)
{
    char who[512];
    node->standing = LH_STANDING_GONE;
    if (s->stage > PAUSING)
        return 0; /* nothing is left to compute, or it was told to go */
    lh_report_lost(&s->report, node);
    lh_log_tell(LH_LOG_WARN, "lost", LH_FIELDS(LH_F("number", node->number), LH_F("how", how)),
                "%s %s; the others take its share", lh_roster_describe(node, who, sizeof who), how);
    if (s->stage == GATHERING)
        return 0;
    struct lh_envelope env = {.kind = LH__KIND__KIND_LOST, .index = node->number};
    LH_TRY(lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL));
    return lh_roster_assign(&s->roster);
}

/* Opens what is written as the run goes, from clock.start on: lines behind it come again. */
static int open_lines(struct scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    s->version = s->clock.start;
    LH_TRY(lh_votes_init(&s->votes, o->servers));
    LH_TRY(lh_cuts_init(&s->cuts, o->record, o->dir, o->job, s->clock.evaluate_start, o->quiet));
    return lh_metrics_log_open(&s->metrics,
                               &(struct lh_metrics_log_spec){.dir = o->dir,
                                                             .graph = o->model->graph,
                                                             .start = s->clock.start,
                                                             .batch = o->job->batch,
                                                             .transitions = o->transitions});
}

/* A server's part of the newest version died with it. Everybody goes back to the last cut: servers
 * read it, workers pull it, and since training is a function of log, job and seed alone, the same
 * versions come again. */
static int go_back(struct scheduler *s)
{
    lh_evaluator_stop(&s->evaluator);
    LH_TRY(lh_roster_dismiss(&s->roster));
    lh_run_record_start(s->opt->record, &s->clock);
    s->version = s->clock.start;
    LH_TRY(lh_metrics_log_back(s->metrics, s->clock.start));
    LH_TRY(lh_cuts_back(&s->cuts, s->clock.evaluate_start));
    lh_votes_clear(&s->votes);
    s->stage = GATHERING;
    s->began = s->noted = lh_now();
    s->ready_at = 0;
    return 0;
}

static int server_is_gone(struct scheduler *s, struct lh_role_node *node, const char *how)
{
    char who[512];
    bool replaced = false;
    node->standing = LH_STANDING_GONE;
    lh_roster_describe(node, who, sizeof who);
    if (s->stage == STOPPING)
        return 0;
    lh_report_lost(&s->report, node);
    if (s->stage <= RUNNING && s->opt->replace && s->returned++ < RETURNS)
        LH_TRY(s->opt->replace(s->opt->launcher, node->pid, &replaced));
    if (!replaced)
        return lh_err_set(LH_EPEER, "%s %s; go on from the last checkpoint with --resume", who,
                          how);
    LH_TRY(go_back(s));
    lh_log_tell(LH_LOG_WARN, "rewind", LH_FIELDS(LH_F("step", s->clock.start)),
                "%s %s; the run goes back to step %llu, its last checkpoint", who, how,
                (unsigned long long)s->clock.start);
    return 0;
}

static int is_gone(struct scheduler *s, struct lh_role_node *node, const char *how)
{
    return node->role == LH__ROLE__ROLE_WORKER ? worker_is_gone(s, node, how)
                                               : server_is_gone(s, node, how);
}

static int take_from(struct scheduler *s, struct lh_role_node *node,
                     const struct lh_net_message *msg)
{
    bool server = node->role == LH__ROLE__ROLE_SERVER;
    switch (msg->env.kind) {
    case LH__KIND__KIND_READY:
        return take_ready(s, node);
    case LH__KIND__KIND_FAILED:
        node->standing = LH_STANDING_GONE;
        node->said_goodbye = true;
        return s->stage == STOPPING ? 0 : role_failed(node, msg);
    case LH__KIND__KIND_GOODBYE:
        node->said_goodbye = true;
        return is_gone(s, node, "left");
    case LH__KIND__KIND_METRICS:
        return server ? take_metrics(s, msg) : 0;
    case LH__KIND__KIND_PREPARED:
        return server ? note_prepared(s, node, msg->env.step) : 0;
    case LH__KIND__KIND_UNPREPARED:
        return server ? note_unprepared(s, node, msg) : 0;
    case LH__KIND__KIND_PAUSED:
        node->paused = server;
        node->version = msg->env.step;
        return s->stage == PAUSING ? pause_is_over(s) : 0;
    default:
        return 0;
    }
}

static int take_message(struct scheduler *s, const struct lh_net_message *msg)
{
    struct lh_role_node *node = NULL;
    bool returned = false;
    if (msg->env.kind == LH__KIND__KIND_HELLO) {
        LH_TRY(lh_roster_hello(&s->roster, msg, &node));
        if (node)
            lh_report_joined(&s->report, node);
        if (s->roster.blas[0] && !s->opt->record->blas) /* durable with the first cut */
            LH_TRY(lh_run_record_set_blas(s->opt->record, s->roster.blas));
        return node && s->stage < FINISHING ? plan_who_can_be(s) : 0;
    }
    node = lh_roster_sender(&s->roster, msg, &returned);
    if (!node)
        return 0;
    if (returned && s->stage == RUNNING) {
        lh_log_tell(LH_LOG_INFO, "back", LH_FIELDS(LH_F("number", node->number)),
                    "worker %u is back", node->number);
        LH_TRY(lh_roster_assign(&s->roster));
    }
    return take_from(s, node, msg);
}

static int drain(struct scheduler *s)
{
    struct lh_net_message msg;
    int rc;
    while ((rc = lh_net_recv(s->roster.socket, &msg)) == 0) {
        rc = take_message(s, &msg);
        if (rc == LH_EPROTO && msg.env.kind != LH__KIND__KIND_FAILED) {
            lh_net_reject(s->roster.socket, &msg);
            rc = 0;
        }
        lh_net_message_fini(&msg);
        LH_TRY(rc);
    }
    return rc < 0 ? rc : 0;
}

/* --- the stages --------------------------------------------------------------------------------
 */
static int gather(struct scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    size_t servers = lh_roster_count(&s->roster, LH__ROLE__ROLE_SERVER, LH_STANDING_READY);
    size_t workers = lh_roster_count(&s->roster, LH__ROLE__ROLE_WORKER, LH_STANDING_READY);
    double now = lh_now(), waited = now - s->began;
    bool all_servers = servers == o->servers;
    if (all_servers && workers > 0 && (workers >= o->workers || now - s->ready_at > LATE_WORKERS)) {
        if (workers < o->workers)
            lh_log_tell(LH_LOG_INFO, "begin",
                        LH_FIELDS(LH_F("workers", workers), LH_F("wanted", o->workers)),
                        "starting with %zu of %u workers; the others may join", workers,
                        o->workers);
        s->stage = RUNNING;
        if (s->started_at == 0)
            s->started_at = now;
        return lh_roster_assign(&s->roster);
    }
    if (waited > o->patience)
        return lh_err_set(LH_ETIMEDOUT,
                          "%zu of %u servers and %zu of %u workers came to %s within %.0f s; start "
                          "them with 'longhaul server' and 'longhaul worker'",
                          servers, o->servers, workers, o->workers,
                          lh_net_endpoint(s->roster.socket), waited);
    if (now - s->noted > NOTE_EVERY) {
        s->noted = now;
        lh_log_tell(
            LH_LOG_INFO, "wait",
            LH_FIELDS(LH_F("endpoint", lh_net_endpoint(s->roster.socket)), LH_F("servers", servers),
                      LH_F("workers", workers), LH_F("seconds", waited)),
            "scheduler at %s: waiting for %zu server%s and %zu worker%s (%.0f s)",
            lh_net_endpoint(s->roster.socket), o->servers - servers,
            o->servers - servers == 1 ? "" : "s", workers < o->workers ? o->workers - workers : 0,
            workers + 1 == o->workers ? "" : "s", waited);
    }
    return 0;
}

static int watch_workers(struct scheduler *s)
{
    double now = lh_now();
    if (lh_roster_count(&s->roster, LH__ROLE__ROLE_WORKER, LH_STANDING_HELLO) > 0) {
        s->ready_at = now;
        return 0;
    }
    if (now - s->ready_at > s->roster.deadline)
        return lh_err_set(LH_EPEER,
                          "no worker has been left for %.0f s; go on from the last checkpoint "
                          "with --resume",
                          now - s->ready_at);
    return 0;
}

static int stop(struct scheduler *s, int rc)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_STOP};
    Lh__Failure f = LH__FAILURE__INIT;
    struct lh_err err;
    lh_err_save(&err, rc < 0 ? rc : 0);
    f.code = err.code;
    f.text = err.text;
    s->stage = STOPPING;
    s->stopping_at = lh_now();
    return lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_NONE, &env, &f.base);
}

static bool is_finished(const struct scheduler *s)
{
    const struct lh_run_record *r = s->opt->record;
    uint64_t until = s->clock.until;
    bool cut = until == s->clock.start || (r->has_last && r->last >= until);
    bool evaluated = !s->evaluator || lh_evaluator_next(s->evaluator) > until;
    return cut && evaluated && !s->cuts.has_verdict;
}

static bool everybody_left(const struct scheduler *s)
{
    for (size_t i = 0; i < s->roster.n_nodes; i++)
        if (s->roster.nodes[i].standing != LH_STANDING_GONE)
            return false;
    return true;
}

static int pause_all(struct scheduler *s)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_PAUSE};
    s->result->interrupted = true;
    lh_log_event(LH_LOG_INFO, "pause", LH_FIELDS(LH_F("step", s->version)));
    if (s->opt->interrupt_note)
        lh_note("%s", s->opt->interrupt_note);
    if (s->stage == GATHERING)
        return lh_err_set(LH_ECANCELED, "interrupted while roles were awaited");
    s->stage = PAUSING;
    return lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL);
}

/* What the launcher knows about ended processes is sooner than any deadline. */
static int take_deaths(struct scheduler *s)
{
    uint64_t pid = 0;
    while (s->opt->watch) {
        LH_TRY(s->opt->watch(s->opt->launcher, &pid));
        if (pid == 0)
            break;
        struct lh_role_node *n = lh_roster_by_pid(&s->roster, pid);
        bool replaced = false;
        if (s->opt->replace && s->stage < FINISHING && (!n || n->role == LH__ROLE__ROLE_WORKER))
            LH_TRY(s->opt->replace(s->opt->launcher, pid, &replaced));
        if (n)
            LH_TRY(is_gone(s, n, "died"));
        else if (s->stage == GATHERING && !replaced)
            return lh_err_set(
                LH_EPEER, "the process %llu of a role ended before it said hello%s",
                (unsigned long long)pid,
                s->opt->record->has_last ? "; go on from the last checkpoint with --resume" : "");
    }
    return 0;
}

static int look_after(struct scheduler *s)
{
    struct lh_role_node *n;
    LH_TRY(take_deaths(s));
    while ((n = lh_roster_silent(&s->roster)))
        LH_TRY(is_gone(s, n, "went silent"));
    return lh_roster_beat(&s->roster);
}

static void report(struct scheduler *s, bool now)
{
    static const char *const stages[] = {"gathering", "running", "pausing", "finishing",
                                         "stopping"};
    lh_report_update(&s->report,
                     &(struct lh_report_facts){.stage = stages[s->stage],
                                               .roster = &s->roster,
                                               .cuts = &s->cuts,
                                               .clock = &s->clock,
                                               .version = s->version},
                     now);
}

static int turn(struct scheduler *s)
{
    struct lh_net_poll poll = {.socket = s->roster.socket};
    LH_TRY(lh_net_poll(&poll, 1, POLL_TIME));
    LH_TRY(drain(s));
    LH_TRY(look_after(s));
    LH_TRY(lh_cuts_judge(&s->cuts, s->evaluator));
    if (s->unlisted && lh_now() - s->tried > LAST_PAUSE)
        LH_TRY(complete_cut(s, s->unlisted));
    report(s, false);
    double now = lh_now();
    if (now - s->flushed > 1) {
        s->flushed = now;
        LH_TRY(lh_metrics_log_flush(s->metrics));
    }
    if (s->stage < PAUSING && s->opt->interrupted && s->opt->interrupted())
        LH_TRY(pause_all(s));
    if (s->stage == GATHERING)
        return gather(s);
    if (s->stage < STOPPING && is_finished(s))
        return stop(s, 0);
    return s->stage == RUNNING ? watch_workers(s) : 0;
}

/* Everybody is told; those who listen say goodbye, with their last statistics. */
static void see_off(struct scheduler *s, int rc)
{
    struct lh_err err;
    lh_err_save(&err, rc);
    if (s->stage != STOPPING)
        stop(s, rc);
    while (!everybody_left(s) && lh_now() - s->stopping_at < s->roster.deadline) {
        struct lh_net_poll poll = {.socket = s->roster.socket};
        if (lh_net_poll(&poll, 1, POLL_TIME) < 0 || drain(s) < 0)
            break;
        take_deaths(s); /* a role that cannot say goodbye is gone all the same */
    }
    lh_err_load(&err);
}

static void add_phases(Lh__Phases *sum, const Lh__Phases *p)
{
    sum->gather += p->gather;
    sum->compute += p->compute;
    sum->backward += p->backward;
    sum->reduce += p->reduce;
    sum->push += p->push;
    sum->wait += p->wait;
    sum->optimise += p->optimise;
    sum->reply += p->reply;
    sum->cut += p->cut;
    sum->steps += p->steps;
    sum->rows += p->rows;
    sum->dropped += p->dropped;
    sum->bytes_in += p->bytes_in;
    sum->bytes_out += p->bytes_out;
}

static void sum_up(struct scheduler *s)
{
    for (size_t i = 0; i < s->roster.n_nodes; i++) {
        const struct lh_role_node *n = &s->roster.nodes[i];
        bool server = n->role == LH__ROLE__ROLE_SERVER;
        add_phases(server ? &s->result->servers : &s->result->workers, &n->phases);
        ++*(server ? &s->result->servers_seen : &s->result->workers_seen);
    }
    s->result->steps = s->version - s->first;
    s->result->seconds = s->trained_at > 0 ? s->trained_at - s->started_at : 0;
}

static int open_run(struct scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    s->roster.job = lh_job_digest(o->job);
    s->roster.servers = o->servers;
    s->roster.workers = o->workers;
    if (o->record->blas)
        snprintf(s->roster.blas, sizeof s->roster.blas, "%s", o->record->blas);
    s->roster.heartbeat = o->job->heartbeat_seconds;
    s->roster.deadline = o->job->deadline_seconds;
    s->began = s->noted = lh_now();
    s->first = s->result->version = s->clock.start;
    /* another scheduler's messages may be under way to this address, and nodes are numbered anew */
    s->roster.generation = (uint32_t)getpid() << 16 ^ (uint32_t)(uint64_t)(lh_now() * 1e3);
    LH_TRY(lh_job_print(o->job, &s->job_text));
    LH_TRY(open_lines(s));
    LH_TRY(lh_net_router(&s->roster.socket, s->zmq, o->bind, CONTROL_QUEUE, o->security));
    lh_net_expect(s->roster.socket, s->roster.job);
    LH_TRY(lh_report_init(&s->report,
                          &(struct lh_report_spec){.dir = o->dir,
                                                   .job = o->job->name,
                                                   .algorithm = o->job->algorithm,
                                                   .endpoint = lh_net_endpoint(s->roster.socket),
                                                   .graph = o->model->graph,
                                                   .metrics = o->metrics,
                                                   .workers = o->workers,
                                                   .servers = o->servers,
                                                   .batch = o->job->batch}));
    return o->bound ? o->bound(o->launcher, lh_net_endpoint(s->roster.socket)) : 0;
}

static int end_record(struct scheduler *s, int rc)
{
    struct lh_run_record *r = s->opt->record;
    struct lh_err err;
    lh_err_save(&err, rc);
    bool failed = rc < 0 && rc != LH_ECANCELED;
    r->state = failed                                        ? LH_RUN_FAILED
               : rc == 0 && s->clock.until == s->clock.total ? LH_RUN_FINISHED
                                                             : LH_RUN_STOPPED;
    int saved = lh_run_record_set_error(r, failed ? err.text : NULL);
    if (saved >= 0)
        saved = lh_run_record_save(r, s->opt->dir);
    return rc < 0 ? lh_err_load(&err) : saved;
}

static void tell_start(const struct scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    lh_log_event(LH_LOG_INFO, s->clock.start > 0 ? "resume" : "start",
                 LH_FIELDS(LH_F("dir", o->dir), LH_F("job", o->job->name),
                           LH_F("algorithm", o->job->algorithm), LH_F("seed", o->job->seed),
                           LH_F("workers", o->workers), LH_F("servers", o->servers),
                           LH_F("step", s->clock.start), LH_F("until", s->clock.until),
                           LH_F("release", LH_VERSION)));
}

static void tell_stop(const struct scheduler *s, int rc)
{
    lh_log_event(rc < 0 ? LH_LOG_ERROR : LH_LOG_INFO, "stop",
                 LH_FIELDS(LH_F("state", lh_run_state_names[s->opt->record->state]),
                           LH_F("step", s->version), LH_F("steps", s->result->steps),
                           LH_F("seconds", s->result->seconds), LH_F("code", lh_err_name(rc)),
                           LH_F("reason", rc < 0 ? lh_err_text() : "")));
}

int lh_scheduler_run(void *zmq, const struct lh_scheduler_options *opt,
                     struct lh_scheduler_result *out)
{
    struct scheduler s = {.opt = opt, .result = out, .zmq = zmq, .clock = opt->clock};
    const struct lh_log_who before = lh_log_as((struct lh_log_who){.role = "scheduler"});
    *out = (struct lh_scheduler_result){.workers = LH__PHASES__INIT, .servers = LH__PHASES__INIT};
    lh_progress_start(&s.progress, "train", "transitions",
                      (opt->clock.until - opt->clock.start) * opt->job->batch, opt->quiet);
    int rc = open_run(&s);
    if (rc >= 0)
        tell_start(&s);
    while (rc >= 0 && s.stage != STOPPING)
        rc = turn(&s);
    if (s.roster.socket)
        see_off(&s, rc);
    report(&s, true);
    lh_progress_finish(&s.progress);
    sum_up(&s);
    struct lh_err err;
    lh_err_save(&err, rc);
    lh_evaluator_stop(&s.evaluator);
    int closed = lh_metrics_log_close(&s.metrics);
    if (closed >= 0)
        closed = lh_step_lines_close(&s.cuts.evaluations);
    rc = end_record(&s, err.code < 0 ? lh_err_load(&err) : closed);
    tell_stop(&s, rc < 0 ? rc : 0);
    lh_log_as(before);
    lh_net_close(&s.roster.socket);
    lh_roster_fini(&s.roster);
    lh_cuts_fini(&s.cuts);
    lh_votes_fini(&s.votes);
    lh_report_fini(&s.report);
    lh_mem_free(s.job_text);
    return rc;
}
