/* Splitting CSV lines in place. */
#include "cluster/fields.h"

#include "common/err.h"
#include "common/mem.h"

#include <math.h>
#include <stdlib.h>

/* Unquotes the field whose opening quote is at `from`; returns its first byte behind the closing
 * one, or NULL if there is none. */
static char *unquote(char *from)
{
    char *to = from;
    for (char *at = from + 1; *at; at++) {
        if (*at != '"') {
            *to++ = *at;
        } else if (at[1] == '"') {
            *to++ = '"';
            at++;
        } else {
            char *behind = at + 1; /* `to` is at most at */
            *to = '\0';
            return behind;
        }
    }
    return NULL;
}

int lh_fields_split(struct lh_fields *f, char *line, char separator)
{
    f->n = 0;
    for (char *at = line;;) {
        LH_TRY(LH_GROW(&f->field, &f->cap, f->n + 1, "fields"));
        f->field[f->n++] = at;
        if (*at == '"') {
            at = unquote(at);
            if (!at)
                return lh_err_set(LH_EFORMAT, "field %zu: the quote is not closed", f->n);
            if (*at && *at != separator)
                return lh_err_set(LH_EFORMAT, "field %zu: '%c' behind the closing quote", f->n,
                                  *at);
        }
        while (*at && *at != separator)
            at++;
        if (!*at)
            return 0;
        *at++ = '\0';
    }
}

void lh_fields_fini(struct lh_fields *f)
{
    lh_mem_free(f->field);
    *f = (struct lh_fields){0};
}

int lh_fields_number(const char *text, float *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text)
        return -1;
    while (*end == ' ' || *end == '\t')
        end++;
    if (*end || !isfinite((float)v))
        return -1;
    *out = (float)v;
    return 0;
}
