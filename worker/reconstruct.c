/* Reconstructing the logged policy: the decoder in its two forms, and its loss. */
#include "worker/reconstruct.h"

#include <string.h>

struct lh_mlp_spec lh_reconstruct_mlp(const struct lh_job *job, size_t out, enum lh_activation last)
{
    struct lh_mlp_spec spec = {.n_hidden = job->n_hidden, .out = out, .last = last};
    memcpy(spec.hidden, job->hidden, sizeof spec.hidden);
    return spec;
}

size_t lh_reconstruct_latent(const struct lh_job *job)
{
    return job->latent ? job->latent : 2 * (size_t)job->dims.action;
}

lh_node lh_reconstruct_decode(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                              lh_node s, const lh_node *c)
{
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, job->dims.action,
                                                 job->bound == LH_BOUND_CLIP ? LH_TANH : LH_LINEAR);
    return lh_mlp(g, use, "cvae.decoder", c ? lh_concat(g, s, *c) : s, &spec);
}

lh_node lh_reconstruct_train(struct lh_graph *g, const struct lh_job *job, lh_node s, lh_node a,
                             bool cvae)
{
    if (!cvae) {
        lh_node a_on = lh_reconstruct_decode(g, job, LH_LIVE, s, NULL);
        lh_loss(g, "rec", 1.0, lh_mean(g, lh_sqdist(g, a_on, a)), "cvae.decoder.*"); /* Eq. 2 */
        return a_on;
    }
    size_t latent = lh_reconstruct_latent(job);
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, 2 * latent, LH_LINEAR);
    lh_node e = lh_mlp(g, LH_LIVE, "cvae.encoder", lh_concat(g, s, a), &spec);
    lh_gauss q = lh_gauss_split(g, e, job->log_std_lo, job->log_std_hi);
    lh_node c = lh_gauss_sample(g, q, lh_noise(g, "c_enc", latent));
    lh_node a_on = lh_reconstruct_decode(g, job, LH_LIVE, s, &c);
    lh_loss(g, "rec", 1.0, lh_mean(g, lh_sqdist(g, a_on, a)),
            "cvae.encoder.* cvae.decoder.*"); /* Eq. 3 */
    lh_loss(g, "kl", job->weight_kl, lh_mean(g, lh_gauss_kl(g, q)), "cvae.encoder.*");
    return a_on;
}

struct lh_algo_group lh_reconstruct_group(const struct lh_job *job)
{
    return (struct lh_algo_group){.pattern = "cvae.*",
                                  .learning_rate = job->lr_cvae,
                                  .period = 1,
                                  .tau = job->tau,
                                  .target_period = job->target_period};
}
