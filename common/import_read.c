/* The first step of an import: text becomes binary rows, which go to buckets by the upper bits of a
 * keyed hash of their user. A bucket stands for the memory that a thread needs to sort it, so a
 * longer log has more of them. */
#include "common/import_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"

#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS_MIN 16
#define BUCKETS_MAX 4096
#define RAW_SHARE   3 /* one in so many bytes holds rows before they are sorted, one after */

static int on_file(void *ctx, const char *file, const char *text, size_t n, size_t line,
                   void **layout)
{
    struct lh_importer *im = ctx;
    struct lh_layout_csv **at = &im->layouts[im->n_layouts];
    LH_TRY(lh_ingest_layout(at, im->s, file, text, n, line));
    im->n_layouts++;
    *layout = *at;
    return 0;
}

struct share {
    const char *rows;
    const uint32_t *index;
    size_t n, width;
};

static void copy_share(void *ctx, void *to)
{
    const struct share *s = ctx;
    for (size_t i = 0; i < s->n; i++)
        memcpy((char *)to + i * s->width, s->rows + s->index[i] * s->width, s->width);
}

static size_t bucket_of(const struct lh_importer *im, const char *row)
{
    uint64_t hash;
    memcpy(&hash, row + offsetof(struct lh_row, hash), sizeof hash);
    return hash >> (64 - im->bits);
}

/* Rows of a chunk to their buckets: counted, then one piece a bucket. */
static int scatter(struct lh_importer *im, struct lh_import_worker *w, const char *rows, size_t n)
{
    const size_t width = im->s->row_bytes;
    LH_TRY(LH_GROW(&w->index, &w->cap_index, n, "parsed rows"));
    memset(w->start, 0, (im->buckets + 1) * sizeof *w->start);
    for (size_t i = 0; i < n; i++)
        w->start[bucket_of(im, rows + i * width) + 1]++;
    for (size_t b = 0; b < im->buckets; b++)
        w->start[b + 1] += w->start[b];
    for (size_t i = 0; i < n; i++)
        w->index[w->start[bucket_of(im, rows + i * width)]++] = (uint32_t)i;
    /* start[b] is now the end of bucket b */
    for (size_t b = 0, at = 0; b < im->buckets; b++) {
        struct share s = {rows, w->index + at, w->start[b] - at, width};
        at = w->start[b];
        if (s.n > 0)
            LH_TRY(lh_spool_put(im->raw, b, s.n * width, copy_share, &s));
    }
    return 0;
}

static int too_many_bad(const struct lh_ingest_counts *c, const char *limit)
{
    return lh_err_set(LH_EFORMAT, "%s (%llu bad rows of %llu, more than bad_rows: %s)",
                      c->n_shown ? c->shown[0].text : "", (unsigned long long)c->bad,
                      (unsigned long long)c->rows, limit);
}

static int count_chunk(struct lh_importer *im, const struct lh_ingest_counts *counts)
{
    uint64_t raw, text;
    int rc = 0;
    lh_reader_progress(im->reader, &raw, &text);
    pthread_mutex_lock(&im->lock);
    struct lh_ingest_counts *all = &im->report->counts;
    lh_ingest_merge(all, counts);
    im->report->text_bytes = text;
    if (im->s->bad_share == 0 && all->bad > im->s->bad_max)
        rc = too_many_bad(all, "max allows");
    if (im->spec->progress)
        im->spec->progress(im->spec->ctx, LH_IMPORT_READ, raw, im->total);
    pthread_mutex_unlock(&im->lock);
    return rc;
}

static int read_log(void *ctx, size_t index, unsigned thread)
{
    (void)index;
    struct lh_importer *im = ctx;
    struct lh_import_worker *w = &im->workers[thread];
    if (!w->ingest) /* one thread may be given two turns */
        LH_TRY(lh_ingest_create(&w->ingest, im->s));
    if (!w->start)
        LH_TRY(LH_NEW_ARRAY(&w->start, im->buckets + 1, "buckets"));
    for (;;) {
        struct lh_ingest_counts counts = {.rows = 0};
        const char *rows;
        size_t n;
        LH_TRY(lh_import_go_on(im));
        int rc = lh_reader_next(im->reader, &w->chunk);
        if (rc == LH_NOTFOUND)
            return 0;
        LH_TRY(rc);
        const char *file = im->files[w->chunk.file];
        LH_TRY(lh_ingest_chunk(w->ingest, &w->chunk, file, &rows, &n, &counts));
        LH_TRY(scatter(im, w, rows, n));
        LH_TRY(count_chunk(im, &counts));
    }
}

static bool is_compressed(const char *path)
{
    static const char *const suffix[] = {".gz", ".xz", ".zst", ".bz2", ".lz4"};
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        size_t k = strlen(suffix[i]);
        if (n > k && strcmp(path + n - k, suffix[i]) == 0)
            return true;
    }
    return false;
}

/* Bytes of all files; 0 if one is a pipe. *rows: a guess, rather high, of what binary rows take. */
static uint64_t input_bytes(const struct lh_importer *im, uint64_t *rows)
{
    uint64_t sum = 0;
    *rows = 0;
    for (size_t i = 0; i < im->n_files; i++) {
        struct stat st;
        if (strcmp(im->files[i], "-") == 0 || stat(im->files[i], &st) < 0 || !S_ISREG(st.st_mode)) {
            *rows = UINT64_C(64) << 30;
            return 0;
        }
        sum += (uint64_t)st.st_size;
        *rows += (uint64_t)st.st_size * (is_compressed(im->files[i]) ? 20 : 3) / 2;
    }
    return sum;
}

static void choose_buckets(struct lh_importer *im, uint64_t rows)
{
    /* a bucket is sorted beside its copy, in each thread; but many buckets have small buffers, and
     * are spilled in small pieces */
    uint64_t one = im->memory / (8 * im->threads);
    uint64_t most = im->memory / RAW_SHARE / (32 << 10);
    im->bits = 4;
    im->buckets = BUCKETS_MIN;
    while (im->buckets < BUCKETS_MAX && 2 * im->buckets <= most && im->buckets * one < rows) {
        im->buckets *= 2;
        im->bits++;
    }
}

int lh_import_read(struct lh_importer *im)
{
    uint64_t rows;
    uint64_t input = input_bytes(im, &rows);
    choose_buckets(im, rows);
    const char *dir = lh_dataset_writer_path(im->writer);
    LH_TRY(lh_spool_create(&im->raw, dir, "raw", im->buckets, im->memory / RAW_SHARE));
    LH_TRY(lh_spool_create(&im->sorted, dir, "sorted", im->buckets, im->memory / RAW_SHARE));
    LH_TRY(LH_NEW_ARRAY(&im->bucket_users, im->buckets, "buckets"));
    LH_TRY(LH_NEW_ARRAY(&im->layouts, im->n_files, "files"));
    struct lh_reader_spec spec = {
        .files = (const char *const *)im->files,
        .n_files = im->n_files,
        .lines = im->s->format == LH_SCHEMA_JSONL,
        .csv = im->s->csv,
        .skip = im->s->skip,
        .header = im->s->header,
        .on_file = im->s->format == LH_SCHEMA_JSONL ? NULL : on_file,
        .ctx = im,
    };
    LH_TRY(lh_reader_create(&im->reader, &spec));
    lh_import_begin_phase(im, LH_IMPORT_READ, input);
    LH_TRY(lh_pool_run(im->threads, im->threads, read_log, im));
    lh_import_end_phase(im);
    lh_reader_destroy(&im->reader);
    for (unsigned i = 0; i < im->threads; i++) {
        lh_ingest_destroy(&im->workers[i].ingest);
        lh_chunk_fini(&im->workers[i].chunk);
    }
    const struct lh_ingest_counts *c = &im->report->counts;
    double share = im->s->bad_share * (double)c->rows;
    if (c->bad > im->s->bad_max && (double)c->bad > share)
        return too_many_bad(c, "max and share allow");
    if (c->rows == c->bad + c->dropped)
        return lh_err_set(LH_EFORMAT, "%s%s: no usable row (%llu read, %llu bad, %llu dropped)",
                          c->n_shown ? c->shown[0].text : im->files[0],
                          c->n_shown || im->n_files == 1 ? "" : " and the other files",
                          (unsigned long long)c->rows, (unsigned long long)c->bad,
                          (unsigned long long)c->dropped);
    return 0;
}
