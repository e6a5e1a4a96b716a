#include "common/idset.h"

#include "common/rng.h"
#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void make_sorts_and_drops_repetitions(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 47, 48, 49, 1000, 5000};
    static const unsigned bits[] = {1, 8, 13, 40, 64};
    uint64_t ids[5000], want[5000], scratch[5000];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t b = 0; b < sizeof bits / sizeof *bits; b++) {
            const size_t n = sizes[s];
            const struct lh_rng_at at = {.seed = s, .part = (uint32_t)b};
            size_t m = 0;
            for (size_t i = 0; i < n; i++)
                want[i] = ids[i] = lh_rng_u64(&at, i) >> (64 - bits[b])
                                                             << (s % 2 ? 0 : 64 - bits[b]);
            qsort(want, n, sizeof *want, compare);
            for (size_t i = 0; i < n; i++)
                if (i == 0 || want[i] != want[i - 1])
                    want[m++] = want[i];
            assert_int_equal(lh_idset_make(ids, n, scratch), m);
            assert_memory_equal(ids, want, m * sizeof *ids);
            for (size_t i = 0; i < m; i++)
                assert_int_equal(lh_idset_find(ids, m, want[i]), i);
            if (m > 0 && want[m - 1] < UINT64_MAX)
                assert_true(lh_idset_find(ids, m, want[m - 1] + 1) == SIZE_MAX);
            if (m > 0 && want[0] > 0)
                assert_true(lh_idset_find(ids, m, want[0] - 1) == SIZE_MAX);
        }
    assert_true(lh_idset_find(ids, 0, 5) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(make_sorts_and_drops_repetitions),
    };
    return cmocka_run_group_tests_name("idset", tests, NULL, NULL);
}
