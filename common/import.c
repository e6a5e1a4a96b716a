/* The import. Text becomes binary rows, which go to buckets by the upper bits of a keyed hash of
 * their user; each bucket is sorted by user and time; from then on users come one after the other,
 * in the order of their hashes, and a split is a range of that order. Rewards and features may each
 * ask for a pass over all users before the one that makes rows. A bucket stands for the memory that
 * a thread needs, so a longer log has more of them. */
#include "common/import.h"

#include "common/err.h"
#include "common/feature.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/reward.h"
#include "common/rowsort.h"
#include "common/spool.h"
#include "common/term.h"
#include "common/userrows.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MEMORY_DEFAULT (UINT64_C(1) << 30)
#define MEMORY_MIN     (UINT64_C(16) << 20)
#define BUCKETS_MIN    16
#define BUCKETS_MAX    4096
#define RAW_SHARE      3 /* one in so many bytes holds rows before they are sorted, one after */

const char *const lh_import_phase_names[LH_IMPORT_PHASES] = {"read", "sort", "rewards",
                                                             "fit",  "rows", "write"};

/* A user's place in the order of all. */
struct place {
    uint64_t hash, user;
};

struct importer {
    const struct lh_import_spec *spec;
    const struct lh_schema *s;
    struct lh_import_report *report;
    unsigned threads;
    uint64_t memory;

    char **files;
    size_t n_files;
    struct lh_reward_plan *rewards;
    struct lh_feature_plan *features;
    struct lh_dims dims;
    struct lh_dataset_writer *writer;
    struct worker *workers; /* [threads] */

    struct lh_spool *raw, *sorted;
    unsigned bits; /* of the hash that choose the bucket */
    size_t buckets;
    struct lh_reader *reader;
    struct lh_layout_csv **layouts; /* one a file */
    size_t n_layouts;

    uint64_t *bucket_users;      /* [buckets] */
    struct place end[LH_SPLITS]; /* the first user behind the split */
    bool open_end[LH_SPLITS];    /* there is none */

    enum lh_import_phase phase;
    pthread_mutex_t lock; /* of the report, and of what follows */
    uint64_t done, total;
};

/* One thread's own things. */
struct worker {
    struct lh_ingest *ingest;
    struct lh_chunk chunk;
    uint32_t *start; /* [buckets + 1] */
    uint32_t *index;
    size_t cap_index;
    struct lh_userrows *rows;
    struct lh_userrows_made made;
    size_t cap_made; /* rows */
};

static bool interrupted(const struct importer *im)
{
    return im->spec->interrupted && im->spec->interrupted();
}

static int canceled(const struct importer *im)
{
    return lh_err_set(LH_ECANCELED, "import of %s: interrupted; nothing was left at %s",
                      im->s->name, im->spec->out);
}

static void begin_phase(struct importer *im, enum lh_import_phase phase, uint64_t total)
{
    im->phase = phase;
    im->done = 0;
    im->total = total;
    im->report->seconds[phase] -= lh_now();
    if (im->spec->progress)
        im->spec->progress(im->spec->ctx, phase, 0, total);
}

static void end_phase(struct importer *im)
{
    im->report->seconds[im->phase] += lh_now();
}

/* One more of the phase's steps. */
static void step(struct importer *im)
{
    pthread_mutex_lock(&im->lock);
    im->done++;
    if (im->spec->progress)
        im->spec->progress(im->spec->ctx, im->phase, im->done, im->total);
    pthread_mutex_unlock(&im->lock);
}

/* --- text to buckets -------------------------------------------------------------------------- */

static int on_file(void *ctx, const char *file, const char *text, size_t n, size_t line,
                   void **layout)
{
    struct importer *im = ctx;
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

static size_t bucket_of(const struct importer *im, const char *row)
{
    uint64_t hash;
    memcpy(&hash, row + offsetof(struct lh_row, hash), sizeof hash);
    return hash >> (64 - im->bits);
}

/* Rows of a chunk to their buckets: counted, then one piece a bucket. */
static int scatter(struct importer *im, struct worker *w, const char *rows, size_t n)
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

static int count_chunk(struct importer *im, const struct lh_ingest_counts *counts)
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
    struct importer *im = ctx;
    struct worker *w = &im->workers[thread];
    if (!w->ingest) /* one thread may be given two turns */
        LH_TRY(lh_ingest_create(&w->ingest, im->s));
    if (!w->start)
        LH_TRY(LH_NEW_ARRAY(&w->start, im->buckets + 1, "buckets"));
    for (;;) {
        struct lh_ingest_counts counts = {.rows = 0};
        const char *rows;
        size_t n;
        if (interrupted(im))
            return canceled(im);
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
static uint64_t input_bytes(const struct importer *im, uint64_t *rows)
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

static void choose_buckets(struct importer *im, uint64_t rows)
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

static int ingest_all(struct importer *im)
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
    begin_phase(im, LH_IMPORT_READ, input);
    LH_TRY(lh_pool_run(im->threads, im->threads, read_log, im));
    end_phase(im);
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

/* --- buckets to users ------------------------------------------------------------------------- */

static bool same_user(const struct lh_row *a, const struct lh_row *b)
{
    return a->hash == b->hash && a->user == b->user;
}

static int sort_bucket(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct importer *im = ctx;
    if (interrupted(im))
        return canceled(im);
    int rc = lh_rowsort_bucket(im->raw, im->sorted, index, im->s->row_bytes, im->bits,
                               &im->bucket_users[index]);
    step(im);
    return rc;
}

/* A bucket's sorted rows. */
struct bucket_rows {
    struct lh_spool_view view;
    const char *rows;
    size_t n;
};

static int open_bucket(struct importer *im, size_t index, struct bucket_rows *b)
{
    LH_TRY(lh_spool_view_open(&b->view, im->sorted, index, 0));
    b->rows = b->view.n ? b->view.spans[0].data : NULL; /* one put, one span */
    b->n = b->view.n ? b->view.spans[0].bytes / im->s->row_bytes : 0;
    return 0;
}

/* How many rows from `at` on are of one user. */
static size_t user_rows(const struct importer *im, const struct bucket_rows *b, size_t at,
                        struct lh_row *first)
{
    const size_t width = im->s->row_bytes;
    memcpy(first, b->rows + at * width, sizeof *first);
    size_t n = 1;
    for (struct lh_row row; at + n < b->n; n++) {
        memcpy(&row, b->rows + (at + n) * width, sizeof row);
        if (!same_user(&row, first))
            break;
    }
    return n;
}

/* --- splits ----------------------------------------------------------------------------------- */

/* The user of a rank in the order of hashes. */
static int find_rank(struct importer *im, uint64_t rank, struct place *out)
{
    size_t bucket = 0;
    while (rank >= im->bucket_users[bucket])
        rank -= im->bucket_users[bucket++];
    struct bucket_rows b;
    LH_TRY(open_bucket(im, bucket, &b));
    struct lh_row first = {.hash = 0};
    for (size_t at = 0, n; at < b.n; at += n) {
        n = user_rows(im, &b, at, &first);
        if (rank-- == 0)
            break;
    }
    *out = (struct place){first.hash, first.user};
    lh_spool_view_close(&b.view);
    return 0;
}

static int set_splits(struct importer *im)
{
    uint64_t users = 0, take[LH_SPLITS] = {0}, taken = 0;
    for (size_t b = 0; b < im->buckets; b++)
        users += im->bucket_users[b];
    for (int i = 0; i < LH_SPLITS; i++) {
        const struct lh_schema_split *s = &im->s->split[i];
        if (s->amount == LH_AMOUNT_SHARE)
            take[i] = (uint64_t)llround(s->share * (double)users);
        else if (s->amount == LH_AMOUNT_COUNT)
            take[i] = s->count;
        if (s->amount == LH_AMOUNT_SHARE && take[i] > users - (taken < users ? taken : users))
            take[i] = users - taken; /* rounding */
        taken += take[i];
    }
    if (taken > users)
        return lh_err_set(LH_ECONFIG,
                          "%s: split asks for %llu users, the log has %llu; lower the numbers or "
                          "use shares",
                          lh_yaml_name(im->s->doc), (unsigned long long)taken,
                          (unsigned long long)users);
    uint64_t end = 0;
    for (int i = 0; i < LH_SPLITS; i++) {
        end += im->s->split[i].amount == LH_AMOUNT_REST ? users - taken : take[i];
        im->open_end[i] = end == users;
        if (end < users)
            LH_TRY(find_rank(im, end, &im->end[i]));
    }
    im->report->users = users;
    im->report->users_left_out = users - end;
    return 0;
}

static int split_of(const struct importer *im, const struct lh_row *row)
{
    for (int i = 0; i < LH_SPLITS; i++) {
        const struct place *e = &im->end[i];
        if (im->open_end[i] || row->hash < e->hash || (row->hash == e->hash && row->user < e->user))
            return i;
    }
    return LH_SPLITS;
}

/* --- passes over users ------------------------------------------------------------------------ */

static int reserve_made(struct importer *im, struct worker *w, size_t n)
{
    struct lh_userrows_made *m = &w->made;
    m->dims = im->dims;
    if (n <= w->cap_made)
        return 0;
    size_t cap = n > 2 * w->cap_made ? n : 2 * w->cap_made;
    const size_t f = sizeof(float);
    LH_TRY(lh_mem_realloc((void **)&m->high, cap, im->dims.high * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->low, cap, im->dims.low * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->action, cap, im->dims.action * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->ids, cap, im->dims.ids * sizeof *m->ids, "ids of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->reward, cap, f, "rewards of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->keep, cap, 1, "rows of a user"));
    w->cap_made = cap;
    return 0;
}

static int add_trajectory(void *ctx, const struct lh_trajectory *t)
{
    return lh_dataset_writer_add(ctx, t);
}

/* One user, in the pass at hand. */
static int do_user(struct importer *im, struct worker *w, const struct lh_user_log *log,
                   uint64_t *left_out)
{
    struct lh_userrows_made *m = &w->made;
    if (im->phase == LH_IMPORT_REWARDS)
        return lh_reward_plan_observe(im->rewards, log);
    LH_TRY(reserve_made(im, w, log->n));
    LH_TRY(lh_reward_plan_apply(im->rewards, log, m->reward));
    if (im->phase == LH_IMPORT_FIT)
        return lh_feature_plan_observe(im->features, log, m->reward);
    memset(m->keep, 1, log->n);
    LH_TRY(
        lh_feature_plan_apply(im->features, log, m->reward, m->high, m->low, m->action, m->keep));
    lh_feature_plan_ids(im->features, log, m->ids);
    return lh_userrows_cut(w->rows, log, m, add_trajectory, im->writer, left_out);
}

static int pass_bucket(void *ctx, size_t index, unsigned thread)
{
    struct importer *im = ctx;
    struct worker *w = &im->workers[thread];
    uint64_t sessions[LH_SPLITS] = {0}, left_out = 0;
    struct bucket_rows b;
    int rc = 0;
    if (interrupted(im))
        return canceled(im);
    if (!w->rows)
        LH_TRY(lh_userrows_create(&w->rows, im->s));
    LH_TRY(open_bucket(im, index, &b));
    for (size_t at = 0, n; at < b.n; at += n) {
        struct lh_row first;
        struct lh_user_log log;
        uint64_t count;
        n = user_rows(im, &b, at, &first);
        int split = split_of(im, &first);
        if (split == LH_SPLITS)
            continue;
        LH_TRY_TO(done, lh_userrows_load(w->rows, b.rows + at * im->s->row_bytes, n, &log, &count));
        log.split = (enum lh_split)split;
        sessions[split] += count;
        LH_TRY_TO(done, do_user(im, w, &log, &left_out));
    }
done:
    lh_spool_view_close(&b.view);
    if (im->phase == LH_IMPORT_ROWS) {
        lh_spool_drop(im->sorted, index);
        pthread_mutex_lock(&im->lock);
        for (int i = 0; i < LH_SPLITS; i++)
            im->report->sessions[i] += sessions[i];
        im->report->rows_left_out += left_out;
        pthread_mutex_unlock(&im->lock);
    }
    step(im);
    return rc;
}

static int pass(struct importer *im, enum lh_import_phase phase, lh_pool_fn fn)
{
    begin_phase(im, phase, im->buckets);
    LH_TRY(lh_pool_run(im->threads, im->buckets, fn, im));
    end_phase(im);
    return 0;
}

static int passes(struct importer *im)
{
    LH_TRY(pass(im, LH_IMPORT_SORT, sort_bucket));
    im->report->spilled_bytes = lh_spool_spilled(im->raw) + lh_spool_spilled(im->sorted);
    lh_spool_destroy(&im->raw);
    LH_TRY(set_splits(im));
    if (lh_reward_plan_needs_pass(im->rewards)) {
        LH_TRY(pass(im, LH_IMPORT_REWARDS, pass_bucket));
        LH_TRY(lh_reward_plan_finish(im->rewards));
    }
    if (lh_feature_plan_needs_pass(im->features)) {
        LH_TRY(pass(im, LH_IMPORT_FIT, pass_bucket));
        im->report->seconds[LH_IMPORT_FIT] -= lh_now();
        LH_TRY(lh_feature_plan_finish(im->features));
        im->report->seconds[LH_IMPORT_FIT] += lh_now();
    }
    return pass(im, LH_IMPORT_ROWS, pass_bucket);
}

/* --- the whole -------------------------------------------------------------------------------- */

static int open_plans(struct importer *im)
{
    const struct lh_schema *s = im->s;
    LH_TRY(lh_reward_plan_create(&im->rewards, lh_yaml_get(s->root, "reward"), s->visible,
                                 s->n_visible));
    const char *dir = im->spec->data_dir ? im->spec->data_dir : ".";
    LH_TRY(lh_feature_plan_create(&im->features, s->root, s->visible, s->n_visible, dir, s->seed,
                                  im->threads));
    lh_feature_plan_dims(im->features, &im->dims);
    return 0;
}

static void on_write(void *ctx, uint64_t done, uint64_t total)
{
    const struct importer *im = ctx;
    im->spec->progress(im->spec->ctx, LH_IMPORT_WRITE, done, total);
}

static int open_writer(struct importer *im)
{
    struct lh_dataset_spec spec = {
        .dims = im->dims,
        .high_names = lh_feature_plan_names(im->features, 0),
        .low_names = lh_feature_plan_names(im->features, 1),
        .action_names = lh_feature_plan_names(im->features, 2),
        .id_names = lh_feature_plan_id_names(im->features),
        .hash_partitions = im->s->hash,
        .by_day = im->s->by_day,
        .kind = "import",
        .memory_limit = im->memory / 4,
        .threads = im->threads,
        .replace = im->spec->replace,
        .progress = im->spec->progress ? on_write : NULL,
        .ctx = im,
    };
    return lh_dataset_writer_open(&im->writer, im->spec->out, &spec);
}

static int find_files(struct importer *im)
{
    const struct lh_import_spec *p = im->spec;
    if (p->n_files > 0)
        LH_TRY(lh_import_files(&im->files, &im->n_files, NULL, p->files, p->n_files));
    else
        LH_TRY(
            lh_import_files(&im->files, &im->n_files, p->data_dir, im->s->files, im->s->n_files));
    im->report->files = im->n_files;
    if (im->n_files == 0)
        return lh_err_set(LH_ECONFIG,
                          "%s: names no input.files; name them there or on the command "
                          "line",
                          lh_yaml_name(im->s->doc));
    return 0;
}

/* What the manifest says of where the dataset came from. */
static int set_origin(struct importer *im)
{
    const struct lh_import_report *r = im->report;
    cJSON *o = cJSON_CreateObject();
    cJSON *files = cJSON_AddArrayToObject(o, "files");
    bool ok = cJSON_AddStringToObject(o, "schema", im->s->text) && files &&
              cJSON_AddNumberToObject(o, "rows", (double)r->counts.rows) &&
              cJSON_AddNumberToObject(o, "bad_rows", (double)r->counts.bad) &&
              cJSON_AddNumberToObject(o, "dropped_rows", (double)r->counts.dropped) &&
              cJSON_AddNumberToObject(o, "rows_left_out", (double)r->rows_left_out) &&
              cJSON_AddNumberToObject(o, "users_left_out", (double)r->users_left_out);
    for (size_t i = 0; i < im->n_files && ok; i++) {
        const char *slash = strrchr(im->files[i], '/');
        ok = cJSON_AddItemToArray(files, cJSON_CreateString(slash ? slash + 1 : im->files[i]));
    }
    char *text = ok ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "manifest: out of memory");
    int rc = lh_dataset_writer_set_origin(im->writer, text);
    cJSON_free(text);
    return rc;
}

static int run(struct importer *im)
{
    LH_TRY(find_files(im));
    LH_TRY(open_plans(im));
    LH_TRY(open_writer(im));
    LH_TRY(LH_NEW_ARRAY(&im->workers, im->threads, "threads"));
    LH_TRY(ingest_all(im));
    LH_TRY(passes(im));
    lh_spool_destroy(&im->sorted);
    LH_TRY(lh_feature_plan_write_embeddings(im->features, lh_dataset_writer_path(im->writer)));
    LH_TRY(set_origin(im));
    begin_phase(im, LH_IMPORT_WRITE, 0);
    LH_TRY(lh_dataset_writer_commit(&im->writer));
    end_phase(im);
    return 0;
}

static void clean(struct importer *im)
{
    struct lh_err saved;
    lh_err_save(&saved, 0);
    for (unsigned i = 0; im->workers && i < im->threads; i++) {
        struct worker *w = &im->workers[i];
        lh_ingest_destroy(&w->ingest);
        lh_chunk_fini(&w->chunk);
        lh_userrows_destroy(&w->rows);
        lh_mem_free(w->start);
        lh_mem_free(w->index);
        lh_mem_free(w->made.high);
        lh_mem_free(w->made.low);
        lh_mem_free(w->made.action);
        lh_mem_free(w->made.ids);
        lh_mem_free(w->made.reward);
        lh_mem_free(w->made.keep);
    }
    lh_mem_free(im->workers);
    lh_reader_destroy(&im->reader);
    for (size_t i = 0; i < im->n_layouts; i++)
        lh_ingest_layout_destroy(&im->layouts[i]);
    lh_mem_free(im->layouts);
    lh_mem_free(im->bucket_users);
    lh_spool_destroy(&im->raw);
    lh_spool_destroy(&im->sorted);
    lh_dataset_writer_abort(&im->writer);
    lh_feature_plan_destroy(&im->features);
    lh_reward_plan_destroy(&im->rewards);
    lh_import_files_free(&im->files, im->n_files);
    pthread_mutex_destroy(&im->lock);
    lh_err_load(&saved);
}

int lh_import_run(const struct lh_import_spec *spec, struct lh_import_report *report)
{
    struct importer im = {.spec = spec, .s = spec->schema, .report = report};
    *report = (struct lh_import_report){.users = 0};
    im.threads = spec->threads ? spec->threads : lh_pool_cpus();
    im.memory = spec->memory ? spec->memory : MEMORY_DEFAULT;
    im.memory = im.memory < MEMORY_MIN ? MEMORY_MIN : im.memory;
    report->threads = im.threads;
    report->seconds_total = -lh_now();
    pthread_mutex_init(&im.lock, NULL);
    int rc = run(&im);
    report->seconds_total += lh_now();
    clean(&im);
    return rc;
}
