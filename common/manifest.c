/* The manifest as JSON. Numbers that need 64 bits (checksums, the digest) are hexadecimal strings,
 * since JSON readers keep 53; floats are printed so that they read back to the same bits. */
#include "common/manifest.h"

#include "common/err.h"
#include "common/mem.h"

#include <cjson/cJSON.h>
#include <xxhash.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const lh_split_names[LH_SPLITS] = {"train", "validation", "test"};

static const char *const group_names[LH_GROUPS] = {"state_high", "state_low", "action"};

#define DIM_MAX   (1 << 20)
#define COUNT_MAX 9007199254740992.0 /* 2^53 */

uint32_t lh_manifest_width(const struct lh_dims *d, int group)
{
    return group == LH_GROUP_HIGH ? d->high : group == LH_GROUP_LOW ? d->low : d->action;
}

int lh_manifest_reserve(struct lh_manifest *m)
{
    for (int g = 0; g < LH_GROUPS; g++) {
        uint32_t width = lh_manifest_width(&m->dims, g);
        LH_TRY(LH_NEW_ARRAY(&m->names[g], width, "column names"));
        LH_TRY(LH_NEW_ARRAY(&m->stats[g], width, "column statistics"));
    }
    LH_TRY(LH_NEW_ARRAY(&m->id_names, m->dims.ids, "column names"));
    return lh_norm_init(&m->norm, &m->dims);
}

void lh_manifest_fini(struct lh_manifest *m)
{
    for (int g = 0; g < LH_GROUPS; g++) {
        for (uint32_t i = 0; m->names[g] && i < lh_manifest_width(&m->dims, g); i++)
            lh_mem_free(m->names[g][i]);
        lh_mem_free(m->names[g]);
        lh_mem_free(m->stats[g]);
    }
    for (uint32_t i = 0; m->id_names && i < m->dims.ids; i++)
        lh_mem_free(m->id_names[i]);
    lh_mem_free(m->id_names);
    for (int s = 0; s < LH_SPLITS; s++) {
        for (uint64_t i = 0; m->parts[s] && i < m->split[s].partitions; i++)
            lh_mem_free(m->parts[s][i].file);
        lh_mem_free(m->parts[s]);
    }
    lh_norm_fini(&m->norm);
    lh_mem_free(m->kind);
    lh_mem_free(m->origin);
    memset(m, 0, sizeof *m);
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, h);
}

uint64_t lh_manifest_digest(const struct lh_manifest *m)
{
    uint32_t head[] = {LH_MANIFEST_VERSION, m->dims.high, m->dims.low, m->dims.action,
                       m->dims.classes};
    uint64_t h = mix(0, head, sizeof head);
    for (int g = 0; g < LH_GROUPS; g++) {
        for (uint32_t i = 0; i < lh_manifest_width(&m->dims, g); i++)
            h = mix(h, m->names[g][i], strlen(m->names[g][i]) + 1);
    }
    for (uint32_t i = 0; i < m->dims.ids; i++)
        h = mix(h, m->id_names[i], strlen(m->id_names[i]) + 1);
    h = mix(h, m->reward_values, m->dims.classes * sizeof *m->reward_values);
    size_t floats = 2 * ((size_t)m->dims.high + m->dims.low) + 4 * (size_t)m->dims.action;
    h = mix(h, m->norm.high_shift, floats * sizeof(float)); /* the norm is one block */
    for (int s = 0; s < LH_SPLITS; s++) {
        for (uint64_t i = 0; i < m->split[s].partitions; i++) {
            const struct lh_manifest_part *p = &m->parts[s][i];
            h = mix(h, p->file, strlen(p->file) + 1);
            h = mix(h, &p->checksum, sizeof p->checksum);
        }
    }
    return h;
}

/* --- printing --------------------------------------------------------------------------------
 * cJSON's constructors return NULL when memory is out, and its adders then return false: `ok`
 * gathers that, and one sentence is made at the end. */

struct out {
    bool ok;
};

static cJSON *add(struct out *o, cJSON *parent, const char *key, cJSON *item)
{
    bool done =
        item && parent &&
        (key ? cJSON_AddItemToObject(parent, key, item) : cJSON_AddItemToArray(parent, item));
    if (!done) {
        cJSON_Delete(item);
        o->ok = false;
        return NULL;
    }
    return item;
}

static void add_number(struct out *o, cJSON *parent, const char *key, double v)
{
    add(o, parent, key, cJSON_CreateNumber(v));
}

static void add_text(struct out *o, cJSON *parent, const char *key, const char *v)
{
    add(o, parent, key, cJSON_CreateString(v));
}

static void add_hex(struct out *o, cJSON *parent, const char *key, uint64_t v)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    add_text(o, parent, key, text);
}

static void add_floats(struct out *o, cJSON *parent, const char *key, const float *v, size_t n)
{
    cJSON *list = add(o, parent, key, cJSON_CreateArray());
    for (size_t i = 0; i < n && o->ok; i++)
        add_number(o, list, NULL, (double)v[i]);
}

static void add_stats(struct out *o, cJSON *parent, const char *key,
                      const struct lh_column_stats *s)
{
    cJSON *item = add(o, parent, key, cJSON_CreateObject());
    add_number(o, item, "mean", s->mean);
    add_number(o, item, "std", s->std);
    add_number(o, item, "min", s->min);
    add_number(o, item, "max", s->max);
    add_number(o, item, "q001", s->q001);
    add_number(o, item, "q25", s->q25);
    add_number(o, item, "q50", s->q50);
    add_number(o, item, "q75", s->q75);
    add_number(o, item, "q999", s->q999);
}

static void add_columns(struct out *o, cJSON *root, const struct lh_manifest *m)
{
    cJSON *dims = add(o, root, "dims", cJSON_CreateObject());
    for (int g = 0; g < LH_GROUPS; g++)
        add_number(o, dims, group_names[g], lh_manifest_width(&m->dims, g));
    add_number(o, dims, "classes", m->dims.classes);
    if (m->dims.ids > 0)
        add_number(o, dims, "ids", m->dims.ids);
    cJSON *names = add(o, root, "names", cJSON_CreateObject());
    cJSON *stats = add(o, root, "statistics", cJSON_CreateObject());
    for (int g = 0; g < LH_GROUPS; g++) {
        cJSON *n = add(o, names, group_names[g], cJSON_CreateArray());
        cJSON *s = add(o, stats, group_names[g], cJSON_CreateArray());
        for (uint32_t i = 0; i < lh_manifest_width(&m->dims, g) && o->ok; i++) {
            add_text(o, n, NULL, m->names[g][i]);
            add_stats(o, s, NULL, &m->stats[g][i]);
        }
    }
    cJSON *ids = m->dims.ids > 0 ? add(o, names, "ids", cJSON_CreateArray()) : NULL;
    for (uint32_t i = 0; i < m->dims.ids && o->ok; i++)
        add_text(o, ids, NULL, m->id_names[i]);
    add_stats(o, stats, "reward", &m->reward_stats);
    add_floats(o, root, "reward_values", m->reward_values, m->dims.classes);
    const struct lh_norm *n = &m->norm;
    cJSON *norm = add(o, root, "normalisation", cJSON_CreateObject());
    add_floats(o, norm, "state_high_shift", n->high_shift, m->dims.high);
    add_floats(o, norm, "state_high_scale", n->high_scale, m->dims.high);
    add_floats(o, norm, "state_low_shift", n->low_shift, m->dims.low);
    add_floats(o, norm, "state_low_scale", n->low_scale, m->dims.low);
    add_floats(o, norm, "action_shift", n->action_shift, m->dims.action);
    add_floats(o, norm, "action_scale", n->action_scale, m->dims.action);
    add_floats(o, norm, "action_lo", n->action_lo, m->dims.action);
    add_floats(o, norm, "action_hi", n->action_hi, m->dims.action);
}

static void add_splits(struct out *o, cJSON *root, const struct lh_manifest *m)
{
    cJSON *splits = add(o, root, "splits", cJSON_CreateObject());
    for (int s = 0; s < LH_SPLITS; s++) {
        const struct lh_split_info *i = &m->split[s];
        cJSON *split = add(o, splits, lh_split_names[s], cJSON_CreateObject());
        add_number(o, split, "rows", (double)i->rows);
        add_number(o, split, "transitions", (double)i->transitions);
        add_number(o, split, "trajectories", (double)i->trajectories);
        add_number(o, split, "users", (double)i->users);
        cJSON *parts = add(o, split, "partitions", cJSON_CreateArray());
        for (uint64_t p = 0; p < i->partitions && o->ok; p++) {
            const struct lh_manifest_part *part = &m->parts[s][p];
            cJSON *item = add(o, parts, NULL, cJSON_CreateObject());
            add_text(o, item, "file", part->file);
            add_number(o, item, "day", part->day);
            add_number(o, item, "hash", part->hash);
            add_number(o, item, "rows", (double)part->rows);
            add_number(o, item, "halos", (double)part->halos);
            add_number(o, item, "cuts", (double)part->cuts);
            add_number(o, item, "pieces", (double)part->pieces);
            add_number(o, item, "bytes", (double)part->bytes);
            add_hex(o, item, "checksum", part->checksum);
        }
    }
}

int lh_manifest_print(const struct lh_manifest *m, char **text)
{
    struct out o = {true};
    cJSON *root = cJSON_CreateObject();
    add_text(&o, root, "format", LH_MANIFEST_FORMAT);
    add_number(&o, root, "version", LH_MANIFEST_VERSION);
    add_text(&o, root, "kind", m->kind);
    add_hex(&o, root, "digest", m->digest);
    add_number(&o, root, "first_day", m->first_day);
    add_number(&o, root, "last_day", m->last_day);
    add_columns(&o, root, m);
    add_splits(&o, root, m);
    if (m->origin) {
        cJSON *origin = cJSON_Parse(m->origin);
        if (!origin) {
            cJSON_Delete(root);
            return lh_err_set(LH_EINTERNAL, "the origin of the dataset is not valid JSON");
        }
        add(&o, root, "origin", origin);
    }
    char *printed = o.ok ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!printed)
        return lh_err_set(LH_ENOMEM, "manifest: out of memory");
    int rc = lh_mem_printf(text, "%s\n", printed);
    cJSON_free(printed);
    return rc;
}

/* --- parsing --------------------------------------------------------------------------------- */

struct in {
    const char *name; /* of the file */
};

static int wrong(const struct in *in, const char *key, const char *what)
{
    return lh_err_set(LH_EFORMAT, "%s: '%s' %s; restore the manifest or import again", in->name,
                      key, what);
}

static int get(const struct in *in, const cJSON *obj, const char *key,
               cJSON_bool (*is)(const cJSON *), const cJSON **out)
{
    *out = cJSON_GetObjectItemCaseSensitive(obj, key);
    if (!*out || !is(*out))
        return wrong(in, key, *out ? "has another type than it should" : "is missing");
    return 0;
}

static int get_number(const struct in *in, const cJSON *obj, const char *key, double min,
                      double max, double *out)
{
    const cJSON *item;
    LH_TRY(get(in, obj, key, cJSON_IsNumber, &item));
    *out = item->valuedouble;
    if (!(*out >= min && *out <= max) || !isfinite(*out)) /* 1e999 reads as infinity */
        return wrong(in, key, "is out of range");
    return 0;
}

static int get_count(const struct in *in, const cJSON *obj, const char *key, double max,
                     uint64_t *out)
{
    double v;
    LH_TRY(get_number(in, obj, key, 0, max, &v));
    *out = (uint64_t)v;
    return (double)*out == v ? 0 : wrong(in, key, "is not a whole number");
}

static int get_u32(const struct in *in, const cJSON *obj, const char *key, uint32_t max,
                   uint32_t *out)
{
    uint64_t v;
    LH_TRY(get_count(in, obj, key, max, &v));
    *out = (uint32_t)v;
    return 0;
}

static int get_day(const struct in *in, const cJSON *obj, const char *key, int32_t *out)
{
    double v;
    LH_TRY(get_number(in, obj, key, INT32_MIN, INT32_MAX, &v));
    *out = (int32_t)v;
    return 0;
}

static int get_text(const struct in *in, const cJSON *obj, const char *key, char **out)
{
    const cJSON *item;
    LH_TRY(get(in, obj, key, cJSON_IsString, &item));
    return lh_mem_strdup(out, item->valuestring);
}

static int get_hex(const struct in *in, const cJSON *obj, const char *key, uint64_t *out)
{
    const cJSON *item;
    LH_TRY(get(in, obj, key, cJSON_IsString, &item));
    char *end;
    *out = strtoull(item->valuestring, &end, 16);
    return strlen(item->valuestring) == 16 && !*end ? 0 : wrong(in, key, "is no checksum");
}

static int get_floats(const struct in *in, const cJSON *obj, const char *key, float *out, size_t n)
{
    const cJSON *list, *item;
    LH_TRY(get(in, obj, key, cJSON_IsArray, &list));
    size_t i = 0;
    cJSON_ArrayForEach(item, list)
    {
        if (i >= n || !cJSON_IsNumber(item) || !isfinite((float)item->valuedouble))
            return wrong(in, key, "does not hold one finite number a column");
        out[i++] = (float)item->valuedouble;
    }
    return i == n ? 0 : wrong(in, key, "does not hold one finite number a column");
}

static int get_stats(const struct in *in, const cJSON *item, struct lh_column_stats *s)
{
    static const char *const keys[] = {"mean", "std", "min", "max", "q001",
                                       "q25",  "q50", "q75", "q999"};
    double *to[] = {&s->mean, &s->std, &s->min, &s->max, &s->q001,
                    &s->q25,  &s->q50, &s->q75, &s->q999};
    for (size_t i = 0; i < sizeof to / sizeof *to; i++)
        LH_TRY(get_number(in, item, keys[i], -HUGE_VAL, HUGE_VAL, to[i]));
    return 0;
}

static int parse_id_names(const struct in *in, const cJSON *names, struct lh_manifest *m)
{
    const cJSON *list, *item;
    uint32_t i = 0;
    if (m->dims.ids == 0)
        return 0;
    LH_TRY(get(in, names, "ids", cJSON_IsArray, &list));
    cJSON_ArrayForEach(item, list)
    {
        if (i >= m->dims.ids || !cJSON_IsString(item))
            return wrong(in, "ids", "does not hold one name a column");
        LH_TRY(lh_mem_strdup(&m->id_names[i++], item->valuestring));
    }
    return i == m->dims.ids ? 0 : wrong(in, "ids", "does not hold one name a column");
}

static int parse_columns(const struct in *in, const cJSON *root, struct lh_manifest *m)
{
    const cJSON *dims, *names, *stats, *norm, *list, *item;
    struct lh_dims d = {.ids = 0};
    LH_TRY(get(in, root, "dims", cJSON_IsObject, &dims));
    LH_TRY(get_u32(in, dims, "state_high", DIM_MAX, &d.high));
    LH_TRY(get_u32(in, dims, "state_low", DIM_MAX, &d.low));
    LH_TRY(get_u32(in, dims, "action", DIM_MAX, &d.action));
    LH_TRY(get_u32(in, dims, "classes", LH_CLASSES_MAX, &d.classes));
    if (cJSON_GetObjectItemCaseSensitive(dims, "ids")) /* datasets without ids have none */
        LH_TRY(get_u32(in, dims, "ids", LH_IDS_MAX, &d.ids));
    m->dims = d;
    LH_TRY(lh_manifest_reserve(m));
    LH_TRY(get(in, root, "names", cJSON_IsObject, &names));
    LH_TRY(parse_id_names(in, names, m));
    LH_TRY(get(in, root, "statistics", cJSON_IsObject, &stats));
    for (int g = 0; g < LH_GROUPS; g++) {
        uint32_t width = lh_manifest_width(&d, g), i = 0;
        LH_TRY(get(in, names, group_names[g], cJSON_IsArray, &list));
        cJSON_ArrayForEach(item, list)
        {
            if (i >= width || !cJSON_IsString(item))
                return wrong(in, group_names[g], "does not hold one name a column");
            LH_TRY(lh_mem_strdup(&m->names[g][i++], item->valuestring));
        }
        if (i != width)
            return wrong(in, group_names[g], "does not hold one name a column");
        LH_TRY(get(in, stats, group_names[g], cJSON_IsArray, &list));
        i = 0;
        cJSON_ArrayForEach(item, list)
        {
            if (i >= width)
                return wrong(in, group_names[g], "does not hold one entry a column");
            LH_TRY(get_stats(in, item, &m->stats[g][i++]));
        }
        if (i != width)
            return wrong(in, group_names[g], "does not hold one entry a column");
    }
    LH_TRY(get(in, stats, "reward", cJSON_IsObject, &item));
    LH_TRY(get_stats(in, item, &m->reward_stats));
    LH_TRY(get_floats(in, root, "reward_values", m->reward_values, d.classes));
    struct lh_norm *n = &m->norm;
    LH_TRY(get(in, root, "normalisation", cJSON_IsObject, &norm));
    LH_TRY(get_floats(in, norm, "state_high_shift", n->high_shift, d.high));
    LH_TRY(get_floats(in, norm, "state_high_scale", n->high_scale, d.high));
    LH_TRY(get_floats(in, norm, "state_low_shift", n->low_shift, d.low));
    LH_TRY(get_floats(in, norm, "state_low_scale", n->low_scale, d.low));
    LH_TRY(get_floats(in, norm, "action_shift", n->action_shift, d.action));
    LH_TRY(get_floats(in, norm, "action_scale", n->action_scale, d.action));
    LH_TRY(get_floats(in, norm, "action_lo", n->action_lo, d.action));
    return get_floats(in, norm, "action_hi", n->action_hi, d.action);
}

static int parse_part(const struct in *in, const cJSON *item, struct lh_manifest_part *p)
{
    LH_TRY(get_text(in, item, "file", &p->file));
    if (p->file[0] == '/' || p->file[0] == '\0' || strstr(p->file, ".."))
        return wrong(in, "file", "points outside the dataset");
    LH_TRY(get_day(in, item, "day", &p->day));
    LH_TRY(get_u32(in, item, "hash", UINT32_MAX, &p->hash));
    LH_TRY(get_count(in, item, "rows", UINT32_MAX, &p->rows));
    LH_TRY(get_count(in, item, "halos", UINT32_MAX, &p->halos));
    LH_TRY(get_count(in, item, "cuts", (double)p->rows, &p->cuts));
    LH_TRY(get_count(in, item, "pieces", (double)p->rows, &p->pieces));
    LH_TRY(get_count(in, item, "bytes", COUNT_MAX, &p->bytes));
    return get_hex(in, item, "checksum", &p->checksum);
}

static int parse_split(const struct in *in, const cJSON *splits, struct lh_manifest *m, int s)
{
    const cJSON *split, *parts, *item;
    struct lh_split_info *info = &m->split[s];
    LH_TRY(get(in, splits, lh_split_names[s], cJSON_IsObject, &split));
    LH_TRY(get(in, split, "partitions", cJSON_IsArray, &parts));
    size_t n = (size_t)cJSON_GetArraySize(parts);
    LH_TRY(LH_NEW_ARRAY(&m->parts[s], n, "partitions"));
    info->partitions = n;
    uint64_t rows = 0, transitions = 0;
    struct lh_manifest_part *p = m->parts[s];
    cJSON_ArrayForEach(item, parts)
    {
        LH_TRY(parse_part(in, item, p));
        rows += p->rows;
        transitions += p->rows - p->cuts;
        p++;
    }
    LH_TRY(get_count(in, split, "rows", COUNT_MAX, &info->rows));
    LH_TRY(get_count(in, split, "transitions", COUNT_MAX, &info->transitions));
    LH_TRY(get_count(in, split, "trajectories", COUNT_MAX, &info->trajectories));
    LH_TRY(get_count(in, split, "users", COUNT_MAX, &info->users));
    if (info->rows != rows || info->transitions != transitions)
        return wrong(in, lh_split_names[s], "does not add up");
    return 0;
}

static int parse_root(const struct in *in, const cJSON *root, struct lh_manifest *m)
{
    const cJSON *format, *splits;
    if (!cJSON_IsObject(root))
        return lh_err_set(LH_EFORMAT, "%s: not valid JSON; restore the manifest or import again",
                          in->name);
    LH_TRY(get(in, root, "format", cJSON_IsString, &format));
    if (strcmp(format->valuestring, LH_MANIFEST_FORMAT) != 0)
        return lh_err_set(LH_EFORMAT, "%s: not the manifest of a longhaul dataset", in->name);
    double version;
    LH_TRY(get_number(in, root, "version", 1, UINT32_MAX, &version));
    if (version != LH_MANIFEST_VERSION)
        return lh_err_set(LH_EFORMAT,
                          "%s: written by version %.0f of the dataset format, this program reads "
                          "%d; use a newer longhaul",
                          in->name, version, LH_MANIFEST_VERSION);
    LH_TRY(get_text(in, root, "kind", &m->kind));
    LH_TRY(get_hex(in, root, "digest", &m->digest));
    LH_TRY(get_day(in, root, "first_day", &m->first_day));
    LH_TRY(get_day(in, root, "last_day", &m->last_day));
    LH_TRY(parse_columns(in, root, m));
    LH_TRY(get(in, root, "splits", cJSON_IsObject, &splits));
    for (int s = 0; s < LH_SPLITS; s++)
        LH_TRY(parse_split(in, splits, m, s));
    if (m->digest != lh_manifest_digest(m))
        return lh_err_set(LH_ECORRUPT,
                          "%s: changed after it was written (its digest does not match); restore "
                          "the manifest or import again",
                          in->name);
    return 0;
}

int lh_manifest_parse(struct lh_manifest *m, const char *text, size_t n, const char *name)
{
    struct in in = {name};
    memset(m, 0, sizeof *m);
    cJSON *root = cJSON_ParseWithLength(text, n);
    int rc = parse_root(&in, root, m);
    cJSON_Delete(root);
    if (rc < 0)
        lh_manifest_fini(m);
    return rc;
}
