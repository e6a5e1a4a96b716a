/* Delimited text files that are small enough to hold: tables and item files. Plain or compressed
 * (gzip, xz, zstd, …). The log itself is read by the importer, in pieces. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct lh_delimited {
    char *path;
    char *text; /* the whole file, cut into fields as records are read */
    size_t n, at;
    char *separator;
    bool quotes;
    size_t line;       /* where the record at hand begins, 1-based */
    size_t more_lines; /* that it goes on for, inside quotes */
    char **field;
    size_t n_fields, cap_fields;
};

/* Reads `file`, from under `dir` unless its path is absolute; where it does not exist, `file`.gz,
 * .xz, .zst and .bz2 are tried. Quotes are understood ("a, ""b""") where the separator is one
 * character. A byte order mark is passed over. Errors: LH_ENOENT, LH_EACCES, LH_EIO, LH_EFORMAT for
 * a damaged archive, LH_ENOMEM. */
int lh_delimited_open(struct lh_delimited *d, const char *dir, const char *file,
                      const char *separator);

/* Next record: field[0 .. n_fields-1], valid until close. Empty lines are passed over. LH_NOTFOUND
 * at the end. Errors: LH_EFORMAT for a quote that does not end, or a zero byte. */
int lh_delimited_next(struct lh_delimited *d);

/* LH_EFORMAT with "path:line: " in front. */
int lh_delimited_fail(const struct lh_delimited *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void lh_delimited_close(struct lh_delimited *d); /* idempotent */
