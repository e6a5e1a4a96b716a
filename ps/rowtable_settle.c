/* How a version is set aside. To freeze is to tell the rows apart that have changed so far and are
 * in memory only; to settle, to write them, slice by slice, to what was the open run till then, and
 * to seal it. So a cut costs what changed since the last one, and no moment of it costs much. What
 * becomes of it is rowtable_cut.c's. */
#include "common/err.h"
#include "common/mem.h"
#include "ps/rowtable_internal.h"

#include <assert.h>
#include <string.h>

/* --- freeze ---------------------------------------------------------------------------------- */

/* What the last prepare did: which runs are durable now, which ones have become one. */
static void take_over(struct lh_rowtable *t)
{
    struct lh_rowtable_frozen *f = &t->frozen;
    for (uint32_t i = 0; i < f->version.n_runs && i < t->n_live; i++)
        t->live[i].durable = f->durable[i]; /* nothing has come in between */
    f->version.n_runs = 0;
    if (f->merge_n == 0)
        return;
    struct lh_rowtable_live *from = t->live + f->merge_from;
    for (size_t i = 0; i < f->merge_n; i++) {
        const uint64_t number = lh_rowtable_run_ref(from[i].run)->number;
        lh_rowtable_run_close(&from[i].run);
        lh_rowtable_files_drop(t->files, number);
    }
    from[0] = (struct lh_rowtable_live){f->merged, true};
    f->merged = NULL;
    memmove(from + 1, from + f->merge_n, (t->n_live - f->merge_from - f->merge_n) * sizeof *from);
    t->n_live -= f->merge_n - 1;
    f->merge_n = 0;
}

/* The run of a version set aside, or given up, is one of the sealed ones. */
static int seal(struct lh_rowtable *t)
{
    struct lh_rowtable_cutting *c = &t->cutting;
    if (!c->run)
        return 0;
    LH_TRY(lh_rowtable_run_seal(c->run));
    t->live[t->n_live++] = (struct lh_rowtable_live){c->run, false}; /* freeze made room */
    c->run = NULL;
    return 0;
}

/* Room for what is live, one that was given up before, and the next. */
static int make_room(struct lh_rowtable *t)
{
    struct lh_rowtable_frozen *f = &t->frozen;
    const size_t n = t->n_live + 2;
    LH_TRY(LH_GROW(&t->live, &t->cap_live, n, "table"));
    LH_TRY(lh_mem_realloc((void **)&f->version.runs, n, sizeof *f->version.runs, "table"));
    return lh_mem_realloc((void **)&f->durable, n, sizeof *f->durable, "table");
}

static void describe(const struct lh_rowtable *t, struct lh_rowtable_frozen *f)
{
    const struct lh_rowtable_spec *s = &t->spec;
    struct lh_rowtable_run_ref *runs = f->version.runs;
    f->version = (struct lh_rowtable_version){
        .job_digest = s->job_digest,
        .version = t->cutting.version,
        .shard = s->shard,
        .shards = s->shards,
        .dim = s->dim,
        .admit_after = s->admit_after,
        .name_hash = t->initial.purpose,
        .evict_after = s->evict_after,
        .seed = s->seed,
        .init_scale = s->init_scale,
        .runs = runs,
    };
    for (size_t i = 0; i < t->n_live; i++) {
        runs[i] = *lh_rowtable_run_ref(t->live[i].run);
        f->durable[i] = t->live[i].durable;
    }
    f->version.n_runs = (uint32_t)t->n_live;
    f->prepared = false;
}

int lh_rowtable_freeze(struct lh_rowtable *t)
{
    struct lh_rowtable_cutting *c = &t->cutting;
    if (c->begun || atomic_load_explicit(&t->frozen.taken, memory_order_acquire))
        return LH_AGAIN;
    take_over(t);
    LH_TRY(make_room(t));
    LH_TRY(seal(t));
    c->run = t->open;
    t->open = NULL;
    c->version = t->version;
    c->begun = true;
    c->failed.code = 0;
    lh_rowtable_cache_set_aside(t->cache);
    lh_rowtable_aside_begin(c->aside);
    return 0;
}

/* --- what is set aside ------------------------------------------------------------------------ */

/* Nothing is lost: a row that was copied is in the cache, or written, as it is now, and what is
 * written already is where it is looked for. A step does not fail because a version cannot be
 * written: who settles it will hear. */
static void give_up(struct lh_rowtable *t, int rc)
{
    lh_err_save(&t->cutting.failed, rc);
    t->cutting.begun = false;
    lh_rowtable_cache_rejoin(t->cache);
}

void lh_rowtable_settle_write(struct lh_rowtable *t, const uint32_t *slots, size_t n)
{
    int rc = lh_rowtable_write(t, &t->cutting.run, slots, n);
    if (rc < 0)
        give_up(t, rc);
}

/* Some rows more: LH_AGAIN until there are none. */
static int write_slice(struct lh_rowtable *t)
{
    struct lh_rowtable_cutting *c = &t->cutting;
    const struct lh_rowtable_record *rows;
    if (lh_rowtable_aside_look(c->aside))
        return LH_AGAIN;
    const size_t n = lh_rowtable_aside_next(c->aside, &rows);
    if (n == 0)
        return 0;
    LH_TRY(lh_rowtable_put(t, &c->run, rows, n));
    lh_rowtable_aside_written(c->aside);
    return LH_AGAIN;
}

/* Where steps change more rows again than there is room for, they do what settling it would have
 * done: each row is written once, and in order, whoever does it. */
void lh_rowtable_settle_keep(struct lh_rowtable *t, uint32_t slot)
{
    while (lh_rowtable_cache_is_aside(t->cache, slot) &&
           !lh_rowtable_aside_keep(t->cutting.aside, slot)) {
        int rc = write_slice(t);
        if (rc < 0)
            give_up(t, rc);
    }
}

static int finish(struct lh_rowtable *t)
{
    int rc = write_slice(t);
    if (rc != 0)
        return rc;
    assert(t->cache->n_aside == 0);
    LH_TRY(seal(t));
    t->cutting.begun = false;
    lh_rowtable_cache_rejoin(t->cache); /* nothing is aside any more */
    return 0;
}

int lh_rowtable_settle(struct lh_rowtable *t)
{
    struct lh_rowtable_cutting *c = &t->cutting;
    if (!c->begun)
        return c->failed.code < 0 ? lh_err_load(&c->failed) : 0;
    int rc = finish(t);
    if (rc < 0)
        give_up(t, rc);
    if (rc != 0)
        return rc;
    describe(t, &t->frozen);
    atomic_store_explicit(&t->frozen.taken, 1, memory_order_release);
    return 0;
}

void lh_rowtable_abandon(struct lh_rowtable *t)
{
    if (t->cutting.begun)
        give_up(t, 0);
    t->cutting.failed.code = 0;
    lh_rowtable_thaw(t);
}
