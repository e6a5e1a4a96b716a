/* The scheduler's part in cuts: what servers say of a version, and what follows.
 *
 * Durability (DESIGN.md, invariant 2): a cut is complete when every server has prepared it and the
 * record lists it; only then are servers told to commit and to drop older ones. One that a server
 * could not write is void, and training goes on; only the last one must be there in the end. */
#include "cluster/scheduler_internal.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/member.h"

#include <stdio.h>

#define LAST_PATIENCE 5.0 /* seconds for which the last cut is tried again */
#define LAST_PAUSE    0.5 /* seconds between tries to save its record */

/* The run does not end without its last cut. */
static int last_failed(struct lh_scheduler *s, int rc)
{
    char from[64] = "begin the run anew";
    const struct lh_run_record *r = s->opt->record;
    double now = lh_now();
    if (s->failing == 0)
        s->failing = now;
    lh_log_event(LH_LOG_WARN, "checkpoint_failed",
                 LH_FIELDS(LH_F("step", s->clock.until), LH_F("code", lh_err_name(rc)),
                           LH_F("reason", lh_err_text())));
    if (now - s->failing < LAST_PATIENCE)
        return 0;
    if (r->has_last)
        snprintf(from, sizeof from, "go on from step %llu with --resume",
                 (unsigned long long)r->last);
    return lh_err_set(rc, "step %llu, the last, cannot be saved: %s; then %s",
                      (unsigned long long)s->clock.until, lh_err_text(), from);
}

static int tell_commit(struct lh_scheduler *s, uint64_t version)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_COMMIT, .step = version};
    Lh__Commit c = LH__COMMIT__INIT;
    LH_TRY(lh_cuts_kept(&s->cuts, &c.keep, &c.n_keep));
    int rc = lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, &c.base);
    lh_mem_free(c.keep);
    return rc;
}

/* Phase two: the record first, then the servers. Where the record cannot be saved they are told
 * nothing: the file may list the version all the same, and what they hold beyond it does no harm.
 */
static int complete_cut(struct lh_scheduler *s, uint64_t version)
{
    struct lh_err err;
    LH_TRY(lh_metrics_log_sync(s->metrics)); /* lines up to here will not come again */
    int rc = lh_cuts_complete(&s->cuts, version, s->opt->servers, s->evaluator);
    if (rc == LH_ENOMEM || rc == LH_EINTERNAL)
        return rc;
    if (rc < 0 && version == s->clock.until) {
        s->unlisted = version;
        s->tried = lh_now();
        return last_failed(s, rc);
    }
    if (rc < 0) {
        lh_err_save(&err, rc);
        lh_cuts_trouble(&s->cuts, version, &err);
        lh_cuts_void(&s->cuts, version);
        return 0;
    }
    s->unlisted = 0;
    s->returned = 0;
    s->result->version = version;
    return tell_commit(s, version);
}

static int decide_cuts(struct lh_scheduler *s)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_VOID};
    bool complete;
    while (lh_votes_decide(&s->votes, &env.step, &complete)) {
        if (complete) {
            LH_TRY(complete_cut(s, env.step));
            continue;
        }
        lh_cuts_void(&s->cuts, env.step);
        LH_TRY(lh_roster_tell_all(&s->roster, LH__ROLE__ROLE_SERVER, &env, NULL));
    }
    return 0;
}

/* Who has a server's key does not make versions up that run.json would list. */
static int check_due(const struct lh_scheduler *s, const struct lh_role_node *node,
                     uint64_t version)
{
    return version <= s->clock.until && lh_clock_cuts(&s->clock, version)
               ? 0
               : lh_err_set(LH_EPROTO, "server %u speaks of version %llu, which is no checkpoint",
                            node->shard, (unsigned long long)version);
}

int lh_scheduler_prepared(struct lh_scheduler *s, struct lh_role_node *node, uint64_t version)
{
    lh_log_event(LH_LOG_DEBUG, "prepared",
                 LH_FIELDS(LH_F("number", node->number), LH_F("step", version)));
    LH_TRY(check_due(s, node, version));
    LH_TRY(lh_votes_cast(&s->votes, node->shard, version, true));
    return decide_cuts(s);
}

/* A server that has not room for the last cut tries again by itself. */
int lh_scheduler_unprepared(struct lh_scheduler *s, struct lh_role_node *node,
                            const struct lh_net_message *msg)
{
    char who[512];
    struct lh_err err;
    LH_TRY(check_due(s, node, msg->env.step));
    int rc = lh_member_stop_reason(msg);
    if (rc >= 0)
        return lh_err_set(LH_EPROTO, "a checkpoint failed without a reason");
    if (msg->env.step == s->clock.until)
        return last_failed(s, rc);
    lh_err_prefix(rc, "%s", lh_roster_describe(node, who, sizeof who));
    lh_err_save(&err, rc);
    lh_cuts_trouble(&s->cuts, msg->env.step, &err);
    LH_TRY(lh_votes_cast(&s->votes, node->shard, msg->env.step, false));
    return decide_cuts(s);
}

int lh_scheduler_list_last(struct lh_scheduler *s)
{
    return s->unlisted && lh_now() - s->tried > LAST_PAUSE ? complete_cut(s, s->unlisted) : 0;
}
