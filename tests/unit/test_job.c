#include "common/job.h"
#include "common/job_table.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lh_job *load(const char *text)
{
    struct lh_job *job = NULL;
    assert_ok(lh_job_load_text(&job, text, strlen(text), "t.yaml", NULL));
    return job;
}

static void empty_job_has_the_papers_defaults(void **state)
{
    (void)state;
    struct lh_job *j = load("");
    assert_string_equal(j->algorithm, "resact");
    assert_null(j->dataset);
    assert_int_equal(j->n_hidden, 2);
    assert_int_equal(j->hidden[1], 256);
    assert_int_equal(j->batch, 4096);
    assert_int_equal(j->micro_batch, 256);
    assert_int_equal(j->estimators, 20);
    assert_true(j->lr_actor == 5e-6 && j->lr_critic == 5e-5);
    assert_true(j->gamma == 0.9 && j->tau == 1e-2 && j->epochs == 5);
    assert_true(j->weight_exp == 5e-2 && j->weight_con == 5e-1);
    assert_true(j->normalise && j->cvae);
    assert_string_equal(j->behaviour, "auto");
    lh_job_destroy(&j);
    assert_null(j);
}

static void complaints_name_line_key_and_cure(void **state)
{
    (void)state;
    static const struct {
        const char *text, *complaint;
    } cases[] = {
        {"sed: 1\n", "t.yaml:1: sed: unknown key; did you mean 'seed'?"},
        {"train:\n  batchs: 3\n", "t.yaml:2: train.batchs: unknown key; did you mean 'batch'?"},
        {"train: 7\n", "t.yaml:1: train: expected a mapping"},
        {"train:\n  batch: 0\n", "t.yaml:2: train.batch: 0 is outside 1 to"},
        {"train:\n  micro_batch: 100\n", "not a power of two; take 64 or 128"},
        {"train:\n  batch: 128\n  micro_batch: 256\n",
         "t.yaml:2: train.batch: a batch of 128 is smaller"},
        {"algorithm: resac\n", "t.yaml:1: algorithm: 'resac' is not one of: resact"},
        {"network:\n  hidden: 256\n", "t.yaml:2: network.hidden: expected a list"},
        {"network:\n  hidden: []\n", "0 hidden layers; 1 to 8"},
        {"network:\n  hidden: [1,1,1,1,1,1,1,1,1]\n", "9 hidden layers"},
        {"network:\n  hidden: [256, x]\n", "network.hidden[1]: 'x' is not a whole number"},
        {"objective:\n  log_std_lo: 20\n", "20 is not below"},
        {"objective:\n  gamma: 1.5\n", "1.5 is outside 0 to 1"},
        {"cluster:\n  deadline_seconds: 1\n", "two heartbeats"},
        {"dataset: \"\"\n", "an empty path"},
        {"resolved:\n  dataset_digest: xyz\n", "hexadecimal"},
        {"resolved:\n  high: 2\n", "t.yaml:1: resolved: has no width of an action"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lh_job *job = NULL;
        assert_err(lh_job_load_text(&job, cases[i].text, strlen(cases[i].text), "t.yaml", NULL),
                   LH_ECONFIG, cases[i].complaint);
        assert_null(job);
    }
}

static void print_and_load_give_the_same_job(void **state)
{
    (void)state;
    struct lh_job *a =
        load("name: \"a \\\"b\\\" \\\\ c: d # e\"\nseed: 9007199254740993\n"
             "dataset: /x/y z\nalgorithm: il\nnetwork: {hidden: [8, 16, 4]}\n"
             "objective: {gamma: 0.1, bound: none, residual_scale: 0.30000000000000004}\n"
             "train: {normalise: false, sampling: uniform}\n");
    assert_ok(lh_job_resolve(a, &(struct lh_dims){.high = 3, .low = 4, .action = 5, .classes = 6},
                             0xfedcba9876543210u));
    char *first = NULL, *second = NULL;
    assert_ok(lh_job_print(a, &first));
    struct lh_job *b = load(first);
    assert_ok(lh_job_print(b, &second));
    assert_string_equal(first, second);
    assert_string_equal(b->name, "a \"b\" \\ c: d # e");
    assert_true(b->seed == 9007199254740993u && b->residual_scale == 0.30000000000000004);
    assert_int_equal(b->n_hidden, 3);
    assert_int_equal(b->hidden[2], 4);
    assert_int_equal(b->dims.action, 5);
    assert_true(b->dataset_digest == 0xfedcba9876543210u);
    assert_true(lh_job_digest(a) == lh_job_digest(b));
    lh_mem_free(first);
    lh_mem_free(second);
    lh_job_destroy(&a);
    lh_job_destroy(&b);
}

static void digest_follows_what_determines_the_weights(void **state)
{
    (void)state;
    struct lh_job *base = load("");
    static const struct {
        const char *text, *difference; /* "": the digests are the same */
    } cases[] = {
        {"seed: 2\n", "seed is 1, not 2"},
        {"train: {batch: 8192}\n", "train.batch is 4096, not 8192"},
        {"objective: {gamma: 0.91}\n", "objective.gamma is 0.9, not 0.91"},
        {"network: {hidden: [256, 257]}\n", "network.hidden is [256, 256], not [256, 257]"},
        {"network: {hidden: [256]}\n", "network.hidden is [256, 256], not [256]"},
        {"optimiser: {tau: 0.02}\n", "optimiser.tau is 0.01, not 0.02"},
        {"name: other\n", ""},
        {"dataset: elsewhere\n", ""},
        {"train: {epochs: 7}\n", ""},
        {"train: {steps: 7}\n", ""},
        {"evaluation: {ncis_cap: 3}\n", ""},
        {"checkpoint: {every: 3}\n", ""},
        {"cluster: {deadline_seconds: 30}\n", ""},
    };
    char how[100];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lh_job *other = load(cases[i].text);
        if ((lh_job_digest(base) == lh_job_digest(other)) != !cases[i].difference[0])
            fail_msg("digest of '%s'", cases[i].text);
        lh_job_difference(base, other, how, sizeof how);
        assert_string_equal(how, cases[i].difference);
        lh_job_destroy(&other);
    }
    uint64_t before = lh_job_digest(base);
    assert_ok(
        lh_job_resolve(base, &(struct lh_dims){.high = 1, .low = 1, .action = 1, .classes = 0}, 7));
    assert_true(lh_job_digest(base) != before);
    lh_job_destroy(&base);
}

static void paths_are_relative_to_the_file_or_to_the_shell(void **state)
{
    (void)state;
    struct lh_job *j = NULL;
    kit_write(kit_path("job.yaml"), "dataset: ./data\nevaluation:\n  behaviour: auto\n");
    assert_ok(lh_job_load(&j, kit_path("job.yaml"), NULL, 0));
    char *real = realpath(kit_dir(), NULL), expected[512], cwd[512];
    snprintf(expected, sizeof expected, "%s/data", real);
    free(real);
    assert_string_equal(j->dataset, expected);
    assert_string_equal(j->behaviour, "auto");
    lh_job_destroy(&j);
    const char *const sets[] = {"dataset=elsewhere", "train.batch=512"};
    assert_ok(lh_job_load(&j, kit_path("job.yaml"), sets, 2));
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(expected, sizeof expected, "%s/elsewhere", cwd);
    assert_string_equal(j->dataset, expected);
    assert_int_equal(j->batch, 512);
    lh_job_destroy(&j);
    kit_write(kit_path("job.yaml"), "dataset: ./\nevaluation:\n  behaviour: .//x\n");
    assert_ok(lh_job_load(&j, kit_path("job.yaml"), NULL, 0));
    real = realpath(kit_dir(), NULL);
    snprintf(expected, sizeof expected, "%s/./", real);
    assert_string_equal(j->dataset, expected);
    snprintf(expected, sizeof expected, "%s/.//x", real);
    assert_string_equal(j->behaviour, expected);
    free(real);
    lh_job_destroy(&j);
    const char *const bad[] = {"train.batchs=512"};
    assert_err(lh_job_load(&j, kit_path("job.yaml"), bad, 1), LH_ECONFIG, "--set train.batchs");
    kit_write(kit_path("job.yaml"), "seed: 3\n");
    assert_err(lh_job_load(&j, kit_path("job.yaml"), NULL, 0), LH_ECONFIG, "dataset is missing");
    assert_err(lh_job_load(&j, kit_path("none.yaml"), NULL, 0), LH_ENOENT, "none.yaml");
}

static void resolve_refuses_another_dataset(void **state)
{
    (void)state;
    struct lh_job *j = load("");
    const struct lh_dims d = {.high = 3, .low = 4, .action = 5, .classes = 0},
                         e = {.high = 3, .low = 4, .action = 6, .classes = 0};
    assert_ok(lh_job_resolve(j, &d, 11));
    assert_ok(lh_job_resolve(j, &d, 11));
    assert_err(lh_job_resolve(j, &e, 11), LH_EMISMATCH, "actions of 5");
    assert_err(lh_job_resolve(j, &d, 12), LH_EMISMATCH, "digest 000000000000000b");
    lh_job_destroy(&j);
}

static void total_steps_rounds_up_and_is_positive(void **state)
{
    (void)state;
    struct lh_job *j = load("train: {batch: 1000, micro_batch: 8, epochs: 2}\n");
    assert_int_equal(lh_job_total_steps(j, 10001), 21);
    assert_int_equal(lh_job_total_steps(j, 0), 1);
    j->steps = 5;
    assert_int_equal(lh_job_total_steps(j, 10001), 5);
    lh_job_destroy(&j);
}

static void micro_batch_left_out_lets_two_workers_share_any_batch(void **state)
{
    (void)state;
    static const size_t batches[][2] = {{1, 1},     {2, 1},     {7, 2},     {8, 4},     {256, 128},
                                        {300, 128}, {511, 128}, {512, 256}, {9999, 256}};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        char text[64];
        snprintf(text, sizeof text, "train: {batch: %zu}\n", batches[i][0]);
        struct lh_job *j = load(text);
        assert_int_equal(j->micro_batch, batches[i][1]);
        lh_job_destroy(&j);
    }
}

static void load_survives_every_failed_allocation(void **state)
{
    (void)state;
    kit_write(kit_path("job.yaml"), "dataset: d\nnetwork: {hidden: [8]}\nname: x\n");
    for (uint64_t n = 1;; n++) {
        struct lh_job *job = NULL;
        char *text = NULL;
        lh_mem_fail_at(n);
        int rc = lh_job_load(&job, kit_path("job.yaml"), NULL, 0);
        if (rc == 0)
            rc = lh_job_print(job, &text);
        lh_mem_fail_at(0);
        lh_job_destroy(&job);
        lh_mem_free(text);
        if (rc == 0) {
            assert_true(n > 8);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

static void help_documents_every_key_and_is_itself_a_job(void **state)
{
    (void)state;
    char *text = NULL;
    assert_ok(lh_job_help(&text));
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        char line[64];
        if (lh_job_keys[i].resolved)
            continue;
        snprintf(line, sizeof line, "\n%s%s: ", lh_job_keys[i].section ? "  " : "",
                 lh_job_keys[i].name);
        kit_assert_contains(text, line);
    }
    char *required = strstr(text, "(required)");
    assert_non_null(required);
    memcpy(required, "somewhere ", 10);
    struct lh_job *a = load(text), *b = load("");
    assert_true(lh_job_digest(a) == lh_job_digest(b));
    lh_job_destroy(&a);
    lh_job_destroy(&b);
    lh_mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(empty_job_has_the_papers_defaults),
        kit_test(complaints_name_line_key_and_cure),
        kit_test(print_and_load_give_the_same_job),
        kit_test(digest_follows_what_determines_the_weights),
        kit_test(paths_are_relative_to_the_file_or_to_the_shell),
        kit_test(resolve_refuses_another_dataset),
        kit_test(total_steps_rounds_up_and_is_positive),
        kit_test(micro_batch_left_out_lets_two_workers_share_any_batch),
        kit_test(load_survives_every_failed_allocation),
        kit_test(help_documents_every_key_and_is_itself_a_job),
    };
    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
