#include "tests/diskkit.h"

#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"

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

int diskkit_teardown(void **state)
{
    diskkit_stop(&(struct diskkit *){NULL});
    return kit_teardown(state);
}

/* Its exit status. */
static int train_here(const char *more)
{
    return trainkit_wait_exit(trainkit_spawn_here(LH_BINARY_DIR "/longhaul", more));
}

static void go_on_after(int status, const char *names)
{
    assert_int_equal(status, lh_err_exit_status(LH_EIO));
    assert_int_equal(trainkit_said("\n"), 1);
    assert_int_equal(trainkit_said(names), 1);
    int again = train_here(trainkit_last_cut(kit_path("run")) ? "--resume" : NULL);
    if (again != 0)
        again = train_here("--resume"); /* it had begun */
    assert_int_equal(again, 0);
}

struct diskkit_calls_failed diskkit_fail_each(struct diskkit *d, const char *at, const char *names,
                                              long stride, const struct trainkit_state *want)
{
    static const int errors[] = {EIO, ENOSPC};
    struct diskkit_calls_failed n = {0};
    for (long call = 0;; call += stride) {
        kit_run(NULL, "rm -rf '%s'", kit_path("run"));
        diskkit_fail(d, &(struct diskkit_order){.at = at,
                                                .calls = DISKKIT_WRITES | DISKKIT_SYNCS,
                                                .error = errors[call / stride % 2],
                                                .after = call,
                                                .number = 1});
        int status = train_here(NULL);
        if (diskkit_failed(d) == 0)
            break;
        if (status != 0)
            go_on_after(status, names);
        n.ended += status != 0;
        n.lasted += status == 0;
        trainkit_assert_same(want, kit_path("run"), "one call failed");
    }
    print_message("%u runs went on, %u ended with one line\n", n.lasted, n.ended);
    return n;
}
