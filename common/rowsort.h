/* Sorts a bucket of binary rows by user and time. */
#pragma once

#include "common/schema.h"
#include "common/spool.h"

#include <stddef.h>
#include <stdint.h>

/* Moves bucket `bucket` of `from` to `to`, as one span, sorted by (hash, user, time, order), and
 * counts its users. All hashes of the bucket share their upper `bits` bits. Takes 64 bytes a row
 * beside the rows themselves. Errors: LH_ENOMEM, I/O. */
int lh_rowsort_bucket(struct lh_spool *from, struct lh_spool *to, size_t bucket, size_t row_bytes,
                      unsigned bits, uint64_t *users);
