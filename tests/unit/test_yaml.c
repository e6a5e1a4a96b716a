#include "common/yaml.h"
#include "tests/testkit.h"

#include <string.h>

static struct lh_yaml *load(const char *text)
{
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "t.yaml"));
    return doc;
}

static void load_builds_a_tree_with_lines(void **state)
{
    (void)state;
    struct lh_yaml *doc = load("a: 1\nb:\n  c: [x, \"y\"]\n  d: {e: 2.5}\n");
    const struct lh_yaml_node *root = lh_yaml_root(doc);
    int64_t i = 0;
    double x = 0;
    assert_ok(lh_yaml_int(lh_yaml_get(root, "a"), 0, 9, &i));
    assert_int_equal(i, 1);
    assert_ok(lh_yaml_double(lh_yaml_get(root, "b.d.e"), 0, 9, &x));
    assert_true(x == 2.5);
    const struct lh_yaml_node *c = lh_yaml_get(root, "b.c");
    assert_int_equal(c->line, 3);
    assert_int_equal(c->n, 2);
    assert_true(c->child->plain);
    assert_false(c->child->next->plain);
    assert_null(lh_yaml_get(root, "b.zz"));
    lh_yaml_destroy(&doc);
}

static void typed_readers_name_file_line_key(void **state)
{
    (void)state;
    struct lh_yaml *doc = load("train:\n  batch: many\n  rate: nan\n  on: perhaps\n  list: [1]\n");
    const struct lh_yaml_node *t = lh_yaml_get(lh_yaml_root(doc), "train");
    int64_t i;
    double x;
    bool b;
    const char *s;
    assert_err(lh_yaml_int(lh_yaml_get(t, "batch"), 1, 2, &i), LH_ECONFIG,
               "t.yaml:2: train.batch: 'many' is not a whole number");
    assert_err(lh_yaml_double(lh_yaml_get(t, "rate"), 0, 1, &x), LH_ECONFIG, "t.yaml:3");
    assert_err(lh_yaml_bool(lh_yaml_get(t, "on"), &b), LH_ECONFIG, "t.yaml:4");
    assert_err(lh_yaml_string(lh_yaml_get(t, "list"), &s), LH_ECONFIG, "found a list");
    lh_yaml_destroy(&doc);
}

static void unknown_key_names_the_nearest(void **state)
{
    (void)state;
    static const char *const keys[] = {"batch", "seed", "learning_rate"};
    struct lh_yaml *doc = load("seed: 1\nlearning_rat: 2\n");
    assert_err(lh_yaml_check_keys(lh_yaml_root(doc), keys, 3), LH_ECONFIG,
               "t.yaml:2: learning_rat: unknown key; did you mean 'learning_rate'?");
    lh_yaml_destroy(&doc);
}

static void nearest_shares_something_with_the_word(void **state)
{
    (void)state;
    static const char *const words[] = {"u", "xyz"};
    assert_string_equal(lh_yaml_nearest("x", words, 2), "xyz");
    assert_null(lh_yaml_nearest("q", words, 2));
    char garbage[200] = {0};
    memset(garbage, 'y', sizeof garbage - 1);
    const char *const names[] = {garbage};
    assert_null(lh_yaml_nearest("yyyyy", names, 1));
}

static void set_overrides_and_makes_mappings(void **state)
{
    (void)state;
    struct lh_yaml *doc = load("a: {b: 1}\n");
    int64_t i = 0;
    assert_ok(lh_yaml_set(doc, "a.b=2"));
    assert_ok(lh_yaml_set(doc, "x.y.z=[3, 4]"));
    assert_ok(lh_yaml_int(lh_yaml_get(lh_yaml_root(doc), "a.b"), 0, 9, &i));
    assert_int_equal(i, 2);
    assert_int_equal(lh_yaml_get(lh_yaml_root(doc), "x.y.z")->n, 2);
    assert_err(lh_yaml_set(doc, "novalue"), LH_EUSAGE, "key=value");
    assert_err(lh_yaml_set(doc, "a.b.c=1"), LH_EUSAGE, "no place");
    assert_ok(lh_yaml_set(doc, "a.b=many"));
    assert_err(lh_yaml_int(lh_yaml_get(lh_yaml_root(doc), "a.b"), 0, 9, &i), LH_ECONFIG,
               "--set a.b");
    lh_yaml_destroy(&doc);
}

static void bad_documents_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *complaint;
    } cases[] = {
        {"a: [1, 2\nb: 3\n", "t.yaml:2"}, {"a: 1\na: 2\n", "already set on line 1"},
        {"a: &x 1\nb: *x\n", "anchors"},  {"a: 1\n---\nb: 2\n", "more than one"},
        {"a: !!int 3\n", "tags"},         {"? [a]\n: 1\n", "plain word"},
        {"\x01: 1\n", "not valid YAML"},  {"a: \"x\\0y\"\n", "NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lh_yaml *doc = NULL;
        assert_err(lh_yaml_load_text(&doc, cases[i].text, strlen(cases[i].text), "t.yaml"),
                   LH_ECONFIG, cases[i].complaint);
        assert_null(doc);
    }
    char deep[200] = "a: ";
    for (int i = 0; i < 60; i++)
        strcat(deep, "[");
    struct lh_yaml *doc = NULL;
    assert_err(lh_yaml_load_text(&doc, deep, strlen(deep), "t.yaml"), LH_ECONFIG, "deeper");
}

static void load_survives_every_failed_allocation(void **state)
{
    (void)state;
    const char *text = "a: {b: [1, 2], c: x}\nd: 3\n";
    for (uint64_t n = 1;; n++) {
        struct lh_yaml *doc = NULL;
        lh_mem_fail_at(n);
        int rc = lh_yaml_load_text(&doc, text, strlen(text), "t.yaml");
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_yaml_destroy(&doc);
            assert_true(n > 5);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
        assert_null(doc);
    }
}

static void missing_file_is_named(void **state)
{
    (void)state;
    struct lh_yaml *doc = NULL;
    assert_err(lh_yaml_load_file(&doc, kit_path("none.yaml")), LH_ENOENT, "none.yaml");
    kit_write(kit_path("empty.yaml"), "");
    assert_ok(lh_yaml_load_file(&doc, kit_path("empty.yaml")));
    assert_int_equal(lh_yaml_root(doc)->kind, LH_YAML_MAPPING);
    lh_yaml_destroy(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(load_builds_a_tree_with_lines),
        kit_test(typed_readers_name_file_line_key),
        kit_test(unknown_key_names_the_nearest),
        kit_test(nearest_shares_something_with_the_word),
        kit_test(set_overrides_and_makes_mappings),
        kit_test(bad_documents_are_refused),
        kit_test(load_survives_every_failed_allocation),
        kit_test(missing_file_is_named),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
