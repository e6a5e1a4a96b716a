#include "common/feature.h"
#include "common/rng.h"
#include "tests/testkit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define HOUR      INT64_C(3600000000)
#define ROWS      6
#define WIDTH_MAX 64

static const char *const genders[] = {"F", "M"};
static const struct lh_column columns[] = {
    {.name = "rating", .type = LH_COLUMN_NUMBER},
    {.name = "w_0", .type = LH_COLUMN_NUMBER},
    {.name = "w_1", .type = LH_COLUMN_NUMBER},
    {.name = "gender", .type = LH_COLUMN_CATEGORY, .values = genders, .n_values = 2},
    {.name = "kind", .type = LH_COLUMN_CATEGORY, .values = genders, .n_values = 2},
    {.name = "movie", .type = LH_COLUMN_ID},
    {.name = "user_id", .type = LH_COLUMN_ID},
};
#define N_COLUMNS (sizeof columns / sizeof *columns)

/* Three sessions of 2, 1 and 3 rows. */
static const int64_t times[] = {0, HOUR, 4 * HOUR, 5 * HOUR, 6 * HOUR, 7 * HOUR};
static const uint32_t sessions[] = {0, 0, 1, 2, 2, 2};
static const float rating[] = {1, 2, 3, 4, 5, 1};
static const float w0[] = {10, 20, NAN, 40, 50, 60}, w1[] = {-1, -2, -3, -4, -5, -6};
static const uint32_t gender[] = {0, 0, 0, 0, 0, 0};
static const uint32_t kind[] = {0, 1, 1, LH_CATEGORY_OTHER, 0, 1};
static const uint64_t movie[] = {7, 8, 9, 7, 8, 99};
static const uint64_t user_id[] = {1, 1, 1, 1, 1, 1};
static const float reward[] = {1, 0, -1, 2, 0, 3};
static const union lh_column_data data[] = {
    {.number = rating}, {.number = w0}, {.number = w1}, {.category = gender},
    {.category = kind}, {.id = movie},  {.id = user_id}};
static const struct lh_user_log user = {
    .user = 1, .split = LH_TRAIN, .n = ROWS, .time_us = times, .session = sessions, .column = data};

static int create(struct lh_feature_plan **p, const char *schema)
{
    struct lh_yaml *doc = NULL;
    assert_ok(lh_yaml_load_text(&doc, schema, strlen(schema), "s.yaml"));
    int rc = lh_feature_plan_create(p, lh_yaml_root(doc), columns, N_COLUMNS, kit_dir(), 1, 2);
    lh_yaml_destroy(&doc);
    return rc;
}

/* A plan whose low state is `items`. */
static int create_low(struct lh_feature_plan **p, const char *items)
{
    char text[4096];
    snprintf(
        text, sizeof text,
        "tables:\n"
        "  users: {file: users.csv, key: user_id, columns: {age: {type: number},\n"
        "          job: {type: category, values: [cook, poet]}}}\n"
        "  movies: {file: movies.csv, key: movie, file_key: id, columns: {genres: {type: set,\n"
        "           values: [Drama, War]}, year: {type: number}}}\n"
        "embeddings:\n"
        "  item: {key: movie, file: items.csv}\n"
        "reward: {map: {column: rating, values: {1: 1}, otherwise: 0}}\n"
        "action: [{column: w_1}]\n"
        "state_high: [{count: rows, name: h}]\n"
        "state_low: %s\n",
        items);
    kit_write(kit_path("users.csv"), "user_id,age,job\n1,25,poet\n2,30,cook\n");
    kit_write(kit_path("movies.csv"),
              "id,genres,year\n7,Drama|War,1990\n8,War,2000\n9,Comedy,1995\n");
    kit_write(kit_path("items.csv"), "id,e_0,e_1\n7,1,0.5\n8,-2,4\n9,3,0\n");
    return create(p, text);
}

static void apply(const struct lh_feature_plan *p, const struct lh_user_log *log, float *low,
                  unsigned char *keep)
{
    float high[ROWS], action[ROWS];
    memset(keep, 1, ROWS);
    assert_ok(lh_feature_plan_apply(p, log, reward, high, low, action, keep));
    for (size_t i = 0; i < log->n; i++)
        assert_true(high[i] == (float)i);
}

/* The low state is `items`, its columns are called `names`, its values row by row are `want`. */
static void expect(const char *items, const char *names, const float *want)
{
    struct lh_feature_plan *p = NULL;
    float low[ROWS * WIDTH_MAX];
    unsigned char keep[ROWS];
    char got[1024] = "";
    assert_ok(create_low(&p, items));
    struct lh_dims dims;
    lh_feature_plan_dims(p, &dims);
    assert_int_equal(dims.high, 1);
    assert_int_equal(dims.action, 1);
    for (uint32_t k = 0; k < dims.low; k++) {
        strcat(got, k ? " " : "");
        strcat(got, lh_feature_plan_names(p, 1)[k]);
    }
    assert_string_equal(got, names);
    apply(p, &user, low, keep);
    for (size_t i = 0; i < ROWS * dims.low; i++) {
        char where[256];
        snprintf(where, sizeof where, "%s: row %zu, column %zu", items, i / dims.low, i % dims.low);
        kit_assert_close((double)low[i], (double)want[i], 1e-6, where);
    }
    lh_feature_plan_destroy(&p);
}

static void apply_present_values_are_the_rows_own(void **state)
{
    (void)state;
    expect("[{column: w_0, missing: -1}]", "w_0", (float[]){10, 20, -1, 40, 50, 60});
    expect("[{column: w_0, missing: 0, log1p: true, at: session_start}]", "w_0@session_start",
           (float[]){logf(11), logf(11), 0, logf(41), logf(41), logf(41)});
    expect("[{one_hot: [gender, kind]}]", "gender=F gender=M kind=F kind=M",
           (float[]){1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1});
    expect("[{table: users}]", "users.age users.job=cook users.job=poet",
           (float[]){25, 0, 1, 25, 0, 1, 25, 0, 1, 25, 0, 1, 25, 0, 1, 25, 0, 1});
    expect("[{table: users.age, name: u}]", "u.age", (float[]){25, 25, 25, 25, 25, 25});
    /* an item that the table or the embedding does not know is zeros */
    expect("[{table: movies.genres}]", "movies.genres=Drama movies.genres=War",
           (float[]){1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0});
    expect("[{embedding: item}]", "item.0 item.1",
           (float[]){1, 0.5f, -2, 4, 3, 0, 1, 0.5f, -2, 4, 0, 0});
}

static void ids_are_those_of_the_row_or_of_one_before(void **state)
{
    (void)state;
    static const char *const base =
        "reward: {map: {column: rating, values: {1: 1}, otherwise: 0}}\n"
        "embeddings: {item: {key: movie, file: items.csv}}\n"
        "action: [{embedding: item}]\n"
        "state_high: [{count: rows}]\n"
        "state_low: [{count: sessions}]\n"
        "ids: ";
    static const struct {
        const char *ids, *sentence;
    } wrong[] = {
        {"[movie]", "is what the action is made of"},
        {"[rating]", "is no id"},
        {"[{back: 1}]", "names no column"},
        {"[user_id, {id: user_id}]", "is in the list already"},
        {"[moovie]", "did you mean 'movie'"},
        {"[{id: movie, back: -1}]", "back"},
    };
    char text[2048];
    struct lh_feature_plan *p = NULL;
    struct lh_dims dims;
    uint64_t ids[3 * ROWS];
    kit_write(kit_path("items.csv"), "id,e_0,e_1\n7,1,0.5\n8,-2,4\n9,3,0\n");
    snprintf(text, sizeof text, "%s%s\n", base,
             "[user_id, {id: movie, back: 1}, {id: movie, back: 4, name: x}]");
    assert_ok(create(&p, text));
    lh_feature_plan_dims(p, &dims);
    assert_int_equal(dims.ids, 3);
    assert_string_equal(lh_feature_plan_id_names(p)[0], "user_id");
    assert_string_equal(lh_feature_plan_id_names(p)[1], "movie.back1");
    assert_string_equal(lh_feature_plan_id_names(p)[2], "x");
    lh_feature_plan_ids(p, &user, ids);
    for (size_t i = 0; i < ROWS; i++) {
        assert_true(ids[3 * i] == 1);
        assert_true(ids[3 * i + 1] == (i ? movie[i - 1] : LH_ID_NONE));
        assert_true(ids[3 * i + 2] == (i >= 4 ? movie[i - 4] : LH_ID_NONE));
    }
    lh_feature_plan_destroy(&p);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, "%s%s\n", base, wrong[i].ids);
        assert_err(create(&p, text), LH_ECONFIG, wrong[i].sentence);
    }
}

static void apply_range_names_each_column(void **state)
{
    (void)state;
    struct lh_feature_plan *p = NULL;
    assert_ok(create(&p, "action: [{column: w_0..w_1, missing: 0}]\n"
                         "state_high: [{count: rows}]\nstate_low: [{count: rows}]\n"));
    struct lh_dims dims;
    lh_feature_plan_dims(p, &dims);
    assert_int_equal(dims.action, 2);
    assert_string_equal(lh_feature_plan_names(p, 2)[1], "w_1");
    lh_feature_plan_destroy(&p);
}

static void apply_means_and_sums_are_over_strictly_past_rows(void **state)
{
    (void)state;
    expect("[{mean: rating}]", "mean.rating", (float[]){0, 1, 1.5f, 2, 2.5f, 3});
    expect("[{mean: rating, last: 2, empty: 3}]", "mean.rating.last2",
           (float[]){3, 1, 1.5f, 2.5f, 3.5f, 4.5f});
    expect("[{mean: rating, at: session_start}]", "mean.rating@session_start",
           (float[]){0, 0, 1.5f, 2, 2, 2});
    expect("[{sum: rating, log1p: true}]", "sum.rating",
           (float[]){0, logf(2), logf(4), logf(7), logf(11), logf(16)});
    expect("[{mean: reward}]", "mean.reward", (float[]){0, 1, 0.5f, 0, 0.5f, 0.4f});
    /* row 2 lacks w_0: it does not count */
    expect("[{mean: w_0}]", "mean.w_0", (float[]){0, 10, 15, 15, 70 / 3.0f, 30});
    expect("[{sum: rating, weight: reward}]", "sum.rating.by.reward", (float[]){0, 1, 1, -2, 6, 6});
    expect("[{mean: rating, weight: w_1, last: 1}]", "mean.rating.last1.by.w_1",
           (float[]){0, -1, -4, -9, -16, -25});
}

static void apply_mean_of_vectors_takes_the_rows_that_have_one(void **state)
{
    (void)state;
    expect("[{mean: item}]", "mean.item.0 mean.item.1",
           (float[]){0, 0, 1, 0.5f, -0.5f, 2.25f, 2 / 3.0f, 1.5f, 0.75f, 1.25f, 0.2f, 1.8f});
    /* weighted: sum of reward times vector, by the number of vectors */
    expect("[{mean: item, last: 2, weight: reward}]",
           "mean.item.last2.by.reward.0 mean.item.last2.by.reward.1",
           (float[]){0, 0, 1, 0.5f, 0.5f, 0.25f, -1.5f, 0, -0.5f, 0.5f, 1, 0.5f});
    expect("[{mean: movies.genres}]", "mean.movies.genres=Drama mean.movies.genres=War",
           (float[]){0, 0, 1, 1, 0.5f, 1, 1 / 3.0f, 2 / 3.0f, 0.5f, 0.75f, 0.4f, 0.8f});
    expect("[{mean: movies.year}]", "mean.movies.year",
           (float[]){0, 1990, 1995, 1995, 1993.75f, 1995});
}

static void apply_rates_and_shares_count_past_rows(void **state)
{
    (void)state;
    expect("[{rate: rating, above: 2}]", "rate.rating.above2",
           (float[]){0, 0, 0, 1 / 3.0f, 0.5f, 0.6f});
    expect("[{rate: reward, last: 3, empty: 0.5}]", "rate.reward.last3.above0",
           (float[]){0.5f, 1, 0.5f, 1 / 3.0f, 1 / 3.0f, 1 / 3.0f});
    expect("[{share: kind}]", "share.kind=F share.kind=M",
           (float[]){0, 0, 1, 0, 0.5f, 0.5f, 1 / 3.0f, 2 / 3.0f, 0.25f, 0.5f, 0.4f, 0.4f});
    expect("[{share: kind, value: M, last: 2}]", "share.kind.last2=M",
           (float[]){0, 0, 0.5f, 1, 0.5f, 0});
}

static void apply_counts_and_times_tell_where_the_request_stands(void **state)
{
    (void)state;
    expect("[{count: [rows, sessions, session_rows]}]",
           "count.rows count.sessions count.session_rows",
           (float[]){0, 0, 0, 1, 0, 1, 2, 1, 0, 3, 2, 0, 4, 2, 1, 5, 2, 2});
    expect("[{count: rows, at: session_start, log1p: true}]", "count.rows@session_start",
           (float[]){0, 0, logf(3), logf(4), logf(4), logf(4)});
    expect("[{since: row, empty: -1}]", "since.row", (float[]){-1, 1, 3, 1, 1, 1});
    expect("[{since: session, unit: minutes}]", "since.session",
           (float[]){0, 0, 180, 60, 120, 180});
    expect("[{since: first, unit: days}]", "since.first",
           (float[]){0, 1 / 24.0f, 4 / 24.0f, 5 / 24.0f, 6 / 24.0f, 7 / 24.0f});
    expect("[{session_mean: [length, return_time]}]",
           "session_mean.length session_mean.return_time",
           (float[]){0, 0, 0, 0, 2, 3, 1.5f, 2, 1.5f, 2, 1.5f, 2});
    const float s = 0.5f, c = sqrtf(3) / 2; /* of 30 degrees: two hours of a day */
    expect("[{clock: hour, utc_offset: 1}]", "clock.hour.sin clock.hour.cos",
           (float[]){sinf(0.2617994f), cosf(0.2617994f), s, c, sinf(1.3089969f), cosf(1.3089969f),
                     1, 0, sinf(1.8325957f), cosf(1.8325957f), c, -s});
    const double thursday = 3.0 / 7 * 2 * 3.14159265358979;
    expect("[{clock: weekday, at: session_start}]",
           "clock.weekday@session_start.sin clock.weekday@session_start.cos",
           (float[]){(float)sin(thursday), (float)cos(thursday), (float)sin(thursday),
                     (float)cos(thursday), (float)sin(thursday + 0.149600),
                     (float)cos(thursday + 0.149600), (float)sin(thursday + 0.186999),
                     (float)cos(thursday + 0.186999), (float)sin(thursday + 0.186999),
                     (float)cos(thursday + 0.186999), (float)sin(thursday + 0.186999),
                     (float)cos(thursday + 0.186999)});
}

static void apply_overlapping_sessions_give_no_negative_time(void **state)
{
    (void)state;
    static const int64_t back[] = {5 * HOUR, 5 * HOUR, 2 * HOUR, 2 * HOUR, 3 * HOUR, 3 * HOUR};
    struct lh_user_log log = user;
    log.time_us = back;
    struct lh_feature_plan *p = NULL;
    float low[ROWS * 4];
    unsigned char keep[ROWS];
    assert_ok(create_low(&p, "[{since: [row, session, first]}, {session_mean: return_time}]"));
    apply(p, &log, low, keep);
    for (int i = 0; i < ROWS * 4; i++)
        assert_true(low[i] >= 0);
    assert_true(low[2 * 4 + 3] == 1 / 3600.0f); /* a gap is a second at least */
    lh_feature_plan_destroy(&p);
}

static void apply_missing_drop_drops_the_row_only(void **state)
{
    (void)state;
    struct lh_feature_plan *p = NULL;
    float low[ROWS * 2];
    unsigned char keep[ROWS];
    assert_ok(
        create_low(&p, "[{column: w_0, missing: drop}, {table: movies.year, missing: drop}]"));
    apply(p, &user, low, keep);
    assert_memory_equal(keep, ((unsigned char[]){1, 1, 0, 1, 1, 0}), ROWS);
    lh_feature_plan_destroy(&p);
}

static void apply_refuses_missing_and_infinite_values(void **state)
{
    (void)state;
    struct lh_feature_plan *p = NULL;
    float high[ROWS], low[ROWS], action[ROWS];
    unsigned char keep[ROWS];
    assert_ok(create_low(&p, "[{column: w_0}]"));
    assert_err(lh_feature_plan_apply(p, &user, reward, high, low, action, keep), LH_ERANGE,
               "feature 'w_0': a value is missing (row 3 of a user)");
    lh_feature_plan_destroy(&p);
    static const float huge[] = {3e38f, 3e38f, 3e38f, 1, 1, 1};
    union lh_column_data d[N_COLUMNS];
    memcpy(d, data, sizeof d);
    d[0].number = huge;
    struct lh_user_log log = user;
    log.column = d;
    assert_ok(create_low(&p, "[{sum: rating}]"));
    assert_err(lh_feature_plan_apply(p, &log, reward, high, low, action, keep), LH_ERANGE,
               "feature 'sum.rating' is inf in row 3 of a user");
    lh_feature_plan_destroy(&p);
}

/* Everything that looks at the past, in every manner. */
static const char *const history =
    "[{mean: [rating, w_0, gender, kind, reward, users, movies, item]},\n"
    " {mean: [rating, item], last: 2, weight: reward}, {mean: item, weight: reward},\n"
    " {sum: [rating, movies], log1p: true}, {rate: [rating, w_0]}, {share: kind, last: 3},\n"
    " {mean: [rating, item], at: session_start}, {sum: reward, at: session_start, last: 1},\n"
    " {count: [rows, sessions, session_rows]}, {since: [row, session, first]},\n"
    " {session_mean: [length, return_time]}, {clock: [hour, weekday]}]";

/* Row i's features may depend on rows before i and on the time and session of row i only. */
static void apply_nothing_later_changes_a_feature(void **state)
{
    (void)state;
    enum { n = 24 };
    struct lh_feature_plan *p = NULL;
    assert_ok(create_low(&p, history));
    struct lh_dims dims;
    lh_feature_plan_dims(p, &dims);
    assert_true(dims.low <= WIDTH_MAX);
    struct rows {
        int64_t t[n];
        uint32_t s[n], g[n], k[n];
        float rating[n], w0[n], w1[n], reward[n];
        uint64_t movie[n], user[n];
    } a, b;
    static float high[n], action[n], low_a[n * WIDTH_MAX], low_b[n * WIDTH_MAX];
    unsigned char keep[n];
    struct lh_rng_at at = {.seed = 3};
    for (size_t cut = 0; cut < n; cut++) {
        for (size_t i = 0; i < 2 * n; i++) { /* b is a up to cut, and other rows from there */
            size_t j = i % n;
            struct rows *r = i < n ? &a : &b;
            at.step = i < n || j < cut ? j : j + 100 + cut * n;
            bool same_request = i < n || j <= cut; /* time and session of row cut are known */
            struct lh_rng_at when = at;
            when.step = same_request ? j : at.step;
            r->t[j] = (j ? r->t[j - 1] : 0) + (int64_t)lh_rng_below(&when, 0, 3 * HOUR);
            r->s[j] = (j ? r->s[j - 1] : 0) + (j && lh_rng_below(&when, 1, 3) == 0);
            r->g[j] = (uint32_t)lh_rng_below(&at, 2, 2);
            r->k[j] = (uint32_t)lh_rng_below(&at, 3, 3);
            r->rating[j] = (float)lh_rng_normal1(&at, 4);
            r->w0[j] = lh_rng_below(&at, 5, 4) ? (float)lh_rng_normal1(&at, 6) : NAN;
            r->w1[j] = (float)lh_rng_normal1(&at, 7);
            r->reward[j] = (float)lh_rng_normal1(&at, 8);
            r->movie[j] = 7 + lh_rng_below(&at, 9, 4);
            r->user[j] = 1 + lh_rng_below(&at, 10, 2);
        }
        struct rows *rows[] = {&a, &b};
        float *low[] = {low_a, low_b};
        for (int k = 0; k < 2; k++) {
            struct rows *r = rows[k];
            union lh_column_data d[] = {
                {.number = r->rating}, {.number = r->w0}, {.number = r->w1}, {.category = r->g},
                {.category = r->k},    {.id = r->movie},  {.id = r->user}};
            struct lh_user_log log = {
                .n = n, .time_us = r->t, .session = r->s, .column = d, .split = LH_TRAIN};
            assert_ok(lh_feature_plan_apply(p, &log, r->reward, high, low[k], action, keep));
        }
        assert_memory_equal(low_a, low_b, (cut + 1) * dims.low * sizeof(float));
        if (cut + 1 < n)
            assert_memory_not_equal(low_a, low_b, n * dims.low * sizeof(float));
    }
    lh_feature_plan_destroy(&p);
}

static void create_state_that_would_see_the_answer_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *says;
    } bad[] = {
        {"reward: {column: rating}\naction: [{column: w_1}]\nstate_high: [{column: rating}]",
         "'rating' is what the reward is made of"},
        {"action: [{column: w_1}]\nstate_high: [{column: w_1}]", "what the action is made of"},
        {"embeddings: {e: {key: movie, method: factorise, value: rating}}\n"
         "action: [{embedding: e}]\nstate_high: [{embedding: e}]",
         "what the action is made of"},
        {"reward: {column: rating}\naction: [{column: w_1}]\nstate_high: [{column: reward}]",
         "the present reward cannot be a feature"},
        {"reward: {return_time: {}}\naction: [{column: w_1}]\nstate_high: [{mean: reward}]",
         "know the future; use session_mean"},
        {"action: [{mean: w_1}]", "tells of the past"},
        {"action: [{column: w_1}]\nstate_high: [{mean: reward}]", "declares no reward"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_feature_plan *p = NULL;
        assert_err(create(&p, bad[i].schema), LH_ECONFIG, bad[i].says);
        assert_null(p);
    }
}

static void create_bad_item_names_line_and_cure(void **state)
{
    (void)state;
    static const struct {
        const char *items, *says;
    } bad[] = {
        {"{}", "found a mapping"},
        {"[]", "lists no feature"},
        {"[3]", "state_low[0]"},
        {"[{}]", "says no feature"},
        {"[{colum: w_0}]", "did you mean 'column'"},
        {"[{column: w_0, mean: w_0}]", "one feature"},
        {"[{column: w_00}]", "did you mean 'w_0'"},
        {"[{column: w_5..w_9}]", "there is no column 'w_5'"},
        {"[{column: w_0..v_9}]", "is no range"},
        {"[{column: gender}]", "write one_hot: gender"},
        {"[{column: movie}]", "is an id"},
        {"[{column: item}]", "write embedding: item"},
        {"[{one_hot: rating}]", "is no category"},
        {"[{table: item}]", "there is no table 'item'"},
        {"[{table: users.height}]", "table 'users' has no column 'height'"},
        {"[{embedding: users}]", "there is no embedding 'users'"},
        {"[{mean: item.0}]", "has no columns"},
        {"[{count: row}]", "did you mean 'rows'"},
        {"[{rate: kind}]", "for categories use share:"},
        {"[{share: kind, value: X}]", "'X' is not among the values"},
        {"[{mean: rating, weight: item}]", "not one number"},
        {"[{mean: rating, above: 2}]", "does not go with mean:"},
        {"[{count: rows, empty: 2}]", "does not go with count:"},
        {"[{mean: rating, last: 0}]", "last"},
        {"[{mean: rating, at: noon}]", "noon"},
        {"[{mean: rating}, {mean: rating}]", "'mean.rating' is in the list already"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lh_feature_plan *p = NULL;
        assert_err(create_low(&p, bad[i].items), LH_ECONFIG, bad[i].says);
        assert_null(p);
    }
    struct lh_feature_plan *p = NULL;
    assert_err(create(&p, "action: [{column: w_1}]\nstate_high: [{count: rows}]"), LH_ECONFIG,
               "state_low: is missing");
    assert_err(create(&p, "embeddings: {rating: {key: movie, method: factorise}}"), LH_ECONFIG,
               "a column has this name");
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    int rc = LH_ENOMEM;
    struct lh_yaml *doc = NULL;
    const char *text = "embeddings: {e: {key: movie, method: factorise, value: rating}}\n"
                       "tables: {t: {file: t.csv, key: user_id, columns: {age: {type: number}}}}\n"
                       "reward: {column: rating}\naction: [{embedding: e}]\n"
                       "state_high: [{table: t}]\nstate_low: [{mean: e, last: 3}]\n";
    kit_write(kit_path("t.csv"), "user_id,age\n1,25\n");
    assert_ok(lh_yaml_load_text(&doc, text, strlen(text), "s.yaml"));
    for (uint64_t k = 1; rc == LH_ENOMEM; k++) {
        uint64_t live = lh_mem_live();
        struct lh_feature_plan *p = NULL;
        lh_mem_fail_at(k);
        rc = lh_feature_plan_create(&p, lh_yaml_root(doc), columns, N_COLUMNS, kit_dir(), 1, 1);
        lh_mem_fail_at(0);
        assert_true(k > 1 || rc == LH_ENOMEM);
        lh_feature_plan_destroy(&p);
        assert_int_equal(lh_mem_live(), live);
    }
    assert_int_equal(rc, 0);
    lh_yaml_destroy(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(apply_present_values_are_the_rows_own),
        kit_test(apply_range_names_each_column),
        kit_test(ids_are_those_of_the_row_or_of_one_before),
        kit_test(apply_means_and_sums_are_over_strictly_past_rows),
        kit_test(apply_mean_of_vectors_takes_the_rows_that_have_one),
        kit_test(apply_rates_and_shares_count_past_rows),
        kit_test(apply_counts_and_times_tell_where_the_request_stands),
        kit_test(apply_overlapping_sessions_give_no_negative_time),
        kit_test(apply_missing_drop_drops_the_row_only),
        kit_test(apply_refuses_missing_and_infinite_values),
        kit_test(apply_nothing_later_changes_a_feature),
        kit_test(create_state_that_would_see_the_answer_is_refused),
        kit_test(create_bad_item_names_line_and_cure),
        kit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
