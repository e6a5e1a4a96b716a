#include "common/rng.h"
#include "ps/shard.h"
#include "tests/testkit.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* actor: delayed and with a target; critic: every step, target every third; cvae: no target;
 * embedding: never trained. Not on the 16-element grid everywhere. */
static const struct lh_param model[] = {
    {"actor.0.weight", 6, 5, 0, 5, true, true},
    {"critic.0.weight", 7, 9, 32, 9, true, true},
    {"cvae.0.bias", 1, 11, 96, 9, true, false},
    {"embedding", 5, 3, 112, 3, false, false},
};
enum { FLAT = 128, LEAVES = 5, METRICS = 3 };
static const struct lh_layout_params from = {model, 4, FLAT};
static const struct lh_update_rule rules[] = {
    {"actor.*", 1e-2, 2, 0.25, 1},
    {"critic.*", 3e-2, 1, 0.125, 3},
    {"cvae.*", 1e-3, 1, 0.5, 1},
};

static void layout(struct lh_layout *l, size_t shards)
{
    assert_ok(lh_layout_init_params(l, &from, rules, 3, shards));
}

static struct lh_shard *shard_of(const struct lh_layout *l, size_t i)
{
    struct lh_shard *s = NULL;
    struct lh_shard_spec spec = {.range = &l->shards[i],
                                 .leaves = LEAVES,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8,
                                 .n_metrics = i == 0 ? METRICS : 0};
    assert_ok(lh_shard_create(&s, &spec));
    return s;
}

static void initial(float *w)
{
    memset(w, 0, FLAT * sizeof *w);
    for (size_t i = 0; i < 4; i++)
        lh_rng_normal(&(struct lh_rng_at){.seed = 11, .part = (uint32_t)i}, w + model[i].offset,
                      model[i].rows * model[i].cols);
}

static void leaf_of(uint64_t step, uint32_t leaf, float *g, float *metrics)
{
    lh_rng_normal(&(struct lh_rng_at){.seed = 12, .step = step, .part = leaf}, g, FLAT);
    lh_rng_normal(&(struct lh_rng_at){.seed = 13, .step = step, .part = leaf}, metrics, METRICS);
}

static void push_leaf(struct lh_shard *s, uint64_t step, uint32_t leaf, size_t cut)
{
    float g[FLAT], metrics[METRICS];
    const struct lh_shard_range *r = lh_shard_range_of(s);
    leaf_of(step, leaf, g, metrics);
    size_t size = lh_shard_size(s);
    cut = cut < size ? cut : size - 1;
    assert_ok(lh_shard_push(s, step, (struct lh_tree_node){0, leaf}, cut, g + r->lo + cut,
                            size - cut, NULL));
    if (cut > 0)
        assert_ok(
            lh_shard_push(s, step, (struct lh_tree_node){0, leaf}, 0, g + r->lo, cut, metrics));
}

static void steps(struct lh_shard **s, size_t n, uint64_t first, uint64_t end)
{
    for (uint64_t step = first; step < end; step++) {
        for (size_t i = 0; i < n; i++) {
            int applied = 0;
            for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
                assert_ok(lh_shard_advance(s[i], &applied, NULL));
                assert_false(applied);
                push_leaf(s[i], step, (uint32_t)((leaf * 3 + step) % LEAVES), 1 + leaf + step % 7);
            }
            assert_ok(lh_shard_advance(s[i], &applied, NULL));
            assert_true(applied);
            assert_int_equal(lh_shard_version(s[i]), step + 1);
        }
    }
}

/* The whole of a shard in double: gradients summed in any order, Adam by the paper. */
static void reference(uint64_t n_steps, double *w, double *target)
{
    float start[FLAT];
    double m[FLAT] = {0}, v[FLAT] = {0};
    initial(start);
    for (size_t i = 0; i < FLAT; i++)
        w[i] = target[i] = start[i];
    for (uint64_t step = 0; step < n_steps; step++) {
        double g[FLAT] = {0};
        for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
            float one[FLAT], metrics[METRICS];
            leaf_of(step, leaf, one, metrics);
            for (size_t i = 0; i < FLAT; i++)
                g[i] += one[i];
        }
        for (size_t p = 0; p < 3; p++) {
            const struct lh_update_rule *rule = &rules[p];
            double t = (double)((step + 1) / rule->period);
            for (size_t i = model[p].offset; i < model[p].offset + model[p].rows * model[p].cols;
                 i++) {
                if ((step + 1) % rule->period == 0) {
                    m[i] = 0.9 * m[i] + 0.1 * g[i];
                    v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
                    w[i] -= rule->learning_rate * m[i] / (1 - pow(0.9, t)) /
                            (sqrt(v[i] / (1 - pow(0.999, t))) + 1e-8);
                }
                if ((step + 1) % rule->target_period == 0)
                    target[i] = rule->tau * w[i] + (1 - rule->tau) * target[i];
            }
        }
    }
}

static void advance_follows_an_independent_reference(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 13; n++) {
        struct lh_layout l;
        layout(&l, 1);
        struct lh_shard *s = shard_of(&l, 0);
        float start[FLAT];
        double w[FLAT], target[FLAT];
        initial(start);
        lh_shard_init(s, start);
        steps(&s, 1, 0, n);
        reference(n, w, target);
        const float *got_w = lh_shard_weights(s), *got_t = lh_shard_targets(s);
        for (size_t p = 0; p < 4; p++) {
            for (size_t i = model[p].offset; i < model[p].offset + model[p].rows * model[p].cols;
                 i++) {
                kit_assert_close(got_w[i], w[i], 2e-6, model[p].name);
                kit_assert_close(got_t[i], model[p].has_target ? target[i] : 0, 2e-6, "target");
            }
        }
        assert_memory_equal(got_w + 112, start + 112, 15 * sizeof *got_w); /* untrained */
        for (size_t i = 30; i < 32; i++)
            assert_true(got_w[i] == 0 && got_t[i] == 0); /* padding */
        lh_shard_destroy(&s);
        lh_layout_fini(&l);
    }
}

/* Weights and targets of a model that lies on n shards, flat. */
static void gather(struct lh_shard **s, size_t n, float *w, float *t)
{
    for (size_t i = 0; i < n; i++) {
        const struct lh_shard_range *r = lh_shard_range_of(s[i]);
        memcpy(w + r->lo, lh_shard_weights(s[i]), lh_shard_size(s[i]) * sizeof *w);
        memset(t + r->lo, 0, lh_shard_size(s[i]) * sizeof *t);
        if (lh_shard_targets(s[i]))
            memcpy(t + r->lo, lh_shard_targets(s[i]), lh_shard_size(s[i]) * sizeof *t);
    }
}

static void advance_any_number_of_shards_gives_the_same_bits(void **state)
{
    (void)state;
    float start[FLAT], w[5][FLAT], t[5][FLAT];
    initial(start);
    for (size_t n = 1; n < 5; n++) {
        struct lh_layout l;
        struct lh_shard *s[4];
        layout(&l, n);
        for (size_t i = 0; i < n; i++) {
            s[i] = shard_of(&l, i);
            lh_shard_init(s[i], start + l.shards[i].lo);
        }
        steps(s, n, 0, 9);
        gather(s, n, w[n], t[n]);
        assert_memory_equal(w[n], w[1], sizeof w[1]);
        assert_memory_equal(t[n], t[1], sizeof t[1]);
        for (size_t i = 0; i < n; i++)
            lh_shard_destroy(&s[i]);
        lh_layout_fini(&l);
    }
}

static void advance_sums_metrics_in_the_same_tree(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float start[FLAT], got[METRICS], leaf[LEAVES][METRICS], g[FLAT];
    initial(start);
    lh_shard_init(s, start);
    for (uint32_t i = 0; i < LEAVES; i++) {
        leaf_of(0, i, g, leaf[i]);
        push_leaf(s, 0, i, 50);
    }
    assert_non_null(lh_shard_gradient(s));
    int applied;
    assert_ok(lh_shard_advance(s, &applied, got));
    assert_true(applied);
    assert_null(lh_shard_gradient(s));
    for (size_t k = 0; k < METRICS; k++) {
        float want = ((leaf[0][k] + leaf[1][k]) + (leaf[2][k] + leaf[3][k])) + leaf[4][k];
        assert_memory_equal(&got[k], &want, sizeof want);
    }
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

static void push_wrong_or_late_changes_nothing(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float g[FLAT] = {0}, metrics[METRICS] = {0};
    const struct lh_tree_node leaf = {0, 1};
    lh_shard_init(s, g);
    assert_err(lh_shard_push(s, 1, leaf, 0, g, FLAT, metrics), LH_EPROTO, "step 1 came");
    assert_err(lh_shard_push(s, 0, (struct lh_tree_node){0, 5}, 0, g, FLAT, metrics), LH_EPROTO,
               "node (0, 5)");
    assert_err(lh_shard_push(s, 0, (struct lh_tree_node){4, 0}, 0, g, FLAT, metrics), LH_EPROTO,
               "node (4, 0)");
    assert_err(lh_shard_push(s, 0, leaf, 1, g, FLAT, NULL), LH_EPROTO, "does not fit");
    assert_err(lh_shard_push(s, 0, leaf, FLAT, g, 1, NULL), LH_EPROTO, "does not fit");
    assert_err(lh_shard_push(s, 0, leaf, 0, g, 0, metrics), LH_EPROTO, "does not fit");
    assert_err(lh_shard_push(s, 0, leaf, SIZE_MAX, g, 2, NULL), LH_EPROTO, "does not fit");
    assert_err(lh_shard_push(s, 0, leaf, 2, g, SIZE_MAX, NULL), LH_EPROTO, "does not fit");
    assert_err(lh_shard_push(s, 0, leaf, 0, g, FLAT, NULL), LH_EPROTO, "no metrics");
    assert_ok(lh_shard_push(s, 0, leaf, 0, g, FLAT, metrics));
    assert_int_equal(lh_shard_push(s, 0, leaf, 0, g, FLAT, metrics), LH_AGAIN);
    assert_ok(lh_shard_push(s, 0, (struct lh_tree_node){3, 0}, 0, g, FLAT, metrics));
    int applied;
    assert_ok(lh_shard_advance(s, &applied, NULL));
    assert_true(applied);
    assert_int_equal(lh_shard_push(s, 0, leaf, 0, g, FLAT, metrics), LH_AGAIN);
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

static void advance_not_finite_gradient_is_named_and_nothing_applied(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e20f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_layout l;
        layout(&l, 1);
        struct lh_shard *s = shard_of(&l, 0);
        float start[FLAT], g[FLAT], metrics[METRICS];
        initial(start);
        lh_shard_init(s, start);
        steps(&s, 1, 0, 2);
        float w[FLAT], t[FLAT];
        gather(&s, 1, w, t);
        leaf_of(2, 0, g, metrics);
        g[32 + 9 * 4 + 2] = bad[i];
        assert_ok(lh_shard_push(s, 2, (struct lh_tree_node){3, 0}, 0, g, FLAT, metrics));
        int applied = 1;
        assert_err(lh_shard_advance(s, &applied, NULL), LH_EDIVERGED,
                   "step 2: the gradient of critic.0.weight, row 4");
        assert_false(applied);
        assert_int_equal(lh_shard_version(s), 2);
        assert_memory_equal(lh_shard_weights(s), w, sizeof w);
        assert_memory_equal(lh_shard_targets(s), t, sizeof t);
        lh_shard_destroy(&s);
        /* What is not trained, and padding, does not stop a run. */
        s = shard_of(&l, 0);
        lh_shard_init(s, start);
        leaf_of(0, 0, g, metrics);
        g[31] = g[112] = bad[i];
        assert_ok(lh_shard_push(s, 0, (struct lh_tree_node){3, 0}, 0, g, FLAT, metrics));
        assert_ok(lh_shard_advance(s, &applied, NULL));
        assert_true(applied);
        assert_memory_equal(lh_shard_weights(s) + 112, start + 112, 15 * sizeof *start);
        lh_shard_destroy(&s);
        lh_layout_fini(&l);
    }
}

static void lend_keeps_an_array_as_it_was(void **state)
{
    (void)state;
    enum { LOANS = 6 };
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float start[FLAT], copy[LOANS][2][FLAT];
    const float *lent[LOANS][2];
    void *token[LOANS][2];
    initial(start);
    lh_shard_init(s, start);
    for (size_t i = 0; i < LOANS; i++) {
        for (int k = 0; k < 2; k++) {
            lent[i][k] = lh_shard_lend(s, k, &token[i][k]);
            memcpy(copy[i][k], lent[i][k], sizeof copy[i][k]);
        }
        steps(&s, 1, i, i + 1);
    }
    /* The same bits as a run that lent nothing. */
    struct lh_shard *other = shard_of(&l, 0);
    lh_shard_init(other, start);
    steps(&other, 1, 0, LOANS);
    assert_memory_equal(lh_shard_weights(s), lh_shard_weights(other), sizeof start);
    assert_memory_equal(lh_shard_targets(s), lh_shard_targets(other), sizeof start);
    lh_shard_destroy(&other);
    for (size_t i = 0; i < LOANS; i++) {
        for (int k = 0; k < 2; k++)
            assert_memory_equal(lent[i][k], copy[i][k], sizeof copy[i][k]);
    }
    for (size_t i = 0; i < LOANS - 1; i++) {
        for (int k = 0; k < 2; k++)
            lh_shard_release(NULL, token[i][k]);
    }
    /* Returned buffers are used again, and the last loan outlives the shard. */
    uint64_t before = lh_mem_count();
    steps(&s, 1, LOANS, LOANS + 10);
    assert_int_equal(lh_mem_count(), before);
    lh_shard_destroy(&s);
    assert_memory_equal(lent[LOANS - 1][0], copy[LOANS - 1][0], sizeof start);
    lh_shard_release(NULL, token[LOANS - 1][0]);
    lh_shard_release(NULL, token[LOANS - 1][1]);
    lh_layout_fini(&l);
}

static void weights_live_until_the_step_after_the_next(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float start[FLAT];
    initial(start);
    lh_shard_init(s, start);
    for (uint64_t v = 0; v < 4; v++) {
        float copy[FLAT];
        const float *w = lh_shard_weights(s);
        memcpy(copy, w, sizeof copy);
        steps(&s, 1, v, v + 1);
        assert_memory_equal(w, copy, sizeof copy);
    }
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

static void *release_all(void *tokens)
{
    void **t = tokens;
    for (size_t i = 0; i < 100; i++)
        lh_shard_release(NULL, t[i]);
    return NULL;
}

static void release_on_other_threads_frees_once(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    void *tokens[2][100];
    pthread_t thread[2];
    float start[FLAT];
    initial(start);
    lh_shard_init(s, start);
    for (size_t i = 0; i < 200; i++)
        assert_non_null(lh_shard_lend(s, 0, &tokens[i % 2][i / 2]));
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, release_all, tokens[i]), 0);
    steps(&s, 1, 0, 3);
    lh_shard_destroy(&s);
    for (size_t i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    lh_layout_fini(&l); /* the teardown counts what is left */
}

static void lend_targets_that_do_not_exist_is_null(void **state)
{
    (void)state;
    static const struct lh_param one[] = {{"w", 2, 16, 0, 2, true, false}};
    struct lh_layout l;
    assert_ok(lh_layout_init_params(&l, &(struct lh_layout_params){one, 1, 32},
                                    &(struct lh_update_rule){"*", 1, 1, 0, 1}, 1, 1));
    struct lh_shard *s = NULL;
    struct lh_shard_spec spec = {&l.shards[0], 2, 0.9, 0.999, 1e-8, 0, false, false};
    assert_ok(lh_shard_create(&s, &spec));
    void *token = &l;
    assert_null(lh_shard_lend(s, 1, &token));
    assert_null(token);
    assert_null(lh_shard_targets(s));
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

static void freeze_then_load_continues_with_the_same_bits(void **state)
{
    (void)state;
    for (size_t n = 1; n < 4; n++) { /* restored onto n shards */
        struct lh_layout one, many;
        layout(&one, 2);
        layout(&many, n);
        float start[FLAT], w[2][FLAT], t[2][FLAT];
        initial(start);
        struct lh_shard *a[2], *b[3];
        const struct lh_frozen *f[2];
        for (size_t i = 0; i < 2; i++) {
            a[i] = shard_of(&one, i);
            lh_shard_init(a[i], start + one.shards[i].lo);
        }
        steps(a, 2, 0, 5);
        for (size_t i = 0; i < 2; i++) {
            assert_ok(lh_shard_freeze(a[i], &f[i]));
            assert_int_equal(f[i]->version, 5);
            const struct lh_frozen *again;
            assert_int_equal(lh_shard_freeze(a[i], &again), LH_AGAIN);
        }
        steps(a, 2, 5, 11); /* training goes on; what is frozen does not */
        for (size_t k = 0; k < n; k++) {
            uint64_t taken = 0;
            b[k] = shard_of(&many, k);
            for (size_t i = 0; i < 2; i++) {
                for (size_t j = 0; j < f[i]->range->n_segments; j++) {
                    const struct lh_segment *seg = &f[i]->range->segments[j];
                    const size_t at = seg->lo - f[i]->range->lo;
                    if (n == 1 && i == 1 && j == 0)
                        assert_err(lh_shard_set_version(b[k], 5, taken), LH_EMISMATCH, "missing");
                    struct lh_rows rows = {.name = seg->name,
                                           .row = seg->row,
                                           .rows = seg->rows,
                                           .cols = seg->cols,
                                           .updates = f[i]->updates[j],
                                           .w = f[i]->w + at,
                                           .m = seg->trained ? f[i]->m + at : NULL,
                                           .v = seg->trained ? f[i]->v + at : NULL,
                                           .target = f[i]->target ? f[i]->target + at : NULL};
                    assert_ok(lh_shard_load(b[k], &rows, &taken));
                    rows.cols++;
                    if (n == 1)
                        assert_err(lh_shard_load(b[k], &rows, &taken), LH_EMISMATCH, seg->name);
                }
            }
            assert_ok(lh_shard_set_version(b[k], 5, taken));
        }
        steps(b, n, 5, 11);
        gather(a, 2, w[0], t[0]);
        gather(b, n, w[1], t[1]);
        assert_memory_equal(w[0], w[1], sizeof w[0]);
        assert_memory_equal(t[0], t[1], sizeof t[0]);
        for (size_t i = 0; i < 2; i++) {
            lh_shard_thaw(a[i], f[i]);
            assert_ok(lh_shard_freeze(a[i], &f[i]));
            assert_int_equal(f[i]->version, 11);
            lh_shard_thaw(a[i], f[i]);
            lh_shard_destroy(&a[i]);
        }
        for (size_t k = 0; k < n; k++)
            lh_shard_destroy(&b[k]);
        lh_layout_fini(&one);
        lh_layout_fini(&many);
    }
}

static void a_warm_step_allocates_nothing(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float start[FLAT];
    initial(start);
    lh_shard_init(s, start);
    steps(&s, 1, 0, 2);
    uint64_t before = lh_mem_count();
    steps(&s, 1, 2, 12);
    assert_int_equal(lh_mem_count(), before);
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

static void create_senseless_spec_is_refused(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = NULL;
    const struct lh_shard_spec good = {&l.shards[0], 4, 0.9, 0.999, 1e-8, 0, false, false};
    struct lh_shard_spec spec = good;
    spec.leaves = 0;
    assert_err(lh_shard_create(&s, &spec), LH_ERANGE, "0 leaves");
    spec = good;
    spec.beta2 = 1;
    assert_err(lh_shard_create(&s, &spec), LH_ERANGE, "betas");
    spec = good;
    spec.epsilon = 0;
    assert_err(lh_shard_create(&s, &spec), LH_ERANGE, "epsilon");
    struct lh_segment *seg = &l.shards[0].segments[1], keep = *seg;
    seg->period = 0;
    assert_err(lh_shard_create(&s, &good), LH_ERANGE, "critic.0.weight: learning rate");
    *seg = keep;
    seg->learning_rate = NAN;
    assert_err(lh_shard_create(&s, &good), LH_ERANGE, "critic.0.weight: learning rate");
    *seg = keep;
    seg->tau = 1.5;
    assert_err(lh_shard_create(&s, &good), LH_ERANGE, "tau 1.5");
    *seg = keep;
    seg->lo = 3;
    assert_err(lh_shard_create(&s, &good), LH_ERANGE, "critic.0.weight: elements");
    *seg = keep;
    seg->rows = UINT64_MAX / 2;
    assert_err(lh_shard_create(&s, &good), LH_ERANGE, "critic.0.weight: elements");
    assert_null(s);
    lh_layout_fini(&l);
}

static void create_and_freeze_survive_every_failed_allocation(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    for (uint64_t n = 1;; n++) {
        struct lh_shard *s = NULL;
        struct lh_shard_spec spec = {&l.shards[0], LEAVES, 0.9, 0.999, 1e-8, METRICS, false, false};
        const struct lh_frozen *f = NULL;
        lh_mem_fail_at(n);
        int rc = lh_shard_create(&s, &spec);
        if (rc == 0)
            rc = lh_shard_freeze(s, &f);
        lh_mem_fail_at(0);
        if (s) {
            lh_shard_thaw(s, f);
            lh_shard_destroy(&s);
        }
        if (rc == 0) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
    lh_layout_fini(&l);
}

static void advance_without_memory_for_a_generation_can_be_called_again(void **state)
{
    (void)state;
    struct lh_layout l;
    layout(&l, 1);
    struct lh_shard *s = shard_of(&l, 0);
    float start[FLAT];
    void *token[2];
    initial(start);
    lh_shard_init(s, start);
    lh_shard_lend(s, 0, &token[0]);
    steps(&s, 1, 0, 1);
    lh_shard_lend(s, 0, &token[1]);
    for (uint32_t i = 0; i < LEAVES; i++)
        push_leaf(s, 1, i, 9);
    int applied = 1;
    for (uint64_t n = 1; n <= 4; n++) {
        lh_mem_fail_at(n);
        assert_err(lh_shard_advance(s, &applied, NULL), LH_ENOMEM, "memory");
        lh_mem_fail_at(0);
        assert_false(applied);
        assert_int_equal(lh_shard_version(s), 1);
    }
    assert_ok(lh_shard_advance(s, &applied, NULL));
    assert_true(applied);
    lh_shard_release(NULL, token[0]);
    lh_shard_release(NULL, token[1]);
    lh_shard_destroy(&s);
    lh_layout_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(advance_follows_an_independent_reference),
        kit_test(advance_any_number_of_shards_gives_the_same_bits),
        kit_test(advance_sums_metrics_in_the_same_tree),
        kit_test(push_wrong_or_late_changes_nothing),
        kit_test(advance_not_finite_gradient_is_named_and_nothing_applied),
        kit_test(lend_keeps_an_array_as_it_was),
        kit_test(weights_live_until_the_step_after_the_next),
        kit_test(release_on_other_threads_frees_once),
        kit_test(lend_targets_that_do_not_exist_is_null),
        kit_test(freeze_then_load_continues_with_the_same_bits),
        kit_test(a_warm_step_allocates_nothing),
        kit_test(create_senseless_spec_is_refused),
        kit_test(create_and_freeze_survive_every_failed_allocation),
        kit_test(advance_without_memory_for_a_generation_can_be_called_again),
    };
    return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
