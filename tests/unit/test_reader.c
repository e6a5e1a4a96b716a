#include "common/reader.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int note_header(void *ctx, const char *file, const char *text, size_t n, size_t line,
                       void **layout)
{
    (void)file;
    snprintf(ctx, 100, "%zu:%.*s", line, (int)n, text ? text : "");
    *layout = ctx;
    return 0;
}

/* All text of the log, and checks on each chunk. */
static int collect(const struct lh_reader_spec *spec, char *out, size_t size)
{
    struct lh_reader *r = NULL;
    struct lh_chunk c = {.data = NULL};
    size_t used = 0;
    int rc;
    out[0] = '\0';
    LH_TRY(lh_reader_create(&r, spec));
    uint64_t number = 0;
    while ((rc = lh_reader_next(r, &c)) == 0) {
        assert_int_equal(c.number, number++);
        if (used + c.n < size) {
            memcpy(out + used, c.data, c.n);
            used += c.n;
        }
        out[used] = '\0';
    }
    lh_chunk_fini(&c);
    lh_reader_destroy(&r);
    return rc == LH_NOTFOUND ? 0 : rc;
}

static void next_reads_every_compression(void **state)
{
    (void)state;
    char *text = malloc(400000), *got = malloc(400000);
    size_t n = 0;
    for (int i = 0; i < 20000; i++)
        n += (size_t)sprintf(text + n, "%d,%d\n", i, i * 7);
    kit_write(kit_path("x.csv"), text);
    static const char *const tools[] = {"cp %s %s", "gzip -c %s > %s", "xz -c %s > %s",
                                        "zstd -qc %s > %s", "bzip2 -c %s > %s"};
    for (size_t i = 0; i < 5; i++) {
        char command[900];
        snprintf(command, sizeof command, tools[i], kit_path("x.csv"), kit_path("y"));
        if (kit_run(NULL, "%s", command) != 0) {
            assert_true(i >= 3); /* a tool that is not installed */
            continue;
        }
        const char *files[] = {kit_path("y"), kit_path("x.csv")};
        struct lh_reader_spec spec = {
            .files = files, .n_files = 1, .lines = true, .chunk_bytes = 1000};
        assert_ok(collect(&spec, got, 400000));
        assert_string_equal(got, text);
    }
    /* gzip members one behind the other are one file */
    kit_write(kit_path("a"), "a\n");
    kit_write(kit_path("b"), "b\n");
    assert_int_equal(kit_run(NULL, "gzip %s %s && cat %s %s > %s", kit_path("a"), kit_path("b"),
                             kit_path("a.gz"), kit_path("b.gz"), kit_path("two.gz")),
                     0);
    const char *files[] = {kit_path("two.gz")};
    struct lh_reader_spec spec = {.files = files, .n_files = 1, .lines = true};
    assert_ok(collect(&spec, got, 400000));
    assert_string_equal(got, "a\nb\n");
    free(text);
    free(got);
}

static void next_cuts_at_records_and_counts_lines(void **state)
{
    (void)state;
    kit_write(kit_path("a.csv"),
              "\xef\xbb\xbf# comment\nid,\"te\nxt\"\n1,\"x\ny\"\n2,z\n3,\"p\nq\nr\"\n");
    kit_write(kit_path("b.csv"), "# c\nid,text\n4,w");
    const char *files[] = {kit_path("a.csv"), kit_path("b.csv")};
    char header[100];
    struct lh_reader_spec spec = {.files = files,
                                  .n_files = 2,
                                  .csv = {",", 1, '"'},
                                  .skip = 1,
                                  .header = true,
                                  .chunk_bytes = 10,
                                  .on_file = note_header,
                                  .ctx = header};
    struct lh_reader *r = NULL;
    struct lh_chunk c = {.data = NULL};
    assert_ok(lh_reader_create(&r, &spec));
    static const struct {
        const char *text;
        size_t file, line;
    } want[] = {{"1,\"x\ny\"\n2,z\n", 0, 4}, {"3,\"p\nq\nr\"\n", 0, 7}, {"4,w", 1, 3}};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(lh_reader_next(r, &c), 0);
        assert_int_equal(c.n, strlen(want[i].text));
        assert_memory_equal(c.data, want[i].text, c.n);
        assert_int_equal(c.file, want[i].file);
        assert_int_equal(c.line, want[i].line);
        assert_string_equal(c.layout, i < 2 ? "2:id,\"te\nxt\"\n" : "2:id,text\n");
    }
    assert_int_equal(lh_reader_next(r, &c), LH_NOTFOUND);
    assert_int_equal(lh_reader_next(r, &c), LH_NOTFOUND);
    lh_chunk_fini(&c);
    lh_reader_destroy(&r);
}

static void broken_files_are_named(void **state)
{
    (void)state;
    char got[100];
    const char *files[] = {kit_path("none.csv")};
    struct lh_reader_spec spec = {.files = files, .n_files = 1, .csv = {",", 1, '"'}};
    assert_err(collect(&spec, got, sizeof got), LH_ENOENT, "none.csv");
    assert_int_equal(
        kit_run(NULL, "yes abcdefgh | head -c 100000 | gzip | head -c 100 > %s", files[0]), 0);
    assert_err(collect(&spec, got, sizeof got), LH_EFORMAT, "none.csv: cannot read");
    kit_write(kit_path("empty.csv"), "");
    files[0] = kit_path("empty.csv");
    assert_ok(collect(&spec, got, sizeof got));
    assert_string_equal(got, "");
    assert_int_equal(
        kit_run(NULL, "printf '\"' | cat - /dev/zero | head -c 20000000 > %s", files[0]), 0);
    assert_err(collect(&spec, got, sizeof got), LH_EFORMAT, "quote left open");
    files[0] = kit_dir();
    assert_true(collect(&spec, got, sizeof got) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(next_reads_every_compression),
        kit_test(next_cuts_at_records_and_counts_lines),
        kit_test(broken_files_are_named),
    };
    return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
