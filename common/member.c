/* Membership as a role sees it. The scheduler's side is cluster/scheduler.c. */
#include "common/member.h"

#include "common/err.h"
#include "common/gemm.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <cblas.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CONTROL_QUEUE 1000
#define HELLO_EVERY   1.0 /* seconds */
#define NOTE_EVERY    5.0
#define RESEND_AFTER  1.0 /* seconds beyond a heartbeat: then what is not acknowledged was lost */

void lh_member_blas(char *out, size_t size)
{
    const char *kernel = lh_gemm_kernel_name();
    if (strcmp(kernel, openblas_get_corename()) != 0) { /* then OpenBLAS has no part in training */
        snprintf(out, size, "%s", kernel);
        return;
    }
    /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH … SkylakeX MAX_THREADS=64": the first two words */
    const char *config = openblas_get_config();
    int n = 0;
    for (int words = 0; config[n]; n++)
        if (config[n] == ' ' && ++words == 2)
            break;
    snprintf(out, size, "%.*s %s", n, config, kernel);
}

static int send_hello(struct lh_member *m, Lh__Hello *hello)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_HELLO};
    m->last_sent = lh_now();
    int rc = lh_net_send_body(m->socket, NULL, &env, &hello->base);
    return rc < 0 ? rc : 0; /* a full queue: hellos are waiting already */
}

static int take_refusal(const struct lh_net_message *msg)
{
    if (msg->env.protocol != LH_WIRE_PROTOCOL)
        return lh_err_set(LH_EMISMATCH,
                          "the scheduler speaks protocol %u, this program speaks %d: run the same "
                          "release of longhaul everywhere",
                          msg->env.protocol, LH_WIRE_PROTOCOL);
    int rc = lh_member_stop_reason(msg);
    return rc < 0 ? rc : lh_err_set(LH_EPROTO, "the scheduler refused without a reason");
}

/* LH_AGAIN: no answer yet. */
static int take_answer(struct lh_member *m)
{
    struct lh_net_message msg;
    int rc = lh_net_recv(m->socket, &msg);
    if (rc != 0)
        return rc;
    double heard = m->last_heard;
    m->last_heard = lh_now();
    rc = LH_AGAIN;
    if (msg.env.kind == LH__KIND__KIND_REFUSED || msg.env.kind == LH__KIND__KIND_STOP) {
        rc = take_refusal(&msg);
        if (rc == LH_EBUSY && msg.env.kind == LH__KIND__KIND_REFUSED) {
            /* no place yet: one may become free when a dead server is noticed */
            lh_err_save(&m->busy, rc);
            m->last_heard = heard;
            rc = LH_AGAIN;
        }
    } else if (msg.env.kind == LH__KIND__KIND_PLAN) {
        rc = lh_net_body(&msg, &lh__plan__descriptor, (ProtobufCMessage **)&m->plan);
        if (rc == 0) {
            m->node = m->plan->node;
            m->job = m->plan->job_digest;
        }
    }
    lh_net_message_fini(&msg);
    return rc;
}

static int nobody_answered(const struct lh_member *m, double patience)
{
    if (m->busy.code < 0)
        return lh_err_load(&m->busy);
    if (lh_net_refused(m->socket))
        return lh_err_set(LH_EACCES,
                          "%s: the scheduler at %s refuses this %s's key: it is not on its list; "
                          "give both key files of the same 'longhaul keygen'",
                          m->role, lh_net_endpoint(m->socket), m->role);
    return lh_err_set(LH_ETIMEDOUT,
                      "%s: no scheduler at %s within %g s; start 'longhaul scheduler' or check "
                      "the address, and that both have key files of the same 'longhaul keygen', "
                      "or none",
                      m->role, lh_net_endpoint(m->socket), patience);
}

static void note_waiting(const struct lh_member *m, double waited)
{
    const char *what = lh_net_refused(m->socket)           ? "the scheduler to accept this key"
                       : waited > lh_now() - m->last_heard ? "the plan of the scheduler"
                                                           : "the scheduler";
    lh_log_tell(LH_LOG_INFO, "wait",
                LH_FIELDS(LH_F("endpoint", lh_net_endpoint(m->socket)), LH_F("seconds", waited)),
                "%s: waiting for %s at %s (%.0f s)%s%s", m->role, what, lh_net_endpoint(m->socket),
                waited, m->busy.code < 0 ? "; it says: " : "", m->busy.text);
}

static int wait_for_plan(struct lh_member *m, const struct lh_member_spec *spec, Lh__Hello *hello)
{
    const double began = lh_now();
    double noted = began;
    m->last_heard = began;
    LH_TRY(send_hello(m, hello));
    for (;;) {
        struct lh_net_poll poll = {.socket = m->socket};
        LH_TRY(lh_companion_poll(spec->companion, &poll, 1, 0.2));
        if (spec->companion)
            spec->companion->turn(spec->companion->ctx);
        int rc = take_answer(m);
        if (rc != LH_AGAIN)
            return rc;
        double now = lh_now();
        if (spec->interrupted && spec->interrupted())
            return lh_err_set(LH_ECANCELED, "%s: interrupted while waiting for the scheduler",
                              m->role);
        if (now - m->last_heard > spec->patience)
            return nobody_answered(m, spec->patience);
        if (now - noted >= NOTE_EVERY) {
            noted = now;
            note_waiting(m, now - began);
        }
        if (now - m->last_sent >= HELLO_EVERY)
            LH_TRY(send_hello(m, hello));
    }
}

int lh_member_join(struct lh_member *m, const struct lh_member_spec *spec, Lh__Hello *hello)
{
    char blas[160], host[128] = "";
    const struct lh_keys *keys = spec->security ? spec->security->keys : NULL;
    struct lh_net_address scheduler = {.endpoint = spec->scheduler,
                                       .role = LH__ROLE__ROLE_SCHEDULER,
                                       .key = keys ? keys->scheduler.key : NULL};
    *m = (struct lh_member){.role = spec->role, .phases = LH__PHASES__INIT};
    lh_member_blas(blas, sizeof blas);
    gethostname(host, sizeof host - 1);
    hello->program = (char *)(uintptr_t)LH_VERSION;
    hello->blas = blas;
    hello->host = host;
    hello->pid = (uint64_t)getpid();
    if (getrandom(&hello->instance, sizeof hello->instance, 0) != sizeof hello->instance)
        return lh_err_errno(errno, "%s: the system gives no random numbers", spec->role);
    int rc;
    LH_TRY(lh_net_dealer(&m->socket, spec->zmq, &scheduler, CONTROL_QUEUE, spec->security));
    LH_TRY_TO(fail, wait_for_plan(m, spec, hello));
    lh_net_expect(m->socket, m->job);
    lh_log_as((struct lh_log_who){.role = spec->role, .node = m->node});
    return 0;
fail:
    lh_wire_free((ProtobufCMessage **)&m->plan);
    lh_net_close(&m->socket);
    return rc;
}

int lh_member_agree(struct lh_member *m, uint64_t digest, double heartbeat, double deadline)
{
    m->heartbeat = heartbeat;
    m->deadline = deadline;
    m->last_heard = lh_now();
    if (digest != m->job)
        return lh_err_set(LH_EMISMATCH,
                          "%s: the scheduler's job has digest %016llx, this program reads it as "
                          "%016llx: run the same release of longhaul everywhere",
                          m->role, (unsigned long long)m->job, (unsigned long long)digest);
    lh_log_event(LH_LOG_INFO, "join", LH_FIELDS(LH_F("scheduler", lh_net_endpoint(m->socket))));
    return 0;
}

struct lh_envelope lh_member_envelope(const struct lh_member *m, Lh__Kind kind)
{
    return (struct lh_envelope){.kind = kind,
                                .job = m->job,
                                .node = m->node,
                                .step = m->version,
                                .epoch = m->plan->generation};
}

int lh_member_send(struct lh_member *m, const struct lh_envelope *env,
                   const struct lh_net_part *parts, size_t n)
{
    return lh_outbox_send(&m->out, m->socket, NULL, env, parts, n);
}

static int told(const struct lh_member *m, int rc)
{
    if (rc == LH_AGAIN)
        return lh_err_set(LH_EPEER, "%s: the scheduler at %s takes no messages any more", m->role,
                          lh_net_endpoint(m->socket));
    return rc;
}

int lh_member_tell(struct lh_member *m, Lh__Kind kind, uint64_t version)
{
    struct lh_envelope env = lh_member_envelope(m, kind);
    env.step = version;
    return told(m, lh_member_send(m, &env, NULL, 0));
}

int lh_member_tell_failure(struct lh_member *m, Lh__Kind kind, uint64_t version,
                           const struct lh_err *err)
{
    struct lh_envelope env = lh_member_envelope(m, kind);
    Lh__Failure f = LH__FAILURE__INIT;
    unsigned char bytes[LH_ERR_MAX + 32];
    env.step = version;
    f.code = err->code;
    f.text = (char *)(uintptr_t)err->text;
    struct lh_net_part part = {.data = bytes, .size = lh__failure__pack(&f, bytes)};
    return told(m, lh_member_send(m, &env, &part, 1));
}

static int send_phases(struct lh_member *m, Lh__Kind kind)
{
    struct lh_envelope env = lh_member_envelope(m, kind);
    env.first = m->in.last;
    m->in.taken = 0;
    m->last_sent = lh_now();
    m->phases.memory = lh_mem_resident();
    int rc = lh_net_send_body(m->socket, NULL, &env, &m->phases.base);
    return rc < 0 ? rc : 0; /* a full queue: the deadline will tell */
}

int lh_member_tick(struct lh_member *m)
{
    double now = lh_now();
    /* orders that it has taken wait at the scheduler until they are acknowledged */
    if (now - m->last_sent >= m->heartbeat || m->in.taken >= LH_OUTBOX_SAY)
        LH_TRY(send_phases(m, LH__KIND__KIND_BEAT));
    const double counted = m->last_heard + lh_awake_gap(&m->awake, now, m->deadline);
    m->last_heard = counted < now ? counted : now; /* it may have been heard since */
    m->lost = now - m->last_heard > m->deadline && !lh_net_is_inproc(lh_net_endpoint(m->socket));
    if (m->lost)
        return lh_err_set(LH_EPEER,
                          "%s: the scheduler at %s went away (silent for %.0f s); resume the run "
                          "with --resume",
                          m->role, lh_net_endpoint(m->socket), now - m->last_heard);
    return 0;
}

bool lh_member_returns(const struct lh_member *m, int rc, bool again, bool rejoin)
{
    if (again && rc >= 0)
        return true;
    if (rc != LH_EPEER || !m->lost || !rejoin)
        return false;
    lh_note("%s: the scheduler at %s went away; waiting for it to come back", m->role,
            lh_net_endpoint(m->socket));
    return true;
}

int lh_member_recv(struct lh_member *m, struct lh_net_message *msg)
{
    for (;;) {
        int rc = lh_net_recv(m->socket, msg);
        if (rc != 0)
            return rc;
        m->last_heard = lh_now();
        bool beat = msg->env.kind == LH__KIND__KIND_BEAT;
        if (beat)
            LH_TRY(lh_outbox_acknowledged(&m->out, msg->env.first, m->socket, NULL,
                                          m->heartbeat + RESEND_AFTER));
        if (!beat && lh_inbox_takes(&m->in, msg->env.request))
            return 0;
        lh_net_message_fini(msg);
    }
}

int lh_member_stop_reason(const struct lh_net_message *msg)
{
    Lh__Failure *f = NULL;
    LH_TRY(lh_net_body(msg, &lh__failure__descriptor, (ProtobufCMessage **)&f));
    int rc = f->code < 0 ? lh_err_set(f->code, "%s", f->text) : 0;
    lh_wire_free((ProtobufCMessage **)&f);
    return rc;
}

int lh_member_leave(struct lh_member *m, int rc, bool from_scheduler)
{
    struct lh_err saved;
    lh_err_save(&saved, rc);
    if (m->plan)
        lh_log_event(rc < 0 ? LH_LOG_ERROR : LH_LOG_INFO, "stop",
                     LH_FIELDS(LH_F("version", m->version),
                               LH_F("code", lh_err_name(rc < 0 ? rc : 0)),
                               LH_F("reason", rc < 0 ? saved.text : "")));
    if (m->socket && m->plan) {
        m->told = true;
        if (rc >= 0 || from_scheduler) {
            send_phases(m, LH__KIND__KIND_GOODBYE);
        } else {
            /* outside of the order: nobody is here any more to send again what is before it */
            struct lh_envelope env = lh_member_envelope(m, LH__KIND__KIND_FAILED);
            Lh__Failure f = LH__FAILURE__INIT;
            f.code = rc;
            f.text = saved.text;
            m->told = lh_net_send_body(m->socket, NULL, &env, &f.base) == 0;
        }
    }
    lh_outbox_fini(&m->out);
    lh_wire_free((ProtobufCMessage **)&m->plan);
    lh_net_close(&m->socket);
    return rc < 0 ? lh_err_load(&saved) : rc;
}
