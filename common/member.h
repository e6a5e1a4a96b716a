/* A role's side of membership: it says hello to the scheduler, gets its plan, beats, hears orders,
 * and says how it ends. */
#pragma once

#include "common/awake.h"
#include "common/companion.h"
#include "common/err.h"
#include "common/outbox.h"

#include <stdbool.h>
#include <stdint.h>

struct lh_member {
    struct lh_net_socket *socket; /* to the scheduler */
    const char *role;             /* "server", "worker": for sentences */
    Lh__Plan *plan;
    uint32_t node;
    uint64_t job;                                      /* digest */
    double heartbeat, deadline, last_sent, last_heard; /* seconds */
    struct lh_awake awake;
    uint64_t version;     /* where the role stands */
    struct lh_outbox out; /* to the scheduler */
    struct lh_inbox in;   /* its orders */
    Lh__Phases phases;    /* where its time went */
    bool lost;            /* the scheduler was silent beyond the deadline */
    bool told;            /* it left, and the scheduler was told how, or said so itself */
    struct lh_err busy;   /* why there is no place for it yet; code 0: nothing was said */
};

struct lh_member_spec {
    void *zmq;
    const char *scheduler;                /* its endpoint */
    const char *role;                     /* "server", "worker" */
    double patience;                      /* seconds */
    bool (*interrupted)(void);            /* NULL: never */
    const struct lh_companion *companion; /* has its turns meanwhile; NULL: none */
    const struct lh_security *security;   /* outlives the membership; NULL: none */
};

/* Says hello until the scheduler answers with a plan, at most `patience` seconds without a word
 * from it; says every 5 s who is awaited at which address. On failure nothing is left open.
 * Errors: LH_ETIMEDOUT; the scheduler's refusal; LH_EACCES if it knew no such key all the time;
 * LH_EMISMATCH if it runs another release; LH_ECANCELED when interrupted. */
int lh_member_join(struct lh_member *m, const struct lh_member_spec *spec, Lh__Hello *hello);
/* Sets the liveness times once the job is known, and checks the job's digest against the plan's. */
int lh_member_agree(struct lh_member *m, uint64_t digest, double heartbeat, double deadline);

/* Whether a role whose run ended with `rc` is to say hello again: it was told so (`again`: the run
 * goes back to its last cut), or it lost the scheduler, which it says, and waits for that one to
 * come back where `rejoin` is set. Ask before lh_member_leave. */
bool lh_member_returns(const struct lh_member *m, int rc, bool again, bool rejoin);

/* What every message to the scheduler begins with. */
struct lh_envelope lh_member_envelope(const struct lh_member *m, Lh__Kind kind);
/* A message to the scheduler that arrives, once and in order, also where a connection breaks
 * (outbox.h). LH_AGAIN: too many are under way, nothing happened. */
int lh_member_send(struct lh_member *m, const struct lh_envelope *env,
                   const struct lh_net_part *parts, size_t n);
/* Likewise, a message without body about `version`. It is no beat: a role that has much to tell
 * beats all the same, since beats carry where its time went. */
int lh_member_tell(struct lh_member *m, Lh__Kind kind, uint64_t version);
/* The same with a failure, by code and sentence. */
int lh_member_tell_failure(struct lh_member *m, Lh__Kind kind, uint64_t version,
                           const struct lh_err *err);
/* Beats if due, or if many orders have come since it said so. Errors: LH_EPEER when the scheduler
 * has been silent beyond the deadline. */
int lh_member_tick(struct lh_member *m);
/* The next order, or LH_AGAIN; beats of the scheduler are taken in here. */
int lh_member_recv(struct lh_member *m, struct lh_net_message *msg);
/* What a STOP says: 0 (finished) or the code of the failure with its sentence. */
int lh_member_stop_reason(const struct lh_net_message *msg);
/* Tells the scheduler how this role ended and closes: 0 goodbye, else the failure (not if it came
 * from the scheduler). Returns `rc`, its sentence intact. */
int lh_member_leave(struct lh_member *m, int rc, bool from_scheduler);

/* What the bits of products depend on, which workers of one job must share: "fma" for our own
 * kernels, else OpenBLAS version and kernel (gemm.h). Static storage of the library.
 */
void lh_member_blas(char *out, size_t size);
