/* What fuzz targets share. A target is one file that feeds bytes to one parser: under libFuzzer
 * (LH_FUZZ), or under fuzz_replay.c, which replays the corpus and mutates it for a bounded time. */
#pragma once

#include "common/err.h"
#include "common/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Returns 0 always; what is wrong ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process if `what` does not hold: our claim, not the input's. */
static inline void fuzzkit_require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s (last sentence: %s)\n", what, lh_err_text());
    abort();
}

/* A result of a parser: success, or a failure that has a sentence and is not a bug of ours. Returns
 * whether it was success. Call lh_err_clear before the parser. */
static inline bool fuzzkit_passed(int rc)
{
    fuzzkit_require(rc >= 0 || *lh_err_text(), "a failure has a sentence");
    fuzzkit_require(rc != LH_EINTERNAL && rc != LH_EUSAGE, "bad bytes are no bug of ours");
    return rc == 0;
}

/* A stretch of memory that is read, so that ASan sees it. */
static inline uint64_t fuzzkit_touch(const void *p, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((const volatile unsigned char *)p)[i];
    return sum;
}
