/* common/metrics: the page to the letter, and that writers and readers do not meet. */
#include "common/metrics.h"

#include "common/http.h"
#include "common/net.h"
#include "common/term.h"
#include "tests/scrapekit.h"
#include "tests/testkit.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *render(struct lh_metrics *m)
{
    char *text = NULL;
    size_t n = 0;
    assert_ok(lh_metrics_render(m, &text, &n));
    assert_int_equal(strlen(text), n);
    return text;
}

static struct lh_metrics_role *join(struct lh_metrics *m, unsigned role, uint32_t node)
{
    struct lh_metrics_role *r = NULL;
    assert_ok(lh_metrics_join(
        m, &(struct lh_metrics_who){.role = role, .node = node, .shard = node * 10}, &r));
    return r;
}

static void render_of_roles_is_exact(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    assert_ok(lh_metrics_open(&m, NULL));
    struct lh_metrics_role *w = join(m, LH_METRICS_WORKER, 3), *s = join(m, LH_METRICS_SERVER, 1);
    lh_metrics_add(w, LH_METRIC_STEPS, 2);
    lh_metrics_add(w, LH_METRIC_STEPS, 3);
    lh_metrics_set(s, LH_METRIC_STEPS, 0x1p53 - 1);
    lh_metrics_set_at(w, LH_METRIC_PHASE, LH_PHASE_WAIT, 0.125);
    lh_metrics_set_at(s, LH_METRIC_PHASE, LH_PHASE_OPTIMISE, 7);
    lh_metrics_set_net(s, &(struct lh_net_counts){.bytes_in = 12, .dropped = 1});
    char *text = render(m);
    kit_assert_contains(text, "\n# HELP longhaul_steps_total Steps since the role began: made, "
                              "taken part in, or heard of.\n"
                              "# TYPE longhaul_steps_total counter\n"
                              "longhaul_steps_total{role=\"worker\",node=\"3\"} 5\n"
                              "longhaul_steps_total{role=\"server\",node=\"1\",shard=\"10\"} "
                              "9007199254740991\n"
                              "# HELP ");
    kit_assert_contains(text,
                        "# TYPE longhaul_phase_seconds_total counter\n"
                        "longhaul_phase_seconds_total{role=\"worker\",node=\"3\",phase=\"wait\"} "
                        "0.125\n"
                        "longhaul_phase_seconds_total{role=\"server\",node=\"1\",shard=\"10\","
                        "phase=\"optimise\"} 7\n"
                        "# HELP ");
    kit_assert_contains(text, "\nlonghaul_build_info{version=\"" LH_VERSION "\"} 1\n");
    assert_float_equal(scrapekit_of(text, "longhaul_network_receive_bytes_total{role=\"server\","
                                          "node=\"1\",shard=\"10\"}"),
                       12, 0);
    scrapekit_check(text, NULL);
    lh_mem_free(text);
    lh_metrics_close(&m);
}

/* A role that says hello to another scheduler may have the same number again. */
static void role_that_left_and_joined_again_is_shown_once(void **state)
{
    (void)state;
    static const char *const series[] = {"longhaul_steps_total{role=\"worker\",node=\"3\"}",
                                         "longhaul_steps_total{role=\"worker\",node=\"4\"}",
                                         "longhaul_steps_total{role=\"worker\",node=\"5\"}"};
    struct lh_metrics *m = NULL;
    struct lh_metrics_role *r[3], *none = NULL;
    double x;
    assert_ok(lh_metrics_open(&m, NULL));
    for (uint32_t i = 0; i < 3; i++) {
        r[i] = join(m, LH_METRICS_WORKER, 3 + i);
        lh_metrics_add(r[i], LH_METRIC_STEPS, 10 + i);
    }
    lh_metrics_leave(m, &none);
    for (size_t i = 0; i < 3; i++) { /* the first, one in the middle, the last */
        const size_t k = i == 0 ? 1 : i == 1 ? 2 : 0;
        lh_metrics_leave(m, &r[k]);
        assert_null(r[k]);
        char *text = render(m);
        assert_false(scrapekit_value(text, series[k], &x));
        lh_mem_free(text);
        r[k] = join(m, LH_METRICS_WORKER, 3 + (uint32_t)k);
        text = render(m);
        scrapekit_check(text, NULL);
        assert_float_equal(scrapekit_of(text, series[k]), 0, 0);
        lh_mem_free(text);
    }
    lh_metrics_close(&m);
}

static void render_of_a_histogram_is_exact(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    assert_ok(lh_metrics_open(&m, NULL));
    struct lh_metrics_role *s = join(m, LH_METRICS_SERVER, 0);
    const double seen[] = {0, 0, 1, 3, 64, 65, 1e9};
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++)
        lh_metrics_observe(s, LH_METRIC_STALENESS, seen[i]);
    char *text = render(m);
#define SERIES(suffix, le)                                                                         \
    "longhaul_push_staleness_steps" suffix "{role=\"server\",node=\"0\",shard=\"0\"" le "} "
#define BUCKET(le) SERIES("_bucket", ",le=\"" le "\"")
    kit_assert_contains(text,
                        "# TYPE longhaul_push_staleness_steps histogram\n" BUCKET("0") "2\n" BUCKET("1") "3\n" BUCKET("2") "3\n" BUCKET("4") "4\n" BUCKET("8") "4\n" BUCKET(
                            "16") "4\n" BUCKET("32") "4\n" BUCKET("64") "5\n" BUCKET("+Inf") "7"
                                                                                             "\n" SERIES("_sum", "") "1000000133\n" SERIES(
                                                                                                 "_"
                                                                                                 "c"
                                                                                                 "o"
                                                                                                 "u"
                                                                                                 "n"
                                                                                                 "t",
                                                                                                 "") "7\n");
    scrapekit_check(text, NULL);
    lh_mem_free(text);
    lh_metrics_close(&m);
}

static void render_of_odd_names_and_values_is_escaped(void **state)
{
    (void)state;
    static const char *const losses[] = {"td1", "a\"b\\c\nd", "gone", "up", "down"};
    struct lh_metrics *m = NULL;
    struct lh_metrics_role *r = NULL;
    assert_ok(lh_metrics_open(&m, NULL));
    assert_ok(lh_metrics_join(
        m, &(struct lh_metrics_who){.role = LH_METRICS_SCHEDULER, .losses = losses, .n_losses = 5},
        &r));
    lh_metrics_set_at(r, LH_METRIC_LOSS, 0, 0.1);
    lh_metrics_set_at(r, LH_METRIC_LOSS, 1, NAN);
    lh_metrics_set_at(r, LH_METRIC_LOSS, 3, INFINITY);
    lh_metrics_set_at(r, LH_METRIC_LOSS, 4, -INFINITY);
    lh_metrics_set_at(r, LH_METRIC_LOSS, 5, 1); /* there is no sixth */
    char *text = render(m);
    kit_assert_contains(
        text, "# TYPE longhaul_loss gauge\n"
              "longhaul_loss{role=\"scheduler\",node=\"0\",loss=\"td1\"} 0.1\n"
              "longhaul_loss{role=\"scheduler\",node=\"0\",loss=\"a\\\"b\\\\c\\nd\"} NaN\n"
              "longhaul_loss{role=\"scheduler\",node=\"0\",loss=\"up\"} +Inf\n"
              "longhaul_loss{role=\"scheduler\",node=\"0\",loss=\"down\"} -Inf\n"
              "# HELP ");
    scrapekit_check(text, NULL);
    lh_mem_free(text);
    lh_metrics_close(&m);
}

static void value_never_set_or_not_of_the_role_is_not_shown(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    double x;
    assert_ok(lh_metrics_open(&m, NULL));
    struct lh_metrics_role *w = join(m, LH_METRICS_WORKER, 1),
                           *c = join(m, LH_METRICS_SCHEDULER, 0);
    lh_metrics_set(w, LH_METRIC_SHARD_SIZE, 5);
    lh_metrics_observe(w, LH_METRIC_STALENESS, 5);
    char *text = render(m);
    assert_null(strstr(text, "longhaul_shard_elements"));
    assert_null(strstr(text, "longhaul_push_staleness"));
    assert_null(strstr(text, "longhaul_best_value{"));
    assert_null(strstr(text, "longhaul_checkpoint_age_seconds{"));
    /* but a counter is there from the first scrape on */
    assert_true(scrapekit_value(
        text, "longhaul_roles_lost_total{role=\"scheduler\",node=\"0\",kind=\"worker\"}", &x));
    assert_float_equal(x, 0, 0);
    lh_mem_free(text);
    lh_metrics_set(c, LH_METRIC_CHECKPOINT_AGE, lh_now() - 100);
    text = render(m);
    x = scrapekit_of(text, "longhaul_checkpoint_age_seconds{role=\"scheduler\",node=\"0\"}");
    assert_true(x >= 100 && x < 200);
    lh_mem_free(text);
    lh_metrics_close(&m);
}

static void process_values_are_those_of_the_system(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    assert_ok(lh_metrics_open(&m, NULL));
    char *text = render(m);
    double started = scrapekit_of(text, "process_start_time_seconds"), now = (double)time(NULL);
    if (!(started <= now + 1 && started > now - 600))
        fail_msg("the process started at %f, now is %f", started, now);
    assert_true(scrapekit_of(text, "process_resident_memory_bytes") > 1e5);
    assert_true(scrapekit_of(text, "longhaul_resident_memory_peak_bytes") > 1e5);
    assert_true(scrapekit_of(text, "process_cpu_seconds_total") > 0);
    assert_true(scrapekit_of(text, "longhaul_allocations_live") > 0);
    lh_mem_free(text);
    lh_metrics_close(&m);
}

static void call_without_metrics_does_nothing(void **state)
{
    (void)state;
    struct lh_metrics_role *r = (void *)(uintptr_t)1;
    uint64_t before = lh_mem_count();
    assert_ok(lh_metrics_join(NULL, &(struct lh_metrics_who){.role = LH_METRICS_WORKER}, &r));
    assert_null(r);
    lh_metrics_add(r, LH_METRIC_STEPS, 1);
    lh_metrics_set_at(r, LH_METRIC_PHASE, LH_PHASE_WAIT, 1);
    lh_metrics_observe(r, LH_METRIC_STEP_TIME, 1);
    assert_string_equal(lh_metrics_endpoint(NULL), "");
    assert_int_equal(lh_mem_count(), before);
}

/* --- writers and readers at once ---------------------------------------------------------------
 */
enum { WRITERS = 3, ROUNDS = 20000 };

struct writer {
    struct lh_metrics *m;
    uint32_t node;
    atomic_int *ended;
};

static void *write_on(void *arg)
{
    const struct writer *w = arg;
    struct lh_metrics_role *r = NULL;
    if (lh_metrics_join(w->m, &(struct lh_metrics_who){.role = LH_METRICS_WORKER, .node = w->node},
                        &r) != 0)
        return NULL;
    for (int i = 0; i < ROUNDS; i++) {
        lh_metrics_add(r, LH_METRIC_STEPS, 1);
        lh_metrics_observe(r, LH_METRIC_STEP_TIME, (double)(i % 100) / 100);
        lh_metrics_set_at(r, LH_METRIC_PHASE, LH_PHASE_WAIT, (double)i);
    }
    atomic_fetch_add(w->ended, 1);
    return r;
}

static void render_beside_writers_never_goes_back(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    atomic_int ended = 0;
    struct writer w[WRITERS];
    pthread_t threads[WRITERS];
    assert_ok(lh_metrics_open(&m, NULL));
    for (uint32_t i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.m = m, .node = i + 1, .ended = &ended};
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &w[i]), 0);
    }
    char *last = render(m);
    size_t pages = 0;
    do {
        char *text = render(m);
        scrapekit_check(last, text);
        lh_mem_free(last);
        last = text;
        pages++;
    } while (atomic_load(&ended) < WRITERS);
    for (int i = 0; i < WRITERS; i++) {
        void *role = NULL;
        pthread_join(threads[i], &role);
        assert_non_null(role);
    }
    lh_mem_free(last);
    last = render(m);
    scrapekit_check(last, NULL);
    assert_true(pages > 0);
    for (int i = 1; i <= WRITERS; i++) {
        char series[96];
        snprintf(series, sizeof series, "longhaul_steps_total{role=\"worker\",node=\"%d\"}", i);
        assert_float_equal(scrapekit_of(last, series), ROUNDS, 0);
        snprintf(series, sizeof series, "longhaul_step_seconds_count{role=\"worker\",node=\"%d\"}",
                 i);
        assert_float_equal(scrapekit_of(last, series), ROUNDS, 0);
    }
    lh_mem_free(last);
    lh_metrics_close(&m);
}

/* --- serving -----------------------------------------------------------------------------------
 */
static void open_serves_the_page_at_a_free_port(void **state)
{
    (void)state;
    struct lh_metrics *m = NULL;
    assert_ok(lh_metrics_open(&m, "0"));
    kit_assert_contains(lh_metrics_endpoint(m), "127.0.0.1:");
    join(m, LH_METRICS_WORKER, 1);
    char *page = scrapekit_get(lh_metrics_endpoint(m), "/metrics");
    scrapekit_check(page, NULL);
    kit_assert_contains(page, "longhaul_pull_retries_total{role=\"worker\",node=\"1\"} 0\n");
    free(page);
    char *health = scrapekit_get(lh_metrics_endpoint(m), "/healthz");
    assert_string_equal(health, "ok\n");
    free(health);
    lh_metrics_close(&m);
    assert_err(lh_metrics_open(&m, "nowhere"), LH_ECONFIG, "nowhere");
    assert_null(m);
}

/* Debian's own judge, where it is installed (package prometheus). */
static void page_is_accepted_by_promtool(void **state)
{
    (void)state;
    static const char *const losses[] = {"td1", "a\"b\\c\nd"};
    struct lh_metrics *m = NULL;
    struct lh_metrics_role *r = NULL;
    if (system("command -v promtool >/dev/null 2>&1") != 0) {
        print_message("skipped: promtool is not installed (Debian's package prometheus)\n");
        skip();
    }
    assert_ok(lh_metrics_open(&m, NULL));
    for (unsigned role = LH_METRICS_WORKER; role <= LH_METRICS_SCHEDULER; role *= 2) {
        assert_ok(lh_metrics_join(
            m,
            &(struct lh_metrics_who){.role = role,
                                     .node = role,
                                     .losses = losses,
                                     .n_losses = role == LH_METRICS_SCHEDULER ? 2 : 0},
            &r));
        for (int i = 0; i < LH_METRIC_N; i++)
            lh_metrics_set(r, (enum lh_metric)i, 1.5);
    }
    char *text = render(m), command[4300];
    kit_write(kit_path("page"), text);
    snprintf(command, sizeof command, "promtool check metrics <%s >%s 2>&1", kit_path("page"),
             kit_path("says"));
    int status = system(command);
    if (status != 0) {
        snprintf(command, sizeof command, "cat %s", kit_path("says"));
        if (system(command) == 0)
            fail_msg("promtool check metrics ends with %d", status);
    }
    lh_mem_free(text);
    lh_metrics_close(&m);
}

/* --- what is declared --------------------------------------------------------------------------
 */
static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

static void family_names_follow_the_conventions(void **state)
{
    (void)state;
    for (int i = 0; i < LH_METRIC_N; i++) {
        const struct lh_metric_family *f = lh_metrics_family((enum lh_metric)i);
        for (const char *c = f->name; *c; c++)
            if (!islower((unsigned char)*c) && *c != '_')
                fail_msg("%s: small letters and _ only", f->name);
        if (strncmp(f->name, "longhaul_", 9) != 0 && strncmp(f->name, "process_", 8) != 0)
            fail_msg("%s: whose is it?", f->name);
        if (ends_with(f->name, "_total") != (f->kind == LH_METRIC_COUNTER))
            fail_msg("%s: counters, and they alone, end in _total", f->name);
        if (f->kind == LH_METRIC_SINCE && !ends_with(f->name, "_seconds"))
            fail_msg("%s: a time is in seconds", f->name);
        if (!ends_with(f->help, "."))
            fail_msg("%s: its help is no sentence", f->name);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(f->name, lh_metrics_family((enum lh_metric)j)->name);
    }
}

static const char *whose(unsigned roles)
{
    return roles == LH_METRICS_PROCESS     ? "process"
           : roles == LH_METRICS_WORKER    ? "worker"
           : roles == LH_METRICS_SERVER    ? "server"
           : roles == LH_METRICS_SCHEDULER ? "scheduler"
           : roles == LH_METRICS_TRAINING  ? "worker, scheduler"
           : roles == LH_METRICS_DURABLE   ? "server, scheduler"
                                           : "all";
}

/* cluster/OBSERVABILITY.md has a row a family, in this order, and no other. */
static void documentation_lists_every_family(void **state)
{
    (void)state;
    static const char *const kinds[] = {"counter", "gauge", "gauge", "histogram"};
    char line[512], want[512];
    FILE *f = fopen(LH_SOURCE_DIR "/cluster/OBSERVABILITY.md", "r");
    assert_non_null(f);
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "| `longhaul_", 12) != 0 && strncmp(line, "| `process_", 11) != 0)
            continue;
        if (n == LH_METRIC_N)
            fail_msg("a row too many: %s", line);
        const struct lh_metric_family *m = lh_metrics_family((enum lh_metric)n++);
        snprintf(want, sizeof want, "| `%s` | %s | %s | %s%s%s%s |\n", m->name, kinds[m->kind],
                 whose(m->roles), m->label ? "by `" : "", m->label ? m->label : "",
                 m->label ? "`: " : "", m->help);
        if (strcmp(line, want) != 0)
            fail_msg("OBSERVABILITY.md has\n%sbut the registry\n%s", line, want);
    }
    fclose(f);
    if (n != LH_METRIC_N)
        fail_msg("no row of %s", lh_metrics_family((enum lh_metric)n)->name);
}

static void open_and_render_out_of_memory_leave_nothing(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct lh_metrics *m = NULL;
        struct lh_metrics_role *r = NULL;
        char *text = NULL;
        size_t n;
        lh_mem_fail_at(nth);
        int rc = lh_metrics_open(&m, NULL);
        if (rc == 0)
            rc = lh_metrics_join(m, &(struct lh_metrics_who){.role = LH_METRICS_WORKER}, &r);
        if (rc == 0)
            rc = lh_metrics_render(m, &text, &n);
        lh_mem_fail_at(0);
        lh_mem_free(text);
        lh_metrics_close(&m);
        if (rc == 0)
            return;
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(render_of_roles_is_exact),
        TEST(role_that_left_and_joined_again_is_shown_once),
        TEST(render_of_a_histogram_is_exact),
        TEST(render_of_odd_names_and_values_is_escaped),
        TEST(value_never_set_or_not_of_the_role_is_not_shown),
        TEST(process_values_are_those_of_the_system),
        TEST(call_without_metrics_does_nothing),
        TEST(render_beside_writers_never_goes_back),
        TEST(open_serves_the_page_at_a_free_port),
        TEST(page_is_accepted_by_promtool),
        TEST(family_names_follow_the_conventions),
        TEST(documentation_lists_every_family),
        TEST(open_and_render_out_of_memory_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
