/* A delimited file held whole; records are cut in place. */
#include "common/delimited.h"

#include "common/err.h"
#include "common/mem.h"

#include <archive.h>
#include <archive_entry.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (1 << 16)

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

static int archive_failed(const struct lh_delimited *d, struct archive *a)
{
    if (archive_errno(a) == ENOMEM)
        return lh_err_set(LH_ENOMEM, "%s: out of memory", d->path);
    return lh_err_set(LH_EFORMAT, "%s: cannot be read (%s)", d->path,
                      archive_error_string(a) ? archive_error_string(a) : "damaged");
}

static int read_all(struct lh_delimited *d, struct archive *a)
{
    archive_read_support_filter_all(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    struct archive_entry *entry = NULL;
    if (archive_read_open_filename(a, d->path, READ_BYTES) != ARCHIVE_OK)
        return archive_failed(d, a);
    int rc = archive_read_next_header(a, &entry);
    size_t cap = 0;
    LH_TRY(LH_GROW(&d->text, &cap, READ_BYTES, "table"));
    if (rc == ARCHIVE_EOF) /* an empty file */
        return 0;
    if (rc != ARCHIVE_OK)
        return archive_failed(d, a);
    for (;;) {
        LH_TRY(LH_GROW(&d->text, &cap, d->n + READ_BYTES + 1, "table"));
        la_ssize_t got = archive_read_data(a, d->text + d->n, READ_BYTES);
        if (got < 0)
            return archive_failed(d, a);
        if (got == 0)
            return 0;
        d->n += (size_t)got;
    }
}

int lh_delimited_open(struct lh_delimited *d, const char *dir, const char *file,
                      const char *separator)
{
    *d = (struct lh_delimited){.quotes = strlen(separator) == 1};
    int rc = 0;
    struct archive *a = NULL;
    LH_TRY_TO(fail, find_file(d, dir, file));
    LH_TRY_TO(fail, lh_mem_strdup(&d->separator, separator));
    a = archive_read_new();
    LH_TRY_TO(fail, a ? 0 : lh_err_set(LH_ENOMEM, "%s: out of memory", d->path));
    LH_TRY_TO(fail, read_all(d, a));
    archive_read_free(a);
    d->text[d->n] = '\0';
    if (d->n >= 3 && memcmp(d->text, "\xef\xbb\xbf", 3) == 0)
        d->at = 3;
    return 0;
fail:
    if (a)
        archive_read_free(a);
    lh_delimited_close(d);
    return rc;
}

static int add_field(struct lh_delimited *d, char *text)
{
    LH_TRY(LH_GROW(&d->field, &d->cap_fields, d->n_fields + 1, "fields"));
    d->field[d->n_fields++] = text;
    return 0;
}

/* A quoted field from behind its opening quote: unfolds it in place, leaves `at` behind the closing
 * one. */
static int take_quoted(struct lh_delimited *d, size_t *lines)
{
    char *to = d->text + d->at;
    LH_TRY(add_field(d, to));
    for (;; d->at++) {
        if (d->at >= d->n)
            return lh_delimited_fail(d, "a quoted field does not end");
        char c = d->text[d->at];
        if (c == '"' && d->text[d->at + 1] != '"')
            break;
        d->at += c == '"';
        *lines += c == '\n';
        *to++ = c;
    }
    d->at++;
    *to = '\0'; /* at the closing quote or before it */
    return 0;
}

int lh_delimited_next(struct lh_delimited *d)
{
    size_t skip = strlen(d->separator), lines = 0;
    d->line += d->more_lines;
    d->more_lines = 0;
    d->n_fields = 0;
    for (d->line++; d->at < d->n; d->line++, d->at++) { /* empty lines */
        d->at += d->text[d->at] == '\r' && d->text[d->at + 1] == '\n';
        if (d->text[d->at] != '\n')
            break;
    }
    if (d->at >= d->n)
        return LH_NOTFOUND;
    for (;;) {
        if (d->quotes && d->text[d->at] == '"') {
            d->at++;
            LH_TRY(take_quoted(d, &lines));
        } else {
            LH_TRY(add_field(d, d->text + d->at));
            while (d->at < d->n && d->text[d->at] != '\n' &&
                   strncmp(d->text + d->at, d->separator, skip) != 0) {
                if (d->text[d->at] == '\0')
                    return lh_delimited_fail(d, "holds a zero byte: not a text file");
                d->at++;
            }
        }
        char *end = d->text + d->at;
        if (d->at < d->n && strncmp(end, d->separator, skip) == 0) {
            *end = '\0';
            d->at += skip;
            continue;
        }
        if (*end == '\r')
            *end++ = '\0';
        else if (end > d->text && end[-1] == '\r')
            end[-1] = '\0';
        if (*end && *end != '\n')
            return lh_delimited_fail(d, "text behind a closing quote");
        d->at = (size_t)(end - d->text) + 1;
        *end = '\0';
        break;
    }
    d->more_lines = lines;
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
    lh_mem_free(d->path);
    lh_mem_free(d->text);
    lh_mem_free(d->separator);
    lh_mem_free(d->field);
    *d = (struct lh_delimited){0};
}
