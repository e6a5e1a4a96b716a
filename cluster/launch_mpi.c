/* Once the ranks have met (rank_meeting.h), each runs its role as a process of its own, as the
 * processes launcher does, and starts it again when a signal ended it: Open MPI starts no rank
 * again, and would end the job with a rank that dies.
 *
 * From there on MPI carries four things: that rank 0 lives (a rank that waits must not wait for
 * ever), which roles died, how the job ended, and evaluations. Training goes over the roles' own
 * sockets. */
#include "cluster/launch_mpi.h"

#include "cluster/mpi.h"
#include "cluster/rank_evaluation.h"
#include "cluster/rank_meeting.h"
#include "cluster/role_process.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/term.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALIVE_EVERY    0.4
#define ALIVE_MISSED   1.2  /* seconds without a word that mean something with other signs */
#define SILENT_MIN     10.0 /* seconds without a word from rank 0 */
#define REPLACE_WITHIN 5.0  /* a rank that lives answers at once */
#define GOODBYE_WITHIN 1.5
#define KILLED_WITHIN  3.0 /* by mpirun, once it was told to */
#define POLL_US        2000

/* Kinds of messages; more in rank_evaluation.h. */
enum {
    ALIVE,
    BEGIN,
    DIED,     /* to rank 0: a process of a role, and whether there is another */
    REPLACE,  /* end that process, if it is there still, and start another */
    REPLACED, /* whether there is another */
    END,
    GOODBYE
};

struct death {
    uint64_t pid;
    uint64_t replaced, exited;
    char host[64];
};

struct lh_launch_mpi {
    struct lh_rank_meeting meeting;
    struct lh_mpi *mpi; /* the meeting's, as the following */
    int rank, size, open_failed;
    bool (*interrupted)(void);
    /* rank 0 */
    char endpoint[LH_NET_ENDPOINT_MAX];
    struct lh_rank_lead *lead;
    struct lh_evaluate_helpers helpers;
    pthread_t keeper;
    bool keeping;
    atomic_bool stop;
    /* the others */
    struct lh_rank_help *help;
    struct lh_role_process role;
    struct lh_role_process_restarts restarts;
    char scheduler[LH_NET_ENDPOINT_MAX], metrics[LH_HTTP_ENDPOINT_MAX]; /* of the role */
    bool begun, lost;
};

/* --- meeting -----------------------------------------------------------------------------------
 */
static int create_evaluation(struct lh_launch_mpi *l)
{
    int *ranks = NULL, rc;
    size_t n = 0;
    if (l->rank > 0)
        return lh_rank_help_create(&l->help, l->mpi,
                                   (unsigned)(lh_pool_cpus() / lh_rank_meeting_here(&l->meeting)));
    LH_TRY(LH_NEW_ARRAY(&ranks, (size_t)l->size, "ranks"));
    for (int r = 0; r < l->size; r++)
        if (l->meeting.seats[r].role == LH_PLACE_WORKER)
            ranks[n++] = r;
    rc = lh_rank_lead_create(&l->lead, l->mpi, ranks, n, l->meeting.patience / 2);
    l->helpers = (struct lh_evaluate_helpers){l->lead, lh_rank_lead_walk};
    lh_mem_free(ranks);
    return rc;
}

/* Tells the others that rank 0 lives, while it prepares, trains and evaluates. */
static void *keep(void *arg)
{
    struct lh_launch_mpi *l = arg;
    double told = 0;
    while (!atomic_load(&l->stop)) {
        double now = lh_now();
        for (int r = 1; now - told >= ALIVE_EVERY && r < l->size; r++)
            lh_mpi_post(l->mpi, r, ALIVE, NULL, 0); /* one that is missed is made up for */
        told = now - told >= ALIVE_EVERY ? now : told;
        usleep(10 * POLL_US);
    }
    return NULL;
}

static int start_keeper(struct lh_launch_mpi *l)
{
    if (l->rank > 0)
        return 0;
    int e = pthread_create(&l->keeper, NULL, keep, l);
    l->keeping = e == 0;
    return e == 0 ? 0 : lh_err_errno(e, "starting the thread that keeps the ranks together");
}

int lh_launch_mpi_meet(struct lh_launch_mpi **out, const struct lh_launch_mpi_spec *spec)
{
    struct lh_launch_mpi *l = NULL;
    struct lh_err failed = {0};
    if (spec->failed < 0)
        lh_err_save(&failed, spec->failed);
    LH_TRY(LH_NEW(&l, "launcher"));
    l->interrupted = spec->interrupted;
    l->meeting.door = l->role.keys = -1;
    *out = l; /* the caller ends it, also after a failure */
    l->open_failed = lh_mpi_open(&l->mpi, spec->patience, spec->interrupted, &l->rank);
    LH_TRY(l->open_failed);
    l->size = lh_mpi_size(l->mpi);
    l->meeting = (struct lh_rank_meeting){
        .mpi = l->mpi, .rank = l->rank, .size = l->size, .patience = spec->patience, .door = -1};
    if (failed.code < 0)
        lh_err_load(&failed);
    LH_TRY(lh_rank_meeting_hold(&l->meeting, spec->job, spec->failed));
    LH_TRY(lh_rank_meeting_agree(&l->meeting, create_evaluation(l)));
    return start_keeper(l);
}

bool lh_launch_mpi_speaks(const struct lh_launch_mpi *l)
{
    const char *on_host = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    if (!l->mpi && l->open_failed != LH_ETIMEDOUT) /* one a host */
        return !on_host || strcmp(on_host, "0") == 0;
    return l->rank == 0 || (l->rank == 1 && (!l->mpi || l->lost));
}

bool lh_launch_mpi_leads(const struct lh_launch_mpi *l)
{
    return l->rank == 0;
}

unsigned lh_launch_mpi_workers(const struct lh_launch_mpi *l)
{
    return (unsigned)l->meeting.plan.workers;
}

unsigned lh_launch_mpi_servers(const struct lh_launch_mpi *l)
{
    return (unsigned)l->meeting.plan.servers;
}

/* --- rank 0 ------------------------------------------------------------------------------------
 */
const char *lh_launch_mpi_bind(struct lh_launch_mpi *l)
{
    lh_rank_meeting_leave_door(&l->meeting);
    lh_rank_meeting_endpoint(&l->meeting, 0, l->endpoint, sizeof l->endpoint);
    return l->endpoint;
}

const struct lh_keys *lh_launch_mpi_keys(const struct lh_launch_mpi *l)
{
    return l->meeting.plan.clear ? NULL : &l->meeting.keys;
}

/* To all others, once each; what cannot be sent is left to its receiver's patience. */
static int tell(struct lh_launch_mpi *l, int kind, const void *data, size_t bytes)
{
    for (int r = 1; r < l->size; r++) {
        const double until = lh_now() + GOODBYE_WITHIN;
        int rc;
        while ((rc = lh_mpi_post(l->mpi, r, kind, data, bytes)) == LH_AGAIN && lh_now() < until)
            usleep(POLL_US);
        LH_TRY(rc);
    }
    return 0;
}

int lh_launch_mpi_start(struct lh_launch_mpi *l)
{
    return tell(l, BEGIN, NULL, 0);
}

const struct lh_evaluate_helpers *lh_launch_mpi_helpers(struct lh_launch_mpi *l)
{
    return &l->helpers;
}

int lh_launch_mpi_watch(struct lh_launch_mpi *l, struct lh_scheduler_process *ended)
{
    int from, kind;
    size_t bytes;
    struct death d = {0};
    int rc = lh_mpi_next(l->mpi, DIED, &from, &kind, &bytes);
    *ended = (struct lh_scheduler_process){0};
    if (rc == LH_AGAIN)
        return 0;
    LH_TRY(rc);
    if (bytes != sizeof d)
        return lh_err_set(LH_EPROTO, "rank %d sent a message of kind %d and %zu bytes", from, kind,
                          bytes);
    LH_TRY(lh_mpi_recv(l->mpi, from, kind, &d, sizeof d));
    *ended = (struct lh_scheduler_process){
        .pid = d.pid, .replaced = d.replaced != 0, .exited = d.exited != 0};
    snprintf(ended->host, sizeof ended->host, "%.63s", d.host);
    return 0;
}

static int rank_of_shard(const struct lh_launch_mpi *l, uint32_t shard)
{
    int r = 1;
    while (r < l->size &&
           (l->meeting.seats[r].role != LH_PLACE_SERVER || l->meeting.seats[r].shard != shard))
        r++;
    return r;
}

/* What a rank answers; one that died does not. Late answers, of other processes, are passed over.
 */
static int hear_replaced(struct lh_launch_mpi *l, uint64_t pid, bool *replaced)
{
    const double until = lh_now() + REPLACE_WITHIN;
    for (; lh_now() < until; usleep(POLL_US)) {
        int from, kind, rc;
        size_t bytes;
        struct death d = {0};
        if ((rc = lh_mpi_next(l->mpi, REPLACED, &from, &kind, &bytes)) == LH_AGAIN)
            continue;
        LH_TRY(rc);
        LH_TRY(lh_mpi_recv(l->mpi, from, kind, &d, sizeof d));
        if (d.pid != pid)
            continue;
        *replaced = d.replaced != 0;
        return 0;
    }
    return 0;
}

int lh_launch_mpi_replace(struct lh_launch_mpi *l, const struct lh_scheduler_process *p,
                          bool *replaced)
{
    const struct death d = {.pid = p->pid};
    *replaced = false;
    int rank = p->server ? rank_of_shard(l, p->shard) : l->size;
    if (rank == l->size) /* workers' ranks do so unasked */
        return 0;
    int rc = lh_mpi_post(l->mpi, rank, REPLACE, &d, sizeof d);
    return rc == 0 ? hear_replaced(l, p->pid, replaced) : rc < 0 ? rc : 0;
}

/* Takes in whatever has come; *left falls with each goodbye. */
static int hear_goodbyes(struct lh_launch_mpi *l, int *left)
{
    int from, kind, rc;
    size_t bytes;
    while ((rc = lh_mpi_next(l->mpi, LH_MPI_ANY_KIND, &from, &kind, &bytes)) == 0) {
        unsigned char *late = NULL; /* an answer to an evaluation that was given up */
        LH_TRY(LH_NEW_ARRAY(&late, bytes + 1, "message between ranks"));
        rc = lh_mpi_recv(l->mpi, from, kind, late, bytes);
        lh_mem_free(late);
        LH_TRY(rc);
        *left -= kind == GOODBYE;
    }
    return rc < 0 ? rc : 0;
}

/* Says how the job ended and hears the others out, so that nobody is killed at its last words.
 * False: somebody is missing. */
static bool say_goodbye(struct lh_launch_mpi *l, int code)
{
    const double until = lh_now() + GOODBYE_WITHIN;
    int left = l->size - 1;
    if (tell(l, END, &code, sizeof code) < 0)
        return false;
    while (left > 0 && lh_now() < until) {
        if (hear_goodbyes(l, &left) < 0)
            return false;
        usleep(POLL_US);
    }
    return left == 0;
}

/* --- the others --------------------------------------------------------------------------------
 */
static int begin_role(struct lh_launch_mpi *l)
{
    const struct lh_rank_meeting *m = &l->meeting;
    const struct lh_rank_seat *seat = &m->seats[l->rank];
    bool server = seat->role == LH_PLACE_SERVER;
    char bind[LH_NET_ENDPOINT_MAX];
    if (l->begun)
        return 0;
    lh_rank_meeting_leave_door(&l->meeting);
    lh_rank_meeting_endpoint(m, 0, l->scheduler, sizeof l->scheduler);
    lh_rank_meeting_endpoint(m, l->rank, bind, sizeof bind);
    lh_rank_meeting_metrics(m, l->metrics, sizeof l->metrics);
    LH_TRY(lh_role_process_init(&l->role,
                                &(struct lh_role_process_spec){
                                    .role = server ? LH__ROLE__ROLE_SERVER : LH__ROLE__ROLE_WORKER,
                                    .shard = seat->shard,
                                    .scheduler = l->scheduler,
                                    .bind = bind,
                                    .io_threads = (uint32_t)m->plan.io_threads,
                                    .patience = m->patience,
                                    .metrics = l->metrics,
                                    .keys = m->plan.clear ? NULL : &m->keys,
                                    .insecure = m->plan.clear != 0}));
    l->begun = true;
    return lh_role_process_start(&l->role);
}

static bool is_interrupted(const struct lh_launch_mpi *l)
{
    return l->interrupted && l->interrupted();
}

/* What is missed is noticed by silence. */
static void tell_of_role(struct lh_launch_mpi *l, int kind, uint64_t pid, bool replaced)
{
    const bool exited = l->role.was == (pid_t)pid && WIFEXITED(l->role.status);
    struct death d = {.pid = pid, .replaced = replaced, .exited = exited};
    snprintf(d.host, sizeof d.host, "%s", l->meeting.cards[l->rank].host);
    lh_mpi_post(l->mpi, 0, kind, &d, sizeof d);
}

/* When mpirun ends all, it ends the role too. */
static int look_after_role(struct lh_launch_mpi *l)
{
    bool ended, again = false;
    LH_TRY(lh_role_process_ended(&l->role, &ended));
    if (!ended || l->role.status == 0)
        return 0;
    uint64_t pid = (uint64_t)l->role.was;
    if (!is_interrupted(l))
        LH_TRY(lh_role_process_replace(&l->role, &l->restarts, &again));
    tell_of_role(l, DIED, pid, again);
    return 0;
}

/* Rank 0 needs another for a process that it heard of or does not hear any more. */
static int take_replace(struct lh_launch_mpi *l, size_t bytes)
{
    struct death d = {0};
    bool again = false;
    if (bytes != sizeof d)
        return lh_err_set(LH_EPROTO, "rank 0 sent a request of %zu bytes", bytes);
    LH_TRY(lh_mpi_recv(l->mpi, 0, REPLACE, &d, sizeof d));
    if ((uint64_t)l->role.pid == d.pid) {
        lh_role_process_kill(&l->role);
        LH_TRY(lh_role_process_replace(&l->role, &l->restarts, &again));
    } else {
        again = l->role.pid != 0; /* already */
    }
    tell_of_role(l, REPLACED, d.pid, again);
    return 0;
}

/* *code: 1 until rank 0 has said how the job ended. */
static int take_message(struct lh_launch_mpi *l, int kind, size_t bytes, int *code)
{
    if (kind >= LH_RANK_EVALUATION_SETUP)
        return lh_rank_help_take(l->help, kind, bytes);
    if (kind == REPLACE)
        return take_replace(l, bytes);
    int value = 0;
    if (bytes > sizeof value)
        return lh_err_set(LH_EPROTO, "rank 0 sent a message of kind %d and %zu bytes", kind, bytes);
    LH_TRY(lh_mpi_recv(l->mpi, 0, kind, &value, bytes));
    if (kind == BEGIN)
        return begin_role(l);
    if (kind == END)
        *code = value;
    return 0;
}

static int drain(struct lh_launch_mpi *l, double *heard, int *code)
{
    int from, kind, rc;
    size_t bytes;
    while (*code > 0 &&
           (rc = lh_mpi_next(l->mpi, LH_MPI_ANY_KIND, &from, &kind, &bytes)) != LH_AGAIN) {
        LH_TRY(rc);
        LH_TRY(take_message(l, kind, bytes, code));
        *heard = lh_now();
    }
    return 0;
}

static int rank_0_is_gone(struct lh_launch_mpi *l, double silent)
{
    l->lost = true;
    lh_role_process_kill(&l->role);
    return lh_err_set(LH_EPEER,
                      "rank 0 on %s, the scheduler, went away (silent for %.0f s); resume the run "
                      "with --resume",
                      l->meeting.cards[0].host, silent);
}

/* mpirun ends a job with a dead rank by a signal, and by another a second later that nobody
 * survives. If the dead one is rank 0, somebody else must say so in between. */
static bool say_it_while_there_is_time(struct lh_launch_mpi *l, double silent)
{
    if (silent < ALIVE_MISSED || !is_interrupted(l))
        return false;
    if (l->rank == 1)
        lh_note("rank 0 on %s, the scheduler, died and mpirun ends the job; go on from the last "
                "checkpoint with --resume",
                l->meeting.cards[0].host);
    return true;
}

static int follow(struct lh_launch_mpi *l)
{
    const double wanted = l->meeting.plan.deadline;
    const double deadline = wanted > SILENT_MIN ? wanted : SILENT_MIN;
    double heard = lh_now();
    int code = 1;
    for (bool said = false;; usleep(POLL_US)) {
        LH_TRY(drain(l, &heard, &code));
        LH_TRY(look_after_role(l));
        double silent = lh_now() - heard;
        bool role_left = l->begun && !l->role.pid; /* it heard nothing from there either */
        if (code <= 0)
            return code;
        if (silent > deadline || (silent > ALIVE_MISSED && role_left))
            return rank_0_is_gone(l, silent);
        said = said || say_it_while_there_is_time(l, silent);
    }
}

int lh_launch_mpi_serve(struct lh_launch_mpi *l)
{
    int rc = follow(l);
    struct lh_err err;
    lh_err_save(&err, rc < 0 ? rc : 0);
    lh_role_process_stop(&l->role, 1);
    if (!l->lost)
        lh_mpi_post(l->mpi, 0, GOODBYE, NULL, 0);
    return err.code < 0 ? lh_err_load(&err) : 0;
}

/* --- the end -----------------------------------------------------------------------------------
 */
/* Time for who says why to have mpirun end this rank: that is quieter than a status of its own,
 * and mpirun ends all with the first that has one, before they have said anything. */
static void await_the_end(const struct lh_launch_mpi *l)
{
    if (lh_mpi_recovers(l->mpi) || (l->mpi ? l->rank == 0 : lh_launch_mpi_speaks(l)))
        return;
    const double until = lh_now() + KILLED_WITHIN;
    while (lh_now() < until)
        usleep(POLL_US);
}

int lh_launch_mpi_end(struct lh_launch_mpi **out, int rc)
{
    struct lh_launch_mpi *l = *out;
    struct lh_err err;
    if (!l)
        return rc;
    lh_err_save(&err, rc < 0 ? rc : 0);
    if (l->keeping) {
        atomic_store(&l->stop, true);
        pthread_join(l->keeper, NULL);
        l->lost = !say_goodbye(l, err.code);
    }
    if (err.code < 0)
        await_the_end(l);
    lh_mpi_close(&l->mpi, lh_err_exit_status(err.code), l->lost);
    lh_rank_lead_destroy(&l->lead);
    lh_rank_help_destroy(&l->help);
    lh_role_process_fini(&l->role);
    lh_rank_meeting_fini(&l->meeting);
    lh_mem_free(l);
    *out = NULL;
    return err.code < 0 ? lh_err_load(&err) : rc;
}
