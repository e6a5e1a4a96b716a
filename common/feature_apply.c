/* Computing features, one user at a time. Every feature is a function of a reference row r and of
 * the rows strictly before it; r is the row itself, or the first row of its session for
 * `at: session_start`. Nothing else of row r is read but its time and, by present features, the
 * columns they name. So nothing can look ahead. */
#include "common/feature_internal.h"

#include "common/embedding.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/join.h"
#include "common/mem.h"
#include "common/reward.h"

#include <math.h>
#include <string.h>

#define US_PER_SECOND 1e6
#define DAY           86400.0
#define TAU           6.283185307179586

/* One user's rows and what is looked up once for them. */
struct user {
    const struct lh_feature_plan *p;
    const struct lh_user_log *log;
    const float *reward;
    uint32_t *first;   /* [n] first row of the row's session */
    uint32_t *ordinal; /* [n] sessions before it */
    uint32_t *keyed;   /* [n_keyed, n] number of the id, LH_IDMAP_NONE if unknown */
    double *sum;       /* [widest] */
};

static void add_vector(double *restrict sum, const float *restrict v, size_t n, double w)
{
    for (size_t k = 0; k < n; k++)
        sum[k] += w * (double)v[k];
}

static const float *keyed_values(const struct lh_feature_keyed *k, uint32_t number)
{
    return k->join ? lh_join_values(k->join) + (size_t)number * lh_join_width(k->join)
                   : lh_embedding_values(k->embedding) +
                         (size_t)number * lh_embedding_dim(k->embedding);
}

/* A source of width 1 that is no category: its value, NAN if missing. */
static double scalar_at(const struct user *u, const struct lh_source *s, size_t row)
{
    if (s->kind == LH_SOURCE_NUMBER)
        return (double)u->log->column[s->column].number[row];
    if (s->kind == LH_SOURCE_REWARD)
        return (double)u->reward[row];
    uint32_t number = u->keyed[s->keyed * u->log->n + row];
    return number == LH_IDMAP_NONE
               ? (double)NAN
               : (double)keyed_values(&u->p->keyed[s->keyed], number)[s->offset];
}

/* Adds w times the source at `row` to sum; false where the row lacks it. */
static bool add_source(const struct user *u, const struct lh_source *s, size_t row, double w,
                       double *sum)
{
    if (s->kind == LH_SOURCE_KEYED) {
        uint32_t number = u->keyed[s->keyed * u->log->n + row];
        if (number == LH_IDMAP_NONE)
            return false;
        add_vector(sum, keyed_values(&u->p->keyed[s->keyed], number) + s->offset, s->width, w);
        return true;
    }
    if (s->kind == LH_SOURCE_CATEGORY) {
        uint32_t c = u->log->column[s->column].category[row];
        if (c >= s->offset && c - s->offset < s->width)
            sum[c - s->offset] += w;
        return true;
    }
    double x = scalar_at(u, s, row);
    if (isnan(x))
        return false;
    sum[0] += w * x;
    return true;
}

/* Past row `row` enters the item's sum; returns whether it counts. */
static bool add_past(const struct user *u, const struct lh_feature_item *it, size_t row)
{
    if (it->op == LH_FEATURE_RATE) {
        double x = scalar_at(u, &it->source, row);
        if (isnan(x))
            return false;
        u->sum[0] += x > it->above;
        return true;
    }
    double w = it->weighted ? scalar_at(u, &it->weight, row) : 1.0;
    return !isnan(w) && add_source(u, &it->source, row, w, u->sum);
}

static float bend(const struct lh_feature_item *it, double x)
{
    return (float)(it->log1p ? copysign(log1p(fabs(x)), x) : x);
}

/* Mean, sum, rate: over the rows before the reference row, all of them by a running sum, the last
 * few anew each time (a sum that subtracts what leaves would carry its rounding along). */
static void past(const struct user *u, const struct lh_feature_item *it, float *out, size_t stride)
{
    size_t done = 0, counted = 0;
    memset(u->sum, 0, it->width * sizeof *u->sum);
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        size_t r = it->at_session_start ? u->first[i] : i;
        if (i > 0 && it->at_session_start && r == u->first[i - 1]) {
            memcpy(out, out - stride, it->width * sizeof *out);
            continue;
        }
        if (it->last) {
            memset(u->sum, 0, it->width * sizeof *u->sum);
            counted = 0;
            done = r > it->last ? r - it->last : 0;
        }
        for (; done < r; done++)
            counted += add_past(u, it, done);
        for (size_t k = 0; k < it->width; k++) {
            double x = it->op == LH_FEATURE_SUM ? u->sum[k] : u->sum[k] / (double)counted;
            out[k] = counted ? bend(it, x) : it->empty;
        }
    }
}

/* The plainest feature, and in wide logs nearly the only one: a number as it stands. False where
 * one is missing, or the item asks for more. */
static bool copy_numbers(const struct user *u, const struct lh_feature_item *it, float *out,
                         size_t stride)
{
    if (it->source.kind != LH_SOURCE_NUMBER || it->at_session_start || it->log1p)
        return false;
    const float *x = u->log->column[it->source.column].number;
    bool missing = false;
    for (size_t i = 0; i < u->log->n; i++) {
        missing |= isnan(x[i]);
        out[i * stride] = x[i] + 0.0f; /* as a sum from 0 has it: -0 becomes 0 */
    }
    return !missing;
}

static int present(const struct user *u, const struct lh_feature_item *it, float *out,
                   size_t stride, unsigned char *keep)
{
    if (copy_numbers(u, it, out, stride))
        return 0;
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        size_t r = it->at_session_start ? u->first[i] : i;
        memset(u->sum, 0, it->width * sizeof *u->sum);
        if (add_source(u, &it->source, r, 1.0, u->sum)) {
            for (size_t k = 0; k < it->width; k++)
                out[k] = bend(it, u->sum[k]);
            continue;
        }
        if (it->missing == LH_MISSING_FAILS)
            return lh_err_set(LH_ERANGE,
                              "feature '%s': a value is missing (row %zu of a user); say what that "
                              "means: missing: drop, or missing: 0",
                              it->name, i + 1);
        if (it->missing == LH_MISSING_DROPS)
            keep[i] = 0;
        for (size_t k = 0; k < it->width; k++)
            out[k] = it->missing == LH_MISSING_IS ? it->missing_value : 0.0f;
    }
    return 0;
}

static double seconds_between(const struct user *u, size_t from, size_t to)
{
    return ((double)u->log->time_us[to] - (double)u->log->time_us[from]) / US_PER_SECOND;
}

static void count(const struct user *u, const struct lh_feature_item *it, float *out, size_t stride)
{
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        size_t r = it->at_session_start ? u->first[i] : i;
        size_t n = r;
        if (it->what == LH_COUNT_SESSIONS)
            n = u->ordinal[r];
        else if (it->what == LH_COUNT_SESSION_ROWS)
            n = r - u->first[r];
        *out = bend(it, (double)n);
    }
}

/* The last row of the session before may lie behind this request where sessions overlap: 0 then. */
static void since(const struct user *u, const struct lh_feature_item *it, float *out, size_t stride)
{
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        size_t r = it->at_session_start ? u->first[i] : i;
        size_t n = it->what == LH_SINCE_SESSION ? u->first[r] : r; /* rows up to the event */
        if (it->what == LH_SINCE_FIRST)
            *out = bend(it, fmax(seconds_between(u, 0, r), 0) / it->unit);
        else
            *out = n ? bend(it, fmax(seconds_between(u, n - 1, r), 0) / it->unit) : it->empty;
    }
}

static void session_mean(const struct user *u, const struct lh_feature_item *it, float *out,
                         size_t stride)
{
    double gaps = 0;
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        if (i > 0 && u->first[i] == i)
            gaps += lh_reward_gap_seconds(u->log->time_us[i - 1], u->log->time_us[i]);
        double n = u->ordinal[i];
        double sum = it->what == LH_SESSION_LENGTH ? (double)u->first[i] : gaps / it->unit;
        *out = n > 0 ? bend(it, sum / n) : it->empty;
    }
}

static void clock_of(const struct user *u, const struct lh_feature_item *it, float *out,
                     size_t stride)
{
    /* 1970-01-01 was a Thursday; a week of the clock begins on Monday. */
    double period = it->what == LH_CLOCK_HOUR ? DAY : 7 * DAY;
    double shift = it->what == LH_CLOCK_HOUR ? 0 : 3 * DAY;
    for (size_t i = 0; i < u->log->n; i++, out += stride) {
        size_t r = it->at_session_start ? u->first[i] : i;
        double t = (double)u->log->time_us[r] / US_PER_SECOND + it->utc_offset + shift;
        double angle = TAU * (t / period - floor(t / period));
        out[0] = (float)sin(angle);
        out[1] = (float)cos(angle);
    }
}

static int compute(const struct user *u, const struct lh_feature_item *it, float *out,
                   size_t stride, unsigned char *keep)
{
    switch (it->op) {
    case LH_FEATURE_PRESENT:
        return present(u, it, out, stride, keep);
    case LH_FEATURE_MEAN:
    case LH_FEATURE_SUM:
    case LH_FEATURE_RATE:
        past(u, it, out, stride);
        break;
    case LH_FEATURE_COUNT:
        count(u, it, out, stride);
        break;
    case LH_FEATURE_SINCE:
        since(u, it, out, stride);
        break;
    case LH_FEATURE_SESSION_MEAN:
        session_mean(u, it, out, stride);
        break;
    case LH_FEATURE_CLOCK:
        clock_of(u, it, out, stride);
        break;
    }
    return 0;
}

static int check_finite(const struct lh_feature_group *g, const float *out, size_t n)
{
    for (size_t i = 0; i < n; i++, out += g->width) {
        for (size_t k = 0; k < g->width; k++) {
            if (!isfinite(out[k]))
                return lh_err_set(LH_ERANGE,
                                  "feature '%s' is %g in row %zu of a user; check its columns, or "
                                  "use log1p",
                                  g->name[k], (double)out[k], i + 1);
        }
    }
    return 0;
}

static void look_up(struct user *u)
{
    size_t n = u->log->n;
    for (size_t i = 0; i < n; i++) {
        bool same = i > 0 && u->log->session[i] == u->log->session[i - 1];
        u->first[i] = same ? u->first[i - 1] : (uint32_t)i;
        u->ordinal[i] = i == 0 ? 0 : u->ordinal[i - 1] + !same;
    }
    for (size_t k = 0; k < u->p->n_keyed; k++) {
        const struct lh_feature_keyed *key = &u->p->keyed[k];
        const uint64_t *id = u->log->column[key->column].id;
        for (size_t i = 0; key->used && i < n; i++)
            u->keyed[k * n + i] = key->join ? lh_join_find(key->join, id[i])
                                            : lh_embedding_find(key->embedding, id[i]);
    }
}

int lh_feature_plan_apply(const struct lh_feature_plan *p, const struct lh_user_log *log,
                          const float *reward, float *high, float *low, float *action,
                          unsigned char *keep)
{
    size_t n = log->n, words, bytes;
    if (n > UINT32_MAX)
        return lh_err_set(LH_ERANGE, "a user has more than %u rows", UINT32_MAX);
    LH_TRY(lh_mem_mul(&words, n, p->n_keyed + 2));
    LH_TRY(lh_mem_mul(&bytes, words, sizeof(uint32_t)));
    void *block = NULL;
    LH_TRY(lh_mem_alloc(&block, 1, bytes + p->widest * sizeof(double), "features of a user"));
    struct user u = {.p = p, .log = log, .reward = reward, .sum = block};
    u.first = (uint32_t *)(u.sum + p->widest);
    u.ordinal = u.first + n;
    u.keyed = u.ordinal + n;
    int rc = 0;
    look_up(&u);
    float *out[LH_FEATURE_GROUPS] = {high, low, action};
    for (int g = 0; g < LH_FEATURE_GROUPS; g++) {
        const struct lh_feature_group *group = &p->group[g];
        for (size_t k = 0; k < group->n; k++) {
            const struct lh_feature_item *it = &group->item[k];
            LH_TRY_TO(done, compute(&u, it, out[g] + it->offset, group->width, keep));
        }
        LH_TRY_TO(done, check_finite(group, out[g], n));
    }
done:
    lh_mem_free(block);
    return rc;
}
