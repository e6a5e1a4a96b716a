/* Delimited text: records of fields in memory. Fields may be in quotes (RFC 4180: a quote inside is
 * doubled, separators and line ends inside are text); a quote that does not open a field is text.
 */
#pragma once

#include "common/field.h"

struct lh_csv {
    char separator[8];
    size_t separator_bytes; /* 1 .. 8 */
    int quote;              /* a character, or -1 for none */
};

/* Reads records from memory that stays as it is. Plain data; see lh_csv_begin. */
struct lh_csv_cursor {
    const struct lh_csv *csv;
    const char *data, *end, *at; /* at: start of the next record */
    const char *block;           /* 64 bytes that `mask` speaks of */
    uint64_t mask;               /* separators and line ends of the block not yet passed */
    size_t line;                 /* of the record last returned, 1-based */
    size_t next_line;
};

/* `line`: the number of the first line. */
void lh_csv_begin(struct lh_csv_cursor *c, const struct lh_csv *csv, const char *data, size_t n,
                  size_t line);

enum lh_csv_result {
    LH_CSV_RECORD,
    LH_CSV_END,
    LH_CSV_OPEN_QUOTE,  /* the last record's last field has no closing quote */
    LH_CSV_BEHIND_QUOTE /* text between a closing quote and the separator; the line is passed over
                         */
};

/* The next record that is not blank. *n is how many fields it has; the first `max` are stored. */
enum lh_csv_result lh_csv_next(struct lh_csv_cursor *c, struct lh_field *fields, size_t max,
                               size_t *n);

/* How many of the n bytes are whole records that end in a line end; 0 if not even one is. `data`
 * starts with a record. */
size_t lh_csv_border(const struct lh_csv *csv, const char *data, size_t n);
