/* Option tables: parsing, complaints that name the nearest option, manual pages. Knows no command:
 * commands.c does. The flag set by signals lives here because a signal handler has
 * nothing but file scope to write to. */
#include "cluster/cli.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_WIDTH 80

static atomic_int interrupted; /* by which signal; 0: not */

static void on_signal(int signal)
{
    atomic_store(&interrupted, signal);
}

void lh_cli_catch_signals(void)
{
    struct sigaction on = {.sa_handler = on_signal};
    sigemptyset(&on.sa_mask);
    /* Batch systems send SIGTERM to a script and to what it started, which the script passes it on
     * to: any number of them is one. A second interrupt from the keyboard ends the program. */
    sigaction(SIGTERM, &on, NULL);
    sigaction(SIGUSR1, &on, NULL); /* ahead of such an end; mpirun hands it on at once */
    on.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &on, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

bool lh_cli_interrupted(void)
{
    return atomic_load(&interrupted) != 0;
}

bool lh_cli_ending(void)
{
    return atomic_load(&interrupted) == SIGTERM;
}

/* --- manual pages -------------------------------------------------------------------------- */

/* Writes the words of one paragraph line by line; returns when text[0 .. n) is done. */
static void fold_paragraph(FILE *to, const char *text, size_t n, int indent, int width)
{
    int column = 0;
    for (size_t i = 0; i < n;) {
        while (i < n && (text[i] == ' ' || text[i] == '\n'))
            i++;
        size_t start = i;
        while (i < n && text[i] != ' ' && text[i] != '\n')
            i++;
        int word = (int)(i - start);
        if (word == 0)
            break;
        if (column > 0 && column + 1 + word > width - indent) {
            fputc('\n', to);
            column = 0;
        }
        if (column == 0)
            fprintf(to, "%*s", indent, "");
        else
            column += fprintf(to, " ");
        column += fprintf(to, "%.*s", word, text + start);
    }
    if (column > 0)
        fputc('\n', to);
}

void lh_cli_fold(FILE *to, const char *text, int indent, int width)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (n == 0) {
            fputc('\n', to);
        } else if (strncmp(text, "  ", 2) == 0) {
            fprintf(to, "%*s%.*s\n", indent, "", (int)n, text);
        } else {
            /* a paragraph: up to an empty line or one to be kept */
            while (text[n] == '\n' && text[n + 1] && text[n + 1] != '\n' &&
                   strncmp(text + n + 1, "  ", 2) != 0)
                n += 1 + strcspn(text + n + 1, "\n");
            fold_paragraph(to, text, n, indent, width);
        }
        text += n + (text[n] == '\n');
    }
}

static void print_default(const struct lh_opt *o, char *out, size_t size)
{
    out[0] = '\0';
    switch (o->kind) {
    case LH_OPT_FLAG:
        if (*(const bool *)o->value)
            snprintf(out, size, " On by default; --no-%s turns it off.", o->name);
        break;
    case LH_OPT_STRING: {
        const char *s = *(const char *const *)o->value;
        if (s && *s)
            snprintf(out, size, isalnum((unsigned char)*s) ? " Default: %s." : " Default: '%s'.",
                     s);
        break;
    }
    case LH_OPT_INT:
        snprintf(out, size, " Default: %lld.", (long long)*(const int64_t *)o->value);
        break;
    case LH_OPT_DOUBLE:
        if (!isnan(*(const double *)o->value))
            snprintf(out, size, " Default: %g.", *(const double *)o->value);
        break;
    case LH_OPT_CHOICE: {
        int i = *(const int *)o->value;
        if (i >= 0)
            snprintf(out, size, " Default: %s.", o->choices[i]);
        break;
    }
    case LH_OPT_LIST:
        if (!strstr(o->help, "several times"))
            snprintf(out, size, " May be given several times.");
        break;
    }
}

static void print_usage_lines(FILE *to, const struct lh_cmd *cmd, const char *before)
{
    for (const char *u = cmd->usage;; u++) {
        size_t n = strcspn(u, "\n");
        fprintf(to, "%slonghaul %s %.*s\n", before, cmd->name, (int)n, u);
        u += n;
        if (!*u)
            return;
    }
}

/* "-w, --workers N" */
static void option_label(const struct lh_opt *o, char *out, size_t size)
{
    char letter[8] = "";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    char choices[160] = "";
    if (o->kind == LH_OPT_CHOICE && !o->metavar) {
        size_t used = 0;
        for (size_t i = 0; o->choices[i] && used < sizeof choices; i++)
            used += (size_t)snprintf(choices + used, sizeof choices - used, "%s%s", i ? "|" : "",
                                     o->choices[i]);
    }
    const char *metavar = o->kind == LH_OPT_FLAG ? "" : o->metavar ? o->metavar : choices;
    snprintf(out, size, "%s--%s%s%s", letter, o->name, *metavar ? " " : "", metavar);
}

static const struct lh_opt help_opt = {
    .name = "help", .letter = 'h', .kind = LH_OPT_FLAG, .help = "Show this page."};

struct exit_line {
    int status;
    const char *text;
};

static const struct exit_line exit_lines[] = {
    {0, "success"},
    {1, "a bug in longhaul; please report it"},
    {2, "the command line is not understood"},
    {3, "configuration, schema or data are wrong, corrupt or do not fit together"},
    {4, "a file is missing, exists already, is in use or cannot be read or written; disk full"},
    {5, "out of memory"},
    {6, "a peer broke the protocol, went away or missed a deadline"},
    {7, "training diverged"},
    {130, "interrupted"},
};

static void page_as_text(FILE *to, const struct lh_cmd *cmd, const struct lh_opt *opts, size_t n)
{
    fprintf(to, "NAME\n    longhaul %s - %s\n\nSYNOPSIS\n", cmd->name, cmd->summary);
    print_usage_lines(to, cmd, "    ");
    fputs("\nDESCRIPTION\n", to);
    lh_cli_fold(to, cmd->description, 4, PAGE_WIDTH);
    fputs("\nOPTIONS\n", to);
    for (size_t i = 0; i <= n; i++) {
        const struct lh_opt *o = i < n ? &opts[i] : &help_opt;
        char label[256], text[1024], given[160] = "";
        option_label(o, label, sizeof label);
        if (o->value)
            print_default(o, given, sizeof given);
        snprintf(text, sizeof text, "%s%s", o->help, given);
        fprintf(to, "    %s\n", label);
        lh_cli_fold(to, text, 8, PAGE_WIDTH);
    }
    if (cmd->examples && *cmd->examples) {
        fputs("\nEXAMPLES\n", to);
        for (const char *e = cmd->examples; *e;) {
            size_t k = strcspn(e, "\n");
            fprintf(to, k ? "    %.*s\n" : "%.*s\n", (int)k, e);
            e += k + (e[k] == '\n');
        }
    }
    fputs("\nEXIT STATUS\n", to);
    for (size_t i = 0; i < sizeof exit_lines / sizeof *exit_lines; i++)
        fprintf(to, "    %-4d %s\n", exit_lines[i].status, exit_lines[i].text);
}

/* No line may begin with a control character; '-' and '\' are escaped. */
static void roff_run(FILE *to, const char *s, size_t n)
{
    bool fresh = true;
    for (size_t i = 0; i < n; i++) {
        if (fresh && (s[i] == '.' || s[i] == '\''))
            fputs("\\&", to);
        fresh = s[i] == '\n';
        if (s[i] == '\\')
            fputs("\\e", to);
        else if (s[i] == '-')
            fputs("\\-", to);
        else
            fputc(s[i], to);
    }
}

void lh_cli_roff_text(FILE *to, const char *text)
{
    roff_run(to, text, strlen(text));
}

void lh_cli_roff_paragraphs(FILE *to, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        bool kept = strncmp(text, "  ", 2) == 0;
        if (n == 0)
            fputs(".PP\n", to);
        if (kept)
            fputs(".nf\n", to);
        roff_run(to, text, n);
        if (n > 0)
            fputc('\n', to);
        if (kept)
            fputs(".fi\n", to);
        text += n + (text[n] == '\n');
    }
}

static void page_as_roff(FILE *to, const struct lh_cmd *cmd, const struct lh_opt *opts, size_t n)
{
    fprintf(to, ".TH LONGHAUL-%s 1 \"\" \"longhaul " LH_VERSION "\" \"longhaul\"\n", cmd->name);
    fprintf(to, ".SH NAME\nlonghaul\\-%s \\- ", cmd->name);
    lh_cli_roff_text(to, cmd->summary);
    fputs("\n.SH SYNOPSIS\n.nf\n", to);
    print_usage_lines(to, cmd, "");
    fputs(".fi\n.SH DESCRIPTION\n", to);
    lh_cli_roff_paragraphs(to, cmd->description);
    fputs(".SH OPTIONS\n", to);
    for (size_t i = 0; i <= n; i++) {
        const struct lh_opt *o = i < n ? &opts[i] : &help_opt;
        char label[256], given[160] = "";
        option_label(o, label, sizeof label);
        if (o->value)
            print_default(o, given, sizeof given);
        fputs(".TP\n.B ", to);
        lh_cli_roff_text(to, label);
        fputc('\n', to);
        lh_cli_roff_text(to, o->help);
        lh_cli_roff_text(to, given);
        fputc('\n', to);
    }
    if (cmd->examples && *cmd->examples) {
        fputs(".SH EXAMPLES\n.nf\n", to);
        lh_cli_roff_text(to, cmd->examples);
        fputs("\n.fi\n", to);
    }
    fputs(".SH \"EXIT STATUS\"\n", to);
    for (size_t i = 0; i < sizeof exit_lines / sizeof *exit_lines; i++)
        fprintf(to, ".TP\n%d\n%s\n", exit_lines[i].status, exit_lines[i].text);
    fputs(".SH \"SEE ALSO\"\nlonghaul(1)\n", to);
}

/* --- parsing ------------------------------------------------------------------------------- */

struct parser {
    const struct lh_cmd *cmd;
    const struct lh_opt *opts;
    size_t n_opts;
};

static int unknown_option(const struct parser *p, const char *name)
{
    enum { MAX = 64 };
    const char *names[MAX + 1];
    size_t n = 0;
    for (; n < p->n_opts && n < MAX; n++)
        names[n] = p->opts[n].name;
    names[n++] = "help";
    const char *near = lh_yaml_nearest(name, names, n);
    if (near)
        return lh_err_set(LH_EUSAGE, "%s: unknown option '--%s'; did you mean '--%s'?",
                          p->cmd->name, name, near);
    return lh_err_set(LH_EUSAGE, "%s: unknown option '--%s'; 'longhaul %s --help' lists them",
                      p->cmd->name, name, p->cmd->name);
}

static int bad_value(const struct parser *p, const struct lh_opt *o, const char *value,
                     const char *expected)
{
    return lh_err_set(LH_EUSAGE, "%s: --%s %s: expected %s", p->cmd->name, o->name, value,
                      expected);
}

static int out_of_range(const struct parser *p, const struct lh_opt *o, const char *value)
{
    char expected[96];
    if (o->max == INT64_MAX)
        snprintf(expected, sizeof expected, "%lld or more", (long long)o->min);
    else
        snprintf(expected, sizeof expected, "%lld to %lld", (long long)o->min, (long long)o->max);
    return bad_value(p, o, value, expected);
}

static int take_int(const struct parser *p, const struct lh_opt *o, const char *value)
{
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (end == value || *end || errno)
        return bad_value(p, o, value, "a whole number");
    if (o->min != o->max && (v < o->min || v > o->max))
        return out_of_range(p, o, value);
    *(int64_t *)o->value = v;
    return 0;
}

static int take_choice(const struct parser *p, const struct lh_opt *o, const char *value)
{
    char all[256] = "";
    size_t used = 0;
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], value) == 0) {
            *(int *)o->value = i;
            return 0;
        }
        if (used < sizeof all)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? " or " : "",
                                     o->choices[i]);
    }
    return bad_value(p, o, value, all);
}

static int take_value(const struct parser *p, const struct lh_opt *o, const char *value)
{
    switch (o->kind) {
    case LH_OPT_STRING:
        if (!*value) /* of a shell's variable that is not set: not the root directory */
            return lh_err_set(LH_EUSAGE, "%s: --%s is empty; give it a value, or leave it out",
                              p->cmd->name, o->name);
        *(const char **)o->value = value;
        return 0;
    case LH_OPT_INT:
        return take_int(p, o, value);
    case LH_OPT_DOUBLE: {
        char *end;
        double v = strtod(value, &end);
        if (end == value || *end || !isfinite(v))
            return bad_value(p, o, value, "a number");
        if (o->min != o->max && (v < (double)o->min || v > (double)o->max))
            return out_of_range(p, o, value);
        *(double *)o->value = v;
        return 0;
    }
    case LH_OPT_CHOICE:
        return take_choice(p, o, value);
    case LH_OPT_LIST: {
        struct lh_opt_list *list = o->value;
        LH_TRY(lh_mem_realloc((void **)&list->items, list->n + 1, sizeof *list->items,
                              "list of options"));
        list->items[list->n++] = value;
        return 0;
    }
    case LH_OPT_FLAG:
        break;
    }
    return lh_err_set(LH_EINTERNAL, "%s: option --%s has no kind", p->cmd->name, o->name);
}

static const struct lh_opt *find_long(const struct parser *p, const char *name, size_t n)
{
    for (size_t i = 0; i < p->n_opts; i++)
        if (strncmp(p->opts[i].name, name, n) == 0 && p->opts[i].name[n] == '\0')
            return &p->opts[i];
    return NULL;
}

static const struct lh_opt *find_letter(const struct parser *p, char letter)
{
    for (size_t i = 0; i < p->n_opts; i++)
        if (p->opts[i].letter == letter)
            return &p->opts[i];
    return NULL;
}

/* The option in argv[*i], which begins with '-', and its value. */
static int parse_option(const struct parser *p, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const struct lh_opt *o;
    bool on = true;
    if (arg[1] == '-') {
        const char *name = arg + 2;
        size_t n = strcspn(name, "=");
        if (name[n])
            value = name + n + 1;
        o = find_long(p, name, n);
        if (!o && strncmp(name, "no-", 3) == 0) {
            o = find_long(p, name + 3, n - 3);
            if (o && o->kind != LH_OPT_FLAG)
                o = NULL;
            on = false;
        }
        if (!o) {
            char bare[64];
            snprintf(bare, sizeof bare, "%.*s", (int)n, name);
            return unknown_option(p, bare);
        }
    } else {
        o = find_letter(p, arg[1]);
        if (!o)
            return lh_err_set(LH_EUSAGE,
                              "%s: unknown option '%.2s'; 'longhaul %s --help' lists them",
                              p->cmd->name, arg, p->cmd->name);
        if (arg[2])
            value = arg + 2;
    }
    if (o->kind == LH_OPT_FLAG) {
        if (value)
            return lh_err_set(LH_EUSAGE, "%s: --%s takes no value; leave '%s' out", p->cmd->name,
                              o->name, value);
        *(bool *)o->value = on;
        return 0;
    }
    if (!value) {
        if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
            return lh_err_set(LH_EUSAGE, "%s: --%s needs a value: --%s %s", p->cmd->name, o->name,
                              o->name, o->metavar ? o->metavar : "VALUE");
        value = argv[++*i];
    }
    return take_value(p, o, value);
}

static int help_asked(const struct parser *p, const char *arg, bool *roff)
{
    *roff = strcmp(arg, "--help=man") == 0;
    return *roff || strcmp(arg, "--help") == 0 || (strcmp(arg, "-h") == 0 && !find_letter(p, 'h'));
}

static int too_few(const struct parser *p)
{
    return lh_err_set(LH_EUSAGE, "%s: an argument is missing; usage: longhaul %s %.*s",
                      p->cmd->name, p->cmd->name, (int)strcspn(p->cmd->usage, "\n"), p->cmd->usage);
}

int lh_cli_parse(const struct lh_cmd *cmd, const struct lh_opt *opts, size_t n_opts, int argc,
                 char **argv, const char **positional, size_t min_positional, size_t max_positional,
                 size_t *n_positional)
{
    const struct parser p = {.cmd = cmd, .opts = opts, .n_opts = n_opts};
    size_t n = 0;
    int rc = 0;
    bool roff, ended = false;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (help_asked(&p, argv[i], &roff)) {
            (roff ? page_as_roff : page_as_text)(stdout, cmd, opts, n_opts);
            return LH_AGAIN;
        }
    }
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!ended && strcmp(arg, "--") == 0) {
            ended = true;
        } else if (!ended && arg[0] == '-' && arg[1]) {
            LH_TRY_TO(fail, parse_option(&p, argc, argv, &i));
        } else if (n == max_positional) {
            rc = lh_err_set(LH_EUSAGE, "%s: one argument too many: '%s'; usage: longhaul %s %.*s",
                            cmd->name, arg, cmd->name, (int)strcspn(cmd->usage, "\n"), cmd->usage);
            goto fail;
        } else {
            if (!*arg) {
                rc = lh_err_set(LH_EUSAGE, "%s: an argument is empty; usage: longhaul %s %.*s",
                                cmd->name, cmd->name, (int)strcspn(cmd->usage, "\n"), cmd->usage);
                goto fail;
            }
            positional[n++] = arg;
        }
    }
    if (n < min_positional) {
        rc = too_few(&p);
        goto fail;
    }
    if (n_positional)
        *n_positional = n;
    return 0;
fail:
    lh_cli_fini(opts, n_opts);
    return rc;
}

void lh_cli_fini(const struct lh_opt *opts, size_t n_opts)
{
    for (size_t i = 0; i < n_opts; i++) {
        if (opts[i].kind != LH_OPT_LIST)
            continue;
        struct lh_opt_list *list = opts[i].value;
        lh_mem_free(list->items);
        *list = (struct lh_opt_list){0};
    }
}
