/* Writing a partition: columns stream through one block buffer, so that a writer's memory does not
 * depend on the partition's size; the header, whose length is known from the start, comes last.
 * Plain writes and not a mapping: on a full disk a mapping is a signal, a write is an error. */
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

struct lh_partition_writer {
    char *path;
    int fd;
    struct lh_partition_head head;
    struct lh_part_fixed *fixed;   /* start of the header's bytes */
    struct lh_part_entry *entries; /* … inside it */
    int column;                    /* being written */
    uint64_t done;                 /* bytes of it that are in blocks already flushed */
    size_t used;                   /* bytes in `block` */
    unsigned char *block;
};

static size_t round_up(size_t n)
{
    return (n + LH_PART_ALIGN - 1) / LH_PART_ALIGN * LH_PART_ALIGN;
}

static int plan(struct lh_partition_writer *w)
{
    struct lh_part_spec spec[LH_PART_COLUMNS];
    uint64_t bytes[LH_PART_COLUMNS], blocks = 0;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        spec[c] = lh_part_spec(&w->head, (enum lh_part_column)c);
        bytes[c] = spec[c].rows * spec[c].width * lh_part_type_size(spec[c].type);
        blocks += (bytes[c] + LH_PART_BLOCK - 1) / LH_PART_BLOCK;
    }
    size_t fixed_bytes = sizeof *w->fixed + LH_PART_COLUMNS * sizeof *w->entries;
    size_t header = round_up(fixed_bytes + blocks * 8);
    if (header > UINT32_MAX)
        return lh_err_set(LH_ERANGE, "%s: too large for one partition; use more hash partitions",
                          w->path);
    void *p;
    LH_TRY(lh_mem_alloc(&p, 1, header, "partition header"));
    w->fixed = p;
    w->entries = (struct lh_part_entry *)(w->fixed + 1);
    uint64_t at = header, sums = fixed_bytes;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        struct lh_part_entry *e = &w->entries[c];
        memcpy(e->name, spec[c].name, strlen(spec[c].name));
        e->type = spec[c].type;
        e->width = spec[c].width;
        e->rows = spec[c].rows;
        e->offset = at;
        e->bytes = bytes[c];
        e->checksums = sums;
        e->blocks = (bytes[c] + LH_PART_BLOCK - 1) / LH_PART_BLOCK;
        sums += e->blocks * 8;
        at += round_up(bytes[c]);
    }
    const struct lh_partition_head *h = &w->head;
    *w->fixed = (struct lh_part_fixed){
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
        .columns = LH_PART_COLUMNS,
        .block_bytes = LH_PART_BLOCK,
    };
    memcpy(w->fixed->magic, LH_PART_MAGIC, 8);
    return 0;
}

int lh_partition_writer_open(struct lh_partition_writer **out, const char *path,
                             const struct lh_partition_head *head)
{
    struct lh_partition_writer *w = NULL;
    void *block;
    int rc;
    if (head->rows + head->halos > UINT32_MAX)
        return lh_err_set(LH_ERANGE,
                          "%s: %llu rows do not fit one partition; use more hash "
                          "partitions",
                          path, (unsigned long long)head->rows);
    LH_TRY(LH_NEW(&w, "partition writer"));
    w->fd = -1;
    w->head = *head;
    LH_TRY_TO(fail, lh_mem_strdup(&w->path, path));
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&block, 1, LH_PART_BLOCK, "partition block"));
    w->block = block;
    LH_TRY_TO(fail, plan(w));
    w->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        rc = lh_err_errno(errno, "%s: cannot create", path);
        goto fail;
    }
    if (ftruncate(w->fd, (off_t)w->fixed->file_bytes) < 0) { /* gaps between columns are zero */
        rc = lh_err_errno(errno, "%s: cannot size", path);
        goto fail;
    }
    *out = w;
    return 0;
fail:
    lh_partition_writer_abort(&w);
    return rc;
}

static int flush(struct lh_partition_writer *w)
{
    struct lh_part_entry *e = &w->entries[w->column];
    uint64_t *sums = (uint64_t *)(void *)((unsigned char *)w->fixed + e->checksums);
    sums[w->done / LH_PART_BLOCK] = XXH3_64bits(w->block, w->used);
    LH_TRY(lh_fs_pwrite(w->fd, w->block, w->used, e->offset + w->done, w->path));
    w->done += w->used;
    w->used = 0;
    return 0;
}

static int end_column(struct lh_partition_writer *w)
{
    if (w->used > 0)
        LH_TRY(flush(w));
    assert(w->done == w->entries[w->column].bytes);
    w->column++;
    w->done = 0;
    return 0;
}

int lh_partition_writer_put(struct lh_partition_writer *w, enum lh_part_column c, const void *data,
                            size_t bytes)
{
    assert((int)c >= w->column && c < LH_PART_COLUMNS);
    while (w->column < (int)c)
        LH_TRY(end_column(w));
    assert(w->done + w->used + bytes <= w->entries[c].bytes);
    const unsigned char *p = data;
    while (bytes > 0) {
        size_t n = LH_PART_BLOCK - w->used < bytes ? LH_PART_BLOCK - w->used : bytes;
        memcpy(w->block + w->used, p, n);
        w->used += n;
        p += n;
        bytes -= n;
        if (w->used == LH_PART_BLOCK)
            LH_TRY(flush(w));
    }
    return 0;
}

int lh_partition_writer_close(struct lh_partition_writer **ww, uint64_t *checksum, uint64_t *bytes)
{
    struct lh_partition_writer *w = *ww;
    int rc = 0;
    while (w->column < LH_PART_COLUMNS)
        LH_TRY_TO(fail, end_column(w));
    XXH64_hash_t first = XXH3_64bits(w->fixed, sizeof *w->fixed);
    w->fixed->checksum =
        XXH3_64bits_withSeed(w->fixed + 1, w->fixed->header_bytes - sizeof *w->fixed, first);
    LH_TRY_TO(fail, lh_fs_pwrite(w->fd, w->fixed, w->fixed->header_bytes, 0, w->path));
    *checksum = w->fixed->checksum;
    *bytes = w->fixed->file_bytes;
    /* a start on the way to the disk: the fsync at the end then waits for less */
    sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) < 0)
        rc = lh_err_errno(errno, "%s: cannot write", w->path);
fail:
    lh_partition_writer_abort(ww);
    return rc;
}

void lh_partition_writer_abort(struct lh_partition_writer **ww)
{
    struct lh_partition_writer *w = *ww;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    lh_mem_free(w->fixed);
    lh_mem_free(w->block);
    lh_mem_free(w->path);
    lh_mem_free(w);
    *ww = NULL;
}
