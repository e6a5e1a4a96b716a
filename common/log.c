/* Lines of events. A line is put together in one buffer on the stack; a value that would not fit is
 * cut, and the line stays whole. */
#include "common/log.h"

#include "common/err.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_  8192
#define TAIL       256 /* of a line, kept for what ends it */
#define ESCAPE_MAX 6   /* bytes that one byte may become: \u001f */

const char *const lh_log_levels[] = {"error", "warn", "info", "debug", NULL};
const char *const lh_log_formats[] = {"text", "logfmt", "json", NULL};

/* Of the process, as standard error is. */
static atomic_int format_now = LH_LOG_TEXT, level_now = LH_LOG_INFO;
static atomic_bool environment_spoke;
static _Thread_local struct lh_log_who speaker;

void lh_log_setup(enum lh_log_format format, enum lh_log_level level)
{
    atomic_store_explicit(&format_now, (int)format, memory_order_relaxed);
    atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

static int find(const char *const *names, const char *s, size_t n)
{
    for (int i = 0; names[i]; i++)
        if (strlen(names[i]) == n && strncmp(names[i], s, n) == 0)
            return i;
    return -1;
}

int lh_log_environment(void)
{
    const char *s = getenv("LONGHAUL_LOG");
    if (!s || !*s)
        return 0;
    size_t n = strcspn(s, ",");
    int format = find(lh_log_formats, s, n);
    int level = s[n] ? find(lh_log_levels, s + n + 1, strlen(s + n + 1)) : LH_LOG_INFO;
    if (format < 0 || level < 0)
        return lh_err_set(
            LH_EUSAGE,
            "LONGHAUL_LOG=%.60s in the environment: expected text, logfmt or json, and "
            "behind a comma error, warn, info or debug",
            s);
    lh_log_setup((enum lh_log_format)format, (enum lh_log_level)level);
    atomic_store(&environment_spoke, true);
    return 0;
}

void lh_log_adopt(enum lh_log_format format, enum lh_log_level level)
{
    if (!atomic_load(&environment_spoke))
        lh_log_setup(format, level);
}

enum lh_log_format lh_log_format_now(void)
{
    return (enum lh_log_format)atomic_load_explicit(&format_now, memory_order_relaxed);
}

struct lh_log_who lh_log_as(struct lh_log_who who)
{
    struct lh_log_who before = speaker;
    speaker = who;
    return before;
}

/* --- a line ------------------------------------------------------------------------------------
 */
struct line {
    char text[LINE_MAX_];
    size_t n;
    bool json;
};

__attribute__((format(printf, 2, 3))) static void put(struct line *l, const char *fmt, ...)
{
    va_list ap;
    size_t room = sizeof l->text - l->n;
    va_start(ap, fmt);
    int n = vsnprintf(l->text + l->n, room, fmt, ap);
    va_end(ap);
    l->n += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* Bytes of the UTF-8 sequence at s; 0 if it is none. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80                    ? 1
               : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
               : s[0] >= 0xe0 && s[0] <= 0xef ? 3
               : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                              : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0; /* too long for what it says, a surrogate, or beyond Unicode */
    return n;
}

/* The same escapes in both formats: JSON's. */
static void put_escaped(struct line *l, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s && l->n + TAIL + ESCAPE_MAX < sizeof l->text) {
        size_t n = utf8_length(s);
        if (n == 0)
            put(l, "\\ufffd");
        else if (*s == '"' || *s == '\\')
            put(l, "\\%c", *s);
        else if (*s == '\n')
            put(l, "\\n");
        else if (*s == '\t')
            put(l, "\\t");
        else if (*s == '\r')
            put(l, "\\r");
        else if (*s < 0x20 || *s == 0x7f)
            put(l, "\\u%04x", *s);
        else
            put(l, "%.*s", (int)n, (const char *)s);
        s += n ? n : 1;
    }
}

/* logfmt leaves a word without quotation marks. */
static bool is_word(const char *s)
{
    const char *const others = "_-./:@%+,";
    size_t n = 0;
    for (; s[n]; n++)
        if (!(s[n] >= 'a' && s[n] <= 'z') && !(s[n] >= 'A' && s[n] <= 'Z') &&
            !(s[n] >= '0' && s[n] <= '9') && !strchr(others, s[n]))
            return false;
    return n > 0;
}

static void put_key(struct line *l, const char *key)
{
    const size_t begin = l->json ? 1 : 0; /* behind the brace */
    const char *comma = l->n == begin ? "" : l->json ? "," : " ";
    put(l, l->json ? "%s\"%s\":" : "%s%s=", comma, key);
}

static void put_text(struct line *l, const char *key, const char *text)
{
    put_key(l, key);
    bool bare = !l->json && is_word(text);
    put(l, bare ? "" : "\"");
    put_escaped(l, text);
    put(l, bare ? "" : "\"");
}

static void put_field(struct line *l, const struct lh_log_field *f)
{
    if (l->n + TAIL >= sizeof l->text)
        return;
    switch (f->type) {
    case LH_FIELD_TEXT:
        put_text(l, f->key, f->text ? f->text : "");
        break;
    case LH_FIELD_WHOLE:
        put_key(l, f->key);
        put(l, "%llu", (unsigned long long)f->whole);
        break;
    case LH_FIELD_NUMBER:
        put_key(l, f->key);
        put(l, !isfinite(f->number) && l->json ? "null" : "%.9g", f->number);
        break;
    case LH_FIELD_FLAG:
        put_key(l, f->key);
        put(l, "%s", f->whole ? "true" : "false");
        break;
    case LH_FIELD_END:
        break;
    }
}

static void put_time(struct line *l)
{
    char text[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
    put_text(l, "time", text);
}

static void put_event(struct line *l, enum lh_log_level level, const char *event,
                      const struct lh_log_field *fields, const char *sentence)
{
    put(l, l->json ? "{" : "");
    put_time(l);
    put_text(l, "level", lh_log_levels[level]);
    if (speaker.role) {
        put_text(l, "role", speaker.role);
        put_key(l, "node");
        put(l, "%u", speaker.node);
    }
    put_text(l, "event", event);
    for (; fields && fields->type != LH_FIELD_END; fields++)
        put_field(l, fields);
    if (sentence && l->n + TAIL < sizeof l->text)
        put_text(l, "msg", sentence);
    put(l, l->json ? "}\n" : "\n");
}

static void put_plain(struct line *l, const char *event, const struct lh_log_field *fields,
                      const char *sentence)
{
    put(l, "%slonghaul: ", isatty(STDERR_FILENO) ? "\r\033[K" : ""); /* a bar may stand there */
    if (sentence) {
        size_t begin = l->n;
        put(l, "%s\n", sentence);
        for (size_t i = begin; i < l->n; i++) /* what a peer sent must not steer a terminal */
            if ((unsigned char)l->text[i] < 0x20 && !strchr("\n\t", l->text[i]))
                l->text[i] = '?';
        return;
    }
    put(l, "%s", event);
    for (; fields && fields->type != LH_FIELD_END; fields++)
        put_field(l, fields);
    put(l, "\n");
}

static void write_line(enum lh_log_level level, const char *event,
                       const struct lh_log_field *fields, const char *sentence)
{
    struct line l;
    enum lh_log_format format = lh_log_format_now();
    int most = atomic_load_explicit(&level_now, memory_order_relaxed);
    if ((int)level > most || (format == LH_LOG_TEXT && !sentence && most < LH_LOG_DEBUG))
        return;
    l.n = 0;
    l.json = format == LH_LOG_JSON;
    if (format == LH_LOG_TEXT)
        put_plain(&l, event, fields, sentence);
    else
        put_event(&l, level, event, fields, sentence);
    if (l.text[l.n - 1] != '\n') /* a sentence of its own length, in plain text */
        l.text[l.n - 1] = '\n';
    fwrite(l.text, 1, l.n, stderr); /* unbuffered: one write */
}

void lh_log_tell_v(enum lh_log_level level, const char *event, const struct lh_log_field *fields,
                   const char *fmt, va_list ap)
{
    char sentence[1024];
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    write_line(level, event, fields, sentence);
}

void lh_log_tell(enum lh_log_level level, const char *event, const struct lh_log_field *fields,
                 const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    lh_log_tell_v(level, event, fields, fmt, ap);
    va_end(ap);
}

void lh_log_event(enum lh_log_level level, const char *event, const struct lh_log_field *fields)
{
    write_line(level, event, fields, NULL);
}
