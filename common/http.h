/* A small HTTP server for pages that a process writes about itself: a thread of its own, a fixed
 * list of pages, GET and HEAD and nothing else. Peers are strangers: connections, their sizes and
 * times are bounded, a newer one takes the place of the oldest, and whatever they send costs this
 * thread, never a role.
 *
 * There is no authentication and no encryption: loopback is the default, and who names another
 * address decides who can read. */
#pragma once

#include <stddef.h>

#define LH_HTTP_ENDPOINT_MAX 64

struct lh_http_page {
    const char *path; /* "/metrics" */
    const char *type; /* of the content */
    /* Writes the page, at most some MB; *out is released with lh_mem_free. Called in the server's
     * thread, one page at a time. An error is answered with 503. */
    int (*write)(void *ctx, char **out, size_t *n);
};

struct lh_http;

/* Serves at `listen`: [ADDRESS:]PORT, ADDRESS numeric ([…] around an IPv6 one) or localhost;
 * without one, 127.0.0.1. Port 0 takes a free one. `pages` and `ctx` stay the caller's until the
 * end. Errors: LH_ECONFIG for what is no address; LH_EBUSY for one in use; LH_EACCES; LH_EIO;
 * LH_ENOMEM. */
int lh_http_start(struct lh_http **out, const char *listen, const struct lh_http_page *pages,
                  size_t n_pages, void *ctx);
/* Ends the connections and the thread. NULL content allowed. */
void lh_http_stop(struct lh_http **h);
/* "127.0.0.1:9464", with the port that it has. */
const char *lh_http_endpoint(const struct lh_http *h);
/* Whether `listen` could be an address; the same errors of form. Opens nothing. */
int lh_http_check(const char *listen);
