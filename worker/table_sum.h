/* A worker's half of the gradient tree, of rows of tables: what gradient.h does for the flat array,
 * over row lists (common/rowlist.h). The blocks of a micro-batch are added in their order, the
 * micro-batches of a subtree in that of the tree, so that the sum has the same bits whoever makes
 * it. */
#pragma once

#include "common/graph.h"
#include "common/layout.h"
#include "common/rowlist.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LH_TABLE_SUM_DEPTH 33 /* leaves fit in 32 bits */

struct lh_table_list {
    uint64_t *ids;
    float *values;
    size_t n, cap, cap_values;
};

struct lh_table_sum {
    uint32_t dim;
    struct lh_table_list at[LH_TABLE_SUM_DEPTH + 2]; /* memory: the stack, the leaf, a spare */
    struct lh_table_list *stack[LH_TABLE_SUM_DEPTH]; /* left siblings that wait, outermost first */
    struct lh_tree_node node[LH_TABLE_SUM_DEPTH];
    size_t depth;
    struct lh_table_list *leaf, *spare;
};

void lh_table_sum_init(struct lh_table_sum *s, uint32_t dim);
void lh_table_sum_fini(struct lh_table_sum *s); /* idempotent */

/* Begins a micro-batch: nothing in it. */
void lh_table_sum_leaf(struct lh_table_sum *s);
/* Adds a block's rows to it. Errors: LH_ENOMEM. */
int lh_table_sum_block(struct lh_table_sum *s, const struct lh_rowlist *rows);
/* The leaf at hand is not the last of its subtree: it joins the tree. */
int lh_table_sum_join(struct lh_table_sum *s, uint32_t leaf);
/* It is the last: the sum of the subtree, valid until the next leaf. */
int lh_table_sum_end(struct lh_table_sum *s, struct lh_rowlist *out);
/* The last leaf of the subtree will not come: the sums of its complete subtrees, the latest first,
 * each valid until the next call. False when there is none left. */
bool lh_table_sum_part(struct lh_table_sum *s, struct lh_rowlist *out);
/* Forgets a subtree that is not finished. */
void lh_table_sum_abandon(struct lh_table_sum *s);
