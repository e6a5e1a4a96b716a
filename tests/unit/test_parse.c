#include "common/parse.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_both(const char *text)
{
    double d = -1;
    float f = -1;
    if (lh_parse_double(text, strlen(text), &d) != LH_PARSED ||
        memcmp(&d, &(double){strtod(text, NULL)}, sizeof d) != 0)
        fail_msg("double '%s': %.17g, not %.17g", text, d, strtod(text, NULL));
    if (lh_parse_float(text, strlen(text), &f) != LH_PARSED ||
        memcmp(&f, &(float){strtof(text, NULL)}, sizeof f) != 0)
        fail_msg("float '%s': %.9g, not %.9g", text, (double)f, (double)strtof(text, NULL));
}

static void numbers_are_what_the_c_library_says(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0",
        "-0",
        "1",
        "-1",
        "+7",
        ".5",
        "5.",
        "1e3",
        "1E-3",
        "12345678",
        "123456789012345678",
        "1234567890123456789012345",
        "0.1",
        "0.30000000000000004",
        "3.4028234e38",
        "1e-45",
        "1.4e-45",
        "1.17549435e-38",
        "9007199254740993",
        "16777217",
        "16777219",
        "33554434.999999999999",
        "0.000000000000000000000000000123",
        "00000000000000000000000000012.5",
        "1.00000017881393432617187499",
        "1.00000017881393432617187500",
        "1.00000017881393432617187501",
        "8589934592.4999999999999999999",
        "1e22",
        "1e23",
        "123e-22",
        "0.0000000000000000000000000000000000000000000001e40",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check_both(texts[i]);
}

static void random_numbers_are_what_the_c_library_says(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 5};
    static const char *const formats[] = {"%.17g", "%.9g", "%.6f",  "%.18f", "%.3e", "%.0f",
                                          "%.25f", "%.8f", "%.15f", "%.16f", "%.17f"};
    for (uint64_t i = 0; i < 60000; i++) {
        uint64_t bits = lh_rng_u64(&at, i);
        double x;
        if (i % 3 == 0) {
            float f;
            uint32_t b = (uint32_t)bits;
            memcpy(&f, &b, sizeof f);
            x = (double)f;
            if (i % 2) /* exactly between two floats */
                x = (double)f + ((double)nextafterf(f, INFINITY) - (double)f) / 2;
        } else {
            x = lh_rng_normal1(&at, i) * pow(10, (double)(bits % 30) - 15);
        }
        if (!isfinite(x) || fabs(x) > 3e38)
            continue;
        char text[400];
        snprintf(text, sizeof text, formats[i % 11], x);
        check_both(text);
    }
}

static void what_is_no_number_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum lh_parsed want;
    } cases[] = {
        {"", LH_PARSED_NOT},
        {" ", LH_PARSED_NOT},
        {"-", LH_PARSED_NOT},
        {".", LH_PARSED_NOT},
        {"1x", LH_PARSED_NOT},
        {"1e", LH_PARSED_NOT},
        {"1e+", LH_PARSED_NOT},
        {"0x10", LH_PARSED_NOT},
        {"1 2", LH_PARSED_NOT},
        {"1.2.3", LH_PARSED_NOT},
        {"--1", LH_PARSED_NOT},
        {"e5", LH_PARSED_NOT},
        {"nan", LH_PARSED_NOT_FINITE},
        {"-Inf", LH_PARSED_NOT_FINITE},
        {"Infinity", LH_PARSED_NOT_FINITE},
        {"1e999", LH_PARSED_NOT_FINITE},
        {" 12 ", LH_PARSED},
        {"true", LH_PARSED},
        {"FALSE", LH_PARSED},
        {"1e-999", LH_PARSED},
        {"1e99999999999", LH_PARSED_NOT_FINITE},
        {"1234567a", LH_PARSED_NOT},
        {"12345678/", LH_PARSED_NOT},
        {"1234:678", LH_PARSED_NOT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* on the heap without an end, so that AddressSanitizer sees a read too far */
        size_t n = strlen(cases[i].text);
        char *exact = malloc(n ? n : 1);
        memcpy(exact, cases[i].text, n);
        double d;
        float f;
        if (lh_parse_double(exact, n, &d) != cases[i].want ||
            lh_parse_float(exact, n, &f) != cases[i].want)
            fail_msg("'%s'", cases[i].text);
        free(exact);
    }
    float f;
    assert_int_equal(lh_parse_float("1e39", 4, &f), LH_PARSED_NOT_FINITE);
    assert_int_equal(lh_parse_float("True", 4, &f), LH_PARSED);
    assert_true(f == 1);
}

static void times_in_units_become_microseconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum lh_time_unit unit;
        enum lh_parsed parsed;
        int64_t us;
    } cases[] = {
        {"1506826828", LH_TIME_S, LH_PARSED, 1506826828000000},
        {"1506826828.25", LH_TIME_S, LH_PARSED, 1506826828250000},
        {"1506826828.1234567", LH_TIME_S, LH_PARSED, 1506826828123456},
        {"-0.0000001", LH_TIME_S, LH_PARSED, -1},
        {"1650812741436", LH_TIME_MS, LH_PARSED, 1650812741436000},
        {"1650812741436", LH_TIME_S, LH_PARSED_NOT_FINITE, 0},
        {"1650812741436001", LH_TIME_US, LH_PARSED, 1650812741436001},
        {"1650812741436001999", LH_TIME_NS, LH_PARSED, 1650812741436001},
        {"1.5", LH_TIME_DAY, LH_PARSED, 129600000000},
        {"2", LH_TIME_MINUTE, LH_PARSED, 120000000},
        {"1e3", LH_TIME_HOUR, LH_PARSED, 3600000000000},
        {"1e300", LH_TIME_S, LH_PARSED_NOT_FINITE, 0},
        {"nan", LH_TIME_S, LH_PARSED_NOT_FINITE, 0},
        {"true", LH_TIME_S, LH_PARSED_NOT, 0},
        {"1970-01-01", LH_TIME_ISO8601, LH_PARSED, 0},
        {"20171001", LH_TIME_ISO8601, LH_PARSED, 1506816000000000},
        {"2017-10-01T02:40:28Z", LH_TIME_ISO8601, LH_PARSED, 1506825628000000},
        {"2017-10-01 02:40:28.5", LH_TIME_ISO8601, LH_PARSED, 1506825628500000},
        {"2017-10-01T02:40:28+02:00", LH_TIME_ISO8601, LH_PARSED, 1506818428000000},
        {"2017-10-01T02:40-0130", LH_TIME_ISO8601, LH_PARSED, 1506831000000000},
        {"1969-12-31T23:59:59.999999", LH_TIME_ISO8601, LH_PARSED, -1},
        {"2016-02-29", LH_TIME_ISO8601, LH_PARSED, 1456704000000000},
        {"2017-02-29", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
        {"2017-13-01", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
        {"2017-10-01T25:00", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
        {"2017-10-01T02:40:28.", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
        {"2017-10-01X", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
        {"2017-10-01T02:40 UTC", LH_TIME_ISO8601, LH_PARSED_NOT, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = 0;
        enum lh_parsed got =
            lh_parse_time(cases[i].text, strlen(cases[i].text), cases[i].unit, &us);
        if (got != cases[i].parsed || us != cases[i].us)
            fail_msg("'%s': %d %lld", cases[i].text, got, (long long)us);
    }
}

static void dates_and_days_are_inverse(void **state)
{
    (void)state;
    for (int64_t day = -719162; day < 2932897; day += 97) {
        int64_t y;
        unsigned m, d;
        lh_parse_date_from_days(day, &y, &m, &d);
        assert_true(y >= 1 && y <= 9999 && m >= 1 && m <= 12 && d >= 1 && d <= 31);
        assert_int_equal(lh_parse_days_from_date(y, m, d), day);
    }
    assert_int_equal(lh_parse_days_from_date(2017, 10, 16), 17455);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(numbers_are_what_the_c_library_says),
        kit_test(random_numbers_are_what_the_c_library_says),
        kit_test(what_is_no_number_is_told_apart),
        kit_test(times_in_units_become_microseconds),
        kit_test(dates_and_days_are_inverse),
    };
    return cmocka_run_group_tests_name("parse", tests, NULL, NULL);
}
