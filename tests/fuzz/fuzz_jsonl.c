/* common/jsonl: one line, of which some values are picked. */
#include "common/jsonl.h"

#include "tests/fuzz/fuzzkit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"u", "user.id", "state.1", "a.b.c", "x", "t"};
    enum { N = sizeof names / sizeof *names };
    struct lh_jsonl *j = NULL;
    struct lh_field fields[N];
    char *scratch = NULL;
    size_t at = 0, cap = 0;
    if (lh_jsonl_create(&j, names, N) != 0)
        return 0;
    const char *text = (const char *)data;
    const char *wrong = lh_jsonl_parse(j, text, size, fields, &at);
    if (wrong)
        fuzzkit_require(at <= size && *wrong, "a fault has a place and a name");
    for (size_t i = 0; !wrong && i < N; i++) {
        const char *value;
        size_t n;
        if (fields[i].kind == LH_FIELD_ABSENT)
            continue;
        fuzzkit_require(fields[i].text >= text && fields[i].text + fields[i].n <= text + size,
                        "a value lies in the line");
        if (lh_field_resolve(&fields[i], &scratch, &cap, &value, &n) == 0)
            fuzzkit_touch(value, n);
    }
    lh_mem_free(scratch);
    lh_jsonl_destroy(&j);
    return 0;
}
