/* The scheduler's part in who takes part: who is ready, left, died, or is not heard any more, and
 * what becomes of the run then. */
#include "cluster/scheduler_internal.h"

#include "common/err.h"
#include "common/log.h"
#include "common/member.h"

#include <stdio.h>

#define RETURNS   20  /* to one and the same cut */
#define LAST_WORD 1.0 /* seconds */
#define ASSIGNS   32  /* in a heartbeat */

int lh_scheduler_ready(struct lh_scheduler *s, struct lh_role_node *node)
{
    if (node->standing != LH_STANDING_PLANNED)
        return 0;
    node->standing = LH_STANDING_READY;
    if (node->role == LH__ROLE__ROLE_SERVER)
        return 0;
    if (s->ready_at == 0)
        s->ready_at = lh_now();
    if (lh_scheduler_computes(s)) {
        lh_log_tell(LH_LOG_INFO, "ready",
                    LH_FIELDS(LH_F("number", node->number), LH_F("process", node->pid),
                              LH_F("host", node->host)),
                    "a worker joined: process %llu on %s", (unsigned long long)node->pid,
                    node->host);
        s->reassign = true;
    }
    return 0;
}

static int worker_is_gone(struct lh_scheduler *s, struct lh_role_node *node, const char *how)
{
    char who[512];
    lh_roster_gone(node);
    if (s->stage == STOPPING)
        return 0; /* it was told to go */
    lh_report_lost(&s->report, node);
    lh_log_tell(LH_LOG_WARN, "lost", LH_FIELDS(LH_F("number", node->number), LH_F("how", how)),
                "%s %s; the others take its share", lh_roster_describe(node, who, sizeof who), how);
    if (s->stage == GATHERING)
        return 0;
    struct lh_envelope env = {.kind = LH__KIND__KIND_LOST, .index = node->number};
    s->reassign = true;
    return lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL);
}

/* A server's part of the newest version died with it. Everybody goes back to the last cut: servers
 * read it, workers pull it, and since training is a function of log, job and seed alone, the same
 * versions come again. */
static int go_back(struct lh_scheduler *s)
{
    lh_evaluator_stop(&s->evaluator);
    LH_TRY(lh_roster_dismiss(&s->roster));
    lh_run_record_start(s->opt->record, &s->clock);
    s->version = s->clock.start;
    LH_TRY(lh_metrics_log_back(s->metrics, s->clock.start));
    LH_TRY(lh_cuts_back(&s->cuts, s->clock.evaluate_start));
    lh_votes_clear(&s->votes);
    s->stage = GATHERING;
    s->began = s->noted = lh_now();
    s->ready_at = 0;
    return 0;
}

static int server_is_gone(struct lh_scheduler *s, struct lh_role_node *node, const char *how)
{
    char who[512];
    bool replaced = false;
    struct lh_scheduler_process process = {.pid = node->pid, .server = true, .shard = node->shard};
    snprintf(process.host, sizeof process.host, "%s", node->host);
    lh_roster_gone(node);
    lh_roster_describe(node, who, sizeof who);
    if (s->stage == STOPPING)
        return 0;
    lh_report_lost(&s->report, node);
    if (s->stage <= RUNNING && s->opt->replace && s->returned++ < RETURNS)
        LH_TRY(s->opt->replace(s->opt->launcher, &process, &replaced));
    if (!replaced)
        return lh_err_set(LH_EPEER, "%s %s; go on from the last checkpoint with --resume", who,
                          how);
    LH_TRY(go_back(s));
    lh_log_tell(LH_LOG_WARN, "rewind", LH_FIELDS(LH_F("step", s->clock.start)),
                "%s %s; the run goes back to step %llu, its last checkpoint", who, how,
                (unsigned long long)s->clock.start);
    return 0;
}

int lh_scheduler_gone(struct lh_scheduler *s, struct lh_role_node *node, const char *how)
{
    return node->role == LH__ROLE__ROLE_WORKER ? worker_is_gone(s, node, how)
                                               : server_is_gone(s, node, how);
}

/* A worker that cannot go on is lost, as one that died: whoever has a worker's key may end itself,
 * not the run. Where it was the last, its sentence is that of the run. */
int lh_scheduler_failed(struct lh_scheduler *s, struct lh_role_node *node,
                        const struct lh_net_message *msg)
{
    char text[LH_ERR_MAX + 16];
    node->said_goodbye = true;
    lh_roster_gone(node);
    if (s->stage == STOPPING)
        return 0;
    int rc = lh_member_stop_reason(msg);
    if (rc >= 0)
        rc = lh_err_set(LH_EPEER, "%s failed without a reason",
                        lh_roster_describe(node, text, sizeof text));
    if (node->role == LH__ROLE__ROLE_SERVER ||
        lh_roster_count(&s->roster, LH__ROLE__ROLE_WORKER, LH_STANDING_HELLO) == 0)
        return rc;
    snprintf(text, sizeof text, "failed: %s", lh_err_text());
    return worker_is_gone(s, node, text);
}

/* Whether a server is still to make the version that the run stops at: one that has it writes. */
static bool lacks_steps(struct lh_scheduler *s)
{
    for (uint32_t i = 0; i < s->opt->servers; i++) {
        const struct lh_role_node *n = lh_roster_server(&s->roster, i);
        if (!n || n->version < s->clock.until)
            return true;
    }
    return false;
}

int lh_scheduler_watch_workers(struct lh_scheduler *s)
{
    double now = lh_now();
    if (!lacks_steps(s) ||
        lh_roster_count(&s->roster, LH__ROLE__ROLE_WORKER, LH_STANDING_HELLO) > 0) {
        s->ready_at = now;
        return 0;
    }
    if (now - s->ready_at > s->roster.deadline)
        return lh_err_set(LH_EPEER,
                          "no worker has been left for %.0f s; go on from the last checkpoint "
                          "with --resume",
                          now - s->ready_at);
    return 0;
}

/* A role that ends by itself says why: it may have ended before that was heard. */
static int hear_last_word(struct lh_scheduler *s, const struct lh_scheduler_process *p,
                          struct lh_role_node **n)
{
    const double until = lh_now() + LAST_WORD;
    while ((*n = lh_roster_by_pid(&s->roster, p->pid, p->host)) && p->exited &&
           s->stage != STOPPING && lh_now() < until)
        LH_TRY(lh_scheduler_hear(s));
    return 0;
}

/* What the launcher knows about ended processes is sooner than any deadline. */
int lh_scheduler_take_deaths(struct lh_scheduler *s)
{
    struct lh_scheduler_process p;
    while (s->opt->watch) {
        LH_TRY(s->opt->watch(s->opt->launcher, &p));
        if (p.pid == 0)
            break;
        struct lh_role_node *n = NULL;
        LH_TRY(hear_last_word(s, &p, &n));
        bool replaced = p.replaced;
        if (!replaced && s->opt->replace && s->stage < STOPPING &&
            (!n || n->role == LH__ROLE__ROLE_WORKER))
            LH_TRY(s->opt->replace(s->opt->launcher, &p, &replaced));
        if (n)
            LH_TRY(lh_scheduler_gone(s, n, "died"));
        else if (s->stage == GATHERING && !replaced)
            return lh_err_set(
                LH_EPEER, "the process %llu of a role ended before it said hello%s",
                (unsigned long long)p.pid,
                s->opt->record->has_last ? "; go on from the last checkpoint with --resume" : "");
    }
    return 0;
}

int lh_scheduler_look_after(struct lh_scheduler *s)
{
    struct lh_role_node *n;
    LH_TRY(lh_scheduler_take_deaths(s));
    while ((n = lh_roster_silent(&s->roster)))
        LH_TRY(lh_scheduler_gone(s, n, n->deaf ? "takes no messages any more" : "went silent"));
    return lh_roster_beat(&s->roster);
}

/* Where a rack of workers comes or goes they are told a few times who they are, not once each: they
 * say once a heartbeat what they have taken. */
int lh_scheduler_reassign(struct lh_scheduler *s)
{
    const double now = lh_now();
    if (!s->reassign || s->stage == GATHERING || now - s->assigned < s->roster.heartbeat / ASSIGNS)
        return 0;
    s->reassign = false;
    s->assigned = now;
    return lh_roster_assign(&s->roster);
}
