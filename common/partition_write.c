/* Writing a partition: plain writes into a file of its final size. Not a mapping: on a full disk a
 * mapping is a signal, a write is an error. Checksums are taken at the end, over what the file
 * then holds, because a block may have been filled by several segments. */
#include "common/partition.h"
#include "common/partition_internal.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <xxhash.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static uint64_t round_up(uint64_t n)
{
    return (n + LH_PART_ALIGN - 1) / LH_PART_ALIGN * LH_PART_ALIGN;
}

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + LH_PART_BLOCK - 1) / LH_PART_BLOCK;
}

/* Whether a file with this head has the column. */
static bool has_column(const struct lh_partition_head *h, int c)
{
    return c != LH_PART_IDS || h->dims.ids > 0;
}

/* Where everything goes. */
static void plan(const struct lh_partition_head *h, struct lh_part_fixed *fixed,
                 struct lh_part_entry entries[LH_PART_COLUMNS])
{
    uint32_t columns = 0;
    for (int c = 0; c < LH_PART_COLUMNS; c++)
        columns += has_column(h, c);
    uint64_t sums = sizeof *fixed + columns * sizeof *entries, blocks = 0;
    memset(entries, 0, LH_PART_COLUMNS * sizeof *entries);
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        struct lh_part_spec spec = lh_part_spec(h, (enum lh_part_column)c);
        struct lh_part_entry *e = &entries[c];
        memcpy(e->name, spec.name, strlen(spec.name));
        e->type = spec.type;
        e->width = spec.width;
        e->rows = spec.rows;
        e->bytes = spec.rows * spec.width * lh_part_type_size(spec.type);
        e->blocks = blocks_of(e->bytes);
        e->checksums = sums + blocks * 8;
        blocks += e->blocks;
    }
    uint64_t header = round_up(sums + blocks * 8), at = header;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        entries[c].offset = at;
        at += round_up(entries[c].bytes);
    }
    *fixed = (struct lh_part_fixed){
        .version = LH_PART_VERSION,
        .header_bytes = (uint32_t)header,
        .file_bytes = at,
        .rows = h->rows,
        .halos = h->halos,
        .cuts = h->cuts,
        .pieces = h->pieces,
        .high = h->dims.high,
        .low = h->dims.low,
        .action = h->dims.action,
        .classes = h->dims.classes,
        .split = h->split,
        .day = h->day,
        .hash = h->hash,
        .columns = columns,
        .block_bytes = LH_PART_BLOCK,
        .ids = h->dims.ids,
    };
    memcpy(fixed->magic, LH_PART_MAGIC, 8);
}

int lh_partition_create(const char *path, const struct lh_partition_head *head)
{
    struct lh_part_fixed fixed;
    struct lh_part_entry entries[LH_PART_COLUMNS];
    plan(head, &fixed, entries);
    /* a header beyond 4 GiB would stand for 2^45 bytes of columns */
    if (head->rows + head->halos > UINT32_MAX || fixed.file_bytes >> 45)
        return lh_err_set(LH_ERANGE,
                          "%s: %llu rows do not fit one partition; use more hash partitions", path,
                          (unsigned long long)head->rows);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return lh_err_errno(errno, "%s: cannot create", path);
    int e = ftruncate(fd, (off_t)fixed.file_bytes) < 0 ? errno : 0; /* gaps are zero */
    if (close(fd) < 0 && e == 0)
        e = errno;
    return e ? lh_err_errno(e, "%s: cannot give it its size", path) : 0;
}

/* --- segments -------------------------------------------------------------------------------- */

struct lh_partition_segment {
    char *path;
    int fd;
    struct lh_part_entry entries[LH_PART_COLUMNS];
    uint64_t at, end; /* in the file: where the buffer goes; the column's end */
    size_t used;
    unsigned char *buffer;
};

int lh_partition_segment_open(struct lh_partition_segment **out, const char *path,
                              const struct lh_partition_head *head)
{
    struct lh_partition_segment *s = NULL;
    struct lh_part_fixed fixed;
    void *buffer;
    int rc;
    LH_TRY(LH_NEW(&s, "partition writer"));
    s->fd = -1;
    plan(head, &fixed, s->entries);
    LH_TRY_TO(fail, lh_mem_strdup(&s->path, path));
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&buffer, 1, LH_PART_BLOCK, "partition writer"));
    s->buffer = buffer;
    s->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (s->fd < 0) {
        rc = lh_err_errno(errno, "%s", path);
        goto fail;
    }
    *out = s;
    return 0;
fail:
    s->used = 0;
    lh_partition_segment_close(&s);
    return rc;
}

static int flush(struct lh_partition_segment *s)
{
    LH_TRY(lh_fs_pwrite(s->fd, s->buffer, s->used, s->at, s->path));
    s->at += s->used;
    s->used = 0;
    return 0;
}

int lh_partition_segment_begin(struct lh_partition_segment *s, enum lh_part_column c, uint64_t row)
{
    const struct lh_part_entry *e = &s->entries[c];
    LH_TRY(flush(s));
    s->at = e->offset + row * e->width * lh_part_type_size(e->type);
    s->end = e->offset + e->bytes;
    return 0;
}

int lh_partition_segment_put(struct lh_partition_segment *s, const void *data, size_t bytes)
{
    assert(s->at + s->used + bytes <= s->end);
    const unsigned char *p = data;
    while (bytes > 0) {
        size_t n = LH_PART_BLOCK - s->used < bytes ? LH_PART_BLOCK - s->used : bytes;
        memcpy(s->buffer + s->used, p, n);
        s->used += n;
        p += n;
        bytes -= n;
        if (s->used == LH_PART_BLOCK)
            LH_TRY(flush(s));
    }
    return 0;
}

int lh_partition_segment_close(struct lh_partition_segment **ps)
{
    struct lh_partition_segment *s = *ps;
    if (!s)
        return 0;
    int rc = s->used > 0 ? flush(s) : 0;
    if (s->fd >= 0 && close(s->fd) < 0 && rc == 0)
        rc = lh_err_errno(errno, "%s: cannot write", s->path);
    lh_mem_free(s->buffer);
    lh_mem_free(s->path);
    lh_mem_free(s);
    *ps = NULL;
    return rc;
}

/* --- sealing --------------------------------------------------------------------------------- */

static int read_block(int fd, void *to, size_t n, uint64_t offset, const char *path)
{
    char *p = to;
    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lh_err_errno(got < 0 ? errno : EIO, "%s: cannot read back", path);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

static int sum_blocks(int fd, unsigned char *header, const struct lh_part_entry *e, void *block,
                      const char *path)
{
    uint64_t *sums = (uint64_t *)(void *)(header + e->checksums);
    for (uint64_t b = 0; b < e->blocks; b++) {
        uint64_t at = b * LH_PART_BLOCK;
        size_t n = e->bytes - at < LH_PART_BLOCK ? e->bytes - at : LH_PART_BLOCK;
        LH_TRY(read_block(fd, block, n, e->offset + at, path));
        sums[b] = XXH3_64bits(block, n);
    }
    return 0;
}

int lh_partition_seal(const char *path, const struct lh_partition_head *head, uint64_t *checksum,
                      uint64_t *bytes)
{
    struct lh_part_fixed fixed;
    struct lh_part_entry entries[LH_PART_COLUMNS];
    void *header = NULL, *block = NULL;
    int rc;
    plan(head, &fixed, entries);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    LH_TRY_TO(done, lh_mem_alloc(&header, 1, fixed.header_bytes, "partition header"));
    LH_TRY_TO(done, lh_mem_alloc_aligned(&block, 1, LH_PART_BLOCK, "partition block"));
    char *directory = (char *)header + sizeof fixed;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        if (has_column(head, c)) {
            memcpy(directory, &entries[c], sizeof entries[c]);
            directory += sizeof entries[c];
        }
        LH_TRY_TO(done, sum_blocks(fd, header, &entries[c], block, path));
    }
    XXH64_hash_t first = XXH3_64bits(&fixed, sizeof fixed);
    fixed.checksum = XXH3_64bits_withSeed((char *)header + sizeof fixed,
                                          fixed.header_bytes - sizeof fixed, first);
    memcpy(header, &fixed, sizeof fixed);
    LH_TRY_TO(done, lh_fs_pwrite(fd, header, fixed.header_bytes, 0, path));
    *checksum = fixed.checksum;
    *bytes = fixed.file_bytes;
    /* a start on the way to the disk: the sync at the end then waits for less */
    sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
done:
    if (close(fd) < 0 && rc == 0)
        rc = lh_err_errno(errno, "%s: cannot write", path);
    lh_mem_free(block);
    lh_mem_free(header);
    return rc;
}
