#include "common/rowfile.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 50000, DIM = 5 }; /* more than a buffer of ids, and of rows */

static uint64_t id_of(uint64_t i)
{
    return i * i * 461168601u + (i > N / 2 ? UINT64_C(1) << 63 : 0);
}

static void write_file(const char *path, uint64_t n)
{
    struct lh_rowfile_writer *w = NULL;
    assert_ok(lh_rowfile_create(&w, path, n, DIM));
    for (uint64_t i = 0; i < n; i++) {
        float row[DIM];
        for (size_t k = 0; k < DIM; k++)
            row[k] = (float)i + 0.125f * (float)k;
        assert_ok(lh_rowfile_put(w, id_of(i), row));
    }
    assert_ok(lh_rowfile_close(&w));
}

static void open_gives_back_what_was_put(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, N};
    for (size_t s = 0; s < 3; s++) {
        struct lh_rowfile f;
        unlink(kit_path("f"));
        write_file(kit_path("f"), sizes[s]);
        assert_ok(lh_rowfile_open(&f, kit_path("f")));
        assert_true(f.n == sizes[s] && f.dim == DIM);
        for (uint64_t i = 0; i < f.n; i++) {
            const float *row = lh_rowfile_find(&f, id_of(i));
            assert_true(row == f.rows + i * DIM && row[1] == (float)i + 0.125f);
        }
        assert_null(lh_rowfile_find(&f, id_of(N - 1) + 1));
        assert_null(lh_rowfile_find(&f, 17));
        lh_rowfile_unmap(&f);
        lh_rowfile_unmap(&f);
    }
}

/* What other programs read: 8 bytes of length, the header, the tensors. */
static void file_is_a_safetensors_file(void **state)
{
    (void)state;
    size_t n;
    write_file(kit_path("f"), 2);
    char *bytes = kit_read(kit_path("f"), &n);
    uint64_t header;
    memcpy(&header, bytes, 8);
    assert_int_equal(n, 8 + header + 2 * 8 + 2 * DIM * 4);
    assert_int_equal((8 + header) % 64, 0);
    kit_assert_contains(bytes + 8, "\"rows\":{\"dtype\":\"F32\",\"shape\":[2,5],"
                                   "\"data_offsets\":[16,56]}");
    free(bytes);
}

static void writer_holds_to_what_it_was_told(void **state)
{
    (void)state;
    const float row[DIM] = {0};
    struct lh_rowfile_writer *w = NULL;
    assert_ok(lh_rowfile_create(&w, kit_path("f"), 1, DIM));
    assert_err(lh_rowfile_close(&w), LH_EINTERNAL, "0 of 1");
    assert_null(w);
    assert_err(lh_rowfile_create(&w, kit_path("f"), 1, DIM), LH_EEXIST, "f");
    assert_ok(lh_rowfile_create(&w, kit_path("g"), 1, DIM));
    assert_ok(lh_rowfile_put(w, 3, row));
    assert_err(lh_rowfile_put(w, 4, row), LH_EINTERNAL, "more than 1");
    lh_rowfile_abort(&w);
    assert_err(lh_rowfile_create(&w, kit_path("h"), UINT64_MAX / 8, DIM), LH_ERANGE, "too many");
}

static void refuse(const char *bytes, size_t n, const char *why)
{
    struct lh_rowfile f;
    kit_write_bytes(kit_path("bad"), bytes, n);
    assert_err(lh_rowfile_open(&f, kit_path("bad")), LH_EFORMAT, why);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    size_t n;
    struct lh_rowfile f;
    write_file(kit_path("f"), 3);
    char *bytes = kit_read(kit_path("f"), &n), *copy = malloc(n + 8);
    const size_t data = n - 3 * 8 - 3 * DIM * 4;
    assert_err(lh_rowfile_open(&f, kit_path("none")), LH_ENOENT, "none");
    for (size_t cut = 0; cut < n; cut++)
        refuse(bytes, cut, "copy the snapshot again");
    memcpy(copy, bytes, n);
    refuse(copy, n + 1, "its header"); /* bytes behind the end */
    copy[0] ^= 1;
    refuse(copy, n, "its header");
    memcpy(copy, bytes, n);
    memset(copy + data, 0x7f, 8); /* the first id becomes the largest */
    refuse(copy, n, "do not ascend");
    memcpy(copy, bytes, n);
    memcpy(copy + data + 24, &(float){NAN}, 4);
    refuse(copy, n, "not finite");
    memcpy(copy, bytes, n);
    char *shape = strstr(copy + 8, "[3,5]");
    memcpy(shape, "[3,6]", 5);
    refuse(copy, n, "its header");
    memcpy(shape, "[9,5]", 5);
    refuse(copy, n, "its header");
    free(bytes);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_gives_back_what_was_put),
        kit_test(file_is_a_safetensors_file),
        kit_test(writer_holds_to_what_it_was_told),
        kit_test(damaged_files_are_refused),
    };
    return cmocka_run_group_tests_name("rowfile", tests, NULL, NULL);
}
