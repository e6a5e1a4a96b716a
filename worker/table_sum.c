/* Subtree sums of row lists. Lists are merged into a spare one, which then takes the place of the
 * right one; memory is kept. */
#include "worker/table_sum.h"

#include "common/err.h"
#include "common/mem.h"

#include <assert.h>
#include <string.h>

/* Memory is dealt out anew: list k of the stack is at[k]. */
static void deal(struct lh_table_sum *s)
{
    for (size_t d = 0; d < LH_TABLE_SUM_DEPTH; d++)
        s->stack[d] = &s->at[d];
    s->leaf = &s->at[LH_TABLE_SUM_DEPTH];
    s->spare = &s->at[LH_TABLE_SUM_DEPTH + 1];
}

void lh_table_sum_init(struct lh_table_sum *s, uint32_t dim)
{
    *s = (struct lh_table_sum){.dim = dim};
    deal(s);
}

void lh_table_sum_fini(struct lh_table_sum *s)
{
    for (size_t i = 0; i < LH_TABLE_SUM_DEPTH + 2; i++) {
        lh_mem_free(s->at[i].ids);
        lh_mem_free(s->at[i].values);
        s->at[i] = (struct lh_table_list){.n = 0};
    }
    s->depth = 0;
}

static struct lh_rowlist view(const struct lh_table_list *l)
{
    return (struct lh_rowlist){.n = l->n, .ids = l->ids, .values = l->values};
}

static void swap(struct lh_table_list **a, struct lh_table_list **b)
{
    struct lh_table_list *x = *a;
    *a = *b;
    *b = x;
}

/* leaf = left + right, one of which it is. */
static int merge(struct lh_table_sum *s, const struct lh_rowlist *left,
                 const struct lh_rowlist *right)
{
    struct lh_table_list *to = s->spare;
    size_t elements;
    LH_TRY(lh_mem_mul(&elements, left->n + right->n, s->dim));
    LH_TRY(LH_GROW(&to->ids, &to->cap, left->n + right->n, "gradients of rows"));
    LH_TRY(LH_GROW(&to->values, &to->cap_values, elements, "gradients of rows"));
    to->n = lh_rowlist_add(left, right, s->dim, to->ids, to->values);
    swap(&s->leaf, &s->spare);
    return 0;
}

void lh_table_sum_leaf(struct lh_table_sum *s)
{
    s->leaf->n = 0;
}

int lh_table_sum_block(struct lh_table_sum *s, const struct lh_rowlist *rows)
{
    const struct lh_rowlist leaf = view(s->leaf);
    return merge(s, &leaf, rows);
}

int lh_table_sum_join(struct lh_table_sum *s, uint32_t leaf)
{
    struct lh_tree_node node = {.level = 0, .index = leaf};
    while (s->depth > 0 && node.index % 2 == 1 && s->node[s->depth - 1].level == node.level &&
           s->node[s->depth - 1].index == node.index - 1) {
        const struct lh_rowlist left = view(s->stack[s->depth - 1]), right = view(s->leaf);
        LH_TRY(merge(s, &left, &right));
        s->depth--;
        node = (struct lh_tree_node){.level = node.level + 1, .index = node.index / 2};
    }
    assert(s->depth < LH_TABLE_SUM_DEPTH);
    s->node[s->depth] = node;
    swap(&s->stack[s->depth++], &s->leaf);
    s->leaf->n = 0;
    return 0;
}

int lh_table_sum_end(struct lh_table_sum *s, struct lh_rowlist *out)
{
    while (s->depth > 0) { /* innermost left first */
        const struct lh_rowlist left = view(s->stack[s->depth - 1]), right = view(s->leaf);
        LH_TRY(merge(s, &left, &right));
        s->depth--;
    }
    *out = view(s->leaf);
    return 0;
}

bool lh_table_sum_part(struct lh_table_sum *s, struct lh_rowlist *out)
{
    if (s->depth == 0)
        return false;
    *out = view(s->stack[--s->depth]);
    return true;
}

void lh_table_sum_abandon(struct lh_table_sum *s)
{
    s->depth = 0;
    s->leaf->n = 0;
}
