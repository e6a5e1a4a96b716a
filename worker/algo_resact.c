/* ResAct: reconstruct the logged policy, then improve it by a residual.
 *                                               ResAct Algorithms 1 and 2, Eq. 3 to 14
 * All gradients are those at one parameter snapshot. What the paper leaves open is settled in
 * DESIGN.md, section 9; z_h is drawn in training and its mean is used in execution, so that
 * the draw of c alone distinguishes the candidates of a state. */
#include "worker/reconstruct.h"

struct policy {
    lh_gauss high; /* (mu_h, sigma_h) */
    lh_node z_high, a_on, residual, action;
};

static lh_node critic(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                      const char *name, lh_node s, lh_node a)
{
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, 1, LH_LINEAR);
    return lh_mlp(g, use, name, lh_concat(g, s, a), &spec);
}

/* (mu_h, sigma_h) = f_h(s_h) */
static lh_gauss encode_high(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                            lh_node sh)
{
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, 2 * job->z_high, LH_LINEAR);
    return lh_gauss_split(g, lh_mlp(g, use, "actor.high", sh, &spec), job->log_std_lo,
                          job->log_std_hi);
}

/* z_l = f_l(s_l)                                                                     Eq. 4 */
static lh_node encode_low(struct lh_graph *g, const struct lh_job *job, enum lh_use use, lh_node sl)
{
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, job->z_low, LH_LINEAR);
    return lh_mlp(g, use, "actor.low", sl, &spec);
}

/* Delta = f_a(z, a). The action it takes is a constant: Eq. 6 and 17 have no path from J to the
 * decoder through f.                                                              Eq. 4, 6 */
static lh_node residual_of(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                           lh_node z_high, lh_node z_low, lh_node a_on)
{
    bool clip = job->bound == LH_BOUND_CLIP;
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, job->dims.action, clip ? LH_TANH : LH_LINEAR);
    lh_node x = lh_concat3(g, z_high, z_low, lh_stop(g, a_on));
    lh_node delta = lh_mlp(g, use, "actor.sub", x, &spec);
    return clip ? lh_affine(g, delta, job->residual_scale, 0) : delta;
}

static lh_node apply(struct lh_graph *g, const struct lh_job *job, lh_node a_on, lh_node delta)
{
    lh_node a = lh_add(g, a_on, delta);
    return job->bound == LH_BOUND_CLIP ? lh_clamp(g, a, -1, 1) : a;
}

/* pi(a | s, c) = D(s, c) + f(s, D(s, c)), c ~ N(0, 1), z_h ~ N(mu_h, sigma_h)          Eq. 4 */
static struct policy policy(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                            lh_node sh, lh_node sl, const char *c_noise, const char *h_noise)
{
    struct policy pi = {.high = encode_high(g, job, use, sh)};
    pi.z_high = lh_gauss_sample(g, pi.high, lh_noise(g, h_noise, job->z_high));
    lh_node c = {-1};
    if (job->cvae)
        c = lh_noise(g, c_noise, lh_reconstruct_latent(job));
    pi.a_on = lh_reconstruct_decode(g, job, use, lh_concat(g, sh, sl), job->cvae ? &c : NULL);
    pi.residual = residual_of(g, job, use, pi.z_high, encode_low(g, job, use, sl), pi.a_on);
    pi.action = apply(g, job, pi.a_on, pi.residual);
    return pi;
}

/* H(p(r | s) || o(r | z_h)) a row: categorical over the distinct rewards where they are few, else
 * Gaussian.                                                                          Eq. 12 */
static lh_node expressiveness(struct lh_graph *g, const struct lh_job *job, lh_node z_high,
                              lh_node r)
{
    size_t classes = job->dims.classes;
    struct lh_mlp_spec spec = lh_reconstruct_mlp(job, classes ? classes : 2, LH_LINEAR);
    lh_node o = lh_mlp(g, LH_LIVE, "reward", z_high, &spec);
    if (classes)
        return lh_softmax_cross_entropy(g, o, lh_input(g, LH_REWARD_CLASS));
    lh_gauss p = lh_gauss_split(g, o, job->log_std_lo, job->log_std_hi);
    return lh_gaussian_nll(g, r, p.mean, p.log_std);
}

static int declare_train(struct lh_graph *g, const struct lh_job *job)
{
    lh_node sh = lh_input(g, LH_STATE_HIGH), sl = lh_input(g, LH_STATE_LOW);
    lh_node sh2 = lh_next(g, sh), sl2 = lh_next(g, sl);
    lh_node s = lh_concat(g, sh, sl), s2 = lh_concat(g, sh2, sl2);
    lh_node a = lh_input(g, LH_ACTION), r = lh_input(g, LH_REWARD);
    lh_node live = lh_input(g, LH_NOT_DONE);

    /* the logged policy                                                         Eq. 3 (or 2) */
    lh_reconstruct_train(g, job, s, a, job->cvae);

    /* twin critics against the target policy                                            Eq. 7 */
    lh_node a2 = policy(g, job, LH_TARGET, sh2, sl2, "c_next", "h_next").action;
    lh_node q2 = lh_min(g, critic(g, job, LH_TARGET, "critic.1", s2, a2),
                        critic(g, job, LH_TARGET, "critic.2", s2, a2));
    lh_node y = lh_stop(g, lh_add(g, r, lh_mul(g, live, lh_affine(g, q2, job->gamma, 0))));
    lh_node q1 = critic(g, job, LH_LIVE, "critic.1", s, a);
    lh_loss(g, "td1", 1.0, lh_mean(g, lh_sqdist(g, q1, y)), "critic.1.*");
    lh_loss(g, "td2", 1.0, lh_mean(g, lh_sqdist(g, critic(g, job, LH_LIVE, "critic.2", s, a), y)),
            "critic.2.*");

    /* the policy climbs Q1, whose weights stand still                       Eq. 5, 6, 8, 9 */
    struct policy pi = policy(g, job, LH_LIVE, sh, sl, "c_pi", "h_pi");
    lh_node q_pi = critic(g, job, LH_FROZEN, "critic.1", s, pi.action);
    lh_loss(g, "j", job->weight_j, lh_neg(g, lh_mean(g, q_pi)), "cvae.decoder.* actor.*");

    /* what z_h should say about the reward, and no more                            Eq. 12, 14 */
    lh_loss(g, "exp", job->weight_exp, lh_mean(g, expressiveness(g, job, pi.z_high, r)),
            "actor.high.* reward.*");
    lh_loss(g, "con", job->weight_con, lh_mean(g, lh_gauss_kl(g, pi.high)), "actor.high.*");

    lh_metric(g, "q", lh_mean(g, q1));
    lh_metric(g, "y", lh_mean(g, y));
    lh_metric(g, "residual", lh_mean(g, lh_row_norm(g, pi.residual)));
    lh_metric(g, "action", lh_mean(g, lh_row_norm(g, pi.action)));
    return lh_graph_status(g);
}

/* n estimators of a_on, a residual for each, the best by Q1                      Algorithm 2 */
static int declare_act(struct lh_graph *g, const struct lh_job *job)
{
    size_t n = job->cvae ? job->estimators : 1, latent = lh_reconstruct_latent(job);
    lh_node sh = lh_input(g, LH_STATE_HIGH), sl = lh_input(g, LH_STATE_LOW);
    lh_node s = lh_repeat(g, lh_concat(g, sh, sl), n);
    lh_node z_high = lh_repeat(g, encode_high(g, job, LH_LIVE, sh).mean, n);
    lh_node z_low = lh_repeat(g, encode_low(g, job, LH_LIVE, sl), n);

    lh_node c = {-1};
    if (job->cvae)
        c = lh_reshape(g, lh_noise(g, LH_ALGO_ACT_NOISE, n * latent), latent);
    lh_node a_on = lh_reconstruct_decode(g, job, LH_LIVE, s, job->cvae ? &c : NULL);
    lh_node delta = residual_of(g, job, LH_LIVE, z_high, z_low, a_on);
    lh_node a = apply(g, job, a_on, delta);
    lh_node q = critic(g, job, LH_LIVE, "critic.1", s, a);

    lh_output(g, "action", lh_select_best(g, a, q, n)); /* Eq. 10 */
    lh_output(g, "reconstructed", a_on);
    lh_output(g, "residual", delta);
    lh_output(g, "candidates", a);
    lh_output(g, "q", q);
    return lh_graph_status(g);
}

static size_t act_noise(const struct lh_job *job)
{
    return job->cvae ? job->estimators * lh_reconstruct_latent(job) : 0;
}

static size_t groups(const struct lh_job *job, struct lh_algo_group out[LH_ALGO_GROUPS_MAX])
{
    struct lh_algo_group base = {.period = 1, .tau = job->tau, .target_period = job->target_period};
    out[0] = lh_reconstruct_group(job);
    out[1] = out[2] = out[3] = base;
    out[1].pattern = "actor.*";
    out[1].learning_rate = job->lr_actor;
    out[1].period = job->actor_period;
    out[2].pattern = "critic.*";
    out[2].learning_rate = job->lr_critic;
    out[3].pattern = "reward.*";
    out[3].learning_rate = job->lr_reward;
    return 4;
}

const struct lh_algo lh_algo_resact = {
    .name = "resact",
    .summary = "ResAct: the reconstructed logged policy plus a learned residual",
    .declare_train = declare_train,
    .declare_act = declare_act,
    .act_noise = act_noise,
    .chooses = true,
    .groups = groups,
};
