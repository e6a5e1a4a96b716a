/* What this machine's OpenBLAS makes of the very products of a training step: cblas_sgemm, one call
 * after the other, on one or several threads at once, each with operands of its own. The kernel is
 * what OpenBLAS chooses, or OPENBLAS_CORETYPE.
 *
 *     OPENBLAS_NUM_THREADS=1 bench_sgemm [threads [rows [seconds]]]      default 1 256 1
 *
 * Prints a line of JSON. "gflops" is the sum over threads and the better of two ways to place
 * operands: always the same memory, which stays in the caches, or as much memory as a step uses. */
#include "common/err.h"
#include "common/gemm.h"
#include "common/mem.h"
#include "common/term.h"
#include "tests/bench/step_rig.h"

#include <cblas.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS_MAX 256

struct runner {
    pthread_t thread;
    pthread_barrier_t *barrier;
    struct step_rig rig;
    double seconds, rate[2]; /* flop/s with operands in the same place, and moving */
};

static void *run(void *arg)
{
    struct runner *r = arg;
    for (int moving = 0; moving < 2; moving++) {
        size_t pool = moving ? r->rig.pool_size : r->rig.largest, n = 0;
        step_rig_products(&r->rig, pool);
        pthread_barrier_wait(r->barrier);
        double began = lh_now(), took;
        do {
            step_rig_products(&r->rig, pool);
            n++;
            took = lh_now() - began;
        } while (took < r->seconds / 2);
        r->rate[moving] = (double)n * r->rig.flops / took;
    }
    return NULL;
}

static int bench(size_t threads, size_t rows, double seconds)
{
    static struct runner runners[THREADS_MAX];
    pthread_barrier_t barrier;
    double rate[2] = {0};
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (size_t i = 0; i < threads; i++) {
        runners[i] = (struct runner){.barrier = &barrier, .seconds = seconds};
        LH_TRY(step_rig_init(&runners[i].rig, rows, 256));
    }
    for (size_t i = 0; i < threads; i++)
        if (pthread_create(&runners[i].thread, NULL, run, &runners[i]) != 0)
            return lh_err_set(LH_EIO, "cannot start a thread");
    for (size_t i = 0; i < threads; i++) {
        pthread_join(runners[i].thread, NULL);
        rate[0] += runners[i].rate[0];
        rate[1] += runners[i].rate[1];
    }
    printf(
        "{\"kernel\": \"%s\", \"threads\": %zu, \"rows\": %zu, \"gflops\": %.1f, "
        "\"gflops_same_memory\": %.1f, \"gflops_moving\": %.1f, \"flop_per_transition\": %.0f}\n",
        openblas_get_corename(), threads, rows, (rate[0] > rate[1] ? rate[0] : rate[1]) * 1e-9,
        rate[0] * 1e-9, rate[1] * 1e-9, runners[0].rig.flops / (double)rows);
    for (size_t i = 0; i < threads; i++)
        step_rig_fini(&runners[i].rig);
    pthread_barrier_destroy(&barrier);
    return 0;
}

int main(int argc, char **argv)
{
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    size_t rows = argc > 2 ? strtoul(argv[2], NULL, 10) : 256;
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 1;
    int rc = lh_gemm_check();
    if (rc == 0 && (threads == 0 || threads > THREADS_MAX || rows == 0))
        rc = lh_err_set(LH_EUSAGE, "1 to %d threads, 1 row or more", THREADS_MAX);
    if (rc == 0)
        rc = bench(threads, rows, seconds);
    if (rc < 0)
        fprintf(stderr, "bench_sgemm: %s\n", lh_err_text());
    return lh_err_exit_status(rc);
}
