/* A field of a log's record, as a span of the record's text. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_field_kind {
    LH_FIELD_ABSENT, /* JSON: no such key, or null */
    LH_FIELD_PLAIN,  /* as it stands; JSON: a number, true, false */
    LH_FIELD_QUOTED, /* was in quotes, which are not part of the span */
    LH_FIELD_NESTED  /* JSON: an object or an array */
};

enum lh_field_escape { LH_ESCAPE_NONE, LH_ESCAPE_CSV, LH_ESCAPE_JSON };

struct lh_field {
    const char *text;
    size_t n;
    uint8_t kind, escape; /* escape: the span holds "" or backslashes that stand for something */
    char quote;           /* of LH_ESCAPE_CSV */
};

/* What the field says, escapes resolved: the span itself, or *scratch (grown as needed, freed by
 * the caller with lh_mem_free). A lone surrogate of JSON becomes U+FFFD. */
int lh_field_resolve(const struct lh_field *f, char **scratch, size_t *cap, const char **text,
                     size_t *n);
