#include "common/schema.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <string.h>

static const char whole[] =
    "name: globo\n"
    "seed: 7\n"
    "input: {files: [a.csv, b.csv], separator: tab, quote: none, missing: "
    "['', NA], skip: 2}\n"
    "columns:\n"
    "  user_id: id\n"
    "  session_id: id\n"
    "  when: {type: time, unit: ms, from: click_time}\n"
    "  age: {type: number, scale: 0.1, shift: 3, log1p: true, clip: [0, 99], "
    "missing: 30}\n"
    "  gender: {type: category, values: [F, M], missing: other, unknown: "
    "error}\n"
    "  os: {type: category, values: 1..3, missing: drop}\n"
    "  state_08..state_11: number\n"
    "  vector: {type: number, range: w_0..w_1, missing: keep}\n"
    "trajectory: {user: user_id, by: session, session: session_id, time: "
    "when, max_length: 50, min_length: 2}\n"
    "split: {train: 80%, validation: 500, test: rest, seed: 3}\n"
    "partition: {by_day: true, hash: 8}\n"
    "bad_rows: {max: 5, share: 0.01}\n"
    "reward: {column: age}\n"
    "state_high: []\n";

static int load(struct lh_schema **s, const char *text)
{
    return lh_schema_load_text(s, text, strlen(text), "s.yaml", NULL, 0);
}

static void load_reads_every_key(void **state)
{
    (void)state;
    struct lh_schema *s = NULL;
    assert_ok(load(&s, whole));
    assert_string_equal(s->name, "globo");
    assert_int_equal(s->n_files, 2);
    assert_int_equal(s->csv.separator[0], '\t');
    assert_int_equal(s->csv.quote, -1);
    assert_int_equal(s->skip, 2);
    assert_true(s->header);
    assert_true(lh_schema_is_missing(s, "NA", 2));
    assert_false(lh_schema_is_missing(s, "N", 1));
    assert_int_equal(s->n_columns, 12);
    const struct lh_schema_column *c = &s->columns[2];
    assert_string_equal(c->source, "click_time");
    assert_int_equal(c->unit, LH_TIME_MS);
    c = &s->columns[3];
    assert_true(c->scale == 0.1 && c->shift == 3 && c->log1p && c->clip && c->hi == 99);
    assert_int_equal(c->missing, LH_MISSING_VALUE);
    assert_true(c->missing_value == 30);
    c = &s->columns[4];
    assert_int_equal(c->missing, LH_MISSING_OTHER);
    assert_int_equal(c->unknown, LH_MISSING_ERROR);
    assert_int_equal(lh_schema_value(c, "M", 1), 1);
    assert_true(lh_schema_value(c, "X", 1) == SIZE_MAX);
    assert_int_equal(lh_schema_value(&s->columns[5], "3", 1), 2);
    assert_string_equal(s->columns[7].name, "state_09");
    assert_string_equal(s->columns[11].name, "w_1");
    assert_int_equal(s->columns[11].missing, LH_MISSING_KEEP);
    assert_int_equal(s->n_visible, 11); /* all but the time */
    assert_int_equal(s->user, 0);
    assert_int_equal(s->session, 1);
    assert_int_equal(s->time, 2);
    assert_true(s->by_session);
    assert_int_equal(s->end, LH_END_TRUE); /* the default by session */
    assert_int_equal(s->max_length, 50);
    assert_int_equal(s->min_length, 2);
    assert_int_equal(s->split[LH_TRAIN].amount, LH_AMOUNT_SHARE);
    assert_true(s->split[LH_TRAIN].share == 0.8);
    assert_int_equal(s->split[LH_VALIDATION].count, 500);
    assert_int_equal(s->split[LH_TEST].amount, LH_AMOUNT_REST);
    assert_int_equal(s->split_seed, 3);
    assert_int_equal(s->hash, 8);
    assert_int_equal(s->bad_max, 5);
    /* header, then ids, then 4-byte values; the user and the time lie in the header */
    assert_int_equal(s->columns[0].offset, offsetof(struct lh_row, user));
    assert_int_equal(s->columns[2].offset, offsetof(struct lh_row, time));
    assert_int_equal(s->columns[1].offset, sizeof(struct lh_row));
    assert_int_equal(s->row_bytes, (sizeof(struct lh_row) + 8 + 9 * 4 + 7) / 8 * 8);
    lh_schema_destroy(&s);
}

static void sets_override_keys(void **state)
{
    (void)state;
    struct lh_schema *s = NULL;
    const char *const sets[] = {"split.train=0.5", "seed=9"};
    assert_ok(lh_schema_load_text(&s, whole, strlen(whole), "s.yaml", sets, 2));
    assert_true(s->split[LH_TRAIN].share == 0.5);
    assert_int_equal(s->seed, 9);
    lh_schema_destroy(&s);
}

/* Replaces one piece of the whole schema and expects the complaint. */
static void faults_are_named_with_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *complaint;
    } cases[] = {
        {"seed: 7", "sed: 7", "s.yaml:2: sed: unknown key; did you mean 'seed'?"},
        {"separator: tab", "separator: ''", "s.yaml:3: input.separator"},
        {"quote: none", "quote: '\"\"'", "input.quote"},
        {"skip: 2", "columns: [a], header: false, skp: 1", "did you mean 'skip'?"},
        {"skip: 2", "header: false", "names: input.columns"},
        {"separator: tab", "format: jsonl, header: true", "JSON lines carry their names"},
        {"user_id: id\n  session_id", "user_id: idd\n  session_id", "s.yaml:5"},
        {"unit: ms, ", "", "needs its unit"},
        {"unit: ms", "unit: week", "'week' is not one of"},
        {"scale: 0.1", "scale: much", "not a finite number"},
        {"clip: [0, 99]", "clip: [9, 0]", "above the highest"},
        {"missing: 30", "missing: other", "does not go with type: number"},
        {"values: [F, M]", "values: [F, F]", "listed twice"},
        {"{type: category, values: [F, M], ", "{type: category, ", "needs values"},
        {"unknown: error", "scale: 3", "does not go with type: category"},
        {"range: w_0..w_1", "range: w_9..w_1", "no range"},
        {"state_08..state_11", "age", "already set"},
        {"range: w_0..w_1", "range: state_10..state_12", "declared already"},
        {"  age:", "  reward:", "'reward' means the computed reward"},
        {"user: user_id", "user: user", "s.yaml:13: trajectory.user: there is no column 'user'"},
        {"user: user_id", "user: age", "is of type number; a column of type id is needed"},
        {"time: when", "tme: when", "did you mean 'time'"},
        {"time: when", "time: age", "of type number; a column of type time"},
        {"session: session_id, ", "", "needs session: or gap_minutes:"},
        {"session: session_id", "session: session_id, gap_minutes: 30", "keep one"},
        {"max_length: 50", "end: maybe", "there is no column 'maybe'"},
        {"max_length: 50", "max_length: 0", "outside"},
        {"train: 80%", "train: 180%", "between 0 and 1"},
        {"train: 80%", "train: rest", "only one split can take the rest"},
        {"train: 80%, validation: 500", "train: 80%, validation: 0.3", "more than 1"},
        {"train: 80%, ", "", "needs train:"},
        {"train: 80%", "train: most", "'most' is no number of users"},
        {"hash: 8", "hash: 0", "partition.hash"},
        {"share: 0.01", "share: 2", "bad_rows.share"},
        {"reward: {column: age}\n", "", "needs reward:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2000];
        const char *at = strstr(whole, cases[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, cases[i].to,
                 at + strlen(cases[i].from));
        struct lh_schema *s = NULL;
        int rc = load(&s, text);
        if (rc != LH_ECONFIG || !strstr(lh_err_text(), cases[i].complaint))
            fail_msg("%s: %s", cases[i].to, rc < 0 ? lh_err_text() : "taken");
        assert_null(s);
    }
}

static void order_stands_for_times(void **state)
{
    (void)state;
    struct lh_schema *s = NULL;
    static const char text[] = "columns: {u: id, r: number, done: number}\n"
                               "trajectory: {user: u, time: order, end: done}\n"
                               "reward: {column: r}\n";
    assert_ok(load(&s, text));
    assert_true(s->time == SIZE_MAX);
    assert_false(s->by_day);
    assert_int_equal(s->end, LH_END_COLUMN);
    assert_int_equal(s->end_column, 2);
    assert_true(s->split[LH_TRAIN].share == 0.8); /* defaults */
    assert_int_equal(s->split[LH_TEST].amount, LH_AMOUNT_REST);
    lh_schema_destroy(&s);
}

static void load_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct lh_schema *s = NULL;
        lh_mem_fail_at(n);
        int rc = load(&s, whole);
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_schema_destroy(&s);
            assert_true(n > 20);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
        assert_null(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(load_reads_every_key),
        kit_test(sets_override_keys),
        kit_test(faults_are_named_with_their_line),
        kit_test(order_stands_for_times),
        kit_test(load_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
