/* `longhaul status` and `longhaul top` from outside: what they tell of runs that train, have ended,
 * were interrupted, failed or were killed; and that a terminal is left as it was. */
#include "cluster/run_watch.h"
#include "common/term.h"
#include "tests/scrapekit.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { LONG = 1000000 }; /* steps that no test waits for */

/* --- runs --------------------------------------------------------------------------------------
 */
static pid_t start_train(unsigned steps, const char *launcher, const char *metrics)
{
    trainkit_job_file(kit_path("job.yaml"), steps, 20, NULL);
    const char *argv[] = {PROGRAM,
                          "train",
                          kit_path("job.yaml"),
                          "--dir",
                          kit_path("run"),
                          "--launcher",
                          launcher,
                          "--workers",
                          "2",
                          "--no-evaluation",
                          "--quiet",
                          "--set",
                          metrics,
                          NULL};
    return trainkit_spawn(kit_path("log"), argv);
}

static void end(pid_t pid, int with, int status)
{
    int got = 0;
    kill(pid, with);
    assert_int_equal(waitpid(pid, &got, 0), pid);
    if (status >= 0)
        assert_int_equal(WIFEXITED(got) ? WEXITSTATUS(got) : 128 + WTERMSIG(got), status);
}

static cJSON *status_of(const char *dir)
{
    char *text = NULL;
    assert_int_equal(kit_run(&text, PROGRAM " status --dir %s --json", dir), 0);
    cJSON *o = cJSON_Parse(text);
    if (!o)
        fail_msg("not JSON: %s", text);
    free(text);
    return o;
}

static const char *text_of(const cJSON *o, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, name);
    if (!cJSON_IsString(x))
        fail_msg("no text '%s'", name);
    return x->valuestring;
}

static double number_of(const cJSON *o, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, name);
    if (!cJSON_IsNumber(x))
        fail_msg("no number '%s'", name);
    return x->valuedouble;
}

/* Waits, at most 60 s, until the run is in that state, and trains beyond `step`. */
static void wait_state(const char *state, uint64_t step)
{
    double began = lh_now();
    struct lh_run_watch w = {0};
    char last[700] = "no run";
    while (lh_now() - began < 60) {
        if (lh_run_watch_look(&w, kit_path("run")) == 0) {
            bool there = strcmp(lh_run_going_names[w.going], state) == 0 &&
                         (step == 0 || (w.has_status && w.status.step >= step));
            snprintf(last, sizeof last, "%s: %s", lh_run_going_names[w.going], w.detail);
            lh_run_watch_fini(&w);
            if (there)
                return;
        }
        usleep(20000);
    }
    fail_msg("the run did not come to be %s: %s", state, last);
}

static void expect_status(const char *contains)
{
    char *text = NULL;
    assert_int_equal(kit_run(&text, PROGRAM " status --dir %s", kit_path("run")), 0);
    kit_assert_contains(text, contains);
    free(text);
}

/* --- what is told ------------------------------------------------------------------------------
 */
static void status_of_no_run_says_so(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(kit_run(&text, PROGRAM " status --dir %s", kit_path("nothing")), 4);
    kit_assert_contains(text, "no run");
    free(text);
    assert_int_equal(kit_run(&text, PROGRAM " status --dir %s", kit_dir()), 4);
    kit_assert_contains(text, "no run");
    free(text);
    assert_int_equal(kit_run(&text, PROGRAM " status"), 2);
    kit_assert_contains(text, "--dir RUN");
    free(text);
    assert_int_equal(kit_run(&text, PROGRAM " top --dir %s --interval 0", kit_dir()), 2);
    free(text);
}

static void status_of_a_finished_run_is_its_last(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(30, 10, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result r;
    char *text = NULL;
    assert_ok(lh_train(job, &opt, &r));
    lh_job_destroy(&job);
    cJSON *o = status_of(kit_path("run"));
    assert_string_equal(text_of(o, "state"), "finished");
    assert_false(cJSON_IsTrue(cJSON_GetObjectItem(o, "lives")));
    const cJSON *s = cJSON_GetObjectItem(o, "status"), *run = cJSON_GetObjectItem(o, "run");
    assert_float_equal(number_of(s, "step"), 30, 0);
    assert_float_equal(number_of(s, "total"), 30, 0);
    assert_float_equal(number_of(run, "last"), 30, 0);
    const cJSON *roles = cJSON_GetObjectItem(s, "roles"), *x;
    double rows = 0, gather = 0;
    assert_int_equal(cJSON_GetArraySize(roles), 2);
    cJSON_ArrayForEach(x, roles)
    {
        rows += number_of(x, "rows");
        const cJSON *g = cJSON_GetObjectItem(cJSON_GetObjectItem(x, "phases"), "gather");
        gather += g ? g->valuedouble : 0;
    }
    assert_float_equal(rows, (double)r.transitions, 0);
    kit_assert_close(gather, r.workers.gather, 1e-12, "gather");
    cJSON_Delete(o);
    expect_status("run: finished\n");
    expect_status("step 30 of 30 (100%)");
    expect_status("checkpoint  step 30");
    expect_status("td1 ");
    /* top of a run that has ended looks once, where there is no terminal */
    assert_int_equal(kit_run(&text, PROGRAM " top --dir %s", kit_path("run")), 0);
    kit_assert_contains(text, "run: finished\n");
    free(text);
}

static void status_of_a_running_job_names_its_roles(void **state)
{
    (void)state;
    trainkit_dataset();
    pid_t pid = start_train(LONG, "processes", "metrics.listen=0");
    wait_state("training", 5);
    double began = lh_now(), step = 0, memory = 0;
    cJSON *o = NULL;
    do { /* until beats have come */
        cJSON_Delete(o);
        o = status_of(kit_path("run"));
        const cJSON *x, *roles = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "status"), "roles");
        memory = INFINITY;
        cJSON_ArrayForEach(x, roles) memory =
            number_of(x, "memory") < memory ? number_of(x, "memory") : memory;
    } while (memory < 1e6 && lh_now() - began < 30);
    assert_string_equal(text_of(o, "state"), "training");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(o, "lives")));
    const cJSON *s = cJSON_GetObjectItem(o, "status"), *x;
    step = number_of(s, "step");
    assert_float_equal(number_of(s, "pid"), pid, 0);
    assert_string_equal(text_of(s, "stage"), "running");
    assert_true(number_of(o, "age") < 10);
    /* each process serves its own metrics, and the status says where */
    unsigned servers = 0, workers = 0;
    cJSON_ArrayForEach(x, cJSON_GetObjectItem(s, "roles"))
    {
        bool server = cJSON_IsTrue(cJSON_GetObjectItem(x, "server"));
        char series[128];
        char *page = scrapekit_get(text_of(x, "metrics"), "/metrics");
        scrapekit_check(page, NULL);
        if (server)
            snprintf(series, sizeof series,
                     "longhaul_steps_total{role=\"server\",node=\"%.0f\",shard=\"0\"}",
                     number_of(x, "node"));
        else
            snprintf(series, sizeof series, "longhaul_steps_total{role=\"worker\",node=\"%.0f\"}",
                     number_of(x, "node"));
        assert_true(scrapekit_of(page, series) > 0);
        free(page);
        ++*(server ? &servers : &workers);
        assert_string_equal(text_of(x, "standing"), "ready");
        assert_true(memory > 1e6);
    }
    assert_true(servers == 1 && workers == 2);
    char *page = scrapekit_get(text_of(s, "metrics"), "/metrics");
    assert_true(scrapekit_of(page, "longhaul_version_steps{role=\"scheduler\",node=\"0\"}") >=
                step);
    free(page);
    cJSON_Delete(o);
    expect_status("server 0");
    expect_status("ETA ");
    expect_status("transitions/s");
    /* top, where there is no terminal, goes on until it is told to end */
    char *text = NULL;
    assert_int_equal(
        kit_run(&text, "timeout -s INT 3 " PROGRAM " top --dir %s -n 0.2", kit_path("run")), 124);
    char *first = strstr(text, "run: training\n");
    assert_non_null(first);
    char *second = strstr(first + 1, "run: training\n");
    assert_non_null(second);
    assert_null(strstr(text, "\033"));
    free(text);
    end(pid, SIGINT, 130);
    o = status_of(kit_path("run"));
    assert_string_equal(text_of(o, "state"), "stopped");
    kit_assert_contains(text_of(o, "detail"), "--resume");
    cJSON_Delete(o);
}

static void status_of_a_killed_run_says_died(void **state)
{
    (void)state;
    trainkit_dataset();
    pid_t pid = start_train(LONG, "local", "metrics.listen=0");
    wait_state("training", 5);
    assert_true(trainkit_wait_cut(kit_path("run"), 20));
    end(pid, SIGKILL, 128 + SIGKILL);
    cJSON *o = status_of(kit_path("run"));
    assert_string_equal(text_of(o, "state"), "died");
    assert_false(cJSON_IsTrue(cJSON_GetObjectItem(o, "lives")));
    kit_assert_contains(text_of(o, "detail"), "the last checkpoint is of step ");
    kit_assert_contains(text_of(o, "detail"), "--resume");
    assert_true(number_of(cJSON_GetObjectItem(o, "status"), "step") >= 5);
    cJSON_Delete(o);
    /* resumed, it is another scheduler's run from the first moment on */
    pid = start_train(LONG, "local", "train.steps=1000000");
    end(pid, SIGKILL, -1);
}

static void status_of_a_failed_run_has_its_sentence(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(50, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result r;
    job->lr_critic = job->lr_actor = job->lr_cvae = 10;
    job->bound = LH_BOUND_NONE;
    assert_int_equal(lh_train(job, &opt, &r), LH_EDIVERGED);
    lh_job_destroy(&job);
    cJSON *o = status_of(kit_path("run"));
    assert_string_equal(text_of(o, "state"), "failed");
    kit_assert_contains(text_of(o, "detail"), "gradient");
    cJSON_Delete(o);
}

static void status_of_a_run_without_roles_says_what_is_missing(void **state)
{
    (void)state;
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), 10, 5, NULL);
    const char *argv[] = {
        PROGRAM,     "scheduler", kit_path("job.yaml"), "--dir",   kit_path("run"),
        "--workers", "3",         "--no-evaluation",    "--quiet", NULL};
    pid_t pid = trainkit_spawn(kit_path("log"), argv);
    wait_state("gathering", 0);
    expect_status("0 of 1 servers and 0 of 3 workers are there");
    end(pid, SIGTERM, 130);
}

/* As it looks when the process is stopped, or its disk hangs: the lock is held, nothing is new. */
static void status_that_is_old_though_somebody_works_is_silent(void **state)
{
    (void)state;
    trainkit_dataset();
    struct lh_job *job = trainkit_job(2, 1, NULL);
    struct lh_train_options opt = trainkit_options(kit_path("run"));
    struct lh_train_result r;
    struct lh_run_record record = {0};
    struct lh_status s = {0};
    struct lh_run_watch w = {0};
    char path[512];
    assert_ok(lh_train(job, &opt, &r));
    lh_job_destroy(&job);
    assert_ok(lh_run_record_load(&record, opt.dir));
    record.state = LH_RUN_RUNNING;
    assert_ok(lh_run_record_save(&record, opt.dir));
    lh_run_record_fini(&record);
    snprintf(path, sizeof path, "%s/status.json", opt.dir);
    assert_ok(lh_status_load(&s, path));
    s.written -= 3600;
    assert_ok(lh_status_save(&s, path));
    lh_status_fini(&s);
    assert_ok(lh_run_watch_look(&w, opt.dir));
    assert_int_equal(w.going, LH_GOING_DIED);
    lh_run_watch_fini(&w);
    char lock[512];
    snprintf(lock, sizeof lock, "%s/.lock", opt.dir);
    int fd = open(lock, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    assert_ok(lh_run_watch_look(&w, opt.dir));
    assert_int_equal(w.going, LH_GOING_SILENT);
    kit_assert_contains(w.detail, "has not said how it stands");
    assert_true(w.age > 3500);
    lh_run_watch_fini(&w);
    unlink(path);
    assert_ok(lh_run_watch_look(&w, opt.dir));
    assert_int_equal(w.going, LH_GOING_PREPARING);
    lh_run_watch_fini(&w);
    close(fd);
}

/* --- looking disturbs nobody -------------------------------------------------------------------
 */
struct onlooker {
    const char *dir;
    atomic_bool stop;
    atomic_uint looks;
};

static void *look_on(void *arg)
{
    struct onlooker *l = arg;
    while (!atomic_load(&l->stop)) {
        struct lh_run_watch w = {0};
        if (lh_run_watch_look(&w, l->dir) == 0)
            lh_run_watch_fini(&w);
        atomic_fetch_add(&l->looks, 1);
        usleep(200);
    }
    return NULL;
}

static void look_while_runs_begin_keeps_none_from_beginning(void **state)
{
    (void)state;
    trainkit_dataset();
    char dir[512];
    snprintf(dir, sizeof dir, "%s", kit_path("run"));
    struct onlooker l = {.dir = dir};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, look_on, &l), 0);
    int rc = 0;
    for (unsigned i = 1; i <= 10 && rc == 0; i++) {
        struct lh_job *job = trainkit_job(i, 1, NULL);
        struct lh_train_options opt = trainkit_options(dir);
        struct lh_train_result r;
        opt.resume = i > 1;
        rc = lh_train(job, &opt, &r);
        lh_job_destroy(&job);
    }
    atomic_store(&l.stop, true);
    pthread_join(thread, NULL);
    assert_ok(rc);
    assert_true(atomic_load(&l.looks) > 10);
}

/* --- the terminal ------------------------------------------------------------------------------
 */
struct terminal {
    pid_t pid;
    int fd;
    struct termios before;
    char text[1 << 20];
    size_t n;
};

/* Reads what comes until `text` was seen behind `from`, at most 30 s. */
static void read_until(struct terminal *t, size_t from, const char *text)
{
    double began = lh_now();
    while (lh_now() - began < 30) {
        if (t->n > from && strstr(t->text + from, text))
            return;
        ssize_t k = read(t->fd, t->text + t->n, sizeof t->text - 1 - t->n);
        if (k > 0)
            t->n += (size_t)k;
        else
            usleep(5000);
        t->text[t->n] = '\0';
    }
    fail_msg("the terminal did not show '%s' but:\n%s", text, t->text + from);
}

static struct terminal *open_top(void)
{
    struct terminal *t = calloc(1, sizeof *t);
    struct winsize size = {.ws_row = 20, .ws_col = 60};
    int slave;
    assert_non_null(t);
    assert_int_equal(openpty(&t->fd, &slave, NULL, NULL, &size), 0);
    assert_int_equal(tcgetattr(slave, &t->before), 0);
    char dir[512];
    snprintf(dir, sizeof dir, "%s", kit_path("run"));
    t->pid = fork();
    assert_true(t->pid >= 0);
    if (t->pid == 0) {
        login_tty(slave);
        execl(PROGRAM, "longhaul", "top", "--dir", dir, "-n", "0.2", (char *)NULL);
        _exit(127);
    }
    close(slave);
    fcntl(t->fd, F_SETFL, O_NONBLOCK);
    return t;
}

/* However it ended: the status, and the terminal as it was. */
static void expect_left(struct terminal *t, int status)
{
    int got;
    struct termios now;
    read_until(t, 0, "\033[?1049l");
    assert_int_equal(waitpid(t->pid, &got, 0), t->pid);
    assert_int_equal(WIFEXITED(got) ? WEXITSTATUS(got) : 128 + WTERMSIG(got), status);
    assert_int_equal(tcgetattr(t->fd, &now), 0);
    assert_int_equal(now.c_lflag, t->before.c_lflag);
    assert_memory_equal(now.c_cc, t->before.c_cc, sizeof now.c_cc);
    kit_assert_contains(t->text, "\033[?1049h");
    kit_assert_contains(t->text, "\033[?25h"); /* the cursor */
    close(t->fd);
    free(t);
}

static void top_on_a_terminal_leaves_it_as_it_was(void **state)
{
    (void)state;
    trainkit_dataset();
    pid_t pid = start_train(LONG, "local", "metrics.listen=0");
    wait_state("training", 5);
    /* by the key; it is drawn again and again meanwhile, and no line is wider than the terminal */
    struct terminal *t = open_top();
    read_until(t, 0, "training");
    read_until(t, t->n, "training");
    struct termios raw;
    assert_int_equal(tcgetattr(t->fd, &raw), 0);
    assert_int_equal(raw.c_lflag & (ICANON | ECHO), 0);
    assert_int_equal(write(t->fd, "xq", 2), 2);
    expect_left(t, 0);
    /* by Ctrl-C and by signals */
    const int signals[] = {SIGTERM, SIGHUP, SIGQUIT};
    t = open_top();
    read_until(t, 0, "training");
    assert_int_equal(write(t->fd, "\003", 1), 1);
    expect_left(t, 0);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        t = open_top();
        read_until(t, 0, "training");
        kill(t->pid, signals[i]);
        expect_left(t, 0);
    }
    /* stopped, it gives the terminal back, and takes it again when it goes on */
    t = open_top();
    read_until(t, 0, "training");
    kill(t->pid, SIGTSTP);
    read_until(t, 0, "\033[?1049l");
    int got;
    assert_int_equal(waitpid(t->pid, &got, WUNTRACED), t->pid);
    assert_true(WIFSTOPPED(got));
    struct termios given;
    assert_int_equal(tcgetattr(t->fd, &given), 0);
    assert_int_equal(given.c_lflag, t->before.c_lflag);
    size_t before = t->n;
    kill(t->pid, SIGCONT);
    read_until(t, before, "training");
    /* the run ends, and it stays until it is left */
    end(pid, SIGKILL, 128 + SIGKILL);
    read_until(t, before, "died");
    assert_int_equal(write(t->fd, "q", 1), 1);
    expect_left(t, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(status_of_no_run_says_so),
        kit_test(status_of_a_finished_run_is_its_last),
        kit_test(status_of_a_running_job_names_its_roles),
        kit_test(status_of_a_killed_run_says_died),
        kit_test(status_of_a_failed_run_has_its_sentence),
        kit_test(status_of_a_run_without_roles_says_what_is_missing),
        kit_test(status_that_is_old_though_somebody_works_is_silent),
        kit_test(look_while_runs_begin_keeps_none_from_beginning),
        kit_test(top_on_a_terminal_leaves_it_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
