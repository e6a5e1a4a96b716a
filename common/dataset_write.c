/* Writing a dataset: trajectories are checked and encoded into a spool, whose buckets are a split
 * and a range of the hashes of users; commit makes partitions of them (dataset_commit.c),
 * statistics and the manifest. */
#include "common/dataset.h"
#include "common/dataset_internal.h"

#include "common/colstat.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/partition.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIM_MAX     (1u << 20)
#define BUCKETS_MAX 1024 /* of the spool, a split */
#define REWARD_MAX  (LH_CLASSES_MAX + 1)

/* --- records ---------------------------------------------------------------------------------- */

static size_t pad(size_t n)
{
    return (n + 7) / 8 * 8;
}

struct lh_dataset_offsets lh_dataset_record_offsets(const struct lh_dims *d, size_t n)
{
    struct lh_dataset_offsets o;
    o.ids = sizeof(struct lh_dataset_record) + n * sizeof(int64_t);
    o.session = o.ids + n * d->ids * sizeof(uint64_t);
    o.reward = o.session + n * sizeof(uint32_t);
    o.high = o.reward + n * sizeof(float);
    o.low = o.high + n * d->high * sizeof(float);
    o.action = o.low + n * d->low * sizeof(float);
    o.end = pad(o.action + n * d->action * sizeof(float));
    return o;
}

struct encoding {
    const struct lh_trajectory *t;
    struct lh_dataset_offsets o;
    const struct lh_dims *dims;
};

static void encode(void *ctx, void *out)
{
    const struct encoding *e = ctx;
    const struct lh_trajectory *t = e->t;
    const size_t n = t->n, f = sizeof(float);
    char *p = out;
    *(struct lh_dataset_record *)out =
        (struct lh_dataset_record){e->o.end, t->user, t->id, n, t->time_us[0], t->ends};
    memset(p + e->o.end - 8, 0, 8); /* padding */
    memcpy(p + sizeof(struct lh_dataset_record), t->time_us, n * sizeof *t->time_us);
    if (e->dims->ids)
        memcpy(p + e->o.ids, t->ids, n * e->dims->ids * sizeof *t->ids);
    memcpy(p + e->o.session, t->session, n * sizeof *t->session);
    memcpy(p + e->o.reward, t->reward, n * f);
    if (e->dims->high)
        memcpy(p + e->o.high, t->high, n * e->dims->high * f);
    if (e->dims->low)
        memcpy(p + e->o.low, t->low, n * e->dims->low * f);
    if (e->dims->action)
        memcpy(p + e->o.action, t->action, n * e->dims->action * f);
}

/* --- opening, adding -------------------------------------------------------------------------- */

static int copy_names(struct lh_dataset_writer *w, const struct lh_dataset_spec *spec)
{
    const char *const *from[LH_GROUPS] = {spec->high_names, spec->low_names, spec->action_names};
    for (int g = 0; g < LH_GROUPS; g++) {
        for (uint32_t i = 0; i < lh_manifest_width(&w->dims, g); i++)
            LH_TRY(lh_mem_strdup(&w->manifest.names[g][i], from[g][i]));
    }
    for (uint32_t i = 0; i < w->dims.ids; i++)
        LH_TRY(lh_mem_strdup(&w->manifest.id_names[i], spec->id_names[i]));
    return 0;
}

/* A spool's bucket is what commit sorts at a time, in memory: as many of them as the spool's own
 * buffers allow. Partitions are ranges of the users' hashes, buckets are parts of them. */
static void choose_fine(struct lh_dataset_writer *w)
{
    uint64_t most = w->memory_limit / (8 * LH_SPOOL_BUFFER * LH_SPLITS);
    most = most > BUCKETS_MAX ? BUCKETS_MAX : most;
    w->fine = w->hashes * (uint32_t)(most / w->hashes > 1 ? most / w->hashes : 1);
}

int lh_dataset_writer_open(struct lh_dataset_writer **out, const char *dir,
                           const struct lh_dataset_spec *spec)
{
    struct lh_dataset_writer *w = NULL;
    int rc;
    if (spec->dims.high > DIM_MAX || spec->dims.low > DIM_MAX || spec->dims.action > DIM_MAX ||
        spec->dims.ids > LH_IDS_MAX || spec->hash_partitions == 0 ||
        spec->hash_partitions > 1u << 16)
        return lh_err_set(LH_ERANGE,
                          "%s: dimensions beyond 2^20, more than 64 ids, or no or more than 65536 "
                          "hash partitions",
                          dir);
    LH_TRY(LH_NEW(&w, "dataset writer"));
    pthread_mutex_init(&w->lock, NULL);
    w->dims = spec->dims;
    w->dims.classes = 0;
    w->hashes = spec->hash_partitions;
    w->by_day = spec->by_day;
    w->threads = spec->threads ? spec->threads : 1;
    w->memory_limit = spec->memory_limit;
    w->progress = spec->progress;
    w->ctx = spec->ctx;
    choose_fine(w);
    w->manifest.dims = w->dims;
    LH_TRY_TO(fail, lh_manifest_reserve(&w->manifest));
    LH_TRY_TO(fail, copy_names(w, spec));
    LH_TRY_TO(fail, lh_mem_strdup(&w->manifest.kind, spec->kind));
    if (spec->origin_json)
        LH_TRY_TO(fail, lh_mem_strdup(&w->manifest.origin, spec->origin_json));
    LH_TRY_TO(fail, lh_fs_partial_begin(&w->partial, dir, spec->replace, LH_MANIFEST_NAME));
    LH_TRY_TO(fail, lh_spool_create(&w->spool, w->partial.path, "rows", (size_t)LH_SPLITS * w->fine,
                                    spec->memory_limit));
    *out = w;
    return 0;
fail:
    lh_dataset_writer_abort(&w);
    return rc;
}

const char *lh_dataset_writer_path(const struct lh_dataset_writer *w)
{
    return w->partial.path;
}

int lh_dataset_writer_set_origin(struct lh_dataset_writer *w, const char *origin_json)
{
    char *copy;
    LH_TRY(lh_mem_strdup(&copy, origin_json));
    lh_mem_free(w->manifest.origin);
    w->manifest.origin = copy;
    return 0;
}

void lh_dataset_writer_abort(struct lh_dataset_writer **p)
{
    struct lh_dataset_writer *w = *p;
    if (!w)
        return;
    lh_spool_destroy(&w->spool);
    lh_fs_partial_abort(&w->partial);
    lh_manifest_fini(&w->manifest);
    pthread_mutex_destroy(&w->lock);
    lh_mem_free(w);
    *p = NULL;
}

static bool all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        bad |= (u & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static int check_finite(const struct lh_trajectory *t, const float *x, size_t width,
                        const char *group, char *const *names)
{
    if (all_finite(x, t->n * width))
        return 0;
    size_t i = 0;
    while (isfinite(x[i]))
        i++;
    return lh_err_set(LH_ERANGE,
                      "user %016llx, row %zu of its trajectory: %s%s%s is %g, not a "
                      "finite number",
                      (unsigned long long)t->user, i / width, group, names ? " " : "",
                      names ? names[i % width] : "", (double)x[i]);
}

static int check(const struct lh_dataset_writer *w, const struct lh_trajectory *t)
{
    if (t->n >= UINT32_MAX)
        return lh_err_set(LH_ERANGE, "a trajectory of %zu rows is too long", t->n);
    for (size_t i = 1; i < t->n; i++) {
        if (t->time_us[i] < t->time_us[i - 1])
            return lh_err_set(LH_ERANGE,
                              "user %016llx: time runs backwards at row %zu of its "
                              "trajectory",
                              (unsigned long long)t->user, i);
    }
    char *const *const *names = (char *const *const *)w->manifest.names;
    LH_TRY(check_finite(t, t->high, w->dims.high, "state_high", names[LH_GROUP_HIGH]));
    LH_TRY(check_finite(t, t->low, w->dims.low, "state_low", names[LH_GROUP_LOW]));
    LH_TRY(check_finite(t, t->action, w->dims.action, "action", names[LH_GROUP_ACTION]));
    return check_finite(t, t->reward, 1, "reward", NULL);
}

static void rewards_add(struct lh_dataset_rewards *r, float v)
{
    size_t i = r->n;
    while (i > 0 && r->value[i - 1] >= v)
        i--;
    if ((i < r->n && r->value[i] == v) || r->n == REWARD_MAX)
        return;
    memmove(r->value + i + 1, r->value + i, (r->n - i) * sizeof *r->value);
    r->value[i] = v + 0.0f; /* -0 becomes 0 */
    r->n++;
}

static void count_rewards(struct lh_dataset_writer *w, const struct lh_trajectory *t)
{
    if (t->split != LH_TRAIN || atomic_load_explicit(&w->many_rewards, memory_order_relaxed))
        return;
    struct lh_dataset_rewards here = {.n = 0};
    for (size_t i = 0; i < t->n && here.n < REWARD_MAX; i++) {
        if (i == 0 || t->reward[i] != t->reward[i - 1])
            rewards_add(&here, t->reward[i]);
    }
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < here.n; i++)
        rewards_add(&w->rewards, here.value[i]);
    bool many = w->rewards.n == REWARD_MAX;
    pthread_mutex_unlock(&w->lock);
    if (many)
        atomic_store_explicit(&w->many_rewards, true, memory_order_relaxed);
}

int lh_dataset_writer_add(struct lh_dataset_writer *w, const struct lh_trajectory *t)
{
    assert(t->split < LH_SPLITS);
    if (t->n == 0)
        return 0;
    LH_TRY(check(w, t));
    count_rewards(w, t);
    struct encoding e = {t, lh_dataset_record_offsets(&w->dims, t->n), &w->dims};
    size_t bucket = (size_t)t->split * w->fine + lh_partition_of_user(t->user, w->fine);
    return lh_spool_put(w->spool, bucket, e.o.end, encode, &e);
}

/* --- commit: the whole ------------------------------------------------------------------------ */

/* Shift and scale from the statistics, as common/dataset.h says. */
static void set_norm(struct lh_manifest *m)
{
    struct lh_norm *n = &m->norm;
    float *shift[] = {n->high_shift, n->low_shift}, *scale[] = {n->high_scale, n->low_scale};
    for (int g = 0; g < 2; g++) {
        for (uint32_t i = 0; i < lh_manifest_width(&m->dims, g); i++) {
            const struct lh_column_stats *s = &m->stats[g][i];
            shift[g][i] = (float)s->mean;
            float k = (float)(1 / s->std);
            scale[g][i] = s->std > 0 && isfinite(k) ? k : 1;
        }
    }
    for (uint32_t i = 0; i < m->dims.action; i++) {
        const struct lh_column_stats *s = &m->stats[LH_GROUP_ACTION][i];
        bool spread = s->q001 < s->q999; /* else nearly constant: take what range there is */
        double lo = spread ? s->q001 : s->min, hi = spread ? s->q999 : s->max;
        n->action_lo[i] = (float)lo;
        n->action_hi[i] = (float)hi;
        n->action_shift[i] = (float)((lo + hi) / 2);
        float k = (float)(2 / (hi - lo));
        n->action_scale[i] = lo < hi && isfinite(k) ? k : 1;
    }
}

static void column_step(void *ctx)
{
    lh_dataset_commit_step(ctx);
}

static uint64_t column_steps(const struct lh_dims *d)
{
    uint64_t steps = lh_colstat_steps(1); /* of the reward */
    for (int g = 0; g < LH_GROUPS; g++)
        steps += lh_colstat_steps(lh_manifest_width(d, g));
    return steps;
}

/* Statistics over the training rows of the partitions just written. Their blocks are not checked:
 * they are in memory still, as they were summed. */
static int compute_statistics(struct lh_dataset_writer *w)
{
    struct lh_manifest *m = &w->manifest;
    static const enum lh_part_column column[] = {LH_PART_HIGH, LH_PART_LOW, LH_PART_ACTION,
                                                 LH_PART_REWARD};
    enum { MATRICES = sizeof column / sizeof *column };
    size_t n = m->split[LH_TRAIN].partitions;
    struct lh_partition **open = NULL;
    struct lh_colstat_part *parts = NULL;
    int rc;
    LH_TRY_TO(done, LH_NEW_ARRAY(&open, n, "partitions"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&parts, n * MATRICES, "partitions"));
    for (size_t i = 0; i < n; i++) {
        char *path;
        LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", w->partial.path, m->parts[LH_TRAIN][i].file));
        rc = lh_partition_open(&open[i], path);
        lh_mem_free(path);
        if (rc < 0)
            goto done;
        for (size_t c = 0; c < MATRICES; c++) {
            const float *data = lh_partition_row(open[i], column[c], 0);
            if (!data) {
                rc = LH_ECORRUPT;
                goto done;
            }
            lh_partition_release(open[i]);
            parts[c * n + i] = (struct lh_colstat_part){data, m->parts[LH_TRAIN][i].rows, true};
        }
    }
    struct lh_colstat_matrix matrix[MATRICES];
    for (size_t c = 0; c < MATRICES; c++)
        matrix[c] = (struct lh_colstat_matrix){
            .parts = parts + c * n,
            .n_parts = n,
            .width = column[c] == LH_PART_REWARD ? 1 : lh_manifest_width(&m->dims, (int)c),
            .out = column[c] == LH_PART_REWARD ? &m->reward_stats : m->stats[c],
        };
    LH_TRY_TO(done, lh_colstat_compute(matrix, MATRICES, w->threads, column_step, w));
    set_norm(m);
done:
    for (size_t i = 0; open && i < n; i++)
        lh_partition_close(&open[i]);
    lh_mem_free(open);
    lh_mem_free(parts);
    return rc;
}

static int write_manifest(struct lh_dataset_writer *w)
{
    char *text = NULL, *path = NULL;
    int rc;
    w->manifest.digest = lh_manifest_digest(&w->manifest);
    LH_TRY_TO(done, lh_manifest_print(&w->manifest, &text));
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/" LH_MANIFEST_NAME, w->partial.path));
    rc = lh_fs_write_file(path, text, strlen(text));
done:
    lh_mem_free(text);
    lh_mem_free(path);
    return rc;
}

int lh_dataset_writer_commit(struct lh_dataset_writer **p)
{
    struct lh_dataset_writer *w = *p;
    int rc;
    if (w->rewards.n <= LH_CLASSES_MAX) {
        w->dims.classes = w->manifest.dims.classes = (uint32_t)w->rewards.n;
        w->manifest.norm.dims.classes = w->dims.classes;
        memcpy(w->manifest.reward_values, w->rewards.value, w->rewards.n * sizeof(float));
    }
    w->steps = column_steps(&w->dims);
    LH_TRY_TO(done, lh_dataset_commit_partitions(w));
    lh_spool_destroy(&w->spool);
    LH_TRY_TO(done, compute_statistics(w));
    LH_TRY_TO(done, write_manifest(w));
    LH_TRY_TO(done, lh_fs_sync_all(w->partial.path));
    rc = lh_fs_partial_commit(&w->partial);
done:
    lh_dataset_writer_abort(p);
    return rc;
}
