/* Alternating least squares. Users and items are two sides of the same problem: a sweep holds one
 * side still and solves the other row by row. A row of a side is [bias, vector] for ratings, the
 * vector alone for counts. */
#include "common/factorise.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/rng.h"

#include <cblas.h>

#include <math.h>
#include <string.h>

#define BLOCK     256 /* entries gathered for one BLAS call */
#define CHUNK     32  /* rows a thread takes at a time */
#define INIT      0.1 /* deviation of the first item vectors */
#define GRAM_ROWS 1024

struct side {
    size_t n;
    const uint64_t *start; /* [n + 1] entries of each row */
    const uint32_t *other; /* row on the other side */
    const float *value;
    float *factor; /* [n, m] */
};

struct scratch {     /* of one thread */
    float *gathered; /* [BLOCK, m] */
    float *target;   /* [BLOCK] */
    float *gram;     /* [m, m] upper */
    float *right;    /* [m] */
    double *a, *b;   /* [m, m], [m] */
};

struct sweep {
    const struct lh_factorise_spec *spec;
    size_t m;
    double mean;
    struct side *solve;
    const struct side *fixed;
    const double *gram; /* implicit: of the fixed side, [m, m] upper */
    struct scratch *scratch;
};

/* --- small dense solve ---------------------------------------------------------------------- */

static void subtract_scaled(double *restrict y, const double *restrict x, double w, size_t n)
{
    for (size_t k = 0; k < n; k++)
        y[k] -= w * x[k];
}

/* Solves the symmetric positive definite a x = b, upper triangle given; a is overwritten by its
 * Cholesky factor, b by x. Outer products row by row: each inner loop runs over contiguous memory
 * and sums nothing, so that its bits do not depend on vector width. */
static bool solve_positive(double *a, double *b, size_t m)
{
    for (size_t k = 0; k < m; k++) {
        double *row = a + k * m;
        if (!(row[k] > 0) || !isfinite(row[k]))
            return false;
        double d = 1.0 / sqrt(row[k]);
        for (size_t j = k; j < m; j++)
            row[j] *= d;
        b[k] *= d;
        for (size_t i = k + 1; i < m; i++)
            subtract_scaled(a + i * m + i, row + i, row[i], m - i);
        subtract_scaled(b + k + 1, row + k + 1, b[k], m - k - 1);
    }
    for (size_t k = m; k-- > 0;) {
        const double *row = a + k * m;
        for (size_t j = k + 1; j < m; j++)
            b[k] -= row[j] * b[j];
        b[k] /= row[k];
    }
    return true;
}

/* --- one row -------------------------------------------------------------------------------- */

/* Gathers up to BLOCK entries of a row into s->gathered and s->target; returns how many. */
static size_t gather(const struct sweep *w, const struct scratch *s, uint64_t *at, uint64_t end)
{
    size_t m = w->m, n = 0;
    const struct side *side = w->solve;
    for (; *at < end && n < BLOCK; (*at)++) {
        const float *f = w->fixed->factor + (size_t)side->other[*at] * m;
        float *g = s->gathered + n * m;
        double value = (double)side->value[*at];
        if (!w->spec->implicit) { /* (1, q) times (bias, p) = value - mean - bias of the other */
            g[0] = 1.0f;
            memcpy(g + 1, f + 1, (m - 1) * sizeof *g);
            s->target[n++] = (float)(value - w->mean - (double)f[0]);
        } else if (value > 0) { /* sqrt(c - 1) q; its target gives c q on the right side */
            double extra = w->spec->confidence * value, root = sqrt(extra);
            for (size_t k = 0; k < m; k++)
                g[k] = (float)root * f[k];
            s->target[n++] = (float)((1.0 + extra) / root);
        }
    }
    return n;
}

static int solve_row(const struct sweep *w, const struct scratch *s, size_t row)
{
    size_t m = w->m, used = 0;
    float *out = w->solve->factor + row * m;
    uint64_t at = w->solve->start[row], end = w->solve->start[row + 1];
    memset(s->gram, 0, m * m * sizeof *s->gram);
    memset(s->right, 0, m * sizeof *s->right);
    while (at < end) {
        size_t n = gather(w, s, &at, end);
        if (n == 0)
            continue;
        used += n;
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)m, (int)n, 1.0f, s->gathered,
                    (int)m, 1.0f, s->gram, (int)m);
        cblas_sgemv(CblasRowMajor, CblasTrans, (int)n, (int)m, 1.0f, s->gathered, (int)m, s->target,
                    1, 1.0f, s->right, 1);
    }
    if (used == 0) {
        memset(out, 0, m * sizeof *out);
        return 0;
    }
    double ridge = w->spec->regularisation * (w->spec->implicit ? 1.0 : (double)used);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = i; j < m; j++)
            s->a[i * m + j] = (double)s->gram[i * m + j] + (w->gram ? w->gram[i * m + j] : 0.0);
        s->a[i * m + i] += ridge;
        s->b[i] = (double)s->right[i];
    }
    if (!solve_positive(s->a, s->b, m))
        return lh_err_set(LH_ERANGE, "factorisation: the equations of a row cannot be solved; "
                                     "check the values, or raise regularisation");
    for (size_t k = 0; k < m; k++)
        out[k] = (float)s->b[k];
    return 0;
}

static int solve_chunk(void *ctx, size_t index, unsigned thread)
{
    const struct sweep *w = ctx;
    size_t end = (index + 1) * CHUNK < w->solve->n ? (index + 1) * CHUNK : w->solve->n;
    for (size_t row = index * CHUNK; row < end; row++)
        LH_TRY(solve_row(w, &w->scratch[thread], row));
    return 0;
}

/* --- sweeps --------------------------------------------------------------------------------- */

/* Gram matrix of a side in blocks of fixed size, summed in double in their order. */
static void gram_of(const struct side *side, size_t m, float *block, double *out)
{
    memset(out, 0, m * m * sizeof *out);
    for (size_t at = 0; at < side->n; at += GRAM_ROWS) {
        size_t n = side->n - at < GRAM_ROWS ? side->n - at : GRAM_ROWS;
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)m, (int)n, 1.0f,
                    side->factor + at * m, (int)m, 0.0f, block, (int)m);
        for (size_t i = 0; i < m; i++) {
            for (size_t j = i; j < m; j++)
                out[i * m + j] += (double)block[i * m + j];
        }
    }
}

static int solve_side(struct sweep *w, struct side *solve, const struct side *fixed, double *gram)
{
    w->solve = solve;
    w->fixed = fixed;
    w->gram = NULL;
    if (w->spec->implicit) {
        gram_of(fixed, w->m, w->scratch[0].gram, gram);
        w->gram = gram;
    }
    return lh_pool_run(w->spec->threads, (solve->n + CHUNK - 1) / CHUNK, solve_chunk, w);
}

/* The same entries by item, users ascending. */
static int transpose(const struct lh_factorise_data *d, uint64_t **start, uint32_t **user,
                     float **value)
{
    uint64_t n = d->start[d->n_users];
    LH_TRY(LH_NEW_ARRAY(start, d->n_items + 2, "factorisation"));
    LH_TRY(LH_NEW_ARRAY(user, n, "factorisation"));
    LH_TRY(LH_NEW_ARRAY(value, n, "factorisation"));
    uint64_t *next = *start + 1; /* next[i]: where the next entry of item i goes */
    for (uint64_t k = 0; k < n; k++)
        next[d->item[k] + 1]++;
    for (size_t i = 1; i <= d->n_items; i++)
        next[i] += next[i - 1];
    for (size_t u = 0; u < d->n_users; u++) {
        for (uint64_t k = d->start[u]; k < d->start[u + 1]; k++) {
            uint64_t at = next[d->item[k]]++;
            (*user)[at] = (uint32_t)u;
            (*value)[at] = d->value[k];
        }
    }
    return 0; /* next[i] has moved to the end of item i, which is start[i + 1] */
}

static void begin_items(const struct lh_factorise_spec *spec, const struct side *items, size_t m)
{
    size_t lead = m - spec->dim;
    for (size_t i = 0; i < items->n; i++) {
        struct lh_rng_at at = {
            .seed = spec->seed, .purpose = lh_rng_purpose("factorise"), .step = i};
        float *f = items->factor + i * m;
        memset(f, 0, lead * sizeof *f);
        lh_rng_normal(&at, f + lead, spec->dim);
        for (size_t k = lead; k < m; k++)
            f[k] *= (float)INIT;
    }
}

static double rmse(const struct sweep *w, const struct side *users, const struct side *items)
{
    size_t m = w->m, n = 0;
    double sum = 0;
    for (size_t u = 0; u < users->n; u++) {
        const float *p = users->factor + u * m;
        for (uint64_t k = users->start[u]; k < users->start[u + 1]; k++) {
            const float *q = items->factor + (size_t)users->other[k] * m;
            bool implicit = w->spec->implicit;
            if (implicit && !(users->value[k] > 0))
                continue;
            double e = implicit ? 1.0 : (double)users->value[k] - w->mean - (double)(p[0] + q[0]);
            for (size_t j = implicit ? 0 : 1; j < m; j++)
                e -= (double)p[j] * (double)q[j];
            sum += e * e;
            n++;
        }
    }
    return n ? sqrt(sum / (double)n) : 0;
}

static int take_scratch(struct sweep *w)
{
    unsigned threads = w->spec->threads ? w->spec->threads : 1;
    size_t m = w->m;
    LH_TRY(LH_NEW_ARRAY(&w->scratch, threads, "factorisation"));
    for (unsigned t = 0; t < threads; t++) {
        struct scratch *s = &w->scratch[t];
        LH_TRY(LH_NEW_ARRAY(&s->a, m * m + m, "factorisation"));
        s->b = s->a + m * m;
        void *floats = NULL;
        LH_TRY(lh_mem_alloc_aligned(&floats, BLOCK * m + BLOCK + m * m + m, sizeof(float),
                                    "factorisation"));
        s->gathered = floats;
        s->target = s->gathered + BLOCK * m;
        s->gram = s->target + BLOCK;
        s->right = s->gram + m * m;
    }
    return 0;
}

static void drop_scratch(struct sweep *w)
{
    for (unsigned t = 0; w->scratch && t < (w->spec->threads ? w->spec->threads : 1); t++) {
        lh_mem_free(w->scratch[t].a);
        lh_mem_free(w->scratch[t].gathered);
    }
    lh_mem_free(w->scratch);
}

/* Splits [bias, vector] rows into the two arrays of the result. */
static int hand_out(const struct sweep *w, const struct side *side, float **vector, float **bias)
{
    size_t dim = w->spec->dim, m = w->m;
    LH_TRY(LH_NEW_ARRAY(vector, side->n * dim, "factors"));
    LH_TRY(LH_NEW_ARRAY(bias, side->n, "biases"));
    for (size_t i = 0; i < side->n; i++) {
        memcpy(*vector + i * dim, side->factor + i * m + (m - dim), dim * sizeof(float));
        if (m > dim)
            (*bias)[i] = side->factor[i * m];
    }
    return 0;
}

int lh_factorise_run(const struct lh_factorise_spec *spec, const struct lh_factorise_data *data,
                     struct lh_factors *out)
{
    uint64_t n = data->start[data->n_users];
    *out = (struct lh_factors){0};
    if (n == 0)
        return lh_err_set(LH_ERANGE, "factorisation: there is no interaction to learn from");
    struct sweep w = {.spec = spec, .m = spec->dim + !spec->implicit};
    struct side users = {data->n_users, data->start, data->item, data->value, NULL};
    struct side items = {.n = data->n_items};
    uint64_t *start = NULL;
    uint32_t *other = NULL;
    float *value = NULL;
    double *gram = NULL;
    int blas_threads = openblas_get_num_threads();
    openblas_set_num_threads(1); /* bits depend on it */
    for (uint64_t k = 0; k < n && !spec->implicit; k++)
        w.mean += (double)data->value[k] / (double)n;
    int rc = 0;
    LH_TRY_TO(fail, transpose(data, &start, &other, &value));
    items.start = start;
    items.other = other;
    items.value = value;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&users.factor, users.n * w.m, "user factors"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&items.factor, items.n * w.m, "item factors"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&gram, w.m * w.m, "factorisation"));
    LH_TRY_TO(fail, take_scratch(&w));
    begin_items(spec, &items, w.m);
    for (uint32_t k = 0; k < spec->iterations; k++) {
        LH_TRY_TO(fail, solve_side(&w, &users, &items, gram));
        LH_TRY_TO(fail, solve_side(&w, &items, &users, gram));
    }
    LH_TRY_TO(fail, hand_out(&w, &users, &out->user, &out->user_bias));
    LH_TRY_TO(fail, hand_out(&w, &items, &out->item, &out->item_bias));
    out->mean = w.mean;
    out->rmse = rmse(&w, &users, &items);
fail:
    openblas_set_num_threads(blas_threads);
    drop_scratch(&w);
    lh_mem_free(gram);
    lh_mem_free(users.factor);
    lh_mem_free(items.factor);
    lh_mem_free(start);
    lh_mem_free(other);
    lh_mem_free(value);
    if (rc < 0)
        lh_factorise_fini(out);
    return rc;
}

void lh_factorise_fini(struct lh_factors *f)
{
    lh_mem_free(f->user);
    lh_mem_free(f->item);
    lh_mem_free(f->user_bias);
    lh_mem_free(f->item_bias);
    *f = (struct lh_factors){0};
}
