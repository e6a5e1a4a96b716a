/* Cuts: shard and tables are set aside together, the writer's thread makes them durable, and the
 * scheduler is told. What a disk does not take is told likewise, and training goes on. */
#include "ps/server_internal.h"

#include "common/err.h"
#include "common/log.h"
#include "common/term.h"

#define RETRY_EVERY 0.5 /* seconds between tries to write the last version */

/* A version that could not be written is passed without a cut, but for the last, which is tried
 * again until the scheduler gives up. */
bool lh_server_cuts_due(const struct lh_server *s)
{
    uint64_t v = lh_shard_version(s->shard);
    if (v == s->failed && v == s->clock.until)
        return lh_now() - s->failed_at > RETRY_EVERY;
    return s->cut != v && lh_clock_cuts(&s->clock, v);
}

/* What a disk does not take is no end: training goes on, and the scheduler says so. Commits and
 * drops are made up for by the next. */
static int cut_failed(struct lh_server *s, const struct lh_writer_done *done)
{
    lh_log_event(LH_LOG_WARN, "disk_error",
                 LH_FIELDS(LH_F("step", done->version), LH_F("code", lh_err_name(done->err.code)),
                           LH_F("reason", done->err.text)));
    if (done->err.code == LH_EINTERNAL)
        return lh_err_load(&done->err);
    if (done->kind != LH_WRITER_PREPARE)
        return 0;
    lh_metrics_add(s->counts, LH_METRIC_CHECKPOINTS_FAILED, 1);
    s->failed = done->version;
    s->failed_at = lh_now();
    return lh_member_tell_failure(&s->member, LH__KIND__KIND_UNPREPARED, done->version, &done->err);
}

/* Shard and tables, or none of them: LH_AGAIN while the last cut is being written. */
static int freeze(struct lh_server *s, const struct lh_frozen **out)
{
    int rc = lh_server_tables_freeze(&s->tables);
    if (rc != 0)
        return rc;
    rc = lh_shard_freeze(s->shard, out);
    if (rc != 0)
        lh_server_tables_thaw(&s->tables);
    return rc;
}

int lh_server_cuts_start(struct lh_server *s)
{
    const struct lh_frozen *frozen = NULL;
    double began = lh_now();
    /* The scheduler does not answer; it may be on its way back, and what is told it waits till
     * then: fast steps would fill the outbox, which is an end, before its silence is one. */
    if (s->member.out.n > LH_OUTBOX_ROOM / 2)
        return 0; /* training waits */
    int rc = freeze(s, &frozen);
    if (rc == LH_AGAIN)
        return 0; /* training waits */
    /* rows that changed are written when they are frozen; where their directory is gone, they are
     * not */
    if (rc == LH_ENOSPC || rc == LH_EIO || rc == LH_ENOENT) {
        struct lh_writer_done done = {.kind = LH_WRITER_PREPARE,
                                      .version = lh_shard_version(s->shard)};
        lh_err_save(&done.err, rc);
        s->cut = done.version;
        return cut_failed(s, &done);
    }
    LH_TRY(rc);
    s->member.phases.cut += lh_now() - began;
    rc = lh_writer_prepare(s->writer, s->shard, frozen);
    if (rc < 0) {
        lh_shard_thaw(s->shard, frozen);
        lh_server_tables_thaw(&s->tables);
        return rc;
    }
    s->cut = frozen->version;
    s->failed = 0;
    return 0;
}

int lh_server_cuts_report(struct lh_server *s)
{
    struct lh_writer_done done;
    while (lh_writer_poll(s->writer, &done)) {
        if (done.err.code < 0) {
            LH_TRY(cut_failed(s, &done));
            continue;
        }
        if (done.kind != LH_WRITER_PREPARE)
            continue;
        lh_metrics_observe(s->counts, LH_METRIC_WRITE_TIME, done.seconds);
        lh_log_event(LH_LOG_DEBUG, "written",
                     LH_FIELDS(LH_F("step", done.version), LH_F("seconds", done.seconds)));
        lh_metrics_add(s->counts, LH_METRIC_CHECKPOINTS, 1);
        lh_metrics_set(s->counts, LH_METRIC_CHECKPOINT_AGE, lh_now());
        LH_TRY(lh_server_steps_send(s)); /* of steps before a cut they would not come again */
        LH_TRY(lh_member_tell(&s->member, LH__KIND__KIND_PREPARED, done.version));
    }
    return 0;
}
