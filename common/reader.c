/* Reading logs. libarchive undoes the compression. A chunk is what was left over from the one
 * before plus new bytes, cut behind its last whole record; what is behind the cut is left over for
 * the next. All under one lock: decompression is serial by nature, and a thread that waits here
 * would have nothing to parse anyway. */
#include "common/reader.h"

#include "common/err.h"
#include "common/mem.h"

#include <archive.h>
#include <archive_entry.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES (256u << 10)

struct lh_reader {
    struct lh_reader_spec spec;
    pthread_mutex_t lock;
    struct archive *archive; /* of the open file, if it is compressed */
    bool open;               /* a file is */
    int fd;
    bool ended; /* the open file has no more bytes */
    size_t file;
    size_t line; /* of the first byte left over */
    uint64_t number;
    void *layout;
    char *left; /* over from the chunk before */
    size_t left_n, left_cap;
    struct lh_err failed;
    _Atomic uint64_t raw, text;
    uint64_t raw_of_file; /* bytes of the open file, compressed */
};

int lh_reader_create(struct lh_reader **out, const struct lh_reader_spec *spec)
{
    LH_TRY(LH_NEW(out, "log reader"));
    (*out)->spec = *spec;
    (*out)->fd = -1;
    if (spec->chunk_bytes == 0)
        (*out)->spec.chunk_bytes = 1u << 20;
    pthread_mutex_init(&(*out)->lock, NULL);
    return 0;
}

static void close_file(struct lh_reader *r)
{
    if (r->archive)
        archive_read_free(r->archive);
    if (r->fd > 0)
        close(r->fd);
    r->archive = NULL;
    r->open = false;
    r->fd = -1;
}

void lh_reader_destroy(struct lh_reader **p)
{
    struct lh_reader *r = *p;
    if (!r)
        return;
    close_file(r);
    pthread_mutex_destroy(&r->lock);
    lh_mem_free(r->left);
    lh_mem_free(r);
    *p = NULL;
}

void lh_chunk_fini(struct lh_chunk *c)
{
    lh_mem_free(c->buffer);
    *c = (struct lh_chunk){.data = NULL};
}

void lh_reader_progress(struct lh_reader *r, uint64_t *raw, uint64_t *text)
{
    *raw = atomic_load_explicit(&r->raw, memory_order_relaxed);
    *text = atomic_load_explicit(&r->text, memory_order_relaxed);
}

static const char *name_of(const struct lh_reader *r)
{
    const char *name = r->spec.files[r->file];
    return strcmp(name, "-") == 0 ? "standard input" : name;
}

/* Whether a file begins like one of the compressions that libarchive is asked to undo. Others,
 * pipes among them, could only be told by reading on, which libarchive does. */
static bool looks_plain(int fd)
{
    static const struct {
        const char *bytes;
        size_t n;
    } magic[] = {{"\x1f\x8b", 2},
                 {"BZh", 3},
                 {"\xfd"
                  "7zXZ",
                  5},
                 {"\x28\xb5\x2f\xfd", 4},
                 {"\x04\x22\x4d\x18", 4},
                 {"\x02\x21\x4c\x18", 4},
                 {"]\0\0", 3}};
    char head[8];
    if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head)
        return false;
    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++) {
        if (memcmp(head, magic[i].bytes, magic[i].n) == 0)
            return false;
    }
    return (unsigned char)(head[0] - 0x50) > 0x0f || head[1] != 0x2a || head[2] != 0x4d;
}

static int open_archive(struct lh_reader *r)
{
    struct archive *a = archive_read_new();
    if (!a)
        return lh_err_set(LH_ENOMEM, "%s: out of memory", name_of(r));
    r->archive = a;
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_lz4(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    struct archive_entry *entry;
    int rc = archive_read_open_fd(a, r->fd, BLOCK_BYTES);
    if (rc == ARCHIVE_OK)
        rc = archive_read_next_header(a, &entry);
    r->ended = rc == ARCHIVE_EOF;
    if (rc != ARCHIVE_OK && rc != ARCHIVE_EOF && rc != ARCHIVE_WARN)
        return lh_err_set(LH_EFORMAT, "%s: cannot read: %s; is the file whole?", name_of(r),
                          archive_error_string(a));
    return 0;
}

static int open_file(struct lh_reader *r)
{
    const char *name = r->spec.files[r->file];
    r->fd = strcmp(name, "-") == 0 ? 0 : open(name, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return lh_err_errno(errno, "%s", name_of(r));
    r->open = true;
    r->ended = false;
    struct stat st;
    if (fstat(r->fd, &st) == 0 && S_ISDIR(st.st_mode))
        return lh_err_errno(EISDIR, "%s", name_of(r));
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return looks_plain(r->fd) ? 0 : open_archive(r); /* plain: one copy less */
}

/* More bytes of the file to the end of the buffer, at most `want`; 0 at its end. */
static int read_some(struct lh_reader *r, char *to, size_t want, size_t *got)
{
    *got = 0;
    if (r->ended)
        return 0;
    la_ssize_t n;
    if (r->archive) {
        n = archive_read_data(r->archive, to, want);
        if (n < 0) {
            const char *why = archive_error_string(r->archive);
            return lh_err_set(LH_EFORMAT, "%s: cannot read: %s; is the file whole?", name_of(r),
                              why ? why : "unknown reason");
        }
    } else {
        do
            n = read(r->fd, to, want);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return lh_err_errno(errno, "%s: cannot read", name_of(r));
    }
    r->ended = n == 0;
    *got = (size_t)n;
    uint64_t raw =
        r->archive ? (uint64_t)archive_filter_bytes(r->archive, -1) : r->raw_of_file + (uint64_t)n;
    atomic_fetch_add_explicit(&r->raw, raw - r->raw_of_file, memory_order_relaxed);
    r->raw_of_file = raw;
    atomic_fetch_add_explicit(&r->text, (uint64_t)n, memory_order_relaxed);
    return 0;
}

static size_t count_lines(const char *p, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

/* Bytes of whole records at the start of p. */
static size_t border(const struct lh_reader *r, const char *p, size_t n)
{
    if (r->spec.lines) {
        const char *last = n ? memrchr(p, '\n', n) : NULL;
        return last ? (size_t)(last + 1 - p) : 0;
    }
    return lh_csv_border(&r->spec.csv, p, n);
}

/* Bytes at the start of a file that are no records: a byte order mark, skipped lines. */
static size_t preamble(const struct lh_reader *r, const char *p, size_t n)
{
    size_t at = n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    for (size_t i = 0; i < r->spec.skip && at < n; i++) {
        const char *end = memchr(p + at, '\n', n - at);
        at = end ? (size_t)(end + 1 - p) : n;
    }
    return at;
}

/* Fills the chunk's buffer up to `target` bytes and beyond until a record ends in it (or the file
 * does); *from .. *to are then the records, *all what there is. */
static int fill(struct lh_reader *r, struct lh_chunk *c, size_t target, bool fresh, size_t *from,
                size_t *to, size_t *all)
{
    LH_TRY(LH_GROW(&c->buffer, &c->cap, target + r->left_n, "a piece of the log"));
    size_t n = r->left_n;
    if (n > 0)
        memcpy(c->buffer, r->left, n);
    r->left_n = 0;
    for (;;) {
        while (n < target && !r->ended) {
            size_t got;
            LH_TRY(LH_GROW(&c->buffer, &c->cap, target, "a piece of the log"));
            LH_TRY(read_some(r, c->buffer + n, target - n, &got));
            n += got;
        }
        *from = fresh ? preamble(r, c->buffer, n) : 0;
        *to = r->ended ? n : *from + border(r, c->buffer + *from, n - *from);
        *all = n;
        if (*to > *from || r->ended)
            return 0;
        if (n >= LH_READER_RECORD_MAX)
            return lh_err_set(LH_EFORMAT,
                              "%s:%zu: a record longer than %u MiB; is a quote left open, or is "
                              "this no text?",
                              name_of(r), r->line, LH_READER_RECORD_MAX >> 20);
        target = n * 2;
    }
}

/* The first whole record of p, which holds one or is all that the file has. */
static size_t first_record(const struct lh_reader *r, const char *p, size_t n)
{
    if (r->spec.lines || r->spec.csv.quote < 0) {
        const char *end = memchr(p, '\n', n);
        return end ? (size_t)(end + 1 - p) : n;
    }
    struct lh_csv_cursor c;
    size_t fields;
    lh_csv_begin(&c, &r->spec.csv, p, n, 1);
    lh_csv_next(&c, NULL, 0, &fields);
    return (size_t)(c.at - p);
}

/* Takes the header, if there is to be one, from the records of a file's first chunk. */
static int take_header(struct lh_reader *r, const char *records, size_t n, size_t *header)
{
    *header = r->spec.header ? first_record(r, records, n) : 0;
    r->layout = NULL;
    if (!r->spec.on_file)
        return 0;
    return r->spec.on_file(r->spec.ctx, name_of(r), *header ? records : NULL, *header, r->line,
                           &r->layout);
}

static int next(struct lh_reader *r, struct lh_chunk *c)
{
    while (r->file < r->spec.n_files) {
        bool fresh = !r->open;
        size_t from, to, all, header;
        if (fresh) {
            r->line = 1;
            r->raw_of_file = 0;
            LH_TRY(open_file(r));
        }
        LH_TRY(fill(r, c, r->spec.chunk_bytes, fresh, &from, &to, &all));
        if (fresh) {
            r->line += count_lines(c->buffer, from);
            LH_TRY(take_header(r, c->buffer + from, to - from, &header));
            r->line += count_lines(c->buffer + from, header);
            from += header;
        }
        if (all > to) {
            LH_TRY(LH_GROW(&r->left, &r->left_cap, all - to, "a piece of the log"));
            memcpy(r->left, c->buffer + to, all - to);
            r->left_n = all - to;
        }
        c->data = c->buffer + from;
        c->n = to - from;
        c->line = r->line;
        c->file = r->file;
        c->layout = r->layout;
        r->line += count_lines(c->data, c->n);
        if (r->ended && r->left_n == 0) {
            close_file(r);
            r->file++;
        }
        if (c->n > 0) {
            c->number = r->number++;
            return 0;
        }
    }
    return LH_NOTFOUND;
}

int lh_reader_next(struct lh_reader *r, struct lh_chunk *c)
{
    pthread_mutex_lock(&r->lock);
    int rc = r->failed.code ? lh_err_load(&r->failed) : next(r, c);
    if (rc < 0 && !r->failed.code)
        lh_err_save(&r->failed, rc);
    pthread_mutex_unlock(&r->lock);
    return rc;
}
