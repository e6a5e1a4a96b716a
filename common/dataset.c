/* Reading a dataset: rows of a split are numbered over its partitions; a gather finds each row's
 * partition by binary search, brings the lines it will need towards the cache, and then copies. */
#include "common/dataset.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/manifest.h"
#include "common/mem.h"
#include "common/partition.h"

#include <stdio.h>
#include <string.h>

#define MANIFEST_MAX (1u << 30)

struct split {
    struct lh_partition **part;
    uint64_t *row_start, *transition_start; /* [n + 1] */
    size_t n;
};

struct lh_dataset {
    char *dir, *text;
    struct lh_manifest manifest;
    struct lh_dataset_info info;
    struct split split[LH_SPLITS];
};

static int open_split(struct lh_dataset *ds, int s)
{
    struct split *sp = &ds->split[s];
    const struct lh_manifest *m = &ds->manifest;
    sp->n = m->split[s].partitions;
    LH_TRY(LH_NEW_ARRAY(&sp->part, sp->n, "partitions"));
    LH_TRY(LH_NEW_ARRAY(&sp->row_start, sp->n + 1, "partitions"));
    LH_TRY(LH_NEW_ARRAY(&sp->transition_start, sp->n + 1, "partitions"));
    for (size_t i = 0; i < sp->n; i++) {
        const struct lh_manifest_part *want = &m->parts[s][i];
        char *path;
        LH_TRY(lh_mem_printf(&path, "%s/%s", ds->dir, want->file));
        int rc = lh_partition_open(&sp->part[i], path);
        if (rc == 0) {
            const struct lh_partition_head *h = lh_partition_head(sp->part[i]);
            if (lh_partition_checksum(sp->part[i]) != want->checksum || h->rows != want->rows ||
                h->halos != want->halos || h->cuts != want->cuts || h->dims.high != m->dims.high ||
                h->dims.low != m->dims.low || h->dims.action != m->dims.action ||
                h->dims.classes != m->dims.classes || h->dims.ids != m->dims.ids ||
                h->split != (enum lh_split)s)
                rc = lh_err_set(LH_EMISMATCH,
                                "%s: not the partition that the manifest lists; restore it or "
                                "import again",
                                path);
        }
        lh_mem_free(path);
        LH_TRY(rc);
        lh_partition_release(sp->part[i]); /* thousands of headers are not needed again soon */
        sp->row_start[i + 1] = sp->row_start[i] + want->rows;
        sp->transition_start[i + 1] = sp->transition_start[i] + want->rows - want->cuts;
    }
    return 0;
}

static void fill_info(struct lh_dataset *ds)
{
    const struct lh_manifest *m = &ds->manifest;
    ds->info = (struct lh_dataset_info){
        .dims = m->dims,
        .high_names = (const char *const *)m->names[LH_GROUP_HIGH],
        .low_names = (const char *const *)m->names[LH_GROUP_LOW],
        .action_names = (const char *const *)m->names[LH_GROUP_ACTION],
        .id_names = (const char *const *)m->id_names,
        .reward_values = m->reward_values,
        .high_stats = m->stats[LH_GROUP_HIGH],
        .low_stats = m->stats[LH_GROUP_LOW],
        .action_stats = m->stats[LH_GROUP_ACTION],
        .reward_stats = &m->reward_stats,
        .first_day = m->first_day,
        .last_day = m->last_day,
        .digest = m->digest,
        .kind = m->kind,
    };
    memcpy(ds->info.split, m->split, sizeof ds->info.split);
}

int lh_dataset_open(struct lh_dataset **out, const char *dir)
{
    struct lh_dataset *ds = NULL;
    char *path = NULL;
    size_t n;
    int rc;
    LH_TRY(LH_NEW(&ds, "dataset"));
    LH_TRY_TO(fail, lh_mem_strdup(&ds->dir, dir));
    LH_TRY_TO(fail, lh_mem_printf(&path, "%s/" LH_MANIFEST_NAME, dir));
    rc = lh_fs_read_file(&ds->text, &n, path, MANIFEST_MAX);
    if (rc == LH_ENOENT)
        lh_err_set(rc,
                   "%s: not a dataset (there is no %s in it); make one with longhaul import or "
                   "longhaul simulate",
                   dir, LH_MANIFEST_NAME);
    if (rc < 0)
        goto fail;
    LH_TRY_TO(fail, lh_manifest_parse(&ds->manifest, ds->text, n, path));
    fill_info(ds);
    for (int s = 0; s < LH_SPLITS; s++)
        LH_TRY_TO(fail, open_split(ds, s));
    lh_mem_free(path);
    *out = ds;
    return 0;
fail:
    lh_mem_free(path);
    lh_dataset_close(&ds);
    return rc;
}

void lh_dataset_close(struct lh_dataset **p)
{
    struct lh_dataset *ds = *p;
    if (!ds)
        return;
    for (int s = 0; s < LH_SPLITS; s++) {
        struct split *sp = &ds->split[s];
        for (size_t i = 0; sp->part && i < sp->n; i++)
            lh_partition_close(&sp->part[i]);
        lh_mem_free(sp->part);
        lh_mem_free(sp->row_start);
        lh_mem_free(sp->transition_start);
    }
    lh_manifest_fini(&ds->manifest);
    lh_mem_free(ds->text);
    lh_mem_free(ds->dir);
    lh_mem_free(ds);
    *p = NULL;
}

const struct lh_dataset_info *lh_dataset_info(const struct lh_dataset *ds)
{
    return &ds->info;
}

const struct lh_norm *lh_dataset_norm(const struct lh_dataset *ds)
{
    return &ds->manifest.norm;
}

const char *lh_dataset_dir(const struct lh_dataset *ds)
{
    return ds->dir;
}

const char *lh_dataset_manifest(const struct lh_dataset *ds)
{
    return ds->text;
}

const struct lh_partition *lh_dataset_partition(const struct lh_dataset *ds, enum lh_split split,
                                                size_t i, const char **file, uint64_t *first_row)
{
    const struct split *sp = &ds->split[split];
    if (i >= sp->n)
        return NULL;
    if (file)
        *file = ds->manifest.parts[split][i].file;
    if (first_row)
        *first_row = sp->row_start[i];
    return sp->part[i];
}

/* The partition that holds element `k`, given where each starts; k < start[n]. */
static size_t find(const uint64_t *start, size_t n, uint64_t k)
{
    size_t lo = 0;
    while (n > 1) {
        size_t half = n / 2;
        if (start[lo + half] <= k)
            lo += half;
        n -= half;
    }
    /* partitions without elements start where the next does: step over them */
    while (start[lo + 1] <= k)
        lo++;
    return lo;
}

uint64_t lh_dataset_transition_row(const struct lh_dataset *ds, enum lh_split split, uint64_t k)
{
    const struct split *sp = &ds->split[split];
    size_t i = find(sp->transition_start, sp->n, k);
    return sp->row_start[i] + lh_partition_transition(sp->part[i], k - sp->transition_start[i]);
}

/* --- gather ---------------------------------------------------------------------------------- */

enum { CHUNK = 16 }; /* rows in flight: enough to hide a miss, few enough for the line buffers */

struct place {
    const struct lh_partition *part;
    uint64_t row;
};

static int locate(const struct split *sp, enum lh_split split, const uint64_t *rows, size_t n,
                  struct place *at)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i] >= sp->row_start[sp->n])
            return lh_err_set(LH_ERANGE, "row %llu of the %s split: there are %llu rows",
                              (unsigned long long)rows[i], lh_split_names[split],
                              (unsigned long long)sp->row_start[sp->n]);
        size_t p = find(sp->row_start, sp->n, rows[i]);
        at[i] = (struct place){sp->part[p], rows[i] - sp->row_start[p]};
    }
    return 0;
}

/* x' = (x - shift) * scale; shift NULL: as it is. */
static void copy(float *restrict out, const float *restrict x, const float *restrict shift,
                 const float *restrict scale, size_t n)
{
    if (!shift) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    for (size_t j = 0; j < n; j++)
        out[j] = (x[j] - shift[j]) * scale[j];
}

static int gather_column(const struct place *at, size_t n, enum lh_part_column c, float *out,
                         const float *shift, const float *scale, size_t width)
{
    const float *from[CHUNK];
    for (size_t i = 0; i < n; i++) {
        from[i] = lh_partition_row(at[i].part, c, at[i].row);
        if (!from[i])
            return LH_ECORRUPT;
        for (size_t line = 0; line < width; line += 16)
            __builtin_prefetch(from[i] + line);
    }
    for (size_t i = 0; i < n; i++)
        copy(out + i * width, from[i], shift, scale, width);
    return 0;
}

static int gather_next(const struct place *at, size_t n, const uint8_t *flags,
                       enum lh_part_column c, float *out, const float *shift, const float *scale,
                       size_t width)
{
    const float *from[CHUNK];
    for (size_t i = 0; i < n; i++) {
        from[i] = NULL;
        if (!(flags[i] & LH_PART_HAS_NEXT))
            continue;
        uint64_t next;
        LH_TRY(lh_partition_next(at[i].part, at[i].row, flags[i], &next));
        from[i] = lh_partition_row(at[i].part, c, next);
        if (!from[i])
            return LH_ECORRUPT;
        for (size_t line = 0; line < width; line += 16)
            __builtin_prefetch(from[i] + line);
    }
    for (size_t i = 0; i < n; i++) {
        if (from[i])
            copy(out + i * width, from[i], shift, scale, width);
        else
            memset(out + i * width, 0, width * sizeof *out);
    }
    return 0;
}

static int gather_ids(const struct place *at, size_t n, uint64_t *out, size_t width)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t *from = lh_partition_row(at[i].part, LH_PART_IDS, at[i].row);
        if (!from)
            return LH_ECORRUPT;
        memcpy(out + i * width, from, width * sizeof *out);
    }
    return 0;
}

static int gather_next_ids(const struct place *at, size_t n, const uint8_t *flags, uint64_t *out,
                           size_t width)
{
    for (size_t i = 0; i < n; i++) {
        struct place next = at[i];
        if (flags[i] & LH_PART_HAS_NEXT) {
            LH_TRY(lh_partition_next(at[i].part, at[i].row, flags[i], &next.row));
            LH_TRY(gather_ids(&next, 1, out + i * width, width));
        } else {
            memset(out + i * width, 0xff, width * sizeof *out); /* LH_ID_NONE */
        }
    }
    return 0;
}

static int gather_scalars(const struct place *at, size_t n, const uint8_t *flags,
                          struct lh_batch *b, size_t base)
{
    for (size_t i = 0; b->reward && i < n; i++) {
        const float *r = lh_partition_row(at[i].part, LH_PART_REWARD, at[i].row);
        if (!r)
            return LH_ECORRUPT;
        b->reward[base + i] = *r;
    }
    for (size_t i = 0; b->not_done && i < n; i++)
        b->not_done[base + i] = flags[i] & LH_PART_HAS_NEXT ? 1.0f : 0.0f;
    for (size_t i = 0; b->reward_class && i < n; i++) {
        const uint8_t *k = lh_partition_row(at[i].part, LH_PART_CLASS, at[i].row);
        if (!k)
            return LH_ECORRUPT;
        b->reward_class[base + i] = (float)*k;
    }
    return 0;
}

/* Locates the next rows, and asks for them while those before are copied. */
static int look_ahead(const struct split *sp, enum lh_split split, const uint64_t *rows, size_t n,
                      struct place *at)
{
    LH_TRY(locate(sp, split, rows, n, at));
    for (size_t i = 0; i < n; i++)
        lh_partition_ahead(at[i].part, at[i].row);
    return 0;
}

int lh_dataset_gather(const struct lh_dataset *ds, enum lh_split split, const uint64_t *rows,
                      size_t n, const struct lh_norm *norm, struct lh_batch *b)
{
    const size_t H = ds->info.dims.high, L = ds->info.dims.low, A = ds->info.dims.action,
                 I = ds->info.dims.ids;
    static const struct lh_norm raw = {.high_shift = NULL};
    const struct lh_norm *z = norm ? norm : &raw;
    struct place chunk[2][CHUNK];
    LH_TRY(locate(&ds->split[split], split, rows, n < CHUNK ? n : CHUNK, chunk[0]));
    for (size_t base = 0; base < n; base += CHUNK) {
        const size_t m = n - base < CHUNK ? n - base : CHUNK, left = n - base - m;
        const struct place *at = chunk[base / CHUNK % 2];
        uint8_t flags[CHUNK];
        LH_TRY(look_ahead(&ds->split[split], split, rows + base + m, left < CHUNK ? left : CHUNK,
                          chunk[(base / CHUNK + 1) % 2]));
        for (size_t i = 0; i < m; i++) {
            const uint8_t *f = lh_partition_row(at[i].part, LH_PART_FLAGS, at[i].row);
            if (!f)
                return LH_ECORRUPT;
            flags[i] = *f;
        }
        if (b->high)
            LH_TRY(gather_column(at, m, LH_PART_HIGH, b->high + base * H, z->high_shift,
                                 z->high_scale, H));
        if (b->low)
            LH_TRY(gather_column(at, m, LH_PART_LOW, b->low + base * L, z->low_shift, z->low_scale,
                                 L));
        if (b->action)
            LH_TRY(gather_column(at, m, LH_PART_ACTION, b->action + base * A, z->action_shift,
                                 z->action_scale, A));
        if (b->next_high)
            LH_TRY(gather_next(at, m, flags, LH_PART_HIGH, b->next_high + base * H, z->high_shift,
                               z->high_scale, H));
        if (b->next_low)
            LH_TRY(gather_next(at, m, flags, LH_PART_LOW, b->next_low + base * L, z->low_shift,
                               z->low_scale, L));
        if (b->ids && I)
            LH_TRY(gather_ids(at, m, b->ids + base * I, I));
        if (b->next_ids && I)
            LH_TRY(gather_next_ids(at, m, flags, b->next_ids + base * I, I));
        LH_TRY(gather_scalars(at, m, flags, b, base));
    }
    return 0;
}

int lh_dataset_row_info(const struct lh_dataset *ds, enum lh_split split, uint64_t row,
                        struct lh_row_info *out)
{
    struct place at = {0};
    LH_TRY(locate(&ds->split[split], split, &row, 1, &at));
    const uint64_t *user = lh_partition_row(at.part, LH_PART_USER, at.row);
    const uint64_t *trajectory = lh_partition_row(at.part, LH_PART_TRAJECTORY, at.row);
    const uint32_t *session = lh_partition_row(at.part, LH_PART_SESSION, at.row);
    const int64_t *time = lh_partition_row(at.part, LH_PART_TIME, at.row);
    const uint8_t *flags = lh_partition_row(at.part, LH_PART_FLAGS, at.row);
    if (!user || !trajectory || !session || !time || !flags)
        return LH_ECORRUPT;
    *out = (struct lh_row_info){
        .user = *user,
        .trajectory = *trajectory,
        .session = *session,
        .time_us = *time,
        .first = (*flags & LH_PART_FIRST) != 0,
        .last = (*flags & LH_PART_LAST) != 0,
        .ends = (*flags & LH_PART_ENDS) != 0,
        .has_next = (*flags & LH_PART_HAS_NEXT) != 0,
    };
    return 0;
}
