/* Whatever fails on a rank is gathered before the next step. */
#include "cluster/rank_meeting.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/security.h"
#include "common/term.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MARGIN     10.0 /* seconds that a collective may take beyond the patience before it */
#define NOTE_EVERY 3.0

/* What a rank tells of itself, first of all. Of one size in all releases to come. */
struct greeting {
    char release[56];
    uint64_t card_bytes;
};

static const char *const role_names[] = {"scheduler", "server", "worker"};

/* --- agreeing ----------------------------------------------------------------------------------
 */
static int gather(struct lh_rank_meeting *m, const void *mine, size_t bytes, void *all)
{
    return lh_mpi_all_gather(m->mpi, mine, bytes, all, m->patience + MARGIN);
}

int lh_rank_meeting_agree(struct lh_rank_meeting *m, int rc)
{
    struct lh_err mine = {0}, *all = NULL;
    if (rc < 0)
        lh_err_save(&mine, rc);
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)m->size, "ranks"));
    rc = gather(m, &mine, sizeof mine, all);
    for (int r = 0; rc >= 0 && r < m->size; r++)
        if (all[r].code < 0)
            rc = lh_err_load(&all[r]);
    lh_mem_free(all);
    return rc;
}

static int check_releases(struct lh_rank_meeting *m)
{
    struct greeting mine = {.release = LH_VERSION, .card_bytes = sizeof(struct lh_rank_card)},
                    *all = NULL;
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)m->size, "ranks"));
    int rc = gather(m, &mine, sizeof mine, all);
    for (int r = 1; rc >= 0 && r < m->size; r++)
        if (memcmp(&all[r], &all[0], sizeof mine) != 0)
            rc = lh_err_set(LH_EMISMATCH,
                            "rank %d on %s runs longhaul %.55s, rank 0 on %s runs %.55s: install "
                            "the same build everywhere",
                            r, lh_mpi_host(m->mpi, r), all[r].release, lh_mpi_host(m->mpi, 0),
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

static int show_card(struct lh_rank_meeting *m)
{
    struct lh_rank_card mine = {.where = where_am_i()};
    size_t n = 0;
    gethostname(mine.host, sizeof mine.host - 1);
    LH_TRY(lh_rank_meeting_agree(m, lh_address_list(mine.addresses, LH_RANK_ADDRESSES_MAX, &n)));
    mine.n = n;
    LH_TRY(LH_NEW_ARRAY(&m->cards, (size_t)m->size, "ranks"));
    return gather(m, &mine, sizeof mine, m->cards);
}

/* Number of the host that a rank is on, in order of first ranks. */
static int number_hosts(const struct lh_rank_meeting *m, size_t *of_rank, int *first_rank)
{
    int n = 0;
    for (int r = 0; r < m->size; r++) {
        int h = 0;
        while (h < n && m->cards[first_rank[h]].where != m->cards[r].where)
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

static int decision_init(struct decision *d, const struct lh_rank_meeting *m)
{
    size_t n = (size_t)m->size;
    LH_TRY(LH_NEW_ARRAY(&d->host, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->first, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->names, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->roles, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->of_host, n, "ranks"));
    LH_TRY(LH_NEW_ARRAY(&d->chosen, n, "ranks"));
    d->hosts = number_hosts(m, d->host, d->first);
    for (int h = 0; h < d->hosts; h++) {
        const struct lh_rank_card *c = &m->cards[d->first[h]];
        d->of_host[h] = (struct lh_address_host){c->host, c->addresses, (size_t)c->n};
    }
    for (size_t r = 0; r < n; r++)
        d->names[r] = m->cards[d->first[d->host[r]]].host;
    return 0;
}

static int decide(struct lh_rank_meeting *m, const struct lh_job *job)
{
    struct decision d = {0};
    const struct lh_placement_wish wish = {.list = job->placement,
                                           .servers_per_host = job->servers_per_host,
                                           .workers_per_host = job->workers_per_host};
    int rc;
    LH_TRY_TO(done, decision_init(&d, m));
    LH_TRY_TO(done, lh_placement(&wish, d.names, (size_t)m->size, d.roles));
    LH_TRY_TO(done, lh_address_choose(d.of_host, (size_t)d.hosts, job->interface, d.chosen));
    m->plan = (struct lh_rank_plan){.deadline = job->deadline_seconds,
                                    .clear = job->security == LH_JOB_CLEAR,
                                    .io_threads = job->io_threads};
    snprintf(m->plan.metrics, sizeof m->plan.metrics, "%s", job->metrics_listen);
    for (int r = 0; r < m->size; r++) {
        struct lh_rank_seat *s = &m->seats[r];
        s->role = d.roles[r];
        s->address = d.chosen[d.host[r]];
        if (s->role == LH_PLACE_SERVER)
            s->shard = (uint32_t)m->plan.servers++;
        m->plan.workers += s->role == LH_PLACE_WORKER;
    }
done:
    decision_fini(&d);
    return rc;
}

/* --- reaching each other -----------------------------------------------------------------------
 */
const char *lh_rank_meeting_endpoint(const struct lh_rank_meeting *m, int rank, char *out,
                                     size_t size)
{
    char text[LH_ADDRESS_TEXT_MAX];
    snprintf(out, size, "tcp://%s:%u", lh_address_print(&m->seats[rank].address, text),
             m->ports[rank]);
    return out;
}

/* "rank 2 (worker on lh3)" */
static const char *describe(const struct lh_rank_meeting *m, int rank, char *out, size_t size)
{
    snprintf(out, size, "rank %d (%s on %s)", rank, role_names[m->seats[rank].role],
             m->cards[rank].host);
    return out;
}

/* The ports become those of the roles: closed by their owner just before it binds there. */
static int open_doors(struct lh_rank_meeting *m)
{
    uint16_t port = 0;
    int rc = 0;
    if (m->seats[m->rank].role != LH_PLACE_WORKER)
        rc = lh_address_listen(&m->seats[m->rank].address, &m->door, &port);
    LH_TRY(lh_rank_meeting_agree(
        m, rc < 0 ? lh_err_prefix(rc, "rank %d on %s", m->rank, m->cards[m->rank].host) : 0));
    LH_TRY(LH_NEW_ARRAY(&m->ports, (size_t)m->size, "ranks"));
    LH_TRY(gather(m, &port, sizeof port, m->ports));
    return 0;
}

void lh_rank_meeting_leave_door(struct lh_rank_meeting *m)
{
    if (m->door >= 0)
        close(m->door);
    m->door = -1;
}

static int reach(const struct lh_rank_meeting *m, int rank, double until)
{
    char me[120], it[120], at[LH_NET_ENDPOINT_MAX];
    const double began = lh_now();
    for (;;) {
        double left = until - lh_now();
        int rc = lh_address_reach(&m->seats[rank].address, m->ports[rank],
                                  left < NOTE_EVERY ? left : NOTE_EVERY);
        if (rc != LH_ETIMEDOUT)
            return rc;
        describe(m, m->rank, me, sizeof me);
        describe(m, rank, it, sizeof it);
        lh_rank_meeting_endpoint(m, rank, at, sizeof at);
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
static int reach_all(const struct lh_rank_meeting *m)
{
    const double until = lh_now() + m->patience;
    bool server = m->seats[m->rank].role == LH_PLACE_SERVER;
    for (int r = 0; r < m->size; r++)
        if (r != m->rank && m->ports[r] != 0 && (r == 0 || !server))
            LH_TRY(reach(m, r, until));
    return 0;
}

/* --- keys --------------------------------------------------------------------------------------
 */
static int make_keys(struct lh_rank_meeting *m, const struct lh_key_owner *scheduler)
{
    static const Lh__Role roles[] = {LH__ROLE__ROLE_SCHEDULER, LH__ROLE__ROLE_SERVER,
                                     LH__ROLE__ROLE_WORKER};
    char name[LH_KEY_NAME_MAX];
    snprintf(name, sizeof name, "rank-%d", m->rank);
    return lh_keys_make(&m->keys, roles[m->seats[m->rank].role], name, scheduler);
}

/* Each rank has a pair for this job alone, and lets in all others by what their keys stand for:
 * nobody is refused only because the scheduler's plan came to a worker before it came to a server.
 */
static int exchange_keys(struct lh_rank_meeting *m)
{
    struct lh_key_owner scheduler = {0}, *all = NULL;
    int rc = m->rank == 0 ? make_keys(m, NULL) : 0;
    LH_TRY(lh_rank_meeting_agree(m, rc));
    scheduler = m->keys.own;
    LH_TRY(lh_mpi_broadcast(m->mpi, &scheduler, sizeof scheduler, m->patience + MARGIN));
    LH_TRY(lh_rank_meeting_agree(m, m->rank > 0 ? make_keys(m, &scheduler) : 0));
    LH_TRY(LH_NEW_ARRAY(&all, (size_t)m->size, "ranks"));
    rc = gather(m, &m->keys.own, sizeof m->keys.own, all);
    for (int r = 1; rc >= 0 && r < m->size; r++) /* the scheduler stands in all of them already */
        if (r != m->rank)
            rc = lh_keys_allow(&m->keys, &all[r]);
    lh_mem_free(all);
    return lh_rank_meeting_agree(m, rc);
}

/* --- all of it ---------------------------------------------------------------------------------
 */
int lh_rank_meeting_hold(struct lh_rank_meeting *m, const struct lh_job *job, int failed)
{
    const double patience = m->patience + MARGIN;
    LH_TRY(check_releases(m));
    LH_TRY(LH_NEW_ARRAY(&m->seats, (size_t)m->size, "ranks"));
    LH_TRY(lh_rank_meeting_agree(m, m->rank == 0 ? failed : 0));
    LH_TRY(show_card(m));
    LH_TRY(lh_rank_meeting_agree(m, m->rank == 0 ? decide(m, job) : 0));
    LH_TRY(lh_mpi_broadcast(m->mpi, &m->plan, sizeof m->plan, patience));
    LH_TRY(lh_mpi_broadcast(m->mpi, m->seats, (size_t)m->size * sizeof *m->seats, patience));
    if (!m->plan.clear)
        LH_TRY(exchange_keys(m));
    LH_TRY(open_doors(m));
    return lh_rank_meeting_agree(m, reach_all(m));
}

/* --- what came of it ---------------------------------------------------------------------------
 */
void lh_rank_meeting_metrics(const struct lh_rank_meeting *m, char *out, size_t size)
{
    static const char loopback[] = "127.0.0.1";
    const char *listen = m->plan.metrics, *port = strrchr(listen, ':');
    char text[LH_ADDRESS_TEXT_MAX], address[LH_HTTP_ENDPOINT_MAX], endpoint[LH_NET_ENDPOINT_MAX];
    snprintf(address, sizeof address, "%.*s", port ? (int)(port - listen) : 0, listen);
    if (!port)
        snprintf(address, sizeof address, "%s", loopback);
    snprintf(endpoint, sizeof endpoint, "tcp://%s:0", address);
    bool everywhere = lh_security_is_local(endpoint) || strcmp(address, "0.0.0.0") == 0 ||
                      strcmp(address, "[::]") == 0;
    bool there = m->cards[m->rank].where == m->cards[0].where;
    if (!everywhere && !there)
        snprintf(address, sizeof address, "%s", lh_address_print(&m->seats[m->rank].address, text));
    snprintf(out, size, *listen ? "%s:0" : "", address);
}

size_t lh_rank_meeting_here(const struct lh_rank_meeting *m)
{
    size_t n = 0;
    for (int r = 0; r < m->size; r++)
        n += m->cards[r].where == m->cards[m->rank].where;
    return n;
}

void lh_rank_meeting_fini(struct lh_rank_meeting *m)
{
    lh_rank_meeting_leave_door(m);
    lh_keys_fini(&m->keys);
    lh_mem_free(m->cards);
    lh_mem_free(m->seats);
    lh_mem_free(m->ports);
}
