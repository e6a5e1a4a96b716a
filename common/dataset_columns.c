/* A day's pieces of trajectories as the columns of a partition file, each column in one go:
 * segments of a partition are written by several threads, in no order, each where its rows stand.
 */
#include "common/dataset_internal.h"

#include "common/err.h"
#include "common/partition.h"

#include <math.h>

static const void *at(const struct lh_dataset_record *r, size_t offset)
{
    return (const char *)r + offset;
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

static uint8_t flags_of(const struct lh_dataset_piece *p, uint32_t i)
{
    uint8_t f = i == 0 ? LH_PART_FIRST : 0;
    if (i + 1 == p->r->n)
        return (uint8_t)(f | LH_PART_LAST | (p->r->ends ? LH_PART_ENDS : 0));
    f |= LH_PART_HAS_NEXT;
    return (uint8_t)(i + 1 == p->hi ? f | LH_PART_NEXT_IS_HALO : f);
}

/* One matrix: the pieces' rows, then (states) the rows that follow them. */
static int put_matrix(struct lh_partition_segment *out, const struct lh_dataset_batch *b,
                      enum lh_part_column c)
{
    const struct lh_dims *dims = &b->manifest->dims;
    size_t width = c == LH_PART_HIGH ? dims->high : c == LH_PART_LOW ? dims->low : dims->action;
    for (int halo = 0; halo <= (c == LH_PART_ACTION ? 0 : 1); halo++) {
        LH_TRY(
            lh_partition_segment_begin(out, c, halo ? b->part_rows + b->first_halo : b->first_row));
        for (size_t i = 0; i < b->n; i++) {
            const struct lh_dataset_piece *p = &b->pieces[i];
            if (halo && !lh_dataset_piece_has_halo(p))
                continue;
            struct lh_dataset_offsets o = lh_dataset_record_offsets(dims, p->r->n);
            const float *m = at(p->r, c == LH_PART_HIGH  ? o.high
                                      : c == LH_PART_LOW ? o.low
                                                         : o.action);
            size_t first = halo ? p->hi : p->lo, rows = halo ? 1 : p->hi - p->lo;
            LH_TRY(lh_partition_segment_put(out, m + first * width, rows * width * sizeof(float)));
            b->read(b->ctx);
        }
    }
    return 0;
}

/* The ids of the pieces' rows, then of the rows that follow them. */
static int put_ids(struct lh_partition_segment *out, const struct lh_dataset_batch *b)
{
    const size_t row = b->manifest->dims.ids * sizeof(uint64_t);
    for (int halo = 0; row > 0 && halo <= 1; halo++) {
        LH_TRY(lh_partition_segment_begin(out, LH_PART_IDS,
                                          halo ? b->part_rows + b->first_halo : b->first_row));
        for (size_t i = 0; i < b->n; i++) {
            const struct lh_dataset_piece *p = &b->pieces[i];
            if (halo && !lh_dataset_piece_has_halo(p))
                continue;
            const char *ids = at(p->r, lh_dataset_record_offsets(&b->manifest->dims, p->r->n).ids);
            size_t first = halo ? p->hi : p->lo, rows = halo ? 1 : p->hi - p->lo;
            LH_TRY(lh_partition_segment_put(out, ids + first * row, rows * row));
            b->read(b->ctx);
        }
    }
    return 0;
}

/* A column that is copied from the record as it is. */
static int put_copied(struct lh_partition_segment *out, const struct lh_dataset_batch *b,
                      enum lh_part_column c)
{
    size_t size = c == LH_PART_TIME ? sizeof(int64_t) : sizeof(float);
    LH_TRY(lh_partition_segment_begin(out, c, b->first_row));
    for (size_t i = 0; i < b->n; i++) {
        const struct lh_dataset_piece *p = &b->pieces[i];
        struct lh_dataset_offsets o = lh_dataset_record_offsets(&b->manifest->dims, p->r->n);
        size_t offset = c == LH_PART_TIME     ? sizeof *p->r
                        : c == LH_PART_REWARD ? o.reward
                                              : o.session;
        const char *from = at(p->r, offset);
        LH_TRY(lh_partition_segment_put(out, from + p->lo * size, (p->hi - p->lo) * size));
        b->read(b->ctx);
    }
    return 0;
}

/* A column of bytes that is computed row by row. */
static int put_bytes(struct lh_partition_segment *out, const struct lh_dataset_batch *b,
                     enum lh_part_column c)
{
    uint8_t buffer[512];
    LH_TRY(lh_partition_segment_begin(out, c, b->first_row));
    for (size_t i = 0; i < b->n; i++) {
        const struct lh_dataset_piece *p = &b->pieces[i];
        const float *reward =
            at(p->r, lh_dataset_record_offsets(&b->manifest->dims, p->r->n).reward);
        size_t used = 0;
        for (uint32_t row = p->lo; row < p->hi; row++) {
            buffer[used++] =
                c == LH_PART_CLASS ? class_of(b->manifest, reward[row]) : flags_of(p, row);
            if (used == sizeof buffer || row + 1 == p->hi) {
                LH_TRY(lh_partition_segment_put(out, buffer, used));
                used = 0;
            }
        }
        b->read(b->ctx);
    }
    return 0;
}

/* A column that is the same for all rows of a piece. */
static int put_repeated(struct lh_partition_segment *out, const struct lh_dataset_batch *b,
                        enum lh_part_column c)
{
    enum { MANY = 64 };
    uint64_t buffer[MANY];
    LH_TRY(lh_partition_segment_begin(out, c, b->first_row));
    for (size_t i = 0; i < b->n; i++) {
        const struct lh_dataset_piece *p = &b->pieces[i];
        for (size_t j = 0; j < MANY && j < p->hi - p->lo; j++)
            buffer[j] = c == LH_PART_USER ? p->r->user : p->r->id;
        for (size_t left = p->hi - p->lo, k; left > 0; left -= k) {
            k = left < MANY ? left : MANY;
            LH_TRY(lh_partition_segment_put(out, buffer, k * sizeof *buffer));
        }
        b->read(b->ctx);
    }
    return 0;
}

/* Rows, by their numbers in the partition, after which something is missing or elsewhere. */
static int put_list(struct lh_partition_segment *out, const struct lh_dataset_batch *b,
                    enum lh_part_column c)
{
    uint64_t row = b->first_row;
    LH_TRY(lh_partition_segment_begin(out, c, c == LH_PART_CUT ? b->first_cut : b->first_halo));
    for (size_t i = 0; i < b->n; i++) {
        row += b->pieces[i].hi - b->pieces[i].lo;
        uint32_t last = (uint32_t)(row - 1);
        if (c == LH_PART_CUT ? lh_dataset_piece_is_cut(&b->pieces[i])
                             : lh_dataset_piece_has_halo(&b->pieces[i]))
            LH_TRY(lh_partition_segment_put(out, &last, sizeof last));
        b->read(b->ctx);
    }
    return 0;
}

int lh_dataset_columns_put(struct lh_partition_segment *out, const struct lh_dataset_batch *b)
{
    LH_TRY(put_matrix(out, b, LH_PART_HIGH));
    LH_TRY(put_matrix(out, b, LH_PART_LOW));
    LH_TRY(put_matrix(out, b, LH_PART_ACTION));
    LH_TRY(put_copied(out, b, LH_PART_REWARD));
    LH_TRY(put_bytes(out, b, LH_PART_CLASS));
    LH_TRY(put_bytes(out, b, LH_PART_FLAGS));
    LH_TRY(put_copied(out, b, LH_PART_TIME));
    LH_TRY(put_repeated(out, b, LH_PART_USER));
    LH_TRY(put_repeated(out, b, LH_PART_TRAJECTORY));
    LH_TRY(put_copied(out, b, LH_PART_SESSION));
    LH_TRY(put_ids(out, b));
    LH_TRY(put_list(out, b, LH_PART_CUT));
    return put_list(out, b, LH_PART_HALO);
}
