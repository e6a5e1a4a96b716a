/* Names with a number at the end, written as a range: state_0..state_90, 1..28, w_00..w_11. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define LH_RANGE_MAX 65536 /* members */

struct lh_range {
    const char *prefix; /* into the text */
    int prefix_bytes;
    int width; /* digits at least: of a first number with a leading zero */
    unsigned long first, last;
};

/* Whether `text` is a range; the prefix may be left out behind the dots (state_0..90). */
bool lh_range_parse(const char *text, struct lh_range *out);
size_t lh_range_count(const struct lh_range *r);
/* Name of member i, from 0; the caller frees. */
int lh_range_name(const struct lh_range *r, size_t i, char **out);
