/* When a version is a cut, and when it is not. */
#include "cluster/votes.h"

#include "tests/testkit.h"

static void expect_decided(struct lh_votes *v, uint64_t version, bool complete)
{
    uint64_t got = 0;
    bool whole = !complete;
    assert_true(lh_votes_decide(v, &got, &whole));
    assert_int_equal(got, version);
    assert_int_equal(whole, complete);
}

static void expect_open(struct lh_votes *v)
{
    uint64_t version;
    bool complete;
    assert_false(lh_votes_decide(v, &version, &complete));
}

static void decide_waits_for_all_and_takes_versions_in_order(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 3));
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    assert_ok(lh_votes_cast(&v, 2, 10, true));
    assert_ok(lh_votes_cast(&v, 0, 20, true)); /* ahead of the others */
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 1, 10, true));
    expect_decided(&v, 10, true);
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 1, 20, true));
    assert_ok(lh_votes_cast(&v, 2, 20, true));
    expect_decided(&v, 20, true);
    expect_open(&v);
    lh_votes_fini(&v);
    lh_votes_fini(&v);
}

static void decide_is_void_where_one_has_failed_whoever_speaks_last(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 2));
    for (uint32_t failing = 0; failing < 2; failing++) {
        for (uint32_t first = 0; first < 2; first++) {
            uint64_t version = 10 + failing * 100 + first * 10;
            assert_ok(lh_votes_cast(&v, first, version, first != failing));
            assert_int_equal(lh_votes_failed(&v, version), first == failing);
            expect_open(&v);
            assert_ok(lh_votes_cast(&v, 1 - first, version, 1 - first != failing));
            assert_true(lh_votes_failed(&v, version));
            expect_decided(&v, version, false);
            assert_false(lh_votes_failed(&v, version));
        }
    }
    /* the next is a cut again */
    assert_ok(lh_votes_cast(&v, 0, 900, true));
    assert_ok(lh_votes_cast(&v, 1, 900, true));
    expect_decided(&v, 900, true);
    lh_votes_fini(&v);
}

/* A failure must not become a success because the others are ahead. */
static void decide_of_two_versions_keeps_them_apart(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 2));
    assert_ok(lh_votes_cast(&v, 0, 10, false));
    assert_ok(lh_votes_cast(&v, 0, 20, true));
    assert_ok(lh_votes_cast(&v, 1, 10, true));
    expect_decided(&v, 10, false);
    assert_ok(lh_votes_cast(&v, 1, 20, true));
    expect_decided(&v, 20, true);
    lh_votes_fini(&v);
}

static void cast_twice_or_late_changes_nothing(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 2));
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    assert_ok(lh_votes_cast(&v, 0, 10, false));
    assert_ok(lh_votes_cast(&v, 0, 5, true));
    assert_ok(lh_votes_cast(&v, 7, 10, true)); /* no such shard */
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 1, 10, true));
    expect_decided(&v, 10, true);
    assert_ok(lh_votes_cast(&v, 1, 10, true));
    expect_open(&v);
    lh_votes_fini(&v);
}

static void decide_is_void_where_a_word_was_lost(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 2));
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    assert_ok(lh_votes_cast(&v, 1, 20, true));
    expect_decided(&v, 10, false);
    assert_ok(lh_votes_cast(&v, 0, 20, true));
    expect_decided(&v, 20, true);
    lh_votes_fini(&v);
}

static void clear_lets_the_same_versions_come_again(void **state)
{
    (void)state;
    struct lh_votes v;
    assert_ok(lh_votes_init(&v, 2));
    assert_ok(lh_votes_cast(&v, 0, 10, false));
    assert_ok(lh_votes_cast(&v, 1, 20, true));
    lh_votes_clear(&v);
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    assert_ok(lh_votes_cast(&v, 1, 10, true));
    expect_decided(&v, 10, true);
    lh_votes_fini(&v);
}

static void without_memory_nothing_is_half_done(void **state)
{
    (void)state;
    struct lh_votes v;
    lh_mem_fail_at(1);
    int rc = lh_votes_init(&v, 2);
    lh_mem_fail_at(0);
    assert_int_equal(rc, LH_ENOMEM);
    lh_votes_fini(&v);
    assert_ok(lh_votes_init(&v, 1));
    lh_mem_fail_at(1);
    rc = lh_votes_cast(&v, 0, 10, true);
    lh_mem_fail_at(0);
    assert_int_equal(rc, LH_ENOMEM);
    expect_open(&v);
    assert_ok(lh_votes_cast(&v, 0, 10, true));
    expect_decided(&v, 10, true);
    lh_votes_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(decide_waits_for_all_and_takes_versions_in_order),
        kit_test(decide_is_void_where_one_has_failed_whoever_speaks_last),
        kit_test(decide_of_two_versions_keeps_them_apart),
        kit_test(cast_twice_or_late_changes_nothing),
        kit_test(decide_is_void_where_a_word_was_lost),
        kit_test(clear_lets_the_same_versions_come_again),
        kit_test(without_memory_nothing_is_half_done),
    };
    return cmocka_run_group_tests_name("votes", tests, NULL, NULL);
}
