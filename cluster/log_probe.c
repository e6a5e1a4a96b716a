/* Looking at a log. The separator is the one that cuts the first lines into the same number of
 * fields, the more the better; the first line is a header if it names what lies below it. */
#include "cluster/log_probe.h"

#include "cluster/cli.h"
#include "common/err.h"
#include "common/field.h"
#include "common/mem.h"
#include "common/reader.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#define CHUNK       (1u << 20) /* bytes */
#define LINES_TRIED 200        /* to find the separator */
#define COLUMNS_MAX 4096
#define VALUE_MAX   64 /* bytes of a value that is kept */

struct prober {
    struct lh_log_probe *p;
    const char *file; /* the first */
    size_t cap;
    struct lh_field fields[COLUMNS_MAX], first[COLUMNS_MAX];
};

bool lh_log_probe_missing(const char *text, size_t n)
{
    static const char *const words[] = {"",     "NA",   "N/A",  "nan", "NaN",
                                        "null", "NULL", "None", "\\N"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == n && memcmp(words[i], text, n) == 0)
            return true;
    return false;
}

/* --- columns ------------------------------------------------------------------------------- */

static int add_column(struct prober *b, const char *name, size_t n)
{
    struct lh_log_probe *p = b->p;
    if (p->n_columns == COLUMNS_MAX)
        return lh_err_set(LH_EFORMAT,
                          "%s: more than %d columns; longhaul init looks at logs with fewer",
                          b->file, COLUMNS_MAX);
    LH_TRY(LH_GROW(&p->columns, &b->cap, p->n_columns + 1, "columns"));
    struct lh_probe_column *c = &p->columns[p->n_columns];
    *c = (struct lh_probe_column){
        .ascending = true, .last = -INFINITY, .lo = INFINITY, .hi = -INFINITY};
    LH_TRY(lh_mem_printf(&c->name, "%.*s", (int)n, name));
    p->n_columns++;
    return 0;
}

static int remember(struct lh_probe_column *c, const char *text, size_t n)
{
    if (c->many)
        return 0;
    for (size_t i = 0; i < c->n_values; i++) {
        if (strlen(c->values[i].text) == n && memcmp(c->values[i].text, text, n) == 0) {
            c->values[i].count++;
            return 0;
        }
    }
    if (c->n_values == LH_PROBE_VALUES || n > VALUE_MAX) {
        c->many = true;
        return 0;
    }
    if (!c->values)
        LH_TRY(LH_NEW_ARRAY(&c->values, LH_PROBE_VALUES, "values"));
    LH_TRY(lh_mem_printf(&c->values[c->n_values].text, "%.*s", (int)n, text));
    c->values[c->n_values++].count = 1;
    return 0;
}

static int look(struct lh_probe_column *c, const char *text, size_t n)
{
    if (lh_log_probe_missing(text, n)) {
        c->missing++;
        return 0;
    }
    c->present++;
    double x;
    int64_t t;
    if (lh_parse_double(text, n, &x) == LH_PARSED) {
        c->numbers++;
        c->whole += x == floor(x);
        c->ascending = c->ascending && x >= c->last;
        c->last = x;
        c->lo = fmin(c->lo, x);
        c->hi = fmax(c->hi, x);
    } else if (lh_parse_time(text, n, LH_TIME_ISO8601, &t) == LH_PARSED) {
        c->iso++;
    }
    return remember(c, text, n);
}

/* --- delimited text ------------------------------------------------------------------------ */

/* How well `csv` cuts the text: fields a line if nearly all lines agree, else 0. */
static size_t fields_under(struct prober *b, const struct lh_csv *csv, const char *text, size_t n)
{
    struct lh_csv_cursor c;
    size_t fields, lines = 0, agree = 0, usual = 0;
    lh_csv_begin(&c, csv, text, n, 1);
    while (lines < LINES_TRIED) {
        enum lh_csv_result got = lh_csv_next(&c, b->fields, COLUMNS_MAX, &fields);
        if (got == LH_CSV_END)
            break;
        if (lines++ == 0)
            usual = got == LH_CSV_RECORD ? fields : 0;
        agree += got == LH_CSV_RECORD && fields == usual;
    }
    return lines > 0 && 20 * agree >= 19 * lines ? usual : 0;
}

static int find_separator(struct prober *b, const char *text, size_t n, const char *file)
{
    static const char *const separators[] = {",", "\t", ";", "|", "::", " "};
    size_t best = 1;
    for (size_t i = 0; i < sizeof separators / sizeof *separators; i++) {
        struct lh_csv csv = {.separator_bytes = strlen(separators[i])};
        memcpy(csv.separator, separators[i], csv.separator_bytes);
        csv.quote = csv.separator_bytes == 1 ? '"' : -1;
        size_t fields = fields_under(b, &csv, text, n);
        if (fields > best) {
            best = fields;
            b->p->csv = csv;
        }
    }
    if (best == 1)
        return lh_err_set(
            LH_EFORMAT,
            "%s: no separator cuts its lines into the same number of fields, and it is "
            "no JSON lines; is this a log?",
            file);
    return 0;
}

static bool is_number(const struct lh_field *f)
{
    double x;
    return f->n > 0 && lh_parse_double(f->text, f->n, &x) == LH_PARSED;
}

static bool is_name(const struct lh_field *f)
{
    int64_t t;
    return f->n > 0 && f->n <= 200 && !is_number(f) && !lh_log_probe_missing(f->text, f->n) &&
           lh_parse_time(f->text, f->n, LH_TIME_ISO8601, &t) != LH_PARSED;
}

static bool same_text(const struct lh_field *a, const struct lh_field *b)
{
    return a->n == b->n && memcmp(a->text, b->text, a->n) == 0;
}

/* The first line names columns if all its fields are names and differ; and either one stands above
 * a number, or none comes again below itself. */
static bool names_columns(struct prober *b, const char *text, size_t n)
{
    struct lh_csv_cursor c;
    size_t k, m;
    lh_csv_begin(&c, &b->p->csv, text, n, 1);
    if (lh_csv_next(&c, b->first, COLUMNS_MAX, &k) != LH_CSV_RECORD)
        return false;
    k = k < COLUMNS_MAX ? k : COLUMNS_MAX;
    for (size_t i = 0; i < k; i++) {
        bool index = i == 0 && b->first[i].n == 0; /* a column without a name: a row's number */
        if (!index && !is_name(&b->first[i]))
            return false;
        for (size_t j = 0; j < i; j++)
            if (same_text(&b->first[i], &b->first[j]))
                return false;
    }
    for (size_t line = 0; line < LINES_TRIED; line++) {
        if (lh_csv_next(&c, b->fields, COLUMNS_MAX, &m) != LH_CSV_RECORD)
            return true;
        for (size_t i = 0; i < k && i < m; i++) {
            if (is_number(&b->fields[i]))
                return true;
            if (same_text(&b->fields[i], &b->first[i]))
                return false;
        }
    }
    return true;
}

/* Columns named by a header record, or column_1, column_2, … where there is none. */
static int name_columns(struct prober *b, const char *text, size_t n)
{
    struct lh_csv_cursor c;
    size_t k = 0;
    lh_csv_begin(&c, &b->p->csv, text, n, 1);
    lh_csv_next(&c, b->fields, COLUMNS_MAX, &k);
    for (size_t i = 0; i < k; i++) {
        if (b->p->header && i < COLUMNS_MAX && b->fields[i].n > 0) {
            LH_TRY(add_column(b, b->fields[i].text, b->fields[i].n));
        } else {
            char name[32];
            LH_TRY(add_column(b, name, (size_t)snprintf(name, sizeof name, "column_%zu", i + 1)));
        }
    }
    return 0;
}

static int look_at_records(struct prober *b, const struct lh_chunk *chunk)
{
    struct lh_csv_cursor c;
    size_t n;
    enum lh_csv_result got;
    struct lh_log_probe *p = b->p;
    lh_csv_begin(&c, &p->csv, chunk->data, chunk->n, chunk->line);
    while ((got = lh_csv_next(&c, b->fields, COLUMNS_MAX, &n)) != LH_CSV_END) {
        if (got != LH_CSV_RECORD || n != p->n_columns) {
            p->odd_rows++;
            continue;
        }
        p->rows++;
        for (size_t i = 0; i < n; i++)
            LH_TRY(look(&p->columns[i], b->fields[i].text, b->fields[i].n));
    }
    return 0;
}

/* --- JSON lines ------------------------------------------------------------------------------ */

static struct lh_probe_column *find_column(struct prober *b, const char *name)
{
    for (size_t i = 0; i < b->p->n_columns; i++)
        if (strcmp(b->p->columns[i].name, name) == 0)
            return &b->p->columns[i];
    return NULL;
}

/* One value of an object, or those inside it: "user.id", "state.0". */
static int look_at_value(struct prober *b, const char *name, const cJSON *item, int depth)
{
    if (cJSON_IsObject(item) || cJSON_IsArray(item)) {
        size_t i = 0;
        if (depth > 4)
            return 0;
        for (const cJSON *c = item->child; c; c = c->next, i++) {
            char inner[256];
            if (c->string)
                snprintf(inner, sizeof inner, "%s.%s", name, c->string);
            else
                snprintf(inner, sizeof inner, "%s.%zu", name, i);
            LH_TRY(look_at_value(b, inner, c, depth + 1));
        }
        return 0;
    }
    struct lh_probe_column *c = find_column(b, name);
    if (!c) {
        LH_TRY(add_column(b, name, strlen(name)));
        c = &b->p->columns[b->p->n_columns - 1];
        c->missing = b->p->rows; /* of the rows before */
    }
    if (cJSON_IsString(item))
        return look(c, item->valuestring, strlen(item->valuestring));
    char text[40] = "";
    if (cJSON_IsNumber(item))
        snprintf(text, sizeof text, "%.17g", item->valuedouble);
    else if (cJSON_IsBool(item))
        snprintf(text, sizeof text, "%d", cJSON_IsTrue(item));
    return look(c, text, strlen(text));
}

static int look_at_object(struct prober *b, const char *text, size_t n)
{
    struct lh_log_probe *p = b->p;
    cJSON *object = cJSON_ParseWithLength(text, n);
    int rc = 0;
    if (!cJSON_IsObject(object)) {
        p->odd_rows++;
    } else {
        for (const cJSON *c = object->child; c && rc == 0; c = c->next)
            rc = look_at_value(b, c->string, c, 0);
        p->rows++;
        for (size_t i = 0; i < p->n_columns; i++) {
            struct lh_probe_column *c = &p->columns[i];
            if (c->present + c->missing < p->rows)
                c->missing++; /* the key was not there */
        }
    }
    cJSON_Delete(object);
    return rc;
}

static bool is_blank(const char *text, size_t n)
{
    while (n > 0 && (*text == ' ' || *text == '\t' || *text == '\r')) {
        text++;
        n--;
    }
    return n == 0;
}

static int look_at_lines(struct prober *b, const struct lh_chunk *chunk)
{
    for (size_t at = 0; at < chunk->n;) {
        const char *end = memchr(chunk->data + at, '\n', chunk->n - at);
        size_t n = end ? (size_t)(end - chunk->data) - at : chunk->n - at;
        if (!is_blank(chunk->data + at, n))
            LH_TRY(look_at_object(b, chunk->data + at, n));
        at += n + 1;
    }
    return 0;
}

/* --- the whole ----------------------------------------------------------------------------- */

/* Finds out the form from the first chunk of lines. */
static int find_form(struct prober *b, const char *const *files, size_t n_files)
{
    const struct lh_reader_spec spec = {
        .files = files, .n_files = n_files, .lines = true, .chunk_bytes = CHUNK};
    struct lh_reader *r = NULL;
    struct lh_chunk c = {0};
    LH_TRY(lh_reader_create(&r, &spec));
    int rc = lh_reader_next(r, &c);
    if (rc == LH_NOTFOUND)
        rc = lh_err_set(LH_EFORMAT, "%s: is empty", files[0]);
    if (rc == 0) {
        size_t at = 0;
        while (at < c.n && c.data[at] && strchr(" \t\r\n", c.data[at]))
            at++;
        b->p->jsonl = at < c.n && c.data[at] == '{';
        if (memchr(c.data, '\0', c.n))
            rc = lh_err_set(LH_EFORMAT,
                            "%s: holds a NUL byte; a log is text in UTF-8 (iconv makes it of "
                            "UTF-16)",
                            files[0]);
        else if (!b->p->jsonl)
            rc = find_separator(b, c.data, c.n, files[0]);
        if (rc == 0 && !b->p->jsonl) {
            b->p->header = names_columns(b, c.data, c.n);
            rc = name_columns(b, c.data, c.n);
        }
    }
    lh_chunk_fini(&c);
    lh_reader_destroy(&r);
    return rc;
}

static int look_at_all(struct prober *b, const char *const *files, size_t n_files,
                       uint64_t max_bytes)
{
    const struct lh_reader_spec spec = {.files = files,
                                        .n_files = n_files,
                                        .lines = b->p->jsonl,
                                        .csv = b->p->csv,
                                        .header = b->p->header,
                                        .chunk_bytes = CHUNK};
    struct lh_reader *r = NULL;
    struct lh_chunk c = {0};
    uint64_t seen = 0;
    int rc;
    LH_TRY(lh_reader_create(&r, &spec));
    while ((rc = lh_reader_next(r, &c)) == 0 && seen < max_bytes) {
        seen += c.n;
        LH_TRY_TO(done, b->p->jsonl ? look_at_lines(b, &c) : look_at_records(b, &c));
        if (lh_cli_interrupted()) {
            rc = lh_err_set(LH_ECANCELED, "init: interrupted; nothing was written");
            goto done;
        }
    }
    b->p->whole = rc == LH_NOTFOUND;
    rc = rc == LH_NOTFOUND ? 0 : rc;
    if (rc == 0 && b->p->rows == 0)
        rc = lh_err_set(LH_EFORMAT, "%s: not one row could be read", files[0]);
done:
    lh_chunk_fini(&c);
    lh_reader_destroy(&r);
    return rc;
}

int lh_log_probe_run(struct lh_log_probe *out, const char *const *files, size_t n_files,
                     uint64_t max_bytes)
{
    struct prober *b = NULL;
    *out = (struct lh_log_probe){0};
    LH_TRY(LH_NEW(&b, "look at a log"));
    b->p = out;
    b->file = files[0];
    int rc = find_form(b, files, n_files);
    if (rc == 0)
        rc = look_at_all(b, files, n_files, max_bytes);
    if (rc < 0)
        lh_log_probe_fini(out);
    lh_mem_free(b);
    return rc;
}

void lh_log_probe_fini(struct lh_log_probe *p)
{
    for (size_t i = 0; i < p->n_columns; i++) {
        struct lh_probe_column *c = &p->columns[i];
        for (size_t k = 0; k < c->n_values; k++)
            lh_mem_free(c->values[k].text);
        lh_mem_free(c->values);
        lh_mem_free(c->name);
    }
    lh_mem_free(p->columns);
    *p = (struct lh_log_probe){0};
}
