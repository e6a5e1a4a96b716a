/* What is late: leaves of a step that all workers share, beside the worker that is late with them;
 * a whole step of a worker of which nothing has come for long, or that is gone. */
#include "ps/server_internal.h"

#include "common/err.h"
#include "common/term.h"

/* Times what a step takes an idle worker: then another's is late. It is begun anew, not beside who
 * has it, so that is for one who is stuck, not for one who is slow. */
#define LATE_STEP 8.0
/* Likewise: then pieces that are missing of a leaf are none that are under way. */
#define LATE_PIECE 2.0

static int say(struct lh_server *s, const struct lh_net_peer *to, const struct lh_envelope *env)
{
    int rc = lh_net_send(s->socket, to, env, NULL, 0);
    return rc < 0 ? rc : 0; /* a peer that is gone or stuck does without */
}

/* How much of a leaf of the step at hand has come, rows of tables and all. */
static enum lh_reduce_leaf has_leaf(const void *server, uint32_t leaf)
{
    const struct lh_server *s = server;
    const enum lh_reduce_leaf dense = lh_reduce_leaf(lh_shard_reduce(s->shard), leaf);
    return s->tables.n == 0 ? dense
                            : lh_reduce_leaf_both(dense, lh_server_tables_leaf(&s->tables, leaf));
}

/* An idle worker gets part of what is late of a step that all share. Those who have not finished it
 * are told, so that who is slow leaves that part out, and sends what it has of the rest. */
static int give_late_leaves(struct lh_server *s, const struct lh_net_message *msg, double usual)
{
    const uint64_t version = lh_shard_version(s->shard);
    const double now = lh_now();
    struct lh_tree_node node;
    const struct lh_takeover_ask ask = {.step = version,
                                        .has = has_leaf,
                                        .of = s,
                                        .worker = msg->env.node,
                                        .pace = 1e-6 * (double)msg->env.first,
                                        .usual = usual,
                                        .now = now,
                                        .passed = now - s->stepped,
                                        .partly = now - s->pushed > LATE_PIECE * usual};
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
    /* what a dead worker asked for may have come after the word that it died */
    if (!s->job->takeover)
        late = s->member.deadline;
    const struct lh_flight_claim who = {msg->env.node, msg->env.request, msg->peer};
    env.step = lh_flight_late(s->flight, &who, late, lh_now());
    return env.step == LH_FLIGHT_NONE ? 0 : say(s, &msg->peer, &env);
}

/* A worker has nothing to do: it may have what is late. */
int lh_server_late_take(struct lh_server *s, const struct lh_net_message *msg)
{
    const double usual = 1e-6 * (double)msg->env.count;
    if (msg->env.epoch != s->member.plan->generation)
        return 0;
    if (s->flight)
        return give_late_step(s, msg, LATE_STEP * usual);
    return s->takeover ? give_late_leaves(s, msg, usual) : 0;
}
