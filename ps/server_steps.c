/* A step, from its pushes to the next version. Invariant: no version that is due for a cut or an
 * evaluation is passed before it is frozen, or fetched. */
#include "ps/server_internal.h"

#include "common/err.h"
#include "common/term.h"

int lh_server_steps_send(struct lh_server *s)
{
    struct lh_envelope env = lh_member_envelope(&s->member, LH__KIND__KIND_METRICS);
    env.step = s->metrics_first;
    env.count = s->metrics_rows;
    struct lh_net_part parts[] = {
        {.data = s->metrics, .size = s->metrics_rows * s->n_metrics * sizeof(float)},
        {.data = s->metrics_at, .size = s->metrics_rows * sizeof(double)}};
    if (s->metrics_rows == 0)
        return 0;
    int rc = lh_member_send(&s->member, &env, parts, 2);
    if (rc == 0)
        s->metrics_rows = 0;
    return rc < 0 ? rc : 0;
}

int lh_server_steps_flush(struct lh_server *s)
{
    const bool room = s->member.out.n <= LH_OUTBOX_ROOM / 2; /* for other things */
    return room ? lh_server_steps_send(s) : 0;
}

/* Whether the version at hand still has something to give before it may pass. */
static bool is_held(const struct lh_server *s)
{
    uint64_t v = lh_shard_version(s->shard);
    return v >= s->limit || lh_server_cuts_due(s) ||
           (s->evaluated != v && lh_clock_evaluates(&s->clock, v)) ||
           s->metrics_rows == LH_SERVER_METRICS;
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
    LH_TRY(lh_server_pulls_answer(s));
    return lh_server_cuts_due(s) ? lh_server_cuts_start(s) : 0;
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

/* The sum of a step that was a worker's own is whole: who else has it may stop at it. */
static int tell_rivals(struct lh_server *s, const struct lh_flight_sum *sum)
{
    struct lh_envelope env = {
        .kind = LH__KIND__KIND_IN, .job = s->member.job, .node = s->member.node, .step = sum->step};
    const struct lh_net_peer *to;
    for (size_t i = 0; (to = lh_flight_rival(s->flight, sum, i)); i++) {
        int rc = lh_net_send(s->socket, to, &env, NULL, 0);
        LH_TRY(rc < 0 ? rc : 0);
    }
    return 0;
}

/* It is applied. */
static void note_own(struct lh_server *s, const struct lh_flight_sum *sum)
{
    s->last = sum->step;
    lh_metrics_observe(s->counts, LH_METRIC_STALENESS, (double)sum->lacked);
    s->member.phases.lacked += sum->lacked;
    if (sum->lacked > s->member.phases.lacked_most)
        s->member.phases.lacked_most = sum->lacked;
    if (sum->given < 2 || s->member.plan->shard != 0)
        return;
    lh_metrics_add(s->counts, LH_METRIC_TAKEN_OVER, 1);
    s->member.phases.taken_over++;
}

/* A step is applied to tables and shard, or to none of them. Tables first: their disk may be full,
 * and until it is not the version stays. LH_AGAIN: not yet. */
static int advance_tables(struct lh_server *s, const struct lh_flight_sum *own)
{
    if (s->tables.n == 0)
        return 0;
    if (!lh_shard_gradient(s->shard) || (!own && !lh_server_tables_whole(&s->tables)))
        return LH_AGAIN;
    LH_TRY(lh_shard_check(s->shard));
    LH_TRY(lh_server_tables_check(&s->tables, own));
    if (own) /* a sum of another step may be whole when the disk has room again */
        lh_flight_begin(s->flight, own);
    return lh_server_tables_advance(&s->tables, lh_shard_version(s->shard), own);
}

int lh_server_steps_advance(struct lh_server *s)
{
    int applied = 1;
    while (applied && !is_held(s)) {
        double began = lh_now();
        struct lh_flight_sum own = {0};
        const bool any = s->flight && lh_flight_next(s->flight, &own);
        if (any && s->member.plan->shard == 0 && !s->tables.behind)
            LH_TRY(tell_rivals(s, &own));
        if (s->opt->look)
            show_sum(s);
        int rc = advance_tables(s, any ? &own : NULL);
        if (rc != 0)
            return rc == LH_AGAIN ? 0 : rc;
        LH_TRY(lh_shard_advance(s->shard, &applied, s->metrics + s->metrics_rows * s->n_metrics));
        if (applied) {
            s->member.phases.optimise += lh_now() - began;
            if (s->flight)
                note_own(s, &own);
            LH_TRY(new_version(s));
        }
    }
    return 0;
}

/* Of a step that is a worker's own: what may not have begun would enter a cut that it is not of. */
static int check_own(const struct lh_server *s, const struct lh_envelope *env)
{
    if (env->step >= s->clock.until ||
        lh_flight_low(s->flight) < lh_server_pulls_needed(s, env->step))
        return lh_err_set(LH_EPROTO, "a push for step %llu, which nobody was given",
                          (unsigned long long)env->step);
    if (env->index != 0 || env->level != lh_tree_height(s->model.leaves))
        return lh_err_set(LH_EPROTO,
                          "a push names node (%u, %u) of a step that is one worker's own",
                          env->level, env->index);
    return 0;
}

int lh_server_steps_take(struct lh_server *s, const struct lh_net_message *msg)
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
    if (env->epoch != s->member.plan->generation)
        return 0; /* from before the run went back, as of a pull */
    if (s->flight)
        LH_TRY(check_own(s, env));
    double began = s->pushed = lh_now();
    uint64_t version = lh_shard_version(s->shard);
    const struct lh_tree_node node = {.level = env->level, .index = env->index};
    const struct lh_flight_claim of = {.worker = env->node, .request = env->request};
    int rc =
        s->flight
            ? lh_shard_push_own(s->shard, env->step, &of, env->first, data, env->count, metrics)
            : lh_shard_push(s->shard, env->step, node, env->first, data, env->count, metrics);
    s->member.phases.reduce += lh_now() - began;
    if (rc >= 0) {
        if (!s->flight)
            lh_metrics_observe(s->counts, LH_METRIC_STALENESS, (double)(version - env->step));
        lh_metrics_add(s->counts, rc == 0 ? LH_METRIC_PUSHES : LH_METRIC_PUSHES_IGNORED, 1);
    }
    if (rc == 0 && s->takeover && env->first == 0)
        lh_takeover_came(s->takeover, version, node, env->node, 1e-6 * (double)env->request);
    if (rc == 0)
        rc = lh_server_steps_advance(s);
    return rc < 0 ? rc : 0;
}

int lh_server_steps_take_table(struct lh_server *s, const struct lh_net_message *msg)
{
    if (msg->env.epoch != s->member.plan->generation)
        return 0; /* as of a pull */
    if (s->flight)
        LH_TRY(check_own(s, &msg->env));
    double began = s->pushed = lh_now();
    int rc = lh_server_tables_push(&s->tables, msg);
    s->member.phases.reduce += lh_now() - began;
    if (rc == 0)
        rc = lh_server_steps_advance(s);
    return rc < 0 ? rc : 0;
}
