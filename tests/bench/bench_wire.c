/* The data path alone: what push and pull of a dense tensor, or of rows of a table, cost, beside
 * raw ZeroMQ in the same run, with the same security, in the same layout of processes and threads.
 *
 *     bench_wire TRANSPORT BYTES CLIENTS FLIGHT SECONDS [OPERATION]
 *
 * TRANSPORT: inproc (threads of one process), local (likewise, but our server has its turns on the
 * client's thread, as in `longhaul train` by threads), ipc, tcp, ipc-curve, tcp-curve (processes).
 * OPERATION: push, pull or step of a tensor of BYTES; rows-push or rows-pull of rows of 32 floats,
 * BYTES in all but for their ids; dense (the default) or rows: each of these.
 * FLIGHT: requests that each client has under way, each on a connection of its own. Of each
 * operation ours and raw take a turn of SECONDS that does not count, in which memory is touched for
 * the first time, and then TURNS more, one after the other; a line of JSON each. "raw" sends the
 * tensor as one message, "raw-pieces", above 1 MB, as messages of 1 MB. */
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/term.h"
#include "tests/bench/wire_rig.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SAMPLES = 1 << 18, SYSTEMS = 3, ACTORS = SYSTEMS * (WIRE_CLIENTS_MAX + 1), TURNS = 3 };

static const char *const op_names[] = {"push", "pull", "step", "rows-push", "rows-pull"};

struct order {
    enum wire_op op; /* WIRE_OPS: connect */
    double seconds;
};

struct report {
    int rc;
    uint64_t done;
    double seconds;
};

/* What processes share. */
struct board {
    char endpoint[SYSTEMS][LH_NET_ENDPOINT_MAX];
    uint64_t n[WIRE_CLIENTS_MAX];
    float us[WIRE_CLIENTS_MAX][SAMPLES]; /* of each operation */
};

/* A server or a client, as a thread or a process. */
struct actor {
    const struct wire_system *system;
    const struct wire_case *c;
    struct board *board;
    uint32_t side;  /* of SYSTEMS */
    uint32_t index; /* of a client */
    bool serves;
    void *zmq; /* NULL: a context of its own */
    int fd[2]; /* [0] is the director's end */
    pid_t pid; /* 0: a thread */
    pthread_t thread;
};

struct stage {
    struct wire_case c[SYSTEMS];
    const struct wire_system *system[SYSTEMS];
    char bind[SYSTEMS][LH_NET_ENDPOINT_MAX], scheduler[LH_NET_ENDPOINT_MAX], store[128], dir[96];
    struct wire_keys keys;
    struct board *board;
    struct actor actors[ACTORS];
    size_t n_actors, n_systems;
    bool threads;
    void *zmq;
    struct lh_security security; /* of the scheduler that is played */
    struct lh_net_socket *scheduling;
};

/* --- the actors ----------------------------------------------------------------------------------
 */
static void tell(struct actor *a, struct report r)
{
    if (write(a->fd[1], &r, sizeof r) != sizeof r)
        fprintf(stderr, "bench_wire: nobody listens\n");
}

static void bound(void *ctx, const char *at)
{
    struct actor *a = ctx;
    snprintf(a->board->endpoint[a->side], LH_NET_ENDPOINT_MAX, "%s", at);
    tell(a, (struct report){0});
}

/* Operations for some seconds, of which the first quarter does not count; longer where they are
 * few.
 */
static int measure(struct actor *a, void *client, const struct order *o, struct report *r)
{
    float *us = a->board->us[a->index];
    double began[WIRE_FLIGHT_MAX], now = lh_now(), first = 0;
    const double counted = now + o->seconds / 4, end = now + o->seconds,
                 late = now + 8 * o->seconds;
    uint32_t busy = a->c->flight, slot;
    size_t n = 0;
    bool over = false;
    for (uint32_t i = 0; i < busy; i++) {
        began[i] = lh_now();
        LH_TRY(a->system->begin(client, i, o->op));
    }
    while (busy > 0) {
        int rc = a->system->wait(client, over ? 0 : end, &slot);
        LH_TRY(rc < 0 ? rc : 0);
        now = lh_now();
        if (rc == 0 && now >= counted) { /* from the end of one operation to the end of another */
            if (first > 0 && n < SAMPLES)
                us[n++] = (float)(1e6 * (now - began[slot]));
            r->done += first > 0;
            first = first > 0 ? first : now;
            r->seconds = now - first;
        }
        over =
            over || rc == LH_AGAIN || (now >= end && (r->done >= 4 * a->c->flight || now >= late));
        if (over) {
            busy--;
            continue;
        }
        began[slot] = now;
        LH_TRY(a->system->begin(client, slot, o->op));
    }
    a->board->n[a->index] = n;
    return 0;
}

static int act(struct actor *a, void *zmq)
{
    void *client = NULL;
    struct order o;
    int rc = 0;
    if (a->serves)
        return a->system->serve(zmq, a->c, bound, a);
    while (rc == 0 && read(a->fd[1], &o, sizeof o) == sizeof o) {
        struct report r = {0};
        rc = o.op == WIRE_OPS
                 ? a->system->open(&client, zmq, a->c, a->board->endpoint[a->side], a->index)
                 : measure(a, client, &o, &r);
        r.rc = rc;
        if (rc == 0)
            tell(a, r);
    }
    a->system->close(&client);
    return rc;
}

static void *run(void *arg)
{
    struct actor *a = arg;
    void *zmq = a->zmq ? a->zmq : zmq_ctx_new();
    int rc = act(a, zmq);
    if (rc < 0 && rc != LH_ECANCELED) {
        fprintf(stderr, "bench_wire: %s: %s\n", a->system->name, lh_err_text());
        tell(a, (struct report){.rc = rc});
    }
    return NULL;
}

static int start(struct actor *a)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, a->fd) != 0)
        return lh_err_set(LH_EIO, "no pair of sockets");
    if (a->zmq)
        return pthread_create(&a->thread, NULL, run, a) == 0
                   ? 0
                   : lh_err_set(LH_EIO, "no thread can be started");
    a->pid = fork();
    if (a->pid < 0)
        return lh_err_set(LH_EIO, "no process can be started");
    if (a->pid > 0) {
        close(a->fd[1]);
        return 0;
    }
    close(a->fd[0]);
    run(a);
    _exit(0);
}

/* --- the director --------------------------------------------------------------------------------
 */
static int hear(struct actor *a, struct report *r)
{
    if (read(a->fd[0], r, sizeof *r) != sizeof *r || r->rc < 0)
        return lh_err_set(LH_EPEER, "%s: a %s failed", a->system->name,
                          a->serves ? "server" : "client");
    return 0;
}

static int order(struct actor *a, const struct order *o)
{
    return write(a->fd[0], o, sizeof *o) == sizeof *o ? 0 : lh_err_set(LH_EIO, "a client is gone");
}

static int add_actor(struct stage *s, size_t side, bool serves, uint32_t index)
{
    struct actor *a = &s->actors[s->n_actors++];
    *a = (struct actor){.system = s->system[side],
                        .c = &s->c[side],
                        .board = s->board,
                        .side = (uint32_t)side,
                        .index = index,
                        .serves = serves,
                        .zmq = s->zmq};
    return start(a);
}

static int connect_clients(struct stage *s, size_t side)
{
    const struct order o = {.op = WIRE_OPS};
    struct report r;
    for (size_t i = 0; i < s->n_actors; i++) {
        struct actor *a = &s->actors[i];
        if (a->side != side || a->serves)
            continue;
        LH_TRY(order(a, &o));
        if (s->c[side].local)
            LH_TRY(
                wire_schedule(&s->scheduling, s->zmq, &s->c[side], NULL, s->board->endpoint[side]));
        LH_TRY(hear(a, &r));
    }
    return 0;
}

/* Everybody is started before this process has a context of its own: a fork takes no threads
 * along. */
static int start_all(struct stage *s)
{
    struct report r;
    if (s->threads)
        s->zmq = zmq_ctx_new();
    for (size_t i = 0; i < s->n_systems; i++) {
        if (!s->c[i].local)
            LH_TRY(add_actor(s, i, true, 0));
        for (uint32_t k = 0; k < s->c[i].clients; k++)
            LH_TRY(add_actor(s, i, false, k));
    }
    if (!s->threads)
        s->zmq = zmq_ctx_new();
    LH_TRY(lh_security_open(&s->security, s->zmq, s->c[0].keys ? &s->keys.scheduler : NULL, false));
    for (size_t i = 0; i < s->n_actors; i++)
        if (s->actors[i].serves && s->actors[i].side > 0)
            LH_TRY(hear(&s->actors[i], &r));
    if (s->c[0].local)
        snprintf(s->board->endpoint[0], LH_NET_ENDPOINT_MAX, "%s", s->c[0].bind);
    else
        LH_TRY(
            wire_schedule(&s->scheduling, s->zmq, &s->c[0], &s->security, s->board->endpoint[0]));
    for (size_t i = 0; i < s->n_systems; i++)
        LH_TRY(connect_clients(s, i));
    return 0;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print(const struct stage *s, size_t side, enum wire_op op, double per_s,
                  const char *transport)
{
    const struct wire_case *c = &s->c[side];
    float *all = s->board->us[0];
    size_t n = s->board->n[0];
    for (uint32_t k = 1; k < c->clients; k++) {
        memmove(all + n, s->board->us[k], s->board->n[k] * sizeof *all);
        n += s->board->n[k];
    }
    qsort(all, n, sizeof *all, by_size);
    const double bytes = (double)c->floats * sizeof(float) * (op == WIRE_STEP ? 2 : 1);
    printf("{\"transport\": \"%s\", \"bytes\": %zu, \"clients\": %u, \"flight\": %u, \"op\": "
           "\"%s\", \"system\": \"%s\", \"gb_per_s\": %.4f, \"per_s\": %.1f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"max_us\": %.1f}\n",
           transport, c->floats * sizeof(float), c->clients, c->flight, op_names[op],
           side == 2 ? "raw-pieces" : s->system[side]->name, per_s * bytes * 1e-9, per_s,
           n ? all[n / 2] : 0, n ? all[n - 1 - n / 100] : 0, n ? all[n - 1] : 0);
}

/* transport: for the line; NULL: none. */
static int take_turn(struct stage *s, size_t side, const struct order *o, const char *transport)
{
    double per_s = 0;
    for (int asked = 1; asked >= 0; asked--) {
        for (size_t i = 0; i < s->n_actors; i++) {
            struct actor *a = &s->actors[i];
            struct report r;
            if (a->side != side || a->serves)
                continue;
            if (asked) {
                LH_TRY(order(a, o));
                continue;
            }
            LH_TRY(hear(a, &r));
            per_s += r.seconds > 0 ? (double)r.done / r.seconds : 0;
        }
    }
    if (transport)
        print(s, side, o->op, per_s, transport);
    return 0;
}

static void end_all(struct stage *s)
{
    lh_net_close(&s->scheduling);
    lh_security_close(&s->security);
    for (size_t i = 0; i < s->n_actors; i++) {
        close(s->actors[i].fd[0]);
        if (s->actors[i].pid > 0)
            kill(s->actors[i].pid, SIGKILL);
        else
            shutdown(s->actors[i].fd[1], SHUT_RDWR);
    }
    if (s->zmq)
        zmq_ctx_shutdown(s->zmq);
    for (size_t i = 0; i < s->n_actors; i++) {
        if (s->actors[i].pid > 0)
            waitpid(s->actors[i].pid, NULL, 0);
        else if (s->actors[i].thread)
            pthread_join(s->actors[i].thread, NULL);
    }
    if (s->zmq)
        zmq_ctx_term(s->zmq);
    if (s->dir[0])
        lh_fs_remove_tree(s->dir);
}

/* --- setting up ----------------------------------------------------------------------------------
 */
static int make_keys(struct wire_keys *k)
{
    LH_TRY(lh_keys_make(&k->scheduler, LH__ROLE__ROLE_SCHEDULER, "scheduler", NULL));
    LH_TRY(lh_keys_make(&k->server, LH__ROLE__ROLE_SERVER, "server", &k->scheduler.own));
    LH_TRY(lh_keys_make(&k->worker, LH__ROLE__ROLE_WORKER, "worker", &k->scheduler.own));
    return lh_keys_allow(&k->scheduler, &k->server.own);
}

static size_t cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 0;
}

static int set_up(struct stage *s, const char *transport, const struct wire_case *given)
{
    int rc;
    const bool curve = strstr(transport, "-curve") != NULL, tcp = strncmp(transport, "tcp", 3) == 0;
    const bool local = strcmp(transport, "local") == 0;
    s->threads = local || strcmp(transport, "inproc") == 0;
    if (!s->threads && !tcp && strncmp(transport, "ipc", 3) != 0)
        return lh_err_set(LH_EUSAGE, "%s: not a transport", transport);
    s->board =
        mmap(NULL, sizeof *s->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s->board == MAP_FAILED)
        return lh_err_set(LH_ENOMEM, "no shared memory");
    const char *tmp = getenv("TMPDIR");
    snprintf(s->dir, sizeof s->dir, "%s/bench_wire.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(s->dir)) {
        rc = lh_err_errno(errno, "%s", s->dir);
        s->dir[0] = '\0';
        return rc;
    }
    snprintf(s->store, sizeof s->store, "%s/store", s->dir);
    if (s->threads)
        snprintf(s->scheduler, sizeof s->scheduler, "inproc://scheduler");
    else
        snprintf(s->scheduler, sizeof s->scheduler, "ipc://%s/scheduler", s->dir);
    if (curve)
        LH_TRY(make_keys(&s->keys));
    s->n_systems = given->floats > given->piece ? 3 : 2;
    for (size_t i = 0; i < s->n_systems; i++) {
        if (s->threads)
            snprintf(s->bind[i], sizeof s->bind[i], "inproc://side-%zu", i);
        else if (tcp)
            snprintf(s->bind[i], sizeof s->bind[i], "tcp://127.0.0.1:*");
        else
            snprintf(s->bind[i], sizeof s->bind[i], "ipc://%s/side-%zu", s->dir, i);
        s->system[i] = i == 0 ? &wire_ours : &wire_raw;
        s->c[i] = *given;
        s->c[i].piece = i == 1 ? given->floats : given->piece;
        s->c[i].local = local && i == 0;
        s->c[i].spin = s->threads && given->clients + 1 <= cores() ? 300e-6 : 0;
        s->c[i].bind = s->bind[i];
        s->c[i].scheduler = s->scheduler;
        s->c[i].store = s->store;
        s->c[i].keys = curve ? &s->keys : NULL;
    }
    return 0;
}

/* only: the one operation that is wanted; NULL: all. */
static int bench(const char *transport, const struct wire_case *given, double seconds,
                 const char *only)
{
    static struct stage s;
    int rc;
    LH_TRY_TO(done, set_up(&s, transport, given));
    LH_TRY_TO(done, start_all(&s));
    for (int op = given->rows > 0 ? WIRE_ROWS_PUSH : 0;
         op < (given->rows > 0 ? WIRE_OPS : WIRE_ROWS_PUSH); op++) {
        const struct order o = {.op = (enum wire_op)op, .seconds = seconds};
        if (only && strcmp(only, op_names[op]) != 0)
            continue;
        for (int turn = 0; turn <= TURNS; turn++)
            for (size_t i = 0; i < s.n_systems; i++)
                LH_TRY_TO(done, take_turn(&s, i, &o, turn > 0 ? transport : NULL));
    }
done:
    end_all(&s);
    lh_keys_fini(&s.keys.scheduler);
    lh_keys_fini(&s.keys.server);
    lh_keys_fini(&s.keys.worker);
    return rc;
}

int main(int argc, char **argv)
{
    struct wire_case c = {.piece = 1 << 18};
    const char *op = argc == 7 ? argv[6] : "dense";
    const bool rows = strncmp(op, "rows", 4) == 0;
    bool known = strcmp(op, "dense") == 0 || strcmp(op, "rows") == 0;
    for (int i = 0; i < WIRE_OPS; i++)
        known = known || strcmp(op, op_names[i]) == 0;
    if (argc == 6 || argc == 7) {
        c.floats = strtoull(argv[2], NULL, 10) / sizeof(float) / WIRE_ROW * WIRE_ROW;
        c.clients = (uint32_t)strtoul(argv[3], NULL, 10);
        c.flight = (uint32_t)strtoul(argv[4], NULL, 10);
        c.rows = rows ? c.floats / WIRE_DIM : 0;
    }
    if (!known || c.floats == 0 || c.clients == 0 || c.clients > WIRE_CLIENTS_MAX ||
        c.flight == 0 || c.flight > WIRE_FLIGHT_MAX ||
        (strcmp(argv[1], "local") == 0 && c.clients > 1)) {
        fprintf(stderr, "usage: bench_wire inproc|local|ipc|tcp|ipc-curve|tcp-curve BYTES CLIENTS "
                        "FLIGHT SECONDS [dense|push|pull|step|rows|rows-push|rows-pull]\n");
        return 2;
    }
    const bool each = strcmp(op, "dense") == 0 || strcmp(op, "rows") == 0;
    if (bench(argv[1], &c, strtod(argv[5], NULL), each ? NULL : op) < 0) {
        fprintf(stderr, "bench_wire: %s\n", lh_err_text());
        return 1;
    }
    return 0;
}
