/* Column statistics. Quantiles come from a radix select on the floats' bits, mapped so that their
 * order is that of the numbers: three passes that count 11, 11 and 10 bits, each only among the
 * values that share the digits found so far. Columns are taken 16 at a time, a cache line of a
 * row. The alternative, sorting a copy, needs memory that grows with the log. */
#include "common/colstat.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOWS 32 /* that are read before their pages are given back */

enum { GROUP = 16, BUNDLE = 8, RANKS = 5, DIGIT = 2048 };

static const unsigned per_mille[RANKS] = {1, 250, 500, 750, 999};

struct work;

struct group { /* of columns */
    const struct lh_colstat_matrix *m;
    size_t first, width;
    struct work *w;
};

/* Neighbouring groups of one matrix that one thread takes through it together, window by window, so
 * that a wide matrix is read once a pass and not once a group. */
struct bundle {
    struct group group[BUNDLE];
    size_t n;
};

/* One column's search. */
struct select {
    uint64_t rank[RANKS];     /* among the values that share prefix[i] */
    uint32_t prefix[RANKS];   /* digits found */
    uint32_t distinct[RANKS]; /* prefixes that differ */
    unsigned n_distinct;
    uint64_t count[RANKS][DIGIT];
};

struct work {
    double sum[GROUP], mean[GROUP], square[GROUP];
    float min[GROUP], max[GROUP];
    struct select select[GROUP];
};

static inline uint32_t key_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u >> 31 ? ~u : u | UINT32_C(1) << 31;
}

static float value_of(uint32_t key)
{
    uint32_t u = key >> 31 ? key & ~(UINT32_C(1) << 31) : ~key;
    float x;
    memcpy(&x, &u, sizeof x);
    return x + 0.0f; /* -0 becomes 0 */
}

/* Rows that fit a part of the cache. */
static uint64_t window(const struct lh_colstat_matrix *m)
{
    return (256u << 10) / (m->width * sizeof(float)) + 1;
}

/* Rows lo .. hi-1 of a part are done with, for now. */
static void give_back(const struct lh_colstat_matrix *m, const struct lh_colstat_part *p,
                      uint64_t lo, uint64_t hi)
{
    if (!p->mapped)
        return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)(p->data + lo * m->width) / page * page;
    uintptr_t to = (uintptr_t)(p->data + hi * m->width) / page * page;
    if (to > from)
        madvise((void *)from, to - from, MADV_DONTNEED);
}

static void count_first(const struct group *g, struct work *w, const float *row, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++, row += g->m->width) {
        for (size_t c = 0; c < g->width; c++) {
            w->sum[c] += (double)row[c];
            w->min[c] = row[c] < w->min[c] ? row[c] : w->min[c];
            w->max[c] = row[c] > w->max[c] ? row[c] : w->max[c];
        }
        for (size_t c = 0; c < g->width; c++)
            w->select[c].count[0][key_of(row[c]) >> 21]++;
    }
}

/* Counts the digit at `shift` (of `bits`) among values whose higher digits are a wanted prefix. */
static void count_digit(const struct group *g, struct work *w, const float *row, uint64_t n,
                        unsigned shift, unsigned bits)
{
    uint32_t mask = (UINT32_C(1) << bits) - 1;
    for (uint64_t i = 0; i < n; i++, row += g->m->width) {
        for (size_t c = 0; shift > 0 && c < g->width; c++) { /* once: with the second digit */
            double d = (double)row[c] - w->mean[c];
            w->square[c] += d * d;
        }
        for (size_t c = 0; c < g->width; c++) {
            struct select *s = &w->select[c];
            uint32_t key = key_of(row[c]), prefix = key >> (shift + bits);
            for (unsigned d = 0; d < s->n_distinct; d++) {
                if (s->distinct[d] == prefix) {
                    s->count[d][key >> shift & mask]++;
                    break;
                }
            }
        }
    }
}

/* One pass over all rows, in order. `bits` 0: the first. */
static void pass(const struct bundle *b, unsigned shift, unsigned bits)
{
    const struct lh_colstat_matrix *m = b->group[0].m;
    for (size_t p = 0; p < m->n_parts; p++) {
        const struct lh_colstat_part *part = &m->parts[p];
        for (uint64_t lo = 0, hi; lo < part->rows; lo = hi) {
            hi = part->rows - lo < window(m) ? part->rows : lo + window(m);
            for (size_t k = 0; k < b->n; k++) {
                const struct group *g = &b->group[k];
                const float *row = part->data + lo * m->width + g->first;
                if (bits == 0)
                    count_first(g, g->w, row, hi - lo);
                else
                    count_digit(g, g->w, row, hi - lo, shift, bits);
            }
            if (hi == part->rows || hi / window(m) % WINDOWS == 0)
                give_back(m, part, lo / window(m) / WINDOWS * WINDOWS * window(m), hi);
        }
    }
}

/* Reads the counts of a pass: each rank goes on inside the digit where its count is reached. */
static void descend(struct select *s, unsigned bits)
{
    for (unsigned r = 0; r < RANKS; r++) {
        unsigned d = 0;
        while (d + 1 < s->n_distinct && s->distinct[d] != s->prefix[r])
            d++;
        uint32_t digit = 0;
        while (s->rank[r] >= s->count[d][digit])
            s->rank[r] -= s->count[d][digit++];
        s->prefix[r] = s->prefix[r] << bits | digit;
    }
    s->n_distinct = 0;
    for (unsigned r = 0; r < RANKS; r++) { /* prefixes ascend with the rank */
        if (s->n_distinct == 0 || s->distinct[s->n_distinct - 1] != s->prefix[r])
            s->distinct[s->n_distinct++] = s->prefix[r];
    }
    memset(s->count, 0, sizeof s->count);
}

static void start(const struct group *g, struct work *w, uint64_t n)
{
    memset(w, 0, sizeof *w);
    for (size_t c = 0; c < g->width; c++) {
        w->min[c] = INFINITY;
        w->max[c] = -INFINITY;
        w->select[c].n_distinct = 1;
        for (unsigned r = 0; r < RANKS; r++)
            w->select[c].rank[r] = (n * per_mille[r] + 999) / 1000 - 1;
    }
}

static void end_first(const struct group *g, uint64_t n)
{
    for (size_t c = 0; c < g->width; c++) {
        g->w->mean[c] = g->w->sum[c] / (double)n;
        descend(&g->w->select[c], 11);
    }
}

static void end_second(const struct group *g)
{
    for (size_t c = 0; c < g->width; c++)
        descend(&g->w->select[c], 11);
}

static void end_third(const struct group *g, uint64_t n)
{
    struct work *w = g->w;
    for (size_t c = 0; c < g->width; c++) {
        struct select *s = &w->select[c];
        descend(s, 10);
        double q[RANKS];
        for (unsigned r = 0; r < RANKS; r++)
            q[r] = (double)value_of(s->prefix[r]);
        int constant = w->min[c] == w->max[c]; /* a mean of equal values may still round */
        g->m->out[g->first + c] = (struct lh_column_stats){
            .mean = constant ? (double)w->min[c] : w->mean[c],
            .std = constant ? 0 : sqrt(w->square[c] / (double)n),
            .min = (double)w->min[c],
            .max = (double)w->max[c],
            .q001 = q[0],
            .q25 = q[1],
            .q50 = q[2],
            .q75 = q[3],
            .q999 = q[4],
        };
    }
}

struct job {
    struct bundle *bundle;
    void (*step)(void *ctx);
    void *ctx;
};

static void step(const struct job *job, const struct bundle *b)
{
    for (size_t k = 0; job->step && k < b->n; k++)
        job->step(job->ctx);
}

static int compute_bundle(const struct job *job, struct bundle *b)
{
    const struct lh_colstat_matrix *m = b->group[0].m;
    uint64_t n = 0;
    int rc = 0;
    for (size_t p = 0; p < m->n_parts; p++)
        n += m->parts[p].rows;
    for (size_t k = 0; k < b->n; k++)
        memset(m->out + b->group[k].first, 0, b->group[k].width * sizeof *m->out);
    if (n == 0)
        return 0;
    for (size_t k = 0; k < b->n; k++) {
        LH_TRY_TO(done, LH_NEW(&b->group[k].w, "column statistics"));
        start(&b->group[k], b->group[k].w, n);
    }
    pass(b, 0, 0);
    for (size_t k = 0; k < b->n; k++)
        end_first(&b->group[k], n);
    step(job, b);
    pass(b, 10, 11);
    for (size_t k = 0; k < b->n; k++)
        end_second(&b->group[k]);
    step(job, b);
    pass(b, 0, 10);
    for (size_t k = 0; k < b->n; k++)
        end_third(&b->group[k], n);
    step(job, b);
done:
    for (size_t k = 0; k < b->n; k++)
        lh_mem_free(b->group[k].w);
    return rc;
}

static int run_bundle(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    const struct job *job = ctx;
    return compute_bundle(job, job->bundle + index);
}

/* Columns of a matrix that one bundle takes: a thread's share, in whole groups. */
static size_t bundle_width(const struct lh_colstat_matrix *m, unsigned threads)
{
    size_t groups = (m->width + GROUP - 1) / GROUP;
    size_t share = (groups + threads - 1) / threads;
    return (share < BUNDLE ? share : BUNDLE) * GROUP;
}

size_t lh_colstat_steps(size_t width)
{
    return 3 * ((width + GROUP - 1) / GROUP);
}

int lh_colstat_compute(const struct lh_colstat_matrix *m, size_t n, unsigned threads,
                       void (*on_step)(void *ctx), void *ctx)
{
    size_t bundles = 0, at = 0;
    struct bundle *b;
    threads = threads ? threads : 1;
    for (size_t i = 0; i < n; i++) {
        if (m[i].width > 0)
            bundles += (m[i].width - 1) / bundle_width(&m[i], threads) + 1;
    }
    LH_TRY(LH_NEW_ARRAY(&b, bundles, "column statistics"));
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < m[i].width; c += GROUP) {
            size_t width = m[i].width - c < GROUP ? m[i].width - c : GROUP;
            struct bundle *into = &b[at + c / bundle_width(&m[i], threads)];
            into->group[into->n++] = (struct group){&m[i], c, width, NULL};
        }
        if (m[i].width > 0)
            at += (m[i].width - 1) / bundle_width(&m[i], threads) + 1;
    }
    struct job job = {b, on_step, ctx};
    int rc = lh_pool_run(threads, bundles, run_bundle, &job);
    lh_mem_free(b);
    return rc;
}
