/* Between fork and exec only async-signal-safe calls are made: the parent has threads. */
#include "cluster/role_process.h"

#include "common/err.h"
#include "common/log.h"
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

#define RESTARTS    8    /* within */
#define RESTARTS_IN 60.0 /* seconds */
#define STOP_GRACE  5.0  /* seconds */
#define KEYS_FD     3    /* of a role: its key file */
#define KEYS_PATH   "/dev/fd/3"

static const char *program(const struct lh_role_process *p)
{
    return p->spec.program ? p->spec.program : "/proc/self/exe";
}

/* Keys lie in memory that has the form of a file. It stays when the role is started again. */
int lh_role_process_init(struct lh_role_process *p, const struct lh_role_process_spec *spec)
{
    const struct lh_keys *keys = spec->keys;
    *p = (struct lh_role_process){.spec = *spec, .keys = -1};
    snprintf(p->bind, sizeof p->bind, "%s", spec->bind ? spec->bind : "");
    p->spec.bind = NULL;
    p->spec.keys = NULL;
    if (!keys)
        return 0;
    p->keys = memfd_create(keys->own.name, MFD_CLOEXEC);
    int rc = p->keys < 0 || fchmod(p->keys, 0600) != 0
                 ? lh_err_errno(errno, "memory for the keys of %s", keys->own.name)
                 : lh_keys_write(keys, p->keys, keys->own.name);
    if (rc < 0)
        lh_role_process_fini(p);
    return rc;
}

void lh_role_process_fini(struct lh_role_process *p)
{
    if (p->keys >= 0)
        close(p->keys);
    p->keys = -1;
}

/* Descriptors of libraries that do not close them on exec are not for the role. */
static void become_role(const char *path, char *const *argv, int keys, pid_t parent)
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
    close_range(keys >= 0 ? KEYS_FD + 1 : KEYS_FD, ~0U, 0);
    execv(path, argv);
    _exit(127);
}

int lh_role_process_start(struct lh_role_process *p)
{
    const struct lh_role_process_spec *spec = &p->spec;
    const char *name = lh_keys_role_name(spec->role), *argv[24];
    char shard[16], threads[16], patience[32];
    size_t n = 0;
    snprintf(shard, sizeof shard, "%u", spec->shard);
    snprintf(threads, sizeof threads, "%u", spec->io_threads);
    snprintf(patience, sizeof patience, "%g", spec->patience);
    const char *const any[] = {"longhaul",      name,         "--launched", "--scheduler",
                               spec->scheduler, "--patience", patience};
    const char *const server[] = {"--bind", p->bind, "--shard", shard, "--io-threads", threads};
    for (size_t i = 0; i < sizeof any / sizeof *any; i++)
        argv[n++] = any[i];
    for (size_t i = 0; spec->role == LH__ROLE__ROLE_SERVER && i < sizeof server / sizeof *server;
         i++)
        argv[n++] = server[i];
    if (*spec->metrics) {
        argv[n++] = "--metrics";
        argv[n++] = spec->metrics;
    }
    if (spec->insecure)
        argv[n++] = "--insecure";
    argv[n++] = p->keys >= 0 ? "--keys" : NULL; /* ends the list where there are none */
    argv[n++] = KEYS_PATH;
    argv[n] = NULL;
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return lh_err_errno(errno, "starting the process of a %s", name);
    if (pid == 0)
        become_role(program(p), (char *const *)(uintptr_t)argv, p->keys, parent);
    p->pid = pid;
    p->was = 0;
    return 0;
}

static bool reap(struct lh_role_process *p, int options)
{
    if (p->pid == 0 || waitpid(p->pid, &p->status, options) != p->pid)
        return false;
    p->was = p->pid;
    p->pid = 0;
    return true;
}

int lh_role_process_ended(struct lh_role_process *p, bool *ended)
{
    *ended = reap(p, WNOHANG);
    if (*ended && WIFEXITED(p->status) && WEXITSTATUS(p->status) == 127)
        return lh_err_set(LH_EIO, "%s cannot be executed", program(p));
    return 0;
}

void lh_role_process_kill(struct lh_role_process *p)
{
    if (p->pid)
        kill(p->pid, SIGKILL);
    reap(p, 0);
}

static bool may_restart(struct lh_role_process_restarts *r)
{
    double now = lh_now();
    if (now - r->since > RESTARTS_IN)
        *r = (struct lh_role_process_restarts){.since = now};
    return r->n++ < RESTARTS;
}

int lh_role_process_replace(struct lh_role_process *p, struct lh_role_process_restarts *restarts,
                            bool *again)
{
    *again = false;
    if (p->pid || !WIFSIGNALED(p->status) || !may_restart(restarts))
        return 0;
    LH_TRY(lh_role_process_start(p));
    *again = true;
    lh_log_tell(LH_LOG_WARN, "restart",
                LH_FIELDS(LH_F("process", (uint64_t)p->pid), LH_F("signal", WTERMSIG(p->status))),
                "started another %s (process %d) for the one that was ended by signal %d",
                lh_keys_role_name(p->spec.role), (int)p->pid, WTERMSIG(p->status));
    return 0;
}

void lh_role_process_stop(struct lh_role_process *p, size_t n)
{
    const double began = lh_now();
    for (bool left = true; left && lh_now() - began < STOP_GRACE;) {
        left = false;
        for (size_t i = 0; i < n; i++) {
            reap(&p[i], WNOHANG);
            left = left || p[i].pid;
        }
        if (left)
            usleep(10000);
    }
    for (size_t i = 0; i < n; i++)
        lh_role_process_kill(&p[i]);
}

void lh_role_process_port_beside(const char *endpoint, char *out, size_t size)
{
    const char *port = strrchr(endpoint, ':');
    snprintf(out, size, port ? "%.*s:0" : "", (int)(port - endpoint), endpoint);
}
