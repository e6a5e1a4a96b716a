/* common/manifest: manifest.json of a dataset. What passes is printed and parsed again. */
#include "common/manifest.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_manifest m = {0}, again = {0};
    char *text = NULL;
    lh_err_clear();
    if (fuzzkit_passed(lh_manifest_parse(&m, (const char *)data, size, "manifest.json"))) {
        fuzzkit_require(lh_manifest_print(&m, &text) == 0, "a manifest can be printed");
        fuzzkit_require(lh_manifest_parse(&again, text, strlen(text), "again") == 0 &&
                            again.digest == m.digest,
                        "what was printed is the same");
    }
    lh_mem_free(text);
    lh_manifest_fini(&again);
    lh_manifest_fini(&m);
    return 0;
}
