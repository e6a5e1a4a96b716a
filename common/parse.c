/* Text to numbers. A number is read as an integer of at most 19 digits and a power of ten. As a
 * double it is exact where both are small; as a float one multiplication is enough nearly always,
 * because a float's rounding is decided by the first 24 of a double's 53 bits, unless the rest lies
 * within the error of that multiplication around one half. What is left goes to the C library,
 * which is slow and right. */
#include "common/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DIGITS_MAX 19  /* 10^19 < 2^64 */
#define SLOW_MAX   400 /* longest text that goes to the C library */

static const double power_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { POWER_MAX = 22 }; /* the last that a double holds exactly */

/* Nearest doubles to 10^-k: a product with one is off by a place more than a quotient, and several
 * times as fast. */
static const double power_of_tenth[] = {1e0,   1e-1,  1e-2,  1e-3,  1e-4,  1e-5,  1e-6,  1e-7,
                                        1e-8,  1e-9,  1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15,
                                        1e-16, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21, 1e-22};

struct decimal {
    uint64_t m; /* value: m * 10^e */
    int e;
    bool negative, cut; /* cut: digits beyond m were dropped */
};

static bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Eight digits at once: the value, if all eight are digits. */
static inline bool eight_digits(const char *p, uint32_t *value)
{
    uint64_t x;
    memcpy(&x, p, 8);
    if (((x & 0xf0f0f0f0f0f0f0f0) | ((x + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) >> 4) !=
        0x3333333333333333)
        return false;
    x -= 0x3030303030303030;
    x = x * 10 + (x >> 8); /* pairs */
    x = ((x & 0x000000ff000000ff) * 0x000f424000000064 +
         (x >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
        32;
    *value = (uint32_t)x;
    return true;
}

/* Digits from p on into *d; returns where they end. `scale` is -1 behind the point. */
static inline __attribute__((always_inline)) const char *take_digits(const char *p, const char *end,
                                                                     struct decimal *d, int *digits,
                                                                     int scale)
{
    uint32_t eight;
    for (; d->m == 0 && p < end && *p == '0'; p++) /* none of the 19 are spent on them */
        d->e += scale;
    while (end - p >= 8 && *digits <= DIGITS_MAX - 8 && eight_digits(p, &eight)) {
        d->m = d->m * 100000000 + eight;
        d->e += 8 * scale;
        *digits += 8;
        p += 8;
    }
    for (; p < end && is_digit(*p); p++) {
        if (*digits < DIGITS_MAX) {
            d->m = d->m * 10 + (uint64_t)(*p - '0');
            d->e += scale;
            *digits += d->m != 0;
        } else {
            d->cut |= *p != '0';
            d->e += 1 + scale;
        }
    }
    return p;
}

static bool take_exponent(const char *p, const char *end, struct decimal *d)
{
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    if (p == end)
        return false;
    int e = 0;
    for (; p < end && is_digit(*p); p++)
        e = e < 100000 ? e * 10 + (*p - '0') : e;
    d->e += negative ? -e : e;
    return p == end;
}

static inline void trim(const char **p, const char **end)
{
    while (*p < *end && (**p == ' ' || **p == '\t'))
        (*p)++;
    while (*end > *p && ((*end)[-1] == ' ' || (*end)[-1] == '\t'))
        (*end)--;
}

/* Inlined into its callers: a call and a struct in memory cost as much as the digits. */
static inline __attribute__((always_inline)) bool scan(const char *p, const char *end,
                                                       struct decimal *d)
{
    *d = (struct decimal){.m = 0};
    if (p < end && (*p == '-' || *p == '+'))
        d->negative = *p++ == '-';
    int digits = 0;
    const char *start = p;
    p = take_digits(p, end, d, &digits, 0);
    bool any = p > start;
    if (p < end && *p == '.') {
        start = ++p;
        p = take_digits(p, end, d, &digits, -1);
        any |= p > start;
    }
    if (!any)
        return false;
    if (p == end)
        return true;
    return (*p == 'e' || *p == 'E') && take_exponent(p + 1, end, d);
}

static bool is_word(const char *p, const char *end, const char *word)
{
    return (size_t)(end - p) == strlen(word) && strncasecmp(p, word, (size_t)(end - p)) == 0;
}

static enum lh_parsed parse_word(const char *p, const char *end, double *out)
{
    if (is_word(p, end, "true") || is_word(p, end, "false")) {
        *out = (*p | 0x20) == 't';
        return LH_PARSED;
    }
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    return is_word(p, end, "nan") || is_word(p, end, "inf") || is_word(p, end, "infinity")
               ? LH_PARSED_NOT_FINITE
               : LH_PARSED_NOT;
}

/* The text is a number by `scan`. */
static enum lh_parsed parse_slowly(const char *p, const char *end, double *d, float *f)
{
    char text[SLOW_MAX + 1];
    size_t n = (size_t)(end - p);
    if (n > SLOW_MAX)
        return LH_PARSED_NOT;
    memcpy(text, p, n);
    text[n] = '\0';
    if (d)
        *d = strtod(text, NULL);
    else
        *f = strtof(text, NULL);
    return isfinite(d ? *d : (double)*f) ? LH_PARSED : LH_PARSED_NOT_FINITE;
}

enum lh_parsed lh_parse_double(const char *text, size_t n, double *out)
{
    const char *p = text, *end = text + n;
    struct decimal d;
    trim(&p, &end);
    if (!scan(p, end, &d))
        return parse_word(p, end, out);
    if (d.m == 0 && !d.cut) {
        *out = d.negative ? -0.0 : 0.0;
        return LH_PARSED;
    }
    if (d.cut || d.m > UINT64_C(1) << 53 || d.e < -POWER_MAX || d.e > POWER_MAX)
        return parse_slowly(p, end, out, NULL);
    double x = (double)d.m;
    x = d.e < 0 ? x / power_of_ten[-d.e] : x * power_of_ten[d.e];
    *out = d.negative ? -x : x;
    return LH_PARSED;
}

/* m * 10^e as the nearest float, unless the answer is in doubt. */
static inline bool to_float(uint64_t m, int e, bool negative, float *out)
{
    double x = (double)m;
    x *= e < 0 ? power_of_tenth[-e] : power_of_ten[e];
    /* x is off by less than 8 of its last places: three roundings, and digits beyond the 19th */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t beyond = (bits & 0x1fffffff) - (0x10000000 - 8);
    if (beyond <= 16 || x < 0x1p-125 || x > 0x1p127)
        return false;
    *out = (float)(negative ? -x : x);
    return true;
}

/* The last r of the 8 bytes at p, 0 <= r < 8, as digits. */
static inline bool last_digits(const char *p, size_t r, uint32_t *value)
{
    uint64_t x, others = ~UINT64_C(0) >> 8 * r;
    memcpy(&x, p, 8);
    x = (x & ~others) | (0x3030303030303030 & others);
    char digits[8];
    memcpy(digits, &x, 8);
    return eight_digits(digits, value);
}

/* What programs write when they print a number whole: "-1.2345678901234567", one digit, a point and
 * 8 to 18 more. No loops, so nothing for the processor to guess wrong. False: ask the long way. */
static inline bool common_float(const char *p, const char *end, float *out)
{
    static const uint64_t ten[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
    bool negative = end - p > 0 && *p == '-';
    p += negative;
    size_t digits = (size_t)(end - p) - 2;
    uint32_t high, low = 0, rest = 0;
    if (end - p < 10 || digits > 18 || p[1] != '.' || !is_digit(*p) || !eight_digits(p + 2, &high))
        return false;
    uint64_t m = (uint64_t)(*p - '0') * 100000000 + high;
    bool sound = true;
    size_t r = digits - 8;
    if (r >= 8) {
        sound = eight_digits(p + 10, &low);
        m = m * 100000000 + low;
        r -= 8;
    }
    sound &= last_digits(end - 8, r, &rest);
    m = m * ten[r] + rest;
    return sound && m != 0 && to_float(m, -(int)digits, negative, out);
}

enum lh_parsed lh_parse_float(const char *text, size_t n, float *out)
{
    const char *p = text, *end = text + n;
    struct decimal d;
    if (common_float(p, end, out))
        return LH_PARSED;
    trim(&p, &end);
    if (!scan(p, end, &d)) {
        double word;
        enum lh_parsed parsed = parse_word(p, end, &word);
        if (parsed == LH_PARSED)
            *out = (float)word;
        return parsed;
    }
    if (d.m == 0 && !d.cut) {
        *out = d.negative ? -0.0f : 0.0f;
        return LH_PARSED;
    }
    if (d.e < -POWER_MAX || d.e > POWER_MAX)
        return parse_slowly(p, end, NULL, out);
    return to_float(d.m, d.e, d.negative, out) ? LH_PARSED : parse_slowly(p, end, NULL, out);
}

/* --- times ----------------------------------------------------------------------------------- */

const char *const lh_time_unit_names[LH_TIME_UNITS] = {"s",      "ms",   "us",  "ns",
                                                       "minute", "hour", "day", "iso8601"};

#define SECOND_US INT64_C(1000000)
#define DAY_US    (86400 * SECOND_US)
#define FIRST_US  (-719162 * DAY_US)     /* 0001-01-01 */
#define LAST_US   (2932897 * DAY_US - 1) /* 9999-12-31 */

/* m * 10^e * factor microseconds, rounded down. */
static enum lh_parsed to_microseconds(const struct decimal *d, uint64_t factor, int e, int64_t *out)
{
    e += d->e;
    __extension__ unsigned __int128 us = d->m;
    us *= factor; /* < 2^64 * 2^37 */
    bool cut = d->cut;
    for (; e > 0 && us != 0; e--) {
        if (us >> 90)
            return LH_PARSED_NOT_FINITE;
        us *= 10;
    }
    for (; e < 0 && us != 0; e++) {
        cut |= us % 10 != 0;
        us /= 10;
    }
    if (us > (uint64_t)INT64_MAX - 1)
        return LH_PARSED_NOT_FINITE;
    int64_t t = d->negative ? -(int64_t)us - (cut ? 1 : 0) : (int64_t)us;
    if (t < FIRST_US || t > LAST_US)
        return LH_PARSED_NOT_FINITE;
    *out = t;
    return LH_PARSED;
}

int64_t lh_parse_days_from_date(int64_t year, unsigned month, unsigned day)
{
    /* years that begin in March, in eras of 400 */
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void lh_parse_date_from_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (unsigned)(of_year - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = y + era * 400 + (*month <= 2);
}

/* Exactly `n` digits. */
static bool take_fixed(const char **p, const char *end, int n, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < n; i++, (*p)++) {
        if (*p == end || !is_digit(**p))
            return false;
        *out = *out * 10 + (unsigned)(**p - '0');
    }
    return true;
}

static bool take_char(const char **p, const char *end, char c)
{
    if (*p == end || **p != c)
        return false;
    (*p)++;
    return true;
}

static bool take_date(const char **p, const char *end, int64_t *days)
{
    static const unsigned char length[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned year, month, day;
    if (!take_fixed(p, end, 4, &year))
        return false;
    bool dashes = take_char(p, end, '-');
    if (!take_fixed(p, end, 2, &month) || (dashes && !take_char(p, end, '-')) ||
        !take_fixed(p, end, 2, &day))
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (year == 0 || month == 0 || month > 12 || day == 0 || day > length[month - 1] ||
        (month == 2 && day == 29 && !leap))
        return false;
    *days = lh_parse_days_from_date(year, month, day);
    return true;
}

static bool take_clock(const char **p, const char *end, int64_t *us)
{
    unsigned hour, minute, second = 0;
    if (!take_fixed(p, end, 2, &hour))
        return false;
    bool colons = take_char(p, end, ':');
    if (!take_fixed(p, end, 2, &minute))
        return false;
    int64_t fraction = 0;
    if (colons ? take_char(p, end, ':') : (*p < end && is_digit(**p))) {
        if (!take_fixed(p, end, 2, &second))
            return false;
        if (take_char(p, end, '.') || take_char(p, end, ',')) {
            int64_t unit = 100000;
            if (*p == end || !is_digit(**p))
                return false;
            for (; *p < end && is_digit(**p); (*p)++, unit /= 10)
                fraction += (**p - '0') * unit;
        }
    }
    if (hour > 24 || minute > 59 || second > 60 || (hour == 24 && (minute || second)))
        return false;
    *us = ((int64_t)hour * 3600 + minute * 60 + second) * SECOND_US + fraction;
    return true;
}

static bool take_zone(const char **p, const char *end, int64_t *us)
{
    if (take_char(p, end, 'Z') || take_char(p, end, 'z'))
        return true;
    bool west = take_char(p, end, '-');
    if (!west && !take_char(p, end, '+'))
        return true;
    unsigned hour, minute = 0;
    if (!take_fixed(p, end, 2, &hour))
        return false;
    if (*p < end) {
        take_char(p, end, ':');
        if (!take_fixed(p, end, 2, &minute))
            return false;
    }
    if (hour > 23 || minute > 59)
        return false;
    int64_t offset = ((int64_t)hour * 3600 + minute * 60) * SECOND_US;
    *us += west ? offset : -offset;
    return true;
}

static enum lh_parsed parse_iso(const char *p, const char *end, int64_t *out)
{
    int64_t days, us = 0;
    if (!take_date(&p, end, &days))
        return LH_PARSED_NOT;
    if (p < end) {
        if (!take_char(&p, end, 'T') && !take_char(&p, end, ' ') && !take_char(&p, end, 't'))
            return LH_PARSED_NOT;
        if (!take_clock(&p, end, &us))
            return LH_PARSED_NOT;
        while (p < end && *p == ' ')
            p++;
        if (!take_zone(&p, end, &us) || p != end)
            return LH_PARSED_NOT;
    }
    *out = days * DAY_US + us;
    return *out < FIRST_US || *out > LAST_US ? LH_PARSED_NOT_FINITE : LH_PARSED;
}

enum lh_parsed lh_parse_time(const char *text, size_t n, enum lh_time_unit unit, int64_t *out)
{
    static const struct {
        uint64_t factor;
        int e;
    } scale[] = {
        [LH_TIME_S] = {1, 6},       [LH_TIME_MS] = {1, 3},      [LH_TIME_US] = {1, 0},
        [LH_TIME_NS] = {1, -3},     [LH_TIME_MINUTE] = {60, 6}, [LH_TIME_HOUR] = {3600, 6},
        [LH_TIME_DAY] = {86400, 6},
    };
    const char *p = text, *end = text + n;
    trim(&p, &end);
    if (unit == LH_TIME_ISO8601)
        return parse_iso(p, end, out);
    struct decimal d;
    if (!scan(p, end, &d)) {
        double word;
        return parse_word(p, end, &word) == LH_PARSED_NOT_FINITE ? LH_PARSED_NOT_FINITE
                                                                 : LH_PARSED_NOT;
    }
    return to_microseconds(&d, scale[unit].factor, scale[unit].e, out);
}
