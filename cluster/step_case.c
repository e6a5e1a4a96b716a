/* Reading a case. Widths come from the arrays themselves; from then on the job's training graph
 * says which files there must be and of what shape. */
#include "cluster/step_case.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/npy.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const input_names[LH_INPUTS] = {
    [LH_STATE_HIGH] = "s_h",
    [LH_STATE_LOW] = "s_l",
    [LH_ACTION] = "a",
    [LH_REWARD] = "r",
    [LH_NOT_DONE] = "done",
    [LH_REWARD_CLASS] = "r_class",
    [LH_NEXT_STATE_HIGH] = "s_h_next",
    [LH_NEXT_STATE_LOW] = "s_l_next",
};

struct reading {
    const char *dir;
    struct lh_step_case *c;
    size_t rows; /* of all steps */
};

static int path_of(char **out, const struct reading *r, const char *folder, const char *name)
{
    return lh_mem_printf(out, "%s/%s/%s.npy", r->dir, folder, name);
}

static int missing(const struct reading *r, const char *path, const char *shape)
{
    return lh_err_set(LH_ENOENT, "%s: is missing; a step of %s reads it, shape %s", path,
                      r->c->job->algorithm, shape);
}

/* --- the sizes ------------------------------------------------------------------------------ */

/* Shape of an array [rows, cols] of the batch. */
static int measure(const struct reading *r, const char *name, size_t *rows, uint32_t *cols)
{
    struct lh_npy a = {0};
    char *path = NULL, shape[80];
    LH_TRY(path_of(&path, r, "batch", name));
    int rc = lh_npy_open(&a, path);
    lh_npy_shape_text(shape, sizeof shape, a.shape, a.rank);
    if (rc == LH_ENOENT)
        rc = missing(r, path, "(B, width)");
    else if (rc == 0 && (a.rank != 2 || a.count == 0 || a.shape[1] > 65536))
        rc = lh_err_set(LH_EMISMATCH, "%s: shape %s, expected (B, width)", path, shape);
    *rows = a.shape[0];
    *cols = (uint32_t)a.shape[1];
    lh_npy_close(&a);
    lh_mem_free(path);
    return rc;
}

/* Rewards are classes where the case has r_class; how many is what the reward head puts out. */
static int count_classes(const struct reading *r, uint32_t *out)
{
    char *classes = NULL, *head = NULL;
    struct lh_npy a = {0};
    int rc;
    *out = 0;
    LH_TRY_TO(done, path_of(&classes, r, "batch", input_names[LH_REWARD_CLASS]));
    LH_TRY_TO(done,
              lh_mem_printf(&head, "%s/param/reward.%zu.weight.npy", r->dir, r->c->job->n_hidden));
    if (!lh_fs_exists(classes) || !lh_fs_exists(head))
        goto done;
    LH_TRY_TO(done, lh_npy_open(&a, head));
    if (a.rank != 2 || a.shape[0] == 0 || a.shape[0] > 65536)
        rc = lh_err_set(LH_EMISMATCH, "%s: expected shape (classes of rewards, width)", head);
    *out = (uint32_t)a.shape[0];
done:
    lh_npy_close(&a);
    lh_mem_free(classes);
    lh_mem_free(head);
    return rc;
}

static size_t power_of_two_within(size_t n)
{
    size_t p = 1;
    while (p <= n / 2)
        p *= 2;
    return p;
}

static int size_job(struct reading *r, uint64_t steps)
{
    struct lh_job *job = r->c->job;
    struct lh_dims dims = {0};
    size_t rows;
    LH_TRY(measure(r, "a", &r->rows, &dims.action));
    LH_TRY(measure(r, "s_h", &rows, &dims.high));
    LH_TRY(measure(r, "s_l", &rows, &dims.low));
    LH_TRY(count_classes(r, &dims.classes));
    if (r->rows % steps != 0)
        return lh_err_set(LH_EMISMATCH,
                          "%s/batch/a.npy: %zu rows are no multiple of the %llu steps asked for",
                          r->dir, r->rows, (unsigned long long)steps);
    job->steps = job->checkpoint_every = steps;
    job->batch = r->rows / steps;
    if (job->micro_batch > job->batch)
        job->micro_batch = power_of_two_within(job->batch);
    job->normalise = false;
    int rc = lh_job_resolve(job, &dims, job->dataset_digest);
    return rc < 0 ? lh_err_prefix(rc, "%s", r->dir) : 0;
}

static int load_job(struct reading *r)
{
    /* Any micro-batch fits below this batch, until the rows are known. */
    static const char *const always[] = {"train.batch=16777216", NULL};
    static const char *const defaults[] = {"objective.bound=none", NULL};
    char *path = NULL;
    LH_TRY(lh_mem_printf(&path, "%s/config.yaml", r->dir));
    int rc = lh_job_load_assigned(&r->c->job, path, defaults, always);
    if (rc == 0 && r->c->job->n_tables > 0)
        rc = lh_err_set(LH_ECONFIG,
                        "%s: a case is arrays of states, which have no ids; remove tables:", path);
    lh_mem_free(path);
    return rc;
}

/* --- the arrays ----------------------------------------------------------------------------- */

static bool is_shape(const struct lh_npy *a, const size_t *shape, size_t rank)
{
    if (a->rank == rank)
        return memcmp(a->shape, shape, rank * sizeof *shape) == 0;
    /* a column or a row may be written as a matrix */
    return rank == 1 && a->rank == 2 && a->count == shape[0] &&
           (a->shape[0] == shape[0] || a->shape[1] == shape[0]);
}

static int read_array(const struct reading *r, const char *folder, const char *name,
                      const size_t *shape, size_t rank, float *to)
{
    struct lh_npy a = {0};
    char *path = NULL, want[80], got[80];
    lh_npy_shape_text(want, sizeof want, shape, rank);
    LH_TRY(path_of(&path, r, folder, name));
    int rc = lh_npy_open(&a, path);
    lh_npy_shape_text(got, sizeof got, a.shape, a.rank);
    if (rc == LH_ENOENT)
        rc = missing(r, path, want);
    else if (rc == 0 && !is_shape(&a, shape, rank))
        rc = lh_err_set(LH_EMISMATCH, "%s: shape %s, expected %s", path, got, want);
    else if (rc == 0)
        rc = lh_npy_floats(&a, path, to);
    lh_npy_close(&a);
    lh_mem_free(path);
    return rc;
}

/* An array of the batch or of noise: [rows, cols], or [rows] for one column where `flat`. */
static int read_rows(const struct reading *r, const char *folder, const char *name, size_t cols,
                     bool flat, float **out)
{
    size_t shape[2] = {r->rows, cols}, n;
    LH_TRY(lh_mem_mul(&n, r->rows, cols));
    LH_TRY(LH_NEW_ARRAY(out, n, name));
    return read_array(r, folder, name, shape, flat ? 1 : 2, *out);
}

static int bad_value(const struct reading *r, enum lh_input_kind kind, size_t i, const char *want)
{
    return lh_err_set(LH_ERANGE, "%s/batch/%s.npy: row %zu is %g; expected %s", r->dir,
                      input_names[kind], i, (double)r->c->inputs[kind][i], want);
}

static int check_classes(const struct reading *r)
{
    const float *x = r->c->inputs[LH_REWARD_CLASS];
    char want[64];
    snprintf(want, sizeof want, "a class, 0 to %u", r->c->job->dims.classes - 1);
    for (size_t i = 0; i < r->rows; i++)
        if (!(x[i] >= 0 && x[i] < (float)r->c->job->dims.classes && x[i] == floorf(x[i])))
            return bad_value(r, LH_REWARD_CLASS, i, want);
    return 0;
}

static int turn_done(const struct reading *r)
{
    float *x = r->c->inputs[LH_NOT_DONE];
    for (size_t i = 0; i < r->rows; i++) {
        if (x[i] != 0 && x[i] != 1)
            return bad_value(r, LH_NOT_DONE, i, "0 or 1");
        x[i] = 1 - x[i];
    }
    return 0;
}

static int read_batches(const struct reading *r)
{
    struct lh_step_case *c = r->c;
    for (int k = 0; k < LH_ROW_WEIGHT; k++) {
        const enum lh_input_kind kind = (enum lh_input_kind)k;
        const size_t cols = lh_graph_input_cols(c->model.graph, kind);
        const bool flat = kind == LH_REWARD || kind == LH_NOT_DONE || kind == LH_REWARD_CLASS;
        if (cols == 0)
            continue;
        LH_TRY(read_rows(r, "batch", input_names[kind], cols, flat, &c->inputs[kind]));
        c->batches.inputs[kind] = c->inputs[kind];
    }
    if (c->inputs[LH_REWARD_CLASS])
        LH_TRY(check_classes(r));
    return c->inputs[LH_NOT_DONE] ? turn_done(r) : 0;
}

static int read_noise(const struct reading *r)
{
    struct lh_feed_given *b = &r->c->batches;
    const char *name;
    size_t cols;
    while ((name = lh_graph_noise(r->c->model.graph, b->n_noise, &cols))) {
        const size_t k = b->n_noise;
        if (k == LH_FEED_NOISES_MAX)
            return lh_err_set(LH_EINTERNAL, "a graph with more than %zu noises", k);
        LH_TRY(read_rows(r, "noise", name, cols, false, &r->c->noise[k]));
        b->noise[k].name = name;
        b->noise[k].cols = cols;
        b->noise[k].values = r->c->noise[k];
        b->n_noise++;
    }
    return 0;
}

size_t lh_step_case_shape(const struct lh_param *p, size_t shape[2])
{
    const char *part = strrchr(p->name, '.');
    const bool bias = part && strcmp(part, ".bias") == 0;
    shape[0] = bias ? p->cols : p->rows;
    shape[1] = p->cols;
    return bias ? 1 : 2;
}

static int read_params(const struct reading *r)
{
    struct lh_step_case *c = r->c;
    const size_t flat = c->model.layout.flat_size;
    size_t n, shape[2];
    const struct lh_param *p = lh_graph_params(c->model.graph, &n);
    LH_TRY(lh_mem_alloc_aligned((void **)&c->weights, flat, sizeof(float), "weights"));
    LH_TRY(lh_mem_alloc_aligned((void **)&c->targets, flat, sizeof(float), "targets"));
    memset(c->weights, 0, flat * sizeof(float));
    memset(c->targets, 0, flat * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const size_t rank = lh_step_case_shape(&p[i], shape);
        LH_TRY(read_array(r, "param", p[i].name, shape, rank, c->weights + p[i].offset));
        if (p[i].has_target)
            LH_TRY(read_array(r, "target", p[i].name, shape, rank, c->targets + p[i].offset));
    }
    return 0;
}

int lh_step_case_open(struct lh_step_case **out, const char *dir, uint64_t steps)
{
    struct lh_step_case *c = NULL;
    int rc;
    LH_TRY(LH_NEW(&c, "case"));
    struct reading r = {.dir = dir, .c = c};
    LH_TRY_TO(fail, load_job(&r));
    LH_TRY_TO(fail, size_job(&r, steps));
    LH_TRY_TO(fail, lh_model_init(&c->model, c->job, 1));
    c->batches.steps = steps;
    LH_TRY_TO(fail, read_batches(&r));
    LH_TRY_TO(fail, read_noise(&r));
    LH_TRY_TO(fail, read_params(&r));
    *out = c;
    return 0;
fail:
    lh_step_case_close(&c);
    return rc;
}

void lh_step_case_close(struct lh_step_case **out)
{
    struct lh_step_case *c = *out;
    if (!c)
        return;
    for (size_t i = 0; i < LH_INPUTS; i++)
        lh_mem_free(c->inputs[i]);
    for (size_t i = 0; i < LH_FEED_NOISES_MAX; i++)
        lh_mem_free(c->noise[i]);
    lh_mem_free(c->weights);
    lh_mem_free(c->targets);
    lh_model_fini(&c->model);
    lh_job_destroy(&c->job);
    lh_mem_free(c);
    *out = NULL;
}
