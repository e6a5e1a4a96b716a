#include "tests/hostkit.h"

#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/rng.h"
#include "common/term.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef LH_HAVE_NFQ
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#endif

enum { HELD = 8192, QUEUE = 5 };

#define DELAY_LEAST 0.010 /* seconds */
#define DELAY_MORE  0.020

const char *const hostkit_names[HOSTKIT_FAULTS] = {"with its link down", "deaf", "losing 20%",
                                                   "at 50 Mbit/s", "delayed and reordered"};

struct packet {
    unsigned host;
    uint32_t id;
    double due;
};

struct hostkit {
    unsigned hosts;
    char name[HOSTKIT_HOSTS][32], bridge[32];
    bool harmed[HOSTKIT_HOSTS], told[HOSTKIT_FAULTS];
    enum hostkit_fault fault[HOSTKIT_HOSTS];
    /* the thread that delays */
    pthread_t thread;
    bool delays; /* it runs */
    atomic_bool stop;
    struct lh_rng_at rng;
    uint64_t drawn;
    struct packet held[HELD];
    unsigned n_held;
#ifdef LH_HAVE_NFQ
    struct nfq_handle *nfq[HOSTKIT_HOSTS];
    struct nfq_q_handle *queue[HOSTKIT_HOSTS];
#endif
};

/* The calling thread from now on makes its sockets on that host. */
static bool go_to(const struct hostkit *h, unsigned host)
{
    char path[64];
    snprintf(path, sizeof path, "/run/netns/%s", h->name[host]);
    int there = open(path, O_RDONLY | O_CLOEXEC);
    bool gone = there >= 0 && setns(there, CLONE_NEWNET) == 0;
    if (there >= 0)
        close(there);
    return gone;
}

/* --- delay --------------------------------------------------------------------------------------
 */
#ifdef LH_HAVE_NFQ
struct taking {
    struct hostkit *h;
    unsigned host;
};

static int take_packet(struct nfq_q_handle *queue, struct nfgenmsg *msg, struct nfq_data *data,
                       void *ctx)
{
    (void)msg;
    struct taking *t = ctx;
    struct hostkit *h = t->h;
    const struct nfqnl_msg_packet_hdr *head = nfq_get_msg_packet_hdr(data);
    if (!head)
        return 0;
    if (h->n_held == HELD)
        return nfq_set_verdict(queue, ntohl(head->packet_id), NF_ACCEPT, 0, NULL);
    h->held[h->n_held++] = (struct packet){
        .host = t->host,
        .id = ntohl(head->packet_id),
        .due = lh_now() + DELAY_LEAST + DELAY_MORE * lh_rng_uniform1(&h->rng, h->drawn++)};
    return 0;
}

static void let_go(struct hostkit *h, double now)
{
    for (unsigned i = 0; i < h->n_held;) {
        if (h->held[i].due > now) {
            i++;
            continue;
        }
        nfq_set_verdict(h->queue[h->held[i].host], h->held[i].id, NF_ACCEPT, 0, NULL);
        h->held[i] = h->held[--h->n_held];
    }
}

static void *delay(void *arg)
{
    struct hostkit *h = arg;
    char bytes[65536];
    while (!atomic_load(&h->stop)) {
        struct pollfd fds[HOSTKIT_HOSTS];
        for (unsigned i = 0; i < h->hosts; i++)
            fds[i] = (struct pollfd){.fd = nfq_fd(h->nfq[i]), .events = POLLIN};
        poll(fds, h->hosts, h->n_held > 0 ? 1 : 20);
        for (unsigned i = 0; i < h->hosts; i++) {
            ssize_t n;
            while ((n = recv(fds[i].fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
                nfq_handle_packet(h->nfq[i], bytes, (int)n);
        }
        let_go(h, lh_now());
    }
    let_go(h, lh_now() + 1);
    return NULL;
}

/* A queue belongs to the namespace in which its socket was made. */
static bool open_queue(struct hostkit *h, struct taking *t)
{
    int size = 4 << 20;
    if (!go_to(h, t->host))
        return false;
    struct nfq_handle *nfq = h->nfq[t->host] = nfq_open();
    struct nfq_q_handle *queue = nfq ? nfq_create_queue(nfq, QUEUE, take_packet, t) : NULL;
    h->queue[t->host] = queue;
    if (!queue || nfq_set_mode(queue, NFQNL_COPY_META, 0) < 0)
        return false;
    nfq_set_queue_maxlen(queue, HELD / 2);
    nfq_set_queue_flags(queue, NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_F_FAIL_OPEN);
    setsockopt(nfq_fd(nfq), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return true;
}

static void *delay_thread(void *arg)
{
    struct hostkit *h = arg;
    struct taking taking[HOSTKIT_HOSTS];
    bool open = true;
    for (unsigned i = 0; i < h->hosts && open; i++) {
        taking[i] = (struct taking){h, i};
        open = open_queue(h, &taking[i]);
    }
    if (open)
        delay(h);
    for (unsigned i = 0; i < h->hosts; i++) {
        if (h->queue[i])
            nfq_destroy_queue(h->queue[i]);
        if (h->nfq[i])
            nfq_close(h->nfq[i]);
    }
    return NULL;
}

static void start_delays(struct hostkit *h)
{
    h->delays = pthread_create(&h->thread, NULL, delay_thread, h) == 0;
}
#else
static void start_delays(struct hostkit *h)
{
    (void)h;
}
#endif

static void stop_delays(struct hostkit *h)
{
    atomic_store(&h->stop, true);
    if (h->delays)
        pthread_join(h->thread, NULL);
}

/* --- hosts --------------------------------------------------------------------------------------
 */
const char *hostkit_address(unsigned host)
{
    static char text[HOSTKIT_HOSTS][16];
    snprintf(text[host], sizeof text[host], "10.79.0.%u", host + 1);
    return text[host];
}

/* Those of a test that was killed: the number in a name is its process. */
static const char sweep[] =
    "for n in $(ip netns list | sed -n 's/^\\(lhk\\([0-9]*\\)-[0-9s]\\).*/\\1:\\2/p'); do "
    "[ -d /proc/${n#*:} ] && continue; for p in $(ip netns pids ${n%%:*}); do kill -KILL $p; done; "
    "ip netns del ${n%%:*}; done";

static bool make(struct hostkit *h, char **said)
{
    if (kit_run(said,
                "ip netns add %1$s && ip -n %1$s link add br0 type bridge && "
                "ip -n %1$s link set br0 up",
                h->bridge) != 0)
        return false;
    for (unsigned i = 0; i < h->hosts; i++) {
        free(*said);
        if (kit_run(said,
                    "ip netns add %2$s && ip -n %2$s link set lo up && "
                    "ip -n %1$s link add p%4$u type veth peer name eth0 netns %2$s && "
                    "ip -n %1$s link set p%4$u master br0 up && "
                    "ip -n %2$s addr add %3$s/24 dev eth0 && ip -n %2$s link set eth0 up",
                    h->bridge, h->name[i], hostkit_address(i), i) != 0)
            return false;
    }
    return true;
}

struct hostkit *hostkit_start(unsigned hosts, uint64_t seed)
{
    struct hostkit *h = calloc(1, sizeof *h);
    char *said = NULL;
    assert_non_null(h);
    assert_true(hosts <= HOSTKIT_HOSTS);
    h->hosts = hosts;
    h->rng = (struct lh_rng_at){.seed = seed, .purpose = lh_rng_purpose("hosts")};
    snprintf(h->bridge, sizeof h->bridge, "lhk%d-s", (int)getpid());
    for (unsigned i = 0; i < hosts; i++)
        snprintf(h->name[i], sizeof h->name[i], "lhk%d-%u", (int)getpid(), i);
    kit_run(NULL, sweep);
    bool made = make(h, &said);
    if (!made)
        print_message("no network namespaces here: %s", said);
    free(said);
    if (made)
        start_delays(h);
    else
        hostkit_stop(&h);
    return h;
}

void hostkit_stop(struct hostkit **out)
{
    struct hostkit *h = *out;
    if (!h)
        return;
    stop_delays(h);
    for (unsigned i = 0; i <= h->hosts; i++)
        kit_run(NULL, "for p in $(ip netns pids %1$s); do kill -KILL $p; done; ip netns del %1$s",
                i < h->hosts ? h->name[i] : h->bridge);
    free(h);
    *out = NULL;
}

pid_t hostkit_spawn(const struct hostkit *h, unsigned host, const char *log,
                    const char *const *argv)
{
    const char *there[48] = {"/usr/bin/env", "ip", "netns", "exec", h->name[host]};
    size_t n = 5;
    while ((there[n] = *argv++))
        assert_true(++n < sizeof there / sizeof *there);
    return trainkit_spawn(log, there);
}

struct opening {
    const struct hostkit *h;
    unsigned host;
    uint16_t port;
    int fd;
};

static void *open_socket(void *arg)
{
    struct opening *o = arg;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(o->port)};
    inet_pton(AF_INET, hostkit_address(o->host), &at.sin_addr);
    o->fd = go_to(o->h, o->host) ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (o->fd >= 0 && bind(o->fd, (struct sockaddr *)&at, sizeof at) != 0) {
        close(o->fd);
        o->fd = -1;
    }
    return NULL;
}

/* By a thread, which ends where it went. */
int hostkit_socket(const struct hostkit *h, unsigned host, uint16_t port)
{
    struct opening o = {h, host, port, -1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_socket, &o), 0);
    pthread_join(thread, NULL);
    assert_true(o.fd >= 0);
    return o.fd;
}

/* --- faults -------------------------------------------------------------------------------------
 */
/* What each takes and undoes; %1$s host, %2$s bridge, %3$u the bridge's port. */
#define NFT(rule)                                                                                  \
    "ip netns exec %1$s nft 'table inet lhk { chain in { type filter hook input priority 0; "      \
    "iifname \"eth0\" " rule "; }; }'"
#define UNNFT "ip netns exec %1$s nft delete table inet lhk"

static const struct {
    const char *harm, *heal, *needs;
} faults[HOSTKIT_FAULTS] = {
    [HOSTKIT_DOWN] = {": %1$s; ip -n %2$s link set p%3$u down",
                      ": %1$s; ip -n %2$s link set p%3$u up", "iproute2"},
    [HOSTKIT_DEAF] = {NFT("drop"), UNNFT, "nftables"},
    [HOSTKIT_LOSS] = {NFT("numgen random mod 100 < 20 drop"), UNNFT, "nftables"},
    [HOSTKIT_RATE] = {"tc -n %1$s qdisc add dev eth0 root tbf rate 50mbit burst 32kb latency 50ms",
                      "tc -n %1$s qdisc del dev eth0 root", "tc with tbf (iproute2)"},
    /* nftables' queue is in fewer kernels than this */
    [HOSTKIT_DELAY] = {"ip netns exec %1$s iptables -A INPUT -i eth0 -j NFQUEUE --queue-num 5 "
                       "--queue-bypass",
                       "ip netns exec %1$s iptables -F INPUT",
                       "iptables, and libnetfilter-queue-dev when it was built"},
};

bool hostkit_harm(struct hostkit *h, unsigned host, enum hostkit_fault fault)
{
    char *said = NULL;
    if (h->harmed[host])
        return false;
    bool done = (fault != HOSTKIT_DELAY || h->delays) &&
                kit_run(&said, faults[fault].harm, h->name[host], h->bridge, host) == 0;
    if (!done && !h->told[fault])
        print_message("no host is %s here, for which it takes %s%s%s\n", hostkit_names[fault],
                      faults[fault].needs, said ? ": " : "", said ? said : "");
    h->told[fault] = h->told[fault] || !done;
    h->harmed[host] = done;
    h->fault[host] = fault;
    free(said);
    return done;
}

void hostkit_heal(struct hostkit *h, unsigned host)
{
    if (!h->harmed[host])
        return;
    h->harmed[host] = false;
    assert_int_equal(kit_run(NULL, faults[h->fault[host]].heal, h->name[host], h->bridge, host), 0);
}
