#include "common/embedding.h"
#include "common/feature.h"
#include "common/idmap.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct lh_column columns[] = {{.name = "movie", .type = LH_COLUMN_ID},
                                           {.name = "rating", .type = LH_COLUMN_NUMBER}};

#define USERS 30
#define ROWS  12

struct log_of {
    uint64_t movie[ROWS];
    float rating[ROWS];
    union lh_column_data data[2];
    struct lh_user_log log;
};

/* User u rates ROWS movies out of 20; deterministic. */
static void fill(struct log_of *l, uint64_t u)
{
    struct lh_rng_at at = {.seed = 1, .step = u};
    for (uint64_t i = 0; i < ROWS; i++) {
        l->movie[i] = 100 + lh_rng_below(&at, i, 20);
        l->rating[i] = (float)(1 + lh_rng_below(&at, 100 + i, 5));
    }
    l->data[0].id = l->movie;
    l->data[1].number = l->rating;
    l->log = (struct lh_user_log){
        .user = u * 1000, .split = u % 10 == 9 ? LH_TEST : LH_TRAIN, .n = ROWS, .column = l->data};
}

static int create(struct lh_embedding **e, const char *text, unsigned threads)
{
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "s.yaml"));
    int rc = lh_embedding_create(e, lh_yaml_get(lh_yaml_root(doc), "e"), columns, 2, kit_dir(), 7,
                                 threads);
    lh_yaml_destroy(&doc);
    return rc;
}

/* Fits on all users, seen in steps of `stride`. */
static struct lh_embedding *fit(const char *text, uint64_t stride, unsigned threads)
{
    struct lh_embedding *e = NULL;
    assert_ok(create(&e, text, threads));
    for (uint64_t k = 0, u = 0; k < USERS; k++, u = (u + stride) % USERS) {
        struct log_of l;
        fill(&l, u);
        assert_ok(lh_embedding_observe(e, &l.log, NULL));
    }
    assert_ok(lh_embedding_finish(e));
    return e;
}

static void assert_same(struct lh_embedding *a, struct lh_embedding *b)
{
    size_t n = lh_embedding_count(a);
    assert_int_equal(n, lh_embedding_count(b));
    assert_memory_equal(lh_embedding_values(a), lh_embedding_values(b),
                        n * lh_embedding_dim(a) * sizeof(float));
    for (uint64_t id = 100; id < 120; id++)
        assert_int_equal(lh_embedding_find(a, id), lh_embedding_find(b, id));
}

static void finish_order_of_users_and_threads_change_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "e: {key: movie, method: factorise, value: rating, dim: 5, iterations: 3}",
        "e: {key: movie, method: factorise, feedback: implicit, dim: 5, iterations: 3}",
        "e: {key: movie, method: factorise, value: rating, dim: 3, iterations: 2, max_rows: 100}",
    };
    for (int k = 0; k < 3; k++) {
        struct lh_embedding *a = fit(texts[k], 1, 1), *b = fit(texts[k], 7, 1),
                            *c = fit(texts[k], 29, 2);
        assert_same(a, b);
        assert_same(a, c);
        lh_embedding_destroy(&a);
        lh_embedding_destroy(&b);
        lh_embedding_destroy(&c);
    }
}

static void observe_takes_training_users_only(void **state)
{
    (void)state;
    struct lh_embedding *e = NULL;
    struct log_of l;
    assert_ok(create(&e, "e: {key: movie, method: factorise, value: rating}", 1));
    fill(&l, 9);
    assert_int_equal(l.log.split, LH_TEST);
    assert_ok(lh_embedding_observe(e, &l.log, NULL));
    assert_err(lh_embedding_finish(e), LH_ERANGE, "embedding 'e': factorisation: there is no");
    assert_int_equal(lh_embedding_find(e, l.movie[0]), LH_IDMAP_NONE);
    lh_embedding_destroy(&e);
}

static void observe_beyond_max_rows_keeps_a_share_of_users(void **state)
{
    (void)state;
    struct lh_embedding *all =
        fit("e: {key: movie, method: factorise, value: rating, dim: 2, max_rows: 324}", 1, 1);
    struct lh_embedding *whole =
        fit("e: {key: movie, method: factorise, value: rating, dim: 2}", 1, 1);
    struct lh_embedding *few =
        fit("e: {key: movie, method: factorise, value: rating, dim: 2, max_rows: 60}", 1, 1);
    struct lh_embedding *none = NULL;
    struct log_of l;
    assert_ok(create(&none, "e: {key: movie, method: factorise, value: rating, max_rows: 5}", 1));
    fill(&l, 1);
    assert_ok(lh_embedding_observe(none, &l.log, NULL));
    assert_err(lh_embedding_finish(none), LH_ERANGE, "max_rows: 5 is less than any user's rows");
    lh_embedding_destroy(&none);
    assert_same(all, whole); /* 27 training users of 12 rows fit exactly */
    assert_memory_not_equal(lh_embedding_values(few), lh_embedding_values(whole), 40);
    lh_embedding_destroy(&all);
    lh_embedding_destroy(&whole);
    lh_embedding_destroy(&few);
}

/* A repeated item: the later rating counts; clicks add up. So the repeated log is as good as the
 * plain one. */
static void finish_repeats_are_joined(void **state)
{
    (void)state;
    static const struct {
        const char *repeated, *plain;
        float again[3], once[2];
    } cases[] = {
        {"e: {key: movie, method: factorise, value: rating, dim: 2, iterations: 2}",
         "e: {key: movie, method: factorise, value: rating, dim: 2, iterations: 2}",
         {1, 4, 5},
         {5, 4}},
        {"e: {key: movie, method: factorise, feedback: implicit, dim: 2, iterations: 2}",
         "e: {key: movie, method: factorise, feedback: implicit, value: rating, dim: 2, "
         "iterations: 2}",
         {1, 1, 1},
         {2, 1}},
    };
    for (int k = 0; k < 2; k++) {
        struct lh_embedding *e[2];
        uint64_t movie[] = {7, 8, 7};
        for (int once = 0; once < 2; once++) {
            union lh_column_data d[] = {{.id = movie},
                                        {.number = once ? cases[k].once : cases[k].again}};
            struct lh_user_log log = {.split = LH_TRAIN, .n = once ? 2 : 3, .column = d};
            assert_ok(create(&e[once], once ? cases[k].plain : cases[k].repeated, 1));
            assert_ok(lh_embedding_observe(e[once], &log, NULL));
            assert_ok(lh_embedding_finish(e[once]));
        }
        assert_same(e[0], e[1]);
        lh_embedding_destroy(&e[0]);
        lh_embedding_destroy(&e[1]);
    }
}

static void write_then_file_gives_the_same_embedding(void **state)
{
    (void)state;
    struct lh_embedding *a =
        fit("e: {key: movie, method: factorise, value: rating, dim: 4, iterations: 2}", 1, 1);
    struct lh_embedding *b = NULL;
    assert_ok(lh_embedding_write(a, kit_path("items.csv")));
    size_t n;
    char *text = kit_read(kit_path("items.csv"), &n);
    assert_memory_equal(text, "id,e_0,e_1,e_2,e_3\n100,", 23);
    free(text);
    assert_ok(create(&b, "e: {key: movie, file: items.csv, unseen: drop}", 1));
    assert_false(lh_embedding_needs_pass(b));
    assert_true(lh_embedding_drops_unseen(b));
    assert_same(a, b);
    lh_embedding_destroy(&a);
    lh_embedding_destroy(&b);
    assert_ok(create(&b, "e: {key: movie, file: items.csv}", 1));
    assert_err(lh_embedding_write(b, kit_path("no/items.csv")), LH_ENOENT, "no/items.csv");
    lh_embedding_destroy(&b);
}

static void plan_writes_the_actions_embedding_as_items(void **state)
{
    (void)state;
    kit_write(kit_path("a.csv"), "5,1,2\n6,3,4\n"); /* no header line */
    const char *text = "embeddings: {e: {key: movie, file: a.csv}, f: {key: movie, file: a.csv}}\n"
                       "action: [{embedding: e}]\nstate_high: [{mean: f}]\n"
                       "state_low: [{count: rows}]\n";
    struct lh_yaml *doc = NULL;
    struct lh_feature_plan *p = NULL;
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "s.yaml"));
    assert_ok(lh_feature_plan_create(&p, lh_yaml_root(doc), columns, 2, kit_dir(), 1, 1));
    lh_yaml_destroy(&doc);
    assert_ok(lh_feature_plan_write_embeddings(p, kit_dir()));
    lh_feature_plan_destroy(&p);
    size_t n;
    char *items = kit_read(kit_path("items.csv"), &n);
    assert_string_equal(items, "id,e_0,e_1\n5,1,2\n6,3,4\n");
    free(items);
    free(kit_read(kit_path("embedding-f.csv"), &n));
}

static void create_bad_embedding_names_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *file;
        int code;
        const char *says;
    } bad[] = {
        {"e: {key: movie}", "", LH_ECONFIG, "either file: or method: factorise"},
        {"e: {key: movie, method: magic}", "", LH_ECONFIG, "magic"},
        {"e: {key: movie, method: factorise}", "", LH_ECONFIG, "needs value:"},
        {"e: {key: rating, method: factorise}", "", LH_ECONFIG, "of type number"},
        {"e: {key: movie, method: factorise, value: rating, dim: 0}", "", LH_ECONFIG, "dim"},
        {"e: {key: movie, method: factorise, value: rating, confidence: 3}", "", LH_ECONFIG,
         "goes with feedback: implicit"},
        {"e: {key: movie, file: e.csv, dim: 3}", "", LH_ECONFIG, "goes with method: factorise"},
        {"e: {key: movie, file: e.csv}", "id,e_0\n", LH_EFORMAT, "holds no embedding"},
        {"e: {key: movie, file: e.csv}", "id,e_0\n1,2\n1,3\n", LH_EFORMAT, "e.csv:3: the id '1'"},
        {"e: {key: movie, file: e.csv}", "id,e_0\n1,2,3\n", LH_EFORMAT, "3 fields where 2"},
        {"e: {key: movie, file: e.csv}", "id,e_0\n1,nan\n", LH_EFORMAT, "not a finite number"},
        {"e: {key: movie, file: e.csv}", "id\n", LH_EFORMAT, "an id and 1 to 1024 numbers"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_embedding *e = NULL;
        kit_write(kit_path("e.csv"), bad[i].file);
        assert_err(create(&e, bad[i].text, 1), bad[i].code, bad[i].says);
        assert_null(e);
    }
}

static void fit_survives_every_failed_allocation(void **state)
{
    (void)state;
    int rc = LH_ENOMEM;
    for (uint64_t k = 1; rc == LH_ENOMEM; k++) {
        uint64_t live = lh_mem_live();
        struct lh_embedding *e = NULL;
        struct log_of l;
        assert_ok(create(&e, "e: {key: movie, method: factorise, value: rating, dim: 2}", 1));
        fill(&l, 1);
        lh_mem_fail_at(k);
        rc = lh_embedding_observe(e, &l.log, NULL);
        if (rc == 0)
            rc = lh_embedding_finish(e);
        lh_mem_fail_at(0);
        assert_true(k > 1 || rc == LH_ENOMEM);
        lh_embedding_destroy(&e);
        assert_int_equal(lh_mem_live(), live);
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(finish_order_of_users_and_threads_change_nothing),
        kit_test(observe_takes_training_users_only),
        kit_test(observe_beyond_max_rows_keeps_a_share_of_users),
        kit_test(finish_repeats_are_joined),
        kit_test(write_then_file_gives_the_same_embedding),
        kit_test(plan_writes_the_actions_embedding_as_items),
        kit_test(create_bad_embedding_names_the_place),
        kit_test(fit_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
