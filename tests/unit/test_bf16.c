#include "common/bf16.h"

#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static float from_bits(uint32_t b)
{
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static void round_takes_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    static const uint32_t cases[][2] = {
        {0x3f800000, 0x3f800000},                           /* 1 */
        {0x3f807fff, 0x3f800000},                           /* just below the middle */
        {0x3f808000, 0x3f800000},                           /* the middle, even below */
        {0x3f808001, 0x3f810000},                           /* just above */
        {0x3f818000, 0x3f820000},                           /* the middle, even above */
        {0xbf818000, 0xbf820000},                           /* the same below zero */
        {0x3fffffff, 0x40000000},                           /* carries into the exponent */
        {0x00000000, 0x00000000}, {0x80000000, 0x80000000}, /* zeros keep their sign */
        {0x00008001, 0x00010000},                           /* subnormals are numbers too */
        {0x7f7fffff, 0x7f800000},                           /* the largest float is beyond */
        {0x7f7f7fff, 0x7f7f0000},                           /* this one is not */
        {0x7f800000, 0x7f800000}, {0xff800000, 0xff800000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x = from_bits(cases[i][0]);
        lh_bf16_round(&x, 1);
        if (bits_of(x) != cases[i][1])
            fail_msg("%08x became %08x instead of %08x", cases[i][0], bits_of(x), cases[i][1]);
    }
}

static void round_keeps_every_nan_a_nan(void **state)
{
    (void)state;
    static const uint32_t nans[] = {0x7fc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        float x = from_bits(nans[i]);
        lh_bf16_round(&x, 1);
        assert_true(isnan(x));
        assert_int_equal(bits_of(x) & 0xffff, 0);
    }
}

/* The definition, in double: of the two neighbours the nearer, of two equally near the even. */
static float nearest(float x)
{
    const float below = from_bits(bits_of(x) & 0xffff0000);
    const float above = from_bits((bits_of(x) & 0xffff0000) + 0x10000); /* away from zero */
    const double a = fabs((double)x - (double)below), b = fabs((double)above - (double)x);
    if (a != b)
        return a < b ? below : above;
    return bits_of(below) >> 16 & 1 ? above : below;
}

enum { N = 20011 };

static void sums_are_rounded_and_travel_unchanged(void **state)
{
    (void)state;
    static float a[N], b[N], sum[N], into[N], back[N];
    static unsigned char frame[2 * N + 1], loose[4 * N + 1];
    static uint16_t packed[N];
    lh_rng_normal(&(struct lh_rng_at){.seed = 1}, a, N);
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, b, N);
    memcpy(loose + 1, a, sizeof a);
    memcpy(into, b, sizeof b);
    lh_bf16_sum(sum, loose + 1, b, N);
    lh_bf16_add(into, loose + 1, N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(bits_of(sum[i]), bits_of(nearest(a[i] + b[i])));
    assert_memory_equal(sum, into, sizeof sum);
    lh_bf16_pack(packed, sum, N);
    memcpy(frame + 1, packed, sizeof packed);
    lh_bf16_unpack(back, frame + 1, N);
    assert_memory_equal(sum, back, sizeof sum);
    lh_bf16_round(back, N);
    assert_memory_equal(sum, back, sizeof sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(round_takes_the_nearest_and_ties_to_even),
        kit_test(round_keeps_every_nan_a_nan),
        kit_test(sums_are_rounded_and_travel_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
