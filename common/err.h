/* Errors: one list of codes, one sentence per failure, one exit code per kind.
 *
 * Who detects a failure writes its sentence once (where: what; cure) with lh_err_set and returns
 * the code; callers forward it with LH_TRY or LH_TRY_TO and may put context in front. The
 * sentence lives in a thread-local buffer; to carry it to another thread or process, copy it by
 * value with lh_err_save and lh_err_load. Only main and cmd_* print or exit. */
#pragma once

#include <stddef.h>

/* X(code, number, name, exit status, text)
 * Exit statuses are documented in the README and are interface. */
#define LH_ERRORS(X)                                                                               \
    X(LH_EUSAGE, -1, "usage", 2, "the command line is not understood")                             \
    X(LH_ECONFIG, -2, "config", 3, "the configuration or schema is wrong")                         \
    X(LH_EFORMAT, -3, "format", 3, "a file or message does not have the expected form")            \
    X(LH_ECORRUPT, -4, "corrupt", 3, "a checksum does not match")                                  \
    X(LH_ERANGE, -5, "range", 3, "a value is out of its range")                                    \
    X(LH_EMISMATCH, -6, "mismatch", 3, "two things that belong together do not fit")               \
    X(LH_ENOENT, -7, "missing", 4, "a file or directory is missing")                               \
    X(LH_EIO, -8, "io", 4, "reading or writing failed")                                            \
    X(LH_ENOSPC, -9, "full", 4, "the disk is full")                                                \
    X(LH_EACCES, -10, "access", 4, "permission denied")                                            \
    X(LH_EEXIST, -11, "exists", 4, "something is already there")                                   \
    X(LH_EBUSY, -12, "busy", 4, "something is in use by another process")                          \
    X(LH_ENOMEM, -13, "memory", 5, "out of memory")                                                \
    X(LH_EPROTO, -14, "protocol", 6, "a peer broke the protocol")                                  \
    X(LH_ETIMEDOUT, -15, "timeout", 6, "a deadline passed")                                        \
    X(LH_EPEER, -16, "peer", 6, "a peer reported a failure or went away")                          \
    X(LH_EDIVERGED, -17, "diverged", 7, "training diverged")                                       \
    X(LH_ECANCELED, -18, "canceled", 130, "interrupted")                                           \
    X(LH_EINTERNAL, -19, "internal", 1, "a bug in longhaul")

enum lh_err_code {
#define LH_ERR_ENUM(code, number, name, status, text) code = number,
    LH_ERRORS(LH_ERR_ENUM)
#undef LH_ERR_ENUM
};

/* Expected outcomes: they carry no sentence. */
#define LH_NOTFOUND 1
#define LH_AGAIN    2

#define LH_ERR_MAX 512 /* bytes of a sentence, its end included */

#define LH_TRY(expr)                                                                               \
    do {                                                                                           \
        int lh_try_rc_ = (expr);                                                                   \
        if (lh_try_rc_ < 0)                                                                        \
            return lh_try_rc_;                                                                     \
    } while (0)

/* Needs `int rc` in scope. */
#define LH_TRY_TO(label, expr)                                                                     \
    do {                                                                                           \
        rc = (expr);                                                                               \
        if (rc < 0)                                                                                \
            goto label;                                                                            \
    } while (0)

/* Sets this thread's sentence and returns `code`. The arguments may point into the current
 * sentence. A sentence longer than LH_ERR_MAX - 1 bytes is cut. Control characters become '?'. */
int lh_err_set(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts '?' in the place of control characters, also of the second set (C1), alone or as UTF-8: what
 * a peer or a file says must not steer a terminal, or pass for another line. Sentences are so. */
void lh_err_plain(char *text);

/* As lh_err_set, from `errno_value`: chooses LH_ENOENT, LH_EACCES, LH_ENOSPC, LH_EEXIST, LH_ENOMEM
 * or LH_EIO and appends ": ", the system's text and, for a full disk and permissions, the cure. */
int lh_err_errno(int errno_value, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before this thread's sentence and returns `code` unchanged. */
int lh_err_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last sentence; "" if there is none. Valid until the next lh_err_* call here. */
const char *lh_err_text(void);

/* A code and its sentence by value. */
struct lh_err {
    int code;
    char text[LH_ERR_MAX];
};

void lh_err_save(struct lh_err *out, int code);
int lh_err_load(const struct lh_err *saved); /* returns saved->code */
void lh_err_clear(void);

const char *lh_err_name(int code); /* "config", "io", …; "ok" for 0 */
const char *lh_err_kind(int code); /* what the code means, a phrase */
int lh_err_exit_status(int code);  /* 0 for code >= 0 */
