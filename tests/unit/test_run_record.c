#include "cluster/run_record.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void fill(struct lh_run_record *r)
{
    *r = (struct lh_run_record){.state = LH_RUN_STOPPED,
                                .job_digest = 0xfedcba9876543210,
                                .dataset_digest = 0x0000000000000abc,
                                .servers = 2,
                                .steps_total = 1010};
    assert_ok(lh_run_record_add_cut(r, 100, 1));
    assert_ok(lh_run_record_add_cut(r, 300, 2));
    assert_ok(lh_run_record_add_cut(r, 200, 1));
    assert_ok(lh_run_record_add_cut(r, 400, 2));
    assert_ok(lh_run_record_set_evaluation(r, 200, "{\"value\": 1.25, \"ess\": [1, 2]}"));
    r->has_best = true;
    r->best = 200;
    assert_ok(lh_run_record_set_behaviour(r, "runs/behaviour \"x\""));
    assert_ok(lh_run_record_set_blas(r, "OpenBLAS 0.3.21 Haswell"));
}

static void save_then_load_gives_the_same(void **state)
{
    (void)state;
    struct lh_run_record a, b;
    fill(&a);
    assert_ok(lh_run_record_save(&a, kit_dir()));
    assert_ok(lh_run_record_load(&b, kit_dir()));
    assert_int_equal(b.state, LH_RUN_STOPPED);
    assert_true(b.job_digest == a.job_digest && b.dataset_digest == a.dataset_digest);
    assert_int_equal(b.servers, 2);
    assert_int_equal(b.steps_total, 1010);
    assert_int_equal(b.n_cuts, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(b.cuts[i].version, 100 * (i + 1));
        assert_int_equal(b.cuts[i].servers, i < 2 ? 1 : 2);
    }
    assert_string_equal(b.cuts[1].evaluation_json, "{\"value\":1.25,\"ess\":[1,2]}");
    assert_null(b.cuts[2].evaluation_json);
    assert_true(b.has_best && b.best == 200 && b.has_last && b.last == 400);
    assert_string_equal(b.behaviour, "runs/behaviour \"x\"");
    assert_string_equal(b.blas, "OpenBLAS 0.3.21 Haswell");
    assert_null(b.error);
    lh_run_record_fini(&a);
    lh_run_record_fini(&b);
    lh_run_record_fini(&b);
}

static void copy_is_the_same_and_its_own(void **state)
{
    (void)state;
    struct lh_run_record a, b;
    fill(&a);
    for (uint64_t at = 1;; at++) {
        lh_mem_fail_at(at);
        int rc = lh_run_record_copy(&b, &a);
        lh_mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
    lh_run_record_fini(&a);
    assert_int_equal(b.n_cuts, 4);
    assert_string_equal(b.cuts[1].evaluation_json, "{\"value\":1.25,\"ess\":[1,2]}");
    assert_null(b.cuts[0].evaluation_json);
    assert_true(b.state == LH_RUN_STOPPED && b.servers == 2 && b.best == 200 && b.last == 400);
    assert_string_equal(b.behaviour, "runs/behaviour \"x\"");
    assert_ok(lh_run_record_add_cut(&b, 500, 3));
    lh_run_record_fini(&b);
}

static void save_empty_record_can_be_loaded(void **state)
{
    (void)state;
    struct lh_run_record a = {0}, b;
    assert_ok(lh_run_record_set_error(&a, "it broke"));
    assert_ok(lh_run_record_save(&a, kit_dir()));
    assert_ok(lh_run_record_load(&b, kit_dir()));
    assert_false(b.has_best || b.has_last);
    assert_int_equal(b.n_cuts, 0);
    assert_string_equal(b.error, "it broke");
    lh_run_record_fini(&a);
    lh_run_record_fini(&b);
}

static void retain_keeps_the_newest_and_the_best(void **state)
{
    (void)state;
    struct lh_run_record r;
    fill(&r);
    assert_int_equal(lh_run_record_retain(&r, 1), 2);
    assert_int_equal(r.cuts[0].version, 200);
    assert_int_equal(r.cuts[1].version, 400);
    assert_non_null(r.cuts[0].evaluation_json);
    assert_int_equal(lh_run_record_retain(&r, 0), 2);
    lh_run_record_fini(&r);
}

static void set_evaluation_wrong_is_refused(void **state)
{
    (void)state;
    struct lh_run_record r;
    fill(&r);
    assert_err(lh_run_record_set_evaluation(&r, 150, "{}"), LH_ENOENT, "no cut 150");
    assert_err(lh_run_record_set_evaluation(&r, 200, "{"), LH_EFORMAT, "not a JSON object");
    assert_err(lh_run_record_set_evaluation(&r, 200, "[1]"), LH_EFORMAT, "not a JSON object");
    assert_string_equal(lh_run_record_cut(&r, 200)->evaluation_json,
                        "{\"value\":1.25,\"ess\":[1,2]}");
    assert_ok(lh_run_record_set_evaluation(&r, 200, NULL));
    assert_null(lh_run_record_cut(&r, 200)->evaluation_json);
    lh_run_record_fini(&r);
}

/* Replaces one member's text in a good file and expects a sentence. */
static void load_refuses(const char *from, const char *to, const char *complaint)
{
    struct lh_run_record r;
    fill(&r);
    assert_ok(lh_run_record_save(&r, kit_dir()));
    lh_run_record_fini(&r);
    char *text = kit_read(kit_path("run.json"), NULL), changed[4096];
    char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    kit_write(kit_path("run.json"), changed);
    free(text);
    assert_err(lh_run_record_load(&r, kit_dir()), LH_EFORMAT, complaint);
}

static void load_bad_file_names_the_member(void **state)
{
    (void)state;
    load_refuses("\"format\":\t1", "\"format\":\t9", "format 9");
    load_refuses("\"stopped\"", "\"asleep\"", "run.json: 'state'");
    load_refuses("fedcba9876543210", "fedcba987654321", "'job_digest'");
    load_refuses("fedcba9876543210", "FEDCBA9876543210", "'job_digest'");
    load_refuses("1010", "-1", "'steps_total'");
    load_refuses("1010", "1.5", "'steps_total'");
    load_refuses("1010", "1e300", "'steps_total'");
    load_refuses("\"version\":\t300", "\"version\":\t200", "'cuts'");
    load_refuses("\"best\":\t200", "\"best\":\t201", "'best'");
    load_refuses("\"last\":\t400", "\"last\":\tfalse", "'last'");
    load_refuses("\"behaviour\":", "\"behavior\":", "'behaviour'");
    load_refuses("\"error\":", "\"error", "not valid JSON");
    struct lh_run_record r;
    kit_write(kit_path("run.json"), "");
    assert_err(lh_run_record_load(&r, kit_dir()), LH_EFORMAT, "not valid JSON");
    unlink(kit_path("run.json"));
    assert_err(lh_run_record_load(&r, kit_dir()), LH_ENOENT, "run.json");
}

static void save_that_fails_keeps_the_old_one(void **state)
{
    (void)state;
    struct lh_run_record a, b;
    fill(&a);
    assert_ok(lh_run_record_save(&a, kit_dir()));
    assert_int_equal(mkdir(kit_path("run.json.partial"), 0777), 0); /* in the way */
    a.steps_total = 9;
    assert_true(lh_run_record_save(&a, kit_dir()) < 0);
    kit_assert_contains(lh_err_text(), "run.json");
    assert_ok(lh_run_record_load(&b, kit_dir()));
    assert_int_equal(b.steps_total, 1010);
    lh_run_record_fini(&a);
    lh_run_record_fini(&b);
    assert_err(lh_run_record_save(&a, kit_path("nowhere")), LH_ENOENT, "nowhere");
}

static void load_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct lh_run_record r;
    fill(&r);
    assert_ok(lh_run_record_save(&r, kit_dir()));
    lh_run_record_fini(&r);
    for (uint64_t n = 1;; n++) {
        lh_mem_fail_at(n);
        int rc = lh_run_record_load(&r, kit_dir());
        lh_mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, LH_ENOMEM);
    }
    lh_run_record_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(save_then_load_gives_the_same),
        kit_test(copy_is_the_same_and_its_own),
        kit_test(save_empty_record_can_be_loaded),
        kit_test(retain_keeps_the_newest_and_the_best),
        kit_test(set_evaluation_wrong_is_refused),
        kit_test(load_bad_file_names_the_member),
        kit_test(save_that_fails_keeps_the_old_one),
        kit_test(load_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("run_record", tests, NULL, NULL);
}
