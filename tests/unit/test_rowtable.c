#include "ps/optimiser.h"
#include "ps/rowtable_read.h"
#include "tests/unit/rowtable_rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- the table by its definition: every row in an array, no cache, no file, no shard ------------
 */

enum { IDS = 700, SHARDS_MAX = 4 };

struct row {
    float w[DIM], m[DIM], v[DIM];
    uint32_t seen, updates;
    uint64_t last;
};

struct model {
    struct lh_rowtable_spec spec; /* of shard 0 of 1 */
    uint64_t version;
    uint64_t ids[IDS]; /* ascending */
    struct row rows[IDS];
};

static void row_init(const struct model *m, size_t i, struct row *r)
{
    const struct lh_rng_at stream = lh_rowlist_stream(m->spec.name, m->spec.seed);
    memset(r, 0, sizeof *r);
    lh_rowlist_initial(&stream, m->spec.init_scale, m->ids[i], r->w, DIM);
}

static void model_init(struct model *m, const struct lh_rowtable_spec *spec)
{
    struct lh_rng_at at = {.seed = spec->seed, .part = 99};
    uint64_t id = 0;
    m->spec = *spec;
    m->version = 0;
    for (size_t i = 0; i < IDS; i++) {
        id += i % 100 == 0 ? (uint64_t)1 << 58 : below(&at, 3) + 1; /* bunches of neighbours */
        m->ids[i] = id;
        row_init(m, i, &m->rows[i]);
    }
}

static int is_of_age(const struct model *m, const struct row *r)
{
    return m->spec.evict_after > 0 && r->seen > 0 && m->version - r->last >= m->spec.evict_after;
}

static void model_row(const struct model *m, size_t i, float *w)
{
    struct row fresh;
    row_init(m, i, &fresh);
    memcpy(w, is_of_age(m, &m->rows[i]) ? fresh.w : m->rows[i].w, sizeof fresh.w);
}

static void model_update(struct model *m, size_t i, const float *g)
{
    const struct lh_rowtable_spec *s = &m->spec;
    struct row *r = &m->rows[i];
    if (is_of_age(m, r))
        row_init(m, i, r);
    r->seen++;
    r->last = m->version + 1;
    if (r->seen < s->admit_after)
        return;
    const struct lh_optimiser_adam c =
        lh_optimiser_adam_at(s->learning_rate, s->beta1, s->beta2, s->epsilon, ++r->updates);
    for (int k = 0; k < DIM; k++) {
        r->m[k] = c.beta1 * r->m[k] + c.one_minus_beta1 * g[k];
        r->v[k] = c.beta2 * r->v[k] + c.one_minus_beta2 * (g[k] * g[k]);
        r->w[k] -= c.step * r->m[k] / (sqrtf(r->v[k]) * c.root + c.epsilon);
    }
}

/* --- a step's gradients ------------------------------------------------------------------------
 */

struct leaf {
    size_t n, which[IDS]; /* into the model's ids */
    uint64_t ids[IDS];
    float values[IDS * DIM];
};

/* Rows of a leaf: some that are often there, some that are rarely. */
static void draw_leaf(const struct model *m, struct lh_rng_at *at, size_t leaf, struct leaf *l)
{
    const uint64_t hot = below(at, 40), spread = below(at, 12) + 1;
    l->n = 0;
    for (size_t i = 0; i < IDS; i++) {
        if (i % 7 == leaf % 7 ? below(at, 40) >= hot : below(at, IDS) >= spread)
            continue;
        l->which[l->n] = i;
        l->ids[l->n++] = m->ids[i];
    }
    lh_rng_normal(&(struct lh_rng_at){.seed = at->seed, .part = (uint32_t)leaf, .step = at->step},
                  l->values, l->n * DIM);
}

/* The sum over the tree, and the model's step. */
static void model_step(struct model *m, const struct leaf leaf[LEAVES])
{
    for (size_t i = 0; i < IDS; i++) {
        float part[LEAVES][DIM];
        int has[LEAVES] = {0};
        for (size_t k = 0; k < LEAVES; k++) {
            for (size_t j = 0; j < leaf[k].n; j++) {
                if (leaf[k].which[j] == i) {
                    memcpy(part[k], leaf[k].values + j * DIM, sizeof part[k]);
                    has[k] = 1;
                }
            }
        }
        for (size_t n = LEAVES; n > 1; n /= 2) {
            for (size_t k = 0; k < n / 2; k++) {
                for (int c = 0; has[2 * k + 1] && c < DIM; c++)
                    part[2 * k][c] =
                        has[2 * k] ? part[2 * k][c] + part[2 * k + 1][c] : part[2 * k + 1][c];
                has[k] = has[2 * k] | has[2 * k + 1];
                memmove(part[k], part[2 * k], sizeof part[k]);
            }
        }
        if (has[0])
            model_update(m, i, part[0]);
    }
    m->version++;
}

/* --- a table on some servers -------------------------------------------------------------------
 */

struct servers {
    size_t n;
    struct lh_rowtable *t[SHARDS_MAX];
    char dir[SHARDS_MAX][300];
    const char *dirs[SHARDS_MAX];
};

static void servers_start(struct servers *s, const struct lh_rowtable_spec *spec, const char *where,
                          size_t n, size_t cache_bytes)
{
    s->n = n;
    for (size_t i = 0; i < SHARDS_MAX; i++) {
        snprintf(s->dir[i], sizeof s->dir[i], "%s/server-%zu", where, i);
        s->dirs[i] = s->dir[i];
    }
    for (size_t i = 0; i < n; i++) {
        struct lh_rowtable_spec one = *spec;
        one.shard = (uint32_t)i;
        one.shards = (uint32_t)n;
        one.cache_bytes = cache_bytes;
        assert_ok(lh_rowtable_create(&s->t[i], &one, s->dir[i]));
    }
}

static void servers_stop(struct servers *s)
{
    for (size_t i = 0; i < s->n; i++)
        lh_rowtable_destroy(&s->t[i]);
}

/* Sends a leaf to its servers, in pieces. */
static void servers_push(struct servers *s, uint64_t step, uint32_t index, const struct leaf *l,
                         struct lh_rng_at *at)
{
    uint32_t place[IDS];
    size_t first[SHARDS_MAX + 1];
    uint64_t ids[IDS];
    float values[IDS * DIM];
    lh_rowlist_split(l->ids, l->n, (uint32_t)s->n, place, first);
    for (size_t i = 0; i < s->n; i++) {
        const size_t n = first[i + 1] - first[i];
        for (size_t k = 0; k < n; k++) {
            ids[k] = l->ids[place[first[i] + k]];
            memcpy(values + k * DIM, l->values + place[first[i] + k] * DIM, DIM * sizeof *values);
        }
        size_t from = 0;
        do {
            const size_t m = from < n ? below(at, n - from) + 1 : 0;
            const struct lh_rowtable_piece piece = {from, n, m, ids + from, values + from * DIM};
            assert_ok(lh_rowtable_push(s->t[i], step, (struct lh_tree_node){0, index}, &piece));
            from += m;
        } while (from < n);
    }
}

static void servers_advance(struct servers *s)
{
    for (size_t i = 0; i < s->n; i++) {
        int applied = 0;
        assert_non_null(lh_rowtable_gradient(s->t[i]));
        assert_ok(lh_rowtable_check(s->t[i]));
        assert_ok(lh_rowtable_advance(s->t[i], &applied));
        assert_true(applied);
        assert_null(lh_rowtable_gradient(s->t[i]));
    }
}

static void servers_step(struct servers *s, struct model *m, struct lh_rng_at *at)
{
    static struct leaf leaf[LEAVES];
    uint32_t order[LEAVES];
    for (uint32_t k = 0; k < LEAVES; k++) {
        draw_leaf(m, at, k, &leaf[k]);
        order[k] = k;
    }
    for (uint32_t k = LEAVES; k > 0; k--) {
        const size_t i = below(at, k);
        servers_push(s, m->version, order[i], &leaf[order[i]], at);
        order[i] = order[k - 1];
    }
    servers_advance(s);
    model_step(m, leaf);
}

/* Rows [lo, hi) of the model's ids are what a pull gives. */
static void check_pull(const struct servers *s, const struct model *m, size_t lo, size_t hi)
{
    unsigned char frame[IDS * 8 + 1], rows[IDS * DIM * 4 + 1];
    uint32_t place[IDS];
    size_t first[SHARDS_MAX + 1];
    lh_rowlist_split(m->ids + lo, hi - lo, (uint32_t)s->n, place, first);
    for (size_t i = 0; i < s->n; i++) {
        const size_t n = first[i + 1] - first[i];
        for (size_t k = 0; k < n; k++)
            memcpy(frame + 1 + 8 * k, &m->ids[lo + place[first[i] + k]], 8);
        assert_int_equal(lh_rowtable_version(s->t[i]), m->version);
        assert_ok(lh_rowtable_pull(s->t[i], frame + 1, n, rows + 1));
        for (size_t k = 0; k < n; k++) {
            float want[DIM];
            model_row(m, lo + place[first[i] + k], want);
            assert_memory_equal(rows + 1 + k * sizeof want, want, sizeof want);
        }
    }
}

/* The version before, where there was a step. */
static void check_pull_before(const struct servers *s, const struct model *m)
{
    uint64_t ids[IDS];
    float rows[IDS * DIM];
    uint32_t place[IDS];
    size_t first[SHARDS_MAX + 1];
    lh_rowlist_split(m->ids, IDS, (uint32_t)s->n, place, first);
    for (size_t i = 0; i < s->n; i++) {
        const size_t n = first[i + 1] - first[i];
        for (size_t k = 0; k < n; k++)
            ids[k] = m->ids[place[first[i] + k]];
        assert_ok(lh_rowtable_pull_before(s->t[i], ids, n, rows));
        for (size_t k = 0; k < n; k++) {
            float want[DIM];
            model_row(m, place[first[i] + k], want);
            assert_memory_equal(rows + k * DIM, want, sizeof want);
        }
    }
}

/* All that is stored of a version, in order, is what the model has; so is any row asked for. */
static void check_reader(const char *const *dirs, size_t n_dirs, const struct model *m)
{
    struct lh_rowtable_reader *r = NULL;
    struct lh_rowtable_row row;
    float want[DIM], got[DIM];
    size_t i = 0;
    int rc;
    assert_ok(lh_rowtable_reader_open(&r, m->spec.name, m->version, dirs, n_dirs));
    assert_int_equal(lh_rowtable_reader_info(r)->dim, DIM);
    while ((rc = lh_rowtable_reader_next(r, &row)) == 0) {
        while (i < IDS && (m->rows[i].seen == 0 || is_of_age(m, &m->rows[i])))
            i++;
        assert_true(i < IDS);
        const struct row *w = &m->rows[i];
        assert_true(row.id == m->ids[i] && row.seen == w->seen && row.updates == w->updates &&
                    row.last == w->last);
        if (row.updates > 0) {
            assert_memory_equal(row.w, w->w, sizeof w->w);
            assert_memory_equal(row.m, w->m, sizeof w->m);
            assert_memory_equal(row.v, w->v, sizeof w->v);
        } else {
            assert_null(row.w);
        }
        i++;
    }
    assert_int_equal(rc, LH_NOTFOUND);
    while (i < IDS && (m->rows[i].seen == 0 || is_of_age(m, &m->rows[i])))
        i++;
    assert_int_equal(i, IDS);
    for (size_t k = IDS; k > 0; k -= 7) { /* not ascending */
        model_row(m, k - 1, want);
        assert_ok(lh_rowtable_reader_pull(r, &m->ids[k - 1], 1, got));
        assert_memory_equal(got, want, sizeof want);
    }
    assert_ok(lh_rowtable_reader_seek(r, m->ids[IDS - 1] + 1));
    assert_int_equal(lh_rowtable_reader_next(r, &row), LH_NOTFOUND);
    lh_rowtable_reader_close(&r);
}

static const struct lh_rowtable_spec plain = PLAIN_TABLE(IDS);

/* --- by hand -----------------------------------------------------------------------------------
 */

static float pull_one(struct lh_rowtable *t, uint64_t id)
{
    float w[DIM];
    assert_ok(lh_rowtable_pull(t, &id, 1, w));
    return w[0];
}

static void adam_is_lazy_and_counts_a_rows_own_updates(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    const uint64_t both[] = {3, 8}, eight = 8;
    float g[2 * DIM] = {2, 0, 0, 0, 0, -0.5f};
    spec.init_scale = 0;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
    push_all(t, both, 2, g); /* the first update has the length of the rate, whatever g is */
    kit_assert_close(pull_one(t, 3), -0.05, 1e-6, "first update");
    kit_assert_close(pull_one(t, 8), 0.05, 1e-6, "first update");
    for (int i = 0; i < 5; i++)
        push_all(t, &eight, 1, g + DIM);
    kit_assert_close(pull_one(t, 8), 6 * 0.05, 1e-5, "equal gradients, equal steps");
    kit_assert_close(pull_one(t, 3), -0.05, 1e-6, "not named, not moved");
    g[0] = -2; /* m = 0.9 0.2 - 0.1 2 = -0.02, v = 0.99 0.04 + 0.01 4, as at its second update: */
    push_all(t, both, 1, g);
    const double m = -0.02 / (1 - 0.81), v = (0.99 * 0.04 + 0.04) / (1 - 0.9801);
    kit_assert_close(pull_one(t, 3), -0.05 - 0.05 * m / sqrt(v), 1e-6, "moments did not decay");
    push_all(t, both, 0, NULL); /* nobody named anything: a version all the same */
    assert_int_equal(lh_rowtable_version(t), 8);
    lh_rowtable_destroy(&t);
}

static void admission_and_eviction_by_hand(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    struct lh_rowtable_stats stats;
    const uint64_t id = 11, other = 12;
    const float g[DIM] = {1};
    spec.init_scale = 0;
    spec.admit_after = 3;
    spec.evict_after = 4;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
    push_all(t, &id, 1, g);
    push_all(t, &id, 1, g);
    assert_true(pull_one(t, id) == 0);
    push_all(t, &id, 1, g); /* the third time it is seen */
    kit_assert_close(pull_one(t, id), -0.05, 1e-6, "admitted");
    for (int i = 0; i < 3; i++)
        push_all(t, &other, 1, g);
    kit_assert_close(pull_one(t, id), -0.05, 1e-6, "three steps unseen");
    push_all(t, &other, 1, g);
    assert_true(pull_one(t, id) == 0); /* four */
    push_all(t, &id, 1, g);
    push_all(t, &id, 1, g);
    assert_true(pull_one(t, id) == 0); /* it begins anew, count included */
    push_all(t, &id, 1, g);
    kit_assert_close(pull_one(t, id), -0.05, 1e-6, "admitted again");
    lh_rowtable_stats(t, &stats);
    assert_int_equal(stats.admitted, 3);
    assert_int_equal(stats.evicted, 1);
    lh_rowtable_destroy(&t);
}

static void initial_value_is_a_function_of_seed_name_and_id(void **state)
{
    (void)state;
    const struct lh_rng_at a = lh_rowlist_stream("item", 7);
    /* The same numbers, from the generator itself. */
    const struct lh_rng_at at = {
        .seed = 7, .purpose = lh_rng_purpose("table.item"), .step = 0x123456789abcu};
    float w[300], again[300], u[300];
    lh_rowlist_initial(&a, 0.5, 0x123456789abcu, w, 300);
    lh_rng_uniform(&at, u, 300);
    for (int i = 0; i < 300; i++)
        assert_true(w[i] == u[i] - 0.5f && w[i] >= -0.5f && w[i] < 0.5f);
    lh_rowlist_initial(&a, 0.5, 0x123456789abcu, again, 7); /* a prefix is the same */
    assert_memory_equal(again, w, 7 * sizeof *w);
    lh_rowlist_initial(&a, 0.5, 0x123456789abdu, again, 300);
    assert_memory_not_equal(again, w, sizeof w);
    const struct lh_rng_at b = lh_rowlist_stream("user", 7);
    lh_rowlist_initial(&b, 0.5, 0x123456789abcu, again, 300);
    assert_memory_not_equal(again, w, sizeof w);
}

static void push_refuses_what_is_not_of_this_step_or_shard(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    const struct lh_tree_node root = {2, 0};
    uint64_t mine = 0, theirs = 0, down[2] = {9, 5};
    float g[2 * DIM] = {1}, w[2 * DIM];
    spec.shard = 1;
    spec.shards = 2;
    while (lh_rowlist_shard(mine, 2) != 1)
        mine++;
    while (lh_rowlist_shard(theirs, 2) != 0)
        theirs++;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
#define PUSH(step, ...) lh_rowtable_push(t, step, root, &(struct lh_rowtable_piece){__VA_ARGS__})
    assert_err(PUSH(1, 0, 1, 1, &mine, g), LH_EPROTO, "for step 1 came at step 0");
    assert_err(PUSH(0, 0, 1, 1, &theirs, g), LH_EPROTO, "which is shard 0's, came to shard 1");
    assert_err(PUSH(0, 0, 2, 2, down, g), LH_EPROTO, "table item: a push with ids that do not");
    assert_err(PUSH(0, 5, 4, 1, &mine, g), LH_EPROTO, "table item: 1 rows from row 5 on, of 4");
    assert_err(lh_rowtable_pull(t, &theirs, 1, w), LH_EPROTO, "shard 0's, came to shard 1");
    assert_err(lh_rowtable_pull(t, down, 2, w), LH_EPROTO, "do not ascend");
    assert_ok(PUSH(0, 0, 1, 1, &mine, g));
    int applied = 0;
    assert_ok(lh_rowtable_advance(t, &applied));
    assert_int_equal(PUSH(0, 0, 1, 1, &mine, g), LH_AGAIN);
    static const float bad[] = {NAN, INFINITY, -INFINITY, 0x1p64f};
    for (uint64_t i = 0; i < 4; i++) {
        const float before = pull_one(t, mine);
        g[3] = bad[i];
        assert_ok(PUSH(1, 0, 1, 1, &mine, g));
        char text[100];
        snprintf(text, sizeof text, "step 1: the gradient of table item, id %llu, is",
                 (unsigned long long)mine);
        assert_err(lh_rowtable_check(t), LH_EDIVERGED, text);
        assert_err(lh_rowtable_advance(t, &applied), LH_EDIVERGED, text);
        assert_false(applied);
        assert_true(pull_one(t, mine) == before);
        assert_int_equal(lh_rowtable_version(t), 1);
        lh_rowtable_destroy(&t);
        assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
        assert_ok(lh_rowtable_init(t));
        g[3] = 0;
        assert_ok(PUSH(0, 0, 1, 1, &mine, g));
        assert_ok(lh_rowtable_advance(t, &applied));
    }
#undef PUSH
    lh_rowtable_destroy(&t);
}

static void create_refuses_a_spec_without_sense(void **state)
{
    (void)state;
    struct lh_rowtable *t = NULL;
    struct lh_rowtable_spec s;
#define REFUSED(field, value, text)                                                                \
    do {                                                                                           \
        s = plain;                                                                                 \
        s.field = value;                                                                           \
        assert_err(lh_rowtable_create(&t, &s, kit_path("s")), LH_ERANGE, text);                    \
    } while (0)
    REFUSED(name, "", "table ''");
    REFUSED(name, "../x", "table '../x'");
    REFUSED(name, ".x", "table '.x'");
    REFUSED(dim, 0, "rows of 0 elements");
    REFUSED(dim, 65537, "rows of 65537 elements");
    REFUSED(shard, 1, "shard 1 of 1");
    REFUSED(init_scale, NAN, "initial scale");
    REFUSED(beta2, 1, "betas must be in [0, 1)");
    REFUSED(epsilon, 0, "epsilon above 0");
    REFUSED(learning_rate, INFINITY, "the rate finite");
    REFUSED(leaves, 0, "0 micro-batches");
    REFUSED(max_ids, 0, "0 ids");
#undef REFUSED
}

/* --- against the model: steps, cuts, kills, other numbers of servers ---------------------------
 */

enum { CUTS_MAX = 400 };

struct cut {
    uint64_t version;
    size_t n; /* servers */
    struct model *model;
};

struct history {
    struct cut cuts[CUTS_MAX];
    size_t n;
    struct model *frozen; /* the version that is set aside and not prepared; NULL: none */
    char where[300];
    int life; /* how many times the servers were started */
};

static void freeze(struct servers *s, const struct model *m, struct history *h)
{
    for (size_t i = 0; i < s->n; i++)
        assert_ok(lh_rowtable_freeze(s->t[i]));
    assert_int_equal(lh_rowtable_freeze(s->t[0]), LH_AGAIN);
    h->frozen = malloc(sizeof *m);
    *h->frozen = *m;
}

/* A server has it settled some time later, in any order; then it is a cut, or some server was not
 * prepared, or never settled it. */
static void go_on_with_cut(struct servers *s, struct history *h, struct lh_rng_at *at)
{
    const int lost = below(at, 10) == 0;
    int left = 0;
    for (size_t i = 0; i < s->n && !lost; i++)
        for (uint64_t n = below(at, 3); n > 0; n--)
            left += lh_rowtable_settle(s->t[i]) == LH_AGAIN;
    for (size_t i = 0; i < s->n && !left && !lost; i++) {
        int rc = lh_rowtable_settle(s->t[i]);
        left += rc == LH_AGAIN;
        assert_true(rc >= 0);
    }
    if (left)
        return;
    for (size_t i = 0; i < s->n; i++) {
        if (lost) {
            lh_rowtable_abandon(s->t[i]);
            continue;
        }
        assert_ok(lh_rowtable_prepare(s->t[i]));
        assert_ok(lh_rowtable_prepare(s->t[i]));
        lh_rowtable_tidy(s->t[i]);
        lh_rowtable_thaw(s->t[i]);
    }
    if (lost) {
        free(h->frozen);
    } else {
        assert_true(h->n < CUTS_MAX);
        h->cuts[h->n++] = (struct cut){h->frozen->version, s->n, h->frozen};
        check_reader(s->dirs, s->n, h->frozen);
    }
    h->frozen = NULL;
}

static void forget_cut(struct history *h, size_t i)
{
    free(h->cuts[i].model);
    h->n--;
    memmove(h->cuts + i, h->cuts + i + 1, (h->n - i) * sizeof *h->cuts);
}

static size_t versions_of(const struct history *h, uint64_t *out)
{
    for (size_t i = 0; i < h->n; i++)
        out[i] = h->cuts[i].version;
    return h->n;
}

static void prune(struct servers *s, struct history *h, struct lh_rng_at *at)
{
    uint64_t keep[CUTS_MAX];
    while (h->n > 3)
        forget_cut(h, below(at, h->n - 1));
    const size_t n = versions_of(h, keep);
    for (size_t i = 0; i < s->n; i++)
        assert_ok(lh_rowtable_prune(s->t[i], keep, n));
}

/* What a kill leaves: the files as they are at this moment. A new life goes on with some cut. */
static void kill_and_restore(struct servers *s, struct model *m, struct history *h,
                             struct lh_rng_at *at, size_t shards)
{
    char next[300];
    uint64_t keep[CUTS_MAX];
    snprintf(next, sizeof next, "%s/life-%d", kit_dir(), ++h->life);
    assert_int_equal(kit_run(NULL, "cp -r '%s' '%s'", h->where, next), 0);
    const size_t before = s->n;
    servers_stop(s);
    free(h->frozen);
    h->frozen = NULL;
    assert_int_equal(kit_run(NULL, "rm -r '%s'", h->where), 0);
    snprintf(h->where, sizeof h->where, "%s", next);
    const size_t back = below(at, 3);
    for (size_t i = 0; i < back && h->n > 1; i++) /* the run record may list fewer */
        forget_cut(h, h->n - 1);
    const size_t n = shards > 0 ? shards : before;
    servers_start(s, &m->spec, h->where, n, below(at, 2) ? 1 : 40000);
    const size_t n_keep = versions_of(h, keep);
    for (size_t i = 0; i < n; i++) {
        assert_ok(lh_rowtable_prune(s->t[i], keep, n_keep));
        if (h->n == 0)
            assert_ok(lh_rowtable_init(s->t[i]));
    }
    if (h->n == 0) {
        struct lh_rowtable_spec spec = m->spec;
        model_init(m, &spec);
        return;
    }
    const struct cut *c = &h->cuts[h->n - 1];
    for (size_t i = 0; i < n; i++)
        assert_ok(lh_rowtable_restore(s->t[i], c->version, s->dirs, c->n));
    *m = *c->model;
    for (size_t i = 0; i < h->n; i++) /* what is listed stays readable */
        check_reader(s->dirs, h->cuts[i].n, h->cuts[i].model);
}

static void run_history(const struct lh_rowtable_spec *spec, size_t shards, uint32_t round)
{
    static struct model m, before;
    struct lh_rng_at at = {.seed = 31, .part = round};
    struct servers s;
    struct history h = {.n = 0};
    snprintf(h.where, sizeof h.where, "%s/life-0", kit_dir());
    assert_int_equal(mkdir(h.where, 0777), 0);
    model_init(&m, spec);
    servers_start(&s, spec, h.where, shards, round % 2 ? 1 : 60000);
    for (size_t i = 0; i < s.n; i++)
        assert_ok(lh_rowtable_init(s.t[i]));
    for (int step = 0; step < 60; step++) {
        before = m;
        servers_step(&s, &m, &at);
        check_pull_before(&s, &before);
        const size_t lo = below(&at, IDS), hi = lo + below(&at, IDS - lo + 1);
        check_pull(&s, &m, lo, hi);
        if (!h.frozen && below(&at, 2) == 0)
            freeze(&s, &m, &h);
        else if (h.frozen)
            go_on_with_cut(&s, &h, &at);
        if (below(&at, 6) == 0)
            prune(&s, &h, &at);
        if (below(&at, 15) == 0)
            kill_and_restore(&s, &m, &h, &at, below(&at, 2) ? below(&at, SHARDS_MAX) + 1 : 0);
    }
    check_pull(&s, &m, 0, IDS);
    servers_stop(&s);
    free(h.frozen);
    while (h.n > 0)
        forget_cut(&h, 0);
}

static void any_history_gives_the_bits_of_the_definition(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    run_history(&spec, 1, 1);
}

static void two_and_more_servers_give_the_same_bits(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    run_history(&spec, 2, 2);
}

static void admission_gives_the_bits_of_the_definition(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    spec.admit_after = 4;
    run_history(&spec, 3, 3);
}

static void eviction_gives_the_bits_of_the_definition(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    spec.evict_after = 5;
    run_history(&spec, 1, 4);
}

static void admission_and_eviction_give_the_bits_of_the_definition(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain;
    spec.admit_after = 2;
    spec.evict_after = 9;
    run_history(&spec, 4, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(adam_is_lazy_and_counts_a_rows_own_updates),
        kit_test(admission_and_eviction_by_hand),
        kit_test(initial_value_is_a_function_of_seed_name_and_id),
        kit_test(push_refuses_what_is_not_of_this_step_or_shard),
        kit_test(create_refuses_a_spec_without_sense),
        kit_test(any_history_gives_the_bits_of_the_definition),
        kit_test(two_and_more_servers_give_the_same_bits),
        kit_test(admission_gives_the_bits_of_the_definition),
        kit_test(eviction_gives_the_bits_of_the_definition),
        kit_test(admission_and_eviction_give_the_bits_of_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
