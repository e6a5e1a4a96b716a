/* Reads the files of a log one after the other, decompressed as they need it (gzip, bzip2, xz,
 * zstd, lz4, or plain), in chunks that end where a record ends. Chunks are pulled: any thread may
 * ask for the next, one at a time is read, and they are numbered in the order of the log. */
#pragma once

#include "common/csv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_READER_RECORD_MAX (16u << 20) /* bytes; a longer record is an error */

struct lh_reader_spec {
    const char *const *files; /* "-" is standard input */
    size_t n_files;
    bool lines; /* a record is a line (JSON lines); else as csv says */
    struct lh_csv csv;
    size_t skip;        /* lines to pass over at the start of each file */
    bool header;        /* the first record of each file is a header */
    size_t chunk_bytes; /* 0: 1 MiB */
    /* Called with each file's header record (n 0 and text NULL where there are none) before its
     * first chunk; *layout goes with its chunks. NULL allowed. Not called by two threads at once.
     */
    int (*on_file)(void *ctx, const char *file, const char *text, size_t n, size_t line,
                   void **layout);
    void *ctx;
};

struct lh_chunk {
    const char *data;
    size_t n;
    uint64_t number; /* 0, 1, … over all files */
    size_t file;     /* index into spec.files */
    size_t line;     /* number of its first line, 1-based */
    void *layout;
    char *buffer; /* owned by the chunk, kept from call to call */
    size_t cap;
};

struct lh_reader;

/* `spec` is copied, what it points to must outlive the reader. No file is opened yet. */
int lh_reader_create(struct lh_reader **out, const struct lh_reader_spec *spec);
void lh_reader_destroy(struct lh_reader **r); /* NULL content allowed */

/* Fills *c (zeroed before its first use); LH_NOTFOUND at the end of the log. After an error every
 * call gives that error. Errors: LH_ENOENT, LH_EACCES, LH_EIO; LH_EFORMAT for broken compression or
 * a record without an end; what on_file returns. */
int lh_reader_next(struct lh_reader *r, struct lh_chunk *c);
void lh_chunk_fini(struct lh_chunk *c);

/* Bytes read so far, compressed and not, for progress. Any thread. */
void lh_reader_progress(struct lh_reader *r, uint64_t *raw, uint64_t *text);
