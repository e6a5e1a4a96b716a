#include "common/rng.h"
#include "ps/store.h"
#include "tests/testkit.h"

#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* "wide" takes four row blocks, so that shards cut through it; "table" has no optimiser state. */
static const struct lh_param model[] = {
    {"actor.bias", 1, 10, 0, 3, true, true},
    {"table", 30, 7, 16, 3, false, false},
    {"wide", 3000, 64, 240, 5, true, true},
    {"zeta.weight", 33, 16, 192240, 5, true, false},
};
enum { FLAT = 192240 + 33 * 16 };
static const struct lh_layout_params from = {model, 4, FLAT};
static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0.25, 1}};

#define JOB 0xabcdef0123456789u

static void layout(struct lh_layout *l, size_t shards)
{
    assert_ok(lh_layout_init_params(l, &from, rules, 1, shards));
}

/* A frozen version made by hand: every array is a function of the version. */
struct fake {
    struct lh_layout l;
    struct lh_frozen f[4];
    float *w, *m, *v, *t;
    uint64_t updates[4];
};

static void fake_fill(struct fake *x, uint64_t version)
{
    float *const array[] = {x->w, x->m, x->v, x->t};
    for (size_t a = 0; a < 4; a++) {
        for (size_t i = 0; i < FLAT; i++)
            array[a][i] = (float)(version * 8 + a) + (float)i * 0x1p-20f;
    }
    for (size_t i = 0; i < 4; i++)
        x->updates[i] = version;
    for (size_t i = 0; i < x->l.n_shards; i++)
        x->f[i].version = version;
}

static void fake_init(struct fake *x, size_t shards)
{
    layout(&x->l, shards);
    float **const array[] = {&x->w, &x->m, &x->v, &x->t};
    for (size_t a = 0; a < 4; a++)
        assert_ok(LH_NEW_ARRAY(array[a], FLAT, "test"));
    for (size_t i = 0; i < shards; i++) {
        const size_t lo = x->l.shards[i].lo;
        x->f[i] = (struct lh_frozen){&x->l.shards[i], 0,         x->updates, x->w + lo,
                                     x->m + lo,       x->v + lo, x->t + lo};
    }
}

static void fake_fini(struct fake *x)
{
    lh_layout_fini(&x->l);
    lh_mem_free(x->w);
    lh_mem_free(x->m);
    lh_mem_free(x->v);
    lh_mem_free(x->t);
}

static struct lh_store *serve(const char *name, uint32_t shard)
{
    struct lh_store *st = NULL;
    assert_ok(lh_store_open(&st, kit_path(name), &(struct lh_store_id){JOB, shard, 1}, 0));
    return st;
}

/* Weights and targets of a version are what fake_fill makes of it. */
static int content_is(struct lh_store *st, const struct lh_layout *l, uint64_t version)
{
    float *w = NULL, *t = NULL;
    uint64_t taken = 0;
    assert_ok(LH_NEW_ARRAY(&w, FLAT, "test"));
    assert_ok(LH_NEW_ARRAY(&t, FLAT, "test"));
    assert_ok(lh_store_read(st, version, l, w, t, &taken));
    int same = taken == l->elements;
    for (size_t p = 0; p < 4; p++) {
        for (size_t i = model[p].offset; i < model[p].offset + model[p].rows * model[p].cols; i++) {
            same &= w[i] == (float)(version * 8) + (float)i * 0x1p-20f;
            same &= t[i] ==
                    (model[p].has_target ? (float)(version * 8 + 3) + (float)i * 0x1p-20f : 0.0f);
        }
    }
    lh_mem_free(w);
    lh_mem_free(t);
    return same;
}

static void two_phases_are_seen_in_versions(void **state)
{
    (void)state;
    struct fake x;
    struct lh_store_version *v = NULL;
    size_t n;
    fake_init(&x, 1);
    struct lh_store *st = serve("s", 0);
    assert_ok(lh_store_versions(st, &v, &n));
    assert_int_equal(n, 0);
    lh_mem_free(v);
    assert_err(lh_store_commit(st, 300), LH_ENOENT, "has no version 300");
    assert_err(lh_store_verify(st, 300), LH_ENOENT, "has no version 300");
    for (uint64_t version = 255; version < 258; version++) { /* over a byte of the key */
        fake_fill(&x, version);
        assert_ok(lh_store_prepare(st, &x.f[0]));
        assert_ok(lh_store_prepare(st, &x.f[0]));
    }
    assert_ok(lh_store_commit(st, 256));
    assert_ok(lh_store_commit(st, 256));
    lh_store_close(&st);
    st = serve("s", 0);
    assert_ok(lh_store_versions(st, &v, &n));
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(v[i].version, 255 + i);
        assert_int_equal(v[i].committed, i == 1);
        assert_int_equal(v[i].shards, 1);
        assert_true(v[i].bytes > (uint64_t)192000 * 16 && v[i].wall_time_us > 0);
        assert_ok(lh_store_verify(st, v[i].version));
        assert_true(content_is(st, &x.l, v[i].version));
    }
    lh_mem_free(v);
    assert_ok(lh_store_prune(st, (const uint64_t[]){257, 999}, 2));
    assert_ok(lh_store_versions(st, &v, &n));
    assert_int_equal(n, 1);
    assert_int_equal(v[0].version, 257);
    assert_true(content_is(st, &x.l, 257));
    assert_err(lh_store_verify(st, 256), LH_ENOENT, "256");
    lh_mem_free(v);
    lh_store_close(&st);
    fake_fini(&x);
}

static void prune_gives_space_back_to_later_versions(void **state)
{
    (void)state;
    struct fake x;
    struct stat before = {0}, after;
    fake_init(&x, 1);
    struct lh_store *st = serve("s", 0);
    for (uint64_t version = 1; version <= 16; version++) {
        fake_fill(&x, version);
        assert_ok(lh_store_prepare(st, &x.f[0]));
        assert_ok(lh_store_prune(st, (const uint64_t[]){version - 1, version}, 2));
        if (version == 5)
            assert_int_equal(stat(kit_path("s/data.mdb"), &before), 0);
    }
    assert_int_equal(stat(kit_path("s/data.mdb"), &after), 0);
    assert_true(after.st_size <= before.st_size * 5 / 4);
    assert_true(content_is(st, &x.l, 15) && content_is(st, &x.l, 16));
    lh_store_close(&st);
    fake_fini(&x);
}

static void prepare_sweeps_what_an_interrupted_one_left(void **state)
{
    (void)state;
    struct fake x;
    struct lh_store_version *v = NULL;
    size_t n;
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi dbi;
    /* A block of version 9, as of a cut on another number of shards, and no meta record. */
    char key[] = "\0\0\0\0\0\0\0\x09wide\0\0\0\0\0\0\0\0\x01", value[100] = "";
    MDB_val k = {sizeof key - 1, key}, val = {sizeof value, value};
    fake_init(&x, 1);
    fake_fill(&x, 9);
    struct lh_store *st = serve("s", 0);
    lh_store_close(&st);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, kit_path("s"), MDB_NOLOCK, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    st = serve("s", 0);
    assert_ok(lh_store_versions(st, &v, &n));
    assert_int_equal(n, 0);
    lh_mem_free(v);
    assert_err(lh_store_verify(st, 9), LH_ENOENT, "no version 9");
    assert_ok(lh_store_prepare(st, &x.f[0]));
    assert_ok(lh_store_verify(st, 9));
    lh_store_close(&st);
    fake_fini(&x);
}

/* --- through a shard ------------------------------------------------------------------------- */

static struct lh_shard *shard_of(const struct lh_layout *l, size_t i)
{
    struct lh_shard *s = NULL;
    struct lh_shard_spec spec = {&l->shards[i], 1, 0.9, 0.999, 1e-8, 0, false, false};
    assert_ok(lh_shard_create(&s, &spec));
    return s;
}

static void step(struct lh_shard *s, uint64_t at)
{
    float *g = NULL;
    int applied;
    const size_t lo = lh_shard_range_of(s)->lo;
    assert_ok(LH_NEW_ARRAY(&g, FLAT, "test"));
    for (size_t i = 0; i < FLAT; i++)
        g[i] = (float)((i * 2654435761u + at * 40503u) % 1000) / 500.0f - 1.0f;
    assert_ok(lh_shard_push(s, at, (struct lh_tree_node){0, 0}, 0, g + lo, lh_shard_size(s), NULL));
    assert_ok(lh_shard_advance(s, &applied, NULL));
    assert_true(applied);
    lh_mem_free(g);
}

static void restore_onto_any_number_of_shards_continues_with_the_same_bits(void **state)
{
    (void)state;
    struct lh_layout one, two, three;
    const struct lh_frozen *f;
    layout(&one, 1);
    layout(&two, 2);
    layout(&three, 3);
    float *start = NULL;
    assert_ok(LH_NEW_ARRAY(&start, FLAT, "test"));
    for (size_t p = 0; p < 4; p++) {
        for (size_t i = 0; i < model[p].rows * model[p].cols; i++)
            start[model[p].offset + i] = (float)i;
    }
    struct lh_shard *whole = shard_of(&one, 0), *part;
    lh_shard_init(whole, start);
    for (uint64_t i = 0; i < 5; i++)
        step(whole, i);
    const char *dirs[2] = {kit_path("store-0"), kit_path("store-1")};
    struct lh_store *st[2];
    for (size_t i = 0; i < 2; i++) {
        part = shard_of(&two, i);
        lh_shard_init(part, start + two.shards[i].lo);
        step(part, 0);
        step(part, 1);
        assert_ok(lh_store_open(&st[i], dirs[i], &(struct lh_store_id){JOB, (uint32_t)i, 2}, 0));
        assert_ok(lh_shard_freeze(part, &f));
        step(part, 2); /* what is frozen stays */
        assert_ok(lh_store_prepare(st[i], f));
        lh_shard_thaw(part, f);
        lh_shard_destroy(&part);
    }
    for (size_t i = 0; i < 3; i++) { /* while both are served: as when a cluster is restarted */
        part = shard_of(&three, i);
        assert_ok(lh_store_restore(part, 2, dirs, 2, JOB));
        assert_int_equal(lh_shard_version(part), 2);
        for (uint64_t k = 2; k < 5; k++)
            step(part, k);
        const size_t n = lh_shard_size(part) * sizeof(float), lo = three.shards[i].lo;
        assert_memory_equal(lh_shard_weights(part), lh_shard_weights(whole) + lo, n);
        assert_memory_equal(lh_shard_targets(part), lh_shard_targets(whole) + lo, n);
        if (i == 0) {
            assert_err(lh_store_restore(part, 3, dirs, 2, JOB), LH_ENOENT, "no version 3");
            assert_err(lh_store_restore(part, 2, dirs, 1, JOB), LH_EMISMATCH,
                       "is part 0 of 2 of its cut, expected part 0 of 1");
            assert_err(lh_store_restore(part, 2, (const char *[]){dirs[1], dirs[0]}, 2, JOB),
                       LH_EMISMATCH, "belongs to shard 1, this is shard 0");
            assert_err(lh_store_restore(part, 2, dirs, 2, JOB + 1), LH_EMISMATCH,
                       "abcdef0123456789, this is job abcdef012345678a");
        }
        lh_shard_destroy(&part);
    }
    /* One store's own blocks, through its open handle, are not the whole of shard 0 of 1. */
    uint64_t taken = 0;
    part = shard_of(&one, 0);
    assert_ok(lh_store_load(st[1], 2, part, &taken));
    assert_err(lh_shard_set_version(part, 2, taken), LH_EMISMATCH, "a store of the cut is missing");
    lh_shard_destroy(&part);
    lh_store_close(&st[0]);
    lh_store_close(&st[1]);
    lh_shard_destroy(&whole);
    lh_mem_free(start);
    lh_layout_fini(&one);
    lh_layout_fini(&two);
    lh_layout_fini(&three);
}

/* --- whose store it is ----------------------------------------------------------------------- */

static void open_twice_to_serve_is_busy(void **state)
{
    (void)state;
    struct lh_store *st = serve("s", 0), *other = NULL;
    const struct lh_store_id id = {JOB, 0, 1};
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_err(lh_store_open(&other, kit_path("s"), &id, 0), LH_EBUSY, pid);
    pid_t child = fork();
    if (child == 0)
        _exit(lh_store_open(&other, kit_path("s"), &id, 0) == LH_EBUSY ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    lh_store_close(&st);
    st = serve("s", 0);
    lh_store_close(&st);
    lh_store_close(&st);
}

static void open_of_another_job_or_shard_names_both(void **state)
{
    (void)state;
    struct lh_store *st = serve("s", 1), *other = NULL;
    lh_store_close(&st);
    assert_err(lh_store_open(&other, kit_path("s"), &(struct lh_store_id){7, 1, 1}, 0),
               LH_EMISMATCH, "belongs to job abcdef0123456789, this is job 0000000000000007");
    assert_err(lh_store_open(&other, kit_path("s"), &(struct lh_store_id){7, 1, 1}, 1),
               LH_EMISMATCH, "belongs to job abcdef0123456789, this is job 0000000000000007");
    assert_err(lh_store_open(&other, kit_path("s"), &(struct lh_store_id){JOB, 2, 3}, 0),
               LH_EMISMATCH, "belongs to shard 1, this is shard 2");
    assert_null(other);
    assert_ok(lh_store_open(&other, kit_path("s"), NULL, 1));
    lh_store_close(&other);
    assert_err(lh_store_open(&other, kit_path("nowhere"), NULL, 1), LH_ENOENT, "nowhere/data.mdb");
}

static void *prepare_on_thread(void *ctx)
{
    void **x = ctx;
    return (void *)(intptr_t)lh_store_prepare(x[0], x[1]);
}

static void prepare_waits_for_a_reader_and_goes_on(void **state)
{
    (void)state;
    struct fake x;
    struct lh_store *st, *reader = NULL;
    struct lh_store_version *v = NULL;
    size_t n;
    pthread_t thread;
    void *result;
    fake_init(&x, 1);
    st = serve("s", 0);
    fake_fill(&x, 1);
    assert_ok(lh_store_prepare(st, &x.f[0]));
    assert_ok(lh_store_open(&reader, kit_path("s"), NULL, 1));
    fake_fill(&x, 2);
    void *ctx[] = {st, &x.f[0]};
    assert_int_equal(pthread_create(&thread, NULL, prepare_on_thread, ctx), 0);
    assert_true(content_is(reader, &x.l, 1));
    assert_err(lh_store_commit(reader, 1), LH_EINTERNAL, "reading only");
    assert_err(lh_store_prepare(reader, &x.f[0]), LH_EINTERNAL, "reading only");
    for (int i = 0; i < 50; i++) { /* time for a writer that does not wait */
        assert_ok(lh_store_versions(reader, &v, &n));
        assert_int_equal(n, 1);
        lh_mem_free(v);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    lh_store_close(&reader);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal((intptr_t)result, 0);
    assert_ok(lh_store_open(&reader, kit_path("s"), NULL, 1));
    assert_true(content_is(reader, &x.l, 2));
    lh_store_close(&reader);
    lh_store_close(&st);
    fake_fini(&x);
}

static void read_another_model_is_refused(void **state)
{
    (void)state;
    struct fake x;
    struct lh_param other[4];
    struct lh_layout l;
    uint64_t taken = 0;
    memcpy(other, model, sizeof other);
    other[3].name = "zeta.bias";
    assert_ok(lh_layout_init_params(&l, &(struct lh_layout_params){other, 4, FLAT}, rules, 1, 1));
    fake_init(&x, 1);
    fake_fill(&x, 1);
    struct lh_store *st = serve("s", 0);
    assert_ok(lh_store_prepare(st, &x.f[0]));
    assert_err(lh_store_read(st, 1, &l, x.w, NULL, &taken), LH_EMISMATCH, "another shape");
    struct lh_shard *s = shard_of(&l, 0);
    assert_err(lh_store_load(st, 1, s, &taken), LH_EMISMATCH, "another shape");
    lh_shard_destroy(&s);
    lh_store_close(&st);
    lh_layout_fini(&l);
    fake_fini(&x);
}

/* --- damage ---------------------------------------------------------------------------------- */

static void flip(const char *path, off_t at, unsigned bit)
{
    unsigned char c;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= (unsigned char)(1u << bit);
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static int try_all(const struct lh_layout *l, float *w)
{
    struct lh_store *st = NULL;
    struct lh_store_version *v = NULL;
    size_t n = 0;
    uint64_t taken = 0;
    int rc = lh_store_open(&st, kit_path("s"), &(struct lh_store_id){JOB, 0, 1}, 1);
    if (rc == 0)
        rc = lh_store_versions(st, &v, &n);
    lh_mem_free(v);
    for (uint64_t version = 2; rc == 0 && version <= 3; version++)
        rc = lh_store_read(st, version, l, w, NULL, &taken);
    if (rc == 0)
        assert_int_equal(taken, 2 * l->elements);
    lh_store_close(&st);
    return rc;
}

static void read_flipped_bits_anywhere_are_found_or_harmless(void **state)
{
    (void)state;
    struct fake x;
    struct stat file;
    fake_init(&x, 1);
    struct lh_store *st = serve("s", 0);
    for (uint64_t version = 1; version <= 3; version++) {
        fake_fill(&x, version);
        assert_ok(lh_store_prepare(st, &x.f[0]));
        assert_ok(lh_store_prune(st, (const uint64_t[]){version - 1, version}, 2));
    }
    lh_store_close(&st);
    char path[512]; /* kit_path's lasts for a few calls */
    snprintf(path, sizeof path, "%s", kit_path("s/data.mdb"));
    assert_int_equal(stat(path, &file), 0);
    assert_ok(try_all(&x.l, x.w));
    struct lh_rng_at at = {.seed = 4};
    int found = 0, named = 0;
    for (uint64_t i = 0; i < 500; i++) {
        /* Inner pages are few: half of the flips go to the first bytes of a page. */
        off_t where = (off_t)lh_rng_below(&at, 3 * i, (uint64_t)file.st_size);
        if (i % 2)
            where =
                where / 4096 * 4096 + (off_t)lh_rng_below(&at, 3 * i + 1, i % 4 == 1 ? 32 : 256);
        const unsigned bit = (unsigned)lh_rng_below(&at, 3 * i + 2, 8);
        flip(path, where, bit);
        int rc = try_all(&x.l, x.w);
        if (rc != 0) {
            assert_true(rc == LH_ECORRUPT || rc == LH_EFORMAT || rc == LH_ENOENT);
            kit_assert_contains(lh_err_text(), "/s");
            found++;
            if (strstr(lh_err_text(), ": tensor 'wide', row block "))
                named++;
        }
        flip(path, where, bit);
    }
    assert_ok(try_all(&x.l, x.w));
    assert_true(found > 150 && named > 100);
    /* The value of a known block: its sentence, whole. */
    flip(path, file.st_size / 2, 3);
    int rc = try_all(&x.l, x.w);
    assert_int_equal(rc, LH_ECORRUPT);
    kit_assert_contains(lh_err_text(), "/s: version ");
    kit_assert_contains(lh_err_text(), ": tensor 'wide', row block ");
    kit_assert_contains(lh_err_text(), ": checksum does not match");
    fake_fini(&x);
}

static void open_file_cut_short_is_refused(void **state)
{
    (void)state;
    struct fake x;
    struct stat file;
    fake_init(&x, 1);
    fake_fill(&x, 2);
    struct lh_store *st = serve("s", 0);
    assert_ok(lh_store_prepare(st, &x.f[0]));
    fake_fill(&x, 3);
    assert_ok(lh_store_prepare(st, &x.f[0]));
    lh_store_close(&st);
    char path[512];
    snprintf(path, sizeof path, "%s", kit_path("s/data.mdb"));
    assert_int_equal(stat(path, &file), 0);
    for (off_t size = file.st_size * 7 / 8; size > 0; size = size * 5 / 8) {
        assert_int_equal(truncate(path, size), 0);
        int rc = try_all(&x.l, x.w);
        assert_true(rc == LH_ECORRUPT || rc == LH_EFORMAT);
        rc = lh_store_open(&st, kit_path("s"), &(struct lh_store_id){JOB, 0, 1}, 0);
        assert_true(rc == LH_ECORRUPT || rc == LH_EFORMAT);
        assert_null(st);
    }
    assert_int_equal(truncate(path, 0), 0);
    assert_err(lh_store_open(&st, kit_path("s"), NULL, 1), LH_EFORMAT, "is empty");
    kit_write(path, "this is no database");
    assert_err(lh_store_open(&st, kit_path("s"), NULL, 1), LH_EFORMAT, "is not a longhaul store");
    fake_fini(&x);
}

/* --- full disks ------------------------------------------------------------------------------ */

/* Fills `dir` until a prepare fails; then everything before must be there, and after `relieve` the
 * failed version can be written. Runs in a child, whose limits end with it. */
static int fill_until_full(const char *dir, int expected, void (*relieve)(const char *))
{
    struct fake x;
    struct lh_store *st = NULL;
    fake_init(&x, 1);
    if (lh_store_open(&st, dir, &(struct lh_store_id){JOB, 0, 1}, 0) != 0)
        return 10;
    int rc = 0;
    uint64_t version = 0;
    while (rc == 0 && ++version < 100) {
        fake_fill(&x, version);
        rc = lh_store_prepare(st, &x.f[0]);
    }
    if (rc != expected || version < 2 || !strstr(lh_err_text(), "intact"))
        return 11;
    fprintf(stderr, "%s\n", lh_err_text());
    if (lh_store_prepare(st, &x.f[0]) >= 0)
        return 12;
    for (int again = 0; again < 2; again++) {
        for (uint64_t v = 1; v < version; v++) {
            if (lh_store_verify(st, v) != 0 || !content_is(st, &x.l, v))
                return 13;
        }
        lh_store_close(&st);
        if (lh_store_open(&st, dir, &(struct lh_store_id){JOB, 0, 1}, 0) != 0)
            return 14;
    }
    if (lh_store_verify(st, version) != LH_ENOENT)
        return 15;
    relieve(dir);
    if (lh_store_prepare(st, &x.f[0]) != 0 || lh_store_verify(st, version) != 0 ||
        !content_is(st, &x.l, version))
        return 16;
    lh_store_close(&st);
    fake_fini(&x);
    return 0;
}

static void lift_limit(const char *dir)
{
    (void)dir;
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

static void prepare_past_the_file_size_limit_keeps_earlier_versions(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){11 << 20, RLIM_INFINITY});
        _exit(fill_until_full(kit_path("s"), LH_EIO, lift_limit));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void free_space(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/../ballast", dir);
    unlink(path);
}

static void prepare_on_a_full_disk_keeps_earlier_versions(void **state)
{
    (void)state;
    const char *disk = kit_path("disk");
    assert_int_equal(mkdir(disk, 0777), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=16m") != 0)
        skip(); /* only root may */
    char *ballast = calloc(5, 1 << 20);
    kit_write_bytes(kit_path("disk/ballast"), ballast, 5 << 20);
    free(ballast);
    pid_t child = fork();
    if (child == 0)
        _exit(fill_until_full(kit_path("disk/s"), LH_ENOSPC, free_space));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    umount(disk);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Written as before it would succeed, and be nowhere. */
static void prepare_in_a_store_that_is_gone_fails_until_it_is_back(void **state)
{
    (void)state;
    static const char *const gone[] = {"mv s away", "mv s away && mkdir s",
                                       "mv s away && cp -a away s"};
    struct fake x;
    struct lh_store *st = NULL;
    fake_init(&x, 1);
    assert_ok(lh_store_open(&st, kit_path("s"), &(struct lh_store_id){JOB, 0, 1}, 0));
    for (uint64_t v = 1; v <= 3; v++) {
        fake_fill(&x, v);
        assert_int_equal(kit_run(NULL, "cd '%s' && %s", kit_dir(), gone[v - 1]), 0);
        for (int twice = 0; twice < 2; twice++)
            assert_err(lh_store_prepare(st, &x.f[0]), LH_EIO, "deleted, moved or replaced");
        assert_err(lh_store_commit(st, 1), LH_EIO, "s/data.mdb");
        assert_int_equal(kit_run(NULL, "cd '%s' && rm -rf s && mv away s", kit_dir()), 0);
        assert_ok(lh_store_prepare(st, &x.f[0]));
        assert_true(content_is(st, &x.l, v));
    }
    lh_store_close(&st);
    fake_fini(&x);
}

/* --- sudden death ---------------------------------------------------------------------------- */

static void prepare_for_ever(const char *dir, uint64_t version)
{
    struct fake x;
    struct lh_store *st = NULL;
    fake_init(&x, 1);
    if (lh_store_open(&st, dir, &(struct lh_store_id){JOB, 0, 1}, 0) != 0 ||
        lh_store_prune(st, (const uint64_t[]){version - 2, version - 1}, 2) != 0)
        _exit(1);
    for (;; version++) {
        fake_fill(&x, version);
        if (lh_store_prepare(st, &x.f[0]) != 0 || lh_store_commit(st, version) != 0 ||
            lh_store_prune(st, (const uint64_t[]){version - 1, version}, 2) != 0)
            _exit(1);
    }
}

static void killed_at_any_moment_every_prepared_version_is_whole(void **state)
{
    (void)state;
    struct fake x;
    fake_init(&x, 1);
    uint64_t newest = 0, first = 0;
    struct lh_rng_at at = {.seed = 9};
    /* on a busy machine a child may need longer to get anything done: wait longer each time */
    for (uint64_t round = 0; round < 25 || (newest <= first && round < 100); round++) {
        pid_t child = fork();
        if (child == 0)
            prepare_for_ever(kit_path("s"), newest + 1);
        const long ms = 20 + (long)lh_rng_below(&at, round, 60 + (round < 25 ? 0 : 9 * round));
        nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* it did not fail by itself */
        struct lh_store *st = serve("s", 0);
        struct lh_store_version *v = NULL;
        size_t n;
        assert_ok(lh_store_versions(st, &v, &n));
        assert_true(n <= 3);
        for (size_t i = 0; i < n; i++) {
            assert_ok(lh_store_verify(st, v[i].version));
            assert_true(content_is(st, &x.l, v[i].version));
        }
        assert_true(n == 0 || v[n - 1].version >= newest);
        newest = n > 0 ? v[n - 1].version : newest;
        first = first ? first : newest;
        lh_mem_free(v);
        lh_store_close(&st);
    }
    assert_true(newest > first); /* it did get on */
    struct stat file;
    assert_int_equal(stat(kit_path("s/data.mdb"), &file), 0);
    assert_true(file.st_size < 30 << 20); /* what the killed left behind is used again */
    fake_fini(&x);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct fake x;
    fake_init(&x, 1);
    for (uint64_t n = 1;; n++) {
        struct lh_store *st = NULL;
        struct lh_store_version *v = NULL;
        size_t count;
        fake_fill(&x, n);
        lh_mem_fail_at(n);
        int rc = lh_store_open(&st, kit_path("s"), &(struct lh_store_id){JOB, 0, 1}, 0);
        if (rc == 0)
            rc = lh_store_prepare(st, &x.f[0]);
        if (rc == 0)
            rc = lh_store_versions(st, &v, &count);
        lh_mem_fail_at(0);
        lh_mem_free(v);
        lh_store_close(&st);
        if (rc == 0) {
            assert_true(n > 3);
            break;
        }
        assert_int_equal(rc, LH_ENOMEM);
    }
    fake_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(two_phases_are_seen_in_versions),
        kit_test(prepare_sweeps_what_an_interrupted_one_left),
        kit_test(prune_gives_space_back_to_later_versions),
        kit_test(restore_onto_any_number_of_shards_continues_with_the_same_bits),
        kit_test(open_twice_to_serve_is_busy),
        kit_test(open_of_another_job_or_shard_names_both),
        kit_test(prepare_waits_for_a_reader_and_goes_on),
        kit_test(read_another_model_is_refused),
        kit_test(read_flipped_bits_anywhere_are_found_or_harmless),
        kit_test(open_file_cut_short_is_refused),
        kit_test(prepare_past_the_file_size_limit_keeps_earlier_versions),
        kit_test(prepare_in_a_store_that_is_gone_fails_until_it_is_back),
        kit_test(prepare_on_a_full_disk_keeps_earlier_versions),
        kit_test(killed_at_any_moment_every_prepared_version_is_whole),
        kit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
