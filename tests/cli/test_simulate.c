/* `longhaul simulate` from outside: a log goes through import and its world is found again. */
#include "tests/testkit.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

/* Runs the program; its standard output is a JSON document. */
static cJSON *json_of(const char *arguments)
{
    char *out = NULL;
    int status = kit_run(&out, "cd %s && %s simulate %s --json -q 2>/dev/null", kit_dir(), PROGRAM,
                         arguments);
    if (status != 0)
        fail_msg("simulate %s: exit %d: %s", arguments, status, out);
    cJSON *doc = cJSON_Parse(out);
    if (!doc)
        fail_msg("simulate %s: no JSON: %s", arguments, out);
    free(out);
    return doc;
}

static double number(const cJSON *o, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, name);
    if (!cJSON_IsNumber(item))
        fail_msg("no number '%s'", name);
    return item->valuedouble;
}

static const cJSON *policy(const cJSON *doc, const char *name)
{
    const cJSON *p, *list = cJSON_GetObjectItemCaseSensitive(doc, "policies");
    cJSON_ArrayForEach(p, list)
    {
        if (strcmp(cJSON_GetObjectItemCaseSensitive(p, "policy")->valuestring, name) == 0)
            return p;
    }
    fail_msg("no policy '%s'", name);
    return NULL;
}

static void expect_failure(int status, const char *text, const char *arguments)
{
    char *out = NULL;
    int got = kit_run(&out, "cd %s && %s simulate %s", kit_dir(), PROGRAM, arguments);
    if (got != status)
        fail_msg("simulate %s: exit %d, expected %d: %s", arguments, got, status, out);
    kit_assert_contains(out, text);
    free(out);
}

static void log_through_import_keeps_its_world(void **state)
{
    (void)state;
    cJSON *log = json_of("--out log --users 60 --sessions 3 --files 2 --gzip --world-seed 9");
    char *out = NULL;
    assert_int_equal(
        kit_run(&out, "cd %s && %s import log/schema.yaml --out ds 2>&1", kit_dir(), PROGRAM), 0);
    free(out);
    cJSON_Delete(json_of("--out direct --format dataset --users 60 --sessions 3 --world-seed 9"));
    cJSON *a = json_of("--play mean --dataset ds --users 200 --sessions 5");
    cJSON *b = json_of("--play mean --dataset direct --users 200 --sessions 5 --threads 1");
    cJSON *c = json_of("--play mean --world-file log/world.json --users 200 --sessions 5");
    cJSON *d = json_of("--play mean --users 200 --sessions 5"); /* another world */
    assert_true(cJSON_Compare(a, b, true) && cJSON_Compare(a, c, true));
    assert_false(cJSON_Compare(a, d, true));
    assert_true(number(log, "requests") > 180);
    cJSON_Delete(log);
    cJSON_Delete(a);
    cJSON_Delete(b);
    cJSON_Delete(c);
    cJSON_Delete(d);
}

static void play_orders_the_policies(void **state)
{
    (void)state;
    cJSON *doc = json_of("--play random --play greedy --play mean --users 300 --sessions 10");
    double behaviour = number(policy(doc, "behaviour"), "reward");
    double mean = number(policy(doc, "mean"), "reward");
    double greedy = number(policy(doc, "greedy"), "reward");
    double optimum = number(policy(doc, "optimum"), "reward");
    assert_true(number(policy(doc, "random"), "gain_hi") < 0);
    assert_true(behaviour < mean && mean < greedy && greedy < optimum);
    assert_true(number(policy(doc, "behaviour"), "gain") == 0);
    kit_assert_close(number(policy(doc, "mean"), "gain"), mean - behaviour, 1e-12, "gain");
    assert_true(number(policy(doc, "optimum"), "closed") == 1);
    cJSON_Delete(doc);
}

/* A trained policy is played from its run and from its snapshot: it is the same policy. */
static void play_takes_runs_and_snapshots_and_prints_a_table(void **state)
{
    (void)state;
    char *out = NULL;
    kit_write(kit_path("job.yaml"), "dataset: ds\nalgorithm: il\nnetwork: {hidden: [8, 8]}\n"
                                    "train: {batch: 32, micro_batch: 16, steps: 4}\n");
    int status =
        kit_run(&out,
                "cd '%s' && PATH='%s':$PATH OPENBLAS_NUM_THREADS=1 && export PATH && "
                "longhaul simulate --out ds --format dataset --users 60 --sessions 3 && "
                "longhaul train job.yaml --dir run --no-evaluation --quiet && "
                "longhaul export --dir run --out snap --cut last && "
                "longhaul simulate --dataset ds --play run --play snap --users 100 --sessions 3",
                kit_dir(), LH_BINARY_DIR);
    if (status != 0)
        fail_msg("status %d: %s", status, out);
    static const char *const parts[] = {"session length", "return time (h)", "60 users,",
                                        "behaviour", "optimum"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        kit_assert_contains(out, parts[i]);
    free(out);
    cJSON *doc = json_of("--dataset ds --play run --play snap --users 100 --sessions 3");
    assert_true(number(policy(doc, "run"), "reward") == number(policy(doc, "snap"), "reward"));
    assert_true(number(policy(doc, "run"), "reward") != number(policy(doc, "behaviour"), "reward"));
    cJSON_Delete(doc);
}

static void refusals_say_what_is_wrong(void **state)
{
    (void)state;
    expect_failure(2, "give --out DIR", "");
    expect_failure(2, "did you mean 'bias'?", "--play mean --world bais=1");
    expect_failure(2, "bias=NUMBER", "--play mean --world bias=much");
    expect_failure(3, "bias is 9", "--play mean --world bias=9");
    expect_failure(4, "no snapshot or run", "--play elsewhere");
    expect_failure(2, "describe a new world", "--play mean --dataset ds --world-seed 3");
    kit_write(kit_path("other.json"), "{\"simulation\": 3}");
    expect_failure(3, "no world of a simulation", "--play mean --world-file other.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(log_through_import_keeps_its_world),
        kit_test(play_orders_the_policies),
        kit_test(play_takes_runs_and_snapshots_and_prints_a_table),
        kit_test(refusals_say_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
