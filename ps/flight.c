/* The steps that are not in, ascending. Invariant: every step in [low, high) that is not listed is
 * in; none outside is listed. There are about as many as workers, so they are walked. */
#include "ps/flight.h"

#include "common/err.h"
#include "common/mem.h"
#include "ps/reduce.h"

#include <assert.h>
#include <string.h>

struct lh_flight {
    size_t size;
    size_t rounded;               /* elements that are bfloat16 */
    struct lh_flight_step *steps; /* [n] */
    size_t n, cap;
    uint64_t high;
    struct lh_reduce **pool; /* [n_pool] trees of one leaf, not in use */
    size_t n_pool, cap_pool;
};

int lh_flight_create(struct lh_flight **out, size_t size)
{
    int rc;
    struct lh_flight *f = NULL;
    LH_TRY(LH_NEW(&f, "steps under way"));
    f->size = size;
    LH_TRY_TO(fail, LH_GROW(&f->steps, &f->cap, 64, "steps under way"));
    LH_TRY_TO(fail, LH_GROW(&f->pool, &f->cap_pool, 64, "steps under way"));
    *out = f;
    return 0;
fail:
    lh_flight_destroy(&f);
    return rc;
}

void lh_flight_round(struct lh_flight *f, size_t n)
{
    f->rounded = n;
}

void lh_flight_destroy(struct lh_flight **out)
{
    struct lh_flight *f = *out;
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++)
        lh_reduce_destroy(&f->steps[i].tree);
    for (size_t i = 0; i < f->n_pool; i++)
        lh_reduce_destroy(&f->pool[i]);
    lh_mem_free(f->steps);
    lh_mem_free(f->pool);
    lh_mem_free(f);
    *out = NULL;
}

/* The pool has room: it was reserved when the tree was taken. */
static void put_back(struct lh_flight *f, struct lh_flight_step *s)
{
    if (!s->tree)
        return;
    lh_reduce_reset(s->tree);
    f->pool[f->n_pool++] = s->tree;
    s->tree = NULL;
}

void lh_flight_reset(struct lh_flight *f, uint64_t version)
{
    for (size_t i = 0; i < f->n; i++)
        put_back(f, &f->steps[i]);
    f->n = 0;
    f->high = version;
}

uint64_t lh_flight_low(const struct lh_flight *f)
{
    return f->n > 0 ? f->steps[0].step : f->high;
}

uint64_t lh_flight_high(const struct lh_flight *f)
{
    return f->high;
}

/* Number of the first listed step at or behind `step`. */
static size_t place_of(const struct lh_flight *f, uint64_t step)
{
    size_t i = f->n;
    while (i > 0 && f->steps[i - 1].step >= step)
        i--;
    return i;
}

uint64_t lh_flight_lacking(const struct lh_flight *f, uint64_t step)
{
    return place_of(f, step) + (step > f->high ? step - f->high : 0);
}

static struct lh_flight_step *find(const struct lh_flight *f, uint64_t step)
{
    size_t i = place_of(f, step);
    return i < f->n && f->steps[i].step == step ? &f->steps[i] : NULL;
}

const struct lh_flight_step *lh_flight_find(const struct lh_flight *f, uint64_t step)
{
    return find(f, step);
}

static bool is_whole(const struct lh_flight_step *s)
{
    return s->tree && lh_reduce_root(s->tree);
}

uint64_t lh_flight_choose(const struct lh_flight *f, uint32_t worker, uint64_t limit)
{
    uint64_t lost = LH_FLIGHT_NONE;
    for (size_t i = 0; i < f->n; i++) {
        const struct lh_flight_step *s = &f->steps[i];
        if (is_whole(s))
            continue;
        if (s->holder == worker)
            return s->step;
        if (s->lost && lost == LH_FLIGHT_NONE)
            lost = s->step;
    }
    if (lost != LH_FLIGHT_NONE)
        return lost;
    return f->high < limit ? f->high : LH_FLIGHT_NONE;
}

/* Makes `step` one that is known of. */
static int expect(struct lh_flight *f, uint64_t step, struct lh_flight_step **out)
{
    if (step >= f->high && step - f->high >= LH_FLIGHT_AHEAD)
        return lh_err_set(LH_EPROTO, "step %llu is named where %llu is the next",
                          (unsigned long long)step, (unsigned long long)f->high);
    if (step >= f->high) {
        size_t more = (size_t)(step - f->high) + 1;
        LH_TRY(LH_GROW(&f->steps, &f->cap, f->n + more, "steps under way"));
        for (; f->high <= step; f->high++)
            f->steps[f->n++] = (struct lh_flight_step){.step = f->high, .since = -1};
    }
    *out = find(f, step);
    return *out ? 0 : LH_AGAIN;
}

int lh_flight_give(struct lh_flight *f, uint64_t step, const struct lh_flight_asker *to, double now)
{
    struct lh_flight_step *s = NULL;
    int rc = expect(f, step, &s);
    if (rc != 0)
        return rc;
    s->holder = to->worker;
    s->request = to->request;
    s->lost = false;
    s->since = now;
    s->lacked = lh_flight_lacking(f, step);
    s->given++;
    if (s->first.size == 0)
        s->first = to->peer;
    return 0;
}

void lh_flight_lose(struct lh_flight *f, uint32_t worker)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->steps[i].holder == worker)
            f->steps[i].lost = true;
}

uint64_t lh_flight_late(struct lh_flight *f, const struct lh_flight_asker *who, double late,
                        double now)
{
    for (size_t i = 0; i < f->n; i++) {
        struct lh_flight_step *s = &f->steps[i];
        if (s->since < 0) /* it may be under way to whoever has it */
            s->since = now;
        const bool its = s->holder == who->worker, awaited = its && s->request == who->request;
        if (is_whole(s) || awaited || (!its && !s->lost && now - s->since <= late))
            continue;
        s->since = now;
        s->lost = false;
        return s->step;
    }
    return LH_FLIGHT_NONE;
}

static int take_tree(struct lh_flight *f, struct lh_flight_step *s)
{
    if (s->tree)
        return 0;
    if (f->n_pool > 0) {
        s->tree = f->pool[--f->n_pool];
        return 0;
    }
    LH_TRY(LH_GROW(&f->pool, &f->cap_pool, f->n, "steps under way"));
    LH_TRY(lh_reduce_create(&s->tree, 1, f->size));
    lh_reduce_round(s->tree, f->rounded);
    return 0;
}

int lh_flight_begin(struct lh_flight *f, uint64_t step, uint32_t worker)
{
    struct lh_flight_step *s = NULL;
    size_t begun = 0;
    int rc = expect(f, step, &s);
    if (rc != 0 || s->tree)
        return rc < 0 ? rc : 0;
    for (size_t i = 0; i < f->n; i++)
        begun += f->steps[i].tree && f->steps[i].begun_by == worker && !is_whole(&f->steps[i]);
    if (begun >= LH_FLIGHT_BEGUN)
        return lh_err_set(LH_EPROTO, "worker %u has begun %zu steps, and ended none of them",
                          worker, begun);
    s->begun_by = worker;
    return 0;
}

int lh_flight_add(struct lh_flight *f, uint64_t step, size_t first, size_t n, const void *data)
{
    struct lh_flight_step *s = NULL;
    assert(n > 0 && first < f->size && n <= f->size - first);
    int rc = expect(f, step, &s);
    if (rc != 0)
        return rc;
    LH_TRY(take_tree(f, s));
    return lh_reduce_add(s->tree, (struct lh_tree_node){0, 0}, first, n, data);
}

const struct lh_flight_step *lh_flight_next(const struct lh_flight *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (is_whole(&f->steps[i]))
            return &f->steps[i];
    return NULL;
}

void lh_flight_done(struct lh_flight *f, uint64_t step)
{
    size_t i = place_of(f, step);
    assert(i < f->n && f->steps[i].step == step);
    put_back(f, &f->steps[i]);
    memmove(f->steps + i, f->steps + i + 1, (f->n - i - 1) * sizeof *f->steps);
    f->n--;
}
