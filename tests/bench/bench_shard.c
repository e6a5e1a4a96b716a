/* How fast a shard applies a step, against what the memory of this machine gives in the same run.
 *
 *     bench_shard [parameters [directory]]
 *
 * One thread. Bytes are counted as the loop sees them: each array read or written once, what a
 * processor reads to fill a line that is then overwritten is not, neither in the triad a = b + s c
 * (STREAM's) nor in Adam. The triad is the better of ordinary stores and of such that go past the
 * caches. With a directory, also writes and reads checkpoints there. */
#include "common/err.h"
#include "common/mem.h"
#include "ps/optimiser.h"
#include "ps/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

enum { ROW = 256, ARRAYS = 9, PIECES = 24 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct work {
    size_t n;
    float *a[ARRAYS];
    struct lh_shard *shard;
};

static void run_memcpy(struct work *w)
{
    memcpy(w->a[0], w->a[1], w->n * sizeof(float));
}

static void run_triad(struct work *w)
{
    float *restrict a = w->a[0];
    const float *restrict b = w->a[1], *restrict c = w->a[2];
    for (size_t i = 0; i < w->n; i++)
        a[i] = b[i] + 3.0f * c[i];
}

static void run_triad_past_caches(struct work *w)
{
#ifdef __SSE__
    const __m128 s = _mm_set1_ps(3.0f);
    for (size_t i = 0; i < w->n; i += 4) /* n is a multiple of ROW */
        _mm_stream_ps(w->a[0] + i, _mm_add_ps(_mm_load_ps(w->a[1] + i),
                                              _mm_mul_ps(s, _mm_load_ps(w->a[2] + i))));
    _mm_sfence();
#else
    run_triad(w);
#endif
}

static void run_adam(struct work *w)
{
    const struct lh_optimiser_adam c = lh_optimiser_adam_at(1e-4, 0.9, 0.999, 1e-8, 10);
    const struct lh_optimiser_arrays a = {w->a[0], w->a[1], w->a[2], w->a[3], w->a[4], NULL, NULL};
    lh_optimiser_adam_step(&c, &a, 0, w->n);
}

static void run_adam_and_target(struct work *w)
{
    const struct lh_optimiser_adam c = lh_optimiser_adam_at(1e-4, 0.9, 0.999, 1e-8, 10);
    const struct lh_optimiser_arrays a = {w->a[0], w->a[1], w->a[2], w->a[3],
                                          w->a[4], w->a[5], w->a[6]};
    lh_optimiser_adam_step(&c, &a, 0.01f, w->n);
}

static void run_soft_update(struct work *w)
{
    lh_optimiser_soft_update(w->a[1], w->a[5], w->a[6], 0.01f, w->n);
}

static void push_both(struct work *w)
{
    const uint64_t step = lh_shard_version(w->shard);
    for (uint32_t node = 0; node < 2; node++) {
        for (size_t i = 0; i < PIECES; i++) {
            const size_t lo = w->n * i / PIECES, hi = w->n * (i + 1) / PIECES;
            lh_shard_push(w->shard, step, (struct lh_tree_node){3, node}, lo, w->a[0] + lo, hi - lo,
                          NULL);
        }
    }
}

static void run_step(struct work *w)
{
    int applied = 0;
    push_both(w);
    if (lh_shard_advance(w->shard, &applied, NULL) < 0 || !applied)
        exit(1);
}

/* Best of some runs; `streams` arrays of n floats each are read or written. */
static double measure(struct work *w, const char *what, void (*run)(struct work *), double streams,
                      double reference)
{
    double best = 1e9;
    const int runs = w->n < 4u << 20 ? 40 : 8;
    for (int i = 0; i < runs; i++) {
        double t = now();
        run(w);
        t = now() - t;
        best = t < best ? t : best;
    }
    const double rate = streams * (double)w->n * sizeof(float) / best / 1e9;
    printf("%-34s %9.3f ms %8.1f GB/s", what, best * 1e3, rate);
    if (reference > 0)
        printf("   %3.0f%% of triad", 100 * rate / reference);
    printf("\n");
    return rate;
}

static int measure_store(struct work *w, const struct lh_layout *l, const char *dir)
{
    const struct lh_frozen *f = NULL;
    struct lh_store *st = NULL;
    uint64_t taken = 0;
    int rc = lh_store_open(&st, dir, &(struct lh_store_id){1, 0, 1}, 0);
    double t = now();
    LH_TRY_TO(done, rc);
    LH_TRY_TO(done, lh_shard_freeze(w->shard, &f)); /* makes its memory */
    lh_shard_thaw(w->shard, f);
    t = now();
    LH_TRY_TO(done, lh_shard_freeze(w->shard, &f));
    printf("%-34s %9.3f ms\n", "freeze", (now() - t) * 1e3);
    t = now();
    LH_TRY_TO(done, lh_store_prepare(st, f));
    t = now() - t;
    const double bytes = 4.0 * (double)w->n * sizeof(float);
    printf("%-34s %9.3f s  %8.2f GB/s   %.2f GB of weights, moments, targets\n",
           "prepare (durable)", t, bytes / t / 1e9, bytes / 1e9);
    t = now();
    LH_TRY_TO(done, lh_store_commit(st, f->version));
    printf("%-34s %9.3f ms\n", "commit", (now() - t) * 1e3);
    t = now();
    LH_TRY_TO(done, lh_store_read(st, f->version, l, w->a[7], w->a[8], &taken));
    printf("%-34s %9.3f s  %8.2f GB/s\n", "read, checksums verified", now() - t,
           bytes / (now() - t) / 1e9);
    printf("%-34s %9.0f MB resident at most\n", "memory", (double)lh_mem_resident_peak() / 1e6);
done:
    lh_shard_thaw(w->shard, f);
    lh_store_close(&st);
    return rc;
}

static int bench(size_t n, const char *dir)
{
    struct work w = {.n = (n + ROW - 1) / ROW * ROW};
    const struct lh_param p = {"w", w.n / ROW, ROW, 0, ROW, true, true};
    struct lh_layout l = {0};
    int rc;
    for (size_t i = 0; i < ARRAYS; i++) {
        LH_TRY(lh_mem_alloc_aligned((void **)&w.a[i], w.n, sizeof(float), "benchmark"));
        for (size_t k = 0; k < w.n; k++)
            w.a[i][k] = (float)(k % 1000) * 1e-3f;
    }
    LH_TRY(lh_layout_init_params(&l, &(struct lh_layout_params){&p, 1, w.n},
                                 &(struct lh_update_rule){"*", 1e-4, 1, 0.01, 1}, 1, 1));
    LH_TRY(lh_shard_create(
        &w.shard, &(struct lh_shard_spec){&l.shards[0], 16, 0.9, 0.999, 1e-8, 0, false, false}));
    lh_shard_init(w.shard, w.a[1]);
    printf("%zu parameters, %.1f MB an array\n", w.n, (double)w.n * 4e-6);
    const double ordinary = measure(&w, "triad", run_triad, 3, 0);
    const double past = measure(&w, "triad, stores past the caches", run_triad_past_caches, 3, 0);
    const double reference = past > ordinary ? past : ordinary;
    measure(&w, "memcpy", run_memcpy, 2, reference);
    measure(&w, "Adam", run_adam, 7, reference);
    measure(&w, "Adam and soft update, one pass", run_adam_and_target, 9, reference);
    measure(&w, "soft update alone", run_soft_update, 3, reference);
    /* two pushed sums: read, written, read with the other, written; then Adam and soft update */
    measure(&w, "a step: two pushes, advance", run_step, 2 + 3 + 9, reference);
    rc = dir ? measure_store(&w, &l, dir) : 0;
    lh_shard_destroy(&w.shard);
    lh_layout_fini(&l);
    for (size_t i = 0; i < ARRAYS; i++)
        lh_mem_free(w.a[i]);
    return rc;
}

int main(int argc, char **argv)
{
    const size_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1100000;
    if (bench(n > 0 ? n : 1, argc > 2 ? argv[2] : NULL) < 0) {
        fprintf(stderr, "bench_shard: %s\n", lh_err_text());
        return 1;
    }
    return 0;
}
