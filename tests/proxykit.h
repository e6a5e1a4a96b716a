/* A bad network for tests: listens on ports of the loopback, relays every connection to where a
 * role really listens, and does harm to one of them on demand, drawn from a seed. A thread of its
 * own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum proxykit_fault {
    PROXYKIT_CUT,   /* the connection ends, at once */
    PROXYKIT_TORN,  /* it ends some bytes later, in the middle of whatever is sent then */
    PROXYKIT_DELAY, /* nothing passes for a moment */
    PROXYKIT_SLOW,  /* a hundred kilobytes a second for a moment */
    PROXYKIT_HOLE,  /* what one side says is lost for a moment; then the connection ends */
    PROXYKIT_FLIP,  /* a bit of what passes next is another */
    PROXYKIT_FAULTS
};
extern const char *const proxykit_names[PROXYKIT_FAULTS]; /* "cut", … */

struct proxykit;

struct proxykit *proxykit_start(uint64_t seed);
void proxykit_stop(struct proxykit **p); /* NULL content allowed */
/* A port of the loopback that nobody listens on now. */
uint16_t proxykit_free_port(void);
/* Relays from now on: returns the port whose connections go to `port`, which may be closed yet. */
uint16_t proxykit_route(struct proxykit *p, uint16_t port);
/* Harms one of the connections there are; false if there is none. */
bool proxykit_harm(struct proxykit *p, enum proxykit_fault fault);
