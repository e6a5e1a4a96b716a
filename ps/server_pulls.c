/* Answers. Weights are lent frames of the version at hand (loan.h). A pull waits for its version; a
 * take waits until the step that it is for may begin. Who asks again replaces what it asked. */
#include "ps/server_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <string.h>

#define WAITS_A_NODE 64 /* a node has one connection at a time */

static int send_moved(struct lh_server *s, const struct lh_server_wait *w)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_MOVED,
                              .job = s->member.job,
                              .node = s->member.node,
                              .step = lh_shard_version(s->shard),
                              .request = w->request};
    int rc = lh_net_send(s->socket, &w->peer, &env, NULL, 0);
    return rc < 0 ? rc : 0; /* a peer that is gone or stuck asks again when it can */
}

uint64_t lh_server_pulls_needed(const struct lh_server *s, uint64_t step)
{
    uint64_t barrier = lh_clock_barrier(&s->clock, step), bound = s->job->staleness_bound;
    if (s->job->consistency == LH_ASYNC || step < bound)
        return barrier;
    return step - bound > barrier ? step - bound : barrier;
}

/* Whether a worker may have weights and rows for a step. What is whole is in soon, what was lost is
 * made good by who sent it: so the steps of a lone worker are those of sync. */
static bool may_begin(const struct lh_server *s, uint32_t worker, uint64_t step)
{
    struct lh_flight_sum next;
    return step != LH_FLIGHT_NONE && !lh_flight_next(s->flight, &next) &&
           !lh_flight_owes(s->flight, worker, step) &&
           lh_flight_low(s->flight) >= lh_server_pulls_needed(s, step);
}

/* A step that is wanted here though it was the last to come in, since another shard has lost it:
 * its weights are those before it, as there. So with bound 0 its sum has the same bits. */
static bool is_last(const struct lh_server *s, uint64_t step)
{
    return step == s->last && lh_shard_weights_before(s->shard);
}

enum lh_server_rows lh_server_pulls_rows_for(const void *ctx, uint32_t node, uint64_t version)
{
    const struct lh_server *s = ctx;
    const uint64_t now = lh_shard_version(s->shard);
    if (s->flight && node != 0 && !may_begin(s, node, version))
        return LH_SERVER_ROWS_LATER;
    if (s->flight && node != 0)
        return is_last(s, version) ? LH_SERVER_ROWS_BEFORE : LH_SERVER_ROWS_NOW;
    return version > now        ? LH_SERVER_ROWS_LATER
           : version == now     ? LH_SERVER_ROWS_NOW
           : version + 1 == now ? LH_SERVER_ROWS_BEFORE /* another server has lost that step */
                                : LH_SERVER_ROWS_GONE;
}

/* The step that who waits is to have weights for; LH_FLIGHT_NONE if there is none yet. */
static uint64_t step_for(const struct lh_server *s, const struct lh_server_wait *w)
{
    return w->version == LH_WIRE_LATEST ? lh_flight_choose(s->flight, w->node, s->limit)
                                        : w->version;
}

/* Who waits has its step from now on, and is told which, where it does not know. A step may be in
 * here, and wanted for another shard, which lost it. Returns 0 if weights are to follow. */
static int give_step(struct lh_server *s, const struct lh_server_wait *w)
{
    uint64_t step = step_for(s, w);
    struct lh_envelope env = {.kind = LH__KIND__KIND_STEP,
                              .job = s->member.job,
                              .node = s->member.node,
                              .step = step,
                              .request = w->request};
    const struct lh_flight_claim to = {w->node, w->request, w->peer};
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

/* In sync a version is wanted, and that before may be: those who had part of the step may all be
 * gone. */
static bool is_for_the_last(const struct lh_server *s, const struct lh_server_wait *w)
{
    if (w->each)
        return is_last(s, w->version);
    return w->version == lh_shard_version(s->shard) - 1 && lh_shard_weights_before(s->shard);
}

/* LH_AGAIN: not now, the peer has too much to take yet. */
static int send_version(struct lh_server *s, const struct lh_server_wait *w)
{
    const bool before = is_for_the_last(s, w);
    struct lh_envelope env = {.job = s->member.job,
                              .node = s->member.node,
                              .step = lh_shard_version(s->shard) - before,
                              .request = w->request};
    const float *weights = before ? lh_shard_weights_before(s->shard) : lh_shard_weights(s->shard);
    const float *targets = before ? lh_shard_targets_before(s->shard) : lh_shard_targets(s->shard);
    struct lh_loan *loan = NULL;
    const uint32_t n = (uint32_t)s->n_pieces;
    if ((before ? lh_loans_begin_before(s->loans, &w->peer, n, &loan)
                : lh_loans_begin(s->loans, &w->peer, n, &loan)) == LH_AGAIN)
        return LH_AGAIN;
    int rc = w->each ? give_step(s, w) : 0;
    if (rc != 0)
        return give_back(loan, s->n_pieces, rc);
    for (size_t i = 0; i < s->n_pieces; i++) {
        const struct lh_pull_piece *p = &s->pieces[i];
        struct lh_net_part part = {.data = (p->targets ? targets : weights) + p->first,
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

static int answer(struct lh_server *s, const struct lh_server_wait *w)
{
    double began = lh_now();
    const bool here = w->each || w->version == LH_WIRE_LATEST ||
                      w->version == lh_shard_version(s->shard) || is_for_the_last(s, w);
    int rc = here ? send_version(s, w) : send_moved(s, w);
    s->member.phases.reply += lh_now() - began;
    return rc;
}

static bool is_due(const struct lh_server *s, const struct lh_server_wait *w)
{
    if (w->each)
        return may_begin(s, w->node, step_for(s, w));
    return w->version == LH_WIRE_LATEST || w->version <= lh_shard_version(s->shard);
}

int lh_server_pulls_answer(struct lh_server *s)
{
    size_t kept = 0;
    s->withheld = false;
    for (size_t i = 0; i < s->n_waiting; i++) {
        const struct lh_server_wait w = s->waiting[i];
        bool due = is_due(s, &w);
        int rc = due ? answer(s, &w) : 0;
        LH_TRY(rc);
        if (rc == LH_AGAIN || !due)
            s->waiting[kept++] = w;
        s->withheld = s->withheld || rc == LH_AGAIN;
    }
    s->n_waiting = kept;
    return lh_server_tables_answer(&s->tables, s->socket);
}

static int check_take(const struct lh_server *s, const struct lh_server_wait *w)
{
    bool gives = s->member.plan->shard == 0;
    if (!s->flight || w->evaluation || (w->version == LH_WIRE_LATEST && !gives) ||
        (w->version != LH_WIRE_LATEST && w->version >= s->clock.until))
        return lh_err_set(LH_EPROTO, "worker %u wants a step that shard %u does not give", w->node,
                          s->member.plan->shard);
    return 0;
}

/* Where a request is to wait, n_waiting: at the end. A peer's newer one replaces its older; so it
 * does a node's, whose connections that are gone would else fill the memory, once it has made many.
 */
static size_t waits_at(const struct lh_server *s, const struct lh_server_wait *w)
{
    size_t of_node = 0, first = 0;
    for (size_t i = 0; i < s->n_waiting; i++) {
        const struct lh_server_wait *other = &s->waiting[i];
        if (other->peer.size == w->peer.size &&
            memcmp(other->peer.id, w->peer.id, w->peer.size) == 0)
            return i;
        if (other->node == w->node && of_node++ == 0)
            first = i;
    }
    return of_node < WAITS_A_NODE ? s->n_waiting : first;
}

int lh_server_pulls_take(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch != s->member.plan->generation)
        return 0; /* from before the run went back: who asked is told so by the scheduler */
    struct lh_server_wait w = {.peer = msg->peer,
                               .version = msg->env.step,
                               .request = msg->env.request,
                               .node = msg->env.node,
                               .evaluation = msg->env.node == 0,
                               .each = msg->env.kind == LH__KIND__KIND_TAKE};
    if (w.evaluation && w.version > lh_shard_version(s->shard))
        s->evaluated = lh_shard_version(s->shard); /* it has that one */
    if (w.each)
        LH_TRY(check_take(s, &w));
    lh_metrics_add(s->counts, LH_METRIC_PULLS, 1);
    size_t i = waits_at(s, &w);
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

int lh_server_pulls_take_table(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch != s->member.plan->generation)
        return 0; /* as of a pull */
    double began = lh_now();
    int rc = lh_server_tables_pull(&s->tables, s->socket, msg);
    s->member.phases.reply += lh_now() - began;
    return rc;
}

/* The evaluation has all of a version: it may be passed. Its next pull says the same, should this
 * be lost. */
int lh_server_pulls_take_fetched(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch == s->member.plan->generation && msg->env.step == lh_shard_version(s->shard))
        s->evaluated = msg->env.step;
    return 0;
}
