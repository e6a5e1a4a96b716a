/* From text to states. Features are looked up in a sorted index, since a state may have thousands;
 * one name may stand for several places (a feature in both states). */
#include "cluster/state_read.h"

#include "cluster/fields.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/yaml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

struct place { /* feature `name` goes to state[slot] */
    const char *name;
    size_t slot;
};

struct lh_state_reader {
    struct lh_state_spec spec;
    size_t width;        /* H + L */
    struct place *place; /* [H + L], by name */
    float *state;        /* [H + L] */
    bool *seen;          /* [H + L] */
    struct lh_fields fields;
    bool begun;      /* a line of this input was seen */
    bool json;       /* this input's format */
    bool has_header; /* of a CSV input */
    size_t columns;  /* of a CSV input */
    size_t *slot_of; /* [columns] first place of a column's feature, or `width` */
    size_t slot_cap;
    size_t *keep_at; /* [n_keep] column */
    char **kept;     /* [n_keep] JSON texts to free */
    cJSON *object;   /* the line last read, of JSON lines */
};

static int by_name(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (x->slot > y->slot) - (x->slot < y->slot);
}

int lh_state_reader_create(struct lh_state_reader **out, const struct lh_state_spec *spec)
{
    struct lh_state_reader *r = NULL;
    int rc;
    LH_TRY(LH_NEW(&r, "state reader"));
    r->spec = *spec;
    r->width = (size_t)spec->dims.high + spec->dims.low;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->place, r->width, "features"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->state, r->width, "state"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->seen, r->width, "state"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->keep_at, spec->n_keep, "kept columns"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->kept, spec->n_keep, "kept columns"));
    for (size_t i = 0; i < r->width; i++) {
        bool high = i < spec->dims.high;
        r->place[i] = (struct place){
            .name = high ? spec->high_names[i] : spec->low_names[i - spec->dims.high], .slot = i};
    }
    qsort(r->place, r->width, sizeof *r->place, by_name);
    *out = r;
    return 0;
fail:
    lh_state_reader_destroy(&r);
    return rc;
}

static void drop_line(struct lh_state_reader *r)
{
    for (size_t i = 0; r->kept && i < r->spec.n_keep; i++) {
        cJSON_free(r->kept[i]);
        r->kept[i] = NULL;
    }
    cJSON_Delete(r->object);
    r->object = NULL;
}

void lh_state_reader_destroy(struct lh_state_reader **rp)
{
    struct lh_state_reader *r = *rp;
    if (!r)
        return;
    drop_line(r);
    lh_fields_fini(&r->fields);
    lh_mem_free(r->place);
    lh_mem_free(r->state);
    lh_mem_free(r->seen);
    lh_mem_free(r->slot_of);
    lh_mem_free(r->keep_at);
    lh_mem_free(r->kept);
    lh_mem_free(r);
    *rp = NULL;
}

void lh_state_reader_begin(struct lh_state_reader *r)
{
    r->begun = false;
}

/* The first place of a feature of this name; NULL if there is none. */
static const struct place *find(const struct lh_state_reader *r, const char *name)
{
    size_t lo = 0, hi = r->width;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(r->place[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < r->width && strcmp(r->place[lo].name, name) == 0 ? &r->place[lo] : NULL;
}

static const struct place *next_place(const struct lh_state_reader *r, const struct place *p)
{
    const struct place *q = p + 1;
    return q < r->place + r->width && strcmp(p->name, q->name) == 0 ? q : NULL;
}

static const char *slot_name(const struct lh_state_reader *r, size_t slot)
{
    size_t high = r->spec.dims.high;
    return slot < high ? r->spec.high_names[slot] : r->spec.low_names[slot - high];
}

/* --- CSV ----------------------------------------------------------------------------------- */

/* A header holds a field that is no number. */
static bool is_header(const struct lh_fields *f)
{
    float x;
    for (size_t i = 0; i < f->n; i++)
        if (*f->field[i] && lh_fields_number(f->field[i], &x) < 0)
            return true;
    return false;
}

static char *trimmed(char *s)
{
    while (*s == ' ')
        s++;
    for (size_t n = strlen(s); n > 0 && s[n - 1] == ' '; n--)
        s[n - 1] = '\0';
    return s;
}

static int missing_feature(const struct lh_state_reader *r, const char *name)
{
    const struct lh_fields *f = &r->fields;
    const char *near = lh_yaml_nearest(name, (const char *const *)f->field, f->n);
    if (near)
        return lh_err_set(
            LH_EMISMATCH,
            "the header has no column '%.80s', which the snapshot needs; is it '%.80s'?", name,
            near);
    return lh_err_set(
        LH_EMISMATCH,
        "the header has no column '%.80s'; the snapshot needs all of its %zu features", name,
        r->width);
}

/* Whether the k-th column that is kept is an id. */
static bool is_id(const struct lh_state_reader *r, size_t k)
{
    return k >= r->spec.n_keep - r->spec.n_ids;
}

static int read_header(struct lh_state_reader *r)
{
    struct lh_fields *f = &r->fields;
    LH_TRY(LH_GROW(&r->slot_of, &r->slot_cap, f->n, "columns"));
    memset(r->seen, 0, r->width * sizeof *r->seen);
    for (size_t c = 0; c < f->n; c++) {
        f->field[c] = trimmed(f->field[c]);
        const struct place *p = find(r, f->field[c]);
        r->slot_of[c] = p ? (size_t)(p - r->place) : r->width;
        if (p && r->seen[p->slot])
            return lh_err_set(LH_EMISMATCH, "the header has column '%.80s' twice", f->field[c]);
        for (; p; p = next_place(r, p))
            r->seen[p->slot] = true;
    }
    for (size_t i = 0; i < r->width; i++)
        if (!r->seen[i])
            return missing_feature(r, slot_name(r, i));
    for (size_t k = 0; k < r->spec.n_keep; k++) {
        size_t c = 0;
        while (c < f->n && strcmp(f->field[c], r->spec.keep[k]) != 0)
            c++;
        if (c == f->n && is_id(r, k))
            return lh_err_set(LH_EMISMATCH,
                              "the header has no column '%.80s', an id that the snapshot's tables "
                              "are looked up by",
                              r->spec.keep[k]);
        if (c == f->n)
            return lh_err_set(LH_EMISMATCH, "--keep %.80s: the header has no such column",
                              r->spec.keep[k]);
        r->keep_at[k] = c;
    }
    r->has_header = true;
    r->columns = f->n;
    return 0;
}

static int begin_without_header(struct lh_state_reader *r)
{
    if (r->fields.n != r->width)
        return lh_err_set(
            LH_EMISMATCH,
            "%zu columns without a header, the snapshot needs %zu numbers (%u "
            "session-level, then %u request-level); add a header line that names them",
            r->fields.n, r->width, r->spec.dims.high, r->spec.dims.low);
    if (r->spec.n_keep > 0 && is_id(r, 0))
        return lh_err_set(LH_EMISMATCH,
                          "the snapshot's tables are looked up by '%.80s'; a header line must "
                          "name the columns",
                          r->spec.keep[0]);
    if (r->spec.n_keep > 0)
        return lh_err_set(LH_EMISMATCH, "--keep %.80s needs a header line that names the columns",
                          r->spec.keep[0]);
    r->has_header = false;
    r->columns = r->width;
    return 0;
}

static int bad_number(const char *name, const char *text)
{
    if (!*text)
        return lh_err_set(LH_EFORMAT, "column '%.80s' is empty; a state has no missing values",
                          name);
    return lh_err_set(LH_EFORMAT, "column '%.80s': '%.40s' is not a finite number", name, text);
}

static int read_row(struct lh_state_reader *r)
{
    const struct lh_fields *f = &r->fields;
    if (f->n != r->columns)
        return lh_err_set(LH_EFORMAT, "%zu columns instead of %zu", f->n, r->columns);
    for (size_t c = 0; c < f->n; c++) {
        float x;
        size_t at = r->has_header ? r->slot_of[c] : c;
        if (at == r->width)
            continue; /* no feature */
        const char *name = r->has_header ? r->place[at].name : slot_name(r, c);
        if (lh_fields_number(f->field[c], &x) < 0)
            return bad_number(name, f->field[c]);
        if (!r->has_header) {
            r->state[c] = x;
            continue;
        }
        for (const struct place *p = &r->place[at]; p; p = next_place(r, p))
            r->state[p->slot] = x;
    }
    return 0;
}

static int csv_line(struct lh_state_reader *r, char *line, const char **kept)
{
    LH_TRY(lh_fields_split(&r->fields, line, r->spec.separator));
    if (!r->begun) {
        bool header = is_header(&r->fields);
        LH_TRY(header ? read_header(r) : begin_without_header(r));
        r->begun = true;
        if (header)
            return LH_AGAIN;
    }
    LH_TRY(read_row(r));
    for (size_t k = 0; k < r->spec.n_keep; k++)
        kept[k] = r->fields.field[r->keep_at[k]];
    return 0;
}

/* --- JSON lines ------------------------------------------------------------------------------ */

static int take_number(const cJSON *item, const char *name, float *out)
{
    if (cJSON_IsNumber(item) && isfinite((float)item->valuedouble)) {
        *out = (float)item->valuedouble;
        return 0;
    }
    char text[40];
    if (cJSON_IsNumber(item))
        snprintf(text, sizeof text, "%g", item->valuedouble);
    return bad_number(name, cJSON_IsNumber(item)                         ? text
                            : cJSON_IsString(item) && *item->valuestring ? item->valuestring
                            : cJSON_IsNull(item)                         ? "null"
                            : cJSON_IsBool(item)                         ? "a truth value"
                                                                         : "a list or object");
}

static int take_list(struct lh_state_reader *r, const char *key, size_t first, size_t n)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->object, key);
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != n)
        return lh_err_set(LH_EFORMAT, "'%s' must be a list of %zu numbers", key, n);
    for (const cJSON *c = list->child; c; c = c->next, first++)
        LH_TRY(take_number(c, slot_name(r, first), &r->state[first]));
    return 0;
}

static int take_lists(struct lh_state_reader *r)
{
    size_t high = r->spec.dims.high, low = r->spec.dims.low;
    if (high > 0)
        LH_TRY(take_list(r, "high", 0, high));
    if (low > 0)
        LH_TRY(take_list(r, "low", high, low));
    return 0;
}

static int take_named(struct lh_state_reader *r)
{
    memset(r->seen, 0, r->width * sizeof *r->seen);
    for (const cJSON *c = r->object->child; c; c = c->next) {
        const struct place *p = find(r, c->string);
        if (!p)
            continue;
        if (r->seen[p->slot])
            return lh_err_set(LH_EFORMAT, "key '%.80s' is there twice", c->string);
        float x = 0;
        LH_TRY(take_number(c, c->string, &x));
        for (; p; p = next_place(r, p)) {
            r->seen[p->slot] = true;
            r->state[p->slot] = x;
        }
    }
    for (size_t i = 0; i < r->width; i++)
        if (!r->seen[i])
            return lh_err_set(LH_EFORMAT,
                              "key '%.80s' is missing; the snapshot needs all of its %zu features",
                              slot_name(r, i), r->width);
    return 0;
}

static int json_line(struct lh_state_reader *r, const char *line, size_t n, const char **kept)
{
    const char *end = NULL;
    r->object = cJSON_ParseWithLengthOpts(line, n + 1, &end, 1);
    if (!cJSON_IsObject(r->object))
        return lh_err_set(LH_EFORMAT, "not a JSON object on one line");
    const cJSON *high = cJSON_GetObjectItemCaseSensitive(r->object, "high");
    const cJSON *low = cJSON_GetObjectItemCaseSensitive(r->object, "low");
    LH_TRY(cJSON_IsArray(high) || cJSON_IsArray(low) ? take_lists(r) : take_named(r));
    r->begun = true;
    for (size_t k = 0; k < r->spec.n_keep; k++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->object, r->spec.keep[k]);
        if (!item)
            return lh_err_set(LH_EFORMAT, "key '%.80s', which %s, is missing", r->spec.keep[k],
                              is_id(r, k) ? "tables are looked up by" : "is to be kept");
        r->kept[k] = cJSON_PrintUnformatted(item);
        if (!r->kept[k])
            return lh_err_set(LH_ENOMEM, "out of memory while keeping '%.80s'", r->spec.keep[k]);
        kept[k] = r->kept[k];
    }
    return 0;
}

int lh_state_reader_line(struct lh_state_reader *r, const struct lh_lines *from, char *line,
                         size_t n, float *high, float *low, const char **kept, bool *kept_json)
{
    drop_line(r);
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        line[--n] = '\0';
    if (n == 0)
        return LH_AGAIN;
    if (!r->begun)
        r->json = r->spec.format == LH_STATES_JSONL ||
                  (r->spec.format == LH_STATES_AUTO && line[strspn(line, " \t")] == '{');
    *kept_json = r->json;
    int rc = r->json ? json_line(r, line, n, kept) : csv_line(r, line, kept);
    if (rc < 0)
        return lh_err_prefix(rc, "%s:%zu", lh_lines_name(from), lh_lines_number(from));
    if (rc == 0) {
        memcpy(high, r->state, r->spec.dims.high * sizeof *high);
        memcpy(low, r->state + r->spec.dims.high, r->spec.dims.low * sizeof *low);
    }
    return rc;
}
