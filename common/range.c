/* Ranges of names. */
#include "common/range.h"

#include "common/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

bool lh_range_parse(const char *text, struct lh_range *out)
{
    const char *dots = strstr(text, "..");
    if (!dots)
        return false;
    const char *digits = dots;
    while (digits > text && isdigit((unsigned char)digits[-1]))
        digits--;
    size_t prefix = (size_t)(digits - text), width = (size_t)(dots - digits);
    const char *second = dots + 2;
    if (strncmp(second, text, prefix) == 0)
        second += prefix;
    if (width == 0 || width > 9 || !*second || strlen(second) > 9 ||
        strspn(second, DIGITS) != strlen(second))
        return false;
    *out = (struct lh_range){.prefix = text,
                             .prefix_bytes = (int)prefix,
                             .width = *digits == '0' ? (int)width : 1,
                             .first = strtoul(digits, NULL, 10),
                             .last = strtoul(second, NULL, 10)};
    return out->last >= out->first && out->last - out->first < LH_RANGE_MAX;
}

size_t lh_range_count(const struct lh_range *r)
{
    return r->last - r->first + 1;
}

int lh_range_name(const struct lh_range *r, size_t i, char **out)
{
    return lh_mem_printf(out, "%.*s%0*lu", r->prefix_bytes, r->prefix, r->width, r->first + i);
}
