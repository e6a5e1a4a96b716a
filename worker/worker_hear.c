/* What servers say: versions of the weights, steps, what is late; and waiting for that. */
#include "common/err.h"
#include "common/log.h"
#include "common/term.h"
#include "worker/worker_internal.h"

#include <sched.h>

/* Times what its own work on a step usually takes: a wait this long is said; likewise while others
 * are late. */
#define IDLE  0.5
#define EAGER 0.125

/* Nothing is lost but by a connection that breaks, which is mostly noticed: asking again without
 * that is for what is not. Who answers may only be slow, so it is done ever less often, up to a
 * bound: what is lost after all is made good within that. */
#define PATIENCE      2.0 /* seconds, at least */
#define PATIENCE_MOST 8.0 /* times what it is at first */

static int take_from_shard(struct lh_worker *w, size_t i, struct lh_net_message *msg)
{
    const struct lh_tree_node node = {.level = msg->env.level, .index = msg->env.index};
    switch (msg->env.kind) {
    case LH__KIND__KIND_LATE: /* only who still waits has nothing better to do */
        if (!w->pull.complete && msg->env.request == w->pull.request &&
            lh_tree_has(w->model.leaves, node) &&
            (lh_worker_has_own_steps(w) || msg->env.step == w->version)) {
            w->late = msg->env.step;
            w->late_node = node;
        }
        return 0;
    case LH__KIND__KIND_GIVEN:
        if (!lh_worker_has_own_steps(w) && msg->env.step == w->version &&
            w->n_given < LH_WORKER_NODES && lh_tree_has(w->model.leaves, node))
            w->given[w->n_given++] = node;
        return 0;
    case LH__KIND__KIND_IN:
        w->dropped = w->dropped || (lh_worker_has_own_steps(w) && msg->env.step == w->version);
        return 0;
    default:
        break;
    }
    int rc = w->tables ? lh_worker_tables_take(w->tables, i, msg) : LH_NOTFOUND;
    return rc == LH_NOTFOUND ? lh_pull_take(&w->pull, i, msg) : rc;
}

/* Takes in what has come from the servers. */
int lh_worker_hear_drain(struct lh_worker *w, bool *any)
{
    for (size_t i = 0; i < w->pull.n_shards; i++) {
        struct lh_net_message msg;
        int rc;
        while ((rc = lh_net_recv(w->pull.shards[i].socket, &msg)) == 0) {
            double began = lh_now();
            *any = true;
            rc = take_from_shard(w, i, &msg);
            if (rc == LH_EPROTO) {
                lh_net_reject(w->pull.shards[i].socket, &msg);
                rc = 0;
            }
            lh_net_message_fini(&msg);
            w->member.phases.reply += lh_now() - began;
            LH_TRY(rc);
        }
        LH_TRY(rc < 0 ? rc : 0);
    }
    return 0;
}

/* Between two blocks: also what the servers say, since another may have done what this one does. */
int lh_worker_hear_between(struct lh_worker *w)
{
    bool any = false;
    LH_TRY(lh_worker_look_up(w));
    LH_TRY(lh_worker_hear_drain(w, &any));
    if (!lh_worker_has_own_steps(w))
        w->dropped = w->pull.complete; /* all shards have the next version */
    return 0;
}

int lh_worker_hear_ask(struct lh_worker *w, uint64_t version)
{
    w->pull.held = &w->held[w->at ^ 1];
    return lh_worker_has_own_steps(w) ? lh_pull_begin_step(&w->pull, version)
                                      : lh_pull_begin(&w->pull, version);
}

double lh_worker_hear_patience(const struct lh_worker *w)
{
    return PATIENCE > w->member.deadline / 2 ? PATIENCE : w->member.deadline / 2;
}

static double more_patience(const struct lh_worker *w)
{
    const double more = 2 * w->patience, most = PATIENCE_MOST * lh_worker_hear_patience(w);
    return more < most ? more : most;
}

/* A connection that broke may have lost pushes, or the answer: do the step again. */
static int ask_again(struct lh_worker *w)
{
    if (!lh_pull_broke(&w->pull))
        w->patience = more_patience(w);
    lh_metrics_add(w->metrics, LH_METRIC_PULL_RETRIES, 1);
    lh_log_event(LH_LOG_WARN, "retry",
                 LH_FIELDS(LH_F("version", w->pull.version), LH_F("patience", w->patience)));
    w->n_pushed = w->n_given = 0;
    w->reassigned = !lh_worker_has_own_steps(w);
    return lh_worker_hear_ask(w, w->pull.version);
}

/* Whether it may be given what is late, if it waits for long. */
static bool may_help(const struct lh_worker *w)
{
    return w->usual > 0 &&
           (lh_worker_has_own_steps(w) || (w->job->takeover && w->version < w->until));
}

/* Nothing came for long: whoever has what is late may be helped. */
static int say_idle(struct lh_worker *w)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_IDLE,
                              .job = w->member.job,
                              .node = w->member.node,
                              .step = w->version,
                              .first = (uint64_t)(1e6 * w->pace),
                              .count = (uint64_t)(1e6 * w->usual),
                              .request = w->pull.request,
                              .epoch = w->pull.generation};
    w->idle_since = lh_now();
    w->idle_gap = w->idle_gap > 0 ? 2 * w->idle_gap : EAGER * w->usual;
    /* one gives what is late of a step that all share; of a step of its own each shard may lack
     * some */
    const bool each = lh_worker_has_own_steps(w) && w->pull.version != LH_WIRE_LATEST;
    for (size_t i = 0; i < w->pull.n_shards; i++) {
        if (w->pull.shards[i].done)
            continue;
        int rc = lh_net_send(w->pull.shards[i].socket, NULL, &env, NULL, 0);
        LH_TRY(rc < 0 ? rc : 0);
        if (!each)
            break;
    }
    return 0;
}

/* In sync all have about as much to do, and who is sooner ready than usual waits for that first;
 * who has helped, in this step or the last, asks for more at once. */
static double begin_to_wait(struct lh_worker *w)
{
    const double now = lh_now();
    const bool at_once = w->helps || w->eager;
    w->idle_gap = at_once ? 0 : IDLE * w->usual;
    w->idle_since = now;
    if (!lh_worker_has_own_steps(w) && !at_once && w->stepped + w->usual > now)
        w->idle_since = w->stepped + w->usual;
    return now;
}

/* When it says so next. The first shard is asked as soon as is worth it. Where that has answered
 * the others are about to, unless somebody has stopped between two pushes. */
static double idle_until(const struct lh_worker *w)
{
    const double at = w->idle_since + w->idle_gap, others = w->pull.asked + IDLE * w->usual;
    const bool first = lh_worker_has_own_steps(w) || !w->pull.shards[0].done;
    return first || at > others ? at : others;
}

/* Until it is time to look up, or to say that it is idle. */
static double time_to_wait(const struct lh_worker *w)
{
    const double most = w->member.heartbeat / 4, idle = idle_until(w) - lh_now();
    return may_help(w) && idle < most ? idle : most;
}

int lh_worker_hear_block(const struct lh_worker *w, double quiet_since, double most)
{
    const struct lh_companion *c = w->opt->companion;
    if (c && lh_now() - quiet_since < c->spin) {
        sched_yield(); /* who is waited for may have been put on this core */
        return 0;
    }
    return lh_companion_poll(c, w->polls, w->pull.n_shards + 1, most > 0 ? most : 0);
}

/* Returns when the version asked for is whole, the share changed, something late is to be taken
 * over, or it is over. */
static int await(struct lh_worker *w)
{
    double quiet_since = begin_to_wait(w);
    while (!w->pull.complete && !w->reassigned && w->late == LH_WIRE_LATEST &&
           !lh_worker_is_over(w)) {
        bool any = lh_worker_turn(w);
        LH_TRY(lh_worker_hear_drain(w, &any));
        if (lh_worker_has_own_steps(w))
            LH_TRY(lh_worker_compute_ask_rows(w));
        if (any) {
            quiet_since = lh_now();
            continue;
        }
        LH_TRY(lh_worker_hear_block(w, quiet_since, time_to_wait(w)));
        LH_TRY(lh_worker_look_up(w));
        double now = lh_now();
        if (may_help(w) && now > idle_until(w))
            LH_TRY(say_idle(w));
        if (!w->pull.complete && w->version < w->until && w->count > 0 &&
            (lh_pull_broke(&w->pull) || now - w->pull.asked > w->patience))
            LH_TRY(ask_again(w));
    }
    return 0;
}

int lh_worker_hear_version(struct lh_worker *w)
{
    Lh__Phases *ph = &w->member.phases;
    double began = lh_now(), aside = ph->reply + w->turns;
    int rc = await(w);
    ph->wait += lh_now() - began - (ph->reply + w->turns - aside);
    return rc;
}
