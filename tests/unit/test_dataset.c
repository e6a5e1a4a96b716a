#include "common/dataset.h"
#include "common/fs.h"
#include "common/partition.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_US INT64_C(86400000000)

enum { H = 3, L = 2, A = 2, I = 2 };
static const char *const high_names[H] = {"h0", "h1", "h2"};
static const char *const low_names[L] = {"l0", "l1"};
static const char *const action_names[A] = {"a0", "a1"};
static const char *const id_names[I] = {"i0", "i1"};

static struct lh_dataset_spec spec_of(uint32_t hashes, bool by_day)
{
    return (struct lh_dataset_spec){
        .dims = {.high = H, .low = L, .action = A, .ids = I},
        .high_names = high_names,
        .low_names = low_names,
        .action_names = action_names,
        .id_names = id_names,
        .hash_partitions = hashes,
        .by_day = by_day,
        .kind = "import",
        .origin_json = "{\"x\": [1, 2.5]}",
        .memory_limit = 1 << 20,
        .threads = 2,
    };
}

/* A generated trajectory: values are functions of (user, id, row), so that readers can be checked
 * without keeping what was written. */
struct made {
    struct lh_trajectory t;
    float high[40 * H], low[40 * L], action[40 * A], reward[40];
    int64_t time[40];
    uint32_t session[40];
    uint64_t ids[40 * I];
};

static float value(uint64_t user, uint64_t id, size_t row, size_t column)
{
    struct lh_rng_at at = {.seed = user, .part = (uint32_t)column, .step = id};
    return (float)lh_rng_uniform1(&at, row) * 8 - 4;
}

static void make(struct made *m, enum lh_split split, uint64_t user, uint64_t id, size_t n,
                 bool ends, int64_t start, int64_t step)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < H; c++)
            m->high[i * H + c] = value(user, id, i, c);
        for (size_t c = 0; c < L; c++)
            m->low[i * L + c] = value(user, id, i, 10 + c);
        for (size_t c = 0; c < A; c++)
            m->action[i * A + c] = value(user, id, i, 20 + c);
        m->reward[i] = (float)((user + i) % 4);
        m->time[i] = start + (int64_t)i * step;
        m->session[i] = (uint32_t)(i / 3);
        m->ids[i * I] = i ? UINT64_MAX - user - i : LH_ID_NONE; /* all 64 bits */
        m->ids[i * I + 1] = (user << 8) + id;
    }
    m->t = (struct lh_trajectory){.split = split,
                                  .user = user,
                                  .id = id,
                                  .ends = ends,
                                  .n = n,
                                  .high = m->high,
                                  .low = m->low,
                                  .action = m->action,
                                  .reward = m->reward,
                                  .time_us = m->time,
                                  .session = m->session,
                                  .ids = m->ids};
}

enum { USERS = 60 };

/* Trajectory k of the sample: several a user, some over midnight, some cut off. */
static void make_sample(struct made *m, size_t k)
{
    uint64_t user = k % USERS * 7919;
    enum lh_split split = user % 10 == 0 ? LH_TEST : user % 10 == 1 ? LH_VALIDATION : LH_TRAIN;
    make(m, split, user, k, 1 + k % 37, k % 3 != 0,
         17455 * DAY_US + (int64_t)(k * 1237 % 50) * 3600000000, 1800000000 + (int64_t)k);
}

enum { SAMPLE = 180 };

static void write_sample(const char *dir, const struct lh_dataset_spec *spec, bool backwards)
{
    struct lh_dataset_writer *w = NULL;
    struct made m;
    assert_ok(lh_dataset_writer_open(&w, dir, spec));
    for (size_t k = 0; k < SAMPLE; k++) {
        make_sample(&m, backwards ? SAMPLE - 1 - k : k);
        assert_ok(lh_dataset_writer_add(w, &m.t));
    }
    assert_ok(lh_dataset_writer_commit(&w));
    assert_null(w);
}

static struct lh_dataset *open_sample(const char *dir, const struct lh_dataset_spec *spec)
{
    struct lh_dataset *ds = NULL;
    write_sample(dir, spec, false);
    assert_ok(lh_dataset_open(&ds, dir));
    return ds;
}

static void gather1(const struct lh_dataset *ds, enum lh_split s, uint64_t row, float *high,
                    float *low, float *action, float *reward, float *not_done, float *class,
                    float *nh, float *nl)
{
    struct lh_batch b = {.high = high,
                         .low = low,
                         .action = action,
                         .reward = reward,
                         .not_done = not_done,
                         .reward_class = class,
                         .next_high = nh,
                         .next_low = nl};
    assert_ok(lh_dataset_gather(ds, s, &row, 1, NULL, &b));
}

/* Walks every row of a dataset and checks it against the generator. */
static void check_rows(const struct lh_dataset *ds, bool by_day)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    struct made m;
    size_t seen = 0, expected = 0, transitions = 0;
    for (size_t k = 0; k < SAMPLE; k++)
        expected += 1 + k % 37;
    for (int s = 0; s < LH_SPLITS; s++) {
        uint64_t rows = info->split[s].rows, next_transition = 0;
        for (uint64_t row = 0; row < rows; row++, seen++) {
            struct lh_row_info r;
            float high[H], low[L], action[A], reward, not_done, class, nh[H], nl[L];
            assert_ok(lh_dataset_row_info(ds, (enum lh_split)s, row, &r));
            gather1(ds, (enum lh_split)s, row, high, low, action, &reward, &not_done, &class, nh,
                    nl);
            uint64_t ids[I], next_ids[I];
            struct lh_batch b = {.ids = ids, .next_ids = next_ids};
            assert_ok(lh_dataset_gather(ds, (enum lh_split)s, &row, 1, NULL, &b));
            make_sample(&m, r.trajectory);
            size_t i = 0;
            while (i < m.t.n && m.time[i] != r.time_us)
                i++;
            assert_true(i < m.t.n);
            assert_int_equal(r.user, m.t.user);
            assert_int_equal(s, m.t.split);
            assert_int_equal(r.session, m.session[i]);
            assert_int_equal(r.first, i == 0);
            assert_int_equal(r.last, i + 1 == m.t.n);
            assert_int_equal(r.ends, i + 1 == m.t.n && m.t.ends);
            assert_int_equal(r.has_next, i + 1 < m.t.n);
            assert_memory_equal(high, m.high + i * H, sizeof high);
            assert_memory_equal(low, m.low + i * L, sizeof low);
            assert_memory_equal(action, m.action + i * A, sizeof action);
            assert_true(reward == m.reward[i]);
            assert_true(class == reward); /* values 0, 1, 2, 3 */
            assert_true(not_done == (r.has_next ? 1.0f : 0.0f));
            static const float zeros[H];
            assert_memory_equal(nh, r.has_next ? m.high + (i + 1) * H : zeros, sizeof nh);
            assert_memory_equal(nl, r.has_next ? m.low + (i + 1) * L : zeros, sizeof nl);
            static const uint64_t none[I] = {LH_ID_NONE, LH_ID_NONE};
            assert_memory_equal(ids, m.ids + i * I, sizeof ids);
            assert_memory_equal(next_ids, r.has_next ? m.ids + (i + 1) * I : none, sizeof ids);
            if (r.has_next || r.ends) {
                assert_int_equal(lh_dataset_transition_row(ds, (enum lh_split)s, next_transition),
                                 row);
                next_transition++;
            }
            /* within a partition the next row is the next in time */
            if (!by_day && r.has_next) {
                struct lh_row_info after;
                assert_ok(lh_dataset_row_info(ds, (enum lh_split)s, row + 1, &after));
                assert_int_equal(after.trajectory, r.trajectory);
            }
        }
        assert_int_equal(next_transition, info->split[s].transitions);
        transitions += next_transition;
    }
    assert_int_equal(seen, expected);
    assert_true(transitions < expected);
}

static void open_after_commit_gives_every_row_back(void **state)
{
    (void)state;
    static const struct {
        uint32_t hashes;
        bool by_day;
        uint64_t memory;
    } cases[] = {{1, false, 1 << 20}, {4, false, 0}, {3, true, 1 << 20}, {2, true, 40000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[600];
        snprintf(dir, sizeof dir, "%s/made/ds%zu", kit_dir(), i);
        struct lh_dataset_spec spec = spec_of(cases[i].hashes, cases[i].by_day);
        spec.memory_limit = cases[i].memory;
        struct lh_dataset *ds = open_sample(dir, &spec);
        check_rows(ds, cases[i].by_day);
        const struct lh_dataset_info *info = lh_dataset_info(ds);
        assert_int_equal(info->split[LH_TRAIN].users + info->split[LH_VALIDATION].users +
                             info->split[LH_TEST].users,
                         USERS);
        assert_int_equal(info->split[LH_TRAIN].trajectories +
                             info->split[LH_VALIDATION].trajectories +
                             info->split[LH_TEST].trajectories,
                         SAMPLE);
        assert_int_equal(info->first_day, 17455);
        assert_true(info->last_day > 17455);
        assert_string_equal(info->low_names[1], "l1");
        assert_string_equal(info->id_names[1], "i1");
        assert_string_equal(info->kind, "import");
        kit_assert_contains(lh_dataset_manifest(ds), "\"origin\"");
        lh_dataset_close(&ds);
    }
}

static void commit_leaves_the_same_bytes_for_any_order_memory_and_threads(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(3, true);
    write_sample(kit_path("a"), &spec, false);
    spec.memory_limit = 1;
    spec.threads = 1;
    write_sample(kit_path("b"), &spec, true);
    assert_int_equal(kit_run(NULL, "diff -r %s %s", kit_path("a"), kit_path("b")), 0);
    assert_int_equal(kit_run(NULL, "ls -a %s | grep -E 'partial|spool|lock'", kit_dir()), 1);
}

struct adder {
    struct lh_dataset_writer *w;
    size_t first;
};

static void *add_some(void *arg)
{
    const struct adder *a = arg;
    struct made m;
    for (size_t k = a->first; k < SAMPLE; k += 4) {
        make_sample(&m, k);
        if (lh_dataset_writer_add(a->w, &m.t) != 0)
            return arg;
    }
    return NULL;
}

static void add_from_four_threads_is_like_from_one(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(2, true);
    write_sample(kit_path("one"), &spec, false);
    struct lh_dataset_writer *w = NULL;
    spec.memory_limit = 30000;
    assert_ok(lh_dataset_writer_open(&w, kit_path("four"), &spec));
    pthread_t id[4];
    struct adder a[4];
    for (size_t i = 0; i < 4; i++) {
        a[i] = (struct adder){w, i};
        assert_int_equal(pthread_create(&id[i], NULL, add_some, &a[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *failed;
        pthread_join(id[i], &failed);
        assert_null(failed);
    }
    assert_ok(lh_dataset_writer_commit(&w));
    assert_int_equal(kit_run(NULL, "diff -r %s %s", kit_path("one"), kit_path("four")), 0);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void statistics_are_those_of_the_training_rows(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(3, true);
    struct lh_dataset *ds = open_sample(kit_path("ds"), &spec);
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    size_t n = 0;
    float *x = malloc(SAMPLE * 40 * sizeof *x);
    double sum = 0, square = 0;
    struct made m;
    for (size_t k = 0; k < SAMPLE; k++) {
        make_sample(&m, k);
        for (size_t i = 0; m.t.split == LH_TRAIN && i < m.t.n; i++)
            x[n++] = m.action[i * A + 1];
    }
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - sum / n) * ((double)x[i] - sum / n);
    qsort(x, n, sizeof *x, compare_floats);
    const struct lh_column_stats *s = &info->action_stats[1];
    assert_int_equal(info->split[LH_TRAIN].rows, n);
    kit_assert_close(s->mean, sum / n, 1e-12, "mean");
    kit_assert_close(s->std, sqrt(square / n), 1e-12, "std");
    assert_true(s->min == (double)x[0] && s->max == (double)x[n - 1]);
    assert_true(s->q001 == (double)x[(n + 999) / 1000 - 1]);
    assert_true(s->q25 == (double)x[(n * 250 + 999) / 1000 - 1]);
    assert_true(s->q50 == (double)x[(n * 500 + 999) / 1000 - 1]);
    assert_true(s->q75 == (double)x[(n * 750 + 999) / 1000 - 1]);
    assert_true(s->q999 == (double)x[(n * 999 + 999) / 1000 - 1]);
    const struct lh_norm *norm = lh_dataset_norm(ds);
    assert_true(norm->action_lo[1] == (float)s->q001 && norm->action_hi[1] == (float)s->q999);
    /* normalised: the quantiles lie at -1 and 1 */
    kit_assert_close((double)((norm->action_hi[1] - norm->action_shift[1]) * norm->action_scale[1]),
                     1, 1e-6, "upper");
    float raw[A], scaled[A];
    uint64_t row = 0;
    struct lh_batch b = {.action = raw};
    assert_ok(lh_dataset_gather(ds, LH_TRAIN, &row, 1, NULL, &b));
    b.action = scaled;
    assert_ok(lh_dataset_gather(ds, LH_TRAIN, &row, 1, norm, &b));
    assert_true(scaled[1] == (raw[1] - norm->action_shift[1]) * norm->action_scale[1]);
    free(x);
    lh_dataset_close(&ds);
}

static void constant_column_is_not_scaled(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    struct lh_dataset_writer *w = NULL;
    struct made m;
    assert_ok(lh_dataset_writer_open(&w, kit_path("ds"), &spec));
    for (uint64_t u = 0; u < 7; u++) {
        make(&m, LH_TRAIN, u, u, 9, true, 0, 1);
        for (size_t i = 0; i < 9; i++) {
            m.high[i * H] = 0.1f;
            m.action[i * A] = -3;
        }
        assert_ok(lh_dataset_writer_add(w, &m.t));
    }
    assert_ok(lh_dataset_writer_commit(&w));
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    const struct lh_norm *n = lh_dataset_norm(ds);
    assert_true(n->high_scale[0] == 1 && n->high_shift[0] == 0.1f);
    assert_true(n->action_scale[0] == 1 && n->action_shift[0] == -3);
    assert_true(lh_dataset_info(ds)->high_stats[0].std == 0);
    assert_true(n->high_scale[1] != 1);
    lh_dataset_close(&ds);
}

static void rewards_become_classes_of_the_training_values(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    struct lh_dataset_writer *w = NULL;
    struct made m;
    assert_ok(lh_dataset_writer_open(&w, kit_path("ds"), &spec));
    make(&m, LH_TRAIN, 1, 1, 3, true, 0, 1);
    m.reward[0] = 5;
    m.reward[1] = -0.0f;
    m.reward[2] = 0.5f;
    assert_ok(lh_dataset_writer_add(w, &m.t));
    make(&m, LH_TEST, 2, 2, 4, true, 0, 1);
    m.reward[0] = 9;     /* nearest is 5 */
    m.reward[1] = 0.25f; /* between 0 and 0.5: the lower */
    m.reward[2] = 0.3f;
    m.reward[3] = -7;
    assert_ok(lh_dataset_writer_add(w, &m.t));
    assert_ok(lh_dataset_writer_commit(&w));
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    assert_int_equal(info->dims.classes, 3);
    assert_true(info->reward_values[0] == 0 && info->reward_values[1] == 0.5f &&
                info->reward_values[2] == 5);
    static const float train[] = {2, 0, 1}, test[] = {2, 0, 1, 0};
    for (uint64_t i = 0; i < 4; i++) {
        float class;
        struct lh_batch b = {.reward_class = &class};
        assert_ok(lh_dataset_gather(ds, LH_TEST, &i, 1, NULL, &b));
        assert_true(class == test[i]);
        if (i < 3) {
            assert_ok(lh_dataset_gather(ds, LH_TRAIN, &i, 1, NULL, &b));
            assert_true(class == train[i]);
        }
    }
    lh_dataset_close(&ds);
}

static void more_than_32_rewards_are_no_classes(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    for (int extra = 0; extra < 2; extra++) {
        const char *dir = kit_path(extra ? "many" : "just");
        struct lh_dataset_writer *w = NULL;
        struct made m;
        assert_ok(lh_dataset_writer_open(&w, dir, &spec));
        make(&m, LH_TRAIN, 1, 1, (size_t)32 + extra, true, 0, 1);
        for (int i = 0; i < 33; i++)
            m.reward[i] = (float)-i;
        assert_ok(lh_dataset_writer_add(w, &m.t));
        assert_ok(lh_dataset_writer_commit(&w));
        struct lh_dataset *ds = NULL;
        assert_ok(lh_dataset_open(&ds, dir));
        assert_int_equal(lh_dataset_info(ds)->dims.classes, extra ? 0 : 32);
        lh_dataset_close(&ds);
    }
}

static void add_with_bad_values_is_refused(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    struct lh_dataset_writer *w = NULL;
    struct made m;
    assert_ok(lh_dataset_writer_open(&w, kit_path("ds"), &spec));
    make(&m, LH_TRAIN, 1, 1, 5, true, 0, 1);
    m.low[3 * L + 1] = NAN;
    assert_err(lh_dataset_writer_add(w, &m.t), LH_ERANGE, "row 3 of its trajectory: state_low l1");
    make(&m, LH_TRAIN, 1, 1, 5, true, 0, 1);
    m.reward[4] = INFINITY;
    assert_err(lh_dataset_writer_add(w, &m.t), LH_ERANGE, "reward is inf");
    make(&m, LH_TRAIN, 1, 1, 5, true, 100, -1);
    assert_err(lh_dataset_writer_add(w, &m.t), LH_ERANGE, "backwards");
    lh_dataset_writer_abort(&w);
    assert_false(lh_fs_exists(kit_path("ds")));
    assert_int_equal(kit_run(NULL, "ls %s | grep partial", kit_dir()), 1);
}

static void gather_of_a_row_that_is_none_is_refused(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(2, false);
    struct lh_dataset *ds = open_sample(kit_path("ds"), &spec);
    uint64_t row = lh_dataset_info(ds)->split[LH_TEST].rows;
    float r;
    struct lh_batch b = {.reward = &r};
    struct lh_row_info info;
    assert_err(lh_dataset_gather(ds, LH_TEST, &row, 1, NULL, &b), LH_ERANGE, "test split");
    assert_err(lh_dataset_row_info(ds, LH_TEST, row, &info), LH_ERANGE, "test split");
    lh_dataset_close(&ds);
}

static void gather_does_not_allocate(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(2, true);
    struct lh_dataset *ds = open_sample(kit_path("ds"), &spec);
    uint64_t rows[50];
    float high[50 * H], nh[50 * H], reward[50];
    for (uint64_t i = 0; i < 50; i++)
        rows[i] = lh_dataset_transition_row(ds, LH_TRAIN, i * 5);
    struct lh_batch b = {.high = high, .next_high = nh, .reward = reward};
    uint64_t before = lh_mem_count();
    assert_ok(lh_dataset_gather(ds, LH_TRAIN, rows, 50, lh_dataset_norm(ds), &b));
    assert_int_equal(lh_mem_count(), before);
    lh_dataset_close(&ds);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 4, f);
    fclose(f);
}

static void flipped_bit_is_found_where_it_is_touched(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    struct lh_dataset *ds = open_sample(kit_path("ds"), &spec);
    uint64_t rows = lh_dataset_info(ds)->split[LH_TRAIN].rows;
    const struct lh_partition *p = lh_dataset_partition(ds, LH_TRAIN, 0, NULL, NULL);
    assert_null(lh_dataset_partition(ds, LH_TRAIN, 1, NULL, NULL));
    const char *base = lh_partition_row(p, LH_PART_HIGH, 0);
    const char *reward = lh_partition_row(p, LH_PART_REWARD, 0);
    long distance = reward - base;
    lh_dataset_close(&ds);

    const char *path = kit_path("ds/train/day-0/part-000.lhp");
    size_t n;
    char *bytes = kit_read(path, &n);
    uint32_t header;
    memcpy(&header, bytes + 12, 4);
    free(bytes);
    flip(path, (long)header + distance + 40);
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    float high[H], r;
    uint64_t row = rows - 1;
    struct lh_batch b = {.high = high};
    assert_ok(lh_dataset_gather(ds, LH_TRAIN, &row, 1, NULL, &b));
    b = (struct lh_batch){.reward = &r};
    assert_err(lh_dataset_gather(ds, LH_TRAIN, &row, 1, NULL, &b), LH_ECORRUPT,
               "train/day-0/part-000.lhp: block 0 of column reward");
    lh_dataset_close(&ds);
    flip(path, (long)header + distance + 40);

    flip(path, 130); /* header */
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_ECORRUPT, "header is damaged");
    flip(path, 130);
    assert_int_equal(kit_run(NULL, "truncate -s -1 %s", path), 0);
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_EFORMAT, "cut short");
    assert_null(ds);
}

static void changed_manifest_is_refused(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    write_sample(kit_path("ds"), &spec, false);
    struct lh_dataset *ds = NULL;
    const char *m = kit_path("ds/manifest.json");
    assert_int_equal(kit_run(NULL, "sed -i 's/\"h1\"/\"h9\"/' %s", m), 0);
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_ECORRUPT, "digest");
    assert_int_equal(
        kit_run(NULL, "sed -i 's/\"h9\"/\"h1\"/; s/\"version\":.*/\"version\": 2,/' %s", m), 0);
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_EFORMAT, "newer longhaul");
    kit_write(m, "{\"format\": \"longhaul-dataset\", \"version\": 1, \"kind\": 3}");
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_EFORMAT, "'kind'");
    kit_write(m, "[1, 2");
    assert_err(lh_dataset_open(&ds, kit_path("ds")), LH_EFORMAT, "not valid JSON");
    assert_err(lh_dataset_open(&ds, kit_path("none")), LH_ENOENT, "longhaul import");
}

static void writer_does_not_touch_what_is_there(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    struct lh_dataset_writer *w = NULL;
    lh_fs_mkdirs(kit_path("precious"));
    kit_write(kit_path("precious/thesis.txt"), "x");
    assert_err(lh_dataset_writer_open(&w, kit_path("precious"), &spec), LH_EEXIST, "precious");
    spec.replace = true;
    assert_err(lh_dataset_writer_open(&w, kit_path("precious"), &spec), LH_EEXIST,
               "has no manifest.json");
    assert_true(lh_fs_exists(kit_path("precious/thesis.txt")));
    spec.replace = false;
    write_sample(kit_path("ds"), &spec, false);
    assert_err(lh_dataset_writer_open(&w, kit_path("ds/"), &spec), LH_EEXIST, "ds");
    spec.replace = true;
    spec.hash_partitions = 2;
    write_sample(kit_path("ds"), &spec, false);
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    assert_int_equal(lh_dataset_info(ds)->split[LH_TRAIN].partitions, 2);
    lh_dataset_close(&ds);
    assert_int_equal(kit_run(NULL, "ls %s | grep partial", kit_dir()), 1);
}

static void partial_of_a_dead_process_is_removed(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, false);
    lh_fs_mkdirs(kit_path("ds.partial-4194305")); /* above every process id */
    lh_fs_mkdirs(kit_path("ds.partial-7/train"));
    kit_write(kit_path("ds.partial-7/.lock"), "");
    write_sample(kit_path("ds"), &spec, false);
    assert_int_equal(kit_run(NULL, "ls %s | grep partial", kit_dir()), 1);
}

static void empty_dataset_opens(void **state)
{
    (void)state;
    struct lh_dataset_spec spec = spec_of(1, true);
    struct lh_dataset_writer *w = NULL;
    struct lh_dataset *ds = NULL;
    assert_ok(lh_dataset_writer_open(&w, kit_path("ds"), &spec));
    assert_ok(lh_dataset_writer_commit(&w));
    assert_ok(lh_dataset_open(&ds, kit_path("ds")));
    assert_int_equal(lh_dataset_info(ds)->split[LH_TRAIN].rows, 0);
    assert_int_equal(lh_dataset_info(ds)->dims.classes, 0);
    lh_dataset_close(&ds);
}

static int write_and_open(const char *dir)
{
    struct lh_dataset_spec spec = spec_of(2, true);
    struct lh_dataset_writer *w = NULL;
    struct lh_dataset *ds = NULL;
    struct made m;
    spec.threads = 1;
    int rc = lh_dataset_writer_open(&w, dir, &spec);
    for (size_t k = 0; k < 6 && rc == 0; k++) {
        make_sample(&m, k);
        rc = lh_dataset_writer_add(w, &m.t);
    }
    if (rc == 0)
        rc = lh_dataset_writer_commit(&w);
    else
        lh_dataset_writer_abort(&w);
    if (rc == 0)
        rc = lh_dataset_open(&ds, dir);
    lh_dataset_close(&ds);
    return rc;
}

static void write_and_open_survive_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        char dir[600];
        snprintf(dir, sizeof dir, "%s/ds%llu", kit_dir(), (unsigned long long)n);
        lh_mem_fail_at(n);
        int rc = write_and_open(dir);
        lh_mem_fail_at(0);
        if (rc == 0) {
            assert_true(n > 50);
            return;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(open_after_commit_gives_every_row_back),
        kit_test(commit_leaves_the_same_bytes_for_any_order_memory_and_threads),
        kit_test(add_from_four_threads_is_like_from_one),
        kit_test(statistics_are_those_of_the_training_rows),
        kit_test(constant_column_is_not_scaled),
        kit_test(rewards_become_classes_of_the_training_values),
        kit_test(more_than_32_rewards_are_no_classes),
        kit_test(add_with_bad_values_is_refused),
        kit_test(gather_of_a_row_that_is_none_is_refused),
        kit_test(gather_does_not_allocate),
        kit_test(flipped_bit_is_found_where_it_is_touched),
        kit_test(changed_manifest_is_refused),
        kit_test(writer_does_not_touch_what_is_there),
        kit_test(partial_of_a_dead_process_is_removed),
        kit_test(empty_dataset_opens),
        kit_test(write_and_open_survive_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
