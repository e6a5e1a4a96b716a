/* At which address the hosts of a job reach each other: what a host has, what is chosen, and
 * whether it can be reached. IPv4 before IPv6; link-local addresses are left out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_ADDRESS_TEXT_MAX 64

/* Plain data without pointers: it may be sent. */
struct lh_address {
    char interface[16];
    uint8_t family; /* 4, 6; 0: none */
    uint8_t prefix; /* bits of the network */
    uint8_t loopback, unused;
    unsigned char bytes[16]; /* network order */
};

/* Addresses of interfaces that are up, in the system's order; at most `max`. */
int lh_address_list(struct lh_address *out, size_t max, size_t *n);
/* As it stands in an endpoint: "10.0.0.1", "[fd00::1]"; returns `out`. */
const char *lh_address_print(const struct lh_address *a, char out[LH_ADDRESS_TEXT_MAX]);

struct lh_address_host {
    const char *name;
    const struct lh_address *items;
    size_t n;
};

/* Chooses one address a host, by which the others reach it.
 *   interface  a name ("eth0") or a network ("10.1.0.0/16"): the first address there; "auto": the
 *              loopback of a single host; else the address in whose network most of the other hosts
 *              have one too. An address that two hosts share (of a bridge that each has for itself)
 *              reaches nobody.
 * Errors: LH_ECONFIG naming the host that has no such address, and what it has. */
int lh_address_choose(const struct lh_address_host *hosts, size_t n, const char *interface,
                      struct lh_address *out);

/* A socket that listens at `a`, at a port of the system's choice, so that others may try to reach
 * it; close(*fd). Errors: LH_ECONFIG, LH_EIO. */
int lh_address_listen(const struct lh_address *a, int *fd, uint16_t *port);
/* Whether a connection to it stands within `seconds`. Tries again when refused. LH_ETIMEDOUT,
 * without naming the peer. */
int lh_address_reach(const struct lh_address *a, uint16_t port, double seconds);
