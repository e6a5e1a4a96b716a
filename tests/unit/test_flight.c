/* Steps under way: who gets which, what is in, each exactly once. */
#include "ps/flight.h"

#include "ps/reduce.h"
#include "tests/testkit.h"

#include <string.h>

enum { SIZE = 8 };

static const struct lh_net_peer peers[] = {
    {0}, {.size = 1, .id = {1}}, {.size = 1, .id = {2}}, {.size = 1, .id = {3}}};
static const float ones[SIZE] = {1, 1, 1, 1, 1, 1, 1, 1};

static uint64_t requests;

static uint64_t late(struct lh_flight *f, uint32_t worker, double now)
{
    const struct lh_flight_asker who = {worker, ++requests, peers[worker]};
    return lh_flight_late(f, &who, 10, now);
}

static struct lh_flight *flight_at(uint64_t version)
{
    struct lh_flight *f = NULL;
    assert_ok(lh_flight_create(&f, SIZE));
    lh_flight_reset(f, version);
    return f;
}

/* A worker asks and is given; returns the step. */
static uint64_t ask(struct lh_flight *f, uint32_t worker, double now)
{
    uint64_t step = lh_flight_choose(f, worker, 100);
    assert_true(step != LH_FLIGHT_NONE);
    const struct lh_flight_asker to = {worker, ++requests, peers[worker]};
    assert_ok(lh_flight_give(f, step, &to, now));
    return step;
}

static void push(struct lh_flight *f, uint64_t step)
{
    assert_ok(lh_flight_add(f, step, 0, SIZE, ones));
    assert_non_null(lh_flight_next(f));
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
    push(f, 7);
    assert_int_equal(ask(f, 1, 0), 9); /* what it had is whole, though not applied yet */
    assert_int_equal(lh_flight_choose(f, 3, 10), LH_FLIGHT_NONE);
    assert_int_equal(lh_flight_choose(f, 3, 11), 10);
    lh_flight_destroy(&f);
    lh_flight_destroy(&f);
}

static void step_of_a_lost_worker_is_given_before_new_ones(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    for (uint32_t w = 1; w <= 3; w++)
        assert_int_equal(ask(f, w, 0), w - 1);
    assert_ok(lh_flight_add(f, 1, 0, 3, ones)); /* it died while it sent */
    lh_flight_lose(f, 2);
    assert_int_equal(lh_flight_choose(f, 2, 1), 1); /* also where no new one may begin */
    push(f, 2);
    assert_int_equal(ask(f, 3, 0), 1);
    push(f, 1);
    assert_int_equal(lh_flight_next(f)->step, 1);
    lh_flight_destroy(&f);
}

static void step_is_taken_once_in_pieces_in_any_order(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    float x[SIZE] = {1, 2, 3, 4, 5, 6, 7, 8}, other[SIZE] = {9, 9, 9, 9, 9, 9, 9, 9};
    ask(f, 1, 0);
    ask(f, 2, 0);
    assert_ok(lh_flight_add(f, 1, 4, 4, x + 4));
    assert_ok(lh_flight_add(f, 0, 0, SIZE, ones));
    assert_int_equal(lh_flight_add(f, 1, 4, 4, other), LH_AGAIN);
    assert_ok(lh_flight_add(f, 1, 0, SIZE, x)); /* half of it is known */
    assert_int_equal(lh_flight_next(f)->step, 0);
    lh_flight_done(f, 0);
    assert_int_equal(lh_flight_next(f)->step, 1);
    assert_memory_equal(lh_reduce_root(lh_flight_next(f)->tree), x, sizeof x);
    lh_flight_done(f, 1);
    assert_null(lh_flight_next(f));
    assert_int_equal(lh_flight_low(f), 2);
    assert_int_equal(lh_flight_add(f, 0, 0, SIZE, ones), LH_AGAIN);
    assert_int_equal(lh_flight_add(f, 1, 0, SIZE, ones), LH_AGAIN);
    assert_int_equal(lh_flight_give(f, 1, &(struct lh_flight_asker){3, 9, peers[3]}, 0), LH_AGAIN);
    lh_flight_destroy(&f);
}

static void steps_in_any_order_are_counted_as_lacking_until_they_are_in(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(10);
    for (uint32_t w = 1; w <= 3; w++)
        ask(f, w, 0); /* 10, 11, 12 */
    assert_int_equal(lh_flight_find(f, 12)->lacked, 2);
    push(f, 12);
    lh_flight_done(f, 12);
    push(f, 11);
    lh_flight_done(f, 11);
    assert_int_equal(lh_flight_low(f), 10);
    assert_int_equal(lh_flight_lacking(f, 10), 0);
    assert_int_equal(lh_flight_lacking(f, 13), 1);
    assert_int_equal(lh_flight_lacking(f, 20), 8);
    assert_null(lh_flight_find(f, 11));
    ask(f, 3, 0);
    assert_int_equal(lh_flight_find(f, 13)->lacked, 1);
    lh_flight_destroy(&f);
}

static void late_gives_what_is_old_or_nobodys_or_was_lost_on_the_way(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    ask(f, 1, 0);
    ask(f, 2, 6);
    const struct lh_flight_asker two = {2, requests, peers[2]};
    assert_int_equal(lh_flight_late(f, &two, 10, 9), LH_FLIGHT_NONE); /* it waits for just that */
    assert_int_equal(late(f, 3, 9), LH_FLIGHT_NONE);
    assert_int_equal(late(f, 2, 9), 1); /* it waits for another: what it sent was lost */
    assert_int_equal(late(f, 3, 11), 0);
    assert_int_equal(late(f, 3, 12), LH_FLIGHT_NONE); /* given anew */
    lh_flight_lose(f, 1);
    assert_int_equal(late(f, 3, 12), 0);
    push(f, 0);
    lh_flight_lose(f, 2);
    assert_int_equal(late(f, 3, 12), 1);
    push(f, 1);
    assert_ok(lh_flight_add(f, 3, 0, SIZE, ones)); /* before 2 was heard of here */
    assert_int_equal(late(f, 3, 20), LH_FLIGHT_NONE);
    assert_int_equal(late(f, 3, 31), 2);
    lh_flight_destroy(&f);
}

static void first_holder_is_remembered(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    ask(f, 1, 0);
    assert_ok(lh_flight_give(f, 0, &(struct lh_flight_asker){2, 9, peers[2]}, 1));
    assert_int_equal(lh_flight_find(f, 0)->holder, 2);
    assert_int_equal(lh_flight_find(f, 0)->given, 2);
    assert_int_equal(lh_flight_find(f, 0)->first.id[0], 1);
    lh_flight_destroy(&f);
}

static void step_far_ahead_is_refused_and_nothing_grows(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(5);
    assert_err(lh_flight_add(f, UINT64_MAX - 1, 0, SIZE, ones), LH_EPROTO, "is the next");
    assert_err(lh_flight_give(f, 5 + LH_FLIGHT_AHEAD, &(struct lh_flight_asker){1, 9, peers[1]}, 0),
               LH_EPROTO, "is the next");
    assert_int_equal(lh_flight_high(f), 5);
    assert_ok(lh_flight_give(f, 9, &(struct lh_flight_asker){1, 9, peers[1]},
                             0)); /* of a shard that gives no steps itself */
    assert_int_equal(lh_flight_high(f), 10);
    assert_int_equal(lh_flight_low(f), 5);
    lh_flight_destroy(&f);
}

static void warm_steps_allocate_nothing(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    uint64_t before = 0;
    for (int i = 0; i < 20; i++) {
        uint64_t a = ask(f, 1, i), b = ask(f, 2, i);
        push(f, b);
        push(f, a);
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
        int rc = lh_flight_create(&f, SIZE);
        if (rc == 0) {
            rc = lh_flight_add(f, 90, 0, SIZE, ones);
            if (rc == LH_ENOMEM)
                assert_ok(lh_flight_add(f, 90, 0, SIZE, ones));
        }
        lh_mem_fail_at(0);
        lh_flight_destroy(&f);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
}

/* One element each of many steps: memory for all of each would be taken. */
static void worker_begins_few_steps_that_it_does_not_end(void **state)
{
    (void)state;
    struct lh_flight *f = flight_at(0);
    for (uint64_t step = 0; step < LH_FLIGHT_BEGUN; step++) {
        assert_ok(lh_flight_begin(f, step, 1));
        assert_ok(lh_flight_add(f, step, 0, 1, ones));
    }
    assert_err(lh_flight_begin(f, 50, 1), LH_EPROTO, "worker 1 has begun 8 steps");
    assert_ok(lh_flight_begin(f, 3, 1)); /* goes on with one */
    assert_ok(lh_flight_begin(f, 50, 2));
    push(f, 3);
    assert_ok(lh_flight_begin(f, 51, 1)); /* has ended one, applied or not */
    assert_ok(lh_flight_add(f, 51, 0, 1, ones));
    lh_flight_done(f, 3);
    assert_ok(lh_flight_begin(f, 3, 1)); /* is in: add says so */
    assert_err(lh_flight_begin(f, 52, 1), LH_EPROTO, "worker 1 has begun 8 steps");
    lh_flight_destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(choose_gives_steps_in_order_and_each_worker_its_own_again),
        kit_test(step_of_a_lost_worker_is_given_before_new_ones),
        kit_test(step_is_taken_once_in_pieces_in_any_order),
        kit_test(steps_in_any_order_are_counted_as_lacking_until_they_are_in),
        kit_test(late_gives_what_is_old_or_nobodys_or_was_lost_on_the_way),
        kit_test(first_holder_is_remembered),
        kit_test(step_far_ahead_is_refused_and_nothing_grows),
        kit_test(warm_steps_allocate_nothing),
        kit_test(allocations_that_fail_leave_nothing_half_done),
        kit_test(worker_begins_few_steps_that_it_does_not_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
