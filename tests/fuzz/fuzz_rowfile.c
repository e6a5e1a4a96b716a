/* common/rowfile: a whole file of rows. */
#include "common/rowfile.h"

#include "tests/fuzz/fuzzkit.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_rowfile f;
    char *file = aligned_alloc(64, (size + 64) / 64 * 64);
    if (!file)
        return 0;
    memcpy(file, data, size);
    lh_err_clear();
    if (fuzzkit_passed(lh_rowfile_parse(&f, file, size, "fuzz"))) {
        fuzzkit_require(f.n * (8 + 4 * (uint64_t)f.dim) <= size, "rows lie in the file");
        fuzzkit_touch(f.ids, f.n * sizeof *f.ids);
        fuzzkit_touch(f.rows, f.n * f.dim * sizeof *f.rows);
        for (uint64_t i = 0; i < f.n; i++)
            fuzzkit_require(lh_rowfile_find(&f, f.ids[i]) == f.rows + i * f.dim,
                            "a row is found by its id");
    }
    free(file);
    return 0;
}
