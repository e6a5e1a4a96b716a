/* Output for people. Holds no state between calls: a note (log.c) clears the line that a bar may
 * have drawn, and the bar comes back with its next update. */
#include "common/term.h"

#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.1
#define LINE_SECONDS   5.0

double lh_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void lh_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    lh_log_tell_v(LH_LOG_INFO, "note", NULL, fmt, ap);
    va_end(ap);
}

/* --- progress ------------------------------------------------------------------------------ */

static int terminal_columns(void)
{
    struct winsize w;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20)
        return w.ws_col;
    return 80;
}

void lh_term_count(char *out, size_t size, double x)
{
    static const char unit[] = " kMGT";
    size_t i = 0;
    while (x >= (i == 0 ? 9999.5 : 999.5) && i < 4) {
        x /= 1000;
        i++;
    }
    if (i == 0)
        snprintf(out, size, x < 99.5 && x != (double)(long)x ? "%.1f" : "%.0f", x);
    else
        snprintf(out, size, "%.*f%c", x < 99.95 ? 1 : 0, x, unit[i]);
}

void lh_term_clock(char *out, size_t size, double seconds)
{
    long s = seconds < 0 ? 0 : (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

/* "45%  12.3k transitions/s  ETA 0:12  loss 0.12" */
static void print_state(const struct lh_progress *p, double now, bool ended, char *out, size_t size)
{
    double seconds = now - p->started;
    double rate = seconds > 1e-9 ? (double)p->done / seconds : 0;
    char share[32] = "", speed[32], clock[32], left[48] = "";
    if (p->total)
        snprintf(share, sizeof share, "%3.0f%%  ", 100.0 * (double)p->done / (double)p->total);
    lh_term_count(speed, sizeof speed, rate);
    if (ended) {
        lh_term_clock(clock, sizeof clock, seconds);
        snprintf(left, sizeof left, "  in %s", clock);
    } else if (p->total && rate > 0) {
        lh_term_clock(clock, sizeof clock, (double)(p->total - p->done) / rate);
        snprintf(left, sizeof left, "  ETA %s", clock);
    }
    char done[32];
    lh_term_count(done, sizeof done, (double)p->done);
    if (ended || !p->total)
        snprintf(out, size, "%s%s %s  %s %s/s%s%s%s", share, done, p->unit, speed, p->unit, left,
                 *p->extra ? "  " : "", p->extra);
    else
        snprintf(out, size, "%s%s %s/s%s%s%s", share, speed, p->unit, left, *p->extra ? "  " : "",
                 p->extra);
}

static void draw_bar(const struct lh_progress *p, double now)
{
    char state[320], bar[64] = "";
    print_state(p, now, false, state, sizeof state);
    int columns = terminal_columns();
    int room = columns - (int)strlen(p->what) - (int)strlen(state) - 6;
    if (p->total && room >= 10) {
        int width = room < 40 ? room : 40;
        int full = (int)((double)width * (double)p->done / (double)p->total);
        bar[0] = '[';
        memset(bar + 1, '.', (size_t)width);
        memset(bar + 1, '#', (size_t)full);
        memcpy(bar + 1 + width, "] ", 3);
    }
    char line[512];
    snprintf(line, sizeof line, "%s  %s%s", p->what, bar, state);
    fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
    fflush(stderr);
}

static void log_state(const struct lh_progress *p, double now, bool ended)
{
    double seconds = now - p->started;
    lh_log_event(LH_LOG_INFO, "progress",
                 LH_FIELDS(LH_F("what", p->what), LH_F("unit", p->unit), LH_F("done", p->done),
                           LH_F("total", p->total), LH_F("seconds", seconds),
                           LH_F("per_second", seconds > 0 ? (double)p->done / seconds : 0.0),
                           LH_F("ended", ended)));
}

static void show(struct lh_progress *p, bool ended)
{
    double now = lh_now();
    char state[320];
    p->shown = now;
    if (lh_log_format_now() != LH_LOG_TEXT) {
        log_state(p, now, ended);
        return;
    }
    if (p->terminal && !ended) {
        draw_bar(p, now);
        return;
    }
    print_state(p, now, ended, state, sizeof state);
    fprintf(stderr, "%s%s: %s\n", p->terminal ? "\r\033[K" : "", p->what, state);
}

void lh_progress_start(struct lh_progress *p, const char *what, const char *unit, uint64_t total,
                       bool quiet)
{
    *p = (struct lh_progress){.what = what, .unit = unit, .total = total, .quiet = quiet};
    p->terminal = isatty(STDERR_FILENO) && lh_log_format_now() == LH_LOG_TEXT;
    p->started = p->shown = lh_now();
}

void lh_progress_update(struct lh_progress *p, uint64_t done)
{
    p->done = p->total && done > p->total ? p->total : done;
    if (p->quiet || lh_now() - p->shown < (p->terminal ? REDRAW_SECONDS : LINE_SECONDS))
        return;
    show(p, false);
}

void lh_progress_finish(struct lh_progress *p)
{
    if (!p->quiet)
        show(p, true);
}

/* --- tables -------------------------------------------------------------------------------- */

struct column {
    int width;
    bool right; /* all cells below the header are numbers */
};

struct lh_table {
    size_t columns;
    struct column *column;
    char **cell; /* headers first, then rows; the last row may be short */
    size_t n, cap;
};

static int width_of(const char *s) /* code points of UTF-8 */
{
    int n = 0;
    for (; *s; s++)
        n += (*s & 0xc0) != 0x80;
    return n;
}

static bool is_numeric(const char *s)
{
    if (!*s || strcmp(s, "-") == 0)
        return true; /* nothing to say against it */
    char *end;
    strtod(s, &end);
    return end != s && !isalpha((unsigned char)*end);
}

/* Takes `text`, also on failure. */
static int add_cell(struct lh_table *t, char *text)
{
    int rc = LH_GROW(&t->cell, &t->cap, t->n + 1, "table");
    if (rc < 0) {
        lh_mem_free(text);
        return rc;
    }
    struct column *k = &t->column[t->n % t->columns];
    int w = width_of(text);
    k->width = w > k->width ? w : k->width;
    k->right = t->n < t->columns || (k->right && is_numeric(text));
    t->cell[t->n++] = text;
    return 0;
}

int lh_table_create(struct lh_table **out, const char *const *headers, size_t columns)
{
    struct lh_table *t = NULL;
    int rc;
    LH_TRY(LH_NEW(&t, "table"));
    t->columns = columns;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&t->column, columns, "table"));
    for (size_t i = 0; i < columns; i++) {
        char *copy = NULL;
        LH_TRY_TO(fail, lh_mem_strdup(&copy, headers[i]));
        LH_TRY_TO(fail, add_cell(t, copy));
    }
    *out = t;
    return 0;
fail:
    lh_table_destroy(&t);
    return rc;
}

int lh_table_cell(struct lh_table *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = NULL;
    int rc = LH_NEW_ARRAY(&text, (size_t)(n < 0 ? 0 : n) + 1, "table cell");
    if (rc == 0) {
        vsnprintf(text, (size_t)(n < 0 ? 0 : n) + 1, fmt, again);
        rc = add_cell(t, text);
    }
    va_end(again);
    return rc;
}

static void repeat(FILE *to, char c, int n)
{
    while (n-- > 0)
        fputc(c, to);
}

void lh_table_print(const struct lh_table *t, FILE *to)
{
    for (size_t first = 0; first < t->n; first += t->columns) {
        int owed = 0; /* blanks wait, so that no line ends with them */
        for (size_t c = 0; c < t->columns && first + c < t->n; c++) {
            const struct column k = t->column[c];
            const char *text = t->cell[first + c];
            int fill = k.width - width_of(text);
            owed += (c ? 2 : 0) + (k.right ? fill : 0);
            if (*text) {
                repeat(to, ' ', owed);
                owed = 0;
                fputs(text, to);
            }
            owed += k.right ? 0 : fill;
        }
        fputc('\n', to);
        if (first > 0)
            continue;
        for (size_t c = 0; c < t->columns; c++) {
            if (t->column[c].width == 0)
                continue; /* of notes, and there is none */
            repeat(to, ' ', c ? 2 : 0);
            repeat(to, '-', t->column[c].width);
        }
        fputc('\n', to);
    }
}

void lh_table_destroy(struct lh_table **t)
{
    if (!*t)
        return;
    for (size_t i = 0; i < (*t)->n; i++)
        lh_mem_free((*t)->cell[i]);
    lh_mem_free((*t)->cell);
    lh_mem_free((*t)->column);
    lh_mem_free(*t);
    *t = NULL;
}
