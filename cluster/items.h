/* Items to recommend: a table of embeddings in the space of actions, ranked by inner product with
 * an action, as ResAct recommends an item. */
#pragma once

#include <stddef.h>

struct lh_items;

struct lh_item_score {
    const char *id; /* lives with the table */
    float score;
};

/* Reads a CSV file: an id, then `width` numbers a line; a header line is optional. With a header,
 * the columns may be named as `names` [width] (NULL: none) and then come in any order, the id
 * first. Errors: LH_ENOENT, LH_EFORMAT naming file and line, LH_EMISMATCH for another width. */
int lh_items_load(struct lh_items **out, const char *path, const char *const *names, size_t width);
void lh_items_destroy(struct lh_items **items);

/* The k best for action [width], best first; of equal scores the earlier item. Returns how many:
 * min(k, number of items). Allocates nothing; any thread. */
size_t lh_items_rank(const struct lh_items *items, const float *action, size_t k,
                     struct lh_item_score *out);
