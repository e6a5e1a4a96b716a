/* Roles as processes of this program on this host, over ipc:// or tcp://. They die with the process
 * that started them, so that a run whose scheduler was killed leaves nobody behind. Where the run
 * has keys, each has its own, in memory that it inherits: no other user sees it, no file keeps
 * it. */
#include "cluster/launch.h"

#include "common/err.h"
#include "common/http.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/net.h"
#include "common/term.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTARTS    8    /* of roles, within */
#define RESTARTS_IN 60.0 /* seconds */
#define STOP_GRACE  5.0  /* seconds */
#define KEYS_FD     3    /* of a role: its key file */
#define KEYS_PATH   "/dev/fd/3"

struct child {
    pid_t pid; /* 0: ended, */
    pid_t was; /* which had this number, */
    int status;
    bool server;
    uint32_t index;
    int keys; /* descriptor; -1: none */
};

struct lh_launch_processes {
    struct lh_launch_spec spec;
    char endpoint[LH_NET_ENDPOINT_MAX];
    struct child *children;
    size_t n;
    unsigned restarts; /* since */
    double counting;   /* seconds */
};

/* A key pair for a role, in memory that has the form of a file. It stays when the role is started
 * again. */
static int make_keys(const struct lh_security *security, struct child *c)
{
    struct lh_keys keys;
    char name[LH_KEY_NAME_MAX];
    Lh__Role role = c->server ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_WORKER;
    c->keys = -1;
    if (!security || !security->keys)
        return 0;
    snprintf(name, sizeof name, "%s-%u", lh_keys_role_name(role), c->index);
    LH_TRY(lh_keys_make(&keys, role, name, &security->keys->own));
    int rc = lh_guard_allow(security->guard, &keys.own);
    if (rc >= 0) {
        c->keys = memfd_create(name, MFD_CLOEXEC);
        rc = c->keys < 0 || fchmod(c->keys, 0600) != 0
                 ? lh_err_errno(errno, "memory for the keys of %s", name)
                 : lh_keys_write(&keys, c->keys, name);
    }
    lh_keys_fini(&keys);
    return rc;
}

/* Between fork and exec only async-signal-safe calls are made. */
static void become_role(const char *program, char *const *argv, int keys, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* the parent died before the line above */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO); /* standard output is the caller's result */
    if (keys == KEYS_FD)
        fcntl(keys, F_SETFD, 0);
    else if (keys >= 0)
        dup2(keys, KEYS_FD);
    execv(program, argv);
    _exit(127);
}

/* "127.0.0.1:9464" -> "127.0.0.1:0"; "" stays. */
static void free_port_beside(const char *endpoint, char *out, size_t size)
{
    const char *port = strrchr(endpoint, ':');
    snprintf(out, size, port ? "%.*s:0" : "", (int)(port - endpoint), endpoint);
}

static int spawn(struct lh_launch_processes *l, struct child *c)
{
    char bind[LH_NET_ENDPOINT_MAX], index[16], threads[16], patience[32],
        metrics[LH_HTTP_ENDPOINT_MAX];
    const char *program = l->spec.program ? l->spec.program : "/proc/self/exe";
    if (l->spec.transport == LH_TRANSPORT_IPC)
        snprintf(bind, sizeof bind, "ipc://%s/server-%u", l->spec.sockets, c->index);
    else
        snprintf(bind, sizeof bind, "tcp://127.0.0.1:*");
    snprintf(index, sizeof index, "%u", c->index);
    snprintf(patience, sizeof patience, "%g", l->spec.patience);
    snprintf(threads, sizeof threads, "%u", l->spec.io_threads);
    free_port_beside(lh_metrics_endpoint(l->spec.metrics), metrics, sizeof metrics);
    const char *with = c->keys >= 0 ? "--keys" : NULL; /* ends the list where there are none */
    const char *server[] = {"longhaul",   "server",  "--scheduler", l->endpoint,    "--bind",
                            bind,         "--shard", index,         "--io-threads", threads,
                            "--patience", patience,  "--metrics",   metrics,        "--launched",
                            with,         KEYS_PATH, NULL};
    const char *worker[] = {"longhaul",   "worker", "--scheduler", l->endpoint,
                            "--patience", patience, "--metrics",   metrics,
                            "--launched", with,     KEYS_PATH,     NULL};
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return lh_err_errno(errno, "starting the process of a %s", c->server ? "server" : "worker");
    if (pid == 0)
        become_role(program, (char *const *)(uintptr_t)(c->server ? server : worker), c->keys,
                    parent);
    c->pid = pid;
    return 0;
}

int lh_launch_processes_start(struct lh_launch_processes **out, const struct lh_launch_spec *spec)
{
    struct lh_launch_processes *l = NULL;
    LH_TRY(LH_NEW(&l, "launcher"));
    l->spec = *spec;
    snprintf(l->endpoint, sizeof l->endpoint, "%s", spec->endpoint);
    *out = l; /* the caller stops it, also after a failure */
    LH_TRY(LH_NEW_ARRAY(&l->children, spec->servers + spec->workers, "role processes"));
    for (; l->n < spec->servers + spec->workers; l->n++) {
        struct child *c = &l->children[l->n];
        c->server = l->n < spec->servers;
        c->index = (uint32_t)(c->server ? l->n : l->n - spec->servers);
        int rc = make_keys(spec->security, c);
        if (rc >= 0)
            rc = spawn(l, c);
        if (rc < 0) {
            if (c->keys >= 0)
                close(c->keys);
            return rc;
        }
    }
    return 0;
}

int lh_launch_processes_watch(struct lh_launch_processes *l, uint64_t *pid)
{
    *pid = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct child *c = &l->children[i];
        if (c->pid == 0 || waitpid(c->pid, &c->status, WNOHANG) != c->pid)
            continue;
        *pid = (uint64_t)c->pid;
        c->was = c->pid;
        c->pid = 0;
        if (WIFEXITED(c->status) && WEXITSTATUS(c->status) == 127)
            return lh_err_set(LH_EIO, "%s cannot be executed",
                              l->spec.program ? l->spec.program : "/proc/self/exe");
        return 0;
    }
    return 0;
}

static bool may_restart(struct lh_launch_processes *l)
{
    double now = lh_now();
    if (now - l->counting > RESTARTS_IN) {
        l->counting = now;
        l->restarts = 0;
    }
    return l->restarts++ < RESTARTS;
}

int lh_launch_processes_replace(struct lh_launch_processes *l, uint64_t pid, bool *replaced)
{
    struct child *c = l->children;
    while (c < l->children + l->n && (uint64_t)c->pid != pid && (uint64_t)c->was != pid)
        c++;
    *replaced = false;
    if (c == l->children + l->n)
        return 0;
    if (c->pid) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, &c->status, 0);
        c->was = c->pid;
        c->pid = 0;
    }
    if (!WIFSIGNALED(c->status) || !may_restart(l))
        return 0;
    LH_TRY(spawn(l, c));
    c->was = 0;
    *replaced = true;
    lh_log_tell(LH_LOG_WARN, "restart",
                LH_FIELDS(LH_F("process", (uint64_t)c->pid), LH_F("signal", WTERMSIG(c->status))),
                "started another %s (process %d) for the one that was ended by signal %d",
                c->server ? "server" : "worker", (int)c->pid, WTERMSIG(c->status));
    return 0;
}

static bool some_left(struct lh_launch_processes *l)
{
    bool left = false;
    for (size_t i = 0; i < l->n; i++) {
        if (l->children[i].pid && waitpid(l->children[i].pid, NULL, WNOHANG) != 0)
            l->children[i].pid = 0;
        left = left || l->children[i].pid;
    }
    return left;
}

void lh_launch_processes_stop(struct lh_launch_processes **out)
{
    struct lh_launch_processes *l = *out;
    if (!l)
        return;
    double began = lh_now();
    while (some_left(l) && lh_now() - began < STOP_GRACE)
        zmq_poll(NULL, 0, 10);
    for (size_t i = 0; i < l->n; i++) {
        if (l->children[i].pid) {
            kill(l->children[i].pid, SIGKILL);
            waitpid(l->children[i].pid, NULL, 0);
        }
        if (l->children[i].keys >= 0)
            close(l->children[i].keys);
    }
    lh_mem_free(l->children);
    lh_mem_free(l);
    *out = NULL;
}
