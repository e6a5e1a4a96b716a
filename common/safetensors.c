/* Writing and strict reading of safetensors files. */
#include "common/safetensors.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are written as they lie in memory, which must be little-endian"
#endif

#define HEADER_MAX  (100u << 20) /* bytes: the format's own limit */
#define TENSORS_MAX (1u << 20)

static size_t elements(const struct lh_safetensor *t)
{
    return t->rank == 2 ? t->shape[0] * t->shape[1] : t->shape[0];
}

/* --- writing ------------------------------------------------------------------------------- */

static bool add_metadata(cJSON *root, const char *const *metadata)
{
    if (!metadata || !metadata[0])
        return true;
    cJSON *m = cJSON_AddObjectToObject(root, "__metadata__");
    for (; m && *metadata; metadata += 2)
        if (!cJSON_AddStringToObject(m, metadata[0], metadata[1]))
            return false;
    return m != NULL;
}

static bool add_tensor(cJSON *root, const struct lh_safetensor *t, uint64_t first)
{
    cJSON *entry = cJSON_AddObjectToObject(root, t->name);
    if (!entry || !cJSON_AddStringToObject(entry, "dtype", "F32"))
        return false;
    cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
    cJSON *offsets = cJSON_AddArrayToObject(entry, "data_offsets");
    bool ok = shape && offsets;
    for (size_t i = 0; ok && i < t->rank; i++)
        ok = cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[i]));
    uint64_t last = first + elements(t) * sizeof(float);
    return ok && cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)first)) &&
           cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)last));
}

static int make_header(char **out, const char *path, const struct lh_safetensor *tensors, size_t n,
                       const char *const *metadata)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root && add_metadata(root, metadata);
    uint64_t at = 0;
    for (size_t i = 0; ok && i < n; i++) {
        ok = add_tensor(root, &tensors[i], at);
        at += elements(&tensors[i]) * sizeof(float);
    }
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return lh_err_set(LH_ENOMEM, "%s: out of memory while making its header", path);
    /* blanks behind the header let the tensors begin at a multiple of 64 bytes */
    int rc = lh_mem_printf(out, "%s%*s", text, (int)(63 - (strlen(text) + 8 + 63) % 64), "");
    cJSON_free(text);
    return rc;
}

int lh_safetensors_write(const char *path, const struct lh_safetensor *tensors, size_t n,
                         const char *const *metadata)
{
    char *header = NULL;
    LH_TRY(make_header(&header, path, tensors, n, metadata));
    uint64_t length = strlen(header);
    int rc = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = lh_err_errno(errno, "%s", path);
        goto done;
    }
    LH_TRY_TO(done, lh_fs_write(fd, &length, sizeof length, path));
    LH_TRY_TO(done, lh_fs_write(fd, header, length, path));
    for (size_t i = 0; i < n; i++)
        LH_TRY_TO(done,
                  lh_fs_write(fd, tensors[i].data, elements(&tensors[i]) * sizeof(float), path));
    if (fsync(fd) != 0)
        rc = lh_err_errno(errno, "%s", path);
done:
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = lh_err_errno(errno, "%s", path);
    lh_mem_free(header);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------- */

struct entry {
    struct lh_safetensor tensor;
    uint64_t first, last; /* bytes of the data part */
};

struct lh_safetensors {
    cJSON *header; /* names live here */
    float *data;
    struct entry *entry; /* by first byte */
    size_t n;
};

static int whole_number(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 0x1p53 ||
        item->valuedouble != floor(item->valuedouble))
        return -1;
    *out = (uint64_t)item->valuedouble;
    return 0;
}

static int read_shape(const cJSON *shape, struct lh_safetensor *t, uint64_t *count)
{
    int rank = cJSON_GetArraySize(shape);
    if (!cJSON_IsArray(shape) || rank < 1 || rank > 2)
        return -1;
    t->rank = (size_t)rank;
    *count = 1;
    for (int i = 0; i < rank; i++) {
        uint64_t d;
        if (whole_number(cJSON_GetArrayItem(shape, i), &d) < 0 ||
            __builtin_mul_overflow(*count, d, count))
            return -1;
        t->shape[i] = (size_t)d;
    }
    return 0;
}

static int read_entry(const cJSON *item, uint64_t data_bytes, const char *path, struct entry *e)
{
    e->tensor.name = item->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(dtype) || strcmp(dtype->valuestring, "F32") != 0)
        return lh_err_set(LH_EFORMAT, "%s: tensor '%.100s': dtype %s; only F32 is read here", path,
                          item->string, cJSON_IsString(dtype) ? dtype->valuestring : "is missing");
    uint64_t count, bytes;
    if (read_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), &e->tensor, &count) < 0 ||
        __builtin_mul_overflow(count, sizeof(float), &bytes))
        return lh_err_set(LH_EFORMAT, "%s: tensor '%.100s': the shape is not one or two sizes",
                          path, item->string);
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (cJSON_GetArraySize(offsets) != 2 ||
        whole_number(cJSON_GetArrayItem(offsets, 0), &e->first) < 0 ||
        whole_number(cJSON_GetArrayItem(offsets, 1), &e->last) < 0 || e->first > e->last ||
        e->last > data_bytes)
        return lh_err_set(LH_EFORMAT,
                          "%s: tensor '%.100s': its bytes lie outside the file; it is cut off or "
                          "damaged",
                          path, item->string);
    if (e->last - e->first != bytes)
        return lh_err_set(LH_EFORMAT, "%s: tensor '%.100s': %llu bytes do not fit its shape", path,
                          item->string, (unsigned long long)(e->last - e->first));
    return 0;
}

static int by_first_byte(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->last < y->last ? -1 : x->last > y->last;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_unique(const struct lh_safetensors *f, const char *path)
{
    const char **names = NULL;
    LH_TRY(LH_NEW_ARRAY(&names, f->n, "tensor names"));
    for (size_t i = 0; i < f->n; i++)
        names[i] = f->entry[i].tensor.name;
    qsort(names, f->n, sizeof *names, by_name);
    int rc = 0;
    for (size_t i = 1; i < f->n && rc == 0; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = lh_err_set(LH_EFORMAT, "%s: tensor '%.100s' is there twice", path, names[i]);
    lh_mem_free(names);
    return rc;
}

static int check_metadata(const cJSON *m, const char *path)
{
    bool ok = cJSON_IsObject(m);
    for (const cJSON *c = ok ? m->child : NULL; c; c = c->next)
        ok = ok && cJSON_IsString(c);
    return ok ? 0
              : lh_err_set(LH_EFORMAT, "%s: __metadata__ is no mapping of texts to texts", path);
}

static int read_entries(struct lh_safetensors *f, uint64_t data_bytes, const char *path)
{
    size_t cap = 0;
    for (const cJSON *item = f->header->child; item; item = item->next) {
        if (strcmp(item->string, "__metadata__") == 0) {
            LH_TRY(check_metadata(item, path));
            continue;
        }
        if (f->n == TENSORS_MAX)
            return lh_err_set(LH_EFORMAT, "%s: more than %u tensors", path, TENSORS_MAX);
        LH_TRY(LH_GROW(&f->entry, &cap, f->n + 1, "tensors"));
        LH_TRY(read_entry(item, data_bytes, path, &f->entry[f->n]));
        f->n++;
    }
    if (f->n > 0)
        qsort(f->entry, f->n, sizeof *f->entry, by_first_byte);
    uint64_t at = 0;
    for (size_t i = 0; i < f->n; i++) {
        struct entry *e = &f->entry[i];
        if (e->first != at)
            return lh_err_set(LH_EFORMAT, "%s: tensor '%.100s': %s before it", path, e->tensor.name,
                              e->first < at ? "overlaps the tensor" : "bytes of no tensor lie");
        e->tensor.data = f->data + at / sizeof(float);
        at = e->last;
    }
    if (at != data_bytes)
        return lh_err_set(LH_EFORMAT, "%s: %llu bytes behind the last tensor belong to none", path,
                          (unsigned long long)(data_bytes - at));
    return check_unique(f, path);
}

static int parse_header(struct lh_safetensors *f, const char *text, size_t n, const char *path)
{
    if (n == 0 || text[0] != '{' || memchr(text, '\0', n))
        return lh_err_set(LH_EFORMAT,
                          "%s: the header is no JSON object; is this a safetensors file?", path);
    const char *end = NULL;
    f->header = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!f->header || !cJSON_IsObject(f->header))
        return lh_err_set(LH_EFORMAT, "%s: the header is not valid JSON", path);
    while (end < text + n && *end == ' ')
        end++;
    if (end != text + n)
        return lh_err_set(LH_EFORMAT, "%s: something stands behind the header's JSON", path);
    return 0;
}

/* Takes *data, the aligned bytes behind the header. */
static int assemble(struct lh_safetensors **out, const char *header, size_t n, float **data,
                    size_t data_bytes, const char *path)
{
    struct lh_safetensors *f = NULL;
    int rc;
    LH_TRY(LH_NEW(&f, path));
    f->data = *data;
    *data = NULL;
    LH_TRY_TO(fail, parse_header(f, header, n, path));
    LH_TRY_TO(fail, read_entries(f, data_bytes, path));
    *out = f;
    return 0;
fail:
    lh_safetensors_close(&f);
    return rc;
}

static int check_length(uint64_t header, uint64_t file, const char *path)
{
    if (file < sizeof header || header > HEADER_MAX || header > file - sizeof header)
        return lh_err_set(
            LH_EFORMAT,
            "%s: a header of %llu bytes does not fit a file of %llu; it is cut off or "
            "no safetensors file",
            path, (unsigned long long)header, (unsigned long long)file);
    return 0;
}

int lh_safetensors_parse(struct lh_safetensors **out, const void *bytes, size_t n, const char *name)
{
    uint64_t length = 0;
    memcpy(&length, bytes, n < sizeof length ? n : sizeof length);
    LH_TRY(check_length(length, n, name));
    const char *header = (const char *)bytes + sizeof length;
    size_t data_bytes = n - sizeof length - (size_t)length;
    float *data = NULL;
    LH_TRY(lh_mem_alloc_aligned((void **)&data, data_bytes, 1, name));
    memcpy(data, header + length, data_bytes);
    int rc = assemble(out, header, (size_t)length, &data, data_bytes, name);
    lh_mem_free(data);
    return rc;
}

void lh_safetensors_close(struct lh_safetensors **f)
{
    if (!*f)
        return;
    cJSON_Delete((*f)->header);
    lh_mem_free((*f)->data);
    lh_mem_free((*f)->entry);
    lh_mem_free(*f);
    *f = NULL;
}

size_t lh_safetensors_count(const struct lh_safetensors *f)
{
    return f->n;
}

const struct lh_safetensor *lh_safetensors_at(const struct lh_safetensors *f, size_t i)
{
    return &f->entry[i].tensor;
}

const struct lh_safetensor *lh_safetensors_find(const struct lh_safetensors *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->entry[i].tensor.name, name) == 0)
            return &f->entry[i].tensor;
    return NULL;
}

const char *lh_safetensors_metadata(const struct lh_safetensors *f, const char *key)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(f->header, "__metadata__");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, key));
}
