/* exp, ln, tanh and the normal distribution from additions, multiplications and divisions alone:
 * the C library's differ in their last bits between processors and versions, and a log must be the
 * same everywhere. Relative error below 1e-14 (exp, ln), absolute below 1e-7 (normal). */
#pragma once

double lh_sim_math_exp(double x);    /* clamped to x in [-700, 700] */
double lh_sim_math_ln(double x);     /* x normal and > 0 */
double lh_sim_math_tanh(double x);   /* by exp */
double lh_sim_math_normal(double z); /* P(Z <= z), Z standard normal */
/* The p-quantile of the standard normal by bisection; p in (0, 1). */
double lh_sim_math_quantile(double p);
