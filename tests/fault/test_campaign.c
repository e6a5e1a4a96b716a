/* A campaign of faults: scheduler, servers and workers are processes that a supervisor starts again
 * whenever they end, as systemd would, while at random instants, drawn from a seed, one of them is
 * killed, or stopped and continued. Every run must end, at the weights of the undisturbed one.
 *
 * LONGHAUL_TEST_FAULTS: faults to inject at least, over as many runs as that takes (a few)
 * LONGHAUL_TEST_SEED: of the first run (1) */
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
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define RUN_MAX 300.0 /* seconds a run may take */

enum { STEPS = 300, EVERY = 10, SERVERS = 2, WORKERS = 2, ROLES = 1 + SERVERS + WORKERS };
enum fault { KILL, PAUSE, HANG, FAULTS }; /* a pause is shorter than the deadline, a hang longer */

static const char *const fault_names[FAULTS] = {"killed", "stopped for a moment",
                                                "stopped beyond the deadline"};

struct role {
    pid_t pid;        /* 0: not running */
    double start_at;  /* when the supervisor starts it again */
    double wake_at;   /* when it is continued; 0: it is not stopped */
    bool killed;      /* by us */
    unsigned started; /* times */
};

struct campaign {
    struct role roles[ROLES]; /* the scheduler, servers, workers */
    struct lh_rng_at rng;
    uint64_t drawn;
    char dir[300], endpoint[300];
    double next; /* fault */
    unsigned faults[FAULTS];
};

static double draw(struct campaign *c)
{
    return lh_rng_uniform1(&c->rng, c->drawn++);
}

static pid_t start_role(const struct campaign *c, size_t i)
{
    char bind[320], run_json[320];
    snprintf(run_json, sizeof run_json, "%s/run.json", c->dir);
    snprintf(bind, sizeof bind, "%s-%zu", c->endpoint, i);
    const char *resume = access(run_json, F_OK) == 0 ? "--resume" : NULL;
    const char *scheduler[] = {PROGRAM,     "scheduler", kit_path("job.yaml"),
                               "--dir",     c->dir,      "--bind",
                               c->endpoint, "--servers", "2",
                               "--workers", "2",         "--no-evaluation",
                               "--quiet",   resume,      NULL};
    const char *server[] = {PROGRAM, "server", "--scheduler", c->endpoint, "--bind", bind, NULL};
    const char *worker[] = {PROGRAM, "worker", "--scheduler", c->endpoint, NULL};
    return trainkit_spawn(kit_path("log"), i == 0 ? scheduler : i <= SERVERS ? server : worker);
}

/* Whether a role may end like this: as it should, by our hand, or because it lost another. Never by
 * a bug or a crash of its own. */
static bool may_end(const struct role *r, int status)
{
    if (WIFSIGNALED(status))
        return r->killed && WTERMSIG(status) == SIGKILL;
    int code = WEXITSTATUS(status);
    return code == 0 || code == lh_err_exit_status(LH_EPEER) ||
           code == lh_err_exit_status(LH_EBUSY);
}

/* Returns true when the scheduler has finished the run. */
static bool supervise(struct campaign *c)
{
    double now = lh_now();
    for (size_t i = 0; i < ROLES; i++) {
        struct role *r = &c->roles[i];
        int status;
        if (r->pid && waitpid(r->pid, &status, WNOHANG) == r->pid) {
            if (!may_end(r, status))
                fail_msg("seed %llu: role %zu ended with status 0x%x, see %s",
                         (unsigned long long)c->rng.seed, i, (unsigned)status, kit_path("log"));
            r->pid = 0;
            r->wake_at = 0;
            r->killed = false;
            r->start_at = now + 0.2 * draw(c);
            if (i == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return true;
        }
        if (r->pid == 0 && now >= r->start_at) {
            r->pid = start_role(c, i);
            r->started++;
        }
        if (r->wake_at > 0 && now >= r->wake_at) {
            kill(r->pid, SIGCONT);
            r->wake_at = 0;
        }
    }
    return false;
}

static void inject(struct campaign *c)
{
    struct role *r = &c->roles[(size_t)(draw(c) * ROLES)];
    double kind = draw(c), now = lh_now();
    c->next = now + 0.05 + 0.9 * draw(c);
    if (r->pid == 0 || r->wake_at > 0)
        return;
    enum fault f = kind < 0.7 ? KILL : kind < 0.97 ? PAUSE : HANG;
    c->faults[f]++;
    if (f == KILL) {
        r->killed = true;
        kill(r->pid, SIGKILL);
        return;
    }
    kill(r->pid, SIGSTOP);
    r->wake_at = now + (f == PAUSE ? 0.5 * draw(c) : 5.5 + draw(c)); /* the deadline is 5 s */
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
    snprintf(c.endpoint, sizeof c.endpoint, "ipc://%s/s%llu", kit_dir(), (unsigned long long)seed);
    double began = lh_now();
    c.next = began + draw(&c);
    while (!supervise(&c)) {
        if (lh_now() >= c.next)
            inject(&c);
        if (lh_now() - began > RUN_MAX)
            fail_msg("seed %llu: not finished after %.0f s, at step %llu; see %s",
                     (unsigned long long)seed, RUN_MAX,
                     (unsigned long long)trainkit_last_cut(c.dir), kit_path("log"));
        usleep(2000);
    }
    see_off(&c);
    for (int i = 0; i < FAULTS; i++) {
        faults[i] += c.faults[i];
        all += c.faults[i];
    }
    for (size_t i = 0; i < ROLES; i++)
        started += c.roles[i].started;
    snprintf(what, sizeof what, "seed %llu, %u faults", (unsigned long long)seed, all);
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
    unsigned faults[FAULTS] = {0}, all = 0, least = wanted("LONGHAUL_TEST_FAULTS", 20);
    trainkit_dataset();
    struct lh_job *job = trainkit_job(STEPS, EVERY, NULL);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    for (uint64_t seed = wanted("LONGHAUL_TEST_SEED", 1); all < least; seed++)
        all += disturbed_run(seed, &want, faults);
    printf("%u faults:", all);
    for (int i = 0; i < FAULTS; i++)
        printf(" %u %s%s", faults[i], fault_names[i], i + 1 < FAULTS ? "," : "\n");
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
