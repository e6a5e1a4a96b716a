/* The layout of a partition file, shared by its reader and its writer. See common/PARTITIONS.md. */
#pragma once

#include "common/partition.h"

#define LH_PART_MAGIC   "\x89LHPART\n" /* 8 bytes */
#define LH_PART_VERSION 1
#define LH_PART_ALIGN   64

enum lh_part_type { LH_PART_F32 = 1, LH_PART_U8, LH_PART_U32, LH_PART_U64, LH_PART_I64 };

struct lh_part_fixed { /* 128 bytes, little-endian */
    char magic[8];
    uint32_t version, header_bytes; /* header: this, the directory, the checksums */
    uint64_t file_bytes;
    uint64_t checksum; /* XXH3-64 of the header with this field zero */
    uint64_t rows, halos, cuts, pieces;
    uint32_t high, low, action, classes;
    uint32_t split;
    int32_t day;
    uint32_t hash, columns, block_bytes;
    uint32_t ids;
    uint32_t zero[6];
};
_Static_assert(sizeof(struct lh_part_fixed) == 128, "layout is interface");

struct lh_part_entry { /* 64 bytes, one per column */
    char name[16];     /* NUL-padded */
    uint32_t type, width;
    uint64_t rows, offset, bytes;
    uint64_t checksums, blocks; /* offset in the file of XXH3-64 values, one per block */
};
_Static_assert(sizeof(struct lh_part_entry) == 64, "layout is interface");

struct lh_part_spec {
    const char *name;
    enum lh_part_type type;
    uint32_t width;
    uint64_t rows;
};

/* What column `c` of a file with this head is. Without ids there is no column of ids: its width is
 * 0, and it is not in the directory, so that such files are those of the time before. */
struct lh_part_spec lh_part_spec(const struct lh_partition_head *head, enum lh_part_column c);
size_t lh_part_type_size(uint32_t type); /* 0 for a type that is none */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "partition files are mapped as they are");
