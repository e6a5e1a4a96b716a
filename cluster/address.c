/* Interfaces by getifaddrs, and plain sockets: whether a host can be reached is asked of the system
 * itself before any role begins, since a role that waits cannot tell why. */
#include "cluster/address.h"

#include "common/err.h"
#include "common/term.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY 0.2 /* seconds after a refusal */

/* --- what a host has ---------------------------------------------------------------------------
 */
static uint8_t count_bits(const unsigned char *mask, size_t bytes)
{
    unsigned bits = 0;
    for (size_t i = 0; i < bytes; i++)
        bits += (unsigned)__builtin_popcount(mask[i]);
    return (uint8_t)bits;
}

static bool read_address(const struct ifaddrs *i, struct lh_address *out)
{
    *out = (struct lh_address){.loopback = (i->ifa_flags & IFF_LOOPBACK) != 0};
    snprintf(out->interface, sizeof out->interface, "%s", i->ifa_name);
    if (!i->ifa_addr || !i->ifa_netmask || !(i->ifa_flags & IFF_UP))
        return false;
    if (i->ifa_addr->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)i->ifa_addr, *m = (const void *)i->ifa_netmask;
        out->family = 4;
        out->prefix = count_bits((const unsigned char *)&m->sin_addr, 4);
        memcpy(out->bytes, &a->sin_addr, 4);
        return true;
    }
    if (i->ifa_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)i->ifa_addr, *m = (const void *)i->ifa_netmask;
        out->family = 6;
        out->prefix = count_bits((const unsigned char *)&m->sin6_addr, 16);
        memcpy(out->bytes, &a->sin6_addr, 16);
        return !IN6_IS_ADDR_LINKLOCAL(&a->sin6_addr);
    }
    return false;
}

int lh_address_list(struct lh_address *out, size_t max, size_t *n)
{
    struct ifaddrs *all = NULL;
    *n = 0;
    if (getifaddrs(&all) != 0)
        return lh_err_errno(errno, "reading the network interfaces");
    for (const struct ifaddrs *i = all; i && *n < max; i = i->ifa_next)
        *n += read_address(i, &out[*n]);
    freeifaddrs(all);
    return 0;
}

const char *lh_address_print(const struct lh_address *a, char out[LH_ADDRESS_TEXT_MAX])
{
    char text[INET6_ADDRSTRLEN] = "?";
    inet_ntop(a->family == 6 ? AF_INET6 : AF_INET, a->bytes, text, sizeof text);
    snprintf(out, LH_ADDRESS_TEXT_MAX, a->family == 6 ? "[%s]" : "%s", text);
    return out;
}

/* --- choosing ----------------------------------------------------------------------------------
 */
static bool in_network(const struct lh_address *a, const struct lh_address *net)
{
    if (a->family != net->family)
        return false;
    for (unsigned bit = 0; bit < net->prefix; bit++)
        if ((a->bytes[bit / 8] ^ net->bytes[bit / 8]) & (0x80 >> bit % 8))
            return false;
    return true;
}

static bool same(const struct lh_address *a, const struct lh_address *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* "10.1.0.0/16", "fd00::/8". */
static int read_network(const char *text, struct lh_address *out)
{
    const char *slash = strchr(text, '/');
    char address[INET6_ADDRSTRLEN] = "";
    char *end = NULL;
    long bits = strtol(slash + 1, &end, 10);
    *out = (struct lh_address){.family = strchr(text, ':') ? 6 : 4};
    if ((size_t)(slash - text) < sizeof address)
        memcpy(address, text, (size_t)(slash - text));
    if (inet_pton(out->family == 6 ? AF_INET6 : AF_INET, address, out->bytes) != 1 || *end ||
        end == slash + 1 || bits < 0 || bits > (out->family == 6 ? 128 : 32))
        return lh_err_set(
            LH_ECONFIG, "cluster.interface: '%.60s' is no network; write it as 10.1.0.0/16", text);
    out->prefix = (uint8_t)bits;
    return 0;
}

static const char *print_all(const struct lh_address_host *host, char *out, size_t size)
{
    char text[LH_ADDRESS_TEXT_MAX];
    size_t at = 0;
    snprintf(out, size, "none");
    for (size_t i = 0; i < host->n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s %s/%u", i ? ", " : "",
                               host->items[i].interface, lh_address_print(&host->items[i], text),
                               host->items[i].prefix);
    return out;
}

static int choose_named(const struct lh_address_host *host, const char *interface,
                        struct lh_address *out)
{
    char all[300];
    struct lh_address net = {0};
    if (strchr(interface, '/'))
        LH_TRY(read_network(interface, &net));
    for (unsigned family = 4; family <= 6; family += 2)
        for (size_t i = 0; i < host->n; i++) {
            const struct lh_address *a = &host->items[i];
            if (a->family == family &&
                (net.family ? in_network(a, &net) : strcmp(a->interface, interface) == 0)) {
                *out = *a;
                return 0;
            }
        }
    return lh_err_set(LH_ECONFIG, "cluster.interface: host %s has no address of '%s'; it has %s",
                      host->name, interface, print_all(host, all, sizeof all));
}

/* Hosts but `self` that have an address in its network; -1 if another host has the same address. */
static long neighbours(const struct lh_address_host *hosts, size_t n, size_t self,
                       const struct lh_address *a)
{
    long count = 0;
    for (size_t h = 0; h < n; h++) {
        bool near = false;
        for (size_t i = 0; h != self && i < hosts[h].n; i++) {
            if (same(&hosts[h].items[i], a))
                return -1;
            near = near || in_network(&hosts[h].items[i], a);
        }
        count += near;
    }
    return count;
}

static int choose_best(const struct lh_address_host *hosts, size_t n, size_t self,
                       struct lh_address *out)
{
    char all[300];
    const struct lh_address *best = NULL;
    long most = 0;
    for (unsigned family = 4; family <= 6; family += 2)
        for (size_t i = 0; i < hosts[self].n; i++) {
            const struct lh_address *a = &hosts[self].items[i];
            if (a->family != family || (a->loopback != 0) != (n == 1))
                continue;
            long near = neighbours(hosts, n, self, a);
            if (!best || near > most) {
                best = a;
                most = near;
            }
        }
    if (!best && n == 1 && hosts[self].n > 0)
        best = &hosts[self].items[0];
    if (!best)
        return lh_err_set(LH_ECONFIG,
                          "host %s has no address that other hosts could reach (it has %s); bring "
                          "a network interface up there",
                          hosts[self].name, print_all(&hosts[self], all, sizeof all));
    *out = *best;
    return 0;
}

int lh_address_choose(const struct lh_address_host *hosts, size_t n, const char *interface,
                      struct lh_address *out)
{
    bool named = interface && *interface && strcmp(interface, "auto") != 0;
    for (size_t i = 0; i < n; i++)
        LH_TRY(named ? choose_named(&hosts[i], interface, &out[i])
                     : choose_best(hosts, n, i, &out[i]));
    return 0;
}

/* --- reaching ----------------------------------------------------------------------------------
 */
struct end {
    struct sockaddr_storage at;
    socklen_t size;
};

static struct end end_of(const struct lh_address *a, uint16_t port)
{
    struct end e = {0};
    if (a->family == 6) {
        struct sockaddr_in6 *to = (void *)&e.at;
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(port);
        memcpy(&to->sin6_addr, a->bytes, 16);
        e.size = sizeof *to;
    } else {
        struct sockaddr_in *to = (void *)&e.at;
        to->sin_family = AF_INET;
        to->sin_port = htons(port);
        memcpy(&to->sin_addr, a->bytes, 4);
        e.size = sizeof *to;
    }
    return e;
}

int lh_address_listen(const struct lh_address *a, int *fd, uint16_t *port)
{
    char text[LH_ADDRESS_TEXT_MAX];
    struct end e = end_of(a, 0);
    int on = 1, rc;
    *fd = socket(e.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* whoever serves here next binds to this very port */
    if (*fd < 0 || setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(*fd, (struct sockaddr *)&e.at, e.size) != 0 || listen(*fd, SOMAXCONN) != 0 ||
        getsockname(*fd, (struct sockaddr *)&e.at, &e.size) != 0) {
        rc = lh_err_errno(errno, "listening at %s", lh_address_print(a, text));
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        return rc;
    }
    *port = ntohs(a->family == 6 ? ((struct sockaddr_in6 *)&e.at)->sin6_port
                                 : ((struct sockaddr_in *)&e.at)->sin_port);
    return 0;
}

/* errno of one attempt; 0 if it stands. */
static int attempt(const struct end *e, double seconds)
{
    int failure = 0;
    socklen_t size = sizeof failure;
    int fd = socket(e->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, (const struct sockaddr *)&e->at, e->size) != 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        failure = errno;
        if (failure == EINPROGRESS)
            failure = poll(&p, 1, (int)(seconds * 1e3) + 1) == 1 &&
                              getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0
                          ? failure
                          : ETIMEDOUT;
    }
    close(fd);
    return failure;
}

int lh_address_reach(const struct lh_address *a, uint16_t port, double seconds)
{
    const struct end e = end_of(a, port);
    const double until = lh_now() + seconds;
    for (;;) {
        double left = until - lh_now();
        int failure = attempt(&e, left > 0 ? left : 0);
        if (failure == 0)
            return 0;
        if (lh_now() + RETRY >= until)
            return lh_err_set(LH_ETIMEDOUT, "%s", strerror(failure));
        poll(NULL, 0, (int)(RETRY * 1e3));
    }
}
