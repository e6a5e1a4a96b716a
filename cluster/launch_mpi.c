/* How the ranks meet: each tells its host and addresses; rank 0 decides on roles and addresses and
 * tells all; servers and the scheduler open a port there; everybody tries to reach those it will
 * talk to. Whatever fails on a rank is gathered before the next step, so that all leave together.
 *
 * Afterwards MPI carries three things: that rank 0 lives (a rank that waits must not wait for
 * ever), how the job ended, and evaluations. Training goes over the roles' own sockets. */
#include "cluster/launch_mpi.h"

#include "cluster/address.h"
#include "cluster/mpi.h"
#include "cluster/placement.h"
#include "cluster/rank_evaluation.h"
#include "cluster/role_model.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/net.h"
#include "common/pool.h"
#include "common/security.h"
#include "common/term.h"
#include "ps/server.h"
#include "worker/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define ADDRESSES_MAX  16
#define MARGIN         10.0 /* seconds that a collective may take beyond the patience before it */
#define NOTE_EVERY     3.0
#define ALIVE_EVERY    0.4
#define ALIVE_MISSED   1.2  /* seconds without a word that mean something with other signs */
#define SILENT_MIN     10.0 /* seconds without a word from rank 0 */
#define GOODBYE_WITHIN 1.5
#define KILLED_WITHIN  3.0 /* by mpirun, once it was told to */
#define POLL_US        2000

enum { ALIVE, BEGIN, END, GOODBYE }; /* kinds of messages; more in rank_evaluation.h */

/* What a rank tells of itself, first of all. Of one size in all releases to come. */
struct greeting {
    char release[56];
    uint64_t card_bytes;
};

struct card {
    char host[64];
    uint64_t where; /* the same for ranks that share a host and its network */
    uint64_t n;
    struct lh_address addresses[ADDRESSES_MAX];
};

/* What rank 0 has decided for a rank. */
struct seat {
    uint32_t role;  /* lh_placement_role */
    uint32_t shard; /* of a server */
    struct lh_address address;
};

struct plan {
    double deadline; /* cluster.deadline_seconds */
    uint64_t workers, servers;
    uint64_t clear; /* cluster.security: none */
    uint64_t io_threads;
};

struct lh_launch_mpi {
    struct lh_mpi *mpi;
    int rank, size, open_failed;
    double patience;
    bool (*interrupted)(void);
    struct card *cards; /* by rank, as the following */
    struct seat *seats;
    uint16_t *ports; /* 0: listens nowhere */
    struct plan plan;
    struct lh_keys keys; /* of this rank's role, and everybody else's public ones */
    int door;            /* listens at this rank's port until its role does */
    char endpoint[LH_NET_ENDPOINT_MAX];
    /* rank 0 */
    struct lh_rank_lead *lead;
    struct lh_evaluate_helpers helpers;
    pthread_t keeper;
    bool keeping;
    atomic_bool stop;
    /* the others */
    struct lh_rank_help *help;
    pthread_t role;
    bool begun, lost;
    atomic_bool role_ended;
    struct lh_err role_err;
};

static const char *const role_names[] = {"scheduler", "server", "worker"};

/* --- agreeing ----------------------------------------------------------------------------------
 */
static int gather(struct lh_launch_mpi *l, const void *mine, size_t bytes, void *all)
{
    return lh_mpi_all_gather(l->mpi, mine, bytes, all, l->patience + MARGIN);
}

/* The same result on all ranks: 0, or the failure of the lowest rank that has one. */
static int agree(struct lh_launch_mpi *l, int rc)
{
    struct lh_err mine = {0}, *all = NULL;
    if (rc < 0)
        lh_err_save(&mine, rc);
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)l->size, "ranks"));
    rc = gather(l, &mine, sizeof mine, all);
    for (int r = 0; rc >= 0 && r < l->size; r++)
        if (all[r].code < 0)
            rc = lh_err_load(&all[r]);
    lh_mem_free(all);
    return rc;
}

static int check_releases(struct lh_launch_mpi *l)
{
    struct greeting mine = {.release = LH_VERSION, .card_bytes = sizeof(struct card)}, *all = NULL;
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)l->size, "ranks"));
    int rc = gather(l, &mine, sizeof mine, all);
    for (int r = 1; rc >= 0 && r < l->size; r++)
        if (memcmp(&all[r], &all[0], sizeof mine) != 0)
            rc = lh_err_set(LH_EMISMATCH,
                            "rank %d on %s runs longhaul %.55s, rank 0 on %s runs %.55s: install "
                            "the same build everywhere",
                            r, lh_mpi_host(l->mpi, r), all[r].release, lh_mpi_host(l->mpi, 0),
                            all[0].release);
    lh_mem_free(all);
    return rc;
}

/* --- who is where ------------------------------------------------------------------------------
 */
/* Ranks see one network if they have one kernel and one network namespace. */
static uint64_t where_am_i(void)
{
    char boot[64] = "";
    struct stat net = {0};
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    size_t n = f ? fread(boot, 1, sizeof boot, f) : 0;
    if (f)
        fclose(f);
    stat("/proc/self/ns/net", &net);
    return XXH3_64bits_withSeed(boot, n, (XXH64_hash_t)net.st_ino);
}

static int show_card(struct lh_launch_mpi *l)
{
    struct card mine = {.where = where_am_i()};
    size_t n = 0;
    gethostname(mine.host, sizeof mine.host - 1);
    LH_TRY(agree(l, lh_address_list(mine.addresses, ADDRESSES_MAX, &n)));
    mine.n = n;
    LH_TRY(LH_NEW_ARRAY(&l->cards, (size_t)l->size, "ranks"));
    return gather(l, &mine, sizeof mine, l->cards);
}

/* Number of the host that a rank is on, in order of first ranks. */
static int number_hosts(const struct lh_launch_mpi *l, size_t *of_rank, int *first_rank)
{
    int n = 0;
    for (int r = 0; r < l->size; r++) {
        int h = 0;
        while (h < n && l->cards[first_rank[h]].where != l->cards[r].where)
            h++;
        if (h == n)
            first_rank[n++] = r;
        of_rank[r] = (size_t)h;
    }
    return n;
}

/* --- what rank 0 decides -----------------------------------------------------------------------
 */
struct decision {
    size_t *host; /* number, by rank */
    int *first;   /* rank, by host */
    int hosts;
    const char **names; /* by rank */
    enum lh_placement_role *roles;
    struct lh_address_host *of_host;
    struct lh_address *chosen; /* by host */
};

static void decision_fini(struct decision *d)
{
    lh_mem_free(d->host);
    lh_mem_free(d->first);
    lh_mem_free(d->names);
    lh_mem_free(d->roles);
    lh_mem_free(d->of_host);
    lh_mem_free(d->chosen);
}

static int decision_init(struct decision *d, const struct lh_launch_mpi *l)
{
    size_t n = (size_t)l->size;
    LH_TRY(LH_NEW_ARRAY(&d->host, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->first, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->names, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->roles, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->of_host, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->chosen, n, "ranks"));
    d->hosts = number_hosts(l, d->host, d->first);
    for (int h = 0; h < d->hosts; h++) {
        const struct card *c = &l->cards[d->first[h]];
        d->of_host[h] = (struct lh_address_host){c->host, c->addresses, (size_t)c->n};
    }
    for (size_t r = 0; r < n; r++)
        d->names[r] = l->cards[d->first[d->host[r]]].host;
    return 0;
}

static int decide(struct lh_launch_mpi *l, const struct lh_job *job)
{
    struct decision d = {0};
    const struct lh_placement_wish wish = {.list = job->placement,
                                           .servers_per_host = job->servers_per_host,
                                           .workers_per_host = job->workers_per_host};
    int rc;
    LH_TRY_TO(done, decision_init(&d, l));
    LH_TRY_TO(done, lh_placement(&wish, d.names, (size_t)l->size, d.roles));
    LH_TRY_TO(done, lh_address_choose(d.of_host, (size_t)d.hosts, job->interface, d.chosen));
    l->plan = (struct plan){.deadline = job->deadline_seconds,
                            .clear = job->security == LH_JOB_CLEAR,
                            .io_threads = job->io_threads};
    for (int r = 0; r < l->size; r++) {
        struct seat *s = &l->seats[r];
        s->role = d.roles[r];
        s->address = d.chosen[d.host[r]];
        if (s->role == LH_PLACE_SERVER)
            s->shard = (uint32_t)l->plan.servers++;
        l->plan.workers += s->role == LH_PLACE_WORKER;
    }
done:
    decision_fini(&d);
    return rc;
}

/* --- reaching each other -----------------------------------------------------------------------
 */
static const char *endpoint_of(const struct lh_launch_mpi *l, int rank, char *out, size_t size)
{
    char text[LH_ADDRESS_TEXT_MAX];
    snprintf(out, size, "tcp://%s:%u", lh_address_print(&l->seats[rank].address, text),
             l->ports[rank]);
    return out;
}

/* "rank 2 (worker on lh3)" */
static const char *describe(const struct lh_launch_mpi *l, int rank, char *out, size_t size)
{
    snprintf(out, size, "rank %d (%s on %s)", rank, role_names[l->seats[rank].role],
             l->cards[rank].host);
    return out;
}

/* The ports become those of the roles: closed by their owner just before it binds there. */
static int open_doors(struct lh_launch_mpi *l)
{
    uint16_t port = 0;
    int rc = 0;
    if (l->seats[l->rank].role != LH_PLACE_WORKER)
        rc = lh_address_listen(&l->seats[l->rank].address, &l->door, &port);
    LH_TRY(
        agree(l, rc < 0 ? lh_err_prefix(rc, "rank %d on %s", l->rank, l->cards[l->rank].host) : 0));
    LH_TRY(LH_NEW_ARRAY(&l->ports, (size_t)l->size, "ranks"));
    LH_TRY(gather(l, &port, sizeof port, l->ports));
    endpoint_of(l, l->rank, l->endpoint, sizeof l->endpoint);
    return 0;
}

static void close_door(struct lh_launch_mpi *l)
{
    if (l->door >= 0)
        close(l->door);
    l->door = -1;
}

static int reach(const struct lh_launch_mpi *l, int rank, double until)
{
    char me[120], it[120], at[LH_NET_ENDPOINT_MAX];
    const double began = lh_now();
    for (;;) {
        double left = until - lh_now();
        int rc = lh_address_reach(&l->seats[rank].address, l->ports[rank],
                                  left < NOTE_EVERY ? left : NOTE_EVERY);
        if (rc != LH_ETIMEDOUT)
            return rc;
        describe(l, l->rank, me, sizeof me);
        describe(l, rank, it, sizeof it);
        endpoint_of(l, rank, at, sizeof at);
        if (lh_now() >= until - 0.5)
            return lh_err_set(
                LH_ETIMEDOUT,
                "%s cannot reach %s at %s (%s within %.0f s); name a network that all "
                "hosts share by cluster.interface, or let it through the firewall",
                me, it, at, lh_err_text(), lh_now() - began);
        lh_note("%s waits for %s at %s: %s (%.0f s)", me, it, at, lh_err_text(), lh_now() - began);
    }
}

/* Everybody talks to the scheduler; workers, and the scheduler's evaluation, to the servers. */
static int reach_all(const struct lh_launch_mpi *l)
{
    const double until = lh_now() + l->patience;
    bool server = l->seats[l->rank].role == LH_PLACE_SERVER;
    for (int r = 0; r < l->size; r++)
        if (r != l->rank && l->ports[r] != 0 && (r == 0 || !server))
            LH_TRY(reach(l, r, until));
    return 0;
}

/* --- keys --------------------------------------------------------------------------------------
 */
static int make_keys(struct lh_launch_mpi *l, const struct lh_key_owner *scheduler)
{
    static const Lh__Role roles[] = {LH__ROLE__ROLE_SCHEDULER, LH__ROLE__ROLE_SERVER,
                                     LH__ROLE__ROLE_WORKER};
    char name[LH_KEY_NAME_MAX];
    snprintf(name, sizeof name, "rank-%d", l->rank);
    return lh_keys_make(&l->keys, roles[l->seats[l->rank].role], name, scheduler);
}

/* Each rank has a pair for this job alone, and lets in all others by what their keys stand for:
 * nobody is refused only because the scheduler's plan came to a worker before it came to a server.
 */
static int exchange_keys(struct lh_launch_mpi *l)
{
    struct lh_key_owner scheduler = {0}, *all = NULL;
    int rc = l->rank == 0 ? make_keys(l, NULL) : 0;
    LH_TRY(agree(l, rc));
    scheduler = l->keys.own;
    LH_TRY(lh_mpi_broadcast(l->mpi, &scheduler, sizeof scheduler, l->patience + MARGIN));
    LH_TRY(agree(l, l->rank > 0 ? make_keys(l, &scheduler) : 0));
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)l->size, "ranks"));
    rc = gather(l, &l->keys.own, sizeof l->keys.own, all);
    for (int r = 0; rc >= 0 && r < l->size; r++)
        rc = r == l->rank ? 0 : lh_keys_allow(&l->keys, &all[r]);
    lh_mem_free(all);
    return agree(l, rc);
}

/* --- meeting -----------------------------------------------------------------------------------
 */
static int create_evaluation(struct lh_launch_mpi *l)
{
    int *ranks = NULL, rc;
    size_t n = 0, here = 0;
    for (int r = 0; r < l->size; r++)
        here += l->cards[r].where == l->cards[l->rank].where;
    if (l->rank > 0)
        return lh_rank_help_create(&l->help, l->mpi, (unsigned)(lh_pool_cpus() / here));
    LH_TRY(LH_NEW_ARRAY(&ranks, (size_t)l->size, "ranks"));
    for (int r = 0; r < l->size; r++)
        if (l->seats[r].role == LH_PLACE_WORKER)
            ranks[n++] = r;
    rc = lh_rank_lead_create(&l->lead, l->mpi, ranks, n);
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

static int meet(struct lh_launch_mpi *l, const struct lh_launch_mpi_spec *spec)
{
    LH_TRY(check_releases(l));
    LH_TRY(LH_NEW_ARRAY(&l->seats, (size_t)l->size, "ranks"));
    LH_TRY(agree(l, l->rank == 0 ? spec->failed : 0));
    LH_TRY(show_card(l));
    LH_TRY(agree(l, l->rank == 0 ? decide(l, spec->job) : 0));
    LH_TRY(lh_mpi_broadcast(l->mpi, &l->plan, sizeof l->plan, l->patience + MARGIN));
    LH_TRY(lh_mpi_broadcast(l->mpi, l->seats, (size_t)l->size * sizeof *l->seats,
                            l->patience + MARGIN));
    if (!l->plan.clear)
        LH_TRY(exchange_keys(l));
    LH_TRY(open_doors(l));
    LH_TRY(agree(l, reach_all(l)));
    LH_TRY(agree(l, create_evaluation(l)));
    return start_keeper(l);
}

int lh_launch_mpi_meet(struct lh_launch_mpi **out, const struct lh_launch_mpi_spec *spec)
{
    struct lh_launch_mpi *l = NULL;
    struct lh_err failed = {0};
    if (spec->failed < 0)
        lh_err_save(&failed, spec->failed);
    LH_TRY(LH_NEW(&l, "launcher"));
    l->patience = spec->patience;
    l->interrupted = spec->interrupted;
    l->door = -1;
    *out = l; /* the caller ends it, also after a failure */
    l->open_failed = lh_mpi_open(&l->mpi, spec->patience, spec->interrupted, &l->rank);
    LH_TRY(l->open_failed);
    l->size = lh_mpi_size(l->mpi);
    if (failed.code < 0)
        lh_err_load(&failed);
    return meet(l, spec);
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
    return (unsigned)l->plan.workers;
}

unsigned lh_launch_mpi_servers(const struct lh_launch_mpi *l)
{
    return (unsigned)l->plan.servers;
}

/* --- rank 0 ------------------------------------------------------------------------------------
 */
const char *lh_launch_mpi_bind(struct lh_launch_mpi *l)
{
    close_door(l);
    return l->endpoint;
}

const struct lh_keys *lh_launch_mpi_keys(const struct lh_launch_mpi *l)
{
    return l->plan.clear ? NULL : &l->keys;
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

/* Takes in whatever has come; *left falls with each goodbye. */
static int hear_goodbyes(struct lh_launch_mpi *l, int *left)
{
    int from, kind, rc;
    size_t bytes;
    while ((rc = lh_mpi_next(l->mpi, &from, &kind, &bytes)) == 0) {
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
static int run_server(struct lh_launch_mpi *l, void *zmq, const struct lh_security *security,
                      const char *scheduler)
{
    return lh_server_run(zmq, &(struct lh_server_options){.scheduler = scheduler,
                                                          .bind = l->endpoint,
                                                          .wanted = l->seats[l->rank].shard + 1,
                                                          .patience = l->patience,
                                                          .security = security,
                                                          .model = lh_role_model,
                                                          .model_fini = lh_role_model_fini});
}

static void run_in(struct lh_launch_mpi *l, void *zmq)
{
    char scheduler[LH_NET_ENDPOINT_MAX];
    struct lh_security security = {0};
    endpoint_of(l, 0, scheduler, sizeof scheduler);
    close_door(l);
    int rc = lh_security_open(&security, zmq, lh_launch_mpi_keys(l), l->plan.clear != 0);
    if (rc >= 0 && l->seats[l->rank].role == LH_PLACE_SERVER)
        rc = run_server(l, zmq, &security, scheduler);
    else if (rc >= 0)
        rc = lh_worker_run(zmq, &(struct lh_worker_options){.scheduler = scheduler,
                                                            .patience = l->patience,
                                                            .security = &security});
    lh_err_save(&l->role_err, rc < 0 ? rc : 0);
    lh_security_close(&security);
}

static void *run_role(void *arg)
{
    struct lh_launch_mpi *l = arg;
    lh_mem_keep();
    void *zmq = NULL;
    int rc = lh_net_context(&zmq, (uint32_t)l->plan.io_threads);
    if (rc == 0)
        run_in(l, zmq);
    else
        lh_err_save(&l->role_err, rc);
    if (zmq)
        zmq_ctx_term(zmq);
    atomic_store(&l->role_ended, true);
    return NULL;
}

static int begin_role(struct lh_launch_mpi *l)
{
    if (l->begun)
        return 0;
    int e = pthread_create(&l->role, NULL, run_role, l);
    l->begun = e == 0;
    return e == 0 ? 0 : lh_err_errno(e, "starting the thread of a role");
}

static void join_role(struct lh_launch_mpi *l)
{
    if (l->begun)
        pthread_join(l->role, NULL);
    l->begun = false;
}

/* *code: 1 until rank 0 has said how the job ended. */
static int take_message(struct lh_launch_mpi *l, int kind, size_t bytes, int *code)
{
    if (kind >= LH_RANK_EVALUATION_SETUP)
        return lh_rank_help_take(l->help, kind, bytes);
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
    while (*code > 0 && (rc = lh_mpi_next(l->mpi, &from, &kind, &bytes)) != LH_AGAIN) {
        LH_TRY(rc);
        LH_TRY(take_message(l, kind, bytes, code));
        *heard = lh_now();
    }
    return 0;
}

/* A role that lost its scheduler knows better than this loop what that means. */
static int rank_0_is_gone(struct lh_launch_mpi *l, double silent)
{
    join_role(l);
    l->lost = true;
    if (l->role_err.code < 0)
        return lh_err_load(&l->role_err);
    return lh_err_set(LH_EPEER,
                      "rank 0 on %s, the scheduler, went away (silent for %.0f s); resume the run "
                      "with --resume",
                      l->cards[0].host, silent);
}

/* mpirun ends a job with a dead rank by a signal, and by another a second later that nobody
 * survives. If the dead one is rank 0, somebody else must say so in between. */
static bool say_it_while_there_is_time(struct lh_launch_mpi *l, double silent)
{
    if (silent < ALIVE_MISSED || !l->interrupted || !l->interrupted())
        return false;
    if (l->rank == 1)
        lh_note("rank 0 on %s, the scheduler, died and mpirun ends the job; go on from the last "
                "checkpoint with --resume",
                l->cards[0].host);
    return true;
}

static int follow(struct lh_launch_mpi *l)
{
    const double deadline = l->plan.deadline > SILENT_MIN ? l->plan.deadline : SILENT_MIN;
    double heard = lh_now();
    int code = 1;
    for (bool said = false;; usleep(POLL_US)) {
        LH_TRY(drain(l, &heard, &code));
        double silent = lh_now() - heard;
        if (code <= 0)
            return code;
        if (silent > deadline || (silent > ALIVE_MISSED && atomic_load(&l->role_ended)))
            return rank_0_is_gone(l, silent);
        said = said || say_it_while_there_is_time(l, silent);
    }
}

int lh_launch_mpi_serve(struct lh_launch_mpi *l)
{
    int rc = follow(l);
    struct lh_err err;
    lh_err_save(&err, rc < 0 ? rc : 0);
    join_role(l);
    if (!l->lost)
        lh_mpi_post(l->mpi, 0, GOODBYE, NULL, 0);
    return err.code < 0 ? lh_err_load(&err) : 0;
}

/* --- the end -----------------------------------------------------------------------------------
 */
/* Time for rank 0 to have mpirun end this rank, which is quieter than a status of its own. */
static void await_the_end(const struct lh_launch_mpi *l)
{
    const double until = lh_now() + KILLED_WITHIN;
    while (lh_now() < until && !(l->interrupted && l->interrupted()))
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
    close_door(l);
    if (l->mpi && l->rank > 0 && err.code < 0 && !lh_mpi_recovers(l->mpi))
        await_the_end(l);
    lh_mpi_close(&l->mpi, lh_err_exit_status(err.code), l->lost);
    lh_rank_lead_destroy(&l->lead);
    lh_rank_help_destroy(&l->help);
    lh_keys_fini(&l->keys);
    lh_mem_free(l->cards);
    lh_mem_free(l->seats);
    lh_mem_free(l->ports);
    lh_mem_free(l);
    *out = NULL;
    return err.code < 0 ? lh_err_load(&err) : rc;
}
