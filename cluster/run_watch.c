/* Looking at a run from outside. Whether somebody works there is the kernel's word: the lock of the
 * directory, which ends with its holder however that dies. */
#include "cluster/run_watch.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/term.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define SILENT_AFTER 10.0 /* seconds; it is written every second */

const char *const lh_run_going_names[LH_GOING_N] = {[LH_GOING_PREPARING] = "preparing",
                                                    [LH_GOING_GATHERING] = "gathering",
                                                    [LH_GOING_TRAINING] = "training",
                                                    [LH_GOING_ENDING] = "ending",
                                                    [LH_GOING_SILENT] = "silent",
                                                    [LH_GOING_STOPPED] = "stopped",
                                                    [LH_GOING_FINISHED] = "finished",
                                                    [LH_GOING_FAILED] = "failed",
                                                    [LH_GOING_DIED] = "died"};

void lh_run_watch_fini(struct lh_run_watch *w)
{
    lh_run_record_fini(&w->record);
    lh_status_fini(&w->status);
    *w = (struct lh_run_watch){0};
}

/* --- looking -----------------------------------------------------------------------------------
 */
/* Taking the lock for a moment is the one way to ask that holds across hosts and containers;
 * whoever wants it meanwhile waits that moment (train.c). */
static int look_at_lock(const char *dir, bool *held)
{
    char *path = NULL;
    LH_TRY(lh_mem_printf(&path, "%s/.lock", dir));
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    *held = false;
    if (fd >= 0) {
        *held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        close(fd);
    } else if (errno != ENOENT && errno != ENOTDIR) {
        rc = lh_err_errno(errno, "%s", path);
    }
    lh_mem_free(path);
    return rc;
}

static int look_at_status(struct lh_run_watch *w, const char *dir)
{
    char *path = NULL;
    struct timespec now;
    LH_TRY(lh_mem_printf(&path, "%s/status.json", dir));
    int rc = lh_status_load(&w->status, path);
    lh_mem_free(path);
    w->has_status = rc == 0;
    clock_gettime(CLOCK_REALTIME, &now);
    w->age = rc == 0 ? (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - w->status.written : NAN;
    return rc == LH_ENOENT ? 0 : rc;
}

static int look_at_record(struct lh_run_watch *w, const char *dir)
{
    int rc = lh_run_record_load(&w->record, dir);
    w->has_record = rc == 0;
    return rc == LH_ENOENT && w->lives ? 0 : rc;
}

/* --- judging -----------------------------------------------------------------------------------
 */
__attribute__((format(printf, 3, 4))) static void judge(struct lh_run_watch *w,
                                                        enum lh_run_going going, const char *fmt,
                                                        ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->detail, sizeof w->detail, fmt, ap);
    va_end(ap);
    w->going = going;
}

static void judge_living(struct lh_run_watch *w)
{
    const struct lh_status *s = &w->status;
    size_t workers = 0, servers = 0;
    if (w->has_record && w->record.state == LH_RUN_FINISHED) {
        judge(w, LH_GOING_FINISHED, "its best checkpoint is being valued on the test split");
        return;
    }
    if (!w->has_record || !w->has_status || w->record.state != LH_RUN_RUNNING) {
        judge(w, LH_GOING_PREPARING, "no scheduler listens yet");
        return;
    }
    if (w->age > SILENT_AFTER) {
        judge(w, LH_GOING_SILENT,
              "process %" PRIu64 " on %s has not said how it stands for %.0f s: it is stopped, "
              "starved, or cannot write there",
              s->pid, s->host, w->age);
        return;
    }
    for (size_t i = 0; i < s->n_roles; i++)
        if (strcmp(s->roles[i].standing, "ready") == 0)
            ++*(s->roles[i].server ? &servers : &workers);
    if (strcmp(s->stage, "gathering") == 0)
        judge(w, LH_GOING_GATHERING, "%zu of %u servers and %zu of %u workers are there", servers,
              s->wanted_servers, workers, s->wanted_workers);
    else if (strcmp(s->stage, "running") == 0)
        judge(w, LH_GOING_TRAINING, "%s", "");
    else
        judge(w, LH_GOING_ENDING, "%s", s->stage);
}

static void judge_dead(struct lh_run_watch *w)
{
    const struct lh_run_record *r = &w->record;
    switch (r->state) {
    case LH_RUN_FINISHED:
        judge(w, LH_GOING_FINISHED, "%s", "");
        return;
    case LH_RUN_STOPPED:
        judge(w, LH_GOING_STOPPED, "at step %" PRIu64 " of %" PRIu64 "; go on with --resume",
              r->has_last ? r->last : 0, r->steps_total);
        return;
    case LH_RUN_FAILED:
        judge(w, LH_GOING_FAILED, "%s", r->error ? r->error : "without a reason");
        return;
    case LH_RUN_RUNNING:
    case LH_RUN_STATES:
        break;
    }
    char step[64] = "no checkpoint was complete";
    if (r->has_last)
        snprintf(step, sizeof step, "the last checkpoint is of step %" PRIu64, r->last);
    judge(w, LH_GOING_DIED, "it was killed, and nobody works there; %s; go on with --resume", step);
}

int lh_run_watch_look(struct lh_run_watch *out, const char *dir)
{
    struct lh_run_watch w = {.age = NAN};
    int rc;
    LH_TRY_TO(fail, look_at_lock(dir, &w.lives));
    LH_TRY_TO(fail, look_at_record(&w, dir));
    LH_TRY_TO(fail, look_at_status(&w, dir));
    if (w.lives)
        judge_living(&w);
    else
        judge_dead(&w);
    *out = w;
    return 0;
fail:
    lh_run_watch_fini(&w);
    return rc;
}

/* --- telling people ----------------------------------------------------------------------------
 */
static void print_span(char *out, size_t size, double seconds)
{
    if (!isfinite(seconds))
        snprintf(out, size, "?");
    else if (seconds < 99.5)
        snprintf(out, size, "%.0f s", seconds < 0 ? 0 : seconds);
    else
        lh_term_clock(out, size, seconds);
}

static void print_progress(const struct lh_status *s, bool lives, FILE *to)
{
    char rate[32], left[48];
    fprintf(to, "step %" PRIu64 " of %" PRIu64 " (%.0f%%)", s->step, s->total,
            s->total ? 100.0 * (double)s->step / (double)s->total : 0);
    if (s->until != s->total)
        fprintf(to, ", stops at %" PRIu64, s->until);
    if (isfinite(s->rate) && (lives || s->rate > 0)) {
        lh_term_count(rate, sizeof rate, s->rate);
        fprintf(to, "  %s transitions/s", rate);
    }
    if (lives && isfinite(s->eta)) {
        lh_term_clock(left, sizeof left, s->eta);
        fprintf(to, "  ETA %s", left);
    }
    fputc('\n', to);
}

static void print_losses(const struct lh_status *s, FILE *to)
{
    bool any = false;
    for (size_t i = 0; i < s->n_losses; i++) {
        if (!isfinite(s->losses[i].value))
            continue;
        fprintf(to, "%s%s %.4g", any ? "  " : "losses   ", s->losses[i].name, s->losses[i].value);
        any = true;
    }
    if (any)
        fputc('\n', to);
}

static void print_cuts(const struct lh_run_watch *w, FILE *to)
{
    const struct lh_status *s = &w->status;
    char ago[32];
    if (w->has_record && w->record.has_last) {
        fprintf(to, "checkpoint  step %" PRIu64, w->record.last);
        if (w->has_status && isfinite(s->cut_at) && s->cut == w->record.last) {
            print_span(ago, sizeof ago, s->written - s->cut_at + (isfinite(w->age) ? w->age : 0));
            fprintf(to, ", %s ago", ago);
        }
        fputc('\n', to);
    }
    if (w->has_status && w->lives && *s->trouble)
        fprintf(to, "trouble  checkpoints fail (%" PRIu64 " in a row): %s\n", s->failed_cuts,
                s->trouble);
    if (w->has_status && s->has_evaluation)
        fprintf(to, "value    %.4f [%.4f, %.4f], effective sample size %.1f%%\n", s->value, s->lo,
                s->hi, 100 * s->ess_share);
    if (w->has_record && w->record.has_best) {
        fprintf(to, "best     step %" PRIu64, w->record.best);
        if (w->has_status && s->has_best && s->best == w->record.best)
            fprintf(to, ", value %.4f", s->best_value);
        fputc('\n', to);
    }
}

static const struct lh_status_role *role_of(const struct lh_run_watch *w, uint32_t node)
{
    for (size_t i = 0; w && w->has_status && i < w->status.n_roles; i++)
        if (w->status.roles[i].node == node)
            return &w->status.roles[i];
    return NULL;
}

/* "backward 41% forward 20% wait 12% …": the largest first. */
static void print_phases(char *out, size_t size, const struct lh_status_role *r,
                         const struct lh_status_role *before)
{
    double spent[LH_PHASE_N], sum = 0;
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < LH_PHASE_N; i++) {
        spent[i] = r->phases[i] - (before ? before->phases[i] : 0);
        spent[i] = spent[i] > 0 ? spent[i] : 0;
        sum += spent[i];
    }
    while (sum > 0 && used < size) {
        size_t most = 0;
        for (size_t i = 1; i < LH_PHASE_N; i++)
            if (spent[i] > spent[most])
                most = i;
        if (spent[most] < 0.02 * sum)
            return;
        used += (size_t)snprintf(out + used, size - used, "%s%s %.0f%%", used ? " " : "",
                                 lh_metrics_phase_name(most), 100 * spent[most] / sum);
        spent[most] = 0;
    }
}

static int print_bytes(struct lh_table *t, double bytes)
{
    char text[32];
    lh_term_count(text, sizeof text, bytes);
    return lh_table_cell(t, "%sB", text);
}

/* How many earlier steps the weights lacked that gradients were computed on: mean and most. */
static int print_staleness(struct lh_table *t, const struct lh_status_role *r)
{
    if (!r->server || r->steps == 0)
        return lh_table_cell(t, "-");
    return lh_table_cell(t, "%.1f, %" PRIu64, (double)r->lacked / (double)r->steps, r->lacked_most);
}

static int add_role(struct lh_table *t, const struct lh_run_watch *w,
                    const struct lh_run_watch *before, const struct lh_status_role *r)
{
    char phases[160];
    const struct lh_status_role *then = role_of(before, r->node);
    double seconds = before && then ? w->status.written - before->status.written : 0;
    uint64_t moved = r->bytes_in + r->bytes_out - (then ? then->bytes_in + then->bytes_out : 0);
    if (seconds > 0)
        print_phases(phases, sizeof phases, r, then);
    if (seconds <= 0 || !*phases)
        print_phases(phases, sizeof phases, r, NULL);
    LH_TRY(lh_table_cell(t, "%u", r->node));
    if (r->server)
        LH_TRY(lh_table_cell(t, "server %u", r->shard));
    else
        LH_TRY(lh_table_cell(t, "worker"));
    LH_TRY(lh_table_cell(t, "%" PRIu64 " %s", r->pid, r->host));
    LH_TRY(lh_table_cell(t, "%s", r->standing));
    LH_TRY(lh_table_cell(t, "%" PRIu64, r->version));
    LH_TRY(print_staleness(t, r));
    LH_TRY(lh_table_cell(t, "%.1f", r->silent));
    LH_TRY(print_bytes(t, (double)r->memory));
    LH_TRY(print_bytes(t, seconds > 0 ? (double)moved / seconds : (double)moved));
    LH_TRY(lh_table_cell(t, "%" PRIu64, r->dropped));
    return lh_table_cell(t, "%s", phases);
}

static int print_roles(const struct lh_run_watch *w, const struct lh_run_watch *before, FILE *to)
{
    const char *const headers[] = {"node",    "role",   "process",
                                   "state",   "step",   "stale",
                                   "heard s", "memory", before ? "bytes/s" : "bytes",
                                   "dropped", "time"};
    struct lh_table *t = NULL;
    int rc;
    if (w->status.n_roles == 0)
        return 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t i = 0; i < w->status.n_roles; i++)
        LH_TRY_TO(done, add_role(t, w, before, &w->status.roles[i]));
    lh_table_print(t, to);
    rc = 0;
done:
    lh_table_destroy(&t);
    return rc;
}

int lh_run_watch_print(const struct lh_run_watch *w, const struct lh_run_watch *before,
                       const char *dir, FILE *to)
{
    const struct lh_status *s = &w->status;
    fprintf(to, "%s: %s%s%s\n", dir, lh_run_going_names[w->going], *w->detail ? ": " : "",
            w->detail);
    if (w->has_status) {
        fprintf(to, "job      %s (%s), scheduler %" PRIu64 " on %s%s%s\n", s->job, s->algorithm,
                s->pid, s->host, *s->metrics ? ", metrics at http://" : "", s->metrics);
        print_progress(s, w->lives, to);
        print_losses(s, to);
    }
    print_cuts(w, to);
    return w->has_status && w->lives ? print_roles(w, before, to) : 0;
}

/* --- telling programs --------------------------------------------------------------------------
 */
static cJSON *number_or_null(bool known, double x)
{
    return known && isfinite(x) ? cJSON_CreateNumber(x) : cJSON_CreateNull();
}

static cJSON *record_json(const struct lh_run_record *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "state", lh_run_state_names[r->state]);
    cJSON_AddNumberToObject(o, "steps_total", (double)r->steps_total);
    cJSON_AddNumberToObject(o, "servers", r->servers);
    cJSON_AddNumberToObject(o, "cuts", (double)r->n_cuts);
    cJSON_AddItemToObject(o, "last", number_or_null(r->has_last, (double)r->last));
    cJSON_AddItemToObject(o, "best", number_or_null(r->has_best, (double)r->best));
    cJSON_AddItemToObject(o, "error", r->error ? cJSON_CreateString(r->error) : cJSON_CreateNull());
    return o;
}

int lh_run_watch_json(const struct lh_run_watch *w, const char *dir, char **out)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "dir", dir);
    cJSON_AddStringToObject(o, "state", lh_run_going_names[w->going]);
    cJSON_AddBoolToObject(o, "lives", w->lives);
    cJSON_AddStringToObject(o, "detail", w->detail);
    cJSON_AddItemToObject(o, "age", number_or_null(w->has_status, w->age));
    cJSON_AddItemToObject(o, "run", w->has_record ? record_json(&w->record) : cJSON_CreateNull());
    cJSON_AddItemToObject(o, "status",
                          w->has_status ? lh_status_json(&w->status) : cJSON_CreateNull());
    char *text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "%s: no memory to print its status", dir);
    int rc = lh_mem_strdup(out, text);
    cJSON_free(text);
    return rc;
}
