#include "common/job_tables.h"

#include "common/job.h"
#include "tests/testkit.h"

#include <string.h>

static int load(struct lh_job **job, const char *text)
{
    return lh_job_load_text(job, text, strlen(text), "job.yaml", NULL);
}

static struct lh_job *must_load(const char *text)
{
    struct lh_job *job = NULL;
    assert_ok(load(&job, text));
    return job;
}

static void section_is_read_and_prints_as_itself(void **state)
{
    (void)state;
    struct lh_job *a = must_load("tables:\n"
                                 "  item: {ids: [last, 'the other'], dim: 8, into: state_high}\n"
                                 "  user: {ids: user, admit_after: 3, evict_after: 100, cache: 5,\n"
                                 "         init: 0.1, learning_rate: 0.5}\n");
    assert_int_equal(a->n_tables, 2);
    assert_string_equal(a->tables[0].name, "item");
    assert_int_equal(a->tables[0].n_ids, 2);
    assert_string_equal(a->tables[0].ids[1], "the other");
    assert_true(a->tables[0].into == 0 && a->tables[1].into == 1);
    assert_true(a->tables[0].dim == 8 && a->tables[1].dim == 16);
    assert_true(a->tables[0].cache == 256 && a->tables[1].cache == 5);
    assert_true(a->tables[1].admit_after == 3 && a->tables[1].evict_after == 100);
    assert_true(a->tables[0].learning_rate == 1e-3 && a->tables[1].learning_rate == 0.5);
    char *text = NULL, *again = NULL;
    assert_ok(lh_job_print(a, &text));
    struct lh_job *b = must_load(text);
    assert_ok(lh_job_print(b, &again));
    assert_string_equal(text, again);
    assert_true(lh_job_digest(a) == lh_job_digest(b));
    lh_mem_free(text);
    lh_mem_free(again);
    lh_job_destroy(&a);
    lh_job_destroy(&b);
}

static void digest_knows_what_weights_depend_on(void **state)
{
    (void)state;
    static const char *const same = "tables: {item: {ids: a, cache: 7}}",
                             *const others[] = {"",
                                                "tables: {items: {ids: a}}",
                                                "tables: {item: {ids: b}}",
                                                "tables: {item: {ids: a, dim: 17}}",
                                                "tables: {item: {ids: a, into: state_high}}",
                                                "tables: {item: {ids: a, learning_rate: 0.01}}",
                                                "tables: {item: {ids: a, init: 0.01}}",
                                                "tables: {item: {ids: a, admit_after: 2}}",
                                                "tables: {item: {ids: a, evict_after: 2}}"};
    struct lh_job *job = must_load("tables: {item: {ids: a}}"), *with = must_load(same);
    assert_true(lh_job_digest(job) == lh_job_digest(with));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct lh_job *other = must_load(others[i]);
        assert_true(lh_job_digest(job) != lh_job_digest(other));
        lh_job_destroy(&other);
    }
    lh_job_destroy(&job);
    lh_job_destroy(&with);
}

static void what_is_wrong_is_named_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } wrong[] = {
        {"tables: [item]", "tables"},
        {"tables: {item: {dim: 4}}", "names no ids"},
        {"tables: {item: {ids: []}}", "names no ids"},
        {"tables: {item: {ids: [a, a]}}", "is in the list already"},
        {"tables: {item: {ids: a, dmi: 4}}", "dim"},
        {"tables: {item: {ids: a, dim: 0}}", "tables.item.dim"},
        {"tables: {item: {ids: a, into: action}}", "state_high"},
        {"tables: {'a/b': {ids: a}}", "letters, digits"},
        {"tables: {a: {ids: x}, b: {ids: x}, c: {ids: x}, d: {ids: x}, e: {ids: x}, f: {ids: x},"
         " g: {ids: x}, h: {ids: x}, i: {ids: x}}",
         "at most 8"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct lh_job *job = NULL;
        assert_err(load(&job, wrong[i].text), LH_ECONFIG, wrong[i].sentence);
    }
}

static void find_names_the_ids_that_there_are(void **state)
{
    (void)state;
    static const char *const names[] = {"user", "item"};
    size_t at[LH_JOB_TABLE_IDS_MAX];
    struct lh_job *job = must_load("tables: {t: {ids: [item, user]}, u: {ids: [itm]}}");
    assert_ok(lh_job_tables_find(&job->tables[0], names, 2, at));
    assert_true(at[0] == 1 && at[1] == 0);
    assert_err(lh_job_tables_find(&job->tables[1], names, 2, at), LH_EMISMATCH,
               "did you mean 'item'?");
    assert_err(lh_job_tables_find(&job->tables[1], names, 0, at), LH_EMISMATCH, "import again");
    lh_job_destroy(&job);
}

static void no_memory(void **state)
{
    (void)state;
    static const char *const text = "tables: {a: {ids: [x, y]}, b: {ids: z}}";
    for (uint64_t n = 1;; n++) {
        struct lh_job *job = NULL;
        lh_mem_fail_at(n);
        int rc = load(&job, text);
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_job_destroy(&job);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(section_is_read_and_prints_as_itself),
        kit_test(digest_knows_what_weights_depend_on),
        kit_test(what_is_wrong_is_named_with_its_place),
        kit_test(find_names_the_ids_that_there_are),
        kit_test(no_memory),
    };
    return cmocka_run_group_tests_name("job_tables", tests, NULL, NULL);
}
