/* ps/rowtable_reduce: a list of pieces of rows, as a server takes them from workers. Of each, five
 * bytes say node, length of the whole, first and how many; then come ids and values, at whatever
 * byte they begin. */
#include "ps/rowtable_reduce.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>

enum { LEAVES = 5, DIM = 2, IDS_MAX = 40, ROUNDS = 60 };

static void look_at_root(struct lh_rowtable_reduce *r)
{
    const struct lh_rowlist *root = lh_rowtable_reduce_root(r);
    if (!root)
        return;
    fuzzkit_require(root->n <= (size_t)2 * LEAVES * IDS_MAX, "a sum is as long as its parts");
    fuzzkit_require(lh_rowlist_ascends(root->ids, root->n), "ids of the sum ascend");
    fuzzkit_touch(root->values, root->n * DIM * sizeof *root->values);
    lh_rowtable_reduce_reset(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lh_rowtable_reduce *r = NULL;
    const uint8_t *at = data, *end = data + size;
    if (lh_rowtable_reduce_create(&r, &(struct lh_rowtable_reduce_spec){
                                          .leaves = LEAVES, .dim = DIM, .max_ids = IDS_MAX}) != 0)
        return 0;
    lh_err_clear();
    for (int i = 0; i < ROUNDS && end - at >= 5; i++) {
        const struct lh_tree_node node = {.level = at[0], .index = at[1]};
        struct lh_rowtable_piece piece = {.total = at[2], .first = at[3], .n = at[4]};
        at += 5;
        if ((size_t)(end - at) < piece.n * (8 + DIM * sizeof(float)))
            break;
        piece.ids = at;
        piece.values = at + 8 * piece.n;
        at += piece.n * (8 + DIM * sizeof(float));
        int rc = lh_rowtable_reduce_add(r, node, &piece);
        fuzzkit_require(rc == 0 || rc == LH_AGAIN || rc == LH_EPROTO,
                        "a piece is taken, known or refused");
        look_at_root(r);
    }
    lh_rowtable_reduce_destroy(&r);
    return 0;
}
