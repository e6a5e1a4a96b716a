/* Strict reading and plain writing of .npy files. */
#include "common/npy.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "arrays are read and written as they lie in memory, which must be little-endian"
#endif

#define MAGIC       "\x93NUMPY"
#define MAGIC_SIZE  6
#define FILE_MAX    ((size_t)1 << 40) /* bytes */
#define HEADER_SIZE 128               /* of files we write; the elements then begin aligned */

static const struct {
    const char *descr;
    enum lh_npy_type type;
    size_t size;
} types[] = {{"<f4", LH_NPY_FLOAT32, 4}, {"<f8", LH_NPY_FLOAT64, 8}, {"<i8", LH_NPY_INT64, 8}};

static size_t size_of(enum lh_npy_type type)
{
    return type == LH_NPY_FLOAT32 ? 4 : 8;
}

/* --- the header's dictionary ---------------------------------------------------------------- */

struct cursor {
    const char *p, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
}

static bool take(struct cursor *c, char expected)
{
    skip_blanks(c);
    if (c->p == c->end || *c->p != expected)
        return false;
    c->p++;
    return true;
}

static bool take_word(struct cursor *c, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n) != 0)
        return false;
    c->p += n;
    return true;
}

/* A quoted text without escapes, shorter than size. */
static bool take_text(struct cursor *c, char *out, size_t size)
{
    skip_blanks(c);
    if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
        return false;
    char quote = *c->p++;
    size_t n = 0;
    while (c->p < c->end && *c->p != quote) {
        if (*c->p == '\\' || n + 1 == size)
            return false;
        out[n++] = *c->p++;
    }
    out[n] = '\0';
    return take(c, quote);
}

static bool take_number(struct cursor *c, size_t *out)
{
    skip_blanks(c);
    const char *first = c->p;
    *out = 0;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (__builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (size_t)(*c->p - '0'), out))
            return false;
    return c->p > first;
}

/* "()", "(3,)", "(3, 4)" */
static bool take_shape(struct cursor *c, struct lh_npy *a)
{
    if (!take(c, '('))
        return false;
    bool comma = true;
    while (!take(c, ')')) {
        if (!comma || a->rank == LH_NPY_RANK_MAX || !take_number(c, &a->shape[a->rank]))
            return false;
        a->rank++;
        comma = take(c, ',');
    }
    return a->rank != 1 || comma;
}

static int take_type(struct cursor *c, struct lh_npy *a, const char *name)
{
    char descr[16];
    if (!take_text(c, descr, sizeof descr))
        return lh_err_set(LH_EFORMAT,
                          "%s: its elements have no simple type; save float32, float64 "
                          "or int64",
                          name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(descr, types[i].descr) == 0) {
            a->type = types[i].type;
            return 0;
        }
    return lh_err_set(LH_EFORMAT,
                      "%s: elements of type '%s' are not read here; save float32, "
                      "float64 or int64, little-endian",
                      name, descr);
}

static int bad_header(const char *name, const char *what)
{
    return lh_err_set(LH_EFORMAT, "%s: the header of this .npy file is damaged: %s", name, what);
}

enum { DESCR = 1, ORDER = 2, SHAPE = 4, ALL = 7 };

static int take_entry(struct cursor *c, struct lh_npy *a, unsigned *seen, const char *name)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    char key[16];
    unsigned which = 0;
    if (!take_text(c, key, sizeof key) || !take(c, ':'))
        return bad_header(name, "no key where one is due");
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(key, keys[i]) == 0)
            which = 1u << i;
    if (!which || *seen & which)
        return bad_header(name, which ? "a key is there twice" : "an unknown key");
    *seen |= which;
    if (which == DESCR)
        return take_type(c, a, name);
    if (which == SHAPE)
        return take_shape(c, a) ? 0 : bad_header(name, "the shape is no tuple of sizes");
    if (take_word(c, "True"))
        return lh_err_set(LH_EFORMAT,
                          "%s: the array is in Fortran order; save numpy.ascontiguousarray of it",
                          name);
    return take_word(c, "False") ? 0 : bad_header(name, "fortran_order is neither True nor False");
}

static int read_header(struct lh_npy *a, const char *text, size_t n, const char *name)
{
    struct cursor c = {text, text + n};
    unsigned seen = 0;
    bool comma = true;
    if (!take(&c, '{'))
        return bad_header(name, "it is no dictionary");
    while (!take(&c, '}')) {
        if (!comma)
            return bad_header(name, "a comma or the end is missing");
        LH_TRY(take_entry(&c, a, &seen, name));
        comma = take(&c, ',');
    }
    skip_blanks(&c);
    if (c.p != c.end)
        return bad_header(name, "something stands behind the dictionary");
    return seen == ALL ? 0 : bad_header(name, "type, order or shape is missing");
}

/* --- reading -------------------------------------------------------------------------------- */

static int count_elements(struct lh_npy *a, size_t available, const char *name)
{
    size_t bytes;
    a->count = 1;
    for (size_t i = 0; i < a->rank; i++)
        if (__builtin_mul_overflow(a->count, a->shape[i], &a->count))
            return bad_header(name, "the shape is larger than any file");
    if (__builtin_mul_overflow(a->count, size_of(a->type), &bytes))
        return bad_header(name, "the shape is larger than any file");
    if (bytes != available)
        return lh_err_set(LH_EFORMAT,
                          "%s: the header promises %zu bytes of elements, the file has %zu; it is "
                          "cut off or damaged",
                          name, bytes, available);
    return 0;
}

int lh_npy_parse(struct lh_npy *out, const void *bytes, size_t n, const char *name)
{
    const unsigned char *p = bytes;
    struct lh_npy a = {0};
    size_t before, length;
    if (n < MAGIC_SIZE + 2 || memcmp(p, MAGIC, MAGIC_SIZE) != 0)
        return lh_err_set(LH_EFORMAT, "%s: not a .npy file", name);
    if ((p[6] != 1 && p[6] != 2) || p[7] != 0)
        return lh_err_set(LH_EFORMAT, "%s: .npy version %u.%u; only 1.0 and 2.0 are read here",
                          name, p[6], p[7]);
    before = MAGIC_SIZE + 2 + (p[6] == 1 ? 2 : 4);
    if (n < before)
        return bad_header(name, "the file ends in it");
    length = p[8] | (size_t)p[9] << 8;
    if (p[6] == 2)
        length |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (length > n - before)
        return bad_header(name, "it is longer than the file");
    LH_TRY(read_header(&a, (const char *)p + before, length, name));
    LH_TRY(count_elements(&a, n - before - length, name));
    a.data = p + before + length;
    *out = a;
    return 0;
}

int lh_npy_open(struct lh_npy *out, const char *path)
{
    char *bytes = NULL;
    size_t n;
    *out = (struct lh_npy){0};
    LH_TRY(lh_fs_read_file(&bytes, &n, path, FILE_MAX));
    int rc = lh_npy_parse(out, bytes, n, path);
    if (rc < 0)
        lh_mem_free(bytes);
    else
        out->owned = bytes;
    return rc;
}

void lh_npy_close(struct lh_npy *a)
{
    lh_mem_free(a->owned);
    *a = (struct lh_npy){0};
}

static double element(const struct lh_npy *a, size_t i)
{
    const char *at = (const char *)a->data + i * size_of(a->type);
    float f;
    double d;
    int64_t n;
    switch (a->type) {
    case LH_NPY_FLOAT32:
        memcpy(&f, at, sizeof f);
        return (double)f;
    case LH_NPY_FLOAT64:
        memcpy(&d, at, sizeof d);
        return d;
    case LH_NPY_INT64:
        memcpy(&n, at, sizeof n);
        return (double)n;
    }
    return NAN;
}

int lh_npy_floats(const struct lh_npy *a, const char *name, float *out)
{
    for (size_t i = 0; i < a->count; i++) {
        double x = element(a, i);
        out[i] = (float)x;
        if (!isfinite(out[i])) {
            char shape[80];
            lh_npy_shape_text(shape, sizeof shape, a->shape, a->rank);
            return lh_err_set(LH_ERANGE, "%s: element %zu of %s is %g; it must be a finite float32",
                              name, i, shape, x);
        }
    }
    return 0;
}

void lh_npy_shape_text(char *out, size_t size, const size_t *shape, size_t rank)
{
    size_t n = (size_t)snprintf(out, size, "(");
    for (size_t i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, i ? ", %zu" : "%zu", shape[i]);
    if (n < size)
        snprintf(out + n, size - n, rank == 1 ? ",)" : ")");
}

/* --- writing -------------------------------------------------------------------------------- */

static int write_file(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    int rc = lh_fs_write(fd, data, n, path);
    if (close(fd) != 0 && rc == 0)
        rc = lh_err_errno(errno, "%s", path);
    return rc;
}

int lh_npy_write(const char *path, const float *x, const size_t *shape, size_t rank)
{
    char text[HEADER_SIZE], sizes[80], *file = NULL;
    size_t count = 1, bytes;
    for (size_t i = 0; i < rank; i++)
        LH_TRY(lh_mem_mul(&count, count, shape[i]));
    LH_TRY(lh_mem_mul(&bytes, count, sizeof *x));
    LH_TRY(lh_mem_add(&bytes, bytes, HEADER_SIZE));
    LH_TRY(lh_mem_alloc((void **)&file, bytes, 1, path));

    lh_npy_shape_text(sizes, sizeof sizes, shape, rank);
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }",
                     sizes);
    const size_t before = MAGIC_SIZE + 4;
    if ((size_t)n >= HEADER_SIZE - before) {
        lh_mem_free(file);
        return lh_err_set(LH_ERANGE, "%s: the shape %s does not fit a header", path, sizes);
    }
    memcpy(file, MAGIC "\x01\x00", MAGIC_SIZE + 2);
    file[8] = (char)(HEADER_SIZE - before);
    memset(file + before, ' ', HEADER_SIZE - before - 1);
    memcpy(file + before, text, (size_t)n);
    file[HEADER_SIZE - 1] = '\n';
    memcpy(file + HEADER_SIZE, x, count * sizeof *x);
    int rc = write_file(path, file, bytes);
    lh_mem_free(file);
    return rc;
}
