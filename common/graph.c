/* The graph as a declaration: nodes, parameters, losses, and the first error. Equal nodes are one
 * node (hash-consing), so that an algorithm may ask for a network twice and pay once. What the
 * operators are is in operators.c, gradients in grad.c, memory and order in plan.c. */
#include "common/graph.h"

#include "common/err.h"
#include "common/graph_internal.h"
#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_ELEMENTS 16 /* parameters start at multiples of this: 64 bytes of float */

const char *const lh_graph_op_names[LH_OP_COUNT] = {
#define OP_NAME(id, name, kernel, in_place) [LH_OP_##id] = #name,
    LH_OPS(OP_NAME)
#undef OP_NAME
};

int lh_graph_create(struct lh_graph **out, const struct lh_graph_spec *spec)
{
    *out = NULL;
    if (spec->rows == 0 || spec->rows > INT32_MAX)
        return lh_err_set(LH_ECONFIG, "graph: a batch of %zu rows; expected 1 to %d", spec->rows,
                          INT32_MAX);
    struct lh_graph *g;
    LH_TRY(LH_NEW(&g, "a graph"));
    g->spec = *spec;
    memset(g->table_grad, 0xff, sizeof g->table_grad);
    *out = g;
    return 0;
}

static void free_named(struct lh_graph_named *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lh_mem_free(x[i].name);
    lh_mem_free(x);
}

void lh_graph_destroy(struct lh_graph **out)
{
    struct lh_graph *g = *out;
    if (!g)
        return;
    lh_plan_fini(&g->plan);
    for (size_t i = 0; i < g->n_params; i++)
        lh_mem_free((void *)(uintptr_t)g->param[i].name);
    lh_mem_free(g->param);
    for (size_t i = 0; i < g->n_noise; i++)
        lh_mem_free(g->noise[i].name);
    lh_mem_free(g->noise);
    for (size_t i = 0; i < g->n_losses; i++) {
        lh_mem_free(g->loss[i].name);
        lh_mem_free(g->loss[i].patterns);
    }
    lh_mem_free(g->loss);
    free_named(g->metric, g->n_metrics);
    free_named(g->output, g->n_outputs);
    lh_mem_free(g->node);
    lh_mem_free(g->slot);
    lh_mem_free(g);
    *out = NULL;
}

int lh_graph_status(const struct lh_graph *g)
{
    return g->err.code ? lh_err_load(&g->err) : 0;
}

int lh_graph_fail(struct lh_graph *g, int code, const char *fmt, ...)
{
    if (g->err.code)
        return lh_err_load(&g->err);
    char text[LH_ERR_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    lh_err_set(code, "%s", text);
    if (!g->compiled) /* a compiled graph is shared by threads: it does not change any more */
        lh_err_save(&g->err, code);
    return code;
}

/* Makes the error that is already in the thread's buffer the graph's. */
static int keep(struct lh_graph *g, int rc)
{
    if (rc < 0 && !g->err.code && !g->compiled)
        lh_err_save(&g->err, rc);
    return rc;
}

bool lh_graph_stuck(struct lh_graph *g)
{
    if (g->compiled)
        lh_graph_fail(g, LH_EINTERNAL, "graph: declared after it was compiled");
    return g->err.code || g->compiled;
}

/* --- nodes --------------------------------------------------------------------------------- */
struct lh_def lh_graph_def(enum lh_op op, size_t rows, size_t cols)
{
    return (struct lh_def){.op = op, .rows = rows, .cols = cols, .weight = -1, .bias = -1};
}

bool lh_graph_has_effect(const struct lh_def *d)
{
    return d->op == LH_OP_LINEAR_DW || d->op == LH_OP_BIAS_GRAD ||
           (d->op == LH_OP_ACT_GRAD && d->bias >= 0);
}

static enum lh_use use_of(const struct lh_def *d, bool by_value)
{
    return by_value && d->use == LH_FROZEN ? LH_LIVE : d->use;
}

bool lh_graph_equal(const struct lh_def *x, const struct lh_def *y, bool by_value)
{
    if (x->op != y->op || x->rows != y->rows || x->cols != y->cols || x->n_in != y->n_in ||
        x->weight != y->weight || x->bias != y->bias ||
        use_of(x, by_value) != use_of(y, by_value) || x->act != y->act || x->i != y->i ||
        x->j != y->j)
        return false;
    /* attributes by their bits: 0.0 and -0.0 are different constants */
    return memcmp(&x->a, &y->a, sizeof x->a) == 0 && memcmp(&x->b, &y->b, sizeof x->b) == 0 &&
           memcmp(x->in, y->in, x->n_in * sizeof *x->in) == 0;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

uint64_t lh_graph_hash(const struct lh_def *d, bool by_value)
{
    uint64_t bits[2];
    memcpy(&bits[0], &d->a, sizeof bits[0]);
    memcpy(&bits[1], &d->b, sizeof bits[1]);
    uint64_t h = mix(mix(mix((uint64_t)d->op, d->rows), d->cols), (uint64_t)d->act);
    h = mix(mix(h, (uint64_t)(uint32_t)d->weight << 32 | (uint32_t)d->bias), d->i);
    h = mix(mix(mix(mix(h, d->j), bits[0]), bits[1]), (uint64_t)use_of(d, by_value));
    for (uint32_t k = 0; k < d->n_in; k++)
        h = mix(h, (uint64_t)(uint32_t)d->in[k]);
    return h;
}

static int32_t *find_slot(struct lh_graph *g, const struct lh_def *d)
{
    size_t at = lh_graph_hash(d, false) & (g->n_slots - 1);
    while (g->slot[at] >= 0 && !lh_graph_equal(&g->node[g->slot[at]], d, false))
        at = (at + 1) & (g->n_slots - 1);
    return &g->slot[at];
}

static int rehash(struct lh_graph *g, size_t n_slots)
{
    int32_t *slot;
    LH_TRY(LH_NEW_ARRAY(&slot, n_slots, "a graph's index"));
    memset(slot, 0xff, n_slots * sizeof *slot);
    lh_mem_free(g->slot);
    g->slot = slot;
    g->n_slots = n_slots;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!lh_graph_has_effect(&g->node[i]))
            *find_slot(g, &g->node[i]) = (int32_t)i;
    return 0;
}

lh_node lh_graph_add(struct lh_graph *g, const struct lh_def *d)
{
    const lh_node none = {-1};
    if (g->err.code)
        return none;
    size_t elements;
    if (lh_mem_mul(&elements, d->rows, d->cols) < 0 || elements > INT32_MAX) {
        lh_graph_fail(g, LH_ECONFIG, "graph: %s makes a matrix of %zu x %zu; at most 2^31 elements",
                      lh_graph_op_names[d->op], d->rows, d->cols);
        return none;
    }
    if (2 * (g->n_nodes + 1) > g->n_slots &&
        keep(g, rehash(g, g->n_slots ? 2 * g->n_slots : 256)) < 0)
        return none;
    int32_t *slot = NULL;
    if (!lh_graph_has_effect(d)) {
        slot = find_slot(g, d);
        if (*slot >= 0)
            return (lh_node){*slot};
    }
    if (keep(g, LH_GROW(&g->node, &g->cap_nodes, g->n_nodes + 1, "a graph's nodes")) < 0)
        return none;
    if (slot)
        *slot = (int32_t)g->n_nodes;
    g->node[g->n_nodes] = *d;
    return (lh_node){(int32_t)g->n_nodes++};
}

const struct lh_def *lh_graph_get(struct lh_graph *g, lh_node x, const char *who)
{
    if (lh_graph_stuck(g))
        return NULL;
    if (x.id < 0 || (size_t)x.id >= g->n_nodes) {
        lh_graph_fail(g, LH_EINTERNAL, "%s: an argument is no node of this graph", who);
        return NULL;
    }
    return &g->node[x.id];
}

/* --- inputs and noise ------------------------------------------------------------------------ */
lh_node lh_input(struct lh_graph *g, enum lh_input_kind kind)
{
    if (lh_graph_stuck(g))
        return (lh_node){-1};
    size_t cols = 1;
    switch (kind) {
    case LH_STATE_HIGH:
    case LH_NEXT_STATE_HIGH:
        cols = g->spec.dims.high;
        break;
    case LH_STATE_LOW:
    case LH_NEXT_STATE_LOW:
        cols = g->spec.dims.low;
        break;
    case LH_ACTION:
        cols = g->spec.dims.action;
        break;
    default:
        break;
    }
    struct lh_def d = lh_graph_def(LH_OP_INPUT, g->spec.rows, cols);
    d.i = (size_t)kind;
    return lh_graph_widen(g, kind, lh_graph_add(g, &d));
}

lh_node lh_next(struct lh_graph *g, lh_node input)
{
    if (!lh_graph_get(g, input, "lh_next"))
        return (lh_node){-1};
    if (input.id == lh_input(g, LH_STATE_HIGH).id)
        return lh_input(g, LH_NEXT_STATE_HIGH);
    if (input.id == lh_input(g, LH_STATE_LOW).id)
        return lh_input(g, LH_NEXT_STATE_LOW);
    lh_graph_fail(g, LH_EINTERNAL, "lh_next: the argument is no state input");
    return (lh_node){-1};
}

lh_node lh_noise(struct lh_graph *g, const char *name, size_t cols)
{
    const lh_node none = {-1};
    if (lh_graph_stuck(g))
        return none;
    if (cols == 0) {
        lh_graph_fail(g, LH_ECONFIG, "noise '%s': 0 columns", name);
        return none;
    }
    for (size_t i = 0; i < g->n_noise; i++)
        if (lh_rng_purpose(g->noise[i].name) == lh_rng_purpose(name)) {
            lh_graph_fail(g, LH_ECONFIG, "noise '%s': %s '%s'; give it another name", name,
                          strcmp(name, g->noise[i].name) ? "its numbers would be those of"
                                                         : "there already is noise",
                          g->noise[i].name);
            return none;
        }
    struct lh_def d = lh_graph_def(LH_OP_NOISE, g->spec.rows, cols);
    d.i = g->n_noise;
    if (keep(g, LH_GROW(&g->noise, &g->cap_noise, g->n_noise + 1, "a graph's noise")) < 0)
        return none;
    lh_node x = lh_graph_add(g, &d);
    char *copy;
    if (x.id < 0 || keep(g, lh_mem_strdup(&copy, name)) < 0)
        return none;
    g->noise[g->n_noise++] = (struct lh_graph_noise){.name = copy, .node = x.id};
    return x;
}

lh_node lh_constant(struct lh_graph *g, size_t rows, size_t cols, double value)
{
    if (lh_graph_stuck(g))
        return (lh_node){-1};
    struct lh_def d = lh_graph_def(LH_OP_CONSTANT, rows, cols);
    d.a = value;
    return lh_graph_add(g, &d);
}

/* --- parameters ---------------------------------------------------------------------------- */
static int32_t param(struct lh_graph *g, const char *name, const char *part, size_t rows,
                     size_t cols, size_t fan_in)
{
    char full[256];
    int n = snprintf(full, sizeof full, "%s.%s", name, part);
    if (n < 0 || (size_t)n >= sizeof full)
        return lh_graph_fail(g, LH_ECONFIG, "parameter '%.40s…': its name is longer than %zu bytes",
                             name, sizeof full - 1);
    for (size_t i = 0; i < g->n_params; i++) {
        const struct lh_param *p = &g->param[i];
        if (strcmp(p->name, full) != 0)
            continue;
        if (p->rows != rows || p->cols != cols)
            return lh_graph_fail(g, LH_ECONFIG,
                                 "parameter '%s': used as [%zu, %zu], but before as [%zu, %zu]",
                                 full, rows, cols, p->rows, p->cols);
        return (int32_t)i;
    }
    if (keep(g, LH_GROW(&g->param, &g->cap_params, g->n_params + 1, "a graph's parameters")) < 0)
        return -1;
    char *copy;
    if (keep(g, lh_mem_strdup(&copy, full)) < 0)
        return -1;
    g->param[g->n_params] =
        (struct lh_param){.name = copy, .rows = rows, .cols = cols, .fan_in = fan_in};
    return (int32_t)g->n_params++;
}

lh_node lh_linear(struct lh_graph *g, enum lh_use use, const char *name, lh_node x, size_t out,
                  enum lh_activation act)
{
    const lh_node none = {-1};
    const struct lh_def *in = lh_graph_get(g, x, "lh_linear");
    if (!in)
        return none;
    size_t rows = in->rows, cols = in->cols;
    if (cols == 0 || out == 0) {
        lh_graph_fail(g, LH_ECONFIG, "layer '%s': %zu inputs and %zu outputs; at least 1 each",
                      name, cols, out);
        return none;
    }
    struct lh_def d = lh_graph_def(LH_OP_LINEAR, rows, out);
    d.in[0] = x.id;
    d.n_in = 1;
    d.use = use;
    d.act = act;
    d.j = cols;
    d.weight = param(g, name, "weight", out, cols, cols);
    if (d.weight < 0)
        return none;
    d.bias = param(g, name, "bias", 1, out, cols);
    if (d.bias < 0)
        return none;
    if (use == LH_TARGET)
        g->param[d.weight].has_target = g->param[d.bias].has_target = true;
    return lh_graph_add(g, &d);
}

lh_node lh_mlp(struct lh_graph *g, enum lh_use use, const char *name, lh_node x,
               const struct lh_mlp_spec *spec)
{
    if (spec->n_hidden > LH_MLP_HIDDEN_MAX) {
        lh_graph_fail(g, LH_ECONFIG, "network '%s': %zu hidden layers; at most %d", name,
                      spec->n_hidden, LH_MLP_HIDDEN_MAX);
        return (lh_node){-1};
    }
    for (size_t k = 0; k <= spec->n_hidden; k++) {
        char layer[256];
        snprintf(layer, sizeof layer, "%s.%zu", name, k);
        bool last = k == spec->n_hidden;
        x = lh_linear(g, use, layer, x, last ? spec->out : spec->hidden[k],
                      last ? spec->last : LH_RELU);
    }
    return x;
}

/* --- purpose --------------------------------------------------------------------------------- */
static bool scalar(struct lh_graph *g, lh_node x, const char *what, const char *name)
{
    const struct lh_def *d = lh_graph_get(g, x, what);
    if (!d)
        return false;
    if (d->rows == 1 && d->cols == 1)
        return true;
    lh_graph_fail(g, LH_ECONFIG, "%s '%s': a matrix of %zu x %zu; expected one number (lh_mean)",
                  what, name, d->rows, d->cols);
    return false;
}

/* Losses and metrics are reported side by side under their names. */
static bool fresh(struct lh_graph *g, const char *what, const char *name)
{
    bool taken = false;
    for (size_t i = 0; i < g->n_losses; i++)
        taken = taken || strcmp(g->loss[i].name, name) == 0;
    for (size_t i = 0; i < g->n_metrics; i++)
        taken = taken || strcmp(g->metric[i].name, name) == 0;
    if (taken)
        lh_graph_fail(g, LH_ECONFIG, "%s '%s': the name is taken", what, name);
    return !taken;
}

void lh_loss(struct lh_graph *g, const char *name, double weight, lh_node value,
             const char *patterns)
{
    if (!scalar(g, value, "loss", name) || !fresh(g, "loss", name))
        return;
    if (!(weight - weight == 0)) {
        lh_graph_fail(g, LH_ECONFIG, "loss '%s': its weight is not finite", name);
        return;
    }
    if (keep(g, LH_GROW(&g->loss, &g->cap_losses, g->n_losses + 1, "a graph's losses")) < 0)
        return;
    struct lh_graph_loss l = {.weight = weight, .value = value.id};
    if (keep(g, lh_mem_strdup(&l.name, name)) < 0)
        return;
    if (keep(g, lh_mem_strdup(&l.patterns, patterns)) < 0) {
        lh_mem_free(l.name);
        return;
    }
    g->loss[g->n_losses++] = l;
}

static void add_named(struct lh_graph *g, struct lh_graph_named **list, size_t *n, size_t *cap,
                      const char *name, lh_node value)
{
    char *copy;
    if (keep(g, LH_GROW(list, cap, *n + 1, "a graph's outputs")) < 0 ||
        keep(g, lh_mem_strdup(&copy, name)) < 0)
        return;
    (*list)[(*n)++] = (struct lh_graph_named){.name = copy, .node = value.id};
}

void lh_metric(struct lh_graph *g, const char *name, lh_node value)
{
    if (scalar(g, value, "metric", name) && fresh(g, "metric", name))
        add_named(g, &g->metric, &g->n_metrics, &g->cap_metrics, name, value);
}

void lh_output(struct lh_graph *g, const char *name, lh_node value)
{
    if (!lh_graph_get(g, value, "lh_output"))
        return;
    for (size_t i = 0; i < g->n_outputs; i++)
        if (strcmp(g->output[i].name, name) == 0) {
            lh_graph_fail(g, LH_ECONFIG, "output '%s': the name is taken", name);
            return;
        }
    add_named(g, &g->output, &g->n_outputs, &g->cap_outputs, name, value);
}

/* --- compile --------------------------------------------------------------------------------- */
struct order {
    const char *name;
    int32_t was;
};

static int by_name(const void *x, const void *y)
{
    return strcmp(((const struct order *)x)->name, ((const struct order *)y)->name);
}

/* Canonical order: by name. Nodes refer to parameters by number, so they follow. */
static int sort_params(struct lh_graph *g)
{
    int rc = 0;
    size_t n = g->n_params;
    struct order *order = NULL;
    int32_t *now = NULL;
    struct lh_param *sorted = NULL;
    LH_TRY_TO(done, LH_NEW_ARRAY(&order, n, "the order of parameters"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&now, n, "the order of parameters"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&sorted, n, "the order of parameters"));
    for (size_t i = 0; i < n; i++)
        order[i] = (struct order){.name = g->param[i].name, .was = (int32_t)i};
    qsort(order, n, sizeof *order, by_name);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        now[order[i].was] = (int32_t)i;
        sorted[i] = g->param[order[i].was];
        sorted[i].offset = offset;
        size_t size = sorted[i].rows * sorted[i].cols;
        offset += (size + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    }
    g->flat_size = offset;
    if (n)
        memcpy(g->param, sorted, n * sizeof *sorted);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->node[i].weight >= 0)
            g->node[i].weight = now[g->node[i].weight];
        if (g->node[i].bias >= 0)
            g->node[i].bias = now[g->node[i].bias];
    }
    if (g->n_slots)
        rc = rehash(g, g->n_slots);
done:
    lh_mem_free(order);
    lh_mem_free(now);
    lh_mem_free(sorted);
    return rc;
}

/* Random streams are told apart by a 32-bit hash of the name. */
static int check_purposes(struct lh_graph *g)
{
    for (size_t i = 0; i < g->n_params; i++) {
        uint32_t p = lh_rng_purpose(g->param[i].name);
        for (size_t k = i + 1; k < g->n_params; k++)
            if (p == lh_rng_purpose(g->param[k].name))
                return lh_graph_fail(g, LH_ECONFIG,
                                     "parameters '%s' and '%s' would start with the same random "
                                     "numbers; rename one",
                                     g->param[i].name, g->param[k].name);
    }
    return 0;
}

int lh_graph_compile(struct lh_graph *g)
{
    if (lh_graph_stuck(g))
        return g->err.code ? lh_err_load(&g->err) : LH_EINTERNAL;
    if (g->n_losses + g->n_metrics + g->n_outputs == 0)
        return lh_graph_fail(g, LH_ECONFIG, "graph: no loss, metric or output");
    LH_TRY(check_purposes(g));
    LH_TRY(keep(g, sort_params(g)));
    LH_TRY(keep(g, lh_share_products(g)));
    g->n_forward = g->n_nodes;
    LH_TRY(keep(g, lh_grad_derive(g)));
    LH_TRY(keep(g, lh_plan_make(g)));
    lh_mem_free(g->slot);
    g->slot = NULL;
    g->n_slots = 0;
    g->compiled = true;
    return 0;
}

/* --- after compile --------------------------------------------------------------------------- */
const struct lh_param *lh_graph_params(const struct lh_graph *g, size_t *n)
{
    *n = g->n_params;
    return g->param;
}

size_t lh_graph_flat_size(const struct lh_graph *g)
{
    return g->flat_size;
}

void lh_graph_init_params(const struct lh_graph *g, uint64_t seed, lh_real *flat)
{
    memset(flat, 0, g->flat_size * sizeof *flat);
    for (size_t i = 0; i < g->n_params; i++) {
        const struct lh_param *p = &g->param[i];
        /* step UINT64_MAX: no training step draws from there, whatever a noise is called */
        struct lh_rng_at at = {
            .seed = seed, .purpose = lh_rng_purpose(p->name), .step = UINT64_MAX};
        double bound = 1 / __builtin_sqrt((double)p->fan_in);
        for (size_t k = 0; k < p->rows * p->cols; k += 256) {
            float u[256];
            size_t n = p->rows * p->cols - k < 256 ? p->rows * p->cols - k : 256;
            /* a block of numbers is a function of its place: part counts blocks */
            at.part = (uint32_t)(k / 256);
            lh_rng_uniform(&at, u, n);
            for (size_t j = 0; j < n; j++)
                flat[p->offset + k + j] = (lh_real)((2 * (double)u[j] - 1) * bound);
        }
    }
}

size_t lh_graph_metrics(const struct lh_graph *g)
{
    return g->n_losses + g->n_metrics;
}

size_t lh_graph_losses(const struct lh_graph *g)
{
    return g->n_losses;
}

const char *lh_graph_metric_name(const struct lh_graph *g, size_t i)
{
    return i < g->n_losses ? g->loss[i].name : g->metric[i - g->n_losses].name;
}

size_t lh_graph_input_cols(const struct lh_graph *g, enum lh_input_kind kind)
{
    for (size_t n = 0; n < g->n_forward; n++)
        if (g->node[n].op == LH_OP_INPUT && g->node[n].i == (size_t)kind)
            return g->plan.offset[n] == SIZE_MAX ? 0 : g->node[n].cols;
    return 0;
}

const char *lh_graph_noise(const struct lh_graph *g, size_t i, size_t *cols)
{
    if (i >= g->n_noise)
        return NULL;
    *cols = g->node[g->noise[i].node].cols;
    return g->noise[i].name;
}

struct lh_graph_stats lh_graph_stats(const struct lh_graph *g)
{
    return g->plan.stats;
}
