/* Raw ZeroMQ: DEALER to ROUTER, frames sent without a copy, and of the work only what cannot be
 * left out: the server adds what it receives to an array, the client copies what it receives. No
 * envelopes, no checks, no versions.
 *
 * A message of 2 bytes says what the connection is used for from now on, one of 1 byte asks for the
 * tensor or says that it was added; any other is a part of the tensor, in order. Of rows, a message
 * is ids that are asked for; or it has two frames, ids and rows, which are added by index. */
#include "tests/bench/wire_rig.h"

#include "common/err.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

enum { PEERS = WIRE_CLIENTS_MAX * WIRE_FLIGHT_MAX, ID_MAX = 32 };

typedef float loose_float __attribute__((aligned(1)));

static int failed(const char *what)
{
    return lh_err_set(zmq_errno() == ETERM ? LH_ECANCELED : LH_EIO, "raw: %s: %s", what,
                      zmq_strerror(zmq_errno()));
}

static void keep(void *data, void *hint)
{
    (void)data, (void)hint;
}

/* Sends the tensor in messages of at most `piece` floats; to peer `id` if that has a size. */
static int send_tensor(void *socket, const struct wire_case *c, float *x, const void *id, size_t n)
{
    for (size_t at = 0; at < c->floats; at += c->piece) {
        size_t count = c->floats - at < c->piece ? c->floats - at : c->piece;
        zmq_msg_t m;
        zmq_msg_init_data(&m, x + at, count * sizeof *x, keep, NULL);
        if (n && zmq_send(socket, id, n, ZMQ_SNDMORE) < 0)
            return failed("sending");
        if (zmq_msg_send(&m, socket, 0) < 0)
            return failed("sending");
    }
    return 0;
}

/* Sends ids, and rows too if x, in messages of at most `piece` floats. */
static int send_rows(void *socket, const struct wire_case *c, uint64_t *ids, float *x)
{
    const size_t most = c->piece / WIRE_DIM;
    for (size_t at = 0; at < c->rows; at += most) {
        const size_t n = c->rows - at < most ? c->rows - at : most;
        zmq_msg_t m;
        zmq_msg_init_data(&m, ids + at, n * sizeof *ids, keep, NULL);
        if (zmq_msg_send(&m, socket, x ? ZMQ_SNDMORE : 0) < 0)
            return failed("sending");
        if (!x)
            continue;
        zmq_msg_init_data(&m, x + at * WIRE_DIM, n * WIRE_DIM * sizeof *x, keep, NULL);
        if (zmq_msg_send(&m, socket, 0) < 0)
            return failed("sending");
    }
    return 0;
}

/* --- the server ----------------------------------------------------------------------------------
 */
struct peer {
    unsigned char id[ID_MAX];
    size_t n;
    char op;
    size_t at; /* of its tensor */
};

struct server {
    const struct wire_case *c;
    void *socket;
    float *tensor;
    struct peer peers[PEERS];
    size_t n_peers;
};

static struct peer *peer_of(struct server *s, zmq_msg_t *id)
{
    const size_t n = zmq_msg_size(id);
    for (size_t i = 0; i < s->n_peers; i++)
        if (s->peers[i].n == n && memcmp(s->peers[i].id, zmq_msg_data(id), n) == 0)
            return &s->peers[i];
    if (s->n_peers == PEERS || n > ID_MAX)
        return NULL;
    struct peer *p = &s->peers[s->n_peers++];
    memcpy(p->id, zmq_msg_data(id), n);
    p->n = n;
    return p;
}

static void add(float *restrict into, const loose_float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        into[i] += from[i];
}

/* Where the id in place i of a message says that a row is. */
static float *row_at(struct server *s, zmq_msg_t *ids, size_t i)
{
    uint64_t id;
    memcpy(&id, (const char *)zmq_msg_data(ids) + i * sizeof id, sizeof id);
    return id < s->c->rows * WIRE_SPARSE ? s->tensor + id * WIRE_DIM : NULL;
}

static int say_done(struct server *s, struct peer *p)
{
    return zmq_send(s->socket, p->id, p->n, ZMQ_SNDMORE) < 0 || zmq_send(s->socket, "", 1, 0) < 0
               ? failed("answering")
               : 0;
}

static int add_rows(struct server *s, struct peer *p, zmq_msg_t *ids, zmq_msg_t *rows)
{
    const size_t n = zmq_msg_size(ids) / sizeof(uint64_t);
    const loose_float *from = zmq_msg_data(rows);
    if (zmq_msg_size(rows) != n * WIRE_DIM * sizeof(float))
        return lh_err_set(LH_EPROTO, "raw: %zu rows in %zu bytes", n, zmq_msg_size(rows));
    for (size_t i = 0; i < n; i++) {
        float *to = row_at(s, ids, i);
        if (!to)
            return lh_err_set(LH_EPROTO, "raw: no such row");
        add(to, from + i * WIRE_DIM, WIRE_DIM);
    }
    p->at += n * WIRE_DIM;
    if (p->at < s->c->floats)
        return 0;
    p->at = 0;
    return say_done(s, p);
}

static int send_rows_back(struct server *s, struct peer *p, zmq_msg_t *ids)
{
    const size_t n = zmq_msg_size(ids) / sizeof(uint64_t);
    zmq_msg_t m;
    zmq_msg_init_size(&m, n * WIRE_DIM * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const float *row = row_at(s, ids, i);
        if (!row)
            return lh_err_set(LH_EPROTO, "raw: no such row");
        memcpy((float *)zmq_msg_data(&m) + i * WIRE_DIM, row, WIRE_DIM * sizeof *row);
    }
    return zmq_send(s->socket, p->id, p->n, ZMQ_SNDMORE) < 0 || zmq_msg_send(&m, s->socket, 0) < 0
               ? failed("answering")
               : 0;
}

static int take(struct server *s, struct peer *p, zmq_msg_t *m)
{
    const size_t bytes = zmq_msg_size(m), n = bytes / sizeof(float);
    if (bytes == 2) {
        p->op = ((const char *)zmq_msg_data(m))[1];
        return 0;
    }
    if (p->op == WIRE_ROWS_PULL)
        return send_rows_back(s, p, m);
    if (bytes == 1)
        return send_tensor(s->socket, s->c, s->tensor, p->id, p->n);
    if (n > s->c->floats - p->at)
        return lh_err_set(LH_EPROTO, "raw: %zu bytes are too many", bytes);
    add(s->tensor + p->at, zmq_msg_data(m), n);
    p->at += n;
    if (p->at < s->c->floats)
        return 0;
    p->at = 0;
    if (p->op == WIRE_STEP)
        return send_tensor(s->socket, s->c, s->tensor, p->id, p->n);
    return say_done(s, p);
}

static int serve_next(struct server *s)
{
    zmq_msg_t id, m, rows;
    zmq_msg_init(&id);
    zmq_msg_init(&m);
    zmq_msg_init(&rows);
    int rc = zmq_msg_recv(&id, s->socket, 0) < 0 || zmq_msg_recv(&m, s->socket, 0) < 0
                 ? failed("receiving")
                 : 0;
    const bool two = rc == 0 && zmq_msg_more(&m);
    if (two && zmq_msg_recv(&rows, s->socket, 0) < 0)
        rc = failed("receiving");
    struct peer *p = rc == 0 ? peer_of(s, &id) : NULL;
    if (rc == 0 && !p)
        rc = lh_err_set(LH_EPROTO, "raw: too many peers");
    if (rc == 0)
        rc = two ? add_rows(s, p, &m, &rows) : take(s, p, &m);
    zmq_msg_close(&id);
    zmq_msg_close(&m);
    zmq_msg_close(&rows);
    return rc;
}

static int secure(void *socket, const struct wire_keys *k, bool server)
{
    const int on = 1;
    if (!k)
        return 0;
    int bad = server ? zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on) ||
                           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->server.secret, 41)
                     : zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, k->server.own.key, 41) ||
                           zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, k->worker.own.key, 41) ||
                           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->worker.secret, 41);
    return bad ? failed("keys") : 0;
}

static void *new_socket(void *zmq, int type)
{
    const int linger = 0;
    void *socket = zmq_socket(zmq, type);
    if (socket)
        zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    return socket;
}

static int serve(void *zmq, const struct wire_case *c, void (*bound)(void *, const char *),
                 void *ctx)
{
    struct server s = {.c = c};
    char at[LH_NET_ENDPOINT_MAX];
    size_t n = sizeof at;
    int rc;
    const size_t floats = c->rows > 0 ? c->rows * WIRE_SPARSE * WIRE_DIM : c->floats;
    LH_TRY(LH_NEW_ARRAY(&s.tensor, floats, "tensor"));
    for (size_t i = 0; i < floats; i++)
        s.tensor[i] = 1e-3f;
    s.socket = new_socket(zmq, ZMQ_ROUTER);
    if (!s.socket) {
        rc = failed("a socket");
        goto done;
    }
    LH_TRY_TO(done, secure(s.socket, c->keys, true));
    if (zmq_bind(s.socket, c->bind) != 0 ||
        zmq_getsockopt(s.socket, ZMQ_LAST_ENDPOINT, at, &n) != 0) {
        rc = failed("listening");
        goto done;
    }
    bound(ctx, at);
    do {
        rc = serve_next(&s);
    } while (rc == 0);
done:
    if (s.socket)
        zmq_close(s.socket);
    lh_mem_free(s.tensor);
    return rc;
}

/* --- the client ----------------------------------------------------------------------------------
 */
struct slot {
    void *socket;
    float *received; /* [floats] */
    enum wire_op op, told;
    size_t left; /* floats to come; 0 and busy: an answer */
    bool busy;
};

struct client {
    const struct wire_case *c;
    float *pushed; /* [floats] */
    uint64_t *ids; /* [rows] */
    struct slot slots[WIRE_FLIGHT_MAX];
    uint32_t next;
};

static void client_close(void **client)
{
    struct client *k = *client;
    if (!k)
        return;
    for (uint32_t i = 0; i < k->c->flight; i++) {
        if (k->slots[i].socket)
            zmq_close(k->slots[i].socket);
        lh_mem_free(k->slots[i].received);
    }
    lh_mem_free(k->pushed);
    lh_mem_free(k->ids);
    lh_mem_free(k);
    *client = NULL;
}

static int open_slot(struct client *k, struct slot *s, void *zmq, const char *server)
{
    LH_TRY(LH_NEW_ARRAY(&s->received, k->c->floats, "tensor"));
    memset(s->received, 1, k->c->floats * sizeof *s->received);
    s->told = WIRE_OPS;
    s->socket = new_socket(zmq, ZMQ_DEALER);
    if (!s->socket)
        return failed("a socket");
    LH_TRY(secure(s->socket, k->c->keys, false));
    return zmq_connect(s->socket, server) == 0 ? 0 : failed("connecting");
}

static int client_open(void **client, void *zmq, const struct wire_case *c, const char *server,
                       uint32_t index)
{
    struct client *k = NULL;
    int rc;
    (void)index;
    LH_TRY(LH_NEW(&k, "client"));
    k->c = c;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&k->pushed, c->floats, "tensor"));
    for (size_t i = 0; i < c->floats; i++)
        k->pushed[i] = 1e-6f;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&k->ids, c->rows, "ids"));
    for (size_t i = 0; i < c->rows; i++)
        k->ids[i] = wire_row_id(i);
    for (uint32_t i = 0; i < c->flight; i++)
        LH_TRY_TO(fail, open_slot(k, &k->slots[i], zmq, server));
    *client = k;
    return 0;
fail:
    client_close((void **)&k);
    return rc;
}

static int begin(void *client, uint32_t slot, enum wire_op op)
{
    struct client *k = client;
    struct slot *s = &k->slots[slot];
    const char use[2] = {0, (char)op};
    if (s->told != op && zmq_send(s->socket, use, sizeof use, 0) < 0)
        return failed("asking");
    s->op = s->told = op;
    s->left = op == WIRE_PUSH || op == WIRE_ROWS_PUSH ? 0 : k->c->floats;
    s->busy = true;
    if (op == WIRE_ROWS_PUSH || op == WIRE_ROWS_PULL)
        return send_rows(s->socket, k->c, k->ids, op == WIRE_ROWS_PUSH ? k->pushed : NULL);
    if (op != WIRE_PULL)
        return send_tensor(s->socket, k->c, k->pushed, NULL, 0);
    return zmq_send(s->socket, "", 1, 0) < 0 ? failed("asking") : 0;
}

/* Takes in one message; LH_AGAIN if none is there. */
static int take_answer(struct client *k, struct slot *s, int flags)
{
    zmq_msg_t m;
    zmq_msg_init(&m);
    if (zmq_msg_recv(&m, s->socket, flags) < 0) {
        int e = zmq_errno();
        zmq_msg_close(&m);
        return e == EAGAIN ? LH_AGAIN : failed("receiving");
    }
    const size_t n = zmq_msg_size(&m) / sizeof(float);
    int rc = n > s->left ? lh_err_set(LH_EPROTO, "raw: too much came") : 0;
    if (rc == 0)
        memcpy(s->received + (k->c->floats - s->left), zmq_msg_data(&m), n * sizeof(float));
    zmq_msg_close(&m);
    s->left -= n;
    s->busy = s->left > 0;
    return rc;
}

static int wait_one(struct client *k)
{
    int rc = 0;
    while (rc == 0 && k->slots[0].busy)
        rc = take_answer(k, &k->slots[0], 0);
    return rc;
}

static int await(void *client, double until, uint32_t *slot)
{
    struct client *k = client;
    const uint32_t n = k->c->flight;
    (void)until; /* nobody waits for others here */
    *slot = 0;
    if (n == 1)
        return wait_one(k);
    for (;;) {
        zmq_pollitem_t items[WIRE_FLIGHT_MAX];
        for (uint32_t tried = 0; tried < n; tried++) {
            struct slot *s = &k->slots[k->next];
            int rc = 0;
            *slot = k->next;
            k->next = (k->next + 1) % n;
            while (s->busy && (rc = take_answer(k, s, ZMQ_DONTWAIT)) == 0)
                if (!s->busy)
                    return 0;
            LH_TRY(rc < 0 ? rc : 0);
        }
        for (uint32_t i = 0; i < n; i++)
            items[i] = (zmq_pollitem_t){.socket = k->slots[i].socket, .events = ZMQ_POLLIN};
        if (zmq_poll(items, (int)n, -1) < 0)
            return failed("waiting");
    }
}

const struct wire_system wire_raw = {
    .name = "raw",
    .serve = serve,
    .open = client_open,
    .begin = begin,
    .wait = await,
    .close = client_close,
};
