/* Reading a partition: map, check the header at once and each column block when it is first
 * touched. Nothing of a file is believed before it was checked: not the directory's offsets, not
 * the lists of cuts and halos that rows are computed from. */
#include "common/partition.h"
#include "common/partition_internal.h"

#include "common/err.h"
#include "common/mem.h"

#include <xxhash.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIM_MAX (1u << 20)

struct column {
    const unsigned char *data;
    size_t row_bytes, bytes;
    const uint64_t *checksums;
    _Atomic uint64_t *seen; /* a bit a block: verified */
    size_t blocks;
};

struct lh_partition {
    char *name;
    const unsigned char *map;
    size_t bytes;
    bool mapped;
    struct lh_partition_head head;
    uint64_t checksum;
    struct column column[LH_PART_COLUMNS];
    _Atomic uint64_t *seen;
    const uint32_t *cut, *halo;
};

struct lh_part_spec lh_part_spec(const struct lh_partition_head *h, enum lh_part_column c)
{
    uint64_t all = h->rows + h->halos;
    switch (c) {
    case LH_PART_HIGH:
        return (struct lh_part_spec){"state_high", LH_PART_F32, h->dims.high, all};
    case LH_PART_LOW:
        return (struct lh_part_spec){"state_low", LH_PART_F32, h->dims.low, all};
    case LH_PART_ACTION:
        return (struct lh_part_spec){"action", LH_PART_F32, h->dims.action, h->rows};
    case LH_PART_REWARD:
        return (struct lh_part_spec){"reward", LH_PART_F32, 1, h->rows};
    case LH_PART_CLASS:
        return (struct lh_part_spec){"reward_class", LH_PART_U8, 1, h->rows};
    case LH_PART_FLAGS:
        return (struct lh_part_spec){"flags", LH_PART_U8, 1, h->rows};
    case LH_PART_TIME:
        return (struct lh_part_spec){"time_us", LH_PART_I64, 1, h->rows};
    case LH_PART_USER:
        return (struct lh_part_spec){"user", LH_PART_U64, 1, h->rows};
    case LH_PART_TRAJECTORY:
        return (struct lh_part_spec){"trajectory", LH_PART_U64, 1, h->rows};
    case LH_PART_SESSION:
        return (struct lh_part_spec){"session", LH_PART_U32, 1, h->rows};
    case LH_PART_IDS:
        return (struct lh_part_spec){"ids", LH_PART_U64, h->dims.ids, all};
    case LH_PART_CUT:
        return (struct lh_part_spec){"cut", LH_PART_U32, 1, h->cuts};
    case LH_PART_HALO:
        return (struct lh_part_spec){"halo", LH_PART_U32, 1, h->halos};
    case LH_PART_COLUMNS:
        break;
    }
    return (struct lh_part_spec){"", LH_PART_U8, 0, 0};
}

size_t lh_part_type_size(uint32_t type)
{
    switch (type) {
    case LH_PART_F32:
    case LH_PART_U32:
        return 4;
    case LH_PART_U8:
        return 1;
    case LH_PART_U64:
    case LH_PART_I64:
        return 8;
    default:
        return 0;
    }
}

static int broken(const struct lh_partition *p, const char *what)
{
    return lh_err_set(LH_EFORMAT, "%s: not a sound partition: %s; restore it or import again",
                      p->name, what);
}

/* The header's own checksum, its field taken as zero. */
static uint64_t header_checksum(const unsigned char *map, size_t bytes)
{
    struct lh_part_fixed fixed;
    memcpy(&fixed, map, sizeof fixed);
    fixed.checksum = 0;
    XXH64_hash_t first = XXH3_64bits(&fixed, sizeof fixed);
    return XXH3_64bits_withSeed(map + sizeof fixed, bytes - sizeof fixed, first);
}

static int check_fixed(struct lh_partition *p, const struct lh_part_fixed *f)
{
    if (p->bytes < sizeof *f || memcmp(f->magic, LH_PART_MAGIC, 8) != 0)
        return lh_err_set(LH_EFORMAT, "%s: not a partition file; restore it or import again",
                          p->name);
    if (f->version != LH_PART_VERSION)
        return lh_err_set(LH_EFORMAT,
                          "%s: written by version %u of the partition format, this program reads "
                          "%d; use a newer longhaul",
                          p->name, f->version, LH_PART_VERSION);
    if (f->file_bytes != p->bytes)
        return lh_err_set(LH_EFORMAT,
                          "%s: %zu bytes long, its header says %llu; it was cut short, "
                          "restore it or import again",
                          p->name, p->bytes, (unsigned long long)f->file_bytes);
    if (f->header_bytes < sizeof *f || f->header_bytes > p->bytes)
        return broken(p, "the header's length");
    if (header_checksum(p->map, f->header_bytes) != f->checksum)
        return lh_err_set(LH_ECORRUPT,
                          "%s: the header is damaged (its checksum does not match); "
                          "restore it or import again",
                          p->name);
    if (f->columns > 1024 ||
        f->header_bytes < sizeof *f + f->columns * sizeof(struct lh_part_entry))
        return broken(p, "the column directory");
    if (f->high > DIM_MAX || f->low > DIM_MAX || f->action > DIM_MAX || f->classes > 256 ||
        f->ids > LH_IDS_MAX || f->split >= LH_SPLITS || f->block_bytes != LH_PART_BLOCK)
        return broken(p, "the dimensions");
    if (f->rows > UINT32_MAX || f->halos > UINT32_MAX || f->rows + f->halos > UINT32_MAX ||
        f->cuts > f->rows || f->halos > f->rows || f->pieces > f->rows)
        return broken(p, "the row counts");
    p->head = (struct lh_partition_head){
        .dims = {f->high, f->low, f->action, f->classes, f->ids},
        .split = (enum lh_split)f->split,
        .day = f->day,
        .hash = f->hash,
        .rows = f->rows,
        .halos = f->halos,
        .cuts = f->cuts,
        .pieces = f->pieces,
    };
    p->checksum = f->checksum;
    return 0;
}

static int find_column(struct lh_partition *p, const struct lh_part_fixed *f, enum lh_part_column c)
{
    struct lh_part_spec want = lh_part_spec(&p->head, c);
    struct lh_part_entry e;
    p->column[c].data = p->map;
    if (c == LH_PART_IDS && p->head.dims.ids == 0)
        return 0;
    for (uint32_t i = 0; i < f->columns; i++) {
        memcpy(&e, p->map + sizeof *f + i * sizeof e, sizeof e);
        if (strncmp(e.name, want.name, sizeof e.name) != 0)
            continue;
        size_t row_bytes = lh_part_type_size(e.type) * want.width;
        /* rows < 2^32, a row < 2^23 bytes: no overflow */
        if (e.type != want.type || e.width != want.width || e.rows != want.rows ||
            e.bytes != e.rows * row_bytes || e.offset % LH_PART_ALIGN != 0 || e.offset > p->bytes ||
            e.bytes > p->bytes - e.offset ||
            e.blocks != (e.bytes + LH_PART_BLOCK - 1) / LH_PART_BLOCK || e.checksums % 8 != 0 ||
            e.checksums > f->header_bytes || e.blocks > (f->header_bytes - e.checksums) / 8)
            return broken(p, want.name);
        p->column[c] = (struct column){
            .data = p->map + e.offset,
            .row_bytes = row_bytes,
            .bytes = e.bytes,
            .checksums = (const uint64_t *)(const void *)(p->map + e.checksums),
            .blocks = e.blocks,
        };
        return 0;
    }
    return lh_err_set(LH_EFORMAT, "%s: has no column %s; it is not a partition of this version",
                      p->name, want.name);
}

static int check_list(const struct lh_partition *p, const uint32_t *list, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (list[i] >= p->head.rows || (i > 0 && list[i] <= list[i - 1]))
            return broken(p, "the list of cuts or halos");
    }
    return 0;
}

static int setup(struct lh_partition *p)
{
    struct lh_part_fixed f = {.version = 0};
    memcpy(&f, p->map, p->bytes < sizeof f ? p->bytes : sizeof f);
    LH_TRY(check_fixed(p, &f));
    size_t words = 0;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        LH_TRY(find_column(p, &f, (enum lh_part_column)c));
        words += (p->column[c].blocks + 63) / 64;
    }
    void *seen;
    LH_TRY(lh_mem_alloc(&seen, words, sizeof *p->seen, p->name));
    p->seen = seen;
    words = 0;
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        p->column[c].seen = p->seen + words;
        words += (p->column[c].blocks + 63) / 64;
    }
    if (!(p->cut = lh_partition_column(p, LH_PART_CUT)) ||
        !(p->halo = lh_partition_column(p, LH_PART_HALO)))
        return LH_ECORRUPT;
    LH_TRY(check_list(p, p->cut, p->head.cuts));
    return check_list(p, p->halo, p->head.halos);
}

int lh_partition_open_memory(struct lh_partition **out, const void *bytes, size_t n,
                             const char *name)
{
    struct lh_partition *p = NULL;
    int rc;
    LH_TRY(LH_NEW(&p, name));
    p->map = bytes;
    p->bytes = n;
    LH_TRY_TO(fail, lh_mem_strdup(&p->name, name));
    LH_TRY_TO(fail, setup(p));
    *out = p;
    return 0;
fail:
    lh_partition_close(&p);
    return rc;
}

static int map_file(const char *path, void **map, size_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    struct stat st;
    int rc = 0;
    *map = MAP_FAILED;
    if (fstat(fd, &st) < 0)
        rc = lh_err_errno(errno, "%s", path);
    else if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(struct lh_part_fixed))
        rc = lh_err_set(LH_EFORMAT, "%s: not a partition file; restore it or import again", path);
    else if ((*map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        rc = lh_err_errno(errno, "%s: cannot map", path);
    else
        *bytes = (size_t)st.st_size;
    close(fd);
    return rc;
}

int lh_partition_open(struct lh_partition **out, const char *path)
{
    void *map;
    size_t bytes = 0;
    int rc = map_file(path, &map, &bytes);
    if (rc == LH_ENOENT)
        return lh_err_set(rc, "%s: is missing; restore it or import again", path);
    LH_TRY(rc);
    rc = lh_partition_open_memory(out, map, bytes, path);
    if (rc < 0)
        munmap(map, bytes);
    else
        (*out)->mapped = true;
    return rc;
}

void lh_partition_close(struct lh_partition **pp)
{
    struct lh_partition *p = *pp;
    if (!p)
        return;
    if (p->mapped)
        munmap((void *)(uintptr_t)p->map, p->bytes);
    lh_mem_free(p->seen);
    lh_mem_free(p->name);
    lh_mem_free(p);
    *pp = NULL;
}

void lh_partition_release(const struct lh_partition *p)
{
    if (p->mapped)
        madvise((void *)(uintptr_t)p->map, p->bytes, MADV_DONTNEED);
}

const struct lh_partition_head *lh_partition_head(const struct lh_partition *p)
{
    return &p->head;
}

uint64_t lh_partition_checksum(const struct lh_partition *p)
{
    return p->checksum;
}

uint64_t lh_partition_bytes(const struct lh_partition *p)
{
    return p->bytes;
}

/* The slow path of a touch. Two threads may both verify a block; both find the same. */
static int verify_block(const struct lh_partition *p, enum lh_part_column c, size_t block)
{
    const struct column *col = &p->column[c];
    size_t at = block * LH_PART_BLOCK;
    size_t n = col->bytes - at < LH_PART_BLOCK ? col->bytes - at : LH_PART_BLOCK;
    if (XXH3_64bits(col->data + at, n) != col->checksums[block])
        return lh_err_set(LH_ECORRUPT,
                          "%s: block %zu of column %s is damaged (its checksum does not match); "
                          "restore the file or import again",
                          p->name, block, lh_part_spec(&p->head, c).name);
    atomic_fetch_or_explicit(&col->seen[block / 64], UINT64_C(1) << block % 64,
                             memory_order_release);
    return 0;
}

static inline int touch(const struct lh_partition *p, enum lh_part_column c, size_t from, size_t to)
{
    const struct column *col = &p->column[c];
    for (size_t b = from / LH_PART_BLOCK; b * LH_PART_BLOCK < to; b++) {
        uint64_t word = atomic_load_explicit(&col->seen[b / 64], memory_order_acquire);
        if (!(word >> b % 64 & 1))
            LH_TRY(verify_block(p, c, b));
    }
    return 0;
}

const void *lh_partition_row(const struct lh_partition *p, enum lh_part_column c, uint64_t row)
{
    const struct column *col = &p->column[c];
    size_t at = row * col->row_bytes;
    assert(at + col->row_bytes <= col->bytes);
    if (touch(p, c, at, at + col->row_bytes) < 0)
        return NULL;
    return col->data + at;
}

void lh_partition_ahead(const struct lh_partition *p, uint64_t row)
{
    static const enum lh_part_column read[] = {LH_PART_FLAGS,  LH_PART_HIGH,   LH_PART_LOW,
                                               LH_PART_ACTION, LH_PART_REWARD, LH_PART_CLASS,
                                               LH_PART_IDS};
    for (size_t c = 0; c < sizeof read / sizeof *read; c++) {
        const struct column *col = &p->column[read[c]];
        const bool next =
            read[c] == LH_PART_HIGH || read[c] == LH_PART_LOW || read[c] == LH_PART_IDS;
        const char *from = (const char *)col->data + row * col->row_bytes;
        for (size_t at = 0; at < col->row_bytes << next; at += 64)
            __builtin_prefetch(from + at);
    }
}

const void *lh_partition_column(const struct lh_partition *p, enum lh_part_column c)
{
    return touch(p, c, 0, p->column[c].bytes) < 0 ? NULL : p->column[c].data;
}

/* Index of the first element >= v. */
static uint64_t lower_bound(const uint32_t *list, uint64_t n, uint64_t v)
{
    uint64_t lo = 0;
    while (n > 0) {
        uint64_t half = n / 2;
        if (list[lo + half] < v) {
            lo += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return lo;
}

int lh_partition_next(const struct lh_partition *p, uint64_t row, uint8_t flags, uint64_t *next)
{
    if (flags & LH_PART_NEXT_IS_HALO) {
        uint64_t k = lower_bound(p->halo, p->head.halos, row);
        if (k < p->head.halos && p->halo[k] == row) {
            *next = p->head.rows + k;
            return 0;
        }
    } else if (row + 1 < p->head.rows) {
        *next = row + 1;
        return 0;
    }
    return lh_err_set(LH_ECORRUPT, "%s: row %llu says it has a next state, and has none", p->name,
                      (unsigned long long)row);
}

uint64_t lh_partition_transition(const struct lh_partition *p, uint64_t k)
{
    assert(k < p->head.rows - p->head.cuts);
    /* cut[i] - i transitions lie before cut i; count the cuts for which that is <= k */
    uint64_t lo = 0, n = p->head.cuts;
    while (n > 0) {
        uint64_t half = n / 2;
        if (p->cut[lo + half] - (lo + half) <= k) {
            lo += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return k + lo;
}

int lh_partition_verify(const struct lh_partition *p)
{
    for (int c = 0; c < LH_PART_COLUMNS; c++)
        LH_TRY(touch(p, (enum lh_part_column)c, 0, p->column[c].bytes));
    return 0;
}

void lh_partition_column_info(const struct lh_partition *p, enum lh_part_column c,
                              struct lh_partition_column_info *out)
{
    static const char *const types[] = {
        [LH_PART_F32] = "f32", [LH_PART_U8] = "u8",   [LH_PART_U32] = "u32",
        [LH_PART_U64] = "u64", [LH_PART_I64] = "i64",
    };
    struct lh_part_spec spec = lh_part_spec(&p->head, c);
    *out = (struct lh_partition_column_info){
        .name = spec.name,
        .type = types[spec.type],
        .width = spec.width,
        .rows = spec.rows,
        .offset = (uint64_t)(p->column[c].data - p->map),
        .bytes = p->column[c].bytes,
        .blocks = p->column[c].blocks,
    };
}

uint32_t lh_partition_of_user(uint64_t user, uint32_t partitions)
{
    /* users may be plain numbers: mix before the multiply-shift takes the top bits */
    return (uint32_t)((XXH3_64bits(&user, sizeof user) >> 32) * partitions >> 32);
}
