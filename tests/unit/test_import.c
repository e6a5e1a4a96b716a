#include "common/fs.h"
#include "common/import.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char schema_text[] = "name: t\n"
                                  "columns:\n"
                                  "  u: id\n"
                                  "  s: id\n"
                                  "  t: {type: time, unit: s}\n"
                                  "  x: number\n"
                                  "  y: {type: number, scale: 2, shift: 1, missing: 5}\n"
                                  "  g: {type: category, values: [F, M], missing: other}\n"
                                  "  r: {type: number, missing: drop}\n"
                                  "trajectory: {user: u, session: s, time: t}\n"
                                  "split: {train: 60%, validation: 0.2, test: rest}\n"
                                  "partition: {hash: 2}\n"
                                  "reward: {column: r}\n"
                                  "state_high: [{one_hot: g}]\n"
                                  "state_low: [{column: x}]\n"
                                  "action: [{column: y}]\n";

struct setup {
    const char *schema;
    const char *const *sets;
    size_t n_sets;
    const char *file, *out;
    unsigned threads;
    uint64_t memory;
    bool replace;
};

static int import(const struct setup *u, struct lh_import_report *r)
{
    struct lh_schema *s = NULL;
    const char *text = u->schema ? u->schema : schema_text;
    LH_TRY(lh_schema_load_text(&s, text, strlen(text), "s.yaml", u->sets, u->n_sets));
    const char *files[] = {u->file};
    struct lh_import_spec spec = {.schema = s,
                                  .files = files,
                                  .n_files = 1,
                                  .out = u->out,
                                  .threads = u->threads ? u->threads : 2,
                                  .memory = u->memory,
                                  .replace = u->replace};
    int rc = lh_import_run(&spec, r);
    lh_schema_destroy(&s);
    return rc;
}

static struct lh_dataset *import_ok(const struct setup *u, struct lh_import_report *r)
{
    struct lh_dataset *ds = NULL;
    assert_ok(import(u, r));
    assert_ok(lh_dataset_open(&ds, u->out));
    return ds;
}

/* The one row of a dataset with this time; fails if there is none. */
struct found {
    enum lh_split split;
    struct lh_row_info info;
    float high[8], low[8], action[8], reward;
};

static struct found find(const struct lh_dataset *ds, int64_t seconds)
{
    struct found f;
    for (int s = 0; s < LH_SPLITS; s++) {
        for (uint64_t row = 0; row < lh_dataset_info(ds)->split[s].rows; row++) {
            assert_ok(lh_dataset_row_info(ds, (enum lh_split)s, row, &f.info));
            if (f.info.time_us != seconds * 1000000)
                continue;
            struct lh_batch b = {
                .high = f.high, .low = f.low, .action = f.action, .reward = &f.reward};
            assert_ok(lh_dataset_gather(ds, (enum lh_split)s, &row, 1, NULL, &b));
            f.split = (enum lh_split)s;
            return f;
        }
    }
    fail_msg("no row at %lld", (long long)seconds);
    return f;
}

static uint64_t total_rows(const struct lh_dataset *ds)
{
    uint64_t n = 0;
    for (int s = 0; s < LH_SPLITS; s++)
        n += lh_dataset_info(ds)->split[s].rows;
    return n;
}

static void values_arrive_as_declared(void **state)
{
    (void)state;
    kit_write(kit_path("a.csv"), "u,junk,s,t,x,y,g,r\n"
                                 "7,z,1,10,0.5,3,F,1\n"
                                 "7,z,1,12,1.5,,M,2\n"
                                 "\"a,b\",z,1,20,-1e-3,4,,3\n"
                                 "\"a,b\",z,2,30,2,5,X,4\n"
                                 "\"a,b\",z,2,31,2,5,F,\n");
    struct lh_import_report r;
    struct setup u = {.file = kit_path("a.csv"), .out = kit_path("ds")};
    struct lh_dataset *ds = import_ok(&u, &r);
    assert_int_equal(r.counts.rows, 5);
    assert_int_equal(r.counts.bad, 0);
    assert_int_equal(r.counts.dropped, 1);
    assert_int_equal(r.users, 2);
    assert_int_equal(total_rows(ds), 4);
    struct found f = find(ds, 10);
    assert_int_equal(f.info.user, 7);
    assert_true(f.high[0] == 1 && f.high[1] == 0 && f.low[0] == 0.5f && f.action[0] == 4);
    assert_true(f.reward == 1);
    assert_true(f.info.first && f.info.has_next);
    f = find(ds, 12);
    assert_true(f.action[0] == 8); /* (5 - 1) * 2 */
    assert_true(f.info.last && !f.info.ends && !f.info.has_next);
    f = find(ds, 20);
    assert_true(f.high[0] == 0 && f.high[1] == 0 && f.low[0] == -1e-3f);
    f = find(ds, 30);
    assert_int_equal(f.info.session, 1);
    assert_true(f.high[0] == 0 && f.high[1] == 0 && f.reward == 4);
    lh_dataset_close(&ds);
}

static void json_lines_say_the_same_as_csv(void **state)
{
    (void)state;
    kit_write(kit_path("a.csv"), "u,s,t,x,y,g,r\n7,1,10,0.5,3,F,1\nb,1,12,1.5,,M,2\n"
                                 "b,3,14,1.25,2,,2\n");
    kit_write(kit_path("a.jsonl"),
              "{\"u\": 7, \"s\": \"1\", \"t\": 10, \"x\": 0.5, \"y\": 3, \"g\": \"F\", \"r\": 1}\n"
              "\n"
              "{\"r\": 2, \"u\": \"b\", \"s\": 1, \"t\": 12.0, \"x\": 1.5, \"y\": null, \"g\": "
              "\"\\u004d\", \"more\": [1, {\"u\": 3}]}\n"
              "{\"u\": \"b\", \"s\": 3, \"t\": 1.4e1, \"x\": 1.25, \"y\": 2, \"r\": 2}");
    struct lh_import_report r;
    struct setup u = {.file = kit_path("a.csv"), .out = kit_path("csv")};
    struct lh_dataset *ds = import_ok(&u, &r);
    uint64_t digest = lh_dataset_info(ds)->digest;
    lh_dataset_close(&ds);
    const char *const sets[] = {"input.format=jsonl"};
    u = (struct setup){
        .file = kit_path("a.jsonl"), .out = kit_path("json"), .sets = sets, .n_sets = 1};
    ds = import_ok(&u, &r);
    assert_int_equal(lh_dataset_info(ds)->digest, digest);
    lh_dataset_close(&ds);
}

static void bad_rows_are_named_and_bounded(void **state)
{
    (void)state;
    kit_write(kit_path("bad.csv"), "u,s,t,x,y,g,r\n"
                                   "1,1,10,0.5,3,F,1\n"
                                   "1,1,11,zero,3,F,1\n"
                                   "1,1,12,nan,3,F,1\n"
                                   "1,1,13,0.5,3,F\n"
                                   "1,1,never,0.5,3,F,1\n"
                                   ",1,15,0.5,3,F,1\n"
                                   "1,1,16,0.5,3,\"F\"x,1\n"
                                   "1,1,17,0.5,inf,F,1\n" /* y says what missing means */
                                   "1,1,18,,3,F,1\n"
                                   "2,1,19,0.5,3,F,1\n");
    static const char *const want[] = {
        "bad.csv:3: column 'x': 'zero' is not a number",
        "bad.csv:4: column 'x': 'nan' is not a finite number",
        "bad.csv:5: 6 fields where 7 are expected",
        "bad.csv:6: column 't': 'never' is not a time in s",
        "bad.csv:7: column 'u': the value is missing",
        "bad.csv:8: text between a closing quote",
        "bad.csv:10: column 'x': the value is missing",
    };
    struct lh_import_report r;
    struct setup u = {.file = kit_path("bad.csv"), .out = kit_path("ds")};
    struct lh_dataset *ds = import_ok(&u, &r);
    assert_int_equal(total_rows(ds), 3);
    lh_dataset_close(&ds);
    assert_int_equal(r.counts.bad, 7);
    assert_int_equal(r.counts.n_shown, 7);
    for (size_t i = 0; i < 7; i++)
        kit_assert_contains(r.counts.shown[i].text, want[i]);

    const char *const limits[][2] = {{"bad_rows.max=6", "bad_rows.share=0"},
                                     {"bad_rows.max=0", "bad_rows.share=0.6"}};
    for (size_t i = 0; i < 2; i++) {
        u = (struct setup){
            .file = kit_path("bad.csv"), .out = kit_path("none"), .sets = limits[i], .n_sets = 2};
        assert_err(import(&u, &r), LH_EFORMAT, "bad.csv:3: column 'x'");
        assert_false(lh_fs_exists(kit_path("none")));
    }
    const char *const enough[] = {"bad_rows.max=0", "bad_rows.share=0.7"};
    u.sets = enough;
    assert_ok(import(&u, &r));
}

static void file_that_does_not_fit_the_schema_is_refused(void **state)
{
    (void)state;
    struct lh_import_report r;
    struct setup u = {.file = kit_path("a.csv"), .out = kit_path("ds")};
    assert_err(import(&u, &r), LH_ENOENT, "a.csv");
    kit_write(kit_path("a.csv"), "u,s,t,xx,y,g,r\n1,1,10,0.5,3,F,1\n");
    assert_err(import(&u, &r), LH_ECONFIG, "has no column 'x'");
    kit_write(kit_path("a.csv"), "u,s,t,x,y,g,r,x\n1,1,10,0.5,3,F,1,1\n");
    assert_err(import(&u, &r), LH_EFORMAT, "two columns are called 'x'");
    kit_write(kit_path("a.csv"), "");
    assert_err(import(&u, &r), LH_EFORMAT, "no header line");
    kit_write(kit_path("a.csv"), "u,s,t,x,y,g,r\n");
    assert_err(import(&u, &r), LH_EFORMAT, "no usable row");
    kit_write(kit_path("a.csv"), "u,s,t,x,y,g,r\n1,1,10,0.5,3,F,1\n");
    const char *const sets[] = {"split.train=2", "split.validation=0"};
    u.sets = sets;
    u.n_sets = 2;
    assert_err(import(&u, &r), LH_ECONFIG, "split asks for 2 users, the log has 1");
    assert_int_equal(kit_run(NULL, "ls -a %s | grep ds", kit_dir()), 1);
    lh_fs_mkdirs(kit_path("ds"));
    u.n_sets = 0;
    assert_err(import(&u, &r), LH_EEXIST, "already exists");
}

/* A log whose rows are scattered: users interleaved, times shuffled. */
static void write_log(const char *path, size_t users, size_t rows)
{
    FILE *f = fopen(path, "w");
    fprintf(f, "u,s,t,x,y,g,r\n");
    for (size_t i = 0; i < rows; i++) {
        size_t k = i * 7919 % rows; /* rows is no multiple of it */
        size_t user = k % users, at = k / users;
        fprintf(f, "user%zu,%zu,%zu,%.6f,%zu,%s,%zu\n", user, at / 5,
                at / 5 * 40000 + at % 5 * 30 + user, sin((double)k), k % 11, k % 3 ? "F" : "M",
                k % 4);
    }
    fclose(f);
}

static void bytes_do_not_depend_on_threads_or_memory(void **state)
{
    (void)state;
    write_log(kit_path("log.csv"), 97, 20000);
    struct lh_import_report r;
    struct setup u = {.file = kit_path("log.csv"), .out = kit_path("a"), .threads = 1};
    assert_ok(import(&u, &r));
    assert_int_equal(r.spilled_bytes, 0);
    u.out = kit_path("b");
    u.threads = 3;
    u.memory = 1; /* the least there is */
    assert_ok(import(&u, &r));
    assert_int_equal(kit_run(NULL, "diff -r %s %s", kit_path("a"), kit_path("b")), 0);
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("a")));
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    assert_int_equal(info->split[LH_TRAIN].users, 58);
    assert_int_equal(info->split[LH_VALIDATION].users, 19);
    assert_int_equal(info->split[LH_TEST].users, 20);
    assert_int_equal(total_rows(ds), 20000);
    assert_int_equal(info->split[LH_TRAIN].transitions,
                     info->split[LH_TRAIN].rows - info->split[LH_TRAIN].trajectories);
    lh_dataset_close(&ds);
}

static void log_larger_than_memory_goes_through_files(void **state)
{
    (void)state;
    write_log(kit_path("log.csv"), 997, 150000); /* 12 MB of binary rows, 6.4 allowed */
    struct lh_import_report r;
    struct setup u = {.file = kit_path("log.csv"), .out = kit_path("a"), .memory = 16 << 20};
    assert_ok(import(&u, &r));
    assert_true(r.spilled_bytes > 1000000);
    u.out = kit_path("b");
    u.memory = 0;
    assert_ok(import(&u, &r));
    assert_int_equal(r.spilled_bytes, 0);
    assert_int_equal(kit_run(NULL, "diff -r %s %s", kit_path("a"), kit_path("b")), 0);
}

static void split_by_seed_is_a_permutation_of_users(void **state)
{
    (void)state;
    write_log(kit_path("log.csv"), 200, 3000);
    struct lh_import_report r;
    uint64_t digests[2];
    for (int i = 0; i < 2; i++) {
        const char *const sets[] = {i ? "split.seed=2" : "split.seed=1", "split.train=120",
                                    "split.validation=30", "split.test=10"};
        struct setup u = {.file = kit_path("log.csv"),
                          .out = kit_path(i ? "two" : "one"),
                          .sets = sets,
                          .n_sets = 4};
        struct lh_dataset *ds = import_ok(&u, &r);
        const struct lh_dataset_info *info = lh_dataset_info(ds);
        assert_int_equal(info->split[LH_TRAIN].users, 120);
        assert_int_equal(info->split[LH_VALIDATION].users, 30);
        assert_int_equal(info->split[LH_TEST].users, 10);
        assert_int_equal(r.users_left_out, 40);
        digests[i] = info->digest;
        lh_dataset_close(&ds);
    }
    assert_true(digests[0] != digests[1]);
}

static const char cut_log[] = "u,s,t,x,y,g,r\n"
                              "1,a,100,0,0,F,0\n1,a,101,0,0,F,1\n1,a,102,0,0,F,0\n"
                              "1,b,5000,0,0,F,0\n1,b,5001,0,0,F,0\n"
                              "1,c,99000,0,0,F,0\n";

static void count_cut(const char *a, const char *b, uint64_t trajectories, uint64_t transitions,
                      uint64_t left_out)
{
    kit_write(kit_path("cut.csv"), cut_log);
    const char *const sets[] = {"split={train: rest}", a, b};
    struct lh_import_report r;
    struct setup u = {.file = kit_path("cut.csv"),
                      .out = kit_path("cut"),
                      .sets = sets,
                      .n_sets = 3,
                      .replace = true};
    struct lh_dataset *ds = import_ok(&u, &r);
    const struct lh_split_info *i = &lh_dataset_info(ds)->split[LH_TRAIN];
    assert_int_equal(i->trajectories, trajectories);
    assert_int_equal(i->transitions, transitions);
    assert_int_equal(r.rows_left_out, left_out);
    lh_dataset_close(&ds);
}

static void trajectories_are_cut_as_declared(void **state)
{
    (void)state;
    count_cut("trajectory.by=user", "trajectory.end=cut_off", 1, 5, 0);
    count_cut("trajectory.by=user", "trajectory.end=true", 1, 6, 0);
    count_cut("trajectory.by=session", "trajectory.end=true", 3, 6, 0);
    count_cut("trajectory.by=session", "trajectory.end=cut_off", 3, 3, 0);
    count_cut("trajectory.by=session", "trajectory.min_length=2", 2, 5, 1);
    count_cut("trajectory.by=user", "trajectory.max_length=4", 2, 4, 0);
    count_cut("trajectory.by=user", "trajectory.end=r", 2, 5, 0); /* r is 1 on the second row */
}

static void sessions_are_cut_by_gaps(void **state)
{
    (void)state;
    const char *const sets[] = {"split={train: rest}",
                                "trajectory={user: u, time: t, gap_minutes: 30, by: session}"};
    kit_write(kit_path("cut.csv"), cut_log);
    struct lh_import_report r;
    struct setup u = {
        .file = kit_path("cut.csv"), .out = kit_path("ds"), .sets = sets, .n_sets = 2};
    struct lh_dataset *ds = import_ok(&u, &r);
    assert_int_equal(r.sessions[LH_TRAIN], 3);
    assert_int_equal(find(ds, 5001).info.session, 1);
    assert_int_equal(find(ds, 99000).info.session, 2);
    lh_dataset_close(&ds);
}

static void overlapping_sessions_come_one_after_the_other(void **state)
{
    (void)state;
    kit_write(kit_path("o.csv"), "u,s,t,x,y,g,r\n"
                                 "1,a,100,1,0,F,0\n1,b,110,3,0,F,1\n1,a,120,2,0,F,0\n"
                                 "1,b,130,4,0,F,0\n");
    const char *const sets[] = {"split={train: rest}"};
    struct lh_import_report r;
    struct setup u = {.file = kit_path("o.csv"), .out = kit_path("ds"), .sets = sets, .n_sets = 1};
    struct lh_dataset *ds = import_ok(&u, &r);
    static const int64_t times[] = {100, 120, 120, 130};
    for (uint64_t row = 0; row < 4; row++) {
        struct lh_row_info info;
        float x;
        struct lh_batch b = {.low = &x};
        assert_ok(lh_dataset_row_info(ds, LH_TRAIN, row, &info));
        assert_ok(lh_dataset_gather(ds, LH_TRAIN, &row, 1, NULL, &b));
        assert_true(x == (float)(row + 1));
        assert_int_equal(info.session, row / 2);
        assert_int_equal(info.time_us, times[row] * 1000000);
    }
    lh_dataset_close(&ds);
}

static void order_of_the_log_stands_in_for_times(void **state)
{
    (void)state;
    kit_write(kit_path("o.dat"), "1::5::1\n2::6::0\n1::7::1\n");
    static const char text[] = "input: {separator: '::', columns: [u, x, r]}\n"
                               "columns: {u: id, x: number, r: number}\n"
                               "trajectory: {user: u, time: order}\n"
                               "split: {train: rest}\n"
                               "reward: {column: r}\n"
                               "state_high: [{count: rows}]\n"
                               "state_low: [{since: row}]\n"
                               "action: [{column: x}]\n";
    struct lh_import_report r;
    struct setup u = {.schema = text, .file = kit_path("o.dat"), .out = kit_path("ds")};
    struct lh_dataset *ds = import_ok(&u, &r);
    assert_int_equal(lh_dataset_info(ds)->split[LH_TRAIN].transitions, 1);
    struct found f = find(ds, 1);
    assert_true(f.action[0] == 7);
    lh_dataset_close(&ds);
}

static bool stop_at_once(void)
{
    return true;
}

static void interruption_leaves_nothing(void **state)
{
    (void)state;
    write_log(kit_path("log.csv"), 10, 1000);
    struct lh_schema *s = NULL;
    assert_ok(lh_schema_load_text(&s, schema_text, strlen(schema_text), "s.yaml", NULL, 0));
    const char *files[] = {kit_path("log.csv")};
    struct lh_import_report r;
    struct lh_import_spec spec = {.schema = s,
                                  .files = files,
                                  .n_files = 1,
                                  .out = kit_path("ds"),
                                  .interrupted = stop_at_once};
    assert_err(lh_import_run(&spec, &r), LH_ECANCELED, "interrupted");
    assert_int_equal(kit_run(NULL, "ls -a %s | grep ds", kit_dir()), 1);
    lh_schema_destroy(&s);
}

static void files_are_found_by_pattern_and_suffix(void **state)
{
    (void)state;
    kit_write(kit_path("p-2.csv"), "");
    kit_write(kit_path("p-1.csv"), "");
    kit_write(kit_path("q.csv.gz"), "");
    const char *names[] = {"p-*.csv", "q.csv", "-"};
    char **found;
    size_t n;
    assert_ok(lh_import_files(&found, &n, kit_dir(), names, 3));
    assert_int_equal(n, 4);
    kit_assert_contains(found[0], "p-1.csv");
    kit_assert_contains(found[1], "p-2.csv");
    kit_assert_contains(found[2], "q.csv.gz");
    assert_string_equal(found[3], "-");
    lh_import_files_free(&found, n);
    names[0] = "z*.csv";
    assert_err(lh_import_files(&found, &n, kit_dir(), names, 1), LH_ENOENT, "no file matches");
}

static void run_survives_every_failed_allocation(void **state)
{
    (void)state;
    write_log(kit_path("log.csv"), 5, 60);
    for (uint64_t n = 1;; n++) {
        struct lh_import_report r;
        struct setup u = {
            .file = kit_path("log.csv"), .out = kit_path("ds"), .threads = 1, .memory = 16 << 20};
        lh_mem_fail_at(n);
        int rc = import(&u, &r);
        lh_mem_fail_at(0);
        if (rc == 0) {
            assert_true(n > 200);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
        assert_false(lh_fs_exists(kit_path("ds")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(values_arrive_as_declared),
        kit_test(json_lines_say_the_same_as_csv),
        kit_test(bad_rows_are_named_and_bounded),
        kit_test(file_that_does_not_fit_the_schema_is_refused),
        kit_test(bytes_do_not_depend_on_threads_or_memory),
        kit_test(log_larger_than_memory_goes_through_files),
        kit_test(split_by_seed_is_a_permutation_of_users),
        kit_test(trajectories_are_cut_as_declared),
        kit_test(sessions_are_cut_by_gaps),
        kit_test(overlapping_sessions_come_one_after_the_other),
        kit_test(order_of_the_log_stands_in_for_times),
        kit_test(interruption_leaves_nothing),
        kit_test(files_are_found_by_pattern_and_suffix),
        kit_test(run_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}
