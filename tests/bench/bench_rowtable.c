/* How fast a table answers and applies rows, in memory and from its files, against what this
 * machine does in the same run.
 *
 *     bench_rowtable DIRECTORY [rows [elements [megabytes]]]
 *
 * One thread. The table has `rows` rows (a million) of `elements` (32). First the cache holds all
 * of them, then a tenth. Steps and pulls name 4096 random ids each. Limits: the same rows copied,
 * or updated, in one flat array by their index; 4 KiB read from a random place of a file that is in
 * the page cache; as many bytes written to a file and fsynced. With `megabytes` the cache has that
 * much, and there are neither limits nor arrays in memory: for a table much larger than it. */
#include "common/err.h"
#include "common/mem.h"
#include "common/rng.h"
#include "ps/optimiser.h"
#include "ps/rowtable.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 4096, ROUNDS = 5, PAGE = 4096 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(int rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "bench_rowtable: %s\n", lh_err_text());
    exit(1);
}

struct work {
    const char *dir;
    uint64_t rows, draws, version; /* the last that was set aside */
    uint32_t dim;
    struct lh_rowtable *t;
    uint64_t ids[BATCH]; /* as the table knows them: spread over all of u64 */
    uint64_t at[BATCH];  /* their rows in `flat` */
    float *g, *out;      /* [BATCH, dim] */
    float *flat;         /* [rows, 3, dim] */
    char *page;
    int fd;
};

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Different, ascending. Row i has id i * SPREAD. */
static void draw(struct work *w)
{
    const uint64_t spread = UINT64_MAX / w->rows;
    const struct lh_rng_at rng = {.seed = 1, .step = w->draws++};
    for (uint64_t i = 0; i < BATCH; i++)
        w->at[i] = lh_rng_permute(&rng, i, w->rows);
    qsort(w->at, BATCH, sizeof *w->at, by_value);
    for (size_t i = 0; i < BATCH; i++)
        w->ids[i] = w->at[i] * spread;
}

static void run_pull(struct work *w)
{
    must(lh_rowtable_pull(w->t, w->ids, BATCH, w->out));
}

static void step(struct work *w, size_t n)
{
    int applied = 0;
    const struct lh_rowtable_piece piece = {0, n, n, w->ids, w->g};
    must(lh_rowtable_push(w->t, lh_rowtable_version(w->t), (struct lh_tree_node){0, 0}, &piece));
    must(lh_rowtable_advance(w->t, &applied));
}

static void run_step(struct work *w)
{
    step(w, BATCH);
}

static void run_copy(struct work *w)
{
    for (size_t i = 0; i < BATCH; i++)
        memcpy(w->out + i * w->dim, w->flat + w->at[i] * 3 * w->dim, w->dim * sizeof(float));
}

static void run_adam(struct work *w)
{
    const struct lh_optimiser_adam c = lh_optimiser_adam_at(1e-3, 0.9, 0.999, 1e-8, 10);
    const size_t dim = w->dim;
    for (size_t i = 0; i < BATCH; i++) {
        float *row = w->flat + w->at[i] * 3 * dim;
        const struct lh_optimiser_arrays a = {.g = w->g + i * dim,
                                              .w = row,
                                              .m = row + dim,
                                              .v = row + 2 * dim,
                                              .w_out = w->out + i * dim};
        lh_optimiser_adam_step(&c, &a, 0, dim);
        memcpy(row, w->out + i * dim, dim * sizeof(float));
    }
}

static void run_pages(struct work *w)
{
    for (size_t i = 0; i < BATCH; i++) {
        const off_t at = (off_t)(w->at[i] * 3 * w->dim * sizeof(float) / PAGE * PAGE);
        if (pread(w->fd, w->page, PAGE, at) <= 0)
            exit(1);
    }
}

/* Rows a second, the best of some rounds, each of new ids. */
static double measure(struct work *w, const char *what, void (*run)(struct work *), size_t batches,
                      double limit)
{
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double seconds = 0;
        for (size_t i = 0; i < batches; i++) {
            draw(w);
            const double began = now();
            run(w);
            seconds += now() - began;
        }
        const double rate = (double)(batches * BATCH) / seconds;
        best = rate > best ? rate : best;
    }
    printf("%-44s %8.2f million rows/s", what, best / 1e6);
    if (limit > 0)
        printf("  %4.0f%% of the limit", 100 * best / limit);
    printf("\n");
    fflush(stdout);
    return best;
}

/* How long calls have taken. */
struct times {
    double sum, longest;
    size_t n;
};

static void note(struct times *t, double began)
{
    const double seconds = now() - began;
    t->sum += seconds;
    t->longest = seconds > t->longest ? seconds : t->longest;
    t->n++;
}

/* With steps, one is made after each slice. */
static void cut(struct work *w, const char *what, bool steps)
{
    struct lh_rowtable_stats before, after;
    struct times slices = {0}, stepped = {0};
    int rc = LH_AGAIN;
    lh_rowtable_stats(w->t, &before);
    double began = now();
    must(lh_rowtable_freeze(w->t));
    w->version = lh_rowtable_version(w->t);
    for (note(&slices, began); rc == LH_AGAIN; note(&slices, began)) {
        if (steps) {
            draw(w);
            began = now();
            run_step(w);
            note(&stepped, began);
        }
        began = now();
        must(rc = lh_rowtable_settle(w->t));
    }
    began = now();
    must(lh_rowtable_prepare(w->t));
    const double prepared = now();
    lh_rowtable_tidy(w->t);
    lh_rowtable_thaw(w->t);
    const double tidied = now();
    lh_rowtable_stats(w->t, &after);
    printf("%-44s held up %.3f s, %.1f ms at a time; prepare %.3f s, merge %.3f s: %" PRIu64
           " rows written, %.0f MB in %" PRIu64 " files\n",
           what, slices.sum, 1e3 * slices.longest, prepared - began, tidied - prepared,
           after.written - before.written, (double)after.disk_bytes / 1e6, after.files);
    if (steps)
        printf("%-44s %zu steps, %.1f ms each, %.1f ms the longest\n", "  meanwhile", stepped.n,
               1e3 * stepped.sum / (double)stepped.n, 1e3 * stepped.longest);
    fflush(stdout);
}

/* What a cache of so many rows takes: a sixteenth is for filters, one for copies. */
static size_t bytes_of(const struct work *w, size_t rows)
{
    return rows * (12 * w->dim + 64) / 14 * 16;
}

static void open_table(struct work *w, size_t cache_bytes)
{
    const struct lh_rowtable_spec spec = {.name = "bench",
                                          .dim = w->dim,
                                          .seed = 1,
                                          .init_scale = 0.1,
                                          .learning_rate = 1e-3,
                                          .beta1 = 0.9,
                                          .beta2 = 0.999,
                                          .epsilon = 1e-8,
                                          .shards = 1,
                                          .leaves = 1,
                                          .max_ids = BATCH,
                                          .cache_bytes = cache_bytes};
    must(lh_rowtable_create(&w->t, &spec, w->dir));
}

static void fill(struct work *w)
{
    const uint64_t spread = UINT64_MAX / w->rows;
    const double began = now();
    for (uint64_t at = 0; at < w->rows; at += BATCH) {
        const size_t n = w->rows - at < BATCH ? (size_t)(w->rows - at) : BATCH;
        for (size_t i = 0; i < n; i++)
            w->ids[i] = (at + i) * spread;
        step(w, n);
    }
    printf("%-44s %8.2f million rows/s\n", "new rows", (double)w->rows / (now() - began) / 1e6);
}

/* A file of as many bytes as the table has, written and fsynced: the limit of a cut. */
static void write_flat(struct work *w)
{
    char path[600];
    const size_t bytes = w->rows * 3 * w->dim * sizeof(float);
    snprintf(path, sizeof path, "%s/flat", w->dir);
    w->fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    const double began = now();
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(w->fd, (const char *)w->flat + at, bytes - at);
        if (n <= 0) {
            perror(path);
            exit(1);
        }
        at += (size_t)n;
    }
    const double written = now();
    if (fsync(w->fd) != 0)
        exit(1);
    printf("%-44s write %.3f s, fsync %.3f s: %.0f MB\n", "limit of a cut of all: a flat file",
           written - began, now() - written, (double)bytes / 1e6);
}

static void say_counts(const struct work *w)
{
    struct lh_rowtable_stats s;
    lh_rowtable_stats(w->t, &s);
    printf("%" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " rows written; resident %.0f MB, "
           "cache %.0f MB\n",
           s.hits, s.misses, s.written, (double)lh_mem_resident() / 1e6,
           (double)s.cache_bytes / 1e6);
}

static void compare(struct work *w)
{
    void *p;
    must(lh_mem_alloc_aligned(&p, w->rows * 3 * w->dim, sizeof(float), "bench"));
    w->flat = p;
    memset(w->flat, 0, w->rows * 3 * w->dim * sizeof(float));
    must(LH_NEW_ARRAY(&w->page, PAGE, "bench"));
    open_table(w, bytes_of(w, w->rows + w->rows / 20));
    must(lh_rowtable_init(w->t));
    fill(w);
    const double copy = measure(w, "limit of a pull: rows of a flat array", run_copy, 100, 0);
    const double adam = measure(w, "limit of a step: Adam in a flat array", run_adam, 100, 0);
    measure(w, "pull, all in memory", run_pull, 100, copy);
    measure(w, "step, all in memory", run_step, 100, adam);
    write_flat(w);
    cut(w, "cut, all rows changed", false);
    measure(w, "step again", run_step, 10, adam);
    cut(w, "cut after 50 steps of 4096 rows", false);
    measure(w, "step again", run_step, 100, adam);
    cut(w, "cut after 500 steps, with steps", true);
    lh_rowtable_destroy(&w->t);

    open_table(w, bytes_of(w, w->rows / 10));
    const double began = now();
    must(lh_rowtable_restore(w->t, w->version, &w->dir, 1));
    printf("%-44s %.3f s\n", "restore onto as many servers", now() - began);
    const double pages = measure(w, "limit of a miss: 4 KiB of a cached file", run_pages, 100, 0);
    measure(w, "pull, a tenth in memory", run_pull, 50, pages);
    measure(w, "step, a tenth in memory, written back", run_step, 50, pages);
    cut(w, "cut after 250 steps of 4096 rows", false);
    measure(w, "step again, a tenth in memory", run_step, 50, pages);
    cut(w, "cut after 250 steps, with steps", true);
    say_counts(w);
    lh_rowtable_destroy(&w->t);
    lh_mem_free(w->flat);
    lh_mem_free(w->page);
    close(w->fd);
}

static void try_large(struct work *w, size_t cache_bytes)
{
    open_table(w, cache_bytes);
    must(lh_rowtable_init(w->t));
    fill(w);
    cut(w, "cut, all rows changed", false);
    for (int round = 0; round < 4; round++) {
        measure(w, "pull", run_pull, 20, 0);
        measure(w, "step", run_step, 20, 0);
        cut(w, round < 2 ? "cut after 100 steps of 4096 rows" : "the same, with steps", round > 1);
        say_counts(w);
    }
    lh_rowtable_destroy(&w->t);
    open_table(w, cache_bytes);
    const double began = now();
    must(lh_rowtable_restore(w->t, w->version, &w->dir, 1));
    printf("%-44s %.3f s\n", "restore onto as many servers", now() - began);
    measure(w, "pull", run_pull, 20, 0);
    say_counts(w);
    lh_rowtable_destroy(&w->t);
}

int main(int argc, char **argv)
{
    static struct work w;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_rowtable DIRECTORY [rows [elements [megabytes]]]\n");
        return 2;
    }
    w.dir = argv[1];
    w.rows = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    w.dim = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 32;
    must(LH_NEW_ARRAY(&w.g, BATCH * w.dim, "bench"));
    must(LH_NEW_ARRAY(&w.out, BATCH * w.dim, "bench"));
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, w.g, BATCH * w.dim);
    printf("%" PRIu64 " rows of %u elements, %.0f MB with moments\n", w.rows, w.dim,
           (double)w.rows * 3 * w.dim * sizeof(float) / 1e6);
    if (argc > 4)
        try_large(&w, (size_t)strtoull(argv[4], NULL, 10) << 20);
    else
        compare(&w);
    lh_mem_free(w.g);
    lh_mem_free(w.out);
    return 0;
}
