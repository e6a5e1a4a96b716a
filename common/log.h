/* Events of a run, one a line on standard error: a name, fields, and for people a sentence. How a
 * line is written is the process' choice:
 *
 *   text     longhaul: a worker joined: process 4711 on host-3
 *   logfmt   time=2026-11-24T09:31:29.123Z level=info role=scheduler node=0 event=join … msg="…"
 *   json     {"time":"2026-11-24T09:31:29.123Z","level":"info","role":"scheduler","node":0,…}
 *
 * Text shows what has a sentence, and at level debug the rest too. Values are escaped, so that an
 * event is a line and a line an event, whatever a path or a peer contains; one write a line, so
 * that those of several threads and processes do not mix.
 *
 *   lh_log_tell(LH_LOG_INFO, "join", LH_FIELDS(LH_F("process", node->pid), LH_F("host",
 * node->host)), "a worker joined: process %llu on %s", …);
 *
 * Format and level are the process', as its standard error is: the one state here, beside who
 * speaks on a thread. Allocates nothing. Any thread. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lh_log_level { LH_LOG_ERROR, LH_LOG_WARN, LH_LOG_INFO, LH_LOG_DEBUG };
enum lh_log_format { LH_LOG_TEXT, LH_LOG_LOGFMT, LH_LOG_JSON };
extern const char *const lh_log_levels[]; /* their names; NULL-terminated */
extern const char *const lh_log_formats[];

/* Text at level info, where nothing else is said. */
void lh_log_setup(enum lh_log_format format, enum lh_log_level level);
/* LONGHAUL_LOG=FORMAT[,LEVEL]: holds for this process and those it starts, and before a job's
 * log.format and log.level. Errors: LH_EUSAGE for a value that is none. */
int lh_log_environment(void);
/* What a job says: as lh_log_setup, unless the environment has spoken. */
void lh_log_adopt(enum lh_log_format format, enum lh_log_level level);
enum lh_log_format lh_log_format_now(void);

/* Who speaks on this thread from now on; returns who did before. role NULL: nobody in particular.
 */
struct lh_log_who {
    const char *role; /* static storage */
    uint32_t node;
};
struct lh_log_who lh_log_as(struct lh_log_who who);

enum lh_field_type { LH_FIELD_END, LH_FIELD_TEXT, LH_FIELD_WHOLE, LH_FIELD_NUMBER, LH_FIELD_FLAG };
struct lh_log_field {
    const char *key; /* small letters and _ */
    enum lh_field_type type;
    const char *text;
    uint64_t whole;
    double number;
};

static inline struct lh_log_field lh_log_text(const char *key, const char *v)
{
    return (struct lh_log_field){.key = key, .type = LH_FIELD_TEXT, .text = v};
}
static inline struct lh_log_field lh_log_whole(const char *key, uint64_t v)
{
    return (struct lh_log_field){.key = key, .type = LH_FIELD_WHOLE, .whole = v};
}
static inline struct lh_log_field lh_log_number(const char *key, double v)
{
    return (struct lh_log_field){.key = key, .type = LH_FIELD_NUMBER, .number = v};
}
static inline struct lh_log_field lh_log_flag(const char *key, bool v)
{
    return (struct lh_log_field){.key = key, .type = LH_FIELD_FLAG, .whole = v};
}

/* A field by the type of its value; texts are loans until the call returns. */
#define LH_F(key, v)                                                                               \
    _Generic((v),                                                                                  \
        char *: lh_log_text,                                                                     \
        const char *: lh_log_text,                                                               \
        float: lh_log_number,                                                                    \
        double: lh_log_number,                                                                   \
        bool: lh_log_flag,                                                                       \
        default: lh_log_whole)(key, v)
#define LH_FIELDS(...)                                                                             \
    (const struct lh_log_field[])                                                                  \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

/* `fields` may be NULL. A sentence of lh_log_tell is as those of lh_note (term.h). */
void lh_log_tell(enum lh_log_level level, const char *event, const struct lh_log_field *fields,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void lh_log_tell_v(enum lh_log_level level, const char *event, const struct lh_log_field *fields,
                   const char *fmt, va_list ap);
/* Without a sentence: for machines, and for people who debug. */
void lh_log_event(enum lh_log_level level, const char *event, const struct lh_log_field *fields);
