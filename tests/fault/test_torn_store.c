/* Stores after what power cuts, bad disks and careless copies do to them: cut short, bits flipped,
 * pages and sectors zeroed or full of something else, writes of a transaction that came only in
 * part. From a seed, hundreds of damaged copies are opened as the program opens them, to read and
 * to serve. Each time, what is read of a version is what was written, to the bit, or there is one
 * sentence that names the store. Where the disk keeps the order of writes, nothing is lost at all.
 *
 * LONGHAUL_TEST_STORES: copies to try (400; a tenth as many through the program)
 * LONGHAUL_TEST_SEED: (1) */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/fs.h"
#include "common/rng.h"
#include "ps/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define JOB     0xabcdef0123456789u

enum { PAGE = 4096, SECTOR = 512, TENSORS = 40, FIRST = 10, VERSIONS = 4, NEXT = 99 };

enum damage { SHORTER, SHORTER_BY_PAGES, BITS, HEADERS, ZEROS, NOISE, TORN, DAMAGES };
static const char *const damage_names[DAMAGES] = {
    "cut short",    "cut short by pages",    "bits flipped", "page headers changed",
    "pages zeroed", "sectors full of noise", "torn writes"};

/* --- a store whose content is known --------------------------------------------------------------
 */
struct fake {
    char names[TENSORS][16];
    struct lh_param params[TENSORS];
    struct lh_layout layout;
    struct lh_frozen frozen;
    struct lh_shard *shard; /* to restore into */
    uint64_t updates[TENSORS];
    float *array[4]; /* weights, moments, targets, of frozen */
    size_t flat;
};

/* Every array is a function of version and place. */
static float value(uint64_t version, size_t array, size_t at)
{
    return (float)(version * 8 + array) + (float)at * 0x1p-17f;
}

static void fake_fill(struct fake *x, uint64_t version)
{
    for (size_t a = 0; a < 4; a++)
        for (size_t i = 0; i < x->flat; i++)
            x->array[a][i] = value(version, a, i);
    for (size_t i = 0; i < TENSORS; i++)
        x->updates[i] = version + i;
    x->frozen.version = version;
}

/* Small tensors, which share pages, and some that take pages of their own. */
static void fake_init(struct fake *x)
{
    static const struct lh_update_rule rules[] = {{"*", 1e-2, 1, 0.25, 1}};
    *x = (struct fake){0};
    for (size_t i = 0; i < TENSORS; i++) {
        size_t rows = i % 8 == 7 ? 150 + 10 * i : 2 + i, cols = i % 8 == 7 ? 12 : 4;
        snprintf(x->names[i], sizeof x->names[i], "t%02zu.weight", i);
        x->params[i] = (struct lh_param){x->names[i], rows, cols, x->flat, 3, true, true};
        x->flat += (rows * cols + 15) / 16 * 16;
    }
    const struct lh_layout_params from = {x->params, TENSORS, x->flat};
    assert_ok(lh_layout_init_params(&x->layout, &from, rules, 1, 1));
    for (size_t a = 0; a < 4; a++)
        assert_ok(LH_NEW_ARRAY(&x->array[a], x->flat, "test"));
    x->frozen = (struct lh_frozen){.range = &x->layout.shards[0],
                                   .updates = x->updates,
                                   .w = x->array[0],
                                   .m = x->array[1],
                                   .v = x->array[2],
                                   .target = x->array[3]};
    assert_ok(lh_shard_create(&x->shard, &(struct lh_shard_spec){.range = &x->layout.shards[0],
                                                                 .leaves = 1,
                                                                 .beta1 = 0.9,
                                                                 .beta2 = 0.999,
                                                                 .epsilon = 1e-8}));
}

static void fake_fini(struct fake *x)
{
    lh_shard_destroy(&x->shard);
    lh_layout_fini(&x->layout);
    for (size_t a = 0; a < 4; a++)
        lh_mem_free(x->array[a]);
}

static bool shard_holds(struct fake *x, uint64_t version)
{
    const struct lh_frozen *f = NULL;
    bool same = lh_shard_version(x->shard) == version;
    assert_ok(lh_shard_freeze(x->shard, &f));
    const float *const got[] = {f->w, f->m, f->v, f->target};
    for (size_t p = 0; p < TENSORS; p++) {
        const struct lh_param *t = &x->params[p];
        same = same && f->updates[p] == version + p;
        for (size_t a = 0; a < 4; a++)
            for (size_t i = t->offset; i < t->offset + t->rows * t->cols; i++)
                same = same && got[a][i] == value(version, a, i);
    }
    lh_shard_thaw(x->shard, f);
    return same;
}

/* --- opening it ---------------------------------------------------------------------------------
 */
struct tally {
    unsigned copies, whole, some, refused, served, not_served;
};

static void assert_sentence(const char *dir, int rc, const char *what)
{
    if (rc >= 0 || rc == LH_EINTERNAL || rc == LH_ENOMEM || !strstr(lh_err_text(), dir))
        fail_msg("%s: code %s, '%s'", what, lh_err_name(rc), lh_err_text());
}

/* What is there of a version, by all ways of reading it. 0: it is what was written. */
static int read_version(struct fake *x, const char *dir, struct lh_store *st, uint64_t version,
                        const char *what)
{
    int verified = lh_store_verify(st, version);
    if (verified < 0)
        assert_sentence(dir, verified, what);
    int rc = lh_store_restore(x->shard, version, (const char *const[]){dir}, 1, JOB);
    if (rc < 0)
        assert_sentence(dir, rc, what);
    else if (!shard_holds(x, version))
        fail_msg("%s: version %llu is not what was written", what, (unsigned long long)version);
    return rc;
}

/* How many versions are whole; -1: the store is refused. */
static int read_all(struct fake *x, const char *dir, const char *what)
{
    struct lh_store *st = NULL;
    struct lh_store_version *v = NULL;
    size_t n = 0;
    int whole = 0, rc = lh_store_open(&st, dir, NULL, 1);
    if (rc >= 0)
        rc = lh_store_versions(st, &v, &n);
    if (rc < 0) {
        assert_sentence(dir, rc, what);
        whole = -1;
    }
    for (size_t i = 0; i < n; i++)
        whole += read_version(x, dir, st, v[i].version, what) >= 0;
    lh_mem_free(v);
    lh_store_close(&st);
    return whole;
}

/* As a server takes it up: what no record lists goes, the newest is kept, and another follows. */
static bool serve(struct fake *x, const char *dir, const char *what)
{
    const uint64_t newest = FIRST + VERSIONS - 1;
    struct lh_store *st = NULL;
    int rc = lh_store_open(&st, dir, &(struct lh_store_id){JOB, 0, 1}, 0);
    if (rc >= 0)
        rc = lh_store_prune(st, &newest, 1);
    if (rc >= 0) {
        fake_fill(x, NEXT);
        rc = lh_store_prepare(st, &x->frozen);
    }
    if (rc >= 0)
        rc = lh_store_commit(st, NEXT);
    if (rc < 0) {
        assert_sentence(dir, rc, what);
    } else {
        rc = read_version(x, dir, st, NEXT, what);
        read_version(x, dir, st, newest, what);
    }
    lh_store_close(&st);
    return rc >= 0;
}

/* --- damage -------------------------------------------------------------------------------------
 */
struct image {
    unsigned char *bytes;
    size_t n;
};

struct source {
    struct image now, before; /* data.mdb, and what it was some transactions earlier */
    struct lh_rng_at rng;
    uint64_t drawn;
};

static struct image image_read(const char *path)
{
    struct image i = {0};
    i.bytes = (unsigned char *)kit_read(path, &i.n);
    return i;
}

static size_t draw(struct source *s, size_t below)
{
    return (size_t)lh_rng_below(&s->rng, s->drawn++, below);
}

/* Sectors of either image, as if some writes had come and others not; the first two pages, which
 * say what is valid, from `now` or from `before`. */
static struct image torn(struct source *s, bool old_metas)
{
    struct image i = {.n = s->now.n > s->before.n ? s->now.n : s->before.n};
    i.bytes = calloc(1, i.n);
    assert_non_null(i.bytes);
    size_t kept = (size_t)2 << draw(s, 9); /* for one that is lost */
    for (size_t at = 0; at < i.n; at += SECTOR) {
        bool metas = at < 2 * PAGE;
        const struct image *from = metas           ? (old_metas ? &s->before : &s->now)
                                   : draw(s, kept) ? &s->now
                                                   : &s->before;
        if (at < from->n)
            memcpy(i.bytes + at, from->bytes + at, SECTOR);
    }
    return i;
}

static struct image copy_of(const struct image *from)
{
    struct image i = {.bytes = malloc(from->n), .n = from->n};
    assert_non_null(i.bytes);
    memcpy(i.bytes, from->bytes, from->n);
    return i;
}

static struct image damaged(struct source *s, enum damage d)
{
    if (d == TORN)
        return torn(s, false);
    struct image i = copy_of(&s->now);
    size_t times = 1 + draw(s, 4), pages = i.n / PAGE;
    if (d == SHORTER)
        i.n = draw(s, i.n);
    if (d == SHORTER_BY_PAGES)
        i.n = draw(s, pages) * PAGE;
    for (; d >= BITS && times > 0; times--) {
        size_t page = draw(s, pages) * PAGE, sector = draw(s, i.n / SECTOR) * SECTOR;
        if (d == BITS)
            i.bytes[draw(s, i.n)] ^= (unsigned char)(1u << draw(s, 8));
        else if (d == HEADERS)
            i.bytes[page + draw(s, 64)] ^= (unsigned char)(1 + draw(s, 255));
        else if (d == ZEROS)
            memset(i.bytes + page, 0, PAGE);
        else
            for (size_t k = 0; k < SECTOR; k++)
                i.bytes[sector + k] = (unsigned char)draw(s, 256);
    }
    return i;
}

static void image_write(const struct image *i, const char *dir)
{
    char path[400];
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    mkdir(dir, 0777);
    kit_write_bytes(path, i->bytes, i->n);
}

static unsigned wanted(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* --- libraries ----------------------------------------------------------------------------------
 */
/* VERSIONS versions, of which the last came between `before` and `now`. */
static void make_source(struct fake *x, struct source *s)
{
    struct lh_store *st = NULL;
    uint64_t v = FIRST;
    assert_ok(lh_store_open(&st, kit_path("store"), &(struct lh_store_id){JOB, 0, 1}, 0));
    fake_fill(x, v - 1); /* pruned in the end, so that there are free pages */
    assert_ok(lh_store_prepare(st, &x->frozen));
    for (; v < FIRST + VERSIONS; v++) {
        if (v + 1 == FIRST + VERSIONS)
            s->before = image_read(kit_path("store/data.mdb"));
        fake_fill(x, v);
        assert_ok(lh_store_prepare(st, &x->frozen));
        assert_ok(lh_store_commit(st, v));
        assert_ok(
            lh_store_prune(st, (const uint64_t[]){FIRST, FIRST + 1, FIRST + 2, FIRST + 3}, 4));
    }
    lh_store_close(&st);
    s->now = image_read(kit_path("store/data.mdb"));
}

static void damaged_copies_give_what_was_written_or_a_sentence(void **state)
{
    (void)state;
    struct fake x;
    struct source s = {.rng = {.seed = wanted("LONGHAUL_TEST_SEED", 1)}};
    struct tally all[DAMAGES] = {{0}};
    unsigned copies = wanted("LONGHAUL_TEST_STORES", 400);
    char dir[300], what[100];
    snprintf(dir, sizeof dir, "%s", kit_path("copy"));
    fake_init(&x);
    make_source(&x, &s);
    assert_int_equal(read_all(&x, kit_path("store"), "the undamaged"), VERSIONS);
    for (unsigned c = 0; c < copies; c++) {
        enum damage d = (enum damage)(c % DAMAGES);
        struct tally *t = &all[d];
        struct image i = damaged(&s, d);
        snprintf(what, sizeof what, "copy %u, %s", c, damage_names[d]);
        image_write(&i, dir);
        free(i.bytes);
        int whole = read_all(&x, dir, what);
        t->copies++;
        t->whole += whole == VERSIONS;
        t->some += whole > 0 && whole < VERSIONS;
        t->refused += whole <= 0;
        if (c / DAMAGES % 4 == 0) /* it syncs, which takes its time */
            ++*(serve(&x, dir, what) ? &t->served : &t->not_served);
        assert_ok(lh_fs_remove_tree(dir));
    }
    for (int d = 0; d < DAMAGES; d++)
        printf("%-22s %5u copies: %5u whole, %5u with some versions, %5u refused; %4u served on, "
               "%4u not\n",
               damage_names[d], all[d].copies, all[d].whole, all[d].some, all[d].refused,
               all[d].served, all[d].not_served);
    free(s.now.bytes);
    free(s.before.bytes);
    fake_fini(&x);
}

/* One transaction came in part, and not its last page: as if it had not begun. */
static void writes_that_came_in_order_leave_every_earlier_version_whole(void **state)
{
    (void)state;
    struct fake x;
    struct source s = {.rng = {.seed = wanted("LONGHAUL_TEST_SEED", 1), .purpose = 1}};
    unsigned copies = wanted("LONGHAUL_TEST_STORES", 400) / 8;
    char dir[300];
    snprintf(dir, sizeof dir, "%s", kit_path("copy"));
    fake_init(&x);
    make_source(&x, &s);
    for (int op = 0; op < 2; op++) { /* of one transaction each */
        struct lh_store *st = NULL;
        free(s.before.bytes);
        s.before = s.now;
        assert_ok(lh_store_open(&st, kit_path("store"), &(struct lh_store_id){JOB, 0, 1}, 0));
        assert_ok(op == 0 ? lh_store_commit(st, FIRST + 1)
                          : lh_store_prune(st, (const uint64_t[]){FIRST + 2, FIRST + 3}, 2));
        lh_store_close(&st);
        s.now = image_read(kit_path("store/data.mdb"));
        assert_true(s.now.n != s.before.n || memcmp(s.now.bytes, s.before.bytes, s.now.n) != 0);
        for (unsigned c = 0; c < copies; c++) {
            struct image i = torn(&s, true);
            image_write(&i, dir);
            free(i.bytes);
            assert_int_equal(read_all(&x, dir, "in order"), VERSIONS);
            assert_ok(lh_fs_remove_tree(dir));
        }
    }
    free(s.now.bytes);
    free(s.before.bytes);
    fake_fini(&x);
}

/* --- the program --------------------------------------------------------------------------------
 */
static void damaged_runs_are_resumed_to_the_same_bits_or_refused_in_one_line(void **state)
{
    (void)state;
    enum { STEPS = 40, EVERY = 10, STOP = 30 };
    struct source s = {.rng = {.seed = wanted("LONGHAUL_TEST_SEED", 1), .purpose = 2}};
    struct lh_train_result result;
    unsigned copies = wanted("LONGHAUL_TEST_STORES", 400) / 10, went_on = 0;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(STEPS, EVERY, NULL);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    opt.dir = kit_path("stopped");
    for (uint64_t stop = STOP - EVERY; stop <= STOP; stop += EVERY) {
        s.before = s.now;
        opt.stop_after = stop;
        assert_ok(lh_train(job, &opt, &result));
        opt.resume = true;
        s.now = image_read(kit_path("stopped/store-0/data.mdb"));
    }
    for (unsigned c = 0; c < copies; c++) {
        enum damage d = (enum damage)(c % DAMAGES);
        struct image i = damaged(&s, d);
        char what[100], *said = NULL;
        snprintf(what, sizeof what, "run %u, %s", c, damage_names[d]);
        assert_int_equal(kit_run(NULL, "cp -a '%s' '%s'", kit_path("stopped"), kit_path("run")), 0);
        image_write(&i, kit_path("run/store-0"));
        free(i.bytes);
        int status =
            kit_run(&said, PROGRAM " train '%s' --dir '%s' --resume --no-evaluation --quiet",
                    kit_path("job.yaml"), kit_path("run"));
        if (status == 0) {
            trainkit_assert_same(&want, kit_path("run"), what);
            went_on++;
        } else {
            const char *newline = strchr(said, '\n');
            if (status < 3 || status > 4 || !newline || newline[1] || !strstr(said, "run/store-0"))
                fail_msg("%s: status %d: %s", what, status, said);
        }
        free(said);
        assert_ok(lh_fs_remove_tree(kit_path("run")));
    }
    printf("%u runs: %u resumed to the same weights, %u refused\n", copies, went_on,
           copies - went_on);
    free(s.now.bytes);
    free(s.before.bytes);
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(damaged_copies_give_what_was_written_or_a_sentence),
        kit_test(writes_that_came_in_order_leave_every_earlier_version_whole),
        kit_test(damaged_runs_are_resumed_to_the_same_bits_or_refused_in_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
