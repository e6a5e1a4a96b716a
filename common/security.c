/* The table of authority, and the rule of what may go in the clear. */
#include "common/security.h"

#include "common/err.h"
#include "proto/envelope.pb-c.h"

#include <arpa/inet.h>
#include <string.h>

#define FROM(role) (1u << LH__ROLE__ROLE_##role)
#define ROLES      (FROM(SERVER) | FROM(WORKER))

static const unsigned char authority[] = {
    [LH__KIND__KIND_HELLO] = ROLES,
    [LH__KIND__KIND_PLAN] = FROM(SCHEDULER),
    [LH__KIND__KIND_REFUSED] = FROM(SCHEDULER),
    [LH__KIND__KIND_READY] = ROLES,
    [LH__KIND__KIND_ASSIGN] = FROM(SCHEDULER),
    [LH__KIND__KIND_BEAT] = ROLES | FROM(SCHEDULER),
    [LH__KIND__KIND_GOODBYE] = ROLES,
    [LH__KIND__KIND_STOP] = FROM(SCHEDULER),
    [LH__KIND__KIND_FAILED] = ROLES,
    [LH__KIND__KIND_PAUSE] = FROM(SCHEDULER),
    [LH__KIND__KIND_PAUSED] = FROM(SERVER),
    [LH__KIND__KIND_UNTIL] = FROM(SCHEDULER),
    [LH__KIND__KIND_PREPARED] = FROM(SERVER),
    [LH__KIND__KIND_COMMIT] = FROM(SCHEDULER),
    [LH__KIND__KIND_METRICS] = FROM(SERVER),
    [LH__KIND__KIND_AGAIN] = FROM(SCHEDULER),
    [LH__KIND__KIND_UNPREPARED] = FROM(SERVER),
    [LH__KIND__KIND_VOID] = FROM(SCHEDULER),
    [LH__KIND__KIND_MEMBERS] = FROM(SCHEDULER),

    [LH__KIND__KIND_PUSH] = FROM(WORKER),
    [LH__KIND__KIND_PULL] = FROM(WORKER) | FROM(EVALUATION),
    [LH__KIND__KIND_WEIGHTS] = FROM(SERVER),
    [LH__KIND__KIND_TARGETS] = FROM(SERVER),
    [LH__KIND__KIND_MOVED] = FROM(SERVER),
    [LH__KIND__KIND_TAKE] = FROM(WORKER),
    [LH__KIND__KIND_STEP] = FROM(SERVER),
    [LH__KIND__KIND_IDLE] = FROM(WORKER),
    [LH__KIND__KIND_LATE] = FROM(SERVER),
    [LH__KIND__KIND_LOST] = FROM(SCHEDULER),
    [LH__KIND__KIND_IN] = FROM(SERVER),
    [LH__KIND__KIND_GIVEN] = FROM(SERVER),

    [LH__KIND__KIND_TABLE_PUSH] = FROM(WORKER),
    [LH__KIND__KIND_TABLE_PULL] = FROM(WORKER) | FROM(EVALUATION),
    [LH__KIND__KIND_TABLE_ROWS] = FROM(SERVER),
    [LH__KIND__KIND_FETCHED] = FROM(EVALUATION),
};

bool lh_security_may_send(Lh__Role sender, uint32_t kind)
{
    return kind < sizeof authority / sizeof *authority && sender > LH__ROLE__ROLE_NONE &&
           sender <= LH__ROLE__ROLE_EVALUATION && (authority[kind] >> sender & 1);
}

bool lh_security_is_local(const char *endpoint)
{
    char host[128];
    struct in_addr v4;
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return true;
    const char *to = strchr(endpoint + 6, ';'); /* tcp://SOURCE;HOST:PORT */
    to = to ? to + 1 : endpoint + 6;
    const char *port = strrchr(to, ':');
    if (!port || (size_t)(port - to) >= sizeof host)
        return false;
    memcpy(host, to, (size_t)(port - to));
    host[port - to] = '\0';
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

int lh_security_open(struct lh_security *out, void *zmq, const struct lh_keys *keys, bool insecure)
{
    int rc;
    *out = (struct lh_security){.keys = keys, .insecure = insecure};
    if (!keys)
        return 0;
    LH_TRY(lh_guard_start(&out->guard, zmq));
    for (size_t i = 0; i < keys->n_allowed; i++)
        LH_TRY_TO(fail, lh_guard_allow(out->guard, &keys->allowed[i]));
    return 0;
fail:
    lh_security_close(out);
    return rc;
}

void lh_security_close(struct lh_security *s)
{
    lh_guard_stop(&s->guard);
    *s = (struct lh_security){0};
}
