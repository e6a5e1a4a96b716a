/* Relays TCP, and spoils it. Everything happens in one thread, which polls; the test's own thread
 * only leaves orders under a lock. */
#include "tests/proxykit.h"

#include "tests/testkit.h"

#include "common/rng.h"
#include "common/term.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUTES = 8, LINKS = 64, BUFFER = 1 << 16, SLOW_BYTES = 500, TURN_MS = 5 };

const char *const proxykit_names[PROXYKIT_FAULTS] = {
    "cut", "torn in a frame", "delayed", "slow", "half lost", "with a bit flipped"};

struct way {           /* from one side to the other */
    size_t n, done;    /* bytes in the buffer; of these written */
    double held, slow; /* until when nothing passes, little passes */
    double lost;       /* until when everything is lost, and then the connection ends */
    long left;         /* bytes until it ends; -1: it does not */
    bool flip;         /* a bit of the next bytes */
    unsigned char bytes[BUFFER];
};

struct link {
    int fd[2]; /* who connected; where it leads to */
    bool connecting;
    struct way *way[2]; /* [i] from fd[i] */
};

struct proxykit {
    pthread_t thread;
    pthread_mutex_t mutex; /* held but while it polls */
    bool stop;
    struct lh_rng_at rng;
    uint64_t drawn;
    struct {
        int fd;
        uint16_t port;
    } route[ROUTES];
    size_t n_routes;
    struct link link[LINKS];
    size_t n_links;
};

static double draw(struct proxykit *p)
{
    return lh_rng_uniform1(&p->rng, p->drawn++);
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int bound(uint16_t port, uint16_t *got)
{
    struct sockaddr_in a = loopback(port);
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 64) != 0) {
        close(fd);
        return -1;
    }
    getsockname(fd, (struct sockaddr *)&a, &n);
    *got = ntohs(a.sin_port);
    return fd;
}

/* Below those that the system gives to whoever connects, so that it stays free for a while. */
uint16_t proxykit_free_port(void)
{
    static unsigned next;
    for (unsigned i = 0; i < 10000; i++) {
        uint16_t port = (uint16_t)(12000 + ((unsigned)getpid() * 31 + next++) % 18000), got;
        int fd = bound(port, &got);
        if (fd >= 0) {
            close(fd);
            return port;
        }
    }
    fail_msg("no free port");
    return 0;
}

/* --- relaying -----------------------------------------------------------------------------------
 */
static void end_link(struct proxykit *p, size_t i)
{
    struct link *l = &p->link[i];
    const struct linger reset = {.l_onoff = 1};
    for (int s = 0; s < 2; s++) {
        setsockopt(l->fd[s], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(l->fd[s]);
        free(l->way[s]);
    }
    *l = p->link[--p->n_links];
}

static void take_connection(struct proxykit *p, size_t route)
{
    struct sockaddr_in a = loopback(p->route[route].port);
    int from = accept4(p->route[route].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
    if (from < 0)
        return;
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = connect(to, (struct sockaddr *)&a, sizeof a);
    if (p->n_links == LINKS || (rc != 0 && errno != EINPROGRESS)) {
        close(from);
        close(to);
        return;
    }
    struct link *l = &p->link[p->n_links++];
    *l = (struct link){.fd = {from, to}, .connecting = rc != 0};
    for (int s = 0; s < 2; s++) {
        setsockopt(l->fd[s], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        l->way[s] = calloc(1, sizeof *l->way[s]);
        assert_non_null(l->way[s]);
        l->way[s]->left = -1;
    }
}

/* How much may be read for this way now. */
static size_t allowance(const struct way *w, double now)
{
    size_t most = sizeof w->bytes;
    if (w->n > 0 || now < w->held)
        return 0;
    if (now < w->slow)
        most = SLOW_BYTES;
    if (w->left >= 0 && (size_t)w->left < most)
        most = (size_t)w->left;
    return most;
}

/* False: the connection is to end. */
static bool read_way(struct proxykit *p, struct link *l, int s, double now)
{
    struct way *w = l->way[s];
    size_t most = allowance(w, now);
    if (w->left == 0 || (w->lost > 0 && now >= w->lost))
        return false;
    if (most == 0)
        return true;
    ssize_t got = recv(l->fd[s], w->bytes, most, 0);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    if (w->lost > 0)
        return true;
    if (w->left > 0)
        w->left -= got;
    if (w->flip)
        w->bytes[(size_t)(draw(p) * (double)got)] ^= (unsigned char)(1u << (unsigned)(draw(p) * 8));
    w->flip = false;
    w->n = (size_t)got;
    w->done = 0;
    return true;
}

static bool write_way(struct link *l, int s)
{
    struct way *w = l->way[s];
    if (w->n == 0)
        return true;
    ssize_t sent = send(l->fd[!s], w->bytes + w->done, w->n - w->done, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    w->done += (size_t)sent;
    if (w->done == w->n)
        w->n = 0;
    return true;
}

static bool relay(struct proxykit *p, struct link *l, const struct pollfd *polls, double now)
{
    if (l->connecting && (polls[1].revents & (POLLERR | POLLHUP)))
        return false;
    if (l->connecting && (polls[1].revents & POLLOUT))
        l->connecting = false;
    if (l->connecting)
        return true;
    for (int s = 0; s < 2; s++)
        if (!read_way(p, l, s, now) || !write_way(l, s))
            return false;
    return true;
}

static short events(const struct link *l, int s, double now)
{
    short wanted = l->way[!s]->n > 0 ? POLLOUT : 0;
    if (l->connecting)
        return s == 1 ? POLLOUT : 0;
    /* one that is slowed is looked at once a turn */
    if (allowance(l->way[s], now) == sizeof l->way[s]->bytes)
        wanted |= POLLIN;
    return wanted;
}

static void *run(void *arg)
{
    struct proxykit *p = arg;
    struct pollfd polls[ROUTES + 2 * LINKS];
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        size_t routes = p->n_routes, links = p->n_links;
        double now = lh_now();
        for (size_t i = 0; i < routes; i++)
            polls[i] = (struct pollfd){.fd = p->route[i].fd, .events = POLLIN};
        for (size_t i = 0; i < links; i++)
            for (int s = 0; s < 2; s++)
                polls[routes + 2 * i + (size_t)s] =
                    (struct pollfd){.fd = p->link[i].fd[s], .events = events(&p->link[i], s, now)};
        pthread_mutex_unlock(&p->mutex);
        poll(polls, routes + 2 * links, TURN_MS);
        pthread_mutex_lock(&p->mutex);
        now = lh_now();
        /* from the end: one that ends is replaced by the last; one that was cut meanwhile, too */
        for (size_t i = p->n_links < links ? p->n_links : links; i-- > 0;)
            if (polls[routes + 2 * i].fd == p->link[i].fd[0] &&
                !relay(p, &p->link[i], &polls[routes + 2 * i], now))
                end_link(p, i);
        for (size_t i = 0; i < routes; i++)
            if (polls[i].revents & POLLIN)
                take_connection(p, i);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* --- for tests ----------------------------------------------------------------------------------
 */
struct proxykit *proxykit_start(uint64_t seed)
{
    struct proxykit *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->rng = (struct lh_rng_at){.seed = seed, .purpose = lh_rng_purpose("proxy")};
    pthread_mutex_init(&p->mutex, NULL);
    assert_int_equal(pthread_create(&p->thread, NULL, run, p), 0);
    return p;
}

void proxykit_stop(struct proxykit **out)
{
    struct proxykit *p = *out;
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    while (p->n_links > 0)
        end_link(p, 0);
    for (size_t i = 0; i < p->n_routes; i++)
        close(p->route[i].fd);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    *out = NULL;
}

uint16_t proxykit_route(struct proxykit *p, uint16_t port)
{
    uint16_t got = 0;
    pthread_mutex_lock(&p->mutex);
    assert_true(p->n_routes < ROUTES);
    int fd = bound(proxykit_free_port(), &got);
    assert_true(fd >= 0);
    p->route[p->n_routes].fd = fd;
    p->route[p->n_routes++].port = port;
    pthread_mutex_unlock(&p->mutex);
    return got;
}

bool proxykit_harm(struct proxykit *p, enum proxykit_fault fault)
{
    pthread_mutex_lock(&p->mutex);
    bool any = p->n_links > 0;
    if (any) {
        size_t i = (size_t)(draw(p) * (double)p->n_links);
        struct link *l = &p->link[i];
        struct way *w = l->way[draw(p) < 0.5];
        double now = lh_now(), until = now + 0.05 + 0.5 * draw(p);
        if (fault == PROXYKIT_CUT)
            end_link(p, i);
        else if (fault == PROXYKIT_TORN)
            w->left = 1 + (long)(draw(p) * 5000);
        else if (fault == PROXYKIT_DELAY)
            l->way[0]->held = l->way[1]->held = until;
        else if (fault == PROXYKIT_SLOW)
            l->way[0]->slow = l->way[1]->slow = until;
        else if (fault == PROXYKIT_HOLE)
            w->lost = until;
        else
            w->flip = true;
    }
    pthread_mutex_unlock(&p->mutex);
    return any;
}
