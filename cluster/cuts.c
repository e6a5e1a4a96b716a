/* Cuts: completeness, retention, the best. */
#include "cluster/cuts.h"

#include "cluster/step_lines.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <cjson/cJSON.h>
#include <errno.h>

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

int lh_cuts_init(struct lh_cuts *c, struct lh_run_record *record, const char *dir,
                 const struct lh_job *job, bool again, bool quiet)
{
    *c = (struct lh_cuts){.record = record,
                          .dir = dir,
                          .keep = job->checkpoint_keep,
                          .choose = job->choose,
                          .quiet = quiet};
    uint64_t last = record->has_last ? record->last : 0;
    LH_TRY(recall_best(c));
    LH_TRY(lh_mem_printf(&c->evaluations_path, "%s/evaluations.jsonl", dir));
    return lh_step_lines_open(&c->evaluations, c->evaluations_path,
                              again && last ? last - 1 : last);
}

void lh_cuts_fini(struct lh_cuts *c)
{
    lh_mem_free(c->verdict.json);
    c->verdict.json = NULL;
    lh_mem_free(c->evaluations_path);
    c->evaluations_path = NULL;
    if (c->evaluations)
        fclose(c->evaluations); /* every line was flushed */
    c->evaluations = NULL;
}

/* Before the record has it: a line whose verdict is lost is dropped on resuming, and comes again.
 */
static int append(struct lh_cuts *c)
{
    if (fprintf(c->evaluations, "{\"step\": %llu, \"evaluation\": %s}\n",
                (unsigned long long)c->verdict_version, c->verdict.json) < 0 ||
        fflush(c->evaluations) != 0)
        return lh_err_errno(errno, "%s", c->evaluations_path);
    return 0;
}

/* Puts a verdict into the record once its cut is there. */
static int settle(struct lh_cuts *c)
{
    struct lh_run_record *r = c->record;
    if (!c->has_verdict || !lh_run_record_cut(r, c->verdict_version))
        return 0;
    c->has_verdict = false;
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
    lh_mem_free(c->verdict.json);
    c->verdict.json = NULL;
    return lh_run_record_save(r, c->dir);
}

/* How many of the newest cuts to keep: those that may still turn out best are among them. */
static size_t keep_newest(const struct lh_cuts *c, const struct lh_evaluator *evaluator)
{
    uint64_t oldest = c->has_verdict ? c->verdict_version : UINT64_MAX;
    if (evaluator && lh_evaluator_next(evaluator) < oldest)
        oldest = lh_evaluator_next(evaluator);
    size_t n = 0;
    for (size_t i = 0; i < c->record->n_cuts; i++)
        n += c->record->cuts[i].version >= oldest;
    return n > c->keep ? n : c->keep;
}

int lh_cuts_complete(struct lh_cuts *c, uint64_t version, uint32_t servers,
                     const struct lh_evaluator *evaluator)
{
    LH_TRY(lh_run_record_add_cut(c->record, version, servers));
    LH_TRY(settle(c));
    lh_run_record_retain(c->record, keep_newest(c, evaluator));
    LH_TRY(lh_run_record_save(c->record, c->dir));
    c->completed++;
    lh_log_event(LH_LOG_INFO, "checkpoint",
                 LH_FIELDS(LH_F("step", version), LH_F("servers", servers)));
    c->completed_at = lh_now();
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

int lh_cuts_judge(struct lh_cuts *c, struct lh_evaluator *evaluator)
{
    struct lh_err err;
    if (!evaluator || c->has_verdict ||
        !lh_evaluator_poll(evaluator, &c->verdict_version, &c->verdict, &err))
        return settle(c);
    if (err.code < 0) {
        lh_err_load(&err);
        return lh_err_prefix(err.code, "evaluation at step %llu",
                             (unsigned long long)c->verdict_version);
    }
    c->has_verdict = true;
    c->evaluated++;
    tell_verdict(c);
    return settle(c);
}
