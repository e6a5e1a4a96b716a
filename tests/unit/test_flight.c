/* Steps under way: who gets which, what is in, each exactly once. */
#include "ps/flight.h"

#include "ps/reduce.h"
#include "ps/rowtable_reduce.h"
#include "tests/testkit.h"

#include <string.h>

enum { SIZE = 8 };

static const struct lh_net_peer peers[] = {
    {0}, {.size = 1, .id = {1}}, {.size = 1, .id = {2}}, {.size = 1, .id = {3}}};
static const float ones[SIZE] = {1, 1, 1, 1, 1, 1, 1, 1};

static uint64_t requests, last[4]; /* last: of each worker */

static struct lh_flight_claim claim(uint32_t worker)
{
    return (struct lh_flight_claim){worker, last[worker], peers[worker]};
}

static uint64_t late(struct lh_flight *f, uint32_t worker, double now)
{
    const struct lh_flight_claim who = {worker, ++requests, peers[worker]};
    return lh_flight_late(f, &who, 10, now);
}

static struct lh_flight *flight_at(uint64_t version)
{
    struct lh_flight *f = NULL;
    assert_ok(lh_flight_create(&f, SIZE));
    lh_flight_reset(f, version);
    return f;
}

static int give(struct lh_flight *f, uint64_t step, uint32_t worker, double now)
{
    last[worker] = ++requests;
    const struct lh_flight_claim to = claim(worker);
    return lh_flight_give(f, step, &to, now);
}

/* A worker asks and is given; returns the step. */
static uint64_t ask(struct lh_flight *f, uint32_t worker, double now)
{
    uint64_t step = lh_flight_choose(f, worker, 100);
    assert_true(step != LH_FLIGHT_NONE);
    assert_ok(give(f, step, worker, now));
    return step;
}

static int add(struct lh_flight *f, uint64_t step, uint32_t worker, size_t first, size_t n,
               const float *x)
{
    const struct lh_flight_claim of = claim(worker);
    return lh_flight_add(f, step, &of, first, n, x + first);
}

static void push(struct lh_flight *f, uint64_t step, uint32_t worker)
{
    struct lh_flight_sum sum;
    assert_ok(add(f, step, worker, 0, SIZE, ones));
    assert_true(lh_flight_next(f, &sum));
}

static void assert_next(struct lh_flight *f, uint64_t step, const float *x)
{
    struct lh_flight_sum sum;
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.step, step);
    assert_memory_equal(lh_reduce_root(sum.tree), x, SIZE * sizeof *x);
}

static void assert_no_next(struct lh_flight *f)
{
    struct lh_flight_sum sum;
    assert_false(lh_flight_next(f, &sum));
}

static void choose_gives_steps_in_order_and_each_worker_its_own_again(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(7);
    assert_int_equal(lh_flight_low(f), 7);
    assert_int_equal(ask(f, 1, 0), 7);
    assert_int_equal(ask(f, 2, 0), 8);
    assert_int_equal(ask(f, 1, 0), 7); /* the answer was lost */
    assert_int_equal(lh_flight_high(f), 9);
    push(f, 7, 1);
    assert_int_equal(lh_flight_choose(f, 1, 100), 9); /* what it had is whole, if not applied yet */
    assert_int_equal(lh_flight_choose(f, 3, 9), LH_FLIGHT_NONE);
    assert_int_equal(lh_flight_choose(f, 3, 10), 9);
    lh_flight_destroy(&f);
    lh_flight_destroy(&f);
}

static void step_of_a_lost_worker_is_given_before_new_ones(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    for (uint32_t w = 1; w <= 3; w++)
        assert_int_equal(ask(f, w, 0), w - 1);
    assert_ok(add(f, 1, 2, 0, 3, ones)); /* it died while it sent */
    lh_flight_lose(f, 2);
    assert_int_equal(lh_flight_choose(f, 2, 1), 1); /* also where no new one may begin */
    push(f, 2, 3);
    lh_flight_done(f, 2);
    assert_int_equal(ask(f, 3, 0), 1);
    push(f, 1, 3);
    assert_next(f, 1, ones);
    lh_flight_destroy(&f);
}

static void step_is_taken_once_in_pieces_in_any_order(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    float x[SIZE] = {1, 2, 3, 4, 5, 6, 7, 8}, other[SIZE] = {9, 9, 9, 9, 9, 9, 9, 9};
    ask(f, 1, 0);
    ask(f, 2, 0);
    assert_ok(add(f, 1, 2, 4, 4, x));
    assert_ok(add(f, 0, 1, 0, SIZE, ones));
    assert_int_equal(add(f, 1, 2, 4, 4, other), LH_AGAIN);
    assert_ok(add(f, 1, 2, 0, SIZE, x)); /* half of it is known */
    assert_next(f, 0, ones);
    lh_flight_done(f, 0);
    assert_next(f, 1, x);
    lh_flight_done(f, 1);
    assert_no_next(f);
    assert_int_equal(lh_flight_low(f), 2);
    assert_int_equal(add(f, 0, 1, 0, SIZE, ones), LH_AGAIN);
    assert_int_equal(add(f, 1, 2, 0, SIZE, ones), LH_AGAIN);
    assert_int_equal(give(f, 1, 3, 0), LH_AGAIN);
    lh_flight_destroy(&f);
}

static void sum_of_a_step_is_one_claims_whoever_else_computes_it(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    const float a[SIZE] = {1, 1, 1, 1, 1, 1, 1, 1}, b[SIZE] = {2, 2, 2, 2, 2, 2, 2, 2};
    ask(f, 1, 0);
    assert_ok(add(f, 0, 1, 0, 6, a));
    assert_ok(give(f, 0, 2, 1)); /* the first is late */
    assert_ok(add(f, 0, 2, 4, 4, b));
    assert_no_next(f);
    assert_ok(add(f, 0, 2, 0, 4, b));
    assert_next(f, 0, b);
    assert_ok(add(f, 0, 1, 6, 2, a));
    lh_flight_done(f, 0);
    assert_int_equal(lh_flight_low(f), 1);
    assert_no_next(f);
    lh_flight_destroy(&f);
}

/* Its connection broke: what it sent before is of other weights. */
static void claim_of_a_worker_that_asks_again_begins_anew(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    const float b[SIZE] = {2, 2, 2, 2, 2, 2, 2, 2};
    ask(f, 1, 0);
    const struct lh_flight_claim old = claim(1);
    assert_ok(add(f, 0, 1, 0, 5, ones));
    assert_int_equal(ask(f, 1, 0), 0);
    assert_int_equal(lh_flight_add(f, 0, &old, 5, 3, ones), LH_AGAIN);
    assert_ok(add(f, 0, 1, 0, SIZE, b));
    assert_next(f, 0, b);
    lh_flight_destroy(&f);
}

/* Messages of a connection come in order: so what it sent of the step before was lost. */
static void step_whose_worker_has_another_is_lost(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    ask(f, 1, 0);
    assert_ok(add(f, 0, 1, 0, 5, ones));
    assert_false(lh_flight_owes(f, 1, 0));
    assert_true(lh_flight_owes(f, 1, 1));
    assert_false(lh_flight_owes(f, 2, 1));
    assert_ok(give(f, 1, 1, 0));
    assert_false(lh_flight_owes(f, 1, 1));
    assert_int_equal(lh_flight_choose(f, 2, 1), 0);
    assert_int_equal(late(f, 2, 1), 0);
    assert_ok(give(f, 0, 2, 1));
    /* likewise who calls itself by another number */
    assert_ok(lh_flight_give(f, 2, &(struct lh_flight_claim){9, ++requests, peers[2]}, 1));
    assert_int_equal(lh_flight_choose(f, 3, 1), 0);
    /* but not where another has it too */
    assert_ok(give(f, 0, 2, 2));
    assert_ok(give(f, 0, 3, 2));
    assert_ok(give(f, 3, 2, 2));
    assert_int_equal(lh_flight_choose(f, 8, 1), 2); /* of the one of two numbers */
    lh_flight_destroy(&f);
}

static void steps_in_any_order_are_counted_as_lacking_until_they_are_in(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(10);
    struct lh_flight_sum sum;
    for (uint32_t w = 1; w <= 3; w++)
        ask(f, w, 0); /* 10, 11, 12 */
    push(f, 12, 3);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.lacked, 2);
    lh_flight_done(f, 12);
    push(f, 11, 2);
    lh_flight_done(f, 11);
    assert_int_equal(lh_flight_low(f), 10);
    assert_int_equal(lh_flight_lacking(f, 10), 0);
    assert_int_equal(lh_flight_lacking(f, 13), 1);
    assert_int_equal(lh_flight_lacking(f, 20), 8);
    assert_int_equal(ask(f, 3, 0), 13);
    push(f, 13, 3);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.lacked, 1);
    lh_flight_destroy(&f);
}

static void late_gives_what_is_old_or_nobodys_or_was_lost_on_the_way(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    ask(f, 1, 0);
    ask(f, 2, 6);
    const struct lh_flight_claim two = claim(2);
    assert_int_equal(lh_flight_late(f, &two, 10, 9), LH_FLIGHT_NONE); /* it waits for just that */
    assert_int_equal(late(f, 3, 9), LH_FLIGHT_NONE);
    assert_int_equal(late(f, 2, 9), 1); /* it waits for another: what it sent was lost */
    assert_int_equal(late(f, 3, 11), 0);
    assert_int_equal(late(f, 3, 12), LH_FLIGHT_NONE); /* told anew */
    lh_flight_lose(f, 1);
    assert_int_equal(late(f, 3, 12), 0);
    assert_ok(give(f, 0, 3, 12));
    push(f, 0, 3);
    lh_flight_lose(f, 2);
    lh_flight_lose(f, 3); /* it is all there */
    assert_int_equal(late(f, 3, 12), 1);
    assert_ok(give(f, 1, 3, 12));
    push(f, 1, 3);
    assert_ok(give(f, 3, 1, 12)); /* before 2 was heard of here */
    assert_int_equal(late(f, 3, 20), LH_FLIGHT_NONE);
    assert_int_equal(late(f, 3, 31), 2);
    lh_flight_destroy(&f);
}

static void rivals_are_those_who_compute_a_step_that_is_whole(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    struct lh_flight_sum sum;
    for (uint32_t w = 1; w <= 3; w++)
        assert_ok(give(f, 0, w, 0));
    push(f, 0, 2);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.worker, 2);
    assert_int_equal(sum.given, 3);
    unsigned told = 0;
    for (size_t i = 0; lh_flight_rival(f, &sum, i); i++)
        told |= 1u << lh_flight_rival(f, &sum, i)->id[0];
    assert_int_equal(told, 1u << 1 | 1u << 3);
    lh_flight_destroy(&f);
}

static void step_that_nobody_was_given_is_refused_and_nothing_grows(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(5);
    assert_err(add(f, UINT64_MAX - 1, 1, 0, SIZE, ones), LH_EPROTO, "nobody was given");
    assert_err(add(f, 5, 1, 0, SIZE, ones), LH_EPROTO, "nobody was given");
    assert_err(give(f, 5 + LH_FLIGHT_AHEAD, 1, 0), LH_EPROTO, "is the next");
    assert_int_equal(lh_flight_high(f), 5);
    assert_ok(give(f, 9, 1, 0)); /* of a shard that gives no steps itself */
    assert_int_equal(lh_flight_high(f), 10);
    assert_int_equal(lh_flight_low(f), 5);
    assert_int_equal(add(f, 7, 1, 0, SIZE, ones), LH_AGAIN);
    assert_int_equal(add(f, 9, 2, 0, SIZE, ones), LH_AGAIN);
    lh_flight_destroy(&f);
}

static void warm_steps_allocate_nothing(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    uint64_t before = 0;
    for (int i = 0; i < 20; i++) {
        uint64_t a = ask(f, 1, i), b = ask(f, 2, i);
        push(f, b, 2);
        push(f, a, 1);
        lh_flight_done(f, b);
        lh_flight_done(f, a);
        if (i == 9)
            before = lh_mem_count();
    }
    assert_int_equal(lh_mem_count(), before);
    lh_flight_destroy(&f);
}

static void allocations_that_fail_leave_nothing_half_done(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct lh_flight *f = NULL;
        lh_mem_fail_at(nth);
        int rc = lh_flight_create(&f, SIZE), given = rc, added = rc;
        if (rc == 0) {
            given = give(f, 90, 1, 0);
            if (given < 0)
                assert_ok(give(f, 90, 1, 0));
            added = add(f, 90, 1, 0, SIZE, ones);
            if (added < 0)
                assert_ok(add(f, 90, 1, 0, SIZE, ones));
        }
        lh_mem_fail_at(0);
        lh_flight_destroy(&f);
        if (given == 0 && added == 0)
            break;
        assert_int_equal(given < 0 ? given : added, LH_ENOMEM);
    }
}

/* One element each of many steps: memory for all of each would be taken. */
static void worker_has_memory_of_one_step_that_it_does_not_end(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    uint64_t before = 0;
    for (uint64_t step = 0; step < 40; step++) {
        assert_ok(give(f, step, 1, 0));
        assert_ok(add(f, step, 1, 0, 1, ones));
        if (step == 0)
            before = lh_mem_count();
    }
    assert_int_equal(lh_mem_count(), before);
    lh_flight_destroy(&f);
}

/* --- rows beside the sum -------------------------------------------------------------------------
 */
enum { TABLES = 2, DIM = 2, IDS = 4 };

static struct lh_flight *flight_with_tables(void)
{
    static const uint32_t dim[] = {DIM, DIM};
    static const size_t most[] = {IDS, IDS};
    struct lh_flight *f = flight_at(0);
    lh_flight_tables(f, dim, most, TABLES);
    return f;
}

/* `n` rows of a worker's sum, from the first of `total`; their elements are its number. */
static int add_rows(struct lh_flight *f, uint64_t step, uint32_t worker, size_t table, uint64_t n,
                    uint64_t total)
{
    static const uint64_t ids[IDS] = {2, 3, 5, 7};
    float values[IDS * DIM];
    const struct lh_flight_claim of = claim(worker);
    for (size_t i = 0; i < IDS * DIM; i++)
        values[i] = (float)worker;
    return lh_flight_add_rows(
        f, step, &of, table,
        &(struct lh_rowtable_piece){.total = total, .n = n, .ids = ids, .values = values});
}

static void push_all(struct lh_flight *f, uint64_t step, uint32_t worker)
{
    assert_ok(add(f, step, worker, 0, SIZE, ones));
    for (size_t k = 0; k < TABLES; k++)
        assert_ok(add_rows(f, step, worker, k, IDS, IDS));
}

static void sum_is_whole_when_the_rows_of_all_tables_are(void **state)
{
    (void)state;
    struct lh_flight *f = flight_with_tables();
    struct lh_flight_sum sum;
    for (uint64_t round = 0; round < 3; round++) { /* sums are used again */
        assert_int_equal(ask(f, 1, 0), round);
        assert_ok(add(f, round, 1, 0, SIZE, ones));
        assert_false(lh_flight_next(f, &sum));
        assert_true(lh_flight_owes(f, 1, round + 1));
        assert_ok(add_rows(f, round, 1, 1, 0, 0)); /* no rows */
        assert_ok(add_rows(f, round, 1, 0, 1, IDS));
        assert_false(lh_flight_next(f, &sum));
        assert_ok(add_rows(f, round, 1, 0, IDS, IDS));
        assert_true(lh_flight_next(f, &sum));
        assert_int_equal(lh_rowtable_reduce_root(sum.rows[0])->n, IDS);
        assert_int_equal(lh_rowtable_reduce_root(sum.rows[1])->n, 0);
        assert_int_equal(add_rows(f, round, 1, 0, IDS, IDS), LH_AGAIN);
        lh_flight_done(f, round);
        assert_int_equal(add_rows(f, round, 1, 0, IDS, IDS), LH_AGAIN); /* the claim has ended */
    }
    assert_err(add_rows(f, 9, 1, 0, IDS, IDS), LH_EPROTO, "nobody was given");
    lh_flight_destroy(&f);
}

static void rows_of_two_claims_are_not_mixed(void **state)
{
    (void)state;
    struct lh_flight *f = flight_with_tables();
    struct lh_flight_sum sum;
    assert_int_equal(ask(f, 1, 0), 0);
    assert_ok(give(f, 0, 2, 0));
    assert_ok(add(f, 0, 1, 0, SIZE, ones));
    assert_ok(add_rows(f, 0, 1, 0, IDS, IDS));
    assert_ok(add_rows(f, 0, 2, 1, IDS, IDS));
    assert_false(lh_flight_next(f, &sum));
    assert_ok(add(f, 0, 2, 0, SIZE, ones));
    assert_ok(add_rows(f, 0, 2, 0, IDS, IDS));
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.worker, 2);
    for (size_t k = 0; k < TABLES; k++)
        assert_true(lh_rowtable_reduce_root(sum.rows[k])->values[0] == 2);
    lh_flight_destroy(&f);
}

/* Its rows are applied one by one, and a disk may be full in between. */
static void sum_that_has_begun_stays_the_next_until_it_is_done(void **state)
{
    (void)state;
    struct lh_flight *f = flight_with_tables();
    struct lh_flight_sum sum;
    assert_int_equal(ask(f, 1, 0), 0);
    assert_int_equal(ask(f, 2, 0), 1);
    assert_ok(give(f, 1, 3, 0));
    push_all(f, 1, 3);
    assert_true(lh_flight_next(f, &sum));
    lh_flight_begin(f, &sum);
    push_all(f, 1, 2); /* a claim before it, and a step before it */
    push_all(f, 0, 1);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.step, 1);
    assert_int_equal(sum.worker, 3);
    lh_flight_lose(f, 3);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.worker, 3);
    lh_flight_done(f, 1);
    assert_true(lh_flight_next(f, &sum));
    assert_int_equal(sum.step, 0);
    lh_flight_destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(sum_is_whole_when_the_rows_of_all_tables_are),
        kit_test(rows_of_two_claims_are_not_mixed),
        kit_test(sum_that_has_begun_stays_the_next_until_it_is_done),
        kit_test(choose_gives_steps_in_order_and_each_worker_its_own_again),
        kit_test(step_of_a_lost_worker_is_given_before_new_ones),
        kit_test(step_is_taken_once_in_pieces_in_any_order),
        kit_test(sum_of_a_step_is_one_claims_whoever_else_computes_it),
        kit_test(claim_of_a_worker_that_asks_again_begins_anew),
        kit_test(step_whose_worker_has_another_is_lost),
        kit_test(steps_in_any_order_are_counted_as_lacking_until_they_are_in),
        kit_test(late_gives_what_is_old_or_nobodys_or_was_lost_on_the_way),
        kit_test(rivals_are_those_who_compute_a_step_that_is_whole),
        kit_test(step_that_nobody_was_given_is_refused_and_nothing_grows),
        kit_test(warm_steps_allocate_nothing),
        kit_test(allocations_that_fail_leave_nothing_half_done),
        kit_test(worker_has_memory_of_one_step_that_it_does_not_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
