/* The worker's life: it joins, pulls a version, computes the share of the tree that the assignment
 * gives, or a step of its own, and asks for the next. When the assignment changes in the middle,
 * what is missing is computed; servers ignore what they have. */
#include "worker/worker.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"
#include "worker/worker_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- starting -------------------------------------------------------------------------------
 */
static int open_dataset(struct lh_worker *w)
{
    LH_TRY(lh_dataset_open(&w->dataset, w->opt->dataset ? w->opt->dataset : w->job->dataset));
    const struct lh_dataset_info *info = lh_dataset_info(w->dataset);
    return lh_job_resolve(w->job, &info->dims, info->digest);
}

static void read_slow(struct lh_worker_slow *s)
{
    const char *text = getenv("LONGHAUL_TEST_SLOW");
    if (text && sscanf(text, "%u:%lf", &s->index, &s->factor) != 2)
        s->factor = 0;
}

static int start(struct lh_worker *w)
{
    read_slow(&w->slow);
    const Lh__Plan *plan = w->member.plan;
    LH_TRY(lh_job_load_text(&w->job, plan->job, strlen(plan->job), "job", NULL));
    lh_log_adopt(w->job->log_format, w->job->log_level);
    LH_TRY(lh_member_agree(&w->member, lh_job_digest(w->job), w->job->heartbeat_seconds,
                           w->job->deadline_seconds));
    LH_TRY(lh_metrics_join(w->opt->metrics,
                           &(struct lh_metrics_who){.role = LH_METRICS_WORKER, .node = plan->node},
                           &w->metrics));
    if (!w->opt->given)
        LH_TRY(open_dataset(w));
    LH_TRY(lh_model_init(&w->model, w->job, plan->shards));
    if (plan->n_servers != w->model.layout.n_shards || plan->n_server_keys != plan->n_servers)
        return lh_err_set(LH_EPROTO, "worker: the plan names %zu servers for %zu shards",
                          plan->n_servers, w->model.layout.n_shards);
    size_t shards = w->model.layout.n_shards;
    for (int i = 0; i < 2; i++)
        LH_TRY(lh_held_init(&w->held[i], &w->model.layout));
    LH_TRY(lh_exec_create(&w->exec, w->model.graph));
    LH_TRY(w->opt->given
               ? lh_feed_init_given(&w->feed, w->opt->given, w->job, w->model.block, w->exec)
               : lh_feed_init(&w->feed, w->dataset, w->job, w->model.block, w->exec));
    if (w->dataset)
        LH_TRY(lh_worker_tables_create(&w->tables, w->job, &w->model, w->exec, w->dataset));
    if (w->tables)
        LH_TRY(lh_feed_look_up(&w->feed, &w->tables->lookup));
    LH_TRY(lh_gradient_init(&w->gradient, &w->model.layout, w->model.n_metrics, w->model.leaves));
    if (w->job->gradient == LH_GRADIENT_BF16)
        lh_gradient_round(&w->gradient);
    LH_TRY(LH_NEW_ARRAY(&w->unsent, w->gradient.n_pieces, "pieces of a push"));
    /* A few subtrees and pulls may be under way to each server. */
    LH_TRY(lh_pull_open(&w->pull,
                        &(struct lh_pull_spec){.zmq = w->zmq,
                                               .layout = &w->model.layout,
                                               .endpoints = plan->servers,
                                               .keys = plan->server_keys,
                                               .security = w->opt->security,
                                               .job = plan->job_digest,
                                               .node = plan->node,
                                               .generation = plan->generation,
                                               .queue = (int)(4 * w->gradient.n_pieces) + 64}));
    LH_TRY(LH_NEW_ARRAY(&w->polls, shards + 1, "sockets"));
    for (size_t i = 0; i < shards; i++)
        w->polls[i].socket = w->pull.shards[i].socket;
    w->polls[shards].socket = w->member.socket;
    w->until = plan->until;
    return lh_member_tell(&w->member, LH__KIND__KIND_READY, plan->start);
}

/* --- orders ---------------------------------------------------------------------------------
 */
static void take_assignment(struct lh_worker *w, const struct lh_envelope *env)
{
    if (env->epoch <= w->epoch || env->count == 0 || env->index >= env->count ||
        env->count > UINT32_MAX)
        return; /* an older one, or nonsense */
    w->epoch = env->epoch;
    w->index = env->index;
    w->count = (uint32_t)env->count;
    w->n_given = 0; /* who had them may be the one that is gone */
    w->reassigned = true;
}

static int drain_orders(struct lh_worker *w)
{
    struct lh_net_message msg;
    int rc = 0;
    while (!w->stopped && (rc = lh_member_recv(&w->member, &msg)) == 0) {
        if (msg.env.kind == LH__KIND__KIND_ASSIGN) {
            take_assignment(w, &msg.env);
        } else if (msg.env.kind == LH__KIND__KIND_STOP) {
            w->stopped = true;
            w->reason = lh_member_stop_reason(&msg);
        } else if (msg.env.kind == LH__KIND__KIND_AGAIN) {
            w->stopped = w->again = true;
        }
        lh_net_message_fini(&msg);
    }
    return rc < 0 ? rc : 0;
}

bool lh_worker_turn(struct lh_worker *w)
{
    const struct lh_companion *c = w->opt->companion;
    double began = lh_now();
    bool any = c && c->turn(c->ctx);
    if (any)
        w->turns += lh_now() - began;
    return any;
}

static void show_phases(struct lh_worker *w)
{
    const Lh__Phases *p = &w->member.phases;
    const double at[] = {
        [LH_PHASE_GATHER] = p->gather,     [LH_PHASE_FORWARD] = p->compute - p->backward,
        [LH_PHASE_BACKWARD] = p->backward, [LH_PHASE_REDUCE] = p->reduce,
        [LH_PHASE_PUSH] = p->push,         [LH_PHASE_TAKE] = p->reply,
        [LH_PHASE_WAIT] = p->wait};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        lh_metrics_set_at(w->metrics, LH_METRIC_PHASE, i, at[i]);
}

/* What it has counted so far: for the next beat, and for whoever reads its metrics. */
static void count(struct lh_worker *w)
{
    struct lh_net_counts counts = {0};
    for (size_t i = 0; i < w->pull.n_shards; i++)
        lh_net_counts_add(&counts, w->pull.shards[i].socket);
    w->member.phases.dropped = counts.dropped;
    w->member.phases.bytes_in = counts.bytes_in;
    w->member.phases.bytes_out = counts.bytes_out;
    w->member.phases.reduce = w->gradient.reducing;
    if (!w->metrics)
        return;
    show_phases(w);
    lh_metrics_set_net(w->metrics, &counts);
    lh_metrics_set(w->metrics, LH_METRIC_VERSION, (double)w->version);
    lh_metrics_set(w->metrics, LH_METRIC_STEPS, (double)w->member.phases.steps);
    lh_metrics_set(w->metrics, LH_METRIC_TRANSITIONS, (double)w->member.phases.rows);
    lh_metrics_set(w->metrics, LH_METRIC_PUSH_QUEUE, (double)w->n_unsent);
}

/* What must not wait for the end of a share: orders, the beat, an interrupt, the companion. */
int lh_worker_look_up(struct lh_worker *w)
{
    lh_worker_turn(w);
    LH_TRY(drain_orders(w));
    if (w->opt->interrupted && w->opt->interrupted())
        w->left = true;
    count(w);
    return lh_member_tick(&w->member);
}

/* --- working --------------------------------------------------------------------------------
 */
static int take_version(struct lh_worker *w)
{
    double now = lh_now();
    if (w->stepped > 0)
        lh_metrics_observe(w->metrics, LH_METRIC_STEP_TIME, now - w->stepped);
    if (w->stepped > 0 && !w->shares && !lh_worker_has_own_steps(w))
        lh_worker_compute_note(w, now - w->stepped);
    w->stepped = now;
    w->at ^= 1;
    lh_exec_place(w->exec, w->held[w->at].at[0], w->held[w->at].at[1]);
    w->version = w->member.version = w->pull.version;
    w->claim = w->pull.request;
    w->member.phases.steps++;
    w->n_pushed = w->n_given = 0;
    w->eager = w->helps;
    w->helps = w->tried = false;
    w->late = LH_WIRE_LATEST;
    w->patience = lh_worker_hear_patience(w);
    w->dropped = false;
    return lh_worker_has_own_steps(w) ? 0 : lh_worker_hear_ask(w, w->version + 1);
}

/* Each step is one worker's own: take one, compute it, push it, take another. */
static int work_on_own(struct lh_worker *w)
{
    while (w->count == 0 && !lh_worker_is_over(w)) {
        LH_TRY(lh_companion_poll(w->opt->companion, &w->polls[w->pull.n_shards], 1,
                                 w->member.heartbeat / 4));
        LH_TRY(lh_worker_look_up(w));
    }
    w->patience = w->member.deadline;
    w->pull.complete = true;
    while (!lh_worker_is_over(w)) {
        if (w->pull.complete || w->late != LH_WIRE_LATEST)
            LH_TRY(lh_worker_hear_ask(w, w->late));
        w->late = LH_WIRE_LATEST;
        w->reassigned = false; /* shares are nothing here */
        LH_TRY(lh_worker_hear_version(w));
        if (!w->pull.complete || lh_worker_is_over(w))
            continue;
        LH_TRY(take_version(w));
        LH_TRY(lh_worker_compute_step(w));
        w->pull.asked = lh_now();
    }
    return w->stopped ? w->reason : 0;
}

/* Part of another's share of the version at hand. */
static int take_over(struct lh_worker *w)
{
    w->late = LH_WIRE_LATEST;
    w->helps = true;
    w->n_given = 0; /* it may be what was another's before */
    w->pull.asked = lh_now();
    return lh_worker_compute_late(w, w->late_node);
}

static int work_together(struct lh_worker *w)
{
    bool have = false;
    w->patience = w->member.deadline;
    LH_TRY(lh_worker_hear_ask(w, LH_WIRE_LATEST));
    while (!lh_worker_is_over(w)) {
        LH_TRY(lh_worker_hear_version(w));
        if (w->pull.complete) {
            LH_TRY(take_version(w));
            have = w->reassigned = true;
        }
        if (w->late != LH_WIRE_LATEST)
            LH_TRY(take_over(w));
        if (have && w->count > 0 && w->version < w->until && w->reassigned && !lh_worker_is_over(w))
            LH_TRY(lh_worker_compute_share(w));
        w->reassigned = false;
    }
    return w->stopped ? w->reason : 0;
}

/* --- life -----------------------------------------------------------------------------------
 */
/* From hello to the end, or to the next hello (*again). */
static int take_part(void *zmq, const struct lh_worker_options *opt, bool *again)
{
    struct lh_worker w = {.opt = opt, .zmq = zmq, .late = LH_WIRE_LATEST};
    *again = false;
    Lh__Hello hello = LH__HELLO__INIT;
    hello.role = LH__ROLE__ROLE_WORKER;
    hello.metrics = (char *)(uintptr_t)lh_metrics_endpoint(opt->metrics);
    LH_TRY(lh_member_join(&w.member,
                          &(struct lh_member_spec){.zmq = zmq,
                                                   .scheduler = opt->scheduler,
                                                   .role = "worker",
                                                   .patience = opt->patience,
                                                   .interrupted = opt->interrupted,
                                                   .companion = opt->companion,
                                                   .security = opt->security},
                          &hello));
    int rc = start(&w);
    if (rc >= 0)
        rc = lh_worker_has_own_steps(&w) ? work_on_own(&w) : work_together(&w);
    *again = !w.left && lh_member_returns(&w.member, rc, w.again, opt->rejoin);
    rc = *again ? 0 : rc;
    count(&w);
    rc = lh_member_leave(&w.member, rc, w.stopped);
    if (opt->told)
        *opt->told = w.member.told;
    if (*again)
        lh_metrics_leave(opt->metrics, &w.metrics); /* it counts anew */
    struct lh_err saved;
    lh_err_save(&saved, rc);
    lh_pull_close(&w.pull);
    lh_gradient_fini(&w.gradient);
    lh_worker_tables_destroy(&w.tables);
    lh_feed_fini(&w.feed);
    lh_exec_destroy(&w.exec);
    lh_model_fini(&w.model);
    lh_dataset_close(&w.dataset);
    lh_job_destroy(&w.job);
    for (int i = 0; i < 2; i++)
        lh_held_fini(&w.held[i]);
    lh_mem_free(w.unsent);
    lh_mem_free(w.polls);
    return rc < 0 ? lh_err_load(&saved) : 0;
}

int lh_worker_run(void *zmq, const struct lh_worker_options *opt)
{
    bool again;
    int rc;
    do {
        rc = take_part(zmq, opt, &again);
    } while (again && rc >= 0);
    return rc;
}
