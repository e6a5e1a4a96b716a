/* A version of the parameters in the frames that brought it. */
#include "tests/testkit.h"

#include "common/err.h"
#include "common/held.h"
#include "common/mem.h"

#include <stdlib.h>
#include <string.h>

/* Three tensors over two shards: [4, 16] at 0, [2, 16] at 64, [4, 16] at 96; the second shard
 * begins at `cut`. The first and the last have targets. */
static const struct lh_param params[] = {
    {.name = "a", .rows = 4, .cols = 16, .offset = 0, .trained = true, .has_target = true},
    {.name = "b", .rows = 2, .cols = 16, .offset = 64, .trained = true},
    {.name = "c", .rows = 4, .cols = 16, .offset = 96, .trained = true, .has_target = true},
};
static const struct lh_update_rule rule = {
    .pattern = "*", .learning_rate = 1, .period = 1, .target_period = 1};
enum { FLAT = 160 };

struct rig {
    struct lh_layout layout;
    struct lh_held held;
    float *memory; /* [FLAT] whose element i is i */
    int released;
};

static void prepare(struct rig *r, size_t shards)
{
    memset(r, 0, sizeof *r);
    assert_ok(lh_layout_init_params(
        &r->layout, &(struct lh_layout_params){.params = params, .n_params = 3, .flat_size = FLAT},
        &rule, 1, shards));
    assert_ok(lh_held_init(&r->held, &r->layout));
    assert_ok(lh_mem_alloc_aligned((void **)&r->memory, FLAT + 16, sizeof(float), "test"));
    for (size_t i = 0; i < FLAT; i++)
        r->memory[i] = (float)i;
}

static void finish(struct rig *r)
{
    lh_held_fini(&r->held);
    lh_layout_fini(&r->layout);
    lh_mem_free(r->memory);
}

static void released(void *data, void *hint)
{
    (void)data;
    ++*(int *)hint;
}

/* Elements [lo, hi) arrive, at `from`. Tells whether the frame was kept. */
static bool arrive(struct rig *r, bool targets, size_t lo, size_t hi, float *from)
{
    zmq_msg_t m;
    int before = r->released;
    zmq_msg_init_data(&m, from, (hi - lo) * sizeof(float), released, &r->released);
    lh_held_take(&r->held, targets, lo, &m);
    zmq_msg_close(&m);
    return r->released == before;
}

static void assert_values(const struct rig *r, int kind)
{
    for (size_t p = 0; p < 3; p++)
        for (size_t i = 0; i < params[p].rows * params[p].cols; i++)
            assert_true(r->held.at[kind][p][i] == (float)(params[p].offset + i));
}

static void settle_frames_that_adjoin_in_memory_are_read_where_they_lie(void **state)
{
    (void)state;
    struct rig r;
    prepare(&r, 1);
    assert_true(arrive(&r, false, 48, FLAT, r.memory + 48)); /* cut within a tensor, out of order */
    assert_true(arrive(&r, true, 0, FLAT, r.memory));
    assert_true(arrive(&r, false, 0, 48, r.memory));
    lh_held_settle(&r.held);
    assert_values(&r, 0);
    for (size_t p = 0; p < 3; p++)
        assert_ptr_equal(r.held.at[0][p], r.memory + params[p].offset);
    assert_ptr_equal(r.held.at[1][0], r.memory);
    assert_null(r.held.at[1][1]);
    assert_ptr_equal(r.held.at[1][2], r.memory + 96);
    assert_int_equal(r.released, 0);
    lh_held_drop(&r.held);
    assert_int_equal(r.released, 3);
    finish(&r);
}

static void settle_tensor_in_two_places_is_put_together(void **state)
{
    (void)state;
    struct rig r;
    float *other;
    prepare(&r, 2);
    assert_ok(lh_mem_alloc_aligned((void **)&other, FLAT, sizeof(float), "test"));
    memcpy(other, r.memory, FLAT * sizeof(float));
    assert_true(arrive(&r, false, 80, FLAT, other + 80)); /* "b" begins in the other place */
    assert_true(arrive(&r, false, 0, 80, r.memory));
    lh_held_settle(&r.held);
    assert_ptr_equal(r.held.at[0][0], r.memory);
    assert_ptr_equal(r.held.at[0][1], r.held.flat[0] + 64);
    assert_ptr_equal(r.held.at[0][2], other + 96);
    assert_values(&r, 0);
    finish(&r);
    lh_mem_free(other);
}

static void take_frame_that_lies_badly_is_copied_and_let_go(void **state)
{
    (void)state;
    struct rig r;
    prepare(&r, 1);
    memmove(r.memory + 1, r.memory, FLAT * sizeof(float));
    assert_false(arrive(&r, false, 0, FLAT, r.memory + 1));
    assert_int_equal(r.released, 1);
    lh_held_settle(&r.held);
    assert_ptr_equal(r.held.at[0][1], r.held.flat[0] + 64);
    assert_values(&r, 0);
    finish(&r);
}

/* Half of a tensor in a frame that is kept, half in one that was copied. */
static void settle_tensor_half_kept_half_copied_is_put_together(void **state)
{
    (void)state;
    struct rig r;
    float *shifted;
    prepare(&r, 1);
    assert_ok(lh_mem_alloc_aligned((void **)&shifted, FLAT + 1, sizeof(float), "test"));
    memcpy(shifted + 1, r.memory, FLAT * sizeof(float));
    assert_true(arrive(&r, false, 0, 128, r.memory));
    assert_false(arrive(&r, false, 128, FLAT, shifted + 1 + 128));
    lh_held_settle(&r.held);
    assert_ptr_equal(r.held.at[0][2], r.held.flat[0] + 96);
    assert_values(&r, 0);
    finish(&r);
    lh_mem_free(shifted);
}

/* Where frames lie is a matter of luck between processes: of the weights all may lie badly. What
 * was in the arrays before is of an older version. */
static void settle_of_targets_alone_that_are_kept_reads_them(void **state)
{
    (void)state;
    struct rig r;
    float *shifted;
    prepare(&r, 1);
    assert_ok(lh_mem_alloc_aligned((void **)&shifted, FLAT + 1, sizeof(float), "test"));
    memcpy(shifted + 1, r.memory, FLAT * sizeof(float));
    memset(r.held.flat[1], 0, FLAT * sizeof(float));
    assert_false(arrive(&r, false, 0, FLAT, shifted + 1));
    assert_true(arrive(&r, true, 0, 112, r.memory)); /* all of "a", part of "c" */
    assert_false(arrive(&r, true, 112, FLAT, shifted + 1 + 112));
    lh_held_settle(&r.held);
    assert_ptr_equal(r.held.at[1][0], r.memory);
    assert_ptr_equal(r.held.at[1][2], r.held.flat[1] + 96);
    for (size_t i = 0; i < 64; i++)
        assert_true(r.held.at[1][2][i] == (float)(96 + i));
    assert_values(&r, 0);
    finish(&r);
    lh_mem_free(shifted);
}

/* More frames than a server cuts a version into: a foreign one may. */
static void take_more_frames_than_expected_copies_them(void **state)
{
    (void)state;
    struct rig r;
    prepare(&r, 1);
    for (size_t lo = 0; lo < FLAT; lo += 16)
        assert_true(arrive(&r, false, lo, lo + 16, r.memory + lo) == (lo / 16 < r.held.cap));
    lh_held_settle(&r.held);
    assert_values(&r, 0);
    finish(&r);
}

static void init_out_of_memory_fails_without_a_leak(void **state)
{
    (void)state;
    struct lh_layout layout;
    struct lh_held held;
    int rc = LH_ENOMEM;
    assert_ok(lh_layout_init_params(
        &layout, &(struct lh_layout_params){.params = params, .n_params = 3, .flat_size = FLAT},
        &rule, 1, 2));
    uint64_t live = lh_mem_live();
    for (uint64_t n = 1; rc < 0; n++) {
        lh_mem_fail_at(n);
        rc = lh_held_init(&held, &layout);
        lh_mem_fail_at(0);
        if (rc < 0) {
            assert_err(rc, LH_ENOMEM, "memory");
            assert_int_equal(lh_mem_live(), live);
        }
    }
    lh_held_fini(&held);
    lh_layout_fini(&layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(settle_frames_that_adjoin_in_memory_are_read_where_they_lie),
        kit_test(settle_tensor_in_two_places_is_put_together),
        kit_test(take_frame_that_lies_badly_is_copied_and_let_go),
        kit_test(settle_tensor_half_kept_half_copied_is_put_together),
        kit_test(settle_of_targets_alone_that_are_kept_reads_them),
        kit_test(take_more_frames_than_expected_copies_them),
        kit_test(init_out_of_memory_fails_without_a_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
