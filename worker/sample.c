/* Sampling by counter. */
#include "worker/sample.h"

#include "common/rng.h"

uint64_t lh_sample_transition(const struct lh_sampler *s, uint64_t step, size_t position)
{
    struct lh_rng_at at = {.seed = s->seed};
    if (s->mode == LH_SAMPLING_UNIFORM) {
        at.purpose = lh_rng_purpose("sample.uniform");
        at.step = step;
        return lh_rng_below(&at, position, s->transitions);
    }
    /* The run is one sequence of permutations, and step * batch + position walks it. */
    uint64_t walked = step * s->batch + position;
    at.purpose = lh_rng_purpose("sample.epoch");
    at.step = walked / s->transitions;
    return lh_rng_permute(&at, walked % s->transitions, s->transitions);
}

size_t lh_sample_block(const struct lh_sampler *s, uint64_t step, uint32_t block, uint64_t *out)
{
    size_t first = block * s->block;
    size_t n = first >= s->batch ? 0 : s->batch - first < s->block ? s->batch - first : s->block;
    if (s->mode == LH_SAMPLING_UNIFORM) {
        for (size_t i = 0; i < n; i++)
            out[i] = lh_sample_transition(s, step, first + i);
        return n;
    }
    for (size_t i = 0; i < n;) { /* a run of each epoch */
        const uint64_t walked = step * s->batch + first + i, k = walked % s->transitions;
        const size_t left = n - i;
        const size_t run = s->transitions - k < left ? (size_t)(s->transitions - k) : left;
        const struct lh_rng_at at = {.seed = s->seed,
                                     .purpose = lh_rng_purpose("sample.epoch"),
                                     .step = walked / s->transitions};
        lh_rng_permute_run(&at, k, run, s->transitions, out + i);
        i += run;
    }
    return n;
}
