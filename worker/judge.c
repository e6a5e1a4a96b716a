/* Between a policy and the simulator: one clone a thread. */
#include "worker/judge.h"

#include "common/err.h"
#include "common/mem.h"

static int act(void *ctx, unsigned thread, const float *high, const float *low, size_t n,
               uint64_t seed, uint64_t first, float *action)
{
    struct lh_policy **clones = ctx;
    return lh_policy_act(clones[thread], high, low, n, seed, first, action, NULL);
}

int lh_judge_play(const struct lh_sim *sim, const struct lh_policy *policy, uint64_t users,
                  uint64_t sessions, uint64_t seed, unsigned threads, struct lh_sim_value *out)
{
    const struct lh_dims *p = &lh_policy_job(policy)->dims;
    struct lh_dims d;
    struct lh_policy **clones = NULL;
    int rc = 0;
    lh_sim_dims(&d);
    if (p->high != d.high || p->low != d.low || p->action != d.action)
        return lh_err_set(LH_EMISMATCH,
                          "policy: made for states of %u + %u and actions of %u columns, the "
                          "simulated world has %u + %u and %u; play one trained on its log",
                          p->high, p->low, p->action, d.high, d.low, d.action);
    threads = threads ? threads : 1;
    LH_TRY(LH_NEW_ARRAY(&clones, threads, "playing a policy"));
    for (unsigned t = 0; t < threads; t++)
        LH_TRY_TO(fail, lh_policy_clone(&clones[t], policy));
    LH_TRY_TO(fail, lh_sim_play(sim, act, clones, users, sessions, seed, threads, out));
fail:
    for (unsigned t = 0; t < threads; t++)
        lh_policy_destroy(&clones[t]);
    lh_mem_free(clones);
    return rc;
}
