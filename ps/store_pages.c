/* A reader of LMDB's file format (0.9, data version 1; lmdb.h and the comments of mdb.c describe
 * it), as far as to tell that it can be trusted.
 *
 *   page    number u64, pad u16, flags u16, then lower u16, upper u16 (or, of a large value, its
 *           number of pages u32), then one u16 offset per node, growing up; nodes grow down
 *   node    u16 low, u16 high, u16 flags, u16 key size, key, data. Inner: low, high, flags are the
 *           child's page number. Leaf: low, high are the data's size; with the flag BIG the data
 *           is the number of its first page
 *   meta    pages 0 and 1, the newer transaction counts: magic, version, address, map size, the
 *           trees of free pages and of data, last page, transaction */
#include "ps/store_pages.h"

#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER = 16, /* bytes of a page's header */
    NODE = 8,    /* of a node's */
    BRANCH = 1,
    LEAF = 2,
    OVERFLOW = 4,
    META = 8,
    BIG = 1,
    INTEGER_KEYS = 8,  /* flag of the tree of free pages, which keeps the environment's too: */
    ONE_FILE = 0x4000, /* it has no directory of its own (rowtable_run.c) */
    DEPTH_MAX = 32,
    UNWRITTEN = 1 << 16 /* pages a transaction may have taken at the end and not written */
};

#define MAGIC 0xBEEFC0DEu
#define NONE  UINT64_MAX

struct tree {
    uint16_t flags, depth;
    uint64_t root;
};

struct pages {
    const char *path;
    const unsigned char *map;
    size_t size, page;  /* bytes */
    uint64_t last;      /* the last page number of this version */
    unsigned char *use; /* one bit a page */
    struct tree tree[2];
};

static uint64_t number(const unsigned char *p, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++)
        x |= (uint64_t)p[i] << (8 * i);
    return x;
}

static int damaged(const struct pages *f, uint64_t page, const char *what)
{
    return lh_err_set(LH_ECORRUPT,
                      "%s: page %" PRIu64 ": %s; the file is damaged or cut short: restore it from "
                      "a copy, or start the run anew",
                      f->path, page, what);
}

/* Pages [first, first + n) are in the file and not used elsewhere. */
static int take(struct pages *f, uint64_t first, uint64_t n, int must_be_written)
{
    if (first < 2 || n == 0 || first > f->last || n > f->last - first + 1)
        return damaged(f, first, "lies outside the database");
    if (must_be_written && first + n > f->size / f->page)
        return damaged(f, first, "lies behind the end of the file");
    for (uint64_t i = first; i < first + n; i++) {
        if (f->use[i / 8] & 1 << i % 8)
            return damaged(f, i, "is used twice");
        f->use[i / 8] |= (unsigned char)(1 << i % 8);
    }
    return 0;
}

/* A list of free pages: a count, then page numbers, descending. LMDB may reserve more room than the
 * list then takes. */
static int check_free(struct pages *f, uint64_t page, const unsigned char *data, size_t size)
{
    if (size < 8 || number(data, 8) > size / 8 - 1)
        return damaged(f, page, "holds a list of free pages of the wrong length");
    uint64_t before = NONE;
    for (uint64_t i = 1; i <= number(data, 8); i++) {
        uint64_t free_page = number(data + 8 * i, 8);
        if (free_page >= before)
            return damaged(f, page, "holds a list of free pages that does not descend");
        LH_TRY(take(f, free_page, 1, 0));
        before = free_page;
    }
    return 0;
}

static int check_leaf(struct pages *f, uint64_t page, const unsigned char *node, size_t room,
                      int is_free)
{
    const uint64_t flags = number(node + 4, 2), key = number(node + 6, 2), size = number(node, 4);
    const unsigned char *data = node + NODE + key;
    if (flags > BIG || (is_free && key != 8))
        return damaged(f, page, "has an entry of an unknown kind");
    if (NODE + key + (flags & BIG ? 8 : size) > room)
        return damaged(f, page, "has an entry that does not fit in it");
    if (flags & BIG) {
        const uint64_t first = number(data, 8), n = (HEADER + size + f->page - 1) / f->page;
        LH_TRY(take(f, first, n, 1));
        data = f->map + first * f->page;
        if (number(data, 8) != first || number(data + 10, 2) != OVERFLOW ||
            number(data + 12, 4) != n)
            return damaged(f, first, "does not begin a large value of the length it should");
        data += HEADER;
    }
    return is_free ? check_free(f, page, data, (size_t)size) : 0;
}

/* A key, or, with bytes NULL, the end of all keys that way. */
struct key {
    const unsigned char *bytes;
    size_t n;
};

static struct key key_of(const unsigned char *node)
{
    return (struct key){node + NODE, (size_t)number(node + 6, 2)};
}

static int before(struct key a, struct key b)
{
    const int order = memcmp(a.bytes, b.bytes, a.n < b.n ? a.n : b.n);
    return order < 0 || (order == 0 && a.n < b.n);
}

/* A page and all below it; `depth` is the number of levels from here down to the leaves. All its
 * keys are in [from, to): else a search would go astray. (Free lists are not searched by us.) */
static int check_page(struct pages *f, uint64_t page, unsigned depth, int is_free, struct key from,
                      struct key to)
{
    LH_TRY(take(f, page, 1, 1));
    const unsigned char *p = f->map + page * f->page;
    const uint64_t lower = number(p + 12, 2), upper = number(p + 14, 2);
    if (number(p, 8) != page || number(p + 10, 2) != (depth > 1 ? BRANCH : LEAF))
        return damaged(f, page, "is not the page it should be");
    if (lower < HEADER || lower % 2 || lower > upper || upper > f->page)
        return damaged(f, page, "has limits that are none");
    const size_t n = (size_t)(lower - HEADER) / 2;
    if (n == 0 || (n == 1 && depth > 1 && !is_free))
        return damaged(f, page, "has too few entries");
    uint64_t child = 0;
    struct key last = {0};
    for (size_t i = 0; i < n; i++) {
        const uint64_t at = number(p + HEADER + 2 * i, 2);
        if (at < upper || at % 2 || at + NODE > f->page)
            return damaged(f, page, "has an entry outside itself");
        if (NODE + number(p + at + 6, 2) > f->page - at)
            return damaged(f, page, "has an entry that does not fit in it");
        const struct key key = key_of(p + at);
        const int counts =
            !is_free && (depth == 1 || i > 0); /* the first of an inner page is none */
        if (counts && ((from.bytes && before(key, from)) || (to.bytes && !before(key, to)) ||
                       (i > (depth > 1) && !before(last, key))))
            return damaged(f, page, "has entries that are not in order");
        if (depth == 1)
            LH_TRY(check_leaf(f, page, p + at, f->page - (size_t)at, is_free));
        if (depth > 1 && i > 0)
            LH_TRY(check_page(f, child, depth - 1, is_free, i > 1 ? last : from, key));
        child = number(p + at, 6);
        last = key;
    }
    return depth > 1 ? check_page(f, child, depth - 1, is_free, n > 1 ? last : from, to) : 0;
}

static struct tree read_tree(const unsigned char *p)
{
    return (struct tree){(uint16_t)number(p + 4, 2), (uint16_t)number(p + 6, 2), number(p + 40, 8)};
}

static int check_meta(struct pages *f)
{
    uint64_t newest = 0;
    const unsigned char *chosen = NULL;
    f->page = f->size >= HEADER + 48 ? (size_t)number(f->map + HEADER + 24, 4) : 0;
    if (f->page < 512 || f->page > 65536 || f->page & (f->page - 1) || f->size < 2 * f->page ||
        number(f->map + HEADER, 4) != MAGIC)
        return lh_err_set(LH_EFORMAT,
                          "%s: is not a longhaul store, or its first page is damaged; "
                          "restore it, or begin the run anew in another directory",
                          f->path);
    for (uint64_t i = 0; i < 2; i++) {
        const unsigned char *p = f->map + i * f->page, *m = p + HEADER;
        if (number(m + 4, 4) != 1)
            return lh_err_set(LH_EFORMAT, "%s: was written by another version of LMDB", f->path);
        if (number(p, 8) != i || number(p + 10, 2) != META || number(m, 4) != MAGIC ||
            number(m + 24, 4) != f->page)
            return damaged(f, i, "does not describe the database");
        if (!chosen || number(m + 128, 8) > newest) {
            chosen = m;
            newest = number(m + 128, 8);
        }
    }
    f->tree[0] = read_tree(chosen + 24);
    f->tree[1] = read_tree(chosen + 72);
    f->last = number(chosen + 120, 8);
    const uint64_t page = (uint64_t)(chosen - HEADER - f->map) / f->page;
    if (f->last < 1 || f->last > f->size / f->page + UNWRITTEN ||
        (f->tree[0].flags & ~ONE_FILE) != INTEGER_KEYS || f->tree[1].flags != 0 ||
        f->tree[0].depth > DEPTH_MAX || f->tree[1].depth > DEPTH_MAX)
        return damaged(f, page, "does not describe the database");
    return 0;
}

static int check(struct pages *f)
{
    LH_TRY(check_meta(f));
    LH_TRY(LH_NEW_ARRAY(&f->use, (size_t)f->last / 8 + 1, "check of a store"));
    for (int i = 0; i < 2; i++) {
        const struct tree *t = &f->tree[i];
        if ((t->root == NONE) != (t->depth == 0))
            return damaged(f, 0, "does not describe the database");
        if (t->root != NONE)
            LH_TRY(check_page(f, t->root, t->depth, i == 0, (struct key){0}, (struct key){0}));
    }
    return 0;
}

int lh_store_pages_check(const char *path)
{
    int rc;
    struct stat st;
    struct pages f = {.path = path, .map = MAP_FAILED};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = lh_err_errno(errno, "%s: cannot be opened", path);
        goto done;
    }
    f.size = (size_t)st.st_size;
    if (f.size == 0) {
        rc = lh_err_set(LH_EFORMAT,
                        "%s: is empty; restore it, or begin the run anew in another directory",
                        path);
        goto done;
    }
    f.map = mmap(NULL, f.size, PROT_READ, MAP_SHARED, fd, 0);
    if (f.map == MAP_FAILED) {
        rc = lh_err_errno(errno, "%s: cannot be mapped", path);
        goto done;
    }
    rc = check(&f);
done:
    if (f.map != MAP_FAILED)
        munmap((void *)(uintptr_t)f.map, f.size);
    if (fd >= 0)
        close(fd);
    lh_mem_free(f.use);
    return rc;
}
