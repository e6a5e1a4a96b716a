/* Row lists. See rowlist.h. */
#include "common/rowlist.h"

#include <stdio.h>
#include <string.h>

/* The finaliser of splitmix64: every bit of the id moves every bit of the hash. */
static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint32_t lh_rowlist_shard(uint64_t id, uint32_t shards)
{
    return (uint32_t)(((unsigned __int128)mix(id) * shards) >> 64);
}

void lh_rowlist_split(const uint64_t *ids, size_t n, uint32_t shards, uint32_t *place,
                      size_t *first)
{
    memset(first, 0, ((size_t)shards + 1) * sizeof *first);
    for (size_t i = 0; i < n; i++)
        first[lh_rowlist_shard(ids[i], shards) + 1]++;
    for (uint32_t s = 0; s < shards; s++)
        first[s + 1] += first[s];
    for (size_t i = 0; i < n; i++)
        place[first[lh_rowlist_shard(ids[i], shards)]++] = (uint32_t)i;
    for (uint32_t s = shards; s > 0; s--) /* each has moved on to where the next begins */
        first[s] = first[s - 1];
    first[0] = 0;
}

int lh_rowlist_ascends(const void *ids, size_t n)
{
    const unsigned char *p = ids;
    uint64_t before, id;
    int holds = 1;
    for (size_t i = 1; i < n; i++) {
        memcpy(&before, p + 8 * (i - 1), 8);
        memcpy(&id, p + 8 * i, 8);
        holds &= before < id;
    }
    return holds;
}

size_t lh_rowlist_add(const struct lh_rowlist *a, const struct lh_rowlist *b, uint32_t dim,
                      uint64_t *restrict ids, float *restrict values)
{
    const size_t bytes = dim * sizeof *values;
    size_t i = 0, j = 0, n = 0;
    while (i < a->n && j < b->n) {
        const uint64_t left = a->ids[i], right = b->ids[j];
        const float *x = a->values + i * dim, *y = b->values + j * dim;
        float *restrict out = values + n * dim;
        ids[n++] = left < right ? left : right;
        if (left == right) {
            for (uint32_t c = 0; c < dim; c++)
                out[c] = x[c] + y[c];
        } else {
            memcpy(out, left < right ? x : y, bytes);
        }
        i += left <= right;
        j += right <= left;
    }
    const struct lh_rowlist *rest = i < a->n ? a : b;
    const size_t from = i < a->n ? i : j;
    if (from < rest->n) {
        memcpy(ids + n, rest->ids + from, (rest->n - from) * sizeof *ids);
        memcpy(values + n * dim, rest->values + from * dim, (rest->n - from) * bytes);
    }
    return n + rest->n - from;
}

struct lh_rng_at lh_rowlist_stream(const char *name, uint64_t seed)
{
    char purpose[256];
    snprintf(purpose, sizeof purpose, "table.%s", name);
    return (struct lh_rng_at){.seed = seed, .purpose = lh_rng_purpose(purpose)};
}

void lh_rowlist_initial(const struct lh_rng_at *stream, double scale, uint64_t id, float *w,
                        uint32_t dim)
{
    struct lh_rng_at at = *stream;
    at.step = id;
    lh_rng_uniform(&at, w, dim);
    for (uint32_t c = 0; c < dim; c++)
        w[c] = (float)scale * (2 * w[c] - 1); /* the bracket is exact: u has 24 bits */
}
