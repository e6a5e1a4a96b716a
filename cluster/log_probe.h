/* A look at an unknown log: its form, its columns, what is in them. Reads the files through the
 * importer's reader, up to a limit of bytes. Guesses form only; what columns mean is for log_guess.
 */
#pragma once

#include "common/csv.h"
#include "common/parse.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_PROBE_VALUES 48 /* distinct values kept of a column */

struct lh_probe_value {
    char *text;
    uint64_t count;
};

struct lh_probe_column {
    char *name;
    uint64_t present, missing;    /* rows */
    uint64_t numbers, whole, iso; /* present values that are: a number, a whole one, a date */
    double lo, hi;                /* of numbers */
    bool ascending;               /* numbers never become smaller */
    double last;
    struct lh_probe_value *values; /* [LH_PROBE_VALUES] in order of appearance */
    size_t n_values;
    bool many; /* more distinct values than were kept */
};

struct lh_log_probe {
    bool jsonl, header, whole; /* whole: all of the log was looked at */
    struct lh_csv csv;
    uint64_t rows, odd_rows; /* odd: another number of fields, or no JSON object */
    struct lh_probe_column *columns;
    size_t n_columns;
};

/* Errors: those of the reader; LH_EFORMAT if there is no row, or nothing that looks like columns.
 */
int lh_log_probe_run(struct lh_log_probe *out, const char *const *files, size_t n_files,
                     uint64_t max_bytes);
void lh_log_probe_fini(struct lh_log_probe *p); /* idempotent */

/* Texts that mean "missing" wherever they stand: "", NA, null, … */
bool lh_log_probe_missing(const char *text, size_t n);
