/* The gradients of each algorithm in double against central differences of its losses. For a
 * parameter, the losses that may reach it are known from the paper; their weighted sum is what its
 * gradient must be the derivative of. */
#include "worker/algo.h"

#include "tests/testkit.h"
#include "tests/unit/algo_jobs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(lh_real) == sizeof(double), "gradients are checked in double");

enum { B = 5 };

struct rig {
    struct lh_job job;
    struct lh_graph *g;
    struct lh_exec *e;
    lh_real *params, *targets, *grads, metrics[16];
};

static double random_at(uint64_t seed, uint64_t i)
{
    return lh_rng_normal1(&(struct lh_rng_at){.seed = seed}, i);
}

static lh_real *flat_new(const struct lh_graph *g, uint64_t seed)
{
    size_t n = lh_graph_flat_size(g);
    lh_real *x = NULL;
    assert_ok(lh_mem_alloc_aligned((void **)&x, n, sizeof *x, "test"));
    for (size_t i = 0; i < n; i++)
        x[i] = 0.5 * random_at(seed, i);
    return x;
}

static void rig_init(struct rig *r, const struct lh_job *job)
{
    static const size_t cols[LH_INPUTS] = {JOB_HIGH, JOB_LOW,  JOB_ACTION, 1, 1,
                                           1,        JOB_HIGH, JOB_LOW,    1};
    *r = (struct rig){.job = *job};
    assert_ok(lh_graph_create(&r->g, &(struct lh_graph_spec){.rows = B, .dims = job->dims}));
    assert_ok(lh_algo_find(job->algorithm)->declare_train(r->g, job));
    assert_ok(lh_graph_compile(r->g));
    assert_true(lh_graph_metrics(r->g) <= 16);
    assert_ok(lh_exec_create(&r->e, r->g));
    r->params = flat_new(r->g, 1);
    r->targets = flat_new(r->g, 2);
    r->grads = flat_new(r->g, 3);
    for (int kind = 0; kind < LH_INPUTS; kind++) {
        lh_real *x = lh_exec_input(r->e, (enum lh_input_kind)kind);
        for (size_t i = 0; x && i < B * cols[kind]; i++)
            x[i] = kind == LH_ROW_WEIGHT     ? 1.0 / B
                   : kind == LH_NOT_DONE     ? (lh_real)(i % 3 != 0)
                   : kind == LH_REWARD_CLASS ? (lh_real)(i % JOB_CLASSES)
                                             : random_at(10 + (uint64_t)kind, i);
    }
}

static void rig_fini(struct rig *r)
{
    lh_mem_free(r->params);
    lh_mem_free(r->targets);
    lh_mem_free(r->grads);
    lh_exec_destroy(&r->e);
    lh_graph_destroy(&r->g);
}

static void run(struct rig *r, bool backward)
{
    lh_exec_run(r->e, r->params, r->targets, backward ? r->grads : NULL, r->metrics,
                &(struct lh_rng_at){.seed = 4}, NULL, NULL);
}

static double loss(const struct rig *r, const char *name)
{
    for (size_t i = 0; i < lh_graph_metrics(r->g); i++)
        if (!strcmp(lh_graph_metric_name(r->g, i), name))
            return r->metrics[i];
    fail_msg("no loss %s", name);
    return 0;
}

/* What the parameter minimises: Algorithm 1, lines 5 to 10. */
static double objective(struct rig *r, const char *param)
{
    const struct lh_job *job = &r->job;
    run(r, false);
    if (!strncmp(param, "cvae.encoder.", 13))
        return loss(r, "rec") + job->weight_kl * loss(r, "kl");
    if (!strncmp(param, "cvae.decoder.", 13))
        return loss(r, "rec") +
               (strcmp(job->algorithm, "resact") ? 0 : job->weight_j * loss(r, "j"));
    if (!strncmp(param, "critic.1.", 9))
        return loss(r, "td1");
    if (!strncmp(param, "critic.2.", 9))
        return loss(r, "td2");
    if (!strncmp(param, "reward.", 7))
        return job->weight_exp * loss(r, "exp");
    double all = job->weight_j * loss(r, "j");
    if (!strncmp(param, "actor.high.", 11))
        all += job->weight_exp * loss(r, "exp") + job->weight_con * loss(r, "con");
    return all;
}

static const struct lh_param *find(const struct rig *r, const char *name)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(r->g, &n);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(p[i].name, name))
            return &p[i];
    return NULL;
}

/* Makes f blind for the action it is given: then the derivative of J by the decoder's weights has
 * no path through f, which is what Eq. 6 has for any f. */
static void blind_residual(struct rig *r)
{
    const struct lh_param *w = find(r, "actor.sub.0.weight");
    for (size_t o = 0; w && o < w->rows; o++)
        for (size_t j = w->cols - JOB_ACTION; j < w->cols; j++)
            r->params[w->offset + o * w->cols + j] = 0;
}

static void check_gradients(const struct lh_job *job, bool decoder)
{
    const double h = 1e-5;
    struct rig r;
    rig_init(&r, job);
    if (decoder)
        blind_residual(&r);
    run(&r, true);
    size_t n;
    const struct lh_param *p = lh_graph_params(r.g, &n);
    for (size_t i = 0; i < n; i++) {
        if (!p[i].trained || (strncmp(p[i].name, "cvae.decoder.", 13) == 0) != decoder)
            continue;
        for (size_t k = p[i].offset; k < p[i].offset + p[i].rows * p[i].cols; k++) {
            lh_real was = r.params[k];
            char what[96];
            r.params[k] = was + h;
            double up = objective(&r, p[i].name);
            r.params[k] = was - h;
            double down = objective(&r, p[i].name);
            r.params[k] = was;
            snprintf(what, sizeof what, "%s[%zu]", p[i].name, k - p[i].offset);
            kit_assert_close(r.grads[k], (up - down) / (2 * h), 1e-7, what);
        }
    }
    rig_fini(&r);
}

static void check_both(struct lh_job job)
{
    check_gradients(&job, false);
    check_gradients(&job, true);
}

static void resact_gradients_agree_with_differences(void **state)
{
    (void)state;
    check_both(job_small("resact"));
}

static void resact_literal_gradients_agree_with_differences(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    job.bound = LH_BOUND_NONE;
    check_both(job);
}

static void resact_gaussian_rewards_gradients_agree_with_differences(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    job.dims.classes = 0;
    check_both(job);
}

static void resact_ablations_gradients_agree_with_differences(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    job.cvae = false;
    check_both(job);
    job = job_small("resact");
    job.weight_exp = 0;
    check_both(job);
    job.weight_con = 0;
    check_both(job);
}

static void imitation_gradients_agree_with_differences(void **state)
{
    (void)state;
    check_both(job_small("il"));
    check_both(job_small("il_cvae"));
}

/* Where f does look at the action, the full derivative of the decoder's losses has a path through f
 * that its gradient must not have. */
static void resact_residual_s_input_gives_the_decoder_no_gradient(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    job.bound = LH_BOUND_NONE;
    struct rig r;
    rig_init(&r, &job);
    const struct lh_param *d = find(&r, "cvae.decoder.2.bias");
    const double h = 1e-5;
    double apart = 0;
    run(&r, true);
    for (size_t k = d->offset; k < d->offset + JOB_ACTION; k++) {
        double was = r.params[k];
        r.params[k] = was + h;
        double up = objective(&r, d->name);
        r.params[k] = was - h;
        double down = objective(&r, d->name);
        r.params[k] = was;
        apart += fabs(r.grads[k] - (up - down) / (2 * h));
    }
    rig_fini(&r);
    assert_true(apart > 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(resact_gradients_agree_with_differences),
        kit_test(resact_literal_gradients_agree_with_differences),
        kit_test(resact_gaussian_rewards_gradients_agree_with_differences),
        kit_test(resact_ablations_gradients_agree_with_differences),
        kit_test(imitation_gradients_agree_with_differences),
        kit_test(resact_residual_s_input_gives_the_decoder_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
