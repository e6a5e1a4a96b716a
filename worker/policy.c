/* A policy ready to act. The model (job, normalisation, compiled graph, weights) is immutable and
 * shared by clones; each policy has an execution and noise of its own.
 *
 * Invariant: state number first + i always sits in row (first + i) mod R of the one graph shape, so
 * that cutting a stream differently cannot change a bit. Reading snapshots is snapshot.c's. */
#include "worker/policy.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/snapshot.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define CANDIDATES_MAX 512 /* rows of the candidates' GEMMs: enough for speed, small in latency */
#define STATES_MAX     128

struct model {
    _Atomic unsigned refs;
    struct lh_job *job;
    struct lh_norm norm;
    const struct lh_algo *algo;
    struct lh_graph *graph;
    float *params; /* flat, in the execution graph's layout */
    size_t rows;   /* R */
    size_t estimators, noise_width;
};

/* How the rows of a table come into the graph: each id of a state has a row of its own there. */
struct looked_up {
    size_t at[LH_JOB_TABLE_IDS_MAX]; /* which of a state's ids */
    float *index, *rows;             /* the graph's inputs; NULL: it does not read them */
};

struct lh_policy {
    struct model *model;
    struct lh_exec *exec;
    float *noise; /* [R, noise_width] */
    struct looked_up tables[LH_GRAPH_TABLES_MAX];
    struct lh_row_source source; /* pull NULL: none */
    size_t width;                /* I, ids of a state */
    uint64_t *ask;               /* ids of R states, of one table */
    float *got;                  /* their rows */
};

static void model_release(struct model **mp)
{
    struct model *m = *mp;
    *mp = NULL;
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1)
        return;
    lh_graph_destroy(&m->graph);
    lh_norm_fini(&m->norm);
    lh_mem_free(m->params);
    lh_job_destroy(&m->job);
    lh_mem_free(m);
}

/* By way of its text, which is exact and brings the strings along. */
static int copy_job(struct lh_job **out, const struct lh_job *job)
{
    char *text = NULL;
    LH_TRY(lh_job_print(job, &text));
    int rc = lh_job_load_text(out, text, strlen(text), "the policy's config", NULL);
    lh_mem_free(text);
    return rc;
}

static size_t states_for(size_t candidates)
{
    size_t rows = 1;
    while (rows < STATES_MAX && 2 * rows * candidates <= CANDIDATES_MAX)
        rows *= 2;
    return rows;
}

static int copy_params(struct model *m, const struct lh_param *layout, size_t n_layout,
                       const float *params)
{
    size_t n, size = lh_graph_flat_size(m->graph);
    const struct lh_param *mine = lh_graph_params(m->graph, &n);
    LH_TRY(lh_mem_alloc_aligned((void **)&m->params, size, sizeof *m->params, "policy weights"));
    memset(m->params, 0, size * sizeof *m->params);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < n_layout && strcmp(layout[k].name, mine[i].name))
            k++;
        if (k == n_layout)
            return lh_err_set(LH_EMISMATCH,
                              "weights: tensor '%s' is missing, which algorithm '%s' "
                              "acts with; take weights trained by that algorithm",
                              mine[i].name, m->job->algorithm);
        if (layout[k].rows != mine[i].rows || layout[k].cols != mine[i].cols)
            return lh_err_set(LH_EMISMATCH,
                              "weights: tensor '%s' is [%zu, %zu] where the config "
                              "asks for [%zu, %zu]; take the config they were trained with",
                              mine[i].name, layout[k].rows, layout[k].cols, mine[i].rows,
                              mine[i].cols);
        memcpy(m->params + mine[i].offset, params + layout[k].offset,
               mine[i].rows * mine[i].cols * sizeof *params);
    }
    return 0;
}

static int model_create(struct model **out, const struct lh_job *job, const struct lh_norm *norm,
                        const struct lh_param *layout, size_t n_params, const float *params)
{
    struct model *m = NULL;
    int rc = 0;
    LH_TRY(LH_NEW(&m, "policy"));
    atomic_init(&m->refs, 1);
    LH_TRY_TO(fail, copy_job(&m->job, job));
    LH_TRY_TO(fail,
              job->normalise ? lh_norm_copy(&m->norm, norm) : lh_norm_init(&m->norm, &job->dims));
    m->algo = lh_algo_find(job->algorithm);
    if (!m->algo) {
        rc = lh_err_set(LH_ECONFIG, "algorithm: '%s' is unknown; `longhaul help job` lists them",
                        job->algorithm);
        goto fail;
    }
    m->estimators = m->algo->chooses && job->cvae ? job->estimators : 1;
    m->noise_width = m->algo->act_noise ? m->algo->act_noise(job) : 0;
    m->rows = states_for(m->estimators);
    struct lh_graph_spec spec = {.rows = m->rows, .dims = job->dims};
    lh_job_tables_declare(m->job, &spec);
    LH_TRY_TO(fail, lh_graph_create(&m->graph, &spec));
    LH_TRY_TO(fail, m->algo->declare_act(m->graph, m->job));
    LH_TRY_TO(fail, lh_graph_compile(m->graph));
    LH_TRY_TO(fail, copy_params(m, layout, n_params, params));
    *out = m;
    return 0;
fail:
    model_release(&m);
    return rc;
}

/* What one thread needs to run m: memory of its own, zeroed inputs. */
static int execution_create(struct lh_exec **exec, float **noise, const struct model *m)
{
    int rc;
    struct lh_exec *e = NULL;
    float *z = NULL;
    LH_TRY(lh_exec_create(&e, m->graph));
    lh_exec_reuse(e, true); /* a policy's weights stay as they are */
    if (m->noise_width) {
        size_t n = m->rows * m->noise_width;
        LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&z, n, sizeof *z, "policy noise"));
        memset(z, 0, n * sizeof *z);
        LH_TRY_TO(fail, lh_exec_set_noise(e, LH_ALGO_ACT_NOISE, z));
    }
    float *high = lh_exec_input(e, LH_STATE_HIGH), *low = lh_exec_input(e, LH_STATE_LOW);
    if (high)
        memset(high, 0, m->rows * m->job->dims.high * sizeof *high);
    if (low)
        memset(low, 0, m->rows * m->job->dims.low * sizeof *low);
    for (size_t t = 0; t < m->job->n_tables; t++) {
        float *index = lh_exec_table_index(e, t, false);
        for (size_t i = 0; index && i < m->rows * m->job->tables[t].n_ids; i++)
            index[i] = -1;
    }
    *exec = e;
    *noise = z;
    return 0;
fail:
    lh_mem_free(z);
    lh_exec_destroy(&e);
    return rc;
}

int lh_policy_create(struct lh_policy **out, const struct lh_job *job, const struct lh_norm *norm,
                     const struct lh_param *layout, size_t n_params, const float *params)
{
    struct lh_policy *p = NULL;
    int rc;
    LH_TRY(LH_NEW(&p, "policy"));
    LH_TRY_TO(fail, model_create(&p->model, job, norm, layout, n_params, params));
    LH_TRY_TO(fail, execution_create(&p->exec, &p->noise, p->model));
    *out = p;
    return 0;
fail:
    lh_policy_destroy(&p);
    return rc;
}

/* Asks what was asked when the snapshot was written, and holds the answers against those. */
static int check_probe(struct lh_policy *p, const struct lh_snapshot *s)
{
    const struct lh_dims *d = &s->job->dims;
    size_t h = LH_PROBE_ROWS * (size_t)d->high, l = LH_PROBE_ROWS * (size_t)d->low;
    float *x = NULL;
    LH_TRY(LH_NEW_ARRAY(&x, h + l + LH_PROBE_ROWS * (size_t)d->action, "policy probe"));
    lh_snapshot_probe_states(&s->norm, x, x + h);
    int rc = lh_policy_act(p, x, x + h, LH_PROBE_ROWS, 0, 0, x + h + l, NULL);
    if (rc == 0)
        rc = lh_snapshot_probe_check(s, x + h + l);
    lh_mem_free(x);
    return rc;
}

int lh_policy_from_snapshot(struct lh_policy **out, const struct lh_snapshot *s)
{
    struct lh_policy *p = NULL;
    int rc;
    LH_TRY_TO(fail, lh_policy_create(&p, s->job, &s->norm, s->params, s->n_params, s->weights));
    LH_TRY_TO(fail, check_probe(p, s));
    *out = p;
    return 0;
fail:
    lh_policy_destroy(&p);
    return rc;
}

int lh_policy_open(struct lh_policy **out, const char *snapshot_dir)
{
    struct lh_snapshot *s = NULL;
    LH_TRY(lh_snapshot_open(&s, snapshot_dir));
    int rc = s->job->n_tables > 0
                 ? lh_err_set(LH_EMISMATCH, "a policy with embedding tables does not act here, "
                                            "where states come without ids")
                 : lh_policy_from_snapshot(out, s);
    lh_snapshot_close(&s);
    return rc < 0 ? lh_err_prefix(rc, "%s", snapshot_dir) : rc;
}

void lh_policy_destroy(struct lh_policy **pp)
{
    struct lh_policy *p = *pp;
    if (!p)
        return;
    lh_exec_destroy(&p->exec);
    lh_mem_free(p->noise);
    lh_mem_free(p->ask);
    lh_mem_free(p->got);
    model_release(&p->model);
    lh_mem_free(p);
    *pp = NULL;
}

/* Room for what one graph's states look up. */
static int reserve(struct lh_policy *p)
{
    const struct lh_job *job = p->model->job;
    size_t ids = 0, elements = 0;
    for (size_t t = 0; t < job->n_tables; t++) {
        const size_t n = p->model->rows * job->tables[t].n_ids;
        p->tables[t].index = lh_exec_table_index(p->exec, t, false);
        p->tables[t].rows = lh_exec_table_rows(p->exec, t);
        ids = n > ids ? n : ids;
        elements = n * job->tables[t].dim > elements ? n * job->tables[t].dim : elements;
    }
    lh_mem_free(p->ask);
    lh_mem_free(p->got);
    p->ask = NULL;
    p->got = NULL;
    LH_TRY(LH_NEW_ARRAY(&p->ask, ids, "rows of tables"));
    return LH_NEW_ARRAY(&p->got, elements, "rows of tables");
}

static int attach(struct lh_policy *p, const struct lh_policy *as)
{
    p->source = as->source;
    p->width = as->width;
    for (size_t t = 0; t < LH_GRAPH_TABLES_MAX; t++)
        memcpy(p->tables[t].at, as->tables[t].at, sizeof p->tables[t].at);
    return reserve(p);
}

int lh_policy_attach(struct lh_policy *p, const struct lh_row_source *source,
                     const char *const *names, size_t n)
{
    const struct lh_job *job = p->model->job;
    if (job->n_tables == 0)
        return 0;
    for (size_t t = 0; t < job->n_tables; t++)
        LH_TRY(lh_job_tables_find(&job->tables[t], names, n, p->tables[t].at));
    p->source = *source;
    p->width = n;
    return reserve(p);
}

int lh_policy_clone(struct lh_policy **out, const struct lh_policy *p)
{
    struct lh_policy *c = NULL;
    int rc;
    LH_TRY(LH_NEW(&c, "policy"));
    LH_TRY_TO(fail, execution_create(&c->exec, &c->noise, p->model));
    atomic_fetch_add(&p->model->refs, 1);
    c->model = p->model;
    if (p->source.pull)
        LH_TRY_TO(fail, attach(c, p));
    *out = c;
    return 0;
fail:
    lh_policy_destroy(&c);
    return rc;
}

const struct lh_job *lh_policy_job(const struct lh_policy *p)
{
    return p->model->job;
}

size_t lh_policy_estimators(const struct lh_policy *p)
{
    return p->model->estimators;
}

int lh_policy_set_estimators(struct lh_policy *p, size_t n)
{
    const struct model *old = p->model;
    if (n == old->estimators)
        return 0;
    if (!old->algo->chooses || !old->job->cvae)
        return lh_err_set(LH_EUSAGE,
                          "estimators: %zu asked for, but this policy (%s%s) has one action "
                          "a state and nothing to choose; leave the number away",
                          n, old->job->algorithm, old->algo->chooses ? " without CVAE" : "");
    if (n == 0 || n > LH_POLICY_ESTIMATORS_MAX)
        return lh_err_set(LH_EUSAGE, "estimators: %zu is not between 1 and %d", n,
                          LH_POLICY_ESTIMATORS_MAX);

    struct lh_job job = *old->job;
    struct model *m = NULL;
    struct lh_exec *exec = NULL;
    float *noise = NULL;
    int rc;
    size_t n_params;
    const struct lh_param *layout = lh_graph_params(old->graph, &n_params);
    job.estimators = n;
    LH_TRY(model_create(&m, &job, &old->norm, layout, n_params, old->params));
    LH_TRY_TO(fail, execution_create(&exec, &noise, m));
    lh_exec_destroy(&p->exec);
    lh_mem_free(p->noise);
    model_release(&p->model);
    p->model = m;
    p->exec = exec;
    p->noise = noise;
    return p->source.pull ? reserve(p) : 0;
fail:
    model_release(&m);
    return rc;
}

/* x' = (x - shift) * scale for one row; the column that is not finite then, or -1. */
static ptrdiff_t normalise(float *restrict out, const float *restrict x, const float *shift,
                           const float *scale, size_t n)
{
    ptrdiff_t bad = -1;
    for (size_t j = 0; j < n; j++) {
        out[j] = (x[j] - shift[j]) * scale[j];
        if (!isfinite(out[j]) && bad < 0)
            bad = (ptrdiff_t)j;
    }
    return bad;
}

static int not_finite(uint64_t state, const char *part, ptrdiff_t column, float value)
{
    return lh_err_set(LH_ERANGE,
                      "state %llu: column %td of the %s-level state is %g, which the policy cannot "
                      "act on; fill missing values as the schema does",
                      (unsigned long long)state, column, part, (double)value);
}

/* States first .. first + n - 1 into rows slot .. of the graph. */
static int fill(struct lh_policy *p, const float *high, const float *low, size_t n, size_t slot,
                uint64_t seed, uint64_t first)
{
    const struct model *m = p->model;
    size_t h = m->job->dims.high, l = m->job->dims.low;
    float *in_high = lh_exec_input(p->exec, LH_STATE_HIGH);
    float *in_low = lh_exec_input(p->exec, LH_STATE_LOW);
    struct lh_rng_at at = {.seed = seed, .purpose = lh_rng_purpose(LH_ALGO_ACT_NOISE)};
    for (size_t i = 0; i < n; i++) {
        ptrdiff_t bad = -1;
        if (in_high)
            bad = normalise(in_high + (slot + i) * h, high + i * h, m->norm.high_shift,
                            m->norm.high_scale, h);
        if (bad >= 0)
            return not_finite(first + i, "session", bad, high[i * h + (size_t)bad]);
        if (in_low)
            bad = normalise(in_low + (slot + i) * l, low + i * l, m->norm.low_shift,
                            m->norm.low_scale, l);
        if (bad >= 0)
            return not_finite(first + i, "request", bad, low[i * l + (size_t)bad]);
        at.step = first + i;
        lh_rng_normal(&at, p->noise ? p->noise + (slot + i) * m->noise_width : NULL,
                      m->noise_width);
    }
    return 0;
}

/* Rows slot .. slot + n of an output [.., width] in raw units; a difference has no shift. */
static void take_actions(const struct lh_policy *p, const char *name, size_t slot, size_t n,
                         bool difference, float *out)
{
    size_t rows, a;
    const float *x = lh_exec_output(p->exec, name, &rows, &a);
    if (!x || !out)
        return;
    const struct lh_norm *norm = &p->model->norm;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < a; j++)
            out[i * a + j] = x[(slot + i) * a + j] / norm->action_scale[j] +
                             (difference ? 0.0f : norm->action_shift[j]);
}

static void take_explanation(const struct lh_policy *p, size_t slot, size_t n, size_t done,
                             const struct lh_explain *ex)
{
    size_t m = p->model->estimators, a = p->model->job->dims.action, rows, cols;
    size_t skip = done * m * a;
    if (ex->reconstructed)
        take_actions(p, "reconstructed", slot * m, n * m, false, ex->reconstructed + skip);
    if (ex->residual)
        take_actions(p, "residual", slot * m, n * m, true, ex->residual + skip);
    if (ex->candidates)
        take_actions(p, "candidates", slot * m, n * m, false, ex->candidates + skip);
    const float *q = lh_exec_output(p->exec, "q", &rows, &cols);
    if (ex->q && q)
        memcpy(ex->q + done * m, q + slot * m, n * m * sizeof *q);
}

/* The rows that n states name, into those from slot on of the graph. ids NULL: none. */
static int look_up(struct lh_policy *p, const uint64_t *ids, size_t n, size_t slot)
{
    const struct lh_job *job = p->model->job;
    if (ids && job->n_tables > 0 && !p->source.pull)
        return lh_err_set(LH_EINTERNAL, "a policy with tables has nowhere to look rows up");
    for (size_t t = 0; p->source.pull && t < job->n_tables; t++) {
        const struct looked_up *x = &p->tables[t];
        const size_t k = job->tables[t].n_ids, dim = job->tables[t].dim;
        size_t asked = 0;
        for (size_t i = 0; x->index && i < n * k; i++) {
            const size_t to = slot * k + i;
            const uint64_t id = ids ? ids[i / k * p->width + x->at[i % k]] : LH_ID_NONE;
            x->index[to] = id == LH_ID_NONE ? -1 : (float)to;
            if (id != LH_ID_NONE)
                p->ask[asked++] = id;
        }
        if (asked > 0)
            LH_TRY(p->source.pull(p->source.ctx, t, p->ask, asked, p->got));
        for (size_t i = 0, at = 0; asked > 0 && i < n * k; i++)
            if (x->index[slot * k + i] >= 0)
                memcpy(x->rows + (slot * k + i) * dim, p->got + at++ * dim, dim * sizeof(float));
    }
    return 0;
}

int lh_policy_act(struct lh_policy *p, const float *high, const float *low, size_t n, uint64_t seed,
                  uint64_t first, float *action, struct lh_explain *explain)
{
    return lh_policy_act_on(p, &(struct lh_states){.high = high, .low = low}, n, seed, first,
                            action, explain);
}

int lh_policy_act_on(struct lh_policy *p, const struct lh_states *states, size_t n, uint64_t seed,
                     uint64_t first, float *action, struct lh_explain *explain)
{
    const float *high = states->high, *low = states->low;
    const struct model *m = p->model;
    size_t h = m->job->dims.high, l = m->job->dims.low, a = m->job->dims.action;
    const struct lh_rng_at at = {.seed = seed};
    for (size_t done = 0; done < n;) {
        size_t slot = (size_t)((first + done) % m->rows), k = m->rows - slot;
        k = k < n - done ? k : n - done;
        LH_TRY(fill(p, high + done * h, low + done * l, k, slot, seed, first + done));
        LH_TRY(look_up(p, states->ids ? states->ids + done * p->width : NULL, k, slot));
        lh_exec_run(p->exec, m->params, NULL, NULL, NULL, &at, NULL, NULL);
        take_actions(p, "action", slot, k, false, action + done * a);
        if (explain)
            take_explanation(p, slot, k, done, explain);
        done += k;
    }
    return 0;
}
