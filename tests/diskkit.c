#include "tests/diskkit.h"

#include "tests/testkit.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct diskkit {
    struct diskkit_control *control;
};

struct diskkit *diskkit_start(void)
{
    struct diskkit *d = calloc(1, sizeof *d);
    int fd = open(kit_path("disk.control"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    assert_non_null(d);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof *d->control), 0);
    d->control = mmap(NULL, sizeof *d->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(d->control != MAP_FAILED);
    close(fd);
    setenv(DISKKIT_ENV, kit_path("disk.control"), 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1); /* it need not be first: it is asked */
    setenv("LD_PRELOAD", LH_BINARY_DIR "/libdiskkit_preload.so", 1);
    return d;
}

void diskkit_stop(struct diskkit **out)
{
    struct diskkit *d = *out;
    unsetenv("LD_PRELOAD");
    unsetenv("ASAN_OPTIONS");
    unsetenv(DISKKIT_ENV);
    if (!d)
        return;
    munmap(d->control, sizeof *d->control);
    unlink(kit_path("disk.control"));
    free(d);
    *out = NULL;
}

void diskkit_heal(struct diskkit *d)
{
    atomic_store(&d->control->calls, 0);
}

void diskkit_fail(struct diskkit *d, const struct diskkit_order *order)
{
    struct diskkit_control *c = d->control;
    diskkit_heal(d);
    snprintf(c->at, sizeof c->at, "%s", order->at);
    atomic_store(&c->error, order->error);
    atomic_store(&c->after, order->after);
    atomic_store(&c->number, order->number < 0 ? LONG_MAX : order->number);
    atomic_store(&c->failed, 0);
    atomic_store(&c->calls, order->calls);
}

long diskkit_failed(const struct diskkit *d)
{
    return atomic_load(&d->control->failed);
}
