/* A table that steps while a version of it is set aside: many rows, so that it is settled in many
 * slices, and steps in between that name some of them. */
#include "tests/unit/rowtable_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 9000, SOME = 700 };

static const struct lh_rowtable_spec plain = PLAIN_TABLE(MANY);

static void many_ids(uint64_t *ids)
{
    for (uint64_t i = 0; i < MANY; i++)
        ids[i] = i * 1000003;
}

/* Of four steps two name all, the others some, neighbours and far ones. */
static void broad_step(struct lh_rowtable *t)
{
    static uint64_t all[MANY], ids[MANY];
    static float g[MANY * DIM];
    const uint64_t step = lh_rowtable_version(t);
    const bool whole = step % 4 < 2;
    size_t n = 0;
    many_ids(all);
    lh_rng_normal(&(struct lh_rng_at){.seed = 8, .step = step}, g, MANY * DIM);
    for (uint64_t i = 0, gap = 0; i < MANY && (whole || n < SOME); gap++) {
        ids[n++] = all[i];
        i += whole ? 1 : 1 + (step + gap) % 3 * (gap % 7) * 4;
    }
    push_all(t, ids, n, g);
}

static struct lh_rowtable_spec broad(size_t cache_rows)
{
    struct lh_rowtable_spec spec = plain;
    spec.cache_bytes = cache_rows * (12 * DIM + 64) / 14 * 16;
    return spec;
}

static void assert_same_rows(struct lh_rowtable *t, struct lh_rowtable *reference)
{
    static uint64_t ids[MANY];
    static float want[MANY * DIM], got[MANY * DIM];
    many_ids(ids);
    assert_int_equal(lh_rowtable_version(t), lh_rowtable_version(reference));
    assert_ok(lh_rowtable_pull(reference, ids, MANY, want));
    assert_ok(lh_rowtable_pull(t, ids, MANY, got));
    assert_memory_equal(got, want, sizeof want);
}

/* A copy of the directory, as a kill would leave it, holds that version. */
static void assert_cut_is(const struct lh_rowtable_spec *spec, uint64_t version)
{
    struct lh_rowtable *t = NULL, *reference = NULL;
    char path[600];
    const char *copy = path;
    snprintf(path, sizeof path, "%s/copy", kit_dir());
    assert_int_equal(kit_run(NULL, "cd '%s' && rm -rf copy reference && cp -r s copy", kit_dir()),
                     0);
    struct lh_rowtable_spec large = broad(2 * MANY);
    assert_ok(lh_rowtable_create(&reference, &large, kit_path("reference")));
    assert_ok(lh_rowtable_init(reference));
    while (lh_rowtable_version(reference) < version)
        broad_step(reference);
    assert_ok(lh_rowtable_create(&t, spec, copy));
    assert_ok(lh_rowtable_restore(t, version, &copy, 1));
    assert_same_rows(t, reference);
    lh_rowtable_destroy(&t);
    lh_rowtable_destroy(&reference);
}

static int set_aside(struct lh_rowtable *t)
{
    int rc = lh_rowtable_freeze(t);
    while (rc == 0 && (rc = lh_rowtable_settle(t)) == LH_AGAIN)
        rc = 0;
    return rc;
}

/* Settles, with a step after every `every` slices (0: none); returns how many steps. */
static int settle_with_steps(struct lh_rowtable *t, int every)
{
    int rc, slices = 0, steps = 0;
    while ((rc = lh_rowtable_settle(t)) == LH_AGAIN) {
        if (every > 0 && ++slices % every == 0) {
            broad_step(t);
            steps++;
        }
    }
    assert_ok(rc);
    return steps;
}

/* The cut is the version at which the table was frozen, whatever came before it was written: with
 * all rows in memory, with a tenth, and with so few that a step takes more slots than there are. */
static void version_is_that_of_the_freeze_whatever_is_stepped_in_between(void **state)
{
    (void)state;
    static const size_t cached[] = {2 * MANY, MANY / 10, 1};
    for (size_t i = 0; i < 3; i++) {
        struct lh_rowtable_spec spec = broad(cached[i]);
        struct lh_rowtable *t = NULL;
        kit_run(NULL, "rm -rf '%s/s'", kit_dir());
        assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
        assert_ok(lh_rowtable_init(t));
        broad_step(t);
        for (int every = 1; every < 4; every++) {
            const uint64_t version = lh_rowtable_version(t);
            assert_ok(lh_rowtable_freeze(t));
            broad_step(t);
            assert_int_equal(lh_rowtable_freeze(t), LH_AGAIN);
            assert_true(settle_with_steps(t, every) > 0 || cached[i] < MANY || every > 1);
            broad_step(t);
            assert_int_equal(lh_rowtable_freeze(t), LH_AGAIN);
            assert_ok(lh_rowtable_prepare(t));
            lh_rowtable_thaw(t);
            assert_cut_is(&spec, version);
        }
        lh_rowtable_destroy(&t);
    }
}

/* However many rows were changed, a call writes few. */
static void settling_writes_little_at_a_time(void **state)
{
    (void)state;
    struct lh_rowtable_spec spec = broad(2 * MANY);
    struct lh_rowtable *t = NULL;
    struct lh_rowtable_stats before, after;
    int rc;
    assert_ok(lh_rowtable_create(&t, &spec, kit_path("s")));
    assert_ok(lh_rowtable_init(t));
    broad_step(t);
    lh_rowtable_stats(t, &before);
    assert_int_equal(before.rows_changed, MANY);
    assert_ok(lh_rowtable_freeze(t));
    do {
        rc = lh_rowtable_settle(t);
        lh_rowtable_stats(t, &after);
        assert_true(after.written - before.written <= 512);
        before = after;
    } while (rc == LH_AGAIN);
    assert_ok(rc);
    assert_int_equal(after.written, MANY);
    assert_int_equal(after.rows_changed, 0);
    lh_rowtable_thaw(t);
    lh_rowtable_destroy(&t);
}

struct doomed {
    const char *dir;
    uint64_t from; /* the cut it goes on from */
    long calls;    /* it makes before it dies */
};

/* Steps, and cuts with steps between slices; dies after so many calls of the second cut. */
static int die_between_slices(const struct doomed *d, const struct lh_rowtable_spec *spec)
{
    struct lh_rowtable *t = NULL;
    long calls = d->calls;
    int rc = 0;
    if (lh_rowtable_create(&t, spec, d->dir) < 0 ||
        (d->from > 0 ? lh_rowtable_restore(t, d->from, &d->dir, 1) : lh_rowtable_init(t)) < 0)
        return 1;
    if (d->from == 0) {
        broad_step(t);
        return set_aside(t) < 0 || lh_rowtable_prepare(t) < 0;
    }
    broad_step(t);
    if (calls-- == 0)
        raise(SIGKILL);
    rc = lh_rowtable_freeze(t);
    while (rc == 0 && calls-- > 0) {
        rc = lh_rowtable_settle(t) == LH_AGAIN ? 0 : 1;
        if (rc == 0 && calls % 2)
            broad_step(t);
    }
    if (calls < 0)
        raise(SIGKILL);
    return lh_rowtable_prepare(t) < 0 ? 3 : 4;
}

static void killed_between_slices_it_comes_back_at_the_last_cut(void **state)
{
    (void)state;
    static const size_t cached[] = {2 * MANY, MANY / 10};
    char dir[600];
    int killed = 0;
    snprintf(dir, sizeof dir, "%s/s", kit_dir());
    for (size_t i = 0; i < 2; i++) {
        const struct lh_rowtable_spec spec = broad(cached[i]);
        int status = 0;
        kit_run(NULL, "rm -rf '%s/s'", kit_dir());
        for (struct doomed d = {.dir = dir}; status == 0 || WIFSIGNALED(status); d.calls++) {
            pid_t child = fork();
            if (child == 0)
                _exit(die_between_slices(&d, &spec));
            assert_int_equal(waitpid(child, &status, 0), child);
            if (d.from == 0) {
                assert_int_equal(status, 0);
                d.from = 1;
                d.calls = -1;
                continue;
            }
            killed += WIFSIGNALED(status);
            assert_cut_is(&spec, 1);
        }
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 4);
        assert_cut_is(&spec, 2);
    }
    assert_true(killed > 12);
}

/* --- a disk that takes nothing ------------------------------------------------------------------
 */
struct disk {
    const char *dir;
    int error;
    void (*make_room)(const char *);
    void (*fill_up)(const char *);
};

static void step_both(struct lh_rowtable *t, struct lh_rowtable *reference)
{
    broad_step(t);
    broad_step(reference);
}

/* With all rows in memory steps need no disk: they go on, the version is given up and says why, and
 * the next is whole when there is room, however far the one before had come. */
static int give_versions_up(const struct disk *d)
{
    struct lh_rowtable_spec spec = broad(2 * MANY);
    struct lh_rowtable *t = NULL, *reference = NULL;
    int given_up = 0;
    assert_ok(lh_rowtable_create(&t, &spec, d->dir));
    assert_ok(lh_rowtable_create(&reference, &spec, kit_path("other")));
    assert_ok(lh_rowtable_init(t));
    assert_ok(lh_rowtable_init(reference));
    for (int slices = 0; slices < 12; slices++) {
        do /* all rows are changed */
            step_both(t, reference);
        while (lh_rowtable_version(t) % 4 != 2);
        int rc = lh_rowtable_freeze(t);
        for (int i = 0; rc == 0 && i < slices; i++) {
            rc = lh_rowtable_settle(t) == LH_AGAIN ? 0 : 1;
            if (i == 0)
                step_both(t, reference);
        }
        d->fill_up(d->dir);
        if (slices % 2 >
            0) { /* a step needs what is not written, and there is no room for copies */
            while (lh_rowtable_version(t) % 4 != 1)
                step_both(t, reference);
            d->make_room(d->dir);
        }
        while (rc == 0 && (rc = lh_rowtable_settle(t)) == LH_AGAIN)
            rc = 0;
        if (rc < 0) {
            given_up++;
            assert_int_equal(rc, d->error);
            assert_int_equal(lh_rowtable_settle(t), d->error); /* it stays so */
        }
        step_both(t, reference);
        d->make_room(d->dir);
        if (rc >= 0)
            lh_rowtable_abandon(t);
        const uint64_t version = lh_rowtable_version(t);
        if (slices % 3 > 0) /* what was given up may be given up once more */
            continue;
        assert_ok(set_aside(t));
        assert_ok(lh_rowtable_prepare(t));
        lh_rowtable_thaw(t);
        assert_ok(lh_rowtable_prune(t, &version, 1));
        assert_same_rows(t, reference);
        lh_rowtable_destroy(&t);
        assert_ok(lh_rowtable_create(&t, &spec, d->dir));
        assert_ok(lh_rowtable_restore(t, version, &d->dir, 1));
        assert_same_rows(t, reference);
    }
    lh_rowtable_destroy(&t);
    lh_rowtable_destroy(&reference);
    return given_up < 8;
}

/* Steps until the disk is full, at whatever point, again and again; with room it goes on, and no
 * row was lost or updated twice. */
static int step_on(const struct disk *d)
{
    enum { ROWS = 3000 };
    const char *dir = d->dir;
    struct lh_rowtable_spec spec = broad(1);
    struct lh_rowtable *t = NULL, *reference = NULL;
    static uint64_t ids[ROWS];
    static float g[ROWS * DIM], want[ROWS * DIM], got[ROWS * DIM];
    int failed = 0;
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i * 1000003;
    lh_rng_normal(&(struct lh_rng_at){.seed = 2}, g, ROWS * DIM);
    assert_ok(lh_rowtable_create(&t, &spec, dir));
    spec.cache_bytes = 4 << 20;
    assert_ok(lh_rowtable_create(&reference, &spec, kit_path("reference")));
    assert_ok(lh_rowtable_init(t));
    assert_ok(lh_rowtable_init(reference));
    for (uint64_t step = 0; step < 6; step++) {
        int applied = 0, rc;
        push_all(reference, ids, ROWS, g);
        assert_ok(lh_rowtable_push(t, step, (struct lh_tree_node){2, 0},
                                   &(struct lh_rowtable_piece){0, ROWS, ROWS, ids, g}));
        d->fill_up(dir);
        while ((rc = lh_rowtable_advance(t, &applied)) < 0) {
            assert_int_equal(rc, d->error);
            failed++;
            d->make_room(dir);
        }
        d->fill_up(dir);
        while ((rc = set_aside(t)) < 0) {
            assert_int_equal(rc, d->error);
            failed++;
            d->make_room(dir);
        }
        d->fill_up(dir);
        while ((rc = lh_rowtable_prepare(t)) < 0) {
            assert_int_equal(rc, d->error);
            failed++;
            d->make_room(dir);
        }
        d->make_room(dir);
        lh_rowtable_thaw(t);
        assert_ok(lh_rowtable_pull(reference, ids, ROWS, want));
        assert_ok(lh_rowtable_pull(t, ids, ROWS, got));
        assert_memory_equal(got, want, sizeof want);
        assert_ok(lh_rowtable_prune(t, &(uint64_t){step + 1}, 1));
    }
    lh_rowtable_destroy(&t);
    lh_rowtable_destroy(&reference);
    return failed < 3;
}

static void lift_limit(const char *dir)
{
    (void)dir;
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

static void set_limit(const char *dir)
{
    (void)dir;
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){20000, RLIM_INFINITY});
}

static int limited(const char *dir)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct disk d = {dir, LH_EIO, lift_limit, set_limit};
    return step_on(&d) || give_versions_up(&d);
}

static void table_past_the_file_size_limit_goes_on_with_room(void **state)
{
    (void)state;
    assert_int_equal(kit_in_a_child(limited, kit_path("s")), 0);
}

static void free_space(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/../ballast", dir);
    unlink(path);
}

static void take_space(const char *dir)
{
    static const char zeros[1 << 12];
    char path[600];
    snprintf(path, sizeof path, "%s/../ballast", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    close(fd);
}

static int filled(const char *dir)
{
    const struct disk d = {dir, LH_ENOSPC, free_space, take_space};
    return step_on(&d) || give_versions_up(&d);
}

static void table_on_a_full_disk_goes_on_with_room(void **state)
{
    (void)state;
    const char *disk = kit_path("disk");
    assert_int_equal(mkdir(disk, 0777), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=12m") != 0)
        skip(); /* only root may */
    const int failed = kit_in_a_child(filled, kit_path("disk/s"));
    umount(disk);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(version_is_that_of_the_freeze_whatever_is_stepped_in_between),
        kit_test(settling_writes_little_at_a_time),
        kit_test(killed_between_slices_it_comes_back_at_the_last_cut),
        kit_test(table_past_the_file_size_limit_goes_on_with_room),
        kit_test(table_on_a_full_disk_goes_on_with_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
