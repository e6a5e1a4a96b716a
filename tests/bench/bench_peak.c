/* How many fused multiply-adds this machine does: chains of them in registers, nothing else, on one
 * or several threads at once. It bounds every product, whatever its kernel.
 *
 *     bench_peak [threads [seconds]]      default 1 1
 *
 * Prints a line of JSON: "fma_gflops" is the sum over threads, each at its best of several runs;
 * 0 where there is neither AVX-512 nor AVX2 with FMA. */
#include "common/err.h"
#include "common/term.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS_MAX 256
#define CHAINS      12 /* more than two units times four cycles, fewer than AVX2's registers */
#define STEPS       20000

#if defined(__x86_64__)
#include <immintrin.h>

/* FLOPs of one call; the sum of the chains comes out so that they must be computed. */
#define FMA_CHAINS(name, instructions, vector, width, spread, fma, store)                          \
    __attribute__((target(instructions), noinline)) static double name(float *out)                 \
    {                                                                                              \
        vector s[CHAINS];                                                                          \
        const vector x = spread(0.5f), y = spread(out[0]);                                         \
        _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) s[i] = spread((float)i);         \
        for (int n = 0; n < STEPS; n++)                                                            \
            _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) s[i] = fma(s[i], x, y);      \
        _Pragma("GCC unroll 16") for (int i = 1; i < CHAINS; i++) s[0] = fma(s[i], x, s[0]);       \
        store(out, s[0]);                                                                          \
        return 2.0 * width * CHAINS * STEPS;                                                       \
    }

FMA_CHAINS(by_avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps)
FMA_CHAINS(by_avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps)

static double chains(float *out)
{
    return __builtin_cpu_supports("avx512f")                                 ? by_avx512(out)
           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? by_avx2(out)
                                                                             : 0;
}
#else
static double chains(float *out)
{
    (void)out;
    return 0;
}
#endif

struct runner {
    pthread_t thread;
    pthread_barrier_t *barrier;
    double seconds, rate;
};

static void *run(void *arg)
{
    struct runner *r = arg;
    float out[16] = {0.25f};
    pthread_barrier_wait(r->barrier);
    const double end = lh_now() + r->seconds;
    double now = lh_now();
    while (now < end) {
        const double began = now;
        double flops = 0;
        do {
            flops += chains(out);
            now = lh_now();
        } while (now - began < r->seconds / 8);
        if (flops / (now - began) > r->rate)
            r->rate = flops / (now - began);
    }
    return NULL;
}

static int bench(size_t threads, double seconds)
{
    static struct runner runners[THREADS_MAX];
    pthread_barrier_t barrier;
    double rate = 0;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (size_t i = 0; i < threads; i++) {
        runners[i] = (struct runner){.barrier = &barrier, .seconds = seconds};
        if (pthread_create(&runners[i].thread, NULL, run, &runners[i]) != 0)
            return lh_err_set(LH_EIO, "cannot start a thread");
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(runners[i].thread, NULL);
        rate += runners[i].rate;
    }
    pthread_barrier_destroy(&barrier);
    printf("{\"threads\": %zu, \"fma_gflops\": %.1f}\n", threads, rate * 1e-9);
    return 0;
}

int main(int argc, char **argv)
{
    const size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    const double seconds = argc > 2 ? strtod(argv[2], NULL) : 1;
    int rc = 0;
    if (threads == 0 || threads > THREADS_MAX || !(seconds > 0))
        rc = lh_err_set(LH_EUSAGE, "1 to %d threads, more than 0 seconds", THREADS_MAX);
    if (rc == 0)
        rc = bench(threads, seconds);
    if (rc < 0)
        fprintf(stderr, "bench_peak: %s\n", lh_err_text());
    return lh_err_exit_status(rc);
}
