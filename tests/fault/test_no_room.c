/* Full disks, limits, missing permissions, addresses in use: each becomes one line with its cure
 * and a documented exit status, what was there before stays whole, and once there is room the same
 * command succeeds. */
#include "tests/faultkit.h"

#include "common/net.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

static void assert_empty(const char *dir)
{
    char *out = NULL;
    kit_run(&out, "ls -A '%s'", dir);
    if (*out)
        fail_msg("%s holds %s", dir, out);
    free(out);
}

/* --- full disks ---------------------------------------------------------------------------------
 */
static void what_does_not_fit_on_the_disk_leaves_nothing(void **state)
{
    (void)state;
    static const char *const commands[] = {"longhaul import schema.yaml --out disk/new --quiet",
                                           "longhaul export --dir run --out disk/new",
                                           "longhaul simulate --users 50 --quiet --out disk/new",
                                           "longhaul simulate --users 50 --quiet --out disk/new "
                                           "--format dataset"};
    static const char *const sizes[] = {"4k", "12k"};
    kit_small_disk("4k");
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        for (size_t s = 0; s < 2; s++) {
            kit_resize_disk(sizes[s]);
            faultkit_refuses(LH_ENOSPC, "disk/new|space", "%s", commands[c]);
            assert_empty(kit_path("disk"));
        }
        kit_resize_disk("4m");
        faultkit_passes("%s && rm -r disk/new", commands[c]);
    }
    kit_resize_disk("4k"); /* one of the two files */
    faultkit_refuses(LH_ENOSPC, "disk/new|space", "longhaul init log.csv --out disk/new");
    assert_empty(kit_path("disk"));
}

static void replacing_on_a_full_disk_keeps_the_old_one(void **state)
{
    (void)state;
    kit_small_disk("4m");
    faultkit_passes("longhaul init log.csv --out disk/mine && cp -a data snap disk/ && head -c 4m "
                    "/dev/zero >disk/ballast || true");
    faultkit_refuses(LH_ENOSPC, "disk/data|space",
                     "longhaul import schema.yaml --out disk/data --force --quiet");
    faultkit_refuses(LH_ENOSPC, "disk/snap|space",
                     "longhaul export --dir run --out disk/snap --force");
    faultkit_refuses(LH_ENOSPC, "disk/mine|space", "longhaul init log.csv --out disk/mine --force");
    faultkit_passes("longhaul inspect disk/data --verify && "
                    "longhaul act --snapshot disk/snap states.csv");
}

static void training_on_a_full_disk_keeps_what_was_cut_and_can_be_resumed(void **state)
{
    (void)state;
    kit_small_disk("8k");
    faultkit_fails(LH_ENOSPC, "disk/new|space",
                   "longhaul train job.yaml --dir disk/new --no-evaluation --quiet");
    assert_empty(kit_path("disk")); /* it never began */
    kit_resize_disk("4m");
    faultkit_passes("longhaul train job.yaml --dir disk/new --no-evaluation --quiet --stop-after "
                    "10 && cp -a disk/new before && (cat /dev/zero >disk/ballast || true) 2>&-");
    struct faultkit_end end =
        faultkit_run("longhaul train job.yaml --dir disk/new --no-evaluation --quiet --resume");
    assert_int_equal(end.status, lh_err_exit_status(LH_ENOSPC));
    kit_assert_contains(end.said, "longhaul: step 20, the last, cannot be saved: ");
    kit_assert_contains(end.said, "then go on from step 10 with --resume\n");
    free(end.said);
    faultkit_passes("longhaul export --dir disk/new --out snap10 --cut last");
    faultkit_passes("rm disk/ballast && "
                    "longhaul train job.yaml --dir disk/new --no-evaluation --quiet --resume && "
                    "longhaul export --dir disk/new --out resumed --cut last && "
                    "longhaul export --dir run --out whole --cut last && "
                    "cmp resumed/weights.safetensors whole/weights.safetensors");
}

/* Where nobody may mount: the limit on the size of a file does as well. */
static void files_past_their_limit_are_an_error_and_no_signal(void **state)
{
    (void)state;
    faultkit_refuses(LH_EIO, "new|too large|ulimit",
                     "ulimit -f 1; longhaul import schema.yaml --out new --quiet");
    faultkit_refuses(LH_EIO, "new|too large|ulimit",
                     "ulimit -f 1; longhaul export --dir run --out new");
    struct faultkit_end end = faultkit_run(
        "ulimit -f 20; longhaul train job.yaml --dir new --no-evaluation --quiet 2>&1 | cat >&2");
    char *newline = strchr(end.said, '\n');
    if (!newline || newline[1] || !strstr(end.said, "new/store-0"))
        fail_msg("not one line about the store: %s", end.said);
    free(end.said);
}

static void full_standard_output_is_an_error(void **state)
{
    (void)state;
    faultkit_refuses(LH_ENOSPC, "standard output|space",
                     "longhaul act --snapshot snap states.csv >/dev/full");
    faultkit_refuses(LH_ENOSPC, "standard output|space", "longhaul inspect data >/dev/full");
    faultkit_refuses(LH_ENOSPC, "standard output|space", "longhaul help >/dev/full");
}

/* --- permissions --------------------------------------------------------------------------------
 */
/* Runs as nobody where this is root, whom no permission stops. */
static const char *as_nobody(void)
{
    if (geteuid() != 0)
        return "";
    if (kit_run(NULL, "setpriv --version") != 0)
        skip();
    return "setpriv --reuid 65534 --regid 65534 --clear-groups ";
}

static void places_that_may_not_be_written_are_named(void **state)
{
    (void)state;
    const char *nobody = as_nobody();
    faultkit_passes("chmod -R a+rX . && mkdir closed && chmod 555 closed");
    static const char *const commands[] = {"import schema.yaml --out closed/new --quiet",
                                           "export --dir run --out closed/new",
                                           "train job.yaml --dir closed/new --quiet"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        faultkit_refuses(LH_EACCES, "closed/new|ermission", "%s\"$(command -v longhaul)\" %s",
                         nobody, commands[i]);
    faultkit_passes("chmod -R a-w run");
    faultkit_refuses(LH_EACCES, "run|ermission",
                     "%s\"$(command -v longhaul)\" train job.yaml --dir run --resume --quiet",
                     nobody);
    faultkit_passes("chmod -R u+w run");
}

static void files_that_may_not_be_read_are_named(void **state)
{
    (void)state;
    const char *nobody = as_nobody();
    static const struct {
        const char *file, *command;
    } cases[] = {
        {"schema.yaml", "import schema.yaml --out new --quiet"},
        {"job.yaml", "train job.yaml --dir new --quiet"},
        {"snap/weights.safetensors", "act --snapshot snap states.csv"},
        {"states.csv", "act --snapshot snap states.csv"},
        {"data/manifest.json", "inspect data"},
        {"data/train/day-0/part-000.lhp", "inspect data --verify"},
        {"run/run.json", "export --dir run --out new"},
        {"run/store-0/data.mdb", "export --dir run --out new"},
    };
    faultkit_passes("chmod -R a+rX .");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(chmod(kit_path(cases[i].file), 0), 0);
        char says[100];
        snprintf(says, sizeof says, "%s|ermission", cases[i].file);
        faultkit_refuses(LH_EACCES, says, "%s\"$(command -v longhaul)\" %s", nobody,
                         cases[i].command);
        assert_int_equal(chmod(kit_path(cases[i].file), 0644), 0);
    }
}

static void read_only_disk_is_named(void **state)
{
    (void)state;
    kit_small_disk("1m");
    assert_int_equal(mount("tmpfs", kit_path("disk"), "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    static const char *const commands[] = {"import schema.yaml --out disk/new --quiet",
                                           "export --dir run --out disk/new",
                                           "train job.yaml --dir disk/new --quiet"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        faultkit_refuses(LH_EACCES, "disk/new|ead-only|choose another place", "longhaul %s",
                         commands[i]);
}

/* --- addresses ----------------------------------------------------------------------------------
 */
static void address_that_cannot_be_used_is_named_and_no_run_is_begun(void **state)
{
    (void)state;
    void *zmq = zmq_ctx_new();
    struct lh_net_socket *taken = NULL;
    assert_ok(lh_net_router(&taken, zmq, "tcp://127.0.0.1:*", 10, NULL));
    faultkit_refuses(LH_EBUSY, "in use|another port",
                     "longhaul scheduler job.yaml --dir new --quiet --bind %s",
                     lh_net_endpoint(taken));
    lh_net_close(&taken);
    zmq_ctx_term(zmq);
    static const char *const bad[] = {"nonsense", "tcp://127.0.0.1", "tcp://no.such.host.invalid:5",
                                      "http://127.0.0.1:80", "ipc:///no/such/place"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *before = faultkit_listing();
        struct faultkit_end end =
            faultkit_run("longhaul scheduler job.yaml --dir new --quiet --bind %s", bad[i]);
        const char *newline = strchr(end.said, '\n');
        if (end.status < 2 || end.status > 6 || !newline || newline[1] || !strstr(end.said, bad[i]))
            fail_msg("--bind %s: status %d: %s", bad[i], end.status, end.said);
        free(end.said);
        char *after = faultkit_listing();
        assert_string_equal(before, after);
        free(before);
        free(after);
    }
}

#define disk_test(f) cmocka_unit_test_setup_teardown(f, faultkit_setup, kit_disk_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        disk_test(what_does_not_fit_on_the_disk_leaves_nothing),
        disk_test(replacing_on_a_full_disk_keeps_the_old_one),
        disk_test(training_on_a_full_disk_keeps_what_was_cut_and_can_be_resumed),
        faultkit_test(files_past_their_limit_are_an_error_and_no_signal),
        faultkit_test(full_standard_output_is_an_error),
        faultkit_test(places_that_may_not_be_written_are_named),
        faultkit_test(files_that_may_not_be_read_are_named),
        disk_test(read_only_disk_is_named),
        faultkit_test(address_that_cannot_be_used_is_named_and_no_run_is_begun),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
