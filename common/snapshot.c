/* Writing snapshots, and what writing and reading share: the probe, and the manifest's checksum of
 * itself. Reading is snapshot_read.c. */
#include "common/snapshot.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "common/snapshot_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <xxhash.h>

/* --- the probe ----------------------------------------------------------------------------- */

static void spread(const char *purpose, const float *shift, const float *scale, size_t width,
                   float *out)
{
    struct lh_rng_at at = {.purpose = lh_rng_purpose(purpose)};
    lh_rng_normal(&at, out, LH_PROBE_ROWS * width);
    for (size_t i = 0; i < LH_PROBE_ROWS * width; i++)
        out[i] = shift[i % width] + out[i] / scale[i % width];
}

void lh_snapshot_probe_states(const struct lh_norm *norm, float *high, float *low)
{
    spread("probe.high", norm->high_shift, norm->high_scale, norm->dims.high, high);
    spread("probe.low", norm->low_shift, norm->low_scale, norm->dims.low, low);
}

int lh_snapshot_probe_check(const struct lh_snapshot *s, const float *action)
{
    size_t width = s->norm.dims.action, wrong = 0;
    for (size_t r = 0; r < LH_PROBE_ROWS; r++) {
        bool same = true;
        for (size_t j = 0; j < width; j++) {
            double a = action[r * width + j], b = s->probe[r * width + j];
            double unit = fmax(fabs(b), 1 / fabs((double)s->norm.action_scale[j]));
            same = same && fabs(a - b) <= 1e-3 * unit;
        }
        wrong += !same;
    }
    if (wrong > LH_PROBE_ROWS / 4)
        return lh_err_set(LH_EMISMATCH,
                          "the policy answers %zu of %d recorded questions otherwise than when it "
                          "was exported; use the version of longhaul that exported it, or export "
                          "again",
                          wrong, LH_PROBE_ROWS);
    return 0;
}

/* --- the manifest's checksum ----------------------------------------------------------------- */

/* Hash of the text with the digits at `at` taken as zeros. */
static uint64_t hash_without(const char *text, size_t n, const char *at)
{
    static const char zeros[LH_HEX + 1] = "0000000000000000";
    uint64_t h = XXH3_64bits(text, (size_t)(at - text));
    h = XXH3_64bits_withSeed(zeros, LH_HEX, h);
    return XXH3_64bits_withSeed(at + LH_HEX, n - (size_t)(at - text) - LH_HEX, h);
}

static char *find_own_digits(char *text, size_t n)
{
    static const char before[] = "\"" LH_MANIFEST_SELF "\":";
    char *key = memmem(text, n, before, sizeof before - 1);
    char *digits = key ? strchr(key + sizeof before - 1, '"') : NULL;
    return digits && (size_t)(text + n - digits) > LH_HEX ? digits + 1 : NULL;
}

void lh_snapshot_hex(char out[LH_HEX + 1], uint64_t x)
{
    snprintf(out, LH_HEX + 1, "%016llx", (unsigned long long)x);
}

void lh_snapshot_seal(char *manifest)
{
    size_t n = strlen(manifest);
    char *digits = find_own_digits(manifest, n), hex[LH_HEX + 1];
    if (!digits)
        return;
    lh_snapshot_hex(hex, hash_without(manifest, n, digits));
    memcpy(digits, hex, LH_HEX);
}

bool lh_snapshot_sealed(char *manifest, size_t n)
{
    char *digits = find_own_digits(manifest, n), hex[LH_HEX + 1];
    if (!digits)
        return false;
    lh_snapshot_hex(hex, hash_without(manifest, n, digits));
    return memcmp(digits, hex, LH_HEX) == 0;
}

/* --- writing ------------------------------------------------------------------------------- */

static bool add_hex(cJSON *to, const char *key, uint64_t x)
{
    char hex[LH_HEX + 1];
    lh_snapshot_hex(hex, x);
    return cJSON_AddStringToObject(to, key, hex) != NULL;
}

static bool add_floats(cJSON *to, const char *key, const float *x, size_t n)
{
    cJSON *list = cJSON_AddArrayToObject(to, key);
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = cJSON_AddItemToArray(list, cJSON_CreateNumber(x[i]));
    return ok;
}

static bool add_names(cJSON *to, const char *key, const char *const *names, size_t n)
{
    cJSON *list = cJSON_AddArrayToObject(to, key);
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = cJSON_AddItemToArray(list, cJSON_CreateString(names[i]));
    return ok;
}

static bool add_norm(cJSON *root, const struct lh_snapshot *s)
{
    const struct lh_norm *m = &s->norm;
    const struct lh_dims *d = &m->dims;
    cJSON *norm = cJSON_AddObjectToObject(root, "normalisation");
    cJSON *high = cJSON_AddObjectToObject(norm, "high");
    cJSON *low = cJSON_AddObjectToObject(norm, "low");
    cJSON *action = cJSON_AddObjectToObject(norm, "action");
    return norm && high && low && action &&
           cJSON_AddBoolToObject(norm, "applied", s->job->normalise) &&
           add_floats(high, "shift", m->high_shift, d->high) &&
           add_floats(high, "scale", m->high_scale, d->high) &&
           add_floats(low, "shift", m->low_shift, d->low) &&
           add_floats(low, "scale", m->low_scale, d->low) &&
           add_floats(action, "shift", m->action_shift, d->action) &&
           add_floats(action, "scale", m->action_scale, d->action) &&
           add_floats(action, "lo", m->action_lo, d->action) &&
           add_floats(action, "hi", m->action_hi, d->action);
}

static bool add_description(cJSON *root, const struct lh_snapshot *s)
{
    const struct lh_dims *d = &s->norm.dims;
    bool ok = cJSON_AddStringToObject(root, "format", LH_SNAPSHOT_FORMAT) &&
              cJSON_AddNumberToObject(root, "format_version", LH_SNAPSHOT_VERSION) &&
              add_hex(root, LH_MANIFEST_SELF, 0) &&
              cJSON_AddStringToObject(root, "longhaul", LH_VERSION) &&
              cJSON_AddStringToObject(root, "name", s->job->name) &&
              cJSON_AddStringToObject(root, "algorithm", s->job->algorithm) &&
              cJSON_AddNumberToObject(root, "step", (double)s->version) &&
              cJSON_AddStringToObject(root, "cut", s->cut) &&
              add_hex(root, "dataset_digest", s->job->dataset_digest) &&
              add_hex(root, "job_digest", lh_job_digest(s->job));
    cJSON *dims = cJSON_AddObjectToObject(root, "dims");
    ok = ok && dims && cJSON_AddNumberToObject(dims, "high", d->high) &&
         cJSON_AddNumberToObject(dims, "low", d->low) &&
         cJSON_AddNumberToObject(dims, "action", d->action) &&
         cJSON_AddNumberToObject(dims, "classes", d->classes);
    cJSON *features = cJSON_AddObjectToObject(root, "features");
    ok = ok && features && add_names(features, "high", s->high_names, d->high) &&
         add_names(features, "low", s->low_names, d->low) &&
         add_names(features, "action", s->action_names, d->action) &&
         (s->n_ids == 0 || add_names(features, "ids", s->id_names, s->n_ids));
    ok = ok && add_norm(root, s);
    cJSON *probe = cJSON_AddObjectToObject(root, "probe");
    return ok && probe && cJSON_AddNumberToObject(probe, "rows", LH_PROBE_ROWS) &&
           add_floats(probe, "action", s->probe, (size_t)LH_PROBE_ROWS * d->action);
}

static int add_file(cJSON *files, const char *dir, const char *name)
{
    char *path = NULL, *bytes = NULL;
    size_t n = 0;
    int rc;
    LH_TRY(lh_mem_printf(&path, "%s/%s", dir, name));
    LH_TRY_TO(done, lh_fs_read_file(&bytes, &n, path, SIZE_MAX / 4));
    cJSON *entry = cJSON_AddObjectToObject(files, name);
    if (!entry || !cJSON_AddNumberToObject(entry, "bytes", (double)n) ||
        !add_hex(entry, "xxh3_64", XXH3_64bits(bytes, n)))
        rc = lh_err_set(LH_ENOMEM, "%s: out of memory while making its entry", path);
done:
    lh_mem_free(bytes);
    lh_mem_free(path);
    return rc;
}

/* A table's file may be larger than memory. */
static int add_table(cJSON *files, const char *dir, const struct lh_job_table *t)
{
    char *path = NULL, *name = NULL;
    struct lh_rowfile f = {.n = 0};
    int rc;
    LH_TRY_TO(done, lh_mem_printf(&name, LH_SNAPSHOT_TABLE, t->name));
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", dir, name));
    LH_TRY_TO(done, lh_rowfile_open(&f, path));
    cJSON *entry = cJSON_AddObjectToObject(files, name);
    if (!entry || !cJSON_AddNumberToObject(entry, "bytes", (double)f.bytes) ||
        !add_hex(entry, "xxh3_64", f.checksum))
        rc = lh_err_set(LH_ENOMEM, "%s: out of memory while making its entry", path);
done:
    lh_rowfile_unmap(&f);
    lh_mem_free(name);
    lh_mem_free(path);
    return rc;
}

static int write_tables(const char *dir, const struct lh_snapshot *s)
{
    for (size_t t = 0; t < s->job->n_tables; t++) {
        char *path = NULL;
        LH_TRY(lh_mem_printf(&path, "%s/" LH_SNAPSHOT_TABLE, dir, s->job->tables[t].name));
        int rc = s->write_table(s->ctx, t, path);
        lh_mem_free(path);
        LH_TRY(rc);
    }
    return 0;
}

static int write_text(const char *dir, const char *name, const char *text)
{
    char *path = NULL;
    LH_TRY(lh_mem_printf(&path, "%s/%s", dir, name));
    int rc = lh_fs_write_file(path, text, strlen(text));
    lh_mem_free(path);
    return rc;
}

static int write_manifest(const char *dir, const struct lh_snapshot *s)
{
    cJSON *root = cJSON_CreateObject();
    int rc = 0;
    char *text = NULL;
    cJSON *files = NULL;
    if (root && add_description(root, s))
        files = cJSON_AddObjectToObject(root, "files");
    if (!files) {
        rc = lh_err_set(LH_ENOMEM, "%s: out of memory while making the manifest", dir);
        goto done;
    }
    LH_TRY_TO(done, add_file(files, dir, LH_SNAPSHOT_WEIGHTS));
    LH_TRY_TO(done, add_file(files, dir, LH_SNAPSHOT_CONFIG));
    for (size_t t = 0; t < s->job->n_tables; t++)
        LH_TRY_TO(done, add_table(files, dir, &s->job->tables[t]));
    if (s->evaluation_json)
        LH_TRY_TO(done, add_file(files, dir, LH_SNAPSHOT_EVALUATION));
    text = cJSON_Print(root);
    if (!text) {
        rc = lh_err_set(LH_ENOMEM, "%s: out of memory while making the manifest", dir);
        goto done;
    }
    lh_snapshot_seal(text);
    rc = write_text(dir, LH_SNAPSHOT_MANIFEST, text);
done:
    cJSON_free(text);
    cJSON_Delete(root);
    return rc;
}

/* A bias is [1, out] in a graph and [out] for the world. */
static void shape_of(struct lh_safetensor *t, const struct lh_param *p)
{
    size_t n = strlen(p->name);
    bool bias = p->rows == 1 && n > 5 && strcmp(p->name + n - 5, ".bias") == 0;
    t->rank = bias ? 1 : 2;
    t->shape[0] = bias ? p->cols : p->rows;
    t->shape[1] = bias ? 0 : p->cols;
}

static int write_weights(const char *dir, const struct lh_snapshot *s)
{
    struct lh_safetensor *t = NULL;
    char **names = NULL, *path = NULL;
    size_t n = 0;
    int rc;
    LH_TRY(LH_NEW_ARRAY(&t, 2 * s->n_params, "tensors"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&names, s->n_params, "tensors"));
    for (size_t i = 0; i < s->n_params; i++) {
        const struct lh_param *p = &s->params[i];
        t[n] = (struct lh_safetensor){.name = p->name, .data = s->weights + p->offset};
        shape_of(&t[n++], p);
    }
    for (size_t i = 0; s->targets && i < s->n_params; i++) {
        const struct lh_param *p = &s->params[i];
        if (!p->has_target)
            continue;
        LH_TRY_TO(done, lh_mem_printf(&names[i], LH_TARGET_PREFIX "%s", p->name));
        t[n] = (struct lh_safetensor){.name = names[i], .data = s->targets + p->offset};
        shape_of(&t[n++], p);
    }
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/%s", dir, LH_SNAPSHOT_WEIGHTS));
    const char *const metadata[] = {"format", "longhaul", "algorithm", s->job->algorithm, NULL};
    rc = lh_safetensors_write(path, t, n, metadata);
done:
    for (size_t i = 0; names && i < s->n_params; i++)
        lh_mem_free(names[i]);
    lh_mem_free(names);
    lh_mem_free(path);
    lh_mem_free(t);
    return rc;
}

static int write_config(const char *dir, const struct lh_snapshot *s)
{
    char *text = NULL;
    LH_TRY(lh_job_print(s->job, &text));
    int rc = write_text(dir, LH_SNAPSHOT_CONFIG, text);
    lh_mem_free(text);
    return rc;
}

int lh_snapshot_write(const char *dir, const struct lh_snapshot *s, bool replace)
{
    struct lh_fs_partial p = {0};
    int rc;
    LH_TRY(lh_fs_partial_begin(&p, dir, replace, LH_SNAPSHOT_MANIFEST));
    LH_TRY_TO(fail, write_weights(p.path, s));
    LH_TRY_TO(fail, write_tables(p.path, s));
    LH_TRY_TO(fail, write_config(p.path, s));
    if (s->evaluation_json)
        LH_TRY_TO(fail, write_text(p.path, LH_SNAPSHOT_EVALUATION, s->evaluation_json));
    LH_TRY_TO(fail, write_manifest(p.path, s));
    return lh_fs_partial_commit(&p);
fail:
    lh_fs_partial_abort(&p);
    return rc;
}
