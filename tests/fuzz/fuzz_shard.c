/* ps/shard, ps/reduce, ps/flight: a list of pushes, as a server takes them from workers. Byte 0
 * says of which kind the gradients and the job are; of each push five bytes say step, node, first
 * element and how many, and then come the elements, at whatever byte they begin. */
#include "ps/shard.h"

#include "ps/flight.h"
#include "ps/reduce.h"
#include "tests/fuzz/fuzzkit.h"

enum { ELEMENTS = 24, METRICS = 2, LEAVES = 5, ROUNDS = 40 };

static struct lh_shard *shard_new(unsigned flags)
{
    static const char name[] = "w";
    struct lh_segment segment = {.hi = ELEMENTS,
                                 .name = name,
                                 .rows = 1,
                                 .cols = ELEMENTS,
                                 .learning_rate = 0.1,
                                 .period = 1,
                                 .target_period = 1,
                                 .trained = true};
    const struct lh_shard_range range = {
        .hi = ELEMENTS, .flat_size = ELEMENTS, .n_segments = 1, .segments = &segment};
    static const float weights[ELEMENTS] = {1, 2, 3};
    struct lh_shard *s = NULL;
    if (lh_shard_create(&s, &(struct lh_shard_spec){.range = &range,
                                                    .leaves = LEAVES,
                                                    .beta1 = 0.9,
                                                    .beta2 = 0.999,
                                                    .epsilon = 1e-8,
                                                    .n_metrics = flags & 4 ? METRICS : 0,
                                                    .bf16 = flags & 1,
                                                    .each = flags & 2}) == 0)
        lh_shard_init(s, weights);
    return s;
}

/* As far as steps are whole. False: it diverged. */
static bool advance(struct lh_shard *s)
{
    float metrics[METRICS];
    int applied = 1;
    while (applied) {
        const uint64_t before = lh_shard_version(s);
        const float *sum = lh_shard_gradient(s);
        if (sum)
            fuzzkit_touch(sum, ELEMENTS * sizeof *sum);
        if (!fuzzkit_passed(lh_shard_advance(s, &applied, metrics)))
            return false;
        fuzzkit_require(lh_shard_version(s) == before + (applied != 0), "a step is one version");
    }
    fuzzkit_touch(lh_shard_weights(s), ELEMENTS * sizeof(float));
    return true;
}

/* Of a step that is one worker's own: the node says who it is of, and whether that one is given it
 * before. */
static int push_own(struct lh_shard *s, uint64_t step, struct lh_tree_node node, size_t first,
                    const void *data, size_t n, const void *metrics)
{
    const struct lh_flight_claim of = {
        .worker = node.index % 4,
        .request = node.level / 2,
        .peer = {.size = 1, .id = {(unsigned char)(node.index % 4)}}};
    if (node.level % 2 == 0) {
        int rc = lh_flight_give(lh_shard_flight(s), step, &of, 0);
        fuzzkit_require(rc == 0 || rc == LH_AGAIN, "a step is given, or in");
    }
    return lh_shard_push_own(s, step, &of, first, data, n, metrics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const unsigned flags = data[0];
    const size_t width = flags & 1 ? 2 : 4;
    struct lh_shard *s = shard_new(flags);
    const uint8_t *at = data + 1, *end = data + size;
    lh_err_clear();
    for (int i = 0; s && i < ROUNDS && end - at >= 5; i++) {
        const uint64_t step = at[0];
        const struct lh_tree_node node = {.level = at[1], .index = at[2]};
        const size_t first = at[3], n = at[4];
        at += 5;
        const size_t metrics = flags & 4 ? METRICS * sizeof(float) : 0;
        if ((size_t)(end - at) < n * width + metrics)
            break;
        const void *values = metrics ? at + n * width : NULL;
        int rc = flags & 2 ? push_own(s, step, node, first, at, n, values)
                           : lh_shard_push(s, step, node, first, at, n, values);
        fuzzkit_require(rc == 0 || rc == LH_AGAIN || rc == LH_EPROTO,
                        "a push is taken, known or refused");
        at += n * width + metrics;
        if (!advance(s))
            break;
    }
    lh_shard_destroy(&s);
    return 0;
}
