/* The server's loop: takes pushes into the shard, lets it advance, answers pulls with lent frames,
 * and cuts checkpoints by the clock plan. Invariants: a version is answered with exactly its
 * weights; no version that is due for a cut or an evaluation is passed before it is frozen, or
 * fetched. Reliability is the workers' business: they ask again, and everything here is idempotent
 * (DESIGN.md, invariant 2). */
#include "ps/server.h"

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/member.h"
#include "common/metrics.h"
#include "common/pull.h"
#include "common/term.h"
#include "ps/flight.h"
#include "ps/loan.h"
#include "ps/server_tables.h"
#include "ps/takeover.h"
#include "ps/writer.h"

#include <stdio.h>
#include <string.h>

#define METRICS_ROWS  64   /* steps in one report at most */
#define METRICS_EVERY 0.05 /* seconds */
#define BURST         256  /* messages taken before other work is looked after */
#define BUSY_POLL     0.002
#define RETRY_EVERY   0.5 /* seconds between tries to write the last version */
/* Times what a step takes an idle worker: then another's is late. Leaves are taken over beside the
 * late worker; a whole step is begun anew, so that is for one who is stuck, not for one who is
 * slow. */
#define LATE_LEAF 2.0
#define LATE_STEP 8.0

struct waiting { /* a pull that is not answered yet; one a peer */
    struct lh_net_peer peer;
    uint64_t version, request;
    uint32_t node;
    bool evaluation;
    bool each; /* the version is a step, whose weights are wanted; LATEST: one that is given here */
};

struct lh_server {
    const struct lh_server_options *opt;
    struct lh_member member;
    struct lh_metrics_role *counts; /* NULL: off */
    struct lh_net_socket *socket;
    struct lh_job *job;
    struct lh_server_model model;
    struct lh_shard *shard;
    struct lh_server_tables tables;
    struct lh_takeover *takeover; /* of shard 0, in sync; else NULL */
    double pushed;                /* when a piece came last */
    struct lh_flight *flight;     /* of the shard, where each step is a worker's own; else NULL */
    struct lh_store *store;
    struct lh_writer *writer;
    struct lh_clock clock;
    uint64_t limit;  /* no version beyond this */
    uint64_t cut;    /* last version handed to the writer */
    uint64_t failed; /* last version that it could not write; 0: none */
    double failed_at;
    uint64_t evaluated; /* last version that the evaluation said it has; UINT64_MAX: none */
    struct lh_pull_piece *pieces;
    size_t n_pieces;
    struct waiting *waiting;
    size_t n_waiting, cap_waiting;
    struct lh_loans *loans;
    bool withheld;  /* an answer waits until its peer has taken earlier ones */
    float *metrics; /* [METRICS_ROWS][n_metrics] of steps from metrics_first on */
    double metrics_at[METRICS_ROWS];
    size_t n_metrics, metrics_rows;
    uint64_t metrics_first;
    double began, stepped; /* when it began to serve; when the version at hand was made */
    bool stopped;          /* the scheduler said stop; with */
    int reason;
    bool again; /* the scheduler said: go back and say hello again */
};

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
                                        .keep = plan->keep,
                                        .n_keep = plan->n_keep}));
    return lh_server_tables_restore(&s->tables, plan->start, (const char *const *)plan->restore,
                                    plan->n_restore);
}

/* Which workers may connect is for the scheduler to say. */
static int let_in(struct lh_server *s, const Lh__Plan *plan)
{
    for (size_t i = 0; s->opt->security && s->opt->security->guard && i < plan->n_allowed; i++) {
        struct lh_key_owner who = {.role = plan->allowed[i]->role};
        snprintf(who.key, sizeof who.key, "%s", plan->allowed[i]->key);
        snprintf(who.name, sizeof who.name, "%s", plan->allowed[i]->name);
        LH_TRY(lh_guard_allow(s->opt->security->guard, &who));
    }
    return 0;
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
    if (!s->flight && plan->shard == 0 && s->job->takeover && s->job->n_tables == 0)
        LH_TRY(lh_takeover_create(&s->takeover, s->model.leaves));
    LH_TRY(lh_loans_create(&s->loans, s->shard, s->member.deadline));
    LH_TRY(open_store(s, plan));
    LH_TRY(restore(s, plan));
    LH_TRY(start_tables(s, plan));
    LH_TRY(
        lh_writer_start(&s->writer, s->store, s->tables.at, s->tables.n, plan->keep, plan->n_keep));
    LH_TRY(lh_pull_pieces(&s->pieces, &s->n_pieces, range));
    LH_TRY(LH_NEW_ARRAY(&s->metrics, METRICS_ROWS * (s->n_metrics + 1), "metrics"));
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
    s->evaluated = UINT64_MAX;
    s->began = s->stepped = lh_now();
    lh_metrics_set(s->counts, LH_METRIC_SHARD_SIZE, (double)lh_shard_size(s->shard));
    return lh_member_tell(&s->member, LH__KIND__KIND_READY, plan->start);
}

/* --- answering pulls ---------------------------------------------------------------------------
 */
static int send_moved(struct lh_server *s, const struct waiting *w)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_MOVED,
                              .job = s->member.job,
                              .node = s->member.node,
                              .step = lh_shard_version(s->shard),
                              .request = w->request};
    int rc = lh_net_send(s->socket, &w->peer, &env, NULL, 0);
    return rc < 0 ? rc : 0; /* a peer that is gone or stuck asks again when it can */
}

/* The version that must be in before a step begins: all steps but the last few, those before the
 * last cut or evaluation in any case (ps/CONSISTENCY.md). */
static uint64_t needed_for(const struct lh_server *s, uint64_t step)
{
    uint64_t barrier = lh_clock_barrier(&s->clock, step), bound = s->job->staleness_bound;
    if (s->job->consistency == LH_ASYNC || step < bound)
        return barrier;
    return step - bound > barrier ? step - bound : barrier;
}

/* The step that who waits is to have weights for; LH_FLIGHT_NONE if there is none yet. */
static uint64_t step_for(const struct lh_server *s, const struct waiting *w)
{
    return w->version == LH_WIRE_LATEST ? lh_flight_choose(s->flight, w->node, s->limit)
                                        : w->version;
}

/* Who waits has its step from now on, and is told which, where it does not know. A step may be in
 * here, and wanted for another shard, which lost it. Returns 0 if weights are to follow. */
static int give_step(struct lh_server *s, const struct waiting *w)
{
    uint64_t step = step_for(s, w);
    struct lh_envelope env = {.kind = LH__KIND__KIND_STEP,
                              .job = s->member.job,
                              .node = s->member.node,
                              .step = step,
                              .request = w->request};
    const struct lh_flight_asker to = {w->node, w->request, w->peer};
    int rc = lh_flight_give(s->flight, step, &to, lh_now());
    if (rc < 0 || w->version != LH_WIRE_LATEST)
        return rc < 0 ? rc : 0;
    return lh_net_send(s->socket, &w->peer, &env, NULL, 0);
}

/* The last `left` pieces of a loan were not sent: a peer that is gone or stuck asks again. */
static int give_back(struct lh_loan *loan, size_t left, int rc)
{
    for (; left > 0; left--)
        lh_loan_release(NULL, loan);
    return rc < 0 ? rc : 0;
}

/* LH_AGAIN: not now, the peer has too much to take yet. */
static int send_version(struct lh_server *s, const struct waiting *w)
{
    struct lh_envelope env = {.job = s->member.job,
                              .node = s->member.node,
                              .step = lh_shard_version(s->shard),
                              .request = w->request};
    struct lh_loan *loan = NULL;
    if (lh_loans_begin(s->loans, &w->peer, (uint32_t)s->n_pieces, &loan) == LH_AGAIN)
        return LH_AGAIN;
    int rc = w->each ? give_step(s, w) : 0;
    if (rc != 0)
        return give_back(loan, s->n_pieces, rc);
    for (size_t i = 0; i < s->n_pieces; i++) {
        const struct lh_pull_piece *p = &s->pieces[i];
        const float *from = p->targets ? lh_shard_targets(s->shard) : lh_shard_weights(s->shard);
        struct lh_net_part part = {.data = from + p->first,
                                   .size = p->count * sizeof(float),
                                   .release = lh_loan_release,
                                   .hint = loan};
        env.kind = p->targets ? LH__KIND__KIND_TARGETS : LH__KIND__KIND_WEIGHTS;
        env.first = p->first;
        env.count = p->count;
        rc = lh_net_send(s->socket, &w->peer, &env, &part, 1);
        if (rc != 0) /* after LH_AGAIN this piece is to be released too */
            return give_back(loan, s->n_pieces - i - (rc != LH_AGAIN), rc);
    }
    return 0;
}

static int answer(struct lh_server *s, const struct waiting *w)
{
    double began = lh_now();
    int rc = w->each || w->version == LH_WIRE_LATEST || w->version == lh_shard_version(s->shard)
                 ? send_version(s, w)
                 : send_moved(s, w);
    s->member.phases.reply += lh_now() - began;
    return rc;
}

static bool is_due(const struct lh_server *s, const struct waiting *w)
{
    if (w->each) { /* what is whole is in soon, and a lone worker's steps are then those of sync */
        uint64_t step = step_for(s, w);
        return step != LH_FLIGHT_NONE && !lh_flight_next(s->flight) &&
               lh_flight_low(s->flight) >= needed_for(s, step);
    }
    return w->version == LH_WIRE_LATEST || w->version <= lh_shard_version(s->shard);
}

static int answer_waiting(struct lh_server *s)
{
    size_t kept = 0;
    s->withheld = false;
    for (size_t i = 0; i < s->n_waiting; i++) {
        const struct waiting w = s->waiting[i];
        bool due = is_due(s, &w);
        int rc = due ? answer(s, &w) : 0;
        LH_TRY(rc);
        if (rc == LH_AGAIN || !due)
            s->waiting[kept++] = w;
        s->withheld = s->withheld || rc == LH_AGAIN;
    }
    s->n_waiting = kept;
    return 0;
}

static int check_take(const struct lh_server *s, const struct waiting *w)
{
    bool gives = s->member.plan->shard == 0;
    if (!s->flight || w->evaluation || (w->version == LH_WIRE_LATEST && !gives) ||
        (w->version != LH_WIRE_LATEST && w->version >= s->clock.until))
        return lh_err_set(LH_EPROTO, "worker %u wants a step that shard %u does not give", w->node,
                          s->member.plan->shard);
    return 0;
}

static int take_pull(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch != s->member.plan->generation)
        return 0; /* from before the run went back: who asked is told so by the scheduler */
    struct waiting w = {.peer = msg->peer,
                        .version = msg->env.step,
                        .request = msg->env.request,
                        .node = msg->env.node,
                        .evaluation = msg->env.node == 0,
                        .each = msg->env.kind == LH__KIND__KIND_TAKE};
    if (w.evaluation != (msg->role == LH__ROLE__ROLE_SCHEDULER) &&
        msg->role != LH__ROLE__ROLE_NONE) /* versions wait for the evaluation to fetch them */
        return lh_err_set(LH_EPROTO, "a pull of a %s as node %u", lh_keys_role_name(msg->role),
                          msg->env.node);
    if (w.evaluation && w.version > lh_shard_version(s->shard))
        s->evaluated = lh_shard_version(s->shard); /* it has that one */
    if (w.each)
        LH_TRY(check_take(s, &w));
    lh_metrics_add(s->counts, LH_METRIC_PULLS, 1);
    size_t i = 0; /* a peer's newer request replaces its older */
    while (i < s->n_waiting && (s->waiting[i].peer.size != w.peer.size ||
                                memcmp(s->waiting[i].peer.id, w.peer.id, w.peer.size) != 0))
        i++;
    if (is_due(s, &w)) {
        if (i < s->n_waiting)
            s->waiting[i] = s->waiting[--s->n_waiting];
        int rc = answer(s, &w);
        if (rc != LH_AGAIN)
            return rc;
        s->withheld = true;
        i = s->n_waiting;
    }
    if (i == s->n_waiting) {
        LH_TRY(LH_GROW(&s->waiting, &s->cap_waiting, i + 1, "waiting pulls"));
        s->n_waiting++;
    }
    s->waiting[i] = w;
    return 0;
}

/* The evaluation has all of a version: it may be passed. Its next pull says the same, should this
 * be lost. */
static int take_fetched(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch == s->member.plan->generation && msg->env.step == lh_shard_version(s->shard))
        s->evaluated = msg->env.step;
    return 0;
}

/* --- steps -------------------------------------------------------------------------------------
 */
static int flush_metrics(struct lh_server *s)
{
    struct lh_envelope env = lh_member_envelope(&s->member, LH__KIND__KIND_METRICS);
    env.step = s->metrics_first;
    env.count = s->metrics_rows;
    struct lh_net_part parts[] = {
        {.data = s->metrics, .size = s->metrics_rows * s->n_metrics * sizeof(float)},
        {.data = s->metrics_at, .size = s->metrics_rows * sizeof(double)}};
    if (s->metrics_rows == 0 || s->member.out.n > LH_OUTBOX_MAX / 2) /* room for other things */
        return 0;
    int rc = lh_member_send(&s->member, &env, parts, 2);
    if (rc == 0)
        s->metrics_rows = 0;
    return rc < 0 ? rc : 0;
}

/* A version that could not be written is passed without a cut, but for the last, which is tried
 * again until the scheduler gives up. */
static bool cut_is_due(const struct lh_server *s)
{
    uint64_t v = lh_shard_version(s->shard);
    if (v == s->failed && v == s->clock.until)
        return lh_now() - s->failed_at > RETRY_EVERY;
    return s->cut != v && lh_clock_cuts(&s->clock, v);
}

/* Whether the version at hand still has something to give before it may pass. */
static bool is_held(const struct lh_server *s)
{
    uint64_t v = lh_shard_version(s->shard);
    return v >= s->limit || cut_is_due(s) ||
           (s->evaluated != v && lh_clock_evaluates(&s->clock, v)) ||
           s->metrics_rows == METRICS_ROWS;
}

/* What a disk does not take is no end: training goes on, and the scheduler says so. Commits and
 * drops are made up for by the next. */
static int cut_failed(struct lh_server *s, const struct lh_writer_done *done)
{
    lh_log_event(LH_LOG_WARN, "disk_error",
                 LH_FIELDS(LH_F("step", done->version), LH_F("code", lh_err_name(done->err.code)),
                           LH_F("reason", done->err.text)));
    if (done->err.code == LH_EINTERNAL)
        return lh_err_load(&done->err);
    if (done->kind != LH_WRITER_PREPARE)
        return 0;
    lh_metrics_add(s->counts, LH_METRIC_CHECKPOINTS_FAILED, 1);
    s->failed = done->version;
    s->failed_at = lh_now();
    return lh_member_tell_failure(&s->member, LH__KIND__KIND_UNPREPARED, done->version, &done->err);
}

/* Shard and tables, or none of them: LH_AGAIN while the last cut is being written. */
static int freeze(struct lh_server *s, const struct lh_frozen **out)
{
    int rc = lh_server_tables_freeze(&s->tables);
    if (rc != 0)
        return rc;
    rc = lh_shard_freeze(s->shard, out);
    if (rc != 0)
        lh_server_tables_thaw(&s->tables);
    return rc;
}

static int start_cut(struct lh_server *s)
{
    const struct lh_frozen *frozen = NULL;
    double began = lh_now();
    int rc = freeze(s, &frozen);
    if (rc == LH_AGAIN)
        return 0; /* training waits */
    /* rows that changed are written when they are frozen; where their directory is gone, they are
     * not */
    if (rc == LH_ENOSPC || rc == LH_EIO || rc == LH_ENOENT) {
        struct lh_writer_done done = {.kind = LH_WRITER_PREPARE,
                                      .version = lh_shard_version(s->shard)};
        lh_err_save(&done.err, rc);
        s->cut = done.version;
        return cut_failed(s, &done);
    }
    LH_TRY(rc);
    s->member.phases.cut += lh_now() - began;
    rc = lh_writer_prepare(s->writer, s->shard, frozen);
    if (rc < 0) {
        lh_shard_thaw(s->shard, frozen);
        lh_server_tables_thaw(&s->tables);
        return rc;
    }
    s->cut = frozen->version;
    s->failed = 0;
    return 0;
}

static int new_version(struct lh_server *s)
{
    uint64_t v = lh_shard_version(s->shard);
    s->member.version = v;
    s->member.phases.steps++;
    double now = lh_now();
    lh_metrics_observe(s->counts, LH_METRIC_STEP_TIME, now - s->stepped);
    s->stepped = now;
    if (s->n_metrics) {
        if (s->metrics_rows == 0)
            s->metrics_first = v - 1;
        s->metrics_at[s->metrics_rows++] = now - s->began;
    }
    LH_TRY(answer_waiting(s));
    LH_TRY(lh_server_tables_answer(&s->tables, s->socket, v));
    return cut_is_due(s) ? start_cut(s) : 0;
}

static void show_sum(const struct lh_server *s)
{
    struct lh_server_sum sum = {.step = lh_shard_version(s->shard),
                                .range = lh_shard_range_of(s->shard),
                                .gradient = lh_shard_gradient(s->shard),
                                .metrics = lh_shard_metrics(s->shard)};
    if (sum.gradient)
        s->opt->look(s->opt->onlooker, &sum);
}

/* A step that was a worker's own is applied. Who had it before another may stop at it. */
static int step_is_in(struct lh_server *s, const struct lh_flight_step *step)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_IN,
                              .job = s->member.job,
                              .node = s->member.node,
                              .step = step->step};
    lh_metrics_observe(s->counts, LH_METRIC_STALENESS, (double)step->lacked);
    s->member.phases.lacked += step->lacked;
    if (step->lacked > s->member.phases.lacked_most)
        s->member.phases.lacked_most = step->lacked;
    if (step->given < 2 || s->member.plan->shard != 0)
        return 0;
    lh_metrics_add(s->counts, LH_METRIC_TAKEN_OVER, 1);
    s->member.phases.taken_over++;
    int rc = lh_net_send(s->socket, &step->first, &env, NULL, 0);
    return rc < 0 ? rc : 0;
}

static int advance(struct lh_server *s)
{
    int applied = 1;
    while (applied && !is_held(s)) {
        double began = lh_now();
        const struct lh_flight_step *next = s->flight ? lh_flight_next(s->flight) : NULL;
        const struct lh_flight_step step = next ? *next : (struct lh_flight_step){0};
        if (s->opt->look)
            show_sum(s);
        /* a step is applied to shard and tables, or to none of them */
        if (s->tables.n > 0 &&
            (!lh_shard_gradient(s->shard) || !lh_server_tables_whole(&s->tables)))
            return 0;
        LH_TRY(lh_server_tables_check(&s->tables));
        LH_TRY(lh_shard_advance(s->shard, &applied, s->metrics + s->metrics_rows * s->n_metrics));
        if (applied)
            LH_TRY(lh_server_tables_advance(&s->tables));
        if (applied) {
            s->member.phases.optimise += lh_now() - began;
            if (s->flight)
                LH_TRY(step_is_in(s, &step));
            LH_TRY(new_version(s));
        }
    }
    return 0;
}

static int take_push(struct lh_server *s, const struct lh_net_message *msg)
{
    const struct lh_envelope *env = &msg->env;
    size_t bytes, metrics_bytes;
    const void *data = lh_net_frame(msg, 0, &bytes);
    const void *metrics = lh_net_frame(msg, 1, &metrics_bytes);
    const size_t width = s->job->gradient == LH_GRADIENT_BF16 ? sizeof(uint16_t) : sizeof(float);
    if (env->count > SIZE_MAX / width || bytes != env->count * width)
        return lh_err_set(LH_EPROTO, "a push of %llu elements in %zu bytes",
                          (unsigned long long)env->count, bytes);
    if (metrics && metrics_bytes != s->n_metrics * sizeof(float))
        return lh_err_set(LH_EPROTO, "a push with %zu bytes of metrics: expected %zu",
                          metrics_bytes, s->n_metrics * sizeof(float));
    /* what may not have begun would enter a cut that it is not of */
    if (s->flight &&
        (env->step >= s->clock.until || lh_flight_low(s->flight) < needed_for(s, env->step)))
        return lh_err_set(LH_EPROTO, "a push for step %llu, which nobody was given",
                          (unsigned long long)env->step);
    double began = s->pushed = lh_now();
    uint64_t version = lh_shard_version(s->shard);
    int rc = lh_shard_push(s->shard, env->step,
                           (struct lh_tree_node){.level = env->level, .index = env->index},
                           env->first, data, env->count, metrics);
    s->member.phases.reduce += lh_now() - began;
    if (rc >= 0) {
        if (!s->flight)
            lh_metrics_observe(s->counts, LH_METRIC_STALENESS, (double)(version - env->step));
        lh_metrics_add(s->counts, rc == 0 ? LH_METRIC_PUSHES : LH_METRIC_PUSHES_IGNORED, 1);
    }
    if (rc == 0)
        rc = advance(s);
    return rc < 0 ? rc : 0;
}

static int take_table_push(struct lh_server *s, const struct lh_net_message *msg)
{
    double began = lh_now();
    int rc = lh_server_tables_push(&s->tables, msg);
    s->member.phases.reduce += lh_now() - began;
    if (rc == 0)
        rc = advance(s);
    return rc < 0 ? rc : 0;
}

static int take_table_pull(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch != s->member.plan->generation)
        return 0; /* as of take_pull */
    double began = lh_now();
    int rc = lh_server_tables_pull(&s->tables, s->socket, msg, lh_shard_version(s->shard));
    s->member.phases.reply += lh_now() - began;
    return rc;
}

static int say(struct lh_server *s, const struct lh_net_peer *to, const struct lh_envelope *env)
{
    int rc = lh_net_send(s->socket, to, env, NULL, 0);
    return rc < 0 ? rc : 0; /* a peer that is gone or stuck does without */
}

/* An idle worker gets part of what is late of a step that all share. Those who have not finished it
 * are told, so that who is slow leaves that part out, and sends what it has of the rest. */
static int give_late_leaves(struct lh_server *s, const struct lh_net_message *msg, double late)
{
    const uint64_t version = lh_shard_version(s->shard);
    struct lh_tree_node node;
    struct lh_takeover_ask ask = {
        .step = version, .tree = lh_shard_reduce(s->shard), .now = lh_now(), .late = late};
    ask.partly = ask.now - s->pushed > late;
    if (msg->env.step != version || version >= s->limit ||
        !lh_takeover_give(s->takeover, &ask, &node))
        return 0;
    struct lh_envelope env = {.kind = LH__KIND__KIND_LATE,
                              .job = s->member.job,
                              .node = s->member.node,
                              .request = msg->env.request,
                              .step = version,
                              .level = node.level,
                              .index = node.index};
    LH_TRY(say(s, &msg->peer, &env));
    lh_metrics_add(s->counts, LH_METRIC_TAKEN_OVER, 1);
    s->member.phases.taken_over++;
    env.kind = LH__KIND__KIND_GIVEN;
    for (size_t i = 0; i < s->n_waiting; i++)
        if (!s->waiting[i].evaluation && s->waiting[i].node != msg->env.node)
            LH_TRY(say(s, &s->waiting[i].peer, &env));
    return 0;
}

static int give_late_step(struct lh_server *s, const struct lh_net_message *msg, double late)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_LATE,
                              .job = s->member.job,
                              .node = s->member.node,
                              .request = msg->env.request,
                              .level = lh_tree_height(s->model.leaves)};
    /* With bound 0 all wait for one, which alone has the weights of its version of all shards. But
     * what a dead worker asked for may have come after the word that it died. */
    bool alone = s->job->consistency == LH_SSP && s->job->staleness_bound == 0;
    if (alone || !s->job->takeover)
        late = s->member.deadline;
    const struct lh_flight_asker who = {msg->env.node, msg->env.request, msg->peer};
    env.step = lh_flight_late(s->flight, &who, late, lh_now());
    return env.step == LH_FLIGHT_NONE ? 0 : say(s, &msg->peer, &env);
}

/* A worker has nothing to do: it may have what is late. */
static int take_idle(struct lh_server *s, const struct lh_net_message *msg)
{
    const double usual = 1e-6 * (double)msg->env.count;
    if (msg->env.epoch != s->member.plan->generation)
        return 0;
    if (s->flight)
        return give_late_step(s, msg, LATE_STEP * usual);
    return s->takeover ? give_late_leaves(s, msg, LATE_LEAF * usual) : 0;
}

/* --- messages ----------------------------------------------------------------------------------
 */
static int take_data(struct lh_server *s, const struct lh_net_message *msg)
{
    int rc;
    switch (msg->env.kind) {
    case LH__KIND__KIND_PUSH:
        rc = take_push(s, msg);
        break;
    case LH__KIND__KIND_PULL:
    case LH__KIND__KIND_TAKE:
        rc = take_pull(s, msg);
        break;
    case LH__KIND__KIND_TABLE_PUSH:
        rc = take_table_push(s, msg);
        break;
    case LH__KIND__KIND_TABLE_PULL:
        rc = take_table_pull(s, msg);
        break;
    case LH__KIND__KIND_IDLE:
        rc = take_idle(s, msg);
        break;
    case LH__KIND__KIND_FETCHED:
        rc = take_fetched(s, msg);
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
        s->limit = lh_shard_version(s->shard);
        LH_TRY(flush_metrics(s));
        /* steps that workers have are to come in; no other is given */
        return lh_member_tell(&s->member, LH__KIND__KIND_PAUSED,
                              s->flight ? lh_flight_high(s->flight) : s->limit);
    case LH__KIND__KIND_UNTIL:
        s->limit = s->clock.until = msg->env.step;
        return advance(s);
    case LH__KIND__KIND_COMMIT:
        return take_commit(s, msg);
    case LH__KIND__KIND_VOID:
        return lh_writer_drop(s->writer, msg->env.step);
    case LH__KIND__KIND_LOST:
        if (s->flight)
            lh_flight_lose(s->flight, msg->env.index);
        return s->flight ? answer_waiting(s) : 0;
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

static int report_cuts(struct lh_server *s)
{
    struct lh_writer_done done;
    while (lh_writer_poll(s->writer, &done)) {
        if (done.err.code < 0) {
            LH_TRY(cut_failed(s, &done));
            continue;
        }
        if (done.kind != LH_WRITER_PREPARE)
            continue;
        lh_metrics_observe(s->counts, LH_METRIC_WRITE_TIME, done.seconds);
        lh_log_event(LH_LOG_DEBUG, "written",
                     LH_FIELDS(LH_F("step", done.version), LH_F("seconds", done.seconds)));
        lh_metrics_add(s->counts, LH_METRIC_CHECKPOINTS, 1);
        lh_metrics_set(s->counts, LH_METRIC_CHECKPOINT_AGE, lh_now());
        LH_TRY(lh_member_tell(&s->member, LH__KIND__KIND_PREPARED, done.version));
    }
    return 0;
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
    LH_TRY(report_cuts(s));
    if (cut_is_due(s))
        LH_TRY(start_cut(s));
    if (s->metrics_rows > 0 &&
        (s->metrics_rows == METRICS_ROWS || lh_shard_version(s->shard) >= s->limit ||
         lh_now() - s->began - s->metrics_at[0] > METRICS_EVERY))
        LH_TRY(flush_metrics(s));
    LH_TRY(advance(s)); /* what was held may go on */
    lh_loans_call_in(s->loans);
    if (s->withheld)
        LH_TRY(answer_waiting(s));
    if (s->tables.withheld)
        LH_TRY(lh_server_tables_answer(&s->tables, s->socket, lh_shard_version(s->shard)));
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
    if (lh_writer_busy(s->writer))
        return BUSY_POLL;
    if (s->metrics_rows > 0 || s->withheld || s->failed || s->tables.withheld)
        return METRICS_EVERY / 2;
    return s->member.heartbeat / 4;
}

/* --- life --------------------------------------------------------------------------------------
 */
static void release(struct lh_server *s)
{
    lh_writer_stop(&s->writer);
    lh_net_close(&s->socket);
    lh_loans_destroy(&s->loans);
    lh_takeover_destroy(&s->takeover);
    lh_shard_destroy(&s->shard);
    lh_server_tables_close(&s->tables);
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
    lh_writer_finish(s->writer); /* what is queued becomes durable, and is told, first */
    int reported = s->writer ? report_cuts(s) : 0;
    if (saved.code < 0 || reported >= 0)
        rc = lh_err_load(&saved);
    else
        rc = reported;
    if (s->writer)
        count(s);
    lh_writer_stop(&s->writer);
    rc = lh_member_leave(&s->member, rc, s->stopped);
    lh_err_save(&saved, rc);
    if (keep) {
        *keep = s->socket;
        s->socket = NULL;
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
