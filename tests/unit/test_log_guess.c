/* What names and values of columns are taken to mean. */
#include "cluster/log_guess.h"

#include "tests/testkit.h"

#include <string.h>

/* A column of whole numbers, few or many. */
static struct lh_probe_column numbers(char *name, double lo, double hi, size_t n_values)
{
    return (struct lh_probe_column){.name = name,
                                    .present = 100,
                                    .numbers = 100,
                                    .whole = 100,
                                    .lo = lo,
                                    .hi = hi,
                                    .n_values = n_values,
                                    .many = n_values > 50};
}

static struct lh_probe_column words(char *name, size_t n_values)
{
    return (struct lh_probe_column){
        .name = name, .present = 100, .n_values = n_values, .many = n_values > 50};
}

static enum lh_role role_of(struct lh_probe_column column, enum lh_time_unit *unit)
{
    const struct lh_log_probe p = {.header = true, .columns = &column, .n_columns = 1};
    struct lh_log_guess g;
    assert_ok(lh_log_guess_make(&g, &p));
    enum lh_role role = g.role[0];
    if (unit)
        *unit = g.unit;
    /* one session column without users stands for them */
    if (role == LH_ROLE_USER && g.user_is_session)
        role = LH_ROLE_SESSION;
    lh_log_guess_fini(&g);
    lh_log_guess_fini(&g);
    return role;
}

static void role_follows_from_name_and_values(void **state)
{
    (void)state;
    struct {
        char name[32];
        double lo, hi;
        size_t values;
        enum lh_role role;
    } column[] = {
        {"user_id", 1, 1e6, 60, LH_ROLE_USER},
        {"visitorId", 1, 1e6, 60, LH_ROLE_USER},
        {"user_age", 18, 90, 30, LH_ROLE_CONTEXT},
        {"session", 1, 1e6, 60, LH_ROLE_SESSION},
        {"movieId", 1, 4000, 60, LH_ROLE_ITEM},
        {"rating", 1, 5, 5, LH_ROLE_RATING},
        {"score", 0, 1e6, 60, LH_ROLE_NONE}, /* a scale is few values */
        {"reward", -1, 3, 5, LH_ROLE_REWARD},
        {"is_click", 0, 1, 2, LH_ROLE_FEEDBACK},
        {"click", -1, 1, 3, LH_ROLE_CONTEXT}, /* no count is below 0 */
        {"done", 0, 1, 2, LH_ROLE_END},
        {"done", 0, 7, 8, LH_ROLE_CONTEXT},
        {"state_12", 0, 9, 10, LH_ROLE_STATE},
        {"action.0", 0, 9, 10, LH_ROLE_ACTION},
        {"position", 1, 10, 10, LH_ROLE_NONE}, /* known after the fact */
        {"date", 20200101, 20201231, 60, LH_ROLE_NONE},
        {"hour", 0, 23, 24, LH_ROLE_CONTEXT},
        {"price", 0, 1e6, 60, LH_ROLE_NONE},
    };
    for (size_t i = 0; i < sizeof column / sizeof *column; i++) {
        enum lh_role role =
            role_of(numbers(column[i].name, column[i].lo, column[i].hi, column[i].values), NULL);
        if (role != column[i].role)
            fail_msg("%s: role %d, expected %d", column[i].name, (int)role, (int)column[i].role);
    }
    char event[] = "event", device[] = "device", text[] = "text";
    assert_int_equal(role_of(words(event, 3), NULL), LH_ROLE_EVENT);
    assert_int_equal(role_of(words(device, 3), NULL), LH_ROLE_CONTEXT);
    assert_int_equal(role_of(words(text, 60), NULL), LH_ROLE_NONE);
}

static void unit_of_time_follows_from_its_size_or_its_name(void **state)
{
    (void)state;
    static const double now = 1.6e9;
    enum lh_time_unit unit;
    char time[] = "timestamp", ms[] = "time_ms", day[] = "day";
    static const enum lh_time_unit units[] = {LH_TIME_S, LH_TIME_MS, LH_TIME_US, LH_TIME_NS};
    double scale = 1;
    for (size_t i = 0; i < 4; i++, scale *= 1e3) {
        assert_int_equal(role_of(numbers(time, now * scale, 1.1 * now * scale, 60), &unit),
                         LH_ROLE_TIME);
        assert_int_equal(unit, units[i]);
    }
    assert_int_equal(role_of(numbers(ms, 0, 5000, 60), &unit), LH_ROLE_TIME);
    assert_int_equal(unit, LH_TIME_MS);
    assert_int_equal(role_of(numbers(day, 0, 30, 31), &unit), LH_ROLE_TIME);
    assert_int_equal(unit, LH_TIME_DAY);
    struct lh_probe_column iso = words(time, 60);
    iso.iso = iso.present;
    assert_int_equal(role_of(iso, &unit), LH_ROLE_TIME);
    assert_int_equal(unit, LH_TIME_ISO8601);
    assert_int_not_equal(role_of(words(time, 60), &unit), LH_ROLE_TIME);
}

static void one_column_has_a_role_that_only_one_may_have(void **state)
{
    (void)state;
    char user[] = "user_id", member[] = "member_id", day[] = "day", ts[] = "ts", date[] = "created";
    struct lh_probe_column c[] = {numbers(user, 1, 1e6, 60), numbers(member, 1, 1e6, 60),
                                  numbers(day, 0, 30, 31), numbers(date, 1.6e9, 1.7e9, 30),
                                  numbers(ts, 1.6e9, 1.7e9, 40)};
    struct lh_log_probe p = {.header = true, .columns = c, .n_columns = 5};
    struct lh_log_guess g;
    assert_ok(lh_log_guess_make(&g, &p));
    assert_true(g.user == 0 && g.role[1] == LH_ROLE_NONE);
    assert_true(g.time == 4); /* the finest */
    assert_true(g.role[2] == LH_ROLE_NONE && g.role[3] == LH_ROLE_NONE);
    assert_true(g.item == SIZE_MAX && g.session == SIZE_MAX);
    lh_log_guess_fini(&g);
    /* sessions stand for users where there are none */
    char session[] = "session_id";
    c[0] = numbers(session, 1, 1e6, 60);
    p.n_columns = 1;
    assert_ok(lh_log_guess_make(&g, &p));
    assert_true(g.user == 0 && g.session == SIZE_MAX && g.user_is_session);
    lh_log_guess_fini(&g);
}

static void columns_without_names_are_told_by_values_and_order(void **state)
{
    (void)state;
    char name[] = "column";
    struct lh_probe_column c[] = {numbers(name, 1, 6000, 60), numbers(name, 1, 4000, 60),
                                  numbers(name, 0, 1, 2), numbers(name, 9e8, 1e9, 60),
                                  numbers(name, 1, 5, 5)};
    const struct lh_log_probe p = {.columns = c, .n_columns = 5};
    struct lh_log_guess g;
    assert_ok(lh_log_guess_make(&g, &p));
    assert_true(g.by_position);
    assert_true(g.user == 0 && g.item == 1 && g.rating == 4 && g.time == 3);
    assert_int_equal(g.role[2], LH_ROLE_NONE);
    lh_log_guess_fini(&g);
}

static void signals_that_speak_against_an_item_are_known(void **state)
{
    (void)state;
    assert_true(lh_log_guess_is_bad("is_hate"));
    assert_true(lh_log_guess_is_bad("numSkipped"));
    assert_false(lh_log_guess_is_bad("is_like"));
    assert_false(lh_log_guess_is_bad("hated")); /* words, not parts of them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(role_follows_from_name_and_values),
        kit_test(unit_of_time_follows_from_its_size_or_its_name),
        kit_test(one_column_has_a_role_that_only_one_may_have),
        kit_test(columns_without_names_are_told_by_values_and_order),
        kit_test(signals_that_speak_against_an_item_are_known),
    };
    return cmocka_run_group_tests_name("log_guess", tests, NULL, NULL);
}
