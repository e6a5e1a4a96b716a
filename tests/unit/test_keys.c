/* Keys and their files: what is written is read again; what is not a key file, or is somebody
 * else's, is refused with a line. */
#include "common/keys.h"

#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct lh_keys scheduler_with(size_t workers, struct lh_keys *worker)
{
    struct lh_keys s;
    assert_ok(lh_keys_make(&s, LH__ROLE__ROLE_SCHEDULER, "scheduler", NULL));
    for (size_t i = 0; i < workers; i++) {
        assert_ok(lh_keys_make(&worker[i], LH__ROLE__ROLE_WORKER, "worker", &s.own));
        assert_ok(lh_keys_allow(&s, &worker[i].own));
    }
    return s;
}

static void load_gives_what_was_saved(void **state)
{
    (void)state;
    struct lh_keys worker[2], read;
    struct lh_keys s = scheduler_with(2, worker);
    assert_ok(lh_keys_allow(&s, &worker[0].own)); /* is there already */
    assert_int_equal(s.n_allowed, 2);
    assert_string_not_equal(worker[0].own.key, worker[1].own.key);
    assert_ok(lh_keys_save(&s, kit_path("s")));
    assert_ok(lh_keys_load(&read, kit_path("s"), LH__ROLE__ROLE_SCHEDULER));
    assert_string_equal(read.own.key, s.own.key);
    assert_string_equal(read.secret, s.secret);
    assert_string_equal(read.scheduler.key, s.own.key);
    assert_int_equal(read.n_allowed, 2);
    assert_string_equal(read.allowed[1].key, worker[1].own.key);
    assert_int_equal(read.allowed[1].role, LH__ROLE__ROLE_WORKER);
    lh_keys_fini(&read);
    assert_ok(lh_keys_save(&worker[0], kit_path("w")));
    assert_ok(lh_keys_load(&read, kit_path("w"), LH__ROLE__ROLE_WORKER));
    assert_string_equal(read.scheduler.key, s.own.key);
    assert_int_equal(read.n_allowed, 0);
    lh_keys_fini(&read);
    struct stat st;
    assert_int_equal(stat(kit_path("w"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    lh_keys_fini(&s);
}

static void load_of_a_secret_that_others_may_read_is_refused(void **state)
{
    (void)state;
    struct lh_keys read, s = scheduler_with(0, NULL);
    assert_ok(lh_keys_save(&s, kit_path("s")));
    chmod(kit_path("s"), 0640);
    assert_err(lh_keys_load(&read, kit_path("s"), LH__ROLE__ROLE_SCHEDULER), LH_EACCES,
               "chmod 600");
    chmod(kit_path("s"), 0602);
    assert_err(lh_keys_load(&read, kit_path("s"), LH__ROLE__ROLE_SCHEDULER), LH_EACCES,
               "chmod 600");
    lh_keys_fini(&s);
}

static void load_of_another_roles_keys_is_refused(void **state)
{
    (void)state;
    struct lh_keys read, worker[1], s = scheduler_with(1, worker);
    assert_ok(lh_keys_save(&worker[0], kit_path("w")));
    assert_err(lh_keys_load(&read, kit_path("w"), LH__ROLE__ROLE_SERVER), LH_EMISMATCH,
               "keys of a worker, not of a server");
    assert_err(lh_keys_load(&read, kit_path("none"), LH__ROLE__ROLE_SERVER), LH_ENOENT, "keygen");
    assert_err(lh_keys_load(&read, kit_dir(), LH__ROLE__ROLE_SERVER), LH_EFORMAT, "not a key file");
    assert_int_equal(mkfifo(kit_path("pipe"), 0600), 0); /* nobody writes: it is not waited for */
    assert_err(lh_keys_load(&read, kit_path("pipe"), LH__ROLE__ROLE_SERVER), LH_EFORMAT,
               "not a key file");
    lh_keys_fini(&s);
}

static void parse_of_what_is_no_key_file_says_which_line(void **state)
{
    (void)state;
    struct lh_keys worker[1], other[1], s = scheduler_with(1, worker), t = scheduler_with(1, other);
    char text[1024], good[200];
    struct lh_keys out;
    snprintf(good, sizeof good, "own worker w %s %s\n", worker->own.key, worker->secret);
    const struct {
        const char *text, *says;
        int code;
    } cases[] = {
        {"", "no line 'own'", LH_EFORMAT},
        {good, "no line 'peer scheduler'", LH_EFORMAT},
        {"# c\n\nown worker w short short\n", "f:3: the key of w is none", LH_EFORMAT},
        {"own pope p a b\n", "f:1: 'pope' is no role", LH_EFORMAT},
        {"peer worker w\n", "f:1: expected 'own", LH_EFORMAT},
        {"one two three four five six seven\n", "f:1: expected 'own", LH_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "%s", cases[i].text);
        assert_err(lh_keys_parse(&out, text, "f"), cases[i].code, cases[i].says);
    }
    snprintf(text, sizeof text, "%s%s", good, good);
    assert_err(lh_keys_parse(&out, text, "f"), LH_EFORMAT, "f:2: a second line 'own'");
    snprintf(text, sizeof text, "own worker w %s %s\n", worker->own.key, other->secret);
    assert_err(lh_keys_parse(&out, text, "f"), LH_EMISMATCH, "no pair");
    snprintf(text, sizeof text, "peer scheduler s %s\npeer scheduler s %s\n", s.own.key, t.own.key);
    assert_err(lh_keys_parse(&out, text, "f"), LH_EFORMAT, "f:2: a second scheduler");
    lh_keys_fini(&s);
    lh_keys_fini(&t);
}

static void name_with_blanks_is_refused(void **state)
{
    (void)state;
    struct lh_keys k;
    assert_err(lh_keys_make(&k, LH__ROLE__ROLE_WORKER, "a b", NULL), LH_ECONFIG, "cannot name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(load_gives_what_was_saved),
        kit_test(load_of_a_secret_that_others_may_read_is_refused),
        kit_test(load_of_another_roles_keys_is_refused),
        kit_test(parse_of_what_is_no_key_file_says_which_line),
        kit_test(name_with_blanks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
