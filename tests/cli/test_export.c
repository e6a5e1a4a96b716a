/* `longhaul export` from outside: which checkpoint, what it says, what it refuses. */
#include "tests/faultkit.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* Standard output of a command that must succeed; free(). */
static char *output_of(const char *command)
{
    char *text = NULL;
    faultkit_passes("%s > out", command);
    text = kit_read(kit_path("out"), NULL);
    return text;
}

static void export_tells_which_checkpoint_of_which_run(void **state)
{
    (void)state;
    char *text = output_of("longhaul export --dir run --out last --cut last");
    assert_string_equal(text, "last: step 20 (last) of run, resact\n");
    free(text);
    text = output_of("longhaul export --dir run --out json --cut last --json");
    cJSON *doc = cJSON_Parse(text);
    assert_non_null(doc);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(doc, "snapshot")), "json");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(doc, "run")), "run");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(doc, "cut")), "last");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(doc, "algorithm")), "resact");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(doc, "step")) == 20);
    const cJSON *evaluation = cJSON_GetObjectItem(doc, "evaluation");
    assert_true(cJSON_IsObject(evaluation) || cJSON_IsNull(evaluation));
    cJSON_Delete(doc);
    free(text);
    faultkit_passes("diff -r last json"); /* the same bytes, twice */
}

/* Where no checkpoint could be ranked, the last is taken for the best and a note says so. */
static void export_of_a_run_without_a_best_says_that_it_takes_the_last(void **state)
{
    (void)state;
    faultkit_passes("longhaul train job.yaml --dir plain --quiet --no-evaluation");
    struct faultkit_end end = faultkit_run("longhaul export --dir plain --out best > out");
    assert_int_equal(end.status, 0);
    kit_assert_contains(end.said, "plain: none of its checkpoints was evaluated");
    free(end.said);
    char *text = kit_read(kit_path("out"), NULL);
    assert_string_equal(text, "best: step 20 (last) of plain, resact\n");
    free(text);
}

static void export_without_what_it_needs_is_refused(void **state)
{
    (void)state;
    faultkit_refuses(LH_EUSAGE, "--dir RUN is needed", "longhaul export --out new");
    faultkit_refuses(LH_EUSAGE, "--out SNAPSHOT is needed", "longhaul export --dir run");
    faultkit_refuses(LH_EUSAGE, "--cut", "longhaul export --dir run --out new --cut worst");
    faultkit_refuses(LH_EEXIST, "snap: already exists; replace it with --force",
                     "longhaul export --dir run --out snap");
    faultkit_refuses(LH_ENOENT, "nowhere", "longhaul export --dir nowhere --out new");
    faultkit_refuses(LH_ENOENT, "moved", "longhaul export --dir run --out new --dataset moved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(export_tells_which_checkpoint_of_which_run),
        faultkit_test(export_of_a_run_without_a_best_says_that_it_takes_the_last),
        faultkit_test(export_without_what_it_needs_is_refused),
    };
    return cmocka_run_group_tests_name("export", tests, faultkit_group_setup,
                                       faultkit_group_teardown);
}
