/* run.json, the durable record of a run. Written whole each time, aside and renamed, so that a
 * reader or a restart sees one state or the next and never a half. */
#include "cluster/run_record.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 1, FILE_MAX = 64 << 20 };

#define EXACT_MAX ((double)(1ull << 53)) /* whole numbers a JSON number holds */

const char *const lh_run_state_names[LH_RUN_STATES] = {"running", "stopped", "finished", "failed"};

void lh_run_record_fini(struct lh_run_record *r)
{
    for (size_t i = 0; i < r->n_cuts; i++)
        lh_mem_free(r->cuts[i].evaluation_json);
    lh_mem_free(r->cuts);
    lh_mem_free(r->behaviour);
    lh_mem_free(r->blas);
    lh_mem_free(r->error);
    *r = (struct lh_run_record){0};
}

static int copy_text(char **out, const char *text)
{
    return text ? lh_mem_strdup(out, text) : 0;
}

int lh_run_record_copy(struct lh_run_record *out, const struct lh_run_record *r)
{
    struct lh_run_record c = *r;
    int rc;
    c.cuts = NULL;
    c.n_cuts = c.cap_cuts = 0;
    c.behaviour = c.blas = c.error = NULL;
    LH_TRY_TO(fail, LH_GROW(&c.cuts, &c.cap_cuts, r->n_cuts + 1, "run record"));
    for (; c.n_cuts < r->n_cuts; c.n_cuts++) {
        const struct lh_run_cut *from = &r->cuts[c.n_cuts];
        c.cuts[c.n_cuts] = (struct lh_run_cut){.version = from->version, .servers = from->servers};
        LH_TRY_TO(fail, copy_text(&c.cuts[c.n_cuts].evaluation_json, from->evaluation_json));
    }
    LH_TRY_TO(fail, copy_text(&c.behaviour, r->behaviour));
    LH_TRY_TO(fail, copy_text(&c.blas, r->blas));
    LH_TRY_TO(fail, copy_text(&c.error, r->error));
    *out = c;
    return 0;
fail:
    lh_run_record_fini(&c);
    return rc;
}

/* --- reading --------------------------------------------------------------------------------- */

static int fail(const char *path, const char *member, const char *expected)
{
    return lh_err_set(LH_EFORMAT,
                      "%s: '%s' is not %s; this run directory was not written whole by "
                      "longhaul",
                      path, member, expected);
}

static int read_number(const cJSON *o, const char *path, const char *member, double max,
                       uint64_t *out)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, member);
    if (!cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble <= max) ||
        x->valuedouble != (double)(uint64_t)x->valuedouble)
        return fail(path, member, "a whole number in range");
    *out = (uint64_t)x->valuedouble;
    return 0;
}

static int read_number_or_null(const cJSON *o, const char *path, const char *member, bool *has,
                               uint64_t *out)
{
    *has = !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(o, member));
    return *has ? read_number(o, path, member, EXACT_MAX, out) : 0;
}

static int read_digest(const cJSON *o, const char *path, const char *member, uint64_t *out)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, member);
    const char *s = cJSON_IsString(x) ? x->valuestring : "";
    if (strlen(s) != 16 || strspn(s, "0123456789abcdef") != 16)
        return fail(path, member, "a digest of 16 hexadecimal digits");
    *out = strtoull(s, NULL, 16);
    return 0;
}

static int read_text_or_null(const cJSON *o, const char *path, const char *member, char **out)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, member);
    if (cJSON_IsNull(x))
        return 0;
    if (!cJSON_IsString(x))
        return fail(path, member, "a text or null");
    return lh_mem_strdup(out, x->valuestring);
}

static int read_state(const cJSON *o, const char *path, enum lh_run_state *out)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, "state");
    for (int i = 0; cJSON_IsString(x) && i < LH_RUN_STATES; i++) {
        if (strcmp(x->valuestring, lh_run_state_names[i]) == 0) {
            *out = (enum lh_run_state)i;
            return 0;
        }
    }
    return fail(path, "state", "a state of a run");
}

static int copy_json(const cJSON *x, char **out)
{
    char *text = cJSON_PrintUnformatted(x);
    if (!text)
        return lh_err_set(LH_ENOMEM, "run record: out of memory");
    int rc = lh_mem_strdup(out, text);
    cJSON_free(text);
    return rc;
}

static int read_cut(const cJSON *o, const char *path, struct lh_run_record *r)
{
    uint64_t version = 0, servers = 0;
    LH_TRY(read_number(o, path, "version", EXACT_MAX, &version));
    LH_TRY(read_number(o, path, "servers", UINT32_MAX, &servers));
    if (servers == 0 || (r->n_cuts > 0 && version <= r->cuts[r->n_cuts - 1].version))
        return fail(path, "cuts", "a list of cuts that ascend");
    LH_TRY(lh_run_record_add_cut(r, version, (uint32_t)servers));
    const cJSON *evaluation = cJSON_GetObjectItemCaseSensitive(o, "evaluation");
    if (cJSON_IsNull(evaluation))
        return 0;
    if (!cJSON_IsObject(evaluation))
        return fail(path, "evaluation", "an object or null");
    return copy_json(evaluation, &r->cuts[r->n_cuts - 1].evaluation_json);
}

static int read_record(const cJSON *o, const char *path, struct lh_run_record *r)
{
    uint64_t x = 0;
    LH_TRY(read_number(o, path, "format", EXACT_MAX, &x));
    if (x != FORMAT)
        return lh_err_set(LH_EFORMAT,
                          "%s: has format %" PRIu64 ", this longhaul reads %d; use the version "
                          "that wrote it",
                          path, x, FORMAT);
    LH_TRY(read_state(o, path, &r->state));
    LH_TRY(read_digest(o, path, "job_digest", &r->job_digest));
    LH_TRY(read_digest(o, path, "dataset_digest", &r->dataset_digest));
    LH_TRY(read_number(o, path, "servers", UINT32_MAX, &x));
    r->servers = (uint32_t)x;
    LH_TRY(read_number(o, path, "steps_total", EXACT_MAX, &r->steps_total));
    const cJSON *cuts = cJSON_GetObjectItemCaseSensitive(o, "cuts"), *cut;
    if (!cJSON_IsArray(cuts))
        return fail(path, "cuts", "a list");
    cJSON_ArrayForEach(cut, cuts) LH_TRY(read_cut(cut, path, r));
    LH_TRY(read_number_or_null(o, path, "best", &r->has_best, &r->best));
    LH_TRY(read_number_or_null(o, path, "last", &r->has_last, &r->last));
    if (r->has_best && !lh_run_record_cut(r, r->best))
        return fail(path, "best", "one of the cuts");
    if (r->has_last && !lh_run_record_cut(r, r->last))
        return fail(path, "last", "one of the cuts");
    LH_TRY(read_text_or_null(o, path, "behaviour", &r->behaviour));
    LH_TRY(read_text_or_null(o, path, "blas", &r->blas));
    return read_text_or_null(o, path, "error", &r->error);
}

int lh_run_record_parse(struct lh_run_record *out, const char *text, size_t n, const char *name)
{
    struct lh_run_record r = {0};
    cJSON *o = cJSON_ParseWithLength(text, n);
    int rc = 0;
    if (!cJSON_IsObject(o))
        rc = lh_err_set(LH_EFORMAT, "%s: is not valid JSON; this run cannot be resumed or exported",
                        name);
    else
        rc = read_record(o, name, &r);
    cJSON_Delete(o);
    if (rc < 0)
        lh_run_record_fini(&r);
    else
        *out = r;
    return rc;
}

int lh_run_record_load(struct lh_run_record *out, const char *dir)
{
    int rc;
    char *path = NULL, *text = NULL;
    size_t n;
    LH_TRY(lh_mem_printf(&path, "%s/run.json", dir));
    rc = lh_fs_read_file(&text, &n, path, FILE_MAX);
    if (rc == LH_ENOENT)
        rc = lh_err_set(rc, "%s: no run (there is no run.json in it); make one with longhaul train",
                        dir);
    LH_TRY_TO(done, rc);
    rc = lh_run_record_parse(out, text, n, path);
done:
    lh_mem_free(text);
    lh_mem_free(path);
    return rc;
}

/* --- writing --------------------------------------------------------------------------------- */

static cJSON *number_or_null(bool has, uint64_t x)
{
    return has ? cJSON_CreateNumber((double)x) : cJSON_CreateNull();
}

static cJSON *text_or_null(const char *s)
{
    return s ? cJSON_CreateString(s) : cJSON_CreateNull();
}

static cJSON *digest(uint64_t x)
{
    char s[17];
    snprintf(s, sizeof s, "%016" PRIx64, x);
    return cJSON_CreateString(s);
}

/* Adds `item` (NULL: out of memory) to an object; *ok turns false on any failure. */
static void put(bool *ok, cJSON *o, const char *member, cJSON *item)
{
    if (!item || !*ok || !cJSON_AddItemToObject(o, member, item)) {
        cJSON_Delete(item);
        *ok = false;
    }
}

static cJSON *print_cuts(const struct lh_run_record *r)
{
    bool ok = true;
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; list && ok && i < r->n_cuts; i++) {
        const struct lh_run_cut *c = &r->cuts[i];
        cJSON *o = cJSON_CreateObject();
        put(&ok, o, "version", cJSON_CreateNumber((double)c->version));
        put(&ok, o, "servers", cJSON_CreateNumber((double)c->servers));
        put(&ok, o, "evaluation",
            c->evaluation_json ? cJSON_Parse(c->evaluation_json) : cJSON_CreateNull());
        if (!ok || !cJSON_AddItemToArray(list, o)) {
            cJSON_Delete(o);
            ok = false;
        }
    }
    if (!ok) {
        cJSON_Delete(list);
        return NULL;
    }
    return list;
}

static char *print_record(const struct lh_run_record *r)
{
    bool ok = true;
    cJSON *o = cJSON_CreateObject();
    put(&ok, o, "format", cJSON_CreateNumber(FORMAT));
    put(&ok, o, "state", cJSON_CreateString(lh_run_state_names[r->state]));
    put(&ok, o, "job_digest", digest(r->job_digest));
    put(&ok, o, "dataset_digest", digest(r->dataset_digest));
    put(&ok, o, "servers", cJSON_CreateNumber((double)r->servers));
    put(&ok, o, "steps_total", cJSON_CreateNumber((double)r->steps_total));
    put(&ok, o, "cuts", print_cuts(r));
    put(&ok, o, "best", number_or_null(r->has_best, r->best));
    put(&ok, o, "last", number_or_null(r->has_last, r->last));
    put(&ok, o, "behaviour", text_or_null(r->behaviour));
    put(&ok, o, "blas", text_or_null(r->blas));
    put(&ok, o, "error", text_or_null(r->error));
    char *text = ok ? cJSON_Print(o) : NULL;
    cJSON_Delete(o);
    return text;
}

int lh_run_record_save(const struct lh_run_record *r, const char *dir)
{
    int rc;
    char *path = NULL, *text = print_record(r);
    if (!text)
        return lh_err_set(LH_ENOMEM, "%s/run.json: out of memory", dir);
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/run.json", dir));
    rc = lh_fs_replace_file(path, text, strlen(text), true);
done:
    lh_mem_free(path);
    cJSON_free(text);
    return rc;
}

/* --- cuts ------------------------------------------------------------------------------------ */

static struct lh_run_cut *find_cut(const struct lh_run_record *r, uint64_t version)
{
    for (size_t i = 0; i < r->n_cuts; i++) {
        if (r->cuts[i].version == version)
            return &r->cuts[i];
    }
    return NULL;
}

const struct lh_run_cut *lh_run_record_cut(const struct lh_run_record *r, uint64_t version)
{
    return find_cut(r, version);
}

int lh_run_record_add_cut(struct lh_run_record *r, uint64_t version, uint32_t servers)
{
    struct lh_run_cut *cut = find_cut(r, version);
    if (!cut) {
        LH_TRY(LH_GROW(&r->cuts, &r->cap_cuts, r->n_cuts + 1, "run record"));
        size_t at = r->n_cuts;
        while (at > 0 && r->cuts[at - 1].version > version)
            at--;
        memmove(r->cuts + at + 1, r->cuts + at, (r->n_cuts - at) * sizeof *r->cuts);
        cut = &r->cuts[at];
        *cut = (struct lh_run_cut){.version = version};
        r->n_cuts++;
    }
    cut->servers = servers;
    r->has_last = true;
    r->last = version;
    return 0;
}

int lh_run_record_set_evaluation(struct lh_run_record *r, uint64_t version, const char *json)
{
    int rc = 0;
    char *copy = NULL;
    struct lh_run_cut *cut = find_cut(r, version);
    if (!cut)
        return lh_err_set(LH_ENOENT, "run record: there is no cut %" PRIu64 " to evaluate",
                          version);
    if (json) {
        cJSON *o = cJSON_Parse(json);
        rc = cJSON_IsObject(o)
                 ? copy_json(o, &copy)
                 : lh_err_set(LH_EFORMAT, "run record: an evaluation is not a JSON object");
        cJSON_Delete(o);
        LH_TRY(rc);
    }
    lh_mem_free(cut->evaluation_json);
    cut->evaluation_json = copy;
    return 0;
}

size_t lh_run_record_retain(struct lh_run_record *r, size_t keep)
{
    size_t left = 0;
    for (size_t i = 0; i < r->n_cuts; i++) {
        const bool best = r->has_best && r->cuts[i].version == r->best;
        const bool last = r->has_last && r->cuts[i].version == r->last;
        if (best || last || r->n_cuts - i <= keep)
            r->cuts[left++] = r->cuts[i];
        else
            lh_mem_free(r->cuts[i].evaluation_json);
    }
    r->n_cuts = left;
    return left;
}

static int set_text(char **member, const char *text)
{
    char *copy = NULL;
    if (text)
        LH_TRY(lh_mem_strdup(&copy, text));
    lh_mem_free(*member);
    *member = copy;
    return 0;
}

void lh_run_record_start(const struct lh_run_record *r, struct lh_clock *clock)
{
    const struct lh_run_cut *last = r->has_last ? lh_run_record_cut(r, r->last) : NULL;
    clock->start = last ? last->version : 0;
    clock->evaluate_start =
        last && !last->evaluation_json && clock->evaluate_every &&
        (last->version % clock->evaluate_every == 0 || last->version == clock->total);
}

int lh_run_record_set_blas(struct lh_run_record *r, const char *blas)
{
    return set_text(&r->blas, blas);
}

int lh_run_record_set_behaviour(struct lh_run_record *r, const char *path)
{
    return set_text(&r->behaviour, path);
}

int lh_run_record_set_error(struct lh_run_record *r, const char *sentence)
{
    return set_text(&r->error, sentence);
}
