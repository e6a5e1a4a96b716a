/* What the modules behind graph.h share: the graph itself, how nodes are made, and the plan. */
#pragma once

#include "common/err.h"
#include "common/op_internal.h"

struct lh_graph_noise {
    char *name;
    int32_t node;
};

struct lh_graph_loss {
    char *name, *patterns;
    double weight;
    int32_t value;
};

struct lh_graph_named { /* a metric or an output */
    char *name;
    int32_t node;
};

/* One step: a node to compute. */
struct lh_step {
    int32_t node;
    bool backward, weight_adds, bias_adds;
    uint32_t ready, n_ready; /* range of lh_plan.ready */
};

struct lh_range {
    size_t first, count;
};

/* How a compiled graph runs. Values are numbers of nodes; `same` maps a node to the one that holds
 * its value (stop-gradients, frozen uses beside live ones). */
struct lh_plan {
    int32_t *same;  /* [nodes] */
    size_t *offset; /* [nodes] elements into the arena; SIZE_MAX: no memory */
    struct lh_step *step;
    size_t n_steps;
    uint32_t *ready; /* parameters in the order in which their gradients become final */
    size_t n_ready;
    struct lh_range *zero; /* parts of a flat array that are cleared before a run */
    size_t n_zero;
    size_t arena; /* elements */
    struct lh_graph_stats stats;
};

struct lh_graph {
    struct lh_graph_spec spec;
    struct lh_err err;
    bool compiled;

    struct lh_def *node;
    size_t n_nodes, cap_nodes;
    size_t n_forward; /* nodes declared; behind them those derived */
    int32_t *slot;    /* open-addressed hash table over nodes; -1: empty */
    size_t n_slots;

    struct lh_param *param; /* in order of declaration until compile sorts them */
    size_t n_params, cap_params;
    size_t flat_size;

    struct lh_graph_noise *noise;
    size_t n_noise, cap_noise;
    struct lh_graph_loss *loss;
    size_t n_losses, cap_losses;
    int32_t table_grad[LH_GRAPH_TABLES_MAX]; /* gradient of a table's rows; -1: none */
    struct lh_graph_named *metric, *output;
    size_t n_metrics, cap_metrics, n_outputs, cap_outputs;

    struct lh_plan plan;
};

extern const char *const lh_graph_op_names[LH_OP_COUNT];

/* True when an earlier call failed (or the graph is compiled): the caller does nothing. */
bool lh_graph_stuck(struct lh_graph *g);

/* An empty definition of an operator. */
struct lh_def lh_graph_def(enum lh_op op, size_t rows, size_t cols);

/* The node for `def`: an equal one if there is one and the operator has no side effect. */
lh_node lh_graph_add(struct lh_graph *g, const struct lh_def *def);

/* Definition of a node; NULL, with the sticky error set, if `x` is no node of g. The pointer dies
 * with the next lh_graph_add. */
const struct lh_def *lh_graph_get(struct lh_graph *g, lh_node x, const char *who);

bool lh_graph_has_effect(const struct lh_def *def);

/* Whether two definitions compute the same; uses LIVE and FROZEN count as equal if `by_value`. */
bool lh_graph_equal(const struct lh_def *x, const struct lh_def *y, bool by_value);
uint64_t lh_graph_hash(const struct lh_def *d, bool by_value);

/* graph_table.c: inputs of tables are INPUT nodes beyond LH_INPUTS, three a table. */
enum lh_table_part { LH_TABLE_ROWS, LH_TABLE_INDEX, LH_TABLE_NEXT_INDEX, LH_TABLE_PARTS };
static inline size_t lh_table_input(size_t t, enum lh_table_part part)
{
    return LH_INPUTS + LH_TABLE_PARTS * t + (size_t)part;
}
/* The table whose rows `def` is; -1: it is something else. */
int32_t lh_graph_table_of(const struct lh_def *def);
/* The state input `x` of this kind, with the tables that widen it. */
lh_node lh_graph_widen(struct lh_graph *g, enum lh_input_kind kind, lh_node x);

/* share.c: splits first layers that see some columns in common, whose product is then computed
 * once. */
int lh_share_products(struct lh_graph *g);

/* grad.c: appends the nodes of all gradients. Sets param.trained. */
int lh_grad_derive(struct lh_graph *g);

/* plan.c: fills g->plan. */
int lh_plan_make(struct lh_graph *g);
void lh_plan_fini(struct lh_plan *p);

/* exec.c: runs one step of the plan alone, for profiles. Those it needs must have run. */
struct lh_exec;
void lh_exec_run_step(struct lh_exec *e, size_t step, const lh_real *params, const lh_real *targets,
                      lh_real *grads);
