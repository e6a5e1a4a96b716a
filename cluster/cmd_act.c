/* `longhaul act`: raw states in, actions out, by a snapshot's policy. States are gathered into
 * batches as long as more input is waiting; when none is, what was gathered is answered and
 * flushed, so that a partner on a pipe gets its answers line by line. */
#include "cluster/act_write.h"
#include "cluster/cli.h"
#include "cluster/items.h"
#include "cluster/lines.h"
#include "cluster/state_read.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/snapshot.h"
#include "common/term.h"
#include "common/userlog.h"
#include "worker/policy.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define BATCH     1024 /* states */
#define BAD_SHOWN 10   /* bad lines told one by one under --on-error skip */

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_act = {
    .name = "act",
    .summary = "let a snapshot's policy answer raw states with actions",
    .usage = "--snapshot DIR [FILE...] [options]",
    .description =
        "Reads raw states, one a line, from the files or from standard input, and writes an action "
        "for each, by ResAct's Algorithm 2 or what the snapshot's algorithm is. Normalisation "
        "travels inside the snapshot: states and actions are in the log's own units.\n"
        "\n"
        "CSV input may begin with a header line. Then columns are found by the names of the "
        "snapshot's features, in any order, and others are ignored. Without a header the numbers "
        "of "
        "the session-level state come first, then those of the request-level state. A JSON line is "
        "an object of features by name, or {\"high\": [...], \"low\": [...]}.\n"
        "\n"
        "Answers come in the order of the states. When input comes from a pipe or a terminal they "
        "are flushed as soon as no more input is waiting.\n"
        "\n"
        "The answer to a state depends on the snapshot, the state, the seed and its place in the "
        "input, not on how the input arrives.",
    .examples =
        "longhaul act --snapshot SNAPSHOT states.csv > actions.csv\n"
        "longhaul act --snapshot SNAPSHOT --keep user_id --out-format jsonl < states.jsonl\n"
        "longhaul act --snapshot SNAPSHOT --explain --estimators 5 states.csv | head -20\n"
        "longhaul act --snapshot SNAPSHOT --items items.csv --top 10 states.csv",
    .run = run,
};

static const char *const in_formats[] = {"auto", "csv", "jsonl", NULL};
static const char *const out_formats[] = {"csv", "jsonl", "text", NULL};
static const char *const on_errors[] = {"stop", "skip", NULL};

struct options {
    const char *snapshot, *items, *separator;
    int format, out_format, on_error;
    bool explain, header;
    int64_t top, estimators, seed;
    struct lh_opt_list keep;
};

/* One batch: states gathered, their answers, and what was kept of their lines. */
struct batch {
    size_t n;
    float *high, *low, *action;
    uint64_t *ids; /* [BATCH, ids of the snapshot] */
    char *text;    /* kept strings, NUL-terminated, one after the other */
    size_t text_n, text_cap;
    size_t *kept_at; /* [BATCH, n_keep] into text */
    bool *kept_json; /* [BATCH] */
};

struct session {
    const struct options *opt;
    struct lh_snapshot *snapshot;
    struct lh_policy *policy;
    struct lh_items *items;
    struct lh_state_reader *reader;
    struct lh_act_writer writer;
    struct batch batch;
    struct lh_explain explain; /* [BATCH, N, …] */
    struct lh_item_score *scores;
    const char **kept;   /* [n_keep], then ids */
    const char **passed; /* the names of these columns */
    bool begun;          /* the header is written */
    uint64_t first;      /* number of the batch's first state */
    uint64_t bad;
};

/* --- answering ----------------------------------------------------------------------------- */

static void forget_explanations(struct session *s)
{
    size_t n = s->batch.n * s->writer.estimators;
    for (size_t i = 0; i < n * s->writer.width; i++)
        s->explain.reconstructed[i] = s->explain.residual[i] = s->explain.candidates[i] = NAN;
    for (size_t i = 0; i < n; i++)
        s->explain.q[i] = NAN;
}

static void write_answer(struct session *s, size_t i)
{
    const struct batch *b = &s->batch;
    size_t width = s->writer.width, e = i * s->writer.estimators;
    struct lh_explain explain = {0};
    struct lh_act_answer a = {.action = b->action + i * width, .kept_json = b->kept_json[i]};
    if (s->opt->explain) {
        explain = (struct lh_explain){.reconstructed = s->explain.reconstructed + e * width,
                                      .residual = s->explain.residual + e * width,
                                      .candidates = s->explain.candidates + e * width,
                                      .q = s->explain.q + e};
        a.explain = &explain;
    }
    for (size_t k = 0; k < s->opt->keep.n; k++)
        s->kept[k] = b->text + b->kept_at[i * s->opt->keep.n + k];
    a.kept = s->kept;
    if (s->items) {
        a.n_items = lh_items_rank(s->items, a.action, s->writer.top, s->scores);
        a.items = s->scores;
    }
    lh_act_write(&s->writer, s->first + i + 1, &a);
}

/* Not before something can be answered: of input that is refused at once nothing comes out. */
static void begin_output(struct session *s)
{
    if (s->opt->header && !s->begun)
        lh_act_write_header(&s->writer);
    s->begun = true;
}

static int answer(struct session *s)
{
    struct batch *b = &s->batch;
    if (b->n == 0)
        return 0;
    if (s->opt->explain)
        forget_explanations(s);
    const struct lh_states states = {
        .high = b->high, .low = b->low, .ids = s->snapshot->n_ids ? b->ids : NULL};
    LH_TRY(lh_policy_act_on(s->policy, &states, b->n, (uint64_t)s->opt->seed, s->first, b->action,
                            s->opt->explain ? &s->explain : NULL));
    begin_output(s);
    for (size_t i = 0; i < b->n; i++)
        write_answer(s, i);
    s->first += b->n;
    b->n = b->text_n = 0;
    return 0;
}

static int flush(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return lh_err_errno(errno ? errno : EIO, "standard output");
    return 0;
}

/* --- gathering ----------------------------------------------------------------------------- */

static int keep_texts(struct session *s)
{
    struct batch *b = &s->batch;
    for (size_t k = 0; k < s->opt->keep.n; k++) {
        size_t n = strlen(s->kept[k]) + 1;
        LH_TRY(LH_GROW(&b->text, &b->text_cap, b->text_n + n, "kept columns"));
        memcpy(b->text + b->text_n, s->kept[k], n);
        b->kept_at[b->n * s->opt->keep.n + k] = b->text_n;
        b->text_n += n;
    }
    return 0;
}

/* An id as the log has it; nothing, or null, is none. */
static void read_id(const char *text, bool json, uint64_t *out)
{
    cJSON *item = json ? cJSON_Parse(text) : NULL;
    if (cJSON_IsString(item))
        text = item->valuestring;
    *out = !*text || cJSON_IsNull(item) ? LH_ID_NONE : lh_userlog_id(text, strlen(text));
    cJSON_Delete(item);
}

static int take_line(struct session *s, const struct lh_lines *lines, char *line, size_t n)
{
    struct batch *b = &s->batch;
    const struct lh_dims *d = &s->snapshot->norm.dims;
    int rc = lh_state_reader_line(s->reader, lines, line, n, b->high + b->n * d->high,
                                  b->low + b->n * d->low, s->kept, &b->kept_json[b->n]);
    if (rc == LH_AGAIN)
        return 0;
    if (rc == LH_EFORMAT && s->opt->on_error == 1) {
        if (s->bad++ < BAD_SHOWN)
            lh_note("%s; skipped", lh_err_text());
        return 0;
    }
    LH_TRY(rc);
    LH_TRY(keep_texts(s));
    for (size_t k = 0; k < s->snapshot->n_ids; k++)
        read_id(s->kept[s->opt->keep.n + k], b->kept_json[b->n],
                &b->ids[b->n * s->snapshot->n_ids + k]);
    b->n++;
    return 0;
}

static int serve_lines(struct session *s, struct lh_lines *lines)
{
    char *line;
    size_t n;
    int rc;
    while ((rc = lh_lines_next(lines, &line, &n)) == 0) {
        rc = take_line(s, lines, line, n);
        if (rc < 0) {
            /* what came before the bad line is answered, then the stop is told */
            struct lh_err why;
            lh_err_save(&why, rc);
            LH_TRY(answer(s));
            return lh_err_load(&why);
        }
        bool waiting = lh_lines_ready(lines);
        if (s->batch.n == BATCH || !waiting)
            LH_TRY(answer(s));
        if (!waiting)
            LH_TRY(flush());
    }
    LH_TRY(answer(s));
    return rc == LH_NOTFOUND ? 0 : rc;
}

static int serve(struct session *s, const char *path)
{
    struct lh_lines *lines = NULL;
    LH_TRY(lh_lines_open(&lines, path));
    lh_state_reader_begin(s->reader);
    int rc = serve_lines(s, lines);
    lh_lines_close(&lines);
    return rc;
}

/* --- set-up -------------------------------------------------------------------------------- */

static int allocate(struct session *s)
{
    const struct lh_dims *d = &s->snapshot->norm.dims;
    struct batch *b = &s->batch;
    size_t keep = s->opt->keep.n, n = BATCH * s->writer.estimators;
    LH_TRY(LH_NEW_ARRAY(&b->high, BATCH * (size_t)d->high, "batch"));
    LH_TRY(LH_NEW_ARRAY(&b->low, BATCH * (size_t)d->low, "batch"));
    LH_TRY(LH_NEW_ARRAY(&b->action, BATCH * (size_t)d->action, "batch"));
    LH_TRY(LH_NEW_ARRAY(&b->kept_at, BATCH * keep, "batch"));
    LH_TRY(LH_NEW_ARRAY(&b->kept_json, BATCH, "batch"));
    LH_TRY(LH_NEW_ARRAY(&b->ids, BATCH * s->snapshot->n_ids, "batch"));
    LH_TRY(LH_NEW_ARRAY(&s->kept, keep + s->snapshot->n_ids, "batch"));
    LH_TRY(LH_NEW_ARRAY(&s->scores, s->writer.top, "ranking"));
    if (!s->opt->explain)
        return 0;
    LH_TRY(LH_NEW_ARRAY(&s->explain.reconstructed, n * d->action, "explanation"));
    LH_TRY(LH_NEW_ARRAY(&s->explain.residual, n * d->action, "explanation"));
    LH_TRY(LH_NEW_ARRAY(&s->explain.candidates, n * d->action, "explanation"));
    return LH_NEW_ARRAY(&s->explain.q, n, "explanation");
}

static int begin(struct session *s)
{
    const struct options *o = s->opt;
    LH_TRY(lh_snapshot_open(&s->snapshot, o->snapshot));
    int rc = lh_policy_from_snapshot(&s->policy, s->snapshot);
    if (rc < 0)
        return lh_err_prefix(rc, "%s", o->snapshot);
    if (o->estimators > 0)
        LH_TRY(lh_policy_set_estimators(s->policy, (size_t)o->estimators));
    const struct lh_snapshot *snap = s->snapshot;
    const struct lh_dims *d = &snap->norm.dims;
    if (o->items)
        LH_TRY(lh_items_load(&s->items, o->items, snap->action_names, d->action));
    s->writer = (struct lh_act_writer){.to = stdout,
                                       .format = (enum lh_act_format)o->out_format,
                                       .separator = o->separator[0],
                                       .width = d->action,
                                       .names = snap->action_names,
                                       .keep = o->keep.items,
                                       .n_keep = o->keep.n,
                                       .top = o->items ? (size_t)o->top : 0,
                                       .estimators = lh_policy_estimators(s->policy)};
    const struct lh_row_source rows = lh_snapshot_rows(snap);
    LH_TRY(lh_policy_attach(s->policy, &rows, snap->id_names, snap->n_ids));
    LH_TRY(LH_NEW_ARRAY(&s->passed, o->keep.n + snap->n_ids, "columns"));
    for (size_t k = 0; k < o->keep.n + snap->n_ids; k++)
        s->passed[k] = k < o->keep.n ? o->keep.items[k] : snap->id_names[k - o->keep.n];
    const struct lh_state_spec spec = {.dims = *d,
                                       .high_names = snap->high_names,
                                       .low_names = snap->low_names,
                                       .format = (enum lh_state_format)o->format,
                                       .separator = o->separator[0],
                                       .keep = s->passed,
                                       .n_keep = o->keep.n + snap->n_ids,
                                       .n_ids = snap->n_ids};
    LH_TRY(lh_state_reader_create(&s->reader, &spec));
    return allocate(s);
}

static void end(struct session *s)
{
    lh_state_reader_destroy(&s->reader);
    lh_items_destroy(&s->items);
    lh_policy_destroy(&s->policy);
    lh_snapshot_close(&s->snapshot);
    lh_mem_free(s->batch.high);
    lh_mem_free(s->batch.low);
    lh_mem_free(s->batch.action);
    lh_mem_free(s->batch.text);
    lh_mem_free(s->batch.kept_at);
    lh_mem_free(s->batch.kept_json);
    lh_mem_free(s->batch.ids);
    lh_mem_free(s->passed);
    lh_mem_free(s->kept);
    lh_mem_free(s->scores);
    lh_mem_free(s->explain.reconstructed);
    lh_mem_free(s->explain.residual);
    lh_mem_free(s->explain.candidates);
    lh_mem_free(s->explain.q);
}

static int act(const struct options *o, const char *const *files, size_t n_files)
{
    struct session s = {.opt = o};
    int rc;
    /* a partner that has read enough ('| head') is no failure: the process ends as cat would */
    signal(SIGPIPE, SIG_DFL);
    LH_TRY_TO(done, begin(&s));
    for (size_t i = 0; i < n_files; i++)
        LH_TRY_TO(done, serve(&s, files[i]));
    begin_output(&s); /* also where there was no state at all */
    if (s.bad > 0)
        lh_note("%llu bad line%s skipped, %llu state%s answered", (unsigned long long)s.bad,
                s.bad == 1 ? " was" : "s were", (unsigned long long)s.first,
                s.first == 1 ? "" : "s");
done:
    end(&s);
    return rc;
}

static int check(struct options *o)
{
    if (!o->snapshot)
        return lh_err_set(LH_EUSAGE, "act: --snapshot DIR is needed");
    if (strcmp(o->separator, "\\t") == 0 || strcmp(o->separator, "tab") == 0)
        o->separator = "\t";
    if (strlen(o->separator) != 1 || strchr("\"\n\r", o->separator[0]))
        return lh_err_set(LH_EUSAGE, "act: --separator %s: expected one character, or tab",
                          o->separator);
    if (o->out_format < 0)
        o->out_format = o->explain ? LH_ACT_TEXT : LH_ACT_CSV;
    if (o->explain && o->out_format == LH_ACT_CSV)
        return lh_err_set(LH_EUSAGE, "act: an explanation does not fit into a CSV row; use "
                                     "--out-format text or jsonl");
    return 0;
}

static int run(int argc, char **argv)
{
    struct options o = {.out_format = -1, .header = true, .top = 10, .separator = ","};
    const struct lh_opt opts[] = {
        {.name = "snapshot",
         .letter = 's',
         .kind = LH_OPT_STRING,
         .value = &o.snapshot,
         .metavar = "DIR",
         .help = "The snapshot to act by, as 'longhaul export' wrote it. Its checksums and its "
                 "recorded answers are verified first."},
        {.name = "format",
         .kind = LH_OPT_CHOICE,
         .value = &o.format,
         .choices = in_formats,
         .help = "Form of the input. auto: JSON lines if the first character is '{', else CSV."},
        {.name = "out-format",
         .kind = LH_OPT_CHOICE,
         .value = &o.out_format,
         .choices = out_formats,
         .help = "Form of the output: csv, or text with --explain, unless said otherwise."},
        {.name = "separator",
         .kind = LH_OPT_STRING,
         .value = &o.separator,
         .metavar = "C",
         .help = "Separator of CSV, in and out: one character, or tab."},
        {.name = "header",
         .kind = LH_OPT_FLAG,
         .value = &o.header,
         .help = "Begin CSV output with a line of names."},
        {.name = "keep",
         .kind = LH_OPT_LIST,
         .value = &o.keep,
         .metavar = "COLUMN",
         .help = "Pass this column (or JSON key) of the input through to the output."},
        {.name = "explain",
         .kind = LH_OPT_FLAG,
         .value = &o.explain,
         .help = "Show what stands behind each choice: every estimator's reconstructed action, "
                 "residual and Q value, and which was chosen."},
        {.name = "items",
         .kind = LH_OPT_STRING,
         .value = &o.items,
         .metavar = "FILE",
         .help = "Rank the items of this CSV file (an id, then an embedding of the action's "
                 "width) by inner product with the action."},
        {.name = "top",
         .letter = 'k',
         .kind = LH_OPT_INT,
         .value = &o.top,
         .metavar = "K",
         .min = 1,
         .max = 100000,
         .help = "How many items to name with --items."},
        {.name = "estimators",
         .letter = 'n',
         .kind = LH_OPT_INT,
         .value = &o.estimators,
         .metavar = "N",
         .min = 0,
         .max = LH_POLICY_ESTIMATORS_MAX,
         .help = "Candidate actions per state; 0: as many as the snapshot was trained with."},
        {.name = "seed",
         .kind = LH_OPT_INT,
         .value = &o.seed,
         .metavar = "S",
         .min = 0,
         .max = INT64_MAX,
         .help = "Of the candidates' noise; the same seed gives the same actions."},
        {.name = "on-error",
         .kind = LH_OPT_CHOICE,
         .value = &o.on_error,
         .choices = on_errors,
         .help = "What to do about a bad line: stop at it, or skip it, tell, and count."},
    };
    enum { N_OPTS = sizeof opts / sizeof *opts };
    const char **files = NULL;
    size_t n = 0;
    LH_TRY(LH_NEW_ARRAY(&files, (size_t)argc + 1, "files"));
    int rc = lh_cli_parse(&lh_cmd_act, opts, N_OPTS, argc, argv, files, 0, (size_t)argc, &n);
    if (rc == 0) {
        if (n == 0)
            files[n++] = "-";
        rc = check(&o);
        if (rc == 0)
            rc = act(&o, files, n);
        lh_cli_fini(opts, N_OPTS);
    }
    lh_mem_free(files);
    return rc;
}
