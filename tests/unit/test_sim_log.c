#include "worker/sim_log.h"

#include "common/fs.h"
#include "tests/testkit.h"
#include "worker/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lh_sim *world(void)
{
    struct lh_sim_config c;
    struct lh_sim *s = NULL;
    lh_sim_config_default(&c);
    c.world_seed = 5;
    assert_ok(lh_sim_create(&s, &c));
    return s;
}

static struct lh_sim_log small(unsigned threads)
{
    struct lh_sim_log log;
    lh_sim_log_default(&log);
    log.users = 300;
    log.sessions = 4;
    log.threads = threads;
    return log;
}

static void csv_any_threads_same_bytes(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    for (int gzip = 0; gzip < 2; gzip++) {
        struct lh_sim_log one = small(1), three = small(3);
        one.gzip = three.gzip = gzip;
        one.files = three.files = 2;
        one.replace = three.replace = true;
        struct lh_sim_log_info a, b;
        assert_ok(lh_sim_log_csv(s, &one, kit_path("one"), &a));
        assert_ok(lh_sim_log_csv(s, &three, kit_path("three"), &b));
        assert_memory_equal(&a, &b, sizeof a);
        char *out = NULL;
        assert_int_equal(kit_run(&out, "diff -r %s %s", kit_path("one"), kit_path("three")), 0);
        free(out);
        out = NULL;
        assert_int_equal(kit_run(&out, "cat %s/log-0000?.csv%s | %s | wc -l", kit_path("one"),
                                 gzip ? ".gz" : "", gzip ? "zcat" : "cat"),
                         0);
        assert_int_equal(atol(out), (long)a.requests + 2); /* two files, a header line each */
        free(out);
    }
    lh_sim_destroy(&s);
}

/* Line `n` of a file, cut at commas. */
static size_t cells_of(char *line, char **cell, size_t max)
{
    size_t n = 0;
    for (char *p = line; n < max;) {
        cell[n++] = p;
        p = strpbrk(p, ",\n");
        if (!p || *p == '\n')
            break;
        *p++ = '\0';
    }
    return n;
}

/* The two formats tell the same: rows of the CSV are rows of the dataset, to the six decimals. */
static void csv_and_dataset_agree(void **state)
{
    (void)state;
    struct lh_sim *s = world(), *again = NULL;
    struct lh_sim_log log = small(2);
    log.test = log.validation = 0;
    assert_ok(lh_sim_log_csv(s, &log, kit_path("csv"), NULL));
    assert_ok(lh_sim_log_dataset(s, &log, kit_path("ds"), NULL));
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    assert_string_equal(lh_dataset_info(ds)->kind, "simulate");
    assert_int_equal(lh_sim_from_dataset(&again, ds), 0);
    assert_memory_equal(lh_sim_config_of(again), lh_sim_config_of(s), sizeof(struct lh_sim_config));

    enum { WIDE = LH_SIM_HIGH + LH_SIM_LOW + LH_SIM_ACTION, MORE = WIDE + 7 };
    uint64_t rows = lh_dataset_info(ds)->split[LH_TRAIN].rows, k = 0;
    /* Users are ordered otherwise in the dataset: find each row by its state of topics. */
    float *high = malloc(rows * LH_SIM_HIGH * sizeof *high);
    float *low = malloc(rows * LH_SIM_LOW * sizeof *low);
    float *action = malloc(rows * LH_SIM_ACTION * sizeof *action);
    float *reward = malloc(rows * sizeof *reward);
    uint64_t *number = malloc(rows * sizeof *number);
    assert_true(high && low && action && reward && number);
    for (k = 0; k < rows; k++)
        number[k] = k;
    struct lh_batch batch = {.high = high, .low = low, .action = action, .reward = reward};
    assert_ok(lh_dataset_gather(ds, LH_TRAIN, number, rows, NULL, &batch));

    FILE *f = fopen(kit_path("csv/log-00000.csv"), "r");
    assert_non_null(f);
    char line[4096], *cell[MORE];
    assert_non_null(fgets(line, sizeof line, f));
    kit_assert_contains(line, "user_id,session_id,time,request,gender_0");
    uint64_t seen = 0;
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(cells_of(line, cell, MORE), MORE);
        if (seen++ % 97)
            continue;
        double topic = atof(cell[4 + LH_SIM_HIGH]);
        for (k = 0; k < rows; k++)
            if (fabs((double)low[k * LH_SIM_LOW] - topic) < 1e-6 &&
                fabs((double)action[k * LH_SIM_ACTION] - atof(cell[4 + LH_SIM_HIGH + LH_SIM_LOW])) <
                    1e-6)
                break;
        assert_true(k < rows);
        for (size_t i = 0; i < LH_SIM_HIGH; i++)
            kit_assert_close((double)high[k * LH_SIM_HIGH + i], atof(cell[4 + i]), 1e-6, "high");
        for (size_t i = 0; i < LH_SIM_LOW; i++)
            kit_assert_close((double)low[k * LH_SIM_LOW + i], atof(cell[4 + LH_SIM_HIGH + i]), 1e-6,
                             "low");
        for (size_t i = 0; i < LH_SIM_ACTION; i++)
            kit_assert_close((double)action[k * LH_SIM_ACTION + i],
                             atof(cell[4 + LH_SIM_HIGH + LH_SIM_LOW + i]), 1e-6, "action");
        kit_assert_close((double)reward[k], atof(cell[4 + WIDE]), 1e-6, "reward");
        bool ends = cell[5 + WIDE][0] != '\0';
        assert_true(ends == (cell[6 + WIDE][0] != '\n'));
        assert_true(ends || reward[k] == 0);
    }
    assert_int_equal(seen, rows);
    fclose(f);
    free(high);
    free(low);
    free(action);
    free(reward);
    free(number);
    lh_dataset_close(&ds);
    lh_sim_destroy(&again);
    lh_sim_destroy(&s);
}

static void dataset_any_threads_same_bytes(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_log one = small(1), three = small(3);
    one.by_day = three.by_day = true;
    assert_ok(lh_sim_log_dataset(s, &one, kit_path("one"), NULL));
    assert_ok(lh_sim_log_dataset(s, &three, kit_path("three"), NULL));
    char *out = NULL;
    assert_int_equal(kit_run(&out, "diff -r %s %s", kit_path("one"), kit_path("three")), 0);
    free(out);
    three.seed = 2;
    three.replace = true;
    assert_ok(lh_sim_log_dataset(s, &three, kit_path("three"), NULL));
    assert_int_equal(kit_run(&out, "diff -rq %s %s", kit_path("one"), kit_path("three")), 1);
    free(out);
    lh_sim_destroy(&s);
}

static void dataset_splits_users_by_the_shares(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_log log = small(2);
    log.validation = 0.1;
    log.test = 0.2;
    struct lh_sim_log_info info;
    assert_ok(lh_sim_log_dataset(s, &log, kit_path("ds"), &info));
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    const struct lh_dataset_info *d = lh_dataset_info(ds);
    assert_int_equal(d->split[LH_TRAIN].users, 210);
    assert_int_equal(d->split[LH_VALIDATION].users, 30);
    assert_int_equal(d->split[LH_TEST].users, 60);
    assert_int_equal(d->split[0].rows + d->split[1].rows + d->split[2].rows, info.requests);
    /* A user is a trajectory that is cut off: its last row has no next state. */
    assert_int_equal(d->split[LH_TRAIN].rows - d->split[LH_TRAIN].transitions, 210);
    lh_dataset_close(&ds);
    lh_sim_destroy(&s);
}

/* The demo's schema is the one that a log of the default world comes with. */
static void csv_schema_is_the_recipes(void **state)
{
    (void)state;
    struct lh_sim_config c;
    struct lh_sim_log log;
    struct lh_sim *s = NULL;
    lh_sim_config_default(&c);
    assert_ok(lh_sim_create(&s, &c));
    lh_sim_log_default(&log);
    log.users = 2;
    assert_ok(lh_sim_log_csv(s, &log, kit_path("log"), NULL));
    char *recipe = kit_read(LH_SOURCE_DIR "/scripts/recipes/demo/schema.yaml", NULL);
    char *mine = kit_read(kit_path("log/schema.yaml"), NULL);
    assert_string_equal(recipe, mine);
    free(recipe);
    free(mine);
    lh_sim_destroy(&s);
}

static bool stop_at_64(void *ctx, uint64_t users)
{
    (void)ctx;
    return users >= 64;
}

static void log_refuses_and_leaves_nothing(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_log log = small(2);
    log.users = 0;
    assert_err(lh_sim_log_csv(s, &log, kit_path("x"), NULL), LH_ERANGE, "0 users");
    log = small(2);
    log.validation = 0.5;
    log.test = 0.5;
    assert_err(lh_sim_log_dataset(s, &log, kit_path("x"), NULL), LH_ERANGE, "none for training");
    log = small(2);
    log.files = 301;
    assert_err(lh_sim_log_csv(s, &log, kit_path("x"), NULL), LH_ERANGE, "301 files");
    log = small(2);
    log.progress = stop_at_64;
    assert_err(lh_sim_log_csv(s, &log, kit_path("x"), NULL), LH_ECANCELED, "interrupted");
    assert_err(lh_sim_log_dataset(s, &log, kit_path("x"), NULL), LH_ECANCELED, "interrupted");
    char *out = NULL;
    assert_int_equal(kit_run(&out, "ls -A %s | wc -l", kit_dir()), 0);
    assert_int_equal(atoi(out), 0);
    free(out);
    log = small(1);
    assert_int_equal(kit_run(&out, "mkdir %s && touch %s/mine", kit_path("x"), kit_path("x")), 0);
    free(out);
    assert_err(lh_sim_log_csv(s, &log, kit_path("x"), NULL), LH_EEXIST, "x");
    log.replace = true; /* still not ours to remove */
    assert_err(lh_sim_log_csv(s, &log, kit_path("x"), NULL), LH_EEXIST, "x");
    assert_true(lh_fs_exists(kit_path("x/mine")));
    lh_sim_destroy(&s);
}

static void csv_survives_failed_allocations(void **state)
{
    (void)state;
    struct lh_sim *s = world();
    struct lh_sim_log log = small(2);
    log.gzip = log.replace = true;
    int rc = LH_ENOMEM;
    for (uint64_t n = 1; rc == LH_ENOMEM; n++) {
        lh_mem_fail_at(n);
        rc = lh_sim_log_csv(s, &log, kit_path("x"), NULL);
        lh_mem_fail_at(0);
        /* All or nothing. */
        assert_true(lh_fs_exists(kit_path("x")) == lh_fs_exists(kit_path("x/world.json")));
    }
    assert_ok(rc);
    lh_sim_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(csv_any_threads_same_bytes),      kit_test(csv_and_dataset_agree),
        kit_test(dataset_any_threads_same_bytes),  kit_test(dataset_splits_users_by_the_shares),
        kit_test(csv_schema_is_the_recipes),       kit_test(log_refuses_and_leaves_nothing),
        kit_test(csv_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
