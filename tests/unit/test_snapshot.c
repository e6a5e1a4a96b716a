#include "common/snapshot.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const high_names[] = {"age", "tenure \"x\""};
static const char *const low_names[] = {"hour"};
static const char *const action_names[] = {"e_0", "e_1"};

/* A snapshot of a tiny network, as an exporter would hand it over. */
struct source {
    struct lh_snapshot s;
    struct lh_param params[2];
    float weights[32], targets[32], probe[LH_PROBE_ROWS * 2];
};

static void source_init(struct source *x)
{
    memset(x, 0, sizeof *x);
    static const char text[] = "name: tiny\nalgorithm: il\nresolved: {high: 2, low: 1, action: 2, "
                               "classes: 3, dataset_digest: ab}\n";
    assert_ok(lh_job_load_text(&x->s.job, text, sizeof text - 1, "t.yaml", NULL));
    assert_ok(lh_norm_init(&x->s.norm, &x->s.job->dims));
    x->s.norm.high_shift[1] = 0.1f;
    x->s.norm.high_scale[1] = 4;
    x->s.norm.action_lo[0] = -1.5f;
    x->s.high_names = high_names;
    x->s.low_names = low_names;
    x->s.action_names = action_names;
    x->s.version = 1234567;
    x->s.cut = "best";
    x->params[0] = (struct lh_param){
        .name = "actor.0.bias", .rows = 1, .cols = 2, .offset = 0, .has_target = false};
    x->params[1] = (struct lh_param){
        .name = "actor.0.weight", .rows = 2, .cols = 3, .offset = 16, .has_target = true};
    for (size_t i = 0; i < 32; i++) {
        x->weights[i] = (float)i / 3;
        x->targets[i] = -x->weights[i];
    }
    for (size_t i = 0; i < LH_PROBE_ROWS * 2; i++)
        x->probe[i] = (float)i / 7;
    x->s.params = x->params;
    x->s.n_params = 2;
    x->s.weights = x->weights;
    x->s.targets = x->targets;
    x->s.probe = x->probe;
    x->s.evaluation_json = "{\"value\": 1.5}\n";
}

static void source_fini(struct source *x)
{
    lh_job_destroy(&x->s.job);
    lh_norm_fini(&x->s.norm);
}

static void write_and_open_give_the_same_snapshot(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, false));
    struct lh_snapshot *s = NULL;
    assert_ok(lh_snapshot_open(&s, kit_path("snap")));
    assert_string_equal(s->job->name, "tiny");
    assert_true(lh_job_digest(s->job) == lh_job_digest(x.s.job));
    assert_int_equal(s->version, 1234567);
    assert_string_equal(s->cut, "best");
    assert_string_equal(s->high_names[1], "tenure \"x\"");
    assert_string_equal(s->action_names[1], "e_1");
    assert_true(s->norm.high_shift[1] == 0.1f && s->norm.high_scale[1] == 4);
    assert_true(s->norm.action_lo[0] == -1.5f);
    assert_int_equal(s->n_params, 2);
    assert_string_equal(s->params[1].name, "actor.0.weight");
    assert_int_equal(s->params[1].rows, 2);
    assert_int_equal(s->params[1].cols, 3);
    assert_int_equal(s->params[1].offset % 16, 0);
    assert_true(s->params[1].has_target && !s->params[0].has_target);
    assert_memory_equal(s->weights + s->params[1].offset, x.weights + 16, 6 * sizeof(float));
    assert_memory_equal(s->targets + s->params[1].offset, x.targets + 16, 6 * sizeof(float));
    assert_memory_equal(s->probe, x.probe, sizeof x.probe);
    assert_string_equal(s->evaluation_json, "{\"value\": 1.5}\n");
    lh_snapshot_close(&s);
    source_fini(&x);
}

static void weights_are_readable_by_the_public_format(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, false));
    char *out = NULL;
    int status = kit_run(&out, "" LH_PYTHON " '%s/tests/reference/read_safetensors.py' '%s'",
                         LH_SOURCE_DIR, kit_path("snap/weights.safetensors"));
    if (status != 0)
        fail_msg("%s", out);
    kit_assert_contains(out, "actor.0.bias (2,) 0 0.3333333\n");
    kit_assert_contains(out, "actor.0.weight (2, 3) 5.333333 5.666667 6 6.333333");
    kit_assert_contains(out, "target.actor.0.weight (2, 3) -5.333333");
    free(out);
    source_fini(&x);
}

static void write_replaces_snapshots_only_and_only_when_told(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, false));
    assert_err(lh_snapshot_write(kit_path("snap"), &x.s, false), LH_EEXIST, "snap");
    x.s.version = 8;
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, true));
    struct lh_snapshot *s = NULL;
    assert_ok(lh_snapshot_open(&s, kit_path("snap")));
    assert_int_equal(s->version, 8);
    lh_snapshot_close(&s);
    char *out = NULL;
    assert_int_equal(
        kit_run(&out, "mkdir '%s'; touch '%s'", kit_path("home"), kit_path("home/thesis")), 0);
    free(out);
    assert_err(lh_snapshot_write(kit_path("home"), &x.s, true), LH_EEXIST, "home");
    assert_int_equal(access(kit_path("home/thesis"), F_OK), 0);
    /* nothing half-written is left */
    assert_int_equal(kit_run(&out, "ls -A '%s'", kit_dir()), 0);
    assert_string_equal(out, "home\nsnap\n");
    free(out);
    source_fini(&x);
}

static void any_flipped_byte_is_noticed(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, false));
    static const char *const files[] = {"snap/manifest.json", "snap/weights.safetensors",
                                        "snap/config.yaml", "snap/evaluation.json"};
    for (size_t f = 0; f < 4; f++) {
        size_t n;
        char path[512];
        snprintf(path, sizeof path, "%s", kit_path(files[f]));
        char *bytes = kit_read(path, &n);
        for (size_t i = 0; i < n; i += n / 40 + 1) {
            struct lh_snapshot *s = NULL;
            bytes[i] ^= 1;
            kit_write_bytes(path, bytes, n);
            int rc = lh_snapshot_open(&s, kit_path("snap"));
            if (rc != LH_ECORRUPT && rc != LH_EFORMAT)
                fail_msg("%s, byte %zu: %s", files[f], i, lh_err_name(rc));
            bytes[i] ^= 1;
        }
        struct lh_snapshot *s = NULL;
        kit_write_bytes(path, bytes, n - 1);
        assert_int_not_equal(lh_snapshot_open(&s, kit_path("snap")), 0);
        kit_write_bytes(path, bytes, n);
        free(bytes);
        assert_ok(lh_snapshot_open(&s, kit_path("snap")));
        lh_snapshot_close(&s);
    }
    source_fini(&x);
}

static void open_says_what_is_missing(void **state)
{
    (void)state;
    struct source x;
    struct lh_snapshot *s = NULL;
    source_init(&x);
    assert_err(lh_snapshot_open(&s, kit_path("none")), LH_ENOENT, "none: no snapshot");
    assert_ok(lh_snapshot_write(kit_path("snap"), &x.s, false));
    assert_int_equal(unlink(kit_path("snap/config.yaml")), 0);
    assert_err(lh_snapshot_open(&s, kit_path("snap")), LH_ENOENT, "snap/config.yaml");
    kit_write(kit_path("snap/manifest.json"), "{\"format\": \"something else\"}");
    assert_err(lh_snapshot_open(&s, kit_path("snap")), LH_EFORMAT, "no snapshot's manifest");
    kit_write(kit_path("snap/manifest.json"),
              "{\"format\": \"longhaul-snapshot\", \"format_version\": 99}");
    assert_err(lh_snapshot_open(&s, kit_path("snap")), LH_EFORMAT, "format version 99");
    source_fini(&x);
}

static void probe_accepts_rounding_and_refuses_another_policy(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    float answer[LH_PROBE_ROWS * 2], high[LH_PROBE_ROWS * 2], low[LH_PROBE_ROWS],
        again[LH_PROBE_ROWS];
    for (size_t i = 0; i < LH_PROBE_ROWS * 2; i++)
        answer[i] = x.probe[i] * 1.00001f;
    assert_ok(lh_snapshot_probe_check(&x.s, answer));
    answer[3] += 0.5f;
    assert_ok(lh_snapshot_probe_check(&x.s, answer)); /* one row may fall otherwise */
    for (size_t i = 0; i < LH_PROBE_ROWS * 2; i++)
        answer[i] += 0.1f;
    assert_err(lh_snapshot_probe_check(&x.s, answer), LH_EMISMATCH, "answers 8 of 8");
    lh_snapshot_probe_states(&x.s.norm, high, low);
    lh_snapshot_probe_states(&x.s.norm, high, again);
    assert_memory_equal(low, again, sizeof low);
    assert_true(low[0] != low[1]);
    source_fini(&x);
}

static void write_and_open_survive_every_failed_allocation(void **state)
{
    (void)state;
    struct source x;
    source_init(&x);
    for (uint64_t n = 1;; n++) {
        struct lh_snapshot *s = NULL;
        lh_mem_fail_at(n);
        int rc = lh_snapshot_write(kit_path("snap"), &x.s, true);
        if (rc == 0)
            rc = lh_snapshot_open(&s, kit_path("snap"));
        lh_mem_fail_at(0);
        lh_snapshot_close(&s);
        if (rc == 0) {
            assert_true(n > 20);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
    source_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(write_and_open_give_the_same_snapshot),
        kit_test(weights_are_readable_by_the_public_format),
        kit_test(write_replaces_snapshots_only_and_only_when_told),
        kit_test(any_flipped_byte_is_noticed),
        kit_test(open_says_what_is_missing),
        kit_test(probe_accepts_rounding_and_refuses_another_policy),
        kit_test(write_and_open_survive_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
