/* cluster/roster, cluster/votes, ps/members: what roles say to a scheduler, and it to a server, one
 * after the other, as a socket would hand it over. Of each message nine bytes say what it is, and
 * how long the body is that follows. What they leave behind is held against what was said. */
#include "cluster/roster.h"
#include "cluster/votes.h"

#include "common/log.h"
#include "common/wire.h"
#include "ps/members.h"
#include "tests/fuzz/fuzzkit.h"

#include <string.h>

enum {
    JOB = 77,
    SHARDS = 3,
    PEERS = 8,
    ROUNDS = 64,
    VERSIONS = 256,
    HEAD = 9,
    NUMBERS = 64,
    CLOSED_TOGETHER = 200
};

static const char *const keys[] = {"", "0123456789012345678901234567890123456789",
                                   "9876543210987654321098765432109876543210"};
enum { KEYS = sizeof keys / sizeof *keys };

struct game {
    struct lh_roster roster;
    struct lh_votes votes;
    struct lh_members members;
    bool prepared[SHARDS][VERSIONS];
    uint64_t said[SHARDS], decided;
};

/* A ROUTER that nobody has dialled: what is told to peers is kept, and goes nowhere. */
static struct lh_net_socket *nowhere(void)
{
    static void *zmq; /* its threads would be most of the work */
    static unsigned long long n;
    char endpoint[32]; /* another each time: the last may still be under way to its end */
    struct lh_net_socket *socket = NULL;
    /* it closes sockets in its own time, and those that wait for that would take all descriptors */
    if (n % CLOSED_TOGETHER == 0 && zmq) {
        zmq_ctx_term(zmq);
        zmq = NULL;
    }
    if (!zmq) {
        zmq = zmq_ctx_new();
        lh_log_setup(LH_LOG_TEXT, LH_LOG_ERROR);
    }
    snprintf(endpoint, sizeof endpoint, "inproc://%llu", n++);
    fuzzkit_require(lh_net_router(&socket, zmq, endpoint, 1, NULL) == 0, "there is a socket");
    lh_net_expect(socket, JOB);
    return socket;
}

/* --- what holds after each message --------------------------------------------------------------
 */
static void check_shown(const char *text, size_t size)
{
    fuzzkit_require(memchr(text, '\0', size) != NULL, "what is shown ends");
    for (; *text; text++)
        fuzzkit_require((unsigned char)*text >= 0x20 && *text != 0x7f, "and steers no terminal");
}

static void check_roster(const struct lh_roster *r)
{
    unsigned servers[SHARDS] = {0};
    for (size_t i = 0; i < r->n_nodes; i++) {
        const struct lh_role_node *n = &r->nodes[i];
        fuzzkit_require(n->number == i + 1, "nodes are numbered as they came");
        fuzzkit_require(n->role == LH__ROLE__ROLE_SERVER || n->role == LH__ROLE__ROLE_WORKER,
                        "a node is a server or a worker");
        check_shown(n->host, sizeof n->host);
        check_shown(n->metrics, sizeof n->metrics);
        check_shown(n->endpoint, sizeof n->endpoint);
        if (n->role != LH__ROLE__ROLE_SERVER || n->standing == LH_STANDING_GONE)
            continue;
        fuzzkit_require(n->shard < SHARDS && *n->endpoint,
                        "a server has a shard, and is somewhere");
        fuzzkit_require(servers[n->shard]++ == 0, "a shard has one server");
    }
}

static void decide(struct game *g)
{
    uint64_t version;
    bool complete;
    while (lh_votes_decide(&g->votes, &version, &complete)) {
        unsigned have = 0;
        fuzzkit_require(version > g->decided, "versions are decided in order, each once");
        g->decided = version;
        for (unsigned i = 0; i < SHARDS; i++) {
            fuzzkit_require(g->said[i] >= version, "nothing is decided before all have spoken");
            have += g->prepared[i][version];
        }
        fuzzkit_require(complete == (have == SHARDS), "complete is what all have");
    }
}

/* --- messages -----------------------------------------------------------------------------------
 */
static void vote(struct game *g, uint32_t shard, uint64_t version, bool prepared)
{
    if (version > g->said[shard]) { /* else it has spoken of that */
        g->said[shard] = version;
        g->prepared[shard][version] = prepared;
    }
    if (fuzzkit_passed(lh_votes_cast(&g->votes, shard, version, prepared)))
        decide(g);
}

static void take_sender(struct game *g, const struct lh_net_message *msg)
{
    bool returned = false;
    struct lh_role_node *n = lh_roster_sender(&g->roster, msg, &returned);
    if (!n)
        return;
    fuzzkit_require(n->number == msg->env.node && strcmp(n->key, msg->key) == 0 &&
                        msg->env.epoch == g->roster.generation,
                    "who is heard is who it says, of this generation");
    fuzzkit_require(n->standing != LH_STANDING_GONE, "who is heard is there");
    const bool prepared = msg->env.kind == LH__KIND__KIND_PREPARED;
    if (n->role == LH__ROLE__ROLE_SERVER &&
        (prepared || msg->env.kind == LH__KIND__KIND_UNPREPARED))
        vote(g, n->shard, msg->env.step, prepared);
    if (msg->env.kind == LH__KIND__KIND_GOODBYE || msg->env.kind == LH__KIND__KIND_FAILED) {
        n->standing = LH_STANDING_GONE;
        n->said_goodbye = true;
    }
}

static void take_members(struct game *g, const struct lh_net_message *msg)
{
    if (!fuzzkit_passed(lh_members_take(&g->members, msg)))
        return;
    for (uint32_t i = 0; i < g->members.n && i < NUMBERS; i++) {
        struct lh_net_message from = {.role = LH__ROLE__ROLE_WORKER,
                                      .env = {.kind = LH__KIND__KIND_PUSH, .node = i}};
        for (unsigned k = 0; k < KEYS; k++) {
            memcpy(from.key, keys[k], strlen(keys[k]) + 1);
            fuzzkit_require((lh_members_check(&g->members, &from) == 0) ==
                                (*keys[k] && i > 0 && strcmp(g->members.keys[i], keys[k]) == 0),
                            "a worker is heard under its own number only");
        }
    }
}

/* What the scheduler does by itself meanwhile. */
static void turn(struct game *g, unsigned what)
{
    struct lh_role_node *n = what & 4 ? lh_roster_server(&g->roster, what & 1) : NULL;
    if (what & 1)
        lh_roster_assign(&g->roster);
    if (what & 2) /* all that wait have their plans, and are ready */
        for (size_t i = 0; i < g->roster.n_nodes; i++)
            if (g->roster.nodes[i].standing == LH_STANDING_HELLO)
                g->roster.nodes[i].standing = LH_STANDING_READY;
    if (n)
        n->standing = LH_STANDING_GONE;
    if (what & 8) { /* the run goes back */
        fuzzkit_require(lh_roster_dismiss(&g->roster) == 0, "a run can go back");
        lh_votes_clear(&g->votes);
        memset(g->prepared, 0, sizeof g->prepared);
        memset(g->said, 0, sizeof g->said);
        g->decided = 0;
    }
}

/* Returns how many bytes it was, 0 at the end. */
static size_t take(struct game *g, const uint8_t *at, size_t size)
{
    static const uint32_t kinds[] = {LH__KIND__KIND_HELLO,    LH__KIND__KIND_MEMBERS,
                                     LH__KIND__KIND_BEAT,     LH__KIND__KIND_READY,
                                     LH__KIND__KIND_PREPARED, LH__KIND__KIND_UNPREPARED,
                                     LH__KIND__KIND_FAILED,   LH__KIND__KIND_GOODBYE};
    struct lh_role_node *node = NULL;
    if (size < HEAD)
        return 0;
    const size_t rest = size - HEAD, n = at[8] < rest ? at[8] : rest;
    struct lh_net_message msg = {
        .peer = {.size = 1, .id = {at[1] % PEERS}, .fd = -1},
        .role = (Lh__Role)(at[2] / KEYS % (LH__ROLE__ROLE_EVALUATION + 1)),
        .env = {.protocol = LH_WIRE_PROTOCOL + (at[0] >= 248), /* now and then another release */
                .kind = kinds[at[0] % (sizeof kinds / sizeof *kinds)],
                .job = JOB,
                .node = at[3],
                .epoch = g->roster.generation - at[4] / 64, /* most often of this generation */
                .step = at[5],
                .request = at[6],
                .first = at[7]},
        .n = 1};
    memcpy(msg.key, keys[at[2] % KEYS], strlen(keys[at[2] % KEYS]) + 1);
    zmq_msg_init_size(&msg.frame[0], n);
    memcpy(zmq_msg_data(&msg.frame[0]), at + HEAD, n);
    lh_err_clear();
    turn(g, at[4] % 16);
    if (msg.env.kind == LH__KIND__KIND_HELLO)
        fuzzkit_passed(lh_roster_hello(&g->roster, &msg, &node));
    else if (msg.env.kind == LH__KIND__KIND_MEMBERS)
        take_members(g, &msg);
    else
        take_sender(g, &msg);
    check_roster(&g->roster);
    lh_net_message_fini(&msg);
    return HEAD + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct game g = {.roster = {.socket = nowhere(),
                                .job = JOB,
                                .generation = 1000,
                                .servers = SHARDS,
                                .workers = 1,
                                .heartbeat = 3600,
                                .deadline = 3600}};
    size_t n = 1;
    fuzzkit_require(lh_votes_init(&g.votes, SHARDS) == 0, "there is memory");
    for (int i = 0; i < ROUNDS && n > 0; i++) {
        n = take(&g, data, size);
        data += n;
        size -= n;
    }
    lh_roster_fini(&g.roster);
    lh_net_close(&g.roster.socket);
    lh_votes_fini(&g.votes);
    lh_members_fini(&g.members);
    return 0;
}
