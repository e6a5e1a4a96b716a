/* One answer in three forms, to the letter. */
#include "cluster/act_write.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const NAMES[] = {"x", "y,z"};
static const char *const KEEP[] = {"user"};
static const float ACTION[] = {0.5f, -2};
static const struct lh_item_score ITEMS[] = {{"one", 1.5f}, {"t,\"o\"", -1}};

static void assert_written(const struct lh_act_writer *w, const struct lh_act_answer *a,
                           const char *expected)
{
    struct lh_act_writer to = *w;
    char *text = NULL;
    size_t n = 0;
    to.to = open_memstream(&text, &n);
    assert_non_null(to.to);
    lh_act_write_header(&to);
    lh_act_write(&to, 7, a);
    fclose(to.to);
    assert_string_equal(text, expected);
    free(text);
}

static void csv_quotes_what_would_break_a_field(void **state)
{
    (void)state;
    struct lh_act_writer w = {.format = LH_ACT_CSV,
                              .separator = ',',
                              .width = 2,
                              .names = NAMES,
                              .keep = KEEP,
                              .n_keep = 1};
    const char *kept[] = {"a \"b\""};
    struct lh_act_answer a = {.action = ACTION, .kept = kept};
    assert_written(&w, &a, "user,x,\"y,z\"\n\"a \"\"b\"\"\",0.5,-2\n");
    /* of JSON texts a string loses its quotes where it can */
    a.kept_json = true;
    kept[0] = "\"u7\"";
    assert_written(&w, &a, "user,x,\"y,z\"\nu7,0.5,-2\n");
    kept[0] = "\"u,7\"";
    assert_written(&w, &a, "user,x,\"y,z\"\n\"u,7\",0.5,-2\n");
    kept[0] = "[1,2]";
    assert_written(&w, &a, "user,x,\"y,z\"\n\"[1,2]\",0.5,-2\n");
    /* fewer items than asked for leave their fields empty */
    w.n_keep = 0;
    w.top = 3;
    w.separator = ';';
    a.items = ITEMS;
    a.n_items = 2;
    assert_written(&w, &a,
                   "x;y,z;item_1;score_1;item_2;score_2;item_3;score_3\n"
                   "0.5;-2;one;1.5;\"t,\"\"o\"\"\";-1;;\n");
}

static void jsonl_escapes_text_and_passes_json(void **state)
{
    (void)state;
    struct lh_act_writer w = {
        .format = LH_ACT_JSONL, .width = 2, .names = NAMES, .keep = KEEP, .n_keep = 1, .top = 2};
    const char *kept[] = {"a\"\\\t"};
    struct lh_act_answer a = {.action = ACTION, .kept = kept, .items = ITEMS, .n_items = 2};
    assert_written(&w, &a,
                   "{\"user\":\"a\\\"\\\\\\u0009\",\"action\":[0.5,-2],\"items\":"
                   "[{\"id\":\"one\",\"score\":1.5},{\"id\":\"t,\\\"o\\\"\",\"score\":-1}]}\n");
    kept[0] = "{\"k\":null}";
    a.kept_json = true;
    w.top = 0;
    assert_written(&w, &a, "{\"user\":{\"k\":null},\"action\":[0.5,-2]}\n");
}

static void explanation_shows_the_first_of_the_best(void **state)
{
    (void)state;
    float reconstructed[] = {0.5f, 0, 3, 4, 0, 0}, residual[] = {0, 0, 0, 1, 0, 0};
    float candidates[] = {0.5f, 0, 3, 5, 0, 0}, q[] = {1, 2, 2};
    const struct lh_explain e = {reconstructed, residual, candidates, q};
    struct lh_act_writer w = {.format = LH_ACT_JSONL, .width = 2, .names = NAMES, .estimators = 3};
    const struct lh_act_answer a = {.action = ACTION, .explain = &e};
    assert_written(&w, &a,
                   "{\"action\":[0.5,-2],\"chosen\":1,\"estimators\":["
                   "{\"action\":[0.5,0],\"reconstructed\":[0.5,0],\"residual\":[0,0],\"q\":1},"
                   "{\"action\":[3,5],\"reconstructed\":[3,4],\"residual\":[0,1],\"q\":2},"
                   "{\"action\":[0,0],\"reconstructed\":[0,0],\"residual\":[0,0],\"q\":2}]}\n");
    w.format = LH_ACT_TEXT;
    w.estimators = 2;
    assert_written(&w, &a,
                   "state 7: action      0.5       -2\n"
                   "     estimator         Q  |reconstructed|  |residual|  action\n"
                   "             0         1              0.5           0       0.5        0\n"
                   "  ->         1         2                5           1         3        5\n");
}

/* A policy that is one network has neither candidates nor Q. */
static void explanation_of_one_network_leaves_out_what_it_has_not(void **state)
{
    (void)state;
    float none[] = {NAN, NAN}, some[] = {1, 2};
    struct lh_explain e = {none, none, none, none};
    struct lh_act_writer w = {.format = LH_ACT_JSONL, .width = 2, .names = NAMES, .estimators = 1};
    const struct lh_act_answer a = {.action = ACTION, .explain = &e};
    assert_written(&w, &a, "{\"action\":[0.5,-2],\"estimators\":[{}]}\n");
    e.reconstructed = some;
    assert_written(&w, &a, "{\"action\":[0.5,-2],\"estimators\":[{\"reconstructed\":[1,2]}]}\n");
    w.format = LH_ACT_TEXT;
    assert_written(&w, &a,
                   "state 7: action      0.5       -2\n"
                   "     estimator         Q  |reconstructed|  |residual|  action\n"
                   "  ->         0         -            2.236           -         1        2\n");
    e.reconstructed = none;
    assert_written(&w, &a,
                   "state 7: action      0.5       -2\n"
                   "  the policy is one network; it weighs no candidates\n");
}

static void text_cuts_long_vectors_and_ranks_items(void **state)
{
    (void)state;
    static const float wide[7] = {1, 2, 3, 4, 5, 6, 7};
    const char *kept[] = {"u7"};
    const struct lh_act_writer w = {
        .format = LH_ACT_TEXT, .width = 7, .names = NULL, .keep = KEEP, .n_keep = 1, .top = 2};
    const struct lh_act_answer a = {.action = wide, .kept = kept, .items = ITEMS, .n_items = 1};
    assert_written(
        &w, &a,
        "state 7 (user=u7): action        1        2        3        4        5        6 …\n"
        "    1. one                      1.5\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(csv_quotes_what_would_break_a_field),
        kit_test(jsonl_escapes_text_and_passes_json),
        kit_test(explanation_shows_the_first_of_the_best),
        kit_test(explanation_of_one_network_leaves_out_what_it_has_not),
        kit_test(text_cuts_long_vectors_and_ranks_items),
    };
    return cmocka_run_group_tests_name("act_write", tests, NULL, NULL);
}
