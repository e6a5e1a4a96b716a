/* Off-policy evaluation of one split. Rows are cut into fixed blocks; each block yields one piece a
 * trajectory it touches (by sessions: one a session); pieces are joined in block order, which is a
 * trajectory's order in time. So neither the number of threads or processes nor the day partitions
 * that cut a trajectory, or a session, change a bit. */
#include "worker/evaluate.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define BLOCK LH_EVALUATE_BLOCK /* a multiple of a policy's rows a run */
#define ASKED 8192              /* candidates whose explanation is held at a time */

struct block {
    struct lh_evaluate_piece *pieces;
    size_t n, cap;
};

/* What one thread works with. */
struct worker {
    struct lh_policy *policy, *behaviour;            /* clones */
    uint64_t *rows, *ids;                            /* ids [BLOCK, I], with tables; else NULL */
    float *high, *low, *logged, *pi, *beta, *reward; /* [BLOCK, .] raw */
    struct lh_explain explain;                       /* of `asked` states */
    size_t asked, candidates; /* states a call, candidates a state; 0: it does not choose */
};

struct walk {
    const struct lh_evaluate_spec *spec;
    const float *sigma; /* [A] scaled; NULL: no policy */
    double log_cap;
    uint64_t rows, first; /* of the split; block that this walk begins at */
    struct worker *workers;
    struct block *blocks;
};

static int worker_init(struct worker *w, const struct lh_dims *d, const struct lh_policy *policy,
                       const struct lh_behaviour *behaviour)
{
    const char *what = "evaluation";
    if (policy) {
        LH_TRY(lh_policy_clone(&w->policy, policy));
        LH_TRY(lh_policy_clone(&w->behaviour, lh_behaviour_policy(behaviour)));
    }
    LH_TRY(LH_NEW_ARRAY(&w->rows, BLOCK, what));
    if (policy && lh_policy_job(policy)->n_tables > 0)
        LH_TRY(LH_NEW_ARRAY(&w->ids, BLOCK * (size_t)d->ids, what));
    LH_TRY(LH_NEW_ARRAY(&w->high, BLOCK * (size_t)d->high, what));
    LH_TRY(LH_NEW_ARRAY(&w->low, BLOCK * (size_t)d->low, what));
    LH_TRY(LH_NEW_ARRAY(&w->logged, BLOCK * (size_t)d->action, what));
    LH_TRY(LH_NEW_ARRAY(&w->pi, BLOCK * (size_t)d->action, what));
    LH_TRY(LH_NEW_ARRAY(&w->beta, BLOCK * (size_t)d->action, what));
    LH_TRY(LH_NEW_ARRAY(&w->reward, BLOCK, what));
    w->asked = BLOCK;
    if (!policy || !lh_algo_find(lh_policy_job(policy)->algorithm)->chooses)
        return 0;
    w->candidates = lh_policy_estimators(policy);
    w->asked = ASKED / w->candidates;
    w->asked = w->asked > BLOCK ? BLOCK : w->asked > 0 ? w->asked : 1;
    size_t n = w->asked * w->candidates;
    LH_TRY(LH_NEW_ARRAY(&w->explain.candidates, n * (size_t)d->action, what));
    LH_TRY(LH_NEW_ARRAY(&w->explain.residual, n * (size_t)d->action, what));
    return LH_NEW_ARRAY(&w->explain.q, n, what);
}

static void worker_fini(struct worker *w)
{
    lh_policy_destroy(&w->policy);
    lh_policy_destroy(&w->behaviour);
    lh_mem_free(w->rows);
    lh_mem_free(w->high);
    lh_mem_free(w->low);
    lh_mem_free(w->ids);
    lh_mem_free(w->logged);
    lh_mem_free(w->pi);
    lh_mem_free(w->beta);
    lh_mem_free(w->reward);
    lh_mem_free(w->explain.candidates);
    lh_mem_free(w->explain.residual);
    lh_mem_free(w->explain.q);
}

/* sum_j ((a_j - b_j) / sigma_j)^2, a and b raw. */
static double distance2(const float *a, const float *b, const float *scale, const float *sigma,
                        size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        double z = ((double)a[j] - (double)b[j]) * (double)scale[j] / (double)sigma[j];
        sum += z * z;
    }
    return sum;
}

/* The piece of `trajectory` and `session` at the end of block number `number`. */
static int piece_of(struct block *b, uint64_t number, uint64_t trajectory, uint64_t session,
                    struct lh_evaluate_piece **out)
{
    const struct lh_evaluate_piece *last = b->n ? &b->pieces[b->n - 1] : NULL;
    if (!last || last->trajectory != trajectory || last->session != session) {
        LH_TRY(LH_GROW(&b->pieces, &b->cap, b->n + 1, "evaluation"));
        b->pieces[b->n++] = (struct lh_evaluate_piece){
            .block = number, .trajectory = trajectory, .session = session};
    }
    *out = &b->pieces[b->n - 1];
    return 0;
}

/* The policy's actions for the n rows from `first`, and what stands behind them. */
static int ask_policy(const struct lh_evaluate_spec *spec, struct worker *w, uint64_t first,
                      size_t n, struct lh_choice_sum *choice)
{
    const struct lh_norm *norm = lh_dataset_norm(spec->ds);
    size_t h = norm->dims.high, l = norm->dims.low, a = norm->dims.action, m = w->candidates;
    for (size_t done = 0; done < n; done += w->asked) {
        size_t part = n - done < w->asked ? n - done : w->asked;
        const struct lh_states states = {
            .high = w->high + done * h,
            .low = w->low + done * l,
            .ids = w->ids ? w->ids + done * lh_dataset_info(spec->ds)->dims.ids : NULL};
        LH_TRY(lh_policy_act_on(w->policy, &states, part, spec->seed, first + done,
                                w->pi + done * a, m ? &w->explain : NULL));
        for (size_t i = 0; m && i < part; i++)
            lh_choice_add(choice, w->explain.candidates + i * m * a,
                          w->explain.residual + i * m * a, w->explain.q + i * m, norm->action_scale,
                          m, a);
    }
    return 0;
}

static int walk_block(void *ctx, size_t index, unsigned thread)
{
    const struct walk *k = ctx;
    const struct lh_evaluate_spec *spec = k->spec;
    struct worker *w = &k->workers[thread];
    struct block *b = &k->blocks[index];
    const struct lh_norm *norm = lh_dataset_norm(spec->ds);
    size_t a = norm->dims.action;
    uint64_t number = k->first + index, first = number * BLOCK;
    size_t n = k->rows - first < BLOCK ? (size_t)(k->rows - first) : BLOCK;
    struct lh_batch batch = {.reward = w->reward};
    struct lh_choice_sum choice = {0};
    if (spec->interrupted && spec->interrupted())
        return lh_err_set(LH_ECANCELED, "interrupted while evaluating on %s, %s split",
                          lh_dataset_dir(spec->ds), lh_split_names[spec->split]);
    for (size_t i = 0; i < n; i++)
        w->rows[i] = first + i;
    if (k->sigma) {
        batch.high = w->high;
        batch.low = w->low;
        batch.action = w->logged;
        batch.ids = w->ids;
    }
    LH_TRY(lh_dataset_gather(spec->ds, spec->split, w->rows, n, NULL, &batch));
    if (k->sigma) {
        LH_TRY(ask_policy(spec, w, first, n, &choice));
        LH_TRY(lh_policy_act(w->behaviour, w->high, w->low, n, spec->seed, first, w->beta, NULL));
    }
    for (size_t i = 0; i < n; i++) {
        struct lh_row_info row;
        struct lh_evaluate_piece *p;
        double log_weight = 0;
        LH_TRY(lh_dataset_row_info(spec->ds, spec->split, first + i, &row));
        LH_TRY(piece_of(b, number, row.trajectory, spec->unit == LH_UNIT_SESSION ? row.session : 0,
                        &p));
        if (k->sigma) {
            const float *logged = w->logged + i * a;
            double pi = distance2(logged, w->pi + i * a, norm->action_scale, k->sigma, a);
            double beta = distance2(logged, w->beta + i * a, norm->action_scale, k->sigma, a);
            log_weight = 0.5 * (beta - pi);
            b->pieces[0].distance += sqrt(pi / (double)a);
        }
        lh_ncis_add(&p->sum, log_weight, k->log_cap, (double)w->reward[i]);
    }
    b->pieces[0].choice = choice;
    return 0;
}

struct joined {
    uint64_t trajectory, session; /* the session that `open` is of */
    struct lh_ncis_sum sum, open; /* of units; by sessions: of the session's rows so far */
};

/* Joins the pieces of each trajectory, in order of first appearance. */
struct join {
    enum lh_unit unit;
    struct joined *trajectories;
    size_t n, cap;
    uint32_t *slot; /* open addressing: index + 1, 0 empty */
    size_t slots;   /* a power of two */
};

static int join_init(struct join *j, enum lh_unit unit, size_t pieces)
{
    j->unit = unit;
    j->slots = 16;
    while (j->slots < 2 * pieces)
        j->slots *= 2;
    return LH_NEW_ARRAY(&j->slot, j->slots, "evaluation");
}

static void join_fini(struct join *j)
{
    lh_mem_free(j->trajectories);
    lh_mem_free(j->slot);
}

static int join_add(struct join *j, const struct lh_evaluate_piece *p)
{
    size_t h = (size_t)((p->trajectory * 0x9E3779B97F4A7C15u) >> 17) & (j->slots - 1);
    while (j->slot[h] && j->trajectories[j->slot[h] - 1].trajectory != p->trajectory)
        h = (h + 1) & (j->slots - 1);
    if (!j->slot[h]) {
        LH_TRY(LH_GROW(&j->trajectories, &j->cap, j->n + 1, "evaluation"));
        j->trajectories[j->n++] =
            (struct joined){.trajectory = p->trajectory, .session = p->session};
        j->slot[h] = (uint32_t)j->n;
    }
    struct joined *t = &j->trajectories[j->slot[h] - 1];
    if (j->unit == LH_UNIT_ROW) {
        lh_ncis_merge(&t->sum, &p->sum);
        return 0;
    }
    if (t->session != p->session) {
        lh_ncis_add_session(&t->sum, &t->open);
        t->open = (struct lh_ncis_sum){0};
        t->session = p->session;
    }
    lh_ncis_merge(&t->open, &p->sum);
    return 0;
}

/* Sums of the trajectories; a trajectory of one unit has the same value under every policy. */
static int join_end(struct join *j, const struct lh_dataset *ds, struct lh_ncis_sum *sums)
{
    bool weighs = false;
    for (size_t i = 0; i < j->n; i++) {
        lh_ncis_add_session(&j->trajectories[i].sum, &j->trajectories[i].open);
        sums[i] = j->trajectories[i].sum;
        weighs |= sums[i].units > 1;
    }
    if (weighs || j->unit == LH_UNIT_ROW)
        return 0;
    return lh_err_set(LH_EMISMATCH,
                      "%s: no trajectory has two sessions, so weights of sessions cancel; evaluate "
                      "by rows (evaluation.unit: row)",
                      lh_dataset_dir(ds));
}

static int check(const struct lh_dataset *ds, enum lh_split split, const struct lh_policy *policy)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    if (info->split[split].rows == 0)
        return lh_err_set(LH_EMISMATCH, "%s: the %s split is empty; evaluate on another",
                          lh_dataset_dir(ds), lh_split_names[split]);
    if (!policy)
        return 0;
    const struct lh_dims *d = &info->dims, *p = &lh_policy_job(policy)->dims;
    if (d->high == p->high && d->low == p->low && d->action == p->action)
        return 0;
    return lh_err_set(LH_EMISMATCH,
                      "policy: made for states of %u + %u and actions of %u columns, but %s has "
                      "%u + %u and %u; evaluate it on the dataset it was trained for",
                      p->high, p->low, p->action, lh_dataset_dir(ds), d->high, d->low, d->action);
}

uint64_t lh_evaluate_blocks(const struct lh_dataset *ds, enum lh_split split)
{
    return (lh_dataset_info(ds)->split[split].rows + BLOCK - 1) / BLOCK;
}

static int collect(struct lh_evaluate_pieces *out, const struct block *blocks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        LH_TRY(LH_GROW(&out->items, &out->cap, out->n + blocks[i].n, "evaluation"));
        memcpy(out->items + out->n, blocks[i].pieces, blocks[i].n * sizeof *out->items);
        out->n += blocks[i].n;
    }
    return 0;
}

int lh_evaluate_part(const struct lh_evaluate_spec *spec, uint64_t first, uint64_t n,
                     unsigned threads, struct lh_evaluate_pieces *out)
{
    LH_TRY(check(spec->ds, spec->split, spec->policy));
    struct walk k = {.spec = spec,
                     .sigma = spec->policy ? lh_behaviour_sigma(spec->behaviour) : NULL,
                     .log_cap = log(spec->cap),
                     .rows = lh_dataset_info(spec->ds)->split[spec->split].rows,
                     .first = first};
    size_t n_blocks = (size_t)n;
    int rc = 0;
    if (n_blocks == 0)
        return 0;
    threads = threads ? threads : 1;
    threads = threads < n_blocks ? threads : (unsigned)n_blocks;
    LH_TRY(LH_NEW_ARRAY(&k.workers, threads, "evaluation"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&k.blocks, n_blocks, "evaluation"));
    for (unsigned t = 0; t < threads; t++)
        LH_TRY_TO(fail, worker_init(&k.workers[t], &lh_dataset_info(spec->ds)->dims, spec->policy,
                                    spec->behaviour));
    LH_TRY_TO(fail, lh_pool_run(threads, n_blocks, walk_block, &k));
    LH_TRY_TO(fail, collect(out, k.blocks, n_blocks));
fail:
    for (unsigned t = 0; t < threads; t++)
        worker_fini(&k.workers[t]);
    for (size_t i = 0; k.blocks && i < n_blocks; i++)
        lh_mem_free(k.blocks[i].pieces);
    lh_mem_free(k.blocks);
    lh_mem_free(k.workers);
    return rc;
}

/* A block's distance and choices lie in its first piece: block after block, they add up in row
 * order. */
int lh_evaluate_join(const struct lh_evaluate_spec *spec, const struct lh_evaluate_pieces *pieces,
                     double ess_floor, struct lh_evaluation *out, double **per_trajectory)
{
    struct join j = {0};
    struct lh_ncis_sum *sums = NULL;
    struct lh_choice_sum choice = {0};
    double *values = NULL, *own = NULL, distance = 0;
    int rc = 0;
    memset(out, 0, sizeof *out);
    out->cap = spec->cap;
    out->unit = spec->unit;
    LH_TRY_TO(fail, join_init(&j, spec->unit, pieces->n));
    for (size_t i = 0; i < pieces->n; i++) {
        LH_TRY_TO(fail, join_add(&j, &pieces->items[i]));
        distance += pieces->items[i].distance;
        lh_choice_merge(&choice, &pieces->items[i].choice);
    }
    LH_TRY_TO(fail, LH_NEW_ARRAY(&sums, j.n, "evaluation"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&values, j.n, "evaluation"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&own, 2 * j.n, "evaluation"));
    LH_TRY_TO(fail, join_end(&j, spec->ds, sums));
    lh_ncis_estimate(sums, j.n, false, 0, own, &out->behaviour);
    if (spec->behaviour) {
        lh_ncis_estimate(sums, j.n, true, ess_floor, values, &out->policy);
        lh_ncis_pair(&out->policy, values, own, j.n, own + j.n);
        out->choice = lh_choice_mean(&choice);
        out->policy.mean_distance =
            distance / (double)lh_dataset_info(spec->ds)->split[spec->split].rows;
    } else {
        memcpy(values, own, j.n * sizeof *own);
    }
    if (per_trajectory) {
        *per_trajectory = values;
        values = NULL;
    }
fail:
    lh_mem_free(own);
    lh_mem_free(values);
    lh_mem_free(sums);
    join_fini(&j);
    return rc;
}

int lh_evaluate(const struct lh_evaluate_spec *spec, double ess_floor, unsigned threads,
                struct lh_evaluation *out, double **per_trajectory)
{
    struct lh_evaluate_pieces pieces = {0};
    int rc = lh_evaluate_part(spec, 0, lh_evaluate_blocks(spec->ds, spec->split), threads, &pieces);
    if (rc >= 0)
        rc = lh_evaluate_join(spec, &pieces, ess_floor, out, per_trajectory);
    lh_mem_free(pieces.items);
    return rc;
}

const char *const lh_unit_plural[] = {"rows", "sessions"};

struct cJSON *lh_evaluate_json_estimate(const struct lh_estimate *e, enum lh_unit unit,
                                        bool weighted)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "value", e->value);
    cJSON_AddNumberToObject(o, "lo", e->lo);
    cJSON_AddNumberToObject(o, "hi", e->hi);
    cJSON_AddNumberToObject(o, "trajectories", (double)e->trajectories);
    cJSON_AddNumberToObject(o, lh_unit_plural[unit], (double)e->units);
    if (!weighted)
        return o;
    cJSON_AddNumberToObject(o, "ess", e->ess);
    cJSON_AddNumberToObject(o, "ess_share", e->ess_share);
    cJSON_AddBoolToObject(o, "collapsed", e->collapsed);
    cJSON_AddNumberToObject(o, "difference", e->difference);
    cJSON_AddNumberToObject(o, "difference_lo", e->difference_lo);
    cJSON_AddNumberToObject(o, "difference_hi", e->difference_hi);
    cJSON_AddNumberToObject(o, "mean_distance", e->mean_distance);
    return o;
}

struct cJSON *lh_evaluate_json_choice(const struct lh_choice *c)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "q", c->q);
    cJSON_AddNumberToObject(o, "gain", c->gain);
    cJSON_AddNumberToObject(o, "spread", c->spread);
    cJSON_AddNumberToObject(o, "residual", c->residual);
    return o;
}

int lh_evaluate_json(const struct lh_evaluation *e, enum lh_split split, char **out)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "split", lh_split_names[split]);
    cJSON_AddStringToObject(o, "estimator", "ncis");
    cJSON_AddNumberToObject(o, "cap", e->cap);
    cJSON_AddStringToObject(o, "unit", lh_unit_names[e->unit]);
    if (e->policy.units)
        cJSON_AddItemToObject(o, "policy", lh_evaluate_json_estimate(&e->policy, e->unit, true));
    cJSON_AddItemToObject(o, "behaviour", lh_evaluate_json_estimate(&e->behaviour, e->unit, false));
    if (e->choice.states)
        cJSON_AddItemToObject(o, "choice", lh_evaluate_json_choice(&e->choice));
    char *text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "evaluation: out of memory; free memory and run it again");
    int rc = lh_mem_strdup(out, text);
    cJSON_free(text);
    return rc;
}
