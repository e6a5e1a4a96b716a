#include "tests/bench/step_rig.h"

#include "common/err.h"
#include "common/graph_internal.h"
#include "common/mem.h"
#include "worker/algo.h"

#include <cblas.h>

#include <stdio.h>
#include <string.h>

static const char text[] = "algorithm: resact\n"
                           "network: {hidden: [%zu, %zu], latent: 64, z_high: 64, z_low: 64}\n";
static const struct lh_dims dims = {.high = 32, .low = 64, .action = 32, .classes = 5};

/* m, n and k of a product of the graph; false for other operators. */
static bool product(const struct lh_graph *g, const struct lh_def *d, int size[3])
{
    const bool dw = d->op == LH_OP_LINEAR_DW;
    if (!dw && d->op != LH_OP_LINEAR && d->op != LH_OP_LINEAR_DX)
        return false;
    size[0] = (int)d->rows;
    size[1] = (int)d->cols;
    size[2] = (int)(dw ? g->node[d->in[0]].rows : g->node[d->in[0]].cols);
    return true;
}

static size_t operands(const int size[3])
{
    const size_t m = (size_t)size[0], n = (size_t)size[1], k = (size_t)size[2];
    return m * k + n * k + m * n;
}

static void measure_products(struct step_rig *r)
{
    int size[3];
    for (size_t t = 0; t < r->g->plan.n_steps; t++)
        if (product(r->g, &r->g->node[r->g->plan.step[t].node], size) &&
            operands(size) > r->largest)
            r->largest = operands(size);
}

static void fill_inputs(struct step_rig *r, size_t rows)
{
    for (int k = 0; k < LH_INPUTS; k++) {
        float *x = lh_exec_input(r->e, (enum lh_input_kind)k);
        size_t cols = k == LH_STATE_HIGH || k == LH_NEXT_STATE_HIGH ? dims.high
                      : k == LH_STATE_LOW || k == LH_NEXT_STATE_LOW ? dims.low
                      : k == LH_ACTION                              ? dims.action
                                                                    : 1;
        struct lh_rng_at at = {.seed = 3, .purpose = (uint32_t)k};
        if (x)
            lh_rng_normal(&at, x, rows * cols);
        for (size_t i = 0; x && i < rows; i++) {
            if (k == LH_REWARD_CLASS)
                x[i] = (float)(i % 5);
            if (k == LH_ROW_WEIGHT)
                x[i] = 1.0f / (float)rows;
        }
    }
}

int step_rig_init(struct step_rig *r, size_t rows, size_t hidden)
{
    struct lh_job *job = NULL;
    char config[sizeof text + 40];
    int length = snprintf(config, sizeof config, text, hidden, hidden);
    memset(r, 0, sizeof *r);
    LH_TRY(lh_job_load_text(&job, config, (size_t)length, "bench", NULL));
    LH_TRY(lh_job_resolve(job, &dims, 1));
    LH_TRY(lh_graph_create(&r->g, &(struct lh_graph_spec){.rows = rows, .dims = dims}));
    LH_TRY(lh_algo_find(job->algorithm)->declare_train(r->g, job));
    lh_job_destroy(&job);
    LH_TRY(lh_graph_compile(r->g));
    LH_TRY(lh_exec_create(&r->e, r->g));
    struct lh_graph_stats stats = lh_graph_stats(r->g);
    r->flops = (double)(stats.flops_forward + stats.flops_backward);
    size_t n = lh_graph_flat_size(r->g);
    LH_TRY(lh_mem_alloc_aligned((void **)&r->params, n, sizeof(float), "weights"));
    LH_TRY(lh_mem_alloc_aligned((void **)&r->targets, n, sizeof(float), "weights"));
    LH_TRY(lh_mem_alloc_aligned((void **)&r->grads, n, sizeof(float), "gradients"));
    measure_products(r);
    /* as much memory as the graph's values and weights take, so that caches hold as little */
    r->pool_size = r->g->plan.arena + 3 * n + r->largest;
    LH_TRY(lh_mem_alloc_aligned((void **)&r->pool, r->pool_size, sizeof(float), "operands"));
    lh_graph_init_params(r->g, 1, r->params);
    lh_graph_init_params(r->g, 1, r->targets);
    for (size_t i = 0; i < r->pool_size; i++)
        r->pool[i] = (float)(i % 1001) * 1e-3f - 0.5f;
    fill_inputs(r, rows);
    return 0;
}

void step_rig_fini(struct step_rig *r)
{
    lh_mem_free(r->params);
    lh_mem_free(r->targets);
    lh_mem_free(r->grads);
    lh_mem_free(r->pool);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

void step_rig_run(struct step_rig *r)
{
    lh_exec_run(r->e, r->params, r->targets, r->grads, NULL, &(struct lh_rng_at){.seed = 1}, NULL,
                NULL);
}

void step_rig_products(struct step_rig *r, size_t pool)
{
    const struct lh_graph *g = r->g;
    size_t at = 0;
    int s[3];
    for (size_t t = 0; t < g->plan.n_steps; t++) {
        const struct lh_def *d = &g->node[g->plan.step[t].node];
        if (!product(g, d, s))
            continue;
        const bool dw = d->op == LH_OP_LINEAR_DW, nt = d->op == LH_OP_LINEAR;
        if (at + operands(s) > pool)
            at = 0;
        float *a = r->pool + at, *b = a + (size_t)s[0] * (size_t)s[2],
              *c = b + (size_t)s[1] * (size_t)s[2];
        cblas_sgemm(CblasRowMajor, dw ? CblasTrans : CblasNoTrans, nt ? CblasTrans : CblasNoTrans,
                    s[0], s[1], s[2], 1, a, dw ? s[0] : s[2], b, nt ? s[2] : s[1], 0, c, s[1]);
        at += operands(s);
    }
}
