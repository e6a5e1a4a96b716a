/* A worker's tables. */
#include "worker/worker_tables.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

int lh_worker_tables_create(struct lh_worker_tables **out, const struct lh_job *job,
                            const struct lh_model *model, struct lh_exec *exec,
                            const struct lh_dataset *ds)
{
    struct lh_worker_tables *t = NULL;
    struct lh_graph_spec spec = {0};
    int rc;
    *out = NULL;
    if (job->n_tables == 0)
        return 0;
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    lh_job_tables_declare(job, &spec);
    LH_TRY(LH_NEW(&t, "tables"));
    t->exec = exec;
    t->shards = model->layout.n_shards;
    LH_TRY_TO(fail, lh_lookup_init(&t->lookup, job, model->graph, exec, model->block,
                                   info->id_names, info->dims.ids));
    for (int k = 0; k < LH_WORKER_ROWS; k++)
        LH_TRY_TO(fail,
                  lh_rowpull_init(&t->at[k], spec.tables, spec.n_tables, t->shards, (uint32_t)k));
    for (size_t k = 0; k < job->n_tables; k++)
        lh_table_sum_init(&t->sum[k], job->tables[k].dim);
    LH_TRY_TO(fail, LH_NEW_ARRAY(&t->first, t->shards + 1, "tables"));
    *out = t;
    return 0;
fail:
    lh_worker_tables_destroy(&t);
    return rc;
}

void lh_worker_tables_destroy(struct lh_worker_tables **out)
{
    struct lh_worker_tables *t = *out;
    if (!t)
        return;
    for (size_t k = 0; k < LH_GRAPH_TABLES_MAX; k++) {
        lh_table_sum_fini(&t->sum[k]);
        lh_mem_free(t->dealt[k].ids);
        lh_mem_free(t->dealt[k].values);
    }
    lh_mem_free(t->learnt.ids);
    lh_mem_free(t->learnt.values);
    for (int k = 0; k < LH_WORKER_ROWS; k++)
        lh_rowpull_fini(&t->at[k]);
    lh_lookup_fini(&t->lookup);
    lh_mem_free(t->place);
    lh_mem_free(t->first);
    lh_mem_free(t->push);
    lh_mem_free(t);
    *out = NULL;
}

/* --- rows --------------------------------------------------------------------------------------
 */
int lh_worker_tables_want(struct lh_worker_tables *t, struct lh_feed *feed,
                          const struct lh_worker_share *share, struct lh_rowpull **pull)
{
    const size_t k = share->slot;
    struct lh_rowpull *p = &t->at[k];
    if (pull)
        *pull = p;
    if (share->count > 0 && p->asked && p->version == share->version &&
        t->share[k].index == share->index && t->share[k].count == share->count)
        return 0;
    t->share[k].index = share->index;
    t->share[k].count = share->count;
    lh_rowpull_begin(p, share->version);
    for (size_t i = 0; i < share->n; i++)
        for (uint32_t block = share->blocks[i][0]; block < share->blocks[i][1]; block++) {
            size_t n;
            LH_TRY(lh_feed_ids(feed, share->version, block, &n));
            LH_TRY(lh_lookup_add(&t->lookup, feed->ids, feed->next_ids, n, p));
        }
    return lh_rowpull_ask(p);
}

int lh_worker_tables_send(struct lh_worker_tables *t, struct lh_pull *over)
{
    for (int k = 0; k < LH_WORKER_ROWS; k++) {
        int rc = lh_rowpull_send(&t->at[k], over);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int lh_worker_tables_take(struct lh_worker_tables *t, size_t i, const struct lh_net_message *msg)
{
    int rc = LH_NOTFOUND;
    for (int k = 0; k < LH_WORKER_ROWS && rc == LH_NOTFOUND; k++)
        rc = lh_rowpull_take(&t->at[k], i, msg);
    return rc;
}

void lh_worker_tables_use(struct lh_worker_tables *t, const struct lh_rowpull *rows)
{
    t->used = rows;
}

int lh_worker_tables_fill(struct lh_worker_tables *t)
{
    return lh_lookup_fill(&t->lookup, t->used);
}

/* --- gradients ---------------------------------------------------------------------------------
 */
void lh_worker_tables_leaf(struct lh_worker_tables *t)
{
    for (size_t k = 0; k < t->lookup.n_tables; k++)
        lh_table_sum_leaf(&t->sum[k]);
}

/* The block's gradients of rows that one passes to. The others, which only targets read, are zero,
 * and no part of the sum: lazy Adam would take a step with them. */
static int learnt_rows(struct lh_worker_tables *t, size_t k, struct lh_rowlist *out)
{
    const struct lh_lookup_table *x = &t->lookup.tables[k];
    const float *grad = lh_exec_table_grad(t->exec, k);
    struct lh_table_list *to = &t->learnt;
    LH_TRY(LH_GROW(&to->ids, &to->cap, x->n + 1, "gradients of rows"));
    LH_TRY(LH_GROW(&to->values, &to->cap_values, x->n * x->dim + 1, "gradients of rows"));
    to->n = 0;
    for (size_t i = 0; grad && i < x->n; i++) {
        if (!x->learnt[i])
            continue;
        to->ids[to->n] = x->ids[i];
        memcpy(to->values + to->n++ * x->dim, grad + i * x->dim, x->dim * sizeof *grad);
    }
    *out = (struct lh_rowlist){.n = to->n, .ids = to->ids, .values = to->values};
    return 0;
}

int lh_worker_tables_block(struct lh_worker_tables *t)
{
    for (size_t k = 0; k < t->lookup.n_tables; k++) {
        struct lh_rowlist rows;
        LH_TRY(learnt_rows(t, k, &rows));
        LH_TRY(lh_table_sum_block(&t->sum[k], &rows));
    }
    return 0;
}

int lh_worker_tables_join(struct lh_worker_tables *t, uint32_t leaf)
{
    for (size_t k = 0; k < t->lookup.n_tables; k++)
        LH_TRY(lh_table_sum_join(&t->sum[k], leaf));
    return 0;
}

void lh_worker_tables_abandon(struct lh_worker_tables *t)
{
    for (size_t k = 0; k < t->lookup.n_tables; k++)
        lh_table_sum_abandon(&t->sum[k]);
}

/* --- pushing -----------------------------------------------------------------------------------
 */
/* A subtree's sum of table k, by server. */
static int deal(struct lh_worker_tables *t, size_t k, const struct lh_rowlist *sum)
{
    struct lh_table_list *to = &t->dealt[k];
    const size_t dim = t->sum[k].dim;
    LH_TRY(LH_GROW(&to->ids, &to->cap, sum->n + 1, "a push of rows"));
    LH_TRY(LH_GROW(&to->values, &to->cap_values, sum->n * dim + 1, "a push of rows"));
    LH_TRY(LH_GROW(&t->place, &t->cap_place, sum->n + 1, "a push of rows"));
    lh_rowlist_split(sum->ids, sum->n, (uint32_t)t->shards, t->place, t->first);
    for (size_t i = 0; i < sum->n; i++) {
        to->ids[i] = sum->ids[t->place[i]];
        memcpy(to->values + i * dim, sum->values + t->place[i] * dim, dim * sizeof(float));
    }
    return 0;
}

/* Its pieces; a server that has none of its ids is told so by one that is empty. */
static int cut(struct lh_worker_tables *t, size_t k)
{
    const size_t most = LH_WIRE_PIECE / t->sum[k].dim ? LH_WIRE_PIECE / t->sum[k].dim : 1;
    for (size_t s = 0; s < t->shards; s++) {
        const size_t total = t->first[s + 1] - t->first[s];
        size_t lo = 0;
        do {
            const size_t n = total - lo < most ? total - lo : most;
            LH_TRY(LH_GROW(&t->push, &t->cap_push, t->n_push + 1, "a push of rows"));
            t->push[t->n_push++] = (struct lh_worker_push){.table = (uint32_t)k,
                                                           .shard = (uint32_t)s,
                                                           .first = lo,
                                                           .total = total,
                                                           .at = t->first[s] + lo,
                                                           .n = n};
            lo += n;
        } while (lo < total);
    }
    return 0;
}

/* The pushes of a whole sum, or of a part of one that will not be whole. */
static int make_pushes(struct lh_worker_tables *t, bool part)
{
    t->n_push = t->pushed = 0;
    for (size_t k = 0; k < t->lookup.n_tables; k++) {
        struct lh_rowlist sum;
        if (part && !lh_table_sum_part(&t->sum[k], &sum))
            return lh_err_set(LH_EINTERNAL, "a subtree has no sum of rows");
        if (!part)
            LH_TRY(lh_table_sum_end(&t->sum[k], &sum));
        LH_TRY(deal(t, k, &sum));
        LH_TRY(cut(t, k));
    }
    return 0;
}

int lh_worker_tables_end(struct lh_worker_tables *t)
{
    return make_pushes(t, false);
}

int lh_worker_tables_part(struct lh_worker_tables *t)
{
    return make_pushes(t, true);
}

int lh_worker_tables_push(struct lh_worker_tables *t, struct lh_pull *over,
                          const struct lh_envelope *env)
{
    for (; t->pushed < t->n_push; t->pushed++) {
        const struct lh_worker_push *p = &t->push[t->pushed];
        const struct lh_table_list *from = &t->dealt[p->table];
        const size_t dim = t->sum[p->table].dim;
        struct lh_envelope e = *env;
        e.kind = LH__KIND__KIND_TABLE_PUSH;
        e.first = p->first;
        e.count = p->n;
        const uint64_t head[] = {p->table, p->total};
        const struct lh_net_part parts[] = {
            {.data = head, .size = sizeof head},
            {.data = from->ids + p->at, .size = p->n * sizeof(uint64_t)},
            {.data = from->values + p->at * dim, .size = p->n * dim * sizeof(float)}};
        int rc = lh_net_send(over->shards[p->shard].socket, NULL, &e, parts, 3);
        if (rc == LH_AGAIN || (rc < 0 && rc != LH_NOTFOUND))
            return rc; /* a broken connection: the step is done again in time */
    }
    return 0;
}
