/* Logs that are none, or strange ones: text that is not text, lines and headers out of bounds, the
 * marks and line ends of other systems. What is refused is one line and leaves nothing; what can be
 * read reads the same. */
#include "tests/faultkit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char import[] = "longhaul import schema.yaml --out new --quiet";

static void log_that_is_none_is_named(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *make, *says;
    } cases[] = {
        {LH_EFORMAT, ": >log.csv", "./log.csv:1: no header line"},
        {LH_EFORMAT, "head -n 1 good.csv >log.csv", "./log.csv: no usable row (0 read, 0 bad"},
        {LH_EFORMAT, "head -n 1 good.csv | tr -d '\\n' >log.csv", "./log.csv: no usable row"},
        {LH_ECONFIG, "tail -n +2 good.csv >log.csv", "./log.csv has no column 'u'"},
        {LH_EFORMAT, "sed '1s/r$/y/' good.csv >log.csv", "./log.csv: two columns are called 'y'"},
        {LH_EFORMAT, "iconv -f UTF-8 -t UTF-16 good.csv >log.csv",
         "./log.csv:1: a NUL byte in the header|iconv"},
        {LH_EFORMAT, "sed 1s/x/x\\\\x00/ good.csv >log.csv", "./log.csv:1: a NUL byte"},
        {LH_EIO, "mkdir log.csv", "./log.csv: Is a directory"},
        {LH_EFORMAT, "{ cat good.csv; head -c 17000000 /dev/zero | tr '\\0' 1; } >log.csv",
         "./log.csv:162: a record longer than 16 MiB|quote"},
        {LH_EFORMAT, "xz -c good.csv | head -c 200 >log.csv", "./log.csv: cannot read|whole"},
        {LH_EFORMAT, "zstd -qc good.csv | tail -c +9 >log.csv", "./log.csv"},
    };
    faultkit_passes("mv log.csv good.csv");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("%s", cases[i].make);
        faultkit_refuses(cases[i].code, cases[i].says, import);
        faultkit_passes("rm -r log.csv");
    }
    faultkit_refuses(LH_ENOENT, "./log.csv: no such file", import);
}

/* Each row that cannot be used is named; the others are taken. */
static void row_with_a_nul_byte_is_a_bad_row(void **state)
{
    (void)state;
    static const struct {
        const char *row, *says;
    } cases[] = {
        {"5,900,0\\0,0,F,1", "162: column 'x': a NUL byte"},
        {"5\\0,900,0,0,F,1", "162: column 'u': a NUL byte"},
        {"5,9\\00,0,0,F,1", "162: column 't': a NUL byte"},
        {"5,900,0,0,F\\0,1", "162: column 'g': a NUL byte"},
        {"\\0\\0\\0\\0\\0\\0\\0\\0", "162: 1 fields where 6 are expected"}, /* a torn write */
    };
    faultkit_passes("mv log.csv good.csv");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("cp good.csv log.csv && printf '%s\\n' >>log.csv", cases[i].row);
        struct faultkit_end end = faultkit_run(import);
        assert_int_equal(end.status, 0);
        kit_assert_contains(end.said, cases[i].says);
        free(end.said);
        faultkit_passes("rm -r new");
    }
}

static void marks_and_line_ends_of_other_systems_change_nothing(void **state)
{
    (void)state;
    static const char *const makes[] = {
        "printf '\\357\\273\\277' | cat - good.csv >log.csv",
        "sed 's/$/\\r/' good.csv >log.csv",
        "printf '\\357\\273\\277' | cat - good.csv | sed 's/$/\\r/' >log.csv",
        "head -c -1 good.csv >log.csv",
        "(cat good.csv; echo; echo; printf '\\r\\n') >log.csv",
        "sed 's/[^,]*/\"&\"/g' good.csv >log.csv",
    };
    faultkit_passes("mv log.csv good.csv");
    for (size_t i = 0; i < sizeof makes / sizeof *makes; i++)
        faultkit_passes("%s && %s && cmp new/manifest.json data/manifest.json && rm -r new",
                        makes[i], import);
}

/* Ten rows of a million columns, of which six are read. */
static void log_of_a_million_columns_is_read(void **state)
{
    (void)state;
    faultkit_passes(
        "awk 'BEGIN { printf \"u,t,x,y,g,r\"; for (i = 0; i < 1000000; i++) printf \",c%%d\", i; "
        "print \"\"; for (k = 0; k < 10; k++) { printf \"%%d,%%d,1,%%d,F,1\", k, k, k; "
        "for (i = 0; i < 1000000; i++) printf \",1\"; print \"\" } }' >log.csv && "
        "%s && longhaul inspect new --verify",
        import);
    faultkit_refuses(LH_EFORMAT, "log.csv: more than 4096 columns|longhaul init",
                     "longhaul init log.csv --out mine");
    faultkit_passes("sed -i '2,$s/,1$//' log.csv && rm -r new");
    struct faultkit_end end = faultkit_run(import);
    assert_int_equal(end.status, lh_err_exit_status(LH_EFORMAT));
    kit_assert_contains(
        end.said, "longhaul: ./log.csv:2: 1000005 fields where 1000006 are expected: no usable");
    free(end.said);
    assert_int_not_equal(access(kit_path("new"), F_OK), 0);
}

static void log_that_init_cannot_read_is_named_and_nothing_written(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *make, *says;
    } cases[] = {
        {LH_EFORMAT, ": >log.csv", "log.csv: is empty"},
        {LH_EFORMAT, "echo a,b >log.csv", "log.csv: not one row could be read"},
        {LH_EFORMAT, "printf 'a,b\\0\\n1,2\\n' >log.csv", "log.csv: holds a NUL byte|iconv"},
        {LH_EFORMAT, "iconv -f UTF-8 -t UTF-16 good.csv >log.csv", "log.csv: holds a NUL byte"},
        {LH_EFORMAT, "echo once upon a time >log.csv; echo there was >>log.csv",
         "log.csv: no separator|is this a log?"},
        {LH_EFORMAT, "head -c 17000000 /dev/zero | tr '\\0' 1 >log.csv",
         "log.csv:1: a record longer than 16 MiB"},
        {LH_EFORMAT, "printf '{\"a\":1' >log.csv", "log.csv: not one row"},
        {LH_EFORMAT, "printf '{   ' >log.csv", "log.csv: not one row"},
        {LH_EIO, "rm log.csv && mkdir log.csv", "log.csv: Is a directory"},
        {LH_ENOENT, "rm -r log.csv", "log.csv: No such file"},
    };
    faultkit_passes("mv log.csv good.csv");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("%s", cases[i].make);
        faultkit_refuses(cases[i].code, cases[i].says, "longhaul init log.csv --out mine");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(log_that_is_none_is_named),
        faultkit_test(row_with_a_nul_byte_is_a_bad_row),
        faultkit_test(marks_and_line_ends_of_other_systems_change_nothing),
        faultkit_test(log_of_a_million_columns_is_read),
        faultkit_test(log_that_init_cannot_read_is_named_and_nothing_written),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
