/* Ids are sorted whenever a list has doubled, so that it stays near as long as it will be. See
 * cut_rows.h. */
#include "cluster/cut_rows.h"

#include "common/err.h"
#include "common/idset.h"
#include "common/mem.h"

#include <string.h>

enum { LEAST = 4096 };

/* A list of ids on its way to be a set. */
struct list {
    uint64_t *ids, *scratch;
    size_t n, cap, cap_scratch, tidy; /* length at which it is made a set next */
};

static int make_set(struct list *l)
{
    LH_TRY(LH_GROW(&l->scratch, &l->cap_scratch, l->n, "ids of a split"));
    l->n = lh_idset_make(l->ids, l->n, l->scratch);
    l->tidy = 2 * l->n > LEAST ? 2 * l->n : LEAST;
    return 0;
}

static int add(void *ctx, size_t t, const uint64_t *ids, size_t n, size_t stride)
{
    struct list *l = (struct list *)ctx + t;
    LH_TRY(LH_GROW(&l->ids, &l->cap, l->n + n, "ids of a split"));
    for (size_t i = 0; i < n; i++)
        if (ids[i * stride] != LH_ID_NONE) /* which has no row */
            l->ids[l->n++] = ids[i * stride];
    return l->n > l->tidy ? make_set(l) : 0;
}

int lh_cut_rows_init(struct lh_cut_rows *r, const struct lh_cut_evaluation *e, enum lh_split split,
                     uint64_t first, uint64_t n)
{
    struct list lists[LH_GRAPH_TABLES_MAX] = {{0}};
    *r = (struct lh_cut_rows){.n = e->job->n_tables};
    for (size_t t = 0; t < r->n; t++)
        lists[t].tidy = LEAST;
    int rc = lh_cut_evaluation_each(e, split, first, n, add, lists);
    for (size_t t = 0; t < r->n; t++) {
        if (rc >= 0)
            rc = make_set(&lists[t]);
        r->tables[t].ids = lists[t].ids;
        r->tables[t].n = lists[t].n;
        r->tables[t].dim = e->job->tables[t].dim;
        lh_mem_free(lists[t].scratch);
    }
    if (rc < 0)
        lh_cut_rows_fini(r);
    return rc;
}

void lh_cut_rows_fini(struct lh_cut_rows *r)
{
    for (size_t t = 0; t < r->n; t++) {
        lh_mem_free(r->tables[t].ids);
        lh_mem_free(r->tables[t].rows);
    }
    *r = (struct lh_cut_rows){.n = 0};
}

int lh_cut_rows_make(struct lh_cut_rows *r)
{
    for (size_t t = 0; t < r->n; t++)
        LH_TRY(LH_NEW_ARRAY(&r->tables[t].rows, r->tables[t].n * r->tables[t].dim + 1,
                            "rows of tables"));
    return 0;
}

static int pull(void *ctx, size_t t, const uint64_t *ids, size_t n, float *rows)
{
    const struct lh_cut_rows *r = ctx;
    const size_t dim = r->tables[t].dim;
    for (size_t i = 0; i < n; i++) {
        const size_t at = lh_idset_find(r->tables[t].ids, r->tables[t].n, ids[i]);
        if (at == SIZE_MAX)
            return lh_err_set(LH_EINTERNAL, "a row that was not sent is looked up");
        memcpy(rows + i * dim, r->tables[t].rows + at * dim, dim * sizeof *rows);
    }
    return 0;
}

struct lh_row_source lh_cut_rows_source(struct lh_cut_rows *r)
{
    return (struct lh_row_source){.ctx = r->n > 0 ? r : NULL, .pull = r->n > 0 ? pull : NULL};
}
