#include "worker/algo.h"

#include "tests/testkit.h"
#include "tests/unit/algo_jobs.h"

#include <stdio.h>
#include <string.h>

enum { B = 8 };

static struct lh_graph *declared(const struct lh_job *job, bool act)
{
    const struct lh_algo *a = lh_algo_find(job->algorithm);
    struct lh_graph *g = NULL;
    assert_non_null(a);
    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = B, .dims = job->dims}));
    assert_ok(act ? a->declare_act(g, job) : a->declare_train(g, job));
    assert_ok(lh_graph_compile(g));
    return g;
}

struct net {
    const char *name;
    size_t in, out;
    bool target;
};

/* Exactly these networks, as layers of weights [out, in] and biases. */
static void check_networks(const struct lh_graph *g, const struct net *nets, size_t n_nets)
{
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    assert_int_equal(n, n_nets * 6);
    for (size_t k = 0; k < n_nets; k++) {
        size_t width[4] = {nets[k].in, 6, 5, nets[k].out};
        for (int layer = 0; layer < 3; layer++) {
            for (int bias = 0; bias < 2; bias++) {
                char name[64];
                size_t i = 0;
                snprintf(name, sizeof name, "%s.%d.%s", nets[k].name, layer,
                         bias ? "bias" : "weight");
                while (i < n && strcmp(p[i].name, name))
                    i++;
                if (i == n)
                    fail_msg("no tensor %s", name);
                assert_int_equal(p[i].rows, bias ? 1 : width[layer + 1]);
                assert_int_equal(p[i].cols, bias ? width[layer + 1] : width[layer]);
                assert_int_equal(p[i].has_target, nets[k].target);
            }
        }
    }
}

static void check_metrics(const struct lh_graph *g, const char *expected)
{
    char all[256] = "";
    for (size_t i = 0; i < lh_graph_metrics(g); i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? " " : "",
                 lh_graph_metric_name(g, i));
    assert_string_equal(all, expected);
}

enum { S = JOB_HIGH + JOB_LOW, A = JOB_ACTION, C = JOB_LATENT };

static const struct net resact_nets[] = {
    {"cvae.encoder", S + A, 2 * C, false}, {"cvae.decoder", S + C, A, true},
    {"actor.high", JOB_HIGH, 6, true},     {"actor.low", JOB_LOW, 2, true},
    {"actor.sub", 3 + 2 + A, A, true},     {"critic.1", S + A, 1, true},
    {"critic.2", S + A, 1, true},          {"reward", 3, JOB_CLASSES, false}};

static void train_resact_has_the_networks_and_losses_of_algorithm_1(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    struct lh_graph *g = declared(&job, false);
    check_networks(g, resact_nets, 8);
    check_metrics(g, "rec kl td1 td2 j exp con q y residual action");
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        assert_true(p[i].trained);
    lh_graph_destroy(&g);
}

static void train_resact_ablations_drop_what_they_name(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    struct net nets[8];
    memcpy(nets, resact_nets, sizeof nets);
    job.cvae = false;
    nets[1].in = S;
    struct lh_graph *g = declared(&job, false);
    check_networks(g, nets + 1, 7);
    check_metrics(g, "rec td1 td2 j exp con q y residual action");
    lh_graph_destroy(&g);

    job = job_small("resact");
    job.weight_exp = job.weight_con = 0;
    g = declared(&job, false);
    check_networks(g, resact_nets, 8);
    check_metrics(g, "rec kl td1 td2 j exp con q y residual action");
    size_t n;
    const struct lh_param *p = lh_graph_params(g, &n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p[i].trained, strncmp(p[i].name, "reward.", 7) != 0);
    lh_graph_destroy(&g);

    job = job_small("resact");
    job.dims.classes = 0;
    nets[1].in = S + C;
    nets[7].out = 2; /* mean and log standard deviation */
    g = declared(&job, false);
    check_networks(g, nets, 8);
    lh_graph_destroy(&g);
}

static void train_imitation_is_the_reconstructor_alone(void **state)
{
    (void)state;
    struct lh_job job = job_small("il");
    struct lh_graph *g = declared(&job, false);
    check_networks(g, &(struct net){"cvae.decoder", S, A, false}, 1);
    check_metrics(g, "rec action");
    lh_graph_destroy(&g);
    job = job_small("il_cvae");
    struct net nets[] = {resact_nets[0], resact_nets[1]};
    nets[1].target = false;
    g = declared(&job, false);
    check_networks(g, nets, 2);
    check_metrics(g, "rec kl action");
    lh_graph_destroy(&g);
}

static void act_uses_decoder_actor_and_first_critic_only(void **state)
{
    (void)state;
    struct lh_job job = job_small("resact");
    struct lh_graph *g = declared(&job, true);
    struct net nets[5];
    memcpy(nets, resact_nets + 1, sizeof nets);
    for (size_t i = 0; i < 5; i++)
        nets[i].target = false;
    check_networks(g, nets, 5);
    struct lh_exec *e = NULL;
    assert_ok(lh_exec_create(&e, g));
    static const struct {
        const char *name;
        size_t rows, cols;
    } outputs[] = {{"action", B, A},
                   {"candidates", 4 * B, A},
                   {"reconstructed", 4 * B, A},
                   {"residual", 4 * B, A},
                   {"q", 4 * B, 1}};
    for (size_t i = 0; i < 5; i++) {
        size_t rows, cols;
        assert_non_null(lh_exec_output(e, outputs[i].name, &rows, &cols));
        assert_int_equal(rows, outputs[i].rows);
        assert_int_equal(cols, outputs[i].cols);
    }
    assert_null(lh_exec_input(e, LH_ACTION));
    lh_exec_destroy(&e);
    lh_graph_destroy(&g);
    assert_int_equal(lh_algo_resact.act_noise(&job), 4 * C);
    job.cvae = false;
    assert_int_equal(lh_algo_resact.act_noise(&job), 0);
    g = declared(&job, true);
    lh_graph_destroy(&g);
}

static void groups_cover_every_parameter_with_its_rate(void **state)
{
    (void)state;
    for (const struct lh_algo *const *a = lh_algo_all(); *a; a++) {
        struct lh_job job = job_small((*a)->name);
        struct lh_algo_group groups[LH_ALGO_GROUPS_MAX];
        size_t n_groups = (*a)->groups(&job, groups), n;
        struct lh_graph *g = declared(&job, false);
        const struct lh_param *p = lh_graph_params(g, &n);
        for (size_t i = 0; i < n; i++) {
            size_t k = 0;
            while (k < n_groups &&
                   strncmp(groups[k].pattern, p[i].name, strlen(groups[k].pattern) - 1))
                k++;
            assert_true(k < n_groups);
            double rate = p[i].name[0] == 'a'   ? 1
                          : p[i].name[0] == 'r' ? 4
                          : p[i].name[1] == 'r' ? 2
                                                : 3;
            assert_true(groups[k].learning_rate == rate);
            assert_int_equal(groups[k].period, p[i].name[0] == 'a' ? 3 : 1);
            assert_true(!p[i].has_target ||
                        (groups[k].tau == 0.01 && groups[k].target_period == 2));
        }
        lh_graph_destroy(&g);
    }
}

/* Rows that only a target reads are not pushed (worker/worker_tables.c). */
static void tables_learn_from_states_and_only_targets_read_next_ones(void **state)
{
    (void)state;
    static const char *const names[] = {"il", "il_cvae", "resact"};
    for (size_t k = 0; k < 3; k++) {
        const struct lh_job job = job_small(names[k]);
        struct lh_graph_spec spec = {.rows = B,
                                     .dims = job.dims,
                                     .tables = {{"user", 2, 1, true}, {"item", 3, 2, false}},
                                     .n_tables = 2};
        struct lh_graph *g = NULL;
        struct lh_exec *e = NULL;
        assert_ok(lh_graph_create(&g, &spec));
        assert_ok(lh_algo_find(names[k])->declare_train(g, &job));
        assert_ok(lh_graph_compile(g));
        assert_ok(lh_exec_create(&e, g));
        for (size_t t = 0; t < 2; t++) {
            assert_non_null(lh_exec_table_grad(e, t));
            assert_true(lh_exec_table_learns(e, t, false));
            assert_false(lh_exec_table_learns(e, t, true));
            assert_int_equal(lh_exec_table_index(e, t, true) != NULL, k == 2);
        }
        lh_exec_destroy(&e);
        lh_graph_destroy(&g);
    }
}

static void find_unknown_name_is_null(void **state)
{
    (void)state;
    assert_null(lh_algo_find("resac"));
    assert_ptr_equal(lh_algo_find("il_cvae"), &lh_algo_il_cvae);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(train_resact_has_the_networks_and_losses_of_algorithm_1),
        kit_test(train_resact_ablations_drop_what_they_name),
        kit_test(train_imitation_is_the_reconstructor_alone),
        kit_test(act_uses_decoder_actor_and_first_critic_only),
        kit_test(groups_cover_every_parameter_with_its_rate),
        kit_test(tables_learn_from_states_and_only_targets_read_next_ones),
        kit_test(find_unknown_name_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
