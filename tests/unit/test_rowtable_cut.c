#include "tests/unit/rowtable_rig.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct lh_rowtable_spec plain = PLAIN_TABLE(5000);

/* --- cuts --------------------------------------------------------------------------------------
 */

static size_t count_files(const char *store)
{
    char *out = NULL;
    assert_int_equal(kit_run(&out, "ls '%s/tables/item' | wc -l", store), 0);
    const size_t n = (size_t)atoi(out);
    free(out);
    return n;
}

/* Frozen, and nothing else is done until it is settled. */
static int set_aside(struct lh_rowtable *t)
{
    int rc = lh_rowtable_freeze(t);
    while (rc == 0 && (rc = lh_rowtable_settle(t)) == LH_AGAIN)
        rc = 0;
    return rc;
}

static void cut(struct lh_rowtable *t)
{
    assert_ok(set_aside(t));
    assert_ok(lh_rowtable_prepare(t));
    lh_rowtable_tidy(t);
    lh_rowtable_thaw(t);
}

/* The cost of a cut is that of what changed, and files do not pile up. */
static void cuts_write_what_changed_and_merge_in_time(void **state)
{
    (void)state;
    enum { ROWS = 5000, CUTS = 100 };
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    struct lh_rowtable_stats before, after;
    uint64_t *ids = malloc(ROWS * sizeof *ids);
    float *g = calloc(ROWS * DIM, sizeof *g);
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i * i;
    spec.cache_bytes = 4 << 20;
    spec.max_ids = ROWS;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
    push_all(t, ids, ROWS, g);
    cut(t);
    for (uint64_t i = 1; i < CUTS; i++) {
        const uint64_t kept[] = {i, i + 1};
        lh_rowtable_stats(t, &before);
        push_all(t, ids + i, 3, g);
        cut(t);
        lh_rowtable_stats(t, &after);
        assert_int_equal(after.written - before.written, 3);
        assert_true(after.files <= 10 && after.rows_stored <= ROWS + 3 * i);
        assert_ok(lh_rowtable_prune(t, kept, 2));
        assert_true(count_files(kit_path("s")) <= 2 * 10 + 2);
        cut(t); /* nothing changed: another cut, the same files */
    }
    lh_rowtable_destroy(&t);
    free(ids);
    free(g);
}

static void restore_tells_what_does_not_fit(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = plain, other;
    struct lh_rowtable *t = NULL;
    const uint64_t id = 4;
    const float g[DIM] = {1};
    const char *dir = kit_path("s"), *both[] = {dir, dir};
    assert_ok(lh_rowtable_create(&t, &spec, dir));
    assert_ok(lh_rowtable_init(t));
    push_all(t, &id, 1, g);
    cut(t);
    assert_err(lh_rowtable_restore(t, 2, &dir, 1), LH_ENOENT, "tables/item/v2");
    assert_err(lh_rowtable_restore(t, 1, both, 2), LH_EMISMATCH, "is part 0 of 1 of its cut");
    assert_ok(lh_rowtable_restore(t, 1, &dir, 1));
    lh_rowtable_destroy(&t);
#define OTHER(field, value, text)                                                                  \
    do {                                                                                           \
        other = spec;                                                                              \
        other.field = value;                                                                       \
        assert_ok(lh_rowtable_create(&t, &other, dir));                                            \
        assert_err(lh_rowtable_restore(t, 1, &dir, 1), LH_EMISMATCH, text);                        \
        lh_rowtable_destroy(&t);                                                                   \
    } while (0)
    OTHER(job_digest, 1, "this is job 0000000000000001");
    OTHER(dim, 4, "rows of 5 elements, expected 4");
    OTHER(seed, 1, "another seed");
    OTHER(init_scale, 1, "another seed, scale");
    OTHER(admit_after, 2, "admission");
    OTHER(evict_after, 2, "eviction");
#undef OTHER
    assert_int_equal(kit_run(NULL, "mv '%s/tables/item' '%s/tables/user'", dir, dir), 0);
    other = spec;
    other.name = "user";
    assert_ok(lh_rowtable_create(&t, &other, dir));
    assert_err(lh_rowtable_restore(t, 1, &dir, 1), LH_EMISMATCH, "is not table user");
    lh_rowtable_destroy(&t);
}

/* Any flipped bit of any file is a sentence, or was in no place that counts. */
static void restore_from_damaged_files_is_a_sentence(void **state)
{
    (void)state;
    enum { ROWS = 300 };
    struct lh_rng_at at = {.seed = 41};
    struct lh_rowtable *t = NULL;
    uint64_t ids[ROWS];
    static float g[ROWS * DIM], want[ROWS * DIM], got[ROWS * DIM];
    const char *dir = kit_path("s");
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i * 1000003;
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, g, ROWS * DIM);
    assert_ok(lh_rowtable_create(&t, &plain, dir));
    assert_ok(lh_rowtable_init(t));
    push_all(t, ids, ROWS, g);
    assert_ok(lh_rowtable_pull(t, ids, ROWS, want));
    cut(t);
    lh_rowtable_destroy(&t);
    const char *files[] = {kit_path("s/tables/item/r0.mdb"), kit_path("s/tables/item/v1")};
    size_t told = 0;
    for (int round = 0; round < 400; round++) {
        size_t n;
        const char *path = files[round % 8 == 0];
        char *bytes = kit_read(path, &n), *bad = malloc(n);
        memcpy(bad, bytes, n);
        const size_t place = below(&at, 3) ? below(&at, n) : below(&at, n < 400 ? n : 400);
        bad[place] = (char)(bad[place] ^ 1 << below(&at, 8));
        kit_write_bytes(path, bad, below(&at, 9) ? n : place);
        assert_ok(lh_rowtable_create(&t, &plain, dir));
        int rc = lh_rowtable_restore(t, 1, &dir, 1);
        if (rc == 0)
            rc = lh_rowtable_pull(t, ids, ROWS, got);
        if (rc == 0) {
            assert_memory_equal(got, want, sizeof want);
        } else {
            assert_true(rc == LH_ECORRUPT || rc == LH_EFORMAT || rc == LH_EMISMATCH);
            kit_assert_contains(lh_err_text(), "tables/item/");
            told++;
        }
        lh_rowtable_destroy(&t);
        kit_write_bytes(path, bytes, n);
        free(bad);
        free(bytes);
    }
    assert_true(told > 100);
}

/* A damaged version that nobody restores is no reason to lose the others, or not to start. */
static void damaged_version_keeps_its_files_until_it_is_pruned(void **state)
{
    (void)state;
    struct lh_rowtable *t = NULL;
    const uint64_t id = 4, keep = 2;
    const float g[DIM] = {1};
    const char *dir = kit_path("s");
    assert_ok(lh_rowtable_create(&t, &plain, dir));
    assert_ok(lh_rowtable_init(t));
    for (int i = 0; i < 3; i++) {
        push_all(t, &id, 1, g);
        cut(t);
    }
    lh_rowtable_destroy(&t);
    kit_write(kit_path("s/tables/item/v1"), "nonsense");
    kit_write(kit_path("s/tables/item/v7.partial"), "half");
    kit_write(kit_path("s/tables/item/r77.mdb"), "of a server that was killed");
    assert_ok(lh_rowtable_create(&t, &plain, dir));
    assert_int_equal(count_files(dir), 3 + 4);
    assert_err(lh_rowtable_restore(t, 1, &dir, 1), LH_ECORRUPT, "tables/item/v1: checksum");
    assert_ok(lh_rowtable_restore(t, 2, &dir, 1));
    assert_ok(lh_rowtable_prune(t, &keep, 1));
    assert_int_equal(count_files(dir), 1 + 2);
    lh_rowtable_destroy(&t);
}

/* --- beside a writer -------------------------------------------------------------------------- */

enum { MORTAL = 400 };

static void mortal_step(struct lh_rowtable *t)
{
    uint64_t ids[MORTAL];
    static float g[MORTAL * DIM];
    const uint64_t step = lh_rowtable_version(t);
    size_t n = 0;
    lh_rng_normal(&(struct lh_rng_at){.seed = 8, .step = step}, g, MORTAL * DIM);
    for (uint64_t i = step % 3; i < MORTAL; i += 3)
        ids[n++] = i * 1000003;
    push_all(t, ids, n, g);
}

struct cutter {
    struct lh_rowtable *t;
    uint64_t version;
};

static void *cut_apart(void *arg)
{
    const struct cutter *c = arg;
    const uint64_t keep[] = {c->version - 1, c->version};
    assert_ok(lh_rowtable_prepare(c->t));
    lh_rowtable_tidy(c->t);
    assert_ok(lh_rowtable_prune(c->t, keep, 2));
    lh_rowtable_thaw(c->t);
    return NULL;
}

/* Steps and pulls while another thread prepares, merges and prunes: nothing of it is seen. */
static void steps_go_on_while_a_cut_is_written(void **state)
{
    (void)state;
    struct lh_rowtable_spec large = plain;
    struct lh_rowtable *t = NULL, *reference = NULL;
    uint64_t ids[MORTAL];
    float want[MORTAL * DIM], got[MORTAL * DIM];
    for (uint64_t i = 0; i < MORTAL; i++)
        ids[i] = i * 1000003;
    large.cache_bytes = 1 << 20;
    assert_ok(lh_rowtable_create(&t, &plain, kit_path("s")));
    assert_ok(lh_rowtable_create(&reference, &large, kit_path("reference")));
    assert_ok(lh_rowtable_init(t));
    assert_ok(lh_rowtable_init(reference));
    for (int round = 0; round < 40; round++) {
        pthread_t thread;
        struct cutter c = {t, lh_rowtable_version(t)};
        assert_ok(set_aside(t));
        assert_int_equal(pthread_create(&thread, NULL, cut_apart, &c), 0);
        for (int step = 0; step < 4; step++) {
            mortal_step(t);
            mortal_step(reference);
        }
        pthread_join(thread, NULL);
        assert_ok(lh_rowtable_pull(t, ids, MORTAL, got));
        assert_ok(lh_rowtable_pull(reference, ids, MORTAL, want));
        assert_memory_equal(got, want, sizeof want);
    }
    lh_rowtable_destroy(&t);
    lh_rowtable_destroy(&reference);
}

/* --- sudden death ------------------------------------------------------------------------------
 */

/* Steps, cuts and prunes until it is killed; tells each cut by a byte once it is there. */
static void live_on(const char *dir, uint64_t from, int told)
{
    struct lh_rowtable *t = NULL;
    if (lh_rowtable_create(&t, &plain, dir) < 0 ||
        (from > 0 ? lh_rowtable_restore(t, from, &dir, 1) : lh_rowtable_init(t)) < 0)
        _exit(1);
    for (;;) {
        for (int i = 0; i < 3; i++)
            mortal_step(t);
        if (set_aside(t) < 0 || lh_rowtable_prepare(t) < 0)
            _exit(2);
        if (write(told, "", 1) != 1)
            _exit(3);
        lh_rowtable_tidy(t);
        lh_rowtable_thaw(t);
        const uint64_t v = lh_rowtable_version(t), keep[] = {v - 3, v};
        if (lh_rowtable_prune(t, keep, 2) < 0)
            _exit(4);
    }
}

static void killed_at_any_moment_it_comes_back_at_the_last_cut(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 12};
    struct lh_rowtable *reference = NULL, *t = NULL;
    const char *dir = kit_path("s");
    uint64_t ids[MORTAL], cut_at = 0;
    float want[MORTAL * DIM], got[MORTAL * DIM];
    for (uint64_t i = 0; i < MORTAL; i++)
        ids[i] = i * 1000003;
    assert_ok(lh_rowtable_create(&reference, &plain, kit_path("reference")));
    assert_ok(lh_rowtable_init(reference));
    for (int life = 0; life < 15; life++) {
        int told[2];
        char byte;
        assert_int_equal(pipe(told), 0);
        pid_t child = fork();
        if (child == 0)
            live_on(dir, cut_at, told[1]);
        close(told[1]);
        for (uint64_t n = below(&at, 12) + 1; n > 0; n--) { /* at least one, and then some moment */
            assert_int_equal(read(told[0], &byte, 1), 1);
            cut_at += 3;
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)below(&at, 3000000)}, NULL);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(told[0], &byte, 1) == 1)
            cut_at += 3;
        close(told[0]);
        while (lh_rowtable_version(reference) < cut_at)
            mortal_step(reference);
        assert_ok(lh_rowtable_pull(reference, ids, MORTAL, want));
        assert_ok(lh_rowtable_create(&t, &plain, dir));
        assert_ok(lh_rowtable_restore(t, cut_at, &dir, 1));
        assert_ok(lh_rowtable_pull(t, ids, MORTAL, got));
        assert_memory_equal(got, want, sizeof want);
        lh_rowtable_destroy(&t);
    }
    lh_rowtable_destroy(&reference);
}

/* --- hard times --------------------------------------------------------------------------------
 */

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct lh_rowtable *t = NULL;
    const char *dir = kit_path("s");
    const uint64_t ids[] = {1, 2, 3};
    const float g[3 * DIM] = {1, 2, 3};
    struct lh_rowtable_spec two = plain;
    uint64_t nth = 0, frozen = 0;
    int rc, applied = 0;
    do {
        lh_mem_fail_at(++nth);
        rc = lh_rowtable_create(&t, &plain, dir);
        assert_true(rc == 0 || (rc == LH_ENOMEM && !t));
    } while (rc != 0);
    lh_mem_fail_at(0);
    assert_ok(lh_rowtable_init(t));
    for (int version = 0; version < 12; version++) { /* with merges on the way */
        const struct lh_rowtable_piece piece = {0, 3, 3, ids, g};
        nth = 0;
        do {
            lh_mem_fail_at(++nth);
            rc = lh_rowtable_push(t, (uint64_t)version, (struct lh_tree_node){2, 0}, &piece);
        } while (rc == LH_ENOMEM);
        do {
            lh_mem_fail_at(++nth);
            rc = lh_rowtable_advance(t, &applied);
        } while (rc == LH_ENOMEM);
        assert_ok(rc);
        nth = 0;
        do {
            lh_mem_fail_at(++nth);
            rc = set_aside(t);
        } while (rc == LH_ENOMEM);
        assert_ok(rc);
        frozen += nth;
        nth = 0;
        do {
            lh_mem_fail_at(++nth);
            rc = lh_rowtable_prepare(t);
        } while (rc == LH_ENOMEM);
        assert_ok(rc);
        lh_mem_fail_at((uint64_t)version % 5);
        lh_rowtable_tidy(t); /* says so and leaves it */
        lh_mem_fail_at(0);
        lh_rowtable_thaw(t);
    }
    assert_true(frozen > 24);
    float want[3 * DIM], got[3 * DIM];
    assert_ok(lh_rowtable_pull(t, ids, 3, want));
    lh_rowtable_destroy(&t);
    two.shards = 2;
    for (uint32_t shard = 0; shard < 3; shard++) { /* 2: the one of one */
        const struct lh_rowtable_spec *spec = shard < 2 ? &two : &plain;
        two.shard = shard;
        assert_ok(lh_rowtable_create(&t, spec, shard == 2 ? dir : kit_path("other")));
        nth = 0;
        do {
            lh_mem_fail_at(++nth);
            rc = lh_rowtable_restore(t, 12, &dir, 1);
        } while (rc == LH_ENOMEM);
        lh_mem_fail_at(0);
        assert_ok(rc);
        assert_true(nth > 5);
        for (size_t i = 0; i < 3; i++) {
            if (shard == 2 || lh_rowlist_shard(ids[i], 2) == shard) {
                assert_ok(lh_rowtable_pull(t, &ids[i], 1, got));
                assert_memory_equal(got, want + i * DIM, DIM * sizeof *got);
            }
        }
        lh_rowtable_destroy(&t);
    }
}

/* --- memory ------------------------------------------------------------------------------------
 */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* Private writable memory of this process, in bytes, as RLIMIT_DATA counts it. */
static size_t data_size(void)
{
    char line[200];
    size_t kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "VmData:", 7) == 0)
            kb = strtoul(line + 7, NULL, 10);
    }
    if (f)
        fclose(f);
    return kb << 10;
}

enum { WIDE = 32, BIG = 120000, PART = 4000 };

/* Each row is updated three times, in another order each time; with cuts and merges. */
static int train_large(const char *dir)
{
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    struct lh_rowtable_stats stats;
    static uint64_t ids[PART];
    static float g[PART * WIDE], w[WIDE];
    spec.dim = WIDE;
    spec.init_scale = 0;
    spec.max_ids = PART;
    spec.cache_bytes = 4 << 20; /* the table has 49 MB */
    for (size_t i = 0; i < PART * WIDE; i++)
        g[i] = 1;
    /* The tree holds the step's rows three times at most; LMDB a batch, and lists of pages for the
     * run that is written and the one that is merged. */
    const size_t room = spec.cache_bytes + 3 * 2 * sizeof g + (32 << 20);
    if (!SANITIZED)
        setrlimit(RLIMIT_DATA, &(struct rlimit){data_size() + room, RLIM_INFINITY});
    if (lh_rowtable_create(&t, &spec, dir) < 0 || lh_rowtable_init(t) < 0)
        return 1;
    for (uint64_t pass = 0; pass < 3; pass++) {
        for (uint64_t part = 0; part < BIG / PART; part++) {
            const uint64_t stride = pass == 1 ? BIG / PART : 1;
            const uint64_t first = pass == 1 ? part : part * PART;
            int applied = 0;
            for (uint64_t i = 0; i < PART; i++)
                ids[i] = (first + i * stride) * 0x1000003;
            const struct lh_rowtable_piece piece = {0, PART, PART, ids, g};
            if (lh_rowtable_push(t, lh_rowtable_version(t), (struct lh_tree_node){2, 0}, &piece) <
                    0 ||
                lh_rowtable_advance(t, &applied) < 0) {
                fprintf(stderr, "%s\n", lh_err_text());
                return 2;
            }
            if (part % 3 == 2)
                cut(t);
        }
    }
    lh_rowtable_stats(t, &stats);
    if (stats.cache_bytes > spec.cache_bytes || stats.hits + stats.misses != 3 * BIG ||
        stats.hits > BIG / 2)
        return 3;
    for (uint64_t i = 0; i < BIG; i += 97) {
        if (lh_rowtable_pull(t, &(uint64_t){i * 0x1000003}, 1, w) < 0 ||
            fabsf(w[WIDE - 1] + 0.15f) > 1e-5f)
            return 4;
    }
    lh_rowtable_destroy(&t);
    return 0;
}

static void table_of_many_times_the_cache_trains_under_a_memory_limit(void **state)
{
    (void)state;
    assert_int_equal(kit_in_a_child(train_large, kit_path("s")), 0);
}

static void warm_steps_and_pulls_allocate_nothing(void **state)
{
    (void)state;
    enum { ROWS = 1000 };
    struct lh_rowtable_spec spec = plain;
    struct lh_rowtable *t = NULL;
    uint64_t ids[ROWS], before = 0;
    static float g[ROWS * DIM], w[ROWS * DIM];
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i * 77;
    spec.max_ids = ROWS;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
    for (int step = 0; step < 15; step++) { /* most rows are fetched and written back */
        if (step == 5)
            before = lh_mem_count();
        assert_ok(lh_rowtable_pull(t, ids, ROWS, w));
        push_all(t, ids, ROWS, g);
    }
    assert_int_equal(lh_mem_count(), before);
    lh_rowtable_destroy(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(cuts_write_what_changed_and_merge_in_time),
        kit_test(restore_tells_what_does_not_fit),
        kit_test(restore_from_damaged_files_is_a_sentence),
        kit_test(damaged_version_keeps_its_files_until_it_is_pruned),
        kit_test(every_failed_allocation_is_survived),
        kit_test(table_of_many_times_the_cache_trains_under_a_memory_limit),
        kit_test(warm_steps_and_pulls_allocate_nothing),
        kit_test(steps_go_on_while_a_cut_is_written),
        kit_test(killed_at_any_moment_it_comes_back_at_the_last_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
