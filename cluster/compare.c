/* Pooling and pairing of per-trajectory values. */
#include "cluster/compare.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"
#include "worker/est_ncis.h"

#include <math.h>
#include <string.h>

static struct lh_compare_group *group_of(struct lh_compare *c, const char *name, bool pool)
{
    for (size_t i = 0; pool && i < c->n_groups; i++)
        if (strcmp(c->groups[i].name, name) == 0)
            return &c->groups[i];
    return NULL;
}

static int add_group(struct lh_compare *c, const char *name, size_t trajectories,
                     struct lh_compare_group **out)
{
    *out = &c->groups[c->n_groups];
    LH_TRY(LH_NEW_ARRAY(&(*out)->values, trajectories, "comparison"));
    (*out)->name = name;
    (*out)->ess_share_min = INFINITY;
    c->n_groups++;
    return 0;
}

/* Sums first: values, ESS shares, and in value and run_sd the runs' own means and their squares. */
static void add_run(struct lh_compare_group *g, const struct lh_compare_entry *e, size_t n)
{
    double mean, lo, hi;
    lh_ncis_interval(e->values, n, &mean, &lo, &hi);
    for (size_t i = 0; i < n; i++)
        g->values[i] += e->values[i];
    g->value += mean;
    g->run_sd += mean * mean;
    g->ess_share += e->ess_share;
    g->ess_share_min = fmin(g->ess_share_min, e->ess_share);
    g->runs++;
}

static void finish_group(struct lh_compare_group *g, size_t n)
{
    double runs = (double)g->runs, squares = g->run_sd - g->value * g->value / runs;
    g->run_sd = g->runs > 1 ? sqrt(fmax(0, squares) / (runs - 1)) : NAN;
    g->ess_share /= runs;
    for (size_t i = 0; i < n; i++)
        g->values[i] /= runs;
    lh_ncis_interval(g->values, n, &g->value, &g->lo, &g->hi);
}

static int pair_groups(struct lh_compare *c, size_t n)
{
    double *scratch = NULL;
    LH_TRY(LH_NEW_ARRAY(&c->pairs, c->n_groups * c->n_groups, "comparison"));
    LH_TRY(LH_NEW_ARRAY(&scratch, n, "comparison"));
    for (size_t a = 1; a < c->n_groups; a++) {
        for (size_t b = 0; b < a; b++) {
            struct lh_estimate e = {0};
            lh_ncis_pair(&e, c->groups[a].values, c->groups[b].values, n, scratch);
            c->pairs[c->n_pairs++] = (struct lh_compare_pair){
                .a = a, .b = b, e.difference, e.difference_lo, e.difference_hi};
        }
    }
    lh_mem_free(scratch);
    return 0;
}

int lh_compare_init(struct lh_compare *out, const struct lh_compare_entry *entries, size_t n,
                    size_t trajectories, bool pool)
{
    struct lh_compare c = {.pooled = pool};
    int rc;
    LH_TRY(LH_NEW_ARRAY(&c.groups, n, "comparison"));
    for (size_t i = 0; i < n; i++) {
        const char *name = pool ? entries[i].algorithm : entries[i].name;
        struct lh_compare_group *g = group_of(&c, name, pool);
        if (!g)
            LH_TRY_TO(fail, add_group(&c, name, trajectories, &g));
        add_run(g, &entries[i], trajectories);
    }
    for (size_t i = 0; i < c.n_groups; i++)
        finish_group(&c.groups[i], trajectories);
    LH_TRY_TO(fail, pair_groups(&c, trajectories));
    *out = c;
    return 0;
fail:
    lh_compare_fini(&c);
    return rc;
}

void lh_compare_fini(struct lh_compare *c)
{
    for (size_t i = 0; i < c->n_groups; i++)
        lh_mem_free(c->groups[i].values);
    lh_mem_free(c->groups);
    lh_mem_free(c->pairs);
    memset(c, 0, sizeof *c);
}

static int print_groups(const struct lh_compare *c, FILE *to)
{
    static const char *const headers[] = {"algorithm",    "runs",       "value",
                                          "95% interval", "sd of runs", "ESS share (least)"};
    struct lh_table *t = NULL;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t i = 0; i < c->n_groups; i++) {
        const struct lh_compare_group *g = &c->groups[i];
        LH_TRY_TO(fail, lh_table_cell(t, "%s", g->name));
        LH_TRY_TO(fail, lh_table_cell(t, "%zu", g->runs));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f", g->value));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f to %.4f", g->lo, g->hi));
        LH_TRY_TO(fail, g->runs > 1 ? lh_table_cell(t, "%.4f", g->run_sd) : lh_table_cell(t, "-"));
        LH_TRY_TO(fail,
                  lh_table_cell(t, "%.1f%% (%.1f%%)", 100 * g->ess_share, 100 * g->ess_share_min));
    }
    fputc('\n', to);
    lh_table_print(t, to);
fail:
    lh_table_destroy(&t);
    return rc;
}

static int print_pairs(const struct lh_compare *c, FILE *to)
{
    static const char *const headers[] = {"paired by trajectory", "difference", "95% interval"};
    struct lh_table *t = NULL;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t i = 0; i < c->n_pairs; i++) {
        const struct lh_compare_pair *p = &c->pairs[i];
        LH_TRY_TO(fail, lh_table_cell(t, "%s - %s", c->groups[p->a].name, c->groups[p->b].name));
        LH_TRY_TO(fail, lh_table_cell(t, "%+.4f", p->difference));
        LH_TRY_TO(fail, lh_table_cell(t, "%+.4f to %+.4f", p->lo, p->hi));
    }
    fputc('\n', to);
    lh_table_print(t, to);
fail:
    lh_table_destroy(&t);
    return rc;
}

int lh_compare_print(const struct lh_compare *c, FILE *to)
{
    if (c->pooled)
        LH_TRY(print_groups(c, to));
    return c->n_pairs > 0 ? print_pairs(c, to) : 0;
}

static void add_interval(cJSON *o, const char *name, double value, double lo, double hi)
{
    cJSON_AddNumberToObject(o, name, value);
    cJSON_AddNumberToObject(o, "lo", lo);
    cJSON_AddNumberToObject(o, "hi", hi);
}

void lh_compare_json(const struct lh_compare *c, cJSON *object)
{
    cJSON *groups = c->pooled ? cJSON_AddArrayToObject(object, "pooled") : NULL;
    for (size_t i = 0; groups && i < c->n_groups; i++) {
        const struct lh_compare_group *g = &c->groups[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "algorithm", g->name);
        cJSON_AddNumberToObject(o, "runs", (double)g->runs);
        add_interval(o, "value", g->value, g->lo, g->hi);
        cJSON_AddNumberToObject(o, "run_sd", g->run_sd);
        cJSON_AddNumberToObject(o, "ess_share", g->ess_share);
        cJSON_AddNumberToObject(o, "ess_share_min", g->ess_share_min);
        cJSON_AddItemToArray(groups, o);
    }
    cJSON *pairs = cJSON_AddArrayToObject(object, "pairs");
    for (size_t i = 0; i < c->n_pairs; i++) {
        const struct lh_compare_pair *p = &c->pairs[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "a", c->groups[p->a].name);
        cJSON_AddStringToObject(o, "b", c->groups[p->b].name);
        add_interval(o, "difference", p->difference, p->lo, p->hi);
        cJSON_AddItemToArray(pairs, o);
    }
}
