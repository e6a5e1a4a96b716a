#include "common/rng.h"
#include "common/rowlist.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

enum { N = 300, DIM_MAX = 5 };

static uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n);
}

/* Ascending ids: close together, or anywhere. */
static size_t draw_ids(struct lh_rng_at *at, uint64_t *ids, size_t most)
{
    const size_t n = below(at, most + 1);
    const uint64_t step = below(at, 2) ? 3 : (uint64_t)1 << 40;
    uint64_t id = below(at, 2) ? 0 : below(at, (uint64_t)1 << 60);
    for (size_t i = 0; i < n; i++)
        ids[i] = id += below(at, step) + 1;
    return n;
}

static void split_deals_every_id_once_to_its_shard_in_order(void **state)
{
    (void)state;
    uint64_t ids[N];
    uint32_t place[N];
    size_t first[41];
    for (uint32_t round = 0; round < 2000; round++) {
        struct lh_rng_at at = {.seed = 5, .part = round};
        const size_t n = draw_ids(&at, ids, N);
        const uint32_t shards = (uint32_t)below(&at, 40) + 1;
        int dealt[N] = {0};
        lh_rowlist_split(ids, n, shards, place, first);
        assert_int_equal(first[0], 0);
        assert_int_equal(first[shards], n);
        for (uint32_t s = 0; s < shards; s++) {
            assert_true(first[s] <= first[s + 1]);
            for (size_t i = first[s]; i < first[s + 1]; i++) {
                assert_true(place[i] < n);
                assert_int_equal(dealt[place[i]]++, 0);
                assert_int_equal(lh_rowlist_shard(ids[place[i]], shards), s);
                assert_true(i == first[s] || place[i - 1] < place[i]);
            }
        }
    }
}

static void shard_is_the_same_for_ever_and_spreads_neighbours(void **state)
{
    (void)state;
    /* By Python: the finaliser of splitmix64, times the shards, over 2^64. */
    static const struct {
        uint64_t id;
        uint32_t of[4]; /* of 2, 3, 7, 1000 */
    } known[] = {
        {0, {1, 2, 6, 883}},
        {1, {1, 1, 3, 566}},
        {42, {1, 2, 5, 741}},
        {UINT64_MAX, {1, 2, 6, 893}},
        {(uint64_t)1 << 63, {0, 0, 1, 281}},
    };
    static const uint32_t shards[] = {2, 3, 7, 1000};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(lh_rowlist_shard(known[i].id, shards[k]), known[i].of[k]);
        assert_int_equal(lh_rowlist_shard(known[i].id, 1), 0);
    }
    size_t count[8] = {0};
    for (uint64_t id = 1000; id < 9000; id++)
        count[lh_rowlist_shard(id, 8)]++;
    for (size_t i = 0; i < 8; i++) /* 1000 each, sd 30 */
        assert_in_range(count[i], 850, 1150);
}

/* a + b by the definition. */
static size_t add_naively(const struct lh_rowlist *a, const struct lh_rowlist *b, uint32_t dim,
                          uint64_t *ids, float *values)
{
    size_t n = 0;
    for (size_t k = 0; k < a->n + b->n; k++) {
        const uint64_t id = k < a->n ? a->ids[k] : b->ids[k - a->n];
        size_t at = 0;
        while (at < n && ids[at] < id)
            at++;
        if (at < n && ids[at] == id)
            continue;
        memmove(ids + at + 1, ids + at, (n - at) * sizeof *ids);
        ids[at] = id;
        n++;
    }
    for (size_t k = 0; k < n; k++) {
        const float *x = NULL, *y = NULL;
        for (size_t i = 0; i < a->n; i++)
            x = a->ids[i] == ids[k] ? a->values + i * dim : x;
        for (size_t i = 0; i < b->n; i++)
            y = b->ids[i] == ids[k] ? b->values + i * dim : y;
        for (uint32_t c = 0; c < dim; c++)
            values[k * dim + c] = x && y ? x[c] + y[c] : x ? x[c] : y[c];
    }
    return n;
}

static void add_has_the_rows_of_both_and_sums_what_both_have(void **state)
{
    (void)state;
    static uint64_t ids[4][2 * N];
    static float values[4][2 * N * DIM_MAX];
    for (uint32_t round = 0; round < 2000; round++) {
        struct lh_rng_at at = {.seed = 6, .part = round};
        const uint32_t dim = (uint32_t)below(&at, DIM_MAX) + 1;
        struct lh_rowlist list[2];
        for (int i = 0; i < 2; i++) {
            list[i] = (struct lh_rowlist){draw_ids(&at, ids[i], N / 4), ids[i], values[i]};
            lh_rng_normal(&(struct lh_rng_at){.seed = round, .part = (uint32_t)i}, values[i],
                          list[i].n * dim);
        }
        const size_t n = lh_rowlist_add(&list[0], &list[1], dim, ids[2], values[2]);
        assert_int_equal(n, add_naively(&list[0], &list[1], dim, ids[3], values[3]));
        assert_memory_equal(ids[2], ids[3], n * sizeof **ids);
        assert_memory_equal(values[2], values[3], n * dim * sizeof **values);
        assert_true(lh_rowlist_ascends(ids[2], n));
    }
}

static void add_takes_a_row_of_one_side_bit_by_bit(void **state)
{
    (void)state;
    const uint64_t left[] = {1, 5}, right[] = {5, 9};
    const float x[] = {-0.0f, NAN, -0.0f, 2}, y[] = {-0.0f, 3, INFINITY, -0.0f};
    uint64_t ids[4];
    float out[8];
    const struct lh_rowlist a = {2, left, x}, b = {2, right, y}, none = {0};
    assert_int_equal(lh_rowlist_add(&a, &b, 2, ids, out), 3);
    const float want[] = {-0.0f, NAN, -0.0f, 5, INFINITY, -0.0f};
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(lh_rowlist_add(&none, &a, 2, ids, out), 2);
    assert_memory_equal(out, x, sizeof x);
    assert_int_equal(lh_rowlist_add(&a, &none, 2, ids, out), 2);
    assert_memory_equal(out, x, sizeof x);
    assert_int_equal(lh_rowlist_add(&none, &none, 2, ids, out), 0);
}

static void ascends_sees_repetition_and_descent_at_any_address(void **state)
{
    (void)state;
    unsigned char frame[4 * 8 + 1];
    const uint64_t fine[] = {0, 1, 7, UINT64_MAX}, again[] = {0, 7, 7, 9}, down[] = {0, 7, 6, 9};
    assert_true(lh_rowlist_ascends(fine, 0) && lh_rowlist_ascends(fine, 1));
    memcpy(frame + 1, fine, sizeof fine);
    assert_true(lh_rowlist_ascends(frame + 1, 4));
    memcpy(frame + 1, again, sizeof again);
    assert_false(lh_rowlist_ascends(frame + 1, 4));
    memcpy(frame + 1, down, sizeof down);
    assert_false(lh_rowlist_ascends(frame + 1, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(split_deals_every_id_once_to_its_shard_in_order),
        kit_test(shard_is_the_same_for_ever_and_spreads_neighbours),
        kit_test(add_has_the_rows_of_both_and_sums_what_both_have),
        kit_test(add_takes_a_row_of_one_side_bit_by_bit),
        kit_test(ascends_sees_repetition_and_descent_at_any_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
