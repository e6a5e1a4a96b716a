/* Who a server's message is from. */
#include "ps/members.h"

#include "common/mem.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

static char one[] = "0123456789012345678901234567890123456789";
static char two[] = "9876543210987654321098765432109876543210";

static int tell(struct lh_members *m, uint32_t *nodes, size_t n_nodes, char **keys, size_t n_keys)
{
    struct lh_net_message msg = {.env = {.kind = LH__KIND__KIND_MEMBERS}, .n = 1};
    Lh__Members body = LH__MEMBERS__INIT;
    body.nodes = nodes;
    body.n_nodes = n_nodes;
    body.keys = keys;
    body.n_keys = n_keys;
    zmq_msg_init_size(&msg.frame[0], lh__members__get_packed_size(&body));
    lh__members__pack(&body, zmq_msg_data(&msg.frame[0]));
    int rc = lh_members_take(m, &msg);
    lh_net_message_fini(&msg);
    return rc;
}

static int check(const struct lh_members *m, Lh__Role role, uint32_t node, const char *key)
{
    struct lh_net_message msg = {.role = role, .env = {.kind = LH__KIND__KIND_PUSH, .node = node}};
    snprintf(msg.key, sizeof msg.key, "%s", key);
    return lh_members_check(m, &msg);
}

static void worker_is_heard_as_itself_and_nobody_else(void **state)
{
    (void)state;
    struct lh_members m = {0};
    const Lh__Role worker = LH__ROLE__ROLE_WORKER;
    assert_err(check(&m, worker, 2, one), LH_EPROTO, "which the scheduler has not named");
    assert_ok(tell(&m, (uint32_t[]){5, 2}, 2, (char *[]){two, one}, 2));
    assert_ok(check(&m, worker, 2, one));
    assert_ok(check(&m, worker, 5, two));
    assert_err(check(&m, worker, 5, one), LH_EPROTO, "of node 5, which has another key");
    assert_err(check(&m, worker, 0, one), LH_EPROTO, "as node 0");
    assert_err(check(&m, worker, 3, one), LH_EPROTO, "has not named");
    assert_err(check(&m, worker, 3, ""), LH_EPROTO, "has not named");
    assert_err(check(&m, worker, UINT32_MAX, one), LH_EPROTO, "has not named");
    /* the same file may serve several workers; told again is no harm */
    assert_ok(tell(&m, (uint32_t[]){7, 2}, 2, (char *[]){one, one}, 2));
    assert_ok(check(&m, worker, 7, one));
    assert_ok(check(&m, worker, 5, two));
    lh_members_fini(&m);
}

static void evaluation_is_node_0_and_in_the_clear_all_may(void **state)
{
    (void)state;
    struct lh_members m = {0};
    assert_ok(check(&m, LH__ROLE__ROLE_EVALUATION, 0, two));
    assert_err(check(&m, LH__ROLE__ROLE_EVALUATION, 1, two), LH_EPROTO,
               "of the evaluation as node 1");
    assert_err(check(&m, LH__ROLE__ROLE_SCHEDULER, 0, two), LH_EPROTO, "has not named");
    assert_ok(check(&m, LH__ROLE__ROLE_NONE, 3, ""));
    lh_members_fini(&m);
}

static void list_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct lh_members m = {0};
    char longer[] = "01234567890123456789012345678901234567890";
    assert_err(tell(&m, (uint32_t[]){1, 2}, 2, (char *[]){one}, 1), LH_EPROTO,
               "names 2 workers and 1 keys");
    assert_err(tell(&m, (uint32_t[]){0}, 1, (char *[]){one}, 1), LH_EPROTO, "a worker 0");
    assert_err(tell(&m, (uint32_t[]){UINT32_MAX}, 1, (char *[]){one}, 1), LH_EPROTO, "a worker");
    assert_err(tell(&m, (uint32_t[]){1}, 1, (char *[]){longer}, 1), LH_EPROTO,
               "a key of 41 characters");
    for (uint64_t nth = 1; nth < 20; nth++) {
        lh_mem_fail_at(nth);
        if (tell(&m, (uint32_t[]){1}, 1, (char *[]){one}, 1) == 0)
            break;
        assert_true(nth < 19);
    }
    lh_mem_fail_at(0);
    assert_ok(check(&m, LH__ROLE__ROLE_WORKER, 1, one));
    lh_members_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(worker_is_heard_as_itself_and_nobody_else),
        kit_test(evaluation_is_node_0_and_in_the_clear_all_may),
        kit_test(list_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
