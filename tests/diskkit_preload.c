/* Stands before the C library in a process, and fails where the test has ordered it (diskkit.h).
 * Built without sanitizers: calls go on to theirs, if the program has any. */
#include "tests/diskkit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static struct diskkit_control *control; /* NULL: nobody orders anything */

__attribute__((constructor)) static void look_for_control(void)
{
    const char *path = getenv(DISKKIT_ENV);
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED
                      : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (at != MAP_FAILED)
        control = at;
}

static bool is_meant(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strstr(path, control->at) != NULL;
}

/* Whether this call is to fail; errno is set then. */
static bool fails(enum diskkit_calls kind, int fd)
{
    const int before = errno;
    if (!control || !(atomic_load(&control->calls) & kind))
        return false;
    bool meant = is_meant(fd) && atomic_fetch_sub(&control->after, 1) <= 0 &&
                 atomic_fetch_sub(&control->number, 1) > 0;
    errno = meant ? atomic_load(&control->error) : before;
    if (meant)
        atomic_fetch_add(&control->failed, 1);
    return meant;
}

/* The function of that name that would have been called without this object. */
#define NEXT(name)                                                                                 \
    static __typeof__(name) *next;                                                                 \
    if (!next)                                                                                     \
    *(void **)&next = dlsym(RTLD_NEXT, #name)

#define MOVES(kind, name, parameters, arguments)                                                   \
    ssize_t name parameters;                                                                       \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        NEXT(name);                                                                                \
        return fails(kind, fd) ? -1 : next arguments;                                              \
    }

#define SYNCS(name)                                                                                \
    int name(int fd);                                                                              \
    int name(int fd)                                                                               \
    {                                                                                              \
        NEXT(name);                                                                                \
        return fails(DISKKIT_SYNCS, fd) ? -1 : next(fd);                                           \
    }

MOVES(DISKKIT_WRITES, write, (int fd, const void *p, size_t n), (fd, p, n))
MOVES(DISKKIT_WRITES, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
MOVES(DISKKIT_WRITES, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at))
MOVES(DISKKIT_WRITES, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
MOVES(DISKKIT_WRITES, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
MOVES(DISKKIT_WRITES, pwritev64, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
MOVES(DISKKIT_READS, read, (int fd, void *p, size_t n), (fd, p, n))
MOVES(DISKKIT_READS, pread, (int fd, void *p, size_t n, off_t at), (fd, p, n, at))
MOVES(DISKKIT_READS, pread64, (int fd, void *p, size_t n, off64_t at), (fd, p, n, at))
SYNCS(fsync)
SYNCS(fdatasync)
SYNCS(syncfs)
