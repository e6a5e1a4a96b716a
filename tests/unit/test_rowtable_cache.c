#include "common/rng.h"
#include "ps/rowtable_cache.h"
#include "tests/testkit.h"

#include <string.h>

enum { DIM = 3, IDS = 500 };

static uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n);
}

static struct lh_rowtable_cache *make(size_t bytes)
{
    struct lh_rowtable_cache *c = NULL;
    assert_ok(lh_rowtable_cache_create(&c, bytes, DIM));
    return c;
}

static uint32_t put(struct lh_rowtable_cache *c, uint64_t id)
{
    const uint32_t slot = lh_rowtable_cache_victim(c);
    lh_rowtable_cache_take(c, slot, id);
    return slot;
}

static void size_is_what_fits(void **state)
{
    (void)state;
    struct lh_rowtable_cache *c = make(1);
    assert_int_equal(c->n_slots, 64);
    lh_rowtable_cache_destroy(&c);
    for (size_t bytes = 10000; bytes < 3000000; bytes = bytes * 5 / 3) {
        c = make(bytes);
        assert_true(c->bytes <= bytes && c->bytes > bytes / 10 * 8);
        lh_rowtable_cache_destroy(&c);
    }
}

/* Against an array of what must be there. Ids collide in the hash, in bunches. */
static void rows_are_found_until_their_slot_is_taken(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 3};
    struct lh_rowtable_cache *c = make(1);
    uint32_t where[IDS]; /* slot of id i, or NONE */
    size_t taken = 0;
    for (size_t i = 0; i < IDS; i++)
        where[i] = LH_ROWTABLE_CACHE_NONE;
    for (int round = 0; round < 30000; round++) {
        const uint64_t i = below(&at, IDS), id = i << 30 | i % 7;
        if (where[i] != LH_ROWTABLE_CACHE_NONE && below(&at, 3) == 0) {
            lh_rowtable_cache_forget(c, where[i]);
            where[i] = LH_ROWTABLE_CACHE_NONE;
            taken--;
        } else if (where[i] == LH_ROWTABLE_CACHE_NONE) {
            const uint32_t slot = lh_rowtable_cache_victim(c);
            assert_int_equal(slot, lh_rowtable_cache_victim(c));
            for (size_t k = 0; k < IDS; k++) {
                if (where[k] == slot) {
                    where[k] = LH_ROWTABLE_CACHE_NONE;
                    taken--;
                }
            }
            lh_rowtable_cache_take(c, slot, id);
            where[i] = slot;
            taken++;
        }
        assert_int_equal(c->n_taken, taken);
        const uint64_t k = below(&at, IDS);
        assert_int_equal(lh_rowtable_cache_find(c, k << 30 | k % 7), where[k]);
    }
    lh_rowtable_cache_clear(c);
    for (uint64_t i = 0; i < IDS; i++)
        assert_int_equal(lh_rowtable_cache_find(c, i << 30 | i % 7), LH_ROWTABLE_CACHE_NONE);
    lh_rowtable_cache_destroy(&c);
}

static void what_is_used_again_stays_longest(void **state)
{
    (void)state;
    struct lh_rowtable_cache *c = make(1);
    for (uint64_t id = 0; id < 64; id++)
        put(c, id);
    for (uint64_t id = 0; id < 64; id += 2)
        assert_int_equal(lh_rowtable_cache_find(c, id), id);
    for (uint64_t id = 100; id < 132; id++)
        put(c, id);
    for (uint64_t id = 0; id < 64; id++)
        assert_int_equal(lh_rowtable_cache_find(c, id) == LH_ROWTABLE_CACHE_NONE, id % 2);
    lh_rowtable_cache_destroy(&c);
}

static void changed_rows_are_listed_by_id_the_victim_among_them(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 4};
    for (int round = 0; round < 60; round++) {
        struct lh_rowtable_cache *c = make(round % 2 ? 1 : 400000);
        const uint64_t spread = below(&at, 3) ? UINT64_MAX : 100000; /* ids of few bytes, of many */
        size_t changed = 0;
        for (uint32_t i = 0; i < 3 * c->n_slots / 2; i++) {
            const uint32_t slot = lh_rowtable_cache_victim(c);
            if (c->slots[slot].changed) {
                const size_t n = lh_rowtable_cache_changed(c);
                bool listed = false;
                assert_true(n > 0 && n <= LH_ROWTABLE_CACHE_GOING);
                for (size_t k = 0; k < n; k++) {
                    const struct lh_rowtable_entry *e = &c->going[k];
                    listed |= e->slot == slot;
                    assert_true(k == 0 || c->going[k - 1].id < e->id);
                    assert_true(c->slots[e->slot].changed && c->slots[e->slot].id == e->id);
                    lh_rowtable_cache_written(c, e->slot);
                }
                assert_true(listed);
                changed -= n;
            }
            uint64_t id;
            do
                id = below(&at, spread);
            while (lh_rowtable_cache_find(c, id) != LH_ROWTABLE_CACHE_NONE);
            lh_rowtable_cache_take(c, slot, id);
            if (below(&at, 2)) {
                lh_rowtable_cache_change(c, slot);
                lh_rowtable_cache_change(c, slot);
                changed++;
            }
            assert_int_equal(c->n_changed, changed);
        }
        lh_rowtable_cache_destroy(&c);
    }
}

static void create_without_memory_is_refused(void **state)
{
    (void)state;
    struct lh_rowtable_cache *c = NULL;
    uint64_t nth = 0;
    int rc;
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_cache_create(&c, 10000, DIM);
        assert_true(rc == 0 || (rc == LH_ENOMEM && !c));
    } while (rc != 0);
    lh_mem_fail_at(0);
    assert_int_equal(nth, 7);
    lh_rowtable_cache_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(size_is_what_fits),
        kit_test(rows_are_found_until_their_slot_is_taken),
        kit_test(what_is_used_again_stays_longest),
        kit_test(changed_rows_are_listed_by_id_the_victim_among_them),
        kit_test(create_without_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
