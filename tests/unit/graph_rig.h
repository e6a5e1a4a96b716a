/* Small graphs, and what runs them: shared by test_graph.c, test_plan.c and test_exec.c. */
#pragma once

#include "common/graph.h"
#include "tests/testkit.h"

#include <stdlib.h>
#include <string.h>

#define B      8
#define HIDDEN 12

static const struct lh_graph_spec spec = {.rows = B,
                                          .dims = {.high = 3, .low = 4, .action = 2, .classes = 5}};

static inline struct lh_graph *graph(void)
{
    struct lh_graph *g = NULL;
    assert_ok(lh_graph_create(&g, &spec));
    return g;
}

static inline lh_node mlp(struct lh_graph *g, enum lh_use use, const char *name, lh_node x,
                          size_t out)
{
    return lh_mlp(g, use, name, x,
                  &(struct lh_mlp_spec){.hidden = {HIDDEN, HIDDEN}, .n_hidden = 2, .out = out});
}

static inline lh_node state(struct lh_graph *g)
{
    return lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
}

/* Regression of the action by "actor": the smallest graph with a gradient. */
static inline void declare_actor(struct lh_graph *g)
{
    lh_node a = mlp(g, LH_LIVE, "actor", state(g), 2);
    lh_loss(g, "mse", 1, lh_mean(g, lh_sqdist(g, a, lh_input(g, LH_ACTION))), "actor.*");
}

/* An actor that climbs a critic which learns beside it. */
static inline void declare_pair(struct lh_graph *g)
{
    lh_node s = state(g), a = mlp(g, LH_LIVE, "actor", s, 2);
    lh_node e = lh_affine(g, lh_noise(g, "explore", 2), 0.1, 0);
    lh_node q = mlp(g, LH_LIVE, "critic", lh_concat(g, s, lh_input(g, LH_ACTION)), 1);
    lh_node t = mlp(g, LH_TARGET, "critic", lh_concat(g, s, lh_add(g, a, e)), 1);
    lh_node pi = mlp(g, LH_FROZEN, "critic", lh_concat(g, s, a), 1);
    lh_loss(g, "td", 1, lh_mean(g, lh_sqdist(g, q, lh_stop(g, t))), "critic.*");
    lh_loss(g, "j", 1, lh_neg(g, lh_mean(g, pi)), "actor.*");
    lh_metric(g, "q", lh_mean(g, q));
    lh_output(g, "action", a);
}

/* --- running a graph ---------------------------------------------------------------------------
 */
struct rig {
    struct lh_graph *g;
    struct lh_exec *e;
    size_t flat;
    float *params, *targets, *grads;
    float metrics[8];
};

static inline float *floats(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64 + 64);
    assert_non_null(p);
    memset(p, 0x7f, n * sizeof *p);
    return p;
}

static inline void rig_fill(struct rig *r, struct lh_graph *g)
{
    r->g = g;
    assert_ok(lh_exec_create(&r->e, g));
    r->flat = lh_graph_flat_size(g);
    r->params = floats(r->flat);
    r->targets = floats(r->flat);
    r->grads = floats(r->flat);
    lh_graph_init_params(g, 1, r->params);
    lh_graph_init_params(g, 2, r->targets);
    for (int k = 0; k < LH_INPUTS; k++) {
        float *x = lh_exec_input(r->e, (enum lh_input_kind)k);
        size_t cols = k == LH_STATE_HIGH ? 3 : k == LH_STATE_LOW ? 4 : k == LH_ACTION ? 2 : 1;
        struct lh_rng_at at = {.seed = 3, .purpose = (uint32_t)k};
        if (x && k == LH_ROW_WEIGHT)
            for (size_t i = 0; i < B; i++)
                x[i] = 1.0f / B;
        else if (x)
            lh_rng_normal(&at, x, B * cols);
    }
}

static inline void rig_init(struct rig *r, struct lh_graph *g)
{
    assert_ok(lh_graph_compile(g));
    rig_fill(r, g);
}

static inline void rig_fini(struct rig *r)
{
    free(r->params);
    free(r->targets);
    free(r->grads);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

static inline void run(struct rig *r)
{
    lh_exec_run(r->e, r->params, r->targets, r->grads, r->metrics,
                &(struct lh_rng_at){.seed = 4, .step = 7, .part = 2}, NULL, NULL);
}

static inline const struct lh_param *param(const struct lh_graph *g, const char *name)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].name, name) == 0)
            return &p[i];
    fail_msg("no parameter %s", name);
    return NULL;
}
