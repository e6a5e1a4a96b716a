/* Matrix factorisation by alternating least squares: embeddings of items (and users) from who
 * interacted with what. Deterministic: the same bits for any number of threads (each row's normal
 * equations are built and solved by one thread, in the order of its entries, by BLAS calls whose
 * shape depends on the data only) on machines with the same BLAS kernel. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_factorise_spec {
    /* false: ratings. value ~ mean + bias_u + bias_i + p_u . q_i, squared error plus
     *   regularisation * (entries of the row) * |bias, vector|^2, as ALS with weighted lambda.
     * true: counts (Hu, Koren, Volinsky 2008). Preference 1 with confidence
     *   1 + confidence * value where there is an entry, preference 0 with confidence 1 elsewhere;
     *   plus regularisation * |vector|^2. Entries with value <= 0 are passed over. */
    bool implicit;
    uint32_t dim;          /* 1 .. 1024 */
    double regularisation; /* > 0 */
    double confidence;     /* > 0, implicit only */
    uint32_t iterations;   /* sweeps over users and items */
    uint64_t seed;
    unsigned threads;
};

/* Entries by user. */
struct lh_factorise_data {
    size_t n_users, n_items;
    const uint64_t *start; /* [n_users + 1] */
    const uint32_t *item;  /* [start[n_users]] ascending within a user, no repeats */
    const float *value;
};

struct lh_factors {
    float *user, *item;           /* [n_users, dim], [n_items, dim] */
    float *user_bias, *item_bias; /* zeros if implicit */
    double mean;                  /* of the ratings; 0 if implicit */
    double rmse;                  /* over entries: of the rating, or of preference 1 */
};

/* Holds 8 bytes an entry and 4 a factor of its own while it runs. Sets OpenBLAS to one thread for
 * the time. A row without entries is a zero vector. Errors: LH_ENOMEM; LH_ERANGE if there is no
 * entry, or the equations of a row cannot be solved (values or regularisation out of proportion).
 * On failure *out is empty. */
int lh_factorise_run(const struct lh_factorise_spec *spec, const struct lh_factorise_data *data,
                     struct lh_factors *out);
void lh_factorise_fini(struct lh_factors *f); /* idempotent */
