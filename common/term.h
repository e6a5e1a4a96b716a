/* What people see: a progress bar on a terminal and plain lines elsewhere, tables, log lines. All
 * on stderr but tables, which go where the caller says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct lh_progress {
    const char *what, *unit; /* "train", "transitions" */
    uint64_t total;          /* 0: unknown */
    uint64_t done;
    double started, shown; /* seconds, monotonic */
    bool terminal, quiet;
    char extra[128]; /* shown behind the rate: "loss 0.12" */
};

/* quiet: shows nothing. On a terminal one line is redrawn at most 10 times a second; elsewhere a
 * plain line at most every 5 seconds and one at the end. */
void lh_progress_start(struct lh_progress *p, const char *what, const char *unit, uint64_t total,
                       bool quiet);
void lh_progress_update(struct lh_progress *p, uint64_t done); /* cheap: looks at the clock */
void lh_progress_finish(struct lh_progress *p);

/* Tables for people: columns aligned, numbers right. Cells are copied. */
struct lh_table;
int lh_table_create(struct lh_table **out, const char *const *headers, size_t columns);
int lh_table_cell(struct lh_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lh_table_print(const struct lh_table *t, FILE *to);
void lh_table_destroy(struct lh_table **t);

/* One line on stderr, "longhaul: " in front; a bar in progress on the terminal is kept intact. An
 * event "note" where logs are structured (log.h). */
void lh_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "12.3k", "4.5M"; "0:45", "1:02:03". */
void lh_term_count(char *out, size_t size, double x);
void lh_term_clock(char *out, size_t size, double seconds);

double lh_now(void); /* seconds, monotonic */
