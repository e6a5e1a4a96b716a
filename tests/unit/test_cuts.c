/* Which cuts stay, which is best, and what a restart finds. */
#include "cluster/cuts.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The evaluator's verdict on a version, as if it had just been polled. */
static void verdict(struct lh_cuts *c, uint64_t version, double value, bool eligible)
{
    char json[64];
    snprintf(json, sizeof json, "{\"policy\": {\"value\": %g}}", value);
    assert_false(c->has_verdict);
    c->has_verdict = true;
    c->verdict_version = version;
    c->verdict = (struct lh_verdict){.value = value, .eligible = eligible};
    assert_ok(lh_mem_strdup(&c->verdict.json, json));
}

static void assert_cuts(const struct lh_run_record *r, const char *expected)
{
    char text[256] = "";
    for (size_t i = 0; i < r->n_cuts; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%llu", i ? " " : "",
                 (unsigned long long)r->cuts[i].version);
    assert_string_equal(text, expected);
}

static void assert_lines(const char *expected)
{
    char *text = kit_read(kit_path("evaluations.jsonl"), NULL);
    assert_string_equal(text, expected);
    free(text);
}

static void complete_keeps_the_newest_and_the_best(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 2}, false, true));
    for (uint64_t v = 10; v <= 50; v += 10) {
        assert_ok(lh_cuts_complete(&c, v, 3, NULL));
        verdict(&c, v, v == 20 ? 5 : 1, true);
        assert_ok(lh_cuts_judge(&c, NULL));
    }
    assert_cuts(&r, "20 40 50");
    assert_true(r.has_best && r.best == 20 && r.last == 50);
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
    /* the same from the disk */
    assert_ok(lh_run_record_load(&r, kit_dir()));
    assert_cuts(&r, "20 40 50");
    assert_true(r.has_best && r.best == 20);
    assert_int_equal(lh_run_record_cut(&r, 50)->servers, 3);
    lh_run_record_fini(&r);
}

static void judge_takes_the_highest_eligible_and_the_earlier_of_equals(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    static const struct {
        double value;
        bool eligible;
        uint64_t best;
    } at[] = {{9, false, 0}, {2, true, 2}, {2, true, 2}, {1, true, 2}, {3, true, 5}, {7, false, 5}};
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 9}, false, true));
    for (uint64_t v = 1; v <= sizeof at / sizeof *at; v++) {
        assert_ok(lh_cuts_complete(&c, v, 1, NULL));
        verdict(&c, v, at[v - 1].value, at[v - 1].eligible);
        assert_ok(lh_cuts_judge(&c, NULL));
        assert_int_equal(r.has_best ? r.best : 0, at[v - 1].best);
    }
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

static void judge_takes_the_last_eligible_where_the_job_chooses_so(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    static const struct {
        double value;
        bool eligible;
        uint64_t best;
    } at[] = {{9, false, 0}, {5, true, 2}, {2, true, 3}, {7, false, 3}};
    struct lh_job job = {.checkpoint_keep = 9, .choose = LH_CHOOSE_LAST};
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &job, false, true));
    for (uint64_t v = 1; v <= sizeof at / sizeof *at; v++) {
        assert_ok(lh_cuts_complete(&c, v, 1, NULL));
        verdict(&c, v, at[v - 1].value, at[v - 1].eligible);
        assert_ok(lh_cuts_judge(&c, NULL));
        assert_int_equal(r.has_best ? r.best : 0, at[v - 1].best);
    }
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

/* The evaluation may end before the servers have written the cut, and must not be lost. */
static void verdict_before_its_cut_waits_for_it(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 1}, false, true));
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    verdict(&c, 20, 4, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_true(c.has_verdict && !r.has_best);
    assert_lines("");
    assert_ok(lh_cuts_complete(&c, 20, 1, NULL));
    assert_false(c.has_verdict);
    assert_true(r.has_best && r.best == 20);
    assert_cuts(&r, "20");
    assert_lines("{\"step\": 20, \"evaluation\": {\"policy\": {\"value\": 4}}}\n");
    verdict(&c, 40, 5, true);
    assert_ok(lh_cuts_complete(&c, 30, 1, NULL));
    assert_true(c.has_verdict);
    lh_cuts_fini(&c); /* with a verdict that nobody took */
    lh_run_record_fini(&r);
}

/* Training goes on without it; what was evaluated cannot be chosen, since it is not there. */
static void version_that_is_void_is_counted_and_its_verdict_chooses_nothing(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    struct lh_err full;
    lh_err_save(&full, lh_err_set(LH_ENOSPC, "store-1: the disk is full"));
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 3}, false, true));
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    assert_false(lh_cuts_is_void(&c, 10) || lh_cuts_is_void(&c, 20));
    verdict(&c, 20, 9, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_true(c.has_verdict);
    lh_cuts_trouble(&c, 20, &full);
    lh_cuts_void(&c, 20);
    assert_true(lh_cuts_is_void(&c, 20));
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_false(c.has_verdict || r.has_best);
    lh_cuts_trouble(&c, 30, &full);
    lh_cuts_void(&c, 30);
    verdict(&c, 30, 9, true); /* one that comes later */
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_false(c.has_verdict || r.has_best);
    assert_true(c.failed == 2 && c.failed_in_row == 2 && c.trouble.code == LH_ENOSPC);
    assert_ok(lh_cuts_complete(&c, 40, 1, NULL));
    assert_true(c.failed == 2 && c.failed_in_row == 0 && c.trouble.code == 0);
    assert_cuts(&r, "10 40");
    assert_lines("{\"step\": 20, \"evaluation\": {\"policy\": {\"value\": 9}}}\n"
                 "{\"step\": 30, \"evaluation\": {\"policy\": {\"value\": 9}}}\n");
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

/* Of two versions under way the later may have failed before the earlier is whole. */
static void trouble_of_a_later_version_is_not_over_when_an_earlier_comes_about(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    struct lh_err bad;
    lh_err_save(&bad, lh_err_set(LH_EIO, "store-1: input/output error"));
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 3}, false, true));
    lh_cuts_trouble(&c, 20, &bad);
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    assert_int_equal(c.trouble.code, LH_EIO);
    assert_ok(lh_cuts_back(&c, false)); /* 20 comes again, and so may 10 */
    assert_ok(lh_cuts_complete(&c, 20, 1, NULL));
    assert_int_equal(c.trouble.code, 0);
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

static void back_forgets_what_comes_again(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    struct lh_cuts c;
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 3}, false, true));
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    verdict(&c, 10, 1, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    lh_cuts_void(&c, 20);
    verdict(&c, 30, 9, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_ok(lh_cuts_back(&c, false));
    assert_false(c.has_verdict || lh_cuts_is_void(&c, 20));
    assert_ok(lh_cuts_complete(&c, 20, 1, NULL));
    verdict(&c, 20, 2, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_true(r.best == 20);
    assert_lines("{\"step\": 10, \"evaluation\": {\"policy\": {\"value\": 1}}}\n"
                 "{\"step\": 20, \"evaluation\": {\"policy\": {\"value\": 2}}}\n");
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

/* The record cannot be saved: a directory stands where it is written aside. */
static void complete_without_its_record_changes_nothing_and_succeeds_later(void **state)
{
    (void)state;
    struct lh_run_record r = {0}, there;
    struct lh_cuts c;
    uint64_t *kept = NULL;
    size_t n;
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 1}, false, true));
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    verdict(&c, 20, 4, true); /* waits for its cut */
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_int_equal(mkdir(kit_path("run.json.partial"), 0777), 0);
    for (int tries = 0; tries < 2; tries++) {
        assert_true(lh_cuts_complete(&c, 20, 1, NULL) < 0);
        kit_assert_contains(lh_err_text(), "run.json");
        assert_cuts(&r, "10");
        assert_true(c.has_verdict && !c.has_best && !r.has_best && c.completed == 1);
        /* it might stand there all the same: stores keep both */
        assert_ok(lh_cuts_kept(&c, &kept, &n));
        assert_true(n == 2 && kept[0] == 10 && kept[1] == 20);
        lh_mem_free(kept);
    }
    assert_int_equal(rmdir(kit_path("run.json.partial")), 0);
    assert_ok(lh_cuts_complete(&c, 20, 1, NULL));
    assert_cuts(&r, "20");
    assert_true(!c.has_verdict && r.has_best && r.best == 20);
    assert_lines("{\"step\": 20, \"evaluation\": {\"policy\": {\"value\": 4}}}\n");
    assert_ok(lh_cuts_kept(&c, &kept, &n));
    assert_true(n == 1 && kept[0] == 20);
    lh_mem_free(kept);
    assert_ok(lh_run_record_load(&there, kit_dir()));
    assert_cuts(&there, "20");
    lh_run_record_fini(&there);
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

/* A verdict whose record cannot be saved at once is there with the next cut. */
static void judge_without_its_record_goes_on(void **state)
{
    (void)state;
    struct lh_run_record r = {0}, there;
    struct lh_cuts c;
    assert_ok(lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 2}, false, true));
    assert_ok(lh_cuts_complete(&c, 10, 1, NULL));
    assert_int_equal(mkdir(kit_path("run.json.partial"), 0777), 0);
    verdict(&c, 10, 4, true);
    assert_ok(lh_cuts_judge(&c, NULL));
    assert_true(c.unsaved && r.best == 10);
    assert_int_equal(rmdir(kit_path("run.json.partial")), 0);
    assert_ok(lh_cuts_complete(&c, 20, 1, NULL));
    assert_false(c.unsaved);
    assert_ok(lh_run_record_load(&there, kit_dir()));
    assert_true(there.has_best && there.best == 10 && there.cuts[0].evaluation_json);
    lh_run_record_fini(&there);
    lh_cuts_fini(&c);
    lh_run_record_fini(&r);
}

static void init_recalls_the_best_and_drops_lines_that_will_come_again(void **state)
{
    (void)state;
    for (int again = 0; again < 2; again++) {
        struct lh_run_record r = {0};
        struct lh_cuts c;
        kit_write(kit_path("evaluations.jsonl"),
                  "{\"step\": 10, \"evaluation\": {}}\n{\"step\": 20, \"evaluation\": {}}\n"
                  "{\"step\": 30, \"evaluation\": {}}\n{\"step\": 4");
        assert_ok(lh_run_record_add_cut(&r, 10, 1));
        assert_ok(lh_run_record_set_evaluation(&r, 10, "{\"policy\": {\"value\": 2.5}}"));
        assert_ok(lh_run_record_add_cut(&r, 20, 1));
        r.has_best = true;
        r.best = 10;
        assert_ok(
            lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 1}, again, true));
        assert_true(c.has_best && c.best_value == 2.5);
        assert_lines(again ? "{\"step\": 10, \"evaluation\": {}}\n"
                           : "{\"step\": 10, \"evaluation\": {}}\n"
                             "{\"step\": 20, \"evaluation\": {}}\n");
        verdict(&c, 20, 2, true);
        assert_ok(lh_cuts_judge(&c, NULL));
        assert_int_equal(r.best, 10);
        lh_cuts_fini(&c);
        lh_run_record_fini(&r);
    }
}

static void init_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct lh_run_record r = {0};
    assert_ok(lh_run_record_add_cut(&r, 10, 1));
    assert_ok(lh_run_record_set_evaluation(&r, 10, "{\"policy\": {\"value\": 2.5}}"));
    r.has_best = true;
    r.best = 10;
    for (uint64_t at = 1;; at++) {
        struct lh_cuts c;
        lh_mem_fail_at(at);
        int rc =
            lh_cuts_init(&c, &r, kit_dir(), &(struct lh_job){.checkpoint_keep = 1}, false, true);
        lh_mem_fail_at(0);
        lh_cuts_fini(&c);
        if (rc == 0) {
            assert_true(at > 1);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
    lh_run_record_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(complete_keeps_the_newest_and_the_best),
        kit_test(judge_takes_the_highest_eligible_and_the_earlier_of_equals),
        kit_test(judge_takes_the_last_eligible_where_the_job_chooses_so),
        kit_test(verdict_before_its_cut_waits_for_it),
        kit_test(version_that_is_void_is_counted_and_its_verdict_chooses_nothing),
        kit_test(trouble_of_a_later_version_is_not_over_when_an_earlier_comes_about),
        kit_test(back_forgets_what_comes_again),
        kit_test(complete_without_its_record_changes_nothing_and_succeeds_later),
        kit_test(judge_without_its_record_goes_on),
        kit_test(init_recalls_the_best_and_drops_lines_that_will_come_again),
        kit_test(init_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("cuts", tests, NULL, NULL);
}
