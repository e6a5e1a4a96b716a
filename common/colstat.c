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

enum { GROUP = 16, RANKS = 5, DIGIT = 2048 };

static const unsigned per_mille[RANKS] = {1, 250, 500, 750, 999};

struct group {
    const struct lh_colstat_matrix *m;
    size_t first, width;
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

/* Rows of a part that are read before their pages are given back. */
static uint64_t window(const struct group *g)
{
    return (8u << 20) / (g->m->width * sizeof(float)) + 1;
}

/* Rows lo .. hi-1 of a part are done with, for now. */
static void give_back(const struct group *g, const struct lh_colstat_part *p, uint64_t lo,
                      uint64_t hi)
{
    if (!p->mapped)
        return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)(p->data + lo * g->m->width) / page * page;
    uintptr_t to = (uintptr_t)(p->data + hi * g->m->width) / page * page;
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
static void pass(const struct group *g, struct work *w, unsigned shift, unsigned bits)
{
    for (size_t p = 0; p < g->m->n_parts; p++) {
        const struct lh_colstat_part *part = &g->m->parts[p];
        for (uint64_t lo = 0, hi; lo < part->rows; lo = hi) {
            hi = part->rows - lo < window(g) ? part->rows : lo + window(g);
            const float *row = part->data + lo * g->m->width + g->first;
            if (bits == 0)
                count_first(g, w, row, hi - lo);
            else
                count_digit(g, w, row, hi - lo, shift, bits);
            give_back(g, part, lo, hi);
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

static int compute_group(const struct group *g)
{
    uint64_t n = 0;
    for (size_t p = 0; p < g->m->n_parts; p++)
        n += g->m->parts[p].rows;
    memset(g->m->out + g->first, 0, g->width * sizeof *g->m->out);
    if (n == 0)
        return 0;
    struct work *w;
    LH_TRY(LH_NEW(&w, "column statistics"));
    start(g, w, n);
    pass(g, w, 0, 0);
    for (size_t c = 0; c < g->width; c++) {
        w->mean[c] = w->sum[c] / (double)n;
        descend(&w->select[c], 11);
    }
    pass(g, w, 10, 11);
    for (size_t c = 0; c < g->width; c++)
        descend(&w->select[c], 11);
    pass(g, w, 0, 10);
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
    lh_mem_free(w);
    return 0;
}

static int run_group(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    return compute_group((const struct group *)ctx + index);
}

int lh_colstat_compute(const struct lh_colstat_matrix *m, size_t n, unsigned threads)
{
    size_t groups = 0;
    for (size_t i = 0; i < n; i++)
        groups += (m[i].width + GROUP - 1) / GROUP;
    struct group *g;
    LH_TRY(LH_NEW_ARRAY(&g, groups, "column statistics"));
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < m[i].width; c += GROUP) {
            size_t width = m[i].width - c < GROUP ? m[i].width - c : GROUP;
            g[at++] = (struct group){&m[i], c, width};
        }
    }
    int rc = lh_pool_run(threads, groups, run_group, g);
    lh_mem_free(g);
    return rc;
}
