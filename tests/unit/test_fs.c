#include "common/fs.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void mkdirs_and_remove_tree_are_inverse(void **state)
{
    (void)state;
    assert_ok(lh_fs_mkdirs(kit_path("a/b/c")));
    assert_ok(lh_fs_mkdirs(kit_path("a/b/c")));
    kit_write(kit_path("a/b/f"), "x");
    kit_write(kit_path("keep"), "x");
    assert_int_equal(symlink(kit_path("keep"), kit_path("a/link")), 0);
    assert_ok(lh_fs_remove_tree(kit_path("a")));
    assert_false(lh_fs_exists(kit_path("a")));
    assert_true(lh_fs_exists(kit_path("keep"))); /* links are not followed */
    assert_ok(lh_fs_remove_tree(kit_path("a")));
    assert_err(lh_fs_mkdirs(kit_path("keep/x")), LH_ENOENT, "keep/x");
}

static void write_and_read_file_are_inverse(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    assert_ok(lh_fs_write_file(kit_path("f"), "abc\0d", 5));
    assert_ok(lh_fs_read_file(&text, &n, kit_path("f"), 5));
    assert_int_equal(n, 5);
    assert_memory_equal(text, "abc\0d", 6);
    lh_mem_free(text);
    assert_err(lh_fs_read_file(&text, &n, kit_path("f"), 4), LH_EFORMAT, "larger than 4 bytes");
    assert_err(lh_fs_read_file(&text, &n, kit_path("g"), 4), LH_ENOENT, "g");
    assert_err(lh_fs_write_file("/dev/full", "x", 1), LH_ENOSPC, "/dev/full");
}

static void partial_appears_whole_or_not_at_all(void **state)
{
    (void)state;
    struct lh_fs_partial p;
    assert_ok(lh_fs_partial_begin(&p, kit_path("d/"), false, "m"));
    assert_false(lh_fs_exists(kit_path("d")));
    char path[600];
    snprintf(path, sizeof path, "%s/m", p.path);
    kit_write(path, "1");
    /* the same target at the same time, and a second one of this process */
    struct lh_fs_partial q;
    assert_err(lh_fs_partial_begin(&q, kit_path("d"), false, "m"), LH_EBUSY, "in use");
    assert_ok(lh_fs_partial_commit(&p));
    assert_true(lh_fs_exists(kit_path("d/m")));
    assert_false(lh_fs_exists(kit_path("d/.lock")));
    assert_err(lh_fs_partial_begin(&p, kit_path("d"), false, "m"), LH_EEXIST, "already exists");

    assert_ok(lh_fs_partial_begin(&p, kit_path("d"), true, "m"));
    lh_fs_partial_abort(&p);
    assert_true(lh_fs_exists(kit_path("d/m")));
    assert_ok(lh_fs_partial_begin(&p, kit_path("d"), true, "m"));
    assert_ok(lh_fs_partial_commit(&p));
    assert_true(lh_fs_exists(kit_path("d")));
    assert_false(lh_fs_exists(kit_path("d/m"))); /* the new one has none */
    assert_err(lh_fs_partial_begin(&p, kit_path("d"), true, "m"), LH_EEXIST, "has no m");
    assert_int_equal(kit_run(NULL, "ls %s | grep partial", kit_dir()), 1);
}

static void partial_of_a_living_process_is_left_alone(void **state)
{
    (void)state;
    int ready[2], done[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        struct lh_fs_partial p;
        int rc = lh_fs_partial_begin(&p, kit_path("d"), false, "m");
        char c = rc == 0;
        if (write(ready[1], &c, 1) != 1 || read(done[0], &c, 1) != 1)
            _exit(2);
        _exit(0); /* dies without cleaning up */
    }
    char c = 0;
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 1);
    struct lh_fs_partial p;
    assert_ok(lh_fs_partial_begin(&p, kit_path("d"), false, "m"));
    assert_int_equal(kit_run(NULL, "ls -d %s.partial-%d", kit_path("d"), (int)child), 0);
    lh_fs_partial_abort(&p);
    assert_int_equal(write(done[1], "x", 1), 1);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_ok(lh_fs_partial_begin(&p, kit_path("d"), false, "m"));
    assert_int_not_equal(kit_run(NULL, "ls -d %s.partial-%d", kit_path("d"), (int)child), 0);
    lh_fs_partial_abort(&p);
    lh_fs_partial_abort(&p);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(done[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(mkdirs_and_remove_tree_are_inverse),
        kit_test(write_and_read_file_are_inverse),
        kit_test(partial_appears_whole_or_not_at_all),
        kit_test(partial_of_a_living_process_is_left_alone),
    };
    return cmocka_run_group_tests_name("fs", tests, NULL, NULL);
}
