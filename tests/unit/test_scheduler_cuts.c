/* What a server may say of versions. That cuts become complete, or void, is integration/'s and
 * fault/'s. */
#include "cluster/scheduler_internal.h"

#include "tests/testkit.h"

static void vote_for_a_version_that_is_no_cut_is_refused(void **state)
{
    (void)state;
    static const uint64_t wrong[] = {0, 10, 11, 19, 30, 40, UINT64_MAX, UINT64_MAX - 5};
    struct lh_scheduler s = {
        .clock = {.start = 10, .until = 25, .total = 100, .checkpoint_every = 10}};
    struct lh_role_node node = {.role = LH__ROLE__ROLE_SERVER, .shard = 0};
    struct lh_net_message msg = {.env = {.kind = LH__KIND__KIND_UNPREPARED}};
    assert_ok(lh_votes_init(&s.votes, 2)); /* so that one vote decides nothing */
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_err(lh_scheduler_prepared(&s, &node, wrong[i]), LH_EPROTO, "which is no checkpoint");
        msg.env.step = wrong[i];
        assert_err(lh_scheduler_unprepared(&s, &node, &msg), LH_EPROTO, "which is no checkpoint");
    }
    assert_int_equal(s.votes.n, 0);
    assert_ok(lh_scheduler_prepared(&s, &node, 20));
    assert_ok(lh_scheduler_prepared(&s, &node, 25));
    assert_int_equal(s.votes.n, 2);
    lh_votes_fini(&s.votes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(vote_for_a_version_that_is_no_cut_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
