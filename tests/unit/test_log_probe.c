/* What a look at a log finds of its form and its columns. */
#include "cluster/log_probe.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

static int probe(struct lh_log_probe *p, const char *text, uint64_t max_bytes)
{
    kit_write(kit_path("log"), text);
    return lh_log_probe_run(p, (const char *const[]){kit_path("log")}, 1, max_bytes);
}

static void run_finds_separator_header_and_columns(void **state)
{
    (void)state;
    static const struct {
        const char *text, *separator, *names;
        bool header;
    } form[] = {
        {"user,item\n1,a\n2,b\n", ",", "user item", true},
        {"user\titem\n1\ta, b\n2\tb\n", "\t", "user item", true},
        {"1::10::5\n2::20::4\n", "::", "column_1 column_2 column_3", false},
        {"1|a;b|3\n2|c;d|4\n", "|", "column_1 column_2 column_3", false},
        {",user\n0,7\n1,8\n", ",", "column_1 user", true}, /* the row's number has no name */
        {"day,event\nmonday,view\ntuesday,buy\n", ",", "day event", true},
        {"view,buy\nview,view\n", ",", "column_1 column_2", false}, /* it comes again */
        {"\"a, b\";c\n\"d\";e\nf;g\n", ";", "a, b c", true},
    };
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        struct lh_log_probe p;
        char names[128] = "";
        assert_ok(probe(&p, form[i].text, 1 << 20));
        for (size_t k = 0; k < p.n_columns; k++)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", k ? " " : "",
                     p.columns[k].name);
        assert_string_equal(names, form[i].names);
        assert_int_equal(p.csv.separator_bytes, strlen(form[i].separator));
        assert_memory_equal(p.csv.separator, form[i].separator, p.csv.separator_bytes);
        assert_int_equal(p.header, form[i].header);
        assert_false(p.jsonl);
        assert_int_equal(p.rows, 2);
        assert_true(p.whole && p.odd_rows == 0);
        lh_log_probe_fini(&p);
        lh_log_probe_fini(&p);
    }
}

static void run_tells_what_is_in_a_column(void **state)
{
    (void)state;
    struct lh_log_probe p;
    assert_ok(probe(&p,
                    "n,when,word,part\n1,2020-01-01,x,0.5\n2,2020-01-02,NA,\n3,2020-01-03,x,-1\n",
                    1 << 20));
    const struct lh_probe_column *n = &p.columns[0], *when = &p.columns[1], *word = &p.columns[2],
                                 *part = &p.columns[3];
    assert_true(n->numbers == 3 && n->whole == 3 && n->lo == 1 && n->hi == 3 && n->ascending);
    assert_true(when->iso == 3 && when->numbers == 0 && when->n_values == 3);
    assert_true(word->present == 2 && word->missing == 1 && word->n_values == 1);
    assert_true(word->values[0].count == 2);
    assert_string_equal(word->values[0].text, "x");
    assert_true(part->whole == 1 && part->lo == -1 && part->hi == 0.5 && !part->ascending);
    assert_false(part->many);
    lh_log_probe_fini(&p);
}

static void run_reads_nested_json(void **state)
{
    (void)state;
    struct lh_log_probe p;
    assert_ok(probe(&p,
                    "{\"user\": {\"id\": 7}, \"state\": [0.5, 2], \"ok\": true}\n \n"
                    "{\"user\": {\"id\": 8}, \"late\": \"x\"}\n[1]\n",
                    1 << 20));
    static const char *const names[] = {"user.id", "state.0", "state.1", "ok", "late"};
    static const unsigned missing[] = {0, 1, 1, 1, 1};
    assert_true(p.jsonl);
    assert_true(p.rows == 2 && p.odd_rows == 1 && p.n_columns == 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(p.columns[i].name, names[i]);
        assert_int_equal(p.columns[i].missing, missing[i]);
        assert_int_equal(p.columns[i].present, 2 - missing[i]);
    }
    assert_true(p.columns[3].numbers == 1 && p.columns[3].lo == 1); /* true is 1 */
    lh_log_probe_fini(&p);
}

static void run_counts_odd_rows_and_stops_at_its_limit(void **state)
{
    (void)state;
    static char text[3 << 20];
    struct lh_log_probe p;
    size_t n = (size_t)sprintf(text, "user,item\n");
    for (int i = 0; n < sizeof text - 32; i++)
        n += (size_t)sprintf(text + n, i % 100 == 99 ? "%d,%d,1\n" : "%d,%d\n", i, i);
    assert_ok(probe(&p, text, 1));
    assert_false(p.whole);
    assert_true(p.odd_rows > 0 && p.rows > 90 * p.odd_rows);
    assert_true(p.columns[0].many);
    lh_log_probe_fini(&p);
}

static void run_refuses_what_is_no_log(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "log: is empty"},
        {"one\ntwo\n", "no separator cuts its lines"},
        {"a,b\n1\n2,3,4\n5\n", "no separator cuts its lines"},
        {"user,item\n", "not one row could be read"},
        {"{\"user\": \n", "not one row could be read"},
    };
    struct lh_log_probe p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(probe(&p, bad[i].text, 1 << 20), LH_EFORMAT, bad[i].says);
        assert_null(p.columns);
    }
    assert_err(lh_log_probe_run(&p, (const char *const[]){kit_path("none")}, 1, 1 << 20), LH_ENOENT,
               "none");
}

static void run_survives_every_failed_allocation(void **state)
{
    (void)state;
    kit_write(kit_path("log"), "user,item\n1,a\n2,b\n");
    for (uint64_t at = 1;; at++) {
        struct lh_log_probe p;
        lh_mem_fail_at(at);
        int rc = lh_log_probe_run(&p, (const char *const[]){kit_path("log")}, 1, 1 << 20);
        lh_mem_fail_at(0);
        lh_log_probe_fini(&p);
        if (rc == 0) {
            assert_true(at > 8);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_finds_separator_header_and_columns),
        kit_test(run_tells_what_is_in_a_column),
        kit_test(run_reads_nested_json),
        kit_test(run_counts_odd_rows_and_stops_at_its_limit),
        kit_test(run_refuses_what_is_no_log),
        kit_test(run_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("log_probe", tests, NULL, NULL);
}
