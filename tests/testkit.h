/* What every test includes: cmocka in its required order, assertions on longhaul's error codes,
 * temporary directories, and a check that no memory is left. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"

/* Fails with the error's sentence when `expr` is not 0. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        int kit_rc_ = (expr);                                                                      \
        if (kit_rc_ != 0)                                                                          \
            fail_msg("%s: %s (%s)", #expr, lh_err_text(), lh_err_name(kit_rc_));                   \
    } while (0)

/* The call must fail with `code`, and its sentence must contain `text`. */
#define assert_err(expr, code, text)                                                               \
    do {                                                                                           \
        int kit_rc_ = (expr);                                                                      \
        if (kit_rc_ != (code))                                                                     \
            fail_msg("%s: got %s (%s), expected %s", #expr, lh_err_name(kit_rc_), lh_err_text(),   \
                     lh_err_name(code));                                                           \
        kit_assert_contains(lh_err_text(), text);                                                  \
    } while (0)

void kit_assert_contains(const char *haystack, const char *needle);

/* |a - b| <= tol * max(1, |a|, |b|) */
void kit_assert_close(double a, double b, double tol, const char *what);

/* cmocka setup/teardown: a fresh directory (kit_dir()), removed with all in it; the teardown also
 * checks that every allocation of the test was released. */
int kit_setup(void **state);
int kit_teardown(void **state);
const char *kit_dir(void);
/* dir/name; a static ring of 8 buffers. */
const char *kit_path(const char *name);
void kit_write(const char *path, const char *text); /* whole file */
void kit_write_bytes(const char *path, const void *p, size_t n);
char *kit_read(const char *path, size_t *n); /* caller frees with free() */
/* Runs a shell command, returns its exit status, output (stdout+stderr) in *out (free()). */
int kit_run(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What `run` returns, 0 to 255, in a process of its own, as for limits and signals; -1 if it died.
 */
int kit_in_a_child(int (*run)(const char *), const char *at);

/* A small disk of its own at kit_path("disk"), of `size` ("4k"), which no other process sees and
 * which ends with this one. Only root may have it; else the test is skipped. */
void kit_small_disk(const char *size);
void kit_resize_disk(const char *size);
/* cmocka teardown of a test with one, also of one that failed. */
int kit_disk_teardown(void **state);

#define kit_test(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
