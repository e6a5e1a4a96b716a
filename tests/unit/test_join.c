#include "common/idmap.h"
#include "common/join.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

static const struct lh_column columns[] = {{.name = "movie", .type = LH_COLUMN_ID},
                                           {.name = "rating", .type = LH_COLUMN_NUMBER}};

static int create(struct lh_join **j, const char *table, const char *file)
{
    struct lh_yaml *doc = NULL;
    kit_write(kit_path("t.csv"), file);
    assert_ok(lh_yaml_load_text(&doc, table, strlen(table), "s.yaml"));
    int rc = lh_join_create(j, lh_yaml_get(lh_yaml_root(doc), "t"), columns, 2, kit_dir());
    lh_yaml_destroy(&doc);
    return rc;
}

static void create_movielens_file_makes_vectors_by_key(void **state)
{
    (void)state;
    struct lh_join *j = NULL;
    assert_ok(create(&j,
                     "t:\n  file: t.csv\n  separator: '::'\n  header: false\n"
                     "  fields: [id, gender, age, genres]\n  key: movie\n  file_key: id\n"
                     "  columns:\n    age: {type: number, scale: 0.1, missing: 5}\n"
                     "    gender: {type: category, values: [F, M]}\n"
                     "    genres: {type: set, separator: '|', values: [War, Drama]}\n",
                     "7::F::30::Drama|War|Other\n900::X::::\r\n8::M::2e1::War\n"));
    assert_int_equal(lh_join_width(j), 5);
    assert_int_equal(lh_join_key(j), 0);
    static const char *const names[] = {"age", "gender=F", "gender=M", "genres=War",
                                        "genres=Drama"};
    for (int k = 0; k < 5; k++)
        assert_string_equal(lh_join_names(j)[k], names[k]);
    const float *v = lh_join_values(j);
    assert_memory_equal(v + 5 * lh_join_find(j, 7), ((float[]){3, 1, 0, 1, 1}), 20);
    assert_memory_equal(v + 5 * lh_join_find(j, 8), ((float[]){2, 0, 1, 1, 0}), 20);
    assert_memory_equal(v + 5 * lh_join_find(j, 900), ((float[]){0.5f, 0, 0, 0, 0}), 20);
    assert_int_equal(lh_join_find(j, 9), LH_IDMAP_NONE);
    size_t offset, width;
    assert_ok(lh_join_column(j, "genres", &offset, &width));
    assert_int_equal(offset, 3);
    assert_int_equal(width, 2);
    assert_int_equal(lh_join_column(j, "year", &offset, &width), LH_NOTFOUND);
    assert_ok(lh_join_column(j, NULL, &offset, &width));
    assert_int_equal(width, 5);
    lh_join_destroy(&j);
}

static void create_header_finds_columns_in_any_order(void **state)
{
    (void)state;
    struct lh_join *j = NULL;
    assert_ok(create(&j,
                     "t: {file: t.csv, separator: tab, key: movie, columns: {n: {type: number, "
                     "log1p: true}, other: {type: category, values: 0..2}}}",
                     "n\tother\tmovie\n-1\t2\ttt0042\n"));
    assert_int_equal(lh_join_width(j), 4);
    assert_string_equal(lh_join_names(j)[3], "other=2");
    assert_true(lh_join_values(j)[3] == 1);
    const uint32_t row = lh_join_find(j, lh_userlog_id("tt0042", 6));
    assert_int_equal(row, 0);
    assert_true(lh_join_values(j)[0] == -logf(2));
    lh_join_destroy(&j);
}

static void create_bad_table_names_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *table, *file;
        int code;
        const char *says;
    } bad[] = {
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,n\n1,x\n", LH_EFORMAT,
         "t.csv:2: column 'n': 'x' is not a number"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,n\n1,1e99\n", LH_EFORMAT,
         "too large"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,n\n1,2\n1,3\n", LH_EFORMAT,
         "t.csv:3: the key '1' came before"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,n\n1\n", LH_EFORMAT,
         "t.csv:2: 1 fields where 2 are expected"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,m\n1,2\n", LH_ECONFIG,
         "t.csv has no field 'n'"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "film,n\n1,2\n", LH_ECONFIG,
         "has no field 'movie'"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "", LH_EFORMAT, "the file is empty"},
        {"t: {file: t.csv, key: movie, columns: {n: {}}}", "movie,n\n", LH_EFORMAT, "no row"},
        {"t: {file: u.csv, key: movie, columns: {n: {}}}", "", LH_ENOENT, "u.csv: no such file"},
        {"t: {key: movie, columns: {n: {}}}", "", LH_ECONFIG, "needs file:"},
        {"t: {file: t.csv, columns: {n: {}}}", "", LH_ECONFIG, "needs file:, key: and columns:"},
        {"t: {file: t.csv, key: rating, columns: {n: {}}}", "", LH_ECONFIG, "a id is needed here"},
        {"t: {file: t.csv, key: movie, columns: {}}", "", LH_ECONFIG, "lists no column"},
        {"t: {file: t.csv, key: movie, columns: {n: {type: set}}}", "", LH_ECONFIG,
         "needs values:"},
        {"t: {file: t.csv, key: movie, columns: {n: {type: category, values: [a, a]}}}", "",
         LH_ECONFIG, "'a' is listed twice"},
        {"t: {file: t.csv, key: movie, header: false, columns: {n: {}}}", "", LH_ECONFIG,
         "needs fields:"},
        {"t: {file: t.csv, key: movie, fields: [n], columns: {n: {}}}", "", LH_ECONFIG,
         "goes with header: false"},
        {"t: {file: t.csv, key: movie, colums: {n: {}}}", "", LH_ECONFIG, "did you mean 'columns'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_join *j = NULL;
        assert_err(create(&j, bad[i].table, bad[i].file), bad[i].code, bad[i].says);
        assert_null(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(create_movielens_file_makes_vectors_by_key),
        kit_test(create_header_finds_columns_in_any_order),
        kit_test(create_bad_table_names_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
