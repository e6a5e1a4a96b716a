/* A training that is watched: what is scraped meanwhile by a stranger, and what is counted in the
 * end against the run's own report. */
#include "cluster/train.h"

#include "common/metrics.h"
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sum of a family over the series that begin so: `longhaul_steps_total{role="worker"`. */
static double sum_of(const char *page, const char *family, const char *labels)
{
    char begin[160];
    double sum = 0;
    size_t n = (size_t)snprintf(begin, sizeof begin, "\n%s{%s", family, labels);
    for (const char *at = page; (at = strstr(at, begin)); at += n)
        sum += strtod(strstr(at + n, "} ") + 2, NULL);
    return sum;
}

static double phase_of(const char *page, const char *role, const char *phase)
{
    char begin[160], end[64];
    double sum = 0;
    size_t n =
        (size_t)snprintf(begin, sizeof begin, "\nlonghaul_phase_seconds_total{role=\"%s\"", role);
    snprintf(end, sizeof end, "phase=\"%s\"} ", phase);
    for (const char *at = page; (at = strstr(at, begin)); at += n) {
        const char *mine = strstr(at, end);
        if (mine && mine < at + strcspn(at + 1, "\n"))
            sum += strtod(mine + strlen(end), NULL);
    }
    return sum;
}

static void counts_at_the_end_are_those_of_the_report(void **state)
{
    (void)state;
    enum { STEPS = 40 };
    trainkit_dataset();
    /* so that no transition is computed twice */
    struct lh_job *job = trainkit_job(STEPS, 10, "consistency: {takeover: false}\n");
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result r;
    char *page = NULL;
    size_t n;
    opt.workers = 2;
    opt.servers = 2;
    assert_ok(lh_metrics_open(&opt.metrics, NULL));
    assert_ok(lh_train(job, &opt, &r));
    assert_ok(lh_metrics_render(opt.metrics, &page, &n));
    scrapekit_check(page, NULL);
    assert_int_equal(r.steps, STEPS);
#define SCHEDULER "{role=\"scheduler\",node=\"0\"}"
    kit_assert_close(scrapekit_of(page, "longhaul_steps_total" SCHEDULER), STEPS, 0, "steps");
    kit_assert_close(scrapekit_of(page, "longhaul_version_steps" SCHEDULER), STEPS, 0, "version");
    kit_assert_close(scrapekit_of(page, "longhaul_job_steps" SCHEDULER), STEPS, 0, "job");
    kit_assert_close(scrapekit_of(page, "longhaul_checkpoints_total" SCHEDULER), 4, 0, "cuts");
    kit_assert_close(scrapekit_of(page, "longhaul_transitions_total" SCHEDULER),
                     (double)r.transitions, 0, "transitions");
    kit_assert_close(sum_of(page, "longhaul_transitions_total", "role=\"worker\""),
                     (double)r.transitions, 0, "transitions of workers");
    kit_assert_close(sum_of(page, "longhaul_steps_total", "role=\"server\""), 2 * STEPS, 0,
                     "steps of servers");
    kit_assert_close(sum_of(page, "longhaul_checkpoints_total", "role=\"server\""), 2 * 4, 0,
                     "parts of cuts");
    kit_assert_close(sum_of(page, "longhaul_step_seconds_count", "role=\"server\""), 2 * STEPS, 0,
                     "steps timed");
    kit_assert_close(sum_of(page, "longhaul_checkpoint_write_seconds_count", "role=\"server\""),
                     2 * 4, 0, "cuts timed");
    kit_assert_close(sum_of(page, "longhaul_network_receive_bytes_total", "role=\"worker\""),
                     (double)r.workers.bytes_in, 0, "bytes in");
    kit_assert_close(sum_of(page, "longhaul_network_transmit_bytes_total", "role=\"server\""),
                     (double)r.servers.bytes_out, 0, "bytes out");
    kit_assert_close(phase_of(page, "worker", "gather"), r.workers.gather, 1e-9, "gather");
    kit_assert_close(phase_of(page, "worker", "backward"), r.workers.backward, 1e-9, "backward");
    kit_assert_close(phase_of(page, "worker", "forward"), r.workers.compute - r.workers.backward,
                     1e-9, "forward");
    kit_assert_close(phase_of(page, "server", "optimise"), r.servers.optimise, 1e-9, "optimise");
    kit_assert_close(phase_of(page, "server", "reduce"), r.servers.reduce, 1e-9, "reduce");
    /* in step: nothing is stale but what came twice, and nobody was lost */
    assert_true(sum_of(page, "longhaul_pushes_total", "role=\"server\"") >= 2 * STEPS);
    kit_assert_close(sum_of(page, "longhaul_roles_lost_total", "role=\"scheduler\""), 0, 0, "lost");
    kit_assert_close(sum_of(page, "longhaul_roles_joined_total", "role=\"scheduler\""), 4, 0,
                     "joined");
    kit_assert_contains(page, "\nlonghaul_loss{role=\"scheduler\",node=\"0\",loss=\"");
    assert_true(sum_of(page, "longhaul_shard_elements", "role=\"server\"") > 0);
    lh_mem_free(page);
    lh_metrics_close(&opt.metrics);
    lh_job_destroy(&job);
}

struct training {
    struct lh_job *job;
    struct lh_train_options opt;
    struct lh_train_result result;
    struct lh_err err;
    atomic_bool ended;
};

static void *train(void *arg)
{
    struct training *t = arg;
    lh_err_save(&t->err, lh_train(t->job, &t->opt, &t->result));
    atomic_store(&t->ended, true);
    return NULL;
}

static void scrapes_of_a_running_job_never_go_back(void **state)
{
    (void)state;
    trainkit_dataset();
    struct training t = {.job = trainkit_job(600, 200, NULL),
                         .opt = trainkit_options(kit_path("run"))};
    pthread_t thread;
    unsigned pages = 0, moved = 0;
    double steps = 0;
    t.opt.workers = 2;
    t.opt.servers = 2;
    assert_ok(lh_metrics_open(&t.opt.metrics, "127.0.0.1:0"));
    assert_int_equal(pthread_create(&thread, NULL, train, &t), 0);
    char *last = scrapekit_get(lh_metrics_endpoint(t.opt.metrics), "/metrics");
    while (!atomic_load(&t.ended)) {
        char *page = scrapekit_get(lh_metrics_endpoint(t.opt.metrics), "/metrics");
        scrapekit_check(last, page);
        double now = sum_of(page, "longhaul_steps_total", "role=\"worker\"");
        moved += now > steps;
        steps = now;
        free(last);
        last = page;
        pages++;
    }
    pthread_join(thread, NULL);
    if (t.err.code != 0)
        fail_msg("%s", t.err.text);
    if (pages < 3 || moved < 3)
        fail_msg("%u pages, of which %u had moved", pages, moved);
    free(last);
    lh_metrics_close(&t.opt.metrics);
    lh_job_destroy(&t.job);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(counts_at_the_end_are_those_of_the_report),
        TEST(scrapes_of_a_running_job_never_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
