/* Sorting a bucket. Hashes are uniform, so one distribution by their next bits leaves cells of a
 * few users at most; a cell whose rows came in time order, as logs mostly do, is sorted already.
 * Keys are sorted, and rows moved once. */
#include "common/rowsort.h"

#include "common/err.h"
#include "common/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CELL_ROWS 4  /* a cell for so many rows */
#define CELLS_MAX 16 /* bits */
#define SMALL     24 /* rows that are sorted by insertion */

struct key {
    uint64_t hash;
    int64_t time;
    uint64_t order;
    const char *row;
};

#define ORDER(x, y) (((x) > (y)) - ((x) < (y)))

static uint64_t user_of(const struct key *k)
{
    uint64_t user;
    memcpy(&user, k->row + offsetof(struct lh_row, user), sizeof user);
    return user;
}

static int compare(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->hash != y->hash)
        return ORDER(x->hash, y->hash);
    uint64_t u = user_of(x), v = user_of(y);
    int c = ORDER(u, v);
    c = c ? c : ORDER(x->time, y->time);
    return c ? c : ORDER(x->order, y->order);
}

static void sort_cell(struct key *k, size_t n)
{
    size_t i = 1;
    while (i < n && compare(&k[i - 1], &k[i]) <= 0)
        i++;
    if (i >= n)
        return;
    if (n > SMALL) {
        qsort(k, n, sizeof *k, compare);
        return;
    }
    for (; i < n; i++) {
        struct key one = k[i];
        size_t at = i;
        for (; at > 0 && compare(&k[at - 1], &one) > 0; at--)
            k[at] = k[at - 1];
        k[at] = one;
    }
}

static size_t read_keys(const struct lh_spool_view *v, size_t width, struct key *keys)
{
    size_t n = 0;
    for (size_t s = 0; s < v->n; s++) {
        const char *p = v->spans[s].data, *end = p + v->spans[s].bytes;
        for (; p < end; p += width) {
            struct lh_row row;
            memcpy(&row, p, sizeof row);
            keys[n++] = (struct key){row.hash, row.time, row.order, p};
        }
    }
    return n;
}

/* From keys to sorted, which do not overlap. */
static int sort(const struct key *keys, size_t n, unsigned bits, struct key *sorted)
{
    unsigned cell_bits = 1;
    while (cell_bits < CELLS_MAX && n >> cell_bits > CELL_ROWS)
        cell_bits++;
    size_t cells = (size_t)1 << cell_bits, *start;
    LH_TRY(LH_NEW_ARRAY(&start, cells + 1, "rows to sort"));
    for (size_t i = 0; i < n; i++)
        start[(keys[i].hash << bits >> (64 - cell_bits)) + 1]++;
    for (size_t c = 0; c < cells; c++)
        start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++)
        sorted[start[keys[i].hash << bits >> (64 - cell_bits)]++] = keys[i];
    /* start[c] is now the end of cell c */
    for (size_t c = 0, at = 0; c < cells; at = start[c++])
        sort_cell(sorted + at, start[c] - at);
    lh_mem_free(start);
    return 0;
}

struct run {
    const struct key *keys;
    size_t n, width;
};

static void copy_run(void *ctx, void *to)
{
    const struct run *r = ctx;
    for (size_t i = 0; i < r->n; i++)
        memcpy((char *)to + i * r->width, r->keys[i].row, r->width);
}

int lh_rowsort_bucket(struct lh_spool *from, struct lh_spool *to, size_t bucket, size_t row_bytes,
                      unsigned bits, uint64_t *users)
{
    struct lh_spool_view v;
    struct key *keys = NULL;
    size_t n = lh_spool_bytes(from, bucket) / row_bytes;
    int rc;
    *users = 0;
    LH_TRY(lh_spool_view_open(&v, from, bucket, 0));
    LH_TRY_TO(done, LH_NEW_ARRAY(&keys, 2 * n, "rows to sort"));
    struct key *sorted = keys + n;
    read_keys(&v, row_bytes, keys);
    LH_TRY_TO(done, sort(keys, n, bits, sorted));
    for (size_t i = 0; i < n; i++)
        *users += i == 0 || sorted[i].hash != sorted[i - 1].hash ||
                  user_of(&sorted[i]) != user_of(&sorted[i - 1]);
    struct run run = {sorted, n, row_bytes};
    if (n > 0)
        LH_TRY_TO(done, lh_spool_put(to, bucket, n * row_bytes, copy_run, &run));
done:
    lh_mem_free(keys);
    lh_spool_view_close(&v);
    lh_spool_drop(from, bucket);
    return rc;
}
