/* common/npy: a whole file. */
#include "common/npy.h"

#include "tests/fuzz/fuzzkit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_npy a = {0};
    char text[40];
    lh_err_clear();
    const uint64_t count = lh_mem_count();
    const int rc = lh_npy_parse(&a, data, size, "fuzz.npy");
    fuzzkit_require(lh_mem_count() == count, "parsing allocates nothing");
    if (!fuzzkit_passed(rc))
        return 0;
    fuzzkit_require(a.rank <= LH_NPY_RANK_MAX, "the rank is bounded");
    lh_npy_shape_text(text, sizeof text, a.shape, a.rank);
    const size_t each = a.type == LH_NPY_FLOAT32 ? 4 : 8;
    fuzzkit_require(a.count <= size / each, "elements lie in the file");
    fuzzkit_touch(a.data, a.count * each);
    float *x = malloc(a.count * sizeof *x + 1);
    if (x)
        fuzzkit_passed(lh_npy_floats(&a, "fuzz.npy", x));
    free(x);
    return 0;
}
