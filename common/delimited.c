/* Records as C strings, over the importer's reader and its splitting of records. */
#include "common/delimited.h"

#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const endings[] = {"", ".gz", ".xz", ".zst", ".bz2"};
#define N_ENDINGS (sizeof endings / sizeof *endings)

static int find_file(struct lh_delimited *d, const char *dir, const char *file)
{
    const char *slash = file[0] == '/' || !dir || !*dir ? "" : "/";
    for (size_t k = 0; k < N_ENDINGS; k++) {
        lh_mem_free(d->path);
        d->path = NULL;
        LH_TRY(lh_mem_printf(&d->path, "%s%s%s%s", *slash ? dir : "", slash, file, endings[k]));
        if (access(d->path, R_OK) == 0)
            return 0;
        if (errno != ENOENT)
            return lh_err_errno(errno, "%s", d->path);
    }
    return lh_err_set(LH_ENOENT, "%s%s%s: no such file, nor one ending in .gz, .xz, .zst, .bz2",
                      *slash ? dir : "", slash, file);
}

int lh_delimited_open(struct lh_delimited *d, const char *dir, const char *file,
                      const char *separator)
{
    *d = (struct lh_delimited){0};
    size_t n = strlen(separator);
    if (n == 0 || n > sizeof d->csv.separator)
        return lh_err_set(LH_ECONFIG, "%s: a separator is 1 to %zu bytes, not '%s'", file,
                          sizeof d->csv.separator, separator);
    memcpy(d->csv.separator, separator, n);
    d->csv.separator_bytes = n;
    d->csv.quote = n == 1 ? '"' : -1;
    int rc = 0;
    LH_TRY_TO(fail, find_file(d, dir, file));
    struct lh_reader_spec spec = {
        .files = (const char *const *)&d->path, .n_files = 1, .csv = d->csv};
    LH_TRY_TO(fail, lh_reader_create(&d->reader, &spec));
    return 0;
fail:
    lh_delimited_close(d);
    return rc;
}

/* The next record's spans in d->span; LH_NOTFOUND at the end of the file. */
static int next_spans(struct lh_delimited *d)
{
    for (;;) {
        if (!d->in_chunk) {
            int rc = lh_reader_next(d->reader, &d->chunk);
            if (rc != 0)
                return rc;
            lh_csv_begin(&d->cursor, &d->csv, d->chunk.data, d->chunk.n, d->chunk.line);
            d->in_chunk = true;
        }
        struct lh_csv_cursor before = d->cursor;
        enum lh_csv_result got = lh_csv_next(&d->cursor, d->span, d->cap_span, &d->n_fields);
        d->line = d->cursor.line;
        if (got == LH_CSV_OPEN_QUOTE)
            return lh_delimited_fail(d, "a quoted field does not end");
        if (got == LH_CSV_BEHIND_QUOTE)
            return lh_delimited_fail(d, "there is text behind a closing quote");
        if (got == LH_CSV_RECORD && d->n_fields <= d->cap_span)
            return 0;
        if (got == LH_CSV_RECORD) { /* once more, with room for all its fields */
            LH_TRY(LH_GROW(&d->span, &d->cap_span, d->n_fields, "fields"));
            d->cursor = before;
        } else {
            d->in_chunk = false;
        }
    }
}

int lh_delimited_next(struct lh_delimited *d)
{
    int rc = next_spans(d);
    if (rc != 0)
        return rc;
    size_t bytes = 0;
    for (size_t k = 0; k < d->n_fields; k++)
        bytes += d->span[k].n + 1;
    LH_TRY(LH_GROW(&d->text, &d->cap_text, bytes, "record"));
    LH_TRY(LH_GROW(&d->field, &d->cap_field, d->n_fields, "fields"));
    char *to = d->text;
    for (size_t k = 0; k < d->n_fields; k++) {
        const char *text;
        size_t n; /* escapes only make a field shorter */
        LH_TRY(lh_field_resolve(&d->span[k], &d->scratch, &d->cap_scratch, &text, &n));
        if (memchr(text, '\0', n))
            return lh_delimited_fail(d, "holds a zero byte: not a text file");
        memcpy(to, text, n);
        to[n] = '\0';
        d->field[k] = to;
        to += n + 1;
    }
    return 0;
}

int lh_delimited_fail(const struct lh_delimited *d, const char *fmt, ...)
{
    char text[LH_ERR_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return lh_err_set(LH_EFORMAT, "%s:%zu: %s", d->path, d->line, text);
}

void lh_delimited_close(struct lh_delimited *d)
{
    lh_reader_destroy(&d->reader);
    lh_chunk_fini(&d->chunk);
    lh_mem_free(d->path);
    lh_mem_free(d->span);
    lh_mem_free(d->field);
    lh_mem_free(d->text);
    lh_mem_free(d->scratch);
    *d = (struct lh_delimited){0};
}
