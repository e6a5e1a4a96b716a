/* For tests of bad input and hard times: the program as users run it, on a small log, dataset, run
 * and snapshot that it made itself. What it says and what it leaves is held against the promise
 * that every failure is one line, a documented exit status, and nothing lost or half written. */
#pragma once

#include "tests/testkit.h"

#include <stdbool.h>

/* cmocka group setup and teardown: the program makes
 *     log.csv schema.yaml data/ job.yaml run/ snap/ states.csv
 * once, and for each test kit_dir() holds copies of them. Runs of the program that outlive it are
 * noticed. */
int faultkit_group_setup(void **state);
int faultkit_group_teardown(void **state);
int faultkit_setup(void **state);

/* Runs a shell command in kit_dir(), in which longhaul is the program of this build. Of both: how
 * it ended (128 + signal if by one) and what it wrote to standard error. */
struct faultkit_end {
    int status;
    char *said; /* free() */
};
struct faultkit_end faultkit_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The command must end with the exit status of `code` and with exactly one line on standard error,
 * which contains each of the texts in `says` ("this|and that"). No process may be left. */
void faultkit_fails(int code, const char *says, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, and not a byte below kit_dir() may be another afterwards. */
void faultkit_refuses(int code, const char *says, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The command must end with 0. */
void faultkit_passes(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Every file below kit_dir() with its size and a checksum, sorted; free(). */
char *faultkit_listing(void);

void faultkit_flip(const char *path, long at); /* a bit; from the end if negative */
void faultkit_cut(const char *path, long bytes);
/* Replaces the first `from` in a text file, which must be there. */
void faultkit_replace(const char *path, const char *from, const char *to);

#define faultkit_test(f) cmocka_unit_test_setup_teardown(f, faultkit_setup, kit_teardown)
