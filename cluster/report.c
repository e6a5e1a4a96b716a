/* Metrics and status of a run, as its scheduler sees it. */
#include "cluster/report.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVERY 1.0 /* seconds */

static double unix_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int join_metrics(struct lh_report *r, const struct lh_report_spec *spec)
{
    const size_t n = lh_graph_metrics(spec->graph);
    const char **losses = NULL;
    LH_TRY(LH_NEW_ARRAY(&losses, n, "names of losses"));
    for (size_t i = 0; i < n; i++)
        losses[i] = lh_graph_metric_name(spec->graph, i);
    int rc = lh_metrics_join(
        spec->metrics,
        &(struct lh_metrics_who){.role = LH_METRICS_SCHEDULER, .losses = losses, .n_losses = n},
        &r->counts);
    lh_mem_free(losses);
    return rc;
}

int lh_report_init(struct lh_report *r, const struct lh_report_spec *spec)
{
    struct lh_status *s = &r->status;
    int rc;
    *r = (struct lh_report){.written = -EVERY};
    LH_TRY_TO(fail, lh_mem_printf(&r->path, "%s/status.json", spec->dir));
    LH_TRY_TO(fail, join_metrics(r, spec));
    s->began = unix_now();
    s->pid = (uint64_t)getpid();
    gethostname(s->host, sizeof s->host - 1);
    snprintf(s->job, sizeof s->job, "%s", spec->job);
    snprintf(s->algorithm, sizeof s->algorithm, "%s", spec->algorithm);
    snprintf(s->endpoint, sizeof s->endpoint, "%s", spec->endpoint);
    snprintf(s->metrics, sizeof s->metrics, "%s", lh_metrics_endpoint(spec->metrics));
    s->wanted_workers = spec->workers;
    s->wanted_servers = spec->servers;
    s->batch = spec->batch;
    const size_t n = lh_graph_metrics(spec->graph);
    LH_TRY_TO(fail, LH_NEW_ARRAY(&s->losses, n, "losses of a status"));
    for (; s->n_losses < n; s->n_losses++) {
        struct lh_status_loss *l = &s->losses[s->n_losses];
        snprintf(l->name, sizeof l->name, "%s", lh_graph_metric_name(spec->graph, s->n_losses));
        l->value = NAN;
    }
    return 0;
fail:
    lh_report_fini(r);
    return rc;
}

void lh_report_fini(struct lh_report *r)
{
    lh_status_fini(&r->status);
    lh_mem_free(r->path);
    r->path = NULL;
}

void lh_report_step(struct lh_report *r, const float *losses, double seconds)
{
    lh_metrics_observe(r->counts, LH_METRIC_STEP_TIME, seconds - r->stepped);
    r->stepped = seconds;
    for (size_t i = 0; i < r->status.n_losses; i++) {
        r->status.losses[i].value = (double)losses[i];
        lh_metrics_set_at(r->counts, LH_METRIC_LOSS, i, (double)losses[i]);
    }
}

static const char *name_of(const struct lh_role_node *node)
{
    return node->role == LH__ROLE__ROLE_SERVER ? "server" : "worker";
}

static size_t kind_of(const struct lh_role_node *node)
{
    return node->role == LH__ROLE__ROLE_SERVER ? LH_METRICS_OF_SERVERS : LH_METRICS_OF_WORKERS;
}

void lh_report_joined(struct lh_report *r, const struct lh_role_node *node)
{
    lh_metrics_add_at(r->counts, LH_METRIC_JOINED, kind_of(node), 1);
    lh_log_event(LH_LOG_INFO, "join",
                 LH_FIELDS(LH_F("kind", name_of(node)), LH_F("number", node->number),
                           LH_F("process", node->pid), LH_F("host", node->host)));
}

void lh_report_lost(struct lh_report *r, const struct lh_role_node *node)
{
    lh_metrics_add_at(r->counts, LH_METRIC_LOST, kind_of(node), 1);
}

/* --- metrics -----------------------------------------------------------------------------------
 */
/* Versions between the newest and the slowest worker. */
static uint64_t lag(const struct lh_report_facts *f)
{
    uint64_t slowest = f->version;
    for (size_t i = 0; i < f->roster->n_nodes; i++) {
        const struct lh_role_node *n = &f->roster->nodes[i];
        if (n->role == LH__ROLE__ROLE_WORKER && n->standing == LH_STANDING_READY &&
            n->version < slowest)
            slowest = n->version;
    }
    return f->version - slowest;
}

static void count_cuts(struct lh_report *r, const struct lh_cuts *c)
{
    lh_metrics_set(r->counts, LH_METRIC_CHECKPOINTS, (double)c->completed);
    lh_metrics_set(r->counts, LH_METRIC_CHECKPOINTS_FAILED, (double)c->failed);
    lh_metrics_set(r->counts, LH_METRIC_EVALUATIONS, (double)c->evaluated);
    if (c->completed > 0)
        lh_metrics_set(r->counts, LH_METRIC_CHECKPOINT_AGE, c->completed_at);
    if (c->evaluated > 0) {
        lh_metrics_set(r->counts, LH_METRIC_VALUE, c->verdict.value);
        lh_metrics_set(r->counts, LH_METRIC_ESS, c->verdict.ess_share);
    }
    if (c->has_best) {
        lh_metrics_set(r->counts, LH_METRIC_BEST_VALUE, c->best_value);
        lh_metrics_set(r->counts, LH_METRIC_BEST_VERSION, (double)c->record->best);
    }
}

static void count(struct lh_report *r, const struct lh_report_facts *f)
{
    const struct lh_roster *ro = f->roster;
    struct lh_net_counts net = lh_net_counts(ro->socket);
    uint64_t steps = f->version - f->clock->start;
    lh_metrics_set_net(r->counts, &net);
    lh_metrics_set(r->counts, LH_METRIC_VERSION, (double)f->version);
    lh_metrics_set(r->counts, LH_METRIC_STEPS, (double)steps);
    lh_metrics_set(r->counts, LH_METRIC_TRANSITIONS, (double)(steps * r->status.batch));
    lh_metrics_set(r->counts, LH_METRIC_JOB_STEPS, (double)f->clock->total);
    lh_metrics_set_at(r->counts, LH_METRIC_PRESENT, LH_METRICS_OF_WORKERS,
                      (double)lh_roster_count(ro, LH__ROLE__ROLE_WORKER, LH_STANDING_READY));
    lh_metrics_set_at(r->counts, LH_METRIC_PRESENT, LH_METRICS_OF_SERVERS,
                      (double)lh_roster_count(ro, LH__ROLE__ROLE_SERVER, LH_STANDING_READY));
    lh_metrics_set(r->counts, LH_METRIC_EPOCH, (double)ro->epoch);
    lh_metrics_set(r->counts, LH_METRIC_LAG, (double)lag(f));
    count_cuts(r, f->cuts);
}

/* --- status.json -------------------------------------------------------------------------------
 */
/* What a peer says of itself ends up on terminals: nothing but plain letters of it. */
static void copy_plain(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        out[n] = text[n] > ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
}

static void describe_role(const struct lh_role_node *n, double now, struct lh_status_role *out)
{
    static const char *const standings[] = {"hello", "planned", "ready", "gone"};
    const Lh__Phases *p = &n->phases;
    *out = (struct lh_status_role){.node = n->number,
                                   .server = n->role == LH__ROLE__ROLE_SERVER,
                                   .shard = n->shard,
                                   .pid = n->pid,
                                   .version = n->version,
                                   .silent = now - n->heard,
                                   .steps = p->steps,
                                   .rows = p->rows,
                                   .dropped = p->dropped,
                                   .bytes_in = p->bytes_in,
                                   .bytes_out = p->bytes_out,
                                   .memory = p->memory,
                                   .lacked = p->lacked,
                                   .lacked_most = p->lacked_most,
                                   .taken_over = p->taken_over};
    copy_plain(out->host, sizeof out->host, n->host);
    copy_plain(out->metrics, sizeof out->metrics, n->metrics);
    snprintf(out->standing, sizeof out->standing, "%s", standings[n->standing]);
    out->phases[LH_PHASE_GATHER] = p->gather;
    out->phases[LH_PHASE_FORWARD] = p->compute - p->backward;
    out->phases[LH_PHASE_BACKWARD] = p->backward;
    out->phases[LH_PHASE_REDUCE] = p->reduce;
    out->phases[LH_PHASE_PUSH] = p->push;
    out->phases[out->server ? LH_PHASE_REPLY : LH_PHASE_TAKE] = p->reply;
    out->phases[LH_PHASE_WAIT] = p->wait;
    out->phases[LH_PHASE_OPTIMISE] = p->optimise;
    out->phases[LH_PHASE_FREEZE] = p->cut;
}

static void sample(struct lh_report *r, uint64_t version, double now)
{
    if (r->samples == LH_REPORT_SAMPLES) {
        memmove(r->at, r->at + 1, sizeof r->at - sizeof *r->at);
        memmove(r->version, r->version + 1, sizeof r->version - sizeof *r->version);
        r->samples--;
    }
    r->at[r->samples] = now;
    r->version[r->samples++] = version;
}

static double rate_of(const struct lh_report *r)
{
    size_t last = r->samples - 1, first = 0;
    while (first < last && r->version[first + 1] == r->version[0])
        first++; /* before the first step */
    double seconds = r->at[last] - r->at[first];
    return seconds > 0
               ? (double)((r->version[last] - r->version[first]) * r->status.batch) / seconds
               : NAN;
}

static void describe_cuts(struct lh_status *s, const struct lh_cuts *c, double now)
{
    s->has_cut = c->record->has_last;
    s->cut = s->has_cut ? c->record->last : 0;
    s->cut_at = c->completed > 0 ? s->written - (now - c->completed_at) : NAN;
    s->failed_cuts = c->failed_in_row;
    snprintf(s->trouble, sizeof s->trouble, "%s", c->trouble.code < 0 ? c->trouble.text : "");
    s->has_evaluation = c->evaluated > 0;
    s->value = s->has_evaluation ? c->verdict.value : NAN;
    s->lo = s->has_evaluation ? c->verdict.lo : NAN;
    s->hi = s->has_evaluation ? c->verdict.hi : NAN;
    s->ess_share = s->has_evaluation ? c->verdict.ess_share : NAN;
    s->has_best = c->has_best;
    s->best = c->has_best ? c->record->best : 0;
    s->best_value = c->has_best ? c->best_value : NAN;
}

static int write_status(struct lh_report *r, const struct lh_report_facts *f, double now)
{
    struct lh_status s = r->status;
    s.roles = NULL;
    s.n_roles = 0;
    s.written = unix_now();
    snprintf(s.stage, sizeof s.stage, "%s", f->stage);
    s.step = f->version;
    s.start = f->clock->start;
    s.until = f->clock->until;
    s.total = f->clock->total;
    s.rate = rate_of(r);
    s.eta = s.rate > 0 ? (double)((s.until - s.step) * s.batch) / s.rate : NAN;
    s.memory = lh_mem_resident();
    describe_cuts(&s, f->cuts, now);
    LH_TRY(LH_NEW_ARRAY(&s.roles, f->roster->n_nodes, "roles of a status"));
    for (; s.n_roles < f->roster->n_nodes; s.n_roles++)
        describe_role(&f->roster->nodes[s.n_roles], now, &s.roles[s.n_roles]);
    int rc = lh_status_save(&s, r->path);
    lh_mem_free(s.roles);
    return rc;
}

void lh_report_update(struct lh_report *r, const struct lh_report_facts *f, bool at_once)
{
    struct lh_err err;
    double now = lh_now();
    if (!r->path || !f->roster->socket)
        return;
    if (r->counts)
        count(r, f);
    if (now - r->written < EVERY && !at_once)
        return;
    r->written = now;
    lh_err_save(&err, 0); /* of the run, which this must not disturb */
    sample(r, f->version, now);
    if (write_status(r, f, now) < 0 && !r->failed) { /* people are told by what the disk is for */
        r->failed = true;
        lh_log_event(LH_LOG_WARN, "disk_error", LH_FIELDS(LH_F("reason", lh_err_text())));
    }
    lh_err_load(&err);
}
