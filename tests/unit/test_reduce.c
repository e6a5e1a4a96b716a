#include "common/bf16.h"
#include "common/rng.h"
#include "ps/reduce.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

enum { LEAVES_MAX = 24, SIZE_MAX_ = 48 };

/* Gradients of every leaf, and from them the sum of any node by the definition, its first `rounded`
 * elements rounded to bfloat16. */
static void node_sum(const float *leaf, uint32_t leaves, size_t size, size_t rounded,
                     struct lh_tree_node x, float *out)
{
    if (x.level == 0) {
        memcpy(out, leaf + (size_t)x.index * size, size * sizeof *out);
        lh_bf16_round(out, rounded);
        return;
    }
    float right[SIZE_MAX_];
    node_sum(leaf, leaves, size, rounded, (struct lh_tree_node){x.level - 1, 2 * x.index}, out);
    if (!lh_tree_has(leaves, (struct lh_tree_node){x.level - 1, 2 * x.index + 1}))
        return;
    node_sum(leaf, leaves, size, rounded, (struct lh_tree_node){x.level - 1, 2 * x.index + 1},
             right);
    for (size_t i = 0; i < size; i++)
        out[i] = out[i] + right[i];
    lh_bf16_round(out, rounded);
}

static uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n); /* `step` doubles as a counter of draws */
}

/* Sends [first, first + n) of a node from an odd address; all of it is rounded, or none. */
static int send_part(struct lh_reduce *r, const float *leaf, uint32_t leaves, size_t size,
                     size_t rounded, struct lh_tree_node x, size_t first, size_t n)
{
    float sum[SIZE_MAX_];
    uint16_t packed[SIZE_MAX_];
    unsigned char frame[SIZE_MAX_ * 4 + 1];
    node_sum(leaf, leaves, size, rounded, x, sum);
    memcpy(frame + 1, sum + first, n * sizeof *sum);
    if (first < rounded) {
        lh_bf16_pack(packed, sum + first, n);
        memcpy(frame + 1, packed, n * sizeof *packed);
    }
    return lh_reduce_add(r, x, first, n, frame + 1);
}

static int send_piece(struct lh_reduce *r, const float *leaf, uint32_t leaves, size_t size,
                      struct lh_tree_node x, size_t first, size_t n)
{
    return send_part(r, leaf, leaves, size, 0, x, first, n);
}

static void check_rounded_root(const struct lh_reduce *r, const float *leaf, uint32_t leaves,
                               size_t size, size_t rounded)
{
    float want[SIZE_MAX_];
    const float *got = lh_reduce_root(r);
    node_sum(leaf, leaves, size, rounded, (struct lh_tree_node){lh_tree_height(leaves), 0}, want);
    assert_non_null(got);
    assert_memory_equal(got, want, size * sizeof *got);
}

static void check_root(const struct lh_reduce *r, const float *leaf, uint32_t leaves, size_t size)
{
    check_rounded_root(r, leaf, leaves, size, 0);
}

/* Whoever sends which nodes, in whatever order: shares of 1 to 5 workers, from the last to the
 * first. The elements behind the rounded ones are metrics. */
static void add_rounds_every_node_whoever_computed_it(void **state)
{
    (void)state;
    enum { SIZE = 40, ROUNDED = 37 };
    static float leaf[LEAVES_MAX * SIZE];
    for (uint32_t leaves = 1; leaves <= LEAVES_MAX; leaves++) {
        lh_rng_normal(&(struct lh_rng_at){.seed = leaves}, leaf, leaves * SIZE);
        struct lh_reduce *r = NULL;
        assert_ok(lh_reduce_create(&r, leaves, SIZE));
        lh_reduce_round(r, ROUNDED);
        for (uint32_t workers = 1; workers <= 5; workers++) {
            for (uint32_t w = workers; w-- > 0;) {
                struct lh_tree_node share[64];
                size_t n = lh_tree_share(leaves, w, workers, share);
                for (size_t i = 0; i < n; i++) {
                    assert_ok(send_part(r, leaf, leaves, SIZE, ROUNDED, share[i], ROUNDED,
                                        SIZE - ROUNDED));
                    assert_ok(
                        send_part(r, leaf, leaves, SIZE, ROUNDED, share[i], 11, ROUNDED - 11));
                    assert_ok(send_part(r, leaf, leaves, SIZE, ROUNDED, share[i], 0, 11));
                }
            }
            check_rounded_root(r, leaf, leaves, SIZE, ROUNDED);
            lh_reduce_reset(r);
        }
        lh_reduce_destroy(&r);
    }
}

static void add_any_order_cuts_and_repeats_give_the_same_bits(void **state)
{
    (void)state;
    static float leaf[LEAVES_MAX * SIZE_MAX_];
    for (uint32_t round = 0; round < 3000; round++) {
        struct lh_rng_at at = {.seed = 17, .part = round};
        const uint32_t leaves = (uint32_t)below(&at, LEAVES_MAX) + 1;
        const size_t size = below(&at, SIZE_MAX_) + 1;
        lh_rng_normal(&(struct lh_rng_at){.seed = round}, leaf, leaves * size);
        struct lh_reduce *r = NULL;
        assert_ok(lh_reduce_create(&r, leaves, size));
        for (int step = 0; step < 2; step++) { /* the second with warm memory */
            /* Noise: any pieces of any nodes, as from assignments that died. */
            for (uint64_t k = below(&at, 40); k > 0; k--) {
                struct lh_tree_node x;
                do {
                    x.level = (uint32_t)below(&at, lh_tree_height(leaves) + 1);
                    x.index = (uint32_t)below(&at, leaves);
                } while (!lh_tree_has(leaves, x));
                size_t first = below(&at, size), n = below(&at, size - first) + 1;
                int rc = send_piece(r, leaf, leaves, size, x, first, n);
                assert_true(rc == 0 || rc == LH_AGAIN);
                assert_int_equal(send_piece(r, leaf, leaves, size, x, first, n), LH_AGAIN);
            }
            /* Then one whole assignment, its pieces in random order. */
            struct {
                struct lh_tree_node x;
                size_t first, n;
            } piece[1024];
            size_t n_pieces = 0;
            const uint32_t workers = (uint32_t)below(&at, 5) + 1;
            for (uint32_t w = 0; w < workers; w++) {
                struct lh_tree_node share[64];
                size_t n = lh_tree_share(leaves, w, workers, share);
                for (size_t i = 0; i < n; i++) {
                    for (size_t first = 0, len; first < size; first += len) {
                        len = below(&at, size - first) + 1;
                        piece[n_pieces].x = share[i];
                        piece[n_pieces].first = first;
                        piece[n_pieces++].n = len;
                    }
                }
            }
            for (size_t i = n_pieces; i > 0; i--) {
                size_t k = below(&at, i);
                int rc = send_piece(r, leaf, leaves, size, piece[k].x, piece[k].first, piece[k].n);
                assert_true(rc == 0 || rc == LH_AGAIN);
                piece[k] = piece[i - 1];
            }
            check_root(r, leaf, leaves, size);
            assert_true(lh_reduce_sound(r));
            lh_reduce_reset(r);
            assert_null(lh_reduce_root(r));
        }
        lh_reduce_destroy(&r);
    }
}

static void add_half_a_node_then_its_descendants_completes_the_root(void **state)
{
    (void)state;
    float leaf[4 * 8];
    lh_rng_normal(&(struct lh_rng_at){.seed = 5}, leaf, 4 * 8);
    struct lh_reduce *r = NULL;
    assert_ok(lh_reduce_create(&r, 4, 8));
    /* A worker with leaves 2 and 3 dies after half of its sum; two others take one leaf each. */
    assert_ok(send_piece(r, leaf, 4, 8, (struct lh_tree_node){1, 0}, 0, 8));
    assert_ok(send_piece(r, leaf, 4, 8, (struct lh_tree_node){1, 1}, 3, 4));
    assert_null(lh_reduce_root(r));
    assert_ok(send_piece(r, leaf, 4, 8, (struct lh_tree_node){0, 3}, 0, 8));
    assert_null(lh_reduce_root(r));
    assert_int_equal(send_piece(r, leaf, 4, 8, (struct lh_tree_node){0, 2}, 3, 2), LH_AGAIN);
    assert_ok(send_piece(r, leaf, 4, 8, (struct lh_tree_node){0, 2}, 0, 8));
    check_root(r, leaf, 4, 8);
    assert_int_equal(send_piece(r, leaf, 4, 8, (struct lh_tree_node){2, 0}, 0, 8), LH_AGAIN);
    lh_reduce_destroy(&r);
}

static void add_leaves_in_order_holds_few_buffers(void **state)
{
    (void)state;
    enum { BIG = 3 << 20, N = 32 }; /* elements: too large for buffers made beforehand */
    struct lh_reduce *r = NULL;
    float *x = NULL;
    assert_ok(LH_NEW_ARRAY(&x, BIG, "test"));
    assert_ok(lh_reduce_create(&r, N, BIG));
    for (uint32_t i = 0; i < N; i++)
        assert_ok(lh_reduce_add(r, (struct lh_tree_node){0, i}, 0, BIG, x));
    assert_non_null(lh_reduce_root(r));
    assert_true(lh_reduce_bytes(r) <= 5 * (size_t)BIG * 4); /* the height of the tree */
    lh_reduce_destroy(&r);
    lh_mem_free(x);
}

static void add_warm_allocates_nothing(void **state)
{
    (void)state;
    float leaf[13 * 40];
    lh_rng_normal(&(struct lh_rng_at){.seed = 5}, leaf, 13 * 40);
    struct lh_reduce *r = NULL;
    assert_ok(lh_reduce_create(&r, 13, 40));
    uint64_t before = 0;
    for (int step = 0; step < 11; step++) {
        if (step == 1)
            before = lh_mem_count();
        for (uint32_t i = 0; i < 13; i++) {
            for (size_t first = 0; first < 40; first += 8)
                assert_ok(send_piece(r, leaf, 13, 40, (struct lh_tree_node){0, 12 - i}, first, 8));
        }
        check_root(r, leaf, 13, 40);
        lh_reduce_reset(r);
    }
    assert_int_equal(lh_mem_count(), before);
    lh_reduce_destroy(&r);
}

static void sound_tells_of_the_root_only(void **state)
{
    (void)state;
    static const struct {
        float left, right;
        int sound;
    } cases[] = {{1, 2, 1},
                 {NAN, 0, 0},
                 {0, INFINITY, 0},
                 {-INFINITY, 1, 0},
                 {INFINITY, -INFINITY, 0},
                 {0x1.fffffep63f, 0, 1},
                 {-0x1p63f, -0x1p63f, 0},
                 {0x1p64f, -0x1p64f, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lh_reduce *r = NULL;
        assert_ok(lh_reduce_create(&r, 2, 3));
        float a[3] = {0, cases[i].left, 1}, b[3] = {0, cases[i].right, 1};
        assert_ok(lh_reduce_add(r, (struct lh_tree_node){0, 0}, 0, 3, a));
        assert_ok(lh_reduce_add(r, (struct lh_tree_node){0, 1}, 0, 3, b));
        assert_int_equal(lh_reduce_sound(r), cases[i].sound);
        lh_reduce_reset(r);
        assert_true(lh_reduce_sound(r));
        lh_reduce_destroy(&r);
    }
}

static void create_and_add_survive_every_failed_allocation(void **state)
{
    (void)state;
    float *x = NULL;
    enum { BIG = 3 << 20 };
    assert_ok(LH_NEW_ARRAY(&x, BIG, "test"));
    for (uint64_t n = 1;; n++) {
        struct lh_reduce *r = NULL;
        lh_mem_fail_at(n);
        int rc = lh_reduce_create(&r, 4, BIG);
        if (rc == 0) {
            /* The first comes in many pieces, so that its runs must grow. */
            for (size_t i = 0; i < 200 && rc >= 0; i++) {
                rc = lh_reduce_add(r, (struct lh_tree_node){0, 3}, 3 * i, 1, x);
                if (rc == LH_ENOMEM)
                    assert_ok(lh_reduce_add(r, (struct lh_tree_node){0, 3}, 3 * i, 1, x));
            }
            for (uint32_t i = 0; i < 4 && rc >= 0; i++) {
                rc = lh_reduce_add(r, (struct lh_tree_node){0, i}, 0, BIG, x);
                if (rc == LH_ENOMEM)
                    assert_ok(lh_reduce_add(r, (struct lh_tree_node){0, i}, 0, BIG, x));
            }
        }
        lh_mem_fail_at(0);
        if (rc == LH_ENOMEM) {
            lh_reduce_destroy(&r);
            continue;
        }
        assert_ok(rc);
        assert_non_null(lh_reduce_root(r));
        lh_reduce_destroy(&r);
        assert_true(n > 10);
        break;
    }
    lh_mem_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(add_rounds_every_node_whoever_computed_it),
        kit_test(add_any_order_cuts_and_repeats_give_the_same_bits),
        kit_test(add_half_a_node_then_its_descendants_completes_the_root),
        kit_test(add_leaves_in_order_holds_few_buffers),
        kit_test(add_warm_allocates_nothing),
        kit_test(sound_tells_of_the_root_only),
        kit_test(create_and_add_survive_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("reduce", tests, NULL, NULL);
}
