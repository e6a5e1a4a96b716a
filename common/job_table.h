/* The keys of a job file: what loading, printing, the digest and `longhaul help job` walk. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum lh_job_key_type {
    LH_KEY_TEXT,   /* const char * */
    LH_KEY_WORD,   /* const char *, one of `words` */
    LH_KEY_PATH,   /* const char *, made absolute; words[0], if any, is no path */
    LH_KEY_ENUM,   /* enum (int): index into `words` */
    LH_KEY_BOOL,   /* bool */
    LH_KEY_U32,    /* uint32_t */
    LH_KEY_U64,    /* uint64_t or size_t, which are one on the machines we run on */
    LH_KEY_DOUBLE, /* double */
    LH_KEY_WIDTHS, /* hidden[], n_hidden */
    LH_KEY_HEX     /* uint64_t, written in hexadecimal */
};

struct lh_job_key {
    const char *section; /* NULL: top level */
    const char *name;
    enum lh_job_key_type type;
    size_t offset;            /* in struct lh_job */
    double number;            /* default of numbers, flags, enums */
    const char *text;         /* default of texts; NULL: none */
    double min, max;          /* inclusive */
    const char *const *words; /* NULL-terminated */
    const char *unit;
    bool digested; /* the weights depend on it */
    bool younger;  /* than runs that can still be resumed: at its default it is not digested */
    bool resolved; /* written by longhaul, not by people */
    const char *doc;
};

#define LH_JOB_KEYS_MAX 64

extern const struct lh_job_key lh_job_keys[];
extern const size_t lh_job_n_keys;

struct lh_job;
/* Where the key's value lies. */
static inline const void *lh_job_member(const struct lh_job *job, const struct lh_job_key *k)
{
    return (const char *)job + k->offset;
}

/* Whether that is a const char *. */
static inline bool lh_job_key_is_text(const struct lh_job_key *k)
{
    return k->type == LH_KEY_TEXT || k->type == LH_KEY_WORD || k->type == LH_KEY_PATH;
}
