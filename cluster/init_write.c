/* The proposal in YAML. What was guessed is marked "check:", what could not be is left as a comment
 * that says what to write. */
#include "cluster/init_write.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/yaml.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NONE SIZE_MAX

/* --- names --------------------------------------------------------------------------------- */

static bool taken(const struct lh_init *in, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(in->names[i], name) == 0)
            return true;
    return false;
}

static int name_column(struct lh_init *in, size_t i)
{
    char word[128];
    size_t n = 0;
    for (const char *s = in->probe->columns[i].name; *s && n < sizeof word - 24; s++)
        word[n++] = isalnum((unsigned char)*s) || *s == '_' ? *s : '_';
    word[n] = '\0';
    const bool reserved = strcmp(word, "reward") == 0 || strcmp(word, "order") == 0 ||
                          strcmp(word, "item_vector") == 0;
    if (n == 0 || isdigit((unsigned char)word[0]) || reserved) {
        memmove(word + 2, word, n + 1);
        memcpy(word, "c_", 2);
        n += 2;
    }
    for (size_t k = 2; taken(in, i, word); k++)
        snprintf(word + n, sizeof word - n, "_%zu", k);
    return lh_mem_strdup(&in->names[i], word);
}

int lh_init_names(struct lh_init *in)
{
    LH_TRY(LH_NEW_ARRAY(&in->names, in->probe->n_columns, "names"));
    for (size_t i = 0; i < in->probe->n_columns; i++)
        LH_TRY(name_column(in, i));
    return 0;
}

void lh_init_fini(struct lh_init *in)
{
    for (size_t i = 0; in->names && i < in->probe->n_columns; i++)
        lh_mem_free(in->names[i]);
    lh_mem_free(in->names);
    in->names = NULL;
}

static const struct lh_probe_column *column(const struct lh_init *in, size_t i)
{
    return &in->probe->columns[i];
}

static bool renamed(const struct lh_init *in, size_t i)
{
    return strcmp(in->names[i], column(in, i)->name) != 0;
}

/* How many columns from i on are x_k, x_k+1, …: same role, same stem, numbers in order. */
static size_t run_of(const struct lh_init *in, size_t i)
{
    const char *first = in->names[i];
    size_t stem = strlen(first);
    while (stem > 0 && isdigit((unsigned char)first[stem - 1]))
        stem--;
    if (!first[stem] || (first[stem] == '0' && first[stem + 1]))
        return 1;
    unsigned long number = strtoul(first + stem, NULL, 10);
    size_t n = 1;
    for (; i + n < in->probe->n_columns; n++) {
        char next[160];
        snprintf(next, sizeof next, "%.*s%lu", (int)stem, first, number + n);
        if (in->guess->role[i + n] != in->guess->role[i] || strcmp(in->names[i + n], next) != 0 ||
            renamed(in, i + n))
            break;
    }
    return renamed(in, i) ? 1 : n;
}

static bool has_sessions(const struct lh_init *in)
{
    return in->guess->session != NONE || in->guess->time != NONE;
}

/* Where the reward comes from, best first. */
enum source { FROM_REWARD, FROM_RATING, FROM_FEEDBACK, FROM_EVENT, FROM_SESSIONS, FROM_NOTHING };

static enum source reward_source(const struct lh_init *in)
{
    const struct lh_log_guess *g = in->guess;
    if (g->reward != NONE)
        return FROM_REWARD;
    if (g->rating != NONE)
        return FROM_RATING;
    if (g->feedbacks > 0)
        return FROM_FEEDBACK;
    if (g->event != NONE)
        return FROM_EVENT;
    return g->time != NONE ? FROM_SESSIONS : FROM_NOTHING;
}

const char *lh_init_undecided(const struct lh_init *in, size_t k)
{
    const struct lh_log_guess *g = in->guess;
    const struct {
        bool open;
        const char *what;
    } all[] = {{g->user == NONE, "no column looks like a user; name it under trajectory:"},
               {g->actions == 0 && g->item == NONE,
                "no column looks like an item or an action; say under action: what was chosen"},
               {reward_source(in) == FROM_NOTHING,
                "no column looks like a reward, and there is no time; say under reward: what is "
                "good"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].open && k-- == 0)
            return all[i].what;
    return NULL;
}

/* --- the schema ---------------------------------------------------------------------------- */

static void write_input(const struct lh_init *in, FILE *to)
{
    const struct lh_log_probe *p = in->probe;
    bool missing = false;
    fputs("input:\n  files: [", to);
    for (size_t i = 0; i < in->n_files; i++) {
        fputs(i ? ", " : "", to);
        lh_yaml_write_text(to, in->files[i]);
    }
    fputs("]\n", to);
    for (size_t i = 0; i < p->n_columns; i++)
        missing = missing || column(in, i)->missing > 0;
    if (p->jsonl) {
        fputs("  format: jsonl\n", to);
    } else {
        fputs("  separator: ", to);
        if (p->csv.separator[0] == '\t')
            fputs("tab", to);
        else
            fprintf(to, "'%.*s'", (int)p->csv.separator_bytes, p->csv.separator);
        fputc('\n', to);
        if (!p->header) {
            fputs("  columns: [", to); /* no header line: names in order */
            for (size_t i = 0; i < p->n_columns; i++)
                fprintf(to, "%s%s", i ? ", " : "", in->names[i]);
            fputs("]   # check: names of your own\n", to);
        }
    }
    if (missing)
        fputs("  missing: ['', NA, N/A, nan, NaN, 'null', 'NULL', None, '\\N']\n", to);
}

static int by_value(const void *a, const void *b)
{
    const char *x = ((const struct lh_probe_value *)a)->text;
    const char *y = ((const struct lh_probe_value *)b)->text;
    char *end_x, *end_y;
    double u = strtod(x, &end_x), v = strtod(y, &end_y);
    if (!*end_x && !*end_y && u != v)
        return u < v ? -1 : 1;
    return strcmp(x, y);
}

static void write_values(const struct lh_probe_column *c, FILE *to)
{
    struct lh_probe_value sorted[LH_PROBE_VALUES];
    memcpy(sorted, c->values, c->n_values * sizeof *sorted);
    qsort(sorted, c->n_values, sizeof *sorted, by_value);
    fputs("values: [", to);
    for (size_t i = 0; i < c->n_values; i++) {
        fputs(i ? ", " : "", to);
        lh_yaml_write_text(to, sorted[i].text);
    }
    fputc(']', to);
}

/* "  name: TYPE", with what else the declaration needs. */
static void write_type(const struct lh_init *in, size_t i, const char *type, const char *more,
                       FILE *to)
{
    fprintf(to, "  %s: ", in->names[i]);
    if (!renamed(in, i) && !*more) {
        fputs(type, to);
        return;
    }
    fprintf(to, "{type: %s", type);
    if (renamed(in, i)) {
        fputs(", from: ", to);
        lh_yaml_write_text(to, column(in, i)->name);
    }
    fprintf(to, "%s}", more);
}

static void write_category(const struct lh_init *in, size_t i, FILE *to)
{
    fprintf(to, "  %s: {type: category, ", in->names[i]);
    if (renamed(in, i)) {
        fputs("from: ", to);
        lh_yaml_write_text(to, column(in, i)->name);
        fputs(", ", to);
    }
    write_values(column(in, i), to);
    fputs(", unknown: other, missing: other}", to);
}

static void write_declared(const struct lh_init *in, size_t i, size_t run, FILE *to)
{
    const struct lh_probe_column *c = column(in, i);
    char unit[32];
    bool gaps = c->missing > 0;
    switch (in->guess->role[i]) {
    case LH_ROLE_USER:
    case LH_ROLE_SESSION:
    case LH_ROLE_ITEM:
        write_type(in, i, "id", gaps ? ", missing: drop" : "", to);
        break;
    case LH_ROLE_TIME:
        snprintf(unit, sizeof unit, ", unit: %s%s", lh_time_unit_names[in->guess->unit],
                 gaps ? ", missing: drop" : "");
        write_type(in, i, "time", unit, to);
        break;
    case LH_ROLE_EVENT:
    case LH_ROLE_CONTEXT:
        write_category(in, i, to);
        break;
    case LH_ROLE_STATE:
    case LH_ROLE_ACTION:
        if (run > 1)
            fprintf(to, "  %s_all: {type: number, range: %s..%s%s}", in->names[i], in->names[i],
                    in->names[i + run - 1], gaps ? ", missing: 0" : "");
        else
            write_type(in, i, "number", gaps ? ", missing: 0" : "", to);
        break;
    default:
        write_type(in, i, "number", gaps ? ", missing: 0" : "", to);
    }
}

static const char *const role_texts[LH_ROLES] = {
    [LH_ROLE_USER] = "who",
    [LH_ROLE_SESSION] = "which visit",
    [LH_ROLE_TIME] = "when",
    [LH_ROLE_ITEM] = "what was shown or chosen",
    [LH_ROLE_RATING] = "how it was liked",
    [LH_ROLE_REWARD] = "a reward as it is",
    [LH_ROLE_FEEDBACK] = "what the user did",
    [LH_ROLE_EVENT] = "what the user did",
    [LH_ROLE_END] = "1 where the trajectory ended",
    [LH_ROLE_STATE] = "state",
    [LH_ROLE_ACTION] = "action",
    [LH_ROLE_CONTEXT] = "known before the action?",
};

/* What was seen of a column, for a comment. */
static void write_seen(const struct lh_probe_column *c, FILE *to)
{
    if (c->numbers > 0)
        fprintf(to, "%g to %g", c->lo, c->hi);
    else if (c->n_values > 0)
        fprintf(to, "like %.24s", c->values[0].text);
    if (c->many)
        fputs(", many values", to);
    else
        fprintf(to, ", %zu value%s", c->n_values, c->n_values == 1 ? "" : "s");
    if (c->missing > 0)
        fprintf(to, ", missing in %.3g%%",
                100.0 * (double)c->missing / (double)(c->present + c->missing));
}

static void write_columns(const struct lh_init *in, FILE *to)
{
    fputs("\n# Only columns named here are read.\ncolumns:\n", to);
    for (size_t i = 0; i < in->probe->n_columns;) {
        size_t run = run_of(in, i);
        enum lh_role role = in->guess->role[i];
        if (role == LH_ROLE_NONE || (role != LH_ROLE_STATE && role != LH_ROLE_ACTION))
            run = 1;
        if (role == LH_ROLE_NONE) {
            fprintf(to, "  # %s: %s", in->names[i],
                    column(in, i)->numbers == column(in, i)->present ? "number" : "id");
            if (renamed(in, i))
                fprintf(to, " (in the log: %.60s)", column(in, i)->name);
            fputs("   # not used; ", to);
        } else {
            write_declared(in, i, run, to);
            fprintf(to, "   # check: %s; ", role_texts[role]);
        }
        write_seen(column(in, i), to);
        fputc('\n', to);
        i += run;
    }
}

static void write_trajectory(const struct lh_init *in, FILE *to)
{
    const struct lh_log_guess *g = in->guess;
    fputs("\n# Rows of one user in time are a trajectory.\ntrajectory:\n", to);
    if (g->user != NONE)
        fprintf(to, "  user: %s\n", in->names[g->user]);
    else
        fputs("  # user: COLUMN          # decide: the id column that tells users apart\n", to);
    if (g->session != NONE)
        fprintf(to, "  session: %s\n", in->names[g->session]);
    else if (g->time != NONE)
        fputs("  gap_minutes: 30         # check: a session ends with so much silence\n", to);
    if (g->time != NONE)
        fprintf(to, "  time: %s\n", in->names[g->time]);
    else
        fputs("  time: order             # no time was found: the order of the log counts\n", to);
    if (g->end != NONE)
        fprintf(to, "  end: %s\n", in->names[g->end]);
    else
        fputs(
            "  end: cut_off            # the log ends, not the user; or true, or a column of 0 and "
            "1\n",
            to);
    fputs("\n# By user. A number of users, a share, or the rest.\n"
          "split: {train: 80%, validation: 10%, test: rest}\n"
          "bad_rows: {share: 0.01}       # the import stops when more rows cannot be read\n",
          to);
}

/* Something that happened or did not. Amounts (seconds, cents) would drown these in a plain sum,
 * and what never varies says nothing. */
static bool is_signal(const struct lh_init *in, size_t i)
{
    const struct lh_probe_column *c = column(in, i);
    return in->guess->role[i] == LH_ROLE_FEEDBACK && c->lo == 0 && c->hi == 1;
}

static void write_feedback(const struct lh_init *in, const char *before, FILE *to)
{
    fprintf(to, "%sreward:\n%s  weighted_sum:\n", before, before);
    bool any = false;
    for (size_t i = 0; i < in->probe->n_columns; i++)
        any = any || is_signal(in, i);
    for (size_t i = 0; i < in->probe->n_columns; i++) {
        const struct lh_probe_column *c = column(in, i);
        if (in->guess->role[i] != LH_ROLE_FEEDBACK)
            continue;
        if (any && !is_signal(in, i))
            fprintf(to, "%s    # %s: 0   # %g to %g\n", before, in->names[i], c->lo, c->hi);
        else
            fprintf(to, "%s    %s: %d\n", before, in->names[i],
                    lh_log_guess_is_bad(c->name) ? -1 : 1);
    }
}

static void write_return(const char *before, FILE *to)
{
    fprintf(to,
            "%sreward:\n%s  mix:\n"
            "%s    - {weight: 0.7, rule: {return_time: {}}}\n"
            "%s    - {weight: 0.3, rule: {session_length: {}}}\n",
            before, before, before, before);
}

static void write_reward(const struct lh_init *in, FILE *to)
{
    const struct lh_log_guess *g = in->guess;
    enum source from = reward_source(in);
    fputs("\n# What is good. Rules: common/README.md, \"reward\".\n", to);
    if (from == FROM_REWARD) {
        fprintf(to, "reward: {column: %s}\n", in->names[g->reward]);
    } else if (from == FROM_RATING) {
        fprintf(to,
                "reward: {column: %s}    # or a map: {map: {column: %s, values: {1: -1, 2: 0}, "
                "otherwise: 1}}\n",
                in->names[g->rating], in->names[g->rating]);
    } else if (from == FROM_FEEDBACK) {
        fputs("# check: weights of your own; take out what is no sign of content.\n", to);
        write_feedback(in, "", to);
    } else if (from == FROM_EVENT) {
        const struct lh_probe_column *c = column(in, g->event);
        fputs("# check: what each event is worth.\nreward:\n  map:\n", to);
        fprintf(to, "    column: %s\n    values:\n", in->names[g->event]);
        for (size_t i = 0; i < c->n_values; i++) {
            fputs("      ", to);
            lh_yaml_write_text(to, c->values[i].text);
            fputs(": 1\n", to);
        }
        fputs("    otherwise: 0\n", to);
    } else if (from == FROM_SESSIONS) {
        fputs("# How soon users come back and how long they stay (ResAct Eq. 21 and 22).\n", to);
        write_return("", to);
    } else {
        fputs("# decide: nothing in the log looks like a reward.\n# reward: {column: COLUMN}\n",
              to);
    }
    if (from != FROM_SESSIONS && from != FROM_NOTHING && g->time != NONE) {
        fputs("# Or how soon users come back and how long they stay (ResAct Eq. 21 and 22):\n", to);
        write_return("# ", to);
    }
}

static bool embeds(const struct lh_init *in)
{
    return in->guess->actions == 0 && in->guess->item != NONE;
}

static void write_embeddings(const struct lh_init *in, FILE *to)
{
    const struct lh_log_guess *g = in->guess;
    if (!embeds(in))
        return;
    fputs("\n# An item is its vector in a factorisation of the training users' rows. If you have "
          "vectors\n"
          "# of your own: {key: …, file: items.csv} with lines id,e_0,e_1,…\n"
          "embeddings:\n  item_vector:\n",
          to);
    fprintf(to, "    key: %s\n    method: factorise\n", in->names[g->item]);
    if (g->rating != NONE)
        fprintf(to, "    feedback: explicit\n    value: %s\n", in->names[g->rating]);
    else
        fputs("    feedback: implicit\n", to);
    fputs("    dim: 32\n    unseen: zero\n", to);
}

/* "  - {column: x_0..x_9}" for each run of columns of a role. */
static void write_runs(const struct lh_init *in, enum lh_role role, FILE *to)
{
    for (size_t i = 0; i < in->probe->n_columns;) {
        size_t run = in->guess->role[i] == role ? run_of(in, i) : 1;
        if (in->guess->role[i] == role && run > 1)
            fprintf(to, "  - column: %s..%s\n", in->names[i], in->names[i + run - 1]);
        else if (in->guess->role[i] == role)
            fprintf(to, "  - column: %s\n", in->names[i]);
        i += run;
    }
}

static void write_features(const struct lh_init *in, FILE *to)
{
    const struct lh_log_guess *g = in->guess;
    bool timed = g->time != NONE, sessions = has_sessions(in);
    /* a reward that averages over a user's whole log may not be looked back at */
    bool past_reward = reward_source(in) < FROM_SESSIONS;
    const char *at = sessions ? ", at: session_start" : "";
    fputs("\n# s_h, the visit: who comes, how it went so far. Features: "
          "common/README.md.\nstate_high:\n",
          to);
    for (size_t i = 0; i < in->probe->n_columns; i++)
        if (g->role[i] == LH_ROLE_CONTEXT)
            fprintf(to, "  - {one_hot: %s%s}\n", in->names[i], at);
    fprintf(to, "  - {count: %s%s, log1p: true}\n", sessions ? "[sessions, rows]" : "rows", at);
    if (timed)
        fputs("  - {since: session, at: session_start, log1p: true}\n"
              "  - {session_mean: [length, return_time], log1p: true}\n"
              "  - {clock: [hour, weekday], at: session_start}      # in UTC; utc_offset: hours\n",
              to);
    if (past_reward)
        fprintf(to, "  - {mean: reward%s}\n", at);
    if (embeds(in))
        fprintf(to, "  - {mean: item_vector%s}\n", at);

    fputs("\n# s_l, the request: what is going on right now.\nstate_low:\n", to);
    write_runs(in, LH_ROLE_STATE, to);
    if (embeds(in))
        fputs("  - {mean: item_vector, last: 10}\n", to);
    if (embeds(in) && past_reward)
        fputs("  - {mean: item_vector, last: 10, weight: reward}\n", to);
    if (past_reward)
        fputs("  - {mean: reward, last: 10}\n", to);
    fprintf(to, "  - {count: %s, log1p: true}\n", sessions ? "session_rows" : "rows");
    if (timed)
        fputs("  - {since: row, log1p: true}\n", to);

    fputs("\n# What was chosen, as a vector of numbers.\n", to);
    if (g->actions > 0) {
        fputs("action:\n", to);
        write_runs(in, LH_ROLE_ACTION, to);
    } else if (embeds(in)) {
        fputs("action:\n  - embedding: item_vector\n", to);
    } else {
        fputs("# decide: nothing in the log looks like an item or an action.\n"
              "# action:\n#   - column: FIRST..LAST      # or an embedding of an id\n",
              to);
    }
}

void lh_init_write_schema(const struct lh_init *in, FILE *to)
{
    const char *undecided;
    fprintf(to, "# A schema for 'longhaul import', proposed after a look at %llu row%s%s.\n",
            (unsigned long long)in->probe->rows, in->probe->rows == 1 ? "" : "s",
            in->probe->whole ? ", which is the whole log" : "");
    fputs("# Guesses are marked \"check:\".\n", to);
    for (size_t k = 0; (undecided = lh_init_undecided(in, k)); k++)
        fprintf(to, "# To decide before an import: %s.\n", undecided);
    if (in->guess->by_position)
        fputs("# The log names no columns: all roles were guessed from order and values.\n", to);
    if (in->guess->user_is_session)
        fputs("# The log knows sessions but no users: a session is taken for a user.\n", to);
    fputs("name: ", to);
    lh_yaml_write_text(to, in->name);
    fputs("\nseed: 1\n\n", to);
    write_input(in, to);
    write_columns(in, to);
    write_trajectory(in, to);
    write_reward(in, to);
    write_embeddings(in, to);
    write_features(in, to);
}

/* --- the job ------------------------------------------------------------------------------- */

void lh_init_write_job(const struct lh_init *in, FILE *to)
{
    size_t batch = 256;
    while (batch < 4096 && batch * 200 < in->probe->rows)
        batch *= 2;
    fputs("# A job for 'longhaul train'. Every key: longhaul help job.\nname: ", to);
    lh_yaml_write_text(to, in->name);
    fprintf(
        to,
        "\nseed: 1\ndataset: dataset       # what the import wrote; relative to this file\n"
        "algorithm: resact      # or il, il_cvae: the imitation baselines\n"
        "\nnetwork:\n  hidden: [256, 256]\n"
        "\nobjective:\n"
        "  gamma: 0.9           # how far ahead a row looks\n"
        "  estimators: 20       # candidate actions, of which the critic chooses\n"
        "  residual_scale: 0.1  # how far from the logged policy, in half-widths of its actions\n"
        "\noptimiser:             # the paper's, for batches of 4096; smaller ones bear more\n"
        "  lr_actor: 5.0e-6\n  lr_critic: 5.0e-5\n  lr_cvae: 5.0e-5\n"
        "\ntrain:\n  batch: %zu\n  epochs: 5\n",
        batch);
    fputs("\nevaluation:\n  ess_floor: 0.1       # a checkpoint that left the data is never the "
          "best\n",
          to);
    if (in->guess->user != NONE && in->guess->time != NONE)
        fputs("  # unit: session      # for rewards that a session earns as a whole\n", to);
}
