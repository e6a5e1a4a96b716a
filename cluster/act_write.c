/* Three forms of one answer. */
#include "cluster/act_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_COMPONENTS 6 /* of a vector, in text */

/* The estimator that was chosen: the largest Q, the first of equals. */
static size_t chosen(const struct lh_act_writer *w, const struct lh_explain *e)
{
    size_t best = 0;
    for (size_t i = 1; i < w->estimators; i++)
        if (e->q[i] > e->q[best])
            best = i;
    return best;
}

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* --- CSV ----------------------------------------------------------------------------------- */

static void csv_text(const struct lh_act_writer *w, const char *s)
{
    const char needs[] = {w->separator, '"', '\n', '\0'};
    if (!strpbrk(s, needs)) {
        fputs(s, w->to);
        return;
    }
    fputc('"', w->to);
    for (; *s; s++)
        fprintf(w->to, *s == '"' ? "\"\"" : "%c", *s);
    fputc('"', w->to);
}

void lh_act_write_header(const struct lh_act_writer *w)
{
    if (w->format != LH_ACT_CSV)
        return;
    const char *between = "";
    const char separator[] = {w->separator, '\0'};
    for (size_t i = 0; i < w->n_keep; i++, between = separator) {
        fputs(between, w->to);
        csv_text(w, w->keep[i]);
    }
    for (size_t i = 0; i < w->width; i++, between = separator) {
        fputs(between, w->to);
        csv_text(w, w->names[i]);
    }
    for (size_t i = 1; i <= w->top; i++)
        fprintf(w->to, "%sitem_%zu%sscore_%zu", separator, i, separator, i);
    fputc('\n', w->to);
}

/* A JSON string shows its text in CSV. */
static void csv_kept(const struct lh_act_writer *w, const struct lh_act_answer *a, size_t i)
{
    const char *s = a->kept[i];
    size_t n = strlen(s);
    if (!a->kept_json || n < 2 || s[0] != '"' || strchr(s, '\\')) {
        csv_text(w, s);
        return;
    }
    const char needs[] = {w->separator, '\n', '\0'};
    bool quote = strcspn(s, needs) < n;
    fprintf(w->to, "%.*s", quote ? (int)n : (int)n - 2, quote ? s : s + 1);
}

static void write_csv(const struct lh_act_writer *w, const struct lh_act_answer *a)
{
    for (size_t i = 0; i < w->n_keep; i++) {
        csv_kept(w, a, i);
        fputc(w->separator, w->to);
    }
    for (size_t i = 0; i < w->width; i++) {
        if (i > 0)
            fputc(w->separator, w->to);
        fprintf(w->to, "%.9g", a->action[i]);
    }
    for (size_t i = 0; i < w->top; i++) {
        fputc(w->separator, w->to);
        if (i < a->n_items)
            csv_text(w, a->items[i].id);
        fputc(w->separator, w->to);
        if (i < a->n_items)
            fprintf(w->to, "%.9g", a->items[i].score);
    }
    fputc('\n', w->to);
}

/* --- JSON lines ------------------------------------------------------------------------------ */

static void json_text(FILE *to, const char *s)
{
    fputc('"', to);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

static void json_vector(FILE *to, const char *key, const float *x, size_t n)
{
    fprintf(to, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++)
        fprintf(to, "%s%.9g", i ? "," : "", x[i]);
    fputc(']', to);
}

/* What stands behind a choice: each member only where the policy has it. */
static void json_explain(const struct lh_act_writer *w, const struct lh_explain *e)
{
    if (isfinite(e->q[0]))
        fprintf(w->to, ",\"chosen\":%zu", chosen(w, e));
    fputs(",\"estimators\":[", w->to);
    for (size_t i = 0; i < w->estimators; i++) {
        const struct {
            const char *key;
            const float *x;
            size_t n;
        } part[] = {{"action", e->candidates + i * w->width, w->width},
                    {"reconstructed", e->reconstructed + i * w->width, w->width},
                    {"residual", e->residual + i * w->width, w->width}};
        fputs(i ? ",{" : "{", w->to);
        const char *before = "";
        for (size_t k = 0; k < sizeof part / sizeof *part; k++) {
            if (!isfinite(part[k].x[0]))
                continue;
            fputs(before, w->to);
            json_vector(w->to, part[k].key, part[k].x, part[k].n);
            before = ",";
        }
        if (isfinite(e->q[i]))
            fprintf(w->to, "%s\"q\":%.9g", before, e->q[i]);
        fputc('}', w->to);
    }
    fputc(']', w->to);
}

static void write_json(const struct lh_act_writer *w, const struct lh_act_answer *a)
{
    fputc('{', w->to);
    for (size_t i = 0; i < w->n_keep; i++) {
        json_text(w->to, w->keep[i]);
        fputc(':', w->to);
        if (a->kept_json)
            fputs(a->kept[i], w->to);
        else
            json_text(w->to, a->kept[i]);
        fputc(',', w->to);
    }
    json_vector(w->to, "action", a->action, w->width);
    if (w->top > 0) {
        fputs(",\"items\":[", w->to);
        for (size_t i = 0; i < a->n_items; i++) {
            fprintf(w->to, "%s{\"id\":", i ? "," : "");
            json_text(w->to, a->items[i].id);
            fprintf(w->to, ",\"score\":%.9g}", a->items[i].score);
        }
        fputc(']', w->to);
    }
    if (a->explain)
        json_explain(w, a->explain);
    fputs("}\n", w->to);
}

/* --- text ---------------------------------------------------------------------------------- */

static void text_vector(FILE *to, const float *x, size_t n)
{
    for (size_t i = 0; i < n && i < TEXT_COMPONENTS; i++)
        fprintf(to, "%s%8.4g", i ? " " : "", x[i]);
    if (n > TEXT_COMPONENTS)
        fputs(" …", to);
}

/* A number in `columns` columns; "-" for one the policy does not have. */
static void text_number(FILE *to, double x, int columns)
{
    if (isfinite(x))
        fprintf(to, "  %*.4g", columns, x);
    else
        fprintf(to, "  %*s", columns, "-");
}

static void text_explain(const struct lh_act_writer *w, const struct lh_explain *e)
{
    if (!isfinite(e->q[0]) && !isfinite(e->reconstructed[0]) && !isfinite(e->candidates[0])) {
        fputs("  the policy is one network; it weighs no candidates\n", w->to);
        return;
    }
    size_t best = isfinite(e->q[0]) ? chosen(w, e) : 0;
    fputs("     estimator         Q  |reconstructed|  |residual|  action\n", w->to);
    for (size_t i = 0; i < w->estimators; i++) {
        const float *action = e->candidates + i * w->width;
        if (!isfinite(action[0]))
            action = e->reconstructed + i * w->width;
        fprintf(w->to, "  %s %9zu", i == best ? "->" : "  ", i);
        text_number(w->to, e->q[i], 8);
        text_number(w->to, norm_of(e->reconstructed + i * w->width, w->width), 15);
        text_number(w->to, norm_of(e->residual + i * w->width, w->width), 10);
        fputs("  ", w->to);
        text_vector(w->to, action, w->width);
        fputc('\n', w->to);
    }
}

static void write_text(const struct lh_act_writer *w, uint64_t number,
                       const struct lh_act_answer *a)
{
    fprintf(w->to, "state %llu", (unsigned long long)number);
    for (size_t i = 0; i < w->n_keep; i++)
        fprintf(w->to, "%s%s=%s", i ? ", " : " (", w->keep[i], a->kept[i]);
    fputs(w->n_keep ? "): action " : ": action ", w->to);
    text_vector(w->to, a->action, w->width);
    fputc('\n', w->to);
    if (a->explain)
        text_explain(w, a->explain);
    for (size_t i = 0; i < a->n_items; i++)
        fprintf(w->to, "  %3zu. %-24s %.6g\n", i + 1, a->items[i].id, a->items[i].score);
}

void lh_act_write(const struct lh_act_writer *w, uint64_t number, const struct lh_act_answer *a)
{
    if (w->format == LH_ACT_CSV)
        write_csv(w, a);
    else if (w->format == LH_ACT_JSONL)
        write_json(w, a);
    else
        write_text(w, number, a);
}
