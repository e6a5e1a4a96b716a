/* Writing a dataset. Trajectories are encoded into a spool with a bucket per (split, hash
 * partition); commit takes bucket by bucket, sorts what lies in it by day, user, time and id, and
 * streams the partitions of all its days. So memory is the spool's limit and then an index of one
 * bucket a thread; and the bytes do not depend on who added what when. */
#include "common/dataset.h"

#include "common/colstat.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/manifest.h"
#include "common/mem.h"
#include "common/partition.h"
#include "common/pool.h"
#include "common/spool.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define DIM_MAX    (1u << 20)
#define DAY_US     INT64_C(86400000000)
#define RELEASE    512 /* pieces read before a mapped bucket's pages are given back */
#define REWARD_MAX (LH_CLASSES_MAX + 1) /* one more is too many */

/* The distinct rewards seen, ascending. */
struct rewards {
    float value[REWARD_MAX];
    size_t n;
};

struct lh_dataset_writer {
    struct lh_fs_partial partial;
    struct lh_manifest manifest; /* under construction */
    struct lh_dims dims;
    uint32_t hashes;
    bool by_day;
    unsigned threads;
    struct lh_spool *spool;
    pthread_mutex_t lock; /* of rewards */
    struct rewards rewards;
    _Atomic bool many_rewards; /* more than LH_CLASSES_MAX: nobody need look any more */
};

/* --- records ---------------------------------------------------------------------------------- */

/* A trajectory as it lies in the spool: this, then n times, n sessions, n rewards, the matrices. */
struct record {
    uint64_t bytes; /* of all, a multiple of 8 */
    uint64_t user, id, n;
    int64_t first_time;
    uint64_t ends;
};

static size_t pad(size_t n)
{
    return (n + 7) / 8 * 8;
}

struct offsets {
    size_t session, reward, high, low, action, end;
};

static struct offsets offsets_of(const struct lh_dims *d, size_t n)
{
    struct offsets o;
    o.session = sizeof(struct record) + n * sizeof(int64_t);
    o.reward = o.session + n * sizeof(uint32_t);
    o.high = o.reward + n * sizeof(float);
    o.low = o.high + n * d->high * sizeof(float);
    o.action = o.low + n * d->low * sizeof(float);
    o.end = pad(o.action + n * d->action * sizeof(float));
    return o;
}

static const void *at(const struct record *r, size_t offset)
{
    return (const char *)r + offset;
}

struct encoding {
    const struct lh_trajectory *t;
    struct offsets o;
    const struct lh_dims *dims;
};

static void encode(void *ctx, void *out)
{
    const struct encoding *e = ctx;
    const struct lh_trajectory *t = e->t;
    const size_t n = t->n, f = sizeof(float);
    char *p = out;
    *(struct record *)out = (struct record){e->o.end, t->user, t->id, n, t->time_us[0], t->ends};
    memset(p + e->o.end - 8, 0, 8); /* padding */
    memcpy(p + sizeof(struct record), t->time_us, n * sizeof *t->time_us);
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
    return 0;
}

int lh_dataset_writer_open(struct lh_dataset_writer **out, const char *dir,
                           const struct lh_dataset_spec *spec)
{
    struct lh_dataset_writer *w = NULL;
    int rc;
    if (spec->dims.high > DIM_MAX || spec->dims.low > DIM_MAX || spec->dims.action > DIM_MAX ||
        spec->hash_partitions == 0 || spec->hash_partitions > 1u << 16)
        return lh_err_set(LH_ERANGE,
                          "%s: dimensions beyond 2^20, or no or more than 65536 hash "
                          "partitions",
                          dir);
    LH_TRY(LH_NEW(&w, "dataset writer"));
    pthread_mutex_init(&w->lock, NULL);
    w->dims = spec->dims;
    w->dims.classes = 0;
    w->hashes = spec->hash_partitions;
    w->by_day = spec->by_day;
    w->threads = spec->threads ? spec->threads : 1;
    w->manifest.dims = w->dims;
    LH_TRY_TO(fail, lh_manifest_reserve(&w->manifest));
    LH_TRY_TO(fail, copy_names(w, spec));
    LH_TRY_TO(fail, lh_mem_strdup(&w->manifest.kind, spec->kind));
    if (spec->origin_json)
        LH_TRY_TO(fail, lh_mem_strdup(&w->manifest.origin, spec->origin_json));
    LH_TRY_TO(fail, lh_fs_partial_begin(&w->partial, dir, spec->replace, LH_MANIFEST_NAME));
    LH_TRY_TO(fail, lh_spool_create(&w->spool, w->partial.path, "rows",
                                    (size_t)LH_SPLITS * w->hashes, spec->memory_limit));
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

static void rewards_add(struct rewards *r, float v)
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
    struct rewards here = {.n = 0};
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
    struct encoding e = {t, offsets_of(&w->dims, t->n), &w->dims};
    size_t bucket = (size_t)t->split * w->hashes + lh_partition_of_user(t->user, w->hashes);
    return lh_spool_put(w->spool, bucket, e.o.end, encode, &e);
}

/* --- commit: one bucket ----------------------------------------------------------------------- */

/* The part of a trajectory that lies in one day: rows lo .. hi-1 of the record. */
struct piece {
    uint64_t user, id;
    int64_t time;
    const struct record *r;
    uint32_t lo, hi;
    int32_t day;
};

struct bucket {
    struct lh_dataset_writer *w;
    enum lh_split split;
    uint32_t hash;
    struct piece *pieces;
    size_t n, cap;
    struct lh_manifest_part *parts;
    size_t n_parts, cap_parts;
    uint64_t users, trajectories;
    int64_t first_time, last_time;
    struct lh_spool_view view;
    size_t touched; /* pieces read since its pages were given back */
};

static int32_t day_of(int64_t time_us)
{
    int64_t day = time_us / DAY_US - (time_us % DAY_US < 0);
    return day < INT32_MIN ? INT32_MIN : day > INT32_MAX ? INT32_MAX : (int32_t)day;
}

#define ORDER(x, y) (((x) > (y)) - ((x) < (y)))

static int compare_pieces(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    int c = ORDER(x->day, y->day);
    c = c ? c : ORDER(x->user, y->user);
    c = c ? c : ORDER(x->r->first_time, y->r->first_time);
    c = c ? c : ORDER(x->id, y->id);
    if (c || x->r == y->r)
        return c ? c : ORDER(x->lo, y->lo);
    c = ORDER(x->r->bytes, y->r->bytes); /* the same id twice: any order that is one */
    return c ? c : memcmp(x->r, y->r, x->r->bytes);
}

static int add_pieces(struct bucket *b, const struct record *r)
{
    const int64_t *time = at(r, sizeof *r);
    for (size_t lo = 0, hi; lo < r->n; lo = hi) {
        int32_t day = b->w->by_day ? day_of(time[lo]) : 0;
        hi = r->n;
        if (b->w->by_day && day_of(time[r->n - 1]) != day) {
            hi = lo + 1;
            while (day_of(time[hi]) == day)
                hi++;
        }
        LH_TRY(LH_GROW(&b->pieces, &b->cap, b->n + 1, "index of trajectories"));
        b->pieces[b->n++] =
            (struct piece){r->user, r->id, time[lo], r, (uint32_t)lo, (uint32_t)hi, day};
    }
    if (b->trajectories == 0 || time[0] < b->first_time)
        b->first_time = time[0];
    if (b->trajectories == 0 || time[r->n - 1] > b->last_time)
        b->last_time = time[r->n - 1];
    b->trajectories++;
    return 0;
}

/* Call for each piece that is read. A mapped bucket may be larger than memory; what was read of it
 * would else count as this process's own until the system wants it back. */
static void touch(struct bucket *b)
{
    if (++b->touched % RELEASE == 0)
        lh_spool_view_release(&b->view);
}

static int index_bucket(struct bucket *b)
{
    const struct lh_spool_view *v = &b->view;
    for (size_t s = 0; s < v->n; s++) {
        const char *p = v->spans[s].data, *end = p + v->spans[s].bytes;
        while (p < end) {
            const struct record *r = (const struct record *)(const void *)p;
            touch(b);
            LH_TRY(add_pieces(b, r));
            p += r->bytes;
        }
    }
    if (b->n > 0)
        qsort(b->pieces, b->n, sizeof *b->pieces, compare_pieces);
    return 0;
}

static bool is_cut(const struct piece *p)
{
    return p->hi == p->r->n && !p->r->ends;
}

static bool has_halo(const struct piece *p)
{
    return p->hi < p->r->n;
}

static uint8_t class_of(const struct lh_manifest *m, float reward)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < m->dims.classes; i++) {
        if (fabsf(m->reward_values[i] - reward) < fabsf(m->reward_values[best] - reward))
            best = i;
    }
    return (uint8_t)best;
}

static uint8_t flags_of(const struct piece *p, uint32_t i)
{
    uint8_t f = i == 0 ? LH_PART_FIRST : 0;
    if (i + 1 == p->r->n)
        return (uint8_t)(f | LH_PART_LAST | (p->r->ends ? LH_PART_ENDS : 0));
    f |= LH_PART_HAS_NEXT;
    return (uint8_t)(i + 1 == p->hi ? f | LH_PART_NEXT_IS_HALO : f);
}

/* One matrix: all pieces' rows, then (states) the rows that follow them. */
static int put_matrix(struct bucket *b, struct lh_partition_writer *out, enum lh_part_column c,
                      const struct piece *p, size_t n)
{
    const struct lh_dims *dims = &b->w->manifest.dims;
    bool states = c == LH_PART_HIGH || c == LH_PART_LOW;
    for (int halo = 0; halo <= (states ? 1 : 0); halo++) {
        for (size_t i = 0; i < n; i++) {
            struct offsets o = offsets_of(dims, p[i].r->n);
            size_t offset = c == LH_PART_HIGH ? o.high : c == LH_PART_LOW ? o.low : o.action;
            size_t width = c == LH_PART_HIGH  ? dims->high
                           : c == LH_PART_LOW ? dims->low
                                              : dims->action;
            touch(b);
            if (halo && !has_halo(&p[i]))
                continue;
            const float *m = at(p[i].r, offset);
            size_t first = halo ? p[i].hi : p[i].lo, rows = halo ? 1 : p[i].hi - p[i].lo;
            LH_TRY(
                lh_partition_writer_put(out, c, m + first * width, rows * width * sizeof(float)));
        }
    }
    return 0;
}

/* A column that is copied from the record as it is. */
static int put_copied(struct bucket *b, struct lh_partition_writer *out, enum lh_part_column c,
                      const struct piece *p, size_t n)
{
    const struct lh_dims *dims = &b->w->manifest.dims;
    for (size_t i = 0; i < n; i++) {
        touch(b);
        struct offsets o = offsets_of(dims, p[i].r->n);
        size_t offset = c == LH_PART_TIME     ? sizeof(struct record)
                        : c == LH_PART_REWARD ? o.reward
                                              : o.session;
        size_t size = c == LH_PART_TIME ? sizeof(int64_t) : sizeof(float);
        LH_TRY(lh_partition_writer_put(out, c, (const char *)at(p[i].r, offset) + p[i].lo * size,
                                       (p[i].hi - p[i].lo) * size));
    }
    return 0;
}

/* A column of bytes that is computed row by row. */
static int put_bytes(struct bucket *b, struct lh_partition_writer *out, enum lh_part_column c,
                     const struct piece *p, size_t n)
{
    const struct lh_manifest *m = &b->w->manifest;
    uint8_t buffer[512];
    for (size_t i = 0; i < n; i++) {
        touch(b);
        const float *reward = at(p[i].r, offsets_of(&m->dims, p[i].r->n).reward);
        size_t used = 0;
        for (uint32_t row = p[i].lo; row < p[i].hi; row++) {
            buffer[used++] = c == LH_PART_CLASS ? class_of(m, reward[row]) : flags_of(&p[i], row);
            if (used == sizeof buffer || row + 1 == p[i].hi) {
                LH_TRY(lh_partition_writer_put(out, c, buffer, used));
                used = 0;
            }
        }
    }
    return 0;
}

/* A column that is the same for all rows of a piece. */
static int put_repeated(struct lh_partition_writer *out, enum lh_part_column c,
                        const struct piece *p, size_t n)
{
    uint64_t buffer[64];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < 64; j++)
            buffer[j] = c == LH_PART_USER ? p[i].user : p[i].id;
        for (size_t left = p[i].hi - p[i].lo; left > 0;) {
            size_t k = left < 64 ? left : 64;
            LH_TRY(lh_partition_writer_put(out, c, buffer, k * sizeof *buffer));
            left -= k;
        }
    }
    return 0;
}

static int put_list(struct bucket *b, struct lh_partition_writer *out, enum lh_part_column c,
                    const struct piece *p, size_t n)
{
    uint64_t row = 0;
    for (size_t i = 0; i < n; i++) {
        touch(b);
        row += p[i].hi - p[i].lo;
        uint32_t last = (uint32_t)(row - 1);
        if (c == LH_PART_CUT ? is_cut(&p[i]) : has_halo(&p[i]))
            LH_TRY(lh_partition_writer_put(out, c, &last, sizeof last));
    }
    return 0;
}

static int put_columns(struct bucket *b, struct lh_partition_writer *out, const struct piece *p,
                       size_t n)
{
    LH_TRY(put_matrix(b, out, LH_PART_HIGH, p, n));
    LH_TRY(put_matrix(b, out, LH_PART_LOW, p, n));
    LH_TRY(put_matrix(b, out, LH_PART_ACTION, p, n));
    LH_TRY(put_copied(b, out, LH_PART_REWARD, p, n));
    LH_TRY(put_bytes(b, out, LH_PART_CLASS, p, n));
    LH_TRY(put_bytes(b, out, LH_PART_FLAGS, p, n));
    LH_TRY(put_copied(b, out, LH_PART_TIME, p, n));
    LH_TRY(put_repeated(out, LH_PART_USER, p, n));
    LH_TRY(put_repeated(out, LH_PART_TRAJECTORY, p, n));
    LH_TRY(put_copied(b, out, LH_PART_SESSION, p, n));
    LH_TRY(put_list(b, out, LH_PART_CUT, p, n));
    return put_list(b, out, LH_PART_HALO, p, n);
}

/* One partition: pieces of one day, sorted. */
static int write_partition(struct bucket *b, const struct piece *p, size_t n)
{
    const struct lh_manifest *m = &b->w->manifest;
    struct lh_partition_head head = {
        .dims = m->dims, .split = b->split, .day = p->day, .hash = b->hash, .pieces = n};
    for (size_t i = 0; i < n; i++) {
        head.rows += p[i].hi - p[i].lo;
        head.cuts += is_cut(&p[i]);
        head.halos += has_halo(&p[i]);
    }
    LH_TRY(LH_GROW(&b->parts, &b->cap_parts, b->n_parts + 1, "partitions"));
    struct lh_manifest_part *part = &b->parts[b->n_parts];
    *part = (struct lh_manifest_part){.day = p->day,
                                      .hash = b->hash,
                                      .rows = head.rows,
                                      .halos = head.halos,
                                      .cuts = head.cuts,
                                      .pieces = n};
    LH_TRY(lh_mem_printf(&part->file, "%s/day-%d/part-%03u.lhp", lh_split_names[b->split], p->day,
                         b->hash));
    b->n_parts++;
    char *path = NULL;
    struct lh_partition_writer *out = NULL;
    int rc;
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", b->w->partial.path, part->file));
    char *slash = strrchr(path, '/');
    *slash = '\0';
    rc = lh_fs_mkdirs(path);
    *slash = '/';
    if (rc < 0)
        goto done;
    LH_TRY_TO(done, lh_partition_writer_open(&out, path, &head));
    LH_TRY_TO(done, put_columns(b, out, p, n));
    rc = lh_partition_writer_close(&out, &part->checksum, &part->bytes);
done:
    lh_partition_writer_abort(&out);
    lh_mem_free(path);
    return rc;
}

static int compare_u64(const void *a, const void *b)
{
    return ORDER(*(const uint64_t *)a, *(const uint64_t *)b);
}

static int count_users(struct bucket *b)
{
    uint64_t *users;
    LH_TRY(LH_NEW_ARRAY(&users, b->n, "users"));
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (b->pieces[i].lo == 0) /* one a trajectory */
            users[n++] = b->pieces[i].user;
    }
    if (b->w->by_day)
        qsort(users, n, sizeof *users, compare_u64);
    for (size_t i = 0; i < n; i++)
        b->users += i == 0 || users[i] != users[i - 1];
    lh_mem_free(users);
    return 0;
}

static int write_bucket(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct bucket *b = (struct bucket *)ctx + index;
    LH_TRY(lh_spool_view_open(&b->view, b->w->spool, index));
    int rc;
    LH_TRY_TO(done, index_bucket(b));
    LH_TRY_TO(done, count_users(b));
    for (size_t lo = 0, hi; lo < b->n; lo = hi) {
        for (hi = lo + 1; hi < b->n && b->pieces[hi].day == b->pieces[lo].day;)
            hi++;
        LH_TRY_TO(done, write_partition(b, b->pieces + lo, hi - lo));
    }
done:
    lh_mem_free(b->pieces);
    b->pieces = NULL;
    lh_spool_view_close(&b->view);
    lh_spool_drop(b->w->spool, index);
    return rc;
}

/* --- commit: the whole ------------------------------------------------------------------------ */

static int compare_parts(const void *a, const void *b)
{
    const struct lh_manifest_part *x = a, *y = b;
    int c = ORDER(x->day, y->day);
    return c ? c : ORDER(x->hash, y->hash);
}

/* Moves what the buckets of a split found into the manifest. */
static int collect_split(struct lh_dataset_writer *w, struct bucket *buckets, int s)
{
    struct lh_split_info *info = &w->manifest.split[s];
    size_t n = 0;
    for (uint32_t h = 0; h < w->hashes; h++)
        n += buckets[h].n_parts;
    LH_TRY(LH_NEW_ARRAY(&w->manifest.parts[s], n, "partitions"));
    for (uint32_t h = 0; h < w->hashes; h++) {
        struct bucket *b = &buckets[h];
        if (b->n_parts > 0)
            memcpy(w->manifest.parts[s] + info->partitions, b->parts,
                   b->n_parts * sizeof *b->parts);
        info->partitions += b->n_parts;
        b->n_parts = 0; /* moved */
        info->users += b->users;
        info->trajectories += b->trajectories;
    }
    struct lh_manifest_part *parts = w->manifest.parts[s];
    if (n > 0)
        qsort(parts, n, sizeof *parts, compare_parts);
    for (size_t i = 0; i < n; i++) {
        info->rows += parts[i].rows;
        info->transitions += parts[i].rows - parts[i].cuts;
    }
    return 0;
}

static void collect_days(struct lh_dataset_writer *w, const struct bucket *buckets, size_t n)
{
    int64_t first = INT64_MAX, last = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        if (buckets[i].trajectories == 0)
            continue;
        first = buckets[i].first_time < first ? buckets[i].first_time : first;
        last = buckets[i].last_time > last ? buckets[i].last_time : last;
    }
    if (first <= last) {
        w->manifest.first_day = day_of(first);
        w->manifest.last_day = day_of(last);
    }
}

static int write_buckets(struct lh_dataset_writer *w)
{
    size_t n = (size_t)LH_SPLITS * w->hashes;
    struct bucket *buckets;
    int rc = 0;
    LH_TRY(LH_NEW_ARRAY(&buckets, n, "buckets"));
    for (size_t i = 0; i < n; i++)
        buckets[i] = (struct bucket){
            .w = w, .split = (enum lh_split)(i / w->hashes), .hash = (uint32_t)(i % w->hashes)};
    LH_TRY_TO(done, lh_pool_run(w->threads, n, write_bucket, buckets));
    for (int s = 0; s < LH_SPLITS; s++)
        LH_TRY_TO(done, collect_split(w, buckets + (size_t)s * w->hashes, s));
    collect_days(w, buckets, n);
done:
    for (size_t i = 0; i < n; i++) {
        for (size_t p = 0; p < buckets[i].n_parts; p++)
            lh_mem_free(buckets[i].parts[p].file);
        lh_mem_free(buckets[i].parts);
    }
    lh_mem_free(buckets);
    return rc;
}

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
    LH_TRY_TO(done, lh_colstat_compute(matrix, MATRICES, w->threads));
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
    LH_TRY_TO(done, write_buckets(w));
    lh_spool_destroy(&w->spool);
    LH_TRY_TO(done, compute_statistics(w));
    LH_TRY_TO(done, write_manifest(w));
    LH_TRY_TO(done, lh_fs_sync_all(w->partial.path));
    rc = lh_fs_partial_commit(&w->partial);
done:
    lh_dataset_writer_abort(p);
    return rc;
}
