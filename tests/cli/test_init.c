/* `longhaul init` from outside: what it proposes for a log must import as it stands. */
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

static int in_dir(char **out, const char *command)
{
    return kit_run(out, "exec </dev/null; cd '%s' && PATH='%s':$PATH && %s", kit_dir(),
                   LH_BINARY_DIR, command);
}

static void assert_runs(const char *command)
{
    char *out = NULL;
    int status = in_dir(&out, command);
    if (status != 0)
        fail_msg("%s: status %d:\n%s", command, status, out);
    free(out);
}

static void assert_schema_has(const char *const *parts)
{
    char *text = kit_read(kit_path("mine/schema.yaml"), NULL);
    for (; *parts; parts++)
        kit_assert_contains(text, *parts);
    free(text);
}

/* 40 users of 30 rows each; `row` writes one. */
static void write_log(const char *name, const char *header,
                      void (*row)(FILE *f, unsigned user, unsigned k, unsigned item))
{
    FILE *f = fopen(kit_path(name), "w");
    assert_non_null(f);
    fputs(header, f);
    for (unsigned user = 0; user < 40; user++)
        for (unsigned k = 0; k < 30; k++)
            row(f, user, k, (user * 7 + k * k) % 61);
    fclose(f);
}

static void signals_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f, "%u,%u,%u,%u,%u,%u,%u\n", user, 20220401 + k % 20,
            1650812741 + user * 86400 + k * 900, item, item % 3 == 0, item % 7 == 0, item * 1000);
}

static void the_finest_time_counts_and_signals_have_signs(void **state)
{
    (void)state;
    write_log("log.csv", "user_id,date,time,video_id,is_click,is_hate,play_time\n", signals_row);
    assert_runs("longhaul init log.csv --out mine");
    assert_schema_has((const char *const[]){"# date: number", "time: {type: time, unit: s}",
                                            "is_click: 1\n", "is_hate: -1\n", "# play_time: 0 ",
                                            NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset");
}

static void named_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f, "u%u;%u;%s;%u;%u;%.2f\n", user, 1500000000 + user * 86400 + k * 900,
            k % 2 ? "web" : "app", item, item % 3 == 0, item * 0.5);
}

static void names_and_values_give_the_roles(void **state)
{
    (void)state;
    write_log("log.csv", "userId;eventTime;device;item_id;is_click;price\n", named_row);
    assert_runs("longhaul init log.csv --out mine");
    assert_schema_has((const char *const[]){
        "separator: ';'", "userId: id   # check: who", "eventTime: {type: time, unit: s}",
        "device: {type: category, values: [app, web], unknown: other, missing: other}",
        "item_id: id   # check: what was shown", "# price: number   # not used; 0 to 30",
        "user: userId", "gap_minutes: 30", "weighted_sum:\n    is_click: 1",
        "{one_hot: device, at: session_start}", "- embedding: item_vector", NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset --quiet");
}

static void ratings_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f, "%u::%u::%u::%u\n", user + 1, item + 100, 1 + item % 5, 978300000 + k * 60);
}

static void log_without_names_is_guessed_from_values(void **state)
{
    (void)state;
    write_log("ratings.dat", "", ratings_row);
    assert_runs("gzip ratings.dat && longhaul init ratings.dat.gz --out mine");
    assert_schema_has((const char *const[]){
        "separator: '::'", "columns: [column_1, column_2, column_3, column_4]", "column_1: id",
        "column_4: {type: time, unit: s}", "reward: {column: column_3}", "feedback: explicit",
        "guessed from order and values", NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset --quiet");
}

static void json_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f,
            "{\"user\":{\"id\":\"a%u\"},\"session\":%u,\"ts\":\"2024-01-%02uT%02u:00:00Z\","
            "\"state\":[%u,%u.5],\"action_0\":%u.25,\"action_1\":-%u,\"reward\":%u}\n",
            user, k / 6, 1 + k % 28, user % 24, k, item, item, k, item % 4);
}

static void json_lines_with_nested_states_are_understood(void **state)
{
    (void)state;
    write_log("log.jsonl", "", json_row);
    assert_runs("longhaul init log.jsonl --out mine");
    assert_schema_has((const char *const[]){
        "format: jsonl", "user_id: {type: id, from: user.id}", "session: id",
        "ts: {type: time, unit: iso8601}", "state_0: {type: number, from: state.0}",
        "{type: number, range: action_0..action_1}", "c_reward: {type: number, from: reward}",
        "reward: {column: c_reward}", "- column: action_0..action_1", "- column: state_1", NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset --quiet");
}

static void session_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f, "%u,%u,%s,%u\n", user, k, k % 5 ? "view" : "purchase", item);
}

static void sessions_without_users_and_events_are_understood(void **state)
{
    (void)state;
    write_log("log.csv", "session_id,timestamp_s,event,item\n", session_row);
    assert_runs("longhaul init log.csv --out mine");
    assert_schema_has((const char *const[]){
        "a session is taken for a user", "user: session_id", "timestamp_s: {type: time, unit: s}",
        "column: event\n    values:\n      purchase: 1\n      view: 1", NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset --quiet");
}

static void clicks_row(FILE *f, unsigned user, unsigned k, unsigned item)
{
    fprintf(f, "%u,%u,%u\n", user, 1500000000 + user * 3600 + k / 5 * 86400 + k % 5 * 60, item);
}

/* Nothing but clicks: what sessions earn is learned, and may be weighed by sessions. */
static void clicks_alone_are_rewarded_by_sessions(void **state)
{
    (void)state;
    write_log("log.csv", "user_id,timestamp_s,item\n", clicks_row);
    assert_runs("longhaul init log.csv --out mine");
    assert_schema_has((const char *const[]){"rule: {return_time: {}}", NULL});
    assert_runs("longhaul import mine/schema.yaml --out mine/dataset --quiet");
    assert_runs("sed -i 's/# unit:/unit:/' mine/job.yaml && "
                "longhaul train mine/job.yaml --dir mine/run --quiet --set train.steps=4");
    char *text = kit_read(kit_path("mine/run/test.json"), NULL);
    kit_assert_contains(text, "\"unit\":\"session\"");
    free(text);
}

static void what_cannot_be_known_is_left_to_decide(void **state)
{
    (void)state;
    char *out = NULL;
    kit_write(kit_path("log.csv"), "alpha,beta\n1.5,2\n2.5,3\n");
    assert_int_equal(in_dir(&out, "longhaul init log.csv --out mine --json"), 0);
    kit_assert_contains(out, "\"undecided\":[\"no column looks like a user");
    kit_assert_contains(out, "trajectory:\",\"no column looks like an item or an action");
    kit_assert_contains(out, "was chosen\",\"no column looks like a reward");
    free(out);
    assert_schema_has(
        (const char *const[]){"# To decide before an import: no column looks like a user",
                              "# To decide before an import: no column looks like an item",
                              "# To decide before an import: no column looks like a reward",
                              "# user: COLUMN", "# action:", NULL});
    assert_int_equal(in_dir(&out, "longhaul init log.csv --out mine --force"), 0);
    kit_assert_contains(out, "to decide: no column looks like a user");
    kit_assert_contains(out, "to decide: no column looks like an item");
    kit_assert_contains(out, "to decide: no column looks like a reward");
    free(out);
    assert_int_equal(in_dir(&out, "longhaul import mine/schema.yaml --out mine/dataset"), 3);
    free(out);
}

static void what_is_no_log_is_refused(void **state)
{
    (void)state;
    char *out = NULL;
    kit_write(kit_path("log.csv"), "");
    assert_int_equal(in_dir(&out, "longhaul init log.csv --out mine"), 3);
    kit_assert_contains(out, "longhaul: log.csv: ");
    free(out);
    kit_write(kit_path("log.csv"), "once upon a time\nthere was\n");
    assert_int_equal(in_dir(&out, "longhaul init log.csv --out mine"), 3);
    kit_assert_contains(out, "is this a log?");
    free(out);
    assert_int_equal(in_dir(&out, "longhaul init none.csv --out mine"), 4);
    kit_assert_contains(out, "none.csv: No such file");
    free(out);
    assert_int_equal(in_dir(&out, "test -e mine"), 1);
    free(out);
}

static void files_that_are_there_stay(void **state)
{
    (void)state;
    char *out = NULL;
    write_log("log.csv", "session_id,timestamp_s,event,item\n", session_row);
    assert_runs("mkdir mine && echo precious > mine/job.yaml");
    assert_int_equal(in_dir(&out, "longhaul init log.csv --out mine"), 4);
    kit_assert_contains(out, "mine/job.yaml: is there already; remove it, or use --force");
    free(out);
    assert_runs("grep -q precious mine/job.yaml && test ! -e mine/schema.yaml");
    assert_runs("longhaul init log.csv --out mine --force");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(names_and_values_give_the_roles),
        kit_test(the_finest_time_counts_and_signals_have_signs),
        kit_test(log_without_names_is_guessed_from_values),
        kit_test(json_lines_with_nested_states_are_understood),
        kit_test(sessions_without_users_and_events_are_understood),
        kit_test(clicks_alone_are_rewarded_by_sessions),
        kit_test(what_cannot_be_known_is_left_to_decide),
        kit_test(what_is_no_log_is_refused),
        kit_test(files_that_are_there_stay),
    };
    return cmocka_run_group_tests_name("init", tests, NULL, NULL);
}
