/* From the hosts of the ranks to their roles. Ranks are few (thousands at most) and this runs once:
 * hosts are compared by name, pair by pair. */
#include "cluster/placement.h"

#include "common/err.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define RANKS_MIN 3 /* scheduler, server, worker */

/* What one host is to carry. */
struct share {
    uint32_t servers, workers;
    bool rest; /* workers: all ranks that are left */
};

/* --- the list ----------------------------------------------------------------------------------
 */
static bool separates(char c)
{
    return c == ' ' || c == ',' || c == '\t' || c == '\n';
}

static bool is_host(const char *host, const char *name, size_t n)
{
    bool whole = strncmp(host, name, n) == 0;
    return n > 0 && whole && (host[n] == '\0' || host[n] == '.');
}

static bool is_number(const char **at, const char *end, uint32_t *out)
{
    const char *from = *at;
    for (*out = 0; *at < end && **at >= '0' && **at <= '9' && *at - from < 6; ++*at)
        *out = *out * 10 + (uint32_t)(**at - '0');
    return *at > from;
}

/* "HOST:SERVERS+WORKERS". The name ends at the last colon. */
static int read_entry(const char *at, const char *end, size_t *name_n, struct share *out)
{
    const char *colon = end;
    while (colon > at && *colon != ':')
        colon--;
    *name_n = (size_t)(colon - at);
    const char *p = colon + 1;
    if (colon > at && is_number(&p, end, &out->servers) && p < end && *p++ == '+' &&
        is_number(&p, end, &out->workers) && p == end)
        return 0;
    return lh_err_set(LH_ECONFIG,
                      "cluster.placement: '%.*s' is not HOST:SERVERS+WORKERS, as in lh1:1+2",
                      (int)(end - at < 80 ? end - at : 80), at);
}

/* Calls for the next entry from *at on; *name is NULL at the end of the list. */
static int next_entry(const char **at, const char **name, size_t *name_n, struct share *out)
{
    while (separates(**at))
        ++*at;
    *name = NULL;
    if (!**at)
        return 0;
    const char *end = *at;
    while (*end && !separates(*end))
        end++;
    *name = *at;
    LH_TRY(read_entry(*at, end, name_n, out));
    *at = end;
    return 0;
}

static int listed(const char *list, const char *host, struct share *out)
{
    const char *name;
    size_t n;
    struct share s = {0};
    for (;;) {
        LH_TRY(next_entry(&list, &name, &n, &s));
        if (!name)
            return lh_err_set(LH_ECONFIG,
                              "cluster.placement does not name host %s, on which mpirun started "
                              "ranks; add %s:SERVERS+WORKERS",
                              host, host);
        if (is_host(host, name, n)) {
            *out = s;
            return 0;
        }
    }
}

static int check_listed_hosts(const char *list, const char *const *hosts, size_t n_ranks)
{
    const char *name;
    size_t n;
    struct share s = {0};
    for (;;) {
        bool there = false;
        LH_TRY(next_entry(&list, &name, &n, &s));
        if (!name)
            return 0;
        for (size_t i = 0; i < n_ranks && !there; i++)
            there = is_host(hosts[i], name, n);
        if (!there && s.servers + s.workers > 0)
            return lh_err_set(LH_ECONFIG,
                              "cluster.placement names host %.*s, on which mpirun started no rank; "
                              "add it to the hostfile",
                              (int)n, name);
    }
}

/* --- placing -----------------------------------------------------------------------------------
 */
static bool is_auto(const char *list)
{
    return !list || !*list || strcmp(list, "auto") == 0;
}

/* Ranks of `host` but rank 0. */
static uint32_t free_ranks(const char *const *hosts, size_t n, const char *host)
{
    uint32_t count = 0;
    for (size_t i = 1; i < n; i++)
        count += strcmp(hosts[i], host) == 0;
    return count;
}

static int share_of(const struct lh_placement_wish *wish, const char *host, uint32_t ranks,
                    struct share *out)
{
    if (!is_auto(wish->list))
        return listed(wish->list, host, out);
    out->servers = wish->servers_per_host ? wish->servers_per_host : ranks >= 2;
    out->workers = wish->workers_per_host;
    out->rest = wish->workers_per_host == 0;
    return 0;
}

static int check_share(const struct share *s, const char *host, uint32_t ranks, bool scheduler)
{
    uint32_t asked = s->servers + s->workers;
    if (asked > ranks)
        return lh_err_set(
            LH_ECONFIG,
            "host %s has %u rank%s%s for %u server%s and %u worker%s; start more there (mpirun -n, "
            "slots= in the hostfile), or ask for fewer by cluster.servers_per_host, "
            "workers_per_host or placement",
            host, ranks, ranks == 1 ? "" : "s", scheduler ? " beside the scheduler" : "",
            s->servers, s->servers == 1 ? "" : "s", s->workers, s->workers == 1 ? "" : "s");
    if (asked < ranks && !s->rest)
        return lh_err_set(LH_ECONFIG,
                          "host %s has %u ranks%s, but %u server%s and %u worker%s are asked for; "
                          "start fewer there, or leave out cluster.workers_per_host",
                          host, ranks, scheduler ? " beside the scheduler" : "", s->servers,
                          s->servers == 1 ? "" : "s", s->workers, s->workers == 1 ? "" : "s");
    return 0;
}

static int place_host(const struct lh_placement_wish *wish, const char *const *hosts, size_t n,
                      const char *host, enum lh_placement_role *out)
{
    struct share s = {0};
    uint32_t ranks = free_ranks(hosts, n, host), placed = 0;
    bool scheduler = strcmp(hosts[0], host) == 0;
    if (ranks == 0 && is_auto(wish->list))
        return 0; /* the scheduler alone */
    LH_TRY(share_of(wish, host, ranks, &s));
    LH_TRY(check_share(&s, host, ranks, scheduler));
    for (size_t i = 1; i < n; i++)
        if (strcmp(hosts[i], host) == 0)
            out[i] = placed++ < s.servers ? LH_PLACE_SERVER : LH_PLACE_WORKER;
    return 0;
}

static bool is_first_of_host(const char *const *hosts, size_t rank)
{
    for (size_t i = 0; i < rank; i++)
        if (strcmp(hosts[i], hosts[rank]) == 0)
            return false;
    return true;
}

size_t lh_placement_count(const enum lh_placement_role *roles, size_t n,
                          enum lh_placement_role role)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += roles[i] == role;
    return count;
}

int lh_placement(const struct lh_placement_wish *wish, const char *const *hosts, size_t n,
                 enum lh_placement_role *out)
{
    if (n < RANKS_MIN)
        return lh_err_set(LH_ECONFIG,
                          "mpirun started %zu rank%s, and a job needs a scheduler, a server and a "
                          "worker: mpirun -n %d or more, or --launcher local without mpirun",
                          n, n == 1 ? "" : "s", RANKS_MIN);
    if (!is_auto(wish->list) && (wish->servers_per_host || wish->workers_per_host))
        return lh_err_set(LH_ECONFIG, "cluster.placement and cluster.servers_per_host or "
                                      "workers_per_host say the same; leave one out");
    if (!is_auto(wish->list))
        LH_TRY(check_listed_hosts(wish->list, hosts, n));
    out[0] = LH_PLACE_SCHEDULER;
    for (size_t i = 0; i < n; i++)
        if (is_first_of_host(hosts, i))
            LH_TRY(place_host(wish, hosts, n, hosts[i], out));
    size_t servers = lh_placement_count(out, n, LH_PLACE_SERVER);
    if (servers == 0 && is_auto(wish->list)) { /* one rank a host */
        out[1] = LH_PLACE_SERVER;
        servers = 1;
    }
    size_t workers = lh_placement_count(out, n, LH_PLACE_WORKER);
    if (servers == 0 || workers == 0)
        return lh_err_set(
            LH_ECONFIG,
            "of %zu ranks %zu are servers and %zu are workers, and a job needs one of "
            "each; start more ranks, or change cluster.servers_per_host or placement",
            n, servers, workers);
    if (servers > LH_PLACE_SERVERS_MAX)
        return lh_err_set(LH_ECONFIG,
                          "%zu servers are asked for, at most %d are possible; lower "
                          "cluster.servers_per_host or name them by cluster.placement",
                          servers, LH_PLACE_SERVERS_MAX);
    return 0;
}
