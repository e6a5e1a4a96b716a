/* Who holds what of a shard's versions: how much, how long, and what happens then. */
#include "ps/loan.h"

#include "common/mem.h"
#include "tests/testkit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 8 };

static struct lh_shard *shard_new(void)
{
    static const char name[] = "w";
    struct lh_segment segment = {.name = name,
                                 .lo = 0,
                                 .hi = SIZE,
                                 .rows = 1,
                                 .cols = SIZE,
                                 .learning_rate = 0.1,
                                 .period = 1,
                                 .target_period = 1};
    struct lh_shard_range range = {
        .lo = 0, .hi = SIZE, .flat_size = SIZE, .n_segments = 1, .segments = &segment};
    struct lh_shard *s = NULL;
    float w[SIZE] = {0};
    assert_ok(lh_shard_create(
        &s, &(struct lh_shard_spec){
                .range = &range, .leaves = 1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}));
    lh_shard_init(s, w);
    return s;
}

static void step(struct lh_shard *s)
{
    const float g[SIZE] = {1};
    int applied = 0;
    assert_ok(lh_shard_push(s, lh_shard_version(s), (struct lh_tree_node){0}, 0, g, SIZE, NULL));
    assert_ok(lh_shard_advance(s, &applied, NULL));
    assert_true(applied);
}

static struct lh_net_peer peer(unsigned char id, int fd)
{
    return (struct lh_net_peer){.size = 1, .id = {id}, .fd = fd};
}

static void peer_gets_no_more_than_it_may_hold(void **state)
{
    (void)state;
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    struct lh_loan *loan[LH_LOANS_A_PEER], *other;
    struct lh_net_peer a = peer(1, -1), b = peer(2, -1);
    assert_ok(lh_loans_create(&l, s, 1000));
    for (int i = 0; i < LH_LOANS_A_PEER; i++)
        assert_ok(lh_loans_begin(l, &a, 2, &loan[i]));
    assert_int_equal(lh_loans_begin(l, &a, 1, &other), LH_AGAIN);
    assert_ok(lh_loans_begin(l, &b, 1, &other));
    lh_loan_release(NULL, other);
    lh_loan_release(NULL, loan[0]);
    assert_int_equal(lh_loans_begin(l, &a, 1, &other), LH_AGAIN); /* half of it */
    lh_loan_release(NULL, loan[0]);
    assert_ok(lh_loans_begin(l, &a, 1, &other));
    lh_loan_release(NULL, other);
    for (int i = 1; i < LH_LOANS_A_PEER; i++)
        for (int k = 0; k < 2; k++)
            lh_loan_release(NULL, loan[i]);
    assert_int_equal(lh_loans_count(l), 0);
    lh_loans_destroy(&l);
    lh_shard_destroy(&s);
}

static void loan_outlives_book_and_shard(void **state)
{
    (void)state;
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    struct lh_loan *loan;
    struct lh_net_peer a = peer(1, -1);
    assert_ok(lh_loans_create(&l, s, 1000));
    assert_ok(lh_loans_begin(l, &a, 2, &loan));
    lh_loan_release(NULL, loan);
    lh_loans_destroy(&l);
    lh_shard_destroy(&s);
    lh_loan_release(NULL, loan); /* the tear-down finds nothing left */
}

/* Whether the other end of a pair finds its connection ended. */
static bool is_cut_off(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static void peer_that_holds_for_too_long_is_cut_off(void **state)
{
    (void)state;
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    struct lh_loan *loan;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct lh_net_peer a = peer(1, ends[0]);
    assert_ok(lh_loans_create(&l, s, 0.05));
    assert_ok(lh_loans_begin(l, &a, 1, &loan));
    assert_int_equal(lh_loans_call_in(l), 0);
    assert_false(is_cut_off(ends[1]));
    usleep(60000);
    assert_int_equal(lh_loans_call_in(l), 1);
    assert_true(is_cut_off(ends[1]));
    assert_int_equal(lh_loans_call_in(l), 0); /* once */
    lh_loan_release(NULL, loan);
    close(ends[0]);
    close(ends[1]);
    lh_loans_destroy(&l);
    lh_shard_destroy(&s);
}

static void holder_of_the_oldest_of_many_versions_is_cut_off(void **state)
{
    (void)state;
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    struct lh_loan *loan[LH_LOANS_VERSIONS + 1];
    int oldest[2], other[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, oldest), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    assert_ok(lh_loans_create(&l, s, 1000));
    for (unsigned i = 0; i <= LH_LOANS_VERSIONS; i++) {
        struct lh_net_peer a = peer((unsigned char)i, i == 0 ? oldest[0] : other[0]);
        assert_int_equal(lh_loans_call_in(l), 0);
        assert_ok(lh_loans_begin(l, &a, 1, &loan[i]));
        step(s);
    }
    assert_int_equal(lh_loans_call_in(l), 1);
    assert_true(is_cut_off(oldest[1]));
    assert_false(is_cut_off(other[1]));
    for (unsigned i = 0; i <= LH_LOANS_VERSIONS; i++)
        lh_loan_release(NULL, loan[i]);
    for (int i = 0; i < 2; i++) {
        close(oldest[i]);
        close(other[i]);
    }
    lh_loans_destroy(&l);
    lh_shard_destroy(&s);
}

static void descriptor_that_is_anothers_by_now_is_left_alone(void **state)
{
    (void)state;
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    struct lh_loan *loan;
    int gone[2], later[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, gone), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, later), 0);
    struct lh_net_peer a = peer(1, gone[0]);
    assert_ok(lh_loans_create(&l, s, 0));
    assert_ok(lh_loans_begin(l, &a, 1, &loan));
    assert_int_equal(dup2(later[0], gone[0]), gone[0]);
    usleep(1000);
    assert_int_equal(lh_loans_call_in(l), 1);
    assert_false(is_cut_off(later[1]));
    lh_loan_release(NULL, loan);
    for (int i = 0; i < 2; i++) {
        close(gone[i]);
        close(later[i]);
    }
    lh_loans_destroy(&l);
    lh_shard_destroy(&s);
}

/* The memory of rows that were sent is there for the next, and is held to a bound. */
static void rows_are_lent_in_memory_that_was_lent_before(void **state)
{
    (void)state;
    enum { PEERS = 8, EACH = LH_LOANS_ROWS_A_PEER, MANY = PEERS * EACH };
    struct lh_shard *s = shard_new();
    struct lh_loans *l = NULL;
    static struct lh_loan *loan[MANY];
    struct lh_loan *other;
    void *rows[MANY], *more;
    assert_ok(lh_loans_create(&l, s, 1000));
    struct lh_net_peer a = peer(1, -1);
    for (int i = 0; i < EACH; i++) {
        assert_ok(lh_loans_begin_rows(l, &a, 100000 - (size_t)i, &rows[i], &loan[i]));
        memset(rows[i], i, 100000 - (size_t)i);
    }
    assert_int_equal(lh_loans_begin_rows(l, &a, 1, &more, &other), LH_AGAIN);
    for (int i = 0; i < EACH; i++) { /* each has its own */
        assert_int_equal(*((unsigned char *)rows[i] + 50000), i);
        lh_loan_release(rows[i], loan[i]);
    }
    const uint64_t before = lh_mem_count();
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < EACH; i++)
            assert_ok(lh_loans_begin_rows(l, &a, 131072 - (size_t)round, &rows[i], &loan[i]));
        for (int i = 0; i < EACH; i++)
            lh_loan_release(rows[i], loan[i]);
    }
    assert_int_equal(lh_mem_count(), before);
    for (int i = 0; i < MANY; i++) {
        struct lh_net_peer p = peer((unsigned char)(i / EACH), -1);
        assert_ok(lh_loans_begin_rows(l, &p, 1 << 20, &rows[i], &loan[i]));
    }
    const uint64_t live = lh_mem_live();
    for (int i = 0; i < MANY; i++)
        lh_loan_release(rows[i], loan[i]);
    assert_int_equal(lh_loans_count(l), 0);
    assert_true(lh_mem_live() + MANY <= live + 64);
    struct lh_net_peer b = peer(2, -1);
    lh_mem_fail_at(1);
    assert_err(lh_loans_begin_rows(l, &b, 1 << 21, &more, &other), LH_ENOMEM, "rows that were");
    lh_mem_fail_at(0);
    assert_int_equal(lh_loans_count(l), 0);
    assert_ok(lh_loans_begin_rows(l, &b, 100, &more, &other));
    lh_loans_destroy(&l);
    memset(more, 1, 100); /* it is lent yet */
    lh_loan_release(more, other);
    lh_shard_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(peer_gets_no_more_than_it_may_hold),
        kit_test(loan_outlives_book_and_shard),
        kit_test(peer_that_holds_for_too_long_is_cut_off),
        kit_test(holder_of_the_oldest_of_many_versions_is_cut_off),
        kit_test(descriptor_that_is_anothers_by_now_is_left_alone),
        kit_test(rows_are_lent_in_memory_that_was_lent_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
