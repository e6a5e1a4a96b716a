/* The best policy of the simulated world by dynamic programming.
 *
 * A decision matters to the future through two numbers only: the fit x that the taste columns reach
 * and the lure. Both can be had in any state, whatever topic and attributes are, so the optimal
 * value is a function of (satisfaction g, position n, usual session length, usual return time), and
 *
 *   V(g, n) = max over x, lure of   h (w_r R(sooner) + w_l L(n) + gamma V(g', 1))
 *                                 + (1 - h) gamma V(g', n + 1)                        Eq. S9
 *
 * with g' by Eq. S4, hazard h by S5, R the expected reward of the return. L is constant from
 * n = 4 usual lengths on (the reward is clipped at 5), so n ends there; g lies on a grid with
 * linear interpolation; usual lengths have 8 levels, usual return times matter through their ratio
 * to the 75th percentile only: 3 classes. Policy iteration: improve over all (x, lure), evaluate by
 * sweeps. That x = 1 is best everywhere is found, not assumed. */
#include "common/err.h"
#include "common/mem.h"
#include "worker/sim.h"
#include "worker/sim_internal.h"
#include "worker/sim_math.h"

#include <math.h>
#include <string.h>

#define GRID      65 /* points of satisfaction, 0 .. 1 */
#define FITS      4
#define LURES     33 /* 0, 1/32, ..., 1 */
#define CLASSES   3  /* of usual return time */
#define TOLERANCE 1e-7

static const double fits[FITS] = {0.3, 0.6, 0.9, 1.0};

/* What one (g, x, lure) does, apart from position. */
struct option {
    float back; /* expected return reward, weighted */
    float hazard;
    uint16_t cell; /* g' lies between cell and cell + 1 ... */
    float frac;    /* ... this far */
};

struct table { /* of one (length level, class) */
    uint32_t positions;
    double *value;     /* [positions, GRID] */
    float *fit, *lure; /* [positions, GRID] */
};

struct lh_sim_plan {
    const struct lh_sim *sim;
    double gamma;
    struct table t[SIM_LEVELS][CLASSES];
    double start; /* value of a fresh user */
    double fit_min, lure_min, lure_max;
};

static unsigned gap_class(unsigned gap_level)
{
    return gap_level < SIM_LEVELS - CLASSES + 1 ? 0 : gap_level - (SIM_LEVELS - CLASSES);
}

/* E[clip(floor(ratio), 0, 5)] with ln ratio ~ N(mean, sigma). */
static double expected_return_reward(double mean)
{
    static const double ln_k[5] = {0.0, 0.69314718055994531, 1.09861228866810969,
                                   1.38629436111989062, 1.60943791243410037};
    double sum = 0;
    for (int k = 0; k < 5; k++)
        sum += lh_sim_math_normal((mean - ln_k[k]) / SIM_GAP_SIGMA);
    return sum;
}

static void fill_options(const struct lh_sim *s, unsigned level, double ln_ratio,
                         struct option *options)
{
    for (size_t i = 0; i < GRID; i++)
        for (size_t x = 0; x < FITS; x++)
            for (size_t l = 0; l < LURES; l++) {
                double lure = (double)l / (LURES - 1);
                double g = lh_sim_satisfy(s, (double)i / (GRID - 1), fits[x], lure);
                double at = g * (GRID - 1);
                uint16_t cell = (uint16_t)(at < GRID - 2 ? at : GRID - 2);
                options[(i * FITS + x) * LURES + l] = (struct option){
                    .back = (float)(s->c.weight_return *
                                    expected_return_reward(ln_ratio +
                                                           lh_sim_sooner(s, g, fits[x], lure))),
                    .hazard = (float)lh_sim_hazard(s, level, g, lure),
                    .cell = cell,
                    .frac = (float)(at - cell)};
            }
}

static double between(const double *row, const struct option *o)
{
    return row[o->cell] + (double)o->frac * (row[o->cell + 1] - row[o->cell]);
}

struct solver {
    double gamma;
    struct table *t;
    const struct option *options;
    const double *stay_reward; /* [positions] weighted length reward of ending there */
    uint16_t *choice;          /* [positions, GRID] */
};

static double worth(const struct solver *v, uint32_t n, const struct option *o)
{
    uint32_t next = n + 1 < v->t->positions ? n + 1 : n;
    double h = (double)o->hazard;
    return h * ((double)o->back + v->stay_reward[n] + v->gamma * between(v->t->value, o)) +
           (1.0 - h) * v->gamma * between(v->t->value + (size_t)next * GRID, o);
}

/* One pass over all states; returns the largest change. `improve`: choose anew. */
static double sweep(struct solver *v, bool improve)
{
    double change = 0;
    for (uint32_t n = v->t->positions; n-- > 0;)
        for (size_t i = 0; i < GRID; i++) {
            size_t at = (size_t)n * GRID + i;
            const struct option *o = v->options + i * FITS * LURES;
            double best = worth(v, n, o + v->choice[at]);
            if (improve)
                for (uint16_t k = 0; k < FITS * LURES; k++) {
                    double w = worth(v, n, o + k);
                    if (w > best + 1e-12) {
                        best = w;
                        v->choice[at] = k;
                    }
                }
            change = fmax(change, fabs(best - v->t->value[at]));
            v->t->value[at] = best;
        }
    return change;
}

/* The lure between grid points: the top of a parabola through the best and its neighbours. */
static double refined_lure(const struct solver *v, uint32_t n, const struct option *o,
                           uint16_t choice)
{
    unsigned l = choice % LURES;
    double step = 1.0 / (LURES - 1);
    if (l == 0 || l == LURES - 1)
        return l * step;
    double a = worth(v, n, o + choice - 1), b = worth(v, n, o + choice),
           c = worth(v, n, o + choice + 1);
    double bend = a - 2.0 * b + c;
    return (l + (bend < -1e-15 ? 0.5 * (a - c) / bend : 0.0)) * step;
}

static int solve(struct lh_sim_plan *p, unsigned level, unsigned class, struct option *options)
{
    const struct lh_sim *s = p->sim;
    struct table *t = &p->t[level][class];
    t->positions = (uint32_t)ceil(4.0 * s->length[level]) + 1;
    size_t states = (size_t)t->positions * GRID;
    double *stay = NULL;
    uint16_t *choice = NULL;
    int rc = 0;
    LH_TRY_TO(done, LH_NEW_ARRAY(&t->value, states, "values of the optimum"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&t->fit, states, "fits of the optimum"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&t->lure, states, "lures of the optimum"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&stay, t->positions, "length rewards"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&choice, states, "choices of the optimum"));
    double ratio = s->gap_p75 / s->gap[class == 0 ? 0 : class + SIM_LEVELS - CLASSES];
    fill_options(s, level, ratio < 1.0 ? lh_sim_math_ln(ratio) : 0.0, options);
    for (uint32_t n = 0; n < t->positions; n++)
        stay[n] = s->c.weight_length * lh_sim_reward_length(s, level, n + 1.0);
    for (size_t i = 0; i < states; i++)
        choice[i] = (FITS - 1) * LURES; /* begin from full fit, no lure */

    struct solver v = {p->gamma, t, options, stay, choice};
    for (int round = 0; round < 100; round++) {
        if (sweep(&v, true) < TOLERANCE)
            break;
        for (int i = 0; i < 200 && sweep(&v, false) > 0.1 * TOLERANCE; i++)
            ;
    }
    for (uint32_t n = 0; n < t->positions; n++)
        for (size_t i = 0; i < GRID; i++) {
            size_t at = (size_t)n * GRID + i;
            const struct option *o = options + i * FITS * LURES;
            double lure = refined_lure(&v, n, o, choice[at]), fit = fits[choice[at] / LURES];
            t->fit[at] = (float)fit;
            t->lure[at] = (float)lure;
            p->fit_min = fmin(p->fit_min, fit);
            p->lure_min = fmin(p->lure_min, lure);
            p->lure_max = fmax(p->lure_max, lure);
        }
done:
    lh_mem_free(stay);
    lh_mem_free(choice);
    return rc;
}

static double value_at(const struct lh_sim_plan *p, unsigned level, unsigned class, double g)
{
    double at = g * (GRID - 1);
    size_t cell = (size_t)(at < GRID - 2 ? at : GRID - 2);
    const double *row = p->t[level][class].value;
    return row[cell] + (at - (double)cell) * (row[cell + 1] - row[cell]);
}

/* Mean over levels (uniform) and the normal start of satisfaction (midpoints of 64 quantiles). */
static double value_of_population(const struct lh_sim_plan *p)
{
    double sum = 0;
    for (int q = 0; q < 64; q++) {
        double g = lh_sim_start_satisfaction(p->sim, lh_sim_math_quantile((q + 0.5) / 64));
        for (unsigned level = 0; level < SIM_LEVELS; level++)
            for (unsigned gap = 0; gap < SIM_LEVELS; gap++)
                sum += value_at(p, level, gap_class(gap), g);
    }
    return sum / (64.0 * SIM_LEVELS * SIM_LEVELS);
}

int lh_sim_optimum_create(struct lh_sim_plan **out, const struct lh_sim *sim, double gamma)
{
    struct lh_sim_plan *p = NULL;
    struct option *options = NULL;
    int rc = 0;
    LH_TRY_TO(fail, LH_NEW(&p, "plan of the optimum"));
    p->sim = sim;
    p->gamma = gamma;
    p->fit_min = p->lure_min = 1.0;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&options, GRID * FITS * LURES, "options of the optimum"));
    for (unsigned level = 0; level < SIM_LEVELS; level++)
        for (unsigned class = 0; class < CLASSES; class ++)
            LH_TRY_TO(fail, solve(p, level, class, options));
    p->start = value_of_population(p);
    lh_mem_free(options);
    *out = p;
    return 0;
fail:
    lh_mem_free(options);
    lh_sim_optimum_destroy(&p);
    return rc;
}

void lh_sim_optimum_destroy(struct lh_sim_plan **plan)
{
    struct lh_sim_plan *p = *plan;
    if (!p)
        return;
    for (unsigned level = 0; level < SIM_LEVELS; level++)
        for (unsigned class = 0; class < CLASSES; class ++) {
            lh_mem_free(p->t[level][class].value);
            lh_mem_free(p->t[level][class].fit);
            lh_mem_free(p->t[level][class].lure);
        }
    lh_mem_free(p);
    *plan = NULL;
}

double lh_sim_optimum_value(const struct lh_sim_plan *plan)
{
    return plan->start;
}

void lh_sim_optimum_range(const struct lh_sim_plan *plan, double *fit_min, double *lure_min,
                          double *lure_max)
{
    *fit_min = plan->fit_min;
    *lure_min = plan->lure_min;
    *lure_max = plan->lure_max;
}

void lh_sim_plan_decide(const struct lh_sim_plan *plan, unsigned length_level, unsigned gap_level,
                        uint32_t request, double satisfaction, double *fit, double *lure)
{
    const struct table *t = &plan->t[length_level][gap_class(gap_level)];
    uint32_t n = request < t->positions ? request - 1 : t->positions - 1;
    double at = satisfaction * (GRID - 1);
    size_t cell = (size_t)(at < GRID - 2 ? at : GRID - 2);
    double frac = at - (double)cell;
    const float *f = t->fit + (size_t)n * GRID + cell, *l = t->lure + (size_t)n * GRID + cell;
    *fit = (double)f[0] + frac * (double)(f[1] - f[0]);
    *lure = (double)l[0] + frac * (double)(l[1] - l[0]);
}
