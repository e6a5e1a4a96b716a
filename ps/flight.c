/* Steps that are not in, ascending, and the claims on them. Invariant: every step in [low, high)
 * that is not listed is in; none outside is listed; every claim is on a listed step, and of those
 * that are not whole no two are of one worker or of one peer. There are about as many of both as
 * workers, so they are walked. */
#include "ps/flight.h"

#include "common/err.h"
#include "common/graph.h"
#include "common/mem.h"
#include "ps/reduce.h"
#include "ps/rowtable_reduce.h"

#include <assert.h>
#include <string.h>

struct step {
    uint64_t number;
    bool lost;      /* who had it is gone, or has another */
    double since;   /* when it was given last, or seen to be missing; negative: never yet */
    unsigned given; /* how often */
};

struct sum { /* as it comes */
    struct lh_reduce *tree;
    struct lh_rowtable_reduce *rows[LH_GRAPH_TABLES_MAX];
};

struct claim {
    struct lh_flight_claim of;
    uint64_t step, lacked;
    struct sum *sum; /* what has come of it; NULL: nothing */
    bool begun;      /* it is being applied */
};

struct lh_flight {
    size_t size;
    size_t rounded;     /* elements that are bfloat16 */
    struct step *steps; /* [n] */
    size_t n, cap;
    uint64_t high;
    struct claim *claims; /* [n_claims] */
    size_t n_claims, cap_claims;
    struct sum **pool; /* [n_pool] not in use */
    size_t n_pool, cap_pool;
    struct lh_rowtable_reduce_spec tables[LH_GRAPH_TABLES_MAX];
    size_t n_tables;
};

int lh_flight_create(struct lh_flight **out, size_t size)
{
    int rc;
    struct lh_flight *f = NULL;
    LH_TRY(LH_NEW(&f, "steps under way"));
    f->size = size;
    LH_TRY_TO(fail, LH_GROW(&f->steps, &f->cap, 64, "steps under way"));
    LH_TRY_TO(fail, LH_GROW(&f->claims, &f->cap_claims, 64, "steps under way"));
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

void lh_flight_tables(struct lh_flight *f, const uint32_t *dim, const size_t *max_ids, size_t n)
{
    assert(n <= LH_GRAPH_TABLES_MAX && f->n_claims == 0 && f->n_pool == 0);
    for (size_t k = 0; k < n; k++)
        f->tables[k] = (struct lh_rowtable_reduce_spec){1, dim[k], max_ids[k]};
    f->n_tables = n;
}

static void sum_destroy(struct sum **sum)
{
    if (!*sum)
        return;
    lh_reduce_destroy(&(*sum)->tree);
    for (size_t k = 0; k < LH_GRAPH_TABLES_MAX; k++)
        lh_rowtable_reduce_destroy(&(*sum)->rows[k]);
    lh_mem_free(*sum);
    *sum = NULL;
}

void lh_flight_destroy(struct lh_flight **out)
{
    struct lh_flight *f = *out;
    if (!f)
        return;
    for (size_t i = 0; i < f->n_claims; i++)
        sum_destroy(&f->claims[i].sum);
    for (size_t i = 0; i < f->n_pool; i++)
        sum_destroy(&f->pool[i]);
    lh_mem_free(f->steps);
    lh_mem_free(f->claims);
    lh_mem_free(f->pool);
    lh_mem_free(f);
    *out = NULL;
}

/* The pool has room: it was reserved when the tree was taken. */
static void put_back(struct lh_flight *f, struct claim *c)
{
    if (!c->sum)
        return;
    lh_reduce_reset(c->sum->tree);
    for (size_t k = 0; k < f->n_tables; k++)
        lh_rowtable_reduce_reset(c->sum->rows[k]);
    f->pool[f->n_pool++] = c->sum;
    c->sum = NULL;
}

static void end_claim(struct lh_flight *f, size_t i)
{
    put_back(f, &f->claims[i]);
    f->claims[i] = f->claims[--f->n_claims];
}

void lh_flight_reset(struct lh_flight *f, uint64_t version)
{
    while (f->n_claims > 0)
        end_claim(f, f->n_claims - 1);
    f->n = 0;
    f->high = version;
}

uint64_t lh_flight_low(const struct lh_flight *f)
{
    return f->n > 0 ? f->steps[0].number : f->high;
}

uint64_t lh_flight_high(const struct lh_flight *f)
{
    return f->high;
}

/* Number of the first listed step at or behind `step`. */
static size_t place_of(const struct lh_flight *f, uint64_t step)
{
    size_t i = f->n;
    while (i > 0 && f->steps[i - 1].number >= step)
        i--;
    return i;
}

uint64_t lh_flight_lacking(const struct lh_flight *f, uint64_t step)
{
    return place_of(f, step) + (step > f->high ? step - f->high : 0);
}

static struct step *find(const struct lh_flight *f, uint64_t step)
{
    size_t i = place_of(f, step);
    return i < f->n && f->steps[i].number == step ? &f->steps[i] : NULL;
}

/* --- who computes what -------------------------------------------------------------------------
 */
static struct claim *claim_on(const struct lh_flight *f, uint64_t step, uint32_t worker)
{
    for (size_t i = 0; i < f->n_claims; i++)
        if (f->claims[i].step == step && f->claims[i].of.worker == worker)
            return &f->claims[i];
    return NULL;
}

static bool has_claim(const struct lh_flight *f, uint64_t step)
{
    for (size_t i = 0; i < f->n_claims; i++)
        if (f->claims[i].step == step)
            return true;
    return false;
}

static bool is_whole(const struct lh_flight *f, const struct claim *c)
{
    bool all = c->sum && lh_reduce_root(c->sum->tree);
    for (size_t k = 0; k < f->n_tables && all; k++)
        all = lh_rowtable_reduce_root(c->sum->rows[k]) != NULL;
    return all;
}

/* The claim on a step whose sum is whole: of several, that which has begun to be applied. */
static const struct claim *whole(const struct lh_flight *f, uint64_t step)
{
    const struct claim *first = NULL;
    for (size_t i = 0; i < f->n_claims; i++) {
        const struct claim *c = &f->claims[i];
        if (c->step == step && is_whole(f, c) && (!first || c->begun))
            first = c;
    }
    return first;
}

uint64_t lh_flight_choose(const struct lh_flight *f, uint32_t worker, uint64_t limit)
{
    for (size_t i = 0; i < f->n_claims; i++)
        if (f->claims[i].of.worker == worker && !whole(f, f->claims[i].step))
            return f->claims[i].step;
    for (size_t i = 0; i < f->n; i++)
        if (f->steps[i].lost)
            return f->steps[i].number;
    return f->high < limit ? f->high : LH_FLIGHT_NONE;
}

/* Makes `step` one that is known of. */
static int expect(struct lh_flight *f, uint64_t step, struct step **out)
{
    if (step >= f->high && step - f->high >= LH_FLIGHT_AHEAD)
        return lh_err_set(LH_EPROTO, "step %llu is named where %llu is the next",
                          (unsigned long long)step, (unsigned long long)f->high);
    if (step >= f->high) {
        size_t more = (size_t)(step - f->high) + 1;
        LH_TRY(LH_GROW(&f->steps, &f->cap, f->n + more, "steps under way"));
        for (; f->high <= step; f->high++)
            f->steps[f->n++] = (struct step){.number = f->high, .since = -1};
    }
    *out = find(f, step);
    return *out ? 0 : LH_AGAIN;
}

/* A claim ends before its sum is there: nobody may have the step any more. One that is whole is
 * applied in any case. */
static void give_up(struct lh_flight *f, size_t i)
{
    const uint64_t step = f->claims[i].step;
    if (whole(f, step) == &f->claims[i])
        return;
    end_claim(f, i);
    if (!has_claim(f, step))
        find(f, step)->lost = true;
}

static bool same_peer(const struct lh_net_peer *a, const struct lh_net_peer *b)
{
    return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

int lh_flight_give(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *to, double now)
{
    struct step *s = NULL;
    LH_TRY(LH_GROW(&f->claims, &f->cap_claims, f->n_claims + 1, "steps under way"));
    int rc = expect(f, step, &s);
    if (rc != 0)
        return rc;
    for (size_t i = f->n_claims; i-- > 0;)
        if (f->claims[i].of.worker == to->worker || same_peer(&f->claims[i].of.peer, &to->peer))
            give_up(f, i);
    f->claims[f->n_claims++] =
        (struct claim){.of = *to, .step = step, .lacked = lh_flight_lacking(f, step)};
    s->lost = false;
    s->since = now;
    s->given++;
    return 0;
}

bool lh_flight_owes(const struct lh_flight *f, uint32_t worker, uint64_t step)
{
    for (size_t i = 0; i < f->n_claims; i++)
        if (f->claims[i].of.worker == worker && f->claims[i].step < step &&
            !whole(f, f->claims[i].step))
            return true;
    return false;
}

void lh_flight_lose(struct lh_flight *f, uint32_t worker)
{
    for (size_t i = f->n_claims; i-- > 0;)
        if (f->claims[i].of.worker == worker)
            give_up(f, i);
}

uint64_t lh_flight_late(struct lh_flight *f, const struct lh_flight_claim *who, double late,
                        double now)
{
    for (size_t i = 0; i < f->n; i++) {
        struct step *s = &f->steps[i];
        const struct claim *own = claim_on(f, s->number, who->worker);
        if (s->since < 0) /* it may be under way to whoever has it */
            s->since = now;
        const bool awaited = own && own->of.request == who->request;
        if (whole(f, s->number) || awaited || (!own && !s->lost && now - s->since <= late))
            continue;
        s->since = now;
        s->lost = false;
        return s->number;
    }
    return LH_FLIGHT_NONE;
}

/* --- sums --------------------------------------------------------------------------------------
 */
static int sum_create(const struct lh_flight *f, struct sum **out)
{
    int rc;
    struct sum *sum = NULL;
    LH_TRY(LH_NEW(&sum, "steps under way"));
    LH_TRY_TO(fail, lh_reduce_create(&sum->tree, 1, f->size));
    lh_reduce_round(sum->tree, f->rounded);
    for (size_t k = 0; k < f->n_tables; k++)
        LH_TRY_TO(fail, lh_rowtable_reduce_create(&sum->rows[k], &f->tables[k]));
    *out = sum;
    return 0;
fail:
    sum_destroy(&sum);
    return rc;
}

static int take_sum(struct lh_flight *f, struct claim *c)
{
    if (c->sum)
        return 0;
    if (f->n_pool > 0) {
        c->sum = f->pool[--f->n_pool];
        return 0;
    }
    LH_TRY(LH_GROW(&f->pool, &f->cap_pool, f->n_claims, "steps under way"));
    return sum_create(f, &c->sum);
}

/* What pieces of a claim are added to. */
static int sum_of(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *of,
                  struct sum **out)
{
    if (step >= f->high)
        return lh_err_set(LH_EPROTO, "a push for step %llu, which nobody was given",
                          (unsigned long long)step);
    struct claim *c = claim_on(f, step, of->worker);
    if (!c || c->of.request != of->request)
        return LH_AGAIN;
    LH_TRY(take_sum(f, c));
    *out = c->sum;
    return 0;
}

int lh_flight_add(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *of,
                  size_t first, size_t n, const void *data)
{
    struct sum *sum = NULL;
    assert(n > 0 && first < f->size && n <= f->size - first);
    int rc = sum_of(f, step, of, &sum);
    return rc != 0 ? rc : lh_reduce_add(sum->tree, (struct lh_tree_node){0, 0}, first, n, data);
}

int lh_flight_add_rows(struct lh_flight *f, uint64_t step, const struct lh_flight_claim *of,
                       size_t table, const struct lh_rowtable_piece *piece)
{
    struct sum *sum = NULL;
    assert(table < f->n_tables);
    int rc = sum_of(f, step, of, &sum);
    return rc != 0 ? rc
                   : lh_rowtable_reduce_add(sum->rows[table], (struct lh_tree_node){0, 0}, piece);
}

bool lh_flight_next(const struct lh_flight *f, struct lh_flight_sum *out)
{
    const struct claim *next = NULL;
    for (size_t i = 0; i < f->n; i++) {
        const struct claim *c = whole(f, f->steps[i].number);
        if (c && (!next || c->begun))
            next = c;
    }
    if (!next)
        return false;
    *out = (struct lh_flight_sum){.step = next->step,
                                  .worker = next->of.worker,
                                  .lacked = next->lacked,
                                  .given = find(f, next->step)->given,
                                  .tree = next->sum->tree,
                                  .rows = next->sum->rows};
    return true;
}

void lh_flight_begin(struct lh_flight *f, const struct lh_flight_sum *sum)
{
    for (size_t i = 0; i < f->n_claims; i++)
        if (f->claims[i].sum && f->claims[i].sum->tree == sum->tree)
            f->claims[i].begun = true;
}

const struct lh_net_peer *lh_flight_rival(const struct lh_flight *f,
                                          const struct lh_flight_sum *sum, size_t i)
{
    for (size_t k = 0; k < f->n_claims; k++) {
        const struct lh_flight_claim *of = &f->claims[k].of;
        if (f->claims[k].step == sum->step && of->worker != sum->worker && i-- == 0)
            return &of->peer;
    }
    return NULL;
}

void lh_flight_done(struct lh_flight *f, uint64_t step)
{
    size_t i = place_of(f, step);
    assert(i < f->n && f->steps[i].number == step);
    for (size_t k = f->n_claims; k-- > 0;)
        if (f->claims[k].step == step)
            end_claim(f, k);
    memmove(f->steps + i, f->steps + i + 1, (f->n - i - 1) * sizeof *f->steps);
    f->n--;
}
