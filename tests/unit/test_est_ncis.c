#include "worker/est_ncis.h"

#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lh_ncis_sum sum_of(const double *log_w, const double *r, size_t n, double cap)
{
    struct lh_ncis_sum s = {0};
    for (size_t i = 0; i < n; i++)
        lh_ncis_add(&s, log_w[i], log(cap), r[i]);
    return s;
}

/* Two trajectories by hand: weights {2, 1 / 2}, rewards {1, 3}; weights {capped 4, 1}, {0, 5}. */
static void estimate_two_trajectories_gives_the_hand_computed_values(void **state)
{
    (void)state;
    double l1[] = {log(2), log(0.5)}, r1[] = {1, 3}, l2[] = {log(100), 0}, r2[] = {0, 5};
    struct lh_ncis_sum t[2] = {sum_of(l1, r1, 2, 4), sum_of(l2, r2, 2, 4)};
    double v[2], own[2], scratch[2];
    struct lh_estimate e, b;
    lh_ncis_estimate(t, 2, true, 0.1, v, &e);
    lh_ncis_estimate(t, 2, false, 0.1, own, &b);
    lh_ncis_pair(&e, v, own, 2, scratch);

    kit_assert_close(v[0], 3.5 / 2.5, 1e-12, "first value");
    kit_assert_close(v[1], 5.0 / 5.0, 1e-12, "second value");
    kit_assert_close(e.value, 1.2, 1e-12, "value");
    /* s = 0.2828427, s / sqrt(2) = 0.2 */
    kit_assert_close(e.lo, 1.2 - 1.959963984540054 * 0.2, 1e-12, "lo");
    kit_assert_close(e.hi, 1.2 + 1.959963984540054 * 0.2, 1e-12, "hi");
    /* (2 + 0.5 + 4 + 1)^2 / (4 + 0.25 + 16 + 1) */
    kit_assert_close(e.ess, 56.25 / 21.25, 1e-12, "ess");
    kit_assert_close(e.ess_share, 56.25 / 21.25 / 4, 1e-12, "share");
    assert_int_equal(e.units, 4);
    assert_int_equal(e.trajectories, 2);
    assert_false(e.collapsed);
    kit_assert_close(b.value, 2.25, 1e-12, "own value");
    kit_assert_close(b.ess, 4, 1e-12, "own ess");
    /* differences -0.6 and -1.5: mean -1.05, s = 0.6364, half = 1.96 * 0.45 */
    kit_assert_close(e.difference, -1.05, 1e-12, "difference");
    kit_assert_close(e.difference_lo, -1.05 - 1.959963984540054 * 0.45, 1e-12, "difference lo");
}

/* Sessions by hand: rows of weights {2, 1 / 2} and rewards {0, 3} are one of weight 1.25 and reward
 * 3; a row of weight 100, capped at 4, and reward 1. */
static void add_session_gives_the_hand_computed_values(void **state)
{
    (void)state;
    double l1[] = {log(2), log(0.5)}, r1[] = {0, 3}, moved[] = {3, 0}, l2 = log(100), r2 = 1;
    struct lh_ncis_sum a = sum_of(l1, r1, 2, 4), b = sum_of(&l2, &r2, 1, 4);
    struct lh_ncis_sum other = sum_of(l1, moved, 2, 4), empty = {0}, t[2] = {{0}};
    lh_ncis_add_session(&t[0], &a);
    lh_ncis_add_session(&t[0], &empty);
    lh_ncis_add_session(&t[0], &b);
    lh_ncis_add_session(&t[1], &other);
    lh_ncis_add_session(&t[1], &b);
    for (int i = 0; i < 2; i++) { /* on which row the reward stands does not matter */
        kit_assert_close(lh_ncis_value(&t[i]), (1.25 * 3 + 4 * 1) / 5.25, 1e-12, "value");
        kit_assert_close(lh_ncis_plain(&t[i]), 2, 1e-12, "plain");
        kit_assert_close(lh_ncis_ess(&t[i]), 5.25 * 5.25 / (1.25 * 1.25 + 16), 1e-12, "ess");
        assert_int_equal(t[i].units, 2);
    }
}

static void add_session_of_one_row_equals_the_row(void **state)
{
    (void)state;
    double l[] = {log(100), -800, -801, 0.3}, r[] = {1, 2, 3, 4};
    struct lh_ncis_sum rows = sum_of(l, r, 4, 10), sessions = {0};
    for (size_t i = 0; i < 4; i++) {
        struct lh_ncis_sum one = sum_of(l + i, r + i, 1, 10);
        lh_ncis_add_session(&sessions, &one);
    }
    assert_memory_equal(&sessions, &rows, sizeof rows);
}

static void value_all_weights_underflow_is_still_the_weighted_mean(void **state)
{
    (void)state;
    double l[] = {-5000, -5000 + log(3)}, r[] = {0, 4};
    struct lh_ncis_sum s = sum_of(l, r, 2, 10);
    assert_true(exp(l[1]) == 0);
    kit_assert_close(lh_ncis_value(&s), 3, 1e-9, "value");
    kit_assert_close(lh_ncis_ess(&s), 16.0 / 10, 1e-9, "ess");
}

static void estimate_one_heavy_trajectory_collapses_the_ess(void **state)
{
    (void)state;
    double zero = 0, low = -2000, r = 1, v[50];
    struct lh_ncis_sum t[50];
    struct lh_estimate e;
    for (int i = 0; i < 50; i++)
        t[i] = sum_of(i == 7 ? &zero : &low, &r, 1, 10);
    lh_ncis_estimate(t, 50, true, 0.1, v, &e);
    kit_assert_close(e.ess, 1, 1e-12, "ess");
    assert_true(e.collapsed);
    lh_ncis_estimate(t, 50, true, 0.01, v, &e);
    assert_false(e.collapsed);
}

static void merge_pieces_in_order_equals_adding_the_rows(void **state)
{
    (void)state;
    double l[40], r[40];
    for (int i = 0; i < 40; i++) {
        l[i] = 30 * sin(i * 1.7) - (i > 20 ? 900 : 0);
        r[i] = cos(i);
    }
    struct lh_ncis_sum whole = sum_of(l, r, 40, 10), empty = {0};
    for (size_t cut = 0; cut <= 40; cut++) {
        struct lh_ncis_sum a = sum_of(l, r, cut, 10), b = sum_of(l + cut, r + cut, 40 - cut, 10);
        lh_ncis_merge(&a, &b);
        lh_ncis_merge(&a, &empty);
        kit_assert_close(lh_ncis_value(&a), lh_ncis_value(&whole), 1e-12, "value");
        kit_assert_close(lh_ncis_ess(&a), lh_ncis_ess(&whole), 1e-12, "ess");
        kit_assert_close(lh_ncis_plain(&a), lh_ncis_plain(&whole), 1e-12, "plain");
        assert_int_equal(a.units, 40);
    }
}

static void interval_of_one_value_is_unknown(void **state)
{
    (void)state;
    double x = 3, mean, lo, hi;
    lh_ncis_interval(&x, 1, &mean, &lo, &hi);
    assert_true(mean == 3 && isnan(lo) && isnan(hi));
    lh_ncis_interval(&x, 0, &mean, &lo, &hi);
    assert_true(isnan(mean));
}

/* --- open-bandit: what the Open Bandit Pipeline 0.5.5 says of the same numbers -----------------
 */
struct bandit {
    double log_w[10000], r[10000], largest;
    size_t n;
};

/* Column `action_prob` is the fifth, `click` the fourth, after the row number. */
static void bandit_read(struct bandit *b, char *text)
{
    char *line = strchr(text, '\n'), *save = NULL;
    assert_non_null(line);
    for (line = strtok_r(line, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        double field[6] = {0};
        char *p = line;
        for (int k = 0; k < 6 && p; k++) {
            if (k > 1)
                field[k] = strtod(p, NULL);
            p = strchr(p, ',');
            p = p ? p + 1 : NULL;
        }
        assert_true(b->n < 10000);
        double w = 1 / (34 * field[5]);
        b->log_w[b->n] = log(w);
        b->r[b->n++] = field[4];
        b->largest = w > b->largest ? w : b->largest;
    }
}

static void estimate_open_bandit_gives_the_published_library_s_values(void **state)
{
    (void)state;
    const char *data = getenv("LONGHAUL_DATA");
    char path[1024], *text = NULL;
    snprintf(path, sizeof path, "%s/open-bandit/bts/men/men.csv.gz",
             data ? data : LH_SOURCE_DIR "/../shared/data");
    if (access(path, R_OK) != 0)
        skip();
    assert_int_equal(kit_run(&text, "gzip -dc '%s'", path), 0);
    static const struct {
        double cap, ips, ncis, ess;
    } known[] = {{1e9, .0030086263, .0031894232, 655.7098},
                 {10, .0030086263, .0038310784, 1844.005},
                 {100, .0030086263, .0032172027, 772.001}};
    struct bandit *b = calloc(1, sizeof *b);
    assert_non_null(b);
    bandit_read(b, text);
    free(text);
    assert_int_equal(b->n, 10000);
    kit_assert_close(b->largest, 178.2531, 1e-6, "largest weight");
    for (size_t i = 0; i < 3; i++) {
        struct lh_ncis_sum s = sum_of(b->log_w, b->r, b->n, known[i].cap);
        assert_true(fabs(exp(s.peak) * s.wr / 10000 - known[i].ips) < 5e-11);
        assert_true(fabs(lh_ncis_value(&s) - known[i].ncis) < 5e-11);
        assert_true(fabs(lh_ncis_ess(&s) - known[i].ess) < 5e-4);
    }
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(estimate_two_trajectories_gives_the_hand_computed_values),
        kit_test(add_session_gives_the_hand_computed_values),
        kit_test(add_session_of_one_row_equals_the_row),
        kit_test(value_all_weights_underflow_is_still_the_weighted_mean),
        kit_test(estimate_one_heavy_trajectory_collapses_the_ess),
        kit_test(merge_pieces_in_order_equals_adding_the_rows),
        kit_test(interval_of_one_value_is_unknown),
        kit_test(estimate_open_bandit_gives_the_published_library_s_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
