/* A job over tcp with keys, and who would disturb it: strangers without a key or with a wrong one,
 * and an insider who has a worker's. Whatever they do, the job goes on to the same bits, and its
 * processes do not grow. (A peer that sends anything at all in the clear: test_hostile.c; the
 * guard alone: test_guard.c.) */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/member.h"
#include "common/net.h"
#include "common/term.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 1000000, EVERY = 25, SCHEDULER = 0, SERVER = 1, WORKER = 2 };

/* The job, whose processes run, and an insider: worker-1, whom the list names and nobody started.
 */
struct scene {
    const char *hidden; /* widths of the networks; NULL: small ones */
    pid_t pid[3];
    char scheduler[LH_NET_ENDPOINT_MAX];
    void *zmq;
    struct lh_keys keys;
    struct lh_security insider;
    struct lh_member member; /* the insider has said hello, and has its plan */
};

static const char *path_of(const char *role)
{
    char name[64];
    snprintf(name, sizeof name, "keys/%s.keys", role);
    return kit_path(name);
}

/* At `bind`, where a run goes on; NULL: a new one. */
static void start_scheduler(struct scene *s, const char *bind)
{
    char hidden[64] = "name=job";
    if (s->hidden)
        snprintf(hidden, sizeof hidden, "network.hidden=%s", s->hidden);
    const char *scheduler[] = {PROGRAM,
                               "scheduler",
                               kit_path("job.yaml"),
                               "--dir",
                               kit_path("run"),
                               "--keys",
                               path_of("scheduler"),
                               "--set",
                               hidden,
                               "--no-evaluation",
                               "--quiet",
                               bind ? "--resume" : NULL,
                               "--bind",
                               bind,
                               NULL};
    s->pid[SCHEDULER] = trainkit_spawn(kit_path("scheduler.log"), scheduler);
    trainkit_await_endpoint(kit_path("scheduler.log"), s->scheduler, sizeof s->scheduler);
}

static void start_roles(struct scene *s)
{
    start_scheduler(s, NULL);
    const char *server[] = {
        PROGRAM, "server", "--scheduler", s->scheduler, "--keys", path_of("server-0"), NULL};
    const char *worker[] = {
        PROGRAM, "worker", "--scheduler", s->scheduler, "--keys", path_of("worker-0"), NULL};
    s->pid[SERVER] = trainkit_spawn(kit_path("server.log"), server);
    s->pid[WORKER] = trainkit_spawn(kit_path("worker.log"), worker);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
}

static void get_inside(struct scene *s)
{
    Lh__Hello hello = LH__HELLO__INIT;
    hello.role = LH__ROLE__ROLE_WORKER;
    s->zmq = zmq_ctx_new();
    assert_ok(lh_keys_load(&s->keys, path_of("worker-1"), LH__ROLE__ROLE_WORKER));
    s->insider = (struct lh_security){.keys = &s->keys};
    assert_ok(lh_member_join(&s->member,
                             &(struct lh_member_spec){.zmq = s->zmq,
                                                      .scheduler = s->scheduler,
                                                      .role = "worker",
                                                      .patience = 30,
                                                      .security = &s->insider},
                             &hello));
}

static void open_scene(struct scene *s, const char *hidden)
{
    char *out = NULL;
    *s = (struct scene){.hidden = hidden};
    /* else memory that was freed is kept, to find who uses it */
    setenv("ASAN_OPTIONS", "quarantine_size_mb=1", 1);
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, NULL);
    assert_int_equal(kit_run(&out, PROGRAM " keygen --out %s/keys -w 2", kit_dir()), 0);
    free(out);
    start_roles(s);
    get_inside(s);
}

static void await_progress(void)
{
    assert_true(trainkit_wait_cut(kit_path("run"), trainkit_last_cut(kit_path("run")) + 2 * EVERY));
}

/* The job has gone on after all that was done to it, and to the bits of an undisturbed one. */
static void close_scene(struct scene *s)
{
    struct lh_train_result result;
    await_progress();
    assert_ok(lh_member_leave(&s->member, 0, false));
    zmq_ctx_term(s->zmq);
    lh_keys_fini(&s->keys);
    kill(s->pid[SCHEDULER], SIGINT);
    assert_int_equal(trainkit_wait_exit(s->pid[SCHEDULER]), lh_err_exit_status(LH_ECANCELED));
    assert_int_equal(trainkit_wait_exit(s->pid[SERVER]), 0);
    assert_int_equal(trainkit_wait_exit(s->pid[WORKER]), 0);
    struct lh_job *job = trainkit_job(STEPS, EVERY, NULL);
    if (s->hidden)
        job->hidden[0] = job->hidden[1] = (size_t)atoi(s->hidden + 1);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    opt.stop_after = trainkit_last_cut(kit_path("run"));
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    trainkit_assert_same(&want, kit_path("run"), "disturbed");
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

static bool log_says(const char *name, const char *words)
{
    size_t n;
    char *text = kit_read(kit_path(name), &n);
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static void assert_log_says(const char *name, const char *words)
{
    for (double began = lh_now(); lh_now() - began < 20; usleep(5000))
        if (log_says(name, words))
            return;
    fail_msg("%s does not say '%s'", name, words);
}

/* --- sockets of who is not wanted ---------------------------------------------------------------
 */
static struct lh_net_socket *dial(struct scene *s, Lh__Role whom, const struct lh_security *as)
{
    struct lh_net_socket *out = NULL;
    const Lh__Plan *plan = s->member.plan;
    struct lh_net_address scheduler = {
        .endpoint = s->scheduler, .role = LH__ROLE__ROLE_SCHEDULER, .key = s->keys.scheduler.key};
    struct lh_net_address server = {
        .endpoint = plan->servers[0], .role = LH__ROLE__ROLE_SERVER, .key = plan->server_keys[0]};
    assert_ok(lh_net_dealer(&out, s->zmq, whom == LH__ROLE__ROLE_SERVER ? &server : &scheduler,
                            1000, as));
    return out;
}

/* Sends whatever the queue takes; what comes back is thrown away. */
static void tell(struct scene *s, struct lh_net_socket *to, struct lh_envelope env,
                 const struct lh_net_part *parts, size_t n)
{
    struct lh_net_message m;
    env.job = env.job ? env.job : s->member.job;
    env.epoch = s->member.plan->generation;
    int rc = lh_net_send(to, NULL, &env, parts, n);
    assert_true(rc == 0 || rc == LH_AGAIN);
    while (lh_net_recv(to, &m) == 0)
        lh_net_message_fini(&m);
}

/* Lets the network work on what was sent. */
static void settle(struct lh_net_socket *s, double seconds)
{
    struct lh_net_message m;
    for (double began = lh_now(); lh_now() - began < seconds;) {
        struct lh_net_poll poll = {.socket = s};
        assert_ok(lh_net_poll(&poll, 1, 0.05));
        while (lh_net_recv(s, &m) == 0)
            lh_net_message_fini(&m);
    }
}

static unsigned port_of(const char *endpoint)
{
    return (unsigned)atoi(strrchr(endpoint, ':') + 1);
}

static int connect_raw(const char *endpoint)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(endpoint))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_true(connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS);
    return fd;
}

static long resident_kb(pid_t pid)
{
    char path[64], line[128];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    fclose(f);
    return kb;
}

static int count_descriptors(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* --- strangers ---------------------------------------------------------------------------------
 */
static void stranger_without_a_key_reaches_nobody(void **state)
{
    (void)state;
    struct scene s;
    static const uint32_t kinds[] = {LH__KIND__KIND_STOP, LH__KIND__KIND_HELLO, LH__KIND__KIND_PUSH,
                                     LH__KIND__KIND_GOODBYE};
    static unsigned char noise[100000];
    open_scene(&s, NULL);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)(i * 2654435761u >> 13);
    for (int k = 0; k < 2; k++) {
        struct lh_net_socket *plain =
            dial(&s, k ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_SCHEDULER, NULL);
        for (uint32_t i = 0; i < 400; i++)
            tell(&s, plain, (struct lh_envelope){.kind = kinds[i % 4], .node = i % 3}, NULL, 0);
        int raw = connect_raw(lh_net_endpoint(plain));
        settle(plain, 0.5);
        assert_true(write(raw, noise, sizeof noise) != 0 || errno);
        settle(plain, 0.5);
        close(raw);
        lh_net_close(&plain);
    }
    close_scene(&s);
    assert_false(log_says("scheduler.log", "dropped"));
    assert_false(log_says("server.log", "dropped"));
}

static void stranger_with_a_wrong_key_is_refused_and_told_so(void **state)
{
    (void)state;
    struct scene s;
    struct lh_keys wrong;
    open_scene(&s, NULL);
    assert_ok(lh_keys_make(&wrong, LH__ROLE__ROLE_WORKER, "worker-0", &s.keys.scheduler));
    struct lh_security stranger = {.keys = &wrong};
    for (int k = 0; k < 2; k++) {
        struct lh_net_socket *d =
            dial(&s, k ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_SCHEDULER, &stranger);
        tell(&s, d, (struct lh_envelope){.kind = LH__KIND__KIND_BEAT, .node = 1}, NULL, 0);
        for (double began = lh_now(); !lh_net_refused(d) && lh_now() - began < 20;)
            settle(d, 0.05);
        assert_true(lh_net_refused(d));
        lh_net_close(&d);
    }
    /* as a role it says why, and gives up */
    assert_ok(lh_keys_save(&wrong, kit_path("wrong.keys")));
    char *out = NULL;
    assert_int_equal(kit_run(&out, PROGRAM " worker --scheduler %s --keys %s --patience 2",
                             s.scheduler, kit_path("wrong.keys")),
                     lh_err_exit_status(LH_EACCES));
    kit_assert_contains(out, "refuses this worker's key");
    free(out);
    assert_log_says("scheduler.log", "is on no list");
    assert_log_says("server.log", "is on no list");
    close_scene(&s);
    lh_keys_fini(&wrong);
}

static void crowd_of_strangers_fills_neither_memory_nor_descriptors(void **state)
{
    (void)state;
    enum { CROWD = 2000 };
    static int fd[CROWD];
    struct scene s;
    open_scene(&s, NULL);
    const char *of[2] = {s.scheduler, s.member.plan->servers[0]};
    long before[2] = {resident_kb(s.pid[SCHEDULER]), resident_kb(s.pid[SERVER])};
    for (int i = 0; i < CROWD; i++)
        fd[i] = connect_raw(of[i % 2]);
    await_progress();
    for (int i = 0; i < CROWD; i++) /* who is let wait sends half a greeting */
        if (write(fd[i], "\xff\0\0\0\0", 5) < 0)
            assert_true(errno == EAGAIN || errno == ENOTCONN || errno == EPIPE ||
                        errno == ECONNRESET);
    await_progress();
    for (int k = 0; k < 2; k++) {
        assert_in_range(count_descriptors(s.pid[k]), 1, 600);
        assert_true(resident_kb(s.pid[k]) - before[k] < 64 << 10);
    }
    for (int i = 0; i < CROWD; i++)
        close(fd[i]);
    close_scene(&s);
}

/* --- the insider -------------------------------------------------------------------------------
 */
static void workers_key_gives_no_orders(void **state)
{
    (void)state;
    struct scene s;
    static const uint32_t kinds[] = {
        LH__KIND__KIND_STOP,    LH__KIND__KIND_PAUSE,    LH__KIND__KIND_UNTIL,
        LH__KIND__KIND_COMMIT,  LH__KIND__KIND_PLAN,     LH__KIND__KIND_ASSIGN,
        LH__KIND__KIND_REFUSED, LH__KIND__KIND_PREPARED, LH__KIND__KIND_PAUSED,
        LH__KIND__KIND_METRICS, LH__KIND__KIND_WEIGHTS};
    Lh__Failure f = LH__FAILURE__INIT;
    unsigned char body[64];
    open_scene(&s, NULL);
    f.code = LH_EINTERNAL;
    f.text = (char *)(uintptr_t) "sabotage";
    struct lh_net_part part = {.data = body, .size = lh__failure__pack(&f, body)};
    for (int k = 0; k < 2; k++) {
        struct lh_net_socket *d =
            dial(&s, k ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_SCHEDULER, &s.insider);
        for (uint32_t i = 0; i < 4 * sizeof kinds / sizeof *kinds; i++)
            tell(&s, d,
                 (struct lh_envelope){.kind = kinds[i / 4], .node = i % 4, .step = 1 + i / 8},
                 &part, 1);
        assert_log_says(k ? "server.log" : "scheduler.log", "which has no right to send it");
        lh_net_close(&d);
    }
    close_scene(&s);
    assert_false(log_says("server.log", "sabotage"));
}

static void workers_key_cannot_serve(void **state)
{
    (void)state;
    struct scene s;
    struct lh_member m;
    Lh__Hello hello = LH__HELLO__INIT;
    open_scene(&s, NULL);
    hello.role = LH__ROLE__ROLE_SERVER;
    hello.endpoint = (char *)(uintptr_t) "tcp://127.0.0.1:1";
    assert_err(lh_member_join(&m,
                              &(struct lh_member_spec){.zmq = s.zmq,
                                                       .scheduler = s.scheduler,
                                                       .role = "server",
                                                       .patience = 30,
                                                       .security = &s.insider},
                              &hello),
               LH_EACCES, "the key of a worker cannot act as a server");
    close_scene(&s);
}

static void number_of_another_is_not_believed(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, NULL);
    struct lh_net_socket *d = dial(&s, LH__ROLE__ROLE_SCHEDULER, &s.insider);
    struct lh_net_socket *p = dial(&s, LH__ROLE__ROLE_SERVER, &s.insider);
    for (uint32_t node = 0; node < s.member.node; node++) { /* the server's, the worker's */
        tell(&s, d,
             (struct lh_envelope){.kind = LH__KIND__KIND_BEAT, .node = node, .step = 1u << 30},
             NULL, 0);
        tell(&s, d, (struct lh_envelope){.kind = LH__KIND__KIND_FAILED, .node = node}, NULL, 0);
        tell(&s, d, (struct lh_envelope){.kind = LH__KIND__KIND_GOODBYE, .node = node}, NULL, 0);
    }
    assert_log_says("scheduler.log", "which has another key");
    /* as the worker, whose steps others would then not compute; a line once a connection */
    for (uint32_t node = 1; node < s.member.node; node++) {
        for (int i = 0; i < 8; i++)
            tell(&s, p,
                 (struct lh_envelope){.kind = i % 2 ? LH__KIND__KIND_IDLE : LH__KIND__KIND_PULL,
                                      .node = node,
                                      .step = LH_WIRE_LATEST},
                 NULL, 0);
        settle(p, 0.2);
        lh_net_close(&p);
        p = dial(&s, LH__ROLE__ROLE_SERVER, &s.insider);
    }
    assert_log_says("server.log", "which has another key");
    /* as the evaluation, whom versions wait for */
    tell(&s, p, (struct lh_envelope){.kind = LH__KIND__KIND_PULL, .step = LH_WIRE_LATEST}, NULL, 0);
    assert_log_says("server.log", "a PULL of a worker as node 0");
    lh_net_close(&d);
    lh_net_close(&p);
    await_progress();
    assert_false(log_says("scheduler.log", "the others take its share"));
    close_scene(&s);
}

/* That it cannot go on is its own affair: others can. */
static void workers_failure_ends_nothing_but_the_worker(void **state)
{
    (void)state;
    struct scene s;
    Lh__Failure f = LH__FAILURE__INIT;
    unsigned char body[64];
    open_scene(&s, NULL);
    f.code = LH_EINTERNAL;
    f.text = (char *)(uintptr_t) "sabotage";
    struct lh_net_part part = {.data = body, .size = lh__failure__pack(&f, body)};
    struct lh_net_socket *d = dial(&s, LH__ROLE__ROLE_SCHEDULER, &s.insider);
    tell(&s, d, (struct lh_envelope){.kind = LH__KIND__KIND_FAILED, .node = s.member.node}, &part,
         1);
    assert_log_says("scheduler.log", "failed: sabotage; the others take its share");
    lh_net_close(&d);
    close_scene(&s);
}

/* Servers take orders from the scheduler over its own socket, and let its key in at theirs no
 * more than a stranger's. */
static void schedulers_key_is_no_servers_guest(void **state)
{
    (void)state;
    struct scene s;
    struct lh_keys keys;
    open_scene(&s, NULL);
    assert_ok(lh_keys_load(&keys, path_of("scheduler"), LH__ROLE__ROLE_SCHEDULER));
    struct lh_security scheduler = {.keys = &keys};
    struct lh_net_socket *d = dial(&s, LH__ROLE__ROLE_SERVER, &scheduler);
    tell(&s, d, (struct lh_envelope){.kind = LH__KIND__KIND_STOP}, NULL, 0);
    for (double began = lh_now(); !lh_net_refused(d) && lh_now() - began < 20;)
        settle(d, 0.05);
    assert_true(lh_net_refused(d));
    lh_net_close(&d);
    lh_keys_fini(&keys);
    close_scene(&s);
}

/* Its line is deleted and the scheduler started again: a server that went on meanwhile, and to
 * which it is connected, hears it no more. */
static void key_that_is_taken_off_the_list_is_cut_off(void **state)
{
    (void)state;
    struct scene s;
    char bind[LH_NET_ENDPOINT_MAX], *out = NULL;
    open_scene(&s, NULL);
    struct lh_net_socket *p = dial(&s, LH__ROLE__ROLE_SERVER, &s.insider);
    tell(&s, p, (struct lh_envelope){.kind = LH__KIND__KIND_BEAT, .node = s.member.node}, NULL, 0);
    settle(p, 0.5);
    assert_false(lh_net_refused(p));
    kill(s.pid[SCHEDULER], SIGKILL);
    trainkit_wait_exit(s.pid[SCHEDULER]);
    assert_int_equal(kit_run(&out, "sed -i '/worker-1/d' %s", path_of("scheduler")), 0);
    free(out);
    snprintf(bind, sizeof bind, "%s", s.scheduler);
    start_scheduler(&s, bind);
    await_progress();
    for (double began = lh_now(); !lh_net_refused(p) && lh_now() - began < 20; settle(p, 0.05))
        tell(&s, p, (struct lh_envelope){.kind = LH__KIND__KIND_IDLE, .node = s.member.node}, NULL,
             0);
    assert_true(lh_net_refused(p));
    lh_net_close(&p);
    close_scene(&s);
}

/* What an old job's worker had to say, said again: of another job, and of steps long gone. */
static void old_messages_change_nothing(void **state)
{
    (void)state;
    struct scene s;
    static float old[8] = {1e30f};
    struct lh_net_part part = {.data = old, .size = sizeof old};
    open_scene(&s, NULL);
    struct lh_net_socket *d = dial(&s, LH__ROLE__ROLE_SCHEDULER, &s.insider);
    struct lh_net_socket *p = dial(&s, LH__ROLE__ROLE_SERVER, &s.insider);
    for (uint64_t i = 0; i < 200; i++) {
        struct lh_envelope push = {.kind = LH__KIND__KIND_PUSH,
                                   .node = s.member.node,
                                   .step = i % EVERY,
                                   .first = 8,
                                   .count = 8};
        tell(&s, p, push, &part, 1);
        push.job = s.member.job ^ 1;
        push.step = trainkit_last_cut(kit_path("run")) + i % 8;
        tell(&s, p, push, &part, 1);
        tell(
            &s, d,
            (struct lh_envelope){.kind = LH__KIND__KIND_FAILED, .node = 1, .job = s.member.job ^ 1},
            NULL, 0);
    }
    assert_log_says("scheduler.log", "of another job");
    assert_log_says("server.log", "of another job");
    lh_net_close(&d);
    lh_net_close(&p);
    close_scene(&s);
}

/* A socket of ZeroMQ alone, with the insider's key: net.c would not send such things. */
static void *raw_insider(struct scene *s, const char *endpoint, const char *key)
{
    void *d = zmq_socket(s->zmq, ZMQ_DEALER);
    int one = 1, none = 0, small = 4096;
    assert_int_equal(zmq_setsockopt(d, ZMQ_CURVE_SERVERKEY, key, LH_KEY_SIZE), 0);
    assert_int_equal(zmq_setsockopt(d, ZMQ_CURVE_PUBLICKEY, s->keys.own.key, LH_KEY_SIZE), 0);
    assert_int_equal(zmq_setsockopt(d, ZMQ_CURVE_SECRETKEY, s->keys.secret, LH_KEY_SIZE), 0);
    zmq_setsockopt(d, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(d, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(d, ZMQ_RCVBUF, &small, sizeof small);
    assert_int_equal(zmq_connect(d, endpoint), 0);
    return d;
}

static void malformed_and_oversized_messages_are_dropped(void **state)
{
    (void)state;
    struct scene s;
    unsigned char good[LH_WIRE_ENVELOPE_MAX], junk[400];
    static unsigned char huge[9 << 20];
    open_scene(&s, NULL);
    memset(junk, 0xee, sizeof junk);
    const char *of[2] = {s.scheduler, s.member.plan->servers[0]};
    const char *key[2] = {s.keys.scheduler.key, s.member.plan->server_keys[0]};
    long before[2] = {resident_kb(s.pid[SCHEDULER]), resident_kb(s.pid[SERVER])};
    for (int k = 0; k < 2; k++) {
        void *d = raw_insider(&s, of[k], key[k]);
        size_t n = lh_wire_encode(&(struct lh_envelope){.kind = LH__KIND__KIND_PUSH,
                                                        .job = s.member.job,
                                                        .node = s.member.node,
                                                        .first = UINT64_MAX - 3,
                                                        .count = UINT64_MAX},
                                  good);
        for (int i = 0; i < 300; i++) {
            zmq_send(d, junk, (size_t)(i % 3) * 200, 0);
            zmq_send(d, good, n, ZMQ_SNDMORE);
            for (int f = 0; f < i % 20; f++)
                zmq_send(d, junk, 100, ZMQ_SNDMORE);
            zmq_send(d, junk, 100, 0);
        }
        assert_log_says(k ? "server.log" : "scheduler.log", "dropped a message");
        zmq_send(d, good, n, ZMQ_SNDMORE);
        zmq_send(d, huge, sizeof huge, 0);
        await_progress();
        zmq_close(d);
    }
    for (int k = 0; k < 2; k++)
        assert_true(resident_kb(s.pid[k]) - before[k] < 64 << 10);
    close_scene(&s);
}

/* Asks for every version and takes none. */
static void reader_that_never_drains_is_cut_off(void **state)
{
    (void)state;
    struct scene s;
    unsigned char ask[LH_WIRE_ENVELOPE_MAX];
    open_scene(&s, "[256,256]");
    size_t n = lh_wire_encode(&(struct lh_envelope){.kind = LH__KIND__KIND_PULL,
                                                    .job = s.member.job,
                                                    .node = s.member.node,
                                                    .step = LH_WIRE_LATEST,
                                                    .epoch = s.member.plan->generation},
                              ask);
    void *d = raw_insider(&s, s.member.plan->servers[0], s.member.plan->server_keys[0]);
    long before = resident_kb(s.pid[SERVER]);
    for (double began = lh_now();
         lh_now() - began < 60 && !log_says("server.log", "cut off a peer"); usleep(2000))
        zmq_send(d, ask, n, ZMQ_DONTWAIT);
    assert_log_says("server.log", "cut off a peer that has not taken version");
    long grown = resident_kb(s.pid[SERVER]) - before;
    if (grown >= 64 << 10)
        fail_msg("the server grew by %ld KB", grown);
    zmq_close(d);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(stranger_without_a_key_reaches_nobody),
        kit_test(stranger_with_a_wrong_key_is_refused_and_told_so),
        kit_test(crowd_of_strangers_fills_neither_memory_nor_descriptors),
        kit_test(workers_key_gives_no_orders),
        kit_test(workers_key_cannot_serve),
        kit_test(number_of_another_is_not_believed),
        kit_test(workers_failure_ends_nothing_but_the_worker),
        kit_test(schedulers_key_is_no_servers_guest),
        kit_test(key_that_is_taken_off_the_list_is_cut_off),
        kit_test(old_messages_change_nothing),
        kit_test(malformed_and_oversized_messages_are_dropped),
        kit_test(reader_that_never_drains_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
