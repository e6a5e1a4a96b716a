#include "common/npy.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float six[6] = {1, -2, 3.5f, 4, 5e-30f, 6};

/* A file of version `major`.0 with this header text and n bytes behind it. */
static size_t build(unsigned char *to, int major, const char *header, const void *data, size_t n)
{
    const size_t length = strlen(header), before = major == 1 ? 10 : 12;
    memcpy(to, "\x93NUMPY", 6);
    to[6] = (unsigned char)major;
    to[7] = 0;
    for (size_t i = 8; i < before; i++)
        to[i] = (unsigned char)(length >> 8 * (i - 8));
    memcpy(to + before, header, length);
    if (n > 0)
        memcpy(to + before + length, data, n);
    return before + length + n;
}

static void write_and_open_give_the_same_array(void **state)
{
    (void)state;
    static const struct {
        size_t rank, shape[3];
    } cases[] = {{2, {2, 3}}, {1, {6}}, {3, {1, 6, 1}}, {0, {0}}, {2, {0, 7}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct lh_npy a = {0};
        float back[6];
        assert_ok(lh_npy_write(kit_path("a.npy"), six, cases[k].shape, cases[k].rank));
        assert_ok(lh_npy_open(&a, kit_path("a.npy")));
        assert_int_equal(a.type, LH_NPY_FLOAT32);
        assert_int_equal(a.rank, cases[k].rank);
        assert_memory_equal(a.shape, cases[k].shape, cases[k].rank * sizeof(size_t));
        assert_ok(lh_npy_floats(&a, "a", back));
        assert_memory_equal(back, six, a.count * sizeof *six);
        lh_npy_close(&a);
        lh_npy_close(&a);
    }
}

static void write_aligns_elements_as_numpy_does(void **state)
{
    (void)state;
    size_t n, shape[2] = {2, 3};
    assert_ok(lh_npy_write(kit_path("a.npy"), six, shape, 2));
    char *text = kit_read(kit_path("a.npy"), &n);
    assert_int_equal(n, 128 + sizeof six);
    assert_int_equal(text[8] + 256 * text[9], 118);
    assert_int_equal(text[127], '\n');
    assert_memory_equal(text + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
                        59);
    free(text);
}

static void parse_both_versions_and_all_types(void **state)
{
    (void)state;
    unsigned char file[512];
    struct lh_npy a;
    float x[2];
    const double d[2] = {0.5, -3};
    const int64_t i[2] = {7, -1};
    for (int major = 1; major <= 2; major++) {
        size_t n =
            build(file, major, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n", d, 16);
        assert_ok(lh_npy_parse(&a, file, n, "f8"));
        assert_int_equal(a.type, LH_NPY_FLOAT64);
        assert_ok(lh_npy_floats(&a, "f8", x));
        assert_true(x[0] == 0.5f && x[1] == -3);
        n = build(file, major, " {\"shape\": (1, 2,) , \"descr\":\"<i8\",'fortran_order' :False,} ",
                  i, 16);
        assert_ok(lh_npy_parse(&a, file, n, "i8"));
        assert_int_equal(a.type, LH_NPY_INT64);
        assert_int_equal(a.rank, 2);
        assert_ok(lh_npy_floats(&a, "i8", x));
        assert_true(x[0] == 7 && x[1] == -1);
    }
}

static void parse_refuses_headers_that_lie(void **state)
{
    (void)state;
#define HEAD "{'descr': '<f4', 'fortran_order': False, 'shape': "
    static const struct {
        const char *header, *says;
    } cases[] = {
        {HEAD "(7,)}", "promises 28 bytes of elements, the file has 24"},
        {HEAD "(5,)}", "promises 20 bytes"},
        {HEAD "()}", "promises 4 bytes"},
        {HEAD "(18446744073709551615, 18446744073709551615)}", "larger than any file"},
        {HEAD "(4611686018427387910,)}", "larger than any file"},
        {HEAD "(18446744073709551617, 6)}", "no tuple of sizes"},
        {HEAD "(6)}", "no tuple of sizes"},
        {HEAD "(-6,)}", "no tuple of sizes"},
        {HEAD "(2 3)}", "no tuple of sizes"},
        {HEAD "(1,1,1,1,1,1,1,1,6)}", "no tuple of sizes"},
        {HEAD "(6,", "no tuple of sizes"},
        {HEAD "(6,)", "a comma or the end is missing"},
        {HEAD "(6,), ", "no key where one is due"},
        {HEAD "(6,), 'shape': (6,)}", "a key is there twice"},
        {HEAD "(6,), 'order': 1}", "an unknown key"},
        {HEAD "(6,), 'a key that is too long to be one': 1}", "no key where one is due"},
        {HEAD "(6,)} and more", "stands behind the dictionary"},
        {HEAD "(6,) 'x'}", "a comma or the end is missing"},
        {"{'descr': '<f4', 'shape': (6,)}", "type, order or shape is missing"},
        {"{}", "type, order or shape is missing"},
        {"[1]", "no dictionary"},
        {"", "no dictionary"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (6,)}", "'>f4' are not read here"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (6,)}", "'|O' are not read here"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "no simple type"},
        {"{'descr': '<f4", "no simple type"},
        {"{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (6,)}", "no simple type"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (6,)}", "Fortran order"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}", "neither True nor False"},
    };
    unsigned char file[512];
    struct lh_npy a;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        size_t n = build(file, 1, cases[k].header, six, sizeof six);
        assert_err(lh_npy_parse(&a, file, n, "x.npy"), LH_EFORMAT, cases[k].says);
        kit_assert_contains(lh_err_text(), "x.npy: ");
    }
}

/* Each prefix of a file is in memory of its own, so that a read behind it is seen. */
static void parse_refuses_every_cut(void **state)
{
    (void)state;
    unsigned char file[512];
    for (int major = 1; major <= 2; major++) {
        size_t n = build(file, major, HEAD "(6,), }\n", six, sizeof six);
        for (size_t cut = 0; cut <= n; cut++) {
            unsigned char *copy = malloc(cut + 1);
            struct lh_npy a;
            assert_non_null(copy);
            memcpy(copy + 1, file, cut);
            int rc = lh_npy_parse(&a, copy + 1, cut, "x.npy");
            assert_int_equal(rc, cut == n ? 0 : LH_EFORMAT);
            free(copy);
        }
    }
}

static void parse_refuses_what_is_no_array(void **state)
{
    (void)state;
    unsigned char file[512];
    struct lh_npy a;
    size_t n = build(file, 1, HEAD "(6,)}", six, sizeof six);
    file[6] = 3;
    assert_err(lh_npy_parse(&a, file, n, "x"), LH_EFORMAT, ".npy version 3.0");
    file[6] = 1;
    file[8] = file[9] = 255;
    assert_err(lh_npy_parse(&a, file, n, "x"), LH_EFORMAT, "longer than the file");
    file[0] = 0;
    assert_err(lh_npy_parse(&a, file, n, "x"), LH_EFORMAT, "not a .npy file");
    assert_err(lh_npy_open(&a, kit_path("none.npy")), LH_ENOENT, "none.npy");
}

static void floats_refuse_what_is_not_finite(void **state)
{
    (void)state;
    static const double bad[] = {NAN, INFINITY, -INFINITY, 1e39, -4e38};
    unsigned char file[512];
    struct lh_npy a;
    float x[4];
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        double d[4] = {1, 2, bad[k], NAN};
        size_t n =
            build(file, 2, "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}", d, 32);
        assert_ok(lh_npy_parse(&a, file, n, "x"));
        assert_err(lh_npy_floats(&a, "x.npy", x), LH_ERANGE, "x.npy: element 2 of (2, 2) is ");
    }
}

static void open_and_write_survive_no_memory(void **state)
{
    (void)state;
    size_t shape[1] = {6};
    int rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc == LH_ENOMEM; nth++) {
        lh_mem_fail_at(nth);
        rc = lh_npy_write(kit_path("a.npy"), six, shape, 1);
    }
    lh_mem_fail_at(0);
    assert_ok(rc);
    rc = LH_ENOMEM;
    for (uint64_t nth = 1; rc == LH_ENOMEM; nth++) {
        struct lh_npy a = {0};
        lh_mem_fail_at(nth);
        rc = lh_npy_open(&a, kit_path("a.npy"));
        lh_npy_close(&a);
    }
    lh_mem_fail_at(0);
    assert_ok(rc);
}

static void write_refuses_a_shape_that_overflows(void **state)
{
    (void)state;
    const size_t shape[2] = {SIZE_MAX / 2, 3};
    assert_int_equal(lh_npy_write(kit_path("a.npy"), six, shape, 2), LH_ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(write_and_open_give_the_same_array),
        kit_test(write_aligns_elements_as_numpy_does),
        kit_test(parse_both_versions_and_all_types),
        kit_test(parse_refuses_headers_that_lie),
        kit_test(parse_refuses_every_cut),
        kit_test(parse_refuses_what_is_no_array),
        kit_test(floats_refuse_what_is_not_finite),
        kit_test(open_and_write_survive_no_memory),
        kit_test(write_refuses_a_shape_that_overflows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
