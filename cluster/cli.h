/* The command line: one table per subcommand drives parsing, --help (man-page quality) and checks.
 * A subcommand is one file cmd_<name>.c with one `const struct lh_cmd lh_cmd_<name>`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum lh_opt_kind {
    LH_OPT_FLAG,   /* bool */
    LH_OPT_STRING, /* const char * */
    LH_OPT_INT,    /* int64_t */
    LH_OPT_DOUBLE, /* double */
    LH_OPT_CHOICE, /* int: index into `choices` */
    LH_OPT_LIST    /* struct lh_opt_list: may be given several times */
};

struct lh_opt_list {
    const char **items;
    size_t n;
};

struct lh_opt {
    const char *name; /* "workers" for --workers; no dashes */
    char letter;      /* 'w' for -w; 0 for none */
    enum lh_opt_kind kind;
    void *value;                /* where it goes; holds the default before */
    const char *metavar;        /* "N", "DIR"; NULL for a flag */
    const char *help;           /* one or more sentences; the default is appended from `value` */
    int64_t min, max;           /* of INT and DOUBLE; min == max: unchecked */
    const char *const *choices; /* NULL-terminated */
};

struct lh_cmd {
    const char *name, *summary;        /* summary: one line, no full stop */
    const char *usage;                 /* "JOB.yaml [options]"; '\n' between several forms */
    const char *description;           /* paragraphs, a blank line between them; lines that start
                                          with two spaces are kept as they stand */
    const char *examples;              /* lines, kept as they stand */
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand; returns 0 or an LH_E code */
};

/* Parses argv after argv[0]: --name value, --name=value, -n value, flags (--no-name turns one off),
 * "--" ends options, "-" is a positional. Positionals go to `positional` (at most max_positional,
 * at least min_positional); they and string values are loans from argv. --help prints the manual
 * page
 * (--help=man: as roff) and returns LH_AGAIN: the command then returns, main takes it for success.
 * Errors: LH_EUSAGE with the nearest option. Lists are allocated; release with lh_cli_fini after
 * success (a failed parse has released them). */
int lh_cli_parse(const struct lh_cmd *cmd, const struct lh_opt *opts, size_t n_opts, int argc,
                 char **argv, const char **positional, size_t min_positional, size_t max_positional,
                 size_t *n_positional);
void lh_cli_fini(const struct lh_opt *opts, size_t n_opts);

/* From now on SIGINT, SIGTERM and SIGUSR1 set a flag (a second SIGINT ends the process as usual)
 * and SIGPIPE is ignored: a closed pipe is an error of write. So is SIGXFSZ: a file past its limit,
 * likewise.
 */
void lh_cli_catch_signals(void);
/* True after such a signal; long loops look at it and return LH_ECANCELED. Any thread. */
bool lh_cli_interrupted(void);
/* Whether it was SIGTERM, behind which SIGKILL may come. */
bool lh_cli_ending(void);

/* Folds the words of `text` to `width` columns behind `indent` blanks and writes them. Lines that
 * start with two blanks are kept. */
void lh_cli_fold(FILE *to, const char *text, int indent, int width);

/* The same text as roff paragraphs, and `text` escaped for roff without any folding. */
void lh_cli_roff_paragraphs(FILE *to, const char *text);
void lh_cli_roff_text(FILE *to, const char *text);
