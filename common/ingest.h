/* A log's text as binary rows of one width: the first half of an import. */
#pragma once

#include "common/reader.h"
#include "common/schema.h"

#include <stddef.h>
#include <stdint.h>

enum { LH_BAD_SHOWN = 10 };

struct lh_bad_row {
    uint64_t order;
    char text[300]; /* "file:line: column 'x': reason" */
};

/* What became of the text; sums, and the first bad rows in the order of the log. */
struct lh_ingest_counts {
    uint64_t rows, bad, dropped;
    struct lh_bad_row shown[LH_BAD_SHOWN];
    size_t n_shown;
};

void lh_ingest_merge(struct lh_ingest_counts *into, const struct lh_ingest_counts *from);

/* Where the wanted columns stand in one file. */
struct lh_layout_csv;

/* Resolves a header (NULL: the schema's own names). Errors: LH_ECONFIG naming the column that the
 * file does not have, LH_EFORMAT. */
int lh_ingest_layout(struct lh_layout_csv **out, const struct lh_schema *s, const char *file,
                     const char *text, size_t n, size_t line);
void lh_ingest_layout_destroy(struct lh_layout_csv **l);

/* One thread's parser. */
struct lh_ingest;
int lh_ingest_create(struct lh_ingest **out, const struct lh_schema *s);
void lh_ingest_destroy(struct lh_ingest **p);

/* Parses a chunk: *rows are n binary rows of schema->row_bytes bytes, valid until the next call.
 * `counts` is added to. Errors: LH_ENOMEM. */
int lh_ingest_chunk(struct lh_ingest *p, const struct lh_chunk *c, const char *file,
                    const char **rows, size_t *n, struct lh_ingest_counts *counts);
