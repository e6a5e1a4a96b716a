#include "common/vecmath.h"
#include "tests/testkit.h"

/* Error in units in the last place of the true value. */
static double ulps(float got, double true_value)
{
    if (isinf(got) || isinf((float)true_value) || isnan(true_value))
        return got == (float)true_value || (isnan(got) && isnan(true_value)) ? 0 : INFINITY;
    float t = (float)true_value, next = nextafterf(fabsf(t), INFINITY) - fabsf(t);
    return fabs((double)got - true_value) / (double)next;
}

#define SWEEP(function, reference, lo, hi, limit)                                                  \
    do {                                                                                           \
        double worst = 0, at = 0;                                                                  \
        for (int i = 0; i <= 400000; i++) {                                                        \
            float x = (float)((lo) + ((hi) - (lo)) * i / 400000.0);                                \
            double u = ulps(function(x), reference((double)x));                                    \
            if (!(u <= worst)) {                                                                   \
                worst = u;                                                                         \
                at = (double)x;                                                                    \
            }                                                                                      \
        }                                                                                          \
        if (!(worst <= (limit)))                                                                   \
            fail_msg(#function ": %g ulp at %g", worst, at);                                       \
    } while (0)

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void functions_over_their_range_are_close(void **state)
{
    (void)state;
    SWEEP(lh_vecmath_exp, exp, -87, 88.7, 2);
    SWEEP(lh_vecmath_exp, exp, -1, 1, 2);
    SWEEP(lh_vecmath_exp, exp, -120, -87, 2);
    SWEEP(lh_vecmath_exp, exp, 88.7, 200, 2);
    SWEEP(lh_vecmath_log, log, 1e-6, 4, 2.5);
    SWEEP(lh_vecmath_log, log, 0.9, 1.1, 2.5);
    SWEEP(lh_vecmath_log, log, 1, 1e30, 2.5);
    SWEEP(lh_vecmath_tanh, tanh, -12, 12, 3);
    SWEEP(lh_vecmath_tanh, tanh, -0.01, 0.01, 3);
    SWEEP(lh_vecmath_sigmoid, sigmoid, -80, 80, 3);
}

static void functions_at_the_edges_are_right(void **state)
{
    (void)state;
    assert_true(lh_vecmath_exp(0) == 1 && lh_vecmath_exp(-INFINITY) == 0);
    assert_true(isinf(lh_vecmath_exp(INFINITY)) && isnan(lh_vecmath_exp(NAN)));
    assert_true(lh_vecmath_log(1) == 0 && lh_vecmath_log(0) == -INFINITY);
    assert_true(isinf(lh_vecmath_log(INFINITY)) && isnan(lh_vecmath_log(NAN)));
    assert_true(isnan(lh_vecmath_log(-1)));
    kit_assert_close((double)lh_vecmath_log(1e-40f), log((double)1e-40f), 1e-6, "denormal");
    assert_true(lh_vecmath_tanh(0) == 0 && isnan(lh_vecmath_tanh(NAN)));
    assert_true(lh_vecmath_tanh(1e30f) == 1 && lh_vecmath_tanh(-INFINITY) == -1);
    assert_true(lh_vecmath_tanh(1e-30f) == 1e-30f);
    assert_true(lh_vecmath_sigmoid(INFINITY) == 1 && lh_vecmath_sigmoid(-INFINITY) == 0);
    assert_true(isnan(lh_vecmath_sigmoid(NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(functions_over_their_range_are_close),
        kit_test(functions_at_the_edges_are_right),
    };
    return cmocka_run_group_tests_name("vecmath", tests, NULL, NULL);
}
