/* State inputs that embedding tables widen (graph.h, lh_graph_table). */
#include "common/graph_internal.h"

int32_t lh_graph_table_of(const struct lh_def *def)
{
    if (def->op != LH_OP_INPUT || def->i < LH_INPUTS ||
        (def->i - LH_INPUTS) % LH_TABLE_PARTS != LH_TABLE_ROWS)
        return -1;
    return (int32_t)((def->i - LH_INPUTS) / LH_TABLE_PARTS);
}

/* Both states of a row may name other ids. */
size_t lh_graph_table_rows(const struct lh_graph *g, size_t t)
{
    return 2 * g->spec.rows * g->spec.tables[t].ids;
}

static lh_node input(struct lh_graph *g, size_t t, enum lh_table_part part)
{
    const struct lh_graph_table *table = &g->spec.tables[t];
    struct lh_def d = part == LH_TABLE_ROWS
                          ? lh_graph_def(LH_OP_INPUT, lh_graph_table_rows(g, t), table->dim)
                          : lh_graph_def(LH_OP_INPUT, g->spec.rows, table->ids);
    d.i = lh_table_input(t, part);
    return lh_graph_add(g, &d);
}

lh_node lh_graph_widen(struct lh_graph *g, enum lh_input_kind kind, lh_node x)
{
    const bool high = kind == LH_STATE_HIGH || kind == LH_NEXT_STATE_HIGH;
    const bool low = kind == LH_STATE_LOW || kind == LH_NEXT_STATE_LOW;
    const bool next = kind == LH_NEXT_STATE_HIGH || kind == LH_NEXT_STATE_LOW;
    for (size_t t = 0; t < g->spec.n_tables && (high || low); t++)
        if (g->spec.tables[t].high == high) {
            lh_node rows = input(g, t, LH_TABLE_ROWS);
            lh_node index = input(g, t, next ? LH_TABLE_NEXT_INDEX : LH_TABLE_INDEX);
            x = lh_concat(g, x, lh_lookup(g, rows, index));
        }
    return x;
}
