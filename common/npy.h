/* NumPy's array files (.npy): a magic text, a version, a header that is a Python dictionary of
 * type, order and shape, then the elements. We read versions 1.0 and 2.0 with float32, float64 or
 * int64 elements, little-endian, in C order, and write float32 as version 1.0.
 *
 * The reader takes nothing on trust: the header's length is held against the file's, every size
 * against overflow, and the elements must be exactly what lies behind the header. */
#pragma once

#include <stddef.h>

enum lh_npy_type { LH_NPY_FLOAT32, LH_NPY_FLOAT64, LH_NPY_INT64 };

enum { LH_NPY_RANK_MAX = 8 };

struct lh_npy {
    enum lh_npy_type type;
    size_t rank; /* 0: one number */
    size_t shape[LH_NPY_RANK_MAX];
    size_t count;     /* of elements: the product of the shape */
    const void *data; /* unaligned */
    char *owned;      /* of lh_npy_open */
};

/* Reads a whole file. Errors: LH_ENOENT, LH_EACCES, LH_EIO, LH_ENOMEM; LH_EFORMAT naming file and
 * what is wrong with it. Close it after success. */
int lh_npy_open(struct lh_npy *out, const char *path);
void lh_npy_close(struct lh_npy *a); /* idempotent; zeroed content allowed */

/* The same over bytes in memory, which `out->data` points into; nothing to close. `name` stands for
 * the file in complaints. Allocates nothing. */
int lh_npy_parse(struct lh_npy *out, const void *bytes, size_t n, const char *name);

/* Elements as floats: out [count]. Errors: LH_ERANGE naming the first element that is NaN, infinite
 * or too large for a float. */
int lh_npy_floats(const struct lh_npy *a, const char *name, float *out);

/* Shape as Python writes it, "(24, 5)", for complaints; cut off if too long. */
void lh_npy_shape_text(char *out, size_t size, const size_t *shape, size_t rank);

/* Creates or overwrites; does not fsync, since what it writes can be computed again. x has as many
 * elements as the shape says. Errors: LH_EIO, LH_ENOSPC, LH_EACCES, LH_ENOMEM. */
int lh_npy_write(const char *path, const float *x, const size_t *shape, size_t rank);
