/* The server's life: it joins, holds what the plan says, and then, turn by turn, takes what workers
 * send, hears the scheduler, and lets the shard go on. Reliability is the workers' business: they
 * ask again, and everything here is idempotent (DESIGN.md, invariant 2). */
#include "ps/server.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"
#include "ps/server_internal.h"

#include <stdio.h>
#include <string.h>

#define METRICS_EVERY 0.05 /* seconds */
#define BURST         256  /* messages taken before other work is looked after */
#define BUSY_POLL     0.002

/* --- starting ----------------------------------------------------------------------------------
 */
static int restore(struct lh_server *s, const Lh__Plan *plan)
{
    if (plan->n_restore == 0) {
        const struct lh_shard_range *range = lh_shard_range_of(s->shard);
        lh_shard_init(s->shard, s->model.weights + range->lo);
        if (s->model.targets)
            lh_shard_init_targets(s->shard, s->model.targets + range->lo);
        return 0;
    }
    return lh_store_restore(s->shard, plan->start, (const char *const *)plan->restore,
                            plan->n_restore, plan->job_digest);
}

/* A predecessor that was killed a moment ago may still be about to go, in the middle of an fsync:
 * its lock is waited for as long as one waits for any role. */
static int open_store(struct lh_server *s, const Lh__Plan *plan)
{
    const char *dir = s->opt->store ? s->opt->store : plan->store;
    const struct lh_store_id id = {plan->job_digest, plan->shard, plan->shards};
    double began = lh_now();
    int rc;
    while ((rc = lh_store_open(&s->store, dir, &id, 0)) == LH_EBUSY &&
           lh_now() - began < s->member.deadline)
        zmq_poll(NULL, 0, 20);
    return rc;
}

static int start_tables(struct lh_server *s, const Lh__Plan *plan)
{
    LH_TRY(lh_server_tables_open(
        &s->tables,
        &(struct lh_server_tables_spec){.job = s->job,
                                        .digest = plan->job_digest,
                                        .store = s->opt->store ? s->opt->store : plan->store,
                                        .shard = plan->shard,
                                        .shards = plan->shards,
                                        .leaves = s->model.leaves,
                                        .node = plan->node,
                                        .loans = s->loans,
                                        .flight = s->flight,
                                        .rows_for = lh_server_pulls_rows_for,
                                        .ctx = s,
                                        .keep = plan->keep,
                                        .n_keep = plan->n_keep}));
    return lh_server_tables_restore(&s->tables, plan->start, (const char *const *)plan->restore,
                                    plan->n_restore);
}

static struct lh_guard *guard_of(const struct lh_server *s)
{
    return s->opt->security ? s->opt->security->guard : NULL;
}

/* Who may connect is for the scheduler to say: whom an earlier plan let in and this one does not
 * is shut out. */
static int let_in(struct lh_server *s, const Lh__Plan *plan)
{
    struct lh_key_owner *who = NULL;
    if (!guard_of(s))
        return 0;
    LH_TRY(LH_NEW_ARRAY(&who, plan->n_allowed, "allow-list"));
    for (size_t i = 0; i < plan->n_allowed; i++) {
        who[i].role = plan->allowed[i]->role;
        snprintf(who[i].key, sizeof who[i].key, "%s", plan->allowed[i]->key);
        snprintf(who[i].name, sizeof who[i].name, "%s", plan->allowed[i]->name);
    }
    int rc = lh_guard_restrict(guard_of(s), LH__ROLE__ROLE_WORKER, who, plan->n_allowed);
    if (rc >= 0)
        rc = lh_guard_restrict(guard_of(s), LH__ROLE__ROLE_EVALUATION, who, plan->n_allowed);
    lh_mem_free(who);
    return rc;
}

static int start(struct lh_server *s)
{
    const Lh__Plan *plan = s->member.plan;
    LH_TRY(let_in(s, plan));
    LH_TRY(lh_job_load_text(&s->job, plan->job, strlen(plan->job), "job", NULL));
    lh_log_adopt(s->job->log_format, s->job->log_level);
    LH_TRY(lh_member_agree(&s->member, lh_job_digest(s->job), s->job->heartbeat_seconds,
                           s->job->deadline_seconds));
    lh_net_expect(s->socket, plan->job_digest);
    LH_TRY(s->opt->model(s->opt->ctx, s->job, plan->shards, plan->n_restore == 0, &s->model));
    if (plan->shard >= s->model.layout->n_shards)
        return lh_err_set(LH_EPROTO, "server: the plan calls this shard %u of %zu", plan->shard,
                          s->model.layout->n_shards);
    LH_TRY(lh_metrics_join(s->opt->metrics,
                           &(struct lh_metrics_who){
                               .role = LH_METRICS_SERVER, .node = plan->node, .shard = plan->shard},
                           &s->counts));
    const struct lh_shard_range *range = &s->model.layout->shards[plan->shard];
    s->n_metrics = plan->shard == 0 ? s->model.n_metrics : 0;
    LH_TRY(lh_shard_create(&s->shard,
                           &(struct lh_shard_spec){.range = range,
                                                   .leaves = s->model.leaves,
                                                   .beta1 = s->job->beta1,
                                                   .beta2 = s->job->beta2,
                                                   .epsilon = s->job->epsilon,
                                                   .n_metrics = s->n_metrics,
                                                   .bf16 = s->job->gradient == LH_GRADIENT_BF16,
                                                   .each = s->job->consistency != LH_SYNC}));
    s->flight = lh_shard_flight(s->shard);
    if (!s->flight && s->job->takeover)
        LH_TRY(lh_takeover_create(&s->takeover, s->model.leaves));
    LH_TRY(lh_loans_create(&s->loans, s->shard, s->member.deadline));
    LH_TRY(open_store(s, plan));
    LH_TRY(restore(s, plan));
    LH_TRY(start_tables(s, plan));
    LH_TRY(
        lh_writer_start(&s->writer, s->store, s->tables.at, s->tables.n, plan->keep, plan->n_keep));
    LH_TRY(lh_pull_pieces(&s->pieces, &s->n_pieces, range));
    LH_TRY(LH_NEW_ARRAY(&s->metrics, LH_SERVER_METRICS * (s->n_metrics + 1), "metrics"));
    s->clock = (struct lh_clock){.start = plan->start,
                                 .until = plan->until,
                                 .total = plan->total,
                                 .checkpoint_every = plan->checkpoint_every,
                                 .evaluate_every = plan->evaluate_every,
                                 .evaluate_start = plan->evaluate_start};
    if (s->clock.checkpoint_every == 0)
        return lh_err_set(LH_EPROTO, "server: the plan has no checkpoint period");
    s->limit = plan->until;
    s->cut = s->member.version = plan->start;
    s->evaluated = s->last = UINT64_MAX;
    s->began = s->stepped = lh_now();
    lh_metrics_set(s->counts, LH_METRIC_SHARD_SIZE, (double)lh_shard_size(s->shard));
    return lh_member_tell(&s->member, LH__KIND__KIND_READY, plan->start);
}

/* --- messages ----------------------------------------------------------------------------------
 */
/* Who is shut out and still connected is cut off. */
static int refuse(struct lh_server *s, const struct lh_net_message *msg)
{
    lh_net_reject(s->socket, msg);
    if (guard_of(s) && !lh_guard_knows(guard_of(s), msg->key)) {
        const struct lh_net_connection connection = lh_net_connection_of(&msg->peer);
        lh_net_cut_off(&connection);
    }
    return 0;
}

static int take_data(struct lh_server *s, const struct lh_net_message *msg)
{
    int rc = lh_members_check(&s->members, msg);
    if (rc < 0)
        return refuse(s, msg);
    switch (msg->env.kind) {
    case LH__KIND__KIND_PUSH:
        rc = lh_server_steps_take(s, msg);
        break;
    case LH__KIND__KIND_PULL:
    case LH__KIND__KIND_TAKE:
        rc = lh_server_pulls_take(s, msg);
        break;
    case LH__KIND__KIND_TABLE_PUSH:
        rc = lh_server_steps_take_table(s, msg);
        break;
    case LH__KIND__KIND_TABLE_PULL:
        rc = lh_server_pulls_take_table(s, msg);
        break;
    case LH__KIND__KIND_IDLE:
        rc = lh_server_late_take(s, msg);
        break;
    case LH__KIND__KIND_FETCHED:
        rc = lh_server_pulls_take_fetched(s, msg);
        break;
    default:
        rc = lh_err_set(LH_EPROTO, "a %s, which servers do not take",
                        lh_wire_kind_name(msg->env.kind));
    }
    if (rc == LH_EPROTO) { /* the peer's fault, not ours: go on without it */
        lh_net_reject(s->socket, msg);
        return 0;
    }
    return rc;
}

static int drain_data(struct lh_server *s, bool *busy)
{
    for (int i = 0; i < BURST; i++) {
        struct lh_net_message msg;
        int rc = lh_net_recv(s->socket, &msg);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        *busy = true;
        rc = take_data(s, &msg);
        lh_net_message_fini(&msg);
        LH_TRY(rc);
    }
    return 0;
}

static int take_commit(struct lh_server *s, const struct lh_net_message *msg)
{
    Lh__Commit *c = NULL;
    LH_TRY(lh_net_body(msg, &lh__commit__descriptor, (ProtobufCMessage **)&c));
    int rc = lh_writer_commit(s->writer, msg->env.step, c->keep, c->n_keep);
    lh_wire_free((ProtobufCMessage **)&c);
    return rc;
}

static int take_order(struct lh_server *s, const struct lh_net_message *msg)
{
    switch (msg->env.kind) {
    case LH__KIND__KIND_PAUSE:
        s->limit = lh_shard_version(s->shard) + s->tables.behind; /* some rows are of the next */
        LH_TRY(lh_server_steps_flush(s));
        /* steps that workers have are to come in; no other is given */
        return lh_member_tell(&s->member, LH__KIND__KIND_PAUSED,
                              s->flight ? lh_flight_high(s->flight) : s->limit);
    case LH__KIND__KIND_UNTIL:
        s->limit = s->clock.until = msg->env.step;
        return lh_server_steps_advance(s);
    case LH__KIND__KIND_COMMIT:
        return take_commit(s, msg);
    case LH__KIND__KIND_VOID:
        return lh_writer_drop(s->writer, msg->env.step);
    case LH__KIND__KIND_MEMBERS:
        return lh_members_take(&s->members, msg);
    case LH__KIND__KIND_LOST:
        if (s->flight)
            lh_flight_lose(s->flight, msg->env.index);
        return s->flight ? lh_server_pulls_answer(s) : 0;
    case LH__KIND__KIND_STOP:
        s->stopped = true;
        s->reason = lh_member_stop_reason(msg);
        return 0;
    case LH__KIND__KIND_AGAIN:
        s->stopped = s->again = true;
        return 0;
    default:
        return 0; /* of a newer scheduler: nothing we must heed */
    }
}

static int drain_orders(struct lh_server *s, bool *busy)
{
    struct lh_net_message msg;
    int rc = 0;
    while (rc >= 0 && !s->stopped && (rc = lh_member_recv(&s->member, &msg)) == 0) {
        *busy = true;
        rc = take_order(s, &msg);
        lh_net_message_fini(&msg);
    }
    return rc < 0 ? rc : 0;
}

static void show_phases(struct lh_server *s)
{
    const Lh__Phases *p = &s->member.phases;
    lh_metrics_set_at(s->counts, LH_METRIC_PHASE, LH_PHASE_REDUCE, p->reduce);
    lh_metrics_set_at(s->counts, LH_METRIC_PHASE, LH_PHASE_OPTIMISE, p->optimise);
    lh_metrics_set_at(s->counts, LH_METRIC_PHASE, LH_PHASE_REPLY, p->reply);
    lh_metrics_set_at(s->counts, LH_METRIC_PHASE, LH_PHASE_FREEZE, p->cut);
    lh_metrics_set_at(s->counts, LH_METRIC_PHASE, LH_PHASE_WAIT, p->wait);
}

static void show_tables(struct lh_server *s)
{
    struct lh_rowtable_stats sum;
    lh_server_tables_stats(&s->tables, &sum);
    lh_metrics_set(s->counts, LH_METRIC_ROWS_CACHED, (double)sum.rows_cached);
    lh_metrics_set(s->counts, LH_METRIC_ROWS_HIT, (double)sum.hits);
    lh_metrics_set(s->counts, LH_METRIC_ROWS_MISSED, (double)sum.misses);
    lh_metrics_set(s->counts, LH_METRIC_TABLES_DISK, (double)sum.disk_bytes);
}

/* What it has counted so far: for the next beat, and for whoever reads its metrics. */
static void count(struct lh_server *s)
{
    struct lh_net_counts net = lh_net_counts(s->socket);
    s->member.phases.dropped = net.dropped;
    s->member.phases.bytes_in = net.bytes_in;
    s->member.phases.bytes_out = net.bytes_out;
    if (!s->counts)
        return;
    show_phases(s);
    lh_metrics_set_net(s->counts, &net);
    lh_metrics_set(s->counts, LH_METRIC_VERSION, (double)lh_shard_version(s->shard));
    lh_metrics_set(s->counts, LH_METRIC_STEPS, (double)s->member.phases.steps);
    lh_metrics_set(s->counts, LH_METRIC_PULL_QUEUE, (double)s->n_waiting);
    if (s->tables.n > 0)
        show_tables(s);
    lh_metrics_set(s->counts, LH_METRIC_WRITER_QUEUE, (double)lh_writer_pending(s->writer));
}

static int take_turn(struct lh_server *s, bool *busy)
{
    bool any = false;
    LH_TRY(drain_data(s, &any));
    LH_TRY(drain_orders(s, &any));
    if (busy)
        *busy = any;
    if (s->stopped)
        return s->reason;
    LH_TRY(lh_server_cuts_report(s));
    LH_TRY(lh_server_cuts_settle(s));
    if (lh_server_cuts_due(s))
        LH_TRY(lh_server_cuts_start(s));
    if (s->metrics_rows > 0 &&
        (s->metrics_rows == LH_SERVER_METRICS || lh_shard_version(s->shard) >= s->limit ||
         lh_now() - s->began - s->metrics_at[0] > METRICS_EVERY))
        LH_TRY(lh_server_steps_flush(s));
    LH_TRY(lh_server_steps_advance(s)); /* what was held may go on */
    lh_loans_call_in(s->loans);
    if (s->withheld || s->tables.withheld)
        LH_TRY(lh_server_pulls_answer(s));
    count(s);
    LH_TRY(lh_member_tick(&s->member));
    if (s->opt->interrupted && s->opt->interrupted())
        return lh_err_set(LH_ECANCELED, "server %u: interrupted", s->member.plan->shard);
    return 0;
}

/* A thread may carry a worker as well: who speaks is told anew each time. */
static struct lh_log_who speak(const struct lh_server *s)
{
    return lh_log_as((struct lh_log_who){.role = s->member.role, .node = s->member.node});
}

int lh_server_turn(struct lh_server *s, bool *busy)
{
    struct lh_log_who before = speak(s);
    int rc = take_turn(s, busy);
    lh_log_as(before);
    return rc;
}

bool lh_server_stopped(const struct lh_server *s)
{
    return s->stopped;
}

void lh_server_sockets(const struct lh_server *s, struct lh_net_poll out[LH_SERVER_SOCKETS])
{
    out[0] = (struct lh_net_poll){.socket = s->socket};
    out[1] = (struct lh_net_poll){.socket = s->member.socket};
}

double lh_server_patience(const struct lh_server *s)
{
    if (s->frozen)
        return 0; /* there is something to do when nobody wants anything */
    if (lh_writer_busy(s->writer))
        return BUSY_POLL;
    if (s->metrics_rows > 0 || s->withheld || s->failed || s->tables.withheld || s->tables.behind)
        return METRICS_EVERY / 2;
    return s->member.heartbeat / 4;
}

/* --- life --------------------------------------------------------------------------------------
 */
static void release(struct lh_server *s)
{
    lh_writer_stop(&s->writer);
    lh_net_close(&s->socket);
    lh_server_tables_close(&s->tables);
    lh_loans_destroy(&s->loans);
    lh_members_fini(&s->members);
    lh_takeover_destroy(&s->takeover);
    lh_shard_destroy(&s->shard);
    lh_store_close(&s->store);
    if (s->model.layout)
        s->opt->model_fini(s->opt->ctx, &s->model);
    lh_job_destroy(&s->job);
    lh_mem_free(s->pieces);
    lh_mem_free(s->waiting);
    lh_mem_free(s->metrics);
    lh_mem_free(s);
}

static int join(struct lh_server *s, void *zmq)
{
    Lh__Hello hello = LH__HELLO__INIT;
    /* The queue is counted in messages of lent memory; a peer has two answers under way at most. */
    if (!s->socket)
        LH_TRY(lh_net_router(&s->socket, zmq, s->opt->bind, 1 << 16, s->opt->security));
    hello.role = LH__ROLE__ROLE_SERVER;
    hello.endpoint =
        (char *)(uintptr_t)(s->opt->advertise ? s->opt->advertise : lh_net_endpoint(s->socket));
    hello.wanted = s->opt->wanted;
    hello.metrics = (char *)(uintptr_t)lh_metrics_endpoint(s->opt->metrics);
    return lh_member_join(&s->member,
                          &(struct lh_member_spec){.zmq = zmq,
                                                   .scheduler = s->opt->scheduler,
                                                   .role = "server",
                                                   .patience = s->opt->patience,
                                                   .interrupted = s->opt->interrupted,
                                                   .security = s->opt->security},
                          &hello);
}

/* `socket` (may be NULL) holds one that is open already, which it takes over. */
static int open_behind(struct lh_server **out, void *zmq, const struct lh_server_options *opt,
                       struct lh_net_socket **socket)
{
    struct lh_server *s = NULL;
    LH_TRY(LH_NEW(&s, "server"));
    s->opt = opt;
    if (socket) {
        s->socket = *socket;
        *socket = NULL;
    }
    int rc = join(s, zmq);
    if (rc >= 0)
        rc = start(s);
    if (rc < 0)
        return lh_server_close(&s, rc);
    *out = s;
    return 0;
}

int lh_server_open(struct lh_server **out, void *zmq, const struct lh_server_options *opt)
{
    return open_behind(out, zmq, opt, NULL);
}

/* `keep` (may be NULL) gets the socket, open. */
static int close_but(struct lh_server **server, int rc, struct lh_net_socket **keep)
{
    struct lh_server *s = *server;
    struct lh_err saved;
    if (!s)
        return rc;
    *server = NULL;
    struct lh_log_who before = speak(s);
    lh_err_save(&saved, rc);
    int reported = 0;
    while (s->frozen && reported >= 0)
        reported = lh_server_cuts_settle(s);
    lh_writer_finish(s->writer); /* what is set aside becomes durable, and is told, first */
    if (s->writer && reported >= 0)
        reported = lh_server_cuts_report(s);
    if (saved.code < 0 || reported >= 0)
        rc = lh_err_load(&saved);
    else
        rc = reported;
    if (s->writer)
        count(s);
    lh_writer_stop(&s->writer);
    rc = lh_member_leave(&s->member, rc, s->stopped);
    if (s->opt->told)
        *s->opt->told = s->member.told;
    lh_err_save(&saved, rc);
    if (keep) {
        *keep = s->socket;
        s->socket = NULL;
        lh_metrics_leave(s->opt->metrics, &s->counts); /* it counts anew */
    }
    release(s);
    lh_log_as(before);
    return rc < 0 ? lh_err_load(&saved) : 0;
}

int lh_server_close(struct lh_server **server, int rc)
{
    return close_but(server, rc, NULL);
}

/* From hello to the end, or to the next hello: then *socket is left open and *again is set. */
static int serve(void *zmq, const struct lh_server_options *opt, struct lh_net_socket **socket,
                 bool *again)
{
    struct lh_server *s = NULL;
    int rc;
    *again = false;
    LH_TRY(open_behind(&s, zmq, opt, socket));
    do {
        struct lh_net_poll poll[LH_SERVER_SOCKETS];
        double began = lh_now();
        lh_server_sockets(s, poll);
        rc = lh_net_poll(poll, LH_SERVER_SOCKETS, lh_server_patience(s));
        s->member.phases.wait += lh_now() - began;
        if (rc >= 0)
            rc = lh_server_turn(s, NULL);
    } while (rc >= 0 && !s->stopped);
    *again = lh_member_returns(&s->member, rc, s->again, opt->rejoin);
    /* a socket made anew might not get its address while this one is still being closed */
    return close_but(&s, *again ? 0 : rc, *again ? socket : NULL);
}

int lh_server_run(void *zmq, const struct lh_server_options *opt)
{
    struct lh_net_socket *socket = NULL;
    bool again;
    int rc;
    do {
        rc = serve(zmq, opt, &socket, &again);
    } while (again && rc >= 0);
    lh_net_close(&socket);
    return rc;
}
