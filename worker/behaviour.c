/* The behaviour model: a policy and its residual RMS per dimension. */
#include "worker/behaviour.h"

#include "common/err.h"
#include "common/mem.h"

#include <math.h>

#define BLOCK 1024 /* rows gathered at a time */

struct lh_behaviour {
    struct lh_policy *policy;
    float *sigma; /* [A] */
    double mse;
};

struct scratch {
    uint64_t *rows;
    float *high, *low, *logged, *acted; /* [BLOCK, .] raw */
    double *squares;                    /* [A] */
};

static void scratch_fini(struct scratch *s)
{
    lh_mem_free(s->rows);
    lh_mem_free(s->high);
    lh_mem_free(s->low);
    lh_mem_free(s->logged);
    lh_mem_free(s->acted);
    lh_mem_free(s->squares);
}

static int scratch_init(struct scratch *s, const struct lh_dims *d)
{
    const char *what = "behaviour model";
    LH_TRY(LH_NEW_ARRAY(&s->rows, BLOCK, what));
    LH_TRY(LH_NEW_ARRAY(&s->high, BLOCK * (size_t)d->high, what));
    LH_TRY(LH_NEW_ARRAY(&s->low, BLOCK * (size_t)d->low, what));
    LH_TRY(LH_NEW_ARRAY(&s->logged, BLOCK * (size_t)d->action, what));
    LH_TRY(LH_NEW_ARRAY(&s->acted, BLOCK * (size_t)d->action, what));
    return LH_NEW_ARRAY(&s->squares, d->action, what);
}

static int check_dims(const struct lh_dataset *ds, const struct lh_policy *policy)
{
    const struct lh_dims *d = &lh_dataset_info(ds)->dims, *p = &lh_policy_job(policy)->dims;
    if (d->high == p->high && d->low == p->low && d->action == p->action)
        return 0;
    return lh_err_set(LH_EMISMATCH,
                      "behaviour model: made for states of %u + %u and actions of %u columns, but "
                      "%s has %u + %u and %u; take a model of this dataset, or `behaviour: auto`",
                      p->high, p->low, p->action, lh_dataset_dir(ds), d->high, d->low, d->action);
}

/* Residual sums over `n` rows evenly spread over the split's rows. */
static int measure(struct lh_behaviour *b, const struct lh_dataset *ds, enum lh_split split,
                   struct scratch *s)
{
    const struct lh_norm *norm = lh_dataset_norm(ds);
    size_t a = norm->dims.action;
    uint64_t total = lh_dataset_info(ds)->split[split].rows;
    uint64_t n = total < LH_BEHAVIOUR_ROWS ? total : LH_BEHAVIOUR_ROWS;
    if (n == 0)
        return lh_err_set(LH_EMISMATCH,
                          "%s: no rows to measure the behaviour model on; import a log that has "
                          "validation or training rows",
                          lh_dataset_dir(ds));
    struct lh_batch batch = {.high = s->high, .low = s->low, .action = s->logged};
    for (uint64_t first = 0; first < n; first += BLOCK) {
        size_t k = n - first < BLOCK ? (size_t)(n - first) : BLOCK;
        for (size_t i = 0; i < k; i++)
            s->rows[i] = (uint64_t)((unsigned __int128)(first + i) * total / n);
        LH_TRY(lh_dataset_gather(ds, split, s->rows, k, NULL, &batch));
        LH_TRY(lh_policy_act(b->policy, s->high, s->low, k, 0, first, s->acted, NULL));
        for (size_t i = 0; i < k; i++) {
            for (size_t j = 0; j < a; j++) {
                double d = ((double)s->logged[i * a + j] - (double)s->acted[i * a + j]) *
                           (double)norm->action_scale[j];
                s->squares[j] += d * d;
            }
        }
    }
    for (size_t j = 0; j < a; j++) {
        double ms = s->squares[j] / (double)n;
        b->mse += ms / (double)a;
        b->sigma[j] = (float)fmax(sqrt(ms), LH_BEHAVIOUR_SIGMA_MIN);
    }
    return 0;
}

int lh_behaviour_adopt(struct lh_behaviour **out, const struct lh_dataset *ds,
                       struct lh_policy **policy)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    enum lh_split split = info->split[LH_VALIDATION].rows ? LH_VALIDATION : LH_TRAIN;
    struct lh_behaviour *b = NULL;
    struct scratch s = {0};
    int rc;
    LH_TRY(check_dims(ds, *policy));
    LH_TRY(LH_NEW(&b, "behaviour model"));
    b->policy = *policy;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&b->sigma, info->dims.action, "behaviour model"));
    LH_TRY_TO(fail, scratch_init(&s, &info->dims));
    LH_TRY_TO(fail, measure(b, ds, split, &s));
    scratch_fini(&s);
    *policy = NULL;
    *out = b;
    return 0;
fail:
    scratch_fini(&s);
    b->policy = NULL;
    lh_behaviour_close(&b);
    return rc;
}

int lh_behaviour_open(struct lh_behaviour **out, const struct lh_dataset *ds, const char *snapshot)
{
    struct lh_policy *policy = NULL;
    LH_TRY(lh_policy_open(&policy, snapshot));
    int rc = lh_behaviour_adopt(out, ds, &policy);
    lh_policy_destroy(&policy);
    return rc;
}

void lh_behaviour_close(struct lh_behaviour **bp)
{
    struct lh_behaviour *b = *bp;
    if (!b)
        return;
    lh_policy_destroy(&b->policy);
    lh_mem_free(b->sigma);
    lh_mem_free(b);
    *bp = NULL;
}

const float *lh_behaviour_sigma(const struct lh_behaviour *b)
{
    return b->sigma;
}

struct lh_policy *lh_behaviour_policy(const struct lh_behaviour *b)
{
    return b->policy;
}

double lh_behaviour_mse(const struct lh_behaviour *b)
{
    return b->mse;
}
