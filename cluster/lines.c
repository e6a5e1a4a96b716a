/* Reading lines with read(2) and poll(2): stdio would hide what is waiting. */
#include "cluster/lines.h"

#include "cluster/cli.h"
#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define CHUNK    65536
#define LINE_MAX ((size_t)64 << 20)

struct lh_lines {
    int fd;
    const char *name;
    char *text;
    size_t at, n, cap; /* unread bytes are text[at .. n) */
    size_t searched;   /* text[at .. searched) holds no line end */
    size_t number;
    bool ended;
};

int lh_lines_open(struct lh_lines **out, const char *path)
{
    struct lh_lines *l = NULL;
    LH_TRY(LH_NEW(&l, "line reader"));
    bool standard = strcmp(path, "-") == 0;
    l->name = standard ? "standard input" : path;
    l->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0) {
        int rc = lh_err_errno(errno, "%s", path);
        lh_mem_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void lh_lines_close(struct lh_lines **l)
{
    if (!*l)
        return;
    if ((*l)->fd != STDIN_FILENO)
        close((*l)->fd);
    lh_mem_free((*l)->text);
    lh_mem_free(*l);
    *l = NULL;
}

/* Waits until something can be read. A signal that arrives after the flag was looked at and before
 * the wait would be slept over; so it is kept back until ppoll lets it in. */
static int wait_for_input(struct lh_lines *l)
{
    sigset_t keep_back, before;
    sigemptyset(&keep_back);
    sigaddset(&keep_back, SIGINT);
    sigaddset(&keep_back, SIGTERM);
    sigaddset(&keep_back, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &keep_back, &before);
    if (!lh_cli_interrupted())
        ppoll(&(struct pollfd){.fd = l->fd, .events = POLLIN}, 1, NULL, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (lh_cli_interrupted())
        return lh_err_set(LH_ECANCELED, "%s: interrupted", l->name);
    return 0;
}

/* Reads once; waits if nothing is there. */
static int fill(struct lh_lines *l)
{
    if (l->at > 0 && (l->at == l->n || l->cap - l->n < CHUNK)) {
        memmove(l->text, l->text + l->at, l->n - l->at);
        l->n -= l->at;
        l->searched -= l->at;
        l->at = 0;
    }
    if (l->n - l->at > LINE_MAX)
        return lh_err_set(LH_EFORMAT, "%s:%zu: a line of more than 64 MiB; is this a text file?",
                          l->name, l->number + 1);
    LH_TRY(LH_GROW(&l->text, &l->cap, l->n + CHUNK + 1, "line"));
    LH_TRY(wait_for_input(l));
    ssize_t got = read(l->fd, l->text + l->n, CHUNK);
    if (got < 0 && errno != EINTR)
        return lh_err_errno(errno, "%s: cannot read", l->name);
    if (got == 0)
        l->ended = true;
    if (got > 0)
        l->n += (size_t)got;
    return 0;
}

/* The end of the first line in the buffer; NULL if none is there. */
static char *line_end(struct lh_lines *l)
{
    char *end = l->n > l->searched ? memchr(l->text + l->searched, '\n', l->n - l->searched) : NULL;
    if (!end)
        l->searched = l->n;
    return end;
}

int lh_lines_next(struct lh_lines *l, char **line, size_t *n)
{
    char *end;
    while (!(end = line_end(l)) && !l->ended)
        LH_TRY(fill(l));
    if (!end && l->at == l->n)
        return LH_NOTFOUND;
    *line = l->text + l->at;
    *n = (end ? (size_t)(end - l->text) : l->n) - l->at;
    l->at = l->searched = end ? (size_t)(end - l->text) + 1 : l->n;
    l->number++;
    if (l->number == 1 && *n >= 3 && memcmp(*line, "\xef\xbb\xbf", 3) == 0) {
        *line += 3;
        *n -= 3;
    }
    if (*n > 0 && (*line)[*n - 1] == '\r')
        --*n;
    (*line)[*n] = '\0'; /* fill keeps one byte free behind what was read */
    if (strlen(*line) != *n)
        return lh_err_set(LH_EFORMAT, "%s:%zu: a NUL byte; is this a text file?", l->name,
                          l->number);
    return 0;
}

bool lh_lines_ready(struct lh_lines *l)
{
    if (l->ended || line_end(l))
        return true;
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

const char *lh_lines_name(const struct lh_lines *l)
{
    return l->name;
}

size_t lh_lines_number(const struct lh_lines *l)
{
    return l->number;
}
