/* The fields of one CSV line. */
#pragma once

#include <stddef.h>

struct lh_fields { /* all zero is an empty one; used again line after line */
    char **field;  /* [n], into the line that was split */
    size_t n, cap;
};

/* Splits `line` in place: fields in double quotes may hold the separator, and "" for a quote.
 * Errors: LH_EFORMAT (its sentence does not know file and line), LH_ENOMEM. */
int lh_fields_split(struct lh_fields *f, char *line, char separator);
void lh_fields_fini(struct lh_fields *f);

/* 0 if `text`, blanks around it aside, is a finite number; else -1. */
int lh_fields_number(const char *text, float *out);
