/* A table's rows as one safetensors file: `ids` U64 [n], ascending, and `rows` F32 [n, dim]. It is
 * written as rows come and mapped to be read, so that neither needs the memory of the table. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lh_rowfile_writer;

/* A file of n rows. Errors: LH_EIO, LH_ENOSPC, LH_EACCES, LH_ERANGE. */
int lh_rowfile_create(struct lh_rowfile_writer **out, const char *path, uint64_t n, uint32_t dim);
/* The next row; ids ascend. */
int lh_rowfile_put(struct lh_rowfile_writer *w, uint64_t id, const float *row);
/* Errors: LH_EINTERNAL if fewer than n rows came. Frees the writer, also on failure. fsyncs. */
int lh_rowfile_close(struct lh_rowfile_writer **w);
void lh_rowfile_abort(struct lh_rowfile_writer **w); /* NULL content allowed */

struct lh_rowfile {
    const uint64_t *ids; /* [n] */
    const float *rows;   /* [n, dim] */
    uint64_t n;
    uint32_t dim;
    uint64_t bytes, checksum; /* of the file: XXH3-64 */
    void *map;
};

/* Checks the bytes of a whole file: layout, order of ids, that rows are finite. They lie on a
 * boundary of 8 bytes and outlive f; `name` stands for the file. Errors: LH_EFORMAT. */
int lh_rowfile_parse(struct lh_rowfile *f, const void *bytes, size_t n, const char *name);
/* The same of a file, which it maps. Errors: LH_ENOENT, LH_EFORMAT, LH_EIO. */
int lh_rowfile_open(struct lh_rowfile *f, const char *path);
void lh_rowfile_unmap(struct lh_rowfile *f); /* idempotent */
/* The row of an id, or NULL. */
const float *lh_rowfile_find(const struct lh_rowfile *f, uint64_t id);
