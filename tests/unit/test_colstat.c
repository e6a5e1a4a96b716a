#include "common/colstat.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Values of many kinds: a constant, few distinct, both signs, all exponents, zeros of both signs.
 */
static float value(size_t row, size_t column)
{
    struct lh_rng_at at = {.seed = column, .step = 3};
    double u = lh_rng_uniform1(&at, row);
    switch (column % 6) {
    case 0:
        return 0.1f;
    case 1:
        return (float)floor(u * 4);
    case 2:
        return (float)lh_rng_normal1(&at, row);
    case 3:
        return (float)ldexp(u < 0.5 ? -1 - u : u, (int)(u * 200) - 100);
    case 4:
        return row % 2 ? -0.0f : 0.0f;
    default:
        return u < 0.001 ? -FLT_MAX : u > 0.999 ? FLT_MAX : 1 + (float)row * FLT_EPSILON;
    }
}

static void check(size_t rows, size_t width, size_t parts, unsigned threads)
{
    float *x = malloc((rows * width + 1) * sizeof *x);
    struct lh_colstat_part *part = calloc(parts, sizeof *part);
    struct lh_column_stats *out = calloc(width, sizeof *out);
    for (size_t i = 0; i < rows * width; i++)
        x[i] = value(i / width, i % width);
    for (size_t p = 0, at = 0; p < parts; p++) {
        size_t n = p + 1 == parts ? rows - at : rows / parts / (p + 1);
        part[p] = (struct lh_colstat_part){x + at * width, n, false};
        at += n;
    }
    struct lh_colstat_matrix m = {part, parts, width, out};
    assert_ok(lh_colstat_compute(&m, 1, threads, NULL, NULL));
    float *column = malloc((rows + 1) * sizeof *column);
    for (size_t c = 0; c < width; c++) {
        double sum = 0, square = 0;
        for (size_t i = 0; i < rows; i++) {
            column[i] = x[i * width + c];
            sum += (double)column[i];
        }
        for (size_t i = 0; i < rows; i++)
            square += ((double)column[i] - sum / rows) * ((double)column[i] - sum / rows);
        qsort(column, rows, sizeof *column, ascending);
        static const size_t per_mille[] = {1, 250, 500, 750, 999};
        const double got[] = {out[c].q001, out[c].q25, out[c].q50, out[c].q75, out[c].q999};
        for (size_t q = 0; q < 5; q++)
            assert_true(got[q] == (double)column[(rows * per_mille[q] + 999) / 1000 - 1]);
        assert_true(out[c].min == (double)column[0] && out[c].max == (double)column[rows - 1]);
        if (c % 6 == 0) {
            assert_true(out[c].std == 0 && out[c].mean == (double)0.1f);
        } else {
            kit_assert_close(out[c].mean, sum / rows, 1e-12, "mean");
            kit_assert_close(out[c].std / sqrt(square / rows + (square == 0)), square > 0, 1e-12,
                             "std");
        }
    }
    free(column);
    free(out);
    free(part);
    free(x);
}

static void statistics_are_those_of_a_sorted_copy(void **state)
{
    (void)state;
    check(1, 1, 1, 1);
    check(2, 7, 1, 1);
    check(999, 6, 3, 2);
    check(1000, 17, 2, 3);
    check(5003, 40, 4, 2);
}

static void matrix_without_rows_gives_zeros(void **state)
{
    (void)state;
    struct lh_column_stats out[3], zero;
    memset(&zero, 0, sizeof zero);
    memset(out, 1, sizeof out);
    struct lh_colstat_matrix m = {NULL, 0, 3, out};
    assert_ok(lh_colstat_compute(&m, 1, 2, NULL, NULL));
    assert_memory_equal(&out[2], &zero, sizeof zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(statistics_are_those_of_a_sorted_copy),
        kit_test(matrix_without_rows_gives_zeros),
    };
    return cmocka_run_group_tests_name("colstat", tests, NULL, NULL);
}
