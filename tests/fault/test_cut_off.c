/* Roles on hosts of a network that fails (hostkit.h): a job by hand, over tcp with keys. First a
 * worker's host and then a server's is cut off for longer than the deadline and comes back; then
 * each of the faults of a network, for moments, on hosts drawn from a seed. Skipped where
 * namespaces are not permitted. */
#include "tests/hostkit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/term.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 1000, EVERY = 10, HOSTS = 3 };

struct fixture {
    struct hostkit *hosts;
    struct trainkit_undisturbed undisturbed;
    pid_t scheduler, others[4]; /* two servers, two workers */
};

static pid_t start_scheduler(const struct fixture *f)
{
    const char *arguments[] = {PROGRAM,
                               "scheduler",
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
    return hostkit_spawn(f->hosts, 0, kit_path("log"), arguments);
}

static pid_t start_server(const struct fixture *f, unsigned host, int number)
{
    char bind[64], keys[64];
    snprintf(bind, sizeof bind, "tcp://%s:*", hostkit_address(host));
    snprintf(keys, sizeof keys, "keys/server-%d.keys", number);
    const char *arguments[] = {PROGRAM,  "server", "--scheduler", "tcp://10.79.0.1:5555",
                               "--bind", bind,     "--keys",      kit_path(keys),
                               NULL};
    return hostkit_spawn(f->hosts, host, kit_path("log"), arguments);
}

static pid_t start_worker(const struct fixture *f, unsigned host, int number)
{
    char keys[64];
    snprintf(keys, sizeof keys, "keys/worker-%d.keys", number);
    const char *arguments[] = {PROGRAM,  "worker",       "--scheduler", "tcp://10.79.0.1:5555",
                               "--keys", kit_path(keys), NULL};
    return hostkit_spawn(f->hosts, host, kit_path("log"), arguments);
}

/* Those that wait for another run are ended. */
static void see_off(pid_t pid)
{
    for (double began = lh_now(); waitpid(pid, NULL, WNOHANG) == 0; usleep(2000))
        if (lh_now() - began > 5)
            kill(pid, SIGKILL);
}

/* Runs the job undisturbed, then over hosts, until its first cut. */
static void start(struct fixture *f, const char *more)
{
    *f = (struct fixture){.hosts = hostkit_start(HOSTS, 1)};
    if (!f->hosts)
        skip();
    f->undisturbed = trainkit_undisturbed(STEPS, EVERY, more);
    assert_int_equal(
        kit_run(NULL, PROGRAM " keygen --out '%s' --servers 2 --workers 2", kit_path("keys")), 0);
    f->scheduler = start_scheduler(f);
    f->others[0] = start_server(f, 0, 0);
    f->others[1] = start_server(f, 1, 1);
    f->others[2] = start_worker(f, 1, 0);
    f->others[3] = start_worker(f, 2, 1);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
}

static void assert_ends_undisturbed(struct fixture *f, const char *what)
{
    trainkit_assert_exits(f->scheduler, 0);
    for (size_t i = 0; i < sizeof f->others / sizeof *f->others; i++)
        see_off(f->others[i]);
    trainkit_assert_same(&f->undisturbed.want, kit_path("run"), what);
    trainkit_undisturbed_free(&f->undisturbed);
    hostkit_stop(&f->hosts);
}

static void hosts_that_are_cut_off_and_come_back_change_no_bit(void **state)
{
    (void)state;
    struct fixture f;
    /* else the others would be through before a host is missed */
    start(&f, "consistency: {takeover: false}\n");
    assert_true(hostkit_harm(f.hosts, 2, HOSTKIT_DOWN));
    trainkit_await_said("went silent; the others take its share");
    hostkit_heal(f.hosts, 2);
    assert_true(trainkit_wait_cut(kit_path("run"), trainkit_last_cut(kit_path("run")) + EVERY));
    assert_true(hostkit_harm(f.hosts, 1, HOSTKIT_DOWN));
    trainkit_await_said("went silent; the run goes back to step ");
    hostkit_heal(f.hosts, 1);
    assert_ends_undisturbed(&f, "hosts were cut off");
}

/* Until two more checkpoints are there, or for a moment. */
static void hold(void)
{
    const uint64_t until = trainkit_last_cut(kit_path("run")) + 2 * EVERY;
    for (double began = lh_now(); lh_now() - began < 0.7; usleep(5000))
        if (trainkit_last_cut(kit_path("run")) >= until)
            return;
}

static void network_that_fails_in_each_way_changes_no_bit(void **state)
{
    (void)state;
    struct fixture f;
    unsigned done = 0;
    start(&f, NULL);
    for (unsigned i = 0; i < HOSTKIT_FAULTS; i++) {
        const unsigned host = (i + 1) % HOSTS;
        if (!hostkit_harm(f.hosts, host, (enum hostkit_fault)i))
            continue;
        assert_int_equal(waitpid(f.scheduler, NULL, WNOHANG), 0); /* the run is not over */
        hold();
        hostkit_heal(f.hosts, host);
        done++;
        assert_true(trainkit_wait_cut(kit_path("run"), trainkit_last_cut(kit_path("run")) + 1));
    }
    print_message("%u of %u faults of a network\n", done, HOSTKIT_FAULTS);
    assert_true(done >= 1);
    assert_ends_undisturbed(&f, "the network failed in each way");
}

/* --- the hosts themselves -----------------------------------------------------------------------
 */
enum { PORT = 7000, DATAGRAMS = 200 };

struct flight {
    unsigned came;
    double least; /* seconds that one was on its way */
    double all;   /* until the last was there */
    bool ordered;
};

/* Sends datagrams of so many bytes from one host to another, all at once. */
static struct flight fly(const int *fd, unsigned from, unsigned to, size_t bytes)
{
    struct {
        unsigned number;
        double sent;
        char more[1400];
    } d = {0};
    struct flight f = {.least = 1e9, .ordered = true};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct pollfd poll_to = {.fd = fd[to], .events = POLLIN};
    unsigned last = 0;
    inet_pton(AF_INET, hostkit_address(to), &at.sin_addr);
    const double began = lh_now();
    for (d.number = 1; d.number <= DATAGRAMS; d.number++) {
        d.sent = lh_now();
        sendto(fd[from], &d, bytes, 0, (struct sockaddr *)&at, sizeof at);
    }
    while (poll(&poll_to, 1, 500) == 1 && recv(fd[to], &d, sizeof d, 0) > 0) {
        const double took = lh_now() - d.sent;
        f.came++;
        f.least = took < f.least ? took : f.least;
        f.all = lh_now() - began;
        f.ordered = f.ordered && d.number > last;
        last = d.number;
    }
    return f;
}

static void faults_of_hosts_are_what_they_are_called(void **state)
{
    (void)state;
    struct hostkit *h = hostkit_start(2, 1);
    if (!h)
        skip();
    const int fd[] = {hostkit_socket(h, 0, PORT), hostkit_socket(h, 1, PORT)};
    struct flight f = fly(fd, 0, 1, 100);
    assert_true(f.came == DATAGRAMS && f.ordered);
    assert_true(hostkit_harm(h, 1, HOSTKIT_DOWN));
    assert_false(hostkit_harm(h, 1, HOSTKIT_DOWN)); /* one at a time */
    assert_int_equal(fly(fd, 0, 1, 100).came, 0);
    hostkit_heal(h, 1);
    if (hostkit_harm(h, 1, HOSTKIT_DEAF)) {
        assert_int_equal(fly(fd, 0, 1, 100).came, 0);
        assert_int_equal(fly(fd, 1, 0, 100).came, DATAGRAMS);
    }
    hostkit_heal(h, 1);
    if (hostkit_harm(h, 1, HOSTKIT_LOSS)) {
        f = fly(fd, 0, 1, 100);
        assert_in_range(f.came, DATAGRAMS * 6 / 10, DATAGRAMS * 95 / 100);
    }
    hostkit_heal(h, 1);
    if (hostkit_harm(h, 0, HOSTKIT_RATE)) {
        f = fly(fd, 0, 1, 1400); /* 280,000 bytes at 6,250,000 a second, but for a burst */
        assert_true(f.came > DATAGRAMS / 2 && f.all > 0.025);
    }
    hostkit_heal(h, 0);
    if (hostkit_harm(h, 1, HOSTKIT_DELAY)) {
        f = fly(fd, 0, 1, 100);
        assert_true(f.came == DATAGRAMS && f.least > 0.009 && !f.ordered);
    }
    hostkit_heal(h, 1);
    f = fly(fd, 0, 1, 100);
    assert_true(f.came == DATAGRAMS && f.ordered);
    close(fd[0]);
    close(fd[1]);
    hostkit_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(hosts_that_are_cut_off_and_come_back_change_no_bit),
        kit_test(faults_of_hosts_are_what_they_are_called),
        kit_test(network_that_fails_in_each_way_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
