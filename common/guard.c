/* The guard's thread: requests of ZAP, and the monitors of listening sockets. Invariant: the list
 * and the counts are touched only under the mutex, everything else only by the thread.
 *
 * How the door is shut: a packet filter on the listening socket that takes nothing. ZeroMQ itself
 * has no bound on connections: it would accept until file descriptors end, and with them the
 * checkpoints of this very process; and to unbind would end the connections that stand. */
#include "common/guard.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/net.h"
#include "common/term.h"

#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES   7 /* version, request, domain, address, routing id, mechanism, key */
#define DOORS_MAX    32
#define YOUNG_MAX    128 /* connections that may be about to show a key */
#define FILES_KEPT   128 /* descriptors that connections may not take */
#define NOTED_KEYS   16
#define TICK_MS      250
#define SEEN_MS      1000 /* how often connections are looked at */
/* Never ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL, which 4.3.4 also tells of where a message cannot be
 * deciphered: telling it sets errno, which is where the network's thread then looks for why. With
 * EAGAIN there it takes the connection for one whose queue is full: it stays, and is read no more.
 */
#define EVENTS                                                                                     \
    (ZMQ_EVENT_LISTENING | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |                    \
     ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_MONITOR_STOPPED)
/* Bytes that may come over a connection between two messages that its socket takes: more than the
 * messages that may wait to be taken (LH_NET_INBOX) are worth. */
#define UNHEARD_MAX (256u << 20)
/* How long a message may take to come, where its socket is read: its length may be what a bad
 * network made of it, and then what follows is taken for its end. */
#define UNHEARD_SECONDS 30
#define HANDSHAKE_BYTES 1024 /* about 600, and no message comes of them */

/* A connection that was accepted a moment ago. */
struct young {
    int fd;
    double since;
};

/* A listening socket. */
struct door {
    void *monitor;
    int listener; /* -1: not yet known */
    bool shut;
};

struct lh_guard {
    void *zmq;
    pthread_t thread;
    pthread_mutex_t mutex;
    bool has_thread;
    struct lh_key_owner *list;
    size_t n_list, cap_list;
    struct lh_guard_counts counts;
    pthread_mutex_t orders; /* one order at a time */
    void *orders_out, *orders_in;
    /* of the thread */
    void *zap;
    struct door doors[DOORS_MAX];
    size_t n_doors;
    struct young *young;
    size_t n_young, cap_young;
    unsigned char *open; /* [cap_open] by descriptor: a connection of ours */
    size_t cap_open, n_open, open_max;
    struct heard {
        _Atomic uint32_t messages;
    } * heard; /* [cap_open] by descriptor */
    struct seen {
        uint32_t heard;
        uint64_t bytes;          /* received when it was heard last */
        double since;            /* when there were more, in seconds; 0: there are not */
    } * seen;                    /* [cap_open] */
    double looked;               /* seconds */
    _Atomic uint64_t emptied_ms; /* when a role last found that its socket had no message */
    char noted[NOTED_KEYS][LH_KEY_SIZE];
    size_t n_noted;
};

/* --- the list ----------------------------------------------------------------------------------
 */
static struct lh_key_owner *find(struct lh_guard *g, const char *key)
{
    for (size_t i = 0; i < g->n_list; i++)
        if (strcmp(g->list[i].key, key) == 0)
            return &g->list[i];
    return NULL;
}

static int add(struct lh_guard *g, const struct lh_key_owner *who)
{
    const struct lh_key_owner *known = find(g, who->key);
    if (known && known->role != who->role)
        return lh_err_set(LH_EMISMATCH,
                          "the key of %s is that of %s: a key stands for one role; make another "
                          "with 'longhaul keygen'",
                          who->name, known->name);
    if (known)
        return 0;
    LH_TRY(LH_GROW(&g->list, &g->cap_list, g->n_list + 1, "allow-list"));
    g->list[g->n_list++] = *who;
    return 0;
}

int lh_guard_allow(struct lh_guard *g, const struct lh_key_owner *who)
{
    pthread_mutex_lock(&g->mutex);
    int rc = add(g, who);
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

int lh_guard_restrict(struct lh_guard *g, Lh__Role role, const struct lh_key_owner *list, size_t n)
{
    int rc = 0;
    pthread_mutex_lock(&g->mutex);
    size_t kept = 0;
    for (size_t i = 0; i < g->n_list; i++)
        if (g->list[i].role != role)
            g->list[kept++] = g->list[i];
    g->n_list = kept;
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (list[i].role == role)
            rc = add(g, &list[i]);
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

bool lh_guard_knows(struct lh_guard *g, const char *key)
{
    pthread_mutex_lock(&g->mutex);
    bool known = find(g, key) != NULL;
    pthread_mutex_unlock(&g->mutex);
    return known;
}

int lh_guard_allowed(struct lh_guard *g, Lh__Role role, struct lh_key_owner **out, size_t *n)
{
    *out = NULL;
    *n = 0;
    pthread_mutex_lock(&g->mutex);
    int rc = LH_NEW_ARRAY(out, g->n_list, "allow-list");
    for (size_t i = 0; rc == 0 && i < g->n_list; i++)
        if (role == LH__ROLE__ROLE_NONE || g->list[i].role == role)
            (*out)[(*n)++] = g->list[i];
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

struct lh_guard_counts lh_guard_counts(struct lh_guard *g)
{
    pthread_mutex_lock(&g->mutex);
    struct lh_guard_counts c = g->counts;
    pthread_mutex_unlock(&g->mutex);
    return c;
}

/* --- keys that are shown -----------------------------------------------------------------------
 */
/* The key of a request in text, "" for none. */
static void key_of(zmq_msg_t *frame, char out[LH_KEY_SIZE])
{
    if (zmq_msg_size(&frame[5]) != 5 || memcmp(zmq_msg_data(&frame[5]), "CURVE", 5) != 0 ||
        zmq_msg_size(&frame[6]) != 32 || !zmq_z85_encode(out, zmq_msg_data(&frame[6]), 32))
        out[0] = '\0';
}

static void note_refused(struct lh_guard *g, const char *key, zmq_msg_t *address)
{
    for (size_t i = 0; i < g->n_noted; i++)
        if (strcmp(g->noted[i], key) == 0)
            return;
    if (g->n_noted == NOTED_KEYS)
        return; /* enough lines about strangers; the count goes on */
    memcpy(g->noted[g->n_noted++], key, LH_KEY_SIZE);
    lh_log_tell(
        LH_LOG_WARN, "refuse", LH_FIELDS(LH_F("key", key)),
        "refused a peer at %.*s: its key %s is on no list (later attempts are only counted)",
        (int)zmq_msg_size(address), (const char *)zmq_msg_data(address), key);
}

static void answer(struct lh_guard *g, zmq_msg_t *request, const char *status, const char *mark)
{
    zmq_send(g->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(g->zap, zmq_msg_data(request), zmq_msg_size(request), ZMQ_SNDMORE);
    zmq_send(g->zap, status, 3, ZMQ_SNDMORE);
    zmq_send(g->zap, "", 0, ZMQ_SNDMORE);
    zmq_send(g->zap, mark, strlen(mark), ZMQ_SNDMORE);
    zmq_send(g->zap, "", 0, 0);
}

static void judge(struct lh_guard *g, zmq_msg_t *frame)
{
    char key[LH_KEY_SIZE], mark[LH_GUARD_MARK_SIZE] = "";
    key_of(frame, key);
    pthread_mutex_lock(&g->mutex);
    const struct lh_key_owner *who = find(g, key);
    if (who)
        snprintf(mark, sizeof mark, "%d%s", (int)who->role, who->key);
    ++*(who ? &g->counts.let_in : &g->counts.refused);
    pthread_mutex_unlock(&g->mutex);
    if (!who)
        note_refused(g, key, &frame[3]);
    answer(g, &frame[1], who ? "200" : "400", mark);
}

static void take_request(struct lh_guard *g)
{
    zmq_msg_t frame[ZAP_FRAMES];
    size_t n = 0;
    bool more = true, whole = true;
    while (more && whole) {
        zmq_msg_t *m = &frame[n < ZAP_FRAMES ? n : ZAP_FRAMES - 1];
        if (n >= ZAP_FRAMES)
            zmq_msg_close(m);
        zmq_msg_init(m);
        n++;
        whole = zmq_msg_recv(m, g->zap, 0) >= 0;
        more = whole && zmq_msg_more(m);
    }
    if (whole && n == ZAP_FRAMES)
        judge(g, frame);
    else if (whole) /* libzmq speaks another ZAP than 1.0 */
        answer(g, &frame[1], "500", "");
    for (size_t i = 0; i < n && i < ZAP_FRAMES; i++)
        zmq_msg_close(&frame[i]);
}

/* --- doors -------------------------------------------------------------------------------------
 */
/* Whether the socket takes attempts to connect. */
static void set_door(struct lh_guard *g, struct door *d, bool shut)
{
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    struct sock_fprog filter = {.len = 1, .filter = &nothing};
    int unused = 0;
    if (d->listener < 0 || d->shut == shut)
        return;
    if (shut)
        setsockopt(d->listener, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
    else
        setsockopt(d->listener, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
    d->shut = shut;
    pthread_mutex_lock(&g->mutex);
    g->counts.shut += shut;
    pthread_mutex_unlock(&g->mutex);
}

void lh_guard_heard(struct lh_guard *g, int fd)
{
    if (fd >= 0 && (size_t)fd < g->cap_open)
        atomic_fetch_add_explicit(&g->heard[fd].messages, 1, memory_order_relaxed);
}

void lh_guard_emptied(struct lh_guard *g)
{
    atomic_store_explicit(&g->emptied_ms, (uint64_t)(1e3 * lh_now()), memory_order_relaxed);
}

static uint64_t bytes_received(int fd)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 ? info.tcpi_bytes_received : 0;
}

/* What came over a connection and is no message yet: whether that is too much, or took too long. */
static bool is_stuck(struct lh_guard *g, struct seen *seen, uint64_t bytes, double now)
{
    const double emptied =
        1e-3 * (double)atomic_load_explicit(&g->emptied_ms, memory_order_relaxed);
    if (bytes <= seen->bytes || bytes <= HANDSHAKE_BYTES)
        return false;
    if (seen->since == 0)
        seen->since = now;
    return bytes - seen->bytes > UNHEARD_MAX ||
           (now - seen->since > UNHEARD_SECONDS && emptied > seen->since + SEEN_MS / 1000.0);
}

/* Connections that send and send, and no message comes of it. */
static void look_at_connections(struct lh_guard *g)
{
    double now = lh_now();
    if (now - g->looked < SEEN_MS / 1000.0)
        return;
    const bool suspended = now - g->looked > 5 * SEEN_MS / 1000.0;
    g->looked = now;
    size_t left = g->n_open;
    for (size_t fd = 0; left > 0 && fd < g->cap_open; fd++) {
        if (!g->open[fd])
            continue;
        left--;
        struct seen *seen = &g->seen[fd];
        uint64_t bytes = bytes_received((int)fd);
        uint32_t heard = atomic_load_explicit(&g->heard[fd].messages, memory_order_relaxed);
        if (heard != seen->heard || bytes < seen->bytes) {
            *seen = (struct seen){.heard = heard, .bytes = bytes};
            continue;
        }
        if (suspended)
            seen->since = 0;
        if (is_stuck(g, seen, bytes, now)) {
            lh_note("cut off a peer that sent %llu KB without ending a message",
                    (unsigned long long)(bytes - seen->bytes) >> 10);
            shutdown((int)fd, SHUT_RDWR);
            *seen = (struct seen){.heard = heard, .bytes = bytes};
        }
    }
}

static void forget_young(struct lh_guard *g, size_t i)
{
    memmove(&g->young[i], &g->young[i + 1], (--g->n_young - i) * sizeof *g->young);
}

static void opened(struct lh_guard *g, int fd)
{
    if (fd < 0 || (size_t)fd >= g->cap_open)
        return;
    g->n_open += !g->open[fd];
    g->open[fd] = 1;
    g->seen[fd] =
        (struct seen){.heard = atomic_load_explicit(&g->heard[fd].messages, memory_order_relaxed)};
    if (g->n_young < g->cap_young)
        g->young[g->n_young++] = (struct young){.fd = fd, .since = lh_now()};
}

static void closed(struct lh_guard *g, int fd)
{
    if (fd < 0 || (size_t)fd >= g->cap_open)
        return;
    g->n_open -= g->open[fd];
    g->open[fd] = 0;
    for (size_t i = 0; i < g->n_young; i++)
        if (g->young[i].fd == fd) {
            forget_young(g, i);
            break;
        }
}

/* An event does not say which connection's key was good. It is one of the young, and their number
 * is what counts. */
static void take_event(struct lh_guard *g, struct door *d, uint16_t event, int value)
{
    switch (event) {
    case ZMQ_EVENT_LISTENING:
        d->listener = value;
        break;
    case ZMQ_EVENT_ACCEPTED:
        opened(g, value);
        break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        if (g->n_young)
            forget_young(g, 0);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        closed(g, value);
        break;
    case ZMQ_EVENT_CLOSED:
        if (value == d->listener)
            d->listener = -1;
        else
            closed(g, value);
        break;
    default:
        break;
    }
}

/* False once the socket is gone. */
static bool take_events(struct lh_guard *g, struct door *d)
{
    unsigned char head[6];
    char endpoint[LH_NET_ENDPOINT_MAX];
    uint16_t event = 0;
    int32_t value = 0;
    while (zmq_recv(d->monitor, head, sizeof head, ZMQ_DONTWAIT) == (int)sizeof head) {
        zmq_recv(d->monitor, endpoint, sizeof endpoint, 0);
        memcpy(&event, head, sizeof event);
        memcpy(&value, head + 2, sizeof value);
        if (event == ZMQ_EVENT_MONITOR_STOPPED)
            return false;
        take_event(g, d, event, value);
    }
    return true;
}

static void look_after_doors(struct lh_guard *g)
{
    double now = lh_now();
    while (g->n_young && now - g->young[0].since > LH_NET_HANDSHAKE_SECONDS)
        forget_young(g, 0); /* ZeroMQ has closed it, or it has shown its key */
    bool shut = g->n_young >= YOUNG_MAX || g->n_open >= g->open_max;
    for (size_t i = 0; i < g->n_doors; i++)
        set_door(g, &g->doors[i], shut);
    pthread_mutex_lock(&g->mutex);
    g->counts.connections = g->n_open;
    pthread_mutex_unlock(&g->mutex);
}

/* --- the thread --------------------------------------------------------------------------------
 */
static void *open_pair(struct lh_guard *g, const char *endpoint, bool bind)
{
    int unbounded = 0, linger = 0;
    void *s = zmq_socket(g->zmq, ZMQ_PAIR);
    if (!s)
        return NULL;
    /* A full queue would stop the network's own thread, which is who tells of events. */
    zmq_setsockopt(s, ZMQ_RCVHWM, &unbounded, sizeof unbounded);
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
    if ((bind ? zmq_bind(s, endpoint) : zmq_connect(s, endpoint)) != 0) {
        zmq_close(s);
        return NULL;
    }
    return s;
}

/* An order is the endpoint of a monitor to watch, or "" to stop. False: stop. */
static bool take_order(struct lh_guard *g)
{
    char endpoint[64];
    int n = zmq_recv(g->orders_in, endpoint, sizeof endpoint - 1, 0);
    if (n <= 0)
        return false;
    endpoint[n < (int)sizeof endpoint ? n : (int)sizeof endpoint - 1] = '\0';
    void *monitor = g->n_doors < DOORS_MAX ? open_pair(g, endpoint, false) : NULL;
    if (monitor)
        g->doors[g->n_doors++] = (struct door){.monitor = monitor, .listener = -1};
    zmq_send(g->orders_in, monitor ? "y" : "n", 1, 0);
    return true;
}

static bool turn(struct lh_guard *g)
{
    zmq_pollitem_t items[2 + DOORS_MAX] = {{.socket = g->orders_in, .events = ZMQ_POLLIN},
                                           {.socket = g->zap, .events = ZMQ_POLLIN}};
    bool shut = false;
    for (size_t i = 0; i < g->n_doors; i++) {
        items[2 + i] = (zmq_pollitem_t){.socket = g->doors[i].monitor, .events = ZMQ_POLLIN};
        shut = shut || g->doors[i].shut;
    }
    if (zmq_poll(items, (int)(2 + g->n_doors),
                 g->n_young || shut ? TICK_MS
                 : g->n_open        ? SEEN_MS
                                    : -1) < 0 &&
        zmq_errno() == ETERM)
        return false;
    if (items[1].revents)
        take_request(g);
    for (size_t i = g->n_doors; i-- > 0;) /* backwards: one may go */
        if (items[2 + i].revents && !take_events(g, &g->doors[i])) {
            zmq_close(g->doors[i].monitor);
            g->doors[i] = g->doors[--g->n_doors];
        }
    look_after_doors(g);
    look_at_connections(g);
    return !items[0].revents || take_order(g);
}

static void *run(void *arg)
{
    struct lh_guard *g = arg;
    while (turn(g))
        ;
    for (size_t i = 0; i < g->n_doors; i++)
        zmq_close(g->doors[i].monitor);
    zmq_close(g->zap);
    zmq_close(g->orders_in);
    return NULL;
}

int lh_guard_watch(struct lh_guard *g, void *socket)
{
    char endpoint[64], ok = 'n';
    snprintf(endpoint, sizeof endpoint, "inproc://longhaul-door-%p", socket);
    if (zmq_socket_monitor(socket, endpoint, EVENTS) != 0)
        return lh_err_set(LH_EIO, "watching a socket: %s", zmq_strerror(zmq_errno()));
    pthread_mutex_lock(&g->orders);
    if (zmq_send(g->orders_out, endpoint, strlen(endpoint), 0) < 0 ||
        zmq_recv(g->orders_out, &ok, 1, 0) < 0)
        ok = 'n';
    pthread_mutex_unlock(&g->orders);
    return ok == 'y'
               ? 0
               : lh_err_set(LH_EIO, "watching a socket: at most %d listen in a context", DOORS_MAX);
}

static size_t connections_max(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur > 1u << 20)
        return (1u << 20) - FILES_KEPT;
    return files.rlim_cur > 2 * FILES_KEPT ? files.rlim_cur - FILES_KEPT : files.rlim_cur / 2;
}

static int open_guard(struct lh_guard *g)
{
    g->open_max = connections_max();
    g->cap_open = g->open_max + FILES_KEPT;
    g->cap_young = 8 * YOUNG_MAX; /* what is accepted before the door is shut */
    LH_TRY(LH_NEW_ARRAY(&g->open, g->cap_open, "connections"));
    LH_TRY(LH_NEW_ARRAY(&g->heard, g->cap_open, "connections"));
    LH_TRY(LH_NEW_ARRAY(&g->seen, g->cap_open, "connections"));
    LH_TRY(LH_NEW_ARRAY(&g->young, g->cap_young, "connections"));
    g->zap = zmq_socket(g->zmq, ZMQ_REP);
    if (!g->zap || zmq_bind(g->zap, ZAP_ENDPOINT) != 0)
        return zmq_errno() == EADDRINUSE
                   ? lh_err_set(LH_EBUSY, "the context has a guard already")
                   : lh_err_set(LH_EIO, "starting the guard: %s", zmq_strerror(zmq_errno()));
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "inproc://longhaul-guard-%p", (void *)g);
    g->orders_in = open_pair(g, endpoint, true);
    g->orders_out = g->orders_in ? open_pair(g, endpoint, false) : NULL;
    return g->orders_out ? 0
                         : lh_err_set(LH_EIO, "starting the guard: %s", zmq_strerror(zmq_errno()));
}

int lh_guard_start(struct lh_guard **out, void *zmq)
{
    struct lh_guard *g = NULL;
    int rc;
    LH_TRY(LH_NEW(&g, "guard"));
    g->zmq = zmq;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_mutex_init(&g->orders, NULL);
    LH_TRY_TO(fail, open_guard(g));
    int e = pthread_create(&g->thread, NULL, run, g);
    if (e != 0) {
        rc = lh_err_errno(e, "starting the guard's thread");
        goto fail;
    }
    g->has_thread = true;
    *out = g;
    return 0;
fail:
    lh_guard_stop(&g);
    return rc;
}

void lh_guard_stop(struct lh_guard **out)
{
    struct lh_guard *g = *out;
    if (!g)
        return;
    if (g->has_thread) {
        zmq_send(g->orders_out, "", 0, ZMQ_DONTWAIT);
        pthread_join(g->thread, NULL); /* it closes its sockets */
    } else {
        if (g->zap)
            zmq_close(g->zap);
        if (g->orders_in)
            zmq_close(g->orders_in);
    }
    if (g->orders_out)
        zmq_close(g->orders_out);
    pthread_mutex_destroy(&g->mutex);
    pthread_mutex_destroy(&g->orders);
    lh_mem_free(g->list);
    lh_mem_free(g->open);
    lh_mem_free(g->heard);
    lh_mem_free(g->seen);
    lh_mem_free(g->young);
    lh_mem_free(g);
    *out = NULL;
}
