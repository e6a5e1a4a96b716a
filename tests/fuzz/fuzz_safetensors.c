/* common/safetensors: a whole file. */
#include "common/safetensors.h"

#include "tests/fuzz/fuzzkit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_safetensors *f = NULL;
    lh_err_clear();
    if (!fuzzkit_passed(lh_safetensors_parse(&f, data, size, "fuzz")))
        return 0;
    size_t bytes = 0;
    for (size_t i = 0; i < lh_safetensors_count(f); i++) {
        const struct lh_safetensor *t = lh_safetensors_at(f, i);
        const size_t n = t->shape[0] * (t->rank == 2 ? t->shape[1] : 1) * sizeof(float);
        fuzzkit_touch(t->data, n);
        bytes += n;
        fuzzkit_require(lh_safetensors_find(f, t->name) != NULL, "a tensor is found by its name");
    }
    fuzzkit_require(bytes <= size, "tensors lie in the file");
    lh_safetensors_metadata(f, "format");
    lh_safetensors_close(&f);
    return 0;
}
