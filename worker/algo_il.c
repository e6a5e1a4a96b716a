/* IL: imitation by regression, a = D(s).                          ResAct Eq. 2 and Appendix E */
#include "worker/reconstruct.h"

static int declare_train(struct lh_graph *g, const struct lh_job *job)
{
    lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
    lh_node a = lh_reconstruct_train(g, job, s, lh_input(g, LH_ACTION), false);
    lh_metric(g, "action", lh_mean(g, lh_row_norm(g, a)));
    return lh_graph_status(g);
}

static int declare_act(struct lh_graph *g, const struct lh_job *job)
{
    lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
    lh_output(g, "action", lh_reconstruct_decode(g, job, LH_LIVE, s, NULL));
    return lh_graph_status(g);
}

static size_t groups(const struct lh_job *job, struct lh_algo_group out[LH_ALGO_GROUPS_MAX])
{
    out[0] = lh_reconstruct_group(job);
    return 1;
}

const struct lh_algo lh_algo_il = {
    .name = "il",
    .summary = "imitation by regression on the logged actions (ResAct Eq. 2)",
    .declare_train = declare_train,
    .declare_act = declare_act,
    .groups = groups,
};
