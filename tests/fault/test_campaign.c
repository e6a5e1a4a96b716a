/* A campaign of faults: scheduler, servers and workers are processes that a supervisor starts again
 * whenever they end, as systemd would, while at moments drawn from a seed one of them is killed,
 * stopped and continued, or its disk fails for a while. Runs take turns in what they train (sync
 * with and without takeover, embedding tables, ssp, async) and how roles talk: over ipc; over tcp
 * with keys through a relay that cuts, tears, delays, slows, loses and corrupts what they say; over
 * tcp with keys between hosts whose network fails (hostkit.h). Versions are evaluated meanwhile.
 * When a fault comes is a matter of progress, not of time, so each run has its faults.
 *
 * Every run must end: in sync at the weights of the undisturbed one, to the bit, and its tables'
 * rows; in ssp and async with each step applied once, and with losses like those of sync.
 *
 * LONGHAUL_TEST_FAULTS: faults to inject at least, over as many runs as that takes (30)
 * LONGHAUL_TEST_SEED: of the first run (1) */
#include "tests/diskkit.h"
#include "tests/hostkit.h"
#include "tests/proxykit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/err.h"
#include "common/rng.h"
#include "common/term.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define RUN_MAX 300.0 /* seconds a run may take */
#define LOSS    "td1" /* of metrics.jsonl: the first critic's */

enum {
    STEPS = 900,
    EVERY = 15,
    SERVERS = 2,
    WORKERS = 2,
    ROLES = 1 + SERVERS + WORKERS,
    HOSTS = 3,
    A_RUN = 12, /* faults */
    TURNS = 9   /* runs until it begins anew with the same kind */
};

/* A pause is shorter than the deadline, a hang longer; behind them those of a relay and of hosts.
 */
enum fault {
    KILL,
    PAUSE,
    HANG,
    FULL, /* a server's files may not grow */
    BAD,  /* some of a run's files cannot be written, or synced */
    RELAY,
    BRIDGE = RELAY + PROXYKIT_FAULTS,
    FAULTS = BRIDGE + HOSTKIT_FAULTS
};

static const char *const fault_names[RELAY] = {"killed", "stopped for a moment",
                                               "stopped beyond the deadline", "without room",
                                               "with a disk that fails"};

static const char *fault_name(int f)
{
    return f < RELAY    ? fault_names[f]
           : f < BRIDGE ? proxykit_names[f - RELAY]
                        : hostkit_names[f - BRIDGE];
}

/* What is trained. */
enum { SYNC, ALONE, TABLES, SSP, ASYNC, JOBS };

static const struct {
    const char *name, *more;
    bool bits; /* repeats to the bit */
} jobs[JOBS] = {
    [SYNC] = {"sync", "", true},
    [ALONE] = {"sync without takeover", "consistency: {takeover: false}\n", true},
    [TABLES] = {"tables",
                "tables:\n"
                "  item: {ids: [item, before], into: state_low, dim: 5, learning_rate: 0.01, "
                "cache: 1}\n"
                "  user: {ids: user, into: state_high, dim: 3, learning_rate: 0.01, cache: 1}\n",
                true},
    [SSP] = {"ssp", "consistency: {model: ssp, bound: 4}\n", false},
    [ASYNC] = {"async", "consistency: {model: async}\n", false},
};

enum network { IPC, PROXIED, HOSTED };
static const char *const network_names[] = {"ipc", "tcp through a relay", "tcp between hosts"};

/* ctest comes as far as the fourth. */
static const struct kind {
    int job;
    enum network network;
} kinds[TURNS] = {{SYNC, PROXIED},   {SYNC, HOSTED},   {SSP, IPC},
                  {TABLES, PROXIED}, {ALONE, IPC},     {TABLES, IPC},
                  {SYNC, IPC},       {ASYNC, PROXIED}, {TABLES, HOSTED}};

struct role {
    pid_t pid;                 /* 0: not running */
    unsigned host;             /* of hosts */
    double start_at;           /* when the supervisor starts it again */
    double wake_at;            /* when it is continued; 0: it is not stopped */
    double write_at;           /* when it can write again; 0: it can */
    bool killed;               /* by us */
    unsigned started;          /* times */
    char bind[320], told[320]; /* where it listens; where the others are told that it does */
    char keys[320];            /* its file; "": in the clear */
};

struct campaign {
    struct kind kind;
    struct role roles[ROLES]; /* the scheduler, servers, workers */
    struct proxykit *proxy;   /* NULL: none */
    struct hostkit *hosts;    /* NULL: none */
    struct diskkit *disk;
    double heal_at[HOSTS]; /* when a host's network is well again; 0: it is */
    double disk_at;        /* likewise of the disk */
    struct lh_rng_at rng;
    uint64_t drawn;
    char dir[300], job[300];
    unsigned n;        /* faults so far */
    uint64_t progress; /* the furthest cut that there was */
    uint64_t at;       /* progress from which on the next fault may come */
    double due;        /* when it does; 0: not before there is that progress */
    double spell;      /* seconds that cuts may fail for at most: none of them shows progress */
    unsigned faults[FAULTS];
};

static double draw(struct campaign *c)
{
    return lh_rng_uniform1(&c->rng, c->drawn++);
}

static void place(struct campaign *c, size_t i)
{
    struct role *r = &c->roles[i];
    const unsigned long long run = (unsigned long long)c->rng.seed;
    const char *role = i == 0 ? "scheduler" : i <= SERVERS ? "server" : "worker";
    const size_t index = i <= SERVERS ? i - 1 : i - SERVERS - 1;
    r->host = i == 0 ? 0 : (unsigned)(i - 1 + (i > SERVERS)) % HOSTS;
    if (c->kind.network != IPC && i == 0)
        snprintf(r->keys, sizeof r->keys, "%s/keys/%s.keys", kit_dir(), role);
    else if (c->kind.network != IPC)
        snprintf(r->keys, sizeof r->keys, "%s/keys/%s-%zu.keys", kit_dir(), role, index);
    if (i > SERVERS)
        return;
    if (c->proxy) {
        uint16_t port = proxykit_free_port();
        snprintf(r->bind, sizeof r->bind, "tcp://127.0.0.1:%u", port);
        snprintf(r->told, sizeof r->told, "tcp://127.0.0.1:%u", proxykit_route(c->proxy, port));
    } else {
        if (c->hosts)
            snprintf(r->bind, sizeof r->bind, "tcp://%s:%zu", hostkit_address(r->host), 5555 + i);
        else
            snprintf(r->bind, sizeof r->bind, "ipc://%s/s%llu-%zu", kit_dir(), run, i);
        memcpy(r->told, r->bind, sizeof r->told);
    }
}

/* In the clear the last two arguments end the list. */
static pid_t start_role(const struct campaign *c, size_t i)
{
    const struct role *r = &c->roles[i];
    const char *scheduler_at = c->roles[0].told, *keys = *r->keys ? "--keys" : NULL;
    char run_json[320];
    snprintf(run_json, sizeof run_json, "%s/run.json", c->dir);
    const char *resume = access(run_json, F_OK) == 0 ? "--resume" : "--quiet";
    const char *scheduler[] = {PROGRAM, "scheduler", c->job,  "--dir",     c->dir, "--bind",
                               r->bind, "--servers", "2",     "--workers", "2",    "--quiet",
                               resume,  keys,        r->keys, NULL};
    const char *server[] = {PROGRAM,       "server", "--scheduler", scheduler_at, "--bind", r->bind,
                            "--advertise", r->told,  keys,          r->keys,      NULL};
    const char *worker[] = {PROGRAM, "worker", "--scheduler", scheduler_at, keys, r->keys, NULL};
    const char *const *argv = i == 0 ? scheduler : i <= SERVERS ? server : worker;
    return c->hosts ? hostkit_spawn(c->hosts, r->host, kit_path("log"), argv)
                    : trainkit_spawn(kit_path("log"), argv);
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

/* What was done to a role for a while only is over. */
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

/* Likewise of disk and network. */
static void heal(struct campaign *c, double now)
{
    if (c->disk_at > 0 && now >= c->disk_at) {
        diskkit_heal(c->disk);
        c->disk_at = 0;
    }
    for (unsigned i = 0; i < HOSTS; i++) {
        if (c->heal_at[i] > 0 && now >= c->heal_at[i]) {
            hostkit_heal(c->hosts, i);
            c->heal_at[i] = 0;
        }
    }
}

/* Returns true when the scheduler has finished the run. */
static bool supervise(struct campaign *c)
{
    double now = lh_now();
    heal(c, now);
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
        return RELAY + (enum fault)(kind / 0.6 * PROXYKIT_FAULTS);
    if (c->hosts && kind < 0.6)
        return BRIDGE + (enum fault)(kind / 0.6 * HOSTKIT_FAULTS);
    kind = draw(c);
    return kind < 0.6 ? KILL : kind < 0.78 ? PAUSE : kind < 0.8 ? HANG : kind < 0.9 ? FULL : BAD;
}

/* Files of one server, or of all, or those of the scheduler: at one of the next calls, or from it
 * on. */
static bool break_disk(struct campaign *c, double now)
{
    static const char *const files[] = {"/store-0/", "/store-1/", "/store-", "/run.json",
                                        "/metrics.jsonl"};
    char at[400];
    if (c->disk_at > 0)
        return false;
    snprintf(at, sizeof at, "%s%s", strrchr(c->dir, '/'), files[(size_t)(draw(c) * 5)]);
    diskkit_fail(c->disk, &(struct diskkit_order){.at = at,
                                                  .calls = 1 + (unsigned)(draw(c) * 3),
                                                  .error = draw(c) < 0.5 ? EIO : ENOSPC,
                                                  .after = (long)(draw(c) * 10),
                                                  .number = draw(c) < 0.3 ? 1 : -1});
    c->disk_at = now + c->spell * draw(c);
    return true;
}

static bool harm_host(struct campaign *c, enum hostkit_fault fault, double now)
{
    const unsigned host = (unsigned)(draw(c) * HOSTS);
    const bool beyond = draw(c) < 0.05; /* the deadline, which is 5 s */
    if (!hostkit_harm(c->hosts, host, fault))
        return false;
    c->heal_at[host] = now + (beyond ? 5.5 : 0.1 + 0.9 * draw(c));
    return true;
}

/* False: who was to have it is not there, or has one already. */
static bool harm_role(struct campaign *c, enum fault f, double now)
{
    struct role *r = f == FULL ? &c->roles[1 + (size_t)(draw(c) * SERVERS)]
                               : &c->roles[(size_t)(draw(c) * ROLES)];
    if (r->pid == 0 || r->wake_at > 0 || r->write_at > 0)
        return false;
    if (f == KILL) {
        r->killed = true;
        kill(r->pid, SIGKILL);
    } else if (f == FULL) {
        limit_files(r->pid, 4096); /* less than any page of a store needs */
        r->write_at = now + c->spell * draw(c);
    } else {
        kill(r->pid, SIGSTOP);
        r->wake_at = now + (f == PAUSE ? 0.5 * draw(c) : 5.5 + draw(c)); /* the deadline is 5 s */
    }
    return true;
}

/* The next fault, if there is the progress that it waits for: then a moment later, anywhere between
 * two checkpoints or in the middle of one. One that cannot be is drawn again. */
static void inject(struct campaign *c)
{
    const uint64_t last = trainkit_last_cut(c->dir);
    const double now = lh_now();
    if (last > c->progress)
        c->progress = last;
    if (c->due == 0 && c->progress >= c->at)
        c->due = now + 0.015 * draw(c);
    if (c->n == A_RUN || c->due == 0 || now < c->due)
        return;
    const enum fault f = choose(c);
    bool done = f >= BRIDGE  ? harm_host(c, (enum hostkit_fault)(f - BRIDGE), now)
                : f >= RELAY ? proxykit_harm(c->proxy, (enum proxykit_fault)(f - RELAY))
                : f == BAD   ? break_disk(c, now)
                             : harm_role(c, f, now);
    if (!done)
        return;
    c->faults[f]++;
    c->n++;
    c->at = (uint64_t)((c->n - 0.5 + draw(c)) * (STEPS - 6 * EVERY) / A_RUN);
    c->due = 0;
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

static void open_network(struct campaign *c)
{
    if (c->kind.network == HOSTED && !(c->hosts = hostkit_start(HOSTS, c->rng.seed)))
        c->kind.network = PROXIED; /* said */
    if (c->kind.network == PROXIED)
        c->proxy = proxykit_start(c->rng.seed);
    for (size_t i = 0; i < ROLES; i++)
        place(c, i);
}

static void close_network(struct campaign *c)
{
    proxykit_stop(&c->proxy);
    hostkit_stop(&c->hosts);
}

/* What went on in the log so far is no longer of interest. */
static void forget_log(void)
{
    if (truncate(kit_path("log"), 0) != 0 && errno != ENOENT)
        fail_msg("%s: %s", kit_path("log"), strerror(errno));
}

/* A mean over the last hundred steps. */
static double mean_of_last(const char *dir, const char *name)
{
    char path[600], field[64];
    double sum = 0, n = 0, all = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    snprintf(field, sizeof field, "\"%s\": ", name);
    char *text = kit_read(path, NULL);
    for (const char *at = text; (at = strstr(at, field)); at += strlen(field))
        if (++all > STEPS - 100) {
            sum += strtod(at + strlen(field), NULL);
            n++;
        }
    free(text);
    assert_true(n == 100);
    return sum / n;
}

/* Of a model whose order of updates is a matter of timing. */
static void assert_sane(const struct trainkit_state *want, const char *dir, const char *what)
{
    struct trainkit_state got = trainkit_read(dir);
    if (got.version != want->version || got.updates != want->updates)
        fail_msg("%s: version %llu after %llu updates, expected %llu after %llu", what,
                 (unsigned long long)got.version, (unsigned long long)got.updates,
                 (unsigned long long)want->version, (unsigned long long)want->updates);
    for (size_t i = 0; i < got.n; i++)
        if (!isfinite(got.values[i]))
            fail_msg("%s: a value is not finite", what);
    lh_mem_free(got.values);
    const double loss = mean_of_last(dir, LOSS), of_sync = mean_of_last(kit_path("sync"), LOSS);
    if (!(fabs(loss - of_sync) < 0.2 * of_sync))
        fail_msg("%s: a loss of %g, in sync %g", what, loss, of_sync);
}

static void assert_result(const struct campaign *c, const struct trainkit_state *want,
                          unsigned started, double seconds)
{
    char what[200];
    snprintf(what, sizeof what, "seed %llu, %s, %s, %u faults", (unsigned long long)c->rng.seed,
             jobs[c->kind.job].name, network_names[c->kind.network], c->n);
    trainkit_assert_lines(c->dir, STEPS);
    if (jobs[c->kind.job].bits)
        trainkit_assert_same(want, c->dir, what);
    else
        assert_sane(want, c->dir, what);
    if (c->n < A_RUN / 2)
        fail_msg("%s: too few to say anything", what);
    printf("%s: %s; %u processes, %.1f s\n", what,
           jobs[c->kind.job].bits ? "same weights" : "each step once", started, seconds);
    fflush(stdout);
}

static unsigned disturbed_run(uint64_t seed, const struct trainkit_state want[JOBS], double spell,
                              unsigned faults[FAULTS])
{
    struct campaign c = {.rng = {.seed = seed, .purpose = lh_rng_purpose("campaign")},
                         .kind = kinds[(seed - 1) % TURNS],
                         .spell = spell};
    unsigned started = 0;
    snprintf(c.dir, sizeof c.dir, "%s/run-%llu", kit_dir(), (unsigned long long)seed);
    snprintf(c.job, sizeof c.job, "%s/%d.yaml", kit_dir(), c.kind.job);
    forget_log();
    open_network(&c);
    c.disk = diskkit_start();
    double began = lh_now();
    c.due = began + 0.2 * draw(&c);
    while (!supervise(&c)) {
        inject(&c);
        if (lh_now() - began > RUN_MAX) {
            show_log();
            fail_msg("seed %llu: not finished after %.0f s, at step %llu", (unsigned long long)seed,
                     RUN_MAX, (unsigned long long)trainkit_last_cut(c.dir));
        }
        usleep(2000);
    }
    see_off(&c);
    diskkit_stop(&c.disk);
    close_network(&c);
    for (int i = 0; i < FAULTS; i++)
        faults[i] += c.faults[i];
    for (size_t i = 0; i < ROLES; i++)
        started += c.roles[i].started;
    assert_result(&c, &want[c.kind.job], started, lh_now() - began);
    kit_run(NULL, "rm -rf '%s'", c.dir);
    return c.n;
}

static unsigned wanted(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* What each job gives when nothing happens; where it has no bits of its own, what sync gives.
 * Returns half the seconds that sync took, one at most. */
static double train_undisturbed(struct trainkit_state want[JOBS])
{
    double took = 2;
    char evaluation[400], more[1000];
    snprintf(evaluation, sizeof evaluation,
             "evaluation: {every: 90, ess_floor: 0, behaviour: %s}\n", kit_path("imitator"));
    for (int i = 0; i < JOBS; i++) {
        char file[16];
        snprintf(more, sizeof more, "%s%s", evaluation, jobs[i].more);
        snprintf(file, sizeof file, "%d.yaml", i);
        trainkit_job_file(kit_path(file), STEPS, EVERY, more);
        if (i != SYNC && i != TABLES) {
            want[i] = want[SYNC];
            continue;
        }
        struct lh_train_result result;
        struct lh_job *job = trainkit_job(STEPS, EVERY, more);
        struct lh_train_options opt = trainkit_options(kit_path(jobs[i].name));
        const double began = lh_now();
        assert_ok(lh_train(job, &opt, &result));
        if (i == SYNC && lh_now() - began < took)
            took = lh_now() - began;
        want[i] = trainkit_read(opt.dir);
        lh_job_destroy(&job);
    }
    return took / 2;
}

static void runs_under_random_faults_end_as_undisturbed_ones_do(void **state)
{
    (void)state;
    struct trainkit_state want[JOBS];
    unsigned faults[FAULTS] = {0}, all = 0, runs = 0, least = wanted("LONGHAUL_TEST_FAULTS", 30);
    trainkit_dataset_of_items(60, 300);
    trainkit_imitator(kit_path("imitator"));
    assert_int_equal(
        kit_run(NULL, PROGRAM " keygen --out '%s' --servers 2 --workers 2", kit_path("keys")), 0);
    const double spell = train_undisturbed(want);
    for (uint64_t seed = wanted("LONGHAUL_TEST_SEED", 1); all < least || runs < 4; seed++, runs++)
        all += disturbed_run(seed, want, spell, faults);
    printf("%u faults in %u runs:", all, runs);
    for (int i = 0; i < FAULTS; i++)
        printf("%s %u %s", i == 0 ? "" : ",", faults[i], fault_name(i));
    printf("\n");
    lh_mem_free(want[SYNC].values);
    lh_mem_free(want[TABLES].values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(runs_under_random_faults_end_as_undisturbed_ones_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
