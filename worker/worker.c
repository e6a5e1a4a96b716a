/* The worker's loop: pull a version, compute the share of the tree that the assignment gives, push
 * each subtree's sum in pieces while backward still runs, ask for the next version. When the
 * assignment changes in the middle, what is missing is computed; servers ignore what they have. */
#include "worker/worker.h"

#include "common/dataset.h"
#include "common/err.h"
#include "common/job.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/member.h"
#include "common/metrics.h"
#include "common/pull.h"
#include "common/term.h"
#include "worker/feed.h"
#include "worker/gradient.h"
#include "worker/model.h"
#include "worker/worker_tables.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX  64
#define PATIENCE   2.0   /* seconds; a message was lost only if a connection broke */
#define FULL_POLL  0.001 /* while a queue is full or all buffers are lent */
#define SLOW_LEAST 0.0001
/* Times what its own work on a step usually takes: a wait this long is said; likewise while others
 * are late. */
#define IDLE  0.5
#define EAGER 0.125

/* For tests: LONGHAUL_TEST_SLOW=INDEX:FACTOR slows the worker with that index of the assignment, as
 * if its processor were so many times slower. */
struct slow {
    uint32_t index;
    double factor; /* 0: nobody */
    double owed;   /* seconds that it is to wait, of blocks that are computed */
};

struct worker {
    const struct lh_worker_options *opt;
    void *zmq;
    struct lh_member member;
    struct lh_metrics_role *metrics; /* NULL: off */
    struct lh_job *job;
    struct lh_dataset *dataset;
    struct lh_model model;
    struct lh_exec *exec;
    struct lh_feed feed;
    struct lh_gradient gradient;
    struct lh_pull pull;
    struct lh_worker_tables *tables; /* NULL: the job has none */
    struct lh_net_poll *polls;       /* [n_shards + 1], the last is the scheduler's */
    /* Version `version` is in [at]; the next one arrives in the other, since the share of this one
     * may have to be computed again when another worker dies. */
    struct lh_held held[2];
    int at;
    uint64_t version, until;
    uint64_t claim; /* on a step of its own: the request by which it was given */
    /* the assignment */
    uint32_t epoch, index, count; /* count 0: none yet */
    /* subtrees of this version that were pushed */
    struct lh_tree_node pushed[NODES_MAX];
    size_t n_pushed;
    /* the subtree under way */
    struct lh_tree_node node;
    struct lh_gradient_piece **unsent; /* [n_pieces] that met a full queue */
    size_t n_unsent;
    int push_rc;
    bool reassigned; /* the assignment changed since the share was last looked at */
    double turns;    /* seconds that the companion worked */
    double patience; /* seconds until a pull is repeated; doubles */
    double stepped;  /* when the version at hand was taken */
    /* waiting: what its own work on a step takes, from weights to pushed; since when it waits, or
     * has said so last; the step that it was given because it does */
    double usual, idle_since;
    double pace;     /* what a leaf takes it */
    double idle_gap; /* seconds until it says so once more; doubles */
    uint64_t late;   /* LH_WIRE_LATEST: none; in sync its node, and */
    struct lh_tree_node late_node;
    bool shares; /* it had a share of the last step */
    bool tried;  /* it has begun its share of this version before */
    bool helps;  /* it has computed such a node of this version */
    bool eager;  /* it had of the one before */
    /* subtrees of this version that idle workers have taken over */
    struct lh_tree_node given[NODES_MAX];
    size_t n_given;
    bool dropped; /* the step at hand is in, by another's hand */
    struct slow slow;
    bool stopped, left, again; /* again: the run goes back, say hello again */
    int reason;
};

/* --- starting ----------------------------------------------------------------------------------
 */
static int open_dataset(struct worker *w)
{
    LH_TRY(lh_dataset_open(&w->dataset, w->opt->dataset ? w->opt->dataset : w->job->dataset));
    const struct lh_dataset_info *info = lh_dataset_info(w->dataset);
    return lh_job_resolve(w->job, &info->dims, info->digest);
}

static void read_slow(struct slow *s)
{
    const char *text = getenv("LONGHAUL_TEST_SLOW");
    if (text && sscanf(text, "%u:%lf", &s->index, &s->factor) != 2)
        s->factor = 0;
}

static int start(struct worker *w)
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

/* --- orders ------------------------------------------------------------------------------------
 */
static void take_assignment(struct worker *w, const struct lh_envelope *env)
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

static int drain_orders(struct worker *w)
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

static bool give_turn(struct worker *w)
{
    const struct lh_companion *c = w->opt->companion;
    double began = lh_now();
    bool any = c && c->turn(c->ctx);
    if (any)
        w->turns += lh_now() - began;
    return any;
}

static void show_phases(struct worker *w)
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
static void count(struct worker *w)
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
static int look_up(struct worker *w)
{
    give_turn(w);
    LH_TRY(drain_orders(w));
    if (w->opt->interrupted && w->opt->interrupted())
        w->left = true;
    count(w);
    return lh_member_tick(&w->member);
}

static bool is_over(const struct worker *w)
{
    return w->stopped || w->left;
}

/* Whether what is left of the step at hand need not be computed. */
static bool is_off(const struct worker *w)
{
    return is_over(w) || w->dropped;
}

static bool has_own_steps(const struct worker *w)
{
    return w->job->consistency != LH_SYNC;
}

/* Lets the network work for a moment; takes in nothing but orders. */
static int breathe(struct worker *w)
{
    double began = lh_now();
    LH_TRY(lh_companion_poll(w->opt->companion, &w->polls[w->pull.n_shards], 1, FULL_POLL));
    w->member.phases.push += lh_now() - began;
    return look_up(w);
}

/* --- pushing -----------------------------------------------------------------------------------
 */
static int send_piece(struct worker *w, const struct lh_gradient_piece *p)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_PUSH,
                              .job = w->member.job,
                              .node = w->member.node,
                              .step = w->version,
                              .level = w->node.level,
                              .index = w->node.index,
                              .first = p->first,
                              .count = p->hi - p->lo,
                              .request = has_own_steps(w) ? w->claim : (uint64_t)(1e6 * w->pace),
                              .epoch = w->pull.generation};
    void *token = lh_gradient_lend(&w->gradient);
    size_t bytes;
    const void *sum = lh_gradient_wire(&w->gradient, p, &bytes);
    struct lh_net_part parts[] = {
        {.data = sum, .size = bytes, .release = lh_gradient_release, .hint = token},
        {.data = lh_gradient_metrics(&w->gradient), .size = w->model.n_metrics * sizeof(float)}};
    bool metrics = p->shard == 0 && p->first == 0;
    int rc = lh_net_send(w->pull.shards[p->shard].socket, NULL, &env, parts, metrics ? 2 : 1);
    if (rc == LH_AGAIN)
        lh_gradient_release(NULL, token);
    return rc == LH_NOTFOUND ? 0 : rc; /* a broken connection: the pull will be repeated */
}

static void piece_is_ready(void *ctx, struct lh_gradient_piece *p)
{
    struct worker *w = ctx;
    double began = lh_now();
    int rc = w->push_rc < 0 ? LH_AGAIN : send_piece(w, p);
    if (rc == LH_AGAIN)
        w->unsent[w->n_unsent++] = p;
    else if (rc < 0)
        w->push_rc = rc;
    w->member.phases.push += lh_now() - began;
}

static void param_is_ready(void *ctx, size_t param)
{
    struct worker *w = ctx;
    lh_gradient_last_param(&w->gradient, param, piece_is_ready, w);
}

static int send_unsent(struct worker *w)
{
    LH_TRY(w->push_rc);
    while (w->n_unsent > 0 && !is_over(w)) {
        int rc = send_piece(w, w->unsent[w->n_unsent - 1]);
        LH_TRY(rc);
        if (rc == LH_AGAIN) {
            lh_metrics_add(w->metrics, LH_METRIC_PUSH_RETRIES, 1);
            LH_TRY(breathe(w));
        } else {
            w->n_unsent--;
        }
    }
    return 0;
}

/* --- hearing ------------------------------------------------------------------------------------
 */
static int take_from_shard(struct worker *w, size_t i, struct lh_net_message *msg)
{
    const struct lh_tree_node node = {.level = msg->env.level, .index = msg->env.index};
    switch (msg->env.kind) {
    case LH__KIND__KIND_LATE: /* only who still waits has nothing better to do */
        if (!w->pull.complete && msg->env.request == w->pull.request &&
            lh_tree_has(w->model.leaves, node) &&
            (has_own_steps(w) || msg->env.step == w->version)) {
            w->late = msg->env.step;
            w->late_node = node;
        }
        return 0;
    case LH__KIND__KIND_GIVEN:
        if (!has_own_steps(w) && msg->env.step == w->version && w->n_given < NODES_MAX &&
            lh_tree_has(w->model.leaves, node))
            w->given[w->n_given++] = node;
        return 0;
    case LH__KIND__KIND_IN:
        w->dropped = w->dropped || (has_own_steps(w) && msg->env.step == w->version);
        return 0;
    default:
        break;
    }
    int rc = w->tables ? lh_worker_tables_take(w->tables, i, msg) : LH_NOTFOUND;
    return rc == LH_NOTFOUND ? lh_pull_take(&w->pull, i, msg) : rc;
}

/* Takes in what has come from the servers. */
static int drain_shards(struct worker *w, bool *any)
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
static int look_up_and_hear(struct worker *w)
{
    bool any = false;
    LH_TRY(look_up(w));
    LH_TRY(drain_shards(w, &any));
    if (!has_own_steps(w))
        w->dropped = w->pull.complete; /* all shards have the next version */
    return 0;
}

/* Nothing came for long: whoever has what is late may be helped. */
static int say_idle(struct worker *w)
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
    const bool each = has_own_steps(w) && w->pull.version != LH_WIRE_LATEST;
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

static int push_tables(struct worker *w)
{
    const struct lh_envelope env = {.job = w->member.job,
                                    .node = w->member.node,
                                    .step = w->version,
                                    .level = w->node.level,
                                    .index = w->node.index,
                                    .epoch = w->pull.generation};
    int rc;
    LH_TRY(lh_worker_tables_end(w->tables));
    while ((rc = lh_worker_tables_push(w->tables, &w->pull, &env)) == LH_AGAIN && !is_over(w))
        LH_TRY(breathe(w));
    return rc < 0 ? rc : 0;
}

/* --- computing ---------------------------------------------------------------------------------
 */
static int acquire(struct worker *w)
{
    int rc;
    while ((rc = lh_gradient_acquire(&w->gradient)) == LH_AGAIN && !is_over(w))
        LH_TRY(breathe(w));
    return rc;
}

static int fill(struct worker *w, uint64_t step, uint32_t block)
{
    double began = lh_now();
    int rc = lh_feed_fill(&w->feed, step, block);
    w->member.phases.gather += lh_now() - began;
    return rc;
}

static int run_block(struct worker *w, uint32_t block, bool last)
{
    struct lh_rng_at at = {.seed = w->job->seed, .part = block, .step = w->version};
    Lh__Phases *ph = &w->member.phases;
    if (w->tables)
        LH_TRY(lh_worker_tables_fill(w->tables, w->version));
    double began = lh_now(), aside = ph->push + w->gradient.reducing;
    double backward = lh_exec_backward_seconds(w->exec);
    lh_exec_run(w->exec, NULL, NULL, lh_gradient_data(&w->gradient),
                lh_gradient_metrics(&w->gradient), &at, last ? param_is_ready : NULL, w);
    aside = ph->push + w->gradient.reducing - aside; /* what was sent meanwhile */
    ph->compute += lh_now() - began - aside;
    ph->backward += lh_exec_backward_seconds(w->exec) - backward - aside;
    size_t left = w->job->batch - (size_t)block * w->model.block;
    ph->rows += left < w->model.block ? left : w->model.block;
    return w->tables ? lh_worker_tables_block(w->tables) : 0;
}

/* The blocks of a leaf, numbered through the batch. */
static uint32_t first_block(const struct worker *w, uint64_t leaf)
{
    return (uint32_t)(leaf * (w->job->micro_batch / w->model.block));
}

static uint32_t end_block(const struct worker *w, uint64_t leaf)
{
    size_t blocks = (w->job->batch + w->model.block - 1) / w->model.block;
    uint32_t end = first_block(w, leaf + 1);
    return end < blocks ? end : (uint32_t)blocks;
}

/* For tests: the time that a slower processor would have taken more for the blocks before, spent
 * before the next, since a subtree's last pieces go out while a block runs. */
static int dawdle(struct worker *w)
{
    const double began = lh_now(), until = began + w->slow.owed, most = w->member.heartbeat / 4;
    double left;
    if (w->slow.owed < SLOW_LEAST || w->index != w->slow.index)
        return 0;
    while ((left = until - lh_now()) > 0 && !is_off(w)) {
        LH_TRY(lh_companion_poll(w->opt->companion, w->polls, w->pull.n_shards + 1,
                                 left < most ? left : most));
        LH_TRY(look_up_and_hear(w));
    }
    w->slow.owed = w->dropped ? 0 : w->slow.owed - (lh_now() - began);
    return 0;
}

/* Over the last few. */
static double mean_of_few(double mean, double x)
{
    return mean > 0 ? 0.75 * mean + 0.25 * x : x;
}

static int compute_leaf(struct worker *w, uint32_t leaf, bool last)
{
    const double began = lh_now();
    const uint32_t first = first_block(w, leaf), end = end_block(w, leaf);
    LH_TRY(acquire(w));
    if (w->tables)
        lh_worker_tables_leaf(w->tables);
    if (last)
        lh_gradient_last_begin(&w->gradient);
    for (uint32_t block = first; block < end && !is_off(w); block++) {
        LH_TRY(dawdle(w));
        if (is_off(w))
            break;
        const double block_began = lh_now();
        LH_TRY(fill(w, w->version, block));
        lh_exec_accumulate(w->exec, block > first);
        LH_TRY(run_block(w, block, last && block + 1 == end));
        w->slow.owed += w->slow.factor > 1 ? (w->slow.factor - 1) * (lh_now() - block_began) : 0;
        if (block + 1 < end)
            LH_TRY(look_up_and_hear(w));
    }
    if (is_off(w))
        return 0;
    w->pace = mean_of_few(w->pace, lh_now() - began);
    if (!last) {
        lh_gradient_join(&w->gradient, leaf);
        if (w->tables)
            LH_TRY(lh_worker_tables_join(w->tables, leaf));
        return look_up_and_hear(w);
    }
    lh_gradient_last_end(&w->gradient, piece_is_ready, w);
    LH_TRY(send_unsent(w));
    if (w->tables)
        LH_TRY(push_tables(w));
    lh_gradient_done(&w->gradient);
    return look_up_and_hear(w);
}

/* Whether one of the leaves [first, end) was taken over. */
static bool is_given(const struct worker *w, uint64_t first, uint64_t end)
{
    for (size_t i = 0; i < w->n_given; i++) {
        uint64_t from = (uint64_t)w->given[i].index << w->given[i].level;
        if (from < end && from + (UINT64_C(1) << w->given[i].level) > first)
            return true;
    }
    return false;
}

static void note_pushed(struct worker *w, struct lh_tree_node node)
{
    if (w->n_pushed < NODES_MAX && !is_off(w))
        w->pushed[w->n_pushed++] = node;
}

/* The largest subtree that begins at a leaf, ends before `end` and has no leaf that was taken over.
 */
static struct lh_tree_node next_node(const struct worker *w, uint64_t leaf, uint64_t end)
{
    struct lh_tree_node node = {.index = (uint32_t)leaf};
    while (node.index % 2 == 0) {
        uint64_t behind = leaf + (UINT64_C(2) << node.level);
        behind = behind < w->model.leaves ? behind : w->model.leaves;
        if (leaf + (UINT64_C(1) << node.level) >= end || behind > end || is_given(w, leaf, behind))
            break;
        node.level++;
        node.index /= 2;
    }
    return node;
}

static int compute_node(struct worker *w, struct lh_tree_node node);

/* Of a subtree whose leaves [leaf, end) are not computed yet some were taken over: what is summed
 * goes out as it is, then what is left of the others. */
static int compute_apart(struct worker *w, uint64_t leaf, uint64_t end)
{
    while (lh_gradient_part(&w->gradient, &w->node)) {
        w->n_unsent = 0;
        lh_gradient_pieces(&w->gradient, piece_is_ready, w);
        LH_TRY(send_unsent(w));
        note_pushed(w, w->node);
    }
    while (leaf < end && !is_off(w)) {
        if (is_given(w, leaf, leaf + 1)) {
            leaf++;
            continue;
        }
        const struct lh_tree_node node = next_node(w, leaf, end);
        LH_TRY(compute_node(w, node));
        leaf += UINT64_C(1) << node.level;
    }
    return 0;
}

static int compute_node(struct worker *w, struct lh_tree_node node)
{
    uint64_t first = (uint64_t)node.index << node.level;
    uint64_t end = first + (UINT64_C(1) << node.level);
    if (end > w->model.leaves)
        end = w->model.leaves;
    w->node = node;
    w->n_unsent = 0;
    uint64_t leaf = first;
    for (; leaf < end && !is_off(w) && !is_given(w, leaf, end); leaf++)
        LH_TRY(compute_leaf(w, (uint32_t)leaf, leaf + 1 == end));
    if (leaf == end)
        note_pushed(w, node);
    else if (!is_off(w))
        LH_TRY(compute_apart(w, leaf, end));
    if (w->dropped)
        lh_gradient_abandon(&w->gradient);
    if (w->dropped && w->tables)
        lh_worker_tables_abandon(w->tables);
    return 0;
}

/* Whether a subtree that holds this one was pushed in this version. */
static bool is_pushed(const struct worker *w, struct lh_tree_node n)
{
    for (size_t i = 0; i < w->n_pushed; i++) {
        struct lh_tree_node p = w->pushed[i];
        if (p.level >= n.level && n.index >> (p.level - n.level) == p.index)
            return true;
    }
    return false;
}

static int block(const struct worker *w, double idle_since);

/* Asks for the rows that the share of a step names. */
static int want_rows(struct worker *w, uint64_t version, const struct lh_tree_node *nodes, size_t n)
{
    uint32_t blocks[NODES_MAX][2];
    for (size_t i = 0; i < n; i++) {
        const uint64_t end = ((uint64_t)nodes[i].index + 1) << nodes[i].level;
        blocks[i][0] = first_block(w, (uint64_t)nodes[i].index << nodes[i].level);
        blocks[i][1] = end_block(w, (end < w->model.leaves ? end : w->model.leaves) - 1);
    }
    const struct lh_worker_share share = {
        .version = version, .index = w->index, .count = w->count, .blocks = blocks, .n = n};
    return lh_worker_tables_want(w->tables, &w->feed, &share);
}

/* Has the rows of the share at hand, those of the next step asked for. Without them it returns only
 * when they are not needed any more: others have finished the step, the share has changed, or it is
 * over. */
static int have_rows(struct worker *w, const struct lh_tree_node *nodes, size_t n, bool *have)
{
    struct lh_rowpull *rows = lh_worker_tables_pull(w->tables, w->version);
    double began = lh_now(), aside = w->member.phases.reply + w->turns;
    LH_TRY(want_rows(w, w->version, nodes, n));
    if (w->version + 1 < w->until)
        LH_TRY(want_rows(w, w->version + 1, nodes, n));
    w->member.phases.gather += lh_now() - began;
    int sent = lh_worker_tables_send(w->tables, &w->pull); /* those of the next step as well */
    LH_TRY(sent);
    began = lh_now();
    double idle_since = began;
    while (!(*have = lh_rowpull_complete(rows)) && !w->pull.complete && !w->reassigned &&
           !is_over(w)) {
        bool any = give_turn(w);
        if (sent == LH_AGAIN)
            LH_TRY(sent = lh_worker_tables_send(w->tables, &w->pull));
        LH_TRY(drain_shards(w, &any));
        if (any) {
            idle_since = lh_now();
            continue;
        }
        if (sent == LH_AGAIN)
            LH_TRY(breathe(w));
        else
            LH_TRY(block(w, idle_since));
        LH_TRY(look_up(w));
        if (lh_now() - rows->since > w->patience) {
            lh_rowpull_repeat(rows);
            sent = LH_AGAIN;
        }
    }
    w->member.phases.wait += lh_now() - began - (w->member.phases.reply + w->turns - aside);
    return 0;
}

/* How long its own work on a step takes. */
static void note_work(struct worker *w, double took)
{
    w->usual = mean_of_few(w->usual, took);
}

/* What the largest share of a step takes, by what this one took. A worker that has none waits for
 * what a step takes. */
static void note_share(struct worker *w, const struct lh_tree_node *nodes, size_t n)
{
    const uint32_t most = (w->model.leaves + w->count - 1) / w->count;
    uint64_t mine = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t first = (uint64_t)nodes[i].index << nodes[i].level,
                 end = first + (UINT64_C(1) << nodes[i].level);
        mine += (end < w->model.leaves ? end : w->model.leaves) - first;
    }
    w->shares = mine > 0;
    if (w->shares)
        note_work(w, (lh_now() - w->stepped) * most / (double)mine);
}

static int compute_share(struct worker *w)
{
    struct lh_tree_node nodes[NODES_MAX];
    const bool anew = w->n_pushed == 0 && !w->tried;
    size_t n, i;
    do {
        w->reassigned = false;
        n = lh_tree_share(w->model.leaves, w->index, w->count, nodes);
        lh_exec_reuse(w->exec,
                      w->model.leaves / w->count > 1 || w->job->micro_batch > w->model.block);
        bool have = true;
        if (w->tables && n > 0)
            LH_TRY(have_rows(w, nodes, n, &have));
        if (!have)
            continue;
        for (i = 0; i < n && !w->reassigned && !is_off(w); i++) {
            if (is_pushed(w, nodes[i]))
                continue;
            LH_TRY(compute_node(w, nodes[i]));
        }
    } while (w->reassigned && !is_off(w));
    w->tried = true;
    if (anew && !is_off(w) && w->n_given == 0)
        note_share(w, nodes, n);
    /* What the next step will read does not depend on its weights: fetch it while they come. */
    if (n > 0 && !is_over(w) && w->version + 1 < w->until)
        LH_TRY(fill(w, w->version + 1, first_block(w, (uint64_t)nodes[0].index << nodes[0].level)));
    w->pull.asked = lh_now();
    return 0;
}

/* --- pulling -----------------------------------------------------------------------------------
 */
static int ask(struct worker *w, uint64_t version)
{
    w->pull.held = &w->held[w->at ^ 1];
    return has_own_steps(w) ? lh_pull_begin_step(&w->pull, version)
                            : lh_pull_begin(&w->pull, version);
}

/* A connection that broke may have lost pushes, or the answer: do the step again. */
static int ask_again(struct worker *w)
{
    w->patience *= 2;
    lh_metrics_add(w->metrics, LH_METRIC_PULL_RETRIES, 1);
    lh_log_event(LH_LOG_WARN, "retry",
                 LH_FIELDS(LH_F("version", w->pull.version), LH_F("patience", w->patience)));
    w->n_pushed = w->n_given = 0;
    w->reassigned = !has_own_steps(w);
    return ask(w, w->pull.version);
}

/* Whether it may be given what is late, if it waits for long. */
static bool may_help(const struct worker *w)
{
    /* with tables it would need rows that it did not ask for */
    return w->usual > 0 &&
           (has_own_steps(w) || (w->job->takeover && !w->tables && w->version < w->until));
}

/* In sync all have about as much to do, and who is sooner ready than usual waits for that first;
 * who has helped, in this step or the last, asks for more at once. */
static double begin_to_wait(struct worker *w)
{
    const double now = lh_now();
    const bool at_once = w->helps || w->eager;
    w->idle_gap = at_once ? 0 : IDLE * w->usual;
    w->idle_since = now;
    if (!has_own_steps(w) && !at_once && w->stepped + w->usual > now)
        w->idle_since = w->stepped + w->usual;
    return now;
}

/* Blocks until something comes. A short wait is not worth a sleep, which costs as much to be woken
 * from: so first it is only looked, again and again, where the launcher says that a core is free.
 */
static int block(const struct worker *w, double quiet_since)
{
    const struct lh_companion *c = w->opt->companion;
    double now = lh_now(), most = w->member.heartbeat / 4;
    if (c && now - quiet_since < c->spin) {
        sched_yield(); /* who is waited for may have been put on this core */
        return 0;
    }
    if (may_help(w) && w->idle_since + w->idle_gap < now + most)
        most = w->idle_since + w->idle_gap - now;
    return lh_companion_poll(c, w->polls, w->pull.n_shards + 1, most > 0 ? most : 0);
}

/* Returns when the version asked for is whole, the share changed, something late is to be taken
 * over, or it is over. */
static int await(struct worker *w)
{
    double quiet_since = begin_to_wait(w);
    while (!w->pull.complete && !w->reassigned && w->late == LH_WIRE_LATEST && !is_over(w)) {
        bool any = give_turn(w);
        LH_TRY(drain_shards(w, &any));
        if (any) {
            quiet_since = lh_now();
            continue;
        }
        LH_TRY(block(w, quiet_since));
        LH_TRY(look_up(w));
        double now = lh_now();
        if (may_help(w) && now - w->idle_since > w->idle_gap)
            LH_TRY(say_idle(w));
        if (!w->pull.complete && w->version < w->until && w->count > 0 &&
            (lh_pull_broke(&w->pull) || now - w->pull.asked > w->patience))
            LH_TRY(ask_again(w));
    }
    return 0;
}

static int wait_for_version(struct worker *w)
{
    Lh__Phases *ph = &w->member.phases;
    double began = lh_now(), aside = ph->reply + w->turns;
    int rc = await(w);
    ph->wait += lh_now() - began - (ph->reply + w->turns - aside);
    return rc;
}

static int take_version(struct worker *w)
{
    double now = lh_now();
    if (w->stepped > 0)
        lh_metrics_observe(w->metrics, LH_METRIC_STEP_TIME, now - w->stepped);
    if (w->stepped > 0 && !w->shares && !has_own_steps(w))
        note_work(w, now - w->stepped);
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
    w->patience = PATIENCE > w->member.deadline / 2 ? PATIENCE : w->member.deadline / 2;
    w->dropped = false;
    return has_own_steps(w) ? 0 : ask(w, w->version + 1);
}

/* The whole of a step, which no other worker shares. */
static int compute_step(struct worker *w)
{
    lh_exec_reuse(w->exec, w->model.leaves > 1 || w->job->micro_batch > w->model.block);
    LH_TRY(compute_node(w, (struct lh_tree_node){.level = lh_tree_height(w->model.leaves)}));
    note_work(w, lh_now() - w->stepped);
    return 0;
}

/* Each step is one worker's own: take one, compute it, push it, take another. */
static int work_on_own(struct worker *w)
{
    while (w->count == 0 && !is_over(w)) {
        LH_TRY(lh_companion_poll(w->opt->companion, &w->polls[w->pull.n_shards], 1,
                                 w->member.heartbeat / 4));
        LH_TRY(look_up(w));
    }
    w->patience = w->member.deadline;
    w->pull.complete = true;
    while (!is_over(w)) {
        if (w->pull.complete || w->late != LH_WIRE_LATEST)
            LH_TRY(ask(w, w->late));
        w->late = LH_WIRE_LATEST;
        w->reassigned = false; /* shares are nothing here */
        LH_TRY(wait_for_version(w));
        if (!w->pull.complete || is_over(w))
            continue;
        LH_TRY(take_version(w));
        LH_TRY(compute_step(w));
        w->pull.asked = lh_now();
    }
    return w->stopped ? w->reason : 0;
}

/* Part of another's share of the version at hand. */
static int take_over(struct worker *w)
{
    w->late = LH_WIRE_LATEST;
    w->helps = true;
    w->n_given = 0; /* it may be what was another's before */
    w->pull.asked = lh_now();
    return compute_node(w, w->late_node);
}

static int work_together(struct worker *w)
{
    bool have = false;
    w->patience = w->member.deadline;
    LH_TRY(ask(w, LH_WIRE_LATEST));
    while (!is_over(w)) {
        LH_TRY(wait_for_version(w));
        if (w->pull.complete) {
            LH_TRY(take_version(w));
            have = w->reassigned = true;
        }
        if (w->late != LH_WIRE_LATEST)
            LH_TRY(take_over(w));
        if (have && w->count > 0 && w->version < w->until && w->reassigned && !is_over(w))
            LH_TRY(compute_share(w));
        w->reassigned = false;
    }
    return w->stopped ? w->reason : 0;
}

/* From hello to the end, or to the next hello (*again). */
static int take_part(void *zmq, const struct lh_worker_options *opt, bool *again)
{
    struct worker w = {.opt = opt, .zmq = zmq, .late = LH_WIRE_LATEST};
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
        rc = has_own_steps(&w) ? work_on_own(&w) : work_together(&w);
    *again = !w.left && lh_member_returns(&w.member, rc, w.again, opt->rejoin);
    rc = *again ? 0 : rc;
    count(&w);
    rc = lh_member_leave(&w.member, rc, w.stopped);
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
