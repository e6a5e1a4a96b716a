/* From weights to pushed sums: the blocks of a leaf run one after the other, leaves are added up
 * along the tree, and the pieces of a subtree's sum go out while backward of its last block still
 * runs. */
#include "common/err.h"
#include "common/term.h"
#include "worker/worker_internal.h"

#define FULL_POLL  0.001 /* seconds, while a queue is full or all buffers are lent */
#define SLOW_LEAST 0.0001

/* Lets the network work for a moment; takes in nothing but orders. */
static int breathe(struct lh_worker *w)
{
    double began = lh_now();
    LH_TRY(lh_companion_poll(w->opt->companion, &w->polls[w->pull.n_shards], 1, FULL_POLL));
    w->member.phases.push += lh_now() - began;
    return lh_worker_look_up(w);
}

/* --- pushing --------------------------------------------------------------------------------
 */
static int send_piece(struct lh_worker *w, const struct lh_gradient_piece *p)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_PUSH,
                              .job = w->member.job,
                              .node = w->member.node,
                              .step = w->version,
                              .level = w->node.level,
                              .index = w->node.index,
                              .first = p->first,
                              .count = p->hi - p->lo,
                              .request =
                                  lh_worker_has_own_steps(w) ? w->claim : (uint64_t)(1e6 * w->pace),
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
    struct lh_worker *w = ctx;
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
    struct lh_worker *w = ctx;
    lh_gradient_last_param(&w->gradient, param, piece_is_ready, w);
}

static int send_unsent(struct lh_worker *w)
{
    LH_TRY(w->push_rc);
    while (w->n_unsent > 0 && !lh_worker_is_over(w)) {
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

/* The rows of what has just been made ready. */
static int push_tables(struct lh_worker *w)
{
    const struct lh_envelope env = {.job = w->member.job,
                                    .node = w->member.node,
                                    .step = w->version,
                                    .level = w->node.level,
                                    .index = w->node.index,
                                    .request = lh_worker_has_own_steps(w) ? w->claim : 0,
                                    .epoch = w->pull.generation};
    int rc;
    while ((rc = lh_worker_tables_push(w->tables, &w->pull, &env)) == LH_AGAIN &&
           !lh_worker_is_over(w))
        LH_TRY(breathe(w));
    return rc < 0 ? rc : 0;
}

/* --- a leaf ---------------------------------------------------------------------------------
 */
static int acquire(struct lh_worker *w)
{
    int rc;
    while ((rc = lh_gradient_acquire(&w->gradient)) == LH_AGAIN && !lh_worker_is_over(w))
        LH_TRY(breathe(w));
    return rc;
}

static int fill(struct lh_worker *w, uint64_t step, uint32_t block)
{
    double began = lh_now();
    int rc = lh_feed_fill(&w->feed, step, block);
    w->member.phases.gather += lh_now() - began;
    return rc;
}

static int run_block(struct lh_worker *w, uint32_t block, bool last)
{
    struct lh_rng_at at = {.seed = w->job->seed, .part = block, .step = w->version};
    Lh__Phases *ph = &w->member.phases;
    if (w->tables)
        LH_TRY(lh_worker_tables_fill(w->tables));
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
static uint32_t first_block(const struct lh_worker *w, uint64_t leaf)
{
    return (uint32_t)(leaf * (w->job->micro_batch / w->model.block));
}

static uint32_t end_block(const struct lh_worker *w, uint64_t leaf)
{
    size_t blocks = (w->job->batch + w->model.block - 1) / w->model.block;
    uint32_t end = first_block(w, leaf + 1);
    return end < blocks ? end : (uint32_t)blocks;
}

/* For tests: the time that a slower processor would have taken more for the blocks before, spent
 * before the next, since a subtree's last pieces go out while a block runs. */
static int dawdle(struct lh_worker *w)
{
    const double began = lh_now(), until = began + w->slow.owed, most = w->member.heartbeat / 4;
    double left;
    if (w->slow.owed < SLOW_LEAST || w->index != w->slow.index)
        return 0;
    while ((left = until - lh_now()) > 0 && !lh_worker_is_off(w)) {
        LH_TRY(lh_companion_poll(w->opt->companion, w->polls, w->pull.n_shards + 1,
                                 left < most ? left : most));
        LH_TRY(lh_worker_hear_between(w));
    }
    w->slow.owed = w->dropped ? 0 : w->slow.owed - (lh_now() - began);
    return 0;
}

/* Over the last few. */
static double mean_of_few(double mean, double x)
{
    return mean > 0 ? 0.75 * mean + 0.25 * x : x;
}

static int compute_leaf(struct lh_worker *w, uint32_t leaf, bool last)
{
    const double began = lh_now();
    const uint32_t first = first_block(w, leaf), end = end_block(w, leaf);
    LH_TRY(acquire(w));
    if (w->tables)
        lh_worker_tables_leaf(w->tables);
    if (last)
        lh_gradient_last_begin(&w->gradient);
    for (uint32_t block = first; block < end && !lh_worker_is_off(w); block++) {
        LH_TRY(dawdle(w));
        if (lh_worker_is_off(w))
            break;
        const double block_began = lh_now();
        LH_TRY(fill(w, w->version, block));
        lh_exec_accumulate(w->exec, block > first);
        LH_TRY(run_block(w, block, last && block + 1 == end));
        w->slow.owed += w->slow.factor > 1 ? (w->slow.factor - 1) * (lh_now() - block_began) : 0;
        if (block + 1 < end)
            LH_TRY(lh_worker_hear_between(w));
    }
    if (lh_worker_is_off(w))
        return 0;
    w->pace = mean_of_few(w->pace, lh_now() - began);
    if (!last) {
        lh_gradient_join(&w->gradient, leaf);
        if (w->tables)
            LH_TRY(lh_worker_tables_join(w->tables, leaf));
        return lh_worker_hear_between(w);
    }
    lh_gradient_last_end(&w->gradient, piece_is_ready, w);
    LH_TRY(send_unsent(w));
    if (w->tables) {
        LH_TRY(lh_worker_tables_end(w->tables));
        LH_TRY(push_tables(w));
    }
    lh_gradient_done(&w->gradient);
    return lh_worker_hear_between(w);
}

/* --- a subtree ------------------------------------------------------------------------------
 */
/* Whether one of the leaves [first, end) was taken over. */
static bool is_given(const struct lh_worker *w, uint64_t first, uint64_t end)
{
    for (size_t i = 0; i < w->n_given; i++) {
        uint64_t from = (uint64_t)w->given[i].index << w->given[i].level;
        if (from < end && from + (UINT64_C(1) << w->given[i].level) > first)
            return true;
    }
    return false;
}

static void note_pushed(struct lh_worker *w, struct lh_tree_node node)
{
    if (w->n_pushed < LH_WORKER_NODES && !lh_worker_is_off(w))
        w->pushed[w->n_pushed++] = node;
}

static struct lh_tree_node next_node(const struct lh_worker *w, uint64_t leaf, uint64_t end)
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

/* Of a subtree whose leaves [leaf, end) are not computed yet some were taken over: what is summed
 * goes out as it is, then what is left of the others. */
static int compute_apart(struct lh_worker *w, uint64_t leaf, uint64_t end)
{
    while (lh_gradient_part(&w->gradient, &w->node)) {
        w->n_unsent = 0;
        lh_gradient_pieces(&w->gradient, piece_is_ready, w);
        LH_TRY(send_unsent(w));
        if (w->tables) {
            LH_TRY(lh_worker_tables_part(w->tables));
            LH_TRY(push_tables(w));
        }
        note_pushed(w, w->node);
    }
    while (leaf < end && !lh_worker_is_off(w)) {
        if (is_given(w, leaf, leaf + 1)) {
            leaf++;
            continue;
        }
        const struct lh_tree_node node = next_node(w, leaf, end);
        LH_TRY(lh_worker_compute_node(w, node));
        leaf += UINT64_C(1) << node.level;
    }
    return 0;
}

int lh_worker_compute_node(struct lh_worker *w, struct lh_tree_node node)
{
    uint64_t first = (uint64_t)node.index << node.level;
    uint64_t end = first + (UINT64_C(1) << node.level);
    if (end > w->model.leaves)
        end = w->model.leaves;
    w->node = node;
    w->n_unsent = 0;
    uint64_t leaf = first;
    for (; leaf < end && !lh_worker_is_off(w) && !is_given(w, leaf, end); leaf++)
        LH_TRY(compute_leaf(w, (uint32_t)leaf, leaf + 1 == end));
    if (leaf == end)
        note_pushed(w, node);
    else if (!lh_worker_is_off(w))
        LH_TRY(compute_apart(w, leaf, end));
    if (w->dropped)
        lh_gradient_abandon(&w->gradient);
    if (w->dropped && w->tables)
        lh_worker_tables_abandon(w->tables);
    return 0;
}

/* Whether a subtree that holds this one was pushed in this version. */
static bool is_pushed(const struct lh_worker *w, struct lh_tree_node n)
{
    for (size_t i = 0; i < w->n_pushed; i++) {
        struct lh_tree_node p = w->pushed[i];
        if (p.level >= n.level && n.index >> (p.level - n.level) == p.index)
            return true;
    }
    return false;
}

/* --- rows of tables -------------------------------------------------------------------------
 */
/* Asks for the rows that these nodes of a step name: this worker's share, or what is late. */
static int want_rows(struct lh_worker *w, uint64_t version, bool late,
                     const struct lh_tree_node *nodes, size_t n, struct lh_rowpull **pull)
{
    const bool own = lh_worker_has_own_steps(w);
    uint32_t blocks[LH_WORKER_NODES][2];
    for (size_t i = 0; i < n; i++) {
        const uint64_t end = ((uint64_t)nodes[i].index + 1) << nodes[i].level;
        blocks[i][0] = first_block(w, (uint64_t)nodes[i].index << nodes[i].level);
        blocks[i][1] = end_block(w, (end < w->model.leaves ? end : w->model.leaves) - 1);
    }
    const struct lh_worker_share share = {.version = version,
                                          .index = own ? (uint32_t)w->pull.request : w->index,
                                          .count = late  ? 0
                                                   : own ? 1
                                                         : w->count,
                                          .slot = late  ? LH_WORKER_ROWS_LATE
                                                  : own ? 0
                                                        : (uint32_t)(version % 2),
                                          .blocks = blocks,
                                          .n = n};
    const double began = lh_now();
    int rc = lh_worker_tables_want(w->tables, &w->feed, &share, pull);
    w->member.phases.gather += lh_now() - began;
    return rc;
}

/* Whether rows are not waited for any more. */
static bool is_passed(const struct lh_worker *w)
{
    if (lh_worker_has_own_steps(w))
        return w->dropped;
    return w->pull.complete || w->reassigned;
}

/* Has rows that were asked for. Without them it returns only when they are not needed any more:
 * others have finished the step, the share has changed, or it is over. */
static int have_rows(struct lh_worker *w, struct lh_rowpull *rows, bool *have)
{
    const double began = lh_now(), aside = w->member.phases.reply + w->turns;
    double idle_since = began;
    int sent = lh_worker_tables_send(w->tables, &w->pull);
    LH_TRY(sent);
    lh_worker_tables_use(w->tables, rows);
    while (!(*have = lh_rowpull_complete(rows)) && !is_passed(w) && !lh_worker_is_over(w)) {
        bool any = lh_worker_turn(w);
        LH_TRY(sent = lh_worker_tables_send(w->tables, &w->pull));
        LH_TRY(lh_worker_hear_drain(w, &any));
        if (any) {
            idle_since = lh_now();
            continue;
        }
        if (sent == LH_AGAIN)
            LH_TRY(breathe(w));
        else
            LH_TRY(lh_worker_hear_block(w, idle_since, w->member.heartbeat / 4));
        LH_TRY(lh_worker_look_up(w));
        if (lh_now() - rows->since > w->patience)
            lh_rowpull_repeat(rows);
    }
    w->member.phases.wait += lh_now() - began - (w->member.phases.reply + w->turns - aside);
    return 0;
}

/* The rows of the share at hand; those of the next step are asked for. */
static int have_rows_of_share(struct lh_worker *w, const struct lh_tree_node *nodes, size_t n,
                              bool *have)
{
    struct lh_rowpull *rows = NULL;
    LH_TRY(want_rows(w, w->version, false, nodes, n, &rows));
    if (w->version + 1 < w->until)
        LH_TRY(want_rows(w, w->version + 1, false, nodes, n, NULL));
    return have_rows(w, rows, have);
}

int lh_worker_compute_late(struct lh_worker *w, struct lh_tree_node node)
{
    struct lh_rowpull *rows = NULL;
    bool have = true;
    if (w->tables) {
        LH_TRY(want_rows(w, w->version, true, &node, 1, &rows));
        LH_TRY(have_rows(w, rows, &have));
    }
    return have ? lh_worker_compute_node(w, node) : 0;
}

/* --- a share --------------------------------------------------------------------------------
 */
/* How long its own work on a step takes. */
void lh_worker_compute_note(struct lh_worker *w, double took)
{
    w->usual = mean_of_few(w->usual, took);
}

/* What the largest share of a step takes, by what this one took. A worker that has none waits for
 * what a step takes. */
static void note_share(struct lh_worker *w, const struct lh_tree_node *nodes, size_t n)
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
        lh_worker_compute_note(w, (lh_now() - w->stepped) * most / (double)mine);
}

int lh_worker_compute_share(struct lh_worker *w)
{
    struct lh_tree_node nodes[LH_WORKER_NODES];
    const bool anew = w->n_pushed == 0 && !w->tried;
    size_t n, i;
    do {
        w->reassigned = false;
        n = lh_tree_share(w->model.leaves, w->index, w->count, nodes);
        lh_exec_reuse(w->exec,
                      w->model.leaves / w->count > 1 || w->job->micro_batch > w->model.block);
        bool have = true;
        if (w->tables && n > 0)
            LH_TRY(have_rows_of_share(w, nodes, n, &have));
        if (!have)
            continue;
        for (i = 0; i < n && !w->reassigned && !lh_worker_is_off(w); i++) {
            if (is_pushed(w, nodes[i]))
                continue;
            LH_TRY(lh_worker_compute_node(w, nodes[i]));
        }
    } while (w->reassigned && !lh_worker_is_off(w));
    w->tried = true;
    if (anew && !lh_worker_is_off(w) && w->n_given == 0)
        note_share(w, nodes, n);
    /* What the next step will read does not depend on its weights: fetch it while they come. */
    if (n > 0 && !lh_worker_is_over(w) && w->version + 1 < w->until)
        LH_TRY(fill(w, w->version + 1, first_block(w, (uint64_t)nodes[0].index << nodes[0].level)));
    w->pull.asked = lh_now();
    return 0;
}

static struct lh_tree_node whole_step(const struct lh_worker *w)
{
    return (struct lh_tree_node){.level = lh_tree_height(w->model.leaves)};
}

int lh_worker_compute_ask_rows(struct lh_worker *w)
{
    const struct lh_tree_node all = whole_step(w);
    if (!w->tables || w->pull.version == LH_WIRE_LATEST)
        return 0;
    LH_TRY(want_rows(w, w->pull.version, false, &all, 1, NULL));
    int rc = lh_worker_tables_send(w->tables, &w->pull);
    return rc < 0 ? rc : 0;
}

/* The whole of a step, which no other worker shares. */
int lh_worker_compute_step(struct lh_worker *w)
{
    const struct lh_tree_node all = whole_step(w);
    bool have = true;
    lh_exec_reuse(w->exec, w->model.leaves > 1 || w->job->micro_batch > w->model.block);
    if (w->tables) {
        struct lh_rowpull *rows = NULL;
        LH_TRY(want_rows(w, w->version, false, &all, 1, &rows));
        LH_TRY(have_rows(w, rows, &have));
    }
    if (!have)
        return 0;
    LH_TRY(lh_worker_compute_node(w, all));
    lh_worker_compute_note(w, lh_now() - w->stepped);
    return 0;
}
