/* The table: rows in memory, and what a step does to them. A row lives in the cache, else in the
 * open run, else in that of the version that is being set aside, else in the newest sealed run that
 * has it, else nowhere: then it has its initial value. Cuts are rowtable_settle.c and
 * rowtable_cut.c. */
#include "ps/rowtable.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/rowtable_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    DIM_MAX = 65536,
    NAME_MAX_ = 100,
    FILTERS = 16,   /* this part of the memory is for filters, */
    COPIES = 16,    /* this for rows that a cut needs as they were */
    RECORDS = 256,  /* handed to a run at a time */
    TOGETHER = 1024 /* ids of a pull */
};

/* --- life ------------------------------------------------------------------------------------ */

static int check_name(const char *name)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_ || strspn(name, fine) != n || name[0] == '.')
        return lh_err_set(
            LH_ERANGE,
            "table '%s': a name has letters, digits, '_', '-' and '.', does not begin "
            "with '.', and has %d at most",
            name, NAME_MAX_);
    return 0;
}

static int check_spec(const struct lh_rowtable_spec *s)
{
    LH_TRY(check_name(s->name));
    if (s->dim == 0 || s->dim > DIM_MAX || s->shard >= s->shards || !isfinite(s->init_scale))
        return lh_err_set(LH_ERANGE,
                          "table %s: rows of %u elements, initial scale %g, shard %u of %u: a row "
                          "has 1 to %d, the scale is finite",
                          s->name, s->dim, s->init_scale, s->shard, s->shards, DIM_MAX);
    if (!(s->beta1 >= 0 && s->beta1 < 1 && s->beta2 >= 0 && s->beta2 < 1 && s->epsilon > 0 &&
          s->learning_rate >= 0 && isfinite(s->learning_rate)))
        return lh_err_set(LH_ERANGE,
                          "table %s: Adam with learning rate %g, beta1 %g, beta2 %g, epsilon %g: "
                          "betas must be in [0, 1), epsilon above 0, the rate finite",
                          s->name, s->learning_rate, s->beta1, s->beta2, s->epsilon);
    return 0;
}

static int make(struct lh_rowtable *t, const char *store)
{
    const struct lh_rowtable_spec *s = &t->spec;
    const struct lh_rowtable_reduce_spec reduce = {s->leaves, s->dim, s->max_ids};
    LH_TRY(lh_mem_strdup(&t->name, s->name));
    t->spec.name = t->name;
    t->initial = lh_rowlist_stream(s->name, s->seed);
    LH_TRY(LH_NEW_ARRAY(&t->row, s->dim, "table"));
    if (!s->each)
        LH_TRY(lh_rowtable_reduce_create(&t->reduce, &reduce));
    atomic_init(&t->filters.left, s->cache_bytes / FILTERS);
    const size_t copies = s->cache_bytes / COPIES, rest = s->cache_bytes - copies;
    LH_TRY(lh_rowtable_cache_create(&t->cache, rest - s->cache_bytes / FILTERS, s->dim));
    LH_TRY(lh_rowtable_aside_create(&t->cutting.aside, t->cache, copies));
    LH_TRY(lh_rowtable_files_dir(&t->dir, store, s->name));
    LH_TRY(lh_rowtable_files_open(&t->files, t->dir));
    for (uint64_t i = 1; i < LH_ROWTABLE_ADAM_KNOWN; i++)
        t->adam[i] = lh_optimiser_adam_at(s->learning_rate, s->beta1, s->beta2, s->epsilon, i);
    return 0;
}

int lh_rowtable_create(struct lh_rowtable **out, const struct lh_rowtable_spec *spec,
                       const char *dir)
{
    struct lh_rowtable *t = NULL;
    LH_TRY(check_spec(spec));
    LH_TRY(LH_NEW(&t, "table"));
    t->spec = *spec;
    int rc = make(t, dir);
    if (rc < 0)
        lh_rowtable_destroy(&t);
    else
        *out = t;
    return rc;
}

static void drop(struct lh_rowtable *t, struct lh_rowtable_run **run)
{
    if (!*run)
        return;
    const uint64_t number = lh_rowtable_run_ref(*run)->number;
    lh_rowtable_run_close(run);
    lh_rowtable_files_drop(t->files, number);
}

void lh_rowtable_empty(struct lh_rowtable *t)
{
    assert(!atomic_load(&t->frozen.taken));
    drop(t, &t->open);
    drop(t, &t->cutting.run);
    while (t->n_live > 0)
        drop(t, &t->live[--t->n_live].run);
    if (t->frozen.merge_n > 0) /* nobody has taken it over */
        drop(t, &t->frozen.merged);
    t->cutting.begun = false;
    t->frozen.merge_n = t->applied = t->n_before = 0;
    t->has_before = false;
    lh_rowtable_cache_clear(t->cache);
    if (t->reduce)
        lh_rowtable_reduce_reset(t->reduce);
}

void lh_rowtable_destroy(struct lh_rowtable **out)
{
    struct lh_rowtable *t = *out;
    if (!t)
        return;
    if (t->files)
        lh_rowtable_empty(t);
    lh_rowtable_files_close(&t->files);
    lh_rowtable_cache_destroy(&t->cache);
    lh_rowtable_reduce_destroy(&t->reduce);
    lh_rowtable_aside_destroy(&t->cutting.aside);
    lh_mem_free(t->frozen.version.runs);
    lh_mem_free(t->frozen.durable);
    lh_mem_free(t->live);
    lh_mem_free(t->before_ids);
    lh_mem_free(t->before);
    lh_mem_free(t->row);
    lh_mem_free(t->dir);
    lh_mem_free(t->name);
    lh_mem_free(t);
    *out = NULL;
}

int lh_rowtable_init(struct lh_rowtable *t)
{
    lh_rowtable_empty(t);
    t->version = 0;
    return 0;
}

uint64_t lh_rowtable_version(const struct lh_rowtable *t)
{
    return t->version;
}

/* --- rows ------------------------------------------------------------------------------------ */

int lh_rowtable_put(struct lh_rowtable *t, struct lh_rowtable_run **run,
                    const struct lh_rowtable_record *rows, size_t n)
{
    if (!*run) {
        const bool oldest = t->n_live == 0 && (run == &t->cutting.run || !t->cutting.run);
        uint64_t number;
        LH_TRY(lh_rowtable_files_take(t->files, &number));
        int rc = lh_rowtable_run_create(run, t->dir, number, t->spec.dim,
                                        oldest ? NULL : &t->filters, 0);
        if (rc < 0) {
            lh_rowtable_files_drop(t->files, number);
            return rc;
        }
    }
    LH_TRY(lh_rowtable_run_put(*run, rows, n));
    t->stats.written += n;
    return 0;
}

static struct lh_rowtable_record record(const struct lh_rowtable *t, uint32_t slot)
{
    const struct lh_rowtable_slot *s = &t->cache->slots[slot];
    return (struct lh_rowtable_record){s->id, s->last, s->seen, s->updates,
                                       lh_rowtable_cache_arrays(t->cache, slot)};
}

int lh_rowtable_write(struct lh_rowtable *t, struct lh_rowtable_run **run, const uint32_t *slots,
                      size_t n)
{
    struct lh_rowtable_record rows[RECORDS];
    for (size_t at = 0, m; at < n; at += m) {
        m = n - at < RECORDS ? n - at : RECORDS;
        for (size_t i = 0; i < m; i++)
            rows[i] = record(t, slots[at + i]);
        LH_TRY(lh_rowtable_put(t, run, rows, m));
    }
    for (size_t i = 0; i < n; i++)
        lh_rowtable_cache_written(t->cache, slots[i]);
    return 0;
}

/* Those set aside to their version's run, others to the open one. */
int lh_rowtable_make_room(struct lh_rowtable *t)
{
    uint32_t aside[LH_ROWTABLE_CACHE_GOING], slots[LH_ROWTABLE_CACHE_GOING];
    const size_t n = lh_rowtable_cache_changed(t->cache);
    size_t n_aside = 0, n_slots = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t slot = t->cache->going[i].slot;
        if (lh_rowtable_cache_is_aside(t->cache, slot))
            aside[n_aside++] = slot;
        else
            slots[n_slots++] = slot;
    }
    if (n_aside > 0)
        lh_rowtable_settle_write(t, aside, n_aside);
    /* which was in vain: then they are like others */
    for (size_t i = 0; i < n_aside; i++)
        if (t->cache->slots[aside[i]].changed != 0)
            slots[n_slots++] = aside[i];
    return lh_rowtable_write(t, &t->open, slots, n_slots);
}

/* The row as it was written last: 0 or LH_NOTFOUND. */
static int look_up(struct lh_rowtable *t, uint64_t id, struct lh_rowtable_record *out)
{
    int rc = t->open ? lh_rowtable_run_get(t->open, id, out) : LH_NOTFOUND;
    if (rc == LH_NOTFOUND && t->cutting.run)
        rc = lh_rowtable_run_get(t->cutting.run, id, out);
    for (size_t i = t->n_live; rc == LH_NOTFOUND && i > 0; i--)
        rc = lh_rowtable_run_get(t->live[i - 1].run, id, out);
    return rc;
}

static void draw_initial(const struct lh_rowtable *t, uint64_t id, float *w)
{
    lh_rowlist_initial(&t->initial, t->spec.init_scale, id, w, t->spec.dim);
}

void lh_rowtable_fill(struct lh_rowtable *t, uint32_t slot, const struct lh_rowtable_record *row)
{
    const size_t dim = t->spec.dim;
    struct lh_rowtable_slot *s = &t->cache->slots[slot];
    float *w = lh_rowtable_cache_arrays(t->cache, slot);
    s->last = row->last;
    s->seen = row->seen;
    s->updates = row->updates;
    if (row->updates > 0) {
        memcpy(w, row->arrays, 3 * dim * sizeof *w);
    } else {
        draw_initial(t, s->id, w);
        memset(w + dim, 0, 2 * dim * sizeof *w);
    }
}

/* The slot of a row, fetched if it is not in memory. */
static int acquire(struct lh_rowtable *t, uint64_t id, uint32_t *out)
{
    struct lh_rowtable_cache *c = t->cache;
    struct lh_rowtable_record row = {0};
    *out = lh_rowtable_cache_find(c, id);
    if (*out != LH_ROWTABLE_CACHE_NONE) {
        t->stats.hits++;
        return 0;
    }
    t->stats.misses++;
    *out = lh_rowtable_cache_victim(c);
    if (c->slots[*out].changed != 0)
        LH_TRY(lh_rowtable_make_room(t));
    int rc = look_up(t, id, &row);
    LH_TRY(rc);
    lh_rowtable_cache_take(c, *out, id);
    lh_rowtable_fill(t, *out, &row);
    return 0;
}

static bool is_old(const struct lh_rowtable *t, const struct lh_rowtable_slot *s)
{
    return lh_rowtable_is_old(t->spec.evict_after, s->seen, s->last, t->version);
}

/* What a row is at `version`, the table's or the one before; not of one that was changed since. */
static const float *row_at(struct lh_rowtable *t, uint32_t slot, uint64_t version)
{
    const struct lh_rowtable_slot *s = &t->cache->slots[slot];
    if (!lh_rowtable_is_old(t->spec.evict_after, s->seen, s->last, version))
        return lh_rowtable_cache_arrays(t->cache, slot);
    draw_initial(t, s->id, t->row);
    return t->row;
}

/* The row that the last step has seen, as it was before; NULL: it has not seen it. */
static const float *find_before(const struct lh_rowtable *t, uint64_t id)
{
    size_t lo = 0, hi = t->n_before;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (t->before_ids[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_before && t->before_ids[lo] == id ? t->before + lo * t->spec.dim : NULL;
}

/* --- pull and push --------------------------------------------------------------------------- */

static int check_ids(const struct lh_rowtable *t, const void *ids, size_t n, const char *what)
{
    const struct lh_rowtable_spec *s = &t->spec;
    if (!lh_rowlist_ascends(ids, n))
        return lh_err_set(LH_EPROTO, "table %s: a %s with ids that do not ascend", s->name, what);
    for (size_t i = 0; s->shards > 1 && i < n; i++) {
        uint64_t id;
        memcpy(&id, (const char *)ids + i * sizeof id, sizeof id);
        if (lh_rowlist_shard(id, s->shards) != s->shard)
            return lh_err_set(LH_EPROTO,
                              "table %s: a %s with id %" PRIu64 ", which is shard %u's, came to "
                              "shard %u",
                              s->name, what, id, lh_rowlist_shard(id, s->shards), s->shard);
    }
    return 0;
}

static int pull(struct lh_rowtable *t, bool before, const void *ids, size_t n, void *rows)
{
    const size_t bytes = t->spec.dim * sizeof(float);
    uint64_t id[TOGETHER]; /* aligned */
    LH_TRY(check_ids(t, ids, n, "pull"));
    for (size_t at = 0, m; at < n; at += m) {
        m = n - at < TOGETHER ? n - at : TOGETHER;
        memcpy(id, (const char *)ids + at * sizeof *id, m * sizeof *id);
        for (size_t i = 0; i < m; i++) {
            const float *w = before ? find_before(t, id[i]) : NULL;
            uint32_t slot;
            lh_rowtable_cache_ahead(t->cache, id, i, m, bytes);
            if (!w) {
                LH_TRY(acquire(t, id[i], &slot));
                w = row_at(t, slot, t->version - before);
            }
            memcpy((char *)rows + (at + i) * bytes, w, bytes);
        }
    }
    return 0;
}

int lh_rowtable_pull(struct lh_rowtable *t, const void *ids, size_t n, void *rows)
{
    return pull(t, false, ids, n, rows);
}

int lh_rowtable_pull_before(struct lh_rowtable *t, const void *ids, size_t n, void *rows)
{
    /* in the middle of a step, which the disk did not take, what is kept is of that one */
    return t->has_before && t->applied == 0 ? pull(t, true, ids, n, rows) : LH_NOTFOUND;
}

int lh_rowtable_check_ids(const struct lh_rowtable *t, const struct lh_rowtable_piece *piece)
{
    return check_ids(t, piece->ids, piece->n, "push");
}

int lh_rowtable_push(struct lh_rowtable *t, uint64_t step, struct lh_tree_node node,
                     const struct lh_rowtable_piece *piece)
{
    if (step < t->version)
        return LH_AGAIN;
    if (step > t->version)
        return lh_err_set(LH_EPROTO, "table %s: a push for step %" PRIu64 " came at step %" PRIu64,
                          t->spec.name, step, t->version);
    LH_TRY(check_ids(t, piece->ids, piece->n, "push"));
    int rc = lh_rowtable_reduce_add(t->reduce, node, piece);
    return rc < 0 ? lh_err_prefix(rc, "table %s", t->spec.name) : rc;
}

enum lh_reduce_leaf lh_rowtable_leaf(const struct lh_rowtable *t, uint32_t leaf)
{
    return lh_rowtable_reduce_leaf(t->reduce, leaf);
}

const struct lh_rowlist *lh_rowtable_gradient(const struct lh_rowtable *t)
{
    return t->reduce ? lh_rowtable_reduce_root(t->reduce) : NULL;
}

/* --- a step ---------------------------------------------------------------------------------- */

int lh_rowtable_check_sum(const struct lh_rowtable *t, uint64_t step, const struct lh_rowlist *g)
{
    const size_t dim = t->spec.dim, n = g->n * dim;
    uint32_t largest = 0; /* of the magnitudes' bits, which order as the magnitudes do */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &g->values[i], sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    if (largest < 0x5f800000) /* 2^64: the square, which Adam keeps, is finite too */
        return 0;
    size_t i = 0;
    while (fabsf(g->values[i]) < 0x1p64f)
        i++;
    return lh_err_set(LH_EDIVERGED,
                      "step %" PRIu64 ": the gradient of table %s, id %" PRIu64
                      ", is %g: training diverged; lower the learning rates, or bound the actions",
                      step, t->spec.name, g->ids[i / dim], (double)g->values[i]);
}

int lh_rowtable_check(const struct lh_rowtable *t)
{
    const struct lh_rowlist *g = lh_rowtable_gradient(t);
    return g ? lh_rowtable_check_sum(t, t->version, g) : 0;
}

static struct lh_optimiser_adam adam_at(const struct lh_rowtable *t, uint32_t updates)
{
    const struct lh_rowtable_spec *s = &t->spec;
    if (updates < LH_ROWTABLE_ADAM_KNOWN)
        return t->adam[updates];
    return lh_optimiser_adam_at(s->learning_rate, s->beta1, s->beta2, s->epsilon, updates);
}

/* A row, which is at `before` as it is now, is seen, and updated if it is admitted. */
static void apply(struct lh_rowtable *t, uint32_t slot, const float *before, const float *g)
{
    const size_t dim = t->spec.dim;
    struct lh_rowtable_slot *s = &t->cache->slots[slot];
    float *w = lh_rowtable_cache_arrays(t->cache, slot);
    if (lh_rowtable_cache_is_aside(t->cache, slot))
        lh_rowtable_settle_keep(t, slot);
    if (is_old(t, s)) {
        lh_rowtable_fill(t, slot, &(struct lh_rowtable_record){.id = s->id});
        t->stats.evicted++;
    }
    s->last = t->version + 1;
    s->seen += s->seen < UINT32_MAX;
    lh_rowtable_cache_change(t->cache, slot);
    if (s->seen < t->spec.admit_after)
        return;
    t->stats.admitted += s->updates == 0;
    s->updates += s->updates < UINT32_MAX;
    const struct lh_optimiser_adam adam = adam_at(t, s->updates);
    const struct lh_optimiser_arrays a = {
        .g = g, .w = before, .m = w + dim, .v = w + 2 * dim, .w_out = w};
    lh_optimiser_adam_step(&adam, &a, 0, dim);
}

int lh_rowtable_apply(struct lh_rowtable *t, uint64_t step, const struct lh_rowlist *g)
{
    const size_t bytes = (size_t)3 * t->spec.dim * sizeof(float);
    if (t->applied == 0)
        LH_TRY(lh_rowtable_check_sum(t, step, g));
    LH_TRY(LH_GROW(&t->before_ids, &t->cap_before_ids, g->n, "rows before a step"));
    LH_TRY(LH_GROW(&t->before, &t->cap_before, g->n * t->spec.dim, "rows before a step"));
    for (; t->applied < g->n; t->applied++) {
        uint32_t slot;
        lh_rowtable_cache_ahead(t->cache, g->ids, t->applied, g->n, bytes);
        LH_TRY(acquire(t, g->ids[t->applied], &slot));
        float *before = t->before + t->applied * t->spec.dim;
        t->before_ids[t->applied] = g->ids[t->applied];
        memcpy(before, row_at(t, slot, t->version), t->spec.dim * sizeof *before);
        apply(t, slot, before, g->values + t->applied * t->spec.dim);
    }
    t->n_before = g->n;
    t->has_before = true;
    t->applied = 0;
    t->version++;
    return 0;
}

int lh_rowtable_advance(struct lh_rowtable *t, int *applied)
{
    const struct lh_rowlist *g = lh_rowtable_gradient(t);
    *applied = 0;
    if (!g)
        return 0;
    LH_TRY(lh_rowtable_apply(t, t->version, g));
    lh_rowtable_reduce_reset(t->reduce);
    *applied = 1;
    return 0;
}

void lh_rowtable_stats(const struct lh_rowtable *t, struct lh_rowtable_stats *out)
{
    *out = t->stats;
    out->rows_cached = t->cache->n_taken;
    out->rows_changed = t->cache->n_changed;
    out->cache_bytes = t->cache->bytes + lh_rowtable_aside_bytes(t->cutting.aside) +
                       t->spec.cache_bytes / FILTERS - atomic_load(&t->filters.left);
    out->files = t->n_live;
    if (t->open)
        out->rows_stored += lh_rowtable_run_ref(t->open)->records;
    if (t->cutting.run)
        out->rows_stored += lh_rowtable_run_ref(t->cutting.run)->records;
    for (size_t i = 0; i < t->n_live; i++) {
        const struct lh_rowtable_run_ref *ref = lh_rowtable_run_ref(t->live[i].run);
        out->rows_stored += ref->records;
        out->disk_bytes += ref->bytes;
    }
}
