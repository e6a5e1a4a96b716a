/* The graph: an algorithm is a declaration over differentiable operators. It is built once: shapes
 * are inferred as nodes are made, gradients are derived and memory is planned by
 * lh_graph_compile, and the result runs without allocating. The same mechanism serves training,
 * evaluation and batch scoring (DESIGN.md, invariant 4).
 *
 *     struct lh_graph *g = NULL;
 *     LH_TRY(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 256, .dims = dims}));
 *     lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
 *     lh_node a = lh_input(g, LH_ACTION);
 *     lh_node mu = lh_mlp(g, LH_LIVE, "actor", s, &(struct lh_mlp_spec){.hidden = {256, 256},
 *                         .n_hidden = 2, .out = dims.action, .last = LH_TANH});
 *     lh_loss(g, "mse", 1.0, lh_mean(g, lh_sqdist(g, mu, a)), "actor.*");
 *     LH_TRY_TO(fail, lh_graph_compile(g));
 *
 * Errors are sticky: the first failing call records its code and sentence in the graph, every later
 * call returns an invalid node and does nothing, and lh_graph_status / lh_graph_compile report it.
 * So a declaration needs no error handling line by line.
 *
 * A node is a matrix [rows, cols] of lh_real. Shapes are written beside each operator; R is the
 * number of rows of its inputs. Everything is deterministic: fixed order of sums, BLAS shapes that
 * depend on the graph only. */
#pragma once

#include "common/rng.h"
#include "common/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_graph;

typedef struct {
    int32_t id; /* < 0: invalid */
} lh_node;

/* An embedding table that a state input is widened by: for each id of a row, the table's row of
 * that id, side by side behind the state's own columns. So no algorithm knows of tables: it reads
 * the state. A run is given the table's rows that its ids name, each once, and says where they are.
 * A table learns from every loss, through the live uses of networks that read the state; not
 * through frozen ones, since an actor that climbs a critic would else make states look better than
 * they are. It has no target copy: target networks read the rows as they are. */
struct lh_graph_table {
    const char *name; /* lives as long as the graph */
    size_t dim;       /* of a row */
    size_t ids;       /* of a state */
    bool high;        /* widens s_h; else s_l */
};

enum { LH_GRAPH_TABLES_MAX = 8 };

struct lh_graph_spec {
    size_t rows; /* B, rows of every batch input */
    struct lh_dims dims;
    struct lh_graph_table tables[LH_GRAPH_TABLES_MAX];
    size_t n_tables;
};

int lh_graph_create(struct lh_graph **out, const struct lh_graph_spec *spec);
void lh_graph_destroy(struct lh_graph **g);
int lh_graph_status(const struct lh_graph *g); /* 0 or the first error, its sentence loaded */
int lh_graph_fail(struct lh_graph *g, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* lets an algorithm report, same stickiness */

/* --- inputs: one node each however often asked for ------------------------------------------- */
enum lh_input_kind {
    LH_STATE_HIGH,      /* [B, H] */
    LH_STATE_LOW,       /* [B, L] */
    LH_ACTION,          /* [B, A] logged action, scaled */
    LH_REWARD,          /* [B, 1] */
    LH_NOT_DONE,        /* [B, 1] 1, or 0 where the trajectory truly ended after this row */
    LH_REWARD_CLASS,    /* [B, 1] index of the reward among the distinct ones, as a real */
    LH_NEXT_STATE_HIGH, /* [B, H] */
    LH_NEXT_STATE_LOW,  /* [B, L] */
    LH_ROW_WEIGHT,      /* [B, 1] 1 / (rows of the global batch), or 0 for a padding row */
    LH_INPUTS
};

/* A state with tables is as wide as they make it. */
lh_node lh_input(struct lh_graph *g, enum lh_input_kind kind);
lh_node lh_next(struct lh_graph *g, lh_node input); /* STATE_* -> its NEXT_STATE_* */
/* [B, cols] standard normals drawn at execution, keyed by name and the run's (seed, step, part).
 * A name may appear once. */
lh_node lh_noise(struct lh_graph *g, const char *name, size_t cols);
lh_node lh_constant(struct lh_graph *g, size_t rows, size_t cols, double value);

/* --- parameters ---------------------------------------------------------------------------- */
/* How a use of a network sees its weights. LIVE: the weights, which losses may train. FROZEN: the
 * weights as constants (gradient flows through to the input, never into them). TARGET: the
 * target copy, likewise constant; its use makes the tensor have a target. */
enum lh_use { LH_LIVE, LH_FROZEN, LH_TARGET };

enum lh_activation { LH_LINEAR, LH_RELU, LH_TANH };

/* y = act(x W^T + b), [R, out] from [R, in]; parameters NAME.weight [out, in], NAME.bias [out]
 * (stored as [1, out]), made at first mention; later mentions must agree in shape. One fused
 * operator. Initial values U(-1/sqrt(in), 1/sqrt(in)) for both, a function of (seed, name, index).
 */
lh_node lh_linear(struct lh_graph *g, enum lh_use use, const char *name, lh_node x, size_t out,
                  enum lh_activation act);

#define LH_MLP_HIDDEN_MAX 8
struct lh_mlp_spec {
    size_t hidden[LH_MLP_HIDDEN_MAX];
    size_t n_hidden;
    size_t out;
    enum lh_activation last; /* hidden layers are ReLU */
};

/* Layers NAME.0 … NAME.n_hidden. */
lh_node lh_mlp(struct lh_graph *g, enum lh_use use, const char *name, lh_node x,
               const struct lh_mlp_spec *spec);

/* --- operators ----------------------------------------------------------------------------- */
lh_node lh_concat(struct lh_graph *g, lh_node a, lh_node b); /* [R, ca + cb] */
lh_node lh_concat3(struct lh_graph *g, lh_node a, lh_node b, lh_node c);
lh_node lh_slice(struct lh_graph *g, lh_node x, size_t first, size_t cols); /* columns */
/* [R, k c] from x [U, c] and index [R, k]: rows of x side by side, zeros where an index is
 * negative. An index is a whole number below U. Its gradient adds up by the order of R. */
lh_node lh_lookup(struct lh_graph *g, lh_node x, lh_node index);
lh_node lh_repeat(struct lh_graph *g, lh_node x, size_t n); /* [R n, c]: row i n times */
/* The same elements in row-major order as [R c / cols, cols]; cols divides R c. So noise [B, N C]
 * becomes one row of C for each of the N candidates of a state. */
lh_node lh_reshape(struct lh_graph *g, lh_node x, size_t cols);
lh_node lh_add(struct lh_graph *g, lh_node a, lh_node b); /* same shape */
lh_node lh_sub(struct lh_graph *g, lh_node a, lh_node b);
lh_node lh_mul(struct lh_graph *g, lh_node a, lh_node b); /* element-wise */
lh_node lh_div(struct lh_graph *g, lh_node a, lh_node b);
lh_node lh_min(struct lh_graph *g, lh_node a, lh_node b); /* ties: gradient to a */
lh_node lh_max(struct lh_graph *g, lh_node a, lh_node b);
lh_node lh_affine(struct lh_graph *g, lh_node x, double scale, double shift);
lh_node lh_neg(struct lh_graph *g, lh_node x);
lh_node lh_relu(struct lh_graph *g, lh_node x);
lh_node lh_tanh(struct lh_graph *g, lh_node x);
lh_node lh_sigmoid(struct lh_graph *g, lh_node x);
lh_node lh_exp(struct lh_graph *g, lh_node x);
lh_node lh_log(struct lh_graph *g, lh_node x);
lh_node lh_square(struct lh_graph *g, lh_node x);
lh_node lh_abs(struct lh_graph *g, lh_node x);
lh_node lh_clamp(struct lh_graph *g, lh_node x, double lo, double hi); /* gradient 0 outside */
lh_node lh_stop(struct lh_graph *g, lh_node x);                        /* no gradient passes */

/* Per-row reductions, [R, 1]. */
lh_node lh_row_sum(struct lh_graph *g, lh_node x);
lh_node lh_row_norm(struct lh_graph *g, lh_node x);          /* Euclidean; 0 at 0 */
lh_node lh_sqdist(struct lh_graph *g, lh_node a, lh_node b); /* sum_j (a_j - b_j)^2 */
lh_node lh_softmax_cross_entropy(struct lh_graph *g, lh_node logits, lh_node class_index);
/* Negative log-likelihood of x under N(mean, exp(log_std)), summed over columns. */
lh_node lh_gaussian_nll(struct lh_graph *g, lh_node x, lh_node mean, lh_node log_std);

/* A diagonal Gaussian whose parameters are the two halves of a network's output [R, 2 c]: mean,
 * then log standard deviation, clamped to [lo, hi]. */
typedef struct {
    lh_node mean, log_std; /* [R, c] each */
} lh_gauss;
lh_gauss lh_gauss_split(struct lh_graph *g, lh_node x, double lo, double hi);
lh_node lh_gauss_sample(struct lh_graph *g, lh_gauss q, lh_node noise); /* mean + exp(log_std) e */
lh_node lh_gauss_kl(struct lh_graph *g, lh_gauss q); /* KL(q || N(0, 1)), summed: [R, 1] */

/* Mean over the global batch: sum_i row_weight_i x_i, [1, 1] from [B, 1]. Micro-batches add up to
 * the mean because the weights are 1 / (global rows). From [B n, 1], what lh_repeat led to: the
 * mean of the n values of a row counts for it. */
lh_node lh_mean(struct lh_graph *g, lh_node x);

/* Selection (Algorithm 2): rows come in groups of n; per group the row of x whose score [R, 1] is
 * largest (first of equals). [R / n, c]. No gradient. */
lh_node lh_select_best(struct lh_graph *g, lh_node x, lh_node score, size_t n);

/* --- what the graph is for ------------------------------------------------------------------ */
/* A loss [1, 1], multiplied by `weight` (0: the value is still reported, nothing is derived),
 * minimised over the LIVE uses of the parameters that match one of `patterns`: names or prefixes
 * ending in '*', separated by spaces ("cvae.decoder.* actor.*"). Reported unweighted under `name`.
 */
void lh_loss(struct lh_graph *g, const char *name, double weight, lh_node value,
             const char *patterns);
/* A number [1, 1] that is only reported. */
void lh_metric(struct lh_graph *g, const char *name, lh_node value);
/* A node whose value the caller reads after a run (policy graphs). */
void lh_output(struct lh_graph *g, const char *name, lh_node value);

/* Derives the gradients of all losses in one reverse sweep (a node's adjoint is kept per set of
 * parameters it still has to reach, so a loss never leaks into a parameter outside its patterns),
 * drops every computation whose result nobody uses, orders the rest, plans memory. After this the
 * graph is immutable and may be shared by threads. Errors: the sticky one; LH_ECONFIG for a
 * pattern that matches nothing, an unused parameter, a shape that does not fit. */
int lh_graph_compile(struct lh_graph *g);

/* --- after compile -------------------------------------------------------------------------- */
/* Parameters in canonical order (by name, so that it does not depend on the order of
 * declaration), laid out one after the other in one flat array; each starts at a multiple of 16
 * elements (64 bytes). The same layout serves weights, gradients, targets, optimiser state. */
struct lh_param {
    const char *name; /* "actor.high.0.weight"; lives with the graph */
    size_t rows, cols;
    size_t offset;   /* elements into the flat array */
    size_t fan_in;   /* for the initial values */
    bool trained;    /* a loss with non-zero weight reaches it */
    bool has_target; /* some use is TARGET */
};

const struct lh_param *lh_graph_params(const struct lh_graph *g, size_t *n);
size_t lh_graph_flat_size(
    const struct lh_graph *g); /* elements of a flat array, padding included */
/* Initial weights, a function of (seed, name, index) only; padding is 0. */
void lh_graph_init_params(const struct lh_graph *g, uint64_t seed, lh_real *flat);

/* Names of losses, then metrics, in order of declaration: what `metrics` below receives. */
size_t lh_graph_metrics(const struct lh_graph *g); /* of both */
size_t lh_graph_losses(const struct lh_graph *g);
const char *lh_graph_metric_name(const struct lh_graph *g, size_t i);

/* Width of an input; 0 if the graph does not read it. */
size_t lh_graph_input_cols(const struct lh_graph *g, enum lh_input_kind kind);
/* Most distinct rows of table t that one run can name: the rows of its input. */
size_t lh_graph_table_rows(const struct lh_graph *g, size_t t);
/* The i-th noise and its width; NULL if there are no more. */
const char *lh_graph_noise(const struct lh_graph *g, size_t i, size_t *cols);

struct lh_graph_stats {
    uint64_t flops_forward, flops_backward; /* of GEMMs, 2 m n k each, one run of B rows */
    size_t nodes, arena_bytes;
};
struct lh_graph_stats lh_graph_stats(const struct lh_graph *g);

/* --- running -------------------------------------------------------------------------------- */
struct lh_exec; /* one thread's memory for one graph */

int lh_exec_create(struct lh_exec **out, const struct lh_graph *g);
void lh_exec_destroy(struct lh_exec **e);
/* Where to put an input before a run: [rows, cols]; NULL if the graph does not use it. Contents
 * stay as they are between runs. */
lh_real *lh_exec_input(struct lh_exec *e, enum lh_input_kind kind);
/* The same of table t (common/graph.h, lh_graph_table): its rows [lh_graph_table_rows, dim], of
 * which those that no index names are not read; and for each id of the states, or next states,
 * which row it is [rows, ids]: -1 for none. */
lh_real *lh_exec_table_rows(struct lh_exec *e, size_t t);
lh_real *lh_exec_table_index(struct lh_exec *e, size_t t, bool next);
/* After a run with gradients: that of the rows, [lh_graph_table_rows, dim], 0 where no index names
 * one; never added to an earlier run's. Valid until the next; NULL if no loss reaches the table. */
const lh_real *lh_exec_table_grad(const struct lh_exec *e, size_t t);
/* Whether a gradient passes to the rows that states, or next states, name. */
bool lh_exec_table_learns(const struct lh_exec *e, size_t t, bool next);
/* Overrides a noise node with given values ([B, cols], copied at each run; NULL: draw again). For
 * parity checks. Errors: LH_ENOENT for an unknown name. */
int lh_exec_set_noise(struct lh_exec *e, const char *name, const lh_real *values);

/* Where parameters lie that are not in flat arrays: params[i] is parameter i, 64-byte aligned; the
 * same for targets, of the parameters that have one. The tables are read by later runs. */
void lh_exec_place(struct lh_exec *e, const lh_real *const *params, const lh_real *const *targets);

/* From now on, until it is called again, runs read the same weights, in the same place: what
 * products need of them is prepared by the first run. `on` false: they may differ. */
void lh_exec_reuse(struct lh_exec *e, bool on);

/* Whether later runs add to grads and metrics instead of overwriting them: so a micro-batch goes
 * through a graph of fewer rows piece by piece, and the products go on from the sums so far. */
void lh_exec_accumulate(struct lh_exec *e, bool on);

/* One run: forward, and backward if `grads` is not NULL.
 *   params, targets  flat; NULL: where lh_exec_place has said (none is needed for targets if no
 *                    use is TARGET)
 *   grads            flat, overwritten (padding included, with 0; untrained tensors 0)
 *   metrics          [lh_graph_metrics], overwritten; NULL allowed
 *   at               seed, step, part of the noise (purpose is set per noise node)
 *   ready            NULL, or called as soon as the gradient of params[i] is final, in an order
 *                    fixed by the graph, each trained parameter once
 * Allocates nothing, takes no lock. Arrays must be 64-byte aligned and not overlap. */
void lh_exec_run(struct lh_exec *e, const lh_real *params, const lh_real *targets, lh_real *grads,
                 lh_real *metrics, const struct lh_rng_at *at,
                 void (*ready)(void *ctx, size_t param), void *ctx);
/* Seconds that backward steps of all runs took so far, calls of `ready` among them. */
double lh_exec_backward_seconds(const struct lh_exec *e);
/* Value of an output after a run; valid until the next. NULL if unknown. */
const lh_real *lh_exec_output(const struct lh_exec *e, const char *name, size_t *rows,
                              size_t *cols);
