/* Runs a compiled graph: a list of calls over one block of memory, made once. A run walks the list.
 */
#include "common/arena.h"
#include "common/graph_internal.h"
#include "common/mem.h"

#include <string.h>
#include <time.h>

struct lh_exec {
    const struct lh_graph *g;
    struct lh_arena block; /* in which this struct lies as well */
    struct lh_call *call;
    lh_real *values;       /* [plan.arena] */
    const lh_real **given; /* [n_noise] values instead of drawn ones, or NULL */
    const lh_real *const *param_at, *const *target_at; /* of runs without flat arrays */
    bool adds;                                         /* to the sums so far */
    bool reuse;
    struct lh_packed *packed; /* [n_steps], of the first that reads these weights */
    double backward;          /* seconds */
    const struct lh_gemm *gemm;
    struct lh_gemm_ahead *ahead;
};

static const lh_op_kernel kernels[LH_OP_COUNT] = {
#define KERNEL_0(name)                 NULL
#define KERNEL_1(name)                 lh_op_##name
#define OP_KERNEL(id, name, kernel, m) [LH_OP_##id] = KERNEL_##kernel(name),
    LH_OPS(OP_KERNEL)
#undef OP_KERNEL
};

static size_t packed_size(const struct lh_graph *g, const struct lh_def *d)
{
    return lh_gemm_packed_size(d->cols, g->node[d->in[0]].cols);
}

/* The first step that reads the same columns of the same weights as layer t. */
static size_t packed_index(const struct lh_graph *g, size_t t)
{
    const struct lh_def *d = &g->node[g->plan.step[t].node];
    for (size_t k = 0; k < t; k++) {
        const struct lh_def *e = &g->node[g->plan.step[k].node];
        if (e->op == LH_OP_LINEAR && e->weight == d->weight && e->i == d->i &&
            (e->use == LH_TARGET) == (d->use == LH_TARGET) &&
            g->node[e->in[0]].cols == g->node[d->in[0]].cols)
            return k;
    }
    return t;
}

static bool packs(const struct lh_graph *g, size_t t)
{
    return g->node[g->plan.step[t].node].op == LH_OP_LINEAR && packed_index(g, t) == t;
}

static size_t packed_elements(const struct lh_graph *g)
{
    size_t n = 0;
    for (size_t t = 0; t < g->plan.n_steps; t++)
        n += packs(g, t) ? packed_size(g, &g->node[g->plan.step[t].node]) : 0;
    return n;
}

static void place_packed(struct lh_exec *e, lh_real *weights)
{
    const struct lh_graph *g = e->g;
    memset(e->packed, 0, g->plan.n_steps * sizeof *e->packed);
    for (size_t t = 0; t < g->plan.n_steps; t++)
        if (packs(g, t)) {
            e->packed[t].at = weights;
            weights += packed_size(g, &g->node[g->plan.step[t].node]);
        }
}

/* The same sequence measures and carves. */
static int carve(struct lh_arena *block, const struct lh_graph *g, struct lh_exec **out)
{
    void *exec, *call, *values, *given, *packed, *weights, *ahead;
    LH_TRY(lh_arena_alloc(block, &exec, 1, sizeof(struct lh_exec)));
    LH_TRY(lh_arena_alloc(block, &call, g->plan.n_steps, sizeof(struct lh_call)));
    LH_TRY(lh_arena_alloc(block, &given, g->n_noise, sizeof(lh_real *)));
    LH_TRY(lh_arena_alloc(block, &values, g->plan.arena, sizeof(lh_real)));
    LH_TRY(lh_arena_alloc(block, &packed, g->plan.n_steps, sizeof(struct lh_packed)));
    LH_TRY(lh_arena_alloc(block, &weights, packed_elements(g), sizeof(lh_real)));
    LH_TRY(lh_arena_alloc(block, &ahead, 1, sizeof(struct lh_gemm_ahead)));
    if (exec) {
        *out = exec;
        **out = (struct lh_exec){.g = g,
                                 .call = call,
                                 .values = values,
                                 .given = given,
                                 .packed = packed,
                                 .ahead = ahead,
                                 .gemm = lh_gemm_choose()};
        memset(ahead, 0, sizeof(struct lh_gemm_ahead));
        place_packed(*out, weights);
    }
    return 0;
}

static lh_real *value(const struct lh_exec *e, int32_t node)
{
    size_t offset = e->g->plan.offset[node];
    return offset == SIZE_MAX ? NULL : e->values + offset;
}

static void bind(struct lh_exec *e, struct lh_call *c, const struct lh_step *s)
{
    const struct lh_graph *g = e->g;
    const struct lh_def *d = &g->node[s->node];
    *c = (struct lh_call){.kernel = kernels[d->op],
                          .def = d,
                          .out = value(e, s->node),
                          .weight_adds = s->weight_adds,
                          .bias_adds = s->bias_adds,
                          .backward = s->backward,
                          .ready = s->ready,
                          .n_ready = s->n_ready};
    for (uint32_t k = 0; k < d->n_in; k++) {
        c->in[k] = value(e, d->in[k]);
        c->in_cols[k] = (uint32_t)g->node[d->in[k]].cols;
    }
    c->in_rows = d->n_in ? g->node[d->in[0]].rows : 0;
    c->weight = d->weight >= 0 ? g->param[d->weight].offset : 0;
    if (d->op == LH_OP_LINEAR)
        c->packed = &e->packed[packed_index(g, (size_t)(s - g->plan.step))];
    c->bias = d->bias >= 0 ? g->param[d->bias].offset : 0;
    if (d->op == LH_OP_NOISE) {
        c->purpose = lh_rng_purpose(g->noise[d->i].name);
        c->given = &e->given[d->i];
    }
}

static bool is_product(const struct lh_call *c)
{
    const enum lh_op op = c->def->op;
    return op == LH_OP_LINEAR || op == LH_OP_LINEAR_DX || op == LH_OP_LINEAR_DW;
}

static void chain_products(struct lh_exec *e)
{
    const struct lh_call *next = NULL;
    for (size_t t = e->g->plan.n_steps; t-- > 0;)
        if (is_product(&e->call[t])) {
            e->call[t].next = next;
            next = &e->call[t];
        }
}

int lh_exec_create(struct lh_exec **out, const struct lh_graph *g)
{
    *out = NULL;
    if (!g->compiled)
        return lh_err_set(LH_EINTERNAL, "exec: the graph is not compiled");
    struct lh_arena block;
    struct lh_exec *e = NULL;
    lh_arena_init_measure(&block);
    LH_TRY(carve(&block, g, &e));
    LH_TRY(lh_arena_init(&block, block.used, "memory of a graph"));
    int rc = carve(&block, g, &e);
    if (rc < 0) {
        lh_arena_fini(&block);
        return rc;
    }
    e->block = block;
    for (size_t t = 0; t < g->plan.n_steps; t++)
        bind(e, &e->call[t], &g->plan.step[t]);
    chain_products(e);
    for (size_t n = 0; n < g->n_nodes; n++) {
        const struct lh_def *d = &g->node[n];
        lh_real *x = value(e, (int32_t)n);
        if (d->op == LH_OP_CONSTANT && x)
            for (size_t i = 0; i < d->rows * d->cols; i++)
                x[i] = (lh_real)d->a;
    }
    *out = e;
    return 0;
}

void lh_exec_destroy(struct lh_exec **e)
{
    if (!*e)
        return;
    struct lh_arena block = (*e)->block;
    lh_arena_fini(&block);
    *e = NULL;
}

static lh_real *input(const struct lh_exec *e, size_t number)
{
    for (size_t n = 0; n < e->g->n_forward; n++)
        if (e->g->node[n].op == LH_OP_INPUT && e->g->node[n].i == number)
            return value(e, (int32_t)n);
    return NULL;
}

lh_real *lh_exec_input(struct lh_exec *e, enum lh_input_kind kind)
{
    return input(e, (size_t)kind);
}

lh_real *lh_exec_table_rows(struct lh_exec *e, size_t t)
{
    return input(e, lh_table_input(t, LH_TABLE_ROWS));
}

lh_real *lh_exec_table_index(struct lh_exec *e, size_t t, bool next)
{
    return input(e, lh_table_input(t, next ? LH_TABLE_NEXT_INDEX : LH_TABLE_INDEX));
}

const lh_real *lh_exec_table_grad(const struct lh_exec *e, size_t t)
{
    return e->g->table_grad[t] < 0 ? NULL : value(e, e->g->table_grad[t]);
}

bool lh_exec_table_learns(const struct lh_exec *e, size_t t, bool next)
{
    const size_t index = lh_table_input(t, next ? LH_TABLE_NEXT_INDEX : LH_TABLE_INDEX);
    for (size_t n = 0; e->g->table_grad[t] >= 0 && n < e->g->n_nodes; n++) {
        const struct lh_def *d = &e->g->node[n];
        if (d->op == LH_OP_LOOKUP_GRAD && e->g->node[d->in[1]].i == index)
            return true;
    }
    return false;
}

int lh_exec_set_noise(struct lh_exec *e, const char *name, const lh_real *values)
{
    for (size_t i = 0; i < e->g->n_noise; i++)
        if (strcmp(e->g->noise[i].name, name) == 0) {
            e->given[i] = values;
            return 0;
        }
    return lh_err_set(LH_ENOENT, "noise '%s': the graph has none of that name", name);
}

void lh_exec_reuse(struct lh_exec *e, bool on)
{
    e->reuse = on;
    for (size_t i = 0; i < e->g->plan.n_steps; i++)
        e->packed[i].ready = false;
}

void lh_exec_accumulate(struct lh_exec *e, bool on)
{
    e->adds = on;
}

void lh_exec_place(struct lh_exec *e, const lh_real *const *params, const lh_real *const *targets)
{
    e->param_at = params;
    e->target_at = targets;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double lh_exec_backward_seconds(const struct lh_exec *e)
{
    return e->backward;
}

void lh_exec_run(struct lh_exec *e, const lh_real *params, const lh_real *targets, lh_real *grads,
                 lh_real *metrics, const struct lh_rng_at *at,
                 void (*ready)(void *ctx, size_t param), void *ctx)
{
    const struct lh_graph *g = e->g;
    const struct lh_plan *p = &g->plan;
    struct lh_run run = {.params = params,
                         .targets = targets,
                         .param_at = e->param_at,
                         .target_at = e->target_at,
                         .grads = grads,
                         .adds = e->adds,
                         .reuse = e->reuse,
                         .gemm = e->gemm,
                         .ahead = e->ahead};
    if (at)
        run.at = *at;
    if (grads && !e->adds)
        for (size_t i = 0; i < p->n_zero; i++)
            memset(grads + p->zero[i].first, 0, p->zero[i].count * sizeof *grads);
    bool backward = false;
    for (size_t t = 0; t < p->n_steps; t++) {
        const struct lh_call *c = &e->call[t];
        if (c->backward && !grads)
            continue;
        if (c->backward != backward) { /* few times in a run */
            e->backward += backward ? now() : -now();
            backward = c->backward;
        }
        c->kernel(c, &run);
        if (ready)
            for (uint32_t i = 0; i < c->n_ready; i++)
                ready(ctx, p->ready[c->ready + i]);
    }
    if (backward)
        e->backward += now();
    if (!metrics)
        return;
    for (size_t i = 0; i < g->n_losses; i++)
        metrics[i] = *value(e, g->loss[i].value) + (e->adds ? metrics[i] : 0);
    for (size_t i = 0; i < g->n_metrics; i++) {
        lh_real *m = &metrics[g->n_losses + i];
        *m = *value(e, g->metric[i].node) + (e->adds ? *m : 0);
    }
}

void lh_exec_run_step(struct lh_exec *e, size_t step, const lh_real *params, const lh_real *targets,
                      lh_real *grads)
{
    struct lh_run run = {.params = params, .targets = targets, .grads = grads, .gemm = e->gemm};
    e->call[step].kernel(&e->call[step], &run);
}

const lh_real *lh_exec_output(const struct lh_exec *e, const char *name, size_t *rows, size_t *cols)
{
    const struct lh_graph *g = e->g;
    for (size_t i = 0; i < g->n_outputs; i++)
        if (strcmp(g->output[i].name, name) == 0) {
            if (rows)
                *rows = g->node[g->output[i].node].rows;
            if (cols)
                *cols = g->node[g->output[i].node].cols;
            return value(e, g->output[i].node);
        }
    return NULL;
}
