/* A campaign of faults: scheduler, servers and workers are processes that a supervisor starts again
 * whenever they end, as systemd would, while at random instants, drawn from a seed, one of them is
 * killed, stopped and continued, or loses its disk for a while; every other run is over tcp with
 * keys, through a relay that cuts, tears, delays, slows, loses and corrupts what they say. Versions
 * are evaluated meanwhile. Every run must end, at the weights of the undisturbed one.
 *
 * LONGHAUL_TEST_FAULTS: faults to inject at least, over as many runs as that takes (30)
 * LONGHAUL_TEST_SEED: of the first run (1) */
#include "tests/proxykit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/rng.h"
#include "common/term.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define RUN_MAX 300.0 /* seconds a run may take */

enum { STEPS = 300, EVERY = 10, SERVERS = 2, WORKERS = 2, ROLES = 1 + SERVERS + WORKERS };
/* A pause is shorter than the deadline, a hang longer; behind them those of the network. */
enum fault { KILL, PAUSE, HANG, UNWRITABLE, NETWORK, FAULTS = NETWORK + PROXYKIT_FAULTS };

static const char *const fault_names[NETWORK] = {"killed", "stopped for a moment",
                                                 "stopped beyond the deadline", "without a disk"};

struct role {
    pid_t pid;                 /* 0: not running */
    double start_at;           /* when the supervisor starts it again */
    double wake_at;            /* when it is continued; 0: it is not stopped */
    double write_at;           /* when it can write again; 0: it can */
    bool killed;               /* by us */
    unsigned started;          /* times */
    char bind[320], told[320]; /* where it listens; where the others are told that it does */
    char keys[320];            /* its file; "": in the clear */
};

struct campaign {
    struct role roles[ROLES]; /* the scheduler, servers, workers */
    struct proxykit *proxy;   /* NULL: ipc */
    struct lh_rng_at rng;
    uint64_t drawn;
    char dir[300];
    double next; /* fault */
    unsigned faults[FAULTS];
};

static double draw(struct campaign *c)
{
    return lh_rng_uniform1(&c->rng, c->drawn++);
}

static void place(struct campaign *c, size_t i)
{
    struct role *r = &c->roles[i];
    if (i > SERVERS) {
        snprintf(r->keys, sizeof r->keys, "%s/keys/worker-%zu.keys", kit_dir(), i - SERVERS - 1);
    } else if (c->proxy) {
        uint16_t port = proxykit_free_port();
        snprintf(r->bind, sizeof r->bind, "tcp://127.0.0.1:%u", port);
        snprintf(r->told, sizeof r->told, "tcp://127.0.0.1:%u", proxykit_route(c->proxy, port));
        if (i == 0)
            snprintf(r->keys, sizeof r->keys, "%s/keys/scheduler.keys", kit_dir());
        else
            snprintf(r->keys, sizeof r->keys, "%s/keys/server-%zu.keys", kit_dir(), i - 1);
    } else {
        snprintf(r->bind, sizeof r->bind, "ipc://%s/s%llu-%zu", kit_dir(),
                 (unsigned long long)c->rng.seed, i);
        memcpy(r->told, r->bind, sizeof r->told);
    }
    if (!c->proxy)
        r->keys[0] = '\0';
}

/* In the clear the last two arguments end the list. */
static pid_t start_role(const struct campaign *c, size_t i)
{
    const struct role *r = &c->roles[i];
    const char *scheduler_at = c->roles[0].told, *keys = *r->keys ? "--keys" : NULL;
    char run_json[320];
    snprintf(run_json, sizeof run_json, "%s/run.json", c->dir);
    const char *resume = access(run_json, F_OK) == 0 ? "--resume" : "--quiet";
    const char *scheduler[] = {
        PROGRAM,     "scheduler", kit_path("job.yaml"), "--dir", c->dir,    "--bind", r->bind,
        "--servers", "2",         "--workers",          "2",     "--quiet", resume,   keys,
        r->keys,     NULL};
    const char *server[] = {PROGRAM,       "server", "--scheduler", scheduler_at, "--bind", r->bind,
                            "--advertise", r->told,  keys,          r->keys,      NULL};
    const char *worker[] = {PROGRAM, "worker", "--scheduler", scheduler_at, keys, r->keys, NULL};
    return trainkit_spawn(kit_path("log"), i == 0 ? scheduler : i <= SERVERS ? server : worker);
}

/* What the roles said: cmocka's own messages are short. */
static void show_log(void)
{
    char *text = kit_read(kit_path("log"), NULL);
    printf("%s", text);
    free(text);
}

/* Whether a role may end like this: as it should, by our hand, or because it lost another, or its
 * disk. Never by a bug or a crash of its own. */
static bool may_end(const struct role *r, int status)
{
    if (WIFSIGNALED(status))
        return r->killed && WTERMSIG(status) == SIGKILL;
    int code = WEXITSTATUS(status);
    return code == 0 || code == lh_err_exit_status(LH_EPEER) ||
           code == lh_err_exit_status(LH_EBUSY);
}

static void limit_files(pid_t pid, rlim_t bytes)
{
    prlimit(pid, RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY}, NULL);
}

/* What was done to it for a while only is over. */
static void relieve(struct role *r, double now)
{
    if (r->wake_at > 0 && now >= r->wake_at) {
        kill(r->pid, SIGCONT);
        r->wake_at = 0;
    }
    if (r->write_at > 0 && now >= r->write_at) {
        limit_files(r->pid, RLIM_INFINITY);
        r->write_at = 0;
    }
}

/* Returns true when the scheduler has finished the run. */
static bool supervise(struct campaign *c)
{
    double now = lh_now();
    for (size_t i = 0; i < ROLES; i++) {
        struct role *r = &c->roles[i];
        int status;
        if (r->pid && waitpid(r->pid, &status, WNOHANG) == r->pid) {
            if (!may_end(r, status)) {
                show_log();
                fail_msg("seed %llu: role %zu, process %d, ended with status 0x%x",
                         (unsigned long long)c->rng.seed, i, (int)r->pid, (unsigned)status);
            }
            r->pid = 0;
            r->wake_at = r->write_at = 0;
            r->killed = false;
            r->start_at = now + 0.2 * draw(c);
            if (i == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return true;
        }
        if (r->pid == 0 && now >= r->start_at) {
            r->pid = start_role(c, i);
            r->started++;
        }
        relieve(r, now);
    }
    return false;
}

static enum fault choose(struct campaign *c)
{
    double kind = draw(c);
    if (c->proxy && kind < 0.6)
        return NETWORK + (enum fault)(kind / 0.6 * PROXYKIT_FAULTS);
    kind = draw(c);
    return kind < 0.6 ? KILL : kind < 0.8 ? PAUSE : kind < 0.82 ? HANG : UNWRITABLE;
}

static void inject(struct campaign *c)
{
    enum fault f = choose(c);
    struct role *r = &c->roles[(size_t)(draw(c) * ROLES)];
    double now = lh_now();
    c->next = now + 0.05 + 0.9 * draw(c);
    if (f >= NETWORK) {
        c->faults[f] += proxykit_harm(c->proxy, (enum proxykit_fault)(f - NETWORK));
        return;
    }
    if (f == UNWRITABLE)
        r = &c->roles[1 + (size_t)(draw(c) * SERVERS)];
    if (r->pid == 0 || r->wake_at > 0 || r->write_at > 0)
        return;
    c->faults[f]++;
    if (f == KILL) {
        r->killed = true;
        kill(r->pid, SIGKILL);
    } else if (f == UNWRITABLE) {
        limit_files(r->pid, 4096); /* less than any page of a store needs */
        r->write_at = now + draw(c);
    } else {
        kill(r->pid, SIGSTOP);
        r->wake_at = now + (f == PAUSE ? 0.5 * draw(c) : 5.5 + draw(c)); /* the deadline is 5 s */
    }
}

/* Those that are left end by themselves when the run has. */
static void see_off(struct campaign *c)
{
    double began = lh_now();
    for (size_t i = 0; i < ROLES; i++) {
        struct role *r = &c->roles[i];
        if (r->wake_at > 0)
            kill(r->pid, SIGCONT);
        while (r->pid && waitpid(r->pid, NULL, WNOHANG) == 0) {
            if (lh_now() - began > 1)
                kill(r->pid, SIGKILL); /* it waits for the next run */
            usleep(2000);
        }
        r->pid = 0;
    }
}

static unsigned disturbed_run(uint64_t seed, const struct trainkit_state *want,
                              unsigned faults[FAULTS])
{
    struct campaign c = {.rng = {.seed = seed, .purpose = lh_rng_purpose("campaign")}};
    char what[160];
    unsigned all = 0, started = 0;
    snprintf(c.dir, sizeof c.dir, "%s/run-%llu", kit_dir(), (unsigned long long)seed);
    if (seed % 2)
        c.proxy = proxykit_start(seed);
    for (size_t i = 0; i < ROLES; i++)
        place(&c, i);
    double began = lh_now();
    c.next = began + draw(&c);
    while (!supervise(&c)) {
        if (lh_now() >= c.next)
            inject(&c);
        if (lh_now() - began > RUN_MAX) {
            show_log();
            fail_msg("seed %llu: not finished after %.0f s, at step %llu", (unsigned long long)seed,
                     RUN_MAX, (unsigned long long)trainkit_last_cut(c.dir));
        }
        usleep(2000);
    }
    see_off(&c);
    proxykit_stop(&c.proxy);
    for (int i = 0; i < FAULTS; i++) {
        faults[i] += c.faults[i];
        all += c.faults[i];
    }
    for (size_t i = 0; i < ROLES; i++)
        started += c.roles[i].started;
    snprintf(what, sizeof what, "seed %llu, %s, %u faults", (unsigned long long)seed,
             seed % 2 ? "tcp" : "ipc", all);
    trainkit_assert_same(want, c.dir, what);
    printf("%s: same weights; %u processes, %.1f s\n", what, started, lh_now() - began);
    return all;
}

static unsigned wanted(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void runs_under_random_faults_give_the_bits_of_the_undisturbed_one(void **state)
{
    (void)state;
    struct lh_train_result result;
    char more[400];
    unsigned faults[FAULTS] = {0}, all = 0, runs = 0, least = wanted("LONGHAUL_TEST_FAULTS", 30);
    trainkit_dataset();
    trainkit_imitator(kit_path("imitator"));
    snprintf(more, sizeof more, "evaluation: {every: 30, ess_floor: 0, behaviour: %s}",
             kit_path("imitator"));
    struct lh_job *job = trainkit_job(STEPS, EVERY, more);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, more);
    assert_int_equal(
        kit_run(NULL, PROGRAM " keygen --out '%s' --servers 2 --workers 2", kit_path("keys")), 0);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    /* both transports at least */
    for (uint64_t seed = wanted("LONGHAUL_TEST_SEED", 1); all < least || runs < 2; seed++, runs++)
        all += disturbed_run(seed, &want, faults);
    printf("%u faults in %u runs:", all, runs);
    for (int i = 0; i < NETWORK; i++)
        printf(" %u %s,", faults[i], fault_names[i]);
    printf(" connections:");
    for (int i = NETWORK; i < FAULTS; i++)
        printf(" %u %s%s", faults[i], proxykit_names[i - NETWORK], i + 1 < FAULTS ? "," : "\n");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(runs_under_random_faults_give_the_bits_of_the_undisturbed_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
