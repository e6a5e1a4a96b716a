/* The scheduler's loop. A run goes through: gathering (servers first, then workers), running,
 * perhaps pausing (an interrupt: all servers stop at one version and cut there), finishing (the
 * last cut is complete, the last evaluation is in), stopping (everybody says goodbye). What roles
 * are told is in scheduler_plan.c, what becomes of them in scheduler_roles.c, and of versions in
 * scheduler_cuts.c. */
#include "cluster/scheduler_internal.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/member.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONTROL_QUEUE 10000
#define NOTE_EVERY    5.0  /* seconds */
#define POLL_TIME     0.02 /* seconds */
#define LATE_WORKERS  5.0  /* seconds the first ready workers wait for the others */

/* --- messages ----------------------------------------------------------------------------------
 */
static int take_metrics(struct lh_scheduler *s, const struct lh_net_message *msg)
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

static int pause_is_over(struct lh_scheduler *s)
{
    uint64_t newest = 0;
    for (uint32_t i = 0; i < s->opt->servers; i++) {
        const struct lh_role_node *n = lh_roster_server(&s->roster, i);
        if (!n || !n->paused)
            return 0;
        newest = n->paused_at > newest ? n->paused_at : newest;
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

/* Opens what is written as the run goes, from clock.start on: lines behind it come again. */
static int open_lines(struct lh_scheduler *s)
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

static int take_from(struct lh_scheduler *s, struct lh_role_node *node,
                     const struct lh_net_message *msg)
{
    bool server = node->role == LH__ROLE__ROLE_SERVER;
    switch (msg->env.kind) {
    case LH__KIND__KIND_READY:
        return lh_scheduler_ready(s, node);
    case LH__KIND__KIND_FAILED:
        return lh_scheduler_failed(s, node, msg);
    case LH__KIND__KIND_GOODBYE:
        node->said_goodbye = true;
        return lh_scheduler_gone(s, node, "left");
    case LH__KIND__KIND_METRICS:
        return server ? take_metrics(s, msg) : 0;
    case LH__KIND__KIND_PREPARED:
        return server ? lh_scheduler_prepared(s, node, msg->env.step) : 0;
    case LH__KIND__KIND_UNPREPARED:
        return server ? lh_scheduler_unprepared(s, node, msg) : 0;
    case LH__KIND__KIND_PAUSED:
        node->paused = server;
        node->paused_at = msg->env.step;
        return s->stage == PAUSING ? pause_is_over(s) : 0;
    default:
        return 0;
    }
}

static int take_message(struct lh_scheduler *s, const struct lh_net_message *msg)
{
    struct lh_role_node *node = NULL;
    bool returned = false;
    if (msg->env.kind == LH__KIND__KIND_HELLO) {
        LH_TRY(lh_roster_hello(&s->roster, msg, &node));
        if (node)
            lh_report_joined(&s->report, node);
        if (s->roster.blas[0] && !s->opt->record->blas) /* durable with the first cut */
            LH_TRY(lh_run_record_set_blas(s->opt->record, s->roster.blas));
        return 0;
    }
    node = lh_roster_sender(&s->roster, msg, &returned);
    if (!node)
        return 0;
    if (returned && lh_scheduler_computes(s)) {
        lh_log_tell(LH_LOG_INFO, "back", LH_FIELDS(LH_F("number", node->number)),
                    "worker %u is back", node->number);
        s->reassign = true;
    }
    return take_from(s, node, msg);
}

static int drain(struct lh_scheduler *s)
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

int lh_scheduler_hear(struct lh_scheduler *s)
{
    struct lh_net_poll poll = {.socket = s->roster.socket};
    LH_TRY(lh_net_poll(&poll, 1, POLL_TIME));
    return drain(s);
}

/* --- the stages --------------------------------------------------------------------------------
 */
static int gather(struct lh_scheduler *s)
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
        s->reassign = true;
        return 0;
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

static int stop(struct lh_scheduler *s, int rc)
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

static bool is_finished(const struct lh_scheduler *s)
{
    const struct lh_run_record *r = s->opt->record;
    uint64_t until = s->clock.until;
    bool cut = until == s->clock.start || (r->has_last && r->last >= until);
    bool evaluated = !s->evaluator || lh_evaluator_next(s->evaluator) > until;
    return cut && evaluated && !s->cuts.has_verdict;
}

static bool everybody_left(const struct lh_scheduler *s)
{
    for (size_t i = 0; i < s->roster.n_nodes; i++)
        if (s->roster.nodes[i].standing != LH_STANDING_GONE)
            return false;
    return true;
}

static int pause_all(struct lh_scheduler *s)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_PAUSE};
    s->result->interrupted = true;
    lh_log_event(LH_LOG_INFO, "pause", LH_FIELDS(LH_F("step", s->version)));
    const char *note = s->opt->interrupt_note ? s->opt->interrupt_note(s->opt->launcher) : NULL;
    if (note)
        lh_note("%s", note);
    if (s->stage == GATHERING)
        return lh_err_set(LH_ECANCELED, "interrupted while roles were awaited");
    s->stage = PAUSING;
    return lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL);
}

static void report(struct lh_scheduler *s, bool now)
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

static int turn(struct lh_scheduler *s)
{
    LH_TRY(lh_scheduler_hear(s));
    if (s->stage < STOPPING)
        LH_TRY(lh_scheduler_plan(s));
    LH_TRY(lh_scheduler_look_after(s));
    LH_TRY(lh_cuts_judge(&s->cuts, s->evaluator));
    LH_TRY(lh_scheduler_list_last(s));
    report(s, false);
    double now = lh_now();
    if (now - s->flushed > 1) {
        s->flushed = now;
        LH_TRY(lh_metrics_log_flush(s->metrics));
    }
    if (s->stage < PAUSING && s->opt->interrupted && s->opt->interrupted())
        LH_TRY(pause_all(s));
    if (s->stage == GATHERING)
        LH_TRY(gather(s));
    LH_TRY(lh_scheduler_reassign(s));
    if (s->stage < STOPPING && is_finished(s))
        return stop(s, 0);
    return lh_scheduler_computes(s) ? lh_scheduler_watch_workers(s) : 0;
}

/* Everybody is told; those who listen say goodbye, with their last statistics. */
static void see_off(struct lh_scheduler *s, int rc)
{
    struct lh_err err;
    lh_err_save(&err, rc);
    if (s->stage != STOPPING)
        stop(s, rc);
    while (!everybody_left(s) && lh_now() - s->stopping_at < s->roster.deadline) {
        if (lh_scheduler_hear(s) < 0)
            break;
        lh_scheduler_take_deaths(s); /* a role that cannot say goodbye is gone all the same */
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

static void sum_up(struct lh_scheduler *s)
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

/* The evaluation speaks to servers with a key of its own, which gives no orders. */
static int make_evaluation_keys(struct lh_scheduler *s)
{
    const struct lh_security *security = s->opt->security;
    if (!security)
        return 0;
    s->evaluation_security.insecure = security->insecure;
    if (!security->keys)
        return 0;
    s->evaluation_security.keys = &s->evaluation;
    return lh_keys_make(&s->evaluation, LH__ROLE__ROLE_EVALUATION, "evaluation",
                        &security->keys->own);
}

static int open_run(struct lh_scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    s->roster.job = lh_job_digest(o->job);
    s->roster.servers = o->servers;
    s->roster.workers = o->workers;
    if (o->record->blas)
        snprintf(s->roster.blas, sizeof s->roster.blas, "%s", o->record->blas);
    s->roster.heartbeat = o->job->heartbeat_seconds;
    s->roster.deadline = o->job->deadline_seconds;
    s->roster.in_process = lh_net_is_inproc(o->bind);
    s->began = s->noted = lh_now();
    s->first = s->result->version = s->clock.start;
    /* another scheduler's messages may be under way to this address, and nodes are numbered anew */
    s->roster.generation = (uint32_t)getpid() << 16 ^ (uint32_t)(uint64_t)(lh_now() * 1e3);
    LH_TRY(make_evaluation_keys(s));
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

static int end_record(struct lh_scheduler *s, int rc)
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

static void tell_start(const struct lh_scheduler *s)
{
    const struct lh_scheduler_options *o = s->opt;
    lh_log_event(LH_LOG_INFO, s->clock.start > 0 ? "resume" : "start",
                 LH_FIELDS(LH_F("dir", o->dir), LH_F("job", o->job->name),
                           LH_F("algorithm", o->job->algorithm), LH_F("seed", o->job->seed),
                           LH_F("workers", o->workers), LH_F("servers", o->servers),
                           LH_F("step", s->clock.start), LH_F("until", s->clock.until),
                           LH_F("release", LH_VERSION)));
}

static void tell_stop(const struct lh_scheduler *s, int rc)
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
    struct lh_scheduler s = {.opt = opt, .result = out, .zmq = zmq, .clock = opt->clock};
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
    lh_keys_fini(&s.evaluation);
    lh_mem_free(s.job_text);
    return rc;
}
