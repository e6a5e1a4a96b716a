/* Text to numbers and times, fast and exact. Nothing here allocates, knows a locale, or reads
 * outside [text, text + n). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_parsed {
    LH_PARSED,           /* *out is set */
    LH_PARSED_NOT,       /* no number (no time) */
    LH_PARSED_NOT_FINITE /* NaN, an infinity, or too large for the type */
};

/* A decimal number: blanks, sign, digits with at most one point, an exponent, blanks. The result is
 * the nearest double (float) to what is written, ties to even. true and false are 1 and 0. */
enum lh_parsed lh_parse_double(const char *text, size_t n, double *out);
enum lh_parsed lh_parse_float(const char *text, size_t n, float *out);

enum lh_time_unit {
    LH_TIME_S,
    LH_TIME_MS,
    LH_TIME_US,
    LH_TIME_NS,
    LH_TIME_MINUTE,
    LH_TIME_HOUR,
    LH_TIME_DAY,
    LH_TIME_ISO8601, /* 2017-10-01T02:37:03.5+02:00; "20171001"; a blank for the T; no zone: UTC */
    LH_TIME_UNITS
};
extern const char *const lh_time_unit_names[LH_TIME_UNITS]; /* "s", "ms", …, "iso8601" */

/* Microseconds since 1970-01-01 UTC, fractions of them cut off downwards. NOT_FINITE for times
 * outside the years 1 to 9999. */
enum lh_parsed lh_parse_time(const char *text, size_t n, enum lh_time_unit unit, int64_t *out);

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back. */
int64_t lh_parse_days_from_date(int64_t year, unsigned month, unsigned day);
void lh_parse_date_from_days(int64_t days, int64_t *year, unsigned *month, unsigned *day);
