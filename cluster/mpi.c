/* Waiting with bounds around Open MPI's non-blocking calls, which are serialised by one lock: that
 * is the level of threads that every Open MPI grants. */
#include "cluster/mpi.h"

#include "cluster/mpi_calls.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTE_EVERY    3.0 /* seconds */
#define ASK_EVERY     0.2
#define POLL_MAX_US   2000
#define RECV_PATIENCE 30.0 /* for what follows an announced message */
#define POSTED_MAX    64   /* small messages on their way */

struct posted {
    atomic_flag taken; /* by a thread that posts */
    struct lh_mpi_sending *sending;
    unsigned char bytes[LH_MPI_POSTED_MAX];
};

struct lh_mpi {
    const struct lh_mpi_calls *calls;
    pthread_mutex_t lock; /* around every call of MPI */
    int rank, size;
    char (*hosts)[64]; /* by rank */
    struct posted posted[POSTED_MAX];
};

struct lh_mpi_sending {
    void *request;
};

bool lh_mpi_launched(void)
{
    return getenv("PMIX_RANK") || getenv("OMPI_COMM_WORLD_SIZE");
}

/* --- the module --------------------------------------------------------------------------------
 */
/* The program's directory and `relative`. */
static int beside_program(const char *relative, char *out, size_t size)
{
    char program[512];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0)
        return lh_err_errno(errno, "/proc/self/exe");
    program[n] = '\0';
    *strrchr(program, '/') = '\0';
    snprintf(out, size, "%s/%s", program, relative);
    return 0;
}

/* Open MPI's own plug-ins look its symbols up in the whole process, hence RTLD_GLOBAL. It is never
 * unloaded: threads of PMIx live on in it. */
static int load_module(const struct lh_mpi_calls **out)
{
    char path[600];
    LH_TRY(beside_program(LH_MPI_MODULE, path, sizeof path));
    if (access(path, F_OK) != 0)
        LH_TRY(beside_program("../lib/longhaul/" LH_MPI_MODULE, path, sizeof path));
    if (access(path, F_OK) != 0)
        return lh_err_set(
            LH_ENOENT,
            "%s: this longhaul was built without Open MPI; install libopenmpi-dev and "
            "build it again, or start it without mpirun",
            path);
    void *module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!module)
        return lh_err_set(LH_ENOENT, "%s; install Open MPI on this host (openmpi-bin)", dlerror());
    const struct lh_mpi_calls *calls = dlsym(module, LH_MPI_SYMBOL);
    if (!calls || calls->size != sizeof *calls)
        return lh_err_set(LH_EMISMATCH,
                          "%s belongs to another build of longhaul; install both anew", path);
    *out = calls;
    return 0;
}

static int failed(const struct lh_mpi *m, int code, const char *what)
{
    char text[256];
    if (code == 0)
        return 0;
    m->calls->text(code, text, sizeof text);
    return lh_err_set(LH_EPEER, "Open MPI: %s: %s", what, text);
}

static int pmix_failed(const struct lh_mpi *m, int code, const char *what)
{
    if (code == 0)
        return 0;
    return lh_err_set(LH_EPEER,
                      "Open MPI: %s: %s; is this process started by mpirun? If not, take PMIX_RANK "
                      "out of its environment",
                      what, m->calls->pmix_text(code));
}

/* --- meeting -----------------------------------------------------------------------------------
 */
/* "rank 2 on lh3, rank 4 on lh3 and 7 more" of those in [from, to) that have not arrived. */
static const char *missing(const struct lh_mpi *m, int from, int to, char *out, size_t size)
{
    int n = 0, named = 0;
    size_t at = 0;
    *out = '\0';
    for (int r = from; r < to; r++) {
        if (m->calls->arrived(r) == 1)
            continue;
        n++;
        if (named == 4 || at + 100 > size)
            continue;
        at += (size_t)snprintf(out + at, size - at, "%srank %d on %s", named++ ? ", " : "", r,
                               m->hosts[r]);
    }
    if (n > named)
        snprintf(out + at, size - at, " and %d more", n - named);
    return out;
}

static int ask_all(const struct lh_mpi *m, int from, int to, bool again, bool *all)
{
    *all = true;
    for (int r = from; r < to; r++) {
        int a = m->calls->arrived(r);
        if (a == -1 && again)
            LH_TRY(pmix_failed(m, m->calls->ask(r), "asking for a rank"));
        *all = *all && a == 1;
    }
    return 0;
}

/* Waits until the ranks [from, to) have entered. */
static int await(const struct lh_mpi *m, int from, int to, double patience,
                 bool (*interrupted)(void))
{
    const double began = lh_now();
    double noted = began, asked = began;
    char who[400];
    for (int r = from; r < to; r++)
        LH_TRY(pmix_failed(m, m->calls->ask(r), "asking for a rank"));
    for (bool all = false;; usleep(POLL_MAX_US)) {
        double now = lh_now();
        bool again = now - asked > ASK_EVERY;
        LH_TRY(ask_all(m, from, to, again, &all));
        asked = again ? now : asked;
        if (all)
            return 0;
        if (interrupted && interrupted())
            return lh_err_set(LH_ECANCELED, "interrupted while waiting for %s",
                              missing(m, from, to, who, sizeof who));
        if (now - began > patience)
            return lh_err_set(LH_ETIMEDOUT,
                              "%s did not start within %.0f s; see what holds it up there (the "
                              "program, its libraries, its file systems), or wait longer with "
                              "--patience",
                              missing(m, from, to, who, sizeof who), patience);
        if (now - noted >= NOTE_EVERY && m->rank <= 1) {
            noted = now;
            lh_note("waiting for %s (%.0f s)", missing(m, from, to, who, sizeof who), now - began);
        }
    }
}

static int enter(struct lh_mpi *m, double patience, bool (*interrupted)(void))
{
    LH_TRY(load_module(&m->calls));
    LH_TRY(pmix_failed(m, m->calls->enter(&m->rank, &m->size), "entering the job"));
    LH_TRY(LH_NEW_ARRAY(&m->hosts, (size_t)m->size, "hosts of the ranks"));
    for (int r = 0; r < m->size; r++)
        if (m->calls->host(r, m->hosts[r], sizeof m->hosts[r]) != 0)
            snprintf(m->hosts[r], sizeof m->hosts[r], "?");
    /* Rank 0 speaks for all. The others look after it alone, a little longer, so that who is
     * missing is said once; rank 1 before the rest, since mpirun kills all when one gives up. */
    double longer = m->rank == 1 ? 2 : 10;
    int rc = m->rank == 0 ? await(m, 1, m->size, patience, interrupted)
                          : await(m, 0, 1, patience + longer, interrupted);
    if (rc < 0 && m->rank <= 1)
        m->calls->abort(lh_err_exit_status(rc));
    LH_TRY(rc);
    return failed(m, m->calls->init(), "joining the job");
}

int lh_mpi_open(struct lh_mpi **out, double patience, bool (*interrupted)(void), int *rank)
{
    struct lh_mpi *m = NULL;
    LH_TRY(LH_NEW(&m, "ranks"));
    pthread_mutex_init(&m->lock, NULL);
    int rc = enter(m, patience, interrupted);
    *rank = m->rank;
    if (rc < 0) {
        pthread_mutex_destroy(&m->lock);
        lh_mem_free(m->hosts);
        lh_mem_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

int lh_mpi_size(const struct lh_mpi *m)
{
    return m->size;
}

const char *lh_mpi_host(const struct lh_mpi *m, int rank)
{
    return m->hosts[rank];
}

bool lh_mpi_recovers(const struct lh_mpi *m)
{
    (void)m;
    const char *set = getenv("OMPI_MCA_orte_enable_recovery");
    return set && strcmp(set, "0") != 0 && strcmp(set, "false") != 0;
}

void lh_mpi_close(struct lh_mpi **out, int status, bool lost)
{
    struct lh_mpi *m = *out;
    if (!m)
        return;
    /* With a dead rank MPI_Finalize may wait for ever; mpirun --enable-recovery takes an exit
     * without it for an ordinary one. */
    if (status != 0 && m->rank == 0)
        m->calls->abort(status);
    else if (status == 0 && !lost && !lh_mpi_recovers(m))
        m->calls->finalize();
    for (size_t i = 0; i < POSTED_MAX; i++)
        lh_mem_free(m->posted[i].sending);
    pthread_mutex_destroy(&m->lock);
    lh_mem_free(m->hosts);
    lh_mem_free(m);
    *out = NULL;
}

/* --- collectives -------------------------------------------------------------------------------
 */
static int test(struct lh_mpi *m, void **request, int *done)
{
    pthread_mutex_lock(&m->lock);
    int code = m->calls->test(request, done);
    pthread_mutex_unlock(&m->lock);
    return code;
}

static int complete(struct lh_mpi *m, void *request, const char *what, double patience)
{
    const double until = lh_now() + patience;
    for (useconds_t pause = 20;; pause = pause < POLL_MAX_US ? 2 * pause : pause) {
        int done = 0;
        LH_TRY(failed(m, test(m, &request, &done), what));
        if (done)
            return 0;
        if (lh_now() > until)
            return lh_err_set(LH_ETIMEDOUT,
                              "%s: a rank went away, or is not reached by Open MPI, within %.0f s; "
                              "choose its network by --mca btl_tcp_if_include",
                              what, patience);
        usleep(pause);
    }
}

int lh_mpi_all_gather(struct lh_mpi *m, const void *mine, size_t bytes, void *all, double patience)
{
    static const char what[] = "exchanging addresses";
    void *request = NULL;
    pthread_mutex_lock(&m->lock);
    int code = m->calls->all_gather(mine, (int)bytes, all, &request);
    pthread_mutex_unlock(&m->lock);
    LH_TRY(failed(m, code, what));
    return complete(m, request, what, patience);
}

int lh_mpi_broadcast(struct lh_mpi *m, void *data, size_t bytes, double patience)
{
    static const char what[] = "spreading the plan";
    void *request = NULL;
    pthread_mutex_lock(&m->lock);
    int code = m->calls->broadcast(data, (int)bytes, &request);
    pthread_mutex_unlock(&m->lock);
    LH_TRY(failed(m, code, what));
    return complete(m, request, what, patience);
}

/* --- messages ----------------------------------------------------------------------------------
 */
int lh_mpi_send(struct lh_mpi *m, int to, int kind, const void *data, size_t bytes,
                struct lh_mpi_sending **out)
{
    struct lh_mpi_sending *s = NULL;
    if (bytes > LH_MPI_BYTES_MAX)
        return lh_err_set(LH_ERANGE, "a message of %zu bytes between ranks", bytes);
    LH_TRY(LH_NEW(&s, "message between ranks"));
    pthread_mutex_lock(&m->lock);
    int code = m->calls->send(data, (int)bytes, to, kind, &s->request);
    pthread_mutex_unlock(&m->lock);
    if (code != 0) {
        lh_mem_free(s);
        return failed(m, code, "sending");
    }
    *out = s;
    return 0;
}

bool lh_mpi_sent(struct lh_mpi *m, struct lh_mpi_sending **s)
{
    int done = 0;
    if (!*s)
        return true;
    if (test(m, &(*s)->request, &done) != 0)
        done = 1; /* failed: the request is gone, and the receiver's silence will tell */
    if (!done)
        return false;
    lh_mem_free(*s);
    *s = NULL;
    return true;
}

static struct posted *free_post(struct lh_mpi *m)
{
    for (size_t i = 0; i < POSTED_MAX; i++) {
        struct posted *p = &m->posted[i];
        if (!atomic_flag_test_and_set(&p->taken)) {
            if (lh_mpi_sent(m, &p->sending))
                return p;
            atomic_flag_clear(&p->taken);
        }
    }
    return NULL;
}

int lh_mpi_post(struct lh_mpi *m, int to, int kind, const void *data, size_t bytes)
{
    struct posted *p = bytes <= sizeof p->bytes ? free_post(m) : NULL;
    if (!p)
        return LH_AGAIN;
    if (bytes > 0)
        memcpy(p->bytes, data, bytes);
    int rc = lh_mpi_send(m, to, kind, p->bytes, bytes, &p->sending);
    atomic_flag_clear(&p->taken);
    return rc;
}

int lh_mpi_next(struct lh_mpi *m, int only, int *from, int *kind, size_t *bytes)
{
    int there = 0, n = 0;
    pthread_mutex_lock(&m->lock);
    int code = m->calls->probe(only, &there, from, kind, &n);
    pthread_mutex_unlock(&m->lock);
    *bytes = (size_t)n;
    LH_TRY(failed(m, code, "receiving"));
    return there ? 0 : LH_AGAIN;
}

int lh_mpi_recv(struct lh_mpi *m, int from, int kind, void *data, size_t bytes)
{
    static const char what[] = "receiving";
    void *request = NULL;
    pthread_mutex_lock(&m->lock);
    int code = m->calls->recv(data, (int)bytes, from, kind, &request);
    pthread_mutex_unlock(&m->lock);
    LH_TRY(failed(m, code, what));
    return complete(m, request, what, RECV_PATIENCE);
}
