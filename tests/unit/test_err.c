#include "tests/testkit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static void err_set_own_text_as_argument_keeps_it(void **state)
{
    (void)state;
    lh_err_set(LH_EIO, "first");
    assert_int_equal(lh_err_set(LH_ECONFIG, "outer: %s", lh_err_text()), LH_ECONFIG);
    assert_string_equal(lh_err_text(), "outer: first");
}

static void err_set_control_characters_are_replaced(void **state)
{
    (void)state;
    lh_err_set(LH_EIO, "a\x1b[31mb\nc");
    assert_string_equal(lh_err_text(), "a?[31mb?c");
}

/* The second set of controls steers terminals, too: alone in Latin-1, or in UTF-8. */
static void err_set_controls_beyond_ascii_are_replaced(void **state)
{
    (void)state;
    lh_err_set(LH_EPEER, "failed: %s",
               "a\xc2\x9b"
               "2Jb\x9b"
               "c\xe2\x80\xa6\xe2\x80\x99\xc3\xa9\xc2\xa0");
    assert_string_equal(lh_err_text(), "failed: a??2Jb?c\xe2\x80\xa6\xe2\x80\x99\xc3\xa9\xc2\xa0");
}

static void err_set_long_text_is_cut(void **state)
{
    (void)state;
    char text[2 * LH_ERR_MAX];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    lh_err_set(LH_EIO, "%s", text);
    assert_int_equal(strlen(lh_err_text()), LH_ERR_MAX - 1);
}

static void err_errno_maps_the_system_code(void **state)
{
    (void)state;
    assert_int_equal(lh_err_errno(ENOENT, "f"), LH_ENOENT);
    assert_string_equal(lh_err_text(), "f: No such file or directory");
    assert_int_equal(lh_err_errno(ENOSPC, "f"), LH_ENOSPC);
    assert_int_equal(lh_err_errno(EROFS, "f"), LH_EACCES);
    assert_int_equal(lh_err_errno(EBADF, "f"), LH_EIO);
}

static void err_prefix_puts_context_in_front(void **state)
{
    (void)state;
    lh_err_set(LH_EFORMAT, "row 3");
    assert_int_equal(lh_err_prefix(LH_EFORMAT, "file %s", "x"), LH_EFORMAT);
    assert_string_equal(lh_err_text(), "file x: row 3");
}

static void *other_thread(void *arg)
{
    lh_err_set(LH_EIO, "other");
    lh_err_save(arg, LH_EIO);
    return NULL;
}

static void err_save_carries_code_and_text_across_threads(void **state)
{
    (void)state;
    struct lh_err e;
    pthread_t t;
    lh_err_set(LH_ECONFIG, "mine");
    assert_int_equal(pthread_create(&t, NULL, other_thread, &e), 0);
    pthread_join(t, NULL);
    assert_string_equal(lh_err_text(), "mine");
    assert_int_equal(lh_err_load(&e), LH_EIO);
    assert_string_equal(lh_err_text(), "other");
}

static void err_names_and_statuses_follow_the_list(void **state)
{
    (void)state;
    assert_string_equal(lh_err_name(LH_ECONFIG), "config");
    assert_string_equal(lh_err_kind(LH_EUSAGE), "the command line is not understood");
    assert_string_equal(lh_err_kind(LH_NOTFOUND), "no error");
    assert_string_equal(lh_err_kind(-9999), "an unknown error");
    assert_string_equal(lh_err_name(-9999), "unknown");
    assert_int_equal(lh_err_exit_status(LH_EUSAGE), 2);
    assert_int_equal(lh_err_exit_status(LH_ENOMEM), 5);
    assert_int_equal(lh_err_exit_status(LH_EDIVERGED), 7);
    assert_int_equal(lh_err_exit_status(LH_NOTFOUND), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(err_set_own_text_as_argument_keeps_it),
        kit_test(err_set_control_characters_are_replaced),
        kit_test(err_set_controls_beyond_ascii_are_replaced),
        kit_test(err_set_long_text_is_cut),
        kit_test(err_errno_maps_the_system_code),
        kit_test(err_prefix_puts_context_in_front),
        kit_test(err_save_carries_code_and_text_across_threads),
        kit_test(err_names_and_statuses_follow_the_list),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
