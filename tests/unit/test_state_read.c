/* States from text: by name, in order, as lists; and every way in which a line is none. */
#include "cluster/items.h"
#include "cluster/lines.h"
#include "cluster/state_read.h"
#include "tests/testkit.h"

#include <string.h>

static const char *const HIGH[] = {"age", "visits"};
static const char *const LOW[] = {"hour", "age"};
static const char *const KEEP[] = {"user"};

/* Reads a whole text; the last line's result. `age` stands in both states. */
static int read_all(const char *text, enum lh_state_format format, size_t n_keep, float state[4],
                    char kept_text[64])
{
    const struct lh_state_spec spec = {.dims = {.high = 2, .low = 2, .action = 1},
                                       .high_names = HIGH,
                                       .low_names = LOW,
                                       .format = format,
                                       .separator = ',',
                                       .keep = KEEP,
                                       .n_keep = n_keep};
    struct lh_state_reader *r = NULL;
    struct lh_lines *l = NULL;
    char *line;
    size_t n;
    bool json;
    const char *kept[1] = {""};
    kit_write(kit_path("s"), text);
    assert_ok(lh_lines_open(&l, kit_path("s")));
    assert_ok(lh_state_reader_create(&r, &spec));
    int rc = LH_AGAIN;
    while (rc >= 0 && lh_lines_next(l, &line, &n) == 0) {
        rc = lh_state_reader_line(r, l, line, n, state, state + 2, kept, &json);
        if (rc == 0 && n_keep)
            strncpy(kept_text, kept[0], 63);
    }
    lh_state_reader_destroy(&r);
    lh_lines_close(&l);
    return rc;
}

static void line_gives_the_same_state_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text, *kept;
    } form[] = {
        {"hour, age ,user,visits\n3,1,u7,2\n", "u7"},
        {"visits,user,more,age,hour\n\n2,u7,x,1,3  \n", "u7"},
        {"{\"user\": \"u7\", \"age\": 1, \"visits\": 2, \"hour\": 3}", "\"u7\""},
        {"{\"high\": [1, 2], \"low\": [3, 1], \"user\": \"u7\"}", "\"u7\""},
        {"1,2,3,1\n", NULL},
    };
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        float s[4] = {0};
        char kept[64] = "";
        assert_ok(read_all(form[i].text, LH_STATES_AUTO, form[i].kept != NULL, s, kept));
        assert_true(s[0] == 1 && s[1] == 2 && s[2] == 3 && s[3] == 1);
        assert_string_equal(kept, form[i].kept ? form[i].kept : "");
    }
}

static void line_without_a_state_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_keep;
        int code;
        const char *says;
    } bad[] = {
        {"hour,age\n", 0, LH_EMISMATCH,
         "s:1: the header has no column 'visits'; the snapshot needs"},
        {"hour,age,visit\n", 0, LH_EMISMATCH, "'visits', which the snapshot needs; is it 'visit'?"},
        {"hour,age,visits,age\n", 0, LH_EMISMATCH, "the header has column 'age' twice"},
        {"hour,age,visits\n", 1, LH_EMISMATCH, "--keep user: the header has no such column"},
        {"1,2,3\n", 0, LH_EMISMATCH, "3 columns without a header, the snapshot needs 4 numbers"},
        {"1,2,3,1\n", 1, LH_EMISMATCH, "--keep user needs a header line"},
        {"1,2,3,1\n1,2,3\n", 0, LH_EFORMAT, "s:2: 3 columns instead of 4"},
        {"1,2,3,1\n1,,3,1\n", 0, LH_EFORMAT, "column 'visits' is empty; a state has no missing"},
        {"hour,age,visits\n1,inf,2\n", 0, LH_EFORMAT, "column 'age': 'inf' is not a finite number"},
        {"{\"age\": 1", 0, LH_EFORMAT, "s:1: not a JSON object on one line"},
        {"{\"age\": 1, \"visits\": 2}", 0, LH_EFORMAT, "key 'hour' is missing"},
        {"{\"age\": 1, \"age\": 2}", 0, LH_EFORMAT, "key 'age' is there twice"},
        {"{\"age\": 1e999}", 0, LH_EFORMAT, "column 'age': 'inf' is not a finite number"},
        {"{\"age\": null}", 0, LH_EFORMAT, "'null' is not a finite number"},
        {"{\"age\": \"old\"}", 0, LH_EFORMAT, "'old' is not a finite number"},
        {"{\"high\": [1, 2], \"low\": [1]}", 0, LH_EFORMAT, "'low' must be a list of 2 numbers"},
        {"{\"low\": [3, 1], \"high\": 4}", 0, LH_EFORMAT, "'high' must be a list of 2 numbers"},
        {"{\"high\": [1, 2], \"low\": [3, 1]}", 1, LH_EFORMAT, "key 'user', which is to be kept"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float s[4];
        char kept[64];
        assert_err(read_all(bad[i].text, LH_STATES_AUTO, bad[i].n_keep, s, kept), bad[i].code,
                   bad[i].says);
    }
    float s[4];
    char kept[64];
    assert_err(read_all("1,2,3,1\n", LH_STATES_JSONL, 0, s, kept), LH_EFORMAT, "not a JSON object");
    assert_err(read_all("{\"age\": 1}\n", LH_STATES_CSV, 0, s, kept), LH_EMISMATCH, "no column");
}

static void reading_survives_every_failed_allocation(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "y"};
    static const char *const keep[] = {"k"};
    const struct lh_state_spec spec = {.dims = {.high = 1, .low = 1, .action = 1},
                                       .high_names = names,
                                       .low_names = names + 1,
                                       .separator = ',',
                                       .keep = keep,
                                       .n_keep = 1};
    kit_write(kit_path("i.csv"), "id,e_0\na,1\nb,2\n");
    kit_write(kit_path("s.csv"), "y,k,x\n1,q,2\n");
    for (uint64_t at = 1;; at++) {
        struct lh_items *items = NULL;
        struct lh_lines *l = NULL;
        struct lh_state_reader *r = NULL;
        const char *kept[1];
        char *line;
        size_t n;
        float high = 0, low = 0;
        bool json;
        lh_mem_fail_at(at);
        int rc = lh_items_load(&items, kit_path("i.csv"), NULL, 1);
        if (rc == 0)
            rc = lh_lines_open(&l, kit_path("s.csv"));
        if (rc == 0)
            rc = lh_state_reader_create(&r, &spec);
        for (int i = 0; i < 2 && rc >= 0; i++) {
            rc = lh_lines_next(l, &line, &n);
            if (rc == 0)
                rc = lh_state_reader_line(r, l, line, n, &high, &low, kept, &json);
        }
        lh_mem_fail_at(0);
        if (rc == 0) {
            assert_true(high == 2 && low == 1);
            assert_string_equal(kept[0], "q");
        }
        lh_state_reader_destroy(&r);
        lh_lines_close(&l);
        lh_items_destroy(&items);
        if (rc == 0) {
            assert_true(at > 10);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(line_gives_the_same_state_in_every_form),
        kit_test(line_without_a_state_says_why),
        kit_test(reading_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("state_read", tests, NULL, NULL);
}
