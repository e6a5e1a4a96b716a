/* status.json, both ways by one table a struct, so that what is written is what is read. */
#include "cluster/status.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1, FILE_MAX = 16 << 20 };

#define EXACT_MAX ((double)(1ull << 53)) /* whole numbers a JSON number holds */

enum type { TEXT, U32, U64, DOUBLE, BOOL };

struct member {
    const char *name;
    enum type type;
    size_t offset, size; /* size: of a text */
};

/* One a line. */
/* clang-format off */
#define MEMBER(s, name, type) {#name, type, offsetof(struct s, name), sizeof(((struct s *)0)->name)}

static const struct member of_status[] = {
    MEMBER(lh_status, written, DOUBLE),
    MEMBER(lh_status, began, DOUBLE),
    MEMBER(lh_status, stage, TEXT),
    MEMBER(lh_status, job, TEXT),
    MEMBER(lh_status, algorithm, TEXT),
    MEMBER(lh_status, host, TEXT),
    MEMBER(lh_status, pid, U64),
    MEMBER(lh_status, endpoint, TEXT),
    MEMBER(lh_status, metrics, TEXT),
    MEMBER(lh_status, step, U64),
    MEMBER(lh_status, start, U64),
    MEMBER(lh_status, until, U64),
    MEMBER(lh_status, total, U64),
    MEMBER(lh_status, batch, U64),
    MEMBER(lh_status, rate, DOUBLE),
    MEMBER(lh_status, eta, DOUBLE),
    MEMBER(lh_status, has_cut, BOOL),
    MEMBER(lh_status, cut, U64),
    MEMBER(lh_status, cut_at, DOUBLE),
    MEMBER(lh_status, failed_cuts, U64),
    MEMBER(lh_status, trouble, TEXT),
    MEMBER(lh_status, has_evaluation, BOOL),
    MEMBER(lh_status, value, DOUBLE),
    MEMBER(lh_status, lo, DOUBLE),
    MEMBER(lh_status, hi, DOUBLE),
    MEMBER(lh_status, ess_share, DOUBLE),
    MEMBER(lh_status, has_best, BOOL),
    MEMBER(lh_status, best, U64),
    MEMBER(lh_status, best_value, DOUBLE),
    MEMBER(lh_status, memory, U64),
    MEMBER(lh_status, wanted_workers, U32),
    MEMBER(lh_status, wanted_servers, U32),
};

static const struct member of_role[] = {
    MEMBER(lh_status_role, node, U32),
    MEMBER(lh_status_role, server, BOOL),
    MEMBER(lh_status_role, shard, U32),
    MEMBER(lh_status_role, host, TEXT),
    MEMBER(lh_status_role, metrics, TEXT),
    MEMBER(lh_status_role, standing, TEXT),
    MEMBER(lh_status_role, pid, U64),
    MEMBER(lh_status_role, version, U64),
    MEMBER(lh_status_role, silent, DOUBLE),
    MEMBER(lh_status_role, steps, U64),
    MEMBER(lh_status_role, rows, U64),
    MEMBER(lh_status_role, dropped, U64),
    MEMBER(lh_status_role, bytes_in, U64),
    MEMBER(lh_status_role, bytes_out, U64),
    MEMBER(lh_status_role, memory, U64),
    MEMBER(lh_status_role, lacked, U64),
    MEMBER(lh_status_role, lacked_most, U64),
    MEMBER(lh_status_role, taken_over, U64),
};

static const struct member of_loss[] = {
    MEMBER(lh_status_loss, name, TEXT),
    MEMBER(lh_status_loss, value, DOUBLE),
};
/* clang-format on */

#define COUNT(a) (sizeof(a) / sizeof *(a))

void lh_status_fini(struct lh_status *s)
{
    lh_mem_free(s->losses);
    lh_mem_free(s->roles);
    *s = (struct lh_status){0};
}

/* --- writing -----------------------------------------------------------------------------------
 */
static cJSON *number(double x)
{
    return isfinite(x) ? cJSON_CreateNumber(x) : cJSON_CreateNull();
}

static cJSON *print_member(const void *at, enum type type)
{
    switch (type) {
    case TEXT:
        return cJSON_CreateString(at);
    case U32:
        return number(*(const uint32_t *)at);
    case U64: /* a role says how much it has done: what no JSON number holds would not be read again
               */
        return number(fmin((double)*(const uint64_t *)at, EXACT_MAX));
    case DOUBLE:
        return number(*(const double *)at);
    case BOOL:
        return cJSON_CreateBool(*(const bool *)at);
    }
    return NULL;
}

/* Adds `item` (NULL: out of memory) to an object or, without a name, to a list; *ok turns false on
 * any failure. */
static void put(bool *ok, cJSON *o, const char *name, cJSON *item)
{
    if (!item || !*ok ||
        !(name ? cJSON_AddItemToObject(o, name, item) : cJSON_AddItemToArray(o, item))) {
        cJSON_Delete(item);
        *ok = false;
    }
}

static cJSON *print_struct(const void *s, const struct member *m, size_t n)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL;
    for (size_t i = 0; i < n && ok; i++)
        put(&ok, o, m[i].name, print_member((const char *)s + m[i].offset, m[i].type));
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static cJSON *print_phases(const double *phases)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL;
    for (size_t i = 0; i < LH_PHASE_N && ok; i++)
        if (phases[i] > 0)
            put(&ok, o, lh_metrics_phase_name(i), number(phases[i]));
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

cJSON *lh_status_json(const struct lh_status *s)
{
    cJSON *o = print_struct(s, of_status, COUNT(of_status));
    cJSON *losses = cJSON_CreateArray(), *roles = cJSON_CreateArray();
    bool ok = o && losses && roles;
    for (size_t i = 0; i < s->n_losses && ok; i++)
        put(&ok, losses, NULL, print_struct(&s->losses[i], of_loss, COUNT(of_loss)));
    for (size_t i = 0; i < s->n_roles && ok; i++) {
        cJSON *role = print_struct(&s->roles[i], of_role, COUNT(of_role));
        if (role)
            put(&ok, role, "phases", print_phases(s->roles[i].phases));
        put(&ok, roles, NULL, role);
    }
    if (ok) {
        put(&ok, o, "losses", losses);
        put(&ok, o, "roles", roles);
    } else {
        cJSON_Delete(losses);
        cJSON_Delete(roles);
    }
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

int lh_status_save(const struct lh_status *s, const char *path)
{
    cJSON *o = lh_status_json(s);
    char *text =
        o && cJSON_AddNumberToObject(o, "format", FORMAT) ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "%s: out of memory", path);
    int rc = lh_fs_replace_file(path, text, strlen(text), false);
    cJSON_free(text);
    return rc;
}

/* --- reading -----------------------------------------------------------------------------------
 */
static int fail(const char *path, const char *name, const char *expected)
{
    return lh_err_set(LH_EFORMAT, "%s: '%s' is not %s; it was not written by this longhaul", path,
                      name, expected);
}

static int read_whole(const cJSON *x, double max, uint64_t *out)
{
    if (!cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble <= max) ||
        x->valuedouble != trunc(x->valuedouble))
        return LH_NOTFOUND;
    *out = (uint64_t)x->valuedouble;
    return 0;
}

static int read_member(const cJSON *x, const struct member *m, const char *path, void *at)
{
    uint64_t whole = 0;
    switch (m->type) {
    case TEXT:
        if (!cJSON_IsString(x) || strlen(x->valuestring) >= m->size)
            return fail(path, m->name, "a text of its length");
        memcpy(at, x->valuestring, strlen(x->valuestring) + 1);
        return 0;
    case U32:
    case U64:
        if (read_whole(x, m->type == U32 ? UINT32_MAX : EXACT_MAX, &whole) != 0)
            return fail(path, m->name, "a whole number in range");
        if (m->type == U32)
            *(uint32_t *)at = (uint32_t)whole;
        else
            *(uint64_t *)at = whole;
        return 0;
    case DOUBLE:
        if (!cJSON_IsNumber(x) && !cJSON_IsNull(x))
            return fail(path, m->name, "a number or null");
        *(double *)at = cJSON_IsNumber(x) ? x->valuedouble : NAN;
        return 0;
    case BOOL:
        if (!cJSON_IsBool(x))
            return fail(path, m->name, "true or false");
        *(bool *)at = cJSON_IsTrue(x);
        return 0;
    }
    return lh_err_set(LH_EINTERNAL, "status member %s has no type", m->name);
}

static int read_struct(const cJSON *o, const struct member *m, size_t n, const char *path, void *s)
{
    for (size_t i = 0; i < n; i++)
        LH_TRY(read_member(cJSON_GetObjectItemCaseSensitive(o, m[i].name), &m[i], path,
                           (char *)s + m[i].offset));
    return 0;
}

static void read_phases(const cJSON *o, double *phases)
{
    for (size_t i = 0; i < LH_PHASE_N; i++) {
        const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, lh_metrics_phase_name(i));
        phases[i] = cJSON_IsNumber(x) && x->valuedouble > 0 ? x->valuedouble : 0;
    }
}

static int read_list(const cJSON *o, const char *name, const char *path, const cJSON **out,
                     size_t *n)
{
    *out = cJSON_GetObjectItemCaseSensitive(o, name);
    if (!cJSON_IsArray(*out))
        return fail(path, name, "a list");
    *n = (size_t)cJSON_GetArraySize(*out);
    return 0;
}

static int read_status(struct lh_status *s, const cJSON *o, const char *path)
{
    const cJSON *list = NULL, *x;
    size_t n = 0;
    uint64_t format = 0;
    if (read_whole(cJSON_GetObjectItemCaseSensitive(o, "format"), EXACT_MAX, &format) != 0 ||
        format != FORMAT)
        return fail(path, "format", "that of this longhaul");
    LH_TRY(read_struct(o, of_status, COUNT(of_status), path, s));
    LH_TRY(read_list(o, "losses", path, &list, &n));
    LH_TRY(LH_NEW_ARRAY(&s->losses, n, "losses of a status"));
    cJSON_ArrayForEach(x, list)
        LH_TRY(read_struct(x, of_loss, COUNT(of_loss), path, &s->losses[s->n_losses++]));
    LH_TRY(read_list(o, "roles", path, &list, &n));
    LH_TRY(LH_NEW_ARRAY(&s->roles, n, "roles of a status"));
    cJSON_ArrayForEach(x, list)
    {
        struct lh_status_role *r = &s->roles[s->n_roles++];
        LH_TRY(read_struct(x, of_role, COUNT(of_role), path, r));
        read_phases(cJSON_GetObjectItemCaseSensitive(x, "phases"), r->phases);
    }
    return 0;
}

int lh_status_load(struct lh_status *out, const char *path)
{
    char *text = NULL;
    size_t n;
    LH_TRY(lh_fs_read_file(&text, &n, path, FILE_MAX));
    struct lh_status s = {0};
    cJSON *o = cJSON_ParseWithLength(text, n);
    int rc = cJSON_IsObject(o) ? read_status(&s, o, path)
                               : lh_err_set(LH_EFORMAT, "%s: is not valid JSON", path);
    cJSON_Delete(o);
    lh_mem_free(text);
    if (rc < 0)
        lh_status_fini(&s);
    else
        *out = s;
    return rc;
}
