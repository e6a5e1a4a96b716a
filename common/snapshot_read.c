/* Reading snapshots: nothing of a manifest is believed before its checksum holds, and nothing of
 * another file before the manifest's. */
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/rowlist.h"
#include "common/safetensors.h"
#include "common/snapshot_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <xxhash.h>

#define MANIFEST_MAX (256u << 20) /* bytes */
#define WIDTH_MAX    65536

struct reader {
    struct lh_snapshot snap; /* first: what the caller sees */
    const char *dir;
    cJSON *manifest;
    struct lh_safetensors *tensors;
    char **names; /* [H + L + A + ids] pointers into the manifest */
    struct lh_rng_at streams[LH_GRAPH_TABLES_MAX]; /* of the initial rows of tables */
    struct lh_param *params;
    float *weights, *targets, *probe;
    char *evaluation;
};

static int damaged(const struct reader *r, const char *what)
{
    return lh_err_set(LH_EFORMAT, "%s/%s: %s; export the snapshot again", r->dir,
                      LH_SNAPSHOT_MANIFEST, what);
}

static const cJSON *get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static int read_width(const struct reader *r, const cJSON *dims, const char *key, uint32_t *out)
{
    const cJSON *item = get(dims, key);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= WIDTH_MAX) ||
        item->valuedouble != floor(item->valuedouble))
        return damaged(r, "dims are missing or out of range");
    *out = (uint32_t)item->valuedouble;
    return 0;
}

static int read_floats(const struct reader *r, const cJSON *list, size_t n, bool positive,
                       float *out)
{
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != n)
        return damaged(r, "a list of numbers is missing or has another length than dims say");
    size_t i = 0;
    for (const cJSON *c = list->child; c; c = c->next) {
        float x = (float)c->valuedouble;
        if (!cJSON_IsNumber(c) || !isfinite(x) || (positive && !(x > 0)))
            return damaged(r, "a list of numbers holds one that is not finite, or no scale");
        out[i++] = x;
    }
    return 0;
}

static int read_names(const struct reader *r, const char *key, size_t n, char **out)
{
    const cJSON *list = get(get(r->manifest, "features"), key);
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != n)
        return damaged(r, "features are missing or not as many as dims say");
    for (const cJSON *c = list->child; c; c = c->next) {
        if (!cJSON_IsString(c))
            return damaged(r, "a feature's name is no text");
        *out++ = c->valuestring;
    }
    return 0;
}

/* --- manifest ------------------------------------------------------------------------------ */

static int load_manifest(struct reader *r)
{
    char *path = NULL, *text = NULL;
    size_t n = 0;
    int rc;
    LH_TRY(lh_mem_printf(&path, "%s/%s", r->dir, LH_SNAPSHOT_MANIFEST));
    rc = lh_fs_read_file(&text, &n, path, MANIFEST_MAX);
    if (rc == LH_ENOENT)
        rc = lh_err_set(rc, "%s: no snapshot (there is no %s in it); make one with longhaul export",
                        r->dir, LH_SNAPSHOT_MANIFEST);
    LH_TRY_TO(done, rc);
    r->manifest = cJSON_ParseWithLength(text, n);
    const cJSON *format = get(r->manifest, "format"), *version = get(r->manifest, "format_version");
    if (!cJSON_IsString(format) || strcmp(format->valuestring, LH_SNAPSHOT_FORMAT) != 0) {
        rc = lh_err_set(LH_EFORMAT,
                        "%s: this is no snapshot's manifest; name a directory that "
                        "'longhaul export' wrote",
                        path);
    } else if (!cJSON_IsNumber(version) || version->valuedouble != LH_SNAPSHOT_VERSION) {
        rc = lh_err_set(LH_EFORMAT,
                        "%s: format version %g, this program reads %d; use the longhaul that wrote "
                        "it or a newer one",
                        path, version ? version->valuedouble : 0, LH_SNAPSHOT_VERSION);
    } else if (!lh_snapshot_sealed(text, n)) {
        rc = lh_err_set(LH_ECORRUPT, "%s: its checksum does not match; copy the snapshot again",
                        path);
    }
done:
    lh_mem_free(text);
    lh_mem_free(path);
    return rc;
}

static int read_norm(struct reader *r, const struct lh_dims *d)
{
    struct lh_norm *m = &r->snap.norm;
    LH_TRY(lh_norm_init(m, d));
    const cJSON *norm = get(r->manifest, "normalisation");
    const cJSON *high = get(norm, "high"), *low = get(norm, "low"), *action = get(norm, "action");
    LH_TRY(read_floats(r, get(high, "shift"), d->high, false, m->high_shift));
    LH_TRY(read_floats(r, get(high, "scale"), d->high, true, m->high_scale));
    LH_TRY(read_floats(r, get(low, "shift"), d->low, false, m->low_shift));
    LH_TRY(read_floats(r, get(low, "scale"), d->low, true, m->low_scale));
    LH_TRY(read_floats(r, get(action, "shift"), d->action, false, m->action_shift));
    LH_TRY(read_floats(r, get(action, "scale"), d->action, true, m->action_scale));
    LH_TRY(read_floats(r, get(action, "lo"), d->action, false, m->action_lo));
    return read_floats(r, get(action, "hi"), d->action, false, m->action_hi);
}

static int read_description(struct reader *r)
{
    struct lh_dims d = {0};
    const cJSON *dims = get(r->manifest, "dims");
    LH_TRY(read_width(r, dims, "high", &d.high));
    LH_TRY(read_width(r, dims, "low", &d.low));
    LH_TRY(read_width(r, dims, "action", &d.action));
    LH_TRY(read_width(r, dims, "classes", &d.classes));
    if (d.action == 0 || d.high + d.low == 0)
        return damaged(r, "dims are missing or out of range");
    const cJSON *step = get(r->manifest, "step"), *cut = get(r->manifest, "cut");
    if (!cJSON_IsNumber(step) || !(step->valuedouble >= 0 && step->valuedouble < 0x1p63) ||
        !cJSON_IsString(cut))
        return damaged(r, "step or cut is missing");
    r->snap.version = (uint64_t)step->valuedouble;
    r->snap.cut = cut->valuestring;

    const cJSON *ids = get(get(r->manifest, "features"), "ids"); /* none without tables */
    const size_t n_ids = cJSON_IsArray(ids) ? (size_t)cJSON_GetArraySize(ids) : 0;
    if (n_ids > LH_IDS_MAX)
        return damaged(r, "ids are too many");
    LH_TRY(LH_NEW_ARRAY(&r->names, (size_t)d.high + d.low + d.action + n_ids, "feature names"));
    LH_TRY(read_names(r, "high", d.high, r->names));
    LH_TRY(read_names(r, "low", d.low, r->names + d.high));
    LH_TRY(read_names(r, "action", d.action, r->names + d.high + d.low));
    r->snap.high_names = (const char *const *)r->names;
    r->snap.low_names = r->snap.high_names + d.high;
    r->snap.action_names = r->snap.low_names + d.low;
    r->snap.id_names = r->snap.action_names + d.action;
    r->snap.n_ids = n_ids;
    if (n_ids > 0)
        LH_TRY(read_names(r, "ids", n_ids, r->names + d.high + d.low + d.action));

    LH_TRY(read_norm(r, &d));
    size_t n = (size_t)LH_PROBE_ROWS * d.action;
    LH_TRY(LH_NEW_ARRAY(&r->probe, n, "probe"));
    r->snap.probe = r->probe;
    return read_floats(r, get(get(r->manifest, "probe"), "action"), n, false, r->probe);
}

/* --- the other files ----------------------------------------------------------------------- */

/* Reads a file that the manifest lists and holds it against size and checksum there. */
static int load_listed(const struct reader *r, const char *name, char **out, size_t *n)
{
    const cJSON *entry = get(get(r->manifest, "files"), name);
    const cJSON *bytes = get(entry, "bytes"), *sum = get(entry, "xxh3_64");
    if (!cJSON_IsNumber(bytes) || !cJSON_IsString(sum))
        return damaged(r, "a file is not listed with size and checksum");
    char *path = NULL, *text = NULL, hex[LH_HEX + 1];
    int rc;
    LH_TRY(lh_mem_printf(&path, "%s/%s", r->dir, name));
    rc = lh_fs_read_file(&text, n, path, SIZE_MAX / 4);
    if (rc == LH_ENOENT)
        rc = lh_err_set(rc, "%s: is missing; copy the snapshot again", path);
    LH_TRY_TO(done, rc);
    lh_snapshot_hex(hex, XXH3_64bits(text, *n));
    if ((double)*n != bytes->valuedouble)
        rc = lh_err_set(LH_ECORRUPT,
                        "%s: %zu bytes, the manifest says %.0f; copy the snapshot again", path, *n,
                        bytes->valuedouble);
    else if (strcmp(hex, sum->valuestring) != 0)
        rc = lh_err_set(LH_ECORRUPT, "%s: its checksum does not match; copy the snapshot again",
                        path);
    if (rc == 0) {
        *out = text;
        text = NULL;
    }
done:
    lh_mem_free(text);
    lh_mem_free(path);
    return rc;
}

static int load_config(struct reader *r)
{
    char *text = NULL;
    size_t n = 0;
    LH_TRY(load_listed(r, LH_SNAPSHOT_CONFIG, &text, &n));
    int rc = lh_job_load_text(&r->snap.job, text, n, LH_SNAPSHOT_CONFIG, NULL);
    lh_mem_free(text);
    if (rc < 0)
        return lh_err_prefix(rc, "%s", r->dir);
    const struct lh_dims *a = &r->snap.norm.dims, *b = &r->snap.job->dims;
    if (a->high != b->high || a->low != b->low || a->action != b->action)
        return lh_err_set(LH_EMISMATCH,
                          "%s: %s and %s disagree about the widths of state and action", r->dir,
                          LH_SNAPSHOT_MANIFEST, LH_SNAPSHOT_CONFIG);
    return 0;
}

static bool is_target(const struct lh_safetensor *t)
{
    return strncmp(t->name, LH_TARGET_PREFIX, sizeof LH_TARGET_PREFIX - 1) == 0;
}

static size_t rows_of(const struct lh_safetensor *t)
{
    return t->rank == 2 ? t->shape[0] : 1;
}

static size_t cols_of(const struct lh_safetensor *t)
{
    return t->shape[t->rank - 1];
}

/* Lays the tensors out as a graph does: one flat array, each at a multiple of 16 elements. */
static int plan_params(struct reader *r, size_t *flat)
{
    size_t n = lh_safetensors_count(r->tensors);
    LH_TRY(LH_NEW_ARRAY(&r->params, n, "parameters"));
    r->snap.params = r->params;
    *flat = 0;
    for (size_t i = 0; i < n; i++) {
        const struct lh_safetensor *t = lh_safetensors_at(r->tensors, i);
        if (is_target(t))
            continue;
        struct lh_param *p = &r->params[r->snap.n_params++];
        *p = (struct lh_param){
            .name = t->name, .rows = rows_of(t), .cols = cols_of(t), .offset = *flat};
        *flat += (p->rows * p->cols + 15) / 16 * 16; /* no overflow: the bytes are in memory */
    }
    return 0;
}

static int copy_finite(const struct reader *r, const struct lh_safetensor *t, float *to)
{
    size_t n = rows_of(t) * cols_of(t);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(t->data[i]))
            return lh_err_set(LH_EFORMAT, "%s/%s: tensor '%.100s' holds a value that is not finite",
                              r->dir, LH_SNAPSHOT_WEIGHTS, t->name);
    memcpy(to, t->data, n * sizeof *to);
    return 0;
}

static int copy_tensors(struct reader *r, size_t flat)
{
    LH_TRY(lh_mem_alloc_aligned((void **)&r->weights, flat, sizeof(float), "weights"));
    memset(r->weights, 0, flat * sizeof(float));
    r->snap.weights = r->weights;
    for (size_t i = 0; i < r->snap.n_params; i++) {
        struct lh_param *p = &r->params[i];
        LH_TRY(copy_finite(r, lh_safetensors_find(r->tensors, p->name), r->weights + p->offset));
        char name[256];
        snprintf(name, sizeof name, LH_TARGET_PREFIX "%s", p->name);
        const struct lh_safetensor *t = lh_safetensors_find(r->tensors, name);
        if (!t)
            continue;
        if (rows_of(t) != p->rows || cols_of(t) != p->cols)
            return lh_err_set(LH_EMISMATCH,
                              "%s/%s: tensor '%.100s' has another shape than its weights", r->dir,
                              LH_SNAPSHOT_WEIGHTS, t->name);
        if (!r->targets) {
            LH_TRY(lh_mem_alloc_aligned((void **)&r->targets, flat, sizeof(float), "targets"));
            memset(r->targets, 0, flat * sizeof(float));
            r->snap.targets = r->targets;
        }
        p->has_target = true;
        LH_TRY(copy_finite(r, t, r->targets + p->offset));
    }
    return 0;
}

static int load_weights(struct reader *r)
{
    char *bytes = NULL, *path = NULL;
    size_t n = 0, flat = 0;
    int rc;
    LH_TRY(load_listed(r, LH_SNAPSHOT_WEIGHTS, &bytes, &n));
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", r->dir, LH_SNAPSHOT_WEIGHTS));
    LH_TRY_TO(done, lh_safetensors_parse(&r->tensors, bytes, n, path));
    LH_TRY_TO(done, plan_params(r, &flat));
    rc = copy_tensors(r, flat);
done:
    lh_mem_free(path);
    lh_mem_free(bytes);
    return rc;
}

static int load_table(struct reader *r, size_t t)
{
    const struct lh_job_table *job = &r->snap.job->tables[t];
    struct lh_rowfile *f = &r->snap.tables[t];
    char *name = NULL, *path = NULL, hex[LH_HEX + 1];
    size_t at[LH_JOB_TABLE_IDS_MAX];
    int rc;
    LH_TRY_TO(done, lh_mem_printf(&name, LH_SNAPSHOT_TABLE, job->name));
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", r->dir, name));
    const cJSON *entry = get(get(r->manifest, "files"), name);
    const cJSON *bytes = get(entry, "bytes"), *sum = get(entry, "xxh3_64");
    if (!cJSON_IsNumber(bytes) || !cJSON_IsString(sum)) {
        rc = damaged(r, "a file is not listed with size and checksum");
        goto done;
    }
    rc = lh_rowfile_open(f, path);
    if (rc == LH_ENOENT)
        lh_err_set(rc, "%s: is missing; copy the snapshot again", path);
    LH_TRY_TO(done, rc);
    lh_snapshot_hex(hex, f->checksum);
    if ((double)f->bytes != bytes->valuedouble || strcmp(hex, sum->valuestring) != 0)
        rc = lh_err_set(LH_ECORRUPT, "%s: its checksum does not match; copy the snapshot again",
                        path);
    else if (f->dim != job->dim)
        rc = lh_err_set(LH_EMISMATCH, "%s: rows of %u where the config says %u", path, f->dim,
                        job->dim);
    LH_TRY_TO(done, rc);
    LH_TRY_TO(done, lh_job_tables_find(job, r->snap.id_names, r->snap.n_ids, at));
    r->streams[t] = lh_rowlist_stream(job->name, r->snap.job->seed);
done:
    lh_mem_free(name);
    lh_mem_free(path);
    return rc;
}

static int pull_rows(void *ctx, size_t t, const uint64_t *ids, size_t n, float *rows)
{
    const struct reader *r = ctx;
    const struct lh_rowfile *f = &r->snap.tables[t];
    for (size_t i = 0; i < n; i++, rows += f->dim) {
        const float *row = lh_rowfile_find(f, ids[i]);
        if (row)
            memcpy(rows, row, f->dim * sizeof *rows);
        else
            lh_rowlist_initial(&r->streams[t], r->snap.job->tables[t].init, ids[i], rows, f->dim);
    }
    return 0;
}

struct lh_row_source lh_snapshot_rows(const struct lh_snapshot *s)
{
    struct lh_row_source none = {.pull = NULL};
    return s->job->n_tables == 0
               ? none
               : (struct lh_row_source){.ctx = (void *)(uintptr_t)s, .pull = pull_rows};
}

static int load_evaluation(struct reader *r)
{
    size_t n;
    if (!get(get(r->manifest, "files"), LH_SNAPSHOT_EVALUATION))
        return 0;
    LH_TRY(load_listed(r, LH_SNAPSHOT_EVALUATION, &r->evaluation, &n));
    r->snap.evaluation_json = r->evaluation;
    return 0;
}

int lh_snapshot_open(struct lh_snapshot **out, const char *dir)
{
    struct reader *r = NULL;
    int rc;
    LH_TRY(LH_NEW(&r, "snapshot"));
    r->dir = dir;
    struct lh_snapshot *s = &r->snap;
    LH_TRY_TO(fail, load_manifest(r));
    LH_TRY_TO(fail, read_description(r));
    LH_TRY_TO(fail, load_config(r));
    LH_TRY_TO(fail, load_weights(r));
    for (size_t t = 0; t < s->job->n_tables; t++)
        LH_TRY_TO(fail, load_table(r, t));
    LH_TRY_TO(fail, load_evaluation(r));
    *out = s;
    return 0;
fail:
    lh_snapshot_close(&s);
    return rc;
}

void lh_snapshot_close(struct lh_snapshot **s)
{
    if (!*s)
        return;
    struct reader *r = (struct reader *)*s;
    for (size_t t = 0; t < LH_GRAPH_TABLES_MAX; t++)
        lh_rowfile_unmap(&r->snap.tables[t]);
    lh_job_destroy(&r->snap.job);
    lh_norm_fini(&r->snap.norm);
    lh_safetensors_close(&r->tensors);
    cJSON_Delete(r->manifest);
    lh_mem_free(r->names);
    lh_mem_free(r->params);
    lh_mem_free(r->weights);
    lh_mem_free(r->targets);
    lh_mem_free(r->probe);
    lh_mem_free(r->evaluation);
    lh_mem_free(r);
    *s = NULL;
}
