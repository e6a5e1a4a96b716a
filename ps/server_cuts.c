/* Cuts: shard and tables are set aside together; what has changed in tables is written between
 * other things, a slice at a time; then the writer's thread makes it all durable, and the scheduler
 * is told. What a disk does not take is told likewise, and training goes on. */
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
static int freeze(struct lh_server *s)
{
    int rc = lh_server_tables_freeze(&s->tables);
    if (rc != 0)
        return rc;
    rc = lh_shard_freeze(s->shard, &s->frozen);
    if (rc != 0)
        lh_server_tables_abandon(&s->tables);
    return rc;
}

/* It does not get as far as the writer. Where rows of tables cannot be written, or their directory
 * is gone, it is as if the writer had said so. */
static int not_written(struct lh_server *s, uint64_t version, int rc)
{
    struct lh_writer_done done = {.kind = LH_WRITER_PREPARE, .version = version};
    if (rc != LH_ENOSPC && rc != LH_EIO && rc != LH_EACCES && rc != LH_ENOENT)
        return rc;
    lh_err_save(&done.err, rc);
    s->cut = version;
    return cut_failed(s, &done);
}

int lh_server_cuts_start(struct lh_server *s)
{
    double began = lh_now();
    /* The scheduler does not answer; it may be on its way back, and what is told it waits till
     * then: fast steps would fill the outbox, which is an end, before its silence is one. */
    if (s->member.out.n > LH_OUTBOX_ROOM / 2)
        return 0; /* training waits */
    int rc = freeze(s);
    if (rc == LH_AGAIN)
        return 0; /* training waits */
    if (rc < 0)
        return not_written(s, lh_shard_version(s->shard), rc);
    s->member.phases.cut += lh_now() - began;
    s->cut = s->frozen->version;
    s->failed = 0;
    return lh_server_cuts_settle(s);
}

int lh_server_cuts_settle(struct lh_server *s)
{
    const struct lh_frozen *frozen = s->frozen;
    if (!frozen)
        return 0;
    double began = lh_now();
    int rc = lh_server_tables_settle(&s->tables);
    s->member.phases.cut += lh_now() - began;
    if (rc == LH_AGAIN)
        return 0;
    s->frozen = NULL;
    if (rc == 0)
        rc = lh_writer_prepare(s->writer, s->shard, frozen);
    if (rc == 0)
        return 0;
    const uint64_t version = frozen->version;
    lh_shard_thaw(s->shard, frozen);
    lh_server_tables_abandon(&s->tables);
    return not_written(s, version, rc);
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
