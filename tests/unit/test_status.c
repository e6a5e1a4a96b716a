/* cluster/status: what is written is what is read, and nothing else is. */
#include "cluster/status.h"

#include "tests/testkit.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct lh_status_loss losses[2] = {{"td1", 0.1}, {"a \"name\"\n", NAN}};
static struct lh_status_role roles[2];

static struct lh_status some_status(void)
{
    struct lh_status s = {.written = 1795513776.25,
                          .began = 1795513700,
                          .stage = "running",
                          .job = "däily",
                          .algorithm = "resact",
                          .host = "here",
                          .pid = 4711,
                          .endpoint = "tcp://10.0.0.1:5555",
                          .metrics = "127.0.0.1:9464",
                          .step = (1ull << 49) + 1,
                          .start = 1,
                          .until = 2,
                          .total = 3,
                          .batch = 4096,
                          .rate = 12345.678901234567,
                          .eta = NAN,
                          .has_cut = true,
                          .cut = 7,
                          .cut_at = 5.5,
                          .failed_cuts = 3,
                          .trouble = "server 1: run/store-1: the disk is full",
                          .has_evaluation = true,
                          .value = -0.25,
                          .lo = -1,
                          .hi = 1,
                          .ess_share = 0.5,
                          .best_value = NAN,
                          .memory = 1 << 20,
                          .wanted_workers = 4294967295u,
                          .wanted_servers = 2,
                          .losses = losses,
                          .n_losses = 2,
                          .roles = roles,
                          .n_roles = 2};
    roles[0] = (struct lh_status_role){.node = 1,
                                       .server = true,
                                       .shard = 3,
                                       .host = "there",
                                       .standing = "ready",
                                       .pid = 9,
                                       .version = 11,
                                       .silent = 0.125,
                                       .steps = 12,
                                       .dropped = 1,
                                       .bytes_in = 13,
                                       .bytes_out = 14,
                                       .memory = 15,
                                       .lacked = 16,
                                       .lacked_most = 2,
                                       .taken_over = 3};
    roles[0].phases[LH_PHASE_OPTIMISE] = 1.5;
    roles[1] = (struct lh_status_role){.node = 2, .standing = "gone", .rows = 99};
    roles[1].phases[LH_PHASE_GATHER] = 0.25;
    roles[1].phases[LH_PHASE_WAIT] = 0.75;
    return s;
}

static void status_saved_is_the_status_loaded(void **state)
{
    (void)state;
    const struct lh_status s = some_status();
    struct lh_status got = {0};
    assert_ok(lh_status_save(&s, kit_path("status.json")));
    assert_ok(lh_status_load(&got, kit_path("status.json")));
    cJSON *a = lh_status_json(&s), *b = lh_status_json(&got);
    char *wrote = cJSON_PrintUnformatted(a), *read = cJSON_PrintUnformatted(b);
    assert_string_equal(wrote, read);
    free(wrote);
    free(read);
    assert_true(isnan(got.eta) && isnan(got.losses[1].value));
    assert_float_equal(got.rate, s.rate, 0);
    assert_int_equal(got.step, s.step);
    assert_int_equal(got.wanted_workers, s.wanted_workers);
    assert_string_equal(got.job, s.job);
    assert_string_equal(got.losses[1].name, losses[1].name);
    assert_memory_equal(got.roles[0].phases, roles[0].phases, sizeof roles[0].phases);
    assert_memory_equal(got.roles[1].phases, roles[1].phases, sizeof roles[1].phases);
    assert_true(got.roles[0].server && !got.roles[1].server);
    cJSON_Delete(a);
    cJSON_Delete(b);
    lh_status_fini(&got);
    lh_status_fini(&got);
}

/* Loads the object as a file. */
static int load(const cJSON *o)
{
    struct lh_status s = {0};
    char *text = cJSON_PrintUnformatted(o);
    kit_write(kit_path("status.json"), text);
    free(text);
    int rc = lh_status_load(&s, kit_path("status.json"));
    lh_status_fini(&s);
    return rc;
}

/* Every member left out, and every one of another kind. */
/* One role's nonsense must not hide all the others. */
static void status_of_roles_that_claim_too_much_is_loaded_all_the_same(void **state)
{
    (void)state;
    struct lh_status s = some_status(), got = {0};
    roles[1].version = roles[1].pid = UINT64_MAX;
    roles[1].rows = (1ull << 53) + 2;
    roles[1].bytes_in = 1ull << 53;
    roles[1].phases[LH_PHASE_WAIT] = INFINITY;
    assert_ok(lh_status_save(&s, kit_path("status.json")));
    assert_ok(lh_status_load(&got, kit_path("status.json")));
    assert_true(got.roles[1].version > 1ull << 52); /* cJSON prints 15 digits */
    assert_true(got.roles[1].pid > 1ull << 52 && got.roles[1].pid <= 1ull << 53);
    assert_int_equal(got.roles[0].version, 11);
    lh_status_fini(&got);
}

static void status_with_a_wrong_member_is_refused_by_its_name(void **state)
{
    (void)state;
    const struct lh_status s = some_status();
    char *text = NULL;
    size_t n = 0, tried = 0;
    assert_ok(lh_status_save(&s, kit_path("whole.json")));
    text = kit_read(kit_path("whole.json"), &n);
    for (int part = 0; part < 3; part++) {
        for (int i = 0;; i++) {
            cJSON *o = cJSON_Parse(text);
            cJSON *in = part == 0   ? o
                        : part == 1 ? cJSON_GetArrayItem(cJSON_GetObjectItem(o, "roles"), 1)
                                    : cJSON_GetArrayItem(cJSON_GetObjectItem(o, "losses"), 0);
            cJSON *x = cJSON_GetArrayItem(in, i);
            if (!x || strcmp(x->string, "phases") == 0) {
                cJSON_Delete(o);
                if (!x)
                    break;
                continue;
            }
            char name[64];
            snprintf(name, sizeof name, "'%s'", x->string);
            assert_ok(load(o));
            cJSON_ReplaceItemInObject(in, x->string, cJSON_CreateIntArray((int[]){1}, 1));
            if (strcmp(name, "'roles'") != 0 && strcmp(name, "'losses'") != 0)
                assert_err(load(o), LH_EFORMAT, name);
            cJSON_DeleteItemFromArray(in, i);
            assert_err(load(o), LH_EFORMAT, name);
            cJSON_Delete(o);
            tried++;
        }
    }
    assert_true(tried > 40);
    cJSON *o = cJSON_Parse(text);
    cJSON_ReplaceItemInObject(o, "pid", cJSON_CreateNumber(1.5));
    assert_err(load(o), LH_EFORMAT, "'pid'");
    cJSON_ReplaceItemInObject(o, "pid", cJSON_CreateNumber(1));
    char long_text[200];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    cJSON_ReplaceItemInObject(o, "host", cJSON_CreateString(long_text));
    assert_err(load(o), LH_EFORMAT, "'host'");
    cJSON_Delete(o);
    free(text);
    kit_write(kit_path("status.json"), "{");
    struct lh_status none = {0};
    assert_err(lh_status_load(&none, kit_path("status.json")), LH_EFORMAT, "not valid JSON");
    assert_int_equal(lh_status_load(&none, kit_path("nothing.json")), LH_ENOENT);
}

static void save_that_fails_keeps_the_old_one(void **state)
{
    (void)state;
    struct lh_status s = some_status(), got = {0};
    assert_ok(lh_status_save(&s, kit_path("status.json")));
    assert_int_equal(mkdir(kit_path("status.json.partial"), 0777), 0); /* in the way */
    s.pid = 1;
    assert_true(lh_status_save(&s, kit_path("status.json")) < 0);
    assert_ok(lh_status_load(&got, kit_path("status.json")));
    assert_int_equal(got.pid, 4711);
    lh_status_fini(&got);
}

static void load_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    const struct lh_status s = some_status();
    assert_ok(lh_status_save(&s, kit_path("status.json")));
    for (uint64_t nth = 1;; nth++) {
        struct lh_status got = {0};
        lh_mem_fail_at(nth);
        int rc = lh_status_load(&got, kit_path("status.json"));
        lh_mem_fail_at(0);
        lh_status_fini(&got);
        if (rc == 0)
            return;
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(status_saved_is_the_status_loaded),
        kit_test(status_of_roles_that_claim_too_much_is_loaded_all_the_same),
        kit_test(status_with_a_wrong_member_is_refused_by_its_name),
        kit_test(save_that_fails_keeps_the_old_one),
        kit_test(load_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
