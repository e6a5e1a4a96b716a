#include "common/factorise.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

#define USERS 60
#define ITEMS 40
#define RANK  3

/* A planted matrix mean + bias_u + bias_i + p_u . q_i; about two thirds of it is seen. */
struct plant {
    float value[USERS][ITEMS];
    uint64_t start[USERS + 1];
    uint32_t item[USERS * ITEMS];
    float seen[USERS * ITEMS];
};

static double draw(const char *what, uint64_t k)
{
    struct lh_rng_at at = {.seed = 5, .purpose = lh_rng_purpose(what)};
    return lh_rng_normal1(&at, k);
}

static struct lh_factorise_data plant(struct plant *p)
{
    size_t n = 0;
    for (size_t u = 0; u < USERS; u++) {
        p->start[u] = n;
        for (size_t i = 0; i < ITEMS; i++) {
            double v = 3 + 0.5 * draw("bu", u) + 0.3 * draw("bi", i);
            for (size_t k = 0; k < RANK; k++)
                v += draw("p", u * RANK + k) * draw("q", i * RANK + k);
            p->value[u][i] = (float)v;
            if (draw("seen", u * ITEMS + i) < 0.4) {
                p->item[n] = (uint32_t)i;
                p->seen[n++] = (float)v;
            }
        }
    }
    p->start[USERS] = n;
    return (struct lh_factorise_data){USERS, ITEMS, p->start, p->item, p->seen};
}

static const struct lh_factorise_spec ratings = {
    .dim = RANK, .regularisation = 1e-4, .iterations = 60, .seed = 1, .threads = 1};

static double predict(const struct lh_factors *f, size_t dim, size_t u, size_t i)
{
    double v = f->mean + (double)f->user_bias[u] + (double)f->item_bias[i];
    for (size_t k = 0; k < dim; k++)
        v += (double)f->user[u * dim + k] * (double)f->item[i * dim + k];
    return v;
}

static void run_recovers_a_planted_matrix_where_it_was_not_seen(void **state)
{
    (void)state;
    static struct plant p;
    struct lh_factorise_data data = plant(&p);
    struct lh_factors f;
    assert_ok(lh_factorise_run(&ratings, &data, &f));
    double hidden = 0, variance = 0;
    size_t n = 0;
    for (size_t u = 0; u < USERS; u++) {
        for (size_t i = 0, k = p.start[u]; i < ITEMS; i++) {
            if (k < p.start[u + 1] && p.item[k] == i) {
                k++;
                continue;
            }
            double e = predict(&f, RANK, u, i) - (double)p.value[u][i];
            hidden += e * e;
            variance += ((double)p.value[u][i] - 3) * ((double)p.value[u][i] - 3);
            n++;
        }
    }
    assert_true(n > 500);
    assert_true(f.rmse < 0.02);
    assert_true(sqrt(hidden / (double)n) < 0.1);
    assert_true(sqrt(variance / (double)n) > 1.5); /* what always saying 3 would miss by */
    lh_factorise_fini(&f);
    lh_factorise_fini(&f);
}

static void same(const struct lh_factors *a, const struct lh_factors *b, size_t users, size_t items,
                 size_t dim)
{
    assert_memory_equal(a->user, b->user, users * dim * sizeof(float));
    assert_memory_equal(a->item, b->item, items * dim * sizeof(float));
    assert_memory_equal(a->item_bias, b->item_bias, items * sizeof(float));
    assert_true(a->rmse == b->rmse);
}

static void run_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static struct plant p;
    struct lh_factorise_data data = plant(&p);
    for (int implicit = 0; implicit < 2; implicit++) {
        struct lh_factorise_spec spec = ratings;
        spec.implicit = implicit;
        spec.confidence = 4;
        spec.regularisation = 0.1;
        spec.iterations = 4;
        spec.dim = 7;
        struct lh_factors one, three, other;
        assert_ok(lh_factorise_run(&spec, &data, &one));
        spec.threads = 3;
        assert_ok(lh_factorise_run(&spec, &data, &three));
        same(&one, &three, USERS, ITEMS, 7);
        spec.seed = 2;
        assert_ok(lh_factorise_run(&spec, &data, &other));
        assert_memory_not_equal(one.item, other.item, ITEMS * 7 * sizeof(float));
        lh_factorise_fini(&one);
        lh_factorise_fini(&three);
        lh_factorise_fini(&other);
    }
}

/* Two groups of users, each with its own items: an item is near those of its group. */
static void run_implicit_brings_items_together_that_users_share(void **state)
{
    (void)state;
    enum { n_users = 40, n_items = 20 };
    static uint64_t start[n_users + 1];
    static uint32_t item[n_users * n_items];
    static float value[n_users * n_items];
    size_t n = 0;
    for (size_t u = 0; u < n_users; u++) {
        start[u] = n;
        for (size_t i = 0; i < n_items; i++) {
            if (i % 2 == u % 2 && draw("click", u * n_items + i) < 0.3) {
                item[n] = (uint32_t)i;
                value[n++] = 1;
            }
        }
    }
    start[n_users] = n;
    struct lh_factorise_data data = {n_users, n_items, start, item, value};
    struct lh_factorise_spec spec = {.implicit = true,
                                     .dim = 2,
                                     .regularisation = 0.5,
                                     .confidence = 10,
                                     .iterations = 10,
                                     .seed = 3};
    struct lh_factors f;
    assert_ok(lh_factorise_run(&spec, &data, &f));
    double within = 1e9, across = -1e9;
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = 0; i < n_items; i++) {
            double s = predict(&f, 2, u, i); /* mean and biases are 0 */
            if (i % 2 == u % 2)
                within = fmin(within, s);
            else
                across = fmax(across, s);
        }
    }
    assert_true(f.mean == 0 && f.item_bias[3] == 0);
    assert_true(within > 0.7); /* also where the user never clicked */
    assert_true(across < 0.2);
    lh_factorise_fini(&f);
}

/* One user, one item, one dimension: the sweeps can be followed by hand. */
static void run_one_entry_follows_the_normal_equations(void **state)
{
    (void)state;
    static const uint64_t start[] = {0, 1};
    static const uint32_t item[] = {0};
    static const float value[] = {2};
    struct lh_factorise_data data = {1, 1, start, item, value};
    struct lh_factorise_spec spec = {.implicit = true,
                                     .dim = 1,
                                     .regularisation = 0.5,
                                     .confidence = 3,
                                     .iterations = 1,
                                     .seed = 1,
                                     .threads = 1};
    struct lh_factors f;
    assert_ok(lh_factorise_run(&spec, &data, &f));
    struct lh_rng_at at = {.seed = 1, .purpose = lh_rng_purpose("factorise")};
    double q = 0.1 * lh_rng_normal1(&at, 0), c = 1 + 3 * 2;
    double p = c * q / (q * q + (c - 1) * q * q + 0.5);
    q = c * p / (p * p + (c - 1) * p * p + 0.5);
    kit_assert_close((double)f.user[0], p, 1e-5, "p");
    kit_assert_close((double)f.item[0], q, 1e-5, "q");
    lh_factorise_fini(&f);
    /* a rating: the mean says it all */
    spec.implicit = false;
    assert_ok(lh_factorise_run(&spec, &data, &f));
    assert_true(f.mean == 2.0);
    assert_true(fabs((double)f.item_bias[0]) < 1e-6);
    lh_factorise_fini(&f);
}

static void run_row_without_entries_is_zero(void **state)
{
    (void)state;
    static const uint64_t start[] = {0, 2, 2};
    static const uint32_t item[] = {0, 2};
    static const float value[] = {1, 5};
    struct lh_factorise_data data = {2, 3, start, item, value};
    struct lh_factors f;
    assert_ok(lh_factorise_run(&ratings, &data, &f));
    assert_true(f.user[RANK] == 0 && f.user_bias[1] == 0);
    assert_true(f.item[RANK] == 0 && f.item_bias[1] == 0);
    assert_true(f.item[0] != 0);
    lh_factorise_fini(&f);
    static const uint64_t none[] = {0, 0, 0};
    data.start = none;
    assert_err(lh_factorise_run(&ratings, &data, &f), LH_ERANGE, "no interaction");
}

static void run_survives_every_failed_allocation(void **state)
{
    (void)state;
    static struct plant p;
    struct lh_factorise_data data = plant(&p);
    struct lh_factorise_spec spec = ratings;
    spec.iterations = 1;
    int rc = LH_ENOMEM;
    for (uint64_t k = 1; rc == LH_ENOMEM; k++) {
        uint64_t live = lh_mem_live();
        struct lh_factors f;
        lh_mem_fail_at(k);
        rc = lh_factorise_run(&spec, &data, &f);
        lh_mem_fail_at(0);
        assert_true(k > 1 || rc == LH_ENOMEM);
        lh_factorise_fini(&f);
        assert_int_equal(lh_mem_live(), live);
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(run_recovers_a_planted_matrix_where_it_was_not_seen),
        kit_test(run_threads_do_not_change_a_bit),
        kit_test(run_implicit_brings_items_together_that_users_share),
        kit_test(run_one_entry_follows_the_normal_equations),
        kit_test(run_row_without_entries_is_zero),
        kit_test(run_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
