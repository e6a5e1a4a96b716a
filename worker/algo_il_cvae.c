/* IL_CVAE: imitation by a conditional VAE, a = D(s, c) with c ~ N(0, 1), one draw a state.
 *                                                                 ResAct Eq. 3 and Appendix E */
#include "worker/reconstruct.h"

static int declare_train(struct lh_graph *g, const struct lh_job *job)
{
    lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
    lh_node a = lh_reconstruct_train(g, job, s, lh_input(g, LH_ACTION), true);
    lh_metric(g, "action", lh_mean(g, lh_row_norm(g, a)));
    return lh_graph_status(g);
}

static int declare_act(struct lh_graph *g, const struct lh_job *job)
{
    lh_node s = lh_concat(g, lh_input(g, LH_STATE_HIGH), lh_input(g, LH_STATE_LOW));
    lh_node c = lh_noise(g, LH_ALGO_ACT_NOISE, lh_reconstruct_latent(job));
    lh_output(g, "action", lh_reconstruct_decode(g, job, LH_LIVE, s, &c));
    return lh_graph_status(g);
}

static size_t groups(const struct lh_job *job, struct lh_algo_group out[LH_ALGO_GROUPS_MAX])
{
    out[0] = lh_reconstruct_group(job);
    return 1;
}

const struct lh_algo lh_algo_il_cvae = {
    .name = "il_cvae",
    .summary = "imitation by a conditional variational auto-encoder (ResAct Eq. 3)",
    .declare_train = declare_train,
    .declare_act = declare_act,
    .act_noise = lh_reconstruct_latent,
    .groups = groups,
};
