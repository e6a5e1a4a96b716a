/* Hosts for tests, with a network that fails as real ones do: network namespaces on a bridge in one
 * of its own, so that this machine's network is not touched. Loss and deafness are nftables', the
 * rate is tc's (tbf), delay is this kit's: a thread that takes packets from the kernel's queue and
 * gives them back later (NFQUEUE), since netem is not in every kernel. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum hostkit_fault {
    HOSTKIT_DOWN,  /* the host's link is down */
    HOSTKIT_DEAF,  /* what the others say does not come; what it says does */
    HOSTKIT_LOSS,  /* of what it is sent a fifth is lost */
    HOSTKIT_RATE,  /* what it sends passes at 50 Mbit/s */
    HOSTKIT_DELAY, /* what it is sent comes 10 to 30 ms later, and in another order */
    HOSTKIT_FAULTS
};
extern const char *const hostkit_names[HOSTKIT_FAULTS]; /* "link down", … */

enum { HOSTKIT_HOSTS = 8 };

struct hostkit;

/* NULL, said with a message, where namespaces are not permitted or iproute2 is not there. Sweeps
 * away what a test that was killed left. */
struct hostkit *hostkit_start(unsigned hosts, uint64_t seed);
/* Ends what still runs there. NULL content allowed. */
void hostkit_stop(struct hostkit **h);

/* "10.79.0.1" of host 0; a static buffer for each. */
const char *hostkit_address(unsigned host);
/* As trainkit_spawn, on a host. */
pid_t hostkit_spawn(const struct hostkit *h, unsigned host, const char *log,
                    const char *const *argv);

/* A UDP socket of a host, bound to its address and `port`. */
int hostkit_socket(const struct hostkit *h, unsigned host, uint16_t port);

/* Until it heals; one fault a host. False: this system cannot do that (said once, with what would
 * have to be installed), or the host has one. */
bool hostkit_harm(struct hostkit *h, unsigned host, enum hostkit_fault fault);
void hostkit_heal(struct hostkit *h, unsigned host);
