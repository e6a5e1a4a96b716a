/* The shard. Weights and targets live in generations: a step reads the current one and writes
 * another, so that whoever was lent the current one is never disturbed; moments are updated in
 * place, since nobody reads them while a step is applied. */
#include "ps/shard.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/flight.h"
#include "ps/optimiser.h"
#include "ps/reduce.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define NEVER UINT64_MAX

/* One set of weights and targets. It has one reference of the shard and one per loan; who drops the
 * last one frees it. */
struct generation {
    _Atomic uint32_t refs;
    float *w, *target;          /* [size]; target NULL if no tensor has one */
    uint64_t *w_of, *target_of; /* [n_segments] the version that made each segment's content */
};

struct frozen {
    struct lh_frozen view;
    _Atomic int taken;
    float *moments;    /* [2 size] */
    uint64_t *updates; /* [n_segments] */
    struct generation *generation;
};

struct lh_shard {
    struct lh_shard_range range;
    char *names;
    size_t size, n_metrics;
    uint32_t leaves;
    double beta1, beta2, epsilon;
    int has_targets;
    uint64_t version;
    struct generation **generations;
    size_t n_generations, cap_generations;
    struct generation *current, *before; /* before: of the version before; NULL: none */
    float *m, *v;                        /* [size] */
    uint64_t *updates;                   /* [n_segments] */
    struct lh_reduce *reduce; /* of the current step, or, where each is a worker's own, */
    struct lh_flight *flight; /* of all that are under way */
    struct frozen frozen;
};

/* --- generations ----------------------------------------------------------------------------- */

static void generation_drop(struct generation *g)
{
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
        return;
    lh_mem_free(g->w);
    lh_mem_free(g->target);
    lh_mem_free(g->w_of);
    lh_mem_free(g);
}

static int zeroed(float **out, size_t n)
{
    void *p = NULL;
    LH_TRY(lh_mem_alloc_aligned(&p, n, sizeof(float), "parameters of a shard"));
    memset(p, 0, n * sizeof(float));
    *out = p;
    return 0;
}

static int generation_add(struct lh_shard *s, struct generation **out)
{
    int rc;
    struct generation *g = NULL;
    const size_t n = s->range.n_segments;
    LH_TRY(LH_GROW(&s->generations, &s->cap_generations, s->n_generations + 1, "shard"));
    LH_TRY(LH_NEW(&g, "shard"));
    atomic_init(&g->refs, 1);
    LH_TRY_TO(fail, zeroed(&g->w, s->size));
    if (s->has_targets)
        LH_TRY_TO(fail, zeroed(&g->target, s->size));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&g->w_of, 2 * n, "shard"));
    g->target_of = g->w_of + n;
    for (size_t i = 0; i < 2 * n; i++)
        g->w_of[i] = NEVER;
    s->generations[s->n_generations++] = g;
    *out = g;
    return 0;
fail:
    generation_drop(g);
    return rc;
}

/* The generation to write next: the first that nobody reads. With few loans these are always the
 * same two, which the caches then know. */
static int generation_next(struct lh_shard *s, struct generation **out)
{
    for (size_t i = 0; i < s->n_generations; i++) {
        *out = s->generations[i];
        if (*out != s->current && atomic_load_explicit(&(*out)->refs, memory_order_acquire) == 1)
            return 0;
    }
    return generation_add(s, out);
}

/* The current generation was written from outside: nobody else has its content. */
static void generation_renew(struct lh_shard *s)
{
    s->before = NULL;
    for (size_t i = 0; i < s->n_generations; i++) {
        struct generation *g = s->generations[i];
        for (size_t k = 0; k < 2 * s->range.n_segments; k++)
            g->w_of[k] = g == s->current ? s->version : NEVER;
    }
}

/* --- life ------------------------------------------------------------------------------------ */

static int check_segment(const struct lh_shard_range *r, size_t i)
{
    const struct lh_segment *s = &r->segments[i];
    const uint64_t lo = i > 0 ? r->segments[i - 1].hi : r->lo;
    uint64_t elements;
    if (s->lo < lo || s->hi > r->hi || s->lo >= s->hi ||
        __builtin_mul_overflow(s->rows, s->cols, &elements) || elements != s->hi - s->lo)
        return lh_err_set(LH_ERANGE, "%s: elements %llu to %llu do not fit in shard %u", s->name,
                          (unsigned long long)s->lo, (unsigned long long)s->hi, r->shard);
    if (s->period == 0 || s->target_period == 0 || !(s->tau >= 0 && s->tau <= 1) ||
        !(s->learning_rate >= 0) || isinf(s->learning_rate))
        return lh_err_set(LH_ERANGE,
                          "%s: learning rate %g, period %u, tau %g, target period %u: rates must "
                          "be finite and not negative, tau at most 1, periods at least 1",
                          s->name, s->learning_rate, s->period, s->tau, s->target_period);
    return 0;
}

static int check_spec(const struct lh_shard_spec *spec)
{
    const struct lh_shard_range *r = spec->range;
    if (r->lo >= r->hi || r->hi > r->flat_size || r->n_segments == 0 || spec->leaves == 0)
        return lh_err_set(LH_ERANGE, "shard %u of %u has elements %llu to %llu, %u leaves: empty",
                          r->shard, r->shards, (unsigned long long)r->lo, (unsigned long long)r->hi,
                          spec->leaves);
    if (!(spec->beta1 >= 0 && spec->beta1 < 1 && spec->beta2 >= 0 && spec->beta2 < 1 &&
          spec->epsilon > 0))
        return lh_err_set(LH_ERANGE,
                          "Adam with beta1 %g, beta2 %g, epsilon %g: betas must be in [0, 1), "
                          "epsilon above 0",
                          spec->beta1, spec->beta2, spec->epsilon);
    for (size_t i = 0; i < r->n_segments; i++)
        LH_TRY(check_segment(r, i));
    return 0;
}

static int copy_range(struct lh_shard *s, const struct lh_shard_range *from)
{
    size_t bytes = 0;
    for (size_t i = 0; i < from->n_segments; i++)
        bytes += strlen(from->segments[i].name) + 1;
    s->range = *from;
    s->range.segments = NULL;
    LH_TRY(LH_NEW_ARRAY(&s->range.segments, from->n_segments, "shard"));
    LH_TRY(LH_NEW_ARRAY(&s->names, bytes, "shard"));
    char *at = s->names;
    for (size_t i = 0; i < from->n_segments; i++) {
        s->range.segments[i] = from->segments[i];
        s->range.segments[i].name = strcpy(at, from->segments[i].name);
        at += strlen(at) + 1;
        s->has_targets |= from->segments[i].has_target;
    }
    return 0;
}

int lh_shard_create(struct lh_shard **out, const struct lh_shard_spec *spec)
{
    int rc;
    struct lh_shard *s = NULL;
    struct generation *spare;
    LH_TRY(check_spec(spec));
    LH_TRY(LH_NEW(&s, "shard"));
    LH_TRY_TO(fail, copy_range(s, spec->range));
    s->size = (size_t)(s->range.hi - s->range.lo);
    s->n_metrics = spec->n_metrics;
    s->leaves = spec->leaves;
    s->beta1 = spec->beta1;
    s->beta2 = spec->beta2;
    s->epsilon = spec->epsilon;
    LH_TRY_TO(fail, generation_add(s, &s->current));
    LH_TRY_TO(fail, generation_add(s, &spare));
    LH_TRY_TO(fail, zeroed(&s->m, s->size));
    LH_TRY_TO(fail, zeroed(&s->v, s->size));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&s->updates, s->range.n_segments, "shard"));
    LH_TRY_TO(fail, spec->each ? lh_flight_create(&s->flight, s->size + s->n_metrics)
                               : lh_reduce_create(&s->reduce, s->leaves, s->size + s->n_metrics));
    if (spec->bf16 && spec->each)
        lh_flight_round(s->flight, s->size);
    else if (spec->bf16)
        lh_reduce_round(s->reduce, s->size);
    generation_renew(s);
    *out = s;
    return 0;
fail:
    lh_shard_destroy(&s);
    return rc;
}

void lh_shard_destroy(struct lh_shard **shard)
{
    struct lh_shard *s = *shard;
    if (!s)
        return;
    assert(!atomic_load(&s->frozen.taken));
    for (size_t i = 0; i < s->n_generations; i++)
        generation_drop(s->generations[i]);
    lh_mem_free(s->generations);
    lh_reduce_destroy(&s->reduce);
    lh_flight_destroy(&s->flight);
    lh_mem_free(s->frozen.moments);
    lh_mem_free(s->frozen.updates);
    lh_mem_free(s->m);
    lh_mem_free(s->v);
    lh_mem_free(s->updates);
    lh_mem_free(s->range.segments);
    lh_mem_free(s->names);
    lh_mem_free(s);
    *shard = NULL;
}

static void forget_sums(struct lh_shard *s)
{
    if (s->flight)
        lh_flight_reset(s->flight, s->version);
    else
        lh_reduce_reset(s->reduce);
}

void lh_shard_init(struct lh_shard *s, const float *weights)
{
    struct generation *g = s->current;
    assert(atomic_load(&g->refs) == 1);
    for (size_t i = 0; i < s->range.n_segments; i++) {
        const struct lh_segment *seg = &s->range.segments[i];
        const size_t at = (size_t)(seg->lo - s->range.lo), n = (size_t)(seg->hi - seg->lo);
        memcpy(g->w + at, weights + at, n * sizeof(float));
        if (seg->has_target)
            memcpy(g->target + at, weights + at, n * sizeof(float));
        s->updates[i] = 0;
    }
    memset(s->m, 0, s->size * sizeof(float));
    memset(s->v, 0, s->size * sizeof(float));
    s->version = 0;
    generation_renew(s);
    forget_sums(s);
}

void lh_shard_init_targets(struct lh_shard *s, const float *targets)
{
    assert(s->version == 0 && atomic_load(&s->current->refs) == 1);
    for (size_t i = 0; i < s->range.n_segments; i++) {
        const struct lh_segment *seg = &s->range.segments[i];
        const size_t at = (size_t)(seg->lo - s->range.lo), n = (size_t)(seg->hi - seg->lo);
        if (seg->has_target)
            memcpy(s->current->target + at, targets + at, n * sizeof(float));
    }
    generation_renew(s);
}

uint64_t lh_shard_version(const struct lh_shard *s)
{
    return s->version;
}

size_t lh_shard_size(const struct lh_shard *s)
{
    return s->size;
}

const struct lh_shard_range *lh_shard_range_of(const struct lh_shard *s)
{
    return &s->range;
}

const struct lh_reduce *lh_shard_reduce(const struct lh_shard *s)
{
    return s->reduce;
}

struct lh_flight *lh_shard_flight(struct lh_shard *s)
{
    return s->flight;
}

const float *lh_shard_weights(const struct lh_shard *s)
{
    return s->current->w;
}

const float *lh_shard_targets(const struct lh_shard *s)
{
    return s->current->target;
}

const float *lh_shard_lend(struct lh_shard *s, int targets, void **token)
{
    *token = NULL;
    if (targets && !s->has_targets)
        return NULL;
    atomic_fetch_add_explicit(&s->current->refs, 1, memory_order_relaxed);
    *token = s->current;
    return targets ? s->current->target : s->current->w;
}

const float *lh_shard_weights_before(const struct lh_shard *s)
{
    return s->before ? s->before->w : NULL;
}

const float *lh_shard_targets_before(const struct lh_shard *s)
{
    return s->before ? s->before->target : NULL;
}

const float *lh_shard_lend_before(struct lh_shard *s, void **token)
{
    *token = s->before;
    if (!s->before)
        return NULL;
    atomic_fetch_add_explicit(&s->before->refs, 1, memory_order_relaxed);
    return s->before->w;
}

void lh_shard_release(void *data, void *token)
{
    (void)data;
    generation_drop(token);
}

/* --- a step ---------------------------------------------------------------------------------- */

static int check_node(const struct lh_shard *s, struct lh_tree_node node)
{
    if (!lh_tree_has(s->leaves, node))
        return lh_err_set(LH_EPROTO, "a push names node (%u, %u), but a step has %u micro-batches",
                          node.level, node.index, s->leaves);
    return 0;
}

static int check_piece(const struct lh_shard *s, size_t first, size_t n, const void *metrics)
{
    if (n == 0 || first >= s->size || n > s->size - first)
        return lh_err_set(LH_EPROTO,
                          "a push of %zu elements from %zu on does not fit in the %zu "
                          "of shard %u",
                          n, first, s->size, s->range.shard);
    if (first == 0 && s->n_metrics > 0 && !metrics)
        return lh_err_set(LH_EPROTO, "a push from element 0 on carries no metrics");
    return 0;
}

/* Metrics are elements behind the parameters. They first: a piece is then taken whole, or, if
 * memory runs out between the two, may be sent again. */
int lh_shard_push(struct lh_shard *s, uint64_t step, struct lh_tree_node node, size_t first,
                  const void *data, size_t n, const void *metrics)
{
    int taken = LH_AGAIN, rc = LH_AGAIN;
    assert(s->reduce);
    if (step < s->version)
        return LH_AGAIN;
    if (step > s->version)
        return lh_err_set(LH_EPROTO, "a push for step %llu came to shard %u at step %llu",
                          (unsigned long long)step, s->range.shard, (unsigned long long)s->version);
    LH_TRY(check_node(s, node));
    LH_TRY(check_piece(s, first, n, metrics));
    if (first == 0 && s->n_metrics > 0)
        LH_TRY(taken = lh_reduce_add(s->reduce, node, s->size, s->n_metrics, metrics));
    LH_TRY(rc = lh_reduce_add(s->reduce, node, first, n, data));
    return taken == 0 ? 0 : rc;
}

int lh_shard_push_own(struct lh_shard *s, uint64_t step, const struct lh_flight_claim *of,
                      size_t first, const void *data, size_t n, const void *metrics)
{
    int taken = LH_AGAIN, rc = LH_AGAIN;
    LH_TRY(check_piece(s, first, n, metrics));
    if (first == 0 && s->n_metrics > 0)
        LH_TRY(taken = lh_flight_add(s->flight, step, of, s->size, s->n_metrics, metrics));
    LH_TRY(rc = lh_flight_add(s->flight, step, of, first, n, data));
    return taken == 0 ? 0 : rc;
}

/* The tree of the step that is applied next; NULL if none is whole. */
static const struct lh_reduce *next_tree(const struct lh_shard *s, uint64_t *step)
{
    *step = s->version;
    if (!s->flight)
        return lh_reduce_root(s->reduce) ? s->reduce : NULL;
    struct lh_flight_sum next;
    if (!lh_flight_next(s->flight, &next))
        return NULL;
    *step = next.step;
    return next.tree;
}

const float *lh_shard_gradient(const struct lh_shard *s)
{
    uint64_t step;
    const struct lh_reduce *tree = next_tree(s, &step);
    return tree ? lh_reduce_root(tree) : NULL;
}

const float *lh_shard_metrics(const struct lh_shard *s)
{
    const float *root = lh_shard_gradient(s);
    return root && s->n_metrics > 0 ? root + s->size : NULL;
}

/* Names the first gradient of a trained tensor that is not below 2^64: then its square, which Adam
 * keeps, is not finite either. */
static int find_divergence(const struct lh_shard *s, uint64_t step, const float *g)
{
    for (size_t i = 0; i < s->range.n_segments; i++) {
        const struct lh_segment *seg = &s->range.segments[i];
        for (uint64_t e = seg->lo; seg->trained && e < seg->hi; e++) {
            const float x = g[e - s->range.lo];
            if (!(fabsf(x) < 0x1p64f)) {
                const unsigned long long row = seg->row + (e - seg->lo) / seg->cols;
                return lh_err_set(LH_EDIVERGED,
                                  "step %llu: the gradient of %s, row %llu, is %g: training "
                                  "diverged; lower the learning rates, or bound the actions",
                                  (unsigned long long)step, seg->name, row, (double)x);
            }
        }
    }
    return 0;
}

static void copy_if_older(float *to, uint64_t *to_of, const float *from, uint64_t from_of, size_t n)
{
    if (*to_of == from_of)
        return; /* a tensor that does not change is not copied at every step */
    memcpy(to, from, n * sizeof *to);
    *to_of = from_of;
}

static void apply_segment(struct lh_shard *s, size_t i, const float *g, struct generation *next)
{
    const struct lh_segment *seg = &s->range.segments[i];
    const struct generation *now = s->current;
    const size_t at = (size_t)(seg->lo - s->range.lo), n = (size_t)(seg->hi - seg->lo);
    const uint64_t made = s->version + 1;
    const int adam = seg->trained && made % seg->period == 0;
    const int soft = seg->trained && seg->has_target && made % seg->target_period == 0;
    if (adam) {
        const struct lh_optimiser_adam c = lh_optimiser_adam_at(
            seg->learning_rate, s->beta1, s->beta2, s->epsilon, ++s->updates[i]);
        const struct lh_optimiser_arrays a = {
            .g = g + at,
            .w = now->w + at,
            .m = s->m + at,
            .v = s->v + at,
            .w_out = next->w + at,
            .target = soft ? now->target + at : NULL,
            .target_out = soft ? next->target + at : NULL,
        };
        lh_optimiser_adam_step(&c, &a, (float)seg->tau, n);
        next->w_of[i] = made;
    } else {
        copy_if_older(next->w + at, &next->w_of[i], now->w + at, now->w_of[i], n);
        if (soft)
            lh_optimiser_soft_update(now->w + at, now->target + at, next->target + at,
                                     (float)seg->tau, n);
    }
    if (soft)
        next->target_of[i] = made;
    else if (seg->has_target)
        copy_if_older(next->target + at, &next->target_of[i], now->target + at, now->target_of[i],
                      n);
}

int lh_shard_check(const struct lh_shard *s)
{
    uint64_t step;
    const struct lh_reduce *tree = next_tree(s, &step);
    return !tree || lh_reduce_sound(tree) ? 0 : find_divergence(s, step, lh_reduce_root(tree));
}

int lh_shard_advance(struct lh_shard *s, int *applied, float *metrics_out)
{
    struct generation *next = NULL;
    uint64_t step;
    *applied = 0;
    const struct lh_reduce *tree = next_tree(s, &step);
    if (!tree)
        return 0;
    const float *g = lh_reduce_root(tree);
    LH_TRY(lh_shard_check(s));
    LH_TRY(generation_next(s, &next));
    for (size_t i = 0; i < s->range.n_segments; i++)
        apply_segment(s, i, g, next);
    if (metrics_out && s->n_metrics > 0)
        memcpy(metrics_out, g + s->size, s->n_metrics * sizeof *g);
    s->version++;
    s->before = s->current;
    s->current = next;
    if (s->flight)
        lh_flight_done(s->flight, step);
    else
        lh_reduce_reset(s->reduce);
    *applied = 1;
    return 0;
}

/* --- checkpoints ----------------------------------------------------------------------------- */

int lh_shard_freeze(struct lh_shard *s, const struct lh_frozen **out)
{
    struct frozen *f = &s->frozen;
    if (atomic_load_explicit(&f->taken, memory_order_acquire))
        return LH_AGAIN;
    if (!f->updates)
        LH_TRY(LH_NEW_ARRAY(&f->updates, s->range.n_segments, "checkpoint"));
    if (!f->moments) {
        void *p = NULL;
        LH_TRY(lh_mem_alloc_aligned(&p, s->size, 2 * sizeof(float), "checkpoint"));
        f->moments = p;
    }
    memcpy(f->moments, s->m, s->size * sizeof(float));
    memcpy(f->moments + s->size, s->v, s->size * sizeof(float));
    memcpy(f->updates, s->updates, s->range.n_segments * sizeof *s->updates);
    f->generation = s->current;
    atomic_fetch_add_explicit(&f->generation->refs, 1, memory_order_relaxed);
    f->view = (struct lh_frozen){
        .range = &s->range,
        .version = s->version,
        .updates = f->updates,
        .w = f->generation->w,
        .m = f->moments,
        .v = f->moments + s->size,
        .target = f->generation->target,
    };
    atomic_store_explicit(&f->taken, 1, memory_order_relaxed);
    *out = &f->view;
    return 0;
}

void lh_shard_thaw(struct lh_shard *s, const struct lh_frozen *frozen)
{
    if (!frozen)
        return;
    assert(frozen == &s->frozen.view && atomic_load(&s->frozen.taken));
    generation_drop(s->frozen.generation);
    atomic_store_explicit(&s->frozen.taken, 0, memory_order_release);
}

/* n rows from `from`, or zeros. */
static void put_rows(float *to, const void *from, size_t skip, size_t n)
{
    if (from)
        memcpy(to, (const char *)from + skip * sizeof *to, n * sizeof *to);
    else
        memset(to, 0, n * sizeof *to);
}

int lh_shard_load(struct lh_shard *s, const struct lh_rows *rows, uint64_t *taken)
{
    assert(atomic_load(&s->current->refs) == 1);
    for (size_t i = 0; i < s->range.n_segments; i++) {
        const struct lh_segment *seg = &s->range.segments[i];
        if (strcmp(seg->name, rows->name) != 0)
            continue;
        if (seg->cols != rows->cols)
            return lh_err_set(LH_EMISMATCH, "%s: has %llu columns here and %llu in the checkpoint",
                              seg->name, (unsigned long long)seg->cols,
                              (unsigned long long)rows->cols);
        const uint64_t lo = rows->row > seg->row ? rows->row : seg->row;
        const uint64_t end = rows->row + rows->rows, seg_end = seg->row + seg->rows;
        const uint64_t hi = end < seg_end ? end : seg_end;
        if (lo >= hi)
            continue;
        const size_t at = (size_t)(seg->lo - s->range.lo + (lo - seg->row) * seg->cols);
        const size_t skip = (size_t)((lo - rows->row) * seg->cols);
        const size_t n = (size_t)((hi - lo) * seg->cols);
        put_rows(s->current->w + at, rows->w, skip, n);
        put_rows(s->m + at, rows->m, skip, n);
        put_rows(s->v + at, rows->v, skip, n);
        if (seg->has_target)
            put_rows(s->current->target + at, rows->target ? rows->target : rows->w, skip, n);
        s->updates[i] = rows->updates;
        *taken += n;
    }
    return 0;
}

int lh_shard_set_version(struct lh_shard *s, uint64_t version, uint64_t taken)
{
    uint64_t elements = 0;
    for (size_t i = 0; i < s->range.n_segments; i++)
        elements += s->range.segments[i].hi - s->range.segments[i].lo;
    if (taken != elements)
        return lh_err_set(LH_EMISMATCH,
                          "version %llu has %llu of the %llu elements of shard %u; a store of the "
                          "cut is missing",
                          (unsigned long long)version, (unsigned long long)taken,
                          (unsigned long long)elements, s->range.shard);
    s->version = version;
    generation_renew(s);
    forget_sums(s);
    return 0;
}
