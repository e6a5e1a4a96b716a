/* The handler may only do what is safe in a signal: it finds the file's name in /proc/self/maps
 * with open and read, and says it with write. */
#include "cluster/bus_error.h"

#include "common/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* Hexadecimal digits from *p on; leaves *p behind them. */
static uintptr_t number_at(const char **p)
{
    uintptr_t x = 0;
    for (;; ++*p) {
        const char c = **p;
        if (c >= '0' && c <= '9')
            x = x << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            x = x << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return x;
    }
}

/* "55d0-55e0 r--p 00000000 fe:00 1234   /path": whether the address lies in it; its path then. */
static bool line_has(const char *line, uintptr_t address, const char **path)
{
    const char *p = line;
    uintptr_t from = number_at(&p);
    if (*p++ != '-')
        return false;
    uintptr_t to = number_at(&p);
    *path = strchr(p, '/');
    return address >= from && address < to && *path;
}

/* The path of the file that is mapped at an address, in line[]; NULL if there is none. */
static const char *file_at(uintptr_t address, char *line, size_t size)
{
    const char *path = NULL;
    char byte;
    size_t n = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && read(fd, &byte, 1) == 1) {
        if (byte != '\n') {
            if (n < size - 1)
                line[n++] = byte;
            continue;
        }
        line[n] = '\0';
        n = 0;
        if (line_has(line, address, &path))
            return path;
    }
    return NULL;
}

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* All threads may come upon it; one tells. The flag lives here because a signal handler has nothing
 * but file scope to write to. */
static atomic_flag told = ATOMIC_FLAG_INIT;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    while (atomic_flag_test_and_set(&told))
        pause();
    char line[4096 + 128];
    const char *path = file_at((uintptr_t)info->si_addr, line, sizeof line);
    if (path) {
        say("longhaul: ");
        say(path);
        say(": was cut short, or its disk failed, while it was in use; restore it\n");
        _exit(lh_err_exit_status(LH_EIO));
    }
    signal(number, SIG_DFL);
    raise(number);
}

void lh_bus_error_catch(void)
{
    struct sigaction on = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&on.sa_mask);
    sigaction(SIGBUS, &on, NULL);
}
