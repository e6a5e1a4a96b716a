/* Policies side by side: the runs of one algorithm pooled over their training seeds, and every two
 * of them compared trajectory by trajectory, which is much sharper than two intervals laid side by
 * side (users differ more than policies do). */
#pragma once

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct lh_compare_entry {
    const char *name, *algorithm;
    const double *values; /* [trajectories] */
    double ess_share;
};

struct lh_compare_group {
    const char *name; /* of the run, or of the algorithm where runs are pooled */
    size_t runs;
    double value, lo, hi; /* over trajectories, each averaged over the runs */
    double run_sd;        /* of the runs' values; NAN for one run */
    double ess_share;     /* mean over the runs */
    double ess_share_min;
    double *values; /* [trajectories] */
};

struct lh_compare_pair {
    size_t a, b; /* groups */
    double difference, lo, hi;
};

struct lh_compare {
    struct lh_compare_group *groups;
    struct lh_compare_pair *pairs; /* every two groups, a after b */
    size_t n_groups, n_pairs;
    bool pooled;
};

/* Copies what it needs of `entries` but for names, which must outlive it. pool: entries of one
 * algorithm are one group, in order of first appearance. Errors: LH_ENOMEM. */
int lh_compare_init(struct lh_compare *out, const struct lh_compare_entry *entries, size_t n,
                    size_t trajectories, bool pool);
void lh_compare_fini(struct lh_compare *c);

/* Tables of the groups (where runs are pooled) and of the pairs. */
int lh_compare_print(const struct lh_compare *c, FILE *to);
/* Adds "pooled" (where runs are pooled) and "pairs" to `object`. */
void lh_compare_json(const struct lh_compare *c, cJSON *object);
