/* A merge of sorted runs. There are few of them, so the smallest head is found by looking at all.
 * See rowtable_scan.h. */
#include "ps/rowtable_scan.h"

#include "common/err.h"
#include "common/mem.h"

struct head {
    struct lh_rowtable_run *run;
    bool ended;
    struct lh_rowtable_record row;
};

struct lh_rowtable_scan {
    struct head *heads; /* oldest first */
    size_t n;
};

static int take(struct head *h, int rc)
{
    h->ended = rc == LH_NOTFOUND;
    return rc < 0 ? rc : 0;
}

int lh_rowtable_scan_seek(struct lh_rowtable_scan *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++) {
        struct head *h = &s->heads[i];
        LH_TRY(take(h, lh_rowtable_run_seek(h->run, id, &h->row)));
    }
    return 0;
}

int lh_rowtable_scan_next(struct lh_rowtable_scan *s, struct lh_rowtable_record *out)
{
    const struct head *first = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const struct head *h = &s->heads[i];
        if (!h->ended && (!first || h->row.id <= first->row.id)) /* of equal ones, the newest */
            first = h;
    }
    if (!first)
        return LH_NOTFOUND;
    *out = first->row;
    for (size_t i = 0; i < s->n; i++) {
        struct head *h = &s->heads[i];
        if (!h->ended && h->row.id == out->id)
            LH_TRY(take(h, lh_rowtable_run_next(h->run, &h->row)));
    }
    return 0;
}

int lh_rowtable_scan_create(struct lh_rowtable_scan **out, struct lh_rowtable_run *const *runs,
                            size_t n)
{
    struct lh_rowtable_scan *s = NULL;
    LH_TRY(LH_NEW(&s, "scan of a table"));
    s->n = n;
    int rc = LH_NEW_ARRAY(&s->heads, n, "scan of a table");
    for (size_t i = 0; rc >= 0 && i < n; i++)
        s->heads[i].run = runs[i];
    if (rc >= 0)
        rc = lh_rowtable_scan_seek(s, 0);
    if (rc < 0)
        lh_rowtable_scan_destroy(&s);
    else
        *out = s;
    return rc;
}

void lh_rowtable_scan_destroy(struct lh_rowtable_scan **s)
{
    if (!*s)
        return;
    lh_mem_free((*s)->heads);
    lh_mem_free(*s);
    *s = NULL;
}
