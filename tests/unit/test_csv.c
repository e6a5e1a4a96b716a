#include "common/csv.h"
#include "common/jsonl.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 16 };

static const struct lh_csv comma = {",", 1, '"'};
static const struct lh_csv bare = {",", 1, -1};
static const struct lh_csv colons = {"::", 2, -1};

/* Renders records as "a|b\nc|d\n", with the line number in front: easy to compare. */
static void render(const struct lh_csv *csv, const char *text, size_t n, char *out, size_t size)
{
    /* without an end byte, so that AddressSanitizer sees a read too far */
    char *exact = malloc(n ? n : 1), *scratch = NULL;
    memcpy(exact, text, n);
    struct lh_csv_cursor c;
    struct lh_field f[FIELDS];
    size_t k, used = 0, cap = 0;
    lh_csv_begin(&c, csv, exact, n, 1);
    enum lh_csv_result r;
    out[0] = '\0';
    while ((r = lh_csv_next(&c, f, FIELDS, &k)) != LH_CSV_END) {
        used += (size_t)snprintf(out + used, size - used, "%zu:", c.line);
        if (r != LH_CSV_RECORD) {
            used += (size_t)snprintf(out + used, size - used, "%s",
                                     r == LH_CSV_OPEN_QUOTE ? "OPEN" : "BEHIND");
        } else {
            for (size_t i = 0; i < k && i < FIELDS; i++) {
                const char *t;
                size_t m;
                assert_ok(lh_field_resolve(&f[i], &scratch, &cap, &t, &m));
                used +=
                    (size_t)snprintf(out + used, size - used, "%s%.*s", i ? "|" : "", (int)m, t);
            }
        }
        used += (size_t)snprintf(out + used, size - used, ";");
    }
    lh_mem_free(scratch);
    free(exact);
}

static void records_come_out_as_written(void **state)
{
    (void)state;
    static const struct {
        const struct lh_csv *csv;
        const char *text, *want;
    } cases[] = {
        {&comma, "", ""},
        {&comma, "a,b\nc,d\n", "1:a|b;2:c|d;"},
        {&comma, "a,b\r\nc,d", "1:a|b;2:c|d;"},
        {&comma, ",\n,,\n", "1:|;2:||;"},
        {&comma, "a,\n\n\r\nb,", "1:a|;4:b|;"},
        {&comma, "\"a,1\",\"x \"\"y\"\"\"\n", "1:a,1|x \"y\";"},
        {&comma, "\"two\nlines\",1\nz,2\n", "1:two\nlines|1;3:z|2;"},
        {&comma, "\"\",\"\"\r\n\"\"\"\"\n", "1:|;2:\";"},
        {&comma, "5\" disk,1\n", "1:5\" disk|1;"},
        {&comma, "\"a\"x,1\nb,2\n", "1:BEHIND;2:b|2;"},
        {&comma, "a,1\n\"open,2\nb,3\n", "1:a|1;2:OPEN;"},
        {&comma, "a,\"q\"", "1:a|q;"},
        {&comma, "\"q\"\"", "1:OPEN;"},
        {&bare, "\"a,b\n", "1:\"a|b;"},
        {&colons, "1::2::3\n4::a:b::\n:::\n", "1:1|2|3;2:4|a:b|;3:|:;"},
        {&colons, "1:", "1:1:;"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char got[400];
        render(cases[i].csv, cases[i].text, strlen(cases[i].text), got, sizeof got);
        assert_string_equal(got, cases[i].want);
    }
}

static void records_across_blocks_are_like_short_ones(void **state)
{
    (void)state;
    /* fields of growing lengths put marks and quotes on every offset of the 64-byte blocks */
    char text[6000], want[7000], got[7000];
    size_t n = 0, m = 0;
    for (size_t i = 0; i < 60; i++) {
        int len = (int)(i * 7 % 67);
        bool q = i % 3 == 0;
        n += (size_t)snprintf(
            text + n, sizeof text - n, "%s%.*s%s,%zu,\"%zu\"\n", q ? "\"" : "", len,
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", q ? "\"" : "",
            i, i);
        m += (size_t)snprintf(
            want + m, sizeof want - m, "%zu:%.*s|%zu|%zu;", i + 1, len,
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", i, i);
    }
    render(&comma, text, n, got, sizeof got);
    assert_string_equal(got, want);
}

static void border_is_behind_the_last_whole_record(void **state)
{
    (void)state;
    static const struct {
        const struct lh_csv *csv;
        const char *text;
        size_t want;
    } cases[] = {
        {&comma, "", 0},
        {&comma, "abc", 0},
        {&comma, "a,b\nc", 4},
        {&comma, "a\n\"b\nc\"", 2},
        {&comma, "a\n\"b\nc\"\n", 8},
        {&comma, "a\n\"b\n", 2},
        {&comma, "\"a\"x\nb", 5},
        {&bare, "a\n\"b\n", 5},
        {&comma, "5\"\n6\n", 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(lh_csv_border(cases[i].csv, cases[i].text, strlen(cases[i].text)),
                         cases[i].want);
}

/* Whatever the bytes: spans lie inside, and cutting at the border changes nothing. */
static void random_bytes_are_survived(void **state)
{
    (void)state;
    static const char alphabet[] = "a1,:\"\n\r ";
    struct lh_rng_at at = {.seed = 3};
    for (uint64_t i = 0; i < 4000; i++) {
        char text[200], whole[2000], parts[2000];
        at.step = i;
        size_t n = lh_rng_below(&at, 0, sizeof text);
        for (size_t j = 0; j < n; j++)
            text[j] = alphabet[lh_rng_below(&at, j + 1, 8)];
        const struct lh_csv *csv = i % 3 == 0 ? &bare : i % 3 == 1 ? &comma : &colons;
        render(csv, text, n, whole, sizeof whole);
        size_t cut = lh_csv_border(csv, text, n);
        assert_true(cut <= n && (cut == 0 || text[cut - 1] == '\n'));
        if (cut == n) { /* all whole: the parts say the same */
            size_t half = lh_csv_border(csv, text, n / 2);
            render(csv, text, half, parts, sizeof parts);
            if (strncmp(whole, parts, strlen(parts)) != 0)
                fail_msg("'%.*s' at %zu", (int)n, text, half);
        }
    }
}

static void jsonl_picks_wanted_values(void **state)
{
    (void)state;
    static const char *const names[] = {"user",         "time", "state.0", "state.2",
                                        "ctx.geo.city", "a.b",  "none"};
    struct lh_jsonl *j = NULL;
    assert_ok(lh_jsonl_create(&j, names, 7));
    static const char text[] =
        " {\"time\": -1.5e3, \"skip\": {\"user\": 3, \"x\": [1, {}]}, \"user\": "
        "\"b\\u00e9\\n\\ud83d"
        "\\ude00\", \"state\": [0.5, [], true], \"ctx\": {\"geo\": {\"city\": \"X\"}}, \"a.b\": 7, "
        "\"none\": null} \r\n";
    struct lh_field f[7];
    size_t at, n, cap = 0;
    char *scratch = NULL;
    const char *t;
    const char *wrong = lh_jsonl_parse(j, text, strlen(text), f, &at);
    assert_null(wrong);
    assert_memory_equal(f[1].text, "-1.5e3", f[1].n);
    assert_ok(lh_field_resolve(&f[0], &scratch, &cap, &t, &n));
    assert_int_equal(n, 8);
    assert_memory_equal(t, "b\xc3\xa9\n\xf0\x9f\x98\x80", 8);
    assert_memory_equal(f[2].text, "0.5", 3);
    assert_memory_equal(f[3].text, "true", 4);
    assert_memory_equal(f[4].text, "X", 1);
    assert_memory_equal(f[5].text, "7", 1);
    assert_int_equal(f[6].kind, LH_FIELD_ABSENT);
    static const char *const bad[] = {
        "",
        "[1]",
        "{\"user\" 1}",
        "{\"user\": }",
        "{\"user\": 1",
        "{\"a\": 1,}",
        "{user: 1}",
        "{\"a\": tru}",
        "{} {}",
        "{\"a\": \"x}",
        "{\"a\": [1}",
        "{\"a\": 1 2}",
        "{\"a\": \"\n\"}",
        "{\"a\": \"\\",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!lh_jsonl_parse(j, bad[i], strlen(bad[i]), f, &at))
            fail_msg("'%s' is taken", bad[i]);
    char deep[300] = "{\"a\":";
    memset(deep + 5, '[', 200);
    assert_string_equal(lh_jsonl_parse(j, deep, 205, f, &at), "nested too deep");
    lh_mem_free(scratch);
    lh_jsonl_destroy(&j);
}

static void jsonl_survives_random_bytes_and_failed_allocations(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b.0", "b.c"};
    static const char alphabet[] = "{}[]:,\"ab01\\ nutrle.-";
    struct lh_jsonl *j = NULL;
    for (uint64_t n = 1;; n++) {
        lh_mem_fail_at(n);
        int rc = lh_jsonl_create(&j, names, 3);
        lh_mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
    struct lh_rng_at at = {.seed = 4};
    for (uint64_t i = 0; i < 20000; i++) {
        at.step = i;
        size_t n = lh_rng_below(&at, 0, 60), where;
        char *text = malloc(n ? n : 1);
        for (size_t k = 0; k < n; k++)
            text[k] = k == 0 ? '{' : alphabet[lh_rng_below(&at, k + 1, sizeof alphabet - 1)];
        struct lh_field f[3];
        lh_jsonl_parse(j, text, n, f, &where);
        assert_true(where <= n);
        free(text);
    }
    lh_jsonl_destroy(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(records_come_out_as_written),
        kit_test(records_across_blocks_are_like_short_ones),
        kit_test(border_is_behind_the_last_whole_record),
        kit_test(random_bytes_are_survived),
        kit_test(jsonl_picks_wanted_values),
        kit_test(jsonl_survives_random_bytes_and_failed_allocations),
    };
    return cmocka_run_group_tests_name("csv", tests, NULL, NULL);
}
