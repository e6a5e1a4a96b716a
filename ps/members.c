/* Numbers and keys of workers, as the scheduler told them. */
#include "ps/members.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

#define NUMBER_MAX (1u << 20)

void lh_members_fini(struct lh_members *m)
{
    lh_mem_free(m->keys);
    *m = (struct lh_members){0};
}

static int enter(struct lh_members *m, uint32_t number, const char *key)
{
    if (number == 0 || number > NUMBER_MAX || strlen(key) >= LH_KEY_SIZE)
        return lh_err_set(LH_EPROTO, "the scheduler names a worker %u with a key of %zu characters",
                          number, strlen(key));
    LH_TRY(LH_GROW(&m->keys, &m->cap, (size_t)number + 1, "keys of workers"));
    for (; m->n <= number; m->n++)
        m->keys[m->n][0] = '\0';
    memcpy(m->keys[number], key, strlen(key) + 1);
    return 0;
}

int lh_members_take(struct lh_members *m, const struct lh_net_message *msg)
{
    Lh__Members *body = NULL;
    LH_TRY(lh_net_body(msg, &lh__members__descriptor, (ProtobufCMessage **)&body));
    int rc = body->n_keys == body->n_nodes
                 ? 0
                 : lh_err_set(LH_EPROTO, "the scheduler names %zu workers and %zu keys",
                              body->n_nodes, body->n_keys);
    for (size_t i = 0; rc == 0 && i < body->n_nodes; i++)
        rc = enter(m, body->nodes[i], body->keys[i]);
    lh_wire_free((ProtobufCMessage **)&body);
    return rc;
}

int lh_members_check(const struct lh_members *m, const struct lh_net_message *msg)
{
    const uint32_t node = msg->env.node;
    if (msg->role == LH__ROLE__ROLE_NONE)
        return 0;
    if (msg->role == LH__ROLE__ROLE_EVALUATION)
        return node == 0 ? 0
                         : lh_err_set(LH_EPROTO, "a %s of the evaluation as node %u",
                                      lh_wire_kind_name(msg->env.kind), node);
    if (node == 0 || node >= m->n || !m->keys[node][0])
        return lh_err_set(LH_EPROTO, "a %s of a %s as node %u, which the scheduler has not named",
                          lh_wire_kind_name(msg->env.kind), lh_keys_role_name(msg->role), node);
    return strcmp(m->keys[node], msg->key) == 0
               ? 0
               : lh_err_set(LH_EPROTO, "a %s that says it is of node %u, which has another key",
                            lh_wire_kind_name(msg->env.kind), node);
}
