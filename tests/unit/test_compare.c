#include "cluster/compare.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double il_1[] = {1, 2, 3, 4}, il_2[] = {3, 2, 1, 0}, resact[] = {3, 3, 3, 4};
static const struct lh_compare_entry entries[] = {
    {"runs/il-1", "il", il_1, 0.5},
    {"runs/resact", "resact", resact, 0.2},
    {"runs/il-2", "il", il_2, 0.3},
};

static void pooled_runs_of_an_algorithm_are_averaged_by_trajectory(void **state)
{
    (void)state;
    struct lh_compare c;
    assert_ok(lh_compare_init(&c, entries, 3, 4, true));
    assert_int_equal(c.n_groups, 2);
    const struct lh_compare_group *il = &c.groups[0];
    assert_string_equal(il->name, "il");
    assert_int_equal(il->runs, 2);
    for (int i = 0; i < 4; i++) /* (1+3)/2, (2+2)/2, (3+1)/2, (4+0)/2 */
        assert_true(il->values[i] == 2);
    assert_true(il->value == 2 && il->lo == 2 && il->hi == 2);
    kit_assert_close(il->run_sd, sqrt(0.5), 1e-12, "means 2.5 and 1.5");
    kit_assert_close(il->ess_share, 0.4, 1e-12, "mean ESS share");
    assert_true(il->ess_share_min == 0.3);
    assert_true(isnan(c.groups[1].run_sd));
    assert_int_equal(c.n_pairs, 1);
    /* 1, 1, 1, 2: mean 1.25, sample deviation 0.5 */
    assert_true(c.pairs[0].difference == 1.25);
    kit_assert_close(c.pairs[0].lo, 1.25 - 1.959963984540054 * 0.5 / 2, 1e-12, "interval");
    lh_compare_fini(&c);
}

static void pooled_result_is_printed_and_is_json(void **state)
{
    (void)state;
    struct lh_compare c;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_ok(lh_compare_init(&c, entries, 3, 4, true));
    assert_ok(lh_compare_print(&c, f));
    fclose(f);
    kit_assert_contains(text, "algorithm  runs   value      95% interval  sd of runs  ESS share");
    kit_assert_contains(text,
                        "il            2  2.0000  2.0000 to 2.0000      0.7071      40.0% (30.0%)");
    kit_assert_contains(text, "resact        1  3.2500");
    kit_assert_contains(text, "           -      20.0% (20.0%)");
    kit_assert_contains(text, "resact - il              +1.2500  +0.7600 to +1.7400");
    free(text);
    cJSON *o = cJSON_CreateObject();
    lh_compare_json(&c, o);
    const cJSON *il = cJSON_GetArrayItem(cJSON_GetObjectItem(o, "pooled"), 0);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(il, "algorithm")), "il");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(il, "runs")) == 2);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(il, "value")) == 2);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(il, "ess_share_min")) == 0.3);
    cJSON_Delete(o);
    lh_compare_fini(&c);
}

static void not_pooled_every_two_runs_are_a_pair(void **state)
{
    (void)state;
    struct lh_compare c;
    assert_ok(lh_compare_init(&c, entries, 3, 4, false));
    assert_int_equal(c.n_groups, 3);
    assert_int_equal(c.n_pairs, 3);
    assert_true(c.pairs[1].a == 2 && c.pairs[1].b == 0 && c.pairs[1].difference == -1);
    cJSON *o = cJSON_CreateObject();
    lh_compare_json(&c, o);
    assert_null(cJSON_GetObjectItem(o, "pooled"));
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "pairs")), 3);
    cJSON_Delete(o);
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_ok(lh_compare_print(&c, f));
    fclose(f);
    kit_assert_contains(text, "runs/il-2 - runs/resact");
    free(text);
    lh_compare_fini(&c);
}

static void no_policy_is_no_comparison(void **state)
{
    (void)state;
    struct lh_compare c;
    assert_ok(lh_compare_init(&c, entries, 0, 4, true));
    assert_int_equal(c.n_groups + c.n_pairs, 0);
    lh_compare_fini(&c);
}

static void init_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct lh_compare c;
    for (uint64_t n = 1;; n++) {
        lh_mem_fail_at(n);
        int rc = lh_compare_init(&c, entries, 3, 4, true);
        lh_mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
    lh_compare_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(pooled_runs_of_an_algorithm_are_averaged_by_trajectory),
        kit_test(pooled_result_is_printed_and_is_json),
        kit_test(not_pooled_every_two_runs_are_a_pair),
        kit_test(no_policy_is_no_comparison),
        kit_test(init_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("compare", tests, NULL, NULL);
}
