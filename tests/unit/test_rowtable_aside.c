#include "common/err.h"
#include "common/mem.h"
#include "common/rng.h"
#include "ps/rowtable_aside.h"
#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>

enum { DIM = 3 };

static uint64_t below(struct lh_rng_at *at, uint64_t n)
{
    return lh_rng_below(at, at->step++, n);
}

/* What each row was when it was set aside, and what has become of it. */
struct row {
    uint64_t id;
    float value;
    bool aside, gone, given; /* gone: its slot was to be taken, so it was written otherwise */
    uint32_t slot;
};

struct rig {
    struct lh_rowtable_cache *cache;
    struct lh_rowtable_aside *aside;
    struct row *rows; /* by slot */
    struct lh_rng_at at;
};

static void fill(struct rig *x, uint64_t spread, unsigned part)
{
    struct lh_rowtable_cache *c = x->cache;
    for (uint32_t slot = 0; slot < c->n_slots; slot++) {
        uint64_t id;
        do
            id = below(&x->at, spread);
        while (lh_rowtable_cache_find(c, id) != LH_ROWTABLE_CACHE_NONE);
        lh_rowtable_cache_take(c, slot, id);
        c->slots[slot].updates = 1;
        x->rows[slot] =
            (struct row){.id = id, .value = (float)below(&x->at, 1 << 24), .slot = slot};
        lh_rowtable_cache_arrays(c, slot)[3 * DIM - 1] = x->rows[slot].value;
        if (below(&x->at, 100) < part) {
            lh_rowtable_cache_change(c, slot);
            x->rows[slot].aside = true;
        }
    }
}

/* A step changes some rows again, and some have to make room. Returns whether a row could not be
 * copied. */
static bool disturb(struct rig *x, uint64_t n)
{
    struct lh_rowtable_cache *c = x->cache;
    bool full = false;
    for (; n > 0; n--) {
        const uint32_t slot = (uint32_t)below(&x->at, c->n_slots);
        const bool aside = lh_rowtable_cache_is_aside(c, slot);
        if (below(&x->at, 4) == 0) {
            if (!aside)
                continue;
            lh_rowtable_cache_written(c, slot);
            lh_rowtable_cache_take(c, slot, UINT64_MAX / 2 + slot);
            x->rows[slot].gone = true;
        } else if (aside && !lh_rowtable_aside_keep(x->aside, slot)) {
            full = true;
            continue;
        }
        lh_rowtable_cache_change(c, slot);
        lh_rowtable_cache_arrays(c, slot)[3 * DIM - 1] = -1;
    }
    return full;
}

static int by_id(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void check_given(struct rig *x, const struct lh_rowtable_record *rows, size_t n,
                        struct row *sorted, uint64_t *last)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(*last == UINT64_MAX || rows[i].id > *last);
        *last = rows[i].id;
        struct row *r =
            bsearch(&(struct row){.id = rows[i].id}, sorted, x->cache->n_slots, sizeof *r, by_id);
        assert_non_null(r);
        assert_true(r->aside && !r->given);
        r->given = true;
        float value;
        memcpy(&value, (const float *)rows[i].arrays + 3 * DIM - 1, sizeof value);
        assert_true(value == r->value && rows[i].updates == 1);
    }
}

/* Whatever happens in between, rows come by id, once each, as they were; those that do not come
 * have been written when they had to go. */
static void rows_come_by_id_as_they_were(void **state)
{
    (void)state;
    size_t full = 0, kept = 0, calls = 0;
    for (unsigned round = 0; round < 24; round++) {
        struct rig x = {.at = {.seed = 9, .part = round}};
        const struct lh_rowtable_record *rows = NULL;
        uint64_t last = UINT64_MAX;
        size_t n, changed = 0;
        assert_ok(lh_rowtable_cache_create(&x.cache, round % 3 ? 9000000 : 1, DIM));
        assert_ok(lh_rowtable_aside_create(&x.aside, x.cache, round % 2 ? 200000 : 1));
        const uint32_t n_slots = x.cache->n_slots;
        x.rows = calloc(n_slots, sizeof *x.rows);
        struct row *sorted = malloc(n_slots * sizeof *sorted);
        fill(&x, round % 4 ? UINT64_MAX / 2 : 400000, round % 5 == 4 ? 1 : 70);
        lh_rowtable_cache_set_aside(x.cache);
        lh_rowtable_aside_begin(x.aside);
        memcpy(sorted, x.rows, n_slots * sizeof *sorted);
        qsort(sorted, n_slots, sizeof *sorted, by_id);
        disturb(&x, 50);
        for (; lh_rowtable_aside_look(x.aside); calls++)
            full += disturb(&x, below(&x.at, 2000));
        while ((n = lh_rowtable_aside_next(x.aside, &rows)) > 0) {
            check_given(&x, rows, n, sorted, &last);
            lh_rowtable_aside_written(x.aside);
            full += disturb(&x, below(&x.at, 200));
            calls++;
        }
        assert_int_equal(x.cache->n_aside, 0);
        for (uint32_t i = 0; i < n_slots; i++) {
            const struct row *now = &x.rows[sorted[i].slot];
            assert_int_equal(sorted[i].given, sorted[i].aside && !now->gone);
            changed += x.cache->slots[i].changed != 0;
            kept += sorted[i].given && x.cache->slots[sorted[i].slot].changed != 0;
        }
        assert_int_equal(x.cache->n_changed, changed);
        lh_rowtable_aside_destroy(&x.aside);
        lh_rowtable_cache_destroy(&x.cache);
        free(x.rows);
        free(sorted);
    }
    assert_true(full > 10 && kept > 1000 && calls > 500);
}

/* What was set aside and given up is changed like the rest, and is set aside with it again. */
static void rows_given_up_are_set_aside_again(void **state)
{
    (void)state;
    struct rig x = {.at = {.seed = 10}};
    const struct lh_rowtable_record *rows = NULL;
    size_t n, given = 0;
    assert_ok(lh_rowtable_cache_create(&x.cache, 1, DIM));
    assert_ok(lh_rowtable_aside_create(&x.aside, x.cache, 10000));
    x.rows = calloc(x.cache->n_slots, sizeof *x.rows);
    fill(&x, 1000, 100);
    for (int i = 0; i < 3; i++) {
        lh_rowtable_cache_set_aside(x.cache);
        lh_rowtable_aside_begin(x.aside);
        assert_true(lh_rowtable_aside_keep(x.aside, 5)); /* changed since */
        lh_rowtable_cache_change(x.cache, 5);
        assert_false(lh_rowtable_aside_look(x.aside));
        assert_int_equal(lh_rowtable_aside_next(x.aside, &rows), x.cache->n_slots);
        lh_rowtable_cache_rejoin(x.cache); /* the disk did not take them */
        assert_int_equal(x.cache->n_changed, x.cache->n_slots);
    }
    lh_rowtable_cache_set_aside(x.cache);
    lh_rowtable_aside_begin(x.aside);
    assert_false(lh_rowtable_aside_look(x.aside));
    while ((n = lh_rowtable_aside_next(x.aside, &rows)) > 0) {
        given += n;
        lh_rowtable_aside_written(x.aside);
    }
    assert_int_equal(given, x.cache->n_slots);
    assert_int_equal(x.cache->n_changed, 0);
    lh_rowtable_aside_destroy(&x.aside);
    lh_rowtable_cache_destroy(&x.cache);
    free(x.rows);
}

static void create_without_memory_is_refused(void **state)
{
    (void)state;
    struct lh_rowtable_cache *c = NULL;
    struct lh_rowtable_aside *a = NULL;
    uint64_t nth = 0;
    int rc;
    assert_ok(lh_rowtable_cache_create(&c, 1, DIM));
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_aside_create(&a, c, 1000);
        assert_true(rc == 0 || (rc == LH_ENOMEM && !a));
    } while (rc != 0);
    lh_mem_fail_at(0);
    assert_int_equal(nth, 8);
    assert_true(lh_rowtable_aside_bytes(a) <= 1000);
    lh_rowtable_aside_destroy(&a);
    lh_rowtable_cache_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(rows_come_by_id_as_they_were),
        kit_test(rows_given_up_are_set_aside_again),
        kit_test(create_without_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
