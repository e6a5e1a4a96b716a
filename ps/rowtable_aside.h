/* The rows of a cache that are set aside (rowtable_cache.h), as they are written: one after the
 * other by id, some at a time, and no call takes long however many they are. They are looked for
 * and sorted a block at a time, then the blocks are merged as they are asked for. A row that is to
 * change before its turn is copied, and keeps its turn; one whose slot is to be taken is for the
 * caller to write, and is left out. */
#pragma once

#include "ps/rowtable_block.h"
#include "ps/rowtable_cache.h"

struct lh_rowtable_aside;

/* Of a cache that outlives it; uses its `all`. Copies take some `bytes`; there is room for one at
 * least. Errors: LH_ENOMEM. */
int lh_rowtable_aside_create(struct lh_rowtable_aside **out, struct lh_rowtable_cache *cache,
                             size_t bytes);
void lh_rowtable_aside_destroy(struct lh_rowtable_aside **a);
size_t lh_rowtable_aside_bytes(const struct lh_rowtable_aside *a);

/* They have just been set aside. */
void lh_rowtable_aside_begin(struct lh_rowtable_aside *a);
/* Copies a row that is aside: it is not, then. False: there is no room. */
bool lh_rowtable_aside_keep(struct lh_rowtable_aside *a, uint32_t slot);
/* Looks at some slots more. Returns whether there are any left. */
bool lh_rowtable_aside_look(struct lh_rowtable_aside *a);
/* With all looked at: the next rows, a megabyte at most, in *out until the next call. Returns how
 * many; 0: that was all. */
size_t lh_rowtable_aside_next(struct lh_rowtable_aside *a, const struct lh_rowtable_record **out);
/* Those are written: they are not aside, and copies of them go. */
void lh_rowtable_aside_written(struct lh_rowtable_aside *a);
