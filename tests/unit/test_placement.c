#include "cluster/placement.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

/* Roles as a word, a letter a rank: "CSWW". */
static int place(const struct lh_placement_wish *wish, const char *const *hosts, size_t n,
                 char out[16])
{
    enum lh_placement_role roles[16];
    memset(out, 0, 16);
    int rc = lh_placement(wish, hosts, n, roles);
    for (size_t i = 0; rc == 0 && i < n; i++)
        out[i] = "CSW"[roles[i]];
    return rc;
}

static const char *const one[] = {"a", "a", "a", "a", "a"};
static const char *const three[] = {"a", "a", "b", "b", "b", "c", "c"};
static const char *const spread[] = {"a", "b", "c", "d"};
static const char *const by_turns[] = {"a", "b", "a", "b", "a", "b"};

static void placement_auto_serves_where_two_ranks_are_free(void **state)
{
    (void)state;
    static const struct {
        const char *const *hosts;
        size_t n;
        const char *want;
    } cases[] = {{one, 3, "CSW"},    {one, 5, "CSWWW"},   {three, 7, "CWSWWSW"},
                 {spread, 3, "CSW"}, {spread, 4, "CSWW"}, {by_turns, 6, "CSSWWW"}};
    char got[16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(
            place(&(struct lh_placement_wish){.list = "auto"}, cases[i].hosts, cases[i].n, got));
        assert_string_equal(got, cases[i].want);
    }
}

static void placement_a_host_asked_for_is_what_each_host_gets(void **state)
{
    (void)state;
    char got[16];
    assert_ok(place(&(struct lh_placement_wish){.servers_per_host = 2}, one, 5, got));
    assert_string_equal(got, "CSSWW");
    assert_ok(place(&(struct lh_placement_wish){.servers_per_host = 1}, three, 7, got));
    assert_string_equal(got, "CSSWWSW");
    assert_ok(place(&(struct lh_placement_wish){.servers_per_host = 1, .workers_per_host = 3}, one,
                    5, got));
    assert_string_equal(got, "CSWWW");
}

static void placement_by_list_follows_it(void **state)
{
    (void)state;
    char got[16];
    static const char *const full[] = {"a.example.org", "a.example.org", "b.example.org",
                                       "b.example.org"};
    assert_ok(place(&(struct lh_placement_wish){.list = "a:1+0, b:0+3 c:2+0"}, three, 7, got));
    assert_string_equal(got, "CSWWWSS");
    assert_ok(place(&(struct lh_placement_wish){.list = "b:1+1 a.example.org:0+1"}, full, 4, got));
    assert_string_equal(got, "CWSW");
}

static void placement_that_does_not_fit_is_refused_with_the_host(void **state)
{
    (void)state;
    char got[16];
    static const struct {
        struct lh_placement_wish wish;
        const char *const *hosts;
        size_t n;
        const char *says;
    } cases[] = {
        {{0}, one, 2, "mpirun started 2 ranks"},
        {{0}, one, 1, "mpirun -n 3 or more"},
        {{.servers_per_host = 4}, one, 5, "of 5 ranks 4 are servers and 0 are workers"},
        {{.servers_per_host = 5}, one, 5, "host a has 4 ranks beside the scheduler for 5 servers"},
        {{.workers_per_host = 2}, three, 7, "host a has 1 rank beside the scheduler for 0 servers"},
        {{.workers_per_host = 1}, one, 5, "start fewer there"},
        {{.list = "a:1+1", .workers_per_host = 1}, one, 3, "leave one out"},
        {{.list = "a:1+0"}, three, 7, "does not name host b"},
        {{.list = "a:1+1 x:0+1"}, one, 3, "names host x, on which mpirun started no rank"},
        {{.list = "a:1"}, one, 3, "'a:1' is not HOST:SERVERS+WORKERS"},
        {{.list = "a"}, one, 3, "'a' is not HOST:SERVERS+WORKERS"},
        {{.list = "a:1+1x"}, one, 3, "'a:1+1x' is not"},
        {{.list = ":1+1"}, one, 3, "':1+1' is not"},
        {{.list = "a:1+3"}, one, 3, "host a has 2 ranks beside the scheduler for 1 server and 3"},
        {{.list = "a:0+2"}, one, 3, "0 are servers and 2 are workers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_err(place(&cases[i].wish, cases[i].hosts, cases[i].n, got), LH_ECONFIG,
                   cases[i].says);
}

static void placement_of_too_many_servers_is_refused(void **state)
{
    (void)state;
    const char *hosts[200];
    enum lh_placement_role roles[200];
    char names[100][8];
    for (int i = 0; i < 200; i++) {
        snprintf(names[i / 2], sizeof names[0], "h%d", i / 2);
        hosts[i] = names[i / 2];
    }
    assert_err(lh_placement(&(struct lh_placement_wish){0}, hosts, 200, roles), LH_ECONFIG,
               "99 servers are asked for, at most 60");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placement_auto_serves_where_two_ranks_are_free),
        cmocka_unit_test(placement_a_host_asked_for_is_what_each_host_gets),
        cmocka_unit_test(placement_by_list_follows_it),
        cmocka_unit_test(placement_that_does_not_fit_is_refused_with_the_host),
        cmocka_unit_test(placement_of_too_many_servers_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
