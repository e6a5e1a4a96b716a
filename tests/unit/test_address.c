#include "cluster/address.h"

#include "tests/testkit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct lh_address address(const char *interface, const char *text, uint8_t prefix)
{
    struct lh_address a = {.family = strchr(text, ':') ? 6 : 4, .prefix = prefix};
    snprintf(a.interface, sizeof a.interface, "%s", interface);
    a.loopback = strcmp(interface, "lo") == 0;
    assert_int_equal(inet_pton(a.family == 6 ? AF_INET6 : AF_INET, text, a.bytes), 1);
    return a;
}

struct cluster {
    struct lh_address at[3][4];
    struct lh_address_host hosts[3];
};

/* lo, a bridge of its own that each host has, the data network, an IPv6 one. */
static void make(struct cluster *c, size_t n)
{
    static const char *const names[] = {"a", "b", "c"};
    char text[40];
    for (size_t h = 0; h < n; h++) {
        c->at[h][0] = address("lo", "127.0.0.1", 8);
        c->at[h][1] = address("docker0", "172.17.0.1", 16);
        snprintf(text, sizeof text, "10.1.0.%zu", h + 1);
        c->at[h][2] = address("eth1", text, 24);
        snprintf(text, sizeof text, "fd00::%zu", h + 1);
        c->at[h][3] = address("eth2", text, 64);
        c->hosts[h] = (struct lh_address_host){names[h], c->at[h], 4};
    }
}

static void assert_chosen(const struct cluster *c, size_t n, const char *interface,
                          const char *first)
{
    struct lh_address out[3];
    char text[LH_ADDRESS_TEXT_MAX];
    assert_ok(lh_address_choose(c->hosts, n, interface, out));
    assert_string_equal(lh_address_print(&out[0], text), first);
    for (size_t h = 1; h < n; h++)
        assert_string_equal(out[h].interface, out[0].interface);
}

static void choose_auto_takes_the_network_the_hosts_share(void **state)
{
    (void)state;
    struct cluster c;
    make(&c, 3);
    assert_chosen(&c, 1, "auto", "127.0.0.1");
    assert_chosen(&c, 3, "auto", "10.1.0.1");
    for (size_t h = 0; h < 3; h++) /* routed: no two in one network */
        c.at[h][2].bytes[2] = (unsigned char)h;
    c.hosts[0].n = c.hosts[1].n = c.hosts[2].n = 3;
    assert_chosen(&c, 3, "auto", "10.1.0.1");
    for (size_t h = 0; h < 3; h++) /* IPv6 only */
        c.hosts[h] = (struct lh_address_host){"x", c.at[h] + 3, 1};
    assert_chosen(&c, 3, "auto", "[fd00::1]");
}

static void choose_named_takes_it(void **state)
{
    (void)state;
    struct cluster c;
    make(&c, 3);
    assert_chosen(&c, 3, "eth2", "[fd00::1]");
    assert_chosen(&c, 3, "10.1.0.0/16", "10.1.0.1");
    assert_chosen(&c, 3, "fd00::/32", "[fd00::1]");
    assert_chosen(&c, 1, "eth1", "10.1.0.1");
}

static void choose_what_a_host_lacks_is_refused_with_what_it_has(void **state)
{
    (void)state;
    struct cluster c;
    struct lh_address out[3];
    make(&c, 3);
    c.hosts[1].n = 2;
    assert_err(lh_address_choose(c.hosts, 3, "eth1", out), LH_ECONFIG,
               "host b has no address of 'eth1'; it has lo 127.0.0.1/8, docker0 172.17.0.1/16");
    assert_err(lh_address_choose(c.hosts, 3, "10.2.0.0/16", out), LH_ECONFIG, "host a has no");
    assert_err(lh_address_choose(c.hosts, 3, "10.2.0.0/99", out), LH_ECONFIG, "is no network");
    assert_err(lh_address_choose(c.hosts, 3, "10.2/16", out), LH_ECONFIG, "is no network");
    assert_err(lh_address_choose(c.hosts, 3, "10.2.0.0/", out), LH_ECONFIG, "is no network");
    c.hosts[2].n = 1;
    assert_err(lh_address_choose(c.hosts, 3, "auto", out), LH_ECONFIG, "host c has no address");
    c.hosts[0].n = 0;
    assert_err(lh_address_choose(c.hosts, 1, "auto", out), LH_ECONFIG, "it has none");
}

static void list_has_what_the_system_has(void **state)
{
    (void)state;
    struct lh_address all[32];
    size_t n;
    assert_ok(lh_address_list(all, 32, &n));
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++)
        assert_true(all[i].family == 4 || all[i].family == 6);
    assert_ok(lh_address_list(all, 1, &n));
    assert_int_equal(n, 1);
}

static void reach_finds_who_listens_and_nobody_else(void **state)
{
    (void)state;
    struct lh_address lo = address("lo", "127.0.0.1", 8);
    int fd;
    uint16_t port;
    assert_ok(lh_address_listen(&lo, &fd, &port));
    assert_ok(lh_address_reach(&lo, port, 5));
    close(fd);
    assert_err(lh_address_reach(&lo, port, 0.3), LH_ETIMEDOUT, "refused");
    struct lh_address foreign = address("x", "192.0.2.77", 24);
    assert_err(lh_address_listen(&foreign, &fd, &port), LH_EIO, "listening at 192.0.2.77");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choose_auto_takes_the_network_the_hosts_share),
        cmocka_unit_test(choose_named_takes_it),
        cmocka_unit_test(choose_what_a_host_lacks_is_refused_with_what_it_has),
        cmocka_unit_test(list_has_what_the_system_has),
        cmocka_unit_test(reach_finds_who_listens_and_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
