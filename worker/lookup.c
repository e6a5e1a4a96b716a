/* Ids of a block. */
#include "worker/lookup.h"

#include "common/dataset.h"
#include "common/err.h"
#include "common/idset.h"
#include "common/mem.h"

#include <string.h>

int lh_lookup_init(struct lh_lookup *l, const struct lh_job *job, const struct lh_graph *g,
                   struct lh_exec *exec, size_t block, const char *const *names, size_t n)
{
    *l = (struct lh_lookup){.n_tables = job->n_tables, .width = n, .block = block};
    for (size_t t = 0; t < job->n_tables; t++) {
        struct lh_lookup_table *x = &l->tables[t];
        x->n_ids = job->tables[t].n_ids;
        x->dim = job->tables[t].dim;
        LH_TRY(lh_job_tables_find(&job->tables[t], names, n, x->at));
        x->index[0] = lh_exec_table_index(exec, t, false);
        x->index[1] = lh_exec_table_index(exec, t, true);
        x->rows = lh_exec_table_rows(exec, t);
        for (int k = 0; k < 2; k++)
            x->learns[k] = lh_exec_table_learns(exec, t, k == 1);
        LH_TRY(LH_NEW_ARRAY(&x->ids, lh_graph_table_rows(g, t), "ids of a block"));
        LH_TRY(LH_NEW_ARRAY(&x->learnt, lh_graph_table_rows(g, t), "ids of a block"));
        LH_TRY(LH_NEW_ARRAY(&x->scratch, lh_graph_table_rows(g, t), "ids of a block"));
    }
    return 0;
}

void lh_lookup_fini(struct lh_lookup *l)
{
    for (size_t t = 0; t < l->n_tables; t++) {
        lh_mem_free(l->tables[t].ids);
        lh_mem_free(l->tables[t].learnt);
        lh_mem_free(l->tables[t].scratch);
    }
    *l = (struct lh_lookup){.n_tables = 0};
}

static void gather(struct lh_lookup_table *x, size_t width, const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < x->n_ids; k++) {
            const uint64_t id = ids[i * width + x->at[k]];
            if (id != LH_ID_NONE)
                x->ids[x->n++] = id;
        }
}

static ptrdiff_t place_of(const struct lh_lookup_table *x, uint64_t id)
{
    if (id == LH_ID_NONE)
        return -1;
    return (ptrdiff_t)lh_idset_find(x->ids, x->n, id);
}

static void set_index(struct lh_lookup_table *x, const struct lh_lookup *l, bool next,
                      const uint64_t *ids, size_t n)
{
    float *index = x->index[next];
    for (size_t i = 0; i < l->block; i++)
        for (size_t k = 0; k < x->n_ids; k++) {
            const ptrdiff_t at = i < n ? place_of(x, ids[i * l->width + x->at[k]]) : -1;
            *index++ = (float)at;
            if (at >= 0 && x->learns[next])
                x->learnt[at] = true;
        }
}

void lh_lookup_take(struct lh_lookup *l, const uint64_t *ids, const uint64_t *next_ids, size_t n)
{
    const uint64_t *from[] = {ids, next_ids};
    for (size_t t = 0; t < l->n_tables; t++) {
        struct lh_lookup_table *x = &l->tables[t];
        x->n = 0;
        for (int k = 0; k < 2; k++)
            if (x->index[k])
                gather(x, l->width, from[k], n);
        x->n = lh_idset_make(x->ids, x->n, x->scratch);
        memset(x->learnt, 0, x->n * sizeof *x->learnt);
        for (int k = 0; k < 2; k++)
            if (x->index[k])
                set_index(x, l, k == 1, from[k], n);
    }
}

int lh_lookup_add(const struct lh_lookup *l, const uint64_t *ids, const uint64_t *next_ids,
                  size_t n, struct lh_rowpull *to)
{
    const uint64_t *from[] = {ids, next_ids};
    for (size_t t = 0; t < l->n_tables; t++) {
        const struct lh_lookup_table *x = &l->tables[t];
        for (int k = 0; k < 2; k++)
            for (size_t c = 0; x->index[k] && c < x->n_ids; c++)
                LH_TRY(lh_rowpull_add(to, t, from[k] + x->at[c], n, l->width));
    }
    return 0;
}

int lh_lookup_fill(struct lh_lookup *l, const struct lh_rowpull *from)
{
    for (size_t t = 0; t < l->n_tables; t++) {
        const struct lh_lookup_table *x = &l->tables[t];
        for (size_t i = 0; i < x->n; i++) {
            const float *row = lh_rowpull_find(from, t, x->ids[i]);
            if (!row)
                return lh_err_set(LH_EINTERNAL, "row %016llx of table %zu was not pulled",
                                  (unsigned long long)x->ids[i], t);
            memcpy(x->rows + i * x->dim, row, x->dim * sizeof *row);
        }
    }
    return 0;
}
