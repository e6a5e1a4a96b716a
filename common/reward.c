/* Rewards by declared rule. The rules of a schema become a small tree in one array, the root
 * first; a row's reward is the value of the root there. Averages of a user are computed when its
 * rows are at hand; only the percentile over users needs a pass of its own. */
#include "common/reward.h"

#include "common/err.h"
#include "common/mem.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define RULES_MAX     64
#define REWARD_MAX    5.0 /* Eq. 21, 22: clip(0, 5) */
#define US_PER_SECOND 1e6

enum rule_kind { COLUMN, MAP, RETURN_TIME, SESSION_LENGTH, WEIGHTED_SUM, MIX, RULE_KINDS };
static const char *const rule_names[RULE_KINDS] = {"column",         "map",          "return_time",
                                                   "session_length", "weighted_sum", "mix"};

enum measure { ROWS, SECONDS, OF_COLUMN };

struct entry { /* of a map */
    float from;
    uint32_t category;
    double to;
};

struct term { /* of a sum or a mix */
    double weight;
    size_t of; /* column, or rule */
};

struct rule {
    enum rule_kind kind;
    size_t column; /* COLUMN, MAP, SESSION_LENGTH of a column */
    bool category; /* MAP: the column is one */
    enum measure measure;
    struct entry *entries;
    struct term *terms;
    size_t n; /* of entries or terms */
    bool has_otherwise, has_clip;
    double otherwise, scale, lo, hi;
};

struct lh_reward_plan {
    struct rule rule[RULES_MAX];
    size_t n_rules;
    const struct lh_column *columns; /* names for sentences: copied */
    size_t n_columns;
    bool has_return_time, has_session_length;
    pthread_mutex_t lock;
    float *averages; /* seconds, of training users with two sessions or more */
    size_t n_averages, cap_averages;
    double p75;
};

float lh_reward_return_time(double gap, double user_avg, double p75)
{
    double r = floor(fmin(user_avg, p75) / gap);
    return (float)fmin(fmax(r, 0.0), REWARD_MAX);
}

float lh_reward_session_length(double length, double user_avg)
{
    if (!(user_avg > 0.0))
        return 0.0f;
    double r = floor(length / (user_avg * 0.8));
    return (float)fmin(fmax(r, 0.0), REWARD_MAX);
}

double lh_reward_gap_seconds(int64_t end_us, int64_t next_start_us)
{
    return fmax(((double)next_start_us - (double)end_us) / US_PER_SECOND, 1.0);
}

/* --- reading the schema ------------------------------------------------------------------------
 */

struct reader {
    struct lh_reward_plan *p;
    const struct lh_column *columns;
    size_t n_columns;
};

static int read_rule(struct reader *rd, const struct lh_yaml_node *node, size_t *out);

static int take_rule(struct reader *rd, const struct lh_yaml_node *node, enum rule_kind kind,
                     size_t *out)
{
    struct lh_reward_plan *p = rd->p;
    if (p->n_rules == RULES_MAX)
        return lh_yaml_fail(node, "more than %d rules in one reward", RULES_MAX);
    *out = p->n_rules++;
    p->rule[*out].kind = kind;
    p->rule[*out].scale = 1.0;
    return 0;
}

static int read_finite(const struct lh_yaml_node *node, double *out)
{
    return lh_yaml_double(node, -1e30, 1e30, out);
}

static int read_map(struct reader *rd, struct rule *r, const struct lh_yaml_node *node)
{
    static const char *const keys[] = {"column", "values", "otherwise"};
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, 3));
    const struct lh_yaml_node *column = lh_yaml_get(node, "column");
    const struct lh_yaml_node *values = lh_yaml_get(node, "values");
    if (!column || !values)
        return lh_yaml_fail(node, "a map needs column: and values:");
    const char *name = NULL;
    LH_TRY(lh_yaml_string(column, &name));
    LH_TRY(lh_userlog_find_column(rd->columns, rd->n_columns, column, name, &r->column));
    const struct lh_column *c = &rd->columns[r->column];
    if (c->type == LH_COLUMN_ID)
        return lh_yaml_fail(column, "column '%s' is an id; declare it as number or category", name);
    r->category = c->type == LH_COLUMN_CATEGORY;
    LH_TRY(lh_yaml_expect(values, LH_YAML_MAPPING));
    LH_TRY(LH_NEW_ARRAY(&r->entries, values->n, "reward map"));
    for (const struct lh_yaml_node *v = values->child; v; v = v->next) {
        struct entry *e = &r->entries[r->n];
        if (r->category) {
            size_t k = 0;
            while (k < c->n_values && strcmp(c->values[k], v->key) != 0)
                k++;
            if (k == c->n_values)
                return lh_yaml_fail(v, "'%s' is not among the values of column '%s'", v->key, name);
            e->category = (uint32_t)k;
        } else {
            char *end = NULL;
            e->from = strtof(v->key, &end);
            if (end == v->key || *end || !isfinite(e->from))
                return lh_yaml_fail(v, "'%s' is not a number, as column '%s' is", v->key, name);
        }
        LH_TRY(read_finite(v, &e->to));
        r->n++;
    }
    const struct lh_yaml_node *otherwise = lh_yaml_get(node, "otherwise");
    r->has_otherwise = otherwise != NULL;
    return read_finite(otherwise, &r->otherwise);
}

static int read_session_length(struct reader *rd, struct rule *r, const struct lh_yaml_node *node)
{
    static const char *const keys[] = {"measure", "column"};
    static const char *const measures[] = {"rows", "seconds"};
    if (node->kind == LH_YAML_SCALAR && node->text[0] == '\0')
        return 0;
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, 2));
    const struct lh_yaml_node *column = lh_yaml_get(node, "column");
    const struct lh_yaml_node *measure = lh_yaml_get(node, "measure");
    if (column && measure)
        return lh_yaml_fail(node, "either measure: or column:, not both");
    if (column) {
        r->measure = OF_COLUMN;
        return lh_userlog_read_column(rd->columns, rd->n_columns, column, LH_COLUMN_NUMBER,
                                      &r->column);
    }
    int m = ROWS;
    LH_TRY(lh_yaml_enum(measure, measures, 2, &m));
    r->measure = (enum measure)m;
    return 0;
}

static int read_weighted_sum(struct reader *rd, struct rule *r, const struct lh_yaml_node *node)
{
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    if (node->n == 0)
        return lh_yaml_fail(node, "no feedback named; write column: weight, line by line");
    LH_TRY(LH_NEW_ARRAY(&r->terms, node->n, "reward terms"));
    for (const struct lh_yaml_node *t = node->child; t; t = t->next) {
        size_t c;
        LH_TRY(lh_userlog_find_column(rd->columns, rd->n_columns, t, t->key, &c));
        if (rd->columns[c].type != LH_COLUMN_NUMBER)
            return lh_yaml_fail(t, "column '%s' is of type %s; feedback must be a number", t->key,
                                lh_userlog_type_name(rd->columns[c].type));
        r->terms[r->n].of = c;
        LH_TRY(read_finite(t, &r->terms[r->n].weight));
        r->n++;
    }
    return 0;
}

static int read_mix(struct reader *rd, struct rule *r, const struct lh_yaml_node *node)
{
    static const char *const keys[] = {"weight", "rule"};
    LH_TRY(lh_yaml_expect(node, LH_YAML_SEQUENCE));
    if (node->n == 0)
        return lh_yaml_fail(node, "an empty mix; write - {weight: 0.7, rule: {return_time: {}}}");
    LH_TRY(LH_NEW_ARRAY(&r->terms, node->n, "reward mix"));
    for (const struct lh_yaml_node *t = node->child; t; t = t->next) {
        LH_TRY(lh_yaml_expect(t, LH_YAML_MAPPING));
        LH_TRY(lh_yaml_check_keys(t, keys, 2));
        const struct lh_yaml_node *weight = lh_yaml_get(t, "weight");
        const struct lh_yaml_node *rule = lh_yaml_get(t, "rule");
        if (!weight || !rule)
            return lh_yaml_fail(t, "a part of a mix needs weight: and rule:");
        LH_TRY(read_finite(weight, &r->terms[r->n].weight));
        LH_TRY(read_rule(rd, rule, &r->terms[r->n].of));
        r->n++;
    }
    return 0;
}

/* scale: and clip: go with any rule. */
static int read_modifiers(struct rule *r, const struct lh_yaml_node *node)
{
    LH_TRY(read_finite(lh_yaml_get(node, "scale"), &r->scale));
    const struct lh_yaml_node *clip = lh_yaml_get(node, "clip");
    if (!clip)
        return 0;
    LH_TRY(lh_yaml_expect(clip, LH_YAML_SEQUENCE));
    if (clip->n != 2)
        return lh_yaml_fail(clip, "expected [lowest, highest]");
    r->has_clip = true;
    LH_TRY(read_finite(clip->child, &r->lo));
    LH_TRY(read_finite(clip->child->next, &r->hi));
    if (r->lo > r->hi)
        return lh_yaml_fail(clip, "the lowest value is above the highest");
    return 0;
}

static int read_rule(struct reader *rd, const struct lh_yaml_node *node, size_t *out)
{
    static const char *const keys[] = {"column",       "map", "return_time", "session_length",
                                       "weighted_sum", "mix", "scale",       "clip"};
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, sizeof keys / sizeof *keys));
    const struct lh_yaml_node *found = NULL;
    enum rule_kind kind = COLUMN;
    for (int k = 0; k < RULE_KINDS; k++) {
        const struct lh_yaml_node *v = lh_yaml_get(node, rule_names[k]);
        if (v && found)
            return lh_yaml_fail(v, "a rule says one thing; use mix: to join '%s' and '%s'",
                                found->key, v->key);
        if (v) {
            found = v;
            kind = (enum rule_kind)k;
        }
    }
    if (!found)
        return lh_yaml_fail(node, "no rule; expected one of column, map, return_time, "
                                  "session_length, weighted_sum, mix");
    LH_TRY(take_rule(rd, node, kind, out));
    struct rule *r = &rd->p->rule[*out];
    LH_TRY(read_modifiers(r, node));
    switch (kind) {
    case COLUMN:
        return lh_userlog_read_column(rd->columns, rd->n_columns, found, LH_COLUMN_NUMBER,
                                      &r->column);
    case MAP:
        return read_map(rd, r, found);
    case RETURN_TIME:
        rd->p->has_return_time = true;
        if (found->kind == LH_YAML_SCALAR && found->text[0] == '\0')
            return 0;
        LH_TRY(lh_yaml_expect(found, LH_YAML_MAPPING));
        return lh_yaml_check_keys(found, NULL, 0);
    case SESSION_LENGTH:
        rd->p->has_session_length = true;
        return read_session_length(rd, r, found);
    case WEIGHTED_SUM:
        return read_weighted_sum(rd, r, found);
    case MIX:
        return read_mix(rd, r, found);
    case RULE_KINDS:
        break;
    }
    return lh_err_set(LH_EINTERNAL, "reward: rule kind %d", (int)kind);
}

/* Names of columns live as long as the plan, so that a failing apply can say them. */
static int keep_columns(struct lh_reward_plan *p, const struct lh_column *columns, size_t n)
{
    struct lh_column *kept = NULL;
    LH_TRY(LH_NEW_ARRAY(&kept, n, "reward columns"));
    p->columns = kept;
    for (size_t c = 0; c < n; c++) {
        char *name = NULL;
        LH_TRY(lh_mem_strdup(&name, columns[c].name));
        kept[c].name = name;
        kept[c].type = columns[c].type;
        p->n_columns++;
    }
    return 0;
}

int lh_reward_plan_create(struct lh_reward_plan **out, const struct lh_yaml_node *node,
                          const struct lh_column *columns, size_t n_columns)
{
    struct lh_reward_plan *p = NULL;
    LH_TRY(LH_NEW(&p, "reward plan"));
    pthread_mutex_init(&p->lock, NULL);
    int rc = 0;
    LH_TRY_TO(fail, keep_columns(p, columns, n_columns));
    struct reader rd = {.p = p, .columns = columns, .n_columns = n_columns};
    size_t root;
    LH_TRY_TO(fail, read_rule(&rd, node, &root));
    *out = p;
    return 0;
fail:
    lh_reward_plan_destroy(&p);
    return rc;
}

void lh_reward_plan_destroy(struct lh_reward_plan **plan)
{
    struct lh_reward_plan *p = *plan;
    if (!p)
        return;
    for (size_t r = 0; r < p->n_rules; r++) {
        lh_mem_free(p->rule[r].entries);
        lh_mem_free(p->rule[r].terms);
    }
    for (size_t c = 0; c < p->n_columns; c++)
        lh_mem_free((void *)(uintptr_t)p->columns[c].name);
    lh_mem_free((void *)(uintptr_t)p->columns);
    lh_mem_free(p->averages);
    pthread_mutex_destroy(&p->lock);
    lh_mem_free(p);
    *plan = NULL;
}

bool lh_reward_plan_uses(const struct lh_reward_plan *p, size_t column)
{
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct rule *r = &p->rule[i];
        if ((r->kind == COLUMN || r->kind == MAP ||
             (r->kind == SESSION_LENGTH && r->measure == OF_COLUMN)) &&
            r->column == column)
            return true;
        for (size_t t = 0; r->kind == WEIGHTED_SUM && t < r->n; t++) {
            if (r->terms[t].of == column)
                return true;
        }
    }
    return false;
}

bool lh_reward_plan_looks_ahead(const struct lh_reward_plan *p)
{
    return p->has_return_time || p->has_session_length;
}

/* --- the pass over users ------------------------------------------------------------------------
 */

static bool ends_session(const struct lh_user_log *log, size_t i)
{
    return i + 1 == log->n || log->session[i + 1] != log->session[i];
}

/* Mean of the user's gaps, seconds; 0 where it has one session only. */
static double average_gap(const struct lh_user_log *log)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i + 1 < log->n; i++) {
        if (ends_session(log, i)) {
            sum += lh_reward_gap_seconds(log->time_us[i], log->time_us[i + 1]);
            n++;
        }
    }
    return n ? sum / (double)n : 0;
}

/* Length of the session of rows [first, last]. */
static double session_length(const struct rule *r, const struct lh_user_log *log, size_t first,
                             size_t last)
{
    switch (r->measure) {
    case SECONDS:
        return ((double)log->time_us[last] - (double)log->time_us[first]) / US_PER_SECOND;
    case OF_COLUMN:
        return (double)log->column[r->column].number[last];
    case ROWS:
        break;
    }
    return (double)(last - first + 1);
}

static double average_length(const struct rule *r, const struct lh_user_log *log)
{
    double sum = 0;
    size_t n = 0, first = 0;
    for (size_t i = 0; i < log->n; i++) {
        if (ends_session(log, i)) {
            sum += session_length(r, log, first, i);
            n++;
            first = i + 1;
        }
    }
    return n ? sum / (double)n : 0;
}

int lh_reward_plan_needs_pass(const struct lh_reward_plan *p)
{
    return p->has_return_time;
}

int lh_reward_plan_observe(struct lh_reward_plan *p, const struct lh_user_log *log)
{
    if (!p->has_return_time || log->split != LH_TRAIN)
        return 0;
    double average = average_gap(log);
    if (!(average > 0))
        return 0;
    pthread_mutex_lock(&p->lock);
    int rc = LH_GROW(&p->averages, &p->cap_averages, p->n_averages + 1, "average return times");
    if (rc == 0)
        p->averages[p->n_averages++] = (float)average;
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int lh_reward_plan_finish(struct lh_reward_plan *p)
{
    if (!p->has_return_time)
        return 0;
    if (p->n_averages == 0)
        return lh_err_set(LH_ERANGE, "reward: return_time: no training user has two sessions, so "
                                     "nobody ever returned; check how sessions are cut");
    qsort(p->averages, p->n_averages, sizeof *p->averages, by_value);
    double at = 0.75 * (double)(p->n_averages - 1);
    size_t k = (size_t)at;
    double lo = (double)p->averages[k];
    double hi = (double)p->averages[k + 1 < p->n_averages ? k + 1 : k];
    p->p75 = lo + (hi - lo) * (at - (double)k);
    lh_mem_free(p->averages);
    p->averages = NULL;
    p->n_averages = p->cap_averages = 0;
    return 0;
}

double lh_reward_plan_p75(const struct lh_reward_plan *p)
{
    return p->p75;
}

/* --- one user -----------------------------------------------------------------------------------
 */

struct user {
    const struct lh_reward_plan *p;
    const struct lh_user_log *log;
    double average[RULES_MAX]; /* of RETURN_TIME, SESSION_LENGTH */
    size_t first;              /* row of the present session */
};

static int read_number(const struct user *u, size_t column, size_t row, double *out)
{
    *out = (double)u->log->column[column].number[row];
    if (isfinite(*out))
        return 0;
    return lh_err_set(LH_ERANGE,
                      "reward: column '%s' is missing in a row it is needed for; declare what "
                      "missing means there (missing: 0, or drop)",
                      u->p->columns[column].name);
}

static int map_value(const struct user *u, const struct rule *r, size_t row, double *out)
{
    const union lh_column_data *c = &u->log->column[r->column];
    for (size_t k = 0; k < r->n; k++) {
        const struct entry *e = &r->entries[k];
        if (r->category ? c->category[row] == e->category : c->number[row] == e->from) {
            *out = e->to;
            return 0;
        }
    }
    *out = r->otherwise;
    if (r->has_otherwise)
        return 0;
    const char *name = u->p->columns[r->column].name;
    if (r->category)
        return lh_err_set(
            LH_ERANGE,
            "reward: map: a value of column '%s' has no entry; add it, or otherwise:", name);
    return lh_err_set(LH_ERANGE,
                      "reward: map: column '%s' has the value %g, which has no entry; add it, or "
                      "otherwise:",
                      name, (double)c->number[row]);
}

static int value_at(const struct user *u, size_t index, size_t row, double *out)
{
    const struct rule *r = &u->p->rule[index];
    const struct lh_user_log *log = u->log;
    double v = 0, x = 0;
    switch (r->kind) {
    case COLUMN:
        LH_TRY(read_number(u, r->column, row, &v));
        break;
    case MAP:
        LH_TRY(map_value(u, r, row, &v));
        break;
    case RETURN_TIME: /* of the session before the gap: the last has none */
        if (row + 1 < log->n && ends_session(log, row)) {
            double gap = lh_reward_gap_seconds(log->time_us[row], log->time_us[row + 1]);
            v = (double)lh_reward_return_time(gap, u->average[index], u->p->p75);
        }
        break;
    case SESSION_LENGTH:
        if (ends_session(log, row)) {
            double length = session_length(r, log, u->first, row);
            v = (double)lh_reward_session_length(length, u->average[index]);
        }
        break;
    case WEIGHTED_SUM: /* BatchRL-MTF Eq. 2 */
        for (size_t t = 0; t < r->n; t++) {
            LH_TRY(read_number(u, r->terms[t].of, row, &x));
            v += r->terms[t].weight * x;
        }
        break;
    case MIX:
        for (size_t t = 0; t < r->n; t++) {
            LH_TRY(value_at(u, r->terms[t].of, row, &x));
            v += r->terms[t].weight * x;
        }
        break;
    case RULE_KINDS:
        break;
    }
    v *= r->scale;
    *out = r->has_clip ? fmin(fmax(v, r->lo), r->hi) : v;
    return 0;
}

int lh_reward_plan_apply(const struct lh_reward_plan *p, const struct lh_user_log *log, float *out)
{
    struct user u = {.p = p, .log = log};
    for (size_t r = 0; r < p->n_rules; r++) {
        if (p->rule[r].kind == RETURN_TIME)
            u.average[r] = average_gap(log);
        else if (p->rule[r].kind == SESSION_LENGTH)
            u.average[r] = average_length(&p->rule[r], log);
        if (!isfinite(u.average[r]))
            return lh_err_set(LH_ERANGE,
                              "reward: session_length: column '%s' is missing in a session; "
                              "declare what missing means there",
                              p->columns[p->rule[r].column].name);
    }
    for (size_t i = 0; i < log->n; i++) {
        double v;
        LH_TRY(value_at(&u, 0, i, &v));
        out[i] = (float)v;
        if (!isfinite(out[i]))
            return lh_err_set(LH_ERANGE, "reward: %g does not fit a float; use scale: or clip:", v);
        if (ends_session(log, i))
            u.first = i + 1;
    }
    return 0;
}
