#include "common/safetensors.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float six[6] = {1, -2, 3.5f, 4, 5e-30f, 6};
static const float two[2] = {7, 8};

static void write_two(const char *path)
{
    const struct lh_safetensor t[] = {
        {.name = "a.weight", .rank = 2, .shape = {2, 3}, .data = six},
        {.name = "a.bias", .rank = 1, .shape = {2}, .data = two},
    };
    const char *const metadata[] = {"format", "longhaul", "quote", "\"\\\n", NULL};
    assert_ok(lh_safetensors_write(path, t, 2, metadata));
}

static int parse_file(struct lh_safetensors **out, const char *path)
{
    size_t n;
    char *bytes = kit_read(path, &n);
    int rc = lh_safetensors_parse(out, bytes, n, path);
    free(bytes);
    return rc;
}

static void write_and_parse_give_the_same_tensors(void **state)
{
    (void)state;
    write_two(kit_path("w"));
    struct lh_safetensors *f = NULL;
    assert_ok(parse_file(&f, kit_path("w")));
    assert_int_equal(lh_safetensors_count(f), 2);
    assert_string_equal(lh_safetensors_at(f, 0)->name, "a.weight");
    const struct lh_safetensor *w = lh_safetensors_find(f, "a.weight");
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->shape[0], 2);
    assert_int_equal(w->shape[1], 3);
    assert_memory_equal(w->data, six, sizeof six);
    const struct lh_safetensor *b = lh_safetensors_find(f, "a.bias");
    assert_int_equal(b->rank, 1);
    assert_memory_equal(b->data, two, sizeof two);
    assert_null(lh_safetensors_find(f, "c"));
    assert_string_equal(lh_safetensors_metadata(f, "quote"), "\"\\\n");
    assert_null(lh_safetensors_metadata(f, "none"));
    lh_safetensors_close(&f);
    assert_null(f);
}

static void written_file_follows_the_public_format(void **state)
{
    (void)state;
    write_two(kit_path("w"));
    char *out = NULL;
    int status = kit_run(&out, "" LH_PYTHON " '%s/tests/reference/read_safetensors.py' '%s'",
                         LH_SOURCE_DIR, kit_path("w"));
    if (status != 0)
        fail_msg("%s", out);
    assert_string_equal(out, "a.bias (2,) 7 8\na.weight (2, 3) 1 -2 3.5 4 5e-30 6\n");
    free(out);
}

/* A file with the given header and `n` bytes of data. */
static size_t build(unsigned char *to, const char *header, size_t n)
{
    uint64_t length = strlen(header);
    memcpy(to, &length, 8);
    memcpy(to + 8, header, length);
    memset(to + 8 + length, 0, n);
    return 8 + length + n;
}

#define T(offsets) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}"

static void lying_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *complaint;
    } cases[] = {
        {"{\"a\":" T("[0,8]") ",\"b\":" T("[4,12]") "}", 12, "overlaps"},
        {"{\"a\":" T("[0,8]") ",\"b\":" T("[12,20]") "}", 20, "bytes of no tensor"},
        {"{\"a\":" T("[0,8]") "}", 12, "belong to none"},
        {"{\"a\":" T("[0,8]") "}", 4, "outside the file"},
        {"{\"a\":" T("[8,0]") "}", 8, "outside the file"},
        {"{\"a\":" T("[0]") "}", 8, "outside the file"},
        {"{\"a\":" T("[0,1e300]") "}", 8, "outside the file"},
        {"{\"a\":" T("[0.5,8]") "}", 8, "outside the file"},
        {"{\"a\":" T("[-8,0]") "}", 8, "outside the file"},
        {"{\"a\":" T("[0,8]") ",\"a\":" T("[8,16]") "}", 16, "there twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "do not fit its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "one or two sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,2],\"data_offsets\":[0,8]}}", 8,
         "one or two sizes"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8, "only F32"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is missing"},
        {"{\"a\":3}", 0, "dtype is missing"},
        {"{\"__metadata__\":{\"x\":3}}", 0, "mapping of texts"},
        {"[1]", 0, "no JSON object"},
        {"{\"a\"", 0, "not valid JSON"},
        {"{} {}", 0, "behind the header"},
        {"", 0, "no JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[512];
        size_t n = build(bytes, cases[i].header, cases[i].data);
        struct lh_safetensors *f = NULL;
        assert_err(lh_safetensors_parse(&f, bytes, n, "x"), LH_EFORMAT, cases[i].complaint);
        assert_null(f);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    write_two(kit_path("w"));
    size_t n;
    char *bytes = kit_read(kit_path("w"), &n);
    for (size_t cut = 0; cut < n; cut++) {
        struct lh_safetensors *f = NULL;
        assert_err(lh_safetensors_parse(&f, bytes, cut, "cut"), LH_EFORMAT, "cut: ");
    }
    memset(bytes, 0xff, 8); /* a header of 2^64 - 1 bytes */
    struct lh_safetensors *f = NULL;
    assert_err(lh_safetensors_parse(&f, bytes, n, "huge"), LH_EFORMAT, "huge: a header of");
    free(bytes);
}

static void empty_file_and_blank_padding_are_fine(void **state)
{
    (void)state;
    unsigned char bytes[64];
    struct lh_safetensors *f = NULL;
    assert_ok(lh_safetensors_parse(&f, bytes, build(bytes, "{}      ", 0), "x"));
    assert_int_equal(lh_safetensors_count(f), 0);
    lh_safetensors_close(&f);
}

static void parse_survives_every_failed_allocation(void **state)
{
    (void)state;
    write_two(kit_path("w"));
    for (uint64_t n = 1;; n++) {
        struct lh_safetensors *f = NULL;
        lh_mem_fail_at(n);
        int rc = parse_file(&f, kit_path("w"));
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_safetensors_close(&f);
            assert_true(n > 4);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(write_and_parse_give_the_same_tensors),
        kit_test(written_file_follows_the_public_format),
        kit_test(lying_headers_are_refused),
        kit_test(every_truncation_is_refused),
        kit_test(empty_file_and_blank_padding_are_fine),
        kit_test(parse_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
