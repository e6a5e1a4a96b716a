/* Spool. Each bucket is a list of chunks under its own lock; one lock more lets a single thread
 * spill while those that would add to the excess wait. A spill writes every bucket: the files grow
 * by large pieces and the limit is reached seldom. */
#include "common/spool.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK_MAX  (8u << 20)
#define HUGE_BYTES (2u << 20) /* a large page */
#define CHUNK_MIN  LH_SPOOL_BUFFER

struct chunk {
    struct chunk *next; /* older */
    size_t used, size;
    uint64_t data[];
};

struct bucket {
    pthread_mutex_t lock;
    struct chunk *chunks;
    char *path; /* NULL: nothing spilled */
    uint64_t records, bytes, spilled;
};

struct lh_spool {
    char *dir, *name;
    struct bucket *bucket;
    size_t n, chunk_bytes;
    uint64_t limit;
    _Atomic uint64_t held, spilled;
    pthread_mutex_t spill_lock;
};

int lh_spool_create(struct lh_spool **out, const char *dir, const char *name, size_t buckets,
                    uint64_t memory_limit)
{
    struct lh_spool *s = NULL;
    int rc;
    LH_TRY(LH_NEW(&s, "spool"));
    pthread_mutex_init(&s->spill_lock, NULL);
    LH_TRY_TO(fail, lh_mem_strdup(&s->dir, dir));
    LH_TRY_TO(fail, lh_mem_strdup(&s->name, name));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&s->bucket, buckets, "spool"));
    s->n = buckets;
    for (size_t i = 0; i < buckets; i++)
        pthread_mutex_init(&s->bucket[i].lock, NULL);
    s->limit = memory_limit;
    uint64_t chunk = memory_limit / (8 * (buckets ? buckets : 1));
    s->chunk_bytes = chunk > CHUNK_MAX ? CHUNK_MAX : chunk < CHUNK_MIN ? CHUNK_MIN : chunk / 8 * 8;
    *out = s;
    return 0;
fail:
    lh_spool_destroy(&s);
    return rc;
}

static void free_chunks(struct lh_spool *s, struct bucket *b)
{
    while (b->chunks) {
        struct chunk *next = b->chunks->next;
        atomic_fetch_sub_explicit(&s->held, b->chunks->size, memory_order_relaxed);
        lh_mem_free(b->chunks);
        b->chunks = next;
    }
}

void lh_spool_destroy(struct lh_spool **p)
{
    struct lh_spool *s = *p;
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        lh_spool_drop(s, i);
        pthread_mutex_destroy(&s->bucket[i].lock);
    }
    pthread_mutex_destroy(&s->spill_lock);
    lh_mem_free(s->bucket);
    lh_mem_free(s->name);
    lh_mem_free(s->dir);
    lh_mem_free(s);
    *p = NULL;
}

/* Appends a bucket's chunks to its file. The bucket is locked. */
static int spill_bucket(struct lh_spool *s, struct bucket *b)
{
    if (!b->chunks)
        return 0;
    if (!b->path)
        LH_TRY(
            lh_mem_printf(&b->path, "%s/%s-%05zu.spool", s->dir, s->name, (size_t)(b - s->bucket)));
    /* a file a call: buckets may be more than a process may hold open */
    int fd = open(b->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        return lh_err_errno(errno, "%s: cannot create", b->path);
    int rc = 0;
    for (struct chunk *c = b->chunks; c && rc == 0; c = c->next) {
        rc = lh_fs_write(fd, c->data, c->used, b->path);
        if (rc == 0) {
            b->spilled += c->used;
            atomic_fetch_add_explicit(&s->spilled, c->used, memory_order_relaxed);
        }
    }
    if (close(fd) < 0 && rc == 0)
        rc = lh_err_errno(errno, "%s: cannot write", b->path);
    if (rc == 0)
        free_chunks(s, b);
    return rc;
}

static int spill(struct lh_spool *s)
{
    int rc = 0;
    pthread_mutex_lock(&s->spill_lock);
    /* another thread may have made room while this one waited */
    for (size_t i = 0; i < s->n && rc == 0 && atomic_load(&s->held) > s->limit / 8; i++) {
        if (i == 0 && atomic_load(&s->held) <= s->limit)
            break;
        pthread_mutex_lock(&s->bucket[i].lock);
        rc = spill_bucket(s, &s->bucket[i]);
        pthread_mutex_unlock(&s->bucket[i].lock);
    }
    pthread_mutex_unlock(&s->spill_lock);
    return rc;
}

/* Room for `bytes` at the end of a locked bucket. */
static int reserve(struct lh_spool *s, struct bucket *b, size_t bytes, void **at)
{
    if (!b->chunks || b->chunks->size - b->chunks->used < bytes) {
        size_t size = bytes > s->chunk_bytes ? bytes : s->chunk_bytes;
        void *p;
        LH_TRY(lh_mem_alloc_aligned(&p, 1, sizeof(struct chunk) + size, "spool"));
        if (size >= 2 * HUGE_BYTES) { /* a fault for each 4 KiB costs more than filling them */
            uintptr_t from = ((uintptr_t)p + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
            uintptr_t to = ((uintptr_t)p + size) / HUGE_BYTES * HUGE_BYTES;
            madvise((void *)from, to - from, MADV_HUGEPAGE);
        }
        struct chunk *c = p;
        c->used = 0;
        c->size = size;
        c->next = b->chunks;
        b->chunks = c;
        atomic_fetch_add_explicit(&s->held, size, memory_order_relaxed);
    }
    *at = (char *)b->chunks->data + b->chunks->used;
    b->chunks->used += bytes;
    return 0;
}

int lh_spool_put(struct lh_spool *s, size_t bucket, size_t bytes, lh_spool_fill fill, void *ctx)
{
    assert(bucket < s->n && bytes % 8 == 0);
    struct bucket *b = &s->bucket[bucket];
    void *at;
    pthread_mutex_lock(&b->lock);
    int rc = reserve(s, b, bytes, &at);
    if (rc == 0) {
        fill(ctx, at);
        b->records++;
        b->bytes += bytes;
    }
    pthread_mutex_unlock(&b->lock);
    LH_TRY(rc);
    return atomic_load_explicit(&s->held, memory_order_relaxed) > s->limit ? spill(s) : 0;
}

uint64_t lh_spool_records(const struct lh_spool *s, size_t bucket)
{
    return s->bucket[bucket].records;
}

uint64_t lh_spool_bytes(const struct lh_spool *s, size_t bucket)
{
    return s->bucket[bucket].bytes;
}

uint64_t lh_spool_spilled(const struct lh_spool *s)
{
    return atomic_load(&s->spilled);
}

static int load_file(struct lh_spool_view *v, const struct bucket *b, int fd)
{
    LH_TRY(lh_mem_alloc_aligned(&v->copy, 1, b->spilled, "a bucket of the spool"));
    for (uint64_t at = 0; at < b->spilled;) {
        ssize_t got = pread(fd, (char *)v->copy + at, b->spilled - at, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lh_err_errno(got < 0 ? errno : EIO, "%s: cannot read back", b->path);
        at += (uint64_t)got;
    }
    v->spans[v->n++] = (struct lh_spool_span){v->copy, b->spilled};
    return 0;
}

static int map_file(struct lh_spool_view *v, const struct bucket *b, int fd)
{
    v->map = mmap(NULL, b->spilled, PROT_READ, MAP_SHARED, fd, 0);
    if (v->map == MAP_FAILED) {
        v->map = NULL;
        return lh_err_errno(errno, "%s: cannot map", b->path);
    }
    v->map_bytes = b->spilled;
    v->spans[v->n++] = (struct lh_spool_span){v->map, v->map_bytes};
    return 0;
}

static int read_file(struct lh_spool_view *v, const struct bucket *b, uint64_t load)
{
    int fd = open(b->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", b->path);
    int rc;
    off_t size = lseek(fd, 0, SEEK_END);
    if (size != (off_t)b->spilled)
        rc = lh_err_set(LH_EIO, "%s: %lld bytes long, %llu were written; was it touched?", b->path,
                        (long long)size, (unsigned long long)b->spilled);
    else
        rc = b->spilled <= load ? load_file(v, b, fd) : map_file(v, b, fd);
    close(fd);
    return rc;
}

int lh_spool_view_open(struct lh_spool_view *v, struct lh_spool *s, size_t bucket, uint64_t load)
{
    struct bucket *b = &s->bucket[bucket];
    size_t n = b->spilled ? 1 : 0;
    for (const struct chunk *c = b->chunks; c; c = c->next)
        n++;
    *v = (struct lh_spool_view){.spans = NULL};
    LH_TRY(LH_NEW_ARRAY(&v->spans, n, "spool"));
    if (b->spilled) {
        int rc = read_file(v, b, load);
        if (rc < 0) {
            lh_spool_view_close(v);
            return rc;
        }
    }
    for (const struct chunk *c = b->chunks; c; c = c->next)
        v->spans[v->n++] = (struct lh_spool_span){c->data, c->used};
    return 0;
}

void lh_spool_view_release(const struct lh_spool_view *v)
{
    if (v->map)
        madvise(v->map, v->map_bytes, MADV_DONTNEED);
}

void lh_spool_view_close(struct lh_spool_view *v)
{
    if (v->map)
        munmap(v->map, v->map_bytes);
    lh_mem_free(v->copy);
    lh_mem_free(v->spans);
    *v = (struct lh_spool_view){.spans = NULL};
}

void lh_spool_drop(struct lh_spool *s, size_t bucket)
{
    struct bucket *b = &s->bucket[bucket];
    free_chunks(s, b);
    if (b->path)
        unlink(b->path);
    lh_mem_free(b->path);
    b->path = NULL;
    b->records = b->bytes = b->spilled = 0;
}
