/* Pages over HTTP by libmicrohttpd. The listening socket is made here, so that a failure has its
 * sentence; the library gets it bound. */
#include "common/http.h"

#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS         16
#define CONNECTION_MEMORY   8192 /* bytes: request line and headers must fit */
#define CONNECTION_TIMEOUT  5    /* seconds of silence */
#define CONNECTIONS_WAITING 16

struct lh_http {
    struct MHD_Daemon *daemon;
    const struct lh_http_page *pages;
    size_t n_pages;
    void *ctx;
    char endpoint[LH_HTTP_ENDPOINT_MAX];
    int connections[CONNECTIONS]; /* descriptors, oldest first; of the library's thread */
    size_t n_connections;
};

/* --- the address -------------------------------------------------------------------------------
 */
struct address {
    char host[48], port[8];
};

static int not_an_address(const char *listen)
{
    return lh_err_set(LH_ECONFIG,
                      "%.60s: not an address to listen at; expected [ADDRESS:]PORT, as in "
                      "127.0.0.1:9464, [::1]:9464 or 9464",
                      listen);
}

static int split_address(struct address *a, const char *listen)
{
    const char *colon = strrchr(listen, ':');
    const char *port = colon ? colon + 1 : listen, *host = colon ? listen : "127.0.0.1";
    size_t n = colon ? (size_t)(colon - listen) : strlen(host);
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    } else if (memchr(host, ':', n)) {
        return not_an_address(listen);
    }
    if (n == 0 || n >= sizeof a->host || strlen(port) == 0 || strlen(port) > 5 ||
        strspn(port, "0123456789") != strlen(port) || strtoul(port, NULL, 10) > 65535)
        return not_an_address(listen);
    memcpy(a->host, host, n);
    a->host[n] = '\0';
    snprintf(a->port, sizeof a->port, "%s", port);
    return 0;
}

static int resolve(const char *listen, struct addrinfo **out)
{
    struct address a;
    LH_TRY(split_address(&a, listen));
    bool named = strcmp(a.host, "localhost") == 0; /* which is not asked of any name server */
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    int e = getaddrinfo(named ? "127.0.0.1" : a.host, a.port, &hints, out);
    if (e == EAI_MEMORY)
        return lh_err_set(LH_ENOMEM, "%s: no memory to listen", listen);
    return e == 0 ? 0 : not_an_address(listen);
}

int lh_http_check(const char *listen)
{
    struct addrinfo *at = NULL;
    LH_TRY(resolve(listen, &at));
    freeaddrinfo(at);
    return 0;
}

static int failed_to_listen(const char *listen, int e)
{
    if (e == EADDRINUSE)
        return lh_err_set(LH_EBUSY,
                          "%s: the address is in use; choose another port, or 0 for a free one",
                          listen);
    if (e == EADDRNOTAVAIL)
        return lh_err_set(LH_ECONFIG, "%s: this machine has no such address", listen);
    return lh_err_errno(e, "listening at %s", listen);
}

static int listen_at(const char *listen_to, int *out)
{
    struct addrinfo *at = NULL;
    LH_TRY(resolve(listen_to, &at));
    const int on = 1;
    int rc = 0;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, CONNECTIONS_WAITING) != 0) {
        rc = failed_to_listen(listen_to, errno);
        if (fd >= 0)
            close(fd);
    } else {
        *out = fd;
    }
    freeaddrinfo(at);
    return rc;
}

static void name_endpoint(struct lh_http *h, int fd)
{
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    char host[48] = "?", port[8] = "0";
    if (getsockname(fd, (struct sockaddr *)&at, &size) == 0)
        getnameinfo((struct sockaddr *)&at, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(h->endpoint, sizeof h->endpoint, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* --- answering ---------------------------------------------------------------------------------
 */
/* Takes `text`, which lh_mem_free releases once it is sent. */
static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type,
                              char *text, size_t n)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer_with_free_callback(n, text, lh_mem_free);
    if (!r) {
        lh_mem_free(text);
        return MHD_NO;
    }
    enum MHD_Result rc = MHD_NO;
    if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES &&
        (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
         MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES))
        rc = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned status, const char *sentence)
{
    char *text = NULL;
    if (lh_mem_printf(&text, "%s\n", sentence) < 0)
        return MHD_NO; /* the connection is closed */
    return answer(c, status, "text/plain; charset=utf-8", text, strlen(text));
}

static const struct lh_http_page *find_page(const struct lh_http *h, const char *path)
{
    for (size_t i = 0; i < h->n_pages; i++)
        if (strcmp(h->pages[i].path, path) == 0)
            return &h->pages[i];
    return NULL;
}

/* A request's headers are there. What it may send behind them is not read: the connection is closed
 * after the answer. */
static enum MHD_Result take_request(void *ctx, struct MHD_Connection *c, const char *path,
                                    const char *method, const char *version, const char *data,
                                    size_t *size, void **state)
{
    struct lh_http *h = ctx;
    char *text = NULL;
    size_t n = 0;
    (void)version;
    (void)data;
    (void)size;
    (void)state;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
    const struct lh_http_page *page = find_page(h, path);
    if (!page)
        return refuse(c, MHD_HTTP_NOT_FOUND, "there is no such page here");
    if (page->write(h->ctx, &text, &n) < 0)
        return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE, lh_err_text());
    return answer(c, MHD_HTTP_OK, page->type, text, n);
}

/* Where all places are taken the oldest goes: an answer takes a moment, so that who has been here
 * for longest means to stay, by a word now and then that no time limit catches. */
static void note_connection(void *ctx, struct MHD_Connection *c, void **state,
                            enum MHD_ConnectionNotificationCode what)
{
    struct lh_http *h = ctx;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    (void)state;
    if (!info)
        return;
    if (what == MHD_CONNECTION_NOTIFY_STARTED && h->n_connections < CONNECTIONS) {
        h->connections[h->n_connections++] = info->connect_fd;
        if (h->n_connections == CONNECTIONS)
            shutdown(h->connections[0], SHUT_RDWR); /* the library finds it ended, and closes it */
        return;
    }
    for (size_t i = 0; what == MHD_CONNECTION_NOTIFY_CLOSED && i < h->n_connections; i++)
        if (h->connections[i] == info->connect_fd) {
            memmove(&h->connections[i], &h->connections[i + 1],
                    (--h->n_connections - i) * sizeof *h->connections);
            return;
        }
}

/* --- life --------------------------------------------------------------------------------------
 */
int lh_http_start(struct lh_http **out, const char *listen, const struct lh_http_page *pages,
                  size_t n_pages, void *ctx)
{
    struct lh_http *h = NULL;
    int fd = -1, rc;
    LH_TRY(LH_NEW(&h, "HTTP server"));
    h->pages = pages;
    h->n_pages = n_pages;
    h->ctx = ctx;
    LH_TRY_TO(fail, listen_at(listen, &fd));
    name_endpoint(h, fd);
    h->daemon = MHD_start_daemon(
        MHD_USE_AUTO_INTERNAL_THREAD, 0, NULL, NULL, take_request, h, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_NOTIFY_CONNECTION,
        note_connection, h, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_TIMEOUT, MHD_OPTION_STRICT_FOR_CLIENT,
        1, MHD_OPTION_END);
    fd = -1; /* the library's, also where it failed */
    if (!h->daemon) {
        rc = lh_err_set(LH_EIO, "%s: the HTTP server does not start", listen);
        goto fail;
    }
    *out = h;
    return 0;
fail:
    if (fd >= 0)
        close(fd);
    lh_mem_free(h);
    return rc;
}

void lh_http_stop(struct lh_http **out)
{
    struct lh_http *h = *out;
    if (!h)
        return;
    MHD_stop_daemon(h->daemon); /* closes the socket too */
    lh_mem_free(h);
    *out = NULL;
}

const char *lh_http_endpoint(const struct lh_http *h)
{
    return h->endpoint;
}
