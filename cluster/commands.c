/* The table of subcommands. A new one is its file cmd_<name>.c and two lines here. */
#include "cluster/commands.h"

#include "common/err.h"
#include "common/yaml.h"

#include <string.h>

extern const struct lh_cmd lh_cmd_act;
extern const struct lh_cmd lh_cmd_evaluate;
extern const struct lh_cmd lh_cmd_export;
extern const struct lh_cmd lh_cmd_help;
extern const struct lh_cmd lh_cmd_import;
extern const struct lh_cmd lh_cmd_inspect;
extern const struct lh_cmd lh_cmd_init;
extern const struct lh_cmd lh_cmd_keygen;
extern const struct lh_cmd lh_cmd_scheduler;
extern const struct lh_cmd lh_cmd_server;
extern const struct lh_cmd lh_cmd_simulate;
extern const struct lh_cmd lh_cmd_status;
extern const struct lh_cmd lh_cmd_step;
extern const struct lh_cmd lh_cmd_top;
extern const struct lh_cmd lh_cmd_train;
extern const struct lh_cmd lh_cmd_worker;

/* One a line. */
/* clang-format off */
static const struct lh_cmd *const commands[] = {
    &lh_cmd_init,
    &lh_cmd_import,
    &lh_cmd_inspect,
    &lh_cmd_simulate,
    &lh_cmd_train,
    &lh_cmd_status,
    &lh_cmd_top,
    &lh_cmd_evaluate,
    &lh_cmd_export,
    &lh_cmd_act,
    &lh_cmd_server,
    &lh_cmd_worker,
    &lh_cmd_scheduler,
    &lh_cmd_keygen,
    &lh_cmd_step,
    &lh_cmd_help,
    NULL,
};
/* clang-format on */

const struct lh_cmd *const *lh_commands_all(void)
{
    return commands;
}

const struct lh_cmd *lh_commands_find(const char *name)
{
    for (size_t i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

int lh_commands_unknown(const char *name)
{
    enum { N = sizeof commands / sizeof *commands - 1 };
    const char *names[N];
    for (size_t i = 0; i < N; i++)
        names[i] = commands[i]->name;
    const char *near = lh_yaml_nearest(name, names, N);
    if (near)
        return lh_err_set(LH_EUSAGE, "unknown command '%s'; did you mean '%s'?", name, near);
    return lh_err_set(LH_EUSAGE, "unknown command '%s'; 'longhaul help' lists them", name);
}

#define WHAT_IT_IS                                                                                 \
    "longhaul trains recommendation policies for long-term engagement, offline, from logged\n"     \
    "interactions, on parameter servers, and ships the result.\n"

void lh_commands_overview(FILE *to)
{
    fputs(WHAT_IT_IS "\n"
                     "usage: longhaul COMMAND [arguments] [options]\n\ncommands:\n",
          to);
    for (size_t i = 0; commands[i]; i++)
        fprintf(to, "  %-11s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'longhaul help COMMAND' or 'longhaul COMMAND --help' shows its manual page,\n"
          "'longhaul help job' every key of a job file, 'longhaul --version' the version.\n",
          to);
}

void lh_commands_overview_roff(FILE *to)
{
    fputs(".TH LONGHAUL 1 \"\" \"longhaul " LH_VERSION "\" \"longhaul\"\n"
          ".SH NAME\nlonghaul \\- train recommendation policies for long\\-term engagement\n"
          ".SH SYNOPSIS\nlonghaul COMMAND [arguments] [options]\n.SH DESCRIPTION\n",
          to);
    lh_cli_roff_paragraphs(to, WHAT_IT_IS);
    fputs(".SH COMMANDS\n", to);
    for (size_t i = 0; commands[i]; i++) {
        fprintf(to, ".TP\n.BR longhaul\\-%s (1)\n", commands[i]->name);
        lh_cli_roff_text(to, commands[i]->summary);
        fputc('\n', to);
    }
    fputs(".SH \"SEE ALSO\"\n.BR longhaul\\-job (5)\n", to);
}
