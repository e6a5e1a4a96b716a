/* What is certainly not in a run, without a look at its file: a Bloom filter, in blocks of half a
 * cache line, ten bits an id. Of ids that are not there some 1% pass all the same, of one that had
 * to grow some 4%: it grows in parts, each three times as large as all before. What a table spends
 * on filters is bounded: a run that gets none is looked into. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_rowtable_filter;

/* Bytes that filters may still take; any thread. */
struct lh_rowtable_filter_room {
    _Atomic size_t left;
};

/* For some n ids, 0: nobody knows. NULL where there is no room or no memory. The room outlives it.
 */
struct lh_rowtable_filter *lh_rowtable_filter_create(struct lh_rowtable_filter_room *room,
                                                     size_t n);
void lh_rowtable_filter_destroy(struct lh_rowtable_filter **f);

/* Adds an id; once it is there, nothing is allocated for it again. Where it cannot grow the filter
 * is destroyed, since it would lie. */
void lh_rowtable_filter_add(struct lh_rowtable_filter **f, uint64_t id);
/* False: the id was not added. */
bool lh_rowtable_filter_may_have(const struct lh_rowtable_filter *f, uint64_t id);
