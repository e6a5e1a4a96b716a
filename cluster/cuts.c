/* Cuts: completeness, retention, the best. */
#include "cluster/cuts.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* The value to beat. */
static int recall_best(struct lh_cuts *c)
{
    const struct lh_run_record *r = c->record;
    const struct lh_run_cut *best = r->has_best ? lh_run_record_cut(r, r->best) : NULL;
    if (!best || !best->evaluation_json)
        return 0;
    cJSON *json = cJSON_Parse(best->evaluation_json);
    if (!json)
        return lh_err_set(LH_ENOMEM, "%s: no memory to read the best evaluation", c->dir);
    const cJSON *policy = cJSON_GetObjectItemCaseSensitive(json, "policy");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(policy, "value");
    c->has_best = cJSON_IsNumber(value);
    c->best_value = c->has_best ? value->valuedouble : 0;
    cJSON_Delete(json);
    return 0;
}

static uint64_t lines_end(const struct lh_cuts *c, bool again)
{
    uint64_t last = c->record->has_last ? c->record->last : 0;
    return again && last ? last - 1 : last;
}

int lh_cuts_init(struct lh_cuts *c, struct lh_run_record *record, const char *dir,
                 const struct lh_job *job, bool again, bool quiet)
{
    char *path = NULL;
    *c = (struct lh_cuts){.record = record,
                          .dir = dir,
                          .keep = job->checkpoint_keep,
                          .choose = job->choose,
                          .quiet = quiet};
    LH_TRY(recall_best(c));
    LH_TRY(lh_mem_printf(&path, "%s/evaluations.jsonl", dir));
    int rc = lh_step_lines_open(&c->evaluations, path, lines_end(c, again));
    lh_mem_free(path);
    return rc;
}

static void forget_verdict(struct lh_cuts *c)
{
    c->has_verdict = c->has_line = false;
    lh_mem_free(c->verdict.json);
    c->verdict.json = NULL;
}

int lh_cuts_back(struct lh_cuts *c, bool again)
{
    forget_verdict(c);
    c->decided = c->troubled = 0;
    return lh_step_lines_back(c->evaluations, lines_end(c, again));
}

void lh_cuts_fini(struct lh_cuts *c)
{
    forget_verdict(c);
    lh_step_lines_close(&c->evaluations); /* every line was flushed */
}

/* --- evaluations -------------------------------------------------------------------------------
 */

/* Before the record has it: a line whose verdict is lost is dropped on resuming, and comes again.
 */
static int append(struct lh_cuts *c)
{
    if (c->has_line)
        return 0;
    c->has_line = true;
    LH_TRY(lh_step_lines_print(c->evaluations, "{\"step\": %llu, \"evaluation\": %s}\n",
                               (unsigned long long)c->verdict_version, c->verdict.json));
    return lh_step_lines_flush(c->evaluations);
}

/* Puts the verdict into the record, in memory, if its cut is there. */
static int settle(struct lh_cuts *c)
{
    struct lh_run_record *r = c->record;
    if (!c->has_verdict || !lh_run_record_cut(r, c->verdict_version))
        return 0;
    LH_TRY(append(c));
    LH_TRY(lh_run_record_set_evaluation(r, c->verdict_version, c->verdict.json));
    bool better = c->choose == LH_CHOOSE_LAST || !c->has_best || c->verdict.value > c->best_value;
    if (c->verdict.eligible && better) {
        c->has_best = r->has_best = true;
        c->best_value = c->verdict.value;
        r->best = c->verdict_version;
        lh_log_event(LH_LOG_INFO, "best",
                     LH_FIELDS(LH_F("step", r->best), LH_F("value", c->best_value)));
    }
    return 0;
}

/* How many of the newest cuts to keep: those that may still turn out best are among them. */
static size_t keep_newest(const struct lh_cuts *c, const struct lh_evaluator *evaluator)
{
    const uint64_t oldest = evaluator ? lh_evaluator_next(evaluator) : UINT64_MAX;
    size_t n = 0;
    for (size_t i = 0; i < c->record->n_cuts; i++)
        n += c->record->cuts[i].version >= oldest;
    return n > c->keep ? n : c->keep;
}

/* --- cuts --------------------------------------------------------------------------------------
 */

static int enter(struct lh_cuts *c, uint64_t version, uint32_t servers,
                 const struct lh_evaluator *evaluator)
{
    LH_TRY(lh_run_record_add_cut(c->record, version, servers));
    LH_TRY(settle(c));
    lh_run_record_retain(c->record, keep_newest(c, evaluator));
    return lh_run_record_save(c->record, c->dir);
}

static void tell_end_of_trouble(struct lh_cuts *c, uint64_t version)
{
    if (version < c->troubled) /* an older one, of which the last server has spoken only now */
        return;
    if (c->failed_in_row > 0)
        lh_log_tell(LH_LOG_INFO, "checkpoint_again",
                    LH_FIELDS(LH_F("step", version), LH_F("failed", c->failed_in_row)),
                    "step %llu is a checkpoint: they succeed again, after %llu that failed",
                    (unsigned long long)version, (unsigned long long)c->failed_in_row);
    c->failed_in_row = 0;
    c->trouble.code = 0;
}

int lh_cuts_complete(struct lh_cuts *c, uint64_t version, uint32_t servers,
                     const struct lh_evaluator *evaluator)
{
    struct lh_run_record before;
    const bool had_best = c->has_best;
    const double best_value = c->best_value;
    LH_TRY(lh_run_record_copy(&before, c->record));
    int rc = enter(c, version, servers, evaluator);
    if (rc < 0) {
        lh_run_record_fini(c->record);
        *c->record = before;
        c->has_best = had_best;
        c->best_value = best_value;
        c->unsure = version;
        return rc;
    }
    lh_run_record_fini(&before);
    if (c->has_verdict && lh_run_record_cut(c->record, c->verdict_version))
        forget_verdict(c);
    c->unsaved = false;
    c->unsure = 0;
    c->decided = version;
    c->completed++;
    c->completed_at = lh_now();
    lh_log_event(LH_LOG_INFO, "checkpoint",
                 LH_FIELDS(LH_F("step", version), LH_F("servers", servers)));
    tell_end_of_trouble(c, version);
    return 0;
}

/* "the last is that of step 40, 12 s old" */
static void describe_last(const struct lh_cuts *c, char *out, size_t size)
{
    int n = c->record->has_last ? snprintf(out, size, "the last is that of step %llu",
                                           (unsigned long long)c->record->last)
                                : snprintf(out, size, "there is none yet");
    if (c->completed > 0)
        snprintf(out + n, size - (size_t)n, ", %.0f s old", lh_now() - c->completed_at);
}

void lh_cuts_trouble(struct lh_cuts *c, uint64_t version, const struct lh_err *why)
{
    char last[96];
    const struct lh_log_field *fields = LH_FIELDS(
        LH_F("step", version), LH_F("code", lh_err_name(why->code)), LH_F("reason", why->text));
    bool said = c->trouble.code == why->code;
    c->trouble = *why;
    c->troubled = version;
    describe_last(c, last, sizeof last);
    if (said)
        lh_log_event(LH_LOG_WARN, "checkpoint_failed", fields);
    else
        lh_log_tell(LH_LOG_WARN, "checkpoint_failed", fields,
                    "no checkpoint at step %llu: %s (%s; training goes on, the next is tried when "
                    "it is due)",
                    (unsigned long long)version, why->text, last);
}

void lh_cuts_void(struct lh_cuts *c, uint64_t version)
{
    c->decided = version;
    c->failed++;
    c->failed_in_row++;
}

bool lh_cuts_is_void(const struct lh_cuts *c, uint64_t version)
{
    return version <= c->decided && !lh_run_record_cut(c->record, version);
}

int lh_cuts_kept(const struct lh_cuts *c, uint64_t **out, size_t *n)
{
    *n = 0;
    LH_TRY(LH_NEW_ARRAY(out, c->record->n_cuts + 1, "versions to keep"));
    for (; *n < c->record->n_cuts; ++*n)
        (*out)[*n] = c->record->cuts[*n].version;
    if (c->unsure)
        (*out)[(*n)++] = c->unsure;
    return 0;
}

static void tell_verdict(const struct lh_cuts *c)
{
    const struct lh_verdict *v = &c->verdict;
    const struct lh_log_field *fields =
        LH_FIELDS(LH_F("step", c->verdict_version), LH_F("value", v->value), LH_F("lo", v->lo),
                  LH_F("hi", v->hi), LH_F("ess_share", v->ess_share), LH_F("ranked", v->eligible));
    if (c->quiet)
        lh_log_event(LH_LOG_INFO, "evaluation", fields);
    else
        lh_log_tell(LH_LOG_INFO, "evaluation", fields,
                    "step %llu: value %.4f [%.4f, %.4f], effective sample size %.1f%%%s",
                    (unsigned long long)c->verdict_version, v->value, v->lo, v->hi,
                    100 * v->ess_share, v->eligible ? "" : " (too small to rank)");
}

/* A verdict in hand: it enters the record of its cut, which may well be saved later, with the next
 * cut or at the end. */
static int take_verdict(struct lh_cuts *c)
{
    if (!c->has_verdict)
        return 0;
    if (lh_cuts_is_void(c, c->verdict_version)) {
        LH_TRY(append(c));
        forget_verdict(c);
        return 0;
    }
    if (!lh_run_record_cut(c->record, c->verdict_version))
        return 0;
    LH_TRY(settle(c));
    forget_verdict(c);
    if (c->unsaved)
        return 0;
    c->unsaved = lh_run_record_save(c->record, c->dir) < 0;
    if (c->unsaved)
        lh_log_event(LH_LOG_WARN, "disk_error", LH_FIELDS(LH_F("reason", lh_err_text())));
    return 0;
}

int lh_cuts_judge(struct lh_cuts *c, struct lh_evaluator *evaluator)
{
    struct lh_err err;
    if (!evaluator || c->has_verdict ||
        !lh_evaluator_poll(evaluator, &c->verdict_version, &c->verdict, &err))
        return take_verdict(c);
    if (err.code < 0) {
        lh_err_load(&err);
        return lh_err_prefix(err.code, "evaluation at step %llu",
                             (unsigned long long)c->verdict_version);
    }
    c->has_verdict = true;
    c->evaluated++;
    tell_verdict(c);
    return take_verdict(c);
}
