/* A failing disk for tests of the whole program: the processes that are started meanwhile load an
 * object of this build first (LD_PRELOAD, diskkit_preload.c), whose writes, syncs and reads of some
 * files fail when the test says so. So errors come where no full disk and no limit has them: at any
 * one call, at a sync, and at files that were written before. */
#pragma once

#include <stdatomic.h>

enum diskkit_calls {
    DISKKIT_WRITES = 1, /* write, pwrite, writev, pwritev */
    DISKKIT_SYNCS = 2,  /* fsync, fdatasync, syncfs */
    DISKKIT_READS = 4   /* read, pread */
};

struct diskkit_order {
    const char *at;     /* files whose path contains it */
    unsigned calls;     /* enum diskkit_calls */
    int error;          /* EIO, ENOSPC, … */
    long after, number; /* so many such calls succeed first; then so many fail. -1: all */
};

struct diskkit;

/* Of processes that are started from now on. One at a time. */
struct diskkit *diskkit_start(void);
void diskkit_stop(struct diskkit **d); /* NULL content allowed */
void diskkit_fail(struct diskkit *d, const struct diskkit_order *order);
void diskkit_heal(struct diskkit *d);
/* Calls that were let fail by the last order, of all processes. */
long diskkit_failed(const struct diskkit *d);

/* A test with a directory of its own; one that failed does not leave the others to load the object.
 */
#define diskkit_test(f) cmocka_unit_test_setup_teardown(f, kit_setup, diskkit_teardown)
int diskkit_teardown(void **state);

/* Trains job.yaml into run/ by threads, again and again: each `stride`-th of the calls that write
 * or sync `at` fails once, the first, then a later one, until there is none. Either the run does
 * without that checkpoint, or it cannot begin, or not end, which is one line that names the file by
 * `names`; then the same command, or --resume, goes on. Always it ends at `want`. */
struct trainkit_state;
struct diskkit_calls_failed {
    unsigned lasted, ended; /* runs that went on, and that ended with one line */
};
struct diskkit_calls_failed diskkit_fail_each(struct diskkit *d, const char *at, const char *names,
                                              long stride, const struct trainkit_state *want);

/* What both sides share: a mapped file, whose path is in the environment as DISKKIT_ENV. */
#define DISKKIT_ENV "LONGHAUL_TEST_DISK"
struct diskkit_control {
    atomic_uint calls; /* 0: nothing fails; set last */
    atomic_int error;
    atomic_long after, number, failed;
    char at[256];
};
