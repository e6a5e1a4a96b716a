/* mpirun -n N longhaul train: on this host, and over several hosts, which are network namespaces
 * that this test makes, with mpirun's daemons started there by a launch agent. Skipped where there
 * is no mpirun; the hosts also where namespaces are not permitted. */
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "cluster/run_record.h"
#include "cluster/status.h"
#include "common/err.h"
#include "common/term.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

/* What Open MPI keeps until its end is no leak of ours. */
#define ENVIRONMENT                                                                                \
    "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OPENBLAS_NUM_THREADS=1 "     \
    "ASAN_OPTIONS=detect_leaks=0; "
#define MPIRUN "timeout -k 2 60 mpirun --oversubscribe --bind-to none "

enum { STEPS = 40, EVERY = 20, LONG_STEPS = 600, HOSTS = 3 };

/* What the group shares: a log, a behaviour model, two jobs, and runs of them by the local
 * launcher. */
static struct {
    char dir[256];
    bool mpirun, hosts;
    char host[HOSTS][32];
    char switch_name[32];
} home;

/* --- the group ----------------------------------------------------------------------------------
 */
static int run_at_home(const char *command)
{
    char *out = NULL;
    int status = kit_run(&out, ENVIRONMENT "cd '%s' && %s", home.dir, command);
    if (status != 0)
        print_error("%s: %s\n", command, out);
    free(out);
    return status == 0 ? 0 : -1;
}

static int write_job(const char *name, int steps, const char *more)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", home.dir, name);
    FILE *f = fopen(path, "w");
    if (!f)
        return -1;
    fprintf(f,
            "dataset: data\nalgorithm: resact\nseed: 3\n"
            "network: {hidden: [16, 16], z_high: 4, z_low: 4}\n"
            "objective: {estimators: 2}\n"
            "optimiser: {lr_actor: 0.001, lr_critic: 0.001, lr_cvae: 0.001}\n"
            "train: {batch: 128, micro_batch: 16, steps: %d}\n"
            "checkpoint: {every: %d}\n"
            "evaluation: {behaviour: snap, ess_floor: 0}\n%s\n",
            steps, EVERY, more);
    return fclose(f);
}

/* Host I is namespace host[I] with 10.77.0.I on eth0 and 10.78.0.I on eth1; the bridges of both
 * networks are in a namespace of their own, so that this machine's network is not touched. */
static const char up[] =
    "set -e; ip netns add %1$s; for n in 0 1; do ip -n %1$s link add br$n type bridge; "
    "ip -n %1$s link set br$n up; done; i=1; for h in %2$s %3$s %4$s; do ip netns add $h; "
    "ip -n $h link set lo up; for n in 0 1; do "
    "ip -n %1$s link add p$i$n type veth peer name eth$n netns $h; "
    "ip -n %1$s link set p$i$n master br$n up; "
    "ip -n $h addr add 10.7$((7 + n)).0.$i/24 dev eth$n; ip -n $h link set eth$n up; done; "
    "i=$((i + 1)); done";

static const char down[] = "for h in %2$s %3$s %4$s %1$s; do for p in $(ip netns pids $h); do "
                           "kill -KILL $p; done; ip netns del $h; done";

/* Those of a test that was killed. */
static const char sweep[] =
    "for n in $(ip netns list | sed -n 's/^\\(lhm\\([0-9]*\\)-[0-9s]\\).*/\\1:\\2/p'); do "
    "[ -d /proc/${n#*:} ] && continue; for p in $(ip netns pids ${n%%:*}); do kill -KILL $p; done; "
    "ip netns del ${n%%:*}; done";

static int on_hosts(const char *script, char **out)
{
    return kit_run(out, script, home.switch_name, home.host[0], home.host[1], home.host[2]);
}

/* mpirun starts its daemon on a host as it would by ssh: agent.sh [-options] HOST COMMAND… */
static int write_agent(void)
{
    static const char agent[] =
        "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done; h=$1; shift\n"
        "exec ip netns exec \"$h\" unshare -u sh -c \"hostname $h; exec $*\"\n";
    char path[300];
    snprintf(path, sizeof path, "%s/agent.sh", home.dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(agent, f) < 0 || fclose(f) != 0 || chmod(path, 0755) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/hosts", home.dir);
    f = fopen(path, "w");
    for (int i = 0; f && i < HOSTS; i++)
        fprintf(f, "%s slots=2\n", home.host[i]);
    return f && fclose(f) == 0 ? 0 : -1;
}

static void make_hosts(void)
{
    char *out = NULL;
    snprintf(home.switch_name, sizeof home.switch_name, "lhm%d-s", (int)getpid());
    for (int i = 0; i < HOSTS; i++)
        snprintf(home.host[i], sizeof home.host[i], "lhm%d-%d", (int)getpid(), i + 1);
    kit_run(NULL, sweep);
    home.hosts = on_hosts(up, &out) == 0;
    if (!home.hosts) {
        print_message("SKIPPED: no network namespaces here: %s", out);
        on_hosts(down, NULL);
    }
    free(out);
}

static int group_setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    home.mpirun =
        kit_run(NULL, "command -v mpirun && test -e %s/longhaul-mpi.so", LH_BINARY_DIR) == 0;
    if (!home.mpirun) {
        print_message("SKIPPED: no mpirun here, or longhaul was built without Open MPI\n");
        return 0;
    }
    snprintf(home.dir, sizeof home.dir, "%s/longhaul-mpi-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(home.dir) ||
        run_at_home(PROGRAM " simulate --out data --users 300 --format dataset") != 0 ||
        write_job("job.yaml", STEPS, "cluster: {heartbeat_seconds: 0.2, deadline_seconds: 10}") ||
        write_job("long.yaml", LONG_STEPS,
                  "cluster: {heartbeat_seconds: 0.2, deadline_seconds: 3}\n"
                  "consistency: {takeover: false}") || /* a dead rank is missed before the end */
        run_at_home(PROGRAM " train job.yaml --dir il --set algorithm=il --set train.steps=40 "
                            "--no-evaluation --quiet && " PROGRAM " export --dir il --out snap") ||
        run_at_home(PROGRAM " train job.yaml --dir want --quiet && " PROGRAM
                            " train long.yaml --dir want-long --quiet --no-evaluation"))
        return -1;
    make_hosts();
    return write_agent();
}

static int group_teardown(void **state)
{
    (void)state;
    if (home.hosts)
        on_hosts(down, NULL);
    return home.mpirun ? kit_run(NULL, "rm -rf '%s'", home.dir) : 0;
}

static void need_mpirun(void)
{
    if (!home.mpirun)
        skip();
}

static void need_hosts(void)
{
    need_mpirun();
    if (!home.hosts)
        skip();
}

/* --- running ------------------------------------------------------------------------------------
 */
/* "mpirun OPTIONS longhaul train HOME/JOB --dir run MORE" on this host; what it printed in *out. */
static int mpirun(char **out, const char *options, const char *job, const char *more)
{
    return kit_run(out, ENVIRONMENT "cd '%s' && " MPIRUN "%s %s train '%s/%s' --dir run --quiet %s",
                   kit_dir(), options, PROGRAM, home.dir, job, more);
}

/* The same over the hosts, two ranks on each, as a command. */
static void hosts_command(char out[2048], const char *options, const char *job, const char *more)
{
    const int n =
        snprintf(out, 2048,
                 ENVIRONMENT
                 "cd '%s' && exec ip netns exec %s unshare -u sh -c 'hostname %s; exec " MPIRUN
                 "\"$@\"' m --hostfile '%s/hosts' --mca plm rsh --mca plm_rsh_agent '%s/agent.sh' "
                 "--mca plm_rsh_no_tree_spawn 1 --mca btl_tcp_if_include 10.77.0.0/24 "
                 "--mca oob_tcp_if_include 10.77.0.0/24 %s %s train '%s/%s' --dir run --quiet %s",
                 kit_dir(), home.host[0], home.host[0], home.dir, home.dir, options, PROGRAM,
                 home.dir, job, more);
    assert_in_range(n, 0, 2047);
}

static int mpirun_hosts(char **out, const char *options, const char *job, const char *more)
{
    char command[2048];
    hosts_command(command, options, job, more);
    return kit_run(out, "%s", command);
}

static void assert_same_file(const char *name)
{
    char want[300], path[40];
    snprintf(want, sizeof want, "%s/want/%s", home.dir, name);
    snprintf(path, sizeof path, "run/%s", name);
    char *a = kit_read(want, NULL), *b = kit_read(kit_path(path), NULL);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

/* The run is the local launcher's, weights and evaluations, to the bit. */
static void assert_as_wanted(const char *what)
{
    char want[300];
    snprintf(want, sizeof want, "%s/want", home.dir);
    struct trainkit_state state = trainkit_read(want);
    trainkit_assert_same(&state, kit_path("run"), what);
    lh_mem_free(state.values);
    assert_same_file("evaluations.jsonl");
    assert_same_file("test.json");
}

static void assert_long_as_wanted(const char *what)
{
    char want[300];
    snprintf(want, sizeof want, "%s/want-long", home.dir);
    struct trainkit_state state = trainkit_read(want);
    trainkit_assert_same(&state, kit_path("run"), what);
    lh_mem_free(state.values);
}

/* Exactly one line is longhaul's, but for those that tell who is awaited. */
static void assert_says_once(const char *out, const char *words)
{
    size_t lines = 0;
    for (const char *p = out; (p = strstr(p, "longhaul: ")); p++) {
        const char *end = strchrnul(p, '\n'), *waits = strstr(p, "wait");
        bool awaits =
            waits && waits < end &&
            (strncmp(waits, "waiting for ", 12) == 0 || strncmp(waits, "waits for ", 10) == 0);
        lines += !awaits;
    }
    kit_assert_contains(out, words);
    if (lines != 1)
        fail_msg("%zu lines instead of one:\n%s", lines, out);
}

static void assert_ends(int status, int want, const char *out, const char *words)
{
    if (status != want)
        fail_msg("status %d instead of %d:\n%s", status, want, out);
    if (words)
        assert_says_once(out, words);
}

/* --- on one host --------------------------------------------------------------------------------
 */
static void ranks_of_one_host_give_the_bits_of_the_local_launcher(void **state)
{
    (void)state;
    need_mpirun();
    static const struct {
        const char *ranks, *more;
    } cases[] = {{"-n 3", ""},
                 {"-n 6", "--set cluster.servers_per_host=2 --set cluster.io_threads=2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = NULL;
        int status = mpirun(&out, cases[i].ranks, "job.yaml", cases[i].more);
        assert_ends(status, 0, out, NULL);
        kit_assert_contains(out, "on test: NCIS");
        assert_as_wanted(cases[i].ranks);
        kit_run(NULL, "rm -rf '%s'", kit_path("run"));
        free(out);
    }
}

static void placements_that_do_not_fit_end_with_one_line(void **state)
{
    (void)state;
    need_mpirun();
    static const struct {
        const char *ranks, *more, *says;
        int code;
    } cases[] = {
        {"-n 2", "", "mpirun started 2 ranks, and a job needs", LH_ECONFIG},
        {"-n 3", "--set cluster.servers_per_host=2", "0 are workers", LH_ECONFIG},
        {"-n 3", "--set cluster.placement=nohost:1+1", "names host nohost", LH_ECONFIG},
        {"-n 3", "--set cluster.interface=nosuch0", "has no address of 'nosuch0'", LH_ECONFIG},
        {"-n 3", "--workers 2", "under mpirun ranks are the workers", LH_EUSAGE},
        {"-n 3", "--set nonsense=1", "nonsense", LH_ECONFIG},
        {"-n 3", "--resume", "no run to resume", LH_ENOENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = NULL;
        int status = mpirun(&out, cases[i].ranks, "job.yaml", cases[i].more);
        assert_ends(status, lh_err_exit_status(cases[i].code), out, cases[i].says);
        assert_int_equal(access(kit_path("run"), F_OK), -1);
        free(out);
    }
}

/* The late one starts when the scheduler has said that it waits. */
static void a_late_rank_is_awaited_and_named(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    int status = mpirun(&out,
                        "-n 3 sh -c 'case $OMPI_COMM_WORLD_RANK in 0) exec \"$@\" 2>said ;; "
                        "2) until grep -q \"waiting for rank 2 on \" said; do sleep 0.1; done ;; "
                        "esac; exec \"$@\"' m",
                        "job.yaml", "--no-evaluation");
    assert_ends(status, 0, out, NULL);
    free(out);
}

/* Of a test's jobs in which a rank is missing; the others start within it. */
#define PATIENCE "--patience 4"

static void a_rank_that_never_starts_ends_the_job_with_the_cure(void **state)
{
    (void)state;
    need_mpirun();
    static const char *const never[] = {"0", "2"};
    for (size_t i = 0; i < 2; i++) {
        char *out = NULL, options[200], says[80];
        snprintf(options, sizeof options,
                 "-n 3 sh -c 'test $OMPI_COMM_WORLD_RANK = %s && exec sleep 50; exec \"$@\"' m",
                 never[i]);
        snprintf(says, sizeof says, "longhaul: rank %s on ", never[i]);
        int status = mpirun(&out, options, "job.yaml", PATIENCE);
        assert_ends(status, lh_err_exit_status(LH_ETIMEDOUT), out, says);
        kit_assert_contains(out, "or wait longer with --patience");
        free(out);
    }
}

static void without_mpirun_or_module_the_program_says_so(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    int status = kit_run(&out, ENVIRONMENT PROGRAM " train '%s/job.yaml' --dir '%s' --launcher mpi",
                         home.dir, kit_path("run"));
    assert_ends(status, lh_err_exit_status(LH_EUSAGE), out, "mpirun -n N longhaul train");
    free(out);
    status = kit_run(&out,
                     ENVIRONMENT "cp %s '%s/copy' && " MPIRUN "-n 3 '%s/copy' train "
                                 "'%s/job.yaml' --dir '%s'",
                     PROGRAM, kit_dir(), kit_dir(), home.dir, kit_path("run"));
    assert_ends(status, lh_err_exit_status(LH_ENOENT), out, "built without Open MPI");
    free(out);
}

static void local_launcher_under_mpirun_is_possible(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    int status = mpirun(&out, "-n 1", "job.yaml", "--launcher local --workers 2");
    assert_ends(status, 0, out, NULL);
    assert_as_wanted("local under mpirun");
    free(out);
}

/* --- deaths -------------------------------------------------------------------------------------
 */
static bool reads(const char *pid, const char *file, char *out, size_t size, size_t *n)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    *n = fread(out, 1, size - 1, f);
    out[*n] = '\0';
    fclose(f);
    return *n > 0;
}

/* Whether one of the strings in [text, text + n), NUL after each, is `want`. */
static bool has(const char *text, size_t n, const char *want)
{
    for (const char *p = text; p < text + n; p += strlen(p) + 1)
        if (strcmp(p, want) == 0)
            return true;
    return false;
}

/* The process of a rank that trains in kit_dir(). */
static pid_t find_rank(const char *rank)
{
    static char env[1 << 16], argv[4096];
    char variable[64], cwd[300], link[64];
    DIR *d = opendir("/proc");
    struct dirent *e;
    pid_t found = 0;
    assert_non_null(d);
    snprintf(variable, sizeof variable, "OMPI_COMM_WORLD_RANK=%s", rank);
    while (!found && (e = readdir(d))) {
        size_t n_env, n_argv;
        snprintf(link, sizeof link, "/proc/%.20s/cwd", e->d_name);
        ssize_t n = readlink(link, cwd, sizeof cwd - 1);
        cwd[n > 0 ? n : 0] = '\0';
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && strcmp(cwd, kit_dir()) == 0 &&
            reads(e->d_name, "environ", env, sizeof env, &n_env) && has(env, n_env, variable) &&
            reads(e->d_name, "cmdline", argv, sizeof argv, &n_argv) && strcmp(argv, PROGRAM) == 0)
            found = (pid_t)atoi(e->d_name);
    }
    closedir(d);
    return found;
}

/* Starts the long job with four ranks (scheduler, server, two workers) and waits for cuts; *mpi is
 * the shell's process that has become timeout's, whose child is mpirun. */
static pid_t start_long(const char *options, const char *more)
{
    char command[2048];
    snprintf(command, sizeof command,
             ENVIRONMENT "cd '%s' && exec " MPIRUN "-n 4 %s %s train '%s/long.yaml' --dir run "
                         "--quiet %s",
             kit_dir(), options, PROGRAM, home.dir, more);
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    uint64_t from = trainkit_last_cut(kit_path("run"));
    pid_t mpi = trainkit_spawn(kit_path("log"), argv);
    assert_true(trainkit_wait_cut(kit_path("run"), from + 2 * EVERY));
    return mpi;
}

/* Sends a signal to `victim`, and gives mpirun's status and what was said. */
static int end_of(pid_t mpi, pid_t victim, int signal, char **out)
{
    assert_true(victim > 0);
    assert_int_equal(kill(victim, signal), 0);
    int status = trainkit_wait_exit(mpi);
    *out = kit_read(kit_path("log"), NULL);
    return status;
}

static int kill_one(const char *rank, const char *options, const char *resume, char **out)
{
    char more[80];
    snprintf(more, sizeof more, "--no-evaluation %s", resume);
    pid_t mpi = start_long(options, more);
    return end_of(mpi, find_rank(rank), SIGKILL, out);
}

static void resume_by_mpirun(const char *ranks)
{
    char *out = NULL;
    int status = mpirun(&out, ranks, "long.yaml", "--no-evaluation --resume");
    assert_ends(status, 0, out, NULL);
    free(out);
}

/* What Open MPI cannot do: a rank starts its role again, and its death is not that of the rank. */
static void roles_that_die_are_started_again_by_their_ranks(void **state)
{
    (void)state;
    need_mpirun();
    static const struct {
        const char *rank, *role, *says;
        int signal;
    } cases[] = {{"1", "server", "died; the run goes back to step ", SIGKILL},
                 {"1", "server", "went silent; the run goes back to step ", SIGSTOP},
                 {"3", "worker", "died; the others take its share", SIGKILL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = NULL, again[40];
        snprintf(again, sizeof again, "started another %s (process ", cases[i].role);
        pid_t mpi = start_long("", "--no-evaluation");
        pid_t victim = trainkit_find_role(find_rank(cases[i].rank), cases[i].role);
        int status = end_of(mpi, victim, cases[i].signal, &out);
        assert_ends(status, 0, out, NULL);
        kit_assert_contains(out, again);
        kit_assert_contains(out, cases[i].says);
        assert_long_as_wanted(cases[i].says);
        kit_run(NULL, "rm -rf '%s' '%s'", kit_path("run"), kit_path("log"));
        free(out);
    }
}

/* Steps that no machine is through with before it is interrupted. */
#define ENDLESS "--no-evaluation --set train.steps=1000000 "

/* timeout's child: who starts the ranks. */
static pid_t mpirun_of(pid_t timeout)
{
    char *text = NULL;
    kit_run(&text, "pgrep -P %d -x mpirun", (int)timeout);
    pid_t pid = (pid_t)atoi(text);
    free(text);
    return pid;
}

/* The run stands where the same job by the local launcher stands after as many steps. */
static void assert_as_stopped_by_local(const char *what)
{
    uint64_t version = trainkit_last_cut(kit_path("run"));
    char *out = NULL;
    assert_true(version > 0);
    int status = kit_run(&out,
                         ENVIRONMENT
                         "cd '%s' && rm -rf alone && %s train '%s/long.yaml' --dir alone --quiet "
                         "--workers 2 " ENDLESS "--stop-after %llu",
                         kit_dir(), PROGRAM, home.dir, (unsigned long long)version);
    assert_ends(status, 0, out, NULL);
    struct trainkit_state want = trainkit_read(kit_path("alone"));
    trainkit_assert_same(&want, kit_path("run"), what);
    lh_mem_free(want.values);
    free(out);
}

static void a_signal_to_mpirun_cuts_a_checkpoint_from_which_the_run_goes_on(void **state)
{
    (void)state;
    need_mpirun();
    static const struct {
        int signal, status; /* mpirun's own where it is told to end */
        const char *says;
    } cases[] = {{SIGUSR1, 130, ": interrupted at step "},
                 {SIGTERM, 1, "mpirun ends the job, since a rank died or it was interrupted"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = NULL, more[100];
        struct lh_run_record record = {0};
        pid_t mpi = start_long("--mca odls_base_sigkill_timeout 3", ENDLESS);
        int status = end_of(mpi, mpirun_of(mpi), cases[i].signal, &out);
        assert_ends(status, cases[i].status, out, NULL);
        kit_assert_contains(out, cases[i].says);
        free(out);
        assert_ok(lh_run_record_load(&record, kit_path("run")));
        assert_int_equal(record.state, LH_RUN_STOPPED); /* it left, and was not killed */
        snprintf(more, sizeof more, ENDLESS "--resume --stop-after %llu",
                 (unsigned long long)record.last + 7);
        lh_run_record_fini(&record);
        status = mpirun(&out, "-n 5", "long.yaml", more);
        assert_ends(status, 0, out, NULL);
        free(out);
        assert_as_stopped_by_local(cases[i].says);
        kit_run(NULL, "rm -rf '%s' '%s'", kit_path("run"), kit_path("log"));
    }
}

/* Written about once a second. */
static void await_status(struct lh_status *status, size_t roles)
{
    for (double began = lh_now(); lh_now() - began < 30; usleep(20000)) {
        if (lh_status_load(status, kit_path("run/status.json")) == 0 && status->n_roles == roles)
            return;
        lh_status_fini(status);
    }
    fail_msg("status.json never named %zu roles", roles);
}

static void all_ranks_serve_the_metrics_of_their_roles(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    struct lh_status status = {0};
    pid_t mpi = start_long("", ENDLESS "--set metrics.listen=127.0.0.1:0");
    await_status(&status, 3);
    for (size_t i = 0; i < status.n_roles; i++) {
        const struct lh_status_role *r = &status.roles[i];
        char *page = scrapekit_get(r->metrics, "/metrics"), series[80];
        snprintf(series, sizeof series, "role=\"%s\",node=\"%u\"", r->server ? "server" : "worker",
                 r->node);
        scrapekit_check(page, NULL);
        kit_assert_contains(page, series);
        free(page);
    }
    lh_status_fini(&status);
    int ended = end_of(mpi, mpirun_of(mpi), SIGUSR1, &out);
    assert_ends(ended, 130, out, NULL);
    free(out);
}

/* A helper that died is waited for, once, then rank 0 does its part, to the same bits. */
static void evaluations_do_without_a_rank_that_died(void **state)
{
    (void)state;
    need_mpirun();
    static const char seldom[] = "--patience 10 --set evaluation.every=200";
    char *out = NULL, more[100];
    snprintf(more, sizeof more, "%s --quiet", seldom);
    pid_t mpi = start_long("--enable-recovery", more);
    int status = end_of(mpi, find_rank("3"), SIGKILL, &out);
    assert_ends(status, 0, out, NULL);
    kit_assert_contains(out, "rank 3 on ");
    kit_assert_contains(out, " does not help with evaluations: it ");
    kit_assert_contains(out, "; rank 0 does its part");
    free(out);
    status = kit_run(&out,
                     ENVIRONMENT "cd '%s' && %s train '%s/long.yaml' --dir alone --quiet %s && "
                                 "cmp alone/evaluations.jsonl run/evaluations.jsonl && "
                                 "cmp alone/test.json run/test.json",
                     kit_dir(), PROGRAM, home.dir, seldom);
    assert_ends(status, 0, out, NULL);
    free(out);
}

/* Who helps is sent the rows that its blocks name: validation and test of some blocks each, ids of
 * many users and of a few items, rows that take more than a message. */
static void evaluations_of_jobs_with_tables_are_shared_too(void **state)
{
    (void)state;
    need_mpirun();
    char text[300], *out = NULL;
    trainkit_dataset_of_items(5000, 300);
    trainkit_imitator(kit_path("snap"));
    snprintf(text, sizeof text,
             "evaluation: {behaviour: %s, ess_floor: 0}\n"
             "tables:\n  item: {ids: [item, before], into: state_low, dim: 5}\n"
             "  user: {ids: user, into: state_high, dim: 3000, init: 0.001}\n",
             kit_path("snap"));
    trainkit_job_file(kit_path("job.yaml"), 30, 15, text);
    int status = kit_run(
        &out,
        ENVIRONMENT
        "cd '%s' && %s train job.yaml --dir alone --quiet && LONGHAUL_LOG=json,debug " MPIRUN
        "-n 5 %s train job.yaml --dir run --quiet "
        "2>said; s=$?; cmp alone/evaluations.jsonl "
        "run/evaluations.jsonl && cmp alone/test.json run/test.json || { cat said; exit 98; }; "
        "grep -h '\"shared\"' said; ! grep 'not help' said || exit 97; exit $s",
        kit_dir(), PROGRAM, PROGRAM);
    assert_ends(status, 0, out, NULL);
    int shared = 0;
    for (const char *at = out; (at = strstr(at, "\"helped\":")); at++)
        shared += atoi(at + strlen("\"helped\":")) > 0;
    if (shared < 3)
        fail_msg("%d evaluations were shared:\n%s", shared, out);
    free(out);
}

/* In ssp and async weights depend on who was faster, in bfloat16 they do not. */
static void other_consistencies_and_gradients_go_over_ranks_too(void **state)
{
    (void)state;
    need_mpirun();
    static const char *const sets[] = {"consistency.model=ssp", "consistency.model=async",
                                       "train.gradient=bf16"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char *out = NULL, more[60];
        snprintf(more, sizeof more, "--set %s", sets[i]);
        int status = mpirun(&out, "-n 5", "job.yaml", more);
        assert_ends(status, 0, out, NULL);
        kit_assert_contains(out, "on test: NCIS");
        free(out);
        assert_int_equal(trainkit_last_cut(kit_path("run")), STEPS);
        if (i == 2) {
            kit_run(NULL, ENVIRONMENT "cd '%s' && %s train '%s/job.yaml' --dir alone --quiet %s",
                    kit_dir(), PROGRAM, home.dir, more);
            struct trainkit_state want = trainkit_read(kit_path("alone"));
            trainkit_assert_same(&want, kit_path("run"), sets[i]);
            lh_mem_free(want.values);
        }
        kit_run(NULL, "rm -rf '%s'", kit_path("run"));
    }
}

static void a_dead_worker_is_made_up_for_where_mpirun_recovers(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    int status = kill_one("3", "--enable-recovery", "", &out);
    assert_ends(status, 0, out, "the others take its share");
    assert_long_as_wanted("a worker rank died");
    free(out);
}

static void a_dead_server_or_scheduler_is_named_where_mpirun_recovers(void **state)
{
    (void)state;
    need_mpirun();
    char *out = NULL;
    kill_one("1", "--enable-recovery", "", &out); /* the status of mpirun says nothing here */
    assert_says_once(out, "server 0 (process ");
    kit_assert_contains(out, "--resume");
    free(out);
    unlink(kit_path("log"));
    kill_one("0", "--enable-recovery", "--resume", &out);
    assert_says_once(out, "the scheduler, went away (silent for ");
    free(out);
    resume_by_mpirun("-n 3");
    assert_long_as_wanted("server and scheduler ranks died");
}

static void a_dead_rank_ends_the_job_with_one_line_else_and_it_can_be_resumed(void **state)
{
    (void)state;
    need_mpirun();
    static const struct {
        const char *rank, *says;
    } cases[] = {{"3", "mpirun ends the job, since a rank died"},
                 {"0", "the scheduler, died and mpirun ends the job"}};
    for (size_t i = 0; i < 2; i++) {
        char *out = NULL;
        int status = kill_one(cases[i].rank, "", i ? "--resume" : "", &out);
        assert_ends(status, 128 + SIGKILL, out, cases[i].says);
        kit_assert_contains(out, "go on");
        unlink(kit_path("log"));
        free(out);
    }
    resume_by_mpirun("-n 5");
    assert_long_as_wanted("ranks died");
}

/* --- keys ---------------------------------------------------------------------------------------
 */
/* The mechanism that ZeroMQ's greeting names at a port of this host: it is at byte 12 of 64, and
 * comes once signature and version of ours have been sent (ZMTP 3.0, RFC 23). */
static void read_mechanism(int port, char out[20])
{
    static const unsigned char mine[12] = {0xff, [9] = 0x7f, [10] = 3};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 10};
    unsigned char its[64] = {0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(send(fd, mine, sizeof mine, MSG_NOSIGNAL), sizeof mine);
    assert_int_equal(recv(fd, its, sizeof its, MSG_WAITALL), sizeof its);
    close(fd);
    memcpy(out, its + 12, 19);
    out[19] = '\0';
}

/* Of the scheduler's port while a job trains. */
static void mechanism_of_a_job(const char *more, char out[20])
{
    char command[2048], *text = NULL;
    snprintf(command, sizeof command,
             ENVIRONMENT "cd '%s' && exec " MPIRUN "-n 3 %s train '%s/long.yaml' --dir run "
                         "--quiet --no-evaluation %s",
             kit_dir(), PROGRAM, home.dir, more);
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    pid_t mpi = trainkit_spawn(kit_path("log"), argv);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    kit_run(&text, "ss -ltnpH | sed -n 's/.* 127.0.0.1:\\([0-9]*\\) .*pid=%d,.*/\\1/p' | head -1",
            (int)find_rank("0"));
    read_mechanism(atoi(text), out);
    free(text);
    assert_int_equal(trainkit_wait_exit(mpi), 0);
    kit_run(NULL, "rm -rf '%s'", kit_path("run"));
}

static void ranks_speak_curve_unless_the_job_says_none(void **state)
{
    (void)state;
    need_mpirun();
    char mechanism[20];
    mechanism_of_a_job("", mechanism);
    assert_string_equal(mechanism, "CURVE");
    mechanism_of_a_job("--set cluster.security=none", mechanism);
    assert_string_equal(mechanism, "NULL");
}

/* --- over hosts ---------------------------------------------------------------------------------
 */
static void hosts_give_the_bits_of_the_local_launcher(void **state)
{
    (void)state;
    need_hosts();
    char *out = NULL, more[200];
    int status = mpirun_hosts(&out, "-n 6", "job.yaml", "");
    assert_ends(status, 0, out, NULL);
    assert_as_wanted("three hosts");
    free(out);
    kit_run(NULL, "rm -rf '%s'", kit_path("run"));
    snprintf(more, sizeof more, "--set cluster.placement='%s:0+1 %s:2+0 %s:0+2'", home.host[0],
             home.host[1], home.host[2]);
    status = mpirun_hosts(&out, "-n 6", "job.yaml", more);
    assert_ends(status, 0, out, NULL);
    assert_as_wanted("three hosts by list");
    free(out);
}

static unsigned long received(int host, const char *interface)
{
    char *out = NULL;
    int status = kit_run(&out, "ip netns exec %s cat /sys/class/net/%s/statistics/rx_bytes",
                         home.host[host], interface);
    unsigned long n = strtoul(out, NULL, 10);
    assert_int_equal(status, 0);
    free(out);
    return n;
}

static void interface_of_the_job_is_the_one_that_carries_it(void **state)
{
    (void)state;
    need_hosts();
    static const char *const named[] = {"eth1", "10.78.0.0/16"};
    for (size_t i = 0; i < 2; i++) {
        char *out = NULL, more[80];
        unsigned long before = received(1, "eth1");
        snprintf(more, sizeof more, "--no-evaluation --set cluster.interface=%s", named[i]);
        int status = mpirun_hosts(&out, "-n 6", "job.yaml", more);
        assert_ends(status, 0, out, NULL);
        assert_true(received(1, "eth1") - before > 1000000); /* gradients, to the server there */
        kit_run(NULL, "rm -rf '%s'", kit_path("run"));
        free(out);
    }
}

/* The metrics of a role, asked for on a host; false if it has none there. */
static bool shows(const char *on, const char *address, const char *series)
{
    char *page = NULL;
    const bool there =
        kit_run(&page,
                "no_proxy='*' ip netns exec %s %s -c 'import urllib.request as u\n"
                "print(u.urlopen(\"http://%s/metrics\", timeout=10).read().decode(), "
                "end=\"\")' 2>/dev/null",
                on, LH_PYTHON, address) == 0;
    if (there) {
        scrapekit_check(page, NULL);
        kit_assert_contains(page, series);
    }
    free(page);
    return there;
}

/* A role serves its metrics where the job says, on its own host: under all its addresses, on the
 * network of the run, or to that host alone. */
static void metrics_of_other_hosts_are_served_there(void **state)
{
    (void)state;
    need_hosts();
    static const struct {
        const char *sets, *told, *asked; /* address of the host of a number */
        bool from_others;
    } cases[] = {
        {"--set metrics.listen=10.78.0.1:0 --set cluster.interface=eth1",
         "10.78.0.%d:", "10.78.0.%d", true},
        {"--set metrics.listen=0.0.0.0:0", "0.0.0.0:", "10.77.0.%d", true},
        {"--set metrics.listen=0", "127.0.0.1:", "10.77.0.%d", false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char command[2048], more[160], *out = NULL;
        const char *argv[] = {"/bin/sh", "-c", command, NULL};
        struct lh_status status = {0};
        unsigned seen = 0;
        snprintf(more, sizeof more, ENDLESS "%s", cases[c].sets);
        hosts_command(command, "-n 6", "long.yaml", more);
        pid_t mpi = trainkit_spawn(kit_path("log"), argv);
        assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
        await_status(&status, 5);
        for (size_t i = 0; i < status.n_roles; i++) {
            const struct lh_status_role *r = &status.roles[i];
            const char *port = strrchr(r->metrics, ':');
            char told[32], at[64], series[80];
            int h = 0;
            while (h < HOSTS && strcmp(r->host, home.host[h]) != 0)
                h++;
            assert_in_range(h, 0, HOSTS - 1);
            seen |= 1u << h;
            snprintf(told, sizeof told, cases[c].told, h + 1);
            assert_non_null(port);
            if (strncmp(r->metrics, told, strlen(told)) != 0)
                fail_msg("%s: host %d tells %s", cases[c].sets, h + 1, r->metrics);
            snprintf(series, sizeof series, "role=\"%s\",node=\"%u\"",
                     r->server ? "server" : "worker", r->node);
            snprintf(at, sizeof at, cases[c].asked, h + 1);
            snprintf(at + strlen(at), sizeof at - strlen(at), "%s", port);
            assert_int_equal(shows(home.host[(h + 1) % HOSTS], at, series), cases[c].from_others);
            if (!cases[c].from_others)
                assert_true(shows(home.host[h], r->metrics, series));
        }
        assert_int_equal(seen, (1u << HOSTS) - 1);
        lh_status_fini(&status);
        int ended = end_of(mpi, mpirun_of(mpi), SIGUSR1, &out);
        assert_ends(ended, 130, out, NULL);
        kit_run(NULL, "rm -rf '%s' '%s'", kit_path("run"), kit_path("log"));
        free(out);
    }
}

static void hosts_that_do_not_reach_each_other_are_named(void **state)
{
    (void)state;
    need_hosts();
    char *out = NULL, says[200];
    snprintf(says, sizeof says,
             "rank 3 (worker on %s) cannot reach rank 4 (server on %s) at tcp://10.78.0.3:",
             home.host[1], home.host[2]);
    assert_int_equal(kit_run(NULL, "ip -n %s route add unreachable 10.78.0.2/32", home.host[2]), 0);
    int status = mpirun_hosts(&out, "-n 6", "job.yaml", PATIENCE " --set cluster.interface=eth1");
    kit_run(NULL, "ip -n %s route del unreachable 10.78.0.2/32", home.host[2]);
    assert_ends(status, lh_err_exit_status(LH_ETIMEDOUT), out, says);
    kit_assert_contains(out, "by cluster.interface");
    assert_int_equal(access(kit_path("run"), F_OK), -1);
    free(out);
}

static void a_host_without_the_network_is_named_with_what_it_has(void **state)
{
    (void)state;
    need_hosts();
    char *out = NULL, says[200];
    snprintf(says, sizeof says, "host %s has no address of 'eth1'; it has lo 127.0.0.1/8, eth0",
             home.host[2]);
    assert_int_equal(kit_run(NULL, "ip -n %s link set eth1 down", home.host[2]), 0);
    int status = mpirun_hosts(&out, "-n 6", "job.yaml", "--set cluster.interface=eth1");
    kit_run(NULL, "ip -n %s link set eth1 up", home.host[2]);
    assert_ends(status, lh_err_exit_status(LH_ECONFIG), out, says);
    free(out);
}

static void a_rank_of_another_host_that_never_starts_is_named_with_it(void **state)
{
    (void)state;
    need_hosts();
    char *out = NULL, says[100];
    snprintf(says, sizeof says, "rank 4 on %s did not start within", home.host[2]);
    int status = mpirun_hosts(
        &out, "-n 6 sh -c 'test $OMPI_COMM_WORLD_RANK = 4 && exec sleep 50; exec \"$@\"' m",
        "job.yaml", PATIENCE);
    assert_ends(status, lh_err_exit_status(LH_ETIMEDOUT), out, says);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(ranks_of_one_host_give_the_bits_of_the_local_launcher),
        kit_test(placements_that_do_not_fit_end_with_one_line),
        kit_test(a_late_rank_is_awaited_and_named),
        kit_test(a_rank_that_never_starts_ends_the_job_with_the_cure),
        kit_test(without_mpirun_or_module_the_program_says_so),
        kit_test(local_launcher_under_mpirun_is_possible),
        kit_test(roles_that_die_are_started_again_by_their_ranks),
        kit_test(a_signal_to_mpirun_cuts_a_checkpoint_from_which_the_run_goes_on),
        kit_test(all_ranks_serve_the_metrics_of_their_roles),
        kit_test(evaluations_do_without_a_rank_that_died),
        kit_test(evaluations_of_jobs_with_tables_are_shared_too),
        kit_test(other_consistencies_and_gradients_go_over_ranks_too),
        kit_test(a_dead_worker_is_made_up_for_where_mpirun_recovers),
        kit_test(a_dead_server_or_scheduler_is_named_where_mpirun_recovers),
        kit_test(a_dead_rank_ends_the_job_with_one_line_else_and_it_can_be_resumed),
        kit_test(ranks_speak_curve_unless_the_job_says_none),
        kit_test(hosts_give_the_bits_of_the_local_launcher),
        kit_test(interface_of_the_job_is_the_one_that_carries_it),
        kit_test(metrics_of_other_hosts_are_served_there),
        kit_test(hosts_that_do_not_reach_each_other_are_named),
        kit_test(a_host_without_the_network_is_named_with_what_it_has),
        kit_test(a_rank_of_another_host_that_never_starts_is_named_with_it),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
