/* cluster/run_record: run.json. */
#include "cluster/run_record.h"

#include "tests/fuzz/fuzzkit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_run_record r = {0};
    lh_err_clear();
    if (fuzzkit_passed(lh_run_record_parse(&r, (const char *)data, size, "run.json"))) {
        fuzzkit_require(!r.has_last || lh_run_record_cut(&r, r.last), "the last cut is one");
        fuzzkit_require(!r.has_best || lh_run_record_cut(&r, r.best), "the best cut is one");
        fuzzkit_require(lh_run_record_retain(&r, 1) <= 2, "the newest and the best are kept");
    }
    lh_run_record_fini(&r);
    return 0;
}
