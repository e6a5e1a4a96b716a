/* Speed of a training step's arithmetic: the graph of ResAct (hidden 256 x 256, s_h 32, s_l 64,
 * action 32, latent 64) forward and backward on one thread, beside the same products handed to
 * BLAS one after the other, and a profile by operator. No ctest: run it by hand, alone.
 *
 *     bench_graph [--hidden N] [rows …]        default 256; 128 256 512 */
#include "common/gemm.h"
#include "common/graph_internal.h"
#include "common/mem.h"
#include "tests/bench/step_rig.h"

#include <cblas.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#define ROUNDS 7 /* of which the best counts: others use the machine too */

static void run(struct step_rig *r)
{
    step_rig_run(r);
}

static void raw(struct step_rig *r)
{
    step_rig_products(r, r->pool_size);
}

/* Seconds this thread has computed: what others do on the machine counts less than on a clock. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of one call; the best of ROUNDS of at least 0.2 s each. */
static double time_of(struct step_rig *r, void (*f)(struct step_rig *r))
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
static void profile(struct step_rig *r)
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

static int bench(size_t rows, size_t hidden)
{
    struct step_rig r;
    LH_TRY(step_rig_init(&r, rows, hidden));
    struct lh_graph_stats s = lh_graph_stats(r.g);
    double flops = r.flops;
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
    step_rig_fini(&r);
    return 0;
}

int main(int argc, char **argv)
{
    static const size_t rows[] = {128, 256, 512};
    size_t hidden = 256;
    int rc = lh_gemm_check();
    if (argc > 2 && strcmp(argv[1], "--hidden") == 0) {
        hidden = (size_t)atol(argv[2]);
        argc -= 2;
        argv += 2;
    }
    printf("products by %s; %s\n", lh_gemm_choose()->instructions, openblas_get_config());
    for (int i = 0; rc == 0 && i < (argc > 1 ? argc - 1 : 3); i++)
        rc = bench(argc > 1 ? (size_t)atol(argv[i + 1]) : rows[i], hidden);
    if (rc < 0)
        fprintf(stderr, "bench_graph: %s\n", lh_err_text());
    return lh_err_exit_status(rc);
}
