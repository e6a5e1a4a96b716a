/* Push and pull of one dense tensor, or of rows of a table, and nothing else: by longhaul's own
 * server and client code (wire_ours.c), and by raw ZeroMQ with the least real work (wire_raw.c),
 * behind one face, so that bench_wire.c can take them by turns.
 *
 * A client has `flight` slots, each with a connection of its own and at most one request under way.
 * What an operation is:
 *   push   the tensor goes to the server, which adds it to what it has; done when the client knows
 *          that it was added
 *   pull   the server's tensor comes and stands in the client's memory
 *   step   both: the tensor goes, and what is there after it comes back
 *   rows-push, rows-pull   the same of some rows of a table of four times as many, with their ids,
 *          which ascend; each request has the same ones */
#pragma once

#include "common/keys.h"
#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_CLIENTS_MAX = 4, WIRE_FLIGHT_MAX = 8 };

enum wire_op { WIRE_PUSH, WIRE_PULL, WIRE_STEP, WIRE_ROWS_PUSH, WIRE_ROWS_PULL, WIRE_OPS };

/* Whose keys secure the sockets. */
struct wire_keys {
    struct lh_keys scheduler, server, worker;
};

struct wire_case {
    size_t floats; /* of the tensor, or of the rows of a request; a multiple of WIRE_ROW */
    size_t rows;   /* of WIRE_DIM floats; 0: a dense tensor */
    uint32_t clients, flight;
    size_t piece; /* raw: floats of a message at most */
    bool local;   /* ours: the server has its turns on the client's thread */
    double spin;  /* ours: seconds to look for messages before sleeping; as launch_local.c has it */
    const char *bind;             /* where the server listens */
    const char *scheduler;        /* ours: where the one that tells the server its plan listens */
    const char *store;            /* ours: the server's directory */
    const struct wire_keys *keys; /* NULL: in the clear */
};

enum {
    WIRE_ROW = 256,
    WIRE_DIM = 32,
    WIRE_SPARSE = 4 /* rows of the table to one that is asked for */
};

/* The i-th id of a request: one in each group of WIRE_SPARSE, in no pattern. */
static inline uint64_t wire_row_id(size_t i)
{
    return i * WIRE_SPARSE + (i * 0x9E3779B97F4A7C15u >> 62);
}

/* One way to do it. Functions return 0 or a negative LH_E…. */
struct wire_system {
    const char *name;
    /* Serves until the context is shut down, or its process killed. Calls `bound` with the endpoint
     * once it listens; ours tells its scheduler instead. */
    int (*serve)(void *zmq, const struct wire_case *c, void (*bound)(void *ctx, const char *at),
                 void *ctx);
    /* Connects client `index` to the server. The first must be open before others are opened. */
    int (*open)(void **client, void *zmq, const struct wire_case *c, const char *server,
                uint32_t index);
    int (*begin)(void *client, uint32_t slot, enum wire_op op);
    /* Waits until a slot's operation is done. From `until` (seconds, lh_now) on, one that waits for
     * other clients is given up: LH_AGAIN, the slot is free. */
    int (*wait)(void *client, double until, uint32_t *slot);
    void (*close)(void **client);
};

extern const struct wire_system wire_ours, wire_raw;

/* Plays the scheduler for our server until that is ready; `at` [LH_NET_ENDPOINT_MAX] is where it
 * listens. The socket stays open, for the server to have somebody to talk to. */
int wire_schedule(struct lh_net_socket **out, void *zmq, const struct wire_case *c,
                  const struct lh_security *security, char *at);
