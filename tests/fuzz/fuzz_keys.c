/* Key files: whatever is read as one names its own role and a scheduler, and lists whole keys. */
#include "common/keys.h"
#include "common/mem.h"
#include "tests/fuzz/fuzzkit.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_keys k;
    char *text = NULL;
    if (LH_NEW_ARRAY(&text, size + 1, "key file") < 0)
        return 0;
    memcpy(text, data, size);
    if (lh_keys_parse(&k, text, "fuzz") == 0) {
        fuzzkit_require(strlen(k.own.key) == LH_KEY_SIZE - 1, "own key");
        fuzzkit_require(strlen(k.secret) == LH_KEY_SIZE - 1, "secret");
        fuzzkit_require(strlen(k.scheduler.key) == LH_KEY_SIZE - 1, "scheduler");
        for (size_t i = 0; i < k.n_allowed; i++)
            fuzzkit_require(strlen(k.allowed[i].key) == LH_KEY_SIZE - 1 && *k.allowed[i].name,
                            "allow-list");
        lh_keys_fini(&k);
    }
    lh_mem_free(text);
    return 0;
}
