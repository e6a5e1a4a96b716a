/* `longhaul import` and `longhaul inspect` from outside: what they print, how they fail, and what a
 * killed import leaves. */
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int in_dir(char **out, const char *command)
{
    return kit_run(out, "exec </dev/null; cd '%s' && PATH='%s':$PATH && %s", kit_dir(),
                   LH_BINARY_DIR, command);
}

static void assert_runs(const char *command, const char *const *parts)
{
    char *out = NULL;
    int status = in_dir(&out, command);
    if (status != 0)
        fail_msg("%s: status %d:\n%s", command, status, out);
    for (; parts && *parts; parts++)
        kit_assert_contains(out, *parts);
    free(out);
}

static void assert_fails(const char *command, int status, const char *complaint)
{
    char *out = NULL;
    int got = in_dir(&out, command);
    if (got != status)
        fail_msg("%s: status %d, expected %d:\n%s", command, got, status, out);
    kit_assert_contains(out, complaint);
    free(out);
}

static void write_files(void)
{
    kit_write(kit_path("schema.yaml"), "name: t\n"
                                       "input: {files: [log.csv]}\n"
                                       "columns: {u: id, t: {type: time, unit: s}, x: number, a: "
                                       "number, r: number}\n"
                                       "trajectory: {user: u, time: t, gap_minutes: 30}\n"
                                       "split: {train: 8, test: rest}\n"
                                       "reward: {column: r}\n"
                                       "state_high: [{count: sessions}]\n"
                                       "state_low: [{column: x}]\n"
                                       "action: [{column: a}]\n");
    FILE *f = fopen(kit_path("log.csv"), "w");
    fprintf(f, "u,t,x,a,r\n");
    for (int i = 0; i < 200; i++)
        fprintf(f, "%d,%d,%s,%.3f,%d\n", i % 10, 1500000000 + i * 977, i == 77 ? "oops" : "0.5",
                i * 0.01, i % 3);
    fclose(f);
}

#define PARTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void import_prints_what_it_did(void **state)
{
    (void)state;
    write_files();
    assert_runs("longhaul import schema.yaml --out ds",
                PARTS("bad row: ./log.csv:79: column 'x': 'oops' is not a number", "train",
                      "200 rows read, 1 bad", "s_h 1, s_l 1, action 1 wide"));
    assert_runs("longhaul import schema.yaml log.csv -o ds2 --json",
                PARTS("\"bad_rows\":1", "\"rows\":200", "\"users\":10", "log.csv:79: column 'x'"));
    assert_runs(
        "cat log.csv | longhaul import schema.yaml - -o ds3 -q && diff -r ds/train ds3/train",
        NULL);
    assert_runs("xz -k log.csv && rm log.csv && longhaul import schema.yaml -o ds --force -q && "
                "diff -r ds/train ds2/train",
                NULL);
}

static void import_fails_with_one_sentence_and_leaves_nothing(void **state)
{
    (void)state;
    write_files();
    assert_fails("longhaul import schema.yaml", 2, "needs --out");
    assert_fails("longhaul import none.yaml -o ds", 4, "none.yaml");
    assert_fails("longhaul import schema.yaml none.csv -o ds", 4, "none.csv");
    assert_fails("longhaul import schema.yaml -o ds --memory lots", 2, "--memory lots");
    assert_fails("longhaul import schema.yaml -o ds --set columns.x=nmber", 3, "not one of");
    assert_fails("longhaul import schema.yaml -o ds --set bad_rows.max=0", 3, "bad_rows: max");
    assert_fails("longhaul import schema.yaml -o log.csv", 4, "already exists");
    assert_fails("longhaul import schema.yaml -o log.csv --force", 4, "has no manifest.json");
    assert_fails("ls -d ds*", 2, "");
}

static void full_disk_is_one_sentence(void **state)
{
    (void)state;
    write_files();
    /* no file may grow beyond 8 blocks of 512 bytes: what a full disk does, without being root */
    assert_fails("(trap '' XFSZ; ulimit -f 8; longhaul import schema.yaml -o ds -q)", 4,
                 "File too large");
    assert_fails("ls -d ds*", 2, "");
}

static void killed_import_leaves_no_dataset_and_is_cleaned_up(void **state)
{
    (void)state;
    write_files();
    /* it has its partial directory and waits for more of the log when it is killed */
    assert_runs("mkfifo pipe; longhaul import schema.yaml pipe -o ds -q & id=$!; exec 3>pipe; "
                "head -50 log.csv >&3; "
                "for i in $(seq 200); do ls -d ds.partial-* >/dev/null 2>&1 && break; sleep 0.05; "
                "done; kill -9 $id; wait $id; ls -d ds.partial-$id && test ! -e ds",
                NULL);
    assert_runs("longhaul import schema.yaml -o ds -q && test $(ls -d ds* | wc -l) = 1", NULL);
}

static void inspect_shows_dataset_partition_row_and_statistics(void **state)
{
    (void)state;
    write_files();
    assert_runs("longhaul import schema.yaml --out ds -q", NULL);
    assert_runs("longhaul inspect ds",
                PARTS("2017-07-14 to 2017-07-16", "values 0, 1, 2", "train", "transitions"));
    assert_runs("longhaul inspect ds --json",
                PARTS("\"kind\":\"import\"", "\"reward_values\":[0,1,2]", "\"users\":8"));
    assert_runs("longhaul inspect ds --features", PARTS("state_low", "99.9%", "reward"));
    assert_runs("longhaul inspect ds --features --json", PARTS("\"q001\":", "\"name\":\"x\""));
    assert_runs("longhaul inspect ds --row train:0",
                PARTS("first of its trajectory", "its next state is known", "normalised"));
    assert_runs("longhaul inspect ds --row test:1 --json", PARTS("\"has_next\":true", "\"x\":0.5"));
    assert_runs("longhaul inspect ds --verify", PARTS("every block is sound"));
    assert_runs("longhaul inspect ds -p $(cd ds; ls train/*/*.lhp | head -1) --verify",
                PARTS("state_high", "every block sound"));
    assert_runs("longhaul inspect $(ls ds/train/*/*.lhp | head -1) --json",
                PARTS("\"split\":\"train\"", "\"columns\":["));
    assert_fails("longhaul inspect ds --row train:999", 2, "counted from 0");
    assert_fails("longhaul inspect ds --row bogus:1", 2, "expected SPLIT:N");
    assert_fails("longhaul inspect ds --partition nope", 2, "no such file");
    assert_fails("longhaul inspect nowhere", 4, "longhaul import");
}

static void verify_names_the_damaged_block(void **state)
{
    (void)state;
    write_files();
    assert_runs("longhaul import schema.yaml --out ds -q", NULL);
    assert_runs("f=$(ls ds/train/*/*.lhp | head -1); n=$(stat -c %s $f); "
                "printf '\\377' | dd of=$f bs=1 seek=$((n - 64)) conv=notrunc 2>/dev/null",
                NULL);
    char *out = NULL;
    int status = in_dir(&out, "longhaul inspect ds --verify");
    assert_int_equal(status, 3);
    kit_assert_contains(out, "damaged");
    kit_assert_contains(out, ".lhp");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(import_prints_what_it_did),
        kit_test(import_fails_with_one_sentence_and_leaves_nothing),
        kit_test(full_disk_is_one_sentence),
        kit_test(killed_import_leaves_no_dataset_and_is_cleaned_up),
        kit_test(inspect_shows_dataset_partition_row_and_statistics),
        kit_test(verify_names_the_damaged_block),
    };
    return cmocka_run_group_tests_name("import_inspect", tests, NULL, NULL);
}
