/* Elementary functions with the same bits on every IEEE machine; see the header for why. Compiled
 * without contraction like everything here, so no fused operation changes a bit. */
#include "worker/sim_math.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LN2_HI 6.93147180369123816490e-01 /* its low 32 bits are zero: k * LN2_HI is exact */
#define LN2_LO 1.90821492927058770002e-10

double lh_sim_math_exp(double x)
{
    x = x < -700.0 ? -700.0 : x > 700.0 ? 700.0 : x;
    double t = x * 1.44269504088896340736;
    int64_t k = (int64_t)(t < 0 ? t - 0.5 : t + 0.5);
    double r = (x - (double)k * LN2_HI) - (double)k * LN2_LO; /* |r| <= ln 2 / 2 */
    static const double c[] = {1.0 / 6227020800,
                               1.0 / 479001600,
                               1.0 / 39916800,
                               1.0 / 3628800,
                               1.0 / 362880,
                               1.0 / 40320,
                               1.0 / 5040,
                               1.0 / 720,
                               1.0 / 120,
                               1.0 / 24,
                               1.0 / 6,
                               0.5,
                               1.0,
                               1.0};
    double p = c[0];
    for (size_t i = 1; i < sizeof c / sizeof *c; i++)
        p = p * r + c[i];
    uint64_t bits = (uint64_t)(k + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

double lh_sim_math_ln(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356237309504880) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, p = 0.0;
    for (int i = 21; i > 0; i -= 2)
        p = p * z + 1.0 / i;
    return (double)e * LN2_HI + ((double)e * LN2_LO + 2.0 * s * p);
}

double lh_sim_math_tanh(double x)
{
    return x > 20.0 ? 1.0 : x < -20.0 ? -1.0 : 1.0 - 2.0 / (lh_sim_math_exp(2.0 * x) + 1.0);
}

/* Abramowitz and Stegun 26.2.17. */
double lh_sim_math_normal(double z)
{
    double a = z < 0 ? -z : z, t = 1.0 / (1.0 + 0.2316419 * a);
    double p = t * (0.319381530 +
                    t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    double tail = 0.39894228040143267794 * lh_sim_math_exp(-0.5 * a * a) * p;
    return z < 0 ? tail : 1.0 - tail;
}

double lh_sim_math_quantile(double p)
{
    double lo = -8.0, hi = 8.0;
    for (int i = 0; i < 60; i++) {
        double mid = 0.5 * (lo + hi);
        if (lh_sim_math_normal(mid) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}
