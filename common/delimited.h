/* Delimited text files read record by record as C strings: joined tables and item files. Plain or
 * compressed. (The importer reads a log in chunks, on several threads: reader.h, csv.h.) */
#pragma once

#include "common/csv.h"
#include "common/reader.h"

#include <stdbool.h>
#include <stddef.h>

struct lh_delimited {
    char *path;
    struct lh_reader *reader;
    struct lh_csv csv;
    struct lh_chunk chunk;
    struct lh_csv_cursor cursor;
    bool in_chunk;
    size_t line; /* where the record at hand begins, 1-based */
    char **field;
    size_t n_fields;
    struct lh_field *span; /* working memory of next */
    size_t cap_span, cap_field, cap_text, cap_scratch;
    char *text, *scratch;
};

/* Opens `file`, under `dir` unless its path is absolute; where it does not exist, `file`.gz, .xz,
 * .zst and .bz2 are tried. `separator`: 1 to 8 bytes. Quotes are understood ("a, ""b""") where it
 * is one byte. A byte order mark is passed over. Errors: LH_ENOENT, LH_EACCES, LH_ENOMEM. */
int lh_delimited_open(struct lh_delimited *d, const char *dir, const char *file,
                      const char *separator);

/* Next record that is not blank: field[0 .. n_fields-1], valid until the next call. LH_NOTFOUND at
 * the end. Errors: LH_EFORMAT for a quote that does not end, text behind one, a zero byte, or
 * broken compression; LH_EIO. */
int lh_delimited_next(struct lh_delimited *d);

/* LH_EFORMAT with "path:line: " in front. */
int lh_delimited_fail(const struct lh_delimited *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void lh_delimited_close(struct lh_delimited *d); /* idempotent */
