/* From the spool to partitions. Buckets that lie side by side in a partition are taken together as
 * long as they are small: a group. A first pass over each group counts, so that it is known where
 * in each partition its rows will stand; a second sorts an index of it and writes there. So memory
 * is an index of one group a thread, however large partitions are, and neither the number of
 * buckets nor of threads shows in the bytes. */
#include "common/dataset_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/partition.h"
#include "common/pool.h"

#include <xxhash.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DAY_US  INT64_C(86400000000)
#define RELEASE 512 /* pieces read before a mapped group's pages are given back */

#define ORDER(x, y) (((x) > (y)) - ((x) < (y)))

typedef struct lh_dataset_record record;

/* What a group has in one day's partition, and where that begins. */
struct tally {
    int32_t day;
    uint64_t rows, halos, cuts, pieces;
    size_t part; /* of the split */
    uint64_t first_row, first_halo, first_cut;
};

struct group {
    struct lh_dataset_writer *w;
    enum lh_split split;
    uint32_t hash;         /* of the partition */
    size_t first, n;       /* buckets of the spool */
    struct tally *tallies; /* by day */
    size_t n_tallies, cap_tallies;
    uint64_t users, trajectories;
    int64_t first_time, last_time;
    /* while it is read */
    struct lh_spool_view *views;
    size_t touched; /* pieces read since pages were given back */
    struct lh_dataset_piece *pieces;
    size_t n_pieces, cap_pieces;
};

struct groups {
    struct group *group;
    size_t n, cap;
};

static const void *at(const record *r, size_t offset)
{
    return (const char *)r + offset;
}

static int32_t day_of(int64_t time_us)
{
    int64_t day = time_us / DAY_US - (time_us % DAY_US < 0);
    return day < INT32_MIN ? INT32_MIN : day > INT32_MAX ? INT32_MAX : (int32_t)day;
}

/* Bytes of records that are taken together: in memory, beside an index that takes less. */
static uint64_t group_bytes(const struct lh_dataset_writer *w)
{
    return w->memory_limit / (2 * w->threads);
}

/* --- reading a group -------------------------------------------------------------------------- */

/* Call for each piece that is read. A mapped group may be larger than memory; what was read of it
 * would else count as this process's own until the system wants it back. */
static void touch(void *ctx)
{
    struct group *g = ctx;
    if (++g->touched % RELEASE == 0) {
        for (size_t i = 0; i < g->n; i++)
            lh_spool_view_release(&g->views[i]);
    }
}

static void close_group(struct group *g)
{
    for (size_t i = 0; g->views && i < g->n; i++)
        lh_spool_view_close(&g->views[i]);
    lh_mem_free(g->views);
    g->views = NULL;
}

/* What fits is read into memory, to be written from there. */
static int open_group(struct group *g, uint64_t load)
{
    LH_TRY(LH_NEW_ARRAY(&g->views, g->n, "buckets"));
    for (size_t i = 0; i < g->n; i++) {
        int rc = lh_spool_view_open(&g->views[i], g->w->spool, g->first + i, load);
        if (rc < 0) {
            close_group(g);
            return rc;
        }
    }
    return 0;
}

/* Calls `use` for each piece of each trajectory. */
typedef int (*use_piece)(struct group *g, const struct lh_dataset_piece *p);

static int each_piece_of(struct group *g, const record *r, use_piece use)
{
    const int64_t *time = at(r, sizeof *r);
    struct lh_dataset_piece p = {.hash = XXH3_64bits(&r->user, sizeof r->user), .r = r};
    for (; p.hi < r->n; p.lo = p.hi) {
        p.day = g->w->by_day ? day_of(time[p.lo]) : 0;
        p.hi = (uint32_t)r->n;
        if (g->w->by_day && day_of(time[r->n - 1]) != p.day) {
            p.hi = p.lo + 1;
            while (day_of(time[p.hi]) == p.day)
                p.hi++;
        }
        LH_TRY(use(g, &p));
    }
    touch(g);
    return 0;
}

static int each_piece(struct group *g, use_piece use)
{
    for (size_t v = 0; v < g->n; v++) {
        for (size_t s = 0; s < g->views[v].n; s++) {
            const char *p = g->views[v].spans[s].data, *end = p + g->views[v].spans[s].bytes;
            while (p < end) {
                const record *r = (const record *)(const void *)p;
                LH_TRY(each_piece_of(g, r, use));
                p += r->bytes;
            }
        }
    }
    return 0;
}

/* --- first pass: counting --------------------------------------------------------------------- */

static int find_tally(struct group *g, int32_t day, struct tally **out)
{
    size_t at = g->n_tallies;
    while (at > 0 && g->tallies[at - 1].day > day)
        at--;
    if (at == 0 || g->tallies[at - 1].day != day) {
        LH_TRY(LH_GROW(&g->tallies, &g->cap_tallies, g->n_tallies + 1, "days"));
        memmove(&g->tallies[at + 1], &g->tallies[at], (g->n_tallies - at) * sizeof *g->tallies);
        g->tallies[at++] = (struct tally){.day = day};
        g->n_tallies++;
    }
    *out = &g->tallies[at - 1];
    return 0;
}

static int count_piece(struct group *g, const struct lh_dataset_piece *p)
{
    const int64_t *time = at(p->r, sizeof *p->r);
    struct tally *t;
    LH_TRY(find_tally(g, p->day, &t));
    t->rows += p->hi - p->lo;
    t->halos += lh_dataset_piece_has_halo(p);
    t->cuts += lh_dataset_piece_is_cut(p);
    t->pieces++;
    if (p->lo > 0)
        return 0;
    int64_t first = time[0], last = time[p->r->n - 1];
    g->first_time = g->trajectories == 0 || first < g->first_time ? first : g->first_time;
    g->last_time = g->trajectories == 0 || last > g->last_time ? last : g->last_time;
    g->trajectories++;
    return 0;
}

void lh_dataset_commit_step(struct lh_dataset_writer *w)
{
    if (!w->progress)
        return;
    pthread_mutex_lock(&w->lock);
    w->progress(w->ctx, ++w->steps_done, w->steps);
    pthread_mutex_unlock(&w->lock);
}

static int count_group(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct group *g = &((struct groups *)ctx)->group[index];
    LH_TRY(open_group(g, 0)); /* once through, in order */
    int rc = each_piece(g, count_piece);
    close_group(g);
    return rc;
}

/* --- where everything goes -------------------------------------------------------------------- */

/* Groups of neighbouring buckets. */
static int make_groups(struct lh_dataset_writer *w, struct groups *gs)
{
    uint64_t target = group_bytes(w);
    uint32_t fine = w->fine / w->hashes; /* buckets a partition */
    for (size_t b = 0; b < (size_t)LH_SPLITS * w->fine; b++) {
        uint64_t bytes = lh_spool_bytes(w->spool, b);
        if (bytes == 0)
            continue;
        struct group *last = gs->n ? &gs->group[gs->n - 1] : NULL;
        uint32_t hash = (uint32_t)(b % w->fine / fine);
        enum lh_split split = (enum lh_split)(b / w->fine);
        if (last && last->split == split && last->hash == hash) {
            uint64_t sum = bytes;
            for (size_t i = 0; i < last->n; i++)
                sum += lh_spool_bytes(w->spool, last->first + i);
            if (sum <= target) {
                last->n = b + 1 - last->first;
                continue;
            }
        }
        LH_TRY(LH_GROW(&gs->group, &gs->cap, gs->n + 1, "groups of trajectories"));
        gs->group[gs->n++] =
            (struct group){.w = w, .split = split, .hash = hash, .first = b, .n = 1};
    }
    return 0;
}

static int compare_parts(const void *a, const void *b)
{
    const struct lh_manifest_part *x = a, *y = b;
    int c = ORDER(x->day, y->day);
    return c ? c : ORDER(x->hash, y->hash);
}

/* The partitions of a split: all days and hashes that some group has rows of. */
static int list_parts(struct lh_dataset_writer *w, const struct groups *gs, int s)
{
    size_t n = 0, cap = 0;
    struct lh_manifest_part *parts = NULL;
    for (size_t i = 0; i < gs->n; i++) {
        const struct group *g = &gs->group[i];
        if (g->split != (enum lh_split)s)
            continue;
        int rc = LH_GROW(&parts, &cap, n + g->n_tallies, "partitions");
        if (rc < 0) {
            lh_mem_free(parts);
            return rc;
        }
        for (size_t t = 0; t < g->n_tallies; t++)
            parts[n++] = (struct lh_manifest_part){.day = g->tallies[t].day, .hash = g->hash};
    }
    if (n > 0)
        qsort(parts, n, sizeof *parts, compare_parts);
    size_t distinct = 0;
    for (size_t i = 0; i < n; i++) {
        if (distinct == 0 || compare_parts(&parts[distinct - 1], &parts[i]) != 0)
            parts[distinct++] = parts[i];
    }
    w->manifest.parts[s] = parts;
    w->manifest.split[s].partitions = distinct;
    for (size_t i = 0; i < distinct; i++)
        LH_TRY(lh_mem_printf(&parts[i].file, "%s/day-%d/part-%03u.lhp", lh_split_names[s],
                             parts[i].day, parts[i].hash));
    return 0;
}

/* Gives each group its places in the partitions, in the order of groups. */
static void place(struct lh_dataset_writer *w, struct groups *gs)
{
    for (size_t i = 0; i < gs->n; i++) {
        struct group *g = &gs->group[i];
        struct lh_manifest_part *parts = w->manifest.parts[g->split];
        for (size_t k = 0; k < g->n_tallies; k++) {
            struct tally *t = &g->tallies[k];
            struct lh_manifest_part key = {.day = t->day, .hash = g->hash};
            struct lh_manifest_part *p = bsearch(
                &key, parts, w->manifest.split[g->split].partitions, sizeof key, compare_parts);
            assert(p);
            t->part = (size_t)(p - parts);
            t->first_row = p->rows;
            t->first_halo = p->halos;
            t->first_cut = p->cuts;
            p->rows += t->rows;
            p->halos += t->halos;
            p->cuts += t->cuts;
            p->pieces += t->pieces;
        }
    }
}

static struct lh_partition_head head_of(const struct lh_dataset_writer *w, enum lh_split split,
                                        const struct lh_manifest_part *p)
{
    return (struct lh_partition_head){.dims = w->manifest.dims,
                                      .split = split,
                                      .day = p->day,
                                      .hash = p->hash,
                                      .rows = p->rows,
                                      .halos = p->halos,
                                      .cuts = p->cuts,
                                      .pieces = p->pieces};
}

static int create_part(struct lh_dataset_writer *w, enum lh_split split,
                       const struct lh_manifest_part *p)
{
    struct lh_partition_head head = head_of(w, split, p);
    char *path;
    LH_TRY(lh_mem_printf(&path, "%s/%s", w->partial.path, p->file));
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int rc = lh_fs_mkdirs(path);
    *slash = '/';
    if (rc == 0)
        rc = lh_partition_create(path, &head);
    lh_mem_free(path);
    return rc;
}

static int create_parts(struct lh_dataset_writer *w)
{
    for (int s = 0; s < LH_SPLITS; s++) {
        struct lh_split_info *info = &w->manifest.split[s];
        for (size_t i = 0; i < info->partitions; i++) {
            const struct lh_manifest_part *p = &w->manifest.parts[s][i];
            LH_TRY(create_part(w, (enum lh_split)s, p));
            info->rows += p->rows;
            info->transitions += p->rows - p->cuts;
        }
    }
    return 0;
}

/* --- second pass: writing --------------------------------------------------------------------- */

static int keep_piece(struct group *g, const struct lh_dataset_piece *p)
{
    LH_TRY(LH_GROW(&g->pieces, &g->cap_pieces, g->n_pieces + 1, "index of trajectories"));
    g->pieces[g->n_pieces++] = *p;
    return 0;
}

static int compare_pieces(const void *a, const void *b)
{
    const struct lh_dataset_piece *x = a, *y = b;
    int c = ORDER(x->day, y->day);
    c = c ? c : ORDER(x->hash, y->hash);
    if (c || x->r == y->r)
        return c ? c : ORDER(x->lo, y->lo);
    c = ORDER(x->r->user, y->r->user);
    c = c ? c : ORDER(x->r->first_time, y->r->first_time);
    c = c ? c : ORDER(x->r->id, y->r->id);
    c = c ? c : ORDER(x->r->bytes, y->r->bytes); /* the same id twice: any order that is one */
    return c ? c : memcmp(x->r, y->r, x->r->bytes);
}

static int compare_u64(const void *a, const void *b)
{
    return ORDER(*(const uint64_t *)a, *(const uint64_t *)b);
}

/* Users of a group: they lie in no other. XXH3 of 8 bytes is one to one, so hashes do. */
static int count_users(struct group *g)
{
    uint64_t *users;
    LH_TRY(LH_NEW_ARRAY(&users, g->n_pieces, "users"));
    size_t n = 0;
    for (size_t i = 0; i < g->n_pieces; i++) {
        if (g->pieces[i].lo == 0) /* one a trajectory */
            users[n++] = g->pieces[i].hash;
    }
    if (g->w->by_day)
        qsort(users, n, sizeof *users, compare_u64);
    for (size_t i = 0; i < n; i++)
        g->users += i == 0 || users[i] != users[i - 1];
    lh_mem_free(users);
    return 0;
}

static int write_day(struct group *g, const struct tally *t, const struct lh_dataset_piece *p)
{
    const struct lh_manifest_part *part = &g->w->manifest.parts[g->split][t->part];
    struct lh_partition_head head = head_of(g->w, g->split, part);
    struct lh_dataset_batch b = {.manifest = &g->w->manifest,
                                 .pieces = p,
                                 .n = t->pieces,
                                 .part_rows = part->rows,
                                 .first_row = t->first_row,
                                 .first_halo = t->first_halo,
                                 .first_cut = t->first_cut,
                                 .read = touch,
                                 .ctx = g};
    struct lh_partition_segment *out = NULL;
    char *path;
    LH_TRY(lh_mem_printf(&path, "%s/%s", g->w->partial.path, part->file));
    int rc = lh_partition_segment_open(&out, path, &head);
    if (rc == 0)
        rc = lh_dataset_columns_put(out, &b);
    if (rc == 0)
        rc = lh_partition_segment_close(&out);
    lh_partition_segment_close(&out);
    lh_mem_free(path);
    return rc;
}

static int write_group(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct group *g = &((struct groups *)ctx)->group[index];
    int rc;
    LH_TRY(open_group(g, group_bytes(g->w)));
    LH_TRY_TO(done, each_piece(g, keep_piece));
    qsort(g->pieces, g->n_pieces, sizeof *g->pieces, compare_pieces);
    LH_TRY_TO(done, count_users(g));
    const struct lh_dataset_piece *p = g->pieces;
    for (size_t k = 0; k < g->n_tallies; k++) {
        LH_TRY_TO(done, write_day(g, &g->tallies[k], p));
        p += g->tallies[k].pieces;
    }
done:
    lh_mem_free(g->pieces);
    g->pieces = NULL;
    close_group(g);
    for (size_t i = 0; i < g->n; i++)
        lh_spool_drop(g->w->spool, g->first + i);
    lh_dataset_commit_step(g->w);
    return rc;
}

static int seal_part(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct lh_dataset_writer *w = ctx;
    int s = 0;
    while (index >= w->manifest.split[s].partitions)
        index -= w->manifest.split[s++].partitions;
    struct lh_manifest_part *p = &w->manifest.parts[s][index];
    struct lh_partition_head head = head_of(w, (enum lh_split)s, p);
    char *path;
    LH_TRY(lh_mem_printf(&path, "%s/%s", w->partial.path, p->file));
    int rc = lh_partition_seal(path, &head, &p->checksum, &p->bytes);
    lh_mem_free(path);
    lh_dataset_commit_step(w);
    return rc;
}

/* --- the whole -------------------------------------------------------------------------------- */

static void sum_groups(struct lh_dataset_writer *w, const struct groups *gs)
{
    int64_t first = INT64_MAX, last = INT64_MIN;
    for (size_t i = 0; i < gs->n; i++) {
        const struct group *g = &gs->group[i];
        w->manifest.split[g->split].users += g->users;
        w->manifest.split[g->split].trajectories += g->trajectories;
        first = g->first_time < first ? g->first_time : first;
        last = g->last_time > last ? g->last_time : last;
    }
    if (gs->n > 0) {
        w->manifest.first_day = day_of(first);
        w->manifest.last_day = day_of(last);
    }
}

int lh_dataset_commit_partitions(struct lh_dataset_writer *w)
{
    struct groups gs = {.n = 0};
    size_t parts = 0;
    int rc;
    LH_TRY_TO(done, make_groups(w, &gs));
    LH_TRY_TO(done, lh_pool_run(w->threads, gs.n, count_group, &gs));
    for (int s = 0; s < LH_SPLITS; s++) {
        LH_TRY_TO(done, list_parts(w, &gs, s));
        parts += w->manifest.split[s].partitions;
    }
    w->steps += gs.n + parts;
    place(w, &gs);
    LH_TRY_TO(done, create_parts(w));
    LH_TRY_TO(done, lh_pool_run(w->threads, gs.n, write_group, &gs));
    LH_TRY_TO(done, lh_pool_run(w->threads, parts, seal_part, w));
    sum_groups(w, &gs);
done:
    for (size_t i = 0; i < gs.n; i++)
        lh_mem_free(gs.group[i].tallies);
    lh_mem_free(gs.group);
    return rc;
}
