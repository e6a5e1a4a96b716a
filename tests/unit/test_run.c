#include "cluster/run.h"
#include "cluster/run_record.h"
#include "common/fs.h"
#include "ps/store.h"
#include "tests/testkit.h"
#include "worker/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char config[] = "algorithm: il\nseed: 7\nnetwork: {hidden: [8, 6]}\n"
                             "train: {batch: 64, micro_batch: 16}\n"
                             "checkpoint: {every: 10}\n";

/* A run directory as the scheduler leaves it: two cuts, the first on one server and the second on
 * two; each step's gradient is 1 everywhere. */
static void make_cut(const struct lh_job *job, uint64_t version, uint32_t servers, float *weights)
{
    struct lh_model m;
    assert_ok(lh_model_init(&m, job, servers));
    float *start = NULL, *ones = NULL;
    assert_ok(lh_mem_alloc_aligned((void **)&start, m.layout.flat_size, 4, "test"));
    assert_ok(lh_mem_alloc_aligned((void **)&ones, m.layout.flat_size, 4, "test"));
    lh_graph_init_params(m.graph, job->seed, start);
    for (size_t i = 0; i < m.layout.flat_size; i++)
        ones[i] = 1;
    for (uint32_t i = 0; i < servers; i++) {
        const struct lh_shard_range *r = &m.layout.shards[i];
        struct lh_shard *s = NULL;
        struct lh_store *st = NULL;
        const struct lh_frozen *f;
        char name[32];
        snprintf(name, sizeof name, "store-%u", i);
        assert_ok(
            lh_shard_create(&s, &(struct lh_shard_spec){r, 1, 0.9, 0.999, 1e-8, 0, false, false}));
        lh_shard_init(s, start + r->lo);
        for (uint64_t v = 0; v < version; v++) {
            int applied;
            assert_ok(
                lh_shard_push(s, v, (struct lh_tree_node){0, 0}, 0, ones, lh_shard_size(s), NULL));
            assert_ok(lh_shard_advance(s, &applied, NULL));
        }
        assert_ok(lh_store_open(&st, kit_path(name),
                                &(struct lh_store_id){lh_job_digest(job), i, servers}, 0));
        assert_ok(lh_shard_freeze(s, &f));
        assert_ok(lh_store_prepare(st, f));
        memcpy(weights + r->lo, f->w, (r->hi - r->lo) * sizeof *weights);
        lh_shard_thaw(s, f);
        lh_store_close(&st);
        lh_shard_destroy(&s);
    }
    lh_mem_free(start);
    lh_mem_free(ones);
    lh_model_fini(&m);
}

static void make_run(float *best, float *last)
{
    struct lh_job *job = NULL;
    char *text = NULL;
    struct lh_run_record r = {.state = LH_RUN_FINISHED, .servers = 2, .steps_total = 20};
    assert_ok(lh_job_load_text(&job, config, strlen(config), "t", NULL));
    assert_ok(lh_job_resolve(job, &(struct lh_dims){.high = 4, .low = 3, .action = 2}, 99));
    assert_ok(lh_job_print(job, &text));
    kit_write(kit_path("config.yaml"), text);
    lh_mem_free(text);
    make_cut(job, 3, 1, best);
    make_cut(job, 5, 2, last);
    r.job_digest = lh_job_digest(job);
    r.dataset_digest = 99;
    assert_ok(lh_run_record_add_cut(&r, 3, 1));
    assert_ok(lh_run_record_add_cut(&r, 5, 2));
    assert_ok(lh_run_record_set_evaluation(&r, 3, "{\"value\":2}"));
    r.has_best = true;
    r.best = 3;
    assert_ok(lh_run_record_save(&r, kit_dir()));
    lh_run_record_fini(&r);
    lh_job_destroy(&job);
}

static void check_weights(const struct lh_run *run, const float *want)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(run->graph, &n);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(run->weights + p[i].offset, want + p[i].offset,
                            p[i].rows * p[i].cols * sizeof *want);
}

static void open_gives_the_best_or_the_last_cut(void **state)
{
    (void)state;
    static float best[4096], last[4096];
    struct lh_run *run = NULL;
    make_run(best, last);
    assert_ok(lh_run_open(&run, kit_dir(), LH_CUT_BEST));
    assert_int_equal(run->version, 3);
    assert_string_equal(run->evaluation_json, "{\"value\":2}");
    assert_int_equal(run->job->seed, 7);
    assert_int_equal(run->job->dims.high, 4);
    assert_int_equal((uintptr_t)run->weights % 64, 0);
    check_weights(run, best);
    lh_run_close(&run);
    lh_run_close(&run);
    assert_ok(lh_run_open(&run, kit_dir(), LH_CUT_LAST));
    assert_int_equal(run->version, 5);
    assert_null(run->evaluation_json);
    check_weights(run, last);
    lh_run_close(&run);
}

static void open_what_is_no_whole_run_says_why(void **state)
{
    (void)state;
    static float best[4096], last[4096];
    struct lh_run *run = NULL;
    struct lh_run_record r = {0};
    make_run(best, last);
    assert_err(lh_run_open(&run, kit_path("nowhere"), LH_CUT_LAST), LH_ENOENT,
               "nowhere: no run (there is no run.json");
    /* config.yaml was changed */
    char *text = kit_read(kit_path("config.yaml"), NULL), *seed = strstr(text, "seed: 7");
    assert_non_null(seed);
    seed[6] = '8';
    kit_write(kit_path("config.yaml"), text);
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_LAST), LH_EMISMATCH,
               "config.yaml describes job");
    seed[6] = '7';
    kit_write(kit_path("config.yaml"), text);
    free(text);
    /* a cut that no store has; one that lacks a store; no best; no cut */
    assert_ok(lh_run_record_load(&r, kit_dir()));
    assert_ok(lh_run_record_add_cut(&r, 9, 2));
    r.has_best = false;
    assert_ok(lh_run_record_save(&r, kit_dir()));
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_LAST), LH_ENOENT, "store-0: has no version 9");
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_BEST), LH_ENOENT, "has no version 9");
    assert_ok(lh_run_record_add_cut(&r, 5, 1));
    assert_ok(lh_run_record_save(&r, kit_dir()));
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_LAST), LH_EMISMATCH, "do not belong together");
    assert_ok(lh_run_record_add_cut(&r, 5, 2));
    assert_ok(lh_run_record_save(&r, kit_dir()));
    assert_ok(lh_run_open(&run, kit_dir(), LH_CUT_LAST));
    lh_run_close(&run);
    assert_ok(lh_fs_remove_tree(kit_path("store-1")));
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_LAST), LH_ENOENT, "store-1");
    r.has_last = false;
    assert_ok(lh_run_record_save(&r, kit_dir()));
    assert_err(lh_run_open(&run, kit_dir(), LH_CUT_LAST), LH_ENOENT, "no checkpoint of this run");
    lh_run_record_fini(&r);
    assert_null(run);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    static float best[4096], last[4096];
    make_run(best, last);
    for (uint64_t n = 1;; n++) {
        struct lh_run *run = NULL;
        lh_mem_fail_at(n);
        int rc = lh_run_open(&run, kit_dir(), LH_CUT_LAST);
        lh_mem_fail_at(0);
        if (rc == 0) {
            lh_run_close(&run);
            assert_true(n > 20);
            return;
        }
        assert_null(run);
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_gives_the_best_or_the_last_cut),
        kit_test(open_what_is_no_whole_run_says_why),
        kit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
