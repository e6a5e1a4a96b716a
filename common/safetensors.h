/* The public safetensors format: 8 bytes of header length (little-endian), a JSON header that names
 * dtype, shape and byte range of each tensor, then the bytes. We write and read F32 of rank 1
 * and 2.
 *
 * The reader takes nothing on trust: lengths against the file's size before anything is allocated,
 * shapes against byte ranges, ranges against each other (no overlap, no hole, none outside). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lh_safetensor {
    const char *name;
    size_t rank;     /* 1 or 2 */
    size_t shape[2]; /* rank 1: shape[0] */
    const float *data;
};

/* Writes `n` tensors in the given order, and `metadata` (pairs key, value, key, value, …, NULL; may
 * be NULL). fsyncs. Names must be unique. Errors: LH_EIO, LH_ENOSPC, LH_EACCES, LH_ENOMEM. */
int lh_safetensors_write(const char *path, const struct lh_safetensor *tensors, size_t n,
                         const char *const *metadata);

struct lh_safetensors;

/* Reads the bytes of a whole file, copied; `name` stands for the file in complaints. Errors:
 * LH_EFORMAT naming file and tensor, LH_ENOMEM. */
int lh_safetensors_parse(struct lh_safetensors **out, const void *bytes, size_t n,
                         const char *name);
void lh_safetensors_close(struct lh_safetensors **f);
/* In order of their bytes. Names and data live with the file object; data is 64-byte aligned only
 * at the first tensor, and always 4-byte aligned. */
size_t lh_safetensors_count(const struct lh_safetensors *f);
const struct lh_safetensor *lh_safetensors_at(const struct lh_safetensors *f, size_t i);
const struct lh_safetensor *lh_safetensors_find(const struct lh_safetensors *f, const char *name);
/* NULL if there is no such key. */
const char *lh_safetensors_metadata(const struct lh_safetensors *f, const char *key);
