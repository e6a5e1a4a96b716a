#include "common/reward.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

#define HOUR INT64_C(3600000000)

static const char *const ratings[] = {"1", "2", "3", "4", "5"};
static const struct lh_column columns[] = {
    {.name = "watch", .type = LH_COLUMN_NUMBER},
    {.name = "like", .type = LH_COLUMN_NUMBER},
    {.name = "stars", .type = LH_COLUMN_CATEGORY, .values = ratings, .n_values = 5},
    {.name = "item", .type = LH_COLUMN_ID},
};
#define N_COLUMNS 4

/* Three sessions of 2, 1 and 3 rows; gaps 3 h, 1 h. */
static const int64_t times[] = {0, HOUR, 4 * HOUR, 5 * HOUR, 6 * HOUR, 7 * HOUR};
static const uint32_t sessions[] = {0, 0, 1, 2, 2, 2};
static const float watch[] = {10, 20, 30, 40, 50, 60};
static const float like[] = {0, 1, 0, 0, 1, 1};
static const uint32_t stars[] = {0, 1, 2, 3, 4, 1};
static const uint64_t item[] = {1, 2, 3, 4, 5, 6};
static const union lh_column_data data[] = {
    {.number = watch}, {.number = like}, {.category = stars}, {.id = item}};
static const struct lh_user_log user = {
    .user = 7, .split = LH_TRAIN, .n = 6, .time_us = times, .session = sessions, .column = data};

static int create(struct lh_reward_plan **p, const char *text)
{
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "s.yaml"));
    int rc = lh_reward_plan_create(p, lh_yaml_get(lh_yaml_root(doc), "reward"), columns, N_COLUMNS);
    lh_yaml_destroy(&doc);
    return rc;
}

/* Rewards of `user` under `text`, its own averages the only ones. */
static void expect(const char *text, const float want[6])
{
    struct lh_reward_plan *p = NULL;
    float got[6];
    assert_ok(create(&p, text));
    assert_ok(lh_reward_plan_observe(p, &user));
    assert_ok(lh_reward_plan_finish(p));
    assert_ok(lh_reward_plan_apply(p, &user, got));
    for (int i = 0; i < 6; i++)
        kit_assert_close(got[i], want[i], 1e-6, text);
    lh_reward_plan_destroy(&p);
}

static void return_time_follows_eq_21(void **state)
{
    (void)state;
    assert_true(lh_reward_return_time(2, 7, 100) == 3.0f);   /* floor(3.5) */
    assert_true(lh_reward_return_time(2, 100, 7) == 3.0f);   /* the percentile caps the average */
    assert_true(lh_reward_return_time(7.5, 7, 100) == 0.0f); /* later than usual */
    assert_true(lh_reward_return_time(0.1, 7, 100) == 5.0f); /* clipped */
    assert_true(lh_reward_gap_seconds(0, 90000000) == 90.0);
    assert_true(lh_reward_gap_seconds(5, 5) == 1.0);
    assert_true(lh_reward_gap_seconds(9000000, 0) == 1.0); /* overlapping sessions */
}

static void session_length_follows_eq_22(void **state)
{
    (void)state;
    assert_true(lh_reward_session_length(4, 5) == 1.0f); /* 4 / (5 * 0.8) is 1 exactly */
    assert_true(lh_reward_session_length(3, 5) == 0.0f);
    assert_true(lh_reward_session_length(12, 5) == 3.0f);
    assert_true(lh_reward_session_length(100, 5) == 5.0f);
    assert_true(lh_reward_session_length(0, 0) == 0.0f);
}

static void apply_column_scales_and_clips(void **state)
{
    (void)state;
    expect("reward: {column: watch, scale: 0.1, clip: [2, 5]}", (float[]){2, 2, 3, 4, 5, 5});
}

static void apply_map_of_category_and_number_looks_up(void **state)
{
    (void)state;
    expect("reward: {map: {column: stars, values: {1: -1, 2: 0, 3: 1, 4: 2, 5: 3}}}",
           (float[]){-1, 0, 1, 2, 3, 0});
    expect("reward: {map: {column: watch, values: {20: 7, 60.0: 8}, otherwise: -2}}",
           (float[]){-2, 7, -2, -2, -2, 8});
}

static void apply_return_time_rewards_the_session_before_the_gap(void **state)
{
    (void)state;
    /* gaps 3 h, 1 h; average 2 h = p75: floor(2 / 3) = 0, floor(2 / 1) = 2; none for the last */
    expect("reward: {return_time: {}}", (float[]){0, 0, 2, 0, 0, 0});
}

static void apply_session_length_rewards_last_rows(void **state)
{
    (void)state;
    /* lengths 2, 1, 3; average 2 * 0.8 = 1.6: floor(1.25), floor(0.625), floor(1.875) */
    expect("reward: {session_length: {}}", (float[]){0, 1, 0, 0, 0, 1});
    /* seconds: 1 h, 0, 2 h; average 1 h: floor(1.25), 0, floor(2.5) */
    expect("reward: {session_length: {measure: seconds}}", (float[]){0, 1, 0, 0, 0, 2});
    /* the column at last rows: 20, 30, 60; average 36.67 * 0.8 = 29.33 */
    expect("reward: {session_length: {column: watch}}", (float[]){0, 0, 1, 0, 0, 2});
}

static void apply_sum_and_mix_add_weighted_parts(void **state)
{
    (void)state;
    expect("reward: {weighted_sum: {watch: 0.1, like: -2}}", (float[]){1, 0, 3, 4, 3, 4});
    expect("reward: {mix: [{weight: 0.7, rule: {return_time: {}}},\n"
           "               {weight: 0.3, rule: {session_length: {}, scale: 2}}]}",
           (float[]){0, 0.6f, 1.4f, 0, 0, 0.6f});
}

/* Users whose one gap is hours[i]; returns the percentile in hours. */
static double p75_of(const double *hours, const enum lh_split *splits, size_t n)
{
    struct lh_reward_plan *p = NULL;
    assert_ok(create(&p, "reward: {return_time: {}}"));
    for (size_t i = 0; i < n; i++) {
        int64_t t[] = {0, (int64_t)(hours[i] * (double)HOUR)};
        uint32_t s[] = {0, hours[i] > 0}; /* no gap: one session */
        struct lh_user_log log = user;
        log.n = 2;
        log.split = splits[i];
        log.time_us = t;
        log.session = s;
        assert_ok(lh_reward_plan_observe(p, &log));
    }
    int rc = lh_reward_plan_finish(p);
    double hours75 = rc ? rc : lh_reward_plan_p75(p) / 3600;
    lh_reward_plan_destroy(&p);
    return hours75;
}

static void finish_takes_the_percentile_of_training_users_in_any_order(void **state)
{
    (void)state;
    enum lh_split s[] = {LH_TRAIN, LH_TEST,  LH_TRAIN,      LH_TRAIN,
                         LH_TRAIN, LH_TRAIN, LH_VALIDATION, LH_TRAIN};
    /* training users with two sessions: 1, 2, 3, 10 -> rank 2.25 -> 3 + 0.25 * 7 */
    kit_assert_close(p75_of((double[]){10, 99, 2, 0, 1, 3, 99, 0}, s, 8), 4.75, 1e-6, "p75");
    kit_assert_close(p75_of((double[]){1, 99, 3, 0, 10, 0, 99, 2}, s, 8), 4.75, 1e-6, "p75");
    assert_true(p75_of((double[]){0, 99}, s, 2) == (double)LH_ERANGE);
}

static void apply_percentile_caps_users_who_rarely_come(void **state)
{
    (void)state;
    struct lh_reward_plan *p = NULL;
    assert_ok(create(&p, "reward: {return_time: {}}"));
    int64_t t[] = {0, HOUR};
    uint32_t s[] = {0, 1};
    struct lh_user_log other = user;
    other.n = 2;
    other.time_us = t;
    other.session = s;
    assert_ok(lh_reward_plan_observe(p, &other)); /* p75 is 1 h; the average of `user` is 2 h */
    assert_ok(lh_reward_plan_finish(p));
    float got[6];
    assert_ok(lh_reward_plan_apply(p, &user, got));
    assert_true(got[2] == 1.0f);
    lh_reward_plan_destroy(&p);
}

static void apply_refuses_what_has_no_reward(void **state)
{
    (void)state;
    struct lh_reward_plan *p = NULL;
    float got[6];
    assert_ok(create(&p, "reward: {map: {column: watch, values: {10: 1, 20: 2}}}"));
    assert_err(lh_reward_plan_apply(p, &user, got), LH_ERANGE, "column 'watch' has the value 30");
    lh_reward_plan_destroy(&p);
    assert_ok(create(&p, "reward: {map: {column: stars, values: {1: 1}}}"));
    assert_err(lh_reward_plan_apply(p, &user, got), LH_ERANGE, "column 'stars' has no entry");
    lh_reward_plan_destroy(&p);
    static const float holes[] = {1, NAN, 1, 1, 1, 1};
    union lh_column_data d[4] = {{.number = holes}, {.number = like}, {.category = stars}};
    struct lh_user_log log = user;
    log.column = d;
    static const char *const rules[] = {"reward: {column: watch}",
                                        "reward: {weighted_sum: {watch: 1}}",
                                        "reward: {session_length: {column: watch}}"};
    for (int i = 0; i < 3; i++) {
        assert_ok(create(&p, rules[i]));
        assert_err(lh_reward_plan_apply(p, &log, got), LH_ERANGE, "column 'watch' is missing");
        lh_reward_plan_destroy(&p);
    }
}

static void create_bad_rule_names_line_and_cure(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"reward: 3", "s.yaml:1: reward"},
        {"reward: {}", "no rule"},
        {"reward: {column: wach}", "did you mean 'watch'"},
        {"reward: {column: item}", "of type id"},
        {"reward: {colunm: watch}", "did you mean 'column'"},
        {"reward: {column: watch, map: {}}", "use mix: to join"},
        {"reward: {map: {column: watch}}", "needs column: and values:"},
        {"reward:\n  map: {column: watch, values: {x: 1}}", "s.yaml:2: reward.map.values.x"},
        {"reward: {map: {column: stars, values: {6: 1}}}", "'6' is not among the values"},
        {"reward: {map: {column: item, values: {6: 1}}}", "is an id"},
        {"reward: {return_time: {hours: 2}}", "unknown key"},
        {"reward: {session_length: {measure: miles}}", "miles"},
        {"reward: {session_length: {measure: rows, column: watch}}", "not both"},
        {"reward: {weighted_sum: {}}", "no feedback"},
        {"reward: {weighted_sum: {stars: 1}}", "of type category"},
        {"reward: {weighted_sum: {like: often}}", "often"},
        {"reward: {mix: []}", "empty mix"},
        {"reward: {mix: [{weight: 1}]}", "needs weight: and rule:"},
        {"reward: {column: watch, clip: [3, 1]}", "above the highest"},
        {"reward: {column: watch, clip: [3]}", "[lowest, highest]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_reward_plan *p = NULL;
        assert_err(create(&p, bad[i].text), LH_ECONFIG, bad[i].says);
        assert_null(p);
    }
}

static void uses_and_looks_ahead_tell_what_features_must_avoid(void **state)
{
    (void)state;
    struct lh_reward_plan *p = NULL;
    assert_ok(create(&p, "reward: {mix: [{weight: 1, rule: {weighted_sum: {like: 1}}},\n"
                         "               {weight: 1, rule: {map: {column: stars, values: {1: 1}, "
                         "otherwise: 0}}}]}"));
    assert_false(lh_reward_plan_uses(p, 0));
    assert_true(lh_reward_plan_uses(p, 1));
    assert_true(lh_reward_plan_uses(p, 2));
    assert_false(lh_reward_plan_looks_ahead(p));
    assert_false(lh_reward_plan_needs_pass(p));
    lh_reward_plan_destroy(&p);
    assert_ok(create(&p, "reward: {session_length: {column: watch}}"));
    assert_true(lh_reward_plan_uses(p, 0));
    assert_true(lh_reward_plan_looks_ahead(p));
    lh_reward_plan_destroy(&p);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    const char *text = "reward: {mix: [{weight: 1, rule: {weighted_sum: {like: 1}}}, {weight: 1, "
                       "rule: {map: {column: stars, values: {1: 1}, otherwise: 0}}}]}";
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "s.yaml"));
    const struct lh_yaml_node *node = lh_yaml_get(lh_yaml_root(doc), "reward");
    int rc = LH_ENOMEM;
    for (uint64_t k = 1; rc == LH_ENOMEM; k++) {
        uint64_t live = lh_mem_live();
        struct lh_reward_plan *p = NULL;
        lh_mem_fail_at(k);
        rc = lh_reward_plan_create(&p, node, columns, N_COLUMNS);
        lh_mem_fail_at(0);
        assert_true(k > 1 || rc == LH_ENOMEM);
        lh_reward_plan_destroy(&p);
        assert_int_equal(lh_mem_live(), live);
    }
    assert_int_equal(rc, 0);
    lh_yaml_destroy(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(return_time_follows_eq_21),
        kit_test(session_length_follows_eq_22),
        kit_test(apply_column_scales_and_clips),
        kit_test(apply_map_of_category_and_number_looks_up),
        kit_test(apply_return_time_rewards_the_session_before_the_gap),
        kit_test(apply_session_length_rewards_last_rows),
        kit_test(apply_sum_and_mix_add_weighted_parts),
        kit_test(finish_takes_the_percentile_of_training_users_in_any_order),
        kit_test(apply_percentile_caps_users_who_rarely_come),
        kit_test(apply_refuses_what_has_no_reward),
        kit_test(create_bad_rule_names_line_and_cure),
        kit_test(uses_and_looks_ahead_tell_what_features_must_avoid),
        kit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
