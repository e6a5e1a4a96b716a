/* Files of rows. The header is one of a public format, but ours is the only shape that is read: two
 * tensors in a fixed order. */
#include "common/rowfile.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/idset.h"
#include "common/mem.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define HEADER_MAX 4096
#define ALIGN      64         /* of the first tensor in the file */
#define BUFFER     (1u << 18) /* bytes of ids, and of rows, that are written at once */

/* --- writing ------------------------------------------------------------------------------------
 */
struct part { /* ids or rows: bytes that wait, and where in the file they go */
    char *buffer;
    size_t used;
    uint64_t at;
};

struct lh_rowfile_writer {
    char *path;
    int fd;
    uint32_t dim;
    uint64_t n, put;
    struct part ids, rows;
};

static int write_header(struct lh_rowfile_writer *w, size_t *size)
{
    char text[HEADER_MAX];
    const unsigned long long n = w->n, rows = n * w->dim * sizeof(float);
    int used = snprintf(text + 8, sizeof text - 8,
                        "{\"ids\":{\"dtype\":\"U64\",\"shape\":[%llu],\"data_offsets\":[0,%llu]},"
                        "\"rows\":{\"dtype\":\"F32\",\"shape\":[%llu,%u],"
                        "\"data_offsets\":[%llu,%llu]}}",
                        n, 8 * n, n, w->dim, 8 * n, 8 * n + rows);
    uint64_t length = (uint64_t)used;
    while ((8 + length) % ALIGN != 0)
        text[8 + length++] = ' ';
    memcpy(text, &length, sizeof length);
    *size = 8 + length;
    return lh_fs_pwrite(w->fd, text, *size, 0, w->path);
}

int lh_rowfile_create(struct lh_rowfile_writer **out, const char *path, uint64_t n, uint32_t dim)
{
    struct lh_rowfile_writer *w = NULL;
    size_t header;
    int rc;
    if (dim == 0 || n > (UINT64_C(1) << 45) / (dim * sizeof(float)))
        return lh_err_set(LH_ERANGE, "%s: %llu rows of %u are too many", path,
                          (unsigned long long)n, dim);
    LH_TRY(LH_NEW(&w, "a file of rows"));
    w->fd = -1;
    w->n = n;
    w->dim = dim;
    LH_TRY_TO(fail, lh_mem_strdup(&w->path, path));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&w->ids.buffer, BUFFER, "a file of rows"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&w->rows.buffer, BUFFER + dim * sizeof(float), "a file of rows"));
    w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        rc = lh_err_errno(errno, "%s: cannot create", path);
        goto fail;
    }
    LH_TRY_TO(fail, write_header(w, &header));
    w->ids.at = header;
    w->rows.at = header + n * sizeof(uint64_t);
    *out = w;
    return 0;
fail:
    lh_rowfile_abort(&w);
    return rc;
}

static int flush(struct lh_rowfile_writer *w, struct part *p)
{
    LH_TRY(lh_fs_pwrite(w->fd, p->buffer, p->used, p->at, w->path));
    p->at += p->used;
    p->used = 0;
    return 0;
}

static int append(struct lh_rowfile_writer *w, struct part *p, const void *data, size_t bytes)
{
    memcpy(p->buffer + p->used, data, bytes);
    p->used += bytes;
    return p->used >= BUFFER - sizeof(uint64_t) ? flush(w, p) : 0;
}

int lh_rowfile_put(struct lh_rowfile_writer *w, uint64_t id, const float *row)
{
    if (w->put == w->n)
        return lh_err_set(LH_EINTERNAL, "%s: more than %llu rows", w->path,
                          (unsigned long long)w->n);
    w->put++;
    LH_TRY(append(w, &w->ids, &id, sizeof id));
    return append(w, &w->rows, row, w->dim * sizeof *row);
}

void lh_rowfile_abort(struct lh_rowfile_writer **out)
{
    struct lh_rowfile_writer *w = *out;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    lh_mem_free(w->ids.buffer);
    lh_mem_free(w->rows.buffer);
    lh_mem_free(w->path);
    lh_mem_free(w);
    *out = NULL;
}

int lh_rowfile_close(struct lh_rowfile_writer **out)
{
    struct lh_rowfile_writer *w = *out;
    int rc = 0;
    if (w->put < w->n)
        rc = lh_err_set(LH_EINTERNAL, "%s: %llu of %llu rows", w->path, (unsigned long long)w->put,
                        (unsigned long long)w->n);
    LH_TRY_TO(done, rc);
    LH_TRY_TO(done, flush(w, &w->ids));
    LH_TRY_TO(done, flush(w, &w->rows));
    if (fsync(w->fd) < 0)
        rc = lh_err_errno(errno, "%s: cannot write", w->path);
done:
    lh_rowfile_abort(out);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------
 */
static int broken(const char *path, const char *what)
{
    return lh_err_set(LH_EFORMAT, "%s: no sound file of rows: %s; copy the snapshot again", path,
                      what);
}

/* The i-th number of a list of n. */
static bool number(const cJSON *object, const char *key, int n, int i, uint64_t *out)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key);
    const cJSON *item =
        cJSON_IsArray(list) && cJSON_GetArraySize(list) == n ? cJSON_GetArrayItem(list, i) : NULL;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 0x1p46) ||
        item->valuedouble != floor(item->valuedouble))
        return false;
    *out = (uint64_t)item->valuedouble;
    return true;
}

static bool is_type(const cJSON *tensor, const char *type)
{
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(tensor, "dtype");
    return cJSON_IsString(t) && strcmp(t->valuestring, type) == 0;
}

static bool read_header(struct lh_rowfile *f, const cJSON *root, uint64_t data)
{
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(root, "ids");
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(root, "rows");
    uint64_t n, dim, from, to, middle, end;
    if (!is_type(ids, "U64") || !is_type(rows, "F32") || !number(ids, "shape", 1, 0, &f->n) ||
        !number(rows, "shape", 2, 0, &n) || !number(rows, "shape", 2, 1, &dim) ||
        !number(ids, "data_offsets", 2, 0, &from) || !number(ids, "data_offsets", 2, 1, &to) ||
        !number(rows, "data_offsets", 2, 0, &middle) || !number(rows, "data_offsets", 2, 1, &end))
        return false;
    if (n != f->n || dim == 0 || dim > 65536 || from != 0 || to != 8 * n || middle != to ||
        n > (UINT64_C(1) << 45) / (4 * dim) || end != to + 4 * n * dim || end != data)
        return false;
    f->dim = (uint32_t)dim;
    return true;
}

int lh_rowfile_parse(struct lh_rowfile *f, const void *bytes, size_t n, const char *name)
{
    const char *at = bytes;
    uint64_t header;
    *f = (struct lh_rowfile){.bytes = n};
    if (n < sizeof header)
        return broken(name, "its size");
    memcpy(&header, at, sizeof header);
    if (header > HEADER_MAX || n - 8 < header || (8 + header) % 8 != 0)
        return broken(name, "its header's length");
    cJSON *root = cJSON_ParseWithLength(at + 8, header);
    const bool ok = read_header(f, root, n - 8 - header);
    cJSON_Delete(root);
    if (!ok)
        return broken(name, "its header");
    f->ids = (const uint64_t *)(const void *)(at + 8 + header);
    f->rows = (const float *)(const void *)(at + 8 + header + 8 * f->n);
    for (uint64_t i = 1; i < f->n; i++)
        if (f->ids[i] <= f->ids[i - 1])
            return broken(name, "ids that do not ascend");
    for (uint64_t i = 0; i < f->n * f->dim; i++)
        if (!isfinite(f->rows[i]))
            return broken(name, "a value that is not finite");
    f->checksum = XXH3_64bits(bytes, n);
    return 0;
}

int lh_rowfile_open(struct lh_rowfile *f, const char *path)
{
    struct stat st;
    void *map = MAP_FAILED;
    int rc = 0;
    *f = (struct lh_rowfile){.n = 0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    if (fstat(fd, &st) < 0)
        rc = lh_err_errno(errno, "%s", path);
    else if (!S_ISREG(st.st_mode) || st.st_size == 0)
        rc = broken(path, "its size");
    else if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        rc = lh_err_errno(errno, "%s: cannot map", path);
    close(fd);
    LH_TRY(rc);
    rc = lh_rowfile_parse(f, map, (size_t)st.st_size, path);
    f->map = map;
    if (rc < 0)
        lh_rowfile_unmap(f);
    return rc;
}

void lh_rowfile_unmap(struct lh_rowfile *f)
{
    if (f->map)
        munmap(f->map, f->bytes);
    *f = (struct lh_rowfile){.n = 0};
}

const float *lh_rowfile_find(const struct lh_rowfile *f, uint64_t id)
{
    const size_t i = lh_idset_find(f->ids, f->n, id);
    return i == SIZE_MAX ? NULL : f->rows + i * f->dim;
}
