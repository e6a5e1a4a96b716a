/* From text to binary rows. A record's wanted fields are converted where they stand; the first that
 * cannot be makes the row a bad one, with a sentence. Numbers are tried before anything else is
 * asked about their text: nearly all of them are just numbers. */
#include "common/ingest.h"

#include "common/err.h"
#include "common/jsonl.h"
#include "common/mem.h"

#include <xxhash.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NONE       SIZE_MAX
#define FIELDS_MAX (1u << 20)

void lh_ingest_merge(struct lh_ingest_counts *into, const struct lh_ingest_counts *from)
{
    into->rows += from->rows;
    into->bad += from->bad;
    into->dropped += from->dropped;
    for (size_t i = 0; i < from->n_shown; i++) {
        size_t at = into->n_shown;
        while (at > 0 && into->shown[at - 1].order > from->shown[i].order)
            at--;
        if (at == LH_BAD_SHOWN)
            continue;
        size_t behind = into->n_shown - at;
        if (into->n_shown == LH_BAD_SHOWN)
            behind--;
        else
            into->n_shown++;
        memmove(&into->shown[at + 1], &into->shown[at], behind * sizeof *into->shown);
        into->shown[at] = from->shown[i];
    }
}

/* --- layouts --------------------------------------------------------------------------------- */

struct wanted {
    size_t field, column;
    size_t offset; /* of a number that is stored as it is, in the row; else NONE */
};

struct lh_layout_csv {
    size_t n_fields;
    struct wanted *wanted; /* by field */
    size_t n_wanted;
};

static bool same_name(const struct lh_field *f, const char *name)
{
    const char *p = f->text, *end = p + f->n;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return strlen(name) == (size_t)(end - p) && memcmp(p, name, (size_t)(end - p)) == 0;
}

static int missing_column(const struct lh_schema *s, const struct lh_schema_column *c,
                          const char *file, const struct lh_field *fields, size_t n)
{
    const char **names = NULL;
    char **copies = NULL;
    int rc;
    LH_TRY_TO(done, LH_NEW_ARRAY(&names, n, "column names"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&copies, n, "column names"));
    for (size_t i = 0; i < n; i++) {
        LH_TRY_TO(done, lh_mem_printf(&copies[i], "%.*s", (int)fields[i].n, fields[i].text));
        names[i] = copies[i];
    }
    const char *near = lh_yaml_nearest(c->source, names, n);
    rc = lh_err_set(LH_ECONFIG, "%s: %s has no column '%s'%s%s%s", lh_yaml_name(s->doc), file,
                    c->source, near ? "; did you mean '" : "; its header does not name it",
                    near ? near : "", near ? "'?" : "");
done:
    for (size_t i = 0; copies && i < n; i++)
        lh_mem_free(copies[i]);
    lh_mem_free(copies);
    lh_mem_free(names);
    return rc;
}

/* Whether a column is a number that is stored as it is. */
static bool is_plain(const struct lh_schema_column *c)
{
    return c->type == LH_SCHEMA_NUMBER && c->scale == 1 && c->shift == 0 && !c->log1p && !c->clip;
}

static int resolve(struct lh_layout_csv *l, const struct lh_schema *s, const char *file,
                   const struct lh_field *fields, size_t n)
{
    l->n_fields = n;
    LH_TRY(LH_NEW_ARRAY(&l->wanted, s->n_columns, "column names"));
    for (size_t c = 0; c < s->n_columns; c++) {
        size_t at = NONE;
        for (size_t i = 0; i < n; i++) {
            if (!same_name(&fields[i], s->columns[c].source))
                continue;
            if (at != NONE)
                return lh_err_set(LH_EFORMAT, "%s: two columns are called '%s'; rename one", file,
                                  s->columns[c].source);
            at = i;
        }
        if (at == NONE)
            return missing_column(s, &s->columns[c], file, fields, n);
        size_t k = l->n_wanted++;
        for (; k > 0 && l->wanted[k - 1].field > at; k--)
            l->wanted[k] = l->wanted[k - 1];
        const struct lh_schema_column *column = &s->columns[c];
        l->wanted[k] = (struct wanted){at, c, is_plain(column) ? column->offset : NONE};
    }
    return 0;
}

static int resolve_header(struct lh_layout_csv *l, const struct lh_schema *s, const char *file,
                          const char *text, size_t n, size_t line)
{
    struct lh_csv_cursor cursor;
    struct lh_field *fields = NULL;
    size_t k = 0;
    int rc = 0;
    if (n > 0 && memchr(text, '\0', n))
        return lh_err_set(
            LH_EFORMAT,
            "%s:%zu: a NUL byte in the header; a log is text in UTF-8 (iconv makes it "
            "of UTF-16)",
            file, line);
    lh_csv_begin(&cursor, &s->csv, text, n, line);
    if (n == 0 || lh_csv_next(&cursor, NULL, 0, &k) != LH_CSV_RECORD || k > FIELDS_MAX)
        return lh_err_set(LH_EFORMAT,
                          "%s:%zu: no header line can be read here; say header: false "
                          "and name the columns if there is none",
                          file, line);
    LH_TRY(LH_NEW_ARRAY(&fields, k, "column names"));
    lh_csv_begin(&cursor, &s->csv, text, n, line);
    lh_csv_next(&cursor, fields, k, &k);
    rc = resolve(l, s, file, fields, k);
    lh_mem_free(fields);
    return rc;
}

static int resolve_names(struct lh_layout_csv *l, const struct lh_schema *s, const char *file)
{
    struct lh_field *fields;
    LH_TRY(LH_NEW_ARRAY(&fields, s->n_field_names, "column names"));
    for (size_t i = 0; i < s->n_field_names; i++)
        fields[i] = (struct lh_field){.text = s->field_names[i], .n = strlen(s->field_names[i])};
    int rc = resolve(l, s, file, fields, s->n_field_names);
    lh_mem_free(fields);
    return rc;
}

int lh_ingest_layout(struct lh_layout_csv **out, const struct lh_schema *s, const char *file,
                     const char *text, size_t n, size_t line)
{
    struct lh_layout_csv *l = NULL;
    LH_TRY(LH_NEW(&l, "column names"));
    int rc = s->field_names ? resolve_names(l, s, file) : resolve_header(l, s, file, text, n, line);
    if (rc < 0)
        lh_ingest_layout_destroy(&l);
    else
        *out = l;
    return rc;
}

void lh_ingest_layout_destroy(struct lh_layout_csv **l)
{
    if (!*l)
        return;
    lh_mem_free((*l)->wanted);
    lh_mem_free(*l);
    *l = NULL;
}

/* --- parsing --------------------------------------------------------------------------------- */

enum verdict { GOOD, BAD, DROPPED, FAILED };

struct lh_ingest {
    const struct lh_schema *s;
    bool missing_numbers; /* some text that means missing is a number */
    struct lh_jsonl *json;
    struct lh_field *fields;
    size_t cap_fields;
    char *rows;
    size_t cap_rows, n_rows;
    char *scratch;
    size_t cap_scratch;
    /* of the record at hand */
    const char *file;
    size_t line;
    char reason[200];
};

int lh_ingest_create(struct lh_ingest **out, const struct lh_schema *s)
{
    struct lh_ingest *p = NULL;
    const char **names = NULL;
    int rc = 0;
    LH_TRY(LH_NEW(&p, "log parser"));
    p->s = s;
    for (size_t i = 0; i < s->n_missing; i++) {
        double v;
        p->missing_numbers |=
            lh_parse_double(s->missing[i], strlen(s->missing[i]), &v) == LH_PARSED;
    }
    if (s->format == LH_SCHEMA_JSONL) {
        LH_TRY_TO(fail, LH_GROW(&p->fields, &p->cap_fields, s->n_columns, "log fields"));
        LH_TRY_TO(fail, LH_NEW_ARRAY(&names, s->n_columns, "column names"));
        for (size_t i = 0; i < s->n_columns; i++)
            names[i] = s->columns[i].source;
        LH_TRY_TO(fail, lh_jsonl_create(&p->json, names, s->n_columns));
        lh_mem_free(names);
    }
    *out = p;
    return 0;
fail:
    lh_mem_free(names);
    lh_ingest_destroy(&p);
    return rc;
}

void lh_ingest_destroy(struct lh_ingest **pp)
{
    struct lh_ingest *p = *pp;
    if (!p)
        return;
    lh_jsonl_destroy(&p->json);
    lh_mem_free(p->fields);
    lh_mem_free(p->rows);
    lh_mem_free(p->scratch);
    lh_mem_free(p);
    *pp = NULL;
}

static enum verdict bad(struct lh_ingest *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static enum verdict bad(struct lh_ingest *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->reason, sizeof p->reason, fmt, ap);
    va_end(ap);
    return BAD;
}

static enum verdict bad_value(struct lh_ingest *p, const struct lh_schema_column *c,
                              const char *text, size_t n, const char *what)
{
    if (memchr(text, '\0', n))
        return bad(p, "column '%s': a NUL byte; is this a text file?", c->name);
    return bad(p, "column '%s': '%.*s%s' %s", c->name, (int)(n < 60 ? n : 60), text,
               n < 60 ? "" : "…", what);
}

static float transform(const struct lh_schema_column *c, double x)
{
    if (c->clip)
        x = x < c->lo ? c->lo : x > c->hi ? c->hi : x;
    if (c->log1p)
        x = log1p(x);
    return (float)((x - c->shift) * c->scale);
}

static enum verdict put_missing(struct lh_ingest *p, const struct lh_schema_column *c, char *out)
{
    float number = NAN;
    switch (c->missing) {
    case LH_MISSING_DROP:
        return DROPPED;
    case LH_MISSING_VALUE:
        number = transform(c, c->missing_value);
        break;
    case LH_MISSING_KEEP:
        break;
    case LH_MISSING_OTHER:
        memcpy(out + c->offset, &(uint32_t){LH_CATEGORY_OTHER}, 4);
        return GOOD;
    case LH_MISSING_ERROR:
        return bad(p, "column '%s': the value is missing, and the schema does not say what then",
                   c->name);
    }
    memcpy(out + c->offset, &number, 4);
    return GOOD;
}

static enum verdict put_number(struct lh_ingest *p, const struct lh_schema_column *c,
                               const char *text, size_t n, char *out)
{
    bool plain = is_plain(c);
    float x = 0;
    double wide;
    enum lh_parsed parsed = plain ? lh_parse_float(text, n, &x) : lh_parse_double(text, n, &wide);
    if ((parsed != LH_PARSED || p->missing_numbers) && lh_schema_is_missing(p->s, text, n))
        return put_missing(p, c, out);
    if (parsed == LH_PARSED_NOT)
        return bad_value(p, c, text, n, "is not a number");
    if (parsed == LH_PARSED && !plain)
        x = transform(c, wide);
    if (parsed == LH_PARSED_NOT_FINITE || !isfinite(x)) {
        if (c->missing != LH_MISSING_ERROR)
            return put_missing(p, c, out);
        return bad_value(p, c, text, n, "is not a finite number, or becomes none");
    }
    memcpy(out + c->offset, &x, 4);
    return GOOD;
}

static enum verdict put_category(struct lh_ingest *p, const struct lh_schema_column *c,
                                 const char *text, size_t n, char *out)
{
    size_t value = lh_schema_value(c, text, n);
    uint32_t index = (uint32_t)value;
    if (value == NONE) {
        if (lh_schema_is_missing(p->s, text, n))
            return put_missing(p, c, out);
        if (c->unknown == LH_MISSING_DROP)
            return DROPPED;
        if (c->unknown == LH_MISSING_ERROR || memchr(text, '\0', n))
            return bad_value(p, c, text, n, "is none of the declared values");
        index = LH_CATEGORY_OTHER;
    }
    memcpy(out + c->offset, &index, 4);
    return GOOD;
}

static enum verdict put_time(struct lh_ingest *p, const struct lh_schema_column *c,
                             const char *text, size_t n, char *out)
{
    int64_t us;
    enum lh_parsed parsed = lh_parse_time(text, n, c->unit, &us);
    if ((parsed != LH_PARSED || p->missing_numbers) && lh_schema_is_missing(p->s, text, n))
        return put_missing(p, c, out);
    if (parsed != LH_PARSED) {
        char what[80];
        snprintf(what, sizeof what, "is not a time in %s%s", lh_time_unit_names[c->unit],
                 parsed == LH_PARSED_NOT ? "" : " (years 1 to 9999)");
        return bad_value(p, c, text, n, what);
    }
    memcpy(out + c->offset, &us, 8);
    return GOOD;
}

static enum verdict put_field(struct lh_ingest *p, const struct lh_schema_column *c,
                              const struct lh_field *f, char *out)
{
    const char *text = f->text;
    size_t n = f->n;
    if (f->kind == LH_FIELD_ABSENT)
        return put_missing(p, c, out);
    if (f->kind == LH_FIELD_NESTED)
        return bad(p, "column '%s': an object or array, where one value is expected", c->name);
    if (f->escape != LH_ESCAPE_NONE &&
        lh_field_resolve(f, &p->scratch, &p->cap_scratch, &text, &n) < 0)
        return FAILED;
    switch (c->type) {
    case LH_SCHEMA_NUMBER:
        return put_number(p, c, text, n, out);
    case LH_SCHEMA_CATEGORY:
        return put_category(p, c, text, n, out);
    case LH_SCHEMA_TIME:
        return put_time(p, c, text, n, out);
    case LH_SCHEMA_ID:
        break;
    }
    if (lh_schema_is_missing(p->s, text, n))
        return put_missing(p, c, out);
    if (memchr(text, '\0', n)) /* torn text, not a user of its own */
        return bad_value(p, c, text, n, NULL);
    memcpy(out + c->offset, &(uint64_t){lh_userlog_id(text, n)}, 8);
    return GOOD;
}

static void count_bad(struct lh_ingest *p, struct lh_ingest_counts *counts, uint64_t order)
{
    counts->bad++;
    if (counts->n_shown == LH_BAD_SHOWN)
        return;
    struct lh_bad_row *b = &counts->shown[counts->n_shown++];
    b->order = order;
    snprintf(b->text, sizeof b->text, "%s:%zu: %s", p->file, p->line, p->reason);
    for (char *t = b->text; *t; t++) {
        if ((unsigned char)*t < 0x20 || *t == 0x7f)
            *t = '?';
    }
}

/* Room for one more row. */
static int next_row(struct lh_ingest *p, char **out)
{
    size_t width = p->s->row_bytes;
    LH_TRY(LH_GROW(&p->rows, &p->cap_rows, (p->n_rows + 1) * width, "parsed rows"));
    *out = p->rows + p->n_rows * width;
    return 0;
}

/* Ends a record: the row is kept, or counted as what it is. */
static int end_record(struct lh_ingest *p, enum verdict v, char *out, uint64_t order,
                      struct lh_ingest_counts *counts)
{
    counts->rows++;
    if (v == FAILED)
        return LH_ENOMEM;
    if (v == BAD)
        count_bad(p, counts, order);
    if (v == DROPPED)
        counts->dropped++;
    if (v != GOOD)
        return 0;
    struct lh_row row;
    memcpy(&row, out, sizeof row);
    row.hash = XXH3_64bits_withSeed(&row.user, sizeof row.user, p->s->split_seed);
    row.order = order;
    if (p->s->time == NONE)
        row.time = 0;
    memcpy(out, &row, sizeof row);
    p->n_rows++;
    return 0;
}

static int parse_csv(struct lh_ingest *p, const struct lh_chunk *c, struct lh_ingest_counts *counts)
{
    const struct lh_layout_csv *l = c->layout;
    struct lh_csv_cursor cursor;
    uint64_t order = c->number << 32;
    size_t n;
    LH_TRY(LH_GROW(&p->fields, &p->cap_fields, l->n_fields, "log fields"));
    lh_csv_begin(&cursor, &p->s->csv, c->data, c->n, c->line);
    for (;; order++) {
        enum lh_csv_result r = lh_csv_next(&cursor, p->fields, l->n_fields, &n);
        if (r == LH_CSV_END)
            return 0;
        char *out;
        LH_TRY(next_row(p, &out));
        p->line = cursor.line;
        enum verdict v = GOOD;
        if (r == LH_CSV_OPEN_QUOTE)
            v = bad(p, "a quote is opened and not closed");
        else if (r == LH_CSV_BEHIND_QUOTE)
            v = bad(p, "text between a closing quote and the separator");
        else if (n != l->n_fields)
            v = bad(p, "%zu fields where %zu are expected", n, l->n_fields);
        for (size_t i = 0; i < l->n_wanted && v == GOOD; i++) {
            const struct wanted *w = &l->wanted[i];
            const struct lh_field *f = &p->fields[w->field];
            /* nearly every field of nearly every log: a number and nothing else */
            if (w->offset != NONE && !p->missing_numbers &&
                lh_parse_float(f->text, f->n, (float *)(void *)(out + w->offset)) == LH_PARSED)
                continue;
            v = put_field(p, &p->s->columns[w->column], f, out);
        }
        LH_TRY(end_record(p, v, out, order, counts));
    }
}

static bool is_blank(const char *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
        n--;
    }
    return n == 0;
}

static int parse_jsonl(struct lh_ingest *p, const struct lh_chunk *c,
                       struct lh_ingest_counts *counts)
{
    const char *at = c->data, *end = at + c->n;
    uint64_t order = c->number << 32;
    p->line = c->line - 1;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at), where;
        const char *line = at;
        at = stop ? stop + 1 : end;
        p->line++;
        if (is_blank(line, n))
            continue;
        char *out;
        LH_TRY(next_row(p, &out));
        const char *wrong = lh_jsonl_parse(p->json, line, n, p->fields, &where);
        enum verdict v = wrong ? bad(p, "byte %zu: not valid JSON: %s", where + 1, wrong) : GOOD;
        for (size_t i = 0; i < p->s->n_columns && v == GOOD; i++)
            v = put_field(p, &p->s->columns[i], &p->fields[i], out);
        LH_TRY(end_record(p, v, out, order, counts));
        order++;
    }
    return 0;
}

int lh_ingest_chunk(struct lh_ingest *p, const struct lh_chunk *c, const char *file,
                    const char **rows, size_t *n, struct lh_ingest_counts *counts)
{
    p->n_rows = 0;
    p->file = file;
    LH_TRY(p->s->format == LH_SCHEMA_JSONL ? parse_jsonl(p, c, counts) : parse_csv(p, c, counts));
    *rows = p->rows;
    *n = p->n_rows;
    return 0;
}
