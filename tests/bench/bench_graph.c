/* Speed of a training step's arithmetic: the graph of ResAct (hidden 256 x 256, s_h 32, s_l 64,
 * action 32, latent 64) forward and backward on one thread, beside the same products handed to
 * BLAS one after the other, and a profile by operator. No ctest: run it by hand, alone.
 *
 *     bench_graph [rows …]        default 128 256 512 */
#include "common/gemm.h"
#include "common/graph_internal.h"
#include "common/mem.h"
#include "worker/algo.h"

#include <cblas.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#define ROUNDS 7 /* of which the best counts: others use the machine too */

static struct lh_job job = {.name = "bench",
                            .algorithm = "resact",
                            .hidden = {256, 256},
                            .n_hidden = 2,
                            .latent = 64,
                            .z_high = 64,
                            .z_low = 64,
                            .gamma = 0.9,
                            .estimators = 20,
                            .weight_exp = 0.05,
                            .weight_con = 0.5,
                            .weight_kl = 1,
                            .cvae = true,
                            .bound = LH_BOUND_CLIP,
                            .residual_scale = 0.1,
                            .log_std_lo = -4,
                            .log_std_hi = 15,
                            .dims = {.high = 32, .low = 64, .action = 32, .classes = 5}};

struct rig {
    struct lh_graph *g;
    struct lh_exec *e;
    float *params, *targets, *grads, *pool;
    size_t pool_size;
};

static int prepare(struct rig *r, size_t rows)
{
    memset(r, 0, sizeof *r);
    LH_TRY(lh_graph_create(&r->g, &(struct lh_graph_spec){.rows = rows, .dims = job.dims}));
    LH_TRY(lh_algo_find("resact")->declare_train(r->g, &job));
    LH_TRY(lh_graph_compile(r->g));
    LH_TRY(lh_exec_create(&r->e, r->g));
    size_t n = lh_graph_flat_size(r->g);
    LH_TRY(lh_mem_alloc_aligned((void **)&r->params, n, sizeof(float), "weights"));
    LH_TRY(lh_mem_alloc_aligned((void **)&r->targets, n, sizeof(float), "weights"));
    LH_TRY(lh_mem_alloc_aligned((void **)&r->grads, n, sizeof(float), "gradients"));
    /* as much memory as the graph's values and weights take, so that caches hold as little */
    r->pool_size = r->g->plan.arena + 3 * n + (1 << 20);
    LH_TRY(lh_mem_alloc_aligned((void **)&r->pool, r->pool_size, sizeof(float), "operands"));
    lh_graph_init_params(r->g, 1, r->params);
    lh_graph_init_params(r->g, 1, r->targets);
    for (size_t i = 0; i < r->pool_size; i++)
        r->pool[i] = (float)(i % 1001) * 1e-3f - 0.5f;
    for (int k = 0; k < LH_INPUTS; k++) {
        float *x = lh_exec_input(r->e, (enum lh_input_kind)k);
        size_t cols = k == LH_STATE_HIGH || k == LH_NEXT_STATE_HIGH ? job.dims.high
                      : k == LH_STATE_LOW || k == LH_NEXT_STATE_LOW ? job.dims.low
                      : k == LH_ACTION                              ? job.dims.action
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
    return 0;
}

static void release(struct rig *r)
{
    lh_mem_free(r->params);
    lh_mem_free(r->targets);
    lh_mem_free(r->grads);
    lh_mem_free(r->pool);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

static void run(struct rig *r)
{
    lh_exec_run(r->e, r->params, r->targets, r->grads, NULL, &(struct lh_rng_at){.seed = 1}, NULL,
                NULL);
}

/* The products of the graph, all of them by BLAS, on operands that move through the pool. */
static void raw(struct rig *r)
{
    const struct lh_graph *g = r->g;
    size_t at = 0;
    for (size_t t = 0; t < g->plan.n_steps; t++) {
        const struct lh_def *d = &g->node[g->plan.step[t].node];
        bool dw = d->op == LH_OP_LINEAR_DW, nt = d->op == LH_OP_LINEAR;
        if (!dw && !nt && d->op != LH_OP_LINEAR_DX)
            continue;
        int m = (int)d->rows, n = (int)d->cols;
        int k = (int)(dw ? g->node[d->in[0]].rows : g->node[d->in[0]].cols);
        size_t a = (size_t)m * (size_t)k, b = (size_t)n * (size_t)k, c = (size_t)m * (size_t)n;
        if (at + a + b + c > r->pool_size)
            at = 0;
        cblas_sgemm(CblasRowMajor, dw ? CblasTrans : CblasNoTrans, nt ? CblasTrans : CblasNoTrans,
                    m, n, k, 1, r->pool + at, dw ? m : k, r->pool + at + a, nt ? k : n, 0,
                    r->pool + at + a + b, n);
        at += a + b + c;
    }
}

/* Seconds this thread has computed: what others do on the machine counts less than on a clock. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of one call; the best of ROUNDS of at least 0.2 s each. */
static double time_of(struct rig *r, void (*f)(struct rig *r))
{
    double best = 1e9;
    f(r);
    for (int round = 0; round < ROUNDS; round++) {
        double start = cpu_seconds(), seconds;
        size_t n = 0;
        do {
            f(r);
            n++;
            seconds = cpu_seconds() - start;
        } while (seconds < 0.2);
        best = seconds / (double)n < best ? seconds / (double)n : best;
    }
    return best;
}

struct line {
    double seconds, flops;
    size_t calls, op;
};

static int slower_first(const void *x, const void *y)
{
    double a = ((const struct line *)x)->seconds, b = ((const struct line *)y)->seconds;
    return a > b ? -1 : a < b;
}

static double flops_of(const struct lh_graph *g, const struct lh_def *d)
{
    const struct lh_def *x = &g->node[d->in[0]];
    size_t k = d->op == LH_OP_LINEAR || d->op == LH_OP_LINEAR_DX ? x->cols
               : d->op == LH_OP_LINEAR_DW                        ? x->rows
                                                                 : 0;
    return 2 * (double)d->rows * (double)d->cols * (double)k;
}

/* Where the time of a run goes, by operator. */
static void profile(struct rig *r)
{
    const struct lh_graph *g = r->g;
    struct line line[LH_OP_COUNT] = {0};
    double all = 0;
    enum { RUNS = 50 };
    for (int i = 0; i < RUNS; i++)
        for (size_t t = 0; t < g->plan.n_steps; t++) {
            enum lh_op op = g->node[g->plan.step[t].node].op;
            double start = cpu_seconds();
            lh_exec_run_step(r->e, t, r->params, r->targets, r->grads);
            line[op].seconds += cpu_seconds() - start;
            line[op].calls += i == 0;
            line[op].flops += flops_of(g, &g->node[g->plan.step[t].node]);
            line[op].op = op;
        }
    for (int op = 0; op < LH_OP_COUNT; op++)
        all += line[op].seconds;
    qsort(line, LH_OP_COUNT, sizeof *line, slower_first);
    for (int op = 0; op < 14; op++)
        printf("    %-20s %4zu calls  %8.1f us  %5.2f%%  %6.1f GFLOP/s\n",
               lh_graph_op_names[line[op].op], line[op].calls, line[op].seconds / RUNS * 1e6,
               100 * line[op].seconds / all, line[op].flops / line[op].seconds * 1e-9);
}

static int bench(size_t rows)
{
    struct rig r;
    LH_TRY(prepare(&r, rows));
    struct lh_graph_stats s = lh_graph_stats(r.g);
    double flops = (double)(s.flops_forward + s.flops_backward);
    double blas = time_of(&r, raw), graph = time_of(&r, run);
    printf("%5zu rows: %.0f flop/row (%.0f forward, %.0f backward), %zu steps, arena %zu KiB\n",
           rows, flops / (double)rows, (double)s.flops_forward / (double)rows,
           (double)s.flops_backward / (double)rows, s.nodes, s.arena_bytes / 1024);
    printf("    raw products %8.0f us  %6.1f GFLOP/s\n", blas * 1e6, flops / blas * 1e-9);
    printf("    graph        %8.0f us  %6.1f GFLOP/s  %.0f rows/s  %.1f%% of raw\n", graph * 1e6,
           flops / graph * 1e-9, (double)rows / graph, 100 * blas / graph);
    printf("    bits of the gradient: %016" PRIx64 "\n",
           XXH3_64bits(r.grads, lh_graph_flat_size(r.g) * sizeof *r.grads));
    profile(&r);
    release(&r);
    return 0;
}

int main(int argc, char **argv)
{
    static const size_t rows[] = {128, 256, 512};
    int rc = lh_gemm_check();
    printf("products by %s; %s\n", lh_gemm_choose()->instructions, openblas_get_config());
    for (int i = 0; rc == 0 && i < (argc > 1 ? argc - 1 : 3); i++)
        rc = bench(argc > 1 ? (size_t)atol(argv[i + 1]) : rows[i]);
    if (rc < 0)
        fprintf(stderr, "bench_graph: %s\n", lh_err_text());
    return lh_err_exit_status(rc);
}
