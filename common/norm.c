/* Normalisation: x' = (x - shift) * scale per column. The parameters are one block, so that a copy
 * is one allocation and members never differ in age. */
#include "common/dataset.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

static void place(struct lh_norm *n, float *block)
{
    float **at[] = {&n->high_shift,   &n->high_scale,   &n->low_shift, &n->low_scale,
                    &n->action_shift, &n->action_scale, &n->action_lo, &n->action_hi};
    size_t width[] = {n->dims.high,   n->dims.high,   n->dims.low,    n->dims.low,
                      n->dims.action, n->dims.action, n->dims.action, n->dims.action};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        *at[i] = block;
        block += width[i];
    }
}

static size_t block_floats(const struct lh_dims *d)
{
    return 2 * ((size_t)d->high + d->low) + 4 * (size_t)d->action;
}

static void fill(float *p, size_t n, float v)
{
    for (size_t i = 0; i < n; i++)
        p[i] = v;
}

int lh_norm_init(struct lh_norm *n, const struct lh_dims *dims)
{
    float *block;
    LH_TRY(LH_NEW_ARRAY(&block, block_floats(dims), "normalisation"));
    *n = (struct lh_norm){.dims = *dims};
    place(n, block);
    fill(n->high_scale, dims->high, 1);
    fill(n->low_scale, dims->low, 1);
    fill(n->action_scale, dims->action, 1);
    fill(n->action_lo, dims->action, -1);
    fill(n->action_hi, dims->action, 1);
    return 0;
}

void lh_norm_fini(struct lh_norm *n)
{
    lh_mem_free(n->high_shift);
    memset(n, 0, sizeof *n);
}

int lh_norm_copy(struct lh_norm *out, const struct lh_norm *in)
{
    LH_TRY(lh_norm_init(out, &in->dims));
    memcpy(out->high_shift, in->high_shift, block_floats(&in->dims) * sizeof(float));
    return 0;
}
