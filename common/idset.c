/* Sorting by radix: batches name thousands of ids a step, mostly of the same few low bytes, and a
 * comparison sort of them showed beside a small network. */
#include "common/idset.h"

#include <string.h>

#define FEW 48 /* below, insertion is quicker */

static void insertion(uint64_t *ids, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const uint64_t id = ids[i];
        size_t k = i;
        for (; k > 0 && ids[k - 1] > id; k--)
            ids[k] = ids[k - 1];
        ids[k] = id;
    }
}

/* One pass, by the byte at `shift`; false, and nothing done, where all have the same. */
static int pass(const uint64_t *from, uint64_t *to, size_t n, unsigned shift)
{
    size_t start[256] = {0}, at = 0;
    for (size_t i = 0; i < n; i++)
        start[from[i] >> shift & 255]++;
    if (start[from[0] >> shift & 255] == n)
        return 0;
    for (size_t b = 0; b < 256; b++) {
        const size_t count = start[b];
        start[b] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++)
        to[start[from[i] >> shift & 255]++] = from[i];
    return 1;
}

size_t lh_idset_make(uint64_t *ids, size_t n, uint64_t *scratch)
{
    uint64_t *from = ids, *to = scratch;
    size_t left = 0;
    if (n <= FEW) {
        insertion(ids, n);
    } else {
        for (unsigned shift = 0; shift < 64; shift += 8)
            if (pass(from, to, n, shift)) {
                uint64_t *swap = from;
                from = to;
                to = swap;
            }
    }
    for (size_t i = 0; i < n; i++)
        if (i == 0 || from[i] != from[i - 1])
            scratch[left++] = from[i]; /* never ahead of what is read */
    if (left > 0)
        memcpy(ids, scratch, left * sizeof *ids);
    return left;
}

size_t lh_idset_find(const uint64_t *ids, size_t n, uint64_t id)
{
    size_t lo = 0, m = n;
    while (m > 1) {
        const size_t half = m / 2;
        lo += ids[lo + half] <= id ? half : 0;
        m -= half;
    }
    return n > 0 && ids[lo] == id ? lo : SIZE_MAX;
}
