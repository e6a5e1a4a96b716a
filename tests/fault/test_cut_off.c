/* Roles on hosts of a network that fails: the hosts are network namespaces that this test makes, on
 * a bridge in one of its own. A job by hand, over tcp with keys, trains over a slow link that loses
 * packets, while first a worker's host and then a server's is cut off for longer than the deadline
 * and comes back. Skipped where namespaces are not permitted. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 300, EVERY = 10, HOSTS = 3 };

static char host[HOSTS][32], bridge[32];

/* Host I has 10.79.0.I on eth0. */
static const char up[] =
    "set -e; ip netns add %1$s; ip -n %1$s link add br0 type bridge; ip -n %1$s link set br0 up; "
    "i=1; for h in %2$s %3$s %4$s; do ip netns add $h; ip -n $h link set lo up; "
    "ip -n %1$s link add p$i type veth peer name eth0 netns $h; ip -n %1$s link set p$i master br0 "
    "up; "
    "ip -n $h addr add 10.79.0.$i/24 dev eth0; ip -n $h link set eth0 up; i=$((i + 1)); done";

static const char down[] = "for h in %2$s %3$s %4$s %1$s; do for p in $(ip netns pids $h); do "
                           "kill -KILL $p; done; ip netns del $h; done";

/* Those of a test that was killed. */
static const char sweep[] =
    "for n in $(ip netns list | sed -n 's/^\\(lhp\\([0-9]*\\)-[0-9s]\\).*/\\1:\\2/p'); do "
    "[ -d /proc/${n#*:} ] && continue; for p in $(ip netns pids ${n%%:*}); do kill -KILL $p; done; "
    "ip netns del ${n%%:*}; done";

static int on_hosts(const char *script, char **out)
{
    return kit_run(out, script, bridge, host[0], host[1], host[2]);
}

static int setup(void **state)
{
    snprintf(bridge, sizeof bridge, "lhp%d-s", (int)getpid());
    for (int i = 0; i < HOSTS; i++)
        snprintf(host[i], sizeof host[i], "lhp%d-%d", (int)getpid(), i + 1);
    return kit_setup(state);
}

static int teardown(void **state)
{
    on_hosts(down, NULL);
    return kit_teardown(state);
}

static bool make_hosts(void)
{
    char *out = NULL;
    kit_run(NULL, sweep);
    bool made = on_hosts(up, &out) == 0;
    if (!made)
        print_message("SKIPPED: no network namespaces here: %s", out);
    free(out);
    return made;
}

static void set_link(int i, const char *how)
{
    assert_int_equal(kit_run(NULL, "ip -n %s link set p%d %s", bridge, i + 1, how), 0);
}

/* What the first host sends takes its time, and some of what it is sent does not come. False: this
 * system can do neither. */
static bool spoil_first_host(void)
{
    bool slow =
        kit_run(NULL, "tc -n %s qdisc add dev eth0 root tbf rate 10mbit burst 32kb latency 100ms",
                host[0]) == 0;
    bool lossy = kit_run(NULL,
                         "ip netns exec %s iptables -A INPUT -i eth0 -m statistic --mode random "
                         "--probability 0.01 -j DROP",
                         host[0]) == 0;
    print_message("first host: %s, %s\n", slow ? "slow" : "not slow (no tc tbf)",
                  lossy ? "lossy" : "not lossy (no iptables statistic)");
    return slow;
}

static void mend_first_host(void)
{
    kit_run(NULL, "tc -n %s qdisc del dev eth0 root", host[0]);
    kit_run(NULL, "ip netns exec %s iptables -F INPUT", host[0]);
}

/* Arguments behind the program's name end with NULL. */
static pid_t start_on(int i, const char *const *arguments)
{
    const char *argv[40] = {"/usr/bin/env", "ip", "netns", "exec", host[i], PROGRAM};
    for (int n = 6; (argv[n] = *arguments) && n < 39; n++)
        arguments++;
    return trainkit_spawn(kit_path("log"), argv);
}

static pid_t start_scheduler(void)
{
    const char *arguments[] = {"scheduler",
                               kit_path("job.yaml"),
                               "--dir",
                               kit_path("run"),
                               "--bind",
                               "tcp://10.79.0.1:5555",
                               "--servers",
                               "2",
                               "--workers",
                               "2",
                               "--no-evaluation",
                               "--quiet",
                               "--set",
                               "cluster.deadline_seconds=2",
                               "--keys",
                               kit_path("keys/scheduler.keys"),
                               NULL};
    return start_on(0, arguments);
}

static pid_t start_server(int i, int number)
{
    char bind[64], keys[64];
    snprintf(bind, sizeof bind, "tcp://10.79.0.%d:*", i + 1);
    snprintf(keys, sizeof keys, "keys/server-%d.keys", number);
    const char *arguments[] = {"server", "--scheduler", "tcp://10.79.0.1:5555", "--bind",
                               bind,     "--keys",      kit_path(keys),         NULL};
    return start_on(i, arguments);
}

static pid_t start_worker(int i, int number)
{
    char keys[64];
    snprintf(keys, sizeof keys, "keys/worker-%d.keys", number);
    const char *arguments[] = {"worker", "--scheduler",  "tcp://10.79.0.1:5555",
                               "--keys", kit_path(keys), NULL};
    return start_on(i, arguments);
}

static void await_said(const char *words)
{
    for (double began = lh_now(); lh_now() - began < 60; usleep(5000)) {
        char *text = kit_read(kit_path("log"), NULL);
        bool there = strstr(text, words) != NULL;
        free(text);
        if (there)
            return;
    }
    fail_msg("'%s' was not said: %s", words, kit_read(kit_path("log"), NULL));
}

/* Those that wait for another run are ended. */
static void see_off(pid_t pid)
{
    for (double began = lh_now(); waitpid(pid, NULL, WNOHANG) == 0; usleep(2000))
        if (lh_now() - began > 5)
            kill(pid, SIGKILL);
}

static void hosts_that_are_cut_off_and_come_back_change_no_bit(void **state)
{
    (void)state;
    struct lh_train_result result;
    if (!make_hosts())
        skip();
    trainkit_dataset();
    /* else the others would be through before a host is missed */
    const char *waits = "consistency: {takeover: false}\n";
    struct lh_job *job = trainkit_job(STEPS, EVERY, waits);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, waits);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    assert_int_equal(
        kit_run(NULL, PROGRAM " keygen --out '%s' --servers 2 --workers 2", kit_path("keys")), 0);
    bool slow = spoil_first_host();
    pid_t scheduler = start_scheduler();
    pid_t others[] = {start_server(0, 0), start_server(1, 1), start_worker(1, 0),
                      start_worker(2, 1)};
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    if (slow) { /* else the run may be over before a host is missed */
        set_link(2, "down");
        await_said("went silent; the others take its share");
        set_link(2, "up");
        assert_true(trainkit_wait_cut(kit_path("run"), trainkit_last_cut(kit_path("run")) + EVERY));
        set_link(1, "down");
        await_said("went silent; the run goes back to step ");
        set_link(1, "up");
    }
    mend_first_host();
    int status = trainkit_wait_exit(scheduler);
    if (status != 0)
        fail_msg("exit status %d: %s", status, kit_read(kit_path("log"), NULL));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        see_off(others[i]);
    trainkit_assert_same(&want, kit_path("run"), "hosts were cut off");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hosts_that_are_cut_off_and_come_back_change_no_bit, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
