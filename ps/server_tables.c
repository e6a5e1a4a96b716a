/* Tables and their messages. Every length is checked here before a table sees it; what the ids and
 * nodes mean, the table checks. */
#include "ps/server_tables.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <assert.h>
#include <string.h>

#define ASKS_MAX       65536 /* that wait; an evaluation has some thousands */
#define ASKS_A_WORKER  4096
#define ASKS_WARM      64   /* of which the memory is kept, some 1 MB each at most */
#define STEPS_A_WORKER 4    /* whose ids it may have waiting */
#define PATIENCE       60.0 /* seconds for which a disk may be full */
#define PAUSE          0.5  /* seconds between tries */

int lh_server_tables_open(struct lh_server_tables *t, const struct lh_server_tables_spec *spec)
{
    const struct lh_job *job = spec->job;
    uint32_t dim[LH_GRAPH_TABLES_MAX];
    size_t most[LH_GRAPH_TABLES_MAX];
    *t = (struct lh_server_tables){.jobs = job->tables,
                                   .job = spec->digest,
                                   .node = spec->node,
                                   .loans = spec->loans,
                                   .flight = spec->flight,
                                   .rows_for = spec->rows_for,
                                   .ctx = spec->ctx,
                                   .patience = PATIENCE,
                                   .pause = PAUSE};
    while (t->n < job->n_tables) {
        const struct lh_job_table *k = &job->tables[t->n];
        /* both states of every row may name other ids */
        const size_t max_ids = 2 * job->batch * k->n_ids;
        t->most[t->n] = STEPS_A_WORKER * max_ids;
        dim[t->n] = k->dim;
        most[t->n] = max_ids;
        LH_TRY(lh_rowtable_create(&t->at[t->n],
                                  &(struct lh_rowtable_spec){.name = k->name,
                                                             .dim = k->dim,
                                                             .seed = job->seed,
                                                             .init_scale = k->init,
                                                             .learning_rate = k->learning_rate,
                                                             .beta1 = job->beta1,
                                                             .beta2 = job->beta2,
                                                             .epsilon = job->epsilon,
                                                             .admit_after = k->admit_after,
                                                             .evict_after = k->evict_after,
                                                             .shard = spec->shard,
                                                             .shards = spec->shards,
                                                             .leaves = spec->leaves,
                                                             .each = spec->flight != NULL,
                                                             .max_ids = max_ids,
                                                             .cache_bytes = (size_t)k->cache << 20,
                                                             .job_digest = spec->digest},
                                  spec->store));
        t->n++;
        LH_TRY(lh_rowtable_prune(t->at[t->n - 1], spec->keep, spec->n_keep));
    }
    if (t->flight)
        lh_flight_tables(t->flight, dim, most, t->n);
    return 0;
}

/* The memory of the first few is kept. */
static void drop_ask(struct lh_server_tables *t, size_t i)
{
    const struct lh_server_ask a = t->asks[i];
    struct lh_server_ask *last = &t->asks[--t->n_asks];
    t->asks[i] = *last;
    *last = (struct lh_server_ask){.ids = a.ids, .cap = a.cap};
    if (t->n_asks < ASKS_WARM)
        return;
    lh_mem_free(last->ids);
    *last = (struct lh_server_ask){.n = 0};
}

void lh_server_tables_close(struct lh_server_tables *t)
{
    for (size_t i = 0; i < t->cap_asks; i++)
        lh_mem_free(t->asks[i].ids);
    lh_mem_free(t->asks);
    for (size_t k = 0; k < t->n; k++)
        lh_rowtable_destroy(&t->at[k]);
    *t = (struct lh_server_tables){.n = 0};
}

int lh_server_tables_restore(struct lh_server_tables *t, uint64_t version, const char *const *dirs,
                             size_t n_dirs)
{
    for (size_t k = 0; k < t->n; k++)
        LH_TRY(n_dirs == 0 ? lh_rowtable_init(t->at[k])
                           : lh_rowtable_restore(t->at[k], version, dirs, n_dirs));
    return 0;
}

/* --- a full disk -------------------------------------------------------------------------------
 */
static uint64_t rows_written(const struct lh_server_tables *t)
{
    uint64_t n = 0;
    for (size_t k = 0; k < t->n; k++) {
        struct lh_rowtable_stats one;
        lh_rowtable_stats(t->at[k], &one);
        n += one.written;
    }
    return n;
}

static bool may_write(const struct lh_server_tables *t)
{
    return t->refused == 0 || lh_now() - t->tried > t->pause;
}

/* The disk has no room: LH_AGAIN for as long as there is patience. */
static int refused(struct lh_server_tables *t, int rc)
{
    t->tried = lh_now();
    if (t->refused == 0) {
        t->refused = t->tried;
        t->written = rows_written(t);
        lh_log_tell(LH_LOG_WARN, "disk_error",
                    LH_FIELDS(LH_F("code", lh_err_name(rc)), LH_F("reason", lh_err_text())),
                    "%s; training waits, for %g s at most", lh_err_text(), t->patience);
    }
    return t->tried - t->refused < t->patience ? LH_AGAIN : rc;
}

/* What came of using a table. To use it need not be to write: there is room again when something
 * was written. A file system that had errors may be read-only until somebody has mended it. */
static int used(struct lh_server_tables *t, int rc)
{
    if (rc == LH_ENOSPC || rc == LH_EIO || rc == LH_EACCES)
        return refused(t, rc);
    if (t->refused > 0 && rows_written(t) > t->written) {
        lh_log_tell(LH_LOG_INFO, "disk_free", LH_FIELDS(LH_F("seconds", lh_now() - t->refused)),
                    "rows of tables can be written again; training goes on");
        t->refused = 0;
    }
    return rc;
}

/* --- pushes ------------------------------------------------------------------------------------
 */
/* The table that a push is for, and which piece of a list it is. */
static int read_push(const struct lh_server_tables *t, const struct lh_net_message *msg,
                     uint64_t *table, struct lh_rowtable_piece *piece)
{
    const struct lh_envelope *env = &msg->env;
    uint64_t head[2];
    size_t head_bytes, id_bytes, row_bytes;
    const void *at = lh_net_frame(msg, 0, &head_bytes);
    *piece = (struct lh_rowtable_piece){.first = env->first,
                                        .n = env->count,
                                        .ids = lh_net_frame(msg, 1, &id_bytes),
                                        .values = lh_net_frame(msg, 2, &row_bytes)};
    if (head_bytes != sizeof head)
        return lh_err_set(LH_EPROTO, "a push of rows with a head of %zu bytes", head_bytes);
    memcpy(head, at, sizeof head);
    *table = head[0];
    piece->total = head[1];
    if (*table >= t->n)
        return lh_err_set(LH_EPROTO, "a push to table %llu of %zu", (unsigned long long)*table,
                          t->n);
    const size_t dim = t->jobs[*table].dim;
    if (env->count > SIZE_MAX / (dim * sizeof(float)) ||
        id_bytes != env->count * sizeof(uint64_t) || row_bytes != env->count * dim * sizeof(float))
        return lh_err_set(LH_EPROTO, "a push of %llu rows in %zu and %zu bytes",
                          (unsigned long long)env->count, id_bytes, row_bytes);
    return 0;
}

int lh_server_tables_push(struct lh_server_tables *t, const struct lh_net_message *msg)
{
    const struct lh_envelope *env = &msg->env;
    struct lh_rowtable_piece piece;
    uint64_t table = 0;
    LH_TRY(read_push(t, msg, &table, &piece));
    if (!t->flight)
        return lh_rowtable_push(t->at[table], env->step,
                                (struct lh_tree_node){.level = env->level, .index = env->index},
                                &piece);
    const struct lh_flight_claim of = {.worker = env->node, .request = env->request};
    LH_TRY(lh_rowtable_check_ids(t->at[table], &piece));
    int rc = lh_flight_add_rows(t->flight, env->step, &of, (size_t)table, &piece);
    return rc < 0 ? lh_err_prefix(rc, "table %s", t->jobs[table].name) : rc;
}

/* --- pulls -------------------------------------------------------------------------------------
 */
static int send_moved(struct lh_net_socket *socket, const struct lh_server_ask *a,
                      const struct lh_envelope *env)
{
    int rc = lh_net_send(socket, &a->peer, env, NULL, 0);
    return rc < 0 || rc == LH_AGAIN ? rc : 0;
}

/* Whether it may be tried to answer. */
static bool is_due(const struct lh_server_tables *t, const struct lh_server_ask *a)
{
    return t->rows_for(t->ctx, a->node, a->version) != LH_SERVER_ROWS_LATER;
}

/* LH_AGAIN: not now, the peer has too much to take yet, or the disk is full. */
static int answer(struct lh_server_tables *t, struct lh_net_socket *socket,
                  const struct lh_server_ask *a, const void *ids)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_MOVED,
                              .job = t->job,
                              .node = t->node,
                              .step = lh_rowtable_version(t->at[0]),
                              .request = a->request};
    if (t->behind || !may_write(t))
        return LH_AGAIN;
    const enum lh_server_rows which = t->rows_for(t->ctx, a->node, a->version);
    const bool before = which == LH_SERVER_ROWS_BEFORE; /* another server has lost that step */
    if (which == LH_SERVER_ROWS_GONE)
        return send_moved(socket, a, &env);
    const size_t size = a->n * t->jobs[a->table].dim * sizeof(float);
    struct lh_loan *loan = NULL;
    void *rows = NULL;
    int rc = lh_loans_begin_rows(t->loans, &a->peer, size, &rows, &loan);
    if (rc != 0)
        return rc;
    rc = used(
        t, (before ? lh_rowtable_pull_before : lh_rowtable_pull)(t->at[a->table], ids, a->n, rows));
    if (rc != 0) {
        lh_loan_release(rows, loan);
        return rc == LH_NOTFOUND ? send_moved(socket, a, &env) : rc;
    }
    const struct lh_net_part part = {
        .data = rows, .size = size, .release = lh_loan_release, .hint = loan};
    env.kind = LH__KIND__KIND_TABLE_ROWS;
    env.step = a->version;
    env.first = a->table;
    env.count = a->n;
    rc = lh_net_send(socket, &a->peer, &env, &part, 1);
    if (rc == LH_AGAIN)
        lh_loan_release(rows, loan);
    return rc < 0 || rc == LH_AGAIN ? rc : 0; /* a peer that is gone asks no more */
}

int lh_server_tables_answer(struct lh_server_tables *t, struct lh_net_socket *socket)
{
    t->withheld = false;
    for (size_t i = 0; i < t->n_asks;) {
        const bool due = is_due(t, &t->asks[i]);
        int rc = due ? answer(t, socket, &t->asks[i], t->asks[i].ids) : LH_AGAIN;
        if (rc == LH_AGAIN) {
            t->withheld = t->withheld || due;
            i++;
            continue;
        }
        drop_ask(t, i);
        if (rc == LH_EPROTO) /* ids that do not ascend, or are another server's: never answered */
            rc = 0;
        LH_TRY(rc);
    }
    return 0;
}

/* Where each step is a worker's own, it wants the rows for one at a time. */
static void drop_other_steps(struct lh_server_tables *t, const struct lh_server_ask *a)
{
    for (size_t i = t->n_asks; t->flight && a->node != 0 && i-- > 0;)
        if (t->asks[i].node == a->node && t->asks[i].version != a->version)
            drop_ask(t, i);
}

static int grow_asks(struct lh_server_tables *t)
{
    const size_t before = t->cap_asks;
    LH_TRY(LH_GROW(&t->asks, &t->cap_asks, t->n_asks + 1, "pulls of rows"));
    memset(t->asks + before, 0, (t->cap_asks - before) * sizeof *t->asks);
    return 0;
}

/* The same request once more, perhaps over another connection, replaces the first. A worker has no
 * more waiting than two steps have ids, and some that it asked for in vain; the evaluation's
 * number is what the log has. */
static int keep(struct lh_server_tables *t, const struct lh_server_ask *a, const void *from)
{
    size_t asks = 0, ids = a->n;
    for (size_t i = t->n_asks; i-- > 0;) {
        const struct lh_server_ask *other = &t->asks[i];
        if (other->node != a->node)
            continue;
        if (other->request == a->request) {
            drop_ask(t, i);
            continue;
        }
        asks++;
        ids += other->table == a->table ? other->n : 0;
    }
    if (a->node != 0 && (asks >= ASKS_A_WORKER || ids > t->most[a->table]))
        return lh_err_set(LH_EPROTO, "worker %u waits for %zu ids by %zu pulls; at most %zu and %d",
                          a->node, ids, asks + 1, t->most[a->table], ASKS_A_WORKER);
    if (t->n_asks == ASKS_MAX)
        return lh_err_set(LH_EPROTO, "more than %d pulls of rows wait", ASKS_MAX);
    LH_TRY(grow_asks(t));
    struct lh_server_ask *to = &t->asks[t->n_asks];
    LH_TRY(LH_GROW(&to->ids, &to->cap, a->n, "a pull of rows"));
    uint64_t *const copy = to->ids;
    const size_t cap = to->cap;
    memcpy(copy, from, a->n * sizeof *copy);
    *to = *a;
    to->ids = copy;
    to->cap = cap;
    t->n_asks++;
    return 0;
}

int lh_server_tables_pull(struct lh_server_tables *t, struct lh_net_socket *socket,
                          const struct lh_net_message *msg)
{
    const struct lh_envelope *env = &msg->env;
    size_t bytes;
    const void *ids = lh_net_frame(msg, 0, &bytes);
    struct lh_server_ask a = {.peer = msg->peer,
                              .node = env->node,
                              .version = env->step,
                              .request = env->request,
                              .table = (uint32_t)env->first,
                              .n = env->count};
    if (env->first >= t->n || env->count == 0 || env->count > LH_WIRE_PIECE ||
        (env->count > 1 && env->count * t->jobs[env->first].dim > LH_WIRE_PIECE) ||
        bytes != env->count * sizeof(uint64_t))
        return lh_err_set(LH_EPROTO, "a pull of %llu rows of table %llu in %zu bytes",
                          (unsigned long long)env->count, (unsigned long long)env->first, bytes);
    drop_other_steps(t, &a);
    const bool due = is_due(t, &a);
    int rc = due ? answer(t, socket, &a, ids) : LH_AGAIN;
    if (rc != LH_AGAIN)
        return rc;
    t->withheld = t->withheld || due;
    return keep(t, &a, ids);
}

/* --- steps -------------------------------------------------------------------------------------
 */
enum lh_reduce_leaf lh_server_tables_leaf(const struct lh_server_tables *t, uint32_t leaf)
{
    enum lh_reduce_leaf all = lh_rowtable_leaf(t->at[0], leaf);
    for (size_t k = 1; k < t->n; k++)
        all = lh_reduce_leaf_both(all, lh_rowtable_leaf(t->at[k], leaf));
    return all;
}

bool lh_server_tables_whole(const struct lh_server_tables *t)
{
    for (size_t k = 0; k < t->n && !t->behind; k++)
        if (!lh_rowtable_gradient(t->at[k]))
            return false;
    return true;
}

int lh_server_tables_check(const struct lh_server_tables *t, const struct lh_flight_sum *own)
{
    for (size_t k = 0; k < t->n && !t->behind; k++)
        LH_TRY(
            own ? lh_rowtable_check_sum(t->at[k], own->step, lh_rowtable_reduce_root(own->rows[k]))
                : lh_rowtable_check(t->at[k]));
    return 0;
}

static int advance_table(struct lh_rowtable *t, size_t k, const struct lh_flight_sum *own)
{
    int applied;
    return own ? lh_rowtable_apply(t, own->step, lh_rowtable_reduce_root(own->rows[k]))
               : lh_rowtable_advance(t, &applied);
}

int lh_server_tables_advance(struct lh_server_tables *t, uint64_t version,
                             const struct lh_flight_sum *own)
{
    if (!may_write(t))
        return LH_AGAIN;
    t->behind = true;
    for (size_t k = 0; k < t->n; k++) {
        if (lh_rowtable_version(t->at[k]) != version)
            continue; /* it has the step done */
        int rc = used(t, advance_table(t->at[k], k, own));
        if (rc != 0)
            return rc;
    }
    t->behind = false;
    return 0;
}

void lh_server_tables_stats(const struct lh_server_tables *t, struct lh_rowtable_stats *out)
{
    *out = (struct lh_rowtable_stats){0};
    for (size_t k = 0; k < t->n; k++) {
        struct lh_rowtable_stats one;
        lh_rowtable_stats(t->at[k], &one);
        out->rows_cached += one.rows_cached;
        out->hits += one.hits;
        out->misses += one.misses;
        out->disk_bytes += one.disk_bytes;
    }
}

int lh_server_tables_freeze(struct lh_server_tables *t)
{
    assert(!t->behind);
    for (size_t k = 0; k < t->n; k++) {
        int rc = lh_rowtable_freeze(t->at[k]);
        if (rc == 0)
            continue;
        while (k-- > 0)
            lh_rowtable_abandon(t->at[k]);
        return rc;
    }
    return 0;
}

int lh_server_tables_settle(struct lh_server_tables *t)
{
    for (size_t k = 0; k < t->n; k++) {
        int rc = lh_rowtable_settle(t->at[k]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

void lh_server_tables_abandon(struct lh_server_tables *t)
{
    for (size_t k = 0; k < t->n; k++)
        lh_rowtable_abandon(t->at[k]);
}
